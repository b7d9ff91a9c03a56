//! How an actor stands: as its threads hand it on ([`ActorReport`]), and as every face shows it ([`ActorMetrics`]).

use super::link::ActorStats;
use super::real_time::{Counts, Jitter};

/// How an actor stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActorReport {
    /// Steps.
    pub steps: u64,
    /// Episodes that ended.
    pub episodes: u64,
    /// The return of the training episode that ended last, as the environment gives it.
    pub last_return: Option<f64>,
    /// The same, of the evaluation that ended last.
    pub last_evaluation: Option<f64>,
    /// The version of the weights that act; 0: none.
    pub version: u32,
    /// Nanoseconds from one deadline to the next; 0 without a frequency.
    pub period: u64,
    /// The loop's counts; all but `steps` are 0 without a frequency.
    pub counts: Counts,
    /// The loop's jitter in nanoseconds.
    pub jitter: Jitter,
    /// Steps from the newest row behind the acting weights to the newest row: half of all steps, 99 of 100, and all.
    pub staleness: [u64; 3],
    /// Rows that were recorded.
    pub recorded: u64,
    /// Rows that the learner has for good.
    pub acknowledged: u64,
    /// Rows that are held and not acknowledged.
    pub held: u64,
    /// Updates that the learner owes.
    pub backlog: u64,
    /// Whether a session is agreed upon.
    pub connected: bool,
    /// What the link counted.
    pub link: ActorStats,
    /// What went wrong last with the connection.
    pub problem: Option<String>,
}

/// How an actor stands, as `oto act --json`, a page and a WASI host show it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ActorMetrics {
    /// Steps so far.
    pub steps: u64,
    /// Episodes that ended.
    pub episodes: u64,
    /// Return of the training episode that ended last, by the environment's own rewards.
    #[cfg_attr(feature = "schema", schemars(rename = "return"))]
    pub last_return: Option<f64>,
    /// Return of the evaluation that ended last.
    pub evaluation: Option<f64>,
    /// Version of the weights that act; 0 while there are none.
    pub version: u32,
    /// Steps a second of the loop; null without a clock.
    pub hz: Option<f64>,
    /// Deadlines at which no step began.
    pub missed: u64,
    /// Steps in which the environment took longer than a period.
    pub blocked: u64,
    /// Observations that came after the deadline of the step that acts on them.
    pub late_sensor: u64,
    /// Steps with the safe action, because there were no weights.
    pub safe: u64,
    /// The longest step of the environment, in microseconds.
    pub longest_block_us: f64,
    /// Distance of steps from their deadlines, in microseconds.
    pub jitter_us: JitterTimes,
    /// Steps from the newest row behind the acting weights to the newest row.
    pub staleness: Staleness,
    /// Rows recorded so far: one for each step, and one for each end of an episode.
    pub recorded: u64,
    /// Rows that the learner has for good.
    pub acknowledged: u64,
    /// Rows that are held and not acknowledged.
    pub held: u64,
    /// Updates that the learner owes.
    pub backlog: u64,
    /// Whether a session is agreed upon.
    pub connected: bool,
    /// What went wrong last with the connection; null while all is well.
    pub problem: Option<String>,
    /// Counters of the connection.
    pub link: ActorStats,
}

oto_json::json_object! {
    ActorMetrics: written {
        steps, episodes, last_return as "return", evaluation, version, hz, missed, blocked, late_sensor, safe, longest_block_us,
        jitter_us, staleness, recorded, acknowledged, held, backlog, connected, problem, link
    }
}

/// Distances of steps from their deadlines, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JitterTimes {
    /// Half of the steps were at most this far off.
    pub p50: f64,
    /// 99 of 100 steps.
    pub p99: f64,
    /// 999 of 1,000 steps.
    pub p999: f64,
    /// All steps.
    pub max: f64,
}

oto_json::json_object! { JitterTimes: written { p50, p99, p999, max } }

/// Ages of the acting weights, in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Staleness {
    /// At half of the steps the weights were at most this old.
    pub p50: u64,
    /// At 99 of 100 steps.
    pub p99: u64,
    /// At all steps.
    pub max: u64,
}

oto_json::json_object! { Staleness: written { p50, p99, max } }

impl ActorReport {
    /// The report as faces show it.
    pub fn metrics(&self) -> ActorMetrics {
        let micros = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let ActorReport { counts, jitter, staleness: [p50, p99, max], .. } = *self;
        ActorMetrics {
            steps: self.steps,
            episodes: self.episodes,
            last_return: self.last_return,
            evaluation: self.last_evaluation,
            version: self.version,
            hz: (self.period > 0).then(|| 1e9 / self.period as f64),
            missed: counts.missed,
            blocked: counts.blocked,
            late_sensor: counts.late_sensor,
            safe: counts.safe,
            longest_block_us: micros(counts.longest_block),
            jitter_us: JitterTimes {
                p50: micros(jitter.p50),
                p99: micros(jitter.p99),
                p999: micros(jitter.p999),
                max: micros(jitter.max),
            },
            staleness: Staleness { p50, p99, max },
            recorded: self.recorded,
            acknowledged: self.acknowledged,
            held: self.held,
            backlog: self.backlog,
            connected: self.connected,
            problem: self.problem.clone(),
            link: self.link,
        }
    }
}

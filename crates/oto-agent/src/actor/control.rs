//! The steps of an actor, without a clock, a thread or an environment: newest weights, an action, its row, episodes and evaluations.
//!
//! The owner asks for an action ([`Control::act`]), gives it to its environment, and tells what came of it ([`Control::stepped`]). Nothing
//! here waits, and nothing allocates per step. What comes from the link's side lies in [`Shared`].

use super::decide::{Decider, Decision};
use super::exchange::Shared;
use super::real_time::{Counts, FrequencyError, Jitter, Loop, period};
use super::report::ActorReport;
use super::ring::Recorder;
use hdrhistogram::Histogram;
use oto_env::{Action, Environment, Step};
use oto_proto::{Flags, FrameError};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Without a frequency an actor makes this many steps ahead of the learner's updates.
const AHEAD: u64 = 8;
/// Steps a second where neither the actor's owner nor the learner says.
pub const USUAL_HZ: f64 = 30.0;

/// How fast an actor steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Steps a second.
    Hz(f64),
    /// As the learner says, and [`USUAL_HZ`] until then.
    Learner,
    /// As fast as the learner keeps up.
    Free,
}

impl Pace {
    /// The period to begin with, in nanoseconds; none without a clock.
    ///
    /// # Errors
    /// A frequency that no loop has.
    pub fn period(self) -> Result<Option<u64>, FrequencyError> {
        match self {
            Pace::Hz(hz) => period(hz).map(Some),
            Pace::Learner => period(USUAL_HZ).map(Some),
            Pace::Free => Ok(None),
        }
    }
}

/// What an environment that knows its sensors' faults says about the newest observation.
pub fn faulty(env: &dyn Environment) -> Flags {
    if env.info("faulty") == Some(1.0) { Flags::FAULTY } else { Flags::NONE }
}

/// The steps of one actor.
pub struct Control {
    shared: Arc<Shared>,
    recorder: Recorder,
    decider: Decider,
    /// The beat; without a clock it only counts.
    beat: Loop,
    paced: bool,
    staleness: Histogram<u64>,
    /// The newest row behind the acting weights.
    reached: u64,
    /// The newest observation.
    observation: Vec<f32>,
    /// Training episodes between two evaluations; 0: no evaluation.
    evaluate_every: u64,
    /// Training episodes since the last evaluation.
    since: u64,
    score: f64,
    /// An episode is under way.
    runs: bool,
    /// The next row is the first one of its episode.
    first: bool,
    /// What the environment says about the newest observation.
    fault: Flags,
    report: ActorReport,
}

impl Control {
    /// Steps with rows into `recorder`, decisions of `decider`, and deadlines from `now` on. `width`: numbers of an observation.
    pub(super) fn new(
        shared: Arc<Shared>,
        recorder: Recorder,
        decider: Decider,
        width: usize,
        evaluate_every: u64,
        (period, now): (Option<u64>, u64),
    ) -> Self {
        Control {
            shared,
            recorder,
            decider,
            // Without a clock nothing waits for the deadlines.
            beat: Loop::new(period.unwrap_or(1_000_000_000), now),
            paced: period.is_some(),
            staleness: Histogram::new_with_bounds(1, 1 << 32, 2).expect("the bounds are constants"),
            reached: 0,
            observation: vec![0.0; width],
            evaluate_every,
            since: 0,
            score: 0.0,
            runs: false,
            first: true,
            fault: Flags::NONE,
            report: ActorReport::default(),
        }
    }

    /// When the next step is due, in nanoseconds; none without a clock.
    pub fn deadline(&self) -> Option<u64> {
        self.paced.then(|| self.beat.deadline())
    }

    /// Whether the learner is to make updates before there are more rows: without a clock only.
    pub fn is_ahead(&self) -> bool {
        if self.paced {
            return false;
        }
        let acknowledged = self.shared.acknowledged.load(Ordering::Relaxed);
        let owed = self.shared.backlog.load(Ordering::Relaxed);
        self.recorder.recorded().saturating_sub(acknowledged) + owed > AHEAD
    }

    /// Whether an episode is under way.
    pub fn runs(&self) -> bool {
        self.runs
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.report.steps
    }

    /// The newest observation: an environment's reset writes the first one of an episode before [`Self::begin`].
    pub fn observation(&mut self) -> &mut [f32] {
        &mut self.observation
    }

    /// An episode begins at [`Self::observation`]. Its deadlines begin `now`: the plant took its time on purpose.
    pub fn begin(&mut self, now: u64) {
        (self.runs, self.first, self.fault, self.score) = (true, true, Flags::NONE, 0.0);
        self.decider.begin();
        self.beat.resume(now);
    }

    /// The deadlines begin anew, after a pause that was meant.
    pub fn resume(&mut self, now: u64) {
        self.beat.resume(now);
    }

    /// Whether this episode is an evaluation: without exploration, and not learned from.
    pub fn evaluates(&self) -> bool {
        self.evaluate_every > 0 && self.since >= self.evaluate_every
    }

    fn kind(&self) -> Flags {
        if self.evaluates() { Flags::EVALUATION } else { Flags::NONE }
    }

    /// A step begins: newest weights, an action for the newest observation, and its row. The action is in [`Self::action`].
    ///
    /// # Errors
    /// An observation of another width than the introduction's.
    pub fn act(&mut self, now: u64) -> Result<(), FrameError> {
        if self.paced {
            self.beat.begin(now);
        }
        if let Some(equipment) = self.shared.equipment.take() {
            if let Some(period) = equipment.period.filter(|_| self.paced) {
                self.beat.set_period(period);
            }
            self.decider.equip(*equipment);
        }
        if self.decider.swap().is_some() {
            self.reached = self.shared.reached.load(Ordering::Acquire);
        }
        let evaluates = self.evaluates();
        match self.decider.decide(&self.observation, !evaluates) {
            Decision::Safe => self.beat.acts_safely(),
            Decision::Policy(_) => {
                self.staleness.saturating_record(self.recorder.recorded().saturating_sub(self.reached));
            }
        }
        let first = if std::mem::take(&mut self.first) { Flags::FIRST } else { Flags::NONE };
        self.record(first | self.fault | self.kind())
    }

    fn record(&mut self, flags: Flags) -> Result<(), FrameError> {
        let version = self.decider.version();
        self.recorder.record(&self.observation, self.decider.action(), flags, version).map(|_| ())
    }

    /// The action of this step, and where the observation after it belongs.
    pub fn action(&mut self) -> (Action<'_>, &mut [f32]) {
        (self.decider.environment_action(), &mut self.observation)
    }

    /// The environment took the action from `before` to `after` and gave this, and [`Self::observation`], about which it says `fault`
    /// ([`faulty`]). True: the episode is over.
    ///
    /// # Errors
    /// As [`Self::act`].
    pub fn stepped(&mut self, step: Step, fault: Flags, before: u64, after: u64) -> Result<bool, FrameError> {
        if self.paced {
            self.beat.plant_took(after.saturating_sub(before));
            self.beat.observed(Some(after));
        }
        self.fault = fault;
        self.report.steps += 1;
        self.score += step.reward;
        if !step.done() {
            return Ok(false);
        }
        let evaluates = self.evaluates();
        self.end(if step.terminated { Flags::TERMINATED } else { Flags::TRUNCATED })?;
        let last = if evaluates { &mut self.report.last_evaluation } else { &mut self.report.last_return };
        *last = Some(self.score);
        self.since = if evaluates { 0 } else { self.since + 1 };
        self.report.episodes += 1;
        Ok(true)
    }

    /// Cuts the episode off at the newest observation, if one is under way: no more steps follow.
    ///
    /// # Errors
    /// As [`Self::act`].
    pub fn cut(&mut self) -> Result<(), FrameError> {
        // Without a step there is nothing to end.
        if self.runs && !self.first {
            return self.end(Flags::TRUNCATED);
        }
        self.runs = false;
        Ok(())
    }

    /// Leaves the episode without an end: the result of its last action is unknown. The next episode's first row begins anew.
    pub fn abandon(&mut self) {
        self.runs = false;
    }

    fn end(&mut self, how: Flags) -> Result<(), FrameError> {
        self.runs = false;
        self.record(how | self.fault | self.kind())
    }

    /// Writes how the steps stand.
    pub fn report(&mut self) -> &ActorReport {
        let at = |quantile| self.staleness.value_at_quantile(quantile);
        let staleness = match self.staleness.is_empty() {
            true => [0; 3],
            false => [at(0.5), at(0.99), self.staleness.max()],
        };
        let report = &mut self.report;
        report.staleness = staleness;
        report.version = self.decider.version();
        report.recorded = self.recorder.recorded();
        let counted = self.beat.counts();
        (report.period, report.counts, report.jitter) = match self.paced {
            true => (self.beat.period(), counted, self.beat.jitter()),
            false => {
                let counts = Counts { steps: report.steps, safe: counted.safe, ..Counts::default() };
                (0, counts, Jitter::default())
            }
        };
        &self.report
    }
}

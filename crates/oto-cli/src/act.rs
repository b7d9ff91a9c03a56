//! `oto act`: an edge that acts with the weights of a learner in the cloud, and sends it what happens.

use crate::authorities::{self, AuthorityError};
use crate::metrics_port::MetricsPort;
use crate::signals;
use clap::Args;
use oto_agent::actor::drive::{ActorError, ActorReport, ActorRun, act};
use oto_agent::actor::explore::Exploration;
use oto_agent::actor::link::ActorConfig;
use oto_agent::environments;
use oto_agent::link::tungstenite::{AddressError, Socket};
use oto_agent::presets;
use oto_agent::run::token;
use oto_env::EnvError;
use oto_proto::{ActorInfo, Encoding, Grant, Hello, StreamId};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Which plant, which learner, and how.
#[derive(Args, Clone, Debug)]
pub struct ActOptions {
    /// Address of the learner's server (wss://host, ws://host:port); the variable OTO_TOKEN holds a bearer token
    pub cloud: String,
    /// Name of the learner on the server
    #[arg(long, value_name = "NAME")]
    pub policy: String,
    /// Environment: a built-in one, gym:ID or mujoco:ID
    #[arg(long)]
    pub env: String,
    /// Steps a second; 0: as fast as the learner keeps up
    #[arg(long, default_value_t = 30.0)]
    pub hz: f64,
    /// Steps in all [default: until Ctrl-C]
    #[arg(long)]
    pub steps: Option<u64>,
    /// Name of this edge on the server; a newer edge of the same name replaces an older one
    #[arg(long, value_name = "NAME", default_value = "edge")]
    pub name: String,
    /// Seed of episodes and exploration
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..1 << 31))]
    pub seed: u64,
    /// Rows that are held while the learner cannot be reached
    #[arg(long, value_name = "ROWS", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(2..1 << 24))]
    pub ring: u32,
    /// Action while there are no weights, as numbers in the environment's units [default: the middle of each range]
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', allow_hyphen_values = true)]
    pub safe_action: Option<Vec<f32>>,
    /// Training episodes between two evaluations, whose steps do not explore and are not learned from; 0: no evaluation
    #[arg(long, value_name = "EPISODES", default_value_t = 0)]
    pub evaluate_every: u64,
    /// Act without exploration, also where the learner asks for it
    #[arg(long)]
    pub no_exploration: bool,
    /// Encodings of weights that may come, the preferred one first
    #[arg(long, value_delimiter = ',', value_parser = ["delta", "f16", "f32"], default_value = "delta,f16,f32")]
    pub weights: Vec<String>,
    /// Seconds between two lines of progress
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub every: f64,
    /// Write progress and result as lines of JSON
    #[arg(long)]
    pub json: bool,
    /// Address of a page of metrics for Prometheus (HOST:PORT)
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics: Option<SocketAddr>,
    /// File of trusted certificates (PEM) for wss://, in place of Mozilla's authorities
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Why an edge ended.
#[derive(Debug, thiserror::Error)]
pub enum ActCommandError {
    /// A flag.
    #[error("{0}")]
    Flag(String),
    /// The environment.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// The server's address, or the token.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The trusted certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The actor.
    #[error(transparent)]
    Actor(#[from] ActorError),
    /// The page of metrics.
    #[error("cannot serve metrics at {address}: {error}")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// No signals.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
}

/// Acts until the steps are made or a signal comes.
///
/// # Errors
/// What cannot be used, and a learner that refuses for good.
pub fn act_command(options: &ActOptions) -> Result<(), ActCommandError> {
    if !(0.05..=86_400.0).contains(&options.every) {
        return Err(ActCommandError::Flag(format!(
            "--every {}: expected 0.05 to 86400 seconds",
            options.every
        )));
    }
    let mut env = environments::environment(&options.env)?;
    let mut socket = Socket::new(&presets::teacher_url(&options.cloud))?;
    if let Some(token) = token() {
        socket.authorize(&token)?;
    }
    if let Some(ca) = &options.ca {
        socket.trust_only(authorities::read(ca)?);
    }
    let port = options.metrics.map(|address| {
        MetricsPort::open(address).map_err(|error| ActCommandError::Metrics { address, error })
    });
    let mut port = port.transpose()?;
    let run = options.run(env.observation_space(), env.action_space());
    let stop = signals::flag().map_err(ActCommandError::Signals)?;
    let (json, name) = (options.json, options.name.clone());
    let report = move |report: &ActorReport| {
        show(json, "progress", report);
        if let Some(port) = &mut port {
            port.set(exposition(&name, report));
        }
    };
    let every = Duration::from_secs_f64(options.every);
    let last = act(env.as_mut(), socket, run, &stop, every, report)?;
    show(json, "end", &last);
    Ok(())
}

impl ActOptions {
    fn run(&self, observation: &oto_env::Space, action: &oto_env::Space) -> ActorRun {
        let encoding = |name: &String| match name.as_str() {
            "delta" => Encoding::Delta,
            "f16" => Encoding::F16,
            _ => Encoding::F32,
        };
        let actor = ActorInfo {
            name: self.name.clone(),
            stream: StreamId(0),
            first: 0,
            weights: self.weights.iter().map(encoding).collect(),
            version: 0,
        };
        let hello = Hello {
            protocol: oto_proto::PROTOCOL.into(),
            policy: self.policy.clone(),
            student: self.name.clone(),
            observation: observation.clone(),
            action: action.clone(),
            adapter: None,
            dtype: oto_proto::Dtype::F32,
            action_dtype: None,
            quantization: None,
            grants: vec![Grant::Transitions, Grant::Weights],
            stage: None,
            ticket: None,
            actor: Some(actor),
        };
        let paced = self.hz != 0.0;
        let mut link = ActorConfig::new(hello);
        if !paced {
            // The learner waits for these rows.
            (link.batch, link.flush_ms) = (64, 1);
        }
        ActorRun {
            link,
            hz: paced.then_some(self.hz),
            steps: self.steps,
            ring: self.ring as usize,
            safe: self.safe_action.clone(),
            seed: self.seed,
            exploration: self.no_exploration.then(Exploration::none),
            evaluate_every: self.evaluate_every,
        }
    }
}

/// Writes how the edge stands.
fn show(json: bool, event: &str, report: &ActorReport) {
    let ActorReport { counts, jitter, link, .. } = report;
    let micros = |nanoseconds: u64| nanoseconds as f64 / 1e3;
    if json {
        crate::out!(
            "{}",
            json!({
                "event": event, "steps": report.steps, "episodes": report.episodes, "return": report.last_return,
                "evaluation": report.last_evaluation, "version": report.version, "missed": counts.missed, "blocked": counts.blocked,
                "late_sensor": counts.late_sensor, "safe": counts.safe, "longest_block_us": micros(counts.longest_block),
                "jitter_us": { "p50": micros(jitter.p50), "p99": micros(jitter.p99), "p999": micros(jitter.p999), "max": micros(jitter.max) },
                "staleness": { "p50": report.staleness[0], "p99": report.staleness[1], "max": report.staleness[2] },
                "recorded": report.recorded, "acknowledged": report.acknowledged, "held": report.held, "backlog": report.backlog,
                "connected": report.connected, "problem": report.problem, "link": serde_json::to_value(link).unwrap_or_default(),
            })
        );
        return;
    }
    let number = |number: Option<f64>| number.map_or("-".into(), |number| format!("{number:.1}"));
    let connection = match (&report.problem, report.connected) {
        (Some(problem), false) => format!("  no connection: {problem}"),
        (None, false) => "  no connection".into(),
        _ => String::new(),
    };
    crate::out!(
        "step {}  return {}  evaluation {}  weights {}  staleness {}/{}  jitter {:.0}/{:.0} us  missed {}  held {}  acknowledged {}  backlog {}{connection}",
        report.steps,
        number(report.last_return),
        number(report.last_evaluation),
        report.version,
        report.staleness[0],
        report.staleness[2],
        micros(jitter.p50),
        micros(jitter.max),
        counts.missed,
        report.held,
        report.acknowledged,
        report.backlog,
    );
}

/// How the edge stands, as Prometheus reads it.
fn exposition(name: &str, report: &ActorReport) -> String {
    let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let ActorReport { counts, jitter, staleness, link, .. } = report;
    let mut text = String::new();
    let mut say = |metric: &str, kind: &str, help: &str, values: &[(&str, f64)]| {
        text.push_str(&format!("# HELP oto_edge_{metric} {help}\n# TYPE oto_edge_{metric} {kind}\n"));
        for (quantile, value) in values {
            let quantile =
                if quantile.is_empty() { String::new() } else { format!(",quantile=\"{quantile}\"") };
            text.push_str(&format!("oto_edge_{metric}{{edge=\"{name}\"{quantile}}} {value}\n"));
        }
    };
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let counter = [
        ("steps_total", "Steps", report.steps),
        ("episodes_total", "Episodes that ended", report.episodes),
        ("missed_deadlines_total", "Deadlines at which no step began", counts.missed),
        ("blocked_total", "Steps in which the plant took longer than a period", counts.blocked),
        ("late_sensor_total", "Observations that came after their deadline", counts.late_sensor),
        ("safe_actions_total", "Steps without weights", counts.safe),
        ("rows_total", "Rows that were recorded", report.recorded),
        ("acknowledged_rows_total", "Rows that the learner has for good", report.acknowledged),
        ("dropped_rows_total", "Rows that were lost because the ring was full", link.rows_dropped),
        ("pushes_total", "Pushes of weights that were taken", link.weights),
        ("refused_pushes_total", "Pushes of weights that were refused", link.weights_refused),
        ("sent_bytes_total", "Bytes to the learner", link.bytes_up),
        ("received_bytes_total", "Bytes from the learner", link.bytes_down),
        ("sessions_total", "Sessions with the learner", link.sessions),
    ];
    counter.iter().for_each(|(metric, help, value)| say(metric, "counter", help, &[("", *value as f64)]));
    let gauge = [
        ("held_rows", "Rows that are held and not acknowledged", report.held as f64),
        ("backlog", "Updates that the learner owes", report.backlog as f64),
        ("weights_version", "Version of the weights that act", f64::from(report.version)),
        ("connected", "Whether a session is agreed upon", f64::from(u8::from(report.connected))),
        ("longest_block_seconds", "The longest time that the plant took", seconds(counts.longest_block)),
    ];
    gauge.iter().for_each(|(metric, help, value)| say(metric, "gauge", help, &[("", *value)]));
    let jitter = [("0.5", jitter.p50), ("0.99", jitter.p99), ("0.999", jitter.p999), ("1", jitter.max)];
    let jitter = jitter.map(|(quantile, value)| (quantile, seconds(value)));
    say("jitter_seconds", "gauge", "Distance of steps from their deadlines", &jitter);
    let staleness = [("0.5", staleness[0] as f64), ("0.99", staleness[1] as f64), ("1", staleness[2] as f64)];
    say(
        "staleness_steps",
        "gauge",
        "Steps from the newest row behind the weights to the newest row",
        &staleness,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_what_prometheus_reads() {
        let report = ActorReport { steps: 7, recorded: 8, staleness: [1, 2, 3], ..ActorReport::default() };
        let text = exposition("a \"b\"", &report);
        for line in [
            "oto_edge_steps_total{edge=\"a \\\"b\\\"\"} 7",
            "oto_edge_staleness_steps{edge=\"a \\\"b\\\"\",quantile=\"0.99\"} 2",
            "# TYPE oto_edge_jitter_seconds gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        }
    }
}

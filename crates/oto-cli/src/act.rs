//! `oto act`: an edge that acts with the weights of a learner in the cloud, and sends it what happens.

use crate::actor_options::{ActorOptions, EveryError, SaveError, show};
use crate::authorities::{self, AuthorityError};
use crate::metrics_port::MetricsPort;
use crate::signals;
use clap::Args;
use oto_agent::actor::ActorReport;
use oto_agent::actor::drive::{ActorError, act};
use oto_agent::environments;
use oto_agent::link::tungstenite::AddressError;
use oto_env::EnvError;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Which plant, which learner, and how.
#[derive(Args, Clone, Debug)]
pub struct ActOptions {
    /// Those of every system.
    #[command(flatten)]
    pub actor: ActorOptions,
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
    #[error(transparent)]
    Every(#[from] EveryError),
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
    /// Its policy.
    #[error(transparent)]
    Save(#[from] SaveError),
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
    let actor = &options.actor;
    let every = actor.every()?;
    let mut env = environments::environment(&actor.env)?;
    let mut socket = actor.socket()?;
    if let Some(ca) = &options.ca {
        socket.trust_only(authorities::read(ca)?);
    }
    let port = options.metrics.map(|address| {
        MetricsPort::open(address).map_err(|error| ActCommandError::Metrics { address, error })
    });
    let mut port = port.transpose()?;
    let run = actor.run(env.observation_space(), env.action_space());
    let stop = signals::flag().map_err(ActCommandError::Signals)?;
    let (json, name) = (actor.json, actor.name.clone());
    let report = move |report: &ActorReport| {
        show(json, "progress", report);
        if let Some(port) = &mut port {
            port.set(exposition(&name, report));
        }
    };
    let last = act(env.as_mut(), socket, run, &stop, every, report)?;
    Ok(actor.end(&last)?)
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

//! The flags of `oto act`, of a WASI host too, and what it writes.

use clap::Args;
use oto_agent::actor::drive::Acted;
use oto_agent::actor::explore::Exploration;
use oto_agent::actor::{ActorReport, ActorRun};
use oto_agent::link::tungstenite::{AddressError, Socket};
use oto_agent::presets;
use oto_agent::run::token;
use oto_json::Object;
use oto_proto::Encoding;
use std::path::PathBuf;
use std::time::Duration;

/// Which plant, which learner, and how.
#[derive(Args, Clone, Debug)]
pub struct ActorOptions {
    /// Address of the learner's server (wss://host, ws://host:port); the variable OTO_TOKEN holds a bearer token
    pub cloud: String,
    /// Name of the learner on the server
    #[arg(long, value_name = "NAME")]
    pub policy: String,
    /// Environment: a built-in one, gym:ID or mujoco:ID
    #[arg(long)]
    pub env: String,
    /// Steps a second; 0: as fast as the learner keeps up [default: the learner's `hz`, or 30]
    #[arg(long)]
    pub hz: Option<f64>,
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
    /// Write the network that acts as a policy to FILE at the end: `oto eval` plays it, `oto serve --policies` teaches with it
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
}

/// A time between two lines that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("--every {0}: expected 0.05 to 86400 seconds")]
pub struct EveryError(f64);

/// A policy that is not written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// There is none.
    #[error("--save: expected weights of the learner, none came")]
    Nothing,
    /// The file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl ActorOptions {
    /// The time between two lines of progress.
    ///
    /// # Errors
    /// One out of its range.
    pub fn every(&self) -> Result<Duration, EveryError> {
        match (0.05..=86_400.0).contains(&self.every) {
            true => Ok(Duration::from_secs_f64(self.every)),
            false => Err(EveryError(self.every)),
        }
    }

    /// Writes what an actor leaves: its last line, and the policy where it is asked for.
    ///
    /// # Errors
    /// A file that cannot be written, and weights that never came.
    pub fn end(&self, acted: &Acted) -> Result<(), SaveError> {
        show(self.json, "end", &acted.report);
        let Some(path) = &self.save else { return Ok(()) };
        let policy = acted.policy.as_deref().ok_or(SaveError::Nothing)?;
        std::fs::write(path, policy).map_err(|error| SaveError::File { path: path.clone(), error })
    }

    /// A socket to the learner's server, with the token of the variable OTO_TOKEN.
    ///
    /// # Errors
    /// An address or a token that cannot be used.
    pub fn socket(&self) -> Result<Socket, AddressError> {
        let mut socket = Socket::new(&presets::teacher_url(&self.cloud))?;
        if let Some(token) = token() {
            socket.authorize(&token)?;
        }
        Ok(socket)
    }

    /// The run in an environment with these spaces.
    pub fn run(&self, observation: &oto_env::Space, action: &oto_env::Space) -> ActorRun {
        let encoding = |name: &String| match name.as_str() {
            "delta" => Encoding::Delta,
            "f16" => Encoding::F16,
            _ => Encoding::F32,
        };
        let mut run = ActorRun::new(&self.policy, &self.name, observation, action);
        if let Some(actor) = &mut run.link.hello.actor {
            actor.weights = self.weights.iter().map(encoding).collect();
        }
        run.set_hz(self.hz);
        ActorRun {
            steps: self.steps,
            ring: self.ring as usize,
            safe: self.safe_action.clone(),
            seed: self.seed,
            exploration: self.no_exploration.then(Exploration::none),
            evaluate_every: self.evaluate_every,
            ..run
        }
    }
}

/// Writes how the edge stands.
pub fn show(json: bool, event: &str, report: &ActorReport) {
    if json {
        let line = oto_json::object_tree(|out| {
            out.field("event", event);
            report.metrics().write_fields(out);
        });
        crate::out!("{}", oto_json::write(&line));
        return;
    }
    let ActorReport { counts, jitter, .. } = report;
    let micros = |nanoseconds: u64| nanoseconds as f64 / 1e3;
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

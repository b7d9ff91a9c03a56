//! `oto load`: many simulated students on a server, and how long it lets them wait.

use crate::authorities::{self, AuthorityError};
use crate::policy;
use crate::security_options::{DoorError, admin_token};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use oto_bench::load::ceiling::states_per_second;
use oto_bench::load::echo::Echo;
use oto_bench::load::plan::Target;
use oto_bench::load::tls::Trust;
use oto_bench::load::{LoadError, Measurement, Pace, Plan, Publish, Report, measure};
use oto_policy::bundled;
use oto_policy::tensors::MAX_MODEL_BYTES;
use oto_policy::{PolicyError, load_file};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Whom to load, and with how much.
#[derive(Args, Clone, Debug)]
pub struct LoadOptions {
    /// Address of the server for students: ws://host:port or wss://host:port
    server: String,
    /// File of trusted certificates (PEM) for wss://, in place of Mozilla's authorities
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Policy to query
    #[arg(long, value_name = "NAME")]
    policy: String,
    /// Number of students, each with its own connection
    #[arg(long, default_value_t = 100)]
    students: usize,
    /// Requests per second of each student, at fixed times, independent of the answers
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Send as fast as the server answers, with this number of requests in flight for each student
    #[arg(long, value_name = "REQUESTS", conflicts_with = "rate")]
    saturate: Option<u16>,
    /// States in a request
    #[arg(long, default_value_t = 1)]
    rows: u16,
    /// Duration of the measurement, in seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Warm-up before the measurement, in seconds
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Seed of the students' times and states
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also apply the load to an echo server, without TLS
    #[arg(long)]
    echo: bool,
    /// Also call the policy in a loop: a bundled one, or this MODEL
    #[arg(long, value_name = "MODEL", num_args = 0..=1)]
    ceiling: Option<Option<PathBuf>>,
    /// Process id of the server, to report its resources
    #[arg(long)]
    pid: Option<u32>,
    /// Publish this MODEL through the admin interface during the load
    #[arg(long, value_name = "MODEL")]
    publish: Option<PathBuf>,
    /// Time between publications, in seconds
    #[arg(long, default_value_t = 0.1, requires = "publish")]
    every: f64,
    /// Address of the server's admin interface
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8081", requires = "publish")]
    admin: String,
    /// File with the admin token [default: the variable OTO_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE", requires = "publish")]
    admin_token: Option<PathBuf>,
    /// File with a bearer token for the handshake
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum LoadCommandError {
    /// The load's own.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The policy that was to be called in a loop.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The operator's token.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// It is not there.
    #[error("{0:?} is no bundled policy: give its model, --ceiling MODEL")]
    NotBundled(String),
    /// Whom students are to trust.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A file.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Answers that are none.
    #[error("{count} answers were wrong; the first: {first}")]
    Wrong {
        /// How many.
        count: u64,
        /// What was wrong with the first one.
        first: String,
    },
    /// A time that is none.
    #[error("{0} seconds are no time to measure")]
    Time(f64),
}

fn seconds(value: f64) -> Result<Duration, LoadCommandError> {
    Duration::try_from_secs_f64(value).map_err(|_| LoadCommandError::Time(value))
}

/// Measures, and prints what came of it.
pub fn load(options: &LoadOptions) -> Result<(), LoadCommandError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| LoadCommandError::File { path, source }
    };
    let plan = Plan {
        students: options.students,
        pace: options.saturate.map_or(Pace::Open(options.rate), Pace::Saturate),
        rows: options.rows,
        warm_up: seconds(options.warm_up)?,
        measured: seconds(options.seconds)?,
        patience: Duration::from_secs(10),
        seed: options.seed,
        publish: options.publish.as_deref().map(|model| publish(options, model)).transpose()?,
    };
    plan.check()?;
    let token = match &options.token {
        Some(path) => {
            let token = oto_json::file::read_text(path, oto_json::file::MAX_TOKEN).map_err(file(path))?;
            Some(token.trim().to_owned())
        }
        None => None,
    };
    let trust = options.ca.as_deref().map(authorities::read).transpose()?.map_or(Trust::Known, Trust::Only);
    let target = Target::find(&options.server, &options.policy, token, &trust)?;
    let ceiling_states_per_second = match &options.ceiling {
        None => None,
        Some(model) => Some(ceiling(&options.policy, model.as_deref(), options.rows)?),
    };
    oto_server::raise_open_files();
    let server = with_progress("server", |p| measure(&target, &plan, false, options.pid, p))?;
    let echo = match options.echo {
        false => None,
        true => {
            let echo = Echo::start().map_err(LoadError::from)?;
            let (target, plan) = (target.echo(echo.address), Plan { publish: None, ..plan });
            Some(with_progress("echo", |p| measure(&target, &plan, true, None, p))?)
        }
    };
    let report = Report { server, echo, ceiling_states_per_second };
    crate::out!("{}", report.to_string().trim_end());
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report).unwrap_or_default();
        std::fs::write(path, json + "\n").map_err(file(path))?;
    }
    match report.server.wrong {
        0 => Ok(()),
        count => {
            let first = report.server.first_wrong.unwrap_or_default();
            Err(LoadCommandError::Wrong { count, first })
        }
    }
}

/// What an operator does meanwhile.
fn publish(options: &LoadOptions, model: &Path) -> Result<Publish, LoadCommandError> {
    let bytes = oto_json::file::read_regular(model, MAX_MODEL_BYTES)
        .map_err(|source| LoadCommandError::File { path: model.to_owned(), source })?;
    Ok(Publish {
        url: format!("http://{}{}", options.admin, policy::path(&options.policy, "publish")),
        token: admin_token(options.admin_token.as_deref())?,
        model: bytes.into(),
        every: seconds(options.every)?,
    })
}

/// The policy alone, on this machine.
fn ceiling(name: &str, model: Option<&Path>, rows: u16) -> Result<f64, LoadCommandError> {
    let mut loaded = match model {
        Some(path) => load_file(path)?,
        None => bundled::named(name)?.ok_or_else(|| LoadCommandError::NotBundled(name.to_owned()))?,
    };
    Ok(states_per_second(&mut *loaded.policy, rows, Duration::from_secs(2))?)
}

fn with_progress(
    name: &'static str,
    measure: impl FnOnce(&mut dyn FnMut(f64)) -> Result<Measurement, LoadError>,
) -> Result<Measurement, LoadError> {
    let style = ProgressStyle::with_template("{prefix:>8} {bar:30} {percent} %").expect("a sound template");
    let bar = ProgressBar::new(1000).with_style(style).with_prefix(name);
    let measured = measure(&mut |share| bar.set_position((1000.0 * share) as u64));
    bar.finish_and_clear();
    measured
}

//! One training run in a native process or on a WASI host, from its description to its end: `oto learn`, the WASI command
//! and experiments share it.

use crate::config::{ConfigError, StudentConfig};
use crate::drive::Driver;
use crate::environments;
use crate::link::LinkState;
use crate::link::tungstenite::AddressError;
use crate::peer::PeerConfig;
use crate::student::{Environments, Event, Metrics, Student, TeacherConfig, Tick};
use crate::trainer::{TrainError, Tried, program};
use oto_graph::{Backend, BackendError, Program};
use oto_rl::shared::Part;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A training run: what a run folder's `config.json` holds.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Job {
    /// The environment's id.
    pub env: String,
    /// The student; a setting left out has its default when it is read.
    pub student: StudentConfig,
    /// The teachers; none learns alone.
    pub teachers: Vec<TeacherConfig>,
    /// The preset that the settings began with, and its source: one line. docs/presets.md lists the presets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<String>,
    /// The run whose networks and optimiser it began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub from: Option<PathBuf>,
    /// The dataset that is mixed into its batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub dataset: Option<PathBuf>,
    /// Asynchronous workers, each a thread with an environment of its own; see docs/workers.md.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 64)))]
    pub workers: usize,
    /// The policies whose logits the student learns from; settings are in `student.algorithm.distillation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Distill>"))]
    pub distill: Option<Distill>,
    /// The group in which the student learns from others, and they from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<PeerConfig>"))]
    pub peer: Option<PeerConfig>,
}

/// The teachers of a distillation: files of policies or run folders.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Distill {
    /// The teachers.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub teachers: Vec<PathBuf>,
    /// Offline protocol: a trained policy of the student's own task, which acts first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub expert: Option<PathBuf>,
}

fn one() -> usize {
    1
}

fn is_one(workers: &usize) -> bool {
    *workers == 1
}

/// A backend, and the candidates that were timed for it.
pub struct Chosen {
    /// The backend.
    pub backend: Box<dyn Backend>,
    /// The timed candidates; none where a name chose the backend.
    pub tried: Vec<Tried>,
}

/// The CPU for every name: for runs without a choice of backends.
///
/// # Errors
/// None.
pub fn on_cpu(cpu: impl Backend + 'static) -> impl FnOnce(&str, &Program) -> Result<Chosen, BackendError> {
    move |_, _| Ok(Chosen { backend: Box::new(cpu), tried: Vec::new() })
}

/// Why a run could not be made or finished.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A teacher's address is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No such backend in this build.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A teacher refused for good, and there is no reason to learn without it.
    #[error("teacher {policy}: {reason}")]
    Teacher {
        /// Its policy.
        policy: String,
        /// Its words.
        reason: String,
    },
    /// A server does not share its agent with this worker.
    #[error("the shared agent {agent}: {reason}")]
    Agent {
        /// The agent's name.
        agent: String,
        /// Why not.
        reason: String,
    },
    /// Asynchronous workers that the job cannot have.
    #[cfg(not(target_family = "wasm"))]
    #[error(transparent)]
    Workers(#[from] crate::workers::WorkersError),
    /// Several workers where there are no threads.
    #[cfg(target_family = "wasm")]
    #[error("expected one worker, got {0}: a WASI host has no threads")]
    Workers(usize),
    /// The observer could not keep what it was shown.
    #[error("{0}")]
    Observer(String),
}

/// Whoever follows a run.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: &Event) -> Result<(), String>;
    /// How the run stands, every [`METRICS`] steps and once its last message has left: for files.
    fn metrics(&mut self, _metrics: &Metrics) -> Result<(), String> {
        Ok(())
    }
    /// How the run stands; called a few times a second at most, and at the end.
    fn progress(&mut self, metrics: &Metrics) -> Result<(), String>;
    /// The run may be saved now: called every so often with a way to make a checkpoint.
    fn checkpoint(&mut self, _student: &Student) -> Result<(), String> {
        Ok(())
    }
    /// Whether to stop here.
    fn stop(&self) -> bool {
        false
    }
}

/// Where a bearer token for teachers' servers stands, if they want one.
const TOKEN: &str = "OTO_TOKEN";
/// How long a run waits for its teachers before it begins without those that are not there.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a run that is over waits for its teachers to keep what it submits.
const SUBMIT: Duration = Duration::from_secs(120);
/// How long a run that is over waits for servers to close its connections.
const CLOSE: Duration = Duration::from_secs(2);
/// Environment steps from one line of metrics to the next.
pub const METRICS: u64 = 500;
/// From one report of progress to the next.
pub(crate) const PROGRESS: Duration = Duration::from_millis(250);
/// From one checkpoint to the next.
pub(crate) const CHECKPOINT: Duration = Duration::from_secs(30);

/// The bearer token for teachers' servers, if there is one.
pub fn token() -> Option<String> {
    std::env::var(TOKEN).ok().map(|token| token.trim().to_owned())
}

/// A run that has not begun, or continues from `resume`; the driver's wires are to its teachers. `choose` finds a backend by its
/// name, for a program.
pub fn prepare(
    job: &Job,
    choose: impl FnOnce(&str, &Program) -> Result<Chosen, BackendError>,
    driver: Driver,
    resume: Option<&[u8]>,
) -> Result<(Student, Driver), RunError> {
    let environment = environments::of_student(&job.env, &job.student)?;
    prepare_with(environment, job, choose, driver, resume, |_| Ok(()))
}

/// [`prepare`] in an environment of the caller's. A job of several workers has their shared side ([`crate::workers::run`]); `begin` has the student before a checkpoint is loaded.
pub fn prepare_with(
    environment: Environments,
    job: &Job,
    choose: impl FnOnce(&str, &Program) -> Result<Chosen, BackendError>,
    mut driver: Driver,
    resume: Option<&[u8]>,
    begin: impl FnOnce(&mut Student) -> Result<(), TrainError>,
) -> Result<(Student, Driver), RunError> {
    #[cfg(not(target_family = "wasm"))]
    crate::workers::check(job)?;
    #[cfg(target_family = "wasm")]
    if job.workers != 1 {
        return Err(RunError::Workers(job.workers));
    }
    let part = if job.workers > 1 { Part::Shared } else { Part::Whole };
    let (observation, action) = environment.spaces();
    let program = program(&job.student, observation, action, job.teachers.len())?;
    let chosen = choose(&job.student.backend, &program)?;
    if let Some(token) = token() {
        driver.authorize(&token)?;
    }
    let mut student = Student::of(
        part,
        &job.student,
        environment,
        &job.teachers,
        chosen.backend.as_ref(),
        driver.now_ms(),
    )?;
    student.trainer().tried = chosen.tried;
    begin(&mut student)?;
    if student.trainer().lacks_teachers() {
        let expected = "the policies that algorithm.distillation.teachers needs (oto learn --distill)";
        return Err(TrainError::from(ConfigError::new("distill", "none", expected)).into());
    }
    if let Some(file) = resume {
        student.load(file, driver.now_ms())?;
        student.set_steps(job.student.steps);
    }
    driver.connect(&mut student, CONNECT);
    for link in student.links() {
        if let (LinkState::Failed, Some(failure)) = (link.state(), link.failure()) {
            let policy = link.status(0).policy;
            return Err(RunError::Teacher { policy, reason: failure.message.clone() });
        }
    }
    Ok((student, driver))
}

/// Runs to the end, or until the observer stops it; then says goodbye to the teachers. Gives how the run stood before the
/// goodbye.
pub fn run(
    student: &mut Student,
    driver: &mut Driver,
    observer: &mut dyn Observer,
) -> Result<Metrics, RunError> {
    let ended = train(student, driver, observer);
    if ended.is_ok() && !observer.stop() {
        // What is not acknowledged by then is in the checkpoint, and goes on its way when the run is resumed.
        driver.submit_rest(student, SUBMIT);
    }
    let metrics = student.metrics(driver.now_ms());
    driver.close(student, CLOSE);
    let written = observer.metrics(&student.metrics(driver.now_ms())).map_err(RunError::Observer);
    // A learner that failed has nothing to save. After other failures the student is whole, and the run may be resumed.
    let whole =
        matches!(ended, Ok(()) | Err(RunError::Train(TrainError::Environment(_)) | RunError::Observer(_)));
    let saved = if whole { checkpoint(student, observer) } else { Ok(()) };
    // The first failure is the cause of the others.
    ended.and(written).and(saved)?;
    observer.progress(&metrics).map_err(RunError::Observer)?;
    Ok(metrics)
}

/// Trains to the end, or until the observer stops it.
fn train(student: &mut Student, driver: &mut Driver, observer: &mut dyn Observer) -> Result<(), RunError> {
    let (mut last_progress, mut last_checkpoint) = (Instant::now(), Instant::now());
    loop {
        let stepped = driver.step(student);
        // What happened before a failure is told, too.
        while let Some(event) = student.next_event() {
            observer.event(&event).map_err(RunError::Observer)?;
        }
        let tick = stepped?;
        if tick == Tick::Stepped && student.trainer().steps().is_multiple_of(METRICS) {
            observer.metrics(&student.metrics(driver.now_ms())).map_err(RunError::Observer)?;
        }
        if tick == Tick::Done || observer.stop() {
            return Ok(());
        }
        if last_progress.elapsed() >= PROGRESS {
            last_progress = Instant::now();
            observer.progress(&student.metrics(driver.now_ms())).map_err(RunError::Observer)?;
        }
        if last_checkpoint.elapsed() >= CHECKPOINT {
            checkpoint(student, observer)?;
            last_checkpoint = Instant::now();
        }
    }
}

/// Shows the observer the student, once a device has brought home what it holds.
pub fn checkpoint(student: &mut Student, observer: &mut dyn Observer) -> Result<(), RunError> {
    while !student.trainer().sync().map_err(TrainError::from)? {
        std::thread::sleep(Duration::from_micros(100));
    }
    observer.checkpoint(student).map_err(RunError::Observer)
}

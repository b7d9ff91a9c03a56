//! A shared agent that workers elsewhere train (the parameter server of Mnih et al. 2016), without sockets: `oto serve --share`.
//!
//! A worker joins under a name, gets the parameters as a frame of weights, and sends frames of gradients. Every frame of gradients, applied
//! or refused, is answered with the newest parameters. A worker that vanishes owes nothing. A later session of the same name takes over.

use crate::config::{ConfigError, StudentConfig};
use crate::environments;
use crate::student::{Event, Student};
use crate::trainer::TrainError;
use crate::worker::{parameters, settings};
use oto_graph::Backend;

use oto_proto::gradients::{MAX_TENSORS, numbers};
use oto_proto::weights::{MAX_PARAMETERS, write_complete};
use oto_proto::{
    Encoding, ErrorCode, ErrorMessage, FrameError, Gradients, Ids, Parameter, SharedInfo, WorkerInfo,
};
use oto_rl::shared::{self, Counts, Limits, Part, Shared};
use std::collections::HashMap;

/// The settings of a shared agent.
#[derive(Clone, Debug, PartialEq)]
pub struct HubConfig {
    /// The environment of the workers; the agent is evaluated in one of its own.
    pub env: String,
    /// The agent. `steps` counts the steps of all workers: a whole rollout for each gradient.
    pub student: StudentConfig,
    /// The most workers at once.
    pub workers: usize,
    /// The most updates between the parameters of a gradient and those that it is applied to.
    pub staleness: u64,
    /// The longest gradient, as a multiple of the median over all workers of their mean norms.
    pub norm: f64,
}

/// The most workers of a shared agent.
const MAX_WORKERS: usize = 4096;

impl HubConfig {
    /// Usual bounds around an agent.
    pub fn new(env: &str, student: StudentConfig) -> Self {
        Self { env: env.into(), student, workers: 64, staleness: 100, norm: 2.0 }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |name: &str, got: String, expected: &str| Err(ConfigError::new(name, got, expected));
        if !(1..=MAX_WORKERS).contains(&self.workers) {
            return refuse("workers", self.workers.to_string(), "1 to 4096 workers");
        }
        if !(self.norm > 0.0 && self.norm.is_finite()) {
            return refuse("norm", oto_json::shown(&self.norm).to_string(), "a multiple above 0");
        }
        if self.student.algorithm.distillation().is_some() {
            return refuse(
                "algorithm.distillation",
                "one".into(),
                "none: workers of a server have no teachers",
            );
        }
        if self.student.evaluate_between_episodes {
            return refuse("evaluate_between_episodes", "true".into(), "false: workers have the episodes");
        }
        Ok(())
    }
}

/// Why a worker's message is refused. It changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Its agent has other parameters.
    #[error("expected an agent with {expected}, got one with {found}")]
    Agent {
        /// What this agent has where they differ first.
        expected: String,
        /// What the worker's agent has there.
        found: String,
    },
    /// There are as many workers as may be.
    #[error("expected one of at most {0} workers at once, got another one")]
    Full(usize),
    /// A later session of the same name has taken over.
    #[error("a newer session of this worker has taken over session {0}")]
    Replaced(u32),
    /// A frame of a session that is not the connection's.
    #[error("expected a frame of session {expected}, got one of session {found}")]
    Session {
        /// The connection's.
        expected: u32,
        /// The frame's.
        found: u32,
    },
    /// A frame for another policy.
    #[error("expected a frame for policy {expected}, got one for policy {found}")]
    Policy {
        /// The connection's.
        expected: u32,
        /// The frame's.
        found: u32,
    },
    /// Not a frame of gradients of this agent.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Its gradient.
    #[error(transparent)]
    Gradient(#[from] shared::Refusal),
    /// All steps are taken.
    #[error("the run of this agent is over, after {0} steps of its workers")]
    Over(u64),
    /// The agent cannot learn any more.
    #[error("the agent does not learn any more: {0}")]
    Failed(String),
}

impl Refusal {
    /// What tells the worker.
    pub fn error(&self) -> ErrorMessage {
        let code = match self {
            Refusal::Agent { .. } => ErrorCode::BadShape,
            Refusal::Full(_) | Refusal::Over(_) => ErrorCode::Forbidden,
            Refusal::Replaced(_) => ErrorCode::Replaced,
            Refusal::Session { .. } => ErrorCode::BadMessage,
            Refusal::Policy { .. } => ErrorCode::UnknownPolicy,
            Refusal::Frame(error) => error.code(),
            Refusal::Gradient(shared::Refusal::Length { .. }) => ErrorCode::BadShape,
            Refusal::Gradient(shared::Refusal::NotFinite(_)) => ErrorCode::NotFinite,
            Refusal::Gradient(_) => ErrorCode::OutOfRange,
            Refusal::Failed(_) => ErrorCode::Internal,
        };
        ErrorMessage::new(code, self.to_string())
    }

    /// Whether the connection ends: no further frame of it would be taken.
    pub fn ends(&self) -> bool {
        matches!(self, Refusal::Replaced(_) | Refusal::Over(_) | Refusal::Failed(_))
    }

    /// Its name for counters.
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::Agent { .. } => "agent",
            Refusal::Full(_) => "full",
            Refusal::Replaced(_) => "replaced",
            Refusal::Session { .. } => "session",
            Refusal::Policy { .. } => "policy",
            Refusal::Frame(error) => error.name(),
            Refusal::Gradient(shared::Refusal::Length { .. }) => "wrong_length",
            Refusal::Gradient(shared::Refusal::NotFinite(_)) => "not_finite",
            Refusal::Gradient(shared::Refusal::Stale { .. }) => "stale",
            Refusal::Gradient(shared::Refusal::Future { .. }) => "future",
            Refusal::Over(_) => "over",
            Refusal::Failed(_) => "failed",
        }
    }
}

/// A worker's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The worker's name.
    pub worker: String,
    /// Its number, at least 1.
    pub number: u32,
}

/// A worker that joined.
struct Seat {
    /// Its number on the shared side.
    number: usize,
    /// Its newest session.
    session: u32,
    /// Whether that is going on.
    present: bool,
}

/// A shared agent.
pub struct Hub {
    config: HubConfig,
    student: Student,
    shared: Shared,
    parameters: Vec<Parameter>,
    seats: HashMap<String, Seat>,
    sessions: u32,
    values: Vec<f32>,
    failed: Option<String>,
}

impl Hub {
    /// An agent with fresh parameters and no workers.
    ///
    /// # Errors
    /// A setting out of its range, an algorithm that is not asynchronous, an environment that there is not.
    pub fn new(config: &HubConfig, backend: &dyn Backend) -> Result<Self, TrainError> {
        config.check()?;
        let environment = environments::of_student(&config.env, &config.student)?;
        let mut student = Student::of(Part::Shared, &config.student, environment, &[], backend, 0)?;
        let limits = Limits { staleness: config.staleness, norm: Some(config.norm) };
        let shared = Shared::new(student.trainer().learner(), limits);
        let parameters = parameters(&mut student);
        let (expected, got) = ("at most 256 tensors of 16777216 numbers in all", numbers(&parameters));
        if parameters.len() > MAX_TENSORS || got.is_none_or(|count| count > MAX_PARAMETERS) {
            let got = format!("a network of {} tensors", parameters.len());
            return Err(ConfigError::new("algorithm", got, expected).into());
        }
        let (config, seats, values) = (config.clone(), HashMap::new(), Vec::new());
        Ok(Self { config, student, shared, parameters, seats, sessions: 0, values, failed: None })
    }

    /// The agent, with its spaces, its evaluations and its policy.
    pub fn student(&mut self) -> &mut Student {
        &mut self.student
    }

    /// Numbers in a gradient.
    pub fn parameters(&self) -> usize {
        self.shared.parameters()
    }

    /// The version of the parameters now.
    pub fn version(&mut self) -> u32 {
        u32::try_from(Shared::version(self.student.trainer().learner())).unwrap_or(u32::MAX)
    }

    /// Environment steps of a gradient.
    pub fn steps(&self) -> u64 {
        self.config.student.algorithm.batch_size() as u64
    }

    /// Begins a session of a worker; its older one is over.
    ///
    /// # Errors
    /// Another agent than this one, too many workers, the end of the run.
    pub fn join(&mut self, worker: &WorkerInfo) -> Result<(Session, SharedInfo), Refusal> {
        self.check_open()?;
        self.check_agent(&worker.parameters)?;
        let number = match self.seats.get(&worker.name) {
            Some(seat) => seat.number,
            None => self.seat()?,
        };
        self.sessions = self.sessions.wrapping_add(1).max(1);
        let session = self.sessions;
        self.seats.insert(worker.name.clone(), Seat { number, session, present: true });
        let settings = settings(&self.config.student);
        Ok((Session { worker: worker.name.clone(), number: session }, SharedInfo { session, settings }))
    }

    /// A number for one worker more: a new one, or that of a worker that left.
    fn seat(&mut self) -> Result<usize, Refusal> {
        if self.seats.len() < self.config.workers {
            return Ok(self.shared.join());
        }
        let left = self.seats.iter().filter(|(_, seat)| !seat.present).min_by_key(|(_, seat)| seat.session);
        let name = left.map(|(name, _)| name.clone()).ok_or(Refusal::Full(self.config.workers))?;
        let number = self.seats.remove(&name).map(|seat| seat.number).unwrap_or_default();
        self.shared.replace(number);
        Ok(number)
    }

    /// A session is over. Nothing happens if a newer one has taken over.
    pub fn leave(&mut self, session: &Session) {
        if let Some(seat) = self.seats.get_mut(&session.worker).filter(|seat| seat.session == session.number)
        {
            seat.present = false;
            self.shared.rest(seat.number);
        }
    }

    /// Takes a frame of gradients. `weight` is the worker's, from 0 to 1. Gives the staleness of the gradient, in updates.
    ///
    /// # Errors
    /// The first reason to refuse it; it is counted.
    pub fn take(
        &mut self,
        session: &Session,
        policy: u32,
        frame: &[u8],
        weight: f32,
        now_ms: u64,
    ) -> Result<u64, Refusal> {
        self.check_open()?;
        let seat = self.seats.get(&session.worker).filter(|seat| seat.session == session.number);
        let Some(number) = seat.map(|seat| seat.number) else {
            return Err(Refusal::Replaced(session.number));
        };
        let read = Gradients::read(frame, self.shared.parameters());
        let gradients = read.inspect_err(|_| self.shared.refused(number))?;
        let ids = gradients.ids();
        let (expected, found) = (session.number, ids.request);
        if expected != found {
            self.shared.refused(number);
            return Err(Refusal::Session { expected, found });
        }
        if ids.policy != policy {
            self.shared.refused(number);
            return Err(Refusal::Policy { expected: policy, found: ids.policy });
        }
        gradients.values(&mut self.values);
        self.apply(number, ids.version, weight, now_ms)
    }

    fn apply(&mut self, number: usize, version: u32, weight: f32, now_ms: u64) -> Result<u64, Refusal> {
        let steps = self.steps();
        let weight = if weight.is_nan() { 0.0 } else { weight.clamp(0.0, 1.0) };
        let trainer = self.student.trainer();
        let rates = [trainer.learning_rate_after(steps) as f32, weight];
        let made = self.shared.apply(trainer.learner(), number, version.into(), &self.values, rates);
        let outcome = made.map_err(|error| self.fail(error.to_string()))?;
        match outcome {
            shared::Outcome::Refused(refusal) => Err(refusal.into()),
            shared::Outcome::Applied { staleness, .. } => {
                let counted = self.student.count(steps, &[], now_ms);
                counted.map_err(|error| self.fail(error.to_string()))?;
                Ok(staleness)
            }
        }
    }

    /// Writes the newest parameters as a frame of weights into `out`, which is emptied first.
    ///
    /// # Errors
    /// Parameters that are not finite: the agent has failed.
    pub fn weights(&mut self, session: &Session, policy: u32, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let learner = self.student.trainer().learner();
        let fetched = self.shared.fetch(learner, &mut self.values);
        let version = fetched.map_err(|error| self.fail(error.to_string()))?;
        let version = u32::try_from(version).unwrap_or(u32::MAX);
        let ids = Ids { request: session.number, policy, version };
        let written = write_complete(ids, Encoding::F32, &self.values, out);
        written.map_err(|error| self.fail(error.to_string()))
    }

    /// What happened since the last call.
    pub fn next_event(&mut self) -> Option<Event> {
        self.student.next_event()
    }

    /// Each worker's name and counts.
    pub fn counts(&self) -> impl Iterator<Item = (&str, &Counts)> {
        let of = |seat: &Seat| self.shared.counts().nth(seat.number);
        self.seats.iter().filter_map(move |(name, seat)| Some((name.as_str(), of(seat)?)))
    }

    fn check_open(&self) -> Result<(), Refusal> {
        match &self.failed {
            Some(why) => Err(Refusal::Failed(why.clone())),
            None if self.student.done() => Err(Refusal::Over(self.config.student.steps)),
            None => Ok(()),
        }
    }

    fn fail(&mut self, why: String) -> Refusal {
        self.failed = Some(why.clone());
        Refusal::Failed(why)
    }

    fn check_agent(&self, found: &[Parameter]) -> Result<(), Refusal> {
        let at = |list: &[Parameter], i: usize| match list.get(i) {
            Some(Parameter { name, shape }) => {
                let name = name.chars().take(64).collect::<String>();
                format!("the tensor {i} {name} {:?}", &shape[..shape.len().min(8)])
            }
            None => format!("{} tensors", list.len()),
        };
        let most = self.parameters.len().max(found.len());
        match (0..most).find(|i| self.parameters.get(*i) != found.get(*i)) {
            Some(i) => Err(Refusal::Agent { expected: at(&self.parameters, i), found: at(found, i) }),
            None => Ok(()),
        }
    }

    /// The agent as a checkpoint of a run: parameters, optimiser, evaluations. `oto eval` and `oto learn --from` read it.
    ///
    /// # Errors
    /// Parameters that are not finite.
    pub fn save(&self) -> Result<Vec<u8>, TrainError> {
        self.student.save(true)
    }

    /// Continues from a checkpoint of [`Self::save`], without its workers.
    ///
    /// # Errors
    /// A foreign or damaged file; nothing changes then.
    pub fn load(&mut self, file: &[u8]) -> Result<(), TrainError> {
        self.student.load(file, 0)?;
        self.student.set_steps(self.config.student.steps);
        Ok(())
    }
}

#[cfg(test)]
mod storm;
#[cfg(test)]
mod tests;

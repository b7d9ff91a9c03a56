//! A worker of an agent that a server shares: it fetches parameters, plays rollouts, and sends gradients.
//!
//! [`link`] is the conversation, [`Rollouts`] the worker's turns; both without sockets. [`run()`] drives them over a socket, a page over its own.

pub mod link;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod run;

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub use run::{connect, random_name, run, student_of};

use crate::config::StudentConfig;
use crate::link::LinkState;
use crate::student::Student;
use crate::trainer::TrainError;
use link::{WorkerConfig, WorkerLink};
use oto_json::{Json, to_tree};
use oto_proto::{Dtype, ErrorCode, Grant, Hello, PROTOCOL, Parameter, WorkerInfo};
use oto_rl::engine::LearnError;

/// The conversation of a student that is a worker, with the agent `policy` of a server. `name` is the worker's; a later session of the
/// same name takes over.
///
/// # Errors
/// Spaces or names that cannot travel.
pub fn link_of(student: &mut Student, policy: &str, name: &str) -> Result<WorkerLink, TrainError> {
    let name = name.to_owned();
    let (observation, action) = student.spaces();
    let config = student.trainer().config();
    let hello = Hello {
        protocol: PROTOCOL.into(),
        policy: policy.into(),
        student: name.clone(),
        observation,
        action,
        adapter: None,
        dtype: Dtype::F32,
        action_dtype: None,
        quantization: None,
        grants: vec![Grant::Gradients],
        stage: None,
        order: None,
        ticket: None,
        actor: None,
        worker: None,
        member: None,
    };
    let (seed, settings) = (config.seed, settings(config));
    let worker = WorkerInfo { name, parameters: parameters(student) };
    let hello = Hello { worker: Some(worker), ..hello };
    WorkerLink::new(WorkerConfig::new(hello, settings, seed))
        .map_err(|error| TrainError::Space(error.message))
}

/// The seed of a worker that was given none: of its name (FNV-1a), as a number that JSON holds exactly.
pub fn seed_of(name: &str) -> u64 {
    let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, mix) >> 12
}

/// The parameters that a worker or a shared side exchanges.
pub(crate) fn parameters(student: &mut Student) -> Vec<Parameter> {
    let engine = student.trainer().learner().engine();
    let one = |(name, _): (&str, usize)| {
        let shape = engine.shapes().find(|(other, _)| *other == name).map_or(&[][..], |(_, shape)| shape);
        let sizes = shape.iter().map(|size| u32::try_from(*size).unwrap_or(u32::MAX));
        Parameter { name: name.into(), shape: sizes.collect() }
    };
    engine.exchanged().map(one).collect()
}

/// The settings that a worker's gradients depend on.
pub(crate) fn settings(student: &StudentConfig) -> Json {
    let gamma = to_tree(&student.gamma);
    Json::Object(vec![("algorithm".into(), to_tree(&student.algorithm)), ("gamma".into(), gamma)])
}

/// A worker's turns: it steps with parameters that came, until its rollout has made an update, and sends the gradients.
#[derive(Debug, Default)]
pub struct Rollouts {
    /// The version of the parameters that it has, and the student's updates before.
    holds: Option<(u32, u64)>,
    gradients: Vec<f32>,
}

impl Rollouts {
    /// Whether the student may step: it has parameters, or takes those that have come.
    ///
    /// # Errors
    /// The learner's failure.
    pub fn ready(&mut self, student: &mut Student, link: &mut WorkerLink) -> Result<bool, TrainError> {
        if self.holds.is_some() {
            return Ok(true);
        }
        let Some((version, values)) = link.take_parameters() else { return Ok(false) };
        let learner = student.trainer().learner();
        learner.engine_mut().write_exchanged(values)?;
        learner.hand_over()?;
        self.holds = Some((version, student.trainer().updates()));
        Ok(true)
    }

    /// Sends the gradients of a rollout that is over; whether it is.
    ///
    /// # Errors
    /// A gradient that is not finite: training has diverged.
    pub fn send(
        &mut self,
        student: &mut Student,
        link: &mut WorkerLink,
        now_ms: u64,
    ) -> Result<bool, TrainError> {
        let updates = student.trainer().updates();
        let Some((version, _)) = self.holds.take_if(|(_, before)| *before != updates) else {
            return Ok(false);
        };
        student.trainer().learner().engine().gradients(&mut self.gradients);
        if !self.gradients.iter().all(|x| x.is_finite()) {
            return Err(LearnError::NotFinite("of the gradient".into()).into());
        }
        link.send(version, &self.gradients, now_ms);
        Ok(true)
    }
}

/// The end of a worker's session for good, if it has come: the end of the agent's run, or the server's reason.
pub fn ended(link: &WorkerLink) -> Option<Result<(), String>> {
    let failure = link.failure().filter(|_| link.state() == LinkState::Failed)?;
    let over = failure.code == ErrorCode::Forbidden && link.stats().parameters > 0;
    Some(if over { Ok(()) } else { Err(failure.message.clone()) })
}

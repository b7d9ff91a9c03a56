//! A worker of an agent that a server shares: it fetches parameters, plays rollouts, and sends gradients.
//!
//! [`link`] is the conversation, without sockets. [`run()`] drives it over a socket, with a student of its own.

pub mod link;

use crate::drive::random;
use crate::hub::{parameters, settings};
use crate::link::LinkState;
use crate::link::tungstenite::Socket;
use crate::run::{self, Observer, RunError};
use crate::student::{Metrics, Student, Tick};
use crate::trainer::TrainError;
use crate::workers::WorkersError;
use link::{WorkerConfig, WorkerLink};
use oto_proto::{Dtype, ErrorCode, Grant, Hello, PROTOCOL, WorkerInfo};
use oto_rl::engine::LearnError;
use std::time::{Duration, Instant};

/// The pause between two looks at the socket, which doubles up to the longest one.
const PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);
/// How long a run waits for its first session.
const CONNECT_MS: u64 = 30_000;
/// How long a run that is over waits for the server to close.
const CLOSE: Duration = Duration::from_secs(2);

/// A name for a worker that was given none.
pub fn random_name() -> String {
    format!("worker-{:016x}", random() >> 64)
}

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
        ticket: None,
        actor: None,
        worker: None,
    };
    let (seed, settings) = (config.seed, settings(config));
    let worker = WorkerInfo { name, parameters: parameters(student) };
    let hello = Hello { worker: Some(worker), ..hello };
    WorkerLink::new(WorkerConfig::new(hello, settings, seed))
        .map_err(|error| TrainError::Space(error.message))
}

/// Connects, and waits until the server has accepted the worker, or `stop`; whether it has. `tell` gets each new problem.
///
/// # Errors
/// A server that refuses for good, or does not answer within 30 seconds.
pub fn connect(
    link: &mut WorkerLink,
    socket: &mut Socket,
    stop: &dyn Fn() -> bool,
    tell: &mut dyn FnMut(&str),
) -> Result<bool, RunError> {
    link.connect(socket.now_ms());
    let mut told = None;
    while !stop() {
        socket.poll(link);
        if link.stats().sessions > 0 {
            return Ok(true);
        }
        if let (LinkState::Failed, Some(failure)) = (link.state(), link.failure()) {
            return Err(refused(link, &failure.message));
        }
        if socket.now_ms() > CONNECT_MS {
            return Err(refused(link, link.problem().unwrap_or("the server does not answer")));
        }
        if let Some(problem) = link.problem().filter(|problem| told.as_deref() != Some(*problem)) {
            tell(problem);
            told = Some(problem.to_owned());
        }
        std::thread::sleep(LONGEST_PAUSE);
    }
    Ok(false)
}

fn refused(link: &WorkerLink, reason: &str) -> RunError {
    let agent = link.hello().policy.clone();
    RunError::Workers(WorkersError::Agent { agent, reason: reason.into() })
}

/// Plays rollouts and sends their gradients until the student has taken its steps, or the observer stops it. `student` is made with
/// [`oto_rl::shared::Part::Worker`].
///
/// # Errors
/// A server that refuses for good, a failed environment, the observer's failure.
pub fn run(
    student: &mut Student,
    link: &mut WorkerLink,
    socket: &mut Socket,
    observer: &mut dyn Observer,
) -> Result<Metrics, RunError> {
    link.connect(socket.now_ms());
    let ended = work(student, link, socket, observer);
    link.disconnect();
    let start = Instant::now();
    socket.poll(link);
    while !socket.is_closed() && start.elapsed() < CLOSE {
        std::thread::sleep(LONGEST_PAUSE);
        socket.poll(link);
    }
    let last = student.metrics(socket.now_ms());
    let written = observer.metrics(&last).map_err(RunError::Observer);
    let saved = run::checkpoint(student, observer);
    ended.and(written).and(saved)?;
    observer.progress(&last).map_err(RunError::Observer)?;
    Ok(last)
}

fn work(
    student: &mut Student,
    link: &mut WorkerLink,
    socket: &mut Socket,
    observer: &mut dyn Observer,
) -> Result<(), RunError> {
    let (mut gradients, mut last_progress, mut pause) = (Vec::new(), Instant::now(), PAUSE);
    while !observer.stop() {
        socket.poll(link);
        if let (LinkState::Failed, Some(failure)) = (link.state(), link.failure()) {
            // The end of the agent's run is the end of its workers.
            let over = failure.code == ErrorCode::Forbidden && link.stats().parameters > 0;
            return if over { Ok(()) } else { Err(refused(link, &failure.message)) };
        }
        if link.stats().sessions == 0 && socket.now_ms() > CONNECT_MS {
            return Err(refused(link, link.problem().unwrap_or("the server does not answer")));
        }
        let Some((version, values)) = link.take_parameters() else {
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            continue;
        };
        pause = PAUSE;
        let learner = student.trainer().learner();
        learner.engine_mut().write_exchanged(values).map_err(TrainError::from)?;
        learner.hand_over().map_err(TrainError::from)?;
        let before = student.trainer().updates();
        while student.trainer().updates() == before {
            let stepped = student.tick(socket.now_ms());
            while let Some(event) = student.next_event() {
                observer.event(&event).map_err(RunError::Observer)?;
            }
            let tick = stepped?;
            if tick == Tick::Stepped && student.trainer().steps().is_multiple_of(run::METRICS) {
                observer.metrics(&student.metrics(socket.now_ms())).map_err(RunError::Observer)?;
            }
            if tick == Tick::Done || observer.stop() {
                return Ok(());
            }
        }
        if last_progress.elapsed() >= run::PROGRESS {
            last_progress = Instant::now();
            observer.progress(&student.metrics(socket.now_ms())).map_err(RunError::Observer)?;
        }
        student.trainer().learner().engine().gradients(&mut gradients);
        match gradients.iter().all(|x| x.is_finite()) {
            true => link.send(version, &gradients, socket.now_ms()),
            false => return Err(TrainError::from(LearnError::NotFinite("of the gradient".into())).into()),
        }
    }
    Ok(())
}

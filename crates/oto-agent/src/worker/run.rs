//! A worker natively: its link over a socket, until its steps are done or the agent's run is over.

use super::link::WorkerLink;
use super::{Rollouts, ended, link_of};
use crate::drive::random;
use crate::environments;
use crate::link::LinkState;
use crate::link::tungstenite::Socket;
use crate::run::{self, Job, Observer, RunError};
use crate::student::{Metrics, Student, Tick};
use oto_graph::Backend;
use oto_rl::shared::Part;
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

/// The student of a job as a worker of this name, and its conversation with an agent.
///
/// # Errors
/// An environment, an algorithm or spaces that no worker can have.
pub fn student_of(
    job: &Job,
    backend: &dyn Backend,
    agent: &str,
    name: &str,
) -> Result<(Student, WorkerLink), RunError> {
    let environment = environments::of_student(&job.env, &job.student)?;
    let mut student = Student::of(Part::Worker, &job.student, environment, &[], backend, 0)?;
    let link = link_of(&mut student, agent, name)?;
    Ok((student, link))
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
        if let Some(failure) = link.failure().filter(|_| link.state() == LinkState::Failed) {
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
    RunError::Agent { agent: link.hello().policy.clone(), reason: reason.into() }
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
    let connected = connect(link, socket, &|| observer.stop(), &mut |_| ());
    let ended = connected.and_then(|_| work(student, link, socket, observer));
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
    let (mut rollouts, mut last_progress, mut pause) = (Rollouts::default(), Instant::now(), PAUSE);
    while !observer.stop() {
        socket.poll(link);
        if let Some(ended) = ended(link) {
            return ended.map_err(|reason| refused(link, &reason));
        }
        if !rollouts.ready(student, link)? {
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            continue;
        }
        pause = PAUSE;
        while !rollouts.send(student, link, socket.now_ms())? {
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
    }
    Ok(())
}

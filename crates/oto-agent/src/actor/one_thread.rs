//! Drives an actor on one thread, where a system has no more: a WASI 0.2 host. Between two steps it sends and receives. An attempt to
//! connect to a silent address takes up to [`Socket::CONNECT_TIMEOUT`]: those deadlines are missed, and counted.

use super::control::faulty;
use super::drive::{Acted, ActorError, FAREWELL};
use super::edge::Edge;
use super::real_time::Waiter;
use super::report::ActorReport;
use super::run::{ActorRun, RunError};
use crate::drive::random;
use crate::link::tungstenite::Socket;
use oto_env::Environment;
use std::time::{Duration, Instant};

/// From one look at the socket to the next.
const LOOK: Duration = Duration::from_millis(1);
/// The socket has no turn this long before a deadline, in nanoseconds.
const LAST: u64 = 2_000_000;

/// Acts in `env` until the steps are made. `report` gets how the actor stands, every `every`; false ends the actor.
///
/// # Errors
/// As [`super::drive::act`].
pub fn act(
    env: &mut dyn Environment,
    socket: &mut Socket,
    run: ActorRun,
    every: Duration,
    mut report: impl FnMut(&ActorReport) -> bool,
) -> Result<Acted, ActorError> {
    let (steps, mut seed) = (run.steps.unwrap_or(u64::MAX), Some(run.seed));
    let mut waiter = Waiter::default();
    let mut row = vec![0.0; env.observation_space().width()];
    let mut edge = self::edge(run, waiter.now())?;
    edge.link().connect(socket.now_ms());
    let mut due = Instant::now() + every;
    while edge.control().steps() < steps {
        serve(&mut edge, socket)?;
        if Instant::now() >= due {
            due = Instant::now() + every;
            if !report(&edge.report()) {
                break;
            }
        }
        if !edge.control().runs() {
            env.evaluate(edge.control().evaluates());
            env.reset(seed.take(), &mut row)?;
            edge.begin(&row, waiter.now())?;
        }
        match edge.control().deadline() {
            None if edge.control().is_ahead() => {
                std::thread::sleep(LOOK / 5);
                continue;
            }
            None => {}
            Some(deadline) if waiter.now().saturating_add(LAST) < deadline => {
                std::thread::sleep(LOOK);
                continue;
            }
            Some(deadline) => _ = waiter.until(deadline),
        }
        let action = edge.act(waiter.now())?;
        let step = env.step(action, &mut row)?;
        edge.stepped(step, faulty(env), &row, waiter.now())?;
    }
    edge.cut()?;
    let report = farewell(&mut edge, socket, FAREWELL)?;
    Ok(Acted { report, policy: edge.policy(env.id()) })
}

/// An actor for a run; its stream of rows gets a random name.
///
/// # Errors
/// A run that cannot begin.
pub fn edge(run: ActorRun, now: u64) -> Result<Edge, RunError> {
    Edge::new(run, random(), now)
}

/// Sends and receives what is there.
///
/// # Errors
/// Why the learner refused for good.
pub fn serve(edge: &mut Edge, socket: &mut Socket) -> Result<(), ActorError> {
    socket.poll(edge.link());
    edge.exchange().map_err(ActorError::Refused)
}

/// Sends the rows that are held, for as long as `patience` lasts, and says goodbye. How the actor stood before it did.
///
/// # Errors
/// As [`serve`].
pub fn farewell(edge: &mut Edge, socket: &mut Socket, patience: Duration) -> Result<ActorReport, ActorError> {
    let until = Instant::now() + patience;
    loop {
        serve(edge, socket)?;
        if edge.link().backlog() == 0 || Instant::now() >= until {
            break;
        }
        std::thread::sleep(LOOK);
    }
    let last = edge.report();
    edge.link().disconnect();
    while !socket.is_closed() && Instant::now() < until {
        socket.poll(edge.link());
        std::thread::sleep(LOOK);
    }
    Ok(last)
}

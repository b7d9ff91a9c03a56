//! Drives an actor in a process of its own: the control loop on the caller's thread, the link to the learner on another one.
//!
//! Between the two lie the ring of rows, the double buffer of weights, and a few atomic numbers. The loop waits for neither the socket nor
//! the link: it exchanges pointers.

use super::control::{Control, faulty};
use super::edge::StepError;
use super::exchange::Exchange;
use super::real_time::Waiter;
use super::report::ActorReport;
use super::run::{ActorRun, RunError};
use crate::drive::random;
use crate::link::tungstenite::{AddressError, Socket};
use crossbeam_utils::atomic::AtomicCell;
use oto_env::{EnvError, Environment};
use oto_proto::FrameError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The link's thread looks at the socket so often: beside a clock, and where each step waits for the learner.
const LOOK: Duration = Duration::from_millis(2);
const SHORT_LOOK: Duration = Duration::from_micros(200);
/// How long rows are still sent, and a farewell, after the last step.
pub(super) const FAREWELL: Duration = Duration::from_secs(10);

/// Why an actor ended.
#[derive(Debug, thiserror::Error)]
pub enum ActorError {
    /// The learner's address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Settings that cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The environment.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// An environment whose observations have another width than it says.
    #[error(transparent)]
    Row(#[from] FrameError),
    /// The same, where one thread does all.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The server refused for good.
    #[error("the learner refused: {0}")]
    Refused(String),
    /// No thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Acts in `env` until the steps are made or `stop` is set. `report` gets how the actor stands, every `every`, on the link's thread.
///
/// # Errors
/// Unusable settings, a failed environment, a permanent refusal by the learner. A lost connection is no error: the actor continues to act, and
/// the link sends its rows after it has connected again.
pub fn act(
    env: &mut dyn Environment,
    mut socket: Socket,
    run: ActorRun,
    stop: &AtomicBool,
    every: Duration,
    report: impl FnMut(&ActorReport) + Send + 'static,
) -> Result<Acted, ActorError> {
    let name = env.id().to_owned();
    let (steps, seed) = (run.steps.unwrap_or(u64::MAX), run.seed);
    let waiter = Waiter::default();
    let (control, exchange) = run.halves(random(), waiter.now())?;
    let between = Arc::<Between>::default();
    let look = if control.deadline().is_some() { LOOK } else { SHORT_LOOK };
    let link = LinkThread { exchange, between: between.clone(), look, name };
    let thread = std::thread::Builder::new().name("oto-actor-link".into());
    let thread: JoinHandle<Left> =
        thread.spawn(move || link.work(&mut socket, every, report)).map_err(ActorError::Thread)?;
    let mut stepping = Stepping { env, between: &between, control, waiter };
    let ended = stepping.run(seed, steps, stop);
    let last = stepping.control.report().clone();
    between.ended.store(true, Ordering::Release);
    let (told, policy) = thread.join().unwrap_or_else(|_| (ActorReport::default(), Ok(None)));
    ended?;
    let policy = policy.map_err(ActorError::Refused)?;
    let ActorReport { acknowledged, held, backlog, connected, link, problem, .. } = told;
    let report = ActorReport { acknowledged, held, backlog, connected, link, problem, ..last };
    Ok(Acted { report, policy })
}

/// What an actor leaves.
#[derive(Debug)]
pub struct Acted {
    /// How it stood.
    pub report: ActorReport,
    /// Its network as a policy's file; none without weights.
    pub policy: Option<Vec<u8>>,
}

/// How the link stood at its end, and the policy, or why the learner refused.
type Left = (ActorReport, Result<Option<Vec<u8>>, String>);

/// What the two threads tell each other, beside rows and weights.
#[derive(Default)]
struct Between {
    /// An empty report on its way to the loop, and a filled one on its way back.
    asked: AtomicCell<Option<Box<ActorReport>>>,
    told: AtomicCell<Option<Box<ActorReport>>>,
    /// The loop has ended.
    ended: AtomicBool,
    /// The link has failed for good.
    failed: AtomicBool,
}

/// The control loop's thread.
struct Stepping<'e> {
    env: &'e mut dyn Environment,
    between: &'e Between,
    control: Control,
    waiter: Waiter,
}

impl Stepping<'_> {
    fn run(&mut self, seed: u64, steps: u64, stop: &AtomicBool) -> Result<(), ActorError> {
        let between = self.between;
        let over = || stop.load(Ordering::Relaxed) || between.failed.load(Ordering::Relaxed);
        let mut seed = Some(seed);
        while self.control.steps() < steps && !over() {
            if !self.control.runs() {
                self.env.evaluate(self.control.evaluates());
                self.env.reset(seed.take(), self.control.observation())?;
                self.control.begin(self.waiter.now());
            }
            if let Some(deadline) = self.control.deadline() {
                let now = self.waiter.until(deadline);
                self.control.act(now)?;
            } else if self.control.is_ahead() {
                std::thread::sleep(SHORT_LOOK);
                self.tell();
                continue;
            } else {
                self.control.act(self.waiter.now())?;
            }
            let before = self.waiter.now();
            let (action, observation) = self.control.action();
            let step = self.env.step(action, observation)?;
            let fault = faulty(self.env);
            self.control.stepped(step, fault, before, self.waiter.now())?;
            self.tell();
        }
        Ok(self.control.cut()?)
    }

    /// Fills a report, if the link asked for one.
    fn tell(&mut self) {
        if let Some(mut asked) = self.between.asked.take() {
            // Neither has a text here, so that nothing is allocated or freed.
            (*asked).clone_from(self.control.report());
            self.between.told.store(Some(asked));
        }
    }
}

/// The link's side: sends rows, writes weights, asks for reports.
struct LinkThread {
    exchange: Exchange,
    between: Arc<Between>,
    look: Duration,
    /// The environment's name.
    name: String,
}

impl LinkThread {
    /// Works until the loop has ended and its rows are acknowledged, or it takes too long. Gives how the link stands then, and the policy, or why
    /// the learner refused.
    fn work(mut self, socket: &mut Socket, every: Duration, mut report: impl FnMut(&ActorReport)) -> Left {
        let (mut due, mut over) = (Instant::now() + every, None);
        let mut spare = Some(Box::<ActorReport>::default());
        self.exchange.link.connect(socket.now_ms());
        loop {
            socket.poll(&mut self.exchange.link);
            if let Err(refused) = self.exchange.exchange() {
                self.between.failed.store(true, Ordering::Release);
                return (self.exchange.seen(ActorReport::default()), Err(refused));
            }
            if Instant::now() >= due
                && let Some(spare) = spare.take()
            {
                self.between.asked.store(Some(spare));
                due = Instant::now() + every;
            }
            if let Some(told) = self.between.told.take() {
                let told = self.exchange.seen(*told);
                report(&told);
                // The loop drops no text.
                spare = Some(Box::new(ActorReport { problem: None, ..told }));
            }
            if self.between.ended.load(Ordering::Acquire) {
                let until = *over.get_or_insert_with(|| Instant::now() + FAREWELL);
                if self.exchange.link.backlog() == 0 || Instant::now() >= until {
                    break;
                }
            }
            std::thread::sleep(self.look);
        }
        let seen = self.exchange.seen(ActorReport::default());
        self.exchange.link.disconnect();
        let until = Instant::now() + FAREWELL;
        while !socket.is_closed() && Instant::now() < until {
            socket.poll(&mut self.exchange.link);
            std::thread::sleep(self.look);
        }
        (seen, Ok(self.exchange.policy(&self.name)))
    }
}

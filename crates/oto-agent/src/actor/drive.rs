//! Drives an actor in a process of its own: the control loop on the caller's thread, the link to the learner on another one.
//!
//! Between the two lie the ring of rows, the double buffer of weights, and a few atomic numbers. The loop waits for neither the socket nor
//! the link: it exchanges pointers.

use super::buffer::{DoubleBuffer, WriteError, Writing};
use super::decide::{Decider, Decision, Equipment, SafeActionError, actions, network};
use super::explore::{Exploration, Explorer};
use super::link::{ActorConfig, ActorLink, ActorStats};
use super::real_time::{Counts, FrequencyError, Jitter, Loop, Waiter, period};
use super::ring::{Recorder, ring};
use crate::drive::random;
use crate::link::LinkState;
use crate::link::tungstenite::{AddressError, Socket};
use crossbeam_utils::atomic::AtomicCell;
use hdrhistogram::Histogram;
use oto_env::{EnvError, Environment};
use oto_proto::{ErrorMessage, Flags, FrameError, Hello, Model, StreamId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The link's thread looks at the socket so often: beside a clock, and where each step waits for the learner.
const LOOK: Duration = Duration::from_millis(2);
const SHORT_LOOK: Duration = Duration::from_micros(200);
/// Without a frequency the loop makes this many steps ahead of the learner's updates.
const AHEAD: u64 = 8;
/// How long rows are still sent, and a farewell, after the last step.
const FAREWELL: Duration = Duration::from_secs(10);

/// What an actor does.
#[derive(Clone, Debug)]
pub struct ActorRun {
    /// The introduction to the learner; its stream is drawn anew.
    pub link: ActorConfig,
    /// Steps a second; none: as fast as the learner keeps up.
    pub hz: Option<f64>,
    /// Steps in all; none: until it is stopped.
    pub steps: Option<u64>,
    /// Rows that are held until they are acknowledged.
    pub ring: usize,
    /// The action while there are no weights, in the environment's units.
    pub safe: Option<Vec<f32>>,
    /// Seed of the environment's episodes and of exploration.
    pub seed: u64,
    /// Exploration instead of the learner's.
    pub exploration: Option<Exploration>,
    /// Training episodes between two evaluations; 0: no evaluation.
    pub evaluate_every: u64,
}

/// Why an actor ended.
#[derive(Debug, thiserror::Error)]
pub enum ActorError {
    /// The learner's address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The introduction.
    #[error("{0}")]
    Hello(String),
    /// A frequency that no loop has.
    #[error(transparent)]
    Frequency(#[from] FrequencyError),
    /// A safe action that the environment does not have.
    #[error(transparent)]
    Safe(#[from] SafeActionError),
    /// The environment.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// An environment whose observations have another width than it says.
    #[error(transparent)]
    Row(#[from] FrameError),
    /// The server refused for good.
    #[error("the learner refused: {0}")]
    Refused(String),
    /// No thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// How an actor stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActorReport {
    /// Steps, and episodes that ended.
    pub steps: u64,
    /// Episodes that ended.
    pub episodes: u64,
    /// The return of the training episode that ended last, as the environment gives it.
    pub last_return: Option<f64>,
    /// The same, of the evaluation that ended last.
    pub last_evaluation: Option<f64>,
    /// The version of the weights that act; 0: none.
    pub version: u32,
    /// The loop's counts; all are 0 without a frequency.
    pub counts: Counts,
    /// The loop's jitter in nanoseconds.
    pub jitter: Jitter,
    /// Steps from the newest row behind the acting weights to the newest row: half of all steps, 99 of 100, and all.
    pub staleness: [u64; 3],
    /// Rows that were recorded.
    pub recorded: u64,
    /// Rows that the learner has for good.
    pub acknowledged: u64,
    /// Rows that are held and not acknowledged.
    pub held: u64,
    /// Updates that the learner owes.
    pub backlog: u64,
    /// Whether a session is agreed upon.
    pub connected: bool,
    /// What the link counted.
    pub link: ActorStats,
    /// What went wrong last with the connection.
    pub problem: Option<String>,
}

/// What the two threads share.
struct Shared {
    /// The network, on its way to the loop.
    equipment: AtomicCell<Option<Box<Equipment>>>,
    /// An empty report on its way to the loop, and a filled one on its way back.
    asked: AtomicCell<Option<Box<ActorReport>>>,
    told: AtomicCell<Option<Box<ActorReport>>>,
    /// Rows that the learner has.
    acknowledged: AtomicU64,
    backlog: AtomicU64,
    /// The newest row behind the weights that were written last.
    reached: AtomicU64,
    /// The loop has ended.
    ended: AtomicBool,
    /// The link has failed for good.
    failed: AtomicBool,
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
) -> Result<ActorReport, ActorError> {
    let ActorRun { mut link, hz, steps, ring: rows, safe, seed, exploration, evaluate_every } = run;
    let space = env.action_space().clone();
    let period = hz.map(period).transpose()?;
    if let Some(actor) = &mut link.hello.actor {
        actor.stream = StreamId(random());
    }
    link.seed = seed ^ random() as u64;
    let hello = |error: ErrorMessage| ActorError::Hello(error.message);
    let formats = link.hello.formats().map_err(hello)?;
    let format = oto_proto::RowFormat::new(&formats, &space);
    let (recorder, reader) = ring(format, rows);
    let link = ActorLink::new(link, reader).map_err(hello)?;
    let decider = Decider::new(space, safe.as_deref())?;
    let shared = Arc::new(Shared {
        equipment: AtomicCell::default(),
        asked: AtomicCell::default(),
        told: AtomicCell::default(),
        acknowledged: AtomicU64::new(0),
        backlog: AtomicU64::new(0),
        reached: AtomicU64::new(0),
        ended: AtomicBool::new(false),
        failed: AtomicBool::new(false),
    });
    let look = if period.is_some() { LOOK } else { SHORT_LOOK };
    let actor =
        LinkThread { shared: shared.clone(), link, writing: None, exploration, seed, pending: None, look };
    let thread = std::thread::Builder::new().name("oto-actor-link".into());
    let thread: JoinHandle<(ActorReport, Option<String>)> =
        thread.spawn(move || actor.work(&mut socket, every, report)).map_err(ActorError::Thread)?;
    let width = env.observation_space().width();
    let mut control = Control {
        env,
        shared: &shared,
        recorder,
        decider,
        period,
        waiter: Waiter::default(),
        staleness: Histogram::new_with_bounds(1, 1 << 32, 2).expect("the bounds are constants"),
        reached: 0,
        observation: vec![0.0; width],
        report: ActorReport::default(),
        evaluate_every,
    };
    let ended = control.run(seed, steps.unwrap_or(u64::MAX), stop);
    let last = control.report;
    shared.ended.store(true, Ordering::Release);
    let (told, refused) = thread.join().unwrap_or_default();
    ended?;
    if let Some(refused) = refused {
        return Err(ActorError::Refused(refused));
    }
    let ActorReport { acknowledged, held, backlog, connected, link, problem, .. } = told;
    Ok(ActorReport { acknowledged, held, backlog, connected, link, problem, ..last })
}

/// The control loop.
struct Control<'e> {
    env: &'e mut dyn Environment,
    shared: &'e Shared,
    recorder: Recorder,
    decider: Decider,
    period: Option<u64>,
    waiter: Waiter,
    staleness: Histogram<u64>,
    /// The newest row behind the acting weights.
    reached: u64,
    observation: Vec<f32>,
    report: ActorReport,
    evaluate_every: u64,
}

impl Control<'_> {
    fn run(&mut self, seed: u64, steps: u64, stop: &AtomicBool) -> Result<(), ActorError> {
        // Without a frequency nothing waits for the deadlines.
        let mut beat = Loop::new(self.period.unwrap_or(1_000_000_000), self.waiter.now());
        let ran = self.episodes(&mut beat, seed, steps, stop);
        self.show(&beat);
        ran
    }

    fn episodes(
        &mut self,
        beat: &mut Loop,
        seed: u64,
        steps: u64,
        stop: &AtomicBool,
    ) -> Result<(), ActorError> {
        let (mut score, mut since, mut flags) = (0.0, 0, Flags::FIRST);
        let shared = self.shared;
        let over = || stop.load(Ordering::Relaxed) || shared.failed.load(Ordering::Relaxed);
        self.env.reset(Some(seed), &mut self.observation)?;
        while self.report.steps < steps && !over() {
            if self.period.is_some() {
                let now = self.waiter.until(beat.deadline());
                beat.begin(now);
            } else if self.is_ahead() {
                std::thread::sleep(SHORT_LOOK);
                self.tell(beat);
                continue;
            }
            let evaluates = self.evaluate_every > 0 && since >= self.evaluate_every;
            let kind = if evaluates { Flags::EVALUATION } else { Flags::NONE };
            let step = self.step(beat, flags | kind)?;
            score += step.reward;
            flags = faulty(self.env);
            if step.done() || self.report.steps >= steps || over() {
                let end = if step.terminated { Flags::TERMINATED } else { Flags::TRUNCATED };
                let version = self.decider.version();
                self.recorder.record(
                    &self.observation,
                    self.decider.action(),
                    flags | end | kind,
                    version,
                )?;
            }
            if step.done() {
                let last =
                    if evaluates { &mut self.report.last_evaluation } else { &mut self.report.last_return };
                *last = Some(score);
                since = if evaluates { 0 } else { since + 1 };
                self.report.episodes += 1;
                (score, flags) = (0.0, Flags::FIRST);
                self.decider.begin();
                self.env.reset(None, &mut self.observation)?;
                // The plant took its time on purpose.
                beat.resume(self.waiter.now());
            }
            self.tell(beat);
        }
        Ok(())
    }

    /// One step: newest weights, an action, its row, the plant.
    fn step(&mut self, beat: &mut Loop, flags: Flags) -> Result<oto_env::Step, ActorError> {
        if let Some(equipment) = self.shared.equipment.take() {
            self.decider.equip(*equipment);
        }
        if self.decider.swap().is_some() {
            self.reached = self.shared.reached.load(Ordering::Acquire);
        }
        match self.decider.decide(&self.observation, !flags.has(Flags::EVALUATION)) {
            Decision::Safe => beat.acts_safely(),
            Decision::Policy(_) => {
                self.staleness.saturating_record(self.recorder.recorded().saturating_sub(self.reached));
            }
        }
        let version = self.decider.version();
        self.recorder.record(&self.observation, self.decider.action(), flags, version)?;
        let before = self.waiter.now();
        let step = self.env.step(self.decider.environment_action(), &mut self.observation)?;
        let after = self.waiter.now();
        beat.plant_took(after - before);
        beat.observed(Some(after));
        self.report.steps += 1;
        Ok(step)
    }

    /// Whether the learner is to make updates before there are more rows.
    fn is_ahead(&self) -> bool {
        let acknowledged = self.shared.acknowledged.load(Ordering::Relaxed);
        let owed = self.shared.backlog.load(Ordering::Relaxed);
        self.recorder.recorded().saturating_sub(acknowledged) + owed > AHEAD
    }

    /// Fills a report, if the link asked for one.
    fn tell(&mut self, beat: &Loop) {
        if let Some(mut asked) = self.shared.asked.take() {
            self.show(beat);
            // Neither has a text here, so that nothing is allocated or freed.
            (*asked).clone_from(&self.report);
            self.shared.told.store(Some(asked));
        }
    }

    fn show(&mut self, beat: &Loop) {
        let at = |quantile| self.staleness.value_at_quantile(quantile);
        let staleness = match self.staleness.is_empty() {
            true => [0; 3],
            false => [at(0.5), at(0.99), self.staleness.max()],
        };
        let paced = self.period.is_some();
        let report = &mut self.report;
        report.staleness = staleness;
        report.version = self.decider.version();
        report.recorded = self.recorder.recorded();
        report.counts =
            if paced { beat.counts() } else { Counts { steps: report.steps, ..Counts::default() } };
        report.jitter = if paced { beat.jitter() } else { Jitter::default() };
    }
}

/// What an environment that knows its sensors' faults says about the newest observation.
pub fn faulty(env: &dyn Environment) -> Flags {
    if env.info("faulty") == Some(1.0) { Flags::FAULTY } else { Flags::NONE }
}

/// The link's side: sends rows, writes weights, asks for reports.
struct LinkThread {
    shared: Arc<Shared>,
    link: ActorLink,
    writing: Option<Writing>,
    exploration: Option<Exploration>,
    seed: u64,
    /// Weights that the loop has not made room for.
    pending: Option<(u32, Vec<f32>)>,
    look: Duration,
}

impl LinkThread {
    /// Works until the loop has ended and its rows are acknowledged, or it takes too long. Gives how the link stands then, and why the learner
    /// refused.
    fn work(
        mut self,
        socket: &mut Socket,
        every: Duration,
        mut report: impl FnMut(&ActorReport),
    ) -> (ActorReport, Option<String>) {
        let (mut due, mut over) = (Instant::now() + every, None);
        let mut spare = Some(Box::<ActorReport>::default());
        self.link.connect(socket.now_ms());
        loop {
            socket.poll(&mut self.link);
            if let Err(refused) = self.exchange() {
                self.shared.failed.store(true, Ordering::Release);
                return (self.seen(ActorReport::default()), Some(refused));
            }
            if Instant::now() >= due
                && let Some(spare) = spare.take()
            {
                self.shared.asked.store(Some(spare));
                due = Instant::now() + every;
            }
            if let Some(told) = self.shared.told.take() {
                let told = self.seen(*told);
                report(&told);
                // The loop drops no text.
                spare = Some(Box::new(ActorReport { problem: None, ..told }));
            }
            if self.shared.ended.load(Ordering::Acquire) {
                let until = *over.get_or_insert_with(|| Instant::now() + FAREWELL);
                if self.link.backlog() == 0 || Instant::now() >= until {
                    break;
                }
            }
            std::thread::sleep(self.look);
        }
        let seen = self.seen(ActorReport::default());
        self.link.disconnect();
        let until = Instant::now() + FAREWELL;
        while !socket.is_closed() && Instant::now() < until {
            socket.poll(&mut self.link);
            std::thread::sleep(self.look);
        }
        (seen, None)
    }

    /// What goes between the link and the loop. The error says why the learner refused for good.
    fn exchange(&mut self) -> Result<(), String> {
        if self.link.state() == LinkState::Failed {
            let failure = self.link.failure().map(|error| error.message.clone());
            return Err(failure.unwrap_or_else(|| "for a reason that it did not say".into()));
        }
        if self.writing.is_none()
            && let Some(model) = self.link.model().cloned()
        {
            self.equip(&model)?;
        }
        self.shared.acknowledged.store(self.link.acknowledged(), Ordering::Relaxed);
        self.shared.backlog.store(self.link.learner_backlog(), Ordering::Relaxed);
        let Some(writing) = &mut self.writing else { return Ok(()) };
        if let Some((version, weights)) = self.link.take_weights() {
            let mut kept = self.pending.take().map_or(Vec::new(), |(_, weights)| weights);
            kept.clear();
            kept.extend_from_slice(weights);
            self.pending = Some((version, kept));
        }
        if let Some((version, weights)) = &self.pending {
            let reached = self.link.acknowledged().saturating_sub(self.link.learner_backlog());
            match writing.write(*version, weights) {
                Ok(()) => {
                    self.shared.reached.store(reached, Ordering::Release);
                    self.pending = None;
                }
                Err(WriteError::Busy { .. }) => {}
                // The link lets none of these through.
                Err(_) => self.pending = None,
            }
        }
        let acts = writing.acts();
        if acts > 0 {
            self.link.applied(acts);
        }
        Ok(())
    }

    /// Makes the network that the learner described.
    fn equip(&mut self, model: &Model) -> Result<(), String> {
        let Hello { observation, action, .. } = self.link.hello();
        let outputs = match actions(action) {
            oto_rl::actions::Actions::Discrete(n) | oto_rl::actions::Actions::Continuous(n) => n,
        };
        let wrong = |expected: String, got: String| format!("expected a network {expected}, got {got}");
        model.check(outputs).map_err(|(expected, got)| wrong(expected, got))?;
        if model.inputs() != observation.width() {
            return Err(wrong(
                format!("for {} inputs", observation.width()),
                format!("one for {}", model.inputs()),
            ));
        }
        let learner = self.link.welcome().and_then(|welcome| welcome.learner.as_ref());
        let told = learner.and_then(|learner| learner.exploration.as_ref());
        let exploration = match (&self.exploration, told) {
            (Some(own), _) => own.clone(),
            (None, Some(told)) => checked(told)?,
            (None, None) => Exploration::default(),
        };
        let explorer = Explorer::new(exploration, actions(action), self.seed);
        let (acting, writing) = DoubleBuffer::new(network(model)).split();
        self.shared.equipment.store(Some(Box::new(Equipment { acting, output: model.output, explorer })));
        self.writing = Some(writing);
        Ok(())
    }

    /// A report with what the link knows.
    fn seen(&self, report: ActorReport) -> ActorReport {
        let link = &self.link;
        ActorReport {
            acknowledged: link.acknowledged(),
            held: link.backlog(),
            backlog: link.learner_backlog(),
            connected: link.state() == LinkState::Ready,
            link: *link.stats(),
            problem: link.problem().map(str::to_owned),
            ..report
        }
    }
}

/// The learner's exploration, if it can be one.
fn checked(told: &oto_json::Json) -> Result<Exploration, String> {
    let exploration: Exploration =
        oto_json::from_tree(told).map_err(|error| format!("exploration: {error}"))?;
    let mut checks = oto_rl::checks::Checks::default();
    checks.within("exploration", |checks| exploration.check(checks));
    checks.done().map_err(|error| error.to_string())?;
    Ok(exploration)
}

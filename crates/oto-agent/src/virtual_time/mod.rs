//! An edge, its plant, a line and a learner in virtual time: one clock, no thread, no socket. The codecs, the actor's ring and double
//! buffer, its link, the learner's session and the learner itself are those of a real edge and a real server.
//!
//! [`VirtualRun`] is for experiments: a run of an hour takes as long as its updates. [`LocalRun`] is the same with a student that trains at the edge.
//!
//! In each period of 1/30 s the edge takes a step and the learner makes at most a given number of updates. While the plant resets, the edge takes
//! no steps and the learner works off its backlog.

mod line;
mod local;
#[cfg(test)]
mod tests;

pub use line::LineConfig;
pub use local::{LocalRun, teacher};

use crate::actor::buffer::{DoubleBuffer, Writing};
use crate::actor::control::faulty;
use crate::actor::decide::{Decider, Decision, Equipment, SafeActionError, actions, network};
use crate::actor::explore::Explorer;
use crate::actor::ring::{Recorder, ring};
use crate::actor::{ActorConfig, ActorLink};
use crate::learner::{Learner, LearnerError, LearnerSession, Offer, Refusal};
use crate::link::{Event, LinkState, Output};
use hdrhistogram::Histogram;
use line::{Line, Message};
use oto_env::{EnvError, Environment};
use oto_proto::message::Received;
use oto_proto::{
    ActorInfo, ClientMessage, Dtype, Encoding, ErrorMessage, Flags, FrameError, Grant, Header, Hello,
    MessageError, RowFormat, ServerMessage, StreamId, TeacherInfo, WeightsError, Welcome,
};
use std::collections::VecDeque;

/// Steps a second.
const HZ: u64 = 30;
/// When edge and learner look for messages, in microseconds after the beginning of a period. A step's row leaves at the first time.
const LOOKS_US: [u64; 4] = [2_000, 10_000, 18_000, 26_000];
/// The learner's name, and the edge's.
const POLICY: &str = "pendulum";
const EDGE: &str = "edge";
const POLICY_ID: u32 = 1;
/// Rows in a frame at most, and rows that the edge holds and may have sent without an acknowledgement: two minutes.
const MAX_ROWS: u16 = 256;
const RING: u32 = 3_600;
/// Pushes whose rows are remembered.
const PUSHES: usize = 64;

/// What a run is made of, beside learner and environment.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Setup {
    /// From the edge to the learner.
    pub up: LineConfig,
    /// From the learner to the edge.
    pub down: LineConfig,
    /// "f32", "f16" or "delta".
    pub encoding: String,
    /// Updates in a period at most.
    pub speed: u32,
    /// Training episodes between two evaluations.
    pub evaluate_every: u64,
    /// Consecutive successful evaluations that end a run.
    pub successes: usize,
    /// Training steps that end a run.
    pub steps: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            up: LineConfig::default(),
            down: LineConfig::default(),
            encoding: "f32".into(),
            speed: 1,
            evaluate_every: 5,
            successes: 5,
            steps: 108_000,
        }
    }
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum VirtualError {
    /// The learner.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// The environment.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// The safe action.
    #[error(transparent)]
    Safe(#[from] SafeActionError),
    /// A row that does not fit its format.
    #[error(transparent)]
    Row(#[from] FrameError),
    /// The edge's introduction.
    #[error("{0}")]
    Hello(String),
    /// A message that the learner's side cannot read.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Rows or a message that the learner's session refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Weights that cannot be sent.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// An encoding that does not exist.
    #[error("expected an encoding, one of f32, f16 and delta, got {0:?}")]
    Encoding(String),
    /// A student at the edge.
    #[error(transparent)]
    Train(#[from] crate::trainer::TrainError),
    /// The edge gave up.
    #[error("the edge's link ended: {0}")]
    Link(String),
}

/// An evaluation: an episode without exploration.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Evaluation {
    /// Training steps before it.
    pub steps: u64,
    /// Consecutive steps on target at its end.
    pub on_target: f64,
    /// Whether the environment calls it a success.
    pub success: bool,
    /// Its return.
    pub score: f64,
}

/// What a run gave.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    /// Training steps until the consecutive successful evaluations that end a run; none: it did not converge.
    pub converged: Option<u64>,
    /// Training steps.
    pub steps: u64,
    /// Periods of the clock: training, evaluations, resets.
    pub periods: u64,
    /// In their order.
    pub evaluations: Vec<Evaluation>,
    /// Training episodes.
    pub episodes: u64,
    /// Updates of the learner.
    pub updates: u64,
    /// Pushes that act, or acted.
    pub pushes: u64,
    /// Bytes of all pushes.
    pub push_bytes: u64,
    /// Bytes of all messages from the edge.
    pub bytes_up: u64,
    /// Bytes of all messages to the edge.
    pub bytes_down: u64,
    /// Steps from the newest row behind the acting weights to the newest row, over training steps: median, 99 of 100, most.
    pub staleness: [u64; 3],
    /// Most updates that the learner owed.
    pub backlog: u64,
    /// Steps with the safe action, because there were no weights.
    pub safe: u64,
    /// Transitions left out as faulty.
    pub faulty: u64,
}

impl Outcome {
    /// Takes an evaluation. The agent has converged once the last `wanted` were successful; never if `wanted` is 0.
    fn take(&mut self, evaluation: Evaluation, wanted: usize) {
        let all = &mut self.evaluations;
        all.push(evaluation);
        if wanted > 0 && all.len() >= wanted && all[all.len() - wanted..].iter().all(|one| one.success) {
            self.converged = Some(evaluation.steps);
        }
    }
}

/// The edge: plant, actor and link.
struct EdgeSide {
    env: Box<dyn Environment>,
    link: ActorLink,
    recorder: Recorder,
    decider: Decider,
    explorer: Option<Explorer>,
    writing: Option<Writing>,
    /// Weights that wait until those before them act.
    pending: Option<(u32, Vec<f32>)>,
    observation: Vec<f32>,
    /// The newest row behind the acting weights.
    reached: u64,
}

/// The cloud: learner and session.
struct CloudSide {
    learner: Learner,
    session: Option<LearnerSession>,
    weights: Vec<f32>,
    /// Wire versions of the last pushes, and the newest row behind each.
    pushed: VecDeque<(u32, u64)>,
}

/// A run that has not begun.
pub struct VirtualRun {
    setup: Setup,
    edge: EdgeSide,
    cloud: CloudSide,
    up: Line,
    down: Line,
    /// Periods so far.
    period: u64,
    /// Microseconds since the last one began.
    since_period: u64,
    staleness: Histogram<u64>,
    outcome: Outcome,
    since_evaluation: u64,
}

impl VirtualRun {
    /// An edge with this environment and a learner, not yet connected. `seed`: the plant's episodes, exploration.
    ///
    /// # Errors
    /// An unknown encoding, spaces that cannot travel, the environment's failure.
    pub fn new(
        setup: Setup,
        learner: Learner,
        mut env: Box<dyn Environment>,
        seed: u64,
    ) -> Result<Self, VirtualError> {
        let encoding = match setup.encoding.as_str() {
            "f32" => Encoding::F32,
            "f16" => Encoding::F16,
            "delta" => Encoding::Delta,
            other => return Err(VirtualError::Encoding(other.into())),
        };
        let space = env.action_space().clone();
        let hello = hello(&*env, seed, encoding);
        let wrong = |error: ErrorMessage| VirtualError::Hello(error.message);
        let formats = hello.formats().map_err(wrong)?;
        let (recorder, reader) = ring(RowFormat::new(&formats, &space), RING as usize);
        // Rows leave in every period.
        let config = ActorConfig { seed, batch: MAX_ROWS, flush_ms: 1, ..ActorConfig::new(hello) };
        let mut link = ActorLink::new(config, reader).map_err(wrong)?;
        link.connect(0);
        let mut observation = vec![0.0; env.observation_space().width()];
        env.reset(Some(seed), &mut observation)?;
        let explorer = Explorer::new(learner.config().exploration.clone(), actions(&space), !seed);
        let edge = EdgeSide {
            decider: Decider::new(space, None)?,
            env,
            link,
            recorder,
            explorer: Some(explorer),
            writing: None,
            pending: None,
            observation,
            reached: 0,
        };
        let cloud = CloudSide {
            learner,
            session: None,
            weights: Vec::new(),
            pushed: VecDeque::with_capacity(PUSHES),
        };
        Ok(Self {
            up: Line::new(setup.up),
            down: Line::new(setup.down),
            setup,
            edge,
            cloud,
            period: 0,
            since_period: 0,
            staleness: Histogram::new_with_bounds(1, 1 << 32, 3).expect("the bounds are constants"),
            outcome: Outcome::default(),
            since_evaluation: 0,
        })
    }

    /// Microseconds since the start.
    fn now(&self) -> u64 {
        self.period * 1_000_000 / HZ + self.since_period
    }

    /// Runs until the agent has converged, or all steps are made. `seen` gets every evaluation, and the learner as it then is; it
    /// ends the run with `false`.
    ///
    /// # Errors
    /// The first failure of either side.
    pub fn run(
        mut self,
        mut seen: impl FnMut(&Evaluation, &Learner) -> Result<bool, VirtualError>,
    ) -> Result<(Outcome, Learner), VirtualError> {
        // The first weights act before the first step.
        while self.edge.decider.version() == 0 {
            self.idle()?;
            self.edge.swap();
            if self.edge.link.state() == LinkState::Failed {
                break;
            }
        }
        self.evaluate(&mut seen)?;
        while self.outcome.steps < self.setup.steps && self.outcome.converged.is_none() {
            self.episode(Flags::NONE)?;
            self.outcome.episodes += 1;
            self.since_evaluation += 1;
            if self.since_evaluation >= self.setup.evaluate_every && !self.evaluate(&mut seen)? {
                break;
            }
        }
        // The last row.
        self.idle()?;
        Ok(self.finish())
    }

    fn evaluate(
        &mut self,
        seen: &mut impl FnMut(&Evaluation, &Learner) -> Result<bool, VirtualError>,
    ) -> Result<bool, VirtualError> {
        self.since_evaluation = 0;
        let steps = self.outcome.steps;
        self.edge.env.evaluate(true);
        let score = self.episode(Flags::EVALUATION)?;
        let info = |name| self.edge.env.info(name).unwrap_or(0.0);
        let evaluation =
            Evaluation { steps, on_target: info("on_target"), success: info("success") == 1.0, score };
        self.edge.env.evaluate(false);
        self.outcome.take(evaluation, self.setup.successes);
        seen(&evaluation, &self.cloud.learner)
    }

    /// The plant's reset, which takes its time: the learner works off its backlog.
    fn begin(&mut self) -> Result<(), VirtualError> {
        let EdgeSide { env, observation, decider, .. } = &mut self.edge;
        env.reset(None, observation)?;
        decider.begin();
        // A whole number of steps.
        let steps = self.edge.env.info("reset_steps").unwrap_or(0.0) as u64;
        (0..steps).try_for_each(|_| self.idle())
    }

    /// A reset and an episode. Gives its return.
    fn episode(&mut self, kind: Flags) -> Result<f64, VirtualError> {
        self.begin()?;
        let (mut score, mut flags) = (0.0, Flags::FIRST);
        loop {
            let step = self.step(flags | kind)?;
            score += step.reward;
            flags = faulty(&*self.edge.env);
            let training = !kind.has(Flags::EVALUATION);
            let over = training && self.outcome.steps >= self.setup.steps;
            if step.done() || over {
                let end = if step.terminated { Flags::TERMINATED } else { Flags::TRUNCATED };
                let EdgeSide { recorder, observation, decider, .. } = &mut self.edge;
                recorder.record(observation, decider.action(), flags | end | kind, decider.version())?;
                return Ok(score);
            }
        }
    }

    /// One step of the edge, and a period of all.
    fn step(&mut self, flags: Flags) -> Result<oto_env::Step, VirtualError> {
        self.deliver()?;
        let edge = &mut self.edge;
        edge.swap();
        let training = !flags.has(Flags::EVALUATION);
        match edge.decider.decide(&edge.observation, training) {
            Decision::Safe => self.outcome.safe += 1,
            Decision::Policy(version) if training => {
                let found = self.cloud.pushed.iter().rev().find(|(wire, _)| *wire == version);
                edge.reached = found.map_or(edge.reached, |(_, reached)| *reached);
                self.staleness.saturating_record(edge.recorder.recorded().saturating_sub(edge.reached));
            }
            Decision::Policy(_) => {}
        }
        let version = edge.decider.version();
        edge.recorder.record(&edge.observation, edge.decider.action(), flags, version)?;
        let step = edge.env.step(edge.decider.environment_action(), &mut edge.observation)?;
        self.outcome.steps += u64::from(training);
        self.pass()?;
        Ok(step)
    }

    /// A period without a step.
    fn idle(&mut self) -> Result<(), VirtualError> {
        self.deliver()?;
        self.pass()
    }

    /// The rest of a period: rows go up, the learner trains, weights go down.
    fn pass(&mut self) -> Result<(), VirtualError> {
        let mut updates = self.setup.speed;
        for since in LOOKS_US {
            self.since_period = since;
            self.edge.link.handle(Event::Tick, self.now() / 1_000);
            self.deliver()?;
            self.take()?;
            while updates > 0 && self.cloud.learner.work()? {
                updates -= 1;
            }
            self.push()?;
        }
        self.outcome.backlog = self.outcome.backlog.max(self.cloud.learner.backlog());
        self.period += 1;
        self.since_period = 0;
        Ok(())
    }

    /// What has arrived at either end.
    fn deliver(&mut self) -> Result<(), VirtualError> {
        let now = self.now();
        self.take()?;
        while let Some(message) = self.down.receive(now) {
            let event = match &message {
                Message::Text(text) => Event::Text(text),
                Message::Binary(frame) => Event::Binary(frame),
            };
            self.edge.link.handle(event, now / 1_000);
        }
        let explorer = &mut self.edge.explorer;
        if self.edge.writing.is_none()
            && let Some(model) = self.edge.link.model()
            && let Some(explorer) = explorer.take()
        {
            let (acting, writing) = DoubleBuffer::new(network(model)).split();
            self.edge.decider.equip(Equipment { acting, output: model.output, explorer, period: None });
            self.edge.writing = Some(writing);
        }
        self.edge.exchange();
        self.send()
    }

    /// What the edge's link wants to say.
    fn send(&mut self) -> Result<(), VirtualError> {
        let now = self.now();
        while let Some(output) = self.edge.link.poll_output() {
            match output {
                Output::Connect => self.edge.link.handle(Event::Connected, now / 1_000),
                Output::Text(text) => self.up.send(now, Message::Text(text)),
                Output::Binary(frame) => self.up.send(now, Message::Binary(frame)),
                Output::Close(code) if self.edge.link.state() == LinkState::Failed => {
                    let problem = self.edge.link.problem().unwrap_or("for no known reason").to_owned();
                    return Err(VirtualError::Link(format!("{problem} (close code {code})")));
                }
                Output::Close(_) => {
                    self.up.cut(now);
                    self.down.cut(now);
                }
            }
        }
        Ok(())
    }

    /// What has arrived at the learner.
    fn take(&mut self) -> Result<(), VirtualError> {
        let now = self.now();
        while let Some(message) = self.up.receive(now) {
            match message {
                Message::Text(text) => match ClientMessage::decode(&text)? {
                    ClientMessage::Hello(hello) => {
                        let welcome = self.cloud.welcome(&hello)?;
                        self.down.send(now, Message::Text(welcome.encode()));
                    }
                    message => {
                        if let Some(session) = &mut self.cloud.session {
                            session.message(&message)?;
                        }
                        self.outcome.pushes += u64::from(matches!(message, ClientMessage::Applied(_)));
                    }
                },
                Message::Binary(frame) => {
                    let answer = self.cloud.rows(&frame)?;
                    self.down.send(now, Message::Text(answer.encode()));
                }
            }
        }
        Ok(())
    }

    /// The newest weights, if the edge acts with the last ones.
    fn push(&mut self) -> Result<(), VirtualError> {
        let now = self.now();
        if let Some(frame) = self.cloud.push()? {
            self.outcome.push_bytes += frame.len() as u64;
            self.down.send(now, Message::Binary(frame));
        }
        Ok(())
    }

    fn finish(self) -> (Outcome, Learner) {
        let at = |quantile| self.staleness.value_at_quantile(quantile);
        let learner = self.cloud.learner;
        let outcome = Outcome {
            periods: self.period,
            updates: learner.updates(),
            bytes_up: self.up.bytes(),
            bytes_down: self.down.bytes(),
            staleness: if self.staleness.is_empty() {
                [0; 3]
            } else {
                [at(0.5), at(0.99), self.staleness.max()]
            },
            faulty: learner.counts().faulty,
            ..self.outcome
        };
        (outcome, learner)
    }
}

impl EdgeSide {
    /// Weights go from the link into the inactive copy; the link learns which version acts.
    fn exchange(&mut self) {
        let Some(writing) = &mut self.writing else { return };
        if let Some((version, weights)) = self.link.take_weights() {
            let mut kept = self.pending.take().map_or(Vec::new(), |(_, kept)| kept);
            kept.clear();
            kept.extend_from_slice(weights);
            self.pending = Some((version, kept));
        }
        if let Some((version, weights)) = &self.pending
            && writing.write(*version, weights).is_ok()
        {
            self.pending = None;
        }
        let acts = writing.acts();
        if acts > 0 {
            self.link.applied(acts);
        }
    }

    fn swap(&mut self) {
        if self.decider.swap().is_some() {
            self.exchange();
        }
    }
}

impl CloudSide {
    fn version(&self) -> u32 {
        u32::try_from(self.learner.updates() + 1).unwrap_or(u32::MAX)
    }

    fn welcome(&mut self, hello: &Hello) -> Result<ServerMessage, VirtualError> {
        let formats = hello.formats().map_err(|error| VirtualError::Hello(error.message))?;
        let Some(actor) = &hello.actor else { return Err(VirtualError::Hello("no actor".into())) };
        let format = RowFormat::new(&formats, &hello.action);
        let model = self.learner.model();
        let offer = Offer { policy: POLICY_ID, model, max_rows: MAX_ROWS, ring: RING, hz: Some(HZ as f64) };
        let edge = self.session.as_mut().map(LearnerSession::replace).unwrap_or_default();
        let (session, info) = LearnerSession::open(actor, format, edge, offer, self.version());
        self.learner.join((EDGE, info.session), actor.stream, info.next)?;
        self.session = Some(session);
        Ok(ServerMessage::Welcome(Box::new(Welcome {
            policy: hello.policy.clone(),
            policy_id: POLICY_ID,
            version: self.version(),
            max_rows: MAX_ROWS,
            credits: 1,
            dtype: Dtype::F32,
            action_dtype: formats.actions.dtype(),
            action_width: formats.actions.width() as u32,
            grants: vec![Grant::Transitions, Grant::Weights],
            submit_rows: None,
            order: None,
            teacher: TeacherInfo {
                observation: hello.observation.clone(),
                action: hello.action.clone(),
                description: String::new(),
            },
            learner: Some(info),
            shared: None,
            group: None,
        })))
    }

    fn rows(&mut self, frame: &[u8]) -> Result<ServerMessage, VirtualError> {
        let Some(session) = &mut self.session else {
            return Err(VirtualError::Hello("rows came before an introduction".into()));
        };
        let number = session.session();
        for row in session.frame(frame)?.rows() {
            self.learner.take((EDGE, number), row)?;
        }
        session.acknowledge(session.next());
        session.received();
        let next = session.acknowledged();
        Ok(ServerMessage::Received(Received { next, backlog: Some(self.learner.backlog()) }))
    }

    fn push(&mut self) -> Result<Option<Vec<u8>>, VirtualError> {
        let version = self.version();
        let Some(session) = self.session.as_mut().filter(|session| session.push_due(version)) else {
            return Ok(None);
        };
        self.learner.weights(&mut self.weights);
        let frame = session.push(version, &self.weights)?;
        if let Some(wire) = frame.as_deref().and_then(Header::version_of) {
            if self.pushed.len() == PUSHES {
                self.pushed.pop_front();
            }
            self.pushed.push_back((wire, session.next().saturating_sub(self.learner.backlog())));
        }
        Ok(frame)
    }
}

fn hello(env: &dyn Environment, seed: u64, encoding: Encoding) -> Hello {
    Hello {
        protocol: oto_proto::PROTOCOL.into(),
        policy: POLICY.into(),
        student: EDGE.into(),
        observation: env.observation_space().clone(),
        action: env.action_space().clone(),
        adapter: None,
        dtype: Dtype::F32,
        action_dtype: None,
        quantization: None,
        grants: vec![Grant::Transitions, Grant::Weights],
        stage: None,
        order: None,
        ticket: None,
        worker: None,
        member: None,
        actor: Some(ActorInfo {
            name: EDGE.into(),
            stream: StreamId(u128::from(seed)),
            first: 0,
            weights: vec![encoding],
            version: 0,
        }),
    }
}

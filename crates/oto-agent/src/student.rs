//! One training run: a [`Trainer`], its environment and its teachers, without input or output. The driver gives the time, and
//! carries what the links want to say; [`Student::tick`] takes one environment step.
//!
//! A built-in environment lives inside; an environment elsewhere (a page's JavaScript object, a component's host) is
//! asked for through [`Student::need`] and answers through [`Student::began`] and [`Student::stepped`].

use crate::adapter;
use crate::checkpoint;
use crate::config::{Clock, ConfigError, StudentConfig};
use crate::evaluation::{Best, Evaluation};
use crate::link::{Link, LinkConfig, LinkState, LinkStatus, Taken, Ticket};
use crate::stage::{Change, Stage};
use crate::submission::{Outbox, Source};
use crate::trainer::{BackendStatus, Episode, TrainError, Trainer};
use oto_env::{Action, Environment, Snapshot, Space, Step};
use oto_graph::Backend;
use oto_json::shown;
use oto_proto::{Adapter, Dtype, Hello, PROTOCOL, Quantization};
use oto_rl::engine::LossParts;
use oto_rl::replay::SlotId;
use oto_rl::shared::{Counts, Part};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// In async mode a batch of states waits at most so long for company, in milliseconds.
const ASYNC_DELAY_MS: u64 = 20;
/// Events kept for a driver that does not take them; the oldest go first.
const MAX_EVENTS: usize = 65_536;
/// Beginnings of episodes that are kept for states that wait to be asked about.
const MAX_BEGUN: usize = 1024;

/// A teacher to be taught by: where it is and how it is asked.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct TeacherConfig {
    /// `ws://` or `wss://` address of the teacher server's link.
    pub url: String,
    /// The policy's name there.
    pub policy: String,
    /// How spaces are mapped, where they differ.
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::Adapter>"))]
    pub adapter: Option<Adapter>,
    /// The teacher's own spaces, in place of `adapter`: the student learns it (feature `adapter`).
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::TeacherSpaces>"))]
    pub learn_adapter: Option<TeacherSpaces>,
    /// How states travel.
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Dtype"))]
    pub dtype: Dtype,
    /// What the bytes of `u8` states mean.
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::Quantization>"))]
    pub quantization: Option<Quantization>,
    /// How much it counts beside the other teachers (OTO eq. 14); 0 leaves it unasked. Only ratios matter: what all teachers
    /// count together is `transfer.alpha_aikd`.
    #[cfg_attr(feature = "schema", schemars(default = "crate::schema::weight"))]
    pub weight: f64,
    /// Whether the teacher gets the student's replay at the end of the Online stage and of the run, if it takes it.
    #[cfg_attr(feature = "schema", schemars(default))]
    pub submit: bool,
}

oto_json::json_object! {
    TeacherConfig: closed {
        url, policy, adapter omit none, learn_adapter omit none, dtype = Dtype::default(), quantization omit none,
        weight = 1.0, submit = false
    }
}

/// What a teacher sees and does.
#[derive(Clone, Debug, PartialEq)]
pub struct TeacherSpaces {
    /// Its observations.
    pub observation: oto_proto::Space,
    /// Its actions.
    pub action: oto_proto::Space,
}

oto_json::json_object! { TeacherSpaces: open { observation, action } }

/// Where a student acts.
pub enum Environments {
    /// An environment in this process, and perhaps another of its kind for evaluations.
    Inside {
        /// The training environment.
        train: Box<dyn Environment>,
        /// The evaluation environment. Without it evaluations are played between episodes in the training environment, if
        /// [`StudentConfig::evaluate_between_episodes`] says so, or not at all.
        evaluate: Option<Box<dyn Environment>>,
    },
    /// An environment that only the driver reaches.
    Outside {
        /// Its observations.
        observation: Space,
        /// Its actions.
        action: Space,
        /// Whether the driver has a second one for evaluations; without it there are none.
        evaluates: bool,
    },
}

impl Environments {
    /// Two built-in environments of this id.
    pub fn built_in(id: &str) -> Result<Self, TrainError> {
        Ok(Environments::Inside { train: oto_env::make(id)?, evaluate: Some(oto_env::make(id)?) })
    }

    /// Its observations and its actions.
    pub fn spaces(&self) -> (&Space, &Space) {
        match self {
            Environments::Inside { train, .. } => (train.observation_space(), train.action_space()),
            Environments::Outside { observation, action, .. } => (observation, action),
        }
    }
}

/// What a student waits for. A question to the environment (`Reset`, `Step`, `Evaluate`) stays open until it is answered,
/// or withdrawn by [`Student::give_up_episode`] or [`Student::load`], whatever the links do meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A reset of the environment, the very first one with a seed; answer with [`Student::began`].
    Reset(Option<u64>),
    /// [`Student::action`] in the environment; answer with [`Student::stepped`].
    Step,
    /// Greedy episodes in the second environment of [`Environments::Outside`], the first one reset with the seed if there is one,
    /// with the actions of [`Trainer::greedy`]; answer with [`Student::evaluated`].
    Evaluate {
        /// How many.
        episodes: u32,
        /// There for a student's first evaluation.
        seed: Option<u64>,
    },
    /// A pause (lockstep): labels that are due or updates are on their way. Carry the links' messages, then ask again.
    Wait,
    /// Nothing: the run is over.
    Nothing,
}

/// What one [`Student::tick`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// One environment step.
    Stepped,
    /// Nothing: labels that are due or updates are on their way (lockstep).
    Waiting,
    /// Nothing: the run is over.
    Done,
}

/// Something worth a line in a log or a point in a curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A training episode ended.
    Episode {
        /// Environment steps so far.
        step: u64,
        /// Its undiscounted return and length.
        #[serde(flatten)]
        episode: Episode,
    },
    /// Greedy episodes were played.
    Evaluation {
        /// Environment steps so far.
        step: u64,
        /// Mean return.
        mean: f64,
        /// Lowest return.
        min: f64,
        /// Highest return.
        max: f64,
        /// How many.
        episodes: u32,
    },
    /// A stage began.
    Stage {
        /// Environment steps so far.
        step: u64,
        /// Which one.
        stage: Stage,
    },
    /// A learnt adapter came into use, or the one in use was given up.
    Adapter {
        /// Environment steps so far.
        step: u64,
        /// Which teacher's, from 0.
        teacher: usize,
        /// As it could be declared.
        adapter: Option<Adapter>,
    },
}

/// How a run stands.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Environment steps so far.
    pub step: u64,
    /// Environment steps of the run.
    pub steps: u64,
    /// Updates so far.
    pub updates: u64,
    /// Finished training episodes.
    pub episodes: u64,
    /// The stage.
    pub stage: Stage,
    /// How often all stages were gone through.
    pub rounds: u64,
    /// Whether the run is over.
    pub done: bool,
    /// Share of random actions now.
    pub epsilon: f64,
    /// The last training episode.
    pub last_episode: Option<Episode>,
    /// Mean return of the last evaluation.
    pub last_evaluation: Option<f64>,
    /// The report of the last update: the parts of its loss, and the algorithm's own numbers by their names.
    pub loss: Option<LossParts>,
    /// What runs the updates.
    pub backend: BackendStatus,
    /// Labels in the buffer, over all teachers.
    pub labels: u64,
    /// Raw transitions that left the student, repetitions included: none, unless a grant says otherwise.
    pub transitions_sent: u64,
    /// Those of them that a teacher keeps.
    pub transitions_kept: u64,
    /// Each teacher's link.
    pub teachers: Vec<LinkStatus>,
    /// What each asynchronous worker sent; none where the run has one worker.
    pub workers: Option<Vec<Counts>>,
}

oto_json::json_object! {
    Metrics: written {
        step, steps, updates, episodes, stage, rounds, done, epsilon, last_episode, last_evaluation, loss, backend, labels,
        transitions_sent, transitions_kept, teachers, workers omit none
    }
}

struct Teacher {
    link: Link,
    /// Lockstep: requests whose labels have not entered, oldest first.
    requests: VecDeque<Request>,
    /// States offered to the link since its last request: the first slot and how many.
    offered: (SlotId, u64),
    /// There if the student submits its replay to this teacher.
    outbox: Option<Outbox>,
    /// There if the student learns the adapter to this teacher.
    adapter: Option<Box<adapter::Learner>>,
}

/// A request of lockstep and what became of it.
struct Request {
    due: Due,
    ticket: Ticket,
}

/// Consecutive slots whose labels enter at a step.
#[derive(Clone, Copy)]
struct Due {
    enters: u64,
    first: SlotId,
    count: u64,
}

oto_json::json_object! { Due: open { enters, first, count } }

/// A training run.
pub struct Student {
    trainer: Trainer,
    environment: Environments,
    teachers: Vec<Teacher>,
    observation: Vec<f32>,
    seeded: bool,
    /// The question to the environment that is not answered yet.
    asked: Option<Need>,
    last_ms: Option<u64>,
    /// Slots stored by the last step; all of one step fit, so it grows to n-step's length once.
    stored: Vec<SlotId>,
    /// The slots of the newest states that began an episode, and whether the next one does.
    begun: VecDeque<SlotId>,
    begins: bool,
    /// Room for a stored observation that is put together.
    room: Vec<f32>,
    labels: u64,
    last_episode: Option<Episode>,
    /// An evaluation waits for the end of an episode.
    evaluation_due: bool,
    events: VecDeque<Event>,
    /// The student's name on servers, where its configuration gives none.
    name: Option<String>,
    /// The run's random name, for what it submits.
    run: Option<u128>,
}

/// What a checkpoint keeps beside the trainer.
struct Extra {
    seeded: bool,
    pending: bool,
    evaluating: bool,
    labels: u64,
    /// The saved environments, under the name that checkpoints have.
    worlds: Option<(Snapshot, Snapshot)>,
    requests: Vec<Vec<Due>>,
    offered: Vec<(SlotId, u64)>,
    begun: Vec<SlotId>,
    begins: bool,
    weights: Vec<f64>,
    last_episode: Option<Episode>,
    evaluation_due: bool,
    outboxes: Vec<Option<Outbox>>,
    adapters: Vec<Option<adapter::State>>,
    name: Option<String>,
}

oto_json::json_object! {
    Extra: open {
        seeded, pending, evaluating = false, labels, worlds, requests, offered, begun = Vec::new(), begins = false, weights = Vec::new(), last_episode,
        evaluation_due = false, outboxes = Vec::new(), adapters = Vec::new(), name = None
    }
}

impl Extra {
    /// Checks what a run at this step can have.
    fn check(&self, steps: u64, label_lag: u64) -> Result<(), String> {
        let latest = steps.saturating_add(label_lag);
        if let Some(due) = self.requests.iter().flatten().find(|due| due.enters > latest) {
            return Err(format!("labels enter at step {}, expected {latest} at most", due.enters));
        }
        if let Some(weight) = self.weights.iter().find(|weight| !(0.0..=1e6).contains(*weight)) {
            return Err(format!("a teacher weighs {}, expected a weight from 0 to 1e6", shown(weight)));
        }
        match self.last_episode.map(|episode| episode.score).filter(|score| !score.is_finite()) {
            Some(wrong) => Err(format!("a return is {}, expected a finite number", shown(&wrong))),
            None => Ok(()),
        }
    }
}

impl Student {
    /// A new student. Its links are switched on; nothing is sent before a driver carries their messages.
    pub fn new(
        config: &StudentConfig,
        environment: Environments,
        teachers: &[TeacherConfig],
        backend: &dyn Backend,
        now_ms: u64,
    ) -> Result<Self, TrainError> {
        Self::of(Part::Whole, config, environment, teachers, backend, now_ms)
    }

    /// The same with a part of the algorithm's update: a worker, or the shared side of several workers.
    ///
    /// # Errors
    /// The same, and an algorithm that is not asynchronous.
    pub fn of(
        part: Part,
        config: &StudentConfig,
        environment: Environments,
        teachers: &[TeacherConfig],
        backend: &dyn Backend,
        now_ms: u64,
    ) -> Result<Self, TrainError> {
        let (observation, action) = environment.spaces();
        if config.algorithm.is_recurrent()
            && config.evaluation.every > 0
            && let Environments::Outside { evaluates: true, .. } = environment
        {
            let expected = "0 with a recurrent policy in an environment of the host, which does not tell where evaluation episodes begin";
            return Err(
                ConfigError::new("evaluation.every", config.evaluation.every.to_string(), expected).into()
            );
        }
        let mut trainer = Trainer::of(part, config, [observation, action], teachers.len(), backend)?;
        for (i, t) in teachers.iter().enumerate() {
            trainer.set_teacher_weight(i, t.weight)?;
        }
        let link =
            |(i, t): (usize, &TeacherConfig)| teacher(config, t, i, [observation, action], &trainer, now_ms);
        let teachers = teachers.iter().enumerate().map(link).collect::<Result<_, _>>()?;
        let width = observation.width();
        Ok(Self {
            trainer,
            environment,
            teachers,
            observation: vec![0.0; width],
            seeded: false,
            asked: None,
            last_ms: None,
            stored: Vec::new(),
            begun: VecDeque::with_capacity(MAX_BEGUN),
            begins: false,
            room: Vec::new(),
            labels: 0,
            last_episode: None,
            evaluation_due: false,
            events: VecDeque::new(),
            name: None,
            run: None,
        })
    }

    /// Gives the run its two random names, unless it has them. `draw` gives 128 bits that nobody can guess. One names the
    /// batches that are submitted: every process draws its own. The other is the student's name on servers, if its
    /// configuration has none: a run that goes on from a checkpoint keeps it.
    pub fn name_run(&mut self, mut draw: impl FnMut() -> u128) {
        if self.run.is_some() {
            return;
        }
        self.run = Some(draw());
        if self.name.is_none() && self.trainer.config().name.is_none() {
            self.rename(format!("oto-{:016x}", draw() >> 64));
        }
    }

    /// The student's name on servers.
    pub fn name(&self) -> Option<&str> {
        self.trainer.config.name.as_deref().or(self.name.as_deref())
    }

    fn rename(&mut self, name: String) {
        self.teachers.iter_mut().for_each(|t| t.link.set_student(&name));
        self.name = Some(name);
    }

    /// Its environment's spaces, as the protocol has them.
    pub fn spaces(&self) -> (oto_proto::Space, oto_proto::Space) {
        let (observation, action) = self.environment.spaces();
        (observation.clone(), action.clone())
    }

    /// What has to happen next. A question to the environment is the same until it is answered.
    pub fn need(&mut self, now_ms: u64) -> Result<Need, TrainError> {
        if let Some(asked) = self.asked {
            self.submit(now_ms);
            return Ok(asked);
        }
        if self.done() {
            return Ok(Need::Nothing);
        }
        self.submit(now_ms);
        self.trainer.collect()?;
        let behind = self.trainer.waits_for_updates() && self.trainer.behind() > 0;
        if behind || !self.take_labels(now_ms) {
            return Ok(Need::Wait);
        }
        let asked = if self.trainer.running() {
            self.trainer.act()?;
            Need::Step
        } else {
            Need::Reset((!self.seeded).then_some(self.trainer.config().seed))
        };
        self.asked = Some(asked);
        Ok(asked)
    }

    /// The question to the environment that is not answered yet.
    pub fn asked(&self) -> Option<Need> {
        self.asked
    }

    /// The action that [`Need::Step`] is about, in the environment's units.
    pub fn action(&mut self) -> Action<'_> {
        self.trainer.action()
    }

    /// The environment was reset: its first observation.
    ///
    /// # Errors
    /// [`TrainError::Unasked`], and an observation that the space does not have; then the question stays open.
    pub fn began(&mut self, observation: &[f32]) -> Result<(), TrainError> {
        if !matches!(self.asked, Some(Need::Reset(_))) {
            return Err(TrainError::Unasked { got: "a reset", asked: asked_for(self.asked) });
        }
        self.trainer.begin(observation)?;
        (self.seeded, self.asked, self.begins) = (true, None, true);
        Ok(())
    }

    /// The environment took the step that was needed: what it gave. Learns, and evaluates where that is due.
    ///
    /// # Errors
    /// [`TrainError::Unasked`], and numbers that cannot be learned from; then the question stays open.
    pub fn stepped(&mut self, step: Step, observation: &[f32], now_ms: u64) -> Result<(), TrainError> {
        if self.asked != Some(Need::Step) {
            return Err(TrainError::Unasked { got: "a step", asked: asked_for(self.asked) });
        }
        self.stored.clear();
        let (stored, before) = (&mut self.stored, self.trainer.steps());
        let observed = self.trainer.observe(step, observation, |slot, _| stored.push(slot));
        if self.trainer.steps() > before {
            self.asked = None;
        }
        if let Some(first) = self.stored.first().filter(|_| self.begins && !self.teachers.is_empty()) {
            if self.begun.len() == MAX_BEGUN {
                self.begun.pop_front();
            }
            self.begun.push_back(*first);
            self.begins = false;
        }
        if let Some(episode) = observed? {
            self.last_episode = Some(episode);
            self.event(Event::Episode { step: self.trainer.steps(), episode });
        }
        if self.trainer.stages().stage() == Stage::Transfer {
            self.ask(now_ms);
            self.learn_adapters(now_ms);
        }
        let evaluation = match (self.due_episodes(), &self.environment) {
            (Some(episodes), Environments::Inside { .. }) => Some(self.evaluate(episodes)?),
            (Some(episodes), Environments::Outside { .. }) => {
                self.evaluation_due = false;
                self.asked = Some(Need::Evaluate { episodes, seed: self.evaluation_seed() });
                return Ok(());
            }
            (None, _) => None,
        };
        self.finish_step(evaluation, now_ms)
    }

    /// Counts steps that a worker took, and the episodes that ended in them. Evaluates where that is due.
    ///
    /// # Errors
    /// What an evaluation brings.
    pub fn count(&mut self, steps: u64, episodes: &[Episode], now_ms: u64) -> Result<(), TrainError> {
        let before = self.trainer.steps();
        self.trainer.count(steps, episodes.len() as u64);
        let step = self.trainer.steps();
        for episode in episodes {
            self.last_episode = Some(*episode);
            self.event(Event::Episode { step, episode: *episode });
        }
        let every = self.trainer.config().evaluation.every;
        self.evaluation_due |= every > 0 && before / every < step / every;
        for _ in 1..steps {
            self.trainer.advance_stage(0.0, None)?;
        }
        let evaluation = match self.due_episodes() {
            None => None,
            Some(episodes) => {
                self.trainer.learner().hand_over()?;
                Some(self.evaluate(episodes)?)
            }
        };
        self.finish_step(evaluation, now_ms)
    }

    /// The evaluation that was needed was played: the returns of its episodes.
    ///
    /// # Errors
    /// [`TrainError::Unasked`], and returns that are none; then the question stays open.
    pub fn evaluated(&mut self, returns: &[f64], now_ms: u64) -> Result<(), TrainError> {
        if !matches!(self.asked, Some(Need::Evaluate { .. })) {
            return Err(TrainError::Unasked { got: "an evaluation", asked: asked_for(self.asked) });
        }
        let mean = self.record_evaluation(returns)?;
        self.asked = None;
        self.finish_step(Some(mean), now_ms)
    }

    /// What follows a step and its evaluation: the stages' clock.
    fn finish_step(&mut self, evaluation: Option<f64>, now_ms: u64) -> Result<(), TrainError> {
        let seconds = self.last_ms.map_or(0.0, |last| now_ms.saturating_sub(last) as f64 / 1000.0);
        self.last_ms = Some(now_ms);
        let before = self.trainer.stages().stage();
        let changed = self.trainer.advance_stage(seconds, evaluation)? != Change::None;
        if (changed && before == Stage::Online) || self.done() {
            self.gather()?;
        }
        if changed && !self.done() {
            let (step, stage) = (self.trainer.steps(), self.trainer.stages().stage());
            self.teachers.iter_mut().for_each(|t| t.link.stage(stage, step));
            self.event(Event::Stage { step, stage });
        }
        Ok(())
    }

    /// Puts what no teacher was given yet into batches.
    fn gather(&mut self) -> Result<(), TrainError> {
        let (replay, run) = (&self.trainer.replay, self.run);
        for t in &mut self.teachers {
            if let Some(outbox) = &mut t.outbox {
                outbox.gather(replay, &t.link, run.ok_or(TrainError::Unnamed)?);
            }
        }
        Ok(())
    }

    /// Goes on with submitting what is to be submitted, as far as teachers take it now; true while something may still
    /// be acknowledged. Training calls it by itself; after the run a driver does, with the links' messages in between.
    pub fn submit(&mut self, now_ms: u64) -> bool {
        let Some(run) = self.run else { return false };
        let (replay, running) = (&self.trainer.replay, self.trainer.running());
        let source = Source { replay, action: self.environment.spaces().1, running };
        let mut hope = false;
        for t in &mut self.teachers {
            let Some(outbox) = t.outbox.as_mut().filter(|outbox| !outbox.is_empty()) else { continue };
            outbox.pump(&mut t.link, &source, run, now_ms);
            hope |= !outbox.is_empty() && t.link.hopes_to_submit();
        }
        hope
    }

    /// Whether nothing waits to be acknowledged.
    pub fn all_submitted(&self) -> bool {
        self.teachers.iter().all(|t| t.outbox.as_ref().is_none_or(Outbox::is_empty))
    }

    /// The environment failed: the question to it is withdrawn. A training episode is given up, and a reset is needed next;
    /// an evaluation is left out. What the environment gave before stays.
    ///
    /// # Errors
    /// What the end of a stage brings, if one ends here.
    pub fn give_up_episode(&mut self) -> Result<(), TrainError> {
        if let Some(Need::Evaluate { .. }) = self.asked.take() {
            return self.finish_step(None, self.last_ms.unwrap_or(0));
        }
        self.trainer.running = false;
        Ok(())
    }

    /// One environment step in a built-in environment.
    pub fn tick(&mut self, now_ms: u64) -> Result<Tick, TrainError> {
        loop {
            let need = self.need(now_ms)?;
            let Environments::Inside { train, .. } = &mut self.environment else {
                return Err(TrainError::Space("this student's environment is stepped from outside".into()));
            };
            match need {
                Need::Nothing => return Ok(Tick::Done),
                Need::Wait => return Ok(Tick::Waiting),
                // Only an environment outside is asked for one.
                Need::Evaluate { .. } => self.give_up_episode()?,
                Need::Reset(seed) => {
                    train.reset(seed, &mut self.observation)?;
                    let observation = std::mem::take(&mut self.observation);
                    let result = self.began(&observation);
                    self.observation = observation;
                    result?;
                }
                Need::Step => {
                    let step = train.step(self.trainer.action(), &mut self.observation)?;
                    let observation = std::mem::take(&mut self.observation);
                    let result = self.stepped(step, &observation, now_ms);
                    self.observation = observation;
                    return result.map(|()| Tick::Stepped);
                }
            }
        }
    }

    /// How much a teacher counts from now on, see [`TeacherConfig::weight`]: 0 switches it off, it is asked no more and its
    /// labels rest; a weight above 0 switches it on again.
    pub fn set_teacher_weight(&mut self, teacher: usize, weight: f64) -> Result<(), TrainError> {
        self.trainer.set_teacher_weight(teacher, weight)
    }

    /// Offers the last step's states to every teacher that counts and makes the requests that are full.
    fn ask(&mut self, now_ms: u64) {
        let (config, replay, step) = (self.trainer.config(), self.trainer.replay(), self.trainer.steps());
        let (batch, enters) = (config.request_batch, step + config.label_lag);
        let asked = self.teachers.iter_mut().zip(self.trainer.teacher_weights()).filter(|(_, w)| **w > 0.0);
        for (t, _) in asked {
            if let Some(mut adapter) = t.adapter.take() {
                for query in adapter.queries(replay) {
                    t.offer(query, false, adapter.query(query, replay), batch, enters, now_ms);
                }
                t.adapter = Some(adapter);
                continue;
            }
            for slot in &self.stored {
                let (begins, state) =
                    (self.begun.binary_search(slot).is_ok(), replay.observation(*slot, &mut self.room));
                t.offer(*slot, begins, state, batch, enters, now_ms);
            }
        }
    }

    /// Looks for adapters where it is time. Labels under an older one are forgotten.
    fn learn_adapters(&mut self, now_ms: u64) {
        for i in 0..self.teachers.len() {
            let Trainer { replay, learner, config, steps, .. } = &mut self.trainer;
            let t = &mut self.teachers[i];
            let Some(learnt) = t.adapter.as_mut().filter(|a| a.is_due(replay)) else { continue };
            if learnt.look(replay, |observation, action| learner.act(observation, action)) {
                let (step, adapter) = (*steps, learnt.adapter());
                t.request(step + config.label_lag, now_ms);
                replay.forget_labels(i);
                self.event(Event::Adapter { step, teacher: i, adapter });
            }
        }
    }

    /// The adapter that was learnt for a teacher and is in use.
    pub fn learnt_adapter(&self, teacher: usize) -> Option<Adapter> {
        self.teachers.get(teacher)?.adapter.as_ref()?.adapter()
    }

    /// Puts labels that are due beside their transitions; false if some are due and still on their way.
    fn take_labels(&mut self, _now_ms: u64) -> bool {
        let (trainer, labels) = (&mut self.trainer, &mut self.labels);
        let (step, clock) = (trainer.steps(), trainer.config().clock);
        let mut ready = true;
        for (i, t) in self.teachers.iter_mut().enumerate() {
            let mut adapter = t.adapter.take();
            let mut put = |slot, action: Action<'_>, version| {
                if let Some(adapter) = &mut adapter {
                    if let Some((slot, label)) = adapter.answer(slot, action, &trainer.replay) {
                        *labels += u64::from(trainer.replay.label(slot, i, label, version));
                    }
                    return;
                }
                *labels += u64::from(trainer.label(slot, i, action, version));
            };
            match clock {
                Clock::Async => t.link.drain_labels(&mut put),
                Clock::Lockstep => ready &= t.take_due(step, &mut put),
            }
            t.adapter = adapter;
        }
        ready
    }

    /// How many episodes of evaluation are to be played after this step: where it is time, and there is where to play them.
    fn due_episodes(&mut self) -> Option<u32> {
        let e = self.trainer.config().evaluation;
        if e.every == 0 || matches!(self.environment, Environments::Outside { evaluates: false, .. }) {
            return None;
        }
        self.evaluation_due |= self.trainer.steps().is_multiple_of(e.every);
        // In the training environment there is room between two episodes, and after the last step.
        let between = self.trainer.config().evaluate_between_episodes;
        let waits = between && self.trainer.running() && !self.done();
        (self.evaluation_due && !waits).then_some(e.episodes)
    }

    /// The seed of the next evaluation's first episode: there is one for the first evaluation of all.
    pub fn evaluation_seed(&self) -> Option<u64> {
        self.trainer.evaluations.last.is_none().then(|| evaluation_seed(self.trainer.config().seed))
    }

    /// Takes the returns of greedy episodes that were played outside, and gives their mean.
    ///
    /// # Errors
    /// If there is none, or one is no finite number.
    pub fn record_evaluation(&mut self, returns: &[f64]) -> Result<f64, TrainError> {
        let Evaluation { step, mean, min, max, episodes, .. } = self.trainer.evaluated(returns)?;
        self.event(Event::Evaluation { step, mean, min, max, episodes });
        Ok(mean)
    }

    /// Plays greedy episodes in the evaluation environment, or between two episodes of training in its environment: their mean
    /// return.
    pub fn evaluate(&mut self, episodes: u32) -> Result<f64, TrainError> {
        self.evaluation_due = false;
        let between = self.trainer.config().evaluate_between_episodes;
        let seed = self.evaluation_seed().filter(|_| !between);
        if between {
            self.give_up_episode()?;
        }
        let evaluate = match &mut self.environment {
            Environments::Inside { train, .. } if between => train,
            Environments::Inside { evaluate: Some(evaluate), .. } => evaluate,
            Environments::Inside { evaluate: None, .. } => {
                return Err(TrainError::Space("this student has no environment for evaluations".into()));
            }
            Environments::Outside { .. } => {
                return Err(TrainError::Space("an environment outside is evaluated by its owner".into()));
            }
        };
        // The first one has the seed.
        let seeds = (0..episodes).map(|i| seed.filter(|_| i == 0));
        let returns = self.trainer.play(&mut **evaluate, seeds)?;
        self.record_evaluation(&returns)
    }

    fn event(&mut self, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The oldest event not yet taken.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether the run is over: all steps taken, or the last stage ended.
    pub fn done(&self) -> bool {
        self.trainer.steps() >= self.trainer.config().steps || self.trainer.stages().done()
    }

    /// How the run stands.
    pub fn metrics(&self, now_ms: u64) -> Metrics {
        let t = &self.trainer;
        Metrics {
            step: t.steps(),
            steps: t.config().steps,
            updates: t.updates(),
            episodes: t.episodes(),
            stage: t.stages().stage(),
            rounds: t.stages().rounds(),
            done: self.done(),
            epsilon: t.epsilon(),
            last_episode: self.last_episode,
            last_evaluation: t.evaluations.last,
            loss: t.report(),
            backend: t.backend_status(),
            labels: self.labels,
            transitions_sent: self.teachers.iter().map(|t| t.link.stats().transitions_sent).sum(),
            transitions_kept: self.teachers.iter().filter_map(|t| t.outbox.as_ref()).map(Outbox::kept).sum(),
            teachers: self.teachers.iter().map(|t| t.link.status(now_ms)).collect(),
            workers: None,
        }
    }

    /// The links, for the driver that carries their messages.
    pub fn links(&mut self) -> impl Iterator<Item = &mut Link> {
        self.teachers.iter_mut().map(|t| &mut t.link)
    }

    /// The trainer.
    pub fn trainer(&mut self) -> &mut Trainer {
        &mut self.trainer
    }

    /// Goes on for so many steps more, or to another end.
    pub fn set_steps(&mut self, steps: u64) {
        self.trainer.config.steps = steps;
    }

    /// The whole run as a safetensors file, or without replay only what it takes to act and to learn anew.
    pub fn save(&self, with_replay: bool) -> Result<Vec<u8>, TrainError> {
        let extra = Extra {
            seeded: self.seeded,
            pending: self.asked == Some(Need::Step),
            evaluating: matches!(self.asked, Some(Need::Evaluate { .. })),
            labels: self.labels,
            worlds: self.environments(),
            requests: self.teachers.iter().map(|t| t.requests.iter().map(|r| r.due).collect()).collect(),
            offered: self.teachers.iter().map(|t| t.offered).collect(),
            begun: self.begun.iter().copied().collect(),
            begins: self.begins,
            weights: self.trainer.teacher_weights().to_vec(),
            last_episode: self.last_episode,
            evaluation_due: self.evaluation_due,
            outboxes: self.teachers.iter().map(|t| t.outbox.clone()).collect(),
            adapters: self.teachers.iter().map(|t| t.adapter.as_ref().map(|a| a.save())).collect(),
            name: self.name.clone(),
        };
        checkpoint::save(&self.trainer, with_replay, &extra)
    }

    /// Where the environments stand. An environment that cannot be saved is outside: a resumed run begins a new episode in it.
    fn environments(&self) -> Option<(Snapshot, Snapshot)> {
        match &self.environment {
            Environments::Inside { train, evaluate } => {
                train.save().ok().zip(evaluate.as_ref().unwrap_or(train).save().ok())
            }
            Environments::Outside { .. } => None,
        }
    }

    fn restore_environments(&mut self, saved: Option<&(Snapshot, Snapshot)>) -> Result<(), TrainError> {
        let (Environments::Inside { train, evaluate }, Some((t, e))) = (&mut self.environment, saved) else {
            return Ok(());
        };
        train.restore(t)?;
        if let Some(evaluate) = evaluate {
            evaluate.restore(e)?;
        }
        Ok(())
    }

    /// The policy as it is now, as a file that can be served, see [`crate::policy::write`].
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub fn policy(&self, environment: &str) -> Vec<u8> {
        let description = format!("A student after {} steps.", self.trainer.steps());
        self.policy_file(&self.trainer.learner.policy(), environment, &description)
    }

    /// The best evaluation so far; of equal ones the newest.
    pub fn best(&self) -> Option<Best> {
        self.trainer.evaluations.best
    }

    /// The policy of the best evaluation, as [`Self::policy`].
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub fn best_policy(&self, environment: &str) -> Option<Vec<u8>> {
        let (Best { step, mean }, policy) = (self.best()?, self.trainer.best_policy()?);
        let episodes = self.trainer.config.evaluation.episodes;
        let description = format!(
            "A student after {step} steps: the best of its evaluations, mean return {mean:.2} of {episodes} episodes."
        );
        Some(self.policy_file(policy, environment, &description))
    }

    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    fn policy_file(&self, policy: &oto_rl::network::Actor, environment: &str, description: &str) -> Vec<u8> {
        let algorithm = format!("oto {}", self.trainer.config.algorithm.name());
        let (squashed, spaces) = (self.trainer.learner.squashes(), self.environment.spaces().into());
        crate::policy::write(policy, squashed, spaces, environment, &algorithm, description)
    }

    /// Takes over a saved network to act with; nothing else of the file.
    pub fn load_weights(&mut self, file: &[u8]) -> Result<(), TrainError> {
        checkpoint::load_weights(&mut self.trainer, file)
    }

    /// Goes on from a file of [`Self::save`]. With replay and a built-in environment the run goes on as if it had never
    /// stopped: labels that were on their way are asked for again and enter at the step they would have.
    ///
    /// # Errors
    /// A foreign or damaged file; nothing changes then.
    pub fn load(&mut self, file: &[u8], now_ms: u64) -> Result<(), TrainError> {
        let (opened, extra) = checkpoint::open::<Extra>(&self.trainer, file)?;
        extra.check(opened.steps(), self.trainer.config().label_lag).map_err(TrainError::Checkpoint)?;
        for (t, saved) in self.teachers.iter().zip(&extra.adapters) {
            if let (Some(adapter), Some(saved)) = (&t.adapter, saved)
                && !adapter.fits(saved)
            {
                let reason = "its learnt adapter does not fit this teacher's spaces";
                return Err(TrainError::Checkpoint(reason.into()));
            }
        }
        let before = self.environments();
        let restored = self.restore_environments(extra.worlds.as_ref());
        if let Err(error) = restored.and_then(|()| opened.put(&mut self.trainer)) {
            // They were saved a moment ago.
            self.restore_environments(before.as_ref())?;
            return Err(error);
        }
        if extra.worlds.is_none() || matches!(self.environment, Environments::Outside { .. }) {
            // The episode that ran cannot be continued in an environment that was not saved.
            self.trainer.running = false;
        }
        self.asked = (extra.pending && self.trainer.running).then_some(Need::Step);
        self.seeded = extra.seeded && extra.worlds.is_some();
        self.labels = extra.labels;
        self.begun = extra.begun.into_iter().take(MAX_BEGUN).collect();
        self.begins = extra.begins;
        self.last_episode = extra.last_episode;
        if extra.evaluating && matches!(self.environment, Environments::Outside { evaluates: true, .. }) {
            let episodes = self.trainer.config().evaluation.episodes;
            self.asked = Some(Need::Evaluate { episodes, seed: self.evaluation_seed() });
        }
        self.evaluation_due = extra.evaluation_due;
        if let Some(name) = extra.name.filter(|_| self.trainer.config().name.is_none()) {
            self.rename(name);
        }
        for (i, weight) in extra.weights.iter().enumerate().take(self.teachers.len()) {
            self.trainer.set_teacher_weight(i, *weight)?;
        }
        for (t, saved) in self.teachers.iter_mut().zip(extra.adapters) {
            if let (Some(adapter), Some(saved)) = (&mut t.adapter, saved) {
                adapter.restore(saved);
            }
        }
        let replay = self.trainer.replay();
        for (t, (requests, offered)) in
            self.teachers.iter_mut().zip(extra.requests.into_iter().zip(extra.offered))
        {
            t.requests.clear();
            for r in requests {
                t.offer_all(replay, &self.begun, r.first, r.count, now_ms);
                t.offered = (r.first, r.count);
                t.request(r.enters, now_ms);
            }
            t.offer_all(replay, &self.begun, offered.0, offered.1, now_ms);
            t.offered = offered;
        }
        for (t, saved) in self.teachers.iter_mut().zip(extra.outboxes) {
            if let (Some(outbox), Some(saved)) = (&mut t.outbox, saved) {
                outbox.resume(saved, replay);
            }
        }
        Ok(())
    }
}

/// What the environment was asked for, in words.
fn asked_for(asked: Option<Need>) -> &'static str {
    match asked {
        Some(Need::Reset(_)) => "a reset",
        Some(Need::Step) => "a step",
        Some(Need::Evaluate { .. }) => "an evaluation",
        Some(Need::Wait | Need::Nothing) | None => "nothing",
    }
}

/// Evaluation episodes begin from other states than training episodes of the same seed.
pub(crate) fn evaluation_seed(seed: u64) -> u64 {
    seed ^ 0x5eed_0000_e7a1
}

impl Teacher {
    fn offer(
        &mut self,
        slot: SlotId,
        begins: bool,
        state: Option<&[f32]>,
        batch: usize,
        enters: u64,
        now_ms: u64,
    ) {
        let Some(state) = state else { return };
        if self.link.state() == LinkState::Failed
            || self.link.offer_step(slot, begins, state, now_ms).is_err()
        {
            return;
        }
        if self.offered.1 == 0 {
            self.offered.0 = slot;
        }
        self.offered.1 += 1;
        if self.offered.1 as usize >= batch {
            self.request(enters, now_ms);
        }
    }

    fn offer_all(
        &mut self,
        replay: &oto_rl::replay::Replay,
        begun: &VecDeque<SlotId>,
        first: SlotId,
        count: u64,
        now_ms: u64,
    ) {
        let mut room = Vec::new();
        for slot in first..first.saturating_add(count.min(1 << 16)) {
            let state = match &mut self.adapter {
                Some(adapter) => adapter.query(slot, replay),
                None => replay.observation(slot, &mut room),
            };
            if let Some(state) = state {
                // A state that was accepted once is accepted again.
                let _ = self.link.offer_step(slot, begun.binary_search(&slot).is_ok(), state, now_ms);
            }
        }
    }

    fn request(&mut self, enters: u64, now_ms: u64) {
        let (first, count) = std::mem::take(&mut self.offered);
        if let Some(ticket) = self.link.request_now(now_ms) {
            self.requests.push_back(Request { due: Due { enters, first, count }, ticket });
        }
    }

    /// Labels of requests that are due; false if one is still on its way over a connection that lives. A teacher that is
    /// not there, or there and silent, is not waited for.
    fn take_due(&mut self, step: u64, put: &mut impl FnMut(SlotId, Action<'_>, u32)) -> bool {
        while let Some(request) = self.requests.front().filter(|r| r.due.enters <= step) {
            let taken = self.link.take_labels(request.ticket, &mut *put);
            if taken == Taken::Waiting {
                return !self.link.promises_labels();
            }
            self.requests.pop_front();
        }
        true
    }
}

fn teacher(
    config: &StudentConfig,
    teacher: &TeacherConfig,
    index: usize,
    [observation, action]: [&Space; 2],
    trainer: &Trainer,
    now_ms: u64,
) -> Result<Teacher, TrainError> {
    let refused = |reason: String| TrainError::Space(format!("teacher {}: {reason}", teacher.policy));
    let adapter = match &teacher.learn_adapter {
        None => None,
        Some(spaces) => {
            config.may_learn_adapter(teacher)?;
            let seed = config.seed.wrapping_add(index as u64);
            Some(Box::new(adapter::Learner::new(observation, action, spaces, seed).map_err(refused)?))
        }
    };
    let [observation, action] = match &teacher.learn_adapter {
        None => [observation.clone(), trainer.answers()],
        Some(spaces) => [spaces.observation.clone(), spaces.action.clone()],
    };
    let mut grants = vec![oto_proto::Grant::Actions];
    if teacher.submit {
        config.may_submit()?;
        grants.push(oto_proto::Grant::Submit);
    }
    let hello = Hello {
        protocol: PROTOCOL.into(),
        policy: teacher.policy.clone(),
        // A random one takes its place before anything is sent: see `Student::name_run`.
        student: config.name.clone().unwrap_or_else(|| "oto".into()),
        observation,
        action,
        adapter: teacher.adapter.clone(),
        dtype: teacher.dtype,
        action_dtype: None,
        quantization: teacher.quantization.clone(),
        grants,
        stage: Some(trainer.stages().stage()),
        // A learnt adapter asks about states of its own choice.
        order: adapter.is_none().then_some(true),
        ticket: None,
        actor: None,
        worker: None,
        member: None,
    };
    let lockstep = config.clock == Clock::Lockstep;
    let link = LinkConfig {
        seed: config.seed.wrapping_add(index as u64),
        batch: config.request_batch as u16,
        delay_ms: (!lockstep).then_some(ASYNC_DELAY_MS),
        ..LinkConfig::new(hello)
    };
    let mut link = Link::new(link).map_err(|e| refused(e.message))?;
    link.connect(now_ms);
    let outbox = teacher.submit.then(Outbox::default);
    Ok(Teacher { link, requests: VecDeque::new(), offered: (0, 0), outbox, adapter })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_and_comes_back() {
        let episode = Episode { score: -1.5, length: 9 };
        for (event, text) in [
            (Event::Episode { step: 7, episode }, r#"{"event":"episode","step":7,"return":-1.5,"length":9}"#),
            (
                Event::Stage { step: 8, stage: Stage::Online },
                r#"{"event":"stage","step":8,"stage":"online"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&event).unwrap(), text);
            assert_eq!(serde_json::from_str::<Event>(text).unwrap(), event);
        }
    }
}

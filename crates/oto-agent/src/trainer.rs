//! Training, free of environments, sockets and clocks. A [`Trainer`] learns from a [`Source`]: from an environment's steps
//! ([`Trainer::act`], [`Trainer::observe`], [`Trainer::label`]: OTO, Algorithm 2), from recorded episodes ([`Trainer::add`],
//! [`Trainer::learn`]: Algorithm 1). Its drivers are [`crate::student`] and [`crate::offline`]. Evaluations, the best policy,
//! schedules and the checkpoint are the same for all sources.

use crate::config::{Clock, ConfigError, PlateauDecay, StudentConfig};
use crate::distillation::Distillation;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
use crate::distillation::Probabilities;
use crate::evaluation::{Best, Evaluation, Evaluations, play};
use crate::recorded::{DataMark, MAX_TRANSITIONS, Recorded, RecordedError};
use crate::stage::{Change, Stage, Stages};
use oto_env::Action;
use oto_env::rng::Rng;
use oto_env::{Environment, Space, Step, within};
use oto_graph::Backend;
use oto_graph::Program;
use oto_json::shown;
use oto_rl::algorithms::{Agent, Data, Misfit, OnPolicy, Sizes};
use oto_rl::distillation::LogitTeacher;
use oto_rl::engine::{LearnError, LossParts, Schedule};
use oto_rl::losses;
use oto_rl::network::Actor;
use oto_rl::replay::{Batch, Columns, Replay, Request, Sampler, SamplerName, SlotId};
use oto_rl::rollout::Rollout;
use oto_rl::shared::Part;

/// Why training cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A space this algorithm cannot act in or see.
    #[error("{0}")]
    Space(String),
    /// The learner's failure.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// An observation of another width.
    #[error("the observation has {got} numbers, the space has {expected}")]
    ObservationLength {
        /// The space's width.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// A component of an observation that is no finite number.
    #[error("observation[{component}] is {}, not a finite number", shown(.value))]
    Observation {
        /// Which component.
        component: usize,
        /// Its value.
        value: f32,
    },
    /// A component of an image that is no byte.
    #[error("observation[{component}] is {}, expected a pixel: a whole number from 0 to 255", shown(.value))]
    Pixel {
        /// Which component.
        component: usize,
        /// Its value.
        value: f32,
    },
    /// A reward that is no finite number.
    #[error("the reward is {}, not a finite number that float32 can hold", shown(.0))]
    Reward(f64),
    /// The replay buffer cannot grow any more.
    #[error(
        "there is no memory for more than the {held} transitions of {width} numbers that the replay buffer holds: a smaller buffer fits"
    )]
    Memory {
        /// How many transitions it holds.
        held: usize,
        /// How many numbers an observation has.
        width: usize,
    },
    /// A copy of the replay buffer, for a file, needs more memory than there is.
    #[error("there is no memory for a copy of the replay buffer: save without it")]
    Copy,
    /// A step was reported, but no episode has begun.
    #[error("an episode begins with an observation: call begin first")]
    NotBegun,
    /// The environment answered what it was not asked for.
    #[error("the environment answered {got}, it was asked for {asked}")]
    Unasked {
        /// What came.
        got: &'static str,
        /// What was expected.
        asked: &'static str,
    },
    /// An environment failed.
    #[error(transparent)]
    Environment(#[from] oto_env::EnvError),
    /// Recorded data that cannot be learned from.
    #[error(transparent)]
    Recorded(#[from] RecordedError),
    /// A student that submits has no random name for its run.
    #[error("a student that submits its replay needs a random name for its run: give it one with name_run")]
    Unnamed,
    /// A checkpoint that cannot be used.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
}

impl From<Misfit> for TrainError {
    fn from(misfit: Misfit) -> Self {
        Self::Space(misfit.to_string())
    }
}

/// The source of a trainer's transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Steps in an environment.
    Environment,
    /// Recorded episodes.
    Dataset,
    /// Steps in an environment, and recorded episodes beside them in every batch.
    Mixed,
}

oto_json::json_names! { Source { Environment = "environment", Dataset = "dataset", Mixed = "mixed" } }

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Environment => "an environment",
            Self::Dataset => "a dataset",
            Self::Mixed => "an environment and a dataset",
        })
    }
}

/// Trains one agent.
pub struct Trainer {
    pub(crate) config: StudentConfig,
    pub(crate) source: Source,
    /// Which recorded data it has.
    pub(crate) data: DataMark,
    pub(crate) evaluations: Evaluations,
    /// The policy of the best evaluation.
    pub(crate) best_policy: Option<Actor>,
    pub(crate) learner: Box<dyn Agent>,
    /// The environment's actions, in its units.
    pub(crate) space: Space,
    pub(crate) replay: Replay,
    /// The recorded transitions beside an environment's.
    recorded: Option<Replay>,
    /// Chooses the transitions of batches.
    pub(crate) sampler: Box<dyn Sampler>,
    /// The newest steps in the buffer, for an algorithm that learns from what its policy does now.
    pub(crate) rollout: Option<Rollout>,
    /// The teachers whose logits it learns from.
    pub(crate) distillation: Option<Box<Distillation>>,
    pub(crate) stages: Stages,
    /// Draws exploration.
    pub(crate) explore: Rng,
    /// Draws batches.
    pub(crate) draw: Rng,
    batch: Batch,
    /// Whether observations are kept as bytes.
    pixels: bool,
    pub(crate) observation: Vec<f32>,
    pub(crate) running: bool,
    /// The last action, as the learner has it: an index, or components from -1 to 1.
    pub(crate) action: Vec<f32>,
    /// The same in the environment's units, and a teacher's answer in the learner's.
    units: Vec<f32>,
    label: Vec<f32>,
    /// Each teacher's weight, and its part in OTO eq. 14's mean.
    weights: Vec<f64>,
    shares: Vec<f32>,
    pub(crate) steps: u64,
    /// The step at which parameters were last drawn: schedules count from it.
    pub(crate) started: u64,
    /// What the learning rate and `target_tau` are multiplied by; see [`crate::config::PlateauDecay`].
    pub(crate) decayed: f64,
    /// How often in a row it went back to its last good parameters.
    pub(crate) setbacks: u32,
    pub(crate) episodes: u64,
    pub(crate) episode_return: f64,
    pub(crate) episode_length: u64,
    /// What the choice of the backend was made from.
    pub tried: Vec<Tried>,
}

/// What runs the updates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackendStatus {
    /// "cpu", "webgpu" or "candle".
    pub name: String,
    /// What was tried before one was chosen; empty where one was asked for by name.
    pub tried: Vec<Tried>,
    /// In a sentence: another one's device was lost, why, and what goes on from which update.
    pub lost: Option<String>,
}

oto_json::json_object! { BackendStatus: written { name, tried, lost } }

/// A backend that was timed on the real program, or why it could not be.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// "cpu" or "webgpu".
    pub name: String,
    /// Updates in a second.
    pub updates_per_second: Option<f64>,
    /// Why it cannot be used.
    pub error: Option<String>,
}

oto_json::json_object! { Tried: written { name, updates_per_second, error } }

/// A finished training episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode {
    /// Undiscounted return.
    pub score: f64,
    /// Steps.
    pub length: u64,
}

oto_json::json_object! { Episode: open { score as "return", length } }

impl Trainer {
    /// A new student for these spaces; `teachers` is how many may label its states.
    pub fn new(
        config: &StudentConfig,
        observation: &Space,
        action: &Space,
        teachers: usize,
        backend: &dyn Backend,
    ) -> Result<Self, TrainError> {
        Self::of(Part::Whole, config, [observation, action], teachers, backend)
    }

    /// The same with a part of the algorithm's update.
    ///
    /// # Errors
    /// The same, and an algorithm without such parts.
    pub(crate) fn of(
        part: Part,
        config: &StudentConfig,
        spaces: [&Space; 2],
        teachers: usize,
        backend: &dyn Backend,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        if part != Part::Whole && !config.algorithm.is_asynchronous() {
            let (got, expected) =
                (format!("{:?}", config.algorithm.name()), "an asynchronous algorithm: \"a3c\"");
            return Err(ConfigError::new("algorithm.name", got, expected).into());
        }
        Self::made(part, config, Source::Environment, spaces, teachers, backend)
    }

    /// The same from a configuration that was checked.
    pub(crate) fn with(
        config: &StudentConfig,
        source: Source,
        spaces: [&Space; 2],
        teachers: usize,
        backend: &dyn Backend,
    ) -> Result<Self, TrainError> {
        Self::made(Part::Whole, config, source, spaces, teachers, backend)
    }

    fn made(
        part: Part,
        config: &StudentConfig,
        source: Source,
        [observation, action]: [&Space; 2],
        teachers: usize,
        backend: &dyn Backend,
    ) -> Result<Self, TrainError> {
        let sizes = config.algorithm.sizes(observation, action, teachers)?;
        let sizes = Sizes { weighted: config.replay.weighted(), ..sizes };
        let mut rng = Rng::new(config.seed);
        let mut learner = config.algorithm.part(part, sizes, backend, &mut rng)?;
        let distillation = Distillation::new(&config.algorithm, sizes, config.seed, backend)?;
        let rollout = learner.on_policy().map(|student| Rollout::new(student.rollouts().length));
        let (width, numbers) = (observation.width(), learner.action_width());
        let mut replay = buffer(config, &mut *learner, width, [config.buffer, teachers]);
        if source == Source::Dataset {
            replay.set_source(RECORDED);
        }
        let (first, second) = (Rng::new(rng.next_u64()), Rng::new(rng.next_u64()));
        // The order is that of former versions: a seed gives the same run as before.
        let (explore, draw) = match source {
            Source::Environment | Source::Mixed => (first, second),
            Source::Dataset => (second, first),
        };
        Ok(Self {
            source,
            data: DataMark::EMPTY,
            evaluations: Evaluations::default(),
            best_policy: None,
            replay,
            recorded: None,
            sampler: config.replay.make(),
            pixels: config.algorithm.convolution().is_some(),
            stages: Stages::new(config.stages),
            rollout,
            distillation,
            learner,
            explore,
            draw,
            batch: Batch::default(),
            observation: vec![0.0; width],
            space: action.clone(),
            running: false,
            action: vec![0.0; numbers],
            units: vec![0.0; numbers],
            label: Vec::with_capacity(numbers),
            weights: vec![1.0; teachers],
            shares: vec![1.0 / teachers.max(1) as f32; teachers],
            steps: 0,
            started: 0,
            decayed: 1.0,
            setbacks: 0,
            episodes: 0,
            episode_return: 0.0,
            episode_length: 0,
            tried: Vec::new(),
            config: config.clone(),
        })
    }

    /// Gives it the teachers whose logits it learns from, in the order of `algorithm.distillation.teachers`, and the expert of the
    /// offline protocol: before the first step, and before a checkpoint is loaded.
    ///
    /// # Errors
    /// An algorithm without a distillation; teachers with other actions or observations than its settings say.
    pub fn distill(
        &mut self,
        teachers: Vec<Box<dyn LogitTeacher>>,
        expert: Option<Box<dyn LogitTeacher>>,
    ) -> Result<(), ConfigError> {
        match &mut self.distillation {
            Some(distillation) => distillation.attach(teachers, expert),
            None => {
                let expected = "settings, for a run with teachers' logits";
                Err(ConfigError::new("algorithm.distillation", "none", expected))
            }
        }
    }

    /// Gives it the other members of a group, which are the last teachers of `algorithm.distillation`: before [`Self::distill`].
    ///
    /// # Errors
    /// An algorithm without a distillation; members with other actions than its settings say.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub fn join(&mut self, peers: crate::peer::Peers) -> Result<(), ConfigError> {
        match &mut self.distillation {
            Some(distillation) => distillation.join(peers),
            None => {
                let expected = "settings, for a run in a group";
                Err(ConfigError::new("algorithm.distillation", "none", expected))
            }
        }
    }

    /// The teachers whose logits it learns from.
    pub fn distillation(&self) -> Option<&Distillation> {
        self.distillation.as_deref()
    }

    /// How the student and its teachers of logits choose in these states `[rows, O]`, one for each teacher.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub fn probabilities(&mut self, observations: &[f32]) -> Vec<Probabilities> {
        let (Some(distillation), Some(student)) = (&mut self.distillation, self.learner.on_policy()) else {
            return Vec::new();
        };
        distillation.probabilities(observations, student.logits(observations))
    }

    /// Whether its settings have teachers of logits that it was not given.
    pub fn lacks_teachers(&self) -> bool {
        self.distillation.as_ref().is_some_and(|distillation| distillation.lacks())
    }

    /// Whether the expert of the offline protocol acts now.
    fn expert_leads(&self) -> bool {
        self.started == 0 && self.distillation.as_ref().is_some_and(|d| self.steps < d.expert_steps())
    }

    /// Takes over what a device has finished since the last call.
    pub(crate) fn collect(&mut self) -> Result<(), LearnError> {
        self.learner.collect()?;
        self.distillation.as_mut().map_or(Ok(()), |d| d.collect())
    }

    /// Updates that were started and whose weights are not here yet.
    pub(crate) fn behind(&mut self) -> u64 {
        let aligning = self.distillation.as_mut().map_or(0, |d| d.behind());
        self.learner.engine_mut().behind() + aligning
    }

    /// Brings everything home that a checkpoint needs; false while a device is still at it.
    ///
    /// # Errors
    /// The backend's failure.
    pub fn sync(&mut self) -> Result<bool, LearnError> {
        let learnt = self.learner.sync()?;
        Ok(self.distillation.as_mut().map_or(Ok(true), |d| d.sync())? && learnt)
    }

    /// Mixes recorded episodes into every batch of a run in an environment, as the sampler says. [`Self::add`] adds them, before
    /// the first step or before a checkpoint is loaded.
    ///
    /// # Errors
    /// An algorithm that has no replay buffer, a sampler that takes no notice of recorded transitions.
    pub fn mix(&mut self) -> Result<(), TrainError> {
        let refused =
            |field: &str, got: String, expected: &str| Err(ConfigError::new(field, got, expected).into());
        let algorithm = self.config.algorithm.algorithm();
        if !algorithm.data().contains(&Data::Replay) {
            let expected = "an algorithm with a replay buffer for a run with a dataset";
            return refused("algorithm.name", format!("{:?}", algorithm.name()), expected);
        }
        if self.config.replay.sampler == SamplerName::Prioritised {
            return refused(
                "replay.sampler",
                "\"prioritised\"".into(),
                "shares, uniform, combined, whole, balanced or forgetting for a run with a dataset",
            );
        }
        let width = self.observation.len();
        let mut recorded = buffer(&self.config, &mut *self.learner, width, [MAX_TRANSITIONS, 0]);
        recorded.set_source(RECORDED);
        (self.source, self.recorded) = (Source::Mixed, Some(recorded));
        Ok(())
    }

    /// Adds a recorded episode to the data; gives the number of its steps.
    ///
    /// # Errors
    /// Arrays that do not belong together, numbers that are not finite, actions outside their space. Nothing is added then.
    pub fn add(&mut self, episode: &Recorded<'_>) -> Result<usize, TrainError> {
        let (steps, width) = (episode.rewards.len(), self.observation.len());
        episode.check(width, self.pixels, &self.space)?;
        let replay = match self.source {
            Source::Dataset => &mut self.replay,
            Source::Environment | Source::Mixed => {
                self.recorded.as_mut().ok_or(RecordedError::Environment)?
            }
        };
        if replay.len() + steps > MAX_TRANSITIONS {
            return Err(RecordedError::TooMany.into());
        }
        episode.store(width, &self.space, replay, &mut self.data);
        Ok(steps)
    }

    /// Makes `count` updates from the replay buffer, without steps.
    ///
    /// # Errors
    /// [`RecordedError::Empty`]; the learner's failure, such as a loss that is not finite.
    pub fn learn(&mut self, count: u64) -> Result<(), TrainError> {
        if self.replay.is_empty() {
            return Err(RecordedError::Empty.into());
        }
        if self.learner.engine().updates() == 0 && count > 0 {
            self.learner.prepare(&self.replay)?;
        }
        (0..count).try_for_each(|_| {
            self.learner.at_step(self.clock() - self.started);
            self.update()
        })
    }

    /// The returns of greedy episodes, each reset with the next seed; without a seed the environment's random numbers go on.
    pub fn play(
        &mut self,
        environment: &mut dyn Environment,
        seeds: impl IntoIterator<Item = Option<u64>>,
    ) -> Result<Vec<f64>, TrainError> {
        let mut observation = vec![0.0; self.observation.len()];
        let mut episode = |seed| {
            self.begin_greedy();
            play(environment, seed, &mut observation, |environment, observation| {
                let action = self.greedy(observation)?;
                Ok::<_, TrainError>(environment.step(action, observation)?)
            })
        };
        seeds.into_iter().map(&mut episode).collect()
    }

    /// Records an evaluation from the returns of its episodes. Its policy is the best one if no mean before was higher; of equal
    /// ones the newest, or the first where the source is a dataset: there an evaluation repeats the same episodes.
    ///
    /// # Errors
    /// If there is no return, or one is not finite.
    pub fn evaluated(&mut self, returns: &[f64]) -> Result<Evaluation, TrainError> {
        let mean = returns.iter().sum::<f64>() / returns.len() as f64;
        if let Some(wrong) = returns.iter().chain([&mean]).find(|r| !r.is_finite()) {
            return Err(TrainError::Reward(*wrong));
        }
        let (min, max) = returns.iter().fold((f64::MAX, f64::MIN), |(min, max), r| (r.min(min), r.max(max)));
        let (step, before) = (self.clock(), self.evaluations.best);
        let better = before.is_none_or(|best| mean > best.mean);
        let best = better || (self.source != Source::Dataset && before.is_some_and(|best| mean == best.mean));
        if best {
            self.evaluations.best = Some(Best { step, mean });
            self.best_policy = Some(self.learner.policy());
        }
        self.evaluations.since_best = if better { 0 } else { self.evaluations.since_best.saturating_add(1) };
        self.evaluations.last = Some(mean);
        Ok(Evaluation { step, mean, min, max, episodes: returns.len() as u32, best })
    }

    /// The greedy evaluations so far.
    pub fn evaluations(&self) -> &Evaluations {
        &self.evaluations
    }

    /// The policy of the best evaluation.
    pub fn best_policy(&self) -> Option<&Actor> {
        self.best_policy.as_ref()
    }

    /// The count that evaluations and lines of metrics are of: environment steps, or updates where the source is a dataset.
    pub fn clock(&self) -> u64 {
        match self.source {
            Source::Environment | Source::Mixed => self.steps,
            Source::Dataset => self.updates(),
        }
    }

    /// The source of its transitions.
    pub fn source(&self) -> Source {
        self.source
    }

    /// An episode begins with its first observation.
    pub fn begin(&mut self, observation: &[f32]) -> Result<(), TrainError> {
        self.check(observation)?;
        self.observation.copy_from_slice(observation);
        self.replay.forget_pending();
        self.learner.begin_episode();
        self.rollout.iter_mut().for_each(Rollout::cut);
        self.running = true;
        (self.episode_return, self.episode_length) = (0.0, 0);
        Ok(())
    }

    /// Chooses the action for the current observation, see [`Self::action`]. Calling it again draws again.
    pub fn act(&mut self) -> Result<(), TrainError> {
        if !self.running {
            return Err(TrainError::NotBegun);
        }
        let epsilon = self.epsilon();
        self.learner.at_step(self.steps - self.started);
        if self.expert_leads()
            && let Some(distillation) = &mut self.distillation
            && distillation.expert_action(&self.observation, &mut self.explore, &mut self.action)
        {
            return Ok(());
        }
        self.learner.explore(&self.observation, epsilon, &mut self.explore, &mut self.action);
        if !self.learner.takes(&self.action) {
            self.action.fill(0.0);
            return Err(LearnError::NoAction.into());
        }
        Ok(())
    }

    /// The action chosen last, in the environment's units.
    pub fn action(&mut self) -> Action<'_> {
        in_units(&self.space, &self.action, &mut self.units)
    }

    /// What the environment answered to the last action. Stores the transition (each stored state is shown to `stored` with its slot),
    /// and makes the updates that are due. Gives the episode if it ended. `seconds` since the last step feed the stages' clocks.
    pub fn observe(
        &mut self,
        step: Step,
        next: &[f32],
        stored: impl FnMut(SlotId, &[f32]),
    ) -> Result<Option<Episode>, TrainError> {
        if !self.running {
            return Err(TrainError::NotBegun);
        }
        self.check(next)?;
        let reward = step.reward as f32;
        if !reward.is_finite() {
            return Err(TrainError::Reward(step.reward));
        }
        let (held, width) = (self.replay.len(), self.observation.len());
        let room = self.replay.make_room().and_then(|()| self.sampler.make_room(&self.replay));
        room.map_err(|_| TrainError::Memory { held, width })?;
        self.replay.push(
            &self.observation,
            &self.action,
            reward,
            next,
            step.terminated,
            step.truncated,
            stored,
        );
        self.learner.stepped(&self.observation);
        self.observation.copy_from_slice(next);
        self.steps += 1;
        self.learner.at_step(self.steps - self.started);
        self.episode_return += step.reward;
        self.episode_length += 1;
        let ended = step.done();
        let episode = Episode { score: self.episode_return, length: self.episode_length };
        if ended {
            self.running = false;
            self.episodes += 1;
            self.learner.end_episode(episode.score, episode.length);
        }
        if let Some(mut rollout) = self.rollout.take() {
            let mut learnt = Ok(());
            if rollout.push(ended) {
                learnt = self.learn_from(&mut rollout);
                self.rollout = Some(rollout);
                self.begin_rollout();
            } else {
                self.rollout = Some(rollout);
            }
            learnt?;
        } else if self.steps >= self.config.learning_starts
            && self.steps.is_multiple_of(self.config.train_every)
        {
            for _ in 0..self.config.updates {
                // Beside the clock a device may fall behind; then updates are left out rather than waited for.
                if self.config.clock == Clock::Lockstep || self.learner.engine_mut().has_room() {
                    self.update()?;
                }
            }
        }
        self.learn_late()?;
        if self.started == 0 && self.distillation.as_ref().is_some_and(|d| d.expert_steps() == self.steps) {
            // The expert has acted: the student and its schedules begin.
            self.started = self.steps;
            self.begin_rollout();
        }
        Ok(ended.then_some(episode))
    }

    /// The next step is the first of a rollout.
    pub(crate) fn begin_rollout(&mut self) {
        self.rollout.iter_mut().for_each(Rollout::clear);
        self.learner.on_policy().into_iter().for_each(OnPolicy::begin_rollout);
    }

    /// Counts steps that were taken elsewhere, with the episodes that ended in them.
    pub(crate) fn count(&mut self, steps: u64, episodes: u64) {
        self.steps += steps;
        self.episodes += episodes;
        self.learner.at_step(self.steps - self.started);
    }

    /// The stages' clock: `seconds` passed in the last step, after which an evaluation may have been made. A stage that
    /// was given up leaves the student with fresh parameters.
    pub fn advance_stage(&mut self, seconds: f64, evaluation: Option<f64>) -> Result<Change, TrainError> {
        if let (Some(decay), Some(got)) = (self.config.plateau_decay, evaluation) {
            self.decay_at_plateau(decay, got >= decay.at_return)?;
        }
        let change = self.stages.advance(seconds, evaluation);
        if change == Change::GivenUp {
            self.learner.start_over(&mut self.draw)?;
            self.learner.engine_mut().forget();
            self.begin_rollout();
            self.started = self.steps;
            self.decayed = 1.0;
        }
        Ok(change)
    }

    /// See [`PlateauDecay`].
    fn decay_at_plateau(&mut self, decay: PlateauDecay, good: bool) -> Result<(), TrainError> {
        let next = if good { self.decayed * decay.factor } else { self.decayed / decay.factor };
        self.decayed = next.max(decay.floor).min(1.0);
        if good {
            self.setbacks = 0;
            if decay.setbacks > 0 {
                self.learner.engine_mut().remember()?;
            }
        } else if self.setbacks < decay.setbacks && self.learner.go_back()? {
            self.setbacks += 1;
        }
        Ok(())
    }

    /// Share of random actions now.
    pub fn epsilon(&self) -> f64 {
        self.config.epsilon.at(self.steps - self.started)
    }

    /// What teachers are to answer with: actions of the environment, unless the student learns from what they think
    /// ([`oto_rl::algorithms::Teaching::SoftTargets`]).
    pub fn answers(&self) -> Space {
        match &self.space {
            Space::Discrete { n } if self.config.taught_by_thoughts() => {
                let bounds = |probability: f32, value: f32| {
                    (0..*n).map(|_| probability).chain([value]).collect::<Vec<_>>()
                };
                Space::Box { low: bounds(0.0, f32::MIN), high: bounds(1.0, f32::MAX) }
            }
            space => space.clone(),
        }
    }

    /// A teacher's answer for a stored state, in the environment's units; false if the state has left the buffer.
    pub fn label(&mut self, slot: SlotId, teacher: usize, action: Action<'_>, version: u32) -> bool {
        self.label.clear();
        match action {
            Action::Continuous(values) if self.config.taught_by_thoughts() => {
                self.label.extend_from_slice(values)
            }
            Action::Discrete(_) if self.config.taught_by_thoughts() => return false,
            action => from_units(&self.space, action, &mut self.label),
        }
        self.learner.accepts(&self.label) && self.replay.label(slot, teacher, &self.label, version)
    }

    /// A teacher's weight in OTO eq. 14's mean, from now on: 0 switches it off, and only the ratio to the others' counts.
    /// At first all weigh 1.
    pub fn set_teacher_weight(&mut self, teacher: usize, weight: f64) -> Result<(), TrainError> {
        let refused =
            |field: &str, got: String, expected: &str| Err(ConfigError::new(field, got, expected).into());
        if !(0.0..=1e6).contains(&weight) {
            return refused(&format!("teachers[{teacher}].weight"), shown(&weight), "a weight from 0 to 1e6");
        }
        let Some(place) = self.weights.get_mut(teacher) else {
            return refused("teachers", teacher.to_string(), "the index of a teacher there is, from 0");
        };
        *place = weight;
        losses::shares(&self.weights, &mut self.shares);
        Ok(())
    }

    /// Each teacher's weight.
    pub fn teacher_weights(&self) -> &[f64] {
        &self.weights
    }

    fn update(&mut self) -> Result<(), TrainError> {
        if self.replay.is_empty() && self.recorded.as_ref().is_none_or(Replay::is_empty) {
            return Ok(());
        }
        let schedule = Schedule { share: &self.shares, ..self.schedule() };
        let (size, step) = (self.config.algorithm.batch_size(), self.clock() - self.started);
        // Errors that a device has reported since; on a processor those of each update come with it.
        take_errors(&mut *self.sampler, &*self.learner);
        let update = self.learner.engine().updates() + 1;
        let both = [&self.replay, self.recorded.as_ref().unwrap_or(&self.replay)];
        let buffers = &both[..1 + usize::from(self.recorded.is_some())];
        let request = Request { buffers, size, update, step };
        self.sampler.sample(&request, &mut self.draw, &mut self.batch);
        self.learner.update(&self.batch, &schedule, &mut self.draw)?;
        take_errors(&mut *self.sampler, &*self.learner);
        Ok(())
    }

    /// All passes over a whole rollout. A device is given them all: acting waits for it.
    fn learn_from(&mut self, rollout: &mut Rollout) -> Result<(), TrainError> {
        // The rollout's last step is behind, also where it was the expert's last.
        let leads =
            self.started == 0 && self.distillation.as_ref().is_some_and(|d| self.steps <= d.expert_steps());
        let Some(student) = self.learner.on_policy() else { return Ok(()) };
        let how = student.rollouts();
        let (size, batches) = (how.batch_size, how.length / how.batch_size);
        rollout.judge(&self.replay, student, self.config.gamma, &mut self.draw);
        for _ in 0..how.epochs {
            rollout.shuffle(&mut self.draw);
            for i in 0..batches {
                rollout.minibatch(&self.replay, i, how, &mut self.draw, &mut self.batch);
                if how.replay {
                    let (update, step) = (self.learner.engine().updates() + 1, self.steps - self.started);
                    let request = Request { buffers: &[&self.replay], size, update, step };
                    self.sampler.sample(&request, &mut self.draw, self.batch.replay.get_or_insert_default());
                }
                if !self.fill_distilled(leads)? {
                    continue;
                }
                let schedule = Schedule { share: &self.shares, ..self.schedule() };
                self.learner.update(&self.batch, &schedule, &mut self.draw)?;
                if let Some(distillation) = &mut self.distillation {
                    distillation.ask_peers(&mut self.batch, self.steps - self.started);
                }
            }
        }
        Ok(())
    }

    /// Carries a group's messages, and learns from rollouts whose logits came after their update: the distillation's term alone.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    fn learn_late(&mut self) -> Result<(), TrainError> {
        let updates = self.learner.engine().updates();
        let (Some(distillation), Some(student)) = (&mut self.distillation, self.learner.on_policy()) else {
            return Ok(());
        };
        distillation.look(updates, student);
        let step = self.steps - self.started;
        while let Some(mut late) = self.distillation.as_mut().and_then(|d| d.take_late()) {
            let mut loss = None;
            if let (Some(distillation), Some(student)) = (&mut self.distillation, self.learner.on_policy())
                && distillation.fill_late(&mut late, student, step)?
            {
                let schedule = Schedule { share: &self.shares, alpha_aikd: 0.0, ..self.schedule() };
                self.learner.update(&late.batch, &schedule, &mut self.draw)?;
                loss = self.last_loss().and_then(|parts| parts.get("distillation_loss"));
            }
            late.batch.late = [0.0];
            self.distillation.iter_mut().for_each(|d| d.recycle(std::mem::take(&mut late), loss));
        }
        Ok(())
    }

    /// A page's algorithms learn from no logits.
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    fn learn_late(&mut self) -> Result<(), TrainError> {
        Ok(())
    }

    /// The teachers' logits for a batch of a rollout; false where the student does not learn from it.
    fn fill_distilled(&mut self, leads: bool) -> Result<bool, LearnError> {
        let step = self.steps - self.started;
        if let (Some(distillation), Some(student)) = (&mut self.distillation, self.learner.on_policy()) {
            let logits = student.judged_logits(&self.batch.observation);
            distillation.fill(&mut self.batch, logits, step, leads)?;
        }
        Ok(!leads)
    }

    /// Whether acting has to wait for updates that are under way: always in lockstep, and wherever it is the newest policy
    /// whose actions are learnt from.
    pub fn waits_for_updates(&self) -> bool {
        self.config.clock == Clock::Lockstep || self.rollout.is_some()
    }

    /// The learning rate of the next update. The Transfer stage may have one of its own.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate_after(0)
    }

    /// The learning rate of an update `steps` steps from now.
    pub fn learning_rate_after(&self, steps: u64) -> f64 {
        let taught = self.stages.stage() == Stage::Transfer;
        let rate = match self.config.transfer.learning_rate.filter(|_| taught) {
            Some(rate) => rate.at(self.stages.steps()),
            None => self.config.learning_rate.at(self.clock() + steps - self.started),
        };
        rate * self.decayed
    }

    /// The numbers of the next update but the teachers' shares, which are lent by a field of their own.
    fn schedule(&self) -> Schedule<'static> {
        let (c, t) = (&self.config, &self.config.transfer);
        let taught = self.stages.stage() == Stage::Transfer;
        let updates = self.learner.engine().updates();
        let due = |n: u64| if (updates + 1).is_multiple_of(n) { 1.0 } else { 0.0 };
        Schedule {
            lr: self.learning_rate() as f32,
            target_mix: if c.target_every > 0 {
                due(c.target_every)
            } else {
                (c.target_tau * self.decayed) as f32
            },
            alpha_aikd: if taught { t.alpha_aikd.at(self.stages.steps()) as f32 } else { 0.0 },
            delta: t.delta as f32,
            eta: t.eta as f32,
            alpha_task: if taught { t.alpha_task as f32 } else { 1.0 },
            share: &[],
        }
    }

    pub(crate) fn check(&self, observation: &[f32]) -> Result<(), TrainError> {
        let (expected, got) = (self.observation.len(), observation.len());
        if expected != got {
            return Err(TrainError::ObservationLength { expected, got });
        }
        if let Some(component) = observation.iter().position(|x| !x.is_finite()) {
            return Err(TrainError::Observation { component, value: observation[component] });
        }
        match observation.iter().position(|x| self.pixels && !is_byte(*x)) {
            Some(component) => Err(TrainError::Pixel { component, value: observation[component] }),
            None => Ok(()),
        }
    }

    /// An episode of greedy play begins: the observations of [`Self::greedy`] are its steps, one after the other.
    pub fn begin_greedy(&mut self) {
        self.learner.begin_greedy();
    }

    /// The best action for an observation, in the environment's units. To a recurrent policy it is the next one since
    /// [`Self::begin_greedy`].
    pub fn greedy(&mut self, observation: &[f32]) -> Result<Action<'_>, TrainError> {
        self.check(observation)?;
        self.label.clear();
        self.label.resize(self.learner.action_width(), 0.0);
        self.learner.act(observation, &mut self.label);
        if !self.learner.takes(&self.label) {
            return Err(LearnError::NoAction.into());
        }
        Ok(in_units(&self.space, &self.label, &mut self.units))
    }

    /// Whether an episode is running; otherwise the environment is to be reset and [`Self::begin`] called.
    pub fn running(&self) -> bool {
        self.running
    }

    /// The observation to act on.
    pub fn observation(&self) -> &[f32] {
        &self.observation
    }

    /// Environment steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Finished episodes so far.
    pub fn episodes(&self) -> u64 {
        self.episodes
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.learner.engine().updates()
    }

    /// Where the student stands in its round.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// The last update's report: the parts of its loss, and the numbers of a distillation.
    pub fn report(&self) -> Option<LossParts> {
        let learnt = self.last_loss().cloned();
        let Some(distillation) = self.distillation.as_ref().filter(|d| d.began()) else { return learnt };
        let parts = learnt.unwrap_or_default();
        Some(distillation.numbers().fold(parts, |parts, (name, value)| parts.with(name, value)))
    }

    /// The parts of the last update's loss.
    pub fn last_loss(&self) -> Option<&LossParts> {
        self.learner.engine().last_loss()
    }

    /// What runs the updates.
    pub fn backend_status(&self) -> BackendStatus {
        BackendStatus {
            name: self.learner.engine().backend().into(),
            tried: self.tried.clone(),
            lost: self.learner.engine().lost().map(Into::into),
        }
    }

    /// The transitions and their labels.
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// The agent.
    pub fn learner(&mut self) -> &mut dyn Agent {
        &mut *self.learner
    }

    /// Its configuration.
    pub fn config(&self) -> &StudentConfig {
        &self.config
    }
}

/// The source of recorded transitions, for programs that read it; an environment's is 0.
const RECORDED: f32 = 1.0;

/// An empty buffer of `[capacity, teachers]` with the columns of the learner's program.
fn buffer(
    config: &StudentConfig,
    learner: &mut dyn Agent,
    width: usize,
    [capacity, teachers]: [usize; 2],
) -> Replay {
    let widths = [width, learner.action_width()];
    let replay = Replay::new(capacity, widths, teachers, config.n_step, config.gamma)
        .with_labels_of(learner.label_width())
        .with_columns(Columns::read_by(learner.engine().program()));
    match config.algorithm.convolution() {
        Some(convolution) => replay.of_images(convolution.shape[0]),
        None => replay,
    }
}

/// Gives the sampler the newest TD errors, where the program reports them.
pub(crate) fn take_errors(sampler: &mut dyn Sampler, learner: &dyn Agent) {
    if let Some((update, errors)) = learner.engine().td_errors() {
        sampler.learned(update, errors);
    }
}

/// Whether a number is a pixel's.
pub(crate) fn is_byte(x: f32) -> bool {
    f32::from(x as u8) == x
}

/// An action as the environment takes it: components from -1 to 1 are spread over the box.
pub(crate) fn in_units<'u>(space: &Space, action: &[f32], units: &'u mut [f32]) -> Action<'u> {
    let Space::Box { low, high } = space else { return Action::Discrete(action[0] as u32) };
    for (((u, a), low), high) in units.iter_mut().zip(action).zip(low).zip(high) {
        *u = within(low + (a + 1.0) * 0.5 * (high - low), *low, *high);
    }
    Action::Continuous(units)
}

/// An environment's action as a learner has it, added to `out`; nothing if it is of another kind.
pub(crate) fn from_units(space: &Space, action: Action<'_>, out: &mut Vec<f32>) {
    match (space, action) {
        (Space::Discrete { .. }, Action::Discrete(index)) => out.push(index as f32),
        (Space::Box { low, high }, Action::Continuous(values)) => {
            let ranges = values.iter().zip(low).zip(high);
            // A number that rounding put beyond its range is at its end.
            let scaled = ranges.map(|((v, low), high)| 2.0 * (v - low) / (high - low) - 1.0);
            out.extend(scaled.map(|v| within(v, -1.0, 1.0)));
        }
        _ => {}
    }
}

/// One update of the configuration's algorithm between these spaces.
pub fn program(
    config: &StudentConfig,
    observation: &Space,
    action: &Space,
    teachers: usize,
) -> Result<Program, TrainError> {
    let sizes = config.algorithm.sizes(observation, action, teachers)?;
    Ok(config.algorithm.program(Sizes { weighted: config.replay.weighted(), ..sizes }))
}

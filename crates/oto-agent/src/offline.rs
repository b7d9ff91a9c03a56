//! A teacher from recorded episodes alone: the training agent of OTO's Offline stage (Algorithm 1), with greedy episodes in the environment from time to time, of which the best policy is kept.
//!
//! Updates come in slices of any size ([`OfflineTrainer::step`], [`OfflineTrainer::advance`]), so that whoever has other things
//! to do can own one. How updates are sliced changes nothing: same data, same seed, same policy.

use crate::config::{
    ConfigError, EvaluationConfig, Linear, check_evaluation, check_learning, refuse_old_form,
};
use crate::evaluation::returns;
use crate::policy;
use crate::safetensors::{self, File};
use crate::stage::Stage;
use crate::student::Metrics;
use crate::trainer::{BackendStatus, from_units, in_units, is_byte};
use oto_env::rng::Rng;
use oto_env::{Action, EnvError, Environment, Space};
use oto_graph::Backend;
use oto_json::Writer;
use oto_rl::algorithms::{self, Agent, Algorithm, AlgorithmConfig, Defaults, Misfit};
use oto_rl::checks::Checks;
use oto_rl::engine::{LearnError, LossParts, NamedTensor, Schedule};
use oto_rl::network::Actor;
use oto_rl::replay::{Batch, Columns, Replay};

/// The key of a checkpoint's only metadata entry.
const FORMAT: &str = "oto.offline.v2";
/// The format before it, which is refused: its configurations have another form.
const BEFORE: [&str; 1] = ["oto.offline.v1"];
/// The most transitions that are held.
const MAX_TRANSITIONS: usize = 1 << 30;
/// The first seed of evaluation episodes: every evaluation plays the same ones, far from those that people choose.
const FIRST_SEED: u64 = 1 << 32;

/// What makes a teacher from data.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct OfflineConfig {
    /// The algorithm and its settings.
    #[cfg_attr(feature = "schema", schemars(schema_with = "algorithms::offline_schema"))]
    pub algorithm: AlgorithmConfig,
    /// Draws parameters and batches.
    pub seed: u64,
    /// Updates in all.
    pub updates: u64,
    /// "cpu" or "candle".
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["cpu", "candle"])))]
    pub backend: String,
    /// Discount factor.
    pub gamma: f64,
    /// Rewards summed before the bootstrap.
    pub n_step: usize,
    /// Learning rate over updates.
    pub learning_rate: Linear,
    /// Updates between hard updates of the target network; 0: soft updates by `target_tau`.
    pub target_every: u64,
    /// Coefficient of the target network's soft update, at every update, if `target_every` is 0.
    pub target_tau: f64,
    /// Greedy evaluation, every so many updates.
    pub evaluation: EvaluationConfig,
    /// Ends the run once an evaluation's mean return is as high.
    pub until_return: Option<f64>,
    /// Ends the run after so many evaluations without a better one; 0 never does.
    pub patience: u32,
}

oto_json::json_object! {
    OfflineConfig: settings after refuse_old_form {
        algorithm, seed, updates, backend, gamma, n_step, learning_rate, target_every, target_tau, evaluation,
        until_return, patience
    }
}

impl Default for OfflineConfig {
    fn default() -> Self {
        let seen = algorithms::Seen::default();
        Self::new(algorithms::usual(algorithms::offline(), seen).defaults(seen))
    }
}

impl OfflineConfig {
    /// An algorithm's defaults.
    pub fn new(defaults: Defaults) -> Self {
        let (every, episodes) = defaults.evaluation;
        Self {
            algorithm: defaults.algorithm,
            seed: 0,
            updates: defaults.steps,
            backend: "cpu".into(),
            gamma: defaults.gamma,
            n_step: defaults.n_step,
            learning_rate: defaults.learning_rate,
            target_every: defaults.target_every,
            target_tau: defaults.target_tau,
            evaluation: EvaluationConfig { every, episodes },
            until_return: None,
            patience: 10,
        }
    }

    /// The defaults of an algorithm for these actions and observations that are rows of numbers.
    pub fn of(algorithm: &dyn Algorithm, action: &Space) -> Self {
        Self::new(algorithm.defaults(algorithms::Seen::actions(action)))
    }

    /// Checks every setting before anything is built from it.
    ///
    /// # Errors
    /// The first setting that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut checks = Checks::default();
        let c = &mut checks;
        let name = self.algorithm.name();
        let expected =
            format!("{}: {name} needs an environment to learn in", algorithms::listed(algorithms::offline()));
        c.that(self.algorithm.algorithm().offline(), "algorithm.name", || format!("{name:?}"), &expected);
        c.within("algorithm", |c| self.algorithm.check(c));
        check_learning(c, self.gamma, self.n_step, self.target_tau, &self.learning_rate);
        check_evaluation(c, self.evaluation);
        c.whole("updates", self.updates, 1..=u64::MAX, "at least one update");
        let known = matches!(self.backend.as_str(), "cpu" | "candle");
        c.that(known, "backend", || format!("{:?}", self.backend), "\"cpu\" or \"candle\"");
        let until = self.until_return.unwrap_or(0.0);
        c.real("until_return", until, f64::MIN..=f64::MAX, "a finite return");
        checks.done()
    }
}

/// Why no teacher came of the data.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// A setting out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A space that cannot be learned in.
    #[error("{0}")]
    Space(String),
    /// There are no data to learn from.
    #[error("there are no transitions to learn from")]
    Empty,
    /// More data than are held.
    #[error("more than {MAX_TRANSITIONS} transitions")]
    TooMany,
    /// An episode whose arrays do not belong together.
    #[error("an episode of {steps} steps needs {expected} numbers as {what}, got {got}")]
    Length {
        /// Of how many rewards.
        steps: usize,
        /// "observations" or "actions".
        what: &'static str,
        /// How many belong to them.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// A number that no learner can use.
    #[error("step {step}: the {what} holds {value}, not a finite number of single precision")]
    NotFinite {
        /// Which step of the episode, from 0.
        step: usize,
        /// "observation" or "reward".
        what: &'static str,
        /// The number.
        value: f64,
    },
    /// A number of an image that is no byte.
    #[error("step {step}: the observation holds {value}, expected a pixel: a whole number from 0 to 255")]
    Pixel {
        /// Which step of the episode, from 0.
        step: usize,
        /// The number.
        value: f32,
    },
    /// An action outside its space.
    #[error("step {step}: {action:?} is no action of the space")]
    Action {
        /// Which step of the episode, from 0.
        step: usize,
        /// What was recorded.
        action: Vec<f32>,
    },
    /// The learner's failure, divergence among them.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// The environment failed.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// A checkpoint that cannot be used.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
}

impl From<Misfit> for OfflineError {
    fn from(misfit: Misfit) -> Self {
        Self::Space(misfit.to_string())
    }
}

/// Observations as they were recorded, row by row.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// As numbers.
    Numbers(&'a [f32]),
    /// As bytes, which images are made of.
    Bytes(&'a [u8]),
}

impl Seen<'_> {
    fn len(self) -> usize {
        match self {
            Seen::Numbers(numbers) => numbers.len(),
            Seen::Bytes(bytes) => bytes.len(),
        }
    }

    /// Row `i` of this width.
    fn row(self, i: usize, width: usize, to: &mut Vec<f32>) {
        to.clear();
        match self {
            Seen::Numbers(numbers) => to.extend_from_slice(&numbers[i * width..(i + 1) * width]),
            Seen::Bytes(bytes) => to.extend(bytes[i * width..(i + 1) * width].iter().map(|b| f32::from(*b))),
        }
    }

    /// Where the first number is that this holds for.
    fn find(self, wrong: impl Fn(f32) -> bool) -> Option<(usize, f32)> {
        // A byte is finite, and a pixel.
        let Seen::Numbers(numbers) = self else { return None };
        numbers.iter().position(|x| wrong(*x)).map(|at| (at, numbers[at]))
    }
}

/// One episode of `T` steps, or a piece of one, as it was recorded.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// `[T + 1, observation width]`: before each step, and after the last.
    pub observations: Seen<'a>,
    /// `[T, action width]` in the environment's units; a discrete action is its index as a number.
    pub actions: &'a [f32],
    /// `[T]`.
    pub rewards: &'a [f64],
    /// Whether the last step ended the episode by its own rules, so that no return lies beyond it. Otherwise it was cut off
    /// there, and the last observation has a value.
    pub terminated: bool,
}

/// Greedy episodes of one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Updates made by then.
    pub updates: u64,
    /// Mean return.
    pub mean: f64,
    /// Lowest return.
    pub min: f64,
    /// Highest return.
    pub max: f64,
    /// How many episodes.
    pub episodes: u32,
    /// Whether none before was better: its policy is [`OfflineTrainer::best`] now.
    pub best: bool,
}

/// The policy of the best evaluation.
#[derive(Clone, Debug)]
pub struct Best {
    /// Updates made by then.
    pub updates: u64,
    /// Mean return.
    pub mean: f64,
    /// As [`OfflineTrainer::policy`] gave it.
    pub policy: Actor,
}

/// Why there is nothing more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All updates are made.
    Updates,
    /// The return that was asked for is reached.
    Return,
    /// No evaluation was better for a while.
    NoImprovement,
}

/// What one slice came to.
#[derive(Clone, Copy, Debug)]
pub struct Advance {
    /// An evaluation that was due.
    pub evaluation: Option<Evaluation>,
    /// Whether it was the last slice, and why.
    pub ended: Option<End>,
}

/// What of a trainer is no tensor.
struct Progress {
    config: OfflineConfig,
    updates: u64,
    draw: Rng,
    transitions: u64,
    digest: u64,
    last_evaluation: Option<f64>,
    best: Option<Mark>,
    since_best: u32,
}

oto_json::json_object! {
    Progress: open { config, updates, draw, transitions, digest, last_evaluation, best, since_best }
}

/// Where the best policy came from.
struct Mark {
    updates: u64,
    mean: f64,
}

oto_json::json_object! { Mark: open { updates, mean } }

/// Makes a teacher of recorded episodes.
pub struct OfflineTrainer {
    config: OfflineConfig,
    agent: Box<dyn Agent>,
    spaces: [Space; 2],
    replay: Replay,
    batch: Batch,
    /// Draws batches.
    draw: Rng,
    /// Of all data: which they were, to tell whether a checkpoint belongs to them.
    digest: u64,
    last_evaluation: Option<f64>,
    best: Option<Best>,
    since_best: u32,
    row: Vec<f32>,
    /// Two observations of an episode that is added.
    room: [Vec<f32>; 2],
}

impl OfflineTrainer {
    /// Without data yet, for an environment with these spaces.
    ///
    /// # Errors
    /// A setting out of its range; spaces that the method cannot learn in; the backend's failure.
    pub fn new(
        config: &OfflineConfig,
        observation: &Space,
        action: &Space,
        backend: &dyn Backend,
    ) -> Result<Self, OfflineError> {
        config.validate()?;
        let mut rng = Rng::new(config.seed);
        let sizes = config.algorithm.sizes(observation, action, 0)?;
        let agent = config.algorithm.agent(sizes, backend, &mut rng)?;
        let widths = [observation.width(), agent.action_width()];
        let columns = Columns::read_by(agent.engine().program());
        let replay =
            Replay::new(MAX_TRANSITIONS, widths, 0, config.n_step, config.gamma).with_columns(columns);
        Ok(Self {
            replay: match config.algorithm.convolution() {
                Some(c) => replay.of_images(c.shape[0]),
                None => replay,
            },
            config: config.clone(),
            agent,
            spaces: [observation.clone(), action.clone()],
            batch: Batch::default(),
            draw: Rng::new(rng.next_u64()),
            digest: 0xcbf2_9ce4_8422_2325,
            last_evaluation: None,
            best: None,
            since_best: 0,
            row: Vec::new(),
            room: [Vec::new(), Vec::new()],
        })
    }

    /// Adds an episode to what is learned from, at any time; gives the number of its steps.
    ///
    /// # Errors
    /// Arrays that do not belong together, numbers that are not finite, actions outside their space. Nothing is added then.
    pub fn add(&mut self, episode: &Recorded<'_>) -> Result<usize, OfflineError> {
        let (width, numbers) = (self.spaces[0].width(), self.spaces[1].width());
        self.check(episode)?;
        let steps = episode.rewards.len();
        let [seen, next] = &mut self.room;
        for (step, action) in episode.actions.chunks_exact(numbers).enumerate() {
            self.row.clear();
            from_units(&self.spaces[1], recorded(&self.spaces[1], action), &mut self.row);
            let last = step + 1 == steps;
            let (terminated, truncated) = (last && episode.terminated, last && !episode.terminated);
            let reward = episode.rewards[step] as f32;
            episode.observations.row(step, width, seen);
            episode.observations.row(step + 1, width, next);
            self.replay.push(seen, &self.row, reward, next, terminated, truncated, |_, _| {});
            let all = seen.iter().chain(&self.row).chain(&*next);
            for number in all.chain([&reward, &f32::from(terminated)]) {
                // FNV-1a over the numbers' bits.
                self.digest = (self.digest ^ u64::from(number.to_bits())).wrapping_mul(0x0100_0000_01b3);
            }
        }
        Ok(steps)
    }

    fn check(&self, episode: &Recorded<'_>) -> Result<(), OfflineError> {
        let steps = episode.rewards.len();
        let (width, numbers) = (self.spaces[0].width(), self.spaces[1].width());
        for (what, expected, got) in [
            ("observations", (steps + 1).saturating_mul(width), episode.observations.len()),
            ("actions", steps.saturating_mul(numbers), episode.actions.len()),
        ] {
            if expected != got {
                return Err(OfflineError::Length { steps, what, expected, got });
            }
        }
        if self.transitions() + steps > MAX_TRANSITIONS {
            return Err(OfflineError::TooMany);
        }
        if let Some((at, value)) = episode.observations.find(|x| !x.is_finite()) {
            let value = value.into();
            return Err(OfflineError::NotFinite { step: at / width, what: "observation", value });
        }
        let wrong =
            episode.observations.find(|x| self.config.algorithm.convolution().is_some() && !is_byte(x));
        if let Some((at, value)) = wrong {
            return Err(OfflineError::Pixel { step: at / width, value });
        }
        if let Some(step) = episode.rewards.iter().position(|r| !(*r as f32).is_finite()) {
            return Err(OfflineError::NotFinite { step, what: "reward", value: episode.rewards[step] });
        }
        let space = &self.spaces[1];
        let inside = |row: &[f32]| match space {
            Space::Discrete { .. } if row[0].fract() != 0.0 || row[0] < 0.0 => false,
            _ => space.contains(recorded(space, row)),
        };
        match episode.actions.chunks_exact(numbers).position(|row| !inside(row)) {
            Some(step) => {
                let action = episode.actions[step * numbers..(step + 1) * numbers].to_vec();
                Err(OfflineError::Action { step, action })
            }
            None => Ok(()),
        }
    }

    /// Makes `count` updates.
    ///
    /// # Errors
    /// [`OfflineError::Empty`]; the learner's failure, such as a loss that is no number any more. [`Self::best`] stays.
    pub fn step(&mut self, count: u64) -> Result<(), OfflineError> {
        if self.replay.is_empty() {
            return Err(OfflineError::Empty);
        }
        let c = &self.config;
        let size = c.algorithm.batch_size();
        for _ in 0..count {
            let updates = self.agent.engine().updates();
            let target_mix = match c.target_every {
                0 => c.target_tau as f32,
                every => f32::from((updates + 1).is_multiple_of(every)),
            };
            let lr = c.learning_rate.at(updates) as f32;
            let schedule = Schedule {
                lr,
                target_mix,
                alpha_aikd: 0.0,
                delta: 0.0,
                eta: 0.0,
                alpha_task: 1.0,
                share: &[],
            };
            self.replay.sample(&mut self.draw, size, &mut self.batch);
            self.agent.update(&self.batch, &schedule, &mut self.draw)?;
        }
        Ok(())
    }

    /// Plays greedy episodes, the same ones every time, and keeps the policy if none before was better.
    ///
    /// # Errors
    /// A world with other spaces, or that fails; parameters that are no numbers any more.
    pub fn evaluate(&mut self, world: &mut dyn Environment) -> Result<Evaluation, OfflineError> {
        let [observation, action] = &self.spaces;
        let (seen, done) = (world.observation_space(), world.action_space());
        if seen.width() != observation.width() || done != action {
            let message = format!("learned for {action:?}, the environment to evaluate in has {done:?}");
            return Err(OfflineError::Space(message));
        }
        let policy = self.policy();
        if !policy.parameters().all(|part| part.iter().all(|x| x.is_finite())) {
            return Err(LearnError::NotFinite("of the acting network".into()).into());
        }
        let episodes = self.config.evaluation.episodes;
        let (agent, row) = (&mut self.agent, &mut self.row);
        let width = agent.action_width();
        let mut units = vec![0.0; width];
        let returns = returns(world, FIRST_SEED..FIRST_SEED + u64::from(episodes), |world, observation| {
            row.clear();
            row.resize(width, 0.0);
            agent.act(observation, row);
            if !agent.takes(row) {
                return Err(LearnError::NoAction.into());
            }
            Ok::<_, OfflineError>(world.step(in_units(action, row, &mut units), observation)?)
        })?;
        let mean = returns.iter().sum::<f64>() / returns.len() as f64;
        let (min, max) =
            returns.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), r| (l.min(*r), h.max(*r)));
        let best = self.best.as_ref().is_none_or(|b| mean > b.mean);
        let updates = self.updates();
        if best {
            self.best = Some(Best { updates, mean, policy });
            self.since_best = 0;
        } else {
            self.since_best += 1;
        }
        self.last_evaluation = Some(mean);
        Ok(Evaluation { updates, mean, min, max, episodes, best })
    }

    /// Goes on by at most `updates` updates, to the next evaluation, which is then made, or to the end.
    ///
    /// # Errors
    /// As [`Self::step`] and [`Self::evaluate`].
    pub fn advance(&mut self, world: &mut dyn Environment, updates: u64) -> Result<Advance, OfflineError> {
        let mut evaluation = None;
        if self.ended().is_none() {
            let (now, every) = (self.updates(), self.config.evaluation.every);
            let next = if every == 0 { u64::MAX } else { now - now % every + every };
            let next = next.min(self.config.updates);
            self.step(updates.min(next - now))?;
            if self.updates() == next {
                evaluation = Some(self.evaluate(world)?);
            }
        }
        Ok(Advance { evaluation, ended: self.ended() })
    }

    /// Whether there is nothing more to do, and why.
    pub fn ended(&self) -> Option<End> {
        let c = &self.config;
        let reached = c.until_return.zip(self.best.as_ref()).is_some_and(|(until, best)| best.mean >= until);
        match () {
            () if reached => Some(End::Return),
            () if c.patience > 0 && self.since_best >= c.patience => Some(End::NoImprovement),
            () if self.updates() >= c.updates => Some(End::Updates),
            () => None,
        }
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.agent.engine().updates()
    }

    /// Sets another end.
    pub fn set_updates(&mut self, updates: u64) {
        self.config.updates = updates;
    }

    /// Transitions that are learned from.
    pub fn transitions(&self) -> usize {
        self.replay.len()
    }

    /// The network that acts now: a preference for each discrete action, or a continuous action before its tanh.
    pub fn policy(&self) -> Actor {
        self.agent.policy()
    }

    /// The policy of the best evaluation.
    pub fn best(&self) -> Option<&Best> {
        self.best.as_ref()
    }

    /// A policy of this trainer as a file that can be served, see [`policy::write`].
    pub fn policy_file(&self, policy: &Actor, environment: &str) -> Vec<u8> {
        let algorithm = format!("oto {}", self.config.algorithm.name());
        let description = format!("Learned from {} recorded transitions.", self.transitions());
        let [observation, action] = &self.spaces;
        policy::write(
            policy,
            self.agent.squashes(),
            [observation, action],
            environment,
            &algorithm,
            &description,
        )
    }

    /// The parts of the last update's loss.
    pub fn last_loss(&self) -> Option<&LossParts> {
        self.agent.engine().last_loss()
    }

    /// How the run stands. Its steps are updates: no step is taken in an environment.
    pub fn metrics(&self) -> Metrics {
        Metrics {
            step: self.updates(),
            steps: self.config.updates,
            updates: self.updates(),
            episodes: 0,
            stage: Stage::Offline,
            rounds: 0,
            done: self.ended().is_some(),
            epsilon: 0.0,
            last_episode: None,
            last_evaluation: self.last_evaluation,
            loss: self.last_loss().cloned(),
            backend: BackendStatus { name: self.agent.engine().backend().into(), ..Default::default() },
            labels: 0,
            transitions_sent: 0,
            transitions_kept: 0,
            teachers: Vec::new(),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &OfflineConfig {
        &self.config
    }

    /// Everything but the data as a safetensors file, to go on from.
    ///
    /// # Errors
    /// Parameters that are no numbers any more: such a state is not worth keeping.
    pub fn save(&self) -> Result<Vec<u8>, OfflineError> {
        let mut tensors = self.agent.engine().state()?;
        if let Some(bad) = tensors.iter().find(|t| t.values.iter().any(|x| !x.is_finite())) {
            return Err(LearnError::NotFinite(bad.name.clone()).into());
        }
        if let Some(best) = &self.best {
            tensors.extend(policy::tensors("best.", best.policy.encoder(), best.policy.layers()));
        }
        let progress = Progress {
            config: self.config.clone(),
            updates: self.updates(),
            draw: self.draw.clone(),
            transitions: self.transitions() as u64,
            digest: self.digest,
            last_evaluation: self.last_evaluation,
            best: self.best.as_ref().map(|b| Mark { updates: b.updates, mean: b.mean }),
            since_best: self.since_best,
        };
        let metadata = Writer::object(|out| out.field("progress", &progress));
        Ok(safetensors::write(FORMAT, &metadata, &tensors))
    }

    /// Goes on where a checkpoint was saved. True if the data are those it was saved with: only then does it go on as if it
    /// had never stopped.
    ///
    /// # Errors
    /// A foreign or damaged file, or one of another network; nothing changes then.
    pub fn load(&mut self, file: &[u8]) -> Result<bool, OfflineError> {
        let file = File::read(file).map_err(broken)?;
        let progress = progress(&file)?;
        let (theirs, ours) = (&progress.config.algorithm, &self.config.algorithm);
        if theirs != ours {
            let [theirs, ours] = [theirs, ours].map(oto_json::write);
            return Err(broken(format!("it holds {theirs}, this trainer has {ours}")));
        }
        let best = progress.best.map(|mark| self.best_of(&file, mark)).transpose()?;
        self.agent.restore(progress.updates, &mut |name| file.floats(name))?;
        (self.draw, self.best, self.since_best) = (progress.draw, best, progress.since_best);
        self.last_evaluation = progress.last_evaluation;
        Ok(progress.digest == self.digest && progress.transitions == self.transitions() as u64)
    }

    fn best_of(&self, file: &File<'_>, mark: Mark) -> Result<Best, OfflineError> {
        let mut policy = self.policy();
        let saved = policy::tensors("best.", policy.encoder(), policy.layers());
        for (part, NamedTensor { name, .. }) in policy.parameters_mut().zip(saved) {
            let found = file.floats(&name).filter(|f| f.len() == part.len());
            let found = found.ok_or_else(|| broken(format!("{name} is not there, or does not fit")))?;
            if found.iter().any(|x| !x.is_finite()) {
                return Err(LearnError::NotFinite(name).into());
            }
            part.copy_from_slice(&found);
        }
        Ok(Best { updates: mark.updates, mean: mark.mean, policy })
    }
}

/// The configuration a checkpoint was made with, and its updates.
///
/// # Errors
/// A foreign or damaged file.
pub fn checkpoint(file: &[u8]) -> Result<(OfflineConfig, u64), OfflineError> {
    let progress = progress(&File::read(file).map_err(broken)?)?;
    Ok((progress.config, progress.updates))
}

struct Metadata {
    progress: Progress,
}

oto_json::json_object! { Metadata: open { progress } }

fn progress(file: &File<'_>) -> Result<Progress, OfflineError> {
    let entry = safetensors::entry(file, FORMAT, &BEFORE).map_err(broken)?;
    Ok(oto_json::read::<Metadata>(entry).map_err(broken)?.progress)
}

fn broken(reason: impl std::fmt::Display) -> OfflineError {
    OfflineError::Checkpoint(reason.to_string())
}

/// A recorded row of numbers as an action.
fn recorded<'a>(space: &Space, row: &'a [f32]) -> Action<'a> {
    match space {
        Space::Discrete { .. } => Action::Discrete(row[0] as u32),
        Space::Box { .. } => Action::Continuous(row),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_rl::algorithms::cql::ConservativeQLearning;

    /// Where an episode terminated nothing is beyond; where it was cut off the last observation has a value.
    #[test]
    fn returns_end_where_episodes_terminate_and_not_where_they_are_cut_off() {
        let (observation, action) = (Space::uniform(1, -9.0, 9.0), Space::uniform(1, -2.0, 2.0));
        let config =
            OfflineConfig { n_step: 2, gamma: 0.5, ..OfflineConfig::of(&ConservativeQLearning, &action) };
        let mut trainer = OfflineTrainer::new(&config, &observation, &action, &oto_cpu::Cpu).unwrap();
        for terminated in [true, false] {
            let (observations, actions, rewards) = ([0.0, 1.0, 2.0, 3.0], [2.0, 0.0, -1.0], [1.0, 2.0, 4.0]);
            let observations = Seen::Numbers(&observations);
            let episode = Recorded { observations, actions: &actions, rewards: &rewards, terminated };
            assert_eq!(trainer.add(&episode).unwrap(), 3);
        }
        let (_, arrays) = trainer.replay.save();
        let array = |name: &str| arrays.iter().find(|(n, _)| *n == name).map(|(_, a)| a.clone()).unwrap();
        assert_eq!(array("replay.reward"), [2.0, 4.0, 4.0, 2.0, 4.0, 4.0]);
        assert_eq!(array("replay.discount"), [0.25, 0.0, 0.0, 0.25, 0.25, 0.5]);
        assert_eq!(array("replay.next_observation"), [2.0, 3.0, 3.0, 2.0, 3.0, 3.0]);
        assert_eq!(array("replay.action")[..3], [1.0, 0.0, -0.5], "from -1 to 1");
    }
}

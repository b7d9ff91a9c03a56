//! A teacher from recorded episodes alone: the training agent of OTO's Offline stage (Algorithm 1), with greedy episodes in the environment from time to time, of which the best policy is kept.
//!
//! Updates come in slices of any size ([`OfflineTrainer::step`], [`OfflineTrainer::advance`]), so that whoever has other things
//! to do can own one. How updates are sliced changes nothing: same data, same seed, same policy.

use crate::checkpoint;
use crate::config::{
    ConfigError, EvaluationConfig, Linear, StudentConfig, check_evaluation, check_learning, names_of,
    refuse_old_form,
};
use crate::evaluation::{Best, Evaluation};
use crate::policy;
use crate::recorded::{MAX_TRANSITIONS, Recorded};
use crate::stage::{Ending, StagesConfig};
use crate::student::Metrics;
use crate::trainer::{Source, TrainError, Trainer};
use oto_env::{Environment, Space};
use oto_graph::Backend;
use oto_rl::algorithms::{self, Algorithm, AlgorithmConfig, Defaults};
use oto_rl::checks::Checks;
use oto_rl::engine::{Adopted, LearnError, LossParts};
use oto_rl::network::Actor;

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
    /// "cpu", "candle" for the reference, or a graphics card: "cuda" or "metal".
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["cpu", "candle", "cuda", "metal"])))]
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

    /// The same as a trainer's configuration: its steps are updates, its only stage is Offline.
    fn run(&self) -> StudentConfig {
        let stages =
            StagesConfig { offline: Some(Ending::default()), transfer: None, online: None, repeat: false };
        StudentConfig {
            seed: self.seed,
            steps: self.updates,
            backend: self.backend.clone(),
            algorithm: self.algorithm.clone(),
            gamma: self.gamma,
            n_step: self.n_step,
            buffer: MAX_TRANSITIONS,
            learning_starts: 0,
            learning_rate: self.learning_rate,
            epsilon: Linear::constant(0.0),
            target_every: self.target_every,
            target_tau: self.target_tau,
            stages,
            evaluation: self.evaluation,
            ..StudentConfig::default()
        }
    }

    /// The settings that differ from those of `usual` and change nothing, because the algorithm does not use them. The settings are valid.
    pub fn unused(&self, usual: &Self) -> Vec<&'static str> {
        let (values, follows) = (self.algorithm.reads("discount"), self.algorithm.reads("target_mix"));
        let discounts = values || self.algorithm.reads("return_to_go");
        names_of([
            ("gamma", discounts, self.gamma == usual.gamma),
            ("n_step", values, self.n_step == usual.n_step),
            ("target_every", follows, self.target_every == usual.target_every),
            ("target_tau", follows && self.target_every == 0, self.target_tau == usual.target_tau),
        ])
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
        let known = matches!(self.backend.as_str(), "cpu" | "candle" | "cuda" | "metal");
        c.that(
            known,
            "backend",
            || format!("{:?}", self.backend),
            "\"cpu\", \"candle\", \"cuda\" or \"metal\"",
        );
        let until = self.until_return.unwrap_or(0.0);
        c.real("until_return", until, f64::MIN..=f64::MAX, "a finite return");
        checks.done()
    }
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

/// What a checkpoint keeps beside the trainer.
struct Extra {
    teach: OfflineConfig,
}

oto_json::json_object! { Extra: open { teach } }

/// Makes a teacher of recorded episodes: drives a [`Trainer`] whose source is a dataset.
pub struct OfflineTrainer {
    config: OfflineConfig,
    trainer: Trainer,
    /// The environment's observations.
    observation: Space,
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
    ) -> Result<Self, TrainError> {
        config.validate()?;
        let trainer = Trainer::with(&config.run(), Source::Dataset, [observation, action], 0, backend)?;
        Ok(Self { config: config.clone(), trainer, observation: observation.clone() })
    }

    /// Adds an episode to what is learned from, at any time; gives the number of its steps.
    ///
    /// # Errors
    /// As [`Trainer::add`].
    pub fn add(&mut self, episode: &Recorded<'_>) -> Result<usize, TrainError> {
        self.trainer.add(episode)
    }

    /// Makes `count` updates.
    ///
    /// # Errors
    /// As [`Trainer::learn`]. The best policy stays.
    pub fn step(&mut self, count: u64) -> Result<(), TrainError> {
        self.trainer.learn(count)
    }

    /// Plays greedy episodes, the same ones every time, and keeps the policy if none before was better.
    ///
    /// # Errors
    /// An environment with other spaces, or one that fails; parameters that are not finite.
    pub fn evaluate(&mut self, environment: &mut dyn Environment) -> Result<Evaluation, TrainError> {
        let (seen, done) = (environment.observation_space(), environment.action_space());
        if seen.width() != self.observation.width() || *done != self.trainer.space {
            let action = &self.trainer.space;
            let message = format!("learned for {action:?}, the environment to evaluate in has {done:?}");
            return Err(TrainError::Space(message));
        }
        if !self.policy().parameters().all(|part| part.iter().all(|x| x.is_finite())) {
            return Err(LearnError::NotFinite("of the acting network".into()).into());
        }
        let seeds = (0..self.config.evaluation.episodes).map(|i| Some(FIRST_SEED + u64::from(i)));
        let returns = self.trainer.play(environment, seeds)?;
        self.trainer.evaluated(&returns)
    }

    /// Goes on by at most `updates` updates, to the next evaluation, which is then made, or to the end.
    ///
    /// # Errors
    /// As [`Self::step`] and [`Self::evaluate`].
    pub fn advance(
        &mut self,
        environment: &mut dyn Environment,
        updates: u64,
    ) -> Result<Advance, TrainError> {
        let mut evaluation = None;
        if self.ended().is_none() {
            let (now, every) = (self.updates(), self.config.evaluation.every);
            let next = if every == 0 { u64::MAX } else { now - now % every + every };
            let next = next.min(self.config.updates);
            self.step(updates.min(next - now))?;
            if self.updates() == next {
                evaluation = Some(self.evaluate(environment)?);
            }
        }
        Ok(Advance { evaluation, ended: self.ended() })
    }

    /// Whether there is nothing more to do, and why.
    pub fn ended(&self) -> Option<End> {
        let (c, so_far) = (&self.config, self.trainer.evaluations());
        let reached = c.until_return.zip(so_far.best).is_some_and(|(until, best)| best.mean >= until);
        match () {
            () if reached => Some(End::Return),
            () if c.patience > 0 && so_far.since_best >= c.patience => Some(End::NoImprovement),
            () if self.updates() >= c.updates => Some(End::Updates),
            () => None,
        }
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.trainer.updates()
    }

    /// Sets another end.
    pub fn set_updates(&mut self, updates: u64) {
        (self.config.updates, self.trainer.config.steps) = (updates, updates);
    }

    /// Transitions that are learned from.
    pub fn transitions(&self) -> usize {
        self.trainer.replay().len()
    }

    /// The network that acts now: a preference for each discrete action, or a continuous action before its tanh.
    pub fn policy(&self) -> Actor {
        self.trainer.learner.policy()
    }

    /// The best evaluation.
    pub fn best(&self) -> Option<Best> {
        self.trainer.evaluations().best
    }

    /// The policy of the best evaluation.
    pub fn best_policy(&self) -> Option<&Actor> {
        self.trainer.best_policy()
    }

    /// A policy of this trainer as a file that can be served, see [`policy::write`].
    pub fn policy_file(&self, policy: &Actor, environment: &str) -> Vec<u8> {
        let algorithm = format!("oto {}", self.config.algorithm.name());
        let description = format!("Learned from {} recorded transitions.", self.transitions());
        let spaces = [&self.observation, &self.trainer.space];
        let squashes = self.trainer.learner.squashes();
        policy::write(policy, squashes, spaces, environment, &algorithm, &description)
    }

    /// The parts of the last update's loss.
    pub fn last_loss(&self) -> Option<&LossParts> {
        self.trainer.last_loss()
    }

    /// How the run stands. Its steps are updates: no step is taken in an environment.
    pub fn metrics(&self) -> Metrics {
        let t = &self.trainer;
        Metrics {
            step: t.updates(),
            steps: self.config.updates,
            updates: t.updates(),
            episodes: t.episodes(),
            stage: t.stages().stage(),
            rounds: 0,
            done: self.ended().is_some(),
            epsilon: t.epsilon(),
            last_episode: None,
            last_evaluation: t.evaluations().last,
            loss: t.last_loss().cloned(),
            backend: t.backend_status(),
            labels: 0,
            transitions_sent: 0,
            transitions_kept: 0,
            teachers: Vec::new(),
            workers: None,
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &OfflineConfig {
        &self.config
    }

    /// Everything but the data as a safetensors file, to go on from.
    ///
    /// # Errors
    /// Parameters that are not finite.
    pub fn save(&self) -> Result<Vec<u8>, TrainError> {
        checkpoint::save(&self.trainer, false, &Extra { teach: self.config.clone() })
    }

    /// Goes on where a checkpoint was saved. True if the data are those it was saved with: only then does it go on as if it
    /// had never stopped.
    ///
    /// # Errors
    /// A foreign or damaged file, or one of another network; nothing changes then.
    pub fn load(&mut self, file: &[u8]) -> Result<bool, TrainError> {
        let (opened, _) = checkpoint::open::<Extra>(&self.trainer, file)?;
        let same = opened.same_data(&self.trainer);
        opened.put(&mut self.trainer)?;
        Ok(same)
    }

    /// Begins with another run's networks and optimiser, see [`checkpoint::adopt`].
    ///
    /// # Errors
    /// As [`checkpoint::adopt`].
    pub fn adopt(&mut self, file: &[u8]) -> Result<Adopted, TrainError> {
        checkpoint::adopt(&mut self.trainer, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded::Seen;
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
        let (_, arrays) = trainer.trainer.replay().save();
        let array = |name: &str| arrays.iter().find(|(n, _)| *n == name).map(|(_, a)| a.clone()).unwrap();
        assert_eq!(array("replay.reward"), [2.0, 4.0, 4.0, 2.0, 4.0, 4.0]);
        assert_eq!(array("replay.discount"), [0.25, 0.0, 0.0, 0.25, 0.25, 0.5]);
        assert_eq!(array("replay.next_observation"), [2.0, 3.0, 3.0, 2.0, 3.0, 3.0]);
        assert_eq!(array("replay.action")[..3], [1.0, 0.0, -0.5], "from -1 to 1");
    }
}

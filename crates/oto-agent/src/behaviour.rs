//! Behaviour policies, which play the episodes of datasets: a student that learns in an environment, kept as it was at its best evaluations.
//!
//! A behaviour policy acts as the student explored: a stochastic policy samples its actions, and a share of discrete actions is random.
//! All randomness comes from the configuration's seed: same seed, same episodes.

use crate::checkpoint;
use crate::config::StudentConfig;
use crate::trainer::{TrainError, Trainer, in_units};
use oto_env::rng::Rng;
use oto_env::{Action, Environment, Space, Step};
use oto_graph::Backend;
use oto_rl::engine::LearnError;

/// The first seed of evaluation episodes, far from those of training.
const FIRST_SEED: u64 = 1 << 32;

/// One event of a training run, in the environment's units.
#[derive(Clone, Copy, Debug)]
pub enum Played<'a> {
    /// An episode begins.
    Reset {
        /// `[width]`.
        observation: &'a [f32],
        /// The seed of the environment's reset.
        seed: u64,
    },
    /// A step of the episode.
    Step {
        /// The action.
        action: Action<'a>,
        /// Reward and end.
        step: &'a Step,
        /// The observation after it, `[width]`.
        next_observation: &'a [f32],
    },
}

/// A policy at an evaluation that none before was better than.
pub struct Kept {
    /// Environment steps before it.
    pub step: u64,
    /// Mean return of the greedy evaluation episodes.
    pub mean: f64,
    epsilon: f64,
    checkpoint: Vec<u8>,
}

/// Trains a student to the end of its configuration, or to the evaluation whose mean return is `enough`. Episode i begins with seed
/// `seed + i`. Gives the policies of the best evaluations so far, in their order.
///
/// # Errors
/// A setting out of its range, spaces that do not fit, an environment that fails, a training that diverges, what `played` says.
pub fn train<E: From<TrainError>>(
    config: &StudentConfig,
    [environment, evaluation]: [&mut dyn Environment; 2],
    backend: &dyn Backend,
    mut played: impl FnMut(Played<'_>) -> Result<(), E>,
    enough: impl Fn(f64) -> bool,
) -> Result<Vec<Kept>, E> {
    let mut trainer =
        Trainer::new(config, environment.observation_space(), environment.action_space(), 0, backend)?;
    let mut observation = vec![0.0; environment.observation_space().width()];
    let mut kept = Vec::new();
    while trainer.steps() < config.steps {
        if !trainer.running() {
            let seed = config.seed.wrapping_add(trainer.episodes());
            environment.reset(Some(seed), &mut observation).map_err(TrainError::from)?;
            trainer.begin(&observation)?;
            played(Played::Reset { observation: &observation, seed })?;
        }
        trainer.act()?;
        let step = environment.step(trainer.action(), &mut observation).map_err(TrainError::from)?;
        played(Played::Step { action: trainer.action(), step: &step, next_observation: &observation })?;
        trainer.observe(step, &observation, |_, _| {})?;
        let every = config.evaluation.every.max(1);
        if trainer.steps().is_multiple_of(every) || trainer.steps() == config.steps {
            let seeds = (0..config.evaluation.episodes).map(|i| Some(FIRST_SEED + u64::from(i)));
            let returns = trainer.play(evaluation, seeds)?;
            let now = trainer.evaluated(&returns)?;
            if now.best {
                let checkpoint = checkpoint::save(&trainer, false, &String::new())?;
                let epsilon = explores(&trainer);
                kept.push(Kept { step: now.step, mean: now.mean, epsilon, checkpoint });
            }
            if enough(now.mean) {
                break;
            }
        }
    }
    Ok(kept)
}

/// The share of random actions beside the policy's own: none where a policy is stochastic itself.
fn explores(trainer: &Trainer) -> f64 {
    if matches!(trainer.space, Space::Discrete { .. }) { trainer.epsilon() } else { 0.0 }
}

/// A policy that plays.
pub struct Behaviour {
    trainer: Trainer,
    epsilon: f64,
    rng: Rng,
    action: Vec<f32>,
    units: Vec<f32>,
}

impl Behaviour {
    /// The student before its first update: random parameters.
    ///
    /// # Errors
    /// A setting out of its range, spaces that do not fit, the backend's failure.
    pub fn untrained(
        config: &StudentConfig,
        [observation, action]: [&Space; 2],
        backend: &dyn Backend,
    ) -> Result<Self, TrainError> {
        let trainer = Trainer::new(config, observation, action, 0, backend)?;
        let epsilon = explores(&trainer);
        Ok(Self::of(trainer, epsilon, config.seed))
    }

    /// A policy that was kept, for an environment with these spaces.
    ///
    /// # Errors
    /// Other spaces than those of its training, the backend's failure.
    pub fn kept(
        kept: &Kept,
        [observation, action]: [&Space; 2],
        seed: u64,
        backend: &dyn Backend,
    ) -> Result<Self, TrainError> {
        let trainer = checkpoint::player(&kept.checkpoint, observation, action, backend)?;
        Ok(Self::of(trainer, kept.epsilon, seed))
    }

    fn of(trainer: Trainer, epsilon: f64, seed: u64) -> Self {
        let width = trainer.action.len();
        Self { trainer, epsilon, rng: Rng::new(seed), action: vec![0.0; width], units: vec![0.0; width] }
    }

    /// An episode begins: the observations of [`Self::act`] are its steps, one after the other.
    pub fn begin(&mut self) {
        self.trainer.learner.begin_episode();
    }

    /// Adds an action for this observation to `row`, in the environment's units.
    ///
    /// # Errors
    /// An observation that is not finite, or of another width; a network whose answer is no action.
    pub fn act(&mut self, observation: &[f32], row: &mut Vec<f32>) -> Result<(), TrainError> {
        self.trainer.check(observation)?;
        let learner = &mut self.trainer.learner;
        learner.explore(observation, self.epsilon, &mut self.rng, &mut self.action);
        if !learner.takes(&self.action) {
            return Err(LearnError::NoAction.into());
        }
        learner.stepped(observation);
        match in_units(&self.trainer.space, &self.action, &mut self.units) {
            Action::Discrete(index) => row.push(index as f32),
            Action::Continuous(values) => row.extend_from_slice(values),
        }
        Ok(())
    }

    /// The mean return of uniformly random actions in `episodes` episodes, whose seeds begin at `seed`.
    ///
    /// # Errors
    /// An environment that fails, or has other spaces.
    pub fn random_return(
        &mut self,
        environment: &mut dyn Environment,
        seed: u64,
        episodes: u32,
    ) -> Result<f64, TrainError> {
        let Self { trainer, rng, action, units, .. } = self;
        let actions = trainer.learner.actions();
        let returns = crate::evaluation::returns(
            environment,
            seed..seed + u64::from(episodes),
            |environment, observation| {
                actions.random(rng, action);
                Ok::<_, TrainError>(environment.step(in_units(&trainer.space, action, units), observation)?)
            },
        )?;
        Ok(returns.iter().sum::<f64>() / returns.len() as f64)
    }

    /// The mean return of the policy without exploration, in the same way.
    ///
    /// # Errors
    /// As [`Self::random_return`], and a network whose answer is no action.
    pub fn greedy_return(
        &mut self,
        environment: &mut dyn Environment,
        seed: u64,
        episodes: u32,
    ) -> Result<f64, TrainError> {
        let returns = self.trainer.play(environment, (seed..seed + u64::from(episodes)).map(Some))?;
        Ok(returns.iter().sum::<f64>() / returns.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EvaluationConfig, Linear};
    use crate::stage::StagesConfig;
    use oto_cpu::Cpu;
    use oto_env::make;
    use oto_rl::algorithms::sac::SacConfig;

    fn config(steps: u64) -> StudentConfig {
        let sac = SacConfig { hidden: vec![16], batch_size: 16, ..SacConfig::default() };
        StudentConfig {
            seed: 3,
            steps,
            algorithm: sac.into(),
            epsilon: Linear { start: 1.0, end: 0.0, steps: 100 },
            evaluation: EvaluationConfig { every: 100, episodes: 2 },
            stages: StagesConfig::SOLO,
            ..StudentConfig::default()
        }
    }

    fn run(enough: f64) -> (Vec<Kept>, Vec<u64>, usize) {
        let (mut environment, mut evaluation) = (make("Pendulum-v1").unwrap(), make("Pendulum-v1").unwrap());
        let (mut seeds, mut steps) = (Vec::new(), 0);
        let played = |played: Played<'_>| {
            match played {
                Played::Reset { seed, .. } => seeds.push(seed),
                Played::Step { .. } => steps += 1,
            }
            Ok::<_, TrainError>(())
        };
        let kept =
            train(&config(450), [&mut *environment, &mut *evaluation], &Cpu, played, |mean| mean >= enough);
        (kept.unwrap(), seeds, steps)
    }

    #[test]
    fn a_policy_is_kept_at_each_evaluation_that_none_before_was_better_than() {
        let (kept, seeds, steps) = run(f64::INFINITY);
        assert_eq!((seeds, steps), (vec![3, 4, 5], 450));
        assert!(kept.windows(2).all(|two| two[0].mean <= two[1].mean && two[0].step < two[1].step));
        let (again, ..) = run(f64::INFINITY);
        assert!(kept.iter().zip(&again).all(|(a, b)| a.checkpoint == b.checkpoint));
        let (first, _, steps) = run(f64::NEG_INFINITY);
        assert_eq!((first.len(), steps), (1, 100), "it ends at the first evaluation that is enough");

        // Its actions are those of a stochastic policy, and of its seed.
        let environment = make("Pendulum-v1").unwrap();
        let spaces = [environment.observation_space(), environment.action_space()];
        let actions = |seed| {
            let mut behaviour = Behaviour::kept(&kept[0], spaces, seed, &Cpu).unwrap();
            let mut row = Vec::new();
            (0..2).for_each(|_| behaviour.act(&[0.1, 0.9, 0.2], &mut row).unwrap());
            row
        };
        assert!(actions(1) == actions(1) && actions(1) != actions(2) && actions(1)[0] != actions(1)[1]);
        let mut untrained = Behaviour::untrained(&config(1), spaces, &Cpu).unwrap();
        assert!(untrained.act(&[f32::NAN, 0.0, 0.0], &mut Vec::new()).is_err());
        assert!(untrained.act(&[0.1, 0.9, 0.2], &mut Vec::new()).is_ok());
    }
}

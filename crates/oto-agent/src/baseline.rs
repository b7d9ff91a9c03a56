//! What others return in the very episodes of a student's evaluations. Where episodes differ more than policies do, as in
//! cell selection, a curve says little without.

use crate::student::evaluation_seed;
use oto_env::mobile_cell::{Radio, Reception, Rule, best_plan};
use oto_env::rng::Rng;
use oto_env::{Action, ClassicEnvironment, EnvError, make_classic};

/// What somebody returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    /// Who.
    pub name: &'static str,
    /// The mean return.
    pub mean: f64,
}

oto_json::json_object! { Baseline: written { name, mean } }

/// Plays along with the evaluations of a student that was made with the same seed.
///
/// In cell selection the device walks the same way whatever it is connected to, so that the student's evaluation
/// environment goes on from where this one does.
pub struct Baselines {
    environment: Box<dyn ClassicEnvironment>,
    observation: Vec<f32>,
    seed: Option<u64>,
}

impl Baselines {
    /// For a student with this seed; only cell selection has baselines.
    pub fn of(environment: &str, seed: u64) -> Option<Self> {
        Radio::of(environment).ok()?;
        let environment = make_classic(environment).ok()?;
        let observation = vec![0.0; environment.observation_space().width()];
        Some(Self { environment, observation, seed: Some(evaluation_seed(seed)) })
    }

    /// Mean returns over the next evaluation's episodes: of the strongest station, which is cell selection as it is done,
    /// and of the best plan, above which nobody can be.
    ///
    /// # Errors
    /// None that a built-in environment has in its own episodes.
    pub fn next(&mut self, episodes: u32) -> Result<[Baseline; 2], EnvError> {
        let (mut strongest, mut plan) = (0.0, 0.0);
        for _ in 0..episodes {
            self.environment.reset(self.seed.take(), &mut self.observation)?;
            plan += best_plan(&mut *self.environment)?.value;
            strongest += self.play(Rule::Lte)?;
        }
        let mean = |sum: f64| sum / f64::from(episodes.max(1));
        Ok([
            Baseline { name: "strongest station", mean: mean(strongest) },
            Baseline { name: "best plan", mean: mean(plan) },
        ])
    }

    /// Plays the episode that has begun to its end.
    fn play(&mut self, rule: Rule) -> Result<f64, EnvError> {
        // Only one rule draws, and it is not among these.
        let mut rng = Rng::new(0);
        let mut score = 0.0;
        loop {
            let action = rule.action(&Reception::of(&*self.environment)?, &mut rng);
            let step = self.environment.step(Action::Discrete(action), &mut self.observation)?;
            score += step.reward;
            if step.done() {
                return Ok(score);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;
    use crate::student::{Environments, Student};
    use oto_env::{Environment, Snapshot, Space, Step};

    const ID: &str = "MobileCell-5G-v0";

    /// Cell selection that does what the rule says, whatever is asked for.
    struct Ruled(Box<dyn ClassicEnvironment>);

    impl Environment for Ruled {
        fn id(&self) -> &str {
            self.0.id()
        }
        fn observation_space(&self) -> &Space {
            self.0.observation_space()
        }
        fn action_space(&self) -> &Space {
            self.0.action_space()
        }
        fn max_episode_steps(&self) -> Option<u32> {
            self.0.max_episode_steps()
        }
        fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError> {
            self.0.reset(seed, observation)
        }
        fn step(&mut self, _: Action<'_>, observation: &mut [f32]) -> Result<Step, EnvError> {
            let action = Rule::Lte.action(&Reception::of(&*self.0)?, &mut Rng::new(0));
            self.0.step(Action::Discrete(action), observation)
        }
        fn save(&self) -> Result<Snapshot, EnvError> {
            self.0.save()
        }
        fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
            self.0.restore(snapshot)
        }
    }

    /// A student that acts as a baseline returns what the baseline says, evaluation by evaluation.
    #[test]
    fn baselines_play_the_episodes_of_the_evaluations() {
        let config = presets::student(ID);
        let evaluate = Box::new(Ruled(make_classic(ID).unwrap()));
        let environment =
            Environments::Inside { train: oto_env::make(ID).unwrap(), evaluate: Some(evaluate) };
        let mut student = Student::new(&config, environment, &[], &oto_cpu::Cpu, 0).unwrap();
        let mut baselines = Baselines::of(ID, config.seed).unwrap();
        for episodes in [3, 2, 1] {
            let [strongest, plan] = baselines.next(episodes).unwrap();
            let mean = student.evaluate(episodes).unwrap();
            assert!((mean - strongest.mean).abs() < 1e-9, "{mean} {strongest:?}");
            assert!(plan.mean > strongest.mean);
        }
    }

    #[test]
    fn other_environments_have_none() {
        assert!(Baselines::of("CartPole-v1", 0).is_none());
    }
}

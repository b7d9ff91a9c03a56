//! Datasets of D4RL's levels ([`Level`]) for any environment: a student is trained, and its policies play.
//!
//! - The expert is the policy of the best greedy evaluation of the whole training; the medium policy is that of the first evaluation with a third
//!   of the expert's score. Scores lie between reference returns, which are given, or are measured with this run's own expert.
//! - The episodes of a policy are as it explores: sampled actions of a stochastic policy, a share of random discrete actions.
//! - Same plan, same dataset. Training, evaluations, episodes and references have seeds far from one another.

use crate::behaviour::{Behaviour, Kept, Played, train};
use crate::config::{EvaluationConfig, StudentConfig};
use crate::presets::{Seen, preset};
use crate::stage::StagesConfig;
use crate::trainer::TrainError;
use oto_data::{Collect, DataError, Dataset, Level, Metadata, Recorder, Reference, collect};
use oto_env::{EnvError, Environment};
use oto_graph::Backend;
use oto_rl::algorithms;

/// The first seed of the episodes of a policy: training uses those from 0, evaluations those from 2^32.
const FIRST_SEED: u64 = 1 << 33;
/// The first seed of the episodes of the reference returns.
const REFERENCE_SEED: u64 = 1 << 34;

/// A dataset to be made.
pub struct Plan<'a> {
    /// The environment's name, for the dataset's metadata.
    pub environment: &'a str,
    /// Makes the environment.
    pub make: &'a dyn Fn() -> Result<Box<dyn Environment>, EnvError>,
    /// Runs the updates.
    pub backend: &'a dyn Backend,
    /// The level.
    pub level: Level,
    /// The training: its seed, its steps, its evaluations.
    pub student: StudentConfig,
    /// Least number of steps of each policy.
    pub steps: usize,
    /// The reference returns; none: those of this run.
    pub reference: Option<Reference>,
    /// The dataset's name; none: the environment and the level.
    pub id: Option<String>,
    /// What a dataset of Gymnasium's environments has: its specification, and the number of the first discrete action.
    pub specification: (Option<String>, i64),
}

/// Why a level could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// No policy was good enough.
    #[error(
        "no evaluation of {steps} training steps reached a third of the expert's score ({needed}), the best was {best}: more training steps, \
         another seed or other reference returns are needed"
    )]
    NoMedium {
        /// Steps of the training.
        steps: u64,
        /// The return of a medium policy.
        needed: f64,
        /// The best mean return.
        best: f64,
    },
    /// The best policy is no better than random actions.
    #[error(
        "the best policy of the training returns {expert} and random actions {random}: there is no expert"
    )]
    NoExpert {
        /// Mean return of random actions.
        random: f64,
        /// Mean return of the best policy.
        expert: f64,
    },
    /// The training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The dataset.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The environment.
    #[error(transparent)]
    Environment(#[from] EnvError),
}

/// The training of an expert: 300,000 steps and an evaluation every 5,000 for environments of other libraries, of MuJoCo's bodies above all;
/// 50,000 steps for discrete actions and 20,000 for others, with an evaluation every 500.
pub fn student(id: &str, seen: Seen, of_a_library: bool, seed: u64) -> StudentConfig {
    let algorithm = algorithms::usual(algorithms::online(), seen);
    let (steps, every) = match (of_a_library, seen.continuous) {
        (true, _) => (300_000, 5_000),
        (false, false) => (50_000, 500),
        (false, true) => (20_000, 500),
    };
    StudentConfig {
        seed,
        steps,
        stages: StagesConfig::SOLO,
        plateau_decay: None,
        evaluation: EvaluationConfig { every, episodes: 10 },
        ..preset(id, seen, Some(algorithm)).student
    }
}

/// Makes the dataset; `progress` gets "train" or "play", and the number of its steps so far.
///
/// # Errors
/// [`LevelError`]; no dataset is made then.
pub fn make(plan: &Plan<'_>, progress: impl FnMut(&'static str, u64)) -> Result<Dataset, LevelError> {
    Run { plan, environment: (plan.make)()?, progress }.level()
}

struct Run<'p, 'a, P> {
    plan: &'p Plan<'a>,
    environment: Box<dyn Environment>,
    progress: P,
}

impl<P: FnMut(&'static str, u64)> Run<'_, '_, P> {
    fn level(&mut self) -> Result<Dataset, LevelError> {
        let (level, given) = (self.plan.level, self.plan.reference);
        if level == Level::Random {
            let spaces = [self.environment.observation_space(), self.environment.action_space()];
            let policy = Behaviour::untrained(&self.plan.student, spaces, self.plan.backend)?;
            return self.played(policy, given, "parameters before the first update");
        }
        let to_the_end = matches!(level, Level::Expert | Level::MediumExpert);
        let (kept, mut replay) = self.train(given.filter(|_| !to_the_end))?;
        let Some(best) = kept.last() else { return Err(DataError::Empty.into()) };
        let reference = match given {
            Some(reference) => reference,
            None => self.measured(best)?,
        };
        let needed = reference.random + Level::MEDIUM * (reference.expert - reference.random);
        let steps = self.plan.student.steps;
        let medium = kept.iter().find(|one| one.mean >= needed);
        let medium = medium.ok_or(LevelError::NoMedium { steps, needed, best: best.mean });
        let reference = Some(reference);
        Ok(match level {
            Level::MediumReplay => {
                let medium = medium?;
                let said = format!("every step of the training up to the medium policy, {}", told(medium));
                replay.cut_after(usize::try_from(medium.step).unwrap_or(usize::MAX));
                replay.metadata = self.metadata(reference, &said);
                replay
            }
            Level::Medium => self.of(medium?, reference)?,
            Level::MediumExpert => {
                let medium = medium?;
                let mut both = self.of(medium, reference)?;
                both.episodes.extend(self.of(best, reference)?.episodes);
                both.metadata = self.metadata(reference, &format!("{}; then {}", told(medium), told(best)));
                both
            }
            Level::Expert | Level::Random => self.of(best, reference)?,
        })
    }

    /// Trains, to the end or to a medium score; gives the best policies and every step.
    fn train(&mut self, stop: Option<Reference>) -> Result<(Vec<Kept>, Dataset), LevelError> {
        let mut evaluation = (self.plan.make)()?;
        let (observation, action) =
            (self.environment.observation_space().clone(), self.environment.action_space().clone());
        let mut recorder = Recorder::new(observation, action, Metadata::default());
        let progress = &mut self.progress;
        let played = |played: Played<'_>| -> Result<(), LevelError> {
            match played {
                Played::Reset { observation, seed } => recorder.reset(observation, Some(seed)),
                Played::Step { action, step, next_observation } => {
                    recorder.step(action, step, next_observation)?;
                    progress("train", recorder.len() as u64);
                }
            }
            Ok(())
        };
        let enough = |mean| stop.is_some_and(|reference| reference.score(mean) >= Level::MEDIUM);
        let environments: [&mut dyn Environment; 2] = [&mut *self.environment, &mut *evaluation];
        let kept = train(&self.plan.student, environments, self.plan.backend, played, enough)?;
        Ok((kept, recorder.finish()?))
    }

    fn kept(&self, kept: &Kept) -> Result<Behaviour, TrainError> {
        let spaces = [self.environment.observation_space(), self.environment.action_space()];
        Behaviour::kept(kept, spaces, self.plan.student.seed, self.plan.backend)
    }

    /// The episodes of a policy that was kept.
    fn of(&mut self, kept: &Kept, reference: Option<Reference>) -> Result<Dataset, LevelError> {
        let policy = self.kept(kept)?;
        self.played(policy, reference, &told(kept))
    }

    fn played(
        &mut self,
        mut policy: Behaviour,
        reference: Option<Reference>,
        said: &str,
    ) -> Result<Dataset, LevelError> {
        let metadata = self.metadata(reference, said);
        let seed = FIRST_SEED + self.plan.student.seed;
        let how = Collect { steps: self.plan.steps, seed, epsilon: 0.0, noise: 0.0 };
        let act = |begins: bool, observation: &[f32], row: &mut Vec<f32>| {
            if begins {
                policy.begin();
            }
            Ok::<_, LevelError>(policy.act(observation, row)?)
        };
        let progress = &mut self.progress;
        collect(&mut *self.environment, &how, metadata, act, |done| progress("play", done as u64))
    }

    /// The references where none are known: 100 episodes of uniformly random actions, and of the best policy.
    fn measured(&mut self, best: &Kept) -> Result<Reference, LevelError> {
        let mut policy = self.kept(best)?;
        let random = policy.random_return(&mut *self.environment, REFERENCE_SEED, Reference::EPISODES)?;
        let expert = policy.greedy_return(&mut *self.environment, REFERENCE_SEED, Reference::EPISODES)?;
        Reference { random, expert }.checked().ok_or(LevelError::NoExpert { random, expert })
    }

    fn metadata(&self, reference: Option<Reference>, said: &str) -> Metadata {
        let Plan { environment, level, student, specification: (spec, start), .. } = self.plan;
        let (level, seed, algorithm) = (level.name(), student.seed, student.algorithm.name());
        let id = environment.rsplit(':').next().unwrap_or(environment);
        let id = id.split('?').next().unwrap_or(id);
        let name = id.rsplit_once("-v").map_or(id, |(name, _)| name);
        let word = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect::<String>();
        Metadata {
            id: Some(self.plan.id.clone().unwrap_or_else(|| format!("{word}/{level}-v0"))),
            environment: Some((*environment).into()),
            algorithm: Some(format!("oto {algorithm}")),
            description: Some(format!(
                "{level} in {environment}: {algorithm} with seed {seed}, {said}. Actions are as the policy explores."
            )),
            spec: spec.clone(),
            starts: [0, *start],
            reference,
            ..Metadata::default()
        }
    }
}

fn told(kept: &Kept) -> String {
    format!("the policy of training step {}, greedy return {:.1}", kept.step, kept.mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_cpu::Cpu;
    use oto_data::write_folder;
    use oto_rl::algorithms::sac::SacConfig;

    const REFERENCE: Reference = Reference { random: -1600.0, expert: -1000.0 };

    fn plan(level: Level, reference: Option<Reference>) -> Plan<'static> {
        let student = student("Pendulum-v1", Seen { continuous: true, images: None }, false, 5);
        let algorithm = student.algorithm.clone();
        let small = |one: &mut SacConfig| (one.hidden, one.batch_size) = (vec![16], 16);
        Plan {
            environment: "Pendulum-v1",
            make: &|| oto_env::make("Pendulum-v1"),
            backend: &Cpu,
            level,
            student: StudentConfig { steps: 1500, algorithm: algorithm.with(small), ..student },
            steps: 300,
            reference,
            id: None,
            specification: (None, 0),
        }
    }

    /// The same seed gives the same bytes, whatever the level; a replay ends where the medium policy is.
    #[test]
    fn levels_are_of_one_training_and_reproducible() {
        let mut lengths = Vec::new();
        for level in Level::ALL {
            let [one, two] = ["one", "two"].map(|name| {
                let made = make(&plan(level, Some(REFERENCE)), |_, _| {}).unwrap();
                let folder = std::env::temp_dir().join(format!("oto-level-{}-{name}", std::process::id()));
                let _ = std::fs::remove_dir_all(&folder);
                write_folder(&made, &folder).unwrap();
                let files = ["main_data.hdf5", "metadata.json"];
                let bytes = files.map(|file| std::fs::read(folder.join("data").join(file)).unwrap());
                let read = oto_data::read_file(&folder).unwrap();
                std::fs::remove_dir_all(&folder).unwrap();
                assert_eq!(read.metadata.reference, Some(REFERENCE));
                assert_eq!(read.metadata.id, Some(format!("Pendulum/{}-v0", level.name())));
                assert_eq!(read.episodes.len(), made.episodes.len());
                (bytes, read.len())
            });
            assert!(one == two, "{level:?}");
            lengths.push(one.1);
        }
        let replay = lengths.remove(2);
        assert!(replay.is_multiple_of(500) && (500..=1500).contains(&replay), "{replay}");
        assert_eq!(lengths, [400, 400, 800, 400]);
    }

    #[test]
    fn references_are_measured_where_none_are_known() {
        let mut phases = Vec::new();
        let made = make(&plan(Level::Expert, None), |phase, _| phases.push(phase));
        phases.dedup();
        match made {
            Ok(made) => {
                let reference = made.metadata.reference.unwrap();
                assert!(reference.random < reference.expert && (-1600.0..-900.0).contains(&reference.random));
                assert_eq!(phases, ["train", "play"]);
            }
            // So short a training may be no better than random actions.
            Err(error) => assert!(matches!(error, LevelError::NoExpert { .. }), "{error}"),
        }
    }

    #[test]
    fn a_level_that_no_policy_reaches_is_refused() {
        let error = make(&plan(Level::Medium, Some(Reference { random: 0.0, expert: 10.0 })), |_, _| {});
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("a third of the expert's score (3.33") && error.contains("more training steps"),
            "{error}"
        );
        let nowhere = Plan { make: &|| oto_env::make("Go-v0"), ..plan(Level::Random, None) };
        assert!(make(&nowhere, |_, _| {}).unwrap_err().to_string().contains("Go-v0"));
    }
}

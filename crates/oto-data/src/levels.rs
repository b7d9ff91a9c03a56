//! Levels of datasets, and scores between reference returns, as D4RL defines both ("D4RL: Datasets for Deep Data-Driven Reinforcement
//! Learning", Fu et al. 2020, sections 4 and 5).

/// A level: which policy plays a dataset's episodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A policy with random parameters.
    Random,
    /// A policy that was trained to a third of the expert's score.
    Medium,
    /// The replay buffer of that training.
    MediumReplay,
    /// Half the episodes of the medium policy, half of the expert.
    MediumExpert,
    /// A policy that was trained to the end.
    Expert,
}

impl Level {
    /// The normalised score of a medium policy, at least.
    pub const MEDIUM: f64 = 1.0 / 3.0;
    /// All levels.
    pub const ALL: [Self; 5] =
        [Self::Random, Self::Medium, Self::MediumReplay, Self::MediumExpert, Self::Expert];

    /// Its name on command lines and in the names of datasets.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Medium => "medium",
            Self::MediumReplay => "medium-replay",
            Self::MediumExpert => "medium-expert",
            Self::Expert => "expert",
        }
    }
}

/// The mean returns of an environment's random policy and of its expert.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reference {
    /// Uniformly random actions.
    pub random: f64,
    /// An expert.
    pub expert: f64,
}

impl Reference {
    /// Episodes that each of the two is a mean of.
    pub const EPISODES: u32 = 100;

    /// The same if a score can be normalised by it: finite returns, the expert's above the other.
    pub fn checked(self) -> Option<Self> {
        let good = self.random.is_finite() && self.expert.is_finite() && self.expert > self.random;
        (good && (self.expert - self.random).is_finite()).then_some(self)
    }

    /// A return's normalised score: 0 is a random policy's, 1 the expert's.
    pub fn score(self, mean_return: f64) -> f64 {
        (mean_return - self.random) / (self.expert - self.random)
    }

    /// The references of an environment whose ID has this name before its version, where they are known: means of 100 episodes, of
    /// uniformly random actions in Gymnasium 1.4.0 and of the bundled teachers `sac_pendulum_v1` and `ppo_cartpole_v1`.
    pub fn of(environment: &str) -> Option<Self> {
        Self::among(KNOWN, environment)
    }

    /// D4RL's own references (`d4rl/infos.py`): of an older simulator's bodies, and of other experts.
    pub fn of_d4rl(environment: &str) -> Option<Self> {
        Self::among(D4RL, environment)
    }

    fn among(known: &[(&str, f64, f64)], environment: &str) -> Option<Self> {
        let id = environment.rsplit(':').next()?;
        let (_, random, expert) = known.iter().find(|(name, ..)| id.split('-').next() == Some(name))?;
        Some(Self { random: *random, expert: *expert })
    }
}

const KNOWN: &[(&str, f64, f64)] = &[("Pendulum", -1166.4, -145.3), ("CartPole", 21.4, 500.0)];

const D4RL: &[(&str, f64, f64)] =
    &[("HalfCheetah", -280.178953, 12135.0), ("Hopper", -20.272305, 3234.3), ("Walker2d", 1.629008, 4592.3)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_lie_between_the_references() {
        let reference = Reference { random: -20.0, expert: 180.0 };
        assert_eq!([-20.0, 80.0, 180.0, 380.0].map(|x| reference.score(x)), [0.0, 0.5, 1.0, 2.0]);
        assert_eq!(reference.checked(), Some(reference));
        for (random, expert) in
            [(1.0, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY), (f64::MIN, f64::MAX)]
        {
            assert_eq!(Reference { random, expert }.checked(), None);
        }
        assert!(KNOWN.iter().chain(D4RL).all(|(_, random, expert)| {
            Reference { random: *random, expert: *expert }.checked().is_some()
        }));
        assert!(Reference::of("Pendulum-v1").is_some() && Reference::of("Pendulums-v1").is_none());
        assert!(Reference::of_d4rl("mujoco:Hopper-v5").is_some_and(|hopper| hopper.expert == 3234.3));
    }
}

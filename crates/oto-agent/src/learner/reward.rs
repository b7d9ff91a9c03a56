//! Reward functions that a learner computes from what its edge sends: the state, the action, the next state, and whether the episode
//! terminated. A configuration names one.

/// A step as a reward function sees it. Actions are in the environment's units; a discrete one is its index.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The observation before the action.
    pub observation: &'a [f32],
    /// The action.
    pub action: &'a [f32],
    /// The observation after it.
    pub next_observation: &'a [f32],
    /// Whether the episode terminated there.
    pub terminated: bool,
}

/// A named reward function.
pub struct Reward {
    /// Its name in configurations.
    pub name: &'static str,
    /// Its formula, in a sentence.
    pub title: &'static str,
    /// Numbers of an observation and of an action that it reads.
    pub widths: [usize; 2],
    /// The function.
    pub of: fn(Step<'_>) -> f64,
}

/// Every reward function.
pub static REWARDS: &[Reward] = &[
    Reward {
        name: "cartpole_swing_up",
        title: "exp(-5 d) - 0.1 a^2 - 20 on termination, with d the distance from the pole's tip to its target before the step",
        widths: [10, 1],
        of: cartpole_swing_up,
    },
    Reward {
        name: "pendulum",
        title: "-(angle^2 + 0.1 velocity^2 + 0.001 torque^2), of the state before the step",
        widths: [3, 1],
        of: pendulum,
    },
    Reward { name: "cartpole", title: "1 for each step", widths: [4, 1], of: |_| 1.0 },
    Reward {
        name: "inverted_pendulum",
        title: "1 for each step, 0 on termination",
        widths: [4, 1],
        of: |step| if step.terminated { 0.0 } else { 1.0 },
    },
    Reward {
        name: "acrobot",
        title: "-1 for each step, 0 on termination",
        widths: [6, 1],
        of: |step| if step.terminated { 0.0 } else { -1.0 },
    },
    Reward { name: "mountain_car", title: "-1 for each step", widths: [2, 1], of: |_| -1.0 },
    Reward {
        name: "mountain_car_continuous",
        title: "100 on termination, less 0.1 a^2",
        widths: [2, 1],
        of: |step| (if step.terminated { 100.0 } else { 0.0 }) - 0.1 * square(step.action[0].into()),
    },
];

/// Why a reward function cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewardError {
    /// No function of this name.
    #[error("reward is {got:?}: expected one of {}", names())]
    Unknown {
        /// The name that came.
        got: String,
    },
    /// Spaces of another environment.
    #[error(
        "reward {name}: expected observations of {} and actions of {} numbers, got {} and {}",
        .expected[0], .expected[1], .got[0], .got[1]
    )]
    Widths {
        /// The function.
        name: &'static str,
        /// Numbers of an observation and an action that it reads.
        expected: [usize; 2],
        /// Numbers that there are.
        got: [usize; 2],
    },
}

/// The reward function of this name, for observations and actions of these widths.
///
/// # Errors
/// An unknown name, or other widths than it reads.
pub fn find(name: &str, widths: [usize; 2]) -> Result<&'static Reward, RewardError> {
    let found = REWARDS.iter().find(|reward| reward.name == name);
    let reward = found.ok_or_else(|| RewardError::Unknown { got: name.chars().take(64).collect() })?;
    match reward.widths == widths {
        true => Ok(reward),
        false => Err(RewardError::Widths { name: reward.name, expected: reward.widths, got: widths }),
    }
}

fn names() -> String {
    REWARDS.iter().map(|reward| reward.name).collect::<Vec<_>>().join(", ")
}

fn square(x: f64) -> f64 {
    x * x
}

/// Cao et al. 2022, eq. 9, for observations `x, x', sin, cos, angular velocity, the last five actions`.
fn cartpole_swing_up(step: Step<'_>) -> f64 {
    const LENGTH: f64 = 0.64;
    let [x, _, sin, cos] = [0, 1, 2, 3].map(|i| f64::from(step.observation[i]));
    let (dx, dy) = (x + LENGTH * sin, LENGTH * cos - LENGTH);
    let distance = (dx * dx + dy * dy).sqrt();
    let action = f64::from(step.action[0]).clamp(-1.0, 1.0);
    (-5.0 * distance).exp() - 0.1 * square(action) - if step.terminated { 20.0 } else { 0.0 }
}

fn pendulum(step: Step<'_>) -> f64 {
    let [cos, sin, velocity] = [0, 1, 2].map(|i| f64::from(step.observation[i]));
    let torque = f64::from(step.action[0]).clamp(-2.0, 2.0);
    -(square(sin.atan2(cos)) + 0.1 * square(velocity) + 0.001 * square(torque))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_env::{Action, Space, rng::Rng};

    /// What a learner computes is what the environment gives.
    #[test]
    fn rewards_are_the_environments() {
        for (id, name) in [
            ("Pendulum-v1", "pendulum"),
            ("CartPole-v1", "cartpole"),
            ("InvertedPendulum-v5", "inverted_pendulum"),
            ("Acrobot-v1", "acrobot"),
            ("MountainCar-v0", "mountain_car"),
            ("MountainCarContinuous-v0", "mountain_car_continuous"),
        ] {
            let mut env = oto_env::make(id).unwrap();
            let (observes, acts) = (env.observation_space().clone(), env.action_space().clone());
            let reward = find(name, [observes.width(), acts.width()]).unwrap();
            let mut rng = Rng::new(3);
            let mut observation = vec![0.0; observes.width()];
            env.reset(Some(5), &mut observation).unwrap();
            for _ in 0..2_000 {
                let before = observation.clone();
                let numbers = match &acts {
                    Space::Discrete { n } => vec![rng.below(*n) as f32],
                    Space::Box { low, high } => {
                        let ranges = low.iter().zip(high);
                        ranges.map(|(low, high)| rng.uniform((*low).into(), (*high).into()) as f32).collect()
                    }
                };
                let action = match &acts {
                    Space::Discrete { .. } => Action::Discrete(numbers[0] as u32),
                    Space::Box { .. } => Action::Continuous(&numbers),
                };
                let step = env.step(action, &mut observation).unwrap();
                let found = (reward.of)(Step {
                    observation: &before,
                    action: &numbers,
                    next_observation: &observation,
                    terminated: step.terminated,
                });
                assert!((found - step.reward).abs() < 1e-4, "{id}: {found}, expected {}", step.reward);
                if step.done() {
                    env.reset(None, &mut observation).unwrap();
                }
            }
        }
    }

    #[test]
    fn the_swing_up_pays_for_the_tip_at_its_target() {
        let of = |observation: [f32; 4], action: f32, terminated: bool| {
            let all = [&observation[..], &[0.0; 6]].concat();
            let step = Step { observation: &all, action: &[action], next_observation: &all, terminated };
            (find("cartpole_swing_up", [10, 1]).unwrap().of)(step)
        };
        assert_eq!(of([0.0, 1.0, 0.0, 1.0], 0.0, false), 1.0);
        assert!((of([0.0, 0.0, 0.0, -1.0], 0.0, false) - (-6.4f64).exp()).abs() < 1e-9);
        assert!((of([0.0, 0.0, 0.0, 1.0], 3.0, true) - (1.0 - 0.1 - 20.0)).abs() < 1e-9);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = find("swing", [3, 1]).err().unwrap().to_string();
        assert!(
            error.starts_with("reward is \"swing\": expected one of cartpole_swing_up, pendulum"),
            "{error}"
        );
        let error = find("pendulum", [4, 1]).err().unwrap().to_string();
        assert!(error.contains("observations of 3 and actions of 1 numbers, got 4 and 1"), "{error}");
    }
}

//! Playing a policy to record it, with some exploration on top.

use crate::{DataError, Dataset, Metadata, Recorder};
use oto_env::rng::Rng;
use oto_env::{Action, Environment, Space};

/// What is played, and how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Collect {
    /// At least so many steps: the last episode is played to its end, if its environment has a time limit.
    pub steps: usize,
    /// The first episode's seed; the next ones count on. Exploration is drawn from it as well.
    pub seed: u64,
    /// The probability of a uniformly random action instead of the policy's.
    pub epsilon: f64,
    /// The standard deviation of normal noise that is added to each component of a continuous action, in the
    /// environment's units; the sum is cut to the action's range.
    pub noise: f64,
}

/// Plays episodes and records them. `policy` gets an observation `[observation width]` and leaves its action
/// `[action width]` in the buffer, an index as a number if it is discrete; `progress` is told the number of steps so far.
///
/// # Errors
/// If exploration does not fit the actions, or the environment or the policy refuses.
pub fn collect<E: From<DataError>>(
    environment: &mut dyn Environment,
    options: &Collect,
    metadata: Metadata,
    mut policy: impl FnMut(bool, &[f32], &mut Vec<f32>) -> Result<(), E>,
    mut progress: impl FnMut(usize),
) -> Result<Dataset, E> {
    check_exploration(options, environment.action_space())?;
    let space = environment.action_space().clone();
    let limited = environment.max_episode_steps().is_some();
    let mut recorder = Recorder::new(environment.observation_space().clone(), space.clone(), metadata);
    let mut rng = Rng::new(options.seed);
    let mut observation = vec![0.0; environment.observation_space().width()];
    let mut row = Vec::new();
    for episode in 0.. {
        let seed = options.seed.wrapping_add(episode);
        environment.reset(Some(seed), &mut observation).map_err(DataError::from)?;
        recorder.reset(&observation, Some(seed));
        let mut begins = true;
        loop {
            row.clear();
            policy(begins, &observation, &mut row)?;
            begins = false;
            explore(&mut row, options, &space, &mut rng);
            let action = match space {
                Space::Discrete { .. } => Action::Discrete(row.first().map_or(0, |&index| index as u32)),
                Space::Box { .. } => Action::Continuous(&row),
            };
            let step = environment.step(action, &mut observation).map_err(DataError::from)?;
            recorder.step(action, &step, &observation)?;
            progress(recorder.len());
            if step.done() || !limited && recorder.len() >= options.steps {
                break;
            }
        }
        if recorder.len() >= options.steps {
            break;
        }
    }
    Ok(recorder.finish()?)
}

fn check_exploration(options: &Collect, space: &Space) -> Result<(), DataError> {
    let Collect { epsilon, noise, .. } = options;
    let refuse = |sentence: String| Err(DataError::Exploration(sentence));
    if !(0.0..=1.0).contains(epsilon) {
        return refuse(format!("expected a probability for epsilon, got {epsilon}"));
    }
    if !(noise.is_finite() && *noise >= 0.0) {
        return refuse(format!("expected a standard deviation of at least 0 for noise, got {noise}"));
    }
    match space {
        Space::Discrete { .. } if *noise > 0.0 => {
            refuse("noise is for continuous actions, these are choices: use epsilon".into())
        }
        Space::Box { low, high }
            if *epsilon > 0.0 && low.iter().chain(high).any(|bound| bound.is_infinite()) =>
        {
            refuse("epsilon draws from the range of actions, these have none: use noise".into())
        }
        _ => Ok(()),
    }
}

/// Changes the policy's action; the result lies in `space` if it has the right length.
fn explore(row: &mut [f32], options: &Collect, space: &Space, rng: &mut Rng) {
    let random = options.epsilon > 0.0 && rng.f64() < options.epsilon;
    match space {
        Space::Discrete { n } => {
            if random {
                row.iter_mut().for_each(|index| *index = rng.below(*n) as f32);
            }
        }
        Space::Box { low, high } => {
            for (number, (&low, &high)) in row.iter_mut().zip(low.iter().zip(high)) {
                if random {
                    *number = rng.uniform(low.into(), high.into()) as f32;
                } else if options.noise > 0.0 {
                    *number += (options.noise * rng.normal()) as f32;
                }
                *number = number.max(low).min(high);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Collect = Collect { steps: 300, seed: 5, epsilon: 0.0, noise: 0.0 };

    fn collected(env: &str, options: &Collect, action: f32) -> Result<Dataset, DataError> {
        let mut environment = oto_env::make(env).unwrap();
        let mut last = 0;
        let dataset = collect(
            &mut *environment,
            options,
            Metadata::default(),
            |_, _, row| {
                row.push(action);
                Ok::<_, DataError>(())
            },
            |steps| {
                assert_eq!(steps, last + 1);
                last = steps;
            },
        )?;
        assert_eq!(last, dataset.len());
        dataset.fits(environment.observation_space(), environment.action_space())?;
        Ok(dataset)
    }

    /// What was recorded is what the environment does: played again from its seed, an episode is the same.
    #[test]
    fn recorded_episodes_can_be_played_again() {
        let dataset = collected("CartPole-v1", &Collect { epsilon: 0.5, ..PLAIN }, 1.0).unwrap();
        assert!((300..800).contains(&dataset.len()));
        let mut environment = oto_env::make("CartPole-v1").unwrap();
        let mut seen = [0.0; 4];
        for (number, episode) in dataset.episodes.iter().enumerate() {
            assert_eq!(episode.seed, Some(5 + number as u64));
            environment.reset(episode.seed, &mut seen).unwrap();
            for transition in dataset.transitions_of(episode) {
                assert_eq!(transition.observation[..], seen);
                let step = environment.step(transition.action, &mut seen).unwrap();
                assert_eq!(transition.next_observation[..], seen);
                let expected = (transition.reward, transition.terminated, transition.truncated);
                assert_eq!((step.reward, step.terminated, step.truncated), expected);
            }
        }
    }

    #[test]
    fn the_last_episode_is_played_to_its_end() {
        let dataset = collected("Pendulum-v1", &PLAIN, 0.5).unwrap();
        assert_eq!((dataset.len(), dataset.episodes.len()), (400, 2));
        assert!(dataset.transitions().all(|transition| transition.action == Action::Continuous(&[0.5])));
    }

    #[test]
    fn exploration_is_as_large_as_asked_for_and_stays_in_range() {
        let actions = |env, options: &Collect, action| -> Vec<f32> {
            let dataset = collected(env, options, action).unwrap();
            dataset.episodes.iter().flat_map(|episode| episode.actions.clone()).collect()
        };
        let share = |actions: &[f32], holds: fn(f32) -> bool| {
            actions.iter().filter(|&&action| holds(action)).count() as f64 / actions.len() as f64
        };
        let long = Collect { steps: 4000, ..PLAIN };
        // A third random choices of two: a sixth differs from the policy's, standard deviation 0.006.
        let mixed = actions("CartPole-v1", &Collect { epsilon: 1.0 / 3.0, ..long.clone() }, 1.0);
        assert!((share(&mixed, |action| action == 0.0) - 1.0 / 6.0).abs() < 0.03);
        // Of normal noise 68.3% lies within a standard deviation.
        let noisy = actions("Pendulum-v1", &Collect { noise: 0.25, ..long.clone() }, 1.0);
        assert!((share(&noisy, |action| (action - 1.0).abs() < 0.25) - 0.683).abs() < 0.04);
        let uniform = actions("Pendulum-v1", &Collect { epsilon: 1.0, ..long }, 1.0);
        assert!((share(&uniform, |action| action < -1.0) - 0.25).abs() < 0.04);
    }

    #[test]
    fn exploration_that_does_not_fit_is_refused() {
        let refused = |env, epsilon, noise| {
            let result = collected(env, &Collect { epsilon, noise, ..PLAIN }, 0.0);
            assert!(matches!(result, Err(DataError::Exploration(_))), "{result:?}");
        };
        refused("CartPole-v1", 0.0, 0.1);
        refused("CartPole-v1", 1.5, 0.0);
        refused("CartPole-v1", f64::NAN, 0.0);
        refused("Pendulum-v1", 0.0, f64::INFINITY);
        refused("Pendulum-v1", 0.0, -1.0);
        // A policy's wrong action is the environment's to refuse.
        let result = collected("CartPole-v1", &PLAIN, 2.0);
        assert!(matches!(result, Err(DataError::Environment(_))), "{result:?}");
    }
}

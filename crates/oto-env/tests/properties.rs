//! What holds for every environment, whatever is done to it.

use oto_env::rng::Rng;
use oto_env::{Action, Actions, EnvError, Environment, IDS, Snapshot, Space, VectorEnv, make, make_classic};
use proptest::prelude::*;

/// A legal action, now and then beyond a box's range; written to `buffer` if continuous.
fn random_action<'a>(space: &Space, rng: &mut Rng, buffer: &'a mut [f32; 1]) -> Action<'a> {
    match space {
        Space::Discrete { n } => Action::Discrete(rng.below(*n)),
        Space::Box { high, .. } => {
            buffer[0] = (1.5 * f64::from(high[0]) * rng.uniform(-1.0, 1.0)) as f32;
            Action::Continuous(buffer)
        }
    }
}

fn fresh(id: &str, seed: u64) -> (Box<dyn Environment>, Vec<f32>) {
    let mut environment = make(id).unwrap();
    let mut observation = vec![0.0; environment.observation_space().width()];
    environment.reset(Some(seed), &mut observation).unwrap();
    (environment, observation)
}

/// Steps with random actions, resetting where an episode ends; gives all that could be seen, as bits.
fn play(environment: &mut dyn Environment, steps: u32, rng: &mut Rng) -> Vec<u64> {
    let mut observation = vec![0.0; environment.observation_space().width()];
    let mut seen = Vec::new();
    for _ in 0..steps {
        let action_space = environment.action_space().clone();
        let mut buffer = [0.0];
        let action = random_action(&action_space, rng, &mut buffer);
        let step = environment.step(action, &mut observation).unwrap();
        seen.extend([step.reward.to_bits(), u64::from(step.terminated), u64::from(step.truncated)]);
        seen.extend(observation.iter().map(|x| u64::from(x.to_bits())));
        if step.done() {
            environment.reset(None, &mut observation).unwrap();
            seen.extend(observation.iter().map(|x| u64::from(x.to_bits())));
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn observations_are_finite_and_inside_the_space(id in prop::sample::select(IDS), seed: u64) {
        let (mut environment, mut observation) = fresh(id, seed);
        let (space, actions) = (environment.observation_space().clone(), environment.action_space().clone());
        let limit = environment.max_episode_steps().unwrap();
        let mut rng = Rng::new(seed);
        for t in 1..=limit {
            prop_assert!(space.contains(Action::Continuous(&observation)), "{observation:?}");
            prop_assert!(observation.iter().all(|x| x.is_finite()));
            let mut buffer = [0.0];
            let step = environment.step(random_action(&actions, &mut rng, &mut buffer), &mut observation).unwrap();
            prop_assert!(step.reward.is_finite());
            prop_assert_eq!(step.truncated, t == limit);
            if step.done() {
                break;
            }
        }
    }

    #[test]
    fn a_restored_environment_goes_on_bit_by_bit(id in prop::sample::select(IDS), seed: u64, steps in 0u32..300) {
        let (mut environment, _) = fresh(id, seed);
        let mut rng = Rng::new(seed);
        play(&mut *environment, steps, &mut rng);
        let text = serde_json::to_string(&environment.save().unwrap()).unwrap();
        let mut restored = make(id).unwrap();
        restored.restore(&serde_json::from_str::<Snapshot>(&text).unwrap()).unwrap();
        let expected = play(&mut *environment, 300, &mut rng.clone());
        prop_assert_eq!(play(&mut *restored, 300, &mut rng), expected);
    }

    #[test]
    fn copies_stepped_together_are_the_environments_alone(id in prop::sample::select(IDS), seed in 0u64..1000) {
        let count = 5;
        let mut together = VectorEnv::new(count, || make(id)).unwrap();
        together.reset(Some(seed)).unwrap();
        let mut alone: Vec<_> = (0..count).map(|i| fresh(id, seed + i as u64)).collect();
        let actions = together.action_space().clone();
        let mut rng = Rng::new(seed);
        for _ in 0..250 {
            let (mut choices, mut vectors) = (Vec::new(), Vec::new());
            for _ in 0..count {
                let mut buffer = [0.0];
                match random_action(&actions, &mut rng, &mut buffer) {
                    Action::Discrete(choice) => choices.push(choice),
                    Action::Continuous(vector) => vectors.push(vector[0]),
                }
            }
            let discrete = matches!(actions, Space::Discrete { .. });
            let all = if discrete { Actions::Discrete(&choices) } else { Actions::Continuous(&vectors) };
            together.step(all).unwrap();
            for (i, (environment, observation)) in alone.iter_mut().enumerate() {
                let action =
                    if discrete { Action::Discrete(choices[i]) } else { Action::Continuous(&vectors[i..=i]) };
                let step = environment.step(action, observation).unwrap();
                let width = observation.len();
                let row = |flat: &[f32]| flat[i * width..][..width].to_vec();
                prop_assert_eq!(&row(together.final_observations()), &*observation);
                prop_assert_eq!(together.rewards()[i], step.reward);
                prop_assert_eq!(together.terminated()[i], step.terminated);
                prop_assert_eq!(together.truncated()[i], step.truncated);
                if step.done() {
                    environment.reset(None, observation).unwrap();
                }
                prop_assert_eq!(&row(together.observations()), &*observation);
            }
        }
    }

    #[test]
    fn any_state_that_can_be_set_can_be_stepped(
        id in prop::sample::select(IDS),
        numbers in prop::collection::vec(prop_oneof![9 => -1e6f64..1e6, 9 => -10.0..10.0, 9 => Just(0.0), 1 => any::<f64>()], 32),
        excess in prop_oneof![4 => Just(0), 1 => Just(1)],
    ) {
        let mut environment = make_classic(id).unwrap();
        let mut observation = vec![0.0; environment.observation_space().width()];
        let state = &numbers[..environment.state().len() + excess];
        let usable = excess == 0 && state.iter().all(|x| x.abs() <= 1e6);
        prop_assert_eq!(environment.set_state(state, 0).is_ok(), usable);
        if usable {
            let mut buffer = [0.0];
            let action = random_action(&environment.action_space().clone(), &mut Rng::new(1), &mut buffer);
            match environment.step(action, &mut observation) {
                Ok(step) => prop_assert!(step.reward.is_finite()),
                Err(error) => prop_assert!(matches!(error, EnvError::Diverged { .. }), "{error}"),
            }
            prop_assert!(environment.state().iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn bad_actions_are_refused_and_change_nothing() {
    for &id in IDS {
        let (mut environment, mut observation) = fresh(id, 1);
        let (before, seen) = (environment.save(), observation.clone());
        let bad: &[Action<'_>] = match environment.action_space() {
            Space::Discrete { n } => {
                &[Action::Discrete(*n), Action::Discrete(u32::MAX), Action::Continuous(&[0.0])]
            }
            Space::Box { .. } => &[
                Action::Discrete(0),
                Action::Continuous(&[]),
                Action::Continuous(&[0.0, 0.0]),
                Action::Continuous(&[f32::NAN]),
                Action::Continuous(&[f32::INFINITY]),
                Action::Continuous(&[f32::NEG_INFINITY]),
            ],
        };
        for &action in bad {
            assert!(environment.step(action, &mut observation).is_err(), "{id} {action:?}");
        }
        let good = match environment.action_space() {
            Space::Discrete { .. } => Action::Discrete(0),
            Space::Box { .. } => Action::Continuous(&[0.0]),
        };
        let width = observation.len();
        let error = environment.step(good, &mut vec![0.0; width + 1]).unwrap_err();
        assert_eq!(error, EnvError::ObservationLength { expected: width, got: width + 1 });
        assert!(environment.reset(Some(9), &mut []).is_err());
        assert_eq!((environment.save(), observation), (before, seen), "{id}");
    }
}

#[test]
fn errors_say_what_was_expected_and_what_came() {
    let (mut cartpole, mut observation) = fresh("CartPole-v1", 0);
    let mut message = |action| cartpole.step(action, &mut observation).unwrap_err().to_string();
    assert_eq!(message(Action::Discrete(2)), "expected an action from 0 to 1, got 2");
    assert_eq!(message(Action::Continuous(&[0.0])), "expected a discrete action, got a continuous one");
    let (mut pendulum, mut observation) = fresh("Pendulum-v1", 0);
    let mut message = |action| pendulum.step(action, &mut observation).unwrap_err().to_string();
    assert_eq!(message(Action::Continuous(&[0.0; 3])), "expected an action of 1 numbers, got 3");
    let error = message(Action::Continuous(&[f32::NAN]));
    assert_eq!(error, "component 0 of the action is NaN, expected a finite number");
}

#[test]
fn steps_outside_an_episode_are_refused() {
    let mut environment = make("MountainCar-v0").unwrap();
    let mut observation = [0.0; 2];
    assert_eq!(environment.step(Action::Discrete(0), &mut observation), Err(EnvError::NotReset));
    environment.reset(Some(0), &mut observation).unwrap();
    let steps = (0..200).map(|_| environment.step(Action::Discrete(1), &mut observation).unwrap());
    assert_eq!(steps.filter(|step| step.truncated).count(), 1);
    assert_eq!(environment.step(Action::Discrete(0), &mut observation), Err(EnvError::EpisodeOver));
}

#[test]
fn cartpole_v0_is_v1_with_200_steps() {
    let limits = ["CartPole-v0", "CartPole-v1"].map(|id| make(id).unwrap().max_episode_steps());
    assert_eq!(limits, [Some(200), Some(500)]);
    let [mut v0, mut v1] = ["CartPole-v0", "CartPole-v1"].map(|id| fresh(id, 4).0);
    let played = |environment: &mut dyn Environment| play(environment, 15, &mut Rng::new(4));
    assert_eq!(played(&mut *v0), played(&mut *v1));
}

#[test]
fn impossible_snapshots_are_refused() {
    let (environment, _) = fresh("CartPole-v1", 0);
    let good = environment.save().unwrap();
    let mut target = make("CartPole-v1").unwrap();
    for bad in [
        Snapshot { id: "CartPole-v0".into(), ..good.clone() },
        Snapshot { state: vec![0.0; 3], ..good.clone() },
        Snapshot { state: vec![0.0, f64::NAN, 0.0, 0.0], ..good.clone() },
        Snapshot { state: vec![0.0, 1e300, 0.0, 0.0], ..good.clone() },
        Snapshot { elapsed_steps: 500, ..good.clone() },
    ] {
        assert!(matches!(target.restore(&bad), Err(EnvError::Snapshot { .. })), "{bad:?}");
        assert_eq!(target.step(Action::Discrete(0), &mut [0.0; 4]), Err(EnvError::NotReset));
    }
    target.restore(&good).unwrap();
    assert_eq!(target.save(), Ok(good));
}

#[test]
fn the_vector_environment_checks_all_actions_before_any_copy_moves() {
    let mut together = VectorEnv::new(3, || make("CartPole-v1")).unwrap();
    together.reset(Some(0)).unwrap();
    let before: Vec<_> = together.copies_mut().iter().map(|copy| copy.save()).collect();
    assert_eq!(
        together.step(Actions::Discrete(&[0, 1])),
        Err(EnvError::ActionLength { expected: 3, got: 2 })
    );
    let error = together.step(Actions::Discrete(&[0, 1, 2])).unwrap_err();
    assert_eq!(error.to_string(), "copy 2: expected an action from 0 to 1, got 2");
    assert!(together.step(Actions::Continuous(&[0.0; 3])).is_err());
    let after: Vec<_> = together.copies_mut().iter().map(|copy| copy.save()).collect();
    assert_eq!(before, after);
    assert!(VectorEnv::new(0, || make("CartPole-v1")).is_err());
    let mut ids = ["CartPole-v1", "Pendulum-v1"].into_iter();
    assert!(VectorEnv::new(2, || make(ids.next().unwrap())).is_err());
}

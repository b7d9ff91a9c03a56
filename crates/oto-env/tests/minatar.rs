//! MinAtar's games beside recorded steps of the package, and properties under any actions.

use flate2::read::GzDecoder;
use oto_env::minatar::{IDS, MinAtar};
use oto_env::rng::Rng;
use oto_env::{Action, EnvError, Environment, Snapshot, Space, Step, make};
use proptest::prelude::*;
use serde::Deserialize;
use std::fs::File;
use std::path::Path;

#[derive(Deserialize)]
struct Recorded {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    seed: u64,
    actions: Vec<u32>,
    rewards: Vec<(usize, f64)>,
    ends: Vec<usize>,
    /// Places that are set.
    observations: Vec<Vec<usize>>,
}

fn fresh(id: &str, seed: u64) -> (MinAtar, Vec<f32>) {
    let mut game = MinAtar::new(id).unwrap();
    let mut observation = vec![f32::NAN; game.observation_space().width()];
    game.reset(Some(seed), &mut observation).unwrap();
    (game, observation)
}

fn drawn(game: &MinAtar, rng: &mut Rng) -> u32 {
    let Space::Discrete { n } = *game.action_space() else { panic!("a game has choices") };
    rng.below(n)
}

#[test]
fn every_step_is_the_packages() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/env_minatar.json.gz");
    let recorded: Recorded = serde_json::from_reader(GzDecoder::new(File::open(file).unwrap())).unwrap();
    assert_eq!(recorded.cases.len(), 20);
    let (mut rewards, mut ends) = (0, 0);
    for case in recorded.cases {
        let (mut game, mut observation) = fresh(&case.id, case.seed);
        let mut expected = case.observations.iter();
        let mut check = |observation: &[f32], at: usize| {
            let set = (0..observation.len()).filter(|i| observation[*i] == 1.0).collect::<Vec<_>>();
            assert_eq!(Some(&set), expected.next(), "{} seed {} step {at}", case.id, case.seed);
        };
        check(&observation, 0);
        for (t, action) in case.actions.iter().enumerate() {
            let step = game.step(Action::Discrete(*action), &mut observation).unwrap();
            let reward = case.rewards.iter().find(|(at, _)| *at == t).map_or(0.0, |(_, reward)| *reward);
            let end = case.ends.contains(&t);
            let expected = Step { reward, terminated: end, truncated: false };
            assert_eq!(step, expected, "{} seed {} step {t}", case.id, case.seed);
            check(&observation, t);
            if end {
                game.reset(None, &mut observation).unwrap();
                check(&observation, t);
            }
        }
        assert_eq!(expected.next(), None);
        rewards += case.rewards.len();
        ends += case.ends.len();
    }
    assert!(rewards > 300 && ends > 100, "{rewards} {ends}");
}

/// Plays drawn actions, resetting where an episode ends; all that was seen, as bits.
fn play(game: &mut MinAtar, steps: u32, rng: &mut Rng) -> Vec<u64> {
    let mut observation = vec![0.0; game.observation_space().width()];
    let mut seen = Vec::new();
    for _ in 0..steps {
        let step = game.step(Action::Discrete(drawn(game, rng)), &mut observation).unwrap();
        if step.done() {
            game.reset(None, &mut observation).unwrap();
        }
        seen.extend([step.reward.to_bits(), u64::from(step.terminated), u64::from(step.truncated)]);
        let set = observation.iter().enumerate().filter(|(_, number)| **number > 0.0);
        seen.extend(set.map(|(i, _)| i as u64));
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn observations_are_zeros_and_ones_and_episodes_end(id in prop::sample::select(IDS), seed: u64, favourite in 0u32..6) {
        let (mut game, mut observation) = fresh(id, seed);
        let mut rng = Rng::new(seed);
        for t in 1.. {
            prop_assert!(observation.iter().all(|number| [0.0, 1.0].contains(number)));
            let action = drawn(&game, &mut rng);
            let Space::Discrete { n } = *game.action_space() else { unreachable!() };
            let action = if rng.f64() < 0.5 { favourite.min(n - 1) } else { action };
            let step = game.step(Action::Discrete(action), &mut observation).unwrap();
            prop_assert!(step.reward.is_finite());
            prop_assert_eq!(step.truncated, t == 100_000);
            if step.done() {
                break;
            }
        }
        let refused = game.step(Action::Discrete(0), &mut observation);
        prop_assert_eq!(refused, Err(EnvError::EpisodeOver));
    }

    #[test]
    fn a_restored_game_continues_bit_by_bit(id in prop::sample::select(IDS), seed: u64, steps in 0u32..900) {
        let (mut game, _) = fresh(id, seed);
        let mut rng = Rng::new(seed);
        play(&mut game, steps, &mut rng);
        let text = serde_json::to_string(&game.save().unwrap()).unwrap();
        let snapshot = serde_json::from_str::<Snapshot>(&text).unwrap();
        let mut restored = MinAtar::new(id).unwrap();
        restored.restore(&snapshot).unwrap();
        prop_assert_eq!(restored.save().unwrap(), snapshot);
        let expected = play(&mut game, 300, &mut rng.clone());
        prop_assert_eq!(play(&mut restored, 300, &mut rng), expected);
    }

    /// A snapshot with a wrong number is refused, or gives a game that can be played.
    #[test]
    fn damaged_snapshots_do_no_harm(
        id in prop::sample::select(IDS),
        seed: u64,
        at in any::<prop::sample::Index>(),
        number in prop_oneof![Just(f64::NAN), -2.0..12.0, (-2i32..300).prop_map(f64::from), any::<f64>()],
        longer: bool,
    ) {
        let (mut game, _) = fresh(id, seed);
        play(&mut game, 200, &mut Rng::new(seed));
        let mut snapshot = game.save().unwrap();
        // The words of the generator are most of a state; most changes are made after them.
        let after = [0, 625][usize::from(seed % 4 > 0)];
        let length = snapshot.state.len() - after;
        snapshot.state[after + at.index(length)] = number;
        if longer {
            snapshot.state.push(0.0);
        }
        let mut restored = MinAtar::new(id).unwrap();
        match restored.restore(&snapshot) {
            Ok(()) => {
                prop_assert!(!longer);
                play(&mut restored, 300, &mut Rng::new(1));
            }
            Err(error) => {
                prop_assert!(matches!(error, EnvError::Snapshot { .. }), "{error}");
                prop_assert_eq!(restored.step(Action::Discrete(0), &mut []), Err(EnvError::NotReset));
            }
        }
    }
}

#[test]
fn versions_differ_in_their_actions() {
    let actions = |id| match *make(id).unwrap().action_space() {
        Space::Discrete { n } => n,
        Space::Box { .. } => 0,
    };
    let all = IDS.iter().map(|id| actions(id)).collect::<Vec<_>>();
    assert_eq!(all, [6, 5, 6, 3, 6, 3, 6, 6, 6, 4]);
}

#[test]
fn images_have_channels_first_and_bytes() {
    for id in ["MinAtar/Seaquest-v1", "MinAtar/Freeway-v1"] {
        let (mut rows, mut row) = fresh(id, 3);
        let (mut images, mut image) = fresh(&format!("{id}?images=true"), 3);
        assert_eq!(rows.images(), None);
        let [channels, height, width] = images.images().unwrap();
        assert_eq!(oto_env::images(images.id()), Some([channels, height, width]));
        for t in 0..200 {
            for (i, number) in image.iter().enumerate() {
                let (channel, place) = (i / (height * width), i % (height * width));
                assert_eq!(*number, 255.0 * row[place * channels + channel]);
            }
            assert!(images.observation_space().contains(Action::Continuous(&image)));
            let step = rows.step(Action::Discrete(t % 3), &mut row).unwrap();
            assert_eq!(images.step(Action::Discrete(t % 3), &mut image).unwrap(), step);
            if step.done() {
                rows.reset(None, &mut row).unwrap();
                images.reset(None, &mut image).unwrap();
            }
        }
    }
}

#[test]
fn an_episode_is_truncated_at_its_limit() {
    let (mut game, mut observation) = fresh("MinAtar/Freeway-v1?max_steps=3", 0);
    let steps = (0..3).map(|_| game.step(Action::Discrete(0), &mut observation).unwrap());
    assert_eq!(steps.map(|step| step.truncated).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(game.max_episode_steps(), Some(3));
    assert_eq!(MinAtar::new("MinAtar/Freeway-v1?max_steps=0").unwrap().max_episode_steps(), None);
}

/// The same game with surplus channels, which are 0: last in an image, last at each place otherwise.
#[test]
fn surplus_channels_are_empty() {
    let rng = &mut Rng::new(4);
    for images in [false, true] {
        let id = format!("MinAtar/Breakout-v1?images={images}");
        let (mut own, mut seen) = fresh(&id, 7);
        let (mut ten, mut more) = fresh(&format!("{id}&channels=10"), 7);
        assert_eq!((seen.len(), more.len()), (400, 1000));
        assert_eq!(ten.images(), images.then_some([10, 10, 10]));
        for _ in 0..50 {
            let padded = match images {
                true => [&seen[..], &[0.0; 600]].concat(),
                false => seen.chunks_exact(4).flat_map(|place| [place, &[0.0; 6]].concat()).collect(),
            };
            assert!(padded == more);
            let action = Action::Discrete(drawn(&own, rng));
            let ended = own.step(action, &mut seen).unwrap();
            assert_eq!(ended, ten.step(action, &mut more).unwrap());
            if ended.done() {
                own.reset(None, &mut seen).unwrap();
                ten.reset(None, &mut more).unwrap();
            }
        }
    }
}

#[test]
fn wrong_ids_options_and_actions_are_refused() {
    for (id, part) in [
        ("MinAtar/Pong-v1", "no environment is called"),
        ("MinAtar/Breakout-v2", "known are CartPole-v0"),
        ("MinAtar/Breakout-v1?sticky_action_prob=1.5", "a number from 0 to 1"),
        ("MinAtar/Breakout-v1?sticky_action_prob=NaN", "a number from 0 to 1"),
        ("MinAtar/Breakout-v1?difficulty_ramping=1", "true (default) or false"),
        ("MinAtar/Breakout-v1?max_steps=-1", "a whole number"),
        ("MinAtar/Breakout-v1?images", "images of 0 and 255"),
        ("MinAtar/Breakout-v1?channels=11", "a whole number up to 10"),
        ("MinAtar/Breakout-v1?channels=0", "a whole number up to 10"),
        ("MinAtar/Freeway-v1?channels=6", "expected 7 to 10; got 6"),
        (
            "MinAtar/Breakout-v1?colour=red",
            "one of sticky_action_prob, difficulty_ramping, max_steps, images",
        ),
    ] {
        let error = make(id).err().unwrap().to_string();
        assert!(error.contains(part), "{id}: {error}");
    }
    let (mut game, mut observation) = fresh("MinAtar/Breakout-v1", 0);
    let before = (game.save(), observation.clone());
    for action in [Action::Discrete(3), Action::Continuous(&[0.0])] {
        assert!(game.step(action, &mut observation).is_err());
    }
    assert!(game.step(Action::Discrete(0), &mut [0.0; 3]).is_err());
    assert_eq!((game.save(), observation), before);
}

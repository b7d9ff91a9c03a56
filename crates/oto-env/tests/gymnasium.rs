//! The bridge's environments against the built-in ones, and games. Needs a Python with gymnasium (`OTO_PYTHON` or python3);
//! where there is none, or not all that a test needs, the test says so and is over.

use oto_env::gymnasium::{Gymnasium, Options, Pixels};
use oto_env::rng::Rng;
use oto_env::{Action, Environment, Space, make};
use std::process::Command;

/// Options, if Python has these modules.
fn python(modules: &str) -> Option<Options> {
    let options = Options::default();
    let there = Command::new(&options.python).args(["-c", &format!("import {modules}")]).output();
    let there = there.is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("skipped: {} has no {modules}", options.python.display());
    }
    there.then_some(options)
}

/// Three episodes of the same actions: spaces, observations, rewards and ends must be the built-in environment's.
fn same_as_built_in(id: &str) {
    let Some(options) = python("gymnasium") else { return };
    let (mut ours, mut theirs) = (make(id).unwrap(), Gymnasium::make(id, &options).unwrap());
    assert_eq!(ours.observation_space(), theirs.observation_space());
    assert_eq!(ours.action_space(), theirs.action_space());
    assert_eq!(ours.max_episode_steps(), theirs.max_episode_steps());
    let width = ours.observation_space().width();
    let (mut a, mut b) = (vec![0.0; width], vec![0.0; width]);
    let mut rng = Rng::new(5);
    for seed in [Some(7), None, Some(u64::MAX)] {
        // A seed that leaves oto has 31 bits.
        ours.reset(seed.map(|seed| oto_env::small_seed(seed).into()), &mut a).unwrap();
        theirs.reset(seed, &mut b).unwrap();
        assert_eq!(a, b, "{id} after reset({seed:?})");
        for step in 0.. {
            // In eighths: products that Gymnasium rounds to float32 are then exact.
            let force = [(rng.below(33) as f32 - 16.0) / 8.0];
            let action = match ours.action_space() {
                Space::Discrete { n } => Action::Discrete(rng.below(*n)),
                Space::Box { .. } => Action::Continuous(&force),
            };
            let (mine, other) = (ours.step(action, &mut a).unwrap(), theirs.step(action, &mut b).unwrap());
            let near = |x: f64, y: f64| (x - y).abs() <= 1e-6 * y.abs().max(1.0);
            assert!(near(mine.reward, other.reward), "{id}, step {step}: {mine:?} {other:?}");
            let same = a.iter().zip(&b).all(|(x, y)| near((*x).into(), (*y).into()));
            assert!(same, "{id}, step {step}: {a:?} {b:?}");
            assert_eq!((mine.terminated, mine.truncated), (other.terminated, other.truncated));
            if mine.done() {
                break;
            }
        }
    }
}

#[test]
fn cartpole_is_the_built_in_one() {
    same_as_built_in("CartPole-v1");
}

#[test]
fn pendulum_is_the_built_in_one() {
    same_as_built_in("Pendulum-v1");
}

#[test]
fn what_python_refuses_is_told() {
    let Some(options) = python("gymnasium") else { return };
    let refused = |id| Gymnasium::make(id, &options).err().unwrap().to_string();
    assert!(refused("NoSuchWorld-v0").contains("NoSuchWorld"));
}

#[test]
fn a_python_without_gymnasium_says_how_to_install_it() {
    let mut command = Command::new(Options::default().python);
    // Nothing but the standard library.
    command.args(["-I", "-S", "-c", include_str!("../src/gymnasium/gymnasium_bridge.py")]);
    match Gymnasium::with(command, "CartPole-v1", &Options::default()) {
        Err(oto_env::gymnasium::BridgeError::Start { reason, .. }) => {
            eprintln!("skipped: no Python ({reason})")
        }
        made => {
            let said = made.err().unwrap().to_string();
            assert!(said.contains("gymnasium is not installed") && said.contains("-m pip install"), "{said}");
        }
    }
}

/// Small images, and games that are cut off.
#[test]
fn an_id_may_choose_the_screen_and_a_limit() {
    let Some(options) = python("gymnasium, ale_py, cv2") else { return };
    for training in [true, false] {
        let options = Options { training, ..options.clone() };
        let mut environment = Gymnasium::make("ALE/Pong-v5?screen=42&limit=20&fire=0", &options).unwrap();
        assert_eq!((environment.shape(), environment.pixels()), (&[4, 42, 42][..], Some(Pixels::Byte)));
        assert_eq!(environment.max_episode_steps(), Some(20));
        let mut seen = vec![0.0; 4 * 42 * 42];
        for episode in 0..2 {
            environment.reset(Some(episode), &mut seen).unwrap();
            for step in 1..=20 {
                let told = environment.step(Action::Discrete(0), &mut seen).unwrap();
                assert_eq!((told.terminated, told.truncated), (false, step == 20), "step {step}");
            }
        }
    }
    for wrong in ["side=3", "screen=4e9", "limit=0", "still=0", "fire=2"] {
        let refused = Gymnasium::make(&format!("ALE/Pong-v5?{wrong}"), &options).err().unwrap().to_string();
        assert!(refused.starts_with(wrong) && refused.contains("screen=16 to 160"), "{refused}");
    }
}

/// What stands still is black, and the same in every process; the ball and the paddles of Pong are not.
#[test]
fn an_id_may_choose_to_see_what_moves() {
    let Some(options) = python("gymnasium, ale_py, cv2") else { return };
    let [whole, moving, again] = ["limit=60", "still=40&limit=60", "still=40&limit=60"].map(|choices| {
        let mut environment = Gymnasium::make(&format!("ALE/Pong-v5?fire=0&{choices}"), &options).unwrap();
        let mut seen = vec![0.0; 4 * 84 * 84];
        environment.reset(Some(1), &mut seen).unwrap();
        for _ in 0..60 {
            environment.step(Action::Discrete(0), &mut seen).unwrap();
        }
        seen
    });
    let lit = |seen: &[f32]| seen.iter().filter(|pixel| **pixel > 0.0).count();
    assert_eq!(lit(&whole), whole.len(), "the field is no black one");
    assert!((1..whole.len() / 20).contains(&lit(&moving)), "{} pixels", lit(&moving));
    assert_eq!(moving, again);
}

/// A game as the field plays it: images of bytes; in training a lost life ends an episode but not the game.
#[test]
fn a_game_is_seen_as_four_images() {
    let Some(options) = python("gymnasium, ale_py, cv2") else { return };
    for training in [true, false] {
        let mut environment =
            Gymnasium::make("ALE/Breakout-v5", &Options { training, ..options.clone() }).unwrap();
        assert_eq!((environment.shape(), environment.pixels()), (&[4, 84, 84][..], Some(Pixels::Byte)));
        assert_eq!(environment.action_space(), &Space::Discrete { n: 4 });
        let mut seen = vec![0.0; 4 * 84 * 84];
        environment.reset(Some(3), &mut seen).unwrap();
        let first = &seen[..84 * 84];
        assert_eq!(first, &seen[3 * 84 * 84..], "an episode begins with one image four times");
        assert!(first.iter().any(|x| *x > 100.0) && first.iter().all(|x| x.fract() == 0.0));
        let mut rng = Rng::new(1);
        let (mut length, mut rewards) = (0, Vec::new());
        loop {
            let step = environment.step(Action::Discrete(rng.below(4)), &mut seen).unwrap();
            length += 1;
            rewards.push(step.reward);
            if step.done() {
                break;
            }
        }
        assert!(rewards.iter().all(|r| !training || (-1.0..=1.0).contains(r)));
        // Five lives to lose: an evaluation sees them all.
        assert_eq!(length < 100, training, "{length} steps");
        environment.reset(None, &mut seen).unwrap();
    }
}

/// Discrete observations and tuples of them are one-hot.
#[test]
fn choices_that_are_observed_are_one_hot() {
    let Some(options) = python("gymnasium") else { return };
    for (id, width, ones) in
        [("FrozenLake-v1", 16, 1.0), ("CliffWalking-v1", 48, 1.0), ("Blackjack-v1", 45, 3.0)]
    {
        let mut env = Gymnasium::make(id, &options).unwrap();
        let mut seen = vec![f32::NAN; width];
        env.reset(Some(1), &mut seen).unwrap();
        for _ in 0..3 {
            assert_eq!(
                (env.observation_space(), seen.iter().sum::<f32>()),
                (&Space::uniform(width, 0.0, 1.0), ones)
            );
            if env.step(Action::Discrete(1), &mut seen).unwrap().done() {
                env.reset(None, &mut seen).unwrap();
            }
        }
    }
}

/// Breakout waits for FIRE: with the wrapper the ball is in play, without it the player who does nothing sees it never.
#[test]
fn a_game_that_waits_for_fire_is_started() {
    let Some(options) = python("gymnasium, ale_py, cv2") else { return };
    let lengths = ["", "?fire=0"].map(|choice| {
        let options = Options { training: true, ..options.clone() };
        let mut env = Gymnasium::make(&format!("ALE/Breakout-v5{choice}"), &options).unwrap();
        let mut seen = vec![0.0; 4 * 84 * 84];
        env.reset(Some(3), &mut seen).unwrap();
        (1..=200).find(|_| env.step(Action::Discrete(0), &mut seen).unwrap().done())
    });
    assert!(lengths[0].is_some_and(|steps| steps < 100) && lengths[1].is_none(), "{lengths:?}");
}

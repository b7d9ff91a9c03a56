//! CartPoleSwingUp: the recorded reference, resets, the plant and its faults.

use flate2::read::GzDecoder;
use oto_env::swing_up::{Config, Options, PLANT, Plant, SwingUp};
use oto_env::{Action, ClassicEnvironment, EnvError, Environment, make};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fs::File;
use std::path::Path;

const SIMULATION: &str = "CartPoleSwingUp-v0";
const ON_PLANT: &str = "CartPoleSwingUpPlant-v0";

#[derive(Deserialize)]
struct Reference {
    rule_config: Map<String, Value>,
    published_config: Map<String, Value>,
    episodes: Vec<Episode>,
    single_steps: Vec<SingleStep>,
}

#[derive(Deserialize)]
struct Episode {
    label: String,
    config: Map<String, Value>,
    initial_state: Vec<f64>,
    initial_observation: Vec<f64>,
    actions: Vec<f64>,
    states: Vec<Vec<f64>>,
    observations: Vec<Vec<f64>>,
    rewards: Vec<f64>,
    on_target: Vec<f64>,
    terminated: Vec<bool>,
    truncated: Vec<bool>,
}

#[derive(Deserialize)]
struct SingleStep {
    what: String,
    config: Map<String, Value>,
    state: Vec<f64>,
    on_target_before: f64,
    last_actions: Vec<f64>,
    action: f64,
    next_state: Vec<f64>,
    observation: Vec<f64>,
    reward: f64,
    on_target: f64,
    terminated: bool,
}

fn reference() -> Reference {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/env_cartpole_swingup.json.gz");
    serde_json::from_reader(GzDecoder::new(File::open(path).unwrap())).unwrap()
}

fn config(recorded: &Map<String, Value>) -> Config {
    let mut config = Config::default();
    for (name, value) in recorded {
        config.set(name, value.as_str().unwrap_or(&value.to_string())).unwrap();
    }
    config
}

/// The environment in evaluation, as the episodes were recorded.
fn environment(recorded: &Map<String, Value>) -> SwingUp {
    let options = Options { config: config(recorded), ..Options::simulation() };
    let mut env = SwingUp::with("reference".into(), options);
    env.evaluate(true);
    env
}

#[track_caller]
fn close(got: f64, expected: f64, tolerance: f64, at: &str) -> f64 {
    let error = (got - expected).abs() / expected.abs().max(1.0);
    assert!(error <= tolerance, "{at}: {got} instead of {expected}");
    error
}

fn observed(env: &SwingUp) -> [f32; 10] {
    let mut observation = [0.0; 10];
    env.observe(&mut observation).unwrap();
    observation
}

/// State, counter and last actions, as the environment orders them.
fn full(state: &[f64], on_target: f64, actions: &[f64]) -> Vec<f64> {
    [state, &[on_target], actions].concat()
}

#[test]
fn the_rule_and_the_published_variant_are_the_recorded_ones() {
    let reference = reference();
    assert_eq!(config(&reference.rule_config), Config::default());
    assert_eq!(config(&reference.published_config), Config::published());
    let published = SwingUp::new("CartPoleSwingUp-v0?variant=published").unwrap();
    assert_eq!(published.options().config, Config::published());
}

/// Each step from the recorded state before it, and each episode from its beginning.
#[test]
fn every_recorded_step_is_reproduced() {
    for episode in reference().episodes {
        let mut env = environment(&episode.config);
        let at = |t: usize| format!("{} step {t}", episode.label);
        let mut worst = 0.0f64;
        for whole in [false, true] {
            env.set_state(&full(&episode.initial_state, 0.0, &[0.0; 5]), 0).unwrap();
            for (got, expected) in observed(&env).iter().zip(&episode.initial_observation) {
                close(f64::from(*got), *expected, 1e-6, "initial observation");
            }
            for (t, &action) in episode.actions.iter().enumerate() {
                let tolerance = if whole { 1e-6 } else { 1e-9 };
                if !whole && t > 0 {
                    let last = &episode.observations[t - 1][5..];
                    let before = full(&episode.states[t - 1], episode.on_target[t - 1], last);
                    env.set_state(&before, t as u32).unwrap();
                }
                let step = env.advance(action).unwrap();
                for (got, expected) in env.state().iter().zip(&episode.states[t]) {
                    worst = worst.max(close(*got, *expected, tolerance, &at(t)));
                }
                close(step.reward, episode.rewards[t], tolerance, &at(t));
                for (got, expected) in observed(&env).iter().zip(&episode.observations[t]) {
                    close(f64::from(*got), *expected, 1e-6, &at(t));
                }
                assert_eq!(env.on_target(), episode.on_target[t], "{}", at(t));
                assert_eq!(step.terminated, episode.terminated[t], "{}", at(t));
                assert_eq!(step.truncated, episode.truncated[t], "{}", at(t));
            }
        }
        println!("{}: {} steps, largest error {worst:e}", episode.label, episode.actions.len());
    }
}

#[test]
fn every_recorded_edge_case_is_reproduced() {
    let cases = reference().single_steps;
    assert_eq!(cases.len(), 13);
    for case in cases {
        let mut env = environment(&case.config);
        env.set_state(&full(&case.state, case.on_target_before, &case.last_actions), 0).unwrap();
        let step = env.advance(case.action).unwrap();
        for (got, expected) in env.state().iter().zip(&case.next_state) {
            close(*got, *expected, 1e-9, &case.what);
        }
        for (got, expected) in observed(&env).iter().zip(&case.observation) {
            close(f64::from(*got), *expected, 1e-6, &case.what);
        }
        close(step.reward, case.reward, 1e-9, &case.what);
        assert_eq!((env.on_target(), step.terminated), (case.on_target, case.terminated), "{}", case.what);
    }
}

/// A delay beyond the five actions that the observation shows.
#[test]
fn a_long_delay_holds_actions_back() {
    let mut env = SwingUp::new("CartPoleSwingUp-v0?delay=8").unwrap();
    let mut observation = [0.0; 10];
    env.reset(Some(1), &mut observation).unwrap();
    env.set_state(&full(&[0.0, 0.0, std::f64::consts::PI, 0.0], 0.0, &[0.0; 8]), 0).unwrap();
    for step in 1..=9 {
        env.advance(1.0).unwrap();
        assert_eq!(env.motion()[1] > 1e-6, step == 9, "step {step}");
    }
    assert_eq!(observed(&env)[5..], [1.0; 5]);
}

#[test]
fn a_training_episode_ends_once_the_pole_was_long_enough_on_target() {
    for (evaluating, expected) in [(false, 101), (true, 1000)] {
        let mut env = SwingUp::new(SIMULATION).unwrap();
        env.evaluate(evaluating);
        env.reset(Some(1), &mut [0.0; 10]).unwrap();
        env.set_state(&full(&[0.0; 4], 0.0, &[0.0; 5]), 0).unwrap();
        let mut steps = 1;
        // Exactly upright and at rest it stays so.
        let end = loop {
            let step = env.advance(0.0).unwrap();
            if step.done() {
                break step;
            }
            steps += 1;
        };
        assert_eq!((steps, end.terminated, end.truncated), (expected, false, true));
        assert_eq!(env.info("success"), Some(f64::from(u8::from(evaluating))));
        assert_eq!(env.info("on_target"), Some(f64::from(expected)));
    }
}

/// The share of upright starts is of training alone.
#[test]
fn episodes_start_as_the_paper_says_or_near_upright() {
    let share = |id: &str, evaluating: bool| {
        let mut env = SwingUp::new(id).unwrap();
        env.evaluate(evaluating);
        env.reset(Some(3), &mut [0.0; 10]).unwrap();
        let mut upright = 0;
        for _ in 0..2000 {
            env.reset(None, &mut [0.0; 10]).unwrap();
            let [x, x_dot, alpha, alpha_dot] = env.motion();
            assert!(x.abs() <= 0.8 * 0.34 && x_dot == 0.0 && alpha_dot == 0.0);
            assert!(alpha.abs() <= std::f64::consts::PI);
            upright += usize::from(alpha.abs() < 0.5);
        }
        upright as f64 / 2000.0
    };
    assert!(share(SIMULATION, false) < 0.01);
    assert!((share("CartPoleSwingUp-v0?upright=0.5", false) - 0.5).abs() < 0.05);
    assert!(share("CartPoleSwingUp-v0?upright=0.5", true) < 0.01);
}

#[test]
fn wrong_options_are_named() {
    let wrong = |id: &str| make(id).err().unwrap().to_string();
    for (id, parts) in [
        ("CartPoleSwingUp-v0?k_f=-1", &["k_f", "0 to 1000", "-1"][..]),
        ("CartPoleSwingUp-v0?k_f=NaN", &["k_f", "NaN"]),
        ("CartPoleSwingUp-v0?voltage_max=inf", &["voltage_max", "inf"]),
        ("CartPoleSwingUp-v0?mass_pole=0", &["mass_pole"]),
        ("CartPoleSwingUp-v0?sub_steps=1e9", &["sub_steps", "1 to 1000"]),
        ("CartPoleSwingUp-v0?delay=31", &["delay", "0 to 30"]),
        ("CartPoleSwingUp-v0?integrator=rk4", &["integrator", "semi_implicit or euler"]),
        ("CartPoleSwingUp-v0?k_f", &["k_f", "\"\""]),
        ("CartPoleSwingUp-v0?friction=3", &["friction", "k_f", "upright"]),
        ("CartPoleSwingUp-v0?wild=0.1", &["wild", "the plant only"]),
        ("CartPoleSwingUpPlant-v0?upright=0.1", &["upright", "the simulation only"]),
        ("CartPoleSwingUpPlant-v0?k_f=3", &["k_f", "plant"]),
        ("CartPoleSwingUpPlant-v0?wild=2", &["wild", "0 to 1"]),
    ] {
        let error = wrong(id);
        assert!(parts.iter().all(|part| error.contains(part)), "{id}: {error}");
    }
    assert!(matches!(make("CartPole-v1?k_f=3"), Err(EnvError::UnknownId { .. })));
    assert!(make("CartPoleSwingUp-v0?k_f=0&voltage_max=12&").is_ok());
    let long = format!("CartPoleSwingUp-v0?{}=1", "a".repeat(100_000));
    assert!(wrong(&long).len() < 1000);
}

fn plant(change: impl FnOnce(&mut Plant)) -> SwingUp {
    let mut options = Options::plant();
    change(options.plant.as_mut().unwrap());
    SwingUp::with(ON_PLANT.into(), options)
}

/// Steps with small random-like actions, resetting where an episode ends.
fn wander(env: &mut SwingUp, steps: u32, mut see: impl FnMut(&SwingUp)) {
    let mut observation = [0.0; 10];
    env.reset(Some(5), &mut observation).unwrap();
    for t in 0..steps {
        let action = [(f64::from(t) * 0.7).sin() as f32 * 0.4];
        let step = env.step(Action::Continuous(&action), &mut observation).unwrap();
        see(env);
        if step.done() {
            env.reset(None, &mut observation).unwrap();
        }
    }
}

#[test]
fn readings_are_near_the_motion_and_never_exact() {
    let mut env = plant(|_| ());
    let mut largest = [0.0f64; 4];
    let mut counts = 0;
    wander(&mut env, 5000, |env| {
        let (motion, seen) = (env.motion(), env.seen());
        for i in 0..4 {
            largest[i] = largest[i].max((motion[i] - seen[i]).abs().min(6.2 - (motion[i] - seen[i]).abs()));
        }
        let remainder = (seen[0] / PLANT.cart_count).fract().abs();
        counts += usize::from(!(1e-6..=1.0 - 1e-6).contains(&remainder));
    });
    assert_eq!(counts, 5000, "positions are whole counts");
    println!("{largest:?}");
    assert!(largest[0] > 1e-5 && largest[0] < 1e-3, "{largest:?}");
    assert!(largest[2] > 1e-3 && largest[2] < 0.2, "{largest:?}");
}

/// Coulomb friction holds the cart against half a volt; the simulation moves.
#[test]
fn a_small_voltage_moves_nothing() {
    let moved = |mut env: SwingUp| {
        env.reset(Some(2), &mut [0.0; 10]).unwrap();
        let mut state = env.state().to_vec();
        state[..4].copy_from_slice(&[0.0, 0.0, std::f64::consts::PI, 0.0]);
        env.set_state(&state, 0).unwrap();
        for _ in 0..30 {
            env.advance(0.5 / 8.0).unwrap();
        }
        env.motion()[0]
    };
    let (simulation, plant) = (moved(SwingUp::new(SIMULATION).unwrap()), moved(plant(|_| ())));
    assert!(simulation > 0.02 && plant.abs() < 0.005, "{simulation} {plant}");
}

#[test]
fn the_cart_is_brought_to_random_places() {
    let mut env = plant(|_| ());
    let (mut observation, mut places) = ([0.0; 10], Vec::new());
    env.reset(Some(4), &mut observation).unwrap();
    for _ in 0..200 {
        let [x, x_dot, _, alpha_dot] = env.motion();
        assert!(x.abs() <= 0.8 * 0.34 + 0.021 && x_dot.abs() <= 0.05 && alpha_dot.abs() <= 10.0);
        assert!(env.info("reset_steps").unwrap() <= 300.0);
        assert_eq!(observation[5..], [0.0; 5]);
        places.push(x);
        while !env.step(Action::Continuous(&[1.0]), &mut observation).unwrap().done() {}
        env.reset(None, &mut observation).unwrap();
    }
    let spread = places.iter().map(|x| x * x).sum::<f64>() / 200.0;
    // Uniform between -0.272 and 0.272: 0.0247.
    assert!((spread - 0.0247).abs() < 0.006, "{spread}");
}

/// Without calibration the zero wanders off; with it, it stays within what 10,000 steps and an episode give.
#[test]
fn calibration_keeps_the_angle_right() {
    let error = |calibration: u32| {
        let mut env = plant(|plant| plant.calibration = calibration);
        let (mut worst, mut sum) = (0.0f64, 0.0);
        wander(&mut env, 120_000, |env| {
            let off = (env.seen()[2] - env.motion()[2]).abs();
            let off = off.min(std::f64::consts::TAU - off);
            worst = worst.max(off);
            sum += off;
        });
        (env.info("calibrations").unwrap(), sum / 120_000.0, worst)
    };
    let (none, with) = (error(0), error(10_000));
    println!("without {none:?}, with {with:?}");
    assert_eq!(none.0, 0.0);
    assert!((9.0..=12.0).contains(&with.0), "{with:?}");
    assert!(with.1 < 0.03 && none.1 > 1.5 * with.1, "{none:?} {with:?}");
}

#[test]
fn faults_are_off_until_they_are_switched_on_and_are_flagged_and_counted() {
    for (id, expected) in [
        (ON_PLANT.to_string(), [false; 3]),
        (format!("{ON_PLANT}?frozen=0.002"), [true, false, false]),
        (format!("{ON_PLANT}?wild=0.01"), [false, true, false]),
        (format!("{ON_PLANT}?lost=0.01"), [false, false, true]),
        (format!("{ON_PLANT}?lost=0.01&wild=0.01&frozen=0.01"), [true; 3]),
    ] {
        let mut env = SwingUp::new(&id).unwrap();
        let mut flagged = 0.0;
        wander(&mut env, 5000, |env| flagged += env.info("faulty").unwrap());
        let counts = ["frozen_steps", "wild_steps", "lost_steps"].map(|name| env.info(name).unwrap());
        assert_eq!(counts.map(|count| count > 0.0), expected, "{id}");
        let sum: f64 = counts.iter().sum();
        assert!(
            flagged <= sum && flagged >= counts[0].max(counts[1]).max(counts[2]),
            "{id}: {flagged} {counts:?}"
        );
    }
    assert_eq!(SwingUp::new(SIMULATION).unwrap().info("faulty"), None);
}

#[test]
fn a_frozen_sensor_repeats_itself_and_a_lost_command_leaves_the_voltage() {
    let mut env = plant(|plant| plant.faults.frozen = 1.0);
    env.reset(Some(1), &mut [0.0; 10]).unwrap();
    let first = env.seen();
    for _ in 0..10 {
        env.advance(0.3).unwrap();
        assert_eq!(env.seen(), first);
    }
    let mut env = plant(|plant| plant.faults.lost = 1.0);
    env.reset(Some(1), &mut [0.0; 10]).unwrap();
    let before = env.motion()[0];
    for _ in 0..10 {
        env.advance(1.0).unwrap();
    }
    assert!((env.motion()[0] - before).abs() < 0.05, "the command that never arrives moves nothing");
}

/// A step whose episode is restored in the middle of a freeze continues bit by bit.
#[test]
fn a_restored_plant_continues_with_its_faults() {
    let id = format!("{ON_PLANT}?lost=0.05&wild=0.05&frozen=0.05");
    let mut env = make(&id).unwrap();
    let mut observation = [0.0; 10];
    env.reset(Some(9), &mut observation).unwrap();
    let mut steps = 0;
    let act = |env: &mut dyn Environment, observation: &mut [f32; 10], t: u32| {
        let action = [(f64::from(t) * 0.31).sin() as f32 * 0.5];
        if env.step(Action::Continuous(&action), observation).unwrap().done() {
            env.reset(None, observation).unwrap();
        }
        observation.map(f32::to_bits)
    };
    for t in 0..333 {
        act(&mut *env, &mut observation, t);
        steps += 1;
    }
    let mut copy = make(&id).unwrap();
    copy.restore(&env.save().unwrap()).unwrap();
    for t in steps..steps + 1000 {
        let mut other = [0.0; 10];
        assert_eq!(act(&mut *env, &mut observation, t), act(&mut *copy, &mut other, t), "step {t}");
    }
    assert!(make(ON_PLANT).unwrap().restore(&env.save().unwrap()).is_err());
}

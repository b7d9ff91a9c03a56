//! The environments against trajectories that Gymnasium 1.4 and MuJoCo 4.0 recorded, and against Gymnasium's seeds.

use flate2::read::GzDecoder;
use oto_env::{Action, ClassicEnvironment, make_classic};
use serde::Deserialize;
use std::fs::File;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Trajectories {
    env: String,
    episodes: Vec<Episode>,
}

#[derive(Deserialize)]
struct Episode {
    label: String,
    initial_state: Vec<f64>,
    actions: Vec<f64>,
    states: Vec<Vec<f64>>,
    observations: Vec<Vec<f64>>,
    rewards: Vec<f64>,
    terminated: Vec<bool>,
    truncated: Vec<bool>,
}

#[derive(Deserialize)]
struct ResetSeeds {
    cases: Vec<ResetSeed>,
}

#[derive(Deserialize)]
struct ResetSeed {
    env: String,
    seed: u64,
    observation: Vec<f64>,
    state: Option<Vec<f64>>,
    observation_second_reset: Vec<f64>,
    state_second_reset: Option<Vec<f64>>,
}

#[derive(Deserialize)]
struct RailStop {
    cases: Vec<RailStopCase>,
}

#[derive(Deserialize)]
struct RailStopCase {
    state: Vec<f64>,
    action: f64,
    next: Vec<f64>,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn trajectories(name: &str) -> Trajectories {
    serde_json::from_reader(GzDecoder::new(File::open(fixture(name)).unwrap())).unwrap()
}

/// The largest `|got - expected| / max(1, |expected|)`.
fn error(got: impl IntoIterator<Item = f64>, expected: &[f64]) -> f64 {
    let mut got = got.into_iter();
    let error =
        expected.iter().map(|e| (got.next().unwrap() - e).abs() / e.abs().max(1.0)).fold(0.0, f64::max);
    assert!(got.next().is_none());
    error
}

fn wide(observation: &[f32]) -> impl Iterator<Item = f64> {
    observation.iter().copied().map(f64::from)
}

/// Steps once and compares all but the state; gives the state's and the reward's error, the larger of both.
fn check_step(environment: &mut dyn ClassicEnvironment, episode: &Episode, t: usize, observed: f64) -> f64 {
    let at = format!("{} {:?} step {t}", environment.id(), episode.label);
    let mut observation = vec![0.0; environment.observation_space().width()];
    let vector = [episode.actions[t] as f32];
    let action = match environment.action_space() {
        oto_env::Space::Discrete { .. } => Action::Discrete(episode.actions[t] as u32),
        oto_env::Space::Box { .. } => Action::Continuous(&vector),
    };
    let step = environment.step(action, &mut observation).unwrap();
    assert_eq!(step.terminated, episode.terminated[t], "{at}");
    assert_eq!(step.truncated, episode.truncated[t], "{at}");
    assert!(error(wide(&observation), &episode.observations[t]) <= observed, "{at}");
    let state = environment.state().iter().copied();
    error(state, &episode.states[t]).max(error([step.reward], &[episode.rewards[t]]))
}

/// One step from each recorded state, and episodes of at most `whole.0` steps from their beginning, in which errors may
/// add up to `whole.1`.
fn check(name: &str, one_step: f64, whole: (usize, f64), within: impl Fn(&[f64]) -> bool) {
    let (whole_steps, whole) = whole;
    let Trajectories { env, episodes } = trajectories(name);
    let mut environment = make_classic(&env).unwrap();
    let (mut largest, mut largest_whole, mut steps) = (0.0f64, 0.0f64, 0);
    for episode in &episodes {
        let before = |t: usize| if t == 0 { &episode.initial_state } else { &episode.states[t - 1] };
        let recorded = episode.actions.len();
        let length =
            (0..recorded).find(|&t| !within(before(t)) || !within(&episode.states[t])).unwrap_or(recorded);
        for t in 0..length {
            environment.set_state(before(t), t as u32).unwrap();
            largest = largest.max(check_step(&mut *environment, episode, t, 1e-6));
        }
        environment.set_state(&episode.initial_state, 0).unwrap();
        for t in 0..length.min(whole_steps) {
            largest_whole = largest_whole.max(check_step(&mut *environment, episode, t, 1e-6));
        }
        steps += length;
    }
    println!(
        "{env}: {steps} steps, largest error in one step {largest:e}, over an episode {largest_whole:e}"
    );
    assert!(steps > 100 && largest <= one_step && largest_whole <= whole, "{largest:e} {largest_whole:e}");
}

const EPISODE: (usize, f64) = (usize::MAX, 1e-9);

#[test]
fn cartpole() {
    check("env_cartpole_v1.json.gz", 1e-9, EPISODE, |_| true);
}

#[test]
fn mountain_car() {
    check("env_mountaincar_v0.json.gz", 1e-9, EPISODE, |_| true);
}

#[test]
fn mountain_car_continuous() {
    check("env_mountaincarcontinuous_v0.json.gz", 1e-9, EPISODE, |_| true);
}

#[test]
fn acrobot() {
    check("env_acrobot_v1.json.gz", 1e-9, EPISODE, |_| true);
}

#[test]
fn pendulum() {
    check("env_pendulum_v1.json.gz", 1e-9, EPISODE, |_| true);
}

/// Actions without feedback leave the pole unstable: rounding errors grow tenfold every 15 steps, so few are compared.
#[test]
fn inverted_pendulum_on_the_rail() {
    check("env_invertedpendulum_v5.json.gz", 1e-9, (50, 1e-9), |state| state[0].abs() < 1.0);
}

/// One step from each recorded state at the stop, and the whole way into it.
#[test]
fn inverted_pendulum_at_the_rail_stop() {
    let Trajectories { env, episodes } = trajectories("env_invertedpendulum_v5.json.gz");
    let mut environment = make_classic(&env).unwrap();
    let episode = episodes.iter().find(|episode| episode.label.starts_with("slider limit")).unwrap();
    let reached = episode.states.iter().position(|state| state[0] > 1.0).unwrap();
    let (mut largest, mut largest_whole, end) = (0.0f64, 0.0f64, episode.actions.len());
    for t in reached..end {
        environment.set_state(&episode.states[t - 1], t as u32).unwrap();
        largest = largest.max(check_step(&mut *environment, episode, t, 1e-6));
    }
    environment.set_state(&episode.states[reached - 1], reached as u32).unwrap();
    for t in reached..end {
        largest_whole = largest_whole.max(check_step(&mut *environment, episode, t, 1e-6));
    }
    println!("rail stop: {} steps, {largest:e} in one step, {largest_whole:e} together", end - reached);
    assert!(end - reached >= 7 && largest <= 1e-9 && largest_whole <= 1e-9, "{largest:e} {largest_whole:e}");
}

/// MuJoCo's own steps from a hundred states that hit either end of the rail, slow and fast.
#[test]
fn inverted_pendulum_hits_either_end() {
    let RailStop { cases } = serde_json::from_str(include_str!("data/rail_stop.json")).unwrap();
    assert_eq!(cases.len(), 100);
    let mut environment = make_classic("InvertedPendulum-v5").unwrap();
    for case in cases {
        environment.set_state(&case.state, 0).unwrap();
        environment.step(Action::Continuous(&[case.action as f32]), &mut [0.0; 4]).unwrap();
        assert!(error(environment.state().iter().copied(), &case.next) <= 1e-12, "{:?}", case.state);
    }
}

#[test]
fn seeds() {
    let seeds: ResetSeeds =
        serde_json::from_reader(File::open(fixture("env_reset_seeds.json")).unwrap()).unwrap();
    assert!(seeds.cases.len() >= 55);
    for case in seeds.cases {
        let mut environment = make_classic(&case.env).unwrap();
        let mut observation = vec![0.0; environment.observation_space().width()];
        for (seed, expected, state) in [
            (Some(case.seed), &case.observation, &case.state),
            (None, &case.observation_second_reset, &case.state_second_reset),
        ] {
            environment.reset(seed, &mut observation).unwrap();
            let at = format!("{} seed {} {seed:?}", case.env, case.seed);
            assert!(error(wide(&observation), expected) <= 1e-6, "{at}: {observation:?} {expected:?}");
            if let Some(state) = state {
                assert_eq!(environment.state(), state, "{at}");
            }
        }
    }
}

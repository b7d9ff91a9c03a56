//! The kinds `env_trajectories` and `env_reset_seeds`: one step from each recorded state, and initial states of seeds.

use crate::compare::{Outcome, Worst};
use crate::read::Cases;
use crate::swing_up;
use oto_env::swing_up::SIMULATION_ID;
use oto_env::{Action, ClassicEnvironment, EnvError, Space, make_classic};
use serde::Deserialize;

/// Where the library computes in float64.
pub(crate) const EXACT: f64 = 1e-9;
/// Where the library itself computes in float32: observations, and two environments' states and rewards.
pub(crate) const ROUNDED: f64 = 1e-6;
const ROUNDED_ENVIRONMENTS: [&str; 2] = ["MountainCarContinuous-v0", "Pendulum-v1"];

#[derive(Deserialize)]
struct Named {
    env: String,
}

#[derive(Deserialize)]
struct Trajectories {
    env: String,
    episodes: Vec<Episode>,
}

#[derive(Deserialize)]
struct Episode {
    #[serde(default)]
    label: String,
    initial_state: Vec<f64>,
    actions: Vec<RecordedAction>,
    states: Vec<Vec<f64>>,
    observations: Vec<Vec<f64>>,
    rewards: Vec<f64>,
    terminated: Vec<bool>,
    truncated: Vec<bool>,
}

/// A number, or a vector of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum RecordedAction {
    Number(f64),
    Vector(Vec<f64>),
}

impl RecordedAction {
    fn numbers(&self) -> &[f64] {
        match self {
            Self::Number(number) => std::slice::from_ref(number),
            Self::Vector(numbers) => numbers,
        }
    }
}

/// One case for each episode.
pub(crate) fn trajectories(text: &[u8]) -> Result<Cases, String> {
    let Named { env } = parse(text)?;
    if [swing_up::NAME, SIMULATION_ID].contains(&env.as_str()) {
        return swing_up::trajectories(text);
    }
    let Trajectories { env, episodes } = parse(text)?;
    let mut environment = match make_classic(&env) {
        Ok(environment) => environment,
        Err(error) => return Ok(vec![(env, Outcome::Unsupported(error.to_string()))]),
    };
    let case = |(index, episode): (usize, &Episode)| {
        let label: String = episode.label.chars().take(80).collect();
        let outcome =
            check_episode(&mut *environment, episode).map_or_else(Outcome::Failed, Outcome::Compared);
        (format!("{env} episode {index} ({label})"), outcome)
    };
    Ok(episodes.iter().enumerate().map(case).collect())
}

fn check_episode(environment: &mut dyn ClassicEnvironment, episode: &Episode) -> Result<Worst, String> {
    let steps = episode.actions.len();
    for (name, length) in [
        ("states", episode.states.len()),
        ("observations", episode.observations.len()),
        ("rewards", episode.rewards.len()),
        ("terminated", episode.terminated.len()),
        ("truncated", episode.truncated.len()),
    ] {
        same_length(name, steps, length)?;
    }
    let tolerance = if ROUNDED_ENVIRONMENTS.contains(&environment.id()) { ROUNDED } else { EXACT };
    let mut observation = vec![0.0; environment.observation_space().width()];
    let mut worst = Worst::default();
    let mut before = &episode.initial_state;
    for (t, after) in episode.states.iter().enumerate() {
        let at_step = |reason: String| format!("step {t}: {reason}");
        let refused = |error: EnvError| at_step(error.to_string());
        same_length("the state", environment.state().len(), after.len()).map_err(at_step)?;
        same_length("the observation", observation.len(), episode.observations[t].len()).map_err(at_step)?;
        environment.set_state(before, u32::try_from(t).unwrap_or(u32::MAX)).map_err(refused)?;
        let vector: Vec<f32> = episode.actions[t].numbers().iter().map(|&number| number as f32).collect();
        let action = match environment.action_space() {
            Space::Discrete { .. } => Action::Discrete(choice(&episode.actions[t]).map_err(at_step)?),
            Space::Box { .. } => Action::Continuous(&vector),
        };
        let step = environment.step(action, &mut observation).map_err(refused)?;
        worst.numbers(environment.state().iter().copied(), after, tolerance, || format!("states[{t}]"));
        worst.numbers(wide(&observation), &episode.observations[t], ROUNDED, || format!("observations[{t}]"));
        worst.number(step.reward, episode.rewards[t], tolerance, || format!("rewards[{t}]"));
        worst.flag(step.terminated, episode.terminated[t], tolerance, || format!("terminated[{t}]"));
        worst.flag(step.truncated, episode.truncated[t], tolerance, || format!("truncated[{t}]"));
        before = after;
    }
    Ok(worst)
}

fn choice(action: &RecordedAction) -> Result<u32, String> {
    match action.numbers() {
        &[number] if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) => {
            Ok(number as u32)
        }
        other => Err(format!("expected the number of a choice as action, got {other:?}")),
    }
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

/// One case for each environment and seed.
pub(crate) fn reset_seeds(text: &[u8]) -> Result<Cases, String> {
    let ResetSeeds { cases } = parse(text)?;
    let case = |case: &ResetSeed| (format!("{} seed {}", case.env, case.seed), check_seed(case));
    Ok(cases.iter().map(case).collect())
}

fn check_seed(case: &ResetSeed) -> Outcome {
    match make_classic(&case.env) {
        Ok(mut environment) => {
            compare_resets(&mut *environment, case).map_or_else(Outcome::Failed, Outcome::Compared)
        }
        Err(error) => Outcome::Unsupported(error.to_string()),
    }
}

fn compare_resets(environment: &mut dyn ClassicEnvironment, case: &ResetSeed) -> Result<Worst, String> {
    let mut observation = vec![0.0; environment.observation_space().width()];
    let mut worst = Worst::default();
    for (suffix, seed, expected, state) in [
        ("", Some(case.seed), &case.observation, &case.state),
        ("_second_reset", None, &case.observation_second_reset, &case.state_second_reset),
    ] {
        environment.reset(seed, &mut observation).map_err(|error| error.to_string())?;
        same_length("the observation", observation.len(), expected.len())?;
        worst.numbers(wide(&observation), expected, ROUNDED, || format!("observation{suffix}"));
        if let Some(state) = state {
            same_length("the state", environment.state().len(), state.len())?;
            worst.numbers(environment.state().iter().copied(), state, EXACT, || format!("state{suffix}"));
        }
    }
    Ok(worst)
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| format!("not a file of this kind: {error}"))
}

pub(crate) fn same_length(name: &str, expected: usize, got: usize) -> Result<(), String> {
    if expected == got { Ok(()) } else { Err(format!("expected {name} of length {expected}, got {got}")) }
}

pub(crate) fn wide(observation: &[f32]) -> impl Iterator<Item = f64> {
    observation.iter().copied().map(f64::from)
}

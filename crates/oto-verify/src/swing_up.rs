//! The kind `env_trajectories` of CartPoleSwingUp: each episode has its own constants; single steps stand beside episodes.

use crate::compare::{Outcome, Worst};
use crate::environments::{EXACT, ROUNDED, parse, same_length, wide};
use crate::read::Cases;
use oto_env::ClassicEnvironment;
use oto_env::Environment;
use oto_env::swing_up::{Config, Options, SwingUp};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The environment's name in files, with or without a version.
pub(crate) const NAME: &str = "CartPoleSwingUp";

/// Actions in an observation.
const ACTIONS: usize = 5;

#[derive(Deserialize)]
struct Trajectories {
    rule_config: Option<Map<String, Value>>,
    published_config: Option<Map<String, Value>>,
    #[serde(default)]
    episodes: Vec<Episode>,
    #[serde(default)]
    single_steps: Vec<SingleStep>,
}

#[derive(Deserialize)]
struct Episode {
    #[serde(default)]
    label: String,
    config: Map<String, Value>,
    initial_state: Vec<f64>,
    initial_observation: Option<Vec<f64>>,
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
    #[serde(default)]
    what: String,
    config: Map<String, Value>,
    state: Vec<f64>,
    on_target_before: f64,
    last_actions: Vec<f64>,
    queued: Vec<f64>,
    action: f64,
    next_state: Vec<f64>,
    observation: Vec<f64>,
    reward: f64,
    on_target: f64,
    terminated: bool,
}

/// One case for each variant, episode and single step.
pub(crate) fn trajectories(text: &[u8]) -> Result<Cases, String> {
    let Trajectories { rule_config, published_config, episodes, single_steps } = parse(text)?;
    let compared = |result: Result<Worst, String>| result.map_or_else(Outcome::Failed, Outcome::Compared);
    let variants =
        [("rule", rule_config, Config::default()), ("published", published_config, Config::published())];
    let variants = variants.into_iter().filter_map(|(name, recorded, built_in)| {
        let outcome = compared(check_variant(&recorded?, &built_in));
        Some((format!("{NAME} {name}"), outcome))
    });
    let short = |text: &str| text.chars().take(80).collect::<String>();
    let episodes = episodes.iter().enumerate().map(|(index, episode)| {
        let case = format!("{NAME} episode {index} ({})", short(&episode.label));
        (case, compared(check_episode(episode)))
    });
    let single_steps = single_steps.iter().enumerate().map(|(index, step)| {
        let case = format!("{NAME} single step {index} ({})", short(&step.what));
        (case, compared(check_single_step(step)))
    });
    Ok(variants.chain(episodes).chain(single_steps).collect())
}

/// The recorded constants.
fn config(recorded: &Map<String, Value>) -> Result<Config, String> {
    let mut config = Config::default();
    for (name, value) in recorded {
        let text = value.as_str().map_or_else(|| value.to_string(), Into::into);
        config.set(name, &text).map_err(|error| format!("config: {error}"))?;
    }
    Ok(config)
}

fn check_variant(recorded: &Map<String, Value>, built_in: &Config) -> Result<Worst, String> {
    let mut worst = Worst::default();
    worst.flag(config(recorded)? == *built_in, true, EXACT, || "the constants".into());
    Ok(worst)
}

/// The environment of an evaluation: its episodes have full length.
fn environment(recorded: &Map<String, Value>) -> Result<SwingUp, String> {
    let options = Options { config: config(recorded)?, ..Options::simulation() };
    let mut environment = SwingUp::with(NAME.into(), options);
    environment.evaluate(true);
    Ok(environment)
}

/// The last actions before step `t`, as many as the environment keeps.
fn history(actions: &[f64], t: usize, length: usize) -> impl Iterator<Item = f64> {
    (0..length).map(move |i| {
        let back = length - i;
        if back <= t { actions[t - back].clamp(-1.0, 1.0) } else { 0.0 }
    })
}

fn kept(environment: &SwingUp) -> usize {
    ACTIONS.max(environment.options().config.delay as usize)
}

fn check_episode(episode: &Episode) -> Result<Worst, String> {
    let steps = episode.actions.len();
    for (name, length) in [
        ("states", episode.states.len()),
        ("observations", episode.observations.len()),
        ("rewards", episode.rewards.len()),
        ("on_target", episode.on_target.len()),
        ("terminated", episode.terminated.len()),
        ("truncated", episode.truncated.len()),
    ] {
        same_length(name, steps, length)?;
    }
    let mut environment = environment(&episode.config)?;
    let length = kept(&environment);
    let mut worst = Worst::default();
    for t in 0..steps {
        let at_step = |reason: String| format!("step {t}: {reason}");
        let before = if t == 0 { &episode.initial_state } else { &episode.states[t - 1] };
        let on_target = if t == 0 { 0.0 } else { episode.on_target[t - 1] };
        let history = history(&episode.actions, t, length);
        set(&mut environment, before, on_target, history, t).map_err(at_step)?;
        if let (0, Some(expected)) = (t, &episode.initial_observation) {
            observation(&mut worst, &environment, expected, "initial_observation")?;
        }
        let step = environment.advance(episode.actions[t]).map_err(|error| at_step(error.to_string()))?;
        state(&mut worst, &environment, &episode.states[t], &format!("states[{t}]"))?;
        observation(&mut worst, &environment, &episode.observations[t], &format!("observations[{t}]"))?;
        worst.number(step.reward, episode.rewards[t], EXACT, || format!("rewards[{t}]"));
        worst.number(environment.on_target(), episode.on_target[t], EXACT, || format!("on_target[{t}]"));
        worst.flag(step.terminated, episode.terminated[t], EXACT, || format!("terminated[{t}]"));
        worst.flag(step.truncated, episode.truncated[t], EXACT, || format!("truncated[{t}]"));
    }
    Ok(worst)
}

fn check_single_step(case: &SingleStep) -> Result<Worst, String> {
    let mut environment = environment(&case.config)?;
    let delay = environment.options().config.delay as usize;
    same_length("last_actions", ACTIONS, case.last_actions.len())?;
    same_length("queued", delay, case.queued.len())?;
    // The last actions are the end of the queue, or the queue is the end of the last actions.
    let (longer, shorter) =
        if delay > ACTIONS { (&case.queued, &case.last_actions) } else { (&case.last_actions, &case.queued) };
    if !longer.ends_with(shorter) {
        return Err("expected queued and last_actions to end alike".into());
    }
    set(&mut environment, &case.state, case.on_target_before, longer.iter().copied(), 0)?;
    let step = environment.advance(case.action).map_err(|error| error.to_string())?;
    let mut worst = Worst::default();
    state(&mut worst, &environment, &case.next_state, "next_state")?;
    observation(&mut worst, &environment, &case.observation, "observation")?;
    worst.number(step.reward, case.reward, EXACT, || "reward".into());
    worst.number(environment.on_target(), case.on_target, EXACT, || "on_target".into());
    worst.flag(step.terminated, case.terminated, EXACT, || "terminated".into());
    Ok(worst)
}

/// Puts the environment into a recorded state.
fn set(
    environment: &mut SwingUp,
    motion: &[f64],
    on_target: f64,
    history: impl Iterator<Item = f64>,
    elapsed: usize,
) -> Result<(), String> {
    same_length("the state", 4, motion.len())?;
    let state: Vec<f64> = motion.iter().copied().chain([on_target]).chain(history).collect();
    let elapsed = u32::try_from(elapsed).unwrap_or(u32::MAX);
    environment.set_state(&state, elapsed).map_err(|error| error.to_string())
}

fn state(worst: &mut Worst, environment: &SwingUp, expected: &[f64], at: &str) -> Result<(), String> {
    let got = environment.motion();
    same_length(at, got.len(), expected.len())?;
    worst.numbers(got, expected, EXACT, || at.into());
    Ok(())
}

fn observation(worst: &mut Worst, environment: &SwingUp, expected: &[f64], at: &str) -> Result<(), String> {
    let mut got = [0.0; 5 + ACTIONS];
    same_length(at, got.len(), expected.len())?;
    environment.observe(&mut got).map_err(|error| error.to_string())?;
    worst.numbers(wide(&got), expected, ROUNDED, || at.into());
    Ok(())
}

//! The kind `mobile_env_trajectories`: the start that each episode's seed draws, and one step from each recorded state.
//! mobile-env names the parts of a state one by one.

use crate::compare::{Outcome, Worst};
use crate::environments::{EXACT, ROUNDED, parse, same_length, wide};
use crate::read::Cases;
use oto_env::mobile_cell::{LTE, NR, STATIONS};
use oto_env::{Action, ClassicEnvironment, EnvError, make_classic};
use serde::Deserialize;

#[derive(Deserialize)]
struct Trajectories {
    config: Config,
    episodes: Vec<Episode>,
}

#[derive(Deserialize)]
struct Config {
    variant: String,
}

#[derive(Deserialize)]
struct Episode {
    #[serde(default)]
    label: String,
    env_seed: u64,
    initial: Start,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Start {
    position: [f64; 2],
    observation: Vec<f64>,
}

#[derive(Deserialize)]
struct Step {
    action: u32,
    position_before: [f64; 2],
    waypoint_used: [f64; 2],
    position: [f64; 2],
    connections: [f64; STATIONS],
    utility: f64,
    observation: Vec<f64>,
    reward: f64,
    terminated: bool,
    truncated: bool,
}

/// One case for each episode.
pub(crate) fn trajectories(text: &[u8]) -> Result<Cases, String> {
    let Trajectories { config, episodes } = parse(text)?;
    let id = match config.variant.as_str() {
        "lte" => LTE.id,
        "5g" => NR.id,
        other => {
            let other: String = other.chars().take(64).collect();
            let reason = format!("expected the variant lte or 5g, got {other:?}");
            return Ok(vec![(other, Outcome::Unsupported(reason))]);
        }
    };
    let mut environment = make_classic(id).map_err(|error| error.to_string())?;
    let case = |(index, episode): (usize, &Episode)| {
        let label: String = episode.label.chars().take(80).collect();
        let outcome =
            check_episode(&mut *environment, episode).map_or_else(Outcome::Failed, Outcome::Compared);
        (format!("{id} episode {index} ({label})"), outcome)
    };
    Ok(episodes.iter().enumerate().map(case).collect())
}

fn check_episode(environment: &mut dyn ClassicEnvironment, episode: &Episode) -> Result<Worst, String> {
    let mut observation = vec![0.0; environment.observation_space().width()];
    let mut worst = Worst::default();
    environment.reset(Some(episode.env_seed), &mut observation).map_err(|error| error.to_string())?;
    let Start { position, observation: expected } = &episode.initial;
    same_length("the observation", observation.len(), expected.len())?;
    worst.numbers(environment.state()[..2].iter().copied(), position, EXACT, || "initial.position".into());
    worst.numbers(wide(&observation), expected, ROUNDED, || "initial.observation".into());
    let state = |position: &[f64], waypoint: &[f64], connections: &[f64], utility: f64| {
        [position, waypoint, connections, &[utility]].concat()
    };
    let (mut connections, mut utility) = ([0.0; STATIONS], -1.0);
    for (t, recorded) in episode.steps.iter().enumerate() {
        let refused = |error: EnvError| format!("step {t}: {error}");
        same_length("the observation", observation.len(), recorded.observation.len())?;
        let waypoint = &recorded.waypoint_used;
        let before = state(&recorded.position_before, waypoint, &connections, utility);
        let after = state(&recorded.position, waypoint, &recorded.connections, recorded.utility);
        environment.set_state(&before, u32::try_from(t).unwrap_or(u32::MAX)).map_err(refused)?;
        let step = environment.step(Action::Discrete(recorded.action), &mut observation).map_err(refused)?;
        worst.numbers(environment.state().iter().copied(), &after, EXACT, || format!("steps[{t}] state"));
        worst.numbers(wide(&observation), &recorded.observation, ROUNDED, || {
            format!("steps[{t}].observation")
        });
        worst.number(step.reward, recorded.reward, EXACT, || format!("steps[{t}].reward"));
        worst.flag(step.terminated, recorded.terminated, EXACT, || format!("steps[{t}].terminated"));
        worst.flag(step.truncated, recorded.truncated, EXACT, || format!("steps[{t}].truncated"));
        (connections, utility) = (recorded.connections, recorded.utility);
    }
    Ok(worst)
}

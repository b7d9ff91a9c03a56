//! The kind `minatar_trajectories`: games from a seed, with every observation, reward and end that the package gave.

use crate::compare::{Outcome, Worst};
use crate::environments::{EXACT, parse, same_length};
use crate::read::Cases;
use oto_env::minatar::MinAtar;
use oto_env::{Action, EnvError, Environment};
use serde::Deserialize;

#[derive(Deserialize)]
struct Trajectories {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    seed: u64,
    actions: Vec<u32>,
    /// Steps with another reward than 0, and their rewards.
    rewards: Vec<(usize, f64)>,
    /// Steps that ended an episode.
    ends: Vec<usize>,
    /// The places of `[10, 10, channels]` that are set: after the first reset, after each step, and after the reset that follows an end.
    observations: Vec<Vec<usize>>,
}

/// One case for each game from a seed.
pub(crate) fn trajectories(text: &[u8]) -> Result<Cases, String> {
    let Trajectories { cases } = parse(text)?;
    let case = |case: &Case| {
        let id: String = case.id.chars().take(80).collect();
        let outcome = match MinAtar::new(&case.id) {
            Ok(game) => check(game, case).map_or_else(Outcome::Failed, Outcome::Compared),
            Err(error) => Outcome::Unsupported(error.to_string()),
        };
        (format!("{id} seed {}", case.seed), outcome)
    };
    Ok(cases.iter().map(case).collect())
}

fn check(mut game: MinAtar, case: &Case) -> Result<Worst, String> {
    let refused = |error: EnvError| error.to_string();
    let steps = case.actions.len();
    same_length("observations", 1 + steps + case.ends.len(), case.observations.len())?;
    let rewards = in_order("rewards", steps, case.rewards.iter().map(|(at, reward)| (*at, *reward)))?;
    let ends = in_order("ends", steps, case.ends.iter().map(|at| (*at, 1.0)))?;
    let mut worst = Worst::default();
    let mut observation = vec![0.0; game.observation_space().width()];
    let mut expected = case.observations.iter().enumerate();
    let mut observe = |worst: &mut Worst, observation: &[f32]| {
        if let Some((i, places)) = expected.next() {
            let set = observation.iter().enumerate().filter(|(_, number)| **number == 1.0);
            let same = set.map(|(place, _)| place).eq(places.iter().copied());
            worst.flag(same, true, EXACT, || format!("observations[{i}]"));
        }
    };
    game.reset(Some(case.seed), &mut observation).map_err(refused)?;
    observe(&mut worst, &observation);
    for (t, action) in case.actions.iter().enumerate() {
        let step = game
            .step(Action::Discrete(*action), &mut observation)
            .map_err(|error| format!("step {t}: {error}"))?;
        worst.number(step.reward, rewards[t], EXACT, || format!("the reward of step {t}"));
        worst.flag(step.terminated, ends[t] == 1.0, EXACT, || format!("the end of step {t}"));
        observe(&mut worst, &observation);
        if step.done() != (ends[t] == 1.0) {
            // The games are not the same from here.
            break;
        }
        if step.done() {
            game.reset(None, &mut observation).map_err(refused)?;
            observe(&mut worst, &observation);
        }
    }
    Ok(worst)
}

/// Numbers at steps that follow one another, 0 at the steps between.
fn in_order(name: &str, steps: usize, given: impl Iterator<Item = (usize, f64)>) -> Result<Vec<f64>, String> {
    let mut all = vec![0.0; steps];
    let mut next = 0;
    for (at, number) in given {
        if at < next || at >= steps {
            return Err(format!(
                "expected {name} at steps from {next} to {}, got {at}",
                steps.saturating_sub(1)
            ));
        }
        all[at] = number;
        next = at + 1;
    }
    Ok(all)
}

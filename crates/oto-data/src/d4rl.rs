//! D4RL's layout: one file with all steps under each other, and two columns that say where episodes end.
//!
//! Source: D4RL, `d4rl/offline_env.py` (names and shapes) and `d4rl/__init__.py` (`qlearning_dataset`, `sequence_dataset`);
//! <https://github.com/Farama-Foundation/D4RL/wiki/Tasks>.
//!
//! The file has an observation for each step but not the one after an episode's last step. As in `qlearning_dataset`, what
//! follows a termination is the next row, which no learner looks beyond; a step that ran into the time limit, or that the
//! file ends with, is left out, because what it led to is not known, and its observation is where the step before it led.
//! Where the file has `next_observations`, all of them are known and no step is left out.

use crate::hdf5::{Array, Reader};
use crate::minari::{choices, column, rows_of, unbounded};
use crate::{DataError, Dataset, Episode, Metadata};
use hdf5_pure::Group;
use oto_env::SpaceTree;

/// What the file has to have. One without `timeouts` does not tell where episodes were cut.
pub(crate) const NAMES: [&str; 5] = ["observations", "actions", "rewards", "terminals", "timeouts"];

/// The columns, all of the same length.
struct Steps {
    observations: Array<f32>,
    next: Option<Array<f32>>,
    actions: Array<f32>,
    rewards: Vec<f64>,
    terminals: Vec<bool>,
    timeouts: Vec<bool>,
}

/// Reads a file whose root has [`NAMES`]. The spaces are what the columns show: observations and actions without bounds,
/// or, of whole numbers, as many choices as the largest needs.
pub(crate) fn read(reader: &mut Reader, root: &Group, has_next: bool) -> Result<Dataset, DataError> {
    let rewards = reader.doubles(root, "rewards", "rewards")?;
    let rows = rewards.rows;
    column("rewards", &rewards, rows)?;
    let observations = reader.floats(root, "observations", "observations")?;
    let observation = unbounded(observations.width);
    let tree = SpaceTree::from(observation.clone());
    rows_of("observations", &observations, rows, &tree)?;
    let next = match has_next {
        true => Some(reader.floats(root, "next_observations", "next_observations")?),
        false => None,
    };
    if let Some(next) = &next {
        rows_of("next_observations", next, rows, &tree)?;
    }
    let actions = reader.floats(root, "actions", "actions")?;
    let indices = actions.whole && actions.width == 1;
    let numbers = unbounded(actions.width);
    rows_of("actions", &actions, rows, &numbers.clone().into())?;
    let terminals = reader.flags(root, "terminals", "terminals")?;
    column("terminals", &terminals, rows)?;
    let timeouts = reader.flags(root, "timeouts", "timeouts")?;
    column("timeouts", &timeouts, rows)?;

    let steps = Steps {
        observations,
        next,
        actions,
        rewards: rewards.values,
        terminals: terminals.values,
        timeouts: timeouts.values,
    };
    let episodes = split(&steps);
    let action = if indices { choices(&episodes) } else { numbers };
    Ok(Dataset { observation, action, episodes, metadata: Metadata::default() })
}

fn split(steps: &Steps) -> Vec<Episode> {
    let mut episodes = Vec::new();
    let mut start = 0;
    let rows = steps.rewards.len();
    for row in 0..rows {
        if steps.terminals[row] || steps.timeouts[row] || row + 1 == rows {
            episodes.extend(episode(steps, start, row));
            start = row + 1;
        }
    }
    episodes
}

/// The episode of rows `start..=last`, if a step of it has an end that is known.
fn episode(steps: &Steps, start: usize, last: usize) -> Option<Episode> {
    let width = steps.observations.width;
    let observation = |row: usize| &steps.observations.values[row * width..(row + 1) * width];
    // A time limit goes before a termination where it hides what followed, as in `qlearning_dataset`.
    let terminated = steps.terminals[last] && (steps.next.is_some() || !steps.timeouts[last]);
    let (end, after) = match &steps.next {
        Some(next) => (last + 1, &next.values[last * width..(last + 1) * width]),
        None if terminated && last + 1 < steps.rewards.len() => (last + 1, observation(last + 1)),
        None => (last, observation(last)),
    };
    let length = end - start;
    if length == 0 {
        return None;
    }
    let mut episode = Episode {
        observations: [&steps.observations.values[start * width..end * width], after].concat().into(),
        actions: steps.actions.values[start * steps.actions.width..end * steps.actions.width].to_vec(),
        rewards: steps.rewards[start..end].to_vec(),
        terminated: vec![false; length],
        truncated: vec![false; length],
        seed: None,
    };
    let ended = terminated && end > last;
    episode.terminated[length - 1] = ended;
    episode.truncated[length - 1] = !ended;
    Some(episode)
}

//! The best that can be done in an episode whose path is known beforehand: the bound to measure policies by.
//!
//! The device moves whatever it is connected to, so the path of an episode is fixed by its seed. On a known path only the
//! 128 sets of connections are left as states, and dynamic programming backwards over them (Bellman) tries every sequence
//! of actions. No policy can have a larger return in that episode, and one that does not foresee the path has no more than
//! that on average.

use super::{Radio, Reception, STATIONS, utility};
use crate::{Action, ClassicEnvironment, EnvError};

const SETS: usize = 1 << STATIONS;

/// The best actions of the rest of an episode.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// One for each step that is left.
    pub actions: Vec<u32>,
    /// Their return, the largest there is.
    pub value: f64,
}

/// The best plan from where the environment stands to the end of its episode; the environment stays there.
///
/// # Errors
/// [`EnvError::UnknownId`] if the environment is not one of cell selection, and what a step may say.
pub fn best_plan(environment: &mut dyn ClassicEnvironment) -> Result<Plan, EnvError> {
    let radio = Radio::of(environment.id())?;
    let mut set = as_set(Reception::of(environment)?.connected);
    let path = path(environment)?;
    let choices = solve(&radio, &path);
    let (mut actions, mut value) = (Vec::with_capacity(path.len()), 0.0);
    for (at, choices) in path.iter().zip(&choices) {
        let (action, after) = (choices[set], after(set, choices[set], at.in_range));
        value += at.reward(&radio, after);
        actions.push(action);
        set = after;
    }
    Ok(Plan { actions, value })
}

/// A point of the path.
struct Point {
    snr: [f64; STATIONS],
    /// The stations in range, as a set.
    in_range: usize,
}

impl Point {
    fn reward(&self, radio: &Radio, set: usize) -> f64 {
        utility((0..STATIONS).filter(|k| set >> k & 1 == 1).map(|k| radio.rate(self.snr[k])).sum())
    }
}

fn as_set(stations: [bool; STATIONS]) -> usize {
    (0..STATIONS).filter(|&k| stations[k]).map(|k| 1 << k).sum()
}

/// The connections after a step that begins with these.
fn after(set: usize, action: u32, in_range: usize) -> usize {
    let toggled = if action == 0 { 0 } else { 1 << (action - 1) };
    // Whatever is out of range is released, and cannot be connected to.
    (set ^ toggled) & in_range
}

/// Where the device will be before each step that is left.
fn path(environment: &mut dyn ClassicEnvironment) -> Result<Vec<Point>, EnvError> {
    let start = environment.save()?;
    let mut observation = vec![0.0; environment.observation_space().width()];
    let mut path = Vec::new();
    loop {
        let reception = Reception::of(environment)?;
        let in_range = as_set(std::array::from_fn(|k| reception.in_range(k)));
        path.push(Point { snr: reception.snr, in_range });
        let step = environment.step(Action::Discrete(0), &mut observation);
        if !matches!(step, Ok(step) if !step.done()) {
            environment.restore(&start)?;
            return step.map(|_| path);
        }
    }
}

/// The best action of every set before every step.
fn solve(radio: &Radio, path: &[Point]) -> Vec<[u32; SETS]> {
    let mut values = [0.0; SETS];
    let mut choices = vec![[0; SETS]; path.len()];
    for (at, choices) in path.iter().zip(&mut choices).rev() {
        // What it is worth to make this step with a set connected.
        let worth: [f64; SETS] = std::array::from_fn(|set| at.reward(radio, set & at.in_range) + values[set]);
        for set in 0..SETS {
            let worth = |action| worth[after(set, action, at.in_range)];
            // The first of equals: no change where none is needed.
            let better = |best, action| if worth(action) > worth(best) { action } else { best };
            choices[set] = (1..=STATIONS as u32).fold(0, better);
            values[set] = worth(choices[set]);
        }
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::make_classic;
    use crate::mobile_cell::{LTE, NR};

    fn begun(id: &str, seed: u64) -> Box<dyn ClassicEnvironment> {
        let mut environment = make_classic(id).unwrap();
        environment.reset(Some(seed), &mut [0.0; 15]).unwrap();
        environment
    }

    fn play(environment: &mut dyn ClassicEnvironment, actions: &[u32]) -> f64 {
        let mut observation = [0.0; 15];
        let mut step = |&action| environment.step(Action::Discrete(action), &mut observation).unwrap().reward;
        actions.iter().map(&mut step).sum()
    }

    #[test]
    fn a_plan_gives_what_it_promises_and_leaves_the_environment_where_it_was() {
        for (id, seed) in [(LTE.id, 3), (NR.id, 3), (NR.id, 4)] {
            let mut environment = begun(id, seed);
            let before = environment.save();
            let plan = best_plan(&mut *environment).unwrap();
            assert_eq!(environment.save(), before);
            assert_eq!(plan.actions.len(), 100);
            assert!((play(&mut *environment, &plan.actions) - plan.value).abs() < 1e-9);
            assert_eq!(best_plan(&mut *environment), Err(EnvError::EpisodeOver));
        }
    }

    /// All 8^5 ways through the last five steps of an episode, from a set that holds a station out of range.
    #[test]
    fn no_sequence_of_actions_is_better() {
        for seed in 0..3 {
            let mut environment = begun(NR.id, seed);
            let mut state = environment.state().to_vec();
            state[4..11].fill(1.0);
            environment.set_state(&state, 95).unwrap();
            let start = environment.save().unwrap();
            let plan = best_plan(&mut *environment).unwrap();
            let mut best = f64::NEG_INFINITY;
            for number in 0..8u32.pow(5) {
                environment.restore(&start).unwrap();
                let actions: [u32; 5] = std::array::from_fn(|digit| number >> (3 * digit) & 7);
                best = best.max(play(&mut *environment, &actions));
            }
            assert!((plan.value - best).abs() < 1e-12, "{} {best}", plan.value);
        }
    }

    #[test]
    fn other_environments_and_unbegun_episodes_have_no_plan() {
        let mut cartpole = make_classic("CartPole-v1").unwrap();
        assert!(matches!(best_plan(&mut *cartpole), Err(EnvError::UnknownId { .. })));
        let mut environment = make_classic(LTE.id).unwrap();
        assert_eq!(best_plan(&mut *environment), Err(EnvError::NotReset));
    }
}

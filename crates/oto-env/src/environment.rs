//! The seam every environment stands behind: Gymnasium's `reset` and `step`, plus exact save and restore.

use crate::rng::Rng;
use crate::{EnvError, Space};

/// What an agent does in one step, borrowed from whoever decided it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action<'a> {
    /// A choice of a discrete space, from 0.
    Discrete(u32),
    /// A vector of a box, in the environment's units.
    Continuous(&'a [f32]),
}

/// What one step gave, besides the observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The reward of this step.
    pub reward: f64,
    /// The episode ended inside the task (goal reached, pole fallen): no value lies beyond.
    pub terminated: bool,
    /// The episode was cut, as by the time limit: the state goes on having a value.
    pub truncated: bool,
}

impl Step {
    /// Whether the episode ended, for whichever reason.
    pub fn done(&self) -> bool {
        self.terminated || self.truncated
    }
}

/// The seed that leaves oto for one of 64 bits: of 31 bits, because C's integers and NumPy's older generator take no more. A seed
/// of 31 bits is itself; the upper bits of a larger one are folded in.
pub fn small_seed(seed: u64) -> u32 {
    let folded = seed ^ seed >> 31 ^ seed >> 62;
    let seed = if seed >> 31 == 0 { seed } else { folded };
    (seed & 0x7fff_ffff) as u32
}

/// Where an environment stands in its episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Created, never reset.
    New,
    /// Inside an episode: `step` is allowed.
    Running,
    /// After an episode's end: `reset` comes next.
    Ended,
}

oto_json::json_names! { Phase { New = "new", Running = "running", Ended = "ended" } }

/// All an environment needs to go on exactly where it was: feed it to [`Environment::restore`].
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The environment's id; restoring into another one is refused.
    pub id: String,
    /// The state in float64.
    pub state: Vec<f64>,
    /// Steps taken in this episode.
    pub elapsed_steps: u32,
    /// Before, in or after an episode.
    pub phase: Phase,
    /// The generator that the next `reset(None)` draws from.
    pub rng: Rng,
}

oto_json::json_object! { Snapshot: open { id, state, elapsed_steps, phase, rng } }

impl Snapshot {
    /// Refuses a snapshot of another environment, or one that this environment cannot have saved.
    pub(crate) fn check(&self, id: &str, length: usize, max_episode_steps: u32) -> Result<(), EnvError> {
        self.check_episode(id, Some(max_episode_steps))?;
        let refuse = |error: EnvError| EnvError::Snapshot { id: id.into(), reason: error.to_string() };
        check_state(id, length, &self.state).map_err(refuse)
    }

    /// Refuses a snapshot of another environment, or of an episode beyond its time limit.
    pub(crate) fn check_episode(&self, id: &str, limit: Option<u32>) -> Result<(), EnvError> {
        let refuse = |reason| EnvError::Snapshot { id: id.into(), reason };
        if self.id != id {
            let other: String = self.id.chars().take(64).collect();
            return Err(refuse(format!("the snapshot is of {other:?}")));
        }
        match limit {
            Some(limit) if self.phase == Phase::Running && self.elapsed_steps >= limit => {
                let got = self.elapsed_steps;
                Err(refuse(format!("an episode of {limit} steps cannot go on after {got}")))
            }
            _ => Ok(()),
        }
    }
}

/// The largest component of a state that can be set from outside: far beyond every environment's own range, and far
/// enough from infinity for one step to stay finite.
const LARGEST_STATE: f64 = 1e6;

/// Refuses numbers that cannot be a state of this length.
pub(crate) fn check_state(id: &str, length: usize, state: &[f64]) -> Result<(), EnvError> {
    let refuse = |got| EnvError::State { id: id.into(), expected: length, got };
    if state.len() != length {
        return Err(refuse(format!("{} numbers", state.len())));
    }
    let usable = |component: &f64| component.abs() <= LARGEST_STATE;
    match state.iter().position(|component| !usable(component)) {
        Some(index) => Err(refuse(format!("{} as number {index}", oto_json::shown(&state[index])))),
        None => Ok(()),
    }
}

/// An environment to act in. Spaces, seeds, termination and truncation mean what they mean in Gymnasium.
pub trait Environment: Send {
    /// The environment's name and version, such as `CartPole-v1`.
    fn id(&self) -> &str;

    /// What observations look like; `observation_space().width()` is the length of every observation buffer.
    fn observation_space(&self) -> &Space;

    /// What actions look like.
    fn action_space(&self) -> &Space;

    /// After how many steps an episode is truncated, if ever.
    fn max_episode_steps(&self) -> Option<u32>;

    /// Starts an episode and writes its first observation (float32, `[width]`).
    ///
    /// `Some(seed)` seeds the generator first, so that the initial state is the seed's own; `None` goes on with the
    /// generator as it is, as in Gymnasium. A built-in environment that was never seeded starts from seed 0.
    ///
    /// # Errors
    /// [`EnvError::ObservationLength`]; an environment outside this crate may have its own.
    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError>;

    /// Acts once and writes the observation that follows (float32, `[width]`).
    ///
    /// A continuous action may lie outside its range: each environment clips or uses it as its Gymnasium twin does.
    ///
    /// # Errors
    /// A wrong kind, choice, length or a number that is not finite; a step before `reset` or after the episode's end.
    /// The environment and the buffer are then as they were.
    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Result<Step, EnvError>;

    /// Tells the environment whether the next episodes are evaluations. Most do not care; `CartPoleSwingUp-v0` ends training
    /// episodes early.
    fn evaluate(&mut self, on: bool) {
        let _ = on;
    }

    /// A number about the episode beside the reward, by its name: `success`, `on_target`. `None` for a name that it does not have.
    fn info(&self, name: &str) -> Option<f64> {
        let _ = name;
        None
    }

    /// Everything needed to go on from here.
    ///
    /// # Errors
    /// [`EnvError::NotSaved`] from an environment whose state nobody reaches; built-in ones are always saved.
    fn save(&self) -> Result<Snapshot, EnvError>;

    /// Goes on from a snapshot: the same actions then give the same numbers, bit by bit.
    ///
    /// # Errors
    /// [`EnvError::Snapshot`] if the snapshot is another environment's or holds an impossible state; [`EnvError::NotSaved`].
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError>;
}

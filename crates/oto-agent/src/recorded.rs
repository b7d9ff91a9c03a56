//! Recorded episodes as a source of transitions: their form, and the check of every number before a replay buffer takes them.

use crate::trainer::{from_units, is_byte};
use oto_env::{Action, Space};
use oto_rl::replay::Replay;

/// The most transitions that are held.
pub(crate) const MAX_TRANSITIONS: usize = 1 << 30;

/// Why recorded data cannot be learned from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RecordedError {
    /// There are no data to learn from.
    #[error("there are no transitions to learn from")]
    Empty,
    /// Data for a trainer that has an environment alone.
    #[error("this run learns from an environment: mix recorded episodes in first")]
    Environment,
    /// More data than are held.
    #[error("more than {MAX_TRANSITIONS} transitions")]
    TooMany,
    /// An episode whose arrays do not belong together.
    #[error("an episode of {steps} steps needs {expected} numbers as {what}, got {got}")]
    Length {
        /// Of how many rewards.
        steps: usize,
        /// "observations" or "actions".
        what: &'static str,
        /// How many belong to them.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// A number that no learner can use.
    #[error("step {step}: the {what} holds {}, not a finite number of single precision", oto_json::Shown(*.value))]
    NotFinite {
        /// Which step of the episode, from 0.
        step: usize,
        /// "observation" or "reward".
        what: &'static str,
        /// The number.
        value: f64,
    },
    /// A number of an image that is no byte.
    #[error("step {step}: the observation holds {}, expected a pixel: a whole number from 0 to 255", oto_json::shown(.value))]
    Pixel {
        /// Which step of the episode, from 0.
        step: usize,
        /// The number.
        value: f32,
    },
    /// An action outside its space.
    #[error("step {step}: [{}] is no action of the space", oto_json::shown_list(.action))]
    Action {
        /// Which step of the episode, from 0.
        step: usize,
        /// What was recorded.
        action: Vec<f32>,
    },
}

/// Observations as they were recorded, row by row.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// As numbers.
    Numbers(&'a [f32]),
    /// As bytes, which images are made of.
    Bytes(&'a [u8]),
}

impl Seen<'_> {
    fn len(self) -> usize {
        match self {
            Seen::Numbers(numbers) => numbers.len(),
            Seen::Bytes(bytes) => bytes.len(),
        }
    }

    /// Row `i` of this width.
    fn row(self, i: usize, width: usize, to: &mut Vec<f32>) {
        to.clear();
        match self {
            Seen::Numbers(numbers) => to.extend_from_slice(&numbers[i * width..(i + 1) * width]),
            Seen::Bytes(bytes) => to.extend(bytes[i * width..(i + 1) * width].iter().map(|b| f32::from(*b))),
        }
    }

    /// Where the first number is that this holds for.
    fn find(self, wrong: impl Fn(f32) -> bool) -> Option<(usize, f32)> {
        // A byte is finite, and a pixel.
        let Seen::Numbers(numbers) = self else { return None };
        numbers.iter().position(|x| wrong(*x)).map(|at| (at, numbers[at]))
    }
}

/// One episode of `T` steps, or a piece of one, as it was recorded.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// `[T + 1, observation width]`: before each step, and after the last.
    pub observations: Seen<'a>,
    /// `[T, action width]` in the environment's units; a discrete action is its index as a number.
    pub actions: &'a [f32],
    /// `[T]`.
    pub rewards: &'a [f64],
    /// Whether the last step ended the episode by its own rules, so that no return lies beyond it. Otherwise it was cut off
    /// there, and the last observation has a value.
    pub terminated: bool,
}

impl Recorded<'_> {
    /// Checks every number, for observations of `width` numbers (`pixels`: bytes) and actions of `space`.
    pub(crate) fn check(&self, width: usize, pixels: bool, space: &Space) -> Result<(), RecordedError> {
        let (steps, numbers) = (self.rewards.len(), space.width());
        for (what, expected, got) in [
            ("observations", (steps + 1).saturating_mul(width), self.observations.len()),
            ("actions", steps.saturating_mul(numbers), self.actions.len()),
        ] {
            if expected != got {
                return Err(RecordedError::Length { steps, what, expected, got });
            }
        }
        if let Some((at, value)) = self.observations.find(|x| !x.is_finite()) {
            let value = value.into();
            return Err(RecordedError::NotFinite { step: at / width, what: "observation", value });
        }
        if let Some((at, value)) = self.observations.find(|x| pixels && !is_byte(x)) {
            return Err(RecordedError::Pixel { step: at / width, value });
        }
        if let Some(step) = self.rewards.iter().position(|r| !(*r as f32).is_finite()) {
            return Err(RecordedError::NotFinite { step, what: "reward", value: self.rewards[step] });
        }
        let inside = |row: &[f32]| match space {
            Space::Discrete { .. } if row[0].fract() != 0.0 || row[0] < 0.0 => false,
            _ => space.contains(action(space, row)),
        };
        match self.actions.chunks_exact(numbers).position(|row| !inside(row)) {
            Some(step) => {
                let action = self.actions[step * numbers..(step + 1) * numbers].to_vec();
                Err(RecordedError::Action { step, action })
            }
            None => Ok(()),
        }
    }

    /// Stores the episode, which was checked.
    pub(crate) fn store(&self, width: usize, space: &Space, replay: &mut Replay, mark: &mut DataMark) {
        let (mut row, mut seen, mut next) = (Vec::new(), Vec::new(), Vec::new());
        let steps = self.rewards.len();
        for (step, recorded) in self.actions.chunks_exact(space.width()).enumerate() {
            row.clear();
            from_units(space, action(space, recorded), &mut row);
            let last = step + 1 == steps;
            let (terminated, truncated) = (last && self.terminated, last && !self.terminated);
            let reward = self.rewards[step] as f32;
            self.observations.row(step, width, &mut seen);
            self.observations.row(step + 1, width, &mut next);
            replay.push(&seen, &row, reward, &next, terminated, truncated, |_, _| {});
            mark.transitions += 1;
            let all = seen.iter().chain(&row).chain(&next);
            all.chain([&reward, &f32::from(terminated)]).for_each(|number| mark.add(*number));
        }
    }
}

/// Which data a run learns from: two runs with equal marks have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataMark {
    pub transitions: u64,
    digest: u64,
}

oto_json::json_object! { DataMark: open { transitions, digest } }

impl DataMark {
    /// No data yet.
    pub const EMPTY: Self = Self { transitions: 0, digest: 0xcbf2_9ce4_8422_2325 };

    /// FNV-1a over the numbers' bits.
    fn add(&mut self, number: f32) {
        self.digest = (self.digest ^ u64::from(number.to_bits())).wrapping_mul(0x0100_0000_01b3);
    }
}

/// A recorded row of numbers as an action.
fn action<'a>(space: &Space, row: &'a [f32]) -> Action<'a> {
    match space {
        Space::Discrete { .. } => Action::Discrete(row[0] as u32),
        Space::Box { .. } => Action::Continuous(row),
    }
}

/// A dataset's episode.
#[cfg(feature = "datasets")]
impl<'a> From<&'a oto_data::Episode> for Recorded<'a> {
    fn from(episode: &'a oto_data::Episode) -> Self {
        Self {
            observations: match &episode.observations {
                oto_data::Rows::Numbers(numbers) => Seen::Numbers(numbers),
                oto_data::Rows::Bytes(bytes) => Seen::Bytes(bytes),
            },
            actions: &episode.actions,
            rewards: &episode.rewards,
            terminated: episode.terminated.last().copied().unwrap_or(false),
        }
    }
}

/// Gives all episodes of a dataset to a trainer's `add`.
///
/// # Errors
/// The first episode's that cannot be learned from.
#[cfg(feature = "datasets")]
pub fn add_all(
    data: &oto_data::Dataset,
    mut add: impl FnMut(&Recorded<'_>) -> Result<usize, crate::trainer::TrainError>,
) -> Result<(), crate::trainer::TrainError> {
    data.episodes.iter().try_for_each(|episode| add(&episode.into()).map(drop))
}

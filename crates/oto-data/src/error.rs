//! What can be wrong with a dataset: what was expected, what came, and where.

use oto_env::SpaceError;

/// Why a dataset is refused. Episodes and rows are counted from 0; a row is a step of its episode.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// There is no episode.
    #[error("the dataset has no episode")]
    Empty,
    /// An episode without a step.
    #[error("episode {episode} has no step")]
    EmptyEpisode {
        /// Which episode.
        episode: usize,
    },
    /// A space without an element or of an absurd size.
    #[error("the dataset's {what} space: {source}")]
    Space {
        /// `observation` or `action`.
        what: &'static str,
        /// Which rule is broken.
        source: SpaceError,
    },
    /// The dataset's space is not the environment's.
    #[error("the environment's {what} space is {expected}, the dataset's is {got}")]
    SpaceMismatch {
        /// `observation` or `action`.
        what: &'static str,
        /// The environment's space, in words.
        expected: String,
        /// The dataset's space, in words.
        got: String,
    },
    /// An episode's arrays do not belong together.
    #[error("episode {episode}: {steps} steps need {expected} {what}, there are {got}")]
    Length {
        /// Which episode.
        episode: usize,
        /// How many steps it has: the number of its rewards.
        steps: usize,
        /// Which array.
        what: &'static str,
        /// How many entries these steps need.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// NaN or infinity.
    #[error("episode {episode}, row {row}: {what} is {value}, expected a finite number")]
    NotFinite {
        /// Which episode.
        episode: usize,
        /// Which row; observations have one more than there are steps.
        row: usize,
        /// `observation`, `action` or `reward`, with the component.
        what: String,
        /// The number that came.
        value: f64,
    },
    /// An action or a discrete observation that its space does not contain.
    #[error("episode {episode}, row {row}: the {what} {got:?} is not in {space}")]
    Outside {
        /// Which episode.
        episode: usize,
        /// Which row.
        row: usize,
        /// `observation` or `action`.
        what: &'static str,
        /// The numbers that came, at most eight.
        got: Vec<f32>,
        /// The space, in words.
        space: String,
    },
    /// An episode goes on after its end.
    #[error("episode {episode}: row {row} ends it, but {rest} more follow")]
    EndInside {
        /// Which episode.
        episode: usize,
        /// The row that is terminated or truncated.
        row: usize,
        /// How many rows follow.
        rest: usize,
    },
}

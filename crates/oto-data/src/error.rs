//! What can be wrong with a dataset: what was expected, what came, and where.

use oto_env::{ElementError, EnvError, SpaceError};
use std::path::PathBuf;

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
    /// An observation of several parts that its space does not contain.
    #[error("episode {episode}, row {row}: {source}")]
    Element {
        /// Which episode.
        episode: usize,
        /// Which row; observations have one more than there are steps.
        row: usize,
        /// What is wrong.
        source: ElementError,
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
    /// An episode whose last step is neither terminated nor truncated.
    #[error("episode {episode} has no end: its last row is neither terminated nor truncated")]
    NoEnd {
        /// Which episode.
        episode: usize,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// There is a dataset already, and none is overwritten.
    #[error("{path} exists already", path = path.display())]
    Exists {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// Something in the file is not HDF5, or not as HDF5 says.
    #[error("{what}: {reason}")]
    Hdf5 {
        /// The path inside the file.
        what: String,
        /// What the reader of HDF5 said.
        reason: String,
    },
    /// Something in the file is kept in a way that is not read here.
    #[error("{what} is kept as {encoding}, which is not read here; {rewrite}")]
    Encoding {
        /// The path inside the file.
        what: String,
        /// How it is kept.
        encoding: String,
        /// How to write the file in another way.
        rewrite: &'static str,
    },
    /// Something in the file is not Parquet, or not as Parquet says.
    #[error("{what}: {reason}")]
    Parquet {
        /// The episode, and its column.
        what: String,
        /// What the reader of Parquet said.
        reason: String,
    },
    /// An HDF5 file with something else in it.
    #[error(
        "expected groups episode_0, episode_1, ... as Minari writes them, or observations, actions, rewards, terminals \
         and timeouts as D4RL does; the file has {0}"
    )]
    Foreign(String),
    /// An HDF5 file with some of the arrays of D4RL's layout.
    #[error(
        "the file lacks {0}; expected observations, actions, rewards, terminals and timeouts as D4RL writes them"
    )]
    Lacks(String),
    /// More than a dataset may have, or more than a file of this size can hold.
    #[error("{what}: {found} {unit}, at most {max} are read")]
    TooLarge {
        /// The path inside the file, or the file.
        what: String,
        /// How many there are, or are said to be.
        found: u64,
        /// How many are allowed.
        max: u64,
        /// What is counted.
        unit: &'static str,
    },
    /// An array of the wrong shape.
    #[error("{what}: expected {expected}, the shape is {got:?}")]
    Shape {
        /// The path inside the file.
        what: String,
        /// The shape that belongs there, in words.
        expected: String,
        /// The shape that came.
        got: Vec<u64>,
    },
    /// An array of the wrong type.
    #[error("{what}: expected {expected}, got {got}")]
    Type {
        /// The path inside the file.
        what: String,
        /// What belongs there.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// The JSON beside the episodes is not what it should be.
    #[error("metadata: {0}")]
    Metadata(String),
    /// The metadata and the file do not belong together.
    #[error("the metadata tell of {expected} {what}, the file has {got}")]
    Count {
        /// `episodes` or `steps`.
        what: &'static str,
        /// What the metadata say.
        expected: u64,
        /// What there is.
        got: u64,
    },
    /// A dataset of a kind that no learner here takes.
    #[error("{0}")]
    Unsupported(String),
    /// A name that Minari would refuse.
    #[error("expected a name such as CartPole/expert-v0 (letters, digits, '-', '_', a version), got {0:?}")]
    Id(String),
    /// Exploration that does not fit the actions.
    #[error("{0}")]
    Exploration(String),
    /// The environment that episodes are recorded in refuses.
    #[error(transparent)]
    Environment(#[from] EnvError),
}

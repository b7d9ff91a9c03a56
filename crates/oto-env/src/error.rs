//! What can go wrong with an environment: what was expected and what came.

use crate::SpaceError;

/// Why an environment refuses a call.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EnvError {
    /// No built-in environment has this id.
    #[error("no environment is called {id:?}, known are {known}")]
    UnknownId {
        /// The id asked for, shortened to 64 characters.
        id: String,
        /// All known ids.
        known: String,
    },
    /// An option behind the ID that the environment does not have, or with a value out of its range.
    #[error("{id}: option {reason}")]
    Option {
        /// The ID without its options.
        id: String,
        /// The option, the values that it can have, and the value that came.
        reason: String,
    },
    /// A continuous action for a discrete space or the reverse.
    #[error("expected a {expected} action, got a {got} one")]
    ActionKind {
        /// The environment's kind of action: `discrete` or `continuous`.
        expected: &'static str,
        /// The kind that came.
        got: &'static str,
    },
    /// A discrete action beyond the last choice.
    #[error("expected an action from 0 to {}, got {got}", n.saturating_sub(1))]
    ActionRange {
        /// How many choices there are.
        n: u32,
        /// The choice that came.
        got: u32,
    },
    /// A continuous action of the wrong length.
    #[error("expected an action of {expected} numbers, got {got}")]
    ActionLength {
        /// The action space's width.
        expected: usize,
        /// The length that came.
        got: usize,
    },
    /// A continuous action with NaN or infinity in it.
    #[error("component {index} of the action is {}, expected a finite number", oto_json::shown(.value))]
    ActionNotFinite {
        /// Which component, from 0.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// The buffer for an observation has the wrong length.
    #[error("expected room for an observation of {expected} numbers, got {got}")]
    ObservationLength {
        /// The observation space's width.
        expected: usize,
        /// The buffer's length.
        got: usize,
    },
    /// `step` before the first `reset`.
    #[error("call reset before the first step")]
    NotReset,
    /// `step` after an episode ended.
    #[error("the episode has ended, call reset before the next step")]
    EpisodeOver,
    /// A state of the wrong length, or with a component that is no number the environment can go on from.
    #[error("a state of {id} has {expected} finite numbers of at most 1e6 in size, got {got}")]
    State {
        /// The environment.
        id: String,
        /// How many numbers its state has.
        expected: usize,
        /// What came: the length, or the component and its value.
        got: String,
    },
    /// A snapshot of another environment, or one that no environment can have saved.
    #[error("cannot restore {id}: {reason}")]
    Snapshot {
        /// The environment that was to be restored.
        id: String,
        /// What is wrong with the snapshot.
        reason: String,
    },
    /// The environment lives where its state cannot be read or set.
    #[error("{id} cannot be saved and restored; reset it instead")]
    NotSaved {
        /// The environment.
        id: String,
    },
    /// The dynamics left the finite numbers.
    #[error("{id} left the finite numbers in this step")]
    Diverged {
        /// The environment.
        id: String,
    },
    /// A space that has no element.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// One copy of a vector environment refused; the others are not affected.
    #[error("copy {index}: {source}")]
    Copy {
        /// Which copy, from 0.
        index: usize,
        /// Its error.
        source: Box<EnvError>,
    },
    /// What an environment outside this crate (a JavaScript object, a WIT host) has to say.
    #[error("{0}")]
    External(String),
}

//! Teacher policies: whatever answers observations with actions.
//!
//! Models come from files that were made elsewhere, and every loader treats its file as hostile:
//!
//! - [`onnx`](self): ONNX graphs, run by tract or, if they are plain networks, as such (cargo feature `onnx`, on by default);
//! - [`tensors`]: named tensors from safetensors, from PyTorch's `policy.pth` and from Stable-Baselines3's model `.zip`;
//! - [`network`]: Stable-Baselines3's and sb3-contrib's network layouts, recognised by the names of those tensors;
//! - [`scripted()`]: baselines that need no file;
//! - [`ensemble`]: several policies that answer as one;
//! - [`bundled`]: the policies that come with the program;
//! - [`mod@device`]: the device that computes them;
//! - [`metadata`]: the JSON beside a model, which says what it observes and does;
//! - [`logits`]: a policy as a teacher of logits;
//! - [`load()`]: bytes or files to a [`Policy`], and a folder to the policies in it.
#![forbid(unsafe_code)]

pub mod bundled;
#[cfg(feature = "candle")]
mod candle;
#[cfg(not(feature = "candle"))]
#[path = "no_candle.rs"]
mod candle;
pub mod device;
pub mod ensemble;
mod facts;
pub mod load;
pub mod logits;
pub mod metadata;
pub mod network;
#[cfg(feature = "onnx")]
mod onnx;
mod pickle;
mod pickled;
pub mod scripted;
mod spaces;
pub mod statistics;
mod steps;
pub mod tensors;

pub use load::{Loaded, load, load_each, load_file, load_folder};
pub use metadata::Metadata;
#[cfg(feature = "onnx")]
pub use onnx::operators;
pub use scripted::scripted;

use oto_proto::{Action, Space};
use std::path::PathBuf;

/// Something that answers observations with actions, deterministically unless it says otherwise.
pub trait Policy: Send {
    /// What it observes.
    fn observation_space(&self) -> &Space;

    /// What it answers with.
    fn action_space(&self) -> &Space;

    /// Answers row-major `observations` `[rows, observation width]` with `actions` `[rows, action width]`, which is
    /// emptied first. A discrete action is its index as a number (exact: a space has at most 65,536 choices);
    /// [`action`] reads one row. Every answer is an action of the space.
    ///
    /// # Errors
    /// If the observations are not `rows` rows, or the policy gives anything but actions of its space for them.
    fn act(&mut self, observations: &[f32], rows: usize, actions: &mut Vec<f32>) -> Result<(), PolicyError>;

    /// How many numbers the state of a recurrent policy has; 0 where an answer depends on its observation alone.
    fn state_width(&self) -> usize {
        0
    }

    /// As [`Self::act`], each row the next step of an episode of its own. `states` `[rows, state_width]` become those after the step; a state
    /// is zero where an episode begins. To [`Self::act`] each row begins an episode. After an error the states are of no use.
    ///
    /// # Errors
    /// As [`Self::act`].
    fn act_from(
        &mut self,
        observations: &[f32],
        rows: usize,
        states: &mut [f32],
        actions: &mut Vec<f32>,
    ) -> Result<(), PolicyError> {
        debug_assert!(states.is_empty(), "only a recurrent policy has a state");
        self.act(observations, rows, actions)
    }

    /// Everything the policy computes for `observations`, by name, to be compared with reference data: `action` always,
    /// and whatever else the model gives (`logits`, `q_values`, ...). Values are as the model gives them, not checked.
    ///
    /// # Errors
    /// If the observations are not `rows` rows, or the model fails.
    fn outputs(&mut self, observations: &[f32], rows: usize) -> Result<Vec<Output>, PolicyError>;

    /// What computes its answers, for a log: `oto`'s own layers, `tract`, `candle`, or a [`device::Device`], and the times that decided it.
    fn engine(&self) -> &str {
        OWN
    }

    /// What is odd about it, in sentences for a log.
    fn warnings(&self) -> &[String] {
        &[]
    }
}

/// The engine of oto's own layers.
const OWN: &str = "oto";

/// How many observations [`trial`] makes.
pub const TRIAL_ROWS: usize = 16;

/// Some observations of a space, row-major `[TRIAL_ROWS, width]`, that a policy has to answer before it serves: numbers from -1 to 1, as
/// far as they lie inside.
pub fn trial(space: &Space) -> Vec<f32> {
    let row = |row: usize| match space {
        Space::Discrete { n } => vec![(row as u32 % n) as f32],
        Space::Box { low, high } => {
            let number = |i: usize| ((7 * i + 13 * row) % 17) as f32 / 8.0 - 1.0;
            low.iter().zip(high).enumerate().map(|(i, (low, high))| number(i).max(*low).min(*high)).collect()
        }
    };
    (0..TRIAL_ROWS).flat_map(row).collect()
}

/// One named output of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Its name, as in the model.
    pub name: String,
    /// Its shape; the first dimension is the number of observations.
    pub shape: Vec<usize>,
    /// Its values in row-major order. Integers become the nearest numbers.
    pub values: Vec<f32>,
}

/// Reads one row of what [`Policy::act`] gave.
pub fn action<'a>(space: &Space, row: &'a [f32]) -> Action<'a> {
    match space {
        // `act` promises a whole number in range.
        Space::Discrete { .. } => Action::Discrete(row[0] as u32),
        Space::Box { .. } => Action::Continuous(row),
    }
}

/// Why a policy could not be loaded or could not answer.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A name of something else than a file, such as a pipe.
    #[error("{path} is not a regular file", path = path.display())]
    NoFile {
        /// What was named.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Something in a named file is wrong.
    #[error("{path}: {source}", path = path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<PolicyError>,
    },
    /// More bytes or numbers than a policy may have.
    #[error("{what} has {found} {unit}, at most {max} are allowed")]
    TooLarge {
        /// What is too large.
        what: String,
        /// How large it is, or at least how large.
        found: u64,
        /// The limit.
        max: u64,
        /// Of what.
        unit: &'static str,
    },
    /// The bytes are of no known format.
    #[error("neither ONNX, safetensors, a PyTorch file nor a Stable-Baselines3 model: {0}")]
    UnknownFormat(String),
    /// The bytes are of a known format and damaged.
    #[error("not a readable {format}: {reason}")]
    Malformed {
        /// The format.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The graph uses an operator that is not run here.
    #[error("the operator {operator} (node {node:?}) is not supported{what}")]
    UnsupportedOperator {
        /// The operator, as ONNX calls it.
        operator: String,
        /// The name of the node.
        node: String,
        /// Which use of it, if others are: " in operator set 8", " with ceil_mode = 1".
        what: String,
    },
    /// A readable model that is no policy of a known form.
    #[error("not a policy this build can run: {0}")]
    Unsupported(String),
    /// The metadata contradict the model, or leave out what it needs.
    #[error("metadata: {0}")]
    Metadata(String),
    /// No scripted policy of this name.
    #[error(
        "no scripted policy {0:?}; there are scripted:random, scripted:random:SEED, scripted:constant and scripted:constant:VALUE"
    )]
    UnknownScript(String),
    /// An ensemble of nobody, or of too many.
    #[error("an ensemble has 1 to {max} members, nested ones included, this one has {found}")]
    Members {
        /// How many it has, or at least has.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// An ensemble's member that is not there.
    #[error(
        "its member {0:?} is neither NAME.json of kind \"policy\" beside it nor the folder of a run with a policy"
    )]
    NoMember(String),
    /// An ensemble that is a member of itself.
    #[error("its members go in a circle: {}", .0.join(" has "))]
    Circle(Vec<String>),
    /// A policy that is recurrent, where each observation is answered alone.
    #[error("{0} answers each observation alone: a recurrent policy needs those before it")]
    Recurrent(&'static str),
    /// Members that cannot answer together.
    #[error("its member {member:?} has {found} as {what}, the ones before it {expected}")]
    MemberSpace {
        /// The member.
        member: String,
        /// "observation" or "action".
        what: &'static str,
        /// Its space.
        found: Box<Space>,
        /// The space of the others.
        expected: Box<Space>,
    },
    /// The observations given are not whole rows.
    #[error("expected {rows} rows of {width} numbers, got {found} numbers")]
    Observations {
        /// The number of rows that were announced.
        rows: usize,
        /// The width of an observation.
        width: usize,
        /// How many numbers came.
        found: usize,
    },
    /// An observation with a NaN or an infinity, for which no policy was trained.
    #[error("row {row}: observation[{component}] is {found}, not a finite number")]
    ObservationNotFinite {
        /// The row, from 0.
        row: usize,
        /// The component, from 0.
        component: usize,
        /// What came.
        found: f32,
    },
    /// A discrete observation that is no index of its space.
    #[error("row {row}: {found} is no index of a discrete space with {n} choices")]
    ObservationIndex {
        /// The row, from 0.
        row: usize,
        /// What came.
        found: f32,
        /// The number of choices.
        n: u32,
    },
    /// The model failed.
    #[error("the model failed: {0}")]
    Run(String),
    /// The model gave a NaN or an infinity.
    #[error("the model's answer to row {row} is not finite in component {component}")]
    NotFinite {
        /// The row, from 0.
        row: usize,
        /// The component, from 0.
        component: usize,
    },
    /// The model gave something that is no action of its space.
    #[error("the model's answer to row {row} is {found}, expected a choice below {n}")]
    OutOfRange {
        /// The row, from 0.
        row: usize,
        /// What came.
        found: f32,
        /// The number of choices.
        n: u32,
    },
}

/// The most rows that a model computes at once; more are computed in several runs, so that the memory of a run is
/// bounded by the model.
pub const ROWS_PER_RUN: usize = 1024;

/// Checks that `observations` are `rows` rows of `width` finite numbers.
fn check_rows(observations: &[f32], rows: usize, width: usize) -> Result<(), PolicyError> {
    if rows.checked_mul(width) != Some(observations.len()) {
        return Err(PolicyError::Observations { rows, width, found: observations.len() });
    }
    match observations.iter().position(|x| !x.is_finite()) {
        Some(at) => {
            let (row, component, found) = (at / width, at % width, observations[at]);
            Err(PolicyError::ObservationNotFinite { row, component, found })
        }
        None => Ok(()),
    }
}

/// Makes actions of a model's answers `[rows, action width]`: numbers are clipped to the box, as Stable-Baselines3's
/// `predict` does; an index must exist.
pub fn fit_actions(space: &Space, actions: &mut [f32]) -> Result<(), PolicyError> {
    let width = space.width();
    if let Some(at) = actions.iter().position(|a| !a.is_finite()) {
        return Err(PolicyError::NotFinite { row: at / width, component: at % width });
    }
    match space {
        Space::Discrete { n } => {
            let exists = |a: &f32| *a >= 0.0 && *a < *n as f32 && a.fract() == 0.0;
            match actions.iter().position(|a| !exists(a)) {
                Some(row) => Err(PolicyError::OutOfRange { row, found: actions[row], n: *n }),
                None => Ok(()),
            }
        }
        Space::Box { low, high } => {
            for row in actions.chunks_exact_mut(width) {
                row.iter_mut().zip(low.iter().zip(high)).for_each(|(a, (l, h))| *a = a.max(*l).min(*h));
            }
            Ok(())
        }
    }
}

/// The index of the largest value of each row `[rows, width]`, the first of equals, as ONNX and PyTorch have it.
fn argmax(values: &[f32], width: usize, out: &mut Vec<f32>) -> Result<(), PolicyError> {
    for (row, values) in values.chunks_exact(width).enumerate() {
        // An infinite value has no meaning as a preference, and NaN would compare as never larger.
        if let Some(component) = values.iter().position(|v| !v.is_finite()) {
            return Err(PolicyError::NotFinite { row, component });
        }
        let best = (0..width).fold(0, |best, i| if values[i] > values[best] { i } else { best });
        out.push(best as f32);
    }
    Ok(())
}

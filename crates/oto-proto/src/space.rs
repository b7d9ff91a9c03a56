//! Spaces as they travel: those of `oto-env`, held to the wire's limits. In JSON `{"kind":"discrete","n":2}` or
//! `{"kind":"box","low":[-1,null],"high":[1,null]}`, where `null` says that a component has no bound on that side.

pub use oto_env::{Action, Space};

use thiserror::Error;

/// The largest number of components of a box.
pub const MAX_WIDTH: usize = 65_536;
/// The largest number of choices of a discrete space; an index then fits sixteen bits.
pub const MAX_DISCRETE: u32 = 65_536;

/// Why a space was refused.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SpaceError {
    /// A discrete space without choices or with too many.
    #[error("a discrete space has 1 to {MAX_DISCRETE} choices, this one says {0}")]
    Choices(u32),
    /// A box without components or with too many.
    #[error("a box has 1 to {MAX_WIDTH} components, this one has {0}")]
    Width(usize),
    /// The two lists of bounds differ in length.
    #[error("a box has as many lower as upper bounds, this one has {low} and {high}")]
    Lengths {
        /// The number of lower bounds.
        low: usize,
        /// The number of upper bounds.
        high: usize,
    },
    /// A bound is not a number, or a lower bound lies above its upper bound.
    #[error("component {component} of a box needs low <= high, it has {} and {}", oto_json::shown(.low), oto_json::shown(.high))]
    Bounds {
        /// The component, counted from 0.
        component: usize,
        /// Its lower bound.
        low: f32,
        /// Its upper bound.
        high: f32,
    },
}

/// Checks the sizes and bounds of a space that is to travel. One that came in a message has been checked already.
///
/// # Errors
/// Says which limit or bound is violated.
pub fn check_space(space: &Space) -> Result<(), SpaceError> {
    match space {
        Space::Discrete { n } if *n == 0 || *n > MAX_DISCRETE => Err(SpaceError::Choices(*n)),
        Space::Discrete { .. } => Ok(()),
        Space::Box { low, high } => check_box(low, high),
    }
}

fn check_box(low: &[f32], high: &[f32]) -> Result<(), SpaceError> {
    if low.len() != high.len() {
        return Err(SpaceError::Lengths { low: low.len(), high: high.len() });
    }
    if low.is_empty() || low.len() > MAX_WIDTH {
        return Err(SpaceError::Width(low.len()));
    }
    for (component, (&low, &high)) in low.iter().zip(high).enumerate() {
        let ordered = low <= high;
        if !ordered || low == f32::INFINITY || high == f32::NEG_INFINITY {
            return Err(SpaceError::Bounds { component, low, high });
        }
    }
    Ok(())
}

//! Spaces as they travel in JSON: `{"kind":"discrete","n":2}` or `{"kind":"box","low":[-1,null],"high":[1,null]}`,
//! where `null` says that a component has no bound on that side.

use oto_json::{At, Failure, FromJson, ToJson, Writer};
use thiserror::Error;

/// The largest number of components of a box.
pub const MAX_WIDTH: usize = 65_536;
/// The largest number of choices of a discrete space; an index then fits sixteen bits.
pub const MAX_DISCRETE: u32 = 65_536;

/// The shape and bounds of an observation or of an action.
#[derive(Clone, Debug, PartialEq)]
pub enum Space {
    /// One of `n` choices, numbered from 0.
    Discrete {
        /// The number of choices, 1 to [`MAX_DISCRETE`].
        n: u32,
    },
    /// A vector of real numbers; tensors of higher rank are flattened in row-major order.
    Box {
        /// Lower bounds; negative infinity where there is none.
        low: Vec<f32>,
        /// Upper bounds; infinity where there is none. As long as `low`.
        high: Vec<f32>,
    },
}

/// One action: an index into a discrete space or a vector in a box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action<'a> {
    /// The index of a choice.
    Discrete(u32),
    /// One number for each component of the box.
    Continuous(&'a [f32]),
}

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

impl Space {
    /// The number of components: one for a discrete space.
    pub fn width(&self) -> usize {
        match self {
            Space::Discrete { .. } => 1,
            Space::Box { low, .. } => low.len(),
        }
    }

    /// Checks sizes and bounds. A space read from JSON has been checked already.
    ///
    /// # Errors
    /// Says which limit or bound is violated.
    pub fn check(&self) -> Result<(), SpaceError> {
        match self {
            Space::Discrete { n } if *n == 0 || *n > MAX_DISCRETE => Err(SpaceError::Choices(*n)),
            Space::Discrete { .. } => Ok(()),
            Space::Box { low, high } => check_box(low, high),
        }
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

impl std::fmt::Display for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Space::Discrete { n } => write!(f, "discrete with {n} choices"),
            Space::Box { low, .. } => write!(f, "a box of width {}", low.len()),
        }
    }
}

impl ToJson for Space {
    fn write(&self, out: &mut Writer) {
        let finite = |bounds: &[f32]| -> Vec<Option<f32>> {
            bounds.iter().map(|b| b.is_finite().then_some(*b)).collect()
        };
        out.open('{');
        match self {
            Space::Discrete { n } => {
                out.field("kind", "discrete");
                out.field("n", n);
            }
            Space::Box { low, high } => {
                out.field("kind", "box");
                out.field("low", &finite(low));
                out.field("high", &finite(high));
            }
        }
        out.close('}');
    }
}

impl FromJson for Space {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let fields = at.fields()?;
        let bounds = |name, unbounded: f32| -> Result<Vec<f32>, Failure> {
            let bounds: Vec<Option<f32>> = fields.get(name)?;
            Ok(bounds.into_iter().map(|bound| bound.unwrap_or(unbounded)).collect())
        };
        let space = match fields.tag("kind", &["discrete", "box"])? {
            0 => Space::Discrete { n: fields.get("n")? },
            _ => Space::Box { low: bounds("low", f32::NEG_INFINITY)?, high: bounds("high", f32::INFINITY)? },
        };
        space.check().map_err(|error| at.wrong(&error))?;
        Ok(space)
    }
}

oto_json::json_serde! { Space }

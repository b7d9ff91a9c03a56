//! What observations and actions look like, as in Gymnasium: `Discrete` and one-dimensional `Box`.

use crate::{Action, EnvError};
use oto_json::{At, Failure, FromJson, ToJson, Writer};

/// The most components a [`Space::Box`] may have (a 210 x 160 RGB image has 100,800).
pub const MAX_WIDTH: usize = 1 << 20;
/// The most choices a [`Space::Discrete`] may have.
pub const MAX_ACTIONS: u32 = 1 << 16;

/// A number, or the nearer end of a range that it lies outside of; NaN stays. The same as `clamp`, which brings a panic that prints
/// numbers, and what prints them, into a page.
pub fn within<T: PartialOrd>(number: T, low: T, high: T) -> T {
    if number < low {
        low
    } else if number > high {
        high
    } else {
        number
    }
}

/// A set of observations or actions.
///
/// In JSON: `{"kind":"discrete","n":2}` or `{"kind":"box","low":[-1.0,null],"high":[1.0,null]}`; `null` is a bound at
/// infinity. Whoever reads a space from outside calls [`Space::validate`] before using it.
#[derive(Clone, Debug, PartialEq)]
pub enum Space {
    /// One of `n` choices, numbered from 0.
    Discrete {
        /// How many choices there are.
        n: u32,
    },
    /// A vector of float32 with an inclusive range for each component.
    Box {
        /// The smallest value of each component, or minus infinity.
        low: Vec<f32>,
        /// The largest value of each component, or infinity.
        high: Vec<f32>,
    },
}

/// Why a space is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpaceError {
    /// A discrete space without a choice, or with too many.
    #[error("a discrete space needs 1 to {MAX_ACTIONS} choices, this one has {0}")]
    Choices(u32),
    /// A box without a component, or with too many.
    #[error("a box needs 1 to {MAX_WIDTH} components, this one has {0}")]
    Width(usize),
    /// `low` and `high` differ in length.
    #[error("a box needs as many lower as upper bounds, this one has {low} and {high}")]
    Bounds {
        /// The length of `low`.
        low: usize,
        /// The length of `high`.
        high: usize,
    },
    /// A component whose range is empty or holds no finite number.
    #[error(
        "component {index} of the box has the range {} to {}, expected low <= high with a finite number between", oto_json::shown(.low), oto_json::shown(.high)
    )]
    Range {
        /// Which component, from 0.
        index: usize,
        /// Its lower bound.
        low: f32,
        /// Its upper bound.
        high: f32,
    },
    /// A space of too many parts, or with too many levels.
    #[error("a space has at most {} parts in {} levels", crate::MAX_PARTS, crate::MAX_DEPTH)]
    Parts,
    /// Actions of several choices with too many combinations.
    #[error(
        "actions of several choices with {0} combinations; up to {max} of them are one discrete action, use a wrapper that offers fewer",
        max = crate::MAX_COMBINATIONS
    )]
    Combinations(u64),
    /// Actions of choices and numbers.
    #[error("actions that have choices beside numbers; a wrapper has to make them one or the other")]
    Mixed,
}

impl Space {
    /// A box of `width` components that all have the same range.
    pub fn uniform(width: usize, low: f32, high: f32) -> Self {
        Self::Box { low: vec![low; width], high: vec![high; width] }
    }

    /// How many numbers one element has: a box's components, 1 for a discrete space.
    pub fn width(&self) -> usize {
        match self {
            Self::Discrete { .. } => 1,
            Self::Box { low, .. } => low.len(),
        }
    }

    /// Checks that the space has an element and a sane size.
    ///
    /// # Errors
    /// Says which rule is broken: number of choices, components, bounds, or one component's range (NaN included).
    pub fn validate(&self) -> Result<(), SpaceError> {
        match self {
            Self::Discrete { n: 1..=MAX_ACTIONS } => Ok(()),
            Self::Discrete { n } => Err(SpaceError::Choices(*n)),
            Self::Box { low, high } => check_box(low, high),
        }
    }

    /// The first component of a box's element that lies outside of its range, for whoever tells of it; NaN does.
    pub fn outside(&self, element: &[f32]) -> Option<usize> {
        let Self::Box { low, high } = self else { return None };
        element.iter().zip(low.iter().zip(high)).position(|(x, (low, high))| !(low <= x && x <= high))
    }

    /// Whether `element` is in the space: right kind, right length, every component in its range (NaN is in none).
    pub fn contains(&self, element: Action<'_>) -> bool {
        match (self, element) {
            (Self::Discrete { n }, Action::Discrete(choice)) => choice < *n,
            (Self::Box { low, high }, Action::Continuous(vector)) => {
                vector.len() == low.len()
                    && vector.iter().zip(low.iter().zip(high)).all(|(x, (low, high))| low <= x && x <= high)
            }
            _ => false,
        }
    }

    /// Refuses a buffer of another length than an observation of this space has.
    pub(crate) fn check_observation(&self, observation: &[f32]) -> Result<(), EnvError> {
        let (expected, got) = (self.width(), observation.len());
        if expected == got { Ok(()) } else { Err(EnvError::ObservationLength { expected, got }) }
    }

    /// Checks that an action can be used: right kind, an existing choice, right length, finite. A vector may lie outside
    /// the box's range, environments clip it or count it as it came.
    ///
    /// # Errors
    /// Says what was expected and what came.
    pub fn check_action(&self, action: Action<'_>) -> Result<(), EnvError> {
        match (self, action) {
            (&Self::Discrete { n }, Action::Discrete(got)) if got >= n => {
                Err(EnvError::ActionRange { n, got })
            }
            (Self::Discrete { .. }, Action::Discrete(_)) => Ok(()),
            (Self::Box { low, .. }, Action::Continuous(vector)) if vector.len() != low.len() => {
                Err(EnvError::ActionLength { expected: low.len(), got: vector.len() })
            }
            (Self::Box { .. }, Action::Continuous(vector)) => {
                match vector.iter().position(|x| !x.is_finite()) {
                    Some(index) => Err(EnvError::ActionNotFinite { index, value: vector[index] }),
                    None => Ok(()),
                }
            }
            (Self::Discrete { .. }, Action::Continuous(_)) => {
                Err(EnvError::ActionKind { expected: "discrete", got: "continuous" })
            }
            (Self::Box { .. }, Action::Discrete(_)) => {
                Err(EnvError::ActionKind { expected: "continuous", got: "discrete" })
            }
        }
    }
}

/// The rules of a box: as many lower as upper bounds, 1 to [`MAX_WIDTH`] of them, each range with a finite number in it.
pub(crate) fn check_box(low: &[f32], high: &[f32]) -> Result<(), SpaceError> {
    if low.len() != high.len() {
        return Err(SpaceError::Bounds { low: low.len(), high: high.len() });
    }
    if low.is_empty() || low.len() > MAX_WIDTH {
        return Err(SpaceError::Width(low.len()));
    }
    for (index, (&low, &high)) in low.iter().zip(high).enumerate() {
        if !(low <= high && low < f32::INFINITY && high > f32::NEG_INFINITY) {
            return Err(SpaceError::Range { index, low, high });
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
            bounds.iter().map(|&bound| (!bound.is_infinite()).then_some(bound)).collect()
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
        let bounds = |name, infinity: f32| -> Result<Vec<f32>, Failure> {
            let bounds: Vec<Option<f32>> = fields.get(name)?;
            Ok(bounds.into_iter().map(|bound| bound.unwrap_or(infinity)).collect())
        };
        match fields.tag("kind", &["discrete", "box"])? {
            0 => Ok(Space::Discrete { n: fields.get("n")? }),
            _ => Ok(Space::Box {
                low: bounds("low", f32::NEG_INFINITY)?,
                high: bounds("high", f32::INFINITY)?,
            }),
        }
    }
}

oto_json::json_serde! { Space }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_null_for_infinity_in_both_directions() {
        let space =
            Space::Box { low: vec![f32::NEG_INFINITY, -0.5], high: vec![0.418_879_03, f32::INFINITY] };
        let text = serde_json::to_string(&space).unwrap();
        assert_eq!(text, r#"{"kind":"box","low":[null,-0.5],"high":[0.41887903,null]}"#);
        assert_eq!(serde_json::from_str::<Space>(&text).unwrap(), space);
        let discrete = serde_json::to_string(&Space::Discrete { n: 2 }).unwrap();
        assert_eq!(discrete, r#"{"kind":"discrete","n":2}"#);
        assert_eq!(serde_json::from_str::<Space>(&discrete).unwrap(), Space::Discrete { n: 2 });
    }

    #[test]
    fn a_space_without_an_element_is_refused() {
        let boxed =
            |low: &[f32], high: &[f32]| Space::Box { low: low.to_vec(), high: high.to_vec() }.validate();
        assert_eq!(Space::Discrete { n: 0 }.validate(), Err(SpaceError::Choices(0)));
        assert_eq!(Space::Discrete { n: u32::MAX }.validate(), Err(SpaceError::Choices(u32::MAX)));
        assert_eq!(boxed(&[], &[]), Err(SpaceError::Width(0)));
        assert_eq!(boxed(&[0.0], &[]), Err(SpaceError::Bounds { low: 1, high: 0 }));
        assert_eq!(boxed(&[0.0, 2.0], &[1.0, 1.0]), Err(SpaceError::Range { index: 1, low: 2.0, high: 1.0 }));
        assert!(matches!(boxed(&[f32::NAN], &[1.0]), Err(SpaceError::Range { index: 0, .. })));
        assert!(matches!(boxed(&[f32::INFINITY], &[f32::INFINITY]), Err(SpaceError::Range { .. })));
        assert_eq!(boxed(&[1.0], &[1.0]), Ok(()));
        assert_eq!(Space::uniform(MAX_WIDTH + 1, 0.0, 1.0).validate(), Err(SpaceError::Width(MAX_WIDTH + 1)));
    }

    #[test]
    fn contains_checks_kind_length_and_range() {
        let space = Space::uniform(2, -1.0, 1.0);
        assert!(space.contains(Action::Continuous(&[-1.0, 1.0])));
        assert!(!space.contains(Action::Continuous(&[0.0])));
        assert!(!space.contains(Action::Continuous(&[0.0, 1.5])));
        assert!(!space.contains(Action::Continuous(&[0.0, f32::NAN])));
        assert!(!space.contains(Action::Discrete(0)));
        assert!(Space::Discrete { n: 2 }.contains(Action::Discrete(1)));
        assert!(!Space::Discrete { n: 2 }.contains(Action::Discrete(2)));
    }
}

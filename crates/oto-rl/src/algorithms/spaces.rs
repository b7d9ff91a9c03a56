//! Which spaces an algorithm can act in, and the sizes that its networks get there.

use super::{ActionKind, AlgorithmConfig, listed, online};
use crate::actions::Actions;
use crate::convolution::Convolution;
use oto_env::Space;
use oto_json::shown;

/// The properties of an environment that defaults depend on, beside its name.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Whether actions are vectors of numbers.
    pub continuous: bool,
    /// The shape `[images, height, width]` of observations that are images of bytes.
    pub images: Option<[usize; 3]>,
}

impl Seen {
    /// An environment with these actions, whose observations are rows of numbers.
    pub fn actions(space: &Space) -> Self {
        Self { continuous: matches!(space, Space::Box { .. }), images: None }
    }

    /// The kind of its actions.
    pub fn kind(self) -> ActionKind {
        if self.continuous { ActionKind::Continuous } else { ActionKind::Discrete }
    }
}

/// The sizes that a program is recorded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Width of an observation.
    pub observation: usize,
    /// The actions.
    pub actions: Actions,
    /// Number of teachers.
    pub teachers: usize,
    /// Whether batches have importance weights: the program reads `weights` and reports each row's TD error. See
    /// [`crate::replay::Prioritised`].
    pub weighted: bool,
}

/// Spaces in which an algorithm cannot learn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{algorithm}: {reason}")]
pub struct Misfit {
    /// The algorithm's name.
    pub algorithm: &'static str,
    /// What does not fit.
    pub reason: String,
}

impl AlgorithmConfig {
    /// The sizes of its networks between these spaces.
    ///
    /// # Errors
    /// Spaces that it cannot act in or see.
    pub fn sizes(&self, observation: &Space, action: &Space, teachers: usize) -> Result<Sizes, Misfit> {
        self.measure(observation, action, teachers)
            .map_err(|reason| Misfit { algorithm: self.name(), reason })
    }

    fn measure(&self, observation: &Space, action: &Space, teachers: usize) -> Result<Sizes, String> {
        for (which, space) in [("observation", observation), ("action", action)] {
            space.validate().map_err(|e| format!("the {which} space: {e}"))?;
        }
        let Space::Box { low, high } = observation else {
            return Err("sees a box of numbers, not a discrete observation".into());
        };
        match self.convolution() {
            Some(convolution) => sees_pixels(convolution, low, high)?,
            None => sees_numbers(low, high)?,
        }
        let seen = Seen::actions(action);
        if !self.algorithm().actions().contains(&seen.kind()) {
            let others = listed(online().filter(|other| other.actions().contains(&seen.kind())));
            return Err(match seen.kind() {
                ActionKind::Continuous => format!(
                    "chooses among discrete actions, this environment's are continuous; set algorithm to {others}"
                ),
                ActionKind::Discrete => format!(
                    "gives continuous actions, this environment's are discrete; set algorithm to {others}"
                ),
            });
        }
        let observation = low.len();
        let actions = match action {
            Space::Discrete { n } => Actions::Discrete(*n as usize),
            Space::Box { low, high } => {
                match low.iter().zip(high).find(|(l, h)| !(l.is_finite() && h.is_finite() && l < h)) {
                    Some((l, h)) => {
                        let (l, h) = (shown(l), shown(h));
                        return Err(format!(
                            "needs a finite range for each component of an action, one has {l} to {h}"
                        ));
                    }
                    None => Actions::Continuous(low.len()),
                }
            }
        };
        let sizes = Sizes { observation, actions, teachers, weighted: false };
        self.fits(sizes)?;
        Ok(sizes)
    }
}

/// Whether observations between these bounds are images for a convolution; why not.
fn sees_pixels(convolution: &Convolution, low: &[f32], high: &[f32]) -> Result<(), String> {
    if convolution.inputs() != low.len() {
        let shape = convolution.shape;
        return Err(format!("its convolution sees {shape:?} numbers, an observation has {}", low.len()));
    }
    match low.iter().any(|low| *low != 0.0) || high.iter().any(|high| *high != 255.0) {
        true => Err("its convolution sees pixels: numbers that go from 0 to 255".into()),
        false => Ok(()),
    }
}

/// The fewest numbers of an image: 3 by 3 pixels.
const SMALLEST_IMAGE: usize = 9;

/// Whether a network of fully connected layers may take observations between these bounds; why not.
fn sees_numbers(low: &[f32], high: &[f32]) -> Result<(), String> {
    let bytes = low.iter().all(|low| *low == 0.0) && high.iter().all(|high| *high == 255.0);
    match bytes && low.len() >= SMALLEST_IMAGE {
        true => Err(format!(
            "its observations are {} numbers from 0 to 255 and it has no convolution; images need an algorithm with a \
             convolution ({}), other numbers have to be scaled to a range such as 0 to 1",
            low.len(),
            listed(online().filter(|other| other.images()))
        )),
        false => Ok(()),
    }
}

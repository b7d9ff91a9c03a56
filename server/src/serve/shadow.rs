//! A policy that is asked what the one that teaches is asked, and whose answers are compared and never sent.
//!
//! It has a thread of its own and takes what it has time for, so that it delays no student.

use crate::serve::rows::Rows;
use oto_proto::Space;
use serde::Serialize;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// What a shadow has shown so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// States that both answered.
    pub states: u64,
    /// Those of them whose actions differ: another choice, or a component by more than a thousandth of its range.
    pub different: u64,
    /// The largest difference of a component of a continuous action.
    pub largest: f32,
    /// States that the shadow had no answer to.
    pub failed: u64,
    /// Why, the last time.
    pub error: Option<String>,
    /// States that it had no time for.
    pub missed: u64,
}

/// A batch and what was answered to it.
struct Sample {
    rows: usize,
    observations: Vec<f32>,
    actions: Vec<f32>,
}

/// A shadow at work; its thread ends when this is dropped.
pub(crate) struct Shadow {
    samples: SyncSender<Sample>,
    comparison: Arc<Mutex<Comparison>>,
}

impl Shadow {
    /// Starts a thread for this policy.
    pub fn start(mut rows: Rows) -> std::io::Result<Self> {
        let (samples, queue) = sync_channel::<Sample>(1);
        let comparison = Arc::<Mutex<Comparison>>::default();
        let counts = comparison.clone();
        std::thread::Builder::new().name("shadow".into()).spawn(move || {
            let space = rows.policy().action_space().clone();
            for sample in queue {
                let found = rows.act(&sample.observations, sample.rows);
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                match found {
                    Ok(found) => counts.compare(&space, &sample.actions, found),
                    Err(error) => {
                        counts.failed += sample.rows as u64;
                        counts.error = Some(error.to_string());
                    }
                }
            }
        })?;
        Ok(Shadow { samples, comparison })
    }

    /// Lets the shadow answer what was answered, if it has time.
    pub fn see(&self, observations: &[f32], rows: usize, actions: &[f32]) {
        let sample = Sample { rows, observations: observations.to_vec(), actions: actions.to_vec() };
        if self.samples.try_send(sample).is_err() {
            self.comparison.lock().unwrap_or_else(PoisonError::into_inner).missed += rows as u64;
        }
    }

    /// What it has shown, now and later.
    pub fn comparison(&self) -> Arc<Mutex<Comparison>> {
        self.comparison.clone()
    }
}

/// By how much of its range a component may differ and count as the same.
const TOLERANCE: f32 = 1e-3;

impl Comparison {
    fn compare(&mut self, space: &Space, expected: &[f32], found: &[f32]) {
        let width = space.width();
        for (expected, found) in expected.chunks_exact(width).zip(found.chunks_exact(width)) {
            self.states += 1;
            let differs = match space {
                Space::Discrete { .. } => expected != found,
                Space::Box { low, high } => {
                    let mut differs = false;
                    for (i, (a, b)) in expected.iter().zip(found).enumerate() {
                        let range = high[i] - low[i];
                        let bar = TOLERANCE * if range.is_finite() { range } else { a.abs().max(1.0) };
                        self.largest = self.largest.max((a - b).abs());
                        differs |= (a - b).abs() > bar;
                    }
                    differs
                }
            };
            self.different += u64::from(differs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_counted_by_the_kind_of_action() {
        let mut choices = Comparison::default();
        choices.compare(&Space::Discrete { n: 3 }, &[0.0, 1.0, 2.0], &[0.0, 2.0, 2.0]);
        assert_eq!((choices.states, choices.different), (3, 1));
        let mut forces = Comparison::default();
        let space = Space::Box { low: vec![-1.0, f32::NEG_INFINITY], high: vec![1.0, f32::INFINITY] };
        forces.compare(&space, &[0.5, 100.0, 0.5, 1.0], &[0.501, 100.05, 0.6, 1.0]);
        assert_eq!((forces.states, forces.different), (2, 1));
        assert!((forces.largest - 0.1).abs() < 1e-6);
    }
}

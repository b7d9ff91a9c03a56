//! The double buffer of an actor's weights: one copy acts, new weights arrive in the other one, and the two change places between two
//! steps.
//!
//! The acting side pays one atomic exchange for a swap: no lock, no wait, no allocation. The writing side finds the inactive copy, or
//! learns that the last weights are not in use yet. There are two copies and never a third.

use crossbeam_utils::atomic::AtomicCell;
use oto_rl::network::Actor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A copy of the network, and the version of its weights.
#[derive(Debug)]
struct Slot {
    network: Actor,
    version: u32,
}

/// The two places through which the copies pass. Both are pointers: the cell exchanges them atomically.
#[derive(Default)]
struct Places {
    /// The copy with new weights, on its way to the acting side.
    fresh: AtomicCell<Option<Box<Slot>>>,
    /// The copy without a use, on its way to the writing side.
    spare: AtomicCell<Option<Box<Slot>>>,
    /// The version that acts.
    acts: AtomicU32,
}

/// Why weights were not written. The network that acts is as it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WriteError {
    /// The weights before these wait for the next step.
    #[error("expected the weights of version {waiting} to be in use first: they wait for the next step")]
    Busy {
        /// Their version.
        waiting: u32,
    },
    /// Another number of parameters.
    #[error("expected {expected} parameters, got {got}")]
    Length {
        /// The network's number.
        expected: usize,
        /// The number that came.
        got: usize,
    },
    /// A parameter that is no finite number.
    #[error("expected finite parameters, got {value} at index {index}")]
    NotFinite {
        /// Its place.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// Version 0 means that there are no weights.
    #[error("expected a version from 1, got 0")]
    Version,
}

/// The acting side and the writing side of one double buffer; see [`DoubleBuffer::split`].
pub struct DoubleBuffer {
    acting: Acting,
    writing: Writing,
}

impl DoubleBuffer {
    /// Two copies of `network`, whose weights count as none: version 0.
    pub fn new(network: Actor) -> Self {
        let parameters = network.parameters().map(<[f32]>::len).sum();
        let copy = |mut network: Actor| {
            // An answer makes its buffers: no later one allocates.
            let zeros = vec![0.0; network.inputs()];
            for _ in 0..2 {
                network.forward(&zeros);
            }
            Box::new(Slot { network, version: 0 })
        };
        let places = Arc::new(Places::default());
        places.spare.store(Some(copy(network.clone())));
        let acting = Acting { active: copy(network), places: places.clone() };
        DoubleBuffer { acting, writing: Writing { places, parameters, waiting: 0 } }
    }

    /// The two sides. Each may live on a thread of its own.
    pub fn split(self) -> (Acting, Writing) {
        (self.acting, self.writing)
    }
}

/// The side that acts.
pub struct Acting {
    active: Box<Slot>,
    places: Arc<Places>,
}

impl Acting {
    /// Puts new weights to use, if they have come: call it between two steps. Gives their version.
    pub fn swap(&mut self) -> Option<u32> {
        let fresh = self.places.fresh.take()?;
        let spare = std::mem::replace(&mut self.active, fresh);
        self.places.spare.store(Some(spare));
        self.places.acts.store(self.active.version, Ordering::Release);
        Some(self.active.version)
    }

    /// The version of the weights that act; 0: there are none yet.
    pub fn version(&self) -> u32 {
        self.active.version
    }

    /// The network's answer to an observation; none as long as there are no weights.
    ///
    /// # Panics
    /// If the observation has another width than the network: callers check what comes from outside.
    pub fn forward(&mut self, observation: &[f32]) -> Option<&[f32]> {
        (self.active.version > 0).then(|| self.active.network.forward(observation))
    }

    /// Numbers of an observation, and of an answer.
    pub fn widths(&self) -> [usize; 2] {
        [self.active.network.inputs(), self.active.network.outputs()]
    }
}

/// The side that writes.
pub struct Writing {
    places: Arc<Places>,
    parameters: usize,
    /// The version that was written last.
    waiting: u32,
}

impl Writing {
    /// The number of parameters.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// The version of the weights that act; 0: none yet.
    pub fn acts(&self) -> u32 {
        self.places.acts.load(Ordering::Acquire)
    }

    /// Writes weights, in the order of [`Actor::parameters`], into the inactive copy, and hands it over. The acting side uses it from its
    /// next [`Acting::swap`].
    ///
    /// # Errors
    /// Weights that no network of this shape can use, or weights before these that wait still. Nothing has changed then.
    pub fn write(&mut self, version: u32, parameters: &[f32]) -> Result<(), WriteError> {
        let (expected, got) = (self.parameters, parameters.len());
        if version == 0 {
            return Err(WriteError::Version);
        }
        if expected != got {
            return Err(WriteError::Length { expected, got });
        }
        if let Some(index) = parameters.iter().position(|value| !value.is_finite()) {
            return Err(WriteError::NotFinite { index, value: parameters[index] });
        }
        let Some(mut copy) = self.places.spare.take() else {
            return Err(WriteError::Busy { waiting: self.waiting });
        };
        let mut rest = parameters;
        for part in copy.network.parameters_mut() {
            let (now, later) = rest.split_at(part.len());
            part.copy_from_slice(now);
            rest = later;
        }
        copy.version = version;
        self.waiting = version;
        self.places.fresh.store(Some(copy));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_rl::mlp::{Activation, Mlp};
    use std::sync::atomic::AtomicBool;

    /// A network that answers with its only bias, for any observation: all its parameters are equal.
    fn network() -> Actor {
        Mlp::zeros(&[2, 64, 1], Activation::Relu).into()
    }

    fn all(value: f32) -> Vec<f32> {
        vec![value; 2 * 64 + 64 + 64 + 1]
    }

    #[test]
    fn the_exchange_is_atomic_and_not_a_lock() {
        assert!(AtomicCell::<Option<Box<Slot>>>::is_lock_free());
    }

    #[test]
    fn weights_act_from_the_next_swap() {
        let (mut acting, mut writing) = DoubleBuffer::new(network()).split();
        assert_eq!((acting.version(), acting.swap(), acting.widths()), (0, None, [2, 1]));
        assert_eq!(acting.forward(&[0.0, 0.0]), None);
        writing.write(3, &all(0.5)).unwrap();
        assert_eq!((acting.version(), writing.acts()), (0, 0));
        assert_eq!(writing.write(4, &all(0.25)), Err(WriteError::Busy { waiting: 3 }));
        assert_eq!((acting.swap(), acting.swap()), (Some(3), None));
        assert_eq!(acting.forward(&[0.0, 0.0]), Some(&[0.5 + 64.0 * 0.5 * 0.5][..]));
        assert_eq!(writing.acts(), 3);
        writing.write(4, &all(0.0)).unwrap();
        assert_eq!((acting.swap(), acting.forward(&[1.0, 1.0])), (Some(4), Some(&[0.0][..])));
    }

    #[test]
    fn weights_that_cannot_act_change_nothing() {
        let (mut acting, mut writing) = DoubleBuffer::new(network()).split();
        writing.write(1, &all(1.0)).unwrap();
        acting.swap();
        let mut bad = all(1.0);
        bad[70] = f32::NAN;
        let refused = writing.write(2, &bad).unwrap_err();
        assert!(refused.to_string().contains("got NaN at index 70"), "{refused}");
        assert_eq!(writing.write(2, &bad[1..]), Err(WriteError::Length { expected: 257, got: 256 }));
        assert_eq!(writing.write(0, &all(1.0)), Err(WriteError::Version));
        assert_eq!((acting.swap(), acting.version()), (None, 1));
        writing.write(2, &all(1.0)).unwrap();
        assert_eq!(acting.swap(), Some(2));
    }

    /// The acting side sees whole sets of weights, in their order, while another thread writes as fast as it can.
    #[test]
    fn weights_are_never_mixed() {
        let (mut acting, mut writing) = DoubleBuffer::new(network()).split();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let writer = std::thread::spawn(move || {
            let mut version = 1;
            while !stopped.load(Ordering::Relaxed) {
                match writing.write(version, &all(version as f32)) {
                    Ok(()) => version += 1,
                    Err(WriteError::Busy { .. }) => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let mut last = 0;
        while last < 500 {
            match acting.swap() {
                Some(version) => {
                    assert_eq!(version, last + 1);
                    last = version;
                }
                None => std::thread::yield_now(),
            }
            let value = last as f32;
            if let Some(answer) = acting.forward(&[0.0, 0.0]) {
                assert_eq!(answer, [value + 64.0 * value * value]);
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    }
}

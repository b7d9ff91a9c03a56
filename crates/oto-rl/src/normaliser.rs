//! Observations brought to mean 0 and standard deviation 1 by the statistics of a dataset, as TD3+BC does (Fujimoto and Gu 2021, section
//! 5). The statistics are state of the program, so that a checkpoint has them; networks that act have them in their first layer.

use crate::engine::{Engine, LearnError};
use crate::mlp::Layer;
use crate::replay::Replay;
#[cfg(feature = "every-algorithm")]
use oto_graph::{Tensor, Trace};

/// The state of programs whose networks see normalised observations.
pub const MEAN: &str = "actor.observation.mean";
const SCALE: &str = "actor.observation.scale";
/// What the authors' code adds to a standard deviation.
const EPSILON: f64 = 1e-3;

/// The mean of each number of an observation, and one over its standard deviation.
pub(crate) struct Normaliser {
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl Normaliser {
    /// One that changes nothing: what an agent has that never saw a dataset.
    pub fn none(width: usize) -> Self {
        Self { mean: vec![0.0; width], scale: vec![1.0; width] }
    }

    /// Records the statistics, and gives what normalises observations `[B, width]`.
    #[cfg(feature = "every-algorithm")]
    pub fn record<'t>(t: &'t Trace, width: usize) -> impl Fn(Tensor<'t>) -> Tensor<'t> + use<'t> {
        let [mean, scale] = [MEAN, SCALE].map(|name| t.state(name, &[width]));
        move |observation| (observation - mean) * scale
    }

    /// Takes the statistics of these data, once: networks that learned from normalised observations need theirs.
    pub fn measure(&mut self, data: &Replay) {
        let width = self.mean.len();
        if self.mean.iter().any(|mean| *mean != 0.0) || self.scale.iter().any(|scale| *scale != 1.0) {
            return;
        }
        let (mut sum, mut squares) = (vec![0.0; width], vec![0.0; width]);
        let (mut count, mut row) = (0.0_f64, Vec::new());
        // Welford's sums: large means lose no digits of small deviations.
        for slot in data.oldest_slot()..data.stored() {
            let Some(observation) = data.observation(slot, &mut row) else { continue };
            count += 1.0;
            for ((x, mean), square) in observation.iter().zip(&mut sum).zip(&mut squares) {
                let difference = f64::from(*x) - *mean;
                *mean += difference / count;
                *square += difference * (f64::from(*x) - *mean);
            }
        }
        let std = squares.iter().map(|square: &f64| (square / count.max(1.0)).sqrt());
        self.mean = sum.iter().map(|mean| *mean as f32).collect();
        self.scale = std.map(|std| (1.0 / (std + EPSILON)) as f32).collect();
    }

    /// The statistics by their states' names.
    pub fn state(&self, name: &str) -> Option<&[f32]> {
        match name {
            MEAN => Some(&self.mean),
            SCALE => Some(&self.scale),
            _ => None,
        }
    }

    /// Reads them back: they are the acting parameters from `first` on.
    pub fn hand_over(&mut self, engine: &mut Engine, first: usize) -> Result<(), LearnError> {
        engine.acting(first, &mut self.mean)?;
        engine.acting(first + 1, &mut self.scale)
    }

    /// Puts them into the layer that sees observations: `W (x - mean) scale + b`.
    pub fn fold(&self, layer: &mut Layer) {
        for (row, bias) in layer.weight.chunks_exact_mut(self.mean.len()).zip(&mut layer.bias) {
            for ((weight, mean), scale) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                *weight *= scale;
                *bias -= *weight * mean;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlp::{Activation, Mlp};

    #[test]
    fn a_folded_layer_sees_normalised_observations() {
        let mut data = Replay::new(8, [2, 1], 0, 1, 0.9);
        for x in [1.0, 3.0] {
            data.push(&[x, 1e6], &[0.0], 0.0, &[0.0, 0.0], true, false, |_, _| {});
        }
        let mut normaliser = Normaliser::none(2);
        normaliser.measure(&data);
        assert_eq!(normaliser.state(MEAN), Some(&[2.0, 1e6][..]));
        let scale = normaliser.state(SCALE).unwrap();
        assert!((scale[0] - 1.0 / 1.001).abs() < 1e-6 && (scale[1] - 1e3).abs() < 1.0, "{scale:?}");
        let layer = Layer { weight: vec![2.0, 0.0], bias: vec![0.5], activation: Activation::Identity };
        let mut plain = Mlp::new(2, vec![layer]).unwrap();
        normaliser.fold(&mut plain.layers_mut()[0]);
        let expected = 2.0 * (3.0 - 2.0) / 1.001 + 0.5;
        assert!((plain.forward(&[3.0, 1e6])[0] - expected).abs() < 1e-5);
    }
}

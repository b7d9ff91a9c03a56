//! An ensemble's networks side by side in one, which acts on one observation at a time: all of them see the observation, and a later layer
//! sees only the numbers of its own network.

use crate::engine::{Engine, LearnError};
use crate::mlp::{self, Mlp};
use crate::network::Actor;

/// Networks of one shape, ReLU after each hidden layer.
pub(super) struct SideBySide {
    count: usize,
    network: Mlp,
    /// A parameter of all networks on its way into the common one.
    part: Vec<f32>,
}

impl SideBySide {
    /// `count` networks of these widths, all parameters 0.
    pub fn new(count: usize, widths: &[usize]) -> Self {
        let all = widths.iter().enumerate().map(|(i, width)| if i == 0 { *width } else { width * count });
        let network = Mlp::zeros(&all.collect::<Vec<_>>(), mlp::Activation::Relu);
        Self { count, network, part: Vec::new() }
    }

    /// The outputs of each network, one after the other.
    pub fn forward(&mut self, observation: &[f32]) -> &[f32] {
        self.network.forward(observation)
    }

    /// Copies the acting parameters `[N, outputs, inputs]` of an engine.
    pub fn take(&mut self, engine: &mut Engine) -> Result<(), LearnError> {
        let count = self.count;
        for (i, layer) in self.network.layers_mut().iter_mut().enumerate() {
            engine.acting(2 * i + 1, &mut layer.bias)?;
            if i == 0 {
                engine.acting(0, &mut layer.weight)?;
                continue;
            }
            self.part.resize(layer.weight.len() / count, 0.0);
            engine.acting(2 * i, &mut self.part)?;
            let outputs = layer.bias.len() / count;
            let inputs = self.part.len() / layer.bias.len();
            for (row, part) in self.part.chunks_exact(inputs).enumerate() {
                let at = row * count * inputs + row / outputs * inputs;
                layer.weight[at..at + inputs].copy_from_slice(part);
            }
        }
        Ok(())
    }

    /// One network of an observation's `inputs` numbers that gives the mean over all networks of their first `kept` outputs.
    pub fn mean(&self, inputs: usize, kept: usize) -> Actor {
        let mut layers = self.network.layers().to_vec();
        let last = layers.last_mut().expect("a network has a last layer");
        let (outputs, width) = (last.bias.len() / self.count, last.weight.len() / last.bias.len());
        let share = 1.0 / self.count as f32;
        let (mut weight, mut bias) = (vec![0.0; kept * width], vec![0.0; kept]);
        for (row, bias_of_row) in last.bias.iter().enumerate().filter(|(row, _)| row % outputs < kept) {
            let to = row % outputs;
            bias[to] += bias_of_row * share;
            let from = &last.weight[row * width..][..width];
            weight[to * width..][..width].iter_mut().zip(from).for_each(|(w, part)| *w += part * share);
        }
        (last.weight, last.bias) = (weight, bias);
        Mlp::new(inputs, layers).expect("its layers fit as they did").into()
    }
}

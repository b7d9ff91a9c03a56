//! A multi-layer perceptron on plain CPU weights: what an actor acts with and what a native teacher policy is.
//!
//! Training never happens here; it happens in a program run by a backend, which hands new weights over.

pub use oto_graph::Activation;

fn apply(activation: Activation, x: &mut [f32]) {
    match activation {
        Activation::Identity => {}
        Activation::Relu => x.iter_mut().for_each(|v| *v = v.max(0.0)),
        Activation::Tanh => x.iter_mut().for_each(|v| *v = v.tanh()),
    }
}

/// One affine map with its activation: `y = activation(weight x + bias)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Row-major `[outputs, inputs]`, as PyTorch stores it.
    pub weight: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
    /// What follows.
    pub activation: Activation,
}

impl Layer {
    /// Weight and bias.
    pub fn parameters(&self) -> [&[f32]; 2] {
        [&self.weight, &self.bias]
    }

    /// The same, for handing new weights over; sizes must stay as they are.
    pub fn parameters_mut(&mut self) -> [&mut [f32]; 2] {
        [&mut self.weight, &mut self.bias]
    }
}

/// Layers applied one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    layers: Vec<Layer>,
    scratch: [Vec<f32>; 2],
}

/// A layer whose sizes do not fit its neighbours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MlpError {
    /// No layers at all.
    #[error("a network needs at least one layer")]
    Empty,
    /// `weight` is not a whole number of rows, or follows a layer of another width.
    #[error("layer {layer}: {weights} weights and {biases} biases do not map {inputs} inputs")]
    Shape {
        /// Which layer, from 0.
        layer: usize,
        /// How many weights came.
        weights: usize,
        /// How many biases came.
        biases: usize,
        /// How many inputs the layer before it gives.
        inputs: usize,
    },
}

impl Mlp {
    /// Joins `layers` behind an input of width `inputs`.
    pub fn new(inputs: usize, layers: Vec<Layer>) -> Result<Self, MlpError> {
        if layers.is_empty() || inputs == 0 {
            return Err(MlpError::Empty);
        }
        let mut width = inputs;
        for (layer, l) in layers.iter().enumerate() {
            if l.bias.is_empty() || l.weight.len() != l.bias.len() * width {
                let (weights, biases) = (l.weight.len(), l.bias.len());
                return Err(MlpError::Shape { layer, weights, biases, inputs: width });
            }
            width = l.bias.len();
        }
        Ok(Self { layers, scratch: [Vec::new(), Vec::new()] })
    }

    /// A network of these widths, `hidden` after each layer but the last, whose weights are still to be handed over.
    ///
    /// # Panics
    /// If there are fewer than two widths, or one is 0: they come from a configuration that was checked.
    pub fn zeros(widths: &[usize], hidden: Activation) -> Self {
        let layer = |(i, pair): (usize, &[usize])| Layer {
            weight: vec![0.0; pair[1] * pair[0]],
            bias: vec![0.0; pair[1]],
            activation: if i + 2 == widths.len() { Activation::Identity } else { hidden },
        };
        let layers = widths.windows(2).enumerate().map(layer).collect();
        Self::new(widths[0], layers).expect("neighbouring layers fit")
    }

    /// Width of an observation.
    pub fn inputs(&self) -> usize {
        self.layers[0].weight.len() / self.layers[0].bias.len()
    }

    /// Width of an answer.
    pub fn outputs(&self) -> usize {
        self.layers[self.layers.len() - 1].bias.len()
    }

    /// The layers, first to last.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The layers, for handing new weights over; sizes must stay as they are.
    pub fn layers_mut(&mut self) -> &mut [Layer] {
        &mut self.layers
    }

    /// Answers row-major `x` `[rows, inputs]` with `[rows, outputs]`. Allocates only when `rows` grows.
    ///
    /// # Panics
    /// If `x` is not a whole number of rows: callers check what comes from outside.
    pub fn forward(&mut self, x: &[f32]) -> &[f32] {
        let inputs = self.inputs();
        assert_eq!(x.len() % inputs, 0, "whole rows of {inputs}");
        let rows = x.len() / inputs;
        let [from, to] = &mut self.scratch;
        from.clear();
        from.extend_from_slice(x);
        for layer in &self.layers {
            let outputs = layer.bias.len();
            let inputs = layer.weight.len() / outputs;
            to.clear();
            to.resize(rows * outputs, 0.0);
            for (x, y) in from.chunks_exact(inputs).zip(to.chunks_exact_mut(outputs)) {
                let rows = layer.weight.chunks_exact(inputs).zip(&layer.bias);
                y.iter_mut().zip(rows).for_each(|(y, (w, b))| *y = dot(w, x) + b);
            }
            apply(layer.activation, to);
            std::mem::swap(from, to);
        }
        from
    }
}

/// The index of the largest value; the first of equals.
pub fn argmax(values: &[f32]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// The same as an action: no number where a value is none.
pub fn choice(values: &[f32]) -> f32 {
    if values.iter().any(|value| value.is_nan()) { f32::NAN } else { argmax(values) as f32 }
}

/// Eight running sums, which the compiler turns into SIMD lanes.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(weight: &[f32], bias: &[f32], activation: Activation) -> Layer {
        Layer { weight: weight.to_vec(), bias: bias.to_vec(), activation }
    }

    #[test]
    fn two_layers_by_hand() {
        let first = layer(&[1.0, -1.0, 0.5, 0.5], &[0.0, -1.0], Activation::Relu);
        let second = layer(&[2.0, 3.0], &[0.25], Activation::Identity);
        let mut net = Mlp::new(2, vec![first, second]).unwrap();
        assert_eq!(net.forward(&[3.0, 1.0, 1.0, 3.0]), &[2.0 * 2.0 + 3.0 + 0.25, 3.0 + 0.25]);
    }

    #[test]
    fn layers_must_fit() {
        let l = layer(&[1.0, 2.0, 3.0], &[0.0], Activation::Tanh);
        assert_eq!(
            Mlp::new(2, vec![l]).unwrap_err(),
            MlpError::Shape { layer: 0, weights: 3, biases: 1, inputs: 2 }
        );
        assert_eq!(Mlp::new(2, vec![]).unwrap_err(), MlpError::Empty);
    }
}

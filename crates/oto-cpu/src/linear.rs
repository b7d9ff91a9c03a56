//! A fully connected layer with weights that are known beforehand, for any number of rows: what served policies answer with.
//!
//! Each sum runs along the inputs in their order, however many rows there are: a row's answer does not depend on the rows
//! it came with.

use crate::matmul::{Finish, Scratch, Side, matmul};
use oto_graph::Activation;

/// `activation(weight x + bias)` on plain numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `[inputs, outputs]`, as products read it in place.
    weight: Vec<f32>,
    /// `[outputs]`.
    bias: Vec<f32>,
    /// What follows.
    pub activation: Activation,
}

impl Linear {
    /// A layer of `weight`, row-major `[outputs, inputs]` as PyTorch stores it, and `bias` `[outputs]`. None if the two do not fit, or
    /// either is empty.
    pub fn new(weight: &[f32], bias: Vec<f32>, activation: Activation) -> Option<Self> {
        let outputs = bias.len();
        if weight.is_empty() || outputs == 0 || !weight.len().is_multiple_of(outputs) {
            return None;
        }
        let inputs = weight.len() / outputs;
        let turned = (0..weight.len()).map(|i| weight[i % outputs * inputs + i / outputs]).collect();
        Some(Linear { weight: turned, bias, activation })
    }

    /// Numbers of a row that comes.
    pub fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    /// Numbers of a row that goes.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// `[inputs, outputs]`.
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// `[outputs]`.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// How numbers grow: no sum, nor a part of it, exceeds the first times the largest input, plus the second.
    pub fn growth(&self) -> (f64, f64) {
        let mut sums = vec![0.0f64; self.outputs()];
        for weights in self.weight.chunks_exact(self.outputs()) {
            sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += f64::from(weight.abs()));
        }
        let largest = self.bias.iter().fold(0.0, |largest: f64, bias| largest.max(f64::from(bias.abs())));
        (sums.into_iter().fold(0.0, f64::max), largest)
    }

    /// Puts `[rows, outputs]` for row-major `x` `[rows, inputs]` in place of what `out` holds. Allocates only when that grows.
    ///
    /// # Panics
    /// If `x` is not a whole number of rows: callers check what comes from outside.
    pub fn forward(&self, x: &[f32], out: &mut Vec<f32>, scratch: &mut Scratch) {
        let (k, n) = (self.inputs(), self.outputs());
        assert_eq!(x.len() % k, 0, "whole rows of {k}");
        out.resize(x.len() / k * n, 0.0);
        let a = Side { values: x, columns: k, turned: false };
        let b = Side { values: &self.weight, columns: n, turned: false };
        let finish = Finish { bias: Some(&self.bias), activation: self.activation, derivative: None };
        matmul(a, b, finish, n, k, out, scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look drawn, from -1 to 1.
    fn some(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 1.7).sin()).collect()
    }

    #[test]
    fn a_layer_by_hand() {
        let layer = Linear::new(&[1.0, -1.0, 0.5, 0.5], vec![0.0, -1.0], Activation::Relu).unwrap();
        let mut out = vec![7.0; 9];
        layer.forward(&[3.0, 1.0, 1.0, 3.0], &mut out, &mut Scratch::default());
        assert_eq!((layer.inputs(), layer.outputs(), out.as_slice()), (2, 2, &[2.0, 1.0, 0.0, 1.0][..]));
        assert_eq!(layer.growth(), (2.0, 1.0));
    }

    #[test]
    fn a_row_is_answered_alike_whoever_comes_with_it() {
        for (inputs, outputs) in [(1, 1), (3, 2), (4, 64), (64, 1), (65, 33), (17, 100)] {
            for activation in [Activation::Identity, Activation::Relu, Activation::Tanh] {
                let layer = Linear::new(&some(inputs * outputs), some(outputs), activation).unwrap();
                let (x, mut all, mut one) = (some(37 * inputs), Vec::new(), Vec::new());
                let mut scratch = Scratch::default();
                layer.forward(&x, &mut all, &mut scratch);
                for (x, all) in x.chunks_exact(inputs).zip(all.chunks_exact(outputs)) {
                    layer.forward(x, &mut one, &mut scratch);
                    assert_eq!(one, all, "{inputs} {outputs} {activation:?}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_no_layer() {
        for (weight, bias) in [(&[][..], vec![1.0]), (&[1.0], vec![]), (&[1.0, 2.0, 3.0], vec![0.0, 0.0])] {
            assert_eq!(Linear::new(weight, bias, Activation::Identity), None);
        }
    }
}

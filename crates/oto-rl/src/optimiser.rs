//! Parameters and what improves them: names, initial values, Adam.

use oto_env::rng::Rng;
use oto_graph::{Activation, Tensor, Trace, grad};

/// Adam's constants (Kingma and Ba 2015, section 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Decay of the gradient's average.
    pub beta1: f64,
    /// Decay of the squared gradient's average.
    pub beta2: f64,
    /// Keeps the division finite.
    pub epsilon: f64,
}

oto_json::json_object! { Adam: settings { beta1, beta2, epsilon } }

impl Default for Adam {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

impl Adam {
    /// One step of `params` down `loss`: pairs of old state and new value, the moments and the step count (`adam.*`) included.
    pub fn step<'t>(
        self,
        trace: &'t Trace,
        params: &[(String, Tensor<'t>)],
        loss: Tensor<'t>,
        lr: Tensor<'t>,
    ) -> Vec<(Tensor<'t>, Tensor<'t>)> {
        let tensors = params.iter().map(|(_, p)| *p).collect::<Vec<_>>();
        self.descend(trace, params, &grad(loss, &tensors), lr)
    }

    /// The same along gradients that are known, one for each parameter.
    pub fn descend<'t>(
        self,
        trace: &'t Trace,
        params: &[(String, Tensor<'t>)],
        gradients: &[Tensor<'t>],
        lr: Tensor<'t>,
    ) -> Vec<(Tensor<'t>, Tensor<'t>)> {
        let old_t = trace.state("adam.t", &[]);
        let t = old_t + 1.0;
        let mut updates = vec![(old_t, t)];
        for ((name, p), g) in params.iter().zip(gradients) {
            let m = trace.state(format!("adam.m.{name}"), &p.shape());
            let v = trace.state(format!("adam.v.{name}"), &p.shape());
            let new_m = m.moment(*g, self.beta1, false);
            let new_v = v.moment(*g, self.beta2, true);
            let new_p = p.adam_step(new_m, new_v, t, lr, self.beta1, self.beta2, self.epsilon);
            updates.extend([(m, new_m), (v, new_v), (*p, new_p)]);
        }
        updates
    }
}

/// Gradients made shorter, all by one factor, where their common length is above `most` (Pascanu et al. 2013); as PyTorch's
/// `clip_grad_norm_`, a millionth added to the length included.
pub fn clipped<'t>(gradients: &[Tensor<'t>], most: f64) -> Vec<Tensor<'t>> {
    let squares = gradients.iter().map(|g| g.square().sum()).reduce(|a, b| a + b);
    let Some(squares) = squares else { return Vec::new() };
    let one = squares.trace().constant(1.0, &[]);
    let factor = ((squares.sqrt() + 1e-6).recip() * most).minimum(one);
    gradients.iter().map(|g| *g * factor).collect()
}

/// The parameters of a multi-layer perceptron as state inputs named `{prefix}{layer}.weight` and `.bias`.
pub fn mlp_parameters<'t>(trace: &'t Trace, prefix: &str, sizes: &[usize]) -> Vec<(String, Tensor<'t>)> {
    let layer = |(i, pair): (usize, &[usize])| {
        let (weight, bias) = (format!("{prefix}{i}.weight"), format!("{prefix}{i}.bias"));
        let w = trace.state(weight.clone(), &[pair[1], pair[0]]);
        let b = trace.state(bias.clone(), &[pair[1]]);
        [(weight, w), (bias, b)]
    };
    sizes.windows(2).enumerate().flat_map(layer).collect()
}

/// The network those parameters make: `hidden` after each layer but the last. x `[B, sizes[0]]`.
pub fn mlp<'t>(params: &[(String, Tensor<'t>)], x: Tensor<'t>, hidden: Activation) -> Tensor<'t> {
    let layers = params.len() / 2;
    let after = |i| if i + 1 == layers { Activation::Identity } else { hidden };
    params.chunks_exact(2).enumerate().fold(x, |x, (i, p)| x.linear(p[0].1, p[1].1, after(i)))
}

/// Initial values of a linear layer, uniform in `+-1/sqrt(inputs)` for weight and bias: PyTorch's `nn.Linear`, from which
/// the field's baselines start.
pub fn initial_layer(rng: &mut Rng, inputs: usize, outputs: usize) -> (Vec<f32>, Vec<f32>) {
    let bound = 1.0 / (inputs as f64).sqrt();
    let mut draw = |n: usize| (0..n).map(|_| rng.uniform(-bound, bound) as f32).collect::<Vec<_>>();
    (draw(inputs * outputs), draw(outputs))
}

/// Weights `[outputs, inputs]` whose rows (or columns, where there are fewer) are orthogonal to one another and of length
/// `gain` (Saxe et al. 2014), as PyTorch's `orthogonal_`; the biases beside them are zeros.
pub fn orthogonal_layer(rng: &mut Rng, inputs: usize, outputs: usize, gain: f64) -> (Vec<f32>, Vec<f32>) {
    let (count, length) = (inputs.min(outputs), inputs.max(outputs));
    let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(count);
    while vectors.len() < count {
        let mut drawn = (0..length).map(|_| rng.normal()).collect::<Vec<_>>();
        for known in &vectors {
            let along = known.iter().zip(&drawn).map(|(a, b)| a * b).sum::<f64>();
            drawn.iter_mut().zip(known).for_each(|(d, k)| *d -= along * k);
        }
        let norm = drawn.iter().map(|d| d * d).sum::<f64>().sqrt();
        // One that lay among the others is drawn again.
        if norm > 1e-6 {
            drawn.iter_mut().for_each(|d| *d /= norm);
            vectors.push(drawn);
        }
    }
    let at = |o: usize, i: usize| if outputs <= inputs { vectors[o][i] } else { vectors[i][o] };
    let weight = (0..outputs * inputs).map(|k| (gain * at(k / inputs, k % inputs)) as f32);
    (weight.collect(), vec![0.0; outputs])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orthogonal_layers_keep_lengths() {
        let rng = &mut Rng::new(1);
        for (inputs, outputs) in [(5, 3), (3, 5), (4, 4), (1, 2)] {
            let (w, b) = orthogonal_layer(rng, inputs, outputs, 2.0);
            assert_eq!((w.len(), b), (inputs * outputs, vec![0.0; outputs]));
            let vector = |i: usize| -> Vec<f32> {
                match outputs <= inputs {
                    true => w[i * inputs..][..inputs].to_vec(),
                    false => w.iter().skip(i).step_by(inputs).copied().collect(),
                }
            };
            for i in 0..inputs.min(outputs) {
                for j in 0..=i {
                    let dot = vector(i).iter().zip(vector(j)).map(|(a, b)| a * b).sum::<f32>();
                    let expected = if i == j { 4.0 } else { 0.0 };
                    assert!((dot - expected).abs() < 1e-5, "{inputs} to {outputs}, {i} and {j}: {dot}");
                }
            }
        }
    }
}

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
        let old_t = trace.state("adam.t", &[]);
        let t = old_t + 1.0;
        let tensors = params.iter().map(|(_, p)| *p).collect::<Vec<_>>();
        let gradients = grad(loss, &tensors);
        let mut updates = vec![(old_t, t)];
        for ((name, p), g) in params.iter().zip(gradients) {
            let m = trace.state(format!("adam.m.{name}"), &p.shape());
            let v = trace.state(format!("adam.v.{name}"), &p.shape());
            let new_m = m.moment(g, self.beta1, false);
            let new_v = v.moment(g, self.beta2, true);
            let new_p = p.adam_step(new_m, new_v, t, lr, self.beta1, self.beta2, self.epsilon);
            updates.extend([(m, new_m), (v, new_v), (*p, new_p)]);
        }
        updates
    }
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

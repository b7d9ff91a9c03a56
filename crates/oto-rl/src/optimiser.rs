//! Parameters and what improves them: names, initial values, Adam, and the optimisers of a program.
//!
//! A program may have several optimisers, each with parameters, a learning rate, a period and a longest gradient of its own. TD3's
//! update (Fujimoto et al. 2018, algorithm 1), whose actor and targets move at every second update only:
//!
//! ```
//! # use oto_graph::{Activation, Trace};
//! # use oto_rl::optimiser::{Adam, Optimiser, Updates, mlp, mlp_parameters};
//! # let t = &Trace::new();
//! # let (critic, target) = (mlp_parameters(t, "critic.", &[3, 8, 1]), mlp_parameters(t, "target.critic.", &[3, 8, 1]));
//! # let actor = mlp_parameters(t, "actor.", &[3, 8, 1]);
//! # let x = t.data("observation", &[4, 3]);
//! # let critic_loss = mlp(&critic, x, Activation::Relu).square().mean();
//! # let actor_loss = mlp(&actor, x, Activation::Relu).square().mean();
//! let lr = t.data("lr", &[]);
//! let mut updates = Updates::new(t);
//! updates.minimise(&Optimiser::new("critic", Adam::default(), lr), &critic, critic_loss);
//! updates.minimise(&Optimiser::new("actor", Adam::default(), lr).every(2), &actor, actor_loss);
//! updates.follow(&target, &critic, t.data("target_mix", &[]), 2);
//! let actor_loss = updates.hold("actor_loss", actor_loss, 2);
//! let program = t.finish(&updates.pairs(), &[("loss", critic_loss), ("actor_loss", actor_loss)]);
//! # assert!(program.input("every_2").is_some() && program.input("adam.t.actor").is_some());
//! ```

use oto_env::rng::Rng;
use oto_graph::{Activation, Tensor, Trace, grad};

/// Adam's constants (Kingma and Ba 2015, section 2).
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
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
    /// One step of `params` down `loss`, the only optimiser of its program: pairs of old state and new value, the moments and the
    /// step count (`adam.*`) included.
    pub fn step<'t>(
        self,
        trace: &'t Trace,
        params: &[(String, Tensor<'t>)],
        loss: Tensor<'t>,
        lr: Tensor<'t>,
    ) -> Vec<(Tensor<'t>, Tensor<'t>)> {
        let mut updates = Updates::new(trace);
        updates.minimise(&Optimiser::new("", self, lr), params, loss);
        updates.pairs()
    }

    /// The same along gradients that are known, one for each parameter.
    pub fn descend<'t>(
        self,
        trace: &'t Trace,
        params: &[(String, Tensor<'t>)],
        gradients: &[Tensor<'t>],
        lr: Tensor<'t>,
    ) -> Vec<(Tensor<'t>, Tensor<'t>)> {
        let mut updates = Updates::new(trace);
        updates.descend(&Optimiser::new("", self, lr), params, gradients);
        updates.pairs()
    }
}

/// An optimiser: Adam with a learning rate, a period and a longest gradient.
#[derive(Clone)]
pub struct Optimiser<'t> {
    name: String,
    adam: Adam,
    lr: Tensor<'t>,
    period: u64,
    when: Option<Tensor<'t>>,
    max_norm: Option<f64>,
}

impl<'t> Optimiser<'t> {
    /// Adam with learning rate `lr` `[]`, at every update. Its step count is the state `adam.t.{name}`, `adam.t` without a name.
    pub fn new(name: &str, adam: Adam, lr: Tensor<'t>) -> Self {
        let name = if name.is_empty() { "adam.t".into() } else { format!("adam.t.{name}") };
        Self { name, adam, lr, period: 1, when: None, max_norm: None }
    }

    /// Steps at every `period`-th update only. In between parameters, moments and step count stay as they are, bit by bit.
    ///
    /// # Panics
    /// If `period` is 0: it comes from a configuration that was checked.
    pub fn every(self, period: u64) -> Self {
        assert!(period > 0, "an optimiser that never steps");
        Self { period, ..self }
    }

    /// Steps only where the data input `when` `[]` is 1, whatever the period; where it is 0 everything stays as it is, bit by bit.
    pub fn when(self, when: Tensor<'t>) -> Self {
        Self { when: Some(when), ..self }
    }

    /// Shortens the gradients where their common norm is above `max_norm`; see [`clipped`].
    pub fn clip(self, max_norm: f64) -> Self {
        Self { max_norm: Some(max_norm), ..self }
    }
}

/// An update of a program's state: every optimiser's steps, target networks and held values.
pub struct Updates<'t> {
    trace: &'t Trace,
    /// Old state and new value.
    pairs: Vec<(Tensor<'t>, Tensor<'t>)>,
}

impl<'t> Updates<'t> {
    /// None yet.
    pub fn new(trace: &'t Trace) -> Self {
        Self { trace, pairs: Vec::new() }
    }

    /// One step of `params` down `loss` `[]`. Moments are the states `adam.m.{parameter}` and `adam.v.{parameter}`.
    pub fn minimise(&mut self, optimiser: &Optimiser<'t>, params: &[(String, Tensor<'t>)], loss: Tensor<'t>) {
        let tensors = params.iter().map(|(_, p)| *p).collect::<Vec<_>>();
        self.descend(optimiser, params, &grad(loss, &tensors));
    }

    /// The same along gradients that are known, one for each parameter.
    pub fn descend(
        &mut self,
        optimiser: &Optimiser<'t>,
        params: &[(String, Tensor<'t>)],
        gradients: &[Tensor<'t>],
    ) {
        let Optimiser { name, adam, lr, period, when, max_norm } = optimiser;
        let when = when.or_else(|| self.due(*period));
        let gradients = match max_norm {
            Some(most) => clipped(gradients, *most),
            None => gradients.to_vec(),
        };
        let old_t = self.trace.state(name.as_str(), &[]);
        let t = old_t + 1.0;
        self.replace_when(old_t, t, when);
        for ((name, p), g) in params.iter().zip(gradients) {
            let m = self.trace.state(format!("adam.m.{name}"), &p.shape());
            let v = self.trace.state(format!("adam.v.{name}"), &p.shape());
            let new_m = m.moment(g, adam.beta1, false);
            let new_v = v.moment(g, adam.beta2, true);
            let new_p = p.adam_step(new_m, new_v, t, *lr, adam.beta1, adam.beta2, adam.epsilon);
            self.replace_when(m, new_m, when);
            self.replace_when(v, new_v, when);
            self.replace_when(*p, new_p, when);
        }
    }

    /// Slow copies take over the share `tau` `[]` of their parameters' newest values at every `period`-th update.
    pub fn follow(
        &mut self,
        targets: &[(String, Tensor<'t>)],
        params: &[(String, Tensor<'t>)],
        tau: Tensor<'t>,
        period: u64,
    ) {
        for ((_, target), (_, p)) in targets.iter().zip(params) {
            self.replace(*target, target.polyak(self.latest(*p), tau), period);
        }
    }

    /// The newest value of a state: what the optimisers before made of it, else what it was. A loss on newest values is taken after
    /// those optimisers' steps (SAC's authors update the actor so); its gradient towards them is the old parameters' no more. Where
    /// steps are read by others than slow copies, backends compute them one by one, not all together.
    pub fn latest(&self, state: Tensor<'t>) -> Tensor<'t> {
        let new = self.pairs.iter().find(|(old, _)| old.id() == state.id());
        new.map_or(state, |(_, new)| *new)
    }

    /// `value` `[]` as it was at the last `period`-th update: the state `held.{name}`. What only a held value needs is not computed
    /// in between.
    pub fn hold(&mut self, name: &str, value: Tensor<'t>, period: u64) -> Tensor<'t> {
        if period == 1 {
            return value;
        }
        let held = self.trace.state(format!("held.{name}"), &value.shape());
        self.replace(held, value, period);
        self.latest(held)
    }

    /// A state's new value, taken over at every `period`-th update.
    pub fn replace(&mut self, old: Tensor<'t>, new: Tensor<'t>, period: u64) {
        self.replace_when(old, new, self.due(period));
    }

    /// The data input that is 1 at every `period`-th update; none where that is every update.
    fn due(&self, period: u64) -> Option<Tensor<'t>> {
        (period != 1).then(|| self.trace.shared_data(&due_input(period), &[]))
    }

    fn replace_when(&mut self, old: Tensor<'t>, new: Tensor<'t>, when: Option<Tensor<'t>>) {
        self.pairs.push((old, when.map_or(new, |when| new.select(when, old))));
    }

    /// All pairs of old state and new value, as [`Trace::finish`] takes them.
    pub fn pairs(&self) -> Vec<(Tensor<'t>, Tensor<'t>)> {
        self.pairs.clone()
    }
}

/// The data input that is 1 at every `period`-th update and 0 in between.
fn due_input(period: u64) -> String {
    format!("{DUE}{period}")
}

/// The period that a data input of this name stands for; see [`Optimiser::every`].
pub(crate) fn due_period(input: &str) -> Option<u64> {
    input.strip_prefix(DUE)?.parse().ok().filter(|period| *period > 0)
}

const DUE: &str = "every_";

/// Gradients made shorter, all by one factor, where their common length is above `most` (Pascanu et al. 2013); as PyTorch's
/// `clip_grad_norm_`, a millionth added to the length included.
pub fn clipped<'t>(gradients: &[Tensor<'t>], most: f64) -> Vec<Tensor<'t>> {
    let Some(norm) = global_norm(gradients) else { return Vec::new() };
    let one = norm.trace().constant(1.0, &[]);
    let factor = ((norm + 1e-6).recip() * most).minimum(one);
    gradients.iter().map(|g| *g * factor).collect()
}

/// The same as TensorFlow's `clip_by_global_norm`, without the millionth: all gradients times `most / max(norm, most)`.
pub fn clipped_by_global_norm<'t>(gradients: &[Tensor<'t>], most: f64) -> Vec<Tensor<'t>> {
    let Some(norm) = global_norm(gradients) else { return Vec::new() };
    let factor = norm.maximum(norm.trace().constant(most, &[])).recip() * most;
    gradients.iter().map(|g| *g * factor).collect()
}

/// The length `[]` of all gradients together.
pub fn global_norm<'t>(gradients: &[Tensor<'t>]) -> Option<Tensor<'t>> {
    gradients.iter().map(|g| g.square().sum()).reduce(|a, b| a + b).map(Tensor::sqrt)
}

/// The parameters of a multi-layer perceptron as state inputs named `{prefix}{layer}.weight` and `.bias`.
pub fn mlp_parameters<'t>(trace: &'t Trace, prefix: &str, sizes: &[usize]) -> Vec<(String, Tensor<'t>)> {
    layer_parameters(trace, prefix, &[], sizes)
}

/// The same of `count` networks side by side: weights `[count, outputs, inputs]`, biases `[count, outputs]`.
pub fn ensemble_parameters<'t>(
    trace: &'t Trace,
    prefix: &str,
    count: usize,
    sizes: &[usize],
) -> Vec<(String, Tensor<'t>)> {
    layer_parameters(trace, prefix, &[count], sizes)
}

fn layer_parameters<'t>(
    trace: &'t Trace,
    prefix: &str,
    count: &[usize],
    sizes: &[usize],
) -> Vec<(String, Tensor<'t>)> {
    let layer = |(i, pair): (usize, &[usize])| {
        let (weight, bias) = (format!("{prefix}{i}.weight"), format!("{prefix}{i}.bias"));
        let w = trace.state(weight.clone(), &[count, &[pair[1], pair[0]]].concat());
        let b = trace.state(bias.clone(), &[count, &[pair[1]]].concat());
        [(weight, w), (bias, b)]
    };
    sizes.windows(2).enumerate().flat_map(layer).collect()
}

/// The network those parameters make: `hidden` after each layer but the last. x `[B, sizes[0]]`; an ensemble gives `[count, B, .]`.
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

//! Long short-term memory (Hochreiter and Schmidhuber 1997; forget gates by Gers et al. 2000): a layer over the steps of a rollout in a
//! program, and step by step where it acts.
//!
//! The equations and the order of the gates are PyTorch's `nn.LSTM`: input, forget, cell, output. PyTorch has two biases, whose gradients
//! are equal; here is one, their sum.

use crate::critics::InitialParameters;
use crate::mlp::dot;
use oto_env::rng::Rng;
use oto_graph::{Activation, Tensor, Trace};

/// The gates: input, forget, cell, output.
const GATES: usize = 4;
/// The parameters' names, after their prefix: `[4 H, I]`, `[4 H, H]`, `[4 H]`.
pub const PARAMETERS: [&str; 3] = ["weight_ih", "weight_hh", "bias"];

/// The parameters of a layer from `inputs` numbers to `units`, as state inputs `{prefix}{name}`.
pub fn parameters<'t>(t: &'t Trace, prefix: &str, inputs: usize, units: usize) -> Vec<(String, Tensor<'t>)> {
    let shapes = [vec![GATES * units, inputs], vec![GATES * units, units], vec![GATES * units]];
    let named = PARAMETERS.iter().zip(shapes).map(|(part, shape)| (format!("{prefix}{part}"), shape));
    named.map(|(name, shape)| (name.clone(), t.state(name, &shape))).collect()
}

/// Initial values by the parameters' names: weights uniform in `+-1/sqrt(units)` as in PyTorch; biases 0, but 1 for the forget gates, so
/// that the layer begins by remembering (Jozefowicz et al. 2015).
pub(crate) fn initial(rng: &mut Rng, prefix: &str, inputs: usize, units: usize, out: &mut InitialParameters) {
    let bound = 1.0 / (units as f64).sqrt();
    let mut draw = |n: usize| (0..n).map(|_| rng.uniform(-bound, bound) as f32).collect::<Vec<_>>();
    let weights = [draw(GATES * units * inputs), draw(GATES * units * units)];
    let bias = (0..GATES * units).map(|i| if i / units == 1 { 1.0 } else { 0.0 }).collect();
    let values = weights.into_iter().chain([bias]);
    out.extend(PARAMETERS.iter().zip(values).map(|(part, values)| (format!("{prefix}{part}"), values)));
}

/// The outputs `[T, H]` of T consecutive steps with inputs x `[T, I]`. `state` `[2, H]` is the hidden and the cell state before the first
/// step; `keep` `[T]` is 0 where a step begins an episode: the state is zero there. `params` are those of [`parameters`].
///
/// # Panics
/// If the shapes do not fit.
pub fn unrolled<'t>(
    params: &[(String, Tensor<'t>)],
    x: Tensor<'t>,
    state: Tensor<'t>,
    keep: Tensor<'t>,
) -> Tensor<'t> {
    let [weight_ih, weight_hh, bias] = [0, 1, 2].map(|i| params[i].1);
    let (steps, units) = (x.size(0), weight_hh.size(1));
    let seen = x.linear(weight_ih, bias, Activation::Identity);
    // In groups: the gradient of a step is put among those of its group, and a group among the groups.
    let group = (1..=steps.isqrt()).rev().find(|group| steps.is_multiple_of(*group)).unwrap_or(1);
    let groups = seen.reshape(&[steps / group, group * GATES * units]);
    let seen = (0..steps / group).map(|i| groups.member(i).reshape(&[group, GATES * units]));
    let seen = seen.collect::<Vec<_>>();
    let keep = keep.reshape(&[steps, 1]);
    let (mut hidden, mut cell) = (state.member(0), state.member(1));
    let outputs = (0..steps).map(|step| {
        let kept = keep.member(step).broadcast(&[units]);
        let before = (hidden * kept).reshape(&[1, units]);
        let own = seen[step / group].member(step % group);
        let gates = before.linear(weight_hh, own, Activation::Identity);
        let gates = gates.reshape(&[GATES, units]);
        let [input, forget, output] = [0, 1, 3].map(|gate| sigmoid(gates.member(gate)));
        cell = forget * (cell * kept) + input * gates.member(2).tanh();
        hidden = output * cell.tanh();
        hidden.reshape(&[1, units])
    });
    x.trace().side_by_side(&outputs.collect::<Vec<_>>()).reshape(&[steps, units])
}

/// `1 / (1 + e^-x)`, which is `(1 + tanh(x / 2)) / 2`: no number overflows.
fn sigmoid(x: Tensor<'_>) -> Tensor<'_> {
    (x * 0.5).tanh().affine(0.5, 0.5)
}

/// A layer whose sizes do not fit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "an LSTM layer of {units} units behind {inputs} inputs has {expected:?} numbers in weight_ih, weight_hh and bias, got {got:?}"
)]
pub struct LstmError {
    units: usize,
    inputs: usize,
    expected: [Option<usize>; 3],
    got: [usize; 3],
}

/// The layer on plain weights, step by step. Its state is the hidden state, then the cell state: `[2 H]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Lstm {
    /// `[4 H, I]`, `[4 H, H]` and `[4 H]`.
    parameters: [Vec<f32>; 3],
    inputs: usize,
    units: usize,
    gates: Vec<f32>,
}

impl Lstm {
    /// The layer of `units` units behind `inputs` inputs with these parameters, see [`PARAMETERS`].
    ///
    /// # Errors
    /// Parameters of other sizes.
    pub fn new(inputs: usize, units: usize, parameters: [Vec<f32>; 3]) -> Result<Self, LstmError> {
        let gates = units.checked_mul(GATES);
        let expected = [inputs, units, 1].map(|width| gates?.checked_mul(width));
        let got = parameters.each_ref().map(Vec::len);
        if inputs == 0 || units == 0 || expected != got.map(Some) {
            return Err(LstmError { units, inputs, expected, got });
        }
        Ok(Self { parameters, inputs, units, gates: vec![0.0; GATES * units] })
    }

    /// A layer whose weights are still to be handed over. Neither size is 0: they come from a configuration that was checked.
    pub fn zeros(inputs: usize, units: usize) -> Self {
        let gates = GATES * units;
        let parameters = [gates * inputs, gates * units, gates].map(|n| vec![0.0; n]);
        Self { parameters, inputs, units, gates: vec![0.0; gates] }
    }

    /// Numbers of an input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Units, the numbers of an output.
    pub fn units(&self) -> usize {
        self.units
    }

    /// `weight_ih`, `weight_hh` and `bias`.
    pub fn parameters(&self) -> impl Iterator<Item = &[f32]> {
        self.parameters.iter().map(Vec::as_slice)
    }

    /// The same, for handing new weights over; sizes must stay as they are.
    pub fn parameters_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.parameters.iter_mut().map(Vec::as_mut_slice)
    }

    /// One step from input x `[I]`: `state` `[2 H]` becomes the next, whose first half is the output. Allocates nothing.
    pub fn step(&mut self, x: &[f32], state: &mut [f32]) {
        let Self { parameters: [weight_ih, weight_hh, bias], gates, inputs, units } = self;
        let (hidden, cell) = state.split_at_mut(*units);
        let rows = weight_ih.chunks_exact(*inputs).zip(weight_hh.chunks_exact(*units)).zip(&*bias);
        gates
            .iter_mut()
            .zip(rows)
            .for_each(|(gate, ((seen, before), bias))| *gate = dot(seen, x) + dot(before, hidden) + bias);
        let logistic = |x: f32| 0.5 * (0.5 * x).tanh() + 0.5;
        for i in 0..*units {
            let [input, forget, change, output] = [0, 1, 2, 3].map(|gate| gates[gate * *units + i]);
            cell[i] = logistic(forget) * cell[i] + logistic(input) * change.tanh();
            hidden[i] = logistic(output) * cell[i].tanh();
        }
    }
}

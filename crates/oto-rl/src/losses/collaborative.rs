//! Agents that teach each other ("Collaborative Deep Reinforcement Learning", Lin et al. 2017, section 4 and Algorithm 1): the losses of
//! the asynchronous advantage actor-critic (Mnih et al. 2016), and the deep alignment network. Equations 1 to 3 are
//! [`super::distillation::distillation_kl`]; Algorithm 1's advantages are [`super::actor_critic::gae`].
//!
//! The printed forms are sums over the steps of a rollout, T of them.

use super::actor_critic::{GaeStep, categorical_entropy};
use super::distillation::{Divergence, distillation_kl};
use oto_graph::{Activation, Tensor};

/// Algorithm 1, lines 17 and 21: each step's discounted return, `R = r + gamma R`, from the last state's value; an episode that ended
/// inside the rollout is the end of its steps' returns.
pub fn rollout_returns(steps: &[GaeStep], gamma: f64, returns: &mut [f64]) {
    let mut next = steps.last().map_or(0.0, |step| step.next_value);
    for (step, returned) in steps.iter().zip(returns).rev() {
        if step.terminated {
            next = 0.0;
        } else if step.truncated {
            next = step.next_value;
        }
        next = step.reward + gamma * next;
        *returned = next;
    }
}

/// Algorithm 1, line 22, and the entropy's term: for each step, `[T]`, `-log pi(a|s) advantage - coefficient entropy`; logits `[T, A]`,
/// action and advantage `[T]`, of which the advantage is a constant for the gradient.
pub fn a3c_policy<'t>(
    logits: Tensor<'t>,
    action: Tensor<'t>,
    advantage: Tensor<'t>,
    coefficient: f64,
) -> Tensor<'t> {
    let taken = logits.log_softmax().pick(action);
    -(taken * advantage.stop_gradient()) - categorical_entropy(logits) * coefficient
}

/// The weight of [`a3c_value`] in the authors' code.
pub const CODE_VALUE_WEIGHT: f64 = 0.25;

/// Algorithm 1, line 23: for each step, `[T]`, `(R - v)^2`; value and return `[T]`.
pub fn a3c_value<'t>(value: Tensor<'t>, returns: Tensor<'t>) -> Tensor<'t> {
    (returns.stop_gradient() - value).square()
}

/// What is after the hidden layers of an alignment network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename_all = "snake_case"))]
pub enum AlignmentActivation {
    /// `max(x, 0)`, as in the paper.
    #[default]
    Relu,
    /// `x` above 0, else `e^x - 1`, as in the authors' code.
    Elu,
}

oto_json::json_names! { AlignmentActivation { Relu = "relu", Elu = "elu" } }

impl AlignmentActivation {
    /// The same on plain numbers.
    pub fn apply(self, x: &mut [f32]) {
        match self {
            Self::Relu => x.iter_mut().for_each(|x| *x = x.max(0.0)),
            Self::Elu => x.iter_mut().filter(|x| **x < 0.0).for_each(|x| *x = x.exp_m1()),
        }
    }
}

/// The deep alignment network (section 4.2) of a teacher's logits `[T, A_teacher]`, `[T, A]`: hidden layers and a linear one, each of a
/// weight `[outputs, inputs]` and a bias `[outputs]`.
pub fn aligned<'t>(
    layers: &[(Tensor<'t>, Tensor<'t>)],
    logits: Tensor<'t>,
    activation: AlignmentActivation,
) -> Tensor<'t> {
    let last = layers.len().saturating_sub(1);
    layers.iter().enumerate().fold(logits, |x, (i, (weight, bias))| match activation {
        _ if i == last => x.linear(*weight, *bias, Activation::Identity),
        AlignmentActivation::Relu => x.linear(*weight, *bias, Activation::Relu),
        AlignmentActivation::Elu => elu(x.linear(*weight, *bias, Activation::Identity)),
    })
}

fn elu(x: Tensor<'_>) -> Tensor<'_> {
    let zero = x.trace().constant(0.0, &[]);
    x.relu() + (x.minimum(zero).exp() + -1.0)
}

/// The loss of the alignment network for each step, `[T]`; student's logits and aligned logits `[T, A]`, and the student's are a
/// constant for the gradient. Algorithm 1, line 28, prints the student's logits as the target, with the temperature. The authors' code
/// has the two the other way round.
pub fn alignment_kl<'t>(
    student: Tensor<'t>,
    aligned: Tensor<'t>,
    tau: f64,
    divergence: Divergence,
) -> Tensor<'t> {
    let student = student.stop_gradient();
    match divergence {
        Divergence::OfficialCode => distillation_kl(aligned, student, tau, divergence),
        Divergence::Printed | Divergence::BothTempered => distillation_kl(student, aligned, tau, divergence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_stop_at_the_end_of_an_episode() {
        let step = |reward, terminated, truncated| GaeStep {
            reward,
            value: 9.0,
            next_value: 4.0,
            terminated,
            truncated,
        };
        let steps = [
            step(1.0, false, false),
            step(2.0, true, false),
            step(3.0, false, true),
            step(5.0, false, false),
        ];
        let mut returns = [0.0; 4];
        rollout_returns(&steps, 0.5, &mut returns);
        assert_eq!(returns, [2.0, 2.0, 5.0, 7.0]);
        rollout_returns(&[], 0.5, &mut []);
    }
}

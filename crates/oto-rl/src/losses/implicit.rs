//! Policies from advantages of the data's own actions: implicit Q-learning ("Offline Reinforcement Learning with Implicit Q-Learning",
//! Kostrikov et al. 2022) and advantage-weighted actor-critic ("AWAC: Accelerating Online Reinforcement Learning with Offline
//! Datasets", Nair et al. 2020). IQL's target of Q (eq. 6) is [`super::deterministic::bellman_target`] of V(s').

use super::actor_critic::gaussian_log_prob;
use oto_graph::Tensor;

/// The largest weight of an advantage, in the code of both papers.
pub const LARGEST_WEIGHT: f64 = 100.0;

/// Expectile regression of V (IQL eq. 5), `[]`: the mean of `|tau - 1(d < 0)| d^2` with `d = Q(s, a) - V(s)`; q and v `[B]`.
pub fn expectile<'t>(q: Tensor<'t>, v: Tensor<'t>, tau: f64) -> Tensor<'t> {
    let difference = q - v;
    let below = (-difference).step();
    (below.affine(1.0 - 2.0 * tau, tau) * difference.square()).mean()
}

/// The weight of a data action (IQL eq. 7), `[B]`: `min(e^(beta A), most)`, a constant for the gradient. AWAC's lambda (eq. 13) is
/// `1 / beta`.
pub fn advantage_weight<'t>(advantage: Tensor<'t>, beta: f64, most: f64) -> Tensor<'t> {
    let most = advantage.trace().constant(most, &[]);
    (advantage.stop_gradient() * beta).exp().minimum(most)
}

/// Weighted likelihood of the data's actions under a Gaussian policy (IQL eq. 7), negated: weight `[B]`, mean and action `[B, D]`, log_std
/// `[D]`.
pub fn weighted_gaussian<'t>(
    weight: Tensor<'t>,
    mean: Tensor<'t>,
    log_std: Tensor<'t>,
    action: Tensor<'t>,
) -> Tensor<'t> {
    -(weight * gaussian_log_prob(mean, log_std, action)).mean()
}

/// The same for a deterministic policy: the weighted squared error, a sum over the action's dimensions.
pub fn weighted_error<'t>(weight: Tensor<'t>, pi: Tensor<'t>, action: Tensor<'t>) -> Tensor<'t> {
    (weight * (pi - action).square().sum_last()).mean()
}

/// The same for discrete actions `[B]`: the weighted likelihood under softmax(logits) `[B, A]`, negated.
pub fn weighted_softmax<'t>(weight: Tensor<'t>, logits: Tensor<'t>, action: Tensor<'t>) -> Tensor<'t> {
    -(weight * logits.log_softmax().pick(action)).mean()
}

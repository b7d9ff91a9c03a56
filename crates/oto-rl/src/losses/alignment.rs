//! Actor-critic alignment ("Actor-Critic Alignment for Offline-to-Online Reinforcement Learning", Yu and Zhang 2023): SAC with maximum
//! likelihood offline, then critics that are rebuilt from the policy. pi_0 is the offline policy. Bellman targets are
//! [`super::actor_critic::soft_target`] of [`aligned_q`]; the actor's loss online is [`super::actor_critic::sac_actor`] of it.

use super::actor_critic::squashed_density;
use super::constraint::inverse_magnitude;
use oto_graph::Tensor;

/// Where data actions are cut off, so that they have an inverse tanh.
pub const LARGEST_ACTION: f64 = 0.999999;

/// The log density `[B]` of data actions `[B, D]` under a squashed Gaussian, whose mean and log standard deviation are `[B, D]`.
pub fn squashed_log_prob<'t>(mean: Tensor<'t>, log_std: Tensor<'t>, action: Tensor<'t>) -> Tensor<'t> {
    let before = inverse_tanh(action);
    squashed_density(before, (before - mean) * (-log_std).exp(), log_std)
}

/// The inverse tanh of actions cut off at +-[`LARGEST_ACTION`]. Single precision would lose it where an action is that large.
fn inverse_tanh(action: Tensor<'_>) -> Tensor<'_> {
    let bound = |b| action.trace().constant(b, &[]);
    let inside = action.maximum(bound(-LARGEST_ACTION)).minimum(bound(LARGEST_ACTION));
    let inverse = ((inside + 1.0).log() - (-inside + 1.0).log()) * 0.5;
    let beyond = (action.abs() + -LARGEST_ACTION).step();
    let sign = action.step().affine(2.0, -1.0);
    inverse * beyond.affine(-1.0, 1.0) + sign * beyond * LARGEST_ACTION.atanh()
}

/// SAC with maximum likelihood `[]`: the mean of `-lambda (min_i Q_i - alpha log pi(a|s)) - log pi(a in the data|s)`;
/// min_q and both log densities `[B]`, lambda and alpha `[]`.
pub fn likelihood_actor<'t>(
    min_q: Tensor<'t>,
    log_prob: Tensor<'t>,
    log_prob_data: Tensor<'t>,
    lambda: Tensor<'t>,
    alpha: Tensor<'t>,
) -> Tensor<'t> {
    (-(lambda * (min_q - alpha * log_prob)) - log_prob_data).mean()
}

/// Its lambda as in the authors' code, `lambda / mean |Q|`, a constant for the gradient. The paper prints lambda.
pub fn likelihood_scale<'t>(min_q: Tensor<'t>, lambda: f64) -> Tensor<'t> {
    inverse_magnitude(min_q) * lambda
}

/// Critics rebuilt from the offline policy, `[N, B]`: `log pi_0(a|s) + z_i(s, a)`; log_pi0 `[B]`, z `[N, B]`. In its general form log pi_0 has the
/// factor alpha.
pub fn aligned_q<'t>(log_pi0: Tensor<'t>, z: Tensor<'t>) -> Tensor<'t> {
    log_pi0 + z
}

/// The log density `[B]` below which [`softly_clipped`] cuts: the smaller one of `tanh(mean +- beta std)`; mean and log_std `[B, D]`.
pub fn clip_density<'t>(mean: Tensor<'t>, log_std: Tensor<'t>, beta: f64) -> Tensor<'t> {
    let shape = mean.shape();
    let at = |noise: f64| {
        let noise = mean.trace().constant(noise, &shape);
        squashed_density(mean + log_std.exp() * noise, noise, log_std)
    };
    at(beta).minimum(at(-beta))
}

/// log pi_0 `[B]`, softly kept above `least` `[B]`: `weight (softplus(log pi_0 - least) + least)`, as in the authors' code.
pub fn softly_clipped<'t>(log_pi0: Tensor<'t>, least: Tensor<'t>, weight: f64) -> Tensor<'t> {
    ((log_pi0 - least).softplus() + least) * weight
}

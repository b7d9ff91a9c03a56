//! Learned dynamics: an ensemble of Gaussian models of reward and next state, and the penalty for what it does not know, of MOPO ("MOPO:
//! Model-based Offline Policy Optimization", Yu et al. 2020), which MOORe (Mao et al. 2022) goes on with online. E is the number of
//! models, W the width of what they predict: the reward first, then the change of the state.

use oto_graph::Tensor;

/// The logarithm of the variance, softly kept between two learned bounds `[W]` (Chua et al. 2018); raw `[E, B, W]`.
pub fn bounded_log_variance<'t>(raw: Tensor<'t>, least: Tensor<'t>, most: Tensor<'t>) -> Tensor<'t> {
    let below = most - (most - raw).softplus();
    least + (below - least).softplus()
}

/// Each model's negative log likelihood, twice and without its constant, `[E]`: the mean of `(mean - target)^2 / variance + log
/// variance`; all `[E, B, W]`.
pub fn negative_log_likelihood<'t>(
    mean: Tensor<'t>,
    log_variance: Tensor<'t>,
    target: Tensor<'t>,
) -> Tensor<'t> {
    let error = (mean - target).square() * (-log_variance).exp();
    (error + log_variance).mean_last().mean_last()
}

/// The models' loss `[]`: the sum of their likelihoods' losses `[E]`, and 0.01 of the distance of the bounds `[W]`.
pub fn dynamics_loss<'t>(each: Tensor<'t>, least: Tensor<'t>, most: Tensor<'t>) -> Tensor<'t> {
    each.sum() + (most - least).sum() * 0.01
}

/// What the models do not know of a transition, `[B]`: the largest Euclidean norm of their standard deviations `[E,
/// B, W]`.
pub fn uncertainty(std: Tensor<'_>) -> Tensor<'_> {
    largest_norm(std)
}

/// How far the models are apart, `[B]`: the largest distance of a mean `[E, B, W]` from the mean of all; of the state, without the reward.
pub fn disagreement(mean: Tensor<'_>) -> Tensor<'_> {
    let [models, batch, width] = mean.shape()[..] else { panic!("means [E, B, W]") };
    let state = mean.slice_last(1, width - 1);
    let centre = state.sum_to(&[1, batch, width - 1]) * (1.0 / models as f64);
    largest_norm(state - centre)
}

fn largest_norm(x: Tensor<'_>) -> Tensor<'_> {
    let norms = x.square().sum_last().sqrt();
    (0..x.size(0)).map(|i| norms.member(i)).reduce(Tensor::maximum).expect("at least one model")
}

/// The reward that a policy learns from in the models (Yu et al. 2020), `[B]`: the predicted reward less `lambda` times the
/// uncertainty.
pub fn penalised_reward<'t>(reward: Tensor<'t>, uncertainty: Tensor<'t>, lambda: f64) -> Tensor<'t> {
    reward - uncertainty * lambda
}

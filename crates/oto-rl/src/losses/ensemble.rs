//! Losses on ensembles of critics: what makes N critics of one shape differ, and what their spread says.

use oto_graph::Tensor;

/// The mean over N critics, `[B]`; q `[N, B]`.
pub fn mean_of_critics(q: Tensor<'_>) -> Tensor<'_> {
    q.sum_to(&[1, q.size(1)]).reshape(&[q.size(1)]) * (1.0 / q.size(0) as f64)
}

/// The standard deviation over N critics (that of a population, over N), `[B]`; q `[N, B]`. Its derivative does not exist where it is 0.
pub fn spread_of_critics(q: Tensor<'_>) -> Tensor<'_> {
    mean_of_critics((q - mean_of_critics(q)).square()).sqrt()
}

/// The value that UPQ's target takes in place of the smallest ("Uncertainty-Driven Pessimistic Q-Ensemble for Offline-to-Online
/// Reinforcement Learning", Guo et al. 2022), `[B]`: the critics' mean less `beta` times their standard deviation; q `[N, B]`.
pub fn lower_confidence(q: Tensor<'_>, beta: f64) -> Tensor<'_> {
    mean_of_critics(q) - spread_of_critics(q) * beta
}

/// The diversity term of EDAC (An et al. 2021, "Uncertainty-Based Offline Reinforcement Learning with Diversified Q-Ensemble",
/// eq. 3; constants as in CORL's `edac.py`): mean over the batch of the inner products of all pairs of critics' normalised
/// gradients dQ/da, both orders counted, over N - 1. Gradients `[N, B, D]`, N at least 2; gives `[]`.
///
/// Its own gradient is one of a gradient: `grad` of it towards the critics' parameters goes through the `grad` towards the action.
pub fn edac_diversity(action_gradients: Tensor<'_>) -> Tensor<'_> {
    let [n, batch, width] = action_gradients.shape()[..] else { panic!("gradients [N, B, D]") };
    let flat = action_gradients.reshape(&[n * batch, width]);
    // A gradient of 0 has the norm 0, whose derivative is 0, too: the root is taken elsewhere.
    let squares = flat.square().sum_to(&[n * batch, 1]);
    let some = squares.step();
    let norm = (squares + some.affine(-1.0, 1.0)).sqrt() * some + 1e-10;
    let units = (flat / norm).reshape(&[n, batch, width]);
    // All pairs at once: the square of the sum, less each one with itself.
    let all = units.sum_to(&[1, batch, width]).square().sum();
    let own = units.square().sum();
    (all - own) * (1.0 / ((n - 1) * batch) as f64)
}

//! Adaptive policy learning ("Adaptive Policy Learning for Offline-to-Online Reinforcement Learning", Zheng et al. 2023): offline data
//! are learned from with a constraint, online data without. W is 1 for a transition of the offline data, else 0. The greedy TD error
//! of GCQL is [`super::actor_critic::critic`]; its conservative terms are those of [`super::offline`].

use oto_graph::Tensor;

/// The mean over the whole batch of what holds for offline data alone, `[]`; each and offline `[B]`. The survey's other reading is
/// the mean over the offline data, [`super::masked_mean`].
pub fn offline_mean<'t>(each: Tensor<'t>, offline: Tensor<'t>) -> Tensor<'t> {
    (each * offline).mean()
}

/// GCTD3BC's constraint for each state, `[B]`: the mean over the action's dimensions of `(pi(s) - a)^2`; both `[B, D]`.
pub fn squared_distance<'t>(pi: Tensor<'t>, action: Tensor<'t>) -> Tensor<'t> {
    (pi - action).square().mean_last()
}

/// GCTD3BC's loss of the actor, `[]`: the constraint's mean less `lambda` times the mean of `Q(s, pi(s))` `[B]`, with lambda from
/// [`super::offline::td3_bc_scale`].
pub fn gctd3bc<'t>(q_pi: Tensor<'t>, constraint: Tensor<'t>, lambda: Tensor<'t>) -> Tensor<'t> {
    constraint - lambda * q_pi.mean()
}

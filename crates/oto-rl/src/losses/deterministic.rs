//! Losses of deterministic actor-critics: DDPG (Lillicrap et al. 2016) with target policy smoothing, as in "Cloud-Edge Training
//! Architecture for Sim-to-Real Deep Reinforcement Learning" (Cao et al. 2022, eq. 3 to 6), and TD3 (Fujimoto et al. 2018). Equation
//! numbers are those of Cao et al. The critics' error, eq. 3, is [`super::actor_critic::critic`].

use oto_graph::Tensor;

/// Eq. 6, the action that the target critic sees, `[B, D]`: `clip(pi'(s') + clip(sigma noise, -c, c), -limit, limit)`. The target
/// actor's action and standard normal noise are `[B, D]`.
pub fn smoothed_action<'t>(
    action: Tensor<'t>,
    noise: Tensor<'t>,
    sigma: f64,
    clip: f64,
    limit: f64,
) -> Tensor<'t> {
    clamped(action + clamped(noise * sigma, clip), limit)
}

fn clamped(x: Tensor<'_>, limit: f64) -> Tensor<'_> {
    let bound = |b| x.trace().constant(b, &[]);
    x.maximum(bound(-limit)).minimum(bound(limit))
}

/// Eq. 4, the critics' target, `[B]`: `reward + discount Q'(s', a')`. TD3's Q' is the smallest of its target critics'. The discount is
/// 0 where the episode terminated.
pub fn bellman_target<'t>(reward: Tensor<'t>, discount: Tensor<'t>, next_q: Tensor<'t>) -> Tensor<'t> {
    reward + discount * next_q
}

/// Eq. 5 as a loss, `[]`: the negated mean of `Q(s, pi(s))` `[B]`. Its gradient is the deterministic policy gradient.
pub fn deterministic_actor(q: Tensor<'_>) -> Tensor<'_> {
    -q.mean()
}

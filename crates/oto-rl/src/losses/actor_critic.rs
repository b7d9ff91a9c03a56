//! Losses of actor-critic students: soft actor-critic (Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and
//! Applications"; OTO eq. 2 and 3) and proximal policy optimisation (Schulman et al. 2017).
//!
//! Where OTO leaves a choice: the bootstrap stops where an episode terminated, and the critics' errors are added up.

use oto_graph::Tensor;

/// An action drawn from a Gaussian and squashed into (-1, 1), and how likely it was.
#[derive(Clone, Copy)]
pub struct Squashed<'t> {
    /// `[B, D]`, each from -1 to 1.
    pub action: Tensor<'t>,
    /// Log density of the squashed action, `[B]`.
    pub log_prob: Tensor<'t>,
}

/// `tanh(mean + e^log_std noise)` and its log density (Haarnoja et al. 2018, appendix C): mean, log_std, noise `[B, D]`.
pub fn squashed_gaussian<'t>(mean: Tensor<'t>, log_std: Tensor<'t>, noise: Tensor<'t>) -> Squashed<'t> {
    let u = mean + log_std.exp() * noise;
    Squashed { action: u.tanh(), log_prob: squashed_density(u, noise, log_std) }
}

/// The log density `[B]` of `tanh(u)`, where u is `noise` standard deviations from its Gaussian's mean; all `[B, D]`.
/// `log(1 - tanh(u)^2)` is written `2 (log 2 - u - softplus(-2 u))`, which does not lose its digits where u is large.
pub fn squashed_density<'t>(u: Tensor<'t>, noise: Tensor<'t>, log_std: Tensor<'t>) -> Tensor<'t> {
    let gaussian = noise.square() * -0.5 - log_std + -0.5 * std::f64::consts::TAU.ln();
    let squashing = (u + (u * -2.0).softplus()) * -2.0 + 2.0 * std::f64::consts::LN_2;
    (gaussian - squashing).sum_last()
}

/// What SAC's critics learn (OTO eq. 2), `[B]`: `reward + discount (min_i Q_i(s', a') - alpha log pi(a'|s'))`. Discount is 0
/// where the episode terminated.
pub fn soft_target<'t>(
    reward: Tensor<'t>,
    discount: Tensor<'t>,
    next_q: Tensor<'t>,
    next_log_prob: Tensor<'t>,
    alpha: Tensor<'t>,
) -> Tensor<'t> {
    reward + discount * (next_q - alpha * next_log_prob)
}

/// One critic's mean squared error against its target; both `[B]`.
pub fn critic<'t>(q: Tensor<'t>, target: Tensor<'t>) -> Tensor<'t> {
    (q - target).square().mean()
}

/// SAC's loss of the actor (OTO eq. 3): mean of `alpha log pi(a|s) - min_i Q_i(s, a)`; all `[B]` but alpha `[]`.
pub fn sac_actor<'t>(min_q: Tensor<'t>, log_prob: Tensor<'t>, alpha: Tensor<'t>) -> Tensor<'t> {
    (alpha * log_prob - min_q).mean()
}

/// A state's soft value under discrete actions, `[B]`: `sum_a pi(a|s) (min_i Q_i(s, a) - alpha log pi(a|s))` (Christodoulou 2019,
/// "Soft Actor-Critic for Discrete Action Settings", eq. 10; its actor's loss, eq. 12, is the mean of this, negated). min_q and
/// log_pi `[B, A]`, alpha `[]`.
pub fn soft_value<'t>(min_q: Tensor<'t>, log_pi: Tensor<'t>, alpha: Tensor<'t>) -> Tensor<'t> {
    (log_pi.exp() * (min_q - alpha * log_pi)).sum_last()
}

/// The temperature's loss (Haarnoja et al. 2018, eq. 18, with log alpha as the parameter, as in the authors' code): mean of
/// `-log_alpha (log pi + target_entropy)`, whose gradient reaches log alpha `[]` alone.
pub fn temperature<'t>(log_alpha: Tensor<'t>, log_prob: Tensor<'t>, target_entropy: f64) -> Tensor<'t> {
    -(log_alpha * (log_prob.stop_gradient() + target_entropy).mean())
}

/// The log density `[B]` of an action `[B, D]` under a Gaussian with this mean `[B, D]` and log standard deviation `[D]`.
pub fn gaussian_log_prob<'t>(mean: Tensor<'t>, log_std: Tensor<'t>, action: Tensor<'t>) -> Tensor<'t> {
    let z = (action - mean) * (-log_std).exp();
    (z.square() * -0.5 - log_std + -0.5 * std::f64::consts::TAU.ln()).sum_last()
}

/// The entropy `[]` of a Gaussian with this log standard deviation `[D]`.
pub fn gaussian_entropy(log_std: Tensor<'_>) -> Tensor<'_> {
    (log_std + 0.5 * (1.0 + std::f64::consts::TAU.ln())).sum()
}

/// The entropy `[B]` of a softmax over logits `[B, A]`.
pub fn categorical_entropy(logits: Tensor<'_>) -> Tensor<'_> {
    let log = logits.log_softmax();
    -(log.exp() * log).sum_last()
}

/// PPO's clipped loss (Schulman et al. 2017, eq. 7, negated): log probabilities and advantages `[B]`.
pub fn ppo_clip<'t>(new: Tensor<'t>, old: Tensor<'t>, advantage: Tensor<'t>, clip: f64) -> Tensor<'t> {
    let ratio = (new - old).exp();
    let bound = |b| ratio.trace().constant(b, &[]);
    let clipped = ratio.maximum(bound(1.0 - clip)).minimum(bound(1.0 + clip));
    -(ratio * advantage).minimum(clipped * advantage).mean()
}

/// The share `[]` of a batch whose ratio of probabilities [`ppo_clip`] clips: log probabilities `[B]`.
pub fn clip_fraction<'t>(new: Tensor<'t>, old: Tensor<'t>, clip: f64) -> Tensor<'t> {
    (((new - old).exp() + -1.0).abs() + -clip).step().mean()
}

/// One step of a rollout as generalised advantage estimation sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GaeStep {
    /// What the step gave.
    pub reward: f64,
    /// The state's value.
    pub value: f64,
    /// The next state's value; where the episode was truncated, that of its final observation.
    pub next_value: f64,
    /// The episode ended by its own rules: there is no next state.
    pub terminated: bool,
    /// The episode was cut off: there is a next state, and it belongs to no later step.
    pub truncated: bool,
}

/// Generalised advantage estimation (Schulman et al. 2016, eq. 16) over consecutive steps, each one's advantage into
/// `advantage`; an advantage plus its state's value is the return that the value function learns.
pub fn gae(steps: &[GaeStep], gamma: f64, lambda: f64, advantage: &mut [f64]) {
    let mut next = 0.0;
    for (step, advantage) in steps.iter().zip(advantage).rev() {
        let bootstrap = if step.terminated { 0.0 } else { gamma * step.next_value };
        let carried = if step.terminated || step.truncated { 0.0 } else { gamma * lambda * next };
        next = step.reward + bootstrap - step.value + carried;
        *advantage = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_do_not_cross_episodes() {
        let step = |reward, terminated, truncated| GaeStep {
            reward,
            value: 1.0,
            next_value: 2.0,
            terminated,
            truncated,
        };
        let steps = [step(1.0, false, false), step(1.0, false, true), step(5.0, true, false)];
        let mut advantage = [0.0; 3];
        gae(&steps, 0.5, 0.5, &mut advantage);
        assert_eq!(advantage, [1.0 + 1.0 - 1.0 + 0.25, 1.0, 4.0]);
    }
}

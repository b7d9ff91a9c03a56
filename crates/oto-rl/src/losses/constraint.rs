//! Actors that stay near the data's actions while they improve: the refined TD3+BC ("Improving TD3-BC: Relaxed Policy Constraint for
//! Offline Learning and Stable Online Fine-Tuning", Beeson and Montana 2022) and adaptive behaviour cloning ("Adaptive Behavior Cloning
//! Regularization for Stable Offline-to-Online Reinforcement Learning", Zhao et al. 2022). TD3+BC itself is in [`super::offline`].

use oto_graph::Tensor;

/// `1 / mean |x|`, `[]`, a constant for the gradient; 0 where that mean is 0.
pub fn inverse_magnitude(x: Tensor<'_>) -> Tensor<'_> {
    let mean = x.stop_gradient().abs().mean();
    let some = mean.step();
    (mean + some.affine(-1.0, 1.0)).recip() * some
}

/// The actor's loss `[]`: `alpha mean (pi(s) - a)^2 - scale mean Q(s, pi(s))`, the square a mean over the action's dimensions. q_pi
/// `[B]`, pi and action `[B, D]`, scale and alpha `[]`. Both papers set the scale to [`inverse_magnitude`] of Q; the survey prints 1.
pub fn constrained_actor<'t>(
    q_pi: Tensor<'t>,
    pi: Tensor<'t>,
    action: Tensor<'t>,
    scale: Tensor<'t>,
    alpha: Tensor<'t>,
) -> Tensor<'t> {
    alpha * (pi - action).square().mean() - scale * q_pi.mean()
}

/// Policy refinement's weight of the constraint (Beeson and Montana 2022): the offline weight over `lambda`.
pub fn refined_alpha(alpha: f64, lambda: f64) -> f64 {
    alpha / lambda
}

/// The factor of the relaxed constraint (Beeson and Montana 2022): each of `updates` updates multiplies alpha by it, which
/// takes alpha from `start` to `end`.
pub fn relaxation(start: f64, end: f64, updates: u64) -> f64 {
    ((end / start).ln() / updates as f64).exp()
}

/// The relaxed constraint's alpha after `update` of those updates.
pub fn relaxed_alpha(start: f64, end: f64, updates: u64, update: u64) -> f64 {
    start * ((end / start).ln() * update as f64 / updates as f64).exp()
}

/// Adaptive behaviour cloning's controller of alpha (Zhao et al. 2022). Returns are normalised scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlphaController {
    /// Gain of the difference between the average and the target.
    pub k_p: f64,
    /// Gain of a drop below the average.
    pub k_d: f64,
    /// The return at which the constraint is no longer needed.
    pub target: f64,
    /// Largest alpha.
    pub most: f64,
    /// The weight of the constraint.
    pub alpha: f64,
    /// The average return, in which the newest episode has a share of 5 %.
    pub average: f64,
}

impl AlphaController {
    /// The increment after an episode with this return, as printed: `K_P (average - target) + K_D max(0, average - return)`.
    pub fn increment(&self, score: f64) -> f64 {
        self.k_p * (self.average - self.target) + self.k_d * (self.average - score).max(0.0)
    }

    /// The end of an episode. The authors' code multiplies the increment by the episode's length and keeps alpha between 0 and
    /// `most`. A return that is not finite changes nothing.
    pub fn end_episode(&mut self, score: f64, length: u64) {
        if score.is_finite() {
            let alpha = self.alpha + self.increment(score) * length as f64;
            self.alpha = alpha.max(0.0).min(self.most);
            self.average = 0.95 * self.average + 0.05 * score;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_that_are_no_numbers_change_nothing() {
        let start =
            AlphaController { k_p: 3e-5, k_d: 1e-4, target: 1.05, most: 0.4, alpha: 0.2, average: 0.7 };
        let mut controller = start;
        controller.end_episode(f64::NAN, 1000);
        controller.end_episode(f64::INFINITY, 1000);
        assert_eq!(controller, start);
        controller.end_episode(0.0, u64::MAX);
        assert_eq!(controller.alpha, 0.4);
    }
}

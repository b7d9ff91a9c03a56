//! Policy expansion ("Policy Expansion for Bridging Offline-to-Online Reinforcement Learning", Zhang et al. 2023): a frozen offline
//! policy and a new one propose actions, and their Q-values choose. K is the number of policies.

use oto_graph::Tensor;

/// The chance of each policy's action, `[B, K]`: the softmax of `Q / alpha`. The authors' code has the inverse temperature 10.
pub fn expansion_weights(q: Tensor<'_>, alpha: f64) -> Tensor<'_> {
    (q * (1.0 / alpha)).softmax()
}

/// The same on plain numbers, for acting: `q` becomes the chances.
pub fn chances(q: &mut [f64], alpha: f64) {
    let largest = q.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    q.iter_mut().for_each(|q| *q = ((*q - largest) / alpha).exp());
    let sum = q.iter().sum::<f64>();
    q.iter_mut().for_each(|q| *q /= sum);
}

/// The policy that `uniform` from \[0, 1) chooses among these chances.
pub fn sampled(chances: &[f64], uniform: f64) -> usize {
    let mut sum = 0.0;
    let passed = chances.iter().take_while(|chance| {
        sum += **chance;
        sum <= uniform
    });
    passed.count().min(chances.len().saturating_sub(1))
}

/// The policy with the largest value; the first of equals.
pub fn greedy(values: &[f64]) -> usize {
    let better = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
    (0..values.len()).reduce(better).unwrap_or(0)
}

/// The choice at an evaluation: greedy where `draw` from \[0, 1) is above `epsilon`, else sampled.
pub fn epsilon_greedy(chances: &[f64], uniform: f64, epsilon: f64, draw: f64) -> usize {
    if draw > epsilon { greedy(chances) } else { sampled(chances, uniform) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_one_of_the_policies() {
        let mut even = [1e9, 1e9];
        chances(&mut even, 0.1);
        assert_eq!(even, [0.5, 0.5]);
        assert_eq!([0.0, 0.49, 0.5, 1.0].map(|u| sampled(&even, u)), [0, 0, 1, 1]);
        assert_eq!((greedy(&even), greedy(&[f64::NAN, 1.0]), greedy(&[])), (0, 0, 0));
        assert_eq!(sampled(&[f64::NAN, f64::NAN], 0.3), 0);
    }
}

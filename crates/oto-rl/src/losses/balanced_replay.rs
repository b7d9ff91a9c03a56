//! Balanced replay and pessimistic Q-ensembles ("Offline-to-Online Reinforcement Learning via Balanced Replay and Pessimistic
//! Q-Ensemble", Lee et al. 2021), and the prioritised sampling of MOORe (Mao et al. 2022), which has the same purpose: online data
//! first, offline data less and less.

use oto_graph::Tensor;

/// The density ratio's loss (Lee et al. 2021), negated, `[]`: the mean over offline data of `f*(f'(w))` less the mean over online
/// data of `f'(w)` for the Jensen-Shannon divergence, see [`f_prime`] and [`conjugate`]. Its minimum is at `w = d_online / d_offline`.
/// Ratios `[B]` each, batches of any sizes. The authors' code takes ReLU's of the network's outputs as ratios, and `epsilon` 1e-10.
pub fn density_ratio<'t>(online: Tensor<'t>, offline: Tensor<'t>, epsilon: f64) -> Tensor<'t> {
    conjugate(offline, epsilon).mean() - f_prime(online, epsilon).mean()
}

/// `f'(w) = log(2 w / (w + 1) + epsilon)`.
pub fn f_prime(w: Tensor<'_>, epsilon: f64) -> Tensor<'_> {
    (w * (w + 1.0).recip()).affine(2.0, epsilon).log()
}

/// `f*(f'(w)) = -log(2 / (w + 1) + epsilon)`.
pub fn conjugate(w: Tensor<'_>, epsilon: f64) -> Tensor<'_> {
    -(w + 1.0).recip().affine(2.0, epsilon).log()
}

/// `f(w) = w log(2 w / (w + 1)) + log(2 / (w + 1))`, whose derivative is [`f_prime`].
pub fn divergence(w: Tensor<'_>) -> Tensor<'_> {
    w * f_prime(w, 0.0) - conjugate(w, 0.0)
}

/// The mean of `w^(1/T)` over a batch of offline data (Lee et al. 2021), by which ratios are normalised.
pub fn normaliser(offline: &[f64], temperature: f64) -> f64 {
    offline.iter().map(|w| w.powf(1.0 / temperature)).sum::<f64>() / offline.len().max(1) as f64
}

/// A ratio's normalised power (Lee et al. 2021), as printed where `epsilon` is 0. The authors' code has 1e-10.
pub fn normalised(w: f64, normaliser: f64, temperature: f64, epsilon: f64) -> f64 {
    w.powf(1.0 / temperature) / (normaliser + epsilon)
}

/// A transition's priority: [`normalised`] between 1e-3 and 1e3, as in the authors' code. A ratio that is no number has the lowest.
pub fn replay_weight(w: f64, normaliser: f64, temperature: f64) -> f64 {
    let weight = normalised(w, normaliser, temperature, 1e-10);
    if weight.is_nan() { 1e-3 } else { weight.clamp(1e-3, 1e3) }
}

/// The priority of the first online transitions beside offline ones of priority 1: once `reference` of them are stored beside
/// `offline` others, the share `rho` of the samples is online. Later ones enter with the largest priority so far.
pub fn online_priority(offline: u64, reference: u64, rho: f64) -> f64 {
    offline as f64 * rho / ((1.0 - rho) * reference as f64)
}

/// Stratified sampling: the places of `uniform` (from \[0, 1), one for each of equal parts of the priorities' sum).
pub fn stratified(priorities: &[f64], uniform: &[f64]) -> Vec<usize> {
    let total = priorities.iter().sum::<f64>();
    let value = |(i, u): (usize, &f64)| (i as f64 + u) * total / uniform.len() as f64;
    uniform.iter().enumerate().map(value).map(|value| place(priorities, value)).collect()
}

/// Whose part of the priorities' sum holds `value`.
fn place(priorities: &[f64], value: f64) -> usize {
    let mut sum = 0.0;
    let passed = priorities.iter().take_while(|priority| {
        sum += **priority;
        sum < value
    });
    passed.count().min(priorities.len().saturating_sub(1))
}

/// MOORe's priority in epoch `epoch`, from 1: `1 / (alpha epoch)` for offline data, 1 for online data. It is not cut off: offline data come
/// first while `alpha epoch` is below 1.
pub fn forgetting_priority(online: bool, alpha: f64, epoch: u64) -> f64 {
    if online { 1.0 } else { 1.0 / (alpha * epoch as f64) }
}

/// The mean over an ensemble's N members of the smaller of each one's two Q-values (Lee et al. 2021), `[B]`; q `[2, N, B]`.
pub fn pessimistic_q(q: Tensor<'_>) -> Tensor<'_> {
    super::ensemble::mean_of_critics(q.member(0).minimum(q.member(1)))
}

/// The Gaussian with the mean and the variance of N policies' mixture (Lee et al. 2021), `[B, D]` each; means and standard
/// deviations `[N, B, D]`.
pub fn mixture<'t>(mean: Tensor<'t>, std: Tensor<'t>) -> [Tensor<'t>; 2] {
    let [n, batch, width] = mean.shape()[..] else { panic!("means [N, B, D]") };
    let over = |x: Tensor<'t>| x.sum_to(&[1, batch, width]).reshape(&[batch, width]) * (1.0 / n as f64);
    let centre = over(mean);
    [centre, over(std.square() + mean.square()) - centre.square()]
}

/// The mixture's standard deviation between e^-20 and e^2, as the authors' code has each policy's.
pub fn mixture_std(variance: Tensor<'_>) -> Tensor<'_> {
    let bound = |log_std: f64| variance.trace().constant((2.0 * log_std).exp(), &[]);
    variance.maximum(bound(-20.0)).minimum(bound(2.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_that_are_no_numbers_have_the_lowest_priority() {
        let weights = [f64::NAN, 0.0, 1.0, f64::INFINITY].map(|w| replay_weight(w, 0.5, 5.0));
        assert_eq!(weights, [1e-3, 1e-3, 1.0 / (0.5 + 1e-10), 1e3]);
        assert_eq!(normaliser(&[], 5.0), 0.0);
    }

    #[test]
    fn a_place_is_one_of_the_priorities() {
        assert_eq!(stratified(&[1.0, 0.0, 3.0], &[0.0, 1.0]), [0, 2]);
        assert_eq!(stratified(&[0.0, 0.0], &[0.5]), [0]);
        assert_eq!(stratified(&[f64::NAN], &[0.5]), [0]);
    }
}

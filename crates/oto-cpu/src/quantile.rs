//! The quantile Huber loss (Dabney et al. 2018, eq. 10) and its derivative in one go.
//!
//! Written out it compares every quantile with every target: N M pairs. But the loss is a quadratic of the target between
//! two bounds and linear beyond them, so that once the targets are sorted, sums over each of four ranges come from prefix sums
//! of t and t^2: O((N + M) log M). Sorting is done for many samples at once, one in each SIMD lane, by a sorting network
//! (Batcher's odd-even merge), which compares in the same order whatever the values are. For few targets all pairs are faster.

use crate::simd::{self, Isa, simd};

/// From this many targets on, sorting wins (measured, `cargo bench -p oto-bench`): the wider the registers, the later.
fn sorted_from() -> usize {
    match simd::lanes() {
        16.. => 300,
        8.. => 160,
        _ => 80,
    }
}

/// Samples sorted at once.
const LANES: usize = 8;

/// Room for sorted targets, prepared once for their number.
pub struct Quantile {
    /// Targets of a sample.
    m: usize,
    /// One sample's quantiles, filled up to whole registers.
    theta: Vec<f32>,
    sums: Sums,
    /// The network: pairs of places whose numbers are put in order, first to last.
    network: Vec<(u32, u32)>,
    lanes: Vec<[f32; LANES]>,
    /// One sample's sorted targets, filled up with infinity to a power of two.
    sorted: Vec<f32>,
    /// Sums of the first i sorted targets, and of their squares. In f64: differences of large sums are taken.
    prefix: Vec<[f64; 2]>,
}

impl Quantile {
    /// For samples of `m` targets.
    pub fn new(m: usize) -> Self {
        Self::with(m, m >= sorted_from())
    }

    fn with(m: usize, sorts: bool) -> Self {
        let size = if sorts { (m + 1).next_power_of_two() } else { 0 };
        Self {
            m,
            theta: Vec::new(),
            sums: Sums::default(),
            network: if sorts { network(m) } else { Vec::new() },
            lanes: vec![[0.0; LANES]; if sorts { m } else { 0 }],
            sorted: vec![f32::INFINITY; size],
            prefix: vec![[0.0; 2]; if sorts { m + 1 } else { 0 }],
        }
    }

    /// theta `[B, N]`, target `[B, M]`; writes each sample's loss `[B]` and its derivative towards theta `[B, N]`.
    pub fn run(&mut self, theta: &[f32], target: &[f32], kappa: f32, loss: &mut [f32], grad: &mut [f32]) {
        match self.network.is_empty() {
            true => pairs(self, theta, target, kappa, loss, grad),
            false => sorted(self, theta, target, kappa, loss, grad),
        }
    }
}

simd! {
    fn pairs(room: &mut Quantile, theta: &[f32], target: &[f32], kappa: f32, loss: &mut [f32], grad: &mut [f32]) = all_pairs
}
simd! {
    fn sorted(room: &mut Quantile, theta: &[f32], target: &[f32], kappa: f32, loss: &mut [f32], grad: &mut [f32]) = by_sorting
}

#[inline(always)]
fn all_pairs<I: Isa>(
    room: &mut Quantile,
    theta: &[f32],
    target: &[f32],
    kappa: f32,
    loss: &mut [f32],
    grad: &mut [f32],
) {
    let (n, m) = (grad.len() / loss.len(), room.m);
    let share = 1.0 / n as f32;
    // Quantiles in lanes, targets one after the other: nothing has to be summed across lanes.
    room.theta.resize(n.next_multiple_of(I::LANES), 0.0);
    let samples = theta.chunks_exact(n).zip(target.chunks_exact(m)).zip(grad.chunks_exact_mut(n));
    for (loss, ((theta, target), grad)) in loss.iter_mut().zip(samples) {
        simd::copy(theta, &mut room.theta[..n]);
        let mut total = 0.0;
        let mut first = 0;
        while first < n {
            let theta = &room.theta[first..];
            // Two registers of quantiles share each target, and neither waits for its own sums.
            let count = match theta.len() > I::LANES {
                true => pair_sums::<I, 2>(theta, target, kappa, &mut room.sums),
                false => pair_sums::<I, 1>(theta, target, kappa, &mut room.sums),
            };
            for (lane, grad) in grad[first..].iter_mut().take(count).enumerate() {
                let tilt = (2.0 * (first + lane) as f32 + 1.0) * share - 1.0;
                let Sums { loss, loss_signed, slope, slope_size } = &room.sums;
                total += 0.5 * (loss[lane] + tilt * loss_signed[lane]);
                *grad = -0.5 * share * (slope[lane] + tilt * slope_size[lane]);
            }
            first += count;
        }
        *loss = total * share;
    }
}

/// Sums over targets, for each of some quantiles. With d the difference to a target and c what is left of it within
/// `kappa`, the Huber loss is `c (d - c / 2)` and its slope c. Targets above weigh tau, those below 1 - tau; both come from
/// sums over all and sums with the sign of d.
#[derive(Default)]
struct Sums {
    loss: [f32; MOST],
    loss_signed: [f32; MOST],
    slope: [f32; MOST],
    slope_size: [f32; MOST],
}

/// Numbers in the two widest registers.
const MOST: usize = 32;

/// For the first quantiles of `theta`, `G` registers of them; says how many.
#[cfg_attr(target_arch = "wasm32", inline(never), target_feature(enable = "relaxed-simd"))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
fn pair_sums<I: Isa, const G: usize>(theta: &[f32], target: &[f32], kappa: f32, out: &mut Sums) -> usize {
    let theta = &theta[..G * I::LANES];
    // SAFETY: as many numbers lie there.
    #[allow(unsafe_code)]
    let theta: [I::Vector; G] = std::array::from_fn(|g| unsafe { I::load(theta.as_ptr().add(g * I::LANES)) });
    let (above, below, half) = (I::splat(kappa), I::splat(-kappa), I::splat(-0.5));
    let mut sums = [[I::splat(0.0); G]; 4];
    for t in target {
        let t = I::splat(*t);
        for g in 0..G {
            let d = I::sub(t, theta[g]);
            let c = I::min(I::max(d, below), above);
            let rest = I::fma_each(c, half, d);
            let size = I::abs(c);
            sums[0][g] = I::fma_each(c, rest, sums[0][g]);
            sums[1][g] = I::fma_each(size, rest, sums[1][g]);
            sums[2][g] = I::add(sums[2][g], c);
            sums[3][g] = I::add(sums[3][g], size);
        }
    }
    let Sums { loss, loss_signed, slope, slope_size } = out;
    for (sums, out) in sums.iter().zip([loss, loss_signed, slope, slope_size]) {
        sums.iter().enumerate().for_each(|(g, sum)| I::store(*sum, &mut out[g * I::LANES..]));
    }
    G * I::LANES
}

#[inline(always)]
fn by_sorting<I: Isa>(
    room: &mut Quantile,
    theta: &[f32],
    target: &[f32],
    kappa: f32,
    loss: &mut [f32],
    grad: &mut [f32],
) {
    let (n, m) = (grad.len() / loss.len(), room.m);
    let groups = target.chunks(LANES * m).zip(theta.chunks(LANES * n));
    let results = loss.chunks_mut(LANES).zip(grad.chunks_mut(LANES * n));
    for ((target, theta), (loss, grad)) in groups.zip(results) {
        for (lane, target) in target.chunks_exact(m).enumerate() {
            room.lanes.iter_mut().zip(target).for_each(|(row, t)| row[lane] = *t);
        }
        for (a, b) in &room.network {
            let (x, y) = (room.lanes[*a as usize], room.lanes[*b as usize]);
            let (mut low, mut high) = (x, y);
            for lane in 0..LANES {
                low[lane] = if y[lane] < x[lane] { y[lane] } else { x[lane] };
                high[lane] = if y[lane] < x[lane] { x[lane] } else { y[lane] };
            }
            (room.lanes[*a as usize], room.lanes[*b as usize]) = (low, high);
        }
        let samples = theta.chunks_exact(n).zip(grad.chunks_exact_mut(n));
        for (lane, (loss, (theta, grad))) in loss.iter_mut().zip(samples).enumerate() {
            let mut sums = [0.0f64; 2];
            for (i, row) in room.lanes.iter().enumerate() {
                let t = f64::from(row[lane]);
                room.sorted[i] = row[lane];
                sums = [sums[0] + t, sums[1] + t * t];
                room.prefix[i + 1] = sums;
            }
            *loss = sample(&room.sorted, &room.prefix, theta, kappa, grad);
        }
    }
}

/// One sample from its sorted targets.
#[inline(always)]
fn sample(sorted: &[f32], prefix: &[[f64; 2]], theta: &[f32], kappa: f32, grad: &mut [f32]) -> f32 {
    let (m, n) = (prefix.len() - 1, theta.len());
    let all = prefix[m];
    let (k, share) = (f64::from(kappa), 1.0 / n as f64);
    let mut total = 0.0f64;
    for (i, (theta, grad)) in theta.iter().zip(grad).enumerate() {
        let [a, b, c] = positions(sorted, [theta - kappa, *theta, theta + kappa]);
        let x = f64::from(*theta);
        let [pa, pb, pc] = [prefix[a], prefix[b], prefix[c]];
        let count = |from: usize, to: usize| to as f64 - from as f64;
        // Sums of t - theta, and of half its square, over the targets within kappa on either side.
        let first = |from: [f64; 2], to: [f64; 2], n: f64| to[0] - from[0] - x * n;
        let half_square = |from: [f64; 2], to: [f64; 2], n: f64| {
            0.5 * (to[1] - from[1]) - x * (to[0] - from[0]) + 0.5 * x * x * n
        };
        let (near_down, near_up) = (count(a, b), count(b, c));
        let (far_down, far_up) = (a as f64, count(c, m));
        let down = k * (far_down * (x - 0.5 * k) - pa[0]) + half_square(pa, pb, near_down);
        let up = k * (all[0] - pc[0] - far_up * (x + 0.5 * k)) + half_square(pb, pc, near_up);
        let slope_down = first(pa, pb, near_down) - k * far_down;
        let slope_up = first(pb, pc, near_up) + k * far_up;
        let tau = (i as f64 + 0.5) * share;
        total += tau * up + (1.0 - tau) * down;
        *grad = (-(tau * slope_up + (1.0 - tau) * slope_down) * share) as f32;
    }
    (total * share) as f32
}

/// How many of the sorted numbers (filled up with infinity to a power of two) lie below each bound.
#[inline(always)]
fn positions(sorted: &[f32], bounds: [f32; 3]) -> [usize; 3] {
    assert!(sorted.len().is_power_of_two());
    let mut found = [0; 3];
    let mut step = sorted.len() / 2;
    while step > 0 {
        for (found, bound) in found.iter_mut().zip(bounds) {
            // SAFETY: the steps so far and this one sum to less than the length, which is a power of two.
            #[allow(unsafe_code)]
            let below = unsafe { *sorted.get_unchecked(*found + step - 1) } < bound;
            // No branch: it would be guessed wrong half of the time.
            *found = std::hint::select_unpredictable(below, *found + step, *found);
        }
        step /= 2;
    }
    found
}

/// Batcher's odd-even merge sort of `n` numbers (Knuth, volume 3, algorithm 5.2.2 M) as a list of comparisons.
fn network(n: usize) -> Vec<(u32, u32)> {
    let mut pairs = Vec::new();
    let top = n.next_power_of_two() / 2;
    let mut p = top;
    while p > 0 {
        let (mut q, mut r, mut d) = (top, 0, p);
        loop {
            pairs.extend((0..n - d).filter(|i| i & p == r).map(|i| (i as u32, (i + d) as u32)));
            if q == p {
                break;
            }
            (d, q, r) = (q - p, q / 2, p);
        }
        p /= 2;
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_network_sorts() {
        for n in [1, 2, 3, 48, 51, 64, 200] {
            let mut x = (0..n).map(|i| (i * 7919) % 211).collect::<Vec<_>>();
            for (a, b) in network(n) {
                if x[b as usize] < x[a as usize] {
                    x.swap(a as usize, b as usize);
                }
            }
            assert!(x.is_sorted(), "{n}");
        }
    }

    #[test]
    fn what_is_no_number_stays_visible() {
        for m in [4, 64] {
            for bad in [f32::NAN, f32::INFINITY] {
                let (mut target, theta) = (vec![1.0; 3 * m], vec![0.0; 6]);
                target[m + 1] = bad;
                let (mut loss, mut grad) = ([0.0; 3], [0.0; 6]);
                Quantile::with(m, m > 4).run(&theta, &target, 1.0, &mut loss, &mut grad);
                assert!(loss[0].is_finite() && !loss[1].is_finite() && loss[2].is_finite(), "{m}: {loss:?}");
            }
        }
    }

    /// The definition, in f64: the loss, and each slope with the sum of its terms' sizes.
    fn plain(theta: &[f32], target: &[f32], kappa: f64) -> (f64, Vec<(f64, f64)>) {
        let n = theta.len() as f64;
        let mut loss = 0.0;
        let mut grad = Vec::new();
        for (i, theta) in theta.iter().enumerate() {
            let (mut slope, mut size) = (0.0, 0.0);
            for t in target {
                let d = f64::from(*t) - f64::from(*theta);
                let tau = (i as f64 + 0.5) / n;
                let weight = if d < 0.0 { 1.0 - tau } else { tau };
                let near = d.abs().min(kappa);
                loss += weight * near * (d.abs() - 0.5 * near) / n;
                slope -= weight * d.clamp(-kappa, kappa) / n;
                size += weight * near / n;
            }
            grad.push((slope, size));
        }
        (loss, grad)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn both_ways_follow_the_definition(
            n in 1usize..40, m in 1usize..140, samples in 1usize..20, kappa in 0.1f32..3.0, offset in -200.0f32..200.0,
            spread in 0.01f32..20.0, seed in any::<u64>(),
        ) {
            let mut state = seed | 1;
            let mut draw = |len: usize| -> Vec<f32> {
                (0..len).map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * spread + offset
                }).collect()
            };
            let (theta, target) = (draw(samples * n), draw(samples * m));
            let (mut loss, mut grad) = (vec![0.0; samples], vec![0.0; samples * n]);
            for s in (0..samples).cycle().take(2 * samples) {
                if s == 0 {
                    Quantile::with(m, loss[0] == 0.0).run(&theta, &target, kappa, &mut loss, &mut grad);
                }
                let (wanted, slopes) = plain(&theta[s * n..][..n], &target[s * m..][..m], f64::from(kappa));
                prop_assert!((f64::from(loss[s]) - wanted).abs() <= 1e-4 * (1e-3 + wanted), "{} {wanted}", loss[s]);
                for (got, (wanted, size)) in grad[s * n..][..n].iter().zip(slopes) {
                    prop_assert!((f64::from(*got) - wanted).abs() <= 1e-5 * (1e-2 + size), "{got} {wanted}");
                }
            }
        }
    }
}

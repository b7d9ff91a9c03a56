//! The quantile Huber loss (kappa 1) of a panel and its gradient: every pair for few quantiles, sorted targets with prefix
//! sums for many.

use crate::kernels::{Level, kernel, panel, panel_mut};
use crate::vector::{Vector, load, splat, store};

/// From this many quantiles on, sorting is faster than visiting every pair (measured with AVX2 and AVX-512).
const SORTED_FROM: usize = 96;

/// Room for sorted targets and their sums.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// `[power of two][half of C]`, ascending in each lane, infinities behind the targets.
    sorted: Vec<f32>,
    /// `[targets + 1][half of C]`: sums of the smallest targets.
    sums: Vec<f32>,
    /// The same of their squares.
    squares: Vec<f32>,
    /// Pairs of rows to compare and exchange, in order: they sort any column.
    network: Vec<(usize, usize)>,
}

impl Scratch {
    /// For `quantiles` targets of `lanes` samples.
    pub fn new(quantiles: usize, lanes: usize) -> Self {
        let lanes = lanes / 2;
        let sums = vec![0.0; (quantiles + 1) * lanes];
        let rows = (quantiles + 1).next_power_of_two();
        Self { sorted: vec![0.0; rows * lanes], squares: sums.clone(), sums, network: network(quantiles) }
    }
}

/// Batcher's odd-even merge sort of `n` rows (Knuth, volume 3, algorithm 5.2.2M): a network, so that lanes go in step.
fn network(n: usize) -> Vec<(usize, usize)> {
    let mut network = Vec::new();
    let mut p = n.next_power_of_two() / 2;
    let top = p;
    while p > 0 {
        let (mut q, mut r, mut d) = (top, 0, p);
        loop {
            network.extend((0..n.saturating_sub(d)).filter(|i| i & p == r).map(|i| (i, i + d)));
            if q == p {
                break;
            }
            (d, q, r) = (q - p, q / 2, p);
        }
        p /= 2;
    }
    network
}

/// theta and target `[N][C]`. Adds each sample's loss to `loss` `[C]`; `grad` `[N][C]` becomes the derivative towards theta.
pub fn quantile_huber(
    level: Level,
    theta: &[f32],
    target: &[f32],
    loss: &mut [f32],
    grad: &mut [f32],
    scratch: &mut Scratch,
) {
    if theta.len() / level.lanes() < SORTED_FROM {
        pairs(level, theta, target, loss, grad);
    } else {
        sorted(level, theta, target, loss, grad, scratch);
    }
}

kernel!(pairs = pairs_body; theta: &[f32], target: &[f32], loss: &mut [f32], grad: &mut [f32]);
kernel!(sorted = sorted_body; theta: &[f32], target: &[f32], loss: &mut [f32], grad: &mut [f32], scratch: &mut Scratch);

/// With `d = target - theta`, `c = clamp(d, -1, 1)` and `p = max(c, 0)`, a pair's Huber loss is `c (d - c / 2)`, of which
/// `p (d - p / 2)` is the part above theta; the slopes are `c` and `p`.
#[inline(always)]
fn pairs_body<V: Vector, const R: usize, const C: usize>(
    theta: &[f32],
    target: &[f32],
    loss: &mut [f32],
    grad: &mut [f32],
) {
    let (theta, target) = (panel::<C>(theta), panel::<C>(target));
    let n = theta.len() as f32;
    let (one, minus_one) = (V::splat(1.0), V::splat(-1.0));
    let (zero, minus_half) = (V::splat(0.0), V::splat(-0.5));
    for (i, (theta, grad)) in theta.iter().zip(panel_mut::<C>(grad)).enumerate() {
        let tau = (i as f32 + 0.5) / n;
        let theta = load::<V>(theta);
        let [mut slope, mut slope_above, mut huber, mut huber_above] = [splat::<V>(0.0); 4];
        for target in target {
            let target = load::<V>(target);
            for l in 0..2 {
                let d = target[l].sub(theta[l]);
                let c = d.min(one).max(minus_one);
                let p = c.max(zero);
                slope[l] = slope[l].add(c);
                slope_above[l] = slope_above[l].add(p);
                huber[l] = c.mul_add(c.mul_add(minus_half, d), huber[l]);
                huber_above[l] = p.mul_add(p.mul_add(minus_half, d), huber_above[l]);
            }
        }
        let [slope, slope_above, huber, huber_above] =
            [slope, slope_above, huber, huber_above].map(numbers::<V, C>);
        for l in 0..C {
            loss[l] += weighted(tau, huber_above[l], huber[l] - huber_above[l]) / n;
            grad[l] = -weighted(tau, slope_above[l], slope[l] - slope_above[l]) / n;
        }
    }
}

#[inline(always)]
fn numbers<V: Vector, const C: usize>(row: [V; 2]) -> [f32; C] {
    let mut numbers = [0.0; C];
    store(row, &mut numbers);
    numbers
}

#[inline(always)]
fn weighted(tau: f32, above: f32, below: f32) -> f32 {
    tau * above + (1.0 - tau) * below
}

#[inline(always)]
fn sorted_body<V: Vector, const R: usize, const C: usize>(
    theta: &[f32],
    target: &[f32],
    loss: &mut [f32],
    grad: &mut [f32],
    scratch: &mut Scratch,
) {
    // A vector's samples at a time, so that their tables stay in the first cache.
    for half in (0..C).step_by(V::LANES) {
        let column = |x: &[f32]| V::load(&x[half..]);
        let middle = prepare::<V, C>(target, half, scratch);
        let targets = Sorted::<V> {
            sorted: &scratch.sorted,
            sums: &scratch.sums,
            squares: &scratch.squares,
            all: V::load(&scratch.sums[scratch.sums.len() - V::LANES..]),
            count: (target.len() / C) as f32,
        };
        let n = (theta.len() / C) as f32;
        let mut total = V::splat(0.0);
        for (i, (theta, grad)) in theta.chunks_exact(C).zip(grad.chunks_exact_mut(C)).enumerate() {
            let tau = (i as f32 + 0.5) / n;
            let (above, below) = (V::splat(tau / n), V::splat((1.0 - tau) / n));
            let sides = targets.sides(column(theta).sub(middle));
            total = above.mul_add(sides.above, below.mul_add(sides.below, total));
            let slope = above.mul_add(sides.slope_above, below.mul(sides.slope_below));
            V::splat(0.0).sub(slope).store(&mut grad[half..]);
        }
        column(loss).add(total).store(&mut loss[half..]);
    }
}

/// Sorts and sums half a panel's targets less their mean, which keeps the sums of squares small; gives the means.
#[inline(always)]
fn prepare<V: Vector, const C: usize>(target: &[f32], half: usize, scratch: &mut Scratch) -> V {
    let count = target.len() / C;
    let mut sum = V::splat(0.0);
    for row in target.chunks_exact(C) {
        sum = sum.add(V::load(&row[half..]));
    }
    let middle = sum.mul(V::splat(1.0 / count as f32));
    let (rows, padding) = scratch.sorted.split_at_mut(count * V::LANES);
    for (to, row) in rows.chunks_exact_mut(V::LANES).zip(target.chunks_exact(C)) {
        V::load(&row[half..]).sub(middle).store(to);
    }
    padding.fill(f32::INFINITY);
    for (low, high) in &scratch.network {
        let (low, high) = (low * V::LANES, high * V::LANES);
        let (a, b) = (V::load(&rows[low..]), V::load(&rows[high..]));
        a.min(b).store(&mut rows[low..]);
        a.max(b).store(&mut rows[high..]);
    }
    let [mut sum, mut square] = [V::splat(0.0); 2];
    let sums = scratch.sums[V::LANES..].chunks_exact_mut(V::LANES);
    let squares = scratch.squares[V::LANES..].chunks_exact_mut(V::LANES);
    for ((row, sums), squares) in rows.chunks_exact(V::LANES).zip(sums).zip(squares) {
        let row = V::load(row);
        sum = sum.add(row);
        square = row.mul_add(row, square);
        sum.store(sums);
        square.store(squares);
    }
    middle
}

/// Sorted targets of as many samples as a vector has lanes.
struct Sorted<'a, V> {
    sorted: &'a [f32],
    sums: &'a [f32],
    squares: &'a [f32],
    /// Sums of all targets.
    all: V,
    count: f32,
}

/// Huber losses of the targets above and below theta, and their slopes.
struct Sides<V> {
    above: V,
    below: V,
    slope_above: V,
    slope_below: V,
}

impl<V: Vector> Sorted<'_, V> {
    #[inline(always)]
    fn sides(&self, x: V) -> Sides<V> {
        let (one, half) = (V::splat(1.0), V::splat(0.5));
        let low = Prefix::below(self, x.sub(one));
        let middle = Prefix::below(self, x);
        let high = Prefix::below(self, x.add(one));
        let all = Prefix { count: V::splat(self.count), sum: self.all, square: high.square };
        let none = Prefix { count: V::splat(0.0), sum: V::splat(0.0), square: V::splat(0.0) };
        let far_above = all.count.sub(high.count);
        Sides {
            above: half.mul(middle.second(&high, x).sub(far_above)).add(high.first(&all, x)),
            below: half.mul(low.second(&middle, x).sub(low.count)).sub(none.first(&low, x)),
            slope_above: middle.first(&high, x).add(far_above),
            slope_below: low.first(&middle, x).sub(low.count),
        }
    }
}

/// How many of the smallest targets, their sum and the sum of their squares.
struct Prefix<V> {
    count: V,
    sum: V,
    square: V,
}

impl<V: Vector> Prefix<V> {
    /// Of the targets below `bound`.
    #[inline(always)]
    fn below(targets: &Sorted<'_, V>, bound: V) -> Self {
        let rank = bound.rank(targets.sorted);
        let (sum, square) = (V::gather(targets.sums, &rank), V::gather(targets.squares, &rank));
        Self { count: V::count(&rank), sum, square }
    }

    /// Sum of `t - x` over the targets from here to `end`.
    #[inline(always)]
    fn first(&self, end: &Self, x: V) -> V {
        end.sum.sub(self.sum).sub(x.mul(end.count.sub(self.count)))
    }

    /// Sum of `(t - x)^2` over the same.
    #[inline(always)]
    fn second(&self, end: &Self, x: V) -> V {
        let both = end.sum.sub(self.sum).add(self.first(end, x));
        end.square.sub(self.square).sub(x.mul(both))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_env::rng::Rng;

    /// The definition, in f64.
    fn reference(theta: &[f32], target: &[f32]) -> (f64, Vec<f64>) {
        let n = theta.len() as f64;
        let mut loss = 0.0;
        let mut grad = vec![0.0; theta.len()];
        for (i, x) in theta.iter().enumerate() {
            let tau = (i as f64 + 0.5) / n;
            for t in target {
                let d = f64::from(*t) - f64::from(*x);
                let weight = if d < 0.0 { 1.0 - tau } else { tau };
                let huber = if d.abs() < 1.0 { 0.5 * d * d } else { d.abs() - 0.5 };
                loss += weight * huber / n;
                grad[i] -= weight * d.clamp(-1.0, 1.0) / n;
            }
        }
        (loss, grad)
    }

    #[test]
    fn both_ways_agree_with_the_definition_at_every_level() {
        let rng = &mut Rng::new(11);
        for level in Level::all() {
            let lanes = level.lanes();
            for n in [1, 7, 16, 63, 64, 200] {
                let mut draw =
                    |n: usize| (0..n * lanes).map(|_| 2.0 * rng.normal() as f32).collect::<Vec<_>>();
                let (theta, target) = (draw(n), draw(n));
                let mut scratch = Scratch::new(n, lanes);
                for sorts in [false, true] {
                    let (mut loss, mut grad) = (vec![0.0; lanes], vec![0.0; n * lanes]);
                    match sorts {
                        false => pairs(level, &theta, &target, &mut loss, &mut grad),
                        true => sorted(level, &theta, &target, &mut loss, &mut grad, &mut scratch),
                    }
                    let lane =
                        |x: &[f32], l: usize| x[l..].iter().step_by(lanes).copied().collect::<Vec<_>>();
                    for l in 0..lanes {
                        let (expected, slopes) = reference(&lane(&theta, l), &lane(&target, l));
                        let close = |a: f32, b: f64| (f64::from(a) - b).abs() < 1e-4 * (1.0 + b.abs());
                        assert!(close(loss[l], expected), "{level:?} {n} {sorts}: {} {expected}", loss[l]);
                        for (a, b) in lane(&grad, l).into_iter().zip(slopes) {
                            assert!(close(a, b), "{level:?} {n} {sorts}: {a} {b}");
                        }
                    }
                }
            }
        }
    }
}
#[cfg(test)]
mod timing {
    use super::*;
    #[test]
    #[ignore]
    fn timing() {
        let rng = &mut oto_env::rng::Rng::new(11);
        for level in Level::all() {
            let lanes = level.lanes();
            for n in [32, 51, 64, 96, 128, 200, 400] {
                let mut draw =
                    |n: usize| (0..n * lanes).map(|_| 1.0 * rng.normal() as f32).collect::<Vec<_>>();
                let (theta, target) = (draw(n), draw(n));
                let mut scratch = Scratch::new(n, lanes);
                let (mut loss, mut grad) = (vec![0.0; lanes], vec![0.0; n * lanes]);
                let mut best = [f64::INFINITY; 2];
                for _ in 0..60 {
                    let s = std::time::Instant::now();
                    pairs(level, &theta, &target, &mut loss, &mut grad);
                    best[0] = best[0].min(s.elapsed().as_secs_f64());
                    let s = std::time::Instant::now();
                    sorted(level, &theta, &target, &mut loss, &mut grad, &mut scratch);
                    best[1] = best[1].min(s.elapsed().as_secs_f64());
                }
                let k = 64.0 / lanes as f64 * 1e6;
                println!(
                    "{level:?} {n}: pairs {:.1} sorted {:.1} us for 64 samples",
                    best[0] * k,
                    best[1] * k
                );
            }
        }
    }
}

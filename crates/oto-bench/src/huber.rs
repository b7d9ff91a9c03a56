//! The quantile Huber loss (kappa 1) of a panel and its gradient: every pair for few quantiles, sorted targets with prefix
//! sums for many.

use crate::kernels::{Level, kernel, panel, panel_mut};
use crate::vector::{Vector, load, store};

/// Room for sorted targets and their sums.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// `[targets][C]`, ascending in each lane.
    sorted: Vec<f32>,
    /// One lane's targets as ascending whole numbers, the largest ones behind them up to a power of two.
    keys: Vec<i32>,
    /// The smallest none, one, two, ... of them.
    prefixes: Vec<Prefix>,
    /// Pairs of rows to compare and exchange, in order: they sort any column.
    network: Vec<(usize, usize)>,
}

impl Scratch {
    /// For `quantiles` targets of `lanes` samples.
    pub fn new(quantiles: usize, lanes: usize) -> Self {
        Self {
            sorted: vec![0.0; quantiles * lanes],
            keys: vec![i32::MAX; (quantiles + 1).next_power_of_two()],
            prefixes: vec![Prefix::default(); quantiles + 1],
            network: network(quantiles),
        }
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
    if theta.len() / level.lanes() < level.sorts_from() {
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
    let [zero, one, minus_one, minus_half] = [0.0, 1.0, -1.0, -0.5].map(V::splat);
    let mut total = load::<V>(loss);
    for (i, (theta, grad)) in theta.iter().zip(panel_mut::<C>(grad)).enumerate() {
        let theta = load::<V>(theta);
        let [mut slope, mut slope_above, mut huber, mut huber_above] = [[zero; 2]; 4];
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
        let tau = (i as f32 + 0.5) / n;
        let sides = |above: V, below: V, sum: V, scale: f32| {
            let (up, down) = (V::splat(scale * tau / n), V::splat(scale * (1.0 - tau) / n));
            up.mul_add(above, down.mul_add(below, sum))
        };
        let mut gradient = [zero; 2];
        for l in 0..2 {
            total[l] = sides(huber_above[l], huber[l].sub(huber_above[l]), total[l], 1.0);
            gradient[l] = sides(slope_above[l], slope[l].sub(slope_above[l]), zero, -1.0);
        }
        store(gradient, grad);
    }
    store(total, loss);
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
    let (theta, grad) = (panel::<C>(theta), panel_mut::<C>(grad));
    let sorted = panel_mut::<C>(&mut scratch.sorted);
    let middle = fill(panel::<C>(target), sorted);
    for (low, high) in &scratch.network {
        exchange::<V, C>(sorted, *low, *high);
    }
    for (lane, loss) in loss.iter_mut().enumerate().take(C) {
        sums(sorted, lane, &mut scratch.keys, &mut scratch.prefixes);
        let targets = Sorted { keys: &scratch.keys, prefixes: &scratch.prefixes };
        *loss += targets.lane(theta, lane, middle[lane], grad);
    }
}

/// Copies the targets less their mean, which keeps the sums of squares small; gives the means.
#[inline(always)]
fn fill<const C: usize>(target: &[[f32; C]], sorted: &mut [[f32; C]]) -> [f32; C] {
    let mut middle = [0.0f32; C];
    for row in target {
        for l in 0..C {
            middle[l] += row[l];
        }
    }
    middle.iter_mut().for_each(|m| *m /= target.len() as f32);
    for (to, row) in sorted.iter_mut().zip(target) {
        for l in 0..C {
            to[l] = row[l] - middle[l];
        }
    }
    middle
}

#[inline(always)]
fn exchange<V: Vector, const C: usize>(rows: &mut [[f32; C]], low: usize, high: usize) {
    let (a, b) = (load::<V>(&rows[low]), load::<V>(&rows[high]));
    store([a[0].min(b[0]), a[1].min(b[1])], &mut rows[low]);
    store([a[0].max(b[0]), a[1].max(b[1])], &mut rows[high]);
}

/// One lane's keys and sums.
#[inline(always)]
fn sums<const C: usize>(sorted: &[[f32; C]], lane: usize, keys: &mut [i32], prefixes: &mut [Prefix]) {
    let mut prefix = Prefix::default();
    for ((row, key_here), here) in sorted.iter().zip(keys).zip(&mut prefixes[1..]) {
        let t = row[lane];
        *key_here = key(t);
        prefix = Prefix { count: prefix.count + 1.0, sum: prefix.sum + t, square: prefix.square + t * t };
        *here = prefix;
    }
}

/// A whole number for each float, in the same order: comparing whole numbers needs no branch.
#[inline(always)]
fn key(x: f32) -> i32 {
    // Zeros of both signs are one number.
    let bits = (x + 0.0).to_bits() as i32;
    bits ^ ((bits >> 31) & i32::MAX)
}

/// How many searches go side by side, so that none waits for its memory alone.
const SEARCHES: usize = 8;

/// One lane's sorted targets.
struct Sorted<'a> {
    keys: &'a [i32],
    prefixes: &'a [Prefix],
}

impl Sorted<'_> {
    /// One lane's loss; writes its column of `grad`.
    #[inline(always)]
    fn lane<const C: usize>(
        &self,
        theta: &[[f32; C]],
        lane: usize,
        middle: f32,
        grad: &mut [[f32; C]],
    ) -> f32 {
        let n = theta.len() as f32;
        let mut total = 0.0;
        for (block, (theta, grad)) in theta.chunks(SEARCHES).zip(grad.chunks_mut(SEARCHES)).enumerate() {
            let mut x = [0.0; SEARCHES];
            x.iter_mut().zip(theta).for_each(|(x, theta)| *x = theta[lane] - middle);
            let [low, at, high] = [-1.0, 0.0, 1.0].map(|shift| self.ranks(x.map(|x| key(x + shift))));
            for (i, grad) in grad.iter_mut().enumerate() {
                let tau = ((block * SEARCHES + i) as f32 + 0.5) / n;
                let sides = self.sides(x[i], [low[i], at[i], high[i]]);
                total += weighted(tau, sides.above, sides.below);
                grad[lane] = -weighted(tau, sides.slope_above, sides.slope_below) / n;
            }
        }
        total / n
    }

    /// How many keys are below each bound.
    #[inline(always)]
    fn ranks(&self, bounds: [i32; SEARCHES]) -> [usize; SEARCHES] {
        let mut at = [0; SEARCHES];
        let mut half = self.keys.len() / 2;
        while half > 0 {
            for (at, bound) in at.iter_mut().zip(bounds) {
                *at += if self.keys[*at + half - 1] < bound { half } else { 0 };
            }
            half /= 2;
        }
        at
    }

    /// `ranks` of `x - 1`, `x` and `x + 1`.
    #[inline(always)]
    fn sides(&self, x: f32, ranks: [usize; 3]) -> Sides {
        let [low, middle, high] = ranks.map(|r| self.prefixes[r]);
        let (none, all) = (self.prefixes[0], self.prefixes[self.prefixes.len() - 1]);
        let far_above = all.count - high.count;
        Sides {
            above: 0.5 * (middle.second(high, x) - far_above) + high.first(all, x),
            below: 0.5 * (low.second(middle, x) - low.count) - none.first(low, x),
            slope_above: middle.first(high, x) + far_above,
            slope_below: low.first(middle, x) - low.count,
        }
    }
}

/// Huber losses of the targets above and below theta, and their slopes.
struct Sides {
    above: f32,
    below: f32,
    slope_above: f32,
    slope_below: f32,
}

/// How many of the smallest targets, their sum and the sum of their squares.
#[derive(Clone, Copy, Debug, Default)]
struct Prefix {
    count: f32,
    sum: f32,
    square: f32,
}

impl Prefix {
    /// Sum of `t - x` over the targets from here to `end`.
    #[inline(always)]
    fn first(self, end: Self, x: f32) -> f32 {
        end.sum - self.sum - x * (end.count - self.count)
    }

    /// Sum of `(t - x)^2` over the same.
    #[inline(always)]
    fn second(self, end: Self, x: f32) -> f32 {
        end.square - self.square - x * (end.sum - self.sum + self.first(end, x))
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
                    for (l, got) in loss.iter().enumerate() {
                        let (expected, slopes) = reference(&lane(&theta, l), &lane(&target, l));
                        let close = |a: f32, b: f64| (f64::from(a) - b).abs() < 1e-4 * (1.0 + b.abs());
                        assert!(close(*got, expected), "{level:?} {n} {sorts}: {got} {expected}");
                        for (a, b) in lane(&grad, l).into_iter().zip(slopes) {
                            assert!(close(a, b), "{level:?} {n} {sorts}: {a} {b}");
                        }
                    }
                }
            }
        }
    }
}

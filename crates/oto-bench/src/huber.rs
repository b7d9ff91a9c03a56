//! The quantile Huber loss (kappa 1) of a panel and its gradient: every pair for few quantiles, sorted targets with prefix
//! sums for many.

use crate::kernels::{Level, kernel, panel, panel_mut};
use crate::vector::{Vector, load, splat, store};

/// From this many quantiles on, sorting is faster than visiting every pair (measured with AVX2 and AVX-512).
const SORTED_FROM: usize = 96;

/// Room for sorted targets and their sums.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// `[power of two][C]`, ascending in each lane, infinities behind the targets.
    sorted: Vec<f32>,
    /// `[targets + 1][C]`: sums of the smallest targets.
    sums: Vec<f32>,
    /// The same of their squares.
    squares: Vec<f32>,
}

impl Scratch {
    /// For `quantiles` targets of `lanes` samples.
    pub fn new(quantiles: usize, lanes: usize) -> Self {
        let sums = vec![0.0; (quantiles + 1) * lanes];
        let sorted = vec![0.0; (quantiles + 1).next_power_of_two() * lanes];
        Self { sorted, squares: sums.clone(), sums }
    }
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
    let (theta, target) = (panel::<C>(theta), panel::<C>(target));
    let (sums, squares) = (panel_mut::<C>(&mut scratch.sums), panel_mut::<C>(&mut scratch.squares));
    let sorted = panel_mut::<C>(&mut scratch.sorted);
    let middle = fill(target, sorted);
    sort::<V, C>(sorted);
    prefix_sums(&sorted[..target.len()], sums, squares);
    let n = theta.len() as f32;
    let mut total = [0.0f32; C];
    for (i, (theta, grad)) in theta.iter().zip(panel_mut::<C>(grad)).enumerate() {
        let tau = (i as f32 + 0.5) / n;
        for l in 0..C {
            let x = theta[l] - middle[l];
            let near = Near::<C> { sorted, sums, squares, lane: l };
            let (above, below, slope_above, slope_below) = near.sides(x, target.len());
            total[l] += weighted(tau, above, below);
            grad[l] = -weighted(tau, slope_above, slope_below) / n;
        }
    }
    let loss = &mut panel_mut::<C>(loss)[0];
    for l in 0..C {
        loss[l] += total[l] / n;
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
    for l in 0..C {
        middle[l] /= target.len() as f32;
    }
    let (values, rest) = sorted.split_at_mut(target.len());
    for (to, row) in values.iter_mut().zip(target) {
        for l in 0..C {
            to[l] = row[l] - middle[l];
        }
    }
    rest.fill([f32::INFINITY; C]);
    middle
}

/// Batcher's odd-even merge sort of the rows, every lane on its own: a network, so that lanes go in step.
#[inline(always)]
fn sort<V: Vector, const C: usize>(rows: &mut [[f32; C]]) {
    let n = rows.len();
    let mut p = 1;
    while p < n {
        let mut k = p;
        while k >= 1 {
            for j in (k % p..n - k).step_by(2 * k) {
                for i in j..j + k.min(n - j - k) {
                    if i / (2 * p) == (i + k) / (2 * p) {
                        exchange::<V, C>(rows, i, i + k);
                    }
                }
            }
            k /= 2;
        }
        p *= 2;
    }
}

#[inline(always)]
fn exchange<V: Vector, const C: usize>(rows: &mut [[f32; C]], low: usize, high: usize) {
    let (a, b) = (load::<V>(&rows[low]), load::<V>(&rows[high]));
    store([a[0].min(b[0]), a[1].min(b[1])], &mut rows[low]);
    store([a[0].max(b[0]), a[1].max(b[1])], &mut rows[high]);
}

#[inline(always)]
fn prefix_sums<const C: usize>(sorted: &[[f32; C]], sums: &mut [[f32; C]], squares: &mut [[f32; C]]) {
    let [mut sum, mut square] = [[0.0f32; C]; 2];
    for (i, row) in sorted.iter().enumerate() {
        for l in 0..C {
            sum[l] += row[l];
            square[l] += row[l] * row[l];
        }
        sums[i + 1] = sum;
        squares[i + 1] = square;
    }
}

/// One lane's sorted targets.
struct Near<'a, const C: usize> {
    sorted: &'a [[f32; C]],
    sums: &'a [[f32; C]],
    squares: &'a [[f32; C]],
    lane: usize,
}

impl<const C: usize> Near<'_, C> {
    /// How many targets are below each of `x - 1`, `x` and `x + 1`: three searches side by side, without a branch.
    #[inline(always)]
    fn ranks(&self, x: f32) -> [usize; 3] {
        let bounds = [x - 1.0, x, x + 1.0];
        let mut at = [0; 3];
        let mut half = self.sorted.len() / 2;
        while half > 0 {
            for (at, bound) in at.iter_mut().zip(bounds) {
                let below = self.sorted[*at + half - 1][self.lane] < bound;
                *at += usize::from(below) * half;
            }
            half /= 2;
        }
        at
    }

    /// Huber loss of the targets above and below `x`, then the slopes.
    #[inline(always)]
    fn sides(&self, x: f32, targets: usize) -> (f32, f32, f32, f32) {
        let [low, middle, high] = self.ranks(x);
        let sum = |i: usize| self.sums[i][self.lane];
        let square = |i: usize| self.squares[i][self.lane];
        // Sums of (t - x) and of its square over a range of targets.
        let first = |a: usize, b: usize| sum(b) - sum(a) - (b - a) as f32 * x;
        let second = |a: usize, b: usize| square(b) - square(a) - x * (sum(b) - sum(a) + first(a, b));
        let (far_above, far_below) = ((targets - high) as f32, low as f32);
        let above = 0.5 * second(middle, high) + first(high, targets) - 0.5 * far_above;
        let below = 0.5 * second(low, middle) - first(0, low) - 0.5 * far_below;
        (above, below, first(middle, high) + far_above, first(low, middle) - far_below)
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

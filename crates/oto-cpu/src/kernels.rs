//! Everything that is neither a matrix product, a convolution nor a quantile loss, as loops over slices.

use crate::math;
use crate::simd::{self, Isa, simd};
use oto_graph::{Activation, BackendError, Binary, Unary};

/// Many numbers, or one for all places.
#[derive(Clone, Copy)]
pub enum Operand<'a> {
    Each(&'a [f32]),
    All(f32),
}

simd! { pub fn affine(x: &[f32], mul: f32, add: f32, out: &mut [f32]) = affine_loop }
simd! { pub fn unary(op: Unary, x: &[f32], out: &mut [f32]) = unary_loop }
simd! { pub fn binary(op: Binary, a: Operand<'_>, b: Operand<'_>, out: &mut [f32]) = binary_loop }
simd! { pub fn activation_grad(y: &[f32], g: &[f32], activation: Activation, out: &mut [f32]) = activation_grad_loop }
simd! { pub fn log_softmax_grad(y: &[f32], g: &[f32], last: usize, out: &mut [f32]) = log_softmax_grad_loop }
simd! { pub fn layer_norm(x: &[f32], last: usize, epsilon: f32, out: &mut [f32]) = layer_norm_loop }
simd! {
    pub fn layer_norm_grad(x: &[f32], g: &[f32], last: usize, epsilon: f32, out: &mut [f32]) = layer_norm_grad_loop
}
simd! { pub fn moment(m: &[f32], g: &[f32], beta: f32, take: f32, squared: bool, out: &mut [f32]) = moment_loop }
simd! {
    pub fn adam_step(p: &[f32], m: &[f32], v: &[f32], scales: (f32, f32), epsilon: f32, out: &mut [f32]) = adam_step_loop
}
simd! {
    /// Slow copies after `p`, in place: empty ones, or as many numbers.
    pub fn follow(slow: &mut [f32], p: &[f32], tau: f32) = follow_loop
}
simd! { pub fn polyak(target: &[f32], p: &[f32], tau: f32, out: &mut [f32]) = polyak_loop }
simd! {
    /// [`moment`] twice, [`adam_step`] and [`polyak`] in one pass, in place. Without a slow copy `slow` is empty.
    pub fn optimise(
        p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], slow: &mut [f32], tau: f32, constants: AdamConstants,
    ) = optimise_loop
}

#[inline(always)]
fn map(x: &[f32], out: &mut [f32], f: impl Fn(f32) -> f32) {
    out.iter_mut().zip(x).for_each(|(o, x)| *o = f(*x));
}

#[inline(always)]
fn affine_loop<I: Isa>(x: &[f32], mul: f32, add: f32, out: &mut [f32]) {
    map(x, out, |x| I::fma(x, mul, add));
}

#[inline(always)]
fn unary_loop<I: Isa>(op: Unary, x: &[f32], out: &mut [f32]) {
    match op {
        Unary::Exp => map(x, out, math::exp::<I>),
        Unary::Log => map(x, out, f32::ln),
        Unary::Sqrt => map(x, out, f32::sqrt),
        Unary::Square => map(x, out, |x| x * x),
        Unary::Abs => map(x, out, f32::abs),
        Unary::Relu => map(x, out, math::relu),
        Unary::Tanh => map(x, out, math::tanh::<I>),
        Unary::Recip => map(x, out, |x| 1.0 / x),
        Unary::Softplus => map(x, out, |x| math::relu(x) + math::exp::<I>(-x.abs()).ln_1p()),
        Unary::Step => map(x, out, |x| if x > 0.0 { 1.0 } else { 0.0 }),
    }
}

#[inline(always)]
fn zip(a: Operand<'_>, b: Operand<'_>, out: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    match (a, b) {
        (Operand::Each(a), Operand::Each(b)) => {
            out.iter_mut().zip(a.iter().zip(b)).for_each(|(o, (a, b))| *o = f(*a, *b));
        }
        (Operand::Each(a), Operand::All(b)) => map(a, out, |a| f(a, b)),
        (Operand::All(a), Operand::Each(b)) => map(b, out, |b| f(a, b)),
        (Operand::All(a), Operand::All(b)) => out.fill(f(a, b)),
    }
}

#[inline(always)]
fn binary_loop<I: Isa>(op: Binary, a: Operand<'_>, b: Operand<'_>, out: &mut [f32]) {
    match op {
        Binary::Add => zip(a, b, out, |a, b| a + b),
        Binary::Sub => zip(a, b, out, |a, b| a - b),
        Binary::Mul => zip(a, b, out, |a, b| a * b),
        Binary::Div => zip(a, b, out, |a, b| a / b),
        // Written so that NaN on either side comes out as NaN.
        Binary::Max => zip(a, b, out, |a, b| if a > b || a.is_nan() { a } else { b }),
        Binary::Min => zip(a, b, out, |a, b| if a < b || a.is_nan() { a } else { b }),
    }
}

#[inline(always)]
fn activation_grad_loop<I: Isa>(y: &[f32], g: &[f32], activation: Activation, out: &mut [f32]) {
    let each = out.iter_mut().zip(y.iter().zip(g));
    match activation {
        Activation::Identity => out.copy_from_slice(g),
        Activation::Relu => each.for_each(|(o, (y, g))| *o = if *y > 0.0 { *g } else { 0.0 }),
        Activation::Tanh => each.for_each(|(o, (y, g))| *o = g * (1.0 - y * y)),
    }
}

/// How a broadcast repeats: each of `outer` pieces of `inner` numbers `times` times.
#[derive(Clone, Debug, PartialEq)]
pub enum Spread {
    Regular {
        outer: usize,
        times: usize,
        inner: usize,
    },
    /// For each place of the large shape the place of the small one.
    Irregular(Vec<usize>),
}

impl Spread {
    /// From `small` to `large`, as NumPy broadcasts.
    pub fn new(small: &[usize], large: &[usize]) -> Self {
        let mut padded = vec![1; large.len() - small.len()];
        padded.extend(small);
        let repeated = |axis: &usize| padded[*axis] != large[*axis];
        let count = |axes: &[usize]| axes.iter().product::<usize>();
        let Some(first) = (0..large.len()).find(repeated) else {
            return Spread::Regular { outer: 1, times: 1, inner: count(large) };
        };
        let end = (0..large.len()).rfind(repeated).expect("one was found from the front") + 1;
        if padded[first..end].iter().all(|s| *s == 1) {
            let (outer, times, inner) =
                (count(&large[..first]), count(&large[first..end]), count(&large[end..]));
            return Spread::Regular { outer, times, inner };
        }
        let place = |i: usize| {
            let (mut rest, mut from, mut stride) = (i, 0, 1);
            for axis in (0..large.len()).rev() {
                let at = rest % large[axis];
                rest /= large[axis];
                from += if padded[axis] == 1 { 0 } else { at * stride };
                stride *= padded[axis];
            }
            from
        };
        Spread::Irregular((0..count(large)).map(place).collect())
    }

    /// Numbers in the small shape and in the large one; an irregular one is asked with its small length.
    fn sizes(&self, small: usize) -> (usize, usize) {
        match self {
            Spread::Regular { outer, times, inner } => (outer * inner, outer * times * inner),
            Spread::Irregular(places) => (small, places.len()),
        }
    }

    /// Repeats `x`, as many rows as `out` has; a single row of `x` serves all.
    pub fn broadcast(&self, x: &[f32], small: usize, out: &mut [f32]) {
        let (small, large) = self.sizes(small);
        let shared = x.len() == small;
        for (r, out) in out.chunks_exact_mut(large).enumerate() {
            let x = if shared { x } else { &x[r * small..(r + 1) * small] };
            match self {
                Spread::Regular { times: 1, .. } => simd::copy(x, out),
                Spread::Regular { times, inner: 1, .. } => {
                    out.chunks_exact_mut(*times).zip(x).for_each(|(out, x)| out.fill(*x));
                }
                Spread::Regular { times, inner, .. } => {
                    for (out, x) in out.chunks_exact_mut(times * inner).zip(x.chunks_exact(*inner)) {
                        out.chunks_exact_mut(*inner).for_each(|out| simd::copy(x, out));
                    }
                }
                Spread::Irregular(places) => out.iter_mut().zip(places).for_each(|(o, p)| *o = x[*p]),
            }
        }
    }

    /// The adjoint: sums what [`Self::broadcast`] repeats.
    pub fn sum(&self, x: &[f32], small: usize, out: &mut [f32]) {
        let (small, large) = self.sizes(small);
        for (out, x) in out.chunks_exact_mut(small).zip(x.chunks_exact(large)) {
            match self {
                Spread::Regular { times: 1, .. } => simd::copy(x, out),
                Spread::Regular { times, inner: 1, .. } => {
                    out.iter_mut().zip(x.chunks_exact(*times)).for_each(|(o, x)| *o = sum(x));
                }
                Spread::Regular { times, inner, .. } => {
                    for (out, x) in out.chunks_exact_mut(*inner).zip(x.chunks_exact(times * inner)) {
                        crate::matmul::sum_rows(x, out);
                    }
                }
                Spread::Irregular(places) => {
                    out.fill(0.0);
                    x.iter().zip(places).for_each(|(x, p)| out[*p] += x);
                }
            }
        }
    }
}

/// Eight running sums: faster than one, and closer to the true value.
pub fn sum(x: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let chunks = x.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().sum();
    chunks.for_each(|c| sums.iter_mut().zip(c).for_each(|(s, x)| *s += x));
    sums.iter().sum::<f32>() + rest
}

/// As a comparison: `f32::max` is a call in wasm.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

pub fn max_last(x: &[f32], last: usize, out: &mut [f32]) {
    let max = |row: &[f32]| row.iter().copied().fold(f32::NEG_INFINITY, larger);
    out.iter_mut().zip(x.chunks_exact(last)).for_each(|(o, row)| *o = max(row));
}

pub fn argmax_last(x: &[f32], last: usize, out: &mut [f32]) {
    for (o, row) in out.iter_mut().zip(x.chunks_exact(last)) {
        *o = (0..last).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as f32;
    }
}

fn log_sum_exp_row(row: &[f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, larger);
    if max.is_infinite() {
        return max;
    }
    row.iter().map(|x| math::exp::<crate::simd::Plain>(x - max)).sum::<f32>().ln() + max
}

pub fn log_sum_exp(x: &[f32], last: usize, out: &mut [f32]) {
    out.iter_mut().zip(x.chunks_exact(last)).for_each(|(o, row)| *o = log_sum_exp_row(row));
}

pub fn log_softmax(x: &[f32], last: usize, out: &mut [f32]) {
    for (row, x) in out.chunks_exact_mut(last).zip(x.chunks_exact(last)) {
        let lse = log_sum_exp_row(x);
        row.iter_mut().zip(x).for_each(|(o, x)| *o = x - lse);
    }
}

#[inline(always)]
fn log_softmax_grad_loop<I: Isa>(y: &[f32], g: &[f32], last: usize, out: &mut [f32]) {
    for ((row, y), g) in out.chunks_exact_mut(last).zip(y.chunks_exact(last)).zip(g.chunks_exact(last)) {
        let sum: f32 = g.iter().sum();
        row.iter_mut().zip(y.iter().zip(g)).for_each(|(o, (y, g))| *o = g - math::exp::<I>(*y) * sum);
    }
}

/// Sums of what `f` makes of each place below `n`, in eight parts as in [`sum`].
#[inline(always)]
fn sums<const N: usize>(n: usize, f: impl Fn(usize) -> [f32; N]) -> [f32; N] {
    let mut sums = [[0.0f32; 8]; N];
    let whole = n - n % 8;
    for first in (0..whole).step_by(8) {
        let values: [[f32; N]; 8] = std::array::from_fn(|lane| f(first + lane));
        for (i, sums) in sums.iter_mut().enumerate() {
            sums.iter_mut().zip(&values).for_each(|(sum, value)| *sum += value[i]);
        }
    }
    let mut all = sums.map(|s| s.iter().sum::<f32>());
    for i in whole..n {
        let values = f(i);
        all.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    all
}

/// A row's mean, and what brings its spread to 1.
#[inline(always)]
fn spread(x: &[f32], epsilon: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let [total] = sums(x.len(), |i| [x[i]]);
    let mean = total / n;
    let [squares] = sums(x.len(), |i| [(x[i] - mean) * (x[i] - mean)]);
    (mean, 1.0 / (squares / n + epsilon).sqrt())
}

#[inline(always)]
fn layer_norm_loop<I: Isa>(x: &[f32], last: usize, epsilon: f32, out: &mut [f32]) {
    for (out, x) in out.chunks_exact_mut(last).zip(x.chunks_exact(last)) {
        let (mean, scale) = spread(x, epsilon);
        out.iter_mut().zip(x).for_each(|(o, x)| *o = (x - mean) * scale);
    }
}

#[inline(always)]
fn layer_norm_grad_loop<I: Isa>(x: &[f32], g: &[f32], last: usize, epsilon: f32, out: &mut [f32]) {
    let n = last as f32;
    for ((out, x), g) in out.chunks_exact_mut(last).zip(x.chunks_exact(last)).zip(g.chunks_exact(last)) {
        let (mean, scale) = spread(x, epsilon);
        let [total, along] = sums(last, |i| [g[i], g[i] * (x[i] - mean)]);
        let (total, along) = (total / n, along * scale * scale / n);
        let each = out.iter_mut().zip(x.iter().zip(g));
        each.for_each(|(o, (x, g))| *o = (g - total - (x - mean) * along) * scale);
    }
}

fn index(value: f32, below: usize) -> Result<usize, BackendError> {
    // What is no number becomes 0, and differs from it.
    let whole = value as usize;
    match whole < below && whole as f32 == value {
        true => Ok(whole),
        false => Err(BackendError::Index { value, below }),
    }
}

pub fn pick(
    x: &[f32],
    choices: usize,
    inner: usize,
    at: &[f32],
    out: &mut [f32],
) -> Result<(), BackendError> {
    for ((out, x), i) in out.chunks_exact_mut(inner).zip(x.chunks_exact(choices * inner)).zip(at) {
        let from = index(*i, choices)? * inner;
        simd::copy(&x[from..from + inner], out);
    }
    Ok(())
}

pub fn unpick(
    g: &[f32],
    choices: usize,
    inner: usize,
    at: &[f32],
    out: &mut [f32],
) -> Result<(), BackendError> {
    out.fill(0.0);
    for ((out, g), i) in out.chunks_exact_mut(choices * inner).zip(g.chunks_exact(inner)).zip(at) {
        let from = index(*i, choices)? * inner;
        simd::copy(g, &mut out[from..from + inner]);
    }
    Ok(())
}

pub fn rows(x: &[f32], count: usize, at: &[f32], out: &mut [f32]) -> Result<(), BackendError> {
    let width = x.len() / count;
    for (out, i) in out.chunks_exact_mut(width).zip(at) {
        let from = index(*i, count)? * width;
        simd::copy(&x[from..from + width], out);
    }
    Ok(())
}

/// Rows of `g` added to the rows of the result that `at` names; `out` holds those from row `first` of `count` on.
pub fn add_rows(
    g: &[f32],
    count: usize,
    at: &[f32],
    first: usize,
    width: usize,
    out: &mut [f32],
) -> Result<(), BackendError> {
    out.fill(0.0);
    let rows = out.len() / width;
    for (g, i) in g.chunks_exact(width).zip(at) {
        let row = index(*i, count)?;
        if (first..first + rows).contains(&row) {
            let out = &mut out[(row - first) * width..][..width];
            out.iter_mut().zip(g).for_each(|(o, g)| *o += g);
        }
    }
    Ok(())
}

#[inline(always)]
fn moment_loop<I: Isa>(m: &[f32], g: &[f32], beta: f32, take: f32, squared: bool, out: &mut [f32]) {
    let each = out.iter_mut().zip(m.iter().zip(g));
    match squared {
        false => each.for_each(|(o, (m, g))| *o = moved(*m, *g, beta, take)),
        true => each.for_each(|(o, (m, g))| *o = moved(*m, square(*g), beta, take)),
    }
}

/// A moment's new value. It decays to 0, not to a number too small for the processor's fast path: a unit that gets no more
/// gradients would slow down every later step.
#[inline(always)]
fn moved(m: f32, x: f32, beta: f32, take: f32) -> f32 {
    let m = m * beta + x * take;
    if m.abs() < f32::MIN_POSITIVE { 0.0 } else { m }
}

/// `g * g`, 0 where that has no fast path either.
#[inline(always)]
fn square(g: f32) -> f32 {
    let g = if g.abs() < 1.1e-19 { 0.0 } else { g };
    g * g
}

/// Step size and scale of the second moment at step `t` (Kingma and Ba 2015, algorithm 1).
pub fn adam_scales(t: f32, lr: f32, beta1: f64, beta2: f64) -> (f32, f32) {
    let (t, lr) = (f64::from(t), f64::from(lr));
    ((lr / (1.0 - beta1.powf(t))) as f32, (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32)
}

#[inline(always)]
fn adam_step_loop<I: Isa>(
    p: &[f32],
    m: &[f32],
    v: &[f32],
    (size, scale): (f32, f32),
    epsilon: f32,
    out: &mut [f32],
) {
    let each = out.iter_mut().zip(p.iter().zip(m.iter().zip(v)));
    each.for_each(|(o, (p, (m, v)))| *o = p - size * m / (v.sqrt() * scale + epsilon));
}

/// `a` and `b` side by side, lines of these widths.
pub fn concat(a: &[f32], b: &[f32], [first, second]: [usize; 2], out: &mut [f32]) {
    let lines = a.chunks_exact(first).zip(b.chunks_exact(second));
    for (out, (a, b)) in out.chunks_exact_mut(first + second).zip(lines) {
        simd::copy(a, &mut out[..first]);
        simd::copy(b, &mut out[first..]);
    }
}

/// `count` columns from `from` on of lines of `width`.
pub fn slice(x: &[f32], width: usize, from: usize, count: usize, out: &mut [f32]) {
    let lines = out.chunks_exact_mut(count).zip(x.chunks_exact(width));
    lines.for_each(|(out, x)| simd::copy(&x[from..from + count], out));
}

#[inline(always)]
fn follow_loop<I: Isa>(slow: &mut [f32], p: &[f32], tau: f32) {
    slow.iter_mut().zip(p).for_each(|(slow, p)| *slow = mixed(*slow, *p, tau));
}

#[inline(always)]
fn polyak_loop<I: Isa>(target: &[f32], p: &[f32], tau: f32, out: &mut [f32]) {
    out.iter_mut().zip(target.iter().zip(p)).for_each(|(o, (t, p))| *o = mixed(*t, *p, tau));
}

/// `t + tau (p - t)`; exactly p at 1, and t at 0 whatever p is.
#[inline(always)]
fn mixed(t: f32, p: f32, tau: f32) -> f32 {
    let near = t + tau * (p - t);
    let near = if tau == 0.0 { t } else { near };
    if tau == 1.0 { p } else { near }
}

/// What [`optimise`] needs beside its arrays; `scales` from [`adam_scales`].
#[derive(Clone, Copy)]
pub struct AdamConstants {
    pub scales: (f32, f32),
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
}

/// Slices of its own as arguments, and plain loops: the compiler must see that nothing overlaps to vectorise this.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn optimise_loop<I: Isa>(
    p: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    g: &[f32],
    slow: &mut [f32],
    tau: f32,
    constants: AdamConstants,
) {
    let AdamConstants { scales: (size, scale), beta1, beta2, epsilon } = constants;
    let (b1, b2, take1, take2) = (beta1 as f32, beta2 as f32, (1.0 - beta1) as f32, (1.0 - beta2) as f32);
    let epsilon = epsilon as f32;
    let n = p.len();
    let (m, v, g) = (&mut m[..n], &mut v[..n], &g[..n]);
    // In stretches, so that a slow copy follows what is still in the cache.
    let mut first = 0;
    while first < n {
        let end = (first + STRETCH).min(n);
        let (p, m, v, g) = (&mut p[first..end], &mut m[first..end], &mut v[first..end], &g[first..end]);
        for i in 0..p.len() {
            m[i] = moved(m[i], g[i], b1, take1);
            v[i] = moved(v[i], square(g[i]), b2, take2);
            p[i] -= size * m[i] / (v[i].sqrt() * scale + epsilon);
        }
        if !slow.is_empty() {
            follow_loop::<I>(&mut slow[first..end], p, tau);
        }
        first = end;
    }
}

/// Parameters that are stepped before their slow copies follow.
const STRETCH: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_and_irregular_spreads() {
        assert_eq!(Spread::new(&[2, 1], &[2, 3]), Spread::Regular { outer: 2, times: 3, inner: 1 });
        assert_eq!(Spread::new(&[3], &[2, 3]), Spread::Regular { outer: 1, times: 2, inner: 3 });
        let odd = Spread::new(&[1, 2, 1], &[2, 2, 2]);
        let mut out = [0.0; 8];
        odd.broadcast(&[1.0, 2.0], 2, &mut out);
        assert_eq!(out, [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
        let mut back = [0.0; 2];
        odd.sum(&out, 2, &mut back);
        assert_eq!(back, [4.0, 8.0]);
    }

    #[test]
    fn nan_is_not_hidden() {
        let mut out = [0.0; 2];
        for op in [Binary::Max, Binary::Min] {
            binary(op, Operand::Each(&[f32::NAN, 1.0]), Operand::Each(&[1.0, f32::NAN]), &mut out);
            assert!(out.iter().all(|x| x.is_nan()), "{op:?}: {out:?}");
        }
    }
}

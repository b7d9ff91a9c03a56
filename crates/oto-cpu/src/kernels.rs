//! Everything that is neither a matrix product nor a convolution, as loops over slices.

use oto_graph::{Activation, BackendError, Binary, Unary};

pub fn activate(y: &mut [f32], activation: Activation) {
    match activation {
        Activation::Identity => {}
        Activation::Relu => y.iter_mut().for_each(|v| *v = v.max(0.0)),
        Activation::Tanh => y.iter_mut().for_each(|v| *v = v.tanh()),
    }
}

pub fn activation_grad(y: &[f32], g: &[f32], activation: Activation, out: &mut [f32]) {
    let each = out.iter_mut().zip(y.iter().zip(g));
    match activation {
        Activation::Identity => out.copy_from_slice(g),
        Activation::Relu => each.for_each(|(o, (y, g))| *o = if *y > 0.0 { *g } else { 0.0 }),
        Activation::Tanh => each.for_each(|(o, (y, g))| *o = g * (1.0 - y * y)),
    }
}

pub fn unary(op: Unary, x: &[f32], out: &mut [f32]) {
    let map = |out: &mut [f32], f: fn(f32) -> f32| out.iter_mut().zip(x).for_each(|(o, x)| *o = f(*x));
    match op {
        Unary::Exp => map(out, f32::exp),
        Unary::Log => map(out, f32::ln),
        Unary::Sqrt => map(out, f32::sqrt),
        Unary::Square => map(out, |x| x * x),
        Unary::Abs => map(out, f32::abs),
        Unary::Relu => map(out, |x| x.max(0.0)),
        Unary::Tanh => map(out, f32::tanh),
        Unary::Recip => map(out, f32::recip),
        Unary::Softplus => map(out, |x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
        Unary::Step => map(out, |x| if x > 0.0 { 1.0 } else { 0.0 }),
    }
}

pub fn binary(op: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
    let zip = |out: &mut [f32], f: fn(f32, f32) -> f32| {
        out.iter_mut().zip(a.iter().zip(b)).for_each(|(o, (a, b))| *o = f(*a, *b));
    };
    match op {
        Binary::Add => zip(out, |a, b| a + b),
        Binary::Sub => zip(out, |a, b| a - b),
        Binary::Mul => zip(out, |a, b| a * b),
        Binary::Div => zip(out, |a, b| a / b),
        Binary::Max => zip(out, f32::max),
        Binary::Min => zip(out, f32::min),
    }
}

/// Calls `f` with every index of the large shape and the index of the small shape that it is broadcast from.
fn broadcast_pairs(large: &[usize], small: &[usize], mut f: impl FnMut(usize, usize)) {
    let extra = large.len() - small.len();
    let count = large.iter().product();
    for i in 0..count {
        let (mut rest, mut from, mut stride) = (i, 0, 1);
        for axis in (0..large.len()).rev() {
            let at = rest % large[axis];
            rest /= large[axis];
            if axis >= extra {
                let size = small[axis - extra];
                from += if size == 1 { 0 } else { at * stride };
                stride *= size;
            }
        }
        f(i, from);
    }
}

/// Whether `small` is `large` without some leading axes, its own leading ones aside.
fn repeats_rows(large: &[usize], small: &[usize]) -> bool {
    let small = &small[small.iter().take_while(|s| **s == 1).count()..];
    large.ends_with(small)
}

/// Whether `small` is `large` with 1 along the last axis.
fn repeats_last(large: &[usize], small: &[usize]) -> bool {
    let (Some((_, rest)), Some((1, heads))) = (large.split_last(), small.split_last()) else { return false };
    rest == heads
}

pub fn broadcast(x: &[f32], from: &[usize], shape: &[usize], out: &mut [f32]) {
    if out.is_empty() {
        return;
    }
    if x.len() == 1 {
        out.fill(x[0]);
    } else if repeats_rows(shape, from) {
        out.chunks_exact_mut(x.len()).for_each(|row| row.copy_from_slice(x));
    } else if repeats_last(shape, from) {
        let last = shape[shape.len() - 1];
        out.chunks_exact_mut(last).zip(x).for_each(|(row, x)| row.fill(*x));
    } else {
        broadcast_pairs(shape, from, |i, j| out[i] = x[j]);
    }
}

pub fn sum_to(x: &[f32], from: &[usize], shape: &[usize], out: &mut [f32]) {
    out.fill(0.0);
    if out.len() == 1 {
        out[0] = sum(x);
    } else if repeats_rows(from, shape) {
        for row in x.chunks_exact(out.len()) {
            out.iter_mut().zip(row).for_each(|(o, x)| *o += x);
        }
    } else if repeats_last(from, shape) {
        let last = from[from.len() - 1];
        out.iter_mut().zip(x.chunks_exact(last)).for_each(|(o, row)| *o = sum(row));
    } else {
        broadcast_pairs(from, shape, |i, j| out[j] += x[i]);
    }
}

/// Eight running sums: faster than one, and closer to the true value.
fn sum(x: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let chunks = x.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().sum();
    chunks.for_each(|c| sums.iter_mut().zip(c).for_each(|(s, x)| *s += x));
    sums.iter().sum::<f32>() + rest
}

pub fn max_last(x: &[f32], last: usize, out: &mut [f32]) {
    let max = |row: &[f32]| row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    out.iter_mut().zip(x.chunks_exact(last)).for_each(|(o, row)| *o = max(row));
}

pub fn argmax_last(x: &[f32], last: usize, out: &mut [f32]) {
    for (o, row) in out.iter_mut().zip(x.chunks_exact(last)) {
        *o = (0..last).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as f32;
    }
}

fn log_sum_exp_row(row: &[f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max.is_infinite() {
        return max;
    }
    row.iter().map(|x| (x - max).exp()).sum::<f32>().ln() + max
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

pub fn log_softmax_grad(y: &[f32], g: &[f32], last: usize, out: &mut [f32]) {
    for ((row, y), g) in out.chunks_exact_mut(last).zip(y.chunks_exact(last)).zip(g.chunks_exact(last)) {
        let sum: f32 = g.iter().sum();
        row.iter_mut().zip(y.iter().zip(g)).for_each(|(o, (y, g))| *o = g - y.exp() * sum);
    }
}

fn index(value: f32, below: usize) -> Result<usize, BackendError> {
    match value >= 0.0 && value < below as f32 && value.fract() == 0.0 {
        true => Ok(value as usize),
        false => Err(BackendError::Device(format!("index {value} is not a whole number below {below}"))),
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
        out.copy_from_slice(&x[from..from + inner]);
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
        out[from..from + inner].copy_from_slice(g);
    }
    Ok(())
}

pub fn rows(x: &[f32], count: usize, at: &[f32], out: &mut [f32]) -> Result<(), BackendError> {
    let width = x.len() / count;
    for (out, i) in out.chunks_exact_mut(width).zip(at) {
        let from = index(*i, count)? * width;
        out.copy_from_slice(&x[from..from + width]);
    }
    Ok(())
}

pub fn add_rows(g: &[f32], count: usize, at: &[f32], out: &mut [f32]) -> Result<(), BackendError> {
    out.fill(0.0);
    let width = out.len() / count;
    for (g, i) in g.chunks_exact(width).zip(at) {
        let from = index(*i, count)? * width;
        out[from..from + width].iter_mut().zip(g).for_each(|(o, g)| *o += g);
    }
    Ok(())
}

pub fn quantile_huber(theta: &[f32], target: &[f32], kappa: f32, out: &mut [f32]) {
    let (n, m) = (theta.len() / out.len(), target.len() / out.len());
    for ((out, theta), target) in out.iter_mut().zip(theta.chunks_exact(n)).zip(target.chunks_exact(m)) {
        let mut total = 0.0;
        for (i, theta) in theta.iter().enumerate() {
            let tau = (i as f32 + 0.5) / n as f32;
            total += lanes(target, |t| {
                let d = t - theta;
                let small = d.abs().min(kappa);
                let weight = if d < 0.0 { 1.0 - tau } else { tau };
                weight * small * (d.abs() - 0.5 * small)
            });
        }
        *out = total / n as f32;
    }
}

pub fn quantile_huber_grad(theta: &[f32], target: &[f32], samples: usize, kappa: f32, out: &mut [f32]) {
    let (n, m) = (theta.len() / samples, target.len() / samples);
    for ((out, theta), target) in
        out.chunks_exact_mut(n).zip(theta.chunks_exact(n)).zip(target.chunks_exact(m))
    {
        for (i, (out, theta)) in out.iter_mut().zip(theta).enumerate() {
            let tau = (i as f32 + 0.5) / n as f32;
            let sum = lanes(target, |t| {
                let d = t - theta;
                let weight = if d < 0.0 { 1.0 - tau } else { tau };
                weight * d.min(kappa).max(-kappa)
            });
            *out = -sum / n as f32;
        }
    }
}

/// Sum of `f` over `x` in eight lanes.
#[inline(always)]
fn lanes(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 8];
    let chunks = x.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().map(|x| f(*x)).sum();
    for c in chunks {
        for i in 0..8 {
            sums[i] += f(c[i]);
        }
    }
    sums.iter().sum::<f32>() + rest
}

pub fn moment(m: &[f32], g: &[f32], beta: f32, take: f32, squared: bool, out: &mut [f32]) {
    let each = out.iter_mut().zip(m.iter().zip(g));
    match squared {
        false => each.for_each(|(o, (m, g))| *o = m * beta + g * take),
        true => each.for_each(|(o, (m, g))| *o = m * beta + g * g * take),
    }
}

/// Step size and scale of the second moment at step `t` (Kingma and Ba 2015, algorithm 1).
pub fn adam_scales(t: f32, lr: f32, beta1: f64, beta2: f64) -> (f32, f32) {
    let (t, lr) = (f64::from(t), f64::from(lr));
    ((lr / (1.0 - beta1.powf(t))) as f32, (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32)
}

pub fn adam_step(p: &[f32], m: &[f32], v: &[f32], (size, scale): (f32, f32), epsilon: f32, out: &mut [f32]) {
    let each = out.iter_mut().zip(p.iter().zip(m.iter().zip(v)));
    each.for_each(|(o, (p, (m, v)))| *o = p - size * m / (v.sqrt() * scale + epsilon));
}

pub fn polyak(target: &[f32], p: &[f32], tau: f32, out: &mut [f32]) {
    match tau {
        0.0 => out.copy_from_slice(target),
        1.0 => out.copy_from_slice(p),
        _ => out.iter_mut().zip(target.iter().zip(p)).for_each(|(o, (t, p))| *o = t + tau * (p - t)),
    }
}

//! Matrix products and quantile losses as this module computes them, held against loops in f64: the kernels of WebAssembly are
//! its own. What is no number must stay so, whatever the browser's instructions make of it.

use oto_env::rng::Rng;
use oto_graph::{Activation, Backend, Tensor, Trace};

/// Rows, columns and length of the sums: whole tiles, pieces of them, single ones.
const SHAPES: [(usize, usize, usize); 6] =
    [(64, 128, 51), (64, 64, 4), (7, 5, 3), (1, 9, 17), (13, 102, 128), (2, 1, 1)];

/// How many products and losses agree.
///
/// # Errors
/// The first that does not.
pub fn check() -> Result<usize, String> {
    let rng = &mut Rng::new(1);
    let mut agreed = 0;
    for (m, n, k) in SHAPES {
        for turned in [(false, false), (false, true), (true, false)] {
            product(rng, (m, n, k), turned).map_err(|e| format!("product {m} {n} {k} {turned:?}: {e}"))?;
            agreed += 1;
        }
        layer(rng, (m, n, k)).map_err(|e| format!("layer {m} {n} {k}: {e}"))?;
        agreed += 1;
    }
    for quantiles in [8, 51, 200] {
        loss(rng, quantiles).map_err(|e| format!("loss of {quantiles} quantiles: {e}"))?;
        agreed += 1;
    }
    Ok(agreed)
}

fn draw(rng: &mut Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.normal() as f32).collect()
}

/// What a formula of the inputs gives.
fn run(
    inputs: &[(&[usize], &[f32])],
    f: impl for<'t> Fn(&[Tensor<'t>]) -> Tensor<'t>,
) -> Result<Vec<f32>, String> {
    let trace = Trace::new();
    let x = inputs
        .iter()
        .enumerate()
        .map(|(i, (shape, _))| trace.data(format!("x{i}"), shape))
        .collect::<Vec<_>>();
    let program = trace.finish(&[], &[("y", f(&x))]);
    let mut out = [Vec::new()];
    let data = inputs.iter().map(|(_, values)| *values).collect::<Vec<_>>();
    let mut executable = oto_cpu::Cpu.compile(program).map_err(|e| e.to_string())?;
    executable.run(&data, &mut out).map_err(|e| e.to_string())?;
    let [out] = out;
    Ok(out)
}

fn compare(got: &[f32], wanted: impl Fn(usize) -> f64) -> Result<(), String> {
    for (i, got) in got.iter().enumerate() {
        let wanted = wanted(i);
        let near = (f64::from(*got) - wanted).abs() <= 1e-4 * (1.0 + wanted.abs());
        let same = near || (got.is_nan() && wanted.is_nan());
        if !same {
            return Err(format!("{got} at {i} instead of {wanted}"));
        }
    }
    Ok(())
}

fn product(rng: &mut Rng, (m, n, k): (usize, usize, usize), (ta, tb): (bool, bool)) -> Result<(), String> {
    let (a, b) = (draw(rng, m * k), draw(rng, k * n));
    let (sa, sb) = (if ta { [k, m] } else { [m, k] }, if tb { [n, k] } else { [k, n] });
    let got = run(&[(&sa, &a), (&sb, &b)], |x| x[0].matmul(x[1], ta, tb))?;
    let at = |values: &[f32], turned: bool, line: usize, p: usize, lines: usize| {
        f64::from(if turned { values[p * lines + line] } else { values[line * k + p] })
    };
    compare(&got, |i| (0..k).map(|p| at(&a, ta, i / n, p, m) * at(&b, !tb, i % n, p, n)).sum())
}

fn layer(rng: &mut Rng, (m, n, k): (usize, usize, usize)) -> Result<(), String> {
    let (mut x, w, b) = (draw(rng, m * k), draw(rng, n * k), draw(rng, n));
    x[0] = f32::NAN;
    let got =
        run(&[(&[m, k], &x), (&[n, k], &w), (&[n], &b)], |x| x[0].linear(x[1], x[2], Activation::Relu))?;
    compare(&got, |i| {
        let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
        let sum =
            x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() + f64::from(b[i % n]);
        if 0.0 > sum { 0.0 } else { sum }
    })
}

fn loss(rng: &mut Rng, quantiles: usize) -> Result<(), String> {
    const SAMPLES: usize = 9;
    let (theta, mut target) = (draw(rng, SAMPLES * quantiles), draw(rng, SAMPLES * quantiles));
    target[quantiles] = f32::NAN;
    let shape = [SAMPLES, quantiles];
    let got = run(&[(&shape, &theta), (&shape, &target)], |x| x[0].quantile_huber(x[1], 1.0))?;
    compare(&got, |sample| {
        let row = |values: &[f32]| values[sample * quantiles..][..quantiles].to_vec();
        let mut sum = 0.0;
        for (i, theta) in row(&theta).into_iter().enumerate() {
            let tau = (i as f64 + 0.5) / quantiles as f64;
            for target in row(&target) {
                let d = f64::from(target) - f64::from(theta);
                let near = if d.abs() > 1.0 { 1.0 } else { d.abs() };
                sum += (tau - f64::from(u8::from(d < 0.0))).abs() * near * (d.abs() - 0.5 * near);
            }
        }
        sum / quantiles as f64
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn they_agree_on_this_machine_too() {
        assert_eq!(super::check(), Ok(27));
    }
}

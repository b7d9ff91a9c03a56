//! Regression on random features (Rahimi and Recht 2008): a network whose first layer is drawn and whose last one is solved
//! for. It needs few rows, no learning rate and no second look, and the same rows give the same network.

use oto_env::rng::Rng;
use oto_rl::mlp::{Activation, Layer, Mlp};

/// Weight of the squared last layer, beside the mean squared error of standardised outputs.
const RIDGE: f64 = 1e-4;

/// Rows to learn from; all numbers are finite.
#[derive(Default)]
pub(super) struct Rows {
    /// `[rows, inputs]`.
    pub x: Vec<f32>,
    /// `[rows, outputs]`.
    pub y: Vec<f32>,
    /// `[rows]`: how much each counts.
    pub weight: Vec<f32>,
}

/// The network of so many drawn units, beside two for each input that let linear parts through, that fits `rows` best. None if there are no rows, or none that can be solved for.
pub(super) fn fit(rows: &Rows, [inputs, outputs]: [usize; 2], units: usize, rng: &mut Rng) -> Option<Mlp> {
    if rows.weight.is_empty() {
        return None;
    }
    let hidden = drawn(&rows.x, inputs, units, rng);
    let (mean, deviation) = moments(&rows.y, outputs);
    let mut first = Mlp::new(inputs, vec![hidden]).ok()?;
    let width = first.outputs() + 1;
    // Normal equations of the last layer, its bias last: `gram` is symmetric, the lower half is filled.
    let (mut gram, mut right) = (vec![0.0f64; width * width], vec![0.0f64; width * outputs]);
    let mut features = vec![1.0f64; width];
    let data = rows.x.chunks_exact(inputs).zip(rows.y.chunks_exact(outputs)).zip(&rows.weight);
    for ((x, y), weight) in data {
        features.iter_mut().zip(first.forward(x)).for_each(|(f, h)| *f = f64::from(*h));
        let weight = f64::from(*weight);
        for i in 0..width {
            let scaled = weight * features[i];
            gram[i * width..][..=i].iter_mut().zip(&features).for_each(|(g, f)| *g += scaled * f);
            for o in 0..outputs {
                right[o * width + i] += scaled * f64::from((y[o] - mean[o]) / deviation[o]);
            }
        }
    }
    let total: f64 = rows.weight.iter().map(|w| f64::from(*w)).sum();
    (0..width).for_each(|i| gram[i * width + i] += RIDGE * total);
    if !factor(&mut gram, width) {
        return None;
    }
    right.chunks_exact_mut(width).for_each(|column| solve(&gram, column));
    let column = |o: usize| &right[o * width..][..width];
    let weight = (0..outputs).flat_map(|o| column(o)[..width - 1].iter().map(move |w| (o, *w)));
    let last = Layer {
        weight: weight.map(|(o, w)| w as f32 * deviation[o]).collect(),
        bias: (0..outputs).map(|o| column(o)[width - 1] as f32 * deviation[o] + mean[o]).collect(),
        activation: Activation::Identity,
    };
    let layers = vec![first.layers()[0].clone(), last];
    let finite = layers.iter().all(|l| l.weight.iter().chain(&l.bias).all(|w| w.is_finite()));
    finite.then(|| Mlp::new(inputs, layers).ok()).flatten()
}

/// The first layer: standardises its inputs, lets each through above and below its mean, and bends along drawn directions.
fn drawn(x: &[f32], inputs: usize, units: usize, rng: &mut Rng) -> Layer {
    let (mean, deviation) = moments(x, inputs);
    let (mut weight, mut bias) = (Vec::new(), Vec::new());
    let mut unit = |direction: &dyn Fn(usize) -> f32, shift: f32| {
        let row = (0..inputs).map(|j| direction(j) / deviation[j]).collect::<Vec<_>>();
        bias.push(shift - row.iter().zip(&mean).map(|(w, m)| w * m).sum::<f32>());
        weight.extend(row);
    };
    for i in 0..inputs {
        unit(&|j| f32::from(u8::from(i == j)), 0.0);
        unit(&|j| -f32::from(u8::from(i == j)), 0.0);
    }
    for _ in 0..units {
        let direction = (0..inputs).map(|_| rng.normal() as f32).collect::<Vec<_>>();
        let length = direction.iter().map(|d| d * d).sum::<f32>().sqrt().max(1e-6);
        unit(&|j| direction[j] / length, rng.normal() as f32);
    }
    Layer { weight, bias, activation: Activation::Relu }
}

/// Mean and standard deviation of each column; 1 where a column is constant.
fn moments(rows: &[f32], width: usize) -> (Vec<f32>, Vec<f32>) {
    let count = (rows.len() / width) as f64;
    let of = |f: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
        let mut sums = vec![0.0; width];
        for row in rows.chunks_exact(width) {
            row.iter().enumerate().for_each(|(j, v)| sums[j] += f(j, f64::from(*v)));
        }
        sums.into_iter().map(|s| s / count).collect()
    };
    let mean = of(&|_, v| v);
    let variance = of(&|j, v| (v - mean[j]) * (v - mean[j]));
    let deviation = |v: f64| if v.sqrt() > 1e-6 { v.sqrt() as f32 } else { 1.0 };
    (mean.iter().map(|m| *m as f32).collect(), variance.into_iter().map(deviation).collect())
}

/// Cholesky's factor in place of the lower half; false if the matrix is not positive definite.
fn factor(a: &mut [f64], n: usize) -> bool {
    for i in 0..n {
        for j in 0..=i {
            let (above, below) = a.split_at(i * n);
            let row_j = if i == j { &below[..j] } else { &above[j * n..][..j] };
            let sum = below[j] - below[..j].iter().zip(row_j).map(|(x, y)| x * y).sum::<f64>();
            if i == j {
                if !(sum > 0.0 && sum.is_finite()) {
                    return false;
                }
                a[i * n + i] = sum.sqrt();
            } else {
                a[i * n + j] = sum / a[j * n + j];
            }
        }
    }
    true
}

/// Solves for one right side, in place, with the factor of the matrix.
fn solve(l: &[f64], b: &mut [f64]) {
    let n = b.len();
    for i in 0..n {
        let sum = l[i * n..][..i].iter().zip(&*b).map(|(l, b)| l * b).sum::<f64>();
        b[i] = (b[i] - sum) / l[i * n + i];
    }
    for i in (0..n).rev() {
        b[i] /= l[i * n + i];
        let solved = b[i];
        (0..i).for_each(|k| b[k] -= l[i * n + k] * solved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_and_a_bend_are_found() {
        let mut rng = Rng::new(7);
        let mut rows = Rows::default();
        for _ in 0..400 {
            let x = [rng.uniform(-2.0, 2.0) as f32, rng.uniform(90.0, 110.0) as f32];
            rows.x.extend(x);
            rows.y.extend([3.0 * x[0] - 0.5 * x[1] + 7.0, x[0].abs()]);
            rows.weight.push(1.0);
        }
        let mut network = fit(&rows, [2, 2], 128, &mut rng).unwrap();
        for _ in 0..100 {
            let x = [rng.uniform(-2.0, 2.0) as f32, rng.uniform(90.0, 110.0) as f32];
            let y = network.forward(&x);
            assert!((y[0] - (3.0 * x[0] - 0.5 * x[1] + 7.0)).abs() < 0.05, "{x:?} gives {y:?}");
            assert!((y[1] - x[0].abs()).abs() < 0.2, "{x:?} gives {y:?}");
        }
    }

    #[test]
    fn constant_columns_and_missing_rows_do_no_harm() {
        let mut rng = Rng::new(1);
        assert!(fit(&Rows::default(), [1, 1], 128, &mut rng).is_none());
        let rows = Rows { x: vec![5.0; 8], y: vec![2.0; 8], weight: vec![1.0; 8] };
        let y = fit(&rows, [1, 1], 128, &mut rng).unwrap().forward(&[5.0])[0];
        assert!((y - 2.0).abs() < 1e-3, "{y}");
    }
}

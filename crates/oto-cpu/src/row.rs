//! One row times a transposed matrix, as each step of a recurrent layer has it: to pack the matrix would take longer than the product. Each
//! number of the result is the product of two stored rows.

use crate::math;
use crate::matmul::{Finish, Side};
use crate::simd::{Isa, simd};
use oto_graph::Activation;

/// The least multiplications of a product that this is faster for.
const LEAST: usize = 1 << 12;
/// Sums beside each other, which the compiler turns into registers.
const SUMS: usize = 64;

/// Whether a product `[m, n]` with sums of length `k` is one.
pub fn is_one(m: usize, n: usize, k: usize, b: Side<'_>) -> bool {
    m == 1 && b.turned && n * k >= LEAST
}

simd! {
    /// `out = finish(a b)`, `[1, n]`; the sums have length `k`, and b is stored `[n, k]`.
    pub fn row_product(a: &[f32], b: Side<'_>, finish: Finish<'_>, k: usize, out: &mut [f32]) = product
}

#[inline(always)]
fn product<I: Isa>(a: &[f32], b: Side<'_>, finish: Finish<'_>, k: usize, out: &mut [f32]) {
    let a = &a[..k];
    for (j, out) in out.iter_mut().enumerate() {
        let sum = dot::<I>(a, &b.values[j * b.columns..][..k]) + finish.bias.map_or(0.0, |bias| bias[j]);
        let sum = match finish.activation {
            Activation::Identity => sum,
            // NaN stays.
            Activation::Relu => {
                if sum < 0.0 {
                    0.0
                } else {
                    sum
                }
            }
            Activation::Tanh => math::tanh::<I>(sum),
        };
        *out = match finish.derivative {
            None | Some((Activation::Identity, _)) => sum,
            Some((Activation::Relu, y)) => {
                if y[j] > 0.0 {
                    sum
                } else {
                    0.0
                }
            }
            Some((Activation::Tanh, y)) => sum * (1.0 - y[j] * y[j]),
        };
    }
}

#[inline(always)]
fn dot<I: Isa>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; SUMS];
    let ((a_all, a_rest), (b_all, b_rest)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
    for (a, b) in a_all.iter().zip(b_all) {
        for i in 0..SUMS {
            sums[i] = I::fma(a[i], b[i], sums[i]);
        }
    }
    for half in [32, 16, 8, 4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    a_rest.iter().zip(b_rest).fold(sums[0], |sum, (a, b)| I::fma(*a, *b, sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matmul::{Scratch, matmul};

    #[test]
    fn a_row_is_what_any_product_is() {
        let some = |len: usize, seed: usize| {
            (0..len).map(|i| ((i * 37 + seed) % 101) as f32 / 101.0 - 0.5).collect::<Vec<_>>()
        };
        for (n, k) in [(64, 64), (1, 4096), (33, 129), (1024, 256), (5, 1000)] {
            let (a, b, bias, y) = (some(k, 1), some(n * k, 2), some(n, 3), some(n, 4));
            let side = Side { values: &b, columns: k, turned: true };
            for activation in [Activation::Identity, Activation::Relu, Activation::Tanh] {
                for derivative in [None, Some((Activation::Relu, &y[..])), Some((Activation::Tanh, &y[..]))] {
                    let finish = Finish { bias: Some(&bias), activation, derivative };
                    let (mut found, mut expected) = (vec![0.0; n], vec![0.0; n]);
                    row_product(&a, side, finish, k, &mut found);
                    let left = Side { values: &a, columns: k, turned: false };
                    matmul(left, side, finish, n, k, &mut expected, &mut Scratch::default());
                    for (j, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        assert!(
                            (found - expected).abs() < 1e-4 * (1.0 + expected.abs()),
                            "[{j}] of {n}, {k}: {found}, {expected} packed"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_visible() {
        let (a, mut b) = (vec![1.0; 64], vec![0.5; 64 * 64]);
        b[3 * 64 + 7] = f32::NAN;
        let side = Side { values: &b, columns: 64, turned: true };
        for activation in [Activation::Identity, Activation::Relu, Activation::Tanh] {
            let mut out = vec![0.0; 64];
            row_product(&a, side, Finish { bias: None, activation, derivative: None }, 64, &mut out);
            assert!(out[3].is_nan() && out.iter().filter(|x| x.is_nan()).count() == 1);
        }
    }
}

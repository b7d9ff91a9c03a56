//! Functions of one number in arithmetic only, so that a loop over them becomes SIMD: the system's own are calls. Errors are
//! below 2 units in the last place (tested); infinities and NaN come out as they should.

use crate::simd::Isa;

/// `max(x, 0)`; NaN stays NaN.
#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if 0.0 > x { 0.0 } else { x }
}

/// `e^x`, 0 below the smallest normal number: x is split into whole powers of two and a rest below ln(2)/2, whose power is a
/// polynomial (Cephes' coefficients).
#[inline(always)]
pub fn exp<I: Isa>(x: f32) -> f32 {
    // Beyond these the result is infinite, or so small that processors have no fast path for it: 0.
    let tiny = x < -87.3;
    let x = if x > 90.0 { 90.0 } else { x };
    let x = if tiny { -87.3 } else { x };
    // Adding 1.5 * 2^23 rounds to a whole number, which is then found in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = I::fma(x, std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let rest = I::fma(whole, -0.693_359_4, x);
    let rest = I::fma(whole, 2.121_944_4e-4, rest);
    let mut p = 1.987_569_2e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = I::fma(p, rest, c);
    }
    let p = I::fma(p, rest * rest, rest) + 1.0;
    // In two factors, because one alone may be out of range where the result is not.
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    let half = n >> 1;
    let result = p * power(half) * power(n - half);
    if tiny { 0.0 } else { result }
}

/// Hyperbolic tangent: a polynomial near 0, where `1 - 2 / (e^2x + 1)` would lose digits (Cephes).
#[inline(always)]
pub fn tanh<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let far = 1.0 - 2.0 / (exp::<I>(2.0 * a) + 1.0);
    let z = x * x;
    let mut p = -5.704_988_7e-3;
    for c in [2.063_909e-2, -5.373_971_6e-2, 0.133_314_42, -0.333_332_8] {
        p = I::fma(p, z, c);
    }
    let near = I::fma(p * z, a, a);
    let y = if a < 0.625 { near } else { far };
    y.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Plain;

    fn units(got: f32, wanted: f64) -> f64 {
        let unit = f64::from((wanted as f32).abs().max(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON);
        (f64::from(got) - wanted).abs() / unit
    }

    #[test]
    fn close_to_the_true_values() {
        let (mut worst_exp, mut worst_tanh) = (0.0f64, 0.0f64);
        for i in -873_000..=880_000 {
            let x = i as f32 * 1e-4;
            worst_exp = worst_exp.max(units(exp::<Plain>(x), f64::from(x).exp()));
            let x = x * 0.1;
            worst_tanh = worst_tanh.max(units(tanh::<Plain>(x), f64::from(x).tanh()));
        }
        assert!(worst_exp < 2.0 && worst_tanh < 2.0, "exp {worst_exp}, tanh {worst_tanh}");
    }

    #[test]
    fn ends() {
        assert_eq!(exp::<Plain>(0.0), 1.0);
        assert_eq!(exp::<Plain>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<Plain>(-88.0), 0.0);
        assert_eq!(exp::<Plain>(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp::<Plain>(89.0), f32::INFINITY);
        assert!(
            exp::<Plain>(f32::NAN).is_nan() && tanh::<Plain>(f32::NAN).is_nan() && relu(f32::NAN).is_nan()
        );
        assert_eq!(tanh::<Plain>(f32::INFINITY), 1.0);
        assert_eq!(tanh::<Plain>(f32::NEG_INFINITY), -1.0);
        assert!(tanh::<Plain>(-0.0).is_sign_negative());
    }
}

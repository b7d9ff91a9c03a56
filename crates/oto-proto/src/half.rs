//! IEEE 754 half precision, the sixteen bits of an `f16` component.

/// Widens a half to single precision; exact for every bit pattern.
pub fn to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half) & 0x3ff;
    match exponent {
        // Zero and subnormals: fraction * 2^-24 is exact in single precision.
        0 => f32::from_bits((fraction as f32 / 16_777_216.0).to_bits() | sign),
        0x1f => f32::from_bits(sign | 0x7f80_0000 | (fraction << 13)),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (fraction << 13)),
    }
}

/// Rounds to the nearest half, ties to even; numbers beyond 65,504 become infinite, a NaN stays one.
pub(crate) fn from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    if magnitude < 0x3880_0000 {
        // Below 2^-14 the unit in the last place is constant: let single precision do the rounding.
        let steps = f32::from_bits(magnitude) * 16_777_216.0;
        return sign | steps.round_ties_even() as u16;
    }
    let rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
    sign | ((rounded - 0x3800_0000) >> 13) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_the_way_through_single_precision() {
        for half in 0..=u16::MAX {
            let wide = to_f32(half);
            if wide.is_nan() {
                assert!(to_f32(from_f32(wide)).is_nan());
            } else {
                assert_eq!(from_f32(wide), half, "{half:#06x} is {wide}");
            }
        }
    }

    #[test]
    fn known_values() {
        let pairs = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65_504.0),
            (0x0001, 2f32.powi(-24)),
            (0x3555, 0.333_251_95),
        ];
        for (half, value) in pairs {
            assert_eq!(to_f32(half), value);
        }
        assert_eq!(to_f32(0x7c00), f32::INFINITY);
        assert!(to_f32(0x7c01).is_nan());
    }

    #[test]
    fn rounds_to_the_nearest_and_ties_to_even() {
        for half in 0..0x7bff_u16 {
            let (low, high) = (to_f32(half), to_f32(half + 1));
            let middle = (f64::from(low) + f64::from(high)) / 2.0;
            let even = if half % 2 == 0 { half } else { half + 1 };
            assert_eq!(from_f32(middle as f32), even);
            assert_eq!(from_f32((middle as f32).next_down()), half);
            assert_eq!(from_f32((middle as f32).next_up()), half + 1);
        }
        assert_eq!(from_f32(65_519.99), 0x7bff);
        assert_eq!(from_f32(65_520.0), 0x7c00);
    }
}

//! The double nearest to a decimal number, by plain arithmetic on whole numbers of any length. The standard library's way is
//! faster and brings a table of ten kilobytes, which no compression makes smaller.

/// More digits than these do not change a double, but for whether there is anything but zeros among them: halves between
/// two doubles have at most 767.
const MAX_DIGITS: usize = 800;

/// A whole number from 0: 32 bits each, the lowest first.
pub struct Big(pub Vec<u32>);

impl Big {
    /// Gives `self * factor + summand`.
    pub fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for limb in &mut self.0 {
            let product = u64::from(*limb) * u64::from(factor) + carry;
            (*limb, carry) = (product as u32, product >> 32);
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    /// Gives the remainder of the division, and keeps no zeros at the top.
    pub fn divide(&mut self, divisor: u32) -> u32 {
        let mut rest = 0;
        for limb in self.0.iter_mut().rev() {
            let dividend = rest << 32 | u64::from(*limb);
            (*limb, rest) = ((dividend / u64::from(divisor)) as u32, dividend % u64::from(divisor));
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        rest as u32
    }

    fn bit(&self, at: usize) -> bool {
        self.0.get(at / 32).is_some_and(|limb| limb >> (at % 32) & 1 == 1)
    }

    /// Its number of bits.
    fn length(&self) -> usize {
        let top = self.0.iter().rposition(|limb| *limb != 0);
        top.map_or(0, |top| top * 32 + 32 - self.0[top].leading_zeros() as usize)
    }
}

/// The double nearest to a number of JSON's form; of two equally near ones the even one, infinity beyond the largest.
pub fn nearest(text: &str) -> f64 {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let magnitude = magnitude(text);
    if negative { -magnitude } else { magnitude }
}

/// A number that a person wrote, as the standard library reads it, without names: also `+1`, `.5` and `1.`.
pub fn number(text: &str) -> Option<f64> {
    let unsigned = |text: &str| text.strip_prefix(['+', '-']).unwrap_or(text).to_string();
    let (digits, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (digits, power) = (unsigned(digits).replacen('.', "", 1), unsigned(power));
    let whole = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (whole(&digits) && whole(&power)).then(|| nearest(text.strip_prefix('+').unwrap_or(text)))
}

fn magnitude(text: &str) -> f64 {
    let (digits, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let mut number = Big(Vec::new());
    let (mut kept, mut rest, mut exponent, mut fraction) = (0, false, 0_i64, false);
    for byte in digits.bytes() {
        if byte == b'.' {
            fraction = true;
            continue;
        }
        let digit = u32::from(byte.wrapping_sub(b'0'));
        let keep = kept < MAX_DIGITS;
        if keep {
            number.multiply_add(10, digit);
            kept += usize::from(kept > 0 || digit > 0);
        } else {
            rest |= digit > 0;
        }
        exponent += i64::from(!keep) - i64::from(fraction);
    }
    // What does not fit is as large or small as any.
    let far = if power.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 };
    exponent = exponent.saturating_add(power.parse().unwrap_or(far).clamp(i64::MIN / 2, i64::MAX / 2));
    match exponent.saturating_add(kept as i64) {
        _ if kept == 0 => 0.0,
        311.. => f64::INFINITY,
        ..-330 => 0.0,
        _ => scaled(number, exponent, rest),
    }
}

/// `number * 10^exponent`, and a little more where there is a `rest`.
fn scaled(mut number: Big, exponent: i64, mut rest: bool) -> f64 {
    let mut bits_below = 0;
    if exponent >= 0 {
        tens(exponent.unsigned_abs()).for_each(|ten| number.multiply_add(ten, 0));
    } else {
        // So many bits below the point that division leaves 64 of them, as 10 < 2^(7/2).
        let limbs = exponent.unsigned_abs() as usize * 7 / 64 + 3;
        number.0.splice(0..0, std::iter::repeat_n(0, limbs));
        tens(exponent.unsigned_abs()).for_each(|ten| rest |= number.divide(ten) != 0);
        bits_below = limbs * 32;
    }
    round(&number, bits_below as i64, rest)
}

/// Powers of ten whose product is `10^exponent`, each as large as a limb allows: a megabyte of small numbers takes its time already.
fn tens(exponent: u64) -> impl Iterator<Item = u32> {
    (0..exponent.div_ceil(9)).map(move |i| 10_u32.pow((exponent - 9 * i).min(9) as u32))
}

/// `number / 2^bits_below`, and a little more where there is a `rest`.
fn round(number: &Big, bits_below: i64, mut rest: bool) -> f64 {
    // The value of the double's last bit is 2^last, at least 2^-1074.
    let last = (number.length() as i64 - bits_below - 53).max(-1074);
    let dropped = usize::try_from(last + bits_below).unwrap_or(0);
    let mut mantissa = 0_u64;
    for at in (0..53).rev() {
        mantissa = mantissa << 1 | u64::from(number.bit(dropped + at));
    }
    let last = dropped as i64 - bits_below;
    if dropped > 0 && number.bit(dropped - 1) {
        rest |= (0..dropped - 1).any(|at| number.bit(at));
        mantissa += u64::from(rest || mantissa & 1 == 1);
    }
    // Both factors and the product are exact.
    mantissa as f64 * power_of_two(last)
}

/// From 2^-1074 on; infinity beyond 2^1023.
fn power_of_two(exponent: i64) -> f64 {
    match exponent {
        ..-1022 => f64::from_bits(1 << (exponent + 1074)),
        -1022..1024 => f64::from_bits(((exponent + 1023) as u64) << 52),
        _ => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::{nearest, number};
    use proptest::prelude::*;

    #[test]
    fn a_person_s_number_is_that_of_the_standard_library() {
        for text in ["1", "+1.5", "-.5", "2.", "1e3", "1E-3", "1.5e+3", "1e999", "-0"] {
            assert_eq!(number(text), text.parse().ok(), "{text}");
        }
        for text in
            ["", ".", "+", "-", "+-1", "1.2.3", "e5", "1e", "1e+", "1e1.5", "0x1", "1 ", "nan", "inf", "--1"]
        {
            assert_eq!(number(text), None, "{text}");
        }
    }

    fn same(text: &str) {
        let reference = text.parse::<f64>().unwrap();
        assert_eq!(nearest(text).to_bits(), reference.to_bits(), "{text}: {} or {reference}", nearest(text));
    }

    proptest! {
        #[test]
        fn as_the_standard_library(bits in any::<u64>(), mantissa in any::<u64>(), exponent in -360..330_i32) {
            let double = f64::from_bits(bits);
            prop_assume!(double.is_finite());
            same(&format!("{double:e}"));
            same(&format!("{double}"));
            same(&format!("{mantissa}e{exponent}"));
            same(&format!("-{mantissa}.{mantissa}E+{}", exponent.abs()));
        }

        #[test]
        fn halfway_between_two(bits in 0..0x7fe0_0000_0000_0000_u64, more in "[0-9]{0,3}") {
            let (low, high) = (f64::from_bits(bits), f64::from_bits(bits + 1));
            // Exact: a half has at most 1075 digits behind the point.
            let half = match high - low {
                gap if gap < 1e-320 => format!("{:.1080}", low),
                gap => format!("{:.1080}", low + gap / 2.0),
            };
            same(&half);
            same(&format!("{half}{more}"));
        }
    }

    #[test]
    fn at_the_edges() {
        for text in [
            "0",
            "-0",
            "0.0e999999999999999999999",
            "1e-999999999999999999999",
            "1e999999999999999999999",
            "1e-324",
            "2.47e-324",
            "2.4703282292062327208e-324",
            "2.4703282292062328e-324",
            "4.9e-324",
            "2.2250738585072011e-308",
            "2.2250738585072014e-308",
            "1.7976931348623157e308",
            "1.7976931348623158e308",
            "1.7976931348623159e308",
            "179769313486231580793728971405303415079934132710037826936173778980444968292764750946649017977587207096330286416692887910946555547851940402630657488671505820681908902000708383676273854845817711531764475730270069855571366959622842914819860834936475292719074168444365510704342711559699508093042880",
            "9007199254740993",
            "9007199254740993.0000000000000000000000000001",
            "9007199254740992.9999999999",
            "123456789.123456789e-5",
        ] {
            same(text);
        }
        same(&format!("9007199254740993.{}1", "0".repeat(5000)));
        same(&format!("0.{}1e4000", "0".repeat(4000)));
        same(&format!("{}e-3990", "7".repeat(4000)));
    }
}

//! The shortest decimal number that is read as a given double, by trying few digits before many. The standard library's way is
//! faster, and twice the size of whatever else is in this crate.

use crate::decimal::{Big, nearest};
use std::fmt::{self, Write};

/// A number as `{:?}` shows it: `0.1`, `-3.0`, `1e300`, `NaN`. An `f32` has no more digits than it needs as one.
pub fn shown<T: Copy + Into<f64>>(number: &T) -> String {
    text((*number).into(), size_of::<T>() == size_of::<f32>())
}

/// A number in a sentence, without `.0` where it is whole. `cargo xtask` puts this in the place of the standard library's text of a
/// number in web packages.
#[derive(Clone, Copy, Debug)]
pub struct Shown(pub f64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = shown(&self.0);
        f.write_str(text.strip_suffix(".0").unwrap_or(&text))
    }
}

/// Several of them: `0.1, -3.0`. The standard library's text of a number is ten kilobytes of a page's download.
pub fn shown_list<T: Copy + Into<f64>>(numbers: &[T]) -> String {
    numbers.iter().map(shown).collect::<Vec<_>>().join(", ")
}

#[inline(never)]
fn text(number: f64, single: bool) -> String {
    let mut text = String::new();
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_sign_negative() {
        text.push('-');
    }
    let magnitude = number.abs();
    if magnitude == f64::INFINITY {
        text.push_str("inf");
    } else if magnitude < 1e6 && magnitude.fract() == 0.0 {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}.0", magnitude as u64);
    } else {
        let (digits, point) = shortest(magnitude, single);
        place(&mut text, &digits, point);
    }
    text
}

/// The fewest digits, and how many of them lie before the point (less than 1 where zeros follow the point).
fn shortest(magnitude: f64, single: bool) -> (String, i32) {
    let exact = leading(magnitude);
    // A number that was made of so few digits has them still, unless it is too small for its format to be precise.
    let (from, to) = if single { (6, 9) } else { (15, 17) };
    let from = if magnitude < 1e-37 { 1 } else { from };
    let tried = (from..to).map(|length| rounded(&exact, length));
    let mut enough =
        tried.filter(|(digits, point)| is_read_as(&format!(".{digits}e{point}"), magnitude, single));
    enough.next().unwrap_or_else(|| rounded(&exact, to))
}

/// Whether a text is read as this number, as an `f32` if it is a `single` one.
fn is_read_as(text: &str, magnitude: f64, single: bool) -> bool {
    let read = nearest(text);
    // Half way between two of single precision, who rounds once may read another one than who rounds twice.
    let half_way = read.to_bits() & 0x1fff_ffff == 0x1000_0000;
    if single { f64::from(read as f32) == magnitude && !half_way } else { read == magnitude }
}

/// The digits that a number begins with, 18 or more, and how many lie before its point.
fn leading(magnitude: f64) -> (Vec<u8>, i32) {
    let (biased, fraction) = (magnitude.to_bits() >> 52, magnitude.to_bits() & ((1 << 52) - 1));
    let mantissa = if biased == 0 { fraction } else { fraction | 1 << 52 };
    let exponent = biased.max(1) as i32 - 1075;
    // The number is at least 2^low, and log10(2) is a little more than 0.3. After so many tens 18 digits are whole.
    let low = exponent + 63 - mantissa.leading_zeros() as i32;
    let tens = (18 - (low * 301).div_euclid(1000).min(low * 302 / 1000)).max(0);
    let mut number = Big(vec![mantissa as u32, (mantissa >> 32) as u32]);
    (0..tens).for_each(|_| number.multiply_add(10, 0));
    (0..exponent).for_each(|_| number.multiply_add(2, 0));
    (exponent..0).for_each(|_| _ = number.divide(2));
    let mut digits = Vec::new();
    while !number.0.is_empty() {
        digits.push(number.divide(10) as u8);
    }
    digits.reverse();
    let point = digits.len() as i32 - tens;
    (digits, point)
}

/// So many digits of them at most, without zeros at the end.
fn rounded((digits, point): &(Vec<u8>, i32), length: usize) -> (String, i32) {
    let mut kept = digits[..length].to_vec();
    let mut up = digits[length] >= 5;
    while up || kept.last() == Some(&0) {
        match kept.pop() {
            Some(digit) if up && digit < 9 => {
                kept.push(digit + 1);
                up = false;
            }
            Some(_) => {}
            None => return ("1".into(), point + 1),
        }
    }
    (kept.iter().map(|digit| char::from(b'0' + digit)).collect(), *point)
}

fn place(text: &mut String, digits: &str, point: i32) {
    let zeros = |count: i32| "0".repeat(count.max(0) as usize);
    let whole = digits.len().min(point.max(0) as usize);
    // Writing to a String cannot fail.
    let _ = match point {
        ..-3 | 17.. => {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            write!(text, "{first}{dot}{rest}e{}", point - 1)
        }
        ..=0 => write!(text, "0.{}{digits}", zeros(-point)),
        _ if whole == digits.len() => write!(text, "{digits}{}.0", zeros(point - whole as i32)),
        _ => write!(text, "{}.{}", &digits[..whole], &digits[whole..]),
    };
}

#[cfg(test)]
mod tests {
    use super::{Shown, shown};
    use proptest::prelude::*;

    #[test]
    fn whole_numbers_of_a_sentence_have_no_point() {
        assert_eq!([0.0, -3.0, 1e-6, 0.5].map(|x| Shown(x).to_string()), ["0", "-3", "1e-6", "0.5"]);
    }

    /// Between a power of two and the number below it is half the usual room: there the standard library finds a digit less at times.
    fn check_double(double: f64) {
        let (text, expected) = (shown(&double), format!("{double:?}"));
        let power = double.to_bits() & ((1 << 52) - 1) == 0;
        let same = text == expected || power && text.parse::<f64>() == Ok(double);
        assert!(same || double.is_nan(), "{text}, expected {expected}");
    }

    fn check_single(single: f32) {
        let (text, expected) = (shown(&single), format!("{single:?}"));
        let power = single.to_bits() & ((1 << 23) - 1) == 0;
        // Exactly half way between two of them, which is left to those who round once.
        let half_way = expected.parse::<f64>().unwrap().to_bits() & 0x1fff_ffff == 0x1000_0000;
        let same = text == expected || (power || half_way) && text.parse::<f32>() == Ok(single);
        assert!(same || single.is_nan(), "{text}, expected {expected}");
    }

    proptest! {
        #[test]
        fn as_the_standard_library(bits in any::<u64>(), digits in 0..100_000_u32, power in -25..25_i32) {
            check_double(f64::from_bits(bits));
            check_double(f64::from_bits(bits >> 12));
            check_single(f32::from_bits(bits as u32));
            check_single(f32::from_bits(bits as u32 >> 9));
            check_double(f64::from(digits) * 10_f64.powi(power));
            check_single(digits as f32 * 10_f32.powi(power));
            check_double(format!("{digits}e{power}").parse().unwrap());
            check_single(format!("-{digits}e{power}").parse().unwrap());
        }
    }

    #[test]
    fn at_the_edges() {
        for exponent in -1074..1024 {
            let power = 2_f64.powi(exponent);
            [power, power.next_down(), power.next_up(), -power].into_iter().for_each(check_double);
        }
        for exponent in -149..128 {
            let power = 2_f32.powi(exponent);
            [power, power.next_down(), power.next_up(), -power].into_iter().for_each(check_single);
        }
        for double in
            [0.0, -0.0, 1e-5, 9.999e-6, 1e15, 1e16, 9_999_999_999_999_998.0, 1e23, f64::MAX, f64::INFINITY]
        {
            check_double(double);
            check_single(double as f32);
        }
        assert_eq!(shown(&f64::NAN), "NaN");
        assert_eq!(shown(&-f32::INFINITY), "-inf");
    }
}

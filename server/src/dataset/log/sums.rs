//! CRC32C of any range of some bytes in few steps, however long it is.
//!
//! A sum is linear: that of two texts one after the other is the second's, and, bit by bit, what becomes of the first's over so many
//! bytes. So a range's follows from the sums of what ends where it begins and where it ends, which are kept for every few bytes.

use std::array::from_fn;
use std::ops::Range;

/// From one sum that is kept to the next.
const BLOCK: usize = 64;

/// What is known of some bytes.
pub(super) struct Sums<'a> {
    bytes: &'a [u8],
    /// The sums of the first blocks: of none, of one, of two.
    beginnings: Vec<u32>,
    /// What becomes of each bit of a sum over 1, 2, 4, 8 ... bytes.
    powers: Vec<[u32; 32]>,
    /// Bytes that were summed so far.
    pub hashed: u64,
}

impl<'a> Sums<'a> {
    /// Goes through all the bytes once.
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut beginnings = vec![0];
        for block in bytes.chunks_exact(BLOCK) {
            beginnings.push(crc32c::crc32c_append(beginnings[beginnings.len() - 1], block));
        }
        let over = |length| from_fn(|bit| crc32c::crc32c_combine(1 << bit, 0, length));
        let powers = (0..usize::BITS - bytes.len().leading_zeros()).map(|power| over(1 << power)).collect();
        Sums { bytes, beginnings, powers, hashed: bytes.len() as u64 }
    }

    /// The sum of a text, which is given by its own, and a range of the bytes behind it.
    pub fn appended(&mut self, text: u32, range: Range<usize>) -> u32 {
        let [before, through] = [range.start, range.end].map(|end| self.of_first(end));
        self.over(text ^ before, range.len()) ^ through
    }

    fn of_first(&mut self, end: usize) -> u32 {
        let blocks = end / BLOCK;
        let rest = &self.bytes[blocks * BLOCK..end];
        self.hashed += rest.len() as u64;
        crc32c::crc32c_append(self.beginnings[blocks], rest)
    }

    /// What becomes of a sum over so many bytes.
    fn over(&self, sum: u32, length: usize) -> u32 {
        let powers = self.powers.iter().enumerate().filter(|(power, _)| length >> power & 1 == 1);
        powers.fold(sum, |sum, (_, becomes)| {
            let bits = becomes.iter().enumerate().filter(|(bit, _)| sum >> bit & 1 == 1);
            bits.fold(0, |sum, (_, becomes)| sum ^ becomes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_sum_of_a_range_is_that_of_its_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000), text in prop::collection::vec(any::<u8>(), 0..40), at in 0.0..=1.0f64, share in 0.0..=1.0f64) {
            let start = (bytes.len() as f64 * at) as usize;
            let end = start + ((bytes.len() - start) as f64 * share) as usize;
            let mut sums = Sums::new(&bytes);
            let before = sums.hashed;
            let expected = crc32c::crc32c(&[&text[..], &bytes[start..end]].concat());
            prop_assert_eq!(sums.appended(crc32c::crc32c(&text), start..end), expected);
            prop_assert!(sums.hashed - before < 2 * BLOCK as u64);
        }
    }
}

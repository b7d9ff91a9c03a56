//! Saved games: a game's whole numbers, in a fixed order, and the check of each one's range when they are read.

/// Reads numbers one after the other. Every method gives `None` for a number that is missing, not whole or out of its range.
pub(crate) struct Numbers<'a>(std::slice::Iter<'a, f64>);

impl<'a> Numbers<'a> {
    pub(crate) fn new(numbers: &'a [f64]) -> Self {
        Self(numbers.iter())
    }

    /// Numbers that were not read.
    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }

    /// A whole number from `low` to `high`.
    pub(crate) fn whole(&mut self, low: i32, high: i32) -> Option<i32> {
        let number = *self.0.next()?;
        let inside = f64::from(low) <= number && number <= f64::from(high) && number.fract() == 0.0;
        inside.then_some(number as i32)
    }

    /// A word of 32 bits.
    pub(crate) fn word(&mut self) -> Option<u32> {
        let number = *self.0.next()?;
        let inside = (0.0..=f64::from(u32::MAX)).contains(&number) && number.fract() == 0.0;
        inside.then_some(number as u32)
    }

    /// A coordinate of the grid.
    pub(crate) fn coordinate(&mut self) -> Option<i32> {
        self.whole(0, super::SIDE - 1)
    }

    /// -1 or 1.
    pub(crate) fn sign(&mut self) -> Option<i32> {
        self.whole(-1, 1).filter(|sign| *sign != 0)
    }

    /// 0 or 1.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        Some(self.whole(0, 1)? == 1)
    }
}

/// Appends whole numbers.
pub(crate) fn put<const N: usize>(to: &mut Vec<f64>, numbers: [i32; N]) {
    to.extend(numbers.map(f64::from));
}

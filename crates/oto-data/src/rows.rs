//! Rows of observations in memory: numbers, or bytes where images are made of them, a quarter of the room.

use oto_env::Space;
use std::borrow::Cow;

/// Row-major `[rows, width]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    /// Any numbers.
    Numbers(Vec<f32>),
    /// Whole numbers from 0 to 255.
    Bytes(Vec<u8>),
}

impl Default for Rows {
    fn default() -> Self {
        Self::Numbers(Vec::new())
    }
}

impl From<Vec<f32>> for Rows {
    fn from(numbers: Vec<f32>) -> Self {
        Self::Numbers(numbers)
    }
}

impl Rows {
    /// No rows yet, of observations of this space: bytes where all of its numbers go from 0 to 255.
    pub fn of(space: &Space) -> Self {
        match space {
            Space::Box { low, high } if low.iter().all(|x| *x == 0.0) && high.iter().all(|x| *x == 255.0) => {
                Self::Bytes(Vec::new())
            }
            _ => Self::default(),
        }
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a row. With the first number that is no byte all become numbers.
    pub fn push(&mut self, row: &[f32]) {
        if matches!(self, Self::Bytes(_)) && row.iter().any(|x| f32::from(*x as u8) != *x) {
            *self = Self::Numbers(self.numbers().into_owned());
        }
        match self {
            Self::Numbers(numbers) => numbers.extend_from_slice(row),
            Self::Bytes(bytes) => bytes.extend(row.iter().map(|x| *x as u8)),
        }
    }

    /// All numbers.
    pub fn numbers(&self) -> Cow<'_, [f32]> {
        self.part(0..self.len())
    }

    /// Row `i` of this width.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, i: usize, width: usize) -> Cow<'_, [f32]> {
        self.part(i * width..(i + 1) * width)
    }

    fn part(&self, range: std::ops::Range<usize>) -> Cow<'_, [f32]> {
        match self {
            Self::Numbers(numbers) => Cow::Borrowed(&numbers[range]),
            Self::Bytes(bytes) => bytes[range].iter().map(|byte| f32::from(*byte)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_bytes_until_one_is_not() {
        let mut rows = Rows::of(&Space::uniform(2, 0.0, 255.0));
        rows.push(&[0.0, 255.0]);
        rows.push(&[7.0, 8.0]);
        assert_eq!(rows, Rows::Bytes(vec![0, 255, 7, 8]));
        assert_eq!((rows.len(), &rows.row(1, 2)[..]), (4, &[7.0, 8.0][..]));
        for odd in [0.5, -1.0, 256.0, f32::NAN] {
            let mut rows = rows.clone();
            rows.push(&[1.0, odd]);
            let Rows::Numbers(numbers) = rows else { panic!("{odd} is no byte") };
            assert_eq!(numbers[..5], [0.0, 255.0, 7.0, 8.0, 1.0]);
        }
        assert_eq!(Rows::of(&Space::uniform(2, 0.0, 1.0)), Rows::default());
    }
}

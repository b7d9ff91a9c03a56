//! Random numbers that a program reads beside its batch, by its data inputs' names.

use oto_env::rng::Rng;

/// The first letters of the names of those that are not normal: evenly from -1 to 1.
pub(crate) const UNIFORM: &str = "uniform";
/// The input that holds the places of some members of an ensemble, drawn without replacement.
#[cfg(feature = "every-algorithm")]
pub(crate) const SUBSET: &str = "subset";

/// Drawn anew for each update, into the same memory.
pub(crate) struct Noise {
    inputs: Vec<(&'static str, Vec<f32>)>,
    /// All places of an ensemble, to be shuffled, and the first of them afterwards.
    order: Vec<usize>,
    subset: Vec<f32>,
}

impl Noise {
    /// For inputs of so many rows each, all `[rows, width]`.
    pub fn new(inputs: impl IntoIterator<Item = (&'static str, usize)>, width: usize) -> Self {
        let inputs = inputs.into_iter().map(|(name, rows)| (name, vec![0.0; rows * width])).collect();
        Self { inputs, order: Vec::new(), subset: Vec::new() }
    }

    /// With one more input, of this width.
    #[cfg(feature = "every-algorithm")]
    pub fn and(mut self, name: &'static str, numbers: usize) -> Self {
        self.inputs.push((name, vec![0.0; numbers]));
        self
    }

    /// With the input [`SUBSET`]: `count` of `all` places.
    #[cfg(feature = "every-algorithm")]
    pub fn with_subset(self, all: usize, count: usize) -> Self {
        Self { order: (0..all).collect(), subset: vec![0.0; count.min(all)], ..self }
    }

    /// Draws all of them, in their order.
    pub fn draw(&mut self, rng: &mut Rng) {
        for (name, values) in &mut self.inputs {
            match name.starts_with(UNIFORM) {
                true => values.iter_mut().for_each(|v| *v = rng.uniform(-1.0, 1.0) as f32),
                false => values.iter_mut().for_each(|v| *v = rng.normal() as f32),
            }
        }
        let all = self.order.len();
        self.order.iter_mut().enumerate().for_each(|(i, place)| *place = i);
        for (i, place) in self.subset.iter_mut().enumerate() {
            let other = i + rng.below((all - i) as u32) as usize;
            self.order.swap(i, other);
            *place = self.order[i] as f32;
        }
    }

    /// What was drawn for an input.
    pub fn input(&self, name: &str) -> Option<&[f32]> {
        #[cfg(feature = "every-algorithm")]
        if name == SUBSET {
            return Some(&self.subset);
        }
        self.inputs.iter().find(|(n, _)| *n == name).map(|(_, values)| &values[..])
    }
}

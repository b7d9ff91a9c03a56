//! Random numbers that a program reads beside its batch, by its data inputs' names.

use oto_env::rng::Rng;

/// The only ones that are not normal: evenly from -1 to 1.
pub(crate) const UNIFORM: &str = "uniform";

/// Drawn anew for each update, into the same memory.
pub(crate) struct Noise(Vec<(&'static str, Vec<f32>)>);

impl Noise {
    /// For inputs of so many rows each, all `[rows, width]`.
    pub fn new(inputs: impl IntoIterator<Item = (&'static str, usize)>, width: usize) -> Self {
        Self(inputs.into_iter().map(|(name, rows)| (name, vec![0.0; rows * width])).collect())
    }

    /// Draws all of them, in their order.
    pub fn draw(&mut self, rng: &mut Rng) {
        for (name, values) in &mut self.0 {
            match *name {
                UNIFORM => values.iter_mut().for_each(|v| *v = rng.uniform(-1.0, 1.0) as f32),
                _ => values.iter_mut().for_each(|v| *v = rng.normal() as f32),
            }
        }
    }

    /// What was drawn for an input.
    pub fn input(&self, name: &str) -> Option<&[f32]> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, values)| &values[..])
    }
}

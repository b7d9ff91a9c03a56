//! Uniform replay: every transition of all buffers with the same probability, with replacement.

use super::Batch;
use super::sampler::{Request, Sampler};
use oto_env::rng::Rng;

/// Every transition with the same probability.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uniform;

impl Sampler for Uniform {
    fn sample(&mut self, request: &Request<'_>, rng: &mut Rng, batch: &mut Batch) {
        batch.clear();
        request.choose_uniformly(request.size, rng, batch);
        batch.fill(request.buffers, rng);
    }
}

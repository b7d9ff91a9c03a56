//! Combined experience replay (Zhang and Sutton 2017, "A Deeper Look at Experience Replay", section 5; Cao et al. 2022, section II-C):
//! B - 1 transitions are sampled uniformly, and the newest one is always added.

use super::Batch;
use super::sampler::{Request, Sampler};
use oto_env::rng::Rng;

/// Uniform replay with the newest transition of the first buffer in every batch, as its last row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Combined;

impl Sampler for Combined {
    fn sample(&mut self, request: &Request<'_>, rng: &mut Rng, batch: &mut Batch) {
        batch.clear();
        match request.buffers[0].newest() {
            Some(newest) => {
                request.choose_uniformly(request.size - 1, rng, batch);
                batch.choose(0, newest);
            }
            None => request.choose_uniformly(request.size, rng, batch),
        }
        batch.fill(request.buffers, rng);
    }
}

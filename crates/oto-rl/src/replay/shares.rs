//! Fixed shares of two buffers in every batch: the run's own transitions, and recorded ones. A half of each is "symmetric sampling" of
//! RLPD (Ball et al. 2023, section 4.1), and what Cal-QL and PEX do online.

use super::Batch;
use super::sampler::{Request, Sampler};
use oto_env::rng::Rng;

/// A fixed share of every batch comes from the second buffer, the rest from the first; uniformly within each.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    recorded: f64,
}

impl Shares {
    /// With this share of recorded transitions, from 0 to 1. Rows are whole: a share of 0.5 of 5 rows is 3 rows.
    pub fn new(recorded: f64) -> Self {
        Self { recorded: oto_env::within(recorded, 0.0, 1.0) }
    }

    /// The number of rows of a batch from the second buffer: all or none if the other buffer is empty.
    fn recorded_rows(&self, request: &Request<'_>) -> usize {
        let own = !request.buffers[0].is_empty();
        match request.buffers.get(1).is_some_and(|recorded| !recorded.is_empty()) {
            true if own => (self.recorded * request.size as f64).round() as usize,
            true => request.size,
            false => 0,
        }
    }
}

impl Sampler for Shares {
    fn sample(&mut self, request: &Request<'_>, rng: &mut Rng, batch: &mut Batch) {
        let recorded = self.recorded_rows(request);
        batch.clear();
        for (buffer, rows) in
            [request.size - recorded, recorded].into_iter().enumerate().filter(|(_, rows)| *rows > 0)
        {
            let all = request.buffers[buffer].len() as u32;
            (0..rows).for_each(|_| batch.choose(buffer, rng.below(all) as usize));
        }
        batch.fill(request.buffers, rng);
    }
}

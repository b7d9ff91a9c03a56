//! Online-offline replay of adaptive policy learning ("Adaptive Policy Learning for Offline-to-Online Reinforcement Learning", Zheng et al.
//! 2023): each batch is of one source, so that a program can treat it as a whole.

use super::Batch;
use super::sampler::{Request, Sampler};
use oto_env::rng::Rng;

/// A batch of recorded transitions with some probability, else of the run's own once there are enough.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    recorded: f64,
    own_from: u64,
}

impl Whole {
    /// With this probability of a recorded batch, and this number of transitions of the run's own before one of them.
    pub fn new(recorded: f64, own_from: u64) -> Self {
        Self { recorded: oto_env::within(recorded, 0.0, 1.0), own_from }
    }

    /// The buffer of a batch, where `draw` is from \[0, 1).
    fn buffer(&self, request: &Request<'_>, draw: f64) -> usize {
        let held = |i: usize| request.buffers.get(i).map_or(0, |buffer| buffer.len());
        match (held(0), held(1)) {
            (_, 0) => 0,
            (own, _) if own == 0 || (own as u64) < self.own_from => 1,
            _ => usize::from(draw < self.recorded),
        }
    }
}

impl Sampler for Whole {
    fn sample(&mut self, request: &Request<'_>, rng: &mut Rng, batch: &mut Batch) {
        let buffer = self.buffer(request, rng.f64());
        let all = request.buffers[buffer].len() as u32;
        batch.clear();
        (0..request.size).for_each(|_| batch.choose(buffer, rng.below(all) as usize));
        batch.fill(request.buffers, rng);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Replay;

    #[test]
    fn a_batch_is_of_one_source() {
        let buffer = |stored: usize, source| {
            let mut replay = Replay::new(64, [1, 1], 0, 1, 0.9);
            replay.set_source(source);
            (0..stored).for_each(|_| replay.push(&[0.0], &[0.0], 0.0, &[0.0], false, false, |_, _| {}));
            replay
        };
        let (rng, mut batch) = (&mut Rng::new(1), Batch::default());
        let mut share = |own: usize, recorded: usize| {
            let buffers = [&buffer(own, 0.0), &buffer(recorded, 1.0)];
            let mut whole = Whole::new(0.25, 10);
            let mut of_recorded = 0;
            for update in 0..400 {
                whole.sample(&Request { buffers: &buffers, size: 3, update, step: 0 }, rng, &mut batch);
                assert!(batch.source.iter().all(|source| *source == batch.source[0]));
                of_recorded += batch.source[0] as u32;
            }
            f64::from(of_recorded) / 400.0
        };
        assert_eq!([share(9, 5), share(0, 5), share(20, 0)], [1.0, 1.0, 0.0]);
        assert!((share(10, 5) - 0.25).abs() < 0.1);
    }
}

//! The sampling of MOORe (Mao et al. 2022), which forgets recorded data: a recorded transition has the priority `1 / (rate epoch)`, one of the
//! run's own the priority 1 ([`crate::losses::balanced_replay::forgetting_priority`]).

use super::Batch;
use super::sampler::{Request, Sampler};
use crate::losses::balanced_replay::forgetting_priority;
use oto_env::rng::Rng;

/// Recorded transitions less and less, the run's own always alike.
#[derive(Clone, Copy, Debug)]
pub struct Forgetting {
    rate: f64,
    epoch: u64,
}

impl Forgetting {
    /// With this rate, and this number of environment steps in an epoch.
    pub fn new(rate: f64, epoch: u64) -> Self {
        Self { rate, epoch: epoch.max(1) }
    }

    /// The probability of a recorded row at an environment's step.
    fn recorded(&self, request: &Request<'_>) -> f64 {
        let held = |i: usize| request.buffers.get(i).map_or(0, |buffer| buffer.len()) as f64;
        let epoch = request.step / self.epoch + 1;
        let [own, recorded] = [true, false].map(|online| forgetting_priority(online, self.rate, epoch));
        let (own, recorded) = (held(0) * own, held(1) * recorded);
        if recorded == 0.0 { 0.0 } else { recorded / (own + recorded) }
    }
}

impl Sampler for Forgetting {
    fn sample(&mut self, request: &Request<'_>, rng: &mut Rng, batch: &mut Batch) {
        let recorded = self.recorded(request);
        batch.clear();
        for _ in 0..request.size {
            let buffer = usize::from(rng.f64() < recorded);
            batch.choose(buffer, rng.below(request.buffers[buffer].len() as u32) as usize);
        }
        batch.fill(request.buffers, rng);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Replay;

    #[test]
    fn recorded_transitions_are_forgotten() {
        let buffer = |stored: usize| {
            let mut replay = Replay::new(64, [1, 1], 0, 1, 0.9);
            (0..stored).for_each(|_| replay.push(&[0.0], &[0.0], 0.0, &[0.0], false, false, |_, _| {}));
            replay
        };
        let forgetting = Forgetting::new(0.5, 100);
        let share = |own: usize, recorded: usize, step| {
            let buffers = [&buffer(own), &buffer(recorded)];
            forgetting.recorded(&Request { buffers: &buffers, size: 1, update: 1, step })
        };
        // Priorities 2, 1 and 1/5 in the epochs 1, 2 and 10.
        assert_eq!([share(20, 10, 0), share(20, 10, 100), share(20, 10, 999)], [0.5, 1.0 / 3.0, 2.0 / 22.0]);
        assert_eq!([share(0, 10, 0), share(10, 0, 0)], [1.0, 0.0]);
    }
}

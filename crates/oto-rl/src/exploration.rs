//! Noise on the continuous actions of a deterministic policy, so that it explores: independent normal noise (Fujimoto et al. 2018), or
//! correlated noise, which pushes in one direction for a while (Lillicrap et al. 2016, section 7; Cao et al. 2022, section IV-C).
//!
//! Correlated noise is an Ornstein-Uhlenbeck process (Uhlenbeck and Ornstein 1930) of mean 0 and standard deviation 1, at whole steps:
//! `x' = k x + sqrt(1 - k^2) n` with `k = exp(-1 / T)`, normal numbers n and the correlation time T in steps. Values s steps apart have
//! the correlation `exp(-s / T)`. Lillicrap et al. write `x' = x - theta x + sigma n`: their theta = 0.15 and sigma = 0.2 are a correlation
//! time of about 6 steps and a standard deviation of about 0.38.

use crate::schedule::Linear;
use oto_env::rng::Rng;

/// Noise that is added to actions; components from -1 to 1 stay in this range.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionNoise {
    deviation: f64,
    factor: Linear,
    /// `k`, 0 for independent noise.
    kept: f64,
    step: u64,
    /// The process, one number for each component; empty before the first action of an episode, and for independent noise.
    process: Vec<f32>,
}

impl ActionNoise {
    /// Noise of this standard deviation, times `factor` at the environment's step, with this correlation time in steps; 0: independent
    /// noise.
    pub fn new(deviation: f64, factor: Linear, correlation_time: f64) -> Self {
        let kept = if correlation_time > 0.0 { (-1.0 / correlation_time).exp() } else { 0.0 };
        Self { deviation, factor, kept, step: 0, process: Vec::new() }
    }

    /// An episode begins: its noise does not depend on that before.
    pub fn begin_episode(&mut self) {
        self.process.clear();
    }

    /// The environment's step, for `factor`.
    pub fn at_step(&mut self, step: u64) {
        self.step = step;
    }

    /// Adds the next noise to an action.
    pub fn add(&mut self, rng: &mut Rng, action: &mut [f32]) {
        let deviation = self.deviation * self.factor.at(self.step);
        if self.kept == 0.0 {
            for a in action {
                *a = (*a + (deviation * rng.normal()) as f32).clamp(-1.0, 1.0);
            }
            return;
        }
        match self.process.is_empty() {
            // In its stationary distribution from the first step on.
            true => self.process.extend(action.iter().map(|_| rng.normal() as f32)),
            false => {
                let spread = (1.0 - self.kept * self.kept).sqrt();
                let next = |x: &mut f32| *x = (self.kept * f64::from(*x) + spread * rng.normal()) as f32;
                self.process.iter_mut().for_each(next);
            }
        }
        for (a, x) in action.iter_mut().zip(&self.process) {
            *a = (*a + (deviation * f64::from(*x)) as f32).clamp(-1.0, 1.0);
        }
    }

    /// The process for a checkpoint; empty where the next action's noise depends on nothing.
    pub fn state(&self) -> &[f32] {
        &self.process
    }

    /// Takes a saved process back, for actions of this width. False, and nothing changes, for numbers that it cannot have.
    pub fn restore(&mut self, process: &[f32], width: usize) -> bool {
        let fits = process.is_empty() || (process.len() == width && self.kept > 0.0);
        let good = fits && process.iter().all(|x| x.abs() < 1e3);
        if good {
            self.process.clear();
            self.process.extend_from_slice(process);
        }
        good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALWAYS: Linear = Linear::constant(1.0);

    /// So many steps of noise on an action of 0, the deviation small enough that none is cut off.
    fn noise(correlation_time: f64, steps: usize) -> Vec<f64> {
        let (mut noise, rng) = (ActionNoise::new(0.1, ALWAYS, correlation_time), &mut Rng::new(6));
        let one = |_| {
            let mut action = [0.0];
            noise.add(rng, &mut action);
            f64::from(action[0]) / 0.1
        };
        (0..steps).map(one).collect()
    }

    #[test]
    fn independent_noise_is_the_generators() {
        let (mut noise, rng) = (ActionNoise::new(0.3, ALWAYS, 0.0), &mut Rng::new(6));
        let mut alike = rng.clone();
        for _ in 0..100 {
            let mut action = [0.5, -0.9];
            noise.add(rng, &mut action);
            let expected = [0.5f32, -0.9].map(|a| (a + (0.3 * alike.normal()) as f32).clamp(-1.0, 1.0));
            assert_eq!((action, noise.state().len()), (expected, 0));
        }
    }

    #[test]
    fn correlated_noise_has_its_deviation_and_its_correlation_time() {
        for time in [0.5, 6.0, 40.0] {
            let x = noise(time, 200_000);
            let variance = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
            assert!((variance - 1.0).abs() < 0.07, "time {time}: variance {variance}");
            for lag in [1, 5, 40] {
                let pairs = x.iter().zip(&x[lag..]).map(|(a, b)| a * b).sum::<f64>();
                let correlation = pairs / (x.len() - lag) as f64 / variance;
                let expected = (-(lag as f64) / time).exp();
                assert!(
                    (correlation - expected).abs() < 0.04,
                    "time {time}, lag {lag}: {correlation}, {expected}"
                );
            }
        }
    }

    #[test]
    fn an_episode_begins_without_memory_and_the_deviation_falls() {
        let factor = Linear { start: 1.0, end: 0.0, steps: 10 };
        let fresh = || ActionNoise::new(0.1, factor, 1e6);
        let (mut noise, rng) = (fresh(), &mut Rng::new(6));
        let at = |noise: &mut ActionNoise, step, rng: &mut Rng| {
            noise.at_step(step);
            let mut action = [0.0];
            noise.add(rng, &mut action);
            action[0]
        };
        let first = at(&mut noise, 0, rng);
        let half = at(&mut noise, 5, rng);
        assert!((half - 0.5 * first).abs() < 0.01 * first.abs(), "half the deviation, the same process");
        assert_eq!(at(&mut noise, 10, rng), 0.0);
        noise.begin_episode();
        let alike = &mut rng.clone();
        assert_eq!(at(&mut noise, 0, rng), at(&mut fresh(), 0, alike), "as if there had been none before");
    }

    #[test]
    fn a_restored_process_goes_on_and_impossible_ones_are_refused() {
        let (mut noise, rng) = (ActionNoise::new(0.1, ALWAYS, 5.0), &mut Rng::new(6));
        (0..9).for_each(|_| noise.add(rng, &mut [0.0, 0.0]));
        let (mut back, mut alike) = (ActionNoise::new(0.1, ALWAYS, 5.0), rng.clone());
        for bad in [&[f32::NAN, 0.0][..], &[0.0, f32::INFINITY], &[1e30, 0.0], &[0.0], &[0.0; 3]] {
            assert!(!back.restore(bad, 2), "{bad:?}");
        }
        assert!(back.restore(noise.state(), 2));
        let (mut a, mut b) = ([0.2, 0.3], [0.2, 0.3]);
        noise.add(rng, &mut a);
        back.add(&mut alike, &mut b);
        assert_eq!(a, b);
        assert!(
            !ActionNoise::new(0.1, ALWAYS, 0.0).restore(noise.state(), 2),
            "independent noise has no process"
        );
        assert!(back.restore(&[], 2));
    }

    #[test]
    fn actions_stay_in_their_range() {
        for time in [0.0, 30.0] {
            let (mut noise, rng) = (ActionNoise::new(2.0, ALWAYS, time), &mut Rng::new(6));
            for _ in 0..1000 {
                let mut action = [1.0, -1.0, 0.0];
                noise.add(rng, &mut action);
                assert!(action.iter().all(|a| (-1.0..=1.0).contains(a)));
            }
        }
    }
}

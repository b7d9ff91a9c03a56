//! A policy called in a loop, with nothing around it: as many states as any server of it could answer.

use super::LoadError;
use super::student::draw;
use oto_env::rng::Rng;
use oto_policy::Policy;
use std::time::{Duration, Instant};

/// States that a policy answers in a second, with so many at once.
///
/// # Errors
/// If the policy fails.
pub fn states_per_second(policy: &mut dyn Policy, rows: u16, time: Duration) -> Result<f64, LoadError> {
    let space = policy.observation_space().clone();
    let mut observations = vec![0.0; usize::from(rows) * space.width()];
    let mut rng = Rng::new(1);
    observations.chunks_exact_mut(space.width()).for_each(|row| draw(&space, &mut rng, row));
    let mut actions = Vec::new();
    let mut calls = |time: Duration| -> Result<f64, LoadError> {
        let (start, mut calls) = (Instant::now(), 0_u32);
        while start.elapsed() < time {
            policy.act(&observations, rows.into(), &mut actions)?;
            calls += 1;
        }
        Ok(f64::from(calls) / start.elapsed().as_secs_f64())
    };
    calls(time / 4)?;
    Ok(calls(time)? * f64::from(rows))
}

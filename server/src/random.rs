//! Randomness for spreading things out in time. What nobody may guess does not come from here.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// A number from 0 to below 1.
pub(crate) fn share() -> f32 {
    let bits = RandomState::new().build_hasher().finish() >> 40;
    bits as f32 / (1 << 24) as f32
}

/// A time between `least` and `least + spread`.
pub(crate) fn between(least: Duration, spread: Duration) -> Duration {
    least + spread.mul_f32(share())
}

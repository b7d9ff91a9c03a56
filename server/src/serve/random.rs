//! Randomness for spreading things out in time. Secrets do not come from here.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

thread_local! {
    /// Where a simulation on this thread is in its sequence of numbers.
    static SEEDED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on what is drawn on this thread follows from `seed`.
pub fn seed(seed: u64) {
    SEEDED.set(Some(seed));
}

/// The next number of a seeded sequence, SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn next(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    SEEDED.set(Some(state));
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number from 0 to below 1, for spreading things out.
pub(crate) fn share() -> f32 {
    let bits = SEEDED.get().map_or_else(|| RandomState::new().build_hasher().finish(), next) >> 40;
    bits as f32 / (1 << 24) as f32
}

/// A time between `least` and `least + spread`.
pub(crate) fn between(least: Duration, spread: Duration) -> Duration {
    least + spread.mul_f32(share())
}

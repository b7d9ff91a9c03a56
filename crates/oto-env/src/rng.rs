//! NumPy's default generator: PCG64 (XSL-RR 128/64) seeded through `SeedSequence`.
//!
//! `Rng::new(seed)` gives the same doubles as `numpy.random.default_rng(seed).random()`, hence the same initial states as
//! Gymnasium's `reset(seed=seed)`. Sources: O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good
//! Algorithms for Random Number Generation" (2014); NumPy's documentation of `SeedSequence`, whose hash is O'Neill's
//! "Developing a seed_seq Alternative" (2015).

use oto_json::{At, Failure, FromJson, ToJson, Writer};

const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

/// A seeded generator with 128 bits of state: the same numbers on every platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: u128,
    increment: u128,
}

impl ToJson for Rng {
    fn write(&self, out: &mut Writer) {
        <[u64; 4]>::from(self.clone()).write(out);
    }
}

impl FromJson for Rng {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        <[u64; 4]>::from_json(at).map(Self::from)
    }
}

oto_json::json_serde! { Rng }

impl Rng {
    /// A generator in the state of `numpy.random.default_rng(seed)`.
    pub fn new(seed: u64) -> Self {
        let [state_high, state_low, stream_high, stream_low] = seed_sequence(seed);
        let mut rng = Self { state: 0, increment: (join(stream_high, stream_low) << 1) | 1 };
        rng.advance();
        rng.state = rng.state.wrapping_add(join(state_high, state_low));
        rng.advance();
        rng
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.advance();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    /// The next 32 bits: the upper half of [`Rng::next_u64`] (NumPy hands out both halves; here nothing is kept back, so
    /// that the 256 bits of [`Rng::state`] are the whole state).
    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A double in `[0, 1)` with 53 random bits, as NumPy's `Generator.random`.
    pub fn f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A double in `[low, high)`, as NumPy's `Generator.uniform`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.f64()
    }

    /// An unbiased integer in `[0, n)`; 0 where `n` is 0. Lemire, "Fast Random Integer Generation in an Interval" (2019).
    pub fn below(&mut self, n: u32) -> u32 {
        let mut product = u64::from(self.next_u32()) * u64::from(n);
        if (product as u32) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u32) < threshold {
                product = u64::from(self.next_u32()) * u64::from(n);
            }
        }
        (product >> 32) as u32
    }

    /// A standard normal number by Box and Muller (1958): two doubles per number, the sine half is not used.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.f64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.f64()).cos()
    }

    /// Permutes the items uniformly (Fisher and Yates, from the back). Slices are limited to 2^32 - 1 items.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }

    /// The whole state: state high, state low, increment high, increment low.
    pub fn state(&self) -> [u64; 4] {
        [(self.state >> 64) as u64, self.state as u64, (self.increment >> 64) as u64, self.increment as u64]
    }

    /// A generator that goes on from [`Rng::state`]. PCG needs an odd increment, so its lowest bit is set.
    pub fn from_state([state_high, state_low, increment_high, increment_low]: [u64; 4]) -> Self {
        Self { state: join(state_high, state_low), increment: join(increment_high, increment_low) | 1 }
    }

    fn advance(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }
}

impl From<[u64; 4]> for Rng {
    fn from(state: [u64; 4]) -> Self {
        Self::from_state(state)
    }
}

impl From<Rng> for [u64; 4] {
    fn from(rng: Rng) -> Self {
        rng.state()
    }
}

fn join(high: u64, low: u64) -> u128 {
    (u128::from(high) << 64) | u128::from(low)
}

/// `SeedSequence(seed).generate_state(4, uint64)`: the seed's 32-bit words are hashed into a pool of four words, the pool's
/// words are mixed with each other, and the pool is hashed into as many words as asked for.
fn seed_sequence(seed: u64) -> [u64; 4] {
    let mut hash = Hash { value: 0x43b0_d7e5, multiplier: 0x931e_8875 };
    // A seed below 2^32 is one word, its missing words hash as zero: so the upper half needs no special case.
    let mut pool = [seed as u32, (seed >> 32) as u32, 0, 0].map(|word| hash.word(word));
    for source in 0..pool.len() {
        for target in (0..pool.len()).filter(|&target| target != source) {
            pool[target] = mix(pool[target], hash.word(pool[source]));
        }
    }
    let mut hash = Hash { value: 0x8b51_f9dd, multiplier: 0x58f3_8ded };
    let mut words = pool.iter().cycle().map(|&word| hash.word(word));
    let mut word = || u64::from(words.next().unwrap_or_default());
    std::array::from_fn(|_| word() | (word() << 32))
}

/// The running hash of `SeedSequence`: every word is hashed with the next power of the multiplier.
struct Hash {
    value: u32,
    multiplier: u32,
}

impl Hash {
    fn word(&mut self, word: u32) -> u32 {
        let word = word ^ self.value;
        self.value = self.value.wrapping_mul(self.multiplier);
        let word = word.wrapping_mul(self.value);
        word ^ (word >> 16)
    }
}

fn mix(x: u32, y: u32) -> u32 {
    let mixed = x.wrapping_mul(0xca01_f9dd).wrapping_sub(y.wrapping_mul(0x4973_f715));
    mixed ^ (mixed >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.random.default_rng(seed)`, NumPy 2.4: `.random(2)` and `.bit_generator.random_raw()` on fresh generators.
    #[test]
    fn gives_the_numbers_of_numpy() {
        for (seed, doubles, raw) in NUMPY {
            let mut rng = Rng::new(seed);
            assert_eq!([rng.f64(), rng.f64()], doubles, "seed {seed}");
            assert_eq!(Rng::new(seed).next_u64(), raw, "seed {seed}");
        }
    }

    const NUMPY: [(u64, [f64; 2], u64); 7] = [
        (0, [0.6369616873214543, 0.2697867137638703], 11749869230777074271),
        (1, [0.5118216247002567, 0.9504636963259353], 9441442522235856127),
        (42, [0.7739560485559633, 0.4388784397520523], 14276969152011380360),
        (4294967295, [0.2519435680449965, 0.21906579628685663], 4647538520743280031),
        (4294967296, [0.8897387912781343, 0.5571380502062263], 16412783775159424549),
        (1099511640121, [0.19012355322595598, 0.8023024059745182], 3507160528743507672),
        (18446744073709551615, [0.6800266789616931, 0.8453117585624743], 12544278110101001871),
    ];

    #[test]
    fn a_saved_state_goes_on_with_the_same_numbers() {
        let mut rng = Rng::new(5);
        rng.next_u64();
        let mut copy = Rng::from_state(rng.state());
        assert_eq!(copy, rng);
        assert_eq!(copy.next_u64(), rng.next_u64());
    }

    #[test]
    fn below_is_in_range_and_even() {
        let mut rng = Rng::new(3);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7) as usize] += 1;
        }
        // Standard deviation of each count: sqrt(70000 * 1/7 * 6/7) = 92.6.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 500), "{counts:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
    }

    #[test]
    fn normal_has_mean_zero_variance_one_and_no_infinity() {
        let mut rng = Rng::new(11);
        let count = 100_000;
        let numbers: Vec<f64> = (0..count).map(|_| rng.normal()).collect();
        let mean = numbers.iter().sum::<f64>() / f64::from(count);
        let square = numbers.iter().map(|number| number * number).sum::<f64>() / f64::from(count);
        assert!(numbers.iter().all(|number| number.is_finite()));
        assert!(mean.abs() < 0.015 && (square - 1.0).abs() < 0.02, "{mean} {square}");
    }

    #[test]
    fn shuffle_permutes_and_reaches_every_order() {
        let mut rng = Rng::new(2);
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..6_000 {
            let mut items = [0, 1, 2];
            rng.shuffle(&mut items);
            *seen.entry(items).or_insert(0u32) += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(seen.values().all(|count| count.abs_diff(1_000) < 160), "{seen:?}");
    }
}

//! NumPy's older generator: the Mersenne Twister MT19937 behind `numpy.random.RandomState(seed)`.
//!
//! Source: Matsumoto and Nishimura, "Mersenne Twister: A 623-dimensionally equidistributed uniform pseudorandom number generator" (1998),
//! with the initialisation of 2002. The draws are those of NumPy's `random_sample` and `randint`.

use super::numbers::Numbers;

/// Words of the state.
const WORDS: usize = 624;
/// Distance of the word that a new word is mixed with.
const MIDDLE: usize = 397;
const UPPER: u32 = 0x8000_0000;

/// A generator with 624 words of state.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Mt19937 {
    words: [u32; WORDS],
    /// The next word to hand out; at the end all words are drawn anew.
    next: usize,
}

impl Mt19937 {
    /// A generator in the state of `numpy.random.RandomState(seed)`.
    pub(crate) fn new(seed: u32) -> Self {
        let mut words = [seed; WORDS];
        for i in 1..WORDS {
            let before = words[i - 1];
            words[i] = (before ^ before >> 30).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { words, next: WORDS }
    }

    fn next_u32(&mut self) -> u32 {
        if self.next >= WORDS {
            self.twist();
        }
        let mut word = self.words[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c_5680;
        word ^= word << 15 & 0xefc6_0000;
        word ^ word >> 18
    }

    fn twist(&mut self) {
        for i in 0..WORDS {
            let joined = self.words[i] & UPPER | self.words[(i + 1) % WORDS] & !UPPER;
            let mixed = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[i] = self.words[(i + MIDDLE) % WORDS] ^ joined >> 1 ^ mixed;
        }
        self.next = 0;
    }

    /// A double in `[0, 1)` with 53 random bits, as `random_sample`.
    pub(crate) fn f64(&mut self) -> f64 {
        let [high, low] = [self.next_u32() >> 5, self.next_u32() >> 6];
        (f64::from(high) * f64::from(1 << 26) + f64::from(low)) / (1u64 << 53) as f64
    }

    /// Whether a double is below this probability.
    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        self.f64() < probability
    }

    /// An integer from `low` to `high`, both included, as `randint(low, high + 1)`: draws of as many bits as the range needs, until
    /// one is in the range. A range of one integer takes no draw.
    pub(crate) fn integer(&mut self, low: i32, high: i32) -> i32 {
        let range = high.abs_diff(low);
        if range == 0 {
            return low;
        }
        let mask = u32::MAX >> range.leading_zeros();
        loop {
            let drawn = self.next_u32() & mask;
            if drawn <= range {
                return low + drawn as i32;
            }
        }
    }

    pub(crate) fn save(&self, to: &mut Vec<f64>) {
        to.extend(self.words.iter().map(|word| f64::from(*word)));
        to.push(self.next as f64);
    }

    pub(crate) fn restored(from: &mut Numbers<'_>) -> Option<Self> {
        let mut words = [0; WORDS];
        for word in &mut words {
            *word = from.word()?;
        }
        let next = from.whole(0, WORDS as i32)? as usize;
        Some(Self { words, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.random.RandomState(seed)`, NumPy 2.4: `random_sample(2)`, and ten of `randint(1, 6)` on a fresh generator.
    #[test]
    fn gives_the_numbers_of_numpy() {
        for (seed, doubles, integers) in NUMPY {
            let mut rng = Mt19937::new(seed);
            assert_eq!([rng.f64(), rng.f64()], doubles, "seed {seed}");
            let mut rng = Mt19937::new(seed);
            assert_eq!(std::array::from_fn(|_| rng.integer(1, 5)), integers, "seed {seed}");
        }
    }

    const NUMPY: [(u32, [f64; 2], [i32; 10]); 3] = [
        (0, [0.5488135039273248, 0.7151893663724195], [5, 1, 4, 4, 4, 2, 4, 3, 5, 1]),
        (1, [0.417022004702574, 0.7203244934421581], [4, 5, 1, 2, 4, 1, 1, 2, 5, 5]),
        (4294967295, [0.0976320289940138, 0.9123828453026218], [4, 3, 5, 5, 1, 3, 2, 1, 4, 3]),
    ];

    #[test]
    fn a_saved_state_continues_with_the_same_numbers() {
        let mut rng = Mt19937::new(5);
        (0..700).for_each(|_| assert!(rng.f64() < 1.0));
        let mut saved = Vec::new();
        rng.save(&mut saved);
        let mut copy = Mt19937::restored(&mut Numbers::new(&saved)).unwrap();
        assert!((0..700).all(|_| copy.f64() == rng.f64()));
        assert!(Mt19937::restored(&mut Numbers::new(&saved[1..])).is_none());
        saved[3] = 0.5;
        assert!(Mt19937::restored(&mut Numbers::new(&saved)).is_none());
    }
}

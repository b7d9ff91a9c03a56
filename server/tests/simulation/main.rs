//! The true server and true students on a simulated network that loses, delays and reorders, under a server that is killed and
//! started again. Every seed is another history, and the same seed is the same one again.
//!
//! | variable | |
//! | --- | --- |
//! | `OTO_SEEDS` | how many seeds, 20 by default, or `FIRST..END` |
//! | `OTO_SEED_FROM` | the first seed, 0 by default |
//! | `OTO_FOR_SECONDS` | goes on for so long instead |

mod asker;
mod book;
mod learner;
#[path = "../it/policies.rs"]
#[allow(dead_code, reason = "other tests need the rest of it")]
mod policies;
mod window;
mod world;

use book::Counts;
use std::ops::Range;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// In so many histories everything happens that is counted.
const MANY: u64 = 20;

/// A number from the environment, if it is there.
fn number<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("expected a number in {name}, got {text:?}")))
}

/// The seeds to try, and how long at most.
fn asked_for() -> (Range<u64>, Duration) {
    let from = number("OTO_SEED_FROM").unwrap_or(0);
    if let Some(seconds) = number("OTO_FOR_SECONDS") {
        return (from..u64::MAX, Duration::from_secs(seconds));
    }
    let range = std::env::var("OTO_SEEDS").ok().and_then(|seeds| {
        let (first, end) = seeds.split_once("..")?;
        Some(first.parse().ok()?..end.parse().ok()?)
    });
    (range.unwrap_or_else(|| from..from + number("OTO_SEEDS").unwrap_or(MANY)), Duration::MAX)
}

#[test]
fn every_request_ends_once_and_what_is_acknowledged_is_kept_once() {
    let (seeds, limit) = asked_for();
    let (start, mut total) = (Instant::now(), Counts::default());
    let mut done = 0;
    for seed in seeds {
        total += world::history(seed).counts;
        done += 1;
        if done % 100 == 0 {
            println!("{done} seeds, to {seed}: {total}");
        }
        if start.elapsed() > limit {
            break;
        }
    }
    println!("{done} seeds in all: {total}");
    if done >= MANY {
        total.have_everything();
    }
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in [3, 7] {
        let (one, other) = (world::history(seed), world::history(seed));
        let differs = one.trace.iter().zip(&other.trace).position(|(one, other)| one != other);
        if let Some(at) = differs {
            let from = at.saturating_sub(5);
            panic!("seed {seed}:\n{:#?}\n{:#?}", &one.trace[from..=at], &other.trace[from..=at]);
        }
        assert_eq!(one.trace.len(), other.trace.len());
        assert!(one.trace.len() > 200, "something happened");
    }
}

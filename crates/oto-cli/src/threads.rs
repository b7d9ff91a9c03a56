//! `--threads`: how many threads the CPU backend has. It changes no result.

use crate::backend;
use clap::Args;
use std::num::NonZeroUsize;

/// More threads than any machine has cores for: a typing mistake should not start thousands.
const MOST: usize = 512;

/// The flag of commands that train.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ThreadOptions {
    /// Threads for the updates of large networks on the CPU; the result is the same with any number [default: all cores, divided
    /// among concurrent runs]
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<NonZeroUsize>,
}

impl ThreadOptions {
    /// Sets the number of threads of each of `runs` concurrent runs.
    pub fn apply(self, runs: usize) {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let share = NonZeroUsize::new(cores / runs.max(1)).unwrap_or(NonZeroUsize::MIN);
        backend::use_threads(self.threads.unwrap_or(share));
    }
}

fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse().ok().and_then(NonZeroUsize::new);
    number.filter(|n| n.get() <= MOST).ok_or(format!("a whole number from 1 to {MOST} is needed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_threads_has_a_range() {
        assert_eq!(threads("1"), Ok(NonZeroUsize::MIN));
        assert_eq!(threads("512").map(NonZeroUsize::get), Ok(512));
        for wrong in ["0", "513", "-1", "two", "", "1.5", "99999999999999999999"] {
            assert_eq!(threads(wrong), Err("a whole number from 1 to 512 is needed".into()), "{wrong}");
        }
    }
}

//! What happened in a history, and what may not happen in any.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

macro_rules! counts {
    ($($name:ident: $says:literal),* $(,)?) => {
        /// How often what happened.
        #[derive(Clone, Copy, Default, Debug, PartialEq)]
        pub struct Counts {
            $(#[doc = $says] pub $name: u64,)*
        }

        impl AddAssign for Counts {
            fn add_assign(&mut self, other: Counts) {
                $(self.$name += other.$name;)*
            }
        }

        impl Display for Counts {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let all = [$((self.$name, $says)),*];
                let shown: Vec<_> = all.iter().map(|(number, says)| format!("{number} {says}")).collect();
                f.write_str(&shown.join(", "))
            }
        }

        impl Counts {
            /// # Panics
            /// If something never happened, and so was not tried.
            pub fn have_everything(&self) {
                $(assert!(self.$name > 0, "no {}: {self}", $says);)*
            }
        }
    };
}

counts! {
    connections: "connections",
    requests: "requests",
    replies: "replies",
    errors: "errors",
    overloaded: "overloaded",
    closes: "closed on",
    labels: "labels",
    submissions: "submissions",
    repeated: "of them repeated",
    acknowledged: "acknowledged",
    slow: "slow readers shown out",
    versions: "versions told",
    cuts: "partitions",
    holds: "holds",
    latencies: "changes of latency",
    kills: "kills",
    stops: "stops",
}

impl Counts {
    /// Requests that have ended in one of the ways in which one may end.
    pub fn ended(&self) -> u64 {
        self.replies + self.errors + self.overloaded + self.closes
    }
}

/// One history.
#[derive(Default)]
pub struct Book {
    /// When who did what.
    pub trace: Vec<String>,
    /// How often.
    pub counts: Counts,
    /// When something was lost last on the way to each student, or might have been.
    pub cut: BTreeMap<usize, Duration>,
    /// When each student got an answer last.
    pub answered: BTreeMap<usize, Duration>,
    /// Batches that were submitted, whatever came of it.
    pub submitted: BTreeSet<u128>,
    /// Batches that were acknowledged.
    pub acknowledged: BTreeSet<u128>,
}

/// The book of everyone in a history.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Book>>);

/// Simulated time since the history began.
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

impl Shared {
    /// The book itself.
    pub fn open(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line.
    pub fn note(&self, at: Duration, what: impl Display) {
        self.open().trace.push(format!("{:>6} {what}", at.as_millis()));
    }

    /// Counts something.
    pub fn count(&self, what: impl FnOnce(&mut Counts)) {
        what(&mut self.open().counts);
    }

    /// Whether something may have been lost on the way to this student since then.
    pub fn was_cut(&self, student: usize, since: Duration) -> bool {
        self.open().cut.get(&student).is_some_and(|at| *at >= since)
    }
}

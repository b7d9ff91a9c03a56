//! What everyone may know of a policy, and who waits for news of it.

use crate::serve::version::Status;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// What answers a policy's students, for all to read. Unlike with a `watch`, those who wait are woken in the order in which
/// they came, so that a simulated server does the same each time.
pub(crate) struct StatusWatch {
    /// What it says, and how often that was changed.
    shown: RwLock<(Status, u64)>,
    news: Notify,
}

impl StatusWatch {
    /// A status that says this.
    pub fn new(status: Status) -> Self {
        StatusWatch { shown: RwLock::new((status, 0)), news: Notify::new() }
    }

    /// Says something else from now on.
    pub fn show(&self, status: Status) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        *shown = (status, shown.1 + 1);
        drop(shown);
        self.news.notify_waiters();
    }

    fn shown(&self) -> RwLockReadGuard<'_, (Status, u64)> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What something in the status is, without a copy of the rest.
    pub fn read<T>(&self, what: impl FnOnce(&Status) -> T) -> T {
        what(&self.shown().0)
    }

    /// How often it was changed.
    pub fn changes(&self) -> u64 {
        self.shown().1
    }

    /// Done when it was changed more often than `seen`, which is up to date then.
    pub async fn changed(&self, seen: &mut u64) {
        loop {
            // From here on no news is missed.
            let news = self.news.notified();
            let changes = self.changes();
            if changes > *seen {
                *seen = changes;
                return;
            }
            news.await;
        }
    }
}

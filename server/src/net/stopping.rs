//! How everything in a server learns that it stops.

use std::sync::Arc;
use tokio::sync::Semaphore;

/// Whether the server stops. It is a semaphore without permits, which is closed when the server stops: that wakes those who
/// wait in the order in which they came, so that a simulated server does the same each time.
#[derive(Clone)]
pub(crate) struct Stopping(Arc<Semaphore>);

impl Stopping {
    /// Not yet.
    pub fn not_yet() -> Self {
        Stopping(Arc::new(Semaphore::new(0)))
    }

    /// Now.
    pub fn begin(&self) {
        self.0.close();
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.0.is_closed()
    }

    /// Done when it has begun.
    pub async fn begun(&self) {
        // There is never a permit, so this ends with an error and only then.
        drop(self.0.acquire().await);
    }
}

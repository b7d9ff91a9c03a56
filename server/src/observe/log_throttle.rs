//! Log lines for frequent events, which peers can cause: at most one line in ten seconds, with the number of events.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// From one telling to the next, at least.
const PERIOD: Duration = Duration::from_secs(10);

/// One kind of trouble.
#[derive(Default)]
pub(crate) struct LogThrottle(Mutex<Told>);

#[derive(Default)]
struct Told {
    last: Option<Instant>,
    untold: u64,
}

impl LogThrottle {
    /// It came once more. Gives how often it came since it was told last, if it is to be told now.
    pub fn again(&self) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.untold += 1;
        let now = Instant::now();
        if told.last.is_some_and(|last| now.saturating_duration_since(last) < PERIOD) {
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_often_is_told_seldom() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            tokio::time::pause();
            let throttle = LogThrottle::default();
            assert_eq!(throttle.again(), Some(1));
            assert!((0..999).all(|_| throttle.again().is_none()));
            tokio::time::advance(PERIOD).await;
            assert_eq!(throttle.again(), Some(1000));
            assert_eq!(throttle.again(), None);
        });
    }
}

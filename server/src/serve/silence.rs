//! The silence of a peer: pings after a while, and the end of the connection after a longer one.

use crate::net::limits::Limits;
use crate::net::peer::{End, refused};
use crate::serve::random;
use oto_proto::ErrorCode;
use std::time::Duration;
use tokio::time::Instant;

/// How long a peer has said nothing, and what follows from it.
pub(crate) struct Silence<'a> {
    limits: &'a Limits,
    heard: Instant,
    pinged: Instant,
    /// From the last sign of life or ping to the next ping.
    pause: Duration,
}

impl<'a> Silence<'a> {
    pub fn new(limits: &'a Limits) -> Self {
        let now = Instant::now();
        Silence { limits, heard: now, pinged: now, pause: Self::pause(limits) }
    }

    /// Three to five quarters of the interval, so that students are not pinged in step.
    fn pause(limits: &Limits) -> Duration {
        random::between(limits.ping_interval * 3 / 4, limits.ping_interval / 2)
    }

    /// When something is to be done, if it lasts.
    pub fn ends(&self) -> Instant {
        self.next_ping().min(self.heard + self.limits.peer_timeout)
    }

    fn next_ping(&self) -> Instant {
        self.heard.max(self.pinged) + self.pause
    }

    pub fn broken(&mut self) {
        self.heard = Instant::now();
    }

    /// Whether it is time for a ping. The alarm is not moved with every message, so it may be too early for anything.
    pub fn alarm(&mut self) -> Result<bool, End> {
        if self.heard.elapsed() >= self.limits.peer_timeout {
            return Err(refused(ErrorCode::Timeout, "expected a sign of life, got none"));
        }
        let now = Instant::now();
        let ping = now >= self.next_ping();
        if ping {
            self.pinged = now;
            self.pause = Self::pause(self.limits);
        }
        Ok(ping)
    }
}

//! How much a server gives, and how long it waits.

use std::time::Duration;

/// How much a server gives before it refuses. The defaults bound its memory to less than a gigabyte beside what policies need.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Connections at once, or fewer where the system lets the process have fewer files open; one more is answered with 503.
    pub connections: usize,
    /// Connections at once from one address; an IPv6 network of /64 counts as one. By default as many as there may be.
    pub per_address: usize,
    /// Requests of one student in flight at once.
    pub credits: u16,
    /// States in one request; fewer where a state is so large that they would pass `message_bytes`.
    pub max_rows: u16,
    /// Bytes of one message, and of the states that a policy is asked for with it.
    pub message_bytes: usize,
    /// Bytes of messages that are under way, and of requests until they are answered, over all connections; beside these, each
    /// connection has some 48 KiB for itself. One address, or one machine, has at most a quarter.
    pub bytes: usize,
    /// Malformed messages of one student before its connection is closed.
    pub refusals: u32,
    /// What waits for one policy.
    pub queue: QueueLimits,
    /// What a stopping server, and one that takes no more connections or submissions, tells the student to wait.
    pub retry: Duration,
    /// A stopping server adds up to this, to each student something else.
    pub restart_spread: Duration,
    /// For the handshake of TLS.
    pub tls_timeout: Duration,
    /// For the headers of a request, for its body, and for the next request of the same connection.
    pub header_timeout: Duration,
    /// For all requests of a connection that does not become a student's.
    pub http_timeout: Duration,
    /// For a student's `hello`.
    pub hello_timeout: Duration,
    /// For all of a message, from its first byte on, whatever comes between its parts.
    pub message_timeout: Duration,
    /// From one ping to the next on a silent connection, on average.
    pub ping_interval: Duration,
    /// For any sign of life from a student, pongs included.
    pub peer_timeout: Duration,
    /// For a student to take a message.
    pub write_timeout: Duration,
    /// For a student to close after the server asked it to.
    pub close_timeout: Duration,
    /// For all work after the order to stop.
    pub stop_timeout: Duration,
}

/// With less memory no student's first message fits: one address has at most a quarter of it.
pub const LEAST_BYTES: usize = 64 << 10;

impl Limits {
    /// The first limit with which a server could answer nothing, with the lowest of use and what it is.
    pub(crate) fn first_too_low(&self) -> Option<(&'static str, usize, usize)> {
        [
            ("connections", 1, self.connections),
            ("connections per address", 1, self.per_address),
            ("bytes of memory for messages", LEAST_BYTES, self.bytes),
            ("bytes of a message", 1, self.message_bytes),
            ("requests in flight per student", 1, self.credits.into()),
            ("states in a request", 1, self.max_rows.into()),
            ("waiting requests", 1, self.queue.requests),
            ("bytes of waiting requests", 1, self.queue.bytes),
        ]
        .into_iter()
        .find(|(_, least, got)| got < least)
    }

    /// How many states one request may have, if the widest that is made of one (its frame's row, the teacher's
    /// observation, either's action) has so many numbers. Nothing that one request causes to be held is larger than
    /// `message_bytes`.
    pub(crate) fn rows_of(&self, widest: usize) -> u16 {
        let rows = self.message_bytes.saturating_sub(oto_proto::HEADER_BYTES) / (4 * widest.max(1));
        u16::try_from(rows).unwrap_or(u16::MAX).min(self.max_rows)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 4096,
            per_address: usize::MAX,
            credits: 8,
            max_rows: 4096,
            message_bytes: 2 << 20,
            bytes: 256 << 20,
            refusals: 100,
            queue: QueueLimits::default(),
            retry: Duration::from_secs(1),
            restart_spread: Duration::from_secs(10),
            tls_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            http_timeout: Duration::from_secs(300),
            hello_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(20),
            ping_interval: Duration::from_secs(20),
            peer_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(2),
            stop_timeout: Duration::from_secs(10),
        }
    }
}

/// How much may wait, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueLimits {
    /// Requests that wait for one policy.
    pub requests: usize,
    /// Bytes of their observations.
    pub bytes: usize,
    /// For a request to be answered; one that waited longer is dropped.
    pub timeout: Duration,
}

impl Default for QueueLimits {
    fn default() -> Self {
        QueueLimits { requests: 8192, bytes: 64 << 20, timeout: Duration::from_secs(5) }
    }
}

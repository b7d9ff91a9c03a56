//! What a link counts and shows.

use super::LinkState;

/// Counters of a link since it was made. Bytes are those of this protocol's own messages, WebSocket framing aside.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkStats {
    /// Attempts to connect.
    pub connects: u64,
    /// Connections that had their `welcome`.
    pub welcomes: u64,
    /// Those of them that were not the first.
    pub reconnects: u64,
    /// Requests sent, repetitions included.
    pub requests: u64,
    /// States sent, repetitions included.
    pub states_sent: u64,
    /// Transitions submitted, repetitions included.
    pub transitions_sent: u64,
    /// States that will have no label: too many waited, or their request was given up.
    pub states_dropped: u64,
    /// Labels accepted.
    pub labels_received: u64,
    /// Bytes of all messages sent, headers and control messages included.
    pub bytes_up: u64,
    /// Bytes of all messages received, headers and control messages included.
    pub bytes_down: u64,
    /// Bytes of states sent, without headers.
    pub payload_up: u64,
    /// Bytes of accepted actions, without headers.
    pub payload_down: u64,
    /// Connections, welcomes and answers that took too long.
    pub timeouts: u64,
    /// Times the server said it has too much to do.
    pub overloaded: u64,
    /// Errors that the server sent after its `welcome`.
    pub refused: u64,
    /// What came and did not count.
    pub rejected: Rejected,
    /// Time from the last request to its answer, in milliseconds.
    pub rtt_ms: f64,
    /// A running mean of those times (each new one counts one eighth), in milliseconds.
    pub rtt_mean_ms: f64,
}

oto_json::json_object! {
    LinkStats: written {
        connects, welcomes, reconnects, requests, states_sent, transitions_sent, states_dropped, labels_received, bytes_up, bytes_down,
        payload_up, payload_down, timeouts, overloaded, refused, rejected, rtt_ms, rtt_mean_ms
    }
}

/// Messages of a server that did not count, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Control messages that could not be read, contradicted the handshake or came at the wrong moment.
    pub control: u64,
    /// Binary frames that were none of this protocol, or not of the agreed form.
    pub frame: u64,
    /// Answers to requests that are not in flight.
    pub unknown_request: u64,
    /// Answers of another policy.
    pub policy: u64,
    /// Answers with more or fewer actions than their request has states.
    pub count: u64,
    /// Answers of a version older than the connection's first.
    pub stale: u64,
    /// Answers with actions that do not exist, are not finite or leave the student's space.
    pub action: u64,
}

oto_json::json_object! {
    Rejected: written { control, frame, unknown_request, policy, count, stale, action }
}

impl Rejected {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.control + self.frame + self.unknown_request + self.policy + self.count + self.stale + self.action
    }
}

impl LinkStats {
    pub(super) fn rtt(&mut self, ms: u64) {
        self.rtt_ms = ms as f64;
        let share = if self.rtt_mean_ms == 0.0 { 1.0 } else { 0.125 };
        self.rtt_mean_ms += share * (self.rtt_ms - self.rtt_mean_ms);
    }
}

/// Everything a page shows about a link.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkStatus {
    /// Where it stands.
    pub state: LinkState,
    /// The name of the policy.
    pub policy: String,
    /// The newest version of the policy that is known; 0 before the first `welcome`.
    pub version: u32,
    /// When it connects again, in milliseconds, while it waits to.
    pub retry_in_ms: Option<u64>,
    /// What went wrong last, as long as nothing went right since.
    pub problem: Option<String>,
    /// States that are in no request yet.
    pub pending: usize,
    /// Requests without an answer.
    pub waiting: usize,
    /// Counters.
    pub stats: LinkStats,
}

oto_json::json_object! {
    LinkStatus: written { state, policy, version, retry_in_ms, problem, pending, waiting, stats }
}

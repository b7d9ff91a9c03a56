//! The spans of a request for subscribers of `tracing`: a `request`, and in it one after the other `take` (it is read and
//! adapted to the policy), `wait` (for the batch that it is part of), `compute` (the policy's work on that batch) and
//! `answer` (until it is on the socket).
//!
//! A listener that wants the spans of few requests only says so of `request`: where it does not want that one, there is
//! nothing of the rest either, and nothing is kept.

use tracing::field::Empty;
use tracing::{Span, info_span};

/// A request that a listener wants to know of.
pub(crate) struct Traced {
    request: Span,
    /// What happens with it now.
    stage: Span,
}

impl Traced {
    /// A request to this policy came. It is none where no listener wants it.
    pub fn begin(policy: &str) -> Option<Box<Self>> {
        let request = info_span!(
            parent: None,
            "request",
            otel.kind = "server",
            policy,
            rows = Empty,
            batch = Empty,
            version = Empty,
            error = Empty,
        );
        if request.is_disabled() {
            return None;
        }
        let stage = info_span!(parent: &request, "take");
        Some(Box::new(Traced { request, stage }))
    }

    /// It is read, has so many states, and waits from now on.
    pub fn waits(&mut self, rows: usize) {
        self.request.record("rows", rows);
        self.stage = info_span!(parent: &self.request, "wait");
    }

    /// It is part of a batch of so many states, on which the policy works from now on.
    pub fn computes(&mut self, batch: usize) {
        self.request.record("batch", batch);
        self.stage = info_span!(parent: &self.request, "compute");
    }

    /// Its answer, of this version or with this error, is on its way from now on.
    pub fn answers(&mut self, answer: Result<u32, &str>) {
        match answer {
            Ok(version) => self.request.record("version", version),
            Err(error) => self.request.record("error", error),
        };
        self.stage = info_span!(parent: &self.request, "answer");
    }
}

//! What a learner keeps of an edge: the stream and its next row, the running episode, and the edge's share of the replay.

use super::train::Episode;
use oto_proto::stream::{Flags, Row, StreamId};
use oto_rl::replay::{Replay, Sampler};

/// An edge of a learner.
pub struct EdgeReplay {
    pub(super) name: String,
    pub(super) stream: StreamId,
    pub(super) session: u32,
    /// The number of the row that is wanted next.
    pub(super) next: u64,
    /// The last row, if its episode has not ended.
    pub(super) before: Before,
    pub(super) replay: Replay,
    pub(super) sampler: Box<dyn Sampler>,
    pub(super) paused: bool,
    pub(super) score: f64,
    pub(super) length: u64,
    pub(super) rows: u64,
    pub(super) steps: u64,
    pub(super) left_out: u64,
    pub(super) last: Option<Episode>,
}

/// The row whose next state is still to come. Its memory is used again.
#[derive(Clone, Debug, Default)]
pub(super) struct Before {
    pub is_there: bool,
    pub observation: Vec<f32>,
    pub action: Vec<f32>,
    pub flags: Flags,
}

impl Before {
    pub fn set(&mut self, row: Row<'_>) {
        self.is_there = true;
        self.observation.clear();
        self.observation.extend_from_slice(row.observation);
        self.action.clear();
        self.action.extend_from_slice(row.action);
        self.flags = row.flags;
    }
}

impl EdgeReplay {
    pub(super) fn new(name: &str, replay: Replay, sampler: Box<dyn Sampler>) -> Self {
        EdgeReplay {
            name: name.into(),
            stream: StreamId(0),
            session: 0,
            next: 0,
            before: Before::default(),
            replay,
            sampler,
            paused: false,
            score: 0.0,
            length: 0,
            rows: 0,
            steps: 0,
            left_out: 0,
            last: None,
        }
    }

    /// A session begins, whose first row has the number `next`; gives the number of rows that are lost. Of a stream that is not known,
    /// none are: an earlier learner may have had them.
    pub(super) fn join(&mut self, session: u32, stream: StreamId, next: u64) -> u64 {
        let is_new = self.session == 0 || self.stream != stream;
        self.session = session;
        if is_new {
            self.cut();
            (self.stream, self.next) = (stream, next);
            return 0;
        }
        self.skip_to(next)
    }

    /// Rows below `first` never come; gives their number.
    pub(super) fn skip_to(&mut self, first: u64) -> u64 {
        let lost = first.saturating_sub(self.next);
        if lost > 0 {
            self.cut();
            self.next = first;
        }
        lost
    }

    /// The running episode ends here, with or without a last row.
    pub(super) fn cut(&mut self) {
        self.before.is_there = false;
        self.replay.forget_pending();
        (self.score, self.length) = (0.0, 0);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of its newest session.
    pub fn session(&self) -> u32 {
        self.session
    }

    /// The stream of that session.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// The number of the row that is wanted next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether its rows are left out.
    pub fn paused(&self) -> bool {
        self.paused
    }

    /// Rows that were taken, and transitions that are learned from.
    pub fn taken(&self) -> [u64; 2] {
        [self.rows, self.steps]
    }

    /// Transitions in its share of the replay.
    pub fn transitions(&self) -> usize {
        self.replay.len()
    }

    /// The episode that ended last.
    pub fn last_episode(&self) -> Option<Episode> {
        self.last
    }
}

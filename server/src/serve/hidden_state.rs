//! The states of a recurrent policy: one for each connection, as long as it lasts.
//!
//! A student says where each of its states stands ([`Place`]). The hidden state is zero where an episode begins. It is also zero, and that is
//! counted, after a gap (a state that the student did not send, or that was refused) and where another version answers.

use crate::auth::budget::Held;
use oto_proto::Place;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most rows of a request: those of one student follow each other, so that they are not computed together.
pub(crate) const MAX_ROWS: u16 = 64;

/// The hidden state of one connection.
#[derive(Debug)]
pub(crate) struct Stream {
    memory: Mutex<Memory>,
    /// Its room.
    _held: Held,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Memory {
    /// The hidden state.
    pub state: Vec<f32>,
    /// The number of the state that is expected next; none before the first one.
    next: Option<u32>,
    /// The version that left the state.
    version: u32,
}

/// Where the rows of a request stand, and whose they are.
#[derive(Debug)]
pub(crate) struct Order {
    pub stream: Arc<Stream>,
    /// One for each row.
    pub places: Vec<Place>,
}

impl Stream {
    /// A stream before its first state, for hidden states of `width` numbers; `held` is room for them.
    pub fn new(width: usize, held: Held) -> Arc<Self> {
        let memory = Memory { state: vec![0.0; width], next: None, version: 0 };
        Arc::new(Stream { memory: Mutex::new(memory), _held: held })
    }

    pub fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Prepares the state for the row at this place. Returns the reason of a reset within an episode.
    pub fn enter(&mut self, place: Place, version: u32) -> Option<&'static str> {
        let reset = if place.begins {
            self.state.fill(0.0);
            None
        } else if self.next != Some(place.number) {
            Some("gap")
        } else if self.version != version {
            Some("version")
        } else {
            None
        };
        if reset.is_some() {
            self.state.fill(0.0);
        }
        (self.next, self.version) = (Some(place.next()), version);
        reset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory { state: vec![1.0, 2.0], next: Some(7), version: 3 }
    }

    #[test]
    fn a_state_is_reset_where_an_episode_begins_and_where_it_does_not_continue() {
        for (number, begins, version, reset, kept) in [
            (7, false, 3, None, true),
            (7, true, 3, None, false),
            (9, true, 4, None, false),
            (8, false, 3, Some("gap"), false),
            (6, false, 3, Some("gap"), false),
            (7, false, 4, Some("version"), false),
        ] {
            let mut memory = memory();
            assert_eq!(
                memory.enter(Place::new(number, begins), version),
                reset,
                "{number} {begins} {version}"
            );
            assert_eq!(memory.state == [1.0, 2.0], kept);
            assert_eq!((memory.next, memory.version), (Some(number as u32 + 1), version));
        }
        let mut first = Memory { next: None, ..memory() };
        assert_eq!(first.enter(Place::new(0, false), 3), Some("gap"), "the first state of a connection");
    }

    #[test]
    fn numbers_wrap_around() {
        let mut memory = Memory { next: Some((1 << 31) - 1), ..memory() };
        assert_eq!(memory.enter(Place::new((1 << 31) - 1, false), 3), None);
        assert_eq!(memory.enter(Place::new(1 << 31, false), 3), None);
        assert_eq!(memory.next, Some(1));
    }
}

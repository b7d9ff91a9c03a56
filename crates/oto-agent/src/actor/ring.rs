//! The rows that an actor holds until they are acknowledged, and longer while there is space: one thread writes, another reads.
//!
//! The control loop owns the [`Recorder`]. [`Recorder::record`] takes the same time for every row: it waits for nothing and
//! allocates nothing. A full ring overwrites its oldest row, acknowledged or not. The link owns the [`Reader`], notices which
//! rows are gone, counts them and tells the learner.
//!
//! Slots are atomic words, so that a row that is overwritten while it is read is noticed and read again: the writer announces a row
//! before it touches its slot, and the reader looks at the announcement after it has read.

use oto_proto::{Flags, FrameError, MAX_SEQUENCE, RowFormat};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Makes a ring of `rows` rows, at least 2, in this format.
pub fn ring(format: RowFormat, rows: usize) -> (Recorder, Reader) {
    let rows = rows.max(2);
    // The first word of a slot is the version that acted.
    let slot = 1 + format.row_bytes().div_ceil(4);
    let words = (0..slot * rows).map(|_| AtomicU32::new(0)).collect();
    let shared = Arc::new(Shared {
        words,
        slot,
        row_bytes: format.row_bytes(),
        rows: rows as u64,
        announced: AtomicU64::new(0),
        written: AtomicU64::new(0),
    });
    let bytes = Vec::with_capacity(4 * slot);
    let recorder = Recorder { shared: shared.clone(), format, bytes, next: 0, faulty: 0 };
    (recorder, Reader { shared })
}

#[derive(Debug)]
struct Shared {
    words: Box<[AtomicU32]>,
    /// Words of one row.
    slot: usize,
    /// Bytes of one row as it travels.
    row_bytes: usize,
    rows: u64,
    /// Rows whose slots may be touched already.
    announced: AtomicU64,
    /// Rows that can be read.
    written: AtomicU64,
}

impl Shared {
    fn words_of(&self, sequence: u64) -> &[AtomicU32] {
        // In range: the remainder is below the number of rows, which is a `usize`.
        let at = (sequence % self.rows) as usize * self.slot;
        &self.words[at..at + self.slot]
    }
}

/// The control loop's end of a ring.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    format: RowFormat,
    bytes: Vec<u8>,
    next: u64,
    faulty: u64,
}

impl Recorder {
    /// Records one row: what the sensors gave, what the actor did then in the environment's units (an index is its number), and
    /// the version of the weights that decided it. The last row of an episode has the final state; its action is ignored.
    ///
    /// A number that cannot travel is replaced and the row is flagged as faulty ([`RowFormat::encode`]).
    ///
    /// # Errors
    /// If the observation or the action has another length; nothing is recorded.
    pub fn record(
        &mut self,
        observation: &[f32],
        action: &[f32],
        flags: Flags,
        version: u32,
    ) -> Result<Flags, FrameError> {
        let flags = self.format.encode(observation, action, flags, &mut self.bytes)?;
        if self.next == MAX_SEQUENCE {
            return Err(FrameError::Sequence { first: self.next });
        }
        let Shared { announced, written, .. } = &*self.shared;
        let sequence = self.next;
        self.next += 1;
        announced.store(self.next, Ordering::Relaxed);
        fence(Ordering::Release);
        let words = self.shared.words_of(sequence);
        words[0].store(version, Ordering::Relaxed);
        for (word, bytes) in words[1..].iter().zip(self.bytes.chunks(4)) {
            let mut whole = [0; 4];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u32::from_le_bytes(whole), Ordering::Relaxed);
        }
        written.store(self.next, Ordering::Release);
        self.faulty += u64::from(flags.has(Flags::FAULTY));
        Ok(flags)
    }

    /// Rows recorded so far: the sequence number of the next one.
    pub fn recorded(&self) -> u64 {
        self.next
    }

    /// Rows flagged as faulty so far.
    pub fn faulty(&self) -> u64 {
        self.faulty
    }
}

/// The link's end of a ring.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    /// Rows recorded so far: the sequence number of the next one.
    pub fn recorded(&self) -> u64 {
        self.shared.written.load(Ordering::Acquire)
    }

    /// The sequence number of the oldest row that is held.
    pub fn oldest(&self) -> u64 {
        self.shared.announced.load(Ordering::Relaxed).saturating_sub(self.shared.rows)
    }

    /// The most rows that can be held.
    pub fn rows(&self) -> u64 {
        self.shared.rows
    }

    /// Copies rows as they travel into `out`, which is emptied first, and gives the version that decided the last of them.
    /// None if there are none, if they are not all recorded, or if one of them is not held any more.
    pub fn copy(&self, first: u64, rows: usize, out: &mut Vec<u8>) -> Option<u32> {
        out.clear();
        let end = first.checked_add(rows as u64)?;
        if rows == 0 || end > self.recorded() || first < self.oldest() {
            return None;
        }
        let mut version = 0;
        for sequence in first..end {
            let words = self.shared.words_of(sequence);
            version = words[0].load(Ordering::Relaxed);
            let start = out.len();
            for word in &words[1..] {
                out.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
            }
            out.truncate(start + self.shared.row_bytes);
        }
        fence(Ordering::Acquire);
        (first >= self.oldest()).then_some(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_proto::{ActionFormat, Dtype, Formats, Ids, Space, StateFormat};

    fn format(width: usize) -> RowFormat {
        let observation =
            Space::Box { low: vec![f32::NEG_INFINITY; width], high: vec![f32::INFINITY; width] };
        let action = Space::Box { low: vec![-1.0], high: vec![1.0] };
        let formats = Formats {
            states: StateFormat::new(&observation, Dtype::F32, None).unwrap(),
            actions: ActionFormat::new(&action, None).unwrap(),
        };
        RowFormat::new(&formats, &action)
    }

    /// The first component of each row, through the wire's codec.
    fn read(reader: &Reader, format: &RowFormat, first: u64, rows: usize) -> Option<Vec<f32>> {
        let (mut bytes, mut frame) = (Vec::new(), Vec::new());
        reader.copy(first, rows, &mut bytes)?;
        format.write(Ids::default(), first, &bytes, &mut frame).unwrap();
        let decoded = format.decode(&frame, rows).unwrap();
        let (mut observation, mut action) = (vec![0.0; format.observation_width()], [0.0]);
        let mut row = |i| {
            decoded.read(i, &mut observation, &mut action);
            observation[0]
        };
        Some((0..rows).map(&mut row).collect())
    }

    #[test]
    fn rows_come_back_and_the_oldest_go_first() {
        let format = format(3);
        let (mut recorder, reader) = ring(format.clone(), 4);
        assert_eq!(reader.copy(0, 1, &mut Vec::new()), None);
        for i in 0..10 {
            recorder.record(&[i as f32, 0.5, -0.5], &[0.25], Flags::NONE, i).unwrap();
        }
        assert_eq!((reader.oldest(), reader.recorded(), recorder.recorded()), (6, 10, 10));
        assert_eq!(read(&reader, &format, 6, 4), Some(vec![6.0, 7.0, 8.0, 9.0]));
        assert_eq!(reader.copy(7, 2, &mut Vec::new()), Some(8));
        for (first, rows) in [(5, 2), (6, 5), (10, 1), (7, 0), (u64::MAX, 2)] {
            assert_eq!(reader.copy(first, rows, &mut Vec::new()), None, "{first} {rows}");
        }
    }

    #[test]
    fn rows_that_cannot_travel_are_mended_and_flagged() {
        let format = format(2);
        let (mut recorder, reader) = ring(format.clone(), 8);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(recorder.record(&[0.0, bad], &[0.0], Flags::NONE, 0).unwrap().has(Flags::FAULTY));
            assert!(recorder.record(&[0.0, 0.0], &[bad], Flags::NONE, 0).unwrap().has(Flags::FAULTY));
        }
        assert_eq!(recorder.record(&[0.0, 0.0], &[7.0], Flags::FIRST, 0), Ok(Flags::FIRST));
        assert_eq!(recorder.record(&[0.0, 0.0], &[f32::NAN], Flags::TRUNCATED, 0), Ok(Flags::TRUNCATED));
        assert_eq!(recorder.faulty(), 6);
        assert!(read(&reader, &format, 0, 8).is_some(), "the codec takes them all");
        assert!(recorder.record(&[0.0], &[0.0], Flags::NONE, 0).is_err());
        assert!(recorder.record(&[0.0; 2], &[], Flags::NONE, 0).is_err());
        assert_eq!(recorder.recorded(), 8);
    }

    #[test]
    fn a_row_that_is_overwritten_while_it_is_read_is_never_given_out() {
        const ROWS: u64 = 200_000;
        let format = format(40);
        let (mut recorder, reader) = ring(format.clone(), 3);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for i in 0..ROWS {
                    recorder.record(&[i as f32; 40], &[0.0], Flags::NONE, i as u32).unwrap();
                }
            });
            let mut bytes = Vec::new();
            while reader.recorded() < ROWS {
                let first = reader.oldest();
                let rows = (reader.recorded() - first).min(3) as usize;
                let Some(version) = reader.copy(first, rows, &mut bytes) else { continue };
                assert_eq!(u64::from(version), first + rows as u64 - 1);
                for (row, bytes) in bytes.chunks_exact(format.row_bytes()).enumerate() {
                    let expected = (first + row as u64) as f32;
                    assert!(
                        bytes[..160].as_chunks::<4>().0.iter().all(|b| f32::from_le_bytes(*b) == expected)
                    );
                }
            }
            assert_eq!(reader.copy(ROWS - 3, 3, &mut bytes), Some(ROWS as u32 - 1));
        });
    }
}

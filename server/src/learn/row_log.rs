//! The folder in which a learner is kept: a checkpoint, and a log of everything that came after it.
//!
//! A row is acknowledged once it is in the log and the log is on the disk, so that a server that is killed loses no acknowledged row. After a
//! restart the learner loads the checkpoint and takes the log's records as new rows: each counts once.
//!
//! `checkpoint-N` and `rows-N.log` belong together: the log has what came after that checkpoint. A new checkpoint begins a new log
//! ([`Keep::turn`]), another thread may write it ([`Place::write`]) while rows go into the new log, and the files before it are deleted once it
//! is on the disk ([`Keep::finish`]). A torn final record was not acknowledged. It is truncated at startup.

use crate::learn::saved_state::{SavedState, SavedStateError};
use crate::serve::learners::Rows;
use oto_proto::{Flags, StreamId};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// What a record begins with: its length, and its checksum (CRC-32C).
const HEAD: usize = 8;
/// The longest record: a message of an edge is shorter.
const MAX_RECORD: usize = 256 << 20;

/// A change of a learner that its log keeps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    /// A session began.
    Join { edge: String, session: u32, stream: StreamId, next: u64 },
    /// Rows came.
    Rows { edge: String, session: u32, rows: Rows },
    /// Rows below this one are lost.
    Dropped { edge: String, session: u32, first: u64 },
    /// An edge's rows are left out, or no more.
    Pause { edge: String, paused: bool },
    /// An edge was forgotten.
    Forget { edge: String },
}

/// Why a learner's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process has the folder.
    #[error("{}: another process keeps a learner there", .0.display())]
    InUse(PathBuf),
    /// A log whose middle is not what was written.
    #[error("{}: damaged at byte {at}; move it away to go on from the checkpoint alone", path.display())]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] SavedStateError),
}

/// A learner's folder, open for appending.
pub(crate) struct Keep {
    folder: PathBuf,
    generation: u64,
    log: File,
    /// The length of the log's whole records.
    length: u64,
    /// Bytes of older logs that no checkpoint has replaced.
    older: u64,
    /// Kept for as long as the folder is in use.
    _lock: File,
}

fn at(path: &Path) -> impl Fn(io::Error) -> KeepError + '_ {
    |source| KeepError::File { path: path.into(), source }
}

impl Keep {
    /// Opens a folder; gives the checkpoint, if there is one, and hands over all records after it, in their order.
    pub fn open(
        folder: &Path,
        widths: [usize; 2],
        mut take: impl FnMut(Option<Vec<u8>>, Option<Record>),
    ) -> Result<Self, KeepError> {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let lock = folder.join("lock");
        let held = File::create(&lock).map_err(at(&lock))?;
        held.try_lock().map_err(|_| KeepError::InUse(folder.into()))?;
        let generation = numbers(folder, "checkpoint-", "")?.into_iter().max();
        if let Some(generation) = generation {
            let found = SavedState::at(checkpoint(folder, generation)).read()?;
            take(found.map(|(_, bytes)| bytes), None);
        }
        let first = generation.unwrap_or_default();
        let mut logs = numbers(folder, "rows-", ".log")?;
        logs.retain(|number| *number >= first);
        logs.sort_unstable();
        let last = logs.last().copied().unwrap_or(first);
        let (mut length, mut older) = (0, 0);
        for number in logs {
            older += length;
            length = read(&log(folder, number), widths, number == last, |record| take(None, Some(record)))?;
        }
        let path = log(folder, last);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(at(&path))?;
        file.set_len(length).and_then(|()| file.sync_all()).map_err(at(&path))?;
        sync(folder);
        // A crash may have left what a later checkpoint replaced.
        let keep = Keep { folder: folder.into(), generation: last, log: file, length, older, _lock: held };
        keep.delete_before(first);
        Ok(keep)
    }

    /// Appends records, and returns once they are on the disk. Where that fails, none of them is there.
    pub fn append(&mut self, records: &[u8]) -> Result<(), KeepError> {
        let path = log(&self.folder, self.generation);
        let written = self.log.write_all(records).and_then(|()| self.log.sync_data());
        if let Err(source) = written {
            let _ = self.log.set_len(self.length);
            return Err(KeepError::File { path, source });
        }
        self.length += records.len() as u64;
        Ok(())
    }

    /// Begins a new log for what comes from now on. Gives the place of the checkpoint of all that came before.
    pub fn turn(&mut self) -> Result<Place, KeepError> {
        let next = self.generation + 1;
        let path = log(&self.folder, next);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(at(&path))?;
        file.set_len(0).and_then(|()| file.sync_all()).map_err(at(&path))?;
        sync(&self.folder);
        self.older += self.length;
        (self.generation, self.log, self.length) = (next, file, 0);
        Ok(Place { folder: self.folder.clone(), generation: next })
    }

    /// A checkpoint is in its place: it replaces the one before it and the logs before it.
    pub fn finish(&mut self, place: &Place) {
        self.older = 0;
        self.delete_before(place.generation);
    }

    /// Bytes of rows since the last checkpoint that is in its place.
    pub fn bytes(&self) -> u64 {
        self.older + self.length
    }

    fn delete_before(&self, generation: u64) {
        // What cannot be deleted is deleted after the next checkpoint.
        for number in numbers(&self.folder, "checkpoint-", "").unwrap_or_default() {
            if number < generation {
                let _ = std::fs::remove_file(checkpoint(&self.folder, number));
            }
        }
        for number in numbers(&self.folder, "rows-", ".log").unwrap_or_default() {
            if number < generation {
                let _ = std::fs::remove_file(log(&self.folder, number));
            }
        }
    }
}

/// The place of a checkpoint.
pub(crate) struct Place {
    folder: PathBuf,
    generation: u64,
}

impl Place {
    /// Writes the checkpoint; it counts once this has returned.
    pub fn write(&self, learner: &[u8]) -> Result<(), KeepError> {
        let said = json!({ "learner": self.generation });
        SavedState::at(checkpoint(&self.folder, self.generation)).write(&said, &[learner])?;
        sync(&self.folder);
        Ok(())
    }
}

fn checkpoint(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("checkpoint-{generation}"))
}

fn log(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("rows-{generation}.log"))
}

/// A new file's name is on the disk once its folder is; Windows has no such call.
fn sync(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// The numbers in the names of a folder's files.
fn numbers(folder: &Path, before: &str, after: &str) -> Result<Vec<u64>, KeepError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(at(folder))? {
        let name = entry.map_err(at(folder))?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_prefix(before)?.strip_suffix(after)?.parse().ok());
        numbers.extend(number);
    }
    Ok(numbers)
}

/// Reads a log's records; gives the length of the whole ones. Only the last log may end within a record.
fn read(path: &Path, widths: [usize; 2], last: bool, mut take: impl FnMut(Record)) -> Result<u64, KeepError> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(at(path))?;
    let mut rest = &bytes[..];
    while let Some((record, after)) = next(rest, widths) {
        take(record);
        rest = after;
    }
    let length = (bytes.len() - rest.len()) as u64;
    // After a record that was not finished comes no other one.
    let torn = last && (1..rest.len()).all(|skip| next(&rest[skip..], widths).is_none());
    match rest.is_empty() || torn {
        true => Ok(length),
        false => Err(KeepError::Damaged { path: path.into(), at: length }),
    }
}

/// The first record of these bytes, and what follows it.
fn next(bytes: &[u8], widths: [usize; 2]) -> Option<(Record, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let length = word(0) as usize;
    if length == 0 || length > MAX_RECORD {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(length)?;
    (crc32c::crc32c(payload) == word(4))
        .then(|| Record::decode(payload, widths))?
        .map(|record| (record, rest))
}

/// Bytes that are read from the front.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn some(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn floats(&mut self, count: usize) -> Option<Vec<f32>> {
        let bytes = self.some(count.checked_mul(4)?)?;
        Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

impl Record {
    /// Adds the record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        let (kind, edge) = match self {
            Record::Join { edge, .. } => (0, edge),
            Record::Rows { edge, .. } => (1, edge),
            Record::Dropped { edge, .. } => (2, edge),
            Record::Pause { edge, .. } => (3, edge),
            Record::Forget { edge } => (4, edge),
        };
        out.push(kind);
        // A name has 256 bytes at most.
        out.extend_from_slice(&(edge.len() as u16).to_le_bytes());
        out.extend_from_slice(edge.as_bytes());
        match self {
            Record::Join { session, stream, next, .. } => {
                out.extend_from_slice(&session.to_le_bytes());
                out.extend_from_slice(&stream.0.to_le_bytes());
                out.extend_from_slice(&next.to_le_bytes());
            }
            Record::Rows { session, rows, .. } => {
                out.extend_from_slice(&session.to_le_bytes());
                out.extend_from_slice(&rows.first.to_le_bytes());
                out.extend_from_slice(&(rows.flags.len() as u32).to_le_bytes());
                let numbers = rows.observations.iter().chain(&rows.actions);
                numbers.for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
                out.extend(rows.flags.iter().map(|flags| flags.0));
            }
            Record::Dropped { session, first, .. } => {
                out.extend_from_slice(&session.to_le_bytes());
                out.extend_from_slice(&first.to_le_bytes());
            }
            Record::Pause { paused, .. } => out.push(u8::from(*paused)),
            Record::Forget { .. } => {}
        }
        let payload = &out[start + HEAD..];
        let (length, sum) = (payload.len() as u32, crc32c::crc32c(payload));
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        out[start + 4..start + HEAD].copy_from_slice(&sum.to_le_bytes());
    }

    fn decode(payload: &[u8], [width, action_width]: [usize; 2]) -> Option<Self> {
        let mut bytes = Bytes(payload);
        let [kind] = bytes.take()?;
        let length = u16::from_le_bytes(bytes.take()?);
        let edge = std::str::from_utf8(bytes.some(length.into())?).ok()?.to_owned();
        let record = match kind {
            0 => Record::Join {
                edge,
                session: u32::from_le_bytes(bytes.take()?),
                stream: StreamId(u128::from_le_bytes(bytes.take()?)),
                next: u64::from_le_bytes(bytes.take()?),
            },
            1 => {
                let session = u32::from_le_bytes(bytes.take()?);
                let first = u64::from_le_bytes(bytes.take()?);
                let count = u32::from_le_bytes(bytes.take()?) as usize;
                let observations = bytes.floats(count.checked_mul(width)?)?;
                let actions = bytes.floats(count.checked_mul(action_width)?)?;
                let flags = bytes.some(count)?.iter().map(|byte| Flags(*byte)).collect();
                Record::Rows { edge, session, rows: Rows { first, observations, actions, flags } }
            }
            2 => Record::Dropped {
                edge,
                session: u32::from_le_bytes(bytes.take()?),
                first: u64::from_le_bytes(bytes.take()?),
            },
            3 => Record::Pause { edge, paused: bytes.take::<1>()?[0] == 1 },
            4 => Record::Forget { edge },
            _ => return None,
        };
        bytes.0.is_empty().then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let edge = || "an edge".to_owned();
        let rows = Rows {
            first: 7,
            observations: vec![1.0, 2.0, 3.0, 4.0],
            actions: vec![0.5, -0.5],
            flags: vec![Flags::FIRST, Flags::NONE],
        };
        vec![
            Record::Join { edge: edge(), session: 3, stream: StreamId(1 << 100), next: 7 },
            Record::Rows { edge: edge(), session: 3, rows },
            Record::Dropped { edge: edge(), session: 3, first: 12 },
            Record::Pause { edge: edge(), paused: true },
            Record::Forget { edge: edge() },
        ]
    }

    fn encoded(records: &[Record]) -> Vec<u8> {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        bytes
    }

    type Opened = (Keep, Option<Vec<u8>>, Vec<Record>);

    fn open(folder: &Path) -> Result<Opened, KeepError> {
        let (mut checkpoint, mut found) = (None, Vec::new());
        let keep = Keep::open(folder, [2, 1], |saved, record| {
            checkpoint = saved.or(checkpoint.take());
            found.extend(record);
        })?;
        Ok((keep, checkpoint, found))
    }

    fn checkpoint_now(keep: &mut Keep, learner: &[u8]) {
        let place = keep.turn().unwrap();
        place.write(learner).unwrap();
        keep.finish(&place);
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("oto-row-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn what_was_appended_comes_back_in_order_after_the_newest_checkpoint() {
        let (folder, all) = (folder("order"), records());
        let (mut keep, checkpoint, found) = open(&folder).unwrap();
        assert_eq!((checkpoint, found), (None, vec![]));
        assert!(matches!(open(&folder), Err(KeepError::InUse(_))));
        keep.append(&encoded(&all[..2])).unwrap();
        drop(keep);
        let (mut keep, _, found) = open(&folder).unwrap();
        assert_eq!(found, all[..2]);
        keep.append(&encoded(&all[2..])).unwrap();
        checkpoint_now(&mut keep, b"learner");
        keep.append(&encoded(&all[3..])).unwrap();
        drop(keep);
        let (mut keep, checkpoint, found) = open(&folder).unwrap();
        assert_eq!((checkpoint.as_deref(), &found[..]), (Some(&b"learner"[..]), &all[3..]));
        checkpoint_now(&mut keep, b"again");
        let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.count(), 3, "a checkpoint, its log, and the lock");
        drop(keep);
        assert_eq!(open(&folder).unwrap().1.as_deref(), Some(&b"again"[..]));
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// A crash between the steps of a checkpoint loses nothing: the new log is there first, the old files go last.
    #[test]
    fn a_checkpoint_may_be_interrupted() {
        let (folder, all) = (folder("between"), records());
        let (mut keep, ..) = open(&folder).unwrap();
        keep.append(&encoded(&all)).unwrap();
        drop(keep);
        std::fs::write(log(&folder, 1), []).unwrap();
        let (mut keep, checkpoint, found) = open(&folder).unwrap();
        assert_eq!((checkpoint, &found), (None, &all));
        keep.append(&encoded(&all[..1])).unwrap();
        // Rows come while a checkpoint is written, and it never is.
        let before = keep.bytes();
        let place = keep.turn().unwrap();
        keep.append(&encoded(&all[1..2])).unwrap();
        assert!(keep.bytes() > before, "what no checkpoint has counts");
        drop(keep);
        let (mut keep, checkpoint, found) = open(&folder).unwrap();
        assert_eq!((checkpoint, found.len()), (None, 7));
        // It is: what came before is in it, what came after is in the log.
        place.write(b"learner").unwrap();
        keep.finish(&place);
        drop(keep);
        let (_, checkpoint, found) = open(&folder).unwrap();
        assert_eq!((checkpoint.as_deref(), &found[..]), (Some(&b"learner"[..]), &all[1..2]));
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// A record that was cut off anywhere is left out, and what comes after it is appended behind the whole ones.
    #[test]
    fn a_torn_record_is_cut_off_and_damage_is_refused() {
        let (folder, all) = (folder("torn"), records());
        let whole = encoded(&all[..2]);
        let more = encoded(&all[2..3]);
        for cut in 1..more.len() {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(log(&folder, 0), [&whole[..], &more[..cut]].concat()).unwrap();
            let (mut keep, _, found) = open(&folder).unwrap();
            assert_eq!(found, all[..2]);
            keep.append(&more).unwrap();
            drop(keep);
            assert_eq!(open(&folder).unwrap().2, all[..3]);
        }
        let bytes = encoded(&all);
        for at in (0..encoded(&all[..4]).len()).step_by(3) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x20;
            std::fs::write(log(&folder, 0), bad).unwrap();
            assert!(matches!(open(&folder), Err(KeepError::Damaged { .. })), "byte {at}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}

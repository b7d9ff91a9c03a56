//! What is in a log, found quickly: an SQLite file that is made of the log and can be made of it again at any time.

use super::log::{Place, Segment, first_offset};
use super::{Holding, State, StoreError};
use oto_proto::BatchId;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::path::{Path, PathBuf};

/// Batches, and how far each segment has been read. Also what an operator may ask with any SQLite client.
const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS batch (
        place INTEGER PRIMARY KEY,
        name BLOB NOT NULL UNIQUE,
        state TEXT NOT NULL,
        student TEXT NOT NULL,
        transitions INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        came INTEGER NOT NULL,
        segment INTEGER NOT NULL,
        offset INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS by_state ON batch (state, place);
    CREATE INDEX IF NOT EXISTS by_student ON batch (student);
    CREATE TABLE IF NOT EXISTS segment (number INTEGER PRIMARY KEY, salt BLOB NOT NULL, read INTEGER NOT NULL) STRICT;
    PRAGMA user_version = 1;
";

/// A batch whose transitions were deleted; its name is known for ever, so that it cannot come again.
const FORGOTTEN: &str = "forgotten";

#[derive(Debug)]
pub(super) struct Catalogue {
    path: PathBuf,
    connection: Connection,
}

/// A batch that came.
pub(super) struct Came<'a> {
    pub batch: BatchId,
    pub student: &'a str,
    pub transitions: usize,
    pub bytes: u64,
    /// Seconds since 1970.
    pub when: u32,
    pub place: Place,
}

/// Of a segment: its number, its salt, and how far it was read.
type Read = (u32, Vec<u8>, u64);

/// A batch in the list of all.
pub(super) struct Listed {
    pub batch: BatchId,
    pub student: String,
    pub transitions: u64,
    pub forgotten: bool,
}

/// A batch as it is known: where it stands, if its transitions are there.
pub(super) type Known = Option<(State, Place)>;

impl Catalogue {
    /// Opens the file, or makes it. One that is damaged, or of another version, is made anew: all that it knew is in the log.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::try_open(path).or_else(|_| {
            for ending in ["", "-wal", "-shm"] {
                let file = PathBuf::from(format!("{}{ending}", path.display()));
                drop(std::fs::remove_file(file));
            }
            Self::try_open(path)
        })
    }

    fn try_open(path: &Path) -> Result<Self, StoreError> {
        let failed = failed(path);
        let connection = Connection::open(path).map_err(&failed)?;
        let version: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(&failed)?;
        if version > 1 {
            return Err(failed(rusqlite::Error::InvalidQuery));
        }
        connection.execute_batch(SCHEMA).map_err(&failed)?;
        Ok(Catalogue { path: path.to_owned(), connection })
    }

    /// Whether all it has read is in these segments.
    pub fn fits(&self, segments: &[Segment]) -> Result<bool, StoreError> {
        let there = |(number, salt, read): &Read| {
            segments.iter().any(|s| s.number == *number && s.salt[..] == salt[..] && s.bytes >= *read)
        };
        Ok(self.read()?.iter().all(there))
    }

    /// Whether it was made of the log with these segments, of which some may be gone. `made`: they were all made just now.
    pub fn is_of(&self, segments: &[Segment], made: bool) -> Result<bool, StoreError> {
        let same =
            |(number, salt, _): &Read| segments.iter().any(|s| s.number == *number && s.salt[..] == salt[..]);
        Ok(made || self.read()?.iter().any(same))
    }

    fn read(&self) -> Result<Vec<Read>, StoreError> {
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        self.rows("SELECT number, salt, read FROM segment", [], row)
    }

    /// All batches by name, those that are forgotten among them.
    pub fn all(&self) -> Result<Vec<Listed>, StoreError> {
        self.rows("SELECT name, student, transitions, state FROM batch ORDER BY place", [], |row| {
            let state: String = row.get(3)?;
            let forgotten = state == FORGOTTEN;
            Ok(Listed { batch: batch(row)?, student: row.get(1)?, transitions: row.get(2)?, forgotten })
        })
    }

    /// A batch is not in the log any more; it may come again.
    pub fn lost(&self, batch: BatchId) -> Result<(), StoreError> {
        self.execute("DELETE FROM batch WHERE name = ?1", params![name(batch)])
    }

    /// Forgets everything.
    pub fn clear(&self) -> Result<(), StoreError> {
        self.connection.execute_batch("DELETE FROM batch; DELETE FROM segment;").map_err(failed(&self.path))
    }

    /// Does all of it or nothing.
    pub fn together<T>(&self, work: impl FnOnce(&Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let transaction = self.connection.unchecked_transaction().map_err(failed(&self.path))?;
        let done = work(self)?;
        transaction.commit().map_err(failed(&self.path))?;
        Ok(done)
    }

    /// How far a segment has been read.
    pub fn read_to(&self, segment: u32) -> Result<u64, StoreError> {
        let read = self.one("SELECT read FROM segment WHERE number = ?1", [segment], |row| row.get(0))?;
        Ok(read.unwrap_or(first_offset()))
    }

    /// A segment has been read to its end.
    pub fn has_read(&self, segment: &Segment) -> Result<(), StoreError> {
        let Segment { number, salt, bytes } = segment;
        self.execute("INSERT OR REPLACE INTO segment VALUES (?1, ?2, ?3)", params![number, &salt[..], bytes])
    }

    /// A batch came, and is in quarantine; one whose name is known is not looked at.
    pub fn came(&self, came: &Came<'_>) -> Result<(), StoreError> {
        let Came { batch, student, transitions, bytes, when, place } = came;
        self.execute(
            "INSERT OR IGNORE INTO batch (name, state, student, transitions, bytes, came, segment, offset)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                name(*batch),
                State::Quarantine.name(),
                student,
                *transitions as u64,
                bytes,
                when,
                place.segment,
                place.offset
            ],
        )
    }

    /// A batch was judged.
    pub fn judged(&self, batch: BatchId, state: State) -> Result<(), StoreError> {
        self.execute(
            "UPDATE batch SET state = ?2 WHERE name = ?1 AND state != ?3",
            params![name(batch), state.name(), FORGOTTEN],
        )
    }

    /// A batch's transitions were deleted. Its name is all that is kept of it.
    pub fn forgotten(&self, batch: BatchId) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO batch (name, state, student, transitions, bytes, came, segment, offset)
             VALUES (?1, ?2, '', 0, 0, 0, 0, 0)
             ON CONFLICT (name) DO UPDATE SET state = ?2, student = '', transitions = 0",
            params![name(batch), FORGOTTEN],
        )
    }

    /// Segments that still hold transitions of forgotten batches.
    pub fn unclean(&self) -> Result<Vec<u32>, StoreError> {
        let text = "SELECT DISTINCT segment FROM batch WHERE state = ?1 AND bytes > 0";
        self.rows(text, [FORGOTTEN], |row| row.get(0))
    }

    /// A segment holds none any more.
    pub fn cleaned(&self, segment: u32) -> Result<(), StoreError> {
        self.execute(
            "UPDATE batch SET bytes = 0 WHERE segment = ?1 AND state = ?2",
            params![segment, FORGOTTEN],
        )
    }

    /// A batch's record stands elsewhere now.
    pub fn moved(&self, batch: BatchId, place: Place) -> Result<(), StoreError> {
        self.execute(
            "UPDATE batch SET segment = ?2, offset = ?3 WHERE name = ?1",
            params![name(batch), place.segment, place.offset],
        )
    }

    /// What is known of a batch, if its name is.
    pub fn find(&self, batch: BatchId) -> Result<Option<Known>, StoreError> {
        self.one("SELECT state, segment, offset FROM batch WHERE name = ?1", [name(batch)], |row| {
            let state: String = row.get(0)?;
            let place = Place { segment: row.get(1)?, offset: row.get(2)? };
            Ok(State::from_name(&state).map(|state| (state, place)))
        })
    }

    /// The student of a batch that is known, and how many transitions it has.
    pub fn of(&self, batch: BatchId) -> Result<(String, usize), StoreError> {
        let text = "SELECT student, transitions FROM batch WHERE name = ?1";
        let found = self.one(text, [name(batch)], |row| Ok((row.get(0)?, row.get::<_, u64>(1)? as usize)))?;
        found.ok_or(StoreError::Unknown(batch))
    }

    /// The batches in a state, in the order in which they came.
    pub fn list(&self, state: State) -> Result<Vec<BatchId>, StoreError> {
        self.rows("SELECT name FROM batch WHERE state = ?1 ORDER BY place", [state.name()], batch)
    }

    /// The batches of a student that are not forgotten.
    pub fn of_student(&self, student: &str) -> Result<Vec<BatchId>, StoreError> {
        let text = "SELECT name FROM batch WHERE student = ?1 AND state != ?2 ORDER BY place";
        self.rows(text, [student, FORGOTTEN], batch)
    }

    /// Bytes of all batches together.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        Ok(self.one("SELECT coalesce(sum(bytes), 0) FROM batch", [], |row| row.get(0))?.unwrap_or(0))
    }

    /// Students, their batches and transitions in each state, the largest first.
    pub fn summary(&self) -> Result<Vec<Holding>, StoreError> {
        let text =
            "SELECT student, state, count(*), sum(transitions), sum(bytes) FROM batch WHERE state != ?1
                    GROUP BY student, state ORDER BY sum(bytes) DESC, student, state";
        self.rows(text, [FORGOTTEN], |row| {
            let state: String = row.get(1)?;
            Ok(Holding {
                student: row.get(0)?,
                state: State::from_name(&state).unwrap_or(State::Rejected),
                batches: row.get(2)?,
                transitions: row.get(3)?,
                bytes: row.get(4)?,
            })
        })
    }

    fn rows<T>(
        &self,
        text: &str,
        with: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let asked = self.connection.prepare_cached(text);
        asked.and_then(|mut s| s.query_map(with, read)?.collect()).map_err(failed(&self.path))
    }

    fn execute(&self, text: &str, with: impl rusqlite::Params) -> Result<(), StoreError> {
        let failed = failed(&self.path);
        self.connection.prepare_cached(text).and_then(|mut s| s.execute(with)).map(drop).map_err(failed)
    }

    fn one<T>(
        &self,
        text: &str,
        with: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let asked = self.connection.prepare_cached(text).and_then(|mut s| s.query_row(with, read).optional());
        asked.map_err(failed(&self.path))
    }
}

fn name(batch: BatchId) -> [u8; 16] {
    batch.0.to_be_bytes()
}

fn batch(row: &Row<'_>) -> rusqlite::Result<BatchId> {
    Ok(BatchId(u128::from_be_bytes(row.get(0)?)))
}

fn failed(path: &Path) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |error| StoreError::Catalogue { path: path.clone(), reason: error.to_string() }
}

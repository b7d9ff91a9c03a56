//! A dataset store in a folder: a log that is the truth, and a catalogue of it.

use super::batch::{decode, encode, names};
use super::catalogue::{Came, Catalogue, Listed};
use super::log::{Kind, Log, Place, Record, first_offset};
use super::open::at;
use super::{Damage, DatasetStore, Holding, Lost, Put, State, StoreError, Submission};
use oto_proto::BatchId;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Keeps what students submit in segments of a log. What [`DatasetStore::put`] has answered is synced, and outlives the
/// process and the machine.
#[derive(Debug)]
pub struct LogStore {
    inner: Mutex<Inner>,
    /// Records of the log that are on the disk. Whoever syncs has this; all who wait for it meanwhile find their own work done.
    synced: Mutex<u64>,
    max_bytes: u64,
    damage: Vec<Damage>,
    lost: Vec<Lost>,
    /// Locked as long as the store lives; the system unlocks what a killed process held.
    _lock: File,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    catalogue: Catalogue,
    /// Bytes of all batches.
    bytes: u64,
}

/// How often, and after what time each, a lock is tried again.
const LOOKS: u32 = 50;
const LOOK: Duration = Duration::from_millis(10);

impl LogStore {
    /// Opens a folder, or makes it. `max_bytes` limits the batches that are not forgotten.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Corrupt`], [`StoreError::Io`], [`StoreError::Catalogue`].
    pub fn open(folder: &Path, max_bytes: u64) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        let path = folder.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        own(&lock).map_err(|error| match error {
            fs::TryLockError::WouldBlock => StoreError::InUse(folder.to_owned()),
            fs::TryLockError::Error(source) => StoreError::Io { path, source },
        })?;
        let mut log = Log::open(folder)?;
        let catalogue = Catalogue::open(&folder.join("catalogue.sqlite"))?;
        let known = match catalogue.is_of(log.segments(), log.made)? {
            true => catalogue.all()?,
            false => Vec::new(),
        };
        if !catalogue.fits(log.segments())? {
            catalogue.clear()?;
        }
        let mut whole = HashSet::new();
        let damage = catalogue.together(|catalogue| catch_up(&mut log, catalogue, &mut whole))?;
        let mut inner = Inner { bytes: 0, log, catalogue };
        let lost = inner.compare(known, &whole)?;
        inner.clean()?;
        let (inner, synced) = (Mutex::new(inner), Mutex::new(0));
        Ok(LogStore { inner, synced, max_bytes, damage, lost, _lock: lock })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the first so many records outlive the machine. One sync serves all who wait.
    fn sync(&self, records: u64) -> Result<(), StoreError> {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if *synced >= records {
            return Ok(());
        }
        let (file, appended) = self.inner().log.file();
        if let Err(source) = file.sync_data() {
            let mut inner = self.inner();
            inner.log.give_up();
            return Err(StoreError::Io { path: inner.log.folder().to_owned(), source });
        }
        *synced = appended;
        Ok(())
    }
}

impl DatasetStore for LogStore {
    fn put(&self, submission: &Submission) -> Result<Put, StoreError> {
        let batch = submission.batch;
        let mut inner = self.inner();
        if inner.holds(batch)? {
            // It may have come a moment ago.
            let records = inner.log.appended();
            drop(inner);
            return self.sync(records).map(|()| Put::Known);
        }
        if !submission.is_whole() {
            return Err(StoreError::Misshapen(batch));
        }
        let payload = encode(submission);
        let (held, found, max) = (inner.bytes, payload.len() as u64, self.max_bytes);
        if held.saturating_add(found) > max {
            return Err(StoreError::Full { held, found, max });
        }
        inner.append(Kind::Batch, batch, &payload)?;
        inner.bytes += found;
        let records = inner.log.appended();
        drop(inner);
        self.sync(records).map(|()| Put::Kept)
    }

    fn list(&self, state: State) -> Result<Vec<BatchId>, StoreError> {
        self.inner().catalogue.list(state)
    }

    fn read(&self, batch: BatchId) -> Result<Submission, StoreError> {
        let inner = self.inner();
        let Some(Some((_, place))) = inner.catalogue.find(batch)? else {
            return Err(StoreError::Unknown(batch));
        };
        let payload = inner.log.read(place, batch)?;
        let path = inner.log.folder().to_owned();
        drop(inner);
        decode(&payload, batch).map_err(|reason| StoreError::Corrupt { path, reason })
    }

    fn judge(&self, batch: BatchId, state: State) -> Result<(), StoreError> {
        let mut inner = self.inner();
        let Some(Some((before, _))) = inner.catalogue.find(batch)? else {
            return Err(StoreError::Unknown(batch));
        };
        if before != state {
            inner.append(Kind::Judged, batch, &[state as u8])?;
        }
        let records = inner.log.appended();
        drop(inner);
        self.sync(records)
    }

    fn forget(&self, student: &str) -> Result<usize, StoreError> {
        let mut inner = self.inner();
        let gone = inner.catalogue.of_student(student)?;
        gone.iter().try_for_each(|batch| inner.append(Kind::Forgotten, *batch, &[]))?;
        let records = inner.log.appended();
        drop(inner);
        // From here on they are forgotten, whatever happens; what follows takes them off the disk.
        self.sync(records)?;
        self.inner().clean()?;
        Ok(gone.len())
    }

    fn summary(&self) -> Result<Vec<Holding>, StoreError> {
        self.inner().catalogue.summary()
    }

    fn is_removed(&self) -> bool {
        self.inner().log.is_removed()
    }

    fn damage(&self) -> &[Damage] {
        &self.damage
    }

    fn lost(&self) -> &[Lost] {
        &self.lost
    }
}

impl Inner {
    /// Adds a record to both.
    fn append(&mut self, kind: Kind, batch: BatchId, payload: &[u8]) -> Result<(), StoreError> {
        let place = self.log.append(kind, batch, payload)?;
        let (log, record) = (&self.log, Record { kind, batch, when: super::log::now(), payload });
        self.catalogue.together(|catalogue| {
            note(catalogue, place, &record)?;
            log.segments()
                .iter()
                .filter(|s| s.number == place.segment)
                .try_for_each(|s| catalogue.has_read(s))
        })
    }

    /// Whether a batch need not come again. What is there of it may have been damaged meanwhile.
    fn holds(&mut self, batch: BatchId) -> Result<bool, StoreError> {
        let place = match self.catalogue.find(batch)? {
            None => return Ok(false),
            Some(None) => return Ok(true),
            Some(Some((_, place))) => place,
        };
        match self.log.read(place, batch) {
            Ok(_) => Ok(true),
            Err(StoreError::Corrupt { .. }) => self.lose(batch),
            Err(StoreError::Io { source, .. })
                if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) =>
            {
                self.lose(batch)
            }
            Err(error) => Err(error),
        }
    }

    fn lose(&mut self, batch: BatchId) -> Result<bool, StoreError> {
        self.catalogue.lost(batch)?;
        self.bytes = self.catalogue.bytes()?;
        Ok(false)
    }

    /// Gives what was known and is not among what is whole, by student. Names that are forgotten stay known.
    fn compare(&mut self, known: Vec<Listed>, whole: &HashSet<BatchId>) -> Result<Vec<Lost>, StoreError> {
        let mut lost = BTreeMap::<String, Lost>::new();
        for Listed { batch, student, transitions, forgotten } in known {
            if forgotten {
                if self.catalogue.find(batch)?.is_none() {
                    self.append(Kind::Forgotten, batch, &[])?;
                }
            } else if !whole.contains(&batch) && !matches!(self.catalogue.find(batch)?, Some(None)) {
                self.catalogue.lost(batch)?;
                let of = || Lost { student: student.clone(), batches: Vec::new(), transitions: 0 };
                let entry = lost.entry(student.clone()).or_insert_with(of);
                entry.batches.push(batch);
                entry.transitions += transitions;
            }
        }
        Ok(lost.into_values().collect())
    }

    /// Takes the transitions of forgotten batches off the disk.
    fn clean(&mut self) -> Result<(), StoreError> {
        let Inner { log, catalogue, bytes } = self;
        for number in catalogue.unclean()? {
            let (segment, moved) = log.rewrite(number, |record| {
                record.kind != Kind::Batch || !matches!(catalogue.find(record.batch), Ok(Some(None)))
            })?;
            catalogue.together(|catalogue| {
                let batches = moved.iter().filter(|(kind, ..)| *kind == Kind::Batch);
                batches.into_iter().try_for_each(|(_, batch, place)| catalogue.moved(*batch, *place))?;
                catalogue.cleaned(number)?;
                catalogue.has_read(&segment)
            })?;
        }
        *bytes = catalogue.bytes()?;
        Ok(())
    }
}

/// Looks for a moment whether the lock is given up: by a server that is just ending, or by a process that this one is just
/// starting, which has its files until it has begun.
fn own(lock: &File) -> Result<(), fs::TryLockError> {
    for _ in 0..LOOKS {
        match lock.try_lock() {
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOOK),
            other => return other,
        }
    }
    lock.try_lock()
}

/// Reads all of the log: shows the catalogue what it has not read yet, and gives the batches that are whole and the bytes that cannot be
/// read.
fn catch_up(
    log: &mut Log,
    catalogue: &Catalogue,
    whole: &mut HashSet<BatchId>,
) -> Result<Vec<Damage>, StoreError> {
    let mut damage = Vec::new();
    for number in log.segments().iter().map(|s| s.number).collect::<Vec<_>>() {
        let from = catalogue.read_to(number)?;
        let damaged = log.scan(number, first_offset(), |place, record| {
            if record.kind == Kind::Batch {
                whole.insert(record.batch);
            }
            if place.offset < from { Ok(()) } else { note(catalogue, place, &record) }
        })?;
        damage.extend(damaged.into_iter().map(|bytes| Damage { segment: number, bytes }));
        log.segments().iter().filter(|s| s.number == number).try_for_each(|s| catalogue.has_read(s))?;
    }
    Ok(damage)
}

/// Tells the catalogue of a record.
fn note(catalogue: &Catalogue, place: Place, record: &Record<'_>) -> Result<(), StoreError> {
    let Record { kind, batch, when, payload } = *record;
    match (kind, payload) {
        (Kind::Batch, payload) => {
            let (student, transitions) = names(payload).unwrap_or_default();
            let bytes = payload.len() as u64;
            catalogue.came(&Came { batch, student: &student, transitions, bytes, when, place })
        }
        (Kind::Judged, [state]) => {
            State::from_byte(*state).map_or(Ok(()), |state| catalogue.judged(batch, state))
        }
        (Kind::Judged, _) => Ok(()),
        (Kind::Forgotten, _) => catalogue.forgotten(batch),
    }
}

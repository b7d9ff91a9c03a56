//! What students submitted, until a teacher learns from it: batches of transitions, each in one of three states.
//!
//! [`FolderStore`] keeps a file per batch, in a folder per state: `quarantine`, `accepted`, `rejected`. A file comes into
//! being in `incoming` and moves by renaming, and files and folders are synced before anyone is told: what
//! [`DatasetStore::put`] has answered outlives the process and the machine, and a batch is in one state at every moment.

use oto_proto::BatchId;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The transitions of one batch, by column; rows are in the order of the student's steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// The batch's name.
    pub batch: BatchId,
    /// The name that its student gave itself.
    pub student: String,
    /// `[rows, observation width]`
    pub observation: Vec<f32>,
    /// `[rows, action width]`; an index is its number.
    pub action: Vec<f32>,
    /// `[rows]`
    pub reward: Vec<f32>,
    /// `[rows, observation width]`
    pub next_observation: Vec<f32>,
    /// `[rows]`
    pub terminated: Vec<bool>,
    /// `[rows]`
    pub truncated: Vec<bool>,
}

impl Submission {
    /// The number of transitions.
    pub fn rows(&self) -> usize {
        self.reward.len()
    }

    /// Whether every column is as long as its rows, and every number finite.
    fn is_whole(&self) -> bool {
        let rows = self.rows();
        let whole =
            |column: &[f32]| column.len().is_multiple_of(rows) && column.iter().all(|x| x.is_finite());
        rows > 0
            && [&self.observation, &self.action, &self.reward, &self.next_observation]
                .into_iter()
                .all(|c| whole(c))
            && self.observation.len() == self.next_observation.len()
            && !self.observation.is_empty()
            && !self.action.is_empty()
            && self.terminated.len() == rows
            && self.truncated.len() == rows
    }
}

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Submitted; nobody learns from it yet.
    Quarantine,
    /// Part of the dataset.
    Accepted,
    /// Not to be learned from.
    Rejected,
}

impl State {
    const ALL: [State; 3] = [State::Quarantine, State::Accepted, State::Rejected];

    fn folder(self) -> &'static str {
        match self {
            State::Quarantine => "quarantine",
            State::Accepted => "accepted",
            State::Rejected => "rejected",
        }
    }
}

/// What became of a batch that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is in quarantine now.
    Kept,
    /// It was here before, in whatever state; nothing changed.
    Known,
}

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system's refusal.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Another process has the folder.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// No room.
    #[error("there is room for {max} bytes of submissions, {held} are taken and this one has {found}")]
    Full {
        /// Bytes held.
        held: u64,
        /// Bytes of the batch.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// Columns that do not belong together, or numbers that are not finite.
    #[error("batch {0} has columns of different lengths, or numbers that are not finite")]
    Misshapen(BatchId),
    /// No batch of this name.
    #[error("there is no batch {0}")]
    Unknown(BatchId),
    /// A file that holds no batch, or not the one it is named after.
    #[error("{path} is no batch: {reason}", path = path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Keeps what students submit.
pub trait DatasetStore: Send + Sync {
    /// Keeps a batch for good, in quarantine, and only then returns. A batch of a name that is here already is not
    /// looked at.
    ///
    /// # Errors
    /// [`StoreError::Misshapen`], [`StoreError::Full`], [`StoreError::Io`].
    fn put(&self, submission: &Submission) -> Result<Put, StoreError>;

    /// The batches in a state, in the order in which they came.
    fn list(&self, state: State) -> Vec<BatchId>;

    /// A batch, whatever its state.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], [`StoreError::Corrupt`], [`StoreError::Io`].
    fn read(&self, batch: BatchId) -> Result<Submission, StoreError>;

    /// Moves a batch to a state for good, and only then returns.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], [`StoreError::Io`].
    fn judge(&self, batch: BatchId, state: State) -> Result<(), StoreError>;
}

/// A store in a folder of its own, with a safetensors file for each batch.
#[derive(Debug)]
pub struct FolderStore {
    folder: PathBuf,
    max_bytes: u64,
    index: Mutex<Index>,
    /// Locked as long as the store lives; the system unlocks what a killed process held.
    _lock: File,
}

#[derive(Debug, Default)]
struct Index {
    batches: HashMap<BatchId, Entry>,
    /// How many ever came.
    next: u64,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    /// Its place among all.
    place: u64,
}

const INCOMING: &str = "incoming";
const ENDING: &str = "safetensors";

impl FolderStore {
    /// Opens a folder, makes it if need be, and clears away what a killed process left half done. `max_bytes` limits the
    /// files of all three states together.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Io`].
    pub fn open(folder: &Path, max_bytes: u64) -> Result<Self, StoreError> {
        for name in [INCOMING].into_iter().chain(State::ALL.map(State::folder)) {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(at(&path))?;
        }
        sync(folder)?;
        let path = folder.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => StoreError::InUse(folder.to_owned()),
            fs::TryLockError::Error(source) => StoreError::Io { path, source },
        })?;
        for (path, _) in files(&folder.join(INCOMING))? {
            fs::remove_file(&path).map_err(at(&path))?;
        }
        let index = Mutex::new(Index::read(folder)?);
        Ok(FolderStore { folder: folder.to_owned(), max_bytes, index, _lock: lock })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, state: State, batch: BatchId) -> PathBuf {
        self.folder.join(state.folder()).join(format!("{batch}.{ENDING}"))
    }
}

impl Index {
    fn read(folder: &Path) -> Result<Self, StoreError> {
        let mut index = Index::default();
        let mut found = Vec::new();
        for state in State::ALL {
            for (path, metadata) in files(&folder.join(state.folder()))? {
                let named = path.extension().is_some_and(|e| e == ENDING);
                let name = path.file_stem().filter(|_| named).and_then(|stem| stem.to_str()?.parse().ok());
                // Whatever else lies there is not ours.
                let Some(batch) = name else { continue };
                let came = metadata.modified().map_err(at(&path))?;
                found.push((came, batch, state, path, metadata.len()));
            }
        }
        // A machine that lost power within a renaming may show both ends of it: the later state counts.
        let decided: HashMap<BatchId, State> = found.iter().map(|f| (f.1, f.2)).collect();
        found.sort_by_key(|(came, batch, ..)| (*came, *batch));
        for (_, batch, state, path, bytes) in found {
            if decided[&batch] != state {
                fs::remove_file(&path).map_err(at(&path))?;
                continue;
            }
            index.add(batch, state, bytes);
        }
        Ok(index)
    }

    fn add(&mut self, batch: BatchId, state: State, bytes: u64) {
        self.batches.insert(batch, Entry { state, place: self.next });
        self.next += 1;
        self.bytes += bytes;
    }
}

impl DatasetStore for FolderStore {
    fn put(&self, submission: &Submission) -> Result<Put, StoreError> {
        let batch = submission.batch;
        // Held until the file is there for good, so that a repetition meanwhile waits and is then known.
        let mut index = self.index();
        if index.batches.contains_key(&batch) {
            return Ok(Put::Known);
        }
        if !submission.is_whole() {
            return Err(StoreError::Misshapen(batch));
        }
        let bytes = encode(submission);
        let (held, found, max) = (index.bytes, bytes.len() as u64, self.max_bytes);
        if held.saturating_add(found) > max {
            return Err(StoreError::Full { held, found, max });
        }
        let incoming = self.folder.join(INCOMING).join(batch.to_string());
        let path = self.path(State::Quarantine, batch);
        let kept = write(&incoming, &bytes).and_then(|()| fs::rename(&incoming, &path).map_err(at(&path)));
        if let Err(error) = kept {
            drop(fs::remove_file(&incoming));
            return Err(error);
        }
        sync(&self.folder.join(State::Quarantine.folder()))?;
        index.add(batch, State::Quarantine, found);
        Ok(Put::Kept)
    }

    fn list(&self, state: State) -> Vec<BatchId> {
        let index = self.index();
        let mut found: Vec<_> = index.batches.iter().filter(|(_, entry)| entry.state == state).collect();
        found.sort_by_key(|(_, entry)| entry.place);
        found.into_iter().map(|(batch, _)| *batch).collect()
    }

    fn read(&self, batch: BatchId) -> Result<Submission, StoreError> {
        let state = self.index().batches.get(&batch).ok_or(StoreError::Unknown(batch))?.state;
        let path = self.path(state, batch);
        let bytes = fs::read(&path).map_err(at(&path))?;
        decode(&bytes, batch).map_err(|reason| StoreError::Corrupt { path, reason })
    }

    fn judge(&self, batch: BatchId, state: State) -> Result<(), StoreError> {
        let mut index = self.index();
        let entry = index.batches.get_mut(&batch).ok_or(StoreError::Unknown(batch))?;
        if entry.state == state {
            return Ok(());
        }
        let (from, to) = (self.path(entry.state, batch), self.path(state, batch));
        fs::rename(&from, &to).map_err(at(&from))?;
        let before = std::mem::replace(&mut entry.state, state);
        sync(&self.folder.join(state.folder()))?;
        sync(&self.folder.join(before.folder()))
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path: path.clone(), source }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(at(path))
}

/// Makes what happened in a folder outlive the machine. Only Unix opens folders; elsewhere a renaming is in the journal.
fn sync(folder: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
    } else {
        Ok(())
    }
}

fn files(folder: &Path) -> Result<Vec<(PathBuf, fs::Metadata)>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let metadata = fs::symlink_metadata(&path).map_err(at(&path))?;
        if metadata.is_file() {
            found.push((path, metadata));
        }
    }
    Ok(found)
}

/// A whole batch as safetensors, with its names in the metadata.
fn encode(s: &Submission) -> Vec<u8> {
    let rows = s.rows();
    let floats = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let flags = |values: &[bool]| values.iter().map(|x| u8::from(*x)).collect::<Vec<u8>>();
    let table = |values: &[f32]| vec![rows, values.len() / rows];
    let columns = [
        ("observation", Dtype::F32, table(&s.observation), floats(&s.observation)),
        ("action", Dtype::F32, table(&s.action), floats(&s.action)),
        ("reward", Dtype::F32, vec![rows], floats(&s.reward)),
        ("next_observation", Dtype::F32, table(&s.next_observation), floats(&s.next_observation)),
        ("terminated", Dtype::BOOL, vec![rows], flags(&s.terminated)),
        ("truncated", Dtype::BOOL, vec![rows], flags(&s.truncated)),
    ];
    let views = columns.iter().filter_map(|(name, dtype, shape, bytes)| {
        Some((*name, TensorView::new(*dtype, shape.clone(), bytes).ok()?))
    });
    let metadata = [("batch", s.batch.to_string()), ("student", s.student.clone())];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into();
    // Columns as long as their shapes say are all that it asks for.
    serialize(views, Some(metadata)).unwrap_or_default()
}

fn decode(bytes: &[u8], batch: BatchId) -> Result<Submission, String> {
    let text = |error: safetensors::SafeTensorError| error.to_string();
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(text)?;
    let file = SafeTensors::deserialize(bytes).map_err(text)?;
    let column = |name: &str, dtype: Dtype| {
        let tensor = file.tensor(name).map_err(text)?;
        match tensor.dtype() == dtype {
            true => Ok(tensor.data().to_vec()),
            false => Err(format!("{name} holds {:?}, expected {dtype:?}", tensor.dtype())),
        }
    };
    let floats = |name: &str| -> Result<Vec<f32>, String> {
        Ok(column(name, Dtype::F32)?.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    };
    let flags = |name: &str| {
        Ok::<_, String>(column(name, Dtype::BOOL)?.into_iter().map(|b| b != 0).collect::<Vec<_>>())
    };
    let names = header.metadata().as_ref();
    let name =
        |key: &str| names.and_then(|m| m.get(key)).cloned().ok_or(format!("it does not name its {key}"));
    if name("batch")? != batch.to_string() {
        return Err(format!("it holds batch {}", name("batch")?));
    }
    let submission = Submission {
        batch,
        student: name("student")?,
        observation: floats("observation")?,
        action: floats("action")?,
        reward: floats("reward")?,
        next_observation: floats("next_observation")?,
        terminated: flags("terminated")?,
        truncated: flags("truncated")?,
    };
    match submission.is_whole() {
        true => Ok(submission),
        false => Err("its columns are of different lengths, or not finite".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A folder of its own, gone at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("oto-dataset-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            Folder(std::env::temp_dir().join(name))
        }

        fn open(&self) -> FolderStore {
            FolderStore::open(&self.0, 1 << 20).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn batch(name: u128, rows: usize) -> Submission {
        let column = |width: usize| (0..rows * width).map(|i| i as f32 + name as f32).collect::<Vec<f32>>();
        Submission {
            batch: BatchId(name),
            student: "tab-1".into(),
            observation: column(3),
            action: column(1),
            reward: column(1),
            next_observation: column(3),
            terminated: (0..rows).map(|i| i + 1 == rows).collect(),
            truncated: vec![false; rows],
        }
    }

    #[test]
    fn batches_and_their_states_outlive_the_store() {
        let folder = Folder::new();
        let store = folder.open();
        for name in 1..=4 {
            assert_eq!(store.put(&batch(name, 5)).unwrap(), Put::Kept);
        }
        store.judge(BatchId(2), State::Accepted).unwrap();
        store.judge(BatchId(3), State::Rejected).unwrap();
        store.judge(BatchId(3), State::Rejected).unwrap();
        assert!(matches!(store.judge(BatchId(9), State::Accepted), Err(StoreError::Unknown(BatchId(9)))));
        assert!(matches!(FolderStore::open(&folder.0, 1), Err(StoreError::InUse(_))));
        drop(store);
        fs::write(folder.0.join("incoming/half"), "half").unwrap();
        fs::write(folder.0.join("quarantine/notes.txt"), "not ours").unwrap();
        // What losing power within a renaming may leave.
        fs::copy(
            folder.0.join(format!("accepted/{}.safetensors", BatchId(2))),
            folder.0.join(format!("quarantine/{}.safetensors", BatchId(2))),
        )
        .unwrap();
        let store = folder.open();
        let ids = |names: &[u128]| names.iter().copied().map(BatchId).collect::<Vec<_>>();
        assert_eq!(store.list(State::Quarantine), ids(&[1, 4]));
        assert_eq!((store.list(State::Accepted), store.list(State::Rejected)), (ids(&[2]), ids(&[3])));
        assert_eq!(fs::read_dir(folder.0.join("incoming")).unwrap().count(), 0);
        assert!(folder.0.join("quarantine/notes.txt").exists());
        for name in 1..=4 {
            assert_eq!(store.put(&batch(name, 7)).unwrap(), Put::Known, "in every state");
            assert_eq!(store.read(BatchId(name)).unwrap(), batch(name, 5), "as it came first");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let folder = Folder::new();
        let store = folder.open();
        type Spoil = fn(&mut Submission);
        let spoils: [Spoil; 5] = [
            |b| b.reward[1] = f32::NAN,
            |b| b.action.truncate(1),
            |b| b.next_observation.push(0.0),
            |b| b.terminated.clear(),
            |b| (b.reward, b.terminated, b.truncated) = Default::default(),
        ];
        for spoil in spoils {
            let mut spoilt = batch(1, 4);
            spoil(&mut spoilt);
            assert!(matches!(store.put(&spoilt), Err(StoreError::Misshapen(BatchId(1)))));
        }
        store.put(&batch(1, 4)).unwrap();
        let held = encode(&batch(1, 4)).len() as u64;
        drop(store);
        let store = FolderStore::open(&folder.0, 2 * held).unwrap();
        store.put(&batch(2, 4)).unwrap();
        let error = store.put(&batch(3, 4)).unwrap_err();
        assert!(
            matches!(error, StoreError::Full { held: h, found, .. } if (h, found) == (2 * held, held)),
            "{error}"
        );
        assert_eq!(store.put(&batch(2, 4)).unwrap(), Put::Known, "what is there needs no room");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = Folder::new();
        let store = folder.open();
        let whole = encode(&batch(1, 3));
        let mut wrong = whole.clone();
        let end = wrong.len();
        // The last number stands before two bytes for each of three rows, how they ended.
        wrong[end - 10..end - 6].copy_from_slice(&f32::NAN.to_le_bytes());
        store.put(&batch(1, 3)).unwrap();
        let path = folder.0.join(format!("quarantine/{}.safetensors", BatchId(1)));
        for bytes in [&whole[..end / 2], &whole[..end - 1], b"", b"{}", &encode(&batch(2, 3)), &wrong] {
            fs::write(&path, bytes).unwrap();
            let error = store.read(BatchId(1)).unwrap_err();
            assert!(matches!(&error, StoreError::Corrupt { path: p, .. } if *p == path), "{error}");
        }
    }
}

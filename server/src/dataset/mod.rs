//! What students submitted, until a teacher learns from it: batches of transitions, each in one of three states.
//!
//! - [`LogStore`] keeps them in a folder: segments of an append-only log (`log`), synced before anyone is told, and a catalogue of
//!   them in SQLite (`catalogue`), which is made of the log;
//! - [`BucketStore`] keeps them in a bucket of an S3-compatible store (`s3`), an object for each;
//! - a batch is a safetensors file in both.
//!
//! The two stores are the cargo feature `replay`.

#[cfg(feature = "replay")]
mod batch;
#[cfg(feature = "replay")]
mod bucket;
#[cfg(feature = "replay")]
mod catalogue;
#[cfg(feature = "replay")]
#[doc(hidden)]
pub mod fuzz;
#[cfg(feature = "replay")]
mod log;
#[cfg(feature = "replay")]
mod open;
#[cfg(feature = "replay")]
mod s3;
#[cfg(feature = "replay")]
mod store;

#[cfg(feature = "replay")]
pub use bucket::BucketStore;
#[cfg(feature = "replay")]
pub use open::open;
#[cfg(feature = "replay")]
pub use store::LogStore;

use oto_proto::BatchId;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

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
}

/// Where a batch stands; the later, the stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Submitted; nobody learns from it yet.
    Quarantine = 0,
    /// Part of the dataset.
    Accepted = 1,
    /// Not to be learned from.
    Rejected = 2,
}

impl State {
    #[cfg(feature = "replay")]
    const ALL: [State; 3] = [State::Quarantine, State::Accepted, State::Rejected];

    /// Its name, in the catalogue and for people.
    pub fn name(self) -> &'static str {
        match self {
            State::Quarantine => "quarantine",
            State::Accepted => "accepted",
            State::Rejected => "rejected",
        }
    }

    #[cfg(feature = "replay")]
    fn from_name(name: &str) -> Option<Self> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }

    #[cfg(feature = "replay")]
    fn from_byte(byte: u8) -> Option<Self> {
        State::ALL.into_iter().find(|state| *state as u8 == byte)
    }
}

/// What is held of a student in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The name that the student gave itself.
    pub student: String,
    /// Where its batches stand.
    pub state: State,
    /// How many there are.
    pub batches: u64,
    /// How many transitions they have.
    pub transitions: u64,
    /// How many bytes they take.
    pub bytes: u64,
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
    /// Something on the disk is not what it should be.
    #[error("{path} is damaged: {reason}", path = path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The catalogue cannot be asked or told.
    #[error("{path}: {reason}", path = path.display())]
    Catalogue {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// A write or a sync failed earlier, and nothing is written until the store is opened anew.
    #[error("{path}: a write failed before; nothing more is written until a restart", path = .0.display())]
    Broken(PathBuf),
    /// A bucket cannot be reached, or does not do what it is asked. It may at another time.
    #[error("{address}: {reason}")]
    Away {
        /// The bucket, with the prefix.
        address: String,
        /// What happened.
        reason: String,
    },
}

/// Bytes of a log that hold nothing that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Number of the segment.
    pub segment: u32,
    /// Which bytes of it.
    pub bytes: Range<u64>,
}

/// Batches of a student that were kept once and cannot be read any more. They are taken when they come again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The name that the student gave itself.
    pub student: String,
    /// Their names.
    pub batches: Vec<BatchId>,
    /// How many transitions they had.
    pub transitions: u64,
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
    ///
    /// # Errors
    /// [`StoreError::Catalogue`].
    fn list(&self, state: State) -> Result<Vec<BatchId>, StoreError>;

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

    /// Deletes all transitions of a student, and gives how many batches they were. Their names stay, so that they do not come
    /// again.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Catalogue`].
    fn forget(&self, student: &str) -> Result<usize, StoreError>;

    /// What is held, by student and state.
    ///
    /// # Errors
    /// [`StoreError::Catalogue`].
    fn summary(&self) -> Result<Vec<Holding>, StoreError>;

    /// Whether the place of the store was removed while it is open: what it knows of is not there any more.
    fn is_removed(&self) -> bool {
        false
    }

    /// What was found damaged when the store was opened; all else is there.
    fn damage(&self) -> &[Damage] {
        &[]
    }

    /// What was kept once and could not be read when the store was opened, by student.
    fn lost(&self) -> &[Lost] {
        &[]
    }
}

#[cfg(all(test, feature = "replay"))]
mod tests {
    use super::batch::{decode, encode, names};
    use super::*;
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A folder of its own, gone at the end.
    pub struct Folder(pub PathBuf);

    impl Folder {
        pub fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("oto-dataset-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            Folder(std::env::temp_dir().join(name))
        }

        fn open(&self) -> LogStore {
            LogStore::open(&self.0, 1 << 20).unwrap()
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

    fn ids(names: &[u128]) -> Vec<BatchId> {
        names.iter().copied().map(BatchId).collect()
    }

    fn holds(store: &LogStore, expected: [&[u128]; 3]) {
        assert_eq!(State::ALL.map(|state| store.list(state).unwrap()), expected.map(ids));
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
        assert!(matches!(LogStore::open(&folder.0, 1), Err(StoreError::InUse(_))));
        drop(store);
        // With its catalogue, without it, with another log's, and with one that is none.
        let spoils: [&dyn Fn(&Path); 4] = [
            &|_| (),
            &|file| fs::remove_file(file).unwrap(),
            &|file| {
                let other = Folder::new();
                let store = other.open();
                (10..20).for_each(|name| assert_eq!(store.put(&batch(name, 5)).unwrap(), Put::Kept));
                drop(store);
                fs::copy(other.0.join("catalogue.sqlite"), file).unwrap();
            },
            &|file| fs::write(file, "this was a catalogue ".repeat(99)).unwrap(),
        ];
        for spoil in spoils {
            spoil(&folder.0.join("catalogue.sqlite"));
            let store = folder.open();
            holds(&store, [&[1, 4], &[2], &[3]]);
            assert!(store.damage().is_empty());
            for name in 1..=4 {
                assert_eq!(store.put(&batch(name, 7)).unwrap(), Put::Known, "in every state");
                assert_eq!(store.read(BatchId(name)).unwrap(), batch(name, 5), "as it came first");
            }
        }
    }

    #[test]
    fn a_student_can_be_forgotten() {
        let folder = Folder::new();
        let store = folder.open();
        for name in 1..=6 {
            let student = if name % 2 == 0 { "even" } else { "odd" };
            store.put(&Submission { student: student.into(), ..batch(name, 5) }).unwrap();
        }
        store.judge(BatchId(2), State::Accepted).unwrap();
        store.judge(BatchId(3), State::Accepted).unwrap();
        let size = || fs::metadata(folder.0.join("000000.log")).unwrap().len();
        let before = size();
        assert_eq!((store.forget("even").unwrap(), store.forget("even").unwrap()), (3, 0));
        assert!(size() < before * 2 / 3, "{} of {before}", size());
        let bytes = fs::read(folder.0.join("000000.log")).unwrap();
        assert!(!bytes.windows(4).any(|w| w == b"even"), "its name went, too");
        let check = |store: &LogStore| {
            holds(store, [&[1, 5], &[3], &[]]);
            assert_eq!(store.put(&batch(4, 5)).unwrap(), Put::Known, "it does not come again");
            assert!(matches!(store.read(BatchId(4)), Err(StoreError::Unknown(_))));
            assert!(matches!(store.judge(BatchId(4), State::Accepted), Err(StoreError::Unknown(_))));
            assert_eq!(store.read(BatchId(5)).unwrap().rows(), 5);
            let held: Vec<_> =
                store.summary().unwrap().iter().map(|h| (h.student.clone(), h.state, h.batches)).collect();
            assert_eq!(held, [("odd".into(), State::Quarantine, 2), ("odd".into(), State::Accepted, 1)]);
        };
        check(&store);
        store.put(&batch(7, 5)).unwrap();
        store.forget("tab-1").unwrap();
        drop(store);
        check(&folder.open());
        fs::remove_file(folder.0.join("catalogue.sqlite")).unwrap();
        check(&folder.open());
    }

    #[test]
    fn threads_put_together() {
        let folder = Folder::new();
        let store = folder.open();
        let put = |name: u128| store.put(&batch(name, 3)).unwrap();
        let kept: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..40).filter(|name| put(*name) == Put::Kept).count()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!((kept, store.list(State::Quarantine).unwrap().len()), (40, 40), "each once");
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
        let store = LogStore::open(&folder.0, 2 * held).unwrap();
        store.put(&batch(2, 4)).unwrap();
        let error = store.put(&batch(3, 4)).unwrap_err();
        assert!(
            matches!(error, StoreError::Full { held: h, found, .. } if (h, found) == (2 * held, held)),
            "{error}"
        );
        assert_eq!(store.put(&batch(2, 4)).unwrap(), Put::Known, "what is there needs no room");
    }

    #[test]
    fn damage_is_told_and_the_rest_is_there() {
        let folder = Folder::new();
        let store = folder.open();
        (1..=3).for_each(|name| assert_eq!(store.put(&batch(name, 3)).unwrap(), Put::Kept));
        drop(store);
        let file = folder.0.join("000000.log");
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let check = |store: &LogStore| {
            assert!(matches!(store.read(BatchId(2)), Err(StoreError::Unknown(_))));
            assert_eq!(store.read(BatchId(3)).unwrap(), batch(3, 3));
            holds(store, [&[1, 3], &[], &[]]);
            assert!(matches!(store.damage(), [Damage { segment: 0, .. }]));
        };
        let store = folder.open();
        check(&store);
        assert_eq!(store.lost(), [Lost { student: "tab-1".into(), batches: ids(&[2]), transitions: 3 }]);
        drop(store);
        // Told once; from then on it may come again.
        let store = folder.open();
        check(&store);
        assert!(store.lost().is_empty());
        drop(store);
        fs::remove_file(folder.0.join("catalogue.sqlite")).unwrap();
        let store = folder.open();
        check(&store);
        assert_eq!(store.put(&batch(2, 3)).unwrap(), Put::Kept, "it may come again");
        assert_eq!(store.put(&batch(2, 3)).unwrap(), Put::Known);
        // It happens while the store is open, too.
        let file = folder.0.join("000000.log");
        let mut bytes = fs::read(&file).unwrap();
        let end = bytes.len() - 8;
        bytes[end] ^= 1;
        fs::write(&file, &bytes).unwrap();
        assert_eq!(store.put(&batch(2, 3)).unwrap(), Put::Kept, "what is there of it is damaged");
        assert_eq!(store.read(BatchId(2)).unwrap(), batch(2, 3));
    }

    /// Whatever becomes of the log's files, each batch that was there and is not is told by name, and taken when it comes again.
    #[test]
    fn batches_that_were_there_are_told_and_asked_for_again() {
        const BATCHES: u128 = 30;
        type Harm = fn(&Path, usize);
        let harms: [(&str, Harm); 6] = [
            ("half a segment cut off", |file, _| {
                let bytes = fs::read(file).unwrap();
                fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
            }),
            ("a few bytes cut off", |file, _| {
                let bytes = fs::read(file).unwrap();
                fs::write(file, &bytes[..bytes.len() - 5]).unwrap();
            }),
            ("cut to nothing", |file, _| fs::write(file, b"").unwrap()),
            ("removed", |file, _| fs::remove_file(file).unwrap()),
            ("a byte changed", |file, seed| {
                let mut bytes = fs::read(file).unwrap();
                let at = 16 + seed * 7919 % (bytes.len() - 16);
                bytes[at] ^= 1 << (seed % 8);
                fs::write(file, bytes).unwrap();
            }),
            ("zeros in the middle", |file, _| {
                let mut bytes = fs::read(file).unwrap();
                let (third, two) = (bytes.len() / 3, bytes.len() / 2);
                bytes[third..two].fill(0);
                fs::write(file, bytes).unwrap();
            }),
        ];
        for (seed, (what, harm)) in harms.iter().cycle().take(24).enumerate() {
            let folder = Folder::new();
            let store = folder.open();
            for name in 1..=BATCHES {
                let student = format!("tab-{}", name % 3);
                store.put(&Submission { student, ..batch(name, 5) }).unwrap();
            }
            store.put(&Submission { student: "gone".into(), ..batch(99, 5) }).unwrap();
            store.forget("gone").unwrap();
            (1..=BATCHES).step_by(4).for_each(|name| store.judge(BatchId(name), State::Accepted).unwrap());
            drop(store);
            harm(&folder.0.join("000000.log"), seed);
            let store = folder.open();
            let lost: Vec<BatchId> = store.lost().iter().flat_map(|lost| lost.batches.clone()).collect();
            let there = |name: &u128| store.read(BatchId(*name)).is_ok();
            let mut missing: Vec<BatchId> = (1..=BATCHES).filter(|name| !there(name)).map(BatchId).collect();
            let mut told = lost.clone();
            missing.sort();
            told.sort();
            assert_eq!(told, missing, "{what}");
            let transitions: u64 = store.lost().iter().map(|lost| lost.transitions).sum();
            assert_eq!(transitions, 5 * lost.len() as u64, "{what}");
            if *what != "a byte changed" && *what != "a few bytes cut off" {
                assert!(lost.len() > 3, "{what}: {}", lost.len());
            }
            for name in 1..=BATCHES {
                let expected = if lost.contains(&BatchId(name)) { Put::Kept } else { Put::Known };
                assert_eq!(store.put(&batch(name, 5)).unwrap(), expected, "{what}: {name}");
                assert!(there(&name));
            }
            assert_eq!(store.put(&batch(99, 5)).unwrap(), Put::Known, "{what}: what was forgotten stays so");
            drop(store);
            let store = folder.open();
            assert!(store.lost().is_empty() && (1..=BATCHES).all(|name| store.read(BatchId(name)).is_ok()));
        }
    }

    #[test]
    fn only_a_whole_batch_is_read() {
        let whole = encode(&batch(1, 3));
        let end = whole.len();
        assert_eq!(decode(&whole, BatchId(1)).unwrap(), batch(1, 3));
        let mut wrong = whole.clone();
        // The last number stands before two bytes for each of three rows, how they ended.
        wrong[end - 10..end - 6].copy_from_slice(&f32::NAN.to_le_bytes());
        for bytes in [&whole[..end / 2], &whole[..end - 1], b"", b"{}", &encode(&batch(2, 3)), &wrong] {
            assert!(decode(bytes, BatchId(1)).is_err());
        }
        assert_eq!((names(&whole), names(b"{}")), (Some(("tab-1".into(), 3)), None));
    }
}

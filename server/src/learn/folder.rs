//! Policies published from a folder: a model file that is replaced (by renaming a whole one onto it) takes its
//! policy's place, if it loads, fits and answers.
//!
//! The folder is looked at from time to time. A file that was refused is not tried again until it changes.

use crate::auth::digest::sha256;
use crate::serve::candidate::{CandidateError, try_out};
use crate::serve::error::ServerError;
use crate::serve::policies::Policies;
use crate::serve::version::Release;
use oto_policy::load::RUN_POLICY;
use oto_policy::metadata::Normalize;
use oto_policy::tensors::MAX_MODEL_BYTES;
use oto_policy::{Loaded, Metadata, load_file};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};
use tracing::{info, warn};

/// What came of a change in the folder, for a log.
#[derive(Debug)]
pub enum Event {
    /// A file's policy is published.
    Published {
        /// The policy.
        policy: String,
        /// Its file.
        path: PathBuf,
    },
    /// A policy's file is gone; what was loaded from it goes on answering.
    Vanished {
        /// The policy.
        policy: String,
        /// Its file.
        path: PathBuf,
    },
    /// A file's policy is not.
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        error: CandidateError,
    },
}

impl Event {
    /// Writes it to the log.
    pub fn log(&self) {
        match self {
            Event::Published { policy, path } => {
                info!(policy, path = &*path.to_string_lossy(), "a file's policy is published");
            }
            Event::Vanished { policy, path } => {
                let path = &*path.to_string_lossy();
                warn!(
                    policy,
                    path, "a policy's file is gone; the policy still answers until the server ends"
                );
            }
            Event::Refused { path, error } => {
                let error = error.to_string();
                warn!(path = &*path.to_string_lossy(), error, "a file is refused, what was before stays");
            }
        }
    }
}

/// What tells that a file was replaced: its checksum, since a replacement may be of the same size and time. Of a file too large for a
/// policy, time and size.
#[derive(Clone, PartialEq)]
enum Stamp {
    Bytes(String),
    Large(SystemTime, u64),
}

/// Watches a folder whose policies are hosted, in a thread that ends when what this gives is dropped.
///
/// # Errors
/// [`ServerError::Thread`].
pub fn watch(
    folder: &Path,
    policies: Policies,
    every: Duration,
    mut log: impl FnMut(Event) + Send + 'static,
) -> Result<Sender<()>, ServerError> {
    let (stop, stopped) = channel();
    let mut looked = Looked { known: stamps(folder), folder: folder.to_owned(), policies };
    std::thread::Builder::new()
        .name("folder".into())
        .spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                looked.again(&mut log);
            }
        })
        .map_err(|_| ServerError::Thread("folder".into()))?;
    Ok(stop)
}

/// A way to look at the folder whenever one likes, for what has changed since.
pub fn look<L: Fn(Event) + Send + 'static>(
    folder: &Path,
    policies: Policies,
    log: L,
) -> impl FnMut() + Send + use<L> {
    let mut looked = Looked { known: stamps(folder), folder: folder.to_owned(), policies };
    move || looked.again(&mut |event| log(event))
}

/// A folder as it was when it was looked at.
struct Looked {
    folder: PathBuf,
    policies: Policies,
    known: HashMap<PathBuf, Stamp>,
}

impl Looked {
    fn again(&mut self, log: &mut impl FnMut(Event)) {
        let now = stamps(&self.folder);
        for path in self.known.keys().filter(|path| !now.contains_key(*path)) {
            if let Some(policy) = name_of(path).filter(|name| self.policies.version(name).is_some()) {
                log(Event::Vanished { policy, path: path.clone() });
            }
        }
        for path in changed(&self.known, &now) {
            log(publish(&path, &self.policies));
        }
        self.known = now;
    }
}

/// All files of the folder, and those of the runs in it.
fn stamps(folder: &Path) -> HashMap<PathBuf, Stamp> {
    let files = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut stamps = HashMap::new();
    for entry in files(folder) {
        let path = entry.path();
        // Of a run only its policy counts, not what it writes as long as it lasts.
        let inside = if path.is_dir() { vec![path.join(RUN_POLICY)] } else { vec![path] };
        for path in inside {
            if let Some(stamp) = stamp(&path) {
                stamps.insert(path, stamp);
            }
        }
    }
    stamps
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    match oto_policy::load::read(path, MAX_MODEL_BYTES) {
        Ok(bytes) => Some(Stamp::Bytes(sha256(&bytes))),
        Err(_) => Some(Stamp::Large(metadata.modified().ok()?, metadata.len())),
    }
}

/// The policies, by their metadata or run's file, of which a file changed. A file that is being written has another
/// name: it is its renaming that counts.
fn changed(before: &HashMap<PathBuf, Stamp>, now: &HashMap<PathBuf, Stamp>) -> Vec<PathBuf> {
    let different = now.iter().filter(|(path, stamp)| before.get(*path) != Some(stamp));
    let mut changed: Vec<PathBuf> = different.flat_map(|(path, _)| policies_of(path)).collect();
    changed.sort();
    changed.dedup();
    changed
}

/// The name of the policy that this file is part of, if it is of one.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    if name == oto_policy::load::RUN_POLICY {
        return Some(path.parent()?.file_name()?.to_string_lossy().into_owned());
    }
    stem(name).map(str::to_owned)
}

/// The name of a model's or metadata's file without its ending.
fn stem(name: &str) -> Option<&str> {
    ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)?.strip_suffix('.'))
}

/// The files by which policies are loaded that this file is part of.
fn policies_of(path: &Path) -> Vec<PathBuf> {
    if path.file_name().is_some_and(|name| name == RUN_POLICY) {
        return vec![path.to_owned()];
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let metadata = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    metadata.filter(|file| file.extension().is_some_and(|e| e == "json") && is_of(file, path)).collect()
}

/// Endings of the files of policy `NAME`.
const ENDINGS: [&str; 8] = ["json", "policy.pth", "onnx", "onnx.data", "safetensors", "zip", "pth", "pkl"];

/// Whether a metadata file is that of a policy which another file is part of: by its name, or because it names it.
fn is_of(file: &Path, part: &Path) -> bool {
    let max = oto_policy::metadata::MAX_METADATA_BYTES as u64;
    let Ok(metadata) = oto_policy::load::read(file, max) else { return false };
    let Ok(metadata) = Metadata::read(&metadata) else { return false };
    let (Some(name), Some(stem)) =
        (part.file_name().and_then(|n| n.to_str()), file.file_stem().and_then(|n| n.to_str()))
    else {
        return false;
    };
    let own = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('.'));
    let is_own = own.is_some_and(|ending| ENDINGS.contains(&ending));
    let statistics = match &metadata.normalize {
        Some(Normalize::File(named)) => named == name,
        _ => false,
    };
    let named = |model: &str| name == model || name.strip_prefix(model) == Some(".data");
    statistics || is_own || metadata.model.as_deref().is_some_and(named)
}

fn publish(path: &Path, policies: &Policies) -> Event {
    let published = || -> Result<String, CandidateError> {
        let Loaded { name, policy, model, .. } = load_file(path)?;
        // A policy that nobody hosts is not tried out.
        policies.metadata(&name)?;
        policies.publish(&name, Release { policy: try_out(policy)?, model, version: 0 })?;
        Ok(name)
    };
    let path = path.to_owned();
    match published() {
        Ok(policy) => Event::Published { policy, path },
        Err(error) => Event::Refused { path, error },
    }
}

//! The run that another run begins with: `oto learn --from RUN`, `oto teach --from RUN`.

use crate::run_folder::{FolderError, RunFolder};
use oto_agent::checkpoint;
use oto_agent::trainer::TrainError;
use oto_rl::engine::Adopted;
use std::path::{Path, PathBuf};

/// Why a run cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A run that saved nothing yet.
    #[error("{} holds no checkpoint: a run writes one every 30 seconds, and at its end", .0.display())]
    NoCheckpoint(PathBuf),
    /// Its checkpoint.
    #[error("{}: {error}", path.display())]
    Checkpoint {
        /// The run folder.
        path: PathBuf,
        /// What is wrong with it.
        error: TrainError,
    },
}

/// What a run begins with.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// Fresh parameters.
    Anew,
    /// Its own checkpoint.
    Resume(&'a [u8]),
    /// Another run.
    From(&'a Origin),
}

/// A run to begin with.
pub struct Origin {
    path: PathBuf,
    /// The id of its environment.
    pub env: String,
    /// Its checkpoint.
    pub file: Vec<u8>,
    /// Its state and settings.
    pub run: oto_agent::origin::Origin,
}

impl Origin {
    /// The run in a folder, as its last checkpoint has it. The folder may be in use.
    ///
    /// # Errors
    /// A folder without a run, a checkpoint that cannot be used.
    pub fn read(path: &Path) -> Result<Self, OriginError> {
        #[derive(serde::Deserialize)]
        struct Config {
            env: String,
        }
        let Config { env } = RunFolder::config(path)?;
        let file = RunFolder::checkpoint(path)?.ok_or_else(|| OriginError::NoCheckpoint(path.to_owned()))?;
        let wrong = |error| OriginError::Checkpoint { path: path.to_owned(), error };
        let run = checkpoint::origin(&file).map_err(wrong)?;
        Ok(Self { path: path.to_owned(), env, file, run })
    }

    /// What came of [`checkpoint::adopt`], or whose failure it was.
    ///
    /// # Errors
    /// The failure, with the run's folder.
    pub fn adopted(&self, adopted: Result<Adopted, TrainError>) -> Result<Adopted, OriginError> {
        adopted.map_err(|error| OriginError::Checkpoint { path: self.path.clone(), error })
    }

    /// Prints what of the run was taken, and the tensors that it lacks.
    pub fn tell(&self, adopted: &Adopted) {
        let (path, name) = (self.path.display(), self.run.name());
        let (source, updates) = (self.run.source, self.run.updates);
        let taken = adopted.taken.len();
        let listed = |what: &str, names: &[String]| match names {
            [] => String::new(),
            names => format!("; {what}: {}", names.join(", ")),
        };
        let (copied, fresh) = (listed("copied", &adopted.copied), listed("fresh", &adopted.fresh));
        crate::note!(
            "continues {path} ({name}, {updates} updates from {source}): {taken} tensors taken{copied}{fresh}"
        );
    }
}

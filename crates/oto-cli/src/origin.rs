//! The run that another run begins with: `oto learn --from RUN`, `oto teach --from RUN`.

use crate::run_folder::{FolderError, RunFolder};
use oto_agent::checkpoint;
use oto_agent::config::{Linear, StudentConfig};
use oto_agent::offline::OfflineConfig;
use oto_agent::trainer::{Source, TrainError};
use oto_rl::algorithms::{Algorithm, AlgorithmConfig, Seen};
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

/// A run to begin with.
pub struct Origin {
    path: PathBuf,
    /// The id of its environment.
    pub env: String,
    /// Its checkpoint.
    pub file: Vec<u8>,
    run: checkpoint::Origin,
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

    /// Its algorithm, if it is one of these and accepts this environment.
    pub fn algorithm(&self, of: fn(&dyn Algorithm) -> bool, seen: Seen) -> Option<&'static dyn Algorithm> {
        let algorithm = self.run.config.algorithm.algorithm();
        (of(algorithm) && algorithm.accepts(seen)).then_some(algorithm)
    }

    /// A student's defaults with the run's settings: those of the algorithm that both have, the discount, and the rest of
    /// the schedules. A run of a dataset has no exploration: it continues with the least of the defaults.
    pub fn student(&self, defaults: &StudentConfig) -> StudentConfig {
        let (run, clock) = (&self.run.config, self.run.clock);
        StudentConfig {
            algorithm: self.settings(&defaults.algorithm),
            gamma: run.gamma,
            n_step: run.n_step,
            learning_rate: run.learning_rate.after(clock),
            epsilon: match self.run.source {
                Source::Dataset => Linear::constant(defaults.epsilon.end),
                Source::Environment | Source::Mixed => run.epsilon.after(clock),
            },
            target_every: run.target_every,
            target_tau: run.target_tau,
            ..defaults.clone()
        }
    }

    /// The same for a teacher.
    pub fn teach(&self, defaults: &OfflineConfig) -> OfflineConfig {
        let (run, clock) = (&self.run.config, self.run.clock);
        OfflineConfig {
            algorithm: self.settings(&defaults.algorithm),
            gamma: run.gamma,
            n_step: run.n_step,
            learning_rate: run.learning_rate.after(clock),
            target_every: run.target_every,
            target_tau: run.target_tau,
            ..defaults.clone()
        }
    }

    /// An algorithm's settings with those of the run's algorithm that have the same name and are valid here.
    fn settings(&self, defaults: &AlgorithmConfig) -> AlgorithmConfig {
        let [mut settings, run] = [defaults, &self.run.config.algorithm]
            .map(|algorithm| serde_json::to_value(algorithm).unwrap_or_default());
        let mut merged = defaults.clone();
        for (key, value) in run.as_object().into_iter().flatten().filter(|(key, _)| *key != "name") {
            let before = settings.clone();
            settings[key] = value.clone();
            match serde_json::from_value::<AlgorithmConfig>(settings.clone()) {
                Ok(valid) if valid.validate().is_ok() => merged = valid,
                _ => settings = before,
            }
        }
        merged
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
        let (path, name) = (self.path.display(), self.run.config.algorithm.name());
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

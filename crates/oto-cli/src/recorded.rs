//! Recorded episodes for a run: a dataset that is read and checked for the environment.

use oto_agent::environments;
use oto_agent::recorded::add_all;
use oto_agent::student::Student;
use oto_agent::trainer::TrainError;
use oto_data::DataError;
pub use oto_data::Dataset;
use oto_env::{EnvError, Space, SpaceTree};
use std::path::{Path, PathBuf};

/// Why a dataset cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The dataset.
    #[error("{}: {error}", path.display())]
    Data {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        error: DataError,
    },
    /// The environment of the run.
    #[error("{env}: {error}")]
    Environment {
        /// Its id.
        env: String,
        /// Why it cannot be made.
        error: EnvError,
    },
    /// A dataset that does not say where it was recorded.
    #[error("{} does not name its environment: give --env", .0.display())]
    NoEnvironment(PathBuf),
    /// A dataset of an environment that is not built in.
    #[error("the dataset is of {env}, which is not built in: --env {hint} plays it in Gymnasium")]
    Elsewhere {
        /// The environment's id in the dataset.
        env: String,
        /// What `--env` takes.
        hint: String,
    },
}

/// The environment of a run with a dataset, if that names it. Where another run or a file does (`elsewhere`), the dataset need not.
///
/// # Errors
/// As [`Read::environment`].
pub fn environment(
    read: Option<&Read>,
    flag: Option<&str>,
    elsewhere: bool,
) -> Result<Option<String>, DatasetError> {
    let named = read.map(|read| read.environment(flag)).transpose();
    if elsewhere { Ok(named.ok().flatten()) } else { named }
}

/// Mixes a dataset, if there is one, into every batch of a student that has not begun.
///
/// # Errors
/// An algorithm that takes none, an episode that cannot be learned from.
pub fn mix(student: &mut Student, data: Option<&Dataset>) -> Result<(), TrainError> {
    let Some(data) = data else { return Ok(()) };
    student.trainer().mix()?;
    add_all(data, |episode| student.trainer().add(episode))
}

/// A dataset that was read.
pub struct Read {
    path: PathBuf,
    /// Its episodes.
    pub data: Dataset,
}

impl Read {
    /// Reads a dataset.
    ///
    /// # Errors
    /// A file that cannot be read, or holds something else.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let wrong = |error| DatasetError::Data { path: path.to_owned(), error };
        Ok(Self { path: path.to_owned(), data: oto_data::read_file(path).map_err(wrong)? })
    }

    /// The environment of this flag, or else the dataset's own.
    ///
    /// # Errors
    /// A dataset that does not name one that can be made here.
    pub fn environment(&self, flag: Option<&str>) -> Result<String, DatasetError> {
        if let Some(env) = flag {
            return Ok(env.into());
        }
        let metadata = &self.data.metadata;
        let env =
            metadata.environment.clone().ok_or_else(|| DatasetError::NoEnvironment(self.path.clone()))?;
        match metadata.gymnasium_id() {
            _ if oto_env::IDS.contains(&oto_env::base_id(&env)) => Ok(env),
            Some((true, id)) => Ok(id),
            // A dataset does not choose the code that runs here.
            Some((false, hint)) => Err(DatasetError::Elsewhere { env, hint }),
            None => Err(DatasetError::Elsewhere { hint: format!("gym:MODULE:{env}"), env }),
        }
    }

    /// The episodes for an environment.
    ///
    /// # Errors
    /// An environment that cannot be made, one with other spaces.
    pub fn for_environment(self, env: &str, quiet: bool) -> Result<Dataset, DatasetError> {
        let failed = |error| DatasetError::Environment { env: env.into(), error };
        let parts = environments::parts(env).map_err(failed)?;
        let environment = environments::environment(env).map_err(failed)?;
        self.fitted([environment.observation_space(), environment.action_space()], parts, quiet)
    }

    /// The episodes for an environment with these spaces, and with these before they are flattened, where they have several parts.
    ///
    /// # Errors
    /// Other spaces.
    pub fn fitted(
        self,
        spaces: [&Space; 2],
        parts: Option<[SpaceTree; 2]>,
        quiet: bool,
    ) -> Result<Dataset, DatasetError> {
        let Self { path, data } = self;
        let fitted = data.fitted(spaces, parts.as_ref().map(|parts| parts.each_ref()));
        let data = fitted.map_err(|error| DatasetError::Data { path: path.clone(), error })?;
        if data.metadata.clipped.actions > 0 && !quiet {
            crate::note!("{}: {}", path.display(), data.metadata.clipped);
        }
        Ok(data)
    }
}

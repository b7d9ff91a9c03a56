//! `oto serve --share NAME=FILE`: an agent that asynchronous workers train, and the file in which it is kept.

use crate::backend;
use crate::options::{Given, OptionsError};
use crate::run_folder::{FolderError, replace};
use oto_agent::checkpoint;
use oto_agent::config::StudentConfig;
use oto_agent::environments;
use oto_agent::hub::{Hub, HubConfig};
use oto_agent::presets;
use oto_agent::trainer::TrainError;
use oto_env::EnvError;
use oto_graph::BackendError;
use oto_json::file;
use oto_rl::algorithms;
use oto_server::{Policies, ServerError, Shares};
use serde::Deserialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tracing::warn;

/// From one checkpoint to the next.
const EVERY: Duration = Duration::from_secs(30);

/// Why an agent cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareFileError {
    /// A flag that names no agent or no file.
    #[error("--share takes NAME=FILE, got {0:?}")]
    Flag(String),
    /// The file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// Settings.
    #[error("{}: {error}", path.display())]
    Options {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: OptionsError,
    },
    /// The environment.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// No such backend in this build.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The agent, or the checkpoint that it continues from.
    #[error("{}: {error}", path.display())]
    Agent {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: TrainError,
    },
    /// The file in which it is kept.
    #[error(transparent)]
    Keep(#[from] FolderError),
    /// The server.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// The file of a shared agent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShareFile {
    /// The environment of the workers.
    env: String,
    /// File in which the agent is kept, to continue from after a restart; without it a restart begins anew.
    keep: Option<PathBuf>,
    /// The most workers at once.
    workers: Option<usize>,
    /// The most updates between the parameters of a gradient and those that it is applied to.
    staleness: Option<u64>,
    /// The longest gradient, as a multiple of the median over all workers.
    norm: Option<f64>,
    /// Settings of the agent that are not the defaults, as those of `oto learn --config`.
    #[serde(default)]
    student: serde_json::Map<String, serde_json::Value>,
}

/// An agent that is ready to be shared.
pub struct Prepared {
    name: String,
    hub: Hub,
    keep: Option<PathBuf>,
}

impl Prepared {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Makes the agent that a flag names.
///
/// # Errors
/// A file that cannot be read or describes no such agent, a checkpoint of another one.
pub fn share(flag: &str) -> Result<Prepared, ShareFileError> {
    let (name, path) = flag.split_once('=').ok_or_else(|| ShareFileError::Flag(flag.into()))?;
    let path = Path::new(path);
    let text = file::read_text(path, file::MAX_SETTINGS)
        .map_err(|error| ShareFileError::File { path: path.into(), error: error.to_string() })?;
    prepare(name, path, &text)
}

/// The agent of the demo's swarm of pages, which comes with the program.
///
/// # Errors
/// None: a test makes it.
pub fn bundled() -> Result<Prepared, ShareFileError> {
    prepare("swarm", Path::new("swarm.toml"), include_str!("../../../server/shares/swarm.toml"))
}

fn prepare(name: &str, path: &Path, text: &str) -> Result<Prepared, ShareFileError> {
    let (config, keep) = parse(path, text)?;
    let backend = backend::by_name(&config.student.backend)?;
    let wrong = |error| ShareFileError::Agent { path: path.into(), error };
    let mut hub = Hub::new(&config, backend.as_ref()).map_err(wrong)?;
    if let Some(kept) = &keep {
        check_place(kept)?;
    }
    if let Some(kept) = keep.as_deref().filter(|kept| kept.exists()) {
        let bytes = file::read_regular(kept, checkpoint::MAX_BYTES)
            .map_err(|error| ShareFileError::File { path: kept.into(), error: error.to_string() })?;
        hub.load(&bytes).map_err(|error| ShareFileError::Agent { path: kept.into(), error })?;
    }
    Ok(Prepared { name: name.into(), hub, keep })
}

/// Whether a file can be kept here: a mistake would be seen only at the first save.
fn check_place(kept: &Path) -> Result<(), ShareFileError> {
    let folder = kept.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wrong = match std::fs::metadata(folder) {
        Ok(found) if !found.is_dir() => format!("keep: expected a folder, {} is none", folder.display()),
        Ok(found) if found.permissions().readonly() => {
            format!("keep: expected a folder that can be written, {} cannot", folder.display())
        }
        Ok(_) => return Ok(()),
        Err(error) => format!("keep: expected an existing folder, got {}: {error}", folder.display()),
    };
    Err(ShareFileError::File { path: kept.into(), error: wrong })
}

/// Reads the file of a shared agent: TOML, or JSON where its name ends so.
fn parse(path: &Path, text: &str) -> Result<(HubConfig, Option<PathBuf>), ShareFileError> {
    let wrong = |error: String| ShareFileError::File { path: path.into(), error };
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let read: ShareFile = match is_json {
        true => serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?,
        false => toml::from_str(text).map_err(|error| wrong(error.to_string()))?,
    };
    let student = student(&read).map_err(|error| ShareFileError::Options { path: path.into(), error })?;
    student.validate().map_err(|error| wrong(error.to_string()))?;
    let usual = HubConfig::new(&read.env, student);
    let config = HubConfig {
        workers: read.workers.unwrap_or(usual.workers),
        staleness: read.staleness.unwrap_or(usual.staleness),
        norm: read.norm.unwrap_or(usual.norm),
        ..usual
    };
    Ok((config, read.keep))
}

/// The agent: the environment's defaults of `a3c`, or of the algorithm that the file names, with its settings over them.
fn student(read: &ShareFile) -> Result<StudentConfig, OptionsError> {
    let (id, seen) = (environments::id(&read.env), environments::seen(&read.env)?);
    let given = Given::new(serde_json::Value::Object(read.student.clone()), &[])?;
    let algorithm = given.algorithm(None)?.or_else(|| algorithms::find("a3c"));
    let preset = presets::preset(id, seen, algorithm);
    let steps = given.over(&preset.student)?.steps;
    given.over(&preset.for_steps(steps).student)
}

/// The agents that are to be kept: names and files.
pub struct ToKeep(Vec<(String, PathBuf)>);

/// The thread that keeps the agents. They are kept once more when it is dropped.
pub struct Keeping {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Begins to share these agents.
///
/// # Errors
/// Two agents of one name, or with one file.
pub fn start(prepared: Vec<Prepared>, policies: &Policies) -> Result<(Shares, ToKeep), ShareFileError> {
    let kept =
        prepared.iter().filter_map(|one| Some((one.name.clone(), one.keep.clone()?))).collect::<Vec<_>>();
    for (i, (name, path)) in kept.iter().enumerate() {
        if let Some((other, _)) = kept[..i].iter().find(|(_, other)| other == path) {
            let error = format!("keep: expected a file for each agent, {other} and {name} have this one");
            return Err(ShareFileError::File { path: path.clone(), error });
        }
    }
    let shares = Shares::new(prepared.into_iter().map(|one| (one.name, one.hub)).collect(), policies)?;
    Ok((shares, ToKeep(kept)))
}

impl ToKeep {
    /// Begins to keep the agents.
    ///
    /// # Errors
    /// No thread.
    pub fn begin(self, shares: &Shares) -> Result<Keeping, ShareFileError> {
        let kept = self.0;
        if kept.is_empty() {
            return Ok(Keeping { stop: None, thread: None });
        }
        let (stop, stopped) = channel::<()>();
        let own = shares.clone();
        let work = move || loop {
            let over = stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Disconnected);
            for (name, path) in &kept {
                if let Err(error) = keep(&own, name, path) {
                    warn!(agent = name, error, "a shared agent is not saved");
                }
            }
            if over {
                return;
            }
        };
        let thread = std::thread::Builder::new().name("keep shared agents".into()).spawn(work);
        let thread = thread.map_err(|_| ServerError::Thread("keep shared agents".into()))?;
        Ok(Keeping { stop: Some(stop), thread: Some(thread) })
    }
}

fn keep(shares: &Shares, name: &str, path: &Path) -> Result<(), String> {
    let Some(saved) = shares.save(name) else { return Ok(()) };
    let bytes = saved?;
    replace(path, |to| to.write_all(&bytes)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<HubConfig, String> {
        parse(Path::new("share.toml"), text).map(|(config, _)| config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_has_an_environment_and_settings() {
        let config = read(
            "env = \"CartPole-v1\"\nworkers = 8\nnorm = 3.0\n[student]\nsteps = 1000\n[student.algorithm]\nname = \"a3c\"\nhidden = [16]",
        )
        .unwrap();
        assert_eq!((config.workers, config.staleness, config.norm), (8, 100, 3.0));
        assert_eq!((config.student.steps, config.student.algorithm.name()), (1000, "a3c"));
        assert_eq!(config.student.learning_rate.steps, 1000, "the schedule follows the steps");
        assert_eq!(read("env = \"CartPole-v1\"").unwrap().student.algorithm.name(), "a3c");
        for (text, said) in [
            ("", "env"),
            ("env = \"CartPole-v1\"\nworker = 8", "worker"),
            ("env = \"CartPole-v1\"\n[student]\ngama = 0.5", "gama"),
            ("env = \"CartPole-v1\"\n[student]\ngamma = 7.0", "gamma"),
            ("env = \"CartPole-v7\"", "CartPole-v7"),
            ("env = 7", "env"),
            ("env = [", "TOML"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        for (flag, said) in [("pole", "NAME=FILE"), ("pole=/nowhere.toml", "/nowhere.toml")] {
            assert!(share(flag).err().unwrap().to_string().contains(said));
        }
    }

    #[test]
    fn an_agent_is_kept_and_continues() {
        let folder = std::env::temp_dir().join(format!("oto-share-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, kept) = (folder.join("pole.json"), folder.join("pole.safetensors"));
        let text = |hidden: u32| {
            let algorithm = serde_json::json!({ "name": "a3c", "hidden": [hidden] });
            serde_json::json!({ "env": "CartPole-v1", "keep": kept, "student": { "algorithm": algorithm } })
                .to_string()
        };
        let flag = format!("pole={}", file.display());
        std::fs::write(&file, text(8)).unwrap();
        let policies = Policies::numbered(Vec::new(), &[]).unwrap();
        let (shares, to_keep) = start(vec![share(&flag).unwrap()], &policies).unwrap();
        let keeping = to_keep.begin(&shares).unwrap();
        let before = shares.save("pole").unwrap().unwrap();
        assert!(shares.save("other").is_none());
        drop(keeping);
        assert_eq!(std::fs::read(&kept).unwrap(), before, "kept at the end");
        let mut again = share(&flag).unwrap();
        assert_eq!(again.hub.save().unwrap(), before);
        assert_eq!(again.hub.version(), 1);
        std::fs::write(&file, text(9)).unwrap();
        assert!(share(&flag).err().unwrap().to_string().contains("it holds a network of"));
        assert!(start(vec![share_of(&folder, "a"), share_of(&folder, "a")], &policies).is_err());
        std::fs::write(&file, text(8)).unwrap();
        let twice = vec![share(&flag).unwrap(), share(&flag.replace("pole=", "other=")).unwrap()];
        let error = start(twice, &policies).err().unwrap().to_string();
        assert!(error.contains("expected a file for each agent, pole and other have this one"), "{error}");
        std::fs::write(&file, text(8).replace("pole.safetensors", "none/pole.safetensors")).unwrap();
        let error = share(&flag).err().unwrap().to_string();
        assert!(error.contains("keep: expected an existing folder"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    fn share_of(folder: &Path, name: &str) -> Prepared {
        let file = folder.join("plain.toml");
        std::fs::write(&file, "env = \"CartPole-v1\"").unwrap();
        share(&format!("{name}={}", file.display())).unwrap()
    }
}

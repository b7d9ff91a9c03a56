//! `oto serve --learn NAME=FILE`: a learner that trains from the rows of edges.

use crate::backend;
use crate::options::{Given, OptionsError};
use oto_agent::environments;
use oto_agent::learner::{Learner, LearnerConfig, LearnerError};
use oto_agent::presets::Seen;
use oto_env::EnvError;
use oto_graph::BackendError;
use oto_rl::algorithms::{self, ALGORITHMS, Algorithm, Data};
use oto_server::learner::{HostError, Prepared, prepare};
use std::path::{Path, PathBuf};

/// Why a learner cannot be hosted.
#[derive(Debug, thiserror::Error)]
pub enum LearnFileError {
    /// A flag that names no learner or no file.
    #[error("--learn takes NAME=FILE, got {0:?}")]
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
    /// The learner.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// The learner's folder.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// A learner's file: its settings, the folder in which it is kept, and the file with the parameters that it begins with.
#[derive(Debug)]
struct LearnFile {
    config: LearnerConfig,
    keep: Option<PathBuf>,
    from: Option<PathBuf>,
}

/// Makes the learner that a flag names.
///
/// # Errors
/// A file that cannot be read or describes no learner.
pub fn learner(flag: &str) -> Result<Prepared, LearnFileError> {
    let (name, file) = flag.split_once('=').ok_or_else(|| LearnFileError::Flag(flag.into()))?;
    make(name, read(Path::new(file))?)
}

/// The learner of the demo's swing-up, which comes with the program.
const SWING_UP: (&str, &str) = ("swing_up", include_str!("../../../server/learners/swing_up.toml"));

/// Makes the learners that come with the program, as its teachers do.
///
/// # Errors
/// None but a missing thread: a test makes them.
pub fn bundled() -> Result<Vec<Prepared>, LearnFileError> {
    let (name, text) = SWING_UP;
    Ok(vec![make(name, parse(Path::new("swing_up.toml"), text)?)?])
}

fn make(name: &str, LearnFile { config, keep, from }: LearnFile) -> Result<Prepared, LearnFileError> {
    let env = environments::environment(&config.env)?;
    let [observation, action] = [env.observation_space().clone(), env.action_space().clone()];
    prepare(name, keep, move || {
        let backend = backend::by_name(&config.backend)?;
        let mut learner = Learner::new(&config, &observation, &action, backend.as_ref())?;
        if let Some(path) = from {
            let wrong = |error: String| LearnFileError::File { path: path.clone(), error };
            let weights = oto_json::file::read_regular(&path, oto_agent::checkpoint::MAX_BYTES);
            learner
                .load_weights(&weights.map_err(|error| wrong(error.to_string()))?)
                .map_err(|error| wrong(error.to_string()))?;
        }
        Ok(learner)
    })
}

/// Reads a learner's file: TOML, or JSON where its name ends so.
fn read(path: &Path) -> Result<LearnFile, LearnFileError> {
    let text = oto_json::file::read_text(path, oto_json::file::MAX_SETTINGS)
        .map_err(|error| LearnFileError::File { path: path.into(), error: error.to_string() })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<LearnFile, LearnFileError> {
    let wrong = |error: String| LearnFileError::File { path: path.into(), error };
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let mut settings: serde_json::Value = match is_json {
        true => serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?,
        false => toml::from_str(text).map_err(|error| wrong(error.to_string()))?,
    };
    let object =
        settings.as_object_mut().ok_or_else(|| wrong("expected settings, got another value".into()))?;
    let mut place = |name: &str, what: &str| match object.remove(name) {
        None => Ok(None),
        Some(serde_json::Value::String(path)) => Ok(Some(PathBuf::from(path))),
        Some(other) => Err(wrong(format!("{name}: expected {what}, got {other}"))),
    };
    let keep = place("keep", "a folder")?;
    let from = place("from", "a file")?;
    let env = object.get("env").and_then(serde_json::Value::as_str).map(str::to_owned);
    let env = env.ok_or_else(|| wrong("expected env, the environment whose spaces the edges have".into()))?;
    let seen = environments::seen(&env)?;
    let options = |error: OptionsError| LearnFileError::Options { path: path.into(), error };
    let given = Given::new(settings, &[]).map_err(options)?;
    let named = given.algorithm(None).map_err(options)?;
    let algorithm = named.unwrap_or_else(|| usual(seen));
    let config = given.over(&LearnerConfig::new(algorithm.defaults(seen))).map_err(options)?;
    Ok(LearnFile { config, keep, from })
}

/// The first algorithm that learns from replay in environments of this kind.
fn usual(seen: Seen) -> &'static dyn Algorithm {
    let replays = ALGORITHMS.iter().copied().filter(|one| one.data().contains(&Data::Replay));
    algorithms::usual(replays, seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_learner_can_be_made() {
        assert_eq!(bundled().unwrap().len(), 1);
    }

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("oto-learner-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn toml_and_json_give_the_same_learner() {
        let toml = r#"
            env = "Pendulum-v1"
            reward = "pendulum"
            keep = "somewhere"
            learning_rate = { start = 1e-3, end = 1e-4, steps = 1000 }
            [algorithm]
            name = "ddpg"
            hidden = [32, 32]
            [exploration]
            noise = 0.2
            correlation = 20
        "#;
        let json = r#"{"env":"Pendulum-v1","reward":"pendulum","keep":"somewhere",
            "learning_rate":{"start":1e-3,"end":1e-4,"steps":1000},"algorithm":{"name":"ddpg","hidden":[32,32]},
            "exploration":{"noise":0.2,"correlation":20}}"#;
        let [toml, json] = [read(&file("a.toml", toml)), read(&file("a.json", json))].map(Result::unwrap);
        assert_eq!((&toml.config, &toml.keep), (&json.config, &json.keep));
        assert_eq!(toml.keep, Some(PathBuf::from("somewhere")));
        assert_eq!(toml.config.exploration.correlation, 20.0);
        assert_eq!(toml.config.algorithm.batch_size(), 256, "what is left out is the algorithm's default");
    }

    #[test]
    fn what_makes_no_learner_is_named() {
        let refused = |name: &str, text: &str| {
            let path = file(name, text);
            learner(&format!("p={}", path.display())).err().unwrap().to_string()
        };
        let pendulum = "env = \"Pendulum-v1\"\nreward = \"pendulum\"\n";
        for (text, says) in [
            ("reward = \"pendulum\"", "expected env"),
            ("env = \"Pendulum-v9\"\nreward = \"pendulum\"", "Pendulum-v9"),
            ("env = \"Pendulum-v1\"\nreward = \"swing\"", "expected one of cartpole_swing_up, pendulum"),
            ("env = \"CartPole-v1\"\nreward = \"pendulum\"", "observations of 3"),
            (&format!("{pendulum}edges = 0"), "edges is 0"),
            (&format!("{pendulum}egdes = 1"), "egdes"),
            (&format!("{pendulum}keep = 3"), "expected a folder, got 3"),
            (&format!("{pendulum}from = 3"), "expected a file, got 3"),
            (&format!("{pendulum}from = \"/nowhere.safetensors\""), "/nowhere.safetensors"),
            (&format!("{pendulum}algorithm = \"ppo\""), "learns from replay"),
            (&format!("{pendulum}algorithm = \"dqn\""), "dqn"),
            ("env =", "TOML"),
        ] {
            let error = refused("bad.toml", text);
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(learner("p").err().unwrap().to_string().contains("NAME=FILE"));
        assert!(learner("p=/nowhere.toml").is_err());
    }
}

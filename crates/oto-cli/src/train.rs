//! `oto serve --train NAME=CONFIG.json`: a teacher that goes on learning from a dataset, and from what students submit,
//! while it answers.

use crate::backend;
use crate::options::{Given, OptionsError};
use crate::submitted::episodes;
use oto_agent::offline::{OfflineConfig, OfflineTrainer};
use oto_agent::recorded::add_all;
use oto_agent::trainer;
use oto_data::{DataError, Dataset};
use oto_env::{EnvError, Space};
use oto_graph::BackendError;
use oto_json::file;
use oto_policy::{Metadata, load};
use oto_rl::algorithms::{self, Algorithm, Seen};
use oto_server::Release;
use oto_server::agent::{AgentConfig, AgentError, Parts, TrainingAgent};
use oto_server::dataset::{DatasetStore, Submission};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that makes a teacher that goes on learning, as the file says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainJob {
    /// What it begins with: a folder as Minari writes it, or an HDF5 file in Minari's or D4RL's layout.
    pub dataset: PathBuf,
    /// The environment it is evaluated in; the dataset's own if absent.
    #[serde(default)]
    pub env: Option<String>,
    /// The algorithm, by its name or as `{"name": ...}` with settings that are not its defaults; the first that fits the
    /// environment if absent.
    #[serde(default)]
    pub algorithm: serde_json::Value,
    /// Other settings that are not the algorithm's defaults.
    #[serde(default)]
    pub teach: serde_json::Map<String, serde_json::Value>,
    /// Stages and evaluations.
    #[serde(default)]
    pub stages: AgentConfig,
    /// Folder for candidates that were refused.
    pub refused: PathBuf,
    /// File in which what was learned is kept, to go on from after a restart; without it a restart begins anew.
    #[serde(default)]
    pub kept: Option<PathBuf>,
}

/// Why a teacher cannot be trained.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A flag that names no policy or no file.
    #[error("--train takes NAME=FILE, got {0:?}")]
    Flag(String),
    /// The file, or a setting in it.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// The dataset.
    #[error("{}: {error}", path.display())]
    Data {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        error: DataError,
    },
    /// A dataset that does not say where it was recorded.
    #[error("{} does not name its environment: set \"env\"", .0.display())]
    NoEnvironment(PathBuf),
    /// The environment.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// No such backend in this build.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The trainer.
    #[error(transparent)]
    Offline(#[from] trainer::TrainError),
    /// The agent around it.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// A policy's name and its job.
///
/// # Errors
/// A flag that is not NAME=FILE, a file that cannot be read or is no job.
pub fn job(flag: &str) -> Result<(String, TrainJob), TrainError> {
    let (name, file) = flag.split_once('=').ok_or_else(|| TrainError::Flag(flag.into()))?;
    let path = PathBuf::from(file);
    let wrong = |error: String| TrainError::File { path: path.clone(), error };
    let text = file::read_text(&path, file::MAX_SETTINGS).map_err(|error| wrong(error.to_string()))?;
    let job: serde_json::Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if !job.is_object() {
        return Err(wrong("expected an object".into()));
    }
    if job.get("method").is_some() {
        let now = "\"method\" is the form of before: write \"algorithm\": \"cql\", or \"algorithm\": {\"name\": \"cql\", and its settings}";
        return Err(wrong(now.into()));
    }
    let job = serde_json::from_value(job).map_err(|error| wrong(error.to_string()))?;
    Ok((name.into(), job))
}

impl TrainJob {
    /// The settings of the file.
    fn given(&self) -> Result<Given, OptionsError> {
        let settings = match &self.algorithm {
            serde_json::Value::Null => serde_json::json!({}),
            algorithm => serde_json::json!({ "algorithm": algorithm }),
        };
        let others = self.teach.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
        Given::new(settings, &others)
    }

    /// What an offline agent works with: a trainer that has the dataset, and where it is evaluated.
    ///
    /// # Errors
    /// A dataset, an environment or settings that do not fit.
    pub fn parts(&self, name: &str, store: Option<Arc<dyn DatasetStore>>) -> Result<Parts, TrainError> {
        let wrong = |error| TrainError::Data { path: self.dataset.clone(), error };
        let data = oto_data::read_file(&self.dataset).map_err(wrong)?;
        let env = self.env.clone().or_else(|| data.metadata.environment.clone());
        let env = env.ok_or_else(|| TrainError::NoEnvironment(self.dataset.clone()))?;
        let environment = oto_env::make(&env)?;
        let spaces = [environment.observation_space().clone(), environment.action_space().clone()];
        data.fits(&spaces[0], &spaces[1]).map_err(wrong)?;
        let given = self.given()?;
        let kind = Seen::actions(&spaces[1]);
        let config = given.over(&OfflineConfig::new(chosen(&given, kind)?.defaults(kind)))?;
        let training = Learner::new(config, spaces, env, Arc::new(data), Vec::new())?;
        Ok(Parts {
            policy: name.into(),
            training: Box::new(training),
            environment,
            store,
            refused: self.refused.clone(),
            kept: self.kept.clone(),
        })
    }
}

/// The algorithm that settings name, or else the first for this kind of environment.
fn chosen(given: &Given, kind: Seen) -> Result<&'static dyn Algorithm, OptionsError> {
    let named = given.algorithm(None)?;
    Ok(named.unwrap_or_else(|| algorithms::usual(algorithms::offline(), kind)))
}

/// [`OfflineTrainer`] as an offline agent's training agent.
struct Learner {
    trainer: OfflineTrainer,
    config: OfflineConfig,
    spaces: [Space; 2],
    env: String,
    data: Arc<Dataset>,
    submitted: Vec<Arc<Submission>>,
}

impl Learner {
    fn new(
        config: OfflineConfig,
        spaces: [Space; 2],
        env: String,
        data: Arc<Dataset>,
        submitted: Vec<Arc<Submission>>,
    ) -> Result<Self, TrainError> {
        let backend = backend::by_name(&config.backend)?;
        let mut trainer = OfflineTrainer::new(&config, &spaces[0], &spaces[1], backend.as_ref())?;
        add_all(&data, |episode| trainer.add(episode))?;
        submitted.iter().try_for_each(|submission| add(&mut trainer, submission))?;
        Ok(Learner { trainer, config, spaces, env, data, submitted })
    }
}

fn failed(error: impl std::fmt::Display) -> AgentError {
    AgentError::Training(error.to_string())
}

impl TrainingAgent for Learner {
    fn train(&mut self, updates: u64) -> Result<(), AgentError> {
        self.trainer.step(updates).map_err(failed)
    }

    fn policy(&mut self) -> Result<Release, AgentError> {
        let model = self.trainer.policy_file(&self.trainer.policy(), &self.env);
        let policy = load(&model, &Metadata::default())?;
        Ok(Release { policy, model: Some(model), version: 0 })
    }

    fn add(&mut self, submission: &Submission) -> Result<(), AgentError> {
        add(&mut self.trainer, submission).map_err(failed)?;
        self.submitted.push(Arc::new(submission.clone()));
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<u8>, AgentError> {
        self.trainer.save().map_err(failed)
    }

    fn load(&mut self, saved: &[u8]) -> Result<bool, AgentError> {
        self.trainer.load(saved).map_err(failed)
    }

    fn fork(&mut self) -> Result<Box<dyn TrainingAgent>, AgentError> {
        let (config, spaces, env) = (self.config.clone(), self.spaces.clone(), self.env.clone());
        let mut copy =
            Learner::new(config, spaces, env, self.data.clone(), self.submitted.clone()).map_err(failed)?;
        match copy.load(&self.save()?)? {
            true => Ok(Box::new(copy)),
            false => Err(failed("a copy was given other data")),
        }
    }
}

/// Adds a student's steps as the pieces of episodes that they are.
fn add(trainer: &mut OfflineTrainer, s: &Submission) -> Result<(), trainer::TrainError> {
    episodes(std::slice::from_ref(s)).iter().try_for_each(|episode| trainer.add(&episode.into()).map(drop))
}

/// What the server lists of a policy that is trained here.
pub fn metadata(job: &TrainJob, release: &Release) -> Metadata {
    let continuous = matches!(release.policy.action_space(), oto_proto::Space::Box { .. });
    let kind = Seen { continuous, images: None };
    let algorithm = job.given().and_then(|given| chosen(&given, kind)).ok();
    Metadata {
        kind: "policy".into(),
        description: Some("Learns here while it answers.".into()),
        env: job.env.clone(),
        algorithm: algorithm.map(|algorithm| format!("oto {}", algorithm.name())),
        observation_space: Some(release.policy.observation_space().clone()),
        action_space: Some(release.policy.action_space().clone()),
        ..Metadata::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_policy::Loaded;
    use oto_server::Policies;
    use oto_server::agent::{Ending, Event, OfflineAgent};
    use std::path::Path;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    fn job(folder: &Path) -> TrainJob {
        let ending = Ending { updates: Some(6), ..Ending::default() };
        let stages = AgentConfig {
            offline: ending,
            slice: 2,
            evaluate_every: 2,
            episodes: 2,
            // Whatever is learned is published.
            margin: 1e6,
            ..AgentConfig::default()
        };
        let teach = serde_json::json!({ "algorithm.quantiles": 8 });
        TrainJob {
            dataset: concat!(env!("CARGO_MANIFEST_DIR"), "/../oto-data/tests/fixtures/cartpole_expert")
                .into(),
            env: None,
            algorithm: serde_json::json!({ "name": "cql", "hidden": [16] }),
            teach: teach.as_object().unwrap().clone(),
            stages,
            refused: folder.join("refused"),
            kept: Some(folder.join("kept")),
        }
    }

    /// Trains for so many slices, as a server does from its start to its end; gives what was kept, and whether it went on.
    fn train(job: &TrainJob, slices: usize) -> (Vec<u8>, bool) {
        let mut parts = job.parts("p", None).unwrap();
        let first = OfflineAgent::first(&mut parts).unwrap();
        let (metadata, version) = (metadata(job, &first), first.version);
        let hosted =
            Loaded { name: "p".into(), metadata, policy: first.policy, model: first.model, warnings: vec![] };
        let (say, heard) = channel();
        let log = Box::new(move |event| drop(say.send(event)));
        let policies = Policies::numbered(vec![(hosted, version)], &[]).unwrap();
        let mut agent = OfflineAgent::new(job.stages.clone(), parts, policies, log).unwrap();
        for _ in 0..slices {
            agent.advance(Duration::ZERO).unwrap();
        }
        let kept = std::fs::read(job.kept.as_ref().unwrap()).unwrap();
        (kept, heard.try_iter().any(|event| matches!(event, Event::Resumed { .. })))
    }

    #[test]
    fn a_file_of_before_is_refused_with_the_form_now() {
        let file = std::env::temp_dir().join(format!("oto-train-form-{}.json", std::process::id()));
        let refused = |text: &str| {
            std::fs::write(&file, text).unwrap();
            super::job(&format!("p={}", file.display())).unwrap_err().to_string()
        };
        let error = refused(r#"{"dataset": "d", "method": "bc", "refused": "r"}"#);
        assert!(error.contains(r#"write "algorithm": "cql""#), "{error}");
        assert!(refused(r#"{"dataset": "d", "algoritm": "bc", "refused": "r"}"#).contains("algoritm"));
        std::fs::remove_file(&file).unwrap();

        let place = std::env::temp_dir();
        let with = |change: fn(&mut TrainJob)| {
            let mut job = job(&place);
            change(&mut job);
            job.parts("p", None).map(drop).unwrap_err().to_string()
        };
        let error = with(|job| drop(job.teach.insert("qrdqn.hidden".into(), serde_json::json!([16]))));
        assert!(error.contains("format 1"), "{error}");
        let error = with(|job| (job.algorithm, job.teach) = (serde_json::json!("ppo"), Default::default()));
        assert!(error.contains("ppo needs an environment"), "{error}");
        let error = with(|job| job.algorithm = serde_json::json!({ "name": "bc", "quantiles": 3 }));
        assert!(error.contains("algorithm.quantiles"), "{error}");
    }

    #[test]
    fn training_goes_on_after_a_restart_as_if_there_had_been_none() {
        let folder = std::env::temp_dir().join(format!("oto-train-{}", std::process::id()));
        let [whole, parted] = ["whole", "parted"].map(|name| job(&folder.join(name)));
        let (expected, resumed) = train(&whole, 7);
        assert!(!resumed);
        train(&parted, 2);
        let (_, resumed) = train(&parted, 1);
        assert!(resumed);
        assert_eq!(train(&parted, 4), (expected, true), "parameters, policy and stage");

        // Three slices of two updates end a stage: the policy that answers is the second one, and is that after a restart.
        let again = OfflineAgent::first(&mut parted.parts("p", None).unwrap()).unwrap();
        assert_eq!(again.version, 2);

        let kept = parted.kept.clone().unwrap();
        let mut bytes = std::fs::read(&kept).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&kept, bytes).unwrap();
        let error = OfflineAgent::first(&mut parted.parts("p", None).unwrap()).err().unwrap();
        assert!(error.to_string().contains("damaged"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}

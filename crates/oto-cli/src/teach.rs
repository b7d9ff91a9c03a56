//! `oto teach`: a teacher from a dataset, in a run folder from which it can be served.

use crate::backend;
use crate::options::{Given, OptionsError, names, tell_unused};
use crate::origin::{Origin, OriginError};
use crate::output;
use crate::recorded::{DatasetError, Read};
use crate::run_folder::{FolderError, RunFolder, SaveError};
use crate::signals;
use crate::threads::ThreadOptions;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use oto_agent::environments;
use oto_agent::evaluation::Evaluation;
use oto_agent::offline::{End, OfflineConfig, OfflineTrainer};
use oto_agent::recorded::add_all;
use oto_agent::run::METRICS;
use oto_agent::student::Event;
use oto_agent::trainer::TrainError;
use oto_env::EnvError;
use oto_graph::BackendError;
use oto_rl::algorithms::{self, Seen as Kind};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Updates from one look at the clock and at Ctrl-C to the next.
const SLICE: u64 = 10;
/// From one checkpoint to the next, where evaluations are rare.
const CHECKPOINT: Duration = Duration::from_secs(30);

/// What to learn from, how, and where it goes.
#[derive(Args, Clone, Debug)]
pub struct TeachOptions {
    /// Dataset: a folder in Minari's layout, or an HDF5 file in Minari's or D4RL's layout
    #[arg(long, value_name = "PATH", required_unless_present = "resume")]
    pub dataset: Option<PathBuf>,
    /// Evaluation environment [default: the dataset's own]
    #[arg(long, value_name = "ID")]
    pub env: Option<String>,
    /// Algorithm [default: the first one that fits the dataset; see `oto algorithms`]
    #[arg(long, value_parser = names(algorithms::offline()))]
    pub algorithm: Option<String>,
    /// Run folder: configuration, metrics, checkpoint, the best policy, curve
    #[arg(long, default_value = "runs/teacher")]
    pub out: PathBuf,
    /// Overwrite an existing run
    #[arg(long)]
    pub force: bool,
    /// Continue the run in this folder, up to --updates if given
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "env", "algorithm", "config", "set", "seed", "from"])]
    pub resume: Option<PathBuf>,
    /// Begin with the networks, targets and optimiser of the run in this folder, of oto learn or oto teach, and with its settings
    /// and the rest of its schedules [default algorithm: the run's, if it learns from datasets]
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// Updates of the whole run
    #[arg(long)]
    pub updates: Option<u64>,
    /// Seed of all random numbers
    #[arg(long, value_parser = clap::value_parser!(u64).range(..1 << 31))]
    pub seed: Option<u64>,
    /// Backend: cpu, or candle for the reference
    #[arg(long)]
    pub backend: Option<String>,
    /// Device of the updates: cpu; or cuda or metal, a graphics card, in a build with the cargo feature of that name
    #[arg(long, value_parser = ["cpu", "cuda", "metal"], conflicts_with = "backend")]
    pub device: Option<String>,
    #[command(flatten)]
    threads: ThreadOptions,
    /// JSON file of settings: config.json of a run folder, or a part of it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, e.g. `--set algorithm.weight=1 --set algorithm.hidden=[64,64]`; repeatable; see docs/teaching.md
    #[arg(long, value_name = "KEY=JSON")]
    pub set: Vec<String>,
    /// Updates between greedy evaluations; 0 for one at the end
    #[arg(long)]
    pub eval_every: Option<u64>,
    /// Episodes in an evaluation
    #[arg(long)]
    pub eval_episodes: Option<u32>,
    /// End the run at an evaluation with this mean return
    #[arg(long, value_name = "RETURN", allow_negative_numbers = true)]
    pub until_return: Option<f64>,
    /// End the run after this number of evaluations without an improvement; 0: never
    #[arg(long, value_name = "EVALUATIONS")]
    pub patience: Option<u32>,
    /// Print each event as a line of JSON, instead of a progress bar
    #[arg(long)]
    pub json: bool,
    /// Print the result only
    #[arg(long, short)]
    pub quiet: bool,
}

/// Why `oto teach` failed.
#[derive(Debug, thiserror::Error)]
pub enum TeachError {
    /// Flags that make no run.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The dataset.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A dataset that is not the one a run began with.
    #[error("{} is not the dataset that the run in {} was made with", dataset.display(), run.display())]
    OtherData {
        /// The dataset.
        dataset: PathBuf,
        /// The run.
        run: PathBuf,
    },
    /// The environment.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// No such backend in this build.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The run it begins with.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// What was to be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The training, when something of it is there already.
    #[error("{error}; what was good until then is in {}", folder.display())]
    Stopped {
        /// What happened.
        error: TrainError,
        /// The run folder.
        folder: PathBuf,
    },
    /// The run folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Nothing that would tell it to stop.
    #[error("cannot wait for signals: {0}")]
    Stop(std::io::Error),
    /// An event that is no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Everything that makes the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeachJob {
    /// The environment's id.
    pub env: String,
    /// Where the dataset is.
    pub dataset: PathBuf,
    /// The settings.
    pub teach: OfflineConfig,
    /// The run whose networks and optimiser it began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
}

/// Makes a teacher as the flags say.
///
/// # Errors
/// Flags, data, environment or folder that do not fit; a training that fails.
pub fn teach(options: &TeachOptions) -> Result<(), TeachError> {
    options.threads.apply(1);
    let stop = signals::flag().map_err(TeachError::Stop)?;
    run(options, &stop)
}

fn run(options: &TeachOptions, stop: &AtomicBool) -> Result<(), TeachError> {
    let origin = options.from.as_deref().map(Origin::read).transpose()?;
    let (job, read, checkpoint) = match &options.resume {
        None => {
            let path = options.dataset.clone().unwrap_or_default();
            let read = Read::open(&path)?;
            (options.job(path, &read, origin.as_ref())?, read, None)
        }
        Some(folder) => {
            let mut job: TeachJob = RunFolder::config_of(folder, "teach")?;
            job.dataset = options.dataset.clone().unwrap_or(job.dataset);
            job.teach.updates = options.updates.unwrap_or(job.teach.updates);
            job.teach.backend = options.device.clone().unwrap_or(job.teach.backend);
            job.teach.until_return = options.until_return.or(job.teach.until_return);
            job.teach.patience = options.patience.unwrap_or(job.teach.patience);
            let read = Read::open(&job.dataset)?;
            (job, read, RunFolder::checkpoint(folder)?)
        }
    };
    job.teach.validate().map_err(TrainError::from)?;
    let algorithm = &job.teach.algorithm;
    environments::check_pixels(&job.env, algorithm.convolution(), algorithm.name(), false)?;
    let parts = environments::parts(&job.env)?;
    let mut environment = environments::environment(&job.env)?;
    let (observation, action) = (environment.observation_space().clone(), environment.action_space().clone());
    let data = read.fitted([&observation, &action], parts, options.quiet)?;
    let backend = backend::by_name(&job.teach.backend)?;
    let mut trainer = OfflineTrainer::new(&job.teach, &observation, &action, backend.as_ref())?;
    add_all(&data, |episode| trainer.add(episode))?;
    let folder = match &options.resume {
        Some(run) => {
            if let Some(file) = checkpoint
                && !trainer.load(&file)?
            {
                return Err(TeachError::OtherData { dataset: job.dataset, run: run.clone() });
            }
            let folder = RunFolder::open_existing(run, trainer.updates())?;
            folder.write_config(&job)?;
            folder
        }
        None => {
            if let Some(origin) = &origin {
                let adopted = origin.adopted(trainer.adopt(&origin.file))?;
                if !options.quiet {
                    origin.tell(&adopted);
                }
            }
            let mut folder = RunFolder::create(&options.out, &job, options.force)?;
            if origin.is_some() {
                // A resume needs the other run no more.
                folder.save(&trainer, &job.env)?;
            }
            folder
        }
    };
    Run { job, trainer, folder, json: options.json, quiet: options.quiet }.go(&mut *environment, stop)
}

impl TeachOptions {
    /// The run these flags mean: the algorithm's defaults for the dataset's actions and the environment's images, then `--config`, then `--set`, then the
    /// other flags.
    fn job(&self, dataset: PathBuf, read: &Read, origin: Option<&Origin>) -> Result<TeachJob, TeachError> {
        let env = read.environment(self.env.as_deref())?;
        let kind = Kind { images: environments::images(&env)?, ..Kind::actions(&read.data.action) };
        let given = Given::settings(self.config.as_deref(), "teach", &self.set)?;
        let named = given.algorithm(self.algorithm.as_deref())?;
        let continued = || origin.and_then(|origin| origin.run.algorithm(|one| one.offline(), kind));
        let algorithm = named.or_else(continued);
        let algorithm = algorithm.unwrap_or_else(|| algorithms::usual(algorithms::offline(), kind));
        let defaults = OfflineConfig::new(algorithm.defaults(kind));
        let usual = origin.map_or(defaults.clone(), |origin| origin.run.teach(&defaults));
        let mut teach = given.over(&usual)?;
        teach.seed = self.seed.unwrap_or(teach.seed);
        teach.updates = self.updates.unwrap_or(teach.updates);
        teach.backend = self.device.clone().or(self.backend.clone()).unwrap_or(teach.backend);
        teach.evaluation.every = self.eval_every.unwrap_or(teach.evaluation.every);
        teach.evaluation.episodes = self.eval_episodes.unwrap_or(teach.evaluation.episodes);
        teach.until_return = self.until_return.or(teach.until_return);
        teach.patience = self.patience.unwrap_or(teach.patience);
        teach.validate().map_err(TrainError::from)?;
        tell_unused(teach.algorithm.name(), &teach.unused(&usual));
        Ok(TeachJob { env, dataset, teach, from: self.from.clone() })
    }
}

/// A run and its folder.
struct Run {
    job: TeachJob,
    trainer: OfflineTrainer,
    folder: RunFolder,
    json: bool,
    quiet: bool,
}

impl Run {
    fn go(mut self, environment: &mut dyn oto_env::Environment, stop: &AtomicBool) -> Result<(), TeachError> {
        let bar = self.bar();
        let mut saved = Instant::now();
        let ended = loop {
            let slice = SLICE.min(METRICS - self.trainer.updates() % METRICS);
            let advance = match self.trainer.advance(environment, slice) {
                Ok(advance) => advance,
                Err(error) if self.trainer.best().is_some() => {
                    self.draw()?;
                    return Err(TeachError::Stopped { error, folder: self.folder.path().to_owned() });
                }
                Err(error) => return Err(error.into()),
            };
            let metrics = self.trainer.metrics();
            bar.set_position(metrics.step);
            if let Some(evaluation) = advance.evaluation {
                self.evaluated(evaluation)?;
                bar.set_message(format!("return {:.1}", evaluation.mean));
            }
            if advance.evaluation.is_some() || metrics.step.is_multiple_of(METRICS) {
                self.folder.snapshot(&metrics)?;
            }
            let over = advance.ended.is_some() || stop.load(Ordering::Relaxed) || output::closed();
            if over || advance.evaluation.is_some() || saved.elapsed() >= CHECKPOINT {
                self.folder.save(&self.trainer, &self.job.env)?;
                saved = Instant::now();
            }
            if over {
                break advance.ended;
            }
        };
        bar.finish_and_clear();
        self.draw()?;
        if !self.json {
            crate::out!("{}", self.summary(ended));
        }
        Ok(())
    }

    fn bar(&self) -> ProgressBar {
        let bar = ProgressBar::new(self.job.teach.updates);
        if self.json || self.quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let template = "{bar:24} {pos}/{len} updates  {per_sec}  {eta} left  {msg}";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_position(self.trainer.updates());
        bar.reset_eta();
        bar
    }

    /// Writes an evaluation down.
    fn evaluated(&mut self, evaluation: Evaluation) -> Result<(), TeachError> {
        let Evaluation { step, mean, min, max, episodes, .. } = evaluation;
        let event = Event::Evaluation { step, mean, min, max, episodes };
        if self.json {
            crate::out!("{}", serde_json::to_string(&event)?);
        }
        self.folder.event(&event)?;
        Ok(())
    }

    fn draw(&mut self) -> Result<(), FolderError> {
        let subtitle = format!("learned from {}", self.job.dataset.display());
        self.folder.draw_curve(&self.job.env, &subtitle, "Updates", &[])
    }

    fn summary(&self, ended: Option<End>) -> String {
        let why = match ended {
            Some(End::Updates) => "all updates made",
            Some(End::Return) => "the return is reached",
            Some(End::NoImprovement) => "no evaluation was better for a while",
            None => "stopped",
        };
        let best = self.trainer.best().map_or("no evaluation".into(), |best| {
            format!("best evaluation {:.1} after {} updates", best.mean, best.step)
        });
        let (env, updates, path) = (&self.job.env, self.trainer.updates(), self.folder.path().display());
        let transitions = self.trainer.transitions();
        format!("{env}: {updates} updates from {transitions} transitions, {best}, {why}; {path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use oto_data::{Collect, DataError, Metadata, collect, write_folder};
    use oto_policy::load_folder;
    use oto_server::Policies;
    use std::fs;
    use std::path::Path;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        teach: TeachOptions,
    }

    /// A folder of its own for each test, removed at its end.
    struct Place(PathBuf);

    impl Place {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("oto-teach-{}-{test}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn at(&self, name: &str) -> String {
            self.0.join(name).display().to_string()
        }

        /// Records somebody who pushes to where the pole leans.
        fn record(&self, name: &str, env: &str, seed: u64) -> String {
            let mut environment = oto_env::make(env).unwrap();
            let options = Collect { steps: 600, seed, epsilon: 0.2, noise: 0.0 };
            let from = Metadata { environment: Some(env.into()), ..Metadata::default() };
            let discrete = matches!(environment.action_space(), oto_env::Space::Discrete { .. });
            let push = |_: bool, seen: &[f32], row: &mut Vec<f32>| {
                let lean = if discrete { seen[2] + 0.5 * seen[3] } else { seen[1] + 0.5 * seen[3] };
                row.push(if discrete { f32::from(lean > 0.0) } else { lean.clamp(-3.0, 3.0) });
                Ok::<_, DataError>(())
            };
            let data = collect(&mut *environment, &options, from, push, |_| {}).unwrap();
            let path = self.at(name);
            write_folder(&data, Path::new(&path)).unwrap();
            path
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn teach(args: &[&str], stop: bool) -> Result<(), TeachError> {
        let options = Cli::try_parse_from([&["oto", "--quiet"], args].concat()).unwrap().teach;
        run(&options, &AtomicBool::new(stop))
    }

    const SMALL: [&str; 10] = [
        "--updates",
        "120",
        "--eval-every",
        "40",
        "--eval-episodes",
        "2",
        "--set",
        "algorithm.hidden=[16]",
        "--set",
        "algorithm.adam.beta1=0.8",
    ];

    #[test]
    fn a_stopped_run_becomes_the_uninterrupted_one_and_can_be_served() {
        let place = Place::new("resume");
        let data = place.record("data", "CartPole-v1", 1);
        for algorithm in ["bc", "cql"] {
            let (whole, parts) =
                (place.at(&format!("{algorithm}-whole")), place.at(&format!("{algorithm}-parts")));
            let begin = |out: &str, stop| {
                let args = ["--dataset", &data, "--algorithm", algorithm, "--out", out];
                teach(&[&args[..], &SMALL].concat(), stop)
            };
            begin(&whole, false).unwrap();
            begin(&parts, true).unwrap();
            let policy = |name: &str| fs::read(Path::new(&parts).join(name)).unwrap();
            assert_eq!(
                policy("policy.safetensors"),
                policy("newest.safetensors"),
                "nothing was evaluated yet"
            );
            teach(&["--resume", &parts], false).unwrap();
            for file in [
                "metrics.jsonl",
                "metrics.csv",
                "checkpoint.safetensors",
                "policy.safetensors",
                "config.json",
            ] {
                let [a, b] = [&whole, &parts].map(|run| fs::read(Path::new(run).join(file)).unwrap());
                assert!(a == b, "{algorithm}: {file} differs");
            }
            let lines = fs::read_to_string(Path::new(&whole).join("metrics.jsonl")).unwrap();
            assert_eq!(lines.matches("\"evaluation\"").count(), 3, "{lines}");
            assert!(Path::new(&whole).join("curve.svg").exists());
            let error = begin(&whole, false).unwrap_err();
            assert!(matches!(error, TeachError::Folder(FolderError::Exists { .. })), "{error}");
        }
        let loaded = load_folder(&place.0).unwrap();
        let names = loaded.iter().map(|l| l.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names, ["bc-parts", "bc-whole", "cql-parts", "cql-whole"]);
        assert_eq!(loaded[0].metadata.env.as_deref(), Some("CartPole-v1"));
        drop(Policies::new(loaded).unwrap());

        let other = place.record("other", "CartPole-v1", 2);
        let error = teach(&["--resume", &place.at("bc-parts"), "--dataset", &other], false).unwrap_err();
        assert!(matches!(error, TeachError::OtherData { .. }), "{error}");
    }

    #[test]
    fn data_that_make_no_teacher_are_named() {
        let place = Place::new("bad");
        let data = place.record("data", "CartPole-v1", 1);
        let out = place.at("run");
        let refused =
            |args: &[&str]| teach(&[&["--out", &out], args].concat(), false).unwrap_err().to_string();
        let error = refused(&["--dataset", &data, "--env", "InvertedPendulum-v5"]);
        assert!(error.contains("1 number from -3 to 3") && error.contains("one of 2 choices"), "{error}");
        let error = refused(&["--dataset", &data, "--env", "Nowhere-v0"]);
        assert!(error.contains("Nowhere-v0"), "{error}");
        assert!(refused(&["--dataset", &place.at("none")]).contains("none"));
        assert!(refused(&["--dataset", &data, "--set", "gama=1"]).contains("gama"));
        assert!(
            refused(&["--dataset", &data, "--backend", "tpu"])
                .contains("\"cpu\", \"candle\", \"cuda\" or \"metal\"")
        );
        #[cfg(not(feature = "cuda"))]
        assert!(refused(&["--dataset", &data, "--device", "cuda"]).contains("cargo feature `cuda`"));
        assert!(!Path::new(&out).exists(), "no run was begun");
    }

    #[test]
    fn the_documentation_names_every_setting() {
        let page = include_str!("../../../docs/teaching.md");
        let settings = serde_json::to_value(OfflineConfig::default()).unwrap();
        for name in settings.as_object().unwrap().keys() {
            assert!(page.contains(&format!("`{name}`")), "{name} is not described");
        }
    }
}

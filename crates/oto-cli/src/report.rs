//! `oto report`: runs an experiment of [`oto_experiments`] and prints its result.

use crate::dataset_make::LevelName;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use oto_experiments::cloud_edge::{Part, Settings};
use oto_experiments::{ALL, Options, ReportError, collaborative, offline_online};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// The experiment, and where its files go.
#[derive(Args, Clone, Debug)]
pub struct ReportOptions {
    /// The experiment
    #[arg(value_parser = names())]
    pub experiment: String,
    /// Output folder of the report, its figures and tables
    #[arg(long, default_value = "docs")]
    pub out: PathBuf,
    /// Folder of finished runs
    #[arg(long, default_value = "runs/report")]
    pub cache: PathBuf,
    /// Concurrent runs [default: one for each core]
    #[arg(long)]
    pub jobs: Option<NonZeroUsize>,
    /// Seeds of each arm [default: 10; 5 for pendulum, cheetah, atari, cloud-edge, offline-to-online and collaborative; 3 for offline-to-online in another environment than pendulum]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: Option<u64>,
    /// cartpole: environment steps of a run
    #[arg(long, default_value_t = 50_000)]
    pub steps: u64,
    /// cartpole: an additional teacher for the ablations, trained offline on random data of CartPole-v1 (a model file, or its
    /// JSON)
    #[arg(long, value_name = "FILE")]
    pub cql_teacher: Option<PathBuf>,
    /// cheetah: the teacher, a policy for HalfCheetah-v5
    #[arg(long, value_name = "FILE")]
    pub sac_teacher: Option<PathBuf>,
    /// cloud-edge: steps in the simulation
    #[arg(long, default_value_t = 1_000_000)]
    pub pretraining: u64,
    /// cloud-edge: training steps on the plant at most
    #[arg(long, default_value_t = 108_000)]
    pub plant_steps: u64,
    /// cloud-edge: widths of the hidden layers
    #[arg(long, value_delimiter = ',', default_value = "256,128,64")]
    pub hidden: Vec<usize>,
    /// cloud-edge: transitions in an update
    #[arg(long, default_value_t = 128)]
    pub batch: usize,
    /// cloud-edge: only these parts [default: all]
    #[arg(long, value_delimiter = ',', value_parser = parts())]
    pub parts: Vec<String>,
    /// offline-to-online: the environment; MuJoCo's bodies need the feature "mujoco"
    #[arg(long, default_value = offline_online::TASKS[0].name, value_parser = tasks())]
    pub environment: String,
    /// offline-to-online: only these levels of data [default: all of the environment]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub levels: Vec<LevelName>,
    /// offline-to-online: updates of the offline part [default: 5000; 10000 for MuJoCo's bodies]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub updates: Option<u64>,
    /// offline-to-online: environment steps of the online part [default: 5000; 10000 for MuJoCo's bodies and mountain-car]
    #[arg(long, value_parser = clap::value_parser!(u64).range(50..))]
    pub online_steps: Option<u64>,
    /// offline-to-online: only these methods [default: all of the environment]
    #[arg(long = "method", value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(offline_online::names()))]
    pub methods: Vec<String>,
    /// collaborative: environment steps of a run
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(400..))]
    pub run_steps: u64,
    /// collaborative: only these arms [default: all]
    #[arg(long = "arm", value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(collaborative::names()))]
    pub arms: Vec<String>,
    /// cloud-edge, offline-to-online, collaborative: report the kept runs alone, make none
    #[arg(long)]
    pub finished: bool,
}

/// The experiments there are.
fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(ALL.iter().map(|one| PossibleValue::new(one.name).help(one.about)))
}

/// The parts of cloud-edge.
fn parts() -> PossibleValuesParser {
    PossibleValuesParser::new(Part::ALL.map(Part::name))
}

/// The environments of offline-to-online.
fn tasks() -> PossibleValuesParser {
    PossibleValuesParser::new(offline_online::TASKS.iter().map(|task| task.name))
}

impl ReportOptions {
    fn offline_online(&self) -> offline_online::Settings {
        let task = offline_online::TASKS.iter().find(|task| task.name == self.environment);
        let usual = offline_online::Settings::of(task.expect("the parser knows the environments"));
        let levels = match self.levels.as_slice() {
            [] => usual.levels.clone(),
            some => some.iter().map(|name| name.level()).collect(),
        };
        offline_online::Settings {
            updates: self.updates.unwrap_or(usual.updates),
            steps: self.online_steps.unwrap_or(usual.steps),
            levels,
            methods: if self.methods.is_empty() { usual.methods.clone() } else { self.methods.clone() },
            finished: self.finished,
            ..usual
        }
    }
}

/// Makes the report.
///
/// # Errors
/// A run or a file that failed.
pub fn report(options: &ReportOptions) -> Result<(), ReportError> {
    let ReportOptions { experiment, out, cache, jobs, seeds, steps, cql_teacher, sac_teacher, .. } =
        options.clone();
    let ReportOptions { pretraining, plant_steps, hidden, batch, parts, .. } = options.clone();
    let parts = parts.iter().filter_map(|name| Part::named(name)).collect();
    let offline_online = options.offline_online();
    let ReportOptions { run_steps, arms, finished, .. } = options.clone();
    let cloud_edge = Settings { pretraining, steps: plant_steps, hidden, batch, parts, finished };
    let collaborative = collaborative::Settings { steps: run_steps, arms, finished };
    let tell = |line: &str| crate::note!("{line}");
    let options = Options {
        out,
        cache,
        jobs,
        seeds,
        steps,
        cql_teacher,
        sac_teacher,
        cloud_edge,
        offline_online,
        collaborative,
        tell,
    };
    let found = ALL.iter().find(|one| one.name == experiment).expect("the parser knows the names");
    crate::out!("{}", (found.run)(&options)?);
    Ok(())
}

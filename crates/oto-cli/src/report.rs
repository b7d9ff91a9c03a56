//! `oto report`: runs an experiment of [`oto_experiments`] and prints its result.

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
    /// Seeds of each arm [default: 10; 5 for pendulum, cheetah, atari, cloud-edge, offline-to-online and collaborative]
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
    /// offline-to-online: updates of the offline part
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub updates: u64,
    /// offline-to-online: environment steps of the online part
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(50..))]
    pub online_steps: u64,
    /// offline-to-online: only these methods [default: all]
    #[arg(long = "method", value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(offline_online::names()))]
    pub methods: Vec<String>,
    /// collaborative: environment steps of a run
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(400..))]
    pub run_steps: u64,
    /// collaborative: only these arms [default: all]
    #[arg(long = "arm", value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(collaborative::names()))]
    pub arms: Vec<String>,
    /// offline-to-online, collaborative: report the kept runs alone, make none
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

/// Makes the report.
///
/// # Errors
/// A run or a file that failed.
pub fn report(options: &ReportOptions) -> Result<(), ReportError> {
    let ReportOptions { experiment, out, cache, jobs, seeds, steps, cql_teacher, sac_teacher, .. } =
        options.clone();
    let ReportOptions { pretraining, plant_steps, hidden, batch, parts, .. } = options.clone();
    let parts = parts.iter().filter_map(|name| Part::named(name)).collect();
    let cloud_edge = Settings { pretraining, steps: plant_steps, hidden, batch, parts };
    let ReportOptions { updates, online_steps, methods, finished, .. } = options.clone();
    let offline_online =
        offline_online::Settings { updates, steps: online_steps, methods, finished, ..Default::default() };
    let ReportOptions { run_steps, arms, .. } = options.clone();
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

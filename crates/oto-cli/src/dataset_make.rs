//! `oto dataset make`: a dataset of one of D4RL's levels, see [`oto_agent::levels`].

use crate::options::{Given, OptionsError};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use oto_agent::environments;
use oto_agent::levels::{self, LevelError, Plan};
use oto_cpu::Cpu;
use oto_data::{Dataset, Level, Reference};
use std::path::PathBuf;

/// Which dataset, and where to keep it.
#[derive(Args, Clone, Debug)]
pub struct MakeOptions {
    /// Environment, such as Pendulum-v1 or mujoco:Hopper-v5
    pub env: String,
    /// Level, as D4RL defines it
    #[arg(long, value_enum)]
    pub level: LevelName,
    /// Least number of steps of each policy; the last episode is finished. A replay has the steps of its training
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub steps: u64,
    /// Environment steps of the expert's training [default: 300000 for gym: and mujoco:, 50000 for discrete actions, 20000 for others]
    #[arg(long)]
    pub train_steps: Option<u64>,
    /// Seed of training, parameters and episodes
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..1 << 31))]
    pub seed: u64,
    /// Mean returns of a random policy and of an expert, which define scores: RANDOM,EXPERT [default: those measured for this
    /// environment, or those of this training run]
    #[arg(
        long,
        value_name = "RANDOM,EXPERT",
        value_delimiter = ',',
        num_args = 1,
        allow_negative_numbers = true
    )]
    pub reference: Option<Vec<f64>>,
    /// One setting of the training, e.g. `--set algorithm.hidden=[64,64]`; repeatable
    #[arg(long, value_name = "KEY=JSON")]
    pub set: Vec<String>,
    /// Output folder; Minari looks for it at MINARI_DATASETS_PATH/ID
    #[arg(long)]
    pub out: PathBuf,
    /// Name of the dataset [default: ENVIRONMENT/LEVEL-v0]
    #[arg(long)]
    pub id: Option<String>,
}

/// The levels as the command line names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LevelName {
    /// A policy with random parameters
    Random,
    /// A policy trained to a third of the expert's score
    Medium,
    /// The replay buffer of that training
    MediumReplay,
    /// Half of the medium policy, half of the expert
    MediumExpert,
    /// A policy trained to the end
    Expert,
}

impl LevelName {
    /// The level.
    pub fn level(self) -> Level {
        match self {
            Self::Random => Level::Random,
            Self::Medium => Level::Medium,
            Self::MediumReplay => Level::MediumReplay,
            Self::MediumExpert => Level::MediumExpert,
            Self::Expert => Level::Expert,
        }
    }
}

/// Why a level could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// Reference returns that normalise nothing.
    #[error(
        "--reference is {0}: expected RANDOM,EXPERT, two finite returns, the expert's above the random policy's"
    )]
    Reference(String),
    /// A setting of the training.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The level.
    #[error(transparent)]
    Level(#[from] LevelError),
}

/// Makes the dataset.
///
/// # Errors
/// Flags that make no plan, and what [`levels::make`] says.
pub fn make(options: &MakeOptions) -> Result<Dataset, MakeError> {
    let MakeOptions { env, level, steps, seed, .. } = options;
    let reference = match options.reference.as_deref() {
        None => Reference::of(environments::id(env)),
        Some(given) => Some(reference(given)?),
    };
    let seen = environments::seen(env).map_err(LevelError::from)?;
    let of_a_library = env.starts_with("gym:") || env.starts_with("mujoco:");
    let usual = levels::student(environments::id(env), seen, of_a_library, *seed);
    let mut student = Given::new(serde_json::json!({}), &options.set)?.over(&usual)?;
    student.steps = options.train_steps.unwrap_or(student.steps);
    let bar = ProgressBar::new(student.steps);
    let template = "{msg} {bar:24} {pos}/{len} steps  {per_sec}  {eta} left";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let train_steps = student.steps;
    let plan = Plan {
        environment: env,
        make: &|| environments::environment(env),
        backend: &Cpu,
        level: level.level(),
        student,
        steps: usize::try_from(*steps).unwrap_or(usize::MAX),
        reference,
        id: options.id.clone(),
        specification: environments::specification(env, false).map_err(LevelError::from)?,
    };
    let made = levels::make(&plan, |phase, done| {
        if done == 1 {
            bar.set_message(phase);
            bar.set_length(if phase == "train" { train_steps } else { *steps });
        }
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(made?)
}

fn reference(given: &[f64]) -> Result<Reference, MakeError> {
    let checked = match *given {
        [random, expert] => Reference { random, expert }.checked(),
        _ => None,
    };
    let shown = || given.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
    checked.ok_or_else(|| MakeError::Reference(shown()))
}

//! `oto report`: experiments that anyone can rerun, written up in docs/results.md.
//!
//! A finished run is kept under its configuration's fingerprint, so that a report that was interrupted goes on, and a
//! second one is quick. Teachers sit in this process behind the real codec, so that bytes on the wire are counted.

mod ablations;
mod atari;
mod cartpole;
mod cell;
mod cost;
mod fusion;
mod games;
mod runs;
mod soft_targets;
mod statistics;
mod teachers;
mod write;

use crate::learn::RunError;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Which experiment, and where its files go.
#[derive(Args, Clone, Debug)]
pub struct ReportOptions {
    /// The experiment
    pub experiment: Experiment,
    /// Output folder of the report, its figures and tables
    #[arg(long, default_value = "docs")]
    pub out: PathBuf,
    /// Folder of finished runs
    #[arg(long, default_value = "runs/report")]
    pub cache: PathBuf,
    /// Concurrent runs [default: one for each core]
    #[arg(long)]
    pub jobs: Option<std::num::NonZeroUsize>,
    /// Seeds of each arm [default: 10; 5 for pendulum, cheetah and atari]
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
}

/// The experiments there are.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Experiment {
    /// CartPole with InvertedPendulum's SAC agent as teacher, beside learning alone and bad teachers
    Cartpole,
    /// Bytes on the wire of a taught run, beside sending a dataset, a replay buffer or the teacher's weights
    Cost,
    /// Cell selection in 5G with an LTE agent as teacher, beside learning alone and rules
    Cell,
    /// Two Atari games in Python (gymnasium, ale-py) with teachers from datasets, beside learning alone
    Atari,
    /// Pendulum: PPO and its fusion policy alone, and the fusion policy taught by a soft actor-critic
    Pendulum,
    /// The same on HalfCheetah, with a small machine's budget
    Cheetah,
}

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A run failed.
    #[error("{arm}, seed {seed}: {error}")]
    Run {
        /// Which arm.
        arm: String,
        /// Which seed.
        seed: u64,
        /// What happened.
        error: Box<RunError>,
    },
    /// A policy could not be played.
    #[error(transparent)]
    Eval(#[from] Box<crate::eval::EvalError>),
    /// Returns that cannot be compared.
    #[error(transparent)]
    Evaluation(#[from] oto_agent::evaluation::EvaluationError),
    /// A bundled teacher cannot be used.
    #[error(transparent)]
    Policy(#[from] oto_policy::PolicyError),
    /// A report's teacher was not given.
    #[error(
        "this report needs its teacher: make one by `oto learn --env mujoco:HalfCheetah-v5 --steps 100000 --seed 1 --out teacher` \
         and give --sac-teacher teacher/newest.safetensors"
    )]
    NoTeacher,
    /// Episodes could not be recorded.
    #[error(transparent)]
    Data(#[from] oto_data::DataError),
    /// A teacher could not be made of them.
    #[error(transparent)]
    Offline(#[from] oto_agent::trainer::TrainError),
    /// A picture could not be drawn.
    #[error(transparent)]
    Chart(#[from] crate::chart::ChartError),
    /// A file could not be written or read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
}

impl From<crate::eval::EvalError> for ReportError {
    fn from(error: crate::eval::EvalError) -> Self {
        Self::Eval(Box::new(error))
    }
}

/// Makes the report.
pub fn report(options: &ReportOptions) -> Result<(), ReportError> {
    match options.experiment {
        Experiment::Atari => atari::report(options),
        Experiment::Cartpole => cartpole::report(options),
        Experiment::Cost => cost::report(options),
        Experiment::Cell => cell::report(options),
        Experiment::Pendulum => fusion::pendulum(options),
        Experiment::Cheetah => fusion::cheetah(options),
    }
}

//! Experiments that anyone can repeat, and their reports in docs/results.md. An experiment is a file in `experiments` and a line
//! in [`ALL`].
//!
//! A finished run is kept under its configuration's fingerprint, so an interrupted report continues, and a second one is quick.
//! Teachers are in this process behind the real codec, so bytes on the wire are counted.
//!
//! [`play`] plays policies in the same episodes; [`chart`] draws curves. `oto eval` and `oto learn` use them, too.
#![forbid(unsafe_code)]

pub mod chart;
pub mod distilled;
mod experiments;
pub mod play;
mod runs;
mod soft_targets;
mod statistics;
mod teachers;
mod write;

pub use experiments::{ALL, cloud_edge, collaborative, offline_online};

use oto_agent::run::RunError;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// An experiment.
pub struct Experiment {
    /// Its name on the command line, in the report and in the names of its files.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// Makes the missing runs, writes the report, and gives one line about the result.
    pub run: fn(&Options) -> Result<String, ReportError>,
}

/// Where an experiment's files go, and how much of it runs.
pub struct Options {
    /// Output folder of the report, its figures and tables.
    pub out: PathBuf,
    /// Folder of finished runs.
    pub cache: PathBuf,
    /// Concurrent runs; one for each core by default.
    pub jobs: Option<NonZeroUsize>,
    /// Seeds of each arm; the experiment's own number by default.
    pub seeds: Option<u64>,
    /// cartpole: environment steps of a run.
    pub steps: u64,
    /// cartpole: an additional teacher for the ablations.
    pub cql_teacher: Option<PathBuf>,
    /// cheetah: the teacher.
    pub sac_teacher: Option<PathBuf>,
    /// cloud-edge: how much of it runs.
    pub cloud_edge: cloud_edge::Settings,
    /// offline-to-online: how much of it runs.
    pub offline_online: offline_online::Settings,
    /// collaborative: how much of it runs.
    pub collaborative: collaborative::Settings,
    /// Takes lines about long work.
    pub tell: fn(&str),
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
    /// A run in virtual time failed.
    #[error(transparent)]
    Virtual(#[from] Box<oto_agent::virtual_time::VirtualError>),
    /// A policy could not be played.
    #[error(transparent)]
    Play(#[from] Box<crate::play::PlayError>),
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
    /// A dataset of a level could not be made.
    #[error(transparent)]
    Level(#[from] oto_agent::levels::LevelError),
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

impl From<crate::play::PlayError> for ReportError {
    fn from(error: crate::play::PlayError) -> Self {
        Self::Play(Box::new(error))
    }
}

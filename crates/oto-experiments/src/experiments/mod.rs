//! The experiments: a file and a line each.

mod ablations;
mod atari;
mod cartpole;
mod cell;
mod cheetah;
pub mod cloud_edge;
pub mod collaborative;
mod cost;
mod fusion;
mod games;
pub mod offline_online;
mod pendulum;

use crate::Experiment;

/// All experiments, in the order of `oto report --help`.
pub const ALL: &[Experiment] = &[
    cartpole::EXPERIMENT,
    cost::EXPERIMENT,
    cell::EXPERIMENT,
    atari::EXPERIMENT,
    pendulum::EXPERIMENT,
    cheetah::EXPERIMENT,
    cloud_edge::EXPERIMENT,
    offline_online::EXPERIMENT,
    collaborative::EXPERIMENT,
];

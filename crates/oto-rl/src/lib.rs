//! Networks, losses, replay, algorithms and schedules: the papers, once, for every backend.

pub mod actions;
pub mod algorithms;
pub mod aligner;
pub mod checks;
pub mod convolution;
mod critics;
pub mod distillation;
pub mod engine;
pub mod exploration;
pub mod losses;
// The algorithms that every page loads are not recurrent.
#[cfg_attr(not(feature = "every-algorithm"), allow(dead_code))]
pub mod lstm;
pub mod mlp;
pub mod network;
mod noise;
pub mod normaliser;
pub mod observations;
pub mod optimiser;
#[cfg(feature = "every-algorithm")]
mod recurrent;
pub mod replay;
pub mod rollout;
pub mod schedule;
pub mod shared;

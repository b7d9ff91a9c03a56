//! Networks, losses, replay, agents and schedules: the papers, once, for every backend.

pub mod agent;
pub mod convolution;
pub mod engine;
pub mod losses;
pub mod mlp;
pub mod observations;
pub mod optimiser;
pub mod qrdqn;
pub mod replay;
pub mod sac;

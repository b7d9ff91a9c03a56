//! Networks, losses, replay, agents and schedules: the papers, once, for every backend.

pub mod actions;
pub mod agent;
pub mod bc;
pub mod convolution;
mod critics;
pub mod engine;
pub mod losses;
pub mod mlp;
pub mod network;
mod noise;
pub mod observations;
pub mod optimiser;
pub mod ppo;
pub mod qrdqn;
pub mod replay;
pub mod rollout;
pub mod sac;
pub mod sac_discrete;

//! Networks, losses, replay, agents and schedules: the papers, once, for every backend.

pub mod agent;
pub mod bc;
pub mod engine;
pub mod losses;
pub mod mlp;
pub mod optimiser;
pub mod qrdqn;
pub mod replay;
pub mod sac;

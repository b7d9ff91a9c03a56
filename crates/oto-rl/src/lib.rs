//! Networks, losses, replay, agents and schedules: the papers, once, for every backend.

pub mod mlp;

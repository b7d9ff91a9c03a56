//! The learner: the role of a server that trains from the rows of actors and sends them weights.
//!
//! [`session`] is one actor's connection. [`train`] has the training, [`config`] its settings, [`reward`] the reward functions,
//! [`edge_replay`] the state of each edge, [`checkpoint`] the file that restores a learner.

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod checkpoint;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod config;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod edge_replay;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod reward;
pub mod session;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod train;

pub use session::{Accepted, Edge, LearnerSession, Offer, Refusal};
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub use {
    config::LearnerConfig,
    edge_replay::EdgeReplay,
    train::{Counts, Episode, Learner, LearnerError},
};

#[cfg(test)]
mod tests;

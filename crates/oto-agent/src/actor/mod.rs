//! The actor: the role of an edge that acts with weights that a learner in the cloud trains.
//!
//! The control loop ([`real_time`]) decides ([`decide`]) with the newest weights that have arrived ([`buffer`]) and explores ([`explore`]).
//! It never waits for a socket, a lock or memory. It writes its rows into a ring ([`mod@ring`]); the link ([`link`]) sends them and receives
//! weights.

pub mod buffer;
pub mod decide;
#[cfg(not(target_family = "wasm"))]
pub mod drive;
pub mod explore;
pub mod link;
pub mod real_time;
pub mod ring;
#[cfg(test)]
mod simulation;

pub use buffer::DoubleBuffer;
pub use link::{ActorConfig, ActorLink};
pub use real_time::Loop;
pub use ring::{Reader, Recorder};

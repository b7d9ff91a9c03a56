//! The actor: the role of an edge that acts with weights that a learner in the cloud trains.
//!
//! The control loop ([`real_time`]) decides ([`decide`]) with the newest weights that have arrived ([`buffer`]) and explores ([`explore`]).
//! It never waits for a socket, a lock or memory. It writes its rows into a ring ([`mod@ring`]); the link ([`link`]) sends them and receives
//! weights.
//!
//! An actor is two halves: its steps ([`control`]) and its link's side ([`exchange`]). Natively each has a thread (`drive`); a page and a WASI host have
//! both on one ([`edge`], `one_thread`).

pub mod buffer;
pub mod control;
pub mod decide;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod drive;
pub mod edge;
pub mod exchange;
pub mod explore;
pub mod link;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod one_thread;
pub mod real_time;
pub mod report;
pub mod ring;
pub mod run;
#[cfg(test)]
mod simulation;

pub use buffer::DoubleBuffer;
pub use edge::Edge;
pub use link::{ActorConfig, ActorLink};
pub use real_time::Loop;
pub use report::{ActorMetrics, ActorReport};
pub use ring::{Reader, Recorder};
pub use run::ActorRun;

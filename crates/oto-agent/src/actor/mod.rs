//! The actor: the role of an edge that acts with weights that a learner in the cloud trains.
//!
//! The control loop ([`real_time`]) decides ([`decide`]) with the newest weights that have arrived ([`buffer`]) and explores ([`explore`]).
//! It never waits for a socket, a lock or memory.

pub mod buffer;
pub mod decide;
pub mod explore;
pub mod real_time;

pub use buffer::DoubleBuffer;
pub use real_time::Loop;

//! Offline datasets: episodes that some policy played, for teachers that learn without an environment.
//!
//! [`Dataset`] is plain memory: spaces and episodes. Whoever has one from outside calls [`Dataset::check`] or
//! [`Dataset::fits`] before using it.
#![forbid(unsafe_code)]

mod dataset;
mod error;

pub use dataset::{Dataset, Episode, Metadata, Transition};
pub use error::DataError;

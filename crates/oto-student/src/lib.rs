//! The student: teacher link, stages and the training loop.

pub mod config;
pub mod link;
pub mod stage;
pub mod trainer;

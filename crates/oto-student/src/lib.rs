//! The student: teacher link, stages and the training loop.

pub mod checkpoint;
pub mod config;
pub mod link;
pub mod stage;
pub mod student;
pub mod trainer;

//! Holds a build of oto against reference data: files that other libraries computed are recomputed, case by case.
//!
//! A file is JSON, plain or gzipped, and says in `kind` what it is:
//!
//! - `env_trajectories`, `env_reset_seeds` (Gymnasium), `mobile_env_trajectories` (mobile-env): one step from every
//!   recorded state; initial states of seeds. CartPoleSwingUp's files have constants for each episode, and single steps;
//! - `minatar_trajectories` (minatar): every step of games from a seed;
//! - `losses` (torch): values, parts and gradients of the terms that this build trains with;
//! - `policy`: the model beside a teacher's metadata has the checksum they give, and loads;
//! - `policy_golden`: the outputs of the model that the file names, and of the same policy in other formats beside it.
//!
//! [`verify`] works on bytes, so that a build without a file system can check itself; [`verify_files`] reads files. The
//! report's JSON form is described by `schema/report.schema.json`.
#![forbid(unsafe_code)]

mod array;
mod collaborative;
mod compare;
mod environments;
mod losses;
mod minatar;
mod mobile_cell;
mod offline_online;
mod policies;
mod read;
mod report;
mod swing_up;
mod term;

pub use read::{LARGEST_FILE, Sibling, verify, verify_files};
pub use report::{Report, Row, SCHEMA, Status};

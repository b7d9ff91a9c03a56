//! Holds a build of oto against reference data: files that other libraries computed are recomputed, case by case.
//!
//! A file is JSON, plain or gzipped, and says in `kind` what it is. Checked are `env_trajectories` and `env_reset_seeds`
//! (Gymnasium) and `losses` (torch: values, parts and gradients of the terms that this build trains with). `mobile_env_trajectories` are known and not supported by this build.
//!
//! [`verify`] works on bytes, so that a build without a file system can check itself; [`verify_files`] reads files. The
//! report's JSON form is described by `schema/report.schema.json`.
#![forbid(unsafe_code)]

mod compare;
mod environments;
mod losses;
mod read;
mod report;
mod term;

pub use read::{LARGEST_FILE, Sibling, verify, verify_files};
pub use report::{Report, Row, SCHEMA, Status};

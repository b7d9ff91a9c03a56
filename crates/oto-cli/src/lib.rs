//! The `oto` program, and all of it that its WASI twin shares: flags, training, evaluation, self-check.
#![forbid(unsafe_code)]
// `output` writes every line.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod actor_options;
pub mod algorithms;
pub mod backend;
pub mod options;
pub mod origin;
pub mod output;
#[cfg(feature = "reference")]
pub mod verify;

#[cfg(feature = "native")]
pub mod act;
#[cfg(feature = "native")]
pub mod authorities;
#[cfg(feature = "native")]
pub mod bench;
#[cfg(feature = "native")]
pub mod dataset;
#[cfg(feature = "native")]
pub mod dataset_make;
#[cfg(feature = "native")]
pub mod edge;
#[cfg(feature = "native")]
pub mod eval;
#[cfg(feature = "serve")]
pub mod group;
#[cfg(feature = "native")]
pub mod learn_command;
#[cfg(feature = "serve")]
pub mod learner;
#[cfg(all(feature = "native", target_os = "linux"))]
pub mod load;
#[cfg(feature = "serve")]
pub mod log;
#[cfg(feature = "native")]
mod metrics_port;
#[cfg(feature = "otlp")]
pub mod otlp;
#[cfg(feature = "native")]
pub mod policy;
#[cfg(feature = "datasets")]
pub mod recorded;
#[cfg(feature = "native")]
pub mod report;
pub mod run_folder;
#[cfg(feature = "serve")]
pub mod security_options;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "serve")]
pub mod settings;
#[cfg(feature = "serve")]
pub mod share;
#[cfg(feature = "serve")]
mod signals;
#[cfg(feature = "native")]
mod submitted;
#[cfg(feature = "native")]
pub mod sweep;
#[cfg(feature = "native")]
pub mod teach;
#[cfg(feature = "native")]
pub mod threads;
#[cfg(feature = "native")]
pub mod train;

//! `oto` as a process: what the operator of a server sees of it, and whoever trains a student.
#![cfg(unix)]

mod authorities;
mod check;
mod cloud;
mod continued;
mod follow;
mod learn;
#[cfg(target_os = "linux")]
mod load;
mod log;
#[cfg(feature = "otlp")]
mod otlp;
mod output;
mod program;
mod security_options;
mod share;

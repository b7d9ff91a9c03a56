//! `oto serve` as a process: what its operator sees of it.
#![cfg(unix)]

mod log;
#[cfg(feature = "otlp")]
mod otlp;
mod program;

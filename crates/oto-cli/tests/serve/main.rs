//! `oto serve` as a process: what its operator sees of it.
#![cfg(unix)]

mod authorities;
#[cfg(target_os = "linux")]
mod load;
mod log;
#[cfg(feature = "otlp")]
mod otlp;
mod program;

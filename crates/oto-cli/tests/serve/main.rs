//! The program as a process: what whoever runs it sees of it, `oto serve` above all.
#![cfg(unix)]

mod authorities;
#[cfg(target_os = "linux")]
mod load;
mod log;
#[cfg(feature = "otlp")]
mod otlp;
mod output;
mod program;

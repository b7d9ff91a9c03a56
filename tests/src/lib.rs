//! What tests that cross rooms share: a teacher server on a port of its own, the WebAssembly components as cargo builds
//! them, and a WASI host for the command among them.
#![forbid(unsafe_code)]

pub mod actor;
pub mod command;
pub mod component;
pub mod edge;
pub mod proxy;
pub mod server;

use std::path::PathBuf;

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

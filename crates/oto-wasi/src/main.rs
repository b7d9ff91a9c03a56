//! The student as a command for WASI hosts: the flags of `oto learn`. The self-check is a command of its own (`verify.rs`).
//!
//! ```text
//! wasmtime run -S inherit-network oto-wasi.wasm --teacher ws://127.0.0.1:8080 --env CartPole-v1 --steps 10000
//! wasmtime run -S inherit-network --dir runs oto-wasi.wasm --teacher ws://127.0.0.1:8080 --out runs/first
//! ```
//!
//! What the host does not grant is not there: without `-S inherit-network` the teacher is absent and the student learns
//! alone, without `--dir` no file can be read or written.
#![forbid(unsafe_code)]

mod learn;

use clap::Parser;
use std::process::ExitCode;

/// Reinforcement learning on a WASI host, taught over a WebSocket
#[derive(Parser)]
#[command(name = "oto-wasi", version)]
struct Cli {
    #[command(flatten)]
    learn: learn::LearnCommand,
}

fn main() -> ExitCode {
    match learn::learn(&Cli::parse().learn) {
        Ok(()) => ExitCode::from(oto_cli::output::code().unwrap_or(0)),
        Err(error) => {
            oto_cli::note!("oto-wasi: {error}");
            ExitCode::from(2)
        }
    }
}

//! The student as a command for WASI hosts: the flags of `oto learn`, or `verify FILE...`.
//!
//! ```text
//! wasmtime run -S inherit-network oto-wasi.wasm --teacher ws://127.0.0.1:8080 --env CartPole-v1 --steps 10000
//! wasmtime run -S inherit-network --dir runs oto-wasi.wasm --teacher ws://127.0.0.1:8080 --out runs/first
//! wasmtime run --dir tests/fixtures oto-wasi.wasm verify tests/fixtures/losses.json.gz
//! ```
//!
//! What the host does not grant is not there: without `-S inherit-network` the teacher is absent and the student learns
//! alone, without `--dir` no file can be read or written.
#![forbid(unsafe_code)]

mod learn;

use clap::{Parser, Subcommand};
use oto_cli::verify::{self, VerifyOptions};
use std::process::ExitCode;

/// Reinforcement learning on a WASI host, taught over a WebSocket
#[derive(Parser)]
#[command(name = "oto-wasi", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    learn: learn::LearnCommand,
}

#[derive(Subcommand)]
enum Command {
    /// Hold this build against reference data
    Verify(VerifyOptions),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Some(Command::Verify(options)) => Ok(verify::verify(options)),
        None => learn::learn(&cli.learn).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("oto-wasi: {error}");
            ExitCode::from(2)
        }
    }
}

//! The student as a command for WASI hosts, with the flags of `oto learn`, and the actor with those of `oto act`. The self-check is a
//! command of its own (`verify.rs`).
//!
//! ```text
//! wasmtime run -S inherit-network oto-wasi.wasm --teacher ws://127.0.0.1:8080 --env CartPole-v1 --steps 10000
//! wasmtime run -S inherit-network --dir runs oto-wasi.wasm --teacher ws://127.0.0.1:8080 --out runs/first
//! wasmtime run -S inherit-network oto-wasi.wasm act ws://127.0.0.1:8080 --policy pendulum --env Pendulum-v1 --hz 30
//! ```
//!
//! What the host does not grant is not there: without `-S inherit-network` the teacher is absent and the student learns
//! alone, without `--dir` no file can be read or written.
#![forbid(unsafe_code)]

mod act;
mod learn;

use clap::{Parser, Subcommand};
use oto_cli::actor_options::ActorOptions;
use std::process::ExitCode;

/// Reinforcement learning on a WASI host, taught over a WebSocket
#[derive(Parser)]
#[command(name = "oto-wasi", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    learn: learn::LearnCommand,
}

#[derive(Subcommand)]
enum What {
    /// Act with the weights of a learner in the cloud, and send it what happens
    Act(ActorOptions),
}

fn main() -> ExitCode {
    let Cli { what, learn } = Cli::parse();
    let done = match what {
        Some(What::Act(options)) => act::act(&options).map_err(|error| error.to_string()),
        None => learn::learn(&learn).map_err(|error| error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::from(oto_cli::output::code().unwrap_or(0)),
        Err(error) => {
            oto_cli::note!("oto-wasi: {error}");
            ExitCode::from(2)
        }
    }
}

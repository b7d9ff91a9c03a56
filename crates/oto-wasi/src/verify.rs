//! `oto verify` for WASI hosts: holds a build for WebAssembly against reference data. It carries candle, which computes the
//! references anew; that is why it is no part of the student's command.
//!
//! ```text
//! cargo build --profile wasm --target wasm32-wasip2 -p oto-wasi --bin oto-verify --features verify
//! wasmtime run --dir tests/fixtures oto-verify.wasm tests/fixtures/losses.json.gz
//! ```
#![forbid(unsafe_code)]

use clap::Parser;
use oto_cli::verify::{VerifyOptions, verify};
use std::process::ExitCode;

/// Check this build against reference data
#[derive(Parser)]
#[command(name = "oto-verify", version)]
struct Cli {
    #[command(flatten)]
    options: VerifyOptions,
}

fn main() -> ExitCode {
    if verify(&Cli::parse().options) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

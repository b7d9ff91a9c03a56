//! `cargo xtask`: the commands of the README. `demo` builds the page and its server, and serves them, `test` checks everything, `soak` goes on looking
//! for as long as one lets it, `deny` asks what oto is made of, `bench-web` measures in a browser, `wasm` and `site` are the build steps they share.

#![forbid(unsafe_code)]

mod bench_gpu;
mod bench_web;
mod browsers;
mod debian;
mod demo;
mod deny;
mod floats;
mod manifest;
mod names;
mod order;
mod program;
mod progress;
mod relaxed;
mod shell;
mod site;
mod soak;
mod stamp;
mod test;
mod totals;
mod vulkan;
mod wasm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Build, show and test oto")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the demo page and the server, then serve both.
    Demo(demo::Options),
    /// Run every check: format, lints, Rust, documentation, JavaScript, browser and WASI tests.
    Test(test::Options),
    /// Simulate networks, kill servers, fuzz decoders and load a server, each for the given time.
    Soak(soak::Options),
    /// Check licences, bans, sources and advisories of all dependencies with cargo-deny.
    Deny,
    /// Measure oto and other libraries in Chromium.
    BenchWeb(bench_web::Options),
    /// Measure this machine's GPU: its driver, and WebGPU in Chromium.
    BenchGpu(bench_gpu::Options),
    /// Build the packages of wasm-pack.toml, or only those named.
    Wasm {
        /// Names from wasm-pack.toml.
        names: Vec<String>,
    },
    /// Build the web packages, the npm package and the site.
    Site,
    /// Wait until an address answers, then open it in the default browser (`demo --open` uses this).
    #[command(hide = true)]
    Open {
        /// Port on 127.0.0.1.
        port: u16,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Deny => deny::run(),
        Command::BenchWeb(options) => bench_web::run(&options),
        Command::BenchGpu(options) => bench_gpu::run(&options),
        Command::Wasm { names } => wasm::build(&names),
        Command::Site => site::build(),
        Command::Open { port } => demo::open_when_ready(port),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

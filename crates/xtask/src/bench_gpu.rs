//! `cargo xtask bench-gpu`: all that a machine with a GPU can tell, in at most eight minutes. The program measures its own driver
//! (`oto bench gpu`); where there is a Chromium, the benchmark's page measures WebGPU in it.

use crate::{bench_web, browsers, program};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use std::process::Command;

/// Options of `cargo xtask bench-gpu`.
#[derive(Args)]
pub struct Options {
    /// Folder of the results, as JSON.
    #[arg(long, value_name = "FOLDER", default_value = "target/bench-gpu")]
    out: PathBuf,
    /// Seconds for each of the program's seven sizes.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

/// Builds what is missing, then measures.
pub fn run(options: &Options) -> Result<()> {
    std::fs::create_dir_all(&options.out)?;
    let seconds = options.seconds.to_string();
    let measured = Command::new(program::build()?)
        .args(["bench", "gpu", "--json", "--seconds", &seconds])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    anyhow::ensure!(measured.status.success(), "oto bench gpu ended with {}", measured.status);
    let native = options.out.join("native.json");
    std::fs::write(&native, &measured.stdout)?;
    eprintln!("{}", native.display());
    if browsers::CHROMIUM.find().is_none() {
        eprintln!("no Chromium here: WebGPU in a browser is not measured");
        return Ok(());
    }
    bench_web::run(&bench_web::Options::webgpu(options.out.join("browser.json")))
}

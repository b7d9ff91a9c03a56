//! `cargo xtask bench-web`: oto and other libraries in a real Chromium, on the page that anyone may open (`web/bench`).

use crate::{browsers, shell, site};
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// Options of `cargo xtask bench-web`.
#[derive(Args)]
pub struct Options {
    /// Write everything that was measured as JSON.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "target/bench-web.json")]
    json: Option<PathBuf>,
    /// Hidden units and quantiles of the updates.
    #[arg(long, value_name = "HxN", value_delimiter = ',', default_value = "64x32,128x51,128x200")]
    shapes: Vec<String>,
    /// Libraries to measure, by the names the page knows; oto is always among them.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// How often each is timed.
    #[arg(long, default_value_t = 15)]
    repeats: u32,
    /// Measure only this.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Build only.
    #[arg(long)]
    build: bool,
}

impl Options {
    /// oto's WebGPU beside the reference, and the results in `json`.
    pub fn webgpu(json: PathBuf) -> Self {
        let shapes = ["64x32", "128x200", "512x32", "1024x32"].map(String::from).into();
        let peers = vec!["oto-webgpu".into()];
        Self { json: Some(json), shapes, peers, repeats: 9, only: Some(Part::Updates), build: false }
    }
}

/// What is measured.
#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// Libraries: updates and distillation.
    Updates,
    /// The npm package: size, start, memory, many students.
    Student,
}

/// Builds what is missing, then measures.
pub fn run(options: &Options) -> Result<()> {
    let browser = browsers::CHROMIUM.find_or_install()?;
    site::build_bench()?;
    if options.build {
        return Ok(());
    }
    let mut command = shell::command("node", &["web/bench/run.mjs"]);
    command.env("CHROMIUM", browser).arg("--shapes").arg(options.shapes.join(","));
    command.arg("--repeats").arg(options.repeats.to_string());
    if !options.peers.is_empty() {
        command.arg("--peers").arg(options.peers.join(","));
    }
    if let Some(part) = options.only.and_then(|part| part.to_possible_value()) {
        command.arg("--only").arg(part.get_name());
    }
    if let Some(file) = &options.json {
        command.arg("--json").arg(from_here(file));
    }
    shell::run(&mut command)
}

/// A path as the caller meant it: the measuring runs in the repository's root.
fn from_here(file: &Path) -> PathBuf {
    std::env::current_dir().map_or_else(|_| file.to_path_buf(), |here| here.join(file))
}

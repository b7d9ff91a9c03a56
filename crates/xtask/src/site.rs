//! The JavaScript side: npm's packages, the npm package `oto-student`, the site. Each step is skipped while its inputs
//! are what they were when it last succeeded.

use crate::{shell, stamp::Stamp, wasm};
use anyhow::Result;
use std::path::Path;

/// The WebAssembly packages of the npm package.
const STUDENT: [&str; 4] = ["web", "web-cpu", "web-all", "web-actor"];

/// Builds the web packages of wasm-pack.toml, then `web/student/dist`, then `web/demo/dist`.
pub fn build() -> Result<()> {
    build_modules()?;
    build_scripts()
}

/// Builds the WebAssembly of the npm package.
pub fn build_modules() -> Result<()> {
    wasm::build(&STUDENT.map(String::from))
}

/// Builds what is TypeScript; the WebAssembly must be there.
pub fn build_scripts() -> Result<()> {
    install()?;
    step("student", &["web/student", "web/package-lock.json"], "web/student/dist")?;
    step("demo", &["web/demo", "web/student", "web/package-lock.json"], "web/demo/dist")
}

/// Builds `web/bench/dist`. The libraries it measures are its own: nobody else installs them.
pub fn build_bench() -> Result<()> {
    wasm::build(&STUDENT.map(String::from))?;
    wasm::build(&["bench".into()])?;
    install()?;
    install_in("web/bench", "npm-bench")?;
    step("student", &["web/student", "web/package-lock.json"], "web/student/dist")?;
    step("bench", &["web/bench", "web/student", "web/package-lock.json"], "web/bench/dist")
}

/// The packages of `web/`.
pub fn install() -> Result<()> {
    install_in("web", "npm")
}

/// `npm ci` in a folder, when its lock file has changed.
fn install_in(folder: &str, step: &str) -> Result<()> {
    let folder = Path::new(folder);
    let manifests = [folder.join("package-lock.json"), folder.join("package.json")];
    let stamp = Stamp::of(step, &[&manifests[0], &manifests[1]])?;
    if !stamp.is_current(&folder.join("node_modules")) {
        shell::run(shell::npm(&["ci", "--no-audit", "--no-fund"]).current_dir(shell::root().join(folder)))?;
        stamp.record()?;
    }
    Ok(())
}

/// `npm run build` of one workspace under `web/`.
fn step(name: &str, inputs: &[&str], product: &str) -> Result<()> {
    let inputs: Vec<&Path> = inputs.iter().map(Path::new).collect();
    let stamp = Stamp::of(&format!("site-{name}"), &inputs)?;
    if !stamp.is_current(Path::new(product)) {
        let folder = shell::root().join("web").join(name);
        shell::run(shell::npm(&["run", "--silent", "build"]).current_dir(folder))?;
        stamp.record()?;
    }
    Ok(())
}

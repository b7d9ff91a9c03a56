//! The JavaScript side: npm's packages, the npm package `oto-student`, the site. Each step is skipped while its inputs
//! are what they were when it last succeeded.

use crate::{shell, stamp::Stamp, wasm};
use anyhow::Result;
use std::path::Path;

/// Builds the web packages of wasm-pack.toml, then `web/student/dist`, then `web/demo/dist`.
pub fn build() -> Result<()> {
    wasm::build(&["web".into()])?;
    build_scripts()
}

/// Builds what is TypeScript; the WebAssembly must be there.
fn build_scripts() -> Result<()> {
    install()?;
    step("student", &["web/student", "web/package-lock.json"], "web/student/dist")?;
    step("demo", &["web/demo", "web/student", "web/package-lock.json"], "web/demo/dist")
}

/// `npm ci` in `web/`, when the lock file has changed.
pub fn install() -> Result<()> {
    let manifests = ["web/package-lock.json", "web/package.json"].map(Path::new);
    let stamp = Stamp::of("npm", &manifests)?;
    if !stamp.is_current(Path::new("web/node_modules")) {
        shell::run(shell::npm(&["ci", "--no-audit", "--no-fund"]).current_dir(shell::root().join("web")))?;
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

//! The browser of the browser tests: found, installed where we may, or asked for in one line.

use crate::shell;
use anyhow::{Result, bail};
use std::path::PathBuf;

/// Names under which Chromium is found on PATH.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// Path of a Chromium: `$CHROMIUM`, one on PATH, or Debian's package installed now (root only).
pub fn find_or_install() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CHROMIUM") {
        return Ok(path.into());
    }
    if let Some(path) = on_path() {
        return Ok(path);
    }
    let may_install = shell::output("id", &["-u"]).as_deref() == Some("0") && in_path("apt-get").is_some();
    if may_install {
        shell::run(&mut shell::command("apt-get", &["update", "-qq"]))?;
        let arguments = ["install", "-qq", "--yes", "--no-install-recommends", "chromium"];
        shell::run(shell::command("apt-get", &arguments).env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    match on_path() {
        Some(path) => Ok(path),
        None => bail!(
            "no Chromium found: install it (Debian: apt-get install chromium) or set CHROMIUM to its path"
        ),
    }
}

fn on_path() -> Option<PathBuf> {
    NAMES.iter().find_map(|name| in_path(name))
}

/// First file called `name` in a folder of PATH.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

//! The browser of the browser tests: found, installed where we may, or asked for in one line.

use crate::debian;
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
    debian::install("chromium")?;
    match on_path() {
        Some(path) => Ok(path),
        None => bail!(
            "no Chromium found: install it (Debian: apt-get install chromium) or set CHROMIUM to its path"
        ),
    }
}

fn on_path() -> Option<PathBuf> {
    NAMES.iter().find_map(|name| debian::in_path(name))
}

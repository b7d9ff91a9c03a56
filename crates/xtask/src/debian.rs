//! Debian's packages: installed where we may.

use crate::shell;
use anyhow::Result;
use std::path::PathBuf;

/// Installs a package if we are root on a system that has them; does nothing elsewhere.
pub fn install(package: &str) -> Result<()> {
    let root = shell::output("id", &["-u"]).as_deref() == Some("0");
    if !root || in_path("apt-get").is_none() {
        return Ok(());
    }
    shell::run(&mut shell::command("apt-get", &["update", "-qq"]))?;
    let arguments = ["install", "-qq", "--yes", "--no-install-recommends", package];
    shell::run(shell::command("apt-get", &arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// First file called `name` in a folder of PATH.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

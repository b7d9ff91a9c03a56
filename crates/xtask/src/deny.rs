//! `cargo xtask deny`: whether all that oto is made of may be part of it, by `deny.toml`.

use crate::{debian, shell};
use anyhow::{Result, bail};

/// Checks licences, bans and sources, and known vulnerabilities where their database can be reached.
pub fn run() -> Result<()> {
    if debian::in_path(if cfg!(windows) { "cargo-deny.exe" } else { "cargo-deny" }).is_none() {
        bail!("nothing was checked: there is no cargo-deny. `cargo install cargo-deny --locked` installs it");
    }
    shell::run(&mut shell::cargo(&[
        "deny",
        "--workspace",
        "--all-features",
        "check",
        "licenses",
        "bans",
        "sources",
    ]))?;
    let (output, sound) =
        shell::tee(&mut shell::cargo(&["deny", "--workspace", "--all-features", "check", "advisories"]))?;
    match sound {
        true => Ok(()),
        false if output.contains("failed to fetch advisory database") => {
            eprintln!("advisories were not checked: their database cannot be reached");
            Ok(())
        }
        false => bail!("there are advisories"),
    }
}

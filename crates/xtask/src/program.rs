//! The `oto` program: the whole one, and one that serves and does no more.

use crate::{progress, shell};
use anyhow::Result;
use std::path::PathBuf;

/// The features of a program that serves and does no more.
pub const SERVER: [&str; 3] = ["--no-default-features", "--features", "serve"];

/// Builds the whole program, with the site inside, and returns its path. Asked for as a part of the workspace, it has the features that
/// `cargo xtask test` builds with, and the large dependencies are compiled once for both.
pub fn build() -> Result<PathBuf> {
    shell::run(&mut shell::cargo(&["build", "--release", "--workspace", "--bin", "oto"]))?;
    Ok(whole())
}

/// Builds a program that serves and does no more, with the site inside, and returns its path. It has a profile of its own, and with it
/// a folder, so that it does not replace the whole one.
pub fn build_server() -> Result<PathBuf> {
    let arguments = [&["build", "--profile", "demo", "--package", "oto-cli", "--bin", "oto"], &SERVER[..]];
    progress::build(&mut shell::cargo(&[]), &arguments.concat())?;
    Ok(at("demo"))
}

/// Where the whole program is once it was built.
pub fn whole() -> PathBuf {
    at("release")
}

fn at(profile: &str) -> PathBuf {
    shell::target_dir().join(profile).join(if cfg!(windows) { "oto.exe" } else { "oto" })
}

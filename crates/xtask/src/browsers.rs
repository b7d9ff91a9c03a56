//! The browsers of the browser tests and what drives them: found, installed where we may, or asked for in one line.

use crate::debian;
use anyhow::{Result, bail};
use std::path::PathBuf;

/// A program that the browser tests start.
pub struct Program {
    /// What people call it.
    title: &'static str,
    /// The variable that may hold its path, and that tells the tests.
    pub variable: &'static str,
    /// Names under which it is found on PATH.
    names: &'static [&'static str],
    /// Debian's package.
    package: &'static str,
}

/// The browser that measures, and in which most browser tests run.
pub const CHROMIUM: Program = Program {
    title: "Chromium",
    variable: "CHROMIUM",
    names: &["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"],
    package: "chromium",
};

const FIREFOX: Program = Program {
    title: "Firefox",
    variable: "FIREFOX",
    names: &["firefox-esr", "firefox"],
    package: "firefox-esr",
};

const WEBKIT_DRIVER: Program = Program {
    title: "WebKitGTK's driver",
    variable: "WEBKIT_DRIVER",
    names: &["WebKitWebDriver"],
    package: "webkit2gtk-driver",
};

/// The display of WebKit's window, which has no mode without one.
const XVFB: Program = Program { title: "Xvfb", variable: "XVFB", names: &["Xvfb"], package: "xvfb" };

/// What the tests of three engines need here; WebKitGTK is a Linux browser.
pub fn tested() -> Vec<&'static Program> {
    let everywhere = [&CHROMIUM, &FIREFOX];
    let linux = [&WEBKIT_DRIVER, &XVFB];
    everywhere.into_iter().chain(linux.into_iter().filter(|_| cfg!(target_os = "linux"))).collect()
}

impl Program {
    /// Its path, if it is here: what the variable says, or one on PATH.
    pub fn find(&self) -> Option<PathBuf> {
        std::env::var_os(self.variable).map(PathBuf::from).or_else(|| self.on_path())
    }

    /// The same, or Debian's package installed now (root only).
    pub fn find_or_install(&self) -> Result<PathBuf> {
        if let Some(path) = self.find() {
            return Ok(path);
        }
        debian::install(self.package)?;
        match self.on_path() {
            Some(path) => Ok(path),
            None => bail!("{}", self.missing()),
        }
    }

    fn on_path(&self) -> Option<PathBuf> {
        self.names.iter().find_map(|name| debian::in_path(name))
    }

    fn missing(&self) -> String {
        let Self { title, variable, package, .. } = self;
        format!(
            "{title} is missing: install it (Debian: apt-get install {package}) or set {variable} to its path"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_package_and_variable() {
        for program in tested() {
            let missing = program.missing();
            for part in [program.title, program.variable, program.package] {
                assert!(missing.contains(part), "{missing}");
            }
        }
    }
}

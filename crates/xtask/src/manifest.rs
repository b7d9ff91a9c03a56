//! `wasm-pack.toml`: which crates become WebAssembly packages, and how.

use crate::shell;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::PathBuf;

/// The whole manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    package: Vec<Package>,
}

/// One package; the manifest's own head explains the fields.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub name: String,
    #[serde(rename = "crate")]
    pub krate: String,
    pub target: Target,
    pub profile: String,
    #[serde(default)]
    pub features: Vec<String>,
    pub artifact: String,
    pub module: Option<String>,
    pub out: PathBuf,
    pub only: Option<Only>,
}

/// The command that alone needs a package.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Only {
    Test,
    BenchWeb,
}

/// Where a package runs.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Web,
    Wasip2,
}

impl Target {
    /// rustc's name of the target.
    pub fn triple(self) -> &'static str {
        match self {
            Self::Web => "wasm32-unknown-unknown",
            Self::Wasip2 => "wasm32-wasip2",
        }
    }
}

/// Reads the packages called `names`, or all of them when no name is given.
pub fn packages(names: &[String]) -> Result<Vec<Package>> {
    let path = shell::root().join("wasm-pack.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: Manifest = toml::from_str(&text).context("wasm-pack.toml")?;
    choose(manifest.package, names)
}

fn choose(packages: Vec<Package>, names: &[String]) -> Result<Vec<Package>> {
    let known: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    for name in names {
        if !known.contains(&name.as_str()) {
            bail!("wasm-pack.toml has no package {name:?}, only {}", known.join(", "));
        }
    }
    Ok(packages.into_iter().filter(|package| names.is_empty() || names.contains(&package.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_of_the_manifest_can_be_read_and_chosen() {
        let all = packages(&[]).unwrap();
        assert!(all.iter().any(|package| package.target == Target::Web));
        for package in &all {
            let one = packages(std::slice::from_ref(&package.name)).unwrap();
            assert_eq!(one.len(), 1);
            assert_eq!(one[0].krate, package.krate);
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = packages(&["nothing".into()]).err().unwrap().to_string();
        assert!(error.contains("\"nothing\"") && error.contains("web"), "{error}");
    }
}

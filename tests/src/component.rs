//! The components of `crates/oto-wasi`, always those of the sources as they are: `cargo xtask wasm` builds what ships, and has
//! nothing to do where it did so before.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use wasmtime::component::Component;
use wasmtime::{Cache, CacheConfig, Config, Engine};

/// A component by its file name, compiled; from the second process on read from a cache, since test runners start one for
/// each test.
///
/// # Panics
/// If cargo or wasmtime cannot compile it.
pub fn compiled(artifact: &str) -> (Engine, Component) {
    compiled_for(Config::new(), artifact)
}

/// The same for an engine of this configuration.
///
/// # Panics
/// If cargo or wasmtime cannot compile it.
pub fn compiled_for(mut config: Config, artifact: &str) -> (Engine, Component) {
    let path = path(artifact);
    let mut cache = CacheConfig::new();
    cache.with_directory(path.with_file_name("compiled"));
    config.cache(Some(Cache::new(cache).expect("a folder for compiled components")));
    let engine = Engine::new(&config).expect("wasmtime runs here");
    let component = Component::from_file(&engine, path).expect("a component");
    (engine, component)
}

/// An engine that does not know relaxed SIMD, as Node.js 20.
pub fn without_relaxed_simd() -> Config {
    let mut config = Config::new();
    config.wasm_relaxed_simd(false);
    config
}

/// The self-check's file name.
pub const VERIFY: &str = "oto-verify.wasm";

/// Path of a component by its file name: `oto-wasi.wasm`, the command, `oto_edge.wasm`, the world `oto:edge/student`, both of them
/// with `_plain` before the dot, for hosts without relaxed SIMD, or [`VERIFY`].
///
/// # Panics
/// If cargo cannot build it.
pub fn path(artifact: &str) -> PathBuf {
    static SHIPPED: OnceLock<()> = OnceLock::new();
    static CHECK: OnceLock<PathBuf> = OnceLock::new();
    if artifact == VERIFY {
        return CHECK.get_or_init(verify).join(artifact);
    }
    SHIPPED.get_or_init(|| cargo(&["xtask", "wasm", "wasi", "edge"]));
    let folder = if artifact.starts_with("oto-wasi") { "target/wasi" } else { "target/edge" };
    crate::root().join(folder).join(artifact)
}

/// Builds the self-check, which does not ship; gives its folder.
fn verify() -> PathBuf {
    let package =
        ["build", "--quiet", "--package", "oto-wasi", "--target", "wasm32-wasip2", "--profile", "wasm"];
    cargo(&[&package[..], &["--bin", "oto-verify", "--features", "verify"]].concat());
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let folder = crate::root().join(target).join("wasm32-wasip2/wasm");
    folder.canonicalize().expect("cargo made it")
}

fn cargo(arguments: &[&str]) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(crate::root()).args(arguments);
    // Set by the cargo around us for this package alone; a build script that watches one would run again.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST")) {
            cargo.env_remove(name);
        }
    }
    let output = cargo.output().expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo cannot build the components; is the target there? rustup target add wasm32-wasip2\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

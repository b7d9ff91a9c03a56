//! The components of `crates/oto-wasi`, always those of the sources as they are: cargo builds them, and has nothing to do
//! where `cargo xtask` did so before.

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
    let path = path(artifact);
    let mut cache = CacheConfig::new();
    cache.with_directory(path.with_file_name("compiled"));
    let mut config = Config::new();
    config.cache(Some(Cache::new(cache).expect("a folder for compiled components")));
    let engine = Engine::new(&config).expect("wasmtime runs here");
    let component = Component::from_file(&engine, path).expect("a component");
    (engine, component)
}

/// The self-check's file name.
pub const VERIFY: &str = "oto-verify.wasm";

/// Path of a component by its file name: `oto-wasi.wasm`, the command, `oto_edge.wasm`, the world `oto:edge/student`, or
/// [`VERIFY`].
///
/// # Panics
/// If cargo cannot build it.
pub fn path(artifact: &str) -> PathBuf {
    static SHIPPED: OnceLock<PathBuf> = OnceLock::new();
    static CHECK: OnceLock<PathBuf> = OnceLock::new();
    let folder = match artifact {
        VERIFY => CHECK.get_or_init(|| build(&["--bin", "oto-verify", "--features", "verify"])),
        _ => SHIPPED.get_or_init(|| build(&[])),
    };
    folder.join(artifact)
}

fn build(more: &[&str]) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(crate::root());
    cargo.args([
        "build",
        "--quiet",
        "--package",
        "oto-wasi",
        "--target",
        "wasm32-wasip2",
        "--profile",
        "wasm",
    ]);
    cargo.args(more);
    // Set by the cargo around us for this package alone; a build script that watches one would run again.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST")) {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status().expect("cargo runs");
    assert!(
        status.success(),
        "cargo cannot build the components; is the target there? rustup target add wasm32-wasip2"
    );
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let folder = crate::root().join(target).join("wasm32-wasip2/wasm");
    folder.canonicalize().expect("cargo made it")
}

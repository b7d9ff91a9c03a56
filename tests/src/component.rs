//! The components of `crates/oto-wasi`, built from the present sources: `cargo xtask wasm` builds them, at once where nothing has
//! changed. A runner that has built them sets `OTO_COMPONENTS_BUILT`, so that a process for each test does not ask cargo again.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use wasmtime::component::Component;
use wasmtime::{Cache, CacheConfig, Config, Engine};

/// A component by its file name, compiled. Test runners start a process for each test: the first compiles, the others wait and
/// read its cache.
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
    let folder = path.with_file_name("compiled");
    std::fs::create_dir_all(&folder).expect("a folder for compiled components");
    let mut cache = CacheConfig::new();
    cache.with_directory(&folder);
    config.cache(Some(Cache::new(cache).expect("a cache of compiled components")));
    let engine = Engine::new(&config).expect("wasmtime runs here");
    let lock = File::create(folder.join(format!("{artifact}.lock"))).expect("a lock file");
    lock.lock().expect("a lock");
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

/// Path of a component by its file name: `oto-wasi.wasm`, the command, `oto_edge.wasm`, the world `oto:edge/student`,
/// `oto_actor.wasm`, the world `oto:edge/actor`, all of them
/// with `_plain` before the dot, for hosts without relaxed SIMD, or [`VERIFY`].
///
/// # Panics
/// If cargo cannot build it.
pub fn path(artifact: &str) -> PathBuf {
    static SHIPPED: OnceLock<()> = OnceLock::new();
    static CHECK: OnceLock<()> = OnceLock::new();
    let folder = match artifact {
        VERIFY => {
            CHECK.get_or_init(|| build(&["self-check"]));
            "target/self-check"
        }
        _ => {
            SHIPPED.get_or_init(|| build(&["wasi", "edge", "edge-actor"]));
            match artifact {
                _ if artifact.starts_with("oto-wasi") => "target/wasi",
                _ if artifact.starts_with("oto_actor") => "target/edge-actor",
                _ => "target/edge",
            }
        }
    };
    crate::root().join(folder).join(artifact)
}

/// Builds these packages of `wasm-pack.toml`, unless the runner has.
fn build(packages: &[&str]) {
    if std::env::var_os("OTO_COMPONENTS_BUILT").is_some() {
        return;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(crate::root()).args(["xtask", "wasm"]).args(packages);
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

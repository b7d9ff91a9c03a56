//! WebAssembly packages: cargo builds the module, wasm-bindgen writes the JavaScript beside it, we print the sizes.

use crate::floats;
use crate::manifest::{self, Only, Package, Target};
use crate::names;
use crate::order;
use crate::progress;
use crate::relaxed;
use crate::shell;
use crate::stamp::Stamp;
use anyhow::{Context, Result, bail};
use flate2::{Compression, write::GzEncoder};
use std::fs;
use std::io::Write;
use std::path::Path;
use wasm_bindgen_cli_support::Bindgen;

/// Builds the packages called `names`, or all of them.
pub fn build(names: &[String]) -> Result<()> {
    build_all(manifest::packages(names)?)
}

/// Builds the packages that ship and those of the tests.
pub fn build_tested() -> Result<()> {
    build_all(manifest::packages(&[])?.into_iter().filter(|package| package.only != Some(Only::BenchWeb)))
}

fn build_all(packages: impl IntoIterator<Item = Package>) -> Result<()> {
    for package in packages {
        build_package(&package).with_context(|| format!("wasm package {:?}", package.name))?;
    }
    Ok(())
}

fn build_package(package: &Package) -> Result<()> {
    add_target(package.target)?;
    let triple = package.target.triple();
    let features = package.features.join(",");
    let mut arguments =
        vec!["build", "--package", &package.krate, "--target", triple, "--profile", &package.profile];
    // Cargo's file of a library has underscores, that of a program has the program's name.
    match package.artifact.trim_end_matches(".wasm") {
        program if program.contains('-') => arguments.extend(["--bin", program]),
        _ => arguments.push("--lib"),
    }
    if !features.is_empty() {
        arguments.extend(["--features", &features]);
    }
    let paths = without_paths(triple);
    arguments.extend(["--config", &paths]);
    let mut cargo = shell::cargo(&[]);
    if package.target == Target::Web {
        // wasm-bindgen reads the section that names the features in use, and drops the names itself.
        let profile = package.profile.to_uppercase().replace('-', "_");
        cargo.env(format!("CARGO_PROFILE_{profile}_STRIP"), "debuginfo");
    }
    progress::build(&mut cargo, &arguments)?;

    let module = shell::target_dir().join(triple).join(&package.profile).join(&package.artifact);
    let out = shell::root().join(&package.out);
    let ours = [
        "wasm-pack.toml",
        "crates/xtask/src/wasm.rs",
        "crates/xtask/src/floats.rs",
        "crates/xtask/src/names.rs",
        "crates/xtask/src/relaxed.rs",
        "crates/xtask/src/order.rs",
    ]
    .map(Path::new);
    let inputs = [&[module.as_path()], &ours[..]].concat();
    // Tests that run at once ask for the same package: one writes it, the others wait.
    let lock = shell::target_dir().join("xtask").join(format!("wasm-{}.lock", package.name));
    fs::create_dir_all(shell::target_dir().join("xtask"))?;
    let lock = fs::File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
    lock.lock()?;
    let stamp = Stamp::of(&format!("wasm-{}", package.name), &inputs)?;
    if !stamp.is_current(&package.out) {
        write_package(package, &module, &out)?;
        stamp.record()?;
    }
    print_sizes(&package.name, &out)
}

/// A panic names the file it happened in: what ships should not hold the paths of the machine that built it.
fn without_paths(triple: &str) -> String {
    let home =
        std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let from = [home.unwrap_or_default(), shell::root().display().to_string()];
    let flags =
        from.iter().filter(|from| !from.is_empty()).map(|from| format!("'--remap-path-prefix={from}=.'"));
    format!("target.{triple}.rustflags=[{}]", flags.collect::<Vec<_>>().join(","))
}

fn write_package(package: &Package, module: &Path, out: &Path) -> Result<()> {
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("cannot empty {}", out.display()))?;
    }
    fs::create_dir_all(out)?;
    let name = package.module.as_deref().unwrap_or(package.artifact.trim_end_matches(".wasm"));
    match package.target {
        Target::Web => {
            // A profiler wants the names in what is only measured.
            let names = package.only == Some(Only::BenchWeb);
            let wasm = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
            Bindgen::new()
                .input_bytes(name, floats::replace(&wasm)?)
                .out_name(name)
                .web(true)?
                .typescript(true)
                .omit_default_module_path(false)
                .remove_name_section(!names)
                .remove_producers_section(true)
                .generate(out)?;
            if package.only.is_none() {
                names::shorten(out, name)?;
            }
            let modules = relaxed::split(&out.join(format!("{name}_bg.wasm")), names)?;
            if package.only.is_none() {
                modules.iter().try_for_each(|module| order::by_resemblance(module))?;
                let glue = out.join(format!("{name}.js"));
                fs::write(&glue, without_comments(&fs::read_to_string(&glue)?))?;
            }
            Ok(())
        }
        Target::Wasip2 => {
            let component = out.join(format!("{name}.wasm"));
            fs::copy(module, &component)?;
            relaxed::split_component(&component)
        }
    }
}

/// A script of wasm-bindgen's without lines of comment and without indentation, a third of it; the types beside it say the same.
fn without_comments(script: &str) -> String {
    let lines = script.lines().map(str::trim);
    let kept = lines
        .filter(|line| !line.is_empty() && !["/*", "*", "//"].iter().any(|begin| line.starts_with(begin)));
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// Installs the standard library of a target when this toolchain lacks it.
pub fn add_target(target: Target) -> Result<()> {
    let triple = target.triple();
    let library = shell::output("rustc", &["--print", "target-libdir", "--target", triple]);
    if library.is_some_and(|folder| Path::new(&folder).exists()) {
        return Ok(());
    }
    shell::run(&mut shell::command("rustup", &["target", "add", triple]))
}

fn print_sizes(name: &str, out: &Path) -> Result<()> {
    let mut found = false;
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            let bytes = fs::read(&path)?;
            let file = path.strip_prefix(shell::root()).unwrap_or(&path);
            let (plain, zipped) = (kib(bytes.len()), kib(gzipped(&bytes)?));
            eprintln!("  {name}: {} {plain} KiB, {zipped} KiB gzipped", file.display());
            found = true;
        }
    }
    if !found {
        bail!("no .wasm file in {}", out.display());
    }
    Ok(())
}

fn gzipped(bytes: &[u8]) -> Result<usize> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.len())
}

fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024)
}

#[cfg(test)]
mod tests {
    use super::without_comments;

    #[test]
    fn a_script_loses_comments_and_indentation_alone() {
        let script =
            "/**\n * One.\n */\nexport function f(a) {\n    // Two.\n    return a * 2; // '/*'\n}\n\n";
        assert_eq!(without_comments(script), "export function f(a) {\nreturn a * 2; // '/*'\n}\n");
    }
}

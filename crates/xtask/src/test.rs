//! `cargo xtask test`: every check in order, each with its duration, all of them even when one fails, then the totals.

use crate::manifest::Target;
use crate::totals::Totals;
use crate::{browsers, debian, program, shell, site, vulkan, wasm};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Instant;

/// Options of `cargo xtask test`.
#[derive(Args)]
pub struct Options {
    /// Run only these stages.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Stage>,
}

/// The order of the stages: what is quick to fail first, and what later stages need before them. Two may run at the same time.
const ORDER: [&[Stage]; 6] = [
    &[Stage::Fmt],
    &[Stage::Build, Stage::Clippy],
    &[Stage::Rust],
    &[Stage::Doc],
    &[Stage::Node],
    &[Stage::Browser],
];

/// The stages.
#[derive(Clone, Copy, PartialEq, Debug, ValueEnum)]
enum Stage {
    /// cargo fmt --check
    Fmt,
    /// The packages of wasm-pack.toml and the site.
    Build,
    /// cargo clippy on everything, natively and for WebAssembly, warnings denied.
    Clippy,
    /// Unit, property, fixture, server and WASI tests.
    Rust,
    /// Documentation tests, and the documentation without a broken link.
    Doc,
    /// Wire vectors, and what of the npm package and the demo needs no browser, in Node.js.
    Node,
    /// The site and the npm package in Chromium, Firefox and WebKit against the real server.
    Browser,
}

/// Runs the stages and prints the totals; an error when any of them failed.
pub fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let mut totals = Totals::default();
    let mut failed = Vec::new();
    for together in ORDER {
        let selected = |stage: &Stage| options.only.is_empty() || options.only.contains(stage);
        let stages = together.iter().copied().filter(selected).collect::<Vec<_>>();
        let outcomes = match stages[..] {
            [first, second] => run_beside(first, second),
            _ => stages.iter().map(|stage| run_stage(*stage)).collect(),
        };
        for (stage, (tests, passed)) in stages.iter().zip(outcomes) {
            totals.add(tests);
            if !passed {
                failed.push(stage.name());
            }
        }
    }
    eprintln!("\nall stages: {}", shown(start));
    println!("{} passed, {} failed, {} skipped", totals.passed, totals.failed, totals.skipped);
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Runs one stage and says how long it took. A stage that fails without a failed test counts as one.
fn run_stage(stage: Stage) -> (Totals, bool) {
    eprintln!("\n== {}", stage.name());
    let start = Instant::now();
    ended(stage, start, stage.run())
}

/// Runs `first` in a process of its own while `second` runs here, and prints its output afterwards. The packages for WebAssembly are
/// linked on one core, so that lints have the other.
fn run_beside(first: Stage, second: Stage) -> Vec<(Totals, bool)> {
    let start = Instant::now();
    let child = begin_beside(first);
    let second = run_stage(second);
    eprintln!("\n== {}, which ran at the same time", first.name());
    let first = ended(first, start, child.and_then(end_beside));
    vec![first, second]
}

/// Starts a stage that has no tests; its output goes to a file.
fn begin_beside(stage: Stage) -> Result<(Child, PathBuf)> {
    // Both stages add targets, and rustup adds one at a time.
    [Target::Web, Target::Wasip2].into_iter().try_for_each(wasm::add_target)?;
    let path = shell::target_dir().join("xtask").join(format!("test-{}.log", stage.name()));
    fs::create_dir_all(shell::target_dir().join("xtask"))?;
    let log = fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["test", "--only", &stage.name()]).current_dir(shell::root());
    Ok((command.stdout(log.try_clone()?).stderr(log).spawn()?, path))
}

fn end_beside((mut child, path): (Child, PathBuf)) -> Result<(Totals, bool)> {
    let status = child.wait()?;
    eprint!("{}", String::from_utf8_lossy(&fs::read(&path)?));
    Ok((Totals::default(), status.success()))
}

/// Says how a stage ended.
fn ended(stage: Stage, start: Instant, outcome: Result<(Totals, bool)>) -> (Totals, bool) {
    let (mut tests, passed) = outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        (Totals::default(), false)
    });
    if !passed && tests.failed == 0 {
        tests.failed = 1;
    }
    let verdict = if passed { "ok" } else { "FAILED" };
    eprintln!("== {}: {verdict} after {}", stage.name(), shown(start));
    (tests, passed)
}

fn shown(start: Instant) -> String {
    let seconds = start.elapsed().as_secs_f64();
    if seconds < 60.0 { format!("{seconds:.1} s") } else { format!("{:.1} min", seconds / 60.0) }
}

impl Stage {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn run(self) -> Result<(Totals, bool)> {
        match self {
            Self::Fmt => plain(&["fmt", "--all", "--check"]),
            Self::Build => {
                site::build()?;
                wasm::build_tested()?;
                Ok((Totals::default(), true))
            }
            // The release profile throughout: build scripts, macros and dependencies are then shared by all stages.
            Self::Clippy => {
                plain(&["clippy", "--workspace", "--all-targets", "--release", "--", "--deny", "warnings"])?;
                clippy_server()?;
                clippy_wasm()
            }
            Self::Rust => rust_tests(),
            Self::Doc => documentation(),
            Self::Node => node_tests(),
            Self::Browser => browser_tests(),
        }
    }
}

/// Lints of the program that `cargo xtask demo` builds.
fn clippy_server() -> Result<()> {
    let mut clippy = shell::cargo(&["clippy", "--release", "--package", "oto-cli", "--bin", "oto"]);
    shell::run(clippy.args(program::SERVER).args(["--", "--deny", "warnings"]))
}

/// Lints of the lines that only a WebAssembly target compiles.
fn clippy_wasm() -> Result<(Totals, bool)> {
    let web = [
        "--package",
        "oto-web",
        "--package",
        "oto-web-checks",
        "--features",
        "oto-web/webgpu,oto-web/actor,oto-web-checks/bench",
    ];
    let all = ["--package", "oto-web", "--features", "oto-web/all"];
    let wasi = ["--package", "oto-wasi", "--features", "oto-wasi/verify"];
    let actor = ["--package", "oto-wasi", "--lib", "--features", "oto-wasi/actor"];
    for (target, packages) in
        [(Target::Web, &web[..]), (Target::Web, &all), (Target::Wasip2, &wasi), (Target::Wasip2, &actor)]
    {
        wasm::add_target(target)?;
        let mut clippy = shell::cargo(&["clippy", "--release", "--target", target.triple()]);
        shell::run(clippy.args(packages).args(["--", "--deny", "warnings"]))?;
    }
    Ok((Totals::default(), true))
}

/// A cargo command that counts no tests.
fn plain(arguments: &[&str]) -> Result<(Totals, bool)> {
    shell::run(&mut shell::cargo(arguments))?;
    Ok((Totals::default(), true))
}

/// A runner whose closing lines are counted.
fn counted(command: &mut Command) -> Result<(Totals, bool)> {
    let (output, succeeded) = shell::tee(command)?;
    Ok((Totals::parse(&output), succeeded))
}

fn rust_tests() -> Result<(Totals, bool)> {
    vulkan::find_or_install()?;
    wasm::build_tested()?;
    // One build for all runners: cargo settles features for what it is asked to build, and another question would
    // compile the large dependencies again. The server is among what is built.
    shell::run(&mut shell::cargo(&["build", "--workspace", "--release", "--all-targets"]))?;
    let runner: &[&str] = match debian::in_path("cargo-nextest") {
        Some(_) => &["nextest", "run"],
        None => &["test"],
    };
    let mut tests = shell::cargo(runner);
    tests.args(["--workspace", "--release", "--all-targets", "--no-fail-fast"]);
    // Mesa's driver for the processor then compiles each shader in half the time; what it computes stays the same.
    counted(tests.env("GALLIVM_PERF", "nopt").env("OTO_COMPONENTS_BUILT", "1"))
}

fn documentation() -> Result<(Totals, bool)> {
    let mut pages = shell::cargo(&["doc", "--workspace", "--release", "--no-deps", "--quiet"]);
    shell::run(pages.env("RUSTDOCFLAGS", "--deny warnings"))?;
    counted(&mut shell::cargo(&["test", "--workspace", "--release", "--doc"]))
}

fn node_tests() -> Result<(Totals, bool)> {
    site::build()?;
    let mut files = test_files("tests/wire")?;
    files.extend(test_files("web/student/test")?);
    files.extend(test_files("web/demo/test")?);
    counted(&mut node(&files))
}

fn browser_tests() -> Result<(Totals, bool)> {
    let mut command = node(&test_files("tests/browser")?);
    for program in browsers::tested() {
        command.env(program.variable, program.find_or_install()?);
    }
    site::build()?;
    shell::run(&mut shell::cargo(&["build", "--workspace", "--release", "--all-targets"]))?;
    counted(command.env("OTO", program::whole()))
}

/// Node's test runner on these files; the plain reporter's closing lines are what `Totals` reads.
fn node(files: &[PathBuf]) -> Command {
    let mut command = shell::command("node", &["--test", "--test-reporter=spec"]);
    command.args(files);
    command
}

/// The `*.test.mjs` files of a folder, sorted, as paths from the root.
fn test_files(folder: &str) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(shell::root().join(folder)).with_context(|| format!("cannot read {folder}"))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".test.mjs") {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("{folder} has no *.test.mjs");
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::{fs, shell};

    /// A file that `it.rs` does not name would be compiled by nothing.
    #[test]
    fn every_test_file_belongs_to_its_program() {
        let mut seen = 0;
        for entry in fs::read_dir(shell::root().join("crates")).unwrap() {
            let folder = entry.unwrap().path().join("tests");
            let Ok(program) = fs::read_to_string(folder.join("it.rs")) else { continue };
            for file in fs::read_dir(&folder).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                let module = name.strip_suffix(".rs").filter(|module| *module != "it");
                if let Some(module) = module {
                    assert!(program.contains(&format!("mod {module};\n")), "{}: {name}", folder.display());
                    seen += 1;
                }
            }
        }
        assert!(seen > 30, "{seen}");
    }
}

//! libFuzzer on every decoder: the programs of `tests/fuzz`, built by a nightly compiler with instruments in all they are made of.
//!
//! What is new to a target is kept from run to run in `target/fuzz/corpus`; what breaks one is left in `target/fuzz/found`.

use super::{Covered, shown};
use crate::shell;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread::available_parallelism;
use std::time::Duration;

/// What libFuzzer needs to see where a run goes, as cargo-fuzz has it, and the address sanitizer for libraries with unsafe code.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Zsanitizer=address",
    "--cfg=fuzzing",
];
/// One run takes at most so many seconds, on a machine that does other things too.
const SECONDS: u32 = 25;
/// One run takes at most so much memory, in MiB. A page of Parquet may say that it unpacks to two GiB, which are asked for.
const MEMORY: u32 = 1024;
const MEMORY_PARQUET: u32 = 2560;

/// What one target did.
struct Fuzzed {
    name: String,
    executions: u64,
    /// libFuzzer's last word on coverage, such as `cov: 74 ft: 75 corp: 2/2b`.
    coverage: String,
    sound: bool,
}

/// Builds all targets, and gives each its share of the time.
pub fn run(time: Duration, only: &[String]) -> Result<Covered> {
    let programs = build()?;
    let names = targets(only)?;
    let workers = available_parallelism().map_or(1, usize::from).min(names.len());
    let share = time.mul_f64(workers as f64 / names.len() as f64).max(Duration::from_secs(1));
    eprintln!("   {} targets, {} each, {workers} at a time", names.len(), shown(share));
    let (queue, done) = (Mutex::new(names.into_iter()), Mutex::new(Vec::new()));
    let work = || -> Result<()> {
        loop {
            let Some(name) = queue.lock().expect("no worker panics").next() else { return Ok(()) };
            let fuzzed = fuzz(&programs, &name, share)?;
            eprintln!("   {}", line(&fuzzed));
            done.lock().expect("no worker panics").push(fuzzed);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
    })?;
    let mut done = done.into_inner().expect("no worker panics");
    done.sort_by(|a, b| a.name.cmp(&b.name));
    let sum: u64 = done.iter().map(|fuzzed| fuzzed.executions).sum();
    let mut lines: Vec<_> = done.iter().map(line).collect();
    lines.push(format!("{sum} executions of {} targets", done.len()));
    Ok(Covered { lines, sound: done.iter().all(|fuzzed| fuzzed.sound) })
}

fn line(fuzzed: &Fuzzed) -> String {
    let verdict = if fuzzed.sound { "" } else { "  FOUND SOMETHING, see target/fuzz/found" };
    format!("{:<12} {:>10} executions  {}{verdict}", fuzzed.name, fuzzed.executions, fuzzed.coverage)
}

/// Where everything of fuzzing is.
fn folder(name: &str) -> PathBuf {
    shell::target_dir().join("fuzz").join(name)
}

/// The names of the targets, each the name of a program.
fn targets(only: &[String]) -> Result<Vec<String>> {
    let folder = shell::root().join("tests/fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        names.extend(entry?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    if let Some(unknown) = only.iter().find(|name| !names.contains(name)) {
        bail!("there is no target {unknown:?}; there are {}", names.join(", "));
    }
    names.retain(|name| only.is_empty() || only.contains(name));
    Ok(names)
}

/// Builds the programs, and gives the folder they are in.
fn build() -> Result<PathBuf> {
    let about = shell::output("rustup", &["run", "nightly", "rustc", "-vV"]);
    let Some(host) =
        about.as_deref().and_then(|about| about.lines().find_map(|line| line.strip_prefix("host: ")))
    else {
        bail!(
            "nothing was fuzzed: that takes a nightly compiler. `rustup toolchain install nightly --profile minimal` installs one"
        );
    };
    if shell::output("c++", &["--version"]).is_none() {
        bail!(
            "nothing was fuzzed: libFuzzer is written in C++, and there is no `c++` here. On Debian the package g++ has it"
        );
    }
    same_versions()?;
    let (manifest, target) = (shell::root().join("tests/fuzz/Cargo.toml"), folder("build"));
    let mut cargo = shell::command(
        "rustup",
        &["run", "nightly", "cargo", "build", "--release", "--bins", "--target", host],
    );
    cargo.arg("--manifest-path").arg(&manifest).arg("--target-dir").arg(&target);
    // The compiler around us is another one.
    cargo.env_remove("RUSTC").env_remove("CARGO").env("RUSTFLAGS", FLAGS.join(" "));
    shell::run(&mut cargo)?;
    Ok(target.join(host).join("release"))
}

/// What is fuzzed is what ships: its lock file is the workspace's, which cargo adds libFuzzer to.
fn same_versions() -> Result<()> {
    let (ours, theirs) = (shell::root().join("Cargo.lock"), shell::root().join("tests/fuzz/Cargo.lock"));
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    if changed(&theirs).is_none_or(|theirs| changed(&ours).is_some_and(|ours| ours > theirs)) {
        fs::copy(&ours, &theirs).context("cannot copy Cargo.lock")?;
    }
    Ok(())
}

/// One target, for so long.
fn fuzz(programs: &Path, name: &str, time: Duration) -> Result<Fuzzed> {
    let (corpus, found, log) =
        (folder("corpus").join(name), folder("found"), folder("logs").join(format!("{name}.log")));
    for folder in [&corpus, &found, &folder("logs")] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let memory = if name == "parquet" { MEMORY_PARQUET } else { MEMORY };
    let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut program = Command::new(programs.join(name));
    program
        .arg(&corpus)
        .arg(shell::root().join("tests/fuzz/corpus").join(name))
        .arg(format!("-artifact_prefix={}/{name}-", found.display()))
        .arg(format!("-max_total_time={}", time.as_secs().max(1)))
        .arg(format!("-timeout={SECONDS}"))
        .args([format!("-rss_limit_mb={}", 2 * memory), format!("-malloc_limit_mb={memory}")])
        .args(["-print_final_stats=1", "-detect_leaks=0"])
        .env("ASAN_OPTIONS", "detect_odr_violation=0")
        .stdout(Stdio::null())
        .stderr(out);
    let status = program.status().with_context(|| format!("cannot start the target {name}"))?;
    let text = String::from_utf8_lossy(&fs::read(&log).context("its log")?).into_owned();
    if !status.success() {
        let end: Vec<_> = text.lines().rev().take(40).collect();
        end.iter().rev().for_each(|line| eprintln!("   {name}: {line}"));
    }
    let (executions, coverage) = read(&text);
    Ok(Fuzzed { name: name.to_owned(), executions, coverage, sound: status.success() })
}

/// Executions and coverage, as libFuzzer's log has them.
fn read(log: &str) -> (u64, String) {
    let counted = log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let last = log.lines().rev().find_map(|line| Some((line, line.find("cov: ")?)));
    let coverage = last.map_or("", |(line, at)| line[at..].split(" exec/s").next().unwrap_or_default());
    // A target that found something has no statistics: its last line begins with how far it was.
    let began = last.and_then(|(line, _)| line.strip_prefix('#')?.split_whitespace().next());
    let executions = counted.or(began).and_then(|number| number.trim().parse().ok()).unwrap_or(0);
    (executions, coverage.split(" lim:").next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_executions_and_coverage() {
        let log = "INFO: Seed: 1\n#2\tINITED cov: 7 ft: 7 corp: 1/1b exec/s: 0 rss: 30Mb\n\
            #90\tDONE   cov: 74 ft: 75 corp: 2/2b lim: 4096 exec/s: 30 rss: 40Mb\nstat::number_of_executed_units: 91\n";
        assert_eq!(read(log), (91, "cov: 74 ft: 75 corp: 2/2b".into()));
        let found = log.lines().take(2).collect::<Vec<_>>().join("\n");
        assert_eq!(read(&found), (2, "cov: 7 ft: 7 corp: 1/1b".into()));
        assert_eq!(read("what else"), (0, String::new()));
    }

    #[test]
    fn targets_are_the_programs_that_there_are() {
        let all = targets(&[]).unwrap();
        assert!(all.contains(&"frames".into()) && all.contains(&"hdf5".into()), "{all:?}");
        assert_eq!(targets(&["json".into()]).unwrap(), ["json"]);
        assert!(targets(&["jason".into()]).unwrap_err().to_string().contains("there is no target \"jason\""));
    }
}

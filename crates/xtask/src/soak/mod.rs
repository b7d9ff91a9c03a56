//! `cargo xtask soak`: what finds more the longer it runs. Simulated networks, kills, hostile peers, fuzzing and load, each for a given time, and
//! then what each of them covered.

mod fuzz;
mod load;
mod repeated;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Options of `cargo xtask soak`.
#[derive(Args)]
pub struct Options {
    /// How long each part takes, in minutes; building comes before that.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Do only these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Fuzz only these decoders; all share the time.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    targets: Vec<String>,
    /// The first seed of simulation and link; the same seeds are the same runs.
    #[arg(long, default_value_t = 0)]
    seed_from: u64,
}

#[derive(Clone, Copy, PartialEq, Debug, ValueEnum)]
enum Part {
    /// Students and a server on a simulated network, seed by seed.
    Simulation,
    /// An actor and its learner on a simulated network, seed by seed; 1,000 seeds at least.
    Link,
    /// A server that is killed while students submit, again and again.
    Kills,
    /// Hostile peers of each kind beside students.
    Hostile,
    /// libFuzzer on every decoder.
    Fuzz,
    /// Many students on a server.
    Load,
}

/// What a part did, a line each, and whether all of it was as it should be.
struct Covered {
    lines: Vec<String>,
    sound: bool,
}

/// Runs the parts and prints what they covered; an error when any of them failed.
pub fn run(options: &Options) -> Result<()> {
    let Some(time) = Duration::try_from_secs_f64(60.0 * options.minutes).ok().filter(|time| !time.is_zero())
    else {
        bail!("--minutes is {}, expected a time", options.minutes);
    };
    let (mut report, mut failed) = (Vec::new(), Vec::new());
    for &part in Part::value_variants() {
        if !options.only.is_empty() && !options.only.contains(&part) {
            continue;
        }
        let name = format!("{part:?}").to_lowercase();
        eprintln!("\n== {name}");
        let outcome = match part {
            Part::Simulation => repeated::simulation(time, options.seed_from),
            Part::Link => repeated::link(time, options.seed_from),
            Part::Kills => repeated::kills(time),
            Part::Hostile => repeated::hostile(time),
            Part::Fuzz => fuzz::run(time, &options.targets),
            Part::Load => load::run(time),
        };
        let covered =
            outcome.unwrap_or_else(|error| Covered { lines: vec![format!("{error:#}")], sound: false });
        if !covered.sound {
            failed.push(name.clone());
        }
        let verdict = if covered.sound { "ok" } else { "FAILED" };
        report.push(format!("{name}: {verdict}"));
        report.extend(covered.lines.into_iter().map(|line| format!("  {line}")));
    }
    println!("\n{}", report.join("\n"));
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// A time as people say it.
fn shown(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 60.0 { format!("{seconds:.0} s") } else { format!("{:.1} min", seconds / 60.0) }
}

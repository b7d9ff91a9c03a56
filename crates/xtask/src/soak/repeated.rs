//! Tests that take from the environment how much they do: for so long, or so often, and then again until the time is over.

use super::{Covered, shown};
use crate::shell;
use anyhow::Result;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a test prints before pairs of a name and a number, to be added up: `covered: kills 12, acknowledged 300`.
const COVERED: &str = "covered: ";
/// What the simulation prints between its number of seeds and its totals.
const IN_ALL: &str = " seeds in all: ";

/// Simulated networks: every seed is another history. The test itself goes on for as long as it is told.
pub fn simulation(time: Duration, from: u64) -> Result<Covered> {
    build("simulation")?;
    let mut test = cargo_test("simulation", &[]);
    test.env("OTO_FOR_SECONDS", time.as_secs().max(1).to_string()).env("OTO_SEED_FROM", from.to_string());
    let (output, passed) = shell::tee(&mut test)?;
    Ok(simulated(&output, passed))
}

/// What the test prints of all its seeds.
fn simulated(output: &str, passed: bool) -> Covered {
    let all = output.lines().find_map(|line| line.split_once(IN_ALL));
    let told =
        all.map(|(seeds, counts)| format!("{} seeds: {counts}", seeds.rsplit(' ').next().unwrap_or(seeds)));
    let sound = passed && told.is_some();
    Covered { lines: vec![told.unwrap_or_else(|| "the test did not come to its end".into())], sound }
}

/// Seeds of an actor and its learner on a simulated network, at least.
const LINK_SEEDS: u64 = 1_000;

/// Actors and learners on simulated networks: every seed is another history.
pub fn link(time: Duration, from: u64) -> Result<Covered> {
    const TEST: &str = "actor::simulation::no_acknowledged_row_is_lost_or_doubled_and_versions_only_grow";
    let test = ["test", "--release", "--package", "oto-agent", "--lib"];
    shell::run(shell::cargo(&test).arg("--no-run"))?;
    portions(time, LINK_SEEDS, "seeds", |done, count| {
        let first = from + done;
        let mut test = shell::cargo(&test);
        test.args(["--", "--exact", TEST, "--nocapture"]);
        shell::tee(test.env("OTO_LINK_SEEDS", format!("{first}..{}", first + count)))
    })
}

/// Kills of a server that is in the middle of writing.
pub fn kills(time: Duration) -> Result<Covered> {
    const TEST: &str =
        "submissions::a_server_that_is_killed_loses_nothing_acknowledged_and_counts_nothing_twice";
    build("it")?;
    portions(time, 0, "kills", |_, count| {
        let mut test = cargo_test("it", &["--exact", TEST]);
        shell::tee(test.env("OTO_KILLS", count.to_string()))
    })
}

/// Hostile peers beside students, each kind for its share of the time, a minute at least. The test itself goes on for as long as it is
/// told.
pub fn hostile(time: Duration) -> Result<Covered> {
    const TEST: &str = "hostile::fifty_students_are_taught_beside_hostile_peers_of_each_kind";
    build("it")?;
    let share = (time / KINDS).max(Duration::from_secs(60));
    let mut test = cargo_test("it", &["--exact", TEST]);
    test.env("OTO_HOSTILE_SECONDS", share.as_secs().to_string());
    let (output, passed) = shell::tee(&mut test)?;
    Ok(withstood(&output, passed))
}

/// Kinds of hostile peers.
const KINDS: u32 = 11;

/// What the test prints of each kind.
fn withstood(output: &str, passed: bool) -> Covered {
    let told = |line: &str| Some(line.split_once("hostile: ")?.1.to_owned());
    let mut lines: Vec<String> = output.lines().filter_map(told).collect();
    let sound = passed && ran(output) && !lines.is_empty();
    if lines.is_empty() {
        lines.push("the test told of no kind".into());
    }
    Covered { lines, sound }
}

fn build(test: &str) -> Result<()> {
    shell::run(&mut shell::cargo(&["test", "--workspace", "--release", "--test", test, "--no-run"]))
}

fn cargo_test(test: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = shell::cargo(&["test", "--workspace", "--release", "--test", test, "--"]);
    command.args(arguments).arg("--nocapture");
    command
}

/// Calls a test with how many are done and how many to do, until the time is over and `least` are done, or it fails. The first portion
/// is small; later ones take about a minute.
fn portions(
    time: Duration,
    least: u64,
    of: &str,
    mut call: impl FnMut(u64, u64) -> Result<(String, bool)>,
) -> Result<Covered> {
    let (start, mut done, mut count, mut sums) = (Instant::now(), 0, 10, BTreeMap::new());
    loop {
        let began = Instant::now();
        let (output, passed) = call(done, count)?;
        add_up(&output, &mut sums);
        if !passed || !ran(&output) {
            let why = if passed { "there is no such test" } else { "the test failed" };
            let lines = vec![format!("{why}, after {done} {of} that passed and among the next {count}")];
            return Ok(Covered { lines, sound: false });
        }
        done += count;
        let each = began.elapsed().as_secs_f64() / count as f64;
        let left = time.saturating_sub(start.elapsed());
        eprintln!("   {done} {of} so far, {} left", shown(left));
        // Whole portions: what would begin a second before the end would take longer than that.
        count = (left.as_secs_f64().min(60.0) / each.max(1e-6)) as u64;
        if count == 0 {
            count = least.saturating_sub(done).min((60.0 / each.max(1e-6)) as u64 + 1);
        }
        if count == 0 {
            break;
        }
    }
    let mut lines = vec![format!("{done} {of} in {}", shown(start.elapsed()))];
    lines.extend(sums.into_iter().map(|(name, sum)| format!("{name}: {sum}")));
    Ok(Covered { lines, sound: true })
}

/// Whether a test was run at all.
fn ran(output: &str) -> bool {
    crate::totals::Totals::parse(output).passed > 0
}

fn add_up(output: &str, sums: &mut BTreeMap<String, u64>) {
    for line in output.lines().filter_map(|line| line.trim().strip_prefix(COVERED)) {
        for pair in line.split(", ") {
            if let Some((name, Ok(number))) =
                pair.rsplit_once(' ').map(|(name, number)| (name, number.parse::<u64>()))
            {
                *sums.entry(name.to_owned()).or_default() += number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out\n";

    #[test]
    fn portions_grow_until_the_time_is_over_and_their_numbers_are_added_up() {
        let mut calls = Vec::new();
        let covered = portions(Duration::from_millis(300), 0, "seeds", |done, count| {
            calls.push((done, count));
            std::thread::sleep(Duration::from_millis(20));
            Ok((format!("covered: states 2, lost connections {count}\n{PASSED}"), true))
        });
        let covered = covered.unwrap();
        assert!(covered.sound && calls.len() > 1 && calls[0] == (0, 10) && calls[1].0 == 10, "{calls:?}");
        let done: u64 = calls.iter().map(|(_, count)| count).sum();
        assert!(covered.lines[0].starts_with(&format!("{done} seeds in ")));
        assert_eq!(
            covered.lines[1..],
            [format!("lost connections: {done}"), format!("states: {}", 2 * calls.len())]
        );
    }

    #[test]
    fn portions_do_not_end_before_the_least_number_is_done() {
        let mut seeds = 0;
        let covered = portions(Duration::from_millis(1), 500, "seeds", |done, count| {
            assert_eq!(done, seeds);
            seeds += count;
            std::thread::sleep(Duration::from_millis(2));
            Ok((PASSED.into(), true))
        });
        assert!(covered.unwrap().sound);
        assert_eq!(seeds, 500);
    }

    #[test]
    fn hostile_peers_are_withstood_if_the_test_says_so_of_some() {
        let output =
            format!("test hostile::x ... hostile: tickets: 9 times\nhostile: deaf: 3 times\n{PASSED}");
        let covered = withstood(&output, true);
        assert!(
            covered.sound && covered.lines == ["tickets: 9 times", "deaf: 3 times"],
            "{:?}",
            covered.lines
        );
        assert!(!withstood(&output, false).sound && !withstood(PASSED, true).sound);
    }

    #[test]
    fn a_simulation_is_sound_if_it_came_to_its_end() {
        let output = "100 seeds, to 99: 5 requests\n120 seeds in all: 12 requests\n";
        let covered = simulated(output, true);
        assert!(covered.sound && covered.lines == ["120 seeds: 12 requests"]);
        assert!(!simulated(output, false).sound && !simulated("100 seeds, to 99: 5", true).sound);
    }

    #[test]
    fn a_test_that_fails_or_is_not_there_is_a_failure() {
        let covered =
            portions(Duration::from_secs(9), 0, "seeds", |_, _| Ok((PASSED.into(), false))).unwrap();
        assert!(!covered.sound && covered.lines[0].contains("failed, after 0 seeds"));
        let none = PASSED.replace("1 passed", "0 passed");
        let covered = portions(Duration::from_secs(9), 0, "seeds", |_, _| Ok((none.clone(), true))).unwrap();
        assert!(!covered.sound && covered.lines[0].contains("no such test"));
    }
}

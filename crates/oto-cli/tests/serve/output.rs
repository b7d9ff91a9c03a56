//! Output that cannot be written: a reader that leaves, a full disk, a terminal that hangs up.

use crate::program::{POLICY, Place};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

const LOSSES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/losses.json.gz");
const EXPERT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../oto-data/tests/fixtures/cartpole_expert");

fn oto(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oto"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The exit code and standard error of a child.
fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

/// The step of a run's checkpoint.
fn saved(run: &Path) -> u64 {
    let file = std::fs::read(run.join("checkpoint.safetensors")).expect("a checkpoint");
    oto_agent::checkpoint::steps(&file).unwrap()
}

fn lines(child: &mut Child) -> std::io::Lines<BufReader<ChildStdout>> {
    BufReader::new(child.stdout.take().unwrap()).lines()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// A run that ends only when it is stopped.
fn endless(run: &Path) -> Command {
    oto(&["learn", "--json", "--steps", "1000000000", "--eval-every", "0", "--out", run.to_str().unwrap()])
}

#[test]
fn a_reader_that_leaves_is_no_fault() {
    let mut child = oto(&["verify", LOSSES, LOSSES]).spawn().unwrap();
    // The pipe is closed before there is anything to print: the report comes when all is computed.
    drop(child.stdout.take());
    assert_eq!(ended(child), (Some(141), String::new()));
}

#[test]
fn a_run_whose_reader_leaves_ends_with_its_checkpoint() {
    let place = Place::new("reader");
    let at = |name: &str| place.0.join(name).to_str().unwrap().to_owned();
    let (one, many, teacher) = (at("one"), at("many"), at("teacher"));
    let learn = ["learn", "--json", "--steps", "1000000000", "--eval-every", "0"];
    let teach = ["teach", "--json", "--updates", "1000000", "--eval-every", "10", "--eval-episodes", "1"];
    let small = ["--algorithm", "bc", "--set", "algorithm.hidden=[8]", "--dataset", EXPERT];
    for arguments in [
        [&learn[..], &["--out", &one]].concat(),
        [&learn[..], &["--seeds", "2", "--out", &many]].concat(),
        [&teach[..], &small, &["--out", &teacher]].concat(),
    ] {
        let mut child = oto(&arguments).spawn().unwrap();
        lines(&mut child).next().unwrap().unwrap();
        let (code, said) = ended(child);
        assert_eq!(code, Some(141), "{arguments:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("cannot write"), "{said}");
    }
    assert!(saved(Path::new(&one)) > 0);
    // The second run may not have begun when the reader left.
    let begun =
        std::fs::read_dir(&many).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let begun = begun.map(|run| saved(&run)).collect::<Vec<_>>();
    assert!(begun.iter().any(|steps| *steps > 0), "{begun:?}");
    assert!(Path::new(&teacher).join("checkpoint.safetensors").is_file());
}

/// A file that is full, as a disk is.
#[cfg(target_os = "linux")]
fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_said_and_loses_no_run() {
    let place = Place::new("full");
    let at = |name: &str| place.0.join(name).to_str().unwrap().to_owned();
    let (run, quiet, teacher) = (at("run"), at("quiet"), at("teacher"));
    let small = ["--algorithm", "bc", "--set", "algorithm.hidden=[8]", "--updates", "20"];
    for arguments in [
        vec!["--help"],
        vec!["learn", "--help"],
        vec!["algorithms"],
        vec!["algorithms", "--json"],
        vec!["verify", "--json", LOSSES],
        vec!["dataset", "info", EXPERT],
        vec!["dataset", "info", "--json", EXPERT],
        vec!["serve", "--check"],
        vec!["learn", "--json", "--steps", "600", "--out", &run],
        vec!["learn", "--quiet", "--steps", "600", "--out", &quiet],
        vec!["eval", "--json", "--episodes", "1", &run],
        [&["teach", "--json", "--dataset", EXPERT, "--eval-episodes", "1", "--out", &teacher], &small[..]]
            .concat(),
    ] {
        let (code, said) = ended(oto(&arguments).stdout(full()).spawn().unwrap());
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        let sentence = "cannot write to standard output: No space left on device";
        assert!(said.matches(sentence).count() == 1 && !said.contains("panicked"), "{arguments:?}: {said}");
    }
    assert_eq!((saved(Path::new(&run)), saved(Path::new(&quiet))), (600, 600));
    assert!(Path::new(&teacher).join("checkpoint.safetensors").is_file());
    // Without room for messages the work is done, too.
    let absent =
        ["--teacher", "ws://127.0.0.1:9", "--policy", POLICY, "--force", "--steps", "300", "--out", &run];
    let mut silent = oto(&[&["learn"], &absent[..]].concat());
    assert!(silent.stderr(full()).status().unwrap().success());
    assert_eq!(saved(Path::new(&run)), 300);
}

#[test]
#[cfg(target_os = "linux")]
fn a_server_serves_without_room_for_its_first_line() {
    let mut child = oto(&["serve", "--port", "0"]).stdout(full()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = said.find(|line| line.contains("serving address=")).expect("it serves");
    let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
    let (status, _) = crate::program::request(address.parse().unwrap(), "GET /healthz", "", "");
    assert_eq!(status, 200);
    signal(&child, "-TERM");
    assert!(said.all(|line| !line.contains("panicked")));
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[test]
fn a_terminal_that_hangs_up_ends_a_run_with_its_checkpoint() {
    let place = Place::new("hangup");
    let mut child = endless(&place.run()).spawn().unwrap();
    let mut lines = lines(&mut child);
    lines.next().unwrap().unwrap();
    // The shell sends one, and the terminal sends one.
    signal(&child, "-HUP");
    signal(&child, "-HUP");
    lines.for_each(drop);
    let (code, said) = ended(child);
    assert_eq!(code, Some(0), "{said}");
    assert!(saved(&place.run()) > 0);
}

#[test]
#[cfg(target_os = "linux")]
fn a_run_that_nohup_starts_ignores_hang_ups() {
    let place = Place::new("nohup");
    let endless = endless(&place.run());
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(endless.get_program()).args(endless.get_args());
    let mut child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = lines(&mut child);
    lines.next().unwrap().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 1, 1, "{ignored}");
    signal(&child, "-TERM");
    lines.for_each(drop);
    assert_eq!(ended(child).0, Some(0));
}

//! `oto serve --check`, and serving itself, with files that are none and with settings of no use: each is refused in time, by name.

use crate::program::{CERTIFICATE, File, KEY, PATIENCE, POLICY, Place, Program, request};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// What `oto serve --check` with these flags says on standard error, and whether it says that all is fine.
fn check(flags: &[&str]) -> (bool, String) {
    let flags = [&["--check"], flags].concat();
    let Output { status, stdout, stderr } = run(&flags);
    let (out, said) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.success(), out.starts_with("fine: "), "{flags:?}: {out}{said}");
    assert!(!said.contains("panicked"), "{said}");
    (status.success(), said)
}

/// `oto serve` until it ends, which it does soon.
fn run(flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oto"));
    let mut child = command
        .arg("serve")
        .args(flags)
        .env("OTO_ADMIN_TOKEN", "a token of an operator")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it does not end: {flags:?}");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn refused(flags: &[&str], says: &[&str]) {
    let (fine, said) = check(flags);
    assert!(!fine, "{flags:?}");
    for says in says {
        assert!(said.contains(says), "{flags:?}: expected {says:?} in {said}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn pipe(place: &Place, name: &str) -> PathBuf {
    let path = place.0.join(name);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// Flags that name this file, each in another place.
fn places(place: &Place, number: usize, path: &str) -> Vec<Vec<String>> {
    let write = |name: &str, text: String| {
        let file = place.0.join(format!("{number}-{name}"));
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let machine = format!(r#"{{"machines": [{{"name": "box", "token_file": {path:?}}}]}}"#);
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../oto-data/tests/fixtures/cartpole_expert");
    let refused = place.0.join("refused");
    let from = format!(r#"{{"dataset": {path:?}, "refused": {refused:?}}}"#);
    let kept = format!(r#"{{"dataset": {data:?}, "refused": {refused:?}, "kept": {path:?}}}"#);
    let flags = [
        format!("--config {path}"),
        format!("--access {path}"),
        format!("--access {}", write("token", machine)),
        format!("--admin 127.0.0.1:0 --admin-token {path}"),
        format!("--tls-cert {path} --tls-key {KEY}"),
        format!("--tls-cert {CERTIFICATE} --tls-key {path}"),
        format!("--follow ws://127.0.0.1:9 --policy p --follow-ca {path}"),
        format!("--train p={path}"),
        format!("--train p={}", write("data", from)),
        format!("--train p={}", write("kept", kept)),
    ];
    flags.iter().map(|flags| flags.split(' ').map(str::to_owned).collect()).collect()
}

fn each_is_refused(flags: Vec<Vec<String>>, path: &str, says: &str) {
    std::thread::scope(|scope| {
        for flags in &flags {
            scope.spawn(move || {
                let flags: Vec<_> = flags.iter().map(String::as_str).collect();
                refused(&flags, &[path, says]);
            });
        }
    });
}

#[test]
fn a_path_that_is_no_file_or_a_huge_one_is_refused_wherever_it_is_named() {
    let place = Place::new("no-files");
    std::fs::create_dir(place.0.join("folder")).unwrap();
    each_is_refused(places(&place, 0, "/dev/zero"), "/dev/zero", "got a device");
    let folder = place.0.join("folder");
    let mut flags = places(&place, 1, text(&folder));
    // A folder is a form of a dataset.
    flags.remove(8);
    each_is_refused(flags, text(&folder), "got a folder");
    let huge = place.0.join("huge");
    std::fs::File::create(&huge).unwrap().set_len((2 << 30) + 1).unwrap();
    let mut flags = places(&place, 2, text(&huge));
    // What was learned may be as large; this one is damaged.
    let kept = flags.pop().unwrap();
    each_is_refused(flags, text(&huge), "2147483649");
    each_is_refused(vec![kept], text(&huge), "damaged");
}

#[test]
fn a_pipe_is_read_where_it_ends_and_refused_where_it_does_not() {
    let place = Place::new("pipes");
    let silent = pipe(&place, "silent");
    let mut flags = places(&place, 0, text(&silent));
    // Ten minutes are a dataset's; what was learned is a file.
    let (kept, _) = (flags.pop().unwrap(), flags.pop());
    let unread = pipe(&place, "unread");
    std::thread::scope(|scope| {
        scope.spawn(|| refused(&["--audit", text(&unread)], &[text(&unread), "within 10 s"]));
        each_is_refused(flags, text(&silent), "within 10 s");
    });
    each_is_refused(vec![kept], text(&silent), "got a pipe");
    let given = pipe(&place, "given");
    let writer = {
        let given = given.clone();
        std::thread::spawn(move || {
            let mut to = std::fs::OpenOptions::new().write(true).open(given).unwrap();
            to.write_all(br#"{"pages": {}}"#).unwrap();
        })
    };
    assert!(check(&["--access", text(&given)]).0);
    writer.join().unwrap();
}

#[test]
fn settings_of_no_use_are_refused() {
    for (flags, says) in [
        (&["--connections", "0"][..], "--connections"),
        (&["--per-address", "0"], "--per-address"),
        (&["--memory", "0"], "--memory"),
        (&["--memory", "65535"], "--memory"),
        (&["--replay-bytes", "0"], "--replay-bytes"),
        (&["--port", "8090", "--admin", "127.0.0.1:8090"], "another port"),
        (
            &["--host", "0.0.0.0", "--plain-http", "--port", "8090", "--admin", "127.0.0.1:8090"],
            "another port",
        ),
        // Of the documentation's network, so nobody's.
        (&["--host", "192.0.2.1", "--plain-http"], "192.0.2.1"),
    ] {
        refused(flags, &[says]);
    }
    for (access, says) in [
        ("[]", "expected an object, got a list"),
        ("{}", "expected machines or pages"),
        (r#"{"pages": []}"#, "expected an object, got a list"),
        (r#"{"pages": {"policies": ["ppo_cartpole_v2"]}}"#, "ppo_cartpole_v1, "),
        (r#"{"pages": {"connections": 0}}"#, "at least 1"),
        (
            r#"{"machines": [{"name": "a", "token_env": "OTO_ADMIN_TOKEN"}, {"name": "a", "token_sha256":
                "0000000000000000000000000000000000000000000000000000000000000000"}]}"#,
            "a name of its own",
        ),
    ] {
        let file = File::new("useless", access);
        refused(&["--access", file.path()], &[says]);
        // And so is serving.
        let served = run(&["--port", "0", "--access", file.path()]);
        assert!(!served.status.success() && String::from_utf8(served.stderr).unwrap().contains(says));
    }
}

#[test]
fn what_works_is_fine() {
    // Another server may have the port until it is replaced.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert!(check(&["--port", &port]).0);
    let access = File::new("fine", &format!(r#"{{"pages": {{"policies": ["{POLICY}"]}}}}"#));
    assert!(check(&["--access", access.path(), "--connections", "1", "--memory", "65536"]).0);
}

#[test]
fn a_check_of_a_follower_does_not_wait_for_what_is_not_shared() {
    let server = Program::serve(&[], &[]);
    let url = format!("ws://{}", server.address);
    refused(&["--follow", &url, "--policy", POLICY], &[POLICY, "not shared"]);
    let sharing = Program::serve(&["--share-weights"], &[]);
    let url = format!("ws://{}", sharing.address);
    assert!(check(&["--follow", &url, "--policy", POLICY]).0);
    refused(&["--follow", &url, "--policy", "none"], &["none", "not shared"]);
}

#[test]
fn a_build_without_the_site_says_so() {
    let server = Program::serve(&[], &[]);
    let (status, body) = request(server.address, "GET /", "", "");
    let said = server.stop();
    match status {
        200 => assert!(body.contains("<!doctype html>") && !said.contains("no site"), "{said}"),
        _ => assert!(
            status == 404 && body.contains("without the site") && said.contains("no site"),
            "{body}{said}"
        ),
    }
}

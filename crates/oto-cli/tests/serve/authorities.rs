//! `oto learn` and a server that follows another, at a server whose certificate no authority of Mozilla's gave.

use crate::program::{ANOTHER, CERTIFICATE, File, KEY, POLICY, Place, Program};
use std::process::Command;

const STUDENT: &str = "a student's own secret";
const MIRROR: &str = "a mirror's own secret";
/// Who may do what: the second machine may have the bytes of policies.
const ACCESS: &str = r#"{ "machines": [
    { "name": "student", "token_env": "STUDENT" }, { "name": "mirror", "token_env": "MIRROR", "grants": ["weights"] }
] }"#;

/// The last line of metrics of a short run with these flags and the student's token, or what `oto learn` said instead.
fn learn(name: &str, url: &str, flags: &[&str]) -> Result<serde_json::Value, String> {
    let place = Place::new(name);
    let output = Command::new(env!("CARGO_BIN_EXE_oto"))
        .args(["learn", "--quiet", "--steps", "500", "--teacher", url, "--policy", POLICY, "--out"])
        .arg(place.run())
        .args(flags)
        .env("OTO_TOKEN", STUDENT)
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let metrics = std::fs::read_to_string(place.run().join("metrics.jsonl")).unwrap();
    Ok(serde_json::from_str(metrics.lines().last().unwrap()).unwrap())
}

#[test]
fn a_student_and_a_follower_trust_whom_they_are_told_to_and_show_their_tokens() {
    let access = File::new("access.json", ACCESS);
    let cloud = ["--tls-cert", CERTIFICATE, "--tls-key", KEY, "--access", access.path()];
    let cloud = Program::serve(&cloud, &[("STUDENT", STUDENT), ("MIRROR", MIRROR)]);
    let wss = format!("wss://{}", cloud.address);
    let labels = |name, url: &str, flags: &[&str]| {
        let metrics = learn(name, url, flags).unwrap();
        metrics["labels"].as_u64().unwrap_or_else(|| panic!("{metrics}"))
    };
    assert!(labels("trusted", &wss, &["--ca", CERTIFICATE]) > 0);
    assert_eq!(labels("unknown", &wss, &[]), 0);
    let another = learn("another", &wss, &["--adapter", "learn", "--ca", ANOTHER]).unwrap_err();
    assert!(another.contains("certificate"), "{another}");
    let none = learn("none", &wss, &["--ca", KEY]).unwrap_err();
    assert!(none.contains("expected a certificate, got none"), "{none}");
    let follow = ["--follow", &wss, "--policy", POLICY, "--follow-ca", CERTIFICATE];
    let near = Program::serve(&follow, &[("OTO_TOKEN", MIRROR)]);
    assert!(labels("followed", &format!("ws://{}", near.address), &[]) > 0);
}

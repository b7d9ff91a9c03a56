//! What is in the log, and what never is.

use crate::program::{File, POLICY, Program, ask, hello, request};
use oto_proto::{ErrorCode, ServerMessage};
use serde_json::Value;
use std::io::{Read, Write};
use tungstenite::Message;

const TOKEN: &str = "the secret of a box";
const OPERATOR: &str = "the secret of the operator";
const GUESS: &str = "somebody's long guess";
const ACCESS: &str = r#"{"machines": [{"name": "box", "token_env": "BOX_TOKEN", "policies": ["ppo_cartpole_v1"]}], "pages": {}}"#;

#[test]
fn a_line_is_an_object_with_fields_and_no_secret_is_in_any() {
    let access = File::new("access", ACCESS);
    let token = File::new("operator", OPERATOR);
    let mut server = Program::serve(
        &[
            "--log",
            "json",
            "--access",
            access.path(),
            "--admin",
            "127.0.0.1:0",
            "--admin-token",
            token.path(),
        ],
        &[("BOX_TOKEN", TOKEN), ("OTO_SERVE_LOG_LEVEL", "debug")],
    );
    let operators = server.listens("operators: http://");
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    let (status, body) = request(server.address, "POST /v1/ticket", &bearer(TOKEN), "");
    let ticket = serde_json::from_str::<Value>(&body).unwrap()["ticket"].as_str().unwrap().to_owned();
    assert_eq!(status, 200);
    assert_eq!(request(server.address, "POST /v1/ticket", &bearer(GUESS), "").0, 401);
    assert_eq!(server.socket(&[("authorization", &format!("Bearer {GUESS}"))]).err(), Some(401));
    for (ticket, welcome) in [(&ticket, true), (&ticket, false), (&GUESS.to_owned(), false)] {
        let answer = ask(&mut server.socket(&[]).unwrap(), &hello(POLICY, Some(ticket.clone())));
        assert_eq!(matches!(answer, ServerMessage::Welcome(_)), welcome, "{answer:?}");
    }
    let mut machine = server.socket(&[("authorization", &format!("Bearer {TOKEN}"))]).unwrap();
    let refused = ask(&mut machine, &hello("sac_pendulum_v1", None));
    assert!(matches!(refused, ServerMessage::Error(error) if error.code == ErrorCode::Forbidden));
    let wish = format!("POST /policies/{POLICY}/rollback");
    assert_eq!(request(operators, &wish, &bearer(GUESS), "").0, 401);
    assert_eq!(request(operators, &wish, &bearer(OPERATOR), "").0, 409);
    let shadow = format!("DELETE /policies/{POLICY}/shadow");
    assert_eq!(request(operators, &shadow, &bearer(OPERATOR), "").0, 200);

    let address = server.address.to_string();
    let said = server.stop();
    for secret in [TOKEN, OPERATOR, GUESS, &ticket] {
        assert!(!said.contains(secret), "{secret:?} is in\n{said}");
    }
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let has = |wanted: &[(&str, Value)]| {
        let found = lines.iter().any(|line| wanted.iter().all(|(key, value)| line[key] == *value));
        assert!(found, "no line with {wanted:?} in\n{said}");
    };
    has(&[("level", "INFO".into()), ("message", "serving".into()), ("address", address.into())]);
    has(&[("what", "ticket".into()), ("who", "box".into()), ("verdict", "granted".into())]);
    has(&[
        ("what", "handshake".into()),
        ("address", "127.0.0.1".into()),
        ("verdict", "unknown token".into()),
    ]);
    has(&[
        ("what", "hello".into()),
        ("who", "box".into()),
        ("policy", POLICY.into()),
        ("verdict", "granted".into()),
    ]);
    has(&[("message", "a student goes".into()), ("reason", "forbidden".into())]);
    has(&[("level", "WARN".into()), ("what", "rollback".into()), ("policy", POLICY.into())]);
    has(&[("level", "DEBUG".into()), ("message", "somebody is no operator".into())]);
    has(&[
        ("level", "INFO".into()),
        ("what", "end shadow".into()),
        ("policy", POLICY.into()),
        ("version", 1.into()),
    ]);
    has(&[("message", "stopped".into()), ("aborted", 0.into())]);
}

/// Everything that a peer can do wrong, many times.
fn misbehave(server: &Program) {
    for _ in 0..50 {
        let mut garbage = server.connect();
        // It may be refused before it has sent all.
        drop(garbage.write_all(&[0xff; 1000]));
        drop(garbage.read_to_end(&mut Vec::new()));
        request(server.address, "GET /nothing", "", "");
        request(server.address, &format!("POST /v2/models/{POLICY}/infer"), "", "{");
        let mut rude = server.socket(&[]).unwrap();
        assert!(matches!(ask(&mut rude, &hello("\nforged line\n", None)), ServerMessage::Error(_)));
    }
    let mut student = server.socket(&[]).unwrap();
    assert!(matches!(ask(&mut student, &hello(POLICY, None)), ServerMessage::Welcome(_)));
    while student.send(Message::text("garbage")).is_ok() && student.read().is_ok() {}
}

#[test]
fn a_bad_peer_adds_nothing_to_the_log() {
    let server = Program::serve(&[], &[]);
    misbehave(&server);
    let said = server.stop();
    let messages: Vec<_> = said.lines().map(|line| line.split_once(": ").expect(line).1).collect();
    assert!(messages[0].starts_with("serving address="), "{said}");
    assert!(messages[1].starts_with("stopping"), "{said}");
    assert!(messages[2..].iter().eq(&["stopped aborted=0"]), "{said}");
}

#[test]
fn what_a_peer_says_stays_in_its_line() {
    let server = Program::serve(&["--log-level", "debug"], &[]);
    misbehave(&server);
    let said = server.stop();
    assert!(said.contains(r#"policy="\nforged line\n""#), "{said}");
    // One for each connection, and one for each hello, at most.
    assert!(said.lines().count() < 50 * 5, "{said}");
    assert!(said.lines().all(|line| line.contains(" oto_")), "{said}");
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let server = Program::unread(&["--log-level", "debug", "--log", "json"], &[]);
    // More than a pipe has room for.
    for _ in 0..10 {
        misbehave(&server);
    }
    assert_eq!(request(server.address, "GET /readyz", "", "").0, 200);
    server.stop();
}

#[test]
fn a_check_refuses_what_a_server_would() {
    let check = |flags: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oto"));
        let output = command.args(["serve", "--check"]).args(flags).env_remove("BOX_TOKEN").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let access = File::new("unset", ACCESS);
    let (status, said) = check(&["--access", access.path()]);
    assert!(status == Some(2) && said.contains("BOX_TOKEN"), "{said}");
    for origin in ["https://my.page/", "my.page", "*", "https://*.my.page"] {
        let (status, said) = check(&["--origin", origin]);
        assert!(status == Some(2) && said.contains(origin), "{said}");
    }
    for origin in ["https://my.page", "http://127.0.0.1:5173", "http://[::1]:80", "null"] {
        assert_eq!(check(&["--origin", origin]), (Some(0), String::new()));
    }
}

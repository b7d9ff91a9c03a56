//! `oto load` against `oto serve`, with TLS and without.

use crate::program::{ANOTHER, CERTIFICATE, File, KEY, POLICY, Program, welcomed};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use tungstenite::Message;

/// What `oto load` counted in half a second with eight students, or what it said instead.
fn load(url: &str, flags: &[&str]) -> Result<serde_json::Value, String> {
    let numbers = File::new(&format!("load-{:x}.json", url.len() * 31 + flags.concat().len()), "");
    let output = Command::new(env!("CARGO_BIN_EXE_oto"))
        .args(["load", url, "--policy", POLICY, "--students", "8", "--seconds", "0.5", "--warm-up", "0.1"])
        .args(["--json", numbers.path()])
        .args(flags)
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    Ok(serde_json::from_str(&std::fs::read_to_string(&numbers.0).unwrap()).unwrap())
}

/// Everyone was answered, and nothing went wrong.
fn is_sound(report: &serde_json::Value) {
    let server = &report["server"];
    assert!(server["answered"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(server["answered"], server["sent"], "{report}");
    for none in ["overloaded", "wrong", "lost", "closed"] {
        assert_eq!(server[none], 0, "{none}: {report}");
    }
}

#[test]
fn students_load_a_server_over_tls_as_they_do_without() {
    let secure = Program::serve(&["--tls-cert", CERTIFICATE, "--tls-key", KEY], &[]);
    let plain = Program::serve(&[], &[]);
    let (wss, ws) = (format!("wss://{}", secure.address), format!("ws://{}", plain.address));
    is_sound(&load(&ws, &["--rate", "50"]).unwrap());
    is_sound(&load(&wss, &["--rate", "50", "--ca", CERTIFICATE]).unwrap());
    // Frames that are larger than a record of TLS, many of them on their way.
    is_sound(&load(&wss, &["--saturate", "8", "--rows", "2000", "--ca", CERTIFICATE]).unwrap());
    let untrusted = load(&wss, &[]).unwrap_err();
    assert!(untrusted.contains("certificate"), "{untrusted}");
    let another = load(&wss, &["--ca", ANOTHER]).unwrap_err();
    assert!(another.contains("certificate"), "{another}");
    let none = load(&wss, &["--ca", KEY]).unwrap_err();
    assert!(none.contains("expected a certificate, got none"), "{none}");
    load(&format!("ws://{}", secure.address), &[]).unwrap_err();
}

/// A server that lists the policy, welcomes everyone and answers nonsense.
fn nonsense(stream: TcpStream) {
    let mut begin = [0; 13];
    while stream.peek(&mut begin).unwrap() < begin.len() {}
    if begin == *b"GET /policies" {
        let list = serde_json::json!([{
            "name": POLICY,
            "observation_space": { "kind": "box", "low": [null, null, null, null], "high": [null, null, null, null] },
            "action_space": { "kind": "discrete", "n": 2 },
        }]);
        let mut head = Vec::new();
        // A connection that closes with unread bytes takes its answer with it.
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            (&stream).read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let body = list.to_string();
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        return (&stream).write_all((head + &body).as_bytes()).unwrap();
    }
    let (mut socket, _) = welcomed(stream);
    // Until the student leaves.
    while let Ok(message) = socket.read() {
        if message.is_binary() && socket.send(Message::binary(b"nonsense".as_slice())).is_err() {
            return;
        }
    }
}

#[test]
fn wrong_answers_are_an_error() {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        listener.incoming().for_each(|stream| drop(std::thread::spawn(|| nonsense(stream.unwrap()))))
    });
    let error = load(&url, &["--rate", "20"]).unwrap_err();
    assert!(error.contains("answers were wrong; the first:"), "{error}");
}

//! Who reaches a server that is started as an operator starts it.

use crate::program::{File, PATIENCE, Program, request};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

const FIRST: &str = "the secret of a box";
const SECOND: &str = "another secret of a box";

fn access(variable: &str) -> String {
    format!(r#"{{"machines": [{{"name": "box", "token_env": "{variable}"}}]}}"#)
}

#[test]
fn a_hangup_reads_the_doors_anew_and_ends_nothing() {
    let file = File::new("renewed", &access("FIRST"));
    let server = Program::serve(&["--access", file.path()], &[("FIRST", FIRST), ("SECOND", SECOND)]);
    let enters = |token: &str| server.socket(&[("authorization", &format!("Bearer {token}"))]).is_ok();
    assert!(enters(FIRST) && !enters(SECOND));
    std::fs::write(file.path(), access("SECOND")).unwrap();
    server.hang_up();
    let began = Instant::now();
    while !enters(SECOND) {
        assert!(began.elapsed() < PATIENCE, "the file is not read anew");
    }
    assert!(!enters(FIRST));
    std::fs::write(file.path(), "nothing").unwrap();
    server.hang_up();
    assert!(enters(SECOND), "what cannot be used changes nothing");
    let said = server.stop();
    assert!(said.contains("read anew"), "{said}");
}

#[test]
fn on_loopback_only_names_of_this_machine_and_those_given_are_served() {
    let server = Program::serve(&["--name", "my.page"], &[]);
    let status = |host: &str, origin: &str| {
        let mut stream = server.connect();
        let head = format!(
            "GET /policies HTTP/1.1\r\nhost: {host}\r\norigin: {origin}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer[9..12].to_owned(), answer.contains("access-control-allow-origin"))
    };
    assert_eq!(status("evil.com", "http://evil.com"), ("421".into(), false));
    assert_eq!(status("localhost", "http://localhost"), ("200".into(), true));
    assert_eq!(status("my.page:443", "https://my.page"), ("200".into(), true));
}

#[test]
fn more_connections_than_files_end_nothing() {
    let server = Program::limited(64, &[], &[]);
    let kept: Vec<_> = (0..200).filter_map(|_| TcpStream::connect(server.address).ok()).collect();
    assert!(kept.len() > 64);
    let probe = || request(server.address, "GET /healthz", "", "").0;
    let began = Instant::now();
    // Longer than a listener that fails all the time is believed to have a bad time.
    while began.elapsed() < std::time::Duration::from_secs(6) {
        assert_eq!(probe(), 200);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    drop(kept);
    while request(server.address, "GET /readyz", "", "").0 != 200 {
        assert!(began.elapsed() < PATIENCE, "no connection is taken any more");
    }
    server.stop();
}

//! Plain requests and the handshake.

use crate::policies::sum;
use crate::student::{request, serve};
use oto_server::Assets;
use std::borrow::Cow;
use std::io::{Read, Write};
use std::sync::Arc;

struct Page;

impl Assets for Page {
    fn get(&self, path: &str) -> Option<Cow<'static, [u8]>> {
        match path {
            "index.html" => Some(Cow::Borrowed(b"<!doctype html>")),
            "assets/oto-1234.wasm" => Some(Cow::Owned(b"\0asm".to_vec())),
            "../secret" => Some(Cow::Borrowed(b"secret")),
            _ => None,
        }
    }
}

#[test]
fn health_and_policies() {
    let server = serve(vec![sum()], |_| {});
    for path in ["/healthz", "/readyz"] {
        assert!(request(&server, &format!("GET {path}"), "").0.starts_with("http/1.1 200"));
    }
    let (head, body) = request(&server, "GET /policies", "");
    assert!(head.contains("content-type: application/json"));
    let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&list[0]["name"], &list[0]["version"]), (&"sum".into(), &1.into()));
    let empty = serve(vec![], |_| {});
    assert!(request(&empty, "GET /readyz", "").0.starts_with("http/1.1 503"));
    assert!(request(&empty, "POST /policies", "").0.starts_with("http/1.1 405"));
}

#[test]
fn the_site() {
    let server = serve(vec![], |config| config.assets = Some(Arc::new(Page)));
    let (head, body) = request(&server, "GET /", "");
    assert!(
        head.contains("content-type: text/html; charset=utf-8") && head.contains("cache-control: no-cache")
    );
    assert_eq!(body, b"<!doctype html>");
    let (head, body) = request(&server, "GET /assets/oto-1234.wasm", "");
    assert!(head.contains("content-type: application/wasm") && head.contains("immutable"));
    assert_eq!(body, b"\0asm");
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let again = format!("if-none-match: \"other\", {tag}\r\n");
    let (head, body) = request(&server, "GET /assets/oto-1234.wasm", &again);
    assert!(head.starts_with("http/1.1 304") && body.is_empty());
    let (head, body) = request(&server, "HEAD /", "");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 15") && body.is_empty());
    for path in ["/absent", "/../secret", "/assets/"] {
        assert!(request(&server, &format!("GET {path}"), "").0.starts_with("http/1.1 404"), "{path}");
    }
}

#[test]
fn a_handshake_needs_the_subprotocol() {
    let server = serve(vec![sum()], |_| {});
    assert_eq!(server.upgrade(None, &[]).err(), Some(400));
    assert_eq!(server.upgrade(Some("oto.v2"), &[]).err(), Some(400));
    assert!(server.upgrade(Some("chat, oto.v1"), &[]).is_ok());
    let headers =
        "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let (_, body) = request(&server, "GET /v1/teach", headers);
    assert!(String::from_utf8_lossy(&body).contains("Connection: upgrade"), "a proxy may have removed it");
    assert!(request(&server, "GET /v1/teach", "").0.starts_with("http/1.1 426"));
}

#[test]
fn a_page_needs_an_origin_that_is_allowed() {
    let server = serve(vec![sum()], |config| config.origins = vec!["https://friend.example".into()]);
    let from = |origin: &str| server.upgrade(Some("oto.v1"), &[("origin", origin)]).err();
    assert_eq!(from(&format!("http://{}", server.address)), None);
    assert_eq!(from("https://friend.example"), None);
    for origin in ["https://foe.example", "https://friend.example.foe.example", "null", "friend.example"] {
        assert_eq!(from(origin), Some(403), "{origin}");
    }
    let allows = |origin: &str| {
        let (head, _) = request(&server, "GET /policies", &format!("origin: {origin}\r\n"));
        head.contains("access-control-allow-origin")
    };
    assert!(allows("https://friend.example") && !allows("https://foe.example"));
}

struct NoSite;

impl Assets for NoSite {
    fn get(&self, _: &str) -> Option<Cow<'static, [u8]>> {
        None
    }
}

#[test]
fn a_server_that_was_built_without_the_site_says_so() {
    let server = serve(vec![sum()], |config| config.assets = Some(Arc::new(NoSite)));
    for path in ["/", "/index.html", "/assets/a.js"] {
        let (head, body) = request(&server, &format!("GET {path}"), "");
        let body = String::from_utf8(body).unwrap();
        assert!(head.starts_with("http/1.1 404") && body.contains("built without the site"), "{head} {body}");
    }
    assert!(request(&server, "GET /policies", "").0.starts_with("http/1.1 200"));
    let server = serve(vec![], |config| config.assets = Some(Arc::new(Page)));
    let (_, body) = request(&server, "GET /absent", "");
    assert_eq!(body, b"there is nothing here\n");
}

#[test]
fn two_origins_are_refused_with_a_sentence() {
    let server = serve(vec![sum()], |config| config.origins = vec!["https://friend.example".into()]);
    let two = |one: &str, other: &str| format!("origin: {one}\r\norigin: {other}\r\ncontent-length: 0\r\n");
    let friend = "https://friend.example";
    for line in [
        "GET /",
        "GET /policies",
        "GET /v1/teach",
        "POST /v1/ticket",
        "GET /v2/models/sum",
        "POST /v2/models/sum/infer",
    ] {
        for other in [friend, "https://foe.example", ""] {
            let (head, body) = request(&server, line, &two(friend, other));
            let body = String::from_utf8(body).unwrap();
            assert!(
                head.starts_with("http/1.1 403") && body.contains("one header Origin"),
                "{line}: {head}{body}"
            );
            assert!(!head.contains("access-control-allow-origin"), "{line}: {head}");
        }
    }
    let (head, _) = request(&server, "GET /healthz", &two(friend, friend));
    assert!(head.starts_with("http/1.1 200"), "a probe is no page: {head}");
}

#[test]
fn every_answer_to_bytes_that_are_no_request_has_a_sentence() {
    let server = serve(vec![sum()], |_| {});
    let long = "a".repeat(20_000);
    let many: String = (0..200).map(|at| format!("h{at}: 1\r\n")).collect();
    for (bytes, status) in [
        ("GARBAGE\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nno header\r\n\r\n".into(), "400"),
        ("GET / HTTP/3.0\r\nhost: localhost\r\n\r\n".into(), "400"),
        ("GET / HTTP/1.1\r\n\r\n".into(), "400"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".into(), "400"),
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"), "431"),
    ] {
        let mut stream = server.connect();
        // It may be refused before all of it is written.
        drop(stream.write_all(bytes.as_bytes()));
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(body.starts_with("expected ") && body.ends_with('\n'), "{answer}");
        assert!(head.to_lowercase().contains(&format!("content-length: {}", body.len())), "{answer}");
    }
}

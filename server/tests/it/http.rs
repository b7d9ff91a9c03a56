//! Plain requests and the handshake.

use crate::policies::sum;
use crate::student::{request, serve};
use oto_server::Assets;
use std::borrow::Cow;
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

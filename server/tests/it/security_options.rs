//! Who is let in, over what, and how many: TLS, tokens, tickets, quotas, addresses and the audit log.

use crate::policies::{boxed, sum};
use crate::student::{Heard, Server, Student, hello, request_to, serve};
use crate::submissions::Folder;
use oto_proto::message::CLOSE_OVERLOADED;
use oto_proto::{ClientMessage, ErrorCode, Hello, ServerMessage, Space};
use oto_server::ServerConfig;
use oto_server::access::Access;
use oto_server::audit::{Audit, Rotation};
use oto_server::tls::{Event, Tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

fn certificate(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls")).join(name)
}

/// A connection of a client that trusts one certificate.
fn secure_stream(
    server: &Server,
    trusted: &str,
) -> rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate(trusted)).unwrap()).unwrap();
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    rustls::StreamOwned::new(client, server.connect())
}

/// The beginning of the answer to a WebSocket's handshake with such a client.
fn secure(server: &Server, trusted: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = secure_stream(server, trusted);
    stream.write_all(
        b"GET /v1/teach HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
        sec-websocket-protocol: oto.v1\r\n\r\n",
    )?;
    let mut head = vec![0; 12];
    stream.read_exact(&mut head)?;
    Ok(head)
}

#[test]
fn over_tls_a_browser_is_told_to_come_back_over_tls() {
    let tls = Tls::open(&certificate("first.pem"), &certificate("first.key")).unwrap();
    let server = serve(vec![sum()], |config| config.tls = Some(tls));
    for (path, status) in
        [("/healthz", "200"), ("/policies", "200"), ("/nothing", "404"), ("/v2/none", "404")]
    {
        let mut stream = secure_stream(&server, "first.pem");
        let asked = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(asked.as_bytes()).unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        let answer = String::from_utf8(answer).unwrap().to_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{path}: {answer}");
        assert!(answer.contains("\r\nstrict-transport-security: max-age=63072000\r\n"), "{path}: {answer}");
    }
}

#[test]
fn a_certificate_is_replaced_without_a_restart() {
    let folder = Folder::new();
    std::fs::create_dir_all(&folder.0).unwrap();
    let at = |name: &str| folder.0.join(name);
    let take = |name: &str| {
        std::fs::copy(certificate(&format!("{name}.key")), at("key")).unwrap();
        std::fs::copy(certificate(&format!("{name}.pem")), at("pem")).unwrap();
    };
    take("first");
    let tls = Tls::open(&at("pem"), &at("key")).unwrap();
    let (say, heard) = channel();
    let _watching = tls.watch(Duration::from_millis(5), move |event| drop(say.send(event))).unwrap();
    let server = serve(vec![sum()], |config| config.tls = Some(tls));
    assert_eq!(secure(&server, "first.pem").unwrap(), b"HTTP/1.1 101");
    assert!(secure(&server, "second.pem").is_err(), "not the one that is trusted");
    std::fs::write(at("pem"), "nothing").unwrap();
    assert!(matches!(heard.recv_timeout(Duration::from_secs(20)).unwrap(), Event::Refused(_)));
    assert_eq!(secure(&server, "first.pem").unwrap(), b"HTTP/1.1 101");
    take("second");
    while !matches!(heard.recv_timeout(Duration::from_secs(20)).unwrap(), Event::Renewed(_)) {}
    assert_eq!(secure(&server, "second.pem").unwrap(), b"HTTP/1.1 101");
    // Plain bytes get nothing.
    let mut plain = server.connect();
    plain.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    drop(plain.read_to_end(&mut answer));
    assert!(!answer.starts_with(b"HTTP"));
}

#[test]
fn a_silent_tls_handshake_ends() {
    let tls = Tls::open(&certificate("first.pem"), &certificate("first.key")).unwrap();
    let server = serve(vec![sum()], |config| {
        (config.tls, config.limits.tls_timeout) = (Some(tls), crate::student::SHORT);
    });
    let mut silent = server.connect();
    assert_eq!(silent.read_to_end(&mut Vec::new()).unwrap_or(0), 0);
    assert!(Tls::open(&certificate("first.pem"), &certificate("second.key")).is_err(), "they do not fit");
}

const TOKEN: &str = "a box's own secret";
const WEIGHTS: &str = "another box's secret";

/// A machine with few rights, one with many, and pages of one origin.
fn closed(config: &mut ServerConfig) {
    let json = format!(
        r#"{{"machines":[
            {{"name":"box","token_sha256":"{}","policies":["sum"],"states_per_second":100,"connections":2}},
            {{"name":"mirror","token_sha256":"{}","grants":["weights"]}}],
           "pages":{{"policies":["sum"]}}}}"#,
        sha256(TOKEN),
        sha256(WEIGHTS)
    );
    config.access = Some(serde_json::from_str::<Access>(&json).unwrap());
    config.origins = vec!["https://friend.example".into()];
}

pub fn sha256(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pupil() -> Hello {
    hello("sum", boxed(4), Space::Discrete { n: 2 })
}

/// A connection with a token that has said `hello`.
fn with_token(server: &Server, token: &str, hello: Hello) -> Result<Student, u16> {
    let mut student = server.stranger_with(&[("authorization", &format!("Bearer {token}"))])?;
    student.say(&ClientMessage::Hello(Box::new(hello)));
    Ok(student)
}

fn ticket(server: &Server, headers: &str) -> (u16, String) {
    let headers = format!("content-length: 0\r\n{headers}");
    let (head, body) = request_to(server.address, "POST /v1/ticket", &headers, b"");
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    (head[9..12].parse().unwrap(), said["ticket"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn who_is_nobody_gets_nothing() {
    let server = serve(vec![sum()], closed);
    let mut nobody = server.stranger();
    nobody.say(&ClientMessage::Hello(Box::new(pupil())));
    assert!(nobody.is_refused(ErrorCode::Forbidden).contains("ticket"));
    let mut guesser = server.stranger();
    guesser.say(&ClientMessage::Hello(Box::new(Hello { ticket: Some("a guess".into()), ..pupil() })));
    guesser.is_refused(ErrorCode::Forbidden);
    assert_eq!(with_token(&server, "somebody's guess", pupil()).err(), Some(401));
}

#[test]
fn a_machine_has_the_rights_of_its_token() {
    let server = serve(vec![sum(), crate::policies::wide()], closed);
    let mut machine = with_token(&server, TOKEN, pupil()).unwrap();
    assert!(matches!(machine.hear(), Heard::Message(ServerMessage::Welcome(_))));
    let mut curious = with_token(&server, TOKEN, hello("wide", boxed(1), boxed(64))).unwrap();
    assert!(curious.is_refused(ErrorCode::Forbidden).contains("wide"));
    let mut second = with_token(&server, TOKEN, pupil()).unwrap();
    assert!(matches!(second.hear(), Heard::Message(ServerMessage::Welcome(_))));
    let mut third = with_token(&server, TOKEN, pupil()).unwrap();
    assert!(matches!(third.hear(), Heard::Message(ServerMessage::Overloaded(o)) if o.request.is_none()));
    assert!(matches!(third.hear(), Heard::Closed(CLOSE_OVERLOADED)));
}

#[test]
fn who_asks_too_much_waits() {
    let server = serve(vec![sum()], closed);
    let mut machine = server.student_with(&[("authorization", &format!("Bearer {TOKEN}"))], pupil()).0;
    let first = machine.ask(&[[1.0; 4]; 150]);
    let beyond = machine.ask(&[[1.0; 4]; 1]);
    let (mut answered, mut dropped) = (false, None);
    while !answered || dropped.is_none() {
        match machine.hear() {
            Heard::Frame(_) => answered = true,
            Heard::Message(ServerMessage::Overloaded(overloaded)) => dropped = Some(overloaded),
            other => panic!("{other:?}"),
        }
    }
    let dropped = dropped.unwrap();
    assert_eq!((first, dropped.request), (1, Some(beyond)));
    assert!((1..=800).contains(&dropped.retry_ms), "50 of a hundred a second are owed: {}", dropped.retry_ms);
}

#[test]
fn a_page_gets_a_ticket_that_is_good_once() {
    let server = serve(vec![sum()], closed);
    assert_eq!(ticket(&server, "").0, 401);
    assert_eq!(ticket(&server, "origin: https://foe.example\r\n").0, 403);
    assert_eq!(ticket(&server, "authorization: Bearer somebody's guess\r\n").0, 401);
    for headers in
        ["origin: https://friend.example\r\n".to_owned(), format!("authorization: Bearer {TOKEN}\r\n")]
    {
        let (status, ticket) = ticket(&server, &headers);
        assert_eq!((status, ticket.len()), (200, 64));
        let hello = Hello { ticket: Some(ticket), ..pupil() };
        server.student(hello.clone()).0.is_well();
        let mut again = server.stranger();
        again.say(&ClientMessage::Hello(Box::new(hello)));
        again.is_refused(ErrorCode::Forbidden);
    }
    let open = serve(vec![sum()], |_| {});
    assert_eq!(ticket(&open, "").0, 404, "none is needed");
}

#[test]
fn weights_are_granted_by_token() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/teachers"));
    let teacher = oto_policy::load_file(&folder.join("ppo_cartpole_v1.json")).unwrap();
    let server = serve(vec![teacher], closed);
    let status = |token: &str| {
        let headers = format!("authorization: Bearer {token}\r\n");
        request_to(server.address, "GET /policies/ppo_cartpole_v1/model", &headers, b"").0[9..12].to_owned()
    };
    assert_eq!([status(WEIGHTS), status(TOKEN), status("somebody's guess")], ["200", "404", "404"]);
}

#[test]
fn an_address_has_so_many_connections() {
    let server = serve(vec![sum()], |config| config.limits.per_address = 1);
    let mut student = server.pupil("sum");
    let mut answer = Vec::new();
    drop(server.connect().read_to_end(&mut answer));
    assert!(answer.starts_with(b"HTTP/1.1 503"));
    student.is_well();
}

#[test]
fn the_audit_log_tells_who_got_what_and_no_secret() {
    let folder = Folder::new();
    std::fs::create_dir_all(&folder.0).unwrap();
    let path = folder.0.join("audit.jsonl");
    let audit = Audit::open(&path, Rotation::default()).unwrap();
    let mut server = serve(vec![sum()], |config| {
        closed(config);
        config.audit = Some(audit);
    });
    let (_, ticket) = ticket(&server, "origin: https://friend.example\r\n");
    server.student(Hello { ticket: Some(ticket.clone()), ..pupil() }).0.is_well();
    assert_eq!(with_token(&server, "somebody's guess", pupil()).err(), Some(401));
    server.stop();
    server.join();
    let lines = loop {
        let text = std::fs::read_to_string(&path).unwrap();
        if text.lines().count() >= 3 {
            break text;
        }
    };
    assert!(!lines.contains(&ticket) && !lines.contains("somebody's guess"), "{lines}");
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> =
        lines.iter().map(|l| [&l["what"], &l["who"], &l["verdict"]].map(|v| v.as_str())).collect();
    let page = Some("page https://friend.example");
    assert_eq!(told[0], [Some("ticket"), page, Some("granted")]);
    assert_eq!(told[1], [Some("hello"), page, Some("granted")]);
    assert_eq!(told[2], [Some("handshake"), None, Some("unknown token")]);
    assert_eq!((&lines[1]["policy"], &lines[1]["address"]), (&"sum".into(), &"127.0.0.1".into()));
}

//! What strangers of a server on the open internet try, one thing at a time: each costs them something, and nobody else.

use crate::policies::{boxed, sum};
use crate::security_options::sha256;
use crate::student::{Heard, SHORT, Server, hello, request_to, serve};
use crate::submissions::Folder;
use oto_proto::message::CLOSE_OVERLOADED;
use oto_proto::{ClientMessage, ErrorCode, Hello, ServerMessage, Space};
use oto_server::access::Access;
use oto_server::admin::Admin;
use oto_server::audit::{Audit, Rotation};
use oto_server::hosts::Hosts;
use oto_server::proxy::TrustedProxies;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use tungstenite::Message;

/// The head of a masked frame that announces so many bytes, and some of them.
fn begun(first: u8, length: usize, sent: usize) -> Vec<u8> {
    [&[first, 0xff], &(length as u64).to_be_bytes()[..], &[0; 4], &vec![b' '; sent]].concat()
}

fn status(answer: &(String, Vec<u8>)) -> u16 {
    answer.0[9..12].parse().unwrap()
}

/// Everything that comes until the other side ends the connection.
fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    drop(stream.read_to_end(&mut all));
    String::from_utf8_lossy(&all).into_owned()
}

fn says(server: &Server, bytes: &str) -> String {
    let mut stream = server.connect();
    stream.write_all(bytes.as_bytes()).unwrap();
    rest(&mut stream)
}

fn bye(student: &mut crate::student::Student) -> (ErrorCode, u16) {
    let Heard::Message(ServerMessage::Error(error)) = student.hear() else { panic!("expected an error") };
    let Heard::Closed(code) = student.hear() else { panic!("expected a close") };
    (error.code, code)
}

#[test]
fn before_hello_only_little_is_held_and_strangers_share_it() {
    // A sixteenth of this is the strangers', a quarter of that one address's: 128 KiB.
    let server = serve(vec![sum()], |config| config.limits.bytes = 8 << 20);
    let mut steady = server.pupil("sum");
    let large = |bytes: usize| {
        let mut stranger = server.stranger();
        stranger.socket.get_mut().write_all(&begun(0x81, bytes, 100)).unwrap();
        stranger
    };
    let held: Vec<_> = (0..4).map(|_| large(30 << 10)).collect();
    let mut refused = large(200 << 10);
    let told = refused.hear();
    assert!(matches!(&told, Heard::Message(ServerMessage::Overloaded(o)) if o.request.is_none()), "{told:?}");
    assert!(matches!(refused.hear(), Heard::Closed(CLOSE_OVERLOADED)));
    let mut binary = server.stranger();
    binary.socket.get_mut().write_all(&begun(0x82, 2 << 20, 1000)).unwrap();
    binary.is_refused(ErrorCode::BadMessage);
    let mut long = large((1 << 20) + 1);
    assert_eq!(bye(&mut long), (ErrorCode::TooLarge, 4008));
    steady.is_well();
    server.pupil("sum").is_well();
    drop(held);
    // When they have gone, there is room again.
    let wide = || hello("sum", boxed(9000), Space::Discrete { n: 2 });
    loop {
        let mut student = server.stranger();
        student.say(&ClientMessage::Hello(Box::new(wide())));
        match student.hear() {
            Heard::Message(ServerMessage::Error(error)) => {
                break assert_eq!(error.code, ErrorCode::SpaceMismatch);
            }
            Heard::Message(ServerMessage::Overloaded(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_message_has_a_time_that_pongs_and_parts_do_not_extend() {
    let server = serve(vec![sum()], |config| config.limits.message_timeout = SHORT);
    let mut steady = server.pupil("sum");
    let ways: [fn(&mut TcpStream) -> std::io::Result<()>; 3] = [
        |stream| stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]),
        |stream| stream.write_all(&[0x00, 0x81, 0, 0, 0, 0, 7]),
        |_| Ok(()),
    ];
    for way in ways {
        let mut student = server.pupil("sum");
        student.socket.get_mut().write_all(&[0x02, 0x81, 0, 0, 0, 0, 1]).unwrap();
        let began = Instant::now();
        let stream = student.socket.get_ref().try_clone().unwrap();
        let more = std::thread::spawn(move || {
            let mut stream = stream;
            while way(&mut stream).is_ok() && began.elapsed() < 40 * SHORT {
                std::thread::sleep(SHORT / 10);
            }
        });
        assert_eq!(bye(&mut student).0, ErrorCode::Timeout);
        assert!(began.elapsed() >= SHORT);
        drop(student.socket.get_ref().shutdown(std::net::Shutdown::Both));
        more.join().unwrap();
        steady.is_well();
    }
    // One that comes slowly, but comes, is heard.
    let server = serve(vec![sum()], |_| {});
    let mut slow = server.pupil("sum");
    let frame = slow.frame(&[[1.0; 4]; 64]);
    let head = [&[0x82, 0xfe], &(frame.len() as u16).to_be_bytes()[..], &[0; 4]].concat();
    for part in [head, frame].concat().chunks(100) {
        slow.socket.get_mut().write_all(part).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(slow.answer().rows.len(), 64);
}

#[test]
fn a_message_has_only_so_many_parts() {
    let server = serve(vec![sum()], |_| {});
    let mut student = server.pupil("sum");
    let parts = [0x00, 0x80, 0, 0, 0, 0].repeat(2000);
    let stream = student.socket.get_mut();
    stream.write_all(&[0x02, 0x80, 0, 0, 0, 0]).unwrap();
    drop(stream.write_all(&parts));
    assert_eq!(bye(&mut student), (ErrorCode::TooLarge, 4008));
    server.pupil("sum").is_well();
}

#[test]
fn control_messages_are_short_and_few() {
    let server = serve(vec![sum()], |_| {});
    let stage = |bytes: usize| {
        let text = r#"{"type":"stage","stage":"online","step":1}"#;
        format!("{text}{}", " ".repeat(bytes - text.len()))
    };
    let mut student = server.pupil("sum");
    student.socket.send(Message::text(stage(4096))).unwrap();
    student.is_well();
    for bytes in [4097, 1 << 20] {
        let mut student = server.pupil("sum");
        student.socket.send(Message::text(stage(bytes))).unwrap();
        assert_eq!(bye(&mut student), (ErrorCode::TooLarge, 4008), "{bytes}");
    }
    let floods: [fn() -> Message; 3] = [
        || Message::text(r#"{"type":"stage","stage":"online","step":1}"#),
        || Message::Ping(bytes::Bytes::from_static(b"again")),
        || Message::Pong(bytes::Bytes::new()),
    ];
    for flood in floods {
        let mut student = server.pupil("sum");
        let sent = (0..500).take_while(|_| student.socket.send(flood()).is_ok()).count();
        assert!(sent >= 64, "{sent}");
        loop {
            match student.hear() {
                Heard::Message(ServerMessage::Overloaded(overloaded)) => {
                    assert!(overloaded.request.is_none() && overloaded.retry_ms > 0);
                }
                Heard::Closed(code) => break assert_eq!(code, CLOSE_OVERLOADED),
                other => panic!("{other:?}"),
            }
        }
    }
    server.pupil("sum").is_well();
}

/// Each request is taken or told to come again; what is taken is answered, and then there is room again.
#[test]
fn requests_beyond_what_may_be_held_are_told_to_come_again() {
    let (policy, gate) = crate::policies::gated();
    // One address's quarter is less than four requests of 4096 states need.
    let server = serve(vec![policy], |config| config.limits.bytes = 1 << 20);
    let mut student = server.pupil("gated");
    let states = [[1.0; 4]; 4096];
    let asked: Vec<u32> = (0..6).map(|_| student.ask(&states)).collect();
    let again = ClientMessage::Hello(Box::new(student.hello.clone()));
    student.say(&again);
    let mut dropped = Vec::new();
    loop {
        match student.hear() {
            Heard::Message(ServerMessage::Overloaded(overloaded)) => dropped.extend(overloaded.request),
            // The second hello is refused after all of them.
            Heard::Message(ServerMessage::Error(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(dropped.len() >= 3 && dropped.len() < asked.len(), "{dropped:?}");
    // Small ones need no share.
    let mut small = server.pupil("gated");
    small.ask(&[[1.0; 4]; 8]);
    small.is_heard();
    gate.open();
    small.answer();
    let mut answered: Vec<u32> = (0..asked.len() - dropped.len()).map(|_| student.answer().request).collect();
    answered.extend(&dropped);
    answered.sort_unstable();
    assert_eq!(answered, asked, "each is one or the other");
    student.ask(&states);
    student.answer();
}

#[test]
fn a_server_that_is_full_lives() {
    let server = serve(vec![sum()], |config| config.limits.connections = 1);
    let mut student = server.pupil("sum");
    for line in ["GET /healthz", "HEAD /healthz", "GET /healthz?verbose"] {
        assert_eq!(status(&request_to(server.address, line, "", b"")), 200, "{line}");
    }
    for line in ["GET /readyz", "GET /", "POST /healthz"] {
        let answer = request_to(server.address, line, "", b"");
        assert_eq!(status(&answer), 503, "{line}");
        assert!(answer.0.contains("retry-after: 1"));
    }
    // Silent ones are in nobody's way.
    let silent: Vec<_> = (0..100).map(|_| server.connect()).collect();
    assert_eq!(status(&request_to(server.address, "GET /healthz", "", b"")), 200);
    drop(silent);
    student.is_well();
}

#[test]
fn a_name_that_is_not_the_servers_gets_nothing() {
    let server = serve(vec![sum()], |config| {
        config.hosts = Hosts { loopback: true, names: vec!["my.page".into()] };
    });
    let ask = |host: &str, origin: &str, line: &str| {
        let origin = if origin.is_empty() { String::new() } else { format!("origin: {origin}\r\n") };
        let upgrade = "connection: upgrade, close\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
            sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-protocol: oto.v1\r\n";
        let more = if line.starts_with("GET /v1/teach") {
            upgrade
        } else {
            "connection: close\r\ncontent-length: 0\r\n"
        };
        let mut stream = server.connect();
        stream.write_all(format!("{line} HTTP/1.1\r\n{host}{more}{origin}\r\n").as_bytes()).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        String::from_utf8_lossy(&head[9..]).into_owned()
    };
    let lines = [
        "GET /v1/teach",
        "GET /policies",
        "GET /v2",
        "POST /v2/models/sum/infer",
        "POST /v1/ticket",
        "GET /",
        "GET /policies/sum/model",
    ];
    for line in lines {
        assert_eq!(ask("host: evil.com\r\n", "http://evil.com", line), "421", "{line}");
        assert_eq!(ask("host: evil.com\r\n", "", line), "421", "{line}");
        for host in [
            "",
            "host: \r\n",
            "host: localhost\r\nhost: localhost\r\n",
            "host: localhost\r\nhost: evil.com\r\n",
        ] {
            assert_eq!(ask(host, "", line), "400", "{line} {host:?}");
        }
    }
    assert_eq!(ask("host: localhost:99\r\n", "http://localhost:99", "GET /v1/teach"), "101");
    assert_eq!(ask("host: my.page\r\n", "https://my.page", "GET /v1/teach"), "101");
    assert_eq!(ask("host: my.page:443\r\n", "https://my.page", "GET /v1/teach"), "101");
    assert_eq!(ask("host: localhost\r\n", "http://evil.com", "GET /v1/teach"), "403");
    assert_eq!(ask("host: localhost\r\n", "null", "GET /v1/teach"), "403");
    // Probes call it what they like.
    assert_eq!(ask("host: 10.0.0.1:80\r\n", "", "GET /healthz"), "200");
    assert!(says(&server, "GET /healthz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200"));
    assert_eq!(ask("", "", "GET /healthz"), "400", "HTTP 1.1 names a host");
}

#[test]
fn answers_keep_a_browser_from_doing_more_than_is_meant() {
    let server = serve(vec![sum()], |_| {});
    for line in
        ["GET /policies", "GET /nothing", "GET /v2", "POST /policies", "GET /healthz", "GET /v1/teach"]
    {
        let (head, _) = request_to(server.address, line, "", b"");
        for header in [
            "x-content-type-options: nosniff",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'",
            "referrer-policy: no-referrer",
            "cross-origin-opener-policy: same-origin",
            "cross-origin-embedder-policy: require-corp",
        ] {
            assert!(head.lines().any(|line| line == header), "{line}: no {header} in\n{head}");
        }
        assert!(!head.contains("strict-transport-security"), "it speaks no TLS");
    }
    for (line, allow) in [
        ("POST /policies", "GET, HEAD"),
        ("DELETE /", "GET, HEAD"),
        ("GET /v1/ticket", "POST"),
        ("DELETE /v2", "GET, HEAD"),
        ("PUT /v2/models/sum", "GET, HEAD"),
        ("POST /v2/health/live", "GET, HEAD"),
        ("GET /v2/models/sum/infer", "POST"),
        ("DELETE /v2/models/sum/infer", "POST"),
    ] {
        let answer = request_to(server.address, line, "content-length: 0\r\n", b"");
        assert_eq!(status(&answer), 405, "{line}");
        assert!(
            answer.0.lines().any(|found| found == format!("allow: {}", allow.to_lowercase())),
            "{}",
            answer.0
        );
    }
}

pub const TOKEN: &str = "a machine's own secret";
const FRIEND: &str = "https://friend.example";

/// Machines with tokens, pages with tickets and a small quota, behind a proxy on this machine.
fn proxied(config: &mut oto_server::ServerConfig) {
    let json = format!(
        r#"{{"machines":[{{"name":"box","token_sha256":"{}"}}],"pages":{{"states_per_second":100}}}}"#,
        sha256(TOKEN)
    );
    config.access = Some(serde_json::from_str::<Access>(&json).unwrap());
    config.origins = vec![FRIEND.into()];
    config.proxies = TrustedProxies(vec!["127.0.0.0/8".parse().unwrap()]);
    config.limits.per_address = 2;
}

fn ticket(server: &Server, from: &str) -> (u16, Option<String>) {
    let headers = format!("origin: {FRIEND}\r\nx-forwarded-for: {from}\r\ncontent-length: 0\r\n");
    let answer = request_to(server.address, "POST /v1/ticket", &headers, b"");
    let said: serde_json::Value = serde_json::from_slice(&answer.1).unwrap_or_default();
    (status(&answer), said["ticket"].as_str().map(Into::into))
}

#[test]
fn who_is_behind_a_proxy_has_a_share_of_its_own() {
    let folder = Folder::new();
    std::fs::create_dir_all(&folder.0).unwrap();
    let path = folder.0.join("audit.jsonl");
    let mut server = serve(vec![sum()], |config| {
        proxied(config);
        config.audit = Some(Audit::open(&path, Rotation::default()).unwrap());
    });
    let token = format!("Bearer {TOKEN}");
    let student = |from: &str, by: &'static str| {
        server.stranger_with(&[("authorization", &token), (by, from)]).map(|mut student| {
            student.say(&ClientMessage::Hello(Box::new(hello("sum", boxed(4), Space::Discrete { n: 2 }))));
            assert!(matches!(student.hear(), Heard::Message(ServerMessage::Welcome(_))));
            student
        })
    };
    // More than one address may have, each of another one.
    let students: Vec<_> =
        (1..=6).map(|i| student(&format!("10.1.1.{i}"), "x-forwarded-for").unwrap()).collect();
    let first = student("for=10.1.2.1", "forwarded").unwrap();
    let _second = student("9.9.9.9, 10.1.2.1", "x-forwarded-for").unwrap();
    assert_eq!(student("10.1.2.1", "x-forwarded-for").err(), Some(503), "two are there");
    drop(first);
    while student("10.1.2.1", "x-forwarded-for").is_err() {}
    // By the PROXY protocol.
    let introduced = |line: &str| {
        let mut stream = server.connect();
        stream.write_all(line.as_bytes()).unwrap();
        let head = "GET /policies HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).map(|()| (answer, stream))
    };
    let line = "PROXY TCP4 10.1.3.1 10.0.0.1 5 80\r\n";
    let kept = [introduced(line).unwrap(), introduced(line).unwrap()];
    assert!(kept.iter().all(|(answer, _)| answer == b"HTTP/1.1 200"));
    assert_eq!(&introduced(line).unwrap().0, b"HTTP/1.1 503");
    assert!(introduced("PROXY TCP4 10.1.3.2 10.0.0.1 5 80\r\n").is_ok());
    assert!(introduced("PROXY TCP4 nonsense\r\n").is_err());
    // What differs is refused, and a proxy's own probes are not counted.
    let both = "forwarded: for=6.6.6.6\r\nx-forwarded-for: 10.1.2.9\r\n";
    assert_eq!(status(&request_to(server.address, "GET /policies", both, b"")), 400);
    (0..10).for_each(|_| assert_eq!(status(&request_to(server.address, "GET /healthz", "", b"")), 200));
    drop((students, kept));
    server.stop();
    server.join();
    let log = std::fs::read_to_string(&path).unwrap();
    assert!(log.contains("\"address\":\"10.1.1.1\"") && !log.contains("9.9.9.9"), "{log}");
}

#[test]
fn nobody_is_believed_who_is_no_proxy_of_the_servers() {
    let server = serve(vec![sum()], |config| config.limits.per_address = 1);
    let _student = server.pupil("sum");
    let headers = "x-forwarded-for: 10.1.1.1\r\nforwarded: for=10.1.1.2\r\n";
    assert_eq!(status(&request_to(server.address, "GET /policies", headers, b"")), 503);
    let server = serve(vec![sum()], |_| {});
    assert!(
        says(&server, "PROXY TCP4 10.1.1.1 10.0.0.1 5 80\r\nGET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .starts_with("HTTP/1.1 400")
    );
}

#[test]
fn tickets_of_one_address_are_few_and_nobody_elses_is_lost() {
    let server = serve(vec![sum()], proxied);
    let (granted, first) = ticket(&server, "10.2.0.1");
    assert_eq!(granted, 200);
    let flood: Vec<u16> = (0..400).map(|_| ticket(&server, "10.2.0.2").0).collect();
    assert_eq!(flood[..100], [200; 100]);
    assert!(flood[300..].iter().all(|status| *status == 429), "{flood:?}");
    assert_eq!(ticket(&server, "10.2.0.3").0, 200);
    let hello = Hello { ticket: first, ..hello("sum", boxed(4), Space::Discrete { n: 2 }) };
    server.student(hello).0.is_well();
    let long = "x".repeat(8000);
    for headers in
        [format!("origin: https://{long}\r\n"), format!("origin: {FRIEND}\r\norigin: {FRIEND}\r\n")]
    {
        let headers = format!("{headers}content-length: 0\r\n");
        assert_eq!(status(&request_to(server.address, "POST /v1/ticket", &headers, b"")), 403);
    }
    let host = format!(
        "POST /v1/ticket HTTP/1.1\r\nhost: {long}\r\norigin: http://{long}\r\ncontent-length: 0\r\n\r\n"
    );
    assert!(says(&server, &format!("{host}x")).starts_with("HTTP/1.1 400"));
}

#[test]
fn a_new_ticket_is_no_new_quota() {
    let server = serve(vec![sum()], proxied);
    let asks = |from: &str| {
        let ticket = ticket(&server, from).1;
        let headers = [("x-forwarded-for", from)];
        let (mut student, _) = server
            .student_with(&headers, Hello { ticket, ..hello("sum", boxed(4), Space::Discrete { n: 2 }) });
        student.ask(&[[1.0; 4]; 1000]);
        matches!(student.hear(), Heard::Frame(_))
    };
    assert!(asks("10.3.0.1"), "a large request passes once");
    assert!((0..5).all(|_| !asks("10.3.0.1")), "ten seconds of it are spent");
    assert!(asks("10.3.0.2"));
}

/// The operator's door of a server.
fn door(audit: Option<Audit>) -> (Server, SocketAddr) {
    let server = serve(vec![sum()], |_| {});
    let address = door_of(&server, audit);
    (server, address)
}

/// The same of a server that runs.
pub fn door_of(server: &Server, audit: Option<Audit>) -> SocketAddr {
    let admin = Admin::new(server.policies.clone(), TOKEN, audit);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            admin.run(listener, std::future::pending()).await;
        });
    });
    address
}

#[test]
fn strangers_at_the_operators_door_are_in_nobodys_way() {
    let folder = Folder::new();
    std::fs::create_dir_all(&folder.0).unwrap();
    let path = folder.0.join("audit.jsonl");
    let (_server, door) = door(Some(Audit::open(&path, Rotation::default()).unwrap()));
    let get = |path: &str, token: &str, more: &str| {
        request_to(door, &format!("GET {path}"), &format!("authorization: Bearer {token}\r\n{more}"), b"")
    };
    let idle: Vec<_> = (0..100).map(|_| TcpStream::connect(door).unwrap()).collect();
    assert_eq!(status(&get("/policies", TOKEN, "")), 200);
    let guesses: Vec<u16> =
        (0..50).map(|_| status(&get("/policies", "a guess of some length", ""))).collect();
    assert!(guesses[0] == 401 && guesses.contains(&429), "{guesses:?}");
    assert!(guesses.iter().all(|status| [401, 429].contains(status)));
    assert_eq!(status(&get("/policies", TOKEN, "")), 200, "the right one is always right");
    // An operator who stays keeps the connection, whoever comes.
    let mut operator = TcpStream::connect(door).unwrap();
    let asked = format!("GET /policies HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    let mut hears = || {
        operator.write_all(asked.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let read = operator.read(&mut answer).unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    };
    hears();
    let more: Vec<_> = (0..100).map(|_| TcpStream::connect(door).unwrap()).collect();
    assert_eq!(status(&get("/policies", TOKEN, "")), 200);
    hears();
    // Probes need no token, a scraper says what it reads.
    assert_eq!(status(&request_to(door, "GET /healthz", "", b"")), 200);
    assert_eq!(status(&request_to(door, "GET /readyz", "", b"")), 200);
    let (head, body) = get("/metrics", TOKEN, "accept: application/openmetrics-text;version=1.0.0\r\n");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0")
            && body.ends_with(b"# EOF\n")
    );
    let (head, body) = get("/metrics", TOKEN, "");
    assert!(head.contains("content-type: text/plain; version=0.0.4") && !body.ends_with(b"# EOF\n"));
    drop((idle, more));
    let lines = loop {
        let text = std::fs::read_to_string(&path).unwrap();
        if text.lines().count() > 1 {
            break text;
        }
    };
    assert!(lines.contains("expected the operator's bearer token") && !lines.contains("a guess"), "{lines}");
}

#[test]
fn who_may_is_read_anew() {
    let access = |token: &str| -> Access {
        let json = format!(r#"{{"machines":[{{"name":"box","token_sha256":"{}"}}]}}"#, sha256(token));
        serde_json::from_str(&json).unwrap()
    };
    let mut reload = None;
    let server = serve(vec![sum()], |config| {
        config.access = Some(access(TOKEN));
        reload = Some(config.reload.clone());
    });
    let reload = reload.unwrap();
    let enters = |token: &str| {
        let student = server.stranger_with(&[("authorization", &format!("Bearer {token}"))]);
        student.map_err(|status| assert_eq!(status, 401)).is_ok()
    };
    let (one, other) = (TOKEN, "another secret of a machine");
    assert!(enters(one) && !enters(other));
    reload.access(&access(other)).unwrap();
    assert!(!enters(one) && enters(other));
    let wrong: Access = serde_json::from_str(r#"{"machines":[{"name":"box"}]}"#).unwrap();
    assert!(reload.access(&wrong).is_err() && enters(other), "what cannot be used changes nothing");
    let mut reload = None;
    let _open = serve(vec![sum()], |config| reload = Some(config.reload.clone()));
    assert!(reload.unwrap().access(&access(one)).is_err());
}

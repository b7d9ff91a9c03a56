//! The tungstenite driver against servers on the loopback, well-behaved and not.

use super::tungstenite::Socket;
use super::*;
use ::tungstenite::handshake::server::{Request as Upgrade, Response};
use ::tungstenite::protocol::CloseFrame;
use ::tungstenite::protocol::frame::coding::CloseCode;
use ::tungstenite::{Message, WebSocket, accept_hdr};
use oto_proto::{Grant, TeacherInfo};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

/// Long enough for any machine; nothing waits for it unless a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn unbounded(width: usize) -> Space {
    Space::Box { low: vec![f32::NEG_INFINITY; width], high: vec![f32::INFINITY; width] }
}

fn link(connect_timeout_ms: u64) -> Link {
    let hello = Hello {
        protocol: oto_proto::PROTOCOL.into(),
        policy: "echo".into(),
        student: "test".into(),
        observation: unbounded(1),
        action: Space::Discrete { n: 300 },
        adapter: None,
        dtype: Dtype::F32,
        action_dtype: None,
        quantization: None,
        grants: vec![Grant::Actions],
        stage: None,
        order: None,
        ticket: None,
        actor: None,
        worker: None,
        member: None,
    };
    let config =
        LinkConfig { connect_timeout_ms, backoff_min_ms: 5, backoff_max_ms: 20, ..LinkConfig::new(hello) };
    let mut link = Link::new(config).expect("a link");
    link.connect(0);
    link
}

/// A server that takes one connection and hands it to `serve`.
fn server<T: Send + 'static>(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> (String, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}/v1/teach", listener.local_addr().expect("an address"));
    (url, std::thread::spawn(move || serve(listener.accept().expect("a student").0)))
}

#[expect(clippy::result_large_err, reason = "the type of tungstenite's callback")]
fn upgrade<S: Read + Write>(stream: S) -> WebSocket<S> {
    let select = |request: &Upgrade, mut response: Response| {
        let offered = request.headers().get("sec-websocket-protocol").expect("a subprotocol").clone();
        assert_eq!(offered, "oto.v1");
        response.headers_mut().insert("sec-websocket-protocol", offered);
        Ok(response)
    };
    accept_hdr(stream, select).expect("a WebSocket")
}

/// Welcomes the student and answers each state with its own number, until the student leaves. Gives what was said.
fn echo<S: Read + Write>(stream: S) -> Vec<String> {
    let mut socket = upgrade(stream);
    let mut said = Vec::new();
    let states = oto_proto::StateFormat::new(&unbounded(1), Dtype::F32, None).expect("a format");
    let actions = ActionFormat::new(&Space::Discrete { n: 300 }, None).expect("a format");
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => {
                if let Ok(ClientMessage::Hello(_)) = ClientMessage::decode(&text) {
                    socket
                        .send(Message::text(ServerMessage::Welcome(Box::new(welcome())).encode()))
                        .expect("sent");
                }
                said.push(text.to_string());
            }
            Ok(Message::Binary(frame)) => {
                let states = states.decode(&frame, 64).expect("states");
                let mut answer = Vec::new();
                let mut writer = actions.writer(Ids { version: 1, ..states.header().ids }, &mut answer);
                for row in 0..states.rows() {
                    let mut state = [0.0];
                    states.read_row(row, &mut state);
                    writer.action(Action::Discrete(state[0] as u32)).expect("an action");
                }
                writer.finish().expect("a frame");
                socket.send(Message::binary(answer)).expect("sent");
            }
            Ok(_) => {}
            Err(_) => return said,
        }
    }
}

fn welcome() -> Welcome {
    Welcome {
        policy: "echo".into(),
        policy_id: 1,
        version: 1,
        max_rows: 64,
        credits: 4,
        dtype: Dtype::F32,
        action_dtype: Dtype::U16,
        action_width: 1,
        grants: vec![Grant::Actions],
        submit_rows: None,
        learner: None,
        shared: None,
        order: None,
        group: None,
        teacher: TeacherInfo { observation: unbounded(1), action: unbounded(1), description: String::new() },
    }
}

/// Asks for 50 states and checks the labels.
fn ask(socket: &mut Socket, link: &mut Link) {
    let now = socket.now_ms();
    (0..50u64).for_each(|slot| link.offer(slot, &[slot as f32 + 200.0], now).expect("a state"));
    let ticket = link.request_now(now).expect("a request");
    let mut labels = Vec::new();
    let answered = socket.wait(link, PATIENCE, |link| {
        link.take_labels(ticket, |slot, action, _| {
            labels.push((slot, action == Action::Discrete(slot as u32 + 200)))
        }) == Taken::Labels
    });
    assert!(answered, "{:?}", link.status(now));
    assert_eq!(labels, (0..50).map(|slot| (slot, true)).collect::<Vec<_>>());
}

/// Waits until the link has a problem to tell.
fn problem(socket: &mut Socket, link: &mut Link) -> String {
    assert!(socket.wait(link, PATIENCE, |link| link.status(0).problem.is_some()));
    link.status(0).problem.expect("it waited for one")
}

#[test]
fn a_conversation_over_a_real_socket() {
    let (url, server) = server(echo);
    let mut socket = Socket::new(&url).expect("an address");
    let mut link = link(5_000);
    ask(&mut socket, &mut link);
    ask(&mut socket, &mut link);
    assert_eq!((link.stats().payload_up, link.stats().payload_down), (2 * 50 * 4, 2 * 50 * 2));
    link.disconnect();
    socket.poll(&mut link);
    let said = server.join().expect("the server saw nothing wrong");
    assert_eq!(said.last().map(String::as_str), Some("{\"type\":\"bye\"}"));
}

#[test]
fn a_server_that_comes_late_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let mut socket = Socket::new(&format!("ws://{address}/v1/teach")).expect("an address");
    let mut link = link(5_000);
    assert!(problem(&mut socket, &mut link).contains("cannot connect to 127.0.0.1"));
    let listener = TcpListener::bind(address).expect("the port is free again");
    let server = std::thread::spawn(move || echo(listener.accept().expect("a student").0));
    ask(&mut socket, &mut link);
    drop(socket);
    server.join().expect("the server saw nothing wrong");
}

#[test]
fn a_silent_server_holds_nothing_up() {
    let (url, server) = server(|stream| stream);
    let mut socket = Socket::new(&url).expect("an address");
    let mut link = link(50);
    assert!(problem(&mut socket, &mut link).contains("took too long to open"));
    drop(server.join());
}

#[test]
fn a_server_that_speaks_http_only_is_named() {
    let (url, server) = server(|mut stream| {
        let mut request = [0; 1024];
        let length = stream.read(&mut request).expect("a request");
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").expect("an answer");
        length
    });
    let mut socket = Socket::new(&url).expect("an address");
    let mut link = link(5_000);
    let problem = problem(&mut socket, &mut link);
    assert!(problem.contains("404"), "{problem}");
    assert!(server.join().expect("a server") > 0);
}

#[test]
fn a_server_without_the_subprotocol_is_refused() {
    let (url, server) = server(|stream| ::tungstenite::accept(stream).is_ok());
    let mut socket = Socket::new(&url).expect("an address");
    let mut link = link(5_000);
    let problem = problem(&mut socket, &mut link);
    assert!(problem.contains("refused the WebSocket"), "{problem}");
    assert!(problem.contains("oto.v1") && problem.contains("Sec-WebSocket-Protocol"), "{problem}");
    assert!(server.join().expect("a server"));
}

#[test]
fn a_message_too_long_is_not_taken_in() {
    let (url, server) = server(|stream| {
        let mut socket = upgrade(stream);
        socket.read().expect("hello");
        let sent = socket.send(Message::text(" ".repeat(MAX_CONTROL_BYTES + 1)));
        // The student hangs up, which may or may not be seen here already.
        sent.is_ok() || sent.is_err()
    });
    let mut socket = Socket::new(&url).expect("an address");
    let mut link = link(5_000);
    let problem = problem(&mut socket, &mut link);
    assert!(problem.contains("too long"), "{problem}");
    assert_eq!(link.stats().bytes_down, 0);
    server.join().expect("a server");
}

#[test]
fn a_close_says_why() {
    let (url, server) = server(|stream| {
        let mut socket = upgrade(stream);
        socket.read().expect("hello");
        let frame = CloseFrame { code: CloseCode::Library(4002), reason: "no policy is named echo".into() };
        socket.close(Some(frame)).expect("closing");
        while socket.read().is_ok() {}
    });
    let mut socket = Socket::new(&url).expect("an address");
    let mut link = link(5_000);
    assert!(socket.wait(&mut link, PATIENCE, |link| link.state() == LinkState::Failed));
    assert_eq!(link.failure().map(|error| error.message.as_str()), Some("no policy is named echo"));
    server.join().expect("a server");
}

#[test]
fn an_address_that_is_none_is_refused() {
    for url in
        ["", "127.0.0.1:8080", "http://localhost/", "ws://", "ws:///path", "ws://host:99999/", "ws://a b/"]
    {
        assert!(Socket::new(url).is_err(), "{url}");
    }
    assert!(Socket::new("ws://[::1]:8080/v1/teach").is_ok());
    assert_eq!(Socket::new("wss://example.org/v1/teach").is_ok(), cfg!(feature = "tls"));
}

#[cfg(feature = "tls")]
mod secure {
    use super::*;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use std::sync::Arc;

    // An authority, and a certificate it gave to localhost: made for these tests, trusted nowhere else.
    const AUTHORITY: &[u8] = include_bytes!("../../tests/data/tls_authority.der");
    const CERTIFICATE: &[u8] = include_bytes!("../../tests/data/tls_server.der");
    const KEY: &[u8] = include_bytes!("../../tests/data/tls_server_key.der");

    fn secure_server() -> (String, JoinHandle<bool>) {
        let (url, server) = server(|stream| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("protocol versions")
                .with_no_client_auth()
                .with_single_cert(vec![CERTIFICATE.into()], KEY.try_into().expect("a key"))
                .expect("a certificate");
            let mut connection = ServerConnection::new(Arc::new(config)).expect("a connection");
            let mut stream = stream;
            if connection.complete_io(&mut stream).is_err() || connection.is_handshaking() {
                return false;
            }
            !echo(StreamOwned::new(connection, stream)).is_empty()
        });
        (url.replace("ws://127.0.0.1", "wss://localhost"), server)
    }

    #[test]
    fn a_conversation_over_tls() {
        let (url, server) = secure_server();
        let mut socket = Socket::new(&url).expect("an address");
        socket.trust_only(vec![AUTHORITY.into()]);
        let mut link = link(5_000);
        ask(&mut socket, &mut link);
        ask(&mut socket, &mut link);
        link.disconnect();
        socket.poll(&mut link);
        drop(socket);
        assert!(server.join().expect("the server saw nothing wrong"));
    }

    #[test]
    fn an_unknown_authority_is_not_trusted() {
        let (url, server) = secure_server();
        let mut socket = Socket::new(&url).expect("an address");
        let mut link = link(5_000);
        let problem = problem(&mut socket, &mut link);
        assert!(problem.contains("UnknownIssuer"), "{problem}");
        assert!(!server.join().expect("a server"));
    }
}

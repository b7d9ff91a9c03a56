//! A server in a thread, and students that talk to it over blocking sockets.

use crate::policies::boxed;
use oto_policy::Loaded;
use oto_proto::message::Welcome;
use oto_proto::{
    ActionFormat, ClientMessage, Dtype, ErrorCode, ErrorMessage, Hello, Ids, ServerMessage, Space,
    StateFormat,
};
use oto_server::{Policies, ServerConfig};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

/// Longer than anything takes: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that runs until it is stopped or dropped.
pub struct Server {
    pub address: SocketAddr,
    /// None of its own where it runs in another process.
    pub policies: Policies,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a server of these policies, with everything else as `change` leaves it.
pub fn serve(loaded: Vec<Loaded>, change: impl FnOnce(&mut ServerConfig)) -> Server {
    serve_at(SocketAddr::from(([127, 0, 0, 1], 0)), loaded, change)
}

/// The same at a given address, where another server may have been before.
pub fn serve_at(address: SocketAddr, loaded: Vec<Loaded>, change: impl FnOnce(&mut ServerConfig)) -> Server {
    serve_at_with(address, Policies::new(loaded).unwrap(), change, one_thread())
}

/// Starts a server with a thread for each core, as `oto serve` does.
pub fn serve_on_all_cores(loaded: Vec<Loaded>, change: impl FnOnce(&mut ServerConfig)) -> Server {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    serve_at_with(address, Policies::new(loaded).unwrap(), change, Runtime::new().unwrap())
}

/// Starts a server of these policies, some of which may be to come.
pub fn serve_policies(policies: Policies) -> Server {
    serve_at_with(SocketAddr::from(([127, 0, 0, 1], 0)), policies, |_| {}, one_thread())
}

fn one_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn serve_at_with(
    address: SocketAddr,
    policies: Policies,
    change: impl FnOnce(&mut ServerConfig),
    runtime: Runtime,
) -> Server {
    let mut config = ServerConfig::new(policies.clone());
    change(&mut config);
    let (stop, stopped) = oneshot::channel::<()>();
    let listener = std::net::TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let shutdown = async { drop(stopped.await) };
            oto_server::run(listener, config, shutdown).await.unwrap();
        });
    });
    Server { address, policies, stop: Some(stop), thread: Some(thread) }
}

/// A deadline that is meant to pass; no peer that behaves takes so long, even on a busy machine.
pub const SHORT: Duration = Duration::from_millis(500);

impl Server {
    /// A server in another process.
    pub fn elsewhere(address: SocketAddr) -> Self {
        Server { address, policies: Policies::new(Vec::new()).unwrap(), stop: None, thread: None }
    }

    /// Tells the server to stop.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until it has stopped.
    pub fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A WebSocket of this subprotocol with these further headers, or the status with which it was refused.
    pub fn upgrade(
        &self,
        protocol: Option<&str>,
        headers: &[(&'static str, &str)],
    ) -> Result<WebSocket<TcpStream>, u16> {
        let mut request = format!("ws://{}/v1/teach", self.address).into_client_request().unwrap();
        if let Some(protocol) = protocol {
            request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        }
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match tungstenite::client(request, self.connect()) {
            Ok((socket, answer)) => {
                assert_eq!(answer.headers()["sec-websocket-protocol"], "oto.v1");
                Ok(socket)
            }
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                Err(answer.status().as_u16())
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// A connection that has not said anything.
    pub fn stranger(&self) -> Student {
        self.stranger_with(&[]).unwrap()
    }

    /// The same with these headers in its handshake, or the status with which it was refused.
    pub fn stranger_with(&self, headers: &[(&'static str, &str)]) -> Result<Student, u16> {
        let socket = self.upgrade(Some("oto.v1"), headers)?;
        Ok(Student { socket, ids: Ids::default(), hello: hello("nobody", boxed(1), boxed(1)), formats: None })
    }

    /// The error with which a student is refused.
    pub fn refused(&self, hello: Hello) -> ErrorMessage {
        let mut student = self.stranger();
        student.say(&ClientMessage::Hello(Box::new(hello)));
        match student.hear() {
            Heard::Message(ServerMessage::Error(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    /// A student that has its welcome.
    pub fn student(&self, hello: Hello) -> (Student, Welcome) {
        self.student_with(&[], hello)
    }

    /// The same with these headers in its handshake.
    pub fn student_with(&self, headers: &[(&'static str, &str)], hello: Hello) -> (Student, Welcome) {
        let mut student = self.stranger_with(headers).unwrap();
        student.say(&ClientMessage::Hello(Box::new(hello.clone())));
        let welcome = match student.hear() {
            Heard::Message(ServerMessage::Welcome(welcome)) => *welcome,
            other => panic!("{other:?}"),
        };
        let formats = hello.formats().unwrap();
        welcome.check(&formats).unwrap();
        student.formats = Some((formats.states, formats.actions));
        student.ids = Ids { request: 0, policy: welcome.policy_id, version: welcome.version };
        student.hello = hello;
        (student, welcome)
    }

    /// A student of one of the policies that take four numbers and give one of two choices.
    pub fn pupil(&self, policy: &str) -> Student {
        self.student(hello(policy, boxed(4), Space::Discrete { n: 2 })).0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

pub fn hello(policy: &str, observation: Space, action: Space) -> Hello {
    Hello {
        protocol: "oto.v1".into(),
        policy: policy.into(),
        student: "test".into(),
        observation,
        action,
        adapter: None,
        dtype: Dtype::F32,
        action_dtype: None,
        quantization: None,
        grants: vec![],
        stage: None,
        order: None,
        ticket: None,
        actor: None,
        worker: None,
        member: None,
    }
}

pub struct Student {
    pub socket: WebSocket<TcpStream>,
    pub ids: Ids,
    pub hello: Hello,
    formats: Option<(StateFormat, ActionFormat)>,
}

/// What a server said, pings and pongs aside.
#[derive(Debug)]
pub enum Heard {
    Message(ServerMessage),
    Frame(Vec<u8>),
    Closed(u16),
    /// The connection broke, or ended without a close frame.
    Gone,
}

/// An answer: its request, its version, and one row for each state (an index as a number).
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub request: u32,
    pub version: u32,
    pub rows: Vec<Vec<f32>>,
}

impl Student {
    pub fn say(&mut self, message: &ClientMessage) {
        self.socket.send(Message::text(message.encode())).unwrap();
    }

    pub fn hear(&mut self) -> Heard {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Heard::Message(ServerMessage::decode(&text).unwrap()),
                Ok(Message::Binary(frame)) => return Heard::Frame(frame.to_vec()),
                Ok(Message::Close(Some(close))) => return Heard::Closed(close.code.into()),
                Ok(_) => {}
                Err(_) => return Heard::Gone,
            }
        }
    }

    /// A frame of these states.
    pub fn frame(&mut self, states: &[impl AsRef<[f32]>]) -> Vec<u8> {
        self.ids.request += 1;
        let (format, _) = self.formats.as_ref().unwrap();
        let mut frame = Vec::new();
        let mut writer = format.writer(self.ids, &mut frame);
        states.iter().for_each(|state| writer.state(state.as_ref()).unwrap());
        writer.finish().unwrap();
        frame
    }

    /// Sends states and gives the number of the request.
    pub fn ask(&mut self, states: &[impl AsRef<[f32]>]) -> u32 {
        let frame = self.frame(states);
        self.socket.send(Message::binary(frame)).unwrap();
        self.ids.request
    }

    /// Reads an answer; that a new version was published may come before it.
    pub fn answer(&mut self) -> Answer {
        let frame = loop {
            match self.hear() {
                Heard::Frame(frame) => break frame,
                Heard::Message(ServerMessage::Published(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        let (_, format) = self.formats.as_ref().unwrap();
        let actions = format.decode(&frame, usize::from(u16::MAX)).unwrap();
        let Ids { request, policy, version } = actions.header().ids;
        assert_eq!(policy, self.ids.policy);
        let mut scratch = vec![0.0; format.width()];
        let row = |row| match actions.get(row, &mut scratch) {
            oto_proto::Action::Discrete(index) => vec![index as f32],
            oto_proto::Action::Continuous(numbers) => numbers.to_vec(),
        };
        Answer { request, version, rows: (0..actions.rows()).map(row).collect() }
    }

    /// Asks about two states and checks the answers: this student is taught as it should be.
    pub fn is_well(&mut self) {
        let request = self.ask(&[&[1.0, 2.0, -0.5, 0.0], &[0.0, -2.0, 1.0, 0.5]]);
        let answer = self.answer();
        assert_eq!((answer.request, answer.rows), (request, vec![vec![1.0], vec![0.0]]));
    }

    /// Waits until the server has read everything said so far: it answers a second hello with an error.
    pub fn is_heard(&mut self) {
        let hello = ClientMessage::Hello(Box::new(self.hello.clone()));
        self.say(&hello);
        assert_eq!(self.error().code, ErrorCode::BadMessage);
    }

    /// Reads an error.
    pub fn error(&mut self) -> ErrorMessage {
        match self.hear() {
            Heard::Message(ServerMessage::Error(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    /// Reads an error and the close that follows from it.
    pub fn is_refused(&mut self, code: ErrorCode) -> String {
        let error = self.error();
        assert_eq!((error.code, error.request), (code, None), "{error}");
        assert!(matches!(self.hear(), Heard::Closed(found) if found == code.close_code()));
        error.message
    }
}

/// Sends a plain request and gives the answer's head in lower case, and its body.
pub fn request(server: &Server, line: &str, headers: &str) -> (String, Vec<u8>) {
    request_to(server.address, line, headers, b"")
}

/// The same, to any address and with a body.
pub fn request_to(address: SocketAddr, line: &str, headers: &str, body: &[u8]) -> (String, Vec<u8>) {
    try_request(address, line, headers, body).expect("a head")
}

/// The same; none if the connection ends without an answer.
pub fn try_request(address: SocketAddr, line: &str, headers: &str, body: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n");
    // A server that refuses may do so before it has read all.
    drop((stream.write_all(request.as_bytes()), stream.write_all(body)));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase(), answer[end + 4..].to_vec()))
}

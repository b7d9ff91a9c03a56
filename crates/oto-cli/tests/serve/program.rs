//! The program under test, and peers of it, good and bad.

use oto_proto::message::Welcome;
use oto_proto::{ClientMessage, Dtype, Grant, Hello, PROTOCOL, ServerMessage, Space, TeacherInfo};
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Message, WebSocket};

/// Longer than anything takes: a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One of the bundled policies: four numbers, two choices.
pub const POLICY: &str = "ppo_cartpole_v1";

/// A server's certificate, its key, and somebody else's certificate.
pub const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../server/tests/tls/first.pem");
pub const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../server/tests/tls/first.key");
pub const ANOTHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../server/tests/tls/second.pem");

/// A running `oto serve`, killed at the end.
pub struct Program {
    child: Child,
    pub address: SocketAddr,
    out: Lines<BufReader<ChildStdout>>,
    err: Option<ChildStderr>,
    /// Everything on standard error, once it has ended.
    said: Option<JoinHandle<String>>,
}

impl Program {
    /// `oto serve` with these flags and variables, on any port unless they name one.
    pub fn serve(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        Program::unread(flags, variables).read()
    }

    /// Reads what it writes on standard error.
    fn read(mut self) -> Self {
        let mut err = self.err.take().unwrap();
        self.said = Some(std::thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).unwrap();
            text
        }));
        self
    }

    /// The same, and nobody reads what it writes on standard error.
    pub fn unread(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        Program::start(&mut Command::new(env!("CARGO_BIN_EXE_oto")), flags, variables)
    }

    /// The same with so many open files at most.
    pub fn limited(files: u64, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_oto")]);
        Program::start(&mut shell, flags, variables).read()
    }

    /// Tells it to read its files anew.
    pub fn hang_up(&self) {
        let told = Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
    }

    fn start(command: &mut Command, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = command
            .arg("serve")
            .args(if flags.contains(&"--port") { &[][..] } else { &["--port", "0"] })
            .args(flags)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let (address, err) = (SocketAddr::from(([0; 4], 0)), child.stderr.take());
        let mut program = Program { child, address, out, err, said: None };
        let begins = if flags.contains(&"--tls-cert") { "serving https://" } else { "serving http://" };
        program.address = program.listens(begins);
        program
    }

    /// The address that a line on standard output names.
    pub fn listens(&mut self, begins: &str) -> SocketAddr {
        self.out
            .find_map(|line| line.unwrap().strip_prefix(begins)?.split_whitespace().next()?.parse().ok())
            .expect("it says where it listens")
    }

    /// Ends it as an operator does, and gives what it wrote on standard error if that was read.
    pub fn stop(mut self) -> String {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert!(self.child.wait().unwrap().success(), "it ends in peace");
        self.said.take().map(|said| said.join().unwrap()).unwrap_or_default()
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// A WebSocket with these further headers, or the status with which it was refused.
    pub fn socket(&self, headers: &[(&'static str, &str)]) -> Result<WebSocket<TcpStream>, u16> {
        let mut request = format!("ws://{}/v1/teach", self.address).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", PROTOCOL.parse().unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match tungstenite::client(request, self.connect()) {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                Err(answer.status().as_u16())
            }
            Err(other) => panic!("{other}"),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It fails only where it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The status and body of the answer to a plain request.
pub fn request(address: SocketAddr, line: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = connect(address);
    let length = body.len();
    let head =
        format!("{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n");
    stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().unwrap(), body.to_owned())
}

pub fn hello(policy: &str, ticket: Option<String>) -> ClientMessage {
    ClientMessage::Hello(Box::new(Hello {
        protocol: PROTOCOL.into(),
        policy: policy.into(),
        student: "test".into(),
        observation: Space::Box { low: vec![f32::NEG_INFINITY; 4], high: vec![f32::INFINITY; 4] },
        action: Space::Discrete { n: 2 },
        adapter: None,
        dtype: Dtype::F32,
        action_dtype: None,
        quantization: None,
        grants: vec![],
        stage: None,
        order: None,
        ticket,
        actor: None,
        worker: None,
        member: None,
    }))
}

/// A student's connection to a server that these tests play, once it has its welcome; and how it introduced itself.
#[expect(clippy::result_large_err, reason = "the type of tungstenite's callback")]
pub fn welcomed(stream: TcpStream) -> (WebSocket<TcpStream>, Hello) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let agree = |_: &Request, mut answer: Response| {
        answer.headers_mut().insert("sec-websocket-protocol", PROTOCOL.parse().unwrap());
        Ok(answer)
    };
    let mut socket = tungstenite::accept_hdr(stream, agree).unwrap();
    let Message::Text(text) = socket.read().unwrap() else { panic!("expected an introduction") };
    let Ok(ClientMessage::Hello(hello)) = ClientMessage::decode(&text) else { panic!("{text}") };
    let formats = hello.formats().unwrap();
    let welcome = Welcome {
        policy: hello.policy.clone(),
        policy_id: 0,
        version: 1,
        max_rows: 64,
        credits: 1,
        dtype: formats.states.dtype(),
        action_dtype: formats.actions.dtype(),
        action_width: formats.actions.width() as u32,
        grants: vec![Grant::Actions],
        submit_rows: None,
        learner: None,
        shared: None,
        order: None,
        group: None,
        teacher: TeacherInfo {
            observation: hello.observation.clone(),
            action: hello.action.clone(),
            description: String::new(),
        },
    };
    let welcome = ServerMessage::Welcome(Box::new(welcome)).encode();
    socket.send(Message::text(welcome)).unwrap();
    (socket, *hello)
}

/// Says something and gives the answer.
pub fn ask(socket: &mut WebSocket<TcpStream>, message: &ClientMessage) -> ServerMessage {
    socket.send(Message::text(message.encode())).unwrap();
    match socket.read().unwrap() {
        Message::Text(text) => ServerMessage::decode(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Asks the policy by KServe's protocol, and gives the status of the answer.
#[cfg(feature = "otlp")]
pub fn infer(server: &Program) -> u16 {
    let body =
        r#"{"inputs": [{"name": "observation", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, 0]}]}"#;
    request(server.address, &format!("POST /v2/models/{POLICY}/infer"), "", body).0
}

/// Asks the policy about so many states as a student does, and gives how many actions come.
#[cfg(feature = "otlp")]
pub fn actions(server: &Program, states: usize) -> usize {
    let mut socket = server.socket(&[]).unwrap();
    let hello = hello(POLICY, None);
    let ServerMessage::Welcome(welcome) = ask(&mut socket, &hello) else { panic!("expected a welcome") };
    let ClientMessage::Hello(hello) = hello else { unreachable!("it is one") };
    let formats = hello.formats().unwrap();
    let mut frame = Vec::new();
    let ids = oto_proto::Ids { request: 1, policy: welcome.policy_id, version: welcome.version };
    let mut writer = formats.states.writer(ids, &mut frame);
    (0..states).for_each(|_| writer.state(&[0.0; 4]).unwrap());
    writer.finish().unwrap();
    socket.send(Message::binary(frame)).unwrap();
    let Message::Binary(frame) = socket.read().unwrap() else { panic!("expected a frame") };
    formats.actions.decode(&frame, states).unwrap().rows()
}

/// A folder of its own for each test, removed at its end.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("oto-learn-{}-{test}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where a run goes.
    pub fn run(&self) -> PathBuf {
        self.0.join("run")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file that is removed at the end.
pub struct File(pub PathBuf);

impl File {
    pub fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("oto-serve-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        File(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

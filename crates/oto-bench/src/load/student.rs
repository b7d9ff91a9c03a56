//! One simulated student: a socket that never blocks, the request it repeats, and what is on its way.

use super::plan::Target;
use super::tls::Stream;
use oto_env::rng::Rng;
use oto_proto::{
    ActionFormat, ClientMessage, Dtype, Header, Hello, Ids, PROTOCOL, ServerMessage, Space, StateFormat,
};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

/// For connecting, the handshake and `welcome`.
const PATIENCE: Duration = Duration::from_secs(10);
/// Enough for a request of one state; larger ones make room for themselves.
const BUFFER_BYTES: usize = 1 << 10;

/// A student that has its welcome.
pub struct Student {
    socket: WebSocket<Stream>,
    /// The request that it repeats, as a frame; the number in it changes.
    frame: Vec<u8>,
    /// What an answer is read with; none: it is an echo.
    answers: Option<(ActionFormat, u16)>,
    request: u32,
    version: u32,
    /// Requests on their way, and when each was to be sent.
    pub pending: Vec<(u32, Instant)>,
    unsent: bool,
}

/// What came to a student.
#[derive(Debug)]
pub enum Heard {
    /// An answer to the request that was to be sent then.
    Answer {
        /// When it was to be sent.
        intended: Instant,
        /// The version that answered.
        version: u32,
    },
    /// A request was dropped, which was to be sent then.
    Overloaded(Instant),
    /// What no server that keeps the protocol sends, or a request that was refused.
    Wrong(String),
    /// The connection ended.
    Closed,
    /// Nothing more for now.
    Nothing,
}

impl Student {
    /// Connects, and introduces itself unless the other side is an echo.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn connect(target: &Target, echo: bool, rows: u16, rng: &mut Rng) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let stream = TcpStream::connect_timeout(&target.address, PATIENCE).map_err(|e| text(&e))?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(|e| text(&e))?;
        stream.set_nodelay(true).map_err(|e| text(&e))?;
        let stream = match &target.tls {
            None => Stream::Plain(stream),
            Some(tls) => tls.over(stream).map_err(|e| text(&e))?,
        };
        let url = format!("ws://{}/v1/teach", target.host);
        let mut request = url.into_client_request().map_err(|e| text(&e))?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        if let Some(token) = &target.token {
            let value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|e| text(&e))?;
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let config =
            WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES);
        let (socket, _) =
            tungstenite::client::client_with_config(request, stream, Some(config)).map_err(|e| text(&e))?;
        let Some(policy) = &target.policy else { return Err("a student needs a policy to ask".into()) };
        let states = StateFormat::new(&policy.observation, Dtype::F32, None).map_err(|e| text(&e))?;
        let mut student = Student {
            socket,
            frame: Vec::new(),
            answers: None,
            request: 0,
            version: 0,
            pending: Vec::new(),
            unsent: false,
        };
        let mut ids = Ids::default();
        if !echo {
            let hello = Hello {
                protocol: PROTOCOL.into(),
                policy: policy.name.clone(),
                student: "load".into(),
                observation: policy.observation.clone(),
                action: policy.action.clone(),
                adapter: None,
                dtype: Dtype::F32,
                action_dtype: None,
                quantization: None,
                grants: Vec::new(),
                stage: None,
                order: None,
                ticket: None,
                actor: None,
                worker: None,
                member: None,
            };
            let actions = hello.formats().map_err(|e| text(&e))?.actions;
            ids = student.greet(hello, rows)?;
            student.answers = Some((actions, rows));
        }
        let mut writer = states.writer(ids, &mut student.frame);
        let mut state = vec![0.0; policy.observation.width()];
        for _ in 0..rows {
            draw(&policy.observation, rng, &mut state);
            writer.state(&state).map_err(|e| text(&e))?;
        }
        writer.finish().map_err(|e| text(&e))?;
        student.stream().set_nonblocking(true).map_err(|e| text(&e))?;
        Ok(student)
    }

    fn greet(&mut self, hello: Hello, rows: u16) -> Result<Ids, String> {
        let hello = ClientMessage::Hello(Box::new(hello));
        self.socket.send(Message::text(hello.encode())).map_err(|e| e.to_string())?;
        loop {
            match self.socket.read().map_err(|e| e.to_string())? {
                Message::Text(text) => match ServerMessage::decode(&text).map_err(|e| e.to_string())? {
                    ServerMessage::Welcome(welcome) if welcome.max_rows < rows => {
                        return Err(format!("the server takes {} states at once", welcome.max_rows));
                    }
                    ServerMessage::Welcome(welcome) => {
                        self.version = welcome.version;
                        return Ok(Ids { request: 0, policy: welcome.policy_id, version: welcome.version });
                    }
                    other => return Err(format!("expected welcome, got {}", other.encode())),
                },
                Message::Ping(_) | Message::Pong(_) => {}
                other => return Err(format!("expected welcome, got {other:?}")),
            }
        }
    }

    /// The socket, to be waited for.
    pub fn stream(&self) -> &TcpStream {
        self.socket.get_ref().tcp()
    }

    /// Whether something waits for the socket to take it.
    pub fn unsent(&self) -> bool {
        self.unsent
    }

    /// Asks once more. False if the connection is gone.
    pub fn ask(&mut self, intended: Instant) -> bool {
        self.request = self.request.wrapping_add(1);
        self.frame[4..8].copy_from_slice(&self.request.to_le_bytes());
        self.pending.push((self.request, intended));
        match self.socket.write(Message::binary(self.frame.clone())) {
            Ok(()) => self.flush(),
            Err(error) => self.would_block(&error),
        }
    }

    /// Sends what waits. False if the connection is gone.
    pub fn flush(&mut self) -> bool {
        match self.socket.flush() {
            Ok(()) => {
                self.unsent = false;
                true
            }
            Err(error) => self.would_block(&error),
        }
    }

    fn would_block(&mut self, error: &Error) -> bool {
        self.unsent = matches!(error, Error::Io(error) if error.kind() == ErrorKind::WouldBlock);
        self.unsent
    }

    /// The next thing that came.
    pub fn hear(&mut self) -> Heard {
        loop {
            let message = match self.socket.read() {
                Ok(message) => message,
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
                Err(Error::Protocol(error)) => return Heard::Wrong(error.to_string()),
                Err(_) => return Heard::Closed,
            };
            match message {
                Message::Binary(frame) => return self.answer(&frame),
                Message::Text(text) => match ServerMessage::decode(&text) {
                    Ok(ServerMessage::Overloaded(overloaded)) => {
                        return match overloaded.request.and_then(|request| self.finish(request)) {
                            Some(intended) => Heard::Overloaded(intended),
                            None => Heard::Wrong(format!("overloaded: {text}")),
                        };
                    }
                    Ok(ServerMessage::Published(published)) if published.version >= self.version => {
                        self.version = published.version;
                    }
                    Ok(ServerMessage::Error(error)) => {
                        error.request.and_then(|request| self.finish(request));
                        return Heard::Wrong(error.message);
                    }
                    _ => return Heard::Wrong(text.to_string()),
                },
                Message::Close(_) => return Heard::Closed,
                _ => {}
            }
        }
    }

    fn answer(&mut self, frame: &[u8]) -> Heard {
        let header = match &self.answers {
            None => Header::read(frame).map_err(|e| e.to_string()),
            Some((format, rows)) => match format.decode(frame, usize::from(*rows)) {
                Ok(actions) if actions.rows() == usize::from(*rows) => Ok(actions.header()),
                Ok(actions) => Err(format!("expected {rows} actions, got {}", actions.rows())),
                Err(error) => Err(error.to_string()),
            },
        };
        let Ids { request, version, .. } = match header {
            Ok(header) => header.ids,
            Err(wrong) => return Heard::Wrong(wrong),
        };
        let Some(intended) = self.finish(request) else {
            return Heard::Wrong(format!("an answer to request {request}, which is not on its way"));
        };
        if self.answers.is_some() && version < self.version {
            return Heard::Wrong(format!("version {version} after version {}", self.version));
        }
        self.version = version;
        Heard::Answer { intended, version }
    }

    /// A request is on its way no more.
    fn finish(&mut self, request: u32) -> Option<Instant> {
        let at = self.pending.iter().position(|(pending, _)| *pending == request)?;
        Some(self.pending.swap_remove(at).1)
    }
}

/// Some observation of a space: numbers from -1 to 1, as far as they lie inside.
pub fn draw(space: &Space, rng: &mut Rng, state: &mut [f32]) {
    match space {
        Space::Discrete { n } => state.fill(rng.below(*n) as f32),
        Space::Box { low, high } => {
            for (i, number) in state.iter_mut().enumerate() {
                *number = (rng.uniform(-1.0, 1.0) as f32).max(low[i]).min(high[i]);
            }
        }
    }
}

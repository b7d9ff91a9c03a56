//! Drives a link over a socket: tungstenite on `std::net::TcpStream`, natively and on WASI 0.2.
//!
//! The socket never blocks. Connecting may, so natively a thread of its own does it; a WASI host has no threads, there
//! the caller waits for as long as a connection takes to open, at most [`Socket::CONNECT_TIMEOUT`] per address.

use super::{Conversation, Event, Output};
use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};
use thiserror::Error;
use tungstenite::client::IntoClientRequest;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::client::Request;
use tungstenite::http::HeaderValue;
use tungstenite::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{HandshakeError, Message, WebSocket};

/// Why an address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("teacher address {url:?}: {reason}")]
pub struct AddressError {
    /// The address.
    pub url: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A connection that is being opened.
#[cfg(not(target_family = "wasm"))]
type Opening = std::sync::mpsc::Receiver<Result<WebSocket<Stream>, String>>;
#[cfg(target_family = "wasm")]
type Opening = Option<Result<WebSocket<Stream>, String>>;

enum Connection {
    None,
    Opening(Opening),
    Open(Box<WebSocket<Stream>>),
    /// The close is sent; the server's is waited for until this moment.
    Closing(Box<WebSocket<Stream>>, u64),
}

/// How long a server's close is waited for, in milliseconds. A socket that is dropped with unread bytes resets its connection, and
/// the server may then miss what was sent last.
const CLOSE_TIMEOUT_MS: u64 = 2_000;

/// The socket beneath one link.
pub struct Socket {
    address: Address,
    connection: Connection,
    start: Instant,
}

/// Where to connect, checked.
#[derive(Clone)]
struct Address {
    request: Request,
    host: String,
    port: u16,
    #[cfg(feature = "tls")]
    secure: bool,
    /// Authorities that are trusted instead of Mozilla's.
    #[cfg(feature = "tls")]
    trusted: Option<Vec<rustls::pki_types::CertificateDer<'static>>>,
}

impl Socket {
    /// How long an address may take to accept a connection, and a server to answer the handshake's reads.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

    /// A socket for an address such as `ws://127.0.0.1:8080/v1/teach`. Nothing is opened yet.
    ///
    /// # Errors
    /// If the address is none, or is `wss` in a build without the feature `tls`.
    pub fn new(url: &str) -> Result<Self, AddressError> {
        let address = Address::parse(url)
            .map_err(|reason| AddressError { url: url.chars().take(300).collect(), reason })?;
        Ok(Socket { address, connection: Connection::None, start: Instant::now() })
    }

    /// Trusts these authorities and nobody else, instead of Mozilla's: for a server of one's own.
    #[cfg(feature = "tls")]
    pub fn trust_only(&mut self, authorities: Vec<rustls::pki_types::CertificateDer<'static>>) {
        self.address.trusted = Some(authorities);
    }

    /// Shows a server this bearer token at every handshake.
    ///
    /// # Errors
    /// If it is no text that a header may hold.
    pub fn authorize(&mut self, token: &str) -> Result<(), AddressError> {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| AddressError {
            url: self.address.request.uri().to_string(),
            reason: "a token is of visible ASCII characters".into(),
        })?;
        value.set_sensitive(true);
        self.address.request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }

    /// The clock that this socket gives to its link: milliseconds since it was made.
    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Carries out what the link wants and gives it what has come, without waiting.
    pub fn poll(&mut self, link: &mut impl Conversation) {
        loop {
            while let Some(output) = link.poll_output() {
                self.carry_out(output, link);
            }
            let now = self.now_ms();
            if !self.receive(link, now) {
                if link.wake_at().is_none_or(|at| at > now) {
                    self.flush(link);
                    return;
                }
                link.handle(Event::Tick, now);
            }
        }
    }

    /// Whether no connection is open, being opened or being closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.connection, Connection::None)
    }

    /// Polls until `done` says so, or `timeout` has passed. True if it was done.
    pub fn wait<L: Conversation>(
        &mut self,
        link: &mut L,
        timeout: Duration,
        mut done: impl FnMut(&mut L) -> bool,
    ) -> bool {
        let start = Instant::now();
        let mut pause = Duration::from_micros(50);
        loop {
            self.poll(link);
            if done(link) {
                return true;
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return false;
            }
            // Short at first, for a teacher nearby; then longer, for the processor's sake.
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(2));
        }
    }

    fn carry_out(&mut self, output: Output, link: &mut impl Conversation) {
        let message = match output {
            Output::Connect => {
                self.connection =
                    Connection::Opening(start_opening(self.address.clone(), link.max_message_bytes()));
                return;
            }
            Output::Close(code) => {
                if let Connection::Open(mut socket) =
                    std::mem::replace(&mut self.connection, Connection::None)
                {
                    // What the socket does not take now goes out with the next reads.
                    let _ = socket.close(Some(CloseFrame { code: code.into(), reason: "".into() }));
                    let until = self.now_ms().saturating_add(CLOSE_TIMEOUT_MS);
                    self.connection = Connection::Closing(socket, until);
                }
                return;
            }
            Output::Text(text) => Message::text(text),
            Output::Binary(frame) => Message::binary(frame),
        };
        if let Connection::Open(socket) = &mut self.connection
            && let Err(error) = socket.write(message)
            && !is_only_busy(&error)
        {
            self.lose(link, &error);
        }
    }

    /// Takes one event from the connection, if it has one.
    fn receive(&mut self, link: &mut impl Conversation, now: u64) -> bool {
        match &mut self.connection {
            Connection::None => false,
            Connection::Closing(socket, until) => {
                let (read, late) = (socket.read(), now >= *until);
                let ended = match &read {
                    Ok(message) => message.is_close(),
                    Err(error) => !is_only_busy(error),
                };
                if ended || late {
                    self.connection = Connection::None;
                }
                read.is_ok()
            }
            Connection::Opening(opening) => match finish_opening(opening) {
                None => false,
                Some(Ok(socket)) => {
                    self.connection = Connection::Open(Box::new(socket));
                    link.handle(Event::Connected, now);
                    true
                }
                Some(Err(reason)) => {
                    self.connection = Connection::None;
                    link.handle(Event::Closed { code: None, reason: &reason }, now);
                    true
                }
            },
            Connection::Open(socket) => match socket.read() {
                Ok(Message::Text(text)) => {
                    link.handle(Event::Text(text.as_str()), now);
                    true
                }
                Ok(Message::Binary(frame)) => {
                    link.handle(Event::Binary(&frame), now);
                    true
                }
                Ok(Message::Close(frame)) => {
                    let _ = socket.flush();
                    self.connection = Connection::None;
                    let code = frame.as_ref().map(|frame| u16::from(frame.code));
                    let reason = frame.as_ref().map_or("", |frame| frame.reason.as_str());
                    link.handle(Event::Closed { code, reason }, now);
                    true
                }
                Ok(_) => true,
                Err(error) if is_only_busy(&error) => false,
                Err(error) => {
                    self.lose(link, &error);
                    true
                }
            },
        }
    }

    fn flush(&mut self, link: &mut impl Conversation) {
        if let Connection::Open(socket) = &mut self.connection
            && let Err(error) = socket.flush()
            && !is_only_busy(&error)
        {
            self.lose(link, &error);
        }
    }

    fn lose(&mut self, link: &mut impl Conversation, error: &tungstenite::Error) {
        self.connection = Connection::None;
        let reason = format!("the connection was lost: {error}");
        link.handle(Event::Closed { code: None, reason: &reason }, self.now_ms());
    }
}

fn is_only_busy(error: &tungstenite::Error) -> bool {
    matches!(error, tungstenite::Error::Io(error) if is_busy(error.kind()))
}

fn is_busy(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl Address {
    fn parse(url: &str) -> Result<Self, String> {
        let mut request = url.into_client_request().map_err(|error| error.to_string())?;
        let protocol = HeaderValue::from_static(oto_proto::PROTOCOL);
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        let uri = request.uri();
        let secure = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") if cfg!(feature = "tls") => true,
            Some("wss") => {
                return Err("this build has no TLS; use ws:// or a build with the feature \"tls\"".into());
            }
            _ => return Err("expected ws://host:port/path or wss://host:port/path".into()),
        };
        let written = uri.host().unwrap_or_default();
        let host = written.trim_start_matches('[').trim_end_matches(']').to_string();
        if host.is_empty() {
            return Err("there is no host in it".into());
        }
        let port = match uri.port_u16() {
            Some(port) => port,
            // What follows the host, if anything, would be a port that is none.
            None if !uri.authority().is_some_and(|authority| authority.as_str().ends_with(written)) => {
                return Err("the port is no number from 0 to 65535".into());
            }
            None if secure => 443,
            None => 80,
        };
        Ok(Address {
            host,
            port,
            #[cfg(feature = "tls")]
            secure,
            #[cfg(feature = "tls")]
            trusted: None,
            request,
        })
    }
}

#[cfg(not(target_family = "wasm"))]
fn start_opening(address: Address, max_message: usize) -> Opening {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let failed = sender.clone();
    // If the link gives up meanwhile, nobody receives and the thread's connection closes with it.
    let thread = std::thread::Builder::new().name("oto-connect".into());
    if let Err(error) = thread.spawn(move || drop(sender.send(open(&address, max_message)))) {
        let _ = failed.send(Err(format!("cannot start a thread to connect: {error}")));
    }
    receiver
}

#[cfg(not(target_family = "wasm"))]
fn finish_opening(opening: &mut Opening) -> Option<Result<WebSocket<Stream>, String>> {
    use std::sync::mpsc::TryRecvError;
    match opening.try_recv() {
        Ok(opened) => Some(opened),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Disconnected) => Some(Err("connecting failed".into())),
    }
}

#[cfg(target_family = "wasm")]
fn start_opening(address: Address, max_message: usize) -> Opening {
    Some(open(&address, max_message))
}

#[cfg(target_family = "wasm")]
fn finish_opening(opening: &mut Opening) -> Option<Result<WebSocket<Stream>, String>> {
    opening.take()
}

/// Opens a connection and shakes hands, blocking.
fn open(address: &Address, max_message: usize) -> Result<WebSocket<Stream>, String> {
    let place = format!("{}:{}", address.host, address.port);
    let tcp = connect(address).map_err(|error| format!("cannot connect to {place}: {error}"))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(0)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message));
    let stream =
        secure(tcp, address).map_err(|error| format!("cannot secure the connection to {place}: {error}"))?;
    let shaken = tungstenite::client::client_with_config(address.request.clone(), stream, Some(config));
    let (socket, _) = shaken.map_err(|error| match error {
        HandshakeError::Failure(tungstenite::Error::Http(response)) => {
            let why = response.body().as_deref().map(sentence).unwrap_or_default();
            format!("{place} refused the WebSocket with HTTP status {}{why}", response.status())
        }
        HandshakeError::Failure(tungstenite::Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_))) => {
            format!(
                "{place} refused the WebSocket: it did not select the subprotocol oto.v1. No teacher is there, or a proxy \
                before it does not pass on the header Sec-WebSocket-Protocol"
            )
        }
        HandshakeError::Failure(error) => format!("{place} refused the WebSocket: {error}"),
        HandshakeError::Interrupted(_) => format!("{place} took too long to accept the WebSocket"),
    })?;
    let tcp = socket.get_ref().tcp();
    tcp.set_nonblocking(true).map_err(|error| format!("cannot make the socket non-blocking: {error}"))?;
    Ok(socket)
}

/// The first line of what a server says of its refusal, without anything that a terminal would obey.
fn sentence(body: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * LONGEST)]);
    let line = text.trim().lines().next().unwrap_or_default();
    // A page for people is none.
    if line.is_empty() || line.starts_with('<') {
        return String::new();
    }
    format!(": {}", line.chars().take(LONGEST).filter(|c| !c.is_control()).collect::<String>())
}

fn connect(address: &Address) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for candidate in (address.host.as_str(), address.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, Socket::CONNECT_TIMEOUT) {
            Ok(tcp) => {
                // Requests are small and waited for.
                tcp.set_nodelay(true)?;
                tcp.set_read_timeout(Some(Socket::CONNECT_TIMEOUT))?;
                tcp.set_write_timeout(Some(Socket::CONNECT_TIMEOUT))?;
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(feature = "tls")]
use tls::{Stream, secure};

#[cfg(feature = "tls")]
mod tls {
    //! `wss://` by rustls.

    use super::Address;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
    use std::io::{self, Read, Write};
    use std::net::TcpStream;
    use std::sync::Arc;

    pub(super) enum Stream {
        Plain(TcpStream),
        Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
    }

    impl Stream {
        pub(super) fn tcp(&self) -> &TcpStream {
            match self {
                Stream::Plain(tcp) => tcp,
                Stream::Secure(stream) => &stream.sock,
            }
        }
    }

    impl Read for Stream {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self {
                Stream::Plain(tcp) => tcp.read(buffer),
                Stream::Secure(stream) => stream.read(buffer),
            }
        }
    }

    impl Write for Stream {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            match self {
                Stream::Plain(tcp) => tcp.write(buffer),
                Stream::Secure(stream) => stream.write(buffer),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            match self {
                Stream::Plain(tcp) => tcp.flush(),
                Stream::Secure(stream) => stream.flush(),
            }
        }
    }

    pub(super) fn secure(tcp: TcpStream, address: &Address) -> Result<Stream, String> {
        if !address.secure {
            return Ok(Stream::Plain(tcp));
        }
        let mut roots = RootCertStore::empty();
        match &address.trusted {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(authorities) => {
                authorities
                    .iter()
                    .try_for_each(|one| roots.add(one.clone()))
                    .map_err(|error| error.to_string())?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
        Ok(Stream::Secure(Box::new(StreamOwned::new(connection, tcp))))
    }
}

#[cfg(not(feature = "tls"))]
use plain::{Stream, secure};

#[cfg(not(feature = "tls"))]
mod plain {
    //! Without TLS the stream is the socket itself.

    use super::Address;
    use std::convert::Infallible;
    use std::io::{self, Read, Write};
    use std::net::TcpStream;

    pub(super) struct Stream(TcpStream);

    impl Stream {
        pub(super) fn tcp(&self) -> &TcpStream {
            &self.0
        }
    }

    impl Read for Stream {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Stream {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.0.write(buffer)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    pub(super) fn secure(tcp: TcpStream, _: &Address) -> Result<Stream, Infallible> {
        Ok(Stream(tcp))
    }
}

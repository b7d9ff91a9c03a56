//! A student's socket, every use of which has a deadline and every message of which has a limit.

use crate::auth::budget::Account;
use crate::net::gate::{Gate, PARTS, Refusal, Sizes};
use crate::net::limits::Limits;
use crate::observe::metrics::Metrics;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use oto_proto::message::{CLOSE_OVERLOADED, CLOSE_RESTARTING, MAX_CONTROL_BYTES, MAX_TEXT_BYTES, Overloaded};
use oto_proto::{ErrorCode, ErrorMessage, ServerMessage};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, coding::CloseCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// tungstenite's default of 128 KiB for each direction would be most of a connection's memory. Larger messages make
/// room for themselves once their length is known and allowed.
const SOCKET_BUFFER_BYTES: usize = 2 << 10;
/// What a frame has beside its payload, at most.
const FRAME_BYTES: usize = 10;
/// Bytes of one read from a connection that ends.
const LEAVING_BYTES: usize = 4 << 10;
/// The longest binary message before `hello`, where none is expected.
const STRANGE_BYTES: usize = 4 << 10;

/// How a conversation ends.
pub(crate) enum End {
    /// The student is gone.
    Gone,
    /// The student closes, and waits for the answer to that.
    Closed,
    /// It takes nothing any more.
    Slow,
    /// It said `bye`.
    Bye,
    /// The server stops.
    Restarting,
    /// The student may come again after this time; the server counts why.
    Overloaded(Duration, &'static str),
    /// The server sends the student an error and closes.
    Refused(ErrorMessage),
    /// So is one that sends what no WebSocket may, with the close code of RFC 6455 for that.
    Broken(ErrorMessage, CloseCode),
}

impl<E: Into<ErrorMessage>> From<E> for End {
    fn from(error: E) -> Self {
        End::Refused(error.into())
    }
}

impl End {
    /// Why the server ended it, for who counts; none if the student left or the server stops.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            End::Gone | End::Closed | End::Bye | End::Restarting => None,
            End::Slow => Some("slow"),
            End::Overloaded(_, reason) => Some(reason),
            End::Refused(error) => Some(match error.code {
                ErrorCode::Timeout => "silent",
                ErrorCode::Forbidden => "forbidden",
                _ => "refused",
            }),
            End::Broken(..) => Some("refused"),
        }
    }
}

/// An end that tells the student why.
pub(crate) fn refused(code: ErrorCode, message: impl Into<String>) -> End {
    End::Refused(ErrorMessage::new(code, message))
}

/// An end for what no WebSocket may send.
fn broken(code: CloseCode, message: impl Into<String>) -> End {
    End::Broken(ErrorMessage::new(ErrorCode::BadMessage, message), code)
}

/// A time as messages have it.
pub(crate) fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

async fn in_time(limits: &Limits, work: impl Future<Output = Result<(), Error>>) -> Result<(), End> {
    match timeout(limits.write_timeout, work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::Slow),
    }
}

/// The student's socket.
pub(crate) struct Peer<'a> {
    socket: WebSocketStream<Gate<TokioIo<Upgraded>>>,
    /// How long it may take for what.
    pub limits: &'a Limits,
    /// Where its messages are counted.
    pub metrics: &'a Metrics,
    /// Bytes that were added and not sent.
    added: usize,
}

impl<'a> Peer<'a> {
    /// A connection after its handshake. What it sends before `hello` is held on this account.
    pub async fn new(
        io: TokioIo<Upgraded>,
        limits: &'a Limits,
        metrics: &'a Metrics,
        account: Account,
    ) -> Self {
        let largest = limits.message_bytes.max(MAX_CONTROL_BYTES);
        let sizes = Sizes { text: MAX_CONTROL_BYTES, binary: STRANGE_BYTES };
        let io = Gate::new(io, account, sizes, limits.message_timeout);
        let settings = WebSocketConfig::default()
            .read_buffer_size(SOCKET_BUFFER_BYTES)
            .write_buffer_size(SOCKET_BUFFER_BYTES)
            // Room for one message beside what may be added.
            .max_write_buffer_size(2 * largest)
            .max_message_size(Some(largest))
            .max_frame_size(Some(largest));
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(settings)).await;
        Peer { socket, limits, metrics, added: 0 }
    }

    /// After its `hello`, a student sends short texts and long tensors, which are held on another account.
    pub fn greeted(&mut self, account: Account) {
        // A submission of a row too many is still read, and refused by its number.
        let binary = self.limits.message_bytes.max(MAX_CONTROL_BYTES);
        let sizes = Sizes { text: MAX_TEXT_BYTES, binary };
        self.socket.get_mut().set(account, sizes);
    }

    /// Why the gate lets nothing more in.
    fn ended(&self) -> End {
        let too_large = |message: String| refused(ErrorCode::TooLarge, message);
        match self.socket.get_ref().refusal() {
            None => End::Gone,
            Some(Refusal::Text { found, most }) => {
                too_large(format!("expected a text of at most {most} bytes, got one of {found}"))
            }
            Some(Refusal::Binary { most: STRANGE_BYTES, .. }) => {
                refused(ErrorCode::BadMessage, "expected hello, got a binary frame")
            }
            Some(Refusal::Binary { found, most }) => {
                too_large(format!("expected a message of at most {most} bytes, got one of {found}"))
            }
            Some(Refusal::Parts) => {
                too_large(format!("expected a message of at most {PARTS} parts, got more"))
            }
            Some(Refusal::Full) => End::Overloaded(self.limits.retry, "bytes"),
            Some(Refusal::Late) => {
                let seconds = self.limits.message_timeout.as_secs_f32();
                refused(ErrorCode::Timeout, format!("expected all of a message within {seconds} s"))
            }
        }
    }

    /// The next message.
    pub async fn receive(&mut self) -> Result<Message, End> {
        match self.socket.next().await {
            Some(Ok(Message::Close(_))) => Err(End::Closed),
            None => Err(End::Gone),
            Some(Ok(message)) => {
                self.metrics.received(message.len());
                Ok(message)
            }
            Some(Err(Error::Capacity(error))) => Err(refused(ErrorCode::TooLarge, error.to_string())),
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => Err(End::Gone),
            Some(Err(Error::Protocol(error))) => Err(broken(CloseCode::Protocol, error.to_string())),
            Some(Err(Error::Utf8(error))) => Err(broken(CloseCode::Invalid, error)),
            Some(Err(_)) => Err(self.ended()),
        }
    }

    /// Adds a message to what is sent next. What would be more than a little is sent first.
    pub async fn add(&mut self, message: Message) -> Result<(), End> {
        let bytes = message.len() + FRAME_BYTES;
        if self.added + bytes > SOCKET_BUFFER_BYTES {
            self.flush().await?;
        }
        self.added += bytes;
        self.metrics.sent(message.len());
        in_time(self.limits, self.socket.feed(message)).await
    }

    /// Sends what was added, for as long as the student takes it in time.
    pub async fn flush(&mut self) -> Result<(), End> {
        match std::mem::take(&mut self.added) {
            0 => Ok(()),
            _ => in_time(self.limits, self.socket.flush()).await,
        }
    }

    /// Sends a message, and what was added before it.
    pub async fn send(&mut self, message: Message) -> Result<(), End> {
        self.add(message).await?;
        self.flush().await
    }

    /// Sends a control message.
    pub async fn say(&mut self, message: ServerMessage) -> Result<(), End> {
        self.send(Message::text(message.encode())).await
    }

    /// Says why, closes, and waits for the student to have read it: a socket that is dropped with unread bytes takes
    /// back what it sent last.
    pub async fn dismiss(mut self, end: End) {
        let (message, code, reason) = match end {
            // A student that reads nothing gets no message.
            End::Gone | End::Slow => return,
            End::Closed => {
                // The answer to its close frame is made already; this sends it.
                if let Ok(Ok(())) = timeout(self.limits.write_timeout, self.socket.flush()).await {
                    self.leave().await;
                }
                return;
            }
            End::Bye => (None, CloseCode::Normal, "bye"),
            End::Restarting => (None, CloseCode::from(CLOSE_RESTARTING), "restarting"),
            End::Overloaded(pause, _) => {
                let message = Overloaded { request: None, retry_ms: milliseconds(pause) };
                (Some(ServerMessage::Overloaded(message)), CloseCode::from(CLOSE_OVERLOADED), "overloaded")
            }
            End::Refused(error) => {
                let code = CloseCode::from(error.code.close_code());
                (Some(ServerMessage::Error(error)), code, "refused")
            }
            End::Broken(error, code) => (Some(ServerMessage::Error(error)), code, "refused"),
        };
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        let farewell = async {
            if let Some(message) = message {
                self.say(message).await?;
            }
            self.send(close).await
        };
        if farewell.await.is_ok() {
            self.leave().await;
        }
    }

    /// Ends the connection in that direction, and waits for the other side to do the same.
    async fn leave(&mut self) {
        let io = self.socket.get_mut();
        io.open();
        let leave = async {
            io.shutdown().await?;
            let mut rest = vec![0; LEAVING_BYTES];
            while io.read(&mut rest).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        // Whatever it says now, or if it stays: the connection ends here.
        drop(timeout(self.limits.close_timeout, leave).await);
    }
}

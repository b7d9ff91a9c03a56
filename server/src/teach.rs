//! The conversation with one student: `hello` and `welcome`, then states up and actions down until one side ends it.
//!
//! One task does it all, so that a student which does not read is one that nobody reads from either, until its
//! deadline. Specified in `PROTOCOL.md` of `oto-proto`.

use crate::config::{Limits, ServerConfig};
use crate::policies::{Answer, NotTaken, Request, Teacher};
use crate::stopped;
use crate::submit::{self, Submissions};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use oto_policy::action;
use oto_proto::message::{CLOSE_RESTARTING, MAX_CONTROL_BYTES, Overloaded, Published, Restarting};
use oto_proto::{
    ClientMessage, ErrorCode, ErrorMessage, Formats, Grant, Header, Hello, Ids, Kind, Plan, ServerMessage,
    Welcome,
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, coding::CloseCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// tungstenite's default of 128 KiB for each direction would be most of a connection's memory.
const SOCKET_BUFFER_BYTES: usize = 4 << 10;

/// How a conversation ends.
enum End {
    /// The student is gone, or closes, or takes nothing any more.
    Gone,
    /// It said `bye`.
    Bye,
    /// The server stops.
    Restarting,
    /// The student is told why, and shown out.
    Refused(ErrorMessage),
}

impl From<ErrorMessage> for End {
    fn from(error: ErrorMessage) -> Self {
        End::Refused(error)
    }
}

fn refused(code: ErrorCode, message: impl Into<String>) -> End {
    End::Refused(ErrorMessage::new(code, message))
}

/// Teaches one student until it leaves, misbehaves or the server stops.
pub(crate) async fn teach(io: TokioIo<Upgraded>, config: &ServerConfig, mut stopping: watch::Receiver<bool>) {
    let limits = &config.limits;
    let largest = limits.message_bytes.max(MAX_CONTROL_BYTES);
    let settings = WebSocketConfig::default()
        .read_buffer_size(SOCKET_BUFFER_BYTES)
        .write_buffer_size(SOCKET_BUFFER_BYTES)
        // Room for one answer: each is flushed before the next is written.
        .max_write_buffer_size(2 * largest)
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest));
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(settings)).await;
    let mut peer = Peer { socket, limits };
    let end = match greet(&mut peer, config, &mut stopping).await {
        Ok(mut lesson) => lesson.hold(&mut peer, &mut stopping).await.unwrap_or_else(|end| end),
        Err(end) => end,
    };
    peer.dismiss(end).await;
}

/// The student's socket, every use of which has a deadline.
struct Peer<'a> {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    limits: &'a Limits,
}

impl Peer<'_> {
    /// The next message.
    async fn receive(&mut self) -> Result<Message, End> {
        match self.socket.next().await {
            Some(Ok(Message::Close(_))) | None => Err(End::Gone),
            Some(Ok(message)) => Ok(message),
            Some(Err(Error::Capacity(error))) => Err(refused(ErrorCode::TooLarge, error.to_string())),
            Some(Err(Error::Protocol(error))) => Err(refused(ErrorCode::BadMessage, error.to_string())),
            Some(Err(Error::Utf8(error))) => Err(refused(ErrorCode::BadMessage, error)),
            Some(Err(_)) => Err(End::Gone),
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match timeout(self.limits.write_timeout, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            // Whoever takes nothing can be told nothing.
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    async fn say(&mut self, message: ServerMessage) -> Result<(), End> {
        self.send(Message::text(message.encode())).await
    }

    /// Says why, closes, and waits for the student to have read it: a socket that is dropped with unread bytes takes
    /// back what it sent last.
    async fn dismiss(mut self, end: End) {
        let (message, code, reason) = match end {
            End::Gone => (None, CloseCode::Normal, ""),
            End::Bye => (None, CloseCode::Normal, "bye"),
            End::Restarting => (None, CloseCode::from(CLOSE_RESTARTING), "restarting"),
            End::Refused(error) => {
                let code = CloseCode::from(error.code.close_code());
                (Some(ServerMessage::Error(error)), code, "refused")
            }
        };
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        let farewell = async {
            if let Some(message) = message {
                self.say(message).await?;
            }
            self.send(close).await
        };
        if farewell.await.is_err() {
            return;
        }
        let io = self.socket.get_mut();
        let leave = async {
            io.shutdown().await?;
            let mut rest = [0; 1024];
            while io.read(&mut rest).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        // Whatever it says now, or if it stays: the connection ends here.
        drop(timeout(self.limits.close_timeout, leave).await);
    }
}

/// Waits for `hello` and answers it.
async fn greet(
    peer: &mut Peer<'_>,
    config: &ServerConfig,
    stopping: &mut watch::Receiver<bool>,
) -> Result<Lesson, End> {
    let deadline = sleep(config.limits.hello_timeout);
    tokio::pin!(deadline);
    let hello = loop {
        let message = tokio::select! {
            message = peer.receive() => message?,
            () = &mut deadline => return Err(refused(ErrorCode::Timeout, "expected hello in time, got none")),
            () = stopped(stopping) => {
                peer.say(restarting(&config.limits)).await?;
                return Err(End::Restarting);
            }
        };
        match message {
            Message::Text(text) => match ClientMessage::decode(&text).map_err(ErrorMessage::from)? {
                ClientMessage::Hello(hello) => break hello,
                ClientMessage::Bye => return Err(End::Bye),
                ClientMessage::Stage(_) => {
                    return Err(refused(ErrorCode::BadMessage, "expected hello, got stage"));
                }
            },
            Message::Binary(_) => {
                return Err(refused(ErrorCode::BadMessage, "expected hello, got a binary frame"));
            }
            _ => {}
        }
    };
    let (lesson, welcome) = Lesson::agree(&hello, config)?;
    peer.say(ServerMessage::Welcome(Box::new(welcome))).await?;
    Ok(lesson)
}

fn restarting(limits: &Limits) -> ServerMessage {
    ServerMessage::Restarting(Restarting { retry_ms: milliseconds(limits.retry) })
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// What there is to say of a submission that was written; never, where none is.
async fn written(submissions: &mut Option<Submissions>) -> ServerMessage {
    match submissions {
        Some(submissions) => submissions.written().await,
        None => std::future::pending().await,
    }
}

/// What was agreed with a student, and what is under way.
struct Lesson {
    teacher: Teacher,
    plan: Plan,
    formats: Formats,
    max_rows: u16,
    reply: mpsc::Sender<Answer>,
    answers: mpsc::Receiver<Answer>,
    in_flight: u16,
    /// There if it was granted.
    submissions: Option<Submissions>,
    refusals: u32,
    /// One observation and one action of the student.
    observation: Vec<f32>,
    action: Vec<f32>,
}

impl Lesson {
    fn agree(hello: &Hello, config: &ServerConfig) -> Result<(Lesson, Welcome), ErrorMessage> {
        let limits = &config.limits;
        let formats = hello.formats()?;
        let teacher = config.policies.teacher(&hello.policy, &hello.observation, &hello.action)?;
        let info = &teacher.info;
        let adapter = hello.adapter.clone().unwrap_or_default();
        let plan = adapter.check(&hello.observation, &hello.action, &info.observation, &info.action)?;
        // Nothing that one request causes to be held is larger than `message_bytes`: its frame, the teacher's
        // observations (an adapter may repeat components) and both kinds of actions.
        let widest =
            [formats.states.width(), info.observation.width(), info.action.width(), formats.actions.width()];
        let row_bytes = 4 * widest.into_iter().max().unwrap_or(1);
        let max_rows = limits.message_bytes.saturating_sub(oto_proto::HEADER_BYTES) / row_bytes;
        let max_rows = u16::try_from(max_rows).unwrap_or(u16::MAX).min(limits.max_rows);
        if max_rows == 0 {
            let message = format!("expected rows of at most {} bytes, got {row_bytes}", limits.message_bytes);
            return Err(ErrorMessage::new(ErrorCode::TooLarge, message));
        }
        let credits = limits.credits.max(1);
        let submissions =
            Submissions::grant(hello, &formats, info, teacher.id, &config.collecting, limits.message_bytes);
        let mut grants = vec![Grant::Actions];
        grants.extend(submissions.as_ref().map(|_| Grant::Submit));
        let welcome = Welcome {
            policy: hello.policy.clone(),
            policy_id: teacher.id,
            version: *teacher.version.borrow(),
            max_rows,
            credits,
            dtype: formats.states.dtype(),
            action_dtype: formats.actions.dtype(),
            action_width: u32::try_from(formats.actions.width()).unwrap_or(u32::MAX),
            grants,
            submit_rows: submissions.as_ref().map(|submissions| submissions.max_rows),
            teacher: info.clone(),
        };
        let (reply, answers) = mpsc::channel(credits.into());
        let (observation, action) = (vec![0.0; formats.states.width()], vec![0.0; hello.action.width()]);
        let (in_flight, refusals) = (0, 0);
        let lesson = Lesson {
            teacher,
            plan,
            formats,
            max_rows,
            reply,
            answers,
            in_flight,
            submissions,
            refusals,
            observation,
            action,
        };
        Ok((lesson, welcome))
    }

    /// Answers until the end.
    async fn hold(&mut self, peer: &mut Peer<'_>, stopping: &mut watch::Receiver<bool>) -> Result<End, End> {
        let limits = peer.limits;
        let mut heard = Instant::now();
        let mut pinged = heard;
        // Its sender ends when the policies do, and stays for as long as a scripted one has a version to wait for.
        let mut version = self.teacher.version.clone();
        let mut publishes = true;
        loop {
            let quiet = (heard.max(pinged) + limits.ping_interval).min(heard + limits.peer_timeout);
            tokio::select! {
                () = stopped(stopping) => return self.finish(peer).await,
                Some(answer) = self.answers.recv() => self.pass_on(peer, answer).await?,
                said = written(&mut self.submissions) => peer.say(said).await?,
                changed = version.changed(), if publishes => match changed {
                    Ok(()) => {
                        let version = *version.borrow_and_update();
                        peer.say(ServerMessage::Published(Published { version })).await?;
                    }
                    Err(_) => publishes = false,
                },
                message = peer.receive() => {
                    heard = Instant::now();
                    if let Some(end) = self.hear(peer, message?).await? {
                        return Ok(end);
                    }
                }
                () = sleep_until(quiet) => {
                    if heard.elapsed() >= limits.peer_timeout {
                        return Err(refused(ErrorCode::Timeout, "expected a sign of life, got none"));
                    }
                    pinged = Instant::now();
                    peer.send(Message::Ping(bytes::Bytes::new())).await?;
                }
            }
        }
    }

    /// The server stops: what was accepted is answered, nothing new is read.
    async fn finish(&mut self, peer: &mut Peer<'_>) -> Result<End, End> {
        peer.say(restarting(peer.limits)).await?;
        while self.in_flight > 0 {
            // This half of the lesson holds a sender, so that the channel stays open.
            let Some(answer) = self.answers.recv().await else { break };
            self.pass_on(peer, answer).await?;
        }
        if self.submissions.as_ref().is_some_and(Submissions::busy) {
            let said = written(&mut self.submissions).await;
            peer.say(said).await?;
        }
        Ok(End::Restarting)
    }

    async fn hear(&mut self, peer: &mut Peer<'_>, message: Message) -> Result<Option<End>, End> {
        let refusal = match message {
            Message::Binary(frame) if frame.first() == Some(&(Kind::Submit as u8)) => {
                self.take_submission(peer.limits, &frame).err()
            }
            Message::Binary(frame) => self.take(peer.limits, &frame).err(),
            Message::Text(text) => match ClientMessage::decode(&text) {
                Ok(ClientMessage::Bye) => return Ok(Some(End::Bye)),
                Ok(ClientMessage::Stage(_)) => None,
                Ok(ClientMessage::Hello(_)) => {
                    let message = "expected states, stage or bye, got a second hello";
                    Some(ServerMessage::Error(ErrorMessage::new(ErrorCode::BadMessage, message)))
                }
                Err(error) => Some(ServerMessage::Error(error.into())),
            },
            // Pings are answered by tungstenite; a pong was all that was wanted.
            _ => None,
        };
        let Some(refusal) = refusal else { return Ok(None) };
        if let ServerMessage::Error(error) = &refusal {
            self.refusals += 1;
            if self.refusals > peer.limits.refusals {
                return Err(error.clone().about(None).into());
            }
        }
        peer.say(refusal).await?;
        Ok(None)
    }

    /// Takes a frame of states, or says why not.
    fn take(&mut self, limits: &Limits, frame: &[u8]) -> Result<(), ServerMessage> {
        let id = Header::request_of(frame);
        let refuse = |error: ErrorMessage| ServerMessage::Error(error.about(id));
        let states = self.formats.states.decode(frame, self.max_rows.into()).map_err(|e| refuse(e.into()))?;
        let Ids { request, policy, .. } = states.header().ids;
        if policy != self.teacher.id {
            let message = format!("expected a frame for policy {}, got one for {policy}", self.teacher.id);
            return Err(refuse(ErrorMessage::new(ErrorCode::UnknownPolicy, message)));
        }
        let dropped = ServerMessage::Overloaded(Overloaded {
            request: Some(request),
            retry_ms: milliseconds(limits.retry),
        });
        if self.in_flight >= limits.credits.max(1) {
            return Err(dropped);
        }
        let (rows, width) = (states.rows(), self.teacher.info.observation.width());
        let mut observations = vec![0.0; rows * width];
        for (row, teacher) in observations.chunks_exact_mut(width).enumerate() {
            states.read_row(row, &mut self.observation);
            self.plan.observation(&self.observation, teacher).map_err(|e| refuse(e.into()))?;
        }
        match self.teacher.ask(Request { id: request, rows, observations, reply: self.reply.clone() }) {
            Ok(()) => {
                self.in_flight += 1;
                Ok(())
            }
            Err(NotTaken::Full) => Err(dropped),
            Err(NotTaken::Gone) => {
                let message = "expected the policy to run, it does not any more";
                Err(refuse(ErrorMessage::new(ErrorCode::Internal, message)))
            }
        }
    }

    /// Takes a frame of transitions, or says why not.
    fn take_submission(&mut self, limits: &Limits, frame: &[u8]) -> Result<(), ServerMessage> {
        let Some(submissions) = &mut self.submissions else {
            let message = "expected states, got a submission: there is no grant \"submit\" here";
            let error = ErrorMessage::new(ErrorCode::Forbidden, message).about(Header::request_of(frame));
            return Err(ServerMessage::Error(error));
        };
        submissions.take(frame).map_err(|not_taken| match not_taken {
            submit::NotTaken::Busy(request) => ServerMessage::Overloaded(Overloaded {
                request: Some(request),
                retry_ms: milliseconds(limits.retry),
            }),
            submit::NotTaken::Refused(error) => ServerMessage::Error(error),
        })
    }

    /// Sends an answer, in the student's own actions.
    async fn pass_on(&mut self, peer: &mut Peer<'_>, answer: Answer) -> Result<(), End> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let frame = match answer.actions {
            Ok(actions) => self.encode(answer.id, answer.version, &actions),
            Err(error) => Err(error),
        };
        match frame {
            Ok(frame) => peer.send(Message::binary(frame)).await,
            Err(error) => peer.say(ServerMessage::Error(error.about(Some(answer.id)))).await,
        }
    }

    fn encode(&mut self, request: u32, version: u32, actions: &[f32]) -> Result<Vec<u8>, ErrorMessage> {
        let space = self.plan.teacher_action();
        let mut frame = Vec::new();
        let mut writer =
            self.formats.actions.writer(Ids { request, policy: self.teacher.id, version }, &mut frame);
        for row in actions.chunks_exact(space.width()) {
            let answer = self.plan.action(action(space, row), &mut self.action)?;
            // Only a number too large for the agreed dtype gets here.
            writer.action(answer).map_err(|e| ErrorMessage::new(ErrorCode::PolicyFailed, e.to_string()))?;
        }
        writer.finish()?;
        Ok(frame)
    }
}

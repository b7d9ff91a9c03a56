//! Students that ask, and account for every request: each ends in one answer, one error, one `overloaded` or with its
//! connection, within a time. Some never read.

use crate::book::{Shared, now};
use crate::policies::boxed;
use crate::window::{Windowed, Windows};
use crate::world::{PORT, SERVER, chance};
use futures_util::{SinkExt, StreamExt};
use oto_env::rng::Rng;
use oto_proto::{
    Action, ClientMessage, Dtype, ErrorCode, ErrorMessage, Formats, Grant, Hello, Ids, PROTOCOL, Place,
    ServerMessage, Space, Welcome,
};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use turmoil::net::TcpStream;

/// Longer than anything takes where nothing is lost.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A student's socket.
pub type Socket = WebSocketStream<Windowed>;

/// Connects.
///
/// # Errors
/// If there is no server, or it refuses.
pub async fn connect(windows: &Windows) -> Result<Socket, Error> {
    let stream = windows.wrap(TcpStream::connect((SERVER, PORT)).await?)?;
    let mut request = format!("ws://{SERVER}/v1/teach").into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", PROTOCOL.parse()?);
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

/// An introduction.
pub fn hello(policy: &str, student: &str, observation: Space, action: Space) -> Hello {
    Hello {
        protocol: PROTOCOL.into(),
        policy: policy.into(),
        student: student.into(),
        observation,
        action,
        adapter: None,
        dtype: Dtype::F32,
        action_dtype: None,
        quantization: None,
        grants: vec![Grant::Actions, Grant::Submit],
        stage: None,
        order: None,
        ticket: None,
        actor: None,
        worker: None,
        member: None,
    }
}

/// A student that asks.
pub struct Asker {
    /// Its number.
    pub index: usize,
    /// Everyone's book.
    pub book: Shared,
    /// Everyone's connections.
    pub windows: Windows,
    /// Its chance.
    pub rng: Rng,
    /// It does not read what it asked for until much later.
    pub sloth: bool,
    /// It asks a recurrent policy, and says where its states stand.
    pub recurrent: bool,
}

/// What a request is to be answered with.
enum Expected {
    /// Actions for these states, twice the state and the version, or the state many times.
    Actions(Vec<f32>),
    /// Actions with these sums, and the version.
    Sums(Vec<f32>),
    /// An error: it was none.
    Error,
}

/// What one connection came to.
struct Visit {
    opened: Duration,
    formats: Formats,
    ids: Ids,
    /// What is asked and not answered, and since when.
    open: BTreeMap<u32, (Instant, Expected)>,
    /// When the server said that it stops.
    leaving: Option<Instant>,
}

impl Asker {
    /// Comes again and again.
    ///
    /// # Errors
    /// Whatever no server may do.
    pub async fn live(mut self) -> turmoil::Result {
        loop {
            sleep(chance(&mut self.rng, 1, 800)).await;
            let opened = now();
            let Ok(Ok(mut socket)) = timeout(PATIENCE, connect(&self.windows)).await else { continue };
            let Some((formats, welcome)) = self.greet(&mut socket).await? else { continue };
            self.book.count(|counts| counts.connections += 1);
            self.note("came");
            let ids = Ids { request: 0, policy: welcome.policy_id, version: welcome.version };
            let mut visit = Visit { opened, formats, ids, open: BTreeMap::new(), leaving: None };
            let result = match self.sloth {
                true => self.sleeps(&mut socket, &mut visit).await,
                false => self.asks(&mut socket, &mut visit, welcome.credits).await,
            };
            drop(socket);
            self.note(format!("went, {} open", visit.open.len()));
            self.book.count(|counts| counts.closes += visit.open.len() as u64);
            result?;
        }
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.book.note(now(), format!("student {} {what}", self.index));
    }

    /// Says `hello` and reads `welcome`; none if it came to nothing.
    async fn greet(&mut self, socket: &mut Socket) -> turmoil::Result<Option<(Formats, Welcome)>> {
        let (policy, observation, action) = match self.sloth {
            true => ("wide", boxed(1), boxed(64)),
            false => (if self.recurrent { "sums" } else { "number" }, boxed(4), boxed(2)),
        };
        let hello = hello(policy, &format!("asker {}", self.index), observation, action);
        let hello = Hello { order: self.recurrent.then_some(true), ..hello };
        let mut formats = hello.formats()?;
        if self.recurrent {
            formats.states = formats.states.ordered();
        }
        let said = Message::text(ClientMessage::Hello(Box::new(hello)).encode());
        let answer = async {
            socket.send(said).await.ok()?;
            loop {
                match socket.next().await?.ok()? {
                    Message::Text(text) => return Some(ServerMessage::decode(&text)),
                    Message::Close(_) => return None,
                    _ => {}
                }
            }
        };
        match timeout(PATIENCE, answer).await {
            Ok(Some(Ok(ServerMessage::Welcome(welcome)))) => Ok(Some((formats, *welcome))),
            // It stops, or takes no more.
            Ok(Some(Ok(ServerMessage::Restarting(_) | ServerMessage::Overloaded(_))) | None) | Err(_) => {
                Ok(None)
            }
            // Its hello was held up.
            Ok(Some(Ok(ServerMessage::Error(ErrorMessage { code: ErrorCode::Timeout, .. })))) => Ok(None),
            Ok(Some(other)) => Err(format!("expected welcome, got {other:?}").into()),
        }
    }

    /// Asks and reads until the connection ends, by whomever.
    async fn asks(&mut self, socket: &mut Socket, visit: &mut Visit, credits: u16) -> turmoil::Result {
        let busy = usize::from(credits) + 2;
        let mut next = Instant::now();
        loop {
            let waiting = visit.open.values().map(|(since, _)| *since).chain(visit.leaving);
            let given_up = waiting.min().unwrap_or(next) + PATIENCE;
            tokio::select! {
                biased;
                heard = socket.next() => match heard {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                    Some(Ok(message)) => self.hear(visit, &message)?,
                },
                () = sleep_until(given_up) => return self.give_up(visit),
                () = sleep_until(next) => {
                    next = Instant::now() + chance(&mut self.rng, 1, 150);
                    if visit.leaving.is_some() || visit.open.len() >= busy {
                        continue;
                    }
                    let message = match self.rng.below(400) {
                        // It vanishes.
                        0 => return Ok(()),
                        1 => Message::text(ClientMessage::Bye.encode()),
                        2 => Message::Close(None),
                        _ => self.ask(visit)?,
                    };
                    match timeout(PATIENCE, socket.send(message)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return Ok(()),
                        Err(_) => return self.give_up(visit),
                    }
                }
            }
        }
    }

    /// Only where something was lost may a request have no end.
    fn give_up(&self, visit: &Visit) -> turmoil::Result {
        if self.book.was_cut(self.index, visit.opened) {
            return Ok(());
        }
        let open: Vec<_> = visit.open.keys().collect();
        let what = if visit.leaving.is_some() { "it does not stop" } else { "it does not answer" };
        Err(format!("student {}: nothing was lost, and {what}: {open:?}", self.index).into())
    }

    /// A request, or something that is none.
    fn ask(&mut self, visit: &mut Visit) -> turmoil::Result<Message> {
        visit.ids.request += 1;
        let rows = 1 + self.rng.below(32);
        let states: Vec<f32> = (0..rows).map(|_| self.rng.below(1 << 18) as f32).collect();
        let mut frame = Vec::new();
        let mut writer = visit.formats.states.writer(visit.ids, &mut frame);
        // A request begins an episode, so that what became of the one before makes no difference; in the middle it skips a state, or begins
        // another one.
        let (mut sums, mut sum, mut number) = (Vec::new(), 0.0, u64::from(self.rng.below(1 << 20)));
        for (row, state) in states.iter().enumerate() {
            let (begins, skips) = (row == 0 || self.rng.below(8) == 0, self.rng.below(8) == 0);
            number += 1 + u64::from(skips);
            sum = if begins || skips { *state } else { sum + state };
            sums.push(sum);
            writer.state_at(Place::new(number, begins), &[*state, 0.0, 0.0, 1.0])?;
        }
        writer.finish()?;
        let mut expected = Expected::Error;
        let first = if self.recurrent { 20 } else { 16 };
        match self.rng.below(30) {
            0 => frame.truncate(frame.len() - 1),
            1 => frame[8] ^= 0xff,
            2 => frame[first..first + 4].copy_from_slice(&f32::NAN.to_le_bytes()),
            _ if self.recurrent => expected = Expected::Sums(sums),
            _ => expected = Expected::Actions(states),
        }
        visit.open.insert(visit.ids.request, (Instant::now(), expected));
        self.book.count(|counts| counts.requests += 1);
        Ok(Message::binary(frame))
    }

    fn hear(&mut self, visit: &mut Visit, message: &Message) -> turmoil::Result {
        let who = self.index;
        let mut ends = |request: u32| match visit.open.remove(&request) {
            Some((_, expected)) => {
                self.book.open().answered.insert(who, now());
                Ok(expected)
            }
            None => Err(format!("student {who}: an answer to {request}, which has one or was not asked")),
        };
        match message {
            Message::Binary(frame) => {
                let actions = visit.formats.actions.decode(frame, usize::from(u16::MAX))?;
                let Ids { request, version, .. } = actions.header().ids;
                let (states, factor) = match ends(request)? {
                    Expected::Actions(states) => (states, 2.0),
                    Expected::Sums(sums) => (sums, 1.0),
                    Expected::Error => {
                        let message = format!("student {who}: actions for {request}, which was no request");
                        return Err(message.into());
                    }
                };
                if version < visit.ids.version || actions.rows() != states.len() {
                    return Err(format!("student {who}: version {version}, {} rows", actions.rows()).into());
                }
                visit.ids.version = version;
                let mut numbers = vec![0.0; visit.formats.actions.width()];
                for (row, state) in states.iter().enumerate() {
                    let Action::Continuous(action) = actions.get(row, &mut numbers) else { unreachable!() };
                    let right = match self.sloth {
                        true => action.iter().all(|number| number == state),
                        false => action == [state * factor, version as f32],
                    };
                    if !right {
                        return Err(
                            format!("student {who}: {action:?} for {state}, version {version}").into()
                        );
                    }
                }
                self.note(format!("got {request} of version {version}"));
                self.book.count(|counts| counts.replies += 1);
            }
            Message::Text(text) => match ServerMessage::decode(text)? {
                ServerMessage::Error(ErrorMessage { request: Some(request), code, .. }) => {
                    if !matches!(ends(request)?, Expected::Error) {
                        return Err(format!("student {who}: {code:?} for {request}, which was sound").into());
                    }
                    self.note(format!("was refused {request}"));
                    self.book.count(|counts| counts.errors += 1);
                }
                // The connection ends, and the close says so.
                ServerMessage::Error(_) => {}
                ServerMessage::Overloaded(overloaded) => {
                    if let Some(request) = overloaded.request {
                        ends(request)?;
                        self.note(format!("was put off {request} for {}", overloaded.retry_ms));
                        self.book.count(|counts| counts.overloaded += 1);
                    }
                }
                ServerMessage::Published(published) => {
                    if published.version <= visit.ids.version {
                        return Err(format!("student {who}: version {} is no news", published.version).into());
                    }
                    visit.ids.version = published.version;
                    self.book.count(|counts| counts.versions += 1);
                }
                ServerMessage::Restarting(_) => visit.leaving = Some(Instant::now()),
                other => return Err(format!("student {who}: {other:?} at the wrong time").into()),
            },
            _ => {}
        }
        Ok(())
    }

    /// Asks for much and reads nothing, and then whatever is left. Meanwhile the server has had enough.
    async fn sleeps(&mut self, socket: &mut Socket, visit: &mut Visit) -> turmoil::Result {
        let wakes = Instant::now() + chance(&mut self.rng, 3_000, 6_000);
        let mut stalled = false;
        while Instant::now() < wakes {
            sleep(chance(&mut self.rng, 50, 200)).await;
            let sent = if stalled {
                timeout_at(wakes, socket.flush()).await
            } else {
                let message = self.ask_widely(visit)?;
                timeout(Duration::from_millis(100), socket.send(message)).await
            };
            match sent {
                Ok(Ok(())) => stalled = false,
                Ok(Err(_)) => break,
                Err(_) => stalled = true,
            }
        }
        self.note("wakes up");
        while !visit.open.is_empty() {
            match timeout(PATIENCE, socket.next()).await {
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => {
                    self.book.count(|counts| counts.slow += 1);
                    return Ok(());
                }
                Ok(Some(Ok(message))) => self.hear(visit, &message)?,
                Err(_) => return self.give_up(visit),
            }
        }
        Ok(())
    }

    fn ask_widely(&mut self, visit: &mut Visit) -> turmoil::Result<Message> {
        visit.ids.request += 1;
        let states = vec![self.rng.below(1 << 20) as f32; 200];
        let mut frame = Vec::new();
        let mut writer = visit.formats.states.writer(visit.ids, &mut frame);
        states.iter().try_for_each(|state| writer.state(&[*state]))?;
        writer.finish()?;
        visit.open.insert(visit.ids.request, (Instant::now(), Expected::Actions(states)));
        self.book.count(|counts| counts.requests += 1);
        Ok(Message::binary(frame))
    }
}

//! The conversation with one student: `hello` and `welcome`, then states up and actions down until one side ends it.
//!
//! One task does it all, so that the server reads nothing from a student that does not read, until its
//! deadline. Specified in `PROTOCOL.md` of `oto-proto`.

use crate::auth::access::{Entered, Principal};
use crate::auth::budget::{Account, Bucket, Held, Rate};
use crate::net::limits::Limits;
use crate::net::peer::{End, Peer, refused};
use crate::net::stopping::Stopping;
use crate::observe::metrics::Metrics;
use crate::observe::spans::Traced;
use crate::serve::admission::{Caller, Server};
use crate::serve::edge::{self, EdgeSession};
use crate::serve::hidden_state::{self, Order, Stream};
use crate::serve::member::{self, MemberSession};
use crate::serve::pauses::{impatient, overloaded, restarting};
use crate::serve::policies::Teacher;
use crate::serve::queue::{self, Answer, NotTaken, Request, Said};
use crate::serve::rows::Asks;
use crate::serve::silence::Silence;
use crate::serve::submit::{self, Submissions};
use crate::serve::worker::{self, WorkerSession};
use futures_util::FutureExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use oto_policy::action;
use oto_proto::message::Published;
use oto_proto::{
    ClientMessage, ErrorCode, ErrorMessage, Formats, Grant, Header, Hello, Ids, Kind, Plan, ServerMessage,
    Space, Welcome,
};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use tracing::debug;

/// Teaches one student until it leaves, misbehaves or the server stops.
pub(crate) async fn teach(io: TokioIo<Upgraded>, server: &Server, caller: Caller, stopping: &Stopping) {
    let account = server.stranger(&caller);
    let mut peer = Peer::new(io, &server.config.limits, server.metrics(), account).await;
    let end = match greet(&mut peer, server, &caller, stopping).await {
        Ok(Guest::Student(mut session)) => {
            let _counted = server.metrics().student();
            let _enrolled = caller.share.enrol();
            session.hold(&mut peer, stopping).await.unwrap_or_else(|end| end)
        }
        Ok(Guest::Edge(mut session)) => {
            let _enrolled = caller.share.enrol();
            session.hold(&mut peer, stopping).await.unwrap_or_else(|end| end)
        }
        Ok(Guest::Member(mut session)) => {
            let _enrolled = caller.share.enrol();
            session.hold(&mut peer, stopping).await.unwrap_or_else(|end| end)
        }
        Ok(Guest::Worker(mut session)) => {
            let _enrolled = caller.share.enrol();
            session.hold(&mut peer, stopping).await.unwrap_or_else(|end| end)
        }
        Err(end) => end,
    };
    if let Some(reason) = end.reason() {
        server.metrics().dropped(reason);
    }
    debug!(address = %caller.address, reason = end.reason(), "a student goes");
    peer.dismiss(end).await;
}

/// Who said `hello`. All are on the heap: an idle peer keeps what it needs.
enum Guest {
    Student(Box<Session>),
    Edge(Box<EdgeSession>),
    Worker(Box<WorkerSession>),
    Member(Box<MemberSession>),
}

/// Waits for `hello` and answers it.
async fn greet(
    peer: &mut Peer<'_>,
    server: &Server,
    caller: &Caller,
    stopping: &Stopping,
) -> Result<Guest, End> {
    let mut deadline = pin!(sleep(peer.limits.hello_timeout));
    let mut patience = Bucket::new(PATIENCE);
    let hello = loop {
        let message = tokio::select! {
            biased;
            () = stopping.begun() => {
                peer.say(restarting(peer.limits)).await?;
                return Err(End::Restarting);
            }
            () = &mut deadline => return Err(refused(ErrorCode::Timeout, "expected hello in time, got none")),
            message = peer.receive() => message?,
        };
        match message {
            Message::Text(text) => match server.decode(text, caller).await? {
                ClientMessage::Hello(hello) => break hello,
                ClientMessage::Bye => return Err(End::Bye),
                ClientMessage::Stage(_) => {
                    return Err(refused(ErrorCode::BadMessage, "expected hello, got stage"));
                }
                ClientMessage::Applied(_) | ClientMessage::Refused(_) | ClientMessage::Dropped(_) => {
                    return Err(refused(ErrorCode::BadMessage, "expected hello, got a message of an actor"));
                }
            },
            Message::Binary(_) => {
                return Err(refused(ErrorCode::BadMessage, "expected hello, got a binary frame"));
            }
            _ => patience.spend(1.0).map_err(impatient)?,
        }
    };
    let (guest, principal, welcome) = match (edge::learner(&hello, server), &hello.actor) {
        (Some(learner), Some(actor)) => {
            let (session, welcome) = EdgeSession::agree(&hello, actor, learner, server, caller).await?;
            let principal = session.principal.clone();
            (Guest::Edge(session.into()), principal, welcome)
        }
        _ => match worker::share(&hello, server) {
            Some((share, own)) => {
                let (session, welcome) = WorkerSession::agree(&hello, own, share, server, caller).await?;
                let principal = session.principal.clone();
                (Guest::Worker(session.into()), principal, welcome)
            }
            None => match member::group(&hello, server) {
                Some((group, own)) => {
                    let (session, welcome) = MemberSession::agree(&hello, &own, group, server, caller)?;
                    let principal = session.principal.clone();
                    (Guest::Member(session.into()), principal, welcome)
                }
                None => {
                    let (session, welcome) = Session::agree(&hello, server, caller)?;
                    let principal = session.principal.clone();
                    (Guest::Student(session.into()), principal, welcome)
                }
            },
        },
    };
    caller.share.belongs_to(principal.payer(caller.address));
    peer.greeted(server.account(&principal, caller, READING_BYTES));
    peer.say(ServerMessage::Welcome(Box::new(welcome))).await?;
    Ok(guest)
}

/// Control messages and pings of one student, and requests that it may not make: so many at once, and of each second. They cost it
/// nothing but work of the server.
const PATIENCE: Rate = Rate { per_second: 4.0, most: 64.0 };
/// What a student may have held without a share of what all have: for a message that comes, and for requests until they are answered.
const READING_BYTES: usize = 16 << 10;
const ASKING_BYTES: usize = 32 << 10;
/// After so many bytes of messages others go first.
const TURN_BYTES: usize = 64 << 10;

/// Numbers of a large request, or of its answer, between two yields.
const GO_NUMBERS: usize = 8 << 10;

/// Rows of this many numbers between two yields.
fn rows_between(numbers: usize) -> usize {
    (GO_NUMBERS / numbers.max(1)).max(1)
}

/// What there is to say of a submission that was written; never, where none is.
async fn written(submissions: &mut Option<Submissions>) -> ServerMessage {
    match submissions {
        Some(submissions) => submissions.written().await,
        None => std::future::pending().await,
    }
}

/// What a student asks its teacher for: actions, or logits if its `hello` has that grant.
fn asks(hello: &Hello, principal: &Principal) -> Result<Asks, End> {
    match hello.grants.contains(&Grant::Logits) {
        false => Ok(Asks::Actions),
        true if principal.may(Grant::Logits) => Ok(Asks::Logits),
        true => Err(refused(ErrorCode::Forbidden, "expected the grant \"logits\", this student has none")),
    }
}

/// The space of a teacher's answers: its actions, or a number for each of its actions.
fn answers(asks: Asks, action: &Space) -> Result<Space, End> {
    match (asks, action) {
        (Asks::Actions, action) => Ok(action.clone()),
        (Asks::Logits, Space::Discrete { n }) => {
            Ok(Space::uniform(*n as usize, f32::NEG_INFINITY, f32::INFINITY))
        }
        (Asks::Logits, Space::Box { .. }) => {
            let message = "expected a policy of discrete actions for logits, got one of continuous actions";
            Err(refused(ErrorCode::SpaceMismatch, message))
        }
    }
}

/// What was agreed with a student, and what is under way.
struct Session {
    teacher: Teacher,
    principal: Arc<Principal>,
    /// Counts this connection as the principal's.
    _entered: Entered,
    /// The newest version that the student was told of.
    version: u32,
    /// Its state, if the policy is recurrent.
    stream: Option<Arc<Stream>>,
    asks: Asks,
    plan: Plan,
    formats: Formats,
    max_rows: u16,
    reply: mpsc::Sender<Answer>,
    answers: mpsc::Receiver<Answer>,
    in_flight: u16,
    /// When the requests came whose answers were added and not sent, their spans, which end then, and their room.
    added: Vec<(Instant, Option<Box<Traced>>, Option<Held>)>,
    /// Room for its requests.
    account: Account,
    patience: Bucket,
    /// How long it ought to have waited instead of asking what it may not, beyond all patience.
    beyond: Option<Duration>,
    /// There if it was granted.
    submissions: Option<Submissions>,
    refusals: u32,
    /// One observation and one action of the student.
    observation: Vec<f32>,
    action: Vec<f32>,
}

impl Session {
    fn agree(hello: &Hello, server: &Server, caller: &Caller) -> Result<(Session, Welcome), End> {
        let config = &server.config;
        let limits = &config.limits;
        let mut formats = hello.formats()?;
        let (principal, entered) = server.admit(hello, caller)?;
        let teacher = config.policies.teacher(&hello.policy, &hello.observation, &hello.action)?;
        let recurrent = teacher.state_width() > 0;
        if recurrent && hello.order != Some(true) {
            let message = format!(
                "policy {:?} is recurrent: expected a student that says where its states stand (\"order\": true), got one that does not",
                hello.policy
            );
            return Err(refused(ErrorCode::NotSupported, message));
        }
        let info = &teacher.info;
        let adapter = hello.adapter.clone().unwrap_or_default();
        let asks = asks(hello, &principal)?;
        if recurrent && asks == Asks::Logits {
            let message = format!(
                "policy {:?} is recurrent: expected a request for its actions, got one for logits",
                hello.policy
            );
            return Err(refused(ErrorCode::NotSupported, message));
        }
        let given = answers(asks, &info.action)?;
        let plan = adapter.check(&hello.observation, &hello.action, &info.observation, &given)?;
        // An adapter may repeat components, so that the teacher's observations are the largest.
        let widest =
            [formats.states.width(), info.observation.width(), given.width(), formats.actions.width()];
        let widest = widest.into_iter().max().unwrap_or(1);
        // A place takes no more than a component.
        let max_rows = limits.rows_of(widest + usize::from(recurrent));
        let max_rows = if recurrent { max_rows.min(hidden_state::MAX_ROWS) } else { max_rows };
        if max_rows == 0 {
            let message =
                format!("expected rows of at most {} bytes, got {}", limits.message_bytes, 4 * widest);
            return Err(refused(ErrorCode::TooLarge, message));
        }
        let credits = limits.credits.max(1);
        let submissions = Some(&config.collecting)
            .filter(|_| asks == Asks::Actions && principal.may(Grant::Submit))
            .and_then(|collecting| {
                Submissions::grant(hello, &formats, info, teacher.id, collecting, limits.message_bytes)
            });
        if recurrent {
            formats.states = formats.states.ordered();
        }
        let version = teacher.version();
        let mut grants = vec![if asks == Asks::Actions { Grant::Actions } else { Grant::Logits }];
        grants.extend(submissions.as_ref().map(|_| Grant::Submit));
        let welcome = Welcome {
            policy: hello.policy.clone(),
            policy_id: teacher.id,
            version,
            max_rows,
            credits,
            dtype: formats.states.dtype(),
            action_dtype: formats.actions.dtype(),
            action_width: u32::try_from(formats.actions.width()).unwrap_or(u32::MAX),
            grants,
            submit_rows: submissions.as_ref().map(|submissions| submissions.max_rows),
            learner: None,
            shared: None,
            order: recurrent.then_some(true),
            group: None,
            teacher: info.clone(),
        };
        let (reply, answers) = mpsc::channel(credits.into());
        let (observation, action) = (vec![0.0; formats.states.width()], vec![0.0; hello.action.width()]);
        let (in_flight, refusals) = (0, 0);
        let account = server.account(&principal, caller, ASKING_BYTES);
        let stream = match teacher.state_width() {
            0 => None,
            width => {
                // The state, and its copy while a batch is computed.
                let held = account.take(8 * width).ok_or(End::Overloaded(limits.retry, "bytes"))?;
                Some(Stream::new(width, held))
            }
        };
        let session = Session {
            teacher,
            principal,
            _entered: entered,
            version,
            stream,
            asks,
            plan,
            formats,
            max_rows,
            reply,
            answers,
            in_flight,
            added: Vec::new(),
            account,
            patience: Bucket::new(PATIENCE),
            beyond: None,
            submissions,
            refusals,
            observation,
            action,
        };
        Ok((session, welcome))
    }

    /// Answers until the end.
    async fn hold(&mut self, peer: &mut Peer<'_>, stopping: &Stopping) -> Result<End, End> {
        let mut silence = Silence::new(peer.limits);
        let mut alarm = pin!(sleep_until(silence.ends()));
        loop {
            tokio::select! {
                biased;
                () = stopping.begun() => return self.finish(peer).await,
                Some(answer) = self.answers.recv() => {
                    self.pass_on(peer, answer).await?;
                    self.pass_on_rest(peer).await?;
                }
                said = written(&mut self.submissions) => peer.say(said).await?,
                () = self.teacher.published() => self.tell_version(peer).await?,
                message = peer.receive() => {
                    silence.broken();
                    let heard = self.hear_all(peer, message).await;
                    // What is answered already leaves together, and before whatever ends this.
                    let passed = self.pass_on_rest(peer).await;
                    if let Some(end) = heard? {
                        return Ok(end);
                    }
                    passed?;
                    // A student with more requests lets others go first.
                    yield_now().await;
                }
                () = &mut alarm => {
                    if silence.alarm()? {
                        peer.send(Message::Ping(bytes::Bytes::new())).await?;
                    }
                    alarm.as_mut().reset(silence.ends());
                }
            }
        }
    }

    /// Tells of a version, after all answers of the ones before it.
    async fn tell_version(&mut self, peer: &mut Peer<'_>) -> Result<(), End> {
        let version = self.teacher.version();
        self.pass_on_rest(peer).await?;
        if version > self.version {
            self.version = version;
            peer.say(ServerMessage::Published(Published { version })).await?;
        }
        Ok(())
    }

    /// The server stops: what was accepted is answered, nothing new is read.
    async fn finish(&mut self, peer: &mut Peer<'_>) -> Result<End, End> {
        peer.say(restarting(peer.limits)).await?;
        while self.in_flight > 0 {
            // This half of the session holds a sender, so that the channel stays open.
            let Some(answer) = self.answers.recv().await else { break };
            self.pass_on(peer, answer).await?;
            self.pass_on_rest(peer).await?;
        }
        if self.submissions.as_ref().is_some_and(Submissions::busy) {
            let said = written(&mut self.submissions).await;
            peer.say(said).await?;
        }
        Ok(End::Restarting)
    }

    /// Takes in a message and those that came with it, no more than may be in flight.
    async fn hear_all(
        &mut self,
        peer: &mut Peer<'_>,
        mut message: Result<Message, End>,
    ) -> Result<Option<End>, End> {
        let mut bytes = 0;
        for _ in 1..peer.limits.credits.max(1) {
            let heard = message?;
            bytes += heard.len();
            if let Some(end) = self.hear(peer, heard).await? {
                return Ok(Some(end));
            }
            if bytes > TURN_BYTES {
                return Ok(None);
            }
            match peer.receive().now_or_never() {
                Some(next) => message = next,
                None => return Ok(None),
            }
        }
        self.hear(peer, message?).await
    }

    async fn hear(&mut self, peer: &mut Peer<'_>, message: Message) -> Result<Option<End>, End> {
        let refusal = match message {
            Message::Binary(frame) if frame.first() == Some(&(Kind::Submit as u8)) => {
                self.take_submission(peer, &frame).err()
            }
            Message::Binary(frame) => self.take(&frame, peer.limits, peer.metrics).await.err(),
            Message::Text(text) => match ClientMessage::decode(&text) {
                Ok(ClientMessage::Bye) => return Ok(Some(End::Bye)),
                Ok(ClientMessage::Stage(_)) => {
                    self.patience.spend(1.0).map_err(impatient)?;
                    None
                }
                Ok(ClientMessage::Applied(_) | ClientMessage::Refused(_) | ClientMessage::Dropped(_)) => {
                    let message =
                        "expected states, stage or bye, got a message of an actor: this is no learner";
                    Some(ServerMessage::Error(ErrorMessage::new(ErrorCode::Forbidden, message)))
                }
                Ok(ClientMessage::Hello(_)) => {
                    let message = "expected states, stage or bye, got a second hello";
                    Some(ServerMessage::Error(ErrorMessage::new(ErrorCode::BadMessage, message)))
                }
                Err(error) => Some(ServerMessage::Error(error.into())),
            },
            // Pings are answered by tungstenite; a pong was all that was wanted.
            _ => {
                self.patience.spend(1.0).map_err(impatient)?;
                None
            }
        };
        let Some(refusal) = refusal else { return Ok(None) };
        if let ServerMessage::Error(error) = &refusal {
            self.refusals += 1;
            peer.metrics.dropped("malformed");
            if self.refusals > peer.limits.refusals {
                return Err(error.clone().about(None).into());
            }
        }
        if let Some(pause) = self.beyond.take() {
            return Err(impatient(pause));
        }
        peer.say(refusal).await?;
        Ok(None)
    }

    /// Takes a frame of states, or says why not.
    async fn take(&mut self, frame: &[u8], limits: &Limits, metrics: &Metrics) -> Result<(), ServerMessage> {
        let came = Instant::now();
        let (id, traced) = (Header::request_of(frame), Traced::begin(self.teacher.name()));
        let refuse = |error: ErrorMessage| ServerMessage::Error(error.about(id));
        let states = self.formats.states.decode(frame, self.max_rows.into()).map_err(|e| refuse(e.into()))?;
        let Ids { request, policy, .. } = states.header().ids;
        if policy != self.teacher.id {
            let message = format!("expected a frame for policy {}, got one for {policy}", self.teacher.id);
            return Err(refuse(ErrorMessage::new(ErrorCode::UnknownPolicy, message)));
        }
        if self.in_flight >= limits.credits.max(1) {
            metrics.dropped("credits");
            self.beyond = self.patience.spend(1.0).err();
            return Err(overloaded(request, self.teacher.pause()));
        }
        if let Err(pause) = self.principal.spend(states.rows()) {
            metrics.dropped("quota");
            self.beyond = self.patience.spend(1.0).err();
            return Err(overloaded(request, pause));
        }
        let (rows, width) = (states.rows(), self.teacher.info.observation.width());
        // The frame of its answer stands beside the actions for a moment.
        let numbers = rows * (width + self.plan.teacher_action().width() + self.formats.actions.width());
        let Some(held) = self.account.take(4 * numbers) else {
            metrics.dropped("bytes");
            return Err(overloaded(request, limits.retry));
        };
        let mut observations = vec![0.0; rows * width];
        let between = rows_between(numbers / rows.max(1));
        for (row, teacher) in observations.chunks_exact_mut(width).enumerate() {
            if row % between == between - 1 {
                yield_now().await;
            }
            states.read_row(row, &mut self.observation);
            self.plan.observation(&self.observation, teacher).map_err(|e| refuse(e.into()))?;
        }
        let order = self.stream.as_ref().map(|stream| {
            let places = (0..rows).filter_map(|row| states.place(row)).collect();
            Box::new(Order { stream: stream.clone(), places })
        });
        let (reply, held) = (self.reply.clone(), Some(held));
        let asks = self.asks;
        let asked = Request { id: request, rows, came, observations, asks, reply, order, traced, held };
        match self.teacher.ask(asked, &limits.queue) {
            Ok(()) => {
                self.in_flight += 1;
                metrics.taken(rows);
                if asks == Asks::Logits {
                    metrics.logits(rows);
                }
                Ok(())
            }
            Err(NotTaken::Full(pause)) => {
                metrics.dropped("full");
                Err(overloaded(request, pause))
            }
            Err(NotTaken::Gone) => Err(refuse(queue::gone())),
        }
    }

    /// Takes a frame of transitions, or says why not.
    fn take_submission(&mut self, peer: &Peer<'_>, frame: &[u8]) -> Result<(), ServerMessage> {
        let Some(submissions) = &mut self.submissions else {
            let message = "expected states, got a submission: there is no grant \"submit\" here";
            let error = ErrorMessage::new(ErrorCode::Forbidden, message).about(Header::request_of(frame));
            return Err(ServerMessage::Error(error));
        };
        submissions.take(frame).map_err(|not_taken| match not_taken {
            submit::NotTaken::Busy(request) => overloaded(request, peer.limits.retry),
            submit::NotTaken::Refused(error) => ServerMessage::Error(error),
        })
    }

    /// Sends all answers that are there.
    async fn pass_on_rest(&mut self, peer: &mut Peer<'_>) -> Result<(), End> {
        while let Ok(answer) = self.answers.try_recv() {
            self.pass_on(peer, answer).await?;
        }
        peer.flush().await?;
        self.added.drain(..).for_each(|(came, _traced, _held)| peer.metrics.answered(came));
        Ok(())
    }

    /// Adds an answer, in the student's own actions, to what is sent next.
    async fn pass_on(&mut self, peer: &mut Peer<'_>, answer: Answer) -> Result<(), End> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let frame = match answer.said {
            Said::Actions { version, actions } => self.encode(answer.id, version, &actions).await,
            Said::Failed(error) => Err(*error),
            Said::Late(pause) => {
                peer.metrics.dropped("late");
                return peer.say(overloaded(answer.id, pause)).await;
            }
        };
        match frame {
            Ok(frame) => peer.add(Message::binary(frame)).await?,
            Err(error) => peer.say(ServerMessage::Error(error.about(Some(answer.id)))).await?,
        }
        self.added.push((answer.came, answer.traced, answer.held));
        Ok(())
    }

    async fn encode(&mut self, request: u32, version: u32, actions: &[f32]) -> Result<Vec<u8>, ErrorMessage> {
        let space = self.plan.teacher_action();
        let mut frame = Vec::new();
        let mut writer =
            self.formats.actions.writer(Ids { request, policy: self.teacher.id, version }, &mut frame);
        let between = rows_between(space.width() + self.formats.actions.width());
        for (number, row) in actions.chunks_exact(space.width()).enumerate() {
            if number % between == between - 1 {
                yield_now().await;
            }
            let answer = self.plan.action(action(space, row), &mut self.action)?;
            // Only a number too large for the agreed dtype gets here.
            writer.action(answer).map_err(|e| ErrorMessage::new(ErrorCode::PolicyFailed, e.to_string()))?;
        }
        writer.finish()?;
        Ok(frame)
    }
}

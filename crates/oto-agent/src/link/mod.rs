//! One student's conversation with one teacher, without input or output: events and the time go in, messages and the
//! next moment to wake up come out, labels are taken.
//!
//! Whoever owns a socket drives a [`Link`] like this:
//!
//! 1. give what happened to [`Link::handle`] (or [`Event::Tick`] when [`Link::wake_at`] has come),
//! 2. carry out every [`Output`] that [`Link::poll_output`] has, until it has none.
//!
//! [`tungstenite`] does so for native and WASI sockets, [`memory`] for a teacher in the same process.
//!
//! States are offered with the number of their replay slot. *Async*: with [`LinkConfig::delay_ms`] set the link batches
//! them by itself and [`Link::drain_labels`] hands out whatever has come. *Lockstep*: without it, [`Link::request_now`]
//! makes one request of everything offered and [`Link::take_labels`] says whether its labels are there.
//!
//! What a teacher sends is not trusted: an answer counts only if it belongs to a request in flight and has its number
//! of rows, a version that can be and actions inside the student's space. All else is counted, and the request is made
//! again. The link keeps a bounded number of states and requests and drops the oldest first.

pub(crate) mod connection;
#[cfg(test)]
pub(crate) mod faulty;
pub mod line;
pub mod memory;
mod queue;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod socket_tests;
pub mod stats;
#[cfg(test)]
mod tests;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod tungstenite;

pub use queue::Ticket;
pub use stats::{LinkStats, LinkStatus, Rejected};

use connection::{Connected, Connection, Counters, Limits};
use oto_env::rng::Rng;
use oto_proto::message::{Overloaded, Published, Restarting, StageEvent, Submitted};
use oto_proto::{
    Action, ActionFormat, BatchId, ClientMessage, Dtype, ErrorCode, ErrorMessage, Formats, FrameError, Grant,
    HEADER_BYTES, Header, Hello, Ids, MAX_CONTROL_BYTES, MessageError, Place, ServerMessage, Space,
    StateFormat, SubmissionWriter, TransitionFormat, Welcome,
};
use queue::{Pending, Request, Requests, Status};

/// Close code of a connection that ends as agreed (RFC 6455).
const CLOSE_NORMAL: u16 = 1000;
/// After so many breaches of the protocol a connection is given up.
const MAX_BREACHES: u32 = 3;
/// A request is made at most so many times.
const MAX_ATTEMPTS: u32 = 4;
/// A server's `retry_ms` is honoured within these limits: no pause at all would be a busy loop, a long one a stop.
const RETRY_MS: std::ops::RangeInclusive<u64> = 10..=60_000;
/// How long a submission may take to be acknowledged, in milliseconds: it is larger than a request and goes to a disk.
const SUBMIT_TIMEOUT_MS: u64 = 60_000;
/// The pause after a server could not keep a submission, in milliseconds.
const SUBMIT_PAUSE_MS: u32 = 1_000;

/// How a link behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkConfig {
    /// The introduction; its stage is kept up to date by [`Link::stage`].
    pub hello: Hello,
    /// Draws the randomness of waiting times.
    pub seed: u64,
    /// States in one request, at most; at least 1.
    pub batch: u16,
    /// Async: a smaller batch is sent after so many milliseconds. Lockstep: none, requests are made by the caller.
    pub delay_ms: Option<u64>,
    /// States kept that are in no request yet; at least 1.
    pub max_pending: usize,
    /// Requests kept, from the first attempt until their labels are taken; at least 2.
    pub max_requests: usize,
    /// How long a connection may take to open, in milliseconds, and how long a `welcome`.
    pub connect_timeout_ms: u64,
    /// How long an answer may take, in milliseconds.
    pub request_timeout_ms: u64,
    /// The wait before the second attempt to connect, in milliseconds; it doubles with each further one.
    pub backoff_min_ms: u64,
    /// The longest such wait, in milliseconds.
    pub backoff_max_ms: u64,
}

impl LinkConfig {
    /// Usual settings around an introduction. Wide states (pixels) are kept and asked for in smaller numbers, so that a
    /// link holds some 64 MiB of them at most and as much again in requests.
    pub fn new(hello: Hello) -> Self {
        let width = hello.observation.width().max(1);
        LinkConfig {
            hello,
            seed: 0,
            // The clamps make the cast exact.
            batch: ((1 << 18) / width).clamp(1, 64) as u16,
            delay_ms: None,
            max_pending: ((1 << 24) / width).clamp(1, 4096),
            max_requests: 64,
            connect_timeout_ms: 5_000,
            request_timeout_ms: 10_000,
            backoff_min_ms: 250,
            backoff_max_ms: 15_000,
        }
    }
}

/// Something that happened to the connection that the last [`Output::Connect`] asked for. Events of earlier
/// connections must not be given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// It is open, with the subprotocol `oto.v1`.
    Connected,
    /// A text frame came.
    Text(&'a str),
    /// A binary frame came.
    Binary(&'a [u8]),
    /// It could not be opened, or it ended.
    Closed {
        /// The WebSocket close code, if one came.
        code: Option<u16>,
        /// What is known, for people.
        reason: &'a str,
    },
    /// Only time has passed.
    Tick,
}

/// Something to do for the driver.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a connection; there is none.
    Connect,
    /// Send a text frame.
    Text(String),
    /// Send a binary frame.
    Binary(Vec<u8>),
    /// Close the connection, or stop opening it, and forget it.
    Close(u16),
}

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Switched off.
    Off,
    /// Waiting before it connects again.
    Waiting,
    /// Opening a connection.
    Connecting,
    /// `hello` was sent.
    Greeting,
    /// Asking and being answered.
    Ready,
    /// The teacher refused for good; connecting again needs [`Link::connect`].
    Failed,
}

oto_json::json_names! {
    LinkState {
        Off = "off", Waiting = "waiting", Connecting = "connecting", Greeting = "greeting", Ready = "ready", Failed = "failed"
    }
}

/// What [`Link::take_labels`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The labels were there and were handed out.
    Labels,
    /// Not yet.
    Waiting,
    /// They will never come: the request was given up, or its labels were taken before.
    Lost,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has it, and will.
    Kept,
    /// The server could not keep it; it may be sent again.
    Failed,
    /// The server does not want it.
    Refused,
}

/// The submission in flight.
#[derive(Clone, Copy, Debug)]
struct Submitting {
    batch: BatchId,
    wire: u32,
    deadline: u64,
}

/// A student's conversation with one teacher.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    formats: Formats,
    /// How states travel to a recurrent policy.
    ordered: StateFormat,
    transitions: TransitionFormat,
    connection: Connection,
    welcome: Option<Box<Welcome>>,
    /// The newest version this connection told of.
    version: u32,
    pending: Pending,
    /// When the oldest pending state was offered.
    pending_since: u64,
    requests: Requests,
    next_wire: u32,
    submitting: Option<Submitting>,
    submitted: Option<(BatchId, Outcome)>,
    stage: Option<StageEvent>,
    scratch: Vec<u8>,
    action: Vec<f32>,
    stats: LinkStats,
}

impl Link {
    /// A link that is switched off.
    ///
    /// # Errors
    /// If the introduction contradicts itself: what a server would refuse without looking at its teacher.
    pub fn new(config: LinkConfig) -> Result<Link, ErrorMessage> {
        let formats = config.hello.formats()?;
        if config.batch == 0 || config.max_pending == 0 || config.max_requests < 2 {
            let message = "a link needs batch and max_pending of at least 1 and max_requests of at least 2";
            return Err(ErrorMessage::new(ErrorCode::BadShape, message));
        }
        Ok(Link {
            connection: Connection::new(Limits {
                seed: config.seed,
                timeout_ms: config.connect_timeout_ms,
                backoff_ms: (config.backoff_min_ms, config.backoff_max_ms),
                breaches: MAX_BREACHES,
                replaced: false,
            }),
            welcome: None,
            version: 0,
            pending: Pending::new(formats.states.width(), config.max_pending),
            pending_since: 0,
            requests: Requests::new(config.max_requests),
            next_wire: 1,
            submitting: None,
            submitted: None,
            stage: None,
            scratch: Vec::new(),
            action: vec![0.0; formats.actions.width()],
            stats: LinkStats::default(),
            transitions: TransitionFormat::new(&formats, &config.hello.action),
            ordered: formats.states.clone().ordered(),
            formats,
            config,
        })
    }

    /// Switches the link on. Nothing happens if it is on already.
    pub fn connect(&mut self, now_ms: u64) {
        self.switch_on(now_ms);
    }

    /// Switches the link off. States and requests are kept for the next connection.
    pub fn disconnect(&mut self) {
        self.switch_off();
    }

    /// The ticket that the next `hello` shows; it is good for one.
    pub fn set_ticket(&mut self, ticket: String) {
        self.config.hello.ticket = Some(ticket);
    }

    /// The student's name from the next `hello` on.
    pub fn set_student(&mut self, name: &str) {
        self.config.hello.student = name.into();
    }

    /// The student entered a stage: the server is told now or with the next `hello`.
    pub fn stage(&mut self, stage: oto_proto::Stage, step: u64) {
        self.config.hello.stage = Some(stage);
        self.stage = Some(StageEvent { stage, step });
    }

    /// Offers a state without a label. The oldest states are dropped where too many wait.
    ///
    /// # Errors
    /// If the state has another width, or a component that is not finite in the agreed dtype.
    pub fn offer(&mut self, slot: u64, state: &[f32], now_ms: u64) -> Result<(), FrameError> {
        self.offer_step(slot, false, state, now_ms)
    }

    /// The same for a student that visits states in the order of their slots and knows where an episode begins: a recurrent policy has
    /// its answers from the states before.
    ///
    /// # Errors
    /// As [`Self::offer`].
    pub fn offer_step(
        &mut self,
        slot: u64,
        begins: bool,
        state: &[f32],
        now_ms: u64,
    ) -> Result<(), FrameError> {
        // A trial run of the codec: what is accepted here can be sent later.
        self.formats.states.writer(Ids::default(), &mut self.scratch).state(state)?;
        if self.pending.len() == 0 {
            self.pending_since = now_ms;
        }
        if !self.pending.push(slot, begins, state) {
            self.stats.states_dropped += 1;
        }
        self.pump(now_ms);
        Ok(())
    }

    /// Makes one request of the states offered so far (of the oldest, where a request cannot hold them all), whether
    /// or not there is a connection; it is sent as soon as there is one. None if no state was offered.
    pub fn request_now(&mut self, now_ms: u64) -> Option<Ticket> {
        let ticket = self.make_request(now_ms)?;
        self.pump(now_ms);
        Some(ticket)
    }

    /// Hands the labels of one request to `label` as replay slot, action and policy version, if they are there.
    pub fn take_labels(&mut self, ticket: Ticket, mut label: impl FnMut(u64, Action<'_>, u32)) -> Taken {
        match self.requests.get(ticket).map(|request| request.status) {
            None => Taken::Lost,
            Some(Status::Queued | Status::Flying { .. }) => Taken::Waiting,
            Some(Status::Done) => {
                if let Some(request) = self.requests.remove(ticket) {
                    hand_out(&self.formats.actions, &request, &mut label);
                    self.requests.recycle(request);
                }
                Taken::Labels
            }
        }
    }

    /// Hands all labels that have come to `label` as replay slot, action and policy version, in the order in which
    /// they were asked for.
    pub fn drain_labels(&mut self, mut label: impl FnMut(u64, Action<'_>, u32)) {
        while let Some(request) = self.requests.remove_done() {
            hand_out(&self.formats.actions, &request, &mut label);
            self.requests.recycle(request);
        }
    }

    /// How many transitions may be submitted now, in one batch: none without the grant, without a connection, while a
    /// batch is on its way or while the outcome of one waits in [`Link::take_submitted`].
    pub fn may_submit(&self, now_ms: u64) -> Option<u16> {
        let idle = self.submitting.is_none() && self.submitted.is_none() && self.connection.leaving.is_none();
        let ready = self.connection.is_ready() && now_ms >= self.connection.paused_until;
        self.welcome.as_ref().filter(|_| idle && ready)?.submit_rows
    }

    /// Whether the server might still take submissions: it granted them, or was not asked yet.
    pub fn hopes_to_submit(&self) -> bool {
        match self.connection.state {
            LinkState::Off | LinkState::Failed => false,
            LinkState::Ready => self.welcome.as_ref().is_some_and(|welcome| welcome.submit_rows.is_some()),
            LinkState::Waiting | LinkState::Connecting | LinkState::Greeting => true,
        }
    }

    /// Whether the server takes no submissions on this connection, though the student asked for the grant.
    pub fn refuses_submissions(&self) -> bool {
        let asked = self.config.hello.grants.contains(&Grant::Submit);
        asked && self.connection.is_ready() && !self.hopes_to_submit()
    }

    /// How submissions are encoded, for how many transitions fit so many bytes.
    pub fn transitions(&self) -> &TransitionFormat {
        &self.transitions
    }

    /// Sends a batch, if [`Link::may_submit`] says that it may be; what becomes of it is in [`Link::take_submitted`]. If
    /// the connection is lost before, nothing is known and the batch has to be submitted again under the same name.
    ///
    /// # Errors
    /// What `write` says, and if it writes nothing; then nothing was sent.
    pub fn submit(
        &mut self,
        batch: BatchId,
        write: impl FnOnce(&mut SubmissionWriter<'_>) -> Result<(), FrameError>,
        now_ms: u64,
    ) -> Result<(), FrameError> {
        if self.may_submit(now_ms).is_none() {
            return Ok(());
        }
        let wire = self.next_wire;
        let policy = self.welcome.as_ref().map_or(0, |welcome| welcome.policy_id);
        let ids = Ids { request: wire, policy, version: self.version };
        let mut frame = Vec::new();
        let mut writer = self.transitions.writer(ids, batch, &mut frame);
        write(&mut writer)?;
        let rows = writer.finish()?;
        self.next_wire = self.next_wire.wrapping_add(1);
        let deadline = now_ms.saturating_add(SUBMIT_TIMEOUT_MS);
        self.submitting = Some(Submitting { batch, wire, deadline });
        self.stats.transitions_sent += rows as u64;
        self.stats.bytes_up += frame.len() as u64;
        self.connection.outputs.push_back(Output::Binary(frame));
        Ok(())
    }

    /// What became of the batch that was submitted last, once it is known.
    pub fn take_submitted(&mut self) -> Option<(BatchId, Outcome)> {
        self.submitted.take()
    }

    /// Takes in what happened and how late it is, on a clock of the caller's that never runs backwards.
    pub fn handle(&mut self, event: Event<'_>, now_ms: u64) {
        match event {
            Event::Connected => self.greet(now_ms),
            Event::Text(text) => self.read_text(text, now_ms),
            Event::Binary(frame) => self.read_frame(frame, now_ms),
            Event::Closed { code, reason } => self.closed(code, reason, now_ms),
            Event::Tick => {}
        }
        self.tick(now_ms);
        self.leave_when_answered(now_ms);
        self.pump(now_ms);
    }

    /// The next thing to do for the driver.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.connection.is_ready()
            && let Some(stage) = self.stage.take()
        {
            self.say(&ClientMessage::Stage(stage));
        }
        self.connection.outputs.pop_front()
    }

    /// When to give an [`Event::Tick`], if nothing else happens before.
    pub fn wake_at(&self) -> Option<u64> {
        if matches!(self.connection.state, LinkState::Off | LinkState::Failed) {
            return None;
        }
        let ready = self.connection.is_ready();
        let batch = self.config.delay_ms.filter(|_| ready && self.pending.len() > 0 && self.may_send());
        let batch = batch.map(|delay| self.pending_since.saturating_add(delay));
        let pause = (ready && self.requests.any_queued())
            .then_some(self.connection.paused_until)
            .filter(|_| self.may_send());
        let due = batch.into_iter().chain(pause).map(|at| at.max(self.connection.paused_until)).min();
        let submission = self.submitting.map(|submitting| submitting.deadline);
        [self.connection.wake_at(), due, submission, self.requests.first_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Where the link stands.
    pub fn state(&self) -> LinkState {
        self.connection.state
    }

    /// Whether labels that were asked for are worth waiting for: there is a connection or one is being made, and not two
    /// in a row have ended without a label.
    pub fn promises_labels(&self) -> bool {
        self.connection.is_there() && self.connection.failures < 2
    }

    /// The server's refusal, if the link has failed for good.
    pub fn failure(&self) -> Option<&ErrorMessage> {
        self.connection.failure.as_ref()
    }

    /// What the server said about itself and the teacher, since it last did.
    pub fn welcome(&self) -> Option<&Welcome> {
        self.welcome.as_deref()
    }

    /// What was counted so far.
    pub fn stats(&self) -> &LinkStats {
        &self.stats
    }

    /// Everything a page shows about the link.
    pub fn status(&self, now_ms: u64) -> LinkStatus {
        LinkStatus {
            state: self.connection.state,
            policy: self.config.hello.policy.clone(),
            version: self.version,
            retry_in_ms: (self.connection.state == LinkState::Waiting)
                .then(|| self.connection.state_ends.saturating_sub(now_ms)),
            problem: self.connection.problem.clone(),
            pending: self.pending.len(),
            waiting: self.requests.unanswered(),
            stats: self.stats,
        }
    }

    /// The longest message that a server may send; drivers refuse longer ones before they hold them.
    pub fn max_message_bytes(&self) -> usize {
        self.formats.actions.frame_bytes(usize::from(self.config.batch)).max(MAX_CONTROL_BYTES)
    }

    // Connecting, and losing the connection.

    fn greet(&mut self, now: u64) {
        if !self.opened(now) {
            return;
        }
        self.stage = None;
        let hello = ClientMessage::Hello(Box::new(self.config.hello.clone()));
        self.say(&hello);
    }

    /// The server leaves, and all that was accepted is answered: the link does not wait for the server to close.
    fn leave_when_answered(&mut self, now: u64) {
        let idle = self.requests.flying() == 0 && self.submitting.is_none();
        if let Some(retry) = self.connection.leaving
            && self.connection.is_ready()
            && idle
        {
            self.leave("the server restarts", retry, now);
        }
    }

    // Sending.

    /// Whether the server would take another request, its pause aside.
    fn may_send(&self) -> bool {
        let credits = self.welcome.as_ref().map_or(0, |welcome| usize::from(welcome.credits));
        // At least one request is never in flight, so that there is always one to drop.
        self.connection.is_ready()
            && self.connection.leaving.is_none()
            && self.requests.flying() < credits.min(self.config.max_requests - 1)
    }

    /// Sends what may be sent.
    fn pump(&mut self, now: u64) {
        while self.may_send() && now >= self.connection.paused_until {
            if !self.requests.any_queued() && (!self.is_batch_due(now) || self.make_request(now).is_none()) {
                return;
            }
            self.send_request(now);
        }
    }

    fn is_batch_due(&self, now: u64) -> bool {
        let Some(delay) = self.config.delay_ms else { return false };
        let full = self.pending.len() >= self.batch();
        full || (self.pending.len() > 0 && now >= self.pending_since.saturating_add(delay))
    }

    /// States in a request, as far as both sides allow.
    fn batch(&self) -> usize {
        let allowed = self.welcome.as_ref().map_or(u16::MAX, |welcome| welcome.max_rows);
        usize::from(self.config.batch.min(allowed))
    }

    fn make_request(&mut self, now: u64) -> Option<Ticket> {
        if self.pending.len() == 0 {
            return None;
        }
        let batch = self.batch();
        let (ticket, dropped) = self.requests.add(&mut self.pending, batch);
        self.stats.states_dropped += dropped;
        self.pending_since = now;
        Some(ticket)
    }

    /// Sends the oldest queued request. Its states passed the codec when they were offered, so it can be written.
    fn send_request(&mut self, now: u64) {
        let (wire, deadline) = (self.next_wire, now.saturating_add(self.config.request_timeout_ms));
        let policy = self.welcome.as_ref().map_or(0, |welcome| welcome.policy_id);
        let ids = Ids { request: wire, policy, version: self.version };
        let Some(request) = self.requests.first_queued() else { return };
        let ordered = self.welcome.as_ref().is_some_and(|welcome| welcome.order == Some(true));
        let format = if ordered { &self.ordered } else { &self.formats.states };
        let mut frame = Vec::with_capacity(format.frame_bytes(request.slots.len()));
        let mut writer = format.writer(ids, &mut frame);
        let places =
            request.slots.iter().zip(&request.begins).map(|(slot, begins)| Place::new(*slot, *begins));
        let states = request.states.chunks_exact(format.width());
        let written = places.zip(states).try_for_each(|(place, state)| writer.state_at(place, state));
        if written.and_then(|()| writer.finish().map(drop)).is_err() {
            let ticket = request.ticket;
            return self.drop_request(ticket);
        }
        request.status = Status::Flying { wire, sent: now, deadline };
        request.attempts += 1;
        self.next_wire = self.next_wire.wrapping_add(1);
        self.stats.requests += 1;
        self.stats.states_sent += request.slots.len() as u64;
        self.stats.bytes_up += frame.len() as u64;
        self.stats.payload_up += (frame.len() - HEADER_BYTES) as u64;
        self.connection.outputs.push_back(Output::Binary(frame));
    }

    // Receiving.

    fn read_text(&mut self, text: &str, now: u64) {
        if !matches!(self.connection.state, LinkState::Greeting | LinkState::Ready) {
            return;
        }
        self.stats.bytes_down += text.len() as u64;
        match (ServerMessage::decode(text), self.connection.state) {
            (Ok(ServerMessage::Welcome(welcome)), LinkState::Greeting) => self.welcomed(welcome, now),
            (Ok(ServerMessage::Error(error)), LinkState::Greeting) => self.fail(error, now),
            (Ok(ServerMessage::Published(published)), LinkState::Ready) => self.published(published),
            (Ok(ServerMessage::Submitted(submitted)), LinkState::Ready) => self.acknowledged(submitted, now),
            (Ok(ServerMessage::Overloaded(overloaded)), _) => self.overloaded(overloaded, now),
            (Ok(ServerMessage::Restarting(restarting)), _) => self.restarting(restarting, now),
            (Ok(ServerMessage::Error(error)), LinkState::Ready) => self.refused(error, now),
            (Err(MessageError::UnknownType(_)), _) => {}
            (Err(error), _) => {
                self.stats.rejected.control += 1;
                self.breached(error.to_string(), now);
            }
            (Ok(_), _) => {
                self.stats.rejected.control += 1;
                self.breached("a control message came at the wrong moment".into(), now);
            }
        }
    }

    fn welcomed(&mut self, welcome: Box<Welcome>, now: u64) {
        let wants = |grants: &[Grant]| grants.contains(&Grant::Logits);
        let checked = match welcome.policy == self.config.hello.policy {
            true if wants(&self.config.hello.grants) && !wants(&welcome.grants) => {
                Err(ErrorMessage::new(ErrorCode::Forbidden, "the server does not grant \"logits\""))
            }
            true if welcome.order == Some(true) && self.config.hello.order != Some(true) => {
                let message =
                    "welcome: expected no order of states, which was not offered, got \"order\": true";
                Err(ErrorMessage::new(ErrorCode::BadMessage, message))
            }
            true => welcome.check(&self.formats),
            false => Err(ErrorMessage::new(
                ErrorCode::BadMessage,
                "welcome: another policy than the one asked for",
            )),
        };
        if let Err(error) = checked {
            self.stats.rejected.control += 1;
            return self.give_up(error.code, error.message, now);
        }
        if self.stats.welcomes > 0 {
            self.stats.reconnects += 1;
        }
        self.stats.welcomes += 1;
        self.version = welcome.version;
        let max_rows = usize::from(welcome.max_rows);
        self.welcome = Some(welcome);
        self.connection.welcomed();
        self.stats.states_dropped += self.requests.unmake_longer_than(max_rows, &mut self.pending);
    }

    fn published(&mut self, published: Published) {
        // An older version is no news; answers are judged by what they say themselves.
        self.version = self.version.max(published.version);
    }

    fn overloaded(&mut self, overloaded: Overloaded, now: u64) {
        self.stats.overloaded += 1;
        let retry = retry_at(overloaded.retry_ms, now);
        if self.connection.state == LinkState::Greeting {
            return self.leave("the server has too much to do", retry, now);
        }
        self.connection.pause(retry);
        if let Some(wire) = overloaded.request {
            if self.submitting.is_some_and(|submitting| submitting.wire == wire) {
                self.submitting = None;
                return;
            }
            match self.requests.by_wire(wire) {
                // The server chose not to try: this was no attempt.
                Some(request) => {
                    request.status = Status::Queued;
                    request.attempts -= 1;
                }
                None => self.unknown_request(wire, now),
            }
        }
    }

    fn restarting(&mut self, restarting: Restarting, now: u64) {
        let retry = retry_at(restarting.retry_ms, now);
        match self.connection.state {
            LinkState::Ready => {
                self.connection.leaving = Some(retry);
                // A server that stops has no more time for a submission than for a request.
                let deadline = now.saturating_add(self.config.request_timeout_ms);
                if let Some(submitting) = &mut self.submitting {
                    submitting.deadline = submitting.deadline.min(deadline);
                }
            }
            _ => self.leave("the server restarts", retry, now),
        }
    }

    /// An error after `welcome`: about one request, which is dropped, or about the connection, which the server closes.
    fn refused(&mut self, error: ErrorMessage, now: u64) {
        self.stats.refused += 1;
        self.connection.refused(&error);
        let Some(wire) = error.request else { return };
        let outcome = if error.code.is_permanent() { Outcome::Refused } else { Outcome::Failed };
        if self.end_submission(wire, outcome) {
            self.connection.pause(retry_at(SUBMIT_PAUSE_MS, now));
            return;
        }
        let Some(ticket) = self.requests.by_wire(wire).map(|request| request.ticket) else {
            return self.unknown_request(wire, now);
        };
        self.drop_request(ticket);
    }

    fn acknowledged(&mut self, submitted: Submitted, now: u64) {
        let known = self.submitting.is_some_and(|submitting| submitting.batch == submitted.batch);
        if !known || !self.end_submission(submitted.request, Outcome::Kept) {
            return self.unknown_request(submitted.request, now);
        }
        self.connection.failures = 0;
    }

    /// The submission in flight is over, if it has this number.
    fn end_submission(&mut self, wire: u32, outcome: Outcome) -> bool {
        let Some(submitting) = self.submitting.filter(|submitting| submitting.wire == wire) else {
            return false;
        };
        self.submitting = None;
        self.submitted = Some((submitting.batch, outcome));
        true
    }

    fn drop_request(&mut self, ticket: Ticket) {
        if let Some(request) = self.requests.remove(ticket) {
            self.stats.states_dropped += request.slots.len() as u64;
            self.requests.recycle(request);
        }
    }

    fn unknown_request(&mut self, wire: u32, now: u64) {
        self.stats.rejected.unknown_request += 1;
        self.breached(format!("request {wire} is not in flight"), now);
    }

    fn read_frame(&mut self, frame: &[u8], now: u64) {
        match self.connection.state {
            LinkState::Ready => {}
            LinkState::Greeting => {
                self.stats.rejected.frame += 1;
                return self.breached("a binary frame came before welcome".into(), now);
            }
            _ => return,
        }
        self.stats.bytes_down += frame.len() as u64;
        match self.read_answer(frame, now) {
            Ok(()) => {
                self.connection.failures = 0;
                self.connection.problem = None;
            }
            Err(Rejection::Unknown(wire)) => self.unknown_request(wire, now),
            Err(Rejection::Answer(problem)) => {
                // The request it is for is made again, a few times.
                if let Some(request) = Header::request_of(frame).and_then(|wire| self.requests.by_wire(wire))
                {
                    request.status = Status::Queued;
                    if request.attempts >= MAX_ATTEMPTS {
                        let ticket = request.ticket;
                        self.drop_request(ticket);
                    }
                }
                self.breached(problem, now);
            }
        }
    }

    /// Takes an answer in if it is one, whole and valid.
    fn read_answer(&mut self, frame: &[u8], now: u64) -> Result<(), Rejection> {
        let rejected = &mut self.stats.rejected;
        let actions = match self.formats.actions.decode(frame, usize::from(u16::MAX)) {
            Ok(actions) => actions,
            Err(error) => {
                match error {
                    FrameError::NotFinite { .. } | FrameError::OutOfRange { .. } => rejected.action += 1,
                    FrameError::WrongLength { .. } => rejected.count += 1,
                    _ => rejected.frame += 1,
                }
                return Err(Rejection::Answer(format!("an answer was refused: {error}")));
            }
        };
        let Header { ids, .. } = actions.header();
        let welcome = self.welcome.as_ref().map_or((0, 1), |welcome| (welcome.policy_id, welcome.version));
        let Some(request) = self.requests.by_wire(ids.request) else {
            return Err(Rejection::Unknown(ids.request));
        };
        if ids.policy != welcome.0 {
            rejected.policy += 1;
            let problem = format!("expected an answer of policy {}, got one of {}", welcome.0, ids.policy);
            return Err(Rejection::Answer(problem));
        }
        if actions.rows() != request.slots.len() {
            rejected.count += 1;
            let problem = format!("expected {} actions, got {}", request.slots.len(), actions.rows());
            return Err(Rejection::Answer(problem));
        }
        if ids.version < welcome.1 {
            rejected.stale += 1;
            let problem = format!("expected version {} or newer, got {}", welcome.1, ids.version);
            return Err(Rejection::Answer(problem));
        }
        request.answers.clear();
        for row in 0..actions.rows() {
            match actions.get(row, &mut self.action) {
                Action::Discrete(index) => request.answers.push(index as f32),
                Action::Continuous(action) => {
                    if !is_inside(action, &self.config.hello.action, self.formats.actions.dtype()) {
                        rejected.action += 1;
                        return Err(Rejection::Answer(format!(
                            "action {row} lies outside the student's action space"
                        )));
                    }
                    request.answers.extend_from_slice(action);
                }
            }
        }
        if let Status::Flying { sent, .. } = request.status {
            self.stats.rtt(now.saturating_sub(sent));
        }
        request.status = Status::Done;
        request.version = ids.version;
        self.version = self.version.max(ids.version);
        self.stats.labels_received += actions.rows() as u64;
        self.stats.payload_down += (frame.len() - HEADER_BYTES) as u64;
        Ok(())
    }
}

impl Connected for Link {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn counters(&mut self) -> Counters<'_> {
        let LinkStats { connects, timeouts, bytes_up, .. } = &mut self.stats;
        Counters { connects, timeouts, bytes_up }
    }

    /// What was in flight is asked again on the next connection.
    fn forget(&mut self) {
        self.stats.states_dropped += self.requests.land(MAX_ATTEMPTS);
        self.submitting = None;
    }

    fn overdue(&mut self, now: u64) -> Option<&'static str> {
        if self.requests.first_deadline().is_some_and(|deadline| now >= deadline) {
            return Some("the teacher took too long to answer");
        }
        let late = self.submitting.is_some_and(|submitting| now >= submitting.deadline);
        late.then_some("the server took too long to keep a submission")
    }
}

/// A link as a socket's driver sees it: a teacher's or a learner's.
pub trait Conversation {
    /// Takes in what happened, and how late it is in milliseconds.
    fn handle(&mut self, event: Event<'_>, now_ms: u64);

    /// The next thing to do.
    fn poll_output(&mut self) -> Option<Output>;

    /// When to give an [`Event::Tick`], if nothing else happens before.
    fn wake_at(&self) -> Option<u64>;

    /// The longest message that a server may send.
    fn max_message_bytes(&self) -> usize;

    /// The ticket that the next `hello` shows; it is good for one.
    fn set_ticket(&mut self, ticket: String);
}

impl<C: Conversation> Conversation for &mut C {
    fn handle(&mut self, event: Event<'_>, now_ms: u64) {
        (**self).handle(event, now_ms);
    }

    fn poll_output(&mut self) -> Option<Output> {
        (**self).poll_output()
    }

    fn wake_at(&self) -> Option<u64> {
        (**self).wake_at()
    }

    fn max_message_bytes(&self) -> usize {
        (**self).max_message_bytes()
    }

    fn set_ticket(&mut self, ticket: String) {
        (**self).set_ticket(ticket);
    }
}

impl Conversation for Link {
    fn handle(&mut self, event: Event<'_>, now_ms: u64) {
        Link::handle(self, event, now_ms);
    }

    fn poll_output(&mut self) -> Option<Output> {
        Link::poll_output(self)
    }

    fn wake_at(&self) -> Option<u64> {
        Link::wake_at(self)
    }

    fn max_message_bytes(&self) -> usize {
        Link::max_message_bytes(self)
    }

    fn set_ticket(&mut self, ticket: String) {
        Link::set_ticket(self, ticket);
    }
}

/// How long to wait after so many failures in a row, in milliseconds: twice as long each time, between two bounds. Half of the
/// wait is random, so that the clients of one server do not come back all at once.
pub(crate) fn backoff((min_ms, max_ms): (u64, u64), failures: u32, rng: &mut Rng) -> u64 {
    let longest = min_ms.saturating_mul(1 << failures.min(20)).min(max_ms) as f64;
    (longest * (0.5 + 0.5 * rng.f64())) as u64
}

/// When a server wants to hear of a client again, within limits.
pub(crate) fn retry_at(retry_ms: u32, now: u64) -> u64 {
    now.saturating_add(u64::from(retry_ms).clamp(*RETRY_MS.start(), *RETRY_MS.end()))
}

/// Why an answer did not count.
enum Rejection {
    /// It is for no request in flight.
    Unknown(u32),
    /// It is not an answer to its request.
    Answer(String),
}

/// Whether a vector lies in the student's box. A half may round to just beyond a bound.
fn is_inside(action: &[f32], space: &Space, dtype: Dtype) -> bool {
    let Space::Box { low, high } = space else { return false };
    let slack = |bound: f32| match dtype {
        Dtype::F16 if bound.is_finite() => bound.abs() / 1024.0 + 1e-7,
        _ => 0.0,
    };
    let inside =
        |(x, (low, high)): (&f32, (&f32, &f32))| *x >= low - slack(*low) && *x <= high + slack(*high);
    action.iter().zip(low.iter().zip(high)).all(inside)
}

fn hand_out(format: &ActionFormat, request: &Request, label: &mut impl FnMut(u64, Action<'_>, u32)) {
    let discrete = matches!(format.dtype(), Dtype::U8 | Dtype::U16);
    for (&slot, answer) in request.slots.iter().zip(request.answers.chunks_exact(format.width())) {
        // Indices are below 65,536 and so exact as numbers.
        let action = if discrete { Action::Discrete(answer[0] as u32) } else { Action::Continuous(answer) };
        label(slot, action, request.version);
    }
}

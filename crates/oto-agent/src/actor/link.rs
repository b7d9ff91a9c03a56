//! An actor's conversation with its learner, without input or output, as [`crate::link`] is for teachers: events and the time go in,
//! messages and the next moment to wake up come out, and so do weights.
//!
//! The owner of a socket drives an [`ActorLink`] like a teacher's link: [`ActorLink::handle`], then every output of
//! [`ActorLink::poll_output`], then [`ActorLink::take_weights`]. Weights that were taken and now act are reported with
//! [`ActorLink::applied`]. Rows come from the [`Reader`] of a ring, which the control loop fills meanwhile.
//!
//! Rows are sent in order, a window of them ahead of their acknowledgement, and from the number that the learner names after each
//! lost connection. Rows that the ring no longer holds are counted and reported to the learner.
//!
//! What a learner sends is not trusted: weights of another shape, session or network, cut off, not finite, not newer, or based on
//! weights that are not held, are refused and counted. The actor keeps its weights.

use super::ring::Reader;
use crate::link::connection::{Connected, Connection, Counters, Limits};
use crate::link::{Conversation, Event, LinkState, Output, retry_at};
use oto_proto::message::{Applied, Dropped, MAX_CONTROL_BYTES, Overloaded, Received, Refused, Restarting};
use oto_proto::{
    ActorInfo, ClientMessage, ErrorCode, ErrorMessage, Formats, Grant, Header, Hello, Ids, MessageError,
    Model, RowFormat, ServerMessage, WEIGHTS_BYTES, Weights, WeightsError, WeightsReason, Welcome,
};

/// Breaches of the protocol before the link closes the connection.
const MAX_BREACHES: u32 = 8;
/// Refused frames of rows, without an acknowledgement between, before the link closes the connection.
const MAX_REFUSALS: u32 = 8;
/// The pause before rows are sent again that the learner refused, in milliseconds.
const RESEND_MS: u32 = 100;

/// How an actor's link behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct ActorConfig {
    /// The introduction: spaces, policy, and in `actor` the edge's name, its stream and the encodings that it reads. The link
    /// fills in the rest.
    pub hello: Hello,
    /// Draws the randomness of waiting times.
    pub seed: u64,
    /// Rows in one frame, at most; at least 1.
    pub batch: u16,
    /// Time for which rows are collected, in milliseconds.
    pub flush_ms: u64,
    /// The largest network that is taken, in parameters.
    pub max_parameters: u32,
    /// How long a connection may take to open, in milliseconds, and how long a `welcome`.
    pub connect_timeout_ms: u64,
    /// How long rows may wait for any answer, in milliseconds. Weights on a slow line delay the answers behind them: the limit is at least
    /// twice the longest answer, and doubles with each connection in a row that ends for it, up to 16 times this.
    pub answer_timeout_ms: u64,
    /// The wait before the second attempt to connect, in milliseconds; it doubles with each further one.
    pub backoff_min_ms: u64,
    /// The longest such wait, in milliseconds.
    pub backoff_max_ms: u64,
}

/// The longest wait for an answer, as a multiple of the usual one.
const MOST_PATIENCE: u64 = 16;

impl ActorConfig {
    /// Usual settings around an introduction.
    pub fn new(hello: Hello) -> Self {
        ActorConfig {
            hello,
            seed: 0,
            batch: 256,
            flush_ms: 30,
            max_parameters: 1 << 22,
            connect_timeout_ms: 5_000,
            answer_timeout_ms: 10_000,
            backoff_min_ms: 200,
            backoff_max_ms: 5_000,
        }
    }
}

/// What an actor's link counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ActorStats {
    /// Connections opened.
    pub connects: u64,
    /// Sessions agreed upon.
    pub sessions: u64,
    /// Connections given up because nothing came in time.
    pub timeouts: u64,
    /// Rows sent, again or for the first time.
    pub rows_sent: u64,
    /// Rows lost: the ring was full before they were sent or acknowledged.
    pub rows_dropped: u64,
    /// Frames of rows that the learner refused.
    pub refused: u64,
    /// How often the learner asked for a pause.
    pub overloaded: u64,
    /// Pushes of weights taken.
    pub weights: u64,
    /// Pushes of weights refused.
    pub weights_refused: u64,
    /// Messages that are none, or came at the wrong moment.
    pub rejected: u64,
    /// Bytes sent in messages.
    pub bytes_up: u64,
    /// Bytes received in messages.
    pub bytes_down: u64,
}

oto_json::json_object! {
    ActorStats: open {
        connects, sessions, timeouts, rows_sent, rows_dropped, refused, overloaded, weights, weights_refused,
        rejected, bytes_up, bytes_down
    }
}

/// An actor's conversation with its learner.
#[derive(Debug)]
pub struct ActorLink {
    config: ActorConfig,
    formats: Formats,
    rows: RowFormat,
    reader: Reader,
    connection: Connection,
    welcome: Option<Box<Welcome>>,
    agreed: Option<Agreed>,
    /// The first row that is not acknowledged.
    acknowledged: u64,
    /// Updates that the learner owed when it last said so.
    learner_backlog: u64,
    /// The first row that was not sent in this session.
    next: u64,
    /// When rows are sent next.
    flush_at: u64,
    /// When the first rows were sent that the learner has not answered.
    unanswered_since: Option<u64>,
    /// The longest time until an answer, and connections in a row that ended without one.
    longest_answer_ms: u64,
    silent: u32,
    /// Rows were refused: they are sent again after this moment.
    resend_at: Option<u64>,
    /// Frames of rows refused since the last acknowledgement.
    refusals: u32,
    /// The network that acts, as the first `welcome` had it.
    model: Option<Model>,
    /// The newest weights, and their version; 0 for none.
    weights: Vec<f32>,
    version: u32,
    /// They wait in [`ActorLink::take_weights`].
    arrived: bool,
    /// The version last reported as acting.
    applied: u32,
    bytes: Vec<u8>,
    inflated: Vec<u8>,
    stats: ActorStats,
}

impl ActorLink {
    /// A link that is switched off, for the rows of `reader`. `row_format` of the same introduction made its ring.
    ///
    /// # Errors
    /// If the introduction contradicts itself, or says nothing about the actor.
    pub fn new(config: ActorConfig, reader: Reader) -> Result<ActorLink, ErrorMessage> {
        let refuse = |message: &str| Err(ErrorMessage::new(ErrorCode::BadMessage, message));
        let formats = config.hello.formats()?;
        if config.hello.actor.is_none() {
            return refuse("an actor's introduction needs the field \"actor\"");
        }
        if config.batch == 0 || config.max_parameters == 0 {
            return refuse("an actor's link needs batch and max_parameters of at least 1");
        }
        let rows = RowFormat::new(&formats, &config.hello.action);
        Ok(ActorLink {
            formats,
            rows,
            reader,
            connection: Connection::new(Limits {
                seed: config.seed,
                timeout_ms: config.connect_timeout_ms,
                backoff_ms: (config.backoff_min_ms, config.backoff_max_ms),
                breaches: MAX_BREACHES,
                replaced: true,
            }),
            welcome: None,
            agreed: None,
            acknowledged: 0,
            learner_backlog: 0,
            next: 0,
            flush_at: 0,
            unanswered_since: None,
            longest_answer_ms: 0,
            silent: 0,
            resend_at: None,
            refusals: 0,
            model: None,
            weights: Vec::new(),
            version: 0,
            arrived: false,
            applied: 0,
            bytes: Vec::new(),
            inflated: Vec::new(),
            stats: ActorStats::default(),
            config,
        })
    }

    /// Switches the link on. Nothing happens if it is on already.
    pub fn connect(&mut self, now_ms: u64) {
        self.switch_on(now_ms);
    }

    /// Switches the link off. Rows and weights are kept.
    pub fn disconnect(&mut self) {
        self.switch_off();
    }

    /// The ticket that the next `hello` shows; it is good for one.
    pub fn set_ticket(&mut self, ticket: String) {
        self.config.hello.ticket = Some(ticket);
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
        self.pump(now_ms);
    }

    /// The next thing to do for the driver.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.connection.outputs.pop_front()
    }

    /// New weights and their version, if any have come since the last call: the parameters of [`ActorLink::model`], in its order.
    pub fn take_weights(&mut self) -> Option<(u32, &[f32])> {
        std::mem::take(&mut self.arrived).then_some((self.version, &self.weights[..]))
    }

    /// The control loop acts with these weights now.
    pub fn applied(&mut self, version: u32) {
        if version > self.applied && version <= self.version {
            self.applied = version;
            if self.connection.is_ready() {
                self.say(&ClientMessage::Applied(Applied { version }));
            }
        }
    }

    /// When to give an [`Event::Tick`], if nothing else happens before.
    pub fn wake_at(&self) -> Option<u64> {
        match self.connection.is_ready() {
            false => self.connection.wake_at(),
            true => {
                Some(self.flush_at.max(self.connection.paused_until).min(self.deadline().unwrap_or(u64::MAX)))
            }
        }
    }

    /// Where the link stands.
    pub fn state(&self) -> LinkState {
        self.connection.state
    }

    /// The server's refusal, if the link has failed for good.
    pub fn failure(&self) -> Option<&ErrorMessage> {
        self.connection.failure.as_ref()
    }

    /// What went wrong last, for people; none while all is well.
    pub fn problem(&self) -> Option<&str> {
        self.connection.problem.as_deref()
    }

    /// The introduction, without what the link fills in.
    pub fn hello(&self) -> &Hello {
        &self.config.hello
    }

    /// What the server said about itself and the policy, since it last did.
    pub fn welcome(&self) -> Option<&Welcome> {
        self.welcome.as_deref()
    }

    /// The network that acts, once a server has said so. It stays the same for the link's life.
    pub fn model(&self) -> Option<&Model> {
        self.model.as_ref()
    }

    /// The newest weights, whether they act yet or not: the parameters of [`ActorLink::model`], in its order.
    pub fn weights(&self) -> Option<&[f32]> {
        (self.version > 0).then_some(&self.weights[..])
    }

    /// The version of the newest weights; 0 for none.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The first row that is not acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Updates that the learner owed when it last acknowledged rows.
    pub fn learner_backlog(&self) -> u64 {
        self.learner_backlog
    }

    /// Rows that are not acknowledged and still held.
    pub fn backlog(&self) -> u64 {
        self.reader.recorded() - self.acknowledged.max(self.reader.oldest()).min(self.reader.recorded())
    }

    /// What was counted so far.
    pub fn stats(&self) -> &ActorStats {
        &self.stats
    }

    /// How rows travel.
    pub fn row_format(&self) -> &RowFormat {
        &self.rows
    }

    /// The longest message that a server may send; drivers refuse longer ones before they hold them.
    pub fn max_message_bytes(&self) -> usize {
        (WEIGHTS_BYTES + 4 * self.config.max_parameters as usize).max(MAX_CONTROL_BYTES)
    }

    // Connecting, and losing the connection.

    fn greet(&mut self, now: u64) {
        if !self.opened(now) {
            return;
        }
        let (first, version) = (self.reader.oldest(), self.version);
        let hello = Hello {
            actor: self.config.hello.actor.clone().map(|actor| ActorInfo { first, version, ..actor }),
            ..self.config.hello.clone()
        };
        // What the learner may ask for.
        self.next = first;
        self.say(&ClientMessage::Hello(Box::new(hello)));
    }

    /// The time at which the link closes the connection to a silent learner, while rows wait for an answer.
    fn deadline(&self) -> Option<u64> {
        let since = self.unanswered_since.filter(|_| self.connection.is_ready())?;
        let least = self.config.answer_timeout_ms;
        let most = least.saturating_mul(MOST_PATIENCE);
        let backed_off = least.saturating_mul(1 << self.silent.min(MOST_PATIENCE.ilog2()));
        Some(since.saturating_add(backed_off.max(2 * self.longest_answer_ms).min(most)))
    }

    // Sending.

    /// Sends the rows that are due, as far as the learner's window goes.
    fn pump(&mut self, now: u64) {
        if self.connection.state != LinkState::Ready || now < self.flush_at.max(self.connection.paused_until)
        {
            return;
        }
        self.flush_at = now.saturating_add(self.config.flush_ms.max(1));
        if self.resend_at.is_some_and(|at| now >= at) {
            self.resend_at = None;
            // Rows that the ring lost since are skipped with a message, like all others.
            self.next = self.next.min(self.acknowledged);
        }
        let Some(Agreed { policy, session, ring, max_rows }) = self.agreed else { return };
        let batch = u64::from(self.config.batch.min(max_rows));
        while self.resend_at.is_none() {
            let end = self.acknowledged.saturating_add(u64::from(ring));
            self.skip_lost(end, now);
            let rows = self.reader.recorded().min(end).saturating_sub(self.next).min(batch);
            // At most a batch.
            if rows == 0 || !self.send(Ids { request: session, policy, version: 0 }, rows as usize, now) {
                return;
            }
        }
    }

    /// Steps over rows that the ring does not hold any more, and says so. Not while earlier rows fill the window: one
    /// message then reports all lost rows.
    fn skip_lost(&mut self, window_end: u64, now: u64) {
        let first = self.reader.oldest();
        let waits = first >= window_end && self.next > self.acknowledged;
        if self.next >= first || waits {
            return;
        }
        self.stats.rows_dropped += first - self.next;
        self.next = first;
        self.unanswered_since.get_or_insert(now);
        self.say(&ClientMessage::Dropped(Dropped { first }));
    }

    /// Sends one frame of rows; false if they were overwritten meanwhile.
    fn send(&mut self, ids: Ids, rows: usize, now: u64) -> bool {
        let Some(version) = self.reader.copy(self.next, rows, &mut self.bytes) else { return false };
        let mut frame = Vec::new();
        if let Err(error) = self.rows.write(Ids { version, ..ids }, self.next, &self.bytes, &mut frame) {
            self.connection.note(error.to_string());
            return false;
        }
        self.unanswered_since.get_or_insert(now);
        self.next += rows as u64;
        self.stats.rows_sent += rows as u64;
        self.stats.bytes_up += frame.len() as u64;
        self.connection.outputs.push_back(Output::Binary(frame));
        true
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
            (Ok(ServerMessage::Received(received)), LinkState::Ready) => self.received(received, now),
            (Ok(ServerMessage::Published(_)), LinkState::Ready) => {}
            (Ok(ServerMessage::Overloaded(overloaded)), _) => self.overloaded(overloaded, now),
            (Ok(ServerMessage::Restarting(restarting)), _) => self.restarting(restarting, now),
            (Ok(ServerMessage::Error(error)), LinkState::Ready) => self.refused(error, now),
            (Err(MessageError::UnknownType(_)), _) => {}
            (Err(error), _) => self.breach(error.to_string(), now),
            (Ok(_), _) => self.breach("a control message came at the wrong moment".into(), now),
        }
    }

    fn welcomed(&mut self, welcome: Box<Welcome>, now: u64) {
        let agreed = match self.agree(&welcome) {
            Ok(agreed) => agreed,
            Err(error) => {
                self.stats.rejected += 1;
                return self.fail(error, now);
            }
        };
        let (Some(learner), first) = (&welcome.learner, self.next) else { return };
        if !(first..=self.reader.recorded()).contains(&learner.next) {
            let (wanted, recorded) = (learner.next, self.reader.recorded());
            let problem = format!(
                "expected a learner that wants a row of {first} to {recorded}, it wants row {wanted}"
            );
            self.stats.rejected += 1;
            return self.give_up(ErrorCode::BadMessage, problem, now);
        }
        if self.model.is_none() {
            self.weights = vec![0.0; learner.model.parameters as usize];
            self.model = Some(learner.model.clone());
        }
        self.next = learner.next;
        self.acknowledged = self.acknowledged.min(self.next);
        self.agreed = Some(agreed);
        self.welcome = Some(welcome);
        self.connection.welcomed();
        self.stats.sessions += 1;
        self.flush_at = now;
        self.heard(now);
    }

    /// Checks a `welcome` against the introduction and what this link was told before.
    fn agree(&self, welcome: &Welcome) -> Result<Agreed, ErrorMessage> {
        let refuse = |code, message: String| Err(ErrorMessage::new(code, message));
        if welcome.policy != self.config.hello.policy {
            return refuse(ErrorCode::Internal, "welcome: another policy than the one asked for".into());
        }
        if let Err(error) = welcome.check(&self.formats) {
            return refuse(ErrorCode::Internal, error.message);
        }
        for grant in [Grant::Transitions, Grant::Weights] {
            if self.config.hello.grants.contains(&grant) && !welcome.grants.contains(&grant) {
                return refuse(ErrorCode::Forbidden, format!("the server does not grant {grant:?}"));
            }
        }
        let Some(learner) = &welcome.learner else {
            return refuse(ErrorCode::Forbidden, "the server has no learner for this policy".into());
        };
        let encodings = self.config.hello.actor.as_ref().map_or(&[][..], |actor| &actor.weights);
        if !encodings.contains(&learner.weights) {
            return refuse(
                ErrorCode::Internal,
                "welcome: weights in an encoding that was not offered".into(),
            );
        }
        if learner.model.parameters > self.config.max_parameters {
            let (found, most) = (learner.model.parameters, self.config.max_parameters);
            return refuse(
                ErrorCode::TooLarge,
                format!("expected a network of at most {most} parameters, got {found}"),
            );
        }
        if self.model.as_ref().is_some_and(|model| *model != learner.model) {
            let message =
                "the learner has another network than the one that acts here: start the actor again";
            return refuse(ErrorCode::BadShape, message.into());
        }
        Ok(Agreed {
            policy: welcome.policy_id,
            session: learner.session,
            ring: learner.ring,
            max_rows: welcome.max_rows,
        })
    }

    fn received(&mut self, received: Received, now: u64) {
        if received.next > self.next {
            return self.breach(format!("row {} is acknowledged, but was not sent", received.next), now);
        }
        self.learner_backlog = received.backlog.unwrap_or(self.learner_backlog);
        if received.next > self.acknowledged {
            self.acknowledged = received.next;
            self.connection.failures = 0;
            self.refusals = 0;
            self.connection.problem = None;
        }
        self.heard(now);
        self.silent = 0;
    }

    /// The learner spoke. Rows without an acknowledgement wait for its next words from `now` on.
    fn heard(&mut self, now: u64) {
        let took = self.unanswered_since.map_or(0, |since| now.saturating_sub(since));
        self.longest_answer_ms = self.longest_answer_ms.max(took);
        self.unanswered_since = (self.next > self.acknowledged).then_some(now);
    }

    fn overloaded(&mut self, overloaded: Overloaded, now: u64) {
        self.stats.overloaded += 1;
        let retry = retry_at(overloaded.retry_ms, now);
        if self.connection.state == LinkState::Greeting {
            return self.leave("the server has too much to do", retry, now);
        }
        self.connection.pause(retry);
        self.heard(now);
        self.unanswered_since = self.unanswered_since.map(|_| self.connection.paused_until);
        if overloaded.request.is_some() {
            self.resend_at = Some(self.connection.paused_until);
        }
    }

    fn restarting(&mut self, restarting: Restarting, now: u64) {
        let retry = retry_at(restarting.retry_ms, now);
        self.leave("the server restarts", retry, now);
    }

    /// An error after `welcome`: about rows, which are sent again, or about the connection, which the server closes.
    fn refused(&mut self, error: ErrorMessage, now: u64) {
        self.stats.refused += 1;
        self.connection.refused(&error);
        if error.code == ErrorCode::Replaced {
            return self.fail(error, now);
        }
        self.heard(now);
        if error.request.is_none() || self.resend_at.is_some() {
            return;
        }
        self.refusals += 1;
        if self.refusals > MAX_REFUSALS {
            return self.give_up(error.code, error.message, now);
        }
        self.resend_at = Some(retry_at(RESEND_MS, now));
    }

    /// Something came that the protocol does not allow.
    fn breach(&mut self, problem: String, now: u64) {
        self.stats.rejected += 1;
        self.breached(problem, now);
    }

    fn read_frame(&mut self, frame: &[u8], now: u64) {
        match self.connection.state {
            LinkState::Ready => {}
            LinkState::Greeting => return self.breach("a binary frame came before welcome".into(), now),
            _ => return,
        }
        self.stats.bytes_down += frame.len() as u64;
        let Some(version) = Header::version_of(frame) else {
            return self.breach("a binary frame of less than 16 bytes came".into(), now);
        };
        match self.read_weights(frame) {
            Ok(()) => self.stats.weights += 1,
            Err((reason, problem)) => {
                self.stats.weights_refused += 1;
                self.say(&ClientMessage::Refused(Refused { version, reason }));
                self.breach(format!("weights were refused: {problem}"), now);
            }
        }
    }

    /// Takes weights in if they are whole, valid and newer; all else leaves those that are held as they are.
    fn read_weights(&mut self, frame: &[u8]) -> Result<(), (WeightsReason, String)> {
        let refuse = |error: WeightsError| (error.reason(), error.to_string());
        let (Some(agreed), Some(_)) = (self.agreed, &self.model) else {
            return Err((WeightsReason::BadFrame, "no network is agreed upon".into()));
        };
        let weights = Weights::read(frame, self.weights.len()).map_err(refuse)?;
        let Ids { request, policy, version } = weights.header().ids;
        if (request, policy) != (agreed.session, agreed.policy) {
            let Agreed { session, policy: expected, .. } = agreed;
            let problem =
                format!("expected session {session} and policy {expected}, got {request} and {policy}");
            return Err((WeightsReason::BadFrame, problem));
        }
        if version <= self.version {
            let problem = format!("expected a version above {}, got {version}", self.version);
            return Err((WeightsReason::Stale, problem));
        }
        weights.apply(self.version, &mut self.weights, &mut self.inflated).map_err(refuse)?;
        (self.version, self.arrived) = (version, true);
        Ok(())
    }
}

impl Connected for ActorLink {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn counters(&mut self) -> Counters<'_> {
        let ActorStats { connects, timeouts, bytes_up, .. } = &mut self.stats;
        Counters { connects, timeouts, bytes_up }
    }

    fn forget(&mut self) {
        self.refusals = 0;
        self.agreed = None;
        self.unanswered_since = None;
        // The next line may be a faster one.
        self.longest_answer_ms /= 2;
        self.resend_at = None;
    }

    fn overdue(&mut self, now: u64) -> Option<&'static str> {
        let late = self.deadline().is_some_and(|deadline| now >= deadline);
        self.silent += u32::from(late);
        late.then_some("the learner took too long to answer")
    }
}

impl Conversation for ActorLink {
    fn handle(&mut self, event: Event<'_>, now_ms: u64) {
        ActorLink::handle(self, event, now_ms);
    }

    fn poll_output(&mut self) -> Option<Output> {
        ActorLink::poll_output(self)
    }

    fn wake_at(&self) -> Option<u64> {
        ActorLink::wake_at(self)
    }

    fn max_message_bytes(&self) -> usize {
        ActorLink::max_message_bytes(self)
    }

    fn set_ticket(&mut self, ticket: String) {
        ActorLink::set_ticket(self, ticket);
    }
}

/// What both sides agreed upon for this session.
#[derive(Clone, Copy, Debug)]
struct Agreed {
    policy: u32,
    session: u32,
    ring: u32,
    max_rows: u16,
}

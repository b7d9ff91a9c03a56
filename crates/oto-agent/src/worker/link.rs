//! A worker's conversation with the server of a shared agent, without input or output: events and the time go in, messages and the next
//! moment to wake up come out, and so do parameters.
//!
//! The owner of a socket drives a [`WorkerLink`] like a teacher's link. Parameters that came are taken with
//! [`WorkerLink::take_parameters`]; the gradients of a rollout go out with [`WorkerLink::send`], and parameters come again. A gradient is lost
//! with its connection: the next parameters are fetched anew.
//!
//! What a server sends is not trusted: parameters of another count, session or policy, not finite, or in another form are refused.

use crate::link::connection::{Connected, Connection, Counters, Limits};
use crate::link::{Conversation, Event, LinkState, Output, retry_at};
use oto_json::Json;
use oto_proto::gradients::{numbers, write_gradients};
use oto_proto::message::{MAX_CONTROL_BYTES, Overloaded};
use oto_proto::{
    ClientMessage, ErrorCode, ErrorMessage, Formats, Grant, Hello, Ids, MessageError, ServerMessage,
    WEIGHTS_BYTES, Weights, Welcome,
};

/// Breaches of the protocol before the link closes the connection.
const MAX_BREACHES: u32 = 8;

/// How a worker's link behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerConfig {
    /// The introduction, with the worker's name and the parameters of its agent.
    pub hello: Hello,
    /// The settings of its agent: the server's agent must have the same.
    pub settings: Json,
    /// Draws the randomness of waiting times.
    pub seed: u64,
    /// How long a connection may take to open, in milliseconds, and how long a `welcome`.
    pub connect_timeout_ms: u64,
    /// How long parameters may take, in milliseconds: the server may evaluate its agent meanwhile.
    pub answer_timeout_ms: u64,
    /// The shortest and the longest wait between two connections, in milliseconds.
    pub backoff_ms: (u64, u64),
}

impl WorkerConfig {
    /// Usual settings around an introduction.
    pub fn new(hello: Hello, settings: Json, seed: u64) -> Self {
        WorkerConfig {
            hello,
            settings,
            seed,
            connect_timeout_ms: 5_000,
            answer_timeout_ms: 120_000,
            backoff_ms: (200, 5_000),
        }
    }
}

/// What a worker's link counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Connections opened.
    pub connects: u64,
    /// Sessions agreed upon.
    pub sessions: u64,
    /// Connections given up because nothing came in time.
    pub timeouts: u64,
    /// Gradients sent, again or for the first time.
    pub sent: u64,
    /// Gradients that the server refused.
    pub refused: u64,
    /// How often the server asked for a pause.
    pub overloaded: u64,
    /// Parameters taken.
    pub parameters: u64,
    /// Messages that are none, or came at the wrong moment.
    pub rejected: u64,
    /// Bytes sent in messages.
    pub bytes_up: u64,
    /// Bytes received in messages.
    pub bytes_down: u64,
}

oto_json::json_object! {
    WorkerStats: written {
        connects, sessions, timeouts, sent, refused, overloaded, parameters, rejected, bytes_up, bytes_down
    }
}

/// A worker's conversation with the server of a shared agent.
#[derive(Debug)]
pub struct WorkerLink {
    config: WorkerConfig,
    formats: Formats,
    connection: Connection,
    /// The session and the policy's number, once agreed.
    agreed: Option<(u32, u32)>,
    /// The newest parameters, and their version.
    values: Vec<f32>,
    version: u32,
    /// They wait in [`WorkerLink::take_parameters`].
    arrived: bool,
    /// The frame that waits for an answer.
    frame: Vec<u8>,
    /// It was not taken: it is sent again after this moment.
    resend_at: Option<u64>,
    /// Since when parameters are waited for.
    waits_since: Option<u64>,
    stats: WorkerStats,
}

impl WorkerLink {
    /// A link that is switched off.
    ///
    /// # Errors
    /// If the introduction contradicts itself, or says nothing about the worker.
    pub fn new(config: WorkerConfig) -> Result<WorkerLink, ErrorMessage> {
        let formats = config.hello.formats()?;
        let count = config.hello.worker.as_ref().and_then(|worker| numbers(&worker.parameters));
        let Some(count) = count else {
            let message = "a worker's introduction needs the field \"worker\" with its parameters";
            return Err(ErrorMessage::new(ErrorCode::BadMessage, message));
        };
        let limits = Limits {
            seed: config.seed,
            timeout_ms: config.connect_timeout_ms,
            backoff_ms: config.backoff_ms,
            breaches: MAX_BREACHES,
            replaced: true,
        };
        Ok(WorkerLink {
            config,
            formats,
            connection: Connection::new(limits),
            agreed: None,
            values: vec![0.0; count],
            version: 0,
            arrived: false,
            frame: Vec::new(),
            resend_at: None,
            waits_since: None,
            stats: WorkerStats::default(),
        })
    }

    /// Switches the link on. Nothing happens if it is on already.
    pub fn connect(&mut self, now_ms: u64) {
        self.switch_on(now_ms);
    }

    /// Switches the link off.
    pub fn disconnect(&mut self) {
        self.switch_off();
    }

    /// New parameters and their version, if any have come since the last call.
    pub fn take_parameters(&mut self) -> Option<(u32, &[f32])> {
        std::mem::take(&mut self.arrived).then_some((self.version, &self.values[..]))
    }

    /// The version of the newest parameters; 0 before the first ones.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Sends the gradients of a rollout with the parameters of `version`. Nothing happens without a connection, or with the parameters of
    /// an earlier one: others come.
    pub fn send(&mut self, version: u32, gradients: &[f32], now_ms: u64) {
        let Some((session, policy)) = self.agreed.filter(|_| self.version == version && !self.arrived) else {
            return;
        };
        let ids = Ids { request: session, policy, version };
        match write_gradients(ids, gradients, &mut self.frame) {
            Ok(()) => self.send_frame(now_ms),
            Err(error) => self.connection.note(error.to_string()),
        }
    }

    fn send_frame(&mut self, now: u64) {
        self.stats.sent += 1;
        self.stats.bytes_up += self.frame.len() as u64;
        self.resend_at = None;
        self.waits_since = Some(now);
        self.connection.outputs.push_back(Output::Binary(self.frame.clone()));
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

    /// The introduction.
    pub fn hello(&self) -> &Hello {
        &self.config.hello
    }

    /// What was counted so far.
    pub fn stats(&self) -> &WorkerStats {
        &self.stats
    }

    fn greet(&mut self, now: u64) {
        if self.opened(now) {
            self.say(&ClientMessage::Hello(Box::new(self.config.hello.clone())));
        }
    }

    fn deadline(&self) -> Option<u64> {
        let since = self.waits_since.filter(|_| self.connection.is_ready())?;
        Some(since.saturating_add(self.config.answer_timeout_ms))
    }

    fn read_text(&mut self, text: &str, now: u64) {
        if !matches!(self.connection.state, LinkState::Greeting | LinkState::Ready) {
            return;
        }
        self.stats.bytes_down += text.len() as u64;
        match (ServerMessage::decode(text), self.connection.state) {
            (Ok(ServerMessage::Welcome(welcome)), LinkState::Greeting) => self.welcomed(&welcome, now),
            (Ok(ServerMessage::Error(error)), LinkState::Greeting) => self.fail(error, now),
            (Ok(ServerMessage::Overloaded(overloaded)), _) => self.overloaded(overloaded, now),
            (Ok(ServerMessage::Restarting(restarting)), _) => {
                self.leave("the server restarts", retry_at(restarting.retry_ms, now), now);
            }
            (Ok(ServerMessage::Error(error)), LinkState::Ready) => self.refused(&error, now),
            (Ok(ServerMessage::Published(_)), LinkState::Ready) | (Err(MessageError::UnknownType(_)), _) => {}
            (Err(error), _) => self.breach(error.to_string(), now),
            (Ok(_), _) => self.breach("a control message came at the wrong moment".into(), now),
        }
    }

    fn welcomed(&mut self, welcome: &Welcome, now: u64) {
        match self.agree(welcome) {
            Err(error) => {
                self.stats.rejected += 1;
                self.fail(error, now);
            }
            Ok(agreed) => {
                self.agreed = Some(agreed);
                self.connection.welcomed();
                self.stats.sessions += 1;
                self.waits_since = Some(now);
            }
        }
    }

    /// Checks a `welcome` against the introduction: session and the policy's number.
    fn agree(&self, welcome: &Welcome) -> Result<(u32, u32), ErrorMessage> {
        let refuse = |code, message: String| Err(ErrorMessage::new(code, message));
        if welcome.policy != self.config.hello.policy {
            return refuse(ErrorCode::Internal, "welcome: another policy than the one asked for".into());
        }
        if let Err(error) = welcome.check(&self.formats) {
            return refuse(ErrorCode::Internal, error.message);
        }
        let Some(shared) = welcome.shared.as_ref().filter(|_| welcome.grants.contains(&Grant::Gradients))
        else {
            return refuse(ErrorCode::Forbidden, "the server does not grant \"gradients\"".into());
        };
        if shared.settings != self.config.settings {
            let [theirs, ours] = [&shared.settings, &self.config.settings].map(oto_json::write);
            let theirs = theirs.chars().take(2000).collect::<String>();
            return refuse(
                ErrorCode::BadShape,
                format!("the server's agent has the settings {theirs}, this worker has {ours}"),
            );
        }
        Ok((shared.session, welcome.policy_id))
    }

    fn overloaded(&mut self, overloaded: Overloaded, now: u64) {
        self.stats.overloaded += 1;
        let retry = retry_at(overloaded.retry_ms, now);
        if self.connection.state == LinkState::Greeting {
            return self.leave("the server has too much to do", retry, now);
        }
        self.connection.pause(retry);
        if overloaded.request.is_some() && self.waits_since.is_some() && !self.frame.is_empty() {
            self.resend_at = Some(retry);
        }
    }

    /// An error after `welcome`: about a gradient, which is lost, or about the connection, which the server closes.
    fn refused(&mut self, error: &ErrorMessage, now: u64) {
        self.stats.refused += 1;
        self.connection.refused(error);
        if matches!(error.code, ErrorCode::Replaced | ErrorCode::Forbidden) {
            self.fail(error.clone(), now);
        }
    }

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
        if self.waits_since.is_none() {
            return self.breach("parameters came that were not waited for".into(), now);
        }
        match self.read_parameters(frame) {
            // No others would come.
            Err(problem) => {
                self.stats.rejected += 1;
                self.give_up(ErrorCode::BadMessage, problem, now);
            }
            Ok(version) => {
                self.version = version;
                self.arrived = true;
                self.stats.parameters += 1;
                self.connection.failures = 0;
                self.connection.problem = None;
                self.waits_since = None;
                self.resend_at = None;
                self.frame.clear();
            }
        }
    }

    fn read_parameters(&mut self, frame: &[u8]) -> Result<u32, String> {
        let weights = Weights::read(frame, self.values.len()).map_err(|error| error.to_string())?;
        let ids = weights.header().ids;
        if self.agreed != Some((ids.request, ids.policy)) || ids.version == 0 {
            return Err(format!(
                "parameters of session {}, policy {} and version {} came",
                ids.request, ids.policy, ids.version
            ));
        }
        weights.apply(0, &mut self.values, &mut Vec::new()).map_err(|error| error.to_string())?;
        Ok(ids.version)
    }
}

impl Conversation for WorkerLink {
    fn handle(&mut self, event: Event<'_>, now_ms: u64) {
        match event {
            Event::Connected => self.greet(now_ms),
            Event::Text(text) => self.read_text(text, now_ms),
            Event::Binary(frame) => self.read_frame(frame, now_ms),
            Event::Closed { code, reason } => self.closed(code, reason, now_ms),
            Event::Tick => {}
        }
        self.tick(now_ms);
        if self.connection.is_ready() && self.resend_at.is_some_and(|at| now_ms >= at) {
            self.send_frame(now_ms);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.connection.outputs.pop_front()
    }

    fn wake_at(&self) -> Option<u64> {
        match self.connection.is_ready() {
            false => self.connection.wake_at(),
            true => [self.resend_at, self.deadline()].into_iter().flatten().min(),
        }
    }

    fn max_message_bytes(&self) -> usize {
        (WEIGHTS_BYTES + 4 * self.values.len()).max(MAX_CONTROL_BYTES)
    }

    fn set_ticket(&mut self, ticket: String) {
        self.config.hello.ticket = Some(ticket);
    }
}

impl Connected for WorkerLink {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn counters(&mut self) -> Counters<'_> {
        let WorkerStats { connects, timeouts, bytes_up, .. } = &mut self.stats;
        Counters { connects, timeouts, bytes_up }
    }

    fn forget(&mut self) {
        (self.agreed, self.arrived, self.waits_since, self.resend_at) = (None, false, None, None);
        self.frame.clear();
    }

    fn overdue(&mut self, now: u64) -> Option<&'static str> {
        self.deadline().filter(|at| now >= *at).map(|_| "the server sent no parameters in time")
    }
}

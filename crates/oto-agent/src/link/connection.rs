//! The life of a connection, the same for a teacher's link and for an actor's: it opens, greets, waits longer after each failure, and
//! fails for good where the server refuses for good.
//!
//! A link owns a [`Connection`] and implements [`Connected`], whose other methods are the moves between the states.

use super::{CLOSE_NORMAL, LinkState, Output, backoff};
use oto_env::rng::Rng;
use oto_proto::{ClientMessage, ErrorCode, ErrorMessage};
use std::collections::VecDeque;

/// The longest problem that is kept for people, in characters.
const MAX_PROBLEM: usize = 300;

/// What a connection is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The seed of random waits.
    pub seed: u64,
    /// The time for a connection to open, and for a `welcome`, in milliseconds.
    pub timeout_ms: u64,
    /// The shortest and the longest wait between two connections, in milliseconds.
    pub backoff_ms: (u64, u64),
    /// Breaches of the protocol before the link closes the connection.
    pub breaches: u32,
    /// Whether the close code "replaced" ends the link at any time. Otherwise close codes end it before `welcome` only.
    pub replaced: bool,
}

/// The state of a connection, and the messages that wait for the driver.
#[derive(Debug)]
pub(crate) struct Connection {
    limits: Limits,
    pub state: LinkState,
    /// The end of a wait, or a deadline.
    pub state_ends: u64,
    /// No message before this moment: the server asked for a pause.
    pub paused_until: u64,
    /// The server leaves, and said when to come back.
    pub leaving: Option<u64>,
    /// Connections in a row without success.
    pub failures: u32,
    pub failure: Option<ErrorMessage>,
    pub problem: Option<String>,
    /// The server's last error about the connection itself. A close with its code follows, whose reason is one word.
    refusal: Option<ErrorMessage>,
    pub outputs: VecDeque<Output>,
    breaches: u32,
    rng: Rng,
}

impl Connection {
    pub fn new(limits: Limits) -> Self {
        Connection {
            state: LinkState::Off,
            state_ends: 0,
            paused_until: 0,
            leaving: None,
            failures: 0,
            failure: None,
            problem: None,
            refusal: None,
            outputs: VecDeque::new(),
            breaches: 0,
            rng: Rng::new(limits.seed),
            limits,
        }
    }

    /// Whether there is a connection, or one is being made.
    pub fn is_there(&self) -> bool {
        matches!(self.state, LinkState::Connecting | LinkState::Greeting | LinkState::Ready)
    }

    /// Whether the link agreed with a server.
    pub fn is_ready(&self) -> bool {
        self.state == LinkState::Ready
    }

    /// The end of a state that ends by time alone.
    pub fn wake_at(&self) -> Option<u64> {
        use LinkState::{Connecting, Greeting, Waiting};
        matches!(self.state, Waiting | Connecting | Greeting).then_some(self.state_ends)
    }

    /// The server agreed.
    pub fn welcomed(&mut self) {
        self.state = LinkState::Ready;
        self.problem = None;
    }

    /// The server asked for a pause until this moment.
    pub fn pause(&mut self, until: u64) {
        self.paused_until = self.paused_until.max(until);
    }

    /// Keeps a problem for people.
    pub fn note(&mut self, problem: String) {
        self.problem = Some(problem.chars().take(MAX_PROBLEM).collect());
    }

    /// Keeps an error that came after `welcome`.
    pub fn refused(&mut self, error: &ErrorMessage) {
        self.note(error.message.clone());
        if error.request.is_none() {
            self.refusal = Some(error.clone());
        }
    }

    fn failed(&mut self, error: ErrorMessage) {
        self.state = LinkState::Failed;
        self.note(error.message.clone());
        self.failure = Some(error);
    }
}

/// The counters of a link that its connection moves.
pub(crate) struct Counters<'a> {
    pub connects: &'a mut u64,
    pub timeouts: &'a mut u64,
    pub bytes_up: &'a mut u64,
}

/// A link with a connection.
pub(crate) trait Connected {
    fn connection(&mut self) -> &mut Connection;

    fn counters(&mut self) -> Counters<'_>;

    /// Forgets everything that belonged to the connection.
    fn forget(&mut self);

    /// What the other side owes for too long, if anything.
    fn overdue(&mut self, now: u64) -> Option<&'static str>;

    /// Switches the link on, unless it is on.
    fn switch_on(&mut self, now: u64) {
        let connection = self.connection();
        if matches!(connection.state, LinkState::Off | LinkState::Failed) {
            connection.failure = None;
            connection.failures = 0;
            self.open(now);
        }
    }

    /// Switches the link off, with a farewell.
    fn switch_off(&mut self) {
        if self.connection().is_ready() {
            self.say(&ClientMessage::Bye);
        }
        self.hang_up(CLOSE_NORMAL);
        self.connection().state = LinkState::Off;
    }

    fn open(&mut self, now: u64) {
        *self.counters().connects += 1;
        let connection = self.connection();
        connection.state = LinkState::Connecting;
        connection.state_ends = now.saturating_add(connection.limits.timeout_ms);
        connection.outputs.push_back(Output::Connect);
    }

    /// The connection is open: whether `hello` is due.
    fn opened(&mut self, now: u64) -> bool {
        let connection = self.connection();
        if connection.state != LinkState::Connecting {
            return false;
        }
        connection.state = LinkState::Greeting;
        connection.state_ends = now.saturating_add(connection.limits.timeout_ms);
        true
    }

    fn say(&mut self, message: &ClientMessage) {
        let text = message.encode();
        *self.counters().bytes_up += text.len() as u64;
        self.connection().outputs.push_back(Output::Text(text));
    }

    /// Ends the connection if there is one. Only a farewell is still sent.
    fn hang_up(&mut self, code: u16) {
        let connection = self.connection();
        if !connection.is_there() {
            return;
        }
        connection.outputs.retain(|output| matches!(output, Output::Text(_)));
        connection.outputs.push_back(Output::Close(code));
        self.let_go();
    }

    /// Forgets the connection.
    fn let_go(&mut self) {
        self.forget();
        let connection = self.connection();
        connection.breaches = 0;
        connection.paused_until = 0;
        connection.leaving = None;
        connection.refusal = None;
    }

    /// Gives the connection up and tries again later.
    fn give_up(&mut self, code: ErrorCode, problem: String, now: u64) {
        self.connection().outputs.clear();
        self.hang_up(code.close_code());
        self.lost(problem, None, now);
    }

    /// Ends the connection because the server asked to come back later.
    fn leave(&mut self, problem: &str, retry: u64, now: u64) {
        self.hang_up(CLOSE_NORMAL);
        self.lost(problem.into(), Some(retry), now);
    }

    /// The connection is gone: wait, longer each time, at least until the moment the server asked for.
    fn lost(&mut self, problem: String, hint: Option<u64>, now: u64) {
        let connection = self.connection();
        let wait = backoff(connection.limits.backoff_ms, connection.failures, &mut connection.rng);
        connection.failures = connection.failures.saturating_add(1);
        connection.state = LinkState::Waiting;
        connection.state_ends =
            now.saturating_add(wait).max(hint.map_or(0, |hint| hint.saturating_add(wait)));
        connection.note(problem);
    }

    /// The server refused: for good if the error is permanent, because another connection is of no use then.
    fn fail(&mut self, error: ErrorMessage, now: u64) {
        if !error.code.is_permanent() {
            return self.give_up(error.code, error.message, now);
        }
        self.connection().outputs.clear();
        self.hang_up(CLOSE_NORMAL);
        self.connection().failed(error);
    }

    /// The connection was closed.
    fn closed(&mut self, code: Option<u16>, reason: &str, now: u64) {
        let connection = self.connection();
        if !connection.is_there() {
            return;
        }
        let (greeting, replaced) = (connection.state == LinkState::Greeting, connection.limits.replaced);
        let refused = code.and_then(ErrorCode::from_close_code).filter(|code| code.is_permanent());
        let refused = refused.filter(|code| greeting || replaced && *code == ErrorCode::Replaced);
        let hint = connection.leaving;
        let explained = connection.refusal.take().filter(|error| code == Some(error.code.close_code()));
        connection.outputs.clear();
        self.let_go();
        let problem = match (explained, reason, code) {
            (Some(error), ..) => error.message,
            (None, "", Some(code)) => format!("the connection closed with code {code}"),
            (None, "", None) => "the connection was lost".into(),
            (None, reason, _) => reason.to_string(),
        };
        match refused {
            None => self.lost(problem, hint, now),
            Some(code) => self.connection().failed(ErrorMessage::new(code, problem)),
        }
    }

    /// Something came that the protocol does not allow. A few are overlooked.
    fn breached(&mut self, problem: String, now: u64) {
        let connection = self.connection();
        connection.breaches += 1;
        if connection.breaches >= connection.limits.breaches || !connection.is_ready() {
            return self.give_up(ErrorCode::BadMessage, problem, now);
        }
        connection.note(problem);
    }

    /// Moves on where a wait or a deadline is over.
    fn tick(&mut self, now: u64) {
        let connection = self.connection();
        let over = now >= connection.state_ends;
        let problem = match connection.state {
            LinkState::Waiting if over => return self.open(now),
            LinkState::Connecting if over => Some("the connection took too long to open"),
            LinkState::Greeting if over => Some("the server took too long to welcome us"),
            LinkState::Ready => self.overdue(now),
            _ => None,
        };
        if let Some(problem) = problem {
            *self.counters().timeouts += 1;
            self.give_up(ErrorCode::Timeout, problem.into(), now);
        }
    }
}

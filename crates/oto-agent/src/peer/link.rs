//! A member's conversation with the server of its group, without input or output: events and the time go in, messages and the next moment to
//! wake up come out, and so do states that others ask about and logits that others answer.
//!
//! The owner of a socket drives a [`PeerLink`] like a teacher's link. Nothing here waits: a question that is not answered in time, or whose
//! connection is lost, has no answer.
//!
//! What a server sends is not trusted: an answer counts only if it belongs to a question in flight and has its states, its member's width and
//! finite numbers. The link keeps a bounded number of questions, and drops those of others first.

use crate::link::connection::{Connected, Connection, Counters, Limits};
use crate::link::{Conversation, Event, LinkState, Output, retry_at};
use oto_proto::logits::write_logits;
use oto_proto::message::{MAX_CONTROL_BYTES, Overloaded};
use oto_proto::{
    ClientMessage, ErrorCode, ErrorMessage, Formats, Grant, Header, Hello, Ids, Kind, Logits, MessageError,
    PeerInfo, ServerMessage, Welcome,
};
use std::collections::VecDeque;

/// Breaches of the protocol before the link closes the connection.
const MAX_BREACHES: u32 = 8;
/// Questions of others that wait; the oldest goes first.
const MAX_QUESTIONS: usize = 32;
/// How long an answer may take, in milliseconds. The server gives a question up sooner.
const ANSWER_MS: u64 = 15_000;
/// The time for a connection to open, and for a `welcome`, and the waits between two connections, in milliseconds.
const CONNECT_MS: u64 = 5_000;
const BACKOFF_MS: (u64, u64) = (200, 5_000);

/// What a member's link counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Connections opened.
    pub connects: u64,
    /// Sessions agreed upon.
    pub sessions: u64,
    /// Connections given up because nothing came in time.
    pub timeouts: u64,
    /// States that others were asked about.
    pub asked: u64,
    /// States that they answered.
    pub answered: u64,
    /// States without an answer: refused, given up, or lost with a connection.
    pub lost: u64,
    /// States that others asked about.
    pub questions: u64,
    /// States that this member answered.
    pub taught: u64,
    /// States that it did not, because too many waited.
    pub dropped: u64,
    /// How often the server asked for a pause.
    pub overloaded: u64,
    /// Errors that the server sent after its `welcome`.
    pub refused: u64,
    /// Messages that are none, or came at the wrong moment.
    pub rejected: u64,
    /// Bytes sent in messages.
    pub bytes_up: u64,
    /// Bytes received in messages.
    pub bytes_down: u64,
}

oto_json::json_object! {
    PeerStats: written {
        connects, sessions, timeouts, asked, answered, lost, questions, taught, dropped, overloaded, refused, rejected, bytes_up, bytes_down
    }
}

/// A question to another member.
#[derive(Clone, Copy, Debug)]
struct Flying {
    request: u32,
    teacher: u32,
    rows: usize,
    actions: usize,
    deadline: u64,
}

/// A question of another member.
#[derive(Clone, Debug, Default)]
pub struct Question {
    ids: Ids,
    /// The states `[rows, observation]`.
    pub states: Vec<f32>,
}

/// What came of a question.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The question.
    pub request: u32,
    /// The logits `[rows, actions]`; none where there is no answer.
    pub logits: Option<Vec<f32>>,
}

/// What was agreed.
#[derive(Clone, Copy, Debug)]
struct Agreed {
    credits: usize,
    max_rows: usize,
}

/// A member's conversation with the server of its group.
#[derive(Debug)]
pub struct PeerLink {
    hello: Hello,
    formats: Formats,
    connection: Connection,
    agreed: Option<Agreed>,
    teachers: Vec<PeerInfo>,
    flying: Vec<Flying>,
    answers: VecDeque<Answer>,
    questions: VecDeque<Question>,
    next: u32,
    frame: Vec<u8>,
    stats: PeerStats,
}

impl PeerLink {
    /// A link that is switched off. `seed` draws the randomness of waiting times.
    ///
    /// # Errors
    /// If the introduction contradicts itself, or says nothing about the member.
    pub fn new(hello: Hello, seed: u64) -> Result<PeerLink, ErrorMessage> {
        let formats = hello.formats()?;
        if hello.member.is_none() {
            let message = "a member's introduction needs the field \"member\"";
            return Err(ErrorMessage::new(ErrorCode::BadMessage, message));
        }
        let limits = Limits {
            seed,
            timeout_ms: CONNECT_MS,
            backoff_ms: BACKOFF_MS,
            breaches: MAX_BREACHES,
            replaced: true,
        };
        Ok(PeerLink {
            hello,
            formats,
            connection: Connection::new(limits),
            agreed: None,
            teachers: Vec::new(),
            flying: Vec::new(),
            answers: VecDeque::new(),
            questions: VecDeque::new(),
            next: 1,
            frame: Vec::new(),
            stats: PeerStats::default(),
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

    /// The members that may be asked now.
    pub fn teachers(&self) -> &[PeerInfo] {
        &self.teachers
    }

    /// Asks the member of this session about states `[rows, observation]`. None, and nothing is sent, where that is not possible now: no
    /// connection, a pause, too many questions or states, numbers that are not finite.
    pub fn ask(&mut self, teacher: u32, states: &[f32], now_ms: u64) -> Option<u32> {
        let agreed =
            self.agreed.filter(|_| self.connection.is_ready() && self.connection.leaving.is_none())?;
        let actions = self.teachers.iter().find(|peer| peer.session == teacher)?.actions as usize;
        let width = self.formats.states.width();
        let rows = states.len() / width;
        let free = self.flying.len() < agreed.credits && now_ms >= self.connection.paused_until;
        if !free || rows == 0 || rows > agreed.max_rows {
            return None;
        }
        let ids = Ids { request: self.next, policy: teacher, version: 0 };
        let mut writer = self.formats.states.writer(ids, &mut self.frame);
        let written = states.chunks_exact(width).try_for_each(|state| writer.state(state));
        written.and_then(|()| writer.finish()).ok()?;
        self.next = self.next.wrapping_add(1);
        let deadline = now_ms.saturating_add(ANSWER_MS);
        self.flying.push(Flying { request: ids.request, teacher, rows, actions, deadline });
        self.stats.asked += rows as u64;
        self.send();
        Some(ids.request)
    }

    /// Whether another question could be asked now, as far as is known.
    pub fn has_room(&self, now_ms: u64) -> bool {
        let agreed = self.agreed.filter(|_| self.connection.is_ready());
        agreed.is_some_and(|agreed| self.flying.len() < agreed.credits)
            && now_ms >= self.connection.paused_until
    }

    /// The most states of a question; 0 without a connection.
    pub fn max_rows(&self) -> usize {
        self.agreed.map_or(0, |agreed| agreed.max_rows)
    }

    /// What came of a question, once it is known.
    pub fn take_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// The oldest question of another member. [`PeerLink::reply`] answers it.
    pub fn take_question(&mut self) -> Option<Question> {
        self.questions.pop_front()
    }

    /// Answers a question with logits `[rows, actions]`; `updates` is their version. Nothing is sent if its connection is gone, or a number is not
    /// finite.
    pub fn reply(&mut self, question: &Question, logits: &[f32], updates: u64) {
        let rows = question.states.len() / self.formats.states.width();
        if !self.connection.is_ready() || rows == 0 {
            return;
        }
        let version = u32::try_from(updates).unwrap_or(u32::MAX);
        let ids = Ids { version, ..question.ids };
        match write_logits(ids, logits, logits.len() / rows, &mut self.frame) {
            Ok(()) => {
                self.stats.taught += rows as u64;
                self.send();
            }
            Err(error) => self.connection.note(error.to_string()),
        }
    }

    fn send(&mut self) {
        self.stats.bytes_up += self.frame.len() as u64;
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

    /// What was counted so far.
    pub fn stats(&self) -> &PeerStats {
        &self.stats
    }

    fn read_text(&mut self, text: &str, now: u64) {
        if !matches!(self.connection.state, LinkState::Greeting | LinkState::Ready) {
            return;
        }
        self.stats.bytes_down += text.len() as u64;
        match (ServerMessage::decode(text), self.connection.state) {
            (Ok(ServerMessage::Welcome(welcome)), LinkState::Greeting) => self.welcomed(&welcome, now),
            (Ok(ServerMessage::Error(error)), LinkState::Greeting) => self.fail(error, now),
            (Ok(ServerMessage::Peers(peers)), LinkState::Ready) => self.teachers = peers.teachers,
            (Ok(ServerMessage::Overloaded(overloaded)), _) => self.overloaded(overloaded, now),
            (Ok(ServerMessage::Restarting(restarting)), _) => {
                self.leave("the server restarts", retry_at(restarting.retry_ms, now), now);
            }
            (Ok(ServerMessage::Error(error)), LinkState::Ready) => self.refused(&error, now),
            (Err(MessageError::UnknownType(_)), _) => {}
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
                self.connection.failures = 0;
                self.stats.sessions += 1;
            }
        }
    }

    fn agree(&self, welcome: &Welcome) -> Result<Agreed, ErrorMessage> {
        let refuse = |code, message: &str| Err(ErrorMessage::new(code, message));
        if welcome.policy != self.hello.policy {
            return refuse(ErrorCode::Internal, "welcome: another group than the one asked for");
        }
        if let Err(error) = welcome.check(&self.formats) {
            return refuse(ErrorCode::Internal, &error.message);
        }
        if !welcome.grants.contains(&Grant::PeerLogits) {
            return refuse(ErrorCode::Forbidden, "the server does not grant \"peer_logits\"");
        }
        Ok(Agreed { credits: welcome.credits.into(), max_rows: welcome.max_rows.into() })
    }

    fn overloaded(&mut self, overloaded: Overloaded, now: u64) {
        self.stats.overloaded += 1;
        let retry = retry_at(overloaded.retry_ms, now);
        if self.connection.state == LinkState::Greeting {
            return self.leave("the server has too much to do", retry, now);
        }
        self.connection.pause(retry);
        if let Some(request) = overloaded.request {
            self.ends(request, None);
        }
    }

    /// An error after `welcome`: about a question, which has no answer, or about the connection, which the server closes.
    fn refused(&mut self, error: &ErrorMessage, now: u64) {
        self.stats.refused += 1;
        self.connection.refused(error);
        if error.code == ErrorCode::Replaced {
            return self.fail(error.clone(), now);
        }
        if let Some(request) = error.request {
            self.ends(request, None);
        }
    }

    /// A question has its answer, or none. False if there is no such question.
    fn ends(&mut self, request: u32, logits: Option<Vec<f32>>) -> bool {
        let Some(at) = self.flying.iter().position(|flying| flying.request == request) else { return false };
        let rows = self.flying.swap_remove(at).rows as u64;
        match logits {
            Some(_) => self.stats.answered += rows,
            None => self.stats.lost += rows,
        }
        self.answers.push_back(Answer { request, logits });
        true
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
        let read = match frame.first() == Some(&(Kind::PeerLogits as u8)) {
            true => self.read_answer(frame),
            false => self.read_question(frame),
        };
        match read {
            Ok(()) => self.connection.problem = None,
            Err(problem) => self.breach(problem, now),
        }
    }

    fn read_answer(&mut self, frame: &[u8]) -> Result<(), String> {
        let request = Header::request_of(frame).unwrap_or_default();
        let Some(flying) = self.flying.iter().find(|flying| flying.request == request).copied() else {
            return Err(format!("logits came for question {request}, which is not in flight"));
        };
        let read =
            Logits::read(frame, flying.actions, usize::from(u16::MAX)).map_err(|error| error.to_string());
        let read = read.and_then(|read| match (read.ids().policy, read.rows()) {
            (teacher, rows) if teacher == flying.teacher && rows == flying.rows => Ok(read),
            (teacher, rows) => Err(format!(
                "expected logits of member {} for {} states, got some of member {teacher} for {rows}",
                flying.teacher, flying.rows
            )),
        });
        match read {
            Ok(read) => {
                let mut logits = Vec::new();
                read.values(&mut logits);
                self.ends(request, Some(logits));
                Ok(())
            }
            Err(problem) => {
                self.ends(request, None);
                Err(problem)
            }
        }
    }

    fn read_question(&mut self, frame: &[u8]) -> Result<(), String> {
        let states =
            self.formats.states.decode(frame, usize::from(u16::MAX)).map_err(|error| error.to_string())?;
        let (width, rows) = (self.formats.states.width(), states.rows());
        self.stats.questions += rows as u64;
        let mut question = match self.questions.len() >= MAX_QUESTIONS {
            true => self.questions.pop_front().unwrap_or_default(),
            false => Question::default(),
        };
        self.stats.dropped += (question.states.len() / width) as u64;
        question.ids = states.header().ids;
        question.states.clear();
        question.states.resize(rows * width, 0.0);
        for (row, state) in question.states.chunks_exact_mut(width).enumerate() {
            states.read_row(row, state);
        }
        self.questions.push_back(question);
        Ok(())
    }

    /// Questions without an answer for too long have none.
    fn expire(&mut self, now: u64) {
        while let Some(late) = self.flying.iter().find(|flying| now >= flying.deadline).map(|f| f.request) {
            self.ends(late, None);
        }
    }
}

impl Conversation for PeerLink {
    fn handle(&mut self, event: Event<'_>, now_ms: u64) {
        match event {
            Event::Connected => {
                if self.opened(now_ms) {
                    self.say(&ClientMessage::Hello(Box::new(self.hello.clone())));
                }
            }
            Event::Text(text) => self.read_text(text, now_ms),
            Event::Binary(frame) => self.read_frame(frame, now_ms),
            Event::Closed { code, reason } => self.closed(code, reason, now_ms),
            Event::Tick => {}
        }
        self.tick(now_ms);
        self.expire(now_ms);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.connection.outputs.pop_front()
    }

    fn wake_at(&self) -> Option<u64> {
        let first = self.flying.iter().map(|flying| flying.deadline).min();
        [self.connection.wake_at(), first].into_iter().flatten().min()
    }

    fn max_message_bytes(&self) -> usize {
        // A question is no longer than half of what the server holds for a member.
        MAX_CONTROL_BYTES
    }

    fn set_ticket(&mut self, ticket: String) {
        self.hello.ticket = Some(ticket);
    }
}

impl Connected for PeerLink {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn counters(&mut self) -> Counters<'_> {
        let PeerStats { connects, timeouts, bytes_up, .. } = &mut self.stats;
        Counters { connects, timeouts, bytes_up }
    }

    fn forget(&mut self) {
        self.agreed = None;
        self.teachers.clear();
        self.questions.clear();
        while let Some(request) = self.flying.first().map(|flying| flying.request) {
            self.ends(request, None);
        }
    }

    fn overdue(&mut self, _: u64) -> Option<&'static str> {
        None
    }
}

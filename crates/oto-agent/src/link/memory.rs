//! A teacher in the same process: the server's side of the protocol around any function, through the real codec and
//! the real adapters, so that bytes are counted as they would be on a socket. For reports, and with [`Fault`]s for
//! tests of what a network and a bad server can do.

use super::{Event, Link, Output};
use oto_env::rng::Rng;
use oto_proto::message::{CLOSE_RESTARTING, Overloaded, Published, Restarting, Submitted};
use oto_proto::{
    Action, BatchId, ClientMessage, ErrorCode, ErrorMessage, Formats, Grant, HEADER_BYTES, Header, Hello,
    Ids, Kind, Plan, ServerMessage, Space, TeacherInfo, TransitionFormat, Welcome,
};
use std::collections::VecDeque;

/// What a teacher does: answers observations `[rows, observation width]` with actions `[rows, action width]`, which
/// come in empty; an index is its number. An error is a sentence for people.
pub type Act = Box<dyn FnMut(&[f32], usize, &mut Vec<f32>) -> Result<(), String> + Send>;

/// The number that a teacher in memory has on the wire.
const POLICY_ID: u32 = 1;
/// How long it asks to wait, in milliseconds.
const RETRY_MS: u32 = 20;

/// A teacher in memory.
pub struct MemoryTeacher {
    /// The name of its policy.
    pub policy: String,
    /// Its observation space.
    pub observation: Space,
    /// Its action space.
    pub action: Space,
    /// What it does.
    pub act: Act,
    /// The largest request it takes, in rows.
    pub max_rows: u16,
    /// Requests it takes at once.
    pub credits: u16,
}

impl MemoryTeacher {
    /// A teacher with ample limits.
    pub fn new(policy: impl Into<String>, observation: Space, action: Space, act: Act) -> Self {
        MemoryTeacher { policy: policy.into(), observation, action, act, max_rows: 4096, credits: 16 }
    }
}

/// Something that goes wrong with an answer on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It never comes.
    Mute,
    /// Random bytes come instead.
    Garbage,
    /// It has a row too many.
    WrongCount,
    /// It names another request.
    WrongRequest,
    /// It names another policy.
    WrongPolicy,
    /// It names a version from before the connection.
    Stale,
    /// Its last number is no action.
    BadAction,
    /// It comes twice.
    Twice,
    /// `overloaded` comes instead.
    Overloaded,
    /// An error about the request comes instead.
    Refused,
    /// A text that is no control message comes instead.
    BadText,
    /// The connection breaks instead.
    Cut,
    /// The server restarts after it.
    Restart,
}

/// Drives a [`Link`] with a teacher in memory.
pub struct Memory {
    teacher: MemoryTeacher,
    version: u32,
    session: Option<Session>,
    inbox: VecDeque<(u64, Delivery)>,
    /// Whether connections are accepted.
    present: bool,
    delay_ms: (u64, u64),
    faults: Vec<(Fault, f64)>,
    rng: Rng,
    observations: Vec<f32>,
    actions: Vec<f32>,
    student_action: Vec<f32>,
    /// What was submitted, if it may be.
    collected: Option<Vec<Collected>>,
}

/// A batch that a student submitted: its name, and its rows as they came.
pub type Collected = (BatchId, Vec<Vec<f32>>);

/// What `hello` settled.
struct Session {
    formats: Formats,
    plan: Plan,
    /// There if it was granted.
    transitions: Option<TransitionFormat>,
}

enum Delivery {
    Connected,
    Text(String),
    Binary(Vec<u8>),
    Closed(Option<u16>),
}

impl Memory {
    /// Drives with a teacher that answers at once and never fails.
    pub fn new(teacher: MemoryTeacher) -> Self {
        Memory {
            teacher,
            version: 1,
            session: None,
            inbox: VecDeque::new(),
            present: true,
            delay_ms: (0, 0),
            faults: Vec::new(),
            rng: Rng::new(0),
            observations: Vec::new(),
            actions: Vec::new(),
            student_action: Vec::new(),
            collected: None,
        }
    }

    /// From the next connection on, submissions are taken.
    pub fn collect(&mut self) {
        self.collected = Some(Vec::new());
    }

    /// What was submitted, repetitions included. Of an observation's, an action's, a reward's and a next observation's
    /// numbers each row is made, and two that are 1 where it was terminated and truncated.
    pub fn collected(&self) -> &[Collected] {
        self.collected.as_deref().unwrap_or_default()
    }

    /// From now on every message takes between `delay_ms.0` and `delay_ms.1` milliseconds (they never overtake each
    /// other), and answers suffer from faults, each with its probability; the first that strikes is the only one.
    pub fn disturb(&mut self, seed: u64, delay_ms: (u64, u64), faults: Vec<(Fault, f64)>) {
        self.rng = Rng::new(seed);
        self.delay_ms = delay_ms;
        self.faults = faults;
    }

    /// Whether connections are accepted. A server that goes away breaks the one there is.
    pub fn set_present(&mut self, present: bool, now_ms: u64) {
        self.present = present;
        if !present && self.session.is_some() {
            self.close(None, now_ms);
        }
    }

    /// Replaces the policy by its next version.
    pub fn publish(&mut self, now_ms: u64) {
        self.version += 1;
        if self.session.is_some() {
            self.say(&ServerMessage::Published(Published { version: self.version }), now_ms);
        }
    }

    /// The version that answers now.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Carries out what the link wants and delivers what is due, until nothing is left to do at this moment.
    pub fn poll(&mut self, link: &mut Link, now_ms: u64) {
        loop {
            while let Some(output) = link.poll_output() {
                self.carry_out(output, now_ms);
            }
            if self.inbox.front().is_some_and(|(due, _)| *due <= now_ms) {
                if let Some((_, delivery)) = self.inbox.pop_front() {
                    deliver(delivery, link, now_ms);
                }
            } else if link.wake_at().is_some_and(|at| at <= now_ms) {
                link.handle(Event::Tick, now_ms);
            } else {
                return;
            }
        }
    }

    /// When something will happen by itself.
    pub fn wake_at(&self, link: &Link) -> Option<u64> {
        let due = self.inbox.front().map(|(due, _)| *due);
        [due, link.wake_at()].into_iter().flatten().min()
    }

    fn carry_out(&mut self, output: Output, now: u64) {
        match output {
            Output::Connect => {
                self.session = None;
                self.inbox.clear();
                self.send(if self.present { Delivery::Connected } else { Delivery::Closed(None) }, now);
            }
            Output::Text(text) => self.read_text(&text, now),
            Output::Binary(frame) => self.read_frame(&frame, now),
            Output::Close(_) => {
                self.session = None;
                self.inbox.clear();
            }
        }
    }

    fn send(&mut self, delivery: Delivery, now: u64) {
        let (shortest, longest) = self.delay_ms;
        let delay = shortest + (self.rng.f64() * (longest - shortest + 1) as f64) as u64;
        let due = self.inbox.back().map_or(0, |(due, _)| *due).max(now + delay);
        self.inbox.push_back((due, delivery));
    }

    fn say(&mut self, message: &ServerMessage, now: u64) {
        self.send(Delivery::Text(message.encode()), now);
    }

    fn close(&mut self, code: Option<u16>, now: u64) {
        self.session = None;
        self.send(Delivery::Closed(code), now);
    }

    fn read_text(&mut self, text: &str, now: u64) {
        let Ok(ClientMessage::Hello(hello)) = ClientMessage::decode(text) else { return };
        match self.greet(&hello) {
            Ok((session, welcome)) => {
                self.session = Some(session);
                self.say(&ServerMessage::Welcome(Box::new(welcome)), now);
            }
            Err(error) => {
                let code = error.code.close_code();
                self.say(&ServerMessage::Error(error), now);
                self.close(Some(code), now);
            }
        }
    }

    fn greet(&mut self, hello: &Hello) -> Result<(Session, Welcome), ErrorMessage> {
        let teacher = &self.teacher;
        let formats = hello.formats()?;
        if hello.policy != teacher.policy {
            let message = format!("no policy is named {:?}, there is {:?}", hello.policy, teacher.policy);
            return Err(ErrorMessage::new(ErrorCode::UnknownPolicy, message));
        }
        let adapter = hello.adapter.clone().unwrap_or_default();
        let plan = adapter.check(&hello.observation, &hello.action, &teacher.observation, &teacher.action)?;
        let transitions = TransitionFormat::new(&formats, &hello.action);
        let transitions =
            Some(transitions).filter(|_| self.collected.is_some() && hello.grants.contains(&Grant::Submit));
        let grants = [Some(Grant::Actions), transitions.as_ref().map(|_| Grant::Submit)];
        let welcome = Welcome {
            policy: teacher.policy.clone(),
            policy_id: POLICY_ID,
            version: self.version,
            max_rows: teacher.max_rows,
            credits: teacher.credits,
            dtype: formats.states.dtype(),
            action_dtype: formats.actions.dtype(),
            action_width: formats.actions.width() as u32,
            grants: grants.into_iter().flatten().collect(),
            submit_rows: transitions.as_ref().map(|_| teacher.max_rows),
            learner: None,
            shared: None,
            order: None,
            group: None,
            teacher: TeacherInfo {
                observation: teacher.observation.clone(),
                action: teacher.action.clone(),
                description: "A teacher in memory.".into(),
            },
        };
        Ok((Session { formats, plan, transitions }, welcome))
    }

    fn read_frame(&mut self, frame: &[u8], now: u64) {
        let Some(session) = self.session.take() else { return };
        if let (Some(transitions), true) =
            (&session.transitions, frame.first() == Some(&(Kind::Submit as u8)))
        {
            let said = self.take(transitions, frame);
            let cut = self.faults.iter().any(|(fault, p)| *fault == Fault::Cut && self.rng.f64() < *p);
            self.session = Some(session);
            // A connection that breaks after a batch was kept and before its student knows.
            return if cut { self.close(None, now) } else { self.say(&said, now) };
        }
        let answer = self.answer(&session, frame);
        self.session = Some(session);
        match answer {
            Ok(answer) => self.send_with_faults(answer, now),
            Err(error) => self.say(&ServerMessage::Error(error.about(Header::request_of(frame))), now),
        }
    }

    fn take(&mut self, format: &TransitionFormat, frame: &[u8]) -> ServerMessage {
        let read = match format.decode(frame, usize::from(self.teacher.max_rows)) {
            Ok(read) => read,
            Err(error) => {
                return ServerMessage::Error(ErrorMessage::from(error).about(Header::request_of(frame)));
            }
        };
        let mut numbers = vec![0.0; format.width()];
        let rows = (0..read.rows()).map(|row| {
            let t = read.read_row(row, &mut numbers);
            let ends = [t.terminated, t.truncated].map(|end| f32::from(u8::from(end)));
            [t.observation, t.action, &[t.reward], t.next_observation, &ends].concat()
        });
        let (request, batch, rows) = (read.header().ids.request, read.batch(), rows.collect());
        self.collected.get_or_insert_default().push((batch, rows));
        ServerMessage::Submitted(Submitted { request, batch })
    }

    fn answer(&mut self, session: &Session, frame: &[u8]) -> Result<Vec<u8>, ErrorMessage> {
        let Session { formats, plan, .. } = session;
        let states = formats.states.decode(frame, usize::from(self.teacher.max_rows))?;
        let width = self.teacher.observation.width();
        let mut state = vec![0.0; formats.states.width()];
        self.observations.resize(states.rows() * width, 0.0);
        for (row, observation) in self.observations.chunks_exact_mut(width).enumerate() {
            states.read_row(row, &mut state);
            plan.observation(&state, observation)?;
        }
        self.actions.clear();
        (self.teacher.act)(&self.observations, states.rows(), &mut self.actions)
            .map_err(|message| ErrorMessage::new(ErrorCode::PolicyFailed, message))?;
        let width = self.teacher.action.width();
        if self.actions.len() != states.rows() * width {
            let message = format!(
                "expected {} numbers, the teacher gave {}",
                states.rows() * width,
                self.actions.len()
            );
            return Err(ErrorMessage::new(ErrorCode::PolicyFailed, message));
        }
        self.student_action.resize(formats.actions.width(), 0.0);
        let mut out = Vec::with_capacity(formats.actions.frame_bytes(states.rows()));
        let ids = Ids { version: self.version, ..states.header().ids };
        let mut writer = formats.actions.writer(ids, &mut out);
        for row in self.actions.chunks_exact(width) {
            let answer = match self.teacher.action {
                Space::Discrete { .. } => Action::Discrete(row[0] as u32),
                Space::Box { .. } => Action::Continuous(row),
            };
            writer.action(plan.action(answer, &mut self.student_action)?)?;
        }
        writer.finish()?;
        Ok(out)
    }

    fn send_with_faults(&mut self, mut frame: Vec<u8>, now: u64) {
        let rng = &mut self.rng;
        let fault =
            self.faults.iter().find(|(_, probability)| rng.f64() < *probability).map(|(fault, _)| *fault);
        let request = Header::request_of(&frame);
        match fault {
            None => {}
            Some(Fault::Mute) => return,
            Some(Fault::Garbage) => {
                let length = rng.below(64) as usize;
                frame = (0..length).map(|_| rng.below(256) as u8).collect();
            }
            Some(Fault::WrongCount) => {
                let rows = u16::from_le_bytes([frame[2], frame[3]]);
                let row = frame[HEADER_BYTES..][..(frame.len() - HEADER_BYTES) / usize::from(rows)].to_vec();
                frame.extend(row);
                frame[2..4].copy_from_slice(&(rows + 1).to_le_bytes());
            }
            Some(Fault::WrongRequest) => frame[7] ^= 0x80,
            Some(Fault::WrongPolicy) => frame[8] ^= 0xff,
            Some(Fault::Stale) => frame[12..16].fill(0),
            Some(Fault::BadAction) => {
                // An index far out of range, or a NaN.
                let end = frame.len();
                frame[end.saturating_sub(4).max(HEADER_BYTES)..].fill(0xff);
            }
            Some(Fault::Twice) => self.send(Delivery::Binary(frame.clone()), now),
            Some(Fault::Overloaded) => {
                return self.say(&ServerMessage::Overloaded(Overloaded { request, retry_ms: RETRY_MS }), now);
            }
            Some(Fault::Refused) => {
                let error =
                    ErrorMessage::new(ErrorCode::PolicyFailed, "the policy has no answer").about(request);
                return self.say(&ServerMessage::Error(error), now);
            }
            Some(Fault::BadText) => return self.send(Delivery::Text("{\"type\":\"welcome\"".into()), now),
            Some(Fault::Cut) => return self.close(None, now),
            Some(Fault::Restart) => {
                self.say(&ServerMessage::Restarting(Restarting { retry_ms: RETRY_MS }), now);
                self.send(Delivery::Binary(frame), now);
                return self.close(Some(CLOSE_RESTARTING), now);
            }
        }
        self.send(Delivery::Binary(frame), now);
    }
}

fn deliver(delivery: Delivery, link: &mut Link, now: u64) {
    match delivery {
        Delivery::Connected => link.handle(Event::Connected, now),
        Delivery::Text(text) => link.handle(Event::Text(&text), now),
        Delivery::Binary(frame) => link.handle(Event::Binary(&frame), now),
        Delivery::Closed(code) => link.handle(Event::Closed { code, reason: "" }, now),
    }
}

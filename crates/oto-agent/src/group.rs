//! A group of students that learn from each other's logits, without sockets: `oto serve --group`.
//!
//! A member joins under a name with its spaces. It asks another member about states, the group passes them on, and the logits come back
//! under the numbers of the member's question. The group computes nothing but zeros for channels that a member lacks. Each question is answered,
//! refused or given up after a time; each member has a bounded number of them. A member that leaves costs the others its answers alone.

use oto_proto::logits::MAX_MEMBERS;
use oto_proto::{
    Dtype, ErrorCode, ErrorMessage, FrameError, GroupInfo, HEADER_BYTES, Ids, Logits, MemberInfo, PeerInfo,
    Peers, ServerMessage, Space, StateFormat,
};
use oto_rl::distillation::MAX_ACTIONS;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Questions of one member that wait for an answer.
pub const CREDITS: u16 = 8;
/// The most states of one question.
const MAX_ROWS: usize = 256;
/// Bytes of states that wait for one member.
const QUEUE_BYTES: usize = 1 << 20;
/// How long a question waits for its answer, in milliseconds.
const ANSWER_MS: u64 = 10_000;

/// The settings of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupConfig {
    /// The most members at once.
    pub members: usize,
    /// The most states that one member may ask about in a second.
    pub states_per_second: f64,
    /// The students of each teacher, by names; none: all teach all.
    pub teaches: Option<BTreeMap<String, Vec<String>>>,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self { members: 8, states_per_second: 2000.0, teaches: None }
    }
}

/// A setting of a group out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GroupConfigError {
    /// The number of members.
    #[error("members: expected 2 to {MAX_MEMBERS}, got {0}")]
    Members(usize),
    /// The rate.
    #[error("states_per_second: expected a number from 1 to 1e6, got {0}")]
    Rate(f64),
}

impl GroupConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first that is out of its range.
    pub fn check(&self) -> Result<(), GroupConfigError> {
        if !(2..=MAX_MEMBERS).contains(&self.members) {
            return Err(GroupConfigError::Members(self.members));
        }
        match (1.0..=1e6).contains(&self.states_per_second) {
            true => Ok(()),
            false => Err(GroupConfigError::Rate(self.states_per_second)),
        }
    }
}

/// Why the group refuses something. It changes nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// There are as many members as may be.
    #[error("expected one of at most {0} members at once, got another one")]
    Full(usize),
    /// Its actions are not discrete, or too many.
    #[error("expected a member of 1 to {MAX_ACTIONS} discrete actions, got {0:?}")]
    Actions(Space),
    /// Its observations are too wide for a frame.
    #[error("expected states of at most {max} numbers, got {found}")]
    Observation {
        /// What came.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// States that travel in another form.
    #[error("expected states in f32, got {0:?}")]
    Dtype(Dtype),
    /// A channel that does not divide its observations.
    #[error("expected channels that make {width} numbers, got channels of {channel}")]
    Channel {
        /// Numbers of an observation.
        width: usize,
        /// Numbers of a channel.
        channel: usize,
    },
    /// A newer session of the same name has taken over, or the group is closed.
    #[error("a newer session of this member has taken over session {0}")]
    Replaced(u32),
    /// States for a session that is no teacher of this member now.
    #[error("expected states for a teacher of this member, got some for session {0}")]
    Stranger(u32),
    /// Not a frame of states or logits as agreed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Logits for states that this member was not asked about.
    #[error("expected logits for a question of this member, got some for question {0}")]
    Unasked(u32),
    /// Logits for more or fewer states.
    #[error("expected logits for {expected} states, got them for {found}")]
    Rows {
        /// States of the question.
        expected: usize,
        /// Rows of the answer.
        found: usize,
    },
    /// A question beyond what may wait.
    #[error("expected at most {CREDITS} questions at once")]
    Credits,
    /// Too many states in a second. The milliseconds until the next ones are allowed.
    #[error("expected fewer states a second")]
    Quota(u32),
    /// The teacher has too much to do.
    #[error("the member that was asked has too many questions")]
    Busy,
}

impl Refusal {
    /// What tells the member.
    pub fn error(&self) -> ErrorMessage {
        let code = match self {
            Refusal::Full(_) => ErrorCode::Forbidden,
            Refusal::Actions(_) | Refusal::Observation { .. } | Refusal::Channel { .. } => {
                ErrorCode::SpaceMismatch
            }
            Refusal::Dtype(_) => ErrorCode::BadDtype,
            Refusal::Replaced(_) => ErrorCode::Replaced,
            Refusal::Stranger(_) => ErrorCode::UnknownPolicy,
            Refusal::Frame(error) => error.code(),
            Refusal::Unasked(_) => ErrorCode::BadMessage,
            Refusal::Rows { .. } => ErrorCode::BadShape,
            Refusal::Credits | Refusal::Quota(_) | Refusal::Busy => ErrorCode::TooLarge,
        };
        ErrorMessage::new(code, self.to_string())
    }

    /// How long to wait before the same may be tried again, in milliseconds; none where it may not be.
    pub fn retry_ms(&self) -> Option<u32> {
        match self {
            Refusal::Credits | Refusal::Busy => Some(50),
            Refusal::Quota(ms) => Some(*ms),
            _ => None,
        }
    }

    /// Whether a correct member does this too: it asks a member that has just left.
    pub fn is_harmless(&self) -> bool {
        matches!(self, Refusal::Stranger(_) | Refusal::Unasked(_)) || self.retry_ms().is_some()
    }

    /// Its name for counters.
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::Full(_) => "full",
            Refusal::Actions(_) => "actions",
            Refusal::Observation { .. } | Refusal::Channel { .. } => "observation",
            Refusal::Dtype(_) => "dtype",
            Refusal::Replaced(_) => "replaced",
            Refusal::Stranger(_) => "stranger",
            Refusal::Frame(error) => error.name(),
            Refusal::Unasked(_) => "unasked",
            Refusal::Rows { .. } => "rows",
            Refusal::Credits => "credits",
            Refusal::Quota(_) => "quota",
            Refusal::Busy => "busy",
        }
    }
}

/// A message from the group to a member.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// A control message.
    Message(ServerMessage),
    /// States for it, or logits for it.
    Frame(Vec<u8>),
}

/// What happened to a frame that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The session that has something to hear.
    pub to: u32,
    /// States that were passed on, or states that were answered.
    pub rows: usize,
}

struct Member {
    name: String,
    width: usize,
    channel: usize,
    actions: usize,
    states: StateFormat,
    /// Messages for it, besides news of the members.
    out: VecDeque<Said>,
    /// Whether the members that it may ask are others than it knows.
    news: bool,
    /// Bytes of questions in `out` and without an answer.
    bytes: usize,
    /// Its questions without an answer: the teacher and the number there.
    asked: VecDeque<(u32, u32)>,
    /// States that it may ask about now, and when that was counted.
    budget: (f64, u64),
    /// The number of the next question to it.
    next: u32,
}

/// A question on its way.
struct Question {
    student: u32,
    request: u32,
    rows: usize,
    bytes: usize,
    until: u64,
}

/// A group of students.
pub struct Group {
    config: GroupConfig,
    members: BTreeMap<u32, Member>,
    /// By the teacher's session and the question's number there.
    questions: HashMap<(u32, u32), Question>,
    sessions: u32,
    observation: Vec<f32>,
}

impl Group {
    /// A group without members.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn new(config: GroupConfig) -> Result<Self, GroupConfigError> {
        config.check()?;
        let (members, questions) = (BTreeMap::new(), HashMap::new());
        Ok(Self { config, members, questions, sessions: 0, observation: Vec::new() })
    }

    /// Members now.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether a session is open.
    pub fn has(&self, session: u32) -> bool {
        self.members.contains_key(&session)
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The most states in a question about observations of this width.
    pub fn max_rows(width: usize) -> usize {
        (QUEUE_BYTES / 2 / (4 * width.max(1))).min(MAX_ROWS)
    }

    /// Begins a session of a member, with the format of its states. An older session of its name is over. Also gives that session.
    ///
    /// # Errors
    /// Too many members; unusable spaces.
    pub fn join(
        &mut self,
        member: &MemberInfo,
        states: StateFormat,
        action: &Space,
        now_ms: u64,
    ) -> Result<(GroupInfo, Option<u32>), Refusal> {
        let actions = match action {
            Space::Discrete { n } if (1..=MAX_ACTIONS as u32).contains(n) => *n as usize,
            other => return Err(Refusal::Actions(other.clone())),
        };
        let (width, channel) = (states.width(), member.channel as usize);
        if states.dtype() != Dtype::F32 {
            return Err(Refusal::Dtype(states.dtype()));
        }
        if Self::max_rows(width) == 0 {
            return Err(Refusal::Observation { found: width, max: QUEUE_BYTES / 8 });
        }
        if channel > 0 && !width.is_multiple_of(channel) {
            return Err(Refusal::Channel { width, channel });
        }
        let older = self.members.iter().find(|(_, other)| other.name == member.name).map(|(id, _)| *id);
        match older {
            Some(older) => self.leave(older),
            None if self.members.len() >= self.config.members => {
                return Err(Refusal::Full(self.config.members));
            }
            None => {}
        }
        self.sessions = self.sessions.wrapping_add(1).max(1);
        let session = self.sessions;
        let states_per_second = self.config.states_per_second;
        let joined = Member {
            name: member.name.clone(),
            width,
            channel,
            actions,
            states,
            out: VecDeque::new(),
            news: true,
            bytes: 0,
            asked: VecDeque::new(),
            budget: (states_per_second, now_ms),
            next: 0,
        };
        self.members.insert(session, joined);
        self.tell();
        Ok((GroupInfo { session, states_per_second }, older))
    }

    /// A session is over; nothing happens if it was before. Its questions are forgotten, and those to it are refused.
    pub fn leave(&mut self, session: u32) {
        let Some(left) = self.members.remove(&session) else { return };
        for (teacher, number) in left.asked {
            // A later answer of the teacher is dropped.
            self.forget(teacher, number);
        }
        let to =
            self.questions.keys().filter(|(teacher, _)| *teacher == session).copied().collect::<Vec<_>>();
        for (teacher, number) in to {
            let why = ErrorMessage::new(ErrorCode::PolicyFailed, "the member that was asked has left");
            self.give_up(teacher, number, why);
        }
        self.tell();
    }

    /// All members are to hear whom they may ask.
    fn tell(&mut self) {
        self.members.values_mut().for_each(|member| member.news = true);
    }

    /// Sessions that have something to hear.
    pub fn waiting(&self) -> impl Iterator<Item = u32> {
        self.members.iter().filter(|(_, member)| member.news || !member.out.is_empty()).map(|(id, _)| *id)
    }

    /// The next message for a session.
    pub fn next(&mut self, session: u32) -> Option<Said> {
        let member = self.members.get_mut(&session)?;
        if std::mem::take(&mut member.news) {
            let student = &self.members[&session];
            let teaches = |(id, teacher): (&u32, &Member)| {
                let peer =
                    || PeerInfo { session: *id, name: teacher.name.clone(), actions: teacher.actions as u32 };
                (*id != session && self.config.may_teach(teacher, student)).then(peer)
            };
            let teachers = self.members.iter().filter_map(teaches).collect();
            return Some(Said::Message(ServerMessage::Peers(Peers { teachers })));
        }
        member.out.pop_front()
    }

    /// Takes a frame of states that a session asks another one about.
    ///
    /// # Errors
    /// The first reason to refuse it.
    pub fn ask(&mut self, session: u32, frame: &[u8], now_ms: u64) -> Result<Passed, Refusal> {
        self.expire(session, now_ms);
        let Group { config, members, questions, observation, .. } = self;
        let student = members.get(&session).ok_or(Refusal::Replaced(session))?;
        let states = student.states.decode(frame, Self::max_rows(student.width))?;
        let (Ids { request, policy: to, .. }, rows) = (states.header().ids, states.rows());
        let teacher = members.get(&to).filter(|teacher| to != session && config.may_teach(teacher, student));
        let teacher = teacher.ok_or(Refusal::Stranger(to))?;
        let bytes = HEADER_BYTES + 4 * rows * teacher.width;
        if student.asked.len() >= usize::from(CREDITS) {
            return Err(Refusal::Credits);
        }
        if teacher.bytes + bytes > QUEUE_BYTES {
            return Err(Refusal::Busy);
        }
        let rate = config.states_per_second;
        let (left, counted) = student.budget;
        let left = (left + now_ms.saturating_sub(counted) as f64 * rate / 1000.0).min(rate);
        if left < 1.0 {
            return Err(Refusal::Quota(((1.0 - left) * 1000.0 / rate).ceil().min(60_000.0) as u32));
        }
        let number = teacher.next;
        let ids = Ids { request: number, policy: session, version: 0 };
        let mut question = Vec::with_capacity(bytes);
        let mut writer = teacher.states.writer(ids, &mut question);
        observation.clear();
        observation.resize(teacher.width, 0.0);
        for row in 0..rows {
            // Channels that the student lacks stay 0.
            states.read_row(row, &mut observation[..student.width]);
            writer.state(observation)?;
        }
        writer.finish()?;
        let until = now_ms.saturating_add(ANSWER_MS);
        questions.insert((to, number), Question { student: session, request, rows, bytes, until });
        let student = members.get_mut(&session).ok_or(Refusal::Replaced(session))?;
        student.budget = (left - rows as f64, now_ms);
        student.asked.push_back((to, number));
        let teacher = members.get_mut(&to).ok_or(Refusal::Stranger(to))?;
        teacher.next = teacher.next.wrapping_add(1);
        teacher.bytes += bytes;
        teacher.out.push_back(Said::Frame(question));
        Ok(Passed { to, rows })
    }

    /// Takes a frame of logits from a session that was asked.
    ///
    /// # Errors
    /// The first reason to refuse it. If the question exists, its student is informed that there is no answer.
    pub fn answer(&mut self, session: u32, frame: &[u8]) -> Result<Passed, Refusal> {
        let teacher = self.members.get(&session).ok_or(Refusal::Replaced(session))?;
        let number = oto_proto::Header::request_of(frame).unwrap_or_default();
        let found = self.questions.get(&(session, number)).map(|q| (q.student, q.request, q.rows));
        let read = Logits::read(frame, teacher.actions, usize::from(u16::MAX)).map_err(Refusal::from);
        let read = read.and_then(|read| match found {
            None => Err(Refusal::Unasked(number)),
            Some((student, ..)) if read.ids().policy != student => Err(Refusal::Stranger(read.ids().policy)),
            Some((.., rows)) if rows != read.rows() => {
                Err(Refusal::Rows { expected: rows, found: read.rows() })
            }
            Some((student, request, rows)) => Ok((read, student, request, rows)),
        });
        match read {
            Err(refusal) => {
                let why = ErrorMessage::new(
                    ErrorCode::PolicyFailed,
                    "the member that was asked gave no usable answer",
                );
                self.give_up(session, number, why);
                Err(refusal)
            }
            Ok((logits, to, request, rows)) => {
                let mut answer = Vec::with_capacity(frame.len());
                let ids = Ids { request, policy: session, version: logits.ids().version };
                logits.readdress(ids, &mut answer);
                self.forget(session, number);
                if let Some(student) = self.members.get_mut(&to) {
                    student.out.push_back(Said::Frame(answer));
                }
                Ok(Passed { to, rows })
            }
        }
    }

    /// Gives up the questions of a session that wait too long.
    pub fn expire(&mut self, session: u32, now_ms: u64) {
        while let Some(first) = self.members.get(&session).and_then(|member| member.asked.front()).copied() {
            let late = self.questions.get(&first).is_none_or(|question| question.until <= now_ms);
            if !late {
                return;
            }
            let why = ErrorMessage::new(ErrorCode::Timeout, "the member that was asked took too long");
            self.give_up(first.0, first.1, why);
        }
    }

    /// Informs the student of a question that has no answer.
    fn give_up(&mut self, teacher: u32, number: u32, why: ErrorMessage) {
        let Some(question) = self.forget(teacher, number) else { return };
        if let Some(student) = self.members.get_mut(&question.student) {
            let error = why.about(Some(question.request));
            student.out.push_back(Said::Message(ServerMessage::Error(error)));
        }
    }

    /// Takes a question away from both sides.
    fn forget(&mut self, teacher: u32, number: u32) -> Option<Question> {
        if let Some(student) = self.questions.get(&(teacher, number)).map(|question| question.student)
            && let Some(student) = self.members.get_mut(&student)
        {
            student.asked.retain(|asked| *asked != (teacher, number));
        }
        let question = self.questions.remove(&(teacher, number))?;
        if let Some(teacher) = self.members.get_mut(&teacher) {
            teacher.bytes = teacher.bytes.saturating_sub(question.bytes);
        }
        Some(question)
    }
}

impl GroupConfig {
    /// Whether a member answers another one's states: by their names, and by their observations.
    fn may_teach(&self, teacher: &Member, student: &Member) -> bool {
        let named = self.teaches.as_ref().is_none_or(|teaches| {
            teaches.get(&teacher.name).is_some_and(|students| students.contains(&student.name))
        });
        let wider =
            student.channel > 0 && student.channel == teacher.channel && teacher.width > student.width;
        named && (teacher.width == student.width || wider)
    }
}

#[cfg(test)]
mod storm;
#[cfg(test)]
mod tests;

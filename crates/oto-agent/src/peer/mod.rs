//! A student in a group of a server: it asks other members about the states of its rollouts, learns from the logits that come back, and
//! answers their questions with its own policy (the collaborative protocol of Lin et al. 2017).
//!
//! [`link`] is the conversation, without sockets. [`Peers`] drives it between the steps of a run, and never waits: a rollout is learnt from at
//! once, and again, by the distillation alone, when its logits have come.

pub mod link;

use crate::config::StudentConfig;
use crate::drive::random;
use crate::link::LinkState;
use crate::link::tungstenite::Socket;
use link::{PeerLink, PeerStats};
use oto_proto::{Dtype, Grant, Hello, MemberInfo, PROTOCOL, Space};
use oto_rl::algorithms::OnPolicy;
use oto_rl::replay::Batch;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Rollouts whose logits are waited for.
const MAX_WAITING: usize = 4;
/// From one look at the socket to the next.
const PERIOD: Duration = Duration::from_micros(200);
/// The pause between two looks before the run begins.
const PAUSE: Duration = Duration::from_millis(2);
/// How long a member waits for its group, and then for the others, in milliseconds.
const CONNECT_MS: u64 = 30_000;
const OTHERS_MS: u64 = 120_000;

/// A run's place in a group: a part of its configuration.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// The server's address.
    pub url: String,
    /// The group's name.
    pub group: String,
    /// The member's name.
    pub member: String,
    /// The members that teach this one, in the order of the last teachers of `algorithm.distillation`.
    pub teachers: Vec<String>,
}

/// Why a run cannot be a member of a group.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The server refuses, or does not agree in time.
    #[error("{0}")]
    Refused(String),
    /// The others do not come.
    #[error(
        "expected {expected} members of the group that see this one's states within 120 seconds, found {found}"
    )]
    Alone {
        /// Members that were waited for.
        expected: usize,
        /// Members that came.
        found: usize,
    },
}

/// A name for a member that was given none.
pub fn random_name() -> String {
    format!("member-{:016x}", random() >> 64)
}

/// A rollout whose logits are to come.
#[derive(Default)]
pub(crate) struct Late {
    /// The rollout as it was learnt from.
    pub batch: Batch,
    /// The logits of each teacher for the first states.
    pub answers: Vec<Option<Vec<f32>>>,
    requests: Vec<Option<u32>>,
}

/// The other members of a group, as teachers of a run.
pub struct Peers {
    link: PeerLink,
    socket: Socket,
    /// Name and number of actions of each teacher.
    teachers: Vec<(String, usize)>,
    waiting: VecDeque<Late>,
    free: Vec<Late>,
    looked: Option<Instant>,
}

impl Peers {
    /// Joins a group, as a student of these spaces. `channel` is the size of a channel of its images (0: no images).
    ///
    /// # Errors
    /// Spaces or names that cannot travel.
    pub fn new(
        socket: Socket,
        config: &PeerConfig,
        [observation, action]: [&Space; 2],
        channel: usize,
        seed: u64,
    ) -> Result<Self, PeerError> {
        let member =
            MemberInfo { name: config.member.clone(), channel: u32::try_from(channel).unwrap_or(u32::MAX) };
        let hello = Hello {
            order: None,
            protocol: PROTOCOL.into(),
            policy: config.group.clone(),
            student: config.member.clone(),
            observation: observation.clone(),
            action: action.clone(),
            adapter: None,
            dtype: Dtype::F32,
            action_dtype: None,
            quantization: None,
            grants: vec![Grant::PeerLogits],
            stage: None,
            ticket: None,
            actor: None,
            worker: None,
            member: Some(member),
        };
        let mut link = PeerLink::new(hello, seed).map_err(|error| PeerError::Refused(error.message))?;
        link.connect(socket.now_ms());
        let (teachers, waiting, free) = (Vec::new(), VecDeque::new(), Vec::new());
        Ok(Self { link, socket, teachers, waiting, free, looked: None })
    }

    /// The same for a student of these settings.
    ///
    /// # Errors
    /// The same.
    pub fn of_student(
        socket: Socket,
        config: &PeerConfig,
        spaces: [&Space; 2],
        student: &StudentConfig,
    ) -> Result<Self, PeerError> {
        let channel = student.algorithm.convolution().map_or(0, |c| c.shape[1] * c.shape[2]);
        Self::new(socket, config, spaces, channel, student.seed)
    }

    /// Waits until the group has accepted this member and has `teachers` teachers for it, or until `stop`. Returns whether they are there.
    ///
    /// # Errors
    /// A server that refuses for good or does not answer within 30 seconds; too few others within 120 seconds.
    pub fn wait(&mut self, teachers: usize, stop: &dyn Fn() -> bool) -> Result<bool, PeerError> {
        let mut agreed = None;
        while !stop() {
            self.socket.poll(&mut self.link);
            let now = self.socket.now_ms();
            if let (LinkState::Failed, Some(failure)) = (self.link.state(), self.link.failure()) {
                return Err(PeerError::Refused(failure.message.clone()));
            }
            if self.link.stats().sessions > 0 {
                agreed.get_or_insert(now);
            }
            let found = self.link.teachers().len();
            match agreed {
                Some(_) if found >= teachers => {
                    let one = |peer: &oto_proto::PeerInfo| (peer.name.clone(), peer.actions as usize);
                    self.teachers = self.link.teachers().iter().map(one).collect();
                    return Ok(true);
                }
                Some(since) if now > since + OTHERS_MS => {
                    return Err(PeerError::Alone { expected: teachers, found });
                }
                None if now > CONNECT_MS => {
                    let problem = self.link.problem().unwrap_or("the server does not answer");
                    return Err(PeerError::Refused(problem.into()));
                }
                _ => std::thread::sleep(PAUSE),
            }
        }
        Ok(false)
    }

    /// The teachers that it found, or had before it was resumed: names and numbers of actions.
    pub fn teachers(&self) -> &[(String, usize)] {
        &self.teachers
    }

    /// The teachers of a run that is resumed.
    pub fn set_teachers(&mut self, teachers: Vec<(String, usize)>) {
        self.teachers = teachers;
    }

    /// What its connection counted.
    pub fn stats(&self) -> &PeerStats {
        self.link.stats()
    }

    /// Why there is no connection, if there is none.
    pub fn problem(&self) -> Option<&str> {
        self.link.problem()
    }

    /// Exchanges messages, and answers a question of another member with the logits of `student`; `updates` is their version. Does nothing if it
    /// looked a moment ago.
    pub(crate) fn look(&mut self, updates: u64, student: &mut dyn OnPolicy) {
        let now = Instant::now();
        if self.looked.is_some_and(|looked| now.duration_since(looked) < PERIOD) {
            return;
        }
        self.looked = Some(now);
        self.socket.poll(&mut self.link);
        // One at a time: who asks much waits, and does not slow this run down.
        if let Some(question) = self.link.take_question() {
            self.link.reply(&question, student.logits(&question.states), updates);
            self.socket.poll(&mut self.link);
        }
        while let Some(answer) = self.link.take_answer() {
            for late in &mut self.waiting {
                let place = late.requests.iter().position(|request| *request == Some(answer.request));
                if let Some(i) = place {
                    late.requests[i] = None;
                    late.answers[i] = answer.logits;
                    break;
                }
            }
        }
    }

    /// Asks about a rollout that was learnt from, of observations of this width. Where that is possible the batch is taken, and another
    /// one is left.
    pub(crate) fn ask(&mut self, batch: &mut Batch, width: usize) {
        let now = self.socket.now_ms();
        if self.waiting.len() >= MAX_WAITING || !self.link.has_room(now) {
            return;
        }
        let mut late = self.free.pop().unwrap_or_default();
        late.requests.clear();
        late.answers.clear();
        let states = &batch.observation[..batch.observation.len().min(self.link.max_rows() * width)];
        for (name, actions) in &self.teachers {
            let found = self.link.teachers().iter().find(|peer| peer.name == *name);
            let session = found.filter(|peer| peer.actions as usize == *actions).map(|peer| peer.session);
            late.requests.push(session.and_then(|session| self.link.ask(session, states, now)));
            late.answers.push(None);
        }
        match late.requests.iter().any(Option::is_some) {
            true => {
                std::mem::swap(&mut late.batch, batch);
                self.waiting.push_back(late);
                self.looked = None;
            }
            false => self.free.push(late),
        }
    }

    /// The oldest rollout that no more logits come for. [`Self::recycle`] takes it back.
    pub(crate) fn take(&mut self) -> Option<Late> {
        let done = self.waiting.iter().position(|late| late.requests.iter().all(Option::is_none))?;
        self.waiting.remove(done)
    }

    pub(crate) fn recycle(&mut self, late: Late) {
        self.free.push(late);
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.link.disconnect();
        self.socket.poll(&mut self.link);
    }
}

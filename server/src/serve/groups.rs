//! The groups of this server, as conversations with their members reach them.
//!
//! A group lies under a lock for as long as a frame is copied. Each member's conversation is woken when the group has something for it.

use crate::auth::budget::lock;
use crate::observe::metrics::GroupMetrics;
use crate::serve::error::ServerError;
use crate::serve::policies::Policies;
use oto_agent::group::{Group, Refusal, Said};
use oto_proto::{GroupInfo, MemberInfo, Space, StateFormat};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::Notify;

/// Numbers of groups on the wire, apart from those of policies, learners and shared agents.
const FIRST_ID: u32 = 7 << 29;

/// A group of students.
pub(crate) struct HostedGroup {
    pub name: String,
    pub id: u32,
    members: Mutex<Members>,
    pub metrics: GroupMetrics,
    began: Instant,
}

struct Members {
    group: Group,
    /// Wakes the conversation of each session.
    wakes: HashMap<u32, Arc<Notify>>,
}

impl Members {
    /// Wakes all that have something to hear, or whose session is over.
    fn wake(&mut self) {
        for session in self.group.waiting() {
            if let Some(wake) = self.wakes.get(&session) {
                wake.notify_one();
            }
        }
    }
}

impl HostedGroup {
    fn members(&self) -> MutexGuard<'_, Members> {
        lock(&self.members)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Begins a session of a member; its older one is over. Also gives what wakes its conversation.
    pub fn join(
        &self,
        member: &MemberInfo,
        states: StateFormat,
        action: &Space,
    ) -> Result<(GroupInfo, Arc<Notify>), Refusal> {
        let mut members = self.members();
        let joined = members.group.join(member, states, action, self.now_ms());
        let (info, older) = joined.inspect_err(|refusal| self.metrics.refused(refusal.name()))?;
        if let Some(older) = older.and_then(|older| members.wakes.remove(&older)) {
            older.notify_one();
        }
        let wake = Arc::new(Notify::new());
        members.wakes.insert(info.session, wake.clone());
        members.wake();
        Ok((info, wake))
    }

    /// A session is over.
    pub fn leave(&self, session: u32) {
        let mut members = self.members();
        members.group.leave(session);
        members.wakes.remove(&session);
        members.wake();
    }

    /// Takes a frame of states from a member.
    pub fn ask(&self, session: u32, frame: &[u8]) -> Result<(), Refusal> {
        let mut members = self.members();
        let asked = members.group.ask(session, frame, self.now_ms());
        members.wake();
        match asked {
            Ok(passed) => self.metrics.asked(passed.rows),
            Err(ref refusal) => self.metrics.refused(refusal.name()),
        }
        asked.map(drop)
    }

    /// Takes a frame of logits from a member.
    pub fn answer(&self, session: u32, frame: &[u8]) -> Result<(), Refusal> {
        let mut members = self.members();
        let answered = members.group.answer(session, frame);
        members.wake();
        match answered {
            Ok(passed) => self.metrics.answered(passed.rows),
            Err(ref refusal) => self.metrics.refused(refusal.name()),
        }
        answered.map(drop)
    }

    /// The next message for a member.
    ///
    /// # Errors
    /// [`Refusal::Replaced`] if its session is over.
    pub fn next(&self, session: u32) -> Result<Option<Said>, Refusal> {
        let mut members = self.members();
        match members.group.has(session) {
            true => Ok(members.group.next(session)),
            false => Err(Refusal::Replaced(session)),
        }
    }
}

/// The groups of a server.
#[derive(Clone, Default)]
pub struct Groups(Arc<[Arc<HostedGroup>]>);

impl Groups {
    /// Hosts these groups, each under its name.
    ///
    /// # Errors
    /// If two have one name.
    pub fn new(groups: Vec<(String, Group)>, policies: &Policies) -> Result<Self, ServerError> {
        let mut hosted: Vec<Arc<HostedGroup>> = Vec::new();
        for ((name, group), id) in groups.into_iter().zip(FIRST_ID..) {
            if hosted.iter().any(|other| other.name == name) {
                return Err(ServerError::Name(name));
            }
            let metrics = policies.metrics().group(&name);
            let members = Mutex::new(Members { group, wakes: HashMap::new() });
            hosted.push(Arc::new(HostedGroup { name, id, members, metrics, began: Instant::now() }));
        }
        Ok(Groups(hosted.into()))
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Arc<HostedGroup>> {
        self.0.iter().find(|group| group.name == name)
    }
}

//! The agents that this server shares with asynchronous workers, as conversations and the program around the server reach them.
//!
//! An agent lies under a lock: a worker's gradient waits for the one before it. Work under the lock runs on threads that may block.

use crate::auth::budget::lock;
use crate::observe::metrics::ShareMetrics;
use crate::serve::error::ServerError;
use crate::serve::policies::Policies;
use oto_agent::hub::{Hub, Refusal, Session};
use oto_agent::student::Event;
use oto_proto::{SharedInfo, Space, WorkerInfo};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::watch;
use tracing::info;

/// Numbers of shared agents on the wire, apart from those of policies and learners.
const FIRST_ID: u32 = 3 << 30;

/// An agent that is shared.
pub(crate) struct Share {
    pub name: String,
    pub id: u32,
    pub observation: Space,
    pub action: Space,
    /// Numbers in a gradient.
    pub parameters: usize,
    /// Environment steps in a gradient.
    pub steps: usize,
    hub: Mutex<Hub>,
    /// Tells the conversation of each worker's newest session that a newer one has begun.
    sessions: Mutex<HashMap<String, watch::Sender<()>>>,
    pub metrics: ShareMetrics,
    began: Instant,
}

/// A session that has begun.
pub(crate) struct Joined {
    pub session: Session,
    pub info: SharedInfo,
    pub version: u32,
    /// It closes when a newer session of the worker begins.
    pub replaced: watch::Receiver<()>,
}

impl Share {
    /// Begins a worker's session; its older one is over.
    pub fn join(&self, worker: &WorkerInfo) -> Result<Joined, Refusal> {
        let mut hub = lock(&self.hub);
        let (session, info) = hub.join(worker)?;
        let (tell, replaced) = watch::channel(());
        // While the agent is locked: sessions are in the order of their numbers.
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, tell| tell.receiver_count() > 0);
        sessions.insert(worker.name.clone(), tell);
        let version = hub.version();
        Ok(Joined { session, info, version, replaced })
    }

    /// A session is over.
    pub fn leave(&self, session: &Session) {
        lock(&self.hub).leave(session);
    }

    /// Takes a frame of gradients.
    pub fn take(&self, session: &Session, frame: &[u8], weight: f32) -> Result<(), Refusal> {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut hub = lock(&self.hub);
        let taken = hub.take(session, self.id, frame, weight, now_ms);
        while let Some(event) = hub.next_event() {
            if let Event::Evaluation { step, mean, .. } = event {
                info!(agent = self.name, step, mean, "a shared agent was evaluated");
                self.metrics.evaluated(mean);
            }
        }
        let (updates, steps) = (hub.student().trainer().updates(), hub.student().trainer().steps());
        drop(hub);
        match taken {
            Ok(staleness) => self.metrics.applied(staleness, updates, steps),
            Err(ref refusal) => self.metrics.refused(refusal.name()),
        }
        taken.map(drop)
    }

    /// The newest parameters as a frame of weights.
    pub fn weights(&self, session: &Session) -> Result<Vec<u8>, Refusal> {
        let mut frame = Vec::new();
        lock(&self.hub).weights(session, self.id, &mut frame)?;
        Ok(frame)
    }
}

/// The agents that a server shares.
#[derive(Clone, Default)]
pub struct Shares(Arc<[Arc<Share>]>);

impl Shares {
    /// Shares these agents, each under its name.
    ///
    /// # Errors
    /// If two have one name.
    pub fn new(hubs: Vec<(String, Hub)>, policies: &Policies) -> Result<Self, ServerError> {
        let mut shares: Vec<Arc<Share>> = Vec::new();
        for ((name, mut hub), id) in hubs.into_iter().zip(FIRST_ID..) {
            if shares.iter().any(|other| other.name == name) {
                return Err(ServerError::Name(name));
            }
            let (observation, action) = hub.student().spaces();
            let metrics = policies.metrics().share(&name);
            let (parameters, steps) = (hub.parameters(), usize::try_from(hub.steps()).unwrap_or(usize::MAX));
            let (hub, sessions, began) = (Mutex::new(hub), Mutex::default(), Instant::now());
            shares.push(Arc::new(Share {
                name,
                id,
                observation,
                action,
                parameters,
                steps,
                hub,
                sessions,
                metrics,
                began,
            }));
        }
        Ok(Shares(shares.into()))
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Share>> {
        self.0.iter().find(|share| share.name == name)
    }

    /// A checkpoint of the agent of this name, and the environment of its policy.
    ///
    /// # Errors
    /// Parameters that are not finite, in words.
    pub fn save(&self, name: &str) -> Option<Result<Vec<u8>, String>> {
        let share = self.find(name)?;
        Some(lock(&share.hub).save().map_err(|error| error.to_string()))
    }
}

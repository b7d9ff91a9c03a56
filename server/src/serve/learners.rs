//! The learners that this server hosts, as edges' conversations and the operator's interface reach them.
//!
//! A learner works in a thread of its own, which gets [`Command`]s through a short queue and publishes weights. What orders an edge's
//! rows, its [`LearnerSession`], lies here, so that a newer session takes an edge over at once.

use crate::auth::budget::{Held, lock};
use crate::observe::metrics::LearnerMetrics;
use crate::serve::error::ServerError;
use oto_agent::learner::Learner;
use oto_agent::learner::session::{Edge, LearnerSession, Offer, Progress, Refusal};
use oto_proto::{ActorInfo, ErrorCode, ErrorMessage, Flags, LearnerInfo, Model, RowFormat, Space, StreamId};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// Commands that wait for a learner, at most.
pub(crate) const WAITING: usize = 64;
/// How long an operator waits for a learner.
const PATIENCE: Duration = Duration::from_secs(30);
/// Numbers of learners on the wire, apart from those of policies.
const FIRST_ID: u32 = 1 << 31;

/// What a learner's thread is asked to do.
pub(crate) enum Command {
    /// A session begins.
    Join {
        /// The edge's name, and the session's number.
        session: (Arc<str>, u32),
        /// Its stream.
        stream: StreamId,
        /// The number of the first row that will come.
        next: u64,
        /// Where the session learns how it stands.
        standing: Arc<watch::Sender<Standing>>,
    },
    /// Rows came.
    Rows {
        /// The edge's name, and the session's number.
        session: (Arc<str>, u32),
        /// They.
        rows: Rows,
        /// Their room.
        held: Option<Held>,
    },
    /// Rows below this one are lost at the edge.
    Dropped {
        /// The edge's name, and the session's number.
        session: (Arc<str>, u32),
        /// The first row that it holds.
        first: u64,
    },
    /// Leaves an edge's rows out, or no more.
    Pause {
        /// The edge.
        edge: String,
        /// Whether they are left out.
        paused: bool,
        /// The answer: whether there is such an edge.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Forgets an edge.
    Drop {
        /// The edge.
        edge: String,
        /// The answer: whether there was such an edge.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Tells of the edges.
    List(oneshot::Sender<Value>),
}

/// Accepted rows of one frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rows {
    /// The number of the first.
    pub first: u64,
    /// All observations.
    pub observations: Vec<f32>,
    /// All actions.
    pub actions: Vec<f32>,
    /// All flags.
    pub flags: Vec<Flags>,
}

/// How a session stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// All rows below this one are stored.
    pub next: u64,
    /// Updates that the learner owes.
    pub backlog: u64,
    /// Why it is over.
    pub ended: Option<Ended>,
}

/// Why the server ends a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A newer session of the same edge has begun.
    Replaced,
    /// The operator dropped the edge.
    Dropped,
    /// Its rows cannot be stored, or not be learned from.
    Failed(String),
}

impl Ended {
    /// The message to the edge of session `number`. A replaced or dropped edge does not connect again.
    pub fn error(self, number: u32) -> ErrorMessage {
        match self {
            Ended::Replaced => Refusal::Replaced(number).error(),
            Ended::Dropped => ErrorMessage::new(ErrorCode::Replaced, "the operator dropped this edge"),
            Ended::Failed(why) => ErrorMessage::new(ErrorCode::Internal, why),
        }
    }
}

/// Weights for the edges.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// The learner's version of them, from 1.
    pub version: u32,
    /// The parameters, in the model's order.
    pub weights: Arc<[f32]>,
}

/// The sessions of an edge: the newest one, or what an earlier server left.
enum Slot {
    Known(Progress),
    Open { session: Arc<Mutex<LearnerSession>>, standing: Arc<watch::Sender<Standing>> },
}

/// What the rest of a server knows of a learner, which stays in its own thread.
pub(crate) struct Description {
    observation: Space,
    action: Space,
    model: Model,
    exploration: oto_json::Json,
    hz: Option<f64>,
    ring: u32,
    most_edges: usize,
    progress: Vec<(String, Progress)>,
}

impl Description {
    /// Of this learner.
    pub fn of(learner: &Learner) -> Self {
        let (config, [observation, action]) = (learner.config(), learner.spaces().clone());
        Description {
            observation,
            action,
            model: learner.model(),
            exploration: oto_json::to_tree(&config.exploration),
            hz: config.hz,
            ring: config.ring,
            most_edges: config.edges,
            progress: progress(learner),
        }
    }
}

/// How far each edge's stream has come.
pub(crate) fn progress(learner: &Learner) -> Vec<(String, Progress)> {
    let edges = learner.edges().iter().map(|edge| {
        let (session, stream, next) = (edge.session(), Some(edge.stream()), edge.next());
        (edge.name().to_owned(), Progress { session, stream, next, missed: 0, gap: 0 })
    });
    edges.collect()
}

/// A learner's side of everything that is no training.
pub(crate) struct HostedLearner {
    pub name: String,
    pub id: u32,
    pub observation: Space,
    pub action: Space,
    pub model: Model,
    /// How edges are to explore.
    pub exploration: oto_json::Json,
    pub hz: Option<f64>,
    pub ring: u32,
    edges: Mutex<HashMap<String, Slot>>,
    most_edges: usize,
    pub commands: mpsc::Sender<Command>,
    pub weights: watch::Receiver<Published>,
    /// Whether a session waits for newer weights.
    hungry: AtomicBool,
    pub metrics: LearnerMetrics,
}

/// A session that has begun.
pub(crate) struct Begun {
    pub session: Arc<Mutex<LearnerSession>>,
    pub info: LearnerInfo,
    pub standing: watch::Receiver<Standing>,
}

impl HostedLearner {
    /// What conversations need of a learner that is about to work.
    pub fn new(
        name: &str,
        description: Description,
        (commands, weights): (mpsc::Sender<Command>, watch::Receiver<Published>),
        metrics: LearnerMetrics,
    ) -> Self {
        let Description { observation, action, model, exploration, hz, ring, most_edges, progress } =
            description;
        let hosted = HostedLearner {
            name: name.into(),
            id: 0,
            observation,
            action,
            model,
            exploration,
            hz,
            ring,
            edges: Mutex::default(),
            most_edges,
            commands,
            weights,
            hungry: AtomicBool::new(true),
            metrics,
        };
        hosted.forget_sessions(progress, "");
        hosted
    }

    /// Begins a session of an edge; its older one is over. `permit`: a place in the learner's queue.
    pub fn begin(
        &self,
        actor: &ActorInfo,
        format: RowFormat,
        max_rows: u16,
        permit: mpsc::Permit<'_, Command>,
    ) -> Result<Begun, usize> {
        let mut edges = lock(&self.edges);
        if !edges.contains_key(&actor.name) && edges.len() >= self.most_edges {
            return Err(self.most_edges);
        }
        let edge = match edges.remove(&actor.name) {
            None => Edge::default(),
            Some(Slot::Known(progress)) => Edge::resumed(progress),
            Some(Slot::Open { session, standing }) => {
                standing.send_modify(|standing| standing.ended = Some(Ended::Replaced));
                lock(&session).replace()
            }
        };
        let (model, ring, hz) = (self.model.clone(), self.ring, self.hz);
        let offer = Offer { policy: self.id, model, max_rows, ring, hz };
        let version = self.weights.borrow().version;
        let (session, info) = LearnerSession::open(actor, format, edge, offer, version);
        let first = Standing { next: session.acknowledged(), ..Standing::default() };
        let (standing, told) = watch::channel(first);
        let (session, standing) = (Arc::new(Mutex::new(session)), Arc::new(standing));
        permit.send(Command::Join {
            session: (actor.name.as_str().into(), info.session),
            stream: actor.stream,
            next: info.next,
            standing: standing.clone(),
        });
        edges.insert(actor.name.clone(), Slot::Open { session: session.clone(), standing });
        Ok(Begun { session, info, standing: told })
    }

    /// Ends all sessions. The next ones begin with the learner's stored state.
    pub fn forget_sessions(&self, stored: Vec<(String, Progress)>, why: &str) {
        let mut edges = lock(&self.edges);
        for (_, slot) in edges.drain() {
            if let Slot::Open { session, standing } = slot {
                // First the reason: a conversation that finds its session replaced looks for it.
                standing.send_modify(|standing| standing.ended = Some(Ended::Failed(why.into())));
                lock(&session).replace();
            }
        }
        edges.extend(stored.into_iter().map(|(edge, progress)| (edge, Slot::Known(progress))));
    }

    /// Weights newer than these are wanted as soon as there are any.
    pub fn wants_weights(&self) {
        self.hungry.store(true, Ordering::Release);
    }

    /// Whether they are; asked once.
    pub fn wanted_weights(&self) -> bool {
        self.hungry.swap(false, Ordering::AcqRel)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (done, answer) = oneshot::channel();
        let asked = async {
            self.commands.send(command(done)).await.ok()?;
            answer.await.ok()
        };
        timeout(PATIENCE, asked).await.ok()?
    }

    /// The edges, for operators.
    pub async fn list(&self) -> Option<Value> {
        let mut edges = self.ask(Command::List).await?;
        let slots = lock(&self.edges);
        for edge in edges.as_array_mut().into_iter().flatten() {
            let slot = edge["edge"].as_str().and_then(|name| slots.get(name));
            // A conversation holds the receiving end.
            let connected =
                matches!(slot, Some(Slot::Open { standing, .. }) if standing.receiver_count() > 0);
            edge["connected"] = json!(connected);
            if let Some(Slot::Open { session, .. }) = slot {
                edge["sent"] = serde_json::to_value(lock(session).stats()).unwrap_or_default();
            }
        }
        Some(edges)
    }

    /// Leaves an edge's rows out, or no more.
    pub async fn pause(&self, edge: &str, paused: bool) -> Option<Result<(), String>> {
        self.ask(|done| Command::Pause { edge: edge.into(), paused, done }).await
    }

    /// Ends an edge's session and forgets the edge.
    pub async fn drop_edge(&self, edge: &str) -> Option<Result<(), String>> {
        if let Some(Slot::Open { session, standing }) = lock(&self.edges).remove(edge) {
            standing.send_modify(|standing| standing.ended = Some(Ended::Dropped));
            lock(&session).replace();
        }
        self.ask(|done| Command::Drop { edge: edge.into(), done }).await
    }
}

/// The learners of a server.
#[derive(Clone, Default)]
pub struct Learners(Arc<[Arc<HostedLearner>]>);

impl Learners {
    /// These learners.
    ///
    /// # Errors
    /// If two share a name.
    pub(crate) fn new(hosted: Vec<HostedLearner>) -> Result<Self, ServerError> {
        for (i, learner) in hosted.iter().enumerate() {
            if hosted[..i].iter().any(|other| other.name == learner.name) {
                return Err(ServerError::Name(learner.name.clone()));
            }
        }
        let numbered =
            hosted.into_iter().zip(FIRST_ID..).map(|(hosted, id)| Arc::new(HostedLearner { id, ..hosted }));
        Ok(Learners(numbered.collect()))
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Arc<HostedLearner>> {
        self.0.iter().find(|learner| learner.name == name)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<HostedLearner>> {
        self.0.iter()
    }
}

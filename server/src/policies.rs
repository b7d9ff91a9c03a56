//! Policies by name. Each has a thread of its own, which takes all requests that wait, answers them in one call of
//! [`Policy::act`], and splits the answer. While it computes, the next batch gathers: nobody waits for company, and the
//! busier the server, the larger its batches.

use crate::ServerError;
use oto_policy::{Loaded, Metadata, Policy, PolicyError, fit_actions, scripted};
use oto_proto::message::MAX_NAME_BYTES;
use oto_proto::{ErrorCode, ErrorMessage, Space, TeacherInfo};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// The most rows of one call, if no single request has more.
pub const BATCH_ROWS: usize = 8192;
/// The most requests that wait for one policy; one more is refused as `overloaded`.
pub const QUEUE: usize = 128;

/// The policies of a server. Clones share them; their threads end with the last clone.
#[derive(Clone)]
pub struct Policies(Arc<[Arc<Hosted>]>);

/// One policy and the way to its thread.
struct Hosted {
    name: String,
    metadata: Metadata,
    info: TeacherInfo,
    work: mpsc::Sender<Work>,
    version: watch::Receiver<u32>,
}

enum Work {
    Answer(Request),
    Publish(Box<dyn Policy>),
}

/// States that want actions.
pub(crate) struct Request {
    /// The student's number for it.
    pub id: u32,
    /// The number of states.
    pub rows: usize,
    /// The teacher's observations `[rows, observation width]`.
    pub observations: Vec<f32>,
    /// Where the answer goes. It has room: a student has no more requests in flight than it has credits.
    pub reply: mpsc::Sender<Answer>,
}

/// What the policy said to one request.
pub(crate) struct Answer {
    /// The student's number for the request.
    pub id: u32,
    /// The version that answered.
    pub version: u32,
    /// The teacher's actions `[rows, action width]`.
    pub actions: Result<Vec<f32>, ErrorMessage>,
}

impl Policies {
    /// Hosts these policies.
    ///
    /// # Errors
    /// If two share a name, a name is unusable, or a thread cannot be started.
    pub fn new(loaded: Vec<Loaded>) -> Result<Self, ServerError> {
        let mut hosted: Vec<Arc<Hosted>> = Vec::new();
        for Loaded { name, metadata, policy } in loaded {
            let usable = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.starts_with(scripted::PREFIX);
            if !usable || hosted.iter().any(|other| other.name == name) {
                return Err(ServerError::Name(name));
            }
            hosted.push(Arc::new(Hosted::start(name, metadata, policy)?));
        }
        Ok(Policies(hosted.into()))
    }

    /// Replaces a policy by a new version between two of its answers, and tells its students.
    ///
    /// # Errors
    /// If there is no such policy or the spaces differ.
    pub async fn publish(&self, name: &str, policy: Box<dyn Policy>) -> Result<(), ServerError> {
        let unknown = || ServerError::UnknownPolicy(name.to_owned());
        let hosted = self.0.iter().find(|hosted| hosted.name == name).ok_or_else(unknown)?;
        let TeacherInfo { observation, action, .. } = &hosted.info;
        if policy.observation_space() != observation || policy.action_space() != action {
            return Err(ServerError::Spaces(name.to_owned()));
        }
        hosted.work.send(Work::Publish(policy)).await.map_err(|_| ServerError::Thread(name.to_owned()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A list for people and pages: name, version and metadata of each policy.
    pub(crate) fn list(&self) -> serde_json::Value {
        let entry = |hosted: &Arc<Hosted>| {
            let mut entry = serde_json::to_value(&hosted.metadata).unwrap_or_default();
            entry["name"] = hosted.name.as_str().into();
            entry["version"] = (*hosted.version.borrow()).into();
            entry
        };
        self.0.iter().map(entry).collect()
    }

    /// Finds the teacher that a student asked for. A scripted one is made for the student's own spaces.
    pub(crate) fn teacher(
        &self,
        name: &str,
        observation: &Space,
        action: &Space,
    ) -> Result<Teacher, ErrorMessage> {
        let refuse = |message: String| ErrorMessage::new(ErrorCode::UnknownPolicy, message);
        if name.starts_with(scripted::PREFIX) {
            let policy =
                scripted(name, observation.clone(), action.clone()).map_err(|e| refuse(e.to_string()))?;
            let info = info(&*policy, "A scripted baseline.");
            let (_, version) = watch::channel(1);
            return Ok(Teacher {
                id: self.0.len() as u32,
                info,
                version,
                way: Way::Scripted(Mutex::new(policy)),
            });
        }
        let Some(id) = self.0.iter().position(|hosted| hosted.name == name) else {
            let names: Vec<_> = self.0.iter().map(|hosted| hosted.name.as_str()).collect();
            return Err(refuse(format!(
                "there is no policy {name:?} here; there are {names:?} and \"scripted:random\""
            )));
        };
        let Hosted { info, version, work, .. } = &*self.0[id];
        let (info, version) = (info.clone(), version.clone());
        Ok(Teacher { id: id as u32, info, version, way: Way::Hosted(work.clone()) })
    }
}

/// A student's way to its policy.
pub(crate) struct Teacher {
    /// The policy's number in frames.
    pub id: u32,
    /// What it observes and does.
    pub info: TeacherInfo,
    /// Its version, now and later.
    pub version: watch::Receiver<u32>,
    way: Way,
}

enum Way {
    Hosted(mpsc::Sender<Work>),
    /// Answers at once: a scripted policy costs nothing, and it was made for this student.
    Scripted(Mutex<Box<dyn Policy>>),
}

/// Why a request was not taken.
pub(crate) enum NotTaken {
    /// Too many wait already.
    Full,
    /// The policy's thread is gone.
    Gone,
}

impl Teacher {
    /// Takes a request; its answer comes through its `reply`.
    pub fn ask(&self, request: Request) -> Result<(), NotTaken> {
        match &self.way {
            Way::Hosted(work) => work.try_send(Work::Answer(request)).map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => NotTaken::Full,
                mpsc::error::TrySendError::Closed(_) => NotTaken::Gone,
            }),
            Way::Scripted(policy) => {
                let mut policy = policy.lock().unwrap_or_else(PoisonError::into_inner);
                Batch::default().answer(&mut **policy, 1, vec![request]);
                Ok(())
            }
        }
    }
}

impl Hosted {
    fn start(name: String, metadata: Metadata, policy: Box<dyn Policy>) -> Result<Self, ServerError> {
        let info = info(&*policy, metadata.description.as_deref().unwrap_or_default());
        let (work, queue) = mpsc::channel(QUEUE);
        let (publish, version) = watch::channel(1);
        std::thread::Builder::new()
            .name(format!("policy {name}"))
            .spawn(move || answer_all(policy, queue, &publish))
            .map_err(|_| ServerError::Thread(name.clone()))?;
        Ok(Hosted { name, metadata, info, work, version })
    }
}

fn info(policy: &dyn Policy, description: &str) -> TeacherInfo {
    TeacherInfo {
        observation: policy.observation_space().clone(),
        action: policy.action_space().clone(),
        description: description.to_owned(),
    }
}

/// The life of a policy's thread.
fn answer_all(mut policy: Box<dyn Policy>, mut queue: mpsc::Receiver<Work>, publish: &watch::Sender<u32>) {
    let mut version = 1;
    let mut batch = Batch::default();
    let mut held = None;
    while let Some(work) = held.take().or_else(|| queue.blocking_recv()) {
        match work {
            Work::Publish(next) => {
                policy = next;
                version += 1;
                publish.send_replace(version);
            }
            Work::Answer(first) => {
                let mut rows = first.rows;
                let mut requests = vec![first];
                while let Ok(next) = queue.try_recv() {
                    match next {
                        Work::Answer(request) if rows + request.rows <= BATCH_ROWS => {
                            rows += request.rows;
                            requests.push(request);
                        }
                        other => {
                            held = Some(other);
                            break;
                        }
                    }
                }
                // Nobody waits for what a student asked before it vanished.
                requests.retain(|request| !request.reply.is_closed());
                batch.answer(&mut *policy, version, requests);
            }
        }
    }
}

/// Buffers of one batch, kept for the next.
#[derive(Default)]
struct Batch {
    observations: Vec<f32>,
    actions: Vec<f32>,
}

impl Batch {
    /// Answers requests together. If that fails, each is answered alone: one student's odd states are not the others'
    /// fault.
    fn answer(&mut self, policy: &mut dyn Policy, version: u32, requests: Vec<Request>) {
        self.observations.clear();
        requests.iter().for_each(|request| self.observations.extend_from_slice(&request.observations));
        let rows = requests.iter().map(|request| request.rows).sum();
        match self.act(policy, rows) {
            Err(_) if requests.len() > 1 => {
                requests.into_iter().for_each(|request| self.answer(policy, version, vec![request]));
            }
            Err(error) => requests.iter().for_each(|request| {
                let message = ErrorMessage::new(ErrorCode::PolicyFailed, error.to_string());
                request.answer(version, Err(message.about(Some(request.id))));
            }),
            Ok(width) => {
                let mut rest = self.actions.as_slice();
                for request in requests {
                    let (actions, later) = rest.split_at(request.rows * width);
                    request.answer(version, Ok(actions.to_vec()));
                    rest = later;
                }
            }
        }
    }

    /// Asks the policy and checks what it says, whoever wrote it. Gives the width of an action.
    fn act(&mut self, policy: &mut dyn Policy, rows: usize) -> Result<usize, PolicyError> {
        if rows == 0 {
            return Ok(0);
        }
        let Batch { observations, actions } = self;
        catch_unwind(AssertUnwindSafe(|| policy.act(observations, rows, actions)))
            .unwrap_or_else(|_| Err(PolicyError::Run("it panicked".into())))?;
        let width = policy.action_space().width();
        if actions.len() != rows * width {
            let message = format!("it gave {} numbers for {rows} rows of {width}", actions.len());
            return Err(PolicyError::Run(message));
        }
        fit_actions(policy.action_space(), actions)?;
        Ok(width)
    }
}

impl Request {
    fn answer(&self, version: u32, actions: Result<Vec<f32>, ErrorMessage>) {
        // It fails only if the student is gone.
        drop(self.reply.try_send(Answer { id: self.id, version, actions }));
    }
}

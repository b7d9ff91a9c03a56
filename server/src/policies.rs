//! Policies by name. Each has a thread of its own, which takes all requests that wait, answers them in one call of
//! [`Policy::act`], and splits the answer. While it computes, the next batch gathers: nobody waits for company, and the
//! busier the server, the larger its batches.

use crate::ServerError;
use bytes::Bytes;
use oto_policy::{Loaded, Metadata, Policy, PolicyError, fit_actions, scripted};
use oto_proto::message::MAX_NAME_BYTES;
use oto_proto::{ErrorCode, ErrorMessage, Space, TeacherInfo};
use sha2::{Digest, Sha256};
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
    model: Shelf,
}

enum Work {
    Answer(Request),
    Publish(Release),
}

/// A policy to be published.
pub struct Release {
    /// What answers from then on.
    pub policy: Box<dyn Policy>,
    /// The bytes it was loaded from, for whoever may have them.
    pub model: Option<Vec<u8>>,
    /// Its version shall be this one at least; it is larger than the last one's in any case.
    pub version: u32,
}

impl From<Box<dyn Policy>> for Release {
    fn from(policy: Box<dyn Policy>) -> Self {
        Release { policy, model: None, version: 0 }
    }
}

/// The bytes of a policy's newest version.
#[derive(Debug)]
pub(crate) struct Model {
    /// The version that they are.
    pub version: u32,
    /// As they were loaded.
    pub bytes: Bytes,
    /// Their SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// Where the newest bytes lie, if there are any.
type Shelf = Arc<Mutex<Option<Arc<Model>>>>;

impl Model {
    fn new(version: u32, bytes: Vec<u8>) -> Arc<Self> {
        let sha256 = sha256(&bytes);
        Arc::new(Model { version, bytes: bytes.into(), sha256 })
    }
}

/// The SHA-256 of these bytes in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
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
        for Loaded { name, metadata, policy, model } in loaded {
            let usable = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.starts_with(scripted::PREFIX);
            if !usable || hosted.iter().any(|other| other.name == name) {
                return Err(ServerError::Name(name));
            }
            hosted.push(Arc::new(Hosted::start(name, metadata, policy, model)?));
        }
        Ok(Policies(hosted.into()))
    }

    /// Replaces a policy by a new version between two of its answers, and tells its students.
    ///
    /// # Errors
    /// If there is no such policy or the spaces differ.
    pub async fn publish(&self, name: &str, release: impl Into<Release>) -> Result<(), ServerError> {
        let release = release.into();
        let hosted = self.fitting(name, &release)?;
        hosted.work.send(Work::Publish(release)).await.map_err(|_| ServerError::Thread(name.to_owned()))
    }

    /// [`Policies::publish`] for a thread of its own, which may wait.
    ///
    /// # Errors
    /// The same.
    pub fn publish_blocking(&self, name: &str, release: impl Into<Release>) -> Result<(), ServerError> {
        let release = release.into();
        let hosted = self.fitting(name, &release)?;
        hosted.work.blocking_send(Work::Publish(release)).map_err(|_| ServerError::Thread(name.to_owned()))
    }

    /// The policy of this name, if the release may take its place.
    fn fitting(&self, name: &str, release: &Release) -> Result<&Hosted, ServerError> {
        let hosted = self.hosted(name).ok_or_else(|| ServerError::UnknownPolicy(name.to_owned()))?;
        let TeacherInfo { observation, action, .. } = &hosted.info;
        if release.policy.observation_space() != observation || release.policy.action_space() != action {
            return Err(ServerError::Spaces(name.to_owned()));
        }
        Ok(hosted)
    }

    fn hosted(&self, name: &str) -> Option<&Hosted> {
        self.0.iter().find(|hosted| hosted.name == name).map(|hosted| &**hosted)
    }

    /// The version of a policy now.
    pub fn version(&self, name: &str) -> Option<u32> {
        Some(*self.hosted(name)?.version.borrow())
    }

    /// The bytes of a policy's newest version, if it was loaded from any.
    pub(crate) fn model(&self, name: &str) -> Option<Arc<Model>> {
        self.hosted(name)?.model.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A list for people and pages: name, version and metadata of each policy; with `share` what is known of its bytes.
    pub(crate) fn list(&self, share: bool) -> serde_json::Value {
        let entry = |hosted: &Arc<Hosted>| {
            let mut entry = serde_json::to_value(&hosted.metadata).unwrap_or_default();
            entry["name"] = hosted.name.as_str().into();
            entry["version"] = (*hosted.version.borrow()).into();
            if let Some(model) = self.model(&hosted.name).filter(|_| share) {
                entry["model_bytes"] = model.bytes.len().into();
                entry["sha256"] = model.sha256.as_str().into();
            }
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
    fn start(
        name: String,
        metadata: Metadata,
        policy: Box<dyn Policy>,
        model: Option<Vec<u8>>,
    ) -> Result<Self, ServerError> {
        let info = info(&*policy, metadata.description.as_deref().unwrap_or_default());
        let (work, queue) = mpsc::channel(QUEUE);
        let (publish, version) = watch::channel(1);
        let model: Shelf = Arc::new(Mutex::new(model.map(|bytes| Model::new(1, bytes))));
        let shelf = model.clone();
        std::thread::Builder::new()
            .name(format!("policy {name}"))
            .spawn(move || answer_all(policy, queue, &publish, &shelf))
            .map_err(|_| ServerError::Thread(name.clone()))?;
        Ok(Hosted { name, metadata, info, work, version, model })
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
fn answer_all(
    mut policy: Box<dyn Policy>,
    mut queue: mpsc::Receiver<Work>,
    publish: &watch::Sender<u32>,
    shelf: &Shelf,
) {
    let mut version = 1;
    let mut batch = Batch::default();
    let mut held = None;
    while let Some(work) = held.take().or_else(|| queue.blocking_recv()) {
        match work {
            Work::Publish(next) => {
                policy = next.policy;
                version = next.version.max(version + 1);
                let model = next.model.map(|bytes| Model::new(version, bytes));
                *shelf.lock().unwrap_or_else(PoisonError::into_inner) = model;
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

//! Policies by name, what is published of each, and how students reach them.
//!
//! Each has a queue ([`crate::serve::queue`]) and a thread (`batcher`). Everything that changes what answers is a
//! `ChangeKind`, done by that thread between two batches.

use crate::net::limits::QueueLimits;
use crate::observe::metrics::{Metrics, Standing};
use crate::serve::batcher::PolicyWorker;
use crate::serve::error::ServerError;
use crate::serve::queue::{NotTaken, Request, Said, Seat};
use crate::serve::random;
use crate::serve::rows::Rows;
use crate::serve::simulation::Pace;
use crate::serve::version::{Change, ChangeKind, Model, Release, Status, Version};
use oto_policy::{Loaded, Metadata, Policy, scripted};
use oto_proto::message::MAX_NAME_BYTES;
use oto_proto::{ErrorCode, ErrorMessage, Space, TeacherInfo};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// The policies of a server. Clones share them; their threads end with the last clone.
#[derive(Clone)]
pub struct Policies {
    places: Arc<[Place]>,
    metrics: Arc<Metrics>,
}

/// A name, and the policy that has it once it is there.
struct Place {
    name: String,
    hosted: OnceLock<Arc<Hosted>>,
}

/// One policy and the way to its thread.
struct Hosted {
    name: String,
    metadata: Metadata,
    info: TeacherInfo,
    /// Numbers of its state for each student; 0 if it is not recurrent.
    state_width: usize,
    worker: Arc<PolicyWorker>,
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.worker.queue.close();
    }
}

/// Who answers for a policy.
enum Hands {
    /// A thread, and connections' threads for a little work.
    Thread,
    /// A task, in simulated time.
    Task(Pace),
}

impl Policies {
    /// Hosts these policies.
    ///
    /// # Errors
    /// If two share a name, a name is unusable, or a thread cannot be started.
    pub fn new(loaded: Vec<Loaded>) -> Result<Self, ServerError> {
        Self::numbered(loaded.into_iter().map(|loaded| (loaded, 1)).collect(), &[])
    }

    /// Hosts these policies, each with the number of its version, and keeps a place for those that are still to come.
    ///
    /// # Errors
    /// As [`Policies::new`].
    pub fn numbered(loaded: Vec<(Loaded, u32)>, to_come: &[String]) -> Result<Self, ServerError> {
        Self::worked_by(loaded, to_come, &Hands::Thread)
    }

    /// Hosts a policy in the place that was kept for it.
    ///
    /// # Errors
    /// If there is no such place, it is taken, or a thread cannot be started.
    #[cfg(feature = "follow")]
    pub(crate) fn host(&self, loaded: Loaded, version: u32) -> Result<(), ServerError> {
        let place = self.places.iter().find(|place| place.name == loaded.name);
        let place = place.ok_or_else(|| ServerError::UnknownPolicy(loaded.name.clone()))?;
        let name = place.name.clone();
        let hosted = Hosted::start(loaded, version, self.metrics.clone(), &Hands::Thread)?;
        place.hosted.set(Arc::new(hosted)).map_err(|_| ServerError::Name(name))
    }

    /// Hosts these policies in tasks of the runtime that this is called in: each batch of answers takes as long as `pace`
    /// says. For simulations.
    ///
    /// # Errors
    /// If two share a name or a name is unusable.
    pub fn in_tasks(loaded: Vec<Loaded>, pace: Pace) -> Result<Self, ServerError> {
        let loaded = loaded.into_iter().map(|loaded| (loaded, 1)).collect();
        Self::worked_by(loaded, &[], &Hands::Task(pace))
    }

    fn worked_by(loaded: Vec<(Loaded, u32)>, to_come: &[String], hands: &Hands) -> Result<Self, ServerError> {
        let (mut places, metrics) = (Vec::<Place>::new(), Arc::new(Metrics::default()));
        let first =
            loaded.into_iter().map(|(loaded, version)| (loaded.name.clone(), Some((loaded, version))));
        for (name, loaded) in first.chain(to_come.iter().map(|name| (name.clone(), None))) {
            let usable = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.starts_with(scripted::PREFIX);
            if !usable || places.iter().any(|other| other.name == name) {
                return Err(ServerError::Name(name));
            }
            let hosted = match loaded {
                Some((loaded, version)) => {
                    Arc::new(Hosted::start(loaded, version, metrics.clone(), hands)?).into()
                }
                None => OnceLock::new(),
            };
            places.push(Place { name, hosted });
        }
        Ok(Policies { places: places.into(), metrics })
    }

    /// The policies that are there.
    fn all(&self) -> impl Iterator<Item = &Arc<Hosted>> {
        self.places.iter().filter_map(|place| place.hosted.get())
    }

    /// Replaces a policy by a new version between two of its answers, and tells its students. It does not wait for
    /// that.
    ///
    /// # Errors
    /// If there is no such policy or the spaces differ.
    pub fn publish(&self, name: &str, release: impl Into<Release>) -> Result<(), ServerError> {
        let release = release.into();
        self.fitting(name, &release)?;
        self.change(name, ChangeKind::Publish(release.into()), None)
    }

    /// Lets a version answer this percentage of the students, until it is promoted, ended or fails where the one before does
    /// not. Gives its number.
    ///
    /// # Errors
    /// If there is no such policy or the spaces differ.
    pub async fn try_on(
        &self,
        name: &str,
        release: impl Into<Release>,
        percent: f32,
    ) -> Result<u32, ServerError> {
        let release = release.into();
        self.fitting(name, &release)?;
        self.changed(name, ChangeKind::Canary(release.into(), percent)).await
    }

    /// Has something changed, and waits for what comes of it: the version of the policy then, or the canary's.
    ///
    /// # Errors
    /// If there is no such policy, or the change cannot be made now.
    pub(crate) async fn changed(&self, name: &str, kind: ChangeKind) -> Result<u32, ServerError> {
        let (done, heard) = oneshot::channel();
        self.change(name, kind, Some(done))?;
        heard.await.unwrap_or_else(|_| Err(ServerError::Thread(name.to_owned())))
    }

    fn change(
        &self,
        name: &str,
        kind: ChangeKind,
        done: Option<oneshot::Sender<Result<u32, ServerError>>>,
    ) -> Result<(), ServerError> {
        match self.hosted(name)?.worker.queue.change(Change { kind, done }) {
            true => Ok(()),
            false => Err(ServerError::Thread(name.to_owned())),
        }
    }

    /// Whether the release may take the place of the policy of this name.
    pub(crate) fn fitting(&self, name: &str, release: &Release) -> Result<(), ServerError> {
        let TeacherInfo { observation, action, .. } = &self.hosted(name)?.info;
        let (expected, found) = (self.hosted(name)?.state_width, release.policy.state_width());
        if expected != found {
            return Err(ServerError::State { policy: name.to_owned(), expected, found });
        }
        match release.policy.observation_space() == observation && release.policy.action_space() == action {
            true => Ok(()),
            false => Err(ServerError::Spaces(name.to_owned())),
        }
    }

    fn hosted(&self, name: &str) -> Result<&Hosted, ServerError> {
        let found = self.all().find(|hosted| hosted.name == name);
        found.map(|hosted| &**hosted).ok_or_else(|| ServerError::UnknownPolicy(name.to_owned()))
    }

    /// What a policy observes and does.
    pub(crate) fn info(&self, name: &str) -> Option<&TeacherInfo> {
        Some(&self.hosted(name).ok()?.info)
    }

    /// What was said of a policy when it was loaded.
    pub(crate) fn metadata(&self, name: &str) -> Result<&Metadata, ServerError> {
        Ok(&self.hosted(name)?.metadata)
    }

    /// The version of a policy now.
    pub fn version(&self, name: &str) -> Option<u32> {
        Some(self.hosted(name).ok()?.worker.status.read(|status| status.version))
    }

    /// A number that no version of a policy has had since it is hosted, and every later one will be above.
    pub(crate) fn next_version(&self, name: &str) -> u32 {
        let newest = |status: &Status| status.canary.map_or(0, |canary| canary.version).max(status.version);
        self.hosted(name).map_or(0, |hosted| hosted.worker.status.read(newest)).saturating_add(1)
    }

    /// A policy's version and the bytes of it, if it was loaded from any.
    pub(crate) fn model(&self, name: &str) -> Option<(u32, Arc<Model>)> {
        self.hosted(name).ok()?.worker.status.read(|status| Some((status.version, status.model.clone()?)))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// A list for people and pages: name, version and metadata of each policy; with `share` what is known of its bytes.
    pub(crate) fn list(&self, share: bool) -> serde_json::Value {
        let entry = |hosted: &Arc<Hosted>| {
            let (version, model) = hosted.worker.status.read(|status| (status.version, status.model.clone()));
            let mut entry = serde_json::to_value(&hosted.metadata).unwrap_or_default();
            entry["name"] = hosted.name.as_str().into();
            entry["version"] = version.into();
            if let Some(model) = model.filter(|_| share) {
                entry["model_bytes"] = model.bytes.len().into();
                entry["sha256"] = model.sha256.as_str().into();
            }
            entry
        };
        self.all().map(entry).collect()
    }

    /// A list for operators: what answers, what is tried, and how much waits.
    pub(crate) fn operators_list(&self) -> serde_json::Value {
        let entry = |hosted: &Arc<Hosted>| {
            let Status { version, model, engine, canary, shadow, ended } =
                hosted.worker.status.read(Status::clone);
            let shadow = shadow.map(|shadow| shadow.lock().unwrap_or_else(PoisonError::into_inner).clone());
            serde_json::json!({
                "name": hosted.name,
                "version": version,
                "engine": engine,
                "sha256": model.map(|model| model.sha256.clone()),
                "canary": canary.map(|c| serde_json::json!({ "version": c.version, "percent": c.percent })),
                "canary_failed": ended,
                "shadow": shadow,
                "queue": hosted.worker.queue.load(),
            })
        };
        self.all().map(entry).collect()
    }

    /// Where everything is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Everything that was counted, as text.
    pub(crate) fn metrics_text(&self) -> String {
        let standing = |hosted: &Arc<Hosted>| {
            let (requests, states) = hosted.worker.queue.waits();
            let version = hosted.worker.status.read(|status| status.version);
            Standing { policy: hosted.name.clone(), version, requests, states }
        };
        self.metrics.text(self.all().map(standing).collect())
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
            return Ok(Teacher { id: self.places.len() as u32, info, way: Way::Scripted(Rows::new(policy)) });
        }
        self.hosted_teacher(name).ok_or_else(|| {
            if self.places.iter().any(|place| place.name == name) {
                let message = format!("policy {name:?} has not come from the followed server yet");
                return ErrorMessage::new(ErrorCode::Internal, message);
            }
            let names: Vec<_> = self.all().map(|hosted| hosted.name.as_str()).collect();
            refuse(format!("there is no policy {name:?} here; there are {names:?} and \"scripted:random\""))
        })
    }

    /// The same for a policy that is hosted here.
    pub(crate) fn hosted_teacher(&self, name: &str) -> Option<Teacher> {
        let id = self.places.iter().position(|place| place.name == name)?;
        let hosted = self.places[id].hosted.get()?.clone();
        // Drawn once, so that a canary's student stays one.
        let seat = hosted.worker.queue.seat(100.0 * random::share());
        let (info, seen) = (hosted.info.clone(), hosted.worker.status.changes());
        Some(Teacher { id: id as u32, info, way: Way::Hosted { hosted, seat, seen } })
    }
}

/// A student's way to its policy.
pub(crate) struct Teacher {
    /// The policy's number in frames.
    pub id: u32,
    /// What it observes and does.
    pub info: TeacherInfo,
    way: Way,
}

enum Way {
    Hosted {
        hosted: Arc<Hosted>,
        seat: Seat,
        /// The change of what answers that it knows of.
        seen: u64,
    },
    /// Answers at once: a scripted policy costs nothing, and it was made for this student.
    Scripted(Rows),
}

impl Teacher {
    /// Takes a request; its answer comes through its `reply`.
    pub fn ask(&mut self, request: Request, limits: &QueueLimits) -> Result<(), NotTaken> {
        match &mut self.way {
            Way::Hosted { hosted, seat, .. } => hosted.worker.ask(seat, request, limits),
            Way::Scripted(rows) => {
                let said = match rows.answer(request.asks, &request.observations, request.rows) {
                    Ok(actions) => Said::Actions { version: 1, actions: actions.to_vec() },
                    Err(error) => {
                        let message = ErrorMessage::new(ErrorCode::PolicyFailed, error.to_string());
                        Said::Failed(Box::new(message))
                    }
                };
                request.answer(said);
                Ok(())
            }
        }
    }

    /// The policy's name; of scripted ones, which there are as many of as students want, what they are.
    pub fn name(&self) -> &str {
        match &self.way {
            Way::Hosted { hosted, .. } => &hosted.name,
            Way::Scripted(_) => "scripted",
        }
    }

    /// The version that answers this student now.
    pub fn version(&self) -> u32 {
        match &self.way {
            Way::Hosted { hosted, seat, .. } => {
                hosted.worker.status.read(|status| status.version_for(seat.draw()))
            }
            Way::Scripted(_) => 1,
        }
    }

    /// Done when something was published that this student may not know of.
    pub async fn published(&mut self) {
        match &mut self.way {
            Way::Hosted { hosted, seen, .. } => hosted.worker.status.changed(seen).await,
            // It stays as it is.
            Way::Scripted(_) => std::future::pending().await,
        }
    }

    /// Numbers of the policy's state for each student; 0 if it is not recurrent.
    pub fn state_width(&self) -> usize {
        match &self.way {
            Way::Hosted { hosted, .. } => hosted.state_width,
            Way::Scripted(_) => 0,
        }
    }

    /// How long a request of now would wait.
    pub fn pause(&self) -> Duration {
        match &self.way {
            Way::Hosted { hosted, .. } => hosted.worker.queue.pause(),
            Way::Scripted(_) => Duration::ZERO,
        }
    }
}

impl Drop for Teacher {
    fn drop(&mut self) {
        if let Way::Hosted { hosted, seat, .. } = &self.way {
            hosted.worker.queue.forget(seat);
        }
    }
}

impl Hosted {
    fn start(
        Loaded { name, metadata, policy, model, .. }: Loaded,
        version: u32,
        metrics: Arc<Metrics>,
        hands: &Hands,
    ) -> Result<Self, ServerError> {
        // 0 is no version on the wire.
        let first = Release { policy, model, version: version.max(1) };
        let engine = first.policy.engine();
        tracing::debug!(policy = name, engine, "the engine of a policy");
        let info = info(&*first.policy, metadata.description.as_deref().unwrap_or_default());
        let state_width = first.policy.state_width();
        let worker =
            PolicyWorker::new(name.clone(), Version::from(first), metrics, matches!(hands, Hands::Thread));
        let own = worker.clone();
        match hands {
            Hands::Thread => drop(
                std::thread::Builder::new()
                    .name(format!("policy {name}"))
                    .spawn(move || own.run())
                    .map_err(|_| ServerError::Thread(name.clone()))?,
            ),
            Hands::Task(pace) => {
                let pace = pace.clone();
                drop(tokio::spawn(async move { own.run_at(pace).await }));
            }
        }
        Ok(Hosted { name, metadata, info, state_width, worker })
    }
}

fn info(policy: &dyn Policy, description: &str) -> TeacherInfo {
    TeacherInfo {
        observation: policy.observation_space().clone(),
        action: policy.action_space().clone(),
        description: description.to_owned(),
    }
}

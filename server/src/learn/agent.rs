//! The offline agent of OTO's Algorithm 1: a training agent that learns in this process while an inferring agent, a policy
//! of [`Policies`], answers students, and takes its place when a stage begins.
//!
//! Nothing that is worse takes a place: a candidate plays the same episodes as the policy that answers, and is refused,
//! kept and reported if its mean return is lower by more than [`AgentConfig::margin`]. The same holds for what students
//! submitted: at the end of the Online stage a copy of the training agent learns with one student's batches, and they
//! become part of the dataset if it passes (line 18).
//!
//! What was learned is kept in a file, if one is named, and gone on from after a restart.
//!
//! [`OfflineAgent::advance`] does one slice of the work, [`start`] all of it in a thread of low priority.

use crate::dataset::{self, DatasetStore, State, StoreError, Submission};
use crate::learn::saved_state::{SavedState, SavedStateError};
use crate::serve::candidate;
use crate::serve::error::ServerError;
use crate::serve::policies::Policies;
use crate::serve::version::Release;
use oto_env::{Action, EnvError, Environment};
use oto_policy::{Metadata, Policy, PolicyError};
use oto_proto::{BatchId, Space};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// Learns from a dataset. It stays in the thread that made it.
pub trait TrainingAgent {
    /// Makes so many updates.
    ///
    /// # Errors
    /// If it cannot go on at all.
    fn train(&mut self, updates: u64) -> Result<(), AgentError>;

    /// What it would do now, ready to be published.
    ///
    /// # Errors
    /// If its parameters are no policy any more.
    fn policy(&mut self) -> Result<Release, AgentError>;

    /// Takes a batch into its dataset.
    ///
    /// # Errors
    /// If the batch does not fit its spaces. Part of it may have been taken: the agent is of no use any more.
    fn add(&mut self, submission: &Submission) -> Result<(), AgentError>;

    /// Everything that it has learned, without its dataset.
    ///
    /// # Errors
    /// If there is no room for it.
    fn save(&mut self) -> Result<Vec<u8>, AgentError>;

    /// Goes on from what was saved. True if the data are those it was saved with: only then does it go on as if it had never
    /// stopped.
    ///
    /// # Errors
    /// If it is not what such an agent saved; nothing changes then.
    fn load(&mut self, saved: &[u8]) -> Result<bool, AgentError>;

    /// An agent of its own that knows and has learned what this one has.
    ///
    /// # Errors
    /// If there is no room for one.
    fn fork(&mut self) -> Result<Box<dyn TrainingAgent>, AgentError>;
}

/// Why an agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The training agent's words.
    #[error("{0}")]
    Training(String),
    /// A setting out of its range.
    #[error("{field}: expected {expected}, got {got}")]
    Config {
        /// Which setting.
        field: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// The environment it is evaluated in.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// A policy that was to be evaluated.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The policy has other spaces than the environment.
    #[error("the policy observes {observation} and does {action}; the environment has other spaces")]
    Spaces {
        /// The policy's observation.
        observation: Space,
        /// The policy's action.
        action: Space,
    },
    /// The dataset.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Publishing.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// What was kept.
    #[error(transparent)]
    SavedState(#[from] SavedStateError),
    /// A file of a refused candidate.
    #[error("{path}: {source}", path = path.display())]
    Refused {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
}

/// What ends a stage: whichever comes first; nothing set, and it never ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ending {
    /// After so many updates in the stage.
    pub updates: Option<u64>,
    /// After so many seconds in the stage.
    pub seconds: Option<f64>,
    /// Once an evaluation in the stage reaches this mean return.
    pub return_at_least: Option<f64>,
}

/// Algorithm 1's stages and how candidates are judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// The end of training alone.
    pub offline: Ending,
    /// The end of the stage in which students are taught.
    pub transfer: Ending,
    /// The end of the stage in which they learn alone; then submissions are judged.
    pub online: Ending,
    /// Start over when the last stage ends; otherwise training ends there, and answering goes on.
    #[serde(rename = "loop")]
    pub repeat: bool,
    /// Updates in a slice: how long the thread works between two looks at whether it should stop.
    pub slice: u64,
    /// Updates from one evaluation to the next.
    pub evaluate_every: u64,
    /// Episodes of an evaluation, always the same ones.
    pub episodes: u64,
    /// The seed of the first of them.
    pub seed: u64,
    /// How much lower a candidate's mean return may be than the best so far: it does not add up over candidates.
    pub margin: f64,
    /// Updates of a copy with a student's batches, before it is judged by them.
    pub trial_updates: u64,
    /// Students whose batches are judged at the end of one Online stage; the others wait for the next.
    pub trials: usize,
}

impl Default for AgentConfig {
    fn default() -> Self {
        AgentConfig {
            offline: Ending::default(),
            transfer: Ending::default(),
            online: Ending::default(),
            repeat: false,
            slice: 20,
            evaluate_every: 1000,
            episodes: 20,
            seed: 1_000_000,
            margin: 0.0,
            trial_updates: 1000,
            trials: 8,
        }
    }
}

impl AgentConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`AgentError::Config`].
    pub fn validate(&self) -> Result<(), AgentError> {
        let error = |field, expected, got: String| Err(AgentError::Config { field, expected, got });
        for (field, number) in [
            ("slice", self.slice),
            ("evaluate_every", self.evaluate_every),
            ("episodes", self.episodes),
            ("trial_updates", self.trial_updates),
        ] {
            if !(1..=1 << 32).contains(&number) {
                return error(field, "1 to 4294967296", number.to_string());
            }
        }
        if !(self.margin >= 0.0 && self.margin.is_finite()) {
            return error("margin", "a return of at least 0", self.margin.to_string());
        }
        for ending in [self.offline, self.transfer, self.online] {
            if ending.updates == Some(0) {
                return error("updates", "at least 1", "0".into());
            }
            if let Some(seconds) = ending.seconds.filter(|s| !(*s > 0.0 && s.is_finite())) {
                return error("seconds", "a time above 0", seconds.to_string());
            }
            if let Some(bar) = ending.return_at_least.filter(|bar| !bar.is_finite()) {
                return error("return_at_least", "a finite return", bar.to_string());
            }
        }
        Ok(())
    }
}

/// A stage of Algorithm 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Training on the dataset.
    #[default]
    Offline,
    /// Training on, while the policy that was published teaches.
    Transfer,
    /// Training on, while students learn alone.
    Online,
}

/// How far an offline agent is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Standing {
    stage: Stage,
    /// Updates in the stage, and in all.
    stage_updates: u64,
    updates: u64,
    done: bool,
    /// The number of the policy that answers, and the largest that any version of it had.
    version: u32,
    newest: u32,
    /// What candidates are held to.
    best: Option<Best>,
    /// Transitions that were accepted.
    accepted: u64,
}

/// The best mean return of a policy that answered or was accepted, and in which episodes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Best {
    mean: f64,
    seed: u64,
    episodes: u64,
}

/// What is left of an agent that ended.
struct Remains {
    standing: Standing,
    /// The bytes of the policy that answered.
    serving: Vec<u8>,
    /// What the training agent saved.
    learned: Vec<u8>,
}

/// What is said of the bytes that are kept: the policy that answers, and after it what was learned.
#[derive(Serialize, Deserialize)]
struct Said {
    standing: Standing,
    /// Length of the policy.
    serving: usize,
}

/// What an offline agent did, for a log.
#[derive(Debug)]
pub enum Event {
    /// It goes on from what was kept.
    Resumed {
        /// The stage it was in; its seconds count anew.
        stage: Stage,
        /// Updates so far.
        updates: u64,
    },
    /// A stage began.
    Stage {
        /// Which one.
        stage: Stage,
        /// Updates so far.
        updates: u64,
    },
    /// The training agent was tested.
    Evaluated {
        /// Updates so far.
        updates: u64,
        /// Its mean return.
        mean: f64,
    },
    /// It answers from now on.
    Published {
        /// Updates so far.
        updates: u64,
        /// Its mean return.
        mean: f64,
        /// That of the policy it replaced, in the same episodes.
        before: f64,
    },
    /// It is worse than the best so far, and was kept in a file.
    Refused {
        /// Updates so far.
        updates: u64,
        /// Its mean return.
        mean: f64,
        /// That of the policy that goes on answering, in the same episodes.
        serving: f64,
        /// The best so far, in the same episodes.
        best: f64,
        /// Where it lies, if it has bytes.
        file: Option<PathBuf>,
    },
    /// A student's batches are part of the dataset.
    Accepted {
        /// The student.
        student: String,
        /// How many batches.
        batches: usize,
        /// How many transitions.
        transitions: usize,
        /// The mean return of the copy that learned with them.
        mean: f64,
        /// That of the policy that answers, in the same episodes.
        serving: f64,
        /// Whether the copy is the training agent now: it is as good as the one before. Otherwise that one goes on, with the
        /// batches.
        replaces: bool,
    },
    /// A student's batches are not, and will not be.
    Rejected {
        /// The student, if the batch could be read.
        student: String,
        /// How many batches.
        batches: usize,
        /// Why not.
        reason: String,
    },
    /// The dataset has lost transitions that were part of it.
    Missing {
        /// How many were accepted.
        accepted: u64,
        /// How many are there.
        found: u64,
    },
    /// The dataset could not be reached. What is not judged yet stays in quarantine until the next time.
    Away(StoreError),
    /// Training ended, and answering goes on.
    Done {
        /// Updates so far.
        updates: u64,
    },
    /// Training failed, and answering goes on.
    Failed(AgentError),
}

impl Event {
    /// Writes it to the log, as the agent of this policy.
    pub fn log(&self, policy: &str) {
        match self {
            Event::Resumed { stage, updates } => {
                info!(policy, ?stage, updates, "training continues from the kept state");
            }
            Event::Stage { stage, updates } => info!(policy, ?stage, updates, "a stage begins"),
            Event::Evaluated { updates, mean } => info!(policy, updates, mean, "evaluated"),
            Event::Published { updates, mean, before } => {
                info!(policy, updates, mean, before, "what was learned is published");
            }
            Event::Refused { updates, mean, serving, best, file } => {
                let file = file.as_ref().map(|file| file.to_string_lossy().into_owned());
                warn!(policy, updates, mean, serving, best, file, "what was learned is worse and refused");
            }
            Event::Accepted { student, batches, transitions, mean, serving, replaces } => {
                info!(policy, student, batches, transitions, mean, serving, replaces, "batches are accepted");
            }
            Event::Missing { accepted, found } => {
                let missing = accepted.saturating_sub(*found);
                warn!(
                    policy,
                    accepted,
                    found,
                    missing,
                    "accepted transitions are missing: forgotten, or their place was removed"
                );
            }
            Event::Rejected { student, batches, reason } => {
                info!(policy, student, batches, reason, "batches are rejected");
            }
            Event::Away(error) => warn!(policy, error = error.to_string(), "submissions are not judged yet"),
            Event::Done { updates } => info!(policy, updates, "training ends"),
            Event::Failed(error) => {
                error!(policy, error = error.to_string(), "training failed; the policy still answers");
            }
        }
    }
}

/// The receiver of an offline agent's events.
pub type Log = Box<dyn FnMut(Event) + Send>;

/// What an offline agent works with.
pub struct Parts {
    /// The name of its policy.
    pub policy: String,
    /// Learns.
    pub training: Box<dyn TrainingAgent>,
    /// Where candidates are evaluated.
    pub environment: Box<dyn Environment>,
    /// Students' batches, if they are collected.
    pub store: Option<Arc<dyn DatasetStore>>,
    /// A folder for candidates that were refused.
    pub refused: PathBuf,
    /// The file in which what was learned is kept, at every evaluation and at the end; by none it is forgotten.
    pub kept: Option<PathBuf>,
}

impl Parts {
    fn kept(&self) -> Option<SavedState> {
        self.kept.clone().map(SavedState::at)
    }

    fn read_kept(&self) -> Result<Option<Remains>, AgentError> {
        let (Some(kept), Some(path)) = (self.kept(), &self.kept) else { return Ok(None) };
        let Some((said, mut serving)) = kept.read()? else { return Ok(None) };
        match serde_json::from_value(said) {
            Ok(Said { standing, serving: length }) if length <= serving.len() => {
                let learned = serving.split_off(length);
                Ok(Some(Remains { standing, serving, learned }))
            }
            _ => Err(SavedStateError::Damaged(path.clone()).into()),
        }
    }
}

/// A policy whose bytes say everything of it, and the number it has.
fn release(model: Vec<u8>, version: u32) -> Result<Release, AgentError> {
    let policy = candidate::load(&model, &Metadata::default())?;
    Ok(Release { policy, model: Some(model), version })
}

/// How many transitions of a dataset were accepted and are there.
fn accepted(store: &dyn DatasetStore) -> Result<u64, StoreError> {
    if store.is_removed() {
        return Ok(0);
    }
    let holdings = store.summary()?;
    Ok(holdings.iter().filter(|held| held.state == State::Accepted).map(|held| held.transitions).sum())
}

/// A training agent and what it is held to.
pub struct OfflineAgent {
    config: AgentConfig,
    parts: Parts,
    policies: Policies,
    /// Returns of the policy that answers, episode by episode.
    serving: Vec<f64>,
    /// Its bytes, if it has any.
    model: Option<Vec<u8>>,
    began: bool,
    since: Duration,
    standing: Standing,
    /// The last evaluation of this stage.
    mean: Option<f64>,
    stop: Arc<AtomicBool>,
    log: Log,
}

/// An agent's policy, judged, and how far the agent is.
struct Ready {
    parts: Parts,
    serving: Vec<f64>,
    model: Option<Vec<u8>>,
    /// Where it goes on, if it does.
    standing: Option<Standing>,
}

impl OfflineAgent {
    /// The first policy of a training agent, which is given what was accepted before: to be hosted, and then replaced. It is
    /// the one that answered last, if that was kept.
    ///
    /// # Errors
    /// If an accepted batch cannot be read or does not fit, or what was kept is damaged.
    pub fn first(parts: &mut Parts) -> Result<Release, AgentError> {
        if let Some(store) = &parts.store {
            for batch in store.list(State::Accepted)? {
                parts.training.add(&store.read(batch)?)?;
            }
        }
        match parts.read_kept()? {
            Some(remains) => release(remains.serving, remains.standing.version),
            None => parts.training.policy(),
        }
    }

    /// An agent whose policy is hosted in `policies`, as [`OfflineAgent::first`] gave it.
    ///
    /// # Errors
    /// If a setting is out of its range, or the policy and the environment do not fit.
    pub fn new(config: AgentConfig, parts: Parts, policies: Policies, log: Log) -> Result<Self, AgentError> {
        let ready = Self::ready(&config, parts)?;
        Ok(Self::with(config, ready, policies, log, Arc::default()))
    }

    /// Checks the settings, goes on from what was kept, and plays the first policy's episodes.
    fn ready(config: &AgentConfig, mut parts: Parts) -> Result<Ready, AgentError> {
        config.validate()?;
        let (mut first, standing) = match parts.read_kept()? {
            None => (parts.training.policy()?, None),
            Some(Remains { standing, serving, learned }) => {
                // More may have been accepted since it was kept.
                parts.training.load(&learned)?;
                (release(serving, standing.version)?, Some(standing))
            }
        };
        let serving = evaluate(&mut *first.policy, &mut *parts.environment, config)?;
        Ok(Ready { parts, serving, model: first.model, standing })
    }

    fn with(
        config: AgentConfig,
        ready: Ready,
        policies: Policies,
        mut log: Log,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let Ready { parts, serving, model, standing } = ready;
        let (began, since, mean) = (standing.is_some(), Duration::ZERO, None);
        if let Some(Standing { stage, updates, .. }) = standing {
            log(Event::Resumed { stage, updates });
        }
        let mut standing = standing.unwrap_or_default();
        // Returns in other episodes say nothing here.
        let here = (config.seed, config.episodes);
        standing.best = standing.best.filter(|best| (best.seed, best.episodes) == here);
        let mut agent =
            OfflineAgent { config, parts, policies, serving, model, began, since, standing, mean, stop, log };
        agent.reach(self::mean(&agent.serving));
        agent.tell_missing();
        agent
    }

    /// Compares what is there of the accepted transitions with what was. Where the dataset cannot be asked, the next Online
    /// stage tells of it.
    fn tell_missing(&mut self) {
        let Some(found) = self.parts.store.as_deref().and_then(|store| accepted(store).ok()) else { return };
        let accepted = std::mem::replace(&mut self.standing.accepted, found);
        if found < accepted {
            (self.log)(Event::Missing { accepted, found });
        }
    }

    /// Something as good was seen.
    fn reach(&mut self, mean: f64) {
        let best = self.standing.best.map_or(f64::NEG_INFINITY, |best| best.mean);
        if mean >= best {
            let AgentConfig { seed, episodes, .. } = self.config;
            self.standing.best = Some(Best { mean, seed, episodes });
        }
    }

    fn best(&self) -> f64 {
        self.standing.best.map_or_else(|| mean(&self.serving), |best| best.mean)
    }

    /// The stage now.
    pub fn stage(&self) -> Stage {
        self.standing.stage
    }

    /// Does one slice of training and whatever is due after it; `now` is any clock that never runs backwards. False once
    /// there is nothing more to do.
    ///
    /// # Errors
    /// If training, evaluating or keeping failed; the policy that answers goes on doing so.
    pub fn advance(&mut self, now: Duration) -> Result<bool, AgentError> {
        if self.standing.done {
            return Ok(false);
        }
        if !self.began {
            self.began = true;
            self.enter(Stage::Offline, now);
        }
        let before = self.standing.stage_updates / self.config.evaluate_every;
        self.parts.training.train(self.config.slice)?;
        self.standing.updates += self.config.slice;
        self.standing.stage_updates += self.config.slice;
        let due = self.standing.stage_updates / self.config.evaluate_every > before;
        if due {
            let mut candidate = self.parts.training.policy()?;
            let mean = mean(&self.evaluate(&mut *candidate.policy)?);
            self.mean = Some(mean);
            (self.log)(Event::Evaluated { updates: self.standing.updates, mean });
        }
        let over = self.is_over(now);
        if over {
            self.next(now)?;
        }
        if due || over {
            self.keep()?;
        }
        Ok(!self.standing.done)
    }

    /// Keeps what answers and what was learned, where there is a place for it.
    fn keep(&mut self) -> Result<(), AgentError> {
        let (Some(kept), Some(serving)) = (self.parts.kept(), &self.model) else { return Ok(()) };
        let learned = self.parts.training.save()?;
        let next = self.policies.next_version(&self.parts.policy);
        self.standing.newest = self.standing.newest.max(next - 1);
        // Before it published anything, its policy had the first number.
        self.standing.version = self.standing.version.max(1);
        let said = Said { standing: self.standing, serving: serving.len() };
        Ok(kept.write(&serde_json::json!(said), &[serving, &learned])?)
    }

    fn is_over(&self, now: Duration) -> bool {
        let ending = match self.standing.stage {
            Stage::Offline => self.config.offline,
            Stage::Transfer => self.config.transfer,
            Stage::Online => self.config.online,
        };
        ending.updates.is_some_and(|updates| self.standing.stage_updates >= updates)
            || ending.seconds.is_some_and(|s| now.saturating_sub(self.since).as_secs_f64() >= s)
            || ending.return_at_least.zip(self.mean).is_some_and(|(bar, mean)| mean >= bar)
    }

    /// Algorithm 1 from one stage to the next: the inferring agent is replaced when each begins (lines 2, 7 and 13), and
    /// at the end of Online the dataset is renewed (line 18).
    fn next(&mut self, now: Duration) -> Result<(), AgentError> {
        if self.standing.stage == Stage::Online {
            match self.renew() {
                Err(AgentError::Store(error @ StoreError::Away { .. })) => (self.log)(Event::Away(error)),
                renewed => renewed?,
            }
        }
        let next = match self.standing.stage {
            Stage::Offline => Stage::Transfer,
            Stage::Transfer => Stage::Online,
            Stage::Online if self.config.repeat => Stage::Offline,
            Stage::Online => {
                self.replace()?;
                self.standing.done = true;
                (self.log)(Event::Done { updates: self.standing.updates });
                return Ok(());
            }
        };
        self.enter(next, now);
        self.replace()
    }

    fn enter(&mut self, stage: Stage, now: Duration) {
        (self.standing.stage, self.standing.stage_updates) = (stage, 0);
        (self.since, self.mean) = (now, None);
        (self.log)(Event::Stage { stage, updates: self.standing.updates });
    }

    /// Publishes what the training agent would do now, unless it is worse than the best so far.
    fn replace(&mut self) -> Result<(), AgentError> {
        let mut candidate = self.parts.training.policy()?;
        let returns = self.evaluate(&mut *candidate.policy)?;
        let (updates, found, before) = (self.standing.updates, mean(&returns), mean(&self.serving));
        if !self.passes(&returns) {
            return self.refuse(candidate, found);
        }
        self.model.clone_from(&candidate.model);
        let next = self.policies.next_version(&self.parts.policy).max(self.standing.newest.saturating_add(1));
        candidate.version = next;
        self.policies.publish(&self.parts.policy, candidate)?;
        (self.standing.version, self.standing.newest) = (next, next);
        self.serving = returns;
        self.reach(found);
        (self.log)(Event::Published { updates, mean: found, before });
        Ok(())
    }

    /// Whether returns are not lower than the best so far, on average over the same episodes, by more than the margin. NaN is
    /// lower than everything.
    fn passes(&self, returns: &[f64]) -> bool {
        mean(returns) - self.best() >= -self.config.margin
    }

    fn refuse(&mut self, candidate: Release, found: f64) -> Result<(), AgentError> {
        let (serving, best) = (mean(&self.serving), self.best());
        let file = candidate.model.map(|model| self.put_aside(&model)).transpose()?;
        (self.log)(Event::Refused { updates: self.standing.updates, mean: found, serving, best, file });
        Ok(())
    }

    /// Keeps a refused candidate's bytes, under a name that no other one has.
    fn put_aside(&self, model: &[u8]) -> Result<PathBuf, AgentError> {
        let folder = &self.parts.refused;
        let at = |path: &PathBuf| {
            let path = path.clone();
            move |source| AgentError::Refused { path, source }
        };
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let digest = crate::auth::digest::sha256(model);
        let path = folder.join(format!("{:09}-{}.model", self.standing.updates, &digest[..8]));
        std::fs::write(&path, model).map_err(at(&path))?;
        Ok(path)
    }

    fn evaluate(&mut self, policy: &mut dyn Policy) -> Result<Vec<f64>, AgentError> {
        evaluate(policy, &mut *self.parts.environment, &self.config)
    }

    /// Judges what students submitted, student by student, those who came first before others.
    fn renew(&mut self) -> Result<(), AgentError> {
        let Some(store) = self.parts.store.clone() else { return Ok(()) };
        self.tell_missing();
        let mut students: Vec<(String, Vec<BatchId>)> = Vec::new();
        for batch in store.list(State::Quarantine)? {
            let student = match store.read(batch) {
                Ok(submission) => submission.student,
                Err(dataset::StoreError::Corrupt { reason, .. }) => {
                    let student = "an unreadable file".into();
                    self.reject(&*store, student, &[batch], reason)?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match students.iter_mut().find(|(name, _)| *name == student) {
                Some((_, batches)) => batches.push(batch),
                None => students.push((student, vec![batch])),
            }
        }
        if students.is_empty() {
            return Ok(());
        }
        let mut candidate = self.parts.training.policy()?;
        let mut standard = mean(&self.evaluate(&mut *candidate.policy)?);
        for (student, batches) in students.into_iter().take(self.config.trials) {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            standard = self.judge(&*store, student, &batches, standard)?;
        }
        Ok(())
    }

    /// Lets a copy learn with one student's batches, and takes them in if it passes. The copy takes the training agent's place
    /// if it is as good as that, whose mean return is `standard`; gives the mean return of the training agent then.
    fn judge(
        &mut self,
        store: &dyn DatasetStore,
        student: String,
        batches: &[BatchId],
        standard: f64,
    ) -> Result<f64, AgentError> {
        let mut copy = self.parts.training.fork()?;
        let mut submissions = Vec::with_capacity(batches.len());
        for batch in batches {
            let submission = store.read(*batch)?;
            if let Err(error) = copy.add(&submission) {
                self.reject(store, student, batches, format!("batch {batch}: {error}"))?;
                return Ok(standard);
            }
            submissions.push(submission);
        }
        let transitions = submissions.iter().map(Submission::rows).sum();
        let mut left = self.config.trial_updates;
        while left > 0 {
            let slice = left.min(self.config.slice);
            copy.train(slice)?;
            left -= slice;
            if self.stop.load(Ordering::Relaxed) {
                // Undecided: the batches stay where they are.
                return Ok(standard);
            }
        }
        let mut candidate = copy.policy()?;
        let returns = self.evaluate(&mut *candidate.policy)?;
        let (found, serving) = (mean(&returns), mean(&self.serving));
        if !self.passes(&returns) {
            self.refuse(candidate, found)?;
            let reason = format!(
                "mean return {found:.2} with them, the best so far {:.2}, margin {}",
                self.best(),
                self.config.margin
            );
            self.reject(store, student, batches, reason)?;
            return Ok(standard);
        }
        batches.iter().try_for_each(|batch| store.judge(*batch, State::Accepted))?;
        self.standing.accepted += transitions as u64;
        // Not NaN, or it would not have passed.
        let replaces = found >= standard || standard.is_nan();
        match replaces {
            true => self.parts.training = copy,
            false => submissions.iter().try_for_each(|submission| self.parts.training.add(submission))?,
        }
        self.reach(found);
        self.standing.updates += self.config.trial_updates;
        let batches = batches.len();
        (self.log)(Event::Accepted { student, batches, transitions, mean: found, serving, replaces });
        Ok(if replaces { found } else { standard })
    }

    fn reject(
        &mut self,
        store: &dyn DatasetStore,
        student: String,
        batches: &[BatchId],
        reason: String,
    ) -> Result<(), AgentError> {
        batches.iter().try_for_each(|batch| store.judge(*batch, State::Rejected))?;
        (self.log)(Event::Rejected { student, batches: batches.len(), reason });
        Ok(())
    }

    /// Does all of it, until there is nothing more to do or it is told to stop.
    fn work(mut self) {
        let start = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            match self.advance(start.elapsed()) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return (self.log)(Event::Failed(error)),
            }
        }
        if let Err(error) = self.keep() {
            (self.log)(Event::Failed(error));
        }
    }
}

/// Makes an offline agent in a thread of its own, of low priority: gives its first policy, to be hosted, and what starts it
/// once that is done. `make` runs in that thread.
///
/// # Errors
/// What `make` says, and what [`OfflineAgent::first`] does.
pub fn start<E: From<AgentError> + Send + 'static>(
    policy: &str,
    config: AgentConfig,
    make: impl FnOnce() -> Result<Parts, E> + Send + 'static,
    mut log: Log,
) -> Result<(Release, Waiting), E> {
    let (say, made) = channel();
    let (go, policies) = channel::<Policies>();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = std::thread::Builder::new().name(format!("train {policy}")).spawn(move || {
        give_way();
        let first = make().and_then(|mut parts| Ok((OfflineAgent::first(&mut parts)?, parts)));
        let parts = match first {
            Ok((release, parts)) => {
                drop(say.send(Ok(release)));
                parts
            }
            Err(error) => return drop(say.send(Err(error))),
        };
        let Ok(policies) = policies.recv() else { return };
        match OfflineAgent::ready(&config, parts) {
            Ok(ready) => OfflineAgent::with(config, ready, policies, log, stopped).work(),
            Err(error) => log(Event::Failed(error)),
        }
    });
    let gone = || AgentError::Server(ServerError::Thread(policy.to_owned()));
    let thread = thread.map_err(|_| gone())?;
    let release = made.recv().map_err(|_| gone())??;
    Ok((release, Waiting { go, training: Training { stop, thread: Some(thread) } }))
}

/// An offline agent whose first policy is not hosted yet.
pub struct Waiting {
    go: Sender<Policies>,
    training: Training,
}

impl Waiting {
    /// Begins, with the policies among which the agent's own is hosted.
    pub fn begin(self, policies: Policies) -> Training {
        // It fails only if the thread is gone, and then there is nothing to begin.
        drop(self.go.send(policies));
        self.training
    }
}

/// An offline agent at work. Dropping it ends it, after the slice or evaluation that is under way.
pub struct Training {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Training {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Answering goes before training. Linux has priorities for threads; elsewhere the slices have to do.
fn give_way() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(10);
}

fn mean(returns: &[f64]) -> f64 {
    returns.iter().sum::<f64>() / returns.len().max(1) as f64
}

/// The returns of a policy in the episodes that all candidates play.
fn evaluate(
    policy: &mut dyn Policy,
    environment: &mut dyn Environment,
    config: &AgentConfig,
) -> Result<Vec<f64>, AgentError> {
    let (observes, acts) = (environment.observation_space(), environment.action_space());
    let same = |ours: &Space, theirs: &Space| match (ours, theirs) {
        (Space::Discrete { n }, Space::Discrete { n: m }) => n == m,
        (Space::Box { low, .. }, Space::Box { low: other, .. }) => low.len() == other.len(),
        _ => false,
    };
    if !same(observes, policy.observation_space()) || !same(acts, policy.action_space()) {
        let (observation, action) = (policy.observation_space().clone(), policy.action_space().clone());
        return Err(AgentError::Spaces { observation, action });
    }
    let discrete = matches!(acts, Space::Discrete { .. });
    let mut observation = vec![0.0; observes.width()];
    let (mut row, mut state) = (Vec::new(), vec![0.0; policy.state_width()]);
    let mut returns = Vec::new();
    for seed in (0..config.episodes).map(|episode| config.seed.wrapping_add(episode)) {
        environment.reset(Some(seed), &mut observation)?;
        let mut score = 0.0;
        state.fill(0.0);
        loop {
            policy.act_from(&observation, 1, &mut state, &mut row)?;
            oto_policy::fit_actions(policy.action_space(), &mut row)?;
            // `fit_actions` left indices that exist only.
            let action = if discrete { Action::Discrete(row[0] as u32) } else { Action::Continuous(&row) };
            let step = environment.step(action, &mut observation)?;
            score += step.reward;
            if step.done() {
                break;
            }
        }
        returns.push(score);
    }
    Ok(returns)
}

//! Learners that are hosted here: each trains in a thread of its own from the rows of its edges, and publishes weights.
//!
//! The thread takes what has come, stores it, acknowledges it, makes an update, and begins again: rows wait for one update at most. With a
//! folder (`row_log`) an acknowledged row outlives the process; without one it lives as long as the process. Another thread writes checkpoints.
//!
//! A learner whose update failed has failed for good: it owes nothing, ends its sessions and takes no more rows, which stay at the edges.

use crate::learn::row_log::{Keep, KeepError, Place, Record};
use crate::serve::error::ServerError;
use crate::serve::learners::{
    Command, Description, HostedLearner, Learners, Published, Rows, Standing, WAITING, progress,
};
use crate::serve::policies::Policies;
use oto_agent::learner::{Learner, LearnerError};
use oto_proto::Row;
use serde_json::json;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{error, info, warn};

/// How long an idle learner waits before it looks whether it is to stop or to save.
const IDLE: Duration = Duration::from_millis(100);
/// How long a learner waits for more after a failed write.
const PAUSE: Duration = Duration::from_millis(200);
/// A waiting edge gets reports of the backlog until it has shrunk to this number of updates.
const LITTLE: u64 = 4;
/// A log of this many bytes causes a checkpoint at once.
const MAX_LOG: u64 = 1 << 30;

/// Why a learner cannot be hosted.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The learner.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// Its folder.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The server.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// A learner that is ready to work, in a thread of its own.
pub struct Prepared {
    name: String,
    description: Description,
    first: Published,
    go: Sender<Go>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Prepared {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What a learner needs to begin.
struct Go {
    hosted: Arc<HostedLearner>,
    inbox: mpsc::Receiver<Command>,
    publish: watch::Sender<Published>,
}

/// Makes a learner ready, in its thread; a folder restores it.
///
/// # Errors
/// What `make` says; a folder that cannot be used, or that holds another learner.
pub fn prepare<E: From<HostError> + Send + 'static>(
    name: &str,
    folder: Option<PathBuf>,
    make: impl FnOnce() -> Result<Learner, E> + Send + 'static,
) -> Result<Prepared, E> {
    let (say, made) = channel();
    let (go, begin) = channel::<Go>();
    let stop = Arc::<AtomicBool>::default();
    let (own, stopped) = (name.to_owned(), stop.clone());
    let thread = std::thread::Builder::new().name(format!("learn {name}")).spawn(move || {
        let opened = make().and_then(|learner| Ok(open(&own, learner, folder.as_deref())?));
        let (learner, keep) = match opened {
            Ok(opened) => opened,
            Err(error) => return drop(say.send(Err(error))),
        };
        let first = published(&learner, version(&learner));
        drop(say.send(Ok((Description::of(&learner), first))));
        let Ok(Go { hosted, inbox, publish }) = begin.recv() else { return };
        let worker = Worker {
            hosted,
            published: version(&learner),
            learner,
            keep,
            inbox,
            publish,
            standings: HashMap::new(),
            told: 0,
            waiting: Vec::with_capacity(WAITING),
            records: Vec::new(),
            saved: Instant::now(),
            shown: Instant::now(),
            saving: None,
            failed: None,
            stop: stopped,
        };
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => worker.work(&runtime),
            Err(error) => error!(learner = own, error = error.to_string(), "a learner does not run"),
        }
    });
    let gone = || HostError::from(ServerError::Thread(name.to_owned()));
    let thread = thread.map_err(|_| gone())?;
    let (description, first) = made.recv().map_err(|_| gone())??;
    Ok(Prepared { name: name.into(), description, first, go, stop, thread })
}

/// Opens a learner's folder, if it has one, and restores the learner from it.
fn open(
    name: &str,
    mut learner: Learner,
    folder: Option<&Path>,
) -> Result<(Learner, Option<Keep>), HostError> {
    let Some(folder) = folder else { return Ok((learner, None)) };
    let widths = [learner.spaces()[0].width(), learner.spaces()[1].width()];
    let mut failed = None;
    let keep = Keep::open(folder, widths, |saved, record| {
        let taken = match (saved, record) {
            (Some(saved), _) => learner.load(&saved),
            (None, Some(record)) => apply(&mut learner, &record),
            (None, None) => Ok(()),
        };
        failed = failed.take().or(taken.err());
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let (rows, updates) = (learner.counts().rows, learner.updates());
    info!(learner = name, rows, updates, folder = %folder.display(), "a learner is ready");
    Ok((learner, Some(keep)))
}

/// Learners at work. Dropping this ends them: each saves itself first, if it has a folder.
pub struct Learning(Vec<(Arc<AtomicBool>, JoinHandle<()>)>);

impl Drop for Learning {
    fn drop(&mut self) {
        self.0.iter().for_each(|(stop, _)| stop.store(true, Ordering::Relaxed));
        self.0.drain(..).for_each(|(_, thread)| drop(thread.join()));
    }
}

/// Starts learners, counted among the metrics of these policies.
///
/// # Errors
/// If two share a name.
pub fn start(prepared: Vec<Prepared>, policies: &Policies) -> Result<(Learners, Learning), ServerError> {
    let (mut hosted, mut waiting) = (Vec::new(), Vec::new());
    let mut learning = Learning(Vec::new());
    for Prepared { name, description, first, go, stop, thread } in prepared {
        let (commands, inbox) = mpsc::channel(WAITING);
        let (publish, weights) = watch::channel(first);
        let metrics = policies.metrics().learner(&name);
        hosted.push(HostedLearner::new(&name, description, (commands, weights), metrics));
        waiting.push((go, inbox, publish));
        learning.0.push((stop, thread));
    }
    let learners = Learners::new(hosted)?;
    for (hosted, (go, inbox, publish)) in learners.all().zip(waiting) {
        // It fails only if the thread is gone, and then there is nothing to begin.
        drop(go.send(Go { hosted: hosted.clone(), inbox, publish }));
    }
    Ok((learners, learning))
}

/// The version of a learner's weights: its updates, and one for those that it began with.
fn version(learner: &Learner) -> u32 {
    u32::try_from(learner.updates() + 1).unwrap_or(u32::MAX)
}

fn published(learner: &Learner, version: u32) -> Published {
    let mut weights = Vec::new();
    learner.weights(&mut weights);
    Published { version, weights: weights.into() }
}

/// Makes a change again that was made before the server ended.
fn apply(learner: &mut Learner, record: &Record) -> Result<(), LearnerError> {
    match record {
        // An edge too many was refused then, and is now.
        Record::Join { edge, session, stream, next } => {
            match learner.join((edge, *session), *stream, *next) {
                Err(LearnerError::Edges(_)) => Ok(()),
                joined => joined,
            }
        }
        Record::Rows { edge, session, rows } => take(learner, (edge, *session), rows, |_| {}),
        Record::Dropped { edge, session, first } => {
            learner.dropped((edge, *session), *first);
            Ok(())
        }
        Record::Pause { edge, paused } => learner.pause(edge, *paused).or(Ok(())),
        Record::Forget { edge } => learner.drop_edge(edge).or(Ok(())),
    }
}

/// Gives a learner rows.
fn take(
    learner: &mut Learner,
    session: (&str, u32),
    rows: &Rows,
    mut ended: impl FnMut(oto_agent::learner::Episode),
) -> Result<(), LearnerError> {
    let [width, action_width] = [learner.spaces()[0].width(), learner.spaces()[1].width()];
    let observations = rows.observations.chunks_exact(width);
    let actions = rows.actions.chunks_exact(action_width);
    for ((sequence, flags), (observation, action)) in
        (rows.first..).zip(&rows.flags).zip(observations.zip(actions))
    {
        let row = Row { sequence, observation, action, flags: *flags };
        let (_, episode) = learner.take(session, row)?;
        episode.into_iter().for_each(&mut ended);
    }
    Ok(())
}

/// A learner's thread.
struct Worker {
    hosted: Arc<HostedLearner>,
    learner: Learner,
    keep: Option<Keep>,
    inbox: mpsc::Receiver<Command>,
    publish: watch::Sender<Published>,
    /// The version that was published last.
    published: u32,
    /// Where the newest session of each edge learns how it stands.
    standings: HashMap<Arc<str>, Arc<watch::Sender<Standing>>>,
    /// The backlog that they were told last.
    told: u64,
    /// Commands that are being done.
    waiting: Vec<Command>,
    records: Vec<u8>,
    /// When the learner was saved last, and when the metrics were told last.
    saved: Instant,
    shown: Instant,
    /// The checkpoint that is being written.
    saving: Option<JoinHandle<Result<Place, KeepError>>>,
    /// Why it does not learn any more.
    failed: Option<String>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn work(mut self, runtime: &Runtime) {
        let mut busy = false;
        while !self.stop.load(Ordering::Relaxed) {
            if !busy {
                // The timer is made inside the runtime.
                match runtime.block_on(async { timeout(IDLE, self.inbox.recv()).await }) {
                    Ok(Some(command)) => self.waiting.push(command),
                    Ok(None) => break,
                    Err(_) => {}
                }
            }
            while self.waiting.len() < WAITING
                && let Ok(command) = self.inbox.try_recv()
            {
                self.waiting.push(command);
            }
            if !self.waiting.is_empty() {
                self.take_all();
            }
            busy = self.update();
            if !busy || self.shown.elapsed() >= IDLE {
                self.show();
            }
            self.save_if_due();
        }
        // Rows that wait in the queue were not acknowledged: they come again.
        self.wait_for_save();
        if self.keep.as_ref().is_some_and(|keep| keep.bytes() > 0) {
            self.save();
            self.wait_for_save();
        }
    }

    /// Stores what waits, does it, and tells the sessions.
    fn take_all(&mut self) {
        let mut commands = std::mem::take(&mut self.waiting);
        if let Some(why) = self.failed.clone() {
            let questions = |command: &Command| matches!(command, Command::Drop { .. } | Command::List(_));
            let (asked, others): (Vec<_>, Vec<_>) = commands.into_iter().partition(questions);
            if others.iter().any(|command| matches!(command, Command::Join { .. } | Command::Rows { .. })) {
                self.hosted.forget_sessions(progress(&self.learner), &why);
            }
            for command in others {
                if let Command::Pause { done, .. } = command {
                    let _ = done.send(Err(why.clone()));
                }
            }
            commands = asked;
        }
        if let Err(error) = self.store(&commands) {
            let why = "rows cannot be stored".to_owned();
            error!(
                learner = self.hosted.name,
                error = error.to_string(),
                "a learner cannot store rows: they stay at the edges"
            );
            self.standings.clear();
            self.hosted.forget_sessions(progress(&self.learner), &why);
            for command in commands {
                if let Command::Pause { done, .. } | Command::Drop { done, .. } = command {
                    let _ = done.send(Err(why.clone()));
                }
            }
            std::thread::sleep(PAUSE);
            return;
        }
        for command in commands {
            if let Err(error) = self.carry_out(command) {
                error!(
                    learner = self.hosted.name,
                    error = error.to_string(),
                    "a learner cannot take rows: they stay at the edges"
                );
                self.standings.clear();
                self.hosted.forget_sessions(progress(&self.learner), &error.to_string());
            }
        }
        self.acknowledge(false);
    }

    /// Tells the sessions what is stored; those without new rows only if `all`.
    fn acknowledge(&mut self, all: bool) {
        let backlog = self.learner.backlog();
        self.told = backlog;
        for edge in self.learner.edges() {
            let Some(standing) = self.standings.get(edge.name()) else { continue };
            standing.send_if_modified(|standing| {
                let news = all || standing.next != edge.next();
                (standing.next, standing.backlog) = (edge.next(), backlog);
                news
            });
        }
    }

    /// Puts what changes the learner on the disk.
    fn store(&mut self, commands: &[Command]) -> Result<(), KeepError> {
        let Some(keep) = &mut self.keep else { return Ok(()) };
        self.records.clear();
        let records = commands.iter().filter_map(|command| {
            Some(match command {
                Command::Join { session: (edge, session), stream, next, .. } => {
                    Record::Join { edge: edge.to_string(), session: *session, stream: *stream, next: *next }
                }
                Command::Rows { session: (edge, session), rows, .. } => {
                    Record::Rows { edge: edge.to_string(), session: *session, rows: rows.clone() }
                }
                Command::Dropped { session: (edge, session), first } => {
                    Record::Dropped { edge: edge.to_string(), session: *session, first: *first }
                }
                Command::Pause { edge, paused, .. } => Record::Pause { edge: edge.clone(), paused: *paused },
                Command::Drop { edge, .. } => Record::Forget { edge: edge.clone() },
                Command::List(_) => return None,
            })
        });
        records.for_each(|record| record.encode(&mut self.records));
        match self.records.is_empty() {
            true => Ok(()),
            false => keep.append(&self.records),
        }
    }

    fn carry_out(&mut self, command: Command) -> Result<(), LearnerError> {
        let metrics = &self.hosted.metrics;
        match command {
            Command::Join { session: (edge, session), stream, next, standing } => {
                info!(learner = self.hosted.name, edge = &*edge, session, next, "an edge begins a session");
                self.learner.join((&edge, session), stream, next)?;
                self.standings.insert(edge, standing);
            }
            Command::Rows { session: (edge, session), rows, held } => {
                let name = &self.hosted.name;
                take(&mut self.learner, (&edge, session), &rows, |episode| {
                    metrics.episode(episode.score, episode.evaluation);
                    let (steps, evaluation) = (episode.length, episode.evaluation);
                    tracing::debug!(
                        learner = name,
                        edge = &*edge,
                        score = episode.score,
                        steps,
                        evaluation,
                        "an episode ended"
                    );
                })?;
                drop(held);
            }
            Command::Dropped { session: (edge, session), first } => {
                self.learner.dropped((&edge, session), first)
            }
            Command::Pause { edge, paused, done } => {
                let _ = done.send(self.learner.pause(&edge, paused).map_err(|error| error.to_string()));
            }
            Command::Drop { edge, done } => {
                self.standings.remove(&*edge);
                let _ = done.send(self.learner.drop_edge(&edge).map_err(|error| error.to_string()));
            }
            Command::List(answer) => {
                let _ = answer.send(self.list());
            }
        }
        Ok(())
    }

    fn list(&self) -> serde_json::Value {
        let edge = |edge: &oto_agent::learner::EdgeReplay| {
            let [rows, steps] = edge.taken();
            let last = edge.last_episode();
            json!({
                "edge": edge.name(), "session": edge.session(), "stream": edge.stream().to_string(), "next": edge.next(),
                "paused": edge.paused(), "rows": rows, "steps": steps, "transitions": edge.transitions(),
                "last_return": last.map(|last| last.score), "last_length": last.map(|last| last.length),
            })
        };
        self.learner.edges().iter().map(edge).collect()
    }

    /// Makes an update, if one is owed, and publishes its weights if an edge waits for them. Whether there may be another one.
    fn update(&mut self) -> bool {
        let made = match self.failed {
            Some(_) => Ok(false),
            None => self.learner.work(),
        };
        let busy = made.unwrap_or_else(|error| {
            error!(
                learner = self.hosted.name,
                error = error.to_string(),
                "a learner does not learn any more; its edges keep their weights"
            );
            self.fail(&error.to_string());
            false
        });
        if self.told > LITTLE && self.learner.backlog() <= self.told / 2 {
            self.acknowledge(true);
        }
        let version = version(&self.learner);
        if self.failed.is_none() && version > self.published && self.hosted.wanted_weights() {
            self.publish.send_replace(published(&self.learner, version));
            self.published = version;
        }
        busy
    }

    /// Tells the metrics how the learner stands.
    fn show(&mut self) {
        self.shown = Instant::now();
        let (learner, log) = (&self.learner, self.keep.as_ref().map_or(0, Keep::bytes));
        self.hosted.metrics.stands(
            learner.counts(),
            learner.updates(),
            learner.backlog(),
            learner.transitions(),
            log,
        );
    }

    /// The update failed, and so would every other one: there is nothing to owe, and nothing to take rows for.
    fn fail(&mut self, why: &str) {
        let why = format!("the learner does not learn any more: {why}; its server must be started anew");
        self.learner.forgive();
        self.standings.clear();
        self.hosted.forget_sessions(progress(&self.learner), &why);
        self.failed = Some(why);
    }

    fn save_if_due(&mut self) {
        if self.saving.as_ref().is_some_and(JoinHandle::is_finished) {
            self.wait_for_save();
        }
        let every = Duration::from_secs_f64(self.learner.config().checkpoint_seconds);
        let full = self.keep.as_ref().is_some_and(|keep| keep.bytes() > MAX_LOG);
        let changed = self.keep.as_ref().is_some_and(|keep| keep.bytes() > 0);
        if self.saving.is_none() && changed && (full || self.saved.elapsed() >= every) {
            self.save();
        }
    }

    /// Begins a checkpoint: the learner is copied here, and written by another thread.
    fn save(&mut self) {
        let Some(keep) = self.keep.as_mut().filter(|_| self.failed.is_none()) else { return };
        self.saved = Instant::now();
        let began = self.learner.save().map_err(HostError::from).and_then(|file| {
            let place = keep.turn()?;
            let name = format!("save {}", self.hosted.name);
            let write = move || place.write(&file).map(|()| place);
            let thread = std::thread::Builder::new().name(name).spawn(write);
            Ok(thread.map_err(|_| ServerError::Thread(self.hosted.name.clone()))?)
        });
        match began {
            Ok(thread) => self.saving = Some(thread),
            // The log has everything still.
            Err(error) => {
                warn!(learner = self.hosted.name, error = error.to_string(), "a learner is not saved");
            }
        }
    }

    /// Waits for the checkpoint that is being written.
    fn wait_for_save(&mut self) {
        let (Some(thread), Some(keep)) = (self.saving.take(), &mut self.keep) else { return };
        let unsaved = match thread.join() {
            Ok(Ok(place)) => return keep.finish(&place),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "its thread failed".to_owned(),
        };
        // The logs have everything still.
        warn!(learner = self.hosted.name, error = unsaved, "a learner is not saved");
    }
}

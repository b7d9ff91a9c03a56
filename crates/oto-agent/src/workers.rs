//! Asynchronous workers on threads of one process: `oto learn --algorithm a3c --workers N`.
//!
//! One [`Student`] is the shared side: parameters, optimiser, evaluations, checkpoint. Each worker is a student of its own, with its own
//! environment: it fetches the parameters, plays a rollout, and applies its gradients under the lock of the shared side. The order of
//! the updates depends on the clock, so a run with several workers does not repeat.

use crate::environments;
use crate::run::{self, Job, Observer, RunError};
use crate::student::{Event, Metrics, Student, Tick};
use crate::trainer::{Episode, TrainError};
use oto_graph::Backend;
use oto_rl::engine::LossParts;
use oto_rl::shared::{Limits, Part, Shared};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most workers of one process. Each is a thread with an environment.
pub const MAX_WORKERS: usize = 64;
/// Reports that wait for the observer; workers wait beyond them.
const MAX_WAITING: usize = 4096;
/// How long the observer sleeps without a report.
const IDLE: Duration = Duration::from_millis(100);
/// The most transitions in a worker's buffer, apart from two rollouts: a worker reads the newest rollout alone.
const BUFFER: usize = 1024;
/// Each worker's seed is the last one's plus this, within the seeds that every environment takes.
const SEED_STEP: u64 = 0x1e37_79b9;
const MAX_SEED: u64 = (1 << 31) - 1;

/// Why asynchronous workers cannot run a job.
#[derive(Debug, thiserror::Error)]
pub enum WorkersError {
    /// None, or too many.
    #[error("expected 1 to {MAX_WORKERS} workers, got {0}")]
    Count(usize),
    /// The algorithm has no shared side.
    #[error("several workers need an asynchronous algorithm (--algorithm a3c), got {0:?}")]
    Algorithm(String),
    /// A setting that several workers cannot have.
    #[error("several workers cannot have {0}")]
    Setting(&'static str),
}

/// Checks that a job can have this many workers.
///
/// # Errors
/// A count out of its range; a job that needs one worker.
pub fn check(job: &Job) -> Result<(), WorkersError> {
    let student = &job.student;
    if !(1..=MAX_WORKERS).contains(&job.workers) {
        return Err(WorkersError::Count(job.workers));
    }
    if job.workers == 1 {
        return Ok(());
    }
    if !student.algorithm.is_asynchronous() {
        return Err(WorkersError::Algorithm(student.algorithm.name().into()));
    }
    let refused = [
        (!job.teachers.is_empty(), "teachers: learn from teachers with one worker"),
        (job.distill.is_some(), "a distillation: learn from logits with one worker"),
        (job.peer.is_some(), "a group: learn from others with one worker"),
        (job.dataset.is_some(), "a dataset beside the environment"),
        (student.evaluate_between_episodes, "evaluations in the training environment"),
        (student.backend != "cpu", "another backend than \"cpu\""),
    ];
    match refused.into_iter().find(|(given, _)| *given) {
        Some((_, what)) => Err(WorkersError::Setting(what)),
        None => Ok(()),
    }
}

/// Something for the observer.
enum Report {
    Event(Event),
    Metrics(Box<Metrics>),
}

/// Everything under the lock.
struct State<'s> {
    student: &'s mut Student,
    shared: Shared,
    /// Steps that workers have begun or taken.
    claimed: u64,
    reports: VecDeque<Report>,
    /// Workers that are not done.
    active: usize,
    failure: Option<TrainError>,
}

/// The shared side, with its lock.
struct Pool<'s> {
    state: Mutex<State<'s>>,
    /// Reports came, or were taken.
    news: Condvar,
    stop: AtomicBool,
    start: Instant,
}

/// What a worker brings back from a rollout.
#[derive(Default)]
struct Rollout {
    version: u64,
    steps: u64,
    gradients: Vec<f32>,
    parameters: Vec<f32>,
    episodes: Vec<Episode>,
}

impl<'s> Pool<'s> {
    fn new(student: &'s mut Student, workers: usize) -> Self {
        let mut shared = Shared::new(student.trainer().learner(), Limits::default());
        for _ in 0..workers {
            shared.join();
        }
        let claimed = student.trainer().steps();
        let (reports, failure) = (VecDeque::new(), None);
        let state = State { student, shared, claimed, reports, active: workers, failure };
        let (news, stop) = (Condvar::new(), AtomicBool::new(false));
        Self { state: Mutex::new(state), news, stop, start: Instant::now() }
    }

    /// The lock. A worker that panicked ends the run, so its state is not used for more than its end.
    fn lock(&self) -> MutexGuard<'_, State<'s>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.news.notify_all();
    }

    /// Gives a worker the newest parameters, and its next steps: `most` of them, or what is left of the run.
    fn claim(&self, state: &mut State<'_>, most: u64, rollout: &mut Rollout) -> Result<(), TrainError> {
        let left = state.student.trainer().config().steps.saturating_sub(state.claimed);
        rollout.steps = if self.stopped() { 0 } else { left.min(most) };
        state.claimed += rollout.steps;
        rollout.version = state.shared.fetch(state.student.trainer().learner(), &mut rollout.parameters)?;
        Ok(())
    }

    /// Takes what a worker brings: steps, episodes, and gradients if its rollout is whole.
    fn take(
        &self,
        state: &mut State<'_>,
        number: usize,
        rollout: &Rollout,
        report: Option<&LossParts>,
    ) -> Result<(), TrainError> {
        let State { student, shared, reports, .. } = state;
        let before = student.trainer().steps();
        if let Some(report) = report {
            let lr = student.trainer().learning_rate_after(rollout.steps) as f32;
            let agent = student.trainer().learner();
            shared.apply(agent, number, rollout.version, &rollout.gradients, [lr, 1.0])?;
            agent.engine_mut().report(report);
        }
        let now_ms = self.start.elapsed().as_millis() as u64;
        let counted = student.count(rollout.steps, &rollout.episodes, now_ms);
        reports.extend(std::iter::from_fn(|| student.next_event()).map(Report::Event));
        counted?;
        if before / run::METRICS < student.trainer().steps() / run::METRICS {
            let metrics = metrics(student, shared, now_ms);
            reports.push_back(Report::Metrics(Box::new(metrics)));
        }
        Ok(())
    }

    /// A worker's life.
    fn work(&self, number: usize, worker: &mut Student) -> Result<(), TrainError> {
        let most = worker.trainer().config().algorithm.batch_size() as u64;
        let mut rollout = Rollout::default();
        let mut state = self.lock();
        loop {
            while state.reports.len() >= MAX_WAITING && !self.stopped() {
                state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            self.claim(&mut state, most, &mut rollout)?;
            drop(state);
            if rollout.steps == 0 {
                return Ok(());
            }
            let learner = worker.trainer().learner();
            learner.engine_mut().write_exchanged(&rollout.parameters)?;
            learner.hand_over()?;
            rollout.episodes.clear();
            for _ in 0..rollout.steps {
                // Its links are none: it never waits, and it has no end of its own.
                if self.stopped() || worker.tick(0)? != Tick::Stepped {
                    return Ok(());
                }
            }
            let ended = std::iter::from_fn(|| worker.next_event());
            rollout.episodes.extend(ended.filter_map(|event| match event {
                Event::Episode { episode, .. } => Some(episode),
                _ => None,
            }));
            let whole = rollout.steps == most;
            if whole {
                worker.trainer().learner().engine().gradients(&mut rollout.gradients);
            }
            let report = worker.trainer().last_loss().filter(|_| whole);
            state = self.lock();
            self.take(&mut state, number, &rollout, report)?;
            if !state.reports.is_empty() {
                self.news.notify_all();
            }
        }
    }
}

/// How a run stands, with what each worker sent.
fn metrics(student: &Student, shared: &Shared, now_ms: u64) -> Metrics {
    Metrics { workers: Some(shared.counts().copied().collect()), ..student.metrics(now_ms) }
}

/// Notes the end of a worker, of a panic too.
struct Present<'p, 's>(&'p Pool<'s>);

impl Drop for Present<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().active -= 1;
        if std::thread::panicking() {
            self.0.stop.store(true, Ordering::Relaxed);
        }
        self.0.news.notify_all();
    }
}

/// Runs a job's workers to the end of the run, or until the observer stops it. `student` is its shared side. Gives how the run stood.
///
/// # Errors
/// The first failure of a worker or of the observer. The observer has the checkpoint then, unless the learner failed.
pub fn run(
    job: &Job,
    student: &mut Student,
    backend: &dyn Backend,
    observer: &mut dyn Observer,
) -> Result<Metrics, RunError> {
    let students = (0..job.workers).map(|i| worker(job, i, backend)).collect::<Result<Vec<_>, _>>()?;
    let pool = Pool::new(student, job.workers);
    let observed = std::thread::scope(|scope| {
        for (number, mut student) in students.into_iter().enumerate() {
            let pool = &pool;
            let work = move || {
                let _present = Present(pool);
                if let Err(error) = pool.work(number, &mut student) {
                    pool.lock().failure.get_or_insert(error);
                    pool.end();
                }
            };
            let spawned =
                std::thread::Builder::new().name(format!("worker {number}")).spawn_scoped(scope, work);
            if let Err(error) = spawned {
                pool.lock().active = number;
                pool.end();
                return Err(RunError::Observer(format!("no thread for worker {number}: {error}")));
            }
        }
        let observed = observe(&pool, observer);
        pool.end();
        observed
    });
    let State { student, shared, reports, failure, .. } =
        pool.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let ended = match failure {
        Some(error) => Err(RunError::Train(error)),
        None => observed,
    };
    let rest = reports.into_iter().try_for_each(|report| show(report, observer));
    let now_ms = pool.start.elapsed().as_millis() as u64;
    let last = metrics(student, &shared, now_ms);
    let written = observer.metrics(&last).map_err(RunError::Observer);
    let whole =
        matches!(ended, Ok(()) | Err(RunError::Train(TrainError::Environment(_)) | RunError::Observer(_)));
    let saved = if whole { run::checkpoint(student, observer) } else { Ok(()) };
    ended.and(rest).and(written).and(saved)?;
    observer.progress(&last).map_err(RunError::Observer)?;
    Ok(last)
}

fn show(report: Report, observer: &mut dyn Observer) -> Result<(), RunError> {
    match report {
        Report::Event(event) => observer.event(&event),
        Report::Metrics(metrics) => observer.metrics(&metrics),
    }
    .map_err(RunError::Observer)
}

/// Shows the observer what happens, until the workers are done or it stops them.
fn observe(pool: &Pool<'_>, observer: &mut dyn Observer) -> Result<(), RunError> {
    let (mut last_progress, mut last_checkpoint) = (Instant::now(), Instant::now());
    loop {
        let mut state = pool.lock();
        if state.reports.is_empty() && state.active > 0 {
            state = pool.news.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner).0;
        }
        let (reports, active) = (std::mem::take(&mut state.reports), state.active);
        drop(state);
        pool.news.notify_all();
        reports.into_iter().try_for_each(|report| show(report, observer))?;
        if active == 0 || observer.stop() {
            return Ok(());
        }
        if last_progress.elapsed() >= run::PROGRESS {
            last_progress = Instant::now();
            let state = pool.lock();
            let metrics = metrics(state.student, &state.shared, 0);
            drop(state);
            observer.progress(&metrics).map_err(RunError::Observer)?;
        }
        if last_checkpoint.elapsed() >= run::CHECKPOINT {
            run::checkpoint(pool.lock().student, observer)?;
            last_checkpoint = Instant::now();
        }
    }
}

/// A worker: it has no evaluations, no checkpoint, and no end of its own.
fn worker(job: &Job, number: usize, backend: &dyn Backend) -> Result<Student, TrainError> {
    let mut config = job.student.clone();
    if number > 0 {
        config.seed = config.seed.wrapping_add(SEED_STEP.wrapping_mul(number as u64)) & MAX_SEED;
    }
    config.steps = u64::MAX;
    config.evaluation.every = 0;
    config.buffer = config.buffer.min(BUFFER.max(2 * config.algorithm.batch_size()));
    let environment = environments::of_student(&job.env, &config)?;
    Student::of(Part::Worker, &config, environment, &[], backend, 0)
}

#[cfg(test)]
mod tests;

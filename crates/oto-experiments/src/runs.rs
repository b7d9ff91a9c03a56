//! Runs of an experiment: arms times seeds, in parallel, each kept when it is done.

use crate::teachers::Teachers;
use crate::{Options, ReportError, write};
use indicatif::{ProgressBar, ProgressStyle};
use oto_agent::drive::{Driver, Wire};
use oto_agent::environments;
use oto_agent::link::memory::Memory;
use oto_agent::run::Job;
use oto_agent::run::{self, Observer, RunError, on_cpu};
use oto_agent::student::{Event, Metrics, Student};
use oto_agent::trainer::TrainError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Changes whenever old runs would no longer be made the same way.
const FORMAT: u32 = 2;

/// One way to train, tried on every seed.
pub struct Arm {
    /// Short name, part of file names.
    pub name: &'static str,
    /// For legends.
    pub title: &'static str,
    /// Another run, whose student this one begins with.
    pub before: Option<Job>,
    /// The run; its seed is set for each run.
    pub job: Job,
    /// Plays the trained student in episodes of these seeds, in this environment.
    pub test: Option<(&'static str, Range<u64>)>,
    /// Makes the teachers of a seed.
    pub teachers: Teachers,
}

/// What is kept of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finished {
    /// Its seed.
    pub seed: u64,
    /// Steps of the evaluations.
    pub steps: Vec<u64>,
    /// Their mean returns.
    pub returns: Vec<f64>,
    /// Updates made.
    pub updates: u64,
    /// Labels received.
    pub labels: u64,
    /// Bytes sent to teachers, headers and control messages included.
    pub bytes_up: u64,
    /// Bytes received from teachers.
    pub bytes_down: u64,
    /// Raw transitions that left the student.
    pub transitions_sent: u64,
    /// When the Transfer stage ended, if it did.
    pub transfer_ended: Option<u64>,
    /// Returns in the episodes of [`Arm::test`].
    #[serde(default)]
    pub tested: Vec<f64>,
    /// How long the run took, evaluations included.
    pub seconds: f64,
}

impl Finished {
    /// Steps until the second of two evaluations in a row of at least `bar`, or `limit`.
    pub fn twice(&self, bar: f64, limit: u64) -> u64 {
        let found = self.returns.windows(2).position(|pair| pair.iter().all(|r| *r >= bar));
        found.map_or(limit, |i| self.steps[i + 1])
    }

    /// Steps until the first evaluation of at least `bar`, or `limit`.
    pub fn first(&self, bar: f64, limit: u64) -> u64 {
        let found = self.returns.iter().position(|r| *r >= bar);
        found.map_or(limit, |i| self.steps[i])
    }

    /// From the first evaluation of at least `bar` on, the share that reaches it again, itself included.
    pub fn kept(&self, bar: f64) -> Option<f64> {
        let first = self.returns.iter().position(|r| *r >= bar)?;
        let after = &self.returns[first..];
        Some(after.iter().filter(|r| **r >= bar).count() as f64 / after.len() as f64)
    }

    /// Mean of the last `n` evaluations.
    pub fn last(&self, n: usize) -> f64 {
        crate::statistics::mean(&self.returns[self.returns.len().saturating_sub(n)..])
    }
}

/// All runs of all arms, in their order; made where they are not kept.
pub fn all(options: &Options, arms: &[Arm], seeds: &[u64]) -> Result<Vec<Vec<Finished>>, ReportError> {
    let tasks = arms.iter().flat_map(|a| seeds.iter().map(move |s| (a, *s))).collect::<Vec<_>>();
    let bar = ProgressBar::new(tasks.len() as u64);
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {elapsed} so far, {eta} left  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let results = each(options, &tasks, |(arm, seed)| {
        bar.set_message(format!("{} {seed}", arm.name));
        let result = one(&options.cache, arm, *seed);
        bar.inc(1);
        result
    });
    bar.finish_and_clear();
    let mut results = results?.into_iter();
    Ok(arms.iter().map(|_| results.by_ref().take(seeds.len()).collect()).collect())
}

/// Does each of these tasks, several at once; their results in the tasks' order.
pub fn each<T: Sync, R: Send>(
    options: &Options,
    tasks: &[T],
    work: impl Fn(&T) -> Result<R, ReportError> + Sync,
) -> Result<Vec<R>, ReportError> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new((0..tasks.len()).map(|_| None).collect::<Vec<_>>());
    let worker = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(task) = tasks.get(i) else { return };
            let result = work(task);
            if result.is_err() {
                // The others finish what they are at, and begin nothing new.
                next.store(tasks.len(), Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(|e| e.into_inner())[i] = Some(result);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        (0..options.jobs.map_or(cores, |jobs| jobs.get())).for_each(|_| drop(scope.spawn(worker)))
    });
    results.into_inner().unwrap_or_else(|e| e.into_inner()).into_iter().flatten().collect()
}

fn one(cache: &Path, arm: &Arm, seed: u64) -> Result<Finished, ReportError> {
    let seeded = |job: &Job| {
        let mut job = job.clone();
        job.student.seed = seed;
        job
    };
    let path = cache.join(format!("{}-{:016x}", arm.name, fingerprint(arm))).join(format!("{seed}.json"));
    if let Some(finished) = kept(&path) {
        return Ok(finished);
    }
    let failed = |error: RunError| ReportError::Run { arm: arm.name.into(), seed, error: Box::new(error) };
    let wires = (arm.teachers)(seed)?.into_iter().map(|t| Wire::Memory(Box::new(Memory::new(t)))).collect();
    let start = Instant::now();
    let (mut student, mut driver) =
        run::prepare(&seeded(&arm.job), on_cpu(oto_cpu::Cpu), Driver::with(wires), None).map_err(failed)?;
    if let Some(before) = &arm.before {
        let weights = trained(&seeded(before)).map_err(failed)?;
        student.load_weights(&weights).map_err(|e| failed(e.into()))?;
    }
    let mut curve = Curve::default();
    let metrics = run::run(&mut student, &mut driver, &mut curve).map_err(failed)?;
    let seconds = start.elapsed().as_secs_f64();
    let tested = arm.test.clone().map(|(env, seeds)| test(&mut student, env, seeds));
    let tested = tested.transpose().map_err(|e| failed(e.into()))?.unwrap_or_default();
    let finished = Finished { tested, ..curve.finish(seed, &metrics, seconds) };
    keep(&path, &finished)?;
    Ok(finished)
}

/// Makes a run alone and gives its checkpoint.
fn trained(job: &Job) -> Result<Vec<u8>, RunError> {
    let (mut student, mut driver) = run::prepare(job, on_cpu(oto_cpu::Cpu), Driver::with(Vec::new()), None)?;
    run::run(&mut student, &mut driver, &mut Curve::default())?;
    Ok(student.save(false)?)
}

/// The student's returns, without exploring, in the episodes of these seeds.
fn test(student: &mut Student, env: &str, seeds: Range<u64>) -> Result<Vec<f64>, TrainError> {
    student.trainer().play(&mut *environments::environment(env)?, seeds.map(Some))
}

/// What a file of finished work holds; nothing where there is none, or it cannot be read.
pub fn kept<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&oto_json::file::read_regular(path, oto_json::file::MAX_LIST).ok()?).ok()
}

/// Writes a file that is renamed when it is whole, so that an interrupted report finds whole files only.
pub fn keep(path: &Path, value: &impl Serialize) -> Result<(), ReportError> {
    let failed = |error| ReportError::File { path: path.to_path_buf(), error };
    let part = path.with_extension("part");
    write::file(&part, &serde_json::to_vec(value).map_err(|error| failed(error.into()))?)?;
    std::fs::rename(&part, path).map_err(failed)
}

/// FNV-1a of what the runs of an arm are made of, seeds left out: the same on every machine.
fn fingerprint(arm: &Arm) -> u64 {
    let text_of = |job: &Job| {
        let mut job = job.clone();
        job.student.seed = 0;
        serde_json::to_string(&job).unwrap_or_default()
    };
    let mut text = format!("{FORMAT} {}", text_of(&arm.job));
    if let Some(before) = &arm.before {
        text += &text_of(before);
    }
    if let Some(test) = &arm.test {
        text += &format!("{test:?}");
    }
    fnv(text.as_bytes())
}

/// FNV-1a.
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// The evaluations of a run while it runs.
#[derive(Default)]
pub struct Curve {
    steps: Vec<u64>,
    returns: Vec<f64>,
    transfer_ended: Option<u64>,
}

impl Curve {
    /// What is kept of the run.
    pub fn finish(self, seed: u64, m: &Metrics, seconds: f64) -> Finished {
        let sum = |f: fn(&oto_agent::link::LinkStats) -> u64| m.teachers.iter().map(|t| f(&t.stats)).sum();
        Finished {
            seed,
            steps: self.steps,
            returns: self.returns,
            updates: m.updates,
            labels: m.labels,
            bytes_up: sum(|s| s.bytes_up),
            bytes_down: sum(|s| s.bytes_down),
            transitions_sent: m.transitions_sent,
            transfer_ended: self.transfer_ended,
            tested: Vec::new(),
            seconds,
        }
    }
}

impl Observer for Curve {
    fn event(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Evaluation { step, mean, .. } => {
                self.steps.push(*step);
                self.returns.push(*mean);
            }
            Event::Stage { step, stage: oto_agent::stage::Stage::Online } => {
                self.transfer_ended = Some(*step)
            }
            _ => {}
        }
        Ok(())
    }

    fn progress(&mut self, _metrics: &Metrics) -> Result<(), String> {
        Ok(())
    }
}

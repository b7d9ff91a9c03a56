//! Runs of the arms: pretraining in the simulation, then training on the plant. Each is kept when it is done.

use super::arms::{Arm, Local, Settings, pretraining};
use crate::runs::{each, fnv, keep, kept};
use crate::{Options, ReportError, write};
use oto_agent::config::StudentConfig;
use oto_agent::learner::{Learner, LearnerConfig};
use oto_agent::virtual_time::{self, Evaluation, LocalRun, Outcome, Setup, VirtualError, VirtualRun};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Change whenever old runs would no longer be made the same way: those in the simulation, and those on the plant.
const SIMULATION_FORMAT: u32 = 1;
const PLANT_FORMAT: u32 = 2;
/// Seed of pretraining. No plant saw it.
const SIMULATION_SEED: u64 = 7_100;
/// Evaluations in the moving average that decides which agent is kept, and that all must succeed for pretraining to end early.
const AVERAGE: usize = 20;
/// Time between two lines about a run.
const PROGRESS: Duration = Duration::from_secs(30);
/// Largest file of a pretrained agent with its replay.
const MAX_AGENT: u64 = 1 << 30;

/// An agent of the simulation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pretrained {
    /// Friction factor.
    pub k_f: f64,
    /// Steps after which the moving average was best, and that average's share of successes.
    pub best: (u64, f64),
    /// The run.
    pub outcome: Outcome,
    /// Seconds that it took.
    pub seconds: f64,
}

/// A run on the plant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finished {
    /// Seed of the plant, exploration and batches.
    pub seed: u64,
    /// What it gave.
    pub outcome: Outcome,
    /// Seconds that it took.
    pub seconds: f64,
}

fn learner(config: &LearnerConfig) -> Result<Learner, VirtualError> {
    let env = oto_env::make(&config.env)?;
    Ok(Learner::new(config, env.observation_space(), env.action_space(), &oto_cpu::Cpu)?)
}

/// The agents of these friction factors, and their files.
pub fn pretrained(
    options: &Options,
    settings: &Settings,
    k_fs: &[f64],
) -> Result<Vec<(Pretrained, PathBuf)>, ReportError> {
    each(options, k_fs, |&k_f| {
        let config = pretraining(settings, k_f, SIMULATION_SEED);
        let text = format!("{SIMULATION_FORMAT} {} {}", settings.pretraining, oto_json::write(&config));
        let folder = options.cache.join(format!("cloud-edge-simulation-{k_f}-{:016x}", fnv(text.as_bytes())));
        let agent = folder.join("agent.safetensors");
        if let Some(known) = kept(&folder.join("run.json")).filter(|_| agent.exists()) {
            return Ok((known, agent));
        }
        if settings.finished {
            return Err(nothing_kept(&folder));
        }
        let name = format!("pretraining at k_f {k_f}");
        (options.tell)(&name);
        let failed = |error: VirtualError| ReportError::Virtual(Box::new(error));
        let start = Instant::now();
        let trained = pretrain(settings, config, progress(options, name)).map_err(failed)?;
        write::file(&agent, &trained.agent)?;
        write::file(&replay(&agent), &trained.last)?;
        let Trained { best, outcome, .. } = trained;
        let done = Pretrained { k_f, best, outcome, seconds: start.elapsed().as_secs_f64() };
        keep(&folder.join("run.json"), &done)?;
        Ok((done, agent))
    })
}

/// The error of a report that makes no run and finds none.
pub fn nothing_kept(folder: &Path) -> ReportError {
    let error = io::Error::new(io::ErrorKind::NotFound, "no runs are kept here, and --finished makes none");
    ReportError::File { path: folder.to_path_buf(), error }
}

/// The file of the simulation's replay beside an agent's.
fn replay(agent: &Path) -> PathBuf {
    agent.with_file_name("replay.safetensors")
}

/// What pretraining gives.
struct Trained {
    /// Steps after which the moving average of evaluations was best, and that average's share of successes.
    best: (u64, f64),
    outcome: Outcome,
    /// The agent of then.
    agent: Vec<u8>,
    /// The last one with its replay.
    last: Vec<u8>,
}

/// Tells how a run stands after an evaluation, from time to time.
fn progress(options: &Options, name: String) -> impl FnMut(&Evaluation) {
    let mut last = Instant::now();
    move |evaluation| {
        if last.elapsed() >= PROGRESS {
            last = Instant::now();
            let Evaluation { steps, score, .. } = evaluation;
            (options.tell)(&format!("{name}: {steps} steps, last evaluation {score:.0}"));
        }
    }
}

/// Trains in the simulation.
fn pretrain(
    settings: &Settings,
    config: LearnerConfig,
    mut progress: impl FnMut(&Evaluation),
) -> Result<Trained, VirtualError> {
    let env = oto_env::make(&config.env)?;
    let setup = Setup { successes: 0, steps: settings.pretraining, ..Setup::default() };
    let (mut all, mut best, mut file) = (Vec::<Evaluation>::new(), (0, f64::NEG_INFINITY, 0.0), None);
    let clock = VirtualRun::new(setup, learner(&config)?, env, config.seed)?;
    let (outcome, last) = clock.run(|evaluation, learner| {
        all.push(*evaluation);
        progress(evaluation);
        let window = &all[all.len().saturating_sub(AVERAGE)..];
        let mean = |of: fn(&Evaluation) -> f64| window.iter().map(of).sum::<f64>() / window.len() as f64;
        let (score, successes) = (mean(|one| one.score), mean(|one| f64::from(u8::from(one.success))));
        if window.len() == AVERAGE && score > best.1 {
            best = (evaluation.steps, score, successes);
            file = Some(learner.save_weights()?);
        }
        Ok(!(window.len() == AVERAGE && successes == 1.0))
    })?;
    let agent = match file {
        Some(file) => file,
        None => last.save_weights()?,
    };
    Ok(Trained { best: (best.0, best.2), outcome, agent, last: last.save()? })
}

/// Runs of all arms on all seeds, in their order; made where they are not kept. With [`Settings::finished`] none is made.
pub fn all(
    options: &Options,
    arms: &[Arm],
    agents: &[(Pretrained, PathBuf)],
    seeds: &[u64],
) -> Result<Vec<Vec<Finished>>, ReportError> {
    let tasks: Vec<_> = arms.iter().flat_map(|arm| seeds.iter().map(move |seed| (arm, *seed))).collect();
    let made = each(options, &tasks, |&(arm, seed)| {
        let (_, agent) = agents.iter().find(|(agent, _)| agent.k_f == arm.k_f).expect("one for each arm");
        one(options, arm, agent, seed)
    })?;
    let mut made = made.into_iter();
    Ok(arms.iter().map(|_| made.by_ref().take(seeds.len()).flatten().collect()).collect())
}

/// A student at the edge; the learner has the agent of the simulation and answers at most.
fn train_locally(
    arm: &Arm,
    local: &Local,
    mut learner: Learner,
    agent: &[u8],
    seed: u64,
    mut progress: impl FnMut(&Evaluation),
) -> Result<Outcome, VirtualError> {
    let student = StudentConfig { seed, ..local.student.clone() };
    learner.load_weights(agent)?;
    let teacher = local.taught.then(|| virtual_time::teacher(&learner)).transpose()?;
    let handed = local.handed.then_some(agent);
    let env = oto_env::make(&arm.plant)?;
    let clock = LocalRun::new(arm.setup.clone(), &student, env, teacher, handed, &oto_cpu::Cpu)?;
    clock.run(|evaluation| {
        progress(evaluation);
        true
    })
}

fn one(options: &Options, arm: &Arm, agent: &Path, seed: u64) -> Result<Option<Finished>, ReportError> {
    // The agent's folder names its settings.
    let text = format!("{PLANT_FORMAT} {} {}", arm.text(), agent.parent().unwrap_or(agent).display());
    let folder = options.cache.join(format!("cloud-edge-{}-{:016x}", arm.name, fnv(text.as_bytes())));
    let path = folder.join(format!("{seed}.json"));
    let known = kept(&path);
    if known.is_some() || options.cloud_edge.finished {
        return Ok(known);
    }
    let start = Instant::now();
    let file = |path: &Path| {
        let read = oto_json::file::read_regular(path, MAX_AGENT);
        read.map_err(|error| ReportError::File { path: path.to_path_buf(), error })
    };
    let run = || -> Result<Outcome, ReportError> {
        let failed = |error: VirtualError| ReportError::Virtual(Box::new(error));
        let mut learner = learner(&LearnerConfig { seed, ..arm.learner.clone() }).map_err(failed)?;
        if let Some(local) = &arm.local {
            let name = format!("{}, seed {seed}", arm.name);
            let ended = train_locally(arm, local, learner, &file(agent)?, seed, progress(options, name));
            return ended.map_err(failed);
        }
        if arm.keeps_replay {
            learner.load(&file(&replay(agent))?).map_err(|error| failed(error.into()))?;
        }
        learner.load_weights(&file(agent)?).map_err(|error| failed(error.into()))?;
        let env = oto_env::make(&arm.plant).map_err(|error| failed(error.into()))?;
        let clock = VirtualRun::new(arm.setup.clone(), learner, env, seed).map_err(failed)?;
        let mut progress = progress(options, format!("{}, seed {seed}", arm.name));
        let run = clock.run(|evaluation, _| {
            progress(evaluation);
            Ok(true)
        });
        Ok(run.map_err(failed)?.0)
    };
    let outcome = run()?;
    let done = Finished { seed, outcome, seconds: start.elapsed().as_secs_f64() };
    let Outcome { converged, steps, .. } = &done.outcome;
    let ended = converged.map_or("not converged".into(), |at| format!("converged at step {at}"));
    (options.tell)(&format!("{}, seed {seed}: {steps} steps, {ended}, {:.0} s", arm.name, done.seconds));
    keep(&path, &done)?;
    Ok(Some(done))
}

//! `oto learn`: one run or many, with a progress bar, run folders, Ctrl-C and resume.

use crate::authorities::{self, AuthorityError};
use crate::backend;
use crate::options::{Base, LearnOptions, OptionsError, tell_defaults};
use crate::origin::{Origin, OriginError, Start};
use crate::output;
use crate::recorded::{self, DatasetError, Read};
use crate::run_folder::{FolderError, RunFolder};
use crate::signals;
use crate::threads::ThreadOptions;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use oto_agent::checkpoint;
use oto_agent::distillation;
use oto_agent::drive::Driver;
use oto_agent::environments;
use oto_agent::link::LinkState;
use oto_agent::link::tungstenite::Socket;
use oto_agent::peer::link::PeerStats;
use oto_agent::peer::{self, PeerConfig, PeerError, Peers};
use oto_agent::run::{self, Distill, Job, Observer, RunError};
use oto_agent::served::{ServedTeacher, address};
use oto_agent::student::{Environments, Event, Metrics, Student, TeacherConfig, TeacherSpaces};
use oto_agent::{presets, worker, workers};
use oto_data::{DataError, Dataset, Metadata, Recorded, Recorder, check_target, write_folder};
use oto_experiments::chart::{Chart, ChartError, PALETTE, Series};
use oto_experiments::distilled::{self, LogitTeachers};
use oto_policy::PolicyError;
use oto_proto::Adapter;
use oto_rl::shared::Counts;
use oto_server::follow::{FollowConfig, metadata};
use rustls::pki_types::CertificateDer;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a run was made with. A resumed one keeps it, so that flags which would change it are refused.
const SETTLED: [&str; 33] = [
    "peer",
    "group",
    "member",
    "distill",
    "distill_weight",
    "expert",
    "from",
    "env",
    "student",
    "algorithm",
    "policy",
    "adapter",
    "weight",
    "submit",
    "dtype",
    "seed",
    "backend",
    "config",
    "set",
    "alpha_aikd",
    "delta",
    "eta",
    "alpha_task",
    "offline",
    "transfer",
    "online",
    "repeat",
    "clock",
    "eval_every",
    "eval_between_episodes",
    "eval_episodes",
    "out",
    "seeds",
];

/// Training, its output and its place.
#[derive(Args, Clone, Debug)]
pub struct LearnCommand {
    #[command(flatten)]
    learn: LearnOptions,
    /// Number of runs, with consecutive seeds from --seed; each in a folder seed-N inside --out
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Concurrent runs [default: one for each core]
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    threads: ThreadOptions,
    /// Run folder: configuration, metrics, checkpoint, curve
    #[arg(long, default_value = "runs/latest")]
    out: PathBuf,
    /// Overwrite an existing run
    #[arg(long)]
    force: bool,
    /// Continue the run in this folder, up to --steps if given; --teacher replaces the addresses of its servers; all other settings stay
    #[arg(long, value_name = "DIR", conflicts_with_all = SETTLED)]
    resume: Option<PathBuf>,
    /// Begin with the networks, targets and optimiser of the run in this folder, of oto learn or oto teach, and with its settings
    /// and the rest of its schedules [default algorithm: the run's, if it can learn here]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Dataset to mix into every batch, of an algorithm with a replay buffer: a share of `replay.recorded_share`, a half by default
    /// [default environment: the dataset's own]
    #[arg(long, value_name = "PATH")]
    dataset: Option<PathBuf>,
    /// Policy whose logits the student learns from, for an algorithm with `algorithm.distillation`: a model file, a run folder, or the
    /// address of a server (ws://host:port, with --policy); repeatable; see docs/distillation.md
    #[arg(long, value_name = "PATH|URL")]
    distill: Vec<PathBuf>,
    /// Weight of each --distill in the loss [default: 1]
    #[arg(long, value_name = "NUMBER", requires = "distill")]
    distill_weight: Vec<f64>,
    /// Offline protocol of --distill: a trained policy of this environment, which acts for the first
    /// `algorithm.distillation.alignment.expert_steps` steps
    #[arg(long, value_name = "PATH", requires = "distill")]
    expert: Option<PathBuf>,
    /// Record the steps of the run as a dataset in Minari's layout in this folder
    #[arg(long, value_name = "DIR", conflicts_with = "seeds")]
    record: Option<PathBuf>,
    /// Address of a server with a group (ws://host:port), for an algorithm with `algorithm.distillation`: this run learns from the logits of
    /// the group's other members, and they from its own; see docs/distillation.md
    #[arg(long, value_name = "URL", requires = "group", conflicts_with_all = ["share", "seeds", "workers"])]
    peer: Option<String>,
    /// Name of the group
    #[arg(long, value_name = "NAME", requires = "peer")]
    group: Option<String>,
    /// Name of this member; a later member of the same name takes over [default: a random name]
    #[arg(long, value_name = "NAME", requires = "peer")]
    member: Option<String>,
    /// Teachers in the group that the run waits for before it begins
    #[arg(long, value_name = "N", requires = "peer", default_value_t = 1)]
    peers: usize,
    /// Address of a server that shares an agent (ws://host:port): this run is one of its asynchronous workers; --steps counts its own steps
    #[arg(long, value_name = "URL", requires = "agent", conflicts_with_all = ["teacher", "distill", "workers", "resume", "from", "dataset", "seeds", "record"])]
    share: Option<String>,
    /// Name of the shared agent
    #[arg(long, value_name = "NAME", requires = "share")]
    agent: Option<String>,
    /// Name of this worker; a later worker of the same name takes over [default: a random name]
    #[arg(long, value_name = "NAME", requires = "share")]
    worker: Option<String>,
    /// File of trusted certificates (PEM) for wss://, in place of Mozilla's authorities
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Fail if a teacher is absent at the start, or if no label arrived from it
    #[arg(long)]
    require_teacher: bool,
    /// Print each event as a line of JSON, instead of a progress bar
    #[arg(long)]
    json: bool,
    /// Print the result only
    #[arg(long, short)]
    quiet: bool,
}

/// Why `oto learn` failed.
#[derive(Debug, thiserror::Error)]
pub enum LearnCommandError {
    /// Flags that make no run.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The run itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The dataset that is mixed into its batches.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The run to resume has no dataset.
    #[error("the run in {} has no dataset: begin another one with --from and --dataset", .0.display())]
    NoDataset(PathBuf),
    /// The run it begins with.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// A policy whose logits the student is to learn from.
    #[error("--distill: {0}")]
    Distill(#[from] PolicyError),
    /// A policy of a server whose logits the student is to learn from.
    #[error("--distill: policy {policy:?} of {url}: {reason}")]
    Served {
        /// The server's address.
        url: String,
        /// Its policy.
        policy: String,
        /// What went wrong.
        reason: String,
    },
    /// The group that it is to join.
    #[error("--peer: group {group:?} of {url}: {error}")]
    Peer {
        /// The server's address.
        url: String,
        /// The group.
        group: String,
        /// What went wrong.
        error: PeerError,
    },
    /// Whom it is to trust.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A teacher whose adapter is to be learnt, and whose spaces nobody tells.
    #[error("the spaces of teacher {policy}: {reason}")]
    Spaces {
        /// Its policy.
        policy: String,
        /// What went wrong.
        reason: String,
    },
    /// The curve of many runs.
    #[error(transparent)]
    Chart(#[from] ChartError),
    /// The dataset it records.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A teacher that the run needs is away.
    #[error("teacher {policy} at {url} is required, and {what}")]
    Required {
        /// Its policy.
        policy: String,
        /// Its address.
        url: String,
        /// What is missing.
        what: String,
    },
    /// A teacher is required, and the run has none.
    #[error("--require-teacher: the run has no teacher; name one with --teacher, or in --config")]
    NoTeacher,
    /// Nothing that would tell it to stop.
    #[error("cannot wait for signals: {0}")]
    Stop(std::io::Error),
    /// Several workers have several environments.
    #[error("--record records one environment, several workers have one each: record with one worker")]
    Record,
    /// Other teachers than the run has.
    #[error("the run in {} has {expected} teachers, got {got} --teacher", folder.display())]
    Teachers {
        /// The run.
        folder: PathBuf,
        /// How many it has.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// A file of its own.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
}

/// Trains as the flags say.
pub fn learn(command: &LearnCommand) -> Result<(), LearnCommandError> {
    let command = &command.with_addresses()?;
    if let Some(folder) = &command.record {
        // Before a run folder is overwritten.
        check_target(folder, None)?;
    }
    let stop = signals::flag().map_err(LearnCommandError::Stop)?;
    if let Some(folder) = &command.resume {
        let mut job: Job = RunFolder::config_of(folder, "learn")?;
        if command.dataset.is_some() && job.dataset.is_none() {
            return Err(LearnCommandError::NoDataset(folder.clone()));
        }
        job.dataset = command.dataset.clone().or(job.dataset);
        let read = job.dataset.as_deref().map(Read::open).transpose()?;
        let data = read.map(|read| read.for_environment(&job.env, command.quiet)).transpose()?;
        job.student.steps = command.learn.steps.unwrap_or(job.student.steps);
        job.workers = command.learn.workers.unwrap_or(job.workers);
        command.prepare(&job)?;
        let teachers = command.learn.job()?.teachers;
        let (expected, got) = (job.teachers.len(), teachers.len());
        if got > 0 && got != expected {
            return Err(LearnCommandError::Teachers { folder: folder.clone(), expected, got });
        }
        job.teachers.iter_mut().zip(teachers).for_each(|(teacher, new)| teacher.url = new.url);
        let file = RunFolder::checkpoint(folder)?;
        let step = file.as_deref().map_or(Ok(0), checkpoint::steps).map_err(RunError::Train)?;
        let open = || {
            let folder = RunFolder::open_existing(folder, step)?;
            folder.write_config(&job)?;
            Ok(folder)
        };
        let start = file.as_deref().map_or(Start::Anew, Start::Resume);
        let peers = rejoin(command, &job, &stop)?;
        return one(
            command,
            &job,
            Beside { data: data.as_ref(), peers },
            open,
            start,
            &stop,
            &MultiProgress::new(),
        )
        .map(drop);
    }
    let origin = command.from.as_deref().map(Origin::read).transpose()?;
    let read = command.dataset.as_deref().map(Read::open).transpose()?;
    let elsewhere = origin.is_some() || command.learn.config.is_some();
    let env = recorded::environment(read.as_ref(), command.learn.env.as_deref(), elsewhere)?;
    let base = Base { origin: origin.as_ref(), env, mixed: read.is_some() };
    let (from, dataset) = (command.from.clone(), command.dataset.clone());
    let mut job = Job { from, dataset, ..command.learn.job_from(&base)? };
    distil(command, &mut job)?;
    command.prepare(&job)?;
    let Some(peers) = join(command, &mut job, &stop)? else { return Ok(()) };
    let data = read.map(|read| read.for_environment(&job.env, command.quiet)).transpose()?;
    let start = origin.as_ref().map_or(Start::Anew, Start::From);
    for i in command.learn.learns_adapter() {
        if let Some(teacher) = job.teachers.get_mut(i) {
            teacher.learn_adapter = Some(spaces(command, teacher)?);
        }
    }
    if !command.quiet {
        tell_defaults(&job);
    }
    if let Some((url, agent)) = command.share.as_deref().zip(command.agent.as_deref()) {
        return work(command, job, url, agent, &stop);
    }
    match command.seeds {
        1 => {
            let create = || RunFolder::create(&command.out, &job, command.force);
            one(
                command,
                &job,
                Beside { data: data.as_ref(), peers },
                create,
                start,
                &stop,
                &MultiProgress::new(),
            )
            .map(drop)
        }
        n => many(command, &job, data.as_ref(), n, start, &stop),
    }
}

impl LearnCommand {
    /// How many runs there are at the same time.
    fn runs(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.jobs.map_or_else(cores, NonZeroUsize::get).clamp(1, self.seeds as usize)
    }

    /// Checks the workers of a job, and divides the threads of the CPU backend among them.
    fn prepare(&self, job: &Job) -> Result<(), LearnCommandError> {
        workers::check(job).map_err(RunError::from)?;
        if job.workers > 1 && self.record.is_some() {
            return Err(LearnCommandError::Record);
        }
        self.threads.apply(self.runs() * job.workers);
        Ok(())
    }

    /// The same with the policy of each --distill that is a server's address: it comes from --policy, after those of --teacher.
    fn with_addresses(&self) -> Result<Self, LearnCommandError> {
        let mut command = self.clone();
        let nameless = |path: &&mut PathBuf| address(path).is_some_and(|(_, policy)| policy.is_empty());
        let (given, wanted) =
            (command.learn.policy.len(), command.distill.iter_mut().filter(nameless).count());
        let Some(first) = given.checked_sub(wanted) else {
            let flags = format!(
                "{given} --policy for {wanted} --distill with a server's address, expected one for each"
            );
            return Err(OptionsError::Flag(flags).into());
        };
        let mut names = command.learn.policy.split_off(first).into_iter();
        for path in command.distill.iter_mut().chain(&mut command.expert) {
            let Some((url, policy)) = address(path) else { continue };
            let policy = if policy.is_empty() { names.next().unwrap_or_default() } else { policy.to_owned() };
            *path = format!("{}#{policy}", presets::teacher_url(url)).into();
        }
        Ok(command)
    }

    fn trusted(&self) -> Result<Option<Vec<CertificateDer<'static>>>, AuthorityError> {
        self.ca.as_deref().map(authorities::read).transpose()
    }

    fn driver(&self, teachers: &[TeacherConfig]) -> Result<Driver, LearnCommandError> {
        let mut driver = Driver::new(teachers).map_err(RunError::from)?;
        if let Some(trusted) = self.trusted()? {
            driver.trust_only(&trusted);
        }
        Ok(driver)
    }
}

/// Gives the run the teachers of --distill, and its settings their numbers of actions.
fn distil(command: &LearnCommand, job: &mut Job) -> Result<(), LearnCommandError> {
    if command.distill.is_empty() {
        return Ok(());
    }
    let (given, weights) = (command.distill.len(), &command.distill_weight);
    if weights.len() > given {
        let flags = format!("{} --distill-weight for {given} --distill", weights.len());
        return Err(OptionsError::Flag(flags).into());
    }
    let distill = Distill { teachers: command.distill.clone(), expert: command.expert.clone() };
    let (teachers, _) = logit_teachers(command, Some(&distill), job)?;
    let settled = distillation::settle(&mut job.student.algorithm, &teachers, weights);
    settled.and_then(|()| job.student.validate()).map_err(OptionsError::from)?;
    job.distill = Some(distill);
    Ok(())
}

/// This run's place in a group, which is not connected yet.
fn member(command: &LearnCommand, job: &Job, config: &PeerConfig) -> Result<Peers, LearnCommandError> {
    let mut socket = Socket::new(&config.url).map_err(RunError::from)?;
    if let Some(token) = run::token() {
        socket.authorize(&token).map_err(RunError::from)?;
    }
    if let Some(trusted) = command.trusted()? {
        socket.trust_only(trusted);
    }
    let environment = environments::environment(&job.env).map_err(|error| RunError::Train(error.into()))?;
    let spaces = [environment.observation_space(), environment.action_space()];
    Peers::of_student(socket, config, spaces, &job.student).map_err(|error| peer_error(config, error))
}

fn peer_error(config: &PeerConfig, error: PeerError) -> LearnCommandError {
    LearnCommandError::Peer { url: config.url.clone(), group: config.group.clone(), error }
}

/// Joins the group of --peer, and puts its members into the run's settings. None if it is stopped before others come; a run without a group has
/// no peers.
fn join(
    command: &LearnCommand,
    job: &mut Job,
    stop: &Arc<AtomicBool>,
) -> Result<Option<Option<Peers>>, LearnCommandError> {
    let Some((url, group)) = command.peer.as_deref().zip(command.group.clone()) else {
        return Ok(Some(None));
    };
    let member_name = command.member.clone().unwrap_or_else(peer::random_name);
    let mut config =
        PeerConfig { url: presets::teacher_url(url), group, member: member_name, teachers: Vec::new() };
    // What cannot learn from logits does not join.
    distillation::settle_peers(&mut job.student.algorithm, &[]).map_err(OptionsError::from)?;
    let mut peers = member(command, job, &config)?;
    if !command.quiet {
        crate::note!("{}: member {} waits for {} others", config.group, config.member, command.peers);
    }
    if !peers.wait(command.peers, &|| stopped(stop)).map_err(|error| peer_error(&config, error))? {
        return Ok(None);
    }
    config.teachers = peers.teachers().iter().map(|(name, _)| name.clone()).collect();
    let settled = distillation::settle_peers(&mut job.student.algorithm, peers.teachers());
    settled.and_then(|()| job.student.validate()).map_err(OptionsError::from)?;
    job.peer = Some(config);
    Ok(Some(Some(peers)))
}

/// Joins the group of a run that is resumed: its teachers may come later, or not.
fn rejoin(
    command: &LearnCommand,
    job: &Job,
    stop: &Arc<AtomicBool>,
) -> Result<Option<Peers>, LearnCommandError> {
    let Some(config) = &job.peer else { return Ok(None) };
    let mut peers = member(command, job, config)?;
    peers.wait(0, &|| stopped(stop)).map_err(|error| peer_error(config, error))?;
    let teachers = job.student.algorithm.distillation().map_or(&[][..], |d| &d.teachers);
    let last = teachers.len().saturating_sub(config.teachers.len());
    let names = config.teachers.iter().cloned();
    peers.set_teachers(names.zip(teachers[last..].iter().map(|teacher| teacher.actions)).collect());
    Ok(Some(peers))
}

/// The policies of --distill, from files and servers.
fn logit_teachers(
    command: &LearnCommand,
    distill: Option<&Distill>,
    job: &Job,
) -> Result<LogitTeachers, LearnCommandError> {
    distilled::load_with(distill, |url, policy| {
        let failed =
            |reason: String| LearnCommandError::Served { url: url.into(), policy: policy.into(), reason };
        let spaces = known_spaces(command, url, policy)?.map_err(failed)?;
        let mut socket = Socket::new(url).map_err(RunError::from)?;
        if let Some(token) = run::token() {
            socket.authorize(&token).map_err(RunError::from)?;
        }
        if let Some(trusted) = command.trusted()? {
            socket.trust_only(trusted);
        }
        let name = job.student.name.as_deref().unwrap_or("oto");
        let teacher = ServedTeacher::connect(socket, policy, name, &spaces);
        Ok(Box::new(teacher.map_err(|error| failed(error.to_string()))?))
    })
}

/// A teacher's own spaces, which its server knows.
fn spaces(command: &LearnCommand, teacher: &TeacherConfig) -> Result<TeacherSpaces, LearnCommandError> {
    let unknown = |reason| LearnCommandError::Spaces { policy: teacher.policy.clone(), reason };
    known_spaces(command, &teacher.url, &teacher.policy)?.map_err(unknown)
}

/// The spaces of a server's policy, or why they are not known.
fn known_spaces(
    command: &LearnCommand,
    url: &str,
    policy: &str,
) -> Result<Result<TeacherSpaces, String>, LearnCommandError> {
    let mut config = FollowConfig { trusted: command.trusted()?, ..FollowConfig::new(url, policy) };
    if let Some(Err(error)) = run::token().map(|token| config.authorize(&token)) {
        return Ok(Err(error.to_string()));
    }
    let known = match metadata(config) {
        Ok(known) => known,
        Err(error) => return Ok(Err(error.to_string())),
    };
    Ok(match (known.observation_space, known.action_space) {
        (Some(observation), Some(action)) => Ok(TeacherSpaces { observation, action }),
        _ => Err("its server does not say its spaces".into()),
    })
}

/// Seeds `seed .. seed + n`, several at once, and their common curve.
fn many(
    command: &LearnCommand,
    job: &Job,
    data: Option<&Dataset>,
    n: u64,
    start: Start<'_>,
    stop: &Arc<AtomicBool>,
) -> Result<(), LearnCommandError> {
    let bars = MultiProgress::new();
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<Curve>, LearnCommandError> {
        let mut curves = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed) as u64;
            if i >= n || stopped(stop) {
                return Ok(curves);
            }
            let mut job = job.clone();
            job.student.seed = job.student.seed.wrapping_add(i);
            // One name for each run: what students submit is judged by their names.
            job.student.name = job.student.name.map(|name| format!("{name}-{}", job.student.seed));
            let path = command.out.join(format!("seed-{}", job.student.seed));
            let create = || RunFolder::create(path, &job, command.force);
            curves.push(one(command, &job, Beside { data, peers: None }, create, start, stop, &bars)?);
        }
    };
    let jobs = command.runs();
    let curves = std::thread::scope(|scope| {
        let threads = (0..jobs).map(|_| scope.spawn(work)).collect::<Vec<_>>();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<Vec<Curve>>, _>>()
    });
    draw_many(&command.out, job, &curves?.concat())
}

/// Whether a run ends here: by a signal, or because the reader of its output has left.
fn stopped(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed) || output::closed()
}

/// A run's evaluations: step and mean return.
type Curve = Vec<(u64, f64)>;

/// Mean and range of all runs' evaluations, as far as the shortest goes.
fn draw_many(out: &Path, job: &Job, curves: &[Curve]) -> Result<(), LearnCommandError> {
    let points = curves.iter().map(Vec::len).min().unwrap_or(0);
    let at = |i: usize| curves.iter().map(move |c| c[i].1);
    let mid = (0..points).map(|i| at(i).sum::<f64>() / curves.len() as f64).collect();
    let low = (0..points).map(|i| at(i).fold(f64::INFINITY, f64::min)).collect();
    let high = (0..points).map(|i| at(i).fold(f64::NEG_INFINITY, f64::max)).collect();
    let chart = Chart {
        title: job.env.clone(),
        subtitle: format!("greedy return of {} seeds: mean and range", curves.len()),
        x_label: "environment steps".into(),
        y_label: "return".into(),
        series: vec![Series {
            name: "evaluation".into(),
            colour: PALETTE[0],
            x: curves.first().map_or(Vec::new(), |c| c[..points].iter().map(|p| p.0 as f64).collect()),
            mid,
            band: Some((low, high)),
        }],
        marks: Vec::new(),
        y_range: None,
        logarithmic: false,
    };
    let write = |name: &str, bytes: &[u8]| {
        let path = out.join(name);
        std::fs::write(&path, bytes).map_err(|error| LearnCommandError::File { path, error })
    };
    write("curve.svg", chart.svg()?.as_bytes())?;
    write("curve.png", &chart.png()?)
}

/// What a run learns from beside its environment.
struct Beside<'a> {
    data: Option<&'a Dataset>,
    peers: Option<Peers>,
}

/// One run into its folder, which is opened once everything else is there: its evaluations.
fn one(
    command: &LearnCommand,
    job: &Job,
    Beside { data, peers }: Beside<'_>,
    open: impl FnOnce() -> Result<RunFolder, FolderError>,
    start: Start<'_>,
    stop: &Arc<AtomicBool>,
    bars: &MultiProgress,
) -> Result<Curve, LearnCommandError> {
    if command.require_teacher && job.teachers.is_empty() {
        return Err(LearnCommandError::NoTeacher);
    }
    let (environment, recorder) = place(job, command.record.is_some())?;
    let resume = if let Start::Resume(file) = start { Some(file) } else { None };
    let (teachers, expert) = logit_teachers(command, job.distill.as_ref(), job)?;
    let begin = |student: &mut Student| {
        if let Some(peers) = peers {
            student.trainer().join(peers)?;
        }
        if job.distill.is_some() {
            student.trainer().distill(teachers, expert)?;
        }
        recorded::mix(student, data)
    };
    let (mut student, mut driver) =
        run::prepare_with(environment, job, backend::choose, command.driver(&job.teachers)?, resume, begin)?;
    if let Start::From(origin) = start {
        let adopted = origin.adopted(checkpoint::adopt(student.trainer(), &origin.file))?;
        if !command.quiet {
            origin.tell(&adopted);
        }
    }
    if command.require_teacher {
        check_present(&mut student, job)?;
    }
    let folder = open()?;
    if !command.quiet {
        tell_absent(&mut student, job);
    }
    let refused = tell_refused(&mut student, job, command.quiet);
    let submits = job.teachers.iter().filter(|teacher| teacher.submit).count();
    let mut console = Console::new(command, job, folder, stop, bars);
    console.bar.set_position(student.trainer().steps());
    console.bar.reset_eta();
    if let Start::From(_) = start {
        // A resume needs the other run no more.
        run::checkpoint(&mut student, &mut console)?;
    }
    let ended = match job.workers {
        1 => run::run(&mut student, &mut driver, &mut console),
        _ => backend::by_name(&job.student.backend)
            .map_err(RunError::from)
            .and_then(|backend| workers::run(job, &mut student, &*backend, &mut console)),
    };
    console.bar.finish_and_clear();
    let recorded = match (&command.record, recorder) {
        (Some(folder), Some(recorder)) => write_recorded(&recorder, folder),
        _ => Ok(()),
    };
    // What ended the run is said first; what was recorded until then is kept whatever it was.
    let metrics = ended?;
    recorded?;
    console.folder.draw_curve(&console.name, &curve_subtitle(job), "Environment steps", &[])?;
    if !command.json {
        let last =
            metrics.last_evaluation.map_or("no evaluation".into(), |e| format!("last evaluation {e:.1}"));
        let saved = console.folder.path().display();
        crate::out!("{}: {} steps, {last}, {} labels; {saved}", console.name, metrics.step, metrics.labels);
        tell_workers(&metrics);
    }
    for teacher in metrics.teachers.iter().filter(|teacher| teacher.stats.labels_received == 0) {
        if let Some(problem) = &teacher.problem {
            crate::note!("{}: no label came from teacher {}: {problem}", console.name, teacher.policy);
        }
    }
    tell_distilled(&mut student, job, &console.name);
    tell_peers(&mut student, &console.name);
    if !student.all_submitted() && submits > refused {
        let folder = console.folder.path().display();
        crate::note!(
            "{}: not all that was to be submitted is acknowledged; --resume {folder} goes on with it",
            console.name
        );
    }
    if command.require_teacher && metrics.labels == 0 {
        check_labels(job, &metrics)?;
    }
    Ok(console.evaluations)
}

/// One worker of an agent that a server shares, into its folder. Without --seed it plays episodes of its own, by a seed of its name.
fn work(
    command: &LearnCommand,
    mut job: Job,
    url: &str,
    agent: &str,
    stop: &Arc<AtomicBool>,
) -> Result<(), LearnCommandError> {
    let name = command.worker.clone().unwrap_or_else(worker::random_name);
    if command.learn.seed.is_none() {
        job.student.seed = worker::seed_of(&name);
    }
    let job = &job;
    let backend = backend::by_name(&job.student.backend).map_err(RunError::from)?;
    let (mut student, mut link) = worker::student_of(job, &*backend, agent, &name)?;
    let mut socket = Socket::new(&presets::teacher_url(url)).map_err(RunError::from)?;
    if let Some(token) = run::token() {
        socket.authorize(&token).map_err(RunError::from)?;
    }
    if let Some(trusted) = command.trusted()? {
        socket.trust_only(trusted);
    }
    // The folder is made after the server has accepted the worker: a refusal keeps an older run.
    let mut tell = |problem: &str| crate::note!("{agent}: {problem}; trying again for 30 seconds");
    if !worker::connect(&mut link, &mut socket, &|| stop.load(Ordering::Relaxed), &mut tell)? {
        return Ok(());
    }
    let folder = RunFolder::create(&command.out, job, command.force)?;
    let mut console = Console::new(command, job, folder, stop, &MultiProgress::new());
    let ended = worker::run(&mut student, &mut link, &mut socket, &mut console);
    console.bar.finish_and_clear();
    let metrics = ended?;
    let subtitle = format!("a worker of {agent}");
    console.folder.draw_curve(&console.name, &subtitle, "Environment steps", &[])?;
    if !command.json {
        let saved = console.folder.path().display();
        let stats = link.stats();
        crate::out!(
            "{}: {} steps, {} gradients sent, {} refused, {} sessions; {saved}",
            console.name,
            metrics.step,
            stats.sent,
            stats.refused,
            stats.sessions
        );
        if let Some(reason) = link.failure() {
            crate::note!("{}: {}", console.name, reason.message);
        }
    }
    Ok(())
}

/// Prints what the workers' gradients came to, if there are several.
fn tell_workers(metrics: &Metrics) {
    let Some(workers) = &metrics.workers else { return };
    let sum = |of: fn(&Counts) -> u64| workers.iter().map(of).sum::<u64>();
    let (applied, stale, refused) = (sum(|w| w.applied), sum(|w| w.stale), sum(|w| w.refused));
    let staleness = workers.iter().map(|w| w.mean_staleness * w.applied as f64).sum::<f64>();
    let mean = staleness / applied.max(1) as f64;
    let most = workers.iter().map(|w| w.max_staleness).max().unwrap_or(0);
    crate::out!(
        "{} workers: {applied} gradients applied, {stale} stale, {refused} refused; staleness {mean:.2} on average, {most} at most",
        workers.len()
    );
}

fn required(teacher: &TeacherConfig, what: String) -> LearnCommandError {
    LearnCommandError::Required { policy: teacher.policy.clone(), url: teacher.url.clone(), what }
}

/// Whether every teacher that counts is there.
fn check_present(student: &mut Student, job: &Job) -> Result<(), LearnCommandError> {
    let away = student.links().zip(&job.teachers).find(|(link, teacher)| {
        // A weight of 0 switches a teacher off.
        teacher.weight > 0.0 && link.state() != LinkState::Ready
    });
    let Some((link, teacher)) = away else { return Ok(()) };
    let problem = link.status(0).problem.unwrap_or_else(|| "it has not answered yet".into());
    Err(required(teacher, format!("is not there: {problem}")))
}

/// Whether every teacher that counts gave labels.
fn check_labels(job: &Job, metrics: &Metrics) -> Result<(), LearnCommandError> {
    let silent = job
        .teachers
        .iter()
        .zip(&metrics.teachers)
        .find(|(teacher, status)| teacher.weight > 0.0 && status.stats.labels_received == 0);
    match silent {
        Some((teacher, _)) => Err(required(teacher, "no label came from it".into())),
        None => Ok(()),
    }
}

/// Names the teachers some of whose logits were refused.
fn tell_distilled(student: &mut Student, job: &Job, name: &str) {
    let paths = job.distill.iter().flat_map(|distill| &distill.teachers);
    let teachers = student.trainer().distillation().into_iter().flat_map(|d| d.teachers());
    for (path, (answered, refused, problem)) in
        paths.zip(teachers).filter(|(_, (_, refused, _))| *refused > 0)
    {
        let (path, problem, asked) = (path.display(), problem.unwrap_or("unknown"), answered + refused);
        crate::note!("{name}: {refused} of {asked} answers of {path} were refused; the last one: {problem}");
    }
}

/// Says what crossed the group, and what is wrong with it.
fn tell_peers(student: &mut Student, name: &str) {
    let Some(peers) = student.trainer().distillation().and_then(|d| d.peers()) else { return };
    let PeerStats { asked, answered, taught, .. } = peers.stats();
    crate::note!(
        "{name}: {answered} of {asked} states were answered by others, {taught} of theirs by this member"
    );
    if let Some(problem) = peers.problem() {
        crate::note!("{name}: the group: {problem}");
    }
}

/// Names the teachers that --submit does not reach, unless it is to be quiet; gives how many they are.
fn tell_refused(student: &mut Student, job: &Job, quiet: bool) -> usize {
    let mut refused = 0;
    for (link, teacher) in student.links().zip(&job.teachers).filter(|(_, teacher)| teacher.submit) {
        let reason = match teacher.adapter.as_ref().is_some_and(|adapter| *adapter != Adapter::default()) {
            true => "the spaces differ, and the adapter between them is for its answers alone",
            false if link.refuses_submissions() => {
                "its server does not collect for this policy and these spaces"
            }
            false => continue,
        };
        let (policy, url) = (&teacher.policy, &teacher.url);
        refused += 1;
        if !quiet {
            crate::note!("teacher {policy} at {url} takes no submissions: {reason}");
        }
    }
    refused
}

/// Names the teachers a run begins without.
fn tell_absent(student: &mut Student, job: &Job) {
    for (link, teacher) in student.links().zip(&job.teachers) {
        let status = link.status(0);
        if status.state != LinkState::Ready {
            let problem = status.problem.unwrap_or_else(|| "it has not answered yet".into());
            crate::note!(
                "teacher {} at {} is not there, learning begins without it: {problem}",
                teacher.policy,
                teacher.url
            );
        }
    }
}

/// Writes the steps that were recorded as a dataset.
fn write_recorded(recorder: &Record, folder: &Path) -> Result<(), LearnCommandError> {
    let recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(write_folder(&recorder.finish()?, folder)?)
}

/// What records a run's steps.
type Record = Arc<Mutex<Recorder>>;

/// The run's environment, and what records its steps, if they are to be recorded.
fn place(job: &Job, record: bool) -> Result<(Environments, Option<Record>), LearnCommandError> {
    if !record {
        return Ok((environments::of_student(&job.env, &job.student).map_err(RunError::Train)?, None));
    }
    let (spec, start) =
        environments::specification(&job.env, true).map_err(|error| RunError::Train(error.into()))?;
    let metadata = Metadata {
        spec,
        starts: [0, start],
        environment: Some(job.env.clone()),
        algorithm: Some("oto learn".into()),
        description: Some(format!("{} steps of learning, seed {}", job.student.steps, job.student.seed)),
        ..Metadata::default()
    };
    let Environments::Inside { train, evaluate } =
        environments::of_student(&job.env, &job.student).map_err(RunError::Train)?
    else {
        unreachable!("an environment with a name is made here")
    };
    let spaces = (train.observation_space().clone(), train.action_space().clone());
    let recorder = Arc::new(Mutex::new(Recorder::new(spaces.0, spaces.1, metadata)));
    let train = Box::new(Recorded::new(train, recorder.clone()));
    Ok((Environments::Inside { train, evaluate }, Some(recorder)))
}

fn curve_subtitle(job: &Job) -> String {
    match job.teachers.iter().map(|t| t.policy.as_str()).collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "alone".into(),
        teachers => format!("taught by {teachers}"),
    }
}

struct Console<'a> {
    env: &'a str,
    folder: RunFolder,
    bar: ProgressBar,
    json: bool,
    stop: Arc<AtomicBool>,
    evaluations: Vec<(u64, f64)>,
    name: String,
}

impl<'a> Console<'a> {
    fn new(
        command: &LearnCommand,
        job: &'a Job,
        folder: RunFolder,
        stop: &Arc<AtomicBool>,
        bars: &MultiProgress,
    ) -> Self {
        let bar = bars.add(ProgressBar::new(job.student.steps));
        if command.json || command.quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let template = "{bar:24} {pos}/{len} steps  {per_sec}  {eta} left  {msg}";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let name = format!("{} seed {}", job.env, job.student.seed);
        let (json, stop, evaluations) = (command.json, stop.clone(), Vec::new());
        Self { folder, bar, json, stop, evaluations, name, env: &job.env }
    }
}

impl Observer for Console<'_> {
    fn event(&mut self, event: &Event) -> Result<(), String> {
        if let Event::Evaluation { step, mean, .. } = event {
            self.evaluations.push((*step, *mean));
        }
        if self.json {
            crate::out!("{}", serde_json::to_string(event).map_err(|e| e.to_string())?);
        }
        self.folder.event(event).map_err(|e| e.to_string())
    }

    fn metrics(&mut self, metrics: &Metrics) -> Result<(), String> {
        self.folder.snapshot(metrics).map_err(|e| e.to_string())
    }

    fn progress(&mut self, metrics: &Metrics) -> Result<(), String> {
        self.bar.set_position(metrics.step);
        let score = metrics.last_evaluation.or(metrics.last_episode.map(|e| e.score));
        let score = score.map_or("-".into(), |s| format!("{s:.1}"));
        let stage = format!("{:?}", metrics.stage).to_lowercase();
        self.bar.set_message(format!("{}: return {score}, {} labels, {stage}", self.name, metrics.labels));
        Ok(())
    }

    fn checkpoint(&mut self, student: &Student) -> Result<(), String> {
        self.folder.save(student, self.env).map_err(|e| e.to_string())
    }

    fn stop(&self) -> bool {
        stopped(&self.stop)
    }
}

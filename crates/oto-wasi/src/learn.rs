//! Training from the command line: what `oto learn` does, as far as a WASI host can have it (one run after the other,
//! lines instead of a progress bar, no pictures).

use clap::Args;
use oto_agent::checkpoint;
use oto_agent::drive::Driver;
use oto_agent::environments;
use oto_agent::link::tungstenite::Socket;
use oto_agent::presets;
use oto_agent::run::{self, Job, Observer, RunError};
use oto_agent::student::{Event, Metrics, Student};
use oto_agent::worker;
use oto_cli::backend;
use oto_cli::options::{Base, LearnOptions, OptionsError, tell_defaults};
use oto_cli::origin::{Origin, OriginError, Start};
use oto_cli::recorded::{self, Dataset, DatasetError, Read};
use oto_cli::run_folder::{FolderError, RunFolder};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Training, its output and its place.
#[derive(Args, Clone, Debug)]
pub struct LearnCommand {
    #[command(flatten)]
    learn: LearnOptions,
    /// Number of runs, with consecutive seeds from --seed; each in a folder seed-N inside --out
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Run folder: configuration, metrics, checkpoint; inside a granted folder [default: write nothing]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Overwrite an existing run
    #[arg(long, requires = "out")]
    force: bool,
    /// Continue the run in this folder, up to --steps if given
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "seeds", "config", "set", "from", "dataset"])]
    resume: Option<PathBuf>,
    /// Begin with the networks, targets and optimiser of the run in this folder, of oto learn or oto teach, and with its settings
    /// and the rest of its schedules [default algorithm: the run's, if it can learn here]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Mix the episodes of a dataset into every batch, as replay.sampler says: a folder in Minari's layout, or an HDF5 file in
    /// Minari's or D4RL's; inside a granted folder [default environment: the dataset's own]
    #[arg(long, value_name = "PATH")]
    dataset: Option<PathBuf>,
    /// Address of a server that shares an agent (ws://host:port): this run is one of its asynchronous workers; --steps counts its own steps
    #[arg(long, value_name = "URL", requires = "agent", conflicts_with_all = ["teacher", "resume", "from", "dataset", "seeds"])]
    share: Option<String>,
    /// Name of the shared agent
    #[arg(long, value_name = "NAME", requires = "share")]
    agent: Option<String>,
    /// Name of this worker; a later worker of the same name takes over [default: a random name]
    #[arg(long, value_name = "NAME", requires = "share")]
    worker: Option<String>,
    /// Print each event as a line of JSON on standard output
    #[arg(long)]
    json: bool,
    /// Print the result only
    #[arg(long, short)]
    quiet: bool,
}

/// Why training failed.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// Flags that make no run.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The run itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The run that it was to begin with.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The dataset that is mixed into its batches.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

/// Trains as the flags say.
///
/// # Errors
/// Flags, a run or a folder that does not work.
pub fn learn(command: &LearnCommand) -> Result<(), LearnError> {
    if let Some(path) = &command.resume {
        return resume(command, path.clone());
    }
    let origin = command.from.as_deref().map(Origin::read).transpose()?;
    let read = command.dataset.as_deref().map(Read::open).transpose()?;
    let elsewhere = origin.is_some() || command.learn.config.is_some();
    let env = recorded::environment(read.as_ref(), command.learn.env.as_deref(), elsewhere)?;
    let base = Base { origin: origin.as_ref(), env, mixed: read.is_some() };
    let (from, dataset) = (command.from.clone(), command.dataset.clone());
    let job = Job { from, dataset, ..command.learn.job_from(&base)? };
    let data = read.map(|read| read.for_environment(&job.env, command.quiet)).transpose()?;
    if command.learn.learns_adapter().next().is_some() {
        let reason =
            "--adapter learn asks the server for its teacher's spaces over HTTP, which is not built in here";
        return Err(OptionsError::Flag(reason.into()).into());
    }
    if !command.quiet {
        tell_defaults(&job);
    }
    if let Some((url, agent)) = command.share.as_deref().zip(command.agent.as_deref()) {
        return work(command, job, url, agent);
    }
    for i in 0..command.seeds {
        let mut job = job.clone();
        job.student.seed = job.student.seed.wrapping_add(i);
        if command.seeds > 1 {
            job.student.name = job.student.name.map(|name| format!("{name}-{}", job.student.seed));
        }
        let place = |out: &PathBuf| match command.seeds > 1 {
            true => out.join(format!("seed-{}", job.student.seed)),
            false => out.clone(),
        };
        let create = |path| RunFolder::create(path, &job, command.force);
        let folder = command.out.as_ref().map(place).map(create).transpose()?;
        run(command, &job, data.as_ref(), folder, origin.as_ref().map_or(Start::Anew, Start::From))?;
    }
    Ok(())
}

/// Goes on with the run in a folder.
fn resume(command: &LearnCommand, path: PathBuf) -> Result<(), LearnError> {
    let mut job: Job = RunFolder::config_of(&path, "learn")?;
    job.student.steps = command.learn.steps.unwrap_or(job.student.steps);
    // The server may have moved; the policy and its adapter stay what they were.
    for (teacher, moved) in job.teachers.iter_mut().zip(command.learn.job()?.teachers) {
        teacher.url = moved.url;
    }
    let file = RunFolder::checkpoint(&path)?;
    let step = file.as_deref().map_or(Ok(0), checkpoint::steps).map_err(RunError::Train)?;
    let folder = RunFolder::open_existing(path, step)?;
    folder.write_config(&job)?;
    let read = job.dataset.as_deref().map(Read::open).transpose()?;
    let data = read.map(|read| read.for_environment(&job.env, command.quiet)).transpose()?;
    run(command, &job, data.as_ref(), Some(folder), file.as_deref().map_or(Start::Anew, Start::Resume))
}

fn run(
    command: &LearnCommand,
    job: &Job,
    data: Option<&Dataset>,
    folder: Option<RunFolder>,
    start: Start<'_>,
) -> Result<(), LearnError> {
    let environment = environments::of_student(&job.env, &job.student).map_err(RunError::Train)?;
    let driver = Driver::new(&job.teachers).map_err(RunError::from)?;
    let resume = if let Start::Resume(file) = start { Some(file) } else { None };
    let (mut student, mut driver) =
        run::prepare_with(environment, job, backend::choose, driver, resume, |student| {
            recorded::mix(student, data)
        })?;
    if let Start::From(origin) = start {
        let adopted = origin.adopted(checkpoint::adopt(student.trainer(), &origin.file))?;
        if !command.quiet {
            origin.tell(&adopted);
        }
    }
    let mut console = Console::of(command, job, folder, student.trainer().steps());
    if matches!(start, Start::From(_)) {
        // A resume needs the other run no more.
        run::checkpoint(&mut student, &mut console)?;
    }
    let metrics = run::run(&mut student, &mut driver, &mut console)?;
    if !command.json {
        let last =
            metrics.last_evaluation.map_or("no evaluation".into(), |e| format!("last evaluation {e:.1}"));
        oto_cli::out!("{}: {} steps, {last}, {} labels", console.name, metrics.step, metrics.labels);
    }
    Ok(())
}

/// Works for the agent that a server shares, see `oto_agent::worker`.
fn work(command: &LearnCommand, mut job: Job, url: &str, agent: &str) -> Result<(), LearnError> {
    let name = command.worker.clone().unwrap_or_else(worker::random_name);
    if command.learn.seed.is_none() {
        job.student.seed = worker::seed_of(&name);
    }
    let backend = backend::by_name(&job.student.backend).map_err(RunError::from)?;
    let (mut student, mut link) = worker::student_of(&job, &*backend, agent, &name)?;
    let mut socket = Socket::new(&presets::teacher_url(url)).map_err(RunError::from)?;
    if let Some(token) = run::token() {
        socket.authorize(&token).map_err(RunError::from)?;
    }
    let mut tell = |problem: &str| oto_cli::note!("{agent}: {problem}; trying again for 30 seconds");
    worker::connect(&mut link, &mut socket, &oto_cli::output::closed, &mut tell)?;
    // A refusal keeps an older run.
    let create = |path: &PathBuf| RunFolder::create(path.clone(), &job, command.force);
    let mut console = Console::of(command, &job, command.out.as_ref().map(create).transpose()?, 0);
    let metrics = worker::run(&mut student, &mut link, &mut socket, &mut console)?;
    if !command.json {
        let stats = link.stats();
        let (sent, refused) = (stats.sent, stats.refused);
        oto_cli::out!("{}: {} steps, {sent} gradients sent, {refused} refused", console.name, metrics.step);
    }
    Ok(())
}

/// From one line of progress to the next.
const LINE: Duration = Duration::from_secs(2);

/// Prints and keeps what a run reports.
struct Console {
    name: String,
    env: String,
    folder: Option<RunFolder>,
    json: bool,
    quiet: bool,
    /// When the run began, and at which step.
    start: (Instant, u64),
    /// When the last line of progress was printed.
    line: Option<Instant>,
}

impl Observer for Console {
    fn event(&mut self, event: &Event) -> Result<(), String> {
        if self.json {
            oto_cli::out!("{}", serde_json::to_string(event).map_err(|e| e.to_string())?);
        }
        self.keep(|folder| folder.event(event))
    }

    fn metrics(&mut self, metrics: &Metrics) -> Result<(), String> {
        self.keep(|folder| folder.snapshot(metrics))
    }

    fn progress(&mut self, metrics: &Metrics) -> Result<(), String> {
        let due = metrics.done || self.line.is_none_or(|last| last.elapsed() >= LINE);
        if self.quiet || !due {
            return Ok(());
        }
        self.line = Some(Instant::now());
        let seconds = self.start.0.elapsed().as_secs_f64();
        let rate = (metrics.step - self.start.1) as f64 / seconds.max(f64::MIN_POSITIVE);
        let score = metrics.last_evaluation.or(metrics.last_episode.map(|e| e.score));
        let score = score.map_or("-".into(), |s| format!("{s:.1}"));
        let stage = format!("{:?}", metrics.stage).to_lowercase();
        let teachers =
            metrics.teachers.iter().filter_map(|t| Some(format!("; {}: {}", t.policy, t.problem.as_ref()?)));
        oto_cli::note!(
            "{}: {}/{} steps, {rate:.0} steps/s, return {score}, {} labels, {stage}{}",
            self.name,
            metrics.step,
            metrics.steps,
            metrics.labels,
            teachers.collect::<String>()
        );
        Ok(())
    }

    fn stop(&self) -> bool {
        oto_cli::output::closed()
    }

    fn checkpoint(&mut self, student: &Student) -> Result<(), String> {
        self.folder
            .as_mut()
            .map_or(Ok(()), |folder| folder.save(student, &self.env).map_err(|e| e.to_string()))
    }
}

impl Console {
    /// Of a run that begins at this step.
    fn of(command: &LearnCommand, job: &Job, folder: Option<RunFolder>, step: u64) -> Self {
        Self {
            name: format!("{} seed {}", job.env, job.student.seed),
            env: job.env.clone(),
            folder,
            json: command.json,
            quiet: command.quiet,
            start: (Instant::now(), step),
            line: None,
        }
    }

    /// Puts something into the run's folder, if it has one.
    fn keep(&mut self, put: impl FnOnce(&mut RunFolder) -> Result<(), FolderError>) -> Result<(), String> {
        self.folder.as_mut().map_or(Ok(()), put).map_err(|e| e.to_string())
    }
}

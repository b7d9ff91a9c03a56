//! Runs of the methods: the datasets, the offline parts, then the online parts. Each is kept when it is done. Methods that begin alike
//! share their offline part.

use super::methods::{Begins, Method, Recorded};
use super::{Settings, Task};
use crate::runs::{Curve, Finished, each, fnv, keep, kept};
use crate::{Options, ReportError, teachers, write};
use oto_agent::checkpoint;
use oto_agent::config::StudentConfig;
use oto_agent::drive::{Driver, Wire};
use oto_agent::environments;
use oto_agent::levels::{self, Plan};
use oto_agent::link::memory::Memory;
use oto_agent::offline::{OfflineConfig, OfflineTrainer};
use oto_agent::recorded::add_all;
use oto_agent::run::{self, Job, RunError, on_cpu};
use oto_agent::student::{Student, TeacherConfig};
use oto_agent::trainer::TrainError;
use oto_cpu::Cpu;
use oto_data::{Dataset, Episode, Level};
use oto_env::Space;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Changes whenever old runs would no longer be made the same way.
const FORMAT: u32 = 1;
/// The name that the offline policy has as a teacher.
const TEACHER: &str = "offline";

/// A dataset.
pub struct Data {
    pub level: Level,
    pub dataset: Dataset,
    /// Bytes of its file.
    pub bytes: u64,
    /// Names its settings.
    mark: u64,
}

/// What is kept of an offline part beside its files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offline {
    /// Updates before each evaluation, and its mean return.
    pub curve: Vec<(u64, f64)>,
    /// Bytes of the agent: networks, target networks and moments.
    weights: u64,
    /// Bytes of its policy.
    policy: u64,
    /// Seconds that it took, evaluations included.
    pub seconds: f64,
}

/// What is kept of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// There if the method has an offline part.
    pub offline: Option<Offline>,
    /// The online part; its first evaluation is before the first step.
    pub online: Finished,
    /// Bytes that the device gets before the first step: networks, recorded episodes.
    pub weights: u64,
    pub recorded: u64,
}

/// The runs of all levels and methods, in their order, and what failed.
pub struct Grid {
    pub runs: Vec<Vec<Vec<Run>>>,
    pub failed: Vec<String>,
}

/// The dataset of a level, kept with the runs.
pub fn data(options: &Options, level: Level) -> Result<Data, ReportError> {
    let settings = &options.offline_online;
    let task = settings.task;
    let student = StudentConfig { steps: settings.training_steps, ..task.student() };
    let text = format!("{FORMAT} {} {}", settings.level_steps, oto_json::write(&student));
    let mark = fnv(text.as_bytes());
    let folder = options.cache.join(format!("{}-data-{}-{mark:016x}", task.folder(), level.name()));
    if !folder.join("data/metadata.json").is_file() {
        if settings.finished {
            let error =
                io::Error::new(io::ErrorKind::NotFound, "no runs are kept here, and --finished makes none");
            return Err(ReportError::File { path: folder, error });
        }
        (options.tell)(&format!("making the dataset {}", level.name()));
        let plan = Plan {
            environment: task.environment,
            make: &|| environments::environment(task.environment),
            backend: &Cpu,
            level,
            student,
            steps: settings.level_steps,
            reference: Some(task.reference),
            id: None,
            specification: (None, 0),
        };
        oto_data::write_folder(&levels::make(&plan, |_, _| {})?, &folder)?;
    }
    let file = folder.join("data/main_data.hdf5");
    let bytes = std::fs::metadata(&file).map_err(|error| ReportError::File { path: file, error })?.len();
    Ok(Data { level, dataset: oto_data::read_file(&folder)?, bytes, mark })
}

/// The runs of these methods on these seeds, made where they are not kept: those of all methods with the first seed, then those with the
/// second. With [`Settings::finished`] none is made.
pub fn all(
    options: &Options,
    data: &[Data],
    methods: &[&Method],
    action: &Space,
    seeds: &[u64],
) -> Result<Grid, ReportError> {
    let empty = vec![vec![Vec::new(); methods.len()]; data.len()];
    let mut grid = Grid { runs: empty, failed: Vec::new() };
    let places: Vec<_> = (0..data.len()).flat_map(|l| (0..methods.len()).map(move |m| (l, m))).collect();
    for &seed in seeds {
        let maker =
            |&(l, m): &(usize, usize)| Maker { options, data: &data[l], method: methods[m], action, seed };
        if !options.offline_online.finished {
            each(options, &firsts(methods, &places), |place| Ok(maker(place).offline().err()))?;
        }
        let made = each(options, &places, |place| Ok(maker(place).run()))?;
        for (&(l, m), run) in places.iter().zip(made) {
            match run {
                Ok(run) => grid.runs[l][m].extend(run),
                Err(error) => {
                    let (level, name) = (data[l].level.name(), methods[m].name);
                    grid.failed.push(format!("{level}, {name}, seed {seed}: {error}"));
                }
            }
        }
    }
    Ok(grid)
}

/// The places of one method of those that share an offline part, at each level: two runs at once do not make the same one.
fn firsts(methods: &[&Method], places: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let first = |m: usize| methods.iter().position(|other| other.offline == methods[m].offline) == Some(m);
    places.iter().copied().filter(|(_, m)| first(*m)).collect()
}

/// Makes one run of a method.
struct Maker<'a> {
    options: &'a Options,
    data: &'a Data,
    method: &'a Method,
    action: &'a Space,
    seed: u64,
}

impl Maker<'_> {
    fn settings(&self) -> &Settings {
        &self.options.offline_online
    }

    fn task(&self) -> &'static Task {
        self.settings().task
    }

    fn configs(&self) -> Vec<OfflineConfig> {
        self.method.offline(self.settings(), self.action)
    }

    /// The folder of something at this level; `text` is all that it depends on beside the dataset and the seed.
    fn folder(&self, name: &str, text: &str) -> PathBuf {
        let Data { level, mark, .. } = self.data;
        let text = format!("{FORMAT} {mark} {text}");
        let name = name.replace(' ', "-");
        let folder =
            format!("{}-{}-{name}-{:016x}", self.task().folder(), level.name(), fnv(text.as_bytes()));
        self.options.cache.join(folder)
    }

    /// The folder of the offline part.
    fn offline_folder(&self) -> PathBuf {
        let names = self.method.offline.iter().map(|one| one.name).collect::<Vec<_>>().join("-");
        let folder = self.folder(&format!("of-{names}"), &oto_json::write(&self.configs()));
        folder.join(self.seed.to_string())
    }

    /// The offline part: its curve, and the files of its agent and policy. Nothing for a method without one.
    fn offline(&self) -> Result<Option<(Offline, Files)>, ReportError> {
        if self.method.offline.is_empty() {
            return Ok(None);
        }
        let files = Files::within(&self.offline_folder());
        if let Some(known) = kept(&files.curve).filter(|_| files.agent.is_file() && files.policy.is_file()) {
            return Ok(Some((known, files)));
        }
        let start = Instant::now();
        let Learnt { curve, agent, policy } = self.learn_offline()?;
        let offline = Offline {
            curve,
            weights: agent.len() as u64,
            policy: policy.len() as u64,
            seconds: start.elapsed().as_secs_f64(),
        };
        write::file(&files.agent, &agent)?;
        write::file(&files.policy, &policy)?;
        keep(&files.curve, &offline)?;
        self.tell("offline", offline.seconds);
        Ok(Some((offline, files)))
    }

    /// Learns from the dataset alone.
    fn learn_offline(&self) -> Result<Learnt, ReportError> {
        let mut environment = environments::environment(self.task().environment).map_err(TrainError::from)?;
        let spaces = [environment.observation_space().clone(), environment.action_space().clone()];
        let mut learnt = Learnt::default();
        for config in self.configs() {
            let config = OfflineConfig { seed: self.seed, ..config };
            let mut trainer = OfflineTrainer::new(&config, &spaces[0], &spaces[1], &Cpu)?;
            add_all(&self.data.dataset, |episode| trainer.add(episode))?;
            if !learnt.agent.is_empty() {
                trainer.adopt(&learnt.agent)?;
            }
            let before = learnt.curve.last().map_or(0, |(updates, _)| *updates);
            while trainer.ended().is_none() {
                let evaluation = trainer.advance(&mut *environment, u64::MAX)?.evaluation;
                learnt.curve.extend(evaluation.map(|one| (before + one.step, one.mean)));
            }
            learnt.agent = trainer.save()?;
            learnt.policy = trainer.policy_file(&trainer.policy(), self.task().environment);
        }
        Ok(learnt)
    }

    /// A whole run, or what is kept of it; nothing where it is not kept and none is made.
    fn run(&self) -> Result<Option<Run>, ReportError> {
        let config = self.method.online(self.settings());
        let (offline, online) = (oto_json::write(&self.configs()), oto_json::write(&config));
        let text = format!("{offline} {online} {:?} {:?}", self.method.begins, self.method.recorded);
        let path = self.folder(self.method.name, &text).join(format!("{}.json", self.seed));
        let known = kept(&path);
        if known.is_some() || self.settings().finished {
            return Ok(known);
        }
        let (offline, files) = self.offline()?.unzip();
        let online = self.learn_online(StudentConfig { seed: self.seed, ..config }, files.as_ref())?;
        let weights = offline.as_ref().map_or(0, |offline| match self.method.begins {
            Begins::Weights => offline.weights,
            Begins::Policy => offline.policy,
            Begins::Fresh | Begins::Answers => 0,
        });
        let share = self.recorded().map(Episode::len).sum::<usize>() as f64 / self.data.dataset.len() as f64;
        let recorded = (self.data.bytes as f64 * share) as u64;
        let run = Run { offline, online, weights, recorded };
        keep(&path, &run)?;
        self.tell("online", run.online.seconds);
        Ok(Some(run))
    }

    fn tell(&self, part: &str, seconds: f64) {
        let (level, name) = (self.data.level.name(), self.method.name);
        (self.options.tell)(&format!("{level}, {name}, seed {}: {part}, {seconds:.0} s", self.seed));
    }

    /// The episodes that the online part has.
    fn recorded(&self) -> impl Iterator<Item = &Episode> {
        let (every, most) = match self.method.recorded {
            Recorded::Nothing => (1, 0),
            Recorded::Twentieth => (20, usize::MAX),
            Recorded::All => (1, usize::MAX),
        };
        self.data.dataset.episodes.iter().step_by(every).take(most)
    }

    /// Learns in the environment.
    fn learn_online(&self, student: StudentConfig, files: Option<&Files>) -> Result<Finished, ReportError> {
        let failed = |error: RunError| {
            let arm = format!("{}, {}", self.data.level.name(), self.method.name);
            ReportError::Run { arm, seed: self.seed, error: Box::new(error) }
        };
        let start = Instant::now();
        let begins = self.method.begins;
        let agent = files.filter(|_| matches!(begins, Begins::Policy | Begins::Weights));
        let agent = agent.map(|files| read(&files.agent)).transpose()?;
        let teacher = files.filter(|_| begins == Begins::Answers);
        let job = Job {
            env: self.task().environment.into(),
            student,
            teachers: teacher.iter().map(|_| served()).collect(),
            defaults: None,
            from: None,
            dataset: None,
            workers: 1,
            distill: None,
            peer: None,
        };
        let wire = |files: &Files| {
            let policy = oto_policy::load_file(&files.policy)?.policy;
            let memory = Memory::new(teachers::from_policy(TEACHER, policy));
            Ok::<_, ReportError>(Wire::Memory(Box::new(memory)))
        };
        let driver = Driver::with(teacher.into_iter().map(wire).collect::<Result<_, _>>()?);
        let begin = |student: &mut Student| {
            let trainer = student.trainer();
            if self.method.recorded != Recorded::Nothing {
                trainer.mix()?;
                self.recorded().try_for_each(|episode| trainer.add(&episode.into()).map(drop))?;
            }
            agent.iter().try_for_each(|file| checkpoint::adopt(trainer, file).map(drop))
        };
        let environments = environments::of_student(&job.env, &job.student)?;
        let prepared = run::prepare_with(environments, &job, on_cpu(Cpu), driver, None, begin);
        let (mut student, mut driver) = prepared.map_err(failed)?;
        student.evaluate(self.settings().episodes)?;
        let mut curve = Curve::default();
        let metrics = run::run(&mut student, &mut driver, &mut curve).map_err(failed)?;
        Ok(curve.finish(self.seed, &metrics, start.elapsed().as_secs_f64()))
    }
}

/// What an offline part gives: its evaluations, its agent's file, its policy's file.
#[derive(Default)]
struct Learnt {
    curve: Vec<(u64, f64)>,
    agent: Vec<u8>,
    policy: Vec<u8>,
}

/// The files of an offline part.
struct Files {
    curve: PathBuf,
    agent: PathBuf,
    policy: PathBuf,
}

impl Files {
    fn within(folder: &Path) -> Self {
        let [curve, agent, policy] =
            ["evaluations.json", "agent.safetensors", "policy.safetensors"].map(|name| folder.join(name));
        Self { curve, agent, policy }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ReportError> {
    let read = oto_json::file::read_regular(path, checkpoint::MAX_BYTES);
    read.map_err(|error| ReportError::File { path: path.to_path_buf(), error })
}

/// The offline policy as a teacher.
fn served() -> TeacherConfig {
    TeacherConfig {
        url: format!("memory://{TEACHER}"),
        policy: TEACHER.into(),
        adapter: None,
        learn_adapter: None,
        weight: 1.0,
        dtype: oto_proto::Dtype::F32,
        quantization: None,
        submit: false,
    }
}

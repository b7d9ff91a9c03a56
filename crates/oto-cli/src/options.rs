//! The flags of a training run, the same for `oto learn` and for the WASI command.

use crate::origin::Origin;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use oto_agent::config::{Clock, Linear, StudentConfig, unused_in_words};
use oto_agent::environments;
use oto_agent::presets;
use oto_agent::run::{Distill, Job};
use oto_agent::stage::{Ending, GiveUp, StagesConfig};
use oto_agent::student::TeacherConfig;
use oto_json::file;
use oto_proto::{Adapter, Dtype};
use oto_rl::algorithms::{self, Algorithm};
use oto_rl::replay::SamplerName;
use std::path::{Path, PathBuf};

/// Why flags make no run.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// A file that cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
    /// JSON that is no configuration.
    #[error("{what}: {error}")]
    Json {
        /// Where it came from.
        what: String,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// A flag that does not fit.
    #[error("{0}")]
    Flag(String),
    /// No such environment.
    #[error(transparent)]
    Environment(#[from] oto_env::EnvError),
    /// A setting out of its range.
    #[error(transparent)]
    Config(#[from] oto_agent::config::ConfigError),
}

/// What to train, where, and by whom it is taught.
#[derive(Args, Clone, Debug)]
pub struct LearnOptions {
    /// Training environment: a built-in one, with options where it has some (CartPoleSwingUp-v0?k_f=5); gym:ID for a Gymnasium environment in Python (gym:ALE/Pong-v5); mujoco:ID for
    /// HalfCheetah-v5, Hopper-v5, Walker2d-v5 and InvertedPendulum-v5 on MuJoCo's own library
    /// [default: that of --config, else CartPole-v1]
    #[arg(long)]
    pub env: Option<String>,
    /// Algorithm of the student [default: the first one that fits the environment; see `oto algorithms`]
    #[arg(long, value_parser = names(algorithms::online()))]
    pub algorithm: Option<String>,
    /// Address of a teacher server (ws://host:port); repeatable; without it the student learns alone
    #[arg(long, value_name = "URL")]
    pub teacher: Vec<String>,
    /// Name of the teacher's policy, one for each --teacher, then one for each --distill that is a server's address
    /// [default for --teacher: sac_inverted_pendulum_v5]
    #[arg(long, value_name = "NAME")]
    pub policy: Vec<String>,
    /// Adapter between student and teacher as JSON or @FILE, one for each --teacher; "none" for no adapter, "learn" for a learned
    /// one [default: the built-in adapter of the pair, if there is one]
    #[arg(long, value_name = "JSON")]
    pub adapter: Vec<String>,
    /// Weight of each --teacher relative to the others [default: 1]
    #[arg(long, value_name = "NUMBER")]
    pub weight: Vec<f64>,
    /// Submit the replay buffer to teachers that accept it, at the end of the Online stage and of the run
    #[arg(long, requires = "teacher")]
    pub submit: bool,
    /// Name of the student on servers, for the judgement and deletion of its submissions [default: a random name; with --seeds:
    /// NAME-SEED]
    #[arg(long, value_name = "NAME")]
    pub student: Option<String>,
    /// Encoding of states on the wire
    #[arg(long, value_parser = ["f32", "f16"], default_value = "f32", requires = "teacher")]
    pub dtype: String,
    /// Seed of all random numbers, up to 2147483647
    #[arg(long, value_parser = clap::value_parser!(u64).range(..1 << 31))]
    pub seed: Option<u64>,
    /// Environment steps; without a preset, exploration is a share of them
    #[arg(long)]
    pub steps: Option<u64>,
    /// Asynchronous workers of an algorithm that has them (a3c): threads that share one agent, each with its own environment. --steps
    /// counts the steps of all. With several workers the order of updates depends on the clock: a run does not repeat
    /// [default: 1]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Backend: cpu, webgpu, or auto for the faster of the two
    #[arg(long)]
    pub backend: Option<String>,
    /// JSON file of settings: config.json of a run folder or a part of it. Its environment and teachers apply too, unless --env or
    /// --teacher is given
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, e.g. `--set gamma=0.98 --set algorithm.hidden=[128,128]`; repeatable; see docs/metrics.md
    #[arg(long, value_name = "KEY=JSON")]
    pub set: Vec<String>,
    /// Weight of the teachers' term
    #[arg(long)]
    pub alpha_aikd: Option<f64>,
    /// Weight of BASE within the teachers' term
    #[arg(long)]
    pub delta: Option<f64>,
    /// Weight of both RKD terms within the teachers' term
    #[arg(long)]
    pub eta: Option<f64>,
    /// Weight of the student's own loss during the Transfer stage
    #[arg(long)]
    pub alpha_task: Option<f64>,
    /// End of the Offline stage, e.g. steps=5000 or seconds=60,return=200 [default: no Offline stage]
    #[arg(long, value_name = "ENDING")]
    pub offline: Option<String>,
    /// End of the Transfer stage; give-up=8000:475 ends it after 8000 steps without an evaluation of 475
    #[arg(long, value_name = "ENDING")]
    pub transfer: Option<String>,
    /// End of the Online stage
    #[arg(long, value_name = "ENDING")]
    pub online: Option<String>,
    /// Repeat all stages after the last one
    #[arg(long = "loop")]
    pub repeat: bool,
    /// Labels enter after a fixed lag (lockstep: same seed, same curve) or on arrival (async)
    #[arg(long, value_parser = ["lockstep", "async"])]
    pub clock: Option<String>,
    /// Environment steps between greedy evaluations; 0 for none
    #[arg(long)]
    pub eval_every: Option<u64>,
    /// Evaluate in the training environment, between two episodes, for an environment that can exist only once
    #[arg(long)]
    pub eval_between_episodes: bool,
    /// Episodes in an evaluation
    #[arg(long)]
    pub eval_episodes: Option<u32>,
}

/// What a run begins with beside its flags.
#[derive(Default)]
pub struct Base<'a> {
    /// The run whose networks it takes over.
    pub origin: Option<&'a Origin>,
    /// The environment, where neither a flag nor the other run names one.
    pub env: Option<String>,
    /// Whether recorded episodes are mixed into its batches.
    pub mixed: bool,
}

/// Prints whose defaults a run's settings began with.
pub fn tell_defaults(job: &Job) {
    if let Some(line) = &job.defaults {
        crate::note!("{line} (docs/presets.md)");
    }
}

/// Prints which settings were given and change nothing.
pub fn tell_unused(algorithm: &str, unused: &[&str]) {
    if let Some(line) = unused_in_words(algorithm, unused) {
        crate::note!("{line}");
    }
}

/// What a file of `--config` has beside the student.
#[derive(Default, serde::Deserialize)]
struct File {
    env: Option<String>,
    workers: Option<usize>,
    #[serde(default)]
    teachers: Vec<TeacherConfig>,
    distill: Option<Distill>,
}

impl File {
    fn read(file: Option<&Path>) -> Result<Self, OptionsError> {
        let Some(path) = file else { return Ok(Self::default()) };
        json(&path.display().to_string(), &text(path)?)
    }
}

impl LearnOptions {
    /// The run these flags mean: the environment's defaults, then `--config`, then `--set`, then the other flags.
    pub fn job(&self) -> Result<Job, OptionsError> {
        self.job_from(&Base::default())
    }

    /// The same of a run that begins with another one or with recorded episodes: the other run's settings go over the
    /// environment's defaults.
    pub fn job_from(&self, base: &Base<'_>) -> Result<Job, OptionsError> {
        let given = File::read(self.config.as_deref())?;
        let env = self.env.clone().or(given.env).or(base.origin.map(|origin| origin.env.clone()));
        let env = env.or_else(|| base.env.clone()).unwrap_or_else(|| "CartPole-v1".into());
        let (mut student, usual, preset) = self.student(&env, base)?;
        self.apply(&mut student)?;
        let mut teachers = self.teachers(&env)?;
        if teachers.is_empty() {
            teachers = given.teachers;
        }
        // Before stages that are not there for a student alone are put away.
        student.validate()?;
        tell_unused(student.algorithm.name(), &student.unused(&usual, !teachers.is_empty()));
        if teachers.is_empty() {
            self.needs_teacher()?;
            student.stages = StagesConfig::SOLO;
        }
        environments::check_pixels(&env, student.algorithm.convolution(), student.algorithm.name(), true)?;
        let workers = self.workers.or(given.workers).unwrap_or(1);
        let (from, dataset, distill) = (None, None, given.distill);
        Ok(Job {
            env,
            student,
            teachers,
            defaults: Some(preset),
            from,
            dataset,
            workers,
            distill,
            peer: None,
        })
    }

    /// Refuses flags that mean nothing to a student without a teacher.
    fn needs_teacher(&self) -> Result<(), OptionsError> {
        let given = [
            ("--offline", self.offline.is_some()),
            ("--transfer", self.transfer.is_some()),
            ("--online", self.online.is_some()),
            ("--loop", self.repeat),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(OptionsError::Flag(format!(
                "{flag} needs a --teacher: a student alone has one stage, of --steps"
            ))),
            None => Ok(()),
        }
    }

    /// The settings without flags of their own, the defaults they began with, and whose those are.
    fn student(
        &self,
        env: &str,
        base: &Base<'_>,
    ) -> Result<(StudentConfig, StudentConfig, String), OptionsError> {
        let (id, seen) = (environments::id(env), environments::seen(env)?);
        let given = Given::settings(self.config.as_deref(), "student", &self.set)?;
        let named = given.algorithm(self.algorithm.as_deref())?;
        let continued = || base.origin.and_then(|origin| origin.run.algorithm(|one| one.online(), seen));
        let preset = presets::preset(id, seen, named.or_else(continued));
        // Files and assignments may name a number of steps, on which defaults depend.
        let usual = given.over(&preset.student)?;
        let preset = preset.for_steps(self.steps.unwrap_or(usual.steps));
        let mut defaults = preset.student.clone();
        if let Some(origin) = base.origin {
            defaults = origin.run.student(&defaults);
        }
        if base.mixed {
            defaults.replay.sampler = defaults.algorithm.sampler().unwrap_or(SamplerName::Shares);
        }
        Ok((given.over(&defaults)?, defaults, preset.line(env)))
    }

    /// The teachers whose adapter is to be learnt. Their spaces are still to be asked for.
    pub fn learns_adapter(&self) -> impl Iterator<Item = usize> {
        self.adapter.iter().enumerate().filter(|(_, given)| *given == "learn").map(|(i, _)| i)
    }

    fn apply(&self, s: &mut StudentConfig) -> Result<(), OptionsError> {
        let put = |to: &mut f64, from: Option<f64>| *to = from.unwrap_or(*to);
        s.seed = self.seed.unwrap_or(s.seed);
        s.name = self.student.clone().or(s.name.take());
        s.steps = self.steps.unwrap_or(s.steps);
        s.backend = self.backend.clone().unwrap_or(std::mem::take(&mut s.backend));
        s.transfer.alpha_aikd = self.alpha_aikd.map_or(s.transfer.alpha_aikd, Linear::constant);
        put(&mut s.transfer.delta, self.delta);
        put(&mut s.transfer.eta, self.eta);
        put(&mut s.transfer.alpha_task, self.alpha_task);
        for (stage, text) in [
            (&mut s.stages.offline, &self.offline),
            (&mut s.stages.transfer, &self.transfer),
            (&mut s.stages.online, &self.online),
        ] {
            if let Some(text) = text {
                *stage = Some(ending(text)?);
            }
        }
        s.stages.repeat |= self.repeat;
        match self.clock.as_deref() {
            Some("async") => s.clock = Clock::Async,
            Some(_) => s.clock = Clock::Lockstep,
            None => {}
        }
        s.evaluation.every = self.eval_every.unwrap_or(s.evaluation.every);
        s.evaluate_between_episodes |= self.eval_between_episodes;
        s.evaluation.episodes = self.eval_episodes.unwrap_or(s.evaluation.episodes);
        Ok(())
    }

    fn teachers(&self, env: &str) -> Result<Vec<TeacherConfig>, OptionsError> {
        let of = |i: usize, url: &String| {
            let policy = self.policy.get(i).or(self.policy.last()).map_or(USUAL_POLICY, String::as_str);
            let policy = policy.to_owned();
            let adapter = match self.adapter.get(i).map(String::as_str) {
                None => presets::adapter(environments::id(env), &policy),
                Some("none" | "learn") => None,
                Some(given) => Some(adapter(given)?),
            };
            let dtype = if self.dtype == "f16" { Dtype::F16 } else { Dtype::F32 };
            let (weight, submit) = (self.weight.get(i).copied().unwrap_or(1.0), self.submit);
            let url = presets::teacher_url(url);
            let learn_adapter = None;
            Ok(TeacherConfig {
                url,
                policy,
                adapter,
                learn_adapter,
                dtype,
                quantization: None,
                weight,
                submit,
            })
        };
        if let Some(w) = self.weight.iter().find(|w| !(0.0..=1e6).contains(*w)) {
            return Err(OptionsError::Flag(format!("--weight {w}: a weight from 0 to 1e6 is needed")));
        }
        let teachers = self.teacher.len();
        for (flag, given, most) in [
            ("--weight", self.weight.len(), teachers),
            ("--adapter", self.adapter.len(), teachers),
            ("--policy", self.policy.len(), teachers),
        ] {
            if given > most {
                return Err(OptionsError::Flag(format!("{given} {flag} for {teachers} --teacher")));
            }
        }
        self.teacher.iter().enumerate().map(|(i, url)| of(i, url)).collect()
    }
}

/// The policy of a --teacher without --policy.
const USUAL_POLICY: &str = "sac_inverted_pendulum_v5";

/// The names of algorithms as the values of a flag.
pub(crate) fn names(algorithms: impl Iterator<Item = &'static dyn Algorithm>) -> PossibleValuesParser {
    algorithms.map(|one| PossibleValue::new(one.name()).help(one.title())).collect::<Vec<_>>().into()
}

/// Settings that were given: they go over defaults.
pub(crate) struct Given(serde_json::Value);

impl Given {
    /// Those of a file (its part of this name, if it has one), then assignments `KEY=JSON`.
    pub fn settings(file: Option<&Path>, part: &str, assignments: &[String]) -> Result<Self, OptionsError> {
        let settings = match file {
            None => serde_json::json!({}),
            Some(path) => {
                let file: serde_json::Value = json(&path.display().to_string(), &text(path)?)?;
                file.get(part).cloned().unwrap_or(file)
            }
        };
        Self::new(settings, assignments)
    }

    /// These settings, then assignments `KEY=JSON`.
    pub fn new(mut settings: serde_json::Value, assignments: &[String]) -> Result<Self, OptionsError> {
        name(&mut settings);
        for assignment in assignments {
            set(&mut settings, assignment)?;
            name(&mut settings);
        }
        Ok(Self(settings))
    }

    /// The algorithm of a flag, or else the one that the settings name. None where there is no algorithm of that name, which
    /// [`Self::over`] says.
    pub fn algorithm(&self, flag: Option<&str>) -> Result<Option<&'static dyn Algorithm>, OptionsError> {
        let named = self.0.pointer("/algorithm/name").and_then(serde_json::Value::as_str);
        match (flag, named) {
            (Some(flag), Some(named)) if flag != named => Err(OptionsError::Flag(format!(
                "--algorithm {flag}: the settings of --config and --set are those of {named} (algorithm.name)"
            ))),
            (flag, named) => Ok(flag.or(named).and_then(algorithms::find)),
        }
    }

    /// The defaults with these settings over them.
    pub fn over<T: serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        defaults: &T,
    ) -> Result<T, OptionsError> {
        let wrong = |what: &str, error| OptionsError::Json { what: what.into(), error };
        let mut settings = serde_json::to_value(defaults).map_err(|error| wrong("defaults", error))?;
        merge(&mut settings, self.0.clone());
        serde_json::from_value(settings).map_err(|error| wrong("settings", error))
    }
}

/// An algorithm's name alone becomes settings that have only a name.
fn name(settings: &mut serde_json::Value) {
    if let Some(algorithm) = settings.get_mut("algorithm")
        && algorithm.is_string()
    {
        *algorithm = serde_json::json!({ "name": algorithm });
    }
}

fn text(path: &Path) -> Result<String, OptionsError> {
    file::read_text(path, file::MAX_LIST).map_err(|error| OptionsError::File { path: path.to_owned(), error })
}

fn json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, OptionsError> {
    serde_json::from_str(text).map_err(|error| OptionsError::Json { what: what.to_string(), error })
}

/// Puts what `new` says over what was there, object by object.
fn merge(old: &mut serde_json::Value, new: serde_json::Value) {
    match (old, new) {
        (serde_json::Value::Object(old), serde_json::Value::Object(new)) => {
            new.into_iter()
                .for_each(|(key, value)| merge(old.entry(key).or_insert(serde_json::Value::Null), value));
        }
        (old, new) => *old = new,
    }
}

/// An adapter as JSON, or as the file behind an `@`.
fn adapter(given: &str) -> Result<Adapter, OptionsError> {
    match given.strip_prefix('@') {
        None => json("--adapter", given),
        Some(file) => json(file, &text(Path::new(file))?),
    }
}

/// Puts `a.b.c=JSON` into settings; a value that is no JSON is a string.
fn set(settings: &mut serde_json::Value, assignment: &str) -> Result<(), OptionsError> {
    let flag = || OptionsError::Flag(format!("--set {assignment}: KEY=JSON is needed, e.g. gamma=0.98"));
    let (key, value) = assignment.split_once('=').ok_or_else(flag)?;
    let mut at = settings;
    for part in key.split('.') {
        if at.is_null() {
            *at = serde_json::json!({});
        }
        at = at.as_object_mut().ok_or_else(flag)?.entry(part).or_insert(serde_json::Value::Null);
    }
    *at = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok(())
}

/// `steps=N,seconds=S,return=R,give-up=N:R`: whichever comes first.
fn ending(text: &str) -> Result<Ending, OptionsError> {
    let mut ending = Ending::default();
    let mut given: Vec<&str> = Vec::new();
    for part in text.split(',') {
        let wrong = || {
            OptionsError::Flag(format!(
                "ending {part:?}: steps=N, seconds=S, return=R or give-up=N:R is needed"
            ))
        };
        let (key, value) = part.split_once('=').ok_or_else(wrong)?;
        if given.contains(&key) {
            return Err(OptionsError::Flag(format!("ending {text:?}: {key} is given twice")));
        }
        given.push(key);
        match key {
            "steps" => ending.steps = Some(value.parse().map_err(|_| wrong())?),
            "seconds" => ending.seconds = Some(value.parse().map_err(|_| wrong())?),
            "return" => ending.return_at_least = Some(value.parse().map_err(|_| wrong())?),
            "give-up" => {
                let (steps, bar) = value.split_once(':').ok_or_else(wrong)?;
                let (after_steps, below_return) =
                    (steps.parse().map_err(|_| wrong())?, bar.parse().map_err(|_| wrong())?);
                ending.give_up = Some(GiveUp { after_steps, below_return });
            }
            _ => return Err(wrong()),
        }
    }
    Ok(ending)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use oto_rl::algorithms::ppo::PpoConfig;
    use oto_rl::algorithms::qrdqn::QrDqnConfig;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        learn: LearnOptions,
    }

    fn job(args: &[&str]) -> Result<Job, OptionsError> {
        Cli::try_parse_from([&["oto"], args].concat()).unwrap().learn.job()
    }

    #[test]
    fn flags_become_a_job() {
        let args = [
            "--teacher",
            "localhost:9",
            "--set",
            "algorithm.hidden=[7]",
            "--seed",
            "3",
            "--transfer",
            "steps=9,return=1.5",
        ];
        let job = job(&args).unwrap();
        assert_eq!(job.student.algorithm.of::<QrDqnConfig>().unwrap().hidden, [7]);
        assert_eq!(job.student.seed, 3);
        assert_eq!(job.student.stages.transfer.unwrap().steps, Some(9));
        assert_eq!(job.teachers[0].url, "ws://localhost:9/v1/teach");
        assert!(job.teachers[0].adapter.is_some(), "a known pair");
    }

    #[test]
    fn teachers_weigh_what_is_said_and_1_otherwise() {
        let job = job(&["--teacher", "a:1", "--teacher", "b:1", "--weight", "0.5"]).unwrap();
        assert_eq!(job.teachers.iter().map(|t| t.weight).collect::<Vec<_>>(), [0.5, 1.0]);
    }

    #[test]
    fn an_algorithm_brings_its_own_defaults() {
        let of = |args: &[&str]| job(&[&["--env", "Pendulum-v1"], args].concat()).unwrap().student;
        let ppo = |student: &StudentConfig| student.algorithm.of::<PpoConfig>().unwrap().clone();
        let flag = of(&["--algorithm", "ppo", "--set", "algorithm.epochs=3"]);
        assert_eq!((ppo(&flag).n_steps, ppo(&flag).epochs, flag.gamma), (4096, 3, 0.9));
        for named in
            [&["algorithm=ppo"][..], &["algorithm.name=ppo"], &["algorithm=ppo", "algorithm.clip=0.2"]]
        {
            let args = named.iter().flat_map(|one| ["--set", one]).collect::<Vec<_>>();
            assert_eq!(ppo(&of(&args)).n_steps, 4096, "{named:?}");
        }
        assert_eq!(of(&[]).algorithm.name(), "sac");
    }

    #[test]
    fn a_job_says_whose_defaults_it_has_and_explores_for_a_share_of_its_steps() {
        let cartpole = job(&["--steps", "7"]).unwrap();
        assert!(
            cartpole.defaults.unwrap().starts_with("CartPole-v1 has a preset (CartPole, qrdqn): measured")
        );
        let soft = job(&["--algorithm", "sac"]).unwrap();
        let line = soft.defaults.unwrap();
        assert!(
            line.starts_with("CartPole-v1 has no preset") && line.contains("discrete actions, sac"),
            "{line}"
        );
        assert_eq!(soft.student.algorithm.name(), "sac");
    }

    #[test]
    fn without_a_teacher_the_student_is_alone() {
        assert_eq!(job(&[]).unwrap().student.stages, StagesConfig::SOLO);
    }

    #[test]
    fn a_runs_configuration_means_the_run_again() {
        let file = std::env::temp_dir().join(format!("oto-options-{}.json", std::process::id()));
        let path = file.to_str().unwrap();
        let first =
            job(&["--env", "Pendulum-v1", "--teacher", "a:1", "--policy", "sac_pendulum_v1", "--seed", "4"])
                .unwrap();
        std::fs::write(&file, serde_json::to_vec(&first).unwrap()).unwrap();
        assert_eq!(job(&["--config", path]).unwrap(), first);
        let moved =
            job(&["--config", path, "--env", "MountainCarContinuous-v0", "--teacher", "b:1"]).unwrap();
        assert_eq!((moved.env.as_str(), moved.student.seed), ("MountainCarContinuous-v0", 4));
        assert_eq!(moved.teachers.iter().map(|t| t.url.as_str()).collect::<Vec<_>>(), ["ws://b:1/v1/teach"]);
        std::fs::write(&file, serde_json::to_vec(&first.student).unwrap()).unwrap();
        let part = job(&["--config", path]).unwrap();
        assert_eq!((part.env.as_str(), part.student.seed, part.teachers.len()), ("CartPole-v1", 4, 0));
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let fails = |args: &[&str]| job(args).unwrap_err().to_string();
        assert!(fails(&["--set", "gama=1"]).contains("gama"));
        assert!(fails(&["--set", "algorithm=dqn"]).contains("algorithm.name: expected `qrdqn`, `sac`"));
        assert!(fails(&["--set", "algorithm=cql"]).contains("cql learns from a dataset alone"));
        assert!(fails(&["--set", "algorithm.hidden=[7,-1]"]).contains("algorithm.hidden[1]"));
        assert!(fails(&["--set", "qrdqn.hidden=[7]"]).contains("qrdqn: this is a configuration of format 1"));
        let beside = fails(&["--algorithm", "sac", "--set", "algorithm.quantiles=3"]);
        assert!(beside.contains("algorithm.quantiles: unknown field"), "{beside}");
        let other = fails(&["--algorithm", "sac", "--set", "algorithm={\"name\":\"ppo\",\"clip\":0.1}"]);
        assert!(other.contains("are those of ppo"), "{other}");
        assert!(fails(&["--set", "gamma"]).contains("KEY=JSON"));
        assert!(fails(&["--backend", "tpu"]).contains("\"cpu\", \"webgpu\" or \"auto\""));
        assert!(fails(&["--transfer", "stepz=1"]).contains("stepz=1"));
        for (flags, part) in [
            (["--online", "return=nan"], "return_at_least"),
            (["--offline", "return=inf"], "return_at_least"),
            (["--transfer", "seconds=-inf"], "seconds"),
            (["--transfer", "give-up=5:nan"], "give_up"),
            (["--online", "steps=0"], "steps"),
            (["--offline", "steps=100,steps=200"], "steps is given twice"),
            (["--online", "return=1,steps=100,return=1"], "return is given twice"),
            (["--online", "steps=100"], "--online needs a --teacher"),
            (["--transfer", "steps=100"], "--transfer needs a --teacher"),
        ] {
            let said = fails(&flags);
            assert!(said.contains(part), "{flags:?}: {said}");
        }
        assert!(fails(&["--teacher", "a:1", "--adapter", "{"]).contains("--adapter"));
        assert!(fails(&["--teacher", "a:1", "--weight", "NaN"]).contains("--weight NaN"));
        assert!(fails(&["--teacher", "a:1", "--weight", "1", "--weight", "2"]).contains("2 --weight for 1"));
        assert!(fails(&["--config", "/nowhere/x.json"]).contains("/nowhere/x.json"));
    }
}

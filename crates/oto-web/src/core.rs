//! The class that a page's worker drives (`web/student/src/worker.ts`): one student, its links, its clock.

use crate::backend;
use crate::config::{CoreConfig, EnvConfig, unread};
use crate::error::CoreError;
use crate::host;
use crate::report::Reporter;
use crate::share::{Share, ShareConfig};
use crate::sockets::{Linked, Sockets};
use crate::values;
use js_sys::{Array, Function};
use oto_agent::baseline::Baselines;
use oto_agent::checkpoint;
use oto_agent::config::unused_in_words;
use oto_agent::link::Link;
#[cfg(feature = "all")]
use oto_agent::recorded::add_all;
use oto_agent::student::{Need, Student, Tick};
use oto_agent::trainer::{TrainError, program};
use oto_agent::watch::Watch;
#[cfg(feature = "all")]
use oto_env::SpaceError;
use oto_env::{Action, SpaceTree, Step};
use oto_graph::Program;
use oto_json::{Json, object_tree};
use oto_rl::replay::Replay;
use oto_rl::shared::Part;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = "\
import type { EnvironmentRequest } from '../src/environment.js';
import type { Evaluation, Metrics } from '../src/metrics.js';
import type { CoreConfig } from '../src/options.js';
import type { Spaces } from '../src/protocol.js';
import type { Scene } from '../src/scene.js';
";

/// One student of a page. Objects have the page's spelling, see [`values`].
#[wasm_bindgen]
pub struct StudentCore {
    student: Student,
    teachers: usize,
    /// Its conversation with the server of the agent that it works for.
    share: Option<Share>,
    sockets: Sockets,
    spaces: Json,
    reporter: Reporter,
    /// Train until this environment step.
    until: u64,
    /// The environment's id, if it is a built-in one.
    built_in: Option<String>,
    observation: SpaceTree,
    action: SpaceTree,
    /// An observation as the student sees it.
    row: Vec<f32>,
    watch: Option<Watch>,
    /// What is said of settings that change nothing.
    unused: Option<String>,
}

#[wasm_bindgen]
impl StudentCore {
    /// Creates a student from its configuration (see [`CoreConfig`]). A device is asked for here, and backends are
    /// timed here where the configuration leaves the choice. `tickets` has the address of each teacher's tickets, or `null`.
    /// `wake` is called when [`Self::serve_links`] is due. `from` is the checkpoint of a run that the student begins with.
    pub async fn create(
        #[wasm_bindgen(unchecked_param_type = "CoreConfig")] config: JsValue,
        #[wasm_bindgen(unchecked_param_type = "(string | null)[]")] tickets: Array,
        #[wasm_bindgen(unchecked_param_type = "() => void")] wake: Function,
        from: Option<Vec<u8>>,
    ) -> Result<StudentCore, JsValue> {
        host::report_panics();
        let tickets = tickets.iter().map(|ticket| ticket.as_string()).collect();
        let config = values::take(config).map_err(unread)?;
        Ok(Self::read(&config, tickets, wake, from.as_deref()).await?)
    }

    async fn read(
        config: &Json,
        tickets: Vec<Option<String>>,
        wake: Function,
        from: Option<&[u8]>,
    ) -> Result<StudentCore, CoreError> {
        let origin = from.map(checkpoint::origin).transpose().map_err(CoreError::while_beginning)?;
        let config = CoreConfig::read(config, origin.as_ref())?;
        let environment = config.environment()?;
        let (observation, action) = environment.spaces();
        let spaces = object_tree(|out| {
            out.field("observation_space", observation);
            out.field("action_space", action);
        });
        let program = program(&config.student, observation, action, config.teachers.len())?;
        check_memory(&program)?;
        let (observation, action) = (SpaceTree::from(observation.clone()), SpaceTree::from(action.clone()));
        let chosen = backend::choose(&config.student, program).await?;
        let mut student = Student::of(
            config.share.as_ref().map_or(Part::Whole, ShareConfig::part),
            &config.student,
            environment,
            &config.teachers,
            chosen.backend.as_ref(),
            host::now_ms(),
        )?;
        check_buffer(student.trainer().replay(), config.student.buffer)?;
        student.trainer().tried = chosen.tried;
        if let Some(file) = from {
            checkpoint::adopt(student.trainer(), file).map_err(CoreError::while_beginning)?;
        }
        student.name_run(host::random);
        let row = vec![0.0; student.trainer().observation().len()];
        let (built_in, observation, action) = match config.env {
            EnvConfig::BuiltIn(id) => (Some(id), observation, action),
            EnvConfig::Page { observation, action, .. } => (None, observation, action),
        };
        let baselines = built_in.as_ref().and_then(|id| Baselines::of(id, config.student.seed));
        let mut reporter = Reporter::default();
        reporter.baselines = baselines;
        let teachers = config.teachers.len();
        let unused = config.unused.iter().map(|name| values::camel(name)).collect::<Vec<_>>();
        let unused = unused_in_words(config.student.algorithm.name(), &unused);
        let share = config.share.as_ref().map(|share| Share::new(&mut student, share)).transpose()?;
        let teachers_at = config.teachers.into_iter().map(|teacher| teacher.url);
        let addresses = teachers_at.chain(config.share.map(ShareConfig::url)).collect();
        Ok(Self {
            student,
            teachers,
            share,
            sockets: Sockets::new(addresses, tickets, wake),
            spaces,
            reporter,
            until: 0,
            built_in,
            observation,
            action,
            row,
            watch: None,
            unused,
        })
    }

    /// Mixes a dataset into every batch: the bytes of an HDF5 file in Minari's or D4RL's layout, and Minari's `metadata.json`. Before
    /// the first step.
    #[cfg(feature = "all")]
    pub fn mix(&mut self, hdf5: Vec<u8>, metadata: Option<String>) -> Result<(), JsValue> {
        Ok(self.mix_dataset(hdf5, metadata.as_deref())?)
    }

    /// The spaces of a built-in environment.
    #[wasm_bindgen(unchecked_return_type = "Spaces")]
    pub fn spaces(&self) -> JsValue {
        values::give_tree(&self.spaces)
    }

    /// A sentence about settings that were given and change nothing, for the page's console.
    pub fn unused(&self) -> Option<String> {
        self.unused.clone()
    }

    /// Sets how far [`Self::advance`] trains: so many environment steps from now on, if need be beyond the configured
    /// end; to that end, if none are given.
    pub fn train(&mut self, steps: Option<f64>) {
        let trainer = self.student.trainer();
        let (now, end) = (trainer.steps(), trainer.config().steps);
        self.until = steps.map_or(end, |steps| now.saturating_add(steps as u64));
        if self.until > end {
            self.student.set_steps(self.until);
        }
    }

    /// Trains for about `budget` milliseconds. Afterwards there is `more` to do, it `wait`s for labels, the
    /// `environment` of the page is needed, or it is the `end`.
    pub fn advance(&mut self, budget: f64) -> Result<String, JsValue> {
        let end = host::now() + budget;
        while host::now() < end {
            if self.student.asked().is_none() && self.student.trainer().steps() >= self.until {
                return Ok("end".into());
            }
            if let Some(share) = &mut self.share
                && let Some(stopped) = share.turn(&mut self.student)?
            {
                return Ok(stopped.into());
            }
            let stopped = if self.built_in.is_some() { self.tick()? } else { self.need()? };
            if let Some(stopped) = stopped {
                return Ok(stopped.into());
            }
        }
        Ok("more".into())
    }

    fn tick(&mut self) -> Result<Option<&'static str>, CoreError> {
        Ok(match self.student.tick(host::now_ms())? {
            Tick::Stepped => None,
            Tick::Waiting => Some("wait"),
            Tick::Done => Some("end"),
        })
    }

    fn need(&mut self) -> Result<Option<&'static str>, CoreError> {
        Ok(Some(match self.student.need(host::now_ms())? {
            Need::Reset(_) | Need::Step | Need::Evaluate { .. } => "environment",
            Need::Wait => "wait",
            Need::Nothing => "end",
        }))
    }

    /// What [`Self::advance`] asked of the page's environment: `{kind: "reset", seed: 1}` (a seed the first time
    /// only), `{kind: "step", action: 0}`, where a continuous action is a list of numbers, or
    /// `{kind: "evaluate", episodes: 10, seed: 1}`. The same until it is answered.
    #[wasm_bindgen(unchecked_return_type = "EnvironmentRequest")]
    pub fn environment_request(&mut self) -> Result<JsValue, JsValue> {
        let Some(asked) = self.student.asked() else {
            return Err(CoreError::worker("the environment is not needed now").into());
        };
        Ok(values::give_tree(&object_tree(|out| {
            let (kind, seed) = match asked {
                Need::Step => ("step", None),
                Need::Evaluate { seed, .. } => ("evaluate", seed),
                Need::Reset(seed) => ("reset", seed),
                Need::Wait | Need::Nothing => ("nothing", None),
            };
            out.field("kind", kind);
            if let Some(seed) = seed {
                out.field("seed", &seed);
            }
            if let Need::Evaluate { episodes, .. } = asked {
                out.field("episodes", &episodes);
            }
            if asked == Need::Step {
                match self.student.action() {
                    Action::Continuous(values) => out.field("action", &values.to_vec()),
                    Action::Discrete(index) => {
                        let mut numbers = Vec::new();
                        self.action.combination(index, &mut numbers);
                        match self.action {
                            SpaceTree::Discrete { .. } => out.field("action", &numbers[0]),
                            _ => out.field("action", &numbers),
                        }
                    }
                }
            }
        })))
    }

    /// The answer of the page's environment to a reset or a step: the observation's plain numbers, and after a step the rest.
    pub fn environment_answer(
        &mut self,
        observation: &[f64],
        reward: f64,
        terminated: bool,
        truncated: bool,
    ) -> Result<(), JsValue> {
        self.flatten(observation)?;
        let answered = match self.student.asked() {
            Some(Need::Reset(_)) => self.student.began(&self.row),
            _ => self.student.stepped(Step { reward, terminated, truncated }, &self.row, host::now_ms()),
        };
        Ok(answered.map_err(CoreError::from)?)
    }

    fn flatten(&mut self, observation: &[f64]) -> Result<(), CoreError> {
        Ok(self.observation.flatten(observation, &mut self.row)?)
    }

    /// The returns of the evaluation that was asked for.
    pub fn environment_evaluated(&mut self, returns: &[f64]) -> Result<(), JsValue> {
        Ok(self.student.evaluated(returns, host::now_ms()).map_err(CoreError::from)?)
    }

    /// The page's environment failed: its episode is given up, or the evaluation left out.
    pub fn environment_failed(&mut self) -> Result<(), JsValue> {
        Ok(self.student.give_up_episode().map_err(CoreError::from)?)
    }

    /// How many teachers there are.
    pub fn teachers(&self) -> usize {
        self.teachers
    }

    /// How much a teacher counts from now on; 0 switches it off.
    pub fn set_teacher_weight(&mut self, teacher: usize, weight: f64) -> Result<(), JsValue> {
        Ok(self.student.set_teacher_weight(teacher, weight).map_err(CoreError::from)?)
    }

    /// Tells the links what their connections report and that time has passed, and carries out what they want.
    pub fn serve_links(&mut self) {
        match &mut self.share {
            Some(share) => self.sockets.serve(share),
            None => self.sockets.serve(&mut self.student),
        }
    }

    /// Cuts the wire to a teacher, or to all, or mends it.
    pub fn connect(&mut self, teacher: Option<usize>, on: bool) {
        match &mut self.share {
            Some(share) => self.sockets.cut(share, teacher, !on),
            None => self.sockets.cut(&mut self.student, teacher, !on),
        }
    }

    /// How the run stands and what happened since the last call.
    #[wasm_bindgen(unchecked_return_type = "Metrics")]
    pub fn metrics(&mut self) -> JsValue {
        let share = self.share.as_ref().map(Share::report);
        self.reporter.take(&mut self.student, share)
    }

    /// The greedy action for an observation's plain numbers: a number for a choice, an array of them for several, a `Float32Array`
    /// for a continuous one.
    pub fn act(&mut self, observation: &[f64]) -> Result<JsValue, JsValue> {
        self.flatten(observation)?;
        Ok(match self.student.trainer().greedy(&self.row).map_err(CoreError::from)? {
            Action::Continuous(values) => js_sys::Float32Array::from(values).into(),
            Action::Discrete(index) => {
                let mut numbers = Vec::new();
                self.action.combination(index, &mut numbers);
                match self.action {
                    SpaceTree::Discrete { .. } => numbers[0].into(),
                    _ => numbers.into_iter().map(JsValue::from).collect::<Array>().into(),
                }
            }
        })
    }

    /// Plays greedy episodes in the evaluation environment; an evaluation.
    #[wasm_bindgen(unchecked_return_type = "Evaluation")]
    pub fn evaluate(&mut self, episodes: u32) -> Result<JsValue, JsValue> {
        self.reporter.collect(&mut self.student);
        self.student.evaluate(episodes).map_err(CoreError::from)?;
        let line = self.reporter.collect(&mut self.student);
        Ok(values::give(&line))
    }

    /// The seed for the first episode of the page's own evaluation, if it is the student's first.
    pub fn evaluation_seed(&self) -> Option<f64> {
        self.student.evaluation_seed().map(|seed| seed as f64)
    }

    /// Takes the returns of greedy episodes that the page played on its own account; an evaluation.
    #[wasm_bindgen(unchecked_return_type = "Evaluation")]
    pub fn record_evaluation(&mut self, returns: &[f64]) -> Result<JsValue, JsValue> {
        self.reporter.collect(&mut self.student);
        self.student.record_evaluation(returns).map_err(CoreError::from)?;
        let line = self.reporter.collect(&mut self.student);
        Ok(values::give(&line))
    }

    /// Greedy play to look at, in an environment of its own: with a seed the first moment of the seed's episode, which the
    /// policy of this moment plays to its end, without one the next step; a [`Scene`](oto_agent::watch::Scene).
    #[wasm_bindgen(unchecked_return_type = "Scene")]
    pub fn watch(&mut self, seed: Option<f64>) -> Result<JsValue, JsValue> {
        if let Some(seed) = seed {
            let Some(id) = &self.built_in else {
                let message = "is the page's own: play its episodes with act()".into();
                return Err(CoreError::config("env", message).into());
            };
            let watch = Watch::begin(id, seed as u64, self.student.trainer());
            self.watch = Some(watch.map_err(TrainError::from).map_err(CoreError::from)?);
        } else {
            let missing = "is missing: the first call of watch() begins an episode by its seed";
            let watch = self.watch.as_mut().ok_or_else(|| CoreError::config("seed", missing.into()))?;
            watch.step().map_err(CoreError::from)?;
        }
        Ok(values::give(&self.watch.as_ref().map(Watch::scene)))
    }

    /// Whether updates are on their way: what they bring comes with the worker's other events.
    pub fn learning(&mut self) -> bool {
        self.student.trainer().learner().engine_mut().behind() > 0
    }

    /// Brings home what a device holds; true once [`Self::save`] has all it needs.
    pub fn sync(&mut self) -> Result<bool, JsValue> {
        let synced = self.student.trainer().learner().sync();
        Ok(synced.map_err(TrainError::from).map_err(CoreError::from)?)
    }

    /// The run as a safetensors file: with the replay buffer to go on exactly here, without it to act and learn anew.
    pub fn save(&self, with_replay: bool) -> Result<Vec<u8>, JsValue> {
        Ok(self.student.save(with_replay).map_err(CoreError::from)?)
    }

    /// Goes on from a file of [`Self::save`].
    pub fn load(&mut self, file: &[u8]) -> Result<(), JsValue> {
        // The file's evaluations go on elsewhere in their row of episodes.
        self.reporter.baselines = None;
        Ok(self.student.load(file, host::now_ms()).map_err(CoreError::while_loading)?)
    }
}

#[cfg(feature = "all")]
impl StudentCore {
    fn mix_dataset(&mut self, hdf5: Vec<u8>, metadata: Option<&str>) -> Result<(), CoreError> {
        if self.share.is_some() {
            let message = "cannot stand beside share: a shared agent learns from rollouts";
            return Err(CoreError::config("dataset", message.into()));
        }
        let unusable =
            |error: oto_data::DataError| CoreError::config("dataset", format!("cannot be used: {error}"));
        let parts = [&self.observation, &self.action];
        let refused =
            |error: SpaceError| CoreError::config("env.action_space", format!("cannot be used: {error}"));
        let (observation, action) = (self.observation.flat(), self.action.action().map_err(refused)?);
        let data = oto_data::read_bytes(hdf5, metadata).map_err(unusable)?;
        let data = data.fitted([&observation, &action], Some(parts)).map_err(unusable)?;
        let trainer = self.student.trainer();
        trainer.mix()?;
        Ok(add_all(&data, |episode| trainer.add(episode))?)
    }
}

impl Linked for Student {
    type Link<'a> = &'a mut Link;

    fn links(&mut self) -> impl Iterator<Item = &mut Link> {
        Student::links(self)
    }

    fn turn(&mut self, now_ms: u64) {
        // Also after the run, when nothing else asks.
        self.submit(now_ms);
    }
}

/// The most bytes of a full replay buffer. WebAssembly reaches four times as much, and a buffer is copied when it grows and when it
/// is saved.
const MAX_REPLAY: u64 = 1 << 30;
/// The most bytes of what a train step is given: parameters, optimiser and batch. It needs some more to compute with.
const MAX_STEP: u64 = 3 << 29;

/// A run that would end for want of memory is refused before it begins.
fn check_memory(program: &Program) -> Result<(), CoreError> {
    let bytes = program.inputs.iter().fold(0u64, |sum, input| sum.saturating_add(4 * input.len() as u64));
    if bytes <= MAX_STEP {
        return Ok(());
    }
    let message = format!(
        "needs {bytes} bytes for networks and batch, expected {MAX_STEP} at most: lower `hidden` or `batch_size`"
    );
    Err(CoreError::config("algorithm", message))
}

/// The same for the replay buffer.
fn check_buffer(replay: &Replay, buffer: usize) -> Result<(), CoreError> {
    let bytes = replay.bytes(true);
    if bytes <= MAX_REPLAY {
        return Ok(());
    }
    let most = MAX_REPLAY / (bytes / buffer as u64).max(1);
    let message = format!(
        "is {buffer}: {most} at most for observations of this size, as a page has {MAX_REPLAY} bytes for them"
    );
    Err(CoreError::config("buffer", message))
}

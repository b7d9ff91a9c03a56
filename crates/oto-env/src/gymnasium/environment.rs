//! A Gymnasium environment as [`Environment`]: requests become frames, answers are checked before they are believed.

use crate::gymnasium::conversation::{BridgeError, Conversation, Limits, Tell, answers};
use crate::{
    Action, ElementError, EnvError, Environment, Phase, Snapshot, Space, SpaceTree, Step, small_seed,
};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// The program that runs there.
const PROGRAM: &str = include_str!("gymnasium_bridge.py");

/// How a process is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The Python that has gymnasium.
    pub python: PathBuf,
    /// How long answers may take.
    pub limits: Limits,
    /// Whether the environment may ease learning: Atari games end with each life and clip their rewards.
    pub training: bool,
    /// The most steps of an evaluation's episode in an environment without a time limit.
    pub longest: u32,
    /// Where lines are told: what the environment prints, and what is worth a line about it.
    pub tell: Tell,
}

/// What the numbers of an image are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// Whole numbers from 0 to 255, which are sent as bytes.
    Byte,
    /// Numbers from 0 to 255.
    Float,
    /// Numbers from 0 to 1.
    Unit,
}

oto_json::json_names! { Pixels { Byte = "byte", Float = "float", Unit = "unit" } }

/// The Python of this process, once somebody said which.
static PYTHON: OnceLock<PathBuf> = OnceLock::new();

/// Makes this the Python of [`Options::default`]: where Python is belongs to the machine, not to a run. Only the first call counts.
pub fn use_python(python: PathBuf) {
    let _ = PYTHON.set(python);
}

/// The time limits of this process, once somebody set them.
static LIMITS: OnceLock<Limits> = OnceLock::new();

/// Makes these the limits of [`Options::default`]. Only the first call counts.
pub fn use_limits(limits: Limits) {
    let _ = LIMITS.set(limits);
}

impl Default for Limits {
    /// Five minutes for the making, a minute for a step.
    fn default() -> Self {
        Self { start: Duration::from_secs(300), answer: Duration::from_secs(60) }
    }
}

impl Default for Options {
    /// The Python of [`use_python`], else `OTO_PYTHON` or `python3`; the limits of [`use_limits`]; for evaluation, whose episodes may
    /// be as long as an Atari game of 108,000 frames; lines go to standard error.
    fn default() -> Self {
        let variable = || {
            std::env::var_os("OTO_PYTHON")
                .filter(|python| !python.is_empty())
                .unwrap_or_else(|| "python3".into())
                .into()
        };
        Self {
            python: PYTHON.get().cloned().unwrap_or_else(variable),
            limits: LIMITS.get().copied().unwrap_or_default(),
            training: false,
            longest: 27_000,
            tell: |line| eprintln!("{line}"),
        }
    }
}

/// An environment in a process of its own.
pub struct Gymnasium {
    id: String,
    about: About,
    /// Flattened observations, and actions as one choice or one vector.
    spaces: [Space; 2],
    conversation: Conversation,
    phase: Phase,
    tell: Tell,
    /// Whether it was told that observations leave their box.
    told: bool,
    /// Whether its episodes are an evaluation's, their limit, the steps of this one, and whether one was cut.
    evaluating: bool,
    longest: u32,
    steps: u32,
    cut: bool,
    /// An observation's and an action's numbers.
    seen: Vec<f64>,
    done: Vec<f64>,
}

/// What the process says of its environment.
struct About {
    observation: SpaceTree,
    action: SpaceTree,
    shape: Vec<usize>,
    pixels: Option<Pixels>,
    max_episode_steps: Option<u32>,
    spec: Option<String>,
}

oto_json::json_object! { About: open { observation, action, shape, pixels, max_episode_steps, spec } }

/// Bytes of a step's answer before the observation: reward, terminated, truncated.
const STEP_HEAD: usize = 10;

impl Gymnasium {
    /// The environment that Gymnasium calls `id`, such as `HalfCheetah-v5` or `ALE/Pong-v5`.
    ///
    /// # Errors
    /// [`BridgeError`], in Python's words where it has some.
    pub fn make(id: &str, options: &Options) -> Result<Self, BridgeError> {
        let mut command = Command::new(&options.python);
        command.args(["-c", PROGRAM]);
        Self::with(command, id, options)
    }

    /// The same with another program that speaks as PROTOCOL.md says.
    ///
    /// # Errors
    /// [`BridgeError`].
    pub fn with(command: Command, id: &str, options: &Options) -> Result<Self, BridgeError> {
        let name = format!("gym:{id}");
        let mut conversation = Conversation::start(command, &name, options.limits, options.tell)?;
        let request = oto_json::Writer::object(|out| {
            out.field("id", id);
            out.field("training", &options.training);
        });
        let answer = conversation.ask(b'M', |to| to.extend_from_slice(request.as_bytes()))?;
        let about = match about(answer) {
            Ok(about) => about,
            Err(got) => return Err(conversation.answered("the description of an environment", got)),
        };
        let action = about.action.action().map_err(|error| BridgeError::Refused(error.to_string()))?;
        Ok(Self {
            id: id.into(),
            spaces: [about.observation.flat(), action],
            seen: Vec::with_capacity(about.observation.numbers()),
            done: Vec::with_capacity(about.action.numbers()),
            about,
            conversation,
            phase: Phase::New,
            tell: options.tell,
            told: false,
            evaluating: false,
            longest: options.longest,
            steps: 0,
            cut: false,
        })
    }

    /// The space of observations before they are flattened.
    pub fn observation_tree(&self) -> &SpaceTree {
        &self.about.observation
    }

    /// The space of actions as Gymnasium has it.
    pub fn action_tree(&self) -> &SpaceTree {
        &self.about.action
    }

    /// The observation's shape before it was made one row; an image's is `[channels, height, width]`, such as `[4, 84, 84]`.
    pub fn shape(&self) -> &[usize] {
        &self.about.shape
    }

    /// What the numbers of observations are, where they are pixels or other bytes.
    pub fn pixels(&self) -> Option<Pixels> {
        self.about.pixels
    }

    /// What `gymnasium.make` needs to make this environment again, as JSON of Gymnasium's `EnvSpec`.
    pub fn spec(&self) -> Option<&str> {
        self.about.spec.as_deref()
    }

    fn check_room(&self, observation: &[f32]) -> Result<(), EnvError> {
        let (expected, got) = (self.spaces[0].width(), observation.len());
        if expected == got { Ok(()) } else { Err(EnvError::ObservationLength { expected, got }) }
    }

    /// Asks, and splits the answer into what is before the observation and the observation, which is written.
    fn ask<const HEAD: usize>(
        &mut self,
        kind: u8,
        write: impl FnOnce(&mut Vec<u8>),
        observation: &mut [f32],
    ) -> Result<[u8; HEAD], BridgeError> {
        let answer = self.conversation.ask(kind, write)?;
        match seen(answer, &self.about, &mut self.seen, observation) {
            Ok(head) => {
                self.look(observation);
                Ok(head)
            }
            Err(Misfit::Element(error)) => Err(error.into()),
            Err(Misfit::Answer { expected, got }) => Err(self.conversation.answered(&expected, got)),
        }
    }

    /// Tells once that an observation lies outside of its declared box. Gymnasium's own check warns, and so do we.
    fn look(&mut self, observation: &[f32]) {
        let byte = self.about.pixels == Some(Pixels::Byte);
        if self.told || byte {
            return;
        }
        if let (Some(column), Space::Box { low, high }) =
            (self.spaces[0].outside(observation), &self.spaces[0])
        {
            self.told = true;
            let (place, got) = (self.about.observation.place_of_column(column), observation[column]);
            (self.tell)(&format!(
                "gym:{}: observation{place} is {got}, its declared range is {} to {}; this is told once",
                self.id, low[column], high[column]
            ));
        }
    }

    /// Cuts an evaluation's episode that neither the environment nor a limit ends.
    fn limited(&mut self, step: Step) -> Step {
        self.steps = self.steps.saturating_add(1);
        let limited = !self.evaluating || self.about.max_episode_steps.is_some();
        if limited || step.done() || self.steps < self.longest {
            return step;
        }
        if !self.cut {
            self.cut = true;
            (self.tell)(&format!(
                "gym:{}: an evaluation's episode had no end after {} steps and was cut; register the environment with \
                 max_episode_steps; this message appears once",
                self.id, self.longest
            ));
        }
        Step { truncated: true, ..step }
    }

    fn outside(&self, error: &BridgeError) -> EnvError {
        EnvError::External(format!("gym:{}: {error}", self.id))
    }
}

/// An answer that cannot be believed.
enum Misfit {
    /// The process does not speak as it should: what was expected and what came.
    Answer { expected: String, got: String },
    /// The environment's observation is none.
    Element(ElementError),
}

/// Splits an answer into what is before the observation and the observation, which is written; `numbers` is room.
fn seen<const HEAD: usize>(
    answer: &[u8],
    about: &About,
    numbers: &mut Vec<f64>,
    observation: &mut [f32],
) -> Result<[u8; HEAD], Misfit> {
    let byte = about.pixels == Some(Pixels::Byte);
    let expected = HEAD + about.observation.numbers() * if byte { 1 } else { size_of::<f64>() };
    let Some((head, seen)) = answer.split_first_chunk().filter(|_| answer.len() == expected) else {
        return Err(Misfit::Answer {
            expected: format!("{expected} bytes"),
            got: format!("{} bytes", answer.len()),
        });
    };
    if byte {
        observation.iter_mut().zip(seen).for_each(|(to, byte)| *to = f32::from(*byte));
        return Ok(*head);
    }
    numbers.clear();
    numbers.extend(seen.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)));
    about.observation.flatten(numbers, observation).map_err(Misfit::Element)?;
    Ok(*head)
}

/// Reads what stands before the observation in a step's answer.
fn outcome([reward @ .., terminated, truncated]: [u8; STEP_HEAD]) -> Result<Step, Misfit> {
    if terminated > 1 || truncated > 1 {
        let got = format!("{terminated} and {truncated} as truths");
        return Err(Misfit::Answer { expected: "0 or 1".into(), got });
    }
    let reward = f64::from_le_bytes(reward);
    Ok(Step { reward, terminated: terminated == 1, truncated: truncated == 1 })
}

/// What must hold of a process's answers whatever its bytes are; `tests/fuzz` calls it, and learns whether a step was believed. What is
/// believed is a space that is one, and numbers that are.
pub(crate) fn fuzz(bytes: &[u8]) -> bool {
    let mut answers = answers(bytes);
    let Some(Ok(about)) = answers.next().map(|(_, answer)| about(&answer)) else { return false };
    assert!(about.observation.flat().validate().is_ok());
    if let Ok(action) = about.action.action() {
        assert!(action.validate().is_ok());
    }
    let mut observation = vec![0.0; about.observation.width()];
    let (mut numbers, mut stepped) = (Vec::new(), false);
    for (kind, answer) in answers {
        if kind == b'R' && seen::<0>(&answer, &about, &mut numbers, &mut observation).is_ok() {
            assert!(observation.iter().all(|x| x.is_finite()));
        }
        if kind == b'S'
            && let Ok(head) = seen(&answer, &about, &mut numbers, &mut observation)
            && outcome(head).is_ok()
        {
            assert!(observation.iter().all(|x| x.is_finite()));
            stepped = true;
        }
    }
    stepped
}

/// Reads a description; an error says what came instead.
fn about(answer: &[u8]) -> Result<About, String> {
    let text = std::str::from_utf8(answer).map_err(|e| format!("no text ({e})"))?;
    let about: About = oto_json::read(text).map_err(|e| format!("JSON that does not fit ({e})"))?;
    for (which, space) in [("observation", &about.observation), ("action", &about.action)] {
        space.validate().map_err(|e| format!("a space of {which}s that is none ({e})"))?;
    }
    let shaped = matches!(about.observation, SpaceTree::Box { .. });
    let product = about.shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    match !shaped || product == Some(about.observation.width()) {
        true if shaped || about.pixels.is_none() => Ok(about),
        true => Err("pixels that are no box".into()),
        false => Err(format!("the shape {:?} for {} numbers", about.shape, about.observation.width())),
    }
}

impl Environment for Gymnasium {
    fn id(&self) -> &str {
        &self.id
    }

    fn observation_space(&self) -> &Space {
        &self.spaces[0]
    }

    fn action_space(&self) -> &Space {
        &self.spaces[1]
    }

    fn max_episode_steps(&self) -> Option<u32> {
        self.about.max_episode_steps
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError> {
        self.check_room(observation)?;
        self.phase = Phase::Ended;
        self.steps = 0;
        let seed = seed.map(small_seed);
        let write = |to: &mut Vec<u8>| to.extend(seed.iter().flat_map(|seed| seed.to_le_bytes()));
        let [] = self.ask(b'R', write, observation).map_err(|error| self.outside(&error))?;
        self.phase = Phase::Running;
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Result<Step, EnvError> {
        match self.phase {
            Phase::New => return Err(EnvError::NotReset),
            Phase::Ended => return Err(EnvError::EpisodeOver),
            Phase::Running => {}
        }
        self.check_room(observation)?;
        self.spaces[1].check_action(action)?;
        // Nobody knows where an environment stands that failed: it is to be reset.
        self.phase = Phase::Ended;
        let mut numbers = std::mem::take(&mut self.done);
        match action {
            Action::Discrete(choice) => self.about.action.combination(choice, &mut numbers),
            Action::Continuous(vector) => {
                numbers.clear();
                numbers.extend(vector.iter().map(|x| f64::from(*x)));
            }
        }
        let write = |to: &mut Vec<u8>| to.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
        let answer = self.ask(b'S', write, observation);
        self.done = numbers;
        let head: [u8; STEP_HEAD] = answer.map_err(|error| self.outside(&error))?;
        let step = match outcome(head) {
            Ok(step) if step.reward.is_finite() => step,
            Ok(step) => return Err(self.outside(&BridgeError::Reward(step.reward))),
            Err(Misfit::Answer { expected, got }) => {
                let error = self.conversation.answered(&expected, got);
                return Err(self.outside(&error));
            }
            Err(Misfit::Element(error)) => return Err(self.outside(&error.into())),
        };
        let step = self.limited(step);
        if !step.done() {
            self.phase = Phase::Running;
        }
        Ok(step)
    }

    fn evaluate(&mut self, on: bool) {
        self.evaluating = on;
    }

    fn save(&self) -> Result<Snapshot, EnvError> {
        Err(EnvError::NotSaved { id: self.id.clone() })
    }

    fn restore(&mut self, _snapshot: &Snapshot) -> Result<(), EnvError> {
        Err(EnvError::NotSaved { id: self.id.clone() })
    }
}

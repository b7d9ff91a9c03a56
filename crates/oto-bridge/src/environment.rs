//! A Gymnasium environment as [`Environment`]: requests become frames, answers are checked before they are believed.

use crate::conversation::{BridgeError, Conversation, answers};
use oto_env::{Action, EnvError, Environment, Phase, Snapshot, Space, Step};
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
    /// How long an answer may take, the making of the environment included.
    pub limit: Duration,
    /// Whether the environment may ease learning: Atari games end with each life and clip their rewards.
    pub training: bool,
}

/// The Python of this process, once somebody said which.
static PYTHON: OnceLock<PathBuf> = OnceLock::new();

/// Makes this the Python of [`Options::default`]: where Python is belongs to the machine, not to a run. Only the first call counts.
pub fn use_python(python: PathBuf) {
    let _ = PYTHON.set(python);
}

impl Default for Options {
    /// The Python of [`use_python`], else `OTO_PYTHON` or `python3`; a minute; for evaluation.
    fn default() -> Self {
        let variable = || {
            std::env::var_os("OTO_PYTHON")
                .filter(|python| !python.is_empty())
                .unwrap_or_else(|| "python3".into())
                .into()
        };
        Self {
            python: PYTHON.get().cloned().unwrap_or_else(variable),
            limit: Duration::from_secs(60),
            training: false,
        }
    }
}

/// An environment in a process of its own.
pub struct Gymnasium {
    id: String,
    about: About,
    conversation: Conversation,
    phase: Phase,
}

/// What the process says of its environment.
struct About {
    observation: Space,
    action: Space,
    shape: Vec<usize>,
    bytes: bool,
    max_episode_steps: Option<u32>,
}

oto_json::json_object! { About: open { observation, action, shape, bytes, max_episode_steps } }

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
        let mut conversation = Conversation::start(command, options.limit)?;
        let request = oto_json::Writer::object(|out| {
            out.field("id", id);
            out.field("training", &options.training);
        });
        let answer = conversation.ask(b'M', |to| to.extend_from_slice(request.as_bytes()))?;
        let about = about(answer);
        match about {
            Ok(about) => Ok(Self { id: id.into(), about, conversation, phase: Phase::New }),
            Err(got) => Err(conversation.answered("the description of an environment", got)),
        }
    }

    /// The observation's shape before it was made one row, such as `[4, 84, 84]`.
    pub fn shape(&self) -> &[usize] {
        &self.about.shape
    }

    /// Whether observations are whole numbers from 0 to 255.
    pub fn bytes(&self) -> bool {
        self.about.bytes
    }

    fn check_room(&self, observation: &[f32]) -> Result<(), EnvError> {
        let (expected, got) = (self.about.observation.width(), observation.len());
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
        let seen = seen(answer, self.about.bytes, observation);
        seen.map_err(|Misfit { expected, got }| self.conversation.answered(&expected, got))
    }
}

/// An answer that cannot be believed: what was expected and what came.
struct Misfit {
    expected: String,
    got: String,
}

/// Splits an answer into what is before the observation and the observation, which is written.
fn seen<const HEAD: usize>(
    answer: &[u8],
    bytes: bool,
    observation: &mut [f32],
) -> Result<[u8; HEAD], Misfit> {
    let expected = HEAD + observation.len() * if bytes { 1 } else { size_of::<f32>() };
    let Some((head, seen)) = answer.split_first_chunk().filter(|_| answer.len() == expected) else {
        return Err(Misfit { expected: format!("{expected} bytes"), got: format!("{} bytes", answer.len()) });
    };
    if bytes {
        observation.iter_mut().zip(seen).for_each(|(to, byte)| *to = f32::from(*byte));
        return Ok(*head);
    }
    let (numbers, _) = seen.as_chunks::<4>();
    observation.iter_mut().zip(numbers).for_each(|(to, from)| *to = f32::from_le_bytes(*from));
    match observation.iter().position(|x| !x.is_finite()) {
        None => Ok(*head),
        Some(index) => {
            let got = format!("{} as number {index} of the observation", observation[index]);
            Err(Misfit { expected: "finite numbers".into(), got })
        }
    }
}

/// Reads what stands before the observation in a step's answer.
fn outcome([reward @ .., terminated, truncated]: [u8; STEP_HEAD]) -> Result<Step, Misfit> {
    let reward = f64::from_le_bytes(reward);
    if !reward.is_finite() || terminated > 1 || truncated > 1 {
        let got = format!("{reward} as the reward, {terminated} and {truncated} as truths");
        return Err(Misfit { expected: "a finite number, and 0 or 1".into(), got });
    }
    Ok(Step { reward, terminated: terminated == 1, truncated: truncated == 1 })
}

/// What must hold of a process's answers whatever its bytes are; `oto-fuzz` asks it, and is told whether a step was believed. What is
/// believed is a space that is one, and numbers that are.
pub(crate) fn fuzz(bytes: &[u8]) -> bool {
    let mut answers = answers(bytes);
    let Some(Ok(about)) = answers.next().map(|(_, answer)| about(&answer)) else { return false };
    assert!(about.observation.validate().is_ok() && about.action.validate().is_ok());
    let mut observation = vec![0.0; about.observation.width()];
    let mut stepped = false;
    for (kind, answer) in answers {
        if kind == b'R' && seen::<0>(&answer, about.bytes, &mut observation).is_ok() {
            assert!(observation.iter().all(|x| x.is_finite()));
        }
        if kind == b'S'
            && let Ok(head) = seen(&answer, about.bytes, &mut observation)
            && let Ok(step) = outcome(head)
        {
            assert!(step.reward.is_finite() && observation.iter().all(|x| x.is_finite()));
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
    let product = about.shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    match product == Some(about.observation.width()) {
        true => Ok(about),
        false => Err(format!("the shape {:?} for {} numbers", about.shape, about.observation.width())),
    }
}

fn outside(error: BridgeError) -> EnvError {
    EnvError::External(error.to_string())
}

impl Environment for Gymnasium {
    fn id(&self) -> &str {
        &self.id
    }

    fn observation_space(&self) -> &Space {
        &self.about.observation
    }

    fn action_space(&self) -> &Space {
        &self.about.action
    }

    fn max_episode_steps(&self) -> Option<u32> {
        self.about.max_episode_steps
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError> {
        self.check_room(observation)?;
        self.phase = Phase::Ended;
        let write = |to: &mut Vec<u8>| to.extend(seed.iter().flat_map(|seed| seed.to_le_bytes()));
        let [] = self.ask(b'R', write, observation).map_err(outside)?;
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
        self.about.action.check_action(action)?;
        // Nobody knows where an environment stands that failed: it is to be reset.
        self.phase = Phase::Ended;
        let write = |to: &mut Vec<u8>| match action {
            Action::Discrete(choice) => to.extend_from_slice(&choice.to_le_bytes()),
            Action::Continuous(vector) => to.extend(vector.iter().flat_map(|x| x.to_le_bytes())),
        };
        let head: [u8; STEP_HEAD] = self.ask(b'S', write, observation).map_err(outside)?;
        let step = outcome(head)
            .map_err(|Misfit { expected, got }| outside(self.conversation.answered(&expected, got)))?;
        if !step.done() {
            self.phase = Phase::Running;
        }
        Ok(step)
    }

    fn save(&self) -> Result<Snapshot, EnvError> {
        Err(EnvError::NotSaved { id: self.id.clone() })
    }

    fn restore(&mut self, _snapshot: &Snapshot) -> Result<(), EnvError> {
        Err(EnvError::NotSaved { id: self.id.clone() })
    }
}

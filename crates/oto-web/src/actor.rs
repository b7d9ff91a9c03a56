//! The class that an actor's worker drives (`web/student/src/worker-actor.ts`): one actor, its link, its clock, and a built-in environment
//! where it acts in one.

use crate::config::{EnvConfig, unread};
use crate::error::{CoreError, Kind};
use crate::host;
use crate::sockets::{Linked, Sockets};
use crate::values;
use js_sys::Function;
use oto_agent::actor::Edge;
use oto_agent::actor::control::faulty;
use oto_agent::actor::edge::StepError;
use oto_agent::actor::link::ActorLink;
use oto_agent::actor::run::{ActorSettings, RunError};
use oto_agent::link::line::{Line, LineConfig, LineError, Lined};
use oto_env::{Action, ClassicEnvironment, EnvError, SpaceTree, Step, make_classic};
use oto_json::{At, Failure, FromJson, Json, object_tree};
use oto_proto::Flags;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = "\
import type { EnvironmentRequest } from '../src/environment.js';
import type { ActorConfig } from '../src/actor-options.js';
import type { ActorMetrics } from '../src/actor-settings.js';
import type { Spaces } from '../src/protocol.js';
import type { Scene } from '../src/scene.js';
";

/// What the page gives (`web/student/src/actor-options.ts`).
struct Given {
    actor: ActorSettings,
    cloud: String,
    policy: String,
    env: EnvConfig,
}

impl FromJson for Given {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let fields = at.fields()?;
        fields.only(&["actor", "cloud", "policy", "env"])?;
        let (actor, cloud) = (fields.get("actor")?, fields.get("cloud")?);
        Ok(Self { actor, cloud, policy: fields.get("policy")?, env: fields.get("env")? })
    }
}

/// A built-in environment in which the actor acts here.
struct BuiltIn {
    env: Box<dyn ClassicEnvironment>,
    /// The seed of its first episode.
    seed: Option<u64>,
    /// Steps of this episode, its last reward, and its return.
    steps: u32,
    reward: f64,
    score: f64,
    over: bool,
    /// The last action, in the environment's units.
    action: Vec<f32>,
}

impl BuiltIn {
    fn new(id: &str, seed: u64) -> Result<Self, CoreError> {
        let env =
            make_classic(id).map_err(|error| CoreError::config("env", format!("cannot be made: {error}")))?;
        Ok(Self { env, seed: Some(seed), steps: 0, reward: 0.0, score: 0.0, over: false, action: Vec::new() })
    }

    fn reset(&mut self, row: &mut [f32], evaluates: bool) -> Result<(), EnvError> {
        self.env.evaluate(evaluates);
        self.env.reset(self.seed.take(), row)?;
        (self.steps, self.reward, self.score, self.over) = (0, 0.0, 0.0, false);
        self.action.clear();
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, row: &mut [f32]) -> Result<Step, EnvError> {
        self.action.clear();
        match action {
            Action::Discrete(choice) => self.action.push(choice as f32),
            Action::Continuous(components) => self.action.extend_from_slice(components),
        }
        let step = self.env.step(action, row)?;
        self.steps += 1;
        (self.reward, self.over) = (step.reward, step.done());
        self.score += step.reward;
        Ok(step)
    }
}

/// The link behind its line.
struct Wire {
    edge: Edge,
    line: Line,
}

impl Linked for Wire {
    type Link<'a> = Lined<'a, ActorLink>;

    fn links(&mut self) -> impl Iterator<Item = Self::Link<'_>> {
        std::iter::once(self.line.of(self.edge.link()))
    }

    fn turn(&mut self, _: u64) {}
}

/// One actor of a page. Objects have the page's spelling, see [`values`].
#[wasm_bindgen]
pub struct ActorCore {
    wire: Wire,
    sockets: Sockets,
    spaces: Json,
    built_in: Option<BuiltIn>,
    observation: SpaceTree,
    action: SpaceTree,
    /// An observation as the actor sees it.
    row: Vec<f32>,
    /// Why the learner refused for good.
    refused: Option<String>,
}

#[wasm_bindgen]
impl ActorCore {
    /// Makes an actor from its configuration. `ticket` is the address of its tickets, or `null`. `wake` is called when
    /// [`Self::serve_links`] is due.
    pub fn create(
        #[wasm_bindgen(unchecked_param_type = "ActorConfig")] config: JsValue,
        ticket: Option<String>,
        #[wasm_bindgen(unchecked_param_type = "() => void")] wake: Function,
    ) -> Result<ActorCore, JsValue> {
        host::report_panics();
        let config = values::take(config).map_err(unread)?;
        Ok(Self::read(&config, ticket, wake)?)
    }

    fn read(config: &Json, ticket: Option<String>, wake: Function) -> Result<ActorCore, CoreError> {
        let Given { actor, cloud, policy, env } = oto_json::from_tree(config).map_err(unread)?;
        let (flat, flat_action) = env.spaces()?;
        let seed = actor.seed;
        let run = actor.run(&policy, &flat, &flat_action)?;
        let mut edge = Edge::new(run, host::random(), now())?;
        edge.link().connect(host::now_ms());
        let spaces = object_tree(|out| {
            out.field("observation_space", &flat);
            out.field("action_space", &flat_action);
        });
        let row = vec![0.0; flat.width()];
        let (built_in, observation, action) = match env {
            EnvConfig::BuiltIn(id) => (Some(BuiltIn::new(&id, seed)?), flat.into(), flat_action.into()),
            EnvConfig::Page { observation, action, .. } => (None, observation, action),
        };
        Ok(Self {
            wire: Wire { edge, line: Line::default() },
            sockets: Sockets::new(vec![cloud], vec![ticket], wake),
            spaces,
            built_in,
            observation,
            action,
            row,
            refused: None,
        })
    }

    /// The spaces of a built-in environment.
    #[wasm_bindgen(unchecked_return_type = "Spaces")]
    pub fn spaces(&self) -> JsValue {
        values::give_tree(&self.spaces)
    }

    /// Milliseconds until the next step is due, 0 and below if it is due now. Nothing while the learner is to make updates first.
    pub fn due(&self) -> Option<f64> {
        let control = self.wire.edge.control();
        if control.is_ahead() {
            return None;
        }
        let deadline = control.deadline().filter(|_| control.runs());
        Some(deadline.map_or(0.0, |deadline| deadline as f64 / 1e6 - host::now()))
    }

    /// Makes the step that is due, or begins an episode. True: the page's environment is needed for it.
    pub fn step(&mut self) -> Result<bool, JsValue> {
        Ok(self.try_step()?)
    }

    fn try_step(&mut self) -> Result<bool, CoreError> {
        let Self { wire: Wire { edge, .. }, built_in, row, .. } = self;
        let begun = edge.control().runs();
        let Some(built_in) = built_in else {
            if begun && !edge.waits() {
                edge.act(now())?;
            }
            return Ok(true);
        };
        if begun {
            let action = edge.act(now())?;
            let step = built_in.step(action, row)?;
            edge.stepped(step, faulty(&*built_in.env), row, now())?;
        } else {
            built_in.reset(row, edge.control().evaluates())?;
            edge.begin(row, now())?;
        }
        Ok(false)
    }

    /// What [`Self::step`] asked of the page's environment, as the student does.
    #[wasm_bindgen(unchecked_return_type = "EnvironmentRequest")]
    pub fn environment_request(&mut self) -> JsValue {
        let Self { wire: Wire { edge, .. }, action, .. } = self;
        values::give_tree(&object_tree(|out| {
            if !edge.waits() {
                return out.field("kind", "reset");
            }
            out.field("kind", "step");
            match edge.action() {
                Action::Continuous(values) => out.field("action", &values.to_vec()),
                Action::Discrete(index) => {
                    let mut numbers = Vec::new();
                    action.combination(index, &mut numbers);
                    match action {
                        SpaceTree::Discrete { .. } => out.field("action", &numbers[0]),
                        _ => out.field("action", &numbers),
                    }
                }
            }
        }))
    }

    /// The answer of the page's environment to a reset or a step: the observation's plain numbers, and after a step the rest.
    pub fn environment_answer(
        &mut self,
        observation: &[f64],
        reward: f64,
        terminated: bool,
        truncated: bool,
    ) -> Result<(), JsValue> {
        self.observation.flatten(observation, &mut self.row).map_err(CoreError::from)?;
        let Self { wire: Wire { edge, .. }, row, .. } = self;
        let answered = match edge.waits() {
            true => edge.stepped(Step { reward, terminated, truncated }, Flags::NONE, row, now()).map(|_| ()),
            false => edge.begin(row, now()),
        };
        Ok(answered.map_err(CoreError::from)?)
    }

    /// Ends the episode here: cut off, or without an end where the environment owes an answer.
    pub fn cut(&mut self) -> Result<(), JsValue> {
        Ok(self.wire.edge.cut().map_err(CoreError::from)?)
    }

    /// The deadlines begin anew, after a pause that was meant.
    pub fn resume(&mut self) {
        self.wire.edge.resume(now());
    }

    /// Steps so far.
    pub fn steps(&self) -> f64 {
        self.wire.edge.control().steps() as f64
    }

    /// Tells the link what its connection reports and that time has passed, carries out what it wants, and takes new weights over. An error
    /// says once why the learner refused for good.
    pub fn serve_links(&mut self) -> Result<(), JsValue> {
        self.sockets.serve(&mut self.wire);
        match self.wire.edge.exchange() {
            Err(reason) if self.refused.is_none() => {
                self.refused = Some(reason.clone());
                let message = format!("the learner refused: {reason}");
                Err(CoreError { kind: Kind::Learner, message, field: None }.into())
            }
            _ => Ok(()),
        }
    }

    /// Cuts the wire to the learner, or mends it.
    pub fn connect(&mut self, on: bool) {
        self.sockets.cut(&mut self.wire, None, !on);
    }

    /// Sets the delay of messages in milliseconds and the bytes a second, both ways.
    pub fn set_line(&mut self, delay_ms: f64, bytes_per_second: f64) -> Result<(), JsValue> {
        Ok(self.wire.line.set(LineConfig { delay_ms, bytes_per_second }).map_err(CoreError::from)?)
    }

    /// Says goodbye to the learner.
    pub fn disconnect(&mut self) {
        self.wire.edge.link().disconnect();
        self.sockets.serve(&mut self.wire);
    }

    /// The newest network as a policy's file; nothing while there are no weights.
    pub fn policy(&self) -> Option<Vec<u8>> {
        let name = self.built_in.as_ref().map_or("", |built_in| built_in.env.id());
        self.wire.edge.policy(name)
    }

    /// How the actor stands.
    #[wasm_bindgen(unchecked_return_type = "ActorMetrics")]
    pub fn metrics(&mut self) -> JsValue {
        values::give(&self.wire.edge.report().metrics())
    }

    /// The present moment in a built-in environment.
    #[wasm_bindgen(unchecked_return_type = "Scene")]
    pub fn scene(&mut self) -> Result<JsValue, JsValue> {
        let BuiltIn { env, steps, reward, score, over, action, .. } = self.built_in("scene()")?;
        Ok(values::give_tree(&object_tree(|out| {
            out.field("state", &env.state().to_vec());
            out.field("step", steps);
            out.field("limit", &env.max_episode_steps());
            out.field("trained", &None::<u64>);
            out.field("action", action);
            out.field("reward", reward);
            out.field("return", score);
            out.field("over", over);
            out.field("map", &None::<u64>);
        })))
    }

    /// Adds numbers to the state of a built-in environment. Nothing happens between two episodes.
    pub fn disturb(&mut self, change: &[f64]) -> Result<(), JsValue> {
        let runs = self.wire.edge.control().runs();
        let BuiltIn { env, steps, .. } = self.built_in("disturb()")?;
        let expected = env.state().len();
        if change.len() > expected || change.iter().any(|x| !x.is_finite()) {
            let message = format!(
                "is {change:?}: expected at most {expected} finite numbers, the changes of the state"
            );
            return Err(CoreError::config("change", message).into());
        }
        if !runs {
            return Ok(());
        }
        let mut state = env.state().to_vec();
        state.iter_mut().zip(change).for_each(|(state, change)| *state += change);
        Ok(env.set_state(&state, *steps).map_err(CoreError::from)?)
    }

    /// Replaces the built-in environment by another one of the same spaces; the episode ends.
    pub fn set_environment(&mut self, id: &str) -> Result<(), JsValue> {
        let seed = self.wire.edge.control().steps();
        let new = BuiltIn::new(id, seed)?;
        let old = self.built_in("setEnvironment()")?;
        let same = old.env.observation_space() == new.env.observation_space()
            && old.env.action_space() == new.env.action_space();
        if !same {
            let message = format!("is {id:?}: expected an environment with the spaces of {:?}", old.env.id());
            return Err(CoreError::config("env", message).into());
        }
        *old = new;
        Ok(self.wire.edge.cut().map_err(CoreError::from)?)
    }

    fn built_in(&mut self, call: &str) -> Result<&mut BuiltIn, CoreError> {
        let message = format!("is the page's own: {call} is for built-in environments");
        self.built_in.as_mut().ok_or_else(|| CoreError::config("env", message))
    }
}

/// Nanoseconds of the worker's clock.
fn now() -> u64 {
    (host::now() * 1e6) as u64
}

impl From<StepError> for CoreError {
    fn from(error: StepError) -> Self {
        let kind = match error {
            StepError::Width { .. } | StepError::Row(_) => Kind::Environment,
            StepError::NotBegun | StepError::Order(_) => Kind::Worker,
        };
        Self { kind, message: error.to_string(), field: None }
    }
}

impl From<EnvError> for CoreError {
    fn from(error: EnvError) -> Self {
        Self { kind: Kind::Environment, message: error.to_string(), field: None }
    }
}

impl From<RunError> for CoreError {
    fn from(error: RunError) -> Self {
        let field = match error {
            RunError::Safe(_) => "safe_action",
            RunError::Frequency(_) => "hz",
            RunError::Hello(_) => "policy",
        };
        Self::config(field, format!("cannot be used: {error}"))
    }
}

impl From<LineError> for CoreError {
    fn from(error: LineError) -> Self {
        let field = match error {
            LineError::Delay(_) => "delay",
            LineError::Bandwidth(_) => "bandwidth",
        };
        Self::config(field, format!("cannot be used: {error}"))
    }
}

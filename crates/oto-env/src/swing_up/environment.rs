//! The environment: state, episode, save and restore.

use super::plant::{self, LENGTH, READING, motion_of};
use super::rule::{self, IDEAL, Motion, wrapped};
use super::{Options, SUCCESS_STEPS_ON_TARGET, TRAINING_STEPS_ON_TARGET};
use crate::environment::check_state;
use crate::rng::Rng;
use crate::{Action, ClassicEnvironment, EnvError, Environment, Phase, Snapshot, Space, Step};
use std::f64::consts::PI;

/// Actions in an observation.
const ACTIONS: usize = 5;
/// Place of the steps on target in the state, after the motion.
const ON_TARGET: usize = 4;
/// Place of the last actions, oldest first.
const HISTORY: usize = 5;

/// Start of a training episode near upright: half the track, and the angle's standard deviation.
const UPRIGHT_TRACK: f64 = 0.5;
const UPRIGHT_ANGLE: f64 = 0.2;

/// The simulation or the plant.
///
/// State: the four numbers of the motion, the consecutive steps on target, the last actions (five, or as many as the delay where it is
/// longer), and the plant's part.
pub struct SwingUp {
    id: String,
    options: Options,
    observation_space: Space,
    action_space: Space,
    state: Vec<f64>,
    /// The state that a step computes, until it is known to be finite.
    next: Vec<f64>,
    /// The last actions in the state.
    history: std::ops::Range<usize>,
    elapsed_steps: u32,
    phase: Phase,
    evaluating: bool,
    rng: Rng,
}

impl SwingUp {
    /// An environment, not yet reset.
    ///
    /// # Errors
    /// [`EnvError::UnknownId`] for an ID of another environment, [`EnvError::Option`] for a wrong option.
    pub fn new(id: &str) -> Result<Self, EnvError> {
        let options = super::options(id).ok_or_else(|| crate::registry::unknown(id))??;
        Ok(Self::with(id.into(), options))
    }

    /// An environment of these options, under this ID.
    pub fn with(id: String, options: Options) -> Self {
        let mut high = vec![f32::INFINITY, f32::INFINITY, 1.0, 1.0, f32::INFINITY];
        high.extend([1.0; ACTIONS]);
        let history = HISTORY..HISTORY + ACTIONS.max(options.config.delay as usize);
        let length = history.end + if options.plant.is_some() { LENGTH } else { 0 };
        Self {
            id,
            options,
            observation_space: Space::Box { low: high.iter().map(|bound| -bound).collect(), high },
            action_space: Space::uniform(1, -1.0, 1.0),
            state: vec![0.0; length],
            next: vec![0.0; length],
            history,
            elapsed_steps: 0,
            phase: Phase::New,
            evaluating: false,
            rng: Rng::new(0),
        }
    }

    /// Its options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Consecutive steps on target.
    pub fn on_target(&self) -> f64 {
        self.state[ON_TARGET]
    }

    /// Cart position, its velocity, the pole's angle, its velocity: the true ones.
    pub fn motion(&self) -> [f64; 4] {
        motion_of(&self.state)
    }

    /// The same as the agent sees them.
    pub fn seen(&self) -> [f64; 4] {
        seen(&self.state, self.plant_at())
    }

    /// Where the plant's part of the state begins.
    fn plant_at(&self) -> Option<usize> {
        self.options.plant.is_some().then_some(self.history.end)
    }

    /// A step with an action in float64, as the recorded reference has it.
    ///
    /// # Errors
    /// An action that is not finite; a step before `reset` or after the episode's end; [`EnvError::Diverged`].
    pub fn advance(&mut self, action: f64) -> Result<Step, EnvError> {
        self.check_running()?;
        if !action.is_finite() {
            return Err(EnvError::ActionNotFinite { index: 0, value: action as f32 });
        }
        let mut rng = self.rng.clone();
        self.next.copy_from_slice(&self.state);
        let step = self.compute(action.clamp(-1.0, 1.0), &mut rng);
        if !(step.reward.is_finite() && self.next.iter().all(|number| number.is_finite())) {
            return Err(EnvError::Diverged { id: self.id.clone() });
        }
        std::mem::swap(&mut self.state, &mut self.next);
        self.rng = rng;
        self.elapsed_steps = self.elapsed_steps.saturating_add(1);
        if step.done() {
            self.phase = Phase::Ended;
        }
        Ok(step)
    }

    fn check_running(&self) -> Result<(), EnvError> {
        match self.phase {
            Phase::New => Err(EnvError::NotReset),
            Phase::Ended => Err(EnvError::EpisodeOver),
            Phase::Running => Ok(()),
        }
    }

    /// Moves the next state on by a step.
    fn compute(&mut self, action: f64, rng: &mut Rng) -> Step {
        let plant_at = self.plant_at();
        let (config, history) = (&self.options.config, self.history.clone());
        let distance = rule::distance(config, &seen(&self.next, plant_at));
        let (state, plant_state) = self.next.split_at_mut(history.end);

        state.copy_within(history.start + 1..history.end, history.start);
        state[history.end - 1] = action;
        // The history begins with zeros, as the delay's queue does.
        let applied = match config.delay as usize {
            0 => action,
            delay => delayed(&self.state[history], delay),
        };
        let motion = motion_of(state);
        let moved = match &self.options.plant {
            None => rule::step(config, &IDEAL, motion, applied)[0],
            Some(plant) => {
                let applied = plant.command(plant_state, applied, rng);
                let [now, middle] = rule::step(config, &plant.drive(), motion, applied);
                plant.sense(config, plant_state, [&now, &middle], rng);
                now
            }
        };
        state[..ON_TARGET].copy_from_slice(&moved);
        state[ON_TARGET] = if distance <= config.d_target { state[ON_TARGET] + 1.0 } else { 0.0 };

        let terminated = rule::terminated(config, &moved);
        let enough = !self.evaluating && state[ON_TARGET] > TRAINING_STEPS_ON_TARGET;
        let truncated = !terminated && (enough || self.elapsed_steps + 1 >= config.max_steps);
        Step { reward: rule::reward(config, distance, action, terminated), terminated, truncated }
    }

    /// The motion at the start of an episode of the simulation.
    fn start(&self, rng: &mut Rng) -> Motion {
        let x_max = self.options.config.x_max;
        let upright = self.options.upright;
        if !self.evaluating && upright > 0.0 && rng.f64() < upright {
            let x = rng.uniform(-UPRIGHT_TRACK, UPRIGHT_TRACK) * x_max;
            return [x, 0.0, wrapped(UPRIGHT_ANGLE * rng.normal()), 0.0];
        }
        let x = rng.uniform(-0.8, 0.8) * x_max;
        [x, 0.0, wrapped(PI + 0.8 * rng.normal()), 0.0]
    }
}

/// The action commanded `delay` steps ago.
fn delayed(history: &[f64], delay: usize) -> f64 {
    history[history.len() - delay]
}

/// The motion as the agent sees it.
fn seen(state: &[f64], plant_at: Option<usize>) -> Motion {
    motion_of(plant_at.map_or(state, |at| &state[at + READING..]))
}

impl Environment for SwingUp {
    fn id(&self) -> &str {
        &self.id
    }

    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn max_episode_steps(&self) -> Option<u32> {
        Some(self.options.config.max_steps)
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError> {
        self.observation_space.check_observation(observation)?;
        let new = self.phase == Phase::New || seed.is_some();
        let mut rng = seed.map_or_else(|| self.rng.clone(), Rng::new);
        let mut motion = self.motion();
        match &self.options.plant {
            None => motion = self.start(&mut rng),
            Some(plant) => {
                let state = &mut self.state[self.history.end..];
                if new {
                    plant.build(&mut motion, state, &mut rng);
                }
                plant.prepare(&self.options.config, &mut motion, state, &mut rng);
            }
        }
        self.state[..ON_TARGET].copy_from_slice(&motion);
        self.state[ON_TARGET..self.history.end].fill(0.0);
        self.rng = rng;
        self.elapsed_steps = 0;
        self.phase = Phase::Running;
        self.observe(observation)
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Result<Step, EnvError> {
        self.check_running()?;
        self.observation_space.check_observation(observation)?;
        self.action_space.check_action(action)?;
        let Action::Continuous(&[action]) = action else {
            return Err(EnvError::ActionKind { expected: "continuous", got: "discrete" });
        };
        let step = self.advance(action.into())?;
        self.observe(observation)?;
        Ok(step)
    }

    fn save(&self) -> Result<Snapshot, EnvError> {
        Ok(Snapshot {
            id: self.id.clone(),
            state: self.state.clone(),
            elapsed_steps: self.elapsed_steps,
            phase: self.phase,
            rng: self.rng.clone(),
        })
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        snapshot.check(&self.id, self.state.len(), self.options.config.max_steps)?;
        self.state.copy_from_slice(&snapshot.state);
        self.elapsed_steps = snapshot.elapsed_steps;
        self.phase = snapshot.phase;
        self.rng = snapshot.rng.clone();
        Ok(())
    }

    fn evaluate(&mut self, on: bool) {
        self.evaluating = on;
    }

    /// `on_target`: consecutive steps on target. `success`: 1 after an episode of full length that ends with enough of them. The plant
    /// also has `faulty` (1: the last step), `frozen_steps`, `wild_steps`, `lost_steps` and `calibrations` (since it was built), and
    /// `reset_steps` (of the last reset).
    fn info(&self, name: &str) -> Option<f64> {
        let of_plant = |index: usize| self.plant_at().map(|at| self.state[at + index]);
        match name {
            "on_target" => Some(self.on_target()),
            "success" => {
                let whole = self.elapsed_steps >= self.options.config.max_steps;
                Some(f64::from(u8::from(whole && self.on_target() >= SUCCESS_STEPS_ON_TARGET)))
            }
            "faulty" => of_plant(plant::FAULTY),
            "frozen_steps" => of_plant(plant::FROZEN_STEPS),
            "wild_steps" => of_plant(plant::WILD_STEPS),
            "lost_steps" => of_plant(plant::LOST_STEPS),
            "reset_steps" => of_plant(plant::RESET_STEPS),
            "calibrations" => of_plant(plant::CALIBRATIONS),
            _ => None,
        }
    }
}

impl ClassicEnvironment for SwingUp {
    fn state(&self) -> &[f64] {
        &self.state
    }

    fn set_state(&mut self, state: &[f64], elapsed_steps: u32) -> Result<(), EnvError> {
        check_state(&self.id, self.state.len(), state)?;
        self.state.copy_from_slice(state);
        self.elapsed_steps = elapsed_steps;
        self.phase = Phase::Running;
        Ok(())
    }

    fn observe(&self, observation: &mut [f32]) -> Result<(), EnvError> {
        self.observation_space.check_observation(observation)?;
        let [x, x_dot, alpha, alpha_dot] = self.seen();
        let numbers = [x, x_dot, alpha.sin(), alpha.cos(), alpha_dot];
        let actions = &self.state[self.history.end - ACTIONS..self.history.end];
        for (to, from) in observation.iter_mut().zip(numbers.iter().chain(actions)) {
            *to = *from as f32;
        }
        Ok(())
    }
}

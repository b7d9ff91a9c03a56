//! The environments' rules. Sources: Gymnasium's `half_cheetah_v5.py`, `hopper_v5.py`, `walker2d_v5.py` and
//! `inverted_pendulum_v5.py`.
//!
//! Initial states are drawn by NumPy's generator as Gymnasium draws them, save HalfCheetah's velocities: normal as there, but not the
//! same numbers.

use crate::mujoco::library::{Files, MujocoError, Simulation, Sizes};
use crate::rng::Rng;
use crate::{Action, EnvError, Environment, Phase, Snapshot, Space, Step};

/// The ids that [`make`] knows.
pub const IDS: [&str; 4] = ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "InvertedPendulum-v5"];

/// All episodes are cut after so many steps.
const MAX_EPISODE_STEPS: u32 = 1000;

/// What one environment has that the others have otherwise.
struct Rules {
    id: &'static str,
    file: &'static str,
    sizes: Sizes,
    /// Steps of time in one of the environment.
    frame_skip: u32,
    /// Controls go from minus this to this.
    limit: f32,
    /// Initial states lie so far around the model's own.
    noise: f64,
    body: Body,
}

/// What is rewarded, and when it is over.
#[derive(Clone, Copy)]
enum Body {
    /// Runs; it is never over.
    Cheetah,
    /// Hops or walks as long as its height, its lean and (hopper) all else stay within these.
    Upright { height: (f64, f64), lean: f64, all: f64 },
    /// Stands on a cart.
    Pole,
}

fn rules(id: &str) -> Option<Rules> {
    let sizes = |positions, controls| Sizes { positions, velocities: positions, controls };
    let upright = |height, lean, all| Body::Upright { height, lean, all };
    let [cheetah, hopper, walker, pole] = IDS;
    let rules = |id, file, sizes, frame_skip, limit, noise, body| {
        Some(Rules { id, file, sizes, frame_skip, limit, noise, body })
    };
    let any = f64::INFINITY;
    match id {
        _ if id == cheetah => rules(cheetah, "half_cheetah.xml", sizes(9, 6), 5, 1.0, 0.1, Body::Cheetah),
        _ if id == hopper => {
            rules(hopper, "hopper.xml", sizes(6, 3), 4, 1.0, 5e-3, upright((0.7, any), 0.2, 100.0))
        }
        _ if id == walker => {
            rules(walker, "walker2d_v5.xml", sizes(9, 6), 4, 1.0, 5e-3, upright((0.8, 2.0), 1.0, any))
        }
        _ if id == pole => rules(pole, "inverted_pendulum.xml", sizes(2, 1), 2, 3.0, 0.01, Body::Pole),
        _ => None,
    }
}

impl Body {
    /// Whether the first position, how far the body has come, is no part of an observation.
    fn hides_place(self) -> bool {
        !matches!(self, Body::Pole)
    }

    /// Velocities are seen up to this.
    fn top_speed(self) -> f64 {
        if matches!(self, Body::Upright { .. }) { 10.0 } else { f64::INFINITY }
    }

    fn healthy(self, state: &[f64]) -> bool {
        match self {
            Body::Cheetah => true,
            Body::Upright { height: (low, high), lean, all } => {
                (low < state[1] && state[1] < high)
                    && state[2].abs() < lean
                    && state[2..].iter().all(|x| x.abs() < all)
            }
            Body::Pole => state[1].abs() <= 0.2,
        }
    }

    fn reward(self, velocity: f64, action: &[f64], healthy: bool) -> f64 {
        let effort = action.iter().map(|a| a * a).sum::<f64>();
        let alive = if healthy { 1.0 } else { 0.0 };
        match self {
            Body::Cheetah => velocity - 0.1 * effort,
            Body::Upright { .. } => velocity + alive - 1e-3 * effort,
            Body::Pole => alive,
        }
    }
}

struct Locomotion {
    rules: Rules,
    simulation: Simulation,
    /// Seconds in a step of the environment.
    seconds: f64,
    /// The model's own state, the present one, and the action, in float64.
    initial: Vec<f64>,
    state: Vec<f64>,
    action: Vec<f64>,
    observation_space: Space,
    action_space: Space,
    elapsed_steps: u32,
    phase: Phase,
    rng: Rng,
}

/// One of [`IDS`], not yet reset.
///
/// # Errors
/// [`EnvError::UnknownId`]; otherwise a [`MujocoError`]'s words.
pub fn make(id: &str, files: &Files) -> Result<Box<dyn Environment>, EnvError> {
    let Some(rules) = rules(id) else {
        return Err(EnvError::UnknownId { id: id.chars().take(64).collect(), known: IDS.join(", ") });
    };
    let outside = |e: MujocoError| EnvError::External(e.to_string());
    let mut simulation = Simulation::new(files, rules.file, rules.sizes).map_err(outside)?;
    let mut initial = vec![0.0; rules.sizes.positions + rules.sizes.velocities];
    simulation.reset();
    simulation.read(&mut initial);
    let action = vec![0.0; rules.sizes.controls];
    // How much time a step takes is asked from the model: by taking one.
    simulation.step(&action, 1);
    let seconds = simulation.time() * f64::from(rules.frame_skip);
    let width = initial.len() - usize::from(rules.body.hides_place());
    Ok(Box::new(Locomotion {
        simulation,
        seconds,
        state: initial.clone(),
        initial,
        observation_space: Space::uniform(width, f32::NEG_INFINITY, f32::INFINITY),
        action_space: Space::uniform(action.len(), -rules.limit, rules.limit),
        action,
        elapsed_steps: 0,
        phase: Phase::New,
        rng: Rng::new(0),
        rules,
    }))
}

impl Locomotion {
    fn check_room(&self, observation: &[f32]) -> Result<(), EnvError> {
        let (expected, got) = (self.observation_space.width(), observation.len());
        if expected == got { Ok(()) } else { Err(EnvError::ObservationLength { expected, got }) }
    }

    fn observe(&self, observation: &mut [f32]) {
        let top = self.rules.body.top_speed();
        let (positions, velocities) = self.state.split_at(self.rules.sizes.positions);
        let positions = &positions[usize::from(self.rules.body.hides_place())..];
        let seen = positions.iter().copied().chain(velocities.iter().map(|v| v.clamp(-top, top)));
        observation.iter_mut().zip(seen).for_each(|(to, x)| *to = x as f32);
    }
}

impl Environment for Locomotion {
    fn id(&self) -> &str {
        self.rules.id
    }

    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn max_episode_steps(&self) -> Option<u32> {
        Some(MAX_EPISODE_STEPS)
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError> {
        self.check_room(observation)?;
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        let Rules { sizes, noise, body, .. } = self.rules;
        for (i, (x, initial)) in self.state.iter_mut().zip(&self.initial).enumerate() {
            let drawn = match body {
                Body::Cheetah if i >= sizes.positions => noise * self.rng.normal(),
                _ => self.rng.uniform(-noise, noise),
            };
            *x = initial + drawn;
        }
        self.simulation.reset();
        self.simulation.write(&self.state);
        self.simulation.forward();
        (self.elapsed_steps, self.phase) = (0, Phase::Running);
        self.observe(observation);
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Result<Step, EnvError> {
        match self.phase {
            Phase::New => return Err(EnvError::NotReset),
            Phase::Ended => return Err(EnvError::EpisodeOver),
            Phase::Running => {}
        }
        self.check_room(observation)?;
        self.action_space.check_action(action)?;
        let Action::Continuous(vector) = action else { unreachable!("the space was just checked") };
        self.action.iter_mut().zip(vector).for_each(|(to, a)| *to = f64::from(*a));
        let before = self.state[0];
        self.simulation.step(&self.action, self.rules.frame_skip);
        self.simulation.read(&mut self.state);
        let healthy = self.rules.body.healthy(&self.state);
        let velocity = (self.state[0] - before) / self.seconds;
        let reward = self.rules.body.reward(velocity, &self.action, healthy);
        self.elapsed_steps += 1;
        if !(reward.is_finite() && self.state.iter().all(|x| (*x as f32).is_finite())) {
            self.phase = Phase::Ended;
            return Err(EnvError::Diverged { id: self.rules.id.into() });
        }
        let step = Step { reward, terminated: !healthy, truncated: self.elapsed_steps >= MAX_EPISODE_STEPS };
        if step.done() {
            self.phase = Phase::Ended;
        }
        self.observe(observation);
        Ok(step)
    }

    fn save(&self) -> Result<Snapshot, EnvError> {
        Ok(Snapshot {
            id: self.rules.id.into(),
            state: self.simulation.save(),
            elapsed_steps: self.elapsed_steps,
            phase: self.phase,
            rng: self.rng.clone(),
        })
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        let refuse = |reason| EnvError::Snapshot { id: self.rules.id.into(), reason };
        if snapshot.id != self.rules.id {
            let other: String = snapshot.id.chars().take(64).collect();
            return Err(refuse(format!("the snapshot is of {other:?}")));
        }
        let (expected, got) = (self.simulation.saved(), snapshot.state.len());
        if expected != got {
            return Err(refuse(format!("its state has {got} numbers, expected {expected}")));
        }
        if let Some(x) = snapshot.state.iter().find(|x| !x.is_finite()) {
            return Err(refuse(format!("{x} in its state, expected finite numbers")));
        }
        if snapshot.phase == Phase::Running && snapshot.elapsed_steps >= MAX_EPISODE_STEPS {
            return Err(refuse(format!("an episode cannot go on after {} steps", snapshot.elapsed_steps)));
        }
        self.simulation.restore(&snapshot.state);
        self.simulation.read(&mut self.state);
        (self.elapsed_steps, self.phase) = (snapshot.elapsed_steps, snapshot.phase);
        self.rng = snapshot.rng.clone();
        Ok(())
    }
}

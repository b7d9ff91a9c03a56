//! What all built-in environments share: checking actions, the time limit, the episode's phase, save and restore. An
//! environment itself is only its [`Dynamics`], one file each.

use crate::environment::check_state;
use crate::rng::Rng;
use crate::{Action, EnvError, Environment, Phase, Snapshot, Space, Step};
use std::marker::PhantomData;

/// An [`Environment`] whose whole state is a short vector of float64 that can be read and set: what a check against
/// recorded trajectories needs.
pub trait ClassicEnvironment: Environment {
    /// The state; each environment's file gives the order.
    fn state(&self) -> &[f64];

    /// Puts the environment into an episode at this state, `elapsed_steps` after its beginning.
    ///
    /// # Errors
    /// [`EnvError::State`] for a wrong length, a number that is not finite or larger than 1e6 in size.
    fn set_state(&mut self, state: &[f64], elapsed_steps: u32) -> Result<(), EnvError>;

    /// Writes the observation of the present state.
    ///
    /// # Errors
    /// [`EnvError::ObservationLength`].
    fn observe(&self, observation: &mut [f32]) -> Result<(), EnvError>;
}

/// One step of an environment.
pub(crate) struct Transition<const N: usize> {
    pub state: [f64; N],
    pub reward: f64,
    pub terminated: bool,
}

/// The rules of one environment as pure functions of its state.
pub(crate) trait Dynamics<const N: usize>: Send {
    fn observation_space() -> Space;
    fn action_space() -> Space;
    /// The generator of a seed.
    fn generator(seed: u64) -> Rng {
        Rng::new(seed)
    }
    fn initial_state(rng: &mut Rng) -> [f64; N];
    /// Draws what a step needs into the state; most environments draw at the beginning of an episode only.
    fn draw(_state: &mut [f64; N], _rng: &mut Rng) {}
    /// `action` is the choice of a discrete space or the one component of a box, finite but not clipped; `first` says that
    /// the episode begins with this step.
    fn step(state: &[f64; N], action: f64, first: bool) -> Transition<N>;
    /// `observation` has the observation space's width.
    fn observe(state: &[f64; N], observation: &mut [f32]);
}

/// A built-in environment: its rules, its state and where it stands in the episode.
pub(crate) struct Classic<D, const N: usize> {
    id: &'static str,
    max_episode_steps: u32,
    observation_space: Space,
    action_space: Space,
    state: [f64; N],
    elapsed_steps: u32,
    phase: Phase,
    rng: Rng,
    dynamics: PhantomData<D>,
}

impl<D: Dynamics<N>, const N: usize> Classic<D, N> {
    pub(crate) fn new(id: &'static str, max_episode_steps: u32) -> Self {
        Self {
            id,
            max_episode_steps,
            observation_space: D::observation_space(),
            action_space: D::action_space(),
            state: [0.0; N],
            elapsed_steps: 0,
            phase: Phase::New,
            rng: D::generator(0),
            dynamics: PhantomData,
        }
    }
}

impl<D: Dynamics<N>, const N: usize> Environment for Classic<D, N> {
    fn id(&self) -> &str {
        self.id
    }

    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn max_episode_steps(&self) -> Option<u32> {
        Some(self.max_episode_steps)
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError> {
        self.observation_space.check_observation(observation)?;
        if let Some(seed) = seed {
            self.rng = D::generator(seed);
        }
        self.state = D::initial_state(&mut self.rng);
        self.elapsed_steps = 0;
        self.phase = Phase::Running;
        D::observe(&self.state, observation);
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Result<Step, EnvError> {
        match self.phase {
            Phase::New => return Err(EnvError::NotReset),
            Phase::Ended => return Err(EnvError::EpisodeOver),
            Phase::Running => {}
        }
        self.observation_space.check_observation(observation)?;
        self.action_space.check_action(action)?;
        let action = match action {
            Action::Discrete(choice) => f64::from(choice),
            Action::Continuous(vector) => f64::from(vector[0]),
        };
        let (mut drawn, mut rng) = (self.state, self.rng.clone());
        D::draw(&mut drawn, &mut rng);
        let Transition { state, reward, terminated } = D::step(&drawn, action, self.elapsed_steps == 0);
        if !(reward.is_finite() && state.iter().all(|component| component.is_finite())) {
            return Err(EnvError::Diverged { id: self.id.into() });
        }
        self.state = state;
        self.rng = rng;
        self.elapsed_steps = self.elapsed_steps.saturating_add(1);
        let step = Step { reward, terminated, truncated: self.elapsed_steps >= self.max_episode_steps };
        if step.done() {
            self.phase = Phase::Ended;
        }
        D::observe(&self.state, observation);
        Ok(step)
    }

    fn save(&self) -> Result<Snapshot, EnvError> {
        Ok(Snapshot {
            id: self.id.into(),
            state: self.state.to_vec(),
            elapsed_steps: self.elapsed_steps,
            phase: self.phase,
            rng: self.rng.clone(),
        })
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        snapshot.check(self.id, N, self.max_episode_steps)?;
        self.state.copy_from_slice(&snapshot.state);
        self.elapsed_steps = snapshot.elapsed_steps;
        self.phase = snapshot.phase;
        self.rng = snapshot.rng.clone();
        Ok(())
    }
}

impl<D: Dynamics<N>, const N: usize> ClassicEnvironment for Classic<D, N> {
    fn state(&self) -> &[f64] {
        &self.state
    }

    fn set_state(&mut self, state: &[f64], elapsed_steps: u32) -> Result<(), EnvError> {
        check_state(self.id, N, state)?;
        self.state.copy_from_slice(state);
        self.elapsed_steps = elapsed_steps;
        self.phase = Phase::Running;
        Ok(())
    }

    fn observe(&self, observation: &mut [f32]) -> Result<(), EnvError> {
        self.observation_space.check_observation(observation)?;
        D::observe(&self.state, observation);
        Ok(())
    }
}

/// Writes a state as it is, rounded to float32.
pub(crate) fn observe_state(state: &[f64], observation: &mut [f32]) {
    for (to, from) in observation.iter_mut().zip(state) {
        *to = *from as f32;
    }
}

/// One step of the classic Runge-Kutta method of fourth order, with the terms in the order NumPy code adds them.
pub(crate) fn runge_kutta<const N: usize>(
    y: &[f64; N],
    step: f64,
    derivative: impl Fn(&[f64; N]) -> [f64; N],
) -> [f64; N] {
    let moved = |by: f64, k: &[f64; N]| std::array::from_fn(|i| y[i] + by * k[i]);
    let k1 = derivative(y);
    let k2 = derivative(&moved(step / 2.0, &k1));
    let k3 = derivative(&moved(step / 2.0, &k2));
    let k4 = derivative(&moved(step, &k3));
    std::array::from_fn(|i| y[i] + step / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]))
}

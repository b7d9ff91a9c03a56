//! The environment around a game: spaces, sticky actions, the time limit, save and restore.

use super::mt19937::Mt19937;
use super::numbers::Numbers;
use super::options::parse;
use super::{Game, Kind, Move, Options, PLACES, Picture, SIDE};
use crate::rng::Rng;
use crate::{Action, EnvError, Environment, Phase, Snapshot, Space, Step, small_seed};

/// One of MinAtar's games.
///
/// Observation: `[10, 10, channels]` row by row, 1 where a channel's thing is and 0 elsewhere; or images (see [`Options::images`]).
pub struct MinAtar {
    id: String,
    options: Options,
    channels: usize,
    moves: &'static [Move],
    make: fn(bool) -> Box<dyn Game>,
    game: Box<dyn Game>,
    observation_space: Space,
    action_space: Space,
    /// The last action, which may be repeated.
    last: Move,
    elapsed_steps: u32,
    phase: Phase,
    rng: Mt19937,
}

impl MinAtar {
    /// An environment, not yet reset.
    ///
    /// # Errors
    /// [`EnvError::UnknownId`] for an ID of another environment, [`EnvError::Option`] for a wrong option.
    pub fn new(id: &str) -> Result<Self, EnvError> {
        let (kind, minimal, options) = parse(id).ok_or_else(|| crate::registry::unknown(id))??;
        let Kind { channels, moves, make, .. } = *kind;
        let moves = if minimal { moves } else { &Move::ALL };
        let channels = channels.max(options.channels);
        let largest = if options.images { 255.0 } else { 1.0 };
        Ok(Self {
            id: id.into(),
            channels,
            moves,
            make,
            game: make(options.difficulty_ramping),
            observation_space: Space::uniform(PLACES * channels, 0.0, largest),
            action_space: Space::Discrete { n: moves.len() as u32 },
            last: Move::Stay,
            elapsed_steps: 0,
            phase: Phase::New,
            rng: Mt19937::new(0),
            options,
        })
    }

    /// The shape `[channels, height, width]` of its images, where its options ask for them.
    pub fn images(&self) -> Option<[usize; 3]> {
        self.options.images.then_some([self.channels, SIDE as usize, SIDE as usize])
    }

    fn observe(&self, observation: &mut [f32]) {
        observation.fill(0.0);
        self.game.draw(&mut Picture {
            numbers: observation,
            channels: self.channels,
            images: self.options.images,
        });
    }

    /// Last action, generator and game that the numbers of a snapshot describe.
    fn restored(&self, state: &[f64]) -> Option<(Move, Mt19937, Box<dyn Game>)> {
        let mut numbers = Numbers::new(state);
        let last = Move::ALL[numbers.whole(0, Move::ALL.len() as i32 - 1)? as usize];
        let rng = Mt19937::restored(&mut numbers)?;
        let mut game = (self.make)(self.options.difficulty_ramping);
        game.restore(&mut numbers)?;
        (numbers.left() == 0).then_some((last, rng, game))
    }
}

impl Environment for MinAtar {
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
        Some(self.options.max_steps).filter(|limit| *limit > 0)
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError> {
        self.observation_space.check_observation(observation)?;
        if let Some(seed) = seed {
            self.rng = Mt19937::new(small_seed(seed));
        }
        self.game.reset(&mut self.rng);
        self.elapsed_steps = 0;
        self.phase = Phase::Running;
        self.observe(observation);
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
        let Action::Discrete(choice) = action else {
            return Err(EnvError::ActionKind { expected: "discrete", got: "continuous" });
        };
        if !self.rng.happens(self.options.sticky_action_prob) {
            self.last = self.moves[choice as usize];
        }
        let outcome = self.game.act(self.last, &mut self.rng);
        self.elapsed_steps = self.elapsed_steps.saturating_add(1);
        let over = self.max_episode_steps().is_some_and(|limit| self.elapsed_steps >= limit);
        let step = Step { reward: outcome.reward, terminated: outcome.terminated, truncated: over };
        if step.done() {
            self.phase = Phase::Ended;
        }
        self.observe(observation);
        Ok(step)
    }

    /// State: the last action, the generator's words and the place in them, and the game's numbers. The snapshot's own generator is not
    /// used.
    fn save(&self) -> Result<Snapshot, EnvError> {
        let mut state = vec![f64::from(self.last as u8)];
        self.rng.save(&mut state);
        self.game.save(&mut state);
        let (id, elapsed_steps, phase) = (self.id.clone(), self.elapsed_steps, self.phase);
        Ok(Snapshot { id, state, elapsed_steps, phase, rng: Rng::new(0) })
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        snapshot.check_episode(&self.id, self.max_episode_steps())?;
        let refused = || EnvError::Snapshot {
            id: self.id.clone(),
            reason: "its state is no state of this game".into(),
        };
        (self.last, self.rng, self.game) = self.restored(&snapshot.state).ok_or_else(refused)?;
        self.elapsed_steps = snapshot.elapsed_steps;
        self.phase = snapshot.phase;
        Ok(())
    }
}

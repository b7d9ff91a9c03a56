//! Behaviour cloning (Pomerleau 1991): a network that does what a dataset's actions were. The program of one update, and its
//! learner. Discrete actions are classes, continuous ones (from -1 to 1) are a tanh, fitted by least squares.

use crate::actions::Actions;
use crate::convolution::Convolution;
use crate::critics::{Drawn, initial};
use crate::engine::{Engine, LearnError, Learner, LossParts, Schedule};
use crate::losses::offline::{behaviour_cloning_continuous, behaviour_cloning_discrete};
use crate::mlp;
use crate::network::{Actor, Shape};
use crate::optimiser::Adam;
use crate::replay::Batch;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program, Trace};

/// What a clone is made of. Defaults are those of d3rlpy's behaviour cloning.
#[derive(Clone, Debug, PartialEq)]
pub struct BcConfig {
    /// What sees observations that are images; the hidden layers go on from there.
    pub convolution: Option<Convolution>,
    /// Widths of the hidden layers, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// The optimiser's constants.
    pub adam: Adam,
}

oto_json::json_object! { BcConfig: settings { convolution omit none, hidden, batch_size, adam } }

impl Default for BcConfig {
    fn default() -> Self {
        Self { convolution: None, hidden: vec![256, 256], batch_size: 100, adam: Adam::default() }
    }
}

/// The sizes a program is recorded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Width of an observation.
    pub observation: usize,
    /// Its answers.
    pub actions: Actions,
}

/// Records one update: state and batch in, new state and [`LossParts`] out.
pub fn program(config: &BcConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let batch = config.batch_size;
    let params = shape(config, sizes).parameters(t, "bc.");
    let answer = shape(config, sizes).forward(&params, t.data("observation", &[batch, sizes.observation]));
    let loss = match sizes.actions {
        Actions::Discrete(_) => behaviour_cloning_discrete(answer, t.data("action", &[batch])),
        Actions::Continuous(n) => behaviour_cloning_continuous(answer.tanh(), t.data("action", &[batch, n])),
    };
    let updates = config.adam.step(t, &params, loss, t.data("lr", &[]));
    let none = t.constant(0.0, &[]);
    t.finish(&updates, &LossParts::outputs(t, loss, loss, &[], none, none))
}

fn shape(config: &BcConfig, sizes: Sizes) -> Shape<'_> {
    Shape::new(config.convolution.as_ref(), sizes.observation, &config.hidden, sizes.actions.outputs())
}

/// A clone: owns its parameters, improves them, acts with them.
pub struct Bc {
    config: BcConfig,
    sizes: Sizes,
    engine: Engine,
    /// Gives a preference for each action, or the action before its tanh.
    actor: Actor,
}

impl Bc {
    /// A clone with parameters drawn from `rng`.
    pub fn new(
        config: &BcConfig,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let engine = Engine::new(program(config, sizes), "bc.", backend)?;
        let actor = shape(config, sizes).actor();
        let mut clone = Self { config: config.clone(), sizes, engine, actor };
        clone.start_over(rng)?;
        Ok(clone)
    }

    /// The sizes it was made for.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// One update from a batch. New weights act from now on, or once [`Learner::collect`] has them.
    pub fn update(&mut self, batch: &Batch, schedule: &Schedule) -> Result<(), LearnError> {
        let find = |name: &str| batch.input(name).or_else(|| schedule.input(name));
        match self.engine.update(find)? {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    /// The likeliest action, its index or its components.
    pub fn act(&mut self, observation: &[f32], action: &mut [f32]) {
        let out = self.actor.forward(observation);
        match self.sizes.actions {
            Actions::Discrete(_) => action[0] = mlp::argmax(out) as f32,
            Actions::Continuous(_) => action.iter_mut().zip(out).for_each(|(a, x)| *a = x.tanh()),
        }
    }

    /// The weights it acts with now.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }
}

impl Learner for Bc {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    fn hand_over(&mut self) -> Result<(), LearnError> {
        let mut parts = self.actor.parameters_mut().enumerate();
        parts.try_for_each(|(i, part)| self.engine.acting(i, part))
    }

    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let mut drawn = Drawn::new();
        shape(&self.config, self.sizes).initial(rng, "bc.", &mut drawn);
        self.engine.start(|input| initial(&drawn, &input.name).unwrap_or_else(|| vec![0.0; input.len()]))?;
        self.hand_over()
    }
}

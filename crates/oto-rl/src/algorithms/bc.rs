//! Behaviour cloning (Pomerleau 1991): a network that does what a dataset's actions were. Settings, the program of one update,
//! and the agent. Discrete actions are classes, continuous ones (from -1 to 1) are a tanh, fitted by least squares.
//!
//! With `for_ppo` the network has the form and the names of PPO's policy, so that PPO continues the clone online.

use super::ppo::POLICY;
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::actions::Actions;
use crate::checks::Checks;
use crate::convolution::Convolution;
use crate::critics::{InitialParameters, initial};
use crate::engine::{Engine, LearnError, Learner, LossParts, Schedule};
use crate::losses::offline::{behaviour_cloning_continuous, behaviour_cloning_discrete};
use crate::mlp;
use crate::network::{Actor, Shape};
use crate::optimiser::Adam;
use crate::replay::Batch;
use crate::schedule::Linear;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct BehaviourCloning;

impl Algorithm for BehaviourCloning {
    fn name(&self) -> &'static str {
        "bc"
    }

    fn title(&self) -> &'static str {
        "Behaviour cloning: the actions of a dataset, by supervised learning"
    }

    fn paper(&self) -> &'static str {
        "Pomerleau 1991"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Discrete, ActionKind::Continuous]
    }

    fn images(&self) -> bool {
        true
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Dataset]
    }

    fn defaults(&self, seen: Seen) -> Defaults {
        match seen.images.filter(|_| !seen.continuous) {
            Some(shape) => images(shape),
            None => rows(),
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<BcConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<BcConfig>(self, generator)
    }
}

/// d3rlpy's settings; the number of updates is for small environments.
fn rows() -> Defaults {
    Defaults {
        steps: 5_000,
        learning_rate: Linear::constant(1e-3),
        evaluation: (500, 10),
        ..Defaults::new(BcConfig::default(), "actions of either kind", "d3rlpy's behaviour cloning")
    }
}

/// The network of d3rlpy's reproduction on Atari (`reproductions/offline/discrete_cql.py`), its batches and its learning rate.
fn images(shape: [usize; 3]) -> Defaults {
    let (convolution, units) = Convolution::usual(shape).unwrap_or((Convolution::atari(shape), 512));
    let adam = Adam { epsilon: 1e-2 / 32.0, ..Adam::default() };
    let config = BcConfig {
        convolution: Some(convolution),
        hidden: vec![units],
        batch_size: 32,
        for_ppo: false,
        adam,
    };
    Defaults {
        algorithm: config.into(),
        environments: "images of bytes and discrete actions",
        source: "d3rlpy's reproduction of CQL on Atari",
        learning_rate: Linear::constant(5e-5),
        evaluation: (1_000, 3),
        ..rows()
    }
}

/// What a clone is made of. Defaults are those of d3rlpy's behaviour cloning.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct BcConfig {
    /// Convolutional layers for image observations, before the hidden layers.
    pub convolution: Option<Convolution>,
    /// Widths of the hidden layers, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Clone into the policy network of `ppo`, which continues it in an environment: tanh after each hidden layer, ReLU with a
    /// convolution, and continuous actions that are cut off at -1 and 1 instead of a tanh.
    pub for_ppo: bool,
    /// The optimiser's constants.
    pub adam: Adam,
}

oto_json::json_object! { BcConfig: settings { convolution omit none, hidden, batch_size, for_ppo, adam } }

impl Default for BcConfig {
    fn default() -> Self {
        Self {
            convolution: None,
            hidden: vec![256, 256],
            batch_size: 100,
            for_ppo: false,
            adam: Adam::default(),
        }
    }
}

impl BcConfig {
    /// The beginning of the parameters' names.
    fn prefix(&self) -> &'static str {
        if self.for_ppo { POLICY } else { "bc." }
    }
}

impl Settings for BcConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &BehaviourCloning
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.convolution(self.convolution.as_ref());
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        checks.adam(self.adam);
    }

    fn convolution(&self) -> Option<&Convolution> {
        self.convolution.as_ref()
    }

    fn program(&self, sizes: Sizes) -> Program {
        program(self, sizes)
    }

    fn agent(
        &self,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Box<dyn Agent>, LearnError> {
        Ok(Box::new(Bc::new(self, sizes, backend, rng)?))
    }
}

/// Records one update: state and batch in, new state and [`LossParts`] out.
pub fn program(config: &BcConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let batch = config.batch_size;
    let params = shape(config, sizes).parameters(t, config.prefix());
    let answer = shape(config, sizes).forward(&params, t.data("observation", &[batch, sizes.observation]));
    let loss = match sizes.actions {
        Actions::Discrete(_) => behaviour_cloning_discrete(answer, t.data("action", &[batch])),
        Actions::Continuous(n) => {
            let answer = if config.for_ppo { answer } else { answer.tanh() };
            behaviour_cloning_continuous(answer, t.data("action", &[batch, n]))
        }
    };
    let updates = config.adam.step(t, &params, loss, t.data("lr", &[]));
    let none = t.constant(0.0, &[]);
    t.finish(&updates, &LossParts::outputs(t, loss, loss, &[], none, none))
}

fn shape(config: &BcConfig, sizes: Sizes) -> Shape<'_> {
    let shape =
        Shape::new(config.convolution.as_ref(), sizes.observation, &config.hidden, sizes.actions.outputs());
    if config.for_ppo && config.convolution.is_none() { shape.tanh() } else { shape }
}

/// A clone: owns its parameters, improves them, acts with them.
pub struct Bc {
    config: BcConfig,
    sizes: Sizes,
    engine: Engine,
    /// Gives a preference for each action, or the action before its tanh or its bounds.
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
        let engine = Engine::new(program(config, sizes), config.prefix(), backend)?;
        let actor = shape(config, sizes).actor();
        let mut clone = Self { config: config.clone(), sizes, engine, actor };
        clone.start_over(rng)?;
        Ok(clone)
    }
}

impl Agent for Bc {
    fn actions(&self) -> Actions {
        self.sizes.actions
    }

    /// The likeliest action, its index or its components.
    fn act(&mut self, observation: &[f32], action: &mut [f32]) {
        let out = self.actor.forward(observation);
        match self.sizes.actions {
            Actions::Discrete(_) => action[0] = mlp::choice(out),
            Actions::Continuous(_) if self.config.for_ppo => {
                action.iter_mut().zip(out).for_each(|(a, x)| *a = x.clamp(-1.0, 1.0))
            }
            Actions::Continuous(_) => action.iter_mut().zip(out).for_each(|(a, x)| *a = x.tanh()),
        }
    }

    fn update(&mut self, batch: &Batch, schedule: &Schedule, _: &mut Rng) -> Result<(), LearnError> {
        let find = |name: &str| batch.input(name).or_else(|| schedule.input(name));
        match self.engine.update(find)? {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    fn policy(&self) -> Actor {
        self.actor.clone()
    }

    fn squashes(&self) -> bool {
        !self.config.for_ppo
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
        let mut initial_values = InitialParameters::new();
        shape(&self.config, self.sizes).initial(rng, self.config.prefix(), &mut initial_values);
        self.engine
            .start(|input| initial(&initial_values, &input.name).unwrap_or_else(|| vec![0.0; input.len()]))?;
        self.hand_over()
    }
}

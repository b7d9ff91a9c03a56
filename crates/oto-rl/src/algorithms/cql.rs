//! Conservative Q-learning (Kumar et al. 2020; OTO eq. 6 and 7) from a recorded dataset: QR-DQN for discrete actions, soft
//! actor-critic for continuous ones, each with the term that pushes down what the data do not show. Settings; programs and
//! agents are those of [`super::qrdqn`] and [`super::sac`].

use super::qrdqn::QrDqnConfig;
use super::sac::SacConfig;
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::actions::Actions;
use crate::checks::Checks;
use crate::convolution::Convolution;
use crate::engine::LearnError;
use crate::optimiser::Adam;
use crate::schedule::Linear;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct ConservativeQLearning;

impl Algorithm for ConservativeQLearning {
    fn name(&self) -> &'static str {
        "cql"
    }

    fn title(&self) -> &'static str {
        "Conservative Q-learning: QR-DQN or SAC with low values for what the data do not show"
    }

    fn paper(&self) -> &'static str {
        "Kumar et al. 2020"
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
        match seen.images {
            _ if seen.continuous => continuous(),
            Some(shape) => images(shape),
            None => discrete(),
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<CqlConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<CqlConfig>(self, generator)
    }
}

/// Settings of conservative Q-learning. Defaults are those of Tianshou's test on CartPole (`test/offline/test_discrete_cql.py`).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct CqlConfig {
    /// Layers over images, before the hidden ones; discrete actions only.
    pub convolution: Option<Convolution>,
    /// Widths of the hidden layers, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Weight of the conservative term.
    pub weight: f64,
    /// Discrete actions: quantiles for each action.
    pub quantiles: usize,
    /// Discrete actions: whether the online network chooses the next action instead of the target network.
    pub double: bool,
    /// Discrete actions: whether the target network acts instead of the online network.
    pub act_with_target: bool,
    /// Continuous actions: temperature at the start.
    pub initial_alpha: f64,
    /// Continuous actions: actions in the conservative term, from a uniform, from the policy and from the policy at the next
    /// state each.
    pub samples: usize,
    /// The optimiser's constants.
    pub adam: Adam,
}

oto_json::json_object! {
    CqlConfig: settings {
        convolution omit none, hidden, batch_size, weight, quantiles, double, act_with_target, initial_alpha, samples, adam
    }
}

impl Default for CqlConfig {
    fn default() -> Self {
        Self {
            convolution: None,
            hidden: vec![64],
            batch_size: 32,
            weight: 10.0,
            quantiles: 200,
            double: true,
            act_with_target: false,
            initial_alpha: 1.0,
            samples: 10,
            adam: Adam::default(),
        }
    }
}

/// Those of Tianshou's test on CartPole. The number of updates is for small environments.
fn discrete() -> Defaults {
    let source = "Tianshou's test on CartPole, test/offline/test_discrete_cql.py";
    Defaults {
        steps: 10_000,
        n_step: 3,
        learning_rate: Linear::constant(3e-3),
        target_every: 500,
        evaluation: (500, 10),
        ..Defaults::new(CqlConfig::default(), "discrete actions", source)
    }
}

/// Those of d3rlpy's reproduction on Atari (`reproductions/offline/discrete_cql.py`: weight 4, learning rate 5e-5, batches of
/// 32, the target network replaced every 2,000 updates). The number of updates is for small datasets.
fn images(shape: [usize; 3]) -> Defaults {
    let (convolution, units) = Convolution::usual(shape).unwrap_or((Convolution::atari(shape), 512));
    let config = CqlConfig {
        convolution: Some(convolution),
        hidden: vec![units],
        weight: 4.0,
        adam: Adam { epsilon: 1e-2 / 32.0, ..Adam::default() },
        ..CqlConfig::default()
    };
    Defaults {
        algorithm: config.into(),
        environments: "images of bytes and discrete actions",
        source: "d3rlpy's reproduction of CQL on Atari",
        n_step: 1,
        learning_rate: Linear::constant(5e-5),
        target_every: 2_000,
        evaluation: (1_000, 3),
        ..discrete()
    }
}

/// The authors' weight and samples on the SAC of Stable-Baselines3.
fn continuous() -> Defaults {
    let config = CqlConfig { hidden: vec![256, 256], batch_size: 256, weight: 5.0, ..CqlConfig::default() };
    Defaults {
        algorithm: config.into(),
        environments: "continuous actions",
        source: "the authors' weight (5) and samples (10) on Stable-Baselines3's SAC",
        steps: 20_000,
        n_step: 1,
        learning_rate: Linear::constant(3e-4),
        target_every: 0,
        ..discrete()
    }
}

impl CqlConfig {
    /// The same settings as the algorithm's for these actions.
    fn inner(&self, actions: Actions) -> AlgorithmConfig {
        let Self { convolution, hidden, batch_size, weight, quantiles, double, act_with_target, .. } =
            self.clone();
        let Self { initial_alpha, samples, adam, .. } = *self;
        match actions {
            Actions::Discrete(_) => QrDqnConfig {
                convolution,
                hidden,
                quantiles,
                batch_size,
                double,
                act_with_target,
                cql: weight,
                adam,
                ..QrDqnConfig::default()
            }
            .into(),
            Actions::Continuous(_) => {
                SacConfig { convolution: None, hidden, batch_size, initial_alpha, samples, cql: weight, adam }
                    .into()
            }
        }
    }
}

impl Settings for CqlConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &ConservativeQLearning
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.convolution(self.convolution.as_ref());
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        checks.weight("weight", self.weight);
        checks.whole("quantiles", self.quantiles as u64, 1..=1024, "1 to 1024 quantiles");
        checks.real("initial_alpha", self.initial_alpha, 1e-6..=1e3, "1e-6 to 1000");
        checks.whole("samples", self.samples as u64, 1..=256, "1 to 256 actions a state");
        checks.adam(self.adam);
    }

    fn convolution(&self) -> Option<&Convolution> {
        self.convolution.as_ref()
    }

    fn fits(&self, sizes: Sizes) -> Result<(), String> {
        match sizes.actions {
            Actions::Continuous(_) if self.convolution.is_some() => Err(
                "sees rows of numbers where actions are continuous: set algorithm.convolution to null and scale images to a \
                 range such as 0 to 1"
                    .into(),
            ),
            _ => Ok(()),
        }
    }

    fn program(&self, sizes: Sizes) -> Program {
        self.inner(sizes.actions).program(sizes)
    }

    fn agent(
        &self,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Box<dyn Agent>, LearnError> {
        self.inner(sizes.actions).agent(sizes, backend, rng)
    }
}

//! REDQ (Chen et al. 2021, "Randomized Ensembled Double Q-Learning: Learning Fast Without a Model"): soft actor-critic with many updates a step, an
//! ensemble of critics, and the smallest of a few drawn critics as the target.

use super::ensemble_sac::{self, Recipe, Target};
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::checks::Checks;
use crate::engine::LearnError;
use crate::optimiser::Adam;
use crate::schedule::Linear;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct RandomisedEnsemble;

impl Algorithm for RandomisedEnsemble {
    fn name(&self) -> &'static str {
        "redq"
    }

    fn title(&self) -> &'static str {
        "Randomised ensembled double Q-learning: soft actor-critic with an ensemble and many updates a step"
    }

    fn paper(&self) -> &'static str {
        "Chen et al. 2021"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay]
    }

    fn in_pages(&self) -> bool {
        false
    }

    /// The authors' settings: learning rate 3e-4, 5,000 steps before the first update, 20 updates a step.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            learning_starts: 5_000,
            updates: 20,
            // Fewer and fewer random actions until the first update.
            epsilon: Linear { start: 1.0, end: 0.0, steps: 5_000 },
            evaluation: (1_000, 10),
            ..Defaults::new(
                RedqConfig::default(),
                "continuous actions",
                "the authors' code (watchernyu/REDQ)",
            )
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<RedqConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<RedqConfig>(self, generator)
    }
}

/// Settings of REDQ. Defaults are the authors'; `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RedqConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Critics.
    pub critics: usize,
    /// Critics whose smallest value is the target, drawn for each update.
    pub subset: usize,
    /// Updates from one step of actor and temperature to the next.
    pub policy_period: u64,
    /// Initial temperature.
    pub initial_alpha: f64,
    /// Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution.
    pub samples: usize,
    /// The optimisers' constants.
    pub adam: Adam,
}

oto_json::json_object! {
    RedqConfig: settings { hidden, batch_size, critics, subset, policy_period, initial_alpha, samples, adam }
}

impl Default for RedqConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 256,
            critics: 10,
            subset: 2,
            policy_period: 20,
            initial_alpha: 1.0,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl RedqConfig {
    fn recipe(&self) -> Recipe<'_> {
        Recipe {
            hidden: &self.hidden,
            batch_size: self.batch_size,
            critics: self.critics,
            target: Target::Subset(self.subset),
            entropy_backup: true,
            layer_norm: false,
            conservative: None,
            policy_period: self.policy_period,
            actor_rate: 1.0,
            target_entropy: -1.0,
            samples: self.samples,
            initial_alpha: self.initial_alpha,
            adam: self.adam,
        }
    }
}

impl Settings for RedqConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &RandomisedEnsemble
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        self.recipe().check(checks);
        checks.whole("policy_period", self.policy_period, 1..=1024, "1 to 1024 updates");
    }

    fn can_be_prioritised(&self) -> bool {
        true
    }

    fn program(&self, sizes: Sizes) -> Program {
        ensemble_sac::program(&self.recipe(), sizes)
    }

    fn agent(
        &self,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Box<dyn Agent>, LearnError> {
        ensemble_sac::agent(&self.recipe(), sizes, backend, rng)
    }
}

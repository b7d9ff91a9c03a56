//! GCQL of adaptive policy learning (Zheng et al. 2023, "Adaptive Policy Learning for Offline-to-Online Reinforcement Learning"): CQL's term for recorded data,
//! a greedy update for online data. The sampler `whole` takes each batch from one source, as the authors' code does.

use super::ensemble_sac::{self, Conservative, Recipe, Target};
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::checks::Checks;
use crate::engine::LearnError;
use crate::optimiser::Adam;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct GreedyConservative;

impl Algorithm for GreedyConservative {
    fn name(&self) -> &'static str {
        "gcql"
    }

    fn title(&self) -> &'static str {
        "Greedy-conservative Q-learning: conservative for recorded data, greedy for online data"
    }

    fn paper(&self) -> &'static str {
        "Zheng et al. 2023; CQL: Kumar et al. 2020"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay, Data::Dataset]
    }

    /// The authors' settings: learning rate 3e-4 of the critics, a third of it for the policy, an online buffer of 20,000 transitions. The number of updates is for
    /// small environments.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            learning_starts: 5_000,
            evaluation: (1_000, 10),
            ..Defaults::new(GcqlConfig::default(), "continuous actions", "the authors' code (zhan0903/APL0)")
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<GcqlConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<GcqlConfig>(self, generator)
    }
}

/// Settings of GCQL. Defaults are those of the authors' code; `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct GcqlConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Critics.
    pub critics: usize,
    /// Critics whose smallest value is the target, drawn for each update.
    pub subset: usize,
    /// Whether the target has the entropy of the next action.
    pub entropy_backup: bool,
    /// Factor of the run's learning rate for actor and temperature.
    pub actor_rate: f64,
    /// Weight of CQL's term, for the recorded transitions of a batch.
    pub weight: f64,
    /// Actions in CQL's term, from a uniform distribution, from the policy and from the policy at the next state each.
    pub conservative_samples: usize,
    /// Initial temperature.
    pub initial_alpha: f64,
    /// Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution.
    pub samples: usize,
    /// The optimisers' constants.
    pub adam: Adam,
}

oto_json::json_object! {
    GcqlConfig: settings { hidden, batch_size, critics, subset, entropy_backup, actor_rate, weight, conservative_samples, initial_alpha, samples, adam }
}

impl Default for GcqlConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256, 256],
            batch_size: 256,
            critics: 5,
            subset: 2,
            entropy_backup: false,
            actor_rate: 1.0 / 3.0,
            weight: 5.0,
            conservative_samples: 10,
            initial_alpha: 1.0,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl GcqlConfig {
    fn recipe(&self) -> Recipe<'_> {
        Recipe {
            hidden: &self.hidden,
            batch_size: self.batch_size,
            critics: self.critics,
            target: Target::Subset(self.subset),
            entropy_backup: self.entropy_backup,
            layer_norm: false,
            conservative: Some(Conservative { weight: self.weight, samples: self.conservative_samples }),
            policy_period: 1,
            actor_rate: self.actor_rate,
            target_entropy: -1.0,
            samples: self.samples,
            initial_alpha: self.initial_alpha,
            adam: self.adam,
        }
    }
}

impl Settings for GcqlConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &GreedyConservative
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        self.recipe().check(checks);
        checks.real("actor_rate", self.actor_rate, 0.0..=100.0, "a factor from 0 to 100");
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

//! WSRL (Zhou et al. 2024, "Efficient Online Reinforcement Learning Fine-Tuning Need Not Retain Offline Data"): the offline policy acts for a while, then an ensemble of
//! critics with layer normalisation learns from these steps alone. Begin it with an offline run: no recorded data are kept.

use super::ensemble_sac::{self, Recipe, Target};
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::checks::Checks;
use crate::engine::LearnError;
use crate::optimiser::Adam;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct WarmStart;

impl Algorithm for WarmStart {
    fn name(&self) -> &'static str {
        "wsrl"
    }

    fn title(&self) -> &'static str {
        "Warm-start: the offline policy acts first, then an ensemble learns from these steps without recorded data"
    }

    fn paper(&self) -> &'static str {
        "Zhou et al. 2024"
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

    /// The authors' settings: learning rate 3e-4, a third of it for the policy, 5,000 steps of warm-up, 4 updates a step.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            learning_starts: 5_000,
            updates: 4,
            evaluation: (1_000, 10),
            ..Defaults::new(
                WsrlConfig::default(),
                "continuous actions",
                "the authors' code (zhouzypaul/wsrl)",
            )
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<WsrlConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<WsrlConfig>(self, generator)
    }
}

/// Settings of WSRL. Defaults are those of the authors' code; `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct WsrlConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Critics.
    pub critics: usize,
    /// Critics whose smallest value is the target, drawn for each update.
    pub subset: usize,
    /// Whether critics have layer normalisation before each ReLU.
    pub layer_norm: bool,
    /// Updates from one step of actor and temperature to the next.
    pub policy_period: u64,
    /// Factor of the run's learning rate for actor and temperature.
    pub actor_rate: f64,
    /// Initial temperature.
    pub initial_alpha: f64,
    /// Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution.
    pub samples: usize,
    /// The optimisers' constants.
    pub adam: Adam,
}

oto_json::json_object! {
    WsrlConfig: settings { hidden, batch_size, critics, subset, layer_norm, policy_period, actor_rate, initial_alpha, samples, adam }
}

impl Default for WsrlConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 1024,
            critics: 10,
            subset: 2,
            layer_norm: true,
            policy_period: 4,
            actor_rate: 1.0 / 3.0,
            initial_alpha: 1.0,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl WsrlConfig {
    fn recipe(&self) -> Recipe<'_> {
        Recipe {
            hidden: &self.hidden,
            batch_size: self.batch_size,
            critics: self.critics,
            target: Target::Subset(self.subset),
            entropy_backup: true,
            layer_norm: self.layer_norm,
            conservative: None,
            policy_period: self.policy_period,
            actor_rate: self.actor_rate,
            target_entropy: -0.5,
            samples: self.samples,
            initial_alpha: self.initial_alpha,
            adam: self.adam,
        }
    }
}

impl Settings for WsrlConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &WarmStart
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        self.recipe().check(checks);
        checks.whole("policy_period", self.policy_period, 1..=1024, "1 to 1024 updates");
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

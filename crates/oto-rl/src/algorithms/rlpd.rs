//! RLPD (Ball et al. 2023, "Efficient Online Reinforcement Learning with Offline Data", algorithm 1): REDQ with layer normalisation in its critics and half of
//! each batch from recorded data. Without a dataset it is soft actor-critic with an ensemble.

use super::ensemble_sac::{self, Recipe, Target};
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::checks::Checks;
use crate::engine::LearnError;
use crate::optimiser::Adam;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct OnlineWithPriorData;

impl Algorithm for OnlineWithPriorData {
    fn name(&self) -> &'static str {
        "rlpd"
    }

    fn title(&self) -> &'static str {
        "Online learning with prior data: an ensemble with layer normalisation, half of each batch recorded"
    }

    fn paper(&self) -> &'static str {
        "Ball et al. 2023"
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
            evaluation: (1_000, 10),
            ..Defaults::new(
                RlpdConfig::default(),
                "continuous actions",
                "the authors' code (ikostrikov/rlpd)",
            )
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<RlpdConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<RlpdConfig>(self, generator)
    }
}

/// Settings of RLPD. Defaults are those of the authors' code; `samples` is ours. Their AntMaze has `subset` 1.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RlpdConfig {
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
    /// Whether the target has the entropy of the next action.
    pub entropy_backup: bool,
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
    RlpdConfig: settings { hidden, batch_size, critics, subset, layer_norm, entropy_backup, policy_period, initial_alpha, samples, adam }
}

impl Default for RlpdConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 256,
            critics: 10,
            subset: 2,
            layer_norm: true,
            entropy_backup: true,
            policy_period: 20,
            initial_alpha: 1.0,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl RlpdConfig {
    fn recipe(&self) -> Recipe<'_> {
        Recipe {
            hidden: &self.hidden,
            batch_size: self.batch_size,
            critics: self.critics,
            target: Target::Subset(self.subset),
            entropy_backup: self.entropy_backup,
            layer_norm: self.layer_norm,
            conservative: None,
            policy_period: self.policy_period,
            actor_rate: 1.0,
            target_entropy: -0.5,
            samples: self.samples,
            initial_alpha: self.initial_alpha,
            adam: self.adam,
        }
    }
}

impl Settings for RlpdConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &OnlineWithPriorData
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::Actions;

    fn program(config: &RlpdConfig) -> Program {
        let sizes = Sizes { observation: 3, actions: Actions::Continuous(1), teachers: 0, weighted: false };
        config.program(sizes)
    }

    #[test]
    fn layer_normalisation_and_the_subset_are_settings() {
        let small = RlpdConfig { hidden: vec![4, 5], batch_size: 2, critics: 3, ..RlpdConfig::default() };
        let has = |config: &RlpdConfig, name: &str| program(config).input(name).is_some();
        assert!(has(&small, "critics.1.norm.gain") && has(&small, "target.critics.0.norm.shift"));
        assert!(!has(&small, "critics.2.norm.gain"), "the last layer has none");
        assert!(has(&small, "subset") && has(&small, "every_20"));
        let plain = RlpdConfig { layer_norm: false, subset: 3, policy_period: 1, ..small };
        assert!(!has(&plain, "critics.0.norm.gain") && !has(&plain, "subset") && !has(&plain, "every_1"));
    }

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong = |config: RlpdConfig| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        let config = RlpdConfig::default;
        assert_eq!(wrong(RlpdConfig { subset: 11, ..config() }), "algorithm.subset is 11: 1 to critics, 10");
        assert!(wrong(RlpdConfig { subset: 0, ..config() }).starts_with("algorithm.subset is 0"));
        assert!(
            wrong(RlpdConfig { policy_period: 0, ..config() }).starts_with("algorithm.policy_period is 0")
        );
    }
}

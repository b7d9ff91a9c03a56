//! UPQ (Guo et al. 2022, "Uncertainty-Driven Pessimistic Q-Ensemble for Offline-to-Online Reinforcement Learning"): an ensemble of critics whose target is lowered by their
//! standard deviation, with CQL's term for recorded data. No code of the authors is published.

use super::ensemble_sac::{self, Conservative, Recipe, Target};
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::checks::Checks;
use crate::engine::LearnError;
use crate::optimiser::Adam;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct UncertaintyPessimism;

impl Algorithm for UncertaintyPessimism {
    fn name(&self) -> &'static str {
        "upq"
    }

    fn title(&self) -> &'static str {
        "Uncertainty-driven pessimism: the target is the mean of an ensemble less its standard deviation"
    }

    fn paper(&self) -> &'static str {
        "Guo et al. 2022; CQL: Kumar et al. 2020"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay, Data::Dataset]
    }

    /// The settings of soft actor-critic; the number of updates is for small environments.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            learning_starts: 1_000,
            evaluation: (1_000, 10),
            ..Defaults::new(
                UpqConfig::default(),
                "continuous actions",
                "the paper, and continuous CQL's settings",
            )
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<UpqConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<UpqConfig>(self, generator)
    }
}

/// Settings of UPQ. `beta` is the paper's best range's upper end; CQL's settings are those of continuous CQL, `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct UpqConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Critics.
    pub critics: usize,
    /// How many standard deviations of the critics the target is below their mean.
    pub beta: f64,
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
    UpqConfig: settings { hidden, batch_size, critics, beta, weight, conservative_samples, initial_alpha, samples, adam }
}

impl Default for UpqConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 256,
            critics: 5,
            beta: 0.01,
            weight: 5.0,
            conservative_samples: 10,
            initial_alpha: 1.0,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl UpqConfig {
    fn recipe(&self) -> Recipe<'_> {
        Recipe {
            hidden: &self.hidden,
            batch_size: self.batch_size,
            critics: self.critics,
            target: Target::LowerConfidence(self.beta),
            entropy_backup: true,
            layer_norm: false,
            conservative: Some(Conservative { weight: self.weight, samples: self.conservative_samples }),
            policy_period: 1,
            actor_rate: 1.0,
            target_entropy: -1.0,
            samples: self.samples,
            initial_alpha: self.initial_alpha,
            adam: self.adam,
        }
    }
}

impl Settings for UpqConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &UncertaintyPessimism
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        self.recipe().check(checks);
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

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong = |config: UpqConfig| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        let config = UpqConfig::default;
        let alone = wrong(UpqConfig { critics: 1, ..config() });
        assert_eq!(alone, "algorithm.critics is 1: 2 to 512 critics: one alone has no standard deviation");
        assert!(wrong(UpqConfig { beta: f64::NAN, ..config() }).starts_with("algorithm.beta is NaN"));
        assert!(wrong(UpqConfig { beta: -1.0, ..config() }).starts_with("algorithm.beta is -1"));
    }
}

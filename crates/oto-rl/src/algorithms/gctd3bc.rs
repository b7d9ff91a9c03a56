//! GCTD3BC of adaptive policy learning (Zheng et al. 2023, "Adaptive Policy Learning for Offline-to-Online Reinforcement Learning"): TD3+BC
//! whose constraint holds for recorded data alone. The sampler `whole` takes each batch from one source, as the authors' code does.

use super::constrained::{self, Form, Recipe};
use super::td3::Constraint;
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::checks::Checks;
use crate::engine::LearnError;
use crate::optimiser::Adam;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct GreedyConstraint;

impl Algorithm for GreedyConstraint {
    fn name(&self) -> &'static str {
        "gctd3bc"
    }

    fn title(&self) -> &'static str {
        "Greedy-conservative TD3+BC: a constraint for recorded data, none for online data"
    }

    fn paper(&self) -> &'static str {
        "Zheng et al. 2023; TD3+BC: Fujimoto and Gu 2021"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay, Data::Dataset]
    }

    /// The authors' settings; the number of updates is for small environments.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            evaluation: (1_000, 10),
            ..Defaults::new(
                Gctd3bcConfig::default(),
                "continuous actions",
                "the authors' code (zhan0903/APL0)",
            )
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<Gctd3bcConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<Gctd3bcConfig>(self, generator)
    }
}

/// Settings of GCTD3BC. Defaults are those of the authors' code; `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct Gctd3bcConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Weight of the Q-values in the actor's loss, over their mean size; the constraint has the weight 1.
    pub alpha: f64,
    /// Whether observations are normalised by the mean and the standard deviation of the dataset.
    pub normalise: bool,
    /// Standard deviation of the noise on actions that explore.
    pub exploration: f64,
    /// Standard deviation of the noise on the target's action.
    pub smoothing: f64,
    /// Largest noise on the target's action.
    pub smoothing_clip: f64,
    /// Updates from one step of the actor and all target networks to the next.
    pub policy_period: u64,
    /// Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution.
    pub samples: usize,
    /// The optimisers' constants.
    pub adam: Adam,
}

oto_json::json_object! {
    Gctd3bcConfig: settings {
        hidden, batch_size, alpha, normalise, exploration, smoothing, smoothing_clip, policy_period, samples, adam
    }
}

impl Default for Gctd3bcConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 256,
            alpha: 2.5,
            normalise: true,
            exploration: 0.1,
            smoothing: 0.2,
            smoothing_clip: 0.5,
            policy_period: 2,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl Gctd3bcConfig {
    fn recipe(&self) -> Recipe<'_> {
        Recipe {
            hidden: &self.hidden,
            batch_size: self.batch_size,
            critics: 2,
            subset: 2,
            mean: false,
            form: Form::Greedy,
            constraint: Constraint::Fixed(self.alpha),
            frozen_critics: false,
            normalise: self.normalise,
            exploration: self.exploration,
            smoothing: [self.smoothing, self.smoothing_clip],
            policy_period: self.policy_period,
            samples: self.samples,
            adam: self.adam,
        }
    }
}

impl Settings for Gctd3bcConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &GreedyConstraint
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        self.recipe().check(checks);
        checks.weight("alpha", self.alpha);
    }

    fn program(&self, sizes: Sizes) -> Program {
        constrained::program(&self.recipe(), sizes)
    }

    fn agent(
        &self,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Box<dyn Agent>, LearnError> {
        constrained::agent(&self.recipe(), sizes, backend, rng)
    }
}

//! The algorithms: a file for each, from its settings to the policy that it exports, and the registry.
//!
//! A new algorithm is a file here and a line in [`ALGORITHMS`]. Commands, pages, schemas and documents read the registry;
//! no other code asks which algorithm it is.

mod agent;
mod config;
mod spaces;

#[cfg(feature = "every-algorithm")]
pub mod a3c;
#[cfg(feature = "every-algorithm")]
pub mod aca;
#[cfg(feature = "every-algorithm")]
pub mod adaptive_bc;
#[cfg(feature = "every-algorithm")]
pub mod awac;
#[cfg(feature = "every-algorithm")]
pub mod balanced_replay;
#[cfg(feature = "every-algorithm")]
pub mod bc;
#[cfg(feature = "every-algorithm")]
pub mod cal_ql;
#[cfg(feature = "every-algorithm")]
mod constrained;
#[cfg(feature = "every-algorithm")]
pub mod cql;
#[cfg(feature = "every-algorithm")]
pub mod cql_ensemble;
pub mod ddpg;
#[cfg(feature = "every-algorithm")]
mod distilled;
#[cfg(feature = "every-algorithm")]
pub mod edac;
#[cfg(feature = "every-algorithm")]
mod ensemble_sac;
#[cfg(feature = "every-algorithm")]
pub mod gcql;
#[cfg(feature = "every-algorithm")]
pub mod gctd3bc;
#[cfg(feature = "every-algorithm")]
pub mod iql;
#[cfg(feature = "every-algorithm")]
pub mod mopo;
#[cfg(feature = "every-algorithm")]
pub mod pex;
pub mod ppo;
#[cfg(feature = "every-algorithm")]
mod q_ensemble;
pub mod qrdqn;
#[cfg(feature = "every-algorithm")]
pub mod redq;
#[cfg(feature = "every-algorithm")]
pub mod rlpd;
pub mod sac;
pub mod sac_discrete;
#[cfg(feature = "every-algorithm")]
pub mod sac_ml;
#[cfg(feature = "every-algorithm")]
mod side_by_side;
pub mod table;
pub mod td3;
#[cfg(feature = "every-algorithm")]
pub mod td3_bc;
#[cfg(feature = "every-algorithm")]
pub mod td3_bc_refined;
#[cfg(feature = "every-algorithm")]
pub mod upq;
#[cfg(feature = "every-algorithm")]
pub mod wsrl;

pub use agent::{Agent, Judgement, OnPolicy, Rollouts, Steps};
pub use config::{AlgorithmConfig, Run, Settings};
#[cfg(feature = "schema")]
pub use config::{offline_schema, online_schema};
pub use spaces::{Misfit, Seen, Sizes};

use crate::schedule::Linear;
use oto_json::{At, Failure};

/// Every algorithm. Of those that can learn in an environment the first is the default.
pub static ALGORITHMS: &[&dyn Algorithm] = &[
    &qrdqn::QuantileRegression,
    &sac::SoftActorCritic,
    &ppo::ProximalPolicy,
    &td3::TwinDelayed,
    &ddpg::DeterministicGradient,
    // Every page would load them.
    #[cfg(feature = "every-algorithm")]
    &a3c::AdvantageActorCritic,
    #[cfg(feature = "every-algorithm")]
    &cql::ConservativeQLearning,
    #[cfg(feature = "every-algorithm")]
    &bc::BehaviourCloning,
    #[cfg(feature = "every-algorithm")]
    &td3_bc::BehaviourConstraint,
    #[cfg(feature = "every-algorithm")]
    &iql::ImplicitQLearning,
    #[cfg(feature = "every-algorithm")]
    &awac::AdvantageWeighted,
    #[cfg(feature = "every-algorithm")]
    &edac::DiversifiedEnsemble,
    #[cfg(feature = "every-algorithm")]
    &cal_ql::CalibratedQLearning,
    #[cfg(feature = "every-algorithm")]
    &cql_ensemble::ConservativeEnsemble,
    #[cfg(feature = "every-algorithm")]
    &redq::RandomisedEnsemble,
    #[cfg(feature = "every-algorithm")]
    &rlpd::OnlineWithPriorData,
    #[cfg(feature = "every-algorithm")]
    &wsrl::WarmStart,
    #[cfg(feature = "every-algorithm")]
    &pex::PolicyExpansion,
    #[cfg(feature = "every-algorithm")]
    &sac_ml::MaximumLikelihood,
    #[cfg(feature = "every-algorithm")]
    &aca::ActorCriticAlignment,
    #[cfg(feature = "every-algorithm")]
    &balanced_replay::BalancedReplay,
    #[cfg(feature = "every-algorithm")]
    &upq::UncertaintyPessimism,
    #[cfg(feature = "every-algorithm")]
    &adaptive_bc::AdaptiveCloning,
    #[cfg(feature = "every-algorithm")]
    &td3_bc_refined::RefinedConstraint,
    #[cfg(feature = "every-algorithm")]
    &gcql::GreedyConservative,
    #[cfg(feature = "every-algorithm")]
    &gctd3bc::GreedyConstraint,
    #[cfg(feature = "every-algorithm")]
    &mopo::ModelBased,
];

/// An entry of the registry.
pub trait Algorithm: Sync {
    /// Its name in configurations: `sac`.
    fn name(&self) -> &'static str;

    /// A description in one sentence.
    fn title(&self) -> &'static str;

    /// The paper, as authors and year.
    fn paper(&self) -> &'static str;

    /// The kinds of actions it can act with.
    fn actions(&self) -> &'static [ActionKind];

    /// Whether it has a network for images.
    fn images(&self) -> bool {
        false
    }

    /// The data it can learn from.
    fn data(&self) -> &'static [Data];

    /// Whether every page loads it. The module `oto-student/all` has the others too.
    fn in_pages(&self) -> bool {
        !self.data().contains(&Data::Dataset)
    }

    /// Its settings, and a run's, for environments of this kind.
    fn defaults(&self, seen: Seen) -> Defaults;

    /// Its settings from JSON; those left out have their defaults.
    ///
    /// # Errors
    /// A setting that there is not, or one with a value of another type, with its path.
    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure>;

    /// The JSON schema of its settings.
    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema;
}

impl dyn Algorithm + '_ {
    /// Whether it can learn in an environment.
    pub fn online(&self) -> bool {
        self.data().iter().any(|data| *data != Data::Dataset)
    }

    /// Whether it can learn from a recorded dataset alone.
    pub fn offline(&self) -> bool {
        self.data().contains(&Data::Dataset)
    }

    /// Whether it can learn in environments of this kind.
    pub fn accepts(&self, seen: Seen) -> bool {
        self.actions().contains(&seen.kind()) && (self.images() || seen.images.is_none())
    }
}

/// A kind of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// One of several choices.
    Discrete,
    /// A vector of numbers.
    Continuous,
}

/// Where an algorithm's data come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// A replay buffer of transitions.
    Replay,
    /// Rollouts: the newest steps of the policy itself, in their order.
    Rollouts,
    /// Recorded episodes.
    Dataset,
}

/// The content of teachers' answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename_all = "snake_case"))]
pub enum Teaching {
    /// An action: AIKD.
    #[default]
    Actions,
    /// A probability for each of the student's actions, then the state's value: policy distillation and value matching, for
    /// comparison ([`crate::losses::distillation`]).
    SoftTargets,
}

oto_json::json_names! { Teaching { Actions = "actions", SoftTargets = "soft_targets" } }

/// The algorithm of this name.
pub fn find(name: &str) -> Option<&'static dyn Algorithm> {
    ALGORITHMS.iter().copied().find(|algorithm| algorithm.name() == name)
}

/// The algorithms that can learn in an environment.
pub fn online() -> impl Iterator<Item = &'static dyn Algorithm> {
    ALGORITHMS.iter().copied().filter(|algorithm| algorithm.online())
}

/// The algorithms that can learn from a recorded dataset alone.
pub fn offline() -> impl Iterator<Item = &'static dyn Algorithm> {
    ALGORITHMS.iter().copied().filter(|algorithm| algorithm.offline())
}

/// The default among these for environments of this kind: the first that accepts it, or else the first with its actions.
pub fn usual(among: impl Iterator<Item = &'static dyn Algorithm>, seen: Seen) -> &'static dyn Algorithm {
    let among = among.filter(|algorithm| algorithm.actions().contains(&seen.kind())).collect::<Vec<_>>();
    let fits = among.iter().find(|algorithm| algorithm.accepts(seen));
    *fits.or(among.first()).unwrap_or(&ALGORITHMS[0])
}

/// Names as a text: `"a"`, `"b"` or `"c"`.
pub fn listed(algorithms: impl Iterator<Item = &'static dyn Algorithm>) -> String {
    let names = algorithms.map(|algorithm| format!("{:?}", algorithm.name())).collect::<Vec<_>>();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// The settings of a run that suit an algorithm, and their source.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// The algorithm's own settings.
    pub algorithm: AlgorithmConfig,
    /// The environments they are for: "any environment with ...".
    pub environments: &'static str,
    /// Where they come from.
    pub source: &'static str,
    /// Whether exploration and learning rate take a share of the run, and not a number of steps.
    pub stretches: bool,
    /// Environment steps in all; updates where it learns from a dataset.
    pub steps: u64,
    /// Discount factor.
    pub gamma: f64,
    /// Rewards summed before the bootstrap.
    pub n_step: usize,
    /// Capacity of the replay buffer, in transitions.
    pub buffer: usize,
    /// Environment steps before the first update.
    pub learning_starts: u64,
    /// Environment steps between rounds of updates.
    pub train_every: u64,
    /// Updates in each round.
    pub updates: u64,
    /// Learning rate over steps.
    pub learning_rate: Linear,
    /// Share of random actions over environment steps.
    pub epsilon: Linear,
    /// Updates between hard updates of the target network; 0: soft updates by `target_tau`.
    pub target_every: u64,
    /// Coefficient of the target network's soft update, at every update, if `target_every` is 0.
    pub target_tau: f64,
    /// Weight of both RKD terms while a teacher is there.
    pub eta: f64,
    /// Steps from one evaluation to the next, and its episodes.
    pub evaluation: (u64, u32),
}

impl Defaults {
    /// Values that most algorithms share, for struct update.
    pub fn new(algorithm: impl Settings, environments: &'static str, source: &'static str) -> Self {
        Self {
            algorithm: algorithm.into(),
            environments,
            source,
            stretches: false,
            steps: 50_000,
            gamma: 0.99,
            n_step: 1,
            buffer: 100_000,
            learning_starts: 128,
            train_every: 1,
            updates: 1,
            learning_rate: Linear::constant(3e-4),
            epsilon: Linear::constant(0.0),
            target_every: 0,
            target_tau: 0.005,
            eta: 0.2,
            evaluation: (5_000, 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for (i, algorithm) in ALGORITHMS.iter().enumerate() {
            assert_eq!(ALGORITHMS.iter().position(|a| a.name() == algorithm.name()), Some(i));
            assert!(find(algorithm.name()).is_some_and(|found| found.title() == algorithm.title()));
            assert!(algorithm.online() || algorithm.offline(), "{}", algorithm.name());
        }
        assert!(find("dqn").is_none());
        assert!(listed(online()).starts_with(r#""qrdqn", "sac", "#), "{}", listed(online()));
    }

    #[test]
    fn every_kind_of_environment_has_a_default() {
        for (seen, learner, teacher) in [
            (Seen::default(), "qrdqn", "cql"),
            (Seen { continuous: true, images: None }, "sac", "cql"),
            (Seen { continuous: false, images: Some([4, 84, 84]) }, "qrdqn", "cql"),
            (Seen { continuous: true, images: Some([4, 84, 84]) }, "sac", "cql"),
        ] {
            assert_eq!(usual(online(), seen).name(), learner);
            assert_eq!(usual(offline(), seen).name(), teacher);
        }
    }

    /// Defaults are of the algorithm they are asked from, are valid, and survive JSON.
    #[test]
    fn defaults_are_valid_and_survive_json() {
        for algorithm in ALGORITHMS {
            for seen in [
                Seen::default(),
                Seen { continuous: true, images: None },
                Seen { continuous: false, images: Some([4, 84, 84]) },
                Seen { continuous: true, images: Some([3, 96, 96]) },
            ] {
                let defaults = algorithm.defaults(seen);
                assert_eq!(defaults.algorithm.name(), algorithm.name());
                assert_eq!(defaults.algorithm.validate(), Ok(()));
                let json = oto_json::write(&defaults.algorithm);
                assert_eq!(oto_json::read::<AlgorithmConfig>(&json), Ok(defaults.algorithm), "{json}");
            }
        }
    }
}

//! The refined TD3+BC (Beeson and Montana 2022, "Improving TD3-BC: Relaxed Policy Constraint for Offline Learning and Stable Online
//! Fine-Tuning"): TD3+BC whose constraint has the weight, with policy refinement after offline training (`refine`) and with a
//! constraint that relaxes online (`relax_steps`). Each is a run that begins with the one before.

use super::constrained::{self, Form, Recipe};
use super::td3::Constraint;
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::checks::Checks;
use crate::engine::LearnError;
use crate::losses::constraint::refined_alpha;
use crate::optimiser::Adam;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct RefinedConstraint;

impl Algorithm for RefinedConstraint {
    fn name(&self) -> &'static str {
        "td3-bc-refined"
    }

    fn title(&self) -> &'static str {
        "TD3+BC with policy refinement, and with a constraint that relaxes online"
    }

    fn paper(&self) -> &'static str {
        "Beeson and Montana 2022"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay, Data::Dataset]
    }

    /// The paper's settings; the number of updates is for small environments.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            evaluation: (1_000, 10),
            ..Defaults::new(
                Td3BcRefinedConfig::default(),
                "continuous actions",
                "the paper; learning rate and networks of TD3+BC's authors",
            )
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<Td3BcRefinedConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<Td3BcRefinedConfig>(self, generator)
    }
}

/// Settings of the refined TD3+BC. Defaults are the paper's; `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct Td3BcRefinedConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Weight of the constraint, beside Q-values over their mean size.
    pub alpha: f64,
    /// Policy refinement: the weight is divided by this number, and where it is above 1 the actor alone learns from critics that stay as they are. The
    /// authors use 5 after offline training. 1: no refinement.
    pub refine: f64,
    /// Relaxed constraint: the weight after `relax_steps`.
    pub relaxed_alpha: f64,
    /// Environment steps over which the weight goes from `alpha` to `relaxed_alpha`, by one factor a step. The authors use 250,000 online. 0: the
    /// weight stays.
    pub relax_steps: u64,
    /// Whether Q-values count as they are, as printed, and not over their mean size.
    pub printed: bool,
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
    Td3BcRefinedConfig: settings {
        hidden, batch_size, alpha, refine, relaxed_alpha, relax_steps, printed, normalise, exploration, smoothing, smoothing_clip, policy_period, samples, adam
    }
}

impl Default for Td3BcRefinedConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 256,
            alpha: 0.4,
            refine: 1.0,
            relaxed_alpha: 0.2,
            relax_steps: 0,
            printed: false,
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

impl Td3BcRefinedConfig {
    fn recipe(&self) -> Recipe<'_> {
        let start = refined_alpha(self.alpha, self.refine);
        let constraint = match self.relax_steps {
            0 => Constraint::Fixed(start),
            steps => Constraint::Relaxed { start, end: self.relaxed_alpha, steps },
        };
        Recipe {
            hidden: &self.hidden,
            batch_size: self.batch_size,
            critics: 2,
            subset: 2,
            mean: false,
            form: Form::Constrained { scaled: !self.printed },
            constraint,
            frozen_critics: self.refine > 1.0,
            normalise: self.normalise,
            exploration: self.exploration,
            smoothing: [self.smoothing, self.smoothing_clip],
            policy_period: self.policy_period,
            samples: self.samples,
            adam: self.adam,
        }
    }
}

impl Settings for Td3BcRefinedConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &RefinedConstraint
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        self.recipe().check(checks);
        checks.real("alpha", self.alpha, 1e-9..=1e6, "a weight above 0, from 1e-9 to 1e6");
        checks.real("refine", self.refine, 1.0..=1e6, "1 to 1e6");
        checks.real("relaxed_alpha", self.relaxed_alpha, 1e-9..=1e6, "a weight above 0, from 1e-9 to 1e6");
        checks.whole("relax_steps", self.relax_steps, 0..=1 << 40, "0 to 2^40 steps");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::Actions;
    use crate::engine::Schedule;
    use crate::replay::{Batch, Replay};

    /// The weight of the constraint in each of three updates, and whether the critics moved.
    fn run(config: Td3BcRefinedConfig) -> (Vec<f32>, bool) {
        let sizes = Sizes { observation: 3, actions: Actions::Continuous(1), teachers: 0, weighted: false };
        let config = Td3BcRefinedConfig { hidden: vec![4], batch_size: 4, policy_period: 1, ..config };
        let rng = &mut Rng::new(1);
        let mut agent = config.agent(sizes, &oto_cpu::Cpu, rng).unwrap();
        let mut replay = Replay::new(8, [3, 1], 0, 1, 0.9);
        (0..8).for_each(|i| replay.push(&[i as f32; 3], &[0.1], 1.0, &[0.5; 3], false, false, |_, _| {}));
        let critic = |agent: &dyn Agent| {
            let state = agent.engine().state().unwrap();
            state.into_iter().filter(|t| t.name.starts_with("critics.")).map(|t| t.values).collect::<Vec<_>>()
        };
        let before = critic(&*agent);
        let schedule = Schedule {
            lr: 1e-2,
            target_mix: 0.1,
            alpha_aikd: 0.0,
            delta: 0.0,
            eta: 0.0,
            alpha_task: 1.0,
            share: &[],
        };
        let mut batch = Batch::default();
        let weights = [0, 1, 2].map(|step| {
            agent.at_step(step);
            replay.sample(rng, 4, &mut batch);
            agent.update(&batch, &schedule, rng).unwrap();
            agent.engine().last_loss().unwrap().get("constraint").unwrap()
        });
        (weights.to_vec(), critic(&*agent) != before)
    }

    #[test]
    fn refinement_leaves_the_critics_and_relaxation_lowers_the_weight() {
        let config = Td3BcRefinedConfig::default();
        assert_eq!(run(config.clone()), (vec![0.4; 3], true));
        assert_eq!(run(Td3BcRefinedConfig { refine: 5.0, ..config.clone() }), (vec![0.08; 3], false));
        let relaxed = Td3BcRefinedConfig { relaxed_alpha: 0.1, relax_steps: 2, ..config };
        assert_eq!(run(relaxed), (vec![0.4, 0.2, 0.1], true));
    }

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong =
            |config: Td3BcRefinedConfig| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        let config = Td3BcRefinedConfig::default;
        assert!(wrong(Td3BcRefinedConfig { alpha: 0.0, ..config() }).starts_with("algorithm.alpha is 0"));
        assert!(wrong(Td3BcRefinedConfig { refine: 0.5, ..config() }).starts_with("algorithm.refine is 0.5"));
        let end = Td3BcRefinedConfig { relaxed_alpha: f64::NAN, ..config() };
        assert!(wrong(end).starts_with("algorithm.relaxed_alpha is NaN"));
    }
}

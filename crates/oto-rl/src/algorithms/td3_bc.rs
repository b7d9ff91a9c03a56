//! TD3+BC (Fujimoto and Gu 2021, "A Minimalist Approach to Offline Reinforcement Learning"): TD3 whose actor stays near the data's
//! actions, on observations normalised by the dataset. Settings and the program of one update; the agent is TD3's.
//!
//! Online, the actions of the replay buffer are its data. Actions have components from -1 to 1 here; the trainer scales
//! them to the environment's range.

use super::td3::{Constraint, Deterministic, Parts, act, noise, taught};
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::checks::Checks;
use crate::critics::{Critics, frozen, least, q_value};
use crate::engine::{LearnError, LossParts, aikd_weights};
use crate::exploration::ActionNoise;
use crate::losses;
use crate::losses::deterministic::{bellman_target, smoothed_action};
use crate::losses::offline::{td3_bc, td3_bc_scale};
use crate::normaliser::Normaliser;
use crate::optimiser::{Adam, Optimiser, Updates, mlp_parameters};
use crate::schedule::Linear;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct BehaviourConstraint;

impl Algorithm for BehaviourConstraint {
    fn name(&self) -> &'static str {
        "td3-bc"
    }

    fn title(&self) -> &'static str {
        "TD3 with behaviour cloning: an actor that stays near the data's actions"
    }

    fn paper(&self) -> &'static str {
        "Fujimoto and Gu 2021"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay, Data::Dataset]
    }

    /// The authors' settings: learning rate 3e-4, Polyak share 0.005. The number of updates is for small environments.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            evaluation: (1_000, 10),
            ..Defaults::new(Td3BcConfig::default(), "continuous actions", "the authors' code (sfujim/TD3_BC)")
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<Td3BcConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<Td3BcConfig>(self, generator)
    }
}

/// Settings of TD3+BC. Defaults are those of the authors' code; `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct Td3BcConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Weight of the Q-values in the actor's loss, over their mean size; the constraint has the weight 1.
    pub alpha: f64,
    /// Whether the mean size is that of the data's actions, as printed, instead of the policy's actions, as in the authors' code.
    pub scale_by_data: bool,
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
    Td3BcConfig: settings {
        hidden, batch_size, alpha, scale_by_data, normalise, exploration, smoothing, smoothing_clip, policy_period,
        samples, adam
    }
}

impl Default for Td3BcConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 256,
            alpha: 2.5,
            scale_by_data: false,
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

impl Settings for Td3BcConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &BehaviourConstraint
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        checks.weight("alpha", self.alpha);
        checks.real("exploration", self.exploration, 0.0..=2.0, "0 to 2");
        checks.real("smoothing", self.smoothing, 0.0..=2.0, "0 to 2");
        checks.real("smoothing_clip", self.smoothing_clip, 0.0..=2.0, "0 to 2");
        checks.whole("policy_period", self.policy_period, 1..=1024, "1 to 1024 updates");
        checks.whole("samples", self.samples as u64, 1..=256, "1 to 256 actions a state");
        checks.adam(self.adam);
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
        let parts = Parts {
            critics: 2,
            hidden: &self.hidden,
            exploration: ActionNoise::new(self.exploration, Linear::constant(1.0), 0.0),
            policy_period: self.policy_period,
            actor_starts: None,
            normalised: self.normalise,
            constraint: Constraint::Fixed(0.0),
        };
        let noise = noise(self.batch_size, self.samples, sizes);
        Ok(Box::new(Deterministic::new(program(self, sizes), parts, noise, sizes, backend, rng)?))
    }
}

/// Records one update: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &Td3BcConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (batch, width) = (config.batch_size, sizes.actions.width());
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let actions = |name: &str| t.data(name, &[batch, width]);
    let scalar = |name: &str| t.data(name, &[]);

    let widths = [&[sizes.observation], &config.hidden[..], &[width]].concat();
    let [actor, target_actor] = ["actor.", "target.actor."].map(|prefix| mlp_parameters(t, prefix, &widths));
    let normalised = config.normalise.then(|| Normaliser::record(t, sizes.observation));
    let seen = |name: &str| match &normalised {
        Some(normalised) => normalised(rows(name)),
        None => rows(name),
    };
    let twins = Critics::continuous(t, 2, sizes.observation, &config.hidden, width);
    let (observation, next, known) = (seen("observation"), seen("next_observation"), actions("action"));

    let (sigma, clip) = (config.smoothing, config.smoothing_clip);
    let then = smoothed_action(act(&target_actor, next), actions("next_noise"), sigma, clip, 1.0);
    let next_q = least(q_value(&twins.targets, next, then));
    let target = bellman_target(row("reward"), row("discount"), next_q).stop_gradient();
    let values = q_value(&twins.params, observation, known);
    let [critic_loss, q] = Critics::error(values, target);

    let action = act(&actor, observation);
    let q_pi = q_value(&frozen(&twins.params), observation, action).member(0);
    let scaled_by = if config.scale_by_data { values.member(0) } else { q_pi };
    let actor_loss = td3_bc(q_pi, action, known, td3_bc_scale(scaled_by, config.alpha));

    let weights = aikd_weights(t, sizes.teachers);
    let aikd = taught(t, &twins, observation, action, config.samples, (sizes.teachers, weights));
    let loss = losses::transfer(&aikd, critic_loss + actor_loss, weights);

    let (lr, mix, period) = (scalar("lr"), scalar("target_mix"), config.policy_period);
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("critics", config.adam, lr), &twins.params, loss);
    updates.minimise(&Optimiser::new("actor", config.adam, lr).every(period), &actor, loss);
    updates.follow(&twins.targets, &twins.params, mix, period);
    updates.follow(&target_actor, &actor, mix, period);

    let actor_loss = updates.hold("actor_loss", actor_loss, period);
    let task = critic_loss + actor_loss;
    let loss = losses::transfer(&aikd, task, weights);
    let own = [("actor_loss", actor_loss), ("critic_loss", critic_loss)];
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    t.finish(&updates.pairs(), &[&outputs[..], &own].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong = |config: Td3BcConfig| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        let config = Td3BcConfig::default;
        assert!(wrong(Td3BcConfig { alpha: -1.0, ..config() }).starts_with("algorithm.alpha is -1"));
        assert!(wrong(Td3BcConfig { alpha: f64::NAN, ..config() }).starts_with("algorithm.alpha is NaN"));
        assert!(wrong(Td3BcConfig { policy_period: 0, ..config() }).starts_with("algorithm.policy_period"));
    }

    /// The statistics are state that no optimiser moves, and there are none where nothing is normalised.
    #[test]
    fn normalised_observations_are_a_setting() {
        let sizes = Sizes {
            observation: 3,
            actions: crate::actions::Actions::Continuous(1),
            teachers: 0,
            weighted: false,
        };
        let config = Td3BcConfig { hidden: vec![4], batch_size: 2, ..Td3BcConfig::default() };
        let program = |normalise| Td3BcConfig { normalise, ..config.clone() }.program(sizes);
        assert!(program(true).input("actor.observation.mean").is_some());
        assert!(program(true).input("adam.m.actor.observation.mean").is_none());
        assert!(program(false).input("actor.observation.mean").is_none());
    }
}

//! DDPG (Lillicrap et al. 2016) with the target policy smoothing of "Cloud-Edge Training Architecture for Sim-to-Real Deep Reinforcement
//! Learning" (Cao et al. 2022, eq. 3 to 6), and with the teachers' term of OTO eq. 14. Settings and the program of one update; the agent
//! is TD3's, with one critic.
//!
//! Actions have components from -1 to 1 here; the trainer scales them to the environment's range.

use super::td3::{
    Constraint, Deterministic, Parts, act, check_actor_starts, check_exploration, noise, starting, taught,
};
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Run, Seen, Settings, Sizes};
use crate::checks::Checks;
use crate::critics::{Critics, Importance, frozen, q_value};
use crate::engine::{LearnError, LossParts, aikd_weights};
use crate::exploration::ActionNoise;
use crate::losses;
use crate::losses::deterministic::{bellman_target, deterministic_actor, smoothed_action};
use crate::optimiser::{Adam, Optimiser, Updates, mlp_parameters};
use crate::schedule::Linear;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct DeterministicGradient;

impl Algorithm for DeterministicGradient {
    fn name(&self) -> &'static str {
        "ddpg"
    }

    fn title(&self) -> &'static str {
        "Deep deterministic policy gradient: one critic, a smoothed target"
    }

    fn paper(&self) -> &'static str {
        "Lillicrap et al. 2016; target policy smoothing: Cao et al. 2022"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay]
    }

    /// The settings of Stable-Baselines3 2.9: learning rate 1e-3, Polyak share 0.005, 100 random actions at the start, an update a step.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            learning_starts: 100,
            learning_rate: Linear::constant(1e-3),
            epsilon: Linear { start: 1.0, end: 0.0, steps: 100 },
            evaluation: (1_000, 10),
            ..Defaults::new(
                DdpgConfig::default(),
                "continuous actions",
                "Stable-Baselines3 2.9's DDPG, with exploration and target policy smoothing of the TD3 paper",
            )
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<DdpgConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<DdpgConfig>(self, generator)
    }
}

/// Settings of a DDPG student. Defaults are those of Stable-Baselines3 2.9; those of exploration and smoothing are the TD3 paper's;
/// `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct DdpgConfig {
    /// Widths of the hidden layers of actor and critic, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Standard deviation of the noise on actions that explore.
    pub exploration: f64,
    /// Factor of `exploration` over environment steps.
    pub exploration_factor: Linear,
    /// Correlation time of this noise in environment steps: Ornstein-Uhlenbeck noise. 0: independent noise.
    pub correlation_time: f64,
    /// Standard deviation of the noise on the target's action (Cao et al. 2022, eq. 6). 0: plain DDPG.
    pub smoothing: f64,
    /// Largest noise on the target's action.
    pub smoothing_clip: f64,
    /// Updates from one step of the actor and all target networks to the next, as in TD3. 1: every update.
    pub policy_period: u64,
    /// Environment steps before the actor's first update (N_a of Cao et al. 2022, section III-B), at least the run's `learning_starts`
    /// (N_c), from which on the critic learns. Absent: the actor learns from the beginning, too.
    pub actor_starts: Option<u64>,
    /// Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution.
    pub samples: usize,
    /// The optimisers' constants.
    pub adam: Adam,
}

oto_json::json_object! {
    DdpgConfig: settings {
        hidden, batch_size, exploration, exploration_factor, correlation_time, smoothing, smoothing_clip,
        policy_period, actor_starts omit none, samples, adam
    }
}

impl Default for DdpgConfig {
    fn default() -> Self {
        Self {
            hidden: vec![400, 300],
            batch_size: 256,
            exploration: 0.1,
            exploration_factor: Linear::constant(1.0),
            correlation_time: 0.0,
            smoothing: 0.2,
            smoothing_clip: 0.5,
            policy_period: 1,
            actor_starts: None,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl Settings for DdpgConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &DeterministicGradient
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        check_exploration((self.exploration, self.exploration_factor, self.correlation_time), checks);
        checks.real("smoothing", self.smoothing, 0.0..=2.0, "0 to 2");
        checks.real("smoothing_clip", self.smoothing_clip, 0.0..=2.0, "0 to 2");
        checks.whole("policy_period", self.policy_period, 1..=1024, "1 to 1024 updates");
        checks.whole("samples", self.samples as u64, 1..=256, "1 to 256 actions a state");
        checks.adam(self.adam);
    }

    fn check_run(&self, run: Run, checks: &mut Checks) {
        check_actor_starts(self.actor_starts, run, checks);
    }

    fn can_be_prioritised(&self) -> bool {
        true
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
            critics: 1,
            hidden: &self.hidden,
            exploration: ActionNoise::new(self.exploration, self.exploration_factor, self.correlation_time),
            policy_period: self.policy_period,
            actor_starts: self.actor_starts,
            normalised: false,
            constraint: Constraint::Fixed(0.0),
        };
        let noise = noise(self.batch_size, self.samples, sizes);
        Ok(Box::new(Deterministic::new(program(self, sizes), parts, noise, sizes, backend, rng)?))
    }
}

/// Records one update: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &DdpgConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (batch, width) = (config.batch_size, sizes.actions.width());
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let actions = |name: &str| t.data(name, &[batch, width]);
    let scalar = |name: &str| t.data(name, &[]);

    let widths = [&[sizes.observation], &config.hidden[..], &[width]].concat();
    let [actor, target_actor] = ["actor.", "target.actor."].map(|prefix| mlp_parameters(t, prefix, &widths));
    let critic = Critics::continuous(t, 1, sizes.observation, &config.hidden, width);
    let (observation, next) = (rows("observation"), rows("next_observation"));

    let (sigma, clip) = (config.smoothing, config.smoothing_clip);
    let then = smoothed_action(act(&target_actor, next), actions("next_noise"), sigma, clip, 1.0);
    let next_q = q_value(&critic.targets, next, then).member(0);
    let target = bellman_target(row("reward"), row("discount"), next_q).stop_gradient();
    let values = q_value(&critic.params, observation, actions("action"));
    let importance = Importance::new(t, sizes, batch);
    let [critic_loss, q] = Critics::weighted_error(values, target, importance);

    let action = act(&actor, observation);
    let actor_loss = deterministic_actor(q_value(&frozen(&critic.params), observation, action));

    let weights = aikd_weights(t, sizes.teachers);
    let aikd = taught(t, &critic, observation, action, config.samples, (sizes.teachers, weights));
    let task = critic_loss + actor_loss;
    let loss = losses::transfer(&aikd, task, weights);

    let (lr, mix, period) = (scalar("lr"), scalar("target_mix"), config.policy_period);
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("critic", config.adam, lr), &critic.params, loss);
    let of_actor = Optimiser::new("actor", config.adam, lr).every(period);
    updates.minimise(&starting(of_actor, t, config.actor_starts), &actor, loss);
    updates.follow(&critic.targets, &critic.params, mix, period);
    updates.follow(&target_actor, &actor, mix, period);

    let own = [("actor_loss", actor_loss), ("critic_loss", critic_loss)].into_iter();
    let own = own.chain(importance.output(values, target)).collect::<Vec<_>>();
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    t.finish(&updates.pairs(), &[&outputs[..], &own].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::Actions;
    use oto_graph::Role;

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong = |config: DdpgConfig| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        let config = DdpgConfig::default;
        assert!(wrong(DdpgConfig { smoothing: -0.1, ..config() }).starts_with("algorithm.smoothing is -0.1"));
        assert!(wrong(DdpgConfig { exploration: 3.0, ..config() }).starts_with("algorithm.exploration is 3"));
        assert!(wrong(DdpgConfig { hidden: vec![], ..config() }).starts_with("algorithm.hidden"));
        assert!(wrong(DdpgConfig { policy_period: 0, ..config() }).starts_with("algorithm.policy_period"));
    }

    /// The delay of TD3 adds no state: the parameters of an agent without it fit.
    #[test]
    fn a_delayed_actor_has_the_same_state() {
        let small = |policy_period| DdpgConfig { hidden: vec![8], policy_period, ..DdpgConfig::default() };
        let sizes = Sizes { observation: 3, actions: Actions::Continuous(1), teachers: 0, weighted: false };
        let states = |config: DdpgConfig| {
            let inputs = program(&config, sizes).inputs.into_iter();
            inputs.filter(|input| input.role == Role::State).map(|input| input.name).collect::<Vec<_>>()
        };
        assert_eq!(states(small(1)), states(small(2)));
        assert!(program(&small(2), sizes).input("every_2").is_some());
        assert!(program(&small(1), sizes).input("every_1").is_none());
    }
}

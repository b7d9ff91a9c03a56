//! Advantage-weighted actor-critic (Nair et al. 2020): critics of the policy's own actions, and a policy that imitates the data's actions
//! by their advantage. For continuous actions with sampled actions, for discrete ones with sums over all. Settings and the program of
//! one update; the agent is that of [`super::iql`].

use super::iql::{Parts, Policy, Weighted, noise, q_of, teach, twins};
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::actions::Actions;
use crate::checks::Checks;
use crate::critics::{Critics, Params, least, q_value, q_values};
use crate::engine::{LearnError, LossParts, aikd_weights};
use crate::losses;
use crate::losses::deterministic::bellman_target;
use crate::losses::implicit::{LARGEST_WEIGHT, advantage_weight};
use crate::optimiser::Adam;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program, Tensor, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct AdvantageWeighted;

impl Algorithm for AdvantageWeighted {
    fn name(&self) -> &'static str {
        "awac"
    }

    fn title(&self) -> &'static str {
        "Advantage-weighted actor-critic: the data's actions, imitated by their advantage"
    }

    fn paper(&self) -> &'static str {
        "Nair et al. 2020"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous, ActionKind::Discrete]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay, Data::Dataset]
    }

    /// CORL's settings: learning rate 3e-4, Polyak share 0.005. The number of updates is for small environments.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            evaluation: (1_000, 10),
            ..Defaults::new(AwacConfig::default(), "actions of either kind", "CORL's AWAC (corl-team/CORL)")
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<AwacConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<AwacConfig>(self, generator)
    }
}

/// Settings of advantage-weighted actor-critic. Defaults are CORL's; `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct AwacConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Temperature of the advantages' weights, the paper's lambda.
    pub temperature: f64,
    /// Sampled actions for each state in the sum over continuous actions of OTO eq. 10, from a uniform distribution.
    pub samples: usize,
    /// The optimiser's constants.
    pub adam: Adam,
}

oto_json::json_object! { AwacConfig: settings { hidden, batch_size, temperature, samples, adam } }

impl Default for AwacConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256, 256],
            batch_size: 256,
            temperature: 1.0,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl Settings for AwacConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &AdvantageWeighted
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        checks.real("temperature", self.temperature, 1e-6..=1e6, "above 0, at least 1e-6, at most 1e6");
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
        let noise = noise(&["noise", "next_noise"], self.batch_size, self.samples, sizes);
        let parts = Parts { hidden: &self.hidden, deterministic: false };
        Ok(Box::new(Weighted::new(program(self, sizes), parts, noise, sizes, backend, rng)?))
    }
}

/// Records one update: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &AwacConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let batch = config.batch_size;
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let scalar = |name: &str| t.data(name, &[]);

    let policy = Policy::record(t, &config.hidden, false, sizes);
    let twins = twins(t, &config.hidden, sizes);
    let (observation, next) = (rows("observation"), rows("next_observation"));
    let action = t.data("action", &sizes.actions.shape(batch));

    let value = |critics, x, answer, noise| value(&policy, critics, x, answer, noise);
    let next_value = value(&twins.targets, next, policy.answer(next), "next_noise");
    let target = bellman_target(row("reward"), row("discount"), next_value).stop_gradient();
    let values = q_of(&twins.params, observation, action, sizes.actions);
    let [critic_loss, q] = Critics::error(values, target);

    let out = policy.answer(observation);
    let advantage = (least(values) - value(&twins.params, observation, out, "noise")).stop_gradient();
    let weight = advantage_weight(advantage, 1.0 / config.temperature, LARGEST_WEIGHT);
    let actor_loss = policy.imitation(weight, out, action);

    let weights = aikd_weights(t, sizes.teachers);
    let aikd = teach(t, &twins, observation, out, config.samples, sizes, weights);
    let task = critic_loss + actor_loss;
    let loss = losses::transfer(&aikd, task, weights);

    let params = [&policy.params[..], &twins.params].concat();
    let mut updates = config.adam.step(t, &params, loss, scalar("lr"));
    twins.follow(&mut updates, scalar("target_mix"));
    let own = [
        ("actor_loss", actor_loss),
        ("critic_loss", critic_loss),
        ("advantage", advantage.mean()),
        ("advantage_weight", weight.mean()),
    ];
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    t.finish(&updates, &[&outputs[..], &own].concat())
}

/// The value `[B]` of the policy, whose answer to observations `[B, O]` is known: that of one sampled action, or the mean over all
/// discrete ones.
fn value<'t>(
    policy: &Policy<'t>,
    critics: &Params<'t>,
    observation: Tensor<'t>,
    answer: Tensor<'t>,
    noise: &str,
) -> Tensor<'t> {
    match policy.actions {
        Actions::Continuous(_) => {
            let noise = answer.trace().data(noise, &answer.shape());
            least(q_value(critics, observation, policy.sampled(answer, noise)))
        }
        Actions::Discrete(_) => (answer.softmax() * least(q_values(critics, observation))).sum_last(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong = |config: AwacConfig| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = wrong(AwacConfig { temperature, ..AwacConfig::default() });
            assert!(error.starts_with("algorithm.temperature is "), "{error}");
        }
    }
}

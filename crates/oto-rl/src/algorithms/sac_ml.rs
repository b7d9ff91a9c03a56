//! Soft actor-critic with maximum likelihood, the offline half of actor-critic alignment (Yu and Zhang 2023, "Actor-Critic Alignment for
//! Offline-to-Online Reinforcement Learning"): the policy improves by the critics and stays likely to take the data's actions. Beside it
//! learns Z(s), with which [`super::aca`] rebuilds critics from the policy: Q(s, a) = log pi(a|s) + Z(s) satisfies the Bellman equation
//! of the data.

use super::aca::{self, residual_value};
use super::sac::{Sac, actor_parameters, policy};
use super::td3::taught;
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::checks::Checks;
use crate::critics::{Critics, frozen, least, q_value};
use crate::engine::{LearnError, LossParts, aikd_weights};
use crate::losses;
use crate::losses::actor_critic::{soft_target, squashed_gaussian, temperature};
use crate::losses::alignment::{aligned_q, likelihood_actor, likelihood_scale, squashed_log_prob};
use crate::noise::{Noise, UNIFORM};
use crate::optimiser::{Adam, Optimiser, Updates};
use oto_env::rng::Rng;
use oto_graph::{Backend, Program, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct MaximumLikelihood;

impl Algorithm for MaximumLikelihood {
    fn name(&self) -> &'static str {
        "sac-ml"
    }

    fn title(&self) -> &'static str {
        "Soft actor-critic with maximum likelihood: a policy that is likely to act as the data do, and what aca needs"
    }

    fn paper(&self) -> &'static str {
        "Yu and Zhang 2023"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay, Data::Dataset]
    }

    /// The authors' settings: learning rate 3e-4. The number of updates is for small environments.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            evaluation: (1_000, 10),
            ..Defaults::new(SacMlConfig::default(), "continuous actions", "the authors' code (ZishunYu/ACA)")
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<SacMlConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<SacMlConfig>(self, generator)
    }
}

/// Settings of soft actor-critic with maximum likelihood. Defaults are those of the authors' code; `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct SacMlConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Weight of the Q-values beside the likelihood, over their mean size.
    pub lambda: f64,
    /// Whether the weight is `lambda` itself, as printed.
    pub printed: bool,
    /// Initial temperature.
    pub initial_alpha: f64,
    /// Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution.
    pub samples: usize,
    /// The optimisers' constants.
    pub adam: Adam,
}

oto_json::json_object! {
    SacMlConfig: settings { hidden, batch_size, lambda, printed, initial_alpha, samples, adam }
}

impl Default for SacMlConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 256,
            lambda: 30.0,
            printed: false,
            initial_alpha: 1.0,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl Settings for SacMlConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &MaximumLikelihood
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        checks.weight("lambda", self.lambda);
        checks.real("initial_alpha", self.initial_alpha, 1e-6..=1e3, "1e-6 to 1000");
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
        let noise = noise(self.batch_size, self.samples, sizes);
        let critics = (2, self.initial_alpha);
        Ok(Box::new(Sac::of(
            program(self, sizes),
            (None, &self.hidden),
            critics,
            noise,
            sizes,
            backend,
            rng,
        )?))
    }
}

/// Random numbers of an update of one policy: its actions in this and the next state, and those of OTO eq. 10 where there are teachers.
pub(super) fn noise(rows: usize, samples: usize, sizes: Sizes) -> Noise {
    let sampled = (sizes.teachers > 0).then_some((UNIFORM, rows * samples));
    Noise::new([("noise", rows), ("next_noise", rows)].into_iter().chain(sampled), sizes.actions.width())
}

/// Records one update: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &SacMlConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (batch, width) = (config.batch_size, sizes.actions.width());
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let actions = |name: &str| t.data(name, &[batch, width]);

    let actor = actor_parameters(t, &config.hidden, sizes);
    let twins = Critics::continuous(t, 2, sizes.observation, &config.hidden, width);
    let residuals = aca::residuals(t, &config.hidden, sizes);
    let log_alpha = t.state("log_alpha", &[]);
    let alpha = log_alpha.stop_gradient().exp();
    let (observation, next, known) = (rows("observation"), rows("next_observation"), actions("action"));
    let (reward, discount) = (row("reward"), row("discount"));

    let [next_mean, next_log_std] = policy(&actor, next);
    let then = squashed_gaussian(next_mean, next_log_std, actions("next_noise"));
    let next_q = least(q_value(&twins.targets, next, then.action));
    let target = soft_target(reward, discount, next_q, then.log_prob, alpha).stop_gradient();
    let [critic_loss, q] = Critics::error(q_value(&twins.params, observation, known), target);

    let [mean, log_std] = policy(&actor, observation);
    let now = squashed_gaussian(mean, log_std, actions("noise"));
    let likely = squashed_log_prob(mean, log_std, known);
    let fixed = least(q_value(&frozen(&twins.params), observation, now.action));
    let lambda =
        if config.printed { t.constant(config.lambda, &[]) } else { likelihood_scale(fixed, config.lambda) };
    let actor_loss = likelihood_actor(fixed, now.log_prob, likely, lambda, alpha);
    let tempered = temperature(log_alpha, now.log_prob, -(width as f64));

    // The alignment's Bellman equation: only z learns from it.
    let z = |params, observation| residual_value(params, observation, None, width);
    let next_z = aligned_q(then.log_prob, z(&residuals.targets, next));
    let aligned_target = soft_target(reward, discount, least(next_z), then.log_prob, alpha).stop_gradient();
    let aligned = aligned_q(likely.stop_gradient(), z(&residuals.params, observation));
    let [alignment_loss, _] = Critics::error(aligned, aligned_target);

    let weights = aikd_weights(t, sizes.teachers);
    let teachers = (sizes.teachers, weights);
    let aikd = taught(t, &twins, observation, mean.tanh(), config.samples, teachers);
    let task = critic_loss + actor_loss + tempered;
    let loss = losses::transfer(&aikd, task, weights);

    let lr = t.data("lr", &[]);
    let mix = t.data("target_mix", &[]);
    let mut params = [&actor[..], &twins.params].concat();
    params.push(("log_alpha".into(), log_alpha));
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("", config.adam, lr), &params, loss);
    updates.minimise(&Optimiser::new("residual", config.adam, lr), &residuals.params, alignment_loss);
    updates.follow(&twins.targets, &twins.params, mix, 1);
    updates.follow(&residuals.targets, &residuals.params, mix, 1);
    let own = [
        ("actor_loss", actor_loss),
        ("critic_loss", critic_loss),
        ("alignment_loss", alignment_loss),
        ("likelihood", likely.mean()),
        ("temperature", alpha),
        ("entropy", -now.log_prob.mean()),
    ];
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    t.finish(&updates.pairs(), &[&outputs[..], &own].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong = |config: SacMlConfig| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        let config = SacMlConfig::default;
        assert!(wrong(SacMlConfig { lambda: f64::NAN, ..config() }).starts_with("algorithm.lambda is NaN"));
        assert!(
            wrong(SacMlConfig { initial_alpha: 0.0, ..config() }).starts_with("algorithm.initial_alpha is 0")
        );
    }
}

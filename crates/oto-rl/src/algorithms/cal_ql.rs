//! Calibrated Q-learning (Nakamoto et al. 2023): conservative Q-learning that lowers no value below the return that the data reached from
//! there, so that what follows online does not begin with unlearning. On soft actor-critic, for continuous and for discrete actions.
//! Settings and the program of one update; the agents are those of [`super::sac`] and [`super::sac_discrete`].
//!
//! Programs read the column `return_to_go` of the replay buffer. Where a return is not known yet, the value has no lower bound.

use super::sac::{Sac, SacConfig, actor_parameters, drawn, policy};
use super::sac_discrete::{self, SacDiscrete, TARGET_ENTROPY};
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::actions::Actions;
use crate::checks::Checks;
use crate::critics::{
    self, Base, Critics, each, frozen, least, picked, q_value, q_values, repeated, sum, uniform,
};
use crate::engine::{LearnError, LossParts, aikd_weights};
use crate::losses;
use crate::losses::actor_critic::{
    categorical_entropy, sac_actor, soft_value, squashed_gaussian, temperature,
};
use crate::losses::calibrated::{bound_rate, cal_ql, cal_ql_continuous, cal_ql_discrete, cal_ql_expected};
use crate::losses::deterministic::bellman_target;
use crate::losses::offline::ConservativeForm;
use crate::noise::{Noise, UNIFORM};
use crate::optimiser::{Adam, Optimiser, Updates, mlp as network, mlp_parameters};
use oto_env::rng::Rng;
use oto_graph::{Activation, Backend, Program, Tensor, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct CalibratedQLearning;

impl Algorithm for CalibratedQLearning {
    fn name(&self) -> &'static str {
        "cal-ql"
    }

    fn title(&self) -> &'static str {
        "Calibrated Q-learning: conservative values that stay above the data's returns"
    }

    fn paper(&self) -> &'static str {
        "Nakamoto et al. 2023"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous, ActionKind::Discrete]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay, Data::Dataset]
    }

    /// The authors' settings: learning rate 3e-4 (a third of it for the actor), Polyak share 0.005. The number of updates is for small
    /// environments.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            evaluation: (1_000, 10),
            ..Defaults::new(
                CalQlConfig::default(),
                "actions of either kind",
                "the authors' code (nakamotoo/Cal-QL)",
            )
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<CalQlConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<CalQlConfig>(self, generator)
    }
}

/// Settings of calibrated Q-learning. Defaults are those of the authors' code for AntMaze, with two hidden layers for all networks.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct CalQlConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Weight of the conservative term.
    pub weight: f64,
    /// Continuous actions: actions in the conservative term, from a uniform distribution, from the policy and from the policy at the
    /// next state each.
    pub samples: usize,
    /// Continuous actions: whether the target takes the best of the policy's sampled actions instead of one.
    pub max_target: bool,
    /// Whether the conservative term is the printed one, the mean over the policy's actions beside half the squared error, instead of
    /// the log-sum-exp of the authors' code.
    pub printed: bool,
    /// Learning rate of the actor and of the temperature, as a share of the run's.
    pub actor_rate: f64,
    /// Initial temperature.
    pub initial_alpha: f64,
    /// The optimisers' constants.
    pub adam: Adam,
}

oto_json::json_object! {
    CalQlConfig: settings {
        hidden, batch_size, weight, samples, max_target, printed, actor_rate, initial_alpha, adam
    }
}

impl Default for CalQlConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 256,
            weight: 5.0,
            samples: 10,
            max_target: true,
            printed: false,
            actor_rate: 1.0 / 3.0,
            initial_alpha: 1.0,
            adam: Adam::default(),
        }
    }
}

impl CalQlConfig {
    /// The settings that it shares with soft actor-critic.
    fn shared(&self) -> SacConfig {
        SacConfig {
            hidden: self.hidden.clone(),
            batch_size: self.batch_size,
            initial_alpha: self.initial_alpha,
            ..SacConfig::default()
        }
    }
}

impl Settings for CalQlConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &CalibratedQLearning
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        checks.weight("weight", self.weight);
        checks.whole("samples", self.samples as u64, 1..=256, "1 to 256 actions a state");
        checks.real("actor_rate", self.actor_rate, 0.0..=1e3, "0 to 1000");
        checks.real("initial_alpha", self.initial_alpha, 1e-6..=1e3, "1e-6 to 1000");
        checks.adam(self.adam);
    }

    fn program(&self, sizes: Sizes) -> Program {
        match sizes.actions {
            Actions::Continuous(_) => continuous(self, sizes),
            Actions::Discrete(_) => discrete(self, sizes),
        }
    }

    fn agent(
        &self,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Box<dyn Agent>, LearnError> {
        let program = self.program(sizes);
        if let Actions::Discrete(_) = sizes.actions {
            return Ok(Box::new(SacDiscrete::of(program, &self.shared(), sizes, backend, rng)?));
        }
        let (rows, many) = (self.batch_size, self.batch_size * self.samples);
        let names = [("noise", rows), (UNIFORM, many), ("sample_noise", many), ("next_sample_noise", many)];
        let one = (!self.max_target).then_some(("next_noise", rows));
        let noise = Noise::new(names.into_iter().chain(one), sizes.actions.width());
        let critics = (2, self.initial_alpha);
        Ok(Box::new(Sac::of(program, (None, &self.hidden), critics, noise, sizes, backend, rng)?))
    }
}

/// The lower bound of the policy's values, `[B]`: the return, or a number below all values where it is not known.
fn reached(t: &Trace, batch: usize) -> Tensor<'_> {
    let (value, known) = (t.data("return_to_go", &[batch]), t.data("return_known", &[batch]));
    value * known + (known + -1.0) * 1e9
}

/// Records one update for continuous actions: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old
/// parameters.
fn continuous(config: &CalQlConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (batch, width) = (config.batch_size, sizes.actions.width());
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let actions = |name: &str| t.data(name, &[batch, width]);
    let scalar = |name: &str| t.data(name, &[]);

    let actor = actor_parameters(t, &config.hidden, sizes);
    let twins = Critics::continuous(t, 2, sizes.observation, &config.hidden, width);
    let log_alpha = t.state("log_alpha", &[]);
    let alpha = log_alpha.stop_gradient().exp();
    let (observation, next) = (rows("observation"), rows("next_observation"));
    let (value, many) = (reached(t, batch), [batch, config.samples]);

    let then = drawn(&actor, next, "next_sample_noise", many, width);
    let next_q = match config.max_target {
        true => least(q_value(&twins.targets, repeated(next, config.samples), then.action))
            .reshape(&many)
            .max_last(),
        false => {
            let [mean, log_std] = policy(&actor, next);
            let one = squashed_gaussian(mean, log_std, actions("next_noise"));
            least(q_value(&twins.targets, next, one.action))
        }
    };
    // The authors' target has no entropy.
    let target = bellman_target(row("reward"), row("discount"), next_q).stop_gradient();
    let values = q_value(&twins.params, observation, actions("action"));
    let [errors, q] = Critics::error(values, target);

    let own = drawn(&actor, observation, "sample_noise", many, width);
    let base = Base::new(twins.params.clone(), observation, &[uniform(t, batch, config.samples, width), own]);
    let then = then.groups(&twins.params, observation);
    let known = each(values);
    let terms = base.groups().iter().zip(&then).zip(&known).map(|((own, then), q)| match config.printed {
        true => cal_ql(own[1].0, value, *q),
        false => cal_ql_continuous(own[0], &[*then, own[1]], value, *q, ConservativeForm::default()),
    });
    let conservative = sum(&terms.collect::<Vec<_>>());
    let rate = bound_rate(base.groups()[0][1].0, value);
    let critic_loss = if config.printed { errors * 0.5 } else { errors } + conservative * config.weight;

    let [mean, log_std] = policy(&actor, observation);
    let now = squashed_gaussian(mean, log_std, actions("noise"));
    let fixed = least(q_value(&frozen(&twins.params), observation, now.action));
    let actor_loss = sac_actor(fixed, now.log_prob, alpha);
    let task = critic_loss + actor_loss + temperature(log_alpha, now.log_prob, -(width as f64));

    let weights = aikd_weights(t, sizes.teachers);
    let action = mean.tanh();
    let aikd = critics::labelled(t, "", sizes.teachers, &[batch, width], |labels, perm| {
        losses::aikd_continuous(base.of(labels), action, labels, perm, weights)
    });
    let loss = losses::transfer(&aikd, task, weights);

    let own = [
        ("actor_loss", actor_loss),
        ("critic_loss", critic_loss),
        ("conservative", conservative),
        ("bound_rate", rate),
        ("temperature", alpha),
        ("entropy", -now.log_prob.mean()),
    ];
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    let updates =
        step(t, config, [actor, vec![("log_alpha".into(), log_alpha)]].concat(), &twins, loss, scalar);
    t.finish(&updates.pairs(), &[&outputs[..], &own].concat())
}

/// The critics' step, the policy's with its share of the learning rate, and the targets'.
fn step<'t>(
    t: &'t Trace,
    config: &CalQlConfig,
    policy: critics::Params<'t>,
    twins: &Critics<'t>,
    loss: Tensor<'t>,
    scalar: impl Fn(&str) -> Tensor<'t>,
) -> Updates<'t> {
    let lr = scalar("lr");
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("critics", config.adam, lr), &twins.params, loss);
    updates.minimise(&Optimiser::new("actor", config.adam, lr * config.actor_rate), &policy, loss);
    updates.follow(&twins.targets, &twins.params, scalar("target_mix"), 1);
    updates
}

/// The same for discrete actions, whose expectations are sums.
fn discrete(config: &CalQlConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let batch = config.batch_size;
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let scalar = |name: &str| t.data(name, &[]);

    let actor = mlp_parameters(t, "actor.", &sac_discrete::widths(&config.shared(), sizes));
    let logits = |x| network(&actor, x, Activation::Relu);
    let twins = Critics::discrete(t, 2, sizes.observation, &config.hidden, sizes.actions.outputs());
    let log_alpha = t.state("log_alpha", &[]);
    let alpha = log_alpha.stop_gradient().exp();
    let (observation, next) = (rows("observation"), rows("next_observation"));
    let value = reached(t, batch);

    let next_q = (logits(next).softmax() * least(q_values(&twins.targets, next))).sum_last();
    let target = bellman_target(row("reward"), row("discount"), next_q).stop_gradient();
    let (taken, known) = (row("action"), q_values(&twins.params, observation));
    let [errors, q] = Critics::error(picked(known, taken), target);

    let now = logits(observation);
    let chances = now.softmax().stop_gradient();
    let terms = each(known).into_iter().map(|q| match config.printed {
        true => cal_ql_expected(q, value, chances, taken).mean(),
        false => cal_ql_discrete(q, value, taken).mean(),
    });
    let conservative = sum(&terms.collect::<Vec<_>>());
    let rate = bound_rate(known.member(0), value);
    let critic_loss = if config.printed { errors * 0.5 } else { errors } + conservative * config.weight;

    let fixed = least(q_values(&frozen(&twins.params), observation));
    let actor_loss = -soft_value(fixed, now.log_softmax(), alpha).mean();
    let spread = categorical_entropy(now);
    let entropy = TARGET_ENTROPY * (sizes.actions.outputs() as f64).ln();
    let task = critic_loss + actor_loss + temperature(log_alpha, -spread, entropy);

    let weights = aikd_weights(t, sizes.teachers);
    let both = sum(&each(known)) * 0.5;
    let aikd = critics::labelled(t, "", sizes.teachers, &[batch], |labels, perm| {
        losses::aikd(both, labels, perm, weights.delta, weights.eta)
    });
    let loss = losses::transfer(&aikd, task, weights);

    let own = [
        ("actor_loss", actor_loss),
        ("critic_loss", critic_loss),
        ("conservative", conservative),
        ("bound_rate", rate),
        ("temperature", alpha),
        ("entropy", spread.mean()),
    ];
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    let policy = [&actor[..], &[("log_alpha".into(), log_alpha)]].concat();
    let updates = step(t, config, policy, &twins, loss, scalar);
    t.finish(&updates.pairs(), &[&outputs[..], &own].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong = |config: CalQlConfig| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        let config = CalQlConfig::default;
        assert!(wrong(CalQlConfig { weight: -1.0, ..config() }).starts_with("algorithm.weight is -1"));
        assert!(wrong(CalQlConfig { samples: 0, ..config() }).starts_with("algorithm.samples is 0"));
        let error = wrong(CalQlConfig { actor_rate: f64::NAN, ..config() });
        assert!(error.starts_with("algorithm.actor_rate is NaN"), "{error}");
    }
}

//! EDAC (An et al. 2021, "Uncertainty-Based Offline Reinforcement Learning with Diversified Q-Ensemble"): soft actor-critic with N critics
//! whose smallest value counts, kept apart by the diversity of their gradients. With `eta` 0 it is SAC-N. Settings and the program of
//! one update; the agent is soft actor-critic's.

use super::sac::{Sac, actor_parameters, policy};
use super::td3::taught;
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::checks::Checks;
use crate::critics::{Critics, Params, frozen, least, q_value};
use crate::engine::{LearnError, LossParts, aikd_weights};
use crate::losses;
use crate::losses::actor_critic::{sac_actor, soft_target, squashed_gaussian, temperature};
use crate::losses::ensemble::edac_diversity;
use crate::noise::{Noise, UNIFORM};
use crate::optimiser::{Adam, mlp};
use oto_env::rng::Rng;
use oto_graph::{Activation, Backend, Program, Tensor, Trace, grad};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct DiversifiedEnsemble;

impl Algorithm for DiversifiedEnsemble {
    fn name(&self) -> &'static str {
        "edac"
    }

    fn title(&self) -> &'static str {
        "Ensemble-diversified actor-critic: SAC with many critics that are kept apart; SAC-N with eta 0"
    }

    fn paper(&self) -> &'static str {
        "An et al. 2021"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous]
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
            ..Defaults::new(EdacConfig::default(), "continuous actions", "CORL's EDAC (corl-team/CORL)")
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<EdacConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<EdacConfig>(self, generator)
    }
}

/// Settings of EDAC. Defaults are CORL's; `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct EdacConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Critics.
    pub critics: usize,
    /// Weight of the diversity. 0: SAC-N.
    pub eta: f64,
    /// Initial temperature.
    pub initial_alpha: f64,
    /// Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution.
    pub samples: usize,
    /// The optimiser's constants.
    pub adam: Adam,
}

oto_json::json_object! {
    EdacConfig: settings { hidden, batch_size, critics, eta, initial_alpha, samples, adam }
}

impl Default for EdacConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256, 256],
            batch_size: 256,
            critics: 10,
            eta: 1.0,
            initial_alpha: 1.0,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl Settings for EdacConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &DiversifiedEnsemble
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        checks.whole("critics", self.critics as u64, 1..=512, "1 to 512 critics");
        checks.weight("eta", self.eta);
        let enough = self.critics >= 2 || self.eta == 0.0;
        checks.that(
            enough,
            "critics",
            || self.critics.to_string(),
            "two critics or more where eta is above 0",
        );
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
        let rows = self.batch_size;
        let sampled = (sizes.teachers > 0).then_some((UNIFORM, rows * self.samples));
        let names = [("noise", rows), ("next_noise", rows)].into_iter().chain(sampled);
        let noise = Noise::new(names, sizes.actions.width());
        let critics = (self.critics, self.initial_alpha);
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

/// Records one update: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &EdacConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (batch, width) = (config.batch_size, sizes.actions.width());
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let actions = |name: &str| t.data(name, &[batch, width]);
    let scalar = |name: &str| t.data(name, &[]);

    let actor = actor_parameters(t, &config.hidden, sizes);
    let ensemble = Critics::continuous(t, config.critics, sizes.observation, &config.hidden, width);
    let log_alpha = t.state("log_alpha", &[]);
    let alpha = log_alpha.stop_gradient().exp();
    let (observation, next) = (rows("observation"), rows("next_observation"));

    let [mean, log_std] = policy(&actor, next);
    let then = squashed_gaussian(mean, log_std, actions("next_noise"));
    let next_q = least(q_value(&ensemble.targets, next, then.action));
    let target = soft_target(row("reward"), row("discount"), next_q, then.log_prob, alpha).stop_gradient();
    let (values, diversity) = match config.eta > 0.0 {
        true => diversified(&ensemble.params, observation, actions("action")),
        false => (q_value(&ensemble.params, observation, actions("action")), t.constant(0.0, &[])),
    };
    let [critic_loss, q] = Critics::error(values, target);

    let [mean, log_std] = policy(&actor, observation);
    let now = squashed_gaussian(mean, log_std, actions("noise"));
    let fixed = least(q_value(&frozen(&ensemble.params), observation, now.action));
    let actor_loss = sac_actor(fixed, now.log_prob, alpha);
    let temperature = temperature(log_alpha, now.log_prob, -(width as f64));
    let task = critic_loss + diversity * config.eta + actor_loss + temperature;

    let weights = aikd_weights(t, sizes.teachers);
    let teachers = (sizes.teachers, weights);
    let aikd = taught(t, &ensemble, observation, mean.tanh(), config.samples, teachers);
    let loss = losses::transfer(&aikd, task, weights);

    let mut params = [&actor[..], &ensemble.params].concat();
    params.push(("log_alpha".into(), log_alpha));
    let mut updates = config.adam.step(t, &params, loss, scalar("lr"));
    ensemble.follow(&mut updates, scalar("target_mix"));
    let own = [
        ("actor_loss", actor_loss),
        ("critic_loss", critic_loss),
        ("diversity", diversity),
        ("temperature", alpha),
        ("entropy", -now.log_prob.mean()),
    ];
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    t.finish(&updates, &[&outputs[..], &own].concat())
}

/// Q-values `[N, B]`, and the diversity of their gradients towards the action. Each critic has an action of its own, so that one
/// gradient of all values' sum holds each critic's.
fn diversified<'t>(
    critics: &Params<'t>,
    observation: Tensor<'t>,
    action: Tensor<'t>,
) -> (Tensor<'t>, Tensor<'t>) {
    let (n, batch) = (critics[0].1.size(0), action.size(0));
    let spread = |x: Tensor<'t>| x.reshape(&[1, batch, x.size(1)]).broadcast(&[n, batch, x.size(1)]) + 0.0;
    let own = spread(action);
    let values = mlp(critics, spread(observation).concat(own), Activation::Relu).reshape(&[n, batch]);
    (values, edac_diversity(grad(values.sum(), &[own])[0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::Actions;

    #[test]
    fn settings_out_of_their_range_are_named() {
        let check = |config: EdacConfig| AlgorithmConfig::from(config).validate().map_err(|e| e.to_string());
        let config = EdacConfig::default;
        let alone = check(EdacConfig { critics: 1, ..config() }).unwrap_err();
        assert_eq!(alone, "algorithm.critics is 1: two critics or more where eta is above 0");
        assert_eq!(check(EdacConfig { critics: 1, eta: 0.0, ..config() }), Ok(()));
        assert!(check(EdacConfig { critics: 0, eta: 0.0, ..config() }).unwrap_err().contains("critics is 0"));
        assert!(check(EdacConfig { eta: f64::NAN, ..config() }).unwrap_err().contains("eta is NaN"));
    }

    /// Without diversity the update is that of soft actor-critic: the same parameters, and no second derivative.
    #[test]
    fn with_two_critics_and_no_diversity_it_is_soft_actor_critic() {
        let sizes = Sizes { observation: 3, actions: Actions::Continuous(1), teachers: 0, weighted: false };
        let small = EdacConfig { hidden: vec![4], batch_size: 2, critics: 2, ..EdacConfig::default() };
        let states = |program: Program| {
            let state = program.inputs.into_iter().filter(|input| input.role == oto_graph::Role::State);
            state.map(|input| (input.name, input.shape)).collect::<Vec<_>>()
        };
        let sac = crate::algorithms::sac::SacConfig { hidden: vec![4], batch_size: 2, ..Default::default() };
        assert_eq!(states(small.program(sizes)), states(sac.program(sizes)));
    }
}

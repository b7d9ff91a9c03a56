//! Implicit Q-learning (Kostrikov et al. 2022): expectile regression of the value, Q-values of the data's own actions, and a policy by
//! advantage-weighted regression, so that no action outside the data is ever valued. For continuous and for discrete actions. Settings,
//! the program of one update, and the agent, which [`super::awac`] has too.
//!
//! Where the authors' code lets the actor's learning rate fall to 0 by a cosine, a run's schedule of the learning rate is that of all
//! networks. Actions have components from -1 to 1 here; the trainer scales them to the environment's range.

use super::ppo::categorical;
use super::td3::taught;
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::actions::Actions;
use crate::checks::Checks;
use crate::critics::{
    self, Critics, InitialParameters, Params, each, initial, initial_critics, initial_mlp, least, picked,
    q_value, q_values, sum,
};
use crate::engine::{Engine, LearnError, Learner, LossParts, Schedule, aikd_weights};
use crate::losses;
use crate::losses::deterministic::bellman_target;
use crate::losses::implicit::{
    LARGEST_WEIGHT, advantage_weight, expectile, weighted_error, weighted_gaussian, weighted_softmax,
};
use crate::mlp::{self, Mlp};
use crate::network::Actor;
use crate::noise::{Noise, UNIFORM};
use crate::optimiser::{Adam, mlp as network, mlp_parameters};
use crate::replay::Batch;
use oto_env::rng::Rng;
use oto_env::within;
use oto_graph::{Activation, Backend, Program, Tensor, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct ImplicitQLearning;

impl Algorithm for ImplicitQLearning {
    fn name(&self) -> &'static str {
        "iql"
    }

    fn title(&self) -> &'static str {
        "Implicit Q-learning: values of the data's actions alone, and an advantage-weighted policy"
    }

    fn paper(&self) -> &'static str {
        "Kostrikov et al. 2022"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous, ActionKind::Discrete]
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
            ..Defaults::new(
                IqlConfig::default(),
                "actions of either kind",
                "the authors' settings for MuJoCo's bodies (ikostrikov/implicit_q_learning)",
            )
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<IqlConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<IqlConfig>(self, generator)
    }
}

/// Settings of implicit Q-learning. Defaults are the authors' for MuJoCo's bodies; `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct IqlConfig {
    /// Widths of the hidden layers of all networks, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// The expectile of the value: 0.5 is the mean, near 1 the largest value among the data's actions. The authors use 0.9 for
    /// AntMaze.
    pub expectile: f64,
    /// Inverse temperature of the advantages' weights: 0 clones the data. The authors use 10 for AntMaze.
    pub inverse_temperature: f64,
    /// Continuous actions: whether the policy is deterministic, with a weighted squared error, instead of a Gaussian.
    pub deterministic: bool,
    /// Sampled actions for each state in the sum over continuous actions of OTO eq. 10, from a uniform distribution.
    pub samples: usize,
    /// The optimiser's constants.
    pub adam: Adam,
}

oto_json::json_object! {
    IqlConfig: settings { hidden, batch_size, expectile, inverse_temperature, deterministic, samples, adam }
}

impl Default for IqlConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 256,
            expectile: 0.7,
            inverse_temperature: 3.0,
            deterministic: false,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl Settings for IqlConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &ImplicitQLearning
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        checks.real("expectile", self.expectile, 1e-6..=1.0 - 1e-6, "above 0 and below 1");
        let beta = self.inverse_temperature;
        checks.real("inverse_temperature", beta, 0.0..=1e6, "0 to 1e6");
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
        let noise = noise(&[], self.batch_size, self.samples, sizes);
        let parts = Parts { hidden: &self.hidden, deterministic: self.deterministic };
        Ok(Box::new(Weighted::new(program(self, sizes), parts, noise, sizes, backend, rng)?))
    }
}

/// Records one update: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &IqlConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let batch = config.batch_size;
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let scalar = |name: &str| t.data(name, &[]);

    let policy = Policy::record(t, &config.hidden, config.deterministic, sizes);
    let value = mlp_parameters(t, "value.", &[&[sizes.observation], &config.hidden[..], &[1]].concat());
    let twins = twins(t, &config.hidden, sizes);
    let (observation, next) = (rows("observation"), rows("next_observation"));
    let action = t.data("action", &sizes.actions.shape(batch));
    let value_of = |x| network(&value, x, Activation::Relu).reshape(&[batch]);

    let known = least(q_of(&twins.targets, observation, action, sizes.actions)).stop_gradient();
    let now = value_of(observation);
    let value_loss = expectile(known, now, config.expectile);
    let target = bellman_target(row("reward"), row("discount"), value_of(next)).stop_gradient();
    let [errors, q] = Critics::error(q_of(&twins.params, observation, action, sizes.actions), target);
    let critic_loss = errors * 0.5;
    let advantage = known - now;
    let weight = advantage_weight(advantage, config.inverse_temperature, LARGEST_WEIGHT);
    let out = policy.answer(observation);
    let actor_loss = policy.imitation(weight, out, action);

    let weights = aikd_weights(t, sizes.teachers);
    let aikd = teach(t, &twins, observation, out, config.samples, sizes, weights);
    let task = critic_loss + value_loss + actor_loss;
    let loss = losses::transfer(&aikd, task, weights);

    let params = [&policy.params[..], &value, &twins.params].concat();
    let mut updates = config.adam.step(t, &params, loss, scalar("lr"));
    twins.follow(&mut updates, scalar("target_mix"));
    let own = [
        ("actor_loss", actor_loss),
        ("critic_loss", critic_loss),
        ("value_loss", value_loss),
        ("advantage", advantage.mean()),
        ("advantage_weight", weight.mean()),
    ];
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    t.finish(&updates, &[&outputs[..], &own].concat())
}

/// Two critics: of observation and action, or with a value for each discrete action.
pub(super) fn twins<'t>(t: &'t Trace, hidden: &[usize], sizes: Sizes) -> Critics<'t> {
    match sizes.actions {
        Actions::Continuous(width) => Critics::continuous(t, 2, sizes.observation, hidden, width),
        Actions::Discrete(count) => Critics::discrete(t, 2, sizes.observation, hidden, count),
    }
}

/// Q-values `[N, B]` of actions in their states.
pub(super) fn q_of<'t>(
    params: &Params<'t>,
    observation: Tensor<'t>,
    action: Tensor<'t>,
    actions: Actions,
) -> Tensor<'t> {
    match actions {
        Actions::Continuous(_) => q_value(params, observation, action),
        Actions::Discrete(_) => picked(q_values(params, observation), action),
    }
}

/// What each teacher's labels give (OTO eq. 10 to 12): on the critics, and for continuous actions on what acts.
pub(super) fn teach<'t>(
    t: &'t Trace,
    twins: &Critics<'t>,
    observation: Tensor<'t>,
    out: Tensor<'t>,
    samples: usize,
    sizes: Sizes,
    weights: losses::AikdWeights<'t>,
) -> Vec<losses::Aikd<'t>> {
    match sizes.actions {
        Actions::Continuous(_) => taught(t, twins, observation, out, samples, (sizes.teachers, weights)),
        Actions::Discrete(_) if sizes.teachers > 0 => {
            let both = sum(&each(q_values(&twins.params, observation))) * 0.5;
            critics::labelled(t, "", sizes.teachers, &[observation.size(0)], |labels, perm| {
                losses::aikd(both, labels, perm, weights.delta, weights.eta)
            })
        }
        Actions::Discrete(_) => Vec::new(),
    }
}

/// Where the logarithm of the policy's standard deviation is cut off, as in the authors' code.
pub(super) const LOG_STD: [f64; 2] = [-20.0, 2.0];

/// A policy as recorded: logits, or a Gaussian with a tanh mean and one standard deviation for all states.
pub(super) struct Policy<'t> {
    /// Of the network, then `actor.log_std`.
    pub params: Params<'t>,
    log_std: Option<Tensor<'t>>,
    pub actions: Actions,
}

impl<'t> Policy<'t> {
    /// A Gaussian has a standard deviation unless it is deterministic.
    pub fn record(t: &'t Trace, hidden: &[usize], deterministic: bool, sizes: Sizes) -> Self {
        let mut params = mlp_parameters(t, "actor.", &widths(hidden, sizes));
        let log_std = has_spread(deterministic, sizes.actions).then(|| {
            let log_std = t.state("actor.log_std", &[sizes.actions.width()]);
            params.push(("actor.log_std".into(), log_std));
            let bound = |b| t.constant(b, &[]);
            log_std.maximum(bound(LOG_STD[0])).minimum(bound(LOG_STD[1]))
        });
        Self { params, log_std, actions: sizes.actions }
    }

    /// Logits `[B, A]`, or the mean action `[B, D]`, for observations `[B, O]`.
    pub fn answer(&self, observation: Tensor<'t>) -> Tensor<'t> {
        let layers = self.params.len() & !1;
        let out = network(&self.params[..layers], observation, Activation::Relu);
        match self.actions {
            Actions::Continuous(_) => out.tanh(),
            Actions::Discrete(_) => out,
        }
    }

    /// An action `[B, D]` of the Gaussian with this mean, from standard normal noise.
    pub fn sampled(&self, mean: Tensor<'t>, noise: Tensor<'t>) -> Tensor<'t> {
        let Some(log_std) = self.log_std else { return mean };
        let bound = |b| mean.trace().constant(b, &[]);
        (mean + log_std.exp() * noise).maximum(bound(-1.0)).minimum(bound(1.0))
    }

    /// The actor's loss: the data's actions, each with its weight `[B]`, beside this answer.
    pub fn imitation(&self, weight: Tensor<'t>, answer: Tensor<'t>, action: Tensor<'t>) -> Tensor<'t> {
        match (self.actions, self.log_std) {
            (Actions::Discrete(_), _) => weighted_softmax(weight, answer, action),
            (_, Some(log_std)) => weighted_gaussian(weight, answer, log_std, action),
            (_, None) => weighted_error(weight, answer, action),
        }
    }
}

pub(super) fn widths(hidden: &[usize], sizes: Sizes) -> Vec<usize> {
    [&[sizes.observation], hidden, &[sizes.actions.outputs()]].concat()
}

fn has_spread(deterministic: bool, actions: Actions) -> bool {
    !deterministic && matches!(actions, Actions::Continuous(_))
}

/// Random numbers of an update: these for each row, and the actions of OTO eq. 10 where there are teachers.
pub(super) fn noise(names: &[&'static str], rows: usize, samples: usize, sizes: Sizes) -> Noise {
    let continuous = matches!(sizes.actions, Actions::Continuous(_));
    let sampled = (sizes.teachers > 0).then_some((UNIFORM, rows * samples));
    let all = names.iter().map(|name| (*name, rows)).chain(sampled);
    Noise::new(all.filter(|_| continuous), sizes.actions.width())
}

/// The parts of an agent with an advantage-weighted policy.
pub(super) struct Parts<'a> {
    /// Widths of the hidden layers of all networks.
    pub hidden: &'a [usize],
    /// Whether continuous actions have no spread.
    pub deterministic: bool,
}

/// An agent with an advantage-weighted policy: owns its parameters, improves them, acts with them.
pub(super) struct Weighted {
    hidden: Vec<usize>,
    sizes: Sizes,
    engine: Engine,
    /// Gives logits, or the action before its tanh.
    actor: Mlp,
    /// Empty where the policy has no spread.
    log_std: Vec<f32>,
    noise: Noise,
}

impl Weighted {
    /// An agent with parameters drawn from `rng`; its target critics start as copies.
    pub fn new(
        program: Program,
        parts: Parts<'_>,
        noise: Noise,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let engine = Engine::new(program, "actor.", backend)?;
        let actor = Mlp::zeros(&widths(parts.hidden, sizes), mlp::Activation::Relu);
        let spread = has_spread(parts.deterministic, sizes.actions);
        let log_std = vec![0.0; if spread { sizes.actions.width() } else { 0 }];
        let mut agent = Self { hidden: parts.hidden.to_vec(), sizes, engine, actor, log_std, noise };
        agent.start_over(rng)?;
        Ok(agent)
    }
}

impl Agent for Weighted {
    fn actions(&self) -> Actions {
        self.sizes.actions
    }

    /// The likeliest action, its index or its components.
    fn act(&mut self, observation: &[f32], action: &mut [f32]) {
        let out = self.actor.forward(observation);
        match self.sizes.actions {
            Actions::Discrete(_) => action[0] = mlp::choice(out),
            Actions::Continuous(_) => action.iter_mut().zip(out).for_each(|(a, x)| *a = x.tanh()),
        }
    }

    /// An action drawn from the policy.
    fn sample(&mut self, observation: &[f32], rng: &mut Rng, action: &mut [f32]) {
        if let Actions::Discrete(_) = self.sizes.actions {
            action[0] = categorical(self.actor.forward(observation), rng);
            return;
        }
        self.act(observation, action);
        for (a, log_std) in action.iter_mut().zip(&self.log_std) {
            let std = within(*log_std, LOG_STD[0] as f32, LOG_STD[1] as f32).exp();
            *a = within(*a + std * rng.normal() as f32, -1.0, 1.0);
        }
    }

    fn update(&mut self, batch: &Batch, schedule: &Schedule, rng: &mut Rng) -> Result<(), LearnError> {
        self.noise.draw(rng);
        let noise = |name: &str| self.noise.input(name);
        let find = |name: &str| batch.input(name).or_else(|| schedule.input(name)).or_else(|| noise(name));
        match self.engine.update(find)? {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    /// Logits, or the mean before its tanh.
    fn policy(&self) -> Actor {
        self.actor.clone().into()
    }
}

impl Learner for Weighted {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    fn hand_over(&mut self) -> Result<(), LearnError> {
        let next = self.engine.acting_layers(0, &mut self.actor)?;
        match self.log_std.is_empty() {
            true => Ok(()),
            false => self.engine.acting(next, &mut self.log_std),
        }
    }

    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let (hidden, sizes) = (&self.hidden[..], self.sizes);
        let mut initial_values = InitialParameters::new();
        initial_mlp(rng, "actor.", &widths(hidden, sizes), &mut initial_values);
        let (inputs, outputs) = match sizes.actions {
            Actions::Continuous(width) => (sizes.observation + width, 1),
            Actions::Discrete(count) => (sizes.observation, count),
        };
        initial_critics(rng, 2, &[&[inputs], hidden, &[outputs]].concat(), &mut initial_values);
        // Not every algorithm has a network of values: what is drawn for one that is not there is left.
        initial_mlp(rng, "value.", &[&[sizes.observation], hidden, &[1]].concat(), &mut initial_values);
        self.engine
            .start(|input| initial(&initial_values, &input.name).unwrap_or_else(|| vec![0.0; input.len()]))?;
        self.hand_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong = |config: IqlConfig| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        let config = IqlConfig::default;
        for expectile in [0.0, 1.0, -0.5, f64::NAN] {
            let error = wrong(IqlConfig { expectile, ..config() });
            assert!(error.starts_with("algorithm.expectile is "), "{error}");
            assert!(error.ends_with("above 0 and below 1"), "{error}");
        }
        let error = wrong(IqlConfig { inverse_temperature: -1.0, ..config() });
        assert!(error.starts_with("algorithm.inverse_temperature is -1"), "{error}");
    }

    #[test]
    fn only_a_gaussian_has_a_standard_deviation() {
        let config = IqlConfig { hidden: vec![4], batch_size: 2, ..IqlConfig::default() };
        let has = |deterministic, actions| {
            let sizes = Sizes { observation: 3, actions, teachers: 0, weighted: false };
            let program = IqlConfig { deterministic, ..config.clone() }.program(sizes);
            program.input("actor.log_std").is_some()
        };
        assert!(has(false, Actions::Continuous(2)) && !has(true, Actions::Continuous(2)));
        assert!(!has(false, Actions::Discrete(2)));
    }
}

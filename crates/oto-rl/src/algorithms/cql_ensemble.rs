//! An ensemble of CQL agents, the offline half of "Offline-to-Online Reinforcement Learning via Balanced Replay and Pessimistic
//! Q-Ensemble" (Lee et al. 2021): each has an actor, two critics and a temperature of its own, learns as continuous CQL does from the
//! same batches, and the Gaussian with the mean and the variance of all policies acts. Settings, the program of one update, and the
//! agent.
//!
//! For discrete actions a member is a Q-network: `q_ensemble.rs`.
//!
//! The members' networks are computed side by side: N actors, and 2 N critics, of which i and N + i are member i's.

use super::balanced_replay::initial_density;
use super::q_ensemble::{self, QEnsemble};
use super::side_by_side::SideBySide;
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::actions::Actions;
use crate::checks::Checks;
use crate::critics::{
    Critics, InitialParameters, Params, frozen, initial, initial_critics, initial_ensemble, repeated,
};
use crate::engine::{Engine, LearnError, Learner, LossParts, Schedule};
use crate::losses::actor_critic::{sac_actor, soft_target, squashed_gaussian, temperature};
use crate::losses::ensemble::spread_of_critics;
use crate::losses::offline::cql_continuous;
use crate::network::Actor;
use crate::noise::{Noise, UNIFORM};
use crate::optimiser::{Adam, ensemble_parameters, mlp as network};
use crate::replay::Batch;
use oto_env::rng::Rng;
use oto_env::within;
use oto_graph::{Activation, Backend, Program, Tensor, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct ConservativeEnsemble;

impl Algorithm for ConservativeEnsemble {
    fn name(&self) -> &'static str {
        "cql-ensemble"
    }

    fn title(&self) -> &'static str {
        "An ensemble of CQL agents whose policies act as one"
    }

    fn paper(&self) -> &'static str {
        "Lee et al. 2021; CQL: Kumar et al. 2020"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous, ActionKind::Discrete]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Dataset]
    }

    /// The number of updates is for small environments.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            evaluation: (1_000, 10),
            ..Defaults::new(
                CqlEnsembleConfig::default(),
                "actions of either kind",
                "the ensemble's authors' five agents, each with the settings of continuous CQL",
            )
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<CqlEnsembleConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<CqlEnsembleConfig>(self, generator)
    }
}

/// Settings of an ensemble of CQL agents. Defaults are those of continuous CQL, and the authors' number of agents.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct CqlEnsembleConfig {
    /// Agents.
    pub agents: usize,
    /// Widths of the hidden layers of actors and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Weight of the conservative term.
    pub weight: f64,
    /// Continuous actions: actions in the conservative term, from a uniform distribution, from the policy and from the policy at the next state each.
    pub samples: usize,
    /// Continuous actions: initial temperature.
    pub initial_alpha: f64,
    /// The optimiser's constants.
    pub adam: Adam,
}

oto_json::json_object! {
    CqlEnsembleConfig: settings { agents, hidden, batch_size, weight, samples, initial_alpha, adam }
}

impl Default for CqlEnsembleConfig {
    fn default() -> Self {
        Self {
            agents: 5,
            hidden: vec![256, 256],
            batch_size: 256,
            weight: 5.0,
            samples: 10,
            initial_alpha: 1.0,
            adam: Adam::default(),
        }
    }
}

impl Settings for CqlEnsembleConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &ConservativeEnsemble
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.whole("agents", self.agents as u64, 2..=64, "2 to 64 agents: one alone is cql");
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        checks.weight("weight", self.weight);
        checks.whole("samples", self.samples as u64, 1..=256, "1 to 256 actions a state");
        checks.real("initial_alpha", self.initial_alpha, 1e-6..=1e3, "1e-6 to 1000");
        checks.adam(self.adam);
    }

    fn program(&self, sizes: Sizes) -> Program {
        match sizes.actions {
            Actions::Continuous(_) => program(self, sizes),
            Actions::Discrete(_) => q_ensemble::offline(self, sizes),
        }
    }

    fn agent(
        &self,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Box<dyn Agent>, LearnError> {
        match sizes.actions {
            Actions::Continuous(_) => Ok(Box::new(CqlEnsemble::new(self, sizes, backend, rng)?)),
            Actions::Discrete(_) => {
                let members = (self.agents, &self.hidden[..]);
                Ok(Box::new(QEnsemble::of(self.program(sizes), members, sizes, backend, rng)?))
            }
        }
    }
}

/// Where the logarithm of a standard deviation is cut off, as in soft actor-critic.
const LOG_STD: [f64; 2] = [-20.0, 2.0];

/// Each policy's mean and log standard deviation, `[N, R, D]`, for observations `[R, O]`.
pub(super) fn policies<'t>(actors: &Params<'t>, observation: Tensor<'t>) -> [Tensor<'t>; 2] {
    let out = network(actors, observation, Activation::Relu);
    let width = out.size(2) / 2;
    let bound = |b| out.trace().constant(b, &[]);
    let log_std = out.slice_last(width, width);
    [out.slice_last(0, width), log_std.maximum(bound(LOG_STD[0])).minimum(bound(LOG_STD[1]))]
}

/// What belongs to N members for their 2 N critics: `[N, ...]` twice.
pub(super) fn for_both(x: Tensor<'_>) -> Tensor<'_> {
    let mut shape = x.shape();
    let all = shape.iter().product::<usize>();
    shape[0] *= 2;
    x.reshape(&[1, all]).broadcast(&[2, all]).reshape(&shape)
}

/// Q-values `[2 N, R]` of observations `[R, O]` and actions `[2 N, R, D]`.
pub(super) fn values<'t>(critics: &Params<'t>, observation: Tensor<'t>, action: Tensor<'t>) -> Tensor<'t> {
    let (critics_count, rows, width) = (action.size(0), observation.size(0), observation.size(1));
    let seen = observation.reshape(&[1, rows, width]).broadcast(&[critics_count, rows, width]);
    network(critics, seen.concat(action), Activation::Relu).reshape(&[critics_count, rows])
}

/// The values of sampled actions `[2 N, B * count, D]`, and their log densities, as `[2 N * B, count]`: the critics' rows one below the
/// other.
fn group<'t>(
    critics: &Params<'t>,
    observation: Tensor<'t>,
    action: Tensor<'t>,
    log_density: Tensor<'t>,
    count: usize,
) -> (Tensor<'t>, Tensor<'t>) {
    let shape = [log_density.size(0) * log_density.size(1) / count, count];
    (values(critics, observation, action).reshape(&shape), log_density.reshape(&shape))
}

/// The smaller one of each member's two values: `[2 N, R]` gives `[N, R]`.
fn smaller(q: Tensor<'_>) -> Tensor<'_> {
    let pairs = q.reshape(&[2, q.size(0) / 2, q.size(1)]);
    pairs.member(0).minimum(pairs.member(1))
}

/// Records one update for continuous actions: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &CqlEnsembleConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (n, batch, count) = (config.agents, config.batch_size, config.samples);
    let (width, many) = (sizes.actions.width(), batch * count);
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let scalar = |name: &str| t.data(name, &[]);
    let noise = |name: &str, rows: usize| t.data(name, &[n, rows, width]);

    let actors = ensemble_parameters(t, "actors.", n, &actor_widths(&config.hidden, sizes));
    let critics = Critics::continuous(t, 2 * n, sizes.observation, &config.hidden, width);
    let log_alpha = t.state("log_alpha", &[n]);
    let alpha = log_alpha.stop_gradient().exp().reshape(&[n, 1]);
    let (observation, next) = (rows("observation"), rows("next_observation"));

    let [mean, log_std] = policies(&actors, next);
    let then = squashed_gaussian(mean, log_std, noise("next_noise", batch));
    let next_q = smaller(values(&critics.targets, next, for_both(then.action)));
    let target = soft_target(row("reward"), row("discount"), next_q, then.log_prob, alpha).stop_gradient();
    let taken = t.data("action", &[batch, width]).reshape(&[1, batch, width]);
    let known = values(&critics.params, observation, taken.broadcast(&[2 * n, batch, width]));
    let critic_loss = (known.reshape(&[2, n, batch]) - target).square().mean_last().sum();

    let [mean, log_std] = policies(&actors, observation);
    let now = squashed_gaussian(mean, log_std, noise("noise", batch));
    let fixed = smaller(values(&frozen(&critics.params), observation, for_both(now.action)));
    let actor_loss = sac_actor(fixed, now.log_prob, alpha) * n as f64;
    let entropy = -(width as f64);
    let temperatures = (0..n).map(|i| temperature(log_alpha.member(i), now.log_prob.member(i), entropy));
    let temperatures = temperatures.reduce(|a, b| a + b).expect("two agents or more");

    let again = |x| repeated(x, count);
    let own = |x, name: &str| {
        let [mean, log_std] = policies(&frozen(&actors), again(x));
        let own = squashed_gaussian(mean, log_std, noise(name, many));
        group(&critics.params, again(observation), for_both(own.action), for_both(own.log_prob), count)
    };
    let flat = t.constant(entropy * std::f64::consts::LN_2, &[2 * n, many]);
    let uniform = t.data(UNIFORM, &[many, width]).reshape(&[1, many, width]);
    let uniform = uniform.broadcast(&[2 * n, many, width]);
    let groups = [
        group(&critics.params, again(observation), uniform, flat, count),
        own(observation, "sample_noise"),
        own(next, "next_sample_noise"),
    ];
    let conservative = cql_continuous(&groups, known.reshape(&[2 * n * batch])) * (2 * n) as f64;

    let loss = critic_loss + conservative * config.weight + actor_loss + temperatures;
    let mut params = [&actors[..], &critics.params].concat();
    params.push(("log_alpha".into(), log_alpha));
    let mut updates = config.adam.step(t, &params, loss, scalar("lr"));
    critics.follow(&mut updates, scalar("target_mix"));
    let own = [
        ("actor_loss", actor_loss),
        ("critic_loss", critic_loss),
        ("conservative", conservative),
        ("spread", spread_of_critics(smaller(known)).mean()),
        ("temperature", alpha.mean()),
        ("entropy", -now.log_prob.mean()),
    ];
    let none = t.constant(0.0, &[]);
    let outputs = LossParts::outputs(t, loss, loss, &[], none, known.mean());
    t.finish(&updates, &[&outputs[..], &own].concat())
}

/// An actor gives the mean of each component of an action, then their log standard deviations.
pub(super) fn actor_widths(hidden: &[usize], sizes: Sizes) -> Vec<usize> {
    [&[sizes.observation], hidden, &[2 * sizes.actions.width()]].concat()
}

/// An ensemble of agents: owns its parameters, improves them, acts with them.
pub struct CqlEnsemble {
    agents: usize,
    hidden: Vec<usize>,
    initial_alpha: f64,
    sizes: Sizes,
    engine: Engine,
    /// Each actor's `[2 D]`.
    actors: SideBySide,
    noise: Noise,
}

impl CqlEnsemble {
    /// An ensemble with parameters drawn from `rng`; its target critics start as copies.
    pub fn new(
        config: &CqlEnsembleConfig,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let (rows, many) = (config.batch_size, config.batch_size * config.samples);
        let noise = Noise::new(
            [
                ("noise", config.agents * rows),
                ("next_noise", config.agents * rows),
                (UNIFORM, many),
                ("sample_noise", config.agents * many),
                ("next_sample_noise", config.agents * many),
            ],
            sizes.actions.width(),
        );
        let members = (config.agents, &config.hidden[..], config.initial_alpha);
        Self::of(program(config, sizes), members, noise, sizes, backend, rng)
    }

    /// The same with a program of another algorithm: its number of agents of these layers, and its initial temperature.
    pub(super) fn of(
        program: Program,
        (agents, hidden, initial_alpha): (usize, &[usize], f64),
        noise: Noise,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let engine = Engine::new(program, "actors.", backend)?;
        let actors = SideBySide::new(agents, &actor_widths(hidden, sizes));
        let mut ensemble =
            Self { agents, hidden: hidden.to_vec(), initial_alpha, sizes, engine, actors, noise };
        ensemble.start_over(rng)?;
        Ok(ensemble)
    }
}

impl Agent for CqlEnsemble {
    fn actions(&self) -> Actions {
        self.sizes.actions
    }

    /// The mean of all policies' means, without noise.
    fn act(&mut self, observation: &[f32], action: &mut [f32]) {
        let each = self.actors.forward(observation).chunks_exact(2 * action.len());
        action.fill(0.0);
        let share = 1.0 / self.agents as f32;
        each.for_each(|one| action.iter_mut().zip(one).for_each(|(a, mean)| *a += mean * share));
        action.iter_mut().for_each(|a| *a = a.tanh());
    }

    /// An action drawn from the Gaussian with the mean and the variance of the policies' mixture.
    fn sample(&mut self, observation: &[f32], rng: &mut Rng, action: &mut [f32]) {
        let width = action.len();
        let out = self.actors.forward(observation);
        let share = 1.0 / self.agents as f32;
        for (i, a) in action.iter_mut().enumerate() {
            let (mut mean, mut square) = (0.0, 0.0);
            for one in out.chunks_exact(2 * width) {
                let std = within(one[width + i], LOG_STD[0] as f32, LOG_STD[1] as f32).exp();
                mean += one[i] * share;
                square += (std * std + one[i] * one[i]) * share;
            }
            let std = (square - mean * mean).max(0.0).sqrt();
            *a = (mean + std * rng.normal() as f32).tanh();
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

    /// One network that gives the mean of all means, before its tanh.
    fn policy(&self) -> Actor {
        self.actors.mean(self.sizes.observation, self.sizes.actions.width())
    }
}

impl Learner for CqlEnsemble {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    fn hand_over(&mut self) -> Result<(), LearnError> {
        self.actors.take(&mut self.engine)
    }

    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let (agents, sizes) = (self.agents, self.sizes);
        let mut initial_values = InitialParameters::new();
        let widths = actor_widths(&self.hidden, sizes);
        initial_ensemble(rng, "actors.", agents, &widths, &mut initial_values);
        let widths = [&[sizes.observation + sizes.actions.width()], &self.hidden[..], &[1]].concat();
        initial_critics(rng, 2 * agents, &widths, &mut initial_values);
        if self.engine.program().input("density.0.weight").is_some() {
            initial_density(rng, &widths, &mut initial_values);
        }
        let log_alpha = self.initial_alpha.ln() as f32;
        let value = |input: &oto_graph::Input| match input.name.as_str() {
            "log_alpha" => vec![log_alpha; input.len()],
            name => initial(&initial_values, name).unwrap_or_else(|| vec![0.0; input.len()]),
        };
        self.engine.start(value)?;
        self.hand_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_is_no_ensemble() {
        let config = CqlEnsembleConfig { agents: 1, ..CqlEnsembleConfig::default() };
        let error = AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        assert_eq!(error, "algorithm.agents is 1: 2 to 64 agents: one alone is cql");
    }
}

//! Advantage actor-critic from short rollouts: the learner of the asynchronous advantage actor-critic (Mnih et al. 2016), in the form of
//! "Collaborative Deep Reinforcement Learning" (Lin et al. 2017, Algorithm 1), with the teachers' term of OTO eq. 14, and with the
//! distillation of teachers' logits ([`crate::distillation`]).
//!
//! Policy and value function share all layers but the last. An update takes one rollout of `t_max` steps in their order: generalised
//! advantages that are not normalised, discounted returns as the value's target, sums over the steps, and gradients that are clipped by
//! their common norm. A rollout does not end with its episode: no advantage and no return crosses the end, so that the sums are the same.
//! With an LSTM layer before both heads ([`A3cConfig::lstm`]) the program unrolls it over the rollout, from the state before its first step;
//! the state is zero where an episode begins.

use super::{
    ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Judgement, OnPolicy, Rollouts, Run, Seen,
    Settings, Sizes, Steps,
};
use crate::actions::Actions;
use crate::algorithms::ppo::{categorical, log_sum_exp};
use crate::checks::Checks;
use crate::convolution::Convolution;
use crate::critics::{self, InitialParameters, Params, initial};
use crate::distillation::DistillationConfig;
use crate::engine::{Engine, LearnError, Learner, LossParts, Schedule, aikd_weights};
use crate::losses::actor_critic::{GaeStep, categorical_entropy};
use crate::losses::collaborative::{a3c_policy, a3c_value, rollout_returns};
use crate::losses::{self, Aikd};
use crate::lstm;
use crate::mlp;
use crate::network::{Actor, Shape};
use crate::optimiser::{
    Adam, clipped_by_global_norm, global_norm, mlp as connected, mlp_parameters, orthogonal_layer,
};
use crate::recurrent::{self, KEEP, STATE, States};
use crate::replay::Batch;
use crate::schedule::Linear;
use crate::shared::{self, Part};
use oto_env::rng::Rng;
use oto_graph::{Activation, Backend, Program, Tensor, Trace, grad};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct AdvantageActorCritic;

impl Algorithm for AdvantageActorCritic {
    fn name(&self) -> &'static str {
        "a3c"
    }

    fn title(&self) -> &'static str {
        "Advantage actor-critic: one step of policy and value function after each short rollout"
    }

    fn paper(&self) -> &'static str {
        "Mnih et al. 2016; Lin et al. 2017"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Discrete]
    }

    fn images(&self) -> bool {
        true
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Rollouts]
    }

    fn in_pages(&self) -> bool {
        false
    }

    /// The settings of the authors' code, but for the learning rate: CartPole's, by measurement.
    fn defaults(&self, seen: Seen) -> Defaults {
        let source =
            "illidanlab/cdrl, with a learning rate measured in CartPole (ten seeds of ten end at 500)";
        let usual = Defaults {
            steps: 200_000,
            buffer: 10_000,
            stretches: true,
            learning_rate: Linear { start: 1.5e-3, end: 0.0, steps: 200_000 },
            eta: 5.0,
            evaluation: (5_000, 10),
            ..Defaults::new(A3cConfig::default(), "discrete actions", source)
        };
        let Some((shape, (convolution, units))) = seen.images.and_then(|s| Some((s, Convolution::usual(s)?)))
        else {
            return usual;
        };
        let config =
            A3cConfig { convolution: Some(convolution), hidden: vec![units], ..A3cConfig::default() };
        // The authors' rate is for Atari's frames.
        let rate = if shape[1] < 36 { 3e-4 } else { 1e-4 };
        Defaults {
            algorithm: config.into(),
            environments: "images of bytes",
            source: "illidanlab/cdrl; the learning rate of small images is ours",
            learning_rate: Linear::constant(rate),
            evaluation: (20_000, 3),
            ..usual
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<A3cConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<A3cConfig>(self, generator)
    }
}

/// The settings of an advantage actor-critic.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct A3cConfig {
    /// Convolutional layers for image observations, before the hidden layers.
    pub convolution: Option<Convolution>,
    /// Widths of the hidden layers, which policy and value function share (tanh after each, ReLU after convolutions).
    pub hidden: Vec<usize>,
    /// Units of an LSTM layer after the hidden layers, which policy and value function read: 1 to 4096; none without one. It is unrolled over
    /// the steps of a rollout, 256 at most.
    pub lstm: Option<usize>,
    /// Environment steps in a rollout, which is one update.
    pub t_max: usize,
    /// Lambda of generalised advantage estimation.
    pub gae_lambda: f64,
    /// Weight of the value function's squared error; 1 as printed, 0.25 in the authors' code.
    pub value_weight: f64,
    /// Weight of the policy's entropy.
    pub entropy_weight: f64,
    /// Limit of the gradients' norm, over all parameters together.
    pub max_grad_norm: f64,
    /// The optimiser's constants.
    pub adam: Adam,
    /// Distillation of teachers' logits (section 4 of Lin et al. 2017).
    pub distillation: Option<DistillationConfig>,
}

oto_json::json_object! {
    A3cConfig: settings { convolution omit none, hidden, lstm omit none, t_max, gae_lambda, value_weight, entropy_weight, max_grad_norm, adam, distillation omit none }
}

impl Default for A3cConfig {
    fn default() -> Self {
        Self {
            convolution: None,
            hidden: vec![128],
            lstm: None,
            t_max: 20,
            gae_lambda: 1.0,
            value_weight: 0.25,
            entropy_weight: 0.01,
            max_grad_norm: 40.0,
            adam: Adam::default(),
            distillation: None,
        }
    }
}

impl Settings for A3cConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &AdvantageActorCritic
    }

    fn batch_size(&self) -> usize {
        self.t_max
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.convolution(self.convolution.as_ref());
        checks.whole("t_max", self.t_max as u64, 1..=65_536, "1 to 65536 steps");
        if let Some(units) = self.lstm {
            checks.whole("lstm", units as u64, 1..=4096, "1 to 4096 units");
            let expected =
                format!("1 to {MAX_UNROLLED} steps with an LSTM layer, which is unrolled over them");
            checks.that(self.t_max <= MAX_UNROLLED, "t_max", || self.t_max.to_string(), &expected);
        }
        checks.real("gae_lambda", self.gae_lambda, 0.0..=1.0, "0 to 1");
        checks.weight("value_weight", self.value_weight);
        checks.weight("entropy_weight", self.entropy_weight);
        checks.real("max_grad_norm", self.max_grad_norm, 1e-6..=1e12, "a length above 0");
        checks.adam(self.adam);
        if let Some(distillation) = &self.distillation {
            checks.within("distillation", |checks| distillation.check(checks));
        }
    }

    fn check_run(&self, run: Run, checks: &mut Checks) {
        let (n_step, held) = (run.n_step, run.buffer);
        let expected = "1 for a3c, which learns from rollouts";
        checks.that(n_step == 1, "n_step", || n_step.to_string(), expected);
        let expected = "at least algorithm.t_max transitions";
        checks.that(held >= self.t_max, "buffer", || held.to_string(), expected);
    }

    fn convolution(&self) -> Option<&Convolution> {
        self.convolution.as_ref()
    }

    fn distillation(&self) -> Option<&DistillationConfig> {
        self.distillation.as_ref()
    }

    fn set_distillation(&mut self, distillation: Option<DistillationConfig>) -> bool {
        self.distillation = distillation;
        true
    }

    fn fits(&self, sizes: Sizes) -> Result<(), String> {
        self.distillation.as_ref().map_or(Ok(()), |d| d.fits(sizes.actions.outputs()))
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
        Ok(Box::new(ActorCritic::new(self, sizes, backend, rng)?))
    }

    fn is_recurrent(&self) -> bool {
        self.lstm.is_some()
    }

    fn is_asynchronous(&self) -> bool {
        true
    }

    fn part(
        &self,
        part: Part,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Box<dyn Agent>, LearnError> {
        Ok(Box::new(ActorCritic::of(part, self, sizes, backend, rng)?))
    }
}

/// The most steps that an LSTM layer is unrolled over: the program grows with them.
const MAX_UNROLLED: usize = 256;
/// All parameters act; their names begin so, the shared layers' with [`TRUNK`].
const ACTING: &str = "agent.";
const TRUNK: &str = "agent.trunk.";
const LSTM: &str = "agent.lstm.";
const HEADS: [&str; 2] = ["agent.policy.", "agent.value."];

impl A3cConfig {
    /// The shared layers up to the LSTM layer, and the width of the last of them.
    fn trunk(&self, sizes: Sizes) -> (Shape<'_>, usize) {
        let (last, before) = self.hidden.split_last().expect("a checked configuration has a hidden layer");
        (self.shaped(Shape::new(self.convolution.as_ref(), sizes.observation, before, *last)), *last)
    }

    /// How many numbers both heads read.
    fn split(&self, sizes: Sizes) -> usize {
        self.lstm.unwrap_or_else(|| self.trunk(sizes).1)
    }

    /// The whole network to one head's outputs.
    fn whole(&self, sizes: Sizes, outputs: usize) -> Actor {
        let Some(units) = self.lstm else {
            let shape = Shape::new(self.convolution.as_ref(), sizes.observation, &self.hidden, outputs);
            return self.shaped(shape).actor();
        };
        let mut before = self.trunk(sizes).0.actor();
        let last = before.parts_mut().1.last_mut().expect("a checked configuration has a hidden layer");
        last.activation = if self.convolution.is_some() { Activation::Relu } else { Activation::Tanh };
        recurrent::network(before, units, outputs)
    }

    /// What gives values: the whole network, or a head that reads the LSTM layer's output.
    fn valued(&self, sizes: Sizes) -> Actor {
        match self.lstm {
            Some(units) => mlp::Mlp::zeros(&[units, 1], Activation::Identity).into(),
            None => self.whole(sizes, 1),
        }
    }

    fn shaped<'c>(&self, shape: Shape<'c>) -> Shape<'c> {
        if self.convolution.is_some() { shape } else { shape.tanh() }
    }
}

/// Policy and value function on a trace.
struct Network<'t, 'c> {
    trunk: Shape<'c>,
    tanh: bool,
    layers: Params<'t>,
    /// Empty without an LSTM layer.
    lstm: Params<'t>,
    units: usize,
    heads: [Params<'t>; 2],
}

impl<'t, 'c> Network<'t, 'c> {
    fn new(t: &'t Trace, config: &'c A3cConfig, sizes: Sizes) -> Self {
        let ((trunk, last), split) = (config.trunk(sizes), config.split(sizes));
        let layers = trunk.parameters(t, TRUNK);
        let lstm = config.lstm.map_or(Params::new(), |units| lstm::parameters(t, LSTM, last, units));
        let outputs = [sizes.actions.outputs(), 1];
        let head = |i: usize| mlp_parameters(t, HEADS[i], &[split, outputs[i]]);
        let (tanh, heads) = (config.convolution.is_none(), [head(0), head(1)]);
        Self { trunk, tanh, layers, lstm, units: config.lstm.unwrap_or(0), heads }
    }

    /// What both heads read `[T, H]`, logits `[T, A]` and values `[T]` of observations `[T, O]`, which an LSTM layer takes as consecutive
    /// steps.
    fn forward(&self, observation: Tensor<'t>) -> [Tensor<'t>; 3] {
        let seen = self.trunk.forward(&self.layers, observation);
        let mut seen = if self.tanh { seen.tanh() } else { seen.relu() };
        if self.units > 0 {
            let (t, steps) = (seen.trace(), seen.size(0));
            let (state, keep) = (t.data(STATE, &[2, self.units]), t.data(KEEP, &[steps]));
            seen = lstm::unrolled(&self.lstm, seen, state, keep);
        }
        let [logits, value] = self.heads.each_ref().map(|head| connected(head, seen, Activation::Identity));
        [seen, logits, value.reshape(&[observation.size(0)])]
    }

    fn parameters(&self) -> Params<'t> {
        [&self.layers[..], &self.lstm, &self.heads[0], &self.heads[1]].concat()
    }
}

/// One update from a rollout.
pub fn program(config: &A3cConfig, sizes: Sizes) -> Program {
    program_of(Part::Whole, config, sizes)
}

/// A part of an update from a rollout.
pub fn program_of(part: Part, config: &A3cConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let network = Network::new(t, config, sizes);
    let split = config.split(sizes);
    let distillation = config.distillation.as_ref();
    let heads = distillation.map_or(Params::new(), |d| d.heads(t, [split, sizes.actions.outputs()]));
    let params = [network.parameters(), heads.clone()].concat();
    if part == Part::Shared {
        let (gradients, norm) = shared::received(t, &params, config.max_grad_norm);
        let updates = config.adam.descend(t, &params, &gradients, t.data("lr", &[]));
        return t.finish(&updates, &[("gradient_norm", norm)]);
    }
    let row = |name: &str| t.data(name, &[config.t_max]);
    let [seen, logits, value] = network.forward(t.data("observation", &[config.t_max, sizes.observation]));
    let acted = a3c_policy(logits, row("action"), row("advantage"), config.entropy_weight).sum();
    let valued = a3c_value(value, row("target")).sum();
    let task = acted + valued * config.value_weight;
    let distilled = distillation.map(|d| d.record(t, &heads, seen, logits));
    let own = distilled.as_ref().map_or(task, |d| d.beside(task));

    let weights = aikd_weights(t, sizes.teachers);
    let none = t.constant(0.0, &[]);
    let aikd =
        critics::labelled(t, "", sizes.teachers, &sizes.actions.shape(config.t_max), |labels, perm| {
            // RKD on what acts; there are no Q-values for BASE.
            Aikd { base: none, ..losses::aikd(logits, labels, perm, none, weights.eta) }
        });
    let loss = losses::transfer(&aikd, own, weights);
    let loss = distilled.as_ref().map_or(loss, |d| loss + d.weighted());

    let gradients = grad(loss, &params.iter().map(|(_, p)| *p).collect::<Vec<_>>());
    let norm = global_norm(&gradients).unwrap_or(none);
    let updates = match part {
        Part::Worker => Vec::new(),
        _ => {
            let clipped = clipped_by_global_norm(&gradients, config.max_grad_norm);
            config.adam.descend(t, &params, &clipped, t.data("lr", &[]))
        }
    };
    let mut reported = vec![
        ("policy_loss", acted),
        ("value_loss", valued),
        ("entropy", categorical_entropy(logits).mean()),
        ("gradient_norm", norm),
    ];
    reported.extend(distilled.iter().map(|d| ("distillation_loss", d.loss)));
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, value.mean());
    let mut outputs = [&outputs[..], &reported].concat();
    let sent = if part == Part::Worker { shared::sent(&params, gradients) } else { Vec::new() };
    outputs.extend(sent.iter().map(|(name, gradient)| (name.as_str(), *gradient)));
    t.finish(&updates, &outputs)
}

/// The log probability of an action.
fn log_prob(logits: &[f32], action: f32) -> f32 {
    logits[action as usize] - log_sum_exp(logits)
}

/// A student: owns its parameters, improves them, acts with them.
pub struct ActorCritic {
    config: A3cConfig,
    sizes: Sizes,
    part: Part,
    engine: Engine,
    /// Gives logits; has a copy of the shared layers, as the value function has where there is no LSTM layer.
    policy: Actor,
    value: Actor,
    /// Only with an LSTM layer.
    states: Option<States>,
}

impl ActorCritic {
    /// A student with parameters drawn from `rng`: orthogonal layers of gain sqrt 2, the policy's head of 0.01, the value's of 1.
    pub fn new(
        config: &A3cConfig,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        Self::of(Part::Whole, config, sizes, backend, rng)
    }

    /// The same with a part of the update.
    fn of(
        part: Part,
        config: &A3cConfig,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let engine = Engine::new(program_of(part, config, sizes), ACTING, backend)?;
        let (policy, value) = (config.whole(sizes, sizes.actions.outputs()), config.valued(sizes));
        let states = config.lstm.map(|_| States::new(policy.state().len()));
        let mut student = Self { config: config.clone(), sizes, part, engine, policy, value, states };
        student.start_over(rng)?;
        Ok(student)
    }
}

impl Agent for ActorCritic {
    fn actions(&self) -> Actions {
        self.sizes.actions
    }

    /// The likeliest action.
    fn act(&mut self, observation: &[f32], action: &mut [f32]) {
        let Self { policy, states, .. } = self;
        action[0] = mlp::choice(match states {
            Some(states) => states.greedy(policy, observation),
            None => policy.forward(observation),
        });
    }

    /// An action drawn from the policy.
    fn sample(&mut self, observation: &[f32], rng: &mut Rng, action: &mut [f32]) {
        let Self { policy, states, .. } = self;
        let logits = match states {
            Some(states) => states.draw(policy, observation),
            None => policy.forward(observation),
        };
        action[0] = categorical(logits, rng);
    }

    fn begin_episode(&mut self) {
        self.states.iter_mut().for_each(States::begin_episode);
    }

    fn stepped(&mut self, observation: &[f32]) {
        if let Some(states) = &mut self.states {
            states.stepped(&mut self.policy, observation);
        }
    }

    fn begin_greedy(&mut self) {
        self.states.iter_mut().for_each(States::begin_greedy);
    }

    fn memory(&self) -> Vec<f32> {
        self.states.as_ref().map_or(Vec::new(), States::save)
    }

    fn recall(&mut self, memory: &[f32]) -> bool {
        self.states.as_mut().map_or(memory.is_empty(), |states| states.restore(memory))
    }

    /// Only its own actions say how good its policy is: `epsilon` does not count, but its draw is made.
    fn explore(&mut self, observation: &[f32], _: f64, rng: &mut Rng, action: &mut [f32]) {
        rng.f64();
        self.sample(observation, rng, action);
    }

    fn update(&mut self, batch: &Batch, schedule: &Schedule, _: &mut Rng) -> Result<(), LearnError> {
        let Self { engine, states, .. } = self;
        let own = |name: &str| states.as_ref().and_then(|states| states.input(name));
        match engine
            .update(|name| own(name).or_else(|| batch.input(name)).or_else(|| schedule.input(name)))?
        {
            // A worker's parameters change with the next ones that it fetches.
            true if self.part != Part::Worker => self.hand_over(),
            _ => Ok(()),
        }
    }

    fn policy(&self) -> Actor {
        let mut policy = self.policy.clone();
        policy.state_mut().fill(0.0);
        policy
    }

    fn on_policy(&mut self) -> Option<&mut dyn OnPolicy> {
        Some(self)
    }
}

impl OnPolicy for ActorCritic {
    fn rollouts(&self) -> Rollouts {
        let A3cConfig { t_max, gae_lambda, .. } = self.config;
        Rollouts { length: t_max, batch_size: t_max, epochs: 1, gae_lambda, normalise: false, replay: false }
    }

    fn log_prob(&mut self, observations: &[f32], actions: &[f32], out: &mut Vec<f32>) {
        let outputs = self.sizes.actions.outputs();
        let logits = self.logits(observations).chunks_exact(outputs);
        out.extend(logits.zip(actions).map(|(logits, a)| log_prob(logits, *a)));
    }

    /// With an LSTM layer, of states `[rows, H]` of that layer: [`Self::judge`] takes the place of this.
    fn value(&mut self, observations: &[f32]) -> &[f32] {
        self.value.forward(observations)
    }

    fn logits(&mut self, observations: &[f32]) -> &[f32] {
        if self.states.is_some() {
            let rows = observations.len() / self.policy.inputs();
            let mut states = vec![0.0; rows * self.policy.state().len()];
            return self.policy.forward_from(observations, &mut states);
        }
        self.policy.forward(observations)
    }

    fn judged_logits(&mut self, observations: &[f32]) -> &[f32] {
        match &self.states {
            Some(states) => states.logits(),
            None => self.policy.forward(observations),
        }
    }

    fn begin_rollout(&mut self) {
        self.states.iter_mut().for_each(States::begin_rollout);
    }

    fn judge(&mut self, steps: Steps<'_>, out: &mut Judgement) {
        if let Some(states) = &mut self.states {
            return states.judge(&mut self.policy, &mut self.value, steps, log_prob, out);
        }
        self.log_prob(steps.observation, steps.action, &mut out.log_prob);
        out.value.extend_from_slice(self.value.forward(steps.observation));
        out.next_value.extend_from_slice(self.value.forward(steps.next_observation));
    }

    fn targets(&self, steps: &[GaeStep], _: &[f64], gamma: f64, targets: &mut [f64]) {
        rollout_returns(steps, gamma, targets);
    }
}

impl Learner for ActorCritic {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// The program has the shared layers, the policy's head and the value's head, in this order.
    fn hand_over(&mut self) -> Result<(), LearnError> {
        let Self { engine, policy, value, .. } = self;
        let (before, shared) = (policy.parameters().count(), value.parameters().count() - 2);
        for (i, part) in policy.parameters_mut().enumerate() {
            engine.acting(i, part)?;
        }
        for (i, part) in value.parameters_mut().enumerate() {
            engine.acting(if i < shared { i } else { before + i - shared }, part)?;
        }
        Ok(())
    }

    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let ((trunk, last), split) = (self.config.trunk(self.sizes), self.config.split(self.sizes));
        let mut initial_values = InitialParameters::new();
        trunk.orthogonal(rng, TRUNK, std::f64::consts::SQRT_2, &mut initial_values);
        if let Some(units) = self.config.lstm {
            lstm::initial(rng, LSTM, last, units, &mut initial_values);
        }
        for (name, outputs, gain) in [(HEADS[0], self.sizes.actions.outputs(), 0.01), (HEADS[1], 1, 1.0)] {
            let (weight, bias) = orthogonal_layer(rng, split, outputs, gain);
            initial_values.extend([(format!("{name}0.weight"), weight), (format!("{name}0.bias"), bias)]);
        }
        if let Some(distillation) = &self.config.distillation {
            distillation.initial([split, self.sizes.actions.outputs()], rng, &mut initial_values);
        }
        self.engine
            .start(|input| initial(&initial_values, &input.name).unwrap_or_else(|| vec![0.0; input.len()]))?;
        self.hand_over()
    }
}

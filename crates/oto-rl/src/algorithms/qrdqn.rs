//! QR-DQN (Dabney et al. 2018) with the teachers' term of OTO eq. 14: settings, the program of one update, and the agent.

use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes, Teaching};
use crate::actions::Actions;
use crate::checks::Checks;
use crate::convolution::Convolution;
use crate::critics::Importance;
use crate::engine::{Engine, LearnError, Learner, LossParts, Schedule, aikd_weights};
use crate::losses::distillation::{SoftTargets, policy_and_value};
use crate::losses::offline::cql_discrete;
use crate::losses::{self, Labels};
use crate::mlp;
use crate::network::{Actor, Shape};
use crate::optimiser::Adam;
use crate::replay::Batch;
use crate::schedule::Linear;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program, Tensor, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct QuantileRegression;

impl Algorithm for QuantileRegression {
    fn name(&self) -> &'static str {
        "qrdqn"
    }

    fn title(&self) -> &'static str {
        "Q-learning on quantiles of the return; with one quantile a DQN"
    }

    fn paper(&self) -> &'static str {
        "Dabney et al. 2018"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Discrete]
    }

    fn images(&self) -> bool {
        true
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay]
    }

    fn defaults(&self, seen: Seen) -> Defaults {
        seen.images.map_or_else(rows, images)
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<QrDqnConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<QrDqnConfig>(self, generator)
    }
}

/// Learning rate, quantiles, discount and exploration are those of RL Baselines3 Zoo for Acrobot-v1. Ours are: half the zoo's
/// units, batches and updates, for the time they take; a learning rate that falls to a tenth; a target network that follows
/// at every update and acts. Runs on LunarLander-v3 with seeds 101 to 103 chose them (docs/more-results.md); batches of 64
/// with an update every second step were not among the settings tried there.
fn rows() -> Defaults {
    let config =
        QrDqnConfig { hidden: vec![128, 128], quantiles: 25, double: true, ..QrDqnConfig::default() };
    let source = "RL Baselines3 Zoo, hyperparams/qrdqn.yml, Acrobot-v1, with half its units, batches and updates, a learning \
                  rate that falls and a target network that follows slowly, measured on LunarLander-v3 (docs/more-results.md)";
    Defaults {
        stretches: true,
        train_every: 2,
        learning_rate: Linear { start: 6.3e-4, end: 6.3e-5, steps: 50_000 },
        epsilon: Linear { start: 1.0, end: 0.1, steps: 6_000 },
        ..Defaults::new(config, "discrete actions", source)
    }
}

/// The network of Mnih et al. (2015), for images `[channels, height, width]` that are too small for it the one of
/// [`Convolution::usual`], and the settings of Tianshou 2.0's QR-DQN for Atari games (200 quantiles, batches of 32, learning
/// rate 1e-4, three steps to a transition, the target replaced every 500 updates, 100,000 transitions), with Mnih's update
/// every four steps and an exploration of a tenth of the run, because a student of this size takes tens of thousands of steps
/// and not millions.
fn images(shape: [usize; 3]) -> Defaults {
    let (convolution, units) = Convolution::usual(shape).unwrap_or((Convolution::atari(shape), 512));
    let config = QrDqnConfig {
        convolution: Some(convolution),
        hidden: vec![units],
        quantiles: 200,
        batch_size: 32,
        act_with_target: false,
        ..QrDqnConfig::default()
    };
    let source = "Mnih et al. (2015), and Tianshou 2.0's QR-DQN for Atari games";
    Defaults {
        stretches: true,
        steps: 100_000,
        n_step: 3,
        learning_starts: 1_000,
        train_every: 4,
        learning_rate: Linear::constant(1e-4),
        epsilon: Linear { start: 1.0, end: 0.05, steps: 10_000 },
        target_every: 500,
        target_tau: 0.01,
        evaluation: (10_000, 3),
        ..Defaults::new(config, "images of bytes and discrete actions", source)
    }
}

/// What a QR-DQN student is made of. Defaults are chosen by measurement on CartPole (docs/results.md).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct QrDqnConfig {
    /// Convolutional layers for image observations, before the hidden layers.
    pub convolution: Option<Convolution>,
    /// Widths of the hidden layers, ReLU after each.
    pub hidden: Vec<usize>,
    /// Quantiles for each action.
    pub quantiles: usize,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Double Q-learning (van Hasselt et al. 2016): the online network, not the target network, selects the next action.
    pub double: bool,
    /// Act with the target network instead of the online network. With soft updates the target network is an average over
    /// time.
    pub act_with_target: bool,
    /// The content of teachers' answers.
    pub teaching: Teaching,
    /// Weight of the conservative term (OTO eq. 6 and 7) for offline training: it lowers the values of actions outside the
    /// data. 0: no such term. Discrete CQL's usual weight is 10 (Tianshou's `DiscreteCQL`).
    pub cql: f64,
    /// The optimiser's constants.
    pub adam: Adam,
}

oto_json::json_object! {
    QrDqnConfig: settings {
        convolution omit none, hidden, quantiles, batch_size, double, act_with_target, teaching, cql, adam
    }
}

impl Default for QrDqnConfig {
    fn default() -> Self {
        Self {
            convolution: None,
            hidden: vec![64, 64],
            quantiles: 16,
            batch_size: 64,
            double: false,
            act_with_target: true,
            teaching: Teaching::Actions,
            cql: 0.0,
            adam: Adam::default(),
        }
    }
}

impl Settings for QrDqnConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &QuantileRegression
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.convolution(self.convolution.as_ref());
        checks.whole("quantiles", self.quantiles as u64, 1..=1024, "1 to 1024 quantiles");
        checks.weight("cql", self.cql);
        checks.batch_size(self.batch_size);
        checks.adam(self.adam);
    }

    fn convolution(&self) -> Option<&Convolution> {
        self.convolution.as_ref()
    }

    fn teaching(&self) -> Teaching {
        self.teaching
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
        Ok(Box::new(QrDqn::new(self, sizes, backend, rng)?))
    }
}

/// The network between observations and quantiles.
fn shape(config: &QrDqnConfig, sizes: Sizes) -> Shape<'_> {
    let outputs = sizes.actions.outputs() * config.quantiles;
    Shape::new(config.convolution.as_ref(), sizes.observation, &config.hidden, outputs)
}

/// Quantiles `[B, A, N]` of a network for observations x `[B, O]`.
fn quantiles<'t>(
    config: &QrDqnConfig,
    sizes: Sizes,
    params: &[(String, Tensor<'t>)],
    x: Tensor<'t>,
) -> Tensor<'t> {
    shape(config, sizes).forward(params, x).reshape(&[x.size(0), sizes.actions.outputs(), config.quantiles])
}

/// The distributional Bellman target `[B, N]`: reward + discount * the quantiles of the best next action.
fn bellman_target<'t>(
    next: Tensor<'t>,
    chooser: Tensor<'t>,
    reward: Tensor<'t>,
    discount: Tensor<'t>,
) -> Tensor<'t> {
    let best = losses::q_values(chooser).argmax_last();
    let column = [reward.size(0), 1];
    reward.reshape(&column) + discount.reshape(&column) * next.pick(best)
}

/// The regularisers of all teachers for q `[B, A]`; records the inputs they read.
fn teachers<'t>(
    t: &'t Trace,
    q: Tensor<'t>,
    count: usize,
    teaching: Teaching,
    delta: Tensor<'t>,
    eta: Tensor<'t>,
) -> Vec<losses::Aikd<'t>> {
    if count == 0 {
        return Vec::new();
    }
    let (batch, classes) = (q.size(0), q.size(1));
    let masks = t.data("mask", &[count, batch]);
    let of = |x: Tensor<'t>, i: usize, shape: &[usize]| x.rows(t.constant(i as f64, &[1])).reshape(shape);
    match teaching {
        Teaching::Actions => {
            let (actions, perm) = (t.data("teacher_action", &[count, batch]), t.data("perm", &[batch]));
            let labels = |i| Labels { action: of(actions, i, &[batch]), mask: of(masks, i, &[batch]) };
            (0..count).map(|i| losses::aikd(q, labels(i), perm, delta, eta)).collect()
        }
        Teaching::SoftTargets => {
            let answers = t.data("teacher_action", &[count, batch, classes + 1]);
            let soft_targets = |i| {
                let answer = of(answers, i, &[batch, classes + 1]);
                let column = |c: usize| answer.pick(t.constant(c as f64, &[batch]));
                let policy = (0..classes).map(column).collect();
                SoftTargets { policy, value: column(classes), mask: of(masks, i, &[batch]) }
            };
            (0..count).map(|i| policy_and_value(q, soft_targets(i), delta, eta)).collect()
        }
    }
}

/// Records one update: state and batch in, new state and [`LossParts`] out.
pub fn program(config: &QrDqnConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let batch = config.batch_size;
    let params = shape(config, sizes).parameters(t, "q.");
    let targets = shape(config, sizes).parameters(t, "target.");
    let quantiles = |params, x| quantiles(config, sizes, params, x);
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let scalar = |name: &str| t.data(name, &[]);

    let next_observation = rows("next_observation");
    let next = quantiles(&targets, next_observation);
    let chooser = if config.double { quantiles(&params, next_observation) } else { next };
    let target = bellman_target(next, chooser, row("reward"), row("discount"));
    let theta = quantiles(&params, rows("observation"));
    let action = row("action");
    let chosen = theta.pick(action);
    let target = target.stop_gradient();
    let importance = Importance::new(t, sizes, batch);
    let quantile_loss = importance.weigh(losses::quantile_huber_rows(chosen, target)).mean();
    let mut task = quantile_loss;
    if config.cql > 0.0 {
        task = task + cql_discrete(losses::q_values(theta), action) * config.cql;
    }

    let weights = aikd_weights(t, sizes.teachers);
    let aikd =
        teachers(t, losses::q_values(theta), sizes.teachers, config.teaching, weights.delta, weights.eta);
    let loss = losses::transfer(&aikd, task, weights);

    let mut updates = config.adam.step(t, &params, loss, scalar("lr"));
    let mix = scalar("target_mix");
    for ((_, target), (_, p)) in targets.iter().zip(&params) {
        let new = updates.iter().find(|(old, _)| old.id() == p.id()).expect("every parameter is updated").1;
        updates.push((*target, target.polyak(new, mix)));
    }
    // By rows first: a sum of all at once would be a kernel of its own.
    let q = chosen.sum_last().mean() * (1.0 / config.quantiles as f64);
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    let errors = importance.output(chosen.mean_last().reshape(&[1, batch]), target.mean_last());
    let own = [("quantile_loss", quantile_loss)].into_iter().chain(errors);
    t.finish(&updates, &[outputs, own.collect()].concat())
}

/// A QR-DQN student: owns its parameters, improves them, acts with them.
pub struct QrDqn {
    config: QrDqnConfig,
    sizes: Sizes,
    engine: Engine,
    /// Acts: the network with its last layer averaged over quantiles, which gives Q-values directly.
    actor: Actor,
    scratch: Vec<f32>,
}

impl QrDqn {
    /// A student with parameters drawn from `rng`; its target network starts as a copy.
    pub fn new(
        config: &QrDqnConfig,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let acting = if config.act_with_target { "target." } else { "q." };
        let engine = Engine::new(program(config, sizes), acting, backend)?;
        // A value of each action, not its quantiles.
        let outputs = sizes.actions.outputs();
        let values = Shape::new(config.convolution.as_ref(), sizes.observation, &config.hidden, outputs);
        let actor = values.actor();
        let mut student = Self { config: config.clone(), sizes, engine, actor, scratch: Vec::new() };
        student.start_over(rng)?;
        Ok(student)
    }

    /// Q-values `[actions]` of one observation.
    pub fn q_values(&mut self, observation: &[f32]) -> &[f32] {
        self.actor.forward(observation)
    }
}

impl Agent for QrDqn {
    fn actions(&self) -> Actions {
        self.sizes.actions
    }

    fn label_width(&self) -> usize {
        match self.config.teaching {
            Teaching::Actions => 1,
            Teaching::SoftTargets => self.sizes.actions.outputs() + 1,
        }
    }

    fn accepts(&self, label: &[f32]) -> bool {
        match (self.config.teaching, label) {
            (Teaching::Actions, _) => self.sizes.actions.contains(label),
            (Teaching::SoftTargets, [probabilities @ .., value]) => {
                label.len() == self.label_width()
                    && value.is_finite()
                    && probabilities.iter().all(|p| (0.0..=1.0).contains(p))
            }
            (Teaching::SoftTargets, []) => false,
        }
    }

    /// The action with the highest Q-value; the first of equals.
    fn act(&mut self, observation: &[f32], action: &mut [f32]) {
        action[0] = mlp::choice(self.q_values(observation));
    }

    fn update(&mut self, batch: &Batch, schedule: &Schedule, _: &mut Rng) -> Result<(), LearnError> {
        let find = |name: &str| batch.input(name).or_else(|| schedule.input(name));
        match self.engine.update(find)? {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    fn policy(&self) -> Actor {
        self.actor.clone()
    }
}

impl Learner for QrDqn {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Copies the acting network into the actor, its last layer averaged over quantiles.
    fn hand_over(&mut self) -> Result<(), LearnError> {
        for (i, part) in self.actor.parameters_mut().enumerate() {
            let len = self.engine.acting_len(i);
            if len == part.len() {
                self.engine.acting(i, part)?;
                continue;
            }
            self.scratch.resize(len, 0.0);
            self.engine.acting(i, &mut self.scratch)?;
            average(&self.scratch, self.config.quantiles, self.sizes.actions.outputs(), part);
        }
        Ok(())
    }

    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let mut initial_values = Vec::new();
        shape(&self.config, self.sizes).initial(rng, "", &mut initial_values);
        self.engine.start(|input| {
            let name = input.name.strip_prefix("target.").or(input.name.strip_prefix("q."));
            let found = initial_values.iter().find(|(drawn, _)| Some(drawn.as_str()) == name);
            found.map_or_else(|| vec![0.0; input.len()], |(_, values)| values.clone())
        })?;
        self.hand_over()
    }
}

/// Rows `[actions * quantiles, width]` averaged over quantiles into `[actions, width]`.
fn average(rows: &[f32], quantiles: usize, actions: usize, out: &mut [f32]) {
    let width = out.len() / actions;
    out.fill(0.0);
    for (action, out) in rows.chunks_exact(quantiles * width).zip(out.chunks_exact_mut(width)) {
        for row in action.chunks_exact(width) {
            out.iter_mut().zip(row).for_each(|(o, r)| *o += r / quantiles as f32);
        }
    }
}

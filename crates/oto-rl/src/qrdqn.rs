//! QR-DQN (Dabney et al. 2018) with the teachers' term of OTO eq. 14: the program of one update, and its learner.

use crate::convolution::Convolution;
use crate::engine::{Engine, LearnError, Learner, LossParts, Schedule, aikd_weights};
use crate::losses::distillation::{Thoughts, policy_and_value};
use crate::losses::offline::cql_discrete;
use crate::losses::{self, Labels};
use crate::mlp;
use crate::network::{Actor, Shape};
use crate::optimiser::Adam;
use crate::replay::Batch;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program, Tensor, Trace};

/// What teachers answer, and the loss that makes use of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Teaching {
    /// An action: AIKD.
    #[default]
    Actions,
    /// A probability for each of the student's actions, then the state's value: policy distillation and value matching, for
    /// comparison ([`losses::distillation`]).
    Thoughts,
}

oto_json::json_names! { Teaching { Actions = "actions", Thoughts = "thoughts" } }

/// What a QR-DQN student is made of. Defaults are chosen by measurement on CartPole (docs/results.md).
#[derive(Clone, Debug, PartialEq)]
pub struct QrDqnConfig {
    /// What sees observations that are images; the hidden layers go on from there.
    pub convolution: Option<Convolution>,
    /// Widths of the hidden layers, ReLU after each.
    pub hidden: Vec<usize>,
    /// Quantiles for each action.
    pub quantiles: usize,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Whether the online network chooses the next action (van Hasselt et al. 2016) instead of the target network.
    pub double: bool,
    /// Act with the target network, which averages the online one over time where it follows slowly, instead of the
    /// online network.
    pub act_with_target: bool,
    /// What teachers answer.
    pub teaching: Teaching,
    /// Weight of the conservative term (OTO eq. 6 and 7) for learning from a dataset: pushes down what the data do not show.
    /// 0 leaves it out; discrete CQL's usual weight is 10 (Tianshou's `DiscreteCQL`, `min_q_weight`).
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

/// The sizes a program is recorded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Width of an observation.
    pub observation: usize,
    /// Number of actions.
    pub actions: usize,
    /// Number of teachers.
    pub teachers: usize,
}

/// The network between observations and quantiles.
fn shape(config: &QrDqnConfig, sizes: Sizes) -> Shape<'_> {
    let outputs = sizes.actions * config.quantiles;
    Shape::new(config.convolution.as_ref(), sizes.observation, &config.hidden, outputs)
}

/// Quantiles `[B, A, N]` of a network for observations x `[B, O]`.
fn quantiles<'t>(
    config: &QrDqnConfig,
    sizes: Sizes,
    params: &[(String, Tensor<'t>)],
    x: Tensor<'t>,
) -> Tensor<'t> {
    shape(config, sizes).forward(params, x).reshape(&[x.size(0), sizes.actions, config.quantiles])
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
        Teaching::Thoughts => {
            let answers = t.data("teacher_action", &[count, batch, classes + 1]);
            let thoughts = |i| {
                let answer = of(answers, i, &[batch, classes + 1]);
                let column = |c: usize| answer.pick(t.constant(c as f64, &[batch]));
                let policy = (0..classes).map(column).collect();
                Thoughts { policy, value: column(classes), mask: of(masks, i, &[batch]) }
            };
            (0..count).map(|i| policy_and_value(q, thoughts(i), delta, eta)).collect()
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
    let mut task = losses::quantile_huber(chosen, target.stop_gradient());
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
    t.finish(&updates, &LossParts::outputs(t, loss, task, &aikd, weights.share, q))
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
        let values =
            Shape::new(config.convolution.as_ref(), sizes.observation, &config.hidden, sizes.actions);
        let actor = values.actor();
        let mut student = Self { config: config.clone(), sizes, engine, actor, scratch: Vec::new() };
        student.start_over(rng)?;
        Ok(student)
    }

    /// How many numbers a teacher's answer has.
    pub fn label_width(&self) -> usize {
        match self.config.teaching {
            Teaching::Actions => 1,
            Teaching::Thoughts => self.sizes.actions + 1,
        }
    }

    /// The sizes it was made for.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// One update from a batch. New weights act from now on, or once [`Learner::collect`] has them.
    pub fn update(&mut self, batch: &Batch, schedule: &Schedule) -> Result<(), LearnError> {
        let find = |name: &str| batch.input(name).or_else(|| schedule.input(name));
        match self.engine.update(find)? {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    /// Q-values `[actions]` of one observation.
    pub fn q_values(&mut self, observation: &[f32]) -> &[f32] {
        self.actor.forward(observation)
    }

    /// The action with the highest Q-value; the first of equals.
    pub fn act(&mut self, observation: &[f32]) -> u32 {
        mlp::argmax(self.q_values(observation)) as u32
    }

    /// The weights it acts with now.
    pub fn actor(&self) -> &Actor {
        &self.actor
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
            average(&self.scratch, self.config.quantiles, self.sizes.actions, part);
        }
        Ok(())
    }

    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let mut drawn = Vec::new();
        shape(&self.config, self.sizes).initial(rng, "", &mut drawn);
        self.engine.start(|input| {
            let name = input.name.strip_prefix("target.").or(input.name.strip_prefix("q."));
            let found = drawn.iter().find(|(drawn, _)| Some(drawn.as_str()) == name);
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

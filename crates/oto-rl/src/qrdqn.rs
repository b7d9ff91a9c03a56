//! QR-DQN (Dabney et al. 2018) with the teachers' term of OTO eq. 14: the program of one update, and its learner.

use crate::losses::{self, AikdWeights, Labels};
use crate::mlp::{self, Layer, Mlp};
use crate::optimiser::{Adam, initial_layer, mlp as network, mlp_parameters};
use crate::replay::Batch;
use oto_env::rng::Rng;
use oto_graph::{
    Activation, Backend, BackendError, Executable, InputId, NodeId, Program, Role, Tensor, Trace,
};

/// What a QR-DQN student is made of. Defaults are chosen by measurement on CartPole (docs/results.md).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QrDqnConfig {
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
    /// The optimiser's constants.
    pub adam: Adam,
}

impl Default for QrDqnConfig {
    fn default() -> Self {
        Self {
            hidden: vec![64, 64],
            quantiles: 16,
            batch_size: 64,
            double: false,
            act_with_target: true,
            adam: Adam::default(),
        }
    }
}

/// The numbers that schedules set anew for every update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Learning rate.
    pub lr: f32,
    /// Share of the parameters that the target network takes over: 1 replaces it, 0 leaves it.
    pub target_mix: f32,
    /// OTO eq. 13.
    pub alpha_aikd: f32,
    /// OTO eq. 13.
    pub delta: f32,
    /// OTO eq. 13.
    pub eta: f32,
    /// OTO eq. 13.
    pub alpha_task: f32,
}

/// What an update reports; parts of the teachers' term are means over teachers.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LossParts {
    /// OTO eq. 14.
    pub loss: f32,
    /// The quantile Huber loss.
    pub task: f32,
    /// OTO eq. 10.
    pub base: f32,
    /// OTO eq. 11.
    pub rkd_d: f32,
    /// OTO eq. 12.
    pub rkd_a: f32,
    /// Mean of Q(s, a) over the batch.
    pub q: f32,
}

/// Why an update failed.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The backend's failure.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The loss is no number any more.
    #[error(
        "update {update}: the loss is {loss}, not a finite number; lower the learning rate or check the rewards"
    )]
    Diverged {
        /// Which update.
        update: u64,
        /// What the loss became.
        loss: f32,
    },
    /// Parameters that do not fit this network.
    #[error("parameter {name}: {expected} numbers needed, {}", match got { Some(n) => format!("{n} came"), None => "none came".into() })]
    Parameter {
        /// Its name.
        name: String,
        /// How many numbers it has.
        expected: usize,
        /// How many came.
        got: Option<usize>,
    },
    /// A parameter that is not a finite number.
    #[error("parameter {0} holds a value that is not a finite number")]
    NotFinite(String),
}

/// A piece of a learner's state, as checkpoints hold it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// PyTorch-like name.
    pub name: String,
    /// Shape; empty for one number.
    pub shape: Vec<usize>,
    /// Row-major elements.
    pub values: Vec<f32>,
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

/// Quantiles `[B, A, N]` of a network for observations x `[B, O]`.
fn quantiles<'t>(params: &[(String, Tensor<'t>)], x: Tensor<'t>, count: usize) -> Tensor<'t> {
    let flat = network(params, x, Activation::Relu);
    flat.reshape(&[x.size(0), flat.size(1) / count, count])
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
    delta: Tensor<'t>,
    eta: Tensor<'t>,
) -> Vec<losses::Aikd<'t>> {
    if count == 0 {
        return Vec::new();
    }
    let batch = q.size(0);
    let (actions, masks) = (t.data("teacher_action", &[count, batch]), t.data("mask", &[count, batch]));
    let perm = t.data("perm", &[batch]);
    let row = |x: Tensor<'t>, i: usize| x.rows(t.constant(i as f64, &[1])).reshape(&[batch]);
    let labels = |i| Labels { action: row(actions, i), mask: row(masks, i) };
    (0..count).map(|i| losses::aikd(q, labels(i), perm, delta, eta)).collect()
}

/// Records one update: state and batch in, new state and [`LossParts`] out.
pub fn program(config: &QrDqnConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (batch, widths) = (config.batch_size, widths(config, sizes));
    let params = mlp_parameters(t, "q.", &widths);
    let targets = mlp_parameters(t, "target.", &widths);
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let scalar = |name: &str| t.data(name, &[]);

    let next_observation = rows("next_observation");
    let next = quantiles(&targets, next_observation, config.quantiles);
    let chooser = if config.double { quantiles(&params, next_observation, config.quantiles) } else { next };
    let target = bellman_target(next, chooser, row("reward"), row("discount"));
    let theta = quantiles(&params, rows("observation"), config.quantiles);
    let chosen = theta.pick(row("action"));
    let task = losses::quantile_huber(chosen, target.stop_gradient());

    let weights = AikdWeights {
        alpha_aikd: scalar("alpha_aikd"),
        delta: scalar("delta"),
        eta: scalar("eta"),
        alpha_task: scalar("alpha_task"),
    };
    let aikd = teachers(t, losses::q_values(theta), sizes.teachers, weights.delta, weights.eta);
    let loss = losses::transfer(&aikd, task, weights);

    let mut updates = config.adam.step(t, &params, loss, scalar("lr"));
    let mix = scalar("target_mix");
    for ((_, target), (_, p)) in targets.iter().zip(&params) {
        let new = updates.iter().find(|(old, _)| old.id() == p.id()).expect("every parameter is updated").1;
        updates.push((*target, target.polyak(new, mix)));
    }
    let mean = |part: fn(&losses::Aikd<'_>) -> NodeId| {
        let sum = aikd.iter().map(|a| t.at(part(a))).reduce(|a, b| a + b);
        sum.map_or(t.constant(0.0, &[]), |s| s * (1.0 / sizes.teachers as f64))
    };
    let parts = [mean(|a| a.base.id()), mean(|a| a.rkd_d.id()), mean(|a| a.rkd_a.id())];
    let outputs = [loss, task, parts[0], parts[1], parts[2], chosen.mean()];
    let named = OUTPUTS.into_iter().zip(outputs).collect::<Vec<_>>();
    t.finish(&updates, &named)
}

/// The outputs, in the order of [`LossParts`].
const OUTPUTS: [&str; 6] = ["loss", "task", "base", "rkd_d", "rkd_a", "q"];

fn widths(config: &QrDqnConfig, sizes: Sizes) -> Vec<usize> {
    let mut widths = vec![sizes.observation];
    widths.extend(&config.hidden);
    widths.push(sizes.actions * config.quantiles);
    widths
}

/// A QR-DQN student: owns its parameters, improves them, acts with them.
pub struct QrDqn {
    config: QrDqnConfig,
    sizes: Sizes,
    executable: Box<dyn Executable>,
    outputs: Vec<Vec<f32>>,
    updates: u64,
    /// Acts: the network with its last layer averaged over quantiles, which gives Q-values directly.
    actor: Mlp,
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
        let executable = backend.compile(program(config, sizes))?;
        let widths = widths(config, sizes);
        let layer = |pair: &[usize]| Layer {
            weight: vec![0.0; pair[1] * pair[0]],
            bias: vec![0.0; pair[1]],
            activation: mlp::Activation::Relu,
        };
        let mut layers = widths.windows(2).map(layer).collect::<Vec<_>>();
        let last = layers.last_mut().expect("a network has a last layer");
        last.activation = mlp::Activation::Identity;
        last.weight.truncate(sizes.actions * widths[widths.len() - 2]);
        last.bias.truncate(sizes.actions);
        let actor = Mlp::new(sizes.observation, layers).expect("the widths come from one list");
        let outputs = vec![Vec::new(); OUTPUTS.len()];
        let config = config.clone();
        let mut student = Self { config, sizes, executable, outputs, updates: 0, actor, scratch: Vec::new() };
        student.start_over(rng)?;
        Ok(student)
    }

    /// Draws new parameters; the target network becomes a copy, the optimiser forgets. The count of updates goes on.
    pub fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let inputs = self.executable.program().inputs.clone();
        for (i, input) in inputs.iter().enumerate().filter(|(_, i)| i.role == Role::State) {
            self.executable.write(InputId(i), &vec![0.0; input.len()])?;
        }
        for (i, pair) in widths(&self.config, self.sizes).windows(2).enumerate() {
            let (weight, bias) = initial_layer(rng, pair[0], pair[1]);
            for prefix in ["q", "target"] {
                self.write(&format!("{prefix}.{i}.weight"), &weight)?;
                self.write(&format!("{prefix}.{i}.bias"), &bias)?;
            }
        }
        self.hand_over()
    }

    /// The sizes it was made for.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// How many updates it has made.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// One update from a batch; new weights act from now on.
    pub fn update(&mut self, batch: &Batch, s: &Schedule) -> Result<LossParts, LearnError> {
        let one = std::slice::from_ref;
        let mut data: [&[f32]; 14] = [&[]; 14];
        let mut count = 0;
        for (_, input) in self.executable.program().data() {
            data[count] = match input.name.as_str() {
                "observation" => &batch.observation,
                "next_observation" => &batch.next_observation,
                "action" => &batch.action,
                "reward" => &batch.reward,
                "discount" => &batch.discount,
                "teacher_action" => &batch.teacher_action,
                "mask" => &batch.mask,
                "perm" => &batch.perm,
                "lr" => one(&s.lr),
                "target_mix" => one(&s.target_mix),
                "alpha_aikd" => one(&s.alpha_aikd),
                "delta" => one(&s.delta),
                "eta" => one(&s.eta),
                "alpha_task" => one(&s.alpha_task),
                other => unreachable!("the program above has no input {other}"),
            };
            count += 1;
        }
        self.executable.run(&data[..count], &mut self.outputs)?;
        self.updates += 1;
        let [loss, task, base, rkd_d, rkd_a, q] = std::array::from_fn(|i| self.outputs[i][0]);
        if !loss.is_finite() {
            return Err(LearnError::Diverged { update: self.updates, loss });
        }
        self.hand_over()?;
        Ok(LossParts { loss, task, base, rkd_d, rkd_a, q })
    }

    /// Q-values `[actions]` of one observation.
    pub fn q_values(&mut self, observation: &[f32]) -> &[f32] {
        self.actor.forward(observation)
    }

    /// The action with the highest Q-value; the first of equals.
    pub fn act(&mut self, observation: &[f32]) -> u32 {
        let q = self.actor.forward(observation);
        let better = |best: usize, i: usize| if q[i] > q[best] { i } else { best };
        (0..q.len()).fold(0, better) as u32
    }

    /// The weights it acts with now.
    pub fn actor(&self) -> &Mlp {
        &self.actor
    }

    /// Copies the acting network into the actor, its last layer averaged over quantiles.
    fn hand_over(&mut self) -> Result<(), LearnError> {
        let (program, scratch) = (self.executable.program(), &mut self.scratch);
        let prefix = if self.config.act_with_target { "target." } else { "q." };
        let ids = (0..program.inputs.len()).filter(|i| program.inputs[*i].name.starts_with(prefix));
        let parts = self.actor.layers_mut().iter_mut().flat_map(|l| [&mut l.weight, &mut l.bias]);
        for (id, part) in ids.zip(parts) {
            let len = self.executable.program().inputs[id].len();
            if len == part.len() {
                self.executable.read(InputId(id), part)?;
                continue;
            }
            scratch.resize(len, 0.0);
            self.executable.read(InputId(id), scratch)?;
            average(scratch, self.config.quantiles, self.sizes.actions, part);
        }
        Ok(())
    }

    /// All state by name and shape: parameters, target network, optimiser.
    pub fn state(&self) -> Result<Vec<NamedTensor>, LearnError> {
        let inputs =
            self.executable.program().inputs.iter().enumerate().filter(|(_, i)| i.role == Role::State);
        let read = |(i, input): (usize, &oto_graph::Input)| {
            let mut values = vec![0.0; input.len()];
            self.executable.read(InputId(i), &mut values)?;
            Ok(NamedTensor { name: input.name.clone(), shape: input.shape.clone(), values })
        };
        inputs.map(read).collect()
    }

    /// Puts state back that `tensor` finds by name. Nothing changes unless every tensor is there, fits and is finite.
    pub fn restore(
        &mut self,
        updates: u64,
        mut tensor: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<(), LearnError> {
        let mut found = Vec::new();
        for (i, input) in self.executable.program().inputs.iter().enumerate() {
            if input.role != Role::State {
                continue;
            }
            let values = tensor(&input.name);
            let got = values.as_ref().map(Vec::len);
            match values.filter(|v| v.len() == input.len()) {
                Some(v) if v.iter().all(|x| x.is_finite()) => found.push((InputId(i), v)),
                Some(_) => return Err(LearnError::NotFinite(input.name.clone())),
                None => {
                    return Err(LearnError::Parameter {
                        name: input.name.clone(),
                        expected: input.len(),
                        got,
                    });
                }
            }
        }
        found.iter().try_for_each(|(id, values)| self.executable.write(*id, values))?;
        self.updates = updates;
        self.hand_over()
    }

    fn write(&mut self, name: &str, values: &[f32]) -> Result<(), LearnError> {
        let id = self.executable.program().input(name).expect("the program names its parameters so");
        Ok(self.executable.write(id, values)?)
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

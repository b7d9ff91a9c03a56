//! QR-DQN (Dabney et al. 2018) with the teachers' term of OTO eq. 14: the program of one update, and its learner.

use crate::losses::{self, AikdWeights, Labels};
use crate::mlp::{self, Layer, Mlp};
use crate::optimiser::{Adam, initial_layer, mlp as network, mlp_parameters};
use crate::replay::Batch;
use oto_env::rng::Rng;
use oto_graph::{
    Activation, Backend, BackendError, Executable, Input, InputId, NodeId, Program, Role, Tensor, Trace,
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
///
/// Where the executable runs beside this thread, updates are only started here: their losses and the weights to act with come
/// with [`Self::collect`]. If its device is lost, the fallback goes on from the last snapshot.
pub struct QrDqn {
    config: QrDqnConfig,
    sizes: Sizes,
    backend: String,
    executable: Box<dyn Executable>,
    fallback: Option<Box<dyn Backend>>,
    outputs: Vec<Vec<f32>>,
    updates: u64,
    /// Updates that this executable was given, and how many of them were there when its state was last put: reports of those
    /// are of another life.
    given: u64,
    put_at: u64,
    /// What is added to the executable's count to get the student's.
    offset: i64,
    last_loss: Option<LossParts>,
    /// All state as it was once, in the program's order, and the updates made by then: what a lost device is replaced from.
    kept: (u64, Vec<Vec<f32>>),
    lost: Option<String>,
    /// Acts: the network with its last layer averaged over quantiles, which gives Q-values directly.
    actor: Mlp,
    scratch: Vec<f32>,
}

/// A device is asked for all its state every so many updates.
const SNAPSHOT_EVERY: u64 = 200;

impl QrDqn {
    /// A student with parameters drawn from `rng`; its target network starts as a copy.
    pub fn new(
        config: &QrDqnConfig,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let mut executable = backend.compile(program(config, sizes))?;
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
        let acting = acting(config, executable.program());
        if let Some(device) = executable.device() {
            device.watch(&acting);
        }
        let mut student = Self {
            config: config.clone(),
            sizes,
            backend: backend.name().to_string(),
            executable,
            fallback: backend.fallback(),
            outputs: vec![Vec::new(); OUTPUTS.len()],
            updates: 0,
            given: 0,
            put_at: 0,
            offset: 0,
            last_loss: None,
            kept: (0, Vec::new()),
            lost: None,
            actor,
            scratch: Vec::new(),
        };
        student.start_over(rng)?;
        Ok(student)
    }

    /// Draws new parameters; the target network becomes a copy, the optimiser forgets. The count of updates goes on.
    pub fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let layers = widths(&self.config, self.sizes);
        let layers = layers.windows(2).map(|pair| initial_layer(rng, pair[0], pair[1])).collect::<Vec<_>>();
        let value = |input: &Input| {
            let mut parts = input.name.split('.');
            let (network, layer, part) = (parts.next(), parts.next(), parts.next());
            match (network, layer.and_then(|l| l.parse::<usize>().ok()), part) {
                (Some("q" | "target"), Some(layer), Some("weight")) => layers[layer].0.clone(),
                (Some("q" | "target"), Some(layer), Some("bias")) => layers[layer].1.clone(),
                _ => vec![0.0; input.len()],
            }
        };
        let state = states(self.executable.program()).map(|(_, input)| value(input)).collect();
        self.put(state)
    }

    /// Replaces all state, given in the program's order.
    fn put(&mut self, state: Vec<Vec<f32>>) -> Result<(), LearnError> {
        match self.write(&state) {
            Err(BackendError::Lost(reason)) => {
                self.leave(reason)?;
                self.write(&state)?;
            }
            other => other?,
        }
        self.hand_over(&state);
        self.kept = (self.updates, state);
        (self.put_at, self.offset) = (self.given, self.updates as i64 - self.given as i64);
        Ok(())
    }

    fn write(&mut self, state: &[Vec<f32>]) -> Result<(), BackendError> {
        let ids = states(self.executable.program()).map(|(id, _)| id).collect::<Vec<_>>();
        ids.iter().zip(state).try_for_each(|(id, values)| self.executable.write(*id, values))
    }

    /// The sizes it was made for.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// How many updates it has made.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The backend that runs the updates now.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// In a sentence: which backend was left because its device was lost, why, and what goes on from where.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// The newest loss that is known.
    pub fn last_loss(&self) -> Option<LossParts> {
        self.last_loss
    }

    /// Updates that were started and whose weights are not here yet.
    pub fn behind(&mut self) -> u64 {
        self.executable.device().map_or(0, |d| d.behind())
    }

    /// Whether one more update can be started now.
    pub fn has_room(&mut self) -> bool {
        self.executable.device().is_none_or(|d| d.has_room())
    }

    /// One update from a batch. New weights act from now on, or once [`Self::collect`] has them.
    pub fn update(&mut self, batch: &Batch, s: &Schedule) -> Result<(), LearnError> {
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
        let data = &data[..count];
        match self.step(data) {
            Err(LearnError::Backend(BackendError::Lost(reason))) => {
                self.fall_back(reason)?;
                self.step(data)
            }
            other => other,
        }
    }

    fn step(&mut self, data: &[&[f32]]) -> Result<(), LearnError> {
        if let Some(device) = self.executable.device() {
            device.start(data)?;
            (self.updates, self.given) = (self.updates + 1, self.given + 1);
            return Ok(());
        }
        self.executable.run(data, &mut self.outputs)?;
        self.updates += 1;
        let outputs = std::mem::take(&mut self.outputs);
        let known = self.learned(&outputs);
        self.outputs = outputs;
        known?;
        self.hand_over_read()
    }

    /// Takes over what a device has finished since the last call; true if it brought new weights.
    pub fn collect(&mut self) -> Result<bool, LearnError> {
        match self.collect_reports() {
            Err(LearnError::Backend(BackendError::Lost(reason))) => {
                self.fall_back(reason)?;
                Ok(true)
            }
            other => other,
        }
    }

    fn collect_reports(&mut self) -> Result<bool, LearnError> {
        let (offset, put_at) = (self.offset, self.put_at);
        let due = self.updates >= self.kept.0 + SNAPSHOT_EVERY;
        let Some(device) = self.executable.device() else { return Ok(false) };
        if due && let Some(snapshot) = device.snapshot()? {
            let at = (offset + snapshot.steps as i64) as u64;
            if snapshot.steps > put_at && at > self.kept.0 {
                self.kept = (at, snapshot.state.clone());
            }
        }
        let Some(report) = device.report()?.filter(|r| r.steps > put_at).cloned() else { return Ok(false) };
        self.learned(&report.outputs)?;
        self.fill_actor(&report.state);
        Ok(true)
    }

    /// Brings everything home that [`Self::state`] needs; false while a device is still at it.
    pub fn settle(&mut self) -> Result<bool, LearnError> {
        self.collect()?;
        let given = self.given;
        let Some(device) = self.executable.device() else { return Ok(true) };
        match device.snapshot() {
            Ok(snapshot) => Ok(snapshot.is_some_and(|s| s.steps == given)),
            Err(BackendError::Lost(reason)) => self.fall_back(reason).map(|()| true),
            Err(error) => Err(error.into()),
        }
    }

    /// The device is gone: its last snapshot goes on elsewhere, and the updates since are to be made again.
    fn fall_back(&mut self, reason: String) -> Result<(), LearnError> {
        let (offset, put_at) = (self.offset, self.put_at);
        if let Some(snapshot) = self.executable.device().and_then(|d| d.last_snapshot())
            && snapshot.steps > put_at
        {
            self.kept = ((offset + snapshot.steps as i64) as u64, snapshot.state.clone());
        }
        let (updates, state) = std::mem::take(&mut self.kept);
        self.updates = updates;
        self.leave(reason)?;
        self.put(state)
    }

    /// Takes the fallback in place of a backend whose device is gone; its state is to be put.
    fn leave(&mut self, reason: String) -> Result<(), LearnError> {
        let Some(backend) = self.fallback.take() else { return Err(BackendError::Lost(reason).into()) };
        self.executable = backend.compile(program(&self.config, self.sizes))?;
        let (left, now, updates) = (&self.backend, backend.name(), self.updates);
        self.lost = Some(format!(
            "the device of the backend \"{left}\" was lost ({reason}); \"{now}\" goes on from update {updates}"
        ));
        (self.backend, self.given) = (now.into(), 0);
        Ok(())
    }

    /// Keeps the loss of the last update.
    fn learned(&mut self, outputs: &[Vec<f32>]) -> Result<(), LearnError> {
        let [loss, task, base, rkd_d, rkd_a, q] = std::array::from_fn(|i| outputs[i][0]);
        if !loss.is_finite() {
            return Err(LearnError::Diverged { update: self.updates, loss });
        }
        self.last_loss = Some(LossParts { loss, task, base, rkd_d, rkd_a, q });
        Ok(())
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

    /// Copies the acting network into the actor, its last layer averaged over quantiles, out of all state.
    fn hand_over(&mut self, state: &[Vec<f32>]) {
        let acting = acting(&self.config, self.executable.program());
        let of_state = states(self.executable.program()).zip(state);
        let acting =
            of_state.filter(|((id, _), _)| acting.contains(id)).map(|(_, v)| v.clone()).collect::<Vec<_>>();
        self.fill_actor(&acting);
    }

    /// The same from the executable's own state, without an allocation.
    fn hand_over_read(&mut self) -> Result<(), LearnError> {
        let (program, scratch) = (self.executable.program(), &mut self.scratch);
        let prefix = acting_prefix(&self.config);
        let ids = (0..program.inputs.len()).filter(|i| program.inputs[*i].name.starts_with(prefix));
        let parts = self.actor.layers_mut().iter_mut().flat_map(|l| [&mut l.weight, &mut l.bias]);
        for (id, part) in ids.zip(parts) {
            let len = program.inputs[id].len();
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

    /// The same from the acting network's parameters.
    fn fill_actor(&mut self, parameters: &[Vec<f32>]) {
        let parts = self.actor.layers_mut().iter_mut().flat_map(|l| [&mut l.weight, &mut l.bias]);
        for (values, part) in parameters.iter().zip(parts) {
            if values.len() == part.len() {
                part.copy_from_slice(values);
            } else {
                average(values, self.config.quantiles, self.sizes.actions, part);
            }
        }
    }

    /// All state by name and shape: parameters, target network, optimiser. On a device, once [`Self::settle`] says so.
    pub fn state(&self) -> Result<Vec<NamedTensor>, LearnError> {
        let read = |(id, input): (InputId, &Input)| {
            let mut values = vec![0.0; input.len()];
            self.executable.read(id, &mut values)?;
            Ok(NamedTensor { name: input.name.clone(), shape: input.shape.clone(), values })
        };
        states(self.executable.program()).map(read).collect()
    }

    /// Puts state back that `tensor` finds by name. Nothing changes unless every tensor is there, fits and is finite.
    pub fn restore(
        &mut self,
        updates: u64,
        mut tensor: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<(), LearnError> {
        let mut found = Vec::new();
        for (_, input) in states(self.executable.program()) {
            let values = tensor(&input.name);
            let got = values.as_ref().map(Vec::len);
            match values.filter(|v| v.len() == input.len()) {
                Some(v) if v.iter().all(|x| x.is_finite()) => found.push(v),
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
        self.updates = updates;
        self.put(found)
    }
}

/// A program's state inputs, in its order.
fn states(program: &Program) -> impl Iterator<Item = (InputId, &Input)> {
    let all = program.inputs.iter().enumerate().filter(|(_, i)| i.role == Role::State);
    all.map(|(i, input)| (InputId(i), input))
}

/// What the names of the parameters that act begin with.
fn acting_prefix(config: &QrDqnConfig) -> &'static str {
    if config.act_with_target { "target." } else { "q." }
}

/// The parameters that act, first layer to last.
fn acting(config: &QrDqnConfig, program: &Program) -> Vec<InputId> {
    let mine = states(program).filter(|(_, i)| i.name.starts_with(acting_prefix(config)));
    mine.map(|(id, _)| id).collect()
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

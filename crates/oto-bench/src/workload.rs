//! Train steps with all their numbers: the program, its initial state, one batch. Same seed, same numbers.

use oto_env::rng::Rng;
use oto_graph::{Activation, BackendError, Executable, Input, Program, Role, Trace};
use oto_rl::actions::Actions;
use oto_rl::algorithms::Sizes;
use oto_rl::algorithms::qrdqn::{self, QrDqnConfig};
use oto_rl::algorithms::sac::{self, SacConfig};
use oto_rl::algorithms::td3::{self, Td3Config};
use oto_rl::optimiser::{Adam, Optimiser, Updates, ensemble_parameters, initial_layer, mlp, mlp_parameters};
use serde_json::{Value, json};
use std::fmt;

/// Width of an observation, as CartPole's.
pub const OBSERVATION: usize = 4;
/// Number of actions, as CartPole's.
pub const ACTIONS: usize = 2;
/// Layer widths of the distillation step.
pub const DISTILLATION: [usize; 4] = [8, 64, 64, 4];
/// Rows in a batch of the distillation step.
const DISTILLATION_BATCH: usize = 64;

/// What varies between QR-DQN workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Width of both hidden layers.
    pub hidden: usize,
    /// Quantiles for each action.
    pub quantiles: usize,
    /// Transitions in an update.
    pub batch: usize,
}

/// Widths of an observation and of an action of continuous workloads, as HalfCheetah's.
pub const CONTINUOUS: (usize, usize) = (17, 6);

/// What varies between continuous workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuous {
    /// Width of both hidden layers of actor and critics.
    pub hidden: usize,
    /// Transitions in an update.
    pub batch: usize,
}

/// Which train step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// QR-DQN with one teacher's AIKD term, as [`oto_rl::algorithms::qrdqn::program`] records it.
    QrDqn(Shape),
    /// A small network learns a larger one's soft answers: cross-entropy and Adam, nothing else.
    Distillation,
    /// Soft actor-critic, as [`oto_rl::algorithms::sac::program`] records it without a teacher.
    Sac(Continuous),
    /// TD3, an update in which the actor learns, as [`oto_rl::algorithms::td3::program`] records it without a teacher.
    Td3(Continuous),
    /// This number of critics of a state and an action learn given targets; target networks follow.
    Critics(usize, Continuous),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Task::QrDqn(Shape { hidden, quantiles, batch }) => {
                write!(f, "qr-dqn hidden {hidden} quantiles {quantiles} batch {batch}")
            }
            Task::Distillation => f.write_str("distillation"),
            Task::Sac(Continuous { hidden, batch }) => write!(f, "sac hidden {hidden} batch {batch}"),
            Task::Td3(Continuous { hidden, batch }) => write!(f, "td3 hidden {hidden} batch {batch}"),
            Task::Critics(count, Continuous { hidden, batch }) => {
                write!(f, "{count} critics hidden {hidden} batch {batch}")
            }
        }
    }
}

/// A train step, the state it starts from and the batch it is given, again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Which step.
    pub task: Task,
    /// Initial values of every state input by name, in the program's order; the optimiser's are zeros.
    pub state: Vec<(String, Vec<f32>)>,
    /// The batch and the schedule's numbers by name, in the order of [`Program::data`].
    pub data: Vec<(String, Vec<f32>)>,
}

/// Plain distillation with numbers drawn from `seed`.
pub fn distillation(seed: u64) -> Workload {
    Workload::draw(Task::Distillation, seed)
}

impl Workload {
    /// A QR-DQN update with numbers drawn from `seed`.
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self::draw(Task::QrDqn(shape), seed)
    }

    /// An update of `task` with numbers drawn from `seed`.
    pub fn draw(task: Task, seed: u64) -> Self {
        let rng = &mut Rng::new(seed);
        let program = program(task);
        let mut drawn = match task {
            Task::QrDqn(_) | Task::Distillation => Vec::new(),
            _ => initial_networks(&program, rng),
        };
        let small = drawn.is_empty();
        for prefix in ["q", "target"].into_iter().filter(|_| small) {
            for (i, pair) in widths(task).windows(2).enumerate() {
                let (weight, bias) = initial_layer(rng, pair[0], pair[1]);
                drawn.push((format!("{prefix}.{i}.weight"), weight));
                drawn.push((format!("{prefix}.{i}.bias"), bias));
            }
        }
        let initial = |input: &Input| {
            let found = drawn.iter().find(|(name, _)| *name == input.name);
            let values = found.map_or_else(|| vec![0.0; input.len()], |(_, values)| values.clone());
            (input.name.clone(), values)
        };
        let state = program.inputs.iter().filter(|i| i.role == Role::State).map(initial).collect();
        let data = program.data().map(|(_, i)| (i.name.clone(), batch_values(task, i, rng))).collect();
        Self { task, state, data }
    }

    /// The step, recorded anew.
    pub fn program(&self) -> Program {
        program(self.task)
    }

    /// Layer widths of the network, input first.
    pub fn widths(&self) -> Vec<usize> {
        widths(self.task)
    }

    /// Rows in a batch.
    pub fn batch(&self) -> usize {
        match self.task {
            Task::QrDqn(shape) => shape.batch,
            Task::Distillation => DISTILLATION_BATCH,
            Task::Sac(shape) | Task::Td3(shape) | Task::Critics(_, shape) => shape.batch,
        }
    }

    /// What tables call it.
    pub fn name(&self) -> String {
        self.task.to_string()
    }

    /// Whether the step by hand and burn have it, too.
    pub fn is_small(&self) -> bool {
        matches!(self.task, Task::QrDqn(_) | Task::Distillation)
    }

    /// Puts an executable of [`Self::program`] at the start.
    pub fn load(&self, executable: &mut dyn Executable) -> Result<(), BackendError> {
        for (name, values) in &self.state {
            let id = executable.program().input(name).ok_or_else(|| unknown(name))?;
            executable.write(id, values)?;
        }
        Ok(())
    }

    /// The batch as [`Executable::run`] takes it.
    pub fn slices(&self) -> Vec<&[f32]> {
        self.data.iter().map(|(_, values)| values.as_slice()).collect()
    }

    /// One state or data input's values.
    pub fn values(&self, name: &str) -> Option<&[f32]> {
        self.state.iter().chain(&self.data).find(|(n, _)| n == name).map(|(_, v)| v.as_slice())
    }

    /// Everything a peer needs: sizes, then state and data as lists of `{name, shape, values}` in the program's order.
    pub fn to_json(&self) -> Value {
        let program = self.program();
        let tensors = |named: &[(String, Vec<f32>)]| {
            let shape = |name: &str| program.input(name).map(|id| program.inputs[id.0].shape.clone());
            let tensor = |(name, values): &(String, Vec<f32>)| json!({ "name": name, "shape": shape(name), "values": values });
            named.iter().map(tensor).collect::<Vec<_>>()
        };
        let (task, quantiles) = match self.task {
            Task::QrDqn(shape) => ("qr-dqn", shape.quantiles),
            Task::Distillation => ("distillation", 0),
            Task::Sac(_) => ("sac", 0),
            Task::Td3(_) => ("td3", 0),
            Task::Critics(..) => ("critics", 0),
        };
        json!({
            "task": task,
            "name": self.name(),
            "widths": self.widths(),
            "batch": self.batch(),
            "quantiles": quantiles,
            "state": tensors(&self.state),
            "data": tensors(&self.data),
        })
    }
}

fn unknown(name: &str) -> BackendError {
    BackendError::Device(format!("the executable runs another program: it has no input {name:?}"))
}

fn widths(task: Task) -> Vec<usize> {
    match task {
        Task::QrDqn(s) => vec![OBSERVATION, s.hidden, s.hidden, ACTIONS * s.quantiles],
        Task::Distillation => DISTILLATION.to_vec(),
        Task::Sac(s) | Task::Td3(s) => vec![CONTINUOUS.0, s.hidden, s.hidden, CONTINUOUS.1],
        Task::Critics(_, s) => vec![CONTINUOUS.0 + CONTINUOUS.1, s.hidden, s.hidden, 1],
    }
}

/// Initial values of all networks by name: layers as PyTorch's begin, slow copies equal to what they follow.
fn initial_networks(program: &Program, rng: &mut Rng) -> Vec<(String, Vec<f32>)> {
    let mut drawn = Vec::<(String, Vec<f32>)>::new();
    let networks = program.inputs.iter().filter(|i| i.role == Role::State && !i.name.starts_with("adam."));
    for input in networks.clone().filter(|i| !i.name.starts_with("target.") && !i.shape.is_empty()) {
        let layer = input.name.rsplit_once('.').map_or("", |(layer, _)| layer);
        let weight = networks.clone().find(|i| i.name == format!("{layer}.weight"));
        let inputs = weight.and_then(|i| i.shape.last()).copied().unwrap_or(1);
        drawn.push((input.name.clone(), initial_layer(rng, inputs, input.len().div_ceil(inputs)).0));
        drawn.last_mut().expect("just added").1.truncate(input.len());
    }
    let copies = networks.filter_map(|i| i.name.strip_prefix("target."));
    let copies = copies.filter_map(|of| drawn.iter().find(|(name, _)| name == of));
    let copies = copies.map(|(name, values)| (format!("target.{name}"), values.clone())).collect::<Vec<_>>();
    drawn.extend(copies);
    drawn
}

fn program(task: Task) -> Program {
    let continuous = || {
        let (observation, width) = CONTINUOUS;
        Sizes { observation, actions: Actions::Continuous(width), teachers: 0, weighted: false }
    };
    let shape = match task {
        Task::QrDqn(shape) => shape,
        Task::Distillation => return distillation_program(),
        Task::Sac(s) => {
            let config = SacConfig { hidden: vec![s.hidden; 2], batch_size: s.batch, ..SacConfig::default() };
            return sac::program(&config, continuous());
        }
        Task::Td3(s) => {
            let config = Td3Config { hidden: vec![s.hidden; 2], batch_size: s.batch, ..Td3Config::default() };
            return td3::program(&config, continuous());
        }
        Task::Critics(count, s) => return critics_program(count, s),
    };
    let config = QrDqnConfig {
        hidden: vec![shape.hidden; 2],
        quantiles: shape.quantiles,
        batch_size: shape.batch,
        ..QrDqnConfig::default()
    };
    let actions = Actions::Discrete(ACTIONS);
    qrdqn::program(&config, Sizes { observation: OBSERVATION, actions, teachers: 1, weighted: false })
}

/// The sum of all critics' mean squared errors, Adam, and the slow copies.
fn critics_program(count: usize, Continuous { hidden, batch }: Continuous) -> Program {
    let t = &Trace::new();
    let (observation, action) = CONTINUOUS;
    let widths = [observation + action, hidden, hidden, 1];
    let [critics, targets] =
        ["critics.", "target.critics."].map(|name| ensemble_parameters(t, name, count, &widths));
    let x = t.data("observation", &[batch, observation]).concat(t.data("action", &[batch, action]));
    let q = mlp(&critics, x, Activation::Relu).reshape(&[count, batch]);
    let loss = (q - t.data("target", &[batch])).square().mean_last().sum();
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("", Adam::default(), t.data("lr", &[])), &critics, loss);
    updates.follow(&targets, &critics, t.data("target_mix", &[]), 1);
    t.finish(&updates.pairs(), &[("loss", loss)])
}

/// Mean over the batch of the cross-entropy between given probabilities and the network's softmax.
fn distillation_program() -> Program {
    let t = &Trace::new();
    let (inputs, classes) = (DISTILLATION[0], DISTILLATION[3]);
    let params = mlp_parameters(t, "q.", &DISTILLATION);
    let logits = mlp(&params, t.data("observation", &[DISTILLATION_BATCH, inputs]), Activation::Relu);
    let soft = t.data("soft", &[DISTILLATION_BATCH, classes]);
    let loss = -(soft * logits.log_softmax()).sum() * (1.0 / DISTILLATION_BATCH as f64);
    let updates = Adam::default().step(t, &params, loss, t.data("lr", &[]));
    t.finish(&updates, &[("loss", loss)])
}

/// Values for one data input: what replay and schedules would give.
fn batch_values(task: Task, input: &Input, rng: &mut Rng) -> Vec<f32> {
    let n = input.len();
    let discrete = matches!(task, Task::QrDqn(_) | Task::Distillation);
    match input.name.as_str() {
        "action" if !discrete => (0..n).map(|_| rng.uniform(-1.0, 1.0) as f32).collect(),
        "every_2" => vec![1.0],
        "action" | "teacher_action" => (0..n).map(|_| rng.below(ACTIONS as u32) as f32).collect(),
        // Three labels in four; an episode ends in one row of eight.
        "mask" => (0..n).map(|i| if i % 4 == 3 { 0.0 } else { 1.0 }).collect(),
        "discount" => (0..n).map(|i| if i % 8 == 5 { 0.0 } else { 0.99 }).collect(),
        "perm" => {
            let mut order = (0..n).map(|i| i as f32).collect::<Vec<_>>();
            rng.shuffle(&mut order);
            order
        }
        "soft" => {
            let rows = (0..n / input.shape[1]).map(|_| distribution(input.shape[1], rng));
            rows.flatten().collect()
        }
        "lr" => vec![1e-3],
        "target_mix" => vec![0.005],
        "alpha_aikd" | "alpha_task" => vec![1.0],
        "delta" | "eta" => vec![0.5],
        "share" => vec![1.0 / n as f32; n],
        _ => (0..n).map(|_| rng.normal() as f32).collect(),
    }
}

/// Softmax of normal numbers.
fn distribution(classes: usize, rng: &mut Rng) -> Vec<f32> {
    let weights = (0..classes).map(|_| rng.normal().exp()).collect::<Vec<_>>();
    let sum = weights.iter().sum::<f64>();
    weights.iter().map(|w| (w / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_program_all_it_reads() {
        let shape = Shape { hidden: 16, quantiles: 5, batch: 12 };
        let large = Continuous { hidden: 16, batch: 12 };
        let tasks = [Task::Sac(large), Task::Td3(large), Task::Critics(3, large)];
        let large = tasks.map(|task| Workload::draw(task, 3));
        for workload in [Workload::new(shape, 3), distillation(3)].into_iter().chain(large) {
            let program = workload.program();
            let names = |role| {
                let inputs = program.inputs.iter().filter(move |i| i.role == role);
                inputs.map(|i| (i.name.clone(), i.len())).collect::<Vec<_>>()
            };
            let sizes =
                |of: &[(String, Vec<f32>)]| of.iter().map(|(n, v)| (n.clone(), v.len())).collect::<Vec<_>>();
            assert_eq!(sizes(&workload.state), names(Role::State));
            assert_eq!(sizes(&workload.data), names(Role::Data));
        }
        assert_eq!(Workload::new(shape, 3), Workload::new(shape, 3));
        assert_ne!(Workload::new(shape, 3), Workload::new(shape, 4));
    }

    #[test]
    fn json_keeps_every_number() {
        let workload = Workload::new(Shape { hidden: 8, quantiles: 4, batch: 8 }, 1);
        let json: Value = serde_json::from_str(&workload.to_json().to_string()).unwrap();
        let values = json["state"][0]["values"].as_array().unwrap();
        let read = values.iter().map(|v| v.as_f64().unwrap() as f32).collect::<Vec<_>>();
        assert_eq!(read, workload.state[0].1);
        assert_eq!(json["widths"], json!([4, 8, 8, 8]));
    }
}

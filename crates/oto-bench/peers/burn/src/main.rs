//! oto-bench's workloads on burn. Questions and answers are lines of JSON (crates/oto-bench/src/peer.rs); the only
//! argument is the backend: `flex`, `ndarray`, or `wgpu` where it is built in.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::time::Instant;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let backend = std::env::args().nth(1).unwrap_or_default();
    #[allow(deprecated)] // Deprecated, but still in wide use: worth a row.
    let device = match backend.as_str() {
        "flex" => Device::flex(),
        "ndarray" => Device::ndarray(),
        #[cfg(feature = "wgpu")]
        "wgpu" => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        other => return Err(format!("no backend {other:?}: flex, ndarray, or wgpu with that feature").into()),
    };
    let mut bench = None;
    for line in std::io::stdin().lock().lines() {
        let question: Value = serde_json::from_str(&line?)?;
        let answer = answer(&question, &mut bench, &device, &backend);
        let answer = answer.unwrap_or_else(|e| json!({ "error": e.to_string() }));
        writeln!(std::io::stdout(), "{answer}")?;
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn answer(
    question: &Value,
    bench: &mut Option<Bench>,
    device: &Device,
    backend: &str,
) -> Result<Value, Error> {
    if let Some(workload) = question.get("workload") {
        *bench = Some(Bench::new(workload.clone(), device)?);
        return Ok(json!({ "ready": format!("burn 0.22.0, {backend}, one thread") }));
    }
    let bench = bench.as_mut().ok_or("no workload yet")?;
    if let Some(updates) = question.get("run").and_then(Value::as_u64) {
        let start = Instant::now();
        for _ in 0..updates {
            bench.student.update(&bench.task);
        }
        // Updates on a device are done when it says so.
        device.sync()?;
        return Ok(json!({ "seconds": start.elapsed().as_secs_f64() }));
    }
    bench.student = Student::new(&bench.workload, device)?;
    let loss = bench.student.update(&bench.task).into_scalar::<f32>();
    Ok(json!({ "loss": loss, "state": bench.student.state()? }))
}

struct Bench {
    workload: Value,
    task: Task,
    student: Student,
}

impl Bench {
    fn new(workload: Value, device: &Device) -> Result<Self, Error> {
        let task = match workload["task"].as_str() {
            Some("qr-dqn") => Task::QrDqn(Box::new(QrDqn::new(&workload, device)?)),
            Some("distillation") => Task::Distillation {
                observation: data(&workload, "observation", &device.clone().autodiff())?,
                soft: data(&workload, "soft", &device.clone().autodiff())?,
            },
            other => return Err(format!("no task {other:?}").into()),
        };
        let student = Student::new(&workload, device)?;
        Ok(Self { workload, task, student })
    }
}

/// Values and shape of an input, state or data.
fn input(workload: &Value, name: &str) -> Result<(Vec<f32>, Vec<usize>), Error> {
    let lists = ["state", "data"].into_iter().filter_map(|k| workload[k].as_array());
    let found = lists.flatten().find(|t| t["name"] == name);
    let tensor = found.ok_or_else(|| format!("no input {name}"))?;
    let numbers = |key: &str| tensor[key].as_array().ok_or_else(|| format!("{name} has no {key}"));
    let values = numbers("values")?.iter().filter_map(Value::as_f64).map(|x| x as f32).collect();
    let shape = numbers("shape")?.iter().filter_map(Value::as_u64).map(|x| x as usize).collect();
    Ok((values, shape))
}

fn data<const D: usize>(workload: &Value, name: &str, device: &Device) -> Result<Tensor<D>, Error> {
    let (values, shape) = input(workload, name)?;
    Ok(Tensor::from_data(TensorData::new(values, shape), device))
}

/// A vector of whole numbers.
fn index(workload: &Value, name: &str, device: &Device) -> Result<Tensor<1, Int>, Error> {
    let values = input(workload, name)?.0.into_iter().map(|x| x as i64).collect::<Vec<_>>();
    let count = values.len();
    Ok(Tensor::from_data(TensorData::new(values, [count]), device))
}

fn number(workload: &Value, name: &str) -> Result<f32, Error> {
    input(workload, name)?.0.first().copied().ok_or_else(|| format!("{name} is empty").into())
}

/// A multi-layer perceptron: ReLU after every layer but the last.
#[derive(Module, Debug)]
struct Network {
    layers: Vec<Linear>,
}

impl Network {
    fn new(workload: &Value, prefix: &str, device: &Device) -> Result<Self, Error> {
        let count = workload["widths"].as_array().map_or(0, |w| w.len().saturating_sub(1));
        let layer = |i: usize| {
            // burn keeps weights as [inputs, outputs].
            let (values, shape) = input(workload, &format!("{prefix}.{i}.weight"))?;
            let weight = Tensor::<2>::from_data(
                TensorData::new(turned(&values, shape[1]), [shape[1], shape[0]]),
                device,
            );
            let bias = data::<1>(workload, &format!("{prefix}.{i}.bias"), device)?;
            Ok(Linear { weight: Param::from_tensor(weight), bias: Some(Param::from_tensor(bias)) })
        };
        Ok(Self { layers: (0..count).map(layer).collect::<Result<_, Error>>()? })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let last = self.layers.len() - 1;
        let hidden = self.layers[..last].iter().fold(x, |x, layer| relu(layer.forward(x)));
        self.layers[last].forward(hidden)
    }

    fn state(&self, prefix: &str) -> Result<Vec<Value>, Error> {
        let mut state = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let outputs = layer.weight.val().dims()[1];
            let weight = layer.weight.val().into_data().try_to_vec::<f32>().map_err(|e| format!("{e:?}"))?;
            state.push(json!({ "name": format!("{prefix}.{i}.weight"), "values": turned(&weight, outputs) }));
            if let Some(bias) = &layer.bias {
                let bias = bias.val().into_data().try_to_vec::<f32>().map_err(|e| format!("{e:?}"))?;
                state.push(json!({ "name": format!("{prefix}.{i}.bias"), "values": bias }));
            }
        }
        Ok(state)
    }
}

/// A matrix of so many columns, transposed.
fn turned(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| values[c..].iter().step_by(columns).copied()).collect()
}

/// Parameters, optimiser and target network.
struct Student {
    network: Option<Network>,
    target: Option<Network>,
    adam: ModuleOptimizer,
    lr: f64,
    mix: f32,
}

impl Student {
    fn new(workload: &Value, device: &Device) -> Result<Self, Error> {
        let has_target = workload["task"] == "qr-dqn";
        let target = has_target.then(|| Network::new(workload, "target", &device.clone().without_autodiff()));
        Ok(Self {
            network: Some(Network::new(workload, "q", &device.clone().autodiff())?),
            target: target.transpose()?,
            adam: AdamConfig::new().with_epsilon(1e-8).init(),
            lr: f64::from(number(workload, "lr")?),
            mix: if has_target { number(workload, "target_mix")? } else { 0.0 },
        })
    }

    fn update(&mut self, task: &Task) -> Tensor<1> {
        let network = self.network.take().expect("put back below");
        let loss = task.loss(&network, self.target.as_ref());
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        let network = self.adam.step(self.lr, network, gradients);
        self.target = self.target.take().map(|target| mixed(target, &network, self.mix));
        self.network = Some(network);
        loss
    }

    fn state(&self) -> Result<Vec<Value>, Error> {
        let mut state = Vec::new();
        for (prefix, network) in [("q", &self.network), ("target", &self.target)] {
            if let Some(network) = network {
                state.extend(network.state(prefix)?);
            }
        }
        Ok(state)
    }
}

/// Polyak averaging.
fn mixed(target: Network, network: &Network, mix: f32) -> Network {
    fn param<const D: usize>(old: Param<Tensor<D>>, new: &Param<Tensor<D>>, mix: f32) -> Param<Tensor<D>> {
        let new = new.val().inner().mul_scalar(mix);
        old.map(|old| old.mul_scalar(1.0 - mix) + new)
    }
    let layer = |(old, new): (Linear, &Linear)| Linear {
        weight: param(old.weight, &new.weight, mix),
        bias: old.bias.zip(new.bias.as_ref()).map(|(old, new)| param(old, new, mix)),
    };
    Network { layers: target.layers.into_iter().zip(&network.layers).map(layer).collect() }
}

enum Task {
    QrDqn(Box<QrDqn>),
    Distillation { observation: Tensor<2>, soft: Tensor<2> },
}

impl Task {
    fn loss(&self, network: &Network, target: Option<&Network>) -> Tensor<1> {
        match (self, target) {
            (Task::QrDqn(task), Some(target)) => task.loss(network, target),
            (Task::QrDqn(_), None) => unreachable!("a QR-DQN student has a target network"),
            (Task::Distillation { observation, soft }, _) => {
                let logits = network.forward(observation.clone());
                let rows = logits.dims()[0] as f32;
                (soft.clone() * log_softmax(logits, 1)).sum().mul_scalar(-1.0 / rows)
            }
        }
    }
}

/// QR-DQN with one teacher's AIKD term.
struct QrDqn {
    quantiles: usize,
    observation: Tensor<2>,
    /// On the device without differentiation, as all that the target network reads.
    next_observation: Tensor<2>,
    reward: Tensor<2>,
    discount: Tensor<2>,
    /// `[B, 1, N]`.
    action: Tensor<3, Int>,
    teacher_action: Tensor<2, Int>,
    one_hot: Tensor<2>,
    mask: Tensor<1>,
    both: Tensor<1>,
    perm: Tensor<1, Int>,
    /// `[1, N, 1]`.
    tau: Tensor<3>,
    alpha_aikd: f32,
    delta: f32,
    eta: f32,
    alpha_task: f32,
}

impl QrDqn {
    fn new(workload: &Value, plain: &Device) -> Result<Self, Error> {
        let device = &plain.clone().autodiff();
        let size = |v: &Value| v.as_u64().map(|n| n as usize).ok_or("no size");
        let (batch, n) = (size(&workload["batch"])?, size(&workload["quantiles"])?);
        let outputs = workload["widths"].as_array().and_then(|w| w.last()).ok_or("no widths")?;
        let actions = size(outputs)? / n;
        let column = |name: &str| Ok::<_, Error>(data::<1>(workload, name, plain)?.reshape([batch, 1]));
        let teacher_action = index(workload, "teacher_action", device)?;
        let mask = data::<2>(workload, "mask", device)?.reshape([batch]);
        let perm = index(workload, "perm", device)?;
        let tau = (0..n).map(|i| (i as f32 + 0.5) / n as f32).collect::<Vec<_>>();
        Ok(Self {
            quantiles: n,
            observation: data(workload, "observation", device)?,
            next_observation: data(workload, "next_observation", plain)?,
            reward: column("reward")?,
            discount: column("discount")?,
            action: index(workload, "action", device)?.reshape([batch, 1, 1]).expand([batch, 1, n]),
            one_hot: teacher_action.clone().one_hot::<2>(actions).float(),
            teacher_action: teacher_action.reshape([batch, 1]),
            both: mask.clone() * mask.clone().select(0, perm.clone()),
            mask,
            perm,
            tau: Tensor::from_data(TensorData::new(tau, [1, n, 1]), device),
            alpha_aikd: number(workload, "alpha_aikd")?,
            delta: number(workload, "delta")?,
            eta: number(workload, "eta")?,
            alpha_task: number(workload, "alpha_task")?,
        })
    }

    fn loss(&self, network: &Network, target: &Network) -> Tensor<1> {
        let returns = Tensor::from_inner(self.bellman(target));
        let quantiles = self.quantiles_of(network.forward(self.observation.clone()));
        let [batch, actions, _] = quantiles.dims();
        let q = quantiles.clone().mean_dim(2).reshape([batch, actions]);
        self.aikd(q).mul_scalar(self.alpha_aikd) + self.task(quantiles, returns).mul_scalar(self.alpha_task)
    }

    fn quantiles_of(&self, flat: Tensor<2>) -> Tensor<3> {
        let [batch, outputs] = flat.dims();
        flat.reshape([batch, outputs / self.quantiles, self.quantiles])
    }

    /// `[B, 1, N]`.
    fn bellman(&self, target: &Network) -> Tensor<3> {
        let next = self.quantiles_of(target.forward(self.next_observation.clone()));
        let [batch, _, n] = next.dims();
        let best = next.clone().mean_dim(2).argmax(1).expand([batch, 1, n]);
        let chosen = next.gather(1, best).reshape([batch, n]);
        (self.reward.clone() + self.discount.clone() * chosen).reshape([batch, 1, n])
    }

    fn task(&self, quantiles: Tensor<3>, returns: Tensor<3>) -> Tensor<1> {
        let [batch, _, n] = quantiles.dims();
        let theta = quantiles.gather(1, self.action.clone()).reshape([batch, n, 1]);
        let d = returns - theta;
        let below = d.clone().detach().lower_scalar(0.0).float();
        let weight = (self.tau.clone() - below).abs();
        let distance = d.abs();
        let small = distance.clone().clamp_max(1.0);
        let huber = small.clone() * (distance - small.mul_scalar(0.5));
        (huber * weight).sum().mul_scalar(1.0 / (batch * n) as f32)
    }

    fn aikd(&self, q: Tensor<2>) -> Tensor<1> {
        let batch = q.dims()[0];
        let log_softmax = log_softmax(q.clone(), 1);
        let own = |x: Tensor<2>| x.gather(1, self.teacher_action.clone()).reshape([batch]);
        let max = q.clone().detach().max_dim(1);
        let log_sum_exp = ((q.clone() - max.clone()).exp().sum_dim(1).log() + max).reshape([batch]);
        let base = masked_mean(log_sum_exp - own(q), &self.mask);
        let rkd_d = masked_mean(-own(log_softmax.clone()), &self.mask);
        let student = log_softmax.exp();
        let midpoint = |v: Tensor<2>| (v.clone() + v.select(0, self.perm.clone())).mul_scalar(0.5);
        let distance = midpoint(self.one_hot.clone()) - midpoint(student);
        let rkd_a = masked_mean(distance.square().mean_dim(1).reshape([batch]), &self.both);
        base.mul_scalar(self.delta) + (rkd_d + rkd_a).mul_scalar(self.eta)
    }
}

fn masked_mean(x: Tensor<1>, mask: &Tensor<1>) -> Tensor<1> {
    (x * mask.clone()).sum() / mask.clone().sum().clamp_min(1.0)
}

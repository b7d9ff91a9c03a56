//! The workloads in candle as its users write them: tensors, `backward`, candle-nn's AdamW (without decay it is Adam). Nothing
//! here comes from oto but the numbers.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use oto_bench::workload::{Task, Workload};
use oto_rl::optimiser::Adam;

/// A workload under way.
pub struct Autograd {
    params: Vec<(String, Var)>,
    target: Vec<(String, Var)>,
    optimiser: AdamW,
    task: Step,
}

enum Step {
    QrDqn(Box<QrDqn>),
    Distillation { observation: Tensor, soft: Tensor },
}

struct QrDqn {
    quantiles: usize,
    observation: Tensor,
    next_observation: Tensor,
    /// `[B]`, as indices.
    action: Tensor,
    teacher_action: Tensor,
    perm: Tensor,
    /// `[B, 1]`.
    reward: Tensor,
    discount: Tensor,
    mask: Tensor,
    /// `[B, actions]`.
    teacher: Tensor,
    /// `[1, N, 1]`.
    tau: Tensor,
    alpha_aikd: f64,
    delta: f64,
    eta: f64,
    alpha_task: f64,
    target_mix: f64,
}

impl Autograd {
    /// At the workload's start.
    pub fn new(workload: &Workload) -> Result<Self> {
        let program = workload.program();
        let named = |prefix: &str| {
            let state = workload.state.iter().filter(|(name, _)| name.starts_with(prefix));
            let var = |(name, values): &(String, Vec<f32>)| {
                let shape =
                    program.input(name).map(|id| program.inputs[id.0].shape.clone()).unwrap_or_default();
                Ok((name.clone(), Var::from_slice(values, shape, &Device::Cpu)?))
            };
            state.map(var).collect::<Result<Vec<_>>>()
        };
        let (params, target) = (named("q.")?, named("target.")?);
        let data = |name: &str| {
            let id =
                program.input(name).ok_or_else(|| candle_core::Error::Msg(format!("there is no {name}")))?;
            let values = workload.values(name).unwrap_or_default();
            Tensor::from_slice(values, program.inputs[id.0].shape.clone(), &Device::Cpu)
        };
        let task = match workload.task {
            Task::QrDqn(shape) => Step::QrDqn(Box::new(QrDqn::new(shape.quantiles, data)?)),
            Task::Distillation => {
                Step::Distillation { observation: data("observation")?, soft: data("soft")? }
            }
            other => {
                return Err(candle_core::Error::Msg(format!("expected a small train step, got {other:?}")));
            }
        };
        let adam = Adam::default();
        let optimiser = AdamW::new(
            params.iter().map(|(_, var)| var.clone()).collect(),
            ParamsAdamW {
                lr: f64::from(data("lr")?.to_scalar::<f32>()?),
                beta1: adam.beta1,
                beta2: adam.beta2,
                eps: adam.epsilon,
                weight_decay: 0.0,
            },
        )?;
        Ok(Self { params, target, optimiser, task })
    }

    /// Makes an update; its loss.
    pub fn step(&mut self) -> Result<Tensor> {
        let loss = match &self.task {
            Step::QrDqn(task) => task.loss(&self.params, &self.target)?,
            Step::Distillation { observation, soft } => {
                let logits = forward(&self.params, observation)?;
                (soft * candle_nn::ops::log_softmax(&logits, D::Minus1)?)?.sum(1)?.mean(0)?.neg()?
            }
        };
        self.optimiser.step(&loss.backward()?)?;
        if let Step::QrDqn(task) = &self.task {
            for ((_, slow), (_, fast)) in self.target.iter().zip(&self.params) {
                slow.set(&(slow.as_tensor() + ((fast.as_tensor() - slow.as_tensor())? * task.target_mix)?)?)?;
            }
        }
        Ok(loss)
    }

    /// Parameters by name.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.params.iter().chain(&self.target).map(|(name, var)| (name.as_str(), var.as_tensor()))
    }
}

/// Layers of weight and bias, ReLU between them.
fn forward(params: &[(String, Var)], x: &Tensor) -> Result<Tensor> {
    let layers = params.len() / 2;
    let mut x = x.clone();
    for (i, pair) in params.chunks_exact(2).enumerate() {
        x = x.matmul(&pair[0].1.t()?)?.broadcast_add(pair[1].1.as_tensor())?;
        if i + 1 < layers {
            x = x.relu()?;
        }
    }
    Ok(x)
}

impl QrDqn {
    fn new(quantiles: usize, data: impl Fn(&str) -> Result<Tensor>) -> Result<Self> {
        let index = |name: &str| data(name)?.flatten_all()?.to_dtype(DType::U32);
        let column = |name: &str| data(name)?.flatten_all()?.unsqueeze(1);
        let number = |name: &str| Ok::<_, candle_core::Error>(f64::from(data(name)?.to_scalar::<f32>()?));
        let teacher_action = index("teacher_action")?;
        let tau = (0..quantiles).map(|i| (i as f32 + 0.5) / quantiles as f32).collect::<Vec<_>>();
        Ok(Self {
            quantiles,
            observation: data("observation")?,
            next_observation: data("next_observation")?,
            action: index("action")?,
            perm: index("perm")?,
            reward: column("reward")?,
            discount: column("discount")?,
            mask: column("mask")?,
            teacher: candle_nn::encoding::one_hot(
                teacher_action.clone(),
                oto_bench::workload::ACTIONS,
                1f32,
                0f32,
            )?,
            teacher_action: teacher_action.unsqueeze(1)?,
            tau: Tensor::from_vec(tau, (1, quantiles, 1), &Device::Cpu)?,
            alpha_aikd: number("alpha_aikd")?,
            delta: number("delta")?,
            eta: number("eta")?,
            alpha_task: number("alpha_task")?,
            target_mix: number("target_mix")?,
        })
    }

    /// `[B, actions, N]`.
    fn quantiles(&self, params: &[(String, Var)], x: &Tensor) -> Result<Tensor> {
        forward(params, x)?.reshape((x.dim(0)?, (), self.quantiles))
    }

    /// The quantiles of one action a row, `[B, N]`.
    fn pick(&self, theta: &Tensor, action: &Tensor) -> Result<Tensor> {
        let index = action.reshape(((), 1, 1))?.broadcast_as((action.dim(0)?, 1, self.quantiles))?;
        theta.gather(&index.contiguous()?, 1)?.squeeze(1)
    }

    fn loss(&self, params: &[(String, Var)], target: &[(String, Var)]) -> Result<Tensor> {
        let next = self.quantiles(target, &self.next_observation)?.detach();
        let best = next.mean(2)?.argmax(1)?;
        let bellman = self.pick(&next, &best)?.broadcast_mul(&self.discount)?.broadcast_add(&self.reward)?;
        let theta = self.quantiles(params, &self.observation)?;
        let task = self.quantile_huber(&self.pick(&theta, &self.action)?, &bellman)?;
        let aikd = self.aikd(&theta.mean(2)?)?;
        (aikd * self.alpha_aikd)? + (task * self.alpha_task)?
    }

    fn quantile_huber(&self, theta: &Tensor, target: &Tensor) -> Result<Tensor> {
        let difference = target.unsqueeze(1)?.broadcast_sub(&theta.unsqueeze(2)?)?;
        let size = difference.abs()?;
        let near = size.minimum(1f64)?;
        let huber = (&near * (&size - (&near * 0.5)?)?)?;
        let below = difference.lt(0f64)?.to_dtype(DType::F32)?;
        let weight = self.tau.broadcast_sub(&below)?.abs()?.detach();
        (huber * weight)?.sum(2)?.mean(1)?.mean(0)
    }

    fn aikd(&self, q: &Tensor) -> Result<Tensor> {
        let both = (&self.mask * self.mask.index_select(&self.perm, 0)?)?;
        let masked = |x: Tensor, mask: &Tensor| {
            let count = mask.sum_all()?.to_scalar::<f32>()?.max(1.0);
            (x * mask)?.sum_all()? / f64::from(count)
        };
        let logits = candle_nn::ops::log_softmax(q, 1)?;
        let of_teacher = |x: &Tensor| x.gather(&self.teacher_action, 1);
        let base = masked((q.log_sum_exp(1)?.unsqueeze(1)? - of_teacher(q)?)?, &self.mask)?;
        let rkd_d = masked(of_teacher(&logits)?.neg()?, &self.mask)?;
        let student = logits.exp()?;
        let pair = |x: &Tensor| (x + x.index_select(&self.perm, 0)?)? * 0.5;
        let apart = (pair(&self.teacher)? - pair(&student)?)?;
        let rkd_a = masked(apart.sqr()?.mean_keepdim(1)?, &both)?;
        (base * self.delta)? + ((rkd_d + rkd_a)? * self.eta)?
    }
}

//! The workloads' train steps fused by hand: what a compiler of programs could reach at best.
//!
//! Samples travel in panels (`kernels`), so that no matrix is transposed but the activations that weight gradients
//! read; losses are computed where their operands still lie; Adam and Polyak averaging pass over the parameters once.
//! The matrix products are the program's, all of them: nothing is left out because this workload would allow it.

use crate::huber::{self, quantile_huber};
use crate::kernels::{self, AdamStep, Level};
use crate::workload::{ACTIONS, Task, Workload};
use oto_rl::optimiser::Adam;

/// Parameters that stay in the first cache from Adam to Polyak averaging.
const CHUNK: usize = 1024;

/// A train step with its state.
#[derive(Clone, Debug)]
pub struct Fused {
    level: Level,
    layers: Vec<Layer>,
    /// All parameters, layer by layer, weight before bias; the vectors after it lie in the same order.
    params: Vec<f32>,
    target: Vec<f32>,
    m: Vec<f32>,
    v: Vec<f32>,
    grad: Vec<f32>,
    /// Steps so far.
    t: f32,
    lr: f32,
    target_mix: f32,
    samples: usize,
    /// For each layer's input and the last layer's output: `[panels][features][C]`.
    activations: Vec<Vec<f32>>,
    /// For each hidden layer's output: `[samples][features]`, for the weight gradients.
    rows: Vec<Vec<f32>>,
    /// For each layer, the gradient of its output before the activation.
    gradients: Vec<Vec<f32>>,
    head: Head,
}

/// Sizes of a layer and where its parameters lie.
#[derive(Clone, Copy, Debug)]
struct Layer {
    inputs: usize,
    outputs: usize,
    weight: usize,
    bias: usize,
}

/// What follows the network.
#[derive(Clone, Debug)]
enum Head {
    Quantiles(Box<Quantiles>),
    Soft(Soft),
}

/// QR-DQN's loss and the teacher's terms.
#[derive(Clone, Debug)]
struct Quantiles {
    count: usize,
    observation: Vec<f32>,
    next_observation: Vec<f32>,
    /// One number for each sample, to whole panels.
    action: Vec<f32>,
    reward: Vec<f32>,
    discount: Vec<f32>,
    teacher_action: Vec<usize>,
    mask: Vec<f32>,
    perm: Vec<usize>,
    alpha_aikd: f32,
    delta: f32,
    eta: f32,
    alpha_task: f32,
    /// Activations of the target network, one panel each.
    next: Vec<Vec<f32>>,
    best: Vec<f32>,
    /// `[quantiles][C]` each.
    bellman: Vec<f32>,
    chosen: Vec<f32>,
    /// Derivative of the Huber loss, `[panels][quantiles][C]`.
    slope: Vec<f32>,
    /// Loss of each sample of a panel.
    loss: Vec<f32>,
    /// `[panels][ACTIONS][C]`: Q-values, then the teacher's gradient towards them.
    q: Vec<f32>,
    softmax: Vec<[f32; ACTIONS]>,
    softmax_grad: Vec<[f32; ACTIONS]>,
    scratch: huber::Scratch,
}

/// Cross-entropy with given probabilities.
#[derive(Clone, Debug)]
struct Soft {
    observation: Vec<f32>,
    /// `[panels][classes][C]`.
    soft: Vec<f32>,
}

impl Fused {
    /// The step of `workload` at its start.
    ///
    /// # Panics
    /// If the workload lacks one of its own inputs, which [`Workload::new`] never does, or if it is a large one
    /// ([`Workload::is_small`]).
    pub fn new(workload: &Workload) -> Self {
        Self::at(Level::best(), workload)
    }

    fn at(level: Level, workload: &Workload) -> Self {
        let get = |name: &str| workload.values(name).expect("a workload has all its inputs").to_vec();
        let widths = workload.widths();
        let layers = layers(&widths);
        let named = |prefix: &str| {
            let layer = |i: usize| [get(&format!("{prefix}.{i}.weight")), get(&format!("{prefix}.{i}.bias"))];
            (0..layers.len()).flat_map(layer).flatten().collect::<Vec<_>>()
        };
        let params = named("q");
        let zeros = vec![0.0; params.len()];
        let samples = workload.batch();
        let padded = samples.next_multiple_of(level.lanes());
        let per_sample = |widths: &[usize]| widths.iter().map(|w| vec![0.0; w * padded]).collect::<Vec<_>>();
        let (head, target, target_mix) = match workload.task {
            Task::QrDqn(shape) => {
                let head = Quantiles::new(shape.quantiles, level, &widths, padded, &get);
                (Head::Quantiles(Box::new(head)), named("target"), get("target_mix")[0])
            }
            Task::Distillation => {
                let soft = panels(level, get("soft"), widths[widths.len() - 1], padded);
                let observation = padded_rows(get("observation"), widths[0], padded);
                (Head::Soft(Soft { observation, soft }), Vec::new(), 0.0)
            }
            Task::Sac(_) | Task::Td3(_) | Task::Critics(..) => unreachable!("no large step by hand"),
        };
        Self {
            level,
            target,
            m: zeros.clone(),
            v: zeros.clone(),
            grad: zeros,
            t: 0.0,
            lr: get("lr")[0],
            target_mix,
            samples,
            activations: per_sample(&widths),
            rows: per_sample(&widths[1..widths.len() - 1]),
            gradients: per_sample(&widths[1..]),
            head,
            layers,
            params,
        }
    }

    /// One update; gives the loss before it.
    pub fn step(&mut self) -> f32 {
        let loss = match &mut self.head {
            Head::Quantiles(head) => {
                let (last, before) = self.activations.split_last_mut().expect("a network has an output");
                let network = Network { level: self.level, layers: &self.layers };
                let task = head.forward(network, &self.params, &self.target, before, last, self.samples);
                let aikd = head.aikd(self.level, self.samples);
                let out = self.gradients.last_mut().expect("a network has a layer");
                head.backward(self.level, self.samples, out);
                head.alpha_task * task + aikd
            }
            Head::Soft(head) => {
                let network = Network { level: self.level, layers: &self.layers };
                let (last, before) = self.activations.split_last_mut().expect("a network has an output");
                let observations = head.observation.chunks_exact(network.lanes() * network.layers[0].inputs);
                for (i, rows) in observations.enumerate() {
                    network.forward(&self.params, rows, i, before, last);
                }
                let out = self.gradients.last_mut().expect("a network has a layer");
                head.loss(self.level, self.samples, last, out)
            }
        };
        self.backward();
        self.improve();
        loss
    }

    /// From the gradient of the output to those of all parameters.
    fn backward(&mut self) {
        for i in (0..self.layers.len()).rev() {
            let layer = self.layers[i];
            let weight = &self.params[layer.weight..layer.bias];
            let (below, from) = self.gradients.split_at_mut(i);
            let lanes = self.level.lanes();
            if let Some(dx) = below.last_mut() {
                let each = from[0].chunks_exact(lanes * layer.outputs);
                let outputs = self.activations[i].chunks_exact(lanes * layer.inputs);
                for ((g, y), dx) in each.zip(outputs).zip(dx.chunks_exact_mut(lanes * layer.inputs)) {
                    kernels::backward(self.level, weight, g, y, dx);
                }
            }
            let x = &self.activations[i];
            let rows: &[f32] = match i.checked_sub(1) {
                Some(hidden) => {
                    let to = self.rows[hidden].chunks_exact_mut(lanes * layer.inputs);
                    let from = x.chunks_exact(lanes * layer.inputs);
                    from.zip(to).for_each(|(x, rows)| kernels::to_rows(self.level, x, rows));
                    &self.rows[hidden]
                }
                None => match &self.head {
                    Head::Quantiles(head) => &head.observation,
                    Head::Soft(head) => &head.observation,
                },
            };
            let (dw, db) = self.grad[layer.weight..layer.bias + layer.outputs].split_at_mut(weight.len());
            kernels::weight_gradient(self.level, &from[0], layer.outputs, x, rows, dw, db);
        }
    }

    /// Adam, then the target network, a stretch of parameters at a time.
    fn improve(&mut self) {
        self.t += 1.0;
        let Adam { beta1, beta2, epsilon } = Adam::default();
        let t = f64::from(self.t);
        let step = AdamStep {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            epsilon: epsilon as f32,
            size: (f64::from(self.lr) / (1.0 - beta1.powf(t))) as f32,
            scale: (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32,
        };
        for from in (0..self.params.len()).step_by(CHUNK) {
            let at = from..self.params.len().min(from + CHUNK);
            let p = &mut self.params[at.clone()];
            let (m, v) = (&mut self.m[at.clone()], &mut self.v[at.clone()]);
            kernels::adam(self.level, p, m, v, &self.grad[at.clone()], step);
            if !self.target.is_empty() {
                kernels::polyak(self.level, &mut self.target[at], p, self.target_mix);
            }
        }
    }

    /// All state by the names that the workload's program gives it.
    pub fn params(&self) -> Vec<(String, Vec<f32>)> {
        let mut named = Vec::new();
        for (prefix, values) in
            [("q", &self.params), ("target", &self.target), ("adam.m.q", &self.m), ("adam.v.q", &self.v)]
        {
            for (i, layer) in self.layers.iter().enumerate().filter(|_| !values.is_empty()) {
                let weight = values[layer.weight..layer.bias].to_vec();
                let bias = values[layer.bias..layer.bias + layer.outputs].to_vec();
                named.push((format!("{prefix}.{i}.weight"), weight));
                named.push((format!("{prefix}.{i}.bias"), bias));
            }
        }
        named.push(("adam.t".into(), vec![self.t]));
        named
    }
}

fn layers(widths: &[usize]) -> Vec<Layer> {
    let mut end = 0;
    let layer = |pair: &[usize]| {
        let (inputs, outputs, weight) = (pair[0], pair[1], end);
        let bias = weight + inputs * outputs;
        end = bias + outputs;
        Layer { inputs, outputs, weight, bias }
    };
    widths.windows(2).map(layer).collect()
}

/// `[samples][width]` with zeros for the samples that the last panel lacks.
fn padded_rows(mut rows: Vec<f32>, width: usize, padded: usize) -> Vec<f32> {
    rows.resize(padded * width, 0.0);
    rows
}

/// `[samples][width]` as `[panels][width][C]`.
fn panels(level: Level, rows: Vec<f32>, width: usize, padded: usize) -> Vec<f32> {
    let mut out = vec![0.0; width * padded];
    let size = width * level.lanes();
    for (rows, out) in padded_rows(rows, width, padded).chunks_exact(size).zip(out.chunks_exact_mut(size)) {
        kernels::to_panel(level, rows, out);
    }
    out
}

#[derive(Clone, Copy)]
struct Network<'a> {
    level: Level,
    layers: &'a [Layer],
}

impl Network<'_> {
    fn lanes(self) -> usize {
        self.level.lanes()
    }

    /// Panel `panel` from observations `[C][inputs]` through all layers; `before` has the layers' inputs.
    fn forward(
        self,
        params: &[f32],
        observations: &[f32],
        panel: usize,
        before: &mut [Vec<f32>],
        last: &mut [f32],
    ) {
        let at = |width: usize| panel * width * self.lanes()..(panel + 1) * width * self.lanes();
        kernels::to_panel(self.level, observations, &mut before[0][at(self.layers[0].inputs)]);
        for (i, layer) in self.layers.iter().enumerate() {
            let (done, rest) = before.split_at_mut(i + 1);
            let y = rest.first_mut().map_or(&mut *last, |y| y.as_mut_slice());
            let weight = &params[layer.weight..layer.bias];
            let bias = &params[layer.bias..layer.bias + layer.outputs];
            let hidden = i + 1 < self.layers.len();
            let x = &done[i][at(layer.inputs)];
            kernels::forward(self.level, weight, bias, hidden, x, &mut y[at(layer.outputs)]);
        }
    }
}

impl Quantiles {
    fn new(
        count: usize,
        level: Level,
        widths: &[usize],
        padded: usize,
        get: &dyn Fn(&str) -> Vec<f32>,
    ) -> Self {
        let lanes = level.lanes();
        let padded_values = |name: &str| padded_rows(get(name), 1, padded);
        let whole = |name: &str| get(name).into_iter().map(|v| v as usize).collect::<Vec<_>>();
        Self {
            count,
            observation: padded_rows(get("observation"), widths[0], padded),
            next_observation: padded_rows(get("next_observation"), widths[0], padded),
            action: padded_values("action"),
            reward: padded_values("reward"),
            discount: padded_values("discount"),
            teacher_action: whole("teacher_action"),
            mask: get("mask"),
            perm: whole("perm"),
            alpha_aikd: get("alpha_aikd")[0],
            delta: get("delta")[0],
            eta: get("eta")[0],
            alpha_task: get("alpha_task")[0],
            next: widths.iter().map(|w| vec![0.0; w * lanes]).collect(),
            best: vec![0.0; lanes],
            bellman: vec![0.0; count * lanes],
            chosen: vec![0.0; count * lanes],
            slope: vec![0.0; count * padded],
            loss: vec![0.0; lanes],
            q: vec![0.0; ACTIONS * padded],
            softmax: vec![[0.0; ACTIONS]; padded],
            softmax_grad: vec![[0.0; ACTIONS]; padded],
            scratch: huber::Scratch::new(count, lanes),
        }
    }

    /// Both networks, the Bellman target and the Huber loss, panel by panel; gives the task's loss.
    fn forward(
        &mut self,
        network: Network<'_>,
        params: &[f32],
        target: &[f32],
        before: &mut [Vec<f32>],
        last: &mut [f32],
        samples: usize,
    ) -> f32 {
        let (level, lanes) = (network.level, network.lanes());
        let (outputs, width) = (ACTIONS * self.count, network.layers[0].inputs);
        let mut task = 0.0;
        for (i, rows) in self.observation.chunks_exact(lanes * width).enumerate() {
            let here = i * lanes..(i + 1) * lanes;
            let next_rows =
                self.next_observation.chunks_exact(lanes * width).nth(i).expect("as many as observations");
            let (next, next_before) = self.next.split_last_mut().expect("a network has an output");
            network.forward(target, next_rows, 0, next_before, next);
            let q = &mut self.q[i * ACTIONS * lanes..(i + 1) * ACTIONS * lanes];
            kernels::means(level, next, self.count, q);
            best(q, &mut self.best);
            kernels::choose(level, next, self.count, &self.best, &mut self.bellman);
            kernels::bellman(
                level,
                &self.reward[here.clone()],
                &self.discount[here.clone()],
                &mut self.bellman,
            );

            network.forward(params, rows, i, before, last);
            let theta = &last[i * outputs * lanes..(i + 1) * outputs * lanes];
            kernels::means(level, theta, self.count, q);
            kernels::choose(level, theta, self.count, &self.action[here], &mut self.chosen);
            let slope = &mut self.slope[i * self.count * lanes..(i + 1) * self.count * lanes];
            self.loss.fill(0.0);
            quantile_huber(level, &self.chosen, &self.bellman, &mut self.loss, slope, &mut self.scratch);
            task += self.loss[..lanes.min(samples - i * lanes)].iter().sum::<f32>();
        }
        task / samples as f32
    }

    /// The teacher's term; replaces the Q-values by its gradient towards them.
    fn aikd(&mut self, level: Level, samples: usize) -> f32 {
        let lanes = level.lanes();
        let at = |b: usize, a: usize| (b / lanes * ACTIONS + a) * lanes + b % lanes;
        let labels = self.mask.iter().sum::<f32>().max(1.0);
        let paired = (0..samples).map(|b| self.mask[b] * self.mask[self.perm[b]]).sum::<f32>().max(1.0);
        let (mut base, mut rkd_a) = (0.0, 0.0);
        for b in 0..samples {
            let q: [f32; ACTIONS] = std::array::from_fn(|a| self.q[at(b, a)]);
            let max = q.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exp = q.map(|q| (q - max).exp());
            let sum = exp.iter().sum::<f32>();
            self.softmax[b] = exp.map(|e| e / sum);
            base += self.mask[b] * (sum.ln() + max - q[self.teacher_action[b]]);
        }
        self.softmax_grad.fill([0.0; ACTIONS]);
        let label = |b: usize, a: usize| if self.teacher_action[b] == a { 1.0 } else { 0.0 };
        for b in 0..samples {
            let other = self.perm[b];
            let both = self.mask[b] * self.mask[other];
            for a in 0..ACTIONS {
                let d = 0.5 * (label(b, a) + label(other, a) - self.softmax[b][a] - self.softmax[other][a]);
                rkd_a += both * d * d / ACTIONS as f32;
                let g = -both * d / ACTIONS as f32;
                self.softmax_grad[b][a] += g;
                self.softmax_grad[other][a] += g;
            }
        }
        // BASE and RKD-D of a discrete student are the same number: log sum exp Q - Q(s, teacher's action).
        let likelihood = self.alpha_aikd * (self.delta + self.eta) / labels;
        let angle = self.alpha_aikd * self.eta / paired;
        for b in 0..samples {
            let (s, g) = (self.softmax[b], self.softmax_grad[b]);
            let inner = s.iter().zip(g).map(|(s, g)| s * g).sum::<f32>();
            for a in 0..ACTIONS {
                let own = likelihood * self.mask[b] * (s[a] - label(b, a));
                self.q[at(b, a)] = own + angle * s[a] * (g[a] - inner);
            }
        }
        likelihood * base + angle * rkd_a
    }

    /// Gradient of the loss towards the network's output.
    fn backward(&mut self, level: Level, samples: usize, out: &mut [f32]) {
        let lanes = level.lanes();
        let scale = self.alpha_task / samples as f32;
        self.q.iter_mut().for_each(|g| *g /= self.count as f32);
        for (i, out) in out.chunks_exact_mut(ACTIONS * self.count * lanes).enumerate() {
            let every = &self.q[i * ACTIONS * lanes..(i + 1) * ACTIONS * lanes];
            let slope = &self.slope[i * self.count * lanes..(i + 1) * self.count * lanes];
            kernels::spread(level, every, &self.action[i * lanes..(i + 1) * lanes], slope, scale, out);
            clear_padding(out, lanes, samples - i * lanes);
        }
    }
}

/// Lanes beyond the samples must not reach the weight gradients.
fn clear_padding(panel: &mut [f32], lanes: usize, samples: usize) {
    if samples < lanes {
        panel.chunks_exact_mut(lanes).for_each(|row| row[samples..].fill(0.0));
    }
}

/// The first best action of each sample: q `[ACTIONS][C]`.
fn best(q: &[f32], out: &mut [f32]) {
    let lanes = out.len();
    for (lane, out) in out.iter_mut().enumerate() {
        let at = |a: usize| q[a * lanes + lane];
        *out = (0..ACTIONS).fold(0, |best, a| if at(a) > at(best) { a } else { best }) as f32;
    }
}

impl Soft {
    /// Mean cross-entropy of logits `[panels][classes][C]`; `out` becomes its derivative towards them.
    fn loss(&self, level: Level, samples: usize, logits: &[f32], out: &mut [f32]) -> f32 {
        let lanes = level.lanes();
        let classes = logits.len() / samples.next_multiple_of(lanes);
        let mut loss = 0.0;
        for b in 0..samples {
            let at = |class: usize| (b / lanes * classes + class) * lanes + b % lanes;
            let max = (0..classes).map(|c| logits[at(c)]).fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for c in 0..classes {
                out[at(c)] = (logits[at(c)] - max).exp();
                sum += out[at(c)];
            }
            let lse = sum.ln() + max;
            let mass = (0..classes).map(|c| self.soft[at(c)]).sum::<f32>();
            for c in 0..classes {
                loss += self.soft[at(c)] * (lse - logits[at(c)]);
                out[at(c)] = (mass * out[at(c)] / sum - self.soft[at(c)]) / samples as f32;
            }
        }
        loss / samples as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Shape, distillation};
    use oto_candle::Candle;
    use oto_graph::Backend;

    /// Loss and all state after one and after ten steps, against candle's interpreter.
    fn agrees(workload: &Workload, level: Level) {
        let name = format!("{} {level:?}", workload.name());
        let mut reference = Candle.compile(workload.program()).unwrap();
        workload.load(reference.as_mut()).unwrap();
        let mut ours = Fused::at(level, workload);
        let mut outputs = vec![Vec::new(); reference.program().outputs.len()];
        for step in 1..=10 {
            let loss = ours.step();
            reference.run(&workload.slices(), &mut outputs).unwrap();
            let expected = outputs[0][0];
            assert!(
                (loss - expected).abs() < 1e-4 * (1.0 + expected.abs()),
                "{name} {step}: {loss} {expected}"
            );
            if step != 1 && step != 10 {
                continue;
            }
            let params = ours.params();
            assert_eq!(params.len(), workload.state.len());
            for (parameter, values) in params {
                let mut expected = vec![0.0; values.len()];
                let id = reference.program().input(&parameter).unwrap();
                reference.read(id, &mut expected).unwrap();
                for (a, b) in values.iter().zip(&expected) {
                    assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "{name} {step} {parameter}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn steps_agree_with_the_reference() {
        for level in Level::all() {
            for (hidden, quantiles, batch) in [(64, 32, 64), (128, 51, 64), (32, 200, 64), (19, 7, 13)] {
                agrees(&Workload::new(Shape { hidden, quantiles, batch }, 1), level);
            }
            agrees(&distillation(2), level);
        }
    }
}

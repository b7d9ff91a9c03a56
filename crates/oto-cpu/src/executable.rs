//! The compiled program: buffers for all nodes, then one loop over them.

use crate::convolution::{conv2d, conv2d_grad_input, conv2d_grad_weight};
use crate::kernels;
use crate::matmul::{Scratch, Side, matmul};
use oto_graph::{Backend, BackendError, Executable, InputId, NodeId, Op, Program, Role};

/// The backend named "cpu".
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

impl Backend for Cpu {
    fn name(&self) -> &str {
        "cpu"
    }

    fn compile(&self, program: Program) -> Result<Box<dyn Executable>, BackendError> {
        Ok(Box::new(Compiled::new(program)))
    }
}

struct Compiled {
    program: Program,
    /// For each node, where its value lies: its own buffer, or the one it is another view of.
    home: Vec<usize>,
    /// One buffer for each node that is its own home, empty for the others. State lives in its input's buffer.
    buffers: Vec<Vec<f32>>,
    /// The node of each input.
    input_node: Vec<Option<usize>>,
    /// For each update, whether its value's buffer is nobody else's, so that it can be exchanged instead of copied.
    exchange: Vec<bool>,
    scratch: Scratch,
}

impl Compiled {
    fn new(program: Program) -> Self {
        let nodes = &program.nodes;
        let mut home = Vec::with_capacity(nodes.len());
        let mut buffers = Vec::with_capacity(nodes.len());
        let mut input_node = vec![None; program.inputs.len()];
        for (i, node) in nodes.iter().enumerate() {
            let view_of = match node.op {
                Op::Reshape(x) | Op::StopGradient(x) => Some(home[x.0]),
                _ => None,
            };
            if let Op::Input(n) = node.op {
                input_node[n] = Some(i);
            }
            let size = node.shape.iter().product();
            let fill = if let Op::Constant(v) = node.op { v as f32 } else { 0.0 };
            home.push(view_of.unwrap_or(i));
            buffers.push(if view_of.is_some() { Vec::new() } else { vec![fill; size] });
        }
        let homes = program.updates.iter().map(|(_, n)| home[n.0]).collect::<Vec<_>>();
        let alone = |h: &usize| homes.iter().filter(|o| *o == h).count() == 1;
        let exchange = homes
            .iter()
            .map(|h| alone(h) && !matches!(nodes[*h].op, Op::Input(_) | Op::Constant(_)))
            .collect();
        Self { home, buffers, input_node, exchange, scratch: Scratch::default(), program }
    }

    fn at(&self, node: NodeId) -> &[f32] {
        &self.buffers[self.home[node.0]]
    }

    fn shape(&self, node: NodeId) -> &[usize] {
        &self.program.nodes[node.0].shape
    }

    fn side(&self, node: NodeId, turned: bool) -> Side<'_> {
        let shape = self.shape(node);
        Side { values: self.at(node), rows: shape[0], columns: shape[1], turned }
    }

    fn compute(&self, i: usize, out: &mut [f32], scratch: &mut Scratch) -> Result<(), BackendError> {
        let node = &self.program.nodes[i];
        let at = |id| self.at(id);
        let last = |id: NodeId| self.shape(id).last().copied().unwrap_or(1);
        match node.op {
            Op::Input(_) | Op::Constant(_) | Op::Reshape(_) | Op::StopGradient(_) => {}
            Op::Affine { x, mul, add } => {
                let (mul, add) = (mul as f32, add as f32);
                out.iter_mut().zip(at(x)).for_each(|(o, x)| *o = x * mul + add);
            }
            Op::Unary(op, x) => kernels::unary(op, at(x), out),
            Op::Binary(op, a, b) => kernels::binary(op, at(a), at(b), out),
            Op::Broadcast(x) => kernels::broadcast(at(x), self.shape(x), &node.shape, out),
            Op::SumTo(x) => kernels::sum_to(at(x), self.shape(x), &node.shape, out),
            Op::MatMul { a, b, ta, tb } => matmul(self.side(a, ta), self.side(b, tb), out, scratch),
            Op::Linear { x, weight, bias, activation } => {
                matmul(self.side(x, false), self.side(weight, true), out, scratch);
                let bias = at(bias);
                for row in out.chunks_exact_mut(bias.len()) {
                    row.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
                }
                kernels::activate(out, activation);
            }
            Op::ActivationGrad { y, g, activation } => {
                kernels::activation_grad(at(y), at(g), activation, out)
            }
            Op::Conv2d { x, weight, bias, conv, activation } => {
                let (x, w) = ((at(x), self.shape(x)), (at(weight), self.shape(weight)));
                conv2d(x, w, at(bias), conv, &node.shape, out);
                kernels::activate(out, activation);
            }
            Op::Conv2dGradInput { g, weight, conv } => {
                let (g, w) = ((at(g), self.shape(g)), (at(weight), self.shape(weight)));
                conv2d_grad_input(g, w, conv, &node.shape, out);
            }
            Op::Conv2dGradWeight { x, g, conv } => {
                let (x, g) = ((at(x), self.shape(x)), (at(g), self.shape(g)));
                conv2d_grad_weight(x, g, conv, &node.shape, out);
            }
            Op::MaxLast(x) => kernels::max_last(at(x), last(x), out),
            Op::ArgMaxLast(x) => kernels::argmax_last(at(x), last(x), out),
            Op::LogSumExp(x) => kernels::log_sum_exp(at(x), last(x), out),
            Op::LogSoftmax(x) => kernels::log_softmax(at(x), last(x), out),
            Op::LogSoftmaxGrad { y, g } => kernels::log_softmax_grad(at(y), at(g), last(y), out),
            Op::Pick { x, index } => {
                let shape = self.shape(x);
                kernels::pick(at(x), shape[1], shape[2], at(index), out)?;
            }
            Op::Unpick { g, index } => kernels::unpick(at(g), node.shape[1], node.shape[2], at(index), out)?,
            Op::Rows { x, index } => kernels::rows(at(x), self.shape(x)[0], at(index), out)?,
            Op::AddRows { g, index } => kernels::add_rows(at(g), node.shape[0], at(index), out)?,
            Op::QuantileHuber { theta, target, kappa } => {
                kernels::quantile_huber(at(theta), at(target), kappa as f32, out);
            }
            Op::QuantileHuberGrad { theta, target, kappa } => {
                kernels::quantile_huber_grad(at(theta), at(target), node.shape[0], kappa as f32, out);
            }
            Op::Moment { m, g, beta, squared } => {
                kernels::moment(at(m), at(g), beta as f32, (1.0 - beta) as f32, squared, out);
            }
            Op::AdamStep { p, m, v, t, lr, beta1, beta2, epsilon } => {
                let scales = kernels::adam_scales(at(t)[0], at(lr)[0], beta1, beta2);
                kernels::adam_step(at(p), at(m), at(v), scales, epsilon as f32, out);
            }
            Op::Polyak { target, p, tau } => kernels::polyak(at(target), at(p), at(tau)[0], out),
        }
        Ok(())
    }

    fn check(&self, input: InputId, got: usize) -> Result<(), BackendError> {
        let spec = &self.program.inputs[input.0];
        match spec.len() {
            expected if expected == got => Ok(()),
            expected => Err(BackendError::Size { name: spec.name.clone(), expected, got }),
        }
    }

    fn count(what: &'static str, expected: usize, got: usize) -> Result<(), BackendError> {
        if expected == got { Ok(()) } else { Err(BackendError::Count { what, expected, got }) }
    }
}

impl Executable for Compiled {
    fn program(&self) -> &Program {
        &self.program
    }

    fn write(&mut self, input: InputId, values: &[f32]) -> Result<(), BackendError> {
        self.check(input, values.len())?;
        if let Some(node) = self.input_node[input.0] {
            self.buffers[node].copy_from_slice(values);
        }
        Ok(())
    }

    fn read(&self, input: InputId, values: &mut [f32]) -> Result<(), BackendError> {
        self.check(input, values.len())?;
        match self.input_node[input.0] {
            Some(node) => values.copy_from_slice(&self.buffers[node]),
            None => values.fill(0.0),
        }
        Ok(())
    }

    fn run(&mut self, data: &[&[f32]], outputs: &mut [Vec<f32>]) -> Result<(), BackendError> {
        Self::count("data inputs", self.program.data().count(), data.len())?;
        Self::count("outputs", self.program.outputs.len(), outputs.len())?;
        let mut next = 0;
        for i in 0..self.program.inputs.len() {
            if self.program.inputs[i].role == Role::Data {
                self.write(InputId(i), data[next])?;
                next += 1;
            }
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut result = Ok(());
        for i in 0..self.program.nodes.len() {
            if matches!(self.program.nodes[i].op, Op::Input(_)) {
                continue;
            }
            let mut out = std::mem::take(&mut self.buffers[i]);
            result = self.compute(i, &mut out, &mut scratch);
            self.buffers[i] = out;
            if result.is_err() {
                break;
            }
        }
        self.scratch = scratch;
        result?;
        for ((_, node), out) in self.program.outputs.iter().zip(outputs) {
            out.clear();
            out.extend_from_slice(&self.buffers[self.home[node.0]]);
        }
        // All new values exist by now. Copies come first, while every value is still where it was computed.
        for exchange in [false, true] {
            for u in (0..self.program.updates.len()).filter(|u| self.exchange[*u] == exchange) {
                let (input, node) = self.program.updates[u];
                let (Some(to), from) = (self.input_node[input.0], self.home[node.0]) else { continue };
                if exchange {
                    self.buffers.swap(to, from);
                } else if to != from {
                    let mut target = std::mem::take(&mut self.buffers[to]);
                    target.copy_from_slice(&self.buffers[from]);
                    self.buffers[to] = target;
                }
            }
        }
        Ok(())
    }
}

//! Reverse-mode differentiation: the only one in oto. It records the derivative's operations in the same trace.

use crate::{Activation, Binary, NodeId, Op, Tensor, Trace, Unary};

/// Derivatives of `loss` (shape `[]`) towards each of `towards`, in their shapes; zeros where there is no way.
pub fn grad<'t>(loss: Tensor<'t>, towards: &[Tensor<'t>]) -> Vec<Tensor<'t>> {
    assert!(loss.shape().is_empty(), "only a single number is differentiated, not {:?}", loss.shape());
    let trace = loss.trace();
    let count = loss.id().0 + 1;
    let mut walk =
        Walk { gradients: vec![None; count], met: vec![Vec::new(); count], useful: useful(loss, towards) };
    walk.gradients[loss.id().0] = Some(trace.constant(1.0, &[]));
    for i in (0..count).rev() {
        walk.settle(trace, NodeId(i));
        if let (true, Some(g)) = (walk.useful[i], walk.gradients[i]) {
            walk.back(trace.at(NodeId(i)), g);
        }
    }
    let zero = |t: &Tensor<'t>| trace.constant(0.0, &t.shape());
    let found = |t: &Tensor<'t>| walk.gradients.get(t.id().0).copied().flatten().unwrap_or_else(|| zero(t));
    towards.iter().map(found).collect()
}

/// Which nodes lie between `towards` and the loss: only their gradients are worth recording.
fn useful(loss: Tensor<'_>, towards: &[Tensor<'_>]) -> Vec<bool> {
    let mut useful = vec![false; loss.id().0 + 1];
    for i in 0..useful.len() {
        let op = loss.trace().node(NodeId(i)).op;
        let asked = towards.iter().any(|t| t.id().0 == i);
        useful[i] = asked || !matches!(op, Op::StopGradient(_)) && op.operands().any(|o| useful[o.0]);
    }
    useful
}

struct Walk<'t> {
    gradients: Vec<Option<Tensor<'t>>>,
    /// By weight: the gradients `[1, O]` and inputs `[1, I]` of the layers of a single row that have it. A recurrent layer has it at each
    /// step: one product of all steps takes the place of a sum of products.
    met: Vec<Vec<(Tensor<'t>, Tensor<'t>)>>,
    useful: Vec<bool>,
}

impl<'t> Walk<'t> {
    fn give(&mut self, to: NodeId, gradient: impl FnOnce() -> Tensor<'t>) {
        if self.useful[to.0] {
            let gradient = gradient();
            let slot = &mut self.gradients[to.0];
            *slot = Some(slot.map_or(gradient, |sum| sum + gradient));
        }
    }

    /// Gives a weight what its layer's gradient `g` and input `x` say.
    fn give_weight(&mut self, weight: NodeId, g: Tensor<'t>, x: Tensor<'t>) {
        if self.useful[weight.0] && g.shape().len() == 2 && g.size(0) == 1 {
            self.met[weight.0].push((g, x));
        } else {
            self.give(weight, || g.matmul(x, true, false));
        }
    }

    /// Gives a node what single rows said about it.
    fn settle(&mut self, trace: &'t Trace, weight: NodeId) {
        let met = std::mem::take(&mut self.met[weight.0]);
        let columns = |part: fn(&(Tensor<'t>, Tensor<'t>)) -> Tensor<'t>| {
            let each = met.iter().map(|pair| part(pair).reshape(&[part(pair).last(), 1]));
            trace.side_by_side(&each.collect::<Vec<_>>())
        };
        match met[..] {
            [] => {}
            [(g, x)] => self.give(weight, || g.matmul(x, true, false)),
            _ => self.give(weight, || columns(|pair| pair.0).matmul(columns(|pair| pair.1), false, true)),
        }
    }

    /// Hands `g`, the gradient of `y`, on to `y`'s operands.
    fn back(&mut self, y: Tensor<'t>, g: Tensor<'t>) {
        let trace = y.trace();
        let at = |id: NodeId| trace.at(id);
        match trace.node(y.id()).op {
            Op::Input(_) | Op::Constant(_) | Op::StopGradient(_) => {}
            Op::Affine { x, mul, .. } => self.give(x, || g * mul),
            Op::Unary(Unary::Step, _) => {}
            Op::Unary(op, x) => self.give(x, || unary(op, at(x), y, g)),
            Op::Binary(op, a, b) => self.binary(op, at(a), at(b), g),
            Op::Broadcast(x) => self.give(x, || g.sum_to(&at(x).shape())),
            Op::SumTo(x) => self.give(x, || g.broadcast(&at(x).shape())),
            Op::Reshape(x) => self.give(x, || g.reshape(&at(x).shape())),
            Op::Select { when, then, otherwise } => {
                let zeros = || trace.constant(0.0, &y.shape());
                self.give(then, || g.select(at(when), zeros()));
                self.give(otherwise, || zeros().select(at(when), g));
            }
            Op::Concat { a, b } => {
                let (first, second) = (at(a).last(), at(b).last());
                self.give(a, || g.slice_last(0, first));
                self.give(b, || g.slice_last(first, second));
            }
            Op::Slice { x, from } => self.give(x, || beside_zeros(g, from, at(x).last())),
            // A matrix that served all of several gets the sum of what each of them says.
            Op::MatMul { a, b, ta, tb } => {
                let to_a = || if ta { at(b).matmul(g, tb, true) } else { g.matmul(at(b), false, !tb) };
                let to_b = || if tb { g.matmul(at(a), true, ta) } else { at(a).matmul(g, !ta, false) };
                self.give(a, || to_a().sum_to(&at(a).shape()));
                self.give(b, || to_b().sum_to(&at(b).shape()));
            }
            Op::Linear { x, weight, bias, activation } => {
                let g = before(activation, y, g);
                self.give(x, || g.matmul(at(weight), false, false).sum_to(&at(x).shape()));
                self.give_weight(weight, g, at(x));
                self.give(bias, || match at(bias).shape()[..] {
                    [n, outputs] => g.sum_to(&[n, 1, outputs]).reshape(&[n, outputs]),
                    _ => g.sum_to(&at(bias).shape()),
                });
            }
            Op::Conv2d { x, weight, bias, conv, activation } => {
                let g = before(activation, y, g);
                self.give(x, || trace.push(Op::Conv2dGradInput { g: g.id(), weight, conv }, at(x).shape()));
                self.give(weight, || {
                    trace.push(Op::Conv2dGradWeight { x, g: g.id(), conv }, at(weight).shape())
                });
                let outputs = at(bias).size(0);
                self.give(bias, || g.sum_to(&[1, outputs, 1, 1]).reshape(&[outputs]));
            }
            Op::LogSumExp(x) => self.give(x, || (at(x) - y).exp() * g),
            Op::LogSoftmax(x) => {
                self.give(x, || trace.push(Op::LogSoftmaxGrad { y: y.id(), g: g.id() }, y.shape()))
            }
            Op::LayerNorm { x, epsilon } => {
                self.give(x, || trace.push(Op::LayerNormGrad { x, g: g.id(), epsilon }, y.shape()))
            }
            Op::Pick { x, index } => {
                self.give(x, || trace.push(Op::Unpick { g: g.id(), index }, at(x).shape()))
            }
            Op::Unpick { g: x, index } => {
                self.give(x, || trace.push(Op::Pick { x: g.id(), index }, at(x).shape()))
            }
            Op::Rows { x, index } => {
                self.give(x, || trace.push(Op::AddRows { g: g.id(), index }, at(x).shape()))
            }
            Op::AddRows { g: x, index } => {
                self.give(x, || trace.push(Op::Rows { x: g.id(), index }, at(x).shape()))
            }
            Op::QuantileHuber { theta, target, kappa } => {
                assert!(!self.useful[target.0], "a quantile target is not differentiated: stop its gradient");
                let rows = y.size(0);
                self.give(theta, || {
                    let op = Op::QuantileHuberGrad { theta, target, kappa };
                    trace.push(op, at(theta).shape()) * g.reshape(&[rows, 1])
                });
            }
            // From here on derivatives of derivatives. ReLU's is a step: it says nothing about y.
            Op::ActivationGrad { y: output, g: first, activation } => {
                self.give(first, || before(activation, at(output), g));
                if activation == Activation::Tanh {
                    self.give(output, || at(first) * at(output) * g * -2.0);
                }
            }
            Op::LogSoftmaxGrad { y: output, g: first } => {
                let (p, column) = (at(output).exp(), [&y.shape()[..y.shape().len() - 1], &[1]].concat());
                self.give(first, || g - (p * g).sum_to(&column));
                self.give(output, || -(p * at(first).sum_to(&column) * g));
            }
            Op::LayerNormGrad { x, g: first, epsilon } => {
                let operands = [at(x).stop_gradient(), at(first).stop_gradient()];
                let written_out = layer_norm_grad(operands[0], operands[1], epsilon);
                let further = grad((written_out * g.stop_gradient()).sum(), &operands);
                self.give(x, || further[0]);
                self.give(first, || further[1]);
            }
            Op::Conv2dGradInput { g: first, weight, conv } => {
                let bias = || trace.constant(0.0, &[at(weight).size(0)]);
                self.give(first, || g.conv2d(at(weight), bias(), conv, Activation::Identity));
                self.give(weight, || {
                    trace.push(Op::Conv2dGradWeight { x: g.id(), g: first, conv }, at(weight).shape())
                });
            }
            Op::Conv2dGradWeight { x, g: first, conv } => {
                let bias = || trace.constant(0.0, &[y.size(0)]);
                self.give(x, || {
                    trace.push(Op::Conv2dGradInput { g: first, weight: g.id(), conv }, at(x).shape())
                });
                self.give(first, || at(x).conv2d(g, bias(), conv, Activation::Identity));
            }
            // Indices are flat; the rest has no derivative of its own here.
            Op::MaxLast(_)
            | Op::ArgMaxLast(_)
            | Op::QuantileHuberGrad { .. }
            | Op::Moment { .. }
            | Op::AdamStep { .. }
            | Op::Polyak { .. } => {
                panic!("node {} has no derivative: stop the gradient before it", y.id().0)
            }
        }
    }

    fn binary(&mut self, op: Binary, a: Tensor<'t>, b: Tensor<'t>, g: Tensor<'t>) {
        // 1 where b wins, so that a tie goes to a.
        let b_larger = || (b - a).step();
        let b_smaller = || (a - b).step();
        let not = |t: Tensor<'t>| t.affine(-1.0, 1.0);
        match op {
            Binary::Add => {
                self.give(a.id(), || g);
                self.give(b.id(), || g);
            }
            Binary::Sub => {
                self.give(a.id(), || g);
                self.give(b.id(), || -g);
            }
            Binary::Mul => {
                self.give(a.id(), || g * b);
                self.give(b.id(), || g * a);
            }
            Binary::Div => {
                self.give(a.id(), || g / b);
                self.give(b.id(), || -(g * a) / b.square());
            }
            Binary::Max => {
                self.give(a.id(), || g * not(b_larger()));
                self.give(b.id(), || g * b_larger());
            }
            Binary::Min => {
                self.give(a.id(), || g * not(b_smaller()));
                self.give(b.id(), || g * b_smaller());
            }
        }
    }
}

fn unary<'t>(op: Unary, x: Tensor<'t>, y: Tensor<'t>, g: Tensor<'t>) -> Tensor<'t> {
    match op {
        Unary::Exp => g * y,
        Unary::Log => g / x,
        Unary::Sqrt => g / (y * 2.0),
        Unary::Square => g * (x * 2.0),
        Unary::Abs => g * (x.step() - (-x).step()),
        Unary::Relu => g * x.step(),
        Unary::Tanh => g * y.square().affine(-1.0, 1.0),
        Unary::Recip => -(g * y.square()),
        // The logistic function: 1 - e^-softplus(x).
        Unary::Softplus => g * (-y).exp().affine(-1.0, 1.0),
        Unary::Step => unreachable!("flat: nothing is handed on"),
    }
}

/// [`Op::LayerNormGrad`] from simpler operations, which have derivatives: `(g - mean g - y mean(g y)) / sqrt(variance + epsilon)`.
fn layer_norm_grad<'t>(x: Tensor<'t>, g: Tensor<'t>, epsilon: f64) -> Tensor<'t> {
    let (shape, width) = (x.shape(), x.last());
    let column = [&shape[..shape.len() - 1], &[1]].concat();
    let mean = |x: Tensor<'t>| x.sum_to(&column) * (1.0 / width as f64);
    let centred = x - mean(x);
    let scale = (mean(centred.square()) + epsilon).sqrt().recip();
    let y = centred * scale;
    (g - mean(g) - y * mean(g * y)) * scale
}

/// `g` as columns from `from` on among zeros, `width` columns in all.
fn beside_zeros<'t>(g: Tensor<'t>, from: usize, width: usize) -> Tensor<'t> {
    let (shape, count) = (g.shape(), g.last());
    let zeros = |count: usize| g.trace().constant(0.0, &[&shape[..shape.len() - 1], &[count]].concat());
    let g = if from > 0 { zeros(from).concat(g) } else { g };
    let after = width - from - count;
    if after > 0 { g.concat(zeros(after)) } else { g }
}

/// Gradient before the activation whose output is `y`.
fn before<'t>(activation: Activation, y: Tensor<'t>, g: Tensor<'t>) -> Tensor<'t> {
    match activation {
        Activation::Identity => g,
        _ => y.trace().push(Op::ActivationGrad { y: y.id(), g: g.id(), activation }, y.shape()),
    }
}

//! Recording: arithmetic on [`Tensor`] handles writes operations into a [`Trace`].
//!
//! A loss reads here as it does in its paper. Shapes are checked while recording; a misfit is a mistake in the
//! program's text, not in anybody's data, so it panics with both shapes.

use crate::{Activation, Binary, Conv, Input, InputId, Node, NodeId, Op, Program, Role, Unary};
use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A program being written.
#[derive(Default)]
pub struct Trace {
    nodes: RefCell<Vec<Node>>,
    inputs: RefCell<Vec<Input>>,
}

/// A value that the program will compute.
#[derive(Clone, Copy)]
pub struct Tensor<'t> {
    trace: &'t Trace,
    id: NodeId,
}

impl Trace {
    /// Nothing recorded yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An input that the executable keeps between runs.
    pub fn state(&self, name: impl Into<String>, shape: &[usize]) -> Tensor<'_> {
        self.input(name.into(), shape, Role::State)
    }

    /// An input that the caller gives for every run.
    pub fn data(&self, name: impl Into<String>, shape: &[usize]) -> Tensor<'_> {
        self.input(name.into(), shape, Role::Data)
    }

    /// The caller's input of this name: recorded at the first call, the same at every later one.
    pub fn shared_data(&self, name: &str, shape: &[usize]) -> Tensor<'_> {
        let known = self.inputs.borrow().iter().position(|i| i.name == name);
        let Some(known) = known else { return self.data(name, shape) };
        let input = self.inputs.borrow()[known].clone();
        assert_eq!((input.role, &input.shape[..]), (Role::Data, shape), "two inputs named {name}");
        let node = self.nodes.borrow().iter().position(|n| n.op == Op::Input(known));
        self.at(NodeId(node.expect("every input has a node")))
    }

    fn input(&self, name: String, shape: &[usize], role: Role) -> Tensor<'_> {
        let mut inputs = self.inputs.borrow_mut();
        assert!(inputs.iter().all(|i| i.name != name), "two inputs named {name}");
        inputs.push(Input { name, shape: shape.to_vec(), role });
        self.push(Op::Input(inputs.len() - 1), shape.to_vec())
    }

    /// `value` in every place of `shape`.
    pub fn constant(&self, value: f64, shape: &[usize]) -> Tensor<'_> {
        self.push(Op::Constant(value), shape.to_vec())
    }

    pub(crate) fn push(&self, op: Op, shape: Vec<usize>) -> Tensor<'_> {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { op, shape });
        Tensor { trace: self, id: NodeId(nodes.len() - 1) }
    }

    /// Tensors side by side along the last axis, at least one. Halves are joined, so that no number is copied more often than there are
    /// halvings.
    pub fn side_by_side<'t>(&'t self, parts: &[Tensor<'t>]) -> Tensor<'t> {
        match parts {
            [one] => *one,
            _ => {
                let (first, second) = parts.split_at(parts.len() / 2);
                self.side_by_side(first).concat(self.side_by_side(second))
            }
        }
    }

    /// The handle of a node recorded before.
    pub fn at(&self, id: NodeId) -> Tensor<'_> {
        Tensor { trace: self, id }
    }

    pub(crate) fn node(&self, id: NodeId) -> Node {
        self.nodes.borrow()[id.0].clone()
    }

    /// Ends the recording: nodes that neither an output nor an update needs are dropped.
    pub fn finish(&self, updates: &[(Tensor<'_>, Tensor<'_>)], outputs: &[(&str, Tensor<'_>)]) -> Program {
        let nodes = self.nodes.borrow();
        let updates = updates.iter().map(|(old, new)| {
            let Op::Input(input) = nodes[old.id.0].op else { panic!("only an input can be updated") };
            assert_eq!(nodes[old.id.0].shape, nodes[new.id.0].shape, "an update keeps its input's shape");
            (InputId(input), new.id)
        });
        let program = Program {
            updates: updates.collect(),
            outputs: outputs.iter().map(|(n, t)| (n.to_string(), t.id)).collect(),
            nodes: nodes.clone(),
            inputs: self.inputs.borrow().clone(),
        };
        program.without_unused()
    }
}

impl<'t> Tensor<'t> {
    /// Which node this is.
    pub fn id(self) -> NodeId {
        self.id
    }

    /// Where it is recorded.
    pub fn trace(self) -> &'t Trace {
        self.trace
    }

    /// Its shape; empty for one number.
    pub fn shape(self) -> Vec<usize> {
        self.trace.nodes.borrow()[self.id.0].shape.clone()
    }

    /// Size of axis `axis`.
    pub fn size(self, axis: usize) -> usize {
        self.trace.nodes.borrow()[self.id.0].shape[axis]
    }

    pub(crate) fn last(self) -> usize {
        *self.shape().last().expect("an operation along the last axis needs one")
    }

    /// `self * mul + add`.
    pub fn affine(self, mul: f64, add: f64) -> Self {
        self.trace.push(Op::Affine { x: self.id, mul, add }, self.shape())
    }

    fn unary(self, op: Unary) -> Self {
        self.trace.push(Op::Unary(op, self.id), self.shape())
    }

    /// `e^x`.
    pub fn exp(self) -> Self {
        self.unary(Unary::Exp)
    }

    /// Natural logarithm.
    pub fn log(self) -> Self {
        self.unary(Unary::Log)
    }

    /// Square root.
    pub fn sqrt(self) -> Self {
        self.unary(Unary::Sqrt)
    }

    /// `x * x`.
    pub fn square(self) -> Self {
        self.unary(Unary::Square)
    }

    /// Absolute value.
    pub fn abs(self) -> Self {
        self.unary(Unary::Abs)
    }

    /// `max(x, 0)`.
    pub fn relu(self) -> Self {
        self.unary(Unary::Relu)
    }

    /// Hyperbolic tangent.
    pub fn tanh(self) -> Self {
        self.unary(Unary::Tanh)
    }

    /// `1 / x`.
    pub fn recip(self) -> Self {
        self.unary(Unary::Recip)
    }

    /// `ln(1 + e^x)`.
    pub fn softplus(self) -> Self {
        self.unary(Unary::Softplus)
    }

    /// 1 where `x > 0`, else 0.
    pub fn step(self) -> Self {
        self.unary(Unary::Step)
    }

    fn binary(self, op: Binary, other: Self) -> Self {
        let shape = broadcast_shape(&self.shape(), &other.shape());
        let (a, b) = (self.broadcast(&shape), other.broadcast(&shape));
        self.trace.push(Op::Binary(op, a.id, b.id), shape)
    }

    /// The larger of both, element by element.
    pub fn maximum(self, other: Self) -> Self {
        self.binary(Binary::Max, other)
    }

    /// The smaller of both, element by element.
    pub fn minimum(self, other: Self) -> Self {
        self.binary(Binary::Min, other)
    }

    /// Repeated to `shape`, as NumPy broadcasts.
    pub fn broadcast(self, shape: &[usize]) -> Self {
        let from = self.shape();
        if from == shape {
            return self;
        }
        assert_eq!(broadcast_shape(&from, shape), shape, "{from:?} does not broadcast to {shape:?}");
        self.trace.push(Op::Broadcast(self.id), shape.to_vec())
    }

    /// Summed until `shape` is reached: along leading axes that it lacks and along axes where it says 1.
    pub fn sum_to(self, shape: &[usize]) -> Self {
        let from = self.shape();
        if from == shape {
            return self;
        }
        assert_eq!(broadcast_shape(shape, &from), from, "{from:?} does not sum to {shape:?}");
        self.trace.push(Op::SumTo(self.id), shape.to_vec())
    }

    /// This value where `when` `[]` is above 0, else `otherwise`, bit by bit; both of one shape.
    pub fn select(self, when: Self, otherwise: Self) -> Self {
        let (shape, other) = (self.shape(), otherwise.shape());
        assert!(when.shape().is_empty() && shape == other, "a choice between {shape:?} and {other:?}");
        let op = Op::Select { when: when.id, then: self.id, otherwise: otherwise.id };
        self.trace.push(op, shape)
    }

    /// This and `other` side by side along the last axis: `[..., A]` and `[..., B]` give `[..., A + B]`.
    pub fn concat(self, other: Self) -> Self {
        let (a, b) = (self.shape(), other.shape());
        let agree = a.len() == b.len() && !a.is_empty() && a[..a.len() - 1] == b[..b.len() - 1];
        assert!(agree, "{a:?} beside {b:?}");
        let width = a[a.len() - 1] + b[b.len() - 1];
        if a.len() == 1 {
            return self.reshape(&[1, a[0]]).concat(other.reshape(&[1, b[0]])).reshape(&[width]);
        }
        let shape = [&a[..a.len() - 1], &[width]].concat();
        self.trace.push(Op::Concat { a: self.id, b: other.id }, shape)
    }

    /// `count` columns of the last axis from `from` on: `[..., W]` gives `[..., count]`.
    pub fn slice_last(self, from: usize, count: usize) -> Self {
        let x = self.shape();
        let width = self.last();
        assert!(count > 0 && from + count <= width, "columns {from} to {} of {x:?}", from + count);
        if count == width {
            return self;
        }
        if x.len() == 1 {
            return self.reshape(&[1, width]).slice_last(from, count).reshape(&[count]);
        }
        let shape = [&x[..x.len() - 1], &[count]].concat();
        self.trace.push(Op::Slice { x: self.id, from }, shape)
    }

    /// Part `i` along the first axis, which goes away: member i of an ensemble's `[N, ...]`.
    pub fn member(self, i: usize) -> Self {
        let shape = self.shape();
        assert!(!shape.is_empty() && i < shape[0], "part {i} of {shape:?}");
        self.rows(self.trace.constant(i as f64, &[1])).reshape(&shape[1..])
    }

    /// Each row of the last axis brought to mean 0 and variance 1 (Ba et al. 2016): `(x - mean) / sqrt(variance + epsilon)`, the
    /// variance over all of the row's numbers.
    pub fn layer_norm(self, epsilon: f64) -> Self {
        self.trace.push(Op::LayerNorm { x: self.id, epsilon }, self.shape())
    }

    /// Sum of everything, `[]`.
    pub fn sum(self) -> Self {
        self.sum_to(&[])
    }

    /// Mean of everything, `[]`.
    pub fn mean(self) -> Self {
        let n = self.shape().iter().product::<usize>();
        self.sum().affine(1.0 / n as f64, 0.0)
    }

    /// Sum along the last axis, which goes away.
    pub fn sum_last(self) -> Self {
        let mut shape = self.shape();
        *shape.last_mut().expect("an axis to sum along") = 1;
        let kept = self.sum_to(&shape);
        shape.pop();
        kept.reshape(&shape)
    }

    /// Mean along the last axis, which goes away.
    pub fn mean_last(self) -> Self {
        self.sum_last().affine(1.0 / self.last() as f64, 0.0)
    }

    /// The same elements in another shape.
    pub fn reshape(self, shape: &[usize]) -> Self {
        let from = self.shape();
        if from == shape {
            return self;
        }
        let (n, m) = (from.iter().product::<usize>(), shape.iter().product::<usize>());
        assert_eq!(n, m, "{from:?} does not reshape to {shape:?}");
        self.trace.push(Op::Reshape(self.id), shape.to_vec())
    }

    /// Matrix product, each side read transposed where its flag says so: `[M, K]` and `[K, N]` give `[M, N]`. A side `[E, ., .]` is E
    /// matrices and gives `[E, M, N]`; the other side is E matrices, too, or one that serves all.
    pub fn matmul(self, other: Self, ta: bool, tb: bool) -> Self {
        let (a, b) = (self.shape(), other.shape());
        let fits = |s: &[usize]| s.len() == 2 || s.len() == 3;
        assert!(fits(&a) && fits(&b), "matmul of {a:?} and {b:?}");
        let sides = |s: &[usize], turned: bool| match s[s.len() - 2..] {
            [rows, columns] if turned => (columns, rows),
            [rows, columns] => (rows, columns),
            _ => unreachable!("two axes"),
        };
        let ((m, k), (k2, n)) = (sides(&a, ta), sides(&b, tb));
        assert_eq!(k, k2, "matmul of {a:?} and {b:?} (transposed: {ta}, {tb})");
        assert!(a.len() != b.len() || a.len() == 2 || a[0] == b[0], "matmul of {a:?} and {b:?}");
        let count = [&a, &b].into_iter().find(|s| s.len() == 3).map(|s| s[0]);
        let shape = count.into_iter().chain([m, n]).collect();
        self.trace.push(Op::MatMul { a: self.id, b: other.id, ta, tb }, shape)
    }

    /// `activation(self weight^T + bias)`: self `[B, I]`, weight `[O, I]`, bias `[O]` give `[B, O]`. An ensemble of N layers has weight
    /// `[N, O, I]` and bias `[N, O]`, takes `[B, I]` for all of them or `[N, B, I]`, and gives `[N, B, O]`.
    pub fn linear(self, weight: Self, bias: Self, activation: Activation) -> Self {
        let (x, w, b) = (self.shape(), weight.shape(), bias.shape());
        let (fits, shape) = match (&x[..], &w[..]) {
            ([rows, inputs], [outputs, i]) => (inputs == i && b == [*outputs], vec![*rows, *outputs]),
            ([rows, inputs], [n, outputs, i]) => {
                (inputs == i && b == [*n, *outputs], vec![*n, *rows, *outputs])
            }
            ([m, rows, inputs], [n, outputs, i]) => {
                (m == n && inputs == i && b == [*n, *outputs], vec![*n, *rows, *outputs])
            }
            _ => (false, Vec::new()),
        };
        assert!(fits, "linear of {x:?}, {w:?}, {b:?}");
        let op = Op::Linear { x: self.id, weight: weight.id, bias: bias.id, activation };
        self.trace.push(op, shape)
    }

    /// `activation(conv(self, weight) + bias)`: self `[B, C, H, W]`, weight `[O, C, K, K]`, bias `[O]`.
    pub fn conv2d(self, weight: Self, bias: Self, conv: Conv, activation: Activation) -> Self {
        let (x, w, b) = (self.shape(), weight.shape(), bias.shape());
        let fits =
            x.len() == 4 && w.len() == 4 && x[1] == w[1] && w[2] == w[3] && b == [w[0]] && conv.stride > 0;
        let covers = fits && x[2] + 2 * conv.padding >= w[2] && x[3] + 2 * conv.padding >= w[2];
        assert!(covers, "conv2d of {x:?}, {w:?}, {b:?}, {conv:?}");
        let shape = vec![x[0], w[0], conv.output(x[2], w[2]), conv.output(x[3], w[2])];
        let op = Op::Conv2d { x: self.id, weight: weight.id, bias: bias.id, conv, activation };
        self.trace.push(op, shape)
    }

    fn keep_last(self, op: Op) -> Self {
        let mut shape = self.shape();
        *shape.last_mut().expect("an axis to reduce") = 1;
        self.trace.push(op, shape)
    }

    /// Largest along the last axis, which goes away.
    pub fn max_last(self) -> Self {
        self.keep_last(Op::MaxLast(self.id)).drop_last()
    }

    /// Index of the largest along the last axis, which goes away.
    pub fn argmax_last(self) -> Self {
        self.keep_last(Op::ArgMaxLast(self.id)).drop_last()
    }

    /// `ln sum e^x` along the last axis, which goes away.
    pub fn logsumexp(self) -> Self {
        self.keep_last(Op::LogSumExp(self.id)).drop_last()
    }

    fn drop_last(self) -> Self {
        let mut shape = self.shape();
        shape.pop();
        self.reshape(&shape)
    }

    /// Logarithm of the softmax along the last axis.
    pub fn log_softmax(self) -> Self {
        self.trace.push(Op::LogSoftmax(self.id), self.shape())
    }

    /// Softmax along the last axis.
    pub fn softmax(self) -> Self {
        self.log_softmax().exp()
    }

    /// `self[b, index[b], ...]`: self `[B, A]` or `[B, A, N]`, index `[B]`, gives `[B]` or `[B, N]`.
    pub fn pick(self, index: Self) -> Self {
        let (x, i) = (self.shape(), index.shape());
        assert!((x.len() == 2 || x.len() == 3) && i == [x[0]], "pick {i:?} from {x:?}");
        let inner = x.get(2).copied().unwrap_or(1);
        let cube = self.reshape(&[x[0], x[1], inner]);
        let picked = self.trace.push(Op::Pick { x: cube.id, index: index.id }, vec![x[0], inner]);
        if x.len() == 2 { picked.reshape(&[x[0]]) } else { picked }
    }

    /// Rows with a 1 at `self[b]` among `classes`: self `[B]`, gives `[B, classes]`.
    pub fn one_hot(self, classes: usize) -> Self {
        let rows = self.size(0);
        let ones = self.trace.constant(1.0, &[rows, 1]);
        self.trace
            .push(Op::Unpick { g: ones.id, index: self.id }, vec![rows, classes, 1])
            .reshape(&[rows, classes])
    }

    /// `self[index[i], ...]`: self `[B, ...]`, index `[M]`, gives `[M, ...]`.
    pub fn rows(self, index: Self) -> Self {
        let mut shape = self.shape();
        assert_eq!(index.shape().len(), 1, "an index has one axis");
        shape[0] = index.size(0);
        self.trace.push(Op::Rows { x: self.id, index: index.id }, shape)
    }

    /// Quantile Huber loss of each sample; see [`Op::QuantileHuber`]. self `[B, N]`, target `[B, M]`, gives `[B]`.
    pub fn quantile_huber(self, target: Self, kappa: f64) -> Self {
        let (a, b) = (self.shape(), target.shape());
        assert!(
            a.len() == 2 && b.len() == 2 && a[0] == b[0] && kappa > 0.0,
            "quantile Huber of {a:?} and {b:?}"
        );
        self.trace.push(Op::QuantileHuber { theta: self.id, target: target.id, kappa }, vec![a[0]])
    }

    /// `beta self + (1 - beta) g`, or of g's square.
    pub fn moment(self, g: Self, beta: f64, squared: bool) -> Self {
        assert_eq!(self.shape(), g.shape(), "a moment has its gradient's shape");
        self.trace.push(Op::Moment { m: self.id, g: g.id, beta, squared }, self.shape())
    }

    /// Adam's step of this parameter from its moments; `t` and `lr` are `[]`.
    #[allow(clippy::too_many_arguments)]
    pub fn adam_step(
        self,
        m: Self,
        v: Self,
        t: Self,
        lr: Self,
        beta1: f64,
        beta2: f64,
        epsilon: f64,
    ) -> Self {
        let op = Op::AdamStep { p: self.id, m: m.id, v: v.id, t: t.id, lr: lr.id, beta1, beta2, epsilon };
        self.trace.push(op, self.shape())
    }

    /// `self + tau (p - self)`; tau is `[]`.
    pub fn polyak(self, p: Self, tau: Self) -> Self {
        assert_eq!(self.shape(), p.shape(), "a slow copy has its parameter's shape");
        self.trace.push(Op::Polyak { target: self.id, p: p.id, tau: tau.id }, self.shape())
    }

    /// The same value, for which nothing is differentiated.
    pub fn stop_gradient(self) -> Self {
        self.trace.push(Op::StopGradient(self.id), self.shape())
    }
}

/// NumPy's rule for the common shape of two operands.
fn broadcast_shape(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    let axis = |i| match (at(a, i), at(b, i)) {
        (x, y) if x == y => x,
        (1, y) => y,
        (x, 1) => x,
        _ => panic!("shapes {a:?} and {b:?} do not broadcast"),
    };
    (0..rank).map(axis).collect()
}

macro_rules! arithmetic {
    ($($trait:ident $method:ident $op:ident),*) => {$(
        impl<'t> $trait for Tensor<'t> {
            type Output = Tensor<'t>;
            fn $method(self, other: Self) -> Self {
                self.binary(Binary::$op, other)
            }
        }
    )*};
}
arithmetic!(Add add Add, Sub sub Sub, Mul mul Mul, Div div Div);

impl<'t> Neg for Tensor<'t> {
    type Output = Self;
    fn neg(self) -> Self {
        self.affine(-1.0, 0.0)
    }
}

impl<'t> Mul<f64> for Tensor<'t> {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        self.affine(factor, 0.0)
    }
}

impl<'t> Add<f64> for Tensor<'t> {
    type Output = Self;
    fn add(self, summand: f64) -> Self {
        self.affine(1.0, summand)
    }
}

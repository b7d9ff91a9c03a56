//! The operations a backend must know. Few, and each hot one whole: a pile of small operations cannot be fast.

use crate::NodeId;

/// What follows an affine map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// Hyperbolic tangent.
    Tanh,
}

oto_json::json_names! { Activation { Identity = "identity", Relu = "relu", Tanh = "tanh" } }

/// Element by element, one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    /// `e^x`.
    Exp,
    /// Natural logarithm.
    Log,
    /// Square root.
    Sqrt,
    /// `x * x`.
    Square,
    /// Absolute value; its derivative at 0 is 0.
    Abs,
    /// `max(x, 0)`; its derivative at 0 is 0.
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / x`.
    Recip,
    /// `ln(1 + e^x)`, without overflow.
    Softplus,
    /// 1 where `x > 0`, else 0; its derivative is 0.
    Step,
}

/// Element by element, two operands of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a * b`.
    Mul,
    /// `a / b`.
    Div,
    /// The larger; at a tie the derivative goes to `a`.
    Max,
    /// The smaller; at a tie the derivative goes to `a`.
    Min,
}

/// How a kernel walks an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Pixels between two applications of the kernel, in both directions.
    pub stride: usize,
    /// Zeros around the image, on all sides.
    pub padding: usize,
}

impl Conv {
    /// Output pixels along a side of `input` pixels under a kernel of `kernel` pixels.
    pub fn output(self, input: usize, kernel: usize) -> usize {
        (input + 2 * self.padding).saturating_sub(kernel) / self.stride + 1
    }
}

/// One operation. Shapes are `[rows, ..., last]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// What the caller gives: the n-th input.
    Input(usize),
    /// One number everywhere.
    Constant(f64),
    /// `x * mul + add`.
    Affine {
        /// Operand.
        x: NodeId,
        /// Factor.
        mul: f64,
        /// Summand.
        add: f64,
    },
    /// Element by element.
    Unary(Unary, NodeId),
    /// Element by element; both operands have the node's shape.
    Binary(Binary, NodeId, NodeId),
    /// Repeats along axes of size 1 (leading axes may be missing), as NumPy broadcasts.
    Broadcast(NodeId),
    /// The adjoint of `Broadcast`: sums until the node's shape is reached.
    SumTo(NodeId),
    /// The same elements in another shape.
    Reshape(NodeId),
    /// One of two values of the node's shape: `then` where `when` is above 0, else `otherwise`, bit by bit.
    Select {
        /// `[]`.
        when: NodeId,
        /// The value where `when` is above 0.
        then: NodeId,
        /// The value elsewhere.
        otherwise: NodeId,
    },
    /// `a` and `b` side by side along the last axis; all other axes agree.
    Concat {
        /// `[..., A]`.
        a: NodeId,
        /// `[..., B]`.
        b: NodeId,
    },
    /// Columns of the last axis from `from` on, as many as the node's shape has.
    Slice {
        /// `[..., W]`.
        x: NodeId,
        /// The first column.
        from: usize,
    },
    /// `a b` of two matrices, each read transposed where its flag says so. A side with three axes is N matrices; the other side
    /// then is N matrices, too, or one that serves all N.
    MatMul {
        /// Left operand.
        a: NodeId,
        /// Right operand.
        b: NodeId,
        /// Read `a` transposed.
        ta: bool,
        /// Read `b` transposed.
        tb: bool,
    },
    /// `activation(x weight^T + bias)`; x `[B, I]`, weight `[O, I]`, bias `[O]`. An ensemble of N layers has weight `[N, O, I]`, bias
    /// `[N, O]`, gives `[N, B, O]`, and takes x `[B, I]` for all of them or `[N, B, I]`.
    Linear {
        /// `[B, I]` or `[N, B, I]`.
        x: NodeId,
        /// `[O, I]` or `[N, O, I]`.
        weight: NodeId,
        /// `[O]` or `[N, O]`.
        bias: NodeId,
        /// What follows.
        activation: Activation,
    },
    /// Gradient through an activation, from its output `y`: `g * activation'(y)`.
    ActivationGrad {
        /// The activation's output.
        y: NodeId,
        /// The gradient that arrives.
        g: NodeId,
        /// Which activation.
        activation: Activation,
    },
    /// `activation(conv(x, weight) + bias)`; x `[B, C, H, W]`, weight `[O, C, K, K]`, bias `[O]`.
    Conv2d {
        /// `[B, C, H, W]`.
        x: NodeId,
        /// `[O, C, K, K]`.
        weight: NodeId,
        /// `[O]`.
        bias: NodeId,
        /// Stride and padding.
        conv: Conv,
        /// What follows.
        activation: Activation,
    },
    /// Gradient of a convolution towards its image; the node's shape is the image's.
    Conv2dGradInput {
        /// Gradient before the activation, `[B, O, H', W']`.
        g: NodeId,
        /// `[O, C, K, K]`.
        weight: NodeId,
        /// Stride and padding.
        conv: Conv,
    },
    /// Gradient of a convolution towards its kernel; the node's shape is the kernel's.
    Conv2dGradWeight {
        /// The image, `[B, C, H, W]`.
        x: NodeId,
        /// Gradient before the activation, `[B, O, H', W']`.
        g: NodeId,
        /// Stride and padding.
        conv: Conv,
    },
    /// Largest along the last axis, which stays with size 1; no derivative.
    MaxLast(NodeId),
    /// Index of the (first) largest along the last axis, which stays with size 1; no derivative.
    ArgMaxLast(NodeId),
    /// `ln sum e^x` along the last axis, which stays with size 1.
    LogSumExp(NodeId),
    /// `x - ln sum e^x` along the last axis.
    LogSoftmax(NodeId),
    /// Gradient of `LogSoftmax` from its output `y`: `g - e^y sum g`.
    LogSoftmaxGrad {
        /// The log-probabilities.
        y: NodeId,
        /// The gradient that arrives.
        g: NodeId,
    },
    /// Each row of the last axis brought to mean 0 and variance 1: `(x - mean) / sqrt(variance + epsilon)`.
    LayerNorm {
        /// `[..., W]`.
        x: NodeId,
        /// Keeps the division finite.
        epsilon: f64,
    },
    /// Gradient of `LayerNorm` from its operand `x`.
    LayerNormGrad {
        /// `[..., W]`.
        x: NodeId,
        /// The gradient that arrives.
        g: NodeId,
        /// As in the operation.
        epsilon: f64,
    },
    /// `x[b, index[b], :]` for every b; x `[B, A, N]`, index `[B]`, gives `[B, N]`. An index outside is an error.
    Pick {
        /// `[B, A, N]`.
        x: NodeId,
        /// `[B]`, whole numbers below A.
        index: NodeId,
    },
    /// The adjoint of `Pick`: g `[B, N]` put at `[b, index[b], :]`, zero elsewhere.
    Unpick {
        /// `[B, N]`.
        g: NodeId,
        /// `[B]`.
        index: NodeId,
    },
    /// `x[index[i], ...]` for every i; index `[M]`. An index outside is an error.
    Rows {
        /// `[B, ...]`.
        x: NodeId,
        /// `[M]`, whole numbers below B.
        index: NodeId,
    },
    /// The adjoint of `Rows`: row i of g added to row `index[i]`; the node's shape is the operand's.
    AddRows {
        /// `[M, ...]`.
        g: NodeId,
        /// `[M]`.
        index: NodeId,
    },
    /// Quantile Huber loss of each sample: theta `[B, N]`, target `[B, M]`, gives `[B]`: the mean over theta's
    /// quantiles of the sum over targets (Dabney et al. 2018, eq. 10; reduction as in Tianshou).
    /// The target has no derivative.
    QuantileHuber {
        /// `[B, N]`, at the quantile midpoints `(i + 0.5) / N`.
        theta: NodeId,
        /// `[B, M]`.
        target: NodeId,
        /// Where the quadratic turns linear.
        kappa: f64,
    },
    /// Derivative of `QuantileHuber` towards theta, `[B, N]`.
    QuantileHuberGrad {
        /// `[B, N]`.
        theta: NodeId,
        /// `[B, M]`.
        target: NodeId,
        /// Where the quadratic turns linear.
        kappa: f64,
    },
    /// An exponential average of a gradient or its square: `beta m + (1 - beta) g` (Kingma and Ba 2015, algorithm 1).
    Moment {
        /// The average so far.
        m: NodeId,
        /// The gradient.
        g: NodeId,
        /// Decay.
        beta: f64,
        /// Average the square instead.
        squared: bool,
    },
    /// Adam's step from both moments (Kingma and Ba 2015, algorithm 1).
    AdamStep {
        /// The parameter.
        p: NodeId,
        /// First moment.
        m: NodeId,
        /// Second moment.
        v: NodeId,
        /// `[]`: how many steps there are with this one.
        t: NodeId,
        /// `[]`: the learning rate.
        lr: NodeId,
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Keeps the division finite.
        epsilon: f64,
    },
    /// `target + tau (p - target)`, tau `[]`.
    Polyak {
        /// The slow copy.
        target: NodeId,
        /// The parameter.
        p: NodeId,
        /// `[]`: 0 keeps the slow copy, 1 replaces it.
        tau: NodeId,
    },
    /// The same value, for which nothing is differentiated.
    StopGradient(NodeId),
}

impl Op {
    /// The operands, in order.
    pub fn operands(&self) -> impl Iterator<Item = NodeId> {
        use Op::*;
        let list: [Option<NodeId>; 5] = match *self {
            Input(_) | Constant(_) => [None; 5],
            Affine { x, .. }
            | Unary(_, x)
            | Broadcast(x)
            | SumTo(x)
            | Reshape(x)
            | MaxLast(x)
            | ArgMaxLast(x)
            | LogSumExp(x)
            | LogSoftmax(x)
            | Slice { x, .. }
            | LayerNorm { x, .. }
            | StopGradient(x) => [Some(x), None, None, None, None],
            Binary(_, a, b)
            | Concat { a, b }
            | MatMul { a, b, .. }
            | ActivationGrad { y: a, g: b, .. }
            | Conv2dGradInput { g: a, weight: b, .. }
            | Conv2dGradWeight { x: a, g: b, .. }
            | LogSoftmaxGrad { y: a, g: b }
            | LayerNormGrad { x: a, g: b, .. }
            | Pick { x: a, index: b }
            | Unpick { g: a, index: b }
            | Rows { x: a, index: b }
            | AddRows { g: a, index: b }
            | QuantileHuber { theta: a, target: b, .. }
            | QuantileHuberGrad { theta: a, target: b, .. }
            | Moment { m: a, g: b, .. } => [Some(a), Some(b), None, None, None],
            Linear { x, weight, bias, .. } | Conv2d { x, weight, bias, .. } => {
                [Some(x), Some(weight), Some(bias), None, None]
            }
            Select { when, then, otherwise } => [Some(when), Some(then), Some(otherwise), None, None],
            Polyak { target, p, tau } => [Some(target), Some(p), Some(tau), None, None],
            AdamStep { p, m, v, t, lr, .. } => [Some(p), Some(m), Some(v), Some(t), Some(lr)],
        };
        list.into_iter().flatten()
    }

    /// The same operation on renamed operands.
    pub(crate) fn renamed(mut self, name: &[NodeId]) -> Op {
        use Op::*;
        let r = |n: &mut NodeId| *n = name[n.0];
        match &mut self {
            Input(_) | Constant(_) => {}
            Affine { x, .. }
            | Unary(_, x)
            | Broadcast(x)
            | SumTo(x)
            | Reshape(x)
            | MaxLast(x)
            | ArgMaxLast(x)
            | LogSumExp(x)
            | LogSoftmax(x)
            | Slice { x, .. }
            | LayerNorm { x, .. }
            | StopGradient(x) => r(x),
            Binary(_, a, b)
            | Concat { a, b }
            | MatMul { a, b, .. }
            | ActivationGrad { y: a, g: b, .. }
            | Conv2dGradInput { g: a, weight: b, .. }
            | Conv2dGradWeight { x: a, g: b, .. }
            | LogSoftmaxGrad { y: a, g: b }
            | LayerNormGrad { x: a, g: b, .. }
            | Pick { x: a, index: b }
            | Unpick { g: a, index: b }
            | Rows { x: a, index: b }
            | AddRows { g: a, index: b }
            | QuantileHuber { theta: a, target: b, .. }
            | QuantileHuberGrad { theta: a, target: b, .. }
            | Moment { m: a, g: b, .. } => [a, b].into_iter().for_each(r),
            Linear { x, weight, bias, .. } | Conv2d { x, weight, bias, .. } => {
                [x, weight, bias].into_iter().for_each(r)
            }
            Select { when, then, otherwise } => [when, then, otherwise].into_iter().for_each(r),
            Polyak { target, p, tau } => [target, p, tau].into_iter().for_each(r),
            AdamStep { p, m, v, t, lr, .. } => [p, m, v, t, lr].into_iter().for_each(r),
        }
        self
    }
}

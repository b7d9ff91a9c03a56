//! Maps: what is computed of every row alone, instruction by instruction over a block of rows at a time, so that what stays
//! inside a map stays in the cache.

use crate::kernels::{self, Operand, Spread};
use crate::memory::{Block, Memory, Number, Rows, Whole};
use crate::quantile::Quantile;
use crate::simd;
use oto_graph::plan::Place;
use oto_graph::{Activation, BackendError, Binary, Unary};

/// A map, ready to run.
pub struct MapStep {
    pub rows: usize,
    /// Rows of a block.
    pub block: usize,
    pub scalars: Vec<ScalarStep>,
    pub body: Vec<RowStep>,
}

/// One number to compute.
pub struct ScalarStep {
    pub out: Place,
    pub what: Scalar,
}

/// How a number is computed.
pub enum Scalar {
    Affine(Number, f32, f32),
    Unary(Unary, Number),
    Binary(Binary, Number, Number),
    Sum(Whole),
    /// Anything else, as a map of one row.
    Row(Row),
}

/// An operand of element-wise arithmetic.
#[derive(Clone, Copy)]
pub enum RowOperand {
    Each(Rows),
    All(Number),
}

/// Rows to compute.
pub struct RowStep {
    pub out: Rows,
    pub what: Row,
}

/// How a block of rows is computed. `Rows` operands go with the block; `Whole` ones are read as they are.
pub enum Row {
    Affine(RowOperand, f32, f32),
    Unary(Unary, RowOperand),
    Binary(Binary, RowOperand, RowOperand),
    Fill(Number),
    /// One of two, as they are.
    Select {
        when: Number,
        then: RowOperand,
        otherwise: RowOperand,
    },
    /// Lines of two widths side by side.
    Concat {
        a: Rows,
        b: Rows,
        widths: [usize; 2],
    },
    /// `count` columns of lines of `width`.
    Slice {
        x: Rows,
        width: usize,
        from: usize,
        count: usize,
    },
    Broadcast {
        x: Rows,
        small: usize,
        spread: Spread,
    },
    BroadcastWhole {
        x: Whole,
        spread: Spread,
    },
    Sum {
        x: Rows,
        small: usize,
        spread: Spread,
    },
    ActivationGrad {
        y: Rows,
        g: Rows,
        activation: Activation,
    },
    MaxLast {
        x: Rows,
        last: usize,
    },
    ArgMaxLast {
        x: Rows,
        last: usize,
    },
    LogSumExp {
        x: Rows,
        last: usize,
    },
    LogSoftmax {
        x: Rows,
        last: usize,
    },
    LayerNorm {
        x: Rows,
        last: usize,
        epsilon: f32,
    },
    LayerNormGrad {
        x: Rows,
        g: Rows,
        last: usize,
        epsilon: f32,
    },
    LogSoftmaxGrad {
        y: Rows,
        g: Rows,
        last: usize,
    },
    Pick {
        x: Rows,
        index: Rows,
        choices: usize,
        inner: usize,
    },
    Unpick {
        g: Rows,
        index: Rows,
        choices: usize,
        inner: usize,
    },
    Rows {
        x: Whole,
        count: usize,
        index: Rows,
    },
    AddRows {
        g: Whole,
        index: Whole,
        count: usize,
    },
    /// Writes the derivative; the losses as well, where they are wanted.
    Quantile(Box<QuantileStep>),
    Moment {
        m: Rows,
        g: Rows,
        beta: f64,
        squared: bool,
    },
    AdamStep {
        p: Rows,
        m: Rows,
        v: Rows,
        t: Number,
        lr: Number,
        beta1: f64,
        beta2: f64,
        epsilon: f64,
    },
    Polyak {
        target: Rows,
        p: Rows,
        tau: Number,
    },
}

/// A quantile Huber loss and its derivative.
pub struct QuantileStep {
    pub theta: Rows,
    pub target: Rows,
    pub kappa: f32,
    /// Where the other one of the two goes.
    pub other: Option<Rows>,
    /// Whether the step's own result is the derivative.
    pub grad: bool,
    pub room: Quantile,
    /// Room for whichever nobody wants.
    pub unwanted: Vec<f32>,
}

impl MapStep {
    pub fn run(&mut self, memory: &mut Memory) -> Result<(), BackendError> {
        for step in &mut self.scalars {
            let value = step.what.value(memory)?;
            memory.slots[step.out.slot][step.out.offset] = value;
        }
        let mut first = 0;
        while first < self.rows {
            let block = Block { first, end: (first + self.block).min(self.rows) };
            self.block(block, memory)?;
            first = block.end;
        }
        Ok(())
    }

    /// A block of rows, no more than [`Self::block`].
    pub fn block(&mut self, block: Block, memory: &mut Memory) -> Result<(), BackendError> {
        self.body.iter_mut().try_for_each(|step| step.run(block, memory))
    }
}

impl Scalar {
    fn value(&mut self, memory: &mut Memory) -> Result<f32, BackendError> {
        let one = |f: &mut dyn FnMut(&mut [f32])| {
            let mut out = [0.0];
            f(&mut out);
            out[0]
        };
        Ok(match self {
            Scalar::Affine(x, mul, add) => memory.number(*x) * *mul + *add,
            Scalar::Unary(op, x) => one(&mut |out| kernels::unary(*op, &[memory.number(*x)], out)),
            Scalar::Binary(op, a, b) => {
                let (a, b) = (Operand::All(memory.number(*a)), Operand::All(memory.number(*b)));
                one(&mut |out| kernels::binary(*op, a, b, out))
            }
            Scalar::Sum(x) => kernels::sum(memory.whole(*x)),
            Scalar::Row(row) => {
                let mut out = [0.0];
                row.compute(Block { first: 0, end: 1 }, memory, &mut out)?;
                out[0]
            }
        })
    }
}

impl RowStep {
    fn run(&mut self, block: Block, memory: &mut Memory) -> Result<(), BackendError> {
        if let Row::Quantile(q) = &mut self.what {
            q.run(self.out, block, memory);
            return Ok(());
        }
        memory.write_rows(self.out, block, |memory, out| self.what.compute(block, memory, out))
    }
}

impl Row {
    fn compute(&mut self, block: Block, memory: &Memory, out: &mut [f32]) -> Result<(), BackendError> {
        let at = |rows: &Rows| memory.rows(*rows, block);
        let operand = |o: &RowOperand| match o {
            RowOperand::Each(rows) => Operand::Each(at(rows)),
            RowOperand::All(n) => Operand::All(memory.number(*n)),
        };
        match self {
            Row::Affine(RowOperand::Each(x), mul, add) => kernels::affine(at(x), *mul, *add, out),
            Row::Affine(RowOperand::All(x), mul, add) => out.fill(memory.number(*x) * *mul + *add),
            Row::Unary(op, RowOperand::Each(x)) => kernels::unary(*op, at(x), out),
            Row::Unary(op, RowOperand::All(x)) => {
                let mut value = [0.0];
                kernels::unary(*op, &[memory.number(*x)], &mut value);
                out.fill(value[0]);
            }
            Row::Binary(op, a, b) => kernels::binary(*op, operand(a), operand(b), out),
            Row::Fill(n) => out.fill(memory.number(*n)),
            Row::Select { when, then, otherwise } => {
                let chosen = if memory.number(*when) > 0.0 { then } else { otherwise };
                match operand(chosen) {
                    Operand::Each(x) => simd::copy(x, out),
                    Operand::All(x) => out.fill(x),
                }
            }
            Row::Concat { a, b, widths } => kernels::concat(at(a), at(b), *widths, out),
            Row::Slice { x, width, from, count } => kernels::slice(at(x), *width, *from, *count, out),
            Row::Broadcast { x, small, spread } => spread.broadcast(at(x), *small, out),
            Row::BroadcastWhole { x, spread } => spread.broadcast(memory.whole(*x), x.len, out),
            Row::Sum { x, small, spread } => spread.sum(at(x), *small, out),
            Row::ActivationGrad { y, g, activation } => {
                kernels::activation_grad(at(y), at(g), *activation, out)
            }
            Row::MaxLast { x, last } => kernels::max_last(at(x), *last, out),
            Row::ArgMaxLast { x, last } => kernels::argmax_last(at(x), *last, out),
            Row::LogSumExp { x, last } => kernels::log_sum_exp(at(x), *last, out),
            Row::LogSoftmax { x, last } => kernels::log_softmax(at(x), *last, out),
            Row::LayerNorm { x, last, epsilon } => kernels::layer_norm(at(x), *last, *epsilon, out),
            Row::LayerNormGrad { x, g, last, epsilon } => {
                kernels::layer_norm_grad(at(x), at(g), *last, *epsilon, out)
            }
            Row::LogSoftmaxGrad { y, g, last } => kernels::log_softmax_grad(at(y), at(g), *last, out),
            Row::Pick { x, index, choices, inner } => kernels::pick(at(x), *choices, *inner, at(index), out)?,
            Row::Unpick { g, index, choices, inner } => {
                kernels::unpick(at(g), *choices, *inner, at(index), out)?
            }
            Row::Rows { x, count, index } => kernels::rows(memory.whole(*x), *count, at(index), out)?,
            Row::AddRows { g, index, count } => {
                let (g, index) = (memory.whole(*g), memory.whole(*index));
                let width = g.len() / index.len();
                kernels::add_rows(g, *count, index, block.first, width, out)?;
            }
            Row::Quantile(_) => unreachable!("it writes two values and is run by its step"),
            Row::Moment { m, g, beta, squared } => {
                kernels::moment(at(m), at(g), *beta as f32, (1.0 - *beta) as f32, *squared, out);
            }
            Row::AdamStep { p, m, v, t, lr, beta1, beta2, epsilon } => {
                let scales = kernels::adam_scales(memory.number(*t), memory.number(*lr), *beta1, *beta2);
                kernels::adam_step(at(p), at(m), at(v), scales, *epsilon as f32, out);
            }
            Row::Polyak { target, p, tau } => kernels::polyak(at(target), at(p), memory.number(*tau), out),
        }
        Ok(())
    }
}

impl QuantileStep {
    fn run(&mut self, out: Rows, block: Block, memory: &mut Memory) {
        let mut unwanted = std::mem::take(&mut self.unwanted);
        let Self { theta, target, kappa, other, grad, room, .. } = self;
        let compute = |memory: &Memory, own: &mut [f32], other: &mut [f32], room: &mut Quantile| {
            let (loss, slope) = if *grad { (other, own) } else { (own, other) };
            room.run(memory.rows(*theta, block), memory.rows(*target, block), *kappa, loss, slope);
        };
        match other {
            Some(other) => {
                // Both slots are taken at once.
                let mut taken = std::mem::take(&mut memory.slots[other.slot]);
                let range = other.range(block);
                memory.write_rows(out, block, |memory, own| compute(memory, own, &mut taken[range], room));
                memory.slots[other.slot] = taken;
            }
            None => {
                let rows = block.end - block.first;
                let len = if *grad { rows } else { rows * theta.width };
                unwanted.resize(len, 0.0);
                memory.write_rows(out, block, |memory, own| compute(memory, own, &mut unwanted, room));
            }
        }
        self.unwanted = unwanted;
    }
}

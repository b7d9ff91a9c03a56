//! From a plan to steps: every operand is looked up once, here.

use crate::executable::{ConvStep, MatmulStep, OptimiseStep, Step};
use crate::kernels::Spread;
use crate::map::{MapStep, QuantileStep, Row, RowOperand, RowStep, Scalar, ScalarStep};
use crate::memory::{Memory, Number, Rows, Whole};
use crate::quantile::Quantile;
use oto_graph::plan::{Kernel, Map, Place, Plan, Storage};
use oto_graph::{NodeId, Op};

/// Numbers of the widest value in a block of a map.
const BLOCK: usize = 16_384;

/// The steps of a plan, and its memory with constants filled in.
pub fn lower(plan: &Plan) -> (Vec<(Step, Option<Number>)>, Memory) {
    let mut lower =
        Lower { plan, slots: plan.slots.iter().map(|s| vec![0.0; s.len]).collect(), constants: Vec::new() };
    let conditions = plan.conditions.iter().map(|c| c.map(|n| lower.number(n))).collect::<Vec<_>>();
    let steps = plan.kernels.iter().map(|k| lower.kernel(k)).zip(conditions).collect();
    (steps, Memory { slots: lower.slots })
}

struct Lower<'p> {
    plan: &'p Plan,
    slots: Vec<Vec<f32>>,
    /// Constants that a kernel reads as if they were computed, and their slots.
    constants: Vec<(NodeId, usize)>,
}

impl Lower<'_> {
    fn op(&self, n: NodeId) -> &Op {
        &self.plan.node(n).op
    }

    fn shape(&self, n: NodeId) -> &[usize] {
        &self.plan.node(n).shape
    }

    fn last(&self, n: NodeId) -> usize {
        self.shape(n).last().copied().unwrap_or(1)
    }

    fn place(&mut self, n: NodeId) -> Place {
        if let Some(place) = self.plan.place(n) {
            return place;
        }
        let known = self.constants.iter().find(|(c, _)| *c == n).map(|(_, slot)| *slot);
        let slot = known.unwrap_or_else(|| {
            let value = self.plan.constant(n).expect("what has no place is a constant");
            self.slots.push(vec![value as f32; self.plan.len(n)]);
            self.constants.push((n, self.slots.len() - 1));
            self.slots.len() - 1
        });
        Place { slot, offset: 0 }
    }

    fn whole(&mut self, n: NodeId) -> Whole {
        let Place { slot, offset } = self.place(n);
        Whole { slot, offset, len: self.plan.len(n) }
    }

    fn number(&mut self, n: NodeId) -> Number {
        match self.plan.constant(n) {
            Some(v) => Number::Constant(v as f32),
            None => Number::At(self.place(n)),
        }
    }

    /// The rows of a value in a map over `rows`.
    fn rows(&mut self, n: NodeId, rows: usize) -> Rows {
        let Place { slot, offset } = self.place(n);
        let tile = self.plan.slots.get(slot).is_some_and(|s| s.storage == Storage::Tile);
        Rows { slot, offset, width: self.plan.len(n) / rows.max(1), tile }
    }

    fn kernel(&mut self, kernel: &Kernel) -> Step {
        match kernel {
            Kernel::Map(map) => Step::Map(self.map(map)),
            Kernel::Matmul(p) => Step::Matmul(MatmulStep {
                count: p.count,
                one_a: p.one_a,
                one_b: p.one_b,
                a: self.whole(p.a),
                a_columns: self.last(p.a),
                b: self.whole(p.b),
                b_columns: self.last(p.b),
                bias: p.bias.map(|b| self.whole(b)),
                derivative: p.derivative.map(|(activation, y)| (activation, self.whole(y))),
                sums: p.sums.map(|s| self.whole(s)),
                out: self.whole(p.out),
                ta: p.ta,
                tb: p.tb,
                n: p.n,
                k: p.k,
                activation: p.activation,
            }),
            Kernel::Conv(n) => {
                let operands = self.op(*n).operands().collect::<Vec<_>>();
                let operands =
                    operands.into_iter().map(|o| (self.whole(o), self.shape(o).to_vec())).collect();
                let out = (self.whole(*n), self.shape(*n).to_vec());
                Step::Conv(ConvStep { op: self.op(*n).clone(), operands, out })
            }
            Kernel::Reduce(n) => {
                let Op::SumTo(x) = *self.op(*n) else { unreachable!("only sums are reduced") };
                let spread = Spread::new(self.shape(*n), self.shape(x));
                Step::Reduce { x: self.whole(x), spread, out: self.whole(*n) }
            }
            Kernel::Optimise(o) => Step::Optimise(OptimiseStep {
                t: self.number(o.t),
                lr: self.number(o.lr),
                due: o.due.map(|n| self.number(n)),
                tau: o.target.map_or(Number::Constant(0.0), |slow| self.number(slow.tau)),
                slow_due: o.target.and_then(|slow| slow.due).map(|n| self.number(n)),
                kernel: o.clone(),
            }),
        }
    }

    fn map(&mut self, map: &Map) -> MapStep {
        let scalars = map.scalars.iter().map(|n| self.scalar(*n)).collect();
        let widest = map.body.iter().map(|n| self.plan.len(*n) / map.rows.max(1)).max().unwrap_or(1);
        let block = (BLOCK / widest.max(1)).clamp(1, map.rows.max(1));
        let mut body = Vec::new();
        for n in &map.body {
            // A number repeated is read where it is needed, and a loss is computed with its derivative.
            let repeated = self.repeated_number(*n) && !self.stored(*n) && self.read_as_number(map, *n);
            let done = matches!(self.op(*n), Op::QuantileHuberGrad { .. }) && self.loss_of(map, *n).is_some();
            if !repeated && !done {
                body.push(RowStep { out: self.rows(*n, map.rows), what: self.row(map, *n, map.rows) });
            }
        }
        for step in &body {
            let others = if let Row::Quantile(q) = &step.what { q.other } else { None };
            for out in [Some(step.out), others].into_iter().flatten().filter(|o| o.tile) {
                let wanted = out.width * block;
                let slot = &mut self.slots[out.slot];
                slot.resize(slot.len().max(wanted), 0.0);
            }
        }
        MapStep { rows: map.rows, block, scalars, body }
    }

    fn stored(&self, n: NodeId) -> bool {
        self.plan.place(n).is_some_and(|p| self.plan.slots[p.slot].storage != Storage::Tile)
    }

    fn repeated_number(&self, n: NodeId) -> bool {
        matches!(*self.op(n), Op::Broadcast(x) if self.shape(x).is_empty())
    }

    /// Whether all that read `n` in this map can take it as a number.
    fn read_as_number(&self, map: &Map, n: NodeId) -> bool {
        let mut readers = map.body.iter().filter(|m| self.op(**m).operands().any(|o| self.plan.root(o) == n));
        readers.all(|m| {
            let takes =
                matches!(self.op(*m), Op::Binary(..) | Op::Affine { .. } | Op::Unary(..) | Op::Select { .. });
            takes && self.op(*m).operands().all(|o| o == n || self.plan.root(o) != n)
        })
    }

    /// The loss in this map whose derivative `n` is.
    fn loss_of(&self, map: &Map, n: NodeId) -> Option<NodeId> {
        let Op::QuantileHuberGrad { theta, target, kappa } = *self.op(n) else { return None };
        let loss = Op::QuantileHuber { theta, target, kappa };
        map.body.iter().copied().find(|m| *self.op(*m) == loss)
    }

    fn scalar(&mut self, n: NodeId) -> ScalarStep {
        let what = match *self.op(n) {
            Op::Affine { x, mul, add } => Scalar::Affine(self.number(x), mul as f32, add as f32),
            Op::Unary(op, x) => Scalar::Unary(op, self.number(x)),
            Op::Binary(op, a, b) => Scalar::Binary(op, self.number(a), self.number(b)),
            Op::SumTo(x) => Scalar::Sum(self.whole(x)),
            _ => Scalar::Row(self.row(&Map { rows: 1, scalars: vec![], body: vec![n] }, n, 1)),
        };
        ScalarStep { out: self.place(n), what }
    }

    /// An operand that may be a number.
    fn operand(&mut self, n: NodeId, rows: usize) -> RowOperand {
        match *self.op(n) {
            Op::Constant(v) => RowOperand::All(Number::Constant(v as f32)),
            Op::Broadcast(x) if self.shape(x).is_empty() && !self.stored(n) => {
                RowOperand::All(self.number(x))
            }
            _ => RowOperand::Each(self.rows(n, rows)),
        }
    }

    fn row(&mut self, map: &Map, n: NodeId, rows: usize) -> Row {
        let last = |x: NodeId| self.last(x);
        match *self.op(n) {
            Op::Affine { x, mul, add } => Row::Affine(self.operand(x, rows), mul as f32, add as f32),
            Op::Unary(op, x) => Row::Unary(op, self.operand(x, rows)),
            Op::Binary(op, a, b) => Row::Binary(op, self.operand(a, rows), self.operand(b, rows)),
            Op::Select { when, then, otherwise } => {
                let [then, otherwise] = [then, otherwise].map(|x| self.operand(x, rows));
                Row::Select { when: self.number(when), then, otherwise }
            }
            Op::Concat { a, b } => {
                let widths = [last(a), last(b)];
                Row::Concat { a: self.rows(a, rows), b: self.rows(b, rows), widths }
            }
            Op::Slice { x, from } => {
                Row::Slice { from, width: last(x), count: last(n), x: self.rows(x, rows) }
            }
            Op::Broadcast(x) => self.broadcast(n, x, rows),
            Op::SumTo(x) => {
                let spread = Spread::new(&self.shape(n)[1..], &self.shape(x)[1..]);
                let x = self.rows(x, rows);
                Row::Sum { x, small: self.plan.len(n) / rows.max(1), spread }
            }
            Op::ActivationGrad { y, g, activation } => {
                Row::ActivationGrad { y: self.rows(y, rows), g: self.rows(g, rows), activation }
            }
            Op::MaxLast(x) => Row::MaxLast { last: last(x), x: self.rows(x, rows) },
            Op::ArgMaxLast(x) => Row::ArgMaxLast { last: last(x), x: self.rows(x, rows) },
            Op::LogSumExp(x) => Row::LogSumExp { last: last(x), x: self.rows(x, rows) },
            Op::LogSoftmax(x) => Row::LogSoftmax { last: last(x), x: self.rows(x, rows) },
            Op::LogSoftmaxGrad { y, g } => {
                Row::LogSoftmaxGrad { last: last(y), y: self.rows(y, rows), g: self.rows(g, rows) }
            }
            Op::Pick { x, index } => {
                let (choices, inner) = (self.shape(x)[1], self.shape(x)[2]);
                Row::Pick { x: self.rows(x, rows), index: self.rows(index, rows), choices, inner }
            }
            Op::Unpick { g, index } => {
                let (choices, inner) = (self.shape(n)[1], self.shape(n)[2]);
                Row::Unpick { g: self.rows(g, rows), index: self.rows(index, rows), choices, inner }
            }
            Op::Rows { x, index } => {
                Row::Rows { count: self.shape(x)[0], x: self.whole(x), index: self.rows(index, rows) }
            }
            Op::AddRows { g, index } => {
                Row::AddRows { g: self.whole(g), index: self.whole(index), count: self.shape(n)[0] }
            }
            Op::QuantileHuber { theta, target, kappa } => {
                let twin = Op::QuantileHuberGrad { theta, target, kappa };
                let other = map.body.iter().copied().find(|m| *self.op(*m) == twin);
                self.quantile(theta, target, kappa, other, false, rows)
            }
            Op::QuantileHuberGrad { theta, target, kappa } => {
                self.quantile(theta, target, kappa, None, true, rows)
            }
            Op::Moment { m, g, beta, squared } => {
                Row::Moment { m: self.rows(m, rows), g: self.rows(g, rows), beta, squared }
            }
            Op::AdamStep { p, m, v, t, lr, beta1, beta2, epsilon } => {
                let [p, m, v] = [p, m, v].map(|x| self.rows(x, rows));
                Row::AdamStep { p, m, v, t: self.number(t), lr: self.number(lr), beta1, beta2, epsilon }
            }
            Op::Polyak { target, p, tau } => {
                Row::Polyak { target: self.rows(target, rows), p: self.rows(p, rows), tau: self.number(tau) }
            }
            _ => unreachable!("not computed row by row"),
        }
    }

    fn broadcast(&mut self, n: NodeId, x: NodeId, rows: usize) -> Row {
        let (from, to) = (self.shape(x).to_vec(), self.shape(n).to_vec());
        if from.is_empty() {
            return Row::Fill(self.number(x));
        }
        let each = from.len() == to.len() && from[0] == to[0];
        // Without its first axis, which is repeated from row to row, or is there already.
        let inner = if from.len() == to.len() { &from[1..] } else { &from[..] };
        let spread = Spread::new(inner, &to[1..]);
        match each {
            true => Row::Broadcast { small: self.plan.len(x) / rows.max(1), x: self.rows(x, rows), spread },
            false => Row::BroadcastWhole { x: self.whole(x), spread },
        }
    }

    fn quantile(
        &mut self,
        theta: NodeId,
        target: NodeId,
        kappa: f64,
        other: Option<NodeId>,
        grad: bool,
        rows: usize,
    ) -> Row {
        let room = Quantile::new(self.shape(target)[1]);
        Row::Quantile(Box::new(QuantileStep {
            theta: self.rows(theta, rows),
            target: self.rows(target, rows),
            kappa: kappa as f32,
            other: other.map(|o| self.rows(o, rows)),
            grad,
            room,
            unwanted: Vec::new(),
        }))
    }
}

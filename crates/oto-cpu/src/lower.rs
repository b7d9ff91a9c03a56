//! From a plan to steps: every operand is looked up once, here.

use crate::executable::{ConvStep, MatmulStep, OptimiseStep, Step};
use crate::kernels::Spread;
use crate::map::{MapStep, QuantileStep, Row, RowOperand, RowStep, Scalar, ScalarStep};
use crate::memory::{Memory, Number, Rows, Whole};
use crate::quantile::Quantile;
use oto_graph::plan::{Kernel, Map, Place, Plan, SCALARS, Storage};
use oto_graph::{InputId, NodeId, Op};

/// Numbers of the widest value in a block of a map.
const BLOCK: usize = 16_384;

/// A plan in execution.
pub struct Lowered {
    /// With each the number without which it need not run.
    pub steps: Vec<(Step, Option<Number>)>,
    /// With constants filled in.
    pub memory: Memory,
    /// Where each output lies.
    pub outputs: Vec<Whole>,
    /// Where each value lies that is copied to a state input after the last step.
    pub copies: Vec<(Whole, InputId)>,
}

/// The steps of a plan, and its memory.
pub fn lower(plan: &Plan) -> Lowered {
    let slots = plan.slots.iter().map(|s| vec![0.0; s.len]).collect();
    let mut lower = Lower { plan, slots, constants: Vec::new(), handed_on: Vec::new(), moved: Vec::new() };
    let groups = lower.groups();
    groups.iter().for_each(|group| lower.make_room(group));
    let condition = |lower: &mut Lower<'_>, k: usize| plan.conditions[k].map(|n| lower.number(n));
    let mut steps = Vec::new();
    for group in groups {
        let condition = condition(&mut lower, group[0]);
        let step = match group[..] {
            [one] => lower.kernel(&plan.kernels[one]),
            _ => {
                let parts = lower.uses(group[0]).count;
                Step::Parts(parts, group.iter().map(|k| lower.kernel(&plan.kernels[*k])).collect())
            }
        };
        steps.push((step, condition));
    }
    let outputs = plan.program.outputs.iter().map(|(_, n)| lower.whole(*n)).collect();
    let copies = plan.copies.iter().map(|(input, n)| (lower.whole(*n), *input)).collect();
    Lowered { steps, memory: Memory { slots: lower.slots }, outputs, copies }
}

/// The values that a kernel reads from others, whether all of its parts read all of them, and the values that it leaves.
#[derive(Default)]
struct Uses {
    /// How many parts it has that do not need one another.
    count: usize,
    /// Whether they are products: rows alone gain nothing by it.
    products: bool,
    reads: Vec<(NodeId, bool)>,
    writes: Vec<NodeId>,
}

impl Uses {
    /// Whether a part of this kernel may run before later parts of `earlier`.
    fn go_with(&self, earlier: &Uses) -> bool {
        let own_part = |(n, all): &(NodeId, bool)| !all || !earlier.writes.contains(n);
        self.count > 1 && self.count == earlier.count && self.reads.iter().all(own_part)
    }

    /// Whether this kernel may run before `earlier` instead of after it.
    fn does_without(&self, earlier: &Uses) -> bool {
        self.reads.iter().all(|(n, _)| !earlier.writes.contains(n))
    }
}

struct Lower<'p> {
    plan: &'p Plan,
    slots: Vec<Vec<f32>>,
    /// Constants that a kernel reads as if they were computed, and their slots.
    constants: Vec<(NodeId, usize)>,
    /// Values that only the group's own kernels read, one part at a time, and their slots, each with space for one part.
    handed_on: Vec<(NodeId, usize)>,
    /// Other values of groups, and their slots: of their own, because a slot of the plan may hold what a later part still reads.
    moved: Vec<(NodeId, usize)>,
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
            let root = self.plan.root(n);
            let moved = self.moved.iter().find(|(m, _)| *m == root).map(|(_, slot)| *slot);
            return Place { slot: moved.unwrap_or(place.slot), ..place };
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
        let len = self.plan.len(n);
        if let Some(slot) = self.slot_of_a_part(n) {
            return Whole { slot, offset: 0, len, one_part: true };
        }
        let Place { slot, offset } = self.place(n);
        Whole { slot, offset, len, one_part: false }
    }

    fn slot_of_a_part(&self, n: NodeId) -> Option<usize> {
        let root = self.plan.root(n);
        self.handed_on.iter().find(|(m, _)| *m == root).map(|(_, slot)| *slot)
    }

    /// Kernels by the steps that they become, in the order of the steps. Products of several parts, and maps of as many rows after
    /// them, are one step where one part may be computed after the other; what comes in between and has nothing to do with them
    /// is left for later.
    fn groups(&self) -> Vec<Vec<usize>> {
        let plan = self.plan;
        let mut groups: Vec<Vec<usize>> = Vec::new();
        // The group that still grows, what its kernels use, and what those use that were left for later.
        let (mut growing, mut members, mut later) = (None::<usize>, Vec::<Uses>::new(), Vec::<Uses>::new());
        for (k, kernel) in plan.kernels.iter().enumerate() {
            let next = self.uses(k);
            let fits = |group: &usize| {
                plan.conditions[k] == plan.conditions[groups[*group][0]]
                    && members.iter().all(|earlier| next.go_with(earlier))
                    && later.iter().all(|earlier| next.does_without(earlier))
            };
            if let Some(group) = growing.filter(fits) {
                groups[group].push(k);
                members.push(next);
                continue;
            }
            groups.push(vec![k]);
            if next.products && next.count > 1 {
                (growing, members, later) = (Some(groups.len() - 1), vec![next], Vec::new());
            } else if matches!(kernel, Kernel::Map(_)) {
                later.push(next);
            } else {
                growing = None;
            }
        }
        groups
    }

    /// Gives the values of a group memory of their own: of what its kernels hand on among themselves alone one part, which all
    /// parts use in turn and which stays in the cache.
    fn make_room(&mut self, group: &[usize]) {
        let plan = self.plan;
        if group.len() < 2 {
            return;
        }
        let count = self.uses(group[0]).count;
        let outputs = plan.program.outputs.iter().map(|(_, o)| *o);
        let kept = outputs.chain(plan.program.updates.iter().map(|(_, u)| *u)).map(|n| plan.root(n));
        let elsewhere = (0..plan.kernels.len()).filter(|k| !group.contains(k));
        let read = elsewhere.flat_map(|k| plan.reads(k)).chain(kept).collect::<Vec<_>>();
        let gradients =
            |slot: usize| plan.kernels.iter().any(|k| matches!(k, Kernel::Optimise(o) if o.g == slot));
        for n in group.iter().flat_map(|k| plan.writes(*k)) {
            let place = plan.place(n).expect("what is stored has a place");
            if place.slot == SCALARS || gradients(place.slot) {
                continue;
            }
            let (len, list) = match read.contains(&n) {
                true => (plan.len(n), &mut self.moved),
                false => (plan.len(n) / count, &mut self.handed_on),
            };
            self.slots.push(vec![0.0; len]);
            list.push((n, self.slots.len() - 1));
        }
    }

    fn number(&mut self, n: NodeId) -> Number {
        match self.plan.constant(n) {
            Some(v) => Number::Constant(v as f32),
            None => Number::At(self.place(n)),
        }
    }

    /// The rows of a value in a map over `rows`.
    fn rows(&mut self, n: NodeId, rows: usize) -> Rows {
        let width = self.plan.len(n) / rows.max(1);
        if let Some(slot) = self.slot_of_a_part(n) {
            return Rows { slot, offset: 0, width, tile: true };
        }
        let Place { slot, offset } = self.place(n);
        let tile = self.plan.slots.get(slot).is_some_and(|s| s.storage == Storage::Tile);
        Rows { slot, offset, width, tile }
    }

    /// What kernel `k` reads and writes, if it is a product or a map; its parts are several products, or rows.
    fn uses(&self, k: usize) -> Uses {
        let plan = self.plan;
        // Of a value that is seen in part, other parts than one's own may be read.
        let read = |n: NodeId, all: bool| (plan.root(n), all || plan.len(n) != plan.len(plan.root(n)));
        let mut uses = Uses { writes: plan.writes(k), ..Uses::default() };
        match &plan.kernels[k] {
            Kernel::Matmul(p) => {
                let more = [p.bias, p.derivative.map(|(_, y)| y)].into_iter().flatten().map(|n| (n, false));
                let reads = [(p.a, p.one_a), (p.b, p.one_b)].into_iter().chain(more);
                uses.reads = reads.map(|(n, all)| read(n, all)).collect();
                (uses.count, uses.products) = (p.count, true);
            }
            Kernel::Map(map) => {
                // Single numbers are computed before all rows.
                uses.count = if map.scalars.is_empty() { map.rows } else { 0 };
                let members = map.scalars.iter().chain(&map.body);
                let inside = |o: NodeId| members.clone().any(|m| *m == plan.root(o));
                for n in members.clone() {
                    let others = self.op(*n).operands().filter(|o| !inside(*o));
                    uses.reads.extend(others.map(|o| read(o, self.for_all_rows(*n, o))));
                }
            }
            _ => {}
        }
        uses
    }

    /// Whether every row of node `n` in a map may read all of its operand `o`.
    fn for_all_rows(&self, n: NodeId, o: NodeId) -> bool {
        let (to, from) = (self.shape(n), self.shape(o));
        match *self.op(n) {
            Op::Broadcast(_) => from.len() != to.len() || from[0] != to[0],
            Op::Rows { x, .. } => o == x,
            Op::AddRows { .. } => true,
            _ => from.is_empty(),
        }
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
            Op::LayerNorm { x, epsilon } => {
                Row::LayerNorm { last: last(x), x: self.rows(x, rows), epsilon: epsilon as f32 }
            }
            Op::LayerNormGrad { x, g, epsilon } => {
                let (last, epsilon) = (last(x), epsilon as f32);
                Row::LayerNormGrad { x: self.rows(x, rows), g: self.rows(g, rows), last, epsilon }
            }
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

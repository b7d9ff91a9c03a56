//! Maps, as one or more dispatches without a barrier: where a number is needed by another thread, a dispatch ends.
//!
//! A part of a map has a thread for each row, which walks the row's few numbers, or a thread for each number of wide rows.
//! What is cheap is computed where it is needed, what only its own thread needs stays in variables, everything else goes through
//! the buffer of values. A barrier costs less than a dispatch on a graphics card, but many times more where a processor plays
//! the device.

use super::{Writer, before, buffer, literal, summed_from};
use super::{activated, broadcast_from};
use oto_graph::plan::{Map, Storage};
use oto_graph::{Activation, Binary, NodeId, Op, Unary};

/// Values with more numbers in a row get a thread for each.
const NARROW: usize = 16;
/// Whole values of at most so many numbers are added up by every thread for itself.
const ALONE: usize = 256;
/// Operations that may be repeated instead of keeping a value.
const REPEATED_WORK: usize = 4;
/// Numbers of a wide row that are one thread's work, at most: what they share it then reads once.
const EACH: usize = 8;
/// Workgroups that may compute the same single numbers, each for itself.
const REPEATED_SCALARS: usize = 8;

/// What a thread does at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Computes a node; a quantile Huber loss brings its gradient with it.
    Node(NodeId),
    /// The pairwise losses of one quantile, to be added up by the step after.
    Pairs(NodeId),
    /// The sum of those.
    PairSum(NodeId),
}

impl Step {
    fn node(self) -> NodeId {
        match self {
            Step::Node(n) | Step::Pairs(n) | Step::PairSum(n) => n,
        }
    }
}

/// What one dispatch computes.
struct Part {
    /// A thread for each number instead of each row.
    wide: bool,
    steps: Vec<Step>,
}

/// Where a node's numbers live while the map runs.
#[derive(Clone, Copy, Default)]
struct Home {
    /// In a variable of the threads of this part.
    private: Option<usize>,
    /// In the buffer of values or of state: name, first number, numbers from row to row.
    memory: Option<(&'static str, usize, usize)>,
}

/// What a map's writer keeps in mind.
struct Rows<'m> {
    map: &'m Map,
    /// Nodes that are computed wherever they are needed.
    inlined: Vec<NodeId>,
    parts: Vec<Part>,
    /// By node of the body.
    homes: Vec<(NodeId, Home)>,
    /// Where the losses of pairs wait to be added up.
    pairs: Vec<(NodeId, usize)>,
    /// The part being written, and the numbers of its widest value in a row.
    part: usize,
    width: usize,
}

impl Rows<'_> {
    fn wide(&self) -> bool {
        self.parts[self.part].wide
    }

    fn home(&self, n: NodeId) -> Option<Home> {
        self.homes.iter().find(|(m, _)| *m == n).map(|(_, home)| *home)
    }
}

impl Writer<'_> {
    pub(super) fn map(&mut self, map: &Map) {
        let inlined = self.inlined(map);
        let parts = self.parts(map, &inlined);
        let mut rows = Rows { map, inlined, homes: Vec::new(), pairs: Vec::new(), part: 0, width: 1, parts };
        self.find_homes(&mut rows);
        let count = rows.parts.len();
        let groups = |w: &Self, width: usize| (map.rows * width).div_ceil(w.threads);
        let beside = rows.parts.first().is_some_and(|p| !p.wide) && groups(self, 1) <= REPEATED_SCALARS;
        if !map.scalars.is_empty() && !beside {
            self.begin();
            self.scalars(map);
            self.end(1);
        }
        self.in_scope.clear();
        for part in 0..count {
            rows.part = part;
            rows.width = match rows.wide() {
                true => rows.parts[part].steps.iter().map(|s| self.width(map, *s)).max().unwrap_or(1),
                false => 1,
            };
            let threads = rows.width.div_ceil(self.each_thread(map, rows.width));
            self.begin();
            if part == 0 && beside {
                self.scalars(map);
            }
            let groups = self.walk(map.rows * threads, 1);
            match rows.wide() {
                true => self.line(format!("let row = at / {threads}u;")),
                false => self.line("let row = at;"),
            }
            let body = self.text.len();
            let pairs = matches!(rows.parts[part].steps[..], [Step::Pairs(_)]);
            let walks = rows.wide() && !pairs;
            if walks {
                let width = rows.width;
                self.line(format!("for (var i = at % {threads}u; i < {width}u; i += {threads}u) {{"));
            }
            for step in rows.parts[part].steps.clone() {
                self.step(&rows, step);
            }
            let starts = self.row_starts.take().into_iter();
            let starts = starts.map(|stride| format!("    let row{stride} = row * {stride}u;\n"));
            let shared = self.shared.take().into_iter().enumerate();
            let shared = shared.map(|(h, value)| format!("    let h{h} = {value};\n"));
            self.text.insert_str(body, &starts.chain(shared).collect::<String>());
            if walks {
                self.line("}");
            }
            self.line("}");
            self.end(groups);
            self.in_scope.clear();
        }
    }

    fn row_len(&self, map: &Map, n: NodeId) -> usize {
        self.len(n) / map.rows.max(1)
    }

    /// Numbers of a row that a step of a wide part computes.
    fn width(&self, map: &Map, step: Step) -> usize {
        match (step, self.op(step.node())) {
            (Step::Pairs(_), Op::QuantileHuber { theta, .. }) => self.row_len(map, *theta),
            (step, _) => self.row_len(map, step.node()),
        }
    }

    /// Of a row's `width` numbers, how many are one thread's: more as long as there is work for all.
    fn each_thread(&self, map: &Map, width: usize) -> usize {
        let busy = |each: &usize| map.rows * width.div_ceil(*each) >= self.limits.busy as usize;
        (1..=EACH).rev().find(busy).unwrap_or(1)
    }

    /// Whether a step has a thread for each number.
    fn is_wide(&self, map: &Map, step: Step) -> bool {
        let n = step.node();
        match (step, self.op(n)) {
            // Groups that one thread walks over twice.
            (_, Op::LogSoftmax(_) | Op::LogSoftmaxGrad { .. }) | (Step::PairSum(_), _) => false,
            (_, Op::LayerNorm { .. } | Op::LayerNormGrad { .. }) => false,
            (Step::Pairs(_), _) => true,
            _ => self.row_len(map, n) > NARROW,
        }
    }

    /// What is to be done, in order; a loss over pairs is two steps where there is a thread for each quantile.
    fn steps(&self, map: &Map, inlined: &[NodeId]) -> Vec<Step> {
        let mut steps = Vec::new();
        for n in map.body.iter().filter(|n| !inlined.contains(n)) {
            match *self.op(*n) {
                Op::QuantileHuber { theta, .. } if self.row_len(map, theta) > NARROW => {
                    steps.extend([Step::Pairs(*n), Step::PairSum(*n)]);
                }
                Op::QuantileHuberGrad { .. } if self.twin(map, *n).is_some() => {}
                _ => steps.push(Step::Node(*n)),
            }
        }
        steps
    }

    /// Nodes that are computed where they are needed: once, or so cheaply that it does not matter.
    fn inlined(&self, map: &Map) -> Vec<NodeId> {
        let mut inlined: Vec<NodeId> = Vec::new();
        // How often each number of a node is computed if the node is inlined.
        let mut uses: Vec<(NodeId, usize)> = Vec::new();
        for n in map.body.iter().rev() {
            let of = |r: NodeId| uses.iter().find(|(m, _)| *m == r).map_or(1, |(_, uses)| *uses);
            let readers =
                map.body.iter().filter(|r| self.op(**r).operands().any(|o| self.plan.root(o) == *n));
            let times = readers.map(|r| {
                let own = if inlined.contains(r) { of(*r) } else { 1 };
                own * self.uses(map, *r, *n)
            });
            let times = times.sum::<usize>();
            let place = self.plan.place(*n).expect("what a map computes has a place");
            let stored = self.plan.slots[place.slot].storage != Storage::Tile;
            if let Some(cost) = self.cost(*n).filter(|cost| !stored && (times - 1) * cost <= REPEATED_WORK) {
                inlined.push(*n);
                uses.push((*n, if cost == 0 { 1 } else { times }));
            }
        }
        inlined
    }

    /// Operations for one number of a node that may be inlined.
    fn cost(&self, n: NodeId) -> Option<usize> {
        match self.op(n) {
            Op::Broadcast(_) => Some(0),
            Op::Affine { .. } | Op::Binary(..) | Op::ActivationGrad { .. } => Some(1),
            Op::Select { .. } | Op::Concat { .. } | Op::Slice { .. } => Some(1),
            Op::Unary(Unary::Square | Unary::Abs | Unary::Relu | Unary::Step, _) => Some(1),
            Op::Unary(..) => Some(REPEATED_WORK + 1),
            Op::Pick { .. } | Op::Unpick { .. } | Op::Rows { .. } => Some(2),
            _ => None,
        }
    }

    /// How often each number of `n` is read by `reader`.
    fn uses(&self, map: &Map, reader: NodeId, n: NodeId) -> usize {
        let len = |n| self.row_len(map, n);
        let is = |o: NodeId| self.plan.root(o) == n;
        match *self.op(reader) {
            Op::Broadcast(_) => len(reader).div_ceil(len(n)),
            Op::Pick { index, .. } | Op::Rows { index, .. } if is(index) => len(reader),
            Op::Unpick { index, .. } if is(index) => len(reader),
            Op::Unpick { g, .. } => len(reader).div_ceil(len(g)),
            Op::LogSoftmax(_) | Op::LayerNorm { .. } => 3,
            Op::LayerNormGrad { x, .. } => {
                if is(x) {
                    4
                } else {
                    2
                }
            }
            Op::LogSumExp(_) | Op::LogSoftmaxGrad { .. } => 2,
            Op::QuantileHuber { theta, target, .. } | Op::QuantileHuberGrad { theta, target, .. } => {
                if is(target) { len(theta) } else { 1 }
            }
            // An operation with itself, for instance a square written as a product.
            _ => self.op(reader).operands().filter(|o| is(*o)).count(),
        }
    }

    /// What a step reads, through what is inlined; whether its thread reads numbers other than its own.
    fn leaves(&self, map: &Map, inlined: &[NodeId], step: Step) -> Vec<(NodeId, bool)> {
        let mut leaves = Vec::new();
        let mut open = vec![(step.node(), false)];
        while let Some((n, across)) = open.pop() {
            for o in self.op(n).operands() {
                let (root, across) = (self.plan.root(o), across || self.across(n, o));
                match inlined.contains(&root) {
                    true => open.push((root, across)),
                    false if map.body.contains(&root) => leaves.push((root, across)),
                    false => {}
                }
            }
        }
        leaves
    }

    /// The loss of a quantile gradient in the same map, or the other way round.
    fn twin(&self, map: &Map, n: NodeId) -> Option<NodeId> {
        let twin = match *self.op(n) {
            Op::QuantileHuber { theta, target, kappa } => Op::QuantileHuberGrad { theta, target, kappa },
            Op::QuantileHuberGrad { theta, target, kappa } => Op::QuantileHuber { theta, target, kappa },
            _ => return None,
        };
        map.body.iter().copied().find(|m| *self.op(*m) == twin)
    }

    /// Nodes that a step gives.
    fn given(&self, map: &Map, step: Step) -> impl Iterator<Item = NodeId> {
        let twin = self.twin(map, step.node());
        let (loss, grad) = match step {
            Step::Node(n) => (Some(n), twin),
            Step::Pairs(_) => (None, twin),
            Step::PairSum(n) => (Some(n), None),
        };
        loss.into_iter().chain(grad)
    }

    /// Whether a number of `n` needs numbers of `o` other than the one in its place.
    fn across(&self, n: NodeId, o: NodeId) -> bool {
        match *self.op(n) {
            Op::Affine { .. } | Op::Unary(..) | Op::Binary(..) | Op::ActivationGrad { .. } => false,
            Op::Moment { .. } | Op::AdamStep { .. } | Op::Polyak { .. } | Op::Select { .. } => false,
            Op::QuantileHuber { theta, .. } | Op::QuantileHuberGrad { theta, .. } => o != theta,
            _ => true,
        }
    }

    /// Gives every step to the first part that may hold it; pairs are a part of their own.
    fn parts(&self, map: &Map, inlined: &[NodeId]) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let mut part_of: Vec<(NodeId, usize)> = Vec::new();
        for step in self.steps(map, inlined) {
            let wide = self.is_wide(map, step);
            let alone = matches!(step, Step::Pairs(_));
            let after = |(o, across): (NodeId, bool)| {
                let found = part_of.iter().find(|(n, _)| *n == o);
                found.map_or(0, |(_, p)| match parts[*p].wide == wide && !(wide && across) && !alone {
                    true => *p,
                    false => p + 1,
                })
            };
            let from = match step {
                Step::PairSum(n) => {
                    1 + parts
                        .iter()
                        .position(|p| p.steps.contains(&Step::Pairs(n)))
                        .expect("pairs come first")
                }
                _ => self.leaves(map, inlined, step).into_iter().map(after).max().unwrap_or(0),
            };
            let open =
                |p: &usize| parts[*p].wide == wide && !alone && !matches!(parts[*p].steps[0], Step::Pairs(_));
            let part = (from..parts.len()).find(open).unwrap_or(parts.len());
            if part == parts.len() {
                parts.push(Part { wide, steps: Vec::new() });
            }
            parts[part].steps.push(step);
            part_of.extend(self.given(map, step).map(|n| (n, part)));
        }
        parts
    }

    fn find_homes(&mut self, rows: &mut Rows<'_>) {
        let map = rows.map;
        let parts = rows.parts.iter().enumerate();
        let steps = parts.flat_map(|(p, part)| part.steps.iter().map(move |s| (p, *s))).collect::<Vec<_>>();
        for (part, step) in &steps {
            if let (Step::Pairs(n), Op::QuantileHuber { theta, .. }) = (step, self.op(step.node())) {
                rows.pairs.push((*n, self.work));
                self.work += self.len(*theta);
            }
            for n in self.given(map, *step).collect::<Vec<_>>() {
                let place = self.plan.place(n).expect("what a map computes has a place");
                let slot = self.plan.slots[place.slot];
                let stride = self.row_len(map, n);
                let (wide, narrow) = (rows.parts[*part].wide, stride <= NARROW);
                let reads = |s: &Step| {
                    !matches!(s, Step::PairSum(_))
                        && self.leaves(map, &rows.inlined, *s).iter().any(|(o, _)| *o == n)
                };
                let elsewhere = steps.iter().any(|(p, s)| p != part && reads(s));
                let memory = match slot.storage {
                    Storage::Tile if elsewhere || !wide && !narrow => {
                        self.work += self.len(n);
                        Some(("work", self.work - self.len(n), stride))
                    }
                    Storage::Tile => None,
                    storage => Some((buffer(storage), self.bases[place.slot] + place.offset, stride)),
                };
                let private = wide || stride == 1 || memory.is_none();
                rows.homes.push((n, Home { private: private.then_some(*part), memory }));
            }
        }
    }

    /// Numbers that are computed before the rows, by every workgroup for itself; the first also stores them.
    fn scalars(&mut self, map: &Map) {
        map.scalars.iter().for_each(|n| self.scalar(*n));
        self.line("if (wid == 0u && lid == 0u) {");
        for n in &map.scalars {
            let to = self.whole(*n, "0u");
            self.line(format!("{to} = n{};", n.0));
        }
        self.line("}");
    }

    fn scalar(&mut self, n: NodeId) {
        let number = |w: &Self, o: NodeId| w.scalar_operand(o);
        let value = match *self.op(n) {
            Op::SumTo(x) => {
                let len = self.len(x);
                let alone = len <= ALONE;
                self.line(format!("var p{} = 0.0;", n.0));
                match alone {
                    true => self.count_to("i", len),
                    false => self.line(format!("for (var i = lid; i < {len}u; i += {}u) {{", self.threads)),
                }
                let value = self.whole(x, "i");
                self.line(format!("p{} += {value};", n.0));
                self.line("}");
                if alone { format!("p{}", n.0) } else { format!("sum_all(p{}, lid)", n.0) }
            }
            Op::Affine { x, mul, add } => affine(&number(self, x), mul, add),
            Op::Unary(op, x) => unary(op, &number(self, x)),
            Op::Binary(op, a, b) => binary(op, &number(self, a), &number(self, b)),
            Op::ActivationGrad { y, g, activation } => before(activation, &number(self, y), &number(self, g)),
            Op::Moment { m, g, beta, squared } => moment(&number(self, m), &number(self, g), beta, squared),
            Op::AdamStep { p, m, v, t, lr, beta1, beta2, epsilon } => {
                let tag = n.0.to_string();
                let scales = self.adam_scales(&tag, t, lr, beta1, beta2);
                self.line(scales);
                let [p, m, v] = [p, m, v].map(|o| number(self, o));
                format!("{p} - size{tag} * {m} / (sqrt({v}) * scale{tag} + {})", literal(epsilon as f32))
            }
            Op::Select { when, then, otherwise } => {
                chosen(&number(self, when), &number(self, then), &number(self, otherwise))
            }
            Op::Polyak { target, p, tau } => {
                polyak(&number(self, target), &number(self, p), &number(self, tau))
            }
            _ => unreachable!("no operation on single numbers"),
        };
        self.line(format!("let n{} = {value};", n.0));
        self.in_scope.push(n);
    }

    /// A number: computed by this dispatch before, or in memory.
    fn scalar_operand(&self, o: NodeId) -> String {
        let root = self.plan.root(o);
        if self.in_scope.contains(&root) { format!("n{}", root.0) } else { self.whole(o, "0u") }
    }

    /// Whether operand `o` of node `n` goes row by row, rather than as a whole.
    fn rows_like(&self, map: &Map, n: NodeId, o: NodeId) -> bool {
        let whole = match *self.op(n) {
            Op::Broadcast(x) => {
                self.shape(x).len() != self.shape(n).len() || self.shape(x)[0] != self.shape(n)[0]
            }
            Op::Rows { x, .. } => o == x,
            Op::AddRows { .. } => true,
            Op::AdamStep { t, lr, .. } => o == t || o == lr,
            Op::Polyak { tau, .. } => o == tau,
            Op::Select { when, .. } => o == when,
            _ => false,
        };
        !whole && self.len(o) >= map.rows
    }

    /// Number `index` of the row's part of a value.
    fn at(&self, rows: &Rows<'_>, n: NodeId, index: &str) -> String {
        if let Some(v) = self.plan.constant(n) {
            return literal(v as f32);
        }
        let (root, stride) = (self.plan.root(n), self.row_len(rows.map, n));
        if rows.inlined.contains(&root) {
            let value = self.value(rows, root, index);
            return if stride == 1 { self.shared(rows, value) } else { value };
        }
        let home = rows.home(root).unwrap_or_default();
        // In a wide part a thread's own number is in its variable; others were written by an earlier part.
        let own = home.private == Some(rows.part);
        if own && (rows.wide() || stride == 1) {
            return format!("v{}", root.0);
        }
        if own && home.memory.is_none() {
            return format!("v{}[{index}]", root.0);
        }
        let (name, base, stride) = home.memory.unwrap_or_else(|| {
            let place = self.plan.place(n).expect("what a map reads has a place");
            let storage = self.plan.slots[place.slot].storage;
            (buffer(storage), self.bases[place.slot] + place.offset, stride)
        });
        let value = format!("{name}[{}]", self.place_in_row(base, stride, index));
        if stride == 1 { self.shared(rows, value) } else { value }
    }

    /// In a wide part, what is the same for a whole row is computed once, before its numbers.
    fn shared(&self, rows: &Rows<'_>, value: String) -> String {
        let known = value.strip_prefix('h').is_some_and(|h| h.bytes().all(|b| b.is_ascii_digit()));
        if !rows.wide() || known {
            return value;
        }
        let mut shared = self.shared.borrow_mut();
        let known = shared.iter().position(|v| *v == value);
        let h = known.unwrap_or_else(|| {
            shared.push(value);
            shared.len() - 1
        });
        format!("h{h}")
    }

    fn place_in_row(&self, base: usize, stride: usize, index: &str) -> String {
        if stride == 1 {
            return format!("{base}u + row");
        }
        let mut starts = self.row_starts.borrow_mut();
        if !starts.contains(&stride) {
            starts.push(stride);
        }
        format!("{base}u + row{stride} + {index}")
    }

    /// Number `i` of a node that is computed number by number.
    fn value(&self, r: &Rows<'_>, n: NodeId, i: &str) -> String {
        match *self.op(n) {
            Op::Affine { x, mul, add } => affine(&self.at(r, x, i), mul, add),
            Op::Unary(op, x) => unary(op, &self.at(r, x, i)),
            Op::Binary(op, a, b) => binary(op, &self.at(r, a, i), &self.at(r, b, i)),
            Op::Broadcast(x) => self.broadcast(r, n, x, i),
            Op::Select { when, then, otherwise } => {
                let when = self.shared(r, self.scalar_operand(when));
                chosen(&when, &self.at(r, then, i), &self.at(r, otherwise, i))
            }
            Op::Concat { a, b } => {
                let last = |n: NodeId| self.shape(n)[self.shape(n).len() - 1];
                let (first, second) = (last(a), last(b));
                let (line, column) =
                    (format!("{i} / {}u", first + second), format!("{i} % {}u", first + second));
                // Both are read, so both places must be inside.
                let a = self.at(r, a, &format!("({line} * {first}u + min({column}, {}u))", first - 1));
                let b = self.at(r, b, &format!("({line} * {second}u + max({column}, {first}u) - {first}u)"));
                format!("select({b}, {a}, {column} < {first}u)")
            }
            Op::Slice { x, from } => {
                let last = |n: NodeId| self.shape(n)[self.shape(n).len() - 1];
                let (width, count) = (last(x), last(n));
                self.at(r, x, &format!("({i} / {count}u * {width}u + {i} % {count}u + {from}u)"))
            }
            Op::ActivationGrad { y, g, activation } => {
                before(activation, &self.at(r, y, i), &self.at(r, g, i))
            }
            Op::Pick { x, index } => {
                let (choices, inner) = (self.shape(x)[1], self.shape(x)[2]);
                let choice = self.shared(r, whole_number(&self.at(r, index, "0u"), choices));
                self.at(r, x, &format!("({choice} * {inner}u + {i})"))
            }
            Op::Unpick { g, index } => {
                let (choices, inner) = (self.shape(n)[1], self.shape(n)[2]);
                let choice = self.shared(r, whole_number(&self.at(r, index, "0u"), choices));
                let g = self.at(r, g, &format!("({i} % {inner}u)"));
                format!("select(0.0, {g}, {i} / {inner}u == {choice})")
            }
            Op::Rows { x, index } => {
                let (count, width) = (self.shape(x)[0], self.row_len(r.map, n));
                let from = self.shared(r, whole_number(&self.at(r, index, "0u"), count));
                self.whole(x, &format!("{from} * {width}u + {i}"))
            }
            Op::Moment { m, g, beta, squared } => moment(&self.at(r, m, i), &self.at(r, g, i), beta, squared),
            Op::Polyak { target, p, tau } => {
                polyak(&self.at(r, target, i), &self.at(r, p, i), &self.number(tau))
            }
            _ => unreachable!("not computed number by number"),
        }
    }

    /// Begins the computation of `n`'s numbers `variable`, all that this thread is for.
    fn each(&mut self, rows: &Rows<'_>, n: NodeId, variable: &str) {
        self.declare(rows, n);
        self.open(rows, self.row_len(rows.map, n), variable);
    }

    fn declare(&mut self, rows: &Rows<'_>, n: NodeId) {
        let count = self.row_len(rows.map, n);
        let home = rows.home(n).expect("every node has a home");
        match home.private.is_some() {
            true if rows.wide() || count == 1 => self.line(format!("var v{} = 0.0;", n.0)),
            true => self.line(format!("var v{}: array<f32, {count}>;", n.0)),
            false => {}
        }
    }

    /// Begins a walk over the `count` numbers of a row, or chooses the thread's own.
    fn open(&mut self, rows: &Rows<'_>, count: usize, variable: &str) {
        let own = if variable == "i" { String::new() } else { format!("\nlet {variable} = i;") };
        match (rows.wide(), count) {
            (true, c) if c == rows.width => self.line(format!("{{{own}")),
            (true, c) => self.line(format!("if (i < {c}u) {{{own}")),
            (false, 1) => self.line(format!("{{\nlet {variable} = 0u;")),
            (false, c) => self.count_to(variable, c),
        }
    }

    /// Writes number `index` of `n`.
    fn put(&mut self, rows: &Rows<'_>, n: NodeId, index: &str, value: &str) {
        let home = rows.home(n).expect("every node has a home");
        let own = match home.private {
            Some(_) if rows.wide() || self.row_len(rows.map, n) == 1 => Some(format!("v{}", n.0)),
            Some(_) => Some(format!("v{}[{index}]", n.0)),
            None => None,
        };
        if let Some(own) = &own {
            self.line(format!("{own} = {value};"));
        }
        if let Some((name, base, stride)) = home.memory {
            let value = own.as_deref().unwrap_or(value);
            let place = self.place_in_row(base, stride, index);
            self.line(format!("{name}[{place}] = {value};"));
        }
    }

    /// Writes each number i of a node in the row.
    fn fill(&mut self, rows: &Rows<'_>, n: NodeId) {
        self.each(rows, n, "i");
        let value = self.value(rows, n, "i");
        self.put(rows, n, "i", &value);
        self.line("}");
    }

    fn step(&mut self, rows: &Rows<'_>, step: Step) {
        match step {
            Step::Node(n) => self.node(rows, n),
            Step::Pairs(n) => self.quantile(rows, n),
            Step::PairSum(n) => self.pair_sum(rows, n),
        }
    }

    fn node(&mut self, r: &Rows<'_>, n: NodeId) {
        let rows = r.map.rows;
        let last = |w: &Self, x: NodeId| w.shape(x).last().copied().unwrap_or(1);
        match *self.op(n) {
            Op::SumTo(x) => self.sum(r, n, x),
            Op::MaxLast(x) | Op::ArgMaxLast(x) | Op::LogSumExp(x) => {
                self.each(r, n, "o");
                self.walk_group(r, x, last(self, x), matches!(self.op(n), Op::LogSumExp(_)));
                let value = match self.op(n) {
                    Op::MaxLast(_) => "top",
                    Op::ArgMaxLast(_) => "f32(best)",
                    _ => "(log(total) + top)",
                };
                self.put(r, n, "o", value);
                self.line("}");
            }
            Op::LogSoftmax(x) => {
                let width = last(self, x);
                self.declare(r, n);
                self.open(r, self.len(n) / rows / width, "o");
                self.walk_group(r, x, width, true);
                self.line("let all = log(total) + top;");
                self.count_to("j", width);
                let index = format!("(o * {width}u + j)");
                let from = self.at(r, x, &index);
                self.put(r, n, &index, &format!("({from} - all)"));
                self.line("}");
                self.line("}");
            }
            Op::LogSoftmaxGrad { y, g } => {
                let width = last(self, y);
                self.declare(r, n);
                self.open(r, self.len(n) / rows / width, "o");
                self.line("var total = 0.0;");
                let index = format!("(o * {width}u + j)");
                let [y, g] = [y, g].map(|v| self.at(r, v, &index));
                self.count_to("j", width);
                self.line(format!("total += {g};"));
                self.line("}");
                self.count_to("j", width);
                self.put(r, n, &index, &format!("({g} - exp({y}) * total)"));
                self.line("}");
                self.line("}");
            }
            Op::LayerNorm { x, epsilon } => {
                let width = last(self, x);
                self.declare(r, n);
                self.open(r, self.len(n) / rows / width, "o");
                self.spread(r, x, width, epsilon);
                let index = format!("(o * {width}u + j)");
                let x = self.at(r, x, &index);
                self.count_to("j", width);
                self.put(r, n, &index, &format!("(({x} - mean) * scale)"));
                self.line("}");
                self.line("}");
            }
            Op::LayerNormGrad { x, g, epsilon } => {
                let width = last(self, x);
                self.declare(r, n);
                self.open(r, self.len(n) / rows / width, "o");
                self.spread(r, x, width, epsilon);
                let index = format!("(o * {width}u + j)");
                let [x, g] = [x, g].map(|v| self.at(r, v, &index));
                self.line("var whole = 0.0;\nvar along = 0.0;");
                self.count_to("j", width);
                self.line(format!("let g = {g};\nwhole += g;\nalong += g * ({x} - mean);"));
                self.line("}");
                self.line(format!("whole /= {width}.0;\nalong *= scale * scale / {width}.0;"));
                self.count_to("j", width);
                self.put(r, n, &index, &format!("(({g} - whole - ({x} - mean) * along) * scale)"));
                self.line("}");
                self.line("}");
            }
            Op::AddRows { g, index } => {
                let (count, width) = (self.len(index), self.len(n) / rows);
                self.each(r, n, "i");
                self.line("var total = 0.0;");
                self.count_to("j", count);
                let (at, g) = (self.whole(index, "j"), self.whole(g, &format!("j * {width}u + i")));
                self.line(format!("total += select(0.0, {g}, {} == row);", whole_number(&at, rows)));
                self.line("}");
                self.put(r, n, "i", "total");
                self.line("}");
            }
            Op::QuantileHuber { .. } | Op::QuantileHuberGrad { .. } => self.quantile(r, n),
            Op::AdamStep { p, m, v, t, lr, beta1, beta2, epsilon } => {
                let tag = n.0.to_string();
                let scales = self.adam_scales(&tag, t, lr, beta1, beta2);
                self.line(scales);
                self.each(r, n, "i");
                let [p, m, v] = [p, m, v].map(|x| self.at(r, x, "i"));
                let epsilon = literal(epsilon as f32);
                let value = format!("({p} - size{tag} * {m} / (sqrt({v}) * scale{tag} + {epsilon}))");
                self.put(r, n, "i", &value);
                self.line("}");
            }
            _ => self.fill(r, n),
        }
    }

    /// Declares `mean` of group `o` of `x`, and `scale`, which brings its spread to 1.
    fn spread(&mut self, rows: &Rows<'_>, x: NodeId, width: usize, epsilon: f64) {
        let each = self.at(rows, x, &format!("(o * {width}u + j)"));
        self.line("var total = 0.0;");
        self.count_to("j", width);
        self.line(format!("total += {each};"));
        self.line("}");
        self.line(format!("let mean = total / {width}.0;\nvar squares = 0.0;"));
        self.count_to("j", width);
        self.line(format!("let d = {each} - mean;\nsquares += d * d;"));
        self.line("}");
        let epsilon = literal(epsilon as f32);
        self.line(format!("let scale = inverseSqrt(squares / {width}.0 + {epsilon});"));
    }

    /// Declares `top`, `best` and, where asked for, `total` (of e to the differences) of group `o` of `x`.
    fn walk_group(&mut self, rows: &Rows<'_>, x: NodeId, width: usize, total: bool) {
        let (first, each) =
            (self.at(rows, x, &format!("(o * {width}u)")), self.at(rows, x, &format!("(o * {width}u + j)")));
        self.line(format!("var top = {first};"));
        self.line("var best = 0u;");
        self.line(format!("for (var j = 1u; j < {width}u; j++) {{"));
        self.line(format!("let x = {each};"));
        self.line("if (x > top) { top = x; best = j; }");
        self.line("}");
        if total {
            self.line("var total = 0.0;");
            self.count_to("j", width);
            self.line(format!("total += exp({each} - top);"));
            self.line("}");
        }
    }

    fn broadcast(&self, rows: &Rows<'_>, n: NodeId, x: NodeId, i: &str) -> String {
        let (from, to) = (self.shape(x), self.shape(n));
        if from.is_empty() {
            return self.shared(rows, self.scalar_operand(x));
        }
        let inner = if from.len() == to.len() { &from[1..] } else { from };
        let index = format!("({})", broadcast_from(i, inner, &to[1..]));
        if self.rows_like(rows.map, n, x) { self.at(rows, x, &index) } else { self.whole(x, &index) }
    }

    fn sum(&mut self, rows: &Rows<'_>, n: NodeId, x: NodeId) {
        let (first, count, far) = summed_from(&self.shape(x)[1..], &self.shape(n)[1..]);
        self.each(rows, n, "o");
        self.line("var total = 0.0;");
        self.count_to("r", count);
        let value = self.at(rows, x, &format!("({first} + {far})"));
        self.line(format!("total += {value};"));
        self.line("}");
        self.put(rows, n, "o", "total");
        self.line("}");
    }

    /// The quantile Huber loss and its derivative (Dabney et al. 2018, eq. 10): every quantile with every target.
    fn quantile(&mut self, rows: &Rows<'_>, n: NodeId) {
        let op = self.op(n);
        let (Op::QuantileHuber { theta, target, kappa } | Op::QuantileHuberGrad { theta, target, kappa }) =
            *op
        else {
            unreachable!("no quantile loss")
        };
        let (loss, grad) = match op {
            Op::QuantileHuber { .. } => (Some(n), self.twin(rows.map, n)),
            _ => (None, Some(n)),
        };
        let (count, targets) = (self.row_len(rows.map, theta), self.row_len(rows.map, target));
        let pairs = loss.and_then(|l| rows.pairs.iter().find(|(m, _)| *m == l)).map(|(_, base)| *base);
        let each = if pairs.is_some() { self.each_thread(rows.map, count) } else { 1 };
        let stride = count.div_ceil(each);
        grad.into_iter().for_each(|g| self.declare(rows, g));
        let added = loss.filter(|_| pairs.is_none());
        if let Some(loss) = added {
            self.declare(rows, loss);
            self.line(format!("var p{} = 0.0;", loss.0));
        }
        match pairs {
            Some(_) => self.line(format!("{{\nlet i = at % {stride}u;")),
            None => self.open(rows, count, "i"),
        }
        for e in 0..each {
            let index =
                if each == 1 { "i".into() } else { format!("min(i + {}u, {}u)", e * stride, count - 1) };
            self.line(format!("let i{e} = {index};"));
            let theta = self.at(rows, theta, &format!("i{e}"));
            self.line(format!("let theta{e} = {theta};"));
            self.line(format!("let tau{e} = (f32(i{e}) + 0.5) / {count}.0;"));
            self.line(format!("let low{e} = 1.0 - 2.0 * tau{e};"));
            self.line(format!("var slope{e} = 0.0;\nvar loss{e} = 0.0;"));
        }
        let kappa = literal(kappa as f32);
        self.count_to("j", targets);
        let target = self.at(rows, target, "j");
        self.line(format!("let to = {target};"));
        for e in 0..each {
            self.line(format!("let d{e} = to - theta{e};"));
            self.line(format!("let near{e} = clamp(d{e}, -{kappa}, {kappa});"));
            // The weight is tau above and 1 - tau below the target.
            self.line(format!("let w{e} = tau{e} * near{e} + low{e} * min(near{e}, 0.0);"));
            self.line(format!("slope{e} += w{e};"));
            self.line(format!("loss{e} += w{e} * (d{e} - 0.5 * near{e});"));
        }
        self.line("}");
        for e in 0..each {
            if let Some(grad) = grad {
                self.put(rows, grad, &format!("i{e}"), &format!("(-slope{e} / {count}.0)"));
            }
            match (pairs, loss) {
                (Some(base), _) => self.line(format!("work[{base}u + row * {count}u + i{e}] = loss{e};")),
                (None, Some(loss)) => self.line(format!("p{} += loss{e};", loss.0)),
                (None, None) => {}
            }
        }
        self.line("}");
        if let Some(loss) = added {
            self.put(rows, loss, "0u", &format!("(p{} / {count}.0)", loss.0));
        }
    }

    /// Adds up what the quantiles' threads left.
    fn pair_sum(&mut self, rows: &Rows<'_>, n: NodeId) {
        let Op::QuantileHuber { theta, .. } = *self.op(n) else { unreachable!("only losses are of pairs") };
        let count = self.row_len(rows.map, theta);
        let (_, base) = rows.pairs.iter().find(|(m, _)| *m == n).expect("a place for the pairs");
        let from = format!("work[{base}u + row * {count}u + j]");
        self.declare(rows, n);
        self.line(format!("var p{} = 0.0;", n.0));
        self.count_to("j", count);
        self.line(format!("p{} += {from};", n.0));
        self.line("}");
        self.put(rows, n, "0u", &format!("(p{} / {count}.0)", n.0));
    }
}

/// A number as an index below `count`: replay checks what comes from outside, this keeps the rest inside.
fn whole_number(x: &str, count: usize) -> String {
    format!("min(u32({x}), {}u)", count - 1)
}

fn affine(x: &str, mul: f64, add: f64) -> String {
    match (mul, add) {
        (1.0, 0.0) => x.into(),
        (_, 0.0) => format!("({x} * {})", literal(mul as f32)),
        (1.0, _) => format!("({x} + {})", literal(add as f32)),
        _ => format!("({x} * {} + {})", literal(mul as f32), literal(add as f32)),
    }
}

fn unary(op: Unary, x: &str) -> String {
    match op {
        Unary::Exp => format!("exp({x})"),
        Unary::Log => format!("log({x})"),
        Unary::Sqrt => format!("sqrt({x})"),
        Unary::Square => format!("({x} * {x})"),
        Unary::Abs => format!("abs({x})"),
        Unary::Relu => activated(Activation::Relu, x),
        Unary::Tanh => activated(Activation::Tanh, x),
        Unary::Recip => format!("(1.0 / {x})"),
        Unary::Softplus => format!("softplus_of({x})"),
        Unary::Step => format!("select(0.0, 1.0, {x} > 0.0)"),
    }
}

fn binary(op: Binary, a: &str, b: &str) -> String {
    match op {
        Binary::Add => format!("({a} + {b})"),
        Binary::Sub => format!("({a} - {b})"),
        Binary::Mul => format!("({a} * {b})"),
        Binary::Div => format!("({a} / {b})"),
        Binary::Max => format!("larger({a}, {b})"),
        Binary::Min => format!("smaller({a}, {b})"),
    }
}

fn moment(m: &str, g: &str, beta: f64, squared: bool) -> String {
    let (keep, take) = (literal(beta as f32), literal((1.0 - beta) as f32));
    let g = if squared { format!("{g} * {g}") } else { g.into() };
    format!("({m} * {keep} + {g} * {take})")
}

fn chosen(when: &str, then: &str, otherwise: &str) -> String {
    format!("select({otherwise}, {then}, {when} > 0.0)")
}

fn polyak(target: &str, p: &str, tau: &str) -> String {
    format!("({target} + {tau} * ({p} - {target}))")
}

//! What a compiled backend runs: the program's nodes joined into few kernels, and a place for every value that outlives one.
//!
//! Four things are joined. A matrix product takes what surrounds it (bias, activation, the activation's derivative, the sums that
//! are the bias's gradient). Nodes that treat every row alone become one [`Map`] over rows, together with the single numbers
//! (losses, weights, counts of labels) they need; a value that is used only there never reaches memory. The optimiser's steps
//! over all parameters become one [`Optimise`] over one stretch of memory, the slow copy included. Views cost nothing.
//!
//! A node goes to the first kernel that may hold it, so the order of kernels is an order in which they can run. State is
//! changed only by the last kernels and the copies after them: a failure before leaves it as it was.

use crate::{Activation, Input, InputId, Node, NodeId, Op, Program, Role, simplify};
use std::collections::BinaryHeap;
use std::fmt;

/// A program ready to be run by a compiled backend.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is computed: the program given, simplified.
    pub program: Program,
    /// In the order in which they run.
    pub kernels: Vec<Kernel>,
    /// By kernel: a number `[]` from the caller. It says whether the kernel's result has a use. It need not run where the number
    /// is 0: all of its readers are [`Op::Select`]s that take something else then, or kernels with the same condition.
    pub conditions: Vec<Option<NodeId>>,
    /// Pieces of memory.
    pub slots: Vec<Slot>,
    /// Where each node's value lies; nowhere for constants and for what is joined into a kernel without being stored.
    places: Vec<Option<Place>>,
    /// Where each input lies.
    inputs: Vec<Place>,
    /// State that is copied from a node's value after the last kernel.
    pub copies: Vec<(InputId, NodeId)>,
    /// The kernel that computes each node.
    kernel_of: Vec<Option<usize>>,
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub enum Kernel {
    /// Rows, each alone.
    Map(Map),
    /// A matrix product.
    Matmul(Matmul),
    /// `Conv2d` or one of its gradients.
    Conv(NodeId),
    /// A `SumTo` across rows.
    Reduce(NodeId),
    /// The optimiser's step.
    Optimise(Optimise),
}

/// Nodes that treat every row alone.
#[derive(Clone, Debug)]
pub struct Map {
    /// How many rows.
    pub rows: usize,
    /// Single numbers, computed once before the rows, in order.
    pub scalars: Vec<NodeId>,
    /// What is computed of each row, in order. A row of a node is an equal share of its elements.
    pub body: Vec<NodeId>,
}

/// `out = epilogue(a b)`, `[m, n]`; or `count` such products, every value but a side that serves all with an axis of them in front.
#[derive(Clone, Debug)]
pub struct Matmul {
    /// How many products.
    pub count: usize,
    /// Left side, `[m, k]`, stored `[k, m]` where `ta` says so.
    pub a: NodeId,
    /// Right side, `[k, n]`, stored `[n, k]` where `tb` says so.
    pub b: NodeId,
    /// Whether one `a` serves all products.
    pub one_a: bool,
    /// Whether one `b` serves all products.
    pub one_b: bool,
    /// Whether `a` is read transposed.
    pub ta: bool,
    /// Whether `b` is read transposed.
    pub tb: bool,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// Added to each row, `[n]`.
    pub bias: Option<NodeId>,
    /// What follows.
    pub activation: Activation,
    /// Multiplies by the derivative of this activation, whose output is the node's value, `[m, n]`.
    pub derivative: Option<(Activation, NodeId)>,
    /// Where the sums of `a`'s stored rows go, `[m]`; only where `a` is read transposed.
    pub sums: Option<NodeId>,
    /// The result.
    pub out: NodeId,
}

/// Adam's step (Kingma and Ba 2015, algorithm 1) of many parameters at once, in place. Parameters, moments, gradients and
/// slow copies lie in one slot each, in one order, so that the same index means the same parameter.
#[derive(Clone, Debug)]
pub struct Optimise {
    /// Slot of the parameters.
    pub p: usize,
    /// Slot of the first moments.
    pub m: usize,
    /// Slot of the second moments.
    pub v: usize,
    /// Slot of the gradients.
    pub g: usize,
    /// Parameters and moments stay as they are where this number of the caller's is 0.
    pub due: Option<NodeId>,
    /// The slow copies.
    pub target: Option<Slow>,
    /// Steps with this one.
    pub t: NodeId,
    /// Learning rate.
    pub lr: NodeId,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Keeps the division finite.
    pub epsilon: f64,
}

/// Slow copies that follow the parameters of an [`Optimise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// Their slot.
    pub slot: usize,
    /// The share of the parameters they take over.
    pub tau: NodeId,
    /// They stay as they are where this number of the caller's is 0.
    pub due: Option<NodeId>,
}

/// Who uses a slot, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Kept between runs.
    State,
    /// Written by the caller before a run.
    Data,
    /// Between kernels.
    Work,
    /// Within one [`Map`]: `len` numbers for each row.
    Tile,
}

/// A piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Who uses it.
    pub storage: Storage,
    /// Numbers in it; in a tile, numbers for each row.
    pub len: usize,
}

/// Where a value begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which slot.
    pub slot: usize,
    /// Numbers before it.
    pub offset: usize,
}

/// What a kernel costs, by its shapes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating point operations; a transcendental function counts as one.
    pub flop: usize,
    /// Bytes that it reads and writes outside of itself.
    pub bytes: usize,
}

/// The slot of all single numbers.
pub const SCALARS: usize = 0;
/// Parameters start at multiples of this many numbers.
const ALIGNMENT: usize = 4;
/// A sum of more numbers than this is a kernel of its own.
const SMALL_SUM: usize = 4096;

impl Plan {
    /// Plans `program`.
    pub fn new(program: &Program) -> Self {
        let program = with_copies(simplify(program));
        let mut planner = Planner::new(&program);
        planner.claim_optimiser();
        planner.join_matmuls();
        planner.place_nodes();
        planner.sink();
        planner.order();
        planner.finish_optimiser();
        let conditions = planner.conditions();
        let Planner { kernels, kernel_of, optimised, .. } = planner;
        Layout::new(&program, &kernels, &kernel_of, &optimised).plan(kernels, conditions, kernel_of)
    }

    /// The operation and shape of a node.
    pub fn node(&self, n: NodeId) -> &Node {
        &self.program.nodes[n.0]
    }

    /// How many numbers a node has.
    pub fn len(&self, n: NodeId) -> usize {
        self.node(n).shape.iter().product()
    }

    /// Where a node's value lies; nowhere for a constant.
    pub fn place(&self, n: NodeId) -> Option<Place> {
        self.places[n.0]
    }

    /// Where an input lies.
    pub fn input(&self, input: InputId) -> Place {
        self.inputs[input.0]
    }

    /// The value of a constant.
    pub fn constant(&self, n: NodeId) -> Option<f64> {
        match self.node(n).op {
            Op::Constant(v) => Some(v),
            _ => None,
        }
    }

    /// Numbers in all slots of a kind.
    pub fn total(&self, storage: Storage) -> usize {
        self.slots.iter().filter(|s| s.storage == storage).map(|s| s.len).sum()
    }

    /// What kernel `k` costs.
    pub fn cost(&self, k: usize) -> Cost {
        let bytes = 4 * (self.reads(k).iter().chain(&self.writes(k)).map(|n| self.len(*n)).sum::<usize>());
        let flop = match &self.kernels[k] {
            Kernel::Matmul(p) => 2 * p.count * p.m * p.n * p.k,
            Kernel::Map(map) => map.scalars.iter().chain(&map.body).map(|n| self.flop(*n)).sum(),
            Kernel::Conv(n) | Kernel::Reduce(n) => self.flop(*n),
            Kernel::Optimise(o) => {
                let len = self.slots[o.p].len;
                let arrays = if o.target.is_some() { 9 } else { 7 };
                return Cost { flop: 14 * len, bytes: 4 * arrays * len };
            }
        };
        Cost { flop, bytes }
    }

    /// Floating point operations of one node, by its shapes.
    fn flop(&self, n: NodeId) -> usize {
        let len = |n: NodeId| self.len(n);
        let kernel = |w: NodeId| self.node(w).shape[1..].iter().product::<usize>();
        match self.node(n).op {
            Op::SumTo(x) | Op::MaxLast(x) | Op::ArgMaxLast(x) => len(x),
            Op::LogSumExp(x) => 3 * len(x),
            Op::LogSoftmax(_) | Op::LogSoftmaxGrad { .. } => 4 * len(n),
            Op::LayerNorm { .. } => 6 * len(n),
            Op::LayerNormGrad { .. } => 12 * len(n),
            Op::Affine { .. } => 2 * len(n),
            Op::QuantileHuber { theta, target, .. } | Op::QuantileHuberGrad { theta, target, .. } => {
                let rows = self.node(theta).shape[0];
                6 * len(theta) * len(target) / rows.max(1)
            }
            Op::Conv2d { weight, .. } => 2 * len(n) * kernel(weight),
            Op::Conv2dGradInput { g, weight, .. } => 2 * len(g) * kernel(weight),
            Op::Conv2dGradWeight { g, .. } => 2 * len(g) * kernel(n),
            _ => len(n),
        }
    }

    /// The values kernel `k` takes from memory: computed elsewhere or given.
    pub fn reads(&self, k: usize) -> Vec<NodeId> {
        let mut reads = Vec::new();
        for n in self.members(k) {
            for o in self.node(n).op.operands() {
                let elsewhere = self.kernel_of[self.root(o).0] != Some(k);
                if elsewhere && self.constant(self.root(o)).is_none() && !reads.contains(&self.root(o)) {
                    reads.push(self.root(o));
                }
            }
        }
        reads
    }

    /// The values kernel `k` leaves in memory.
    pub fn writes(&self, k: usize) -> Vec<NodeId> {
        let stored = |n: &NodeId| {
            self.place(*n).is_some_and(|p| self.slots[p.slot].storage != Storage::Tile)
                && !matches!(self.kernels[k], Kernel::Optimise(_))
        };
        self.members(k).into_iter().filter(stored).collect()
    }

    /// The nodes that kernel `k` computes.
    pub fn members(&self, k: usize) -> Vec<NodeId> {
        let mine = |n: &usize| self.kernel_of[*n] == Some(k);
        (0..self.program.nodes.len()).filter(mine).map(NodeId).collect()
    }

    /// The kernel that computes a node; none for inputs, constants and views.
    pub fn kernel_of(&self, n: NodeId) -> Option<usize> {
        self.kernel_of[n.0]
    }

    /// The node whose memory a view looks at.
    pub fn root(&self, n: NodeId) -> NodeId {
        view(&self.program.nodes, n).root
    }
}

/// One line a kernel, with its cost.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (k, kernel) in self.kernels.iter().enumerate() {
            let Cost { flop, bytes } = self.cost(k);
            write!(f, "{k:>3} {flop:>9} FLOP {bytes:>9} B  ")?;
            match kernel {
                Kernel::Matmul(p) => {
                    let mark = |t| if t { "'" } else { "" };
                    write!(f, "matmul %{}{} %{}{}", p.a.0, mark(p.ta), p.b.0, mark(p.tb))?;
                    if p.count > 1 {
                        write!(f, " {} of", p.count)?;
                    }
                    write!(f, " [{}x{}x{}]", p.m, p.k, p.n)?;
                    p.bias.map_or(Ok(()), |b| write!(f, " + %{}", b.0))?;
                    if p.activation != Activation::Identity {
                        write!(f, " {:?}", p.activation)?;
                    }
                    p.derivative.map_or(Ok(()), |(a, y)| write!(f, " * {a:?}'(%{})", y.0))?;
                    write!(f, " -> %{}", p.out.0)?;
                    p.sums.map_or(Ok(()), |s| write!(f, ", sums -> %{}", s.0))?;
                }
                Kernel::Map(map) => {
                    write!(f, "map {} rows:", map.rows)?;
                    self.list(f, &map.scalars)?;
                    if !map.scalars.is_empty() && !map.body.is_empty() {
                        write!(f, " |")?;
                    }
                    self.list(f, &map.body)?;
                }
                Kernel::Conv(n) => {
                    write!(f, "conv")?;
                    self.list(f, &[*n])?;
                }
                Kernel::Reduce(n) => {
                    write!(f, "reduce")?;
                    self.list(f, &[*n])?;
                }
                Kernel::Optimise(o) => {
                    let slow = if o.target.is_some() { " and the slow copy" } else { "" };
                    write!(f, "adam over {} numbers{slow}", self.slots[o.p].len)?;
                }
            }
            if let Some(condition) = self.conditions[k] {
                write!(f, " where %{}", condition.0)?;
            }
            writeln!(f)?;
        }
        let kinds = [Storage::State, Storage::Data, Storage::Work];
        let [state, data, work] = kinds.map(|s| 4 * self.total(s));
        writeln!(f, "memory: state {state} B, data {data} B, work {work} B")
    }
}

impl Plan {
    /// Nodes and their operations' names; an `=` where the value is stored.
    fn list(&self, f: &mut fmt::Formatter<'_>, nodes: &[NodeId]) -> fmt::Result {
        for n in nodes {
            let name = format!("{:?}", self.node(*n).op);
            let inner = |s: &str| s.split([' ', '(', ',']).next().unwrap_or_default().to_string();
            let name = match name.split_once('(') {
                Some(("Unary" | "Binary", rest)) => inner(rest),
                _ => inner(&name),
            };
            let stored = self.place(*n).is_some_and(|p| self.slots[p.slot].storage != Storage::Tile);
            write!(f, " %{}{}{}", n.0, if stored { "=" } else { ":" }, name)?;
        }
        Ok(())
    }
}

/// What a node shows of another node's memory.
#[derive(Clone, Copy)]
struct View {
    root: NodeId,
    offset: usize,
    /// A part only.
    slice: bool,
}

/// Follows reshapes, and a single row chosen by a constant, to the node that owns the memory.
fn view(nodes: &[Node], n: NodeId) -> View {
    let node = &nodes[n.0];
    match node.op {
        Op::Reshape(x) | Op::StopGradient(x) => view(nodes, x),
        Op::Rows { x, index } => match nodes[index.0].op {
            Op::Constant(i) if nodes[index.0].shape == [1] && i >= 0.0 && i.fract() == 0.0 => {
                let (width, inner) = (node.shape.iter().product::<usize>(), view(nodes, x));
                let inside = (i as usize) < nodes[x.0].shape[0];
                match inside {
                    true => View { offset: inner.offset + i as usize * width, slice: true, ..inner },
                    false => View { root: n, offset: 0, slice: false },
                }
            }
            _ => View { root: n, offset: 0, slice: false },
        },
        _ => View { root: n, offset: 0, slice: false },
    }
}

/// New state and outputs that are merely an input's or a constant's value get a node of their own: state is changed in place,
/// and what was there before must be safe.
fn with_copies(mut program: Program) -> Program {
    let mut copied: Vec<(NodeId, NodeId)> = Vec::new();
    let kept = program.updates.iter_mut().map(|(_, n)| n).chain(program.outputs.iter_mut().map(|(_, n)| n));
    for n in kept {
        let root = view(&program.nodes, *n).root;
        if !matches!(program.nodes[root.0].op, Op::Input(_) | Op::Constant(_)) {
            continue;
        }
        let known = copied.iter().find(|(from, _)| from == n).map(|(_, to)| *to);
        *n = known.unwrap_or_else(|| {
            let shape = program.nodes[n.0].shape.clone();
            program.nodes.push(Node { op: Op::Affine { x: *n, mul: 1.0, add: 0.0 }, shape });
            let copy = NodeId(program.nodes.len() - 1);
            copied.push((*n, copy));
            copy
        });
    }
    program
}

/// Parameters that one [`Optimise`] steps.
struct Group {
    kernel: Optimise,
    members: Vec<Member>,
}

/// One parameter's inputs and its gradient.
#[derive(Clone, Copy)]
struct Member {
    p: InputId,
    m: InputId,
    v: InputId,
    g: NodeId,
    target: Option<InputId>,
}

/// A new value of a state, and the number that decides whether it is taken over.
struct New {
    node: usize,
    due: Option<NodeId>,
}

/// A slow copy and how it follows.
struct SlowCopy {
    input: InputId,
    tau: NodeId,
    due: Option<NodeId>,
}

/// When a value is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Never,
    /// Where this number of the caller's is above 0.
    When(NodeId),
    Always,
}

impl Wanted {
    fn or(self, other: Wanted) -> Wanted {
        match (self, other) {
            (Wanted::Never, w) | (w, Wanted::Never) => w,
            (a, b) if a == b => a,
            _ => Wanted::Always,
        }
    }
}

/// Whether node `n` is a single number that the caller gives for every run.
fn is_given(program: &Program, n: NodeId) -> bool {
    let Op::Input(i) = program.nodes[n.0].op else { return false };
    program.inputs[i].role == Role::Data && program.nodes[n.0].shape.is_empty()
}

/// When each node's value is wanted: what is only ever chosen under a condition need not be computed without it. Single numbers
/// made of single numbers cost nothing and are always there.
fn wanted(program: &Program) -> Vec<Wanted> {
    let mut wanted = vec![Wanted::Never; program.nodes.len()];
    let kept = program.updates.iter().map(|u| u.1).chain(program.outputs.iter().map(|o| o.1));
    kept.for_each(|n| wanted[n.0] = Wanted::Always);
    for (i, node) in program.nodes.iter().enumerate().rev() {
        let own = wanted[i];
        for o in node.op.operands() {
            let here = match node.op {
                Op::Select { when, then, otherwise }
                    if o == then && o != otherwise && is_given(program, when) =>
                {
                    Wanted::When(when)
                }
                _ => own,
            };
            wanted[o.0] = wanted[o.0].or(here);
        }
    }
    for (i, node) in program.nodes.iter().enumerate() {
        let cheap = |o: NodeId| program.nodes[o.0].shape.is_empty() && wanted[o.0] == Wanted::Always;
        let given = matches!(node.op, Op::Input(_) | Op::Constant(_));
        if given || node.shape.is_empty() && node.op.operands().all(cheap) {
            wanted[i] = Wanted::Always;
        }
    }
    wanted
}

/// Decides which kernel computes what.
struct Planner<'p> {
    program: &'p Program,
    views: Vec<View>,
    users: Vec<Vec<usize>>,
    /// By node that owns memory: who reads it, and through which view.
    readers: Vec<Vec<(usize, NodeId)>>,
    kernels: Vec<Kernel>,
    /// By node: the kernel that computes it. Only views' roots have one.
    kernel_of: Vec<Option<usize>>,
    /// By node: it is joined to the matrix product of this node.
    joined: Vec<Option<usize>>,
    /// By node: when its value is wanted.
    wanted: Vec<Wanted>,
    /// Nodes that belong to the optimiser.
    claimed: Vec<bool>,
    optimised: Vec<Group>,
}

impl<'p> Planner<'p> {
    fn new(program: &'p Program) -> Self {
        let count = program.nodes.len();
        let views = (0..count).map(|i| view(&program.nodes, NodeId(i))).collect::<Vec<_>>();
        let (mut users, mut readers) = (vec![Vec::new(); count], vec![Vec::new(); count]);
        for (i, node) in program.nodes.iter().enumerate() {
            for o in node.op.operands() {
                users[o.0].push(i);
                if views[i].root.0 == i {
                    readers[views[o.0].root.0].push((i, o));
                }
            }
        }
        Self {
            program,
            views,
            users,
            readers,
            kernels: Vec::new(),
            kernel_of: vec![None; count],
            joined: vec![None; count],
            wanted: wanted(program),
            claimed: vec![false; count],
            optimised: Vec::new(),
        }
    }

    fn op(&self, n: usize) -> &'p Op {
        &self.program.nodes[n].op
    }

    fn shape(&self, n: usize) -> &'p [usize] {
        &self.program.nodes[n].shape
    }

    fn is_output(&self, n: usize) -> bool {
        self.program.outputs.iter().any(|(_, o)| o.0 == n)
    }

    /// The input that node `n` is, if nothing but this optimiser's nodes follow from its update's value.
    fn state(&self, n: NodeId) -> Option<InputId> {
        match *self.op(n.0) {
            Op::Input(i) if self.program.inputs[i].role == Role::State => Some(InputId(i)),
            _ => None,
        }
    }

    /// The input whose update is node `n`, if it is the only one.
    fn updated(&self, n: usize) -> Option<InputId> {
        let mut of = self.program.updates.iter().filter(|(_, u)| u.0 == n);
        let first = of.next()?.0;
        of.next().is_none().then_some(first)
    }

    /// Finds parameters whose moments, step and slow copy are computed for their updates only.
    fn claim_optimiser(&mut self) {
        for step in 0..self.program.nodes.len() {
            let Some((member, kernel, nodes)) = self.adam(step) else { continue };
            if self.optimised.iter().flat_map(|g| &g.members).any(|m| m.g == member.g) {
                continue;
            }
            nodes.into_iter().for_each(|n| self.claimed[n] = true);
            match self.optimised.iter_mut().find(|g| same_step(&g.kernel, &kernel)) {
                Some(group) => group.members.push(member),
                None => self.optimised.push(Group { kernel, members: vec![member] }),
            }
        }
    }

    /// The parameter that node `step` improves, the kernel that it fits, and the nodes that this kernel replaces.
    fn adam(&self, step: usize) -> Option<(Member, Optimise, Vec<usize>)> {
        let Op::AdamStep { p, m, v, t, lr, beta1, beta2, epsilon } = *self.op(step) else { return None };
        let (
            Op::Moment { m: old_m, g, beta: b1, squared: false },
            Op::Moment { m: old_v, g: g2, beta: b2, squared: true },
        ) = (self.op(m.0), self.op(v.0))
        else {
            return None;
        };
        let (new_p, new_m, new_v) =
            (self.replaced_by(step, p), self.replaced_by(m.0, *old_m), self.replaced_by(v.0, *old_v));
        let (param, first, second) = (self.state(p)?, self.state(*old_m)?, self.state(*old_v)?);
        let own = self.updated(new_p.node) == Some(param)
            && self.updated(new_m.node) == Some(first)
            && self.updated(new_v.node) == Some(second)
            && (new_p.due, new_p.due) == (new_m.due, new_v.due)
            && (beta1, beta2) == (*b1, *b2);
        let slow = self.users[new_p.node].iter().find_map(|u| self.slow(*u, new_p.node));
        let mut nodes = vec![step, m.0, v.0];
        nodes.extend([&new_p, &new_m, &new_v].into_iter().filter(|n| n.due.is_some()).map(|n| n.node));
        nodes.extend(slow.iter().flat_map(|(_, nodes)| nodes));
        // Every reader of what is replaced is replaced, too.
        let inside = |n: &usize| self.users[*n].iter().all(|u| nodes.contains(u));
        let alone = nodes.iter().all(|n| inside(n) && !self.is_output(*n));
        // A gradient gets its place in the optimiser's memory, so it must be computed, and read by nobody else.
        let View { root: owner, slice, .. } = self.views[g.0];
        let computed = !slice && !matches!(self.op(owner.0), Op::Input(_) | Op::Constant(_));
        let computed = computed && self.readers[owner.0].iter().all(|(r, _)| *r == m.0 || *r == v.0);
        if !own || !alone || g != g2 || !computed {
            return None;
        }
        let target = slow.as_ref().map(|(slow, _)| slow.input);
        let member = Member { p: param, m: first, v: second, g: owner, target };
        let target = slow.map(|(slow, _)| Slow { slot: 0, tau: slow.tau, due: slow.due });
        let due = new_p.due;
        Some((member, Optimise { p: 0, m: 0, v: 0, g: 0, due, target, t, lr, beta1, beta2, epsilon }, nodes))
    }

    /// What becomes of `old` where node `n` is computed for it: `n`, or a choice between both.
    fn replaced_by(&self, n: usize, old: NodeId) -> New {
        let chosen = self.users[n].iter().find_map(|u| match *self.op(*u) {
            Op::Select { when, then, otherwise } if then.0 == n && otherwise == old => {
                is_given(self.program, when).then_some(New { node: *u, due: Some(when) })
            }
            _ => None,
        });
        chosen.unwrap_or(New { node: n, due: None })
    }

    /// The slow copy that node `n` moves towards the new value `p` of its parameter, and the nodes that this takes.
    fn slow(&self, n: usize, p: usize) -> Option<(SlowCopy, Vec<usize>)> {
        let Op::Polyak { target, p: towards, tau } = *self.op(n) else { return None };
        let new = self.replaced_by(n, target);
        let input = self.state(target).filter(|i| self.updated(new.node) == Some(*i))?;
        let nodes = if new.due.is_some() { vec![n, new.node] } else { vec![n] };
        (towards.0 == p).then_some((SlowCopy { input, tau, due: new.due }, nodes))
    }

    /// Finds what a matrix product can do on the way.
    fn join_matmuls(&mut self) {
        for n in 0..self.program.nodes.len() {
            let Op::MatMul { a, ta, .. } = *self.op(n) else { continue };
            if let [user] = self.users[n][..]
                && let Op::ActivationGrad { g, .. } = *self.op(user)
                && g.0 == n
                && !self.is_output(n)
                && self.program.updates.iter().all(|(_, u)| u.0 != n)
            {
                self.joined[n] = Some(user);
            }
            let several = self.shape(n).len() == 3;
            if ta && several == (self.shape(a.0).len() == 3) {
                let summed = match *self.shape(a.0) {
                    [count, _, columns] => vec![count, 1, columns],
                    [_, columns] => vec![columns],
                    _ => unreachable!("a matrix or several"),
                };
                let sums = self.users[a.0].iter().copied().find(|u| {
                    matches!(self.op(*u), Op::SumTo(_))
                        && self.shape(*u) == summed
                        && self.joined[*u].is_none()
                        && self.wanted[*u] == self.wanted[n]
                });
                sums.into_iter().for_each(|s| self.joined[s] = Some(n));
            }
        }
    }

    fn place_nodes(&mut self) {
        for n in 0..self.program.nodes.len() {
            let views_another = self.views[n].root.0 != n;
            if views_another || self.claimed[n] || matches!(self.op(n), Op::Input(_) | Op::Constant(_)) {
                continue;
            }
            match *self.op(n) {
                Op::MatMul { .. } if self.joined[n].is_some() => {}
                Op::SumTo(_) if self.joined[n].is_some() => {
                    // Joined to a product that came before it: they share an operand.
                    let product = self.joined[n].expect("just seen");
                    let out = self.joined[product].unwrap_or(product);
                    match self.kernel_of[out] {
                        Some(k) => self.take_sums(n, k),
                        None => self.push(n, Kernel::Reduce(NodeId(n))),
                    }
                }
                Op::MatMul { .. } | Op::Linear { .. } => self.matmul(n, n),
                Op::ActivationGrad { g, .. } if self.joined[g.0] == Some(n) => self.matmul(g.0, n),
                Op::Conv2d { .. } | Op::Conv2dGradInput { .. } | Op::Conv2dGradWeight { .. } => {
                    self.push(n, Kernel::Conv(NodeId(n)));
                }
                Op::SumTo(x) if self.crosses_rows(n, x.0) => {
                    let small = self.shape(x.0).iter().product::<usize>() <= SMALL_SUM;
                    if self.shape(n).is_empty() && small {
                        self.scalar(n);
                    } else {
                        self.push(n, Kernel::Reduce(NodeId(n)));
                    }
                }
                _ if self.shape(n).is_empty() => self.scalar(n),
                _ => self.row(n),
            }
        }
    }

    fn push(&mut self, n: usize, kernel: Kernel) {
        self.kernel_of[n] = Some(self.kernels.len());
        self.kernels.push(kernel);
    }

    fn take_sums(&mut self, n: usize, k: usize) {
        let Kernel::Matmul(product) = &mut self.kernels[k] else {
            unreachable!("sums are joined to products")
        };
        product.sums = Some(NodeId(n));
        self.kernel_of[n] = Some(k);
    }

    /// The product of node `n`, whose result is node `out`.
    fn matmul(&mut self, n: usize, out: usize) {
        let (a, b, ta, tb, bias, activation) = match *self.op(n) {
            Op::MatMul { a, b, ta, tb } => (a, b, ta, tb, None, Activation::Identity),
            Op::Linear { x, weight, bias, activation } => (x, weight, false, true, Some(bias), activation),
            _ => unreachable!("a product"),
        };
        let derivative = match *self.op(out) {
            Op::ActivationGrad { y, activation, .. } => Some((activation, y)),
            _ => None,
        };
        let (left, right, shape) = (self.shape(a.0), self.shape(b.0), self.shape(out));
        let (count, [m, n]) = match *shape {
            [count, m, n] => (count, [m, n]),
            [m, n] => (1, [m, n]),
            _ => unreachable!("a matrix or several"),
        };
        let k = left[left.len() - 1 - usize::from(ta)];
        let (one_a, one_b) = (left.len() == 2, right.len() == 2);
        let out = NodeId(out);
        let (sums, kernel) = (None, out.0);
        let product =
            Matmul { count, a, b, one_a, one_b, ta, tb, m, n, k, bias, activation, derivative, sums, out };
        self.push(kernel, Kernel::Matmul(product));
    }

    /// Whether a sum needs more than one row at a time.
    fn crosses_rows(&self, n: usize, x: usize) -> bool {
        let (from, to) = (self.shape(x), self.shape(n));
        to.is_empty() || from.len() != to.len() || from[0] != to[0]
    }

    /// How many rows a node is made of.
    fn rows(&self, n: usize) -> usize {
        let shape = self.shape(n);
        match self.op(n) {
            Op::LogSoftmax(_) | Op::LogSoftmaxGrad { .. } if shape.len() == 1 => 1,
            Op::LayerNorm { .. } | Op::LayerNormGrad { .. } if shape.len() == 1 => 1,
            _ => shape[0],
        }
    }

    /// Whether row r of node `n` needs only row r of its operand `o`.
    fn same_row(&self, n: usize, o: usize) -> bool {
        let (to, from) = (self.shape(n), self.shape(o));
        match *self.op(n) {
            Op::Broadcast(_) | Op::SumTo(_) => from.len() == to.len() && from[0] == to[0],
            Op::MaxLast(_) | Op::ArgMaxLast(_) | Op::LogSumExp(_) => from.len() > 1,
            Op::Rows { index, .. } => index.0 == o,
            Op::AddRows { .. } => false,
            Op::Select { when, .. } => when.0 != o,
            _ => true,
        }
    }

    /// The first kernel that may hold node `n`, a map over `rows` (`None` for a single number).
    fn earliest(&self, n: usize, rows: Option<usize>) -> usize {
        let after = |o: NodeId| {
            let View { root, slice, .. } = self.views[o.0];
            let Some(k) = self.kernel_of[root.0] else { return 0 };
            let Kernel::Map(map) = &self.kernels[k] else { return k + 1 };
            let beside = match self.shape(root.0).is_empty() {
                true => true,
                false => rows == Some(map.rows) && !slice && self.same_row(n, o.0),
            };
            if beside { k } else { k + 1 }
        };
        self.op(n).operands().map(after).max().unwrap_or(0)
    }

    /// When a map's values are wanted.
    fn wants(&self, k: usize) -> Wanted {
        let Kernel::Map(map) = &self.kernels[k] else { return Wanted::Always };
        let members = map.scalars.iter().chain(&map.body);
        members.map(|n| self.wanted[n.0]).fold(Wanted::Never, Wanted::or)
    }

    fn scalar(&mut self, n: usize) {
        let from = self.earliest(n, None);
        let fits = |k: &usize| matches!(self.kernels[*k], Kernel::Map(_)) && self.wants(*k) == self.wanted[n];
        let k = (from..self.kernels.len()).find(fits);
        match k {
            Some(k) => {
                let Kernel::Map(map) = &mut self.kernels[k] else { unreachable!("just seen") };
                map.scalars.push(NodeId(n));
                self.kernel_of[n] = Some(k);
            }
            None => self.push(n, Kernel::Map(Map { rows: 0, scalars: vec![NodeId(n)], body: vec![] })),
        }
    }

    fn row(&mut self, n: usize) {
        let rows = self.rows(n);
        let from = self.earliest(n, Some(rows));
        let open =
            |k: &usize| matches!(&self.kernels[*k], Kernel::Map(m) if m.rows == rows || m.body.is_empty());
        let fits = |k: &usize| open(k) && self.wants(*k) == self.wanted[n];
        let k = (from..self.kernels.len()).find(fits);
        match k {
            Some(k) => {
                let Kernel::Map(map) = &mut self.kernels[k] else { unreachable!("just seen") };
                map.rows = rows;
                map.body.push(NodeId(n));
                self.kernel_of[n] = Some(k);
            }
            None => self.push(n, Kernel::Map(Map { rows, scalars: vec![], body: vec![NodeId(n)] })),
        }
    }

    /// Moves what only later kernels use into the first of them: what is never stored is never read.
    fn sink(&mut self) {
        for n in (0..self.program.nodes.len()).rev() {
            let Some(k) = self.kernel_of[n] else { continue };
            // A quantile gradient stays beside its loss.
            let beside = matches!(self.op(n), Op::QuantileHuberGrad { .. });
            let kept = beside || self.is_output(n) || self.updated(n).is_some();
            let Kernel::Map(map) = &self.kernels[k] else { continue };
            if kept || !map.body.contains(&NodeId(n)) {
                continue;
            }
            let kernel = |r: usize| self.kernel_of[r].or(self.joined[r].and_then(|j| self.kernel_of[j]));
            let Some(to) = self.readers[n].iter().filter_map(|(r, _)| kernel(*r)).min().filter(|to| *to > k)
            else {
                continue;
            };
            let Kernel::Map(next) = &self.kernels[to] else { continue };
            let there = self.readers[n].iter().filter(|(r, _)| self.kernel_of[*r] == Some(to));
            let same_row = |(r, o): &(usize, NodeId)| {
                next.body.contains(&NodeId(*r)) && !self.views[o.0].slice && self.same_row(*r, o.0)
            };
            let same = self.wants(k) == self.wants(to);
            if next.rows != map.rows || !same || !there.clone().all(same_row) {
                continue;
            }
            if let Kernel::Map(map) = &mut self.kernels[k] {
                map.body.retain(|m| m.0 != n);
            }
            if let Kernel::Map(next) = &mut self.kernels[to] {
                next.body.push(NodeId(n));
            }
            self.kernel_of[n] = Some(to);
        }
    }

    /// Within a kernel the program's order, but a quantile Huber loss and its gradient side by side: they are computed together.
    fn order(&mut self) {
        let program = self.program;
        let beside = |n: &NodeId| match program.nodes[n.0].op {
            Op::QuantileHuberGrad { theta, target, kappa } => {
                let value = Op::QuantileHuber { theta, target, kappa };
                program
                    .nodes
                    .iter()
                    .position(|m| m.op == value)
                    .filter(|v| self.kernel_of[*v] == self.kernel_of[n.0])
            }
            _ => None,
        };
        for kernel in &mut self.kernels {
            if let Kernel::Map(map) = kernel {
                let keys = map.body.iter().map(|n| (beside(n).unwrap_or(n.0), n.0));
                map.body = ascending(keys.collect()).map(|(_, n)| NodeId(n)).collect();
            }
        }
    }

    /// By kernel: the number of the caller's without which it need not run.
    fn conditions(&self) -> Vec<Option<NodeId>> {
        let mut wanted = vec![Wanted::Never; self.kernels.len()];
        for (n, k) in self.kernel_of.iter().enumerate() {
            if let Some(k) = k {
                wanted[*k] = wanted[*k].or(self.wanted[n]);
            }
        }
        let of = |(kernel, wanted): (&Kernel, Wanted)| match (kernel, wanted) {
            // It decides by itself.
            (Kernel::Optimise(_), _) => None,
            (_, Wanted::When(n)) => Some(n),
            _ => None,
        };
        self.kernels.iter().zip(wanted).map(of).collect()
    }

    fn finish_optimiser(&mut self) {
        for group in &self.optimised {
            for (i, claimed) in self.claimed.iter().enumerate() {
                let mine = |m: &Member| self.belongs(i, m);
                if *claimed && group.members.iter().any(mine) {
                    self.kernel_of[i] = Some(self.kernels.len());
                }
            }
            self.kernels.push(Kernel::Optimise(group.kernel.clone()));
        }
    }

    /// Whether the claimed node `i` updates this parameter, or is what such a node may choose.
    fn belongs(&self, i: usize, member: &Member) -> bool {
        let updates = |input: InputId| self.program.updates.contains(&(input, NodeId(i)));
        let own =
            updates(member.p) || updates(member.m) || updates(member.v) || member.target.is_some_and(updates);
        own || self.users[i].iter().any(|u| {
            let chosen = matches!(*self.op(*u), Op::Select { then, .. } if then.0 == i);
            chosen && self.claimed[*u] && self.belongs(*u, member)
        })
    }
}

fn same_step(a: &Optimise, b: &Optimise) -> bool {
    (a.t, a.lr, a.due, a.target) == (b.t, b.lr, b.due, b.target)
        && (a.beta1, a.beta2, a.epsilon) == (b.beta1, b.beta2, b.epsilon)
}

/// Gives every value its place.
struct Layout<'p> {
    program: &'p Program,
    slots: Vec<Slot>,
    places: Vec<Option<Place>>,
    inputs: Vec<Option<Place>>,
    /// By node: the kernels that read it, views' readers included.
    last_use: Vec<Option<usize>>,
    used_elsewhere: Vec<bool>,
    groups: Vec<Optimise>,
}

impl<'p> Layout<'p> {
    fn new(
        program: &'p Program,
        kernels: &[Kernel],
        kernel_of: &[Option<usize>],
        optimised: &[Group],
    ) -> Self {
        let count = program.nodes.len();
        let mut layout = Self {
            program,
            slots: vec![Slot { storage: Storage::Work, len: 0 }],
            places: vec![None; count],
            inputs: vec![None; program.inputs.len()],
            last_use: vec![None; count],
            used_elsewhere: vec![false; count],
            groups: Vec::new(),
        };
        optimised.iter().for_each(|g| layout.group(g));
        layout.inputs();
        layout.uses(kernel_of);
        layout.work(kernels, kernel_of);
        layout.tiles(kernels);
        layout.views();
        layout
    }

    fn len(&self, n: usize) -> usize {
        self.program.nodes[n].shape.iter().product()
    }

    fn slot(&mut self, storage: Storage, len: usize) -> usize {
        self.slots.push(Slot { storage, len });
        self.slots.len() - 1
    }

    /// One slot each for parameters, moments, slow copies and gradients, in one order.
    fn group(&mut self, group: &Group) {
        let aligned = |len: usize| len.next_multiple_of(ALIGNMENT);
        let len = group.members.iter().map(|m| aligned(self.program.inputs[m.p.0].len())).sum();
        let [p, m, v] = [(); 3].map(|()| self.slot(Storage::State, len));
        let g = self.slot(Storage::Work, len);
        let target = group.kernel.target.map(|slow| Slow { slot: self.slot(Storage::State, len), ..slow });
        let mut offset = 0;
        for member in &group.members {
            let state = [(member.p, p), (member.m, m), (member.v, v)].into_iter();
            for (input, slot) in state.chain(member.target.zip(target.map(|t| t.slot))) {
                self.inputs[input.0] = Some(Place { slot, offset });
            }
            self.places[member.g.0] = Some(Place { slot: g, offset });
            offset += aligned(self.program.inputs[member.p.0].len());
        }
        self.groups.push(Optimise { p, m, v, g, target, ..group.kernel.clone() });
    }

    fn inputs(&mut self) {
        for (i, input) in self.program.inputs.iter().enumerate() {
            let storage = if input.role == Role::State { Storage::State } else { Storage::Data };
            if self.inputs[i].is_none() {
                self.inputs[i] = Some(Place { slot: self.slot(storage, Input::len(input)), offset: 0 });
            }
        }
        for (n, node) in self.program.nodes.iter().enumerate() {
            if let Op::Input(i) = node.op {
                self.places[n] = self.inputs[i];
            }
        }
    }

    fn uses(&mut self, kernel_of: &[Option<usize>]) {
        let root = |n: NodeId| view(&self.program.nodes, n).root.0;
        for (i, node) in self.program.nodes.iter().enumerate() {
            let Some(reader) = kernel_of[i].or_else(|| joined_into(self.program, kernel_of, i)) else {
                continue;
            };
            for o in node.op.operands().map(root) {
                self.last_use[o] = self.last_use[o].max(Some(reader));
                self.used_elsewhere[o] |= kernel_of[o] != Some(reader);
            }
        }
        let kept = self.program.updates.iter().map(|u| u.1).chain(self.program.outputs.iter().map(|o| o.1));
        for n in kept.map(root) {
            self.last_use[n] = Some(usize::MAX);
            self.used_elsewhere[n] = true;
        }
    }

    /// Values that go from kernel to kernel share slots where their lives do not meet; single numbers have a place each.
    fn work(&mut self, kernels: &[Kernel], kernel_of: &[Option<usize>]) {
        let mut values = Vec::new();
        for (n, node) in self.program.nodes.iter().enumerate() {
            let Some(k) = kernel_of[n].filter(|_| self.places[n].is_none()) else { continue };
            let in_place = matches!(kernels[k], Kernel::Optimise(_));
            if in_place || !self.used_elsewhere[n] && !node.shape.is_empty() {
                continue;
            }
            if node.shape.is_empty() {
                self.places[n] = Some(Place { slot: SCALARS, offset: self.slots[SCALARS].len });
                self.slots[SCALARS].len += 1;
            } else {
                let last = self.last_use[n].unwrap_or(k);
                values.push(Life { node: n, from: k, to: last, len: self.len(n) });
            }
        }
        let keys = values.iter().enumerate().map(|(i, v)| (v.from, i));
        let values: Vec<Life> = ascending(keys.collect()).map(|(_, i)| values[i]).collect();
        self.share(Storage::Work, &values);
    }

    fn tiles(&mut self, kernels: &[Kernel]) {
        for kernel in kernels {
            let Kernel::Map(map) = kernel else { continue };
            let mut values = Vec::new();
            for (at, n) in map.body.iter().enumerate().filter(|(_, n)| self.places[n.0].is_none()) {
                let reads = |m: &NodeId| {
                    let mut operands = self.program.nodes[m.0].op.operands();
                    operands.any(|o| view(&self.program.nodes, o).root == *n)
                };
                let to = map.body.iter().rposition(reads).unwrap_or(at);
                values.push(Life { node: n.0, from: at, to, len: self.len(n.0) / map.rows.max(1) });
            }
            self.share(Storage::Tile, &values);
        }
    }

    /// Places values, in the order in which they begin, into slots that are free by then.
    fn share(&mut self, storage: Storage, values: &[Life]) {
        // Slot and the end of the life that it holds.
        let mut pool: Vec<(usize, usize)> = Vec::new();
        for v in values {
            let free = (0..pool.len()).filter(|i| pool[*i].1 < v.from);
            // The slot whose size fits best: growing one costs as much as wasting one.
            let best = free.min_by_key(|i| self.slots[pool[*i].0].len.abs_diff(v.len));
            let slot = match best {
                Some(i) => {
                    pool[i].1 = v.to;
                    pool[i].0
                }
                None => {
                    pool.push((self.slot(storage, 0), v.to));
                    pool[pool.len() - 1].0
                }
            };
            self.slots[slot].len = self.slots[slot].len.max(v.len);
            self.places[v.node] = Some(Place { slot, offset: 0 });
        }
    }

    fn views(&mut self) {
        for n in 0..self.program.nodes.len() {
            let View { root, offset, .. } = view(&self.program.nodes, NodeId(n));
            if root.0 != n {
                self.places[n] = self.places[root.0].map(|p| Place { offset: p.offset + offset, ..p });
            }
        }
    }

    fn plan(
        mut self,
        mut kernels: Vec<Kernel>,
        conditions: Vec<Option<NodeId>>,
        mut kernel_of: Vec<Option<usize>>,
    ) -> Plan {
        let program = self.program;
        let mut groups = std::mem::take(&mut self.groups).into_iter();
        for kernel in kernels.iter_mut() {
            if let Kernel::Optimise(o) = kernel {
                *o = groups.next().expect("a layout for each group");
            }
        }
        // What a product absorbed is computed there, too.
        for n in 0..program.nodes.len() {
            kernel_of[n] = kernel_of[n].or_else(|| joined_into(program, &kernel_of, n));
        }
        let in_place = |n: NodeId| kernel_of[n.0].is_some_and(|k| matches!(kernels[k], Kernel::Optimise(_)));
        let copies = program.updates.iter().copied().filter(|(_, n)| !in_place(*n)).collect();
        Plan {
            copies,
            slots: self.slots,
            places: self.places,
            inputs: self.inputs.into_iter().map(|p| p.expect("every input has a place")).collect(),
            kernels,
            conditions,
            program: program.clone(),
            kernel_of,
        }
    }
}

/// In order, by a heap: what sorts fastest is ten times as much code in a page.
fn ascending(keys: Vec<(usize, usize)>) -> impl Iterator<Item = (usize, usize)> {
    BinaryHeap::from(keys).into_sorted_vec().into_iter()
}

/// How long a value is needed.
#[derive(Clone, Copy)]
struct Life {
    node: usize,
    from: usize,
    to: usize,
    len: usize,
}

/// The kernel of the activation's derivative that a product without a kernel of its own is computed with.
fn joined_into(program: &Program, kernel_of: &[Option<usize>], n: usize) -> Option<usize> {
    let Op::MatMul { .. } = program.nodes[n].op else { return None };
    let user = |node: &Node| matches!(node.op, Op::ActivationGrad { g, .. } if g.0 == n);
    program.nodes.iter().position(user).and_then(|u| kernel_of[u])
}

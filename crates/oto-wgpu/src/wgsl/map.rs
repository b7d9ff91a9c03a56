//! Maps: a workgroup for each row where rows are wide, a thread for each row where they are narrow.
//!
//! In a wide row, number i of a value is always written by thread i modulo the workgroup's threads. As long as operations read
//! only the numbers that their own thread wrote, no barrier is needed; what reaches across threads waits for one.

use super::{Spot, Writer, before, buffer, literal, summed_from};
use super::{activated, broadcast_from};
use oto_graph::plan::{Map, SCALARS, Storage};
use oto_graph::{Activation, Binary, NodeId, Op, Unary};

/// Rows that are wider than this get a workgroup each.
const NARROW: usize = 16;
/// Sums of fewer numbers are one thread's work.
const TOGETHER: usize = 32;

/// What a map's writer keeps in mind.
struct Row<'m> {
    map: &'m Map,
    wide: bool,
    /// By slot: where tiles begin in workgroup memory, or in the buffer of values if that is full.
    tiles: Vec<(usize, Tile)>,
    /// Slots that were used since the last barrier, whether they were written, and whether across threads.
    touched: Vec<Touch>,
}

impl Row<'_> {
    /// Whether a slot lies in the workgroup's memory.
    fn shared(&self, slot: usize) -> bool {
        self.tiles.iter().any(|(s, tile)| *s == slot && matches!(tile, Tile::Shared(_)))
    }
}

#[derive(Clone, Copy)]
enum Tile {
    Shared(usize),
    Private,
    Spilled(usize),
}

#[derive(Clone, Copy)]
struct Touch {
    slot: usize,
    wrote: bool,
    across: bool,
}

impl Writer<'_> {
    pub(super) fn map(&mut self, k: usize, map: &Map) -> usize {
        let width = |n: &NodeId| self.len(*n) / map.rows.max(1);
        let local = |n: &NodeId| -> usize {
            let operands = self.op(*n).operands().filter(|o| self.rows_like(map, *n, *o));
            operands.map(|o| width(&o)).max().unwrap_or(0).max(width(n))
        };
        let wide = map.body.iter().map(local).max().unwrap_or(0) > NARROW;
        self.begin(&format!("k{k}"), self.threads);
        map.scalars.iter().for_each(|n| self.scalar(k, *n));
        let groups = if wide { map.rows } else { map.rows.div_ceil(self.threads) };
        if !map.body.is_empty() {
            let mut row = Row { map, wide, tiles: Vec::new(), touched: Vec::new() };
            self.tiles(&mut row);
            match wide {
                true => self.line("let row = wid;"),
                false => {
                    self.line(format!("let row = wid * {}u + lid;", self.threads));
                    self.line(format!("if (row < {}u) {{", map.rows));
                }
            }
            for n in &map.body {
                self.row_op(&mut row, *n);
            }
            if !wide {
                self.line("}");
            }
        }
        self.end();
        groups
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
            _ => false,
        };
        !whole && self.len(o) >= map.rows
    }

    /// Gives tiles their places: in workgroup memory while there is room.
    fn tiles(&mut self, row: &mut Row<'_>) {
        let room = self.limits.workgroup_bytes as usize / 4;
        let room = room.saturating_sub(self.threads);
        let mut used = 0;
        for n in &row.map.body {
            let Some(place) = self.plan.place(*n) else { continue };
            let slot = self.plan.slots[place.slot];
            if slot.storage != Storage::Tile || row.tiles.iter().any(|(s, _)| *s == place.slot) {
                continue;
            }
            let tile = if !row.wide {
                self.line(format!("var t{}: array<f32, {}>;", place.slot, slot.len));
                Tile::Private
            } else if used + slot.len <= room {
                used += slot.len;
                Tile::Shared(used - slot.len)
            } else {
                self.work += slot.len * row.map.rows;
                Tile::Spilled(self.work - slot.len * row.map.rows)
            };
            row.tiles.push((place.slot, tile));
        }
        self.shared = self.shared.max(used);
    }

    /// A number that is computed before the rows, by every workgroup for itself; the first also stores it.
    fn scalar(&mut self, k: usize, n: NodeId) {
        let number = |w: &Self, o: NodeId| w.scalar_operand(k, o);
        let value = match *self.op(n) {
            Op::SumTo(x) => {
                self.line(format!("var p{} = 0.0;", n.0));
                self.line(format!("for (var i = lid; i < {}u; i += {}u) {{", self.len(x), self.threads));
                let value = self.whole(x, "i");
                self.line(format!("p{} += {value};", n.0));
                self.line("}");
                format!("sum_all(p{}, lid)", n.0)
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
            Op::Polyak { target, p, tau } => {
                polyak(&number(self, target), &number(self, p), &number(self, tau))
            }
            ref op => unreachable!("{op:?} gives no single number"),
        };
        self.line(format!("let n{} = {value};", n.0));
        let to = self.whole(n, "0u");
        self.line(format!("if (wid == 0u && lid == 0u) {{ {to} = n{}; }}", n.0));
    }

    /// A number: computed by this kernel before, or in memory.
    fn scalar_operand(&self, k: usize, o: NodeId) -> String {
        let root = self.plan.root(o);
        let here = self.plan.members(k).contains(&root) && self.shape(root).is_empty();
        if here { format!("n{}", root.0) } else { self.whole(o, "0u") }
    }

    /// Where the row's part of a value lies.
    fn spot(&self, row: &Row<'_>, n: NodeId) -> Spot {
        if let Some(v) = self.plan.constant(n) {
            return Spot::Constant(v as f32);
        }
        let place = self.plan.place(n).expect("what a map reads has a place");
        let slot = self.plan.slots[place.slot];
        let stride = self.len(n) / row.map.rows.max(1);
        match row.tiles.iter().find(|(s, _)| *s == place.slot).map(|(_, t)| *t) {
            Some(Tile::Private) => Spot::Memory { name: format!("t{}", place.slot), base: 0, stride: 0 },
            Some(Tile::Shared(base)) => Spot::Memory { name: "tile".into(), base, stride: 0 },
            Some(Tile::Spilled(base)) => Spot::Memory { name: "work".into(), base, stride: slot.len },
            None => {
                let base = self.bases[place.slot] + place.offset;
                Spot::Memory { name: buffer(slot.storage).into(), base, stride }
            }
        }
    }

    /// Number `index` of the row's part of a value.
    fn at(&self, row: &Row<'_>, n: NodeId, index: &str) -> String {
        match self.spot(row, n) {
            Spot::Constant(v) => literal(v),
            Spot::Memory { name, base, stride: 0 } => format!("{name}[{base}u + {index}]"),
            Spot::Memory { name, base, stride } => format!("{name}[{base}u + row * {stride}u + {index}]"),
        }
    }

    /// Waits for other threads if `n`'s operation needs what they wrote, or would overwrite what they read. `across`: the
    /// operation reads or writes numbers that belong to other threads.
    fn settle(&mut self, row: &mut Row<'_>, n: NodeId, also: Option<NodeId>, across: bool) {
        if !row.wide {
            return;
        }
        let slot = |o: NodeId| self.plan.place(o).map(|p| p.slot).filter(|s| *s != SCALARS);
        let reads = self.op(n).operands().filter_map(slot).map(|slot| Touch { slot, wrote: false, across });
        let writes = [Some(n), also].into_iter().flatten().filter_map(slot);
        let touches = reads.chain(writes.map(|slot| Touch { slot, wrote: true, across })).collect::<Vec<_>>();
        let meets = |t: &Touch, u: &Touch| t.slot == u.slot && (t.wrote || u.wrote) && (t.across || u.across);
        // A barrier orders one kind of memory; it is dear where a processor plays the device.
        for (kind, barrier) in [(true, "workgroupBarrier();"), (false, "storageBarrier();")] {
            let conflict = |t: &Touch| row.shared(t.slot) == kind && row.touched.iter().any(|u| meets(t, u));
            if touches.iter().any(conflict) {
                self.line(barrier);
                let kept = row.touched.iter().filter(|u| row.shared(u.slot) != kind).copied().collect();
                row.touched = kept;
            }
        }
        row.touched.extend(touches);
    }

    /// Begins a loop over `count` numbers `i` of the row, shared by its threads.
    fn each(&mut self, row: &Row<'_>, variable: &str, count: usize) {
        let threads = self.threads;
        self.line(match (row.wide, count) {
            (true, c) if c <= threads => format!("if (lid < {c}u) {{\nlet {variable} = lid;"),
            (true, c) => {
                format!("for (var {variable} = lid; {variable} < {c}u; {variable} += {threads}u) {{")
            }
            (false, 1) => format!("{{\nlet {variable} = 0u;"),
            (false, c) => format!("for (var {variable} = 0u; {variable} < {c}u; {variable}++) {{"),
        });
    }

    /// Writes `value` for each number i of the row.
    fn fill(
        &mut self,
        row: &mut Row<'_>,
        n: NodeId,
        across: bool,
        value: impl Fn(&Self, &Row<'_>) -> String,
    ) {
        self.settle(row, n, None, across);
        self.each(row, "i", self.len(n) / row.map.rows);
        let (to, value) = (self.at(row, n, "i"), value(self, row));
        self.line(format!("{to} = {value};"));
        self.line("}");
    }

    fn row_op(&mut self, row: &mut Row<'_>, n: NodeId) {
        let rows = row.map.rows;
        let last = |w: &Self, x: NodeId| w.shape(x).last().copied().unwrap_or(1);
        match *self.op(n) {
            Op::Affine { x, mul, add } => self.fill(row, n, false, |w, r| affine(&w.at(r, x, "i"), mul, add)),
            Op::Unary(op, x) => self.fill(row, n, false, |w, r| unary(op, &w.at(r, x, "i"))),
            Op::Binary(op, a, b) => {
                self.fill(row, n, false, |w, r| binary(op, &w.at(r, a, "i"), &w.at(r, b, "i")))
            }
            Op::Broadcast(x) => self.broadcast(row, n, x),
            Op::SumTo(x) => self.sum(row, n, x),
            Op::ActivationGrad { y, g, activation } => {
                self.fill(row, n, false, |w, r| before(activation, &w.at(r, y, "i"), &w.at(r, g, "i")))
            }
            Op::MaxLast(x) | Op::ArgMaxLast(x) | Op::LogSumExp(x) => {
                let width = last(self, x);
                self.settle(row, n, None, true);
                self.each(row, "o", self.len(n) / rows);
                self.walk_group(row, x, width, *self.op(n) == Op::LogSumExp(x));
                let to = self.at(row, n, "o");
                let value = match self.op(n) {
                    Op::MaxLast(_) => "top",
                    Op::ArgMaxLast(_) => "f32(best)",
                    _ => "(log(total) + top)",
                };
                self.line(format!("{to} = {value};"));
                self.line("}");
            }
            Op::LogSoftmax(x) => {
                let width = last(self, x);
                self.settle(row, n, None, true);
                self.each(row, "o", self.len(n) / rows / width);
                self.walk_group(row, x, width, true);
                self.line("let all = log(total) + top;");
                self.line(format!("for (var j = 0u; j < {width}u; j++) {{"));
                let index = format!("o * {width}u + j");
                let (to, from) = (self.at(row, n, &index), self.at(row, x, &index));
                self.line(format!("{to} = {from} - all;"));
                self.line("}");
                self.line("}");
            }
            Op::LogSoftmaxGrad { y, g } => {
                let width = last(self, y);
                self.settle(row, n, None, true);
                self.each(row, "o", self.len(n) / rows / width);
                self.line("var total = 0.0;");
                let index = format!("o * {width}u + j");
                let [to, y, g] = [n, y, g].map(|v| self.at(row, v, &index));
                self.line(format!("for (var j = 0u; j < {width}u; j++) {{"));
                self.line(format!("total += {g};"));
                self.line("}");
                self.line(format!("for (var j = 0u; j < {width}u; j++) {{"));
                self.line(format!("{to} = {g} - exp({y}) * total;"));
                self.line("}");
                self.line("}");
            }
            Op::Pick { x, index } => {
                let (choices, inner) = (self.shape(x)[1], self.shape(x)[2]);
                self.fill(row, n, true, |w, r| {
                    let choice = whole_number(&w.at(r, index, "0u"), choices);
                    w.at(r, x, &format!("{choice} * {inner}u + i"))
                })
            }
            Op::Unpick { g, index } => {
                let (choices, inner) = (self.shape(n)[1], self.shape(n)[2]);
                self.fill(row, n, true, |w, r| {
                    let choice = whole_number(&w.at(r, index, "0u"), choices);
                    let g = w.at(r, g, &format!("i % {inner}u"));
                    format!("select(0.0, {g}, i / {inner}u == {choice})")
                })
            }
            Op::Rows { x, index } => {
                let (count, width) = (self.shape(x)[0], self.len(n) / rows);
                self.fill(row, n, true, |w, r| {
                    let from = whole_number(&w.at(r, index, "0u"), count);
                    w.whole(x, &format!("{from} * {width}u + i"))
                })
            }
            Op::AddRows { g, index } => {
                let (count, width) = (self.len(index), self.len(n) / rows);
                self.settle(row, n, None, true);
                self.each(row, "i", width);
                self.line("var total = 0.0;");
                self.line(format!("for (var j = 0u; j < {count}u; j++) {{"));
                let (at, g) = (self.whole(index, "j"), self.whole(g, &format!("j * {width}u + i")));
                self.line(format!("total += select(0.0, {g}, {} == row);", whole_number(&at, rows)));
                self.line("}");
                let to = self.at(row, n, "i");
                self.line(format!("{to} = total;"));
                self.line("}");
            }
            Op::QuantileHuber { theta, target, kappa } => {
                let twin = Op::QuantileHuberGrad { theta, target, kappa };
                let grad = row.map.body.iter().copied().find(|m| *self.op(*m) == twin);
                self.quantile(row, [theta, target], kappa, Some(n), grad);
            }
            Op::QuantileHuberGrad { theta, target, kappa } => {
                let twin = Op::QuantileHuber { theta, target, kappa };
                if !row.map.body.iter().any(|m| *self.op(*m) == twin) {
                    self.quantile(row, [theta, target], kappa, None, Some(n));
                }
            }
            Op::Moment { m, g, beta, squared } => {
                self.fill(row, n, false, |w, r| moment(&w.at(r, m, "i"), &w.at(r, g, "i"), beta, squared))
            }
            Op::AdamStep { p, m, v, t, lr, beta1, beta2, epsilon } => {
                let tag = n.0.to_string();
                let scales = self.adam_scales(&tag, t, lr, beta1, beta2);
                self.line(scales);
                self.fill(row, n, false, |w, r| {
                    let [p, m, v] = [p, m, v].map(|x| w.at(r, x, "i"));
                    format!("{p} - size{tag} * {m} / (sqrt({v}) * scale{tag} + {})", literal(epsilon as f32))
                });
            }
            Op::Polyak { target, p, tau } => {
                let tau = self.number(tau);
                self.fill(row, n, false, |w, r| polyak(&w.at(r, target, "i"), &w.at(r, p, "i"), &tau))
            }
            ref op => unreachable!("{op:?} is not computed row by row"),
        }
    }

    /// Declares `top`, `best` and, where asked for, `total` (of e to the differences) of group `o` of `x`.
    fn walk_group(&mut self, row: &Row<'_>, x: NodeId, width: usize, total: bool) {
        let (first, each) =
            (self.at(row, x, &format!("o * {width}u")), self.at(row, x, &format!("o * {width}u + j")));
        self.line(format!("var top = {first};"));
        self.line("var best = 0u;");
        self.line(format!("for (var j = 1u; j < {width}u; j++) {{"));
        self.line(format!("let x = {each};"));
        self.line("if (x > top) { top = x; best = j; }");
        self.line("}");
        if total {
            self.line("var total = 0.0;");
            self.line(format!("for (var j = 0u; j < {width}u; j++) {{"));
            self.line(format!("total += exp({each} - top);"));
            self.line("}");
        }
    }

    fn broadcast(&mut self, row: &mut Row<'_>, n: NodeId, x: NodeId) {
        let (from, to) = (self.shape(x), self.shape(n));
        if from.is_empty() {
            // The kernel that computes a number keeps it in a variable.
            let k = self.plan.kernel_of(n).expect("a map computes it");
            let number = self.scalar_operand(k, x);
            return self.fill(row, n, false, |_, _| number.clone());
        }
        let inner = if from.len() == to.len() { &from[1..] } else { from };
        let index = broadcast_from("i", inner, &to[1..]);
        match self.rows_like(row.map, n, x) {
            true => self.fill(row, n, true, |w, r| w.at(r, x, &format!("({index})"))),
            false => self.fill(row, n, true, |w, _| w.whole(x, &format!("({index})"))),
        }
    }

    fn sum(&mut self, row: &mut Row<'_>, n: NodeId, x: NodeId) {
        let (first, count, far) = summed_from(&self.shape(x)[1..], &self.shape(n)[1..]);
        let width = self.len(n) / row.map.rows;
        if row.wide && width == 1 && count >= TOGETHER {
            // Every thread adds its own numbers, then they are added up.
            self.settle(row, n, None, false);
            self.line(format!("var p{} = 0.0;", n.0));
            self.line(format!("for (var i = lid; i < {count}u; i += {}u) {{", self.threads));
            let value = self.at(row, x, "i");
            self.line(format!("p{} += {value};", n.0));
            self.line("}");
            self.line(format!("let q{} = sum_all(p{}, lid);", n.0, n.0));
            let to = self.at(row, n, "0u");
            self.line(format!("if (lid == 0u) {{ {to} = q{}; }}", n.0));
            return;
        }
        self.settle(row, n, None, true);
        self.each(row, "o", width);
        self.line("var total = 0.0;");
        self.line(format!("for (var r = 0u; r < {count}u; r++) {{"));
        let value = self.at(row, x, &format!("({first} + {far})"));
        self.line(format!("total += {value};"));
        self.line("}");
        let to = self.at(row, n, "o");
        self.line(format!("{to} = total;"));
        self.line("}");
    }

    /// The quantile Huber loss and its derivative (Dabney et al. 2018, eq. 10): every quantile with every target.
    fn quantile(
        &mut self,
        row: &mut Row<'_>,
        [theta, target]: [NodeId; 2],
        kappa: f64,
        loss: Option<NodeId>,
        grad: Option<NodeId>,
    ) {
        let (count, targets) = (self.len(theta) / row.map.rows, self.len(target) / row.map.rows);
        let n = loss.or(grad).expect("one of the two is wanted");
        let other = grad.filter(|_| loss.is_some());
        self.settle(row, n, other, true);
        let kappa = literal(kappa as f32);
        self.line(format!("var p{} = 0.0;", n.0));
        self.each(row, "i", count);
        let (theta, target) = (self.at(row, theta, "i"), self.at(row, target, "j"));
        self.line(format!("let theta = {theta};"));
        self.line(format!("let tau = (f32(i) + 0.5) / {}.0;", count));
        self.line("var slope = 0.0;");
        self.line("var loss = 0.0;");
        self.line(format!("for (var j = 0u; j < {targets}u; j++) {{"));
        self.line(format!("let d = {target} - theta;"));
        self.line("let weight = select(tau, 1.0 - tau, d < 0.0);");
        self.line(format!("let near = clamp(d, -{kappa}, {kappa});"));
        self.line("slope += weight * near;");
        self.line("loss += weight * near * (d - 0.5 * near);");
        self.line("}");
        self.line(format!("p{} += loss;", n.0));
        if let Some(grad) = grad {
            let to = self.at(row, grad, "i");
            self.line(format!("{to} = -slope / {count}.0;"));
        }
        self.line("}");
        if let Some(loss) = loss {
            let to = self.at(row, loss, "0u");
            match row.wide {
                true => {
                    self.line(format!("let q{} = sum_all(p{}, lid);", n.0, n.0));
                    self.line(format!("if (lid == 0u) {{ {to} = q{} / {count}.0; }}", n.0));
                }
                false => self.line(format!("{to} = p{} / {count}.0;", n.0)),
            }
        }
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

fn polyak(target: &str, p: &str, tau: &str) -> String {
    format!("({target} + {tau} * ({p} - {target}))")
}

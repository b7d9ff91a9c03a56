//! Kernels over whole values: products, convolutions, sums across rows, the optimiser.

use super::{Writer, activated, before, literal, summed_from};
use oto_graph::plan::{Matmul, Optimise};
use oto_graph::{NodeId, Op};

/// Sides of the part of a product that a thread holds in variables.
const SIDES: [usize; 4] = [8, 4, 2, 1];
/// Parameters that a thread improves at most, where there are many.
const PARAMETERS: usize = 64;

/// How a product is cut: a thread holds so many rows and columns of the result.
#[derive(Clone, Copy)]
struct Cut {
    rows: usize,
    columns: usize,
}

impl Cut {
    /// The largest that leaves work for `busy` threads: what a thread has loaded it uses for a whole row or column.
    fn of(p: &Matmul, busy: usize) -> Self {
        let cuts = SIDES.iter().flat_map(|rows| SIDES.map(|columns| Cut { rows: *rows, columns }));
        let fits = cuts.filter(|c| c.rows == 1 && c.columns == 1 || p.count * c.threads(p) >= busy);
        let size = |c: &Cut| (c.rows * c.columns, std::cmp::Reverse(c.rows + c.columns));
        fits.max_by_key(size).expect("single numbers always fit")
    }

    fn down(self, p: &Matmul) -> usize {
        p.m.div_ceil(self.rows)
    }

    fn across(self, p: &Matmul) -> usize {
        p.n.div_ceil(self.columns)
    }

    fn threads(self, p: &Matmul) -> usize {
        self.down(p) * self.across(p)
    }
}

impl Writer<'_> {
    /// A thread's rows lie together; its columns lie apart, so that neighbouring threads read neighbouring columns. Of several
    /// products, each has threads of its own.
    pub(super) fn matmul(&mut self, p: &Matmul) {
        let cut = Cut::of(p, self.limits.busy as usize);
        let (across, total) = (cut.across(p), cut.threads(p));
        self.begin();
        self.line(format!("let thread = wid * {}u + lid;", self.threads));
        self.line(format!("if (thread < {}u) {{", p.count * total));
        match p.count {
            1 => self.line("let id = thread;"),
            _ => self.line(format!("let part = thread / {total}u;\nlet id = thread % {total}u;")),
        }
        let [a_width, b_width] = [p.a, p.b].map(|n| self.shape(n)[self.shape(n).len() - 1]);
        let each = |one: bool, len: usize| if one || p.count == 1 { None } else { Some(len / p.count) };
        let (a_each, b_each) = (each(p.one_a, self.len(p.a)), each(p.one_b, self.len(p.b)));
        for i in 0..cut.rows {
            let row = format!("id / {across}u * {}u + {i}u", cut.rows);
            self.line(format!("let r{i} = {};", inside(&row, p.m, p.m.is_multiple_of(cut.rows))));
            let start = if p.ta { format!("r{i}") } else { format!("r{i} * {a_width}u") };
            self.line(format!("let from_a{i} = {};", in_part(a_each, &start)));
        }
        for j in 0..cut.columns {
            let column = format!("id % {across}u + {}u", j * across);
            self.line(format!("let c{j} = {};", inside(&column, p.n, (j + 1) * across <= p.n)));
            let start = if p.tb { format!("c{j} * {b_width}u") } else { format!("c{j}") };
            self.line(format!("let from_b{j} = {};", in_part(b_each, &start)));
        }
        for i in 0..cut.rows {
            (0..cut.columns).for_each(|j| self.line(format!("var s{i}_{j} = 0.0;")));
            if p.sums.is_some() {
                self.line(format!("var sum{i} = 0.0;"));
            }
        }
        self.count_to("d", p.k);
        for (side, n, along, width, count) in
            [("a", p.a, !p.ta, a_width, cut.rows), ("b", p.b, p.tb, b_width, cut.columns)]
        {
            let step = if along { "d".into() } else { format!("d * {width}u") };
            self.line(format!("let at_{side} = {step};"));
            for i in 0..count {
                let value = self.whole(n, &format!("at_{side} + from_{side}{i}"));
                self.line(format!("let {side}{i} = {value};"));
            }
        }
        for i in 0..cut.rows {
            (0..cut.columns).for_each(|j| self.line(format!("s{i}_{j} += a{i} * b{j};")));
            if p.sums.is_some() {
                self.line(format!("sum{i} += a{i};"));
            }
        }
        self.line("}");
        for i in 0..cut.rows {
            for j in 0..cut.columns {
                self.store_product(p, i, j);
            }
            if let Some(sums) = p.sums {
                let to = self.whole(sums, &in_part(each(false, self.len(sums)), &format!("r{i}")));
                self.line(format!("if (id % {across}u == 0u) {{ {to} = sum{i}; }}"));
            }
        }
        self.line("}");
        self.end((p.count * total).div_ceil(self.threads));
    }

    /// Writes what sum `i, j` becomes. A row or column beyond the last is the last once more: the same number, written twice.
    fn store_product(&mut self, p: &Matmul, i: usize, j: usize) {
        let part = |len: usize| (p.count > 1).then_some(len / p.count);
        let at = in_part(part(self.len(p.out)), &format!("r{i} * {}u + c{j}", p.n));
        let mut value = format!("s{i}_{j}");
        if let Some(bias) = p.bias {
            value =
                format!("({value} + {})", self.whole(bias, &in_part(part(self.len(bias)), &format!("c{j}"))));
        }
        value = activated(p.activation, &value);
        if let Some((activation, y)) = p.derivative {
            value = before(activation, &self.whole(y, &at), &value);
        }
        let to = self.whole(p.out, &at);
        self.line(format!("{to} = {value};"));
    }

    pub(super) fn optimise(&mut self, o: &Optimise) {
        let len = self.plan.slots[o.p].len;
        self.begin();
        let scales = self.adam_scales("", o.t, o.lr, o.beta1, o.beta2);
        self.line(scales);
        if let Some(slow) = o.target {
            self.line(format!("let tau = {};", self.number(slow.tau)));
        }
        let wanted = |w: &Self, due: Option<NodeId>| due.map(|due| format!("{} > 0.0", w.number(due)));
        let groups = self.walk(len, (len / self.limits.busy as usize).clamp(1, PARAMETERS));
        let at = |slot: usize, buffer: &str| format!("{buffer}[{}u + at]", self.bases[slot]);
        let (p, m, v, g) = (at(o.p, "state"), at(o.m, "state"), at(o.v, "state"), at(o.g, "work"));
        let slow = o.target.map(|slow| (at(slow.slot, "state"), slow.due));
        let number = |v: f64| literal(v as f32);
        self.line(format!("var p = {p};"));
        self.line(format!("if ({}) {{", wanted(self, o.due).unwrap_or("true".into())));
        self.line(format!("let g = {g};"));
        self.line(format!("let m = {m} * {} + g * {};", number(o.beta1), number(1.0 - o.beta1)));
        self.line(format!("let v = {v} * {} + g * g * {};", number(o.beta2), number(1.0 - o.beta2)));
        self.line(format!("p -= size * m / (sqrt(v) * scale + {});", number(o.epsilon)));
        self.line(format!("{m} = m;"));
        self.line(format!("{v} = v;"));
        self.line(format!("{p} = p;"));
        self.line("}");
        if let Some((slow, due)) = slow {
            self.line(format!("if ({}) {{", wanted(self, due).unwrap_or("true".into())));
            self.line(format!("let slow = {slow};"));
            self.line(format!("{slow} = slow + tau * (p - slow);"));
            self.line("}");
        }
        self.line("}");
        self.end(groups);
    }

    /// Declares Adam's step size and the scale of the second moment (Kingma and Ba 2015, algorithm 1), `tag` in their names.
    pub(super) fn adam_scales(&self, tag: &str, t: NodeId, lr: NodeId, beta1: f64, beta2: f64) -> String {
        let (t, lr) = (self.number(t), self.number(lr));
        let [a, b] = [beta1, beta2].map(|b| literal(b.ln() as f32));
        format!(
            "let size{tag} = {lr} / one_minus_exp({t} * {a});\nlet scale{tag} = inverseSqrt(one_minus_exp({t} * {b}));"
        )
    }

    /// A single number from memory.
    pub(super) fn number(&self, n: NodeId) -> String {
        self.whole(n, "0u")
    }

    /// A sum across rows: a workgroup for each place of the result.
    pub(super) fn reduce(&mut self, n: NodeId) {
        let Op::SumTo(x) = *self.op(n) else { unreachable!("only sums are reduced") };
        let (first, count, far) = summed_from(self.shape(x), self.shape(n));
        let len = self.len(n);
        let groups = len.min(super::WALKERS);
        self.begin();
        self.line(format!("for (var o = wid; o < {len}u; o += {groups}u) {{"));
        self.line("var sum = 0.0;");
        self.line(format!("for (var r = lid; r < {count}u; r += {}u) {{", self.threads));
        let value = self.whole(x, &format!("{first} + {far}"));
        self.line(format!("sum += {value};"));
        self.line("}");
        self.line("let all = sum_all(sum, lid);");
        self.line("if (lid == 0u) {");
        let to = self.whole(n, "o");
        self.line(format!("{to} = all;"));
        self.line("}");
        self.line("}");
        self.end(groups);
    }

    /// Convolutions written out: a thread for each number of the result.
    pub(super) fn conv(&mut self, n: NodeId) {
        self.begin();
        let groups = self.walk(self.len(n), 1);
        match *self.op(n) {
            Op::Conv2d { x, weight, bias, conv, activation } => {
                self.coordinates(n);
                let [_, c, h, w] = four(self.shape(x));
                let kernel = self.shape(weight)[2];
                let o = self.whole(bias, "i1");
                self.line(format!("var sum = {o};"));
                self.line(format!("for (var c = 0u; c < {c}u; c++) {{"));
                self.line(format!("for (var k = 0u; k < {}u; k++) {{", kernel * kernel));
                self.line(format!("let y = i2 * {}u + k / {kernel}u - {}u;", conv.stride, conv.padding));
                self.line(format!("let x = i3 * {}u + k % {kernel}u - {}u;", conv.stride, conv.padding));
                // Below 0 wraps around and is too large, too.
                self.line(format!("if (y < {h}u && x < {w}u) {{"));
                let a = self.whole(x, &format!("((i0 * {c}u + c) * {h}u + y) * {w}u + x"));
                let b = self.whole(weight, &format!("(i1 * {c}u + c) * {}u + k", kernel * kernel));
                self.line(format!("sum += {a} * {b};"));
                (0..3).for_each(|_| self.line("}"));
                let value = activated(activation, "sum");
                self.store(n, &value);
            }
            Op::Conv2dGradInput { g, weight, conv } => {
                self.coordinates(n);
                let [_, o, h, w] = four(self.shape(g));
                let (channels, kernel) = (self.shape(n)[1], self.shape(weight)[2]);
                self.line("var sum = 0.0;");
                self.line(format!("for (var o = 0u; o < {o}u; o++) {{"));
                self.line(format!("for (var k = 0u; k < {}u; k++) {{", kernel * kernel));
                self.line(format!("let down = i2 + {}u - k / {kernel}u;", conv.padding));
                self.line(format!("let right = i3 + {}u - k % {kernel}u;", conv.padding));
                let s = conv.stride;
                self.line(format!(
                    "if (down % {s}u == 0u && right % {s}u == 0u && down / {s}u < {h}u && right / {s}u < {w}u) {{"
                ));
                let a =
                    self.whole(g, &format!("((i0 * {o}u + o) * {h}u + down / {s}u) * {w}u + right / {s}u"));
                let b = self.whole(weight, &format!("(o * {channels}u + i1) * {}u + k", kernel * kernel));
                self.line(format!("sum += {a} * {b};"));
                (0..3).for_each(|_| self.line("}"));
                self.store(n, "sum");
            }
            Op::Conv2dGradWeight { x, g, conv } => {
                self.coordinates(n);
                let [batch, channels, h, w] = four(self.shape(x));
                let [_, outputs, gh, gw] = four(self.shape(g));
                self.line("var sum = 0.0;");
                self.line(format!("for (var b = 0u; b < {batch}u; b++) {{"));
                self.line(format!("for (var p = 0u; p < {}u; p++) {{", gh * gw));
                self.line(format!("let y = p / {gw}u * {}u + i2 - {}u;", conv.stride, conv.padding));
                self.line(format!("let x = p % {gw}u * {}u + i3 - {}u;", conv.stride, conv.padding));
                self.line(format!("if (y < {h}u && x < {w}u) {{"));
                let a = self.whole(x, &format!("((b * {channels}u + i1) * {h}u + y) * {w}u + x"));
                let b = self.whole(g, &format!("(b * {outputs}u + i0) * {}u + p", gh * gw));
                self.line(format!("sum += {a} * {b};"));
                (0..3).for_each(|_| self.line("}"));
                self.store(n, "sum");
            }
            _ => unreachable!("no convolution"),
        }
        self.line("}");
        self.end(groups);
    }

    /// Declares i0 to i3, the coordinates of place `at`.
    fn coordinates(&mut self, n: NodeId) {
        let [_, b, c, d] = four(self.shape(n));
        self.line(format!("let i0 = at / {}u;", b * c * d));
        self.line(format!("let i1 = at / {}u % {b}u;", c * d));
        self.line(format!("let i2 = at / {d}u % {c}u;"));
        self.line(format!("let i3 = at % {d}u;"));
    }

    fn store(&mut self, n: NodeId, value: &str) {
        let to = self.whole(n, "at");
        self.line(format!("{to} = {value};"));
    }
}

/// Place `start` of a thread's part, where there are several of `len` numbers.
fn in_part(len: Option<usize>, start: &str) -> String {
    len.map_or(start.into(), |len| format!("part * {len}u + {start}"))
}

/// `index`, or the last one below `count` where it may be beyond.
fn inside(index: &str, count: usize, sure: bool) -> String {
    if sure { index.into() } else { format!("min({index}, {}u)", count - 1) }
}

fn four(shape: &[usize]) -> [usize; 4] {
    shape.try_into().expect("images and kernels have four axes")
}

//! Kernels whose threads work together on one value: products, convolutions, sums across rows, the optimiser.

use super::{Writer, activated, before, literal, summed_from};
use oto_graph::plan::{Matmul, Optimise};
use oto_graph::{NodeId, Op};

/// Rows and columns of the result that a workgroup computes.
const TILE: usize = 32;
/// Terms of the sums that it holds at a time.
const DEPTH: usize = 16;
/// Workgroups that walk over a long array.
const WALKERS: usize = 1024;

impl Writer<'_> {
    pub(super) fn matmul(&mut self, k: usize, p: &Matmul) -> usize {
        let (down, across) = (p.m.div_ceil(TILE), p.n.div_ceil(TILE));
        // Each thread holds a square of the result.
        let side = (self.threads as f64).sqrt() as usize;
        let each = TILE / side;
        self.shared = self.shared.max(2 * TILE * DEPTH);
        let b_base = TILE * DEPTH;
        self.begin(&format!("k{k}"), self.threads);
        self.line(format!("let row0 = wid / {across}u * {TILE}u;"));
        self.line(format!("let col0 = wid % {across}u * {TILE}u;"));
        self.line(format!("let r = lid / {side}u * {each}u;"));
        self.line(format!("let c = lid % {side}u * {each}u;"));
        for i in 0..each {
            for j in 0..each {
                self.line(format!("var s{i}{j} = 0.0;"));
            }
        }
        if p.sums.is_some() {
            self.line("var column = 0.0;");
        }
        self.line(format!("for (var k0 = 0u; k0 < {}u; k0 += {DEPTH}u) {{", p.k));
        self.line(format!("for (var e = lid; e < {}u; e += {}u) {{", TILE * DEPTH, self.threads));
        for (side, from, turned, count, origin, base) in
            [("a", p.a, !p.ta, p.m, "row0", 0), ("b", p.b, p.tb, p.n, "col0", b_base)]
        {
            let columns = self.shape(from)[1];
            // Neighbouring threads read neighbouring numbers: along the sum where the side is stored so.
            let (line, depth) = match turned {
                true => (format!("e / {DEPTH}u"), format!("e % {DEPTH}u")),
                false => (format!("e % {TILE}u"), format!("e / {TILE}u")),
            };
            self.line(format!("let {side}_line = {line};"));
            self.line(format!("let {side}_depth = {depth};"));
            let (line, depth) = (format!("({origin} + {side}_line)"), format!("(k0 + {side}_depth)"));
            let index = match turned {
                true => format!("{line} * {columns}u + {depth}"),
                false => format!("{depth} * {columns}u + {line}"),
            };
            let value = self.whole(from, &index);
            let mut inside = Vec::new();
            if !count.is_multiple_of(TILE) {
                inside.push(format!("{line} < {count}u"));
            }
            if !p.k.is_multiple_of(DEPTH) {
                inside.push(format!("{depth} < {}u", p.k));
            }
            let value = match inside.is_empty() {
                true => value,
                // `select` reads both sides, and robust access makes the read outside harmless.
                false => format!("select(0.0, {value}, {})", inside.join(" && ")),
            };
            self.line(format!("tile[{base}u + {side}_depth * {TILE}u + {side}_line] = {value};"));
        }
        self.line("}");
        self.line("workgroupBarrier();");
        if p.sums.is_some() {
            self.line(format!("if (lid < {TILE}u) {{"));
            self.line(format!("for (var d = 0u; d < {DEPTH}u; d++) {{"));
            self.line(format!("column += tile[d * {TILE}u + lid];"));
            self.line("}");
            self.line("}");
        }
        self.line(format!("for (var d = 0u; d < {DEPTH}u; d++) {{"));
        for i in 0..each {
            self.line(format!("let a{i} = tile[d * {TILE}u + r + {i}u];"));
        }
        for j in 0..each {
            self.line(format!("let b{j} = tile[{b_base}u + d * {TILE}u + c + {j}u];"));
        }
        for i in 0..each {
            for j in 0..each {
                self.line(format!("s{i}{j} += a{i} * b{j};"));
            }
        }
        self.line("}");
        self.line("workgroupBarrier();");
        self.line("}");
        for i in 0..each {
            for j in 0..each {
                self.store_product(p, i, j);
            }
        }
        if let Some(sums) = p.sums {
            self.line(format!("if (lid < {TILE}u && col0 == 0u && row0 + lid < {}u) {{", p.m));
            let to = self.whole(sums, "row0 + lid");
            self.line(format!("{to} = column;"));
            self.line("}");
        }
        self.end();
        down * across
    }

    /// Writes what thread-local sum `i, j` becomes.
    fn store_product(&mut self, p: &Matmul, i: usize, j: usize) {
        self.line(format!("if (row0 + r + {i}u < {}u && col0 + c + {j}u < {}u) {{", p.m, p.n));
        self.line(format!("let at = (row0 + r + {i}u) * {}u + col0 + c + {j}u;", p.n));
        let mut value = format!("s{i}{j}");
        if let Some(bias) = p.bias {
            value = format!("({value} + {})", self.whole(bias, &format!("col0 + c + {j}u")));
        }
        value = activated(p.activation, &value);
        if let Some((activation, y)) = p.derivative {
            value = before(activation, &self.whole(y, "at"), &value);
        }
        let to = self.whole(p.out, "at");
        self.line(format!("{to} = {value};"));
        self.line("}");
    }

    /// Begins a walk over `len` numbers, `at` each; gives the workgroups that it takes.
    fn walk(&mut self, k: usize, len: usize) -> usize {
        let groups = len.div_ceil(self.threads).clamp(1, WALKERS);
        self.begin(&format!("k{k}"), self.threads);
        let (threads, step) = (self.threads, groups * self.threads);
        self.line(format!("for (var at = wid * {threads}u + lid; at < {len}u; at += {step}u) {{"));
        groups
    }

    fn end_walk(&mut self) {
        self.line("}");
        self.end();
    }

    pub(super) fn optimise(&mut self, k: usize, o: &Optimise) -> usize {
        let len = self.plan.slots[o.p].len;
        let groups = self.walk(k, len);
        let at = |slot: usize, buffer: &str| format!("{buffer}[{}u + at]", self.bases[slot]);
        let (p, m, v, g) = (at(o.p, "state"), at(o.m, "state"), at(o.v, "state"), at(o.g, "work"));
        let slow = o.target.map(|(slot, tau)| (at(slot, "state"), self.number(tau)));
        let scales = self.adam_scales("", o.t, o.lr, o.beta1, o.beta2);
        let number = |v: f64| literal(v as f32);
        self.line(scales);
        self.line(format!("let g = {g};"));
        self.line(format!("let m = {m} * {} + g * {};", number(o.beta1), number(1.0 - o.beta1)));
        self.line(format!("let v = {v} * {} + g * g * {};", number(o.beta2), number(1.0 - o.beta2)));
        self.line(format!("let p = {p} - size * m / (sqrt(v) * scale + {});", number(o.epsilon)));
        self.line(format!("{m} = m;"));
        self.line(format!("{v} = v;"));
        self.line(format!("{p} = p;"));
        if let Some((slow, tau)) = slow {
            self.line(format!("{slow} = {slow} + {tau} * (p - {slow});"));
        }
        self.end_walk();
        groups
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
    pub(super) fn reduce(&mut self, k: usize, n: NodeId) -> usize {
        let Op::SumTo(x) = *self.op(n) else { unreachable!("only sums are reduced") };
        let (first, count, far) = summed_from(self.shape(x), self.shape(n));
        let len = self.len(n);
        let groups = len.min(WALKERS);
        self.begin(&format!("k{k}"), self.threads);
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
        self.end();
        groups
    }

    /// Convolutions written out: a thread for each number of the result.
    pub(super) fn conv(&mut self, k: usize, n: NodeId) -> usize {
        let groups = self.walk(k, self.len(n));
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
            ref op => unreachable!("{op:?} is no convolution"),
        }
        self.end_walk();
        groups
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

fn four(shape: &[usize]) -> [usize; 4] {
    shape.try_into().expect("images and kernels have four axes")
}

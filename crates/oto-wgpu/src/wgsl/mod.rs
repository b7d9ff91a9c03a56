//! A plan as WGSL: one function for each kernel, written for its shapes, and an entry point that calls it.
//!
//! All state lies in one buffer, all values between kernels in another, what the caller gives in a third, so that every kernel
//! has the same three bindings and a step needs one bind group. Shapes and places are literals in the text.

mod dense;
mod map;

use oto_graph::plan::{Kernel, Plan, Storage};
use oto_graph::{Activation, NodeId, Op};
use std::cell::RefCell;
use std::fmt::Write;

/// What one may count on everywhere (the lowest limits that WebGPU allows).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Threads of a workgroup.
    pub threads: u32,
    /// Bytes of memory that a workgroup shares.
    pub workgroup_bytes: u32,
    /// Threads that keep the device busy: a product is cut into so many pieces, if it has them.
    pub busy: u32,
    /// Workgroups of a dispatch.
    pub groups: u32,
    /// Bytes of a storage buffer.
    pub buffer_bytes: u64,
}

/// A program's shader.
#[derive(Clone, Debug)]
pub struct Shader {
    /// What is dispatched, in order.
    pub dispatches: Vec<Dispatch>,
    /// Where each slot begins in its buffer; meaningless for tiles.
    pub bases: Vec<usize>,
    /// Numbers in the buffer of values between kernels; what the parts of a map hand on is at its end.
    pub work: usize,
}

/// One entry point, the text of its module, and how many workgroups of it run. A module each: browsers read a whole module for
/// every pipeline that they make of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// Entry point.
    pub name: String,
    /// Its module, as WGSL.
    pub text: String,
    /// Workgroups.
    pub groups: u32,
}

/// Writes the shader of a plan; an error says which limit it would break.
pub fn shader(plan: &Plan, limits: Limits) -> Result<Shader, String> {
    let mut writer = Writer::new(plan, limits);
    for (k, kernel) in plan.kernels.iter().enumerate() {
        writer.name = format!("k{k}");
        writer.condition = plan.conditions[k];
        match kernel {
            Kernel::Map(m) => writer.map(m),
            Kernel::Matmul(p) => writer.matmul(p),
            Kernel::Conv(n) => writer.conv(*n),
            Kernel::Reduce(n) => writer.reduce(*n),
            Kernel::Optimise(o) => writer.optimise(o),
        }
    }
    writer.copies();
    writer.check()?;
    let head = writer.head();
    let mut dispatches = writer.dispatches;
    dispatches.iter_mut().for_each(|d| d.text.insert_str(0, &head));
    Ok(Shader { dispatches, bases: writer.bases, work: writer.work })
}

struct Writer<'p> {
    plan: &'p Plan,
    limits: Limits,
    bases: Vec<usize>,
    work: usize,
    /// Threads of a workgroup.
    threads: usize,
    /// The kernel being written, what it has been so far, and its dispatches after those of the kernels before.
    name: String,
    text: String,
    indent: usize,
    dispatches: Vec<Dispatch>,
    /// Its number of the caller's without which it does nothing.
    condition: Option<NodeId>,
    /// Single numbers that the function being written has in variables.
    in_scope: Vec<NodeId>,
    /// Lengths of rows whose start the part being written needs.
    row_starts: RefCell<Vec<usize>>,
    /// What the part being written computes once for each row, in order.
    shared: RefCell<Vec<String>>,
    /// Rounds of the longest loop.
    rounds: usize,
}

/// Some drivers end a loop silently after so many rounds.
const ROUNDS: usize = 65_535;
/// Workgroups that walk over a long array.
const WALKERS: usize = 1024;

impl<'p> Writer<'p> {
    fn new(plan: &'p Plan, limits: Limits) -> Self {
        let mut next = [0usize; 3];
        let bases = plan.slots.iter().map(|slot| {
            let of = match slot.storage {
                Storage::State => &mut next[0],
                Storage::Data => &mut next[1],
                Storage::Work => &mut next[2],
                Storage::Tile => return 0,
            };
            let base = *of;
            *of += slot.len.next_multiple_of(4);
            base
        });
        let bases = bases.collect();
        let threads = (limits.busy as usize / 4).clamp(16, 64).min(limits.threads as usize);
        Self {
            plan,
            limits,
            bases,
            work: next[2],
            threads,
            name: String::new(),
            text: String::new(),
            indent: 0,
            dispatches: Vec::new(),
            condition: None,
            in_scope: Vec::new(),
            row_starts: RefCell::default(),
            shared: RefCell::default(),
            rounds: 0,
        }
    }

    /// What the device would refuse, or do wrong.
    fn check(&self) -> Result<(), String> {
        let groups = self.dispatches.iter().map(|d| d.groups).max().unwrap_or(0);
        if groups > self.limits.groups {
            return Err(format!(
                "a kernel needs {groups} workgroups, the device runs {} at once",
                self.limits.groups
            ));
        }
        let shared = 4 * self.threads;
        if shared > self.limits.workgroup_bytes as usize {
            return Err(format!(
                "a workgroup would share {shared} bytes, the device has {}",
                self.limits.workgroup_bytes
            ));
        }
        if self.rounds >= ROUNDS {
            return Err(format!("a sum of {} numbers is too long for some devices", self.rounds));
        }
        for (what, len) in [("state", self.plan.total(Storage::State)), ("values", self.work)] {
            if 4 * len as u64 > self.limits.buffer_bytes {
                return Err(format!(
                    "the {what} need {} bytes, a buffer of the device holds {}",
                    4 * len,
                    self.limits.buffer_bytes
                ));
            }
        }
        Ok(())
    }

    fn line(&mut self, line: impl AsRef<str>) {
        for line in line.as_ref().lines() {
            let closes = line.starts_with('}');
            self.indent -= usize::from(closes);
            writeln!(self.text, "{}{line}", "  ".repeat(self.indent)).expect("a string takes all");
            self.indent += usize::from(line.ends_with('{'));
        }
    }

    fn op(&self, n: NodeId) -> &'p Op {
        &self.plan.node(n).op
    }

    fn shape(&self, n: NodeId) -> &'p [usize] {
        &self.plan.node(n).shape
    }

    fn len(&self, n: NodeId) -> usize {
        self.plan.len(n)
    }

    /// Element `index` of a value in a buffer, or of a constant.
    fn whole(&self, n: NodeId, index: &str) -> String {
        if let Some(v) = self.plan.constant(n) {
            return literal(v as f32);
        }
        let place = self.plan.place(n).expect("a value that another kernel reads has a place");
        let name = buffer(self.plan.slots[place.slot].storage);
        format!("{name}[{}u + {index}]", self.bases[place.slot] + place.offset)
    }

    /// Begins a dispatch of the kernel being written.
    fn begin(&mut self) {
        let earlier =
            self.dispatches.iter().rev().take_while(|d| d.name.split('_').next() == Some(&self.name));
        let name = match earlier.count() {
            0 => self.name.clone(),
            n => format!("{}_{n}", self.name),
        };
        self.line(format!("@compute @workgroup_size({})", self.threads));
        self.line(format!(
            "fn {name}(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lid: u32) {{"
        ));
        self.line("let wid = group.x;");
        if let Some(condition) = self.condition {
            let number = self.whole(condition, "0u");
            self.line(format!("if ({number} <= 0.0) {{"));
            self.line("return;");
            self.line("}");
        }
        self.dispatches.push(Dispatch { name, text: String::new(), groups: 0 });
    }

    /// Ends it: so many workgroups run it.
    fn end(&mut self, groups: usize) {
        self.line("}");
        let dispatch = self.dispatches.last_mut().expect("a dispatch was begun");
        dispatch.text = std::mem::take(&mut self.text);
        dispatch.groups = groups.try_into().unwrap_or(u32::MAX).max(1);
    }

    /// Begins a walk over `len` numbers, `at` each, some `each` of them for a thread; gives the workgroups that it takes.
    fn walk(&mut self, len: usize, each: usize) -> usize {
        let groups = len.div_ceil(self.threads * each).clamp(1, WALKERS);
        let (threads, step) = (self.threads, groups * self.threads);
        self.line(format!("for (var at = wid * {threads}u + lid; at < {len}u; at += {step}u) {{"));
        self.rounds = self.rounds.max(len.div_ceil(step));
        groups
    }

    /// Begins a loop over the numbers below `count`.
    fn count_to(&mut self, variable: &str, count: usize) {
        self.line(format!("for (var {variable} = 0u; {variable} < {count}u; {variable}++) {{"));
        self.rounds = self.rounds.max(count);
    }

    fn copies(&mut self) {
        if self.plan.copies.is_empty() {
            return;
        }
        self.name = "copies".into();
        self.condition = None;
        self.begin();
        for (input, n) in &self.plan.copies {
            let to = self.plan.input(*input);
            let (base, len) = (self.bases[to.slot] + to.offset, self.len(*n));
            let from = self.whole(*n, "i");
            self.line(format!("for (var i = lid; i < {len}u; i += {}u) {{", self.threads));
            self.line(format!("state[{base}u + i] = {from};"));
            self.line("}");
        }
        self.end(1);
    }

    fn head(&self) -> String {
        let total = |storage: Storage| {
            let of = self.plan.slots.iter().filter(|s| s.storage == storage);
            of.map(|s| s.len.next_multiple_of(4)).sum::<usize>().max(4)
        };
        let (state, work, data) = (total(Storage::State), self.work.max(4), total(Storage::Data));
        format!(
            "@group(0) @binding(0) var<storage, read_write> state: array<f32, {state}>;
@group(0) @binding(1) var<storage, read_write> work: array<f32, {work}>;
@group(0) @binding(2) var<storage, read> data: array<f32, {data}>;
const THREADS = {}u;
var<workgroup> partial: array<f32, THREADS>;
{HELPERS}",
            self.threads
        )
    }
}

/// Functions that kernels share. A sum over a workgroup must be called by all of its threads. Every thread adds all
/// up by itself: two barriers instead of one for each halving.
const HELPERS: &str = "
fn sum_all(x: f32, lid: u32) -> f32 {
  partial[lid] = x;
  workgroupBarrier();
  var all = 0.0;
  for (var i = 0u; i < THREADS; i++) { all += partial[i]; }
  workgroupBarrier();
  return all;
}

// Comparisons instead of max and min: what is no number must stay so. (naga makes of a != a a comparison that is false for NaN.)
fn relu_of(x: f32) -> f32 {
  return select(x, 0.0, x < 0.0);
}

fn larger(a: f32, b: f32) -> f32 {
  return select(b, a, a > b || !(a == a));
}

fn smaller(a: f32, b: f32) -> f32 {
  return select(b, a, a < b || !(a == a));
}

fn tanh_of(x: f32) -> f32 {
  let e = exp(-2.0 * abs(x));
  let far = (1.0 - e) / (1.0 + e);
  let z = x * x;
  let near = abs(x) * (1.0 + z * (-0.3333328 + z * (0.13331442 + z * (-0.053739716 + z * (0.020639089 - z * 0.0057049887)))));
  return sign(x) * select(far, near, abs(x) < 0.625);
}

fn softplus_of(x: f32) -> f32 {
  let e = exp(-abs(x));
  let small = e * (1.0 - e * (0.5 - e * 0.33333334));
  return relu_of(x) + select(log(1.0 + e), small, e < 0.001);
}

// 1 - e^x for x <= 0.
fn one_minus_exp(x: f32) -> f32 {
  let small = -x * (1.0 + x * (0.5 + x * (0.16666667 + x * (0.041666668 + x * 0.008333334))));
  return select(1.0 - exp(x), small, x > -0.1);
}

";

fn buffer(storage: Storage) -> &'static str {
    match storage {
        Storage::State => "state",
        Storage::Data => "data",
        Storage::Work => "work",
        Storage::Tile => "tile",
    }
}

/// A number as WGSL takes it: browsers refuse what an f32 does not hold.
fn literal(v: f32) -> String {
    let v = match v {
        f32::INFINITY => f32::MAX,
        f32::NEG_INFINITY => f32::MIN,
        v if v.is_nan() => 0.0,
        v => v,
    };
    let v = if v.abs() < f32::MIN_POSITIVE { 0.0 } else { v };
    format!("{}f", oto_json::shown(&v))
}

/// `x` after an activation.
fn activated(activation: Activation, x: &str) -> String {
    match activation {
        Activation::Identity => x.into(),
        Activation::Relu => format!("relu_of({x})"),
        Activation::Tanh => format!("tanh_of({x})"),
    }
}

/// The gradient `g` before the activation whose output is `y`.
fn before(activation: Activation, y: &str, g: &str) -> String {
    match activation {
        Activation::Identity => g.into(),
        Activation::Relu => format!("select(0.0, {g}, {y} > 0.0)"),
        Activation::Tanh => format!("({g} * (1.0 - {y} * {y}))"),
    }
}

/// Row-major strides.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        strides[i] = strides[i + 1] * shape[i + 1];
    }
    strides
}

/// The sum of `index`'s coordinates in `shape`, each times its weight: how one shape's places are found in another.
fn weighted(index: &str, shape: &[usize], weights: &[usize]) -> String {
    let steps = strides(shape);
    let term = |axis: usize| -> Option<String> {
        let (size, step, weight) = (shape[axis], steps[axis], weights[axis]);
        if size == 1 || weight == 0 {
            return None;
        }
        let coordinate = match (step, axis == 0 || step * size == shape.iter().product()) {
            (1, true) => index.to_string(),
            (1, false) => format!("{index} % {size}u"),
            (_, true) => format!("{index} / {step}u"),
            (_, false) => format!("{index} / {step}u % {size}u"),
        };
        Some(if weight == 1 { format!("({coordinate})") } else { format!("({coordinate}) * {weight}u") })
    };
    let sum = (0..shape.len()).filter_map(term).reduce(|sum, term| sum + " + " + &term);
    sum.unwrap_or("0u".into())
}

/// The place in `small` that place `index` of `large` is broadcast from.
fn broadcast_from(index: &str, small: &[usize], large: &[usize]) -> String {
    let mut padded = vec![1; large.len() - small.len()];
    padded.extend(small);
    let weights = strides(&padded).into_iter().zip(&padded).map(|(w, s)| if *s == 1 { 0 } else { w });
    weighted(index, large, &weights.collect::<Vec<_>>())
}

/// For a sum from `large` to `small`: the first of the places that place `o` sums, how many there are, and the distance of the
/// r-th from the first.
fn summed_from(large: &[usize], small: &[usize]) -> (String, usize, String) {
    let mut padded = vec![1; large.len() - small.len()];
    padded.extend(small);
    let steps = strides(large);
    let first = weighted("o", &padded, &steps);
    let reduced = (0..large.len()).filter(|i| padded[*i] == 1 && large[*i] != 1);
    let (sizes, weights): (Vec<_>, Vec<_>) = reduced.map(|i| (large[i], steps[i])).unzip();
    (first, sizes.iter().product(), weighted("r", &sizes, &weights))
}

//! Operators that tract computes wrongly, as others that it computes right: `Softplus` and `ReduceLogSumExp` overflow there, `LogSoftmax`
//! is made of an inexact softmax, `Celu` leaves out a factor, the remainder of `Mod` has the wrong sign, and `Sigmoid`, `Tanh`, `Erf` and
//! `Gelu` do not reach their ends. `Acosh`, `Asinh` and `HardSwish` overflow for large numbers. `GroupNormalization` is as ONNX defines it. Those of [`SWALLOW`] make a number of NaN, which onnxruntime keeps.

use super::operators::{constant, wholes};
use std::collections::HashSet;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

/// How the names of nodes begin that are made here.
pub(super) const MADE: &str = "oto.lowered.";

/// Operators that give a number for NaN in tract.
const SWALLOW: [&str; 9] = ["Clip", "Gelu", "HardSigmoid", "Max", "Min", "Relu", "Sigmoid", "Sign", "Tanh"];

/// The model with those operators taken apart. `types`: of what each node reads.
pub(super) fn lower(model: &ModelProto, opset: i64, types: &[char]) -> ModelProto {
    let mut model = model.clone();
    if let Some(graph) = &mut model.graph {
        let constants = graph.initializer.iter().filter(|t| !has_nan(t)).map(|t| t.name.clone()).collect();
        let nodes = std::mem::take(&mut graph.node);
        let mut maker = Maker { graph, opset, constants, count: 0 };
        for (node, read) in nodes.into_iter().zip(types) {
            match *read == 'f' && SWALLOW.contains(&node.op_type.as_str()) {
                true => maker.keep_nan(node),
                // Of other types, these only are taken apart; they need no constants.
                false if *read == 'f' || node.op_type == "Mod" => maker.take_apart(node),
                false if *read == 'i' && node.op_type == "Pow" => maker.whole_power(node),
                false => maker.graph.node.push(node),
            }
        }
    }
    model
}

struct Maker<'g> {
    graph: &'g mut GraphProto,
    opset: i64,
    /// The names of constants without NaN.
    constants: HashSet<String>,
    /// Names given so far.
    count: usize,
}

impl Maker<'_> {
    /// Gives NaN where an input is NaN.
    fn keep_nan(&mut self, mut node: NodeProto) {
        let Some(out) = node.output.first().cloned() else { return self.take_apart(node) };
        let reads: Vec<String> = node
            .input
            .iter()
            .filter(|name| !name.is_empty() && !self.constants.contains(*name))
            .cloned()
            .collect();
        let mut answer = self.name();
        node.output[0].clone_from(&answer);
        self.take_apart(node);
        for (at, read) in reads.iter().enumerate() {
            let is_nan = self.make("IsNaN", &[read], vec![]);
            let kept = if at + 1 == reads.len() { out.clone() } else { self.name() };
            self.give("Where", &[&is_nan, read, &answer], vec![], kept.clone());
            answer = kept;
        }
        if reads.is_empty() {
            self.give("Identity", &[&answer], vec![], out);
        }
    }

    /// Squares and cubes of integers are products, of which the low bits stay; other powers are made of float64.
    fn whole_power(&mut self, node: NodeProto) {
        let exponent = node.input.get(1).and_then(|name| single(constant(self.graph, name)?));
        let (Some(x), Some(out)) = (node.input.first().cloned(), node.output.first().cloned()) else {
            return self.graph.node.push(node);
        };
        match exponent {
            Some(2.0) => self.give("Mul", &[&x, &x], vec![], out),
            Some(3.0) => {
                let square = self.make("Mul", &[&x, &x], vec![]);
                self.give("Mul", &[&square, &x], vec![], out);
            }
            _ => self.graph.node.push(node),
        }
    }

    fn take_apart(&mut self, node: NodeProto) {
        let (Some(x), Some(out)) = (node.input.first().cloned(), node.output.first().cloned()) else {
            return self.graph.node.push(node);
        };
        let float = |name: &str, absent: f32| attribute(&node, name).map_or(absent, |a| a.f);
        let int = |name: &str| attribute(&node, name).map(|a| a.i);
        match node.op_type.as_str() {
            "Softplus" => {
                // max(x, 0) + log(1 + exp(-|x|))
                let size = self.make("Abs", &[&x], vec![]);
                let less = self.make("Neg", &[&size], vec![]);
                let power = self.make("Exp", &[&less], vec![]);
                let one = self.scalar(1.0);
                let sum = self.make("Add", &[&power, &one], vec![]);
                let log = self.make("Log", &[&sum], vec![]);
                let above = self.make("Relu", &[&x], vec![]);
                self.give("Add", &[&above, &log], vec![], out);
            }
            "Celu" if float("alpha", 1.0) > 0.0 => {
                let alpha = self.scalar(float("alpha", 1.0));
                let scaled = self.make("Div", &[&x, &alpha], vec![]);
                let elu = self.make("Elu", &[&scaled], vec![]);
                let below = self.make("Mul", &[&elu, &alpha], vec![]);
                // A large number over a small alpha overflows.
                let zero = self.scalar(0.0);
                let above = self.make("Greater", &[&x, &zero], vec![]);
                self.give("Where", &[&above, &x, &below], vec![], out);
            }
            "Clip" if self.opset < 11 => {
                // A bound that is not given is the largest number, also for infinity.
                let (low, high) = (float("min", f32::MIN), float("max", f32::MAX));
                let (low, high) = (self.scalar(low), self.scalar(high));
                let above = self.make("Max", &[&x, &low], vec![]);
                self.give("Min", &[&above, &high], vec![], out);
            }
            "Clip" if self.opset == 11 => {
                let mut bound = |at: usize, absent: f32| match node.input.get(at) {
                    Some(name) if !name.is_empty() => name.clone(),
                    _ => self.scalar(absent),
                };
                let (low, high) = (bound(1, f32::MIN), bound(2, f32::MAX));
                let above = self.make("Max", &[&x, &low], vec![]);
                self.give("Min", &[&above, &high], vec![], out);
            }
            "Sigmoid" => {
                // tract's ends at 4e-7, which shows where it is multiplied by a large number.
                let less = self.make("Neg", &[&x], vec![]);
                let power = self.make("Exp", &[&less], vec![]);
                let one = self.scalar(1.0);
                let sum = self.make("Add", &[&power, &one], vec![]);
                self.give("Reciprocal", &[&sum], vec![], out);
            }
            "Tanh" => self.saturate("Tanh", &x, 8.5, out),
            "Erf" => self.saturate("Erf", &x, 4.0, out),
            "Gelu" => {
                let tanh = attribute(&node, "approximate").is_some_and(|a| a.s == b"tanh");
                let curve = if tanh {
                    let factor = self.scalar(0.044_715);
                    let square = self.make("Mul", &[&x, &x], vec![]);
                    let cube = self.make("Mul", &[&square, &x], vec![]);
                    let part = self.make("Mul", &[&cube, &factor], vec![]);
                    let sum = self.make("Add", &[&x, &part], vec![]);
                    let root = self.scalar((2.0 / std::f32::consts::PI).sqrt());
                    let scaled = self.make("Mul", &[&sum, &root], vec![]);
                    self.make("Tanh", &[&scaled], vec![])
                } else {
                    let root = self.scalar(std::f32::consts::FRAC_1_SQRT_2);
                    let scaled = self.make("Mul", &[&x, &root], vec![]);
                    self.make("Erf", &[&scaled], vec![])
                };
                let (one, half) = (self.scalar(1.0), self.scalar(0.5));
                let sum = self.make("Add", &[&curve, &one], vec![]);
                let part = self.make("Mul", &[&sum, &half], vec![]);
                // Far below zero the sum is zero but for rounding.
                let low = self.scalar(-10.0);
                let near = self.make("Max", &[&x, &low], vec![]);
                self.give("Mul", &[&near, &part], vec![], out);
            }
            // Their squares are finite up to 1e19 only; the logarithm is as near from 1e4 on.
            "Acosh" | "Asinh" => {
                let (size, sign) = (self.make("Abs", &[&x], vec![]), self.make("Sign", &[&x], vec![]));
                let small = self.scalar(1e4);
                let large = self.make("Greater", &[&size, &small], vec![]);
                let log = self.make("Log", &[&size], vec![]);
                let two = self.scalar(std::f32::consts::LN_2);
                let log = self.make("Add", &[&log, &two], vec![]);
                // Acosh is of no number below 1.
                let log = match node.op_type == "Asinh" {
                    true => self.make("Mul", &[&log, &sign], vec![]),
                    false => {
                        let root = self.make("Sqrt", &[&sign], vec![]);
                        self.make("Mul", &[&log, &root], vec![])
                    }
                };
                let near = self.make(&node.op_type, &[&x], vec![]);
                self.give("Where", &[&large, &log, &near], vec![], out);
            }
            "GroupNormalization" => match self.groups(&node) {
                Some(groups) => self.group_normalization(&x, &groups, out),
                None => self.graph.node.push(node),
            },
            "HardSwish" => {
                let gate = || vec![ratio("alpha", 1.0 / 6.0), ratio("beta", 0.5)];
                let gate = self.make("HardSigmoid", &[&x], gate());
                self.give("Mul", &[&x, &gate], vec![], out);
            }
            "Mod" if int("fmod") != Some(1) => {
                let Some(y) = node.input.get(1).cloned() else { return self.graph.node.push(node) };
                // The sign of the divisor, as Python's %.
                let fmod = || vec![ints_or_int("fmod", None, 1)];
                let rest = self.make("Mod", &[&x, &y], fmod());
                let sum = self.make("Add", &[&rest, &y], vec![]);
                self.give("Mod", &[&sum, &y], fmod(), out);
            }
            "ReduceLogSumExp" => {
                let axes = attribute(&node, "axes").map(|a| a.ints.clone());
                let noop = int("noop_with_empty_axes");
                let how = Reduction { axes, given: node.input.get(1).cloned(), noop };
                let (shift, log) = self.log_sum_exp(&x, &how, int("keepdims").unwrap_or(1));
                self.give("Add", &[&log, &shift], vec![], out);
            }
            "LogSoftmax" => self.log_softmax(&x, int("axis"), out),
            _ => self.graph.node.push(node),
        }
    }

    /// How a group normalisation is made up, if that is known here.
    fn groups(&self, node: &NodeProto) -> Option<Groups> {
        let [_, scale, bias] = node.input.as_slice() else { return None };
        let epsilon = attribute(node, "epsilon").map_or(1e-5, |a| a.f);
        let count = attribute(node, "num_groups")?.i;
        let rows = constant(self.graph, scale)?.dims.first().copied()?;
        Some(Groups { count, rows, scale: scale.clone(), bias: bias.clone(), epsilon })
    }

    /// As ONNX defines it and onnxruntime computes it: the variance is the mean of the squares less the square of the mean, whose
    /// rounding shows where a group's numbers are large beside their differences.
    fn group_normalization(&mut self, x: &str, groups: &Groups, out: String) {
        let shape = self.make("Shape", &[x], vec![]);
        let in_rows = self.wholes(&[0, groups.count, -1]);
        let grouped = self.make("Reshape", &[x, &in_rows], vec![]);
        let along = Reduction { axes: Some(vec![2]), given: None, noop: None };
        let mean = self.reduce("ReduceMean", &grouped, &along, 1);
        let squares = self.make("Mul", &[&grouped, &grouped], vec![]);
        let mean_square = self.reduce("ReduceMean", &squares, &along, 1);
        let square = self.make("Mul", &[&mean, &mean], vec![]);
        let variance = self.make("Sub", &[&mean_square, &square], vec![]);
        let epsilon = self.scalar(groups.epsilon);
        let sum = self.make("Add", &[&variance, &epsilon], vec![]);
        let deviation = self.make("Sqrt", &[&sum], vec![]);
        let centred = self.make("Sub", &[&grouped, &mean], vec![]);
        let mut normal = self.make("Div", &[&centred, &deviation], vec![]);
        // Scale and bias are of a group before operator set 21, and of a channel from there on.
        if self.opset >= 21 {
            let in_rows = self.wholes(&[0, groups.rows, -1]);
            normal = self.make("Reshape", &[&normal, &in_rows], vec![]);
        }
        let column = self.wholes(&[1, groups.rows, 1]);
        let [scale, bias] =
            [&groups.scale, &groups.bias].map(|one| self.make("Reshape", &[one, &column], vec![]));
        let scaled = self.make("Mul", &[&normal, &scale], vec![]);
        let moved = self.make("Add", &[&scaled, &bias], vec![]);
        self.give("Reshape", &[&moved, &shape], vec![], out);
    }

    fn wholes(&mut self, numbers: &[i64]) -> String {
        self.constant(TensorProto {
            dims: vec![numbers.len() as i64],
            data_type: DataType::Int64 as i32,
            int64_data: numbers.to_vec(),
            ..Default::default()
        })
    }

    /// A curve from -1 to 1 that is at its ends from `end` on: tract's stay a little inside.
    fn saturate(&mut self, curve: &str, x: &str, end: f32, out: String) {
        let inside = self.make(curve, &[x], vec![]);
        let (size, sign) = (self.make("Abs", &[x], vec![]), self.make("Sign", &[x], vec![]));
        let end = self.scalar(end);
        let beyond = self.make("Greater", &[&size, &end], vec![]);
        self.give("Where", &[&beyond, &sign, &inside], vec![], out);
    }

    /// Before operator set 13 it is computed over all dimensions from the axis on.
    fn log_softmax(&mut self, x: &str, axis: Option<i64>, out: String) {
        if self.opset >= 13 {
            return self.log_softmax_along(x, axis.unwrap_or(-1), out);
        }
        let flat = self.make("Flatten", &[x], vec![ints_or_int("axis", None, axis.unwrap_or(1))]);
        let shape = self.make("Shape", &[x], vec![]);
        let answer = self.name();
        self.log_softmax_along(&flat, 1, answer.clone());
        self.give("Reshape", &[&answer, &shape], vec![], out);
    }

    fn log_softmax_along(&mut self, x: &str, axis: i64, out: String) {
        let how = Reduction { axes: Some(vec![axis]), given: None, noop: None };
        let (shift, log) = self.log_sum_exp(x, &how, 1);
        let centred = self.make("Sub", &[x, &shift], vec![]);
        self.give("Sub", &[&centred, &log], vec![], out);
    }

    /// The largest number, and the logarithm of the sum of the powers of e of the others less it.
    fn log_sum_exp(&mut self, x: &str, how: &Reduction, keep: i64) -> (String, String) {
        let most = self.reduce("ReduceMax", x, how, 1);
        // An infinite one would make NaN of itself.
        let most = self.finite(&most);
        let centred = self.make("Sub", &[x, &most], vec![]);
        let powers = self.make("Exp", &[&centred], vec![]);
        let sum = self.reduce("ReduceSum", &powers, how, keep);
        let log = self.make("Log", &[&sum], vec![]);
        if keep == 1 {
            return (most, log);
        }
        let most = self.reduce("ReduceMax", x, how, 0);
        (self.finite(&most), log)
    }

    fn finite(&mut self, x: &str) -> String {
        let (low, high) = (self.scalar(f32::MIN), self.scalar(f32::MAX));
        let above = self.make("Max", &[x, &low], vec![]);
        self.make("Min", &[&above, &high], vec![])
    }

    fn reduce(&mut self, operator: &str, x: &str, how: &Reduction, keep: i64) -> String {
        let mut attributes = vec![ints_or_int("keepdims", None, keep)];
        attributes.extend(how.noop.map(|noop| ints_or_int("noop_with_empty_axes", None, noop)));
        let by_input = self.opset >= if operator == "ReduceSum" { 13 } else { 18 };
        match (&how.given, &how.axes) {
            (Some(given), _) => self.make(operator, &[x, &given.clone()], attributes),
            (None, Some(axes)) if by_input => {
                let axes = self.wholes(axes);
                self.make(operator, &[x, &axes], attributes)
            }
            (None, Some(axes)) => {
                attributes.push(ints_or_int("axes", Some(axes.clone()), 0));
                self.make(operator, &[x], attributes)
            }
            (None, None) => self.make(operator, &[x], attributes),
        }
    }

    fn name(&mut self) -> String {
        self.count += 1;
        format!("{MADE}{}", self.count)
    }

    fn scalar(&mut self, value: f32) -> String {
        let data_type = DataType::Float as i32;
        self.constant(TensorProto { data_type, float_data: vec![value], ..Default::default() })
    }

    fn constant(&mut self, tensor: TensorProto) -> String {
        let name = self.name();
        self.graph.initializer.push(TensorProto { name: name.clone(), ..tensor });
        name
    }

    fn make(&mut self, operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let out = self.name();
        self.give(operator, inputs, attributes, out.clone());
        out
    }

    fn give(&mut self, operator: &str, inputs: &[&str], attribute: Vec<AttributeProto>, out: String) {
        self.graph.node.push(NodeProto {
            op_type: operator.into(),
            name: out.clone(),
            input: inputs.iter().map(|name| (*name).into()).collect(),
            output: vec![out],
            attribute,
            ..Default::default()
        });
    }
}

/// What a group normalisation is made of.
struct Groups {
    /// How many groups there are.
    count: i64,
    /// How many scales and biases there are: one for each group or channel.
    rows: i64,
    scale: String,
    bias: String,
    epsilon: f32,
}

/// Over which axes something is reduced.
struct Reduction {
    axes: Option<Vec<i64>>,
    /// The input that says it.
    given: Option<String>,
    noop: Option<i64>,
}

/// The only number of a constant.
fn single(tensor: &TensorProto) -> Option<f64> {
    if tensor.dims.len() > 1 || tensor.dims.iter().product::<i64>() != 1 {
        return None;
    }
    match wholes(tensor) {
        Some(wholes) => wholes.first().map(|n| *n as f64),
        None => floats(tensor).first().map(|x| f64::from(*x)),
    }
}

/// The numbers of a constant of float32; of another type it has none.
fn floats(tensor: &TensorProto) -> Vec<f32> {
    if tensor.data_type != DataType::Float as i32 {
        return Vec::new();
    }
    let raw = tensor.raw_data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    tensor.float_data.iter().copied().chain(raw).collect()
}

fn has_nan(tensor: &TensorProto) -> bool {
    floats(tensor).iter().any(|x| x.is_nan())
}

fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

fn ratio(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Float as i32, f, ..Default::default() }
}

fn ints_or_int(name: &str, ints: Option<Vec<i64>>, i: i64) -> AttributeProto {
    let kind = if ints.is_some() { AttributeType::Ints } else { AttributeType::Int };
    AttributeProto {
        name: name.into(),
        r#type: kind as i32,
        i,
        ints: ints.unwrap_or_default(),
        ..Default::default()
    }
}

//! Whether a graph answers each observation by itself. What is not shown here to do so is run observation by observation: then
//! an answer cannot depend on who else asks.

use super::operators::{constant, wholes};
use std::collections::HashMap;
use tract_onnx::pb::{GraphProto, NodeProto};

/// What is known of a value; each has this rank.
#[derive(Clone, Copy, PartialEq)]
enum Value {
    /// Its first dimension is that of the observations, and each part depends on its own observation only.
    Rows(i64),
    /// It depends on no observation. The rank may be unknown.
    Fixed(Option<i64>),
}

use Value::{Fixed, Rows};

/// Whether each output of the graph is known to have its own part for each observation. `rank`: of the observations, with the batch.
pub(super) fn independent(graph: &GraphProto, opset: i64, rank: usize) -> bool {
    let fixed = graph.initializer.iter().map(|tensor| (&*tensor.name, Fixed(Some(tensor.dims.len() as i64))));
    let mut values: HashMap<&str, Value> =
        graph.input.iter().map(|input| (&*input.name, Rows(rank as i64))).chain(fixed).collect();
    for node in &graph.node {
        let Some(value) = (Reader { graph, opset, values: &values, node }).value() else { continue };
        values.extend(node.output.iter().map(|name| (&**name, value)));
    }
    graph.output.iter().all(|output| matches!(values.get(&*output.name), Some(Rows(_))))
}

struct Reader<'g> {
    graph: &'g GraphProto,
    opset: i64,
    values: &'g HashMap<&'g str, Value>,
    node: &'g NodeProto,
}

impl Reader<'_> {
    /// What the node gives. None: it is not known to be either.
    fn value(&self) -> Option<Value> {
        if let Some(shape) = self.like() {
            return Some(shape);
        }
        let named = || self.node.input.iter().filter(|name| !name.is_empty());
        let inputs = named().map(|name| self.values.get(&**name).copied()).collect::<Option<Vec<_>>>()?;
        if inputs.iter().all(|value| matches!(value, Fixed(_))) {
            let made = self.node.attribute.iter().find_map(|attribute| attribute.t.as_ref());
            return Some(Fixed(made.map(|tensor| tensor.dims.len() as i64)));
        }
        let &Rows(rank) = inputs.first()? else { return self.broadcast(&inputs) };
        let others_fixed = inputs[1..].iter().all(|value| matches!(value, Fixed(_)));
        let behind = |axis: i64, rank: i64| (if axis < 0 { axis + rank } else { axis }) >= 1;
        let same = |rows: bool| rows.then_some(Rows(rank));
        let modern = self.opset >= 13;
        match self.node.op_type.as_str() {
            "Abs" | "Acos" | "Acosh" | "Asin" | "Asinh" | "Atan" | "Atanh" | "Cast" | "Ceil" | "Celu"
            | "Cos" | "Cosh" | "Dropout" | "Elu" | "Erf" | "Exp" | "Floor" | "Gelu" | "HardSigmoid"
            | "HardSwish" | "Identity" | "IsInf" | "IsNaN" | "LeakyRelu" | "Log" | "Mish" | "Neg" | "Not"
            | "Reciprocal" | "Relu" | "Round" | "Selu" | "Shrink" | "Sigmoid" | "Sign" | "Sin" | "Sinh"
            | "Softplus" | "Softsign" | "Sqrt" | "Tan" | "Tanh" | "ThresholdedRelu" => same(others_fixed),
            "BatchNormalization"
            | "Conv"
            | "GlobalAveragePool"
            | "GlobalMaxPool"
            | "GroupNormalization"
            | "AveragePool"
            | "InstanceNormalization"
            | "MaxPool" => same(others_fixed && rank >= 2),
            "LayerNormalization" | "RMSNormalization" | "LpNormalization" => {
                same(others_fixed && behind(self.int("axis", -1), rank))
            }
            "Softmax" | "LogSoftmax" | "Hardmax" => {
                same(behind(self.int("axis", if modern { -1 } else { 1 }), rank))
            }
            "ArgMax" | "ArgMin" => {
                let kept = if self.int("keepdims", 1) == 1 { rank } else { rank - 1 };
                behind(self.int("axis", 0), rank).then_some(Rows(kept))
            }
            name if name.starts_with("Reduce") => {
                let axes = self.axes(1).filter(|axes| !axes.is_empty())?;
                let lost = if self.int("keepdims", 1) == 1 { 0 } else { axes.len() as i64 };
                axes.iter().all(|axis| behind(*axis, rank)).then_some(Rows(rank - lost))
            }
            "Gemm" => {
                let weights = inputs.get(1) == Some(&Fixed(Some(2)));
                let fits = rank == 2 && self.int("transA", 0) == 0 && weights;
                same(fits && self.node.input.get(2).is_none_or(|name| self.spreads(name, 2)))
            }
            "MatMul" => match inputs.as_slice() {
                [_, Fixed(Some(2))] if rank >= 2 => Some(Rows(rank)),
                [_, Fixed(Some(1))] if rank >= 2 => Some(Rows(rank - 1)),
                [_, Rows(other)] if rank >= 3 && *other == rank => Some(Rows(rank)),
                _ => None,
            },
            "Flatten" => (self.int("axis", 1) == 1 && rank >= 2).then_some(Rows(2)),
            "Reshape" => {
                let shape = wholes(constant(self.graph, self.node.input.get(1)?)?)?;
                let keeps = shape.first() == Some(&0) && self.int("allowzero", 0) == 0;
                keeps.then_some(Rows(shape.len() as i64))
            }
            "Transpose" => same(self.ints("perm")?.first() == Some(&0)),
            "Squeeze" => {
                let axes = self.axes(1)?;
                axes.iter().all(|axis| behind(*axis, rank)).then_some(Rows(rank - axes.len() as i64))
            }
            "Unsqueeze" => {
                let axes = self.axes(1)?;
                let rank = rank + axes.len() as i64;
                axes.iter().all(|axis| behind(*axis, rank)).then_some(Rows(rank))
            }
            "Concat" => {
                same(inputs.iter().all(|value| *value == Rows(rank)) && behind(self.int("axis", 0), rank))
            }
            "Split" => same(others_fixed && behind(self.int("axis", 0), rank)),
            "Slice" => same(others_fixed && self.axes(3)?.iter().all(|axis| behind(*axis, rank))),
            "Gather" => match inputs.as_slice() {
                [_, Fixed(Some(indices))] if behind(self.int("axis", 0), rank) => {
                    Some(Rows(rank - 1 + indices))
                }
                _ => None,
            },
            _ => self.broadcast(&inputs),
        }
    }

    /// What is reshaped to the shape of another value, if both have a part for each observation: the parts then stay whole.
    fn like(&self) -> Option<Value> {
        let [value, shape] = self.node.input.as_slice() else { return None };
        let is_shape = |node: &&NodeProto| {
            node.op_type == "Shape" && node.attribute.is_empty() && node.output.first() == Some(shape)
        };
        if self.node.op_type != "Reshape" || !matches!(self.values.get(&**value), Some(Rows(_))) {
            return None;
        }
        let other = self.graph.node.iter().find(is_shape)?.input.first()?;
        self.values.get(&**other).copied().filter(|other| matches!(other, Rows(_)))
    }

    /// Of operators that go number by number.
    fn broadcast(&self, inputs: &[Value]) -> Option<Value> {
        match self.node.op_type.as_str() {
            "Add" | "And" | "Clip" | "Div" | "Equal" | "Greater" | "GreaterOrEqual" | "Less"
            | "LessOrEqual" | "Max" | "Mean" | "Min" | "Mod" | "Mul" | "Or" | "PRelu" | "Pow" | "Sub"
            | "Sum" | "Where" | "Xor" => {}
            "MatMul" => {
                return match inputs {
                    [Fixed(Some(2)), Rows(rank)] if *rank >= 3 => Some(Rows(*rank)),
                    _ => None,
                };
            }
            _ => return None,
        }
        let rank = inputs.iter().find_map(|value| match value {
            Rows(rank) => Some(*rank),
            Fixed(_) => None,
        })?;
        let names = self.node.input.iter().filter(|name| !name.is_empty());
        let fits = |(name, value): (&String, &Value)| match value {
            Rows(other) => *other == rank,
            Fixed(_) => self.spreads(name, rank),
        };
        names.zip(inputs).all(fits).then_some(Rows(rank))
    }

    /// Whether a fixed value is the same for all observations, with values of this rank.
    fn spreads(&self, name: &str, rank: i64) -> bool {
        let first_is_one =
            || constant(self.graph, name).is_some_and(|tensor| tensor.dims.first() == Some(&1));
        match self.values.get(name) {
            Some(Fixed(Some(own))) => *own < rank || (*own == rank && first_is_one()),
            _ => name.is_empty(),
        }
    }

    fn int(&self, name: &str, absent: i64) -> i64 {
        self.node.attribute.iter().find(|attribute| attribute.name == name).map_or(absent, |a| a.i)
    }

    fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.node.attribute.iter().find(|attribute| attribute.name == name).map(|a| a.ints.clone())
    }

    /// The axes that an attribute says, or this input.
    fn axes(&self, input: usize) -> Option<Vec<i64>> {
        self.ints("axes").or_else(|| wholes(constant(self.graph, self.node.input.get(input)?)?))
    }
}

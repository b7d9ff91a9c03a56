//! The operators that are run, in which operator sets, with which attributes and for which types. Each line was held to onnxruntime on graphs drawn at
//! random (`tests/data/make_operators.py`, `operators_test.rs`); anything else is refused by name.
//!
//! No operator here has an output larger than the product of its inputs' sizes, unless its output's shape is known before anything is
//! computed; none has graphs inside; none draws random numbers.

use super::check::malformed;
use crate::PolicyError;
use prost::Message;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

/// An operator that is run.
pub struct Known {
    /// Its name in ONNX.
    pub name: &'static str,
    /// The operator sets in which it is.
    pub opsets: RangeInclusive<i64>,
    /// The types of what it reads: `f` float32, `d` float64, `l` int64, `i` int32, `b` bool.
    pub types: &'static str,
    /// The attributes that it may have.
    pub attributes: &'static [(&'static str, Values)],
}

/// What an attribute may be.
#[derive(Clone, Copy)]
pub enum Values {
    /// Anything.
    Any,
    /// One of these, or numbers of these only.
    Ints(&'static [i64]),
    /// One of these.
    Texts(&'static [&'static str]),
}

use Values::*;

/// All of them, by name.
pub const KNOWN: &[Known] = &[
    line("Abs", 9, 23, "fdli", &[]),
    line("Acos", 9, 23, "f", &[]),
    line("Acosh", 9, 23, "f", &[]),
    line("Add", 9, 23, "fdli", &[]),
    line("And", 9, 23, "b", &[]),
    line("ArgMax", 9, 11, "f", &[("axis", Any), ("keepdims", Ints(&[0, 1]))]),
    line(
        "ArgMax",
        12,
        23,
        "f",
        &[("axis", Any), ("keepdims", Ints(&[0, 1])), ("select_last_index", Ints(&[0, 1]))],
    ),
    line("ArgMin", 9, 11, "f", &[("axis", Any), ("keepdims", Ints(&[0, 1]))]),
    line(
        "ArgMin",
        12,
        23,
        "f",
        &[("axis", Any), ("keepdims", Ints(&[0, 1])), ("select_last_index", Ints(&[0, 1]))],
    ),
    line("Asin", 9, 23, "f", &[]),
    line("Asinh", 9, 23, "f", &[]),
    line("Atan", 9, 23, "f", &[]),
    line("Atanh", 9, 23, "f", &[]),
    line(
        "AveragePool",
        9,
        9,
        "f",
        &[
            ("kernel_shape", Any),
            ("pads", Any),
            ("strides", Any),
            ("auto_pad", Texts(&["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])),
            ("count_include_pad", Ints(&[0, 1])),
        ],
    ),
    line(
        "AveragePool",
        10,
        23,
        "f",
        &[
            ("kernel_shape", Any),
            ("pads", Any),
            ("strides", Any),
            ("auto_pad", Texts(&["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])),
            ("ceil_mode", Ints(&[0, 1])),
            ("count_include_pad", Ints(&[0, 1])),
            ("dilations", Ints(&[1])),
        ],
    ),
    line("BatchNormalization", 9, 13, "f", &[("epsilon", Any), ("momentum", Any)]),
    line(
        "BatchNormalization",
        14,
        23,
        "f",
        &[("epsilon", Any), ("momentum", Any), ("training_mode", Ints(&[0]))],
    ),
    line("Cast", 9, 18, "fdlib", &[("to", Any)]),
    line("Cast", 19, 23, "fdlib", &[("to", Any), ("saturate", Ints(&[0, 1]))]),
    line("Ceil", 9, 23, "fd", &[]),
    line("Celu", 12, 23, "f", &[("alpha", Any)]),
    line("Clip", 9, 10, "f", &[("max", Any), ("min", Any)]),
    line("Clip", 11, 11, "f", &[]),
    line("Clip", 12, 23, "fdli", &[]),
    line("Concat", 9, 23, "fdli", &[("axis", Any)]),
    line("Constant", 9, 11, "f", &[("value", Any)]),
    line(
        "Constant",
        12,
        23,
        "f",
        &[
            ("value", Any),
            ("value_float", Any),
            ("value_floats", Any),
            ("value_int", Any),
            ("value_ints", Any),
        ],
    ),
    line("ConstantOfShape", 9, 23, "l", &[("value", Any)]),
    line(
        "Conv",
        9,
        23,
        "f",
        &[
            ("kernel_shape", Any),
            ("pads", Any),
            ("strides", Any),
            ("auto_pad", Texts(&["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])),
            ("dilations", Any),
            ("group", Any),
        ],
    ),
    line("Cos", 9, 23, "f", &[]),
    line("Cosh", 9, 23, "f", &[]),
    line("CumSum", 11, 23, "f", &[("exclusive", Ints(&[0, 1])), ("reverse", Ints(&[0, 1]))]),
    line("DepthToSpace", 9, 10, "f", &[("blocksize", Any)]),
    line("DepthToSpace", 11, 23, "f", &[("blocksize", Any), ("mode", Texts(&["CRD", "DCR"]))]),
    line("Div", 9, 23, "fdli", &[]),
    line("Dropout", 9, 11, "f", &[("ratio", Any)]),
    line("Dropout", 12, 23, "f", &[("seed", Any)]),
    line("Einsum", 12, 23, "f", &[("equation", Any)]),
    line("Elu", 9, 23, "f", &[("alpha", Any)]),
    line("Equal", 9, 10, "li", &[]),
    line("Equal", 11, 23, "fli", &[]),
    line("Erf", 9, 23, "f", &[]),
    line("Exp", 9, 23, "fd", &[]),
    line("Expand", 9, 23, "f", &[]),
    line("Flatten", 9, 23, "f", &[("axis", Any)]),
    line("Floor", 9, 23, "fd", &[]),
    line("Gather", 9, 23, "fdli", &[("axis", Any)]),
    line("GatherElements", 11, 23, "f", &[("axis", Any)]),
    line("GatherND", 12, 23, "f", &[("batch_dims", Any)]),
    line("Gelu", 20, 23, "f", &[("approximate", Texts(&["none", "tanh"]))]),
    line(
        "Gemm",
        9,
        23,
        "f",
        &[("alpha", Any), ("beta", Any), ("transA", Ints(&[0, 1])), ("transB", Ints(&[0, 1]))],
    ),
    line("GlobalAveragePool", 9, 23, "f", &[]),
    line("GlobalMaxPool", 9, 23, "f", &[]),
    line("Greater", 9, 23, "fdli", &[]),
    line("GreaterOrEqual", 12, 23, "fdli", &[]),
    line("GroupNormalization", 18, 20, "f", &[("epsilon", Any), ("num_groups", Any)]),
    line(
        "GroupNormalization",
        21,
        23,
        "f",
        &[("epsilon", Any), ("num_groups", Any), ("stash_type", Ints(&[1]))],
    ),
    line("HardSigmoid", 9, 23, "f", &[("alpha", Any), ("beta", Any)]),
    line("HardSwish", 14, 23, "f", &[]),
    line("Hardmax", 9, 23, "f", &[("axis", Any)]),
    line("Identity", 9, 23, "fdli", &[]),
    line("InstanceNormalization", 9, 23, "f", &[("epsilon", Any)]),
    line("IsInf", 10, 23, "f", &[("detect_negative", Ints(&[0, 1])), ("detect_positive", Ints(&[0, 1]))]),
    line("IsNaN", 9, 23, "f", &[]),
    line("LayerNormalization", 17, 23, "f", &[("axis", Any), ("epsilon", Any), ("stash_type", Ints(&[1]))]),
    line("LeakyRelu", 9, 23, "f", &[("alpha", Any)]),
    line("Less", 9, 23, "fdli", &[]),
    line("LessOrEqual", 12, 23, "fdli", &[]),
    line("Log", 9, 23, "fd", &[]),
    line("LogSoftmax", 9, 23, "f", &[("axis", Any)]),
    line("LpNormalization", 9, 23, "f", &[("axis", Any), ("p", Ints(&[1, 2]))]),
    line("MatMul", 9, 23, "fd", &[]),
    line("Max", 9, 11, "fd", &[]),
    line("Max", 12, 23, "fdli", &[]),
    line(
        "MaxPool",
        9,
        9,
        "f",
        &[
            ("kernel_shape", Any),
            ("pads", Any),
            ("strides", Any),
            ("auto_pad", Texts(&["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])),
            ("storage_order", Ints(&[0])),
        ],
    ),
    line(
        "MaxPool",
        10,
        23,
        "f",
        &[
            ("kernel_shape", Any),
            ("pads", Any),
            ("strides", Any),
            ("auto_pad", Texts(&["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])),
            ("ceil_mode", Ints(&[0, 1])),
            ("dilations", Ints(&[1])),
            ("storage_order", Ints(&[0])),
        ],
    ),
    line("Mean", 9, 23, "f", &[]),
    line("Min", 9, 11, "fd", &[]),
    line("Min", 12, 23, "fdli", &[]),
    line("Mish", 18, 23, "f", &[]),
    line("Mod", 10, 23, "li", &[("fmod", Ints(&[0, 1]))]),
    line("Mod", 10, 23, "fd", &[("fmod", Ints(&[1]))]),
    line("Mul", 9, 23, "fdli", &[]),
    line("Neg", 9, 23, "fdli", &[]),
    line("Not", 9, 23, "b", &[]),
    line("Or", 9, 23, "b", &[]),
    line("PRelu", 9, 23, "f", &[]),
    line(
        "Pad",
        9,
        10,
        "f",
        &[("pads", Any), ("value", Any), ("mode", Texts(&["constant", "edge", "reflect"]))],
    ),
    line("Pad", 11, 23, "f", &[("mode", Texts(&["constant", "edge", "reflect"]))]),
    line("Pow", 9, 11, "f", &[]),
    line("Pow", 12, 23, "fdi", &[]),
    line("RMSNormalization", 23, 23, "f", &[("axis", Any), ("epsilon", Any), ("stash_type", Ints(&[1]))]),
    line("Reciprocal", 9, 23, "fd", &[]),
    line("ReduceL1", 9, 17, "f", &[("axes", Any), ("keepdims", Ints(&[0, 1]))]),
    line("ReduceL1", 18, 23, "f", &[("keepdims", Ints(&[0, 1])), ("noop_with_empty_axes", Ints(&[0, 1]))]),
    line("ReduceL2", 9, 17, "f", &[("axes", Any), ("keepdims", Ints(&[0, 1]))]),
    line("ReduceL2", 18, 23, "f", &[("keepdims", Ints(&[0, 1])), ("noop_with_empty_axes", Ints(&[0, 1]))]),
    line("ReduceLogSum", 9, 17, "f", &[("axes", Any), ("keepdims", Ints(&[0, 1]))]),
    line(
        "ReduceLogSum",
        18,
        23,
        "f",
        &[("keepdims", Ints(&[0, 1])), ("noop_with_empty_axes", Ints(&[0, 1]))],
    ),
    line("ReduceLogSumExp", 9, 17, "f", &[("axes", Any), ("keepdims", Ints(&[0, 1]))]),
    line(
        "ReduceLogSumExp",
        18,
        23,
        "f",
        &[("keepdims", Ints(&[0, 1])), ("noop_with_empty_axes", Ints(&[0, 1]))],
    ),
    line("ReduceMax", 9, 17, "fli", &[("axes", Any), ("keepdims", Ints(&[0, 1]))]),
    line("ReduceMax", 18, 23, "fli", &[("keepdims", Ints(&[0, 1])), ("noop_with_empty_axes", Ints(&[0, 1]))]),
    line("ReduceMean", 9, 17, "fd", &[("axes", Any), ("keepdims", Ints(&[0, 1]))]),
    line("ReduceMean", 18, 23, "fd", &[("keepdims", Ints(&[0, 1])), ("noop_with_empty_axes", Ints(&[0, 1]))]),
    line("ReduceMin", 9, 17, "fli", &[("axes", Any), ("keepdims", Ints(&[0, 1]))]),
    line("ReduceMin", 18, 23, "fli", &[("keepdims", Ints(&[0, 1])), ("noop_with_empty_axes", Ints(&[0, 1]))]),
    line("ReduceProd", 9, 17, "f", &[("axes", Any), ("keepdims", Ints(&[0, 1]))]),
    line("ReduceProd", 18, 23, "f", &[("keepdims", Ints(&[0, 1])), ("noop_with_empty_axes", Ints(&[0, 1]))]),
    line("ReduceSum", 9, 12, "fdli", &[("axes", Any), ("keepdims", Ints(&[0, 1]))]),
    line(
        "ReduceSum",
        13,
        23,
        "fdli",
        &[("keepdims", Ints(&[0, 1])), ("noop_with_empty_axes", Ints(&[0, 1]))],
    ),
    line("ReduceSumSquare", 9, 17, "fd", &[("axes", Any), ("keepdims", Ints(&[0, 1]))]),
    line(
        "ReduceSumSquare",
        18,
        23,
        "fd",
        &[("keepdims", Ints(&[0, 1])), ("noop_with_empty_axes", Ints(&[0, 1]))],
    ),
    line("Relu", 9, 23, "fd", &[]),
    line("Reshape", 9, 13, "fdli", &[]),
    line("Reshape", 14, 23, "fdli", &[("allowzero", Ints(&[0, 1]))]),
    line("Round", 11, 23, "f", &[]),
    line("Selu", 9, 23, "f", &[("alpha", Any), ("gamma", Any)]),
    line("Shape", 9, 14, "f", &[]),
    line("Shape", 15, 23, "f", &[("end", Any), ("start", Any)]),
    line("Shrink", 9, 23, "f", &[("bias", Any), ("lambd", Any)]),
    line("Sigmoid", 9, 23, "f", &[]),
    line("Sign", 9, 23, "fdi", &[]),
    line("Sin", 9, 23, "f", &[]),
    line("Sinh", 9, 23, "f", &[]),
    line("Slice", 9, 9, "fdli", &[("axes", Any), ("ends", Any), ("starts", Any)]),
    line("Slice", 10, 23, "fdli", &[]),
    line("Softmax", 9, 23, "f", &[("axis", Any)]),
    line("Softplus", 9, 23, "f", &[]),
    line("Softsign", 9, 23, "f", &[]),
    line("SpaceToDepth", 9, 23, "f", &[("blocksize", Any)]),
    line("Split", 9, 12, "f", &[("axis", Any), ("split", Any)]),
    line("Split", 13, 17, "f", &[("axis", Any)]),
    line("Split", 18, 23, "f", &[("axis", Any), ("num_outputs", Any)]),
    line("Sqrt", 9, 23, "fd", &[]),
    line("Squeeze", 9, 12, "fdli", &[("axes", Any)]),
    line("Squeeze", 13, 23, "fdli", &[]),
    line("Sub", 9, 23, "fdli", &[]),
    line("Sum", 9, 23, "fd", &[]),
    line("Tanh", 9, 23, "fd", &[]),
    line("ThresholdedRelu", 10, 23, "f", &[("alpha", Any)]),
    line("Tile", 9, 23, "f", &[]),
    line("TopK", 10, 10, "f", &[("axis", Any)]),
    line("TopK", 11, 23, "f", &[("axis", Any), ("largest", Ints(&[0, 1])), ("sorted", Ints(&[0, 1]))]),
    line("Transpose", 9, 23, "fdli", &[("perm", Any)]),
    line("Unsqueeze", 9, 12, "fdli", &[("axes", Any)]),
    line("Unsqueeze", 13, 23, "fdli", &[]),
    line("Where", 9, 23, "fli", &[]),
    line("Xor", 9, 23, "b", &[]),
];

const fn line(
    name: &'static str,
    first: i64,
    last: i64,
    types: &'static str,
    attributes: &'static [(&'static str, Values)],
) -> Known {
    Known { name, opsets: first..=last, types, attributes }
}

/// Checks that each node is one of [`KNOWN`].
pub(super) fn check(model: &ModelProto, graph: &GraphProto) -> Result<(), PolicyError> {
    uses(model, graph).map(drop)
}

/// For each node of a model the line of [`KNOWN`] that it is, and the type of what it reads.
///
/// # Errors
/// If the model is no readable ONNX file, or has a node that no line allows.
pub fn used(model: &[u8]) -> Result<Vec<(usize, char)>, PolicyError> {
    let model = ModelProto::decode(model).map_err(|error| malformed(error.to_string()))?;
    uses(&model, model.graph.as_ref().ok_or_else(|| malformed("there is no graph in it"))?)
}

/// The operator set that a model says it uses.
pub(super) fn opset(model: &ModelProto) -> i64 {
    let is_ours = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    model.opset_import.iter().find(|set| is_ours(&set.domain)).map_or(0, |set| set.version)
}

pub(super) fn uses(model: &ModelProto, graph: &GraphProto) -> Result<Vec<(usize, char)>, PolicyError> {
    let is_ours = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let opset = opset(model);
    let mut types: HashMap<&str, char> =
        graph.initializer.iter().map(|tensor| (&*tensor.name, letter(tensor.data_type))).collect();
    let mut uses = Vec::new();
    for node in &graph.node {
        let refused = |what: String| PolicyError::UnsupportedOperator {
            operator: [&*node.domain, &*node.op_type].join(if node.domain.is_empty() { "" } else { "." }),
            node: node.name.clone(),
            what,
        };
        let lines = || KNOWN.iter().enumerate().filter(|(_, known)| known.name == node.op_type);
        if !is_ours(&node.domain) || lines().next().is_none() {
            return Err(refused(String::new()));
        }
        // What is no constant and no node's is the observation.
        let read = |name: &String| types.get(&**name).copied().unwrap_or('f');
        let reads: Vec<char> = data(node).iter().filter(|name| !name.is_empty()).map(read).collect();
        let mut why = format!(" in operator set {opset}");
        let mut found = None;
        for (line, known) in lines().filter(|(_, known)| known.opsets.contains(&opset)) {
            let strange = node.attribute.iter().find(|attribute| !known.has(attribute));
            let foreign = reads.iter().find(|read| !known.types.contains(**read));
            match (strange, foreign) {
                (Some(attribute), _) => why = format!(" in operator set {opset} with {}", shown(attribute)),
                (_, Some(read)) => why = format!(" in operator set {opset} for {}", word(*read)),
                _ => found = Some(line),
            }
        }
        let line = found.ok_or_else(|| refused(why))?;
        if let Some(what) = odd(node, graph) {
            return Err(refused(format!(" with {what}")));
        }
        let first = reads.first().copied().unwrap_or('f');
        uses.push((line, first));
        let gives = given(node, first);
        for (at, name) in node.output.iter().enumerate() {
            let integer = (node.op_type == "TopK" || node.op_type == "MaxPool") && at == 1;
            types.insert(name, if integer { 'l' } else { gives });
        }
    }
    Ok(uses)
}

/// What inputs may not be, where they say how an operator works.
fn odd(node: &NodeProto, graph: &GraphProto) -> Option<&'static str> {
    let is_given = |at: usize| node.input.get(at).is_some_and(|name| !name.is_empty());
    match node.op_type.as_str() {
        "Celu" => {
            node.attribute.iter().any(|a| a.name == "alpha" && a.f <= 0.0).then_some("alpha = 0 or less")
        }
        // It could say that numbers shall be dropped.
        "Dropout" => is_given(2).then_some("training_mode"),
        "Pad" => {
            let attribute = node.attribute.iter().find(|attribute| attribute.name == "pads");
            let constant = || wholes(constant(graph, node.input.get(1)?)?);
            let pads = attribute.map(|attribute| attribute.ints.clone()).or_else(constant);
            match pads {
                Some(pads) => pads.iter().any(|pad| *pad < 0).then_some("negative pads"),
                None => Some("pads that are no constant"),
            }
        }
        _ => None,
    }
}

/// The constant of this name.
pub(super) fn constant<'g>(graph: &'g GraphProto, name: &str) -> Option<&'g TensorProto> {
    let given = graph.initializer.iter().find(|tensor| tensor.name == name);
    let made = || {
        let node = graph
            .node
            .iter()
            .find(|node| node.op_type == "Constant" && node.output.iter().any(|o| o == name));
        node?.attribute.first()?.t.as_ref()
    };
    given.or_else(made)
}

/// The whole numbers of a constant.
pub(super) fn wholes(tensor: &TensorProto) -> Option<Vec<i64>> {
    match (DataType::try_from(tensor.data_type), tensor.raw_data.is_empty()) {
        (Ok(DataType::Int64), true) => Some(tensor.int64_data.clone()),
        (Ok(DataType::Int64), false) => {
            Some(tensor.raw_data.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
        }
        (Ok(DataType::Int32), true) => Some(tensor.int32_data.iter().map(|n| i64::from(*n)).collect()),
        (Ok(DataType::Int32), false) => {
            let numbers = tensor.raw_data.as_chunks::<4>().0.iter();
            Some(numbers.map(|bytes| i32::from_le_bytes(*bytes).into()).collect())
        }
        _ => None,
    }
}

impl Known {
    fn has(&self, given: &AttributeProto) -> bool {
        let flat = given.g.is_none() && given.graphs.is_empty() && given.sparse_tensor.is_none();
        let known = self.attributes.iter().find(|(name, _)| *name == given.name);
        flat && known.is_some_and(|(_, values)| values.contain(given))
    }
}

impl Values {
    fn contain(self, given: &AttributeProto) -> bool {
        let kind = AttributeType::try_from(given.r#type);
        match (self, kind) {
            (Any, _) => true,
            (Ints(ints), Ok(AttributeType::Int)) => ints.contains(&given.i),
            (Ints(ints), Ok(AttributeType::Ints)) => given.ints.iter().all(|int| ints.contains(int)),
            (Texts(texts), Ok(AttributeType::String)) => texts.iter().any(|text| text.as_bytes() == given.s),
            _ => false,
        }
    }
}

/// An attribute for a message.
fn shown(attribute: &AttributeProto) -> String {
    let name: String = attribute.name.chars().take(40).collect();
    let value = match AttributeType::try_from(attribute.r#type) {
        Ok(AttributeType::Int) => attribute.i.to_string(),
        Ok(AttributeType::Float) => attribute.f.to_string(),
        Ok(AttributeType::Ints) if attribute.ints.len() < 9 => format!("{:?}", attribute.ints),
        Ok(AttributeType::String) if attribute.s.len() < 41 => String::from_utf8_lossy(&attribute.s).into(),
        _ => return name,
    };
    format!("{name} = {value}")
}

/// What a node reads beside sizes, indices and conditions.
fn data(node: &NodeProto) -> &[String] {
    let inputs = &node.input;
    match node.op_type.as_str() {
        "Where" => inputs.get(1..).unwrap_or_default(),
        "Add"
        | "And"
        | "BatchNormalization"
        | "Clip"
        | "Concat"
        | "Conv"
        | "Div"
        | "Einsum"
        | "Equal"
        | "Gemm"
        | "Greater"
        | "GreaterOrEqual"
        | "GroupNormalization"
        | "InstanceNormalization"
        | "LayerNormalization"
        | "Less"
        | "LessOrEqual"
        | "MatMul"
        | "Max"
        | "Mean"
        | "Min"
        | "Mod"
        | "Mul"
        | "Or"
        | "Pow"
        | "PRelu"
        | "RMSNormalization"
        | "Sub"
        | "Sum"
        | "Xor" => inputs,
        _ => inputs.get(..1).unwrap_or_default(),
    }
}

/// The type of what a node gives that reads this one.
fn given(node: &NodeProto, read: char) -> char {
    let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
    match node.op_type.as_str() {
        "And" | "Equal" | "Greater" | "GreaterOrEqual" | "IsInf" | "IsNaN" | "Less" | "LessOrEqual"
        | "Not" | "Or" | "Xor" => 'b',
        "ArgMax" | "ArgMin" | "Shape" | "Size" => 'l',
        "Cast" => attribute("to").map_or('?', |to| i32::try_from(to.i).map_or('?', letter)),
        "Constant" => match node.attribute.first() {
            Some(AttributeProto { t: Some(tensor), .. }) => letter(tensor.data_type),
            Some(attribute) if attribute.name.starts_with("value_int") => 'l',
            _ => 'f',
        },
        "ConstantOfShape" => {
            attribute("value").and_then(|a| a.t.as_ref()).map_or('f', |t| letter(t.data_type))
        }
        _ => read,
    }
}

fn letter(data_type: i32) -> char {
    match DataType::try_from(data_type) {
        Ok(DataType::Float) => 'f',
        Ok(DataType::Double) => 'd',
        Ok(DataType::Int64) => 'l',
        Ok(DataType::Int32) => 'i',
        Ok(DataType::Bool) => 'b',
        _ => '?',
    }
}

fn word(letter: char) -> &'static str {
    match letter {
        'f' => "float32",
        'd' => "float64",
        'l' => "int64",
        'i' => "int32",
        'b' => "bool",
        _ => "numbers of this type",
    }
}

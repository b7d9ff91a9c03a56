//! What is checked about an ONNX graph before tract sees it. tract was not written for hostile files: it computes what
//! depends on constants while it loads, indexes by names without looking, and follows file names. So here a graph is held to
//! operators that policies use, to names that exist, to data inside the file, and to constants that cannot grow.

use super::external::is_external;
use super::operators;
use crate::PolicyError;
use oto_proto::MAX_WIDTH;
use std::collections::{HashMap, HashSet};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dim;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, type_proto};

/// The most nodes a graph may have.
const MAX_NODES: usize = 10_000;
/// The most numbers that a value computed from constants alone may have.
const MAX_FOLDED: u64 = 1 << 22;

/// The shape of one observation, as the graph's only input has it behind the batch dimension.
pub(super) fn check(model: &ModelProto) -> Result<Vec<usize>, PolicyError> {
    let graph = model.graph.as_ref().ok_or_else(|| malformed("there is no graph in it"))?;
    // Required by ONNX from IR version 3 on, and the last field that exporters write: without it the file is cut off.
    if !model.opset_import.iter().any(|set| set.domain.is_empty() || set.domain == "ai.onnx") {
        return Err(malformed("it does not say which operator set it uses (opset_import)"));
    }
    if graph.node.len() > MAX_NODES {
        let (found, max) = (graph.node.len() as u64, MAX_NODES as u64);
        return Err(PolicyError::TooLarge { what: "the graph".into(), found, max, unit: "nodes" });
    }
    operators::check(model, graph)?;
    if !graph.sparse_initializer.is_empty() {
        return Err(PolicyError::Unsupported("an ONNX graph with sparse constants".into()));
    }
    check_values(graph)?;
    observation_shape(graph)
}

pub(super) fn malformed(reason: impl Into<String>) -> PolicyError {
    PolicyError::Malformed { format: "ONNX file", reason: reason.into() }
}

/// Follows the values through the graph: each is given before it is read, and those that depend on constants alone
/// stay small.
fn check_values(graph: &GraphProto) -> Result<(), PolicyError> {
    // The number of elements of a value that does not depend on the observation, `None` if it does. No operator gives
    // more elements than the product of its inputs' numbers of elements.
    let mut values: HashMap<&str, Option<u64>> = HashMap::new();
    values.extend(graph.input.iter().map(|input| (input.name.as_str(), None)));
    for tensor in &graph.initializer {
        values.insert(&tensor.name, Some(elements(tensor)?));
    }
    // The shapes of whole values, each with the number of its value's elements.
    let mut shapes: HashMap<&str, Option<u64>> = HashMap::new();
    for node in &graph.node {
        let mut size = if node.op_type == "Constant" { constant(node)? } else { Some(1) };
        for (at, input) in node.input.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let Some(mut input_size) = values.get(input.as_str()) else {
                return Err(malformed(format!(
                    "node {:?} reads {input:?}, which nothing before it gives",
                    node.name
                )));
            };
            if told_shape(node) == Some(at) {
                input_size = shapes.get(input.as_str()).ok_or_else(|| {
                    let (operator, node) = (&node.op_type, &node.name);
                    let reason = format!("{operator} (node {node:?}) to a shape that is not another value's");
                    PolicyError::Unsupported(reason)
                })?;
            }
            size = size.zip(*input_size).map(|(a, b)| a.saturating_mul(b.max(1)));
        }
        if node.op_type == "Shape" {
            if let ([of], [shape], []) = (&*node.input, &*node.output, &*node.attribute) {
                shapes.extend(values.get(of.as_str()).map(|size| (shape.as_str(), *size)));
            }
            // Known in part while loading, and as short as a shape.
            size = Some(8);
        }
        // How much these make of their input is not in its size.
        if size.is_some() && matches!(node.op_type.as_str(), "Pad" | "Tile") {
            let (operator, node) = (&node.op_type, &node.name);
            return Err(PolicyError::Unsupported(format!("{operator} (node {node:?}) of constants")));
        }
        // One constant alone is as large as the file has it.
        if let Some(found) = size.filter(|size| *size > MAX_FOLDED && node.input.len() > 1) {
            let what = format!("what node {:?} makes of constants", node.name);
            return Err(PolicyError::TooLarge { what, found, max: MAX_FOLDED, unit: "numbers" });
        }
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            // tract would read the last one of that name, wherever it is read.
            if values.insert(output, size).is_some() {
                return Err(malformed(format!("the name {output:?} stands for two values")));
            }
        }
    }
    match graph.output.iter().find(|output| !values.contains_key(output.name.as_str())) {
        Some(output) => Err(malformed(format!("nothing gives the output {:?}", output.name))),
        None => Ok(()),
    }
}

/// Which input of an operator says the shape of what it gives.
fn told_shape(node: &NodeProto) -> Option<usize> {
    match node.op_type.as_str() {
        "ConstantOfShape" => Some(0),
        "Expand" => Some(1),
        _ => None,
    }
}

fn constant(node: &NodeProto) -> Result<Option<u64>, PolicyError> {
    let tensors = node.attribute.iter().filter_map(|a| a.t.as_ref()).map(elements);
    let listed: usize = node.attribute.iter().map(|a| a.floats.len() + a.ints.len()).sum();
    Ok(Some(tensors.sum::<Result<u64, _>>()?.max(1).max(listed as u64)))
}

/// The number of elements of a constant, which must all be there.
fn elements(tensor: &TensorProto) -> Result<u64, PolicyError> {
    let name = &tensor.name;
    if is_external(tensor) {
        let how = "export into one file (external_data=False)";
        return Err(PolicyError::Unsupported(format!("the constant {name:?} lies in another file; {how}")));
    }
    let claimed = tensor.dims.iter().try_fold(1u64, |n, d| n.checked_mul(u64::try_from(*d).ok()?));
    let (bytes, given) = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) => (4, tensor.float_data.len()),
        Ok(DataType::Double) => (8, tensor.double_data.len()),
        Ok(DataType::Int64) => (8, tensor.int64_data.len()),
        Ok(DataType::Int32) => (4, tensor.int32_data.len()),
        Ok(DataType::Bool | DataType::Uint8 | DataType::Int8) => (1, tensor.int32_data.len()),
        _ => {
            let message = format!("the constant {name:?} has the ONNX data type {}", tensor.data_type);
            return Err(PolicyError::Unsupported(message));
        }
    };
    let whole = if tensor.raw_data.is_empty() {
        claimed == Some(given as u64)
    } else {
        claimed.and_then(|n| n.checked_mul(bytes)) == Some(tensor.raw_data.len() as u64)
    };
    if !whole || tensor.dims.len() > 8 {
        return Err(malformed(format!(
            "the constant {name:?} does not hold the numbers of its shape {:?}",
            tensor.dims
        )));
    }
    Ok(claimed.unwrap_or(0))
}

/// The model with what its `outputs` need and no more; `None` if it has none of them.
pub(super) fn only(outputs: &[&str], model: &ModelProto) -> Option<ModelProto> {
    let mut model = model.clone();
    let graph = model.graph.as_mut()?;
    graph.output.retain(|output| outputs.contains(&output.name.as_str()));
    let mut needed: HashSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let mut nodes = std::mem::take(&mut graph.node);
    nodes.reverse();
    nodes.retain(|node| {
        let is_needed = node.output.iter().any(|name| needed.contains(name));
        if is_needed {
            needed.extend(node.input.iter().cloned());
        }
        is_needed
    });
    nodes.reverse();
    graph.node = nodes;
    (!graph.output.is_empty()).then_some(model)
}

/// How many observations the graph was written for, if for so many only.
pub(super) fn fixed_rows(model: &ModelProto) -> Option<i64> {
    let graph = model.graph.as_ref()?;
    let is_constant = |input: &&ValueInfoProto| graph.initializer.iter().any(|t| t.name == input.name);
    let input = graph.input.iter().find(|input| !is_constant(input))?;
    let type_proto::Value::TensorType(tensor) = input.r#type.as_ref()?.value.as_ref()?;
    match tensor.shape.as_ref()?.dim.first()?.value {
        Some(Dim::DimValue(rows)) => Some(rows),
        _ => None,
    }
}

fn observation_shape(graph: &GraphProto) -> Result<Vec<usize>, PolicyError> {
    let is_constant = |input: &&ValueInfoProto| graph.initializer.iter().any(|t| t.name == input.name);
    let inputs: Vec<_> = graph.input.iter().filter(|input| !is_constant(input)).collect();
    let &[input] = inputs.as_slice() else {
        let names: Vec<_> = inputs.iter().take(4).map(|input| &input.name).collect();
        return Err(PolicyError::Unsupported(format!("expected one input, the observations; got {names:?}")));
    };
    let expected = || {
        let name = &input.name;
        PolicyError::Unsupported(format!(
            "the input {name:?} is not float32 of the shape [batch, numbers...]"
        ))
    };
    let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) = &input.r#type else {
        return Err(expected());
    };
    let dims = tensor.shape.as_ref().map(|shape| shape.dim.as_slice()).unwrap_or_default();
    if tensor.elem_type != DataType::Float as i32 || !(2..=5).contains(&dims.len()) {
        return Err(expected());
    }
    let size = |dim: &Option<Dim>| match dim {
        Some(Dim::DimValue(n)) => usize::try_from(*n).ok().filter(|n| (1..=MAX_WIDTH).contains(n)),
        _ => None,
    };
    dims[1..].iter().map(|dim| size(&dim.value).ok_or_else(expected)).collect()
}

//! Graphs that are plain networks: steps in a row from the observations to the action. oto computes them itself, because tract's
//! way through a graph takes longer than all the arithmetic of a small network.
//!
//! Known are `Gemm` and `MatMul` with constant weights; `Relu` and `Tanh`; `Clip`; sums, differences, products and quotients
//! with constants, which normalise observations and scale actions; `ArgMax` at the end; and what changes nothing for rows of
//! numbers. Anything else, and any attribute or value of one that is not named here, leaves the graph to tract.

use crate::steps::{Operation, Step, Steps};
use crate::{OWN, PolicyError, argmax, candle};
use oto_cpu::Linear;
use oto_graph::Activation;
use std::collections::HashMap;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// A graph that is a plain network.
pub(super) struct Plain {
    steps: Steps,
    /// Whether the answer is which of the last numbers is the largest, not they themselves.
    pub chooses: bool,
    /// Numbers of a row behind the last step.
    pub width: usize,
    /// No sum overflows for observations up to this.
    reach: f32,
    /// The same on candle's layers, for the rows that they are faster with.
    candle: Option<candle::Network>,
    /// What computes it.
    pub engine: String,
}

/// A network that may overflow for observations as small as this is left to tract.
const LEAST_REACH: f32 = 1e6;

impl Plain {
    /// The network that gives `output` for rows of `width` numbers, if it is one.
    pub fn new(graph: &GraphProto, output: &str, width: usize) -> Option<Self> {
        let constants = constants(graph)?;
        let mut reader = Reader { constants: &constants, steps: Vec::new(), chooses: false, width };
        for (node, from) in path(graph, &constants, output)? {
            reader.read(node, from)?;
        }
        let Reader { steps, chooses, width, .. } = reader;
        let steps = Steps::new(steps);
        let reach = steps.reach().filter(|reach| *reach >= LEAST_REACH)?;
        Some(Plain { steps, chooses, width, reach, candle: None, engine: OWN.into() })
    }

    /// Moves it to the device of this process, where that is faster. `inputs`: numbers of a row.
    pub fn place(&mut self, inputs: usize) -> Result<(), PolicyError> {
        if let Some(opened) = candle::Network::open(None, &self.steps, inputs)? {
            (self.candle, self.engine) = opened.chosen(|rows| self.steps.forward(rows).to_vec())?;
        }
        Ok(())
    }

    /// Whether it may answer these. Larger ones are tract's: they may or may not come to an infinity on the way.
    pub fn reaches(&self, observations: &[f32]) -> bool {
        observations.iter().all(|x| x.abs() <= self.reach)
    }

    /// The last numbers for row-major observations, whole rows: `[rows, width]`.
    pub fn forward(&mut self, observations: &[f32]) -> &[f32] {
        self.steps.forward(observations)
    }

    /// Adds the actions for these rows to `actions`.
    pub fn act(&mut self, observations: &[f32], actions: &mut Vec<f32>) -> Result<(), PolicyError> {
        let (chooses, width) = (self.chooses, self.width);
        let numbers = match &mut self.candle {
            Some(candle) if candle.takes(observations) => candle.forward(observations)?,
            _ => self.steps.forward(observations),
        };
        if chooses {
            return argmax(numbers, width, actions);
        }
        actions.extend_from_slice(numbers);
        Ok(())
    }
}

/// All constants by name. None if a name stands for two of them.
fn constants(graph: &GraphProto) -> Option<HashMap<&str, &TensorProto>> {
    let mut constants = HashMap::new();
    let value = |node: &'_ NodeProto| node.op_type == "Constant";
    let given = graph.node.iter().filter(|node| value(node)).filter_map(|node| {
        match (node.output.as_slice(), node.attribute.as_slice()) {
            ([name], [AttributeProto { t: Some(tensor), .. }]) => Some((name.as_str(), tensor)),
            _ => None,
        }
    });
    for (name, tensor) in graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).chain(given) {
        if constants.insert(name, tensor).is_some() {
            return None;
        }
    }
    Some(constants)
}

/// The nodes from the observations to `output`, each with the name of the one thing it reads that is no constant. None if a
/// name stands for two things, or the nodes are no row.
fn path<'g>(
    graph: &'g GraphProto,
    constants: &HashMap<&str, &TensorProto>,
    output: &str,
) -> Option<Vec<(&'g NodeProto, &'g str)>> {
    let is_constant = |name: &str| constants.contains_key(name);
    let inputs = graph.input.iter().map(|input| input.name.as_str()).filter(|name| !is_constant(name));
    let nodes = graph.node.iter().filter(|node| node.op_type != "Constant");
    let results = nodes.flat_map(|node| node.output.iter().map(move |name| (name.as_str(), Some(node))));
    let mut makers = HashMap::new();
    for (name, maker) in inputs.map(|name| (name, None)).chain(results) {
        if is_constant(name) || makers.insert(name, maker).is_some() {
            return None;
        }
    }
    let (mut path, mut at) = (Vec::new(), output);
    // It ends: names are unique, and `check` has seen that each is given before it is read.
    while let Some(node) = *makers.get(at)? {
        let mut read = node.input.iter().filter(|name| !name.is_empty() && !is_constant(name));
        let (Some(from), None) = (read.next(), read.next()) else { return None };
        path.push((node, from.as_str()));
        at = from;
    }
    path.reverse();
    Some(path)
}

/// What has been read of a path.
struct Reader<'g> {
    constants: &'g HashMap<&'g str, &'g TensorProto>,
    steps: Vec<Step>,
    /// Whether the largest has been chosen.
    chooses: bool,
    /// Numbers of a row by now.
    width: usize,
}

/// Numbers that an attribute may have.
type Known<'a> = (&'a str, &'a [f64]);

const GEMM: &[Known] = &[("alpha", &[1.0]), ("beta", &[1.0]), ("transA", &[0.0]), ("transB", &[0.0, 1.0])];
const ARGMAX: &[Known] = &[("axis", &[1.0, -1.0]), ("keepdims", &[0.0, 1.0]), ("select_last_index", &[0.0])];
const TO_FLOAT: &[Known] = &[("to", &[DataType::Float as i32 as f64])];
/// A choice stays a whole number in these.
const TO_NUMBER: &[Known] =
    &[("to", &[DataType::Float as i32 as f64, DataType::Int32 as i32 as f64, DataType::Int64 as i32 as f64])];

impl Reader<'_> {
    /// Takes in the next node, which reads `from`. None if it is not known.
    fn read(&mut self, node: &NodeProto, from: &str) -> Option<()> {
        let input = |at: usize| node.input.get(at).map(String::as_str).filter(|name| !name.is_empty());
        let known = |attributes: &[Known]| node.attribute.iter().all(|given| is_known(given, attributes));
        // Which side of a product or a difference it is matters.
        let first = input(0) == Some(from);
        match node.op_type.as_str() {
            "Identity" if known(&[]) => {}
            "Cast" if known(if self.chooses { TO_NUMBER } else { TO_FLOAT }) => {}
            _ if self.chooses => return None,
            "Flatten" if known(&[("axis", &[1.0])]) => {}
            "Relu" if known(&[]) => self.activate(Activation::Relu),
            "Tanh" if known(&[]) => self.activate(Activation::Tanh),
            "Clip" if first && known(&[]) => {
                let bound = |at, absent| input(at).map_or(Some(absent), |name| self.scalar(name));
                let step = Step::Clip(bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?);
                self.steps.push(step);
            }
            "Gemm" if first && known(GEMM) => {
                self.linear(input(1)?, attribute(node, "transB") == Some(1.0), input(2))?;
            }
            "MatMul" if first && known(&[]) => self.linear(input(1)?, false, None)?,
            "Add" if known(&[]) => self.each(Operation::Add, input(usize::from(first))?)?,
            "Mul" if known(&[]) => self.each(Operation::Multiply, input(usize::from(first))?)?,
            "Sub" if first && known(&[]) => self.each(Operation::Subtract, input(1)?)?,
            "Div" if first && known(&[]) => self.each(Operation::Divide, input(1)?)?,
            // Without an axis it chooses among rows.
            "ArgMax" if known(ARGMAX) && attribute(node, "axis").is_some() => self.chooses = true,
            _ => return None,
        }
        Some(())
    }

    /// Together with the layer before it, where that has no activation yet.
    fn activate(&mut self, activation: Activation) {
        match self.steps.last_mut() {
            Some(Step::Linear(layer)) if layer.activation == Activation::Identity => {
                layer.activation = activation
            }
            _ if activation == Activation::Relu => self.steps.push(Step::Relu),
            _ => self.steps.push(Step::Tanh),
        }
    }

    /// A layer; `by_outputs`: its weights are `[outputs, inputs]`, not the other way round.
    fn linear(&mut self, weight: &str, by_outputs: bool, bias: Option<&str>) -> Option<()> {
        let (dims, mut weight) = self.numbers(weight)?;
        let &[rows, columns] = dims.as_slice() else { return None };
        let (inputs, outputs) = if by_outputs { (columns, rows) } else { (rows, columns) };
        if inputs != self.width {
            return None;
        }
        if !by_outputs {
            weight = (0..weight.len()).map(|i| weight[i % inputs * outputs + i / inputs]).collect();
        }
        let bias = bias.map_or(Some(vec![0.0; outputs]), |bias| self.for_each(bias, outputs))?;
        self.steps.push(Step::Linear(Linear::new(&weight, bias, Activation::Identity)?));
        self.width = outputs;
        Some(())
    }

    fn each(&mut self, operation: Operation, constant: &str) -> Option<()> {
        let constants = self.for_each(constant, self.width)?;
        self.steps.push(Step::Each(operation, constants));
        Some(())
    }

    /// A constant as one number for each of `width`, if together with rows of as many it makes such rows.
    fn for_each(&self, name: &str, width: usize) -> Option<Vec<f32>> {
        let (dims, values) = self.numbers(name)?;
        let one_row = dims.len() < 2 || (dims.len() == 2 && dims[0] == 1);
        match values.as_slice() {
            _ if !one_row => None,
            [value] => Some(vec![*value; width]),
            _ => (values.len() == width).then_some(values),
        }
    }

    fn scalar(&self, name: &str) -> Option<f32> {
        match self.numbers(name)?.1.as_slice() {
            [value] => Some(*value),
            _ => None,
        }
    }

    /// The shape and the numbers of a constant, which are all there and finite.
    fn numbers(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let tensor = self.constants.get(name)?;
        let dims = tensor.dims.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<Vec<_>>>()?;
        let raw = tensor.raw_data.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]));
        let values = if tensor.raw_data.is_empty() { tensor.float_data.clone() } else { raw.collect() };
        let size = dims.iter().try_fold(1usize, |size, n| size.checked_mul(*n));
        let sound = tensor.data_type == DataType::Float as i32
            && size == Some(values.len())
            && values.iter().all(|x| x.is_finite());
        sound.then_some((dims, values))
    }
}

fn is_known(given: &AttributeProto, attributes: &[Known]) -> bool {
    let named = attributes.iter().find(|(name, _)| *name == given.name);
    named.zip(number(given)).is_some_and(|((_, numbers), number)| numbers.contains(&number))
}

fn attribute(node: &NodeProto, name: &str) -> Option<f64> {
    node.attribute.iter().find(|attribute| attribute.name == name).and_then(number)
}

fn number(attribute: &AttributeProto) -> Option<f64> {
    match AttributeType::try_from(attribute.r#type).ok()? {
        AttributeType::Float => Some(f64::from(attribute.f)),
        AttributeType::Int => Some(attribute.i as f64),
        _ => None,
    }
}

//! Policies from ONNX graphs: run by tract, or as a network of oto's own.
//!
//! A graph has one input, the observations `[batch, numbers]` in float32 (or `[batch, channels, height, width]`, which
//! takes them flattened), and named outputs. The action is the output `action`, an index or numbers; without one it is
//! the choice with the largest of `logits` or `q_values`; without those it is the only output. Where other outputs need an operator that is
//! not run here, they are left out.
//!
//! A graph is run on many observations at once only if it is shown to answer each by itself ([`rows`]), and does so for drawn ones.
//!
//! A graph that is a plain network ([`plain`]) acts by oto's own layers, if they give what tract gives for drawn observations, small and
//! large ones: numbers within [`TOLERANCE`], and choices that are worth as much. Its named outputs are always tract's.

mod check;
pub(crate) mod external;
mod kernels;
mod lower;
pub mod operators;
mod plain;
mod rows;
#[cfg(test)]
mod tests;

use crate::spaces::{self, ActionShape, Input};
use crate::{Metadata, Output, Policy, PolicyError, ROWS_PER_RUN, argmax, fit_actions};
use check::malformed;
use oto_env::rng::Rng;
use oto_proto::Space;
use plain::Plain;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use tract_onnx::pb::{GraphProto, ModelProto};
use tract_onnx::prelude::*;

/// The most numbers one value may have while a run computes [`ROWS_PER_RUN`] rows.
const MAX_VALUE: f64 = (1u64 << 26) as f64;

/// The outputs that can be the action, or say which it is.
const ANSWERS: [&str; 3] = ["action", "logits", "q_values"];

/// How far numbers of a plain network may lie from tract's, as a part of them where they are larger than 1: sums in another order are
/// rounded otherwise. Times the observations where those are larger than 1, because rounding grows with them.
const TOLERANCE: f32 = 1e-5;
/// The sizes of drawn observations.
const SIZES: [f32; 3] = [1e-3, 1.0, 1e3];
/// How far numbers for an observation alone may lie from those among others, as a part of the largest of them or of 1.
const ALIKE: f32 = 1e-4;
/// How many are drawn to be answered alone and among others.
const ALONE: usize = 8;
/// How many are drawn of each.
const DRAWN: usize = 64;

/// An ONNX graph as a policy.
pub struct Onnx {
    graph: Graph,
    /// What answers where the graph is a plain network.
    plain: Option<Plain>,
    input: Input,
    action: Space,
    /// Whether the graph's numbers go from -1 to 1 and are to be scaled to the action space.
    unit: bool,
    warnings: Vec<String>,
}

/// A graph as tract runs it.
struct Graph {
    plan: Arc<TypedRunnableModel>,
    /// The shape of one observation in the graph.
    shape: Vec<usize>,
    outputs: Vec<String>,
    answer: Answer,
    /// The most observations that it is run on at once: one, unless it is known to answer each by itself.
    most: usize,
}

/// Which output is the action, and how.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// This output as it is.
    As(usize),
    /// The choice with the largest value in this output.
    Largest(usize),
}

/// What the graph says about one output: its name, whether it holds indices, and numbers for each row.
struct Shown {
    name: String,
    index: bool,
    width: Option<usize>,
}

impl Onnx {
    /// Reads and prepares a graph.
    ///
    /// # Errors
    /// If it is damaged, uses an operator that is not supported (it is named), or is no policy.
    pub fn new(model: &[u8], metadata: &Metadata) -> Result<Self, PolicyError> {
        let proto = guarded(|| kernels::reader().proto_model_for_read(&mut &*model)).map_err(|reason| {
            // Protocol buffers have no mark of their own: what cannot be read is of no known format.
            PolicyError::UnknownFormat(reason)
        })?;
        Self::of(&proto, metadata)
    }

    fn of(proto: &ModelProto, metadata: &Metadata) -> Result<Self, PolicyError> {
        match check::check(proto) {
            // What an action's probability is made of, say, is not needed.
            Err(error @ PolicyError::UnsupportedOperator { .. }) => {
                let proto = check::only(&ANSWERS, proto).ok_or(error)?;
                Self::checked(&proto, check::check(&proto)?, metadata)
            }
            shape => Self::checked(proto, shape?, metadata),
        }
    }

    /// `shape` is that of one observation.
    fn checked(proto: &ModelProto, shape: Vec<usize>, metadata: &Metadata) -> Result<Self, PolicyError> {
        let opset = operators::opset(proto);
        let uses = proto.graph.as_ref().map(|graph| operators::uses(proto, graph)).transpose()?;
        let types: Vec<char> = uses.unwrap_or_default().into_iter().map(|(_, read)| read).collect();
        let plain_graph = proto.graph.as_ref();
        let proto = &lower::lower(proto, opset, &types);
        // What operators are made of has to be run, too.
        check::check(proto)?;
        let (plan, shown) = prepare(proto, &shape)?;
        let (answer, action_shape) = choose(&shown, metadata)?;
        let input = Input::new(metadata, shape.iter().product())?;
        let action = spaces::action(metadata, action_shape)?;
        let outputs = shown.into_iter().map(|output| output.name).collect();
        let apart =
            proto.graph.as_ref().is_some_and(|graph| rows::independent(graph, opset, shape.len() + 1));
        let mut graph = Graph { plan, shape, outputs, answer, most: if apart { ROWS_PER_RUN } else { 1 } };
        if apart && !graph.answers_each(&input.space) {
            graph.most = 1;
        }
        let mut plain = plain_graph.and_then(|proto| graph.plain(proto, &action));
        if let Some(plain) = &mut plain {
            plain.place(input.width)?;
        }
        let mut warnings = Vec::new();
        let (Answer::As(at) | Answer::Largest(at)) = answer;
        let unit = unit(plain_graph, &graph.outputs[at], &action, metadata, &mut warnings)?;
        Ok(Onnx { graph, plain, input, action, unit, warnings })
    }
}

/// Whether numbers from -1 to 1 are to be scaled to the action space. That a graph ends in a tanh, and the space has other bounds,
/// deserves a warning if nothing is declared about it.
fn unit(
    proto: Option<&GraphProto>,
    output: &str,
    action: &Space,
    metadata: &Metadata,
    warnings: &mut Vec<String>,
) -> Result<bool, PolicyError> {
    let Space::Box { low, high } = action else { return Ok(false) };
    match metadata.unit_actions {
        Some(true) if low.iter().chain(high).any(|bound| !bound.is_finite()) => {
            let message = "\"unit_actions\" needs an action_space with finite bounds";
            Err(PolicyError::Metadata(message.into()))
        }
        Some(unit) => Ok(unit),
        None => {
            let is_unit = low.iter().all(|bound| *bound == -1.0) && high.iter().all(|bound| *bound == 1.0);
            if !is_unit && ends_in_tanh(proto, output) {
                warnings.push(format!(
                    "the graph ends in a tanh, its actions go from -1 to 1, but the action space is {action}: declare \"unit_actions\": \
                     true to have them scaled to it, or false"
                ));
            }
            Ok(false)
        }
    }
}

/// Whether an output is a tanh, but for what changes no numbers.
fn ends_in_tanh(proto: Option<&GraphProto>, output: &str) -> bool {
    let nodes = proto.iter().flat_map(|graph| &graph.node).rev();
    let mut name = output;
    for node in nodes {
        if !node.output.iter().any(|made| made == name) {
            continue;
        }
        match node.op_type.as_str() {
            "Tanh" => return true,
            "Cast" | "Clip" | "Flatten" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" => {
                name = node.input.first().map_or("", String::as_str);
            }
            _ => return false,
        }
    }
    false
}

impl Graph {
    /// The plain network that the graph is, if it is one and tract agrees.
    fn plain(&self, proto: &GraphProto, action: &Space) -> Option<Plain> {
        let &[width] = self.shape.as_slice() else { return None };
        let (Answer::As(at) | Answer::Largest(at)) = self.answer;
        let mut plain = Plain::new(proto, &self.outputs[at], width)?;
        let largest = matches!(self.answer, Answer::Largest(_));
        let fits = match action {
            Space::Discrete { n } if largest => !plain.chooses && plain.width == *n as usize,
            Space::Discrete { .. } => plain.chooses,
            Space::Box { low, .. } => !plain.chooses && plain.width == low.len(),
        };
        plain.chooses |= largest;
        (fits && self.agrees(&mut plain, action)).then_some(plain)
    }

    /// Whether drawn observations, ordinary and extreme ones, are answered alone as among others.
    fn answers_each(&self, space: &Space) -> bool {
        let (Answer::As(at) | Answer::Largest(at)) = self.answer;
        let width: usize = self.shape.iter().product();
        let mut rng = Rng::new(2);
        let numbers = |observations: &[f32], rows| floats(&self.run(observations, rows).ok()?[at]).ok();
        SIZES.iter().chain(&[1e4]).all(|size| {
            let mut draw = |at: usize| {
                let drawn = rng.uniform(f64::from(-size), f64::from(*size)) as f32;
                match space {
                    Space::Box { low, high } if low.len() == width => {
                        drawn.max(low[at % width]).min(high[at % width])
                    }
                    _ => drawn,
                }
            };
            let observations: Vec<f32> = (0..ALONE * width).map(&mut draw).collect();
            let Some(together) = numbers(&observations, ALONE) else { return false };
            let each =
                observations.chunks_exact(width).map(|row| numbers(row, 1)).collect::<Option<Vec<_>>>();
            let Some(alone) = each.map(|each| each.concat()) else { return false };
            let largest = alone.iter().filter(|x| x.is_finite()).fold(1.0, |most: f32, x| most.max(x.abs()));
            let near = |(a, b): (&f32, &f32)| {
                a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= ALIKE * largest
            };
            alone.len() == together.len() && alone.iter().zip(&together).all(near)
        })
    }

    /// Whether a network answers drawn observations as tract does.
    fn agrees(&self, plain: &mut Plain, action: &Space) -> bool {
        let mut rng = Rng::new(1);
        SIZES.iter().all(|size| {
            let mut draw = |_| rng.uniform(f64::from(-size), f64::from(*size)) as f32;
            let observations: Vec<f32> = (0..DRAWN * self.shape[0]).map(&mut draw).collect();
            let mut expected = Vec::new();
            let (chooses, width, tolerance) = (plain.chooses, plain.width, TOLERANCE * size.max(1.0));
            let numbers = plain.forward(&observations);
            let near = |a: f32, b: f32| (a - b).abs() <= tolerance * b.abs().max(1.0);
            let rows = observations.chunks(self.most.min(DRAWN) * self.shape[0]);
            for rows in rows {
                if self.act(rows, rows.len() / self.shape[0], action, &mut expected).is_err() {
                    return false;
                }
            }
            if !chooses {
                return numbers.iter().zip(&expected).all(|(a, b)| near(*a, *b));
            }
            numbers.chunks_exact(width).zip(&expected).all(|(values, choice)| {
                let best = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                values.get(*choice as usize).is_some_and(|value| near(*value, best))
            })
        })
    }

    /// Runs the graph on some rows, at most [`ROWS_PER_RUN`].
    fn run(&self, observations: &[f32], rows: usize) -> Result<TVec<TValue>, PolicyError> {
        let shape = [&[rows], self.shape.as_slice()].concat();
        guarded(|| self.plan.run(tvec!(Tensor::from_shape(&shape, observations)?.into_tvalue())))
            .map_err(PolicyError::Run)
    }

    /// Adds the actions of some rows to `actions`.
    fn act(
        &self,
        observations: &[f32],
        rows: usize,
        space: &Space,
        actions: &mut Vec<f32>,
    ) -> Result<(), PolicyError> {
        let (Answer::As(at) | Answer::Largest(at)) = self.answer;
        let choices = match (self.answer, space) {
            (Answer::Largest(_), Space::Discrete { n }) => *n as usize,
            _ => space.width(),
        };
        let values = floats(&self.run(observations, rows)?[at])?;
        if values.len() != rows * choices {
            let message = format!("{} numbers came for {rows} rows of {choices}", values.len());
            return Err(PolicyError::Run(message));
        }
        match self.answer {
            Answer::As(_) => actions.extend_from_slice(&values),
            Answer::Largest(_) => argmax(&values, choices, actions)?,
        }
        Ok(())
    }
}

impl Policy for Onnx {
    fn observation_space(&self) -> &Space {
        &self.input.space
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn act(&mut self, observations: &[f32], rows: usize, actions: &mut Vec<f32>) -> Result<(), PolicyError> {
        actions.clear();
        let Onnx { graph, plain, input, action, unit, .. } = self;
        let width = input.width;
        for chunk in input.prepare(observations, rows)?.chunks(ROWS_PER_RUN * width) {
            match plain {
                Some(plain) if plain.reaches(chunk) => plain.act(chunk, actions)?,
                _ => {
                    for chunk in chunk.chunks(graph.most * width) {
                        graph.act(chunk, chunk.len() / width, action, actions)?;
                    }
                }
            }
        }
        if let (true, Space::Box { low, high }) = (&unit, &action) {
            for row in actions.chunks_exact_mut(low.len()) {
                let scale =
                    |(x, (low, high)): (&mut f32, (&f32, &f32))| *x = low + 0.5 * (*x + 1.0) * (high - low);
                row.iter_mut().zip(low.iter().zip(high)).for_each(scale);
            }
        }
        fit_actions(action, actions)
    }

    fn engine(&self) -> &str {
        self.plain.as_ref().map_or("tract", |plain| &plain.engine)
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn outputs(&mut self, observations: &[f32], rows: usize) -> Result<Vec<Output>, PolicyError> {
        let mut all: Vec<Output> = Vec::new();
        let Onnx { graph, input, .. } = self;
        let (names, width) = (&graph.outputs, input.width);
        for chunk in input.prepare(observations, rows)?.chunks(graph.most * width) {
            let rows = chunk.len() / width;
            for (i, (name, output)) in names.iter().zip(&graph.run(chunk, rows)?).enumerate() {
                if output.shape().first() != Some(&rows) {
                    let message = format!("{name:?} has the shape {:?} for {rows} rows", output.shape());
                    return Err(PolicyError::Run(message));
                }
                let values = floats(output)?;
                match all.get_mut(i) {
                    Some(whole) => {
                        whole.shape[0] += rows;
                        whole.values.extend(values);
                    }
                    None => all.push(Output { name: name.clone(), shape: output.shape().to_vec(), values }),
                }
            }
        }
        if let Answer::Largest(at) = graph.answer
            && !names.iter().any(|name| name == "action")
            && let Some(preferences) = all.get(at)
        {
            let mut values = Vec::new();
            argmax(&preferences.values, preferences.shape[1..].iter().product(), &mut values)?;
            all.push(Output { name: "action".into(), shape: vec![values.len()], values });
        }
        Ok(all)
    }
}

thread_local! {
    /// Whether a panic of this thread will be caught and reported as an error: then it prints nothing.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs something of tract's. It reports most faults as errors; the rest are panics, which are the file's fault, too.
fn guarded<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !CAUGHT.get() {
                before(panic);
            }
        }));
    });
    let outside = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(outside);
    match result {
        Ok(result) => result.map_err(|e| format!("{e:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("tract gave up: {}", text.unwrap_or("without a reason")))
        }
    }
}

/// Types and optimises the graph for any number of rows.
fn prepare(
    proto: &ModelProto,
    shape: &[usize],
) -> Result<(Arc<TypedRunnableModel>, Vec<Shown>), PolicyError> {
    let typed = guarded(|| {
        // What a file notes about values between its nodes follows from the nodes, and PyTorch's newer exporter notes the number of
        // rows under a name of its own, or the one it was shown.
        let model =
            kernels::reader().with_ignore_value_info(true).model_for_proto_model(&kernels::guarded(proto))?;
        let batch = model.symbols.new_with_prefix("rows");
        let mut dims: TVec<TDim> = tvec!(batch.clone().into());
        dims.extend(shape.iter().map(|n| TDim::from(*n as i64)));
        let mut typed = model.with_input_fact(0, f32::fact(dims).into())?.into_typed()?;
        kernels::replace(&mut typed)?;
        Ok((typed, batch))
    });
    let (model, batch) = typed.map_err(|reason| match check::fixed_rows(proto) {
        Some(rows) => PolicyError::Unsupported(format!(
            "a graph that takes {rows} rows at a time and no others; export it with a dynamic batch ({reason})"
        )),
        None => malformed(reason),
    })?;
    check_size(&model, &batch)?;
    let names = proto.graph.iter().flat_map(|graph| &graph.output).map(|output| output.name.clone());
    let shown = guarded(|| {
        let show = |(i, name)| {
            let fact = model.output_fact(i)?;
            let size = |d: &TDim| d.to_i64().ok().and_then(|n| usize::try_from(n).ok());
            let width = fact.shape.iter().skip(1).try_fold(1usize, |n, d| n.checked_mul(size(d)?));
            // tract keeps a number that comes from a size as a size.
            let index = fact.datum_type.is_integer() || fact.datum_type.is_tdim();
            Ok(Shown { name, index, width })
        };
        names.enumerate().map(show).collect::<TractResult<Vec<_>>>()
    });
    let shown = shown.map_err(malformed)?;
    let plan = guarded(|| model.into_optimized()?.into_runnable()).map_err(malformed)?;
    Ok((plan, shown))
}

/// Bounds the memory of a run: every value has a known size for a full run, and none is too large.
fn check_size(model: &TypedModel, batch: &Symbol) -> Result<(), PolicyError> {
    let values = SymbolValues::default().with(batch, ROWS_PER_RUN as i64);
    for node in model.nodes() {
        for output in &node.outputs {
            let sizes = output.fact.shape.iter().map(|d| d.eval(&values).to_i64().ok().map(|n| n as f64));
            let Some(size) = sizes.product::<Option<f64>>() else {
                let message = format!("a graph in which the size of {:?} is not known beforehand", node.name);
                return Err(PolicyError::Unsupported(message));
            };
            if size > MAX_VALUE {
                let what = format!("the value {:?} for {ROWS_PER_RUN} rows", node.name);
                let (found, max) = (size as u64, MAX_VALUE as u64);
                return Err(PolicyError::TooLarge { what, found, max, unit: "numbers" });
            }
        }
    }
    Ok(())
}

/// Finds the action among the outputs.
fn choose(shown: &[Shown], metadata: &Metadata) -> Result<(Answer, ActionShape), PolicyError> {
    let find = |name: &str| shown.iter().position(|output| output.name == name);
    let width = |at: usize| {
        let message = || format!("the size of the output {:?} is not known", shown[at].name);
        shown[at].width.ok_or_else(|| PolicyError::Unsupported(message()))
    };
    let choice = |at: usize| match (&shown[at].name, shown[at].width) {
        (name, Some(many @ 2..)) => Err(PolicyError::Unsupported(format!(
            "the output {name:?} gives {many} indices for an observation, an action is one choice"
        ))),
        _ => Ok(Answer::As(at)),
    };
    let discrete = matches!(spaces::declared(metadata).1, Some(Space::Discrete { .. }));
    let preferences = find("logits").or_else(|| find("q_values"));
    if let Some(at) = find("action") {
        return match (shown[at].index || (discrete && width(at)? == 1), preferences) {
            (true, Some(preferences)) => Ok((choice(at)?, ActionShape::Choices(width(preferences)?))),
            (true, None) => Ok((choice(at)?, ActionShape::Index)),
            (false, _) => Ok((Answer::As(at), ActionShape::Numbers(width(at)?))),
        };
    }
    if let Some(at) = preferences {
        return Ok((Answer::Largest(at), ActionShape::Choices(width(at)?)));
    }
    match shown {
        [only] if only.index => Ok((choice(0)?, ActionShape::Index)),
        [_] if discrete => Ok((Answer::Largest(0), ActionShape::Choices(width(0)?))),
        [_] => Ok((Answer::As(0), ActionShape::Numbers(width(0)?))),
        _ => {
            let names: Vec<_> = shown.iter().take(8).map(|output| &output.name).collect();
            Err(PolicyError::Unsupported(format!(
                "expected an output \"action\", \"logits\" or \"q_values\", got {names:?}"
            )))
        }
    }
}

fn floats(value: &TValue) -> Result<Vec<f32>, PolicyError> {
    guarded(|| Ok(value.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()))
        .map_err(PolicyError::Run)
}

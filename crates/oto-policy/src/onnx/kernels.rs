//! Kernels of operators that tract computes otherwise than onnxruntime: conversions to integers,
//! arithmetic of integers, quotients, inverse roots, layer normalisation, and the largest and the smallest numbers where NaN is among them. What onnxruntime
//! itself computes by chance is refused.

use super::operators::{constant, wholes};
use std::cmp::Ordering;
use std::collections::HashMap;
use tract_onnx::model::{Onnx, ParsingContext};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto};
use tract_onnx::prelude::tract_ndarray::{ArrayViewD, Zip};
use tract_onnx::tract_core::broadcast::multi_broadcast;
use tract_onnx::tract_core::ops::array::Topk;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::identity::Identity;
use tract_onnx::tract_core::ops::math;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer};
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::array::{RmDims, Squeeze};
use tract_onnx::tract_hir::ops::logic::wire_with_rank_broadcast;

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// The name of a check, which no file may use: the table of operators does not have it.
const GUARD: &str = "OtoGuard";

/// The name of [`LayerNormalization`], which no file may use either.
const LAYER: &str = "OtoLayerNormalization";

/// The largest number whose square is finite.
const MAX_ROOT: f32 = 1.844_674_3e19;

/// tract's reader of ONNX with the operators of this file.
pub(super) fn reader() -> Onnx {
    let mut reader = tract_onnx::onnx();
    reader.op_register.insert("Cast", convert);
    reader.op_register.insert("Squeeze", squeeze);
    reader.op_register.insert(GUARD, guard);
    reader.op_register.insert(LAYER, layer_normalization);
    reader
}

/// A model with checks before the operators that onnxruntime does not answer alike for NaN, and with axes as attributes.
pub(super) fn guarded(model: &ModelProto) -> ModelProto {
    let mut model = model.clone();
    let Some(graph) = &mut model.graph else { return model };
    let nodes = std::mem::take(&mut graph.node);
    let to = |node: &NodeProto| node.attribute.iter().find(|a| a.name == "to").map(|a| a.i);
    let mut longs: HashMap<String, String> = HashMap::new();
    for (at, mut node) in nodes.into_iter().enumerate() {
        let given = !node.name.starts_with(super::lower::MADE);
        let operator = node.op_type.clone();
        match (operator.as_str(), node.input.first().cloned()) {
            // As onnxruntime does, which takes two conversions behind one another for one.
            ("Cast", Some(read)) if to(&node) == Some(DataType::Int64 as i64) => {
                longs.insert(node.output.first().cloned().unwrap_or_default(), read);
            }
            ("Cast", Some(read)) if to(&node) == Some(DataType::Int32 as i64) => {
                node.input[0] = longs.get(&read).cloned().unwrap_or(read);
            }
            (
                "GlobalMaxPool" | "GroupNormalization" | "Hardmax" | "MaxPool" | "ReduceMax" | "ReduceMin",
                Some(read),
            ) if given => {
                let checked = format!("oto.checked.{at}");
                graph.node.push(NodeProto {
                    op_type: GUARD.into(),
                    name: checked.clone(),
                    input: vec![read],
                    output: vec![checked.clone()],
                    attribute: vec![AttributeProto {
                        name: "operator".into(),
                        r#type: AttributeType::String as i32,
                        s: node.op_type.clone().into_bytes(),
                        ..Default::default()
                    }],
                    ..Default::default()
                });
                node.input[0] = checked;
            }
            // Its mean and deviation, further outputs, are tract's.
            ("LayerNormalization", _) if node.output.len() == 1 => node.op_type = LAYER.into(),
            ("Squeeze", _) => {
                let given = node.input.get(1).and_then(|name| wholes(constant(graph, name)?));
                if let Some(axes) = given {
                    node.input.truncate(1);
                    node.attribute.push(AttributeProto {
                        name: "axes".into(),
                        r#type: AttributeType::Ints as i32,
                        ints: axes,
                        ..Default::default()
                    });
                }
            }
            _ => {}
        }
        graph.node.push(node);
    }
    model
}

/// Puts the operators of this file into a model, before tract changes it.
pub(super) fn replace(model: &mut TypedModel) -> TractResult<()> {
    for id in 0..model.nodes().len() {
        let facts: TVec<TypedFact> = model.node_input_facts(id)?.into_iter().cloned().collect();
        let node = model.node(id);
        mixed(&node.name, &*node.op, &facts)?;
        if let Some(own) = own(&*node.op, &facts) {
            model.node_mut(id).op = Box::new(own);
        }
    }
    Ok(())
}

/// What tract takes for a size has 32 bits: a number of the observation cannot become one.
fn mixed(name: &str, op: &dyn TypedOp, facts: &[TypedFact]) -> TractResult<()> {
    let to_size = op.downcast_ref::<Cast>().is_some_and(|cast| cast.to == TDim::datum_type());
    let Some(fact) = facts.first().filter(|fact| to_size && fact.datum_type != TDim::datum_type()) else {
        return Ok(());
    };
    let small = |tensor: &Arc<Tensor>| -> TractResult<bool> {
        let numbers = tensor.cast_to::<i64>()?;
        let plain = numbers.try_as_plain_ram()?;
        Ok(plain.as_slice::<i64>()?.iter().all(|n| i32::try_from(*n).is_ok()))
    };
    match fact.konst.as_ref().map(small).transpose()? {
        Some(true) => Ok(()),
        _ => bail!("node {name:?} computes with a size and a number of the observation at once"),
    }
}

fn own(op: &dyn TypedOp, facts: &[TypedFact]) -> Option<Own> {
    let kind = facts.first()?.datum_type;
    let whole = |kind: DatumType| kind == i64::datum_type() || kind == i32::datum_type();
    if let Some(cast) = op.downcast_ref::<Cast>() {
        return (kind.is_float() && whole(cast.to)).then_some(Own::Truncate(cast.to));
    }
    if let Some(binary) = op.downcast_ref::<TypedBinOp>() {
        let sign = BinaryOperator::of(binary)?;
        let alike = facts.iter().all(|fact| fact.datum_type == kind) && binary.1.is_none();
        let float = kind == f32::datum_type() || kind == f64::datum_type();
        let ours = if float {
            matches!(sign, BinaryOperator::Div | BinaryOperator::Max | BinaryOperator::Min)
        } else {
            whole(kind)
        };
        return (alike && ours).then(|| Own::Arithmetic(sign, binary.clone()));
    }
    if let Some(one) = op.downcast_ref::<ElementWiseOp>() {
        return (one.0.is::<math::Rsqrt>() && kind == f32::datum_type()).then_some(Own::InverseRoot);
    }
    if let Some(reduce) = op.downcast_ref::<Reduce>() {
        if whole(kind) && reduce.reducer == Reducer::Sum {
            return Some(Own::Sum(reduce.clone()));
        }
        let extreme =
            matches!(reduce.reducer, Reducer::Max | Reducer::Min | Reducer::ArgMax(_) | Reducer::ArgMin(_));
        let known = kind == f32::datum_type() || whole(kind);
        return (extreme && known).then(|| Own::Extreme(reduce.clone()));
    }
    let topk = op.downcast_ref::<Topk>()?;
    (kind == f32::datum_type()).then(|| Own::Topk(topk.clone()))
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Own {
    /// To the integer toward zero; what has none becomes the smallest one, as on x86.
    Truncate(DatumType),
    Arithmetic(BinaryOperator, TypedBinOp),
    InverseRoot,
    Extreme(Reduce),
    /// Of integers.
    Sum(Reduce),
    Topk(Topk),
    /// Less the mean of all numbers from this axis on, over their deviation; `epsilon` as its bits.
    Normal {
        axis: usize,
        epsilon: u32,
    },
    /// Hands on what this operator can take.
    Guard(String),
}

/// An operator of arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BinaryOperator {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Pow,
    Max,
    Min,
}

impl BinaryOperator {
    fn of(op: &TypedBinOp) -> Option<Self> {
        let op = &*op.0;
        Some(match () {
            () if op.is::<math::Add>() => BinaryOperator::Add,
            () if op.is::<math::Sub>() => BinaryOperator::Sub,
            () if op.is::<math::Mul>() => BinaryOperator::Mul,
            () if op.is::<math::Div>() => BinaryOperator::Div,
            () if op.is::<math::Rem>() => BinaryOperator::Rem,
            () if op.is::<math::Pow>() => BinaryOperator::Pow,
            () if op.is::<math::Max>() => BinaryOperator::Max,
            () if op.is::<math::Min>() => BinaryOperator::Min,
            () => return None,
        })
    }

    fn of_i64(self, a: i64, b: i64) -> i64 {
        match self {
            BinaryOperator::Add => a.wrapping_add(b),
            BinaryOperator::Sub => a.wrapping_sub(b),
            BinaryOperator::Mul => a.wrapping_mul(b),
            BinaryOperator::Div => a.wrapping_div(b),
            BinaryOperator::Rem => a.wrapping_rem(b),
            BinaryOperator::Pow => to_i64((a as f64).powf(b as f64)),
            BinaryOperator::Max => a.max(b),
            BinaryOperator::Min => a.min(b),
        }
    }

    fn of_i32(self, a: i32, b: i32) -> i32 {
        match self {
            BinaryOperator::Pow => to_i32(f64::from(a).powf(f64::from(b))),
            // Cut off where it does not fit.
            _ => self.of_i64(a.into(), b.into()) as i32,
        }
    }
}

fn to_i64(x: f64) -> i64 {
    let end = 2f64.powi(63);
    if (-end..end).contains(&x) { x as i64 } else { i64::MIN }
}

fn to_i32(x: f64) -> i32 {
    let end = 2f64.powi(31);
    if x > -end - 1.0 && x < end { x as i32 } else { i32::MIN }
}

impl Op for Own {
    fn name(&self) -> StaticName {
        "oto".into()
    }

    op_as_typed_op!();
}

impl TypedOp for Own {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        match self {
            Own::Truncate(to) => Ok(tvec!(to.fact(inputs[0].shape.clone()))),
            Own::Arithmetic(_, op) => op.output_facts(inputs),
            Own::InverseRoot | Own::Guard(_) | Own::Normal { .. } => Ok(tvec!(inputs[0].without_value())),
            Own::Extreme(op) | Own::Sum(op) => op.output_facts(inputs),
            Own::Topk(op) => op.output_facts(inputs),
        }
    }
}

impl EvalOp for Own {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let x = &inputs[0];
        let answer = match self {
            Own::Truncate(to) => truncate(x, *to)?,
            Own::Arithmetic(sign, _) => arithmetic(*sign, x, &inputs[1])?,
            Own::InverseRoot => {
                let plain = x.try_as_plain_ram()?;
                let roots: Vec<f32> = plain.as_slice::<f32>()?.iter().map(|x| x.sqrt().recip()).collect();
                Tensor::from_shape(x.shape(), &roots)?
            }
            Own::Extreme(op) => match x.datum_type() {
                DatumType::F32 => extreme::<f32>(op, x)?,
                DatumType::I64 => extreme::<i64>(op, x)?,
                DatumType::I32 => extreme::<i32>(op, x)?,
                other => bail!("expected numbers to compare, got {other:?}"),
            },
            Own::Sum(op) => sum(op, x)?,
            Own::Normal { axis, epsilon } => normal(x, *axis, f32::from_bits(*epsilon))?,
            Own::Topk(op) => return topk(op, x, inputs[1].cast_to_scalar::<i64>()?),
            Own::Guard(operator) => {
                if x.datum_type() == f32::datum_type() {
                    check(operator, x.try_as_plain_ram()?.as_slice::<f32>()?)?;
                }
                return Ok(tvec!(x.clone()));
            }
        };
        Ok(tvec!(answer.into_tvalue()))
    }
}

fn truncate(x: &Tensor, to: DatumType) -> TractResult<Tensor> {
    let wide = x.cast_to::<f64>()?;
    let plain = wide.try_as_plain_ram()?;
    let numbers = plain.as_slice::<f64>()?;
    if to == i64::datum_type() {
        let whole: Vec<i64> = numbers.iter().map(|x| to_i64(*x)).collect();
        return Tensor::from_shape(x.shape(), &whole);
    }
    let whole: Vec<i32> = numbers.iter().map(|x| to_i32(*x)).collect();
    Tensor::from_shape(x.shape(), &whole)
}

fn arithmetic(sign: BinaryOperator, a: &Tensor, b: &Tensor) -> TractResult<Tensor> {
    let whole = a.datum_type().is_integer();
    if whole && matches!(sign, BinaryOperator::Div | BinaryOperator::Rem) {
        let divisors = b.cast_to::<i64>()?;
        if divisors.try_as_plain_ram()?.as_slice::<i64>()?.contains(&0) {
            bail!("a division of whole numbers by zero");
        }
    }
    match a.datum_type() {
        DatumType::I64 => each(a, b, |a, b| sign.of_i64(a, b)),
        DatumType::I32 => each(a, b, |a, b| sign.of_i32(a, b)),
        // tract takes a square root for the power 0.5, which differs for minus infinity.
        DatumType::F32 if sign == BinaryOperator::Pow => each(a, b, f32::powf),
        DatumType::F64 => floats::<f64>(sign, a, b),
        _ => floats::<f32>(sign, a, b),
    }
}

fn floats<T: Datum + Copy + PartialOrd + std::ops::Div<Output = T>>(
    sign: BinaryOperator,
    a: &Tensor,
    b: &Tensor,
) -> TractResult<Tensor> {
    // NaN is the only number that differs from itself, and stays.
    #[allow(clippy::eq_op)]
    let odd = |x: T| x != x;
    match sign {
        BinaryOperator::Max => each(a, b, |a: T, b: T| if odd(a) || a > b { a } else { b }),
        BinaryOperator::Min => each(a, b, |a: T, b: T| if odd(a) || a < b { a } else { b }),
        _ => each(a, b, |a: T, b: T| a / b),
    }
}

/// Number by number, where one side may be spread over the other.
fn each<T: Datum + Copy>(a: &Tensor, b: &Tensor, f: impl Fn(T, T) -> T) -> TractResult<Tensor> {
    let (a, b) = (a.to_plain_array_view::<T>()?, b.to_plain_array_view::<T>()?);
    let shape = multi_broadcast(&[a.shape(), b.shape()])?;
    let mut c = Tensor::zero_dt(T::datum_type(), &shape)?;
    let mut plain = c.try_as_plain_ram_mut()?;
    let view = plain.to_array_view_mut::<T>()?;
    Zip::from(view).and_broadcast(a).and_broadcast(b).for_each(|c, a, b| *c = f(*a, *b));
    Ok(c)
}

/// The numbers along some axes behind one another, for each place on the others.
fn lanes<T: Datum + Copy>(x: &ArrayViewD<T>, axes: &[usize]) -> Vec<T> {
    let kept = (0..x.ndim()).filter(|axis| !axes.contains(axis));
    let order: Vec<usize> = kept.chain(axes.iter().copied()).collect();
    x.view().permuted_axes(order).iter().copied().collect()
}

fn sum(op: &Reduce, x: &Tensor) -> TractResult<Tensor> {
    let wide = x.cast_to::<i64>()?;
    let mut shape: TVec<usize> = x.shape().into();
    let many: usize = op.axes.iter().map(|axis| std::mem::replace(&mut shape[*axis], 1)).product();
    let numbers = lanes(&wide.to_plain_array_view::<i64>()?, &op.axes);
    let all = |lane: &[i64]| lane.iter().try_fold(0i64, |a, b| a.checked_add(*b));
    let sums = numbers.chunks_exact(many.max(1)).map(all).collect::<Option<Vec<i64>>>();
    let small = |sums: &[i64]| sums.iter().map(|sum| i32::try_from(*sum).ok()).collect::<Option<Vec<i32>>>();
    let too_large = "ReduceSum of integers that are too large, which has no defined answer";
    let sums = sums.context(too_large)?;
    match x.datum_type() {
        DatumType::I64 => Tensor::from_shape(&shape, &sums),
        _ => Tensor::from_shape(&shape, &small(&sums).context(too_large)?),
    }
}

/// Sums in float64 do not overflow. As in onnxruntime, a variance beyond float32 leaves zeros. A sum beyond float32 is finite there in
/// one order of its numbers, and NaN in another.
fn normal(x: &Tensor, axis: usize, epsilon: f32) -> TractResult<Tensor> {
    let plain = x.try_as_plain_ram()?;
    let width = x.shape()[axis..].iter().product::<usize>().max(1);
    let mut normal = Vec::with_capacity(x.len());
    for lane in plain.as_slice::<f32>()?.chunks_exact(width) {
        let sizes = lane.iter().map(|x| f64::from(x.abs())).sum::<f64>();
        ensure!(
            !sizes.is_finite() || sizes <= f64::from(f32::MAX),
            "LayerNormalization of numbers whose sum may be beyond float32, which has no defined answer"
        );
        let mean = lane.iter().map(|x| f64::from(*x)).sum::<f64>() / width as f64;
        let distances = || lane.iter().map(|x| f64::from(*x) - mean);
        let variance = distances().map(|d| d * d).sum::<f64>() / width as f64;
        let inverse = (variance as f32 + epsilon).sqrt().recip();
        normal.extend(distances().map(|d| d as f32 * inverse));
    }
    Tensor::from_shape(x.shape(), &normal)
}

/// The first of them stays unless another compares as larger (or smaller): NaN does so with none.
fn extreme<T: Datum + Copy + PartialOrd>(op: &Reduce, x: &Tensor) -> TractResult<Tensor> {
    let view = x.to_plain_array_view::<T>()?;
    let mut shape: TVec<usize> = x.shape().into();
    let many: usize = op.axes.iter().map(|axis| std::mem::replace(&mut shape[*axis], 1)).product();
    ensure!(many > 0, "expected numbers to compare, there are none");
    let numbers = lanes(&view, &op.axes);
    let better: fn(T, T) -> bool = match op.reducer {
        Reducer::Max | Reducer::ArgMax(false) => |a, b| a > b,
        Reducer::ArgMax(true) => |a, b| a >= b,
        Reducer::ArgMin(true) => |a, b| a <= b,
        _ => |a, b| a < b,
    };
    let best = numbers
        .chunks_exact(many)
        .map(|lane| (0..many).fold(0, |best, at| if better(lane[at], lane[best]) { at } else { best }));
    if matches!(op.reducer, Reducer::ArgMax(_) | Reducer::ArgMin(_)) {
        let indices: Vec<i64> = best.map(|at| at as i64).collect();
        return Tensor::from_shape(&shape, &indices);
    }
    let values: Vec<T> = best.zip(numbers.chunks_exact(many)).map(|(at, lane)| lane[at]).collect();
    Tensor::from_shape(&shape, &values)
}

/// NaN counts as the largest; the first of equals comes first.
fn topk(op: &Topk, x: &Tensor, k: i64) -> TractResult<TVec<TValue>> {
    let size = x.shape()[op.axis];
    let k = usize::try_from(k).ok().filter(|k| *k <= size);
    let k = k.with_context(|| format!("expected at most {size} of {size} numbers"))?;
    let compare = |a: &f32, b: &f32| {
        let ascending = a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
        if op.largest { ascending.reverse() } else { ascending }
    };
    let numbers = lanes(&x.to_plain_array_view::<f32>()?, &[op.axis]);
    let (mut values, mut indices) = (Vec::new(), Vec::new());
    for lane in numbers.chunks_exact(size.max(1)) {
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|a, b| -> Ordering { compare(&lane[*a], &lane[*b]) });
        values.extend(order[..k].iter().map(|at| lane[*at]));
        indices.extend(order[..k].iter().map(|at| *at as i64));
    }
    // The lanes lie along the last axis so far.
    let last = x.rank() - 1;
    let mut shape: TVec<usize> = x.shape().into();
    shape.remove(op.axis);
    shape.push(k);
    let values = Tensor::from_shape(&shape, &values)?.move_axis(last, op.axis)?;
    let indices = Tensor::from_shape(&shape, &indices)?.move_axis(last, op.axis)?;
    Ok(tvec!(values.into_tvalue(), indices.into_tvalue()))
}

fn check(operator: &str, numbers: &[f32]) -> TractResult<()> {
    if operator == "GroupNormalization" {
        let large = numbers.iter().find(|x| x.is_finite() && x.abs() > MAX_ROOT);
        return large.map_or(Ok(()), |x| Err(format_err!("{operator} of {x:e}, whose square is not finite")));
    }
    ensure!(!numbers.iter().any(|x| x.is_nan()), "{operator} of NaN, which has no defined answer");
    Ok(())
}

/// A conversion to another type. A size stays a size.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Convert(DatumType);

fn convert(_: &ParsingContext, node: &NodeProto) -> Built {
    Ok((expand(Convert(node.get_attr("to")?)), vec![]))
}

impl Convert {
    fn stays(&self, from: DatumType) -> bool {
        from == TDim::datum_type() && self.0 == i64::datum_type()
    }
}

impl Expansion for Convert {
    fn name(&self) -> StaticName {
        "Cast".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.given(&inputs[0].datum_type, move |s, from| {
            s.equals(&outputs[0].datum_type, if self.stays(from) { from } else { self.0 })
        })?;
        s.equals(&outputs[0].rank, &inputs[0].rank)?;
        s.equals(&outputs[0].shape, &inputs[0].shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let from = model.outlet_fact(inputs[0])?.datum_type;
        let whole = self.0 == i64::datum_type() || self.0 == i32::datum_type();
        if self.stays(from) {
            return model.wire_node(prefix, Identity, inputs);
        }
        if from.is_float() && whole {
            return model.wire_node(prefix, Own::Truncate(self.0), inputs);
        }
        model.wire_node(prefix, Cast { to: self.0 }, inputs)
    }
}

/// Axes of either sign in any order.
fn squeeze(_: &ParsingContext, node: &NodeProto) -> Built {
    ensure!(node.input.len() == 1, "Squeeze with axes that are no constant");
    let axes = node.attribute.iter().find(|attribute| attribute.name == "axes");
    let axes = axes.map(|axes| axes.ints.iter().map(|axis| *axis as isize).collect());
    Ok(match axes {
        Some(axes) => (expand(RmDims::new(axes)), vec![]),
        None => (expand(Squeeze::new(None)), vec![]),
    })
}

/// [`Own::Guard`] before tract knows its types.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Guard(String);

fn guard(_: &ParsingContext, node: &NodeProto) -> Built {
    let operator = node.attribute.first().map_or(&[][..], |attribute| &attribute.s);
    Ok((expand(Guard(String::from_utf8_lossy(operator).into())), vec![]))
}

impl Expansion for Guard {
    fn name(&self) -> StaticName {
        "Guard".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
        s.equals(&outputs[0].rank, &inputs[0].rank)?;
        s.equals(&outputs[0].shape, &inputs[0].shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, Own::Guard(self.0.clone()), inputs)
    }
}

/// A normalisation over all dimensions from an axis on; tract's overflows for numbers near float32's end.
#[derive(Clone, Debug, PartialEq)]
struct LayerNormalization {
    axis: i64,
    epsilon: f32,
    bias: bool,
}

fn layer_normalization(_: &ParsingContext, node: &NodeProto) -> Built {
    let axis = node.get_attr_opt("axis")?.unwrap_or(-1);
    let epsilon = node.get_attr_opt("epsilon")?.unwrap_or(1e-5);
    Ok((expand(LayerNormalization { axis, epsilon, bias: node.input.len() == 3 }), vec![]))
}

impl Expansion for LayerNormalization {
    fn name(&self) -> StaticName {
        "LayerNormalization".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2 + usize::from(self.bias))?;
        check_output_arity(outputs, 1)?;
        for input in inputs {
            s.equals(&input.datum_type, f32::datum_type())?;
        }
        s.equals(&outputs[0].datum_type, f32::datum_type())?;
        s.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let rank = model.outlet_fact(inputs[0])?.rank();
        let axis = if self.axis < 0 { self.axis + rank as i64 } else { self.axis };
        let axis = usize::try_from(axis).ok().filter(|axis| *axis < rank);
        let axis = axis.with_context(|| format!("LayerNormalization from axis {} of {rank}", self.axis))?;
        let normal = Own::Normal { axis, epsilon: self.epsilon.to_bits() };
        let normal = model.wire_node(format!("{prefix}.normal"), normal, &inputs[..1])?[0];
        let name = format!("{prefix}.scaled");
        let scaled = wire_with_rank_broadcast(name, model, math::mul(), &[normal, inputs[1]])?;
        match self.bias {
            true => wire_with_rank_broadcast(prefix, model, math::add(), &[scaled[0], inputs[2]]),
            false => Ok(scaled),
        }
    }
}

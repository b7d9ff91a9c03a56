//! Walks a program's nodes in order, one candle call (or one kernel) each.

use crate::composed::composed;
use crate::kernels::Kernel;
use candle_core::{DType, Device, Result, Tensor};
use oto_graph::{
    Activation, Backend, BackendError, Binary, Conv, Executable, InputId, NodeId, Op, Program, Role, Unary,
};

/// The element type a program runs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits: training.
    #[default]
    Single,
    /// 64 bits: comparison with references.
    Double,
}

impl Precision {
    fn dtype(self) -> DType {
        match self {
            Precision::Single => DType::F32,
            Precision::Double => DType::F64,
        }
    }
}

/// The backend on the processor: the reference.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candle;

impl Backend for Candle {
    fn name(&self) -> &str {
        "candle"
    }

    fn compile(&self, program: Program) -> std::result::Result<Box<dyn Executable>, BackendError> {
        compile(program, &Device::Cpu)
    }
}

/// The backend on a graphics card.
#[derive(Clone, Debug)]
pub struct Card {
    name: &'static str,
    device: Device,
}

impl Card {
    /// The first NVIDIA card; cargo feature `cuda`.
    ///
    /// # Errors
    /// A build without the feature, a machine without such a card.
    pub fn cuda() -> std::result::Result<Self, BackendError> {
        Self::opened("cuda", cfg!(feature = "cuda"), || Device::new_cuda(0))
    }

    /// The first Apple card; cargo feature `metal`.
    ///
    /// # Errors
    /// A build without the feature, a machine without such a card.
    pub fn metal() -> std::result::Result<Self, BackendError> {
        Self::opened("metal", cfg!(feature = "metal"), || Device::new_metal(0))
    }

    fn opened(
        name: &'static str,
        built: bool,
        open: impl FnOnce() -> Result<Device>,
    ) -> std::result::Result<Self, BackendError> {
        if !built {
            let missing = format!("this build lacks {name}: build with the cargo feature `{name}`");
            return Err(BackendError::Device(missing));
        }
        let unavailable = |error| BackendError::Device(format!("{name} is not available: {error}"));
        Ok(Self { name, device: open().map_err(unavailable)? })
    }
}

impl Backend for Card {
    fn name(&self) -> &str {
        self.name
    }

    fn compile(&self, program: Program) -> std::result::Result<Box<dyn Executable>, BackendError> {
        compile(program, &self.device)
    }
}

fn compile(program: Program, on: &Device) -> std::result::Result<Box<dyn Executable>, BackendError> {
    program.check()?;
    let plan = Plan::new(&program, Precision::Single, on).map_err(device)?;
    let zeros = |i: &oto_graph::Input| match i.role {
        Role::State => Tensor::zeros(i.shape.as_slice(), DType::F32, on).map(Some),
        Role::Data => Ok(None),
    };
    let state = program.inputs.iter().map(zeros).collect::<Result<_>>().map_err(device)?;
    Ok(Box::new(Interpreter { program, plan, state, device: on.clone() }))
}

fn device(e: candle_core::Error) -> BackendError {
    BackendError::Device(e.to_string())
}

/// Evaluates all of a program's outputs once; `inputs` in the program's order, row-major.
pub fn evaluate(
    program: &Program,
    inputs: &[Vec<f64>],
    precision: Precision,
) -> std::result::Result<Vec<Vec<f64>>, BackendError> {
    if inputs.len() != program.inputs.len() {
        return Err(BackendError::Count {
            what: "inputs",
            expected: program.inputs.len(),
            got: inputs.len(),
        });
    }
    for (i, values) in inputs.iter().enumerate() {
        program.check_size(InputId(i), values.len())?;
    }
    let run = || {
        let tensor = |(i, v): (&oto_graph::Input, &Vec<f64>)| {
            Tensor::from_slice(v, i.shape.as_slice(), &Device::Cpu)?.to_dtype(precision.dtype())
        };
        let inputs = program.inputs.iter().zip(inputs).map(tensor).collect::<Result<Vec<_>>>()?;
        let values = Plan::new(program, precision, &Device::Cpu)?.run(program, |i| &inputs[i])?;
        let read =
            |(_, n): &(String, NodeId)| value(&values, *n).to_dtype(DType::F64)?.flatten_all()?.to_vec1();
        program.outputs.iter().map(read).collect::<Result<Vec<_>>>()
    };
    run().map_err(device)
}

struct Interpreter {
    program: Program,
    plan: Plan,
    /// One for each input; data inputs have none between runs.
    state: Vec<Option<Tensor>>,
    device: Device,
}

impl Executable for Interpreter {
    fn program(&self) -> &Program {
        &self.program
    }

    fn write(&mut self, input: InputId, values: &[f32]) -> std::result::Result<(), BackendError> {
        self.program.check_size(input, values.len())?;
        let spec = &self.program.inputs[input.0];
        self.state[input.0] =
            Some(Tensor::from_slice(values, spec.shape.as_slice(), &self.device).map_err(device)?);
        Ok(())
    }

    fn read(&self, input: InputId, values: &mut [f32]) -> std::result::Result<(), BackendError> {
        self.program.check_size(input, values.len())?;
        let tensor =
            self.state[input.0].as_ref().ok_or_else(|| BackendError::Device("data is not kept".into()))?;
        copy(tensor, values).map_err(device)
    }

    fn run(&mut self, data: &[&[f32]], outputs: &mut [Vec<f32>]) -> std::result::Result<(), BackendError> {
        self.program.check_counts(data.len(), outputs.len())?;
        for ((id, spec), values) in self.program.data().zip(data) {
            self.program.check_size(id, values.len())?;
            let tensor = Tensor::from_slice(values, spec.shape.as_slice(), &self.device).map_err(device)?;
            self.state[id.0] = Some(tensor);
        }
        let given = |i: usize| self.state[i].as_ref().expect("every input is state or was just given");
        let values = self.plan.run(&self.program, given).map_err(device)?;
        for ((_, node), out) in self.program.outputs.iter().zip(outputs) {
            let tensor = value(&values, *node);
            out.resize(tensor.elem_count(), 0.0);
            copy(tensor, out).map_err(device)?;
        }
        for (input, node) in &self.program.updates {
            self.state[input.0] = Some(value(&values, *node).clone());
        }
        Ok(())
    }
}

/// Copies an f32 tensor's elements, those of the processor without an allocation of its own.
fn copy(tensor: &Tensor, out: &mut [f32]) -> Result<()> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else {
        out.copy_from_slice(&tensor.flatten_all()?.to_vec1()?);
        return Ok(());
    };
    let from = layout.start_offset();
    out.copy_from_slice(&storage.as_slice::<f32>()?[from..from + out.len()]);
    Ok(())
}

fn value(values: &[Option<Tensor>], node: NodeId) -> &Tensor {
    values[node.0].as_ref().expect("outputs and updates are kept")
}

/// What is known before the first run: constants, and when each value can be dropped.
struct Plan {
    constants: Vec<Option<Tensor>>,
    /// For each node, the values that nothing after it reads.
    drops: Vec<Vec<usize>>,
}

impl Plan {
    fn new(program: &Program, precision: Precision, device: &Device) -> Result<Self> {
        let constant = |n: &oto_graph::Node| match n.op {
            Op::Constant(v) => {
                let one =
                    Tensor::full(v, (), &Device::Cpu)?.to_dtype(precision.dtype())?.to_device(device)?;
                one.broadcast_as(n.shape.as_slice())?.contiguous().map(Some)
            }
            _ => Ok(None),
        };
        let mut drops = vec![Vec::new(); program.nodes.len()];
        for (i, &last) in program.last_uses().iter().enumerate() {
            if last < drops.len() {
                drops[last].push(i);
            }
        }
        Ok(Self { constants: program.nodes.iter().map(constant).collect::<Result<_>>()?, drops })
    }

    fn run<'i>(&self, program: &Program, input: impl Fn(usize) -> &'i Tensor) -> Result<Vec<Option<Tensor>>> {
        let mut values: Vec<Option<Tensor>> = vec![None; program.nodes.len()];
        for (i, node) in program.nodes.iter().enumerate() {
            values[i] = Some(match &node.op {
                Op::Input(n) => input(*n).clone(),
                Op::Constant(_) => self.constants[i].clone().expect("constants are made with the plan"),
                op => compute(op, &node.shape, |id| value(&values, id))?,
            });
            self.drops[i].iter().for_each(|&d| values[d] = None);
        }
        Ok(values)
    }
}

fn compute<'v>(op: &Op, shape: &[usize], at: impl Fn(NodeId) -> &'v Tensor) -> Result<Tensor> {
    match *op {
        Op::Input(_) | Op::Constant(_) => unreachable!("given, not computed"),
        Op::Affine { x, mul, add } => at(x).affine(mul, add),
        Op::Unary(op, x) => unary(op, at(x)),
        Op::Binary(op, a, b) => binary(op, at(a), at(b)),
        Op::Select { when, then, otherwise } => {
            Ok(if scalar(at(when))? > 0.0 { at(then) } else { at(otherwise) }.clone())
        }
        Op::Concat { a, b } => Tensor::cat(&[at(a), at(b)], candle_core::D::Minus1),
        Op::Slice { x, from } => at(x).narrow(candle_core::D::Minus1, from, shape[shape.len() - 1]),
        Op::Broadcast(x) => at(x).broadcast_as(shape),
        Op::SumTo(x) => sum_to(at(x), shape),
        Op::Reshape(x) => at(x).reshape(shape),
        Op::MatMul { a, b, ta, tb } => {
            let turned = |x: &Tensor, t: bool| if t { x.t() } else { Ok(x.clone()) };
            product(&turned(at(a), ta)?, &turned(at(b), tb)?)
        }
        Op::Linear { x, weight, bias, activation } => {
            // An ensemble's bias is a row of each member.
            let bias = if at(bias).rank() == 2 { at(bias).unsqueeze(1)? } else { at(bias).clone() };
            activate(product(at(x), &at(weight).t()?)?.broadcast_add(&bias)?, activation)
        }
        Op::Conv2d { x, weight, bias, conv, activation } => {
            let bias = at(bias).reshape((1, (), 1, 1))?;
            activate(conv2d(at(x), at(weight), conv)?.broadcast_add(&bias)?, activation)
        }
        Op::Conv2dGradInput { g, weight, conv } => conv_grad_input(at(g), at(weight), shape, conv),
        Op::Conv2dGradWeight { x, g, conv } => conv_grad_weight(at(x), at(g), shape, conv),
        Op::MaxLast(x) => at(x).max_keepdim(candle_core::D::Minus1),
        Op::ArgMaxLast(x) => at(x).argmax_keepdim(candle_core::D::Minus1)?.to_dtype(at(x).dtype()),
        Op::StopGradient(x) => Ok(at(x).clone()),
        Op::LogSumExp(x) | Op::LogSoftmax(x) | Op::LayerNorm { x, .. } => {
            kernel(op, shape, &[&at(x).contiguous()?], [0.0; 2])
        }
        Op::Polyak { target, p, tau } => kernel(op, shape, &[at(target), at(p)], [scalar(at(tau))?, 0.0]),
        Op::AdamStep { p, m, v, t, lr, .. } => {
            kernel(op, shape, &[at(p), at(m), at(v)], [scalar(at(t))?, scalar(at(lr))?])
        }
        Op::ActivationGrad { y: a, g: b, .. }
        | Op::LogSoftmaxGrad { y: a, g: b }
        | Op::LayerNormGrad { x: a, g: b, .. }
        | Op::Pick { x: a, index: b }
        | Op::Unpick { g: a, index: b }
        | Op::Rows { x: a, index: b }
        | Op::AddRows { g: a, index: b }
        | Op::QuantileHuber { theta: a, target: b, .. }
        | Op::QuantileHuberGrad { theta: a, target: b, .. }
        | Op::Moment { m: a, g: b, .. } => {
            kernel(op, shape, &[&at(a).contiguous()?, &at(b).contiguous()?], [0.0; 2])
        }
    }
}

/// `a b` of matrices, or of several where either side has an axis of them in front. candle's own takes several only as they lie in
/// memory: of a repeated or turned side it reads other numbers.
fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match (a.rank(), b.rank()) {
        (2, 2) => a.matmul(b),
        _ => a.contiguous()?.broadcast_matmul(&b.contiguous()?),
    }
}

/// One of the operations that candle has no single one for.
fn kernel(op: &Op, shape: &[usize], operands: &[&Tensor], scalars: [f64; 2]) -> Result<Tensor> {
    let kernel = Kernel { op, shape, scalars };
    match *operands {
        [a, ..] if !a.device().is_cpu() => composed(op, shape, operands, scalars),
        [a] => a.apply_op1_no_bwd(&kernel),
        [a, b] => a.apply_op2_no_bwd(b, &kernel),
        [a, b, c] => a.apply_op3_no_bwd(b, c, &kernel),
        _ => candle_core::bail!("no kernel of {} operands", operands.len()),
    }
}

fn scalar(x: &Tensor) -> Result<f64> {
    // Not every card has 64 bits.
    match x.dtype() {
        DType::F32 => x.to_scalar::<f32>().map(f64::from),
        _ => x.to_scalar(),
    }
}

fn unary(op: Unary, x: &Tensor) -> Result<Tensor> {
    match op {
        Unary::Exp => x.exp(),
        Unary::Log => x.log(),
        Unary::Sqrt => x.sqrt(),
        Unary::Square => x.sqr(),
        Unary::Abs => x.abs(),
        Unary::Relu => x.relu(),
        Unary::Tanh => x.tanh(),
        Unary::Recip => x.recip(),
        Unary::Softplus => x.relu()? + x.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?,
        Unary::Step => x.gt(0.0)?.to_dtype(x.dtype()),
    }
}

fn binary(op: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match op {
        Binary::Add => a.add(b),
        Binary::Sub => a.sub(b),
        Binary::Mul => a.mul(b),
        Binary::Div => a.div(b),
        Binary::Max => a.maximum(b),
        Binary::Min => a.minimum(b),
    }
}

fn activate(x: Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Identity => Ok(x),
        Activation::Relu => x.relu(),
        Activation::Tanh => x.tanh(),
    }
}

fn sum_to(x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let extra = x.rank() - shape.len();
    let summed = |&axis: &usize| axis < extra || (shape[axis - extra] == 1 && x.dims()[axis] != 1);
    let axes = (0..x.rank()).filter(summed).collect::<Vec<_>>();
    x.sum_keepdim(axes)?.reshape(shape)
}

fn conv2d(x: &Tensor, weight: &Tensor, conv: Conv) -> Result<Tensor> {
    x.conv2d(weight, conv.padding, conv.stride, 1, 1)
}

/// A transposed convolution, of which the image is cut out; pixels that no application of the kernel reached stay zero.
fn conv_grad_input(g: &Tensor, weight: &Tensor, shape: &[usize], conv: Conv) -> Result<Tensor> {
    let mut x = g.conv_transpose2d(weight, 0, 0, conv.stride, 1)?;
    for axis in [2, 3] {
        let reached = shape[axis].min(x.dim(axis)? - conv.padding);
        x = x.narrow(axis, conv.padding, reached)?.pad_with_zeros(axis, 0, shape[axis] - reached)?;
    }
    x.contiguous()
}

/// A convolution of the image by the gradient, batch and channels exchanged, stride turned into dilation.
fn conv_grad_weight(x: &Tensor, g: &Tensor, shape: &[usize], conv: Conv) -> Result<Tensor> {
    let (x, g) = (x.transpose(0, 1)?.contiguous()?, g.transpose(0, 1)?.contiguous()?);
    let w = x.conv2d(&g, conv.padding, 1, conv.stride, 1)?.transpose(0, 1)?;
    w.narrow(2, 0, shape[2])?.narrow(3, 0, shape[3])?.contiguous()
}

//! Networks of policies on candle's layers: on a graphics card, or on all cores of the processor.
//!
//! On the processor a network is timed when it is loaded: candle computes the batches of large networks if it is faster than oto's own
//! layers on this machine. Its answers are within [`TOLERANCE`] of theirs. Its sums have another order, which may depend on the number of rows.

use crate::device::{Device, DeviceError};
use crate::steps::{Operation, Step, Steps};
use crate::{OWN, PolicyError};
use candle_core::{self as candle, Module, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear};
use oto_graph::Activation;
use oto_rl::convolution::ConvEncoder;
use std::sync::RwLock;
use std::time::Instant;

/// The largest difference of an answer from that of oto's layers, as a part of the largest answer where that is above 1.
pub(crate) const TOLERANCE: f32 = 1e-4;
/// Rows of the largest batch that is timed, and the most images that candle computes at once.
const MOST_ROWS: usize = 64;
/// Rows of the batches that are timed next, as long as candle is faster.
const FEWER_ROWS: [usize; 3] = [16, 4, 1];
/// Multiplications of a row below which oto's layers are faster, untimed.
const LEAST_WORK: usize = 1 << 17;
/// Part of the time of oto's layers that candle may take: a tie leaves a network to them.
const FASTER: f64 = 0.9;

/// The device of this process, if one was set.
static DEVICE: RwLock<Option<(Device, candle::Device)>> = RwLock::new(None);

/// See [`crate::device::use_device`].
pub(crate) fn use_device(device: Device) -> Result<(), DeviceError> {
    let opened = match device {
        Device::Cpu => Ok(candle::Device::Cpu),
        Device::Cuda if cfg!(feature = "cuda") => candle::Device::new_cuda(0),
        Device::Metal if cfg!(feature = "metal") => candle::Device::new_metal(0),
        Device::Cuda | Device::Metal => return Err(DeviceError::NotBuilt(device)),
    };
    let opened = opened.map_err(|error| DeviceError::Unavailable { device, reason: error.to_string() })?;
    *DEVICE.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((device, opened));
    Ok(())
}

/// Layers on a device.
pub(crate) struct Network {
    device: Device,
    opened: candle::Device,
    layers: Vec<Layer>,
    /// The shape of an observation.
    shape: Vec<usize>,
    /// The least rows of a batch that it computes (on the processor by timing), and the most that it computes at once.
    rows: (usize, usize),
    out: Vec<f32>,
}

enum Layer {
    Convolution(Conv2d),
    Linear(Linear),
    Activation(Activation),
    Scale(f64),
    Flatten,
    Clip(f32, f32),
    Each(Operation, Tensor),
}

impl Layer {
    fn forward(&self, x: &Tensor) -> candle::Result<Tensor> {
        match self {
            Layer::Convolution(layer) => layer.forward(x),
            Layer::Linear(layer) => layer.forward(x),
            Layer::Activation(Activation::Identity) => Ok(x.clone()),
            Layer::Activation(Activation::Relu) => x.relu(),
            Layer::Activation(Activation::Tanh) => x.tanh(),
            Layer::Scale(by) => x.affine(*by, 0.0),
            Layer::Flatten => x.flatten_from(1),
            Layer::Clip(low, high) => x.clamp(*low, *high),
            Layer::Each(operation, constants) => match operation {
                Operation::Add => x.broadcast_add(constants),
                Operation::Subtract => x.broadcast_sub(constants),
                Operation::Multiply => x.broadcast_mul(constants),
                Operation::Divide => x.broadcast_div(constants),
            },
        }
    }
}

/// The largest difference, as [`TOLERANCE`] counts it. None of other lengths, or without a number.
fn difference(expected: &[f32], got: &[f32]) -> Option<f32> {
    let comparable = expected.len() == got.len() && expected.iter().chain(got).all(|x| x.is_finite());
    let largest = expected.iter().fold(1.0, |most: f32, x| most.max(x.abs()));
    comparable
        .then(|| expected.iter().zip(got).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs() / largest)))
}

fn failed(device: Device, error: candle::Error) -> PolicyError {
    PolicyError::Run(format!("candle on {device}: {error}"))
}

/// The shortest of three runs, in milliseconds.
fn shortest(mut run: impl FnMut()) -> f64 {
    let timed = |_| {
        let start = Instant::now();
        run();
        1e3 * start.elapsed().as_secs_f64()
    };
    (0..3).map(timed).fold(f64::INFINITY, f64::min)
}

impl Network {
    /// A network on the device of this process; none where no device was set, or it is too small for candle. `width`: numbers of a row.
    pub fn open(
        encoder: Option<&ConvEncoder>,
        steps: &Steps,
        width: usize,
    ) -> Result<Option<Self>, PolicyError> {
        let device = DEVICE.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let Some((device, opened)) = device else { return Ok(None) };
        if device == Device::Cpu && encoder.is_none() && steps.work() < LEAST_WORK {
            return Ok(None);
        }
        Self::new((device, opened), encoder, steps, width).map(Some).map_err(|error| failed(device, error))
    }

    /// The network, if it is to compute in the place of oto's layers, and the engine's name with the reason. `own` is their answer to rows.
    pub fn chosen(
        mut self,
        mut own: impl FnMut(&[f32]) -> Vec<f32>,
    ) -> Result<(Option<Self>, String), PolicyError> {
        let device = self.device;
        let width: usize = self.shape.iter().product();
        let number = |i: usize| ((7 * i + i / width) % 17) as f32 / 8.0 - 1.0;
        let observations: Vec<f32> = (0..MOST_ROWS * width).map(number).collect();
        let answers = self.run(&observations).map_err(|error| failed(device, error))?;
        let differs = difference(&own(&observations), answers);
        let agrees = differs.is_some_and(|differs| differs <= TOLERANCE);
        let differs =
            differs.map_or("cannot be compared".into(), |differs| format!("differ by {differs:.1e}"));
        match (device, agrees) {
            (Device::Cpu, true) => {}
            (Device::Cpu, false) => return Ok((None, format!("{OWN} (candle's answers {differs})"))),
            (_, true) => return Ok((Some(self), device.name().into())),
            (_, false) => {
                return Err(PolicyError::Run(format!(
                    "{device}: its answers and those of the processor {differs}"
                )));
            }
        }
        let mut time = |rows: usize| {
            let some = &observations[..rows * width];
            (shortest(|| drop(own(some))), shortest(|| drop(self.run(some))))
        };
        let is_faster = |(ours, candles): (f64, f64)| candles < FASTER * ours;
        let (ours, candles) = time(MOST_ROWS);
        let times = format!("{MOST_ROWS} rows: {OWN} {ours:.2} ms, candle {candles:.2} ms");
        if !is_faster((ours, candles)) {
            return Ok((None, format!("{OWN} ({times})")));
        }
        let least =
            FEWER_ROWS.into_iter().take_while(|rows| is_faster(time(*rows))).last().unwrap_or(MOST_ROWS);
        self.rows.0 = least;
        Ok((Some(self), format!("candle from {least} rows ({times})")))
    }

    fn new(
        (device, opened): (Device, candle::Device),
        encoder: Option<&ConvEncoder>,
        steps: &Steps,
        width: usize,
    ) -> candle::Result<Self> {
        let (mut layers, mut shape) = (Vec::new(), vec![width]);
        if let Some(encoder) = encoder {
            let convolution = encoder.convolution();
            shape = convolution.shape.to_vec();
            layers.push(Layer::Scale(1.0 / 255.0));
            let parameters: Vec<&[f32]> = encoder.parameters().collect();
            for ((sizes, layer), pair) in
                convolution.weights().zip(&convolution.layers).zip(parameters.chunks_exact(2))
            {
                let weight = Tensor::from_slice(pair[0], &sizes, &opened)?;
                let bias = Tensor::from_slice(pair[1], sizes[0], &opened)?;
                let config = Conv2dConfig { stride: layer.stride, ..Conv2dConfig::default() };
                layers.push(Layer::Convolution(Conv2d::new(weight, Some(bias), config)));
                layers.push(Layer::Activation(Activation::Relu));
            }
            layers.push(Layer::Flatten);
        }
        for step in steps.all() {
            match step {
                Step::Linear(own) => {
                    let weight =
                        Tensor::from_slice(own.weight(), (own.inputs(), own.outputs()), &opened)?.t()?;
                    let bias = Tensor::from_slice(own.bias(), own.outputs(), &opened)?;
                    layers.push(Layer::Linear(Linear::new(weight, Some(bias))));
                    layers.push(Layer::Activation(own.activation));
                }
                Step::Relu => layers.push(Layer::Activation(Activation::Relu)),
                Step::Tanh => layers.push(Layer::Activation(Activation::Tanh)),
                Step::Clip(low, high) => layers.push(Layer::Clip(*low, *high)),
                Step::Each(operation, constants) => {
                    layers.push(Layer::Each(
                        *operation,
                        Tensor::from_slice(constants, constants.len(), &opened)?,
                    ));
                }
            }
        }
        // Convolutions keep a copy of the pixels that each kernel sees.
        let most = if encoder.is_some() { MOST_ROWS } else { crate::ROWS_PER_RUN };
        Ok(Network { device, opened, layers, shape, rows: (1, most), out: Vec::new() })
    }

    /// Whether it computes these observations.
    pub fn takes(&self, observations: &[f32]) -> bool {
        observations.len() >= self.rows.0 * self.shape.iter().product::<usize>()
    }

    /// The last numbers for row-major observations, which are whole rows.
    pub fn forward(&mut self, observations: &[f32]) -> Result<&[f32], PolicyError> {
        let device = self.device;
        self.run(observations).map_err(|error| failed(device, error))
    }

    fn run(&mut self, observations: &[f32]) -> candle::Result<&[f32]> {
        let width: usize = self.shape.iter().product();
        self.out.clear();
        for rows in observations.chunks(self.rows.1 * width) {
            let shape = [&[rows.len() / width], self.shape.as_slice()].concat();
            let x = Tensor::from_slice(rows, shape, &self.opened)?;
            let answers = self.layers.iter().try_fold(x, |x, layer| layer.forward(&x))?;
            self.out.extend(answers.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(&self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_rl::convolution::{Convolution, ConvolutionLayer};
    use oto_rl::mlp::{Layer as Connected, Mlp};
    use oto_rl::network::Actor;

    const CPU: (Device, candle::Device) = (Device::Cpu, candle::Device::Cpu);

    /// Numbers of the size of the initial weights of a layer with `inputs` inputs.
    fn some(count: usize, inputs: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 1.7).sin() / (inputs as f32).sqrt()).collect()
    }

    fn layers(widths: &[usize], activation: Activation) -> Vec<Connected> {
        let last = widths.len() - 2;
        let layer = |(i, pair): (usize, &[usize])| Connected {
            weight: some(pair[0] * pair[1], pair[0]),
            bias: some(pair[1], 1),
            activation: if i == last { Activation::Identity } else { activation },
        };
        widths.windows(2).enumerate().map(layer).collect()
    }

    fn agrees(encoder: Option<ConvEncoder>, layers: Vec<Connected>) {
        let steps = Steps::of(&layers).unwrap();
        let inputs = layers[0].weight.len() / layers[0].bias.len();
        let mut own = Actor::new(encoder, Mlp::new(inputs, layers).unwrap());
        let mut network = Network::new(CPU, own.encoder(), &steps, own.inputs()).unwrap();
        for rows in [1, 3, 64, 70] {
            let observations: Vec<f32> = (0..rows * own.inputs()).map(|i| (i * 37 % 256) as f32).collect();
            let expected = own.forward(&observations).to_vec();
            let differs = difference(&expected, network.forward(&observations).unwrap());
            assert!(differs.is_some_and(|differs| differs < TOLERANCE), "{rows} rows: {differs:?}");
        }
    }

    #[test]
    fn candles_layers_answer_as_oto_s_do() {
        for activation in [Activation::Relu, Activation::Tanh] {
            agrees(None, layers(&[17, 300, 100, 6], activation));
        }
        let layer = |channels, kernel, stride| ConvolutionLayer { channels, kernel, stride };
        let convolution = Convolution { shape: [2, 13, 11], layers: vec![layer(5, 4, 2), layer(7, 2, 1)] };
        let mut encoder = ConvEncoder::new(convolution);
        encoder.parameters_mut().for_each(|part| part.copy_from_slice(&some(part.len(), 32)));
        let seen = encoder.convolution().outputs();
        agrees(Some(encoder), layers(&[seen, 20, 3], Activation::Relu));
    }

    #[test]
    fn every_step_of_a_graph_is_computed() {
        let linear = oto_cpu::Linear::new(&some(12, 3), some(4, 1), Activation::Tanh).unwrap();
        let all = [Operation::Subtract, Operation::Divide, Operation::Multiply, Operation::Add];
        let each = all.map(|operation| Step::Each(operation, vec![2.0, 3.0, 0.5]));
        let steps = each.into_iter().chain([
            Step::Clip(-0.4, f32::INFINITY),
            Step::Linear(linear),
            Step::Relu,
            Step::Tanh,
        ]);
        let mut own = Steps::new(steps.collect());
        let mut network = Network::new(CPU, None, &own, 3).unwrap();
        let observations = some(3 * 20, 1);
        let expected = own.forward(&observations).to_vec();
        assert!(difference(&expected, network.forward(&observations).unwrap()).unwrap() < 1e-6);
        assert!(expected.iter().any(|x| *x > 0.1));
    }

    #[test]
    fn a_network_is_timed_and_its_engine_named() {
        let place = |widths: &[usize], answer: f32| {
            let mut own = Steps::of(&layers(widths, Activation::Relu)).unwrap();
            let steps = Steps::of(&layers(widths, Activation::Relu)).unwrap();
            let forward = |rows: &[f32]| own.forward(rows).iter().map(|x| x * answer).collect();
            Network::new(CPU, None, &steps, widths[0]).unwrap().chosen(forward).unwrap()
        };
        let (large, engine) = place(&[16, 512, 512, 4], 1.0);
        let prefix = if large.is_some() { "candle from " } else { "oto (64 rows: oto " };
        assert!(engine.starts_with(prefix), "{engine}");
        let (other, engine) = place(&[16, 512, 512, 4], 2.0);
        assert!(other.is_none() && engine.starts_with("oto (candle's answers differ by "), "{engine}");
    }

    #[test]
    fn answers_that_cannot_be_compared_do_not_agree() {
        assert_eq!(difference(&[1.0, 2.0], &[1.0]), None);
        assert_eq!(difference(&[f32::NAN], &[1.0]), None);
        assert_eq!(difference(&[1.0], &[f32::NAN]), None);
        assert_eq!(difference(&[f32::INFINITY], &[f32::INFINITY]), None);
        assert_eq!(difference(&[100.0, 0.0], &[100.0, 1.0]), Some(0.01));
    }
}

//! Rows of numbers through one step after the other: what oto's own networks and the ONNX graphs that are such networks compute.

use oto_cpu::{Linear, Scratch};
use oto_rl::mlp::Layer;

/// What happens to rows of numbers.
#[cfg_attr(not(feature = "onnx"), allow(dead_code))] // A file of tensors has layers only.
pub(crate) enum Step {
    Linear(Linear),
    Relu,
    Tanh,
    /// No less than the first, then no more than the second.
    Clip(f32, f32),
    /// With one constant for each number of a row.
    Each(Operation, Vec<f32>),
}

/// A number and a constant.
#[cfg_attr(not(feature = "onnx"), allow(dead_code))]
#[derive(Clone, Copy)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// Steps and the room that they work in.
pub(crate) struct Steps {
    steps: Vec<Step>,
    scratch: Scratch,
    /// What a step reads and what it writes.
    rows: [Vec<f32>; 2],
}

impl Steps {
    pub fn new(steps: Vec<Step>) -> Self {
        Steps { steps, scratch: Scratch::default(), rows: [Vec::new(), Vec::new()] }
    }

    /// The layers of a network.
    pub fn of(layers: &[Layer]) -> Option<Self> {
        let linear = |layer: &Layer| {
            Linear::new(&layer.weight, layer.bias.clone(), layer.activation).map(Step::Linear)
        };
        layers.iter().map(linear).collect::<Option<_>>().map(Steps::new)
    }

    /// All of them, first to last.
    #[cfg_attr(not(feature = "candle"), allow(dead_code))]
    pub fn all(&self) -> &[Step] {
        &self.steps
    }

    /// Multiplications of a row.
    #[cfg_attr(not(feature = "candle"), allow(dead_code))]
    pub fn work(&self) -> usize {
        let of = |step: &Step| if let Step::Linear(layer) = step { layer.weight().len() } else { 0 };
        self.steps.iter().map(of).sum()
    }

    /// What comes of row-major `observations`, which are whole rows of as many numbers as the first step takes.
    pub fn forward(&mut self, observations: &[f32]) -> &[f32] {
        let Steps { steps, scratch, rows: [from, to] } = self;
        from.clear();
        from.extend_from_slice(observations);
        for step in steps {
            match step {
                Step::Linear(layer) => {
                    layer.forward(from, to, scratch);
                    std::mem::swap(from, to);
                }
                Step::Relu => from.iter_mut().for_each(|x| *x = x.max(0.0)),
                Step::Tanh => from.iter_mut().for_each(|x| *x = x.tanh()),
                Step::Clip(low, high) => from.iter_mut().for_each(|x| *x = x.max(*low).min(*high)),
                Step::Each(operation, constants) => {
                    for row in from.chunks_exact_mut(constants.len()) {
                        row.iter_mut().zip(&*constants).for_each(|(x, c)| *x = operation.of(*x, *c));
                    }
                }
            }
        }
        from
    }
}

impl Operation {
    fn of(self, x: f32, c: f32) -> f32 {
        match self {
            Operation::Add => x + c,
            Operation::Subtract => x - c,
            Operation::Multiply => x * c,
            Operation::Divide => x / c,
        }
    }
}

#[cfg(feature = "onnx")]
impl Steps {
    /// The largest observation, as a power of two, with which no number overflows on the way.
    pub fn reach(&self) -> Option<f32> {
        let growth: Vec<_> = self.steps.iter().map(Step::growth).collect();
        let stays = |most: &f32| {
            let mut most = f64::from(*most);
            growth.iter().all(|(times, plus)| {
                most = times * most + plus;
                most < f64::from(f32::MAX) / 2.0
            })
        };
        (0..=126).rev().map(|power| 2f32.powi(power)).find(stays)
    }
}

#[cfg(feature = "onnx")]
impl Step {
    /// How numbers grow: none, on the way neither, exceeds the first times the largest that comes, plus the second.
    fn growth(&self) -> (f64, f64) {
        let sizes = |numbers: &[f32]| numbers.iter().map(|x| f64::from(x.abs())).collect::<Vec<_>>();
        let largest = |numbers: &[f32]| sizes(numbers).into_iter().fold(0.0, f64::max);
        match self {
            Step::Linear(layer) => layer.growth(),
            Step::Relu | Step::Tanh => (1.0, 0.0),
            Step::Clip(low, high) => {
                let bounds = [*low, *high].map(|bound| if bound.is_finite() { bound } else { 0.0 });
                (1.0, largest(&bounds))
            }
            Step::Each(Operation::Add | Operation::Subtract, constants) => (1.0, largest(constants)),
            Step::Each(Operation::Multiply, constants) => (largest(constants), 0.0),
            Step::Each(Operation::Divide, constants) => {
                (1.0 / sizes(constants).into_iter().fold(f64::INFINITY, f64::min), 0.0)
            }
        }
    }
}

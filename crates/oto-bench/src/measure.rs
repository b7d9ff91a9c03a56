//! The ruler: contestants that run one workload, timed in turn, block after block, so that a slow minute of the machine
//! meets all of them; and what the machine could do at best.

use crate::fused::Fused;
use crate::kernels::{self, Level};
use crate::workload::Workload;
use oto_graph::{Backend, BackendError, Executable, InputId, Op, Program, Role, Trace};
use std::fmt;
use std::time::{Duration, Instant};

/// How long a block of updates takes.
const BLOCK: Duration = Duration::from_millis(15);
/// How far two contestants may be apart after one update, relative where numbers are large.
const TOLERANCE: f32 = 2e-4;

/// Why a contestant cannot be measured.
#[derive(Debug)]
pub enum Failure {
    /// Its backend failed.
    Backend(BackendError),
    /// Another process failed, in its words.
    Peer(String),
    /// It computes something else.
    Differs {
        /// Who.
        name: String,
        /// In which number.
        what: String,
        /// What it says.
        got: f32,
        /// What the reference says.
        expected: f32,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(error) => error.fmt(f),
            Self::Peer(error) => f.write_str(error),
            Self::Differs { name, what, got, expected } => {
                write!(f, "{name} computes something else: {what} is {got} after one update, not {expected}")
            }
        }
    }
}

impl std::error::Error for Failure {}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

/// What one update from the start gives: all that contestants must agree on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The loss before it.
    pub loss: f32,
    /// State after it by name; a peer may leave its optimiser's out.
    pub state: Vec<(String, Vec<f32>)>,
}

impl Outcome {
    /// An error where `self`, made by `name`, is not what `reference` says.
    pub fn agrees(&self, name: &str, reference: &Outcome) -> Result<(), Failure> {
        let check = |what: &dyn Fn() -> String, got: f32, expected: f32| {
            if (got - expected).abs() <= TOLERANCE * (1.0 + expected.abs()) {
                return Ok(());
            }
            Err(Failure::Differs { name: name.into(), what: what(), got, expected })
        };
        check(&|| "the loss".into(), self.loss, reference.loss)?;
        for (parameter, values) in &self.state {
            let found = reference.state.iter().find(|(n, v)| n == parameter && v.len() == values.len());
            let Some((_, expected)) = found else {
                return Err(Failure::Peer(format!("{name}: no {parameter} of {} numbers", values.len())));
            };
            for (i, (got, expected)) in values.iter().zip(expected).enumerate() {
                check(&|| format!("{parameter}[{i}]"), *got, *expected)?;
            }
        }
        Ok(())
    }
}

/// Something that makes a workload's updates.
pub trait Contestant {
    /// What tables call it.
    fn name(&self) -> &str;
    /// One update from the start.
    fn check(&mut self) -> Result<Outcome, Failure>;
    /// So many updates, one after the other; how long they took.
    fn run(&mut self, updates: u32) -> Result<Duration, Failure>;
}

/// A backend's executable.
pub struct Compiled {
    name: String,
    executable: Box<dyn Executable>,
    workload: Workload,
    outputs: Vec<Vec<f32>>,
}

impl Compiled {
    /// `workload` on `backend`, called `name`.
    pub fn new(name: &str, backend: &dyn Backend, workload: &Workload) -> Result<Self, Failure> {
        let mut executable = backend.compile(workload.program())?;
        let outputs = vec![Vec::new(); executable.program().outputs.len()];
        let inputs = executable.program().inputs.iter().enumerate();
        let acting = inputs.filter(|(_, i)| i.role == Role::State && is_acting(&i.name));
        let acting = acting.map(|(i, _)| InputId(i)).collect::<Vec<_>>();
        if let Some(device) = executable.device() {
            device.watch(&acting);
        }
        Ok(Self { name: name.into(), executable, workload: workload.clone(), outputs })
    }
}

impl Contestant for Compiled {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&mut self) -> Result<Outcome, Failure> {
        self.workload.load(self.executable.as_mut())?;
        self.executable.run(&self.workload.slices(), &mut self.outputs)?;
        let read = |(name, values): &(String, Vec<f32>)| {
            let mut now = vec![0.0; values.len()];
            if let Some(id) = self.executable.program().input(name) {
                self.executable.read(id, &mut now)?;
            }
            Ok((name.clone(), now))
        };
        let state = self.workload.state.iter().map(read).collect::<Result<_, BackendError>>()?;
        Ok(Outcome { loss: self.outputs[0][0], state })
    }

    fn run(&mut self, updates: u32) -> Result<Duration, Failure> {
        let data = self.workload.slices();
        steps(self.executable.as_mut(), &data, &mut self.outputs, updates)
    }
}

/// Whether a student acts with this tensor, or, if it has no actor, learns to.
fn is_acting(name: &str) -> bool {
    ["q.", "actor.", "critics."].iter().any(|prefix| name.starts_with(prefix))
}

/// How long this thread lets a device work before it asks again.
const PAUSE: Duration = Duration::from_micros(50);

/// Makes steps as training does, and times them. On a device they are queued while it has room; what a student learns of
/// them, the losses and the weights to act with, comes with the reports, and nothing else is read back.
fn steps(
    executable: &mut dyn Executable,
    data: &[&[f32]],
    outputs: &mut [Vec<f32>],
    count: u32,
) -> Result<Duration, Failure> {
    let start = Instant::now();
    let Some(device) = executable.device() else {
        for _ in 0..count {
            executable.run(data, outputs)?;
        }
        return Ok(start.elapsed());
    };
    let mut started = 0;
    while started < count || device.behind() > 0 {
        while started < count && device.has_room() {
            device.start(data)?;
            started += 1;
        }
        if device.report()?.is_none() {
            std::thread::sleep(PAUSE);
        }
    }
    Ok(start.elapsed())
}

/// The step fused by hand.
pub struct ByHand {
    start: Fused,
    now: Fused,
}

impl ByHand {
    /// `workload`, by hand.
    pub fn new(workload: &Workload) -> Self {
        let start = Fused::new(workload);
        Self { now: start.clone(), start }
    }
}

impl Contestant for ByHand {
    fn name(&self) -> &str {
        "fused"
    }

    fn check(&mut self) -> Result<Outcome, Failure> {
        self.now = self.start.clone();
        let loss = self.now.step();
        Ok(Outcome { loss, state: self.now.params() })
    }

    fn run(&mut self, updates: u32) -> Result<Duration, Failure> {
        let start = Instant::now();
        for _ in 0..updates {
            std::hint::black_box(self.now.step());
        }
        Ok(start.elapsed())
    }
}

/// Seconds per update: the median of all blocks, and the tenths at both ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// How many there were.
    pub blocks: u32,
    /// The middle.
    pub median: f64,
    /// One block in ten was faster.
    pub p10: f64,
    /// One block in ten was slower.
    pub p90: f64,
}

impl Spread {
    /// Of these times, at least one.
    pub(crate) fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (seconds.len() - 1) as f64;
            let (low, high) = (seconds[place.floor() as usize], seconds[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        Self { blocks: seconds.len() as u32, median: at(0.5), p10: at(0.1), p90: at(0.9) }
    }
}

/// Times all contestants in turn, `repeats` blocks each, or what begins within `limit`; at least one. Every contestant is warm
/// before the first block.
pub fn interleave(
    contestants: &mut [Box<dyn Contestant>],
    repeats: u32,
    limit: Duration,
) -> Result<Vec<Spread>, Failure> {
    let start = Instant::now();
    let blocks = contestants.iter_mut().map(|c| block(c.as_mut())).collect::<Result<Vec<_>, _>>()?;
    let mut seconds = vec![Vec::new(); contestants.len()];
    for round in 0..repeats.max(1) {
        if round > 0 && start.elapsed() >= limit {
            break;
        }
        for ((contestant, updates), seconds) in contestants.iter_mut().zip(&blocks).zip(&mut seconds) {
            seconds.push(contestant.run(*updates)?.as_secs_f64() / f64::from(*updates));
        }
    }
    Ok(seconds.into_iter().map(Spread::of).collect())
}

/// How many updates fill a block; finding out warms the contestant up.
fn block(contestant: &mut dyn Contestant) -> Result<u32, Failure> {
    let mut updates = 1;
    loop {
        let took = contestant.run(updates)?;
        if took >= BLOCK / 2 || updates >= 1 << 20 {
            let fitting = f64::from(updates) * BLOCK.as_secs_f64() / took.as_secs_f64().max(1e-9);
            return Ok((fitting.round() as u32).max(1));
        }
        updates *= 2;
    }
}

/// Floating-point operations in the matrix products of one run: `2 k` for each number of a result, of sums of length `k`.
pub fn matrix_operations(program: &Program) -> f64 {
    let shape = |id: oto_graph::NodeId| &program.nodes[id.0].shape;
    let from_last = |id: oto_graph::NodeId, i: usize| shape(id)[shape(id).len() - i];
    let size = |node: &oto_graph::Node| match node.op {
        Op::MatMul { a, ta, .. } => {
            Some(from_last(a, if ta { 2 } else { 1 }) * node.shape.iter().product::<usize>())
        }
        Op::Linear { x, .. } => Some(from_last(x, 1) * node.shape.iter().product::<usize>()),
        _ => None,
    };
    program.nodes.iter().filter_map(size).map(|products| 2.0 * products as f64).sum()
}

/// The matrix products of `program` alone, as many, of the same shapes and turned the same way, each on operands of its own.
fn products_only(program: &Program) -> Program {
    let t = &Trace::new();
    let mut updates = Vec::new();
    for (i, node) in program.nodes.iter().enumerate() {
        let operand =
            |side: &str, id: oto_graph::NodeId| t.state(format!("{i}.{side}"), &program.nodes[id.0].shape);
        let product = match node.op {
            Op::MatMul { a, b, ta, tb } => operand("a", a).matmul(operand("b", b), ta, tb),
            Op::Linear { x, weight, bias, activation } => {
                operand("x", x).linear(operand("weight", weight), operand("bias", bias), activation)
            }
            _ => continue,
        };
        updates.push((t.state(format!("{i}.product"), &node.shape), product));
    }
    t.finish(&updates, &[])
}

/// A backend's matrix products of one workload, without the rest of the update.
pub struct Products {
    name: String,
    executable: Box<dyn Executable>,
}

impl Products {
    /// The products of `workload` on `backend`, called `name`.
    pub fn new(name: &str, backend: &dyn Backend, workload: &Workload) -> Result<Self, Failure> {
        Self::of(name, backend, products_only(&workload.program()))
    }

    /// A program without data and outputs on `backend`, called `name`; its state is small numbers.
    pub fn of(name: &str, backend: &dyn Backend, program: Program) -> Result<Self, Failure> {
        let mut executable = backend.compile(program)?;
        let inputs = executable.program().inputs.clone();
        for (i, input) in inputs.iter().enumerate().filter(|(_, i)| i.role == Role::State) {
            let values = (0..input.len()).map(|j| (j % 7) as f32 * 0.1 - 0.3).collect::<Vec<_>>();
            executable.write(InputId(i), &values)?;
        }
        // A report that brings nothing could come before the work is done.
        let last = inputs.iter().rposition(|i| i.role == Role::State).map(InputId);
        if let Some(device) = executable.device() {
            device.watch(last.as_slice());
        }
        Ok(Self { name: name.into(), executable })
    }
}

impl Contestant for Products {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&mut self) -> Result<Outcome, Failure> {
        Ok(Outcome::default())
    }

    fn run(&mut self, updates: u32) -> Result<Duration, Failure> {
        steps(self.executable.as_mut(), &[], &mut [], updates)
    }
}

/// What one core reaches at best with some instructions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Which.
    pub instructions: &'static str,
    /// Floating-point operations a second.
    pub per_second: f64,
}

/// The peak of each level of instructions that this processor has, the widest last: multiply-adds on registers, nothing
/// else; the fastest of some tries.
pub fn peaks() -> Vec<Peak> {
    let peak = |level: Level| {
        let (rows, columns) = level.tile();
        let rounds = 200_000;
        let mut sum = 0.0;
        let mut fastest = f64::INFINITY;
        for _ in 0..9 {
            let start = Instant::now();
            kernels::multiply_add_loop(level, rounds, &mut sum);
            std::hint::black_box(sum);
            fastest = fastest.min(start.elapsed().as_secs_f64());
        }
        let operations = 2.0 * (rows * columns) as f64 * f64::from(rounds);
        Peak { instructions: level.name(), per_second: operations / fastest }
    };
    Level::all().into_iter().map(peak).collect()
}

/// The processor's name, as far as the system tells it.
pub fn processor() -> String {
    let named = std::fs::read_to_string("/proc/cpuinfo").ok();
    let line = named.as_deref().and_then(|text| text.lines().find(|l| l.starts_with("model name")));
    let name = line.and_then(|l| l.split_once(':')).map(|(_, name)| name.trim().to_string());
    name.unwrap_or_else(|| std::env::consts::ARCH.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Continuous, Shape, Task, distillation};
    use oto_candle::Candle;
    use oto_cpu::Cpu;

    #[test]
    fn contestants_agree_and_take_time() {
        let shape = Shape { hidden: 16, quantiles: 8, batch: 16 };
        for workload in [Workload::new(shape, 1), distillation(1)] {
            let mut contestants: Vec<Box<dyn Contestant>> = vec![
                Box::new(Compiled::new("candle", &Candle, &workload).unwrap()),
                Box::new(Compiled::new("cpu", &Cpu, &workload).unwrap()),
                Box::new(ByHand::new(&workload)),
                Box::new(Products::new("products", &Cpu, &workload).unwrap()),
            ];
            let reference = contestants[0].check().unwrap();
            for c in &mut contestants[1..3] {
                let outcome = c.check().unwrap();
                outcome.agrees("it", &reference).unwrap();
                assert_eq!(outcome.state.len(), workload.state.len());
            }
            for spread in interleave(&mut contestants, 2, Duration::MAX).unwrap() {
                assert_eq!(spread.blocks, 2);
                assert!(spread.p10 > 0.0 && spread.p10 <= spread.median && spread.median <= spread.p90);
            }
            assert_eq!(interleave(&mut contestants, 9, Duration::ZERO).unwrap()[0].blocks, 1);
        }
    }

    #[test]
    fn large_updates_agree_with_any_number_of_threads() {
        let large = Continuous { hidden: 200, batch: 128 };
        for task in [Task::Sac(large), Task::Td3(large), Task::Critics(3, large)] {
            let workload = Workload::draw(task, 1);
            let check =
                |backend: &dyn Backend| Compiled::new("it", backend, &workload).unwrap().check().unwrap();
            let threads = oto_cpu::Threads(std::num::NonZeroUsize::new(3).unwrap());
            let one = check(&Cpu);
            one.agrees("cpu", &check(&Candle)).unwrap();
            assert_eq!(check(&threads), one);
            let products = Products::new("it", &Cpu, &workload).unwrap().run(1).unwrap();
            assert!(products > Duration::ZERO);
        }
    }

    #[test]
    fn operations_of_an_ensemble() {
        let shape = Continuous { hidden: 64, batch: 32 };
        let one = matrix_operations(&Workload::draw(Task::Critics(1, shape), 1).program());
        let ten = matrix_operations(&Workload::draw(Task::Critics(10, shape), 1).program());
        // Forward and the weights' gradients are whole; nothing flows on to the observations.
        let layers = 23 * 64 + 64 * 64 + 64;
        assert_eq!(one, (2 * 32 * (2 * layers + 64 * 64 + 64)) as f64);
        assert_eq!(ten, 10.0 * one);
    }

    #[test]
    fn a_difference_is_named() {
        let outcome = |x: f32| Outcome { loss: 1.0, state: vec![("w".into(), vec![0.0, x])] };
        let error = outcome(1.1).agrees("peer", &outcome(1.0)).unwrap_err();
        assert_eq!(error.to_string(), "peer computes something else: w[1] is 1.1 after one update, not 1");
        let unknown = Outcome { loss: 1.0, state: vec![("x".into(), vec![0.0])] };
        assert!(unknown.agrees("peer", &outcome(1.0)).is_err());
    }

    #[test]
    fn matrix_operations_of_an_update() {
        let workload = Workload::new(Shape { hidden: 64, quantiles: 32, batch: 64 }, 1);
        // Two forward passes and the weights' gradients are whole; nothing flows on to the observations.
        let layers = 4 * 64 + 64 * 64 + 64 * 64;
        let expected = 2 * 64 * (3 * layers + 2 * 64 * 64);
        assert_eq!(matrix_operations(&workload.program()), expected as f64);
        assert_eq!(matrix_operations(&products_only(&workload.program())), expected as f64);
    }
}

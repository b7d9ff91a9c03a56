//! A compiled program: steps, memory, and one loop over them. The large steps of large programs are divided among threads.

use crate::convolution::{Room, conv2d, conv2d_grad_input, conv2d_grad_weight};
use crate::kernels::{self, AdamConstants, Spread};
use crate::lower::{Lowered, lower};
use crate::map::MapStep;
use crate::matmul::{Finish, Side, sum_rows};
use crate::memory::{Block, Memory, Number, Whole};
use crate::team::Team;
use oto_graph::plan::{Optimise, Place, Plan};
use oto_graph::{Activation, Backend, BackendError, Executable, InputId, Op, Program, Role};
use std::num::NonZeroUsize;

/// The backend named "cpu", on one core.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

impl Backend for Cpu {
    fn name(&self) -> &str {
        "cpu"
    }

    fn compile(&self, program: Program) -> Result<Box<dyn Executable>, BackendError> {
        Threads(NonZeroUsize::MIN).compile(program)
    }
}

/// The backend named "cpu", on several threads. They share the work of large programs; a small program has one thread. The results
/// are the same bits with any number of threads.
#[derive(Clone, Copy, Debug)]
pub struct Threads(pub NonZeroUsize);

impl Backend for Threads {
    fn name(&self) -> &str {
        "cpu"
    }

    fn compile(&self, program: Program) -> Result<Box<dyn Executable>, BackendError> {
        program.check()?;
        Ok(Box::new(Compiled::new(program, self.0)))
    }
}

struct Compiled {
    program: Program,
    /// Where each input lies, and each output.
    inputs: Vec<Whole>,
    outputs: Vec<Whole>,
    /// State that is replaced after the last step: from, to.
    copies: Vec<(Whole, Whole)>,
    /// With each the number without which it need not run.
    steps: Vec<(Step, Option<Number>)>,
    memory: Memory,
    team: Team,
    room: Room,
}

/// A kernel, ready to run.
pub enum Step {
    Map(MapStep),
    Matmul(MatmulStep),
    Conv(ConvStep),
    Reduce {
        x: Whole,
        spread: Spread,
        out: Whole,
    },
    Optimise(OptimiseStep),
    /// Products and maps of as many parts each, part by part: what a part hands on stays in the cache.
    Parts(usize, Vec<Step>),
}

/// See [`oto_graph::plan::Matmul`].
pub struct MatmulStep {
    /// Products, one after the other.
    pub count: usize,
    pub a: Whole,
    pub one_a: bool,
    pub a_columns: usize,
    pub ta: bool,
    pub b: Whole,
    pub one_b: bool,
    pub b_columns: usize,
    pub tb: bool,
    pub bias: Option<Whole>,
    pub activation: Activation,
    pub derivative: Option<(Activation, Whole)>,
    pub sums: Option<Whole>,
    pub n: usize,
    pub k: usize,
    pub out: Whole,
}

/// A convolution or one of its gradients, with its operands' shapes.
pub struct ConvStep {
    pub op: Op,
    pub operands: Vec<(Whole, Vec<usize>)>,
    pub out: (Whole, Vec<usize>),
}

/// See [`oto_graph::plan::Optimise`].
pub struct OptimiseStep {
    pub kernel: Optimise,
    pub t: Number,
    pub lr: Number,
    pub due: Option<Number>,
    pub tau: Number,
    pub slow_due: Option<Number>,
}

impl Compiled {
    fn new(program: Program, threads: NonZeroUsize) -> Self {
        let plan = Plan::new(&program);
        let Lowered { steps, memory, outputs, copies } = lower(&plan);
        let input = |i: InputId| {
            let Place { slot, offset } = plan.input(i);
            Whole { slot, offset, len: program.inputs[i.0].len(), one_part: false }
        };
        Self {
            inputs: (0..program.inputs.len()).map(|i| input(InputId(i))).collect(),
            outputs,
            copies: copies.into_iter().map(|(from, to)| (from, input(to))).collect(),
            team: Team::new(&plan, threads),
            steps,
            memory,
            room: Room::default(),
            program,
        }
    }
}

impl Step {
    fn run(&mut self, memory: &mut Memory, team: &mut Team, room: &mut Room) -> Result<(), BackendError> {
        match self {
            Step::Map(map) => map.run(memory)?,
            Step::Matmul(p) => p.run(memory, team),
            Step::Conv(c) => c.run(memory, room),
            Step::Reduce { x, spread, out } => {
                memory.write(*out, |memory, to| spread.sum(memory.whole(*x), to.len(), to));
            }
            Step::Optimise(o) => o.run(memory, team),
            Step::Parts(count, steps) => {
                for i in 0..*count {
                    steps.iter_mut().try_for_each(|step| step.part(i, memory, team))?;
                }
            }
        }
        Ok(())
    }

    /// Part `i` alone.
    fn part(&mut self, i: usize, memory: &mut Memory, team: &mut Team) -> Result<(), BackendError> {
        match self {
            Step::Map(map) => map.block(Block { first: i, end: i + 1 }, memory),
            Step::Matmul(p) => {
                p.product(i, memory, team);
                Ok(())
            }
            _ => unreachable!("neither a product nor a map"),
        }
    }
}

impl MatmulStep {
    fn run(&self, memory: &mut Memory, team: &mut Team) {
        (0..self.count).for_each(|i| self.product(i, memory, team));
    }

    /// Product `i`, and the sums beside it.
    fn product(&self, i: usize, memory: &mut Memory, team: &mut Team) {
        let part = |w: Whole| w.part(i, self.count);
        let side = |w: Whole, one: bool| if one { w } else { part(w) };
        let (a, b) = (side(self.a, self.one_a), side(self.b, self.one_b));
        memory.write(part(self.out), |memory, out| {
            let a = Side { values: memory.whole(a), columns: self.a_columns, turned: self.ta };
            let b = Side { values: memory.whole(b), columns: self.b_columns, turned: self.tb };
            let finish = Finish {
                bias: self.bias.map(|b| memory.whole(part(b))),
                activation: self.activation,
                derivative: self.derivative.map(|(activation, y)| (activation, memory.whole(part(y)))),
            };
            team.matmul(a, b, finish, self.n, self.k, out);
        });
        if let Some(sums) = self.sums {
            memory.write(part(sums), |memory, out| sum_rows(memory.whole(a), out));
        }
    }
}

impl ConvStep {
    fn run(&self, memory: &mut Memory, room: &mut Room) {
        let (out, shape) = &self.out;
        memory.write(*out, |memory, out| {
            let operand = |i: usize| (memory.whole(self.operands[i].0), self.operands[i].1.as_slice());
            match self.op {
                Op::Conv2d { conv, activation, .. } => {
                    let bias = operand(2).0;
                    conv2d(operand(0), operand(1), bias, (conv, activation), shape, out, room);
                }
                Op::Conv2dGradInput { conv, .. } => {
                    conv2d_grad_input(operand(0), operand(1), conv, shape, out, room)
                }
                Op::Conv2dGradWeight { conv, .. } => {
                    conv2d_grad_weight(operand(0), operand(1), conv, shape, out, room)
                }
                _ => unreachable!("no convolution"),
            }
        });
    }
}

impl OptimiseStep {
    fn run(&self, memory: &mut Memory, team: &mut Team) {
        let o = &self.kernel;
        let constants = AdamConstants {
            scales: kernels::adam_scales(memory.number(self.t), memory.number(self.lr), o.beta1, o.beta2),
            beta1: o.beta1,
            beta2: o.beta2,
            epsilon: o.epsilon,
        };
        let wanted = |due: Option<Number>| due.is_none_or(|due| memory.number(due) > 0.0);
        let (due, tau) = (wanted(self.due), memory.number(self.tau));
        let target = o.target.filter(|_| wanted(self.slow_due)).map(|slow| slow.slot);
        let mut take = |slot: usize| std::mem::take(&mut memory.slots[slot]);
        let (mut p, mut m, mut v) = (take(o.p), take(o.m), take(o.v));
        let mut slow = target.map(&mut take);
        let copy = slow.as_deref_mut().unwrap_or_default();
        match due {
            true => team.optimise([&mut p, &mut m, &mut v, copy], &memory.slots[o.g], tau, constants),
            false => kernels::follow(copy, &p, tau),
        }
        let back = [(o.p, p), (o.m, m), (o.v, v)].into_iter().chain(target.zip(slow));
        back.for_each(|(slot, values)| memory.slots[slot] = values);
    }
}

impl Executable for Compiled {
    fn program(&self) -> &Program {
        &self.program
    }

    fn write(&mut self, input: InputId, values: &[f32]) -> Result<(), BackendError> {
        self.program.check_size(input, values.len())?;
        self.memory.write(self.inputs[input.0], |_, to| to.copy_from_slice(values));
        Ok(())
    }

    fn read(&self, input: InputId, values: &mut [f32]) -> Result<(), BackendError> {
        self.program.check_size(input, values.len())?;
        values.copy_from_slice(self.memory.whole(self.inputs[input.0]));
        Ok(())
    }

    fn run(&mut self, data: &[&[f32]], outputs: &mut [Vec<f32>]) -> Result<(), BackendError> {
        self.program.check_counts(data.len(), outputs.len())?;
        let mut next = 0;
        for i in 0..self.program.inputs.len() {
            if self.program.inputs[i].role == Role::Data {
                self.write(InputId(i), data[next])?;
                next += 1;
            }
        }
        for (step, condition) in &mut self.steps {
            if condition.is_some_and(|condition| self.memory.number(condition) <= 0.0) {
                continue;
            }
            step.run(&mut self.memory, &mut self.team, &mut self.room)?;
        }
        for (from, out) in self.outputs.iter().zip(outputs) {
            out.clear();
            out.extend_from_slice(self.memory.whole(*from));
        }
        for (from, to) in &self.copies {
            self.memory.write(*to, |memory, to| to.copy_from_slice(memory.whole(*from)));
        }
        Ok(())
    }
}

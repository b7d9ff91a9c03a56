//! `cargo run --release -p oto-rl --example programs [ROUNDS [NAME]]`: how long one update of larger programs takes on the CPU, the fastest
//! of ROUNDS blocks, all programs in turn (those whose name contains NAME): soft actor-critic's, a delayed actor's, and ensembles of critics on their own.

use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_graph::{Activation, Backend, Executable, InputId, Program, Role, Trace};
use oto_rl::actions::Actions;
use oto_rl::algorithms::Sizes;
use oto_rl::algorithms::sac::{self, SacConfig};
use oto_rl::optimiser::{Adam, Optimiser, Updates, ensemble_parameters, mlp};
use std::time::Instant;

/// Blocks last at least this long, in seconds.
const BLOCK: f64 = 0.05;

/// The programs by name.
fn all() -> Vec<(String, Program)> {
    let sac = |hidden: usize, batch_size: usize, observation, action, teachers| {
        let config = SacConfig { hidden: vec![hidden; 2], batch_size, ..SacConfig::default() };
        let name = format!(
            "sac {hidden}-{hidden}, batch {batch_size}, {observation} to {action}, {teachers} teachers"
        );
        let actions = Actions::Continuous(action);
        (name, sac::program(&config, Sizes { observation, actions, teachers }))
    };
    let critics = |n| (format!("{n} critics 256-256, batch 256"), critics(n, 256, 256));
    vec![
        sac(32, 32, 3, 1, 1),
        sac(64, 64, 3, 1, 1),
        sac(256, 256, 17, 6, 0),
        critics(1),
        critics(2),
        critics(10),
    ]
}

/// An update of `count` critics of two hidden layers towards given targets, their slow copies included.
fn critics(count: usize, hidden: usize, batch: usize) -> Program {
    let t = &Trace::new();
    let sizes = [23, hidden, hidden, 1];
    let [critics, targets] =
        ["critics.", "target.critics."].map(|name| ensemble_parameters(t, name, count, &sizes));
    let x = t.data("observation", &[batch, 17]).concat(t.data("action", &[batch, 6]));
    let q = mlp(&critics, x, Activation::Relu).reshape(&[count, batch]);
    let loss = (q - t.data("target", &[batch])).square().sum_last().sum() * (1.0 / batch as f64);
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("", Adam::default(), t.data("lr", &[])), &critics, loss);
    updates.follow(&targets, &critics, t.data("target_mix", &[]), 1);
    t.finish(&updates.pairs(), &[("loss", loss)])
}

/// A program on the CPU and the times of its updates.
struct Timed {
    name: String,
    executable: Box<dyn Executable>,
    data: Vec<Vec<f32>>,
    outputs: Vec<Vec<f32>>,
    least: f64,
}

impl Timed {
    /// Compiles a program and gives it numbers.
    fn new((name, program): (String, Program)) -> Self {
        let rng = &mut Rng::new(1);
        let draw = |len: usize, rng: &mut Rng, scale: f64| {
            (0..len).map(|_| (rng.uniform(-1.0, 1.0) * scale) as f32).collect::<Vec<_>>()
        };
        let data = program.data().map(|(_, input)| match input.name.as_str() {
            "lr" => vec![1e-4],
            "target_mix" => vec![0.005],
            "perm" => (0..input.len()).map(|i| i as f32).collect(),
            "discount" | "mask" => vec![0.9; input.len()],
            _ => draw(input.len(), rng, 1.0),
        });
        let data = data.collect();
        let mut executable = Cpu.compile(program.clone()).expect("the CPU takes every program");
        let states = program.inputs.iter().enumerate();
        for (i, input) in states.filter(|(_, i)| i.role == Role::State && !i.name.starts_with("adam")) {
            let values = draw(input.len(), rng, 0.05);
            executable.write(InputId(i), &values).expect("as many numbers as the program says");
        }
        Self { name, executable, data, outputs: vec![Vec::new(); program.outputs.len()], least: f64::MAX }
    }

    /// Updates for a block's time; keeps the fastest.
    fn block(&mut self) {
        let data = self.data.iter().map(Vec::as_slice).collect::<Vec<_>>();
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < BLOCK {
            let before = Instant::now();
            self.executable.run(&data, &mut self.outputs).expect("an update");
            self.least = self.least.min(before.elapsed().as_secs_f64());
        }
    }

    /// Milliseconds of the fastest update.
    fn least_ms(&self) -> f64 {
        self.least * 1e3
    }
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(15);
    let only = std::env::args().nth(2).unwrap_or_default();
    let chosen = all().into_iter().filter(|(name, _)| name.contains(&only));
    let mut timed = chosen.map(Timed::new).collect::<Vec<_>>();
    for _ in 0..rounds {
        timed.iter_mut().for_each(Timed::block);
    }
    for program in &timed {
        println!("{:<48} {:>9.3} ms", program.name, program.least_ms());
    }
}

//! `cargo run --release -p oto-rl --example programs [ROUNDS [NAME [THREADS]]]`: how long one update of larger programs takes on the CPU, the
//! fastest of ROUNDS blocks, all programs in turn (those whose name contains NAME), with one thread or THREADS: soft actor-critic's, a delayed actor's, and ensembles of critics on their own.

use oto_cpu::Threads;
use oto_env::rng::Rng;
use oto_graph::{Activation, Backend, Executable, InputId, Program, Role, Tensor, Trace};
use oto_rl::actions::Actions;
use oto_rl::algorithms::Sizes;
use oto_rl::algorithms::sac::{self, SacConfig};
use oto_rl::optimiser::{Adam, Optimiser, Updates, ensemble_parameters, mlp, mlp_parameters};
use std::num::NonZeroUsize;
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
        (name, sac::program(&config, Sizes { observation, actions, teachers, weighted: false }))
    };
    let critics = |n| (format!("{n} critics 256-256, batch 256"), critics(n, 256, 256));
    vec![
        sac(32, 32, 3, 1, 1),
        sac(64, 64, 3, 1, 1),
        sac(256, 256, 17, 6, 0),
        critics(1),
        critics(2),
        critics(10),
        delayed(true, false),
        delayed(false, false),
        delayed(true, true),
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

/// A delayed actor-critic's update (TD3's without its noise) at SAC's large size, its actor and slow copies due or not, with
/// layer normalisation before its critics' ReLUs or without.
fn delayed(due: bool, norm: bool) -> (String, Program) {
    let t = &Trace::new();
    let (batch, sizes) = (256, [23, 256, 256, 1]);
    let [critics, targets] =
        ["critics.", "target.critics."].map(|name| ensemble_parameters(t, name, 2, &sizes));
    let [actor, slow] = ["actor.", "target.actor."].map(|name| mlp_parameters(t, name, &[17, 256, 256, 6]));
    let policy = |params: &[_], x| mlp(params, x, Activation::Relu).tanh();
    let [observation, next] = ["observation", "next_observation"].map(|name| t.data(name, &[batch, 17]));
    let future = judge(norm, &targets, next.concat(policy(&slow, next))).reshape(&[2, batch]);
    let target = t.data("reward", &[batch]) + future.member(0).minimum(future.member(1)) * 0.99;
    let known = judge(norm, &critics, observation.concat(t.data("action", &[batch, 6]))).reshape(&[2, batch]);
    let critic_loss = (known - target.stop_gradient()).square().mean_last().sum();
    let (lr, mix) = (t.data("lr", &[]), t.data("target_mix", &[]));
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("critic", Adam::default(), lr), &critics, critic_loss);
    let fixed = critics.iter().map(|(name, p)| (name.clone(), p.stop_gradient())).collect::<Vec<_>>();
    let actor_loss = -judge(norm, &fixed, observation.concat(policy(&actor, observation))).member(0).mean();
    updates.minimise(&Optimiser::new("actor", Adam::default(), lr).every(2), &actor, actor_loss);
    updates.follow(&targets, &critics, mix, 2);
    updates.follow(&slow, &actor, mix, 2);
    let actor_loss = updates.hold("actor_loss", actor_loss, 2);
    let name = format!(
        "delayed actor 256-256, {}due{}",
        if due { "" } else { "not " },
        if norm { ", layer normalisation" } else { "" }
    );
    (name, t.finish(&updates.pairs(), &[("loss", critic_loss), ("actor_loss", actor_loss)]))
}

/// Critics with each hidden layer normalised before its ReLU, or without.
fn judge<'t>(norm: bool, params: &[(String, Tensor<'t>)], x: Tensor<'t>) -> Tensor<'t> {
    if !norm {
        return mlp(params, x, Activation::Relu);
    }
    let (hidden, last) = params.split_at(params.len() - 2);
    let hidden = hidden.chunks_exact(2).fold(x, |x, p| {
        let sums = x.linear(p[0].1, p[1].1, Activation::Identity);
        let [n, batch, width] = sums.shape()[..] else { unreachable!("an ensemble gives three axes") };
        sums.reshape(&[n * batch, width]).layer_norm(1e-5).relu().reshape(&[n, batch, width])
    });
    hidden.linear(last[0].1, last[1].1, Activation::Identity)
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
    fn new((name, program): (String, Program), threads: NonZeroUsize) -> Self {
        let rng = &mut Rng::new(1);
        let draw = |len: usize, rng: &mut Rng, scale: f64| {
            (0..len).map(|_| (rng.uniform(-1.0, 1.0) * scale) as f32).collect::<Vec<_>>()
        };
        let data = program.data().map(|(_, input)| match input.name.as_str() {
            "lr" => vec![1e-4],
            "every_2" => vec![f32::from(!name.contains("not due"))],
            "target_mix" => vec![0.005],
            "perm" => (0..input.len()).map(|i| i as f32).collect(),
            "discount" | "mask" => vec![0.9; input.len()],
            _ => draw(input.len(), rng, 1.0),
        });
        let data = data.collect();
        let mut executable = Threads(threads).compile(program.clone()).expect("the CPU takes every program");
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
    let threads = std::env::args().nth(3).and_then(|n| n.parse().ok()).unwrap_or(NonZeroUsize::MIN);
    let mut timed = chosen.map(|program| Timed::new(program, threads)).collect::<Vec<_>>();
    for _ in 0..rounds {
        timed.iter_mut().for_each(Timed::block);
    }
    for program in &timed {
        println!("{:<48} {:>9.3} ms", program.name, program.least_ms());
    }
}

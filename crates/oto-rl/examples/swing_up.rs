//! Trains DDPG in CartPoleSwingUp-v0, and prints an evaluation every 20,000 steps: how the simulation's voltage, exploration noise and
//! starts near upright were chosen.
//!
//!     cargo run --release -p oto-rl --example swing_up -- ID SEED STEPS [SETTING=VALUE ...]
//!
//! Settings, with their defaults: `noise=0.5` (standard deviation of the Ornstein-Uhlenbeck noise), `seconds=0.2` (its correlation time),
//! `halves=1e6` (steps after which the deviation has halved), `hidden=256-128-64`, `batch=128`, `gamma=0.99`, `lr=3e-4`, `every=1` (steps
//! between two updates), `evaluate=20000` (steps between two evaluations).

use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_env::swing_up::SwingUp;
use oto_env::{Action, Environment};
use oto_rl::actions::Actions;
use oto_rl::algorithms::ddpg::DdpgConfig;
use oto_rl::algorithms::{Agent, Settings, Sizes};
use oto_rl::engine::Schedule;
use oto_rl::replay::{Batch, Replay};
use std::time::Instant;

const EPISODES: u32 = 4;

type Failed = Box<dyn std::error::Error>;

struct Trial {
    noise: f64,
    seconds: f64,
    halves: f64,
    hidden: Vec<usize>,
    batch: usize,
    gamma: f64,
    lr: f32,
    every: u64,
    evaluate: u64,
}

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [id, seed, steps, settings @ ..] = &args[..] else {
        return Err("ID SEED STEPS [SETTING=VALUE ...]".into());
    };
    let mut trial = Trial {
        noise: 0.5,
        seconds: 0.2,
        halves: 1e6,
        hidden: vec![256, 128, 64],
        batch: 128,
        gamma: 0.99,
        lr: 3e-4,
        every: 1,
        evaluate: 20_000,
    };
    for setting in settings {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        match name {
            "noise" => trial.noise = value.parse()?,
            "seconds" => trial.seconds = value.parse()?,
            "halves" => trial.halves = value.parse()?,
            "hidden" => trial.hidden = value.split('-').map(str::parse).collect::<Result<_, _>>()?,
            "batch" => trial.batch = value.parse()?,
            "gamma" => trial.gamma = value.parse()?,
            "lr" => trial.lr = value.parse()?,
            "every" => trial.every = value.parse()?,
            "evaluate" => trial.evaluate = value.parse()?,
            _ => return Err(format!("there is no setting {name:?}").into()),
        }
    }
    train(id, seed.parse()?, steps.parse()?, &trial)
}

fn train(id: &str, seed: u64, steps: u64, trial: &Trial) -> Result<(), Failed> {
    let mut env = SwingUp::new(id)?;
    let period = env.options().config.control_period;
    let mut evaluation = SwingUp::new(id)?;
    evaluation.evaluate(true);
    let config =
        DdpgConfig { hidden: trial.hidden.clone(), batch_size: trial.batch, ..DdpgConfig::default() };
    let sizes = Sizes { observation: 10, actions: Actions::Continuous(1), teachers: 0, weighted: false };
    let mut rng = Rng::new(seed);
    let mut agent = config.agent(sizes, &Cpu, &mut rng)?;
    let schedule = Schedule {
        lr: trial.lr,
        target_mix: 0.005,
        alpha_aikd: 0.0,
        delta: 0.0,
        eta: 0.0,
        alpha_task: 1.0,
        share: &[],
    };
    let mut replay = Replay::new(1_000_000, [10, 1], 0, 1, trial.gamma);
    let (mut batch, mut now, mut then) = (Batch::default(), [0f32; 10], [0f32; 10]);
    env.reset(Some(seed), &mut now)?;
    let mut noise = Noise::new(period, trial.seconds, &mut rng);
    let (mut upright, began) = (0u64, Instant::now());
    println!("step\tseconds\tupright\treturn\ton_target\tsuccesses");
    for step in 1..=steps {
        let mut action = [0f32];
        agent.act(&now, &mut action);
        let deviation = trial.noise * 0.5f64.powf(step as f64 / trial.halves);
        action[0] = (f64::from(action[0]) + deviation * noise.next(&mut rng)).clamp(-1.0, 1.0) as f32;
        let taken = env.step(Action::Continuous(&action), &mut then)?;
        upright += u64::from(then[3] > 0.97);
        let reward = taken.reward as f32;
        replay.push(&now, &action, reward, &then, taken.terminated, taken.truncated, |_, _| {});
        now = then;
        if taken.done() {
            env.reset(None, &mut now)?;
            noise = Noise::new(period, trial.seconds, &mut rng);
        }
        if step >= 1000 && step.is_multiple_of(trial.every) {
            replay.sample(&mut rng, trial.batch, &mut batch);
            agent.update(&batch, &schedule, &mut rng)?;
        }
        if step.is_multiple_of(trial.evaluate) {
            let [score, on_target, successes] = evaluate(&mut evaluation, &mut *agent)?;
            let seconds = began.elapsed().as_secs();
            println!("{step}\t{seconds}\t{upright}\t{score:.1}\t{on_target}\t{successes}");
            upright = 0;
            if successes >= f64::from(EPISODES) {
                break;
            }
        }
    }
    Ok(())
}

/// Mean return, most steps on target at an episode's end, successes; of a few episodes from rest.
fn evaluate(env: &mut SwingUp, agent: &mut dyn Agent) -> Result<[f64; 3], Failed> {
    let (mut observation, mut total, mut on_target, mut successes) = ([0f32; 10], 0.0, 0f64, 0.0);
    for episode in 0..EPISODES {
        env.reset(Some(1_000_000 + u64::from(episode)), &mut observation)?;
        loop {
            let mut action = [0f32];
            agent.act(&observation, &mut action);
            let step = env.step(Action::Continuous(&action), &mut observation)?;
            total += step.reward;
            if step.done() {
                break;
            }
        }
        on_target = on_target.max(env.info("on_target").unwrap_or(0.0));
        successes += env.info("success").unwrap_or(0.0);
    }
    Ok([total / f64::from(EPISODES), on_target, successes])
}

/// Ornstein-Uhlenbeck noise with variance 1.
struct Noise {
    now: f64,
    /// The share that is kept from one step to the next.
    kept: f64,
}

impl Noise {
    fn new(period: f64, seconds: f64, rng: &mut Rng) -> Self {
        Self { now: rng.normal(), kept: (-period / seconds).exp() }
    }

    fn next(&mut self, rng: &mut Rng) -> f64 {
        self.now = self.kept * self.now + (1.0 - self.kept * self.kept).sqrt() * rng.normal();
        self.now
    }
}

//! What an edge takes for an action and how punctual its control loop is, in one run on one machine.
//!
//!     cargo bench -p oto-agent --bench act -- [SECONDS]
//!
//! SECONDS for each figure of punctuality, 60 by default. The loop is that of `oto act`: [`Waiter`] and [`Loop`], a swap, a decision, a
//! row, a step of the plant. An empty loop, which waits for its deadlines and does nothing, takes turns with it, a second each, so that
//! both meet the same load. The network is that of Cao et al. 2022: 10-256-128-64-1.

#[path = "../../oto-rl/tests/allocations.rs"]
mod allocations;

use allocations::allocations;
use oto_agent::actor::buffer::{DoubleBuffer, Writing};
use oto_agent::actor::decide::{Decider, Equipment, network};
use oto_agent::actor::explore::{Exploration, Explorer};
use oto_agent::actor::real_time::{Jitter, Loop, Waiter, period};
use oto_agent::actor::ring::{Recorder, ring};
use oto_agent::learner::{Learner, LearnerConfig};
use oto_env::Environment;
use oto_proto::weights::{write_complete, write_delta};
use oto_proto::{Dtype, Encoding, Flags, Hello, Ids, Row, RowFormat, StreamId};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PLANT: &str = "CartPoleSwingUpPlant-v0?voltage_max=12";
const EDGE: (&str, u32) = ("edge", 1);

fn learner() -> Learner {
    let text = r#"{"reward":"cartpole_swing_up","algorithm":{"name":"ddpg","hidden":[256,128,64],"batch_size":128},
        "learning_rate":3e-4,"buffer":20000,"learning_starts":200,"replay":{"sampler":"combined"}}"#;
    let config: LearnerConfig = oto_json::read(text).expect("the settings are constants");
    let env = oto_env::make(PLANT).expect("a built-in environment");
    let learner = Learner::new(&config, env.observation_space(), env.action_space(), &oto_cpu::Cpu);
    let mut learner = learner.expect("a learner");
    learner.join(EDGE, StreamId(1), 0).expect("the first edge");
    learner
}

fn format(env: &dyn Environment) -> RowFormat {
    let hello = Hello {
        protocol: oto_proto::PROTOCOL.into(),
        policy: "pendulum".into(),
        student: "edge".into(),
        observation: env.observation_space().clone(),
        action: env.action_space().clone(),
        adapter: None,
        dtype: Dtype::F32,
        action_dtype: None,
        quantization: None,
        grants: Vec::new(),
        stage: None,
        order: None,
        ticket: None,
        actor: None,
        worker: None,
        member: None,
    };
    RowFormat::new(&hello.formats().expect("sound spaces"), env.action_space())
}

/// An edge without its link.
struct Edge {
    env: Box<dyn Environment>,
    decider: Decider,
    recorder: Recorder,
    observation: Vec<f32>,
    flags: Flags,
}

impl Edge {
    /// An edge whose network has the learner's weights, and the side that writes newer ones.
    fn new(learner: &Learner) -> (Self, Writing) {
        let mut env = oto_env::make(PLANT).expect("a built-in environment");
        let mut observation = vec![0.0; env.observation_space().width()];
        env.reset(Some(1), &mut observation).expect("a reset");
        let (model, space) = (learner.model(), env.action_space().clone());
        let (acting, mut writing) = DoubleBuffer::new(network(&model)).split();
        let mut weights = Vec::new();
        learner.weights(&mut weights);
        writing.write(1, &weights).expect("the first weights");
        let mut decider = Decider::new(space.clone(), None).expect("a safe action");
        let explorer = Explorer::new(Exploration::default(), oto_agent::actor::decide::actions(&space), 1);
        decider.equip(Equipment { acting, output: model.output, explorer, period: None });
        let (recorder, _) = ring(format(&*env), 3_600);
        (Edge { env, decider, recorder, observation, flags: Flags::FIRST }, writing)
    }

    fn step(&mut self) {
        self.decider.swap();
        self.decider.decide(&self.observation, true);
        let action = self.decider.action();
        self.recorder
            .record(&self.observation, action, self.flags, self.decider.version())
            .expect("a row of the right lengths");
        let step = self.env.step(self.decider.environment_action(), &mut self.observation).expect("a step");
        self.flags = Flags::NONE;
        if step.done() {
            self.env.reset(None, &mut self.observation).expect("a reset");
            self.flags = Flags::FIRST;
        }
    }
}

/// A learner that owes 20,000 updates.
fn filled() -> Learner {
    let mut learner = learner();
    fill(&mut learner, 20_000);
    learner
}

/// Rows of the plant for a learner.
fn fill(learner: &mut Learner, rows: u64) {
    let mut env = oto_env::make(PLANT).expect("a built-in environment");
    let mut observation = vec![0.0; env.observation_space().width()];
    env.reset(Some(2), &mut observation).expect("a reset");
    let (mut flags, mut rng) = (Flags::FIRST, oto_env::rng::Rng::new(3));
    for sequence in 0..rows {
        let action = [rng.uniform(-1.0, 1.0) as f32];
        let row = Row { sequence, observation: &observation, action: &action, flags };
        learner.take(EDGE, row).expect("a row");
        if flags.ends() {
            env.reset(None, &mut observation).expect("a reset");
            flags = Flags::FIRST;
            continue;
        }
        let step = env.step(oto_env::Action::Continuous(&action), &mut observation).expect("a step");
        flags = match (step.terminated, step.truncated) {
            (true, _) => Flags::TERMINATED,
            (_, true) => Flags::TRUNCATED,
            _ => Flags::NONE,
        };
    }
}

fn decisions(learner: &Learner) {
    const ACTIONS: usize = 20_000;
    let (mut edge, _writing) = Edge::new(learner);
    (0..1_000).for_each(|_| edge.step());
    let mut times: Vec<u128> = (0..ACTIONS)
        .map(|_| {
            let start = Instant::now();
            edge.decider.decide(&edge.observation, true);
            start.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    let at = |share: f64| times[(share * (ACTIONS - 1) as f64) as usize] as f64 / 1e3;
    println!("an action: median {:.1} us, p99 {:.1} us, p99.9 {:.1} us", at(0.5), at(0.99), at(0.999));
    let before = allocations();
    (0..ACTIONS).for_each(|_| edge.step());
    let allocated = allocations() - before;
    println!("allocations in {ACTIONS} steps: {allocated}");
}

/// Bytes of a row, and of pushes between which the learner made one update, eight, and 120.
fn bytes(learner: &mut Learner) {
    let env = oto_env::make(PLANT).expect("a built-in environment");
    println!("a row: {} bytes, a frame of one row: {}", format(&*env).row_bytes(), {
        let (mut row, mut frame) = (Vec::new(), Vec::new());
        let format = format(&*env);
        format.encode(&[0.1; 10], &[0.1], Flags::NONE, &mut row).expect("a row");
        format.write(Ids { request: 1, policy: 1, version: 1 }, 0, &row, &mut frame).expect("a frame");
        frame.len()
    });
    let ids = Ids { request: 1, policy: 1, version: 2 };
    let (mut weights, mut frame) = (Vec::new(), Vec::new());
    learner.weights(&mut weights);
    for encoding in [Encoding::F32, Encoding::F16] {
        write_complete(ids, encoding, &weights, &mut frame).expect("finite weights");
        println!("a push, {encoding:?}: {} bytes", frame.len());
    }
    for updates in [1, 8, 120] {
        let mut held = weights.clone();
        for _ in 0..updates {
            assert!(learner.work().expect("an update"), "there are rows enough");
        }
        learner.weights(&mut weights);
        write_delta(ids, 1, &mut held, &weights, &mut frame).expect("finite weights");
        println!("a push, difference after {updates} updates: {} bytes", frame.len());
    }
}

/// What else the machine does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Load {
    Idle,
    Training,
    /// Training, and new weights after each update.
    Swaps,
}

fn punctuality(hz: f64, load: Load, seconds: u64) {
    let (mut edge, mut writing) = Edge::new(&learner());
    let (stop, ready) = (AtomicBool::new(false), AtomicBool::new(load == Load::Idle));
    let (updates, swaps) = (AtomicU64::new(0), AtomicU64::new(0));
    let train = || {
        let (mut learner, mut weights, mut version) = (None, Vec::new(), 2);
        while !stop.load(Ordering::Relaxed) {
            let learner = learner.get_or_insert_with(filled);
            ready.store(true, Ordering::Relaxed);
            if !learner.work().expect("an update") {
                // All that was owed is made: the same rows again.
                *learner = filled();
                continue;
            }
            updates.fetch_add(1, Ordering::Relaxed);
            learner.weights(&mut weights);
            if load == Load::Swaps && writing.write(version, &weights).is_ok() {
                version += 1;
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        if load != Load::Idle {
            scope.spawn(train);
        }
        while !ready.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let period = period(hz).expect("a frequency");
        let mut waiter = Waiter::default();
        let mut loops = [Loop::new(period, waiter.now()), Loop::new(period, waiter.now())];
        let before = allocations();
        for second in 0..2 * seconds {
            let which = (second % 2) as usize;
            let beat = &mut loops[which];
            let now = waiter.now();
            beat.resume(now);
            while waiter.now() < now + 1_000_000_000 {
                let now = waiter.until(beat.deadline());
                beat.begin(now);
                if which == 0 {
                    edge.step();
                }
            }
        }
        let allocated = allocations() - before;
        stop.store(true, Ordering::Relaxed);
        for (name, beat) in ["control", "empty"].into_iter().zip(&loops) {
            let Jitter { p50, p99, p999, max } = beat.jitter();
            let [p50, p99, p999, max] = [p50, p99, p999, max].map(|nanoseconds| nanoseconds as f64 / 1e3);
            let counts = beat.counts();
            println!(
                "{hz} Hz, {load:?}, {name} loop: p50 {p50:.1}, p99 {p99:.1}, p99.9 {p999:.1}, max {max:.1} us; {} steps, {} missed",
                counts.steps, counts.missed
            );
        }
        println!("    {allocated} allocations");
    });
    let [updates, swaps] = [updates, swaps].map(AtomicU64::into_inner);
    if load != Load::Idle {
        println!("    {updates} updates, {swaps} pushes");
    }
}

fn main() {
    // Test runners start every target; only `cargo bench` says so.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let seconds = std::env::args().skip(1).find_map(|text| text.parse::<u64>().ok()).unwrap_or(60);
    let mut learner = filled();
    decisions(&learner);
    bytes(&mut learner);
    std::thread::sleep(Duration::from_millis(100));
    for load in [Load::Idle, Load::Training, Load::Swaps] {
        for hz in [30.0, 1_000.0] {
            punctuality(hz, load, seconds);
        }
    }
}

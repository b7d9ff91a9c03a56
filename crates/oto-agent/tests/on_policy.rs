//! Students that learn from rollouts: alone and taught, with and without auxiliary critics. The same seed gives the same
//! curve, a run resumed in the middle of a rollout is the uninterrupted one, and they get better.

use oto_agent::config::{EvaluationConfig, Linear, StudentConfig};
use oto_agent::drive::{Driver, Wire};
use oto_agent::link::memory::{Memory, MemoryTeacher};
use oto_agent::presets;
use oto_agent::stage::StagesConfig;
use oto_agent::student::{Environments, Event, Student, TeacherConfig, Tick};
use oto_cpu::Cpu;
use oto_rl::algorithms::a3c::{A3cConfig, AdvantageActorCritic};
use oto_rl::algorithms::ppo::PpoConfig;
use oto_rl::algorithms::sac::SoftActorCritic;

fn config(environment: &str) -> StudentConfig {
    StudentConfig {
        seed: 5,
        evaluation: EvaluationConfig { every: 250, episodes: 2 },
        algorithm: PpoConfig { hidden: vec![16], n_steps: 128, batch_size: 32, ..PpoConfig::default() }
            .into(),
        ..presets::on_policy(environment)
    }
}

fn fusion(environment: &str) -> StudentConfig {
    let usual = config(environment);
    let algorithm = usual.algorithm.clone().with(|ppo: &mut PpoConfig| ppo.fusion = true);
    StudentConfig { algorithm, ..usual }
}

/// A rule that swings Pendulum up by its energy and holds it there.
fn swing(x: &[f32]) -> f32 {
    let [cos, sin, speed] = [x[0], x[1], x[2]];
    let energy = 0.5 * speed * speed + 15.0 * (cos - 1.0);
    let torque = if cos > 0.9 { -8.0 * sin - 2.0 * speed } else { -0.5 * energy * speed };
    torque.clamp(-2.0, 2.0)
}

/// Knows Pendulum and CartPole.
fn memory(environment: &str) -> Memory {
    let bounds = |n: usize, b: f32| vec![b; n];
    let space = |n: usize| oto_proto::Space::Box {
        low: bounds(n, f32::NEG_INFINITY),
        high: bounds(n, f32::INFINITY),
    };
    let (observation, action) = match environment {
        "Pendulum-v1" => (space(3), oto_proto::Space::Box { low: vec![-2.0], high: vec![2.0] }),
        _ => (space(4), oto_proto::Space::Discrete { n: 2 }),
    };
    let width = if environment == "Pendulum-v1" { 3 } else { 4 };
    let act = move |x: &[f32], _: usize, out: &mut Vec<f32>| {
        out.extend(x.chunks_exact(width).map(|s| match width {
            3 => swing(s),
            _ => f32::from(u8::from(s[2] + 0.5 * s[3] > 0.0)),
        }));
        Ok(())
    };
    Memory::new(MemoryTeacher::new("rule", observation, action, Box::new(act)))
}

fn taught(config: &StudentConfig, environment: &str) -> (Student, Driver) {
    let teacher = TeacherConfig {
        url: "memory://".into(),
        policy: "rule".into(),
        adapter: None,
        learn_adapter: None,
        dtype: oto_proto::Dtype::F32,
        quantization: None,
        submit: false,
        weight: 1.0,
    };
    let driver = Driver::with(vec![Wire::Memory(Box::new(memory(environment)))]);
    let inside = Environments::built_in(environment).unwrap();
    (Student::new(config, inside, &[teacher], &Cpu, 0).unwrap(), driver)
}

fn alone(config: &StudentConfig, environment: &str) -> (Student, Driver) {
    let config = StudentConfig { stages: StagesConfig::SOLO, ..config.clone() };
    let inside = Environments::built_in(environment).unwrap();
    (Student::new(&config, inside, &[], &Cpu, 0).unwrap(), Driver::with(Vec::new()))
}

fn run(student: &mut Student, driver: &mut Driver, until: u64) -> Vec<Event> {
    let mut events = Vec::new();
    while student.trainer().steps() < until && driver.step(student).unwrap() != Tick::Done {
        events.extend(std::iter::from_fn(|| student.next_event()));
    }
    events
}

fn last_evaluation(events: &[Event]) -> f64 {
    let mut means = events.iter().filter_map(|e| match e {
        Event::Evaluation { mean, .. } => Some(*mean),
        _ => None,
    });
    means.next_back().expect("there were evaluations")
}

#[test]
fn a_run_resumed_within_a_rollout_is_the_uninterrupted_one() {
    for (environment, config) in [
        ("CartPole-v1", config("CartPole-v1")),
        ("Pendulum-v1", config("Pendulum-v1")),
        ("CartPole-v1", fusion("CartPole-v1")),
        ("Pendulum-v1", fusion("Pendulum-v1")),
    ] {
        let (mut a, mut driver) = taught(&config, environment);
        let whole = run(&mut a, &mut driver, 1000);
        assert_eq!(a.trainer().updates(), 1000 / 128 * 4 * 10, "a round of updates for each whole rollout");
        assert!(a.metrics(0).labels > 900, "{} labels", a.metrics(0).labels);
        assert!(a.trainer().last_loss().unwrap().get("rkd_d").unwrap() > 0.0, "the last rollout had labels");

        let (mut b, mut driver) = taught(&config, environment);
        let mut parts = run(&mut b, &mut driver, 437);
        let file = b.save(true).unwrap();
        let (mut c, mut driver) = taught(&config, environment);
        c.load(&file, 0).unwrap();
        parts.extend(run(&mut c, &mut driver, 1000));
        assert_eq!(parts, whole);
        let state = |student: &mut Student| student.trainer().learner().engine().state().unwrap();
        assert_eq!(state(&mut a), state(&mut c));

        let (mut d, mut driver) = taught(&config, environment);
        d.load(&b.save(false).unwrap(), 0).unwrap();
        run(&mut d, &mut driver, 437 + 128);
        assert_eq!(d.trainer().updates(), (437 / 128 + 1) * 40, "without replay a rollout begins anew");
    }
}

#[test]
fn an_actor_critic_resumed_within_a_rollout_is_the_uninterrupted_one() {
    let environment = "CartPole-v1";
    let config = StudentConfig {
        seed: 5,
        evaluation: EvaluationConfig { every: 250, episodes: 2 },
        algorithm: A3cConfig { hidden: vec![16], ..A3cConfig::default() }.into(),
        ..presets::learner(environment, &AdvantageActorCritic)
    };
    let (mut a, mut driver) = taught(&config, environment);
    let whole = run(&mut a, &mut driver, 1000);
    assert_eq!(a.trainer().updates(), 1000 / 20, "an update for each rollout");
    assert!(a.trainer().last_loss().unwrap().get("rkd_d").unwrap() > 0.0, "the last rollout had labels");

    let (mut b, mut driver) = taught(&config, environment);
    let mut parts = run(&mut b, &mut driver, 437);
    let file = b.save(true).unwrap();
    let (mut c, mut driver) = taught(&config, environment);
    c.load(&file, 0).unwrap();
    parts.extend(run(&mut c, &mut driver, 1000));
    assert_eq!(parts, whole);
    let state = |student: &mut Student| student.trainer().learner().engine().state().unwrap();
    assert_eq!(state(&mut a), state(&mut c));
}

#[test]
fn a_rollout_that_does_not_fit_is_refused() {
    let environment = "CartPole-v1";
    let (mut student, mut driver) = alone(&config(environment), environment);
    run(&mut student, &mut driver, 100);
    let file = student.save(true).unwrap();
    let usual = config(environment);
    let algorithm = usual.algorithm.clone().with(|ppo: &mut PpoConfig| ppo.n_steps = 64);
    let other = StudentConfig { algorithm, ..usual };
    let error = alone(&other, environment).0.load(&file, 0).unwrap_err().to_string();
    assert!(error.contains("\"n_steps\":128") && error.contains("\"n_steps\":64"), "{error}");
    let critics = alone(&fusion(environment), environment).0.load(&file, 0).unwrap_err().to_string();
    assert!(critics.contains("\"fusion\":true"), "{critics}");
}

#[test]
fn an_early_reset_ends_the_episode_in_the_rollout() {
    let environment = "CartPole-v1";
    let (mut student, mut driver) = alone(&config(environment), environment);
    run(&mut student, &mut driver, 10);
    student.give_up_episode().unwrap();
    run(&mut student, &mut driver, 300);
    assert_eq!(student.trainer().updates(), 80);
}

#[test]
fn soft_actor_critic_learns_to_balance_too() {
    let config = StudentConfig {
        seed: 1,
        evaluation: EvaluationConfig { every: 8_000, episodes: 10 },
        ..presets::learner("CartPole-v1", &SoftActorCritic)
    };
    let (mut student, mut driver) = alone(&config, "CartPole-v1");
    let score = last_evaluation(&run(&mut student, &mut driver, 8_001));
    assert!(score > 150.0, "{score}");
}

/// Random pushes balance for 22 steps on average; these seeds are not chosen.
#[test]
fn alone_it_learns_to_balance() {
    let config = StudentConfig {
        learning_rate: Linear::constant(1e-3),
        evaluation: EvaluationConfig { every: 12_000, episodes: 10 },
        ..presets::on_policy("CartPole-v1")
    };
    for seed in [1, 2] {
        let config = StudentConfig { seed, ..config.clone() };
        let (mut student, mut driver) = alone(&config, "CartPole-v1");
        let score = last_evaluation(&run(&mut student, &mut driver, 12_001));
        assert!(score > 150.0, "seed {seed}: {score}");
    }
}

/// The default run is of 200,000 steps, and ends at 500 with every seed of ten.
#[test]
fn an_actor_critic_learns_to_balance_from_short_rollouts() {
    let config = StudentConfig {
        evaluation: EvaluationConfig { every: 14_000, episodes: 10 },
        ..presets::learner("CartPole-v1", &AdvantageActorCritic)
    };
    for seed in [1, 2] {
        let config = StudentConfig { seed, ..config.clone() };
        let (mut student, mut driver) = alone(&config, "CartPole-v1");
        let score = last_evaluation(&run(&mut student, &mut driver, 14_001));
        assert!(score > 100.0, "seed {seed}: {score}");
    }
}

/// Alone it balances for some 50 steps by then.
#[test]
fn taught_it_follows_within_few_rollouts() {
    let environment = "CartPole-v1";
    let usual = StudentConfig {
        evaluation: EvaluationConfig { every: 3_000, episodes: 5 },
        ..presets::on_policy(environment)
    };
    for fusion in [false, true] {
        let algorithm = PpoConfig { n_steps: 256, fusion, ..PpoConfig::default() }.into();
        let (mut student, mut driver) = taught(&StudentConfig { algorithm, ..usual.clone() }, environment);
        let score = last_evaluation(&run(&mut student, &mut driver, 3_001));
        assert!(score > 120.0, "{score}, fusion: {fusion}");
    }
}

//! Several teachers of one student (OTO eq. 14) in simulated time: slow, silent and dying ones, weights, and switching one off.

use oto_agent::config::{EvaluationConfig, StudentConfig};
use oto_agent::link::memory::{Fault, Memory, MemoryTeacher};
use oto_agent::presets;
use oto_agent::student::{Environments, Event, Student, TeacherConfig, Tick};
use oto_cpu::Cpu;
use oto_rl::algorithms::qrdqn::QrDqnConfig;

const POLICY: &str = "inverted_pendulum_lean";

fn config() -> StudentConfig {
    StudentConfig {
        seed: 3,
        steps: 600,
        algorithm: QrDqnConfig { hidden: vec![16], quantiles: 4, batch_size: 16, ..QrDqnConfig::default() }
            .into(),
        evaluation: EvaluationConfig { every: 200, episodes: 2 },
        ..StudentConfig::default()
    }
}

/// Pushes to where the pole leans, or away from there.
fn teacher(sign: f32) -> Memory {
    let bounds = |b: f32| vec![b; 4];
    let observation = oto_proto::Space::Box { low: bounds(f32::NEG_INFINITY), high: bounds(f32::INFINITY) };
    let action = oto_proto::Space::Box { low: vec![-3.0], high: vec![3.0] };
    let act = move |x: &[f32], _: usize, out: &mut Vec<f32>| {
        out.extend(x.chunks_exact(4).map(|s| (sign * (s[1] + s[3])).clamp(-3.0, 3.0)));
        Ok(())
    };
    Memory::new(MemoryTeacher::new(POLICY, observation, action, Box::new(act)))
}

/// A student, its teachers, and a clock that only this test moves.
struct Taught {
    student: Student,
    teachers: Vec<Memory>,
    now: u64,
}

impl Taught {
    fn new(config: &StudentConfig, teachers: Vec<Memory>, weights: &[f64]) -> Self {
        Self::with(config, teachers, weights, presets::adapter("CartPole-v1", POLICY))
    }

    fn with(
        config: &StudentConfig,
        teachers: Vec<Memory>,
        weights: &[f64],
        adapter: Option<oto_proto::Adapter>,
    ) -> Self {
        let of = |weight: &f64| TeacherConfig {
            url: "memory://".into(),
            policy: POLICY.into(),
            adapter: adapter.clone(),
            learn_adapter: None,
            dtype: oto_proto::Dtype::F32,
            quantization: None,
            submit: false,
            weight: *weight,
        };
        let configs = weights.iter().map(of).collect::<Vec<_>>();
        let environment = Environments::built_in("CartPole-v1").unwrap();
        let student = Student::new(config, environment, &configs, &Cpu, 0).unwrap();
        Self { student, teachers, now: 0 }
    }

    fn even(teachers: Vec<Memory>) -> Self {
        let weights = vec![1.0; teachers.len()];
        Self::new(&config(), teachers, &weights)
    }

    /// Trains until this step, a millisecond each; a pause lasts until something happens by itself.
    fn until(&mut self, step: u64) -> Vec<Event> {
        let mut events = Vec::new();
        while self.student.trainer().steps() < step {
            let now = self.now;
            let links = self.teachers.iter_mut().zip(self.student.links());
            let wake = links.filter_map(|(teacher, link)| {
                teacher.poll(link, now);
                teacher.wake_at(link)
            });
            let wake = wake.min();
            match self.student.tick(now).unwrap() {
                Tick::Done => break,
                Tick::Stepped => self.now += 1,
                // A request that was just made is carried by the next look at the teachers.
                Tick::Waiting => self.now = wake.unwrap_or(0).max(now + 1),
            }
            events.extend(std::iter::from_fn(|| self.student.next_event()));
        }
        events
    }

    fn labels(&self) -> Vec<u64> {
        self.student.metrics(self.now).teachers.iter().map(|t| t.stats.labels_received).collect()
    }

    fn weights(&mut self) -> Vec<oto_rl::engine::NamedTensor> {
        self.student.trainer().learner().engine().state().unwrap()
    }
}

/// A policy cloned from recorded episodes, as its network answers.
fn cloned() -> Memory {
    use oto_agent::offline::{OfflineConfig, OfflineTrainer};
    use oto_agent::recorded::{Recorded, Seen};
    let mut environment = oto_env::make("CartPole-v1").unwrap();
    let spaces = [environment.observation_space().clone(), environment.action_space().clone()];
    let bc = oto_rl::algorithms::bc::BcConfig { hidden: vec![32], batch_size: 64, ..Default::default() };
    let config = OfflineConfig { algorithm: bc.into(), updates: 600, ..OfflineConfig::default() };
    let mut trainer = OfflineTrainer::new(&config, &spaces[0], &spaces[1], &Cpu).unwrap();
    let mut rng = oto_env::rng::Rng::new(1);
    for seed in 0..6 {
        let mut seen = vec![0.0; 4];
        environment.reset(Some(seed), &mut seen).unwrap();
        let (mut observations, mut actions, mut rewards) = (seen.clone(), Vec::new(), Vec::new());
        loop {
            let lean = seen[2] + 0.5 * seen[3] + 0.05 * seen[0] + 0.1 * seen[1];
            let right = if rng.f64() < 0.2 { rng.f64() < 0.5 } else { lean > 0.0 };
            let step = environment.step(oto_env::Action::Discrete(u32::from(right)), &mut seen).unwrap();
            observations.extend(&seen);
            actions.push(f32::from(right));
            rewards.push(step.reward);
            if step.done() {
                let (observations, terminated) = (Seen::Numbers(&observations), step.terminated);
                trainer
                    .add(&Recorded { observations, actions: &actions, rewards: &rewards, terminated })
                    .unwrap();
                break;
            }
        }
    }
    trainer.step(600).unwrap();
    let mut policy = trainer.policy();
    let bounds = |b: f32| vec![b; 4];
    let observation = oto_proto::Space::Box { low: bounds(f32::NEG_INFINITY), high: bounds(f32::INFINITY) };
    let act = move |x: &[f32], _: usize, out: &mut Vec<f32>| {
        out.extend(policy.forward(x).chunks_exact(2).map(|row| f32::from(row[1] > row[0])));
        Ok(())
    };
    Memory::new(MemoryTeacher::new(POLICY, observation, oto_proto::Space::Discrete { n: 2 }, Box::new(act)))
}

/// A policy of recorded data teaches by its answers: the student has no dataset, sends no transition, and is better than one alone.
#[test]
fn a_served_offline_policy_teaches_a_student_without_a_dataset() {
    let config = StudentConfig {
        steps: 1500,
        evaluation: EvaluationConfig { every: 250, episodes: 5 },
        ..presets::student("CartPole-v1")
    };
    let best = |teachers: Vec<Memory>, weights: &[f64]| {
        let mut taught = Taught::with(&config, teachers, weights, None);
        let means = taught.until(1500).into_iter().filter_map(|event| match event {
            Event::Evaluation { mean, .. } => Some(mean),
            _ => None,
        });
        let best = means.fold(0.0, f64::max);
        let metrics = taught.student.metrics(taught.now);
        (best, metrics.labels, metrics.transitions_sent)
    };
    let (taught, labels, sent) = best(vec![cloned()], &[1.0]);
    let (alone, ..) = best(Vec::new(), &[]);
    assert!(labels > 1000 && sent == 0, "{labels} labels, {sent} transitions sent");
    assert!(taught > 300.0 && taught > 1.5 * alone, "taught {taught}, alone {alone}");
}

#[test]
fn one_is_silent_one_is_slow_one_dies_and_training_goes_on() {
    let bad = |delay| {
        let (mut silent, mut slow) = (teacher(1.0), teacher(1.0));
        silent.disturb(1, (0, 0), vec![(Fault::Mute, 1.0)]);
        slow.disturb(2, delay, Vec::new());
        Taught::even(vec![silent, slow, teacher(1.0)])
    };
    let mut taught = bad((40, 90));
    taught.until(300);
    let now = taught.now;
    taught.teachers[2].set_present(false, now);
    let before = taught.labels();
    taught.until(600);
    let after = taught.labels();
    assert_eq!((after[0], taught.student.trainer().steps()), (0, 600));
    assert!(after[1] > 570, "the slow one labelled {} states", after[1]);
    assert!(before[2] > 270 && after[2] == before[2], "the dead one labelled {} states", after[2]);
    assert_eq!(taught.student.metrics(taught.now).labels, after[1] + after[2]);
    assert!(taught.student.trainer().updates() > 400);
}

#[test]
fn neither_a_slow_nor_a_silent_teacher_changes_the_curve() {
    let run = |delay, silent: Vec<(Fault, f64)>| {
        let (mut third, mut slow) = (teacher(1.0), teacher(-1.0));
        slow.disturb(2, delay, Vec::new());
        third.disturb(1, (0, 0), silent.clone());
        third.set_present(!silent.is_empty(), 0);
        let mut taught = Taught::even(vec![teacher(1.0), slow, third]);
        (taught.until(600), taught.weights())
    };
    let quick = run((0, 0), Vec::new());
    assert_eq!(run((30, 70), Vec::new()), quick, "slow");
    assert_eq!(run((30, 70), vec![(Fault::Mute, 1.0)]), quick, "slow, and one silent instead of absent");
}

#[test]
fn a_silent_teacher_is_waited_for_twice_at_most() {
    let mut silent = teacher(1.0);
    silent.disturb(1, (0, 0), vec![(Fault::Mute, 1.0)]);
    let mut taught = Taught::even(vec![silent, teacher(1.0)]);
    taught.until(600);
    // Two requests that time out after ten seconds each, and six hundred steps.
    assert!((20_000..25_000).contains(&taught.now), "{} ms", taught.now);
}

#[test]
fn weights_are_shares_of_the_mean() {
    let run = |teachers, weights: &[f64]| {
        let mut taught = Taught::new(&config(), teachers, weights);
        (taught.until(600), taught.weights())
    };
    let one = run(vec![teacher(1.0)], &[1.0]);
    assert_eq!(run(vec![teacher(1.0)], &[0.25]), one, "alone, any weight is all of it");
    let both = || vec![teacher(1.0), teacher(-1.0)];
    let even = run(both(), &[1.0, 1.0]);
    assert_eq!(run(both(), &[7.0, 7.0]), even);
    assert_ne!(run(both(), &[1.0, 2.0]), even);
    assert_eq!(run(both(), &[1.0, 0.0]), one, "one that weighs nothing is not there");
    assert_ne!(even, one);
}

#[test]
fn a_teacher_is_switched_off_and_on_while_the_run_goes_on() {
    let mut taught = Taught::even(vec![teacher(1.0), teacher(1.0)]);
    taught.until(200);
    taught.student.set_teacher_weight(1, 0.0).unwrap();
    taught.until(300);
    let off = taught.labels();
    taught.until(400);
    let more = taught.labels()[0] - off[0];
    assert!((90..=110).contains(&more), "the other one labelled {more} states meanwhile");
    assert_eq!(taught.labels()[1], off[1]);
    // What was switched off stays off in a run that goes on from a file, and can be switched on there.
    let file = taught.student.save(true).unwrap();
    let mut other = Taught::even(vec![teacher(1.0), teacher(1.0)]);
    other.student.load(&file, 0).unwrap();
    other.until(500);
    taught.until(500);
    assert_eq!(other.labels()[1], 0);
    assert_eq!(other.weights(), taught.weights());
    other.student.set_teacher_weight(1, 2.0).unwrap();
    other.until(600);
    assert!((80..=100).contains(&other.labels()[1]), "{} labels", other.labels()[1]);
}

#[test]
fn weights_that_are_none_are_refused() {
    let mut taught = Taught::even(vec![teacher(1.0)]);
    for weight in [f64::NAN, f64::INFINITY, -1.0, 1e7] {
        let error = taught.student.set_teacher_weight(0, weight).unwrap_err().to_string();
        assert!(error.starts_with(&format!("teachers[0].weight is {weight}")), "{error}");
    }
    let error = taught.student.set_teacher_weight(1, 1.0).unwrap_err().to_string();
    assert!(error.starts_with("teachers is 1"), "{error}");
}

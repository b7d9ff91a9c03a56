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
        let of = |weight: &f64| TeacherConfig {
            url: "memory://".into(),
            policy: POLICY.into(),
            adapter: presets::adapter("CartPole-v1", POLICY),
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

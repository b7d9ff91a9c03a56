//! A student that learns the adapter to its teacher: it finds the right one, goes on from a checkpoint as if it had never stopped,
//! and neither spaces nor answers nor a teacher that leaves can stop it.

use oto_agent::config::{EvaluationConfig, StudentConfig};
use oto_agent::drive::{Driver, Wire};
use oto_agent::link::memory::{Fault, Memory, MemoryTeacher};
use oto_agent::presets;
use oto_agent::student::{Environments, Event, Student, TeacherConfig, TeacherSpaces, Tick};
use oto_cpu::Cpu;
use oto_proto::{Action, Adapter, Space};
use oto_rl::algorithms::qrdqn::QrDqnConfig;

const POLICY: &str = "inverted_pendulum_lean";
const STEPS: u64 = 700;

fn config() -> StudentConfig {
    StudentConfig {
        seed: 3,
        steps: STEPS,
        algorithm: QrDqnConfig { hidden: vec![16], quantiles: 4, batch_size: 16, ..QrDqnConfig::default() }
            .into(),
        evaluation: EvaluationConfig { every: 350, episodes: 1 },
        ..StudentConfig::default()
    }
}

fn wide(n: usize, bound: f32) -> Space {
    Space::Box { low: vec![-bound; n], high: vec![bound; n] }
}

/// Keeps the pole up and the cart in the middle, in InvertedPendulum's order and units.
fn lean(s: &[f32]) -> f32 {
    (0.3 * s[0] + 6.0 * s[1] + 0.6 * s[2] + 1.5 * s[3]).clamp(-3.0, 3.0)
}

fn memory(mut answer: impl FnMut(f32) -> f32 + Send + 'static) -> Memory {
    let act = move |x: &[f32], _: usize, out: &mut Vec<f32>| {
        out.extend(x.chunks_exact(4).map(|s| answer(lean(s))));
        Ok(())
    };
    Memory::new(MemoryTeacher::new(POLICY, wide(4, f32::INFINITY), wide(1, 3.0), Box::new(act)))
}

fn teacher(observation: Space, action: Space) -> TeacherConfig {
    TeacherConfig {
        url: "memory://".into(),
        policy: POLICY.into(),
        adapter: None,
        learn_adapter: Some(TeacherSpaces { observation, action }),
        dtype: oto_proto::Dtype::F32,
        quantization: None,
        weight: 1.0,
        submit: false,
    }
}

fn student(config: &StudentConfig, teacher: TeacherConfig) -> Result<Student, String> {
    let environment = Environments::built_in("CartPole-v1").unwrap();
    Student::new(config, environment, &[teacher], &Cpu, 0).map_err(|e| e.to_string())
}

fn taught(memory: Memory) -> (Student, Driver) {
    let driver = Driver::with(vec![Wire::Memory(Box::new(memory))]);
    (student(&config(), teacher(wide(4, f32::INFINITY), wide(1, 3.0))).unwrap(), driver)
}

fn run(student: &mut Student, driver: &mut Driver, until: u64) -> Vec<Event> {
    let mut events = Vec::new();
    while student.trainer().steps() < until && driver.step(student).unwrap() != Tick::Done {
        events.extend(std::iter::from_fn(|| student.next_event()));
    }
    events
}

/// How often the teacher behind an adapter does what it does behind the declared one, in the states of a run.
fn agreement(student: &mut Student, learnt: &Adapter) -> f64 {
    let cartpole = [wide(4, f32::INFINITY), Space::Discrete { n: 2 }];
    let pendulum = [wide(4, f32::INFINITY), wide(1, 3.0)];
    let declared = presets::adapter("CartPole-v1", POLICY).unwrap();
    let [declared, learnt] =
        [&declared, learnt].map(|a| a.check(&cartpole[0], &cartpole[1], &pendulum[0], &pendulum[1]).unwrap());
    let (replay, mut room) = (student.trainer().replay(), Vec::new());
    let same = (0..replay.stored()).filter(|slot| {
        let state = replay.observation(*slot, &mut room).unwrap();
        let [a, b] = [&declared, &learnt].map(|plan| {
            let mut seen = [0.0; 4];
            plan.observation(state, &mut seen).unwrap();
            match plan.action(Action::Continuous(&[lean(&seen)]), &mut []).unwrap() {
                Action::Discrete(push) => push,
                Action::Continuous(_) => unreachable!("CartPole is pushed left or right"),
            }
        });
        a == b
    });
    same.count() as f64 / replay.stored() as f64
}

#[test]
fn the_right_adapter_is_found_and_a_resumed_run_is_the_uninterrupted_one() {
    let (mut a, mut driver) = taught(memory(|force| force));
    let whole = run(&mut a, &mut driver, STEPS);
    let adapter = a.learnt_adapter(0).expect("one is in use");
    let share = agreement(&mut a, &adapter);
    assert!(share > 0.9, "{share}: {adapter:?}");
    let metrics = a.metrics(0);
    assert!(a.trainer().replay().labelled(0) as u64 + 16 > STEPS, "old states are labelled too");
    assert!(
        metrics.teachers[0].stats.states_sent > metrics.labels,
        "what showed the teacher was asked for too"
    );

    // While states are asked about under drawn adapters, and while the past is caught up with.
    for stop in [203, 524] {
        let (mut b, mut driver) = taught(memory(|force| force));
        let mut parts = run(&mut b, &mut driver, stop);
        let file = b.save(true).unwrap();
        let (mut c, mut driver) = taught(memory(|force| force));
        c.load(&file, 0).unwrap();
        parts.extend(run(&mut c, &mut driver, STEPS));
        assert_eq!(parts, whole);
        assert_eq!(c.trainer().replay().save(), a.trainer().replay().save());
        assert_eq!(c.learnt_adapter(0), Some(adapter.clone()));
    }
}

#[test]
fn spaces_that_cannot_be_mapped_are_named() {
    let fails = |config: &StudentConfig, teacher| student(config, teacher).err().unwrap();
    let spaces = |observation, action| fails(&config(), teacher(observation, action));
    assert!(spaces(Space::Discrete { n: 4 }, wide(1, 3.0)).contains("boxes"));
    assert!(spaces(wide(65, 1.0), wide(1, 3.0)).contains("at most 64 numbers or choices, there are 65"));
    assert!(spaces(wide(4, 1.0), Space::Discrete { n: 60_000 }).contains("there are 60000"));
    assert!(spaces(wide(0, 1.0), wide(1, 3.0)).contains("components"));
    assert!(spaces(wide(4, f32::NAN), wide(1, 3.0)).contains("low <= high"));
    let n_step = StudentConfig { n_step: 3, ..config() };
    assert!(fails(&n_step, teacher(wide(4, 1.0), wide(1, 3.0))).starts_with("n_step is 3"));
    let both = TeacherConfig { adapter: Some(Adapter::default()), ..teacher(wide(4, 1.0), wide(1, 3.0)) };
    assert!(fails(&config(), both).contains("adapter"));
}

#[test]
fn answers_that_are_none_teach_nothing_and_stop_nothing() {
    for answer in [f32::NAN, f32::INFINITY] {
        let (mut student, mut driver) = taught(memory(move |_| answer));
        run(&mut student, &mut driver, STEPS);
        assert_eq!((student.trainer().steps(), student.metrics(0).labels), (STEPS, 0));
        assert_eq!(student.learnt_adapter(0), None);
    }
    let mut faulty = memory(|force| force);
    faulty.disturb(5, (0, 0), vec![(Fault::BadAction, 0.2), (Fault::WrongCount, 0.1)]);
    let (mut student, mut driver) = taught(faulty);
    run(&mut student, &mut driver, STEPS);
    assert_eq!(student.trainer().steps(), STEPS);
}

#[test]
fn a_teacher_that_leaves_is_not_waited_for() {
    for leaves in [0, 10, 300] {
        let (mut student, mut driver) = taught(memory(|force| force));
        run(&mut student, &mut driver, leaves);
        let now = driver.now_ms();
        if let Wire::Memory(memory) = &mut driver.wires_mut()[0] {
            memory.set_present(false, now);
        }
        run(&mut student, &mut driver, STEPS);
        assert_eq!(student.trainer().steps(), STEPS, "left at {leaves}");
        // From a few dozen answers nothing is concluded.
        assert!(leaves > 10 || student.learnt_adapter(0).is_none());
    }
}

#[test]
fn a_checkpoint_of_another_teacher_is_refused() {
    let (mut a, mut driver) = taught(memory(|force| force));
    run(&mut a, &mut driver, 300);
    let file = a.save(true).unwrap();
    let mut other = student(&config(), teacher(wide(3, 1.0), wide(1, 3.0))).unwrap();
    let error = other.load(&file, 0).unwrap_err().to_string();
    assert!(error.contains("adapter"), "{error}");
}

//! Checkpoints: a student that was loaded from one saves the same one again, and goes on.

use oto_agent::config::{EvaluationConfig, StudentConfig};
use oto_agent::presets;
use oto_agent::student::{Environments, Student, TeacherConfig, Tick};
use oto_cpu::Cpu;
use oto_proto::Dtype;
use oto_rl::algorithms::qrdqn::QrDqnConfig;

/// Steps that a student goes on for.
const STEPS: u64 = 12;

/// A small student of CartPole, with a teacher that never comes.
pub fn small_student() -> Student {
    let config = StudentConfig {
        steps: 1 << 40,
        algorithm: QrDqnConfig { hidden: vec![3], quantiles: 2, batch_size: 2, ..QrDqnConfig::default() }
            .into(),
        evaluation: EvaluationConfig { every: 0, episodes: 1 },
        buffer: 6,
        n_step: 2,
        learning_starts: 2,
        request_batch: 2,
        label_lag: 2,
        ..StudentConfig::default()
    };
    let policy = "sac_inverted_pendulum_v5";
    let teacher = TeacherConfig {
        url: "ws://127.0.0.1:1".into(),
        policy: policy.into(),
        adapter: presets::adapter("CartPole-v1", policy),
        learn_adapter: None,
        dtype: Dtype::F32,
        quantization: None,
        weight: 1.0,
        submit: false,
    };
    let environment = Environments::built_in("CartPole-v1").expect("it is built in");
    Student::new(&config, environment, &[teacher], &Cpu, 0).expect("a sound configuration")
}

/// Lets a student go on for a few steps, its time standing still.
pub fn go_on(student: &mut Student) {
    let until = student.trainer().steps().saturating_add(STEPS);
    for _ in 0..4 * STEPS {
        if student.trainer().steps() >= until || !matches!(student.tick(0), Ok(tick) if tick != Tick::Done) {
            return;
        }
    }
}

/// A checkpoint of [`small_student`].
pub fn checkpoint(file: &[u8]) -> bool {
    let mut student = small_student();
    drop(oto_agent::checkpoint::steps(file));
    if student.load(file, 0).is_err() {
        return false;
    }
    let saved = student.save(true).expect("what was loaded can be saved");
    let mut again = small_student();
    again.load(&saved, 0).expect("what was saved can be loaded");
    assert!(
        again.save(true).expect("and saved") == saved,
        "a student that was loaded is the one that was saved"
    );
    go_on(&mut student);
    true
}

//! Whole students against a server: different algorithms, environments and teachers at once, over real sockets.

use crate::student::serve;
use crate::submissions::{Folder, collect};
use oto_agent::config::{EvaluationConfig, StudentConfig};
use oto_agent::drive::Driver;
use oto_agent::presets;
use oto_agent::student::{Environments, Metrics, Student, TeacherConfig, Tick};
use oto_cpu::Cpu;
use oto_policy::load_folder;
use oto_proto::Dtype;
use oto_rl::algorithms::AlgorithmConfig;
use oto_rl::algorithms::qrdqn::QrDqnConfig;
use oto_rl::algorithms::sac::SacConfig;
use oto_server::dataset::{DatasetStore, State};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn config(algorithm: AlgorithmConfig, seed: u64) -> StudentConfig {
    StudentConfig {
        seed,
        name: Some(format!("student-{seed}")),
        algorithm,
        steps: 400,
        evaluation: EvaluationConfig { every: 0, episodes: 1 },
        ..StudentConfig::default()
    }
}

fn qrdqn() -> AlgorithmConfig {
    QrDqnConfig { hidden: vec![16], quantiles: 4, batch_size: 16, ..QrDqnConfig::default() }.into()
}

fn sac() -> AlgorithmConfig {
    SacConfig { hidden: vec![16], batch_size: 16, ..SacConfig::default() }.into()
}

/// A run from its first step to the last acknowledgement.
fn learn(server: SocketAddr, env: &str, policy: &str, config: &StudentConfig, submit: bool) -> Metrics {
    let teacher = TeacherConfig {
        url: format!("ws://{server}/v1/teach"),
        policy: policy.into(),
        adapter: presets::adapter(env, policy),
        learn_adapter: None,
        dtype: Dtype::F32,
        quantization: None,
        weight: 1.0,
        submit,
    };
    let teachers = [teacher];
    let mut driver = Driver::new(&teachers).unwrap();
    let mut student = Student::new(config, Environments::built_in(env).unwrap(), &teachers, &Cpu, 0).unwrap();
    driver.connect(&mut student, PATIENCE);
    while driver.step(&mut student).unwrap() != Tick::Done {}
    assert!(driver.submit_rest(&mut student, PATIENCE), "{policy}");
    student.metrics(0)
}

#[test]
fn several_kinds_of_students_are_taught_by_two_policies_at_once() {
    let folder = Folder::new();
    let store = Arc::new(folder.store());
    let teachers = load_folder(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/teachers"))).unwrap();
    let server = serve(teachers, collect("ppo_cartpole_v1", store.clone()));
    let address = server.address;
    let (cartpole, pendulum) = ("CartPole-v1", "InvertedPendulum-v5");
    let students = || {
        [
            (cartpole, "ppo_cartpole_v1", qrdqn(), true),
            (cartpole, "ppo_cartpole_v1", qrdqn(), true),
            // Another environment's teacher, by way of an adapter.
            (cartpole, "sac_inverted_pendulum_v5", qrdqn(), false),
            (pendulum, "sac_inverted_pendulum_v5", sac(), false),
        ]
    };
    let runs: Vec<_> = students()
        .into_iter()
        .zip(1..)
        .map(|((env, policy, algorithm, submit), seed)| {
            std::thread::spawn(move || learn(address, env, policy, &config(algorithm, seed), submit))
        })
        .collect();
    for (run, (_, policy, _, submit)) in runs.into_iter().zip(students()) {
        let metrics = run.join().unwrap();
        assert!(metrics.done && metrics.updates > 200, "{policy}: {} updates", metrics.updates);
        assert!(metrics.labels >= 380, "{policy}: {} labels", metrics.labels);
        assert_eq!(metrics.transitions_kept, if submit { 400 } else { 0 }, "{policy}");
    }
    let batches = store.list(State::Quarantine).unwrap();
    let submissions: Vec<_> = batches.iter().map(|batch| store.read(*batch).unwrap()).collect();
    assert_eq!(submissions.iter().map(|s| s.rows()).sum::<usize>(), 800);
    let names = |name: &str| submissions.iter().filter(|s| s.student == name).count();
    assert!(names("student-1") == 1 && names("student-2") == 1, "each by the name of its student");
    assert!(submissions.iter().all(|s| s.terminated.contains(&true)), "poles fall");
}

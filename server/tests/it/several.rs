//! One student, several teachers, two servers: each answers for itself, and one that goes away takes nothing along.

use crate::policies::{boxed, function, loaded, sum};
use crate::student::{Server, serve};
use oto_agent::config::{EvaluationConfig, StudentConfig};
use oto_agent::drive::Driver;
use oto_agent::student::{Environments, Student, TeacherConfig, Tick};
use oto_policy::Loaded;
use oto_proto::{Dtype, Space};
use std::time::Duration;

/// Four numbers to one of two choices: always the same.
fn stubborn() -> Loaded {
    loaded("stubborn", function(boxed(4), Space::Discrete { n: 2 }, |_, actions| actions.push(1.0)))
}

fn teacher(server: &Server, policy: &str, weight: f64) -> TeacherConfig {
    TeacherConfig {
        url: format!("ws://{}/v1/teach", server.address),
        policy: policy.into(),
        adapter: None,
        learn_adapter: None,
        dtype: Dtype::F32,
        quantization: None,
        submit: false,
        weight,
    }
}

fn train(student: &mut Student, driver: &mut Driver, until: u64) -> Vec<u64> {
    while student.trainer().steps() < until {
        assert_ne!(driver.step(student).unwrap(), Tick::Done);
    }
    student.metrics(0).teachers.iter().map(|t| t.stats.labels_received).collect()
}

#[test]
fn teachers_of_two_servers_and_one_server_stops() {
    let (near, mut far) = (serve(vec![sum(), stubborn()], |_| {}), serve(vec![sum()], |_| {}));
    let teachers = [teacher(&near, "sum", 1.0), teacher(&near, "stubborn", 0.5), teacher(&far, "sum", 1.0)];
    let config = StudentConfig {
        steps: 10_000,
        evaluation: EvaluationConfig { every: 0, ..EvaluationConfig::default() },
        ..StudentConfig::default()
    };
    let environment = Environments::built_in("CartPole-v1").unwrap();
    let mut driver = Driver::new(&teachers).unwrap();
    let mut student = Student::new(&config, environment, &teachers, &oto_cpu::Cpu, 0).unwrap();
    driver.connect(&mut student, Duration::from_secs(20));
    let before = train(&mut student, &mut driver, 300);
    assert!(before.iter().all(|labels| *labels > 270), "{before:?}");
    far.stop();
    far.join();
    let after = train(&mut student, &mut driver, 600);
    assert!(after[..2].iter().all(|labels| *labels > 570), "{after:?}");
    // What was on its way when the server was told to stop was still answered.
    assert!(after[2] < before[2] + 32, "{before:?}, then {after:?}");
    let replay = student.trainer().replay();
    // Of the answers that have come, the last request's enter with the next step.
    let lag = config.label_lag;
    for (i, after) in after[..2].iter().enumerate() {
        let entered = replay.labelled(i) as u64;
        assert!(
            (after - lag..=*after).contains(&entered),
            "{entered} of {after} are beside their own states"
        );
    }
}

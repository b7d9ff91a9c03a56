//! The component `oto_edge.wasm` and its teachers, over real sockets: taught, left, cut off, kept waiting, refused, and
//! without a grant for the network. The student continues, whatever a teacher does.

use oto_tests::edge::bindings::exports::oto::edge::learner::{Error, Link, Progress};
use oto_tests::edge::{Instance, Kind};
use oto_tests::proxy::{Line, Proxy};
use oto_tests::server::{Server, free_port};

/// The configuration of a student that is taught by the bundled agent of InvertedPendulum, which observes what this one
/// does in another order.
fn taught(port: u16, policy: &str) -> String {
    let adapter = r#"{"observation": {"permutation": [0, 2, 1, 3]},
        "action": {"kind": "sign", "component": 0, "negative": 0, "positive": 1}}"#;
    format!(
        r#"{{"student": {{"algorithm": {{"hidden": [16]}}}},
            "teachers": [{{"url": "127.0.0.1:{port}", "policy": "{policy}", "adapter": {adapter}}}]}}"#
    )
}

#[test]
fn a_teacher_answers_for_the_hosts_environment_until_it_leaves() {
    let server = Server::start(0);
    let mut instance = Instance::created(&taught(server.port, "sac_inverted_pendulum_v5"));
    let progress = instance.train(400).unwrap();
    let teacher = &progress.teachers[0];
    assert!(matches!(teacher.link, Link::Ready));
    assert!(teacher.labels > 350 && teacher.bytes_up > teacher.bytes_down, "{teacher:?}");
    drop(server);
    let progress = instance.train(400).unwrap();
    let teacher = &progress.teachers[0];
    assert_eq!(progress.step, 800);
    assert!(!matches!(teacher.link, Link::Ready) && teacher.problem.is_some(), "{teacher:?}");
}

#[test]
fn a_teacher_that_is_absent_or_refuses_is_told_apart() {
    let mut alone = Instance::created(&taught(free_port(), "sac_inverted_pendulum_v5"));
    let progress = alone.train(100).unwrap();
    assert_eq!((progress.step, progress.teachers[0].labels), (100, 0));
    let server = Server::start(0);
    match Instance::new().create(&taught(server.port, "nobody")) {
        Err(Error::Teacher(text)) => assert!(text.contains("nobody"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_network_it_learns_alone() {
    let mut instance = Instance::of(Kind::Isolated);
    instance.create(&taught(9, "sac_inverted_pendulum_v5")).unwrap();
    let progress = instance.train(200).unwrap();
    let teacher = &progress.teachers[0];
    assert_eq!((progress.step, teacher.labels), (200, 0));
    assert!(teacher.problem.is_some() && !matches!(teacher.link, Link::Ready), "{teacher:?}");
}

/// Trains to a step, and gives how the run stands.
fn train_to(instance: &mut Instance, step: u64) -> Progress {
    let so_far = instance.status().unwrap().step;
    let progress = instance.train(step - so_far).unwrap();
    assert_eq!(progress.step, step);
    progress
}

#[test]
fn a_teacher_that_is_killed_is_done_without_and_comes_back() {
    let server = Server::start(0);
    let line = Proxy::to(server.port, Line::Open);
    let mut instance = Instance::created(&taught(line.port, "sac_inverted_pendulum_v5"));
    let labels = train_to(&mut instance, 200).teachers[0].labels;
    assert!(labels > 150, "{labels}");
    line.set(Line::Cut);
    let progress = train_to(&mut instance, 600);
    let teacher = &progress.teachers[0];
    assert!(teacher.labels < labels + 50 && teacher.problem.is_some(), "{teacher:?}");
    line.set(Line::Open);
    // However fast this machine is: steps go on until the student has connected anew.
    let before = teacher.labels;
    let back = (7..200).find(|round| train_to(&mut instance, round * 100).teachers[0].labels > before);
    assert!(back.is_some() || wait_and_train(&mut instance, before), "no label after the teacher was back");
}

/// Gives the link the time that its pauses take, and trains on.
fn wait_and_train(instance: &mut Instance, labels: u64) -> bool {
    (0..60).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(500));
        instance.train(20).unwrap().teachers[0].labels > labels
    })
}

#[test]
fn a_teacher_that_falls_silent_is_not_waited_for() {
    let server = Server::start(0);
    let line = Proxy::to(server.port, Line::Open);
    let mut instance = Instance::created(&taught(line.port, "sac_inverted_pendulum_v5"));
    let labels = train_to(&mut instance, 200).teachers[0].labels;
    line.set(Line::Silent);
    let progress = train_to(&mut instance, 1000);
    assert!(progress.teachers[0].labels < labels + 50, "{:?}", progress.teachers[0]);
    // An update at every second step.
    assert!(progress.updates > 400);
}

#[test]
fn a_teacher_that_never_says_a_word_is_not_waited_for() {
    let server = Server::start(0);
    let line = Proxy::to(server.port, Line::Silent);
    let mut instance = Instance::created(&taught(line.port, "sac_inverted_pendulum_v5"));
    let progress = train_to(&mut instance, 300);
    assert_eq!(progress.teachers[0].labels, 0);
    assert!(progress.teachers[0].problem.is_some(), "{:?}", progress.teachers[0]);
}

#[test]
fn one_teacher_that_is_away_does_not_keep_the_other_from_teaching() {
    let server = Server::start(0);
    let both = |present: &str, away: &str| {
        format!(r#"{{"student": {{"algorithm": {{"hidden": [16]}}}}, "teachers": [{present}, {away}]}}"#)
    };
    let teacher = |port: u16| format!(r#"{{"url": "127.0.0.1:{port}", "policy": "ppo_cartpole_v1"}}"#);
    let mut instance = Instance::created(&both(&teacher(server.port), &teacher(free_port())));
    let progress = train_to(&mut instance, 300);
    assert!(progress.teachers[0].labels > 200 && progress.teachers[1].labels == 0, "{:?}", progress.teachers);
}

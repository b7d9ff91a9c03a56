//! Deadlines, versions and trials: what a student gets while policies come and go.

use crate::policies::{boxed, function, gated, loaded, sum};
use crate::student::{Heard, Server, Student, hello, request_to, serve};
use oto_policy::{Loaded, Output, Policy, PolicyError, load_file};
use oto_proto::message::Overloaded;
use oto_proto::{ErrorCode, ServerMessage, Space};
use oto_server::admin::Admin;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tokio::sync::oneshot;

/// Four numbers to this number, which tells who answered.
fn says(number: f32) -> Box<dyn Policy> {
    function(boxed(4), boxed(1), move |_, actions| actions.push(number))
}

fn learner(server: &Server) -> Student {
    server.student(hello("number", boxed(4), boxed(1))).0
}

fn ask(student: &mut Student) -> (u32, f32) {
    student.ask(&[&[0.5; 4]]);
    let answer = student.answer();
    (answer.version, answer.rows[0][0])
}

#[test]
fn a_request_that_waited_too_long_is_dropped_and_the_rest_is_answered() {
    let (policy, gate) = gated();
    let server = serve(vec![policy], |config| config.limits.queue.timeout = Duration::from_millis(20));
    let (mut first, mut second) = (server.pupil("gated"), server.pupil("gated"));
    first.ask(&[&[1.0; 4]]);
    gate.wait_for_calls(1);
    let late = second.ask(&[&[1.0; 4]]);
    second.is_heard();
    std::thread::sleep(Duration::from_millis(30));
    gate.open();
    let heard = second.hear();
    assert!(
        matches!(heard, Heard::Message(ServerMessage::Overloaded(Overloaded { request: Some(r), .. })) if r == late),
        "{heard:?}"
    );
    assert_eq!(first.answer().rows, [[1.0]], "what was computed already counts");
    assert_eq!(gate.calls(), [1], "nobody computed what was too late");
}

#[test]
fn what_a_student_asked_that_left_is_not_computed() {
    let (policy, gate) = gated();
    let server = serve(vec![policy], |_| {});
    let mut busy = server.pupil("gated");
    busy.ask(&[&[1.0; 4]]);
    gate.wait_for_calls(1);
    let mut leaving = server.pupil("gated");
    leaving.ask(&[&[1.0; 4]; 7]);
    leaving.is_heard();
    leaving.say(&oto_proto::ClientMessage::Bye);
    assert!(matches!(leaving.hear(), Heard::Closed(1000)));
    let mut staying = server.pupil("gated");
    staying.ask(&[&[1.0; 4]; 2]);
    staying.is_heard();
    gate.open();
    staying.answer();
    assert_eq!(gate.calls(), [1, 2]);
}

#[test]
fn a_swap_under_load_fails_nothing_and_mixes_nothing() {
    // Each version answers with its own number, so that an answer tells who gave each of its rows.
    let server = serve(vec![loaded("number", says(1.0))], |_| {});
    let done = Arc::new(AtomicBool::new(false));
    let students: Vec<_> = (0..3)
        .map(|_| {
            let (mut student, done) = (learner(&server), done.clone());
            let swaps = Arc::new(AtomicU32::new(0));
            let seen = swaps.clone();
            let thread = std::thread::spawn(move || {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    student.ask(&[&[0.5; 4]; 64]);
                    let answer = student.answer();
                    assert!(answer.rows.iter().all(|row| row == &[answer.version as f32]));
                    assert!(answer.version >= last, "{} after {last}", answer.version);
                    swaps.fetch_add(u32::from(answer.version > last), Ordering::Relaxed);
                    last = answer.version;
                }
            });
            (thread, seen)
        })
        .collect();
    // Many swaps, and until everyone met some while it asked; whoever failed meets none.
    let waits =
        || students.iter().any(|(thread, seen)| seen.load(Ordering::Relaxed) < 3 && !thread.is_finished());
    let mut version = 1;
    while version < 200 || waits() {
        version += 1;
        server.policies.publish("number", says(version as f32)).unwrap();
        while server.policies.version("number") != Some(version) {
            std::thread::yield_now();
        }
    }
    done.store(true, Ordering::Relaxed);
    students.into_iter().for_each(|(thread, _)| thread.join().unwrap());
}

#[test]
fn what_students_are_told_to_wait_outlives_a_publication() {
    let server = serve(vec![loaded("sum", sum().policy)], |config| {
        (config.limits.credits, config.limits.queue.requests) = (100, 1);
    });
    let mut student = server.pupil("sum");
    (0..20).for_each(|_| student.is_well());
    let (next, gate) = gated();
    server.policies.publish("sum", next.policy).unwrap();
    while server.policies.version("sum") != Some(2) {
        std::thread::yield_now();
    }
    student.ask(&[&[1.0; 4]]);
    gate.wait_for_calls(1);
    student.ask(&[&[1.0; 4]]);
    let beyond = student.ask(&[&[1.0; 4]]);
    let told = loop {
        match student.hear() {
            Heard::Message(ServerMessage::Overloaded(overloaded)) => break overloaded,
            Heard::Message(ServerMessage::Published(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told.request, Some(beyond));
    assert!(told.retry_ms < 500, "one state waits, and twenty were answered: {} ms", told.retry_ms);
    gate.open();
}

/// A server's operator's door, in a thread.
struct Door {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

const TOKEN: &str = "the operator's secret";

fn door(server: &Server) -> Door {
    let (stop, stopped) = oneshot::channel::<()>();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let admin = Admin::new(server.policies.clone(), TOKEN, None);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            admin.run(listener, async { drop(stopped.await) }).await;
        });
    });
    Door { address, _stop: stop }
}

impl Door {
    /// The status of a request, and what was said.
    fn wants_as(&self, token: &str, line: &str, body: &[u8]) -> (u16, serde_json::Value) {
        let headers = format!("authorization: Bearer {token}\r\ncontent-length: {}\r\n", body.len());
        let (head, answer) = request_to(self.address, line, &headers, body);
        (head[9..12].parse().unwrap(), serde_json::from_slice(&answer).unwrap())
    }

    fn wants(&self, line: &str, body: &[u8]) -> (u16, serde_json::Value) {
        self.wants_as(TOKEN, line, body)
    }

    /// The version that a request led to.
    fn gets(&self, line: &str, body: &[u8]) -> u64 {
        let (status, said) = self.wants(line, body);
        assert_eq!(status, 200, "{line}: {said}");
        said["version"].as_u64().unwrap()
    }

    fn list(&self) -> serde_json::Value {
        self.wants("GET /policies", b"").1[0].take()
    }
}

/// A bundled teacher of CartPole under the name `cartpole`.
fn teacher(file: &str) -> Loaded {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/teachers"));
    Loaded { name: "cartpole".into(), ..load_file(&folder.join(format!("{file}.json"))).unwrap() }
}

fn model(file: &str) -> Vec<u8> {
    teacher(file).model.unwrap()
}

fn student(server: &Server) -> Student {
    server.student(hello("cartpole", boxed(4), Space::Discrete { n: 2 })).0
}

/// States for which the two bundled teachers differ, and the version that answered.
fn answers(student: &mut Student) -> (u32, Vec<f32>) {
    let states: Vec<[f32; 4]> =
        (0..200).map(|i| [0.5, -0.9, 0.1, 0.8].map(|x| x * (i as f32 * 0.37).sin())).collect();
    student.ask(&states);
    let answer = student.answer();
    (answer.version, answer.rows.concat())
}

const LATE: &str = "ppo_cartpole_v1";
const EARLY: &str = "ppo_cartpole_v1_early";

#[test]
fn an_operator_publishes_and_rolls_back() {
    let server = serve(vec![teacher(LATE)], |_| {});
    let (door, mut student) = (door(&server), student(&server));
    assert_eq!(door.wants("POST /policies/cartpole/rollback", b"").0, 409, "to nothing");
    let (_, late) = answers(&mut student);
    assert_eq!(door.gets("POST /policies/cartpole/publish", &model(EARLY)), 2);
    let (version, early) = answers(&mut student);
    assert!(version == 2 && early != late, "the two teachers differ");
    assert_eq!(door.gets("POST /policies/cartpole/rollback", b""), 3, "a new number");
    assert_eq!(answers(&mut student), (3, late));
    assert_eq!(door.list()["version"], 3);
}

#[test]
fn a_candidate_that_is_none_never_serves() {
    let server = serve(vec![teacher(LATE)], |_| {});
    let (door, mut student) = (door(&server), student(&server));
    let before = answers(&mut student);
    let whole = model(LATE);
    for (body, says) in [(&whole[..whole.len() / 2], ""), (&model("sac_pendulum_v1"), "")] {
        for what in ["publish", "canary?percent=50", "shadow"] {
            let (status, said) = door.wants(&format!("POST /policies/cartpole/{what}"), body);
            assert!(status == 422 && said["error"].as_str().unwrap().contains(says), "{what}: {said}");
        }
    }
    for (line, status) in [
        ("POST /policies/absent/publish", 404),
        ("POST /policies/cartpole/dance", 404),
        ("GET /elsewhere", 404),
        ("POST /policies/cartpole/canary", 400),
        ("POST /policies/cartpole/canary?percent=101", 400),
        ("POST /policies/cartpole/promote", 409),
        ("DELETE /policies/cartpole/canary", 409),
    ] {
        assert_eq!(door.wants(line, &whole).0, status, "{line}");
    }
    assert_eq!(door.wants_as("somebody's guess", "POST /policies/cartpole/publish", &whole).0, 401);
    assert_eq!(answers(&mut student), before);
}

#[test]
fn a_canary_keeps_its_students_until_it_is_promoted_or_ended() {
    let server = serve(vec![teacher(LATE)], |_| {});
    let door = door(&server);
    let mut students: Vec<_> = (0..40).map(|_| student(&server)).collect();
    let (_, late) = answers(&mut students[0]);
    assert_eq!(door.gets("POST /policies/cartpole/canary?percent=50", &model(EARLY)), 2);
    let tried: Vec<bool> = students.iter_mut().map(|s| answers(s).0 == 2).collect();
    let chosen = tried.iter().filter(|tried| **tried).count();
    assert!((5..=35).contains(&chosen), "{chosen} of 40");
    assert_eq!(door.gets("POST /policies/cartpole/publish", &model(LATE)), 3);
    for (student, tried) in students.iter_mut().zip(&tried) {
        assert_eq!(answers(student).0, if *tried { 2 } else { 3 }, "it stays where it is");
    }
    assert_eq!(door.gets("DELETE /policies/cartpole/canary", b""), 3);
    for student in &mut students {
        assert_eq!(answers(student), (3, late.clone()));
    }
    assert_eq!(door.gets("POST /policies/cartpole/canary?percent=50", &model(EARLY)), 4);
    assert_eq!(door.gets("DELETE /policies/cartpole/canary", b""), 5, "numbers never shrink");
    assert_eq!(door.gets("POST /policies/cartpole/canary?percent=0", &model(EARLY)), 6);
    assert_eq!(door.gets("POST /policies/cartpole/promote", b""), 6);
    assert!(students.iter_mut().all(|student| answers(student).0 == 6));
}

#[test]
fn a_shadow_is_compared_and_not_heard() {
    let server = serve(vec![teacher(LATE)], |_| {});
    let (door, mut student) = (door(&server), student(&server));
    let (_, late) = answers(&mut student);
    door.gets("POST /policies/cartpole/shadow", &model(EARLY));
    let compared = loop {
        assert_eq!(answers(&mut student), (1, late.clone()));
        let shadow = door.list()["shadow"].clone();
        if shadow["states"].as_u64().unwrap() > 0 {
            break shadow;
        }
    };
    let (states, different) = (compared["states"].as_u64().unwrap(), compared["different"].as_u64().unwrap());
    assert!(states.is_multiple_of(200) && (1..states).contains(&different), "{compared}");
    door.gets("DELETE /policies/cartpole/shadow", b"");
    assert!(door.list()["shadow"].is_null());
}

#[test]
fn a_canary_that_fails_ends_and_nobody_notices() {
    // In place of a file that loads and then fails: the admin's door takes only what answered a few states.
    let server = serve(vec![loaded("number", says(1.0))], |_| {});
    let mut students = [learner(&server), learner(&server)];
    let fails = function(boxed(4), boxed(1), |_, _| panic!("asked to"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let tried = server.policies.try_on("number", fails, 100.0);
    assert_eq!(runtime.block_on(tried).unwrap(), 2);
    for student in &mut students {
        assert_eq!(ask(student), (3, 1.0), "the version before, under a number that is larger");
    }
    assert_eq!(server.policies.version("number"), Some(3));
}

#[test]
fn a_policy_that_fails_for_everyone_says_so() {
    let server = serve(vec![sum()], |_| {});
    let mut student = server.pupil("sum");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let fails = function(boxed(4), Space::Discrete { n: 2 }, |_, actions| actions.push(f32::NAN));
    runtime.block_on(server.policies.try_on("sum", fails, 100.0)).unwrap();
    assert!(matches!(student.hear(), Heard::Message(ServerMessage::Published(_))));
    // Version 1 fails here, too: it is not the canary's fault.
    student.ask(&[&[1e7, 0.0, 0.0, 0.0]]);
    assert_eq!(student.error().code, ErrorCode::PolicyFailed);
    assert_eq!(server.policies.version("sum"), Some(1));
}

#[test]
fn small_requests_do_not_wait_for_large_ones() {
    let (policy, gate) = gated();
    let server = serve(vec![policy], |_| {});
    let mut greedy = server.pupil("gated");
    let large = vec![[1.0; 4]; oto_server::BATCH_ROWS];
    (0..4).for_each(|_| _ = greedy.ask(&large));
    gate.wait_for_calls(1);
    greedy.is_heard();
    let mut modest = server.pupil("gated");
    modest.ask(&[&[1.0; 4]]);
    modest.is_heard();
    gate.open();
    modest.answer();
    (0..4).for_each(|_| drop(greedy.answer()));
    assert_eq!(gate.calls()[..2], [large.len(), 1], "before the three that came before it");
}

/// The policy `sum`, slowly: each call is reported with its rows, and waits for leave.
struct Slow {
    inner: Box<dyn Policy>,
    calls: Sender<usize>,
    leave: Receiver<()>,
}

impl Policy for Slow {
    fn observation_space(&self) -> &Space {
        self.inner.observation_space()
    }

    fn action_space(&self) -> &Space {
        self.inner.action_space()
    }

    fn act(&mut self, observations: &[f32], rows: usize, actions: &mut Vec<f32>) -> Result<(), PolicyError> {
        self.calls.send(rows).unwrap();
        self.leave.recv().unwrap();
        std::thread::sleep(Duration::from_millis(2));
        self.inner.act(observations, rows, actions)
    }

    fn outputs(&mut self, observations: &[f32], rows: usize) -> Result<Vec<Output>, PolicyError> {
        self.inner.outputs(observations, rows)
    }
}

#[test]
fn small_requests_do_not_wait_for_the_rest_of_a_large_one() {
    let ((calls, called), (let_go, leave)) = (channel(), channel());
    let slow = Slow { inner: sum().policy, calls, leave };
    let server = serve(vec![loaded("slow", Box::new(slow))], |_| {});
    let (mut greedy, mut modest) = (server.pupil("slow"), server.pupil("slow"));
    let next = || {
        let rows = called.recv().unwrap();
        let_go.send(()).unwrap();
        rows
    };
    modest.ask(&[[1.0; 4]]);
    assert_eq!(next(), 1);
    modest.answer();
    // It takes milliseconds for a state, so a large request is answered in pieces.
    let states: Vec<[f32; 4]> = (0..200).map(|i| [if i % 3 == 0 { 1.0 } else { -1.0 }; 4]).collect();
    greedy.ask(&states);
    assert_eq!(called.recv().unwrap(), 64);
    modest.ask(&[[1.0; 4]]);
    modest.is_heard();
    let_go.send(()).unwrap();
    assert_eq!(next(), 1, "the small request comes after one piece of the large one");
    modest.answer();
    assert_eq!([next(), next(), next()], [64, 64, 8]);
    let answer = greedy.answer();
    let expected: Vec<Vec<f32>> = states.iter().map(|state| vec![f32::from(state[0] > 0.0)]).collect();
    assert_eq!((answer.version, answer.rows), (1, expected));
}

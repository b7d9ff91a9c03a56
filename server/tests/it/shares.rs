//! Shared agents over real sockets: workers train one, and bad workers change nothing.

use crate::policies::{boxed, sum};
use crate::strangers::{TOKEN, door_of};
use crate::student::{Heard, Server, Student, hello, request_to, serve};
use oto_agent::config::{EvaluationConfig, StudentConfig};
use oto_agent::hub::{Hub, HubConfig};
use oto_agent::link::tungstenite::Socket;
use oto_agent::run::Observer;
use oto_agent::student::{Event, Metrics};
use oto_agent::{environments, presets, worker};
use oto_cpu::Cpu;
use oto_proto::gradients::write_gradients;
use oto_proto::message::Welcome;
use oto_proto::{ErrorCode, Grant, Hello, Ids, Parameter, ServerMessage, Space, Weights, WorkerInfo};
use oto_rl::algorithms::a3c::{A3cConfig, AdvantageActorCritic};
use oto_rl::shared::Part;
use oto_server::Shares;
use tungstenite::Message;

const ENVIRONMENT: &str = "CartPole-v1";

fn config() -> HubConfig {
    let student = StudentConfig {
        steps: 1 << 40,
        evaluation: EvaluationConfig { every: 0, episodes: 1 },
        algorithm: A3cConfig { hidden: vec![8], ..A3cConfig::default() }.into(),
        ..presets::learner(ENVIRONMENT, &AdvantageActorCritic)
    };
    HubConfig { workers: 2, staleness: 3, ..HubConfig::new(ENVIRONMENT, student) }
}

/// A server that shares an agent beside its policy.
fn sharing() -> Server {
    serve(vec![sum()], |server| {
        let hubs = vec![("pole".into(), Hub::new(&config(), &Cpu).unwrap())];
        server.shares = Shares::new(hubs, &server.policies).unwrap();
    })
}

/// What the operator's door says of everything that is counted.
pub fn metrics(server: &Server) -> String {
    let token = format!("authorization: Bearer {TOKEN}\r\n");
    let (_, body) = request_to(door_of(server, None), "GET /metrics", &token, b"");
    String::from_utf8(body).unwrap()
}

fn parameters() -> Vec<Parameter> {
    let one = |name: &str, shape: &[u32]| Parameter { name: name.into(), shape: shape.to_vec() };
    vec![
        one("agent.trunk.0.weight", &[8, 4]),
        one("agent.trunk.0.bias", &[8]),
        one("agent.policy.0.weight", &[2, 8]),
        one("agent.policy.0.bias", &[2]),
        one("agent.value.0.weight", &[1, 8]),
        one("agent.value.0.bias", &[1]),
    ]
}

/// Numbers of all of them.
const NUMBERS: usize = 8 * 4 + 8 + 2 * 8 + 2 + 8 + 1;

fn of_worker(name: &str) -> Hello {
    let worker = Some(WorkerInfo { name: name.into(), parameters: parameters() });
    Hello { grants: vec![Grant::Gradients], worker, ..hello("pole", boxed(4), Space::Discrete { n: 2 }) }
}

fn joined(server: &Server, name: &str) -> (Student, u32, u32) {
    let (mut student, Welcome { shared, policy_id, .. }) = server.student(of_worker(name));
    let session = shared.unwrap().session;
    pushed(&mut student, session);
    (student, session, policy_id)
}

/// The version of the parameters that come.
fn pushed(student: &mut Student, session: u32) -> u32 {
    let Heard::Frame(frame) = student.hear() else { panic!("expected parameters") };
    let weights = Weights::read(&frame, NUMBERS).unwrap();
    assert_eq!((weights.header().ids.request, weights.base()), (session, 0));
    weights.header().ids.version
}

fn gradients(request: u32, policy: u32, version: u32, value: f32) -> Vec<u8> {
    let mut frame = Vec::new();
    write_gradients(Ids { request, policy, version }, &[value; NUMBERS], &mut frame).unwrap();
    frame
}

fn send(student: &mut Student, frame: Vec<u8>) {
    student.socket.send(Message::binary(frame)).unwrap();
}

#[test]
fn gradients_make_versions_and_wrong_ones_do_not() {
    let server = sharing();
    let (mut student, session, policy) = joined(&server, "a");
    for version in 1..=5 {
        send(&mut student, gradients(session, policy, version, 0.1));
        assert_eq!(pushed(&mut student, session), version + 1);
    }
    let good = gradients(session, policy, 6, 0.1);
    let mut nan = good.clone();
    nan[16..20].copy_from_slice(&f32::NAN.to_le_bytes());
    for (frame, code) in [
        (good[..15].to_vec(), ErrorCode::BadMessage),
        (good[..good.len() - 4].to_vec(), ErrorCode::BadShape),
        ([&good[..], &[0; 100]].concat(), ErrorCode::BadShape),
        (nan, ErrorCode::NotFinite),
        (gradients(session + 1, policy, 6, 0.1), ErrorCode::BadMessage),
        (gradients(session, policy + 1, 6, 0.1), ErrorCode::UnknownPolicy),
        (gradients(session, policy, 7, 0.1), ErrorCode::OutOfRange),
        (gradients(session, policy, 2, 0.1), ErrorCode::OutOfRange),
    ] {
        send(&mut student, frame);
        assert_eq!(student.error().code, code);
        assert_eq!(pushed(&mut student, session), 6, "{code:?}");
    }
    let metrics = metrics(&server);
    for line in [
        "oto_share_gradients_total{policy=\"pole\"} 5",
        "oto_share_workers{policy=\"pole\"} 1",
        "oto_share_steps{policy=\"pole\"} 100",
        "oto_share_refused_total{policy=\"pole\",reason=\"stale\"} 1",
        "oto_share_refused_total{policy=\"pole\",reason=\"not_finite\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    server.pupil("sum").is_well();
}

#[test]
fn a_worker_that_is_none_is_refused() {
    let server = sharing();
    let worker = |change: &dyn Fn(&mut Hello)| {
        let mut hello = of_worker("a");
        change(&mut hello);
        server.refused(hello).code
    };
    assert_eq!(worker(&|hello| hello.policy = "beam".into()), ErrorCode::UnknownPolicy);
    assert_eq!(worker(&|hello| hello.grants = vec![Grant::Actions]), ErrorCode::Forbidden);
    assert_eq!(worker(&|hello| hello.worker = None), ErrorCode::UnknownPolicy);
    assert_eq!(worker(&|hello| hello.observation = boxed(5)), ErrorCode::SpaceMismatch);
    assert_eq!(worker(&|hello| hello.action = boxed(1)), ErrorCode::SpaceMismatch);
    let parameters = |change: &dyn Fn(&mut Vec<Parameter>)| {
        worker(&|hello| change(&mut hello.worker.as_mut().unwrap().parameters))
    };
    assert_eq!(parameters(&|list| drop(list.pop())), ErrorCode::BadShape);
    assert_eq!(parameters(&|list| list[0].shape = vec![9, 4]), ErrorCode::BadShape);
    assert_eq!(parameters(&|list| list.clear()), ErrorCode::BadMessage);
    let _both = [joined(&server, "a"), joined(&server, "b")];
    assert_eq!(server.refused(of_worker("c")).code, ErrorCode::Forbidden, "two workers at most");
}

#[test]
fn a_later_worker_of_the_same_name_takes_over() {
    let server = sharing();
    let (mut first, ..) = joined(&server, "a");
    let (mut second, session, policy) = joined(&server, "a");
    first.is_refused(ErrorCode::Replaced);
    // The first one's end does not end the second one's session.
    send(&mut second, gradients(session, policy, 1, 0.1));
    assert_eq!(pushed(&mut second, session), 2);
}

/// Vanishes between fetch and send, with half a frame, and with a frame whose answer it does not read.
#[test]
fn a_worker_that_vanishes_costs_nothing() {
    let server = sharing();
    for cut in [0, 30, 100] {
        let (mut student, session, policy) = joined(&server, "gone");
        let frame = gradients(session, policy, 1, 0.1);
        if cut > 0 {
            use std::io::Write;
            student.socket.get_mut().write_all(&frame[..cut]).unwrap();
        }
        drop(student);
    }
    let (mut student, session, policy) = joined(&server, "a");
    send(&mut student, gradients(session, policy, 1, 0.1));
    assert_eq!(pushed(&mut student, session), 2);
    student.say(&oto_proto::ClientMessage::Bye);
    assert!(matches!(student.hear(), Heard::Closed(1000)));
}

#[test]
fn a_worker_that_goes_on_with_nonsense_is_sent_away() {
    let server = sharing();
    let (mut student, session, policy) = joined(&server, "a");
    let mut refused = 0;
    loop {
        let frame = gradients(session, policy, 1, 0.1)[..20].to_vec();
        if student.socket.send(Message::binary(frame)).is_err() {
            break;
        }
        match student.hear() {
            Heard::Message(ServerMessage::Error(error)) if error.request.is_some() => refused += 1,
            Heard::Message(ServerMessage::Error(error)) => {
                assert_eq!(error.code, ErrorCode::BadShape);
                break;
            }
            other => panic!("{other:?}"),
        }
        pushed(&mut student, session);
        assert!(refused < 1000);
    }
    assert!(refused > 0);
    let (mut student, session, policy) = joined(&server, "b");
    send(&mut student, gradients(session, policy, 1, 0.1));
    assert_eq!(pushed(&mut student, session), 2);
}

#[derive(Default)]
struct Quiet(u64);

impl Observer for Quiet {
    fn event(&mut self, event: &Event) -> Result<(), String> {
        self.0 += u64::from(matches!(event, Event::Episode { .. }));
        Ok(())
    }

    fn progress(&mut self, _: &Metrics) -> Result<(), String> {
        Ok(())
    }
}

/// Two whole workers beside each other, each with a student of its own.
#[test]
fn workers_train_the_agent() {
    let server = sharing();
    let work = |seed: u64| {
        let config = StudentConfig { seed, steps: 2_000, ..config().student };
        let environment = environments::of_student(ENVIRONMENT, &config).unwrap();
        let mut student =
            oto_agent::student::Student::of(Part::Worker, &config, environment, &[], &Cpu, 0).unwrap();
        let mut link = worker::link_of(&mut student, "pole", &worker::random_name()).unwrap();
        let mut socket = Socket::new(&format!("ws://{}/v1/teach", server.address)).unwrap();
        let mut seen = Quiet::default();
        let last = worker::run(&mut student, &mut link, &mut socket, &mut seen).unwrap();
        assert!(last.done && seen.0 > 0);
        let stats = link.stats();
        assert_eq!((stats.sessions, stats.rejected, stats.overloaded), (1, 0, 0));
        // A gradient may be too old, where one worker is much faster.
        [stats.sent, stats.refused]
    };
    let counts = std::thread::scope(|scope| {
        let work = &work;
        let threads = [1, 2].map(|seed| scope.spawn(move || work(seed)));
        threads.map(|thread| thread.join().unwrap())
    });
    let [sent, refused] = [0, 1].map(|i| counts.iter().map(|counts| counts[i]).sum::<u64>());
    let metrics = metrics(&server);
    // The last gradient of a worker may be left behind with its goodbye.
    let begins = "oto_share_gradients_total{policy=\"pole\"} ";
    let applied: u64 = metrics.lines().find_map(|line| line.strip_prefix(begins)).unwrap().parse().unwrap();
    let taken = sent - refused;
    assert!((taken - 2..=taken).contains(&applied) && sent >= 198, "{applied} and {refused} of {sent}");
}

//! Groups over real sockets: two students teach each other, and a bad member costs its own connection.

use crate::policies::{boxed, sum};
use crate::security_options::sha256;
use crate::shares::metrics;
use crate::strangers::TOKEN;
use crate::student::{Heard, Server, Student, hello, serve};
use oto_agent::config::{EvaluationConfig, StudentConfig};
use oto_agent::distillation::settle_peers;
use oto_agent::group::{Group, GroupConfig};
use oto_agent::link::tungstenite::Socket;
use oto_agent::peer::{PeerConfig, PeerError, Peers};
use oto_agent::student::{Student as Learner, Tick};
use oto_agent::{environments, presets};
use oto_cpu::Cpu;
use oto_proto::logits::{PeerInfo, write_logits};
use oto_proto::{
    ClientMessage, Dtype, ErrorCode, Grant, Hello, Ids, MemberInfo, ServerMessage, Space, StateFormat,
};
use oto_rl::algorithms::a3c::{A3cConfig, AdvantageActorCritic};
use oto_rl::distillation::{AlignmentConfig, DistillationConfig, DistillationHead};
use oto_server::Groups;
use oto_server::access::Access;
use std::sync::atomic::{AtomicBool, Ordering};
use tungstenite::Message;

fn grouped(config: GroupConfig, change: impl FnOnce(&mut oto_server::ServerConfig)) -> Server {
    serve(vec![sum()], |server| {
        let groups = vec![("games".into(), Group::new(config).unwrap())];
        server.groups = Groups::new(groups, &server.policies).unwrap();
        change(server);
    })
}

fn of_member(name: &str, actions: u32) -> Hello {
    let member = Some(MemberInfo { name: name.into(), channel: 0 });
    let own = hello("games", boxed(2), Space::Discrete { n: actions });
    Hello { grants: vec![Grant::PeerLogits], member, ..own }
}

/// A member, and its session.
fn joined(server: &Server, name: &str, actions: u32) -> (Student, u32) {
    let (student, welcome) = server.student(of_member(name, actions));
    assert_eq!(welcome.grants, [Grant::PeerLogits]);
    (student, welcome.group.unwrap().session)
}

fn peers(student: &mut Student) -> Vec<PeerInfo> {
    match student.hear() {
        Heard::Message(ServerMessage::Peers(peers)) => peers.teachers,
        other => panic!("{other:?}"),
    }
}

fn frame(student: &mut Student) -> Vec<u8> {
    match student.hear() {
        Heard::Frame(frame) => frame,
        other => panic!("{other:?}"),
    }
}

fn states(request: u32, to: u32) -> Vec<u8> {
    let (format, mut out) = (StateFormat::new(&boxed(2), Dtype::F32, None).unwrap(), Vec::new());
    let mut writer = format.writer(Ids { request, policy: to, version: 0 }, &mut out);
    writer.state(&[0.5, -0.5]).unwrap();
    writer.finish().unwrap();
    out
}

fn logits(request: u32, to: u32, values: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    write_logits(Ids { request, policy: to, version: 1 }, values, values.len(), &mut out).unwrap();
    out
}

fn send(student: &mut Student, frame: Vec<u8>) {
    student.socket.send(Message::binary(frame)).unwrap();
}

#[test]
fn members_ask_and_answer_and_leave() {
    let server = grouped(GroupConfig { members: 2, ..GroupConfig::default() }, |_| {});
    let (mut a, of_a) = joined(&server, "a", 2);
    assert_eq!(peers(&mut a), []);
    let (mut b, of_b) = joined(&server, "b", 3);
    assert_eq!(peers(&mut a), [PeerInfo { session: of_b, name: "b".into(), actions: 3 }]);
    assert_eq!(peers(&mut b), [PeerInfo { session: of_a, name: "a".into(), actions: 2 }]);
    assert_eq!(server.refused(of_member("c", 2)).code, ErrorCode::Forbidden, "a full group");
    send(&mut a, states(70, of_b));
    assert_eq!(frame(&mut b), states(0, of_a));
    send(&mut b, logits(0, of_a, &[1.0, 2.0, 3.0]));
    assert_eq!(frame(&mut a), logits(70, of_b, &[1.0, 2.0, 3.0]));
    // Unasked logits, logits of another width, not finite ones; states for no member. All members continue.
    let mut nan = logits(1, of_a, &[1.0, 2.0, 3.0]);
    nan[16..20].copy_from_slice(&f32::NAN.to_le_bytes());
    for (bad, asks, code) in [
        (logits(9, of_a, &[1.0, 2.0, 3.0]), false, ErrorCode::BadMessage),
        (nan, true, ErrorCode::NotFinite),
        (logits(2, of_a, &[1.0, 2.0]), true, ErrorCode::BadShape),
        (states(3, 99), false, ErrorCode::UnknownPolicy),
        (states(3, of_a)[..20].to_vec(), false, ErrorCode::BadShape),
    ] {
        if asks {
            send(&mut a, states(71, of_b));
            frame(&mut b);
        }
        send(&mut b, bad);
        assert_eq!(b.error().code, code);
        if asks {
            let error = a.error();
            assert_eq!((error.code, error.request), (ErrorCode::PolicyFailed, Some(71)));
        }
    }
    b.say(&ClientMessage::Stage(oto_proto::message::StageEvent { stage: oto_proto::Stage::Online, step: 1 }));
    assert_eq!(b.error().code, ErrorCode::BadMessage);
    // A member of the same name takes over.
    let (mut later, of_later) = joined(&server, "b", 3);
    b.is_refused(ErrorCode::Replaced);
    assert_eq!(peers(&mut later).len(), 1);
    assert_eq!(peers(&mut a)[0].session, of_later);
    // One that vanishes is missed: its question has no answer.
    send(&mut a, states(72, of_later));
    frame(&mut later);
    drop(later);
    assert_eq!(peers(&mut a), []);
    let error = a.error();
    assert_eq!((error.code, error.request), (ErrorCode::PolicyFailed, Some(72)));
    let text = metrics(&server);
    for line in [
        "oto_group_members{policy=\"games\"} 1",
        "oto_group_states_total{policy=\"games\"} 4",
        "oto_group_logits_total{policy=\"games\"} 1",
        "oto_group_refused_total{policy=\"games\",reason=\"not_finite\"} 1",
        "oto_group_refused_total{policy=\"games\",reason=\"unasked\"} 1",
        "oto_group_refused_total{policy=\"games\",reason=\"full\"} 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    server.pupil("sum").is_well();
}

#[test]
fn what_is_no_member_is_refused() {
    let server = grouped(GroupConfig::default(), |_| {});
    let refused = |change: &dyn Fn(&mut Hello)| {
        let mut hello = of_member("a", 2);
        change(&mut hello);
        server.refused(hello).code
    };
    assert_eq!(refused(&|hello| hello.policy = "none".into()), ErrorCode::UnknownPolicy);
    assert_eq!(refused(&|hello| hello.member = None), ErrorCode::UnknownPolicy);
    assert_eq!(refused(&|hello| hello.grants = vec![Grant::Actions]), ErrorCode::Forbidden);
    assert_eq!(refused(&|hello| hello.action = boxed(2)), ErrorCode::SpaceMismatch);
    assert_eq!(refused(&|hello| hello.action = Space::Discrete { n: 5000 }), ErrorCode::SpaceMismatch);
    assert_eq!(refused(&|hello| hello.member.as_mut().unwrap().channel = 3), ErrorCode::SpaceMismatch);
    assert_eq!(refused(&|hello| hello.member.as_mut().unwrap().name.clear()), ErrorCode::BadMessage);
    assert_eq!(refused(&|hello| hello.dtype = Dtype::F16), ErrorCode::BadDtype);
}

#[test]
fn a_member_needs_the_grant_and_its_states_are_counted() {
    let without = "another machine's secret";
    let entry = |name: &str, token: &str, rights: &str| {
        format!(r#"{{"name":"{name}","token_sha256":"{}"{rights}}}"#, sha256(token))
    };
    let rights = r#","grants":["peer_logits"],"states_per_second":1"#;
    let json =
        format!(r#"{{"machines":[{},{}]}}"#, entry("with", TOKEN, rights), entry("without", without, ""));
    let server = grouped(GroupConfig::default(), |config| {
        config.access = Some(serde_json::from_str::<Access>(&json).unwrap());
    });
    let header = format!("Bearer {without}");
    let mut stranger = server.stranger_with(&[("authorization", header.as_str())]).unwrap();
    stranger.say(&ClientMessage::Hello(Box::new(of_member("a", 2))));
    stranger.is_refused(ErrorCode::Forbidden);
    let header = format!("Bearer {TOKEN}");
    let member = |name| server.student_with(&[("authorization", header.as_str())], of_member(name, 2));
    let ((mut a, _), (mut b, of_b)) = (member("a"), member("b"));
    peers(&mut a);
    peers(&mut a);
    peers(&mut b);
    let to = of_b.group.unwrap().session;
    send(&mut a, states(1, to));
    frame(&mut b);
    send(&mut a, states(2, to));
    let Heard::Message(ServerMessage::Overloaded(overloaded)) = a.hear() else { panic!("expected a pause") };
    assert_eq!(overloaded.request, Some(2));
}

fn config(env: &str, seed: u64) -> StudentConfig {
    let alignment = AlignmentConfig { hidden: vec![8], ..AlignmentConfig::default() };
    let distillation = DistillationConfig {
        to: DistillationHead::Head,
        alignment: Some(alignment),
        ..DistillationConfig::default()
    };
    let algorithm = A3cConfig { hidden: vec![8], distillation: Some(distillation), ..A3cConfig::default() };
    StudentConfig {
        seed,
        steps: 1 << 40,
        evaluation: EvaluationConfig { every: 0, episodes: 1 },
        algorithm: algorithm.into(),
        ..presets::learner(env, &AdvantageActorCritic)
    }
}

/// A student of an environment of four numbers, in the group.
fn learner(server: &Server, env: &str, member: &str, others: usize) -> Learner {
    let mut config = config(env, 1);
    let url = format!("ws://{}/v1/teach", server.address);
    let peer =
        PeerConfig { url: url.clone(), group: "games".into(), member: member.into(), teachers: vec![] };
    let environment = environments::of_student(env, &config).unwrap();
    let (observation, action) = environment.spaces();
    let mut peers =
        Peers::of_student(Socket::new(&url).unwrap(), &peer, [observation, action], &config).unwrap();
    assert!(peers.wait(others, &|| false).unwrap());
    settle_peers(&mut config.algorithm, peers.teachers()).unwrap();
    let mut student = Learner::new(&config, environment, &[], &Cpu, 0).unwrap();
    student.trainer().join(peers).unwrap();
    student
}

/// Two students on one server learn from each other; one leaves at once, the other continues.
#[test]
fn two_students_learn_from_each_other_until_one_is_gone() {
    let server = grouped(GroupConfig { states_per_second: 1e6, ..GroupConfig::default() }, |_| {});
    let answered = |student: &mut Learner| {
        student.trainer().distillation().unwrap().teachers().next().map_or(0, |(answered, ..)| answered)
    };
    let gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pole = scope.spawn(|| {
            let mut student = learner(&server, "CartPole-v1", "pole", 1);
            // The other one is gone, and 2,000 steps more.
            let mut alone = 0;
            while alone < 2_000 {
                assert_eq!(student.tick(0).unwrap(), Tick::Stepped);
                alone += u64::from(gone.load(Ordering::Relaxed));
            }
            let report = student.trainer().report().unwrap();
            for name in ["peer_loss", "peer_asked", "peer_answered", "peer_taught", "alignment_loss"] {
                assert!(report.get(name).is_some_and(f32::is_finite), "{name}: {report:?}");
            }
            assert_eq!(report.get("distillation_refused"), Some(0.0));
            // More updates than rollouts: those of late logits.
            (student.trainer().updates() > student.trainer().steps() / 20, answered(&mut student))
        });
        let other = scope.spawn(|| {
            let mut student = learner(&server, "CartPole-v1", "other", 1);
            while answered(&mut student) < 400 {
                assert_eq!(student.tick(0).unwrap(), Tick::Stepped);
            }
            let states = answered(&mut student);
            drop(student);
            gone.store(true, Ordering::Relaxed);
            states
        });
        assert!(other.join().unwrap() >= 400);
        let (late, states) = pole.join().unwrap();
        assert!(late && states > 0);
    });
}

#[test]
fn a_group_that_is_not_there_is_named() {
    let server = grouped(GroupConfig { members: 2, ..GroupConfig::default() }, |_| {});
    let url = format!("ws://{}/v1/teach", server.address);
    let config = config("CartPole-v1", 1);
    let environment = environments::of_student("CartPole-v1", &config).unwrap();
    let (observation, action) = environment.spaces();
    let refused = |group: &str| {
        let peer = PeerConfig { url: url.clone(), group: group.into(), member: "a".into(), teachers: vec![] };
        let socket = Socket::new(&url).unwrap();
        let mut peers = Peers::of_student(socket, &peer, [observation, action], &config).unwrap();
        match peers.wait(1, &|| false) {
            Err(PeerError::Refused(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(refused("none").contains("no policy \"none\""), "{}", refused("none"));
    let _both = [joined(&server, "x", 2), joined(&server, "y", 2)];
    assert!(refused("games").contains("at most 2 members"), "{}", refused("games"));
}

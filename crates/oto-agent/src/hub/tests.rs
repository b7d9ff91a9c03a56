//! A shared agent without sockets: what it takes, what it refuses, and a worker's link against it.

use super::*;
use crate::config::EvaluationConfig;
use crate::link::{Conversation, Event as LinkEvent, LinkState, Output};
use crate::presets;
use crate::student::Tick;
use crate::worker::link::WorkerLink;
use crate::worker::link_of;
use oto_cpu::Cpu;
use oto_proto::gradients::write_gradients;
use oto_proto::message::Overloaded;
use oto_proto::{ClientMessage, Dtype, Grant, ServerMessage, TeacherInfo, Weights, Welcome};
use oto_rl::algorithms::a3c::{A3cConfig, AdvantageActorCritic};

const ENVIRONMENT: &str = "CartPole-v1";
pub(super) const POLICY: u32 = 9;

fn config(steps: u64) -> HubConfig {
    let student = StudentConfig {
        seed: 5,
        steps,
        evaluation: EvaluationConfig { every: 200, episodes: 2 },
        algorithm: A3cConfig { hidden: vec![8], ..A3cConfig::default() }.into(),
        ..presets::learner(ENVIRONMENT, &AdvantageActorCritic)
    };
    HubConfig { workers: 2, staleness: 3, ..HubConfig::new(ENVIRONMENT, student) }
}

pub(super) fn hub(steps: u64) -> Hub {
    Hub::new(&config(steps), &Cpu).unwrap()
}

pub(super) fn worker(seed: u64) -> Student {
    let config = StudentConfig {
        seed,
        evaluation: EvaluationConfig { every: 0, episodes: 1 },
        ..config(1 << 40).student
    };
    let environment = environments::of_student(ENVIRONMENT, &config).unwrap();
    Student::of(Part::Worker, &config, environment, &[], &Cpu, 0).unwrap()
}

fn info(hub: &Hub, name: &str) -> WorkerInfo {
    WorkerInfo { name: name.into(), parameters: hub.parameters.clone() }
}

fn frame(session: u32, version: u32, values: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    write_gradients(Ids { request: session, policy: POLICY, version }, values, &mut out).unwrap();
    out
}

fn state(hub: &mut Hub) -> Vec<u8> {
    let mut values = Vec::new();
    hub.student.trainer().learner().engine().read_exchanged(&mut values).unwrap();
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn every_wrong_frame_has_its_reason_and_changes_nothing() {
    let mut hub = hub(100_000);
    let (session, shared) = hub.join(&info(&hub, "a")).unwrap();
    assert_eq!((session.number, shared.session), (1, 1));
    let values = vec![0.1; hub.parameters()];
    for version in 1..=5 {
        hub.take(&session, POLICY, &frame(1, version, &values), 1.0, 0).unwrap();
    }
    assert_eq!(hub.version(), 6);
    let before = state(&mut hub);
    let good = frame(1, 6, &values);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let mut nan = good.clone();
    nan[20..24].copy_from_slice(&f32::NAN.to_le_bytes());
    for (bytes, reason, code) in [
        (Vec::new(), "too_short", ErrorCode::BadMessage),
        (with(0, 5), "wrong_kind", ErrorCode::BadMessage),
        (with(0, 200), "unknown_kind", ErrorCode::BadMessage),
        (with(1, 2), "wrong_dtype", ErrorCode::BadDtype),
        (with(2, 7), "too_many_rows", ErrorCode::TooLarge),
        (good[..good.len() - 4].to_vec(), "wrong_length", ErrorCode::BadShape),
        ([&good[..], &[0; 4096]].concat(), "wrong_length", ErrorCode::BadShape),
        (nan, "not_finite", ErrorCode::NotFinite),
        (frame(2, 6, &values), "session", ErrorCode::BadMessage),
        (with(8, 8), "policy", ErrorCode::UnknownPolicy),
        (frame(1, 7, &values), "future", ErrorCode::OutOfRange),
        (frame(1, u32::MAX, &values), "future", ErrorCode::OutOfRange),
        (frame(1, 2, &values), "stale", ErrorCode::OutOfRange),
        (frame(1, 0, &values), "stale", ErrorCode::OutOfRange),
    ] {
        let refusal = hub.take(&session, POLICY, &bytes, 1.0, 0).unwrap_err();
        assert_eq!((refusal.name(), refusal.error().code), (reason, code), "{refusal}");
        assert!(!refusal.ends());
    }
    assert_eq!(state(&mut hub), before);
    let (name, counts) = hub.counts().next().unwrap();
    assert_eq!((name, counts.applied, counts.stale, counts.refused), ("a", 5, 2, 12));
    assert_eq!(hub.take(&session, POLICY, &frame(1, 4, &values), 1.0, 0).unwrap(), 2);
}

#[test]
fn a_later_session_takes_over_and_a_place_is_free_again() {
    let mut hub = hub(100_000);
    let (first, _) = hub.join(&info(&hub, "a")).unwrap();
    let (second, _) = hub.join(&info(&hub, "a")).unwrap();
    let values = vec![0.1; hub.parameters()];
    let refusal = hub.take(&first, POLICY, &frame(first.number, 1, &values), 1.0, 0).unwrap_err();
    assert!(refusal.ends() && refusal.error().code == ErrorCode::Replaced);
    // The older session's end is not the newer one's.
    hub.leave(&first);
    hub.join(&info(&hub, "b")).unwrap();
    let full = hub.join(&info(&hub, "c")).unwrap_err();
    assert!(matches!(full, Refusal::Full(2)), "{full}");
    hub.take(&second, POLICY, &frame(second.number, 1, &values), 1.0, 0).unwrap();
    hub.leave(&second);
    let (third, _) = hub.join(&info(&hub, "c")).unwrap();
    hub.take(&third, POLICY, &frame(third.number, 2, &values), 1.0, 0).unwrap();
    let counts = hub.counts().find(|(name, _)| *name == "c").unwrap().1;
    assert_eq!((counts.applied, hub.counts().count()), (1, 2), "counts begin anew");
}

#[test]
fn another_agent_is_refused_where_it_differs() {
    let mut hub = hub(100_000);
    let right = info(&hub, "a");
    let mut shorter = right.clone();
    shorter.parameters.pop();
    let mut wider = right.clone();
    wider.parameters[0].shape[0] = 9;
    let named = |worker: &WorkerInfo, hub: &mut Hub| {
        let refusal = hub.join(worker).unwrap_err();
        assert_eq!(refusal.error().code, ErrorCode::BadShape);
        refusal.to_string()
    };
    assert!(named(&shorter, &mut hub).contains("got one with 5 tensors"));
    assert!(named(&wider, &mut hub).contains("agent.trunk.0.weight [9, 4]"));
    assert_eq!(hub.counts().count(), 0);
    for change in [
        |c: &mut HubConfig| c.workers = 0,
        |c: &mut HubConfig| c.norm = f64::NAN,
        |c: &mut HubConfig| c.student = presets::student(ENVIRONMENT),
    ] {
        let mut config = config(100);
        change(&mut config);
        assert!(Hub::new(&config, &Cpu).is_err());
    }
}

#[test]
fn a_weight_makes_a_gradient_count_less() {
    let moved = |weight: f32| {
        let mut hub = hub(100_000);
        let (session, _) = hub.join(&info(&hub, "a")).unwrap();
        let values = vec![0.1; hub.parameters()];
        hub.take(&session, POLICY, &frame(1, 1, &values), weight, 0).unwrap();
        let tensors = hub.student.trainer().learner().engine().state().unwrap();
        tensors.iter().find(|tensor| tensor.name == "adam.m.agent.policy.0.bias").unwrap().values[0]
    };
    assert!((moved(0.25) / moved(1.0) - 0.25).abs() < 1e-3);
    assert_eq!(moved(7.0), moved(1.0));
    assert_eq!(moved(f32::NAN), 0.0);
}

/// The run is over after its steps; its checkpoint continues with more.
#[test]
fn a_run_ends_and_continues_from_its_checkpoint() {
    let mut first = hub(60);
    let (session, _) = first.join(&info(&first, "a")).unwrap();
    let values = vec![0.1; first.parameters()];
    for version in 1..=3 {
        first.take(&session, POLICY, &frame(1, version, &values), 1.0, 0).unwrap();
    }
    let over = first.take(&session, POLICY, &frame(1, 4, &values), 1.0, 0).unwrap_err();
    assert!(matches!(over, Refusal::Over(60)) && over.ends());
    assert!(matches!(first.join(&info(&first, "b")), Err(Refusal::Over(60))));
    let file = first.save().unwrap();
    let mut second = hub(120);
    second.load(&file).unwrap();
    assert_eq!((second.version(), state(&mut second)), (4, state(&mut first)));
    assert!(second.load(&file[..file.len() / 2]).is_err());
    let (session, _) = second.join(&info(&second, "a")).unwrap();
    second.take(&session, POLICY, &frame(1, 4, &values), 1.0, 0).unwrap();
}

/// A server in memory.
struct Line {
    hub: Hub,
    session: Option<Session>,
    overload: bool,
}

impl Line {
    /// Carries what the link wants to say, and the answers.
    fn carry(&mut self, link: &mut WorkerLink, now: u64) {
        while let Some(output) = link.poll_output() {
            match output {
                Output::Connect => link.handle(LinkEvent::Connected, now),
                Output::Close(_) => self.session = None,
                Output::Text(text) => self.hear(&text, link, now),
                Output::Binary(frame) => self.take(&frame, link, now),
            }
        }
    }

    fn hear(&mut self, text: &str, link: &mut WorkerLink, now: u64) {
        let ClientMessage::Hello(hello) = ClientMessage::decode(text).unwrap() else { return };
        let formats = hello.formats().unwrap();
        let (session, shared) = match self.hub.join(hello.worker.as_ref().unwrap()) {
            Ok(joined) => joined,
            Err(refusal) => {
                return link.handle(LinkEvent::Text(&ServerMessage::Error(refusal.error()).encode()), now);
            }
        };
        let welcome = Welcome {
            policy: hello.policy,
            policy_id: POLICY,
            version: self.hub.version(),
            max_rows: 1,
            credits: 1,
            dtype: Dtype::F32,
            action_dtype: formats.actions.dtype(),
            action_width: 1,
            grants: vec![Grant::Gradients],
            submit_rows: None,
            order: None,
            teacher: TeacherInfo {
                observation: hello.observation,
                action: hello.action,
                description: String::new(),
            },
            learner: None,
            shared: Some(shared),
            group: None,
        };
        self.session = Some(session);
        link.handle(LinkEvent::Text(&ServerMessage::Welcome(Box::new(welcome)).encode()), now);
        self.push(link, now);
    }

    fn take(&mut self, frame: &[u8], link: &mut WorkerLink, now: u64) {
        let session = self.session.clone().unwrap();
        if std::mem::take(&mut self.overload) {
            let overloaded = Overloaded { request: Some(session.number), retry_ms: 50 };
            return link.handle(LinkEvent::Text(&ServerMessage::Overloaded(overloaded).encode()), now);
        }
        if let Err(refusal) = self.hub.take(&session, POLICY, frame, 1.0, now) {
            let error = refusal.error().about(Some(session.number));
            link.handle(LinkEvent::Text(&ServerMessage::Error(error).encode()), now);
        }
        self.push(link, now);
    }

    fn push(&mut self, link: &mut WorkerLink, now: u64) {
        let mut frame = Vec::new();
        self.hub.weights(self.session.as_ref().unwrap(), POLICY, &mut frame).unwrap();
        link.handle(LinkEvent::Binary(&frame), now);
    }
}

/// Plays a rollout with the parameters that came, and sends its gradients.
fn rollout(student: &mut Student, link: &mut WorkerLink, now: u64) {
    let (version, values) = link.take_parameters().unwrap();
    student.trainer().learner().engine_mut().write_exchanged(values).unwrap();
    student.trainer().learner().hand_over().unwrap();
    let before = student.trainer().updates();
    while student.trainer().updates() == before {
        assert_eq!(student.tick(0).unwrap(), Tick::Stepped);
    }
    let mut gradients = Vec::new();
    student.trainer().learner().engine().gradients(&mut gradients);
    link.send(version, &gradients, now);
}

#[test]
fn a_worker_trains_the_agent_through_its_link() {
    let mut line = Line { hub: hub(100_000), session: None, overload: false };
    let mut student = worker(1);
    let mut link = link_of(&mut student, "pole", "a").unwrap();
    let before = state(&mut line.hub);
    link.connect(0);
    line.carry(&mut link, 0);
    for now in 0..30 {
        rollout(&mut student, &mut link, now);
        line.carry(&mut link, now);
    }
    assert_ne!(state(&mut line.hub), before);
    assert_eq!((line.hub.version(), line.hub.student.trainer().steps()), (31, 600));
    let evaluations = std::iter::from_fn(|| line.hub.next_event());
    assert_eq!(evaluations.filter(|event| matches!(event, Event::Evaluation { .. })).count(), 3);

    // A pause: the same gradient again.
    line.overload = true;
    rollout(&mut student, &mut link, 100);
    line.carry(&mut link, 100);
    assert!(link.take_parameters().is_none());
    assert_eq!(link.wake_at(), Some(150));
    link.handle(LinkEvent::Tick, 150);
    line.carry(&mut link, 150);
    assert_eq!((line.hub.version(), link.stats().overloaded), (32, 1));

    // The connection is lost between fetch and send: the gradient is gone, and nothing else.
    link.handle(LinkEvent::Closed { code: None, reason: "lost" }, 200);
    link.send(32, &vec![0.0; line.hub.parameters()], 201);
    assert!(link.poll_output().is_none());
    let later = link.wake_at().unwrap();
    link.handle(LinkEvent::Tick, later);
    line.carry(&mut link, later);
    rollout(&mut student, &mut link, later);
    line.carry(&mut link, later);
    assert_eq!((line.hub.version(), link.stats().sessions, link.stats().connects), (33, 2, 2));

    // Another worker of the same name takes over.
    let mut other = link_of(&mut student, "pole", "a").unwrap();
    let older = line.session.clone();
    other.connect(later);
    line.carry(&mut other, later);
    line.session = older;
    rollout(&mut student, &mut link, later);
    while let Some(output) = link.poll_output() {
        if let Output::Binary(frame) = output {
            let refusal = line.hub.take(line.session.as_ref().unwrap(), POLICY, &frame, 1.0, 0).unwrap_err();
            link.handle(LinkEvent::Text(&ServerMessage::Error(refusal.error()).encode()), later);
        }
    }
    assert_eq!(
        (link.state(), link.failure().map(|error| error.code)),
        (LinkState::Failed, Some(ErrorCode::Replaced))
    );
}

#[test]
fn a_link_refuses_what_a_server_should_not_send() {
    let mut line = Line { hub: hub(100_000), session: None, overload: false };
    let mut student = worker(1);
    let mut link = link_of(&mut student, "pole", "a").unwrap();
    link.connect(0);
    line.carry(&mut link, 0);
    let held = link.take_parameters().unwrap().1.to_vec();
    let mut good = Vec::new();
    line.hub.weights(line.session.as_ref().unwrap(), POLICY, &mut good).unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    // Before a gradient none are waited for.
    link.handle(LinkEvent::Binary(&good), 0);
    assert_eq!((link.stats().rejected, link.take_parameters().is_none()), (1, true));
    assert_eq!(link.state(), LinkState::Ready);
    // Then: cut off, another session, policy, version 0, not finite.
    let mut nan = good.clone();
    nan[24..28].copy_from_slice(&f32::NAN.to_le_bytes());
    for (i, bytes) in [good[..30].to_vec(), with(4, 77), with(8, 77), with(12, 0), nan].iter().enumerate() {
        let mut link = link_of(&mut student, "pole", "a").unwrap();
        link.connect(0);
        line.carry(&mut link, 0);
        link.take_parameters().unwrap();
        link.send(1, &vec![0.0; held.len()], 0);
        assert!(matches!(link.poll_output(), Some(Output::Binary(_))));
        link.handle(LinkEvent::Binary(bytes), 0);
        let rejected = (link.stats().rejected, link.take_parameters().is_none(), link.state());
        assert_eq!(rejected, (1, true, LinkState::Waiting), "{i}");
    }

    // An agent of other settings: its gradients would be others.
    let mut different = config(100_000);
    different.student.gamma = 0.5;
    let mut line = Line { hub: Hub::new(&different, &Cpu).unwrap(), session: None, overload: false };
    let mut link = link_of(&mut student, "pole", "a").unwrap();
    link.connect(0);
    line.carry(&mut link, 0);
    assert_eq!(link.state(), LinkState::Failed);
    assert!(link.failure().unwrap().message.contains("\"gamma\":0.5"), "{:?}", link.failure());
    assert!(Weights::read(&good, line.hub.parameters()).is_ok());
}

/// What a hostile worker makes of its gradients.
#[derive(Clone, Copy, Debug)]
enum Hostile {
    Flipped,
    Random,
}

/// The final return of an agent that ten workers train, the last of them hostile if there is a hostility. Each worker's gradients are nine
/// updates old.
fn trained(seed: u64, hostile: Option<Hostile>, norm: f64) -> f64 {
    let usual = presets::learner(ENVIRONMENT, &AdvantageActorCritic);
    let evaluation = EvaluationConfig { every: usual.steps, episodes: 10 };
    let student = StudentConfig { seed, evaluation, ..usual };
    let config = HubConfig { norm, ..HubConfig::new(ENVIRONMENT, student) };
    let mut hub = Hub::new(&config, &Cpu).unwrap();
    let rng = &mut oto_env::rng::Rng::new(seed);
    let mut workers = (0..10)
        .map(|i| {
            let own =
                StudentConfig { seed: seed + 1000 * (i + 1), steps: u64::MAX, ..config.student.clone() };
            let own = StudentConfig { evaluation: EvaluationConfig { every: 0, episodes: 1 }, ..own };
            let environment = environments::of_student(ENVIRONMENT, &own).unwrap();
            let student = Student::of(Part::Worker, &own, environment, &[], &Cpu, 0).unwrap();
            let (session, _) = hub.join(&info(&hub, &format!("{i}"))).unwrap();
            (student, session, hub.version(), hub.values())
        })
        .collect::<Vec<_>>();
    let (mut gradients, mut frame) = (Vec::new(), Vec::new());
    loop {
        for (i, (student, session, version, values)) in workers.iter_mut().enumerate() {
            student.trainer().learner().engine_mut().write_exchanged(values).unwrap();
            student.trainer().learner().hand_over().unwrap();
            let before = student.trainer().updates();
            while student.trainer().updates() == before {
                student.tick(0).unwrap();
            }
            student.trainer().learner().engine().gradients(&mut gradients);
            match hostile.filter(|_| i == 9) {
                None => {}
                Some(Hostile::Flipped) => gradients.iter_mut().for_each(|x| *x *= -1000.0),
                Some(Hostile::Random) => gradients.iter_mut().for_each(|x| *x = 1000.0 * rng.normal() as f32),
            }
            let ids = Ids { request: session.number, policy: POLICY, version: *version };
            write_gradients(ids, &gradients, &mut frame).unwrap();
            match hub.take(session, POLICY, &frame, 1.0, 0) {
                Ok(_) => (*version, *values) = (hub.version(), hub.values()),
                Err(Refusal::Over(_)) => return hub.student.metrics(0).last_evaluation.unwrap(),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

impl Hub {
    /// The parameters now.
    fn values(&mut self) -> Vec<f32> {
        let mut values = Vec::new();
        self.shared.fetch(self.student.trainer().learner(), &mut values).unwrap();
        values
    }
}

#[test]
fn one_hostile_worker_in_ten_does_not_keep_the_agent_from_learning() {
    let score = trained(1, Some(Hostile::Flipped), 2.0);
    assert!(score > 400.0, "{score}");
}

/// `cargo test -p oto-agent --release --lib -- --ignored hostile_workers --nocapture`
#[test]
#[ignore = "an experiment: five seeds of six arms"]
fn hostile_workers() {
    for norm in [2.0, 1e9] {
        for hostile in [None, Some(Hostile::Flipped), Some(Hostile::Random)] {
            let scores = (101..106).map(|seed| trained(seed, hostile, norm)).collect::<Vec<_>>();
            println!("norm {norm}, {hostile:?}: {scores:?}");
        }
    }
}

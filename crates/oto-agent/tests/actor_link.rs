//! What an actor's link and a learner's session refuse, and that a refusal disturbs nothing.

use crate::allocations::allocations;
use oto_agent::actor::buffer::DoubleBuffer;
use oto_agent::actor::decide::{Decider, Equipment, actions, network};
use oto_agent::actor::explore::{Exploration, Explorer};
use oto_agent::actor::real_time::{Loop, Waiter};
use oto_agent::actor::ring::ring;
use oto_agent::actor::{ActorConfig, ActorLink, Recorder};
use oto_agent::learner::session::{Edge, LearnerSession, Offer, Refusal};
use oto_agent::link::{Event, LinkState, Output};
use oto_env::Environment;
use oto_proto::message::{Applied, Dropped, Refused};
use oto_proto::weights::{Activation, Output as Squash, write_complete, write_delta};
use oto_proto::{
    ActorInfo, ClientMessage, Dtype, Encoding, ErrorCode, ErrorMessage, Flags, FrameError, Grant, Hello, Ids,
    LearnerInfo, Model, RowFormat, ServerMessage, Space, StreamId, TeacherInfo, WeightsReason, Welcome,
};
use std::sync::atomic::{AtomicBool, Ordering};

const POLICY: u32 = 3;
const PARAMETERS: usize = 3;

fn actor(version: u32) -> ActorInfo {
    let weights = vec![Encoding::Delta, Encoding::F32];
    ActorInfo { name: "crane".into(), stream: StreamId(9), first: 0, weights, version }
}

fn hello() -> Hello {
    Hello {
        protocol: oto_proto::PROTOCOL.into(),
        policy: "swing".into(),
        student: "test".into(),
        observation: Space::Box { low: vec![f32::NEG_INFINITY; 2], high: vec![f32::INFINITY; 2] },
        action: Space::Box { low: vec![-1.0], high: vec![1.0] },
        adapter: None,
        dtype: Dtype::F32,
        action_dtype: None,
        quantization: None,
        grants: vec![Grant::Transitions, Grant::Weights],
        stage: None,
        order: None,
        ticket: None,
        actor: Some(actor(0)),
        worker: None,
        member: None,
    }
}

fn format() -> RowFormat {
    RowFormat::new(&hello().formats().unwrap(), &hello().action)
}

fn offer() -> Offer {
    let model = Model::mlp(vec![2, 1], Activation::Relu, Squash::Tanh);
    Offer { policy: POLICY, model, max_rows: 8, ring: 10, hz: Some(30.0) }
}

fn session() -> LearnerSession {
    LearnerSession::open(&actor(0), format(), Edge::default(), offer(), 5).0
}

/// A frame of rows whose observations are their numbers.
fn rows(ids: Ids, first: u64, count: usize) -> Vec<u8> {
    let (format, mut bytes, mut row, mut frame) = (format(), Vec::new(), Vec::new(), Vec::new());
    for sequence in first..first + count as u64 {
        format.encode(&[sequence as f32, 0.5], &[0.25], Flags::NONE, &mut row).unwrap();
        bytes.extend_from_slice(&row);
    }
    format.write(ids, first, &bytes, &mut frame).unwrap();
    frame
}

const IDS: Ids = Ids { request: 1, policy: POLICY, version: 0 };

#[test]
fn a_session_refuses_rows_that_do_not_follow_and_takes_each_once() {
    let mut session = session();
    let (mut nan, mut cut) = (rows(IDS, 0, 2), rows(IDS, 0, 2));
    nan[24..28].copy_from_slice(&f32::NAN.to_le_bytes());
    cut.pop();
    let cases = [
        (nan, ErrorCode::NotFinite),
        (cut, ErrorCode::BadShape),
        (rows(IDS, 0, 9), ErrorCode::TooLarge),
        (rows(Ids { request: 0, ..IDS }, 0, 2), ErrorCode::Replaced),
        (rows(Ids { request: 2, ..IDS }, 0, 2), ErrorCode::BadMessage),
        (rows(Ids { policy: 4, ..IDS }, 0, 2), ErrorCode::UnknownPolicy),
        (rows(Ids { version: 1, ..IDS }, 0, 2), ErrorCode::BadMessage),
        (rows(IDS, 1, 2), ErrorCode::OutOfOrder),
        (rows(IDS, 1 << 40, 2), ErrorCode::OutOfOrder),
    ];
    for (frame, code) in &cases {
        assert_eq!(session.frame(frame).map(|_| ()).unwrap_err().error().code, *code);
        assert_eq!((session.next(), session.acknowledged()), (0, 0));
    }
    let read = |session: &mut LearnerSession, frame: &[u8]| {
        let accepted = session.frame(frame)?;
        Ok::<_, Refusal>(accepted.rows().map(|row| (row.sequence, row.observation[0])).collect::<Vec<_>>())
    };
    assert_eq!(read(&mut session, &rows(IDS, 0, 3)), Ok(vec![(0, 0.0), (1, 1.0), (2, 2.0)]));
    assert_eq!(read(&mut session, &rows(IDS, 0, 3)), Ok(vec![]), "they came before");
    assert_eq!(read(&mut session, &rows(IDS, 1, 3)), Ok(vec![(3, 3.0)]), "one of them is new");
    assert_eq!(read(&mut session, &rows(IDS, 4, 6)).map(|rows| rows.len()), Ok(6));
    let beyond = read(&mut session, &rows(IDS, 10, 1));
    assert_eq!(beyond, Err(Refusal::BeyondRing { end: 11, acknowledged: 0, ring: 10 }));
    session.acknowledge(5);
    assert_eq!(read(&mut session, &rows(IDS, 10, 1)), Ok(vec![(10, 10.0)]));
    session.acknowledge(u64::MAX);
    assert_eq!(session.acknowledged(), 11, "no more than came");
    let stats = session.stats();
    assert_eq!((stats.rows, stats.duplicates, stats.refused), (11, 5, cases.len() as u64 + 1));
}

#[test]
fn rows_that_the_edge_lost_are_a_gap_and_nothing_else_is() {
    let mut session = session();
    assert_eq!(session.frame(&rows(IDS, 0, 2)).map(|accepted| accepted.missed), Ok(0));
    session.message(&ClientMessage::Dropped(Dropped { first: 7 })).unwrap();
    session.message(&ClientMessage::Dropped(Dropped { first: 6 })).unwrap();
    assert!(
        session.frame(&rows(IDS, 2, 2)).is_ok_and(|accepted| accepted.is_empty()),
        "given up by its edge"
    );
    let accepted = session.frame(&rows(IDS, 7, 1)).unwrap();
    assert_eq!((accepted.first, accepted.missed, accepted.len()), (7, 5, 1));
    assert_eq!(session.progress().missed, 5);

    // A learner that was killed goes on from what it saved; the edge may have lost more meanwhile.
    let progress = session.progress();
    let later = ActorInfo { first: 10, ..actor(0) };
    let (mut next, info) = LearnerSession::open(&later, format(), Edge::resumed(progress), offer(), 5);
    assert_eq!((info.session, info.next, next.progress().missed), (2, 10, 7));
    let accepted = next.frame(&rows(Ids { request: 2, ..IDS }, 10, 1)).unwrap();
    assert_eq!((accepted.first, accepted.missed), (10, 2));
}

#[test]
fn a_newer_session_takes_over_and_the_older_one_is_refused() {
    let mut old = session();
    assert!(old.frame(&rows(IDS, 0, 3)).is_ok());
    let (mut new, info) = LearnerSession::open(&actor(0), format(), old.replace(), offer(), 5);
    assert_eq!((info.session, info.next), (2, 3));
    assert_eq!(old.frame(&rows(IDS, 3, 1)).map(|_| ()), Err(Refusal::Replaced(1)));
    assert_eq!(old.message(&ClientMessage::Dropped(Dropped { first: 9 })), Err(Refusal::Replaced(1)));
    assert_eq!((old.push(9, &[0.0; PARAMETERS]), old.received()), (Ok(None), None));
    let late = new.frame(&rows(IDS, 3, 1)).map(|_| ()).unwrap_err();
    assert_eq!(late.error().code, ErrorCode::Replaced);
    assert!(new.frame(&rows(Ids { request: 2, ..IDS }, 3, 1)).is_ok());
}

#[test]
fn one_push_is_in_flight_and_complete_weights_follow_a_refusal() {
    let mut session = session();
    let version = |frame: &[u8]| u32::from_le_bytes(frame[12..16].try_into().unwrap());
    let base = |frame: &[u8]| u32::from_le_bytes(frame[16..20].try_into().unwrap());
    assert!(session.push(5, &[f32::NAN; PARAMETERS]).is_err() && session.push(5, &[0.0; 9]).is_err());
    let first = session.push(5, &[0.1, 0.2, 0.3]).unwrap().expect("the first weights");
    assert_eq!((version(&first), base(&first)), (5, 0));
    assert_eq!(session.push(6, &[0.2; PARAMETERS]), Ok(None), "one is in flight");
    let early = session.message(&ClientMessage::Applied(Applied { version: 6 }));
    assert_eq!(early, Err(Refusal::Version { newest: 5, found: 6 }));
    session.message(&ClientMessage::Applied(Applied { version: 5 })).unwrap();
    assert_eq!(session.acting(), 5);
    assert_eq!(session.push(5, &[0.2; PARAMETERS]), Ok(None), "the actor has them");
    let second = session.push(6, &[0.2; PARAMETERS]).unwrap().expect("newer weights");
    assert_eq!((version(&second), base(&second)), (6, 5));
    let refused = Refused { version: 6, reason: WeightsReason::MissingBase };
    session.message(&ClientMessage::Refused(refused)).unwrap();
    let again = session.push(6, &[0.2; PARAMETERS]).unwrap().expect("complete ones");
    assert_eq!((version(&again), base(&again)), (7, 0));
    // The learner forgets: it goes on above what the actor holds, and keeps its own numbers.
    let (mut next, _) = LearnerSession::open(&actor(7), format(), Edge::default(), offer(), 2);
    assert_eq!((next.acting(), next.push_due(2)), (2, false));
    let frame = next.push(3, &[0.4; PARAMETERS]).unwrap().expect("newer weights");
    assert_eq!((version(&frame), base(&frame)), (8, 0));
    let ids = Ids { version: 8, ..IDS };
    assert_eq!(next.frame(&rows(ids, 0, 1)).map(|accepted| accepted.version), Ok(3));
}

/// A link that was welcomed, with what it said drained.
fn welcomed() -> (ActorLink, Recorder) {
    let (recorder, reader) = ring(format(), 16);
    let mut link = ActorLink::new(ActorConfig::new(hello()), reader).unwrap();
    link.connect(0);
    link.handle(Event::Connected, 0);
    link.handle(Event::Text(&ServerMessage::Welcome(Box::new(welcome())).encode()), 1);
    assert_eq!(link.state(), LinkState::Ready, "{:?}", link.problem());
    while link.poll_output().is_some() {}
    (link, recorder)
}

fn welcome() -> Welcome {
    let Offer { policy, model, max_rows, ring, hz } = offer();
    Welcome {
        policy: "swing".into(),
        policy_id: policy,
        version: 1,
        max_rows,
        credits: 1,
        dtype: Dtype::F32,
        action_dtype: Dtype::F32,
        action_width: 1,
        grants: vec![Grant::Transitions, Grant::Weights],
        submit_rows: None,
        order: None,
        teacher: TeacherInfo {
            observation: hello().observation,
            action: hello().action,
            description: "".into(),
        },
        shared: None,
        group: None,
        learner: Some(LearnerInfo {
            session: 1,
            next: 0,
            ring,
            weights: Encoding::Delta,
            model,
            hz,
            exploration: None,
        }),
    }
}

/// What a link says next.
fn said(link: &mut ActorLink) -> Option<ClientMessage> {
    match link.poll_output()? {
        Output::Text(text) => Some(ClientMessage::decode(&text).unwrap()),
        other => panic!("expected a text, got {other:?}"),
    }
}

#[test]
fn an_actor_refuses_wrong_weights_and_keeps_the_last_good_ones() {
    let (mut link, _recorder) = welcomed();
    let complete = |ids: Ids, weights: &[f32]| {
        let mut frame = Vec::new();
        write_complete(ids, Encoding::F32, weights, &mut frame).unwrap();
        frame
    };
    let good = complete(Ids { version: 4, ..IDS }, &[1.0, 2.0, 3.0]);
    link.handle(Event::Binary(&good), 2);
    assert_eq!(link.take_weights(), Some((4, &[1.0, 2.0, 3.0][..])));
    link.applied(4);
    assert_eq!(said(&mut link), Some(ClientMessage::Applied(Applied { version: 4 })));

    let newer = Ids { version: 9, ..IDS };
    let mut nan = complete(newer, &[1.0, 2.0, 3.0]);
    nan[24..28].copy_from_slice(&f32::NAN.to_le_bytes());
    let (mut cut, mut base) = (complete(newer, &[1.0; 3]), Vec::new());
    cut.pop();
    write_delta(newer, 3, &mut [0.0; 3], &[1.0; 3], &mut base).unwrap();
    let mut spoilt = Vec::new();
    write_delta(newer, 4, &mut [0.0; 3], &[1.0; 3], &mut spoilt).unwrap();
    spoilt.truncate(spoilt.len() - 1);
    let cases = [
        (nan, WeightsReason::NotFinite),
        (cut, WeightsReason::WrongLength),
        (base, WeightsReason::MissingBase),
        (spoilt, WeightsReason::Corrupt),
        (complete(newer, &[1.0; 4]), WeightsReason::WrongLength),
        (complete(Ids { request: 2, ..newer }, &[1.0; 3]), WeightsReason::BadFrame),
    ];
    for (frame, reason) in cases {
        link.handle(Event::Binary(&frame), 3);
        assert_eq!(said(&mut link), Some(ClientMessage::Refused(Refused { version: 9, reason })));
        assert_eq!(link.take_weights(), None);
        assert_eq!((link.version(), link.state()), (4, LinkState::Ready));
    }
    link.handle(Event::Binary(&good), 3);
    let stale = Refused { version: 4, reason: WeightsReason::Stale };
    assert_eq!(said(&mut link), Some(ClientMessage::Refused(stale)));
    let mut delta = Vec::new();
    let mut there = [1.0, 2.0, 3.0];
    write_delta(newer, 4, &mut there, &[1.5, 2.0, 2.5], &mut delta).unwrap();
    link.handle(Event::Binary(&delta), 4);
    assert_eq!(link.take_weights(), Some((9, &there[..])));
}

#[test]
fn a_welcome_that_an_actor_cannot_use_ends_the_link_or_the_connection() {
    let learner = || welcome().learner.unwrap();
    let wide = Model::mlp(vec![2, 65_536, 65_536, 1], Activation::Relu, Squash::Tanh);
    let two = Model::mlp(vec![2, 2], Activation::Relu, Squash::Tanh);
    let with = |learner: LearnerInfo| Welcome { learner: Some(learner), ..welcome() };
    let cases = [
        (Welcome { grants: vec![Grant::Weights], ..welcome() }, LinkState::Failed),
        (Welcome { grants: vec![Grant::Actions], learner: None, ..welcome() }, LinkState::Failed),
        (with(LearnerInfo { next: 1, ..learner() }), LinkState::Waiting),
        (with(LearnerInfo { session: 0, ..learner() }), LinkState::Waiting),
        (with(LearnerInfo { ring: 0, ..learner() }), LinkState::Waiting),
        (with(LearnerInfo { model: wide, ..learner() }), LinkState::Waiting),
        (with(LearnerInfo { model: two, ..learner() }), LinkState::Waiting),
        (with(LearnerInfo { weights: Encoding::F16, ..learner() }), LinkState::Waiting),
    ];
    for (welcome, state) in cases {
        let (_recorder, reader) = ring(format(), 16);
        let mut link = ActorLink::new(ActorConfig::new(hello()), reader).unwrap();
        link.connect(0);
        link.handle(Event::Connected, 0);
        link.handle(Event::Text(&ServerMessage::Welcome(Box::new(welcome.clone())).encode()), 1);
        assert_eq!(link.state(), state, "{welcome:?}");
    }
}

#[test]
fn refused_rows_are_sent_again_and_a_full_ring_says_what_is_lost() {
    let (mut link, mut recorder) = welcomed();
    let mut record = |count: u64| {
        for i in 0..count {
            recorder.record(&[i as f32, 0.0], &[0.0], Flags::NONE, 0).unwrap();
        }
    };
    record(3);
    link.handle(Event::Tick, 100);
    let Some(Output::Binary(frame)) = link.poll_output() else { panic!("expected rows") };
    assert_eq!(format().decode(&frame, 8).map(|rows| (rows.first(), rows.rows())), Ok((0, 3)));
    let error = ErrorMessage::new(ErrorCode::OutOfOrder, "expected row 0, got row 9").about(Some(1));
    link.handle(Event::Text(&ServerMessage::Error(error).encode()), 110);
    link.handle(Event::Tick, 400);
    let Some(Output::Binary(again)) = link.poll_output() else { panic!("expected rows") };
    assert_eq!(frame, again);
    // The learner is silent about the first rows, and the ring of 16 overflows: nothing is sent beyond the window of 10.
    record(30);
    link.handle(Event::Tick, 500);
    assert_eq!(link.poll_output(), None);
    link.handle(Event::Text(r#"{"type":"received","next":3}"#), 600);
    assert_eq!(said(&mut link), Some(ClientMessage::Dropped(Dropped { first: 17 })));
    link.handle(Event::Text(r#"{"type":"received","next":17}"#), 700);
    let Some(Output::Binary(frame)) = link.poll_output() else { panic!("expected rows") };
    assert_eq!(format().decode(&frame, 8).map(|rows| (rows.first(), rows.rows())), Ok((17, 8)));
    assert_eq!((link.stats().rows_dropped, link.backlog()), (14, 16));
    assert!(matches!(format().decode(&frame, 7), Err(FrameError::TooManyRows { .. })));
}

/// All that the control loop does in a step, while another thread writes weights as fast as they are put to use.
#[test]
fn a_step_of_the_control_loop_allocates_nothing() {
    let mut env = oto_env::make("CartPoleSwingUpPlant-v0?wild=0.1").unwrap();
    let (space, mut observation) = (env.action_space().clone(), vec![0.0; 10]);
    let hello = Hello { observation: env.observation_space().clone(), action: space.clone(), ..hello() };
    let (mut recorder, _reader) = ring(RowFormat::new(&hello.formats().unwrap(), &space), 100);
    let model = Model::mlp(vec![10, 32, 1], Activation::Relu, Squash::Tanh);
    let (acting, mut writing) = DoubleBuffer::new(network(&model)).split();
    let mut weights = vec![0.1; model.parameters as usize];
    writing.write(1, &weights).unwrap();
    let mut decider = Decider::new(space.clone(), None).unwrap();
    let exploration: Exploration = oto_json::read(r#"{"epsilon":0.1,"noise":0.3,"correlation":6}"#).unwrap();
    let explorer = Explorer::new(exploration, actions(&space), 1);
    decider.equip(Equipment { acting, output: model.output, explorer, period: None });
    let stop = AtomicBool::new(false);
    let (mut waiter, mut allocated, mut swaps, mut rounds) = (Waiter::default(), 0, 0, 0);
    let mut beat = Loop::new(20_000, waiter.now());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut version = 2;
            while !stop.load(Ordering::Relaxed) {
                weights.fill(0.001 * (version % 7) as f32);
                match writing.write(version, &weights) {
                    Ok(()) => version += 1,
                    Err(_) => std::thread::yield_now(),
                }
            }
        });
        let mut episode = |env: &mut dyn Environment, steps: usize| {
            env.reset(None, &mut observation).unwrap();
            decider.begin();
            let before = allocations();
            let (mut flags, mut swaps) = (Flags::FIRST, 0);
            for _ in 0..steps {
                beat.begin(waiter.until(beat.deadline()));
                swaps += usize::from(decider.swap().is_some());
                decider.decide(&observation, true);
                recorder.record(&observation, decider.action(), flags, decider.version()).unwrap();
                let start = waiter.now();
                let step = env.step(decider.environment_action(), &mut observation).unwrap();
                beat.plant_took(waiter.now() - start);
                flags = oto_agent::actor::control::faulty(&*env);
                if step.done() {
                    break;
                }
            }
            (allocations() - before, swaps)
        };
        // The process of correlated noise is made in the first step.
        episode(&mut *env, 2);
        for _ in 0..10_000 {
            let (more, new) = episode(&mut *env, 200);
            allocated += more;
            swaps += new;
            rounds += 1;
            if swaps > 10 && rounds >= 20 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(allocated, 0);
    assert!(swaps > 10 && recorder.faulty() > 10, "{swaps} swaps, {} faulty rows", recorder.faulty());
}

//! A group and its members, without a network.

use super::*;
use crate::link::{Conversation, Event, LinkState, Output};
use crate::peer::link::{Answer, PeerLink};
use oto_proto::{ClientMessage, Grant, Hello, PROTOCOL, TeacherInfo, Welcome};

fn space(width: usize) -> Space {
    Space::uniform(width, f32::NEG_INFINITY, f32::INFINITY)
}

pub(super) fn hello(name: &str, width: usize, actions: u32, channel: u32) -> Hello {
    Hello {
        order: None,
        protocol: PROTOCOL.into(),
        policy: "games".into(),
        student: name.into(),
        observation: space(width),
        action: Space::Discrete { n: actions },
        adapter: None,
        dtype: Dtype::F32,
        action_dtype: None,
        quantization: None,
        grants: vec![Grant::PeerLogits],
        stage: None,
        ticket: None,
        actor: None,
        worker: None,
        member: Some(MemberInfo { name: name.into(), channel }),
    }
}

pub(super) fn welcome(hello: &Hello, group: GroupInfo) -> Welcome {
    let formats = hello.formats().unwrap();
    Welcome {
        order: None,
        policy: hello.policy.clone(),
        policy_id: 1,
        version: 1,
        max_rows: Group::max_rows(formats.states.width()) as u16,
        credits: CREDITS,
        dtype: Dtype::F32,
        action_dtype: formats.actions.dtype(),
        action_width: 1,
        grants: vec![Grant::PeerLogits],
        submit_rows: None,
        teacher: TeacherInfo {
            observation: hello.observation.clone(),
            action: hello.action.clone(),
            description: String::new(),
        },
        learner: None,
        shared: None,
        group: Some(group),
    }
}

fn join(group: &mut Group, hello: &Hello) -> Result<u32, Refusal> {
    let (member, states) = (hello.member.clone().unwrap(), hello.formats().unwrap().states);
    group.join(&member, states, &hello.action, 0).map(|(info, _)| info.session)
}

fn group(config: GroupConfig) -> Group {
    Group::new(config).unwrap()
}

fn peers(group: &mut Group, session: u32) -> Vec<(u32, String, u32)> {
    match group.next(session) {
        Some(Said::Message(ServerMessage::Peers(peers))) => {
            peers.teachers.into_iter().map(|peer| (peer.session, peer.name, peer.actions)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn states(width: usize, request: u32, to: u32, rows: &[f32]) -> Vec<u8> {
    let format = StateFormat::new(&space(width), Dtype::F32, None).unwrap();
    let mut frame = Vec::new();
    let mut writer = format.writer(Ids { request, policy: to, version: 0 }, &mut frame);
    rows.chunks(width).for_each(|row| writer.state(row).unwrap());
    writer.finish().unwrap();
    frame
}

fn logits(request: u32, to: u32, actions: usize, values: &[f32]) -> Vec<u8> {
    let mut frame = Vec::new();
    oto_proto::logits::write_logits(Ids { request, policy: to, version: 3 }, values, actions, &mut frame)
        .unwrap();
    frame
}

fn frame(said: Option<Said>) -> Vec<u8> {
    match said {
        Some(Said::Frame(frame)) => frame,
        other => panic!("{other:?}"),
    }
}

fn error(said: Option<Said>) -> ErrorMessage {
    match said {
        Some(Said::Message(ServerMessage::Error(error))) => error,
        other => panic!("{other:?}"),
    }
}

/// Two members of other sizes: each hears of the other, states go over with zeros in the missing channel, logits come back.
#[test]
fn states_go_to_a_member_and_logits_come_back() {
    let mut group = group(GroupConfig::default());
    let a = join(&mut group, &hello("a", 4, 2, 2)).unwrap();
    assert_eq!(peers(&mut group, a), []);
    let b = join(&mut group, &hello("b", 6, 3, 2)).unwrap();
    assert_eq!(peers(&mut group, a), [(b, "b".into(), 3)]);
    // The states of b have a channel more than a sees.
    assert_eq!(peers(&mut group, b), []);
    let asked = group.ask(a, &states(4, 7, b, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), 0).unwrap();
    assert_eq!(asked, Passed { to: b, rows: 2 });
    let question = frame(group.next(b));
    let expected = states(6, 0, a, &[1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 5.0, 6.0, 7.0, 8.0, 0.0, 0.0]);
    assert_eq!(question, expected);
    let answer = logits(0, a, 3, &[0.5; 6]);
    assert_eq!(group.answer(b, &answer).unwrap(), Passed { to: a, rows: 2 });
    assert_eq!(frame(group.next(a)), logits(7, b, 3, &[0.5; 6]));
    assert_eq!(group.answer(b, &answer), Err(Refusal::Unasked(0)), "once");
    assert!(group.next(a).is_none() && group.next(b).is_none());
}

#[test]
fn frames_that_do_not_fit_are_refused_and_the_one_that_asked_is_told() {
    let mut group = group(GroupConfig::default());
    let (a, b) =
        (join(&mut group, &hello("a", 1, 2, 0)).unwrap(), join(&mut group, &hello("b", 1, 3, 0)).unwrap());
    let c = join(&mut group, &hello("c", 5, 3, 0)).unwrap();
    peers(&mut group, a);
    peers(&mut group, b);
    peers(&mut group, c);
    let mut nan = states(1, 1, b, &[1.0]);
    nan[16..20].copy_from_slice(&f32::NAN.to_le_bytes());
    for (bad, name) in [
        (states(1, 1, 99, &[1.0]), "stranger"),
        (states(1, 1, a, &[1.0]), "stranger"),
        (states(1, 1, c, &[1.0]), "stranger"),
        (states(2, 1, b, &[1.0, 2.0]), "wrong_length"),
        (states(1, 1, b, &vec![1.0; 257]), "too_many_rows"),
        (nan, "not_finite"),
        (logits(1, b, 2, &[1.0, 2.0])[..10].to_vec(), "too_short"),
    ] {
        assert_eq!(group.ask(a, &bad, 0).unwrap_err().name(), name);
    }
    let mut infinite = logits(0, a, 3, &[0.5; 3]);
    infinite[16..20].copy_from_slice(&f32::INFINITY.to_le_bytes());
    for (i, (bad, name)) in [
        (logits(0, a, 2, &[0.5; 2]), "wrong_length"),
        (infinite, "not_finite"),
        (logits(0, a, 3, &[0.5; 6]), "rows"),
        (logits(0, c, 3, &[0.5; 3]), "stranger"),
        (states(3, 0, a, &[0.5; 3]), "wrong_kind"),
    ]
    .into_iter()
    .enumerate()
    {
        group.ask(a, &states(1, 40 + i as u32, b, &[1.0]), 0).unwrap();
        let number = oto_proto::Header::request_of(&frame(group.next(b))).unwrap();
        let mut bad = bad;
        bad[4..8].copy_from_slice(&number.to_le_bytes());
        assert_eq!(group.answer(b, &bad).unwrap_err().name(), name);
        let told = error(group.next(a));
        assert_eq!((told.code, told.request), (ErrorCode::PolicyFailed, Some(40 + i as u32)));
    }
    assert_eq!(group.answer(b, &logits(77, a, 3, &[0.5; 3])).unwrap_err(), Refusal::Unasked(77));
    assert_eq!(group.answer(99, &[]).unwrap_err(), Refusal::Replaced(99));
}

#[test]
fn a_group_has_bounds() {
    let config = GroupConfig { members: 2, states_per_second: 100.0, teaches: None };
    let mut group = group(config.clone());
    let a = join(&mut group, &hello("a", 1, 2, 0)).unwrap();
    let b = join(&mut group, &hello("b", 1, 2, 0)).unwrap();
    assert_eq!(join(&mut group, &hello("c", 1, 2, 0)), Err(Refusal::Full(2)));
    // The same name takes over, also in a full group.
    let newer = join(&mut group, &hello("a", 1, 2, 0)).unwrap();
    assert!(!group.has(a) && group.has(newer) && group.len() == 2);
    assert_eq!(group.ask(a, &states(1, 1, b, &[1.0]), 0), Err(Refusal::Replaced(a)));
    let a = newer;
    // A second's worth at once, then the rate.
    group.ask(a, &states(1, 1, b, &[1.0; 100]), 0).unwrap();
    let refusal = group.ask(a, &states(1, 2, b, &[1.0]), 0).unwrap_err();
    assert_eq!((refusal.name(), refusal.retry_ms()), ("quota", Some(10)));
    group.ask(a, &states(1, 2, b, &[1.0]), 10).unwrap();
    // At most this number of questions without an answer, until one is given up.
    for i in 3..=u32::from(CREDITS) {
        group.ask(a, &states(1, i, b, &[1.0]), 1_000).unwrap();
    }
    assert_eq!(group.ask(a, &states(1, 50, b, &[1.0]), 1_000), Err(Refusal::Credits));
    group.ask(a, &states(1, 50, b, &[1.0]), 10_001).unwrap();
    peers(&mut group, a);
    peers(&mut group, b);
    let late = error(group.next(a));
    assert_eq!((late.code, late.request), (ErrorCode::Timeout, Some(1)));
    for (bad, name) in [
        (hello("d", 1, 5000, 0), "actions"),
        (hello("d", 5, 2, 2), "observation"),
        (hello("d", 60_000, 2, 0), "full"),
        (Hello { action: space(2), ..hello("d", 1, 2, 0) }, "actions"),
        (Hello { dtype: Dtype::F16, ..hello("d", 1, 2, 0) }, "dtype"),
    ] {
        assert_eq!(join(&mut group, &bad).unwrap_err().name(), name);
    }
    for (config, part) in [
        (GroupConfig { members: 1, ..config.clone() }, "members"),
        (GroupConfig { members: 65, ..config.clone() }, "members"),
        (GroupConfig { states_per_second: f64::NAN, ..config.clone() }, "states_per_second"),
        (GroupConfig { states_per_second: 0.5, ..config }, "states_per_second"),
    ] {
        assert!(Group::new(config).err().unwrap().to_string().contains(part));
    }
}

/// A teacher of wide states holds a bounded number of bytes.
#[test]
fn a_member_is_not_given_more_than_it_may_hold() {
    let mut group = group(GroupConfig { states_per_second: 1e6, ..GroupConfig::default() });
    let a = join(&mut group, &hello("a", 10_000, 2, 0)).unwrap();
    let b = join(&mut group, &hello("b", 10_000, 2, 0)).unwrap();
    let rows = Group::max_rows(10_000);
    assert_eq!(rows, 13);
    let question = states(10_000, 1, b, &vec![0.0; 10_000 * rows]);
    group.ask(a, &question, 0).unwrap();
    group.ask(a, &question, 0).unwrap();
    assert_eq!(group.ask(a, &question, 0), Err(Refusal::Busy));
    group.leave(a);
    let a = join(&mut group, &hello("a", 10_000, 2, 0)).unwrap();
    group.ask(a, &question, 0).unwrap();
}

#[test]
fn who_teaches_whom_is_declared() {
    let teaches = BTreeMap::from([("a".to_owned(), vec!["b".to_owned()])]);
    let mut group = group(GroupConfig { teaches: Some(teaches), ..GroupConfig::default() });
    let (a, b) =
        (join(&mut group, &hello("a", 1, 2, 0)).unwrap(), join(&mut group, &hello("b", 1, 2, 0)).unwrap());
    assert_eq!(peers(&mut group, a), []);
    assert_eq!(peers(&mut group, b), [(a, "a".into(), 2)]);
    assert_eq!(group.ask(a, &states(1, 1, b, &[1.0]), 0), Err(Refusal::Stranger(b)));
    group.ask(b, &states(1, 1, a, &[1.0]), 0).unwrap();
    // A teacher leaves: its student gets the new list of teachers.
    group.leave(a);
    assert_eq!(peers(&mut group, b), []);
    assert_eq!(error(group.next(b)).code, ErrorCode::PolicyFailed);
    group.leave(a);
    assert!(group.has(b));
}

/// A link against a server that is not trusted: wrong answers are counted, cost their question, and end the connection at last.
#[test]
fn a_link_takes_sound_answers_only() {
    let hello = hello("a", 1, 2, 0);
    let open = |now: u64| {
        let mut link = PeerLink::new(hello.clone(), 1).unwrap();
        link.connect(now);
        link.handle(Event::Connected, now);
        let info = GroupInfo { session: 1, states_per_second: 10.0 };
        let text = ServerMessage::Welcome(Box::new(welcome(&hello, info))).encode();
        link.handle(Event::Text(&text), now);
        let teachers = vec![PeerInfo { session: 5, name: "b".into(), actions: 3 }];
        link.handle(Event::Text(&ServerMessage::Peers(Peers { teachers }).encode()), now);
        assert_eq!((link.state(), link.teachers().len()), (LinkState::Ready, 1));
        link
    };
    let mut link = open(0);
    assert!(link.ask(6, &[1.0], 0).is_none() && link.ask(5, &[f32::NAN], 0).is_none());
    assert!(link.ask(5, &[1.0; 257], 0).is_none() && link.ask(5, &[], 0).is_none());
    let request = link.ask(5, &[1.0, 2.0], 0).unwrap();
    link.handle(Event::Binary(&logits(request, 5, 3, &[0.5; 6])), 1);
    assert_eq!(link.take_answer().unwrap().logits.unwrap(), [0.5; 6]);
    let mut nan = logits(0, 5, 3, &[0.5; 6]);
    nan[20..24].copy_from_slice(&f32::NAN.to_le_bytes());
    for bad in [logits(0, 5, 2, &[0.5; 4]), logits(0, 5, 3, &[0.5; 3]), logits(0, 6, 3, &[0.5; 6]), nan] {
        let request = link.ask(5, &[1.0, 2.0], 1).unwrap();
        let mut bad = bad;
        bad[4..8].copy_from_slice(&request.to_le_bytes());
        link.handle(Event::Binary(&bad), 2);
        let Answer { request: about, logits } = link.take_answer().unwrap();
        assert!(about == request && logits.is_none());
    }
    assert_eq!((link.stats().rejected, link.stats().answered, link.stats().lost), (4, 2, 8));
    for _ in 0..4 {
        link.handle(Event::Binary(&logits(999, 5, 3, &[0.5; 6])), 3);
    }
    assert_eq!(link.state(), LinkState::Waiting, "logits of questions that were never asked");

    // Questions without an answer have none after a while; those of a lost connection at once.
    let mut link = open(0);
    for _ in 0..CREDITS {
        link.ask(5, &[1.0], 0).unwrap();
    }
    assert!(!link.has_room(0) && link.ask(5, &[1.0], 0).is_none());
    link.handle(Event::Tick, 15_000);
    assert_eq!(link.stats().lost, u64::from(CREDITS));
    link.ask(5, &[1.0], 15_000).unwrap();
    link.handle(Event::Closed { code: None, reason: "" }, 15_001);
    assert_eq!((link.stats().lost, link.teachers().len()), (u64::from(CREDITS) + 1, 0));

    // It holds a bounded number of others' questions.
    let mut link = open(0);
    for i in 0..100 {
        link.handle(Event::Binary(&states(1, i, 5, &[1.0])), 0);
    }
    assert_eq!((link.stats().questions, link.stats().dropped), (100, 68));
    let mut answered = 0;
    while let Some(question) = link.take_question() {
        link.reply(&question, &[0.0, f32::NAN], 1);
        link.reply(&question, &[0.0, 1.0], 1);
        answered += 1;
    }
    assert_eq!((answered, link.stats().taught), (32, 32));
    link.disconnect();
    let mut last = None;
    while let Some(output) = link.poll_output() {
        if let Output::Text(text) = &output {
            last = ClientMessage::decode(text).ok();
        }
    }
    assert_eq!(last, Some(ClientMessage::Bye));
}

//! The link against a server whose every move is written down, and against nonsense.

use super::*;
use oto_proto::{ActionMap, Adapter, TeacherInfo};
use proptest::prelude::*;

const POLICY_ID: u32 = 7;
const VERSION: u32 = 3;

fn unbounded(width: usize) -> Space {
    Space::Box { low: vec![f32::NEG_INFINITY; width], high: vec![f32::INFINITY; width] }
}

fn hello(action: Space) -> Hello {
    Hello {
        protocol: oto_proto::PROTOCOL.into(),
        policy: "cartpole".into(),
        student: "test".into(),
        observation: unbounded(2),
        action,
        adapter: None,
        dtype: Dtype::F32,
        action_dtype: None,
        quantization: None,
        grants: vec![oto_proto::Grant::Actions],
        stage: None,
        order: None,
        ticket: None,
        actor: None,
        worker: None,
        member: None,
    }
}

fn config() -> LinkConfig {
    LinkConfig { batch: 4, ..LinkConfig::new(hello(Space::Discrete { n: 3 })) }
}

fn welcome(link: &Link) -> Welcome {
    Welcome {
        policy: "cartpole".into(),
        policy_id: POLICY_ID,
        version: VERSION,
        max_rows: 64,
        credits: 2,
        dtype: link.formats.states.dtype(),
        action_dtype: link.formats.actions.dtype(),
        action_width: link.formats.actions.width() as u32,
        grants: vec![oto_proto::Grant::Actions],
        submit_rows: None,
        learner: None,
        shared: None,
        order: None,
        group: None,
        teacher: TeacherInfo { observation: unbounded(2), action: unbounded(1), description: String::new() },
    }
}

fn outputs(link: &mut Link) -> Vec<Output> {
    std::iter::from_fn(|| link.poll_output()).collect()
}

fn text(link: &mut Link, message: ServerMessage, now: u64) {
    link.handle(Event::Text(&message.encode()), now);
}

/// A link that was welcomed at time 0.
fn ready(config: LinkConfig) -> Link {
    let mut link = Link::new(config).expect("a link");
    link.connect(0);
    assert_eq!(outputs(&mut link), [Output::Connect]);
    link.handle(Event::Connected, 0);
    let [Output::Text(hello)] = &outputs(&mut link)[..] else { panic!("expected hello") };
    assert!(matches!(ClientMessage::decode(hello), Ok(ClientMessage::Hello(_))));
    let welcome = welcome(&link);
    text(&mut link, ServerMessage::Welcome(Box::new(welcome)), 0);
    assert_eq!(link.state(), LinkState::Ready);
    link
}

/// States with their places go to a recurrent policy alone, and an order that was not offered is not accepted.
#[test]
fn states_travel_with_their_places_where_a_recurrent_policy_wants_them() {
    let config = |order| {
        let mut config = config();
        config.hello.order = order;
        config
    };
    let greeted = |offered, wanted| {
        let mut link = Link::new(config(offered)).expect("a link");
        link.connect(0);
        outputs(&mut link);
        link.handle(Event::Connected, 0);
        outputs(&mut link);
        let welcome = Welcome { order: wanted, ..welcome(&link) };
        text(&mut link, ServerMessage::Welcome(Box::new(welcome)), 0);
        link
    };
    for (offered, wanted) in [(Some(true), Some(true)), (Some(true), None), (None, None)] {
        let mut link = greeted(offered, wanted);
        for (slot, begins) in [(6, false), (7, true), (1 << 31, false)] {
            link.offer_step(slot, begins, &[0.5, slot as f32], 0).unwrap();
        }
        link.request_now(0).expect("a request");
        let [Output::Binary(frame)] = &outputs(&mut link)[..] else { panic!("expected a frame") };
        let plain = link.formats.states.clone();
        let format = if wanted.is_some() { plain.ordered() } else { plain };
        let states = format.decode(frame, 64).unwrap();
        let places = (0..3).filter_map(|row| states.place(row)).collect::<Vec<_>>();
        let expected = [(6, false), (7, true), (0, false)].map(|(number, begins)| Place::new(number, begins));
        assert_eq!(places, if wanted.is_some() { expected.to_vec() } else { Vec::new() });
    }
    let mut link = greeted(None, Some(true));
    assert_ne!(link.state(), LinkState::Ready);
    outputs(&mut link);
    assert_eq!(link.stats().rejected.control, 1);
}

/// The requests that were sent, as ids and rows.
fn sent(link: &mut Link) -> Vec<(Ids, usize)> {
    let format = link.formats.states.clone();
    let frame = |output| match output {
        Output::Binary(frame) => {
            let states = format.decode(&frame, 64).expect("a valid request");
            (states.header().ids, states.rows())
        }
        other => panic!("expected a request, got {other:?}"),
    };
    outputs(link).into_iter().map(frame).collect()
}

fn answer(link: &Link, ids: Ids, actions: &[u32]) -> Vec<u8> {
    let format = link.formats.actions.clone();
    let mut frame = Vec::new();
    let mut writer = format.writer(ids, &mut frame);
    actions.iter().for_each(|&index| writer.action(Action::Discrete(index)).expect("an action"));
    writer.finish().expect("a frame");
    frame
}

fn labels(link: &mut Link) -> Vec<(u64, u32, u32)> {
    let mut labels = Vec::new();
    link.drain_labels(|slot, action, version| match action {
        Action::Discrete(index) => labels.push((slot, index, version)),
        Action::Continuous(_) => panic!("a discrete student"),
    });
    labels
}

fn offer(link: &mut Link, slots: std::ops::Range<u64>, now: u64) {
    slots.for_each(|slot| link.offer(slot, &[slot as f32, 0.5], now).expect("a valid state"));
}

#[test]
fn a_request_gets_its_labels() {
    let mut link = ready(config());
    assert_eq!(link.request_now(0), None);
    offer(&mut link, 10..13, 0);
    assert_eq!(outputs(&mut link), []);
    let ticket = link.request_now(5).expect("states were offered");
    let requests = sent(&mut link);
    let [(ids, 3)] = requests[..] else { panic!("{requests:?}") };
    assert_eq!((ids.policy, ids.version), (POLICY_ID, VERSION));
    assert_eq!(link.take_labels(ticket, |_, _, _| ()), Taken::Waiting);
    let frame = answer(&link, Ids { version: 4, ..ids }, &[2, 0, 1]);
    link.handle(Event::Binary(&frame), 25);
    let mut got = Vec::new();
    assert_eq!(
        link.take_labels(ticket, |slot, action, version| got.push((
            slot,
            action == Action::Discrete(2),
            version
        ))),
        Taken::Labels
    );
    assert_eq!(got, [(10, true, 4), (11, false, 4), (12, false, 4)]);
    assert_eq!(link.take_labels(ticket, |_, _, _| ()), Taken::Lost);
    let stats = *link.stats();
    assert_eq!((stats.requests, stats.states_sent, stats.labels_received), (1, 3, 3));
    assert_eq!((stats.payload_up, stats.payload_down, stats.rtt_ms), (24, 3, 20.0));
    assert_eq!(link.status(25).version, 4);
}

#[test]
fn async_requests_go_out_when_full_or_when_old() {
    let mut link = ready(LinkConfig { delay_ms: Some(10), ..config() });
    offer(&mut link, 0..3, 100);
    assert_eq!(outputs(&mut link), []);
    assert_eq!(link.wake_at(), Some(110));
    link.handle(Event::Tick, 109);
    assert_eq!(outputs(&mut link), []);
    link.handle(Event::Tick, 110);
    assert_eq!(sent(&mut link)[0].1, 3);
    offer(&mut link, 3..7, 111);
    assert_eq!(sent(&mut link)[0].1, 4);
    // Two credits are used up.
    offer(&mut link, 7..20, 112);
    link.handle(Event::Tick, 500);
    assert_eq!(outputs(&mut link), []);
}

#[test]
fn credits_come_back_with_answers() {
    let mut link = ready(LinkConfig { delay_ms: Some(0), batch: 1, ..config() });
    offer(&mut link, 0..5, 0);
    let first = sent(&mut link);
    assert_eq!(first.len(), 2);
    // Answers in another order are fine.
    for (ids, _) in first.iter().rev() {
        let frame = answer(&link, *ids, &[1]);
        link.handle(Event::Binary(&frame), 1);
    }
    assert_eq!(sent(&mut link).len(), 2);
    assert_eq!(labels(&mut link), [(0, 1, VERSION), (1, 1, VERSION)]);
}

#[test]
fn what_is_no_answer_is_counted_and_asked_again() {
    type Spoil = fn(&Link, Ids) -> Vec<u8>;
    type Count = fn(&LinkStats) -> u64;
    let cases: [(&str, Spoil, Count); 8] = [
        ("garbage", |_, _| vec![9; 40], |s| s.rejected.frame),
        (
            "another request",
            |l, i| answer(l, Ids { request: i.request + 9, ..i }, &[1, 1]),
            |s| s.rejected.unknown_request,
        ),
        ("another policy", |l, i| answer(l, Ids { policy: 1, ..i }, &[1, 1]), |s| s.rejected.policy),
        ("a row too many", |l, i| answer(l, i, &[1, 1, 1]), |s| s.rejected.count),
        ("a row too few", |l, i| answer(l, i, &[1]), |s| s.rejected.count),
        (
            "a stale version",
            |l, i| answer(l, Ids { version: VERSION - 1, ..i }, &[1, 1]),
            |s| s.rejected.stale,
        ),
        (
            "no such action",
            |l, i| {
                let mut f = answer(l, i, &[1, 1]);
                f[17] = 3;
                f
            },
            |s| s.rejected.action,
        ),
        (
            "cut off",
            |l, i| {
                let mut f = answer(l, i, &[1, 1]);
                f.pop();
                f
            },
            |s| s.rejected.count,
        ),
    ];
    for (name, spoil, count) in cases {
        let mut link = ready(config());
        offer(&mut link, 0..2, 0);
        let ticket = link.request_now(0).expect("a request");
        let ids = sent(&mut link)[0].0;
        let frame = spoil(&link, ids);
        link.handle(Event::Binary(&frame), 1);
        assert_eq!(count(link.stats()), 1, "{name}");
        assert_eq!(link.stats().rejected.total(), 1, "{name}");
        assert_eq!(labels(&mut link), [], "{name}");
        assert!(link.status(1).problem.is_some(), "{name}");
        // What names the request is asked again at once; what does not leaves it in flight.
        let again = sent(&mut link).first().map_or(ids, |(ids, _)| *ids);
        let frame = answer(&link, again, &[2, 0]);
        link.handle(Event::Binary(&frame), 2);
        assert_eq!(link.take_labels(ticket, |_, _, _| ()), Taken::Labels, "{name}");
        assert_eq!(link.status(2).problem, None, "{name}");
    }
}

#[test]
fn a_server_of_garbage_is_left_and_tried_again_ever_later() {
    let mut link = ready(config());
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..6 {
        for _ in 0..MAX_BREACHES {
            link.handle(Event::Binary(b"garbage"), now);
        }
        assert_eq!(outputs(&mut link), [Output::Close(4000)]);
        assert_eq!(link.state(), LinkState::Waiting);
        let at = link.wake_at().expect("it tries again");
        waits.push(at - now);
        now = at;
        link.handle(Event::Tick, now);
        assert_eq!(outputs(&mut link), [Output::Connect]);
        link.handle(Event::Connected, now);
        let welcome = welcome(&link);
        text(&mut link, ServerMessage::Welcome(Box::new(welcome)), now);
        outputs(&mut link);
    }
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0] * 4 / 5), "{waits:?}");
    assert!(waits[5] >= 4000 && waits[5] <= 8000, "{waits:?}");
    assert_eq!(link.stats().reconnects, 6);
}

#[test]
fn a_refused_hello_is_final_and_says_why() {
    let mut link = Link::new(config()).expect("a link");
    link.connect(0);
    link.handle(Event::Connected, 0);
    let refusal = ErrorMessage::new(
        ErrorCode::SpaceMismatch,
        "the student's action is discrete and the teacher's is not",
    );
    text(&mut link, ServerMessage::Error(refusal.clone()), 1);
    assert_eq!(link.state(), LinkState::Failed);
    assert_eq!(link.failure(), Some(&refusal));
    assert_eq!(link.wake_at(), None);
    link.handle(Event::Closed { code: Some(4003), reason: "" }, 2);
    assert_eq!(link.state(), LinkState::Failed);
    outputs(&mut link);
    // Only the user's wish tries again.
    link.connect(3);
    assert_eq!(link.state(), LinkState::Connecting);
    assert_eq!(link.failure(), None);
}

#[test]
fn a_close_code_refuses_a_hello_too() {
    let mut link = Link::new(config()).expect("a link");
    link.connect(0);
    link.handle(Event::Connected, 0);
    link.handle(Event::Closed { code: Some(4002), reason: "no policy is named cartpole" }, 1);
    assert_eq!(link.state(), LinkState::Failed);
    assert_eq!(link.failure().map(|error| error.code), Some(ErrorCode::UnknownPolicy));
}

#[test]
fn a_refusal_that_may_pass_is_tried_again() {
    for code in [ErrorCode::Internal, ErrorCode::Timeout, ErrorCode::PolicyFailed] {
        let mut link = Link::new(config()).expect("a link");
        link.connect(0);
        link.handle(Event::Connected, 0);
        text(&mut link, ServerMessage::Error(ErrorMessage::new(code, "not now")), 1);
        assert_eq!(link.state(), LinkState::Waiting);
        assert_eq!(link.status(1).problem.as_deref(), Some("not now"));
    }
}

#[test]
fn the_error_before_a_close_explains_it() {
    // An error about a request, and one with another code than the close, explain nothing.
    let cases = [
        (ErrorMessage::new(ErrorCode::Internal, "out of memory"), "out of memory"),
        (ErrorMessage::new(ErrorCode::Timeout, "too slow"), "refused"),
        (ErrorMessage::new(ErrorCode::Internal, "no").about(Some(77)), "refused"),
    ];
    for (error, expected) in cases {
        let mut link = ready(config());
        text(&mut link, ServerMessage::Error(error), 1);
        let code = Some(ErrorCode::Internal.close_code());
        link.handle(Event::Closed { code, reason: "refused" }, 1);
        assert_eq!(link.state(), LinkState::Waiting);
        assert_eq!(link.status(1).problem.as_deref(), Some(expected));
    }
}

#[test]
fn a_welcome_that_contradicts_is_refused() {
    let spoil: [fn(&mut Welcome); 7] = [
        |w| w.policy = "acrobot".into(),
        |w| w.version = 0,
        |w| w.max_rows = 0,
        |w| w.credits = 0,
        |w| w.dtype = Dtype::F16,
        |w| w.action_width = 2,
        |w| w.grants.clear(),
    ];
    for spoil in spoil {
        let mut link = Link::new(config()).expect("a link");
        link.connect(0);
        link.handle(Event::Connected, 0);
        outputs(&mut link);
        let mut welcome = welcome(&link);
        spoil(&mut welcome);
        text(&mut link, ServerMessage::Welcome(Box::new(welcome)), 1);
        assert_eq!((link.state(), link.stats().rejected.control), (LinkState::Waiting, 1));
        assert_eq!(outputs(&mut link), [Output::Close(4000)]);
    }
}

#[test]
fn silence_is_noticed_everywhere() {
    let mut link = Link::new(config()).expect("a link");
    link.connect(0);
    assert_eq!(link.wake_at(), Some(5_000));
    link.handle(Event::Tick, 5_000);
    assert_eq!((link.state(), link.stats().timeouts), (LinkState::Waiting, 1));
    let now = link.wake_at().expect("it tries again");
    link.handle(Event::Tick, now);
    link.handle(Event::Connected, now);
    link.handle(Event::Tick, now + 5_000);
    assert_eq!((link.state(), link.stats().timeouts), (LinkState::Waiting, 2));

    let mut link = ready(config());
    offer(&mut link, 0..1, 0);
    let ticket = link.request_now(0).expect("a request");
    assert_eq!(link.wake_at(), Some(10_000));
    link.handle(Event::Tick, 10_000);
    assert_eq!((link.state(), link.stats().timeouts), (LinkState::Waiting, 1));
    assert_eq!(link.take_labels(ticket, |_, _, _| ()), Taken::Waiting);
}

#[test]
fn a_request_survives_a_lost_connection_and_its_late_answer_does_not_count() {
    let mut link = ready(config());
    offer(&mut link, 0..2, 0);
    let ticket = link.request_now(0).expect("a request");
    let old = sent(&mut link)[0].0;
    link.handle(Event::Closed { code: None, reason: "" }, 1);
    let now = link.wake_at().expect("it tries again");
    link.handle(Event::Tick, now);
    link.handle(Event::Connected, now);
    let welcome = welcome(&link);
    outputs(&mut link);
    text(&mut link, ServerMessage::Welcome(Box::new(welcome)), now);
    let new = sent(&mut link)[0].0;
    assert_ne!(old.request, new.request);
    let late = answer(&link, old, &[2, 2]);
    link.handle(Event::Binary(&late), now);
    assert_eq!(link.take_labels(ticket, |_, _, _| ()), Taken::Waiting);
    let frame = answer(&link, new, &[0, 1]);
    link.handle(Event::Binary(&frame), now);
    assert_eq!(labels(&mut link), [(0, 0, VERSION), (1, 1, VERSION)]);
}

#[test]
fn overloaded_pauses_and_asks_again() {
    let mut link = ready(config());
    offer(&mut link, 0..2, 0);
    link.request_now(0);
    let ids = sent(&mut link)[0].0;
    text(&mut link, ServerMessage::Overloaded(Overloaded { request: Some(ids.request), retry_ms: 300 }), 10);
    assert_eq!(outputs(&mut link), []);
    assert_eq!(link.wake_at(), Some(310));
    link.handle(Event::Tick, 309);
    assert_eq!(outputs(&mut link), []);
    link.handle(Event::Tick, 310);
    assert_eq!(sent(&mut link).len(), 1);
    // A plea for longer than a minute is not taken at its word.
    text(&mut link, ServerMessage::Overloaded(Overloaded { request: None, retry_ms: u32::MAX }), 400);
    offer(&mut link, 2..3, 400);
    link.request_now(400);
    assert_eq!(outputs(&mut link), []);
    assert_eq!(link.connection.paused_until, 60_400);
}

#[test]
fn a_server_too_busy_to_welcome_is_tried_again_when_it_says() {
    for message in [
        ServerMessage::Overloaded(Overloaded { request: None, retry_ms: 3_000 }),
        ServerMessage::Restarting(Restarting { retry_ms: 3_000 }),
    ] {
        let mut link = Link::new(config()).expect("a link");
        link.connect(0);
        link.handle(Event::Connected, 0);
        outputs(&mut link);
        text(&mut link, message, 5);
        assert_eq!(outputs(&mut link), [Output::Close(1000)]);
        assert_eq!((link.state(), link.stats().rejected.total()), (LinkState::Waiting, 0));
        assert!((3_005..3_300).contains(&link.wake_at().expect("it comes back")));
    }
}

#[test]
fn wide_states_are_kept_in_smaller_numbers() {
    let mut pixels = hello(Space::Discrete { n: 3 });
    pixels.observation = unbounded(84 * 84 * 4);
    let config = LinkConfig::new(pixels);
    assert_eq!((config.batch, config.max_pending), (9, 594));
    let config = LinkConfig::new(hello(Space::Discrete { n: 3 }));
    assert_eq!((config.batch, config.max_pending), (64, 4096));
}

#[test]
fn restarting_finishes_what_is_in_flight_and_comes_back_when_asked_to() {
    let mut link = ready(config());
    offer(&mut link, 0..2, 0);
    let ticket = link.request_now(0).expect("a request");
    let ids = sent(&mut link)[0].0;
    text(&mut link, ServerMessage::Restarting(Restarting { retry_ms: 2_000 }), 10);
    offer(&mut link, 2..3, 11);
    link.request_now(11);
    assert_eq!(outputs(&mut link), [], "nothing new");
    let frame = answer(&link, ids, &[1, 1]);
    link.handle(Event::Binary(&frame), 12);
    assert_eq!(link.take_labels(ticket, |_, _, _| ()), Taken::Labels);
    assert_eq!(outputs(&mut link), [Output::Close(1000)]);
    assert_eq!(link.state(), LinkState::Waiting);
    assert!((2_010..2_300).contains(&link.wake_at().expect("it comes back")));
}

#[test]
fn an_error_about_a_request_ends_it_alone() {
    let mut link = ready(config());
    offer(&mut link, 0..2, 0);
    let ticket = link.request_now(0).expect("a request");
    let ids = sent(&mut link)[0].0;
    let error = ErrorMessage::new(ErrorCode::PolicyFailed, "the policy gave NaN").about(Some(ids.request));
    text(&mut link, ServerMessage::Error(error), 1);
    assert_eq!(link.take_labels(ticket, |_, _, _| ()), Taken::Lost);
    assert_eq!((link.state(), link.stats().refused, link.stats().states_dropped), (LinkState::Ready, 1, 2));
    assert_eq!(link.status(1).problem.as_deref(), Some("the policy gave NaN"));
}

#[test]
fn a_request_that_is_never_answered_right_is_given_up() {
    let mut link = ready(config());
    offer(&mut link, 0..2, 0);
    let ticket = link.request_now(0).expect("a request");
    let mut now = 0;
    for attempt in 1..=MAX_ATTEMPTS {
        assert_eq!(link.take_labels(ticket, |_, _, _| ()), Taken::Waiting, "attempt {attempt}");
        outputs(&mut link);
        link.handle(Event::Closed { code: None, reason: "" }, now);
        now = link.wake_at().expect("it tries again");
        link.handle(Event::Tick, now);
        link.handle(Event::Connected, now);
        let welcome = welcome(&link);
        text(&mut link, ServerMessage::Welcome(Box::new(welcome)), now);
    }
    assert_eq!(link.take_labels(ticket, |_, _, _| ()), Taken::Lost);
    assert_eq!(link.stats().states_dropped, 2);
}

#[test]
fn published_versions_are_shown_and_sent() {
    let mut link = ready(config());
    text(&mut link, ServerMessage::Published(Published { version: 9 }), 0);
    text(&mut link, ServerMessage::Published(Published { version: 5 }), 0);
    assert_eq!(link.status(0).version, 9);
    offer(&mut link, 0..1, 0);
    link.request_now(0);
    let ids = sent(&mut link)[0].0;
    assert_eq!(ids.version, 9);
    // An answer of the version before, already on its way, is a good label.
    let frame = answer(&link, Ids { version: VERSION, ..ids }, &[1]);
    link.handle(Event::Binary(&frame), 1);
    assert_eq!(labels(&mut link), [(0, 1, VERSION)]);
}

#[test]
fn the_switch_cuts_the_wire_and_joins_it() {
    let mut link = ready(config());
    offer(&mut link, 0..2, 0);
    let ticket = link.request_now(0).expect("a request");
    link.disconnect();
    let outputs_now = outputs(&mut link);
    assert_eq!(outputs_now, [Output::Text("{\"type\":\"bye\"}".into()), Output::Close(1000)]);
    assert_eq!((link.state(), link.wake_at()), (LinkState::Off, None));
    link.handle(Event::Closed { code: None, reason: "" }, 5);
    assert_eq!(link.state(), LinkState::Off);
    link.connect(9);
    assert_eq!(outputs(&mut link), [Output::Connect]);
    assert_eq!(link.take_labels(ticket, |_, _, _| ()), Taken::Waiting);
}

#[test]
fn stages_are_told_once_and_in_hello() {
    let mut link = Link::new(config()).expect("a link");
    link.stage(oto_proto::Stage::Transfer, 100);
    link.connect(0);
    link.handle(Event::Connected, 0);
    let [_, Output::Text(hello)] = &outputs(&mut link)[..] else { panic!("expected hello") };
    assert!(hello.contains("\"stage\":\"transfer\""));
    let welcome = welcome(&link);
    text(&mut link, ServerMessage::Welcome(Box::new(welcome)), 0);
    assert_eq!(outputs(&mut link), []);
    link.stage(oto_proto::Stage::Online, 200);
    assert_eq!(
        outputs(&mut link),
        [Output::Text("{\"type\":\"stage\",\"stage\":\"online\",\"step\":200}".into())]
    );
    assert_eq!(outputs(&mut link), []);
}

#[test]
fn the_oldest_states_and_requests_go_first() {
    let mut link = Link::new(LinkConfig { max_pending: 3, max_requests: 2, ..config() }).expect("a link");
    offer(&mut link, 0..5, 0);
    assert_eq!((link.status(0).pending, link.stats().states_dropped), (3, 2));
    let tickets: Vec<Ticket> = (5..8)
        .map(|slot| {
            let ticket = link.request_now(0).expect("a request");
            offer(&mut link, slot..slot + 1, 0);
            ticket
        })
        .collect();
    assert_eq!(link.take_labels(tickets[0], |_, _, _| ()), Taken::Lost);
    assert_eq!(link.take_labels(tickets[2], |_, _, _| ()), Taken::Waiting);
    assert_eq!((link.status(0).waiting, link.stats().states_dropped), (2, 5));
}

#[test]
fn a_server_with_smaller_requests_gets_smaller_requests() {
    let mut link = Link::new(LinkConfig { delay_ms: Some(0), ..config() }).expect("a link");
    offer(&mut link, 0..3, 0);
    let ticket = link.request_now(0).expect("a request of three");
    offer(&mut link, 3..4, 0);
    link.connect(0);
    link.handle(Event::Connected, 0);
    outputs(&mut link);
    let small = Welcome { max_rows: 2, ..welcome(&link) };
    text(&mut link, ServerMessage::Welcome(Box::new(small)), 0);
    assert_eq!(link.take_labels(ticket, |_, _, _| ()), Taken::Lost);
    let requests = sent(&mut link);
    assert_eq!(requests.iter().map(|(_, rows)| *rows).collect::<Vec<_>>(), [2, 2]);
    for (ids, _) in requests {
        let frame = answer(&link, ids, &[0, 1]);
        link.handle(Event::Binary(&frame), 1);
    }
    assert_eq!(labels(&mut link).iter().map(|label| label.0).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn states_that_cannot_be_sent_are_refused_at_once() {
    let mut link = ready(config());
    assert!(matches!(link.offer(0, &[1.0], 0), Err(FrameError::WrongRow(_))));
    assert_eq!(link.offer(0, &[1.0, f32::NAN], 0), Err(FrameError::NotFinite { row: 0, component: 1 }));
    let mut half = config();
    half.hello.dtype = Dtype::F16;
    let mut link = Link::new(half).expect("a link");
    assert_eq!(link.offer(0, &[1.0, 1e5], 0), Err(FrameError::NotFinite { row: 0, component: 1 }));
    assert_eq!(link.status(0).pending, 0);
}

#[test]
fn a_vector_outside_the_students_box_is_no_label() {
    let action = Space::Box { low: vec![-1.0], high: vec![1.0] };
    let mut link = ready(LinkConfig::new(hello(action)));
    let format = link.formats.actions.clone();
    let mut frame = Vec::new();
    for (value, accepted) in [(1.5, false), (-1.0, true)] {
        offer(&mut link, 0..1, 0);
        link.request_now(0);
        let ids = sent(&mut link).last().expect("a request").0;
        let mut writer = format.writer(ids, &mut frame);
        writer.action(Action::Continuous(&[value])).expect("finite");
        writer.finish().expect("a frame");
        link.handle(Event::Binary(&frame), 1);
        let mut got = Vec::new();
        link.drain_labels(|_, action, _| got.push(action == Action::Continuous(&[value])));
        assert_eq!(got, if accepted { vec![true] } else { vec![] });
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    assert!(Link::new(LinkConfig { batch: 0, ..config() }).is_err());
    assert!(Link::new(LinkConfig { max_requests: 1, ..config() }).is_err());
    let mut wrong = config();
    wrong.hello.dtype = Dtype::U8;
    assert_eq!(Link::new(wrong).map(|_| ()).map_err(|error| error.code), Err(ErrorCode::BadDtype));
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_by_a_teacher_in_memory() {
    let act = Box::new(|_: &[f32], rows: usize, actions: &mut Vec<f32>| {
        actions.resize(rows, 0.0);
        Ok(())
    });
    let teacher = memory::MemoryTeacher::new("cartpole", unbounded(2), unbounded(1), act);
    let mut memory = memory::Memory::new(teacher);
    let mut link = Link::new(config()).expect("a link");
    link.connect(0);
    memory.poll(&mut link, 0);
    assert_eq!(link.failure().map(|error| error.code), Some(ErrorCode::SpaceMismatch));

    let mut adapted = config();
    let sign = ActionMap::Sign { component: 0, negative: 0, positive: 2 };
    adapted.hello.adapter = Some(Adapter { observation: None, action: Some(sign) });
    let mut link = Link::new(adapted).expect("a link");
    link.connect(0);
    offer(&mut link, 0..2, 0);
    link.request_now(0);
    memory.poll(&mut link, 0);
    assert_eq!(labels(&mut link), [(0, 2, 1), (1, 2, 1)]);
    // Two states of two numbers and a header up, two bytes and a header down, and the handshake.
    assert_eq!((link.stats().payload_up, link.stats().payload_down), (16, 2));
    assert!(link.stats().bytes_up > 16 + 16 && link.stats().bytes_down > 2 + 16);
}

/// A link that may submit, welcomed at time 0.
fn sharing() -> Link {
    let mut config = config();
    config.hello.grants.push(oto_proto::Grant::Submit);
    let mut link = Link::new(config).expect("a link");
    greet(&mut link, 0);
    link
}

/// Brings the link to a new connection that grants submissions.
fn greet(link: &mut Link, now: u64) {
    link.connect(now);
    link.handle(Event::Connected, now);
    let grants = vec![oto_proto::Grant::Actions, oto_proto::Grant::Submit];
    let welcome = Welcome { grants, submit_rows: Some(5), ..welcome(link) };
    text(link, ServerMessage::Welcome(Box::new(welcome)), now);
    outputs(link);
}

/// Submits two transitions; the number of the request, if they were sent.
fn submit(link: &mut Link, batch: u128, now: u64) -> Option<u32> {
    let transition = oto_proto::Transition {
        observation: &[1.0, 2.0],
        action: &[1.0],
        reward: 0.5,
        next_observation: &[3.0, 4.0],
        terminated: false,
        truncated: true,
    };
    let write = |writer: &mut SubmissionWriter<'_>| (0..2).try_for_each(|_| writer.transition(&transition));
    link.submit(BatchId(batch), write, now).expect("rows that fit");
    outputs(link).iter().find_map(|output| match output {
        Output::Binary(frame) => Header::request_of(frame),
        _ => None,
    })
}

#[test]
fn a_batch_is_on_its_way_until_the_server_says_what_became_of_it() {
    let mut link = sharing();
    assert_eq!(link.may_submit(1), Some(5));
    let first = submit(&mut link, 1, 1).expect("a frame");
    assert_eq!((link.may_submit(1), submit(&mut link, 2, 1)), (None, None), "one at a time");
    let submitted = |batch, request| ServerMessage::Submitted(Submitted { request, batch: BatchId(batch) });
    text(&mut link, submitted(2, first), 2);
    text(&mut link, submitted(1, first + 1), 2);
    assert_eq!((link.take_submitted(), link.stats().rejected.unknown_request), (None, 2));
    text(&mut link, submitted(1, first), 2);
    assert_eq!(link.may_submit(2), None, "not before the outcome is taken");
    assert_eq!(link.take_submitted(), Some((BatchId(1), Outcome::Kept)));

    let refused = |code, request| ServerMessage::Error(ErrorMessage::new(code, "no").about(Some(request)));
    let second = submit(&mut link, 2, 2).expect("a frame");
    text(&mut link, refused(ErrorCode::TooLarge, second), 3);
    assert_eq!(link.take_submitted(), Some((BatchId(2), Outcome::Refused)));
    assert_eq!((link.may_submit(3), link.may_submit(2_000)), (None, Some(5)), "after a pause");
    let third = submit(&mut link, 3, 2_000).expect("a frame");
    text(&mut link, refused(ErrorCode::Internal, third), 2_000);
    assert_eq!(link.take_submitted(), Some((BatchId(3), Outcome::Failed)));
    let fourth = submit(&mut link, 4, 4_000).expect("a frame");
    text(&mut link, ServerMessage::Overloaded(Overloaded { request: Some(fourth), retry_ms: 100 }), 4_000);
    assert_eq!(
        (link.take_submitted(), link.may_submit(4_099), link.may_submit(4_100)),
        (None, None, Some(5))
    );
    assert_eq!(link.stats().transitions_sent, 8);
    assert_eq!(link.state(), LinkState::Ready);
}

#[test]
fn a_batch_that_was_lost_with_its_connection_is_submitted_again() {
    let mut link = sharing();
    let request = submit(&mut link, 1, 0).expect("a frame");
    link.handle(Event::Closed { code: None, reason: "" }, 1);
    assert_eq!((link.may_submit(1), link.hopes_to_submit()), (None, true));
    let at = link.wake_at().expect("it connects again");
    link.handle(Event::Tick, at);
    greet(&mut link, at);
    // What the old connection said does not count.
    let late = Submitted { request, batch: BatchId(1) };
    text(&mut link, ServerMessage::Submitted(late), at);
    assert_eq!(link.take_submitted(), None);
    submit(&mut link, 1, at).expect("a frame");
    let deadline = at + SUBMIT_TIMEOUT_MS;
    assert_eq!(link.wake_at(), Some(deadline));
    link.handle(Event::Tick, deadline);
    assert_eq!((link.state(), link.stats().timeouts), (LinkState::Waiting, 1));

    // A server that restarts is left when it has kept what it took.
    let mut link = sharing();
    let request = submit(&mut link, 1, 0).expect("a frame");
    text(&mut link, ServerMessage::Restarting(Restarting { retry_ms: 50 }), 1);
    assert_eq!(link.state(), LinkState::Ready);
    text(&mut link, ServerMessage::Submitted(Submitted { request, batch: BatchId(1) }), 2);
    assert_eq!(link.state(), LinkState::Waiting);
    assert_eq!(link.take_submitted(), Some((BatchId(1), Outcome::Kept)));
}

#[test]
fn a_server_that_restarts_and_vanishes_is_not_waited_for_as_long_as_a_submission_may_take() {
    let mut link = sharing();
    submit(&mut link, 1, 0).expect("a frame");
    text(&mut link, ServerMessage::Restarting(Restarting { retry_ms: 50 }), 1);
    let deadline = 1 + link.config.request_timeout_ms;
    assert_eq!(link.wake_at(), Some(deadline));
    link.handle(Event::Tick, deadline);
    assert_eq!((link.state(), link.stats().timeouts), (LinkState::Waiting, 1));
}

#[test]
fn nothing_is_submitted_without_the_grant() {
    let mut link = ready(config());
    assert_eq!((link.may_submit(0), link.hopes_to_submit(), submit(&mut link, 1, 0)), (None, false, None));
    link.disconnect();
    assert!(!link.hopes_to_submit());
}

/// Anything at all that a driver could report.
fn any_event() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (0u8..17, prop::collection::vec(any::<u8>(), 0..60))
}

proptest! {
    #[test]
    fn no_sequence_of_events_does_harm(events in prop::collection::vec((any_event(), 0u64..3_000), 1..200), delay in prop::option::of(0u64..100)) {
        let mut link = Link::new(LinkConfig { delay_ms: delay, max_pending: 10, max_requests: 4, ..config() }).expect("a link");
        let (mut now, mut slot, mut last) = (0, 0, Vec::new());
        for ((kind, bytes), pause) in events {
            now += pause;
            let request = u32::from(bytes.first().copied().unwrap_or(0));
            match kind {
                0 => link.connect(now),
                1 => link.disconnect(),
                2 => link.handle(Event::Connected, now),
                3 => { let welcome = Welcome { grants: vec![oto_proto::Grant::Actions, oto_proto::Grant::Submit], submit_rows: Some(5), ..welcome(&link) }; text(&mut link, ServerMessage::Welcome(Box::new(welcome)), now) }
                4 => link.handle(Event::Closed { code: Some(4000 + request as u16 % 30), reason: "gone" }, now),
                5 => link.handle(Event::Text(&String::from_utf8_lossy(&bytes)), now),
                6 => text(&mut link, ServerMessage::Overloaded(Overloaded { request: Some(request), retry_ms: request }), now),
                7 => text(&mut link, ServerMessage::Restarting(Restarting { retry_ms: request }), now),
                8 => text(&mut link, ServerMessage::Error(ErrorMessage::new(ErrorCode::Internal, "").about(Some(request))), now),
                9 => link.handle(Event::Binary(&bytes), now),
                10 => { let frame = answer(&link, Ids { request, policy: POLICY_ID, version: VERSION }, &[1, 2]); link.handle(Event::Binary(&frame), now) }
                11 => { link.request_now(now); }
                12 => link.handle(Event::Tick, now),
                13 => { submit(&mut link, u128::from(request), now); }
                14 => { text(&mut link, ServerMessage::Submitted(Submitted { request, batch: BatchId(1) }), now) }
                15 => { link.take_submitted(); }
                _ => { offer(&mut link, slot..slot + 2, now); slot += 2; }
            }
            let status = link.status(now);
            prop_assert!(status.pending <= 10 && status.waiting <= 4 && link.connection.outputs.len() <= 16);
            last = outputs(&mut link);
            // A wake-up in the past would make a driver spin.
            if kind == 12 && !matches!(link.state(), LinkState::Off | LinkState::Failed) {
                prop_assert!(link.wake_at().is_none_or(|at| at > now), "{:?} at {now} wakes at {:?}", link.state(), link.wake_at());
            }
        }
        drop(last);
    }
}

//! How a server stops.

use crate::policies::{gated, sum};
use crate::student::{Heard, serve};
use oto_proto::ServerMessage;
use oto_proto::message::CLOSE_RESTARTING;
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn what_was_accepted_is_answered_before_the_end() {
    let (policy, gate) = gated();
    let mut server = serve(vec![policy, sum()], |_| {});
    let mut busy = server.pupil("gated");
    let requests = [busy.ask(&[&[1.0; 4]]), busy.ask(&[&[-1.0; 4]])];
    busy.is_heard();
    let (mut idle, mut stranger, silent) = (server.pupil("sum"), server.stranger(), server.connect());
    server.stop();
    let retries = [&mut busy, &mut idle, &mut stranger].map(|student| match student.hear() {
        Heard::Message(ServerMessage::Restarting(restarting)) => restarting.retry_ms,
        other => panic!("{other:?}"),
    });
    assert!(retries.iter().all(|retry| (1_000..=11_000).contains(retry)), "{retries:?}");
    assert!(retries[0] != retries[1] || retries[1] != retries[2], "they do not come back all at once");
    for student in [&mut idle, &mut stranger] {
        assert!(matches!(student.hear(), Heard::Closed(CLOSE_RESTARTING)));
    }
    gate.open();
    let (first, second) = (busy.answer(), busy.answer());
    assert_eq!([first.request, second.request], requests);
    assert_eq!([first.rows, second.rows], [[[1.0]], [[0.0]]]);
    assert!(matches!(busy.hear(), Heard::Closed(CLOSE_RESTARTING)));
    drop((busy, idle, stranger, silent));
    server.join();
    assert!(TcpStream::connect(server.address).is_err(), "it accepts nothing any more");
}

#[test]
fn a_policy_that_never_answers_does_not_hold_the_server() {
    let (policy, gate) = gated();
    let mut server = serve(vec![policy], |config| config.limits.stop_timeout = Duration::from_millis(100));
    let mut student = server.pupil("gated");
    student.ask(&[&[1.0; 4]]);
    gate.wait_for_calls(1);
    server.stop();
    server.join();
    assert!(matches!(student.hear(), Heard::Message(ServerMessage::Restarting(_))));
    assert!(matches!(student.hear(), Heard::Gone));
    gate.open();
}

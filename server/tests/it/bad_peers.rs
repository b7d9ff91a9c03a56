//! What peers get who do not behave, while a student beside them is taught as if they were not there.

use crate::policies::{boxed, gated, loaded, sum, wide};
use crate::student::{Heard, SHORT, Server, hello, serve};
use oto_proto::{ActionMap, Adapter, ClientMessage, ErrorCode, Hello, ServerMessage, Space};
use std::io::{Read, Write};
use std::net::Shutdown;
use tungstenite::Message;

/// Reads until the other side ends the connection, in whatever way.
fn until_the_end(stream: &mut impl Read) -> Vec<u8> {
    let (mut all, mut some) = (Vec::new(), [0; 1024]);
    while let Ok(n @ 1..) = stream.read(&mut some) {
        all.extend_from_slice(&some[..n]);
    }
    all
}

#[test]
fn half_sent_headers_and_silent_sockets() {
    let server = serve(vec![sum()], |config| config.limits.header_timeout = SHORT);
    let mut silent = server.connect();
    let mut half = server.connect();
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost: exam").unwrap();
    let mut endless = server.connect();
    // More than the header buffer holds; the server may hang up before it has all.
    drop(endless.write_all(format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(1 << 20)).as_bytes()));
    let mut garbage = server.connect();
    garbage.write_all(b"\x16\x03\x01\x02\x00\x01\x00").unwrap();
    for stream in [&mut silent, &mut half, &mut endless, &mut garbage] {
        assert!(!until_the_end(stream).starts_with(b"HTTP/1.1 200"));
    }
    server.pupil("sum").is_well();
}

#[test]
fn a_connection_that_does_not_say_hello() {
    let server = serve(vec![sum()], |config| config.limits.hello_timeout = SHORT);
    server.stranger().is_refused(ErrorCode::Timeout);
    let server = serve(vec![sum()], |_| {});
    let mut student = server.stranger();
    student.socket.send(Message::binary(vec![1; 32])).unwrap();
    student.is_refused(ErrorCode::BadMessage);
    for text in [
        "",
        "{",
        "[]",
        "{\"type\":\"hello\"}",
        "{\"type\":\"welcome\"}",
        "{\"type\":\"stage\",\"stage\":\"online\",\"step\":1}",
    ] {
        let mut student = server.stranger();
        student.socket.send(Message::text(text)).unwrap();
        student.is_refused(ErrorCode::BadMessage);
    }
    server.pupil("sum").is_well();
}

#[test]
fn a_hello_that_cannot_be_taught() {
    let server = serve(vec![sum()], |config| config.limits.message_bytes = 64 << 10);
    let mut steady = server.pupil("sum");
    let sound = hello("sum", boxed(4), Space::Discrete { n: 2 });
    let action = Some(ActionMap::Sign { component: 0, negative: 0, positive: 1 });
    let cases: [(ErrorCode, &str, Hello); 6] = [
        (ErrorCode::UnknownPolicy, "\"sum\"", Hello { policy: "product".into(), ..sound.clone() }),
        (ErrorCode::WrongProtocol, "oto.v1", Hello { protocol: "oto.v9".into(), ..sound.clone() }),
        (ErrorCode::SpaceMismatch, "width", Hello { observation: boxed(5), ..sound.clone() }),
        (
            ErrorCode::BadAdapter,
            "discrete",
            Hello { adapter: Some(Adapter { observation: None, action }), ..sound.clone() },
        ),
        (ErrorCode::BadMessage, "student", Hello { student: String::new(), ..sound.clone() }),
        (
            ErrorCode::TooLarge,
            "65536 bytes",
            Hello { policy: "scripted:random".into(), observation: boxed(30_000), ..sound },
        ),
    ];
    for (code, says, hello) in cases {
        let mut student = server.stranger();
        student.say(&ClientMessage::Hello(Box::new(hello)));
        let message = student.is_refused(code);
        assert!(message.contains(says), "{message}");
        steady.is_well();
    }
}

#[test]
fn frames_that_are_refused_leave_the_connection_as_it_was() {
    let server = serve(vec![sum()], |config| config.limits.max_rows = 8);
    let mut steady = server.pupil("sum");
    let mut student = server.pupil("sum");
    let sound = student.frame(&[&[1.0; 4]]);
    let change = |at: usize, bytes: &[u8]| {
        let mut frame = sound.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let cut = |length: usize| sound[..length].to_vec();
    let cases = [
        (ErrorCode::BadMessage, cut(0)),
        (ErrorCode::BadMessage, cut(15)),
        (ErrorCode::BadShape, cut(16)),
        (ErrorCode::BadShape, cut(sound.len() - 1)),
        (ErrorCode::BadShape, [sound.as_slice(), &[0; 4]].concat()),
        (ErrorCode::BadShape, change(2, &[0, 0])),
        (ErrorCode::BadShape, change(2, &[2, 0])),
        (ErrorCode::TooLarge, change(2, &[255, 255])),
        (ErrorCode::BadMessage, change(0, &[2])),
        (ErrorCode::BadMessage, change(0, &[0])),
        (ErrorCode::NotSupported, change(0, &[5])),
        (ErrorCode::BadDtype, change(1, &[2])),
        (ErrorCode::BadDtype, change(1, &[9])),
        (ErrorCode::UnknownPolicy, change(8, &[7])),
        (ErrorCode::NotFinite, change(20, &f32::NAN.to_le_bytes())),
        (ErrorCode::NotFinite, change(28, &f32::INFINITY.to_le_bytes())),
    ];
    for (code, frame) in cases {
        let request = (frame.len() >= 8).then_some(1);
        student.socket.send(Message::binary(frame)).unwrap();
        let error = student.error();
        assert_eq!((error.code, error.request), (code, request), "{error}");
        student.is_well();
        steady.is_well();
    }
    for text in ["{", "{\"type\":\"welcome\"}"] {
        student.socket.send(Message::text(text)).unwrap();
        assert_eq!(student.error().code, ErrorCode::BadMessage);
    }
    student.is_well();
}

#[test]
fn a_student_that_keeps_sending_nonsense_is_shown_out() {
    let server = serve(vec![sum()], |config| config.limits.refusals = 3);
    let mut student = server.pupil("sum");
    (0..4).for_each(|_| student.socket.send(Message::binary(vec![0])).unwrap());
    (0..3).for_each(|_| assert_eq!(student.error().code, ErrorCode::BadMessage));
    student.is_refused(ErrorCode::BadMessage);
}

#[test]
fn an_adapted_state_that_is_not_finite_is_refused() {
    let server = serve(vec![sum()], |_| {});
    let mut hello = hello("sum", boxed(4), Space::Discrete { n: 2 });
    let map = oto_proto::ObservationMap { permutation: None, scale: Some(vec![1e30; 4]), offset: None };
    hello.adapter = Some(Adapter { observation: Some(map), action: None });
    let (mut student, _) = server.student(hello);
    let request = student.ask(&[&[1e30; 4]]);
    let error = student.error();
    assert_eq!((error.code, error.request), (ErrorCode::NotFinite, Some(request)));
}

/// The head of a masked binary WebSocket frame that announces `length` bytes.
fn announce(length: u64) -> Vec<u8> {
    [&[0x82, 0xff], length.to_be_bytes().as_slice(), &[0; 4]].concat()
}

#[test]
fn oversized_and_truncated_messages() {
    let server = serve(vec![sum()], |_| {});
    let mut steady = server.pupil("sum");
    for length in [u64::MAX >> 1, 1 << 40, 3 << 20] {
        let mut student = server.pupil("sum");
        student.socket.get_mut().write_all(&announce(length)).unwrap();
        student.is_refused(ErrorCode::TooLarge);
        steady.is_well();
    }
    // Many small parts that together are too large.
    let mut student = server.pupil("sum");
    let part = [&[0x02, 0xff], (1u64 << 20).to_be_bytes().as_slice(), &[0; 4], &[0; 1 << 20]].concat();
    let rest = [&[0x00, 0xff], (1u64 << 20).to_be_bytes().as_slice(), &[0; 4], &[0; 1 << 20]].concat();
    student.socket.get_mut().write_all(&part).unwrap();
    (0..2).for_each(|_| student.socket.get_mut().write_all(&rest).unwrap());
    student.is_refused(ErrorCode::TooLarge);
    // A message that ends in the middle, with its connection.
    let mut student = server.pupil("sum");
    student.socket.get_mut().write_all(&announce(1000)).unwrap();
    student.socket.get_mut().write_all(&[1; 10]).unwrap();
    student.socket.get_mut().shutdown(Shutdown::Both).unwrap();
    steady.is_well();
}

#[test]
fn a_student_that_falls_silent_is_pinged_and_then_dropped() {
    let server = serve(vec![sum()], |config| {
        config.limits.ping_interval = SHORT / 2;
        config.limits.peer_timeout = 3 * SHORT;
    });
    let mut silent = server.pupil("sum");
    // Raw reading answers no ping.
    let bytes = until_the_end(silent.socket.get_mut());
    let close = ErrorCode::Timeout.close_code().to_be_bytes();
    assert!(
        [[0x89, 0], close].iter().all(|two| bytes.windows(2).any(|window| window == two)),
        "a ping, then a close"
    );
    // A student that answers pings may be silent as long as it likes.
    let mut quiet = server.pupil("sum");
    for _ in 0..3 {
        while !matches!(quiet.socket.read().unwrap(), Message::Ping(_)) {}
    }
    quiet.is_well();
}

/// Asks and asks and never reads, until the server has had enough.
fn never_reads(server: &Server) {
    let (mut student, _) = server.student(hello("wide", boxed(1), boxed(64)));
    let states = vec![[1.0].as_slice(); 4096];
    for _ in 0..100_000 {
        let frame = student.frame(&states);
        if student.socket.send(Message::binary(frame)).is_err() {
            return;
        }
    }
    panic!("the server went on reading from a student that never reads");
}

#[test]
fn a_student_that_never_reads() {
    let server = serve(vec![sum(), wide()], |config| config.limits.write_timeout = SHORT);
    let mut steady = server.pupil("sum");
    std::thread::scope(|scope| {
        let never = scope.spawn(|| never_reads(&server));
        while !never.is_finished() {
            steady.is_well();
        }
        never.join().unwrap();
    });
    steady.is_well();
}

#[test]
fn a_student_that_vanishes_while_it_is_answered() {
    let (policy, gate) = gated();
    let server = serve(vec![policy], |_| {});
    let mut first = server.pupil("gated");
    first.ask(&[&[1.0; 4]]);
    gate.wait_for_calls(1);
    let mut second = server.pupil("gated");
    second.ask(&[&[1.0; 4]; 3]);
    second.is_heard();
    let mut third = server.pupil("gated");
    let request = third.ask(&[&[-1.0; 4]; 2]);
    third.is_heard();
    for student in [first, second] {
        student.socket.get_ref().shutdown(Shutdown::Both).unwrap();
    }
    gate.open();
    let answer = third.answer();
    assert_eq!((answer.request, answer.rows), (request, vec![vec![0.0]; 2]));
    third.is_well();
}

#[test]
fn an_unusable_answer_is_an_error_for_the_one_who_asked() {
    let server = serve(vec![sum()], |_| {});
    let mut steady = server.pupil("sum");
    let mut student = server.pupil("sum");
    for first in [1e7, -1e7] {
        let request = student.ask(&[&[1.0; 4], &[first, 0.0, 0.0, 0.0]]);
        let error = student.error();
        assert_eq!((error.code, error.request), (ErrorCode::PolicyFailed, Some(request)));
        student.is_well();
        steady.is_well();
    }
}

#[test]
fn an_unusable_answer_does_not_spoil_the_batch() {
    let (policy, gate) = gated();
    let server = serve(vec![policy], |_| {});
    let mut first = server.pupil("gated");
    first.ask(&[&[1.0; 4]]);
    gate.wait_for_calls(1);
    let mut odd = server.pupil("gated");
    odd.ask(&[&[1e7, 0.0, 0.0, 0.0]]);
    odd.is_heard();
    let mut even = server.pupil("gated");
    even.ask(&[&[1.0; 4]]);
    even.is_heard();
    gate.open();
    assert_eq!(even.answer().rows, [[1.0]]);
    assert_eq!(odd.error().code, ErrorCode::PolicyFailed);
    assert_eq!(gate.calls(), [1, 2, 1, 1], "together, and then each alone");
}

#[test]
fn a_number_that_the_agreed_dtype_cannot_hold() {
    let policy = crate::policies::function(boxed(1), boxed(1), |row, actions| actions.push(row[0] * 1e6));
    let server = serve(vec![loaded("large", policy)], |_| {});
    let mut half = hello("large", boxed(1), boxed(1));
    half.action_dtype = Some(oto_proto::Dtype::F16);
    let (mut student, _) = server.student(half);
    let request = student.ask(&[&[1.0]]);
    let error = student.error();
    assert_eq!((error.code, error.request), (ErrorCode::PolicyFailed, Some(request)));
}

#[test]
fn a_connection_too_many() {
    let server = serve(vec![sum()], |config| config.limits.connections = 2);
    let mut students = [server.pupil("sum"), server.pupil("sum")];
    assert!(until_the_end(&mut server.connect()).starts_with(b"HTTP/1.1 503"));
    students.iter_mut().for_each(crate::student::Student::is_well);
    let [mut leaving, mut staying] = students;
    leaving.say(&ClientMessage::Bye);
    assert!(matches!(leaving.hear(), Heard::Closed(1000)));
    drop(leaving);
    // The place is free once the server has noticed, which no message tells.
    while !is_free(&server) {}
    staying.is_well();
}

/// Whether the server takes one more connection.
pub fn is_free(server: &Server) -> bool {
    let mut stream = server.connect();
    let head = b"GET /readyz HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    stream.write_all(head).is_ok() && until_the_end(&mut stream).starts_with(b"HTTP/1.1 200")
}

#[test]
fn errors_are_messages_that_students_can_read() {
    let server = serve(vec![sum()], |_| {});
    let mut student = server.pupil("sum");
    student.socket.send(Message::binary(vec![1, 2, 3])).unwrap();
    let Heard::Message(message @ ServerMessage::Error(_)) = student.hear() else { panic!() };
    assert_eq!(ServerMessage::decode(&message.encode()).unwrap(), message);
}

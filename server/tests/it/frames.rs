//! What RFC 6455 says of frames, byte by byte over a real socket. A breach costs whoever commits it the connection, with the
//! close code that the RFC has for it, and nobody else anything.

use crate::bad_peers::is_free;
use crate::policies::sum;
use crate::student::{SHORT, Server, Student, serve};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Bytes of the longest message.
const LIMIT: usize = 1 << 20;

/// How a frame says how long it is.
#[derive(Clone, Copy)]
enum Length {
    Shortest,
    In16Bits,
    In64Bits,
}

/// A masked frame: its first byte and its payload.
fn frame_of(first: u8, payload: &[u8], length: Length) -> Vec<u8> {
    let mut frame = vec![first];
    match (length, payload.len()) {
        (Length::Shortest, small @ 0..126) => frame.push(0x80 | small as u8),
        (Length::Shortest, middle @ 126..0x1_0000) | (Length::In16Bits, middle) => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        (_, large) => {
            frame.push(0x80 | 127);
            frame.extend((large as u64).to_be_bytes());
        }
    }
    let mask = [0x5a, 0x01, 0xff, 0x80];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    frame_of(first, payload, Length::Shortest)
}

/// The same without a mask.
fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, payload.len() as u8], payload].concat()
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A student's socket without anything that speaks WebSocket.
struct Wire {
    student: Student,
}

impl Wire {
    fn new(server: &Server) -> Self {
        Wire { student: server.pupil("sum") }
    }

    fn stream(&mut self) -> &mut TcpStream {
        self.student.socket.get_mut()
    }

    /// Sends bytes; the server may have hung up already.
    fn send(&mut self, bytes: &[u8]) {
        drop(self.stream().write_all(bytes));
    }

    /// The next frame, none when the connection has ended.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream().read_exact(&mut head).ok()?;
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.stream().read_exact(&mut length).ok()?;
                usize::from(u16::from_be_bytes(length))
            }
            small @ 0..126 => usize::from(small),
            _ => panic!("the server masks, or says nothing that is so long"),
        };
        let mut payload = vec![0; length];
        self.stream().read_exact(&mut payload).ok()?;
        Some((head[0], payload))
    }

    /// The close code that the server sends last, 1005 if its close frame has none; none if it sends no such frame.
    fn closed_with(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some((first, payload)) = self.frame() {
            assert_eq!(code, None, "nothing comes after a close frame");
            if first == FIN | CLOSE {
                code = Some(payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]])));
            }
        }
        code
    }

    /// A request that the server answers.
    fn request(&mut self) -> Vec<u8> {
        self.student.frame(&[[1.0, 2.0, 3.0, 4.0]])
    }

    fn is_answered(&mut self) {
        let (first, payload) = self.frame().expect("an answer");
        assert_eq!((first, &payload[16..]), (FIN | BINARY, [1].as_slice()));
    }
}

fn server() -> Server {
    serve(vec![sum()], |config| config.limits.message_bytes = LIMIT)
}

/// Each of these breaches ends its connection with this code, and a student beside it is taught.
fn each_ends_with(code: u16, breaches: &[(&str, Vec<u8>)]) {
    let server = server();
    let mut steady = server.pupil("sum");
    for (what, bytes) in breaches {
        let mut wire = Wire::new(&server);
        wire.send(bytes);
        assert_eq!(wire.closed_with(), Some(code), "{what}");
        steady.is_well();
    }
}

#[test]
fn reserved_bits_are_a_protocol_error() {
    let rsv = |bit: u8, opcode: u8| frame(FIN | bit | opcode, b"abc");
    each_ends_with(
        1002,
        &[
            ("RSV1", rsv(0x40, BINARY)),
            ("RSV2", rsv(0x20, TEXT)),
            ("RSV3", rsv(0x10, BINARY)),
            ("all of them", rsv(0x70, BINARY)),
            ("RSV1 of a ping", rsv(0x40, PING)),
            ("RSV3 of a close", frame(FIN | 0x10 | CLOSE, &1000u16.to_be_bytes())),
        ],
    );
}

#[test]
fn reserved_opcodes_are_a_protocol_error() {
    let opcodes = (3..8).chain(11..16);
    let breaches: Vec<_> = opcodes.map(|opcode| ("reserved", frame(FIN | opcode, b"abc"))).collect();
    each_ends_with(1002, &breaches);
}

#[test]
fn frames_of_a_client_without_a_mask_are_a_protocol_error() {
    each_ends_with(
        1002,
        &[
            ("binary", unmasked(FIN | BINARY, b"abc")),
            ("ping", unmasked(FIN | PING, b"")),
            ("close", unmasked(FIN | CLOSE, &1000u16.to_be_bytes())),
        ],
    );
}

#[test]
fn control_frames_in_fragments_or_beyond_125_bytes_are_a_protocol_error() {
    each_ends_with(
        1002,
        &[
            ("part of a ping", frame(PING, b"abc")),
            ("part of a pong", frame(PONG, b"")),
            ("part of a close", frame(CLOSE, &1000u16.to_be_bytes())),
            ("126 bytes of ping", frame(FIN | PING, &[1; 126])),
            ("1,000 bytes of pong", frame(FIN | PONG, &[1; 1000])),
            ("126 bytes of close", close(1000, &[b'a'; 124])),
        ],
    );
}

#[test]
fn fragments_out_of_order_are_a_protocol_error() {
    let begin = frame(BINARY, b"abc");
    each_ends_with(
        1002,
        &[
            ("a continuation of nothing", frame(FIN | CONTINUATION, b"abc")),
            ("part of a continuation of nothing", frame(CONTINUATION, b"abc")),
            ("binary within binary", [begin.clone(), frame(FIN | BINARY, b"abc")].concat()),
            ("text within binary", [begin.clone(), frame(FIN | TEXT, b"abc")].concat()),
            ("begun twice", [begin.clone(), begin].concat()),
        ],
    );
}

#[test]
fn close_codes_that_nobody_may_send_are_a_protocol_error() {
    let codes = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535];
    let mut breaches: Vec<_> = codes.iter().map(|code| ("a code", close(*code, b""))).collect();
    breaches.push(("half a code", frame(FIN | CLOSE, &[3])));
    each_ends_with(1002, &breaches);
}

#[test]
fn text_that_is_not_utf_8_is_invalid_data() {
    let parts = |one: &[u8], two: &[u8]| [frame(TEXT, one), frame(FIN | CONTINUATION, two)].concat();
    each_ends_with(
        1007,
        &[
            ("a byte that is never in it", frame(FIN | TEXT, b"{\xff}")),
            ("a surrogate", frame(FIN | TEXT, b"\xed\xa0\x80")),
            ("a longer form than need be", frame(FIN | TEXT, b"\xc0\xaf")),
            ("half a character at the end", frame(FIN | TEXT, b"abc\xe2\x82")),
            ("half a character, then something else", parts(b"\xe2\x82", b"abc")),
            ("half a character at the end of the last part", parts(b"abc", b"\xe2\x82")),
            ("in the reason of a close", close(1000, b"\xff\xfe")),
        ],
    );
}

#[test]
fn lengths_beyond_the_limit_are_refused_before_anything_of_them_comes() {
    let announced = |length: u64| [&[FIN | BINARY, 0xff], &length.to_be_bytes()[..], &[0; 4]].concat();
    each_ends_with(
        4008,
        &[
            ("one more than allowed", announced(LIMIT as u64 + 1)),
            ("a terabyte", announced(1 << 40)),
            ("the largest", announced(u64::MAX >> 1)),
            // The RFC wants this bit to be zero.
            ("the highest bit", announced(1 << 63)),
            ("all bits", announced(u64::MAX)),
            ("a long ping", [&[FIN | PING, 0xff], &(1u64 << 21).to_be_bytes()[..], &[0; 4]].concat()),
            ("in parts", [frame(BINARY, &[0; LIMIT]), frame(CONTINUATION, &[0; 1])].concat()),
        ],
    );
}

#[test]
fn a_length_in_more_bytes_than_it_needs_is_read_all_the_same() {
    // The RFC does not allow it, tungstenite does not look. It says the same in more bytes, and nothing follows from it.
    let server = server();
    let mut wire = Wire::new(&server);
    for length in [Length::In16Bits, Length::In64Bits] {
        let request = wire.request();
        wire.send(&frame_of(FIN | BINARY, &request, length));
        wire.is_answered();
    }
}

#[test]
fn pings_are_answered_with_what_they_say() {
    let server = server();
    let mut wire = Wire::new(&server);
    for payload in [&b""[..], b"abc", &[0xff; 125]] {
        wire.send(&frame(FIN | PING, payload));
        assert_eq!(wire.frame(), Some((FIN | PONG, payload.to_vec())));
    }
    // A pong that nobody asked for is nothing.
    wire.send(&frame(FIN | PONG, b"hello"));
    let request = wire.request();
    wire.send(&frame(FIN | BINARY, &request));
    wire.is_answered();
}

#[test]
fn a_message_may_come_in_parts_with_pings_between_them() {
    let server = server();
    let mut wire = Wire::new(&server);
    let request = wire.request();
    let (first, rest) = request.split_at(3);
    wire.send(&frame(BINARY, first));
    for part in rest.chunks(5) {
        wire.send(&frame(CONTINUATION, part));
        wire.send(&frame(CONTINUATION, b""));
        wire.send(&frame(FIN | PING, part));
        assert_eq!(wire.frame(), Some((FIN | PONG, part.to_vec())), "before the message is whole");
    }
    wire.send(&frame(FIN | CONTINUATION, b""));
    wire.is_answered();
    // So may a character.
    let said = "{\"type\":\"stage\",\"stage\":\"online\",\"step\":1,\"why\":\"\u{20ac}\"}".as_bytes();
    let middle = said.len() - 4;
    wire.send(&frame(TEXT, &said[..middle]));
    wire.send(&frame(FIN | CONTINUATION, &said[middle..]));
    let request = wire.request();
    wire.send(&frame(FIN | BINARY, &request));
    wire.is_answered();
}

#[test]
fn bytes_may_come_one_by_one_or_all_at_once() {
    let server = server();
    let mut wire = Wire::new(&server);
    let request = wire.request();
    for byte in frame(FIN | BINARY, &request) {
        wire.send(&[byte]);
    }
    wire.is_answered();
    let requests: Vec<u8> = (0..5)
        .flat_map(|_| {
            let request = wire.request();
            frame(FIN | BINARY, &request)
        })
        .collect();
    wire.send(&requests);
    (0..5).for_each(|_| wire.is_answered());
}

#[test]
fn a_close_is_answered_with_the_same_code_and_then_the_server_hangs_up() {
    let server = server();
    let cases = [
        (close(1000, b"done"), 1000),
        (close(1001, b""), 1001),
        (close(3000, b""), 3000),
        (close(4999, "\u{20ac}".as_bytes()), 4999),
        (close(1000, &[b'a'; 123]), 1000),
        (frame(FIN | CLOSE, b""), 1005),
    ];
    for (bytes, code) in cases {
        let mut wire = Wire::new(&server);
        wire.send(&bytes);
        assert_eq!(wire.closed_with(), Some(code));
        // One that stops sending, as it may after a close.
        let mut half = Wire::new(&server);
        half.send(&bytes);
        half.stream().shutdown(Shutdown::Write).unwrap();
        assert_eq!(half.closed_with(), Some(code), "half-open");
    }
    // What comes after a close is not read.
    let mut wire = Wire::new(&server);
    let request = wire.request();
    wire.send(&[close(1000, b""), frame(FIN | BINARY, &request)].concat());
    assert_eq!(wire.frame(), Some((FIN | CLOSE, 1000u16.to_be_bytes().to_vec())));
    assert_eq!(wire.frame(), None);
    server.pupil("sum").is_well();
}

#[test]
fn whoever_does_not_answer_a_close_is_left() {
    let server = serve(vec![sum()], |config| {
        config.limits.connections = 1;
        config.limits.close_timeout = SHORT;
    });
    let mut wire = Wire::new(&server);
    let bye = frame(FIN | TEXT, b"{\"type\":\"bye\"}");
    wire.send(&bye);
    assert_eq!(wire.closed_with(), Some(1000));
    // It stays, and its place is free all the same, if not at once.
    while !is_free(&server) {}
}

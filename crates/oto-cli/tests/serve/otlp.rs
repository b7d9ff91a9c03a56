//! Spans on their way to a collector, which is there, or hangs, or is not there at all.

use crate::program::{POLICY, Program, actions, infer};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

/// A collector: where it listens, and what it is sent, until it is dropped.
fn collector() -> (SocketAddr, Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (say, heard) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let say = say.clone();
            std::thread::spawn(move || while deliveries(stream.as_ref().unwrap(), &say).is_some() {});
        }
    });
    (address, heard)
}

/// Takes one delivery from a connection; none when it ended.
fn deliveries(mut stream: &TcpStream, say: &Sender<ExportTraceServiceRequest>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length, mut first) = (String::new(), 0, String::new());
    while reader.read_line(&mut line).ok()? > 0 && line != "\r\n" {
        let lower = line.to_lowercase();
        if first.is_empty() {
            first = lower;
        } else if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        } else if let Some(value) = lower.strip_prefix("content-type:") {
            assert_eq!(value.trim(), "application/x-protobuf");
        }
        line.clear();
    }
    if first.is_empty() {
        return None;
    }
    assert_eq!(first.trim(), "post /v1/traces http/1.1");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    say.send(ExportTraceServiceRequest::decode(&body[..]).unwrap()).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()
}

fn tracing(collector: SocketAddr, sample: &str) -> Program {
    Program::serve(&["--otlp", &format!("http://{collector}"), "--otlp-sample", sample], &[])
}

fn text(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.clone()?.value? {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    })
}

/// What came to a collector by now.
fn spans(heard: &Receiver<ExportTraceServiceRequest>) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource in heard.try_iter().flat_map(|delivery| delivery.resource_spans) {
        let service = resource.resource.unwrap().attributes.into_iter().find(|a| a.key == "service.name");
        assert_eq!(service.unwrap().value.unwrap().value, Some(Value::StringValue("oto".into())));
        spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    spans
}

#[test]
fn the_spans_of_a_request_reach_a_collector() {
    let (address, heard) = collector();
    let server = tracing(address, "1");
    assert_eq!(infer(&server), 200);
    assert_eq!(actions(&server, 3), 3);
    let said = server.stop();
    let spans = spans(&heard);
    let roots: Vec<&Span> = spans.iter().filter(|span| span.name == "request").collect();
    assert_eq!((roots.len(), spans.len()), (2, 10), "{spans:#?}\n{said}");
    for (root, rows) in roots.into_iter().zip(["1", "3"]) {
        assert_eq!(root.parent_span_id, [0; 0]);
        let told = ["policy", "rows", "batch", "version", "error"].map(|key| text(root, key));
        assert_eq!(
            told,
            [Some(POLICY), Some(rows), Some(rows), Some("1"), None].map(|t| t.map(str::to_owned))
        );
        let mut parts: Vec<&Span> = spans.iter().filter(|span| span.parent_span_id == root.span_id).collect();
        parts.sort_by_key(|span| span.start_time_unix_nano);
        let names: Vec<&str> = parts.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["take", "wait", "compute", "answer"]);
        for part in parts {
            assert_eq!(part.trace_id, root.trace_id);
            assert!(root.start_time_unix_nano <= part.start_time_unix_nano);
            assert!(part.start_time_unix_nano <= part.end_time_unix_nano);
            assert!(part.end_time_unix_nano <= root.end_time_unix_nano, "{part:?} in {root:?}");
        }
    }
}

#[test]
fn of_few_requests_few_are_traced() {
    let (address, heard) = collector();
    let server = tracing(address, "0");
    assert_eq!(infer(&server), 200);
    server.stop();
    assert_eq!(spans(&heard).len(), 0);
    let server = tracing(address, "0.2");
    let asked = 200;
    (0..asked).for_each(|_| assert_eq!(infer(&server), 200));
    server.stop();
    let spans = spans(&heard);
    assert_eq!(spans.len() % 5, 0, "a request is traced wholly or not at all");
    assert!((20..80).contains(&(spans.len() / 5)), "{} of {asked}", spans.len() / 5);
}

#[test]
fn a_collector_that_hangs_or_is_away_holds_nobody_up() {
    // Connections to the first are accepted by the system, and nobody answers them; the second one is gone at once.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (collector, told) in [(hangs.local_addr().unwrap(), 0..=1), (away, 1..=1)] {
        let flags = ["--otlp", &format!("http://{collector}"), "--otlp-sample", "1"];
        // Little room, and many deliveries.
        let small = [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ];
        let server = Program::serve(&flags, &small);
        (0..200).for_each(|_| assert_eq!(infer(&server), 200));
        let said = server.stop();
        let lines = said.lines().filter(|line| line.contains("spans do not reach the collector")).count();
        assert!(told.contains(&lines), "{said}");
    }
}

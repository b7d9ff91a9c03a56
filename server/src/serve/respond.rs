//! Answers to plain requests, as [`http`](super::http) and [`admin`](super::admin) give them.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use std::time::Duration;

/// The most bytes of a request's headers.
pub(crate) const HEADER_BYTES: usize = 16 << 10;
/// An answer whose body is there.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Whole seconds, at least one.
pub(crate) fn seconds(pause: Duration) -> HeaderValue {
    HeaderValue::from(pause.as_secs_f32().ceil().max(1.0) as u32)
}

/// Another method was expected, one of these.
pub(crate) fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = sentence(StatusCode::METHOD_NOT_ALLOWED, &format!("expected {allow}"));
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    answer
}

pub(crate) fn sentence(status: StatusCode, why: &str) -> Answer {
    respond(status, TEXT, Bytes::from(format!("{why}\n")))
}

const TEXT: &str = "text/plain; charset=utf-8";

pub(crate) fn text(status: StatusCode, body: &'static str) -> Answer {
    respond(status, TEXT, Bytes::from_static(body.as_bytes()))
}

pub(crate) fn respond(status: StatusCode, mime: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

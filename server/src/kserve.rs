//! KServe's Open Inference Protocol, version 2, over HTTP and JSON: a side door for programs that are no students.
//!
//! | request | |
//! | --- | --- |
//! | `GET /v2` | what this server is |
//! | `GET /v2/health/live`, `GET /v2/health/ready` | 200 while it runs, and while it takes requests |
//! | `GET /v2/models/NAME` | a policy's tensors |
//! | `GET /v2/models/NAME/ready` | 200 if there is this policy |
//! | `POST /v2/models/NAME/infer` | actions for states |
//!
//! After NAME there may be `/versions/N`, which is refused unless N is what answers. A policy has one input,
//! `observation` of shape `[rows, width]`, and one output, `action` of shape `[rows, width]`: FP32, or INT64 of width 1
//! where the space is discrete. Requests wait in the same queue as students', and cost the same quota; machines show
//! the same bearer tokens. Tensors are JSON's numbers; there is no binary data.

use crate::access::Visitor;
use crate::admission::Bearer;
use crate::http::{Answer, Site, respond};
use crate::queue::{NotTaken, Request, Said};
use crate::spans::Traced;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use oto_proto::{Space, TeacherInfo};
use percent_encoding::percent_decode_str;
use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor as Visit};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Where all of it is.
pub(crate) const ROOT: &str = "/v2";

const INPUT: &str = "observation";
const OUTPUT: &str = "action";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is nothing here")]
    Nothing,
    #[error("expected GET, or POST to infer")]
    Method,
    #[error("there is no policy {0:?} here")]
    Policy(String),
    #[error("version {0:?} does not answer, {1} does")]
    Version(String, u32),
    #[error("expected a machine's bearer token")]
    Token,
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("expected a body of at most {0} bytes, all of it in time")]
    Body(usize),
    #[error("{0}")]
    Request(String),
    #[error("too much at once: come again later")]
    Overloaded(Duration),
    #[error("more than this machine's quota: come again later")]
    Quota(Duration),
    #[error("stopping, or without policies")]
    NotReady,
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::Nothing | Refusal::Policy(_) | Refusal::Version(..) => StatusCode::NOT_FOUND,
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Token => StatusCode::UNAUTHORIZED,
            Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
            Refusal::Body(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Request(_) => StatusCode::BAD_REQUEST,
            Refusal::Quota(_) => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Overloaded(_) | Refusal::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn pause(&self) -> Option<Duration> {
        match self {
            Refusal::Overloaded(pause) | Refusal::Quota(pause) => Some(*pause),
            _ => None,
        }
    }
}

/// What a path below [`ROOT`] names.
#[derive(Debug, PartialEq)]
enum Path {
    Server,
    Live,
    Ready,
    Model { name: String, version: Option<String>, what: What },
}

#[derive(Debug, PartialEq)]
enum What {
    Metadata,
    Ready,
    Infer,
}

/// A request for actions. What else the protocol has is not looked at.
#[derive(Deserialize)]
struct Infer {
    id: Option<String>,
    inputs: Vec<Tensor>,
    #[serde(default)]
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Numbers,
}

#[derive(Deserialize)]
struct Output {
    name: String,
}

/// Numbers in arrays of any depth, row-major.
struct Numbers {
    all: Vec<f32>,
    /// How many numbers each innermost array has.
    run: usize,
}

#[derive(Serialize)]
struct Inferred<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: [Actions; 1],
}

#[derive(Serialize)]
struct Actions {
    name: &'static str,
    shape: [usize; 2],
    datatype: &'static str,
    data: Data,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data {
    Whole(Vec<i64>),
    Real(Vec<f32>),
}

/// Answers a request whose path is at [`ROOT`] or below.
pub(crate) async fn answer(site: Site, request: hyper::Request<Incoming>) -> Answer {
    match answered(&site, request).await {
        Ok(body) => json_of(StatusCode::OK, body),
        Err(refusal) => {
            let body = json!({ "error": refusal.to_string() }).to_string();
            let mut answer = json_of(refusal.status(), body.into());
            if let Some(pause) = refusal.pause() {
                let seconds = HeaderValue::from(pause.as_secs_f32().ceil() as u32);
                answer.headers_mut().insert(header::RETRY_AFTER, seconds);
            }
            answer
        }
    }
}

fn json_of(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = respond(status, "application/json", body);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

async fn answered(site: &Site, request: hyper::Request<Incoming>) -> Result<Bytes, Refusal> {
    let policies = &site.server.config.policies;
    let path = Path::read(request.uri().path()).ok_or(Refusal::Nothing)?;
    let infer = matches!(path, Path::Model { what: What::Infer, .. });
    if infer != (request.method() == Method::POST) {
        return Err(Refusal::Method);
    }
    let (name, version, what) = match path {
        Path::Server => {
            let about = json!({ "name": "oto", "version": env!("CARGO_PKG_VERSION"), "extensions": [] });
            return Ok(about.to_string().into());
        }
        Path::Live => return Ok(json!({ "live": true }).to_string().into()),
        Path::Ready if site.stops() || policies.is_empty() => return Err(Refusal::NotReady),
        Path::Ready => return Ok(json!({ "ready": true }).to_string().into()),
        Path::Model { name, version, what } => (name, version, what),
    };
    let now = policies.version(&name).ok_or_else(|| Refusal::Policy(name.clone()))?;
    is_version(version.as_deref(), now)?;
    match what {
        What::Metadata => {
            let info = policies.info(&name).ok_or_else(|| Refusal::Policy(name.clone()))?;
            Ok(metadata(&name, now, info).to_string().into())
        }
        What::Ready => Ok(json!({ "name": name, "ready": true }).to_string().into()),
        What::Infer => inferred(site, &name, version.as_deref(), request).await,
    }
}

fn is_version(wanted: Option<&str>, answers: u32) -> Result<(), Refusal> {
    match wanted.filter(|wanted| *wanted != answers.to_string()) {
        Some(wanted) => Err(Refusal::Version(wanted.to_owned(), answers)),
        None => Ok(()),
    }
}

fn metadata(name: &str, version: u32, info: &TeacherInfo) -> Value {
    let tensor =
        |name, space| json!({ "name": name, "datatype": datatype(space), "shape": [-1, space.width()] });
    json!({
        "name": name,
        "versions": [version.to_string()],
        "platform": "oto",
        "inputs": [tensor(INPUT, &info.observation)],
        "outputs": [tensor(OUTPUT, &info.action)],
    })
}

fn datatype(space: &Space) -> &'static str {
    match space {
        Space::Discrete { .. } => "INT64",
        Space::Box { .. } => "FP32",
    }
}

async fn inferred(
    site: &Site,
    name: &str,
    version: Option<&str>,
    request: hyper::Request<Incoming>,
) -> Result<Bytes, Refusal> {
    let (server, limits) = (&site.server, &site.server.config.limits);
    let visitor = visitor(site, request.headers(), name).inspect_err(|refusal| {
        server.note(&site.caller, "infer", Some(name), &refusal.to_string());
    })?;
    let mut teacher =
        server.config.policies.hosted_teacher(name).ok_or_else(|| Refusal::Policy(name.into()))?;
    let _entered = visitor.enter().ok_or_else(|| site.overloaded("connections", limits.retry))?;
    let traced = Traced::begin(name);
    let body = Limited::new(request.into_body(), limits.message_bytes).collect();
    let Ok(Ok(body)) = timeout(limits.header_timeout, body).await else {
        return Err(Refusal::Body(limits.message_bytes));
    };
    let asked: Infer =
        serde_json::from_slice(&body.to_bytes()).map_err(|e| Refusal::Request(e.to_string()))?;
    let widest = teacher.info.observation.width().max(teacher.info.action.width());
    let id = asked.id.clone();
    let (rows, observations) = asked.states(&teacher.info.observation, limits.rows_of(widest).into())?;
    visitor.spend(rows).map_err(|pause| {
        server.metrics().dropped("quota");
        Refusal::Quota(pause)
    })?;
    let (reply, mut answers) = mpsc::channel(1);
    let request = Request { id: 0, rows, came: Instant::now(), observations, reply, traced };
    teacher.ask(request, &limits.queue).map_err(|not_taken| match not_taken {
        NotTaken::Full(pause) => site.overloaded("full", pause),
        NotTaken::Gone => Refusal::Failed("the policy does not run any more".into()),
    })?;
    server.metrics().taken(rows);
    let Some(answer) = answers.recv().await else {
        return Err(Refusal::Failed("the policy stopped before it answered".into()));
    };
    let (answered_by, actions) = match answer.said {
        Said::Actions { version, actions } => (version, actions),
        Said::Failed(error) => return Err(Refusal::Failed(error.message)),
        Said::Late(pause) => return Err(site.overloaded("late", pause)),
    };
    is_version(version, answered_by)?;
    server.metrics().answered(answer.came);
    let inferred = Inferred {
        model_name: name,
        model_version: answered_by.to_string(),
        id,
        outputs: [Actions::new(&teacher.info.action, rows, actions)],
    };
    serde_json::to_vec(&inferred).map(Bytes::from).map_err(|error| Refusal::Failed(error.to_string()))
}

/// Who asks, if it may.
fn visitor(site: &Site, headers: &HeaderMap, policy: &str) -> Result<Arc<Visitor>, Refusal> {
    if !site.is_allowed(headers) {
        return Err(Refusal::Forbidden("pages of this origin may not ask here"));
    }
    let visitor = match site.server.bearer(headers) {
        Bearer::Machine(machine) => machine,
        Bearer::Absent if site.server.doorkeeper.is_none() => site.server.anyone(),
        Bearer::Absent | Bearer::Unknown => return Err(Refusal::Token),
    };
    match visitor.may_ask(policy) {
        true => Ok(visitor),
        false => Err(Refusal::Forbidden("this policy is not granted to this machine")),
    }
}

impl Site {
    fn overloaded(&self, reason: &'static str, pause: Duration) -> Refusal {
        self.server.metrics().dropped(reason);
        Refusal::Overloaded(pause)
    }
}

impl Path {
    fn read(path: &str) -> Option<Path> {
        let parts: Vec<&str> = path.strip_prefix(ROOT)?.split('/').skip(1).collect();
        let (name, rest) = match parts.as_slice() {
            [] | [""] => return Some(Path::Server),
            ["health", "live"] => return Some(Path::Live),
            ["health", "ready"] => return Some(Path::Ready),
            ["models", name, rest @ ..] => (percent_decode_str(name).decode_utf8().ok()?.into_owned(), rest),
            _ => return None,
        };
        let (version, rest) = match rest {
            ["versions", version, rest @ ..] => (Some((*version).to_owned()), rest),
            rest => (None, rest),
        };
        let what = match rest {
            [] => What::Metadata,
            ["ready"] => What::Ready,
            ["infer"] => What::Infer,
            _ => return None,
        };
        Some(Path::Model { name, version, what })
    }
}

impl Infer {
    /// The number of rows, at most `most`, and the observations `[rows, width]`.
    fn states(self, space: &Space, most: usize) -> Result<(usize, Vec<f32>), Refusal> {
        let refuse = |message: String| Err(Refusal::Request(message));
        if let Some(other) = self.outputs.iter().find(|output| output.name != OUTPUT) {
            return refuse(format!("expected output {OUTPUT:?}, got {:?}", other.name));
        }
        let [Tensor { name, shape, datatype, data }] = <[Tensor; 1]>::try_from(self.inputs)
            .map_err(|inputs| Refusal::Request(format!("expected one input, got {}", inputs.len())))?;
        if name != INPUT {
            return refuse(format!("expected input {INPUT:?}, got {name:?}"));
        }
        if !is_number(space, &datatype) {
            return refuse(format!("expected data of type {}, got {datatype:?}", self::datatype(space)));
        }
        let width = space.width();
        let rows = match shape[..] {
            [rows, found] if found == width => rows,
            [rows] if matches!(space, Space::Discrete { .. }) => rows,
            _ => return refuse(format!("expected a shape [rows, {width}], got {shape:?}")),
        };
        if rows == 0 || rows > most {
            return refuse(format!("expected 1 to {most} rows, got {rows}"));
        }
        let Numbers { all, run } = data;
        if all.len() != rows * width || (run != all.len() && run != width) {
            return refuse(format!("expected {rows} x {width} numbers, got {} in runs of {run}", all.len()));
        }
        let inside = |x: &f32| match space {
            Space::Discrete { n } => x.fract() == 0.0 && (0.0..*n as f32).contains(x),
            Space::Box { .. } => x.is_finite(),
        };
        match all.iter().position(|x| !inside(x)) {
            Some(i) => refuse(format!("number {i} is {}, which is no part of an observation", all[i])),
            None => Ok((rows, all)),
        }
    }
}

fn is_number(space: &Space, datatype: &str) -> bool {
    let whole = matches!(datatype.trim_start_matches('U'), "INT8" | "INT16" | "INT32" | "INT64");
    whole || (matches!(space, Space::Box { .. }) && matches!(datatype, "FP16" | "FP32" | "FP64"))
}

impl Actions {
    fn new(space: &Space, rows: usize, actions: Vec<f32>) -> Self {
        let data = match space {
            Space::Discrete { .. } => Data::Whole(actions.iter().map(|action| *action as i64).collect()),
            Space::Box { .. } => Data::Real(actions),
        };
        Actions { name: OUTPUT, shape: [rows, space.width()], datatype: datatype(space), data }
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut numbers = Numbers { all: Vec::new(), run: 0 };
        match Part(&mut numbers).deserialize(from)? {
            true => Ok(numbers),
            false => Err(D::Error::custom("expected an array of numbers, got a number")),
        }
    }
}

/// A number, or an array of such parts; tells whether it is an array. They go into one list as they come, so that
/// nothing larger than them is held. How deep arrays may be is `serde_json`'s limit.
struct Part<'a>(&'a mut Numbers);

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

impl Part<'_> {
    fn push(self, number: f32) -> bool {
        self.0.all.push(number);
        false
    }
}

impl<'de> Visit<'de> for Part<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers in arrays")
    }

    fn visit_f64<E>(self, number: f64) -> Result<bool, E> {
        Ok(self.push(number as f32))
    }

    fn visit_i64<E>(self, number: i64) -> Result<bool, E> {
        Ok(self.push(number as f32))
    }

    fn visit_u64<E>(self, number: u64) -> Result<bool, E> {
        Ok(self.push(number as f32))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<bool, A::Error> {
        let numbers = self.0;
        let (mut arrays, mut run) = (false, 0);
        while let Some(array) = parts.next_element_seed(Part(numbers))? {
            arrays |= array;
            run += usize::from(!array);
        }
        let other = numbers.run != 0 && numbers.run != run;
        if run > 0 && (arrays || other) {
            return Err(A::Error::custom("expected arrays of one length, got several"));
        }
        numbers.run = numbers.run.max(run);
        Ok(true)
    }
}

/// What must hold of a request whatever its bytes are; `oto-fuzz` asks it, and is told whether they were taken. What is taken is whole
/// observations of a space.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) -> bool {
    const MOST: usize = 8;
    let whole = Space::Discrete { n: 5 };
    let real = Space::Box { low: vec![f32::NEG_INFINITY; 2], high: vec![f32::INFINITY; 2] };
    let taken = [whole, real].map(|space| {
        let infer = serde_json::from_slice::<Infer>(bytes).ok();
        let Some((rows, numbers)) = infer.and_then(|infer| infer.states(&space, MOST).ok()) else {
            return false;
        };
        assert!((1..=MOST).contains(&rows) && numbers.len() == rows * space.width());
        assert!(numbers.iter().all(|x| match &space {
            Space::Discrete { n } => (0..*n).any(|choice| choice as f32 == *x),
            Space::Box { .. } => x.is_finite(),
        }));
        true
    });
    taken.contains(&true)
}

#[cfg(test)]
mod tests {
    use super::{Infer, Path, What};
    use oto_proto::Space;

    fn two() -> Space {
        Space::Box { low: vec![-1.0; 2], high: vec![1.0; 2] }
    }

    fn states(shape: &str, datatype: &str, data: &str, space: &Space) -> Result<(usize, Vec<f32>), String> {
        let input =
            format!(r#"{{"name":"observation","shape":{shape},"datatype":"{datatype}","data":{data}}}"#);
        let infer: Infer =
            serde_json::from_str(&format!(r#"{{"inputs":[{input}]}}"#)).map_err(|error| error.to_string())?;
        infer.states(space, 8).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn paths_are_those_of_the_protocol() {
        let model = |version: Option<&str>, what| {
            Some(Path::Model { name: "a b".into(), version: version.map(Into::into), what })
        };
        assert_eq!(Path::read("/v2"), Some(Path::Server));
        assert_eq!(Path::read("/v2/health/live"), Some(Path::Live));
        assert_eq!(Path::read("/v2/models/a%20b"), model(None, What::Metadata));
        assert_eq!(Path::read("/v2/models/a%20b/versions/3/infer"), model(Some("3"), What::Infer));
        assert_eq!(Path::read("/v2/models/a%20b/ready"), model(None, What::Ready));
        for nothing in ["/v2/models", "/v2/models/a/b", "/v2/models/%ff", "/v2/models/a/versions", "/v2/x"] {
            assert_eq!(Path::read(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn flat_and_nested_numbers_are_the_same_states() {
        let space = two();
        let expected = Ok((2, vec![1.0, 2.0, 3.5, -4.0]));
        assert_eq!(states("[2,2]", "FP32", "[1,2,3.5,-4]", &space), expected);
        assert_eq!(states("[2,2]", "FP64", "[[1,2],[3.5,-4]]", &space), expected);
        assert_eq!(states("[2]", "UINT8", "[0,4]", &Space::Discrete { n: 5 }), Ok((2, vec![0.0, 4.0])));
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let space = two();
        for (shape, datatype, data) in [
            ("[2,2]", "FP32", "[1,2,3]"),
            ("[2,2]", "FP32", "[[1,2,3],[4]]"),
            ("[2,2]", "FP32", "[[1,2],3,4]"),
            ("[1,2]", "FP32", "[[[[1],[2]]]]"),
            ("[1,2]", "FP32", "[1,\"2\"]"),
            ("[1,2]", "FP32", "7"),
            ("[1,2]", "FP64", "[1,1e300]"),
            ("[1,2]", "BYTES", "[1,2]"),
            ("[2]", "FP32", "[1,2]"),
            ("[0,2]", "FP32", "[]"),
            ("[9,2]", "FP32", "[1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9]"),
            ("[18446744073709551615,2]", "FP32", "[1,2]"),
            ("[-1,2]", "FP32", "[1,2]"),
        ] {
            assert!(states(shape, datatype, data, &space).is_err(), "{shape} {datatype} {data}");
        }
        for data in ["[5]", "[-1]", "[0.5]"] {
            assert!(states("[1,1]", "INT64", data, &Space::Discrete { n: 5 }).is_err(), "{data}");
        }
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(states("[1,2]", "FP32", &deep, &space).is_err());
    }
}

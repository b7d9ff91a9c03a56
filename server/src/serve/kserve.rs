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
//! the same bearer tokens. Tensors are JSON's numbers, or little-endian bytes after the JSON (the extension `binary_tensor_data`).

use crate::auth::access::Principal;
use crate::observe::spans::Traced;
use crate::serve::admission::{Bearer, Caller, Server};
use crate::serve::queue::{NotTaken, Request, Said};
use crate::serve::respond::{Answer, respond, seconds};
use crate::serve::rows::Asks;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use oto_proto::{Space, TeacherInfo};
use percent_encoding::percent_decode_str;
use serde::de::{DeserializeSeed, Error, IgnoredAny, SeqAccess, Visitor as Visit};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Where all of it is.
pub(crate) const ROOT: &str = "/v2";

/// The extension of bytes in place of numbers, and the header that says where the JSON before them ends.
const BINARY: &str = "binary_tensor_data";
const JSON_BYTES: &str = "inference-header-content-length";
/// A request may have held this much without a share of what all have.
const OWN_BYTES: usize = 16 << 10;
/// A body up to here is read at once, a longer one after other long ones.
const SHORT_BODY: usize = 16 << 10;

const INPUT: &str = "observation";
const OUTPUT: &str = "action";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is nothing here")]
    Nothing,
    #[error("expected {0}")]
    Method(&'static str),
    #[error("expected a body as it is, without content-encoding, got one with {0:?}")]
    Encoding(String),
    #[error("there is no policy {0:?} here")]
    Policy(String),
    #[error("policy {0:?} is recurrent: it answers over the WebSocket alone, where states have an order")]
    Recurrent(String),
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
    #[error("more than the quota: come again later")]
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
            Refusal::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::Token => StatusCode::UNAUTHORIZED,
            Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
            Refusal::Body(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Request(_) | Refusal::Recurrent(_) => StatusCode::BAD_REQUEST,
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
    #[serde(default)]
    parameters: Parameters,
}

/// Those of a request, of its input and of its output; each has one.
#[derive(Default, Deserialize)]
struct Parameters {
    /// Whether outputs that say nothing are bytes.
    binary_data_output: Option<bool>,
    /// How many bytes an input has.
    binary_data_size: Option<usize>,
    /// Whether an output is bytes.
    binary_data: Option<bool>,
    /// Of extensions that this server does not have. Without them the answer would be another one than was asked for.
    classification: Option<IgnoredAny>,
    shared_memory_region: Option<IgnoredAny>,
}

impl Parameters {
    /// Refuses what another extension means.
    fn check(&self) -> Result<(), Refusal> {
        let names = [
            ("classification", self.classification.is_some()),
            ("shared_memory_region", self.shared_memory_region.is_some()),
        ];
        match names.into_iter().find(|(_, there)| *there) {
            Some((name, _)) => Err(Refusal::Request(format!(
                "expected no parameter {name}: this server has no such extension"
            ))),
            None => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Option<Numbers>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// What is asked, and how it is to be answered.
#[derive(Debug, PartialEq)]
struct Asked {
    id: Option<String>,
    rows: usize,
    observations: Vec<f32>,
    /// Whether the actions are wanted as bytes.
    binary: bool,
}

/// The body of an answer.
struct Reply {
    body: Bytes,
    /// Bytes of its JSON, if others follow.
    json: Option<usize>,
}

impl From<Value> for Reply {
    fn from(json: Value) -> Self {
        Reply { body: json.to_string().into(), json: None }
    }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data {
    Whole(Vec<i64>),
    Real(Vec<f32>),
}

/// The state that answers need.
pub(crate) struct Context {
    pub server: Arc<Server>,
    pub caller: Caller,
    /// Whether the page behind the request may use the server.
    pub allowed: bool,
    /// Whether the server takes nothing new any more.
    pub stops: bool,
}

/// Answers a request whose path is at [`ROOT`] or below.
pub(crate) async fn answer(context: &Context, request: hyper::Request<Incoming>) -> Answer {
    match answered(context, request).await {
        Ok(Reply { body, json: None }) => said(StatusCode::OK, "application/json", body),
        Ok(Reply { body, json: Some(bytes) }) => {
            let mut answer = said(StatusCode::OK, "application/octet-stream", body);
            answer.headers_mut().insert(JSON_BYTES, HeaderValue::from(bytes));
            answer
        }
        Err(refusal) => {
            let body = json!({ "error": refusal.to_string() }).to_string();
            let mut answer = said(refusal.status(), "application/json", body.into());
            let headers = answer.headers_mut();
            if let Some(pause) = refusal.pause() {
                headers.insert(header::RETRY_AFTER, seconds(pause));
            }
            match refusal {
                Refusal::Method(allow) => {
                    drop(headers.insert(header::ALLOW, HeaderValue::from_static(allow)))
                }
                Refusal::Encoding(_) => {
                    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
                }
                _ => {}
            }
            answer
        }
    }
}

fn said(status: StatusCode, mime: &'static str, body: Bytes) -> Answer {
    let mut answer = respond(status, mime, body);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

async fn answered(context: &Context, request: hyper::Request<Incoming>) -> Result<Reply, Refusal> {
    let policies = &context.server.config.policies;
    let path = Path::read(request.uri().path()).ok_or(Refusal::Nothing)?;
    let allow = if matches!(path, Path::Model { what: What::Infer, .. }) { "POST" } else { "GET, HEAD" };
    if !allow.split(", ").any(|method| method == request.method().as_str()) {
        return Err(Refusal::Method(allow));
    }
    let (name, version, what) = match path {
        Path::Server => {
            let version = env!("CARGO_PKG_VERSION");
            return Ok(json!({ "name": "oto", "version": version, "extensions": [BINARY] }).into());
        }
        Path::Live => return Ok(json!({ "live": true }).into()),
        Path::Ready if context.stops || policies.is_empty() => return Err(Refusal::NotReady),
        Path::Ready => return Ok(json!({ "ready": true }).into()),
        Path::Model { name, version, what } => (name, version, what),
    };
    let now = policies.version(&name).ok_or_else(|| Refusal::Policy(name.clone()))?;
    is_version(version.as_deref(), now)?;
    match what {
        What::Metadata => {
            let info = policies.info(&name).ok_or_else(|| Refusal::Policy(name.clone()))?;
            Ok(metadata(&name, now, info).into())
        }
        What::Ready => Ok(json!({ "name": name, "ready": true }).into()),
        What::Infer => inferred(context, &name, version.as_deref(), request).await,
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
    context: &Context,
    name: &str,
    version: Option<&str>,
    request: hyper::Request<Incoming>,
) -> Result<Reply, Refusal> {
    let (server, limits) = (&context.server, &context.server.config.limits);
    let principal = principal(context, request.headers(), name).inspect_err(|refusal| {
        server.note(&context.caller, "infer", Some(name), &refusal.to_string());
    })?;
    let mut teacher =
        server.config.policies.hosted_teacher(name).ok_or_else(|| Refusal::Policy(name.into()))?;
    if teacher.state_width() > 0 {
        return Err(Refusal::Recurrent(name.into()));
    }
    let _entered = principal.enter().ok_or_else(|| context.overloaded("connections", limits.retry))?;
    let traced = Traced::begin(name);
    as_it_is(request.headers())?;
    let json = json_bytes(request.headers())?;
    // The body, the numbers in it, and those of the answer.
    let long = request.body().size_hint().upper().map_or(limits.message_bytes, |bytes| bytes as usize);
    let account = server.account(&principal, &context.caller, OWN_BYTES);
    let held = account.take(long.min(limits.message_bytes).saturating_mul(4));
    let held = Some(held.ok_or_else(|| context.overloaded("bytes", limits.retry))?);
    let body = Limited::new(request.into_body(), limits.message_bytes).collect();
    let Ok(Ok(body)) = timeout(limits.header_timeout, body).await else {
        return Err(Refusal::Body(limits.message_bytes));
    };
    let info = &teacher.info;
    let widest = info.observation.width().max(info.action.width());
    let (space, most) = (info.observation.clone(), limits.rows_of(widest).into());
    let short = body.size_hint().exact().is_some_and(|bytes| bytes <= SHORT_BODY as u64);
    let read = move || Asked::read(&body.to_bytes(), json, &space, most);
    let Asked { id, rows, observations, binary } = match short {
        true => read()?,
        false => {
            let read = server.aside.work(read).await;
            read.ok_or_else(|| Refusal::Failed("reading it failed".into()))??
        }
    };
    principal.spend(rows).map_err(|pause| {
        server.metrics().dropped("quota");
        Refusal::Quota(pause)
    })?;
    let (reply, mut answers) = mpsc::channel(1);
    let request = Request {
        id: 0,
        rows,
        came: Instant::now(),
        observations,
        asks: Asks::Actions,
        reply,
        order: None,
        traced,
        held,
    };
    teacher.ask(request, &limits.queue).map_err(|not_taken| match not_taken {
        NotTaken::Full(pause) => context.overloaded("full", pause),
        NotTaken::Gone => Refusal::Failed("the policy does not run any more".into()),
    })?;
    server.metrics().taken(rows);
    let Some(answer) = answers.recv().await else {
        return Err(Refusal::Failed("the policy stopped before it answered".into()));
    };
    let (answered_by, actions) = match answer.said {
        Said::Actions { version, actions } => (version, actions),
        Said::Failed(error) => return Err(Refusal::Failed(error.message)),
        Said::Late(pause) => return Err(context.overloaded("late", pause)),
    };
    is_version(version, answered_by)?;
    server.metrics().answered(answer.came);
    let (actions, bytes) = Actions::new(&teacher.info.action, rows, actions, binary);
    let outputs = [actions];
    let inferred = Inferred { model_name: name, model_version: answered_by.to_string(), id, outputs };
    let mut body = serde_json::to_vec(&inferred).map_err(|error| Refusal::Failed(error.to_string()))?;
    let json = bytes.as_ref().map(|_| body.len());
    body.extend(bytes.unwrap_or_default());
    Ok(Reply { body: body.into(), json })
}

/// A body that is packed is not unpacked: a little of it may be a lot.
fn as_it_is(headers: &HeaderMap) -> Result<(), Refusal> {
    let coded = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut coded = coded.map(|coding| String::from_utf8_lossy(coding.as_bytes()).into_owned());
    match coded.find(|coding| !coding.eq_ignore_ascii_case("identity")) {
        Some(coding) => Err(Refusal::Encoding(coding.chars().take(40).collect())),
        None => Ok(()),
    }
}

/// Where the JSON of a body ends that bytes follow.
fn json_bytes(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(JSON_BYTES) else { return Ok(None) };
    let bytes = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    bytes
        .map(Some)
        .ok_or_else(|| Refusal::Request(format!("expected a number in {JSON_BYTES}, got {value:?}")))
}

/// Who asks, if it may.
fn principal(context: &Context, headers: &HeaderMap, policy: &str) -> Result<Arc<Principal>, Refusal> {
    if !context.allowed {
        return Err(Refusal::Forbidden("pages of this origin may not ask here"));
    }
    let principal = match context.server.bearer(headers) {
        Bearer::Machine(machine) => machine,
        Bearer::Absent if context.server.authenticator().is_none() => context.server.anyone(),
        Bearer::Absent => return Err(Refusal::Token),
        Bearer::Unknown => {
            context.server.knock(&context.caller).map_err(Refusal::Quota)?;
            return Err(Refusal::Token);
        }
    };
    match principal.may_ask(policy) {
        true => Ok(principal),
        false => Err(Refusal::Forbidden("this policy is not granted to this machine")),
    }
}

impl Context {
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

impl Asked {
    /// What a body asks: JSON, and from `json` on the bytes of its input. At most `most` rows of a space.
    fn read(body: &[u8], json: Option<usize>, space: &Space, most: usize) -> Result<Self, Refusal> {
        let refuse = |message: String| Err(Refusal::Request(message));
        let Some((text, bytes)) = body.split_at_checked(json.unwrap_or(body.len())) else {
            return refuse(format!("expected {} bytes of JSON, got {}", json.unwrap_or(0), body.len()));
        };
        let Infer { id, inputs, outputs, parameters } =
            serde_json::from_slice(text).map_err(|error| Refusal::Request(error.to_string()))?;
        let tensors = inputs.iter().map(|input| &input.parameters);
        tensors.chain(outputs.iter().map(|output| &output.parameters)).try_for_each(Parameters::check)?;
        if let Some(other) = outputs.iter().find(|output| output.name != OUTPUT) {
            return refuse(format!("expected output {OUTPUT:?}, got {:?}", other.name));
        }
        let all = parameters.binary_data_output.unwrap_or(false);
        let binary = outputs.first().and_then(|output| output.parameters.binary_data).unwrap_or(all);
        let [input] = <[Tensor; 1]>::try_from(inputs)
            .map_err(|inputs| Refusal::Request(format!("expected one input, got {}", inputs.len())))?;
        let (rows, observations) = input.states(space, most, bytes)?;
        Ok(Asked { id, rows, observations, binary })
    }
}

impl Tensor {
    /// The number of rows, at most `most`, and the observations `[rows, width]`.
    fn states(self, space: &Space, most: usize, bytes: &[u8]) -> Result<(usize, Vec<f32>), Refusal> {
        let refuse = |message: String| Err(Refusal::Request(message));
        let Tensor { name, shape, datatype, data, parameters } = self;
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
        let Numbers { all, run } = match (data, parameters.binary_data_size) {
            (Some(_), None) if !bytes.is_empty() => {
                return refuse(format!("expected no bytes after the JSON, got {}", bytes.len()));
            }
            (Some(numbers), None) => numbers,
            (None, Some(size)) => {
                let wide = bytes_of(&datatype);
                if size != bytes.len() || size != rows * width * wide {
                    let expected = rows * width * wide;
                    let found = bytes.len();
                    return refuse(format!(
                        "expected {expected} bytes of {datatype}, got {size} and {found} came"
                    ));
                }
                Numbers { all: bytes.chunks_exact(wide).map(|b| number(&datatype, b)).collect(), run: width }
            }
            (Some(_), Some(_)) => return refuse("expected data or binary_data_size, got both".into()),
            (None, None) => return refuse("expected data or binary_data_size, got neither".into()),
        };
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

/// How many bytes a number of this type has.
fn bytes_of(datatype: &str) -> usize {
    match datatype {
        "INT8" | "UINT8" => 1,
        "INT16" | "UINT16" | "FP16" => 2,
        "INT64" | "UINT64" | "FP64" => 8,
        _ => 4,
    }
}

/// A number of this type, which has as many bytes as [`bytes_of`] says; the low ones come first.
fn number(datatype: &str, bytes: &[u8]) -> f32 {
    let mut low = [0; 8];
    low[..bytes.len()].copy_from_slice(bytes);
    let (whole, unused) = (u64::from_le_bytes(low), 64 - 8 * bytes.len() as u32);
    let signed = ((whole << unused) as i64) >> unused;
    match datatype {
        "FP16" => half::f16::from_bits(whole as u16).to_f32(),
        "FP32" => f32::from_bits(whole as u32),
        "FP64" => f64::from_bits(whole) as f32,
        datatype if datatype.starts_with('U') => whole as f32,
        _ => signed as f32,
    }
}

fn is_number(space: &Space, datatype: &str) -> bool {
    let whole = matches!(datatype.trim_start_matches('U'), "INT8" | "INT16" | "INT32" | "INT64");
    whole || (matches!(space, Space::Box { .. }) && matches!(datatype, "FP16" | "FP32" | "FP64"))
}

impl Actions {
    /// The actions, and as bytes beside them if that is how they are wanted.
    fn new(space: &Space, rows: usize, actions: Vec<f32>, binary: bool) -> (Self, Option<Vec<u8>>) {
        let whole = matches!(space, Space::Discrete { .. });
        let bytes = binary.then(|| match whole {
            true => actions.iter().flat_map(|action| (*action as i64).to_le_bytes()).collect::<Vec<u8>>(),
            false => actions.iter().flat_map(|action| action.to_le_bytes()).collect(),
        });
        let parameters = bytes.as_ref().map(|bytes| json!({ "binary_data_size": bytes.len() }));
        let data = (!binary).then(|| match whole {
            true => Data::Whole(actions.iter().map(|action| *action as i64).collect()),
            false => Data::Real(actions),
        });
        let (shape, datatype) = ([rows, space.width()], datatype(space));
        (Actions { name: OUTPUT, shape, datatype, data, parameters }, bytes)
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

/// What must hold of a request whatever its bytes are; `tests/fuzz` calls it, and learns whether they were accepted. What is taken is whole
/// observations of a space.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) -> bool {
    const MOST: usize = 8;
    let whole = Space::Discrete { n: 5 };
    let real = Space::Box { low: vec![f32::NEG_INFINITY; 2], high: vec![f32::INFINITY; 2] };
    let taken = [whole, real].map(|space| {
        // As JSON alone, and as JSON that ends with the first line.
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let read = |json| Asked::read(bytes, json, &space, MOST).ok();
        let Some(Asked { rows, observations: numbers, .. }) = read(None).or_else(|| read(Some(end?))) else {
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
    use super::{Asked, Path, What};
    use oto_proto::Space;

    fn two() -> Space {
        Space::Box { low: vec![-1.0; 2], high: vec![1.0; 2] }
    }

    fn states(shape: &str, datatype: &str, data: &str, space: &Space) -> Result<(usize, Vec<f32>), String> {
        let input =
            format!(r#"{{"name":"observation","shape":{shape},"datatype":"{datatype}","data":{data}}}"#);
        let body = format!(r#"{{"inputs":[{input}]}}"#);
        let asked = Asked::read(body.as_bytes(), None, space, 8).map_err(|refusal| refusal.to_string())?;
        Ok((asked.rows, asked.observations))
    }

    /// A body with bytes after its JSON.
    fn binary(
        datatype: &str,
        shape: &str,
        size: usize,
        bytes: &[u8],
        space: &Space,
    ) -> Result<Vec<f32>, String> {
        let json = format!(
            r#"{{"inputs":[{{"name":"observation","shape":{shape},"datatype":"{datatype}","parameters":{{"binary_data_size":{size}}}}}],"outputs":[{{"name":"action","parameters":{{"binary_data":true}}}}]}}"#
        );
        let body = [json.as_bytes(), bytes].concat();
        let asked = Asked::read(&body, Some(json.len()), space, 8).map_err(|refusal| refusal.to_string())?;
        assert!(asked.binary);
        Ok(asked.observations)
    }

    #[test]
    fn bytes_are_the_same_states() {
        let space = two();
        let expected = Ok(vec![1.0, -2.0]);
        let bytes = |numbers: [&[u8]; 2]| numbers.concat();
        for (datatype, numbers) in [
            ("FP32", bytes([&1.0_f32.to_le_bytes(), &(-2.0_f32).to_le_bytes()])),
            ("FP64", bytes([&1.0_f64.to_le_bytes(), &(-2.0_f64).to_le_bytes()])),
            ("FP16", bytes([&[0x00, 0x3c], &[0x00, 0xc0]])),
            ("INT8", bytes([&[1], &[0xfe]])),
            ("INT16", bytes([&1_i16.to_le_bytes(), &(-2_i16).to_le_bytes()])),
            ("INT32", bytes([&1_i32.to_le_bytes(), &(-2_i32).to_le_bytes()])),
            ("INT64", bytes([&1_i64.to_le_bytes(), &(-2_i64).to_le_bytes()])),
        ] {
            assert_eq!(binary(datatype, "[1,2]", numbers.len(), &numbers, &space), expected, "{datatype}");
            for (size, came) in
                [(numbers.len() - 1, &numbers[1..]), (numbers.len(), &numbers[1..]), (0, &[][..])]
            {
                assert!(binary(datatype, "[1,2]", size, came, &space).is_err(), "{datatype}");
            }
            assert!(binary(datatype, "[2,2]", numbers.len(), &numbers, &space).is_err());
        }
        let five = Space::Discrete { n: 5 };
        assert_eq!(binary("UINT64", "[1]", 8, &4_u64.to_le_bytes(), &five), Ok(vec![4.0]));
        assert!(binary("UINT8", "[1]", 1, &[255], &five).is_err());
        assert!(binary("FP32", "[1,2]", 8, &[0xff; 8], &space).is_err(), "NaN");
        assert!(binary("BYTES", "[1,2]", 8, &[0; 8], &space).is_err());
        assert!(binary("FP32", "[9223372036854775807,2]", 8, &[0; 8], &space).is_err());
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

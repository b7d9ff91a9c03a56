//! Control messages: JSON text frames, told apart by their field `type`. They are rare and meant to be read by people,
//! so unknown fields are ignored and everything else is checked. `schema/*.json` describes them for other languages.

use crate::adapter::{Adapter, AdapterError};
use crate::frame::{ActionFormat, Dtype, FormatError, FrameError, Quantization, StateFormat};
use crate::gradients::WorkerInfo;
use crate::logits::{GroupInfo, MAX_MEMBERS, MemberInfo, Peers};
use crate::space::{Space, check_space};
use crate::stream::{MAX_SEQUENCE, StreamId};
use crate::submission::BatchId;
use crate::weights::{Encoding, Model};
use oto_json::{FromJson, Json, JsonError, Object, Writer};
use thiserror::Error;

/// The WebSocket subprotocol, and the value of the field `protocol` in `hello`.
pub const PROTOCOL: &str = "oto.v1";
/// The longest control message, in bytes.
pub const MAX_CONTROL_BYTES: usize = 1 << 20;
/// The longest control message of a student after its `hello`, in bytes.
pub const MAX_TEXT_BYTES: usize = 4 << 10;
/// The longest name of a policy or of a student, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// The longest list of encodings of weights.
pub const MAX_ENCODINGS: usize = 16;

/// What a student says.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientMessage {
    /// The first message of every connection.
    Hello(Box<Hello>),
    /// The student entered a stage.
    Stage(StageEvent),
    /// An actor acts with new weights.
    Applied(Applied),
    /// An actor cannot use the weights that came.
    Refused(Refused),
    /// An actor has no rows below this one any more.
    Dropped(Dropped),
    /// The student is done and closes.
    Bye,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerMessage {
    /// The answer to `hello`: states may be sent.
    Welcome(Box<Welcome>),
    /// The policy was replaced by a new version.
    Published(Published),
    /// A submission is kept for good.
    Submitted(Submitted),
    /// Rows of an actor's stream are acknowledged.
    Received(Received),
    /// The members of a group that may be asked.
    Peers(Peers),
    /// A request was dropped, or the server asks for fewer of them.
    Overloaded(Overloaded),
    /// The server stops and closes this connection.
    Restarting(Restarting),
    /// Something was refused.
    Error(ErrorMessage),
}

/// The student's introduction.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// Always [`PROTOCOL`].
    pub protocol: String,
    /// The name of the policy that shall answer.
    pub policy: String,
    /// A name the student chose for itself; for logs and pages, not for access.
    pub student: String,
    /// The student's observation space.
    pub observation: Space,
    /// The student's action space.
    pub action: Space,
    /// How both are mapped to the teacher's; none where they fit as they are.
    pub adapter: Option<Adapter>,
    /// How states travel.
    pub dtype: Dtype,
    /// How actions travel; see [`ActionFormat::new`] for what is chosen without it.
    pub action_dtype: Option<Dtype>,
    /// What the bytes of `u8` states mean.
    pub quantization: Option<Quantization>,
    /// What the student asks for beyond sending states; by default only actions.
    pub grants: Vec<Grant>,
    /// The stage the student is in.
    pub stage: Option<Stage>,
    /// What lets a student in that could show no token at the handshake; good once.
    pub ticket: Option<String>,
    /// Whether the student can say where each state stands, which a recurrent policy needs; absent: it cannot.
    pub order: Option<bool>,
    /// What an actor says about itself; there if it asks for [`Grant::Transitions`] or [`Grant::Weights`].
    pub actor: Option<ActorInfo>,
    /// What an asynchronous worker says about itself; there if it asks for [`Grant::Gradients`].
    pub worker: Option<WorkerInfo>,
    /// The description of a member of a group; there if it asks for [`Grant::PeerLogits`].
    pub member: Option<MemberInfo>,
}

oto_json::json_object! {
    Hello: open {
        protocol, policy, student, observation, action, adapter omit none, dtype = Dtype::default(), action_dtype omit none,
        quantization omit none, grants = vec![Grant::Actions], stage omit none, ticket omit none, order omit none,
        actor omit none, worker omit none, member omit none
    }
}

/// What an actor says about itself: which stream it sends, and which weights it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct ActorInfo {
    /// The edge's name: a newer session of the same name replaces the older one.
    pub name: String,
    /// The stream, a name that this instance of the actor drew at random.
    pub stream: StreamId,
    /// The number of the first row that it still holds.
    pub first: u64,
    /// The encodings of weights that it reads, the preferred one first.
    pub weights: Vec<Encoding>,
    /// The version of the weights that it holds; 0 for none.
    pub version: u32,
}

oto_json::json_object! { ActorInfo: open { name, stream, first = 0, weights = vec![Encoding::F32], version = 0 } }

/// Something a connection may carry, if the server grants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The teacher's actions for the student's states.
    Actions,
    /// The teacher's logits for the student's states, in place of its actions.
    Logits,
    /// Labels made elsewhere.
    Label,
    /// Replay submissions.
    Submit,
    /// Parameters of the policy.
    Weights,
    /// Transitions for a learner in the cloud.
    Transitions,
    /// Logits of the other members of a group, and for them.
    PeerLogits,
    /// Gradients for a shared agent.
    Gradients,
}

oto_json::json_names! {
    Grant {
        Actions = "actions", Logits = "logits", Label = "label", Submit = "submit", Weights = "weights", Transitions = "transitions",
        PeerLogits = "peer_logits", Gradients = "gradients"
    }
}

/// A stage of a student's round (OTO, Algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Training alone, before any teacher.
    Offline,
    /// Training with teachers.
    Transfer,
    /// Training alone, after the teachers.
    Online,
}

oto_json::json_names! { Stage { Offline = "offline", Transfer = "transfer", Online = "online" } }

/// The student entered a stage. An event for the server to show; it changes nothing there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageEvent {
    /// The stage entered.
    pub stage: Stage,
    /// The student's environment step at that moment.
    pub step: u64,
}

oto_json::json_object! { StageEvent: open { stage, step } }

/// The server's answer to `hello`.
#[derive(Clone, Debug, PartialEq)]
pub struct Welcome {
    /// The name of the policy, as asked for.
    pub policy: String,
    /// Its number in binary frames.
    pub policy_id: u32,
    /// Its version now, at least 1.
    pub version: u32,
    /// The largest number of rows in one request.
    pub max_rows: u16,
    /// How many requests may be in flight at once.
    pub credits: u16,
    /// How states travel, as asked for.
    pub dtype: Dtype,
    /// How actions travel.
    pub action_dtype: Dtype,
    /// Numbers in one action; 1 for an index.
    pub action_width: u32,
    /// What was granted of what the student asked for.
    pub grants: Vec<Grant>,
    /// The largest number of transitions in one submission; there if [`Grant::Submit`] was granted.
    pub submit_rows: Option<u16>,
    /// Whether the policy is recurrent: each state of a frame has its [`Place`](crate::Place); absent: it is not.
    pub order: Option<bool>,
    /// Who teaches.
    pub teacher: TeacherInfo,
    /// What a learner says to its actor; there if [`Grant::Transitions`] or [`Grant::Weights`] was granted.
    pub learner: Option<LearnerInfo>,
    /// What a shared agent says to its worker; there if [`Grant::Gradients`] was granted.
    pub shared: Option<SharedInfo>,
    /// A group's answer to its member; there if [`Grant::PeerLogits`] was granted.
    pub group: Option<GroupInfo>,
}

oto_json::json_object! {
    Welcome: open {
        policy, policy_id, version, max_rows, credits, dtype, action_dtype, action_width, grants, submit_rows omit none,
        order omit none, teacher, learner omit none, shared omit none, group omit none
    }
}

/// What a shared agent says to its worker.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedInfo {
    /// The number of this session, at least 1.
    pub session: u32,
    /// The algorithm's settings and the discount factor: a worker with other ones computes other gradients.
    pub settings: Json,
}

oto_json::json_object! { SharedInfo: open { session, settings } }

/// What a learner says to its actor.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnerInfo {
    /// The number of this session, at least 1; it grows with each connection of an edge's name.
    pub session: u32,
    /// The number of the first row that the learner wants.
    pub next: u64,
    /// The most rows that may be sent and not acknowledged.
    pub ring: u32,
    /// How weights travel.
    pub weights: Encoding,
    /// The network that acts.
    pub model: Model,
    /// Steps per second that the learner expects, if it expects a rate.
    pub hz: Option<f64>,
    /// How the learner wants its actors to explore, if it says so.
    pub exploration: Option<Json>,
}

oto_json::json_object! {
    LearnerInfo: open { session, next, ring, weights, model, hz omit none, exploration omit none }
}

/// All rows below this number are acknowledged: the learner has them, and the actor need not hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The number of the first row that is not acknowledged.
    pub next: u64,
    /// Updates that the learner owes for the rows it has, if it says so.
    pub backlog: Option<u64>,
}

oto_json::json_object! { Received: open { next, backlog omit none } }

/// The actor acts with these weights from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Their version.
    pub version: u32,
}

oto_json::json_object! { Applied: open { version } }

/// The actor cannot use these weights: complete ones are to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Their version.
    pub version: u32,
    /// Why.
    pub reason: WeightsReason,
}

oto_json::json_object! { Refused: open { version, reason } }

/// Why an actor refuses weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightsReason {
    /// Not a frame of weights for this connection.
    BadFrame,
    /// Of another length than the network has parameters.
    WrongLength,
    /// A compressed difference that cannot be read.
    Corrupt,
    /// A parameter is NaN or infinite.
    NotFinite,
    /// The difference is to weights that the actor does not hold.
    MissingBase,
    /// Not newer than the weights that the actor holds.
    Stale,
}

oto_json::json_names! {
    WeightsReason {
        BadFrame = "bad_frame", WrongLength = "wrong_length", Corrupt = "corrupt", NotFinite = "not_finite",
        MissingBase = "missing_base", Stale = "stale"
    }
}

/// The actor's ring was full: rows below this number that are not acknowledged are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The number of the first row that the actor still holds.
    pub first: u64,
}

oto_json::json_object! { Dropped: open { first } }

/// What a server tells about a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct TeacherInfo {
    /// The teacher's own observation space.
    pub observation: Space,
    /// The teacher's own action space.
    pub action: Space,
    /// One or two sentences for people.
    pub description: String,
}

oto_json::json_object! { TeacherInfo: open { observation, action, description = String::new() } }

/// The policy has a new version; labels from older ones stay valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The new version.
    pub version: u32,
}

oto_json::json_object! { Published: open { version } }

/// A batch is kept and will outlive the server, or it was kept before: the student need not send it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The submission's request.
    pub request: u32,
    /// The batch.
    pub batch: BatchId,
}

oto_json::json_object! { Submitted: open { request, batch } }

/// The server has too much to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded {
    /// The request that was dropped and may be sent again; none if it is a plea only.
    pub request: Option<u32>,
    /// When to send again, in milliseconds from now.
    pub retry_ms: u32,
}

oto_json::json_object! { Overloaded: open { request omit none, retry_ms } }

/// The server goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarting {
    /// When to connect again, in milliseconds from now.
    pub retry_ms: u32,
}

oto_json::json_object! { Restarting: open { retry_ms } }

/// A refusal: of one request, or of the connection if it names none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct ErrorMessage {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what was expected and what came.
    pub message: String,
    /// The request that was refused.
    pub request: Option<u32>,
}

oto_json::json_object! { ErrorMessage: open { code, message, request omit none } }

/// The kinds of refusal. Each has a WebSocket close code, for when the connection ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// Not a message or frame of this protocol, or not one for this moment.
    BadMessage,
    /// Another subprotocol.
    WrongProtocol,
    /// No policy of this name, or a frame for another policy than the connection's.
    UnknownPolicy,
    /// The spaces of student and teacher do not fit.
    SpaceMismatch,
    /// The adapter cannot be used.
    BadAdapter,
    /// A payload of the wrong length.
    BadShape,
    /// A number type that was not agreed upon or cannot carry the space.
    BadDtype,
    /// NaN or infinity.
    NotFinite,
    /// More rows or bytes than allowed.
    TooLarge,
    /// A reserved kind of frame.
    NotSupported,
    /// Not granted to this student.
    Forbidden,
    /// The peer took too long.
    Timeout,
    /// The policy had no usable answer.
    PolicyFailed,
    /// An action that does not exist.
    OutOfRange,
    /// A fault of the server itself.
    Internal,
    /// Rows that do not follow the ones before them.
    OutOfOrder,
    /// A newer session of the same edge has taken over.
    Replaced = 22,
}

oto_json::json_names! {
    ErrorCode {
        BadMessage = "bad_message", WrongProtocol = "wrong_protocol", UnknownPolicy = "unknown_policy",
        SpaceMismatch = "space_mismatch", BadAdapter = "bad_adapter", BadShape = "bad_shape", BadDtype = "bad_dtype",
        NotFinite = "not_finite", TooLarge = "too_large", NotSupported = "not_supported", Forbidden = "forbidden",
        Timeout = "timeout", PolicyFailed = "policy_failed", OutOfRange = "out_of_range", Internal = "internal",
        OutOfOrder = "out_of_order", Replaced = "replaced"
    }
}

/// The close code that follows `restarting`.
pub const CLOSE_RESTARTING: u16 = 4020;
/// The close code of a server that takes no more connections for now.
pub const CLOSE_OVERLOADED: u16 = 4021;

impl ErrorCode {
    /// Every code, in the order of the close codes.
    pub const ALL: [ErrorCode; 17] = {
        use ErrorCode::*;
        [
            BadMessage,
            WrongProtocol,
            UnknownPolicy,
            SpaceMismatch,
            BadAdapter,
            BadShape,
            BadDtype,
            NotFinite,
            TooLarge,
            NotSupported,
            Forbidden,
            Timeout,
            PolicyFailed,
            OutOfRange,
            Internal,
            OutOfOrder,
            Replaced,
        ]
    };

    /// The WebSocket close code of a connection that ends for this reason: 4000 and following.
    pub fn close_code(self) -> u16 {
        4000 + self as u16
    }

    /// The reason behind a close code.
    pub fn from_close_code(code: u16) -> Option<ErrorCode> {
        ErrorCode::ALL.into_iter().find(|reason| reason.close_code() == code)
    }

    /// Whether the same `hello` would be refused again, so that connecting anew is of no use.
    pub fn is_permanent(self) -> bool {
        use ErrorCode::{Internal, OutOfOrder, PolicyFailed, Timeout};
        !matches!(self, Timeout | PolicyFailed | Internal | OutOfOrder)
    }
}

impl ErrorMessage {
    /// An error about the connection.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ErrorMessage { code, message: message.into(), request: None }
    }

    /// The same error about one request.
    pub fn about(mut self, request: Option<u32>) -> Self {
        self.request = request;
        self
    }
}

impl From<FrameError> for ErrorMessage {
    fn from(error: FrameError) -> Self {
        ErrorMessage::new(error.code(), error.to_string())
    }
}

impl From<AdapterError> for ErrorMessage {
    fn from(error: AdapterError) -> Self {
        ErrorMessage::new(error.code(), error.to_string())
    }
}

impl From<FormatError> for ErrorMessage {
    fn from(error: FormatError) -> Self {
        let code = match error {
            FormatError::Space(_) => ErrorCode::BadMessage,
            FormatError::Dtype { .. } | FormatError::Quantization { .. } => ErrorCode::BadDtype,
        };
        ErrorMessage::new(code, error.to_string())
    }
}

impl From<MessageError> for ErrorMessage {
    fn from(error: MessageError) -> Self {
        let code = match error {
            MessageError::TooLarge(_) => ErrorCode::TooLarge,
            MessageError::UnknownType(_) | MessageError::Malformed(_) => ErrorCode::BadMessage,
        };
        ErrorMessage::new(code, error.to_string())
    }
}

/// Why a control message could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Longer than [`MAX_CONTROL_BYTES`].
    #[error("a control message has at most {MAX_CONTROL_BYTES} bytes, this one has {0}")]
    TooLarge(usize),
    /// A type that this direction of this version does not have.
    #[error("unknown message type {0:?}")]
    UnknownType(String),
    /// Not JSON, or not of the form of its type.
    #[error("not a control message: {0}")]
    Malformed(String),
}

/// A message before its type's form is looked at.
struct Tagged {
    tag: String,
    content: Json,
}

impl Tagged {
    fn read(text: &str) -> Result<Self, MessageError> {
        if text.len() > MAX_CONTROL_BYTES {
            return Err(MessageError::TooLarge(text.len()));
        }
        let content = oto_json::parse(text).map_err(malformed)?;
        match content.get("type") {
            Some(Json::Text(tag)) => Ok(Self { tag: tag.clone(), content }),
            _ => Err(MessageError::Malformed("its `type` is missing or no text".into())),
        }
    }

    fn message<T: FromJson>(&self) -> Result<T, MessageError> {
        oto_json::from_tree(&self.content).map_err(malformed)
    }
}

fn malformed(error: JsonError) -> MessageError {
    MessageError::Malformed(error.to_string())
}

/// Checks the spaces of a message.
fn spaces(observation: &Space, action: &Space) -> Result<(), MessageError> {
    for (name, space) in [("observation", observation), ("action", action)] {
        check_space(space).map_err(|error| MessageError::Malformed(format!("{name}: {error}")))?;
    }
    Ok(())
}

/// Checks a row's number.
fn sequence(field: &str, number: u64) -> Result<(), MessageError> {
    match number <= MAX_SEQUENCE {
        true => Ok(()),
        false => Err(MessageError::Malformed(format!("{field}: expected at most 2^53, got {number}"))),
    }
}

fn unknown(tag: &str) -> MessageError {
    MessageError::UnknownType(tag.chars().take(64).collect())
}

/// A message's text: its type, then its fields.
fn tagged(tag: &str, content: Option<&dyn Object>) -> String {
    Writer::object(|out| {
        out.field("type", tag);
        if let Some(content) = content {
            content.write_fields(out);
        }
    })
}

impl ClientMessage {
    /// Reads a text frame.
    ///
    /// # Errors
    /// If it is too long, not JSON, of a type that students do not send, or not of its type's form.
    pub fn decode(text: &str) -> Result<Self, MessageError> {
        let given = Tagged::read(text)?;
        match given.tag.as_str() {
            "hello" => {
                let hello: Hello = given.message()?;
                spaces(&hello.observation, &hello.action)?;
                sequence("actor.first", hello.actor.as_ref().map_or(0, |actor| actor.first))?;
                Ok(ClientMessage::Hello(Box::new(hello)))
            }
            "stage" => Ok(ClientMessage::Stage(given.message()?)),
            "applied" => Ok(ClientMessage::Applied(given.message()?)),
            "refused" => Ok(ClientMessage::Refused(given.message()?)),
            "dropped" => {
                let dropped: Dropped = given.message()?;
                sequence("first", dropped.first)?;
                Ok(ClientMessage::Dropped(dropped))
            }
            "bye" => Ok(ClientMessage::Bye),
            other => Err(unknown(other)),
        }
    }

    /// Writes the message as a text frame.
    pub fn encode(&self) -> String {
        match self {
            ClientMessage::Hello(hello) => tagged("hello", Some(&**hello)),
            ClientMessage::Stage(event) => tagged("stage", Some(event)),
            ClientMessage::Applied(applied) => tagged("applied", Some(applied)),
            ClientMessage::Refused(refused) => tagged("refused", Some(refused)),
            ClientMessage::Dropped(dropped) => tagged("dropped", Some(dropped)),
            ClientMessage::Bye => tagged("bye", None),
        }
    }
}

impl ServerMessage {
    /// Reads a text frame.
    ///
    /// # Errors
    /// If it is too long, not JSON, of a type that servers do not send, or not of its type's form.
    pub fn decode(text: &str) -> Result<Self, MessageError> {
        let given = Tagged::read(text)?;
        match given.tag.as_str() {
            "welcome" => {
                let welcome: Welcome = given.message()?;
                spaces(&welcome.teacher.observation, &welcome.teacher.action)?;
                sequence("learner.next", welcome.learner.as_ref().map_or(0, |learner| learner.next))?;
                Ok(ServerMessage::Welcome(Box::new(welcome)))
            }
            "published" => Ok(ServerMessage::Published(given.message()?)),
            "submitted" => Ok(ServerMessage::Submitted(given.message()?)),
            "received" => {
                let received: Received = given.message()?;
                sequence("next", received.next)?;
                Ok(ServerMessage::Received(received))
            }
            "peers" => {
                let peers: Peers = given.message()?;
                let (found, max) = (peers.teachers.len(), MAX_MEMBERS);
                match found <= max {
                    true => Ok(ServerMessage::Peers(peers)),
                    false => {
                        let message = format!("teachers: expected at most {max}, got {found}");
                        Err(MessageError::Malformed(message))
                    }
                }
            }
            "overloaded" => Ok(ServerMessage::Overloaded(given.message()?)),
            "restarting" => Ok(ServerMessage::Restarting(given.message()?)),
            "error" => Ok(ServerMessage::Error(given.message()?)),
            other => Err(unknown(other)),
        }
    }

    /// Writes the message as a text frame.
    pub fn encode(&self) -> String {
        let (tag, content): (_, &dyn Object) = match self {
            ServerMessage::Welcome(welcome) => ("welcome", &**welcome),
            ServerMessage::Published(published) => ("published", published),
            ServerMessage::Submitted(submitted) => ("submitted", submitted),
            ServerMessage::Received(received) => ("received", received),
            ServerMessage::Peers(peers) => ("peers", peers),
            ServerMessage::Overloaded(overloaded) => ("overloaded", overloaded),
            ServerMessage::Restarting(restarting) => ("restarting", restarting),
            ServerMessage::Error(error) => ("error", error),
        };
        tagged(tag, Some(content))
    }
}

/// How the frames of one connection are encoded, as both sides derive it from `hello`.
#[derive(Clone, Debug, PartialEq)]
pub struct Formats {
    /// How states travel.
    pub states: StateFormat,
    /// How actions travel.
    pub actions: ActionFormat,
}

impl Hello {
    /// Checks everything about a `hello` that needs no knowledge of the teacher.
    ///
    /// # Errors
    /// The error to answer with.
    pub fn formats(&self) -> Result<Formats, ErrorMessage> {
        if self.protocol != PROTOCOL {
            let said: String = self.protocol.chars().take(64).collect();
            let message = format!("expected protocol {PROTOCOL:?}, got {said:?}");
            return Err(ErrorMessage::new(ErrorCode::WrongProtocol, message));
        }
        for (field, name) in [("policy", &self.policy), ("student", &self.student)] {
            if name.is_empty() || name.len() > MAX_NAME_BYTES {
                let message =
                    format!("\"{field}\" has 1 to {MAX_NAME_BYTES} bytes, this one has {}", name.len());
                return Err(ErrorMessage::new(ErrorCode::BadMessage, message));
            }
        }
        if let Some(actor) = &self.actor {
            actor.check()?;
        }
        if let Some(worker) = &self.worker {
            worker.check()?;
        }
        if let Some(member) = &self.member {
            member.check()?;
        }
        Ok(Formats {
            states: StateFormat::new(&self.observation, self.dtype, self.quantization.clone())?,
            actions: ActionFormat::new(&self.action, self.action_dtype)?,
        })
    }
}

impl ActorInfo {
    fn check(&self) -> Result<(), ErrorMessage> {
        let refuse = |message: String| Err(ErrorMessage::new(ErrorCode::BadMessage, message));
        let (name, encodings) = (self.name.len(), self.weights.len());
        if !(1..=MAX_NAME_BYTES).contains(&name) {
            return refuse(format!("\"actor.name\" has 1 to {MAX_NAME_BYTES} bytes, this one has {name}"));
        }
        if !(1..=MAX_ENCODINGS).contains(&encodings) {
            return refuse(format!(
                "\"actor.weights\" has 1 to {MAX_ENCODINGS} encodings, this one has {encodings}"
            ));
        }
        Ok(())
    }
}

impl Welcome {
    /// Checks a `welcome` against the `hello` it answers.
    ///
    /// # Errors
    /// Says which field contradicts what was asked for.
    pub fn check(&self, formats: &Formats) -> Result<(), ErrorMessage> {
        let refuse = |field: &str, expected: String, found: String| {
            let message = format!("welcome: expected {field} {expected}, got {found}");
            Err(ErrorMessage::new(ErrorCode::BadMessage, message))
        };
        let (states, actions) = (&formats.states, &formats.actions);
        if self.version == 0 || self.max_rows == 0 || self.credits == 0 {
            let found = format!("{}, {} and {}", self.version, self.max_rows, self.credits);
            return refuse("version, max_rows and credits", "of at least 1".into(), found);
        }
        if self.dtype != states.dtype() {
            return refuse("dtype", format!("{:?}", states.dtype()), format!("{:?}", self.dtype));
        }
        if self.action_dtype != actions.dtype() {
            return refuse(
                "action_dtype",
                format!("{:?}", actions.dtype()),
                format!("{:?}", self.action_dtype),
            );
        }
        if usize::try_from(self.action_width) != Ok(actions.width()) {
            return refuse("action_width", actions.width().to_string(), self.action_width.to_string());
        }
        let of_actors = [Grant::Transitions, Grant::Weights].iter().any(|grant| self.grants.contains(grant));
        let of_workers = self.grants.contains(&Grant::Gradients);
        if of_workers != self.shared.as_ref().is_some_and(|shared| shared.session > 0) {
            let found = format!("{} with {:?}", oto_json::write(&self.shared), self.grants);
            let expected = "with a session of at least 1, with the grant \"gradients\" and only then".into();
            return refuse("shared", expected, found);
        }
        let of_members = self.grants.contains(&Grant::PeerLogits);
        let sound = |group: &GroupInfo| group.session > 0 && group.states_per_second > 0.0;
        if of_members != self.group.as_ref().is_some_and(sound) {
            let found = format!("{} with {:?}", oto_json::write(&self.group), self.grants);
            let expected =
                "with a session of at least 1, with the grant \"peer_logits\" and only then".into();
            return refuse("group", expected, found);
        }
        let answers = [Grant::Actions, Grant::Logits].iter().any(|grant| self.grants.contains(grant));
        if !answers && !of_actors && !of_workers && !of_members {
            return refuse("grants", "with \"actions\"".into(), format!("{:?}", self.grants));
        }
        match &self.learner {
            None if !of_actors => {}
            Some(learner) if of_actors => {
                if learner.session == 0 || learner.ring == 0 {
                    let found = format!("{} and {}", learner.session, learner.ring);
                    return refuse("session and ring", "of at least 1".into(), found);
                }
                let outputs = actions.choices().map_or(actions.width(), |n| n as usize);
                if let Err(error) = learner.model.check(outputs) {
                    return refuse("model", error.0, error.1);
                }
            }
            found => {
                let expected = "with the grant \"transitions\" or \"weights\" and only then".into();
                let found = oto_json::write(found);
                return refuse("learner", expected, format!("{found} with {:?}", self.grants));
            }
        }
        if self.grants.contains(&Grant::Submit) != self.submit_rows.is_some_and(|rows| rows > 0) {
            let found = format!("{:?} with {:?}", self.submit_rows, self.grants);
            return refuse(
                "submit_rows",
                "of at least 1 with the grant \"submit\" and only then".into(),
                found,
            );
        }
        Ok(())
    }
}

//! The wire: messages, codec and handshake; no sockets.
//!
//! A student sends the states it met to a teacher, the teacher answers with actions. What crosses the WebSocket is
//! specified in `PROTOCOL.md` beside this crate; this is its Rust reading, shared by students and servers.
//!
//! - [`space`]: what observations and actions look like, as JSON.
//! - [`frame`]: binary frames, batches of states up and batches of actions down.
//! - [`message`]: JSON control messages, error codes and close codes.
//! - [`adapter`]: how a student's observations and a teacher's actions are mapped, declared as data.
//! - [`gradients`]: binary frames with the gradients of an asynchronous worker.
//! - [`stream`]: binary frames with the rows of an actor, for a learner in the cloud.
//! - [`weights`]: binary frames with the weights that an actor acts with.
//! - [`submission`]: binary frames with transitions, for a student that shares its replay.
//! - [`vectors`]: runs the machine-readable test vectors, natively and in wasm.
#![forbid(unsafe_code)]

pub mod adapter;
pub mod frame;
pub mod gradients;
pub mod logits;
pub mod message;
pub mod space;
pub mod stream;
pub mod submission;
pub mod vectors;
pub mod weights;

pub use adapter::{ActionMap, Adapter, AdapterError, ObservationMap, Plan};
pub use frame::{
    ActionFormat, Actions, Dtype, FormatError, FrameError, FrameWriter, HEADER_BYTES, Header, Ids, Kind,
    Place, Quantization, StateFormat, States,
};
pub use gradients::{Gradients, Parameter, WorkerInfo};
pub use logits::{GroupInfo, Logits, MemberInfo, PeerInfo, Peers};
pub use message::{
    ActorInfo, ClientMessage, ErrorCode, ErrorMessage, Formats, Grant, Hello, LearnerInfo, MAX_CONTROL_BYTES,
    MessageError, PROTOCOL, ServerMessage, SharedInfo, Stage, TeacherInfo, WeightsReason, Welcome,
};
pub use space::{Action, MAX_DISCRETE, MAX_WIDTH, Space, SpaceError, check_space};
pub use stream::{Flags, MAX_SEQUENCE, Row, RowFormat, Rows, STREAM_BYTES, StreamId};
pub use submission::{
    BatchId, SUBMISSION_BYTES, SubmissionWriter, Transition, TransitionFormat, Transitions,
};
pub use weights::{Encoding, Model, WEIGHTS_BYTES, Weights, WeightsError};

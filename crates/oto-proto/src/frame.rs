//! Binary frames: a header of sixteen bytes and one tensor, all little-endian, the tensor 4-byte aligned.
//!
//! | bytes | field | |
//! | --- | --- | --- |
//! | 0 | kind | [`Kind`] |
//! | 1 | dtype | [`Dtype`] |
//! | 2..4 | rows | 1 to 65,535 |
//! | 4..8 | request | chosen by the student, repeated in the answer |
//! | 8..12 | policy | the number that `welcome` gave |
//! | 12..16 | version | of the policy: in an answer the one that answered, in a request the newest the student knows |
//!
//! A frame is checked from the outside in, nothing is allocated, and the payload is borrowed. The same checks in the
//! same order are part of the specification, so that every reader gives the same reason for refusing a frame.

use crate::message::ErrorCode;
use crate::space::{Action, Space, SpaceError, check_space};
use half::f16;
use thiserror::Error;

/// The length of the header of every binary frame, in bytes.
pub const HEADER_BYTES: usize = 16;

/// What a binary frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// States of the student, asking for actions.
    States = 1,
    /// The teacher's actions, one for each state of the request.
    Actions = 2,
    /// Reserved: labels that were made elsewhere.
    Label = 3,
    /// Transitions of the student for the teacher's dataset: [`crate::submission`].
    Submit = 4,
    /// Weights of the acting network, from a learner to its actor: [`crate::weights`].
    Weights = 5,
    /// Rows of an actor's stream, for its learner: [`crate::stream`].
    Transitions = 6,
    /// Logits of a member of a group, for the asking member: [`crate::logits`].
    PeerLogits = 7,
    /// Gradients of an asynchronous worker, for a shared agent: [`crate::gradients`].
    Gradients = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::*;
        [States, Actions, Label, Submit, Weights, Transitions, PeerLogits, Gradients]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }

    fn is_reserved(self) -> bool {
        self == Kind::Label
    }

    /// Whether only actors and learners, or workers and shared agents, exchange frames of this kind.
    fn is_of_actors(self) -> bool {
        matches!(self, Kind::Weights | Kind::Transitions | Kind::Gradients)
    }

    /// The kind of a frame, if any connection may carry it.
    fn of(frame: &[u8]) -> Result<Kind, FrameError> {
        if frame.len() < HEADER_BYTES {
            return Err(FrameError::TooShort(frame.len()));
        }
        let kind = Kind::from_byte(frame[0]).ok_or(FrameError::UnknownKind(frame[0]))?;
        if kind.is_reserved() { Err(FrameError::NotSupported(kind)) } else { Ok(kind) }
    }
}

/// The type of one number of the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Dtype {
    /// IEEE 754 single precision.
    #[default]
    F32 = 1,
    /// IEEE 754 half precision.
    F16 = 2,
    /// A byte: a state component under a [`Quantization`], or the index of a discrete action.
    U8 = 3,
    /// The index of a discrete action among more than 256.
    U16 = 4,
}

oto_json::json_names! { Dtype { F32 = "f32", F16 = "f16", U8 = "u8", U16 = "u16" } }

impl Dtype {
    /// The number of bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::U16 => 2,
            Dtype::U8 => 1,
        }
    }

    /// The largest number of this type; a whole number for the types of indices.
    pub(crate) fn largest(self) -> f32 {
        match self {
            Dtype::F32 => f32::MAX,
            Dtype::F16 => f16::MAX.to_f32(),
            Dtype::U8 => 255.0,
            Dtype::U16 => 65_535.0,
        }
    }

    /// The largest component of a state that this type can carry; a byte carries every one, as the nearest end of its range.
    pub(crate) fn largest_state(self) -> f32 {
        if self == Dtype::U8 { f32::MAX } else { self.largest() }
    }

    fn from_byte(byte: u8) -> Option<Dtype> {
        [Dtype::F32, Dtype::F16, Dtype::U8, Dtype::U16].into_iter().find(|d| *d as u8 == byte)
    }
}

/// Why a binary frame was refused, by its reader or before it was written.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FrameError {
    /// Shorter than a header.
    #[error("a frame has at least {HEADER_BYTES} bytes, this one has {0}")]
    TooShort(usize),
    /// A kind that this version of the protocol does not name.
    #[error("frame kind {0} is not one of 1 to 8")]
    UnknownKind(u8),
    /// A kind that is reserved and not served.
    #[error("frames of kind {0:?} are not supported")]
    NotSupported(Kind),
    /// A known kind in the wrong direction.
    #[error("expected a frame of kind {expected:?}, got {found:?}")]
    WrongKind {
        /// The kind that belongs here.
        expected: Kind,
        /// The kind that came.
        found: Kind,
    },
    /// A number type that this version of the protocol does not name.
    #[error("dtype {0} is not one of 1 to 4")]
    UnknownDtype(u8),
    /// A known number type that was not agreed upon.
    #[error("agreed on dtype {expected:?}, got {found:?}")]
    WrongDtype {
        /// The dtype of the handshake.
        expected: Dtype,
        /// The dtype that came.
        found: Dtype,
    },
    /// No rows at all.
    #[error("a frame has at least one row, this one has none")]
    NoRows,
    /// More rows than were agreed upon.
    #[error("a frame has at most {max} rows, this one has {found}")]
    TooManyRows {
        /// The number of rows that came.
        found: usize,
        /// The largest number allowed.
        max: usize,
    },
    /// The payload is shorter or longer than its rows.
    #[error("{rows} rows of {row_bytes} bytes make a frame of {expected} bytes, this one has {found}")]
    WrongLength {
        /// Rows according to the header.
        rows: usize,
        /// The length of one row as agreed upon.
        row_bytes: usize,
        /// The length the frame should have.
        expected: usize,
        /// The length it has.
        found: usize,
    },
    /// A NaN or an infinity.
    #[error("row {row}, component {component} is not a finite number")]
    NotFinite {
        /// The row, counted from 0.
        row: usize,
        /// The component, counted from 0.
        component: usize,
    },
    /// The index of a discrete action that does not exist.
    #[error("row {row} names action {found}, there are {n}")]
    OutOfRange {
        /// The row, counted from 0.
        row: usize,
        /// The index that came.
        found: u32,
        /// The number of actions.
        n: u32,
    },
    /// A component of a submitted action that lies outside the student's box.
    #[error("row {row}, component {component} lies outside the action space")]
    OutsideBox {
        /// The row, counted from 0.
        row: usize,
        /// The component, counted from 0.
        component: usize,
    },
    /// A row whose last byte has no meaning.
    #[error("row {row} ends with {found}, expected flags of at most {max} together")]
    UnknownFlags {
        /// The row, counted from 0.
        row: usize,
        /// The byte that came.
        found: u8,
        /// All flags together.
        max: u8,
    },
    /// The sequence number of a row lies beyond [`crate::stream::MAX_SEQUENCE`].
    #[error("rows from {first} on have sequence numbers beyond 2^53")]
    Sequence {
        /// The first row's.
        first: u64,
    },
    /// A row given to a writer that does not fit the agreed space; never the reason for refusing a frame that came.
    #[error("a row for {0} does not have its kind or length")]
    WrongRow(&'static str),
}

impl FrameError {
    /// The name of the reason, as in the test vectors.
    pub fn name(&self) -> &'static str {
        match self {
            FrameError::TooShort(_) => "too_short",
            FrameError::UnknownKind(_) => "unknown_kind",
            FrameError::NotSupported(_) => "not_supported",
            FrameError::WrongKind { .. } => "wrong_kind",
            FrameError::UnknownDtype(_) => "unknown_dtype",
            FrameError::WrongDtype { .. } => "wrong_dtype",
            FrameError::NoRows => "no_rows",
            FrameError::TooManyRows { .. } => "too_many_rows",
            FrameError::WrongLength { .. } => "wrong_length",
            FrameError::NotFinite { .. } => "not_finite",
            FrameError::OutOfRange { .. } | FrameError::OutsideBox { .. } | FrameError::Sequence { .. } => {
                "out_of_range"
            }
            FrameError::UnknownFlags { .. } => "unknown_flags",
            FrameError::WrongRow(_) => "wrong_row",
        }
    }

    /// The code that tells the peer.
    pub fn code(&self) -> ErrorCode {
        match self {
            FrameError::TooShort(_)
            | FrameError::UnknownKind(_)
            | FrameError::WrongKind { .. }
            | FrameError::UnknownFlags { .. } => ErrorCode::BadMessage,
            FrameError::NotSupported(_) => ErrorCode::NotSupported,
            FrameError::UnknownDtype(_) | FrameError::WrongDtype { .. } => ErrorCode::BadDtype,
            FrameError::NoRows | FrameError::WrongLength { .. } | FrameError::WrongRow(_) => {
                ErrorCode::BadShape
            }
            FrameError::TooManyRows { .. } => ErrorCode::TooLarge,
            FrameError::NotFinite { .. } => ErrorCode::NotFinite,
            FrameError::OutOfRange { .. } | FrameError::OutsideBox { .. } | FrameError::Sequence { .. } => {
                ErrorCode::OutOfRange
            }
        }
    }
}

/// The numbers that tie an answer to its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Chosen by the student, unique among its requests in flight.
    pub request: u32,
    /// The policy, as numbered by `welcome`.
    pub policy: u32,
    /// The version of the policy.
    pub version: u32,
}

/// The first sixteen bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame carries.
    pub kind: Kind,
    /// The type of its numbers.
    pub dtype: Dtype,
    /// The number of rows, not zero.
    pub rows: u16,
    /// Request, policy and version.
    pub ids: Ids,
}

impl Header {
    /// Reads the header of a frame of any supported kind.
    ///
    /// # Errors
    /// `too_short`, `unknown_kind`, `not_supported`, `unknown_dtype` and `no_rows`, in this order.
    pub fn read(frame: &[u8]) -> Result<Header, FrameError> {
        let Some((header, _)) = frame.split_first_chunk::<HEADER_BYTES>() else {
            return Err(FrameError::TooShort(frame.len()));
        };
        let kind = Kind::of(frame)?;
        let dtype = Dtype::from_byte(header[1]).ok_or(FrameError::UnknownDtype(header[1]))?;
        let rows = u16::from_le_bytes([header[2], header[3]]);
        if rows == 0 {
            return Err(FrameError::NoRows);
        }
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Ok(Header { kind, dtype, rows, ids: Ids { request: word(4), policy: word(8), version: word(12) } })
    }

    /// The request number of a frame, if there are bytes enough for one. Lets an error name the request of a frame
    /// that was refused.
    pub fn request_of(frame: &[u8]) -> Option<u32> {
        frame.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
    }

    /// The version that a frame names, if it is as long as a header. Lets an actor name weights that it refuses.
    pub fn version_of(frame: &[u8]) -> Option<u32> {
        frame.get(12..16).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.kind as u8, self.dtype as u8]);
        out.extend_from_slice(&self.rows.to_le_bytes());
        for word in [self.ids.request, self.ids.policy, self.ids.version] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
}

/// What a reader holds a frame against, beyond the header's own rules.
pub(crate) struct Expected {
    pub kind: Kind,
    pub dtype: Dtype,
    /// Bytes before the rows, the header's among them.
    pub before: usize,
    pub row_bytes: usize,
    pub max_rows: usize,
}

/// Checks everything about a frame but its values, and gives its header and all that follows it.
pub(crate) fn open(frame: &[u8], expected: Expected) -> Result<(Header, &[u8]), FrameError> {
    let kind = Kind::of(frame)?;
    let is_of_others = kind == Kind::PeerLogits && expected.kind != Kind::PeerLogits;
    if is_of_others || kind.is_of_actors() && !expected.kind.is_of_actors() {
        return Err(FrameError::NotSupported(kind));
    }
    let header = Header::read(frame)?;
    if header.kind != expected.kind {
        return Err(FrameError::WrongKind { expected: expected.kind, found: header.kind });
    }
    if header.dtype != expected.dtype {
        return Err(FrameError::WrongDtype { expected: expected.dtype, found: header.dtype });
    }
    let (rows, row_bytes) = (usize::from(header.rows), expected.row_bytes);
    if rows > expected.max_rows {
        return Err(FrameError::TooManyRows { found: rows, max: expected.max_rows });
    }
    let length = expected.before + rows * row_bytes;
    if frame.len() != length {
        return Err(FrameError::WrongLength { rows, row_bytes, expected: length, found: frame.len() });
    }
    Ok((header, &frame[HEADER_BYTES..]))
}

/// How a state component that travels as a byte becomes a number: `byte * scale[i] + offset[i]` in single precision.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantization {
    /// One factor for each component, finite and not zero.
    pub scale: Vec<f32>,
    /// One summand for each component, finite.
    pub offset: Vec<f32>,
}

oto_json::json_object! { Quantization: open { scale, offset } }

/// Why states or actions cannot travel as asked.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FormatError {
    /// The space itself is wrong.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// The number type cannot carry this space.
    #[error("{what} cannot travel as {found:?}; {expected}")]
    Dtype {
        /// What should travel.
        what: &'static str,
        /// The number type asked for.
        found: Dtype,
        /// What would do.
        expected: &'static str,
    },
    /// Scale and offset are absent, superfluous, of the wrong length or not usable.
    #[error(
        "u8 states and the field \"quantization\" belong together: one finite scale, not zero, and one finite offset for each of the {width} components of the observation"
    )]
    Quantization {
        /// The number of components.
        width: usize,
    },
}

/// How states travel: number type and width of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct StateFormat {
    width: usize,
    dtype: Dtype,
    quantization: Option<Quantization>,
    /// Whether a row begins with its [`Place`].
    ordered: bool,
}

/// Where a state stands among those that a student visited, for a recurrent policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The student numbers all states that it visits, also those that it does not send; counted modulo 2^31.
    pub number: u32,
    /// Whether an episode begins with it.
    pub begins: bool,
}

impl Place {
    /// Bytes of a place in a row.
    const BYTES: usize = 4;
    /// The bit that says that an episode begins; the others are the number.
    const BEGINS: u32 = 1 << 31;

    /// The place of the state with this number.
    pub fn new(number: u64, begins: bool) -> Self {
        // The cast keeps the lower bits, as meant.
        Place { number: number as u32 & !Self::BEGINS, begins }
    }

    /// The number of the state that comes next.
    pub fn next(self) -> u32 {
        self.number.wrapping_add(1) & !Self::BEGINS
    }

    fn read(bytes: [u8; Self::BYTES]) -> Self {
        let word = u32::from_le_bytes(bytes);
        Place { number: word & !Self::BEGINS, begins: word & Self::BEGINS != 0 }
    }

    fn bytes(self) -> [u8; Self::BYTES] {
        let flag = if self.begins { Self::BEGINS } else { 0 };
        (self.number & !Self::BEGINS | flag).to_le_bytes()
    }
}

impl StateFormat {
    /// A format for observations of this space. A discrete observation travels as one component that holds its index.
    ///
    /// # Errors
    /// If the space is not valid, the dtype is `u16`, or the quantization does not belong to the dtype and width.
    pub fn new(space: &Space, dtype: Dtype, quantization: Option<Quantization>) -> Result<Self, FormatError> {
        check_space(space)?;
        let width = space.width();
        if dtype == Dtype::U16 {
            return Err(FormatError::Dtype { what: "states", found: dtype, expected: "use f32, f16 or u8" });
        }
        let fits = match &quantization {
            None => dtype != Dtype::U8,
            Some(q) => dtype == Dtype::U8 && q.fits(width),
        };
        if !fits {
            return Err(FormatError::Quantization { width });
        }
        Ok(StateFormat { width, dtype, quantization, ordered: false })
    }

    /// The same with a [`Place`] at the beginning of each row, as a recurrent policy needs it.
    pub fn ordered(self) -> Self {
        StateFormat { ordered: true, ..self }
    }

    /// Components of one state.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The type of one component.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The length of a whole frame of `rows` states, in bytes.
    pub fn frame_bytes(&self, rows: usize) -> usize {
        HEADER_BYTES + rows * (self.place_bytes() + self.row_bytes())
    }

    /// Bytes before the components of a row.
    fn place_bytes(&self) -> usize {
        if self.ordered { Place::BYTES } else { 0 }
    }

    /// Bytes of the components of a row.
    pub(crate) fn row_bytes(&self) -> usize {
        self.width * self.dtype.bytes()
    }

    /// Starts a frame of states in `out`, which is emptied first.
    pub fn writer<'a>(&'a self, ids: Ids, out: &'a mut Vec<u8>) -> FrameWriter<'a> {
        FrameWriter::new(Rows::States(self), ids, out)
    }

    /// Checks a frame of at most `max_rows` states, values included, and borrows it.
    ///
    /// # Errors
    /// The first reason to refuse it, in the order of the specification.
    pub fn decode<'a>(&'a self, frame: &'a [u8], max_rows: usize) -> Result<States<'a>, FrameError> {
        let row_bytes = self.place_bytes() + self.row_bytes();
        let expected =
            Expected { kind: Kind::States, dtype: self.dtype, before: HEADER_BYTES, row_bytes, max_rows };
        let (header, payload) = open(frame, expected)?;
        if self.ordered {
            for (row, bytes) in payload.chunks_exact(row_bytes).enumerate() {
                if let Some(component) = first_not_finite(&bytes[Place::BYTES..], self.dtype) {
                    return Err(FrameError::NotFinite { row, component });
                }
            }
        } else {
            check_finite(payload, self.dtype, self.width)?;
        }
        Ok(States { header, format: self, payload })
    }

    /// Reads the bytes of one state.
    pub(crate) fn read(&self, bytes: &[u8], out: &mut [f32]) {
        match &self.quantization {
            None => read_floats(bytes, self.dtype, out),
            Some(Quantization { scale, offset }) => {
                for (component, (number, &byte)) in out.iter_mut().zip(bytes).enumerate() {
                    *number = f32::from(byte) * scale[component] + offset[component];
                }
            }
        }
    }

    /// Writes one component as the nearest number that can travel, NaN as 0.
    pub(crate) fn push_component(&self, component: usize, number: f32, out: &mut Vec<u8>) {
        let largest = self.dtype.largest_state();
        let number = if number.is_nan() { 0.0 } else { number.clamp(-largest, largest) };
        match &self.quantization {
            None => push_number(number, self.dtype, out),
            Some(quantization) => out.push(quantization.byte(component, number)),
        }
    }

    pub(crate) fn push(&self, row: &[f32], out: &mut Vec<u8>) -> Result<(), Bad> {
        if row.len() != self.width {
            return Err(Bad::Row("states"));
        }
        match &self.quantization {
            Some(quantization) => quantization.push(row, out),
            None => push_floats(row, self.dtype, out),
        }
    }
}

impl Quantization {
    fn fits(&self, width: usize) -> bool {
        let usable = |(&scale, &offset): (&f32, &f32)| {
            scale != 0.0 && scale.is_finite() && offset.is_finite() && (255.0 * scale + offset).is_finite()
        };
        self.scale.len() == width
            && self.offset.len() == width
            && self.scale.iter().zip(&self.offset).all(usable)
    }

    fn push(&self, row: &[f32], out: &mut Vec<u8>) -> Result<(), Bad> {
        for (component, &value) in row.iter().enumerate() {
            if !value.is_finite() {
                return Err(Bad::Component(component));
            }
            out.push(self.byte(component, value));
        }
        Ok(())
    }

    /// The nearest byte. The cast saturates: what lies outside the byte's range is sent as the nearest end of it.
    fn byte(&self, component: usize, number: f32) -> u8 {
        ((number - self.offset[component]) / self.scale[component]).round_ties_even() as u8
    }
}

/// A checked frame of states.
#[derive(Clone, Copy, Debug)]
pub struct States<'a> {
    header: Header,
    format: &'a StateFormat,
    payload: &'a [u8],
}

impl States<'_> {
    /// The frame's header.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The number of states.
    pub fn rows(&self) -> usize {
        usize::from(self.header.rows)
    }

    /// Writes state `row` into `out`.
    ///
    /// # Panics
    /// If `row` is not below [`States::rows`] or `out` is not as long as a state.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.format.width, "the buffer is as long as a state");
        self.format.read(&self.row(row)[self.format.place_bytes()..], out);
    }

    /// The place of state `row`; none where states have none.
    ///
    /// # Panics
    /// If `row` is not below [`States::rows`].
    pub fn place(&self, row: usize) -> Option<Place> {
        self.row(row).first_chunk().filter(|_| self.format.ordered).map(|bytes| Place::read(*bytes))
    }

    fn row(&self, row: usize) -> &[u8] {
        let bytes = self.format.place_bytes() + self.format.row_bytes();
        &self.payload[row * bytes..][..bytes]
    }
}

/// How actions travel: the index of a discrete action as one or two bytes, a continuous one as a row of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionFormat {
    dtype: Dtype,
    shape: ActionShape,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum ActionShape {
    Discrete { n: u32 },
    Continuous { width: usize },
}

impl ActionFormat {
    /// A format for actions of this space. Without a wish, an index travels as `u8` where it fits and as `u16` where
    /// not, and a vector as `f32`.
    ///
    /// # Errors
    /// If the space is not valid or the dtype cannot carry it.
    pub fn new(space: &Space, dtype: Option<Dtype>) -> Result<Self, FormatError> {
        check_space(space)?;
        let (shape, default) = match space {
            Space::Discrete { n } => {
                (ActionShape::Discrete { n: *n }, if *n <= 256 { Dtype::U8 } else { Dtype::U16 })
            }
            Space::Box { low, .. } => (ActionShape::Continuous { width: low.len() }, Dtype::F32),
        };
        let dtype = dtype.unwrap_or(default);
        let fits = match shape {
            ActionShape::Discrete { n } => dtype == Dtype::U16 || (dtype == Dtype::U8 && n <= 256),
            ActionShape::Continuous { .. } => matches!(dtype, Dtype::F32 | Dtype::F16),
        };
        if fits {
            return Ok(ActionFormat { dtype, shape });
        }
        let (what, expected) = match shape {
            ActionShape::Discrete { .. } => {
                ("discrete actions", "use u8 for up to 256 choices and u16 for more")
            }
            ActionShape::Continuous { .. } => ("continuous actions", "use f32 or f16"),
        };
        Err(FormatError::Dtype { what, found: dtype, expected })
    }

    /// The type of one number.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Numbers in one action: 1 for an index.
    pub fn width(&self) -> usize {
        match self.shape {
            ActionShape::Discrete { .. } => 1,
            ActionShape::Continuous { width } => width,
        }
    }

    /// The length of a whole frame of `rows` actions, in bytes.
    pub fn frame_bytes(&self, rows: usize) -> usize {
        HEADER_BYTES + rows * self.row_bytes()
    }

    pub(crate) fn row_bytes(&self) -> usize {
        self.width() * self.dtype.bytes()
    }

    /// Starts a frame of actions in `out`, which is emptied first.
    pub fn writer<'a>(&'a self, ids: Ids, out: &'a mut Vec<u8>) -> FrameWriter<'a> {
        FrameWriter::new(Rows::Actions(self), ids, out)
    }

    /// Checks a frame of at most `max_rows` actions, values included, and borrows it.
    ///
    /// # Errors
    /// The first reason to refuse it, in the order of the specification.
    pub fn decode<'a>(&'a self, frame: &'a [u8], max_rows: usize) -> Result<Actions<'a>, FrameError> {
        let row_bytes = self.row_bytes();
        let expected =
            Expected { kind: Kind::Actions, dtype: self.dtype, before: HEADER_BYTES, row_bytes, max_rows };
        let (header, payload) = open(frame, expected)?;
        let actions = Actions { header, format: self, payload };
        match self.shape {
            ActionShape::Continuous { width } => check_finite(payload, self.dtype, width)?,
            ActionShape::Discrete { n } => {
                for row in 0..actions.rows() {
                    let found = actions.index(row);
                    if found >= n {
                        return Err(FrameError::OutOfRange { row, found, n });
                    }
                }
            }
        }
        Ok(actions)
    }

    /// Reads the bytes of one action as plain numbers; an index is its number.
    pub(crate) fn read(&self, bytes: &[u8], out: &mut [f32]) {
        match self.shape {
            ActionShape::Discrete { .. } => out[0] = self.read_index(bytes) as f32,
            ActionShape::Continuous { .. } => read_floats(bytes, self.dtype, out),
        }
    }

    /// The number of choices of a discrete action.
    pub(crate) fn choices(&self) -> Option<u32> {
        match self.shape {
            ActionShape::Discrete { n } => Some(n),
            ActionShape::Continuous { .. } => None,
        }
    }

    pub(crate) fn read_index(&self, bytes: &[u8]) -> u32 {
        match self.dtype {
            Dtype::U8 => u32::from(bytes[0]),
            _ => u32::from(u16::from_le_bytes([bytes[0], bytes[1]])),
        }
    }

    /// Writes one number of an action that this format can carry.
    pub(crate) fn push_component(&self, number: f32, out: &mut Vec<u8>) {
        match self.dtype {
            // Both casts are exact: an index is below the number of choices, which the dtype was chosen to hold.
            Dtype::U8 => out.push(number as u8),
            Dtype::U16 => out.extend_from_slice(&(number as u16).to_le_bytes()),
            dtype => push_number(number, dtype, out),
        }
    }

    pub(crate) fn push(&self, action: Action<'_>, out: &mut Vec<u8>) -> Result<(), Bad> {
        match (self.shape, action) {
            (ActionShape::Discrete { n }, Action::Discrete(found)) if found >= n => {
                Err(Bad::Index { found, n })
            }
            (ActionShape::Discrete { .. }, Action::Discrete(index)) => {
                // Both casts are exact: the index is below n and the dtype was chosen to hold n.
                match self.dtype {
                    Dtype::U8 => out.push(index as u8),
                    _ => out.extend_from_slice(&(index as u16).to_le_bytes()),
                }
                Ok(())
            }
            (ActionShape::Continuous { width }, Action::Continuous(row)) if row.len() == width => {
                push_floats(row, self.dtype, out)
            }
            _ => Err(Bad::Row("actions")),
        }
    }
}

/// A checked frame of actions.
#[derive(Clone, Copy, Debug)]
pub struct Actions<'a> {
    header: Header,
    format: &'a ActionFormat,
    payload: &'a [u8],
}

impl Actions<'_> {
    /// The frame's header.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The number of actions.
    pub fn rows(&self) -> usize {
        usize::from(self.header.rows)
    }

    /// Action `row`; a continuous one is written into `scratch` first.
    ///
    /// # Panics
    /// If `row` is not below [`Actions::rows`], or the actions are continuous and `scratch` is not as long as one.
    pub fn get<'s>(&self, row: usize, scratch: &'s mut [f32]) -> Action<'s> {
        match self.format.shape {
            ActionShape::Discrete { .. } => Action::Discrete(self.index(row)),
            ActionShape::Continuous { width } => {
                assert_eq!(scratch.len(), width, "the buffer is as long as an action");
                let row_bytes = width * self.format.dtype.bytes();
                read_floats(&self.payload[row * row_bytes..][..row_bytes], self.format.dtype, scratch);
                Action::Continuous(scratch)
            }
        }
    }

    fn index(&self, row: usize) -> u32 {
        self.format.read_index(&self.payload[row * self.format.dtype.bytes()..])
    }
}

/// Writes one frame, row by row. The frame is complete when [`FrameWriter::finish`] has put the number of rows into
/// its header; a row that was refused leaves no trace.
#[derive(Debug)]
pub struct FrameWriter<'a> {
    format: Rows<'a>,
    rows: usize,
    out: &'a mut Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Rows<'a> {
    States(&'a StateFormat),
    Actions(&'a ActionFormat),
}

/// Why one row cannot be written; the writer adds which row it was.
pub(crate) enum Bad {
    Component(usize),
    Index { found: u32, n: u32 },
    Row(&'static str),
}

impl Bad {
    pub(crate) fn in_row(self, row: usize) -> FrameError {
        match self {
            Bad::Component(component) => FrameError::NotFinite { row, component },
            Bad::Index { found, n } => FrameError::OutOfRange { row, found, n },
            Bad::Row(of) => FrameError::WrongRow(of),
        }
    }
}

impl<'a> FrameWriter<'a> {
    fn new(format: Rows<'a>, ids: Ids, out: &'a mut Vec<u8>) -> Self {
        let (kind, dtype) = match format {
            Rows::States(format) => (Kind::States, format.dtype),
            Rows::Actions(format) => (Kind::Actions, format.dtype),
        };
        out.clear();
        Header { kind, dtype, rows: 0, ids }.write(out);
        FrameWriter { format, rows: 0, out }
    }

    /// Adds a state to a frame of states.
    ///
    /// # Errors
    /// If the frame is full or one of actions, or the state has another length or is not finite in the frame's dtype.
    pub fn state(&mut self, state: &[f32]) -> Result<(), FrameError> {
        self.state_at(Place::default(), state)
    }

    /// The same with the state's place, which is written only where the format has places.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub fn state_at(&mut self, place: Place, state: &[f32]) -> Result<(), FrameError> {
        self.push(|format, out| match format {
            Rows::States(format) => {
                if format.ordered {
                    out.extend_from_slice(&place.bytes());
                }
                format.push(state, out)
            }
            Rows::Actions(_) => Err(Bad::Row("actions")),
        })
    }

    /// Adds an action to a frame of actions.
    ///
    /// # Errors
    /// If the frame is full or one of states, or the action does not fit the space or is not finite in the frame's dtype.
    pub fn action(&mut self, action: Action<'_>) -> Result<(), FrameError> {
        self.push(|format, out| match format {
            Rows::Actions(format) => format.push(action, out),
            Rows::States(_) => Err(Bad::Row("states")),
        })
    }

    fn push(
        &mut self,
        write: impl FnOnce(Rows<'a>, &mut Vec<u8>) -> Result<(), Bad>,
    ) -> Result<(), FrameError> {
        let max = usize::from(u16::MAX);
        if self.rows == max {
            return Err(FrameError::TooManyRows { found: max + 1, max });
        }
        let (row, complete) = (self.rows, self.out.len());
        write(self.format, self.out).map_err(|bad| {
            self.out.truncate(complete);
            bad.in_row(row)
        })?;
        self.rows += 1;
        Ok(())
    }

    /// Completes the frame and returns its number of rows.
    ///
    /// # Errors
    /// If no row was added.
    pub fn finish(self) -> Result<usize, FrameError> {
        if self.rows == 0 {
            return Err(FrameError::NoRows);
        }
        // Exact: `push` stops at u16::MAX rows.
        self.out[2..4].copy_from_slice(&(self.rows as u16).to_le_bytes());
        Ok(self.rows)
    }
}

fn push_number(number: f32, dtype: Dtype, out: &mut Vec<u8>) {
    match dtype {
        Dtype::F16 => out.extend_from_slice(&f16::from_f32(number).to_le_bytes()),
        _ => out.extend_from_slice(&number.to_le_bytes()),
    }
}

fn push_floats(row: &[f32], dtype: Dtype, out: &mut Vec<u8>) -> Result<(), Bad> {
    for (component, &value) in row.iter().enumerate() {
        // A half is judged after rounding: what is finite here must be finite for the peer.
        let finite = match dtype {
            Dtype::F16 => {
                let half = f16::from_f32(value);
                out.extend_from_slice(&half.to_le_bytes());
                half.is_finite()
            }
            _ => {
                out.extend_from_slice(&value.to_le_bytes());
                value.is_finite()
            }
        };
        if !finite {
            return Err(Bad::Component(component));
        }
    }
    Ok(())
}

pub(crate) fn read_floats(bytes: &[u8], dtype: Dtype, out: &mut [f32]) {
    match dtype {
        Dtype::F16 => {
            for (number, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *number = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        _ => {
            for (number, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *number = f32::from_le_bytes(*bytes);
            }
        }
    }
}

/// The first number that is not finite. Bytes always are: their scale was checked.
pub(crate) fn first_not_finite(payload: &[u8], dtype: Dtype) -> Option<usize> {
    match dtype {
        Dtype::F32 => payload.as_chunks::<4>().0.iter().position(|b| !f32::from_le_bytes(*b).is_finite()),
        Dtype::F16 => payload.as_chunks::<2>().0.iter().position(|b| !f16::from_le_bytes(*b).is_finite()),
        Dtype::U8 | Dtype::U16 => None,
    }
}

fn check_finite(payload: &[u8], dtype: Dtype, width: usize) -> Result<(), FrameError> {
    match first_not_finite(payload, dtype) {
        Some(at) => Err(FrameError::NotFinite { row: at / width, component: at % width }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Dtype, f16, push_floats, read_floats};

    /// The sixteen bits that a number is written with.
    fn written(value: f32) -> u16 {
        let mut bytes = Vec::new();
        // One that is not finite is refused after it is written.
        let _ = push_floats(&[value], Dtype::F16, &mut bytes);
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    fn read(half: u16) -> f32 {
        let mut number = [0.0];
        read_floats(&half.to_le_bytes(), Dtype::F16, &mut number);
        number[0]
    }

    #[test]
    fn every_half_survives_the_way_through_single_precision() {
        for half in 0..=u16::MAX {
            let wide = read(half);
            match wide.is_nan() {
                true => assert!(read(written(wide)).is_nan()),
                false => assert_eq!(written(wide), half, "{half:#06x} is {wide}"),
            }
        }
        assert_eq!((read(0x3c00), read(0xc000), read(0x0001)), (1.0, -2.0, 2f32.powi(-24)));
        assert_eq!((f16::MAX.to_f32(), read(0x7c00)), (65_504.0, f32::INFINITY));
    }

    #[test]
    fn a_half_is_the_nearest_and_of_two_the_even_one() {
        for half in 0..0x7bff_u16 {
            let (low, high) = (read(half), read(half + 1));
            let middle = (f64::from(low) + f64::from(high)) / 2.0;
            let even = if half % 2 == 0 { half } else { half + 1 };
            assert_eq!(written(middle as f32), even);
            assert_eq!(written((middle as f32).next_down()), half);
            assert_eq!(written((middle as f32).next_up()), half + 1);
        }
        assert_eq!((written(65_519.99), written(65_520.0)), (0x7bff, 0x7c00));
    }
}

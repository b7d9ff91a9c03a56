//! Rows of an actor's stream: binary frames of kind 6, for a learner in the cloud.
//!
//! | bytes | field | |
//! | --- | --- | --- |
//! | 0..16 | header | [`Header`] of kind [`Kind::Transitions`]; its dtype is that of states, its request is the session |
//! | 16..24 | sequence | u64: the number of the first row in its stream |
//! | 24.. | rows | observation, action, one byte of [`Flags`] |
//!
//! Each state travels once: the next state of a row is the next row's observation. The last row of an episode has the final
//! state and no action.

use crate::frame::{
    ActionFormat, Expected, FrameError, HEADER_BYTES, Header, Ids, Kind, StateFormat, first_not_finite, open,
};
use crate::message::Formats;
use crate::space::Space;
use crate::submission::{BatchId, BatchIdError, Bounds};
use oto_json::{At, Failure, FromJson, ToJson, Writer};
use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

/// Bytes of a frame of rows before its first row.
pub const STREAM_BYTES: usize = HEADER_BYTES + 8;

/// All sequence numbers are below this one, so that JSON numbers hold them exactly.
pub const MAX_SEQUENCE: u64 = 1 << 53;

/// The name of a stream: 128 random bits, drawn once by each instance of an actor. Written as 32 lower-case hexadecimal
/// digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u128);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for StreamId {
    type Err = BatchIdError;

    fn from_str(text: &str) -> Result<Self, BatchIdError> {
        text.parse().map(|BatchId(bits)| StreamId(bits))
    }
}

impl ToJson for StreamId {
    fn write(&self, out: &mut Writer) {
        ToJson::write(&self.to_string(), out);
    }
}

impl FromJson for StreamId {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        at.text()?.parse().map_err(|error| at.wrong(&error))
    }
}

oto_json::json_serde! { StreamId }

/// What a row says about its step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// None.
    pub const NONE: Flags = Flags(0);
    /// The last row of an episode that ended in the environment's own terms.
    pub const TERMINATED: Flags = Flags(1);
    /// The last row of an episode that was cut short.
    pub const TRUNCATED: Flags = Flags(2);
    /// The first row of an episode.
    pub const FIRST: Flags = Flags(4);
    /// A step of an evaluation: not to be learned from.
    pub const EVALUATION: Flags = Flags(8);
    /// The sensors failed in this step, as far as the edge knows.
    pub const FAULTY: Flags = Flags(16);
    /// All of them.
    pub const ALL: Flags = Flags(31);

    /// Whether one of `other` is set.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether this is the last row of an episode. Its observation is the final state; it has no action.
    pub fn ends(self) -> bool {
        self.has(Flags::TERMINATED | Flags::TRUNCATED)
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// One row of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'a> {
    /// Its number in the stream.
    pub sequence: u64,
    /// What the sensors gave.
    pub observation: &'a [f32],
    /// What the actor did then, in the environment's units; an index is its number. Zero in the last row of an episode.
    pub action: &'a [f32],
    /// What else is known.
    pub flags: Flags,
}

/// How the rows of one connection are encoded: states and actions as everywhere on it.
#[derive(Clone, Debug, PartialEq)]
pub struct RowFormat {
    states: StateFormat,
    actions: ActionFormat,
    bounds: Option<Bounds>,
}

impl RowFormat {
    /// The format that goes with these formats, for an actor that acts in `action`.
    pub fn new(formats: &Formats, action: &Space) -> Self {
        let (states, actions) = (formats.states.clone(), formats.actions.clone());
        RowFormat { states, actions, bounds: Bounds::of(action) }
    }

    /// Components of an observation.
    pub fn observation_width(&self) -> usize {
        self.states.width()
    }

    /// Numbers of an action: 1 for an index.
    pub fn action_width(&self) -> usize {
        self.actions.width()
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.states.row_bytes() + self.actions.row_bytes() + 1
    }

    /// The length of a whole frame of `rows` rows, in bytes.
    pub fn frame_bytes(&self, rows: usize) -> usize {
        STREAM_BYTES + rows * self.row_bytes()
    }

    /// The most rows that a frame of `bytes` has room for; 0 if it has none.
    pub fn rows_in(&self, bytes: usize) -> u16 {
        let rows = bytes.saturating_sub(STREAM_BYTES) / self.row_bytes();
        u16::try_from(rows).unwrap_or(u16::MAX)
    }

    /// Encodes one row into `out`, which is emptied first, and gives the flags that it has there. Never fails on numbers. An
    /// action beyond its box becomes the nearest one inside. A number that cannot travel (NaN, infinity, one beyond the
    /// dtype, an index that is no action) becomes the nearest one that can, 0 for NaN, and the row is flagged as faulty.
    ///
    /// # Errors
    /// If the observation or the action has another length. `out` is then empty.
    pub fn encode(
        &self,
        observation: &[f32],
        action: &[f32],
        flags: Flags,
        out: &mut Vec<u8>,
    ) -> Result<Flags, FrameError> {
        out.clear();
        if observation.len() != self.states.width() {
            return Err(FrameError::WrongRow("states"));
        }
        if action.len() != self.actions.width() && !flags.ends() {
            return Err(FrameError::WrongRow("actions"));
        }
        let mut flags = Flags(flags.0 & Flags::ALL.0);
        for (component, &number) in observation.iter().enumerate() {
            if !number.is_finite() || number.abs() > self.states.dtype().largest_state() {
                flags = flags | Flags::FAULTY;
            }
            self.states.push_component(component, number, out);
        }
        match flags.ends() {
            true => out.resize(out.len() + self.actions.row_bytes(), 0),
            false => {
                for (component, &number) in action.iter().enumerate() {
                    let sound = self.nearest_action(component, number);
                    if !number.is_finite() || (self.bounds.is_none() && sound != number) {
                        flags = flags | Flags::FAULTY;
                    }
                    self.actions.push_component(sound, out);
                }
            }
        }
        out.push(flags.0);
        Ok(flags)
    }

    /// The nearest component of an action; the first choice for what is no index.
    fn nearest_action(&self, component: usize, number: f32) -> f32 {
        if let Some(n) = self.actions.choices() {
            let is_index = number >= 0.0 && number.fract() == 0.0 && number < n as f32;
            return if is_index { number } else { 0.0 };
        }
        let Some(Bounds { low, high }) = &self.bounds else { return number };
        // A box of actions holds 0 or its nearest bound.
        let number = if number.is_nan() { 0.0 } else { number };
        let largest = self.actions.dtype().largest();
        number.max(low[component].max(-largest)).min(high[component].min(largest))
    }

    /// Writes a frame of encoded rows into `out`, which is emptied first.
    ///
    /// # Errors
    /// If `rows` is not 1 to 65,535 whole rows, or a sequence number lies beyond [`MAX_SEQUENCE`].
    pub fn write(&self, ids: Ids, first: u64, rows: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        out.clear();
        let count = rows.len() / self.row_bytes();
        if count == 0 || !rows.len().is_multiple_of(self.row_bytes()) {
            return Err(FrameError::WrongRow("rows"));
        }
        let max = usize::from(u16::MAX);
        let Ok(rows_field) = u16::try_from(count) else {
            return Err(FrameError::TooManyRows { found: count, max });
        };
        check_sequence(first, count)?;
        Header { kind: Kind::Transitions, dtype: self.states.dtype(), rows: rows_field, ids }.write(out);
        out.extend_from_slice(&first.to_le_bytes());
        out.extend_from_slice(rows);
        Ok(())
    }

    /// Checks a frame of at most `max_rows` rows, values included, and borrows it.
    ///
    /// # Errors
    /// The first reason to refuse it, in the order of the specification.
    pub fn decode<'a>(&'a self, frame: &'a [u8], max_rows: usize) -> Result<Rows<'a>, FrameError> {
        let (dtype, row_bytes) = (self.states.dtype(), self.row_bytes());
        let expected = Expected { kind: Kind::Transitions, dtype, before: STREAM_BYTES, row_bytes, max_rows };
        let (header, rest) = open(frame, expected)?;
        let (first, payload) = rest.split_at(STREAM_BYTES - HEADER_BYTES);
        let first = first.try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
        check_sequence(first, usize::from(header.rows))?;
        let mut scratch = vec![0.0; self.actions.width()];
        for (row, bytes) in payload.chunks_exact(row_bytes).enumerate() {
            self.check(row, bytes, &mut scratch)?;
        }
        Ok(Rows { header, first, format: self, payload })
    }

    /// Checks the values of one row, from its first byte to its last. The action of an episode's last row is ignored.
    fn check(&self, row: usize, bytes: &[u8], scratch: &mut [f32]) -> Result<(), FrameError> {
        let (observation, action, flags) = self.parts(bytes);
        let width = self.states.width();
        if let Some(component) = first_not_finite(observation, self.states.dtype()) {
            return Err(FrameError::NotFinite { row, component });
        }
        if !flags.ends() {
            if let Some(at) = first_not_finite(action, self.actions.dtype()) {
                return Err(FrameError::NotFinite { row, component: width + at });
            }
            if let Some(n) = self.actions.choices() {
                let found = self.actions.read_index(action);
                if found >= n {
                    return Err(FrameError::OutOfRange { row, found, n });
                }
            }
            self.actions.read(action, scratch);
            let dtype = self.actions.dtype();
            if let Some(at) = self.bounds.as_ref().and_then(|bounds| bounds.first_outside(scratch, dtype)) {
                return Err(FrameError::OutsideBox { row, component: width + at });
            }
        }
        match flags.0 {
            found if found > Flags::ALL.0 => Err(FrameError::UnknownFlags { row, found, max: Flags::ALL.0 }),
            _ => Ok(()),
        }
    }

    fn parts<'a>(&self, row: &'a [u8]) -> (&'a [u8], &'a [u8], Flags) {
        let (observation, rest) = row.split_at(self.states.row_bytes());
        let (action, flags) = rest.split_at(self.actions.row_bytes());
        (observation, action, Flags(flags[0]))
    }
}

fn check_sequence(first: u64, rows: usize) -> Result<(), FrameError> {
    match first.checked_add(rows as u64) {
        Some(end) if end <= MAX_SEQUENCE => Ok(()),
        _ => Err(FrameError::Sequence { first }),
    }
}

/// A checked frame of rows.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    header: Header,
    first: u64,
    format: &'a RowFormat,
    payload: &'a [u8],
}

impl Rows<'_> {
    /// The frame's header.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The sequence number of the first row.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        usize::from(self.header.rows)
    }

    /// Reads row `row` into the two buffers and gives its flags.
    ///
    /// # Panics
    /// If `row` is not below [`Rows::rows`], or a buffer is not as long as the format's observation or action.
    pub fn read(&self, row: usize, observation: &mut [f32], action: &mut [f32]) -> Flags {
        let format = self.format;
        assert_eq!(observation.len(), format.states.width(), "the buffer is as long as an observation");
        assert_eq!(action.len(), format.actions.width(), "the buffer is as long as an action");
        let bytes = &self.payload[row * format.row_bytes()..][..format.row_bytes()];
        let (states, actions, flags) = format.parts(bytes);
        format.states.read(states, observation);
        match flags.ends() {
            true => action.fill(0.0),
            false => format.actions.read(actions, action),
        }
        flags
    }
}

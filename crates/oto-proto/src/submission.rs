//! Replay submissions: binary frames with transitions of the student for the teacher's dataset, and their batch's name.
//!
//! | bytes | field | |
//! | --- | --- | --- |
//! | 0..16 | header | [`Header`] of kind [`Kind::Submit`]; its dtype is that of states |
//! | 16..32 | batch | [`BatchId`] |
//! | 32.. | rows | observation, action, reward (f32), next observation, one byte: 1 terminated + 2 truncated |
//!
//! A frame is a whole batch: a server holds no half of one, and what it acknowledged it need not be told again. Numbers of
//! a row are counted from its observation's first to its next observation's last.

use crate::frame::{
    ActionFormat, Bad, Expected, FrameError, HEADER_BYTES, Header, Ids, Kind, StateFormat, first_not_finite,
    open,
};
use crate::message::Formats;
use crate::space::{Action, Space};
use crate::{Dtype, frame};
use oto_json::{At, Failure, FromJson, ToJson, Writer};
use std::fmt;
use std::str::FromStr;

/// Bytes of a submission before its first row.
pub const SUBMISSION_BYTES: usize = HEADER_BYTES + 16;

const TERMINATED: u8 = 1;
const TRUNCATED: u8 = 2;

/// The name of a batch: 128 bits that its student drew at random, so that nobody else has or guesses them. Written as 32
/// lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub u128);

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that names no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 32 lower-case hexadecimal digits")]
pub struct BatchIdError;

impl FromStr for BatchId {
    type Err = BatchIdError;

    fn from_str(text: &str) -> Result<Self, BatchIdError> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(digit) {
            return Err(BatchIdError);
        }
        u128::from_str_radix(text, 16).map(BatchId).map_err(|_| BatchIdError)
    }
}

impl ToJson for BatchId {
    fn write(&self, out: &mut Writer) {
        ToJson::write(&self.to_string(), out);
    }
}

impl FromJson for BatchId {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        at.text()?.parse().map_err(|error| at.wrong(&error))
    }
}

oto_json::json_serde! { BatchId }

/// One step of an episode, in the student's own units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition<'a> {
    /// What the student saw.
    pub observation: &'a [f32],
    /// What it did; an index is its number.
    pub action: &'a [f32],
    /// What it got, not discounted.
    pub reward: f32,
    /// What it saw next, before any reset.
    pub next_observation: &'a [f32],
    /// The episode ended in the environment's own terms.
    pub terminated: bool,
    /// The episode was cut short.
    pub truncated: bool,
}

/// How submissions of one connection are encoded: states and actions as everywhere on it.
#[derive(Clone, Debug, PartialEq)]
pub struct TransitionFormat {
    states: StateFormat,
    actions: ActionFormat,
    /// The student's action space, if it is a box.
    bounds: Option<Bounds>,
}

impl TransitionFormat {
    /// The format that goes with these formats, for a student that acts in `action`.
    pub fn new(formats: &Formats, action: &Space) -> Self {
        let bounds = Bounds::of(action);
        TransitionFormat { states: formats.states.clone(), actions: formats.actions.clone(), bounds }
    }

    /// Numbers in one transition.
    pub fn width(&self) -> usize {
        2 * self.states.width() + self.actions.width() + 1
    }

    /// Bytes of one transition.
    pub fn row_bytes(&self) -> usize {
        2 * self.states.row_bytes() + self.actions.row_bytes() + 5
    }

    /// The length of a whole frame of `rows` transitions, in bytes.
    pub fn frame_bytes(&self, rows: usize) -> usize {
        SUBMISSION_BYTES + rows * self.row_bytes()
    }

    /// The most transitions that a frame of `bytes` has room for; 0 if it has none.
    pub fn rows_in(&self, bytes: usize) -> u16 {
        let rows = bytes.saturating_sub(SUBMISSION_BYTES) / self.row_bytes();
        u16::try_from(rows).unwrap_or(u16::MAX)
    }

    /// Starts a frame of transitions in `out`, which is emptied first.
    pub fn writer<'a>(&'a self, ids: Ids, batch: BatchId, out: &'a mut Vec<u8>) -> SubmissionWriter<'a> {
        out.clear();
        Header { kind: Kind::Submit, dtype: self.states.dtype(), rows: 0, ids }.write(out);
        out.extend_from_slice(&batch.0.to_be_bytes());
        SubmissionWriter { format: self, rows: 0, out }
    }

    /// Checks a frame of at most `max_rows` transitions, values included, and borrows it.
    ///
    /// # Errors
    /// The first reason to refuse it, in the order of the specification.
    pub fn decode<'a>(&'a self, frame: &'a [u8], max_rows: usize) -> Result<Transitions<'a>, FrameError> {
        let (dtype, row_bytes) = (self.states.dtype(), self.row_bytes());
        let expected = Expected { kind: Kind::Submit, dtype, before: SUBMISSION_BYTES, row_bytes, max_rows };
        let (header, rest) = open(frame, expected)?;
        let (batch, payload) = rest.split_at(SUBMISSION_BYTES - HEADER_BYTES);
        let mut scratch = vec![0.0; self.actions.width()];
        for (row, bytes) in payload.chunks_exact(row_bytes).enumerate() {
            self.check(row, &Parts::of(self, bytes), &mut scratch)?;
        }
        let batch = BatchId(batch.try_into().map(u128::from_be_bytes).unwrap_or_default());
        Ok(Transitions { header, batch, format: self, payload })
    }

    /// Checks the values of one row, from its first byte to its last.
    fn check(&self, row: usize, parts: &Parts<'_>, action: &mut [f32]) -> Result<(), FrameError> {
        let (width, action_width) = (self.states.width(), self.actions.width());
        let finite = |bytes, dtype, before: usize| match first_not_finite(bytes, dtype) {
            Some(at) => Err(FrameError::NotFinite { row, component: before + at }),
            None => Ok(()),
        };
        finite(parts.observation, self.states.dtype(), 0)?;
        match self.actions.choices() {
            None => finite(parts.action, self.actions.dtype(), width)?,
            Some(n) => {
                let found = self.actions.read_index(parts.action);
                if found >= n {
                    return Err(FrameError::OutOfRange { row, found, n });
                }
            }
        }
        self.actions.read(parts.action, action);
        self.check_box(row, action)?;
        finite(parts.reward, Dtype::F32, width + action_width)?;
        finite(parts.next_observation, self.states.dtype(), width + action_width + 1)?;
        match parts.flags {
            found if found > TERMINATED + TRUNCATED => {
                Err(FrameError::UnknownFlags { row, found, max: TERMINATED + TRUNCATED })
            }
            _ => Ok(()),
        }
    }

    /// A vector lies in its box; a half may have been rounded to just beyond a bound.
    fn check_box(&self, row: usize, action: &[f32]) -> Result<(), FrameError> {
        match self.bounds.as_ref().and_then(|bounds| bounds.first_outside(action, self.actions.dtype())) {
            Some(at) => Err(FrameError::OutsideBox { row, component: self.states.width() + at }),
            None => Ok(()),
        }
    }
}

/// The bounds of a box of actions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bounds {
    pub low: Vec<f32>,
    pub high: Vec<f32>,
}

impl Bounds {
    /// Those of an action space, if it is a box.
    pub fn of(action: &Space) -> Option<Self> {
        match action {
            Space::Discrete { .. } => None,
            Space::Box { low, high } => Some(Bounds { low: low.clone(), high: high.clone() }),
        }
    }

    /// The first component that lies outside; a half may have been rounded to just beyond a bound.
    pub fn first_outside(&self, action: &[f32], dtype: Dtype) -> Option<usize> {
        let slack = |bound: f32| match dtype {
            Dtype::F16 if bound.is_finite() => bound.abs() / 1024.0,
            _ => 0.0,
        };
        let outside =
            |(x, (low, high)): (&f32, (&f32, &f32))| *x < low - slack(*low) || *x > high + slack(*high);
        action.iter().zip(self.low.iter().zip(&self.high)).position(outside)
    }
}

/// One row's bytes.
struct Parts<'a> {
    observation: &'a [u8],
    action: &'a [u8],
    reward: &'a [u8],
    next_observation: &'a [u8],
    flags: u8,
}

impl<'a> Parts<'a> {
    fn of(format: &TransitionFormat, row: &'a [u8]) -> Self {
        let (observation, row) = row.split_at(format.states.row_bytes());
        let (action, row) = row.split_at(format.actions.row_bytes());
        let (reward, row) = row.split_at(4);
        let (next_observation, flags) = row.split_at(format.states.row_bytes());
        Parts { observation, action, reward, next_observation, flags: flags[0] }
    }
}

/// A checked submission.
#[derive(Clone, Copy, Debug)]
pub struct Transitions<'a> {
    header: Header,
    batch: BatchId,
    format: &'a TransitionFormat,
    payload: &'a [u8],
}

impl Transitions<'_> {
    /// The frame's header.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The batch's name.
    pub fn batch(&self) -> BatchId {
        self.batch
    }

    /// The number of transitions.
    pub fn rows(&self) -> usize {
        usize::from(self.header.rows)
    }

    /// Reads transition `row` into `numbers`, which it then borrows.
    ///
    /// # Panics
    /// If `row` is not below [`Transitions::rows`] or `numbers` is not [`TransitionFormat::width`] long.
    pub fn read_row<'s>(&self, row: usize, numbers: &'s mut [f32]) -> Transition<'s> {
        let format = self.format;
        assert_eq!(numbers.len(), format.width(), "the buffer is as long as a transition");
        let parts = Parts::of(format, &self.payload[row * format.row_bytes()..][..format.row_bytes()]);
        let (observation, rest) = numbers.split_at_mut(format.states.width());
        let (action, rest) = rest.split_at_mut(format.actions.width());
        let (reward, next_observation) = rest.split_at_mut(1);
        format.states.read(parts.observation, observation);
        format.actions.read(parts.action, action);
        frame::read_floats(parts.reward, Dtype::F32, reward);
        format.states.read(parts.next_observation, next_observation);
        Transition {
            observation,
            action,
            reward: reward[0],
            next_observation,
            terminated: parts.flags & TERMINATED != 0,
            truncated: parts.flags & TRUNCATED != 0,
        }
    }
}

/// Writes one submission, row by row, as [`frame::FrameWriter`] writes other frames.
#[derive(Debug)]
pub struct SubmissionWriter<'a> {
    format: &'a TransitionFormat,
    rows: usize,
    out: &'a mut Vec<u8>,
}

impl SubmissionWriter<'_> {
    /// Adds a transition.
    ///
    /// # Errors
    /// If the frame is full, or the transition has another width, is not finite in the frame's dtypes, or its action is
    /// none of the student's. A transition that was refused leaves no trace.
    pub fn transition(&mut self, transition: &Transition<'_>) -> Result<(), FrameError> {
        let max = usize::from(u16::MAX);
        if self.rows == max {
            return Err(FrameError::TooManyRows { found: max + 1, max });
        }
        let complete = self.out.len();
        let written = self.push(transition);
        match written {
            Ok(()) => self.rows += 1,
            Err(_) => self.out.truncate(complete),
        }
        written
    }

    fn push(&mut self, t: &Transition<'_>) -> Result<(), FrameError> {
        let Self { format, rows, out } = self;
        let TransitionFormat { states, actions, .. } = format;
        let (width, action_width) = (states.width(), actions.width());
        let at = |before: usize| {
            let row = *rows;
            move |bad: Bad| match bad {
                Bad::Component(component) => FrameError::NotFinite { row, component: before + component },
                other => other.in_row(row),
            }
        };
        if t.action.len() != action_width {
            return Err(FrameError::WrongRow("actions"));
        }
        states.push(t.observation, out).map_err(at(0))?;
        let action = match actions.choices() {
            // A number that is no index becomes one that does not exist.
            Some(_) if t.action[0] >= 0.0 && t.action[0].fract() == 0.0 => {
                Action::Discrete(t.action[0] as u32)
            }
            Some(_) => Action::Discrete(u32::MAX),
            None => Action::Continuous(t.action),
        };
        actions.push(action, out).map_err(at(width))?;
        format.check_box(*rows, t.action)?;
        if !t.reward.is_finite() {
            return Err(FrameError::NotFinite { row: *rows, component: width + action_width });
        }
        out.extend_from_slice(&t.reward.to_le_bytes());
        states.push(t.next_observation, out).map_err(at(width + action_width + 1))?;
        out.push(u8::from(t.terminated) * TERMINATED + u8::from(t.truncated) * TRUNCATED);
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
        // Exact: `transition` stops at u16::MAX rows.
        self.out[2..4].copy_from_slice(&(self.rows as u16).to_le_bytes());
        Ok(self.rows)
    }
}

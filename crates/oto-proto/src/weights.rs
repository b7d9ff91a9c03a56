//! Weights of an acting network: binary frames of kind 5, from a learner in the cloud to its actor.
//!
//! | bytes | field | |
//! | --- | --- | --- |
//! | 0..16 | header | [`Header`] of kind [`Kind::Weights`], one row; its request is the session, its version that of the weights |
//! | 16..20 | base | u32: the version that a difference starts from; 0: these are complete weights |
//! | 20..24 | length | u32: bytes of the payload before its compression |
//! | 24.. | payload | dtype f32, f16: one number for each parameter; dtype u8: a compressed difference |
//!
//! A difference has a step and a whole number of steps for each parameter. The learner subtracts the weights that the actor
//! holds, not the ones that it meant to send, so that rounding never adds up. Rounded to a 24th of their root mean square, the
//! changes of a hundred updates take six to seven bits a parameter.

use crate::frame::{Dtype, FrameError, HEADER_BYTES, Header, Ids, Kind, first_not_finite, read_floats};
use crate::message::{ErrorCode, WeightsReason};
use half::f16;
use miniz_oxide::DataFormat;
use miniz_oxide::deflate::core::{
    CompressionStrategy, CompressorOxide, TDEFLFlush, TDEFLStatus, compress_to_output,
};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use thiserror::Error;

/// Bytes of a frame of weights before its payload.
pub const WEIGHTS_BYTES: usize = HEADER_BYTES + 8;
/// The most parameters of a network that acts.
pub const MAX_PARAMETERS: usize = 1 << 24;
/// The most layers of a network that acts.
pub const MAX_LAYERS: usize = 64;
/// The widest layer.
pub const MAX_LAYER_WIDTH: u32 = 1 << 16;

/// Steps in the root mean square of all changes.
const RESOLUTION: f64 = 24.0;
/// The largest number of steps; its code fits sixteen bits.
const MAX_STEPS: f64 = 32_767.0;
/// Settings of the compressor.
const LEVEL: u8 = 6;
const WINDOW_BITS: u8 = 15;
/// The payload of a difference starts with its step.
const STEP_BYTES: usize = 4;

/// How weights travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Compressed differences; complete weights as [`Encoding::F32`].
    Delta,
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

oto_json::json_names! { Encoding { Delta = "delta", F16 = "f16", F32 = "f32" } }

/// The architecture of an acting network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Which family of networks.
    pub kind: ModelKind,
    /// Numbers between the layers, from the observation's to the outputs'.
    pub widths: Vec<u32>,
    /// What follows each layer but the last.
    pub activation: Activation,
    /// What makes an action of the outputs.
    pub output: Output,
    /// Weights and biases in all.
    pub parameters: u32,
}

oto_json::json_object! { Model: open { kind, widths, activation, output, parameters } }

/// A family of networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Fully connected layers.
    Mlp,
}

oto_json::json_names! { ModelKind { Mlp = "mlp" } }

/// What follows a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The number if it is positive, else 0.
    Relu,
    /// The hyperbolic tangent.
    Tanh,
}

oto_json::json_names! { Activation { Relu = "relu", Tanh = "tanh" } }

/// What makes an action of the outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The index of the largest output.
    Argmax,
    /// The hyperbolic tangent, spread over the box of actions.
    Tanh,
    /// The output, cut off at -1 and 1, spread over the box of actions.
    Clip,
}

oto_json::json_names! { Output { Argmax = "argmax", Tanh = "tanh", Clip = "clip" } }

impl Model {
    /// Fully connected layers between these widths.
    pub fn mlp(widths: Vec<u32>, activation: Activation, output: Output) -> Self {
        let parameters = u32::try_from(count(&widths)).unwrap_or(u32::MAX);
        Model { kind: ModelKind::Mlp, widths, activation, output, parameters }
    }

    /// Numbers of an observation.
    pub fn inputs(&self) -> usize {
        self.widths.first().map_or(0, |&width| width as usize)
    }

    /// Numbers of an answer.
    pub fn outputs(&self) -> usize {
        self.widths.last().map_or(0, |&width| width as usize)
    }

    /// Checks sizes before anything is allocated by them. Gives what was expected, and what came.
    ///
    /// # Errors
    /// If a size is out of its range, the number of parameters is another one, or there are not `outputs` outputs.
    pub fn check(&self, outputs: usize) -> Result<(), (String, String)> {
        let layers = self.widths.len().saturating_sub(1);
        if !(1..=MAX_LAYERS).contains(&layers) {
            return Err((format!("of 1 to {MAX_LAYERS} layers"), format!("{layers}")));
        }
        if let Some(width) = self.widths.iter().find(|width| !(1..=MAX_LAYER_WIDTH).contains(*width)) {
            return Err((format!("with widths of 1 to {MAX_LAYER_WIDTH}"), format!("{width}")));
        }
        let expected = count(&self.widths);
        if expected != u64::from(self.parameters) || expected > MAX_PARAMETERS as u64 {
            let expected = format!("of {expected} parameters, at most {MAX_PARAMETERS}");
            return Err((expected, format!("{}", self.parameters)));
        }
        if self.outputs() != outputs {
            return Err((format!("with {outputs} outputs"), format!("{}", self.outputs())));
        }
        Ok(())
    }
}

/// Weights and biases between these widths.
fn count(widths: &[u32]) -> u64 {
    widths.windows(2).map(|pair| (u64::from(pair[0]) + 1) * u64::from(pair[1])).sum()
}

/// Why weights were refused.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum WeightsError {
    /// The frame itself.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The payload does not have a number for each parameter.
    #[error("{parameters} parameters take {expected} bytes, this frame says or has {found}")]
    Length {
        /// Parameters of the network.
        parameters: usize,
        /// Bytes that they take.
        expected: usize,
        /// Bytes that the frame says it has, or has.
        found: usize,
    },
    /// The compressed bytes cannot be read, or are of another length than the frame says.
    #[error("the compressed difference cannot be read: {0}")]
    Corrupt(&'static str),
    /// A difference to weights that are not held.
    #[error("a difference to version {found} came, {}", match held { 0 => "no weights are held".into(), held => format!("version {held} is held") })]
    MissingBase {
        /// The version that is held; 0 for none.
        held: u32,
        /// The version that the difference starts from.
        found: u32,
    },
    /// NaN or infinity.
    #[error("parameter {parameter} is not a finite number")]
    NotFinite {
        /// Which, counted from 0.
        parameter: usize,
    },
}

impl WeightsError {
    /// The name of the reason, as in the test vectors.
    pub fn name(&self) -> &'static str {
        match self {
            WeightsError::Frame(error) => error.name(),
            WeightsError::Length { .. } => "wrong_length",
            WeightsError::Corrupt(_) => "corrupt",
            WeightsError::MissingBase { .. } => "missing_base",
            WeightsError::NotFinite { .. } => "not_finite",
        }
    }

    /// What an actor answers.
    pub fn reason(&self) -> WeightsReason {
        match self {
            WeightsError::Frame(_) => WeightsReason::BadFrame,
            WeightsError::Length { .. } => WeightsReason::WrongLength,
            WeightsError::Corrupt(_) => WeightsReason::Corrupt,
            WeightsError::MissingBase { .. } => WeightsReason::MissingBase,
            WeightsError::NotFinite { .. } => WeightsReason::NotFinite,
        }
    }

    /// The code that goes with it.
    pub fn code(&self) -> ErrorCode {
        match self {
            WeightsError::Frame(error) => error.code(),
            WeightsError::Length { .. } | WeightsError::Corrupt(_) => ErrorCode::BadShape,
            WeightsError::MissingBase { .. } => ErrorCode::BadMessage,
            WeightsError::NotFinite { .. } => ErrorCode::NotFinite,
        }
    }
}

/// A frame of weights whose sizes are checked.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    header: Header,
    base: u32,
    parameters: usize,
    payload: &'a [u8],
}

impl<'a> Weights<'a> {
    /// Checks everything about a frame but its payload, which it borrows. `parameters` is their number in the network.
    ///
    /// # Errors
    /// The first reason to refuse it, in the order of the specification.
    pub fn read(frame: &'a [u8], parameters: usize) -> Result<Self, WeightsError> {
        let header = Header::read(frame)?;
        if header.kind != Kind::Weights {
            return Err(FrameError::WrongKind { expected: Kind::Weights, found: header.kind }.into());
        }
        if header.rows != 1 {
            return Err(FrameError::TooManyRows { found: usize::from(header.rows), max: 1 }.into());
        }
        let Some((fields, payload)) = frame[HEADER_BYTES..].split_first_chunk::<8>() else {
            return Err(FrameError::TooShort(frame.len()).into());
        };
        let word =
            |at: usize| u32::from_le_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]);
        let (base, length) = (word(0), word(4) as usize);
        let expected_dtype = |expected| FrameError::WrongDtype { expected, found: header.dtype };
        let expected = match (header.dtype, base) {
            (Dtype::F32, 0) => 4 * parameters,
            (Dtype::F16, 0) => 2 * parameters,
            (Dtype::U8, 1..) => STEP_BYTES + 2 * parameters,
            (_, 0) => return Err(expected_dtype(Dtype::F32).into()),
            (_, _) => return Err(expected_dtype(Dtype::U8).into()),
        };
        let wrong = |found| WeightsError::Length { parameters, expected, found };
        if length != expected {
            return Err(wrong(length));
        }
        if base == 0 && payload.len() != expected {
            return Err(wrong(payload.len()));
        }
        Ok(Weights { header, base, parameters, payload })
    }

    /// The frame's header: its request is the session, its version that of the weights.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The version that a difference starts from; 0 for complete weights.
    pub fn base(&self) -> u32 {
        self.base
    }

    /// Turns the weights of `held`'s version in `weights` into the frame's. `scratch` is emptied first and reused.
    ///
    /// # Errors
    /// If the difference starts from another version, cannot be read, or leads to a number that is not finite. `weights` is
    /// then as it was.
    pub fn apply(&self, held: u32, weights: &mut [f32], scratch: &mut Vec<u8>) -> Result<(), WeightsError> {
        assert_eq!(weights.len(), self.parameters, "the buffer has a number for each parameter");
        if self.base == 0 {
            if let Some(parameter) = first_not_finite(self.payload, self.header.dtype) {
                return Err(WeightsError::NotFinite { parameter });
            }
            read_floats(self.payload, self.header.dtype, weights);
            return Ok(());
        }
        if self.base != held {
            return Err(WeightsError::MissingBase { held, found: self.base });
        }
        scratch.clear();
        scratch.resize(STEP_BYTES + 2 * self.parameters, 0);
        inflate(self.payload, scratch)?;
        let steps = Steps::of(scratch)?;
        let sum = |(parameter, weight): (usize, &f32)| weight + steps.change(parameter);
        if let Some(parameter) = weights.iter().enumerate().position(|at| !sum(at).is_finite()) {
            return Err(WeightsError::NotFinite { parameter });
        }
        weights.iter_mut().enumerate().for_each(|(parameter, weight)| *weight += steps.change(parameter));
        Ok(())
    }
}

/// The payload of a difference: the step, the low bytes of all codes, the high bytes of all codes.
struct Steps<'a> {
    step: f32,
    low: &'a [u8],
    high: &'a [u8],
}

impl<'a> Steps<'a> {
    fn of(payload: &'a [u8]) -> Result<Self, WeightsError> {
        let Some((step, codes)) = payload.split_first_chunk::<STEP_BYTES>() else {
            return Err(WeightsError::Corrupt("it has no step"));
        };
        let step = f32::from_le_bytes(*step);
        if !step.is_finite() || step < 0.0 {
            return Err(WeightsError::Corrupt("its step is negative or not finite"));
        }
        let (low, high) = codes.split_at(codes.len() / 2);
        Ok(Steps { step, low, high })
    }

    /// What is added to a parameter: codes 0, 1, 2, 3, 4 are 0, -1, 1, -2, 2 steps.
    fn change(&self, parameter: usize) -> f32 {
        let code = u16::from_le_bytes([self.low[parameter], self.high[parameter]]);
        // Exact: at most fifteen bits and a sign.
        let steps = (code >> 1) as i32 ^ -i32::from(code & 1);
        steps as f32 * self.step
    }
}

/// Writes complete weights in f32 or f16 into `out`, which is emptied first. Weights beyond the largest half travel in f32.
///
/// # Errors
/// If a number is not finite, or there are more than [`MAX_PARAMETERS`].
pub fn write_complete(
    ids: Ids,
    encoding: Encoding,
    weights: &[f32],
    out: &mut Vec<u8>,
) -> Result<(), WeightsError> {
    check(weights)?;
    let largest = f16::MAX.to_f32();
    let halves = encoding == Encoding::F16 && weights.iter().all(|weight| weight.abs() <= largest);
    let dtype = if halves { Dtype::F16 } else { Dtype::F32 };
    start(ids, dtype, 0, weights.len() * dtype.bytes(), out);
    match halves {
        true => {
            weights.iter().for_each(|weight| out.extend_from_slice(&f16::from_f32(*weight).to_le_bytes()))
        }
        false => weights.iter().for_each(|weight| out.extend_from_slice(&weight.to_le_bytes())),
    }
    Ok(())
}

/// Writes the difference from `held`, the actor's weights of version `base`, to `weights` into `out`, which is emptied first.
/// Afterwards `held` is what the actor will hold: within half a step of `weights`.
///
/// # Errors
/// If a number is not finite, the lengths differ, or there are more than [`MAX_PARAMETERS`]. `held` is then as it was.
pub fn write_delta(
    ids: Ids,
    base: u32,
    held: &mut [f32],
    weights: &[f32],
    out: &mut Vec<u8>,
) -> Result<(), WeightsError> {
    check(weights)?;
    check(held)?;
    if held.len() != weights.len() {
        let (parameters, found) = (held.len(), 4 * weights.len());
        return Err(WeightsError::Length { parameters, expected: 4 * parameters, found });
    }
    let step = step(held, weights);
    let parameters = weights.len();
    let mut payload = vec![0; STEP_BYTES + 2 * parameters];
    payload[..STEP_BYTES].copy_from_slice(&step.to_le_bytes());
    for (parameter, (held, weight)) in held.iter().zip(weights).enumerate() {
        let steps = match step > 0.0 {
            true => (f64::from(*weight) - f64::from(*held)) / f64::from(step),
            false => 0.0,
        };
        // In range: `step` is chosen for it.
        let steps = steps.round_ties_even().clamp(-MAX_STEPS, MAX_STEPS) as i32;
        let [low, high] = (((steps << 1) ^ (steps >> 31)) as u16).to_le_bytes();
        payload[STEP_BYTES + parameter] = low;
        payload[STEP_BYTES + parameters + parameter] = high;
    }
    let steps = Steps::of(&payload)?;
    let sum = |(parameter, held): (usize, &f32)| held + steps.change(parameter);
    if let Some(parameter) = held.iter().enumerate().position(|at| !sum(at).is_finite()) {
        return Err(WeightsError::NotFinite { parameter });
    }
    start(ids, Dtype::U8, base, payload.len(), out);
    deflate(&payload, out)?;
    held.iter_mut().enumerate().for_each(|(parameter, held)| *held += steps.change(parameter));
    Ok(())
}

fn check(weights: &[f32]) -> Result<(), WeightsError> {
    if weights.len() > MAX_PARAMETERS {
        let (parameters, expected) = (weights.len(), 4 * MAX_PARAMETERS);
        return Err(WeightsError::Length { parameters, expected, found: 4 * parameters });
    }
    match weights.iter().position(|weight| !weight.is_finite()) {
        Some(parameter) => Err(WeightsError::NotFinite { parameter }),
        None => Ok(()),
    }
}

/// The step of a difference: a part of the changes' root mean square, and large enough for the largest change.
fn step(held: &[f32], weights: &[f32]) -> f32 {
    let changes = || held.iter().zip(weights).map(|(held, weight)| f64::from(*weight) - f64::from(*held));
    let squares: f64 = changes().map(|change| change * change).sum();
    let largest = changes().fold(0.0, |largest: f64, change| largest.max(change.abs()));
    let rms = (squares / held.len().max(1) as f64).sqrt();
    let step = (rms / RESOLUTION).max(largest / (MAX_STEPS - 1.0));
    // Rounded up, so that the largest change stays in range.
    (step as f32).next_up().min(f32::MAX)
}

/// Starts a frame. All lengths fit: there are at most [`MAX_PARAMETERS`].
fn start(ids: Ids, dtype: Dtype, base: u32, length: usize, out: &mut Vec<u8>) {
    out.clear();
    Header { kind: Kind::Weights, dtype, rows: 1, ids }.write(out);
    out.extend_from_slice(&base.to_le_bytes());
    out.extend_from_slice(&(length as u32).to_le_bytes());
}

/// Appends a raw DEFLATE stream (RFC 1951). Of repetitions only runs of one byte are looked for: the high bytes are mostly 0, and
/// the low bytes repeat nothing else.
fn deflate(payload: &[u8], out: &mut Vec<u8>) -> Result<(), WeightsError> {
    let mut compressor =
        CompressorOxide::with_params(DataFormat::Raw, LEVEL, CompressionStrategy::RLE, WINDOW_BITS);
    let (status, read) = compress_to_output(&mut compressor, payload, TDEFLFlush::Finish, |bytes| {
        out.extend_from_slice(bytes);
        true
    });
    match status == TDEFLStatus::Done && read == payload.len() {
        true => Ok(()),
        false => Err(WeightsError::Corrupt("the compressor stopped")),
    }
}

/// Inflates exactly one raw DEFLATE stream into exactly these bytes: nothing is written beyond them, whatever the stream says.
fn inflate(stream: &[u8], out: &mut [u8]) -> Result<(), WeightsError> {
    let mut state = Box::new(DecompressorOxide::new());
    let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, read, written) = decompress(&mut state, stream, out, 0, flags);
    match status {
        TINFLStatus::Done if written != out.len() => {
            Err(WeightsError::Corrupt("it is shorter than the frame says"))
        }
        TINFLStatus::Done if read != stream.len() => Err(WeightsError::Corrupt("bytes follow its end")),
        TINFLStatus::Done => Ok(()),
        TINFLStatus::HasMoreOutput => Err(WeightsError::Corrupt("it is longer than the frame says")),
        _ => Err(WeightsError::Corrupt("it is no whole DEFLATE stream")),
    }
}

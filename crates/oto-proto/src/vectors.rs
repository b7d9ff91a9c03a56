//! Runs the machine-readable test vectors against this crate: `PROTOCOL.md`, section 11.
//!
//! [`run`] is a pure function of a file's text, so that the same check runs natively, in a browser and on a WASI host.

use crate::adapter::{Adapter, Plan};
use crate::frame::{
    ActionFormat, Dtype, FormatError, FrameError, Header, Ids, Place, Quantization, StateFormat,
};
use crate::gradients::{Gradients, write_gradients};
use crate::logits::{Logits, write_logits};
use crate::message::{ClientMessage, ErrorCode, Formats, MessageError, ServerMessage};
use crate::space::{Action, Space};
use crate::stream::{Flags, RowFormat};
use crate::submission::{BatchId, SubmissionWriter, Transition, TransitionFormat};
use crate::weights::{Encoding, Weights, WeightsError, write_complete};
use oto_json::Json;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// The vector files of this version, by name and text.
pub const FILES: [(&str, &str); 8] = [
    ("frames.json", include_str!("../vectors/frames.json")),
    ("messages.json", include_str!("../vectors/messages.json")),
    ("adapters.json", include_str!("../vectors/adapters.json")),
    ("submissions.json", include_str!("../vectors/submissions.json")),
    ("transitions.json", include_str!("../vectors/transitions.json")),
    ("weights.json", include_str!("../vectors/weights.json")),
    ("gradients.json", include_str!("../vectors/gradients.json")),
    ("logits.json", include_str!("../vectors/logits.json")),
];

/// What a run of one file found to be right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Cases that were accepted as they should be.
    pub valid: usize,
    /// Cases that were refused as they should be.
    pub rejected: usize,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VectorError {
    /// The text is not a file of test vectors.
    #[error("not a file of test vectors: {0}")]
    Malformed(String),
    /// This crate and a case disagree.
    #[error("case {case:?}: {reason}")]
    Disagrees {
        /// The name of the case.
        case: String,
        /// What was expected and what came.
        reason: String,
    },
}

#[derive(Deserialize)]
struct File<Case> {
    cases: Vec<Case>,
}

/// Runs one file of test vectors, given its text.
///
/// # Errors
/// If the text is no such file, and at the first case that this crate reads differently.
pub fn run(json: &str) -> Result<Summary, VectorError> {
    #[derive(Deserialize)]
    struct Head {
        kind: String,
    }
    match parse::<Head>(json)?.kind.as_str() {
        "oto.v1/frames" => run_cases(parse::<File<FrameCase>>(json)?.cases),
        "oto.v1/messages" => run_cases(parse::<File<MessageCase>>(json)?.cases),
        "oto.v1/adapters" => run_cases(parse::<File<AdapterCase>>(json)?.cases),
        "oto.v1/submissions" => run_cases(parse::<File<SubmissionCase>>(json)?.cases),
        "oto.v1/transitions" => run_cases(parse::<File<StreamCase>>(json)?.cases),
        "oto.v1/gradients" => run_cases(parse::<File<GradientsCase>>(json)?.cases),
        "oto.v1/logits" => run_cases(parse::<File<LogitsCase>>(json)?.cases),
        "oto.v1/weights" => run_cases(parse::<File<WeightsCase>>(json)?.cases),
        other => Err(VectorError::Malformed(format!("unknown kind {other:?}"))),
    }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, VectorError> {
    serde_json::from_str(json).map_err(|error| VectorError::Malformed(error.to_string()))
}

/// One case: it knows its name and how to check itself, and says whether it was one to refuse.
trait Case {
    fn name(&self) -> &str;
    fn check(&self) -> Result<Verdict, String>;
}

enum Verdict {
    Valid,
    Rejected,
}

fn run_cases(cases: Vec<impl Case>) -> Result<Summary, VectorError> {
    let mut summary = Summary::default();
    for case in cases {
        match case.check() {
            Ok(Verdict::Valid) => summary.valid += 1,
            Ok(Verdict::Rejected) => summary.rejected += 1,
            Err(reason) => return Err(VectorError::Disagrees { case: case.name().into(), reason }),
        }
    }
    Ok(summary)
}

/// Compares, and says both sides where they differ.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, found: T) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {found:?}")) }
}

#[derive(Deserialize)]
struct FrameCase {
    name: String,
    direction: Direction,
    space: Space,
    dtype: Dtype,
    quantization: Option<Quantization>,
    /// Whether states have places.
    #[serde(default)]
    order: bool,
    max_rows: usize,
    hex: String,
    valid: Option<FrameContent>,
    reject: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Direction {
    States,
    Actions,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct FrameContent {
    request: u32,
    policy: u32,
    version: u32,
    rows: Vec<Row>,
    /// Number of each state, and whether an episode begins with it; only where states have places.
    #[serde(default)]
    places: Vec<(u32, bool)>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Row {
    Index(u32),
    Vector(Vec<f32>),
}

impl Row {
    fn new(action: Action<'_>) -> Row {
        match action {
            Action::Discrete(index) => Row::Index(index),
            Action::Continuous(row) => Row::Vector(row.to_vec()),
        }
    }

    fn as_action(&self) -> Action<'_> {
        match self {
            Row::Index(index) => Action::Discrete(*index),
            Row::Vector(row) => Action::Continuous(row),
        }
    }
}

impl FrameContent {
    fn ids(&self) -> Ids {
        Ids { request: self.request, policy: self.policy, version: self.version }
    }

    fn new(header: Header, rows: Vec<Row>) -> Self {
        let Ids { request, policy, version } = header.ids;
        FrameContent { request, policy, version, rows, places: Vec::new() }
    }
}

impl Case for FrameCase {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<Verdict, String> {
        let frame = from_hex(&self.hex)?;
        let decoded = self.decode(&frame)?;
        match (&self.valid, &self.reject) {
            (Some(content), None) => {
                same("content", Ok(content.clone()), decoded)?;
                let written = self.encode(content)?;
                same("written frame", &frame, &written)?;
                Ok(Verdict::Valid)
            }
            (None, Some(reason)) => {
                same("reason", Err(reason.as_str()), decoded.as_ref().map_err(FrameError::name))?;
                Ok(Verdict::Rejected)
            }
            _ => Err("needs either \"valid\" or \"reject\"".into()),
        }
    }
}

impl FrameCase {
    fn states(&self) -> Result<StateFormat, String> {
        let format = StateFormat::new(&self.space, self.dtype, self.quantization.clone())
            .map_err(|error| error.to_string())?;
        Ok(if self.order { format.ordered() } else { format })
    }

    fn actions(&self) -> Result<ActionFormat, String> {
        ActionFormat::new(&self.space, Some(self.dtype)).map_err(|error| error.to_string())
    }

    /// Outer errors are about the case, inner ones about the frame.
    fn decode(&self, frame: &[u8]) -> Result<Result<FrameContent, FrameError>, String> {
        let mut scratch = vec![0.0; self.space.width()];
        Ok(match self.direction {
            Direction::States => self.states()?.decode(frame, self.max_rows).map(|states| {
                let mut row = |i| {
                    states.read_row(i, &mut scratch);
                    Row::Vector(scratch.clone())
                };
                let content = FrameContent::new(states.header(), (0..states.rows()).map(&mut row).collect());
                let place = |row| states.place(row).map(|place| (place.number, place.begins));
                FrameContent { places: (0..states.rows()).filter_map(place).collect(), ..content }
            }),
            Direction::Actions => self.actions()?.decode(frame, self.max_rows).map(|actions| {
                let row = |i| Row::new(actions.get(i, &mut scratch));
                FrameContent::new(actions.header(), (0..actions.rows()).map(row).collect())
            }),
        })
    }

    fn encode(&self, content: &FrameContent) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        let text = |error: FrameError| error.to_string();
        match self.direction {
            Direction::States => {
                let format = self.states()?;
                let mut writer = format.writer(content.ids(), &mut out);
                for (i, row) in content.rows.iter().enumerate() {
                    let Row::Vector(row) = row else { return Err("a state is a list of numbers".into()) };
                    let place =
                        content.places.get(i).map(|(number, begins)| Place::new((*number).into(), *begins));
                    writer.state_at(place.unwrap_or_default(), row).map_err(text)?;
                }
                writer.finish().map_err(text)?;
            }
            Direction::Actions => {
                let format = self.actions()?;
                let mut writer = format.writer(content.ids(), &mut out);
                content.rows.iter().try_for_each(|row| writer.action(row.as_action())).map_err(text)?;
                writer.finish().map_err(text)?;
            }
        }
        Ok(out)
    }
}

#[derive(Deserialize)]
struct SubmissionCase {
    name: String,
    observation: Space,
    action: Space,
    dtype: Dtype,
    action_dtype: Dtype,
    quantization: Option<Quantization>,
    max_rows: usize,
    hex: String,
    valid: Option<Submission>,
    reject: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Submission {
    request: u32,
    policy: u32,
    version: u32,
    batch: BatchId,
    rows: Vec<TransitionCase>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct TransitionCase {
    observation: Vec<f32>,
    action: Row,
    reward: f32,
    next_observation: Vec<f32>,
    terminated: bool,
    truncated: bool,
}

impl Case for SubmissionCase {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<Verdict, String> {
        let text = |error: FrameError| error.to_string();
        let format = self.format().map_err(|error| error.to_string())?;
        let frame = from_hex(&self.hex)?;
        let mut numbers = vec![0.0; format.width()];
        let decoded = format.decode(&frame, self.max_rows).map(|submission| {
            let Ids { request, policy, version } = submission.header().ids;
            let rows = (0..submission.rows())
                .map(|row| self.transition(submission.read_row(row, &mut numbers)))
                .collect();
            Submission { request, policy, version, batch: submission.batch(), rows }
        });
        match (&self.valid, &self.reject) {
            (Some(content), None) => {
                same("content", Ok(content.clone()), decoded)?;
                let ids = Ids { request: content.request, policy: content.policy, version: content.version };
                let mut written = Vec::new();
                let mut writer = format.writer(ids, content.batch, &mut written);
                content.rows.iter().try_for_each(|row| row.write(&mut writer)).map_err(text)?;
                writer.finish().map_err(text)?;
                same("written frame", &frame, &written)?;
                Ok(Verdict::Valid)
            }
            (None, Some(reason)) => {
                same("reason", Err(reason.as_str()), decoded.as_ref().map_err(FrameError::name))?;
                Ok(Verdict::Rejected)
            }
            _ => Err("needs either \"valid\" or \"reject\"".into()),
        }
    }
}

impl SubmissionCase {
    fn format(&self) -> Result<TransitionFormat, FormatError> {
        let formats = Formats {
            states: StateFormat::new(&self.observation, self.dtype, self.quantization.clone())?,
            actions: ActionFormat::new(&self.action, Some(self.action_dtype))?,
        };
        Ok(TransitionFormat::new(&formats, &self.action))
    }

    fn transition(&self, t: Transition<'_>) -> TransitionCase {
        let action = match self.action {
            Space::Discrete { .. } => Row::Index(t.action[0] as u32),
            Space::Box { .. } => Row::Vector(t.action.to_vec()),
        };
        let (observation, next_observation) = (t.observation.to_vec(), t.next_observation.to_vec());
        let Transition { reward, terminated, truncated, .. } = t;
        TransitionCase { observation, action, reward, next_observation, terminated, truncated }
    }
}

impl TransitionCase {
    fn write(&self, writer: &mut SubmissionWriter<'_>) -> Result<(), FrameError> {
        let index;
        let action = match &self.action {
            Row::Index(given) => {
                index = [*given as f32];
                &index[..]
            }
            Row::Vector(given) => given,
        };
        writer.transition(&Transition {
            observation: &self.observation,
            action,
            reward: self.reward,
            next_observation: &self.next_observation,
            terminated: self.terminated,
            truncated: self.truncated,
        })
    }
}

#[derive(Deserialize)]
struct StreamCase {
    name: String,
    observation: Space,
    action: Space,
    dtype: Dtype,
    action_dtype: Dtype,
    quantization: Option<Quantization>,
    max_rows: usize,
    hex: String,
    valid: Option<StreamContent>,
    reject: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct StreamContent {
    request: u32,
    policy: u32,
    version: u32,
    first: u64,
    rows: Vec<StreamRow>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct StreamRow {
    observation: Vec<f32>,
    action: Row,
    flags: u8,
}

impl Case for StreamCase {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<Verdict, String> {
        let format = self.format().map_err(|error| error.to_string())?;
        let frame = from_hex(&self.hex)?;
        let decoded = format.decode(&frame, self.max_rows).map(|rows| {
            let Ids { request, policy, version } = rows.header().ids;
            let mut observation = vec![0.0; format.observation_width()];
            let mut action = vec![0.0; format.action_width()];
            let row = |i| {
                let flags = rows.read(i, &mut observation, &mut action).0;
                let action = match self.action {
                    Space::Discrete { .. } => Row::Index(action[0] as u32),
                    Space::Box { .. } => Row::Vector(action.clone()),
                };
                StreamRow { observation: observation.clone(), action, flags }
            };
            let rows_read = (0..rows.rows()).map(row).collect();
            StreamContent { request, policy, version, first: rows.first(), rows: rows_read }
        });
        match (&self.valid, &self.reject) {
            (Some(content), None) => {
                same("content", Ok(content.clone()), decoded)?;
                same("written frame", &frame, &write_stream(&format, content)?)?;
                Ok(Verdict::Valid)
            }
            (None, Some(reason)) => {
                same("reason", Err(reason.as_str()), decoded.as_ref().map_err(FrameError::name))?;
                Ok(Verdict::Rejected)
            }
            _ => Err("needs either \"valid\" or \"reject\"".into()),
        }
    }
}

impl StreamCase {
    fn format(&self) -> Result<RowFormat, FormatError> {
        let formats = Formats {
            states: StateFormat::new(&self.observation, self.dtype, self.quantization.clone())?,
            actions: ActionFormat::new(&self.action, Some(self.action_dtype))?,
        };
        Ok(RowFormat::new(&formats, &self.action))
    }
}

fn write_stream(format: &RowFormat, content: &StreamContent) -> Result<Vec<u8>, String> {
    let text = |error: FrameError| error.to_string();
    let (mut rows, mut row_bytes, mut frame) = (Vec::new(), Vec::new(), Vec::new());
    for row in &content.rows {
        let action = match &row.action {
            Row::Index(index) => vec![*index as f32],
            Row::Vector(vector) => vector.clone(),
        };
        let flags = Flags(row.flags);
        let written = format.encode(&row.observation, &action, flags, &mut row_bytes).map_err(text)?;
        same("flags", flags, written)?;
        rows.extend_from_slice(&row_bytes);
    }
    let ids = Ids { request: content.request, policy: content.policy, version: content.version };
    format.write(ids, content.first, &rows, &mut frame).map_err(text)?;
    Ok(frame)
}

#[derive(Deserialize)]
struct WeightsCase {
    name: String,
    parameters: usize,
    held: Option<HeldWeights>,
    hex: String,
    valid: Option<WeightsContent>,
    reject: Option<String>,
}

#[derive(Deserialize)]
struct HeldWeights {
    version: u32,
    weights: Vec<f32>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct WeightsContent {
    request: u32,
    policy: u32,
    version: u32,
    base: u32,
    weights: Vec<f32>,
}

impl Case for WeightsCase {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<Verdict, String> {
        let frame = from_hex(&self.hex)?;
        let decoded = self.decode(&frame);
        match (&self.valid, &self.reject) {
            (Some(content), None) => {
                same("content", Ok(content.clone()), decoded)?;
                // Compressors differ, so that only complete weights have one encoding.
                if content.base == 0 {
                    let ids =
                        Ids { request: content.request, policy: content.policy, version: content.version };
                    let encoding = if frame[1] == Dtype::F16 as u8 { Encoding::F16 } else { Encoding::F32 };
                    let mut written = Vec::new();
                    write_complete(ids, encoding, &content.weights, &mut written)
                        .map_err(|error| error.to_string())?;
                    same("written frame", &frame, &written)?;
                }
                Ok(Verdict::Valid)
            }
            (None, Some(reason)) => {
                same("reason", Err(reason.as_str()), decoded.as_ref().map_err(WeightsError::name))?;
                Ok(Verdict::Rejected)
            }
            _ => Err("needs either \"valid\" or \"reject\"".into()),
        }
    }
}

impl WeightsCase {
    /// What the frame makes of the weights that are held; a refused one must leave them as they are.
    fn decode(&self, frame: &[u8]) -> Result<WeightsContent, WeightsError> {
        let decoded = Weights::read(frame, self.parameters)?;
        let Ids { request, policy, version } = decoded.header().ids;
        let (held, before) = match &self.held {
            Some(held) => (held.version, held.weights.clone()),
            None => (0, vec![0.0; self.parameters]),
        };
        let mut weights = before.clone();
        let applied = decoded.apply(held, &mut weights, &mut Vec::new());
        if let Err(error) = applied {
            assert_eq!(weights, before, "refused weights change nothing");
            return Err(error);
        }
        Ok(WeightsContent { request, policy, version, base: decoded.base(), weights })
    }
}

#[derive(Deserialize)]
struct LogitsCase {
    name: String,
    actions: usize,
    max_rows: usize,
    hex: String,
    valid: Option<LogitsContent>,
    reject: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct LogitsContent {
    request: u32,
    policy: u32,
    version: u32,
    logits: Vec<Vec<f32>>,
}

impl Case for LogitsCase {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<Verdict, String> {
        let frame = from_hex(&self.hex)?;
        let decoded = Logits::read(&frame, self.actions, self.max_rows).map(|read| {
            let (Ids { request, policy, version }, mut values) = (read.ids(), Vec::new());
            read.values(&mut values);
            let logits = values.chunks(self.actions).map(<[f32]>::to_vec).collect();
            LogitsContent { request, policy, version, logits }
        });
        match (&self.valid, &self.reject) {
            (Some(content), None) => {
                same("content", Ok(content.clone()), decoded)?;
                let LogitsContent { request, policy, version, .. } = *content;
                let (mut written, values) = (Vec::new(), content.logits.concat());
                let ids = Ids { request, policy, version };
                write_logits(ids, &values, self.actions, &mut written).map_err(|error| error.to_string())?;
                same("written frame", &frame, &written)?;
                Ok(Verdict::Valid)
            }
            (None, Some(reason)) => {
                same("reason", Err(reason.as_str()), decoded.as_ref().map_err(FrameError::name))?;
                Ok(Verdict::Rejected)
            }
            _ => Err("needs either \"valid\" or \"reject\"".into()),
        }
    }
}

#[derive(Deserialize)]
struct GradientsCase {
    name: String,
    parameters: usize,
    hex: String,
    valid: Option<GradientsContent>,
    reject: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct GradientsContent {
    request: u32,
    policy: u32,
    version: u32,
    gradients: Vec<f32>,
}

impl Case for GradientsCase {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<Verdict, String> {
        let frame = from_hex(&self.hex)?;
        let decoded = Gradients::read(&frame, self.parameters).map(|read| {
            let (Ids { request, policy, version }, mut gradients) = (read.ids(), Vec::new());
            read.values(&mut gradients);
            GradientsContent { request, policy, version, gradients }
        });
        match (&self.valid, &self.reject) {
            (Some(content), None) => {
                same("content", Ok(content.clone()), decoded)?;
                let GradientsContent { request, policy, version, .. } = *content;
                let mut written = Vec::new();
                let ids = Ids { request, policy, version };
                write_gradients(ids, &content.gradients, &mut written).map_err(|error| error.to_string())?;
                same("written frame", &frame, &written)?;
                Ok(Verdict::Valid)
            }
            (None, Some(reason)) => {
                same("reason", Err(reason.as_str()), decoded.as_ref().map_err(FrameError::name))?;
                Ok(Verdict::Rejected)
            }
            _ => Err("needs either \"valid\" or \"reject\"".into()),
        }
    }
}

fn from_hex(hex: &str) -> Result<Vec<u8>, String> {
    let digit =
        |byte: u8| char::from(byte).to_digit(16).ok_or_else(|| "\"hex\" is not hexadecimal".to_string());
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err("\"hex\" has half a byte".into());
    }
    // Exact: two hexadecimal digits stay below 256.
    pairs.iter().map(|[high, low]| Ok((digit(*high)? * 16 + digit(*low)?) as u8)).collect()
}

#[derive(Deserialize)]
struct MessageCase {
    name: String,
    from: Sender,
    text: String,
    #[serde(default)]
    pad: usize,
    means: Option<Value>,
    refused: Option<ErrorCode>,
    reject: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sender {
    Client,
    Server,
}

impl Case for MessageCase {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<Verdict, String> {
        let text = self.text.clone() + &" ".repeat(self.pad);
        let decoded = match self.from {
            Sender::Client => ClientMessage::decode(&text).map(|message| message.encode()),
            Sender::Server => ServerMessage::decode(&text).map(|message| message.encode()),
        };
        match (&self.means, &self.reject) {
            (Some(means), None) => {
                let written: Value = serde_json::from_str(&decoded.map_err(|error| error.to_string())?)
                    .map_err(|error| error.to_string())?;
                same("meaning", means, &written)?;
                self.check_content(&text)
            }
            (None, Some(reason)) => {
                same("reason", Err(reason.as_str()), decoded.as_deref().map_err(message_error_name))?;
                Ok(Verdict::Rejected)
            }
            _ => Err("needs either \"means\" or \"reject\"".into()),
        }
    }
}

impl MessageCase {
    /// A readable `hello` may still say what cannot be.
    fn check_content(&self, text: &str) -> Result<Verdict, String> {
        let Ok(ClientMessage::Hello(hello)) = ClientMessage::decode(text) else {
            return Ok(Verdict::Valid);
        };
        same("refusal", self.refused, hello.formats().err().map(|error| error.code))?;
        Ok(if self.refused.is_some() { Verdict::Rejected } else { Verdict::Valid })
    }
}

fn message_error_name(error: &MessageError) -> &'static str {
    match error {
        MessageError::TooLarge(_) => "too_large",
        MessageError::UnknownType(_) => "unknown_type",
        MessageError::Malformed(_) => "malformed",
    }
}

#[derive(Deserialize)]
struct AdapterCase {
    name: String,
    student: Spaces,
    teacher: Spaces,
    adapter: Option<Json>,
    #[serde(default)]
    observations: Vec<RowCase>,
    #[serde(default)]
    actions: Vec<RowCase>,
    reject: Option<ErrorCode>,
}

#[derive(Deserialize)]
struct Spaces {
    observation: Space,
    action: Space,
}

#[derive(Deserialize)]
struct RowCase {
    from: Row,
    to: Option<Row>,
    reject: Option<ErrorCode>,
}

impl RowCase {
    fn expected(&self) -> Result<Result<Row, ErrorCode>, String> {
        match (&self.to, self.reject) {
            (Some(row), None) => Ok(Ok(row.clone())),
            (None, Some(code)) => Ok(Err(code)),
            _ => Err("a row needs either \"to\" or \"reject\"".into()),
        }
    }
}

impl AdapterCase {
    /// What cannot be read is as bad as what does not fit.
    fn adapter(&self) -> Result<Adapter, ErrorCode> {
        let none = Json::Object(Vec::new());
        oto_json::from_tree(self.adapter.as_ref().unwrap_or(&none)).map_err(|_| ErrorCode::BadAdapter)
    }
}

impl Case for AdapterCase {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<Verdict, String> {
        let (student, teacher) = (&self.student, &self.teacher);
        let plan = self.adapter().and_then(|adapter| {
            let plan =
                adapter.check(&student.observation, &student.action, &teacher.observation, &teacher.action);
            plan.map_err(|error| error.code())
        });
        match (plan, self.reject) {
            (Ok(plan), None) => {
                self.observations.iter().try_for_each(|row| check_observation(&plan, row))?;
                self.actions.iter().try_for_each(|row| check_action(&plan, row))?;
                Ok(Verdict::Valid)
            }
            (plan, reject) => {
                same("refusal", reject, plan.err())?;
                Ok(Verdict::Rejected)
            }
        }
    }
}

fn check_observation(plan: &Plan, row: &RowCase) -> Result<(), String> {
    let Row::Vector(from) = &row.from else { return Err("an observation is a list of numbers".into()) };
    let mut to = vec![0.0; plan.teacher_observation().width()];
    let mapped = plan.observation(from, &mut to).map(|()| Row::Vector(to)).map_err(|error| error.code());
    same("mapped observation", row.expected()?, mapped)
}

fn check_action(plan: &Plan, row: &RowCase) -> Result<(), String> {
    let mut scratch = vec![0.0; plan.student_action().width()];
    let mapped = plan.action(row.from.as_action(), &mut scratch).map(Row::new).map_err(|error| error.code());
    same("mapped action", row.expected()?, mapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_crate_agrees_with_every_vector() {
        for (name, json) in FILES {
            let summary = run(json).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(summary.valid >= 15 && summary.rejected >= 25, "{name}: {summary:?}");
        }
    }

    #[test]
    fn a_wrong_vector_is_noticed() {
        let (_, frames) = FILES[0];
        for (right, wrong) in [("\"request\": 7", "\"request\": 8"), ("\"wrong_kind\"", "\"wrong_mood\"")] {
            let error = run(&frames.replacen(right, wrong, 1)).expect_err("the file was spoilt");
            assert!(matches!(error, VectorError::Disagrees { .. }), "{error}");
        }
        let (_, adapters) = FILES[2];
        let error = run(&adapters.replacen("\"to\": 0", "\"to\": 1", 1)).expect_err("the file was spoilt");
        assert!(matches!(error, VectorError::Disagrees { .. }), "{error}");
        for foreign in ["", "[]", "{\"kind\":\"losses\"}", "{\"kind\":\"oto.v1/frames\"}"] {
            assert!(matches!(run(foreign), Err(VectorError::Malformed(_))), "{foreign}");
        }
    }
}

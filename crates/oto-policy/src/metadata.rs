//! The JSON beside a model: who trained it where, and what it observes and does.

use crate::PolicyError;
use crate::statistics::Statistics;
use oto_proto::{Space, check_space};
use oto_rl::convolution::Convolution;
use oto_rl::mlp::Activation;
use serde::{Deserialize, Serialize};

/// The largest metadata file, in bytes.
pub const MAX_METADATA_BYTES: usize = 1 << 20;

/// Where a policy's statistics of observations are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Normalize {
    /// In this file.
    File(String),
    /// `false`: it has none.
    Has(bool),
}

/// What is known about a policy. Everything is optional but the kind; what a model needs and its file does not hold is
/// asked for when it is loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Always `policy`.
    pub kind: String,
    /// The file of the model beside this one, or the name of a [`scripted`](mod@crate::scripted) policy. Without it, the
    /// model has the name of this file and another extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// In place of a model: the names of policies beside this one, which answer together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<Vec<String>>,
    /// One or two sentences for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The environment it was trained in. If it is one of the built-in ones, its spaces stand in for absent ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// The library and algorithm that trained it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// What it observes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation_space: Option<Space>,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_space: Option<Space>,
    /// What its actions mean, for people; `range [-3,3]` in it stands in for the bounds of an absent action space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_meaning: Option<String>,
    /// The activation of the hidden layers, where it is not the algorithm's default and the model does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Of an ONNX graph: whether its actions go from -1 to 1 and are to be scaled to the bounds of the action space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_actions: Option<bool>,
    /// Of an ARS policy's tensors: whether its answer is a tanh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub squash_output: Option<bool>,
    /// The file beside this one with the statistics of Stable-Baselines3's `VecNormalize`, with which observations are normalised
    /// first; or `false`: what such a file beside it says is in the model already, or not meant for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
    /// What that file says, filled in when it is loaded; or declared here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<Statistics>,
    /// The sizes of oto's own convolutions, where its network sees images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convolution: Option<Convolution>,
    /// The operators of the ONNX export; if they name one activation only, it stands in for `activation`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<String>,
    /// All other facts, kept as they are.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Metadata {
    /// Reads a metadata file.
    ///
    /// # Errors
    /// If it is too long, not JSON of this form, or not of kind `policy`.
    pub fn read(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > MAX_METADATA_BYTES {
            let (found, max) = (bytes.len() as u64, MAX_METADATA_BYTES as u64);
            return Err(PolicyError::TooLarge {
                what: "the metadata file".into(),
                found,
                max,
                unit: "bytes",
            });
        }
        let metadata: Metadata =
            serde_json::from_slice(bytes).map_err(|e| PolicyError::Metadata(e.to_string()))?;
        if metadata.kind != "policy" {
            let message = format!("expected \"kind\": \"policy\", got {:?}", metadata.kind);
            return Err(PolicyError::Metadata(message));
        }
        for (name, space) in
            [("observation_space", &metadata.observation_space), ("action_space", &metadata.action_space)]
        {
            let checked = space.as_ref().map_or(Ok(()), check_space);
            checked.map_err(|error| PolicyError::Metadata(format!("{name}: {error}")))?;
        }
        Ok(metadata)
    }

    /// The declared or implied activation of hidden layers. `squashed`: a tanh follows the last layer.
    pub(crate) fn hidden_activation(&self, squashed: bool) -> Option<Activation> {
        let implied = || {
            let has = |name: &str| self.ops.iter().any(|op| op == name);
            match (has("Relu"), has("Tanh")) {
                (true, tanh) => (!tanh || squashed).then_some(Activation::Relu),
                (false, true) => Some(Activation::Tanh),
                _ => None,
            }
        };
        self.activation.or_else(implied)
    }

    /// The bounds that `action_meaning` names.
    pub(crate) fn action_range(&self) -> Option<(f32, f32)> {
        let (_, after) = self.action_meaning.as_deref()?.split_once("range")?;
        let (low, high) = after.trim_start().strip_prefix('[')?.split_once(']')?.0.split_once(',')?;
        Some((low.trim().parse().ok()?, high.trim().parse().ok()?))
    }
}

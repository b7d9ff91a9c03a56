//! The JSON beside a model: who trained it where, and what it observes and does.

use crate::PolicyError;
use crate::statistics::Statistics;
use oto_env::SpaceTree;
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
    /// What it observes. In a file it may have several parts, which become a row of numbers.
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

/// The metadata with spaces of several parts as rows of numbers, if they have such; none of another form, or if a reader is to say what
/// is wrong with them.
fn flattened(bytes: &[u8]) -> Result<Option<serde_json::Value>, PolicyError> {
    let Ok(mut whole) = serde_json::from_slice::<serde_json::Value>(bytes) else { return Ok(None) };
    let mut any = false;
    for name in ["observation_space", "action_space"] {
        let Some(space) = whole.get_mut(name) else { continue };
        let plain = ["discrete", "box"].iter().any(|kind| space["kind"] == *kind);
        if !space.is_object() || (plain && space.get("start").is_none_or(|start| start == 0)) {
            continue;
        }
        let wrong = |error: String| PolicyError::Metadata(format!("{name}: {error}"));
        let tree: SpaceTree = oto_json::read(&space.to_string()).map_err(|error| wrong(error.to_string()))?;
        tree.validate().map_err(|error| wrong(error.to_string()))?;
        *space = serde_json::to_value(as_row(&tree, name == "action_space").map_err(wrong)?)
            .map_err(|error| wrong(error.to_string()))?;
        any = true;
    }
    Ok(any.then_some(whole))
}

/// A space of several parts as `gymnasium.spaces.flatten_space` makes it.
fn as_row(tree: &SpaceTree, action: bool) -> Result<Space, String> {
    match tree {
        SpaceTree::Discrete { n, start: 0 } => Ok(Space::Discrete { n: *n }),
        SpaceTree::Discrete { n, start } => {
            Err(format!("indices count from 0 to {} here, got the start {start}: leave it out", n - 1))
        }
        _ if !action => Ok(tree.flat()),
        _ => match tree.action().map_err(|error| error.to_string())? {
            Space::Discrete { .. } if tree.numbers() > 1 => {
                Err("expected one choice or numbers, got several choices at once".into())
            }
            space => Ok(space),
        },
    }
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
        let wrong = |error: serde_json::Error| PolicyError::Metadata(error.to_string());
        let metadata = match flattened(bytes)? {
            Some(flat) => serde_json::from_value(flat),
            None => serde_json::from_slice(bytes),
        };
        let metadata: Metadata = metadata.map_err(wrong)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(observation: &str, action: &str) -> Result<Metadata, String> {
        let text = format!(
            r#"{{"kind":"policy","observation_space":{observation},"action_space":{action},"seed":7}}"#
        );
        Metadata::read(text.as_bytes()).map_err(|error| error.to_string())
    }

    const FORCE: &str = r#"{"kind":"box","low":[-3],"high":[3]}"#;

    #[test]
    fn spaces_of_several_parts_become_rows() {
        let parts = r#"{"kind":"dict","spaces":{"b":{"kind":"tuple","spaces":[{"kind":"multi_binary","n":2},
            {"kind":"discrete","n":3,"start":-1}]},"a":{"kind":"box","low":[-1,null],"high":[1,null]}}}"#;
        let metadata = read(parts, FORCE).unwrap();
        let end = f32::INFINITY;
        let low = vec![-1.0, -end, 0.0, 0.0, 0.0, 0.0, 0.0];
        let high = vec![1.0, end, 1.0, 1.0, 1.0, 1.0, 1.0];
        assert_eq!(metadata.observation_space, Some(Space::Box { low, high }));
        assert_eq!(metadata.action_space, Some(Space::Box { low: vec![-3.0], high: vec![3.0] }));
        assert_eq!(metadata.other["seed"], 7, "other facts stay");
        let forces = format!(r#"{{"kind":"dict","spaces":{{"b":{FORCE},"a":{FORCE}}}}}"#);
        let space = read(FORCE, &forces).unwrap().action_space;
        assert_eq!(space, Some(Space::Box { low: vec![-3.0; 2], high: vec![3.0; 2] }));
        let one = r#"{"kind":"tuple","spaces":[{"kind":"discrete","n":3}]}"#;
        assert_eq!(read(FORCE, one).unwrap().action_space, Some(Space::Discrete { n: 3 }));
    }

    #[test]
    fn what_no_row_can_be_made_of_is_refused_by_name() {
        for (observation, action, says) in [
            (
                FORCE,
                r#"{"kind":"discrete","n":3,"start":-1}"#,
                "action_space: indices count from 0 to 2 here",
            ),
            (r#"{"kind":"discrete","n":3,"start":2}"#, FORCE, "observation_space: indices count from 0"),
            (FORCE, r#"{"kind":"multi_discrete","nvec":[2,3]}"#, "several choices at once"),
            (FORCE, r#"{"kind":"multi_binary","n":2}"#, "several choices at once"),
            (r#"{"kind":"dict","spaces":{}}"#, FORCE, "observation_space: "),
            (r#"{"kind":"graph","n":3}"#, FORCE, "observation_space: kind: expected"),
            (r#"{"kind":"tuple","spaces":[{"kind":"box","low":[1],"high":[0]}]}"#, FORCE, "range 1.0 to 0.0"),
            (r#"{"kind":"multi_binary","n":4294967295}"#, FORCE, "observation_space: "),
        ] {
            let error = read(observation, action).unwrap_err();
            assert!(error.contains(says), "{observation} {action}: {error}");
        }
        assert!(Metadata::read(br#"["policy"]"#).is_err());
    }
}

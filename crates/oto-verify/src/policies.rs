//! The kinds `policy` and `policy_golden`: a teacher's model beside its metadata, and recorded outputs of one.

use crate::array::{Array, read_array};
use crate::compare::{Outcome, Worst};
use crate::read::{Cases, Sibling};
use oto_policy::{Metadata, Output, Policy, PolicyError, load, scripted};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

const TOLERANCE: f64 = 1e-5;

/// The formats of one policy, as endings of files of the same name.
const ENDINGS: [&str; 5] = ["onnx", "safetensors", "policy.pth", "pth", "zip"];

#[derive(Deserialize)]
struct Golden {
    onnx: String,
    obs: Value,
    outputs: BTreeMap<String, Value>,
}

/// One case: the model of these metadata.
pub(crate) fn policy(name: &str, text: &[u8], sibling: Sibling<'_>) -> Result<Cases, String> {
    let metadata = Metadata::read(text).map_err(|error| error.to_string())?;
    if let Some(script) = metadata.model.as_deref().filter(|model| model.starts_with(scripted::PREFIX)) {
        return Ok(vec![(script.into(), Outcome::Unsupported("a scripted policy has no model".into()))]);
    }
    let (model, bytes) = match &metadata.model {
        Some(model) => (model.clone(), required(model, sibling)?),
        None => first_model(name, sibling)?,
    };
    let outcome = check_model(&metadata, &bytes).unwrap_or_else(|outcome| outcome);
    Ok(vec![(model, outcome)])
}

fn first_model(name: &str, sibling: Sibling<'_>) -> Result<(String, Vec<u8>), String> {
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
    for ending in ENDINGS {
        let model = format!("{stem}.{ending}");
        if let Some(bytes) = beside(&model, sibling)? {
            return Ok((model, bytes));
        }
    }
    Err(format!("there is no model {stem} beside it (endings {})", ENDINGS.join(", ")))
}

fn check_model(metadata: &Metadata, bytes: &[u8]) -> Result<Outcome, Outcome> {
    let is_onnx = metadata.model.as_ref().is_none_or(|model| model.ends_with(".onnx"));
    let expected = metadata.other.get("sha256").and_then(Value::as_str).filter(|_| is_onnx);
    let checksum: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if expected.is_some_and(|expected| !expected.eq_ignore_ascii_case(&checksum)) {
        return Err(Outcome::Failed(format!("the model's sha256 is {checksum}, the metadata say another")));
    }
    let mut policy = load(bytes, metadata).map_err(refusal)?;
    let observation = vec![0.0; policy.observation_space().width()];
    policy.act(&observation, 1, &mut Vec::new()).map_err(refusal)?;
    let checked = if expected.is_some() { "sha256 agrees, " } else { "" };
    let (observed, done) = (policy.observation_space(), policy.action_space());
    Ok(Outcome::Agreed(format!("{checked}the model loads and acts: {observed} to {done}")))
}

/// One case for each format of the policy that is there; the named one must be.
pub(crate) fn golden(text: &[u8], sibling: Sibling<'_>) -> Result<Cases, String> {
    let golden: Golden =
        serde_json::from_slice(text).map_err(|error| format!("not a file of this kind: {error}"))?;
    let observations = read_array(&golden.obs).map_err(|reason| format!("obs {reason}"))?;
    let outputs = golden.outputs.iter().map(|(name, value)| {
        let array = read_array(value).map_err(|reason| format!("outputs.{name} {reason}"))?;
        Ok((name.as_str(), array))
    });
    let outputs = outputs.collect::<Result<Vec<_>, String>>()?;
    if observations.shape.len() != 2 || outputs.is_empty() {
        return Err(format!("expected rows of obs and outputs, got obs of shape {:?}", observations.shape));
    }
    let (stem, _) = golden.onnx.rsplit_once('.').unwrap_or((&golden.onnx, ""));
    let metadata = match beside(&format!("{stem}.json"), sibling)? {
        Some(bytes) => Metadata::read(&bytes).map_err(|error| error.to_string())?,
        None => Metadata::default(),
    };
    let mut cases = vec![(golden.onnx.clone(), required(&golden.onnx, sibling)?)];
    for name in
        ENDINGS.map(|ending| format!("{stem}.{ending}")).into_iter().filter(|name| *name != golden.onnx)
    {
        if let Some(bytes) = beside(&name, sibling)? {
            cases.push((name, bytes));
        }
    }
    let check = |(name, bytes): (String, Vec<u8>)| {
        let all = name == golden.onnx;
        let worst = load(&bytes, &metadata)
            .map_err(refusal)
            .and_then(|mut policy| compare_outputs(&mut *policy, &observations, &outputs, all));
        (name, worst.map_or_else(|outcome| outcome, Outcome::Compared))
    };
    Ok(cases.into_iter().map(check).collect())
}

/// `all`: every recorded output must be there. Another format of the policy may have fewer, but not none.
fn compare_outputs(
    policy: &mut dyn Policy,
    observations: &Array,
    expected: &[(&str, Array)],
    all: bool,
) -> Result<Worst, Outcome> {
    let rows = observations.shape[0];
    let numbers: Vec<f32> = observations.values.iter().map(|&number| number as f32).collect();
    let outputs = policy.outputs(&numbers, rows).map_err(refusal)?;
    let mut worst = Worst::default();
    for (name, array) in expected {
        match outputs.iter().find(|output| output.name == *name) {
            Some(output) => compare_output(output, array, &mut worst)?,
            None if all => return Err(Outcome::Failed(format!("the model has no output {name}"))),
            None => {}
        }
    }
    Ok(worst)
}

fn compare_output(output: &Output, expected: &Array, worst: &mut Worst) -> Result<(), Outcome> {
    // An action of one number may stand in a list of its own or not.
    let plain = |shape: &[usize]| shape.iter().copied().filter(|&length| length != 1).collect::<Vec<_>>();
    if plain(&output.shape) != plain(&expected.shape) || output.values.len() != expected.values.len() {
        let Output { name, shape, .. } = output;
        return Err(Outcome::Failed(format!(
            "{name} has the shape {shape:?}, expected {:?}",
            expected.shape
        )));
    }
    let got = output.values.iter().copied().map(f64::from);
    worst.numbers(got, &expected.values, TOLERANCE, || output.name.clone());
    Ok(())
}

fn refusal(error: PolicyError) -> Outcome {
    match error {
        PolicyError::Unsupported(_) | PolicyError::UnsupportedOperator { .. } => {
            Outcome::Unsupported(error.to_string())
        }
        _ => Outcome::Failed(error.to_string()),
    }
}

fn required(name: &str, sibling: Sibling<'_>) -> Result<Vec<u8>, String> {
    beside(name, sibling)?.ok_or_else(|| format!("there is no model {name} beside it"))
}

/// The bytes of a file in the same folder. A name from a file may not lead out of it.
fn beside(name: &str, sibling: Sibling<'_>) -> Result<Option<Vec<u8>>, String> {
    if name.is_empty() || name == ".." || name.contains(['/', '\\', ':', '\0']) {
        return Err(format!("expected the name of a file beside it, got {name:?}"));
    }
    sibling(name).map_err(|error| format!("{name}: {error}"))
}

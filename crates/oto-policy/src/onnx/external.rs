//! Graphs whose weights lie in another file, as PyTorch's exporter writes them unless it is told otherwise: they are taken into the
//! graph. The other file lies in the model's own folder.

use super::check::malformed;
use crate::PolicyError;
use crate::load::is_plain;
use crate::tensors::MAX_MODEL_BYTES;
use prost::Message;
use std::collections::HashMap;
use tract_onnx::pb::tensor_proto::DataLocation;
use tract_onnx::pb::{ModelProto, TensorProto};

/// The model with all of its weights; `None` if it has them already, or is no model. `read` gives a file of the model's folder.
pub(crate) fn inline(
    model: &[u8],
    read: impl Fn(&str) -> Result<Vec<u8>, PolicyError>,
) -> Result<Option<Vec<u8>>, PolicyError> {
    let Ok(mut model) = ModelProto::decode(model) else { return Ok(None) };
    let Some(graph) = &mut model.graph else { return Ok(None) };
    let constants = graph.node.iter_mut().flat_map(|node| &mut node.attribute).filter_map(|a| a.t.as_mut());
    let (mut files, mut total, mut found) = (HashMap::new(), 0u64, false);
    for tensor in graph.initializer.iter_mut().chain(constants).filter(|tensor| is_external(tensor)) {
        found = true;
        let (name, offset, length) = place(tensor)?;
        if !files.contains_key(&name) {
            files.insert(name.clone(), read(&name)?);
        }
        let file = &files[&name];
        let end = length.map_or(file.len(), |length| offset.saturating_add(length));
        let Some(bytes) = file.get(offset..end) else {
            return Err(malformed(format!(
                "the constant {:?} should be bytes {offset} to {end} of {name:?}, which has {}",
                tensor.name,
                file.len()
            )));
        };
        // Several may be the same bytes.
        total += bytes.len() as u64;
        if total > MAX_MODEL_BYTES {
            let what = "the model with its other files".into();
            return Err(PolicyError::TooLarge { what, found: total, max: MAX_MODEL_BYTES, unit: "bytes" });
        }
        tensor.raw_data = bytes.to_vec();
        tensor.external_data.clear();
        tensor.data_location = None;
    }
    Ok(found.then(|| model.encode_to_vec()))
}

pub(super) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32) || !tensor.external_data.is_empty()
}

/// In which file a tensor's bytes are, where they begin, and how many they are if it is not all of the rest.
fn place(tensor: &TensorProto) -> Result<(String, usize, Option<usize>), PolicyError> {
    let get =
        |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
    let number = |key: &str| {
        let parse = |text: &String| {
            let refused = |_| malformed(format!("the constant {:?} has the {key} {text:?}", tensor.name));
            text.parse::<usize>().map_err(refused)
        };
        get(key).map(parse).transpose()
    };
    let name = get("location").map_or("", String::as_str);
    let name = name.strip_prefix("./").unwrap_or(name);
    if !is_plain(name) {
        return Err(PolicyError::Unsupported(format!(
            "the constant {:?} lies in {name:?}, expected a file beside the model; export into one file (external_data=False)",
            tensor.name
        )));
    }
    Ok((name.into(), number("offset")?.unwrap_or(0), number("length")?))
}

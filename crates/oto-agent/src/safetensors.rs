//! Files of named float32 arrays in the format of safetensors (<https://github.com/huggingface/safetensors>, "Format"): the
//! length of a header, the header as JSON, the arrays' bytes. Only what checkpoints need of it; the library reads and writes
//! its JSON by serde, which costs a page more than all checkpoints do.

use oto_json::{Json, Writer};
use oto_rl::engine::NamedTensor;
use oto_rl::lstm;
use oto_rl::mlp::Layer;
use oto_rl::network::Actor;

/// The header's longest length in bytes, as in the library.
const MAX_HEADER: u64 = 100_000_000;
/// The key of the file's own texts among the arrays.
const METADATA: &str = "__metadata__";

/// Where an array lies.
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    /// Its first byte and the one after its last, from the header's end on.
    data_offsets: (usize, usize),
}

oto_json::json_object! { Entry: open { dtype, shape, data_offsets } }

/// Writes a file with one text of its own, `key`.
pub fn write(key: &str, text: &str, tensors: &[NamedTensor]) -> Vec<u8> {
    let mut end = 0;
    let mut header = Writer::object(|out| {
        out.field(METADATA, &Json::Object(vec![(key.into(), Json::Text(text.into()))]));
        for tensor in tensors {
            let begin = end;
            end += tensor.values.len() * 4;
            let entry =
                Entry { dtype: "F32".into(), shape: tensor.shape.clone(), data_offsets: (begin, end) };
            out.field(&tensor.name, &entry);
        }
    });
    // The arrays are aligned for those who map the file into memory.
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut file = Vec::with_capacity(8 + header.len() + end);
    file.extend((header.len() as u64).to_le_bytes());
    file.extend(header.as_bytes());
    tensors.iter().flat_map(|t| &t.values).for_each(|value| file.extend(value.to_le_bytes()));
    file
}

/// A network as tensors, `layers` in place of its own last ones: convolutions are `{prefix}encoder.N.weight` and `.bias`, the layers after
/// them `{prefix}N.weight` and `.bias`. Of a recurrent network the layers before its LSTM layers are `{prefix}before.N.weight` and `.bias`, and
/// LSTM layers `{prefix}lstm.N.weight_ih`, `.weight_hh` and `.bias`.
pub fn network(prefix: &str, network: &Actor, layers: &[Layer]) -> Vec<NamedTensor> {
    let named = |name: String, shape: &[usize], values: &[f32]| NamedTensor {
        name,
        shape: shape.to_vec(),
        values: values.to_vec(),
    };
    let mut tensors = Vec::new();
    if let Some(encoder) = network.encoder() {
        let parts = encoder.parameters().collect::<Vec<_>>();
        for (i, (part, shape)) in parts.chunks_exact(2).zip(encoder.convolution().weights()).enumerate() {
            tensors.push(named(format!("{prefix}encoder.{i}.weight"), &shape, part[0]));
            tensors.push(named(format!("{prefix}encoder.{i}.bias"), &shape[..1], part[1]));
        }
    }
    let connected = |tensors: &mut Vec<NamedTensor>, prefix: &str, layers: &[Layer]| {
        for (i, layer) in layers.iter().enumerate() {
            let (outputs, inputs) = (layer.bias.len(), layer.weight.len() / layer.bias.len());
            tensors.push(named(format!("{prefix}{i}.weight"), &[outputs, inputs], &layer.weight));
            tensors.push(named(format!("{prefix}{i}.bias"), &[outputs], &layer.bias));
        }
    };
    connected(&mut tensors, &format!("{prefix}before."), network.layers_before());
    for (i, cell) in network.cells().iter().enumerate() {
        for (part, values) in lstm::PARAMETERS.iter().zip(cell.parameters()) {
            let gates = 4 * cell.units();
            let shape = [gates, values.len() / gates];
            let shape = if *part == "bias" { &shape[..1] } else { &shape };
            tensors.push(named(format!("{prefix}lstm.{i}.{part}"), shape, values));
        }
    }
    connected(&mut tensors, prefix, layers);
    tensors
}

/// The text that a file of this format has of its own.
///
/// # Errors
/// A file without it; one of a format before.
pub fn entry<'f>(file: &'f File<'_>, format: &str, before: &[&str]) -> Result<&'f str, String> {
    let old = || before.iter().find(|old| file.text(old).is_some());
    file.text(format).ok_or_else(|| match old() {
        Some(old) => format!(
            "an older oto wrote it, in the format {old}; this oto reads {format}: continue the run with the oto that began it, or \
             begin it anew"
        ),
        None => format!("a safetensors file, but its metadata have no entry {format}"),
    })
}

/// A file that was read: its texts, and where its arrays are.
pub struct File<'a> {
    header: Json,
    data: &'a [u8],
}

impl<'a> File<'a> {
    /// Reads a file's header.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(file: &'a [u8]) -> Result<Self, String> {
        let (length, rest) = file.split_first_chunk::<8>().ok_or("it ends within its first 8 bytes")?;
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER {
            return Err(format!(
                "it is no safetensors file: its header would have {length} bytes, at most {MAX_HEADER} are expected"
            ));
        }
        let split = rest.split_at_checked(length as usize);
        let (header, data) =
            split.ok_or_else(|| format!("its header has {length} bytes, {} are there", rest.len()))?;
        let header = std::str::from_utf8(header).map_err(|_| "its header is not UTF-8")?;
        let header = oto_json::parse(header).map_err(|error| format!("its header: {error}"))?;
        let file = Self { header, data };
        file.check()?;
        Ok(file)
    }

    /// Checks that the arrays fill the file in the header's order, which is how the library writes it.
    fn check(&self) -> Result<(), String> {
        let Json::Object(entries) = &self.header else { return Err("its header is no object".into()) };
        let mut at = 0;
        for (name, entry) in entries.iter().filter(|(name, _)| name != METADATA) {
            let entry: Entry = oto_json::from_tree(entry).map_err(|error| format!("{name}: {error}"))?;
            let (begin, end) = entry.data_offsets;
            if begin != at || end < begin {
                return Err(format!("{name} lies from byte {begin} to {end}, it should begin at {at}"));
            }
            at = end;
        }
        match at == self.data.len() {
            true => Ok(()),
            false => Err(format!("its arrays have {at} bytes, {} are there", self.data.len())),
        }
    }

    /// One of the file's own texts.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.header.get(METADATA)?.get(key)? {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether there is an array whose name begins so.
    pub fn any(&self, prefix: &str) -> bool {
        let Json::Object(entries) = &self.header else { return false };
        entries.iter().any(|(name, _)| name.starts_with(prefix))
    }

    /// The numbers of an array of this shape; none where there is no such array, or one of another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Option<Vec<f32>> {
        let entry: Entry = oto_json::from_tree(self.header.get(name)?).ok()?;
        self.floats(name).filter(|_| entry.shape == shape)
    }

    /// The numbers of an array; none where there is no such array, or not of float32.
    pub fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let entry: Entry = oto_json::from_tree(self.header.get(name)?).ok()?;
        let (begin, end) = entry.data_offsets;
        let bytes = self.data.get(begin..end).filter(|_| entry.dtype == "F32")?;
        let (values, rest) = bytes.as_chunks::<4>();
        let count = entry.shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let whole = rest.is_empty() && count == Some(values.len());
        whole.then(|| values.iter().map(|value| f32::from_le_bytes(*value)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::{Dtype, SafeTensors, TensorView};
    use std::collections::HashMap;

    fn tensors() -> Vec<NamedTensor> {
        let tensor = |name: &str, shape: &[usize], values: &[f32]| NamedTensor {
            name: name.into(),
            shape: shape.to_vec(),
            values: values.to_vec(),
        };
        vec![
            tensor("b.weight", &[2, 2], &[1.0, -2.0, f32::MIN_POSITIVE, f32::MAX]),
            tensor("a", &[], &[7.0]),
            tensor("none", &[0, 3], &[]),
        ]
    }

    #[test]
    fn the_library_reads_what_is_written() {
        let file = write("who", "a \"text\"", &tensors());
        let (length, header) = SafeTensors::read_metadata(&file).unwrap();
        assert!(length.is_multiple_of(8));
        assert_eq!(header.metadata().as_ref().unwrap()["who"], "a \"text\"");
        let read = SafeTensors::deserialize(&file).unwrap();
        let ours = File::read(&file).unwrap();
        assert_eq!(ours.text("who"), Some("a \"text\""));
        for t in tensors() {
            let view = read.tensor(&t.name).unwrap();
            assert_eq!((view.dtype(), view.shape()), (Dtype::F32, &t.shape[..]));
            let bytes: Vec<u8> = t.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert_eq!(view.data(), bytes);
            assert_eq!(ours.floats(&t.name), Some(t.values));
        }
    }

    #[test]
    fn what_the_library_writes_is_read() {
        let bytes: Vec<u8> = [1.5_f32, -3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = |dtype, shape| TensorView::new(dtype, shape, &bytes).unwrap();
        let views = [("x", view(Dtype::F32, vec![2, 1])), ("whole", view(Dtype::I64, vec![1]))];
        let metadata = HashMap::from([("k".to_string(), "v".to_string())]);
        let file = safetensors::serialize(views, Some(metadata)).unwrap();
        let read = File::read(&file).unwrap();
        assert_eq!((read.text("k"), read.text("x")), (Some("v"), None));
        assert_eq!(read.floats("x"), Some(vec![1.5, -3.0]));
        assert_eq!((read.floats("whole"), read.floats("y")), (None, None), "only float32");
    }

    #[test]
    fn a_file_that_ends_too_early_or_late_is_refused() {
        let file = write("who", "text", &tensors());
        for length in 0..file.len() {
            assert!(File::read(&file[..length]).is_err(), "{length}");
        }
        assert!(File::read(&[&file[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_header_that_lies_is_refused_or_gives_nothing() {
        let file = |header: &str, data: &[u8]| {
            [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
        };
        for header in [
            "[]",
            "{",
            r#"{"x":7}"#,
            r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
            r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}"#,
            r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"y":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
        ] {
            assert!(File::read(&file(header, &[0; 4])).is_err(), "{header}");
        }
        let far = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
        assert!(File::read(&far).is_err());
        for shape in ["[2]", "[4294967295,4294967295,4294967295]"] {
            let header = format!(r#"{{"x":{{"dtype":"F32","shape":{shape},"data_offsets":[0,4]}}}}"#);
            assert_eq!(File::read(&file(&header, &[0; 4])).unwrap().floats("x"), None, "{shape}");
        }
    }
}

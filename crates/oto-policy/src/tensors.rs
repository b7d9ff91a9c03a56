//! Named tensors from safetensors, from a file that `torch.save` wrote, and from a Stable-Baselines3 model `.zip`.

use crate::{Metadata, PolicyError, pickle};
use oto_proto::Space;
use oto_rl::mlp::Activation;
use safetensors::{Dtype, SafeTensors};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};
use zip::ZipArchive;

/// The largest model file, and the largest file inside a model file, in bytes.
pub const MAX_MODEL_BYTES: u64 = 64 << 20;
/// The largest pickle: a state dict's has a few hundred bytes for each tensor.
const MAX_PICKLE_BYTES: u64 = 4 << 20;

/// The metadata entry of a file that oto wrote for one of its own policies.
const OWN_METADATA: &str = "oto.policy.v1";

/// A tensor in single precision, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
}

/// Tensors by name, as PyTorch's modules name their parameters.
pub type StateDict = BTreeMap<String, Tensor>;

/// Reads a safetensors file with float32 or float64 tensors.
///
/// # Errors
/// If the file is damaged or holds another type of number.
pub fn from_safetensors(bytes: &[u8]) -> Result<StateDict, PolicyError> {
    let malformed = |reason: String| PolicyError::Malformed { format: "safetensors file", reason };
    let file = SafeTensors::deserialize(bytes).map_err(|e| malformed(e.to_string()))?;
    let tensor = |name: &str| {
        let view = file.tensor(name).map_err(|e| malformed(e.to_string()))?;
        let values = match view.dtype() {
            Dtype::F32 => view.data().chunks_exact(4).map(single).collect(),
            Dtype::F64 => view.data().chunks_exact(8).map(double).collect(),
            other => return Err(wrong_type(name, &format!("{other:?}"))),
        };
        Ok(Tensor { shape: view.shape().to_vec(), values })
    };
    file.names().into_iter().map(|name| Ok((name.to_owned(), tensor(name)?))).collect()
}

/// What a safetensors file of oto's own says about its policy; `None` where it says nothing.
///
/// # Errors
/// If it says something else than a policy's metadata.
pub fn own_metadata(bytes: &[u8]) -> Result<Option<Metadata>, PolicyError> {
    let Ok((_, header)) = SafeTensors::read_metadata(bytes) else { return Ok(None) };
    let entry = header.metadata().as_ref().and_then(|entries| entries.get(OWN_METADATA));
    entry.map(|text| Metadata::read(text.as_bytes())).transpose()
}

fn single(bytes: &[u8]) -> f32 {
    bytes.try_into().map_or(f32::NAN, f32::from_le_bytes)
}

fn double(bytes: &[u8]) -> f32 {
    bytes.try_into().map_or(f64::NAN, f64::from_le_bytes) as f32
}

fn wrong_type(name: &str, found: &str) -> PolicyError {
    PolicyError::Unsupported(format!("tensor {name:?} is {found}, expected float32 or float64"))
}

/// Reads what `torch.save` wrote, or the `policy.pth` inside a Stable-Baselines3 model. In the second case the model's
/// own record of spaces and activation completes `metadata`.
///
/// # Errors
/// If the archive is damaged, too large, or holds no state dict of float32 or float64 tensors.
pub fn from_zip(bytes: &[u8], metadata: &mut Metadata) -> Result<StateDict, PolicyError> {
    let mut archive = Archive::open(bytes)?;
    if !archive.names().any(|name| name == "policy.pth") {
        return archive.state_dict();
    }
    if let Some(data) = archive.read("data", MAX_PICKLE_BYTES)? {
        complete(metadata, &data)?;
    }
    let inner = archive.read("policy.pth", MAX_MODEL_BYTES)?.unwrap_or_default();
    Archive::open(&inner)?.state_dict()
}

struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
}

fn malformed(reason: impl ToString) -> PolicyError {
    PolicyError::Malformed { format: "PyTorch file", reason: reason.to_string() }
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, PolicyError> {
        Ok(Archive { zip: ZipArchive::new(Cursor::new(bytes)).map_err(malformed)? })
    }

    /// The names of the files in it, but for those that are no text.
    fn names(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.zip.file_names().flatten()
    }

    /// The file `name`, `None` if there is none. What a header says about its length is not believed.
    fn read(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, PolicyError> {
        let file = match self.zip.by_name(name) {
            Ok(file) => file,
            Err(zip::result::ZipError::FileNotFound) => return Ok(None),
            Err(error) => return Err(malformed(error)),
        };
        let mut bytes = Vec::new();
        file.take(max + 1).read_to_end(&mut bytes).map_err(malformed)?;
        if bytes.len() as u64 > max {
            let what = format!("{name} in the archive");
            return Err(PolicyError::TooLarge { what, found: bytes.len() as u64, max, unit: "bytes" });
        }
        Ok(Some(bytes))
    }

    fn state_dict(mut self) -> Result<StateDict, PolicyError> {
        let pickle = self.names().find(|name| name == "data.pkl" || name.ends_with("/data.pkl"));
        let pickle = pickle.ok_or_else(|| malformed("there is no data.pkl in it"))?.into_owned();
        let folder = pickle.strip_suffix("data.pkl").unwrap_or_default().to_owned();
        if self.read(&format!("{folder}byteorder"), 16)?.is_some_and(|order| order == b"big") {
            return Err(PolicyError::Unsupported("a PyTorch file with big-endian numbers".into()));
        }
        let pickle = self.read(&pickle, MAX_PICKLE_BYTES)?.unwrap_or_default();
        let tensors = pickle::read_state_dict(&pickle).map_err(malformed)?;
        let mut storages = Storages { archive: self, folder, bytes: HashMap::new(), total: 0 };
        let mut dict = StateDict::new();
        let mut numbers = 0;
        for tensor in tensors {
            let values = storages.gather(&tensor, &mut numbers)?;
            dict.insert(tensor.name, Tensor { shape: tensor.shape, values });
        }
        Ok(dict)
    }
}

/// The storages of an archive, each read once however many tensors share it.
struct Storages<'a> {
    archive: Archive<'a>,
    folder: String,
    bytes: HashMap<String, Vec<u8>>,
    total: u64,
}

impl Storages<'_> {
    /// The values of `tensor` in row-major order. `numbers` counts those of all tensors, as they may overlap.
    fn gather(&mut self, tensor: &pickle::TensorRef, numbers: &mut u64) -> Result<Vec<f32>, PolicyError> {
        let (number, size): (fn(&[u8]) -> f32, usize) = match tensor.storage_type.as_str() {
            "FloatStorage" => (single, 4),
            "DoubleStorage" => (double, 8),
            other => return Err(wrong_type(&tensor.name, other)),
        };
        let outside = || malformed(format!("tensor {:?} does not lie within its storage", tensor.name));
        let count =
            tensor.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64)).ok_or_else(outside)?;
        *numbers = numbers.saturating_add(count);
        let max = MAX_MODEL_BYTES / 4;
        if *numbers > max {
            return Err(PolicyError::TooLarge {
                what: "the state dict".into(),
                found: *numbers,
                max,
                unit: "numbers",
            });
        }
        let bytes = self.storage(&tensor.storage)?;
        let dims = tensor.shape.len();
        if dims != tensor.strides.len() {
            return Err(malformed(format!(
                "tensor {:?} has {dims} dimensions and {} strides",
                tensor.name,
                tensor.strides.len()
            )));
        }
        let mut values = Vec::with_capacity(count as usize);
        let mut index = vec![0; dims];
        for _ in 0..count {
            let step = |(i, stride): (&usize, &usize)| i.checked_mul(*stride);
            let at = index
                .iter()
                .zip(&tensor.strides)
                .map(step)
                .try_fold(tensor.offset, |at, s| at.checked_add(s?));
            let at = at.and_then(|at| at.checked_mul(size)).ok_or_else(outside)?;
            let end = at.checked_add(size).ok_or_else(outside)?;
            values.push(number(bytes.get(at..end).ok_or_else(outside)?));
            advance(&mut index, &tensor.shape);
        }
        Ok(values)
    }

    fn storage(&mut self, name: &str) -> Result<&[u8], PolicyError> {
        if !self.bytes.contains_key(name) {
            let file = format!("{}data/{name}", self.folder);
            let bytes = self.archive.read(&file, MAX_MODEL_BYTES - self.total)?;
            let bytes = bytes.ok_or_else(|| malformed(format!("there is no {file} in it")))?;
            self.total += bytes.len() as u64;
            self.bytes.insert(name.to_owned(), bytes);
        }
        Ok(&self.bytes[name])
    }
}

/// The next index in row-major order.
fn advance(index: &mut [usize], shape: &[usize]) {
    for (i, size) in index.iter_mut().zip(shape).rev() {
        *i += 1;
        if *i < *size {
            return;
        }
        *i = 0;
    }
}

/// Takes over what the record `data` of a Stable-Baselines3 model (`common/save_util.py`, `data_to_json`) says about
/// spaces and activation, where `metadata` do not say it. A space that cannot be read is left out: a loader that needs
/// it asks.
fn complete(metadata: &mut Metadata, data: &[u8]) -> Result<(), PolicyError> {
    let data: serde_json::Value = serde_json::from_slice(data).map_err(malformed)?;
    let (observed, done) = (&data["observation_space"], &data["action_space"]);
    let kwargs = &data["policy_kwargs"];
    let is_image =
        observed["dtype"] == "uint8" && observed["_shape"].as_array().is_some_and(|shape| shape.len() == 3);
    let unsupported = |reason: String| Err(PolicyError::Unsupported(format!("{reason}; export it to ONNX")));
    if is_image && kwargs["normalize_images"] != false {
        return unsupported(
            "a model that observes images, which Stable-Baselines3 divides by 255 first".into(),
        );
    }
    if kwargs["squash_output"] == true {
        return unsupported("a model with squash_output, whose answer is a tanh".into());
    }
    if let Some(name @ ("Dict" | "Tuple" | "MultiDiscrete")) = class(observed)
        && metadata.observation_space.is_none()
    {
        let declared = "declare observation_space, as the box of numbers that its network takes";
        return Err(PolicyError::Unsupported(format!("a model that observes a {name}; {declared}")));
    }
    if let Some(name @ ("MultiDiscrete" | "MultiBinary")) = class(done) {
        let known = "an action is one choice or a row of numbers";
        return Err(PolicyError::Unsupported(format!("a model that acts in a {name}: {known}")));
    }
    metadata.observation_space = metadata.observation_space.take().or_else(|| space(observed));
    metadata.action_space = metadata.action_space.take().or_else(|| space(done));
    if let (None, Some(name)) = (metadata.hidden_activation(), kwargs["activation_fn"].as_str()) {
        metadata.activation = match name.rsplit('.').next() {
            Some("Tanh'>") => Some(Activation::Tanh),
            Some("ReLU'>") => Some(Activation::Relu),
            _ => return Err(PolicyError::Unsupported(format!("a network with the activation {name}"))),
        };
    }
    Ok(())
}

/// The name of a record's class: `Box` of `<class 'gymnasium.spaces.box.Box'>`.
fn class(record: &serde_json::Value) -> Option<&str> {
    record[":type:"].as_str()?.strip_suffix("'>")?.rsplit('.').next()
}

fn space(record: &serde_json::Value) -> Option<Space> {
    let text = |key: &str| record[key].as_str();
    let space = match class(record)? {
        "Discrete" => Space::Discrete { n: text("n")?.parse().ok()? },
        "Box" => Space::Box { low: numbers(text("low")?)?, high: numbers(text("high")?)? },
        _ => return None,
    };
    space.check().ok().map(|()| space)
}

/// The numbers of a printed NumPy array; `None` if it was printed abridged.
fn numbers(text: &str) -> Option<Vec<f32>> {
    let words = text.split(|c: char| c.is_whitespace() || "[],".contains(c)).filter(|word| !word.is_empty());
    words.map(|word| word.parse().ok()).collect()
}

//! Named tensors from safetensors, from a file that `torch.save` wrote, and from a Stable-Baselines3 model `.zip`.

use crate::facts::{Facts, Hints};
use crate::pickle::{Id, Pickle};
use crate::{Metadata, PolicyError, pickle};
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
    PolicyError::Unsupported(format!(
        "tensor {name:?} is {found}, expected float32 or float64: a layer that counts, such as CrossQ's batch renormalisation, is not run \
         here; export the policy to ONNX"
    ))
}

/// Reads what `torch.save` wrote, or the `policy.pth` inside a Stable-Baselines3 model. What such a file says about spaces
/// and activation completes `metadata`.
///
/// # Errors
/// If the archive is damaged, too large, or holds no state dict of float32 or float64 tensors.
pub(crate) fn from_zip(bytes: &[u8], metadata: &mut Metadata) -> Result<(StateDict, Hints), PolicyError> {
    let mut archive = Archive::open(bytes)?;
    if !archive.names().any(|name| name == "policy.pth") {
        let (dict, facts) = archive.state_dict()?;
        let hints = facts.map_or(Ok(Hints::default()), |facts| facts.complete(metadata))?;
        return Ok((dict, hints));
    }
    let inner = archive.read("policy.pth", MAX_MODEL_BYTES)?.unwrap_or_default();
    let record = archive.read("data", MAX_PICKLE_BYTES)?;
    let record = record.ok_or_else(|| malformed("there is no record \"data\" beside policy.pth in it"))?;
    let hints = Facts::of_record(&record)?.complete(metadata)?;
    Ok((Archive::open(&inner)?.state_dict()?.0, hints))
}

struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
}

pub(crate) fn malformed(reason: impl ToString) -> PolicyError {
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

    /// The state dict, and what is said beside it.
    fn state_dict(mut self) -> Result<(StateDict, Option<Facts>), PolicyError> {
        if self.names().any(|name| name == "constants.pkl" || name.ends_with("/constants.pkl")) {
            let message = "a TorchScript module; save its state_dict() with torch.save, or export it to ONNX";
            return Err(PolicyError::Unsupported(message.into()));
        }
        let pickle = self.names().find(|name| name == "data.pkl" || name.ends_with("/data.pkl"));
        let pickle = pickle.ok_or_else(|| malformed("there is no data.pkl in it"))?.into_owned();
        let folder = pickle.strip_suffix("data.pkl").unwrap_or_default().to_owned();
        if self.read(&format!("{folder}byteorder"), 16)?.is_some_and(|order| order == b"big") {
            return Err(PolicyError::Unsupported("a PyTorch file with big-endian numbers".into()));
        }
        let pickle = self.read(&pickle, MAX_PICKLE_BYTES)?.unwrap_or_default();
        let pickle = pickle::read(&pickle).map_err(malformed)?;
        let state = find_state(&pickle)?;
        let facts = pickle.entry(pickle.top, "data").filter(|_| state != pickle.top);
        let facts = facts.map(|arguments| Facts::of_arguments(&pickle, arguments));
        let tensors = pickle.tensors(state).map_err(malformed)?;
        let mut storages = Storages { archive: self, folder, bytes: HashMap::new(), total: 0 };
        let mut dict = StateDict::new();
        let mut numbers = 0;
        for tensor in tensors {
            let values = storages.gather(&tensor, &mut numbers)?;
            dict.insert(tensor.name, Tensor { shape: tensor.shape, values });
        }
        Ok((dict, facts))
    }
}

/// The dictionary of tensors in what `torch.save` wrote: the whole, or its one entry that is such a dictionary.
fn find_state(pickle: &Pickle) -> Result<Id, PolicyError> {
    let how = "save the policy's state_dict() with torch.save, or the model with model.save()";
    let unsupported = |what: String| Err(PolicyError::Unsupported(format!("{what}; {how}")));
    let top = pickle.top;
    if let Some(class) = pickle.class(top) {
        return unsupported(format!("a pickled object of the class {}", shortened(&class.replace(' ', "."))));
    }
    let Some(entries) = pickle.entries(top) else {
        return Err(malformed(format!("expected a dictionary of tensors; {how}")));
    };
    pickle.few(top).map_err(malformed)?;
    if pickle.has_tensors(top) {
        return Ok(top);
    }
    let (mut inside, mut names) = (Vec::new(), Vec::new());
    for (name, value) in entries {
        names.push(shortened(name));
        if pickle.has_tensors(value) && !name.contains("optim") {
            inside.push((shortened(name), value));
        }
    }
    names.truncate(8);
    match inside.as_slice() {
        [(_, state)] => Ok(*state),
        [] => unsupported(format!("a file without a state dict, its entries are {names:?}")),
        _ => {
            let names: Vec<_> = inside.iter().take(8).map(|(name, _)| name).collect();
            unsupported(format!("a file with several state dicts, {names:?}"))
        }
    }
}

/// A name for a message.
fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
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

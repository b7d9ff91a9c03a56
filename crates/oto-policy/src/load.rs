//! From bytes or files to policies. The format is told by the first bytes, not by the name.
//!
//! A policy of a folder is a `NAME.json` of kind `policy` with its model beside it, an [`ensemble`] of others, or
//! the `policy.safetensors` of a run, which says itself what it is and has the name of the run's folder.

use crate::ensemble::{self, Members};
use crate::facts::Hints;
use crate::metadata::{MAX_METADATA_BYTES, Normalize};
use crate::network::Network;
use crate::statistics::{MAX_STATISTICS_BYTES, Statistics};
use crate::tensors::{MAX_MODEL_BYTES, from_safetensors, from_zip, own_metadata};
use crate::{Metadata, Policy, PolicyError, TRIAL_ROWS, scripted, trial};
use oto_json::file::{self, Unreadable};
use std::path::{Path, PathBuf};

/// A policy with its name and what is known about it.
pub struct Loaded {
    /// The name under which it teaches: the metadata file's without its extension, or that of the run's folder.
    pub name: String,
    /// What its metadata say; the spaces are always filled in.
    pub metadata: Metadata,
    /// The policy itself.
    pub policy: Box<dyn Policy>,
    /// The bytes it was loaded from, with those of other files that they name; a scripted policy has none.
    pub model: Option<Vec<u8>>,
    /// What is odd about it, in sentences for a log.
    pub warnings: Vec<String>,
}

/// Endings that a model beside `NAME.json` may have, in the order they are looked for.
const ENDINGS: [&str; 5] = ["onnx", "safetensors", "zip", "pth", "policy.pth"];

/// The policy in the folder of a run: the best one.
pub const RUN_POLICY: &str = "policy.safetensors";

/// The newest policy in the folder of a run.
pub const RUN_NEWEST: &str = "newest.safetensors";

/// Makes a policy of a model's bytes: ONNX, safetensors, a file of `torch.save`, or a Stable-Baselines3 model `.zip`.
///
/// # Errors
/// If the bytes are of no known format, damaged, too large or not supported, or if `metadata` contradict the model or
/// lack what it needs.
pub fn load(model: &[u8], metadata: &Metadata) -> Result<Box<dyn Policy>, PolicyError> {
    if model.len() as u64 > MAX_MODEL_BYTES {
        return Err(too_large(model.len() as u64, MAX_MODEL_BYTES));
    }
    if model.starts_with(b"PK") {
        let mut metadata = metadata.clone();
        let (dict, hints) = from_zip(model, &mut metadata)?;
        return Ok(Box::new(Network::new(&dict, &metadata, hints)?));
    }
    // A safetensors file begins with the length of its JSON header, eight bytes.
    if model.get(8) == Some(&b'{') {
        let own = own_metadata(model)?;
        let hints = Hints { activation_known: own.is_some(), ..Hints::default() };
        let metadata = own.as_ref().unwrap_or(metadata);
        return Ok(Box::new(Network::new(&from_safetensors(model)?, metadata, hints)?));
    }
    if let Some(old) = old_format(model) {
        return Err(PolicyError::Unsupported(format!("{old}; save it anew with a current version")));
    }
    load_onnx(model, metadata)
}

fn old_format(model: &[u8]) -> Option<&'static str> {
    model.starts_with(&[0x80, 0x02]).then_some("a file of torch.save before version 1.6")
}

#[cfg(feature = "onnx")]
fn load_onnx(model: &[u8], metadata: &Metadata) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(crate::onnx::Onnx::new(model, metadata)?))
}

#[cfg(not(feature = "onnx"))]
fn load_onnx(_: &[u8], _: &Metadata) -> Result<Box<dyn Policy>, PolicyError> {
    Err(PolicyError::Unsupported("this build has no ONNX: build with the cargo feature `onnx`".into()))
}

fn too_large(found: u64, max: u64) -> PolicyError {
    PolicyError::TooLarge { what: "the file".into(), found, max, unit: "bytes" }
}

/// Loads a policy by the path of its model or of its metadata. A model without metadata beside it is loaded if it says
/// enough by itself.
///
/// # Errors
/// As [`load`], and if a file cannot be read, or an ensemble cannot be made; each error names the file.
pub fn load_file(path: &Path) -> Result<Loaded, PolicyError> {
    load_member(path, &mut Members::default())
}

/// Loads a policy that may be one of an ensemble's.
pub(crate) fn load_member(path: &Path, members: &mut Members) -> Result<Loaded, PolicyError> {
    let is_metadata = path.extension().is_some_and(|e| e == "json");
    let sidecar = if is_metadata { Some(path.to_owned()) } else { metadata_beside(path) };
    let (mut metadata, mut warnings) = (Metadata::default(), Vec::new());
    if let Some(sidecar) = &sidecar {
        let bytes = read(sidecar, MAX_METADATA_BYTES as u64)?;
        metadata = Metadata::read(&bytes).map_err(within(sidecar))?;
    }
    let (mut policy, model) = match metadata.model.as_deref() {
        _ if is_metadata && metadata.ensemble.is_some() => {
            (ensemble::load(path, &metadata, members).map_err(within(path))?, None)
        }
        Some(name) if is_metadata && name.starts_with(scripted::PREFIX) => {
            (load_scripted(name, &metadata).map_err(within(path))?, None)
        }
        _ => {
            let file = if is_metadata { model_beside(path, &metadata)? } else { path.to_owned() };
            let model = read_model(&file)?;
            match own_metadata(&model).map_err(within(&file))? {
                Some(own) => metadata = own,
                None => statistics(&file, &model, &mut metadata, &mut warnings)?,
            }
            (load(&model, &metadata).map_err(within(&file))?, Some(model))
        }
    };
    // A model may load and still give what is no action.
    let observations = trial(policy.observation_space());
    policy.act(&observations, TRIAL_ROWS, &mut Vec::new()).map_err(within(path))?;
    warnings.extend_from_slice(policy.warnings());
    metadata.observation_space = Some(policy.observation_space().clone());
    metadata.action_space = Some(policy.action_space().clone());
    Ok(Loaded { name: name_of(sidecar.as_deref().unwrap_or(path)), metadata, policy, model, warnings })
}

/// Reads a model's file, with the weights that it keeps in other files of its folder.
///
/// # Errors
/// If a file cannot be read, is too large or is not whole.
pub fn read_model(path: &Path) -> Result<Vec<u8>, PolicyError> {
    let model = read(path, MAX_MODEL_BYTES)?;
    match is_onnx(&model).then(|| inline(path, &model)).transpose()?.flatten() {
        Some(whole) => Ok(whole),
        None => Ok(model),
    }
}

fn is_onnx(model: &[u8]) -> bool {
    !model.starts_with(b"PK") && model.get(8) != Some(&b'{')
}

#[cfg(feature = "onnx")]
fn inline(path: &Path, model: &[u8]) -> Result<Option<Vec<u8>>, PolicyError> {
    let folder = |path: &Path| Some(path.canonicalize().ok()?.parent()?.to_owned());
    // Also behind a link, a weight lies in the folder of the model, or of the file that the model's name links to.
    let beside = |name: &str| {
        let file = path.with_file_name(name);
        let own = path.with_file_name("").canonicalize().ok();
        let of = folder(&file);
        if of.is_some() && of != own && of != folder(path) {
            return Err(PolicyError::Unsupported(format!(
                "{name:?} is a link out of the folder of the model"
            )));
        }
        read(&file, MAX_MODEL_BYTES)
    };
    crate::onnx::external::inline(model, beside).map_err(within(path))
}

#[cfg(not(feature = "onnx"))]
fn inline(_: &Path, _: &[u8]) -> Result<Option<Vec<u8>>, PolicyError> {
    Ok(None)
}

/// Reads the statistics with which a model's observations are normalised. A file of them that lies beside it is not passed over
/// without a word.
fn statistics(
    model: &Path,
    bytes: &[u8],
    metadata: &mut Metadata,
    warnings: &mut Vec<String>,
) -> Result<(), PolicyError> {
    let refused = |message: String| within(model)(PolicyError::Metadata(message));
    match &metadata.normalize {
        Some(Normalize::File(name)) if is_plain(name) => {
            let path = model.with_file_name(name);
            let file = read(&path, MAX_STATISTICS_BYTES)?;
            metadata.statistics = Statistics::read(&file).map_err(within(&path))?;
            if metadata.statistics.is_none() {
                metadata.normalize = Some(Normalize::Has(false));
            }
            Ok(())
        }
        Some(Normalize::File(name)) => {
            Err(refused(format!("\"normalize\" names a file beside it, got {name:?}")))
        }
        Some(Normalize::Has(false)) => Ok(()),
        Some(Normalize::Has(true)) => {
            Err(refused("\"normalize\" names a file, or is false; got true".into()))
        }
        None => {
            let found = statistics_beside(model).filter(|_| metadata.statistics.is_none());
            let Some(found) = found else { return Ok(()) };
            let message = format!(
                "{found:?} lies beside it: declare \"normalize\": {found:?} to normalise observations with it, or \"normalize\": false"
            );
            if !is_onnx(bytes) {
                return Err(refused(message));
            }
            warnings.push(message);
            Ok(())
        }
    }
}

/// The first file of statistics in a model's folder, by its name: one with "normalize" in it, or the model's own.
fn statistics_beside(model: &Path) -> Option<String> {
    let own = model.with_extension("pkl");
    let folder = model.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        name.ends_with(".pkl") && (name.contains("normalize") || path.file_name() == own.file_name())
    });
    names.min()?.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// Whether a name is that of a file, without a folder.
pub(crate) fn is_plain(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == name)
}

/// A file's name without its extension; a run's policy is called what its folder is called.
fn name_of(path: &Path) -> String {
    let is_run = path.file_name().is_some_and(|name| name == RUN_POLICY || name == RUN_NEWEST);
    let folder = || path.canonicalize().ok()?.parent()?.file_name().map(|name| name.to_string_lossy().into());
    let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    is_run.then(folder).flatten().unwrap_or_else(stem)
}

/// Loads every policy of a folder, as [`load_each`].
///
/// # Errors
/// If the folder cannot be read, or one of its policies cannot be loaded: better none than a silent gap.
pub fn load_folder(folder: &Path) -> Result<Vec<Loaded>, PolicyError> {
    load_each(folder)?.into_iter().collect()
}

/// Loads every policy of a folder, each by its metadata file, in the order of their names, and the policies of runs: the
/// folder's own if it is a run's, and those of the runs in it. Other JSON files are passed over. What cannot be loaded is an error
/// among them.
///
/// # Errors
/// If the folder cannot be read.
pub fn load_each(folder: &Path) -> Result<Vec<Result<Loaded, PolicyError>>, PolicyError> {
    load_each_with(folder, RUN_POLICY)
}

/// [`load_each`], where a run's policy is the file of this name: [`RUN_POLICY`] or [`RUN_NEWEST`]. A run without a newest
/// policy has its best one for it.
///
/// # Errors
/// As [`load_each`].
pub fn load_each_with(folder: &Path, run: &str) -> Result<Vec<Result<Loaded, PolicyError>>, PolicyError> {
    let of_run =
        |folder: &Path| [run, RUN_POLICY].map(|name| folder.join(name)).into_iter().find(|p| p.is_file());
    let unreadable = |source| PolicyError::Read { path: folder.to_owned(), source };
    let (mut files, mut found) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        // A pipe is no metadata: refused beside a model of its name, else ignored.
        let is_pipe = || path.exists() && !path.is_dir() && has_model(&path);
        if path.extension().is_some_and(|e| e == "json") && (path.is_file() || is_pipe()) {
            match is_policy(&path) {
                Ok(true) => files.push(path),
                Ok(false) => {}
                Err(error) => found.push(Err(error)),
            }
        } else {
            files.extend(of_run(&path));
        }
    }
    files.extend(of_run(folder).filter(|own| metadata_beside(own).is_none()));
    files.sort();
    found.extend(files.iter().map(|path| load_file(path)));
    Ok(found)
}

/// Whether a model of the name of this metadata file stands beside it.
fn has_model(path: &Path) -> bool {
    ENDINGS.iter().any(|ending| path.with_extension(ending).is_file())
}

fn is_policy(path: &Path) -> Result<bool, PolicyError> {
    let bytes = read(path, MAX_METADATA_BYTES as u64)?;
    match serde_json::from_slice::<serde_json::Value>(&bytes) {
        // A slip of whoever wrote it; left out without a word, the policy would be missed only by its students.
        Err(error) if !error.is_data() && has_model(path) => {
            Err(within(path)(PolicyError::Metadata(error.to_string())))
        }
        said => Ok(said.is_ok_and(|said| said["kind"] == "policy")),
    }
}

fn load_scripted(name: &str, metadata: &Metadata) -> Result<Box<dyn Policy>, PolicyError> {
    let (Some(observation), Some(action)) = crate::spaces::declared(metadata) else {
        let message = "a scripted policy needs observation_space and action_space, or a built-in env".into();
        return Err(PolicyError::Metadata(message));
    };
    scripted(name, observation, action)
}

/// `NAME.json` beside `NAME.onnx`, also beside `NAME.policy.pth`.
fn metadata_beside(model: &Path) -> Option<PathBuf> {
    let once = model.with_extension("json");
    let twice = model.with_extension("").with_extension("json");
    [once, twice].into_iter().find(|path| path.is_file())
}

/// The model that a metadata file names, or else the first that has its name.
fn model_beside(path: &Path, metadata: &Metadata) -> Result<PathBuf, PolicyError> {
    if let Some(model) = &metadata.model {
        let refused = || PolicyError::Metadata(format!("\"model\" names a file beside it, got {model:?}"));
        return if is_plain(model) { Ok(path.with_file_name(model)) } else { Err(within(path)(refused())) };
    }
    let candidates = ENDINGS.map(|ending| path.with_extension(ending));
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        let message = format!("there is no model of its name beside it (endings {})", ENDINGS.join(", "));
        within(path)(PolicyError::Metadata(message))
    })
}

fn within(path: &Path) -> impl Fn(PolicyError) -> PolicyError {
    let path = path.to_owned();
    move |source| PolicyError::In { path: path.clone(), source: Box::new(source) }
}

/// Reads a regular file of at most `max` bytes. Opening anything else, such as a pipe, could take for ever.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>, PolicyError> {
    file::read_regular(path, max).map_err(|source| match Unreadable::of(&source) {
        Some(Unreadable::Kind(_)) => PolicyError::NoFile { path: path.to_owned() },
        Some(Unreadable::Large { found, .. }) => within(path)(too_large(found.unwrap_or(max + 1), max)),
        _ => PolicyError::Read { path: path.to_owned(), source },
    })
}

//! Datasets from files and into files.

use crate::hdf5::{Reader, failure, linked};
use crate::{DataError, Dataset, d4rl, minari};
use oto_json::file::{self, Unreadable};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest HDF5 file that is read, in bytes.
pub const MAX_FILE: u64 = 1 << 31;
/// The largest `metadata.json` that is read, in bytes.
const MAX_METADATA: u64 = 1 << 24;
/// The time in which a dataset that comes from a pipe must have come.
const PIPE_TIME: Duration = Duration::from_secs(600);

/// Reads a dataset: Minari's folder (`data/main_data.hdf5` and `data/metadata.json`), the `data` folder in it, or an HDF5
/// file in Minari's or D4RL's layout, whose spaces come from the `metadata.json` beside it, if there is one. With the feature
/// `parquet` also Minari's folder with a Parquet file for each episode.
///
/// # Errors
/// If a file cannot be read, and all that [`read_bytes`] refuses.
pub fn read_file(path: &Path) -> Result<Dataset, DataError> {
    if !path.exists() {
        let expected =
            "there is no dataset: expected Minari's folder, or an HDF5 file in Minari's or D4RL's layout";
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, expected);
        return Err(DataError::File { path: path.to_owned(), source });
    }
    let mut file = path.to_owned();
    if path.is_dir() {
        let data = path.join("data");
        file = if data.is_dir() { data } else { file }.join("main_data.hdf5");
    }
    let beside = file.with_file_name("metadata.json");
    let metadata = match file.file_name() {
        Some(name) if name == "main_data.hdf5" && beside.exists() => {
            let text = String::from_utf8(read_at_most(&beside, MAX_METADATA)?);
            Some(text.map_err(|error| DataError::Metadata(error.to_string()))?)
        }
        _ => None,
    };
    if let Some(text) = metadata.as_deref().filter(|_| !file.exists()) {
        let described = minari::describe(text)?;
        match described.format.as_deref() {
            #[cfg(feature = "parquet")]
            Some("parquet") => return read_parquet(described, file.parent().unwrap_or(path)),
            Some(other) => return Err(minari::other_format(other)),
            None => {}
        }
    }
    read_bytes(read_at_most(&file, MAX_FILE)?, metadata.as_deref())
}

#[cfg(feature = "parquet")]
fn read_parquet(described: minari::Described, data: &Path) -> Result<Dataset, DataError> {
    let file = |name: &Path| match data.join(name) {
        path if path.exists() => read_at_most(&path, MAX_FILE).map(Some),
        _ => Ok(None),
    };
    let what = "the reader of Parquet gave up on it";
    let dataset = catch_unwind(AssertUnwindSafe(|| crate::parquet::read(described, file)))
        .unwrap_or_else(|_| Err(DataError::Parquet { what: "a file".into(), reason: what.into() }))?;
    dataset.check()?;
    Ok(dataset)
}

/// Reads a dataset from the bytes of an HDF5 file, in Minari's or D4RL's layout, and the text of Minari's `metadata.json`.
///
/// Where there is none, spaces are what the arrays show: boxes without bounds, or, where actions are whole numbers, as many
/// choices as the largest needs. An episode that is recorded without an end is truncated there.
///
/// # Errors
/// If this is no such file, is damaged, promises more than it can hold or than is read, has spaces of several parts, or has
/// episodes that [`Dataset::check`] refuses. The reader of HDF5 is not this crate's: should it panic, that is an error
/// too (but an abort where panics abort, as in WebAssembly).
pub fn read_bytes(hdf5: Vec<u8>, metadata: Option<&str>) -> Result<Dataset, DataError> {
    let dataset = catch_unwind(AssertUnwindSafe(|| read(hdf5, metadata))).unwrap_or_else(|_| {
        let reason = "the reader of HDF5 gave up on it".into();
        Err(DataError::Hdf5 { what: "the file".into(), reason })
    })?;
    dataset.check()?;
    Ok(dataset)
}

fn read(hdf5: Vec<u8>, metadata: Option<&str>) -> Result<Dataset, DataError> {
    let mut reader = Reader::new(hdf5)?;
    let root = reader.root();
    let groups = root.iter_groups().map_err(|error| failure("/", error))?;
    let (mut episodes, mut names) = (Vec::new(), Vec::new());
    for (name, group) in groups {
        match name.strip_prefix("episode_").and_then(|number| number.parse().ok()) {
            Some(number) => episodes.push((number, group)),
            None => names.push(name),
        }
    }
    if !episodes.is_empty() {
        return minari::read(&mut reader, episodes, metadata);
    }
    let arrays: BTreeSet<_> = root.datasets().map_err(|error| failure("/", error))?.into_iter().collect();
    let lacks: Vec<&str> = d4rl::NAMES.into_iter().filter(|name| !arrays.contains(*name)).collect();
    if lacks.is_empty() {
        return d4rl::read(&mut reader, &root, arrays.contains("next_observations"));
    }
    if let Some(name) = lacks.iter().chain(&["episode_0"]).find(|name| reader.has_link(name)) {
        return Err(linked(name));
    }
    if lacks.len() < d4rl::NAMES.len() {
        let group =
            |name: &&str| if names.iter().any(|n| n == name) { " (a group, not an array)" } else { "" };
        let lacks: Vec<String> = lacks.iter().map(|name| format!("{name}{}", group(name))).collect();
        return Err(DataError::Lacks(lacks.join(", ")));
    }
    names.extend(arrays);
    let some: Vec<String> = names.iter().take(8).map(|name| name.chars().take(40).collect()).collect();
    Err(DataError::Foreign(if some.is_empty() { "nothing".into() } else { some.join(", ") }))
}

/// Writes a dataset in Minari's layout: `folder/data/main_data.hdf5` and `folder/data/metadata.json`. Python's
/// `minari.load_dataset` finds it at `<MINARI_DATASETS_PATH>/<id>`. A dataset without a name is called `oto/recorded-v0`.
///
/// # Errors
/// If the dataset is not fine ([`Dataset::check`]), its name is none that Minari takes, there is one already, or a file
/// cannot be written.
pub fn write_folder(dataset: &Dataset, folder: &Path) -> Result<(), DataError> {
    check_target(folder, dataset.metadata.id.as_deref())?;
    dataset.check()?;
    let hdf5 = minari::write(dataset)?;
    let metadata = minari::write_metadata(dataset, hdf5.len(), "hdf5");
    let data = make(folder.join("data"))?;
    // Nobody takes a folder without metadata for a dataset, so they come last.
    let file = data.join("main_data.hdf5");
    write_whole(&file, &hdf5)?;
    // Without them the folder is as it was.
    write_whole(&data.join("metadata.json"), metadata.as_bytes()).inspect_err(|_| drop(fs::remove_file(file)))
}

/// The same with a Parquet file for each episode: `folder/data/<i>/part-0.parquet`.
///
/// # Errors
/// As [`write_folder`].
#[cfg(feature = "parquet")]
pub fn write_parquet_folder(dataset: &Dataset, folder: &Path) -> Result<(), DataError> {
    check_target(folder, dataset.metadata.id.as_deref())?;
    dataset.check()?;
    let (data, mut bytes) = (folder.join("data"), 0);
    for (number, episode) in dataset.episodes.iter().enumerate() {
        let part = crate::parquet::write(number, episode, dataset)?;
        let own = make(data.join(number.to_string()))?;
        write_whole(&own.join(crate::parquet::PART), &part)?;
        write_whole(&own.join("metadata.json"), crate::parquet::write_metadata(number, episode).as_bytes())?;
        bytes += part.len();
    }
    let metadata = minari::write_metadata(dataset, bytes, "parquet");
    write_whole(&data.join("metadata.json"), metadata.as_bytes())
}

fn make(folder: PathBuf) -> Result<PathBuf, DataError> {
    match fs::create_dir_all(&folder) {
        Ok(()) => Ok(folder),
        Err(source) => Err(DataError::File { path: folder, source }),
    }
}

/// Checks before anything is played that [`write_folder`] will not refuse its folder or its name.
///
/// # Errors
/// [`DataError::Exists`], [`DataError::Id`].
pub fn check_target(folder: &Path, id: Option<&str>) -> Result<(), DataError> {
    id.map_or(Ok(()), minari::check_id)?;
    let data = folder.join("data");
    match ["main_data.hdf5", "metadata.json"]
        .map(|name| data.join(name))
        .into_iter()
        .find(|path| path.exists())
    {
        Some(path) => Err(DataError::Exists { path }),
        None => Ok(()),
    }
}

/// Writes a file that is there as a whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let partial = PathBuf::from(format!("{}.partial", path.display()));
    let written = fs::File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    });
    written.map_err(|source| {
        // A part of a file on a full disk would keep the disk full.
        drop(fs::remove_file(&partial));
        DataError::File { path: path.to_owned(), source }
    })
}

fn read_at_most(path: &Path, max: u64) -> Result<Vec<u8>, DataError> {
    file::read_within(path, max, PIPE_TIME).map_err(|source| match Unreadable::of(&source) {
        Some(Unreadable::Large { found, .. }) => {
            let (what, found) = (path.display().to_string(), found.unwrap_or(max + 1));
            DataError::TooLarge { what, found, max, unit: "bytes" }
        }
        _ => DataError::File { path: path.to_owned(), source },
    })
}

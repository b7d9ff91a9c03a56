//! Minari's layout: `data/main_data.hdf5` with a group `episode_<i>` for each episode, and `data/metadata.json`.
//!
//! Source: Minari 0.5.4, `minari/dataset/_storages/hdf5_storage.py` and `minari/dataset/minari_storage.py`; its
//! documentation at <https://minari.farama.org/content/dataset_standards/>.

use crate::gymnasium::{self, Numbered};
use crate::hdf5::{Array, Reader, failure};
use crate::{DataError, Dataset, Episode, Metadata, Rows};
use hdf5_pure::{AttrValue, EnumTypeBuilder, FileBuilder, Group, GroupBuilder, make_i8_type};
use oto_env::Space;
use serde_json::{Value, json};

/// The Minari whose layout is written.
const VERSION: &str = "0.5.4";
/// Larger arrays are compressed; below, a chunk's index would be larger than what is saved.
const COMPRESSED_FROM: usize = 1024;
const LEVEL: u32 = 4;

/// What `metadata.json` tells.
#[derive(Default)]
pub(crate) struct Described {
    metadata: Metadata,
    observation: Option<Numbered>,
    action: Option<Numbered>,
    /// How many episodes there are.
    pub episodes: Option<u64>,
    steps: Option<u64>,
    /// Where it is not HDF5: "parquet".
    pub format: Option<String>,
}

/// Reads the groups `episode_<i>`. Without metadata, spaces are what the arrays show.
pub(crate) fn read(
    reader: &mut Reader,
    mut groups: Vec<(u64, Group)>,
    metadata: Option<&str>,
) -> Result<Dataset, DataError> {
    let described = metadata.map(describe).transpose()?.unwrap_or_default();
    if let Some(format) = &described.format {
        return Err(other_format(format));
    }
    check_count("episodes", described.episodes, groups.len())?;
    groups.sort_by_key(|(number, _)| *number);
    let mut shapes = Shapes::of(&described);
    let mut episodes = Vec::new();
    for (number, group) in groups {
        episodes.push(read_episode(reader, number, &group, &mut shapes)?);
    }
    finish(described, shapes, episodes)
}

/// The refusal of a `data_format` whose files are not read.
pub(crate) fn other_format(format: &str) -> DataError {
    let read = if cfg!(feature = "parquet") { "hdf5 or parquet" } else { "hdf5" };
    DataError::Unsupported(format!("expected the data format {read}, got {format}"))
}

/// A dataset of these episodes, whose discrete observations and actions are counted from 0 from here on.
pub(crate) fn finish(
    described: Described,
    shapes: Shapes,
    mut episodes: Vec<Episode>,
) -> Result<Dataset, DataError> {
    let start = |space: &Option<Numbered>| space.as_ref().map_or(0.0, |space| space.start as f32);
    let (first_observation, first_action) = (start(&described.observation), start(&described.action));
    for episode in &mut episodes {
        episode.actions.iter_mut().for_each(|action| *action -= first_action);
        // Bytes are no indices.
        if let Rows::Numbers(rows) = &mut episode.observations {
            rows.iter_mut().for_each(|observation| *observation -= first_observation);
        }
    }
    let (Some(observation), Some(action)) = (shapes.observation, shapes.action) else {
        return Err(DataError::Empty);
    };
    let action = match action {
        Space::Discrete { n: UNKNOWN } => choices(&episodes),
        action => action,
    };
    let dataset = Dataset { observation, action, episodes, metadata: described.metadata };
    check_count("steps", described.steps, dataset.len())?;
    Ok(dataset)
}

/// Spaces as far as they are known: declared, or shown by the first episode's arrays.
pub(crate) struct Shapes {
    observation: Option<Space>,
    action: Option<Space>,
}

/// How many choices there are before all actions have been seen.
const UNKNOWN: u32 = u32::MAX;

impl Shapes {
    pub fn of(described: &Described) -> Self {
        let space = |numbered: &Option<Numbered>| numbered.as_ref().map(|numbered| numbered.space.clone());
        Shapes { observation: space(&described.observation), action: space(&described.action) }
    }

    pub fn observation<T>(&mut self, array: &Array<T>) -> &Space {
        self.observation.get_or_insert_with(|| unbounded(array.width))
    }

    pub fn action<T>(&mut self, array: &Array<T>) -> &Space {
        self.action.get_or_insert_with(|| match array.whole && array.width == 1 {
            true => Space::Discrete { n: UNKNOWN },
            false => unbounded(array.width),
        })
    }
}

/// A space of vectors about whose range nothing is known.
pub(crate) fn unbounded(width: usize) -> Space {
    Space::uniform(width, f32::NEG_INFINITY, f32::INFINITY)
}

/// As many choices as the largest action needs.
pub(crate) fn choices(episodes: &[Episode]) -> Space {
    let largest = episodes.iter().flat_map(|episode| &episode.actions).fold(0.0, |a: f32, &b| a.max(b));
    Space::Discrete { n: (largest as u32).saturating_add(1) }
}

fn read_episode(
    reader: &mut Reader,
    number: u64,
    group: &Group,
    shapes: &mut Shapes,
) -> Result<Episode, DataError> {
    let path = |name: &str| format!("episode_{number}/{name}");
    let attributes = group.attrs().map_err(|error| failure(&format!("episode_{number}"), error))?;
    let seed = attributes.get("seed");
    let seed = seed.and_then(|seed| seed.as_u64().or_else(|| u64::try_from(seed.as_i64()?).ok()));

    let rewards = reader.doubles(group, "rewards", &path("rewards"))?;
    let steps = rewards.rows;
    column(&path("rewards"), &rewards, steps)?;
    let observations = read_observations(reader, group, &path("observations"), steps, shapes)?;
    let actions = reader.floats(group, "actions", &path("actions"))?;
    rows_of(&path("actions"), &actions, steps, shapes.action(&actions))?;
    let terminated = reader.flags(group, "terminations", &path("terminations"))?;
    column(&path("terminations"), &terminated, steps)?;
    let mut truncated = reader.flags(group, "truncations", &path("truncations"))?;
    column(&path("truncations"), &truncated, steps)?;

    end(&terminated.values, &mut truncated.values);
    Ok(Episode {
        observations,
        actions: actions.values,
        rewards: rewards.values,
        terminated: terminated.values,
        truncated: truncated.values,
        seed,
    })
}

/// What was recorded to here ends here.
pub(crate) fn end(terminated: &[bool], truncated: &mut [bool]) {
    if let (Some(false), Some(last)) = (terminated.last(), truncated.last_mut()) {
        *last = true;
    }
}

/// One row more than steps; bytes stay bytes unless they are indices.
fn read_observations(
    reader: &mut Reader,
    group: &Group,
    path: &str,
    steps: usize,
    shapes: &mut Shapes,
) -> Result<Rows, DataError> {
    let rows = steps.saturating_add(1);
    if !reader.is_bytes(group, "observations", path)? {
        let array = reader.floats(group, "observations", path)?;
        rows_of(path, &array, rows, shapes.observation(&array))?;
        return Ok(Rows::Numbers(array.values));
    }
    let array = reader.bytes(group, "observations", path)?;
    let space = shapes.observation(&array);
    rows_of(path, &array, rows, space)?;
    let bytes = Rows::Bytes(array.values);
    Ok(match space {
        Space::Discrete { .. } => Rows::Numbers(bytes.numbers().into_owned()),
        Space::Box { .. } => bytes,
    })
}

/// Checks that there is one number for each step.
pub(crate) fn column<T>(what: &str, array: &Array<T>, rows: usize) -> Result<(), DataError> {
    expect(what, array, rows, 1, "number")
}

/// Checks that there is an element of `space` in each row.
pub(crate) fn rows_of<T>(what: &str, array: &Array<T>, rows: usize, space: &Space) -> Result<(), DataError> {
    expect(what, array, rows, space.width(), "numbers")
}

fn expect<T>(what: &str, array: &Array<T>, rows: usize, width: usize, unit: &str) -> Result<(), DataError> {
    if (array.rows, array.width) == (rows, width) {
        return Ok(());
    }
    let expected = format!("{rows} rows of {width} {unit}");
    Err(DataError::Shape { what: what.into(), expected, got: vec![array.rows as u64, array.width as u64] })
}

fn check_count(what: &'static str, expected: Option<u64>, got: usize) -> Result<(), DataError> {
    match expected {
        Some(expected) if expected != got as u64 => Err(DataError::Count { what, expected, got: got as u64 }),
        _ => Ok(()),
    }
}

/// Reads `metadata.json`.
pub(crate) fn describe(text: &str) -> Result<Described, DataError> {
    let json = gymnasium::parse(text)?;
    if !json.is_object() {
        return Err(DataError::Metadata("expected an object".into()));
    }
    let text = |name: &str| json[name].as_str().map(str::to_owned);
    let space = |what, name: &str| -> Result<Option<Numbered>, DataError> {
        let Some(text) = json[name].as_str() else { return Ok(None) };
        let numbered = gymnasium::read_space(what, text)?;
        numbered.space.validate().map_err(|source| DataError::Space { what, source })?;
        Ok(Some(numbered))
    };
    let env_spec = json["env_spec"].as_str().map(gymnasium::parse).transpose()?;
    Ok(Described {
        observation: space("observation", "observation_space")?,
        action: space("action", "action_space")?,
        episodes: json["total_episodes"].as_u64(),
        steps: json["total_steps"].as_u64(),
        format: text("data_format").filter(|format| format != "hdf5").map(|f| f.chars().take(40).collect()),
        metadata: Metadata {
            id: text("dataset_id"),
            environment: env_spec.and_then(|spec| spec["id"].as_str().map(str::to_owned)),
            algorithm: text("algorithm_name"),
            description: text("description"),
        },
    })
}

/// The bytes of `main_data.hdf5`.
pub(crate) fn write(dataset: &Dataset) -> Result<Vec<u8>, DataError> {
    let mut file = FileBuilder::new();
    for (number, episode) in dataset.episodes.iter().enumerate() {
        let mut group = file.create_group(&format!("episode_{number}"));
        write_episode(&mut group, number, episode, dataset)
            .map_err(|error| failure(&format!("episode_{number}"), error))?;
        file.add_group(group.finish());
    }
    file.finish().map_err(|error| failure("the file", error))
}

fn write_episode(
    group: &mut GroupBuilder,
    number: usize,
    episode: &Episode,
    dataset: &Dataset,
) -> Result<(), hdf5_pure::Error> {
    let steps = episode.len();
    group.set_attr("id", AttrValue::I64(number as i64));
    if let Some(seed) = episode.seed {
        group.set_attr("seed", AttrValue::U64(seed));
    }
    group.set_attr("total_steps", AttrValue::I64(steps as i64));
    match &episode.observations {
        Rows::Numbers(rows) => write_elements(group, "observations", rows, &dataset.observation, steps + 1),
        Rows::Bytes(rows) => {
            let shape = [steps + 1, dataset.observation.width()];
            compress(group.create_dataset("observations").with_u8_data(rows), &shape, 1);
        }
    }
    write_elements(group, "actions", &episode.actions, &dataset.action, steps);
    compress(group.create_dataset("rewards").with_f64_data(&episode.rewards), &[steps], 8);
    // As h5py keeps NumPy's booleans.
    let boolean = EnumTypeBuilder::with_base(make_i8_type()).value("FALSE", 0).value("TRUE", 1).build()?;
    for (name, flags) in [("terminations", &episode.terminated), ("truncations", &episode.truncated)] {
        let bytes: Vec<u8> = flags.iter().map(|&flag| u8::from(flag)).collect();
        compress(group.create_dataset(name).with_enum_u8_data(boolean.clone(), &bytes), &[steps], 1);
    }
    Ok(())
}

fn write_elements(group: &mut GroupBuilder, name: &str, rows: &[f32], space: &Space, count: usize) {
    match space {
        Space::Discrete { .. } => {
            let indices: Vec<i64> = rows.iter().map(|&index| index as i64).collect();
            compress(group.create_dataset(name).with_i64_data(&indices), &[count], 8);
        }
        Space::Box { .. } => {
            compress(group.create_dataset(name).with_f32_data(rows), &[count, space.width()], 4);
        }
    }
}

/// Sets the shape, and compresses what is worth it, in one chunk.
fn compress(array: &mut hdf5_pure::DatasetBuilder, shape: &[usize], size: usize) {
    let dimensions: Vec<u64> = shape.iter().map(|&dimension| dimension as u64).collect();
    array.with_shape(&dimensions);
    if shape.iter().product::<usize>() * size >= COMPRESSED_FROM {
        array.with_chunks(&dimensions).with_shuffle().with_deflate(LEVEL);
    }
}

/// The text of `metadata.json`, for files of so many bytes in this format.
pub(crate) fn write_metadata(dataset: &Dataset, bytes: usize, format: &str) -> String {
    let Metadata { id, environment, algorithm, description } = &dataset.metadata;
    let id = id.as_deref().unwrap_or("oto/recorded-v0");
    // In Parquet images become numbers.
    let images = dataset.episodes.iter().all(|e| matches!(e.observations, Rows::Bytes(_)));
    let dtype = if images && format == "hdf5" { "uint8" } else { "float32" };
    let mut json = json!({
        "total_episodes": dataset.episodes.len(),
        "total_steps": dataset.len(),
        "data_format": format,
        "observation_space": gymnasium::write_space(&dataset.observation, dtype),
        "action_space": gymnasium::write_space(&dataset.action, "float32"),
        // In megabytes, as Minari counts them.
        "dataset_size": (bytes as f64 / 1e5).round() / 10.0,
        "dataset_id": id,
        "minari_version": VERSION,
        "requirements": [],
    });
    let optional = [
        ("env_spec", environment.as_deref().and_then(gymnasium::write_env_spec)),
        ("algorithm_name", algorithm.clone()),
        ("description", description.clone()),
    ];
    for (name, text) in optional {
        if let Some(text) = text {
            json[name] = Value::String(text);
        }
    }
    json.to_string()
}

/// Minari's `DATASET_ID_RE`, with the version that it goes on to need.
pub(crate) fn check_id(id: &str) -> Result<(), DataError> {
    let word =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    let (path, version) = id.rsplit_once("-v").unwrap_or((id, ""));
    let numbered = version.parse::<u32>().is_ok() && version.chars().all(|c| c.is_ascii_digit());
    // A namespace needs two characters.
    let namespace = path.rsplit_once('/').is_none_or(|(namespace, _)| namespace.len() > 1);
    match numbered && namespace && path.split('/').all(word) && id.len() <= 200 {
        true => Ok(()),
        false => Err(DataError::Id(id.chars().take(200).collect())),
    }
}

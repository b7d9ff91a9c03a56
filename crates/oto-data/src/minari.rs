//! Minari's layout: `data/main_data.hdf5` with a group `episode_<i>` for each episode, and `data/metadata.json`.
//!
//! Source: Minari 0.5.4, `minari/dataset/_storages/hdf5_storage.py` and `minari/dataset/minari_storage.py`; its
//! documentation at <https://minari.farama.org/content/dataset_standards/>.

use crate::dataset::flatten_observations;
use crate::gymnasium;
use crate::hdf5::{Array, Reader, failure};
use crate::{DataError, Dataset, Episode, Metadata, Reference, Rows};
use hdf5_pure::{AttrValue, EnumTypeBuilder, FileBuilder, Group, GroupBuilder, make_i8_type};
use oto_env::{Space, SpaceTree};
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
    observation: Option<SpaceTree>,
    action: Option<SpaceTree>,
    /// See [`gymnasium::channels_last`].
    channels_last: Option<[usize; 3]>,
    /// Whether Minari may have kept the observations as JPEG files.
    jpeg: bool,
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

/// A dataset of these episodes: discrete observations and actions are counted from 0 from here on, elements of several parts are
/// flat, actions a little outside of their range are cut to it.
pub(crate) fn finish(
    described: Described,
    shapes: Shapes,
    mut episodes: Vec<Episode>,
) -> Result<Dataset, DataError> {
    let (Some(observation), Some(action)) = (shapes.observation, shapes.action) else {
        return Err(DataError::Empty);
    };
    let mut metadata = described.metadata;
    if let Some(image) = described.channels_last {
        episodes.iter_mut().for_each(|episode| match &mut episode.observations {
            Rows::Numbers(numbers) => channels_first(numbers, image),
            Rows::Bytes(bytes) => channels_first(bytes, image),
        });
    }
    let observation = match observation {
        SpaceTree::Box { low, high } => Space::Box { low, high },
        SpaceTree::Discrete { n, start } => {
            metadata.starts[0] = start;
            for episode in &mut episodes {
                // Bytes are no indices.
                if let Rows::Numbers(rows) = &mut episode.observations {
                    rows.iter_mut().for_each(|observation| *observation -= start as f32);
                }
            }
            Space::Discrete { n }
        }
        parts => {
            flatten_observations(&parts, &mut episodes)?;
            let flat = parts.flat();
            metadata.parts[0] = Some(parts);
            flat
        }
    };
    let action = match action {
        SpaceTree::Box { low, high } => Space::Box { low, high },
        SpaceTree::Discrete { n: UNKNOWN, .. } => choices(&episodes),
        SpaceTree::Discrete { n, start } => {
            metadata.starts[1] = start;
            let actions = episodes.iter_mut().flat_map(|episode| &mut episode.actions);
            actions.for_each(|action| *action -= start as f32);
            Space::Discrete { n }
        }
        parts => {
            let action = one_action(&parts, &mut episodes)?;
            metadata.parts[1] = Some(parts);
            action
        }
    };
    let mut dataset = Dataset { observation, action: action.clone(), episodes, metadata };
    dataset.clip_actions(&action);
    check_count("steps", described.steps, dataset.len())?;
    Ok(dataset)
}

/// Puts the channels of images before their pixels, as an environment's images come over the bridge.
fn channels_first<T: Copy>(rows: &mut [T], [_, pixels, channels]: [usize; 3]) {
    let mut image = Vec::new();
    for to in rows.chunks_exact_mut((pixels * channels).max(1)) {
        image.clear();
        image.extend_from_slice(to);
        for (i, to) in to.iter_mut().enumerate() {
            *to = image[i % pixels * channels + i / pixels];
        }
    }
}

/// Makes one choice or one vector of actions of several parts.
fn one_action(parts: &SpaceTree, episodes: &mut [Episode]) -> Result<Space, DataError> {
    let action = parts.action().map_err(|source| DataError::Space { what: "action", source })?;
    if let Space::Discrete { .. } = action {
        for (number, episode) in episodes.iter_mut().enumerate() {
            let rows = episode.actions.chunks_exact(parts.numbers().max(1)).enumerate();
            let index = |(row, numbers): (usize, &[f32])| {
                let numbers: Vec<f64> = numbers.iter().map(|x| f64::from(*x)).collect();
                let refused = |source| DataError::Element { episode: number, row, source };
                parts.index(&numbers).map(|index| index as f32).map_err(refused)
            };
            episode.actions = rows.map(index).collect::<Result<_, _>>()?;
        }
    }
    Ok(action)
}

/// Spaces as far as they are known: declared, or shown by the first episode's arrays.
pub(crate) struct Shapes {
    observation: Option<SpaceTree>,
    action: Option<SpaceTree>,
    jpeg: bool,
}

/// How a dataset gets plain images.
const WITHOUT_JPEG: &str =
    "Minari keeps plain images with jpeg_encoding=False, an argument of DataCollector.create_dataset";

/// How many choices there are before all actions have been seen.
const UNKNOWN: u32 = u32::MAX;

impl Shapes {
    pub fn of(described: &Described) -> Self {
        let Described { observation, action, jpeg, .. } = described;
        Shapes { observation: observation.clone(), action: action.clone(), jpeg: *jpeg }
    }

    /// Names the encoding of observations that are not what their space says.
    pub fn observed<T>(&self, what: &str, read: Result<T, DataError>) -> Result<T, DataError> {
        read.map_err(|error| match (self.jpeg, error) {
            (true, DataError::Shape { .. } | DataError::Type { .. } | DataError::Hdf5 { .. }) => {
                DataError::Encoding {
                    what: what.into(),
                    encoding: "JPEG files".into(),
                    rewrite: WITHOUT_JPEG,
                }
            }
            (_, error) => error,
        })
    }

    /// The spaces of observations and actions, as far as they are known.
    #[cfg(feature = "parquet")]
    pub fn known(&self) -> [Option<&SpaceTree>; 2] {
        [self.observation.as_ref(), self.action.as_ref()]
    }

    pub fn observation<T>(&mut self, array: &Array<T>) -> &SpaceTree {
        self.observation.get_or_insert_with(|| unbounded(array.width).into())
    }

    pub fn action<T>(&mut self, array: &Array<T>) -> &SpaceTree {
        self.action.get_or_insert_with(|| match array.whole && array.width == 1 {
            true => SpaceTree::Discrete { n: UNKNOWN, start: 0 },
            false => unbounded(array.width).into(),
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
    let observations = read_observations(reader, group, &path("observations"), steps, shapes);
    let observations = shapes.observed(&path("observations"), observations)?;
    let actions = read_parts(reader, group, "actions", &path("actions"), shapes.action.as_ref())?;
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
    let flat = matches!(shapes.observation, None | Some(SpaceTree::Box { .. }));
    if !flat || !reader.is_bytes(group, "observations", path)? {
        let array = read_parts(reader, group, "observations", path, shapes.observation.as_ref())?;
        rows_of(path, &array, rows, shapes.observation(&array))?;
        return Ok(Rows::Numbers(array.values));
    }
    let array = reader.bytes(group, "observations", path)?;
    rows_of(path, &array, rows, shapes.observation(&array))?;
    Ok(Rows::Bytes(array.values))
}

/// The numbers of elements of a space, row by row: one array, or where it is a dictionary or a tuple a group with an array for each
/// part, which are put next to each other.
fn read_parts(
    reader: &mut Reader,
    group: &Group,
    name: &str,
    path: &str,
    space: Option<&SpaceTree>,
) -> Result<Array<f32>, DataError> {
    let Some(parts) = space.and_then(|space| parts(space, "_index_")) else {
        return reader.floats(group, name, path);
    };
    let inner = group.group(name).map_err(|error| failure(path, error))?;
    let arrays: Vec<Array<f32>> = parts
        .iter()
        .map(|(part, space)| {
            let path = format!("{path}/{part}");
            let array = read_parts(reader, &inner, part, &path, Some(space))?;
            rows_of(&path, &array, array.rows, space)?;
            Ok(array)
        })
        .collect::<Result<_, DataError>>()?;
    beside(path, &parts, &arrays)
}

/// The parts of a dictionary or a tuple, with the names that Minari gives them: a tuple's are numbers, in HDF5 after `_index_`.
pub(crate) fn parts<'a>(space: &'a SpaceTree, before: &str) -> Option<Vec<(String, &'a SpaceTree)>> {
    match space {
        SpaceTree::Dict(parts) => Some(parts.iter().map(|(name, part)| (name.clone(), part)).collect()),
        SpaceTree::Tuple(parts) => {
            Some(parts.iter().enumerate().map(|(i, part)| (format!("{before}{i}"), part)).collect())
        }
        _ => None,
    }
}

/// One array of the arrays of all parts: their rows next to each other.
pub(crate) fn beside<T: Copy>(
    path: &str,
    parts: &[(String, &SpaceTree)],
    arrays: &[Array<T>],
) -> Result<Array<T>, DataError> {
    let rows = arrays.first().map_or(0, |array| array.rows);
    if let Some((array, (part, _))) = arrays.iter().zip(parts).find(|(array, _)| array.rows != rows) {
        column(&format!("{path}/{part}"), array, rows)?;
    }
    let width = arrays.iter().map(|array| array.width).sum();
    let row = |row: usize| arrays.iter().flat_map(move |a| &a.values[row * a.width..(row + 1) * a.width]);
    let values = (0..rows).flat_map(row).copied().collect();
    Ok(Array { rows, width, whole: false, values })
}

/// Checks that there is one number for each step.
pub(crate) fn column<T>(what: &str, array: &Array<T>, rows: usize) -> Result<(), DataError> {
    expect(what, array, rows, 1, "number")
}

/// Checks that there is an element of `space` in each row.
pub(crate) fn rows_of<T>(
    what: &str,
    array: &Array<T>,
    rows: usize,
    space: &SpaceTree,
) -> Result<(), DataError> {
    expect(what, array, rows, space.numbers(), "numbers")
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
    let space =
        |what, name: &str| json[name].as_str().map(|text| gymnasium::read_space(what, text)).transpose();
    let env_spec = json["env_spec"].as_str().map(gymnasium::parse).transpose()?;
    let environment = env_spec.and_then(|spec| spec["id"].as_str().map(str::to_owned));
    // What is written for an id alone tells no more than the id.
    let usual = environment.as_deref().and_then(gymnasium::write_env_spec);
    let spec = text("env_spec").filter(|spec| Some(spec) != usual.as_ref());
    Ok(Described {
        channels_last: json["observation_space"].as_str().and_then(gymnasium::channels_last),
        jpeg: json["jpeg_encoding"] != false
            && json["observation_space"].as_str().is_some_and(gymnasium::may_be_jpeg),
        observation: space("observation", "observation_space")?,
        action: space("action", "action_space")?,
        episodes: json["total_episodes"].as_u64(),
        steps: json["total_steps"].as_u64(),
        format: text("data_format").filter(|format| format != "hdf5").map(|f| f.chars().take(40).collect()),
        metadata: Metadata {
            id: text("dataset_id"),
            environment,
            algorithm: text("algorithm_name"),
            description: text("description"),
            spec,
            reference: reference(&json),
            ..Metadata::default()
        },
    })
}

/// Minari's reference scores, unless they normalise nothing.
fn reference(json: &Value) -> Option<Reference> {
    let (random, expert) = (json["ref_min_score"].as_f64()?, json["ref_max_score"].as_f64()?);
    Reference { random, expert }.checked()
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
    let (steps, starts) = (episode.len(), dataset.metadata.starts);
    group.set_attr("id", AttrValue::I64(number as i64));
    if let Some(seed) = episode.seed {
        group.set_attr("seed", AttrValue::U64(seed));
    }
    group.set_attr("total_steps", AttrValue::I64(steps as i64));
    match &episode.observations {
        Rows::Numbers(rows) => {
            write_elements(group, "observations", rows, &dataset.observation, starts[0], steps + 1);
        }
        Rows::Bytes(rows) => {
            let shape = [steps + 1, dataset.observation.width()];
            compress(group.create_dataset("observations").with_u8_data(rows), &shape, 1);
        }
    }
    write_elements(group, "actions", &episode.actions, &dataset.action, starts[1], steps);
    compress(group.create_dataset("rewards").with_f64_data(&episode.rewards), &[steps], 8);
    // As h5py keeps NumPy's booleans.
    let boolean = EnumTypeBuilder::with_base(make_i8_type()).value("FALSE", 0).value("TRUE", 1).build()?;
    for (name, flags) in [("terminations", &episode.terminated), ("truncations", &episode.truncated)] {
        let bytes: Vec<u8> = flags.iter().map(|&flag| u8::from(flag)).collect();
        compress(group.create_dataset(name).with_enum_u8_data(boolean.clone(), &bytes), &[steps], 1);
    }
    Ok(())
}

fn write_elements(
    group: &mut GroupBuilder,
    name: &str,
    rows: &[f32],
    space: &Space,
    start: i64,
    count: usize,
) {
    match space {
        Space::Discrete { .. } => {
            let indices: Vec<i64> = rows.iter().map(|&index| (index as i64).saturating_add(start)).collect();
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
    let Metadata { id, environment, algorithm, description, spec, starts, .. } = &dataset.metadata;
    let id = id.as_deref().unwrap_or("oto/recorded-v0");
    // In Parquet images become numbers.
    let images = dataset.episodes.iter().all(|e| matches!(e.observations, Rows::Bytes(_)));
    let dtype = if images && format == "hdf5" { "uint8" } else { "float32" };
    let mut json = json!({
        "total_episodes": dataset.episodes.len(),
        "total_steps": dataset.len(),
        "data_format": format,
        "observation_space": gymnasium::write_space(&dataset.observation, dtype, starts[0]),
        "action_space": gymnasium::write_space(&dataset.action, "float32", starts[1]),
        // In megabytes, as Minari counts them.
        "dataset_size": (bytes as f64 / 1e5).round() / 10.0,
        "dataset_id": id,
        "minari_version": VERSION,
        "requirements": [],
    });
    let optional = [
        ("env_spec", spec.clone().or_else(|| environment.as_deref().and_then(gymnasium::write_env_spec))),
        ("algorithm_name", algorithm.clone()),
        ("description", description.clone()),
    ];
    for (name, text) in optional {
        if let Some(text) = text {
            json[name] = Value::String(text);
        }
    }
    if let Some(Reference { random, expert }) = dataset.metadata.reference {
        (json["ref_min_score"], json["ref_max_score"]) = (random.into(), expert.into());
        json["num_episodes_average_score"] = Reference::EPISODES.into();
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

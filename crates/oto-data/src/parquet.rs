//! Minari's other layout: a folder `data/<i>` for each episode, with `part-0.parquet` and `metadata.json`, and `data/metadata.json`
//! for all. Each column has a row for each observation; the last row's action, reward and flags mean nothing.
//!
//! Source: Minari 0.5.4, `minari/dataset/_storages/arrow_storage.py`.

use crate::hdf5::{Array, MAX_NUMBERS};
use crate::minari::{self, Described, Shapes};
use crate::{DataError, Dataset, Episode, footer};
use bytes::Bytes;
use half::f16;
use oto_env::{Space, SpaceTree};
use parquet::basic::Compression;
use parquet::column::page::{Page, PageReader};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::column::writer::ColumnWriterImpl;
use parquet::data_type::{BoolType, DataType, DoubleType, FixedLenByteArray, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Rows that are taken out of a column at a time.
const CHUNK: usize = 1 << 16;

/// The one file of an episode that this crate writes, named as PyArrow names it.
pub(crate) const PART: &str = "part-0.parquet";

/// An episode as the bytes of its file.
pub(crate) fn write(number: usize, episode: &Episode, dataset: &Dataset) -> Result<Vec<u8>, DataError> {
    let failed = |error: ParquetError| failure(&format!("episode {number}"), error);
    let elements = |name: &str, space: &Space| match space {
        Space::Discrete { .. } => format!("required int64 {name};"),
        Space::Box { .. } => {
            format!("required group {name} (LIST) {{ repeated group list {{ required float element; }} }}")
        }
    };
    let schema = format!(
        "message schema {{ {} {} required double rewards; required boolean terminations; required boolean truncations; }}",
        elements("observations", &dataset.observation),
        elements("actions", &dataset.action),
    );
    let schema = Arc::new(parse_message_type(&schema).map_err(failed)?);
    // Minari takes each batch of rows that it reads for an episode, so there must be one.
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(None)
        .build();
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).map_err(failed)?;
    write_columns(&mut file, episode, dataset).map_err(failed)?;
    file.close().map_err(failed)?;
    Ok(bytes)
}

fn write_columns<W: std::io::Write + Send>(
    file: &mut SerializedFileWriter<W>,
    episode: &Episode,
    dataset: &Dataset,
) -> Result<(), ParquetError> {
    let mut rows = file.next_row_group()?;
    let (actions, flags) =
        (padded(&episode.actions, dataset.action.width()), |flags: &[bool]| padded(flags, 1));
    let (mut index, starts) = (0, dataset.metadata.starts);
    while let Some(mut column) = rows.next_column()? {
        match index {
            0 => {
                write_elements(
                    &mut column,
                    &dataset.observation,
                    &episode.observations.numbers(),
                    starts[0],
                )?;
            }
            1 => write_elements(&mut column, &dataset.action, &actions, starts[1])?,
            2 => plain(column.typed::<DoubleType>(), &padded(&episode.rewards, 1))?,
            3 => plain(column.typed::<BoolType>(), &flags(&episode.terminated))?,
            _ => plain(column.typed::<BoolType>(), &flags(&episode.truncated))?,
        }
        column.close()?;
        index += 1;
    }
    rows.close().map(drop)
}

/// One row more.
fn padded<T: Copy + Default>(values: &[T], width: usize) -> Vec<T> {
    values.iter().copied().chain(std::iter::repeat_n(T::default(), width)).collect()
}

fn plain<T: DataType>(column: &mut ColumnWriterImpl<'_, T>, values: &[T::T]) -> Result<(), ParquetError> {
    column.write_batch(values, None, None).map(drop)
}

fn write_elements(
    column: &mut parquet::file::writer::SerializedColumnWriter<'_>,
    space: &Space,
    values: &[f32],
    start: i64,
) -> Result<(), ParquetError> {
    match space {
        Space::Discrete { .. } => {
            let indices: Vec<i64> =
                values.iter().map(|&index| (index as i64).saturating_add(start)).collect();
            plain(column.typed::<Int64Type>(), &indices)
        }
        Space::Box { .. } => {
            // A list begins where the repetition level is 0; no list is empty, so that the definition level is always 1.
            let first: Vec<i16> = (0..values.len()).map(|i| i16::from(i % space.width() > 0)).collect();
            let there = vec![1; values.len()];
            column.typed::<FloatType>().write_batch(values, Some(&there), Some(&first)).map(drop)
        }
    }
}

/// The text of an episode's `metadata.json`.
pub(crate) fn write_metadata(number: usize, episode: &Episode) -> String {
    let mut json = json!({ "id": number, "total_steps": episode.len() });
    if let Some(seed) = episode.seed {
        json["seed"] = seed.into();
    }
    json.to_string()
}

/// Reads the folders of a dataset whose metadata say that it has this layout. `file` reads one of them.
pub(crate) fn read(
    described: Described,
    file: impl Fn(&Path) -> Result<Option<Vec<u8>>, DataError>,
) -> Result<Dataset, DataError> {
    let Some(count) = described.episodes.filter(|count| *count > 0) else { return Err(DataError::Empty) };
    let mut left = MAX_NUMBERS;
    let mut shapes = Shapes::of(&described);
    let mut episodes = Vec::new();
    for number in 0..count {
        let at = |name: &str| Path::new(&number.to_string()).join(name);
        let Some(part) = file(&at(PART))? else {
            return Err(DataError::Count { what: "episodes", expected: count, got: number });
        };
        if file(&at("part-1.parquet"))?.is_some() {
            let (what, reason) =
                (format!("episode {number}"), "several files, expected part-0.parquet alone");
            return Err(DataError::Parquet { what, reason: reason.into() });
        }
        let seed = match file(&at("metadata.json"))? {
            Some(text) => serde_json::from_slice::<Value>(&text).ok().and_then(|json| json["seed"].as_u64()),
            None => None,
        };
        let episode = read_episode(&format!("episode {number}"), part, &mut shapes, &mut left)?;
        episodes.push(Episode { seed, ..episode });
    }
    minari::finish(described, shapes, episodes)
}

/// Reads the file of an episode; at most `left` numbers.
pub(crate) fn read_episode(
    what: &str,
    bytes: Vec<u8>,
    shapes: &mut Shapes,
    left: &mut u64,
) -> Result<Episode, DataError> {
    footer::check(&bytes).map_err(|reason| DataError::Parquet { what: what.into(), reason })?;
    let reader = SerializedFileReader::new(Bytes::from(bytes)).map_err(|error| failure(what, error))?;
    let column = |name: &str, left: &mut u64| read_column(&reader, &format!("{what}/{name}"), &[name], left);
    let mut rewards = column("rewards", left)?;
    let rows = rewards.rows;
    let steps = rows.saturating_sub(1);
    let whole = |name: &str, array: &Array<f64>| minari::column(&format!("{what}/{name}"), array, rows);
    whole("rewards", &rewards)?;
    let place = format!("{what}/observations");
    let observations = read_elements(&reader, &place, &["observations"], shapes.known()[0], left);
    let observations = shapes.observed(&place, observations)?;
    let fits = minari::rows_of(&place, &observations, rows, shapes.observation(&observations));
    shapes.observed(&place, fits)?;
    let place = format!("{what}/actions");
    let mut actions = read_elements(&reader, &place, &["actions"], shapes.known()[1], left)?;
    let action = shapes.action(&actions);
    minari::rows_of(&place, &actions, rows, action)?;
    actions.values.truncate(steps * action.numbers());
    rewards.values.truncate(steps);
    let mut flags = |name: &str| {
        let array = column(name, left)?;
        whole(name, &array)?;
        Ok::<_, DataError>(array.values.iter().take(steps).map(|flag| *flag != 0.0).collect::<Vec<_>>())
    };
    let (terminated, mut truncated) = (flags("terminations")?, flags("truncations")?);
    minari::end(&terminated, &mut truncated);
    let narrow = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect::<Vec<_>>();
    Ok(Episode {
        observations: narrow(observations.values).into(),
        actions: narrow(actions.values),
        rewards: rewards.values,
        terminated,
        truncated,
        seed: None,
    })
}

/// The numbers of elements of a space, row by row: one column, or where it is a dictionary or a tuple a column for each part, which are
/// put next to each other.
fn read_elements(
    reader: &SerializedFileReader<Bytes>,
    what: &str,
    path: &[&str],
    space: Option<&SpaceTree>,
    left: &mut u64,
) -> Result<Array<f64>, DataError> {
    let Some(parts) = space.and_then(|space| minari::parts(space, "")) else {
        return read_column(reader, what, path, left);
    };
    let mut arrays = Vec::new();
    for (name, space) in &parts {
        let (what, path) = (format!("{what}/{name}"), [path, &[name]].concat());
        let array = read_elements(reader, &what, &path, Some(space), left)?;
        minari::rows_of(&what, &array, array.rows, space)?;
        arrays.push(array);
    }
    minari::beside(what, &parts, &arrays)
}

/// A column of numbers, or of lists of numbers, in all its rows. At most `left` numbers are read.
fn read_column(
    reader: &SerializedFileReader<Bytes>,
    what: &str,
    path: &[&str],
    left: &mut u64,
) -> Result<Array<f64>, DataError> {
    let failed = |error| failure(what, error);
    let columns = reader.metadata().file_metadata().schema_descr().columns();
    let ours = |index: &usize| {
        let parts = columns[*index].path().parts();
        parts.len() >= path.len() && parts.iter().zip(path).all(|(part, name)| part == name)
    };
    let found: Vec<usize> = (0..columns.len()).filter(ours).collect();
    let [index] = found[..] else {
        return Err(DataError::Parquet {
            what: what.into(),
            reason: format!("{} columns, expected one", found.len()),
        });
    };
    let (mut values, mut rows, mut whole) = (Vec::new(), 0, true);
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(failed)?;
        let found = claimed(group.get_column_page_reader(index).map_err(failed)?).map_err(failed)?;
        if found > *left {
            return Err(DataError::TooLarge { what: what.into(), found, max: *left, unit: "numbers" });
        }
        rows += match group.get_column_reader(index).map_err(failed)? {
            ColumnReader::BoolColumnReader(c) => numbers(c, what, left, &mut values, f64::from)?,
            ColumnReader::Int32ColumnReader(c) => numbers(c, what, left, &mut values, f64::from)?,
            ColumnReader::Int64ColumnReader(c) => numbers(c, what, left, &mut values, |x| x as f64)?,
            ColumnReader::FloatColumnReader(c) => {
                whole = false;
                numbers(c, what, left, &mut values, f64::from)?
            }
            ColumnReader::DoubleColumnReader(c) => {
                whole = false;
                numbers(c, what, left, &mut values, |x| x)?
            }
            ColumnReader::FixedLenByteArrayColumnReader(c) if columns[index].type_length() == 2 => {
                whole = false;
                let half = |bytes: FixedLenByteArray| {
                    let bytes = bytes.data().first_chunk().copied().unwrap_or_default();
                    f16::from_le_bytes(bytes).to_f64()
                };
                numbers(c, what, left, &mut values, half)?
            }
            _ => {
                let got = columns[index].physical_type().to_string();
                return Err(DataError::Type { what: what.into(), expected: "numbers", got });
            }
        };
    }
    let width = values.len() / rows.max(1);
    if rows.checked_mul(width) != Some(values.len()) {
        let reason = format!("{} numbers in {rows} rows: lists of different lengths, or holes", values.len());
        return Err(DataError::Parquet { what: what.into(), reason });
    }
    Ok(Array { rows, width, whole, values })
}

/// How many numbers the pages of a column say they have, before any is unpacked: a page of a few bytes may stand for billions.
fn claimed(mut pages: Box<dyn PageReader>) -> Result<u64, ParquetError> {
    let mut claimed = 0;
    while let Some(page) = pages.peek_next_page()? {
        claimed = page.num_levels.map_or(claimed, |levels| levels.saturating_add(claimed));
        if !page.is_dict {
            pages.skip_next_page()?;
        } else if let Some(Page::DictionaryPage { buf, num_values, .. }) = pages.get_next_page()?
            && num_values as usize > buf.len()
        {
            let reason = format!("a dictionary of {num_values} numbers in {} bytes", buf.len());
            return Err(ParquetError::General(reason));
        }
    }
    Ok(claimed as u64)
}

/// Adds a column's numbers, and gives how many rows they were.
fn numbers<T: DataType>(
    mut column: ColumnReaderImpl<T>,
    what: &str,
    left: &mut u64,
    values: &mut Vec<f64>,
    number: impl Fn(T::T) -> f64,
) -> Result<usize, DataError> {
    let mut rows = 0;
    loop {
        let (mut chunk, mut there, mut first) = (Vec::new(), Vec::new(), Vec::new());
        let read = column.read_records(CHUNK, Some(&mut there), Some(&mut first), &mut chunk);
        let (records, ..) = read.map_err(|error| failure(what, error))?;
        if records == 0 {
            return Ok(rows);
        }
        let found = chunk.len().max(records) as u64;
        if found > *left {
            return Err(DataError::TooLarge { what: what.into(), found, max: *left, unit: "numbers" });
        }
        *left -= found;
        rows += records;
        values.extend(chunk.into_iter().map(&number));
    }
}

fn failure(what: &str, error: ParquetError) -> DataError {
    let reason = error.to_string();
    DataError::Parquet {
        what: what.into(),
        reason: reason.lines().next().unwrap_or("").chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::basic::Encoding;
    use parquet::column::page::PageMetadata;
    use std::collections::VecDeque;

    /// A column of these pages.
    struct Pages(VecDeque<Page>);

    impl Iterator for Pages {
        type Item = Result<Page, ParquetError>;

        fn next(&mut self) -> Option<Self::Item> {
            self.0.pop_front().map(Ok)
        }
    }

    impl PageReader for Pages {
        fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
            Ok(self.0.pop_front())
        }

        fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
            let metadata = |page: &Page| {
                let is_dict = matches!(page, Page::DictionaryPage { .. });
                let num_levels = (!is_dict).then_some(page.num_values() as usize);
                PageMetadata { num_rows: None, num_levels, is_dict }
            };
            Ok(self.0.front().map(metadata))
        }

        fn skip_next_page(&mut self) -> Result<(), ParquetError> {
            self.0.pop_front();
            Ok(())
        }
    }

    fn data(num_values: u32) -> Page {
        Page::DataPage {
            buf: Bytes::new(),
            num_values,
            encoding: Encoding::PLAIN,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        }
    }

    #[test]
    fn what_pages_claim_is_known_before_they_are_unpacked() {
        let dictionary = |num_values| Page::DictionaryPage {
            buf: Bytes::from_static(&[0; 16]),
            num_values,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        let count = |pages: Vec<Page>| claimed(Box::new(Pages(pages.into())));
        assert_eq!(count(vec![dictionary(2), data(300), data(u32::MAX)]).unwrap(), 300 + u64::from(u32::MAX));
        let error = count(vec![dictionary(1 << 30), data(300)]).unwrap_err().to_string();
        assert!(error.contains("a dictionary of 1073741824 numbers in 16 bytes"), "{error}");
    }
}

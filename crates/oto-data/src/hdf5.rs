//! Arrays out of a hostile HDF5 file: sizes are checked before anything is read.

use crate::DataError;
use hdf5_pure::{DType, Dataset, File, Group};

/// The most numbers that are read out of one file: a gigabyte of float32.
pub(crate) const MAX_NUMBERS: u64 = 1 << 28;
/// Deflate makes at most 1032 bytes of one (zlib's technical details): nobody who promises more means it.
const EXPANSION: u64 = 1100;
/// What a small file may promise on top, for HDF5's fill values.
const SLACK: u64 = 1 << 16;

/// A file, and how much of it may still be read.
pub(crate) struct Reader {
    file: File,
    limit: u64,
    left: u64,
}

/// The first dimension of an array, the product of the others, and its numbers.
#[derive(Debug)]
pub(crate) struct Array<T> {
    pub rows: usize,
    pub width: usize,
    /// Whether the file has whole numbers.
    pub whole: bool,
    pub values: Vec<T>,
}

impl Reader {
    pub fn new(bytes: Vec<u8>) -> Result<Self, DataError> {
        let length = bytes.len() as u64;
        let limit = length.saturating_mul(EXPANSION).saturating_add(SLACK).min(MAX_NUMBERS * 8);
        let file = File::from_bytes(bytes).map_err(|error| failure("the file", error))?;
        let end = file.superblock().eof_address;
        if end > length {
            let reason = format!("it is cut off after {length} bytes, it had {end}");
            return Err(DataError::Hdf5 { what: "the file".into(), reason });
        }
        Ok(Self { file, limit, left: limit })
    }

    pub fn root(&self) -> Group {
        self.file.root()
    }

    /// Numbers as float32, whatever number type they have in the file.
    pub fn floats(&mut self, group: &Group, name: &str, what: &str) -> Result<Array<f32>, DataError> {
        let (dataset, rows, width, whole) = self.numbers(group, name, what)?;
        let values = dataset.read_f32().map_err(|error| failure(what, error))?;
        complete(what, rows, width, whole, values)
    }

    /// Whether an array's elements are bytes.
    pub fn is_bytes(&self, group: &Group, name: &str, what: &str) -> Result<bool, DataError> {
        let dataset = group.dataset(name).map_err(|error| failure(what, error))?;
        Ok(matches!(dataset.dtype().map_err(|error| failure(what, error))?, DType::U8))
    }

    /// Bytes.
    pub fn bytes(&mut self, group: &Group, name: &str, what: &str) -> Result<Array<u8>, DataError> {
        let (dataset, rows, width, whole) = self.numbers(group, name, what)?;
        let values = dataset.read_u8().map_err(|error| failure(what, error))?;
        complete(what, rows, width, whole, values)
    }

    /// Numbers as float64.
    pub fn doubles(&mut self, group: &Group, name: &str, what: &str) -> Result<Array<f64>, DataError> {
        let (dataset, rows, width, whole) = self.numbers(group, name, what)?;
        let values = dataset.read_f64().map_err(|error| failure(what, error))?;
        complete(what, rows, width, whole, values)
    }

    /// Booleans, which h5py keeps as an enumeration of bytes; any number but 0 is true as well.
    pub fn flags(&mut self, group: &Group, name: &str, what: &str) -> Result<Array<bool>, DataError> {
        let dataset = group.dataset(name).map_err(|error| failure(what, error))?;
        let (rows, width, size) = self.admit(&dataset, what)?;
        let dtype = dataset.dtype().map_err(|error| failure(what, error))?;
        let values: Vec<bool> = match dtype {
            DType::Enum(_) if size == 1 => {
                let bytes = dataset.read_raw().map_err(|error| failure(what, error))?;
                bytes.iter().map(|&byte| byte != 0).collect()
            }
            dtype if is_number(&dtype) => {
                let numbers = dataset.read_f64().map_err(|error| failure(what, error))?;
                numbers.iter().map(|&number| number != 0.0).collect()
            }
            dtype => return Err(wrong_type(what, "booleans", &dtype)),
        };
        complete(what, rows, width, true, values)
    }

    fn numbers(
        &mut self,
        group: &Group,
        name: &str,
        what: &str,
    ) -> Result<(Dataset, usize, usize, bool), DataError> {
        let dataset = group.dataset(name).map_err(|error| failure(what, error))?;
        let (rows, width, _) = self.admit(&dataset, what)?;
        let dtype = dataset.dtype().map_err(|error| failure(what, error))?;
        if !is_number(&dtype) {
            return Err(wrong_type(what, "numbers", &dtype));
        }
        Ok((dataset, rows, width, !matches!(dtype, DType::F32 | DType::F64)))
    }

    /// Checks what an array claims to be before a byte of it is read: its rows, its width and an element's bytes.
    fn admit(&mut self, dataset: &Dataset, what: &str) -> Result<(usize, usize, u64), DataError> {
        let failed = |error| failure(what, error);
        let shape = dataset.shape().map_err(failed)?;
        let size = dataset.element_size().map_err(failed)?;
        let Some((&rows, rest)) = shape.split_first() else {
            return Err(DataError::Shape {
                what: what.into(),
                expected: "a row for each step".into(),
                got: shape,
            });
        };
        let product = |dimensions: &[u64]| dimensions.iter().fold(1, |a: u64, &b| a.saturating_mul(b));
        let bytes = product(&shape).saturating_mul(size);
        let chunk =
            dataset.chunk_shape().map_err(failed)?.map_or(0, |chunk| product(&chunk).saturating_mul(size));
        for (found, max) in [(bytes, self.left), (chunk, self.limit)] {
            if found > max {
                return Err(DataError::TooLarge { what: what.into(), found, max, unit: "bytes" });
            }
        }
        self.left -= bytes;
        // Both are below the limit, unless the other is 0.
        let fits = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Ok((fits(rows), fits(product(rest)), size))
    }
}

/// What the reader of HDF5 says, cut to a line.
pub(crate) fn failure(what: &str, error: hdf5_pure::Error) -> DataError {
    let reason = error.to_string();
    DataError::Hdf5 {
        what: what.into(),
        reason: reason.lines().next().unwrap_or("").chars().take(200).collect(),
    }
}

fn complete<T>(
    what: &str,
    rows: usize,
    width: usize,
    whole: bool,
    values: Vec<T>,
) -> Result<Array<T>, DataError> {
    if rows.checked_mul(width) != Some(values.len()) {
        let reason = format!("expected {rows} rows of {width}, there are {} numbers", values.len());
        return Err(DataError::Hdf5 { what: what.into(), reason });
    }
    Ok(Array { rows, width, whole, values })
}

fn is_number(dtype: &DType) -> bool {
    use DType::*;
    matches!(dtype, F32 | F64 | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64)
}

fn wrong_type(what: &str, expected: &'static str, dtype: &DType) -> DataError {
    let got = dtype.to_string().chars().take(80).collect();
    DataError::Type { what: what.into(), expected, got }
}

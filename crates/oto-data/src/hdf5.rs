//! Arrays out of a hostile HDF5 file: sizes are checked before anything is read.

use crate::DataError;
use half::f16;
use hdf5_pure::{DType, Dataset, Datatype, DatatypeByteOrder, File, FormatError, Group};

/// The most numbers that are read out of one file: a gigabyte of float32.
pub(crate) const MAX_NUMBERS: u64 = 1 << 28;
/// Deflate makes at most 1032 bytes of one (zlib's technical details): nobody who promises more means it.
const EXPANSION: u64 = 1100;
/// What a small file may promise on top, for HDF5's fill values.
const SLACK: u64 = 1 << 16;

/// A file, and how much of it may still be read.
pub(crate) struct Reader {
    file: File,
    /// Whether the bytes have the names of an episode's arrays, wherever they stand.
    pub names_arrays: bool,
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

/// How the numbers of an array are kept.
#[derive(Clone, Copy)]
enum Numbers {
    /// As one of the types that the reader of HDF5 knows.
    Known { whole: bool },
    /// As float16.
    Half { big_endian: bool },
    /// As NumPy's booleans, which h5py keeps as an enumeration of bytes.
    Flags,
}

impl Numbers {
    /// Those of an array, if it has numbers.
    fn of(dtype: &DType, size: u64) -> Option<Self> {
        use DType::*;
        match dtype {
            F32 | F64 => Some(Self::Known { whole: false }),
            I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 => Some(Self::Known { whole: true }),
            Enum(names) if size == 1 && names.iter().all(|name| name == "FALSE" || name == "TRUE") => {
                Some(Self::Flags)
            }
            Other(datatype) => match &**datatype {
                Datatype::FloatingPoint { size: 2, byte_order, layout }
                    // IEEE's, not another one of two bytes.
                    if layout.exponent_size == 5 && layout.mantissa_size == 10 && layout.exponent_bias == 15 =>
                {
                    Some(Self::Half { big_endian: *byte_order == DatatypeByteOrder::BigEndian })
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn whole(self) -> bool {
        matches!(self, Self::Known { whole: true })
    }

    /// The numbers of an array that is not [`Numbers::Known`].
    fn decode<T: From<f32>>(self, dataset: &Dataset) -> Result<Vec<T>, hdf5_pure::Error> {
        let raw = dataset.read_raw()?;
        Ok(match self {
            Self::Half { big_endian } => {
                let number = |bytes: &[u8; 2]| match big_endian {
                    true => f16::from_be_bytes(*bytes),
                    false => f16::from_le_bytes(*bytes),
                };
                raw.as_chunks::<2>().0.iter().map(|bytes| number(bytes).to_f32().into()).collect()
            }
            _ => raw.iter().map(|byte| f32::from(u8::from(*byte != 0)).into()).collect(),
        })
    }
}

impl Reader {
    pub fn new(bytes: Vec<u8>) -> Result<Self, DataError> {
        let length = bytes.len() as u64;
        let limit = length.saturating_mul(EXPANSION).saturating_add(SLACK).min(MAX_NUMBERS * 8);
        let has = |name: &str| bytes.windows(name.len()).any(|part| part == name.as_bytes());
        let names_arrays = ["observations", "actions", "rewards"].into_iter().all(has);
        let file = File::from_bytes(bytes).map_err(|error| failure("the file", error))?;
        let end = file.superblock().eof_address;
        if end > length {
            let reason = format!("it is cut off after {length} bytes, it had {end}");
            return Err(DataError::Hdf5 { what: "the file".into(), reason });
        }
        Ok(Self { file, names_arrays, limit, left: limit })
    }

    pub fn root(&self) -> Group {
        self.file.root()
    }

    /// Numbers as float32, whatever number type they have in the file.
    pub fn floats(&mut self, group: &Group, name: &str, what: &str) -> Result<Array<f32>, DataError> {
        let (dataset, rows, width, numbers) = self.numbers(group, name, what)?;
        let values = match numbers {
            Numbers::Known { .. } => dataset.read_f32(),
            other => other.decode(&dataset),
        };
        complete(what, rows, width, numbers.whole(), values.map_err(|error| failure(what, error))?)
    }

    /// Whether an array's elements are bytes.
    pub fn is_bytes(&self, group: &Group, name: &str, what: &str) -> Result<bool, DataError> {
        let dataset = group.dataset(name).map_err(|error| failure(what, error))?;
        Ok(matches!(dataset.dtype().map_err(|error| failure(what, error))?, DType::U8))
    }

    /// Bytes.
    pub fn bytes(&mut self, group: &Group, name: &str, what: &str) -> Result<Array<u8>, DataError> {
        let (dataset, rows, width, numbers) = self.numbers(group, name, what)?;
        let values = dataset.read_u8().map_err(|error| failure(what, error))?;
        complete(what, rows, width, numbers.whole(), values)
    }

    /// Numbers as float64.
    pub fn doubles(&mut self, group: &Group, name: &str, what: &str) -> Result<Array<f64>, DataError> {
        let (dataset, rows, width, numbers) = self.numbers(group, name, what)?;
        let values = match numbers {
            Numbers::Known { .. } => dataset.read_f64(),
            other => other.decode(&dataset),
        };
        complete(what, rows, width, numbers.whole(), values.map_err(|error| failure(what, error))?)
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
            dtype => match Numbers::of(&dtype, size) {
                Some(Numbers::Known { .. }) => {
                    let numbers = dataset.read_f64().map_err(|error| failure(what, error))?;
                    numbers.iter().map(|&number| number != 0.0).collect()
                }
                Some(other) => {
                    let numbers = other.decode::<f32>(&dataset).map_err(|error| failure(what, error))?;
                    numbers.iter().map(|&number| number != 0.0).collect()
                }
                None => return Err(wrong_type(what, "booleans", &dtype)),
            },
        };
        complete(what, rows, width, true, values)
    }

    fn numbers(
        &mut self,
        group: &Group,
        name: &str,
        what: &str,
    ) -> Result<(Dataset, usize, usize, Numbers), DataError> {
        let dataset = group.dataset(name).map_err(|error| failure(what, error))?;
        let (rows, width, size) = self.admit(&dataset, what)?;
        let dtype = dataset.dtype().map_err(|error| failure(what, error))?;
        match Numbers::of(&dtype, size) {
            Some(numbers) => Ok((dataset, rows, width, numbers)),
            None => Err(wrong_type(what, "numbers", &dtype)),
        }
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

/// How a file is written anew in a way that is read here: as plain objects, with the oldest layout that holds them.
const REWRITE: &str = "python3 -c \"import h5py; a, b = h5py.File('OLD.hdf5'), h5py.File('NEW.hdf5', 'w'); \
                       [a.copy(a[k], b, k, expand_soft=True, expand_external=True) for k in a]\" writes it anew";

/// What the reader of HDF5 says, cut to a line; and what to do about encodings that it does not read.
pub(crate) fn failure(what: &str, error: hdf5_pure::Error) -> DataError {
    use hdf5_pure::Error::Format;
    let encoding = match &error {
        Format(FormatError::InvalidLayoutVersion(version)) => {
            Some(format!("a layout of version {version}, such as HDF5 2.0 writes with libver='latest'"))
        }
        Format(FormatError::UnsupportedExternalStorage) => Some("numbers in another file".into()),
        // A link that has no address: it names a path.
        error if error.to_string().contains("18446744073709551615") => Some(LINK.into()),
        _ => None,
    };
    if let Some(encoding) = encoding {
        return DataError::Encoding { what: what.into(), encoding, rewrite: REWRITE };
    }
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

/// What a link is that names a path instead of an object.
const LINK: &str = "a soft or external link";

/// The refusal of a file that mentions these arrays, but not as objects of their own.
pub(crate) fn linked(what: &str) -> DataError {
    DataError::Encoding { what: what.into(), encoding: LINK.into(), rewrite: REWRITE }
}

fn wrong_type(what: &str, expected: &'static str, dtype: &DType) -> DataError {
    let got = dtype.to_string().chars().take(80).collect();
    DataError::Type { what: what.into(), expected, got }
}

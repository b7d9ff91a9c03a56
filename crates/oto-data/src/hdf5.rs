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
    /// As another enumeration: whole numbers of this many bytes.
    Named { size: usize, big_endian: bool, signed: bool },
}

impl Numbers {
    /// Those of an array, if it has numbers.
    fn of(dtype: &DType, datatype: &Datatype, size: u64) -> Option<Self> {
        use DType::*;
        match dtype {
            _ if !usual(datatype) => None,
            F32 | F64 => Some(Self::Known { whole: false }),
            I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 => Some(Self::Known { whole: true }),
            Enum(names) if size == 1 && names.iter().all(|name| name == "FALSE" || name == "TRUE") => {
                Some(Self::Flags)
            }
            Enum(_) => match datatype {
                Datatype::Enumeration { base_type, .. } => match &**base_type {
                    Datatype::FixedPoint { size, byte_order, layout } if usual(base_type) => {
                        Some(Self::Named {
                            size: *size as usize,
                            big_endian: *byte_order == DatatypeByteOrder::BigEndian,
                            signed: layout.signed,
                        })
                    }
                    _ => None,
                },
                _ => None,
            },
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
        matches!(self, Self::Known { whole: true } | Self::Named { .. })
    }

    /// The numbers of an array that is not [`Numbers::Known`].
    fn decode<T: Decoded>(self, dataset: &Dataset) -> Result<Vec<T>, hdf5_pure::Error> {
        let raw = dataset.read_raw()?;
        Ok(match self {
            Self::Half { big_endian } => {
                let number = |bytes: &[u8; 2]| match big_endian {
                    true => f16::from_be_bytes(*bytes),
                    false => f16::from_le_bytes(*bytes),
                };
                raw.as_chunks::<2>().0.iter().map(|bytes| T::of(number(bytes).to_f64())).collect()
            }
            Self::Named { size, big_endian, signed } => {
                raw.chunks_exact(size).map(|bytes| T::of(whole_number(bytes, big_endian, signed))).collect()
            }
            _ => raw.iter().map(|byte| T::of(f64::from(u8::from(*byte != 0)))).collect(),
        })
    }
}

/// A float that numbers of a file become.
trait Decoded {
    fn of(number: f64) -> Self;
}

impl Decoded for f32 {
    fn of(number: f64) -> Self {
        number as f32
    }
}

impl Decoded for f64 {
    fn of(number: f64) -> Self {
        number
    }
}

/// A whole number of at most 8 bytes.
fn whole_number(bytes: &[u8], big_endian: bool, signed: bool) -> f64 {
    let mut wide = [0; 8];
    let size = bytes.len().min(8);
    for (to, from) in wide.iter_mut().zip(bytes) {
        *to = *from;
    }
    if big_endian {
        wide[..size].reverse();
    }
    let unused = 64 - 8 * size.max(1) as u32;
    match (u64::from_le_bytes(wide), signed) {
        (number, true) => ((number << unused) as i64 >> unused) as f64,
        (number, false) => number as f64,
    }
}

/// Whether numbers are kept as IEEE 754 and machines have them: of another float of the same size, or of a whole number that fills a
/// part of its bytes, the reader of HDF5 makes other numbers, or none.
fn usual(datatype: &Datatype) -> bool {
    match datatype {
        Datatype::FixedPoint { size, layout, .. } => {
            (1..=8).contains(size) && layout.bit_offset == 0 && u32::from(layout.bit_precision) == size * 8
        }
        Datatype::FloatingPoint { size, layout, .. } => match size {
            4 => (layout.exponent_size, layout.mantissa_size, layout.exponent_bias) == (8, 23, 127),
            8 => (layout.exponent_size, layout.mantissa_size, layout.exponent_bias) == (11, 52, 1023),
            // [`Numbers::of`] looks at the others.
            _ => true,
        },
        _ => true,
    }
}

impl Reader {
    pub fn new(mut bytes: Vec<u8>) -> Result<Self, DataError> {
        bytes.drain(..foreign_bytes(&bytes));
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

    /// Whether a group of the file has a soft or external link of this name, which the reader of HDF5 passes over.
    pub fn has_link(&self, name: &str) -> bool {
        let (bytes, name) = (self.file.as_bytes(), name.as_bytes());
        let places = bytes.windows(name.len()).enumerate().filter(|(_, part)| *part == name);
        places.into_iter().any(|(at, _)| is_link(&bytes[..at], name.len()))
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
        let datatype = dataset.datatype().map_err(|error| failure(what, error))?;
        let values: Vec<bool> = match dtype {
            DType::Enum(_) if size == 1 => {
                let bytes = dataset.read_raw().map_err(|error| failure(what, error))?;
                bytes.iter().map(|&byte| byte != 0).collect()
            }
            dtype => match Numbers::of(&dtype, &datatype, size) {
                Some(Numbers::Known { .. }) => {
                    let numbers = dataset.read_f64().map_err(|error| failure(what, error))?;
                    numbers.iter().map(|&number| number != 0.0).collect()
                }
                Some(other) => {
                    let numbers = other.decode::<f32>(&dataset).map_err(|error| failure(what, error))?;
                    numbers.iter().map(|&number| number != 0.0).collect()
                }
                None => return Err(wrong_type(what, "booleans", &dtype, &datatype)),
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
        let datatype = dataset.datatype().map_err(|error| failure(what, error))?;
        match Numbers::of(&dtype, &datatype, size) {
            Some(numbers) => Ok((dataset, rows, width, numbers)),
            None => Err(wrong_type(what, "numbers", &dtype, &datatype)),
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

/// How a file is written anew in a way that is read here: the numbers of all arrays, and all attributes, as h5py writes them by default.
const REWRITE: &str = "python3 -c \"import h5py; w = lambda a, b: b.attrs.update(a.attrs) or [w(v, b.create_group(k)) if hasattr(v, 'keys') else \
                       b.create_dataset(k, data=v.astype('f8')[()] if v.dtype.itemsize > 8 else v[()] + 0) for k, v in a.items() \
                       if hasattr(v, 'keys') or v.dtype.kind in 'biuf']; w(h5py.File('OLD.hdf5'), h5py.File('NEW.hdf5', 'w'))\" writes it anew";

/// What the reader of HDF5 says, cut to a line; and what to do about encodings that it does not read.
pub(crate) fn failure(what: &str, error: hdf5_pure::Error) -> DataError {
    use hdf5_pure::Error::Format;
    let encoding = match &error {
        Format(FormatError::InvalidLayoutVersion(version)) => {
            Some(format!("a layout of version {version}, such as HDF5 2.0 writes with libver='latest'"))
        }
        Format(FormatError::UnsupportedExternalStorage) => Some("numbers in another file".into()),
        Format(FormatError::UnsupportedVirtualLayout) => Some("a virtual array of other arrays".into()),
        Format(FormatError::UnsupportedFilter(filter)) => Some(filter_name(*filter)),
        Format(FormatError::ChunkedReadError(reason)) if reason.contains("version 2 B-tree") => {
            Some("an array with several dimensions without limit (maxshape) in HDF5's newer format".into())
        }
        Format(
            FormatError::UnsupportedZfp(_)
            | FormatError::UnsupportedVersion(_)
            | FormatError::UnsupportedMessage(_)
            | FormatError::UnsupportedFilteredHeapObject
            | FormatError::UnsupportedSohmReference,
        ) => Some(format!("a rare form of HDF5 ({error})")),
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

/// The compression of a filter number of HDF5's registry.
fn filter_name(filter: u16) -> String {
    let name = match filter {
        4 => "SZIP",
        5 => "N-bit",
        305 | 307 => "LZO or bzip2",
        32001 => "Blosc",
        32004 => "LZ4",
        32008 => "bitshuffle",
        32013 => "ZFP",
        32015 => "Zstandard",
        32026 => "Blosc2",
        _ => "unknown",
    };
    format!("an array with HDF5 filter {filter} ({name})")
}

/// How many bytes stand before the file: zeros or a program's own, which its addresses do not count. HDF5 looks for a file's beginning
/// at byte 0, 512, 1024, 2048 and so on.
fn foreign_bytes(bytes: &[u8]) -> usize {
    const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";
    let at = |place: usize| bytes.get(place..).unwrap_or_default();
    let mut places =
        std::iter::once(0).chain((9..32).map(|power| 1 << power)).take_while(|p| *p < bytes.len());
    let Some(start) = places.find(|place| at(*place).starts_with(SIGNATURE)) else { return 0 };
    // Where the superblock's version keeps the address from which the others count.
    let base = match at(start).get(SIGNATURE.len()) {
        Some(0) => 24,
        Some(1) => 28,
        _ => 12,
    };
    match at(start + base).first_chunk() {
        Some(base) if u64::from_le_bytes(*base) == 0 => start,
        _ => 0,
    }
}

/// Whether what stands before a name of this length is the head of a soft or external link message: version, flags, type, and as the
/// flags say, order of creation and character set; then the name's length.
fn is_link(before: &[u8], name: usize) -> bool {
    [(0, 0), (8, 0), (0, 1), (8, 1)].into_iter().any(|(order, set)| {
        let Some(head) = before.len().checked_sub(4 + order + set).map(|start| &before[start..]) else {
            return false;
        };
        // The lowest two bits are 0 where the length is one byte.
        let flags = 0x08 | if order > 0 { 0x04 } else { 0 } | if set > 0 { 0x10 } else { 0 };
        head[..2] == [1, flags]
            && matches!(head[2], 1 | 64)
            && head.last() == u8::try_from(name).ok().as_ref()
    })
}

/// The refusal of a file that mentions these arrays, but not as objects of their own.
pub(crate) fn linked(what: &str) -> DataError {
    DataError::Encoding { what: what.into(), encoding: LINK.into(), rewrite: REWRITE }
}

fn wrong_type(what: &str, expected: &'static str, dtype: &DType, datatype: &Datatype) -> DataError {
    let got: String = dtype.to_string().chars().take(80).collect();
    let number = matches!(datatype, Datatype::FixedPoint { .. } | Datatype::FloatingPoint { .. });
    if number || matches!(dtype, DType::Enum(_)) {
        let encoding = format!("numbers of an unusual type ({got} by its size)");
        return DataError::Encoding { what: what.into(), encoding, rewrite: REWRITE };
    }
    DataError::Type { what: what.into(), expected, got }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_of_any_size_keep_their_sign() {
        for (bytes, big_endian, signed, number) in [
            (&[0xfe][..], false, true, -2.0),
            (&[0xfe], false, false, 254.0),
            (&[0xff, 0xfe], true, true, -2.0),
            (&[0x01, 0x00], true, false, 256.0),
            (&[0xff, 0xff, 0xff, 0x7f], false, true, 2_147_483_647.0),
            (&[0xff; 8], true, true, -1.0),
        ] {
            assert_eq!(whole_number(bytes, big_endian, signed), number, "{bytes:?}");
        }
    }

    #[test]
    fn heads_of_link_messages_are_told_from_other_bytes() {
        // Version, flags (type, character set), type, character set, length.
        assert!(is_link(&[9, 1, 0x18, 1, 1, 7], 7) && is_link(&[1, 0x08, 64, 7], 7));
        assert!(is_link(&[1, 0x0c, 1, 0, 0, 0, 0, 0, 0, 0, 0, 7], 7));
        // A hard link, another length, and nothing.
        assert!(!is_link(&[1, 0x08, 0, 7], 7) && !is_link(&[1, 0x08, 1, 8], 7) && !is_link(&[], 7));
    }
}

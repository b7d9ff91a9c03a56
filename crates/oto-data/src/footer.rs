//! What is checked about a Parquet file's schema before its reader sees it: that reader makes room for as many children as an
//! element says it has, and calls itself for each level of them, and neither can be caught when it goes wrong.
//!
//! A file ends with its metadata in Thrift's compact protocol, their length, and `PAR1`. The schema is field 2 of the metadata, a
//! list of elements in depth-first order; field 5 of an element is how many children it has. Sources: `parquet.thrift` of
//! Apache Parquet's format, `thrift-compact-protocol.md` of Apache Thrift.

/// The most elements a schema may have: a column has one to three.
const MAX_ELEMENTS: u64 = 1024;
/// How deep values may lie in each other where they are passed over.
const MAX_DEPTH: usize = 32;

/// Types of the compact protocol.
const I32: u8 = 5;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// Checks the schema of a file. What is wrong with the file otherwise is left to its reader to say.
pub(crate) fn check(file: &[u8]) -> Result<(), String> {
    let Some(metadata) = metadata(file) else { return Ok(()) };
    let mut thrift = Thrift { rest: metadata };
    let checked = thrift.fields(|thrift, id, kind| match (id, kind) {
        (2, LIST) => thrift.schema(),
        _ => thrift.skip(kind, 0),
    });
    match checked {
        Ok(()) | Err(Fault::Short) => Ok(()),
        Err(Fault::Refused(reason)) => Err(reason),
    }
}

fn metadata(file: &[u8]) -> Option<&[u8]> {
    let (rest, magic) = file.split_last_chunk::<4>()?;
    let (rest, length) = rest.split_last_chunk::<4>()?;
    let begin = rest.len().checked_sub(u32::from_le_bytes(*length) as usize)?;
    (magic == b"PAR1").then_some(&rest[begin..])
}

enum Fault {
    /// The bytes end, or are no Thrift: the reader says so better.
    Short,
    Refused(String),
}

struct Thrift<'a> {
    rest: &'a [u8],
}

impl Thrift<'_> {
    fn byte(&mut self) -> Result<u8, Fault> {
        let (byte, rest) = self.rest.split_first().ok_or(Fault::Short)?;
        self.rest = rest;
        Ok(*byte)
    }

    fn pass(&mut self, bytes: u64) -> Result<(), Fault> {
        let bytes = usize::try_from(bytes).map_err(|_| Fault::Short)?;
        self.rest = self.rest.get(bytes..).ok_or(Fault::Short)?;
        Ok(())
    }

    /// Seven bits of each byte, the lowest first, until one has no eighth.
    fn number(&mut self) -> Result<u64, Fault> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Fault::Short)
    }

    /// Shows each field of a structure, of which `value` takes the value.
    fn fields(
        &mut self,
        mut value: impl FnMut(&mut Self, i64, u8) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut id = 0;
        loop {
            let head = self.byte()?;
            let (step, kind) = (head >> 4, head & 15);
            if kind == 0 {
                return Ok(());
            }
            id = if step == 0 { signed(self.number()?) } else { id.wrapping_add(step.into()) };
            value(self, id, kind)?;
        }
    }

    /// The number and the type of a list's items.
    fn list(&mut self) -> Result<(u64, u8), Fault> {
        let head = self.byte()?;
        let size = if head >> 4 == 15 { self.number()? } else { u64::from(head >> 4) };
        Ok((size, head & 15))
    }

    fn schema(&mut self) -> Result<(), Fault> {
        let (size, kind) = self.list()?;
        if kind != STRUCT {
            return Err(Fault::Short);
        }
        if size > MAX_ELEMENTS {
            return Err(Fault::Refused(format!(
                "its schema has {size} elements, at most {MAX_ELEMENTS} are read"
            )));
        }
        for _ in 0..size {
            self.fields(|thrift, id, kind| {
                if (id, kind) != (5, I32) {
                    return thrift.skip(kind, 0);
                }
                match signed(thrift.number()?) {
                    children if children < size as i64 => Ok(()),
                    children => Err(Fault::Refused(format!(
                        "an element of its schema has {children} children, all elements are {size}"
                    ))),
                }
            })?;
        }
        Ok(())
    }

    /// Passes over a value of a field.
    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::Refused("its metadata lie too deep in each other".into()));
        }
        match kind {
            // The field's head says which truth it is.
            1 | 2 => Ok(()),
            3 => self.pass(1),
            4..=6 => self.number().map(drop),
            7 => self.pass(8),
            8 => {
                let length = self.number()?;
                self.pass(length)
            }
            LIST | 10 => {
                let (size, kind) = self.list()?;
                self.skip_items(size, &[kind], depth)
            }
            11 => match self.number()? {
                0 => Ok(()),
                size => {
                    let kinds = self.byte()?;
                    self.skip_items(size, &[kinds >> 4, kinds & 15], depth)
                }
            },
            STRUCT => self.fields(|thrift, _, kind| thrift.skip(kind, depth + 1)),
            13 => self.pass(16),
            _ => Err(Fault::Short),
        }
    }

    /// Passes over so many items; each takes a byte at least, so that this ends with the bytes.
    fn skip_items(&mut self, size: u64, kinds: &[u8], depth: usize) -> Result<(), Fault> {
        for _ in 0..size {
            for kind in kinds {
                match kind {
                    1 | 2 => self.pass(1)?,
                    kind => self.skip(*kind, depth + 1)?,
                }
            }
        }
        Ok(())
    }
}

/// Thrift's zigzag: 0, -1, 1, -2, 2.
fn signed(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::check;

    /// A file whose schema is a root and elements with so many children each, Thrift's own way.
    fn file(children: &[u64]) -> Vec<u8> {
        let number = |mut number: u64, out: &mut Vec<u8>| {
            while number >= 0x80 {
                out.push(number as u8 | 0x80);
                number >>= 7;
            }
            out.push(number as u8);
        };
        // Field 1, i32: version 1. Field 2, a list of structures.
        let mut metadata = vec![0x15, 2, 0x19, 0xfc];
        number(children.len() as u64, &mut metadata);
        for children in children {
            // Field 4, binary: a name. Field 5, i32: children.
            metadata.extend([0x48, 1, b'x', 0x15]);
            number(children << 1, &mut metadata);
            metadata.push(0);
        }
        // Field 3, i64: rows. The end.
        metadata.extend([0x16, 0, 0]);
        let length = (metadata.len() as u32).to_le_bytes();
        [&b"PAR1"[..], &metadata, &length, b"PAR1"].concat()
    }

    #[test]
    fn a_schema_whose_elements_have_more_children_than_there_are_elements_is_refused() {
        check(&file(&[2, 0, 0])).unwrap();
        let error = check(&file(&[2, 0, 1 << 30])).unwrap_err();
        assert_eq!(error, "an element of its schema has 1073741824 children, all elements are 3");
        assert!(check(&file(&vec![1; 1024])).is_ok());
        let error = check(&file(&vec![1; 1025])).unwrap_err();
        assert_eq!(error, "its schema has 1025 elements, at most 1024 are read");
    }

    #[test]
    fn what_is_no_metadata_is_left_to_the_reader() {
        let whole = file(&[1, 0]);
        for length in 0..whole.len() {
            check(&whole[..length]).unwrap();
            check(&whole[length..]).unwrap();
        }
        check(b"\xff\xff\xff\xffPAR1").unwrap();
    }
}

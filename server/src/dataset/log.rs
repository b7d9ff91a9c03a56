//! An append-only log: what a store was told, in the order in which it was told.
//!
//! A segment is a file `NNNNNN.log`. It begins with sixteen bytes, `OTOLOG1\n` and eight random ones, its salt. Then come records, a
//! head of 32 bytes and a payload each, all numbers little-endian:
//!
//! | bytes | |
//! | --- | --- |
//! | 0..4 | length of the payload |
//! | 4..8 | CRC32C of the salt, of bytes 0..4 and 8..32 and of the payload |
//! | 8..24 | name of a batch |
//! | 24 | kind |
//! | 25..28 | zero |
//! | 28..32 | when, in seconds since 1970 |
//!
//! What a crash tore off at the end is cut off when the log is opened. Damage in the middle costs what it hit: reading goes on
//! with the next record that is whole. The salt is known to nobody outside, so that no payload can pass for a record then.

mod sums;

use super::StoreError;
use super::open::{at, sync_folder};
use oto_proto::BatchId;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use sums::Sums;

const MAGIC: &[u8; 8] = b"OTOLOG1\n";
/// Bytes before a segment's first record.
const START: u64 = 16;
/// Bytes of a record's head.
const HEAD: usize = 32;
/// A segment that would grow beyond this many bytes is followed by another.
const SEGMENT: u64 = 64 << 20;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A batch came; the payload is the batch.
    Batch = 1,
    /// A batch was judged; the payload is a byte, its state.
    Judged = 2,
    /// A batch's transitions are deleted, its name stays.
    Forgotten = 3,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Kind::Batch, Kind::Judged, Kind::Forgotten].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Record<'a> {
    pub kind: Kind,
    pub batch: BatchId,
    /// Seconds since 1970.
    pub when: u32,
    pub payload: &'a [u8],
}

/// Where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub segment: u32,
    pub offset: u64,
}

/// Eight bytes that make a segment's checksums its own.
pub(super) type Salt = [u8; 8];

/// A file of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub number: u32,
    pub salt: Salt,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Where records stand after a segment was written anew.
pub(super) type Moved = Vec<(Kind, BatchId, Place)>;

/// The log, open for appending.
#[derive(Debug)]
pub(super) struct Log {
    folder: PathBuf,
    /// In their order; the last one is appended to.
    segments: Vec<Segment>,
    file: Arc<File>,
    /// Records appended since it was opened.
    appended: u64,
    /// Whether there was none before it was opened.
    pub made: bool,
    /// After a failure that leaves open what is on the disk, nothing more is written.
    broken: bool,
}

impl Log {
    /// Opens the log in a folder that nobody else writes to, or begins one.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let mut segments = Vec::new();
        for number in numbers(folder)? {
            let path = path(folder, number);
            let mut file = File::open(&path).map_err(at(&path))?;
            let bytes = file.metadata().map_err(at(&path))?.len();
            if bytes < START {
                // It was being made when its process ended: there was nothing in it yet.
                fs::remove_file(&path).map_err(at(&path))?;
                continue;
            }
            let mut start = [0; START as usize];
            file.read_exact(&mut start).map_err(at(&path))?;
            let (magic, salt) = start.split_at(MAGIC.len());
            if magic != MAGIC {
                return Err(StoreError::Corrupt {
                    path,
                    reason: "it does not begin as a segment does".into(),
                });
            }
            segments.push(Segment { number, salt: std::array::from_fn(|i| salt[i]), bytes });
        }
        let made = segments.is_empty();
        let file = match segments.last() {
            Some(last) => open(&path(folder, last.number))?,
            None => begin(folder, &mut segments)?,
        };
        let (folder, file) = (folder.to_owned(), Arc::new(file));
        Ok(Log { folder, segments, file, appended: 0, made, broken: false })
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its files.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Shows all whole records of a segment from an offset on, and gives the ranges of bytes that are none. What is torn off at the
    /// end of the last segment is cut off.
    pub fn scan(
        &mut self,
        number: u32,
        from: u64,
        mut each: impl FnMut(Place, Record<'_>) -> Result<(), StoreError>,
    ) -> Result<Vec<Range<u64>>, StoreError> {
        let Some(index) = self.segments.iter().position(|s| s.number == number) else {
            return Ok(Vec::new());
        };
        let segment = self.segments[index];
        let path = path(&self.folder, number);
        let mut bytes = Vec::new();
        let mut file = File::open(&path).map_err(at(&path))?;
        file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut bytes)).map_err(at(&path))?;
        let Walked { damaged, .. } = walk(&bytes, segment.salt, |begins, record| {
            each(Place { segment: number, offset: from + begins as u64 }, record)
        })?;
        let mut damaged: Vec<_> =
            damaged.into_iter().map(|d| from + d.start as u64..from + d.end as u64).collect();
        if index + 1 == self.segments.len()
            && let Some(torn) = damaged.pop_if(|range| range.end == segment.bytes)
        {
            self.cut(torn.start)?;
        }
        Ok(damaged)
    }

    fn cut(&mut self, end: u64) -> Result<(), StoreError> {
        let last = self.segments.last_mut().expect("a log has a segment");
        let path = path(&self.folder, last.number);
        self.file.set_len(end).and_then(|()| self.file.sync_all()).map_err(at(&path))?;
        last.bytes = end;
        Ok(())
    }

    /// Adds a record. It outlives the machine once what [`Log::file`] gives has been synced.
    pub fn append(&mut self, kind: Kind, batch: BatchId, payload: &[u8]) -> Result<Place, StoreError> {
        let last = *self.segments.last().expect("a log has a segment");
        let path = path(&self.folder, last.number);
        if self.broken {
            return Err(StoreError::Broken(path));
        }
        if self.is_removed() {
            // What is written to a file without a name is gone with the process.
            self.broken = true;
            return Err(StoreError::Corrupt {
                path,
                reason: "it was removed while the server writes to it".into(),
            });
        }
        let size = (HEAD + payload.len()) as u64;
        if last.bytes > START && last.bytes + size > SEGMENT {
            self.sync()?;
            self.file = Arc::new(begin(&self.folder, &mut self.segments)?);
            return self.append(kind, batch, payload);
        }
        let record = Record { kind, batch, when: now(), payload };
        let bytes = encode(&record, last.salt);
        let mut file = &*self.file;
        let written = file.seek(SeekFrom::Start(last.bytes)).and_then(|_| file.write_all(&bytes));
        if let Err(source) = written {
            // Part of it may be there. If that cannot be taken back, the next record would not stand where it should.
            self.broken = file.set_len(last.bytes).is_err();
            return Err(StoreError::Io { path, source });
        }
        if let Some(last) = self.segments.last_mut() {
            last.bytes += size;
        }
        self.appended += 1;
        Ok(Place { segment: last.number, offset: last.bytes })
    }

    /// Whether the segment that is written to was removed or replaced meanwhile.
    pub fn is_removed(&self) -> bool {
        self.segments.last().is_none_or(|last| !is_at(&self.file, &path(&self.folder, last.number)))
    }

    /// What to sync, and how many records are on the disk when that is done.
    pub fn file(&self) -> (Arc<File>, u64) {
        (self.file.clone(), self.appended)
    }

    /// Records appended since it was opened.
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// A sync failed: what is on the disk is not known, and a second try would not tell.
    pub fn give_up(&mut self) {
        self.broken = true;
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(|source| {
            self.broken = true;
            StoreError::Io { path: self.folder.clone(), source }
        })
    }

    /// The payload of the record of this batch at a place.
    pub fn read(&self, place: Place, batch: BatchId) -> Result<Vec<u8>, StoreError> {
        let path = path(&self.folder, place.segment);
        let Some(segment) = self.segments.iter().find(|s| s.number == place.segment) else {
            return Err(StoreError::Corrupt { path, reason: "the segment is gone".into() });
        };
        let mut head = [0; HEAD];
        let mut file = File::open(&path).map_err(at(&path))?;
        file.seek(SeekFrom::Start(place.offset))
            .and_then(|_| file.read_exact(&mut head))
            .map_err(at(&path))?;
        let length = u64::from(length(&head));
        let mut bytes = head.to_vec();
        // A damaged length promises no more than there is.
        file.take(length).read_to_end(&mut bytes).map_err(at(&path))?;
        match parse(&bytes, segment.salt) {
            Some(record) if record.batch == batch => Ok(bytes.split_off(HEAD)),
            _ => {
                let reason = format!("there is no whole record of batch {batch} at byte {}", place.offset);
                Err(StoreError::Corrupt { path, reason })
            }
        }
    }

    /// Writes a segment anew without what is not to be kept, and gives where its records are then, with its new salt.
    pub fn rewrite(
        &mut self,
        number: u32,
        mut keep: impl FnMut(&Record<'_>) -> bool,
    ) -> Result<(Segment, Moved), StoreError> {
        let salt = new_salt().map_err(at(&path(&self.folder, number)))?;
        let (mut bytes, mut moved) = (start(salt), Vec::new());
        self.scan(number, START, |_, record| {
            if keep(&record) {
                moved.push((
                    record.kind,
                    record.batch,
                    Place { segment: number, offset: bytes.len() as u64 },
                ));
                bytes.extend(encode(&record, salt));
            }
            Ok(())
        })?;
        let (to, part) = (path(&self.folder, number), self.folder.join("part"));
        let written = File::create(&part).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&part, &to)
        });
        written.map_err(at(&to))?;
        sync_folder(&self.folder)?;
        let segment = Segment { number, salt, bytes: bytes.len() as u64 };
        if self.segments.last().is_some_and(|last| last.number == number) {
            self.file = Arc::new(open(&to)?);
        }
        self.segments.iter_mut().filter(|s| s.number == number).for_each(|s| *s = segment);
        Ok((segment, moved))
    }
}

/// What came of looking at all bytes of a segment.
pub(super) struct Walked {
    /// Ranges that are no records.
    pub damaged: Vec<Range<usize>>,
    /// Bytes that went through a checksum, some more than once: at most [`WORK`] times as many as there are.
    pub hashed: u64,
}

/// Most of it is for bytes that are made to look like heads of records, of which one can begin every four bytes.
pub(super) const WORK: u64 = 44;

/// Shows all whole records among these bytes, each with where it begins.
pub(super) fn walk(
    bytes: &[u8],
    salt: Salt,
    mut each: impl FnMut(usize, Record<'_>) -> Result<(), StoreError>,
) -> Result<Walked, StoreError> {
    let (mut damaged, mut position) = (Vec::new(), 0);
    let mut search = Search { bytes, salt, sums: None, hashed: 0 };
    while position < bytes.len() {
        let found = (position..bytes.len()).find_map(|i| Some((i, search.record(i)?)));
        let begins = found.as_ref().map_or(bytes.len(), |(i, _)| *i);
        if begins > position {
            damaged.push(position..begins);
        }
        let Some((i, record)) = found else { break };
        each(i, record)?;
        position = i + HEAD + record.payload.len();
    }
    Ok(Walked { damaged, hashed: search.hashed + search.sums.map_or(0, |sums| sums.hashed) })
}

/// Looks for records.
struct Search<'a> {
    bytes: &'a [u8],
    salt: Salt,
    /// From the first record that is none: what follows may look like thousands of long ones that overlap.
    sums: Option<Sums<'a>>,
    hashed: u64,
}

impl<'a> Search<'a> {
    /// The record that begins there, if one does.
    fn record(&mut self, begins: usize) -> Option<Record<'a>> {
        let whole = claimed(&self.bytes[begins..])?;
        let sum = match &mut self.sums {
            None => {
                self.hashed += whole.len() as u64;
                checksum(whole, self.salt)
            }
            Some(sums) => {
                self.hashed += HEAD as u64;
                sums.appended(checksum(&whole[..HEAD], self.salt), begins + HEAD..begins + whole.len())
            }
        };
        let record = record(whole, sum);
        if record.is_none() && self.sums.is_none() {
            self.sums = Some(Sums::new(self.bytes));
        }
        record
    }
}

/// Where a segment's records begin.
pub(super) fn first_offset() -> u64 {
    START
}

fn path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:06}.log"))
}

fn numbers(folder: &Path) -> Result<Vec<u32>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let name = entry.map_err(at(folder))?.file_name();
        // Whatever else lies there is not ours.
        found.extend(name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u32>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

fn open(path: &Path) -> Result<File, StoreError> {
    File::options().read(true).write(true).open(path).map_err(at(path))
}

/// The next segment, there for good before anything is written to it.
fn begin(folder: &Path, segments: &mut Vec<Segment>) -> Result<File, StoreError> {
    let number = segments.last().map_or(0, |last| last.number + 1);
    let path = path(folder, number);
    let salt = new_salt().map_err(at(&path))?;
    let made = File::options().read(true).write(true).create(true).truncate(true).open(&path).and_then(
        |mut file| {
            file.write_all(&start(salt))?;
            file.sync_all()?;
            Ok(file)
        },
    );
    let file = made.map_err(at(&path))?;
    sync_folder(folder)?;
    segments.push(Segment { number, salt, bytes: START });
    Ok(file)
}

fn start(salt: Salt) -> Vec<u8> {
    [&MAGIC[..], &salt].concat()
}

/// The system's randomness; without it nothing is written.
fn new_salt() -> io::Result<Salt> {
    let mut salt = Salt::default();
    getrandom::fill(&mut salt).map_err(io::Error::other)?;
    Ok(salt)
}

/// Seconds since 1970.
pub(super) fn now() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32)
}

pub(super) fn encode(record: &Record<'_>, salt: Salt) -> Vec<u8> {
    let mut bytes = vec![0; HEAD];
    bytes[..4].copy_from_slice(&(record.payload.len() as u32).to_le_bytes());
    bytes[8..24].copy_from_slice(&record.batch.0.to_le_bytes());
    bytes[24] = record.kind as u8;
    bytes[28..].copy_from_slice(&record.when.to_le_bytes());
    bytes.extend_from_slice(record.payload);
    let sum = checksum(&bytes, salt);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn checksum(bytes: &[u8], salt: Salt) -> u32 {
    [&bytes[..4], &bytes[8..]].into_iter().fold(crc32c::crc32c(&salt), crc32c::crc32c_append)
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[i]))
}

fn length(head: &[u8; HEAD]) -> u32 {
    number(&head[..4])
}

/// The record that these bytes begin with, if they do.
fn parse(bytes: &[u8], salt: Salt) -> Option<Record<'_>> {
    let whole = claimed(bytes)?;
    record(whole, checksum(whole, salt))
}

/// As many of these bytes as a record has whose head they begin with. Where a record is looked for, this is asked of every byte.
fn claimed(bytes: &[u8]) -> Option<&[u8]> {
    let head = bytes.first_chunk::<HEAD>()?;
    Kind::from_byte(head[24]).filter(|_| head[25..28] == [0; 3])?;
    bytes.get(..HEAD + length(head) as usize)
}

/// A record of these bytes, if this is their checksum.
fn record(whole: &[u8], sum: u32) -> Option<Record<'_>> {
    let kind = Kind::from_byte(whole[24]).filter(|_| number(&whole[4..8]) == sum)?;
    let batch = BatchId(u128::from_le_bytes(std::array::from_fn(|i| whole[8 + i])));
    Some(Record { kind, batch, when: number(&whole[28..]), payload: &whole[HEAD..] })
}

/// Whether an open file is the one at a path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let own = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (open, there) = (file.metadata().map(own), fs::metadata(path).map(own));
    open.is_ok_and(|open| there.is_ok_and(|there| open == there))
}

/// Whether there is a file at a path; this system does not tell files apart.
#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::tests::Folder;
    use proptest::prelude::*;

    /// Names and payloads of all records, and what is damaged.
    type All = (Vec<(u128, Vec<u8>)>, Vec<Range<u64>>);

    fn all(log: &mut Log) -> All {
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        for number in log.segments().iter().map(|s| s.number).collect::<Vec<_>>() {
            let scanned = log.scan(number, START, |_, record| {
                found.push((record.batch.0, record.payload.to_vec()));
                Ok(())
            });
            damaged.extend(scanned.unwrap());
        }
        (found, damaged)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Wherever a log is torn, the records before are there, and it can be appended to.
        #[test]
        fn a_torn_end_is_cut_off(sizes in prop::collection::vec(0usize..300, 1..8), torn in 0.0..1.0f64, garbage in prop::collection::vec(any::<u8>(), 0..40)) {
            let folder = Folder::new();
            fs::create_dir_all(&folder.0).unwrap();
            let mut log = Log::open(&folder.0).unwrap();
            let records: Vec<_> = sizes.iter().enumerate().map(|(i, size)| (i as u128, vec![i as u8; *size])).collect();
            let places: Vec<_> = records.iter().map(|(name, payload)| log.append(Kind::Batch, BatchId(*name), payload).unwrap()).collect();
            drop(log);
            let file = path(&folder.0, 0);
            let mut bytes = fs::read(&file).unwrap();
            let end = START as usize + ((bytes.len() - START as usize) as f64 * torn) as usize;
            bytes.truncate(end);
            bytes.extend(&garbage);
            fs::write(&file, &bytes).unwrap();
            let mut log = Log::open(&folder.0).unwrap();
            let whole = places.iter().zip(&sizes).take_while(|(place, size)| place.offset as usize + HEAD + **size <= end).count();
            prop_assert_eq!(all(&mut log), (records[..whole].to_vec(), vec![]));
            log.append(Kind::Judged, BatchId(99), &[1]).unwrap();
            let mut expected = records[..whole].to_vec();
            expected.push((99, vec![1]));
            prop_assert_eq!(all(&mut Log::open(&folder.0).unwrap()), (expected, vec![]));
        }

        /// A byte that changes costs the record it is in, and no other.
        #[test]
        fn damage_in_the_middle_costs_what_it_hits(hit in 0usize..3, at in 0usize..(HEAD + 20), bit in 0u8..8) {
            let folder = Folder::new();
            fs::create_dir_all(&folder.0).unwrap();
            let mut log = Log::open(&folder.0).unwrap();
            let places: Vec<_> = (0..4).map(|i| log.append(Kind::Batch, BatchId(i), &[7; 20]).unwrap()).collect();
            drop(log);
            let file = path(&folder.0, 0);
            let mut bytes = fs::read(&file).unwrap();
            bytes[places[hit].offset as usize + at] ^= 1 << bit;
            fs::write(&file, &bytes).unwrap();
            let mut log = Log::open(&folder.0).unwrap();
            let (found, damaged) = all(&mut log);
            let expected: Vec<_> = (0..4).filter(|i| *i != hit as u128).collect();
            prop_assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), expected);
            prop_assert_eq!(damaged, vec![places[hit].offset..places[hit].offset + (HEAD + 20) as u64]);
            prop_assert!(log.read(places[hit], BatchId(hit as u128)).is_err());
            prop_assert_eq!(log.read(places[3], BatchId(3)).unwrap(), vec![7; 20]);
        }

        /// Whatever lies between them, records are found as by somebody who sums up everything that looks like one.
        #[test]
        fn what_is_found_does_not_depend_on_how_it_is_searched(pieces in prop::collection::vec((0u8..4, 0usize..200, any::<u64>()), 1..30)) {
            let salt = [9; 8];
            let mut bytes = Vec::new();
            for (piece, size, seed) in pieces {
                let payload: Vec<u8> = (0..size).map(|i| (seed >> (i % 8 * 8)) as u8).collect();
                let record = encode(&Record { kind: Kind::Batch, batch: BatchId(seed.into()), when: 0, payload: &payload }, salt);
                match piece {
                    0 => bytes.extend(record),
                    1 => bytes.extend(fake(seed as u32 % 4000)),
                    2 => bytes.extend(payload),
                    _ => bytes.extend(&record[..record.len() - size / 2]),
                }
            }
            let mut found = Vec::new();
            let walked = walk(&bytes, salt, |begins, record| {
                found.push((begins, record.batch, record.payload.to_vec()));
                Ok(())
            }).unwrap();
            let (mut expected, mut damaged, mut position) = (Vec::new(), Vec::<Range<usize>>::new(), 0);
            while position < bytes.len() {
                match parse(&bytes[position..], salt) {
                    Some(record) => {
                        expected.push((position, record.batch, record.payload.to_vec()));
                        position += HEAD + record.payload.len();
                    }
                    None => {
                        match damaged.last_mut().filter(|last| last.end == position) {
                            Some(last) => last.end += 1,
                            None => damaged.push(position..position + 1),
                        }
                        position += 1;
                    }
                }
            }
            prop_assert_eq!((found, walked.damaged), (expected, damaged));
        }
    }

    /// The head of a record that is none, with so many bytes of payload.
    fn fake(length: u32) -> Vec<u8> {
        let mut head =
            encode(&Record { kind: Kind::Batch, batch: BatchId(1), when: 0, payload: &[] }, [1; 8]);
        head[..4].copy_from_slice(&length.to_le_bytes());
        head
    }

    #[test]
    fn what_looks_like_many_long_records_costs_no_more_than_its_bytes() {
        let (salt, count) = ([2; 8], 1 << 15);
        let end = count * HEAD as u32;
        let payload: Vec<u8> = (0..count).flat_map(|i| fake(end - (i + 1) * HEAD as u32)).collect();
        let mut bytes =
            encode(&Record { kind: Kind::Batch, batch: BatchId(1), when: 0, payload: &payload }, salt);
        bytes.extend(encode(&Record { kind: Kind::Judged, batch: BatchId(2), when: 0, payload: &[1] }, salt));
        bytes[8] ^= 1;
        let mut found = Vec::new();
        let walked = walk(&bytes, salt, |_, record| {
            found.push(record.batch);
            Ok(())
        });
        let Walked { damaged, hashed } = walked.unwrap();
        let first = 0..HEAD + payload.len();
        assert_eq!((found, damaged), (vec![BatchId(2)], vec![first]));
        let claims = (0..bytes.len()).filter_map(|i| claimed(&bytes[i..])).map(|whole| whole.len() as u64);
        let (all, claims) = (bytes.len() as u64, claims.sum::<u64>());
        assert!(hashed <= WORK * all && claims > 100 * WORK * all, "{hashed} of {all}, {claims} one by one");
    }

    #[test]
    fn a_payload_does_not_pass_for_a_record() {
        let folder = Folder::new();
        fs::create_dir_all(&folder.0).unwrap();
        let mut log = Log::open(&folder.0).unwrap();
        let forged =
            encode(&Record { kind: Kind::Judged, batch: BatchId(5), when: 0, payload: &[1] }, [0; 8]);
        log.append(Kind::Batch, BatchId(1), &forged).unwrap();
        log.append(Kind::Batch, BatchId(2), &[]).unwrap();
        drop(log);
        let mut bytes = fs::read(path(&folder.0, 0)).unwrap();
        bytes[START as usize] ^= 1;
        fs::write(path(&folder.0, 0), &bytes).unwrap();
        let (found, damaged) = all(&mut Log::open(&folder.0).unwrap());
        assert_eq!((found, damaged.len()), (vec![(2, vec![])], 1));
    }

    #[test]
    fn segments_follow_each_other_and_can_be_written_anew() {
        let folder = Folder::new();
        fs::create_dir_all(&folder.0).unwrap();
        let mut log = Log::open(&folder.0).unwrap();
        let large = vec![3; 20 << 20];
        let places: Vec<_> = (0..5).map(|i| log.append(Kind::Batch, BatchId(i), &large).unwrap()).collect();
        assert_eq!(places.iter().map(|p| p.segment).collect::<Vec<_>>(), [0, 0, 0, 1, 1]);
        for number in [0, 1] {
            let (segment, moved) = log.rewrite(number, |record| record.batch.0 % 2 == 0).unwrap();
            assert!(segment.bytes < 43 << 20);
            moved.iter().for_each(|(_, batch, place)| assert_eq!(log.read(*place, *batch).unwrap(), large));
        }
        log.append(Kind::Batch, BatchId(9), b"on").unwrap();
        drop(log);
        fs::write(path(&folder.0, 2), b"OTO").unwrap();
        let mut log = Log::open(&folder.0).unwrap();
        let (found, damaged) = all(&mut log);
        assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [0, 2, 4, 9]);
        assert!(damaged.is_empty() && !path(&folder.0, 2).exists());
        fs::write(path(&folder.0, 1), b"something else entirely").unwrap();
        assert!(matches!(Log::open(&folder.0), Err(StoreError::Corrupt { .. })));
    }
}

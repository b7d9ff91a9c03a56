//! A dataset store in a bucket of an S3-compatible object store, for a server whose own disk does not last.
//!
//! | object | |
//! | --- | --- |
//! | `batch/NAME-ROWS-CRC-STUDENT` | a batch, as safetensors; its name, how many transitions it has, CRC32C of its bytes, its student |
//! | `judged/NAME-STATE` | empty: the batch is in this state; a batch without one is in quarantine |
//! | `forgotten/NAME` | empty: the transitions were deleted, the name stays |
//!
//! All that the catalogue knows is in the names of objects, so that it is made anew of three listings whenever the store is opened.
//! Objects are written whole or not at all, and the same batch has the same name each time: writing it once more changes nothing.

use super::batch::{decode, encode};
use super::catalogue::{Came, Catalogue};
use super::log::{Place, now};
use super::s3::{Bucket, Named};
use super::{DatasetStore, Holding, Put, State, StoreError, Submission};
use object_store::aws::AmazonS3Builder;
use oto_proto::BatchId;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

const BATCH: &str = "batch";
const JUDGED: &str = "judged";
const FORGOTTEN: &str = "forgotten";

/// Keeps what students submit in a bucket. What [`DatasetStore::put`] has answered is written there, and outlives this machine.
#[derive(Debug)]
pub struct BucketStore {
    bucket: Bucket,
    inner: Mutex<Inner>,
    /// A batch arrived, or failed to.
    arrived: Condvar,
    max_bytes: u64,
}

#[derive(Debug)]
struct Inner {
    catalogue: Catalogue,
    /// Bytes of all batches, of those on their way, too.
    bytes: u64,
    /// Batches on their way to the bucket.
    arriving: HashSet<BatchId>,
}

impl BucketStore {
    /// Opens `s3://BUCKET/PREFIX`, with the credentials, the region and the endpoint of the environment (`AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_CA_BUNDLE`, or a machine's role). `max_bytes` limits the batches that are not forgotten.
    ///
    /// # Errors
    /// [`StoreError::Away`], [`StoreError::Catalogue`].
    pub fn open(address: &str, max_bytes: u64) -> Result<Self, StoreError> {
        Self::of(
            Bucket::open(AmazonS3Builder::from_env(), address, std::env::var_os("AWS_CA_BUNDLE").as_deref())?,
            max_bytes,
        )
    }

    /// The same with these settings in place of the environment's.
    ///
    /// # Errors
    /// Those of [`BucketStore::open`].
    pub fn with(settings: AmazonS3Builder, address: &str, max_bytes: u64) -> Result<Self, StoreError> {
        Self::of(Bucket::open(settings, address, None)?, max_bytes)
    }

    fn of(bucket: Bucket, max_bytes: u64) -> Result<Self, StoreError> {
        // A file of SQLite's own, gone with the store.
        let catalogue = Catalogue::open(Path::new(""))?;
        let leftover = catalogue.together(|catalogue| read(&bucket, catalogue))?;
        bucket.delete(BATCH, &leftover)?;
        let inner = Inner { bytes: catalogue.bytes()?, catalogue, arriving: HashSet::new() };
        Ok(BucketStore { bucket, inner: Mutex::new(inner), arrived: Condvar::new(), max_bytes })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else brings this batch, and says whether it is here. If not, it is this caller's to bring.
    fn expect(&self, submission: &Submission, bytes: u64) -> Result<bool, StoreError> {
        let batch = submission.batch;
        let mut inner = self.inner();
        while inner.arriving.contains(&batch) {
            inner = self.arrived.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        if inner.catalogue.find(batch)?.is_some() {
            return Ok(true);
        }
        let (held, max) = (inner.bytes, self.max_bytes);
        if held.saturating_add(bytes) > max {
            return Err(StoreError::Full { held, found: bytes, max });
        }
        inner.bytes += bytes;
        inner.arriving.insert(batch);
        Ok(false)
    }

    fn known(&self, batch: BatchId) -> Result<(State, ObjectName), StoreError> {
        let inner = self.inner();
        let Some(Some((state, place))) = inner.catalogue.find(batch)? else {
            return Err(StoreError::Unknown(batch));
        };
        let (student, rows) = inner.catalogue.of(batch)?;
        Ok((state, ObjectName { batch, rows, crc: place.offset as u32, student }))
    }
}

impl DatasetStore for BucketStore {
    fn put(&self, submission: &Submission) -> Result<Put, StoreError> {
        let batch = submission.batch;
        if self.inner().catalogue.find(batch)?.is_some() {
            return Ok(Put::Known);
        }
        if !submission.is_whole() {
            return Err(StoreError::Misshapen(batch));
        }
        let payload = encode(submission);
        let bytes = payload.len() as u64;
        let name = ObjectName {
            batch,
            rows: submission.rows(),
            crc: crc32c::crc32c(&payload),
            student: submission.student.clone(),
        };
        if self.expect(submission, bytes)? {
            return Ok(Put::Known);
        }
        let put = self.bucket.put(BATCH, &name.text(), payload);
        let mut inner = self.inner();
        let put = put.and_then(|()| name.came(&inner.catalogue, bytes, now()));
        inner.arriving.remove(&batch);
        if put.is_err() {
            inner.bytes -= bytes;
        }
        self.arrived.notify_all();
        put.map(|()| Put::Kept)
    }

    fn list(&self, state: State) -> Result<Vec<BatchId>, StoreError> {
        self.inner().catalogue.list(state)
    }

    fn read(&self, batch: BatchId) -> Result<Submission, StoreError> {
        let (_, name) = self.known(batch)?;
        let text = name.text();
        let corrupt = |reason: String| StoreError::Corrupt { path: self.bucket.called(BATCH, &text), reason };
        let payload = self.bucket.get(BATCH, &text)?.ok_or_else(|| corrupt("the object is gone".into()))?;
        match crc32c::crc32c(&payload) {
            found if found == name.crc => decode(&payload, batch).map_err(corrupt),
            found => Err(corrupt(format!("its checksum is {found:08x}, expected {:08x}", name.crc))),
        }
    }

    fn judge(&self, batch: BatchId, state: State) -> Result<(), StoreError> {
        let (before, _) = self.known(batch)?;
        if before == state {
            return Ok(());
        }
        self.bucket.put(JUDGED, &judgement(batch, state), Vec::new())?;
        self.inner().catalogue.judged(batch, state)?;
        self.bucket.delete(JUDGED, &[judgement(batch, before)])
    }

    fn forget(&self, student: &str) -> Result<usize, StoreError> {
        // The bucket knows more than the catalogue: a batch whose writing seemed to fail may be there.
        let held = self.bucket.list(BATCH)?;
        let theirs: Vec<_> =
            held.iter().filter_map(|o| ObjectName::read(&o.name)).filter(|o| o.student == student).collect();
        let mut gone = 0;
        for name in &theirs {
            self.bucket.put(FORGOTTEN, &name.batch.to_string(), Vec::new())?;
            // From here on it is forgotten, whatever happens.
            let inner = self.inner();
            gone += usize::from(matches!(inner.catalogue.find(name.batch)?, Some(Some(_))));
            inner.catalogue.forgotten(name.batch)?;
        }
        let batches: Vec<_> = theirs.iter().map(ObjectName::text).collect();
        let judgements: Vec<_> =
            theirs.iter().flat_map(|o| State::ALL.map(|state| judgement(o.batch, state))).collect();
        self.bucket.delete(BATCH, &batches)?;
        self.bucket.delete(JUDGED, &judgements)?;
        let mut inner = self.inner();
        let arriving = inner.arriving.len();
        inner.catalogue.cleaned(0)?;
        if arriving == 0 {
            inner.bytes = inner.catalogue.bytes()?;
        }
        Ok(gone)
    }

    fn summary(&self) -> Result<Vec<Holding>, StoreError> {
        self.inner().catalogue.summary()
    }
}

/// What the name of a batch's object says.
struct ObjectName {
    batch: BatchId,
    rows: usize,
    crc: u32,
    student: String,
}

impl ObjectName {
    fn text(&self) -> String {
        format!("{}-{}-{:08x}-{}", self.batch, self.rows, self.crc, self.student)
    }

    /// Nothing, if it is not the name of a batch.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '-');
        let batch = parts.next()?.parse().ok()?;
        let rows = parts.next()?.parse().ok()?;
        let crc = u32::from_str_radix(parts.next()?, 16).ok()?;
        Some(ObjectName { batch, rows, crc, student: parts.next()?.to_owned() })
    }

    fn came(&self, catalogue: &Catalogue, bytes: u64, when: u32) -> Result<(), StoreError> {
        let place = Place { segment: 0, offset: self.crc.into() };
        catalogue.came(&Came {
            batch: self.batch,
            student: &self.student,
            transitions: self.rows,
            bytes,
            when,
            place,
        })
    }
}

fn judgement(batch: BatchId, state: State) -> String {
    format!("{batch}-{}", state.name())
}

/// Tells an empty catalogue what is in the bucket, and gives what is left over there: batches that are forgotten.
fn read(bucket: &Bucket, catalogue: &Catalogue) -> Result<Vec<String>, StoreError> {
    for object in bucket.list(FORGOTTEN)? {
        object.name.parse().map_or(Ok(()), |batch| catalogue.forgotten(batch))?;
    }
    let mut batches = bucket.list(BATCH)?;
    batches.sort_by(|a, b| (a.written, &a.name).cmp(&(b.written, &b.name)));
    let mut leftover = Vec::new();
    for object in batches {
        // Whatever else lies there is not ours.
        let Some(name) = ObjectName::read(&object.name) else { continue };
        match catalogue.find(name.batch)? {
            Some(None) => leftover.push(object.name),
            _ => name.came(catalogue, object.bytes, (object.written / 1000) as u32)?,
        }
    }
    for (batch, state) in judgements(&bucket.list(JUDGED)?) {
        catalogue.judged(batch, state)?;
    }
    Ok(leftover)
}

/// The last judgement of each batch; of two at once, the stricter.
fn judgements(objects: &[Named]) -> HashMap<BatchId, State> {
    let mut last = HashMap::<BatchId, (i64, State)>::new();
    for object in objects {
        let read = object
            .name
            .split_once('-')
            .and_then(|(batch, state)| Some((batch.parse().ok()?, State::from_name(state)?)));
        let Some((batch, state)) = read else { continue };
        let judged = last.entry(batch).or_insert((object.written, state));
        *judged = (*judged).max((object.written, state));
    }
    last.into_iter().map(|(batch, (_, state))| (batch, state)).collect()
}

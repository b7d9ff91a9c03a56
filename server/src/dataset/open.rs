//! A store by its address, and what the stores share on a disk.

use super::{BucketStore, DatasetStore, LogStore, StoreError, s3};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Opens what `address` names: a folder, or `s3://BUCKET/PREFIX`. `max_bytes` limits the batches that are not forgotten.
///
/// # Errors
/// Those of [`LogStore::open`] and [`BucketStore::open`].
pub fn open(address: &str, max_bytes: u64) -> Result<Arc<dyn DatasetStore>, StoreError> {
    match address.starts_with(s3::SCHEME) {
        true => Ok(Arc::new(BucketStore::open(address, max_bytes)?)),
        false => Ok(Arc::new(LogStore::open(Path::new(address), max_bytes)?)),
    }
}

pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path: path.clone(), source }
}

/// Makes what happened in a folder outlive the machine. Only Unix opens folders; elsewhere a renaming is in the journal.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
    } else {
        Ok(())
    }
}

//! What a server had when it ended, on its disk: the last version that came from the cloud, what a training agent had learned.
//!
//! One file each: a line of JSON (what there is to say, and a SHA-256), then bytes. It is replaced by a rename, so that it is
//! always whole, and counts only with its checksum.

use crate::auth::digest::hex;
use oto_json::file;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The largest such file, in bytes.
const MAX_BYTES: u64 = 4 << 30;

/// Why what was kept cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SavedStateError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{}: it is damaged; move it away to begin anew", .0.display())]
    Damaged(PathBuf),
}

/// Where something is kept.
#[derive(Clone, Debug)]
pub(crate) struct SavedState(PathBuf);

impl SavedState {
    pub fn at(path: PathBuf) -> Self {
        SavedState(path)
    }

    #[cfg(feature = "follow")]
    /// Whether there is such a file.
    pub fn is_there(&self) -> bool {
        self.0.is_file()
    }

    /// What is kept: what there is to say, and the bytes.
    pub fn read(&self) -> Result<Option<(Value, Vec<u8>)>, SavedStateError> {
        match file::open(&self.0).and_then(read) {
            Ok(file) => self.parse(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SavedStateError::File { path: self.0.clone(), source }),
        }
    }

    fn parse(&self, mut file: Vec<u8>) -> Result<(Value, Vec<u8>), SavedStateError> {
        let damaged = || SavedStateError::Damaged(self.0.clone());
        let end = file.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
        let bytes = file.split_off(end + 1);
        let mut line: Value = serde_json::from_slice(&file).map_err(|_| damaged())?;
        let said = line["said"].take();
        match line["sha256"] == checksum(&said, &[&bytes]) {
            true => Ok((said, bytes)),
            false => Err(damaged()),
        }
    }

    /// Keeps this in place of what was kept.
    pub fn write(&self, said: &Value, parts: &[&[u8]]) -> Result<(), SavedStateError> {
        let line = json!({ "sha256": checksum(said, parts), "said": said }).to_string();
        let parts = [&[line.as_bytes(), b"\n"], parts].concat();
        self.replace(&parts).map_err(|source| SavedStateError::File { path: self.0.clone(), source })
    }

    fn replace(&self, parts: &[&[u8]]) -> io::Result<()> {
        fs::create_dir_all(self.0.parent().unwrap_or(Path::new(".")))?;
        let part = self.0.with_extension("part");
        let mut file = File::create(&part)?;
        parts.iter().try_for_each(|bytes| file.write_all(bytes))?;
        file.sync_all()?;
        fs::rename(&part, &self.0)
    }
}

/// All of a file that begins as a saved state does, and only the beginning of another one.
fn read(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    (&file).take(file::MAX_LIST).read_to_end(&mut bytes)?;
    if bytes.contains(&b'\n') {
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn checksum(said: &Value, parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(said.to_string());
    parts.iter().for_each(|part| hasher.update(part));
    hex(&hasher.finalize())
}

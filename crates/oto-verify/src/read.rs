//! From files to cases: gunzip, JSON, and what a file says it is.

use crate::compare::{Outcome, row};
use crate::{Report, Row, environments, losses, minatar, mobile_cell, policies};
use flate2::read::MultiGzDecoder;
use oto_json::file;
use oto_policy::tensors::MAX_MODEL_BYTES;
use serde::Deserialize;
use std::io::{self, Read};
use std::path::Path;

/// The most bytes a reference file (a model has its own limit) may have, also after decompression; a file of JSON numbers takes several times as much
/// memory.
pub const LARGEST_FILE: u64 = 32 << 20;

/// The cases of a file, each with its name.
pub(crate) type Cases = Vec<(String, Outcome)>;

/// Gives the bytes of a file beside the one that is checked, or nothing if there is none of that name.
pub type Sibling<'a> = &'a dyn Fn(&str) -> io::Result<Option<Vec<u8>>>;

#[derive(Deserialize)]
struct Header {
    kind: Option<String>,
}

/// Recomputes one reference file: `name` is for the report, `bytes` are the file's (gzip is recognised by its first
/// bytes), `sibling` gives the model files that it names. There is at least one row.
pub fn verify(name: &str, bytes: &[u8], sibling: Sibling<'_>) -> Vec<Row> {
    let failed =
        |kind: Option<&str>, reason: String| vec![row(name, kind, String::new(), Outcome::Failed(reason))];
    let text = match decompress(bytes) {
        Ok(text) => text,
        Err(reason) => return failed(None, reason),
    };
    let kind = match serde_json::from_slice::<Header>(&text) {
        Ok(Header { kind: Some(kind) }) => kind,
        Ok(Header { kind: None }) => return failed(None, "the file does not say its kind".into()),
        Err(error) => return failed(None, format!("not a reference file: {error}")),
    };
    match cases(name, &kind, &text, sibling) {
        Ok(cases) if cases.is_empty() => failed(Some(&kind), "the file holds no case".into()),
        Ok(cases) => cases.into_iter().map(|(case, outcome)| row(name, Some(&kind), case, outcome)).collect(),
        Err(reason) => failed(Some(&kind), reason),
    }
}

fn cases(name: &str, kind: &str, text: &[u8], sibling: Sibling<'_>) -> Result<Cases, String> {
    match kind {
        "env_trajectories" => environments::trajectories(text),
        "env_reset_seeds" => environments::reset_seeds(text),
        "losses" => losses::losses(text),
        "policy" => policies::policy(name, text, sibling),
        "policy_golden" => policies::golden(text, sibling),
        "mobile_env_trajectories" => mobile_cell::trajectories(text),
        "minatar_trajectories" => minatar::trajectories(text),
        other => Err(format!("no known kind: {:?}", other.chars().take(64).collect::<String>())),
    }
}

/// Recomputes reference files; what a file names is looked for in its folder.
pub fn verify_files<P: AsRef<Path>>(paths: &[P]) -> Report {
    let rows = paths.iter().flat_map(|path| verify_file(path.as_ref())).collect();
    Report { rows }
}

fn verify_file(path: &Path) -> Vec<Row> {
    let name = path.display().to_string();
    let bytes = match file::read(path, LARGEST_FILE) {
        Ok(bytes) => bytes,
        Err(error) => return vec![row(&name, None, String::new(), Outcome::Failed(error.to_string()))],
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    verify(&name, &bytes, &|sibling| match file::read_regular(&folder.join(sibling), MAX_MODEL_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    })
}

fn decompress(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut decoder = MultiGzDecoder::new(bytes).take(LARGEST_FILE + 1);
        decoder.read_to_end(&mut text).map_err(|error| format!("not a readable gzip file: {error}"))?;
    } else {
        text.extend_from_slice(bytes);
    }
    if text.len() as u64 > LARGEST_FILE {
        return Err(too_large(LARGEST_FILE));
    }
    Ok(text)
}

fn too_large(limit: u64) -> String {
    format!("the file has more than {} MiB", limit >> 20)
}

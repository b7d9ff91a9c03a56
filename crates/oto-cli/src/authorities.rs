//! Whose certificates are trusted at `wss://` and `https://` instead of those of Mozilla's authorities: a PEM file.

use oto_json::file;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::{Path, PathBuf};

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}", path = path.display())]
pub struct AuthorityError {
    /// The file with certificates.
    path: PathBuf,
    /// What is wrong with it.
    reason: String,
}

/// The certificates of a PEM file.
///
/// # Errors
/// If it cannot be read, or holds none.
pub fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let wrong = |reason: String| AuthorityError { path: path.to_owned(), reason };
    let pem = file::read(path, file::MAX_LIST).map_err(|error| wrong(error.to_string()))?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    match found.map_err(|error| wrong(error.to_string()))? {
        none if none.is_empty() => Err(wrong("expected a certificate, got none".into())),
        some => Ok(some),
    }
}

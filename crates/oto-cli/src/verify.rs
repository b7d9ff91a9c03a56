//! `oto verify FILE...`: holds this build against reference data.

use clap::Args;
use std::path::PathBuf;

/// What to check.
#[derive(Args, Clone, Debug)]
pub struct VerifyOptions {
    /// Reference files (JSON, plain or gzipped)
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Print one JSON object, instead of a line for each case
    #[arg(long)]
    pub json: bool,
}

/// Checks, prints, and says whether all is well.
pub fn verify(options: &VerifyOptions) -> bool {
    let report = oto_verify::verify_files(&options.files);
    match options.json {
        true => crate::out!("{}", serde_json::to_string_pretty(&report).unwrap_or_else(|e| e.to_string())),
        false => crate::out!("{report}"),
    }
    report.passed()
}

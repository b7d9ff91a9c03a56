//! What a check found: one row for each case.

use serde::Serialize;
use std::fmt;

/// The JSON schema of a [`Report`].
pub const SCHEMA: &str = include_str!("../schema/report.schema.json");

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Recomputed, and every number is within tolerance; or no number was to be compared, and all else agrees.
    Ok,
    /// Recomputed, and some number is not.
    OutOfTolerance,
    /// This build has no such term, environment or model format.
    Unsupported,
    /// Not a file of a known kind, or one that cannot be read or recomputed.
    Failed,
}

/// One case of one file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The file's name as it was given.
    pub file: String,
    /// The file's `kind`, where it has one.
    pub kind: Option<String>,
    /// Which case, in words; empty where the whole file is meant.
    pub case: String,
    /// How it ended.
    pub status: Status,
    /// The case's worst number: `|got - expected| / max(1, |expected|)`. Absent where nothing was compared and where the
    /// number that came is not finite.
    pub error: Option<f64>,
    /// What `error` may be at most.
    pub tolerance: Option<f64>,
    /// Which number was the worst, such as `states[12][3]`; or what agrees, or why the case was not compared.
    pub detail: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Status::Ok => "ok",
            Status::OutOfTolerance => "OUT OF TOLERANCE",
            Status::Unsupported => "unsupported",
            Status::Failed => "FAILED",
        };
        write!(f, "{status:<12} {}", self.file)?;
        if !self.case.is_empty() {
            write!(f, " {}", self.case)?;
        }
        match (self.error, self.tolerance) {
            (Some(error), Some(tolerance)) => {
                write!(f, ": {error:.1e} of {tolerance:.0e} allowed, at {}", self.detail)
            }
            _ => write!(f, ": {}", self.detail),
        }
    }
}

/// All cases of all files.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// In the order of the files and of the cases in them.
    pub rows: Vec<Row>,
}

impl Report {
    /// How many cases ended this way.
    pub fn count(&self, status: Status) -> usize {
        self.rows.iter().filter(|row| row.status == status).count()
    }

    /// Whether this build agrees with the data: something was checked or named as unsupported, and nothing was out of
    /// tolerance or failed. A program that reports exits with 0 if so, otherwise with 1.
    pub fn passed(&self) -> bool {
        let bad = self.count(Status::OutOfTolerance) + self.count(Status::Failed);
        !self.rows.is_empty() && bad == 0
    }
}

/// One line for each case and one with the totals.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        let [ok, out, unsupported, failed] =
            [Status::Ok, Status::OutOfTolerance, Status::Unsupported, Status::Failed].map(|s| self.count(s));
        writeln!(f, "{ok} ok, {out} out of tolerance, {unsupported} unsupported, {failed} failed")
    }
}

//! Comparing numbers with a reference and keeping the worst.

use crate::{Row, Status};

/// How one case went: compared, or the reason why not.
pub(crate) enum Outcome {
    Compared(Worst),
    /// Agreed in something that is no number.
    Agreed(String),
    Unsupported(String),
    Failed(String),
}

/// The comparison that came nearest to its tolerance, or farthest beyond.
#[derive(Default)]
pub(crate) struct Worst {
    found: Option<Comparison>,
}

struct Comparison {
    error: f64,
    tolerance: f64,
    at: String,
}

impl Worst {
    /// Compares one number; `at` names it if it turns out to be the worst.
    pub fn number(&mut self, got: f64, expected: f64, tolerance: f64, at: impl FnOnce() -> String) {
        let difference = (got - expected).abs() / expected.abs().max(1.0);
        // NaN must not pass for small, nor may it hide a later comparison.
        let error = if difference.is_finite() { difference } else { f64::INFINITY };
        let worse = |worst: &Comparison| error / tolerance > worst.error / worst.tolerance;
        if self.found.as_ref().is_none_or(worse) {
            self.found = Some(Comparison { error, tolerance, at: at() });
        }
    }

    /// Compares a vector of the same length, number by number; a position counts row by row.
    pub fn numbers(
        &mut self,
        got: impl IntoIterator<Item = f64>,
        expected: &[f64],
        tolerance: f64,
        at: impl Fn() -> String,
    ) {
        let length = expected.len();
        for (index, (got, expected)) in got.into_iter().zip(expected).enumerate() {
            let place = || if length == 1 { at() } else { format!("{}[{index}]", at()) };
            self.number(got, *expected, tolerance, place);
        }
    }

    /// Compares a yes or no: a difference counts as 1.
    pub fn flag(&mut self, got: bool, expected: bool, tolerance: f64, at: impl FnOnce() -> String) {
        self.number(f64::from(u8::from(got)), f64::from(u8::from(expected)), tolerance, at);
    }
}

/// The report's row for a case.
pub(crate) fn row(file: &str, kind: Option<&str>, case: String, outcome: Outcome) -> Row {
    let (status, error, tolerance, detail) = match outcome {
        Outcome::Compared(Worst { found: Some(Comparison { error, tolerance, at }) }) => {
            let status = if error <= tolerance { Status::Ok } else { Status::OutOfTolerance };
            let finite = error.is_finite();
            let detail = if finite { at } else { format!("{at} is not finite") };
            (status, finite.then_some(error), Some(tolerance), detail)
        }
        Outcome::Compared(Worst { found: None }) => {
            (Status::Failed, None, None, "the case holds no number".into())
        }
        Outcome::Agreed(detail) => (Status::Ok, None, None, detail),
        Outcome::Unsupported(reason) => (Status::Unsupported, None, None, reason),
        Outcome::Failed(reason) => (Status::Failed, None, None, reason),
    };
    Row { file: file.into(), kind: kind.map(Into::into), case, status, error, tolerance, detail }
}

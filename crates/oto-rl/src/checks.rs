//! Ranges of settings: each is checked, and documented, in one place.

use crate::convolution::Convolution;
use crate::optimiser::Adam;
use oto_json::shown;
use std::ops::RangeInclusive;

/// A setting out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field} is {got}: {expected}")]
pub struct ConfigError {
    /// Which setting, by its path.
    pub field: String,
    /// Its value.
    pub got: String,
    /// The allowed values.
    pub expected: String,
}

impl ConfigError {
    /// An error of this setting.
    pub fn new(field: impl Into<String>, got: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { field: field.into(), got: got.into(), expected: expected.into() }
    }
}

/// Puts a range into the schema of a number. Ends that no number goes beyond are left out.
#[cfg(feature = "schema")]
pub fn bound(schema: &mut serde_json::Value, from: f64, to: f64) {
    let whole = schema["type"] == "integer";
    let number = |x: f64| if whole { serde_json::json!(x as i64) } else { serde_json::json!(x) };
    for (keyword, end) in [("minimum", from), ("maximum", to)] {
        if end.abs() < 1e18 {
            schema[keyword] = number(end);
        }
    }
}

/// Checks one setting after another and keeps the first that is out of its range.
#[derive(Debug, Default)]
pub struct Checks {
    prefix: String,
    found: Option<ConfigError>,
    /// The ranges that were asked about, by path, for the schema.
    #[cfg(feature = "schema")]
    pub ranges: Vec<(String, f64, f64)>,
}

impl Checks {
    /// The first setting that is out of its range.
    ///
    /// # Errors
    /// That setting.
    pub fn done(self) -> Result<(), ConfigError> {
        self.found.map_or(Ok(()), Err)
    }

    /// Checks the settings of a group.
    pub fn within(&mut self, group: &str, check: impl FnOnce(&mut Self)) {
        let outer = self.prefix.len();
        self.prefix.push_str(group);
        self.prefix.push('.');
        check(self);
        self.prefix.truncate(outer);
    }

    /// One setting; `got` is shown where it is not good.
    pub fn that(&mut self, good: bool, field: &str, got: impl FnOnce() -> String, expected: &str) {
        if !good && self.found.is_none() {
            self.found = Some(ConfigError::new(format!("{}{field}", self.prefix), got(), expected));
        }
    }

    /// A whole number.
    pub fn whole(&mut self, field: &str, got: u64, range: RangeInclusive<u64>, expected: &str) {
        self.range(field, *range.start() as f64, *range.end() as f64);
        self.that(range.contains(&got), field, || got.to_string(), expected);
    }

    /// A number; one that is no number is in no range.
    pub fn real(&mut self, field: &str, got: f64, range: RangeInclusive<f64>, expected: &str) {
        self.range(field, *range.start(), *range.end());
        self.that(range.contains(&got), field, || shown(&got), expected);
    }

    /// A weight in a sum of losses.
    pub fn weight(&mut self, field: &str, got: f64) {
        self.real(field, got, 0.0..=1e6, "a weight from 0 to 1e6");
    }

    /// Widths of hidden layers.
    pub fn hidden(&mut self, widths: &[usize]) {
        self.range("hidden[]", 1.0, 4096.0);
        let layers = widths.len();
        self.that(
            (1..=8).contains(&layers),
            "hidden",
            || format!("of {layers} layers"),
            "1 to 8 hidden layers",
        );
        for (i, width) in widths.iter().enumerate() {
            let field = format!("hidden[{i}]");
            self.that((1..=4096).contains(width), &field, || width.to_string(), "widths from 1 to 4096");
        }
    }

    /// Transitions in an update.
    pub fn batch_size(&mut self, got: usize) {
        self.whole("batch_size", got as u64, 1..=65_536, "1 to 65536 transitions");
    }

    /// Critics of an ensemble whose smallest value is the target.
    pub fn subset(&mut self, got: usize, critics: usize) {
        let expected = format!("1 to critics, {critics}");
        self.that((1..=critics).contains(&got), "subset", || got.to_string(), &expected);
    }

    /// A convolution, if there is one.
    pub fn convolution(&mut self, convolution: Option<&Convolution>) {
        if let Some((convolution, expected)) = convolution.and_then(|c| Some((c, c.check().err()?))) {
            self.that(false, "convolution", || oto_json::write(convolution), expected);
        }
    }

    /// Adam's constants.
    pub fn adam(&mut self, adam: Adam) {
        self.within("adam", |checks| {
            checks.real("beta1", adam.beta1, 0.0..=0.999_999, "at least 0 and below 1");
            checks.real("beta2", adam.beta2, 0.0..=0.999_999_9, "at least 0 and below 1");
            checks.real("epsilon", adam.epsilon, 1e-16..=1.0, "1e-16 to 1");
        });
    }

    #[cfg(feature = "schema")]
    fn range(&mut self, field: &str, from: f64, to: f64) {
        self.ranges.push((format!("{}{field}", self.prefix), from, to));
    }

    #[cfg(not(feature = "schema"))]
    fn range(&mut self, _field: &str, _from: f64, _to: f64) {}
}

//! A number that moves over a run.

use crate::checks::Checks;
use oto_json::{At, Failure, FromJson, Json};

/// A number that moves from `start` to `end` over `steps` steps, then stays. A plain number stays as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    /// At step 0.
    pub start: f64,
    /// From step `steps` on.
    pub end: f64,
    /// How long the way is; 0: it is `end` from the beginning.
    pub steps: u64,
}

oto_json::json_object! { @write Linear { start, end, steps } }
oto_json::json_serde! { Linear }

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Linear {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Linear".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A number, or one that moves from `start` to `end` over `steps` steps, then stays.",
            "oneOf": [
                { "type": "number" },
                {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["start", "end", "steps"],
                    "properties": {
                        "start": { "type": "number", "description": "At step 0." },
                        "end": { "type": "number", "description": "From step `steps` on." },
                        "steps": {
                            "type": "integer",
                            "minimum": 0,
                            "description": "How long the way is; 0: it is `end` from the beginning.",
                        },
                    },
                },
            ],
        })
    }
}

impl FromJson for Linear {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        if let Json::Number(_) = at.value {
            return f64::from_json(at).map(Self::constant);
        }
        let fields = at.fields()?;
        fields.only(&["start", "end", "steps"])?;
        Ok(Self { start: fields.get("start")?, end: fields.get("end")?, steps: fields.get("steps")? })
    }
}

impl Linear {
    /// The same number for ever.
    pub const fn constant(value: f64) -> Self {
        Self { start: value, end: value, steps: 0 }
    }

    /// Its value at a step.
    pub fn at(&self, step: u64) -> f64 {
        match step < self.steps {
            true => self.start + (self.end - self.start) * step as f64 / self.steps as f64,
            false => self.end,
        }
    }

    /// The rest of the schedule after `step`, as a schedule from 0.
    pub fn after(&self, step: u64) -> Self {
        Self { start: self.at(step), end: self.end, steps: self.steps.saturating_sub(step) }
    }

    /// Checks both ends.
    pub fn check(&self, field: &str, most: f64, expected: &str, checks: &mut Checks) {
        for end in [self.start, self.end] {
            checks.that((0.0..=most).contains(&end), field, || oto_json::shown(&end), expected);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reaches_its_end_and_stays() {
        let l = Linear { start: 1.0, end: 0.0, steps: 4 };
        assert_eq!([0, 1, 4, 9].map(|s| l.at(s)), [1.0, 0.75, 0.0, 0.0]);
        assert_eq!(Linear::constant(3.0).at(0), 3.0);
    }

    #[test]
    fn the_rest_of_a_schedule_goes_on_where_it_was() {
        let l = Linear { start: 1.0, end: 0.0, steps: 8 };
        for (step, done) in (0..12).flat_map(|step| (0..12).map(move |done| (step, done))) {
            assert!((l.after(done).at(step) - l.at(done + step)).abs() < 1e-12, "{step} after {done}");
        }
    }

    #[test]
    fn a_number_is_a_schedule_that_does_not_move() {
        let read = |text: &str| oto_json::read::<Linear>(text);
        assert_eq!(read("0.5"), Ok(Linear::constant(0.5)));
        let falling = Linear { start: 1.0, end: 0.5, steps: 3 };
        assert_eq!(read(&oto_json::write(&falling)), Ok(falling));
        assert_eq!(read(r#"{"start":1,"end":0,"stepz":3}"#).unwrap_err().path, "stepz");
        assert!(read("\"fast\"").unwrap_err().message.contains("expected an object"));
    }
}

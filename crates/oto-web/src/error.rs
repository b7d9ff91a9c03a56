//! Errors as the worker gets them: plain objects `{kind, message, field}` in the page's spelling, which
//! `web/student/src/errors.ts` turns into classes.

use crate::values::{camel, give_tree};
use oto_agent::trainer::TrainError;
use oto_env::ElementError;
use oto_rl::checks::ConfigError;
use wasm_bindgen::JsValue;

/// Which class an error becomes on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A setting out of its range.
    Config,
    /// Something an environment gave.
    Environment,
    /// The learner's failure.
    Training,
    /// A file that cannot be loaded.
    Checkpoint,
    /// A call that makes no sense now.
    Worker,
    /// The learner's refusal.
    Learner,
}

/// An error on its way to the page.
#[derive(Clone, Debug, PartialEq)]
pub struct CoreError {
    /// Its class.
    pub kind: Kind,
    /// What was expected and what came. For [`Kind::Config`] it continues the field's name.
    pub message: String,
    /// What was wrong, by name.
    pub field: Option<String>,
}

impl CoreError {
    /// A setting that cannot be used.
    pub fn config(field: &str, message: String) -> Self {
        Self { kind: Kind::Config, message, field: Some(field.into()) }
    }

    /// A call that makes no sense now.
    pub fn worker(message: &str) -> Self {
        Self { kind: Kind::Worker, message: message.into(), field: None }
    }

    /// The same error, met while a file was loaded.
    pub fn while_loading(error: TrainError) -> Self {
        Self { kind: Kind::Checkpoint, message: error.to_string(), field: None }
    }

    /// The same error, met in the run that a student begins with.
    pub fn while_beginning(error: TrainError) -> Self {
        Self { kind: Kind::Checkpoint, message: format!("from: {error}"), field: Some("from".into()) }
    }
}

impl From<ElementError> for CoreError {
    fn from(error: ElementError) -> Self {
        let field = match &error {
            ElementError::Length { .. } => "observation".into(),
            ElementError::Choice { at, .. } | ElementError::Number { at, .. } => format!("observation{at}"),
        };
        Self { kind: Kind::Environment, message: error.to_string(), field: Some(field) }
    }
}

impl From<TrainError> for CoreError {
    fn from(error: TrainError) -> Self {
        let message = error.to_string();
        let of = |kind, field: Option<String>| Self { kind, message: message.clone(), field };
        match &error {
            TrainError::Config(e) => Self::config(&e.field, format!("is {}: {}", e.got, e.expected)),
            TrainError::Learn(_) | TrainError::Memory { .. } | TrainError::Copy | TrainError::Recorded(_) => {
                of(Kind::Training, None)
            }
            TrainError::ObservationLength { .. } => of(Kind::Environment, Some("observation".into())),
            TrainError::Observation { component, .. } | TrainError::Pixel { component, .. } => {
                of(Kind::Environment, Some(format!("observation[{component}]")))
            }
            TrainError::Reward(_) => of(Kind::Environment, Some("reward".into())),
            TrainError::Environment(_) => of(Kind::Environment, None),
            TrainError::Space(_) => of(Kind::Config, None),
            TrainError::Checkpoint(_) => of(Kind::Checkpoint, None),
            TrainError::NotBegun | TrainError::Unnamed | TrainError::Unasked { .. } => of(Kind::Worker, None),
        }
    }
}

impl From<ConfigError> for CoreError {
    fn from(e: ConfigError) -> Self {
        Self::config(&e.field, format!("is {}: {}", e.got, e.expected))
    }
}

impl CoreError {
    /// The message and the field as the page's author spells settings.
    fn spelt(self) -> (String, Option<String>) {
        match (self.kind, self.field) {
            (Kind::Config, Some(field)) => {
                let field = camel(&field);
                (format!("{field} {}", quoted(&self.message)), Some(field))
            }
            (_, field) => (self.message, field),
        }
    }
}

/// Names between backticks in the page's spelling, between quotation marks.
fn quoted(message: &str) -> String {
    let is_name =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let mut text = String::new();
    let mut rest = message;
    while let Some((before, after)) = rest.split_once('`') {
        text.push_str(before);
        match after.split_once('`') {
            Some((name, after)) if is_name(name) => {
                text.push('"');
                text.push_str(&camel(name));
                text.push('"');
                rest = after;
            }
            _ => {
                text.push('`');
                rest = after;
            }
        }
    }
    text + rest
}

impl From<CoreError> for JsValue {
    fn from(error: CoreError) -> Self {
        let kind = match error.kind {
            Kind::Config => "config",
            Kind::Environment => "environment",
            Kind::Training => "training",
            Kind::Checkpoint => "checkpoint",
            Kind::Worker => "worker",
            Kind::Learner => "learner",
        };
        let (message, field) = error.spelt();
        give_tree(&oto_json::object_tree(|out| {
            out.field("kind", kind);
            out.field("message", &message);
            if let Some(field) = &field {
                out.field("field", field);
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_spelling_of_the_options() {
        let spelt = |field: &str, message: &str| CoreError::config(field, message.into()).spelt();
        let (message, field) = spelt("algorithm.batch_size", "is 0: 1 or more");
        assert_eq!(message, "algorithm.batchSize is 0: 1 or more");
        assert_eq!(field.as_deref(), Some("algorithm.batchSize"));
        assert_eq!(spelt("n_step", "is 0").1.as_deref(), Some("nStep"));
        assert_eq!(spelt("transfer.alpha_aikd", "is -1").1.as_deref(), Some("transfer.alphaAikd"));
        let (message, _) = spelt("seed", "cannot be read: expected `return_at_least`, `a b` or `x_y`");
        assert_eq!(message, "seed cannot be read: expected \"returnAtLeast\", `a b` or \"xY\"");
        assert_eq!(spelt("a__b", "is no option").0, "a_b is no option");
        let other = CoreError::worker("the `batch_size`");
        assert_eq!(other.spelt(), ("the `batch_size`".into(), None));
    }
}

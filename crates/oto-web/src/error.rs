//! Errors as the worker gets them: plain objects `{kind, message, field}`, which `web/student/src/errors.ts` turns into
//! classes.

use oto_agent::trainer::TrainError;
use oto_env::ElementError;
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
}

/// An error on its way to the page.
#[derive(Clone, Debug, PartialEq)]
pub struct CoreError {
    /// Its class.
    pub kind: Kind,
    /// What was expected and what came. For [`Kind::Config`] it goes on after the field's name,
    /// which the page puts before it.
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
            TrainError::Learn(_) | TrainError::Memory { .. } | TrainError::Copy => of(Kind::Training, None),
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

impl From<CoreError> for JsValue {
    fn from(error: CoreError) -> Self {
        let object = js_sys::Object::new();
        let set = |key: &str, value: JsValue| {
            // Setting a property of a fresh object cannot fail.
            let _ = js_sys::Reflect::set(&object, &key.into(), &value);
        };
        let kind = match error.kind {
            Kind::Config => "config",
            Kind::Environment => "environment",
            Kind::Training => "training",
            Kind::Checkpoint => "checkpoint",
            Kind::Worker => "worker",
        };
        set("kind", kind.into());
        set("message", error.message.into());
        if let Some(field) = error.field {
            set("field", field.into());
        }
        object.into()
    }
}

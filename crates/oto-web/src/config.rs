//! The configuration a page's student is created from.

use crate::error::CoreError;
use oto_env::Space;
use oto_student::config::StudentConfig;
use oto_student::student::{TeacherConfig, World};
use serde::Deserialize;

/// Everything a student is made of, as `web/student/src/options.ts` writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreConfig {
    /// The run.
    pub student: StudentConfig,
    /// Where the student acts.
    pub env: EnvConfig,
    /// Who teaches it.
    pub teachers: Vec<TeacherConfig>,
}

/// A built-in environment, or the spaces of one that lives on the page.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum EnvConfig {
    /// By its id, as in `CartPole-v1`.
    BuiltIn(String),
    /// The page's own.
    Page {
        /// What it shows.
        observation: Space,
        /// What it takes.
        action: Space,
    },
}

impl CoreConfig {
    /// Reads the JSON and names the place of a value that does not fit.
    pub fn read(json: &str) -> Result<Self, CoreError> {
        let mut reader = serde_json::Deserializer::from_str(json);
        serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let field = path.strip_prefix("student.").unwrap_or(&path).to_string();
            CoreError::config(&field, format!("cannot be read: {}", error.into_inner()))
        })
    }

    /// The world that `env` describes.
    pub fn world(&self) -> Result<World, CoreError> {
        match &self.env {
            EnvConfig::BuiltIn(id) => World::built_in(id)
                .map_err(|error| CoreError::config("env", format!("cannot be made: {error}"))),
            EnvConfig::Page { observation, action } => {
                Ok(World::Outside { observation: observation.clone(), action: action.clone() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(json: &str) -> (String, String) {
        let CoreError { field, message, .. } = CoreConfig::read(json).unwrap_err();
        (field.unwrap(), message)
    }

    #[test]
    fn what_is_left_out_has_the_default() {
        let config = CoreConfig::read(r#"{"student":{"seed":7},"env":"CartPole-v1","teachers":[]}"#).unwrap();
        assert_eq!(config.student, StudentConfig { seed: 7, ..StudentConfig::default() });
        assert!(matches!(config.world().unwrap(), World::Inside { .. }));
    }

    #[test]
    fn a_value_that_does_not_fit_is_named() {
        let (field, message) = fails(r#"{"student":{"gamma":"high"},"env":"CartPole-v1","teachers":[]}"#);
        assert_eq!(field, "gamma");
        assert!(message.contains("expected f64"), "{message}");
        let (field, _) =
            fails(r#"{"student":{"qrdqn":{"hidden":[64,-1]}},"env":"CartPole-v1","teachers":[]}"#);
        assert_eq!(field, "qrdqn.hidden[1]");
    }

    #[test]
    fn an_unknown_environment_is_refused_with_the_known_ones() {
        let config = CoreConfig::read(r#"{"student":{},"env":"Cartpole","teachers":[]}"#).unwrap();
        let error = config.world().err().unwrap();
        assert_eq!(error.field.as_deref(), Some("env"));
        assert!(
            error.message.contains("Cartpole") && error.message.contains("CartPole-v1"),
            "{}",
            error.message
        );
    }

    #[test]
    fn a_page_describes_its_environment_by_its_spaces() {
        let json = r#"{"student":{},"env":{"observation":{"kind":"box","low":[-1,null],"high":[1,null]},
            "action":{"kind":"discrete","n":3}},"teachers":[]}"#;
        let World::Outside { observation, action } = CoreConfig::read(json).unwrap().world().unwrap() else {
            panic!("expected a world outside");
        };
        assert_eq!((observation.width(), action), (2, Space::Discrete { n: 3 }));
    }
}

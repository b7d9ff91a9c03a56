//! Settings that a page or a host gives as JSON, laid over the preset of their environment and algorithm.

use crate::config::{Algorithm, StudentConfig};
use crate::presets::{Seen, preset};
use oto_json::{FromJson, Json, JsonError};

/// Groups of settings: a setting that is left out of one has the preset's value too.
const GROUPS: [&str; 6] = ["qrdqn", "sac", "ppo", "adam", "transfer", "evaluation"];

/// The settings of a student in an environment: its preset, with what is given in the preset's place.
///
/// # Errors
/// A setting that there is not, or one with a value of another type; its path begins within the settings.
pub fn student(
    environment: &str,
    seen: Seen,
    given: Vec<(String, Json)>,
) -> Result<StudentConfig, JsonError> {
    let algorithm: Option<Algorithm> = setting(&given, "algorithm");
    let preset = preset(environment, seen, algorithm);
    let preset = match setting(&given, "steps") {
        Some(steps) => preset.for_steps(steps),
        None => preset,
    };
    let mut settings = oto_json::parse(&oto_json::write(&preset.student))?;
    given.into_iter().for_each(|(key, value)| put(&mut settings, key, value));
    oto_json::from_tree(&settings)
}

/// One of the given settings, if it is there and can be read.
fn setting<T: FromJson>(given: &[(String, Json)], name: &str) -> Option<T> {
    let (_, value) = given.iter().find(|(key, _)| key == name)?;
    oto_json::from_tree(value).ok()
}

/// Puts a setting that was given in the place of the preset's.
fn put(settings: &mut Json, key: String, value: Json) {
    let group = settings.get(&key).filter(|_| GROUPS.contains(&key.as_str())).cloned();
    match (group, value) {
        (Some(mut group), Json::Object(given)) => {
            given.into_iter().for_each(|(key, value)| put(&mut group, key, value));
            settings.set(key, group);
        }
        (_, value) => settings.set(key, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<StudentConfig, JsonError> {
        let Json::Object(given) = oto_json::parse(json).unwrap() else { unreachable!("an object") };
        student("", Seen::default(), given)
    }

    #[test]
    fn what_is_left_out_is_the_presets() {
        let usual = preset("", Seen::default(), None).student;
        assert_eq!(read("{}").unwrap(), usual);
        let given = read(r#"{"steps": 1000, "qrdqn": {"hidden": [7]}}"#).unwrap();
        assert_eq!((given.qrdqn.hidden, given.qrdqn.quantiles), (vec![7], usual.qrdqn.quantiles));
        assert_eq!(given.epsilon, preset("", Seen::default(), None).for_steps(1000).student.epsilon);
        assert_eq!(read(r#"{"algorithm": "ppo"}"#).unwrap().algorithm, Algorithm::Ppo);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (json, path) in [
            (r#"{"gamma": "high"}"#, "gamma"),
            (r#"{"steps": "many"}"#, "steps"),
            (r#"{"algorithm": "dqn"}"#, "algorithm"),
            (r#"{"qrdqn": {"hidden": [64, -1]}}"#, "qrdqn.hidden[1]"),
        ] {
            assert_eq!(read(json).unwrap_err().path, path, "{json}");
        }
    }
}

//! Settings that a page or a host gives as JSON, laid over the preset of their environment and algorithm.

use crate::config::StudentConfig;
use crate::presets::{Seen, preset};
use oto_json::{FromJson, Json, JsonError};
use oto_rl::algorithms;

/// Groups of settings: a setting that is left out of one has the preset's value too.
const GROUPS: [&str; 5] = ["algorithm", "adam", "replay", "transfer", "evaluation"];

/// The settings of a student in an environment: its preset, with what is given in the preset's place.
///
/// # Errors
/// A setting that there is not, or one with a value of another type; its path begins within the settings.
pub fn student(
    environment: &str,
    seen: Seen,
    mut given: Vec<(String, Json)>,
) -> Result<StudentConfig, JsonError> {
    let algorithm = given.iter_mut().find(|(key, _)| key == "algorithm").and_then(|(_, value)| named(value));
    let preset = preset(environment, seen, algorithm.and_then(|name| algorithms::find(&name)));
    let preset = match setting(&given, "steps") {
        Some(steps) => preset.for_steps(steps),
        None => preset,
    };
    over(&preset.student, given)
}

/// The settings of a run in an environment that are not its preset's and change nothing; `taught` if it has teachers.
pub fn unused(environment: &str, seen: Seen, student: &StudentConfig, taught: bool) -> Vec<&'static str> {
    let preset = preset(environment, seen, Some(student.algorithm.algorithm()));
    student.unused(&preset.for_steps(student.steps).student, taught)
}

/// A configuration with settings that were given in the place of its own.
///
/// # Errors
/// As [`student`].
pub(crate) fn over(config: &StudentConfig, given: Vec<(String, Json)>) -> Result<StudentConfig, JsonError> {
    let mut settings = oto_json::parse(&oto_json::write(config))?;
    given.into_iter().for_each(|(key, value)| put(&mut settings, key, value));
    oto_json::from_tree(&settings)
}

/// The algorithm that settings name. A name alone becomes settings that have only a name.
fn named(algorithm: &mut Json) -> Option<String> {
    if let Json::Text(name) = algorithm {
        *algorithm = Json::Object(vec![("name".into(), Json::Text(name.clone()))]);
    }
    match algorithm.get("name") {
        Some(Json::Text(name)) => Some(name.clone()),
        _ => None,
    }
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
    use oto_rl::algorithms::qrdqn::QrDqnConfig;

    fn read(json: &str) -> Result<StudentConfig, JsonError> {
        let Json::Object(given) = oto_json::parse(json).unwrap() else { unreachable!("an object") };
        student("", Seen::default(), given)
    }

    fn qrdqn(config: &StudentConfig) -> &QrDqnConfig {
        config.algorithm.of().unwrap()
    }

    #[test]
    fn what_is_left_out_is_the_presets() {
        let usual = preset("", Seen::default(), None).student;
        assert_eq!(read("{}").unwrap(), usual);
        let given = read(r#"{"steps": 1000, "algorithm": {"hidden": [7], "adam": {"beta1": 0.5}}}"#).unwrap();
        let (given, usual_network) = (given, qrdqn(&usual));
        assert_eq!((&qrdqn(&given).hidden[..], qrdqn(&given).quantiles), (&[7][..], usual_network.quantiles));
        assert_eq!((qrdqn(&given).adam.beta1, qrdqn(&given).adam.beta2), (0.5, usual_network.adam.beta2));
        assert_eq!(given.epsilon, preset("", Seen::default(), None).for_steps(1000).student.epsilon);
        for ppo in [r#"{"algorithm": "ppo"}"#, r#"{"algorithm": {"name": "ppo"}}"#] {
            assert_eq!(read(ppo).unwrap(), preset("", Seen::default(), algorithms::find("ppo")).student);
        }
    }

    #[test]
    fn what_is_the_presets_is_not_unused() {
        let found = |json: &str, taught| unused("", Seen::default(), &read(json).unwrap(), taught);
        for preset in ["{}", r#"{"steps": 1000}"#, r#"{"algorithm": "ppo"}"#, r#"{"algorithm": "sac"}"#] {
            assert_eq!(found(preset, false), [""; 0], "{preset}");
        }
        let given = r#"{"algorithm": "ppo", "steps": 1000, "updates": 3, "transfer": {"eta": 2}}"#;
        assert_eq!(found(given, true), ["updates"]);
        assert_eq!(found(given, false), ["updates", "transfer"]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (json, path) in [
            (r#"{"gamma": "high"}"#, "gamma"),
            (r#"{"steps": "many"}"#, "steps"),
            (r#"{"algorithm": "dqn"}"#, "algorithm.name"),
            (r#"{"algorithm": {"name": "dqn"}}"#, "algorithm.name"),
            (r#"{"algorithm": {"name": 3}}"#, "algorithm.name"),
            (r#"{"algorithm": [3]}"#, "algorithm"),
            (r#"{"algorithm": {"hidden": [64, -1]}}"#, "algorithm.hidden[1]"),
            (r#"{"algorithm": {"name": "sac", "quantiles": 3}}"#, "algorithm.quantiles"),
            (r#"{"algorithm": "qrdqn", "qrdqn": {"hidden": [64]}}"#, "qrdqn"),
        ] {
            assert_eq!(read(json).unwrap_err().path, path, "{json}");
        }
    }
}

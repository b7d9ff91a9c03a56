//! Settings that a page or a host gives as JSON, laid over the preset of their environment and algorithm.

use crate::config::StudentConfig;
use crate::origin::Origin;
use crate::presets::{Seen, preset};
use oto_json::{FromJson, Json, JsonError};
use oto_rl::algorithms;

/// Groups of settings: a setting that is left out of one has the preset's value too.
const GROUPS: [&str; 5] = ["algorithm", "adam", "replay", "transfer", "evaluation"];

/// The settings of a student in an environment: its preset, with what is given in the preset's place. The settings of a run that it
/// begins with are between the two.
///
/// # Errors
/// A setting that there is not, or one with a value of another type; its path begins within the settings.
pub fn student(
    environment: &str,
    seen: Seen,
    mut given: Vec<(String, Json)>,
    origin: Option<&Origin>,
) -> Result<StudentConfig, JsonError> {
    let algorithm = given.iter_mut().find(|(key, _)| key == "algorithm").and_then(|(_, value)| named(value));
    let continued = || origin.and_then(|origin| origin.algorithm(|one| one.online(), seen));
    let algorithm = algorithm.and_then(|name| algorithms::find(&name)).or_else(continued);
    let preset = preset(environment, seen, algorithm);
    let preset = match setting(&given, "steps") {
        Some(steps) => preset.for_steps(steps),
        None => preset,
    };
    over(&begun(&preset.student, origin), given)
}

/// The settings of a run in an environment that are not its preset's (or those of the run that it begins with) and change nothing; `taught` if it has teachers.
pub fn unused(
    environment: &str,
    seen: Seen,
    student: &StudentConfig,
    origin: Option<&Origin>,
    taught: bool,
) -> Vec<&'static str> {
    let preset = preset(environment, seen, Some(student.algorithm.algorithm())).for_steps(student.steps);
    student.unused(&begun(&preset.student, origin), taught)
}

/// The preset, or the settings of a run that the student begins with over it.
fn begun(preset: &StudentConfig, origin: Option<&Origin>) -> StudentConfig {
    origin.map_or_else(|| preset.clone(), |origin| origin.student(preset))
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
        student("", Seen::default(), given, None)
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
        let found = |json: &str, taught| unused("", Seen::default(), &read(json).unwrap(), None, taught);
        for preset in ["{}", r#"{"steps": 1000}"#, r#"{"algorithm": "ppo"}"#, r#"{"algorithm": "sac"}"#] {
            assert_eq!(found(preset, false), [""; 0], "{preset}");
        }
        let given = r#"{"algorithm": "ppo", "steps": 1000, "updates": 3, "transfer": {"eta": 2}}"#;
        assert_eq!(found(given, true), ["updates"]);
        assert_eq!(found(given, false), ["updates", "transfer"]);
    }

    #[test]
    fn the_run_that_a_student_begins_with_is_between_preset_and_given() {
        let usual = preset("", Seen::default(), None).student;
        let mut config = usual.clone();
        config.algorithm =
            config.algorithm.with(|q: &mut QrDqnConfig| (q.hidden, q.quantiles) = (vec![9], 5));
        config.gamma = 0.5;
        let run = oto_json::object_tree(|out| {
            out.field("source", "environment");
            ["steps", "started", "updates"].iter().for_each(|count| out.field(count, &0u64));
            out.field("action_space", &oto_env::Space::Discrete { n: 2 });
            out.field("config", &config);
        });
        let origin: Origin = oto_json::from_tree(&run).unwrap();
        let read = |json: &str| {
            let Json::Object(given) = oto_json::parse(json).unwrap() else { unreachable!("an object") };
            student("", Seen::default(), given, Some(&origin)).unwrap()
        };
        let begun = read(r#"{"algorithm": {"quantiles": 7}}"#);
        assert_eq!((&qrdqn(&begun).hidden[..], qrdqn(&begun).quantiles, begun.gamma), (&[9][..], 7, 0.5));
        let other = read(r#"{"algorithm": "ppo", "n_step": 1}"#);
        assert_eq!((other.algorithm.name(), other.gamma), ("ppo", 0.5));
        assert_eq!(other.steps, preset("", Seen::default(), algorithms::find("ppo")).student.steps);
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

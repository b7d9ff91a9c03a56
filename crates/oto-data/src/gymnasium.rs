//! Gymnasium's spaces and environment specifications as JSON, as Minari keeps them.
//!
//! Sources: Minari's `minari/serialization.py`; Gymnasium's `gymnasium/envs/registration.py` (`EnvSpec.to_json`) and
//! `gymnasium/envs/__init__.py` (entry points).

use crate::DataError;
use oto_env::Space;
use serde_json::{Value, json};

/// A space, and the number of a discrete space's first choice.
pub(crate) struct Numbered {
    pub space: Space,
    pub start: f64,
}

/// Where Gymnasium has the environments that are built in here too.
const ENTRY_POINTS: &[(&str, &str)] = &[
    ("CartPole-v0", "gymnasium.envs.classic_control.cartpole:CartPoleEnv"),
    ("CartPole-v1", "gymnasium.envs.classic_control.cartpole:CartPoleEnv"),
    ("MountainCar-v0", "gymnasium.envs.classic_control.mountain_car:MountainCarEnv"),
    (
        "MountainCarContinuous-v0",
        "gymnasium.envs.classic_control.continuous_mountain_car:Continuous_MountainCarEnv",
    ),
    ("Acrobot-v1", "gymnasium.envs.classic_control.acrobot:AcrobotEnv"),
    ("Pendulum-v1", "gymnasium.envs.classic_control.pendulum:PendulumEnv"),
    ("InvertedPendulum-v5", "gymnasium.envs.mujoco.inverted_pendulum_v5:InvertedPendulumEnv"),
];

/// Python's JSON, which has `Infinity`, `-Infinity` and `NaN`; here they become strings of these names.
pub(crate) fn parse(text: &str) -> Result<Value, DataError> {
    serde_json::from_str(&quoted(text)).map_err(|error| DataError::Metadata(error.to_string()))
}

/// Puts quotes around Python's names for numbers that JSON does not have, outside of strings.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut inside) = (text, false);
    'text: while let Some(next) = rest.chars().next() {
        if !inside {
            for name in ["-Infinity", "Infinity", "NaN"] {
                if let Some(after) = rest.strip_prefix(name) {
                    out.extend(["\"", name, "\""]);
                    rest = after;
                    continue 'text;
                }
            }
        }
        let escaped = inside && next == '\\';
        inside ^= next == '"';
        let end = rest.chars().take(1 + usize::from(escaped)).map(char::len_utf8).sum();
        out.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    out
}

/// Reads a space: a box of any shape becomes a vector in row-major order.
pub(crate) fn read_space(what: &str, text: &str) -> Result<Numbered, DataError> {
    let json = parse(text)?;
    let kind = json["type"].as_str().unwrap_or("without a type");
    match kind {
        "Discrete" => {
            let n = json["n"].as_u64().and_then(|n| u32::try_from(n).ok());
            let n = n.ok_or_else(|| {
                DataError::Metadata(format!("{what}: expected how many choices, got {}", json["n"]))
            })?;
            Ok(Numbered { space: Space::Discrete { n }, start: json["start"].as_f64().unwrap_or(0.0) })
        }
        "Box" => {
            let (mut low, mut high) = (Vec::new(), Vec::new());
            bounds(what, &json["low"], &mut low)?;
            bounds(what, &json["high"], &mut high)?;
            Ok(Numbered { space: Space::Box { low, high }, start: 0.0 })
        }
        "Dict" | "Tuple" => Err(DataError::Unsupported(format!(
            "the {what} space is a {kind} of several; flatten it first, as gymnasium.wrappers.FlattenObservation does"
        ))),
        _ => Err(DataError::Unsupported(format!(
            "expected a Box or Discrete {what} space, got {}",
            kind.chars().take(40).collect::<String>()
        ))),
    }
}

fn bounds(what: &str, json: &Value, out: &mut Vec<f32>) -> Result<(), DataError> {
    let bound = match json {
        Value::Array(items) => return items.iter().try_for_each(|item| bounds(what, item, out)),
        Value::Number(number) => number.as_f64(),
        Value::String(name) => name.parse().ok(),
        _ => None,
    };
    match bound {
        Some(bound) => {
            out.push(bound as f32);
            Ok(())
        }
        None => Err(DataError::Metadata(format!("{what}: expected bounds of a box, got {json}"))),
    }
}

/// Writes a space as `minari.serialization.serialize_space` does, a box with this type of number.
pub(crate) fn write_space(space: &Space, dtype: &str) -> String {
    match space {
        Space::Discrete { n } => format!(r#"{{"type": "Discrete", "dtype": "int64", "start": 0, "n": {n}}}"#),
        Space::Box { low, high } => format!(
            r#"{{"type": "Box", "dtype": "{dtype}", "shape": [{}], "low": {}, "high": {}}}"#,
            low.len(),
            numbers(low),
            numbers(high)
        ),
    }
}

fn numbers(bounds: &[f32]) -> String {
    let number = |&bound: &f32| match bound {
        f32::INFINITY => "Infinity".into(),
        f32::NEG_INFINITY => "-Infinity".into(),
        bound => format!("{:?}", f64::from(bound)),
    };
    format!("[{}]", bounds.iter().map(number).collect::<Vec<String>>().join(", "))
}

/// The environment's specification, where Gymnasium would take its id: `gymnasium.make` finds the environments that
/// Gymnasium has, the others keep their name.
pub(crate) fn write_env_spec(id: &str) -> Option<String> {
    let (name, version) = id.rsplit_once("-v")?;
    let fine = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let (namespace, name) = name.split_once('/').unwrap_or(("none", name));
    if !fine(namespace, "_:-") || !fine(name, "_:.-") || !fine(version, "") || version.parse::<u32>().is_err()
    {
        return None;
    }
    let entry_point = ENTRY_POINTS.iter().find(|(known, _)| *known == id).map(|(_, entry_point)| entry_point);
    let limit = oto_env::make(id).ok().and_then(|environment| environment.max_episode_steps());
    let spec = json!({
        "id": id,
        "entry_point": entry_point,
        "max_episode_steps": limit,
        "kwargs": {},
        "additional_wrappers": [],
    });
    Some(spec.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_numbers_are_quoted_outside_of_strings_only() {
        let text = r#"{"a": [-Infinity, Infinity, NaN], "b": "Infinity \" NaN", "c\\": Infinity}"#;
        let json = parse(text).unwrap();
        assert_eq!(json["a"], json!(["-Infinity", "Infinity", "NaN"]));
        assert_eq!(json["b"], "Infinity \" NaN");
        assert_eq!(json["c\\"], "Infinity");
        assert!(parse(r#"{"a": "b\"#).is_err() && parse("").is_err());
    }

    #[test]
    fn spaces_come_back_as_they_were_written() {
        let spaces = [
            Space::Discrete { n: 7 },
            Space::Box {
                low: vec![f32::NEG_INFINITY, -0.1, 1e-30],
                high: vec![f32::INFINITY, 0.1, f32::MAX],
            },
        ];
        for space in spaces {
            let read = read_space("action", &write_space(&space, "float32")).unwrap();
            assert_eq!((read.space, read.start), (space, 0.0));
        }
    }

    #[test]
    fn a_box_of_any_shape_is_a_vector() {
        let text = r#"{"type": "Box", "dtype": "uint8", "shape": [2, 2], "low": [[0, 0], [0, 0]], "high": [[255, 1], [2, 3]]}"#;
        let Numbered { space, .. } = read_space("observation", text).unwrap();
        assert_eq!(space, Space::Box { low: vec![0.0; 4], high: vec![255.0, 1.0, 2.0, 3.0] });
        let shifted =
            read_space("action", r#"{"type": "Discrete", "dtype": "int64", "start": -1, "n": 3}"#).unwrap();
        assert_eq!((shifted.space, shifted.start), (Space::Discrete { n: 3 }, -1.0));
    }

    #[test]
    fn other_spaces_are_refused_with_a_sentence() {
        let refusal = |text| read_space("observation", text).err().unwrap().to_string();
        assert!(refusal(r#"{"type": "Dict", "subspaces": {}}"#).contains("flatten it first"));
        assert!(refusal(r#"{"type": "MultiBinary", "n": 3}"#).contains("got MultiBinary"));
        assert!(refusal(r#"{"type": "Discrete", "n": -1}"#).contains("how many choices"));
        assert!(refusal(r#"{"type": "Box", "low": {"a": 1}, "high": 1}"#).contains("bounds"));
        assert!(refusal("[]").contains("without a type"));
    }

    #[test]
    fn only_ids_that_gymnasium_takes_have_a_specification() {
        assert!(write_env_spec("CartPole-v1").unwrap().contains(r#""max_episode_steps":500"#));
        assert!(write_env_spec("MobileCell-5G-v0").unwrap().contains(r#""entry_point":null"#));
        for id in ["CartPole", "a b-v0", "-v1", "x-v", "x-v-1"] {
            assert_eq!(write_env_spec(id), None, "{id}");
        }
    }
}

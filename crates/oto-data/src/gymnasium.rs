//! Gymnasium's spaces and environment specifications as JSON, as Minari keeps them.
//!
//! Sources: Minari's `minari/serialization.py`; Gymnasium's `gymnasium/envs/registration.py` (`EnvSpec.to_json`) and
//! `gymnasium/envs/__init__.py` (entry points).

use crate::DataError;
use oto_env::{MAX_DEPTH, Space, SpaceError, SpaceTree};
use serde_json::{Value, json};

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

/// Reads a space as `minari.serialization.serialize_space` writes it.
pub(crate) fn read_space(what: &'static str, text: &str) -> Result<SpaceTree, DataError> {
    let tree = space(what, &parse(text)?, 0)?;
    tree.validate().map_err(|source| DataError::Space { what, source })?;
    Ok(tree)
}

fn space(what: &'static str, json: &Value, depth: usize) -> Result<SpaceTree, DataError> {
    if depth > MAX_DEPTH {
        return Err(DataError::Space { what, source: SpaceError::Parts });
    }
    let kind = json["type"].as_str().unwrap_or("without a type");
    let choices = |json: &Value| json.as_u64().and_then(|n| u32::try_from(n).ok());
    let counted =
        |expected: &str, got: &Value| DataError::Metadata(format!("{what}: expected {expected}, got {got}"));
    let part = |json: &Value| space(what, json, depth + 1);
    match kind {
        "Discrete" => {
            let n = choices(&json["n"]).ok_or_else(|| counted("how many choices", &json["n"]))?;
            Ok(SpaceTree::Discrete { n, start: json["start"].as_i64().unwrap_or(0) })
        }
        "MultiDiscrete" => {
            let nvec = whole(&json["nvec"]).ok_or_else(|| counted("how many choices", &json["nvec"]))?;
            let start = match &json["start"] {
                Value::Null => vec![0; nvec.len()],
                start => whole(start).ok_or_else(|| counted("first choices", start))?,
            };
            let nvec = nvec.into_iter().map(|n| u32::try_from(n).unwrap_or(0)).collect();
            Ok(SpaceTree::MultiDiscrete { nvec, start })
        }
        "MultiBinary" => {
            let sides = whole(&json["n"]).ok_or_else(|| counted("how many components", &json["n"]))?;
            let n = sides.iter().try_fold(1u32, |n, side| n.checked_mul(u32::try_from(*side).ok()?));
            Ok(SpaceTree::MultiBinary { n: n.unwrap_or(u32::MAX) })
        }
        "Box" => {
            let (mut low, mut high) = (Vec::new(), Vec::new());
            bounds(what, &json["low"], &mut low)?;
            bounds(what, &json["high"], &mut high)?;
            Ok(SpaceTree::Box { low, high })
        }
        "Dict" => {
            let Some(parts) = json["subspaces"].as_object() else {
                return Err(counted("spaces with names", &json["subspaces"]));
            };
            let mut parts: Vec<(String, SpaceTree)> = parts
                .iter()
                .map(|(name, json)| Ok((name.clone(), part(json)?)))
                .collect::<Result<_, DataError>>()?;
            // As Gymnasium makes a dictionary of them.
            parts.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(SpaceTree::Dict(parts))
        }
        "Tuple" => match json["subspaces"].as_array() {
            Some(parts) => Ok(SpaceTree::Tuple(parts.iter().map(part).collect::<Result<_, _>>()?)),
            None => Err(counted("spaces", &json["subspaces"])),
        },
        _ => Err(DataError::Unsupported(format!(
            "expected a {what} space of numbers, got {}",
            kind.chars().take(40).collect::<String>()
        ))),
    }
}

/// Images whose channels come last: how many images, pixels in each, channels. `gymnasium_bridge.py` has the same rule, because a
/// dataset and its environment have to show the same rows: an image is a box from 0 to 255 of bytes, or one of three axes from 0 to 255
/// or of real numbers from 0 to 1; the channels are the shortest axis.
pub(crate) fn channels_last(text: &str) -> Option<[usize; 3]> {
    let json = parse(text).ok()?;
    let SpaceTree::Box { low, high } = space("observation", &json, 0).ok()? else { return None };
    let sides: Vec<usize> =
        whole(&json["shape"])?.into_iter().map(usize::try_from).collect::<Result<_, _>>().ok()?;
    let dtype = json["dtype"].as_str()?;
    let all = |bounds: &[f32], bound: f32| bounds.iter().all(|x| *x == bound);
    let real = dtype.starts_with("float");
    let image = dtype == "uint8" && all(&high, 255.0)
        || sides.len() == 3 && (dtype != "bool" && all(&high, 255.0) || real && all(&high, 1.0));
    let [stacked @ .., height, width, channels] = &sides[..] else { return None };
    let images = stacked.iter().try_fold(1usize, |images, side| images.checked_mul(*side))?;
    let pixels = height.checked_mul(*width)?;
    let fits = images.checked_mul(pixels).and_then(|n| n.checked_mul(*channels)) == Some(low.len());
    (image && fits && all(&low, 0.0) && channels < height.min(width)).then_some([images, pixels, *channels])
}

/// Whether Minari may keep such images as JPEG files: bytes of two or three axes, the first two of 32 numbers or more.
pub(crate) fn may_be_jpeg(text: &str) -> bool {
    let Ok(json) = parse(text) else { return false };
    let sides = whole(&json["shape"]).unwrap_or_default();
    json["dtype"] == "uint8" && (2..=3).contains(&sides.len()) && sides[..2].iter().all(|side| *side >= 32)
}

/// A whole number, or lists of them, one after the other.
fn whole(json: &Value) -> Option<Vec<i64>> {
    match json {
        Value::Array(items) => {
            items.iter().map(whole).collect::<Option<Vec<_>>>().map(|lists| lists.concat())
        }
        number => number.as_i64().map(|number| vec![number]),
    }
}

fn bounds(what: &str, json: &Value, out: &mut Vec<f32>) -> Result<(), DataError> {
    let bound = match json {
        Value::Array(items) => return items.iter().try_for_each(|item| bounds(what, item, out)),
        Value::Number(number) => number.as_f64(),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
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

/// Writes a space as `minari.serialization.serialize_space` does: a box with this type of number, choices with this first one.
pub(crate) fn write_space(space: &Space, dtype: &str, start: i64) -> String {
    match space {
        Space::Discrete { n } => {
            format!(r#"{{"type": "Discrete", "dtype": "int64", "start": {start}, "n": {n}}}"#)
        }
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
    // Where an environment runs is not Gymnasium's business.
    let id = id.strip_prefix("gym:").or(id.strip_prefix("mujoco:")).unwrap_or(id);
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
        let bounds = (vec![f32::NEG_INFINITY, -0.1, 1e-30], vec![f32::INFINITY, 0.1, f32::MAX]);
        let space = Space::Box { low: bounds.0, high: bounds.1 };
        assert_eq!(read_space("action", &write_space(&space, "float32", 0)).unwrap(), space.into());
        let written = write_space(&Space::Discrete { n: 7 }, "float32", -2);
        assert_eq!(read_space("action", &written).unwrap(), SpaceTree::Discrete { n: 7, start: -2 });
    }

    #[test]
    fn spaces_of_any_shape_and_of_several_parts_are_read() {
        let read = |text| read_space("observation", text).unwrap();
        let text = r#"{"type": "Box", "dtype": "uint8", "shape": [2, 2], "low": [[0, 0], [0, 0]], "high": [[255, 1], [2, 3]]}"#;
        let (low, high) = (vec![0.0; 4], vec![255.0, 1.0, 2.0, 3.0]);
        assert_eq!(read(text), SpaceTree::Box { low, high });
        let text =
            r#"{"type": "Box", "dtype": "bool", "shape": [2], "low": [false, false], "high": [true, true]}"#;
        assert_eq!(read(text), SpaceTree::Box { low: vec![0.0; 2], high: vec![1.0; 2] });
        let text = r#"{"type": "Dict", "subspaces": {"b": {"type": "MultiBinary", "n": [2, 3]}, "a":
            {"type": "Tuple", "subspaces": [{"type": "MultiDiscrete", "dtype": "int64", "nvec": [[2], [3]], "start": [[0], [-1]]}]}}}"#;
        let several = SpaceTree::MultiDiscrete { nvec: vec![2, 3], start: vec![0, -1] };
        let parts = [("a", SpaceTree::Tuple(vec![several])), ("b", SpaceTree::MultiBinary { n: 6 })];
        assert_eq!(read(text), SpaceTree::Dict(parts.map(|(name, part)| (name.into(), part)).into()));
    }

    #[test]
    fn images_with_their_channels_last_are_known() {
        let space = |dtype: &str, shape: &[usize], high: f32| {
            let size = shape.iter().product();
            let [low, high] = [0.0, high].map(|bound| numbers(&vec![bound; size]));
            channels_last(&format!(
                r#"{{"type": "Box", "dtype": "{dtype}", "shape": {shape:?}, "low": {low}, "high": {high}}}"#
            ))
        };
        assert_eq!(space("uint8", &[4, 5, 3], 255.0), Some([1, 20, 3]));
        assert_eq!(space("uint8", &[2, 4, 5, 3], 255.0), Some([2, 20, 3]));
        assert_eq!(space("float32", &[4, 5, 3], 1.0), Some([1, 20, 3]));
        assert_eq!(space("float32", &[4, 5, 3], 255.0), Some([1, 20, 3]));
        for (dtype, shape, high) in [
            ("uint8", &[3, 4, 5][..], 255.0),
            ("uint8", &[4, 5], 255.0),
            ("uint8", &[4, 5, 3], 9.0),
            ("uint8", &[4, 5, 3], 1.0),
            ("float32", &[2, 4, 5, 3], 1.0),
            ("float32", &[4, 5, 3], 2.0),
        ] {
            assert_eq!(space(dtype, shape, high), None, "{dtype} {shape:?} {high}");
        }
    }

    #[test]
    fn other_spaces_are_refused_with_a_sentence() {
        let refusal = |text| read_space("observation", text).err().unwrap().to_string();
        assert!(refusal(r#"{"type": "Text", "max_length": 3}"#).contains("got Text"));
        assert!(refusal(r#"{"type": "Dict", "subspaces": []}"#).contains("spaces with names"));
        assert!(refusal(r#"{"type": "MultiBinary", "n": -3}"#).contains("components"));
        assert!(refusal(r#"{"type": "MultiDiscrete", "nvec": [-3]}"#).contains("choices"));
        assert!(refusal(r#"{"type": "Discrete", "n": -1}"#).contains("how many choices"));
        assert!(refusal(r#"{"type": "Box", "low": {"a": 1}, "high": 1}"#).contains("bounds"));
        assert!(refusal("[]").contains("without a type"));
        let deep = (0..100).fold(r#"{"type": "MultiBinary", "n": 1}"#.to_owned(), |inner, _| {
            format!(r#"{{"type": "Tuple", "subspaces": [{inner}]}}"#)
        });
        assert!(read_space("observation", &deep).is_err());
    }

    #[test]
    fn only_ids_that_gymnasium_takes_have_a_specification() {
        assert!(write_env_spec("CartPole-v1").unwrap().contains(r#""max_episode_steps":500"#));
        assert!(write_env_spec("MobileCell-5G-v0").unwrap().contains(r#""entry_point":null"#));
        assert_eq!(write_env_spec("gym:CartPole-v1"), write_env_spec("CartPole-v1"));
        for id in ["CartPole", "a b-v0", "-v1", "x-v", "x-v-1"] {
            assert_eq!(write_env_spec(id), None, "{id}");
        }
    }
}

//! JSON schemas: what configurations may hold, for the files and types that are generated from it.

use crate::config::StudentConfig;
use oto_rl::checks::Checks;
use schemars::JsonSchema;

/// A number's place in a configuration, and its least and greatest value.
pub type Range = (String, f64, f64);

/// The ranges that a student's settings are checked against. Those of its algorithm are in the algorithm's schema.
pub fn ranges() -> Vec<Range> {
    let mut checks = Checks::default();
    let student = StudentConfig { plateau_decay: Some(EVERY), ..StudentConfig::default() };
    student.check(&mut checks);
    checks.ranges.into_iter().filter(|(path, ..)| !path.starts_with("algorithm.")).collect()
}

/// A group that a student may be without.
const EVERY: crate::config::PlateauDecay =
    crate::config::PlateauDecay { at_return: 0.0, factor: 1.0, floor: 0.0, setbacks: 0 };

/// How spaces are mapped: the protocol's own structure, described in crates/oto-proto/schema/oto.v1.json.
#[derive(JsonSchema)]
#[schemars(transform = any_object)]
pub(crate) struct Adapter {}

/// The teacher's own spaces, in place of an adapter: the student learns it. Spaces are described in
/// crates/oto-proto/schema/oto.v1.json.
#[derive(JsonSchema)]
#[allow(dead_code)]
pub(crate) struct TeacherSpaces {
    #[schemars(transform = any_object)]
    observation: Object,
    #[schemars(transform = any_object)]
    action: Object,
}

/// A space.
#[derive(JsonSchema)]
#[schemars(inline, transform = any_object)]
struct Object {}

fn any_object(schema: &mut schemars::Schema) {
    schema.insert("type".into(), "object".into());
}

/// How states travel.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[allow(dead_code)]
pub(crate) enum Dtype {
    F32,
    F16,
    U8,
}

/// What the bytes of u8 states mean: byte * scale + offset.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code)]
pub(crate) struct Quantization {
    scale: Vec<f64>,
    offset: Vec<f64>,
}

pub(crate) fn weight() -> f64 {
    1.0
}

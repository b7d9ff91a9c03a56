//! web/student/src/settings.ts: the options of runs and algorithms as TypeScript, with the defaults of environments without a
//! preset.

use crate::page::of;
use oto_agent::actor::explore::Exploration;
use oto_agent::actor::run::ActorSettings;
use oto_agent::presets;
use oto_rl::algorithms::{self, Algorithm, Seen};
use serde_json::Value;
use std::fmt::Write;

const HEAD: &str = "\
// Generated from the engine's configuration: `OTO_WRITE_DOCS=1 cargo test -p oto-agent --test generated`. Defaults are those in
// an environment of the page's own: the first algorithm's, then those of others by name. Left out, QR-DQN's learning rate and exploration
// take a share of the run.

";

/// Settings of a student that a page has no use for, or has in another form.
const NOT_OPTIONS: [&str; 4] = ["name", "algorithm", "evaluation", "evaluate_between_episodes"];

/// What an algorithm's settings have beside them: its name, and distillation, which no page has.
const NOT_SETTINGS: [&str; 2] = ["name", "distillation"];

/// Samplers that most pages lack, and their settings.
const NOT_SAMPLERS: [&str; 3] = ["whole", "balanced", "forgetting"];
const NOT_REPLAY: [&str; 5] =
    ["own_from", "online_share", "online_reference", "forgetting_rate", "forgetting_epoch"];

/// The file, from a configuration's schema.
pub fn types(root: &Value) -> String {
    let mut file = HEAD.to_string();
    let definitions = root["$defs"].as_object().expect("definitions");
    let student = &definitions["StudentConfig"];
    let listed = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>().join(" | ");
    let online = || algorithms::online().filter(|one| one.in_pages());
    writeln!(file, "/** The names of the algorithms. */").unwrap();
    let names = listed(&mut online().map(|one| format!("'{}'", one.name())));
    writeln!(file, "export type AlgorithmName = {names};\n").unwrap();
    writeln!(file, "/** An algorithm with its settings. */").unwrap();
    let types = listed(&mut online().map(|one| options(root, one)));
    writeln!(file, "export type AlgorithmOptions = {types};\n").unwrap();
    for algorithm in online() {
        let schema = of(root, algorithm.name());
        let about = format!("{} ({}).", algorithm.title(), algorithm.paper());
        let default = |name: &str| default(&[algorithm], &["algorithm", name]);
        let kinds = [false, true].map(|continuous| Seen { continuous, images: None });
        let usual = kinds.iter().any(|kind| algorithms::usual(online(), *kind).name() == algorithm.name());
        let (optional, name) = (if usual { "?" } else { "" }, algorithm.name());
        let tag = format!("  name{optional}: '{name}';\n");
        interface(&mut file, &options(root, algorithm), &about, &tag, schema, &["name"], default);
    }
    let all = online().collect::<Vec<_>>();
    let about = "The settings of a run, whatever its algorithm is.";
    interface(&mut file, "RunOptions", about, "", student, &NOT_OPTIONS, |name| default(&all, &[name]));
    for (name, schema) in definitions {
        let group = group_of(student, name);
        match name.as_str() {
            "StudentConfig" | "TeacherConfig" | "Job" | "Adapter" | "TeacherSpaces" | "Quantization"
            | "Dtype" => {}
            // A page's algorithms have no distillation.
            "Distill"
            | "DistillationConfig"
            | "DistillationTeacher"
            | "DistillationHead"
            | "AlignmentConfig"
            | "AlignmentActivation"
            | "Divergence" => {}
            _ if schema.get("properties").is_some() => {
                let about = schema["description"].as_str().unwrap_or_default();
                let of_group =
                    |field: &str| group.as_deref().and_then(|group| default(&all, &[group, field]));
                interface(&mut file, &named(name), about, "", schema, &NOT_REPLAY, of_group);
            }
            _ => {
                comment(&mut file, "", schema["description"].as_str().unwrap_or_default(), None);
                let without = |all: String, name: &&str| all.replace(&format!(" | '{name}'"), "");
                let kind = NOT_SAMPLERS.iter().fold(kind(schema), without);
                writeln!(file, "export type {} = {};\n", named(name), kind).unwrap();
            }
        }
    }
    file.push_str("/** The settings that there are, for what is refused before a worker is started. */\n");
    file.push_str("export const ALGORITHMS: Record<AlgorithmName, string[]> = {\n");
    for algorithm in online() {
        let keys = keys(of(root, algorithm.name()), &["name"]);
        writeln!(file, "  {}: [{keys}],", algorithm.name()).unwrap();
    }
    file.push_str("};\n");
    for (list, schema, without) in [
        ("RUN", student, &NOT_OPTIONS[..]),
        ("REPLAY", &definitions["ReplayConfig"], &NOT_REPLAY[..]),
        ("TRANSFER", &definitions["TransferConfig"], &[]),
        ("EVALUATION", &definitions["EvaluationConfig"], &[]),
    ] {
        writeln!(file, "export const {list}: string[] = [{}];", keys(schema, without)).unwrap();
    }
    file
}

const ALL_HEAD: &str = "\
// Generated from the engine's configuration: `OTO_WRITE_DOCS=1 cargo test -p oto-agent --test generated`. The algorithms that
// `oto-student/all` has beside those of every page.

";

/// The file of the other algorithms. A page has no teachers' logits to distil.
pub fn all(root: &Value) -> String {
    let mut file = String::new();
    let others = || algorithms::online().filter(|one| !one.in_pages());
    let listed = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>().join(" | ");
    writeln!(file, "/** The names of all algorithms. */").unwrap();
    let names = listed(&mut others().map(|one| format!("'{}'", one.name())));
    writeln!(file, "export type AnyAlgorithmName = AlgorithmName | {names};\n").unwrap();
    writeln!(file, "/** Any algorithm with its settings. */").unwrap();
    let types = listed(&mut others().map(|one| options(root, one)));
    writeln!(file, "export type AnyAlgorithmOptions = AlgorithmOptions | {types};\n").unwrap();
    for algorithm in others() {
        let about = format!("{} ({}).", algorithm.title(), algorithm.paper());
        let default = |name: &str| default(&[algorithm], &["algorithm", name]);
        let tag = format!("  name: '{}';\n", algorithm.name());
        let schema = of(root, algorithm.name());
        interface(&mut file, &options(root, algorithm), &about, &tag, schema, &NOT_SETTINGS, default);
    }
    let samplers = NOT_SAMPLERS.map(|name| format!("'{name}'")).join(" | ");
    writeln!(file, "/** How transitions are chosen. */").unwrap();
    writeln!(file, "export type AnySamplerName = SamplerName | {samplers};\n").unwrap();
    let definitions = root["$defs"].as_object().expect("definitions");
    let replay = &definitions["ReplayConfig"];
    let about = replay["description"].as_str().unwrap_or_default();
    let known = replay["properties"].as_object().expect("settings").keys();
    let known = known.map(String::as_str).filter(|name| !NOT_REPLAY.contains(name)).collect::<Vec<_>>();
    let head = "  /** The choice of transitions for an update. */\n  sampler?: AnySamplerName;\n";
    let of_replay = |name: &str| default(&others().collect::<Vec<_>>()[..1], &["replay", name]);
    let parent = "AnyReplayOptions extends Omit<ReplayOptions, 'sampler'>";
    interface(&mut file, parent, about, head, replay, &known, of_replay);
    writeln!(file, "export const ALL_ALGORITHMS: Record<AnyAlgorithmName, string[]> = {{\n  ...ALGORITHMS,")
        .unwrap();
    for algorithm in others() {
        let keys = keys(of(root, algorithm.name()), &NOT_SETTINGS);
        writeln!(file, "  '{}': [{keys}],", algorithm.name()).unwrap();
    }
    writeln!(file, "}};\nexport const ALL_REPLAY: string[] = [{}];", keys(replay, &[])).unwrap();
    let words = file.split(|c: char| !c.is_alphanumeric()).collect::<std::collections::BTreeSet<_>>();
    let own = ["AlgorithmName", "AlgorithmOptions", "ReplayOptions", "SamplerName"].map(String::from);
    let groups = definitions.keys().map(|name| named(name)).filter(|name| words.contains(name.as_str()));
    let types = groups.chain(own).collect::<std::collections::BTreeSet<_>>();
    let types = types.into_iter().collect::<Vec<_>>().join(", ");
    format!(
        "{ALL_HEAD}import {{ ALGORITHMS, type {} }} from './settings.js';\n\n{file}",
        types.replace(", ", ", type ")
    )
}

const ACTOR_HEAD: &str = "\
// Generated from the engine's configuration: `OTO_WRITE_DOCS=1 cargo test -p oto-agent --test generated`.

import type { Schedule } from './settings.js';

";

/// The settings and the metrics of an actor, from the schema of both.
pub fn actor(root: &Value) -> String {
    let mut file = ACTOR_HEAD.to_string();
    let usual = serde_json::to_value(ActorSettings::default()).expect("settings are JSON");
    let none = serde_json::to_value(Exploration::default()).expect("settings are JSON");
    for (name, defaults) in [("ActorSettings", Some(usual)), ("Exploration", Some(none))] {
        let default = |key: &str| {
            let value = defaults.as_ref()?.get(key).filter(|value| !value.is_null())?;
            Some(shown(value))
        };
        let schema = &root["$defs"][name];
        let about = schema["description"].as_str().unwrap_or_default();
        interface(&mut file, name, about, "", schema, &[], default);
    }
    for name in ["ActorMetrics", "JitterTimes", "Staleness", "ActorStats"] {
        // All of a report is there, or null.
        let mut schema = root["$defs"][name].clone();
        let all = schema["properties"].as_object().expect("metrics").keys().cloned().collect::<Vec<_>>();
        schema["required"] = serde_json::json!(all);
        let about = schema["description"].as_str().unwrap_or_default().to_string();
        interface(&mut file, name, &about, "", &schema, &[], |_| None);
    }
    file.push_str("/** The settings that there are, for what is refused before a worker is started. */\n");
    let keys = keys(&root["$defs"]["ActorSettings"], &[]);
    writeln!(file, "export const ACTOR: string[] = [{keys}];").unwrap();
    file
}

/// The name of an algorithm's type: that of its settings in Rust.
fn options(root: &Value, algorithm: &dyn Algorithm) -> String {
    named(of(root, algorithm.name())["title"].as_str().expect("a title"))
}

/// A type's name in TypeScript.
fn named(name: &str) -> String {
    match name {
        "Linear" => "Schedule".into(),
        "Ending" => "StageEnd".into(),
        "StagesConfig" => "Stages".into(),
        _ => name.replace("Config", "Options"),
    }
}

/// The setting of a student that is a group of this type, if its defaults are a preset's.
fn group_of(student: &Value, name: &str) -> Option<String> {
    let refers = |property: &Value| property["$ref"] == format!("#/$defs/{name}");
    let properties = student["properties"].as_object()?;
    let (group, _) = properties.iter().find(|(_, property)| refers(property))?;
    (name != "StagesConfig" && name != "Linear").then(|| group.clone())
}

fn keys(schema: &Value, without: &[&str]) -> String {
    let properties = schema["properties"].as_object().expect("settings");
    let names = properties.keys().filter(|name| !without.contains(&name.as_str()));
    names.map(|name| format!("'{}'", camel(name))).collect::<Vec<_>>().join(", ")
}

fn interface(
    file: &mut String,
    name: &str,
    about: &str,
    first: &str,
    schema: &Value,
    without: &[&str],
    default: impl Fn(&str) -> Option<String>,
) {
    comment(file, "", about, None);
    writeln!(file, "export interface {name} {{\n{first}").unwrap();
    file.truncate(file.trim_end_matches('\n').len() + 1);
    let required = |key: &str| {
        schema.get("required").and_then(Value::as_array).is_some_and(|all| all.iter().any(|one| one == key))
    };
    for (key, property) in schema["properties"].as_object().expect("settings") {
        if without.contains(&key.as_str()) {
            continue;
        }
        let about = property["description"].as_str().unwrap_or_default();
        comment(file, "  ", about, default(key));
        let optional = if required(key) { "" } else { "?" };
        writeln!(file, "  {}{optional}: {};", camel(key), kind(property)).unwrap();
    }
    file.push_str("}\n\n");
}

/// A comment in a page's spelling, with a default.
fn comment(file: &mut String, indent: &str, about: &str, default: Option<String>) {
    let mut parts = about.split('`').enumerate();
    let spelt =
        parts.by_ref().map(|(i, part)| if i % 2 == 1 { format!("`{}`", camel(part)) } else { part.into() });
    let mut text = spelt.collect::<String>();
    if let Some(default) = default {
        write!(text, " Default: {default}.").unwrap();
    }
    writeln!(file, "{indent}/** {} */", text.trim()).unwrap();
}

/// A schema's type.
fn kind(schema: &Value) -> String {
    let union = |all: &Vec<Value>| {
        let kinds = all.iter().map(kind).collect::<Vec<_>>();
        kinds.join(" | ")
    };
    let quoted = |value: &Value| format!("'{}'", value.as_str().unwrap_or_default());
    if let Some(to) = schema.get("$ref").and_then(Value::as_str) {
        return named(to.rsplit('/').next().unwrap_or_default());
    }
    if let Some(value) = schema.get("const") {
        return quoted(value);
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values.iter().map(quoted).collect::<Vec<_>>().join(" | ");
    }
    if let Some(all) = schema.get("anyOf").or(schema.get("oneOf")).and_then(Value::as_array) {
        return union(all);
    }
    match &schema["type"] {
        Value::Array(kinds) => {
            let one = |kind_name: &Value| {
                let mut one = schema.clone();
                one["type"] = kind_name.clone();
                kind(&one)
            };
            kinds.iter().map(one).collect::<Vec<_>>().join(" | ")
        }
        Value::String(name) => match name.as_str() {
            "integer" | "number" => "number".into(),
            "array" => {
                let item = kind(&schema["items"]);
                match (schema.get("minItems"), schema.get("maxItems")) {
                    (Some(Value::Number(n)), Some(m)) if m == &Value::Number(n.clone()) => {
                        format!("[{}]", vec![item; n.as_u64().unwrap_or(0) as usize].join(", "))
                    }
                    _ if item.contains(" | ") => format!("({item})[]"),
                    _ => format!("{item}[]"),
                }
            }
            "object" => {
                let fields = schema["properties"].as_object().into_iter().flatten();
                let fields = fields.map(|(key, one)| format!("{}: {}", camel(key), kind(one)));
                format!("{{ {} }}", fields.collect::<Vec<_>>().join("; "))
            }
            other => other.into(),
        },
        other => panic!("a type was expected, got {other}"),
    }
}

/// The default of a setting under each algorithm, in a page's spelling; groups have none of their own.
fn default(all: &[&'static dyn Algorithm], path: &[&str]) -> Option<String> {
    let values = all.iter().map(|algorithm| {
        let kind = Seen { continuous: !algorithm.accepts(Seen::default()), images: None };
        // The default for numbers stands beside them.
        let continuous = Seen { continuous: true, images: None };
        let usual = algorithms::usual(algorithms::online(), continuous).name() == algorithm.name();
        let student = presets::preset("", if usual { continuous } else { kind }, Some(*algorithm)).student;
        let json = serde_json::to_value(&student).expect("a configuration is JSON");
        let value = json.pointer(&format!("/{}", path.join("/"))).cloned().unwrap_or(Value::Null);
        (algorithm.name(), value)
    });
    let values = values.collect::<Vec<_>>();
    let (_, first) = values.first()?;
    let plain =
        |value: &Value| !value.is_object() || value.get("start").is_some() || path.last() == Some(&"adam");
    if !values.iter().all(|(_, value)| plain(value)) {
        return None;
    }
    let others = values[1..].iter().filter(|(_, value)| value != first);
    let others = others.map(|(name, value)| format!("; {name}: {}", shown(value)));
    Some(format!("{}{}", shown(first), others.collect::<String>()))
}

/// A value as JavaScript.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(fields) if fields.contains_key("start") && fields["start"] == fields["end"] => {
            shown(&fields["start"])
        }
        Value::Object(fields) => {
            let order = ["start", "end", "steps", "beta1", "beta2", "epsilon"];
            let fields = order.iter().filter_map(|key| Some(format!("{key}: {}", shown(fields.get(*key)?))));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::String(text) => format!("'{text}'"),
        Value::Number(number) => number.to_string().trim_end_matches(".0").into(),
        other => other.to_string(),
    }
}

fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |name, part| {
        let mut letters = part.chars();
        letters.next().map_or(name.clone(), |letter| {
            name + &letter.to_uppercase().collect::<String>() + letters.as_str()
        })
    })
}

//! Files that are generated from configurations and from the registry of algorithms: JSON schemas, the page of algorithms, the npm
//! package's types. `OTO_WRITE_DOCS=1 cargo test -p oto-agent --test generated` writes them; without it this test says
//! which are old.

mod page;
mod presets;
mod presets_page;
mod typescript;

use oto_agent::actor::ActorMetrics;
use oto_agent::actor::run::ActorSettings;
use oto_agent::offline::OfflineConfig;
use oto_agent::run::Job;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// What `oto teach` writes into a run folder; its tests hold what is written to the schema.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code)]
struct TeachJob {
    /// The environment's id.
    env: String,
    /// The dataset's path.
    dataset: String,
    /// The settings; one left out has its default when it is read.
    teach: OfflineConfig,
    /// The run whose networks and optimiser it began with.
    from: Option<String>,
}

/// What a page gives an actor, and what it gets from it.
#[derive(JsonSchema)]
#[allow(dead_code)]
struct Actor {
    settings: ActorSettings,
    metrics: ActorMetrics,
}

/// The schema of a run folder's configuration.
fn schema<T: JsonSchema>(title: &str, description: &str) -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    schema.insert("title".into(), title.into());
    schema.insert("description".into(), description.into());
    let mut schema = schema.to_value();
    tidy(&mut schema);
    schema
}

/// Leaves out formats, which say no more than minimum and maximum, and defaults of whole groups; plain text for links.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("format");
            if fields.get("default").is_some_and(Value::is_object) {
                fields.remove("default");
            }
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text =
                    text.replace('\n', " ").replace("[`crate::", "`").replace("[`", "`").replace("`]", "`");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Puts the ranges that a student's settings are checked against into their schema.
fn bound(root: &mut Value) {
    for (path, from, to) in oto_agent::schema::ranges() {
        let mut at = "/$defs/StudentConfig".to_string();
        for part in path.split('.') {
            let property = format!("{at}/properties/{part}");
            let found = root.pointer(&property).unwrap_or_else(|| panic!("{path} is in the schema"));
            let group = found.get("$ref").or_else(|| found.pointer("/anyOf/0/$ref"));
            at = match group.and_then(Value::as_str) {
                Some(group) => group.trim_start_matches('#').into(),
                None => property,
            };
        }
        oto_rl::checks::bound(root.pointer_mut(&at).unwrap(), from, to);
    }
}

#[test]
fn generated_files_are_what_the_code_has() {
    let mut config = schema::<Job>("config.json of a run folder", "Everything that makes a training run.");
    bound(&mut config);
    let description = "Everything that makes a teacher of a dataset.";
    let teach = schema::<TeachJob>("config.json of a run folder of oto teach", description);
    let actor = schema::<Actor>("An actor", "The settings and the metrics of an actor.");
    let pretty = |schema: &Value| format!("{schema:#}\n");
    let files = [
        ("docs/schema/config.schema.json", pretty(&config)),
        ("docs/schema/teach.schema.json", pretty(&teach)),
        ("docs/algorithms.md", page::page(&config, &teach)),
        ("web/student/src/settings.ts", typescript::types(&config)),
        ("web/student/src/settings-all.ts", typescript::all(&config)),
        ("web/student/src/actor-settings.ts", typescript::actor(&actor)),
        ("crates/oto-agent/src/presets/table.rs", presets::table()),
    ];
    let mut old = Vec::new();
    for (name, text) in files {
        let path = Path::new(ROOT).join(name);
        if std::env::var_os("OTO_WRITE_DOCS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        if std::fs::read_to_string(&path).unwrap_or_default() != text {
            old.push(name);
        }
    }
    assert!(old.is_empty(), "{old:?} are not what the code has: write them with OTO_WRITE_DOCS=1");
}

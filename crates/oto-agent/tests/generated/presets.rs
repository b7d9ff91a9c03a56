//! src/presets/table.rs: the presets of configs/ALGORITHM/ENVIRONMENT.toml, whose settings become JSON.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const CONFIGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs");

const HEAD: &str = "\
//! Generated from configs/ALGORITHM/ENVIRONMENT.toml: `OTO_WRITE_DOCS=1 cargo test -p oto-agent --test generated`.

use super::File;

/// The presets of environments.
pub(super) const FILES: &[File] = &[
";

const KEYS: [&str; 5] = ["source", "actions", "decays", "like", "settings"];

/// The file.
pub fn table() -> String {
    let files = files();
    let mut table = HEAD.to_string();
    for ((environment, algorithm), file) in &files {
        let place = format!("configs/{algorithm}/{environment}.toml");
        let unknown = file.keys().find(|key| !KEYS.contains(&key.as_str()));
        assert!(unknown.is_none(), "{place}: unknown key {unknown:?}, expected one of {KEYS:?}");
        let text = |key: &str| file.get(key).and_then(toml::Value::as_str);
        let source = text("source").unwrap_or_else(|| panic!("{place}: source is missing"));
        let continuous = match text("actions") {
            Some("continuous") => true,
            Some("discrete") => false,
            other => panic!("{place}: actions is {other:?}, expected \"discrete\" or \"continuous\""),
        };
        let decays =
            file.get("decays").is_some_and(|decays| decays.as_bool().expect("decays is true or false"));
        let settings = match text("like") {
            Some(other) => &files[&(other.to_string(), algorithm.clone())],
            None => file,
        };
        let settings = settings.get("settings").unwrap_or_else(|| panic!("{place}: settings are missing"));
        let json = serde_json::to_string(settings).expect("TOML without dates is JSON");
        assert!(serde_json::from_str::<Value>(&json).is_ok_and(|json| json.is_object()), "{place}");
        table.push_str("    File {\n");
        writeln!(table, "        environment: {environment:?},\n        algorithm: {algorithm:?},").unwrap();
        writeln!(table, "        continuous: {continuous},\n        decays: {decays},").unwrap();
        writeln!(table, "        source: {source:?},\n        settings: r#\"{json}\"#,\n    }},").unwrap();
    }
    table.push_str("];\n");
    table
}

/// Every file, by environment and algorithm.
fn files() -> BTreeMap<(String, String), toml::Table> {
    let entries = |folder: &Path| {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut files = BTreeMap::new();
    for folder in entries(Path::new(CONFIGS)).iter().filter(|path| path.is_dir()) {
        for file in entries(folder).iter().filter(|path| path.extension().is_some_and(|end| end == "toml")) {
            let text = std::fs::read_to_string(file).unwrap();
            let table = text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            files.insert((name(file), name(folder)), table);
        }
    }
    files
}

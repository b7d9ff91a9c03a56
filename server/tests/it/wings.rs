//! Which wing of the server may use which, as the first lines of `src/lib.rs` say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each wing, and the wings that it may use.
const MAY_USE: [(&str, &[&str]); 6] = [
    ("observe", &[]),
    ("dataset", &[]),
    ("auth", &["observe"]),
    ("net", &["auth", "observe"]),
    ("serve", &["net", "auth", "observe", "dataset"]),
    ("learn", &["serve", "auth", "dataset"]),
];

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// The names after each `crate::` of a file, two at most, comments apart: `crate::auth::budget` gives `["auth", "budget"]`.
fn paths(text: &str) -> Vec<[String; 2]> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let after = code.flat_map(|line| line.split("crate::").skip(1).map(str::to_owned).collect::<Vec<_>>());
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    after
        .map(|rest| {
            let wing = name(&rest);
            let file = rest[wing.len()..].strip_prefix("::").map_or_else(String::new, name);
            [wing, file]
        })
        .collect()
}

/// `(wing, file)` of each file of a wing, with its text. A folder below a wing is one file, and so is the wing `dataset`, whose files
/// share the types of its `mod.rs`.
fn files() -> Vec<(&'static str, String, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    for (wing, _) in MAY_USE {
        for path in files_below(&source.join(wing)) {
            let below = path.strip_prefix(source.join(wing)).unwrap().with_extension("");
            let file = below.iter().next().unwrap().to_str().unwrap();
            let file = if wing == "dataset" { "" } else { file };
            files.push((wing, file.to_owned(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    files
}

#[test]
fn every_wing_uses_only_the_wings_that_it_may_use() {
    let mut forbidden = Vec::new();
    for (wing, file, text) in files() {
        let (_, may) = MAY_USE.iter().find(|(name, _)| *name == wing).unwrap();
        for [used, _] in paths(&text) {
            if used != wing && !may.contains(&used.as_str()) {
                forbidden.push(format!("{wing}/{file} uses crate::{used}"));
            }
        }
    }
    assert!(forbidden.is_empty(), "{forbidden:#?}");
}

#[test]
fn wings_and_their_files_have_no_circle() {
    let mut uses = BTreeMap::<(String, String), BTreeSet<(String, String)>>::new();
    for (wing, file, text) in files() {
        let own = (wing.to_owned(), file.clone());
        let used = paths(&text).into_iter().map(|[wing, file]| {
            assert!(
                wing == "dataset" || !file.is_empty(),
                "{own:?}: expected crate::{wing}::FILE, got no file"
            );
            if wing == "dataset" { (wing, String::new()) } else { (wing, file) }
        });
        let beside = text.lines().any(|line| line.starts_with("use super::"));
        assert!(wing == "dataset" || !beside, "{own:?}: expected crate::{wing}::FILE, got super::");
        let others = used.filter(|used| *used != own);
        uses.entry(own.clone()).or_default().extend(others);
    }
    assert!(uses.len() > 30, "the files were found: {uses:?}");
    // What uses nothing that is left is taken away, until nothing is left, or a circle.
    while let Some(free) = uses
        .iter()
        .find_map(|(file, used)| used.iter().all(|used| !uses.contains_key(used)).then(|| file.clone()))
    {
        uses.remove(&free);
    }
    assert!(uses.is_empty(), "these files use each other in a circle: {uses:#?}");
}

#[test]
fn uses_are_found_wherever_they_stand() {
    let text = "use crate::auth::budget::Held;\n// crate::learn::agent\n    f(crate::net::limits(), crate::Policies);\n";
    let found = paths(text);
    let found: Vec<_> = found.iter().map(|names| names.each_ref().map(String::as_str)).collect();
    assert_eq!(found, [["auth", "budget"], ["net", "limits"], ["Policies", ""]]);
}

//! docs/presets.md lists every preset as the code has it. `OTO_WRITE_DOCS=1 cargo test -p oto-agent --test presets` writes it.

use oto_agent::config::StudentConfig;
use oto_agent::presets::{self, Environments, Preset};
use oto_json::Json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/presets.md");

const HEAD: &str = "\
# Presets

A preset contains the default settings of a student for one environment or one kind of environments. `oto learn` prints its name and source, and stores
the line in `config.json` (`defaults`). `--config`, `--set` and other flags override a preset. [algorithms.md](algorithms.md) and
[metrics.md](metrics.md) explain the settings. Pages and the WASI component use the same presets. Your own environments there have no name, and use the presets of
their kind.

This page is generated: `OTO_WRITE_DOCS=1 cargo test -p oto-agent --test presets`.

";

/// Settings by their keys, joined by dots; schedules and lists are one value.
fn flat(student: &StudentConfig) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    flatten(&oto_json::parse(&oto_json::write(student)).unwrap(), String::new(), &mut settings);
    // Of no other use here than to be unlike in every run.
    settings.retain(|key, _| !["seed", "backend", "algorithm.name"].contains(&key.as_str()));
    settings
}

fn flatten(value: &Json, key: String, to: &mut BTreeMap<String, String>) {
    match value {
        Json::Object(fields)
            if !fields.is_empty() && value.get("start").is_none() && key != "algorithm.convolution" =>
        {
            for (name, value) in fields {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(value, key, to);
            }
        }
        _ => drop(to.insert(key, shown(value))),
    }
}

/// A schedule in words, anything else as JSON.
fn shown(value: &Json) -> String {
    let part = |name| value.get(name).map(oto_json::write);
    match (part("start"), part("end"), part("steps")) {
        (Some(start), Some(end), Some(_)) if start == end => start,
        (Some(start), Some(end), Some(steps)) => format!("{start} to {end} over {steps} steps"),
        _ => oto_json::write(value),
    }
}

/// One row for each setting.
fn table(page: &mut String, settings: &BTreeMap<String, String>) {
    page.push_str("| setting | value |\n| --- | --- |\n");
    for (key, value) in settings {
        writeln!(page, "| `{key}` | {value} |").unwrap();
    }
    page.push('\n');
}

fn section(page: &mut String, preset: &Preset, common: &BTreeMap<String, String>) {
    writeln!(page, "## {}\n", capital(&preset.title())).unwrap();
    writeln!(page, "Source: {}.", preset.source).unwrap();
    let solved = match preset.environments {
        Environments::Named(name) if preset.decays => oto_env::IDS
            .iter()
            .filter(|id| id.split('-').next() == Some(name))
            .filter_map(|id| Some(format!("{id} {}", presets::solved_return(id)?)))
            .collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    if !solved.is_empty() {
        let solved = solved.join(", ");
        writeln!(page, "The student learns more slowly at the return that counts as solved ({solved}).")
            .unwrap();
        writeln!(page, "It gives up a teacher after 5,000 steps without this return.").unwrap();
    }
    if preset.stretches {
        let steps = preset.student.steps;
        writeln!(page, "Schedules are for a run of {steps} steps. Other runs scale them in proportion.")
            .unwrap();
    }
    page.push('\n');
    let mut own = flat(&preset.student);
    own.retain(|key, value| common.get(key) != Some(value));
    table(page, &own);
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn page() -> String {
    let all = presets::all();
    let mut common = flat(&all[0].student);
    for preset in &all[1..] {
        let own = flat(&preset.student);
        common.retain(|key, value| own.get(key) == Some(value));
    }
    let mut page = HEAD.to_string();
    all.iter().for_each(|preset| section(&mut page, preset, &common));
    page.push_str("## The same in every preset\n\n");
    table(&mut page, &common);
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

#[test]
fn the_page_of_presets_is_what_the_code_has() {
    let page = page();
    if std::env::var_os("OTO_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(Path::new(PAGE)).unwrap_or_default();
    assert!(written == page, "docs/presets.md is not what the code has: write it with OTO_WRITE_DOCS=1");
}

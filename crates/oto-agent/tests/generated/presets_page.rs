//! docs/presets.md lists every preset as the code has it. `OTO_WRITE_DOCS=1 cargo test -p oto-agent --test generated` writes it.

use oto_agent::config::StudentConfig;
use oto_agent::presets::{self, Environments, Preset, Seen};
use oto_json::Json;
use oto_rl::algorithms;
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

This page is generated: `OTO_WRITE_DOCS=1 cargo test -p oto-agent --test generated`.

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

/// A preset as it was when it was chosen, a line each: a change to one is a decision, and `OTO_WRITE_PRESETS=1` writes this file.
const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/presets.jsonl");

struct Entry {
    environment: String,
    algorithm: String,
    continuous: bool,
    images: Option<[usize; 3]>,
    line: String,
    stretches: bool,
    decays: bool,
    student: StudentConfig,
}

oto_json::json_object! {
    Entry: closed { environment, algorithm, continuous, images, line, stretches, decays, student }
}

/// What the code gives for an entry's environment and algorithm.
fn now(environment: &str, algorithm: &str, seen: Seen) -> Entry {
    let preset = presets::preset(environment, seen, Some(algorithms::find(algorithm).expect("an algorithm")));
    Entry {
        environment: environment.into(),
        algorithm: algorithm.into(),
        continuous: seen.continuous,
        images: seen.images,
        line: preset.line(environment),
        stretches: preset.stretches,
        decays: preset.decays,
        student: preset.student,
    }
}

fn write_snapshot() {
    let mut lines = String::new();
    for environment in oto_env::IDS.iter().copied().chain([""]) {
        for algorithm in algorithms::online() {
            for seen in [(false, None), (true, None), (false, Some([4, 84, 84]))] {
                let seen = Seen { continuous: seen.0, images: seen.1 };
                let preset = presets::preset(environment, seen, Some(algorithm));
                let named = matches!(preset.environments, Environments::Named(_));
                if algorithm.accepts(seen) && (named != environment.is_empty()) {
                    lines += &(oto_json::write(&now(environment, algorithm.name(), seen)) + "\n");
                }
            }
        }
    }
    std::fs::write(SNAPSHOT, lines).unwrap();
}

#[test]
fn every_preset_gives_the_settings_that_were_chosen() {
    if std::env::var_os("OTO_WRITE_PRESETS").is_some() {
        write_snapshot();
    }
    let lines = std::fs::read_to_string(SNAPSHOT).unwrap();
    assert!(lines.lines().count() > 12);
    for line in lines.lines() {
        let then: Entry = oto_json::read(line).unwrap();
        let seen = Seen { continuous: then.continuous, images: then.images };
        let now = now(&then.environment, &then.algorithm, seen);
        let said = |e: &Entry| (e.line.clone(), e.stretches, e.decays);
        assert_eq!(said(&now), said(&then));
        assert_eq!(now.student, then.student, "{}", then.line);
    }
}

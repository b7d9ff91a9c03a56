//! docs/algorithms.md: the table of the registry, and each algorithm's settings.

use oto_rl::algorithms::table::{COLUMNS, row};
use oto_rl::algorithms::{ALGORITHMS, Algorithm};
use serde_json::Value;
use std::fmt::Write;

const HEAD: &str = "\
# Algorithms

Every algorithm of this build. `oto algorithms` prints the table. A configuration names one with its settings:

    \"algorithm\": {\"name\": \"sac\", \"hidden\": [64, 64]}

`oto learn --algorithm sac --set algorithm.hidden=[64,64]` is the same on the command line. Absent settings have the value of the
[preset](presets.md) for the environment and the algorithm. The defaults below apply to a file without a preset.
[config.schema.json](schema/config.schema.json) describes all other settings of a run (discount, replay buffer, schedules),
[teach.schema.json](schema/teach.schema.json) those of `oto teach`. The [glossary](glossary.md) defines the words.

This page is generated: `OTO_WRITE_DOCS=1 cargo test -p oto-agent --test generated`.

## Replay

`replay.sampler` names the choice of transitions for an update (`--set replay.sampler=combined`):

| sampler | batch | settings | paper |
| --- | --- | --- | --- |
| `uniform` | every transition with the same probability | | Lin 1992 |
| `combined` | as `uniform`, and the newest transition is in every batch | | Zhang and Sutton 2017 |
| `shares` | a fixed share from recorded transitions, the rest from the run's own; without recorded ones as `uniform` | `recorded_share` | Ball et al. 2023 |
| `prioritised` | in proportion to the last TD error to the power of `alpha`; importance weights in the critics' loss undo the bias as `beta` approaches 1. Not for algorithms with rollouts | `alpha`, `beta`, `epsilon` | Schaul et al. 2016 |
| `whole` | each batch from one buffer: recorded ones with the probability `recorded_share`, the run's own once there are `own_from` | `recorded_share`, `own_from` | Zheng et al. 2023 |
| `balanced` | both buffers, in proportion to how much a transition looks like the run's own. For `balanced-replay` alone, which rates transitions | `online_share`, `online_reference` | Lee et al. 2021 |
| `forgetting` | recorded transitions have the priority 1 / (`forgetting_rate` epoch), the run's own 1 | `forgetting_rate`, `forgetting_epoch` | Mao et al. 2022 |

An algorithm asks for more columns of the buffer by the names of its program's inputs: `return_to_go` with `return_known`, and `source`
(`oto_rl::replay::Columns`).

## Table

";

/// The page, from the schemas of what learns online and offline.
pub fn page(config: &Value, teach: &Value) -> String {
    let mut page = HEAD.to_string();
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    page += &line(&COLUMNS.map(String::from));
    page += &line(&COLUMNS.map(|_| "---".to_string()));
    for algorithm in ALGORITHMS {
        page += &line(&row(*algorithm).map(|cell| cell.join(", ")));
    }
    for algorithm in ALGORITHMS {
        settings(&mut page, *algorithm, if algorithm.online() { config } else { teach });
    }
    page
}

/// The schema of an algorithm's settings.
pub fn of<'s>(root: &'s Value, name: &str) -> &'s Value {
    let holder = ["StudentConfig", "OfflineConfig"].iter().find_map(|config| root["$defs"].get(config));
    let all = &holder.expect("a configuration")["properties"]["algorithm"]["oneOf"];
    let named = |one: &&Value| one["properties"]["name"]["const"] == name;
    all.as_array().expect("one of several").iter().find(named).expect("every algorithm has a schema")
}

fn settings(page: &mut String, algorithm: &dyn Algorithm, root: &Value) {
    let schema = of(root, algorithm.name());
    writeln!(page, "\n## {}\n\n{} ({}).\n", algorithm.name(), algorithm.title(), algorithm.paper()).unwrap();
    page.push_str("| setting | default | meaning |\n| --- | --- | --- |\n");
    for (name, property) in
        schema["properties"].as_object().expect("settings").iter().filter(|(name, _)| *name != "name")
    {
        let property = resolved(root, property);
        match property.get("properties").filter(|_| property.get("required").is_none()) {
            None => setting(page, name, &property),
            Some(group) => {
                for (inner, property) in group.as_object().expect("settings") {
                    setting(page, &format!("{name}.{inner}"), property);
                }
            }
        }
    }
}

fn setting(page: &mut String, name: &str, property: &Value) {
    let default = property.get("default").filter(|value| !value.is_null());
    let default = default.map_or("none".into(), Value::to_string);
    let meaning = property["description"].as_str().unwrap_or_default();
    let range = match (property.get("minimum"), property.get("maximum")) {
        (Some(from), Some(to)) => {
            let [from, to] = [from, to].map(|end| end.to_string().trim_end_matches(".0").to_string());
            format!(" {from} to {to}.")
        }
        _ => String::new(),
    };
    writeln!(page, "| `{name}` | {default} | {meaning}{range} |").unwrap();
}

/// A property with what its reference says; its own description goes before.
fn resolved(root: &Value, property: &Value) -> Value {
    let reference = property.get("$ref").and_then(Value::as_str);
    let Some(target) = reference.and_then(|to| root.pointer(to.trim_start_matches('#'))) else {
        return property.clone();
    };
    let mut all = target.clone();
    for (key, value) in property.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    all
}

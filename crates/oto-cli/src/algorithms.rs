//! `oto algorithms`: the registry of algorithms as a table.

use clap::Args;
use oto_rl::algorithms::ALGORITHMS;
use oto_rl::algorithms::table::{COLUMNS, row};
use serde_json::{Map, Value, json};

/// How the table is printed.
#[derive(Args, Clone, Debug)]
pub struct AlgorithmsOptions {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Prints the table.
pub fn algorithms(options: &AlgorithmsOptions) {
    match options.json {
        true => crate::out!("{:#}", json_table()),
        false => crate::out!("{}", text_table().trim_end()),
    }
}

fn text_table() -> String {
    let rows = ALGORITHMS.iter().map(|algorithm| row(*algorithm).map(|cell| cell.join(", ")));
    let rows = [COLUMNS.map(String::from)].into_iter().chain(rows).collect::<Vec<_>>();
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
            text += &format!("{cell:width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text + "\n`oto learn --algorithm NAME` learns online, `oto teach --algorithm NAME` offline. Settings: docs/algorithms.md\n"
}

fn json_table() -> Value {
    let of = |algorithm: &&'static dyn oto_rl::algorithms::Algorithm| {
        let cells = COLUMNS.iter().zip(row(*algorithm));
        let mut fields = Map::from_iter(cells.map(|(column, cell)| match *column {
            "name" | "paper" => (column.to_string(), json!(cell.concat())),
            _ => (column.to_string(), json!(cell)),
        }));
        fields.insert("title".into(), json!(algorithm.title()));
        Value::Object(fields)
    };
    ALGORITHMS.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_have_every_algorithm() {
        let (text, json) = (text_table(), json_table());
        for (i, algorithm) in ALGORITHMS.iter().enumerate() {
            assert!(text.lines().any(|line| line.starts_with(algorithm.name())), "{text}");
            assert_eq!(json[i]["name"], algorithm.name());
            assert_eq!(json[i]["title"], algorithm.title());
        }
        assert_eq!(json[1]["actions"], json!(["continuous", "discrete"]));
    }
}

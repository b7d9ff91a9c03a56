//! What a report leaves behind: Markdown tables, figures, files.

use super::ReportError;
use crate::chart::Chart;
use std::fmt;
use std::path::Path;

/// A Markdown table.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this head.
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|c| c.to_string()).collect()] }
    }

    /// One row more.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, row) in self.rows.iter().enumerate() {
            writeln!(f, "| {} |", row.join(" | "))?;
            if i == 0 {
                writeln!(f, "|{}", " --- |".repeat(row.len()))?;
            }
        }
        Ok(())
    }
}

/// A whole number with its thousands apart.
pub fn whole(x: f64) -> String {
    let digits = format!("{x:.0}");
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// `results/NAME.svg` and `.png` below `out`.
pub fn chart(out: &Path, name: &str, chart: &Chart) -> Result<(), ReportError> {
    file(&out.join(format!("results/{name}.svg")), chart.svg()?.as_bytes())?;
    file(&out.join(format!("results/{name}.png")), &chart.png()?)
}

/// A file, its folder made where it is missing.
pub fn file(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let failed = |error| ReportError::File { path: path.to_path_buf(), error };
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    std::fs::write(path, bytes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_tables_read_well() {
        assert_eq!([0.0, 999.0, 1_000.0, 1_234_567.0].map(whole), ["0", "999", "1,000", "1,234,567"]);
        let mut table = Table::new(&["a", "b"]);
        table.row(vec!["1".into(), "2".into()]);
        assert_eq!(table.to_string(), "| a | b |\n| --- | --- |\n| 1 | 2 |\n");
    }
}

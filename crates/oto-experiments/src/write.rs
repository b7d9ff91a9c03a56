//! What a report leaves behind: Markdown tables, figures, files.

use crate::ReportError;
use crate::chart::Chart;
use crate::runs::{Arm, Finished};
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

    /// The same as CSV; cells have no comma.
    pub fn csv(&self) -> String {
        self.rows.iter().map(|row| row.join(",") + "\n").collect()
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

/// Puts an experiment's text into `results.md` below `out`, in the place of what it wrote there before, or at the end.
pub fn section(out: &Path, experiment: &str, text: &str) -> Result<(), ReportError> {
    let path = out.join("results.md");
    let old = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => include_str!("head.md").into(),
        read => read.map_err(|error| ReportError::File { path: path.clone(), error })?,
    };
    file(&path, with_section(&old, experiment, text).as_bytes())
}

/// A section stands between two comments, which a reader does not see.
fn with_section(old: &str, experiment: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- begin {experiment} -->\n"), format!("<!-- end {experiment} -->\n"));
    let new = format!("{begin}{text}{end}");
    match (old.find(&begin), old.find(&end)) {
        (Some(from), Some(to)) if from < to => [&old[..from], &new, &old[to + end.len()..]].concat(),
        _ => format!("{}\n\n{new}", old.trim_end()),
    }
}

/// One row for each run: `results/NAME-runs.csv` below `out`.
pub fn each_run(out: &Path, name: &str, table: &Table) -> Result<(), ReportError> {
    file(&out.join(format!("results/{name}-runs.csv")), table.csv().as_bytes())
}

/// Configurations and runs as JSON, curves as CSV.
pub fn runs(out: &Path, name: &str, arms: &[Arm], runs: &[Vec<Finished>]) -> Result<(), ReportError> {
    let arm = |(a, runs): (&Arm, &Vec<Finished>)| serde_json::json!({ "name": a.name, "title": a.title, "before": a.before, "job": a.job, "runs": runs });
    let arms_json = arms.iter().zip(runs).map(arm).collect::<Vec<_>>();
    let json = serde_json::json!({ "experiment": name, "arms": arms_json });
    file(&out.join(format!("results/{name}.json")), json.to_string().as_bytes())?;
    let mut csv = String::from("arm,seed,step,return\n");
    for (arm, runs) in arms.iter().zip(runs) {
        for r in runs {
            for (step, score) in r.steps.iter().zip(&r.returns) {
                csv.push_str(&format!("{},{},{step},{score}\n", arm.name, r.seed));
            }
        }
    }
    file(&out.join(format!("results/{name}.csv")), csv.as_bytes())
}

/// A file, its folder made where it is missing.
pub fn file(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let failed = |error| ReportError::File { path: path.to_path_buf(), error };
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    std::fs::write(path, bytes).map_err(failed)
}

/// Cores of this machine.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Its operating system and processor.
pub fn system() -> String {
    format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_where_it_stands() {
        let one = with_section("# Results\n", "a", "first\n");
        let two = with_section(&one, "b", "second\n");
        let three = with_section(&two, "a", "third\n");
        assert!(two.starts_with(&one) && two.contains("second"));
        assert!(three.find("third") < three.find("second") && !three.contains("first"));
        assert_eq!(with_section(&three, "a", "third\n"), three);
    }

    #[test]
    fn numbers_and_tables_read_well() {
        assert_eq!([0.0, 999.0, 1_000.0, 1_234_567.0].map(whole), ["0", "999", "1,000", "1,234,567"]);
        let mut table = Table::new(&["a", "b"]);
        table.row(vec!["1".into(), "2".into()]);
        assert_eq!(table.to_string(), "| a | b |\n| --- | --- |\n| 1 | 2 |\n");
        assert_eq!(table.csv(), "a,b\n1,2\n");
    }
}

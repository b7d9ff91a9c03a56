//! `oto bench`: how fast this machine updates a student.

use crate::backend::by_name;
use crate::chart::{Chart, ChartError, PALETTE, Series};
use clap::{Args, Subcommand, ValueEnum};
use oto_bench::measure::{ByHand, Compiled, Failure, Products};
use oto_bench::report::{Entry, Report, measure};
use oto_bench::workload::{Shape, Workload, distillation};
use oto_graph::BackendError;
use serde_json::json;
use std::path::{Path, PathBuf};

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct BenchOptions {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// One update of a QR-DQN student with a teacher, on every backend
    Update(UpdateOptions),
    /// Updates of many sizes: width, quantiles and batch, one at a time
    Sweep(SweepOptions),
}

/// One size.
#[derive(Args, Clone, Debug)]
struct UpdateOptions {
    /// Width of both hidden layers
    #[arg(long, default_value_t = 64, value_parser = size)]
    hidden: usize,
    /// Quantiles for each action
    #[arg(long, default_value_t = 32, value_parser = size)]
    quantiles: usize,
    /// Transitions in an update
    #[arg(long, default_value_t = 64, value_parser = size)]
    batch: usize,
    /// A plain distillation step (8-64-64-4) instead
    #[arg(long)]
    distillation: bool,
    /// What computes; candle and the step fused by hand are always there to compare with
    #[arg(long, value_enum, default_value_t = Choice::All)]
    backend: Choice,
    /// Blocks of updates for each backend
    #[arg(long, default_value_t = 30)]
    repeats: u32,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Many sizes.
#[derive(Args, Clone, Debug)]
struct SweepOptions {
    /// What computes; candle and the step fused by hand are always there to compare with
    #[arg(long, value_enum, default_value_t = Choice::All)]
    backend: Choice,
    /// Blocks of updates for each backend and size
    #[arg(long, default_value_t = 10)]
    repeats: u32,
    /// Folder for sweep.json and a picture of each axis
    #[arg(long, default_value = "runs/bench")]
    out: PathBuf,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    All,
    Cpu,
    Candle,
    Webgpu,
}

impl Choice {
    /// Names for [`backend`]: candle first, which all others are held against.
    fn backends(self) -> &'static [&'static str] {
        match self {
            Choice::All => &["candle", "cpu", "webgpu"],
            Choice::Cpu => &["candle", "cpu"],
            Choice::Candle => &["candle"],
            Choice::Webgpu => &["candle", "webgpu"],
        }
    }
}

/// Sizes beyond any student: a typing mistake should not fill the memory.
fn size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=4096) => Ok(n),
        _ => Err("a whole number from 1 to 4096 is needed".into()),
    }
}

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A backend failed or computes something else.
    #[error(transparent)]
    Measure(#[from] Failure),
    /// A file that cannot be written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
    /// A picture failed.
    #[error(transparent)]
    Chart(#[from] ChartError),
}

/// Measures and prints.
pub fn bench(options: &BenchOptions) -> Result<(), BenchError> {
    match &options.what {
        What::Update(options) => update(options),
        What::Sweep(options) => sweep(options),
    }
}

fn update(options: &UpdateOptions) -> Result<(), BenchError> {
    let shape = Shape { hidden: options.hidden, quantiles: options.quantiles, batch: options.batch };
    let workload = if options.distillation { distillation(SEED) } else { Workload::new(shape, SEED) };
    let report = run(&workload, options.backend, options.repeats)?;
    match options.json {
        true => println!("{:#}", report.to_json()),
        false => print!("{report}"),
    }
    Ok(())
}

/// The numbers do not matter for the time, but everyone should have the same.
const SEED: u64 = 1;

fn run(workload: &Workload, choice: Choice, repeats: u32) -> Result<Report, Failure> {
    let (mut entries, mut absent) = (Vec::new(), Vec::new());
    for name in choice.backends() {
        match by_name(name) {
            Ok(backend) => entries.push(Entry {
                contestant: Box::new(Compiled::new(name, backend.as_ref(), workload)?),
                products: Some(Box::new(Products::new(name, backend.as_ref(), workload)?)),
            }),
            Err(error @ BackendError::NotAvailable(_)) => absent.push((name.to_string(), error.to_string())),
            Err(error) => return Err(error.into()),
        }
    }
    entries.push(Entry::whole(ByHand::new(workload)));
    measure(workload, entries, absent, repeats)
}

/// What a sweep varies: its name, its values, and the shape for each.
struct Axis {
    name: &'static str,
    values: &'static [usize],
    shape: fn(usize) -> Shape,
}

const AXES: [Axis; 3] = [
    Axis {
        name: "hidden",
        values: &[32, 64, 128, 256, 512],
        shape: |hidden| Shape { hidden, quantiles: 32, batch: 64 },
    },
    Axis {
        name: "quantiles",
        values: &[8, 16, 32, 51, 100, 200, 400],
        shape: |quantiles| Shape { hidden: 64, quantiles, batch: 64 },
    },
    Axis {
        name: "batch",
        values: &[16, 32, 64, 128, 256, 512, 1024],
        shape: |batch| Shape { hidden: 64, quantiles: 32, batch },
    },
];

fn sweep(options: &SweepOptions) -> Result<(), BenchError> {
    std::fs::create_dir_all(&options.out)
        .map_err(|error| BenchError::File { path: options.out.clone(), error })?;
    let mut points = Vec::new();
    for axis in &AXES {
        let mut reports = Vec::new();
        for value in axis.values {
            let workload = Workload::new((axis.shape)(*value), SEED);
            let report = run(&workload, options.backend, options.repeats)?;
            println!("{report}");
            points.push(json!({ "axis": axis.name, "value": value, "report": report.to_json() }));
            reports.push(report);
        }
        let picture = chart(axis, &reports).svg()?;
        write(&options.out, &format!("sweep-{}.svg", axis.name), &picture)?;
    }
    write(&options.out, "sweep.json", &format!("{:#}\n", json!(points)))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), BenchError> {
    let path = folder.join(name);
    std::fs::write(&path, text).map_err(|error| BenchError::File { path, error })
}

/// How many times faster than candle everyone is along an axis; the band goes from a tenth of the blocks to the other.
fn chart(axis: &Axis, reports: &[Report]) -> Chart {
    let names = reports.first().map(|r| r.rows.iter().skip(1).map(|row| row.name.as_str()));
    let series = |(i, name): (usize, &str)| {
        let rows = reports
            .iter()
            .filter_map(|r| Some((r.median("candle")?, r.rows.iter().find(|w| w.name == name)?)));
        let of = |pick: fn(&oto_bench::measure::Spread) -> f64| {
            rows.clone().map(|(candle, row)| candle / pick(&row.update)).collect::<Vec<_>>()
        };
        Series {
            name: name.to_string(),
            colour: PALETTE[i % PALETTE.len()],
            x: axis.values.iter().map(|v| *v as f64).collect(),
            mid: of(|s| s.median),
            band: Some((of(|s| s.p90), of(|s| s.p10))),
        }
    };
    let processor = reports.first().map_or("", |r| r.processor.as_str());
    Chart {
        title: format!("Speed of an update by {}", axis.name),
        subtitle: format!("{processor}, one core; median of blocks, band from p10 to p90"),
        x_label: axis.name.to_string(),
        y_label: "times as fast as candle".into(),
        series: names.into_iter().flatten().enumerate().map(series).collect(),
        marks: vec![(1.0, "candle".into())],
        y_range: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_is_in_the_report_or_absent_and_a_sweep_is_a_picture() {
        let workload = Workload::new(Shape { hidden: 8, quantiles: 4, batch: 8 }, SEED);
        let report = run(&workload, Choice::All, 1).unwrap();
        for name in ["candle", "cpu", "webgpu", "fused"] {
            let absent = report.absent.iter().any(|(n, _)| n == name);
            assert!(report.median(name).is_some() != absent, "{name}");
        }
        let axis = &AXES[0];
        let reports = vec![report; axis.values.len()];
        let svg = chart(axis, &reports).svg().unwrap();
        assert!(svg.contains("fused") && svg.contains("Speed of an update by hidden"));
    }

    #[test]
    fn sizes_have_a_range() {
        assert_eq!(size("64"), Ok(64));
        assert!(size("0").is_err() && size("4097").is_err() && size("x").is_err());
    }
}

//! `oto bench sweep`: how an update's time grows with width, quantiles and batch, and from which size on a device is faster
//! than the CPU.

use crate::bench::{Backends, BenchError, Choice, SEED};
use crate::threads::ThreadOptions;
use clap::Args;
use oto_bench::measure::Spread;
use oto_bench::report::{Report, Row};
use oto_bench::workload::{Shape, Workload};
use oto_experiments::chart::{Chart, PALETTE, Series};
use oto_graph::Adapter;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Many sizes.
#[derive(Args, Clone, Debug)]
pub struct SweepOptions {
    /// Backends to measure; candle and the hand-written step are always included
    #[arg(long, value_enum, default_value_t = Choice::All)]
    backend: Choice,
    /// Blocks of updates for each backend and size, fewer where time runs out
    #[arg(long, default_value_t = 10)]
    repeats: u32,
    #[command(flatten)]
    threads: ThreadOptions,
    /// When to stop; the size under way is finished, later ones are left out
    #[arg(long, default_value_t = 10.0, value_name = "MINUTES", value_parser = minutes)]
    limit: f64,
    /// Folder for sweep.json and pictures of each axis
    #[arg(long, default_value = "runs/bench")]
    out: PathBuf,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(n) if (0.0..=1440.0).contains(&n) => Ok(n),
        _ => Err("a number of minutes from 0 to 1440 is needed".into()),
    }
}

/// What a sweep varies: its name, its values, and the shape for each.
struct Axis {
    name: &'static str,
    fixed: &'static str,
    values: &'static [usize],
    shape: fn(usize) -> Shape,
}

const AXES: [Axis; 3] = [
    Axis {
        name: "hidden",
        fixed: "32 quantiles, batch 64",
        values: &[32, 64, 128, 256, 512],
        shape: |hidden| Shape { hidden, quantiles: 32, batch: 64 },
    },
    Axis {
        name: "quantiles",
        fixed: "hidden 64, batch 64",
        values: &[8, 16, 32, 51, 100, 200, 400],
        shape: |quantiles| Shape { hidden: 64, quantiles, batch: 64 },
    },
    Axis {
        name: "batch",
        fixed: "hidden 64, 32 quantiles",
        values: &[16, 32, 64, 128, 256, 512, 1024],
        shape: |batch| Shape { hidden: 64, quantiles: 32, batch },
    },
];

/// One axis as it was measured: a value and its report each, fewer than the axis has where time ran out.
struct Measured {
    axis: &'static Axis,
    points: Vec<(usize, Report)>,
}

/// Measures, tells how far it is, and writes what came out.
pub fn sweep(options: &SweepOptions) -> Result<(), BenchError> {
    let file_error = |error| BenchError::File { path: options.out.clone(), error };
    std::fs::create_dir_all(&options.out).map_err(file_error)?;
    options.threads.apply(1);
    let backends = Backends::open(options.backend)?;
    let start = Instant::now();
    let measured = measure_all(&backends, options, start)?;
    for one in &measured {
        let picture = chart(one);
        write(&options.out, &format!("sweep-{}.svg", one.axis.name), picture.svg()?.as_bytes())?;
        write(&options.out, &format!("sweep-{}.png", one.axis.name), &picture.png()?)?;
        crate::out!("{}", verdict(one));
    }
    if let Some(adapter) = adapter(&measured) {
        crate::out!("webgpu ran on {adapter}.{}", caution(adapter));
    }
    let json = to_json(&measured, options, start.elapsed());
    write(&options.out, "sweep.json", format!("{json:#}\n").as_bytes())
}

/// All sizes in turn, each with an equal share of the time that is left.
fn measure_all(
    backends: &Backends,
    options: &SweepOptions,
    start: Instant,
) -> Result<Vec<Measured>, BenchError> {
    let limit = Duration::from_secs_f64(60.0 * options.limit);
    let count = AXES.iter().map(|axis| axis.values.len()).sum::<usize>();
    let mut done = 0;
    let mut measured = Vec::new();
    for axis in &AXES {
        let mut points = Vec::new();
        for value in axis.values {
            let left = limit.saturating_sub(start.elapsed());
            if done > 0 && left.is_zero() {
                crate::note!("{} {value}: left out, the time is up", axis.name);
                continue;
            }
            let workload = Workload::new((axis.shape)(*value), SEED);
            let report = backends.measure(&workload, options.repeats, left / (count - done) as u32)?;
            done += 1;
            let seconds = start.elapsed().as_secs();
            crate::out!("{done} of {count}, {seconds} s: {} {value}: {}", axis.name, in_short(&report));
            points.push((*value, report));
        }
        measured.push(Measured { axis, points });
    }
    Ok(measured)
}

fn in_short(report: &Report) -> String {
    let row = |row: &Row| format!("{} {:.1} us", row.name, row.update.median * 1e6);
    report.rows.iter().map(row).collect::<Vec<_>>().join(", ")
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), BenchError> {
    let path = folder.join(name);
    std::fs::write(&path, bytes).map_err(|error| BenchError::File { path, error })
}

fn adapter(measured: &[Measured]) -> Option<&Adapter> {
    let reports = measured.iter().flat_map(|m| &m.points);
    reports.flat_map(|(_, report)| &report.rows).find_map(|row| row.adapter.as_ref())
}

/// What must not be concluded.
fn caution(adapter: &Adapter) -> &'static str {
    match adapter.kind {
        "software" => " That is this processor, playing a GPU: nothing follows for a real one.",
        _ => "",
    }
}

/// How many times as long as the CPU a device takes, for each value where both were measured.
fn ratios(points: &[(usize, Report)]) -> Vec<(usize, f64)> {
    let ratio =
        |(value, report): &(usize, Report)| Some((*value, report.median("webgpu")? / report.median("cpu")?));
    points.iter().filter_map(ratio).collect()
}

/// The value from which on a device is as fast as the CPU, to the end: between two measured ones by factors.
fn crossover(ratios: &[(usize, f64)]) -> Option<f64> {
    let first = ratios.iter().rposition(|(_, ratio)| *ratio > 1.0).map_or(0, |last| last + 1);
    let (value, ratio) = *ratios.get(first)?;
    let Some((before, above)) = first.checked_sub(1).map(|i| ratios[i]) else { return Some(value as f64) };
    let share = above.ln() / (above.ln() - ratio.ln());
    Some(before as f64 * (value as f64 / before as f64).powf(share))
}

/// In a sentence.
fn verdict(one: &Measured) -> String {
    let ratios = ratios(&one.points);
    let name = one.axis.name;
    match (crossover(&ratios), ratios.as_slice()) {
        (_, []) => format!("{name}: nothing to compare, webgpu or cpu was not measured"),
        (Some(value), _) => format!("{name}: webgpu is as fast as cpu from about {value:.0} on"),
        (None, [(first, most), .., (last, least)]) => {
            format!(
                "{name}: cpu is faster at every size; webgpu takes {most:.1} times as long at {first}, {least:.1} at {last}"
            )
        }
        (None, [(only, ratio)]) => format!("{name}: webgpu takes {ratio:.1} times as long as cpu at {only}"),
    }
}

fn to_json(measured: &[Measured], options: &SweepOptions, took: Duration) -> Value {
    let axis = |one: &Measured| {
        let ratios = ratios(&one.points);
        let measured = |value: &&usize| one.points.iter().any(|(v, _)| v == *value);
        json!({
            "axis": one.axis.name,
            "fixed": one.axis.fixed,
            "points": one.points.iter().map(|(v, r)| json!({ "value": v, "report": r.to_json() })).collect::<Vec<_>>(),
            "left_out": one.axis.values.iter().filter(|v| !measured(v)).collect::<Vec<_>>(),
            "webgpu_over_cpu": ratios.iter().map(|(v, r)| json!({ "value": v, "ratio": r })).collect::<Vec<_>>(),
            "crossover": crossover(&ratios),
        })
    };
    json!({
        "adapter": adapter(measured).map(|a| json!({ "name": a.name, "kind": a.kind, "api": a.api })),
        "limit_seconds": 60.0 * options.limit,
        "seconds": took.as_secs_f64(),
        "axes": measured.iter().map(axis).collect::<Vec<_>>(),
    })
}

/// Everyone's time along an axis; the band goes from a tenth of the blocks to the other.
fn chart(one: &Measured) -> Chart {
    let rows = |name: &str| {
        let row = |(value, report): &(usize, Report)| {
            report.rows.iter().find(|r| r.name == name).map(|r| (*value as f64, r.update))
        };
        one.points.iter().filter_map(row).collect::<Vec<_>>()
    };
    let series = |(i, name): (usize, &&str)| {
        let rows = rows(name);
        let of = |pick: fn(&Spread) -> f64| rows.iter().map(|(_, s)| 1e6 * pick(s)).collect::<Vec<_>>();
        Series {
            name: name.to_string(),
            colour: PALETTE[i],
            x: rows.iter().map(|(value, _)| *value).collect(),
            mid: of(|s| s.median),
            band: Some((of(|s| s.p10), of(|s| s.p90))),
        }
    };
    let series = ["cpu", "webgpu", "fused", "candle"].iter().enumerate().map(series);
    let processor = one.points.first().map_or("", |(_, r)| r.processor.as_str());
    let device = adapter(std::slice::from_ref(one)).map_or(String::new(), |a| format!("; webgpu: {a}"));
    Chart {
        title: format!("Time of an update by {}", one.axis.name),
        subtitle: format!("{}; {processor}{device}", one.axis.fixed),
        x_label: one.axis.name.to_string(),
        y_label: "microseconds an update; median of blocks, band from p10 to p90".into(),
        series: series.filter(|s| !s.x.is_empty()).collect(),
        marks: Vec::new(),
        y_range: None,
        logarithmic: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(limit: f64) -> SweepOptions {
        SweepOptions {
            backend: Choice::Cpu,
            repeats: 1,
            threads: ThreadOptions::default(),
            limit,
            out: PathBuf::new(),
        }
    }

    #[test]
    fn a_sweep_without_time_measures_once_and_names_the_rest() {
        let backends = Backends::open(Choice::Cpu).unwrap();
        let measured = measure_all(&backends, &options(0.0), Instant::now()).unwrap();
        assert_eq!(measured.iter().map(|m| m.points.len()).collect::<Vec<_>>(), [1, 0, 0]);
        let json = to_json(&measured, &options(0.0), Duration::ZERO);
        assert_eq!(json["axes"][0]["left_out"], json!([64, 128, 256, 512]));
        assert_eq!(json["axes"][2]["left_out"], json!(AXES[2].values));
        assert!(json["adapter"].is_null() && json["axes"][0]["crossover"].is_null());
        assert!(verdict(&measured[0]).contains("nothing to compare"));
        let svg = chart(&measured[0]).svg().unwrap();
        assert!(svg.contains("fused") && svg.contains("Time of an update by hidden"));
        assert!(chart(&measured[1]).svg().unwrap().contains("no data yet"));
    }

    #[test]
    fn a_crossover_lies_between_two_values_by_factors_and_lasts() {
        assert_eq!(crossover(&[]), None);
        assert_eq!(crossover(&[(32, 4.0), (64, 2.0)]), None);
        assert_eq!(crossover(&[(32, 0.5), (64, 0.4)]), Some(32.0));
        let between = crossover(&[(32, 4.0), (64, 2.0), (256, 0.5)]).unwrap();
        assert!((between - 128.0).abs() < 1e-9, "{between}");
        // One lucky size is none.
        assert_eq!(crossover(&[(32, 0.9), (64, 1.5)]), None);
    }

    #[test]
    fn minutes_have_a_range() {
        assert_eq!(minutes("0.5"), Ok(0.5));
        assert!(minutes("-1").is_err() && minutes("NaN").is_err() && minutes("1e9").is_err());
    }
}

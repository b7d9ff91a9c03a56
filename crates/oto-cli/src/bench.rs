//! `oto bench`: how fast this machine updates a student, on each of its backends.

use crate::backend::by_name;
use crate::sweep::{SweepOptions, sweep};
use clap::{Args, Subcommand, ValueEnum};
use oto_bench::measure::{ByHand, Failure};
use oto_bench::report::{Entry, Report, measure};
use oto_bench::workload::{Shape, Workload, distillation};
use oto_bench::{gpu, products};
use oto_experiments::chart::ChartError;
use oto_graph::{Backend, BackendError};
use std::path::PathBuf;
use std::time::Duration;

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
    /// Updates of many sizes, by width, quantiles and batch
    Sweep(SweepOptions),
    /// Matrix products on one core, beside NumPy's and PyTorch's where Python has them
    Products(ProductsOptions),
    /// A graphics device beside this processor: dispatches, best rates, updates of many sizes
    Gpu(GpuOptions),
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
    /// Measure a plain distillation step (8-64-64-4) instead
    #[arg(long)]
    distillation: bool,
    /// Backends to measure; candle and the hand-written step are always included
    #[arg(long, value_enum, default_value_t = Choice::All)]
    backend: Choice,
    /// Blocks of updates for each backend
    #[arg(long, default_value_t = 30)]
    repeats: u32,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// The table of products.
#[derive(Args, Clone, Debug)]
struct ProductsOptions {
    /// Python with numpy and torch
    #[arg(long, default_value = "python3", value_name = "PROGRAM")]
    python: String,
    /// Turns of each library for each product
    #[arg(long, default_value_t = 5)]
    repeats: u32,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// A graphics device.
#[derive(Args, Clone, Debug)]
struct GpuOptions {
    /// Seconds for each of the seven sizes; a slow device takes longer
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Only updates whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Which of oto's backends.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All available ones.
    All,
    /// The CPU.
    Cpu,
    /// The reference only.
    Candle,
    /// The graphics device; an error if there is none.
    Webgpu,
}

impl Choice {
    /// Names for [`by_name`]: candle first, which all others are held against.
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
    /// A backend is not here.
    #[error(transparent)]
    Backend(#[from] BackendError),
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
        What::Products(options) => products(options),
        What::Gpu(options) => gpu(options),
    }
}

fn gpu(options: &GpuOptions) -> Result<(), BenchError> {
    let (cpu, device) = (by_name("cpu")?, by_name("webgpu")?);
    let workloads: Vec<_> =
        gpu::all().into_iter().filter(|workload| workload.name().contains(&options.only)).collect();
    let (backends, limit) = ((cpu.as_ref(), device.as_ref()), Duration::from_secs(options.seconds));
    let report = gpu::run(backends, &workloads, limit, |name| crate::note!("{name}"))?;
    match options.json {
        true => crate::out!("{:#}", report.to_json()),
        false => crate::out!("{report}"),
    }
    Ok(())
}

fn products(options: &ProductsOptions) -> Result<(), BenchError> {
    let peers = products::Peers::start(&options.python);
    let table = products::measure(&products::all(), peers, options.repeats)?;
    match options.json {
        true => crate::out!("{:#}", table.to_json()),
        false => crate::out!("{}", table.to_string().trim_end()),
    }
    Ok(())
}

fn update(options: &UpdateOptions) -> Result<(), BenchError> {
    let shape = Shape { hidden: options.hidden, quantiles: options.quantiles, batch: options.batch };
    let workload = if options.distillation { distillation(SEED) } else { Workload::new(shape, SEED) };
    let report = Backends::open(options.backend)?.measure(&workload, options.repeats, Duration::MAX)?;
    match options.json {
        true => crate::out!("{:#}", report.to_json()),
        false => crate::out!("{}", report.to_string().trim_end()),
    }
    Ok(())
}

/// The numbers do not matter for the time, but everyone should have the same.
pub const SEED: u64 = 1;

/// Backends that are opened once and measured on many workloads.
pub struct Backends {
    here: Vec<(&'static str, Box<dyn Backend>)>,
    absent: Vec<(String, String)>,
    /// Whether one that cannot do it is left out with its reason, and not an error.
    lenient: bool,
}

impl Backends {
    /// Opens what was chosen. Where that is all of them, those that are not here are left out.
    pub fn open(choice: Choice) -> Result<Self, BackendError> {
        let mut all = Self { here: Vec::new(), absent: Vec::new(), lenient: choice == Choice::All };
        for name in choice.backends() {
            match by_name(name) {
                Ok(backend) => all.here.push((name, backend)),
                Err(error) if all.lenient => all.absent.push((name.to_string(), error.to_string())),
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Times one workload on each, and the step fused by hand: `repeats` blocks, or what begins within `limit`.
    pub fn measure(&self, workload: &Workload, repeats: u32, limit: Duration) -> Result<Report, Failure> {
        let (mut entries, mut absent) = (Vec::new(), self.absent.clone());
        for (name, backend) in &self.here {
            match Entry::of(name, backend.as_ref(), workload) {
                Ok(entry) => entries.push(entry),
                // A device has limits of its own.
                Err(error) if self.lenient && backend.adapter().is_some() => {
                    absent.push((name.to_string(), error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        entries.push(Entry::whole(ByHand::new(workload)));
        measure(workload, entries, absent, repeats, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_measured_beside_the_cpu() {
        let Ok(device) = by_name("webgpu") else { return };
        let small = [Workload::new(Shape { hidden: 8, quantiles: 4, batch: 8 }, SEED)];
        let cpu = by_name("cpu").unwrap();
        let report = gpu::run((cpu.as_ref(), device.as_ref()), &small, Duration::ZERO, |_| ()).unwrap();
        assert!(report.rates.shortest > 0.0, "{report}");
        assert!(report.rates.products.0 > 0.0 && report.rates.memory > 0.0, "{report}");
        assert_eq!(report.updates[0].rows.len(), 2);
        assert_eq!(report.crossover(), None, "no size of the table was measured");
    }

    #[test]
    fn everyone_is_in_the_report_or_absent() {
        let workload = Workload::new(Shape { hidden: 8, quantiles: 4, batch: 8 }, SEED);
        let report = Backends::open(Choice::All).unwrap().measure(&workload, 1, Duration::MAX).unwrap();
        for name in ["candle", "cpu", "webgpu", "fused"] {
            let absent = report.absent.iter().any(|(n, _)| n == name);
            assert!(report.median(name).is_some() != absent, "{name}");
        }
        let webgpu = report.rows.iter().find(|row| row.name == "webgpu");
        assert!(webgpu.is_none_or(|row| row.adapter.as_ref().is_some_and(|a| !a.name.is_empty())));
    }

    #[test]
    fn sizes_have_a_range() {
        assert_eq!(size("64"), Ok(64));
        assert!(size("0").is_err() && size("4097").is_err() && size("x").is_err());
    }
}

//! A graphics device beside this processor, in one run: the time of a dispatch, the rates that the device reaches at best, and
//! updates of many sizes with their share of those rates. Each update is compared with the CPU's.

use crate::measure::{Contestant, Failure, Products, interleave, matrix_operations};
use crate::report::{Entry, Report, measure};
use crate::workload::{Continuous, Shape, Task, Workload};
use oto_graph::{Adapter, Backend, Program, Trace};
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// Names of the contestants.
const CPU: &str = "cpu";
const DEVICE: &str = "device";
const SEED: u64 = 1;
/// Widths of the QR-DQN updates, the smallest first; batch and quantiles.
const WIDTHS: [usize; 5] = [64, 128, 256, 512, 1024];
const BATCH: usize = 256;
const QUANTILES: usize = 32;
/// Dispatches of the longer one of two chains.
const CHAIN: usize = 101;
/// Width of a chain's products: less work than a dispatch.
const SMALL: usize = 8;
/// Widths of square products that look for the best rate. A slow device ends the search.
const SQUARES: [usize; 4] = [512, 1024, 2048, 4096];
const SLOW: f64 = 0.05;
/// Numbers in a vector that looks for the memory's rate: 16 MiB.
const VECTOR: usize = 4 << 20;
/// Bytes that the sum of two such vectors moves for one number.
const MOVED: f64 = 12.0;
const REPEATS: u32 = 9;

/// Rates of a device at its best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Seconds of one more dispatch in an update.
    pub dispatch: f64,
    /// Seconds of an update with a single dispatch, from its start to its report.
    pub shortest: f64,
    /// Floating-point operations a second of the fastest square product, and its width.
    pub products: (f64, usize),
    /// Bytes a second that the sum of two long vectors moves.
    pub memory: f64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuReport {
    /// The device.
    pub adapter: Adapter,
    /// Its rates.
    pub rates: Rates,
    /// Updates on the CPU and on the device, by size.
    pub updates: Vec<Report>,
}

fn qr_dqn(hidden: usize) -> Task {
    Task::QrDqn(Shape { hidden, quantiles: QUANTILES, batch: BATCH })
}

/// Updates of all sizes: QR-DQN by width, SAC, and ten critics.
pub fn all() -> Vec<Workload> {
    let large = Continuous { hidden: 256, batch: 256 };
    let tasks = WIDTHS.into_iter().map(qr_dqn).chain([Task::Sac(large), Task::Critics(10, large)]);
    tasks.map(|task| Workload::draw(task, SEED)).collect()
}

/// Measures `device` beside `cpu`: `limit` for each of `workloads`. `tell` gets the name of each before it begins.
///
/// # Errors
/// A backend that fails, or a device whose update is another one than the CPU's.
pub fn run(
    (cpu, device): (&dyn Backend, &dyn Backend),
    workloads: &[Workload],
    limit: Duration,
    mut tell: impl FnMut(&str),
) -> Result<GpuReport, Failure> {
    let Some(adapter) = device.adapter().cloned() else {
        return Err(Failure::Peer(format!("{}: expected a device, got this processor", device.name())));
    };
    tell("rates of the device");
    let rates = rates(device)?;
    let mut updates = Vec::new();
    for workload in workloads {
        tell(&workload.name());
        let entries = vec![Entry::of(CPU, cpu, workload)?, Entry::of(DEVICE, device, workload)?];
        updates.push(measure(workload, entries, Vec::new(), u32::MAX, limit)?);
    }
    Ok(GpuReport { adapter, rates, updates })
}

fn rates(device: &dyn Backend) -> Result<Rates, Failure> {
    let [shortest, longer] = [1, CHAIN].map(|count| seconds(device, chain(count)));
    let (shortest, longer) = (shortest?, longer?);
    let mut products = (0.0, 0);
    for width in SQUARES {
        let program = square(width);
        let operations = matrix_operations(&program);
        let took = seconds(device, program)?;
        if operations / took > products.0 {
            products = (operations / took, width);
        }
        if took > SLOW {
            break;
        }
    }
    Ok(Rates {
        dispatch: (longer - shortest).max(0.0) / (CHAIN - 1) as f64,
        shortest,
        products,
        memory: MOVED * VECTOR as f64 / seconds(device, sum(VECTOR))?,
    })
}

/// Median time of a program's run.
fn seconds(device: &dyn Backend, program: Program) -> Result<f64, Failure> {
    let mut contestants: [Box<dyn Contestant>; 1] = [Box::new(Products::of(DEVICE, device, program)?)];
    Ok(interleave(&mut contestants, REPEATS, Duration::from_secs(2))?[0].median)
}

/// `count` small products, each of the result of the one before.
fn chain(count: usize) -> Program {
    let t = &Trace::new();
    let (start, factor) = (t.state("x", &[SMALL; 2]), t.state("w", &[SMALL; 2]));
    let end = (0..count).fold(start, |x, _| x.matmul(factor, false, false));
    t.finish(&[(start, end)], &[])
}

fn square(width: usize) -> Program {
    let t = &Trace::new();
    let [a, b, product] = ["a", "b", "product"].map(|name| t.state(name, &[width; 2]));
    t.finish(&[(product, a.matmul(b, false, false))], &[])
}

fn sum(length: usize) -> Program {
    let t = &Trace::new();
    let [a, b, sum] = ["a", "b", "sum"].map(|name| t.state(name, &[length]));
    t.finish(&[(sum, a + b)], &[])
}

impl GpuReport {
    /// The narrowest QR-DQN update of which the device makes more a second than the CPU does.
    pub fn crossover(&self) -> Option<usize> {
        let faster = |report: &&Report| report.median(DEVICE) < report.median(CPU);
        let first = self.updates.iter().find(faster)?;
        WIDTHS.into_iter().find(|hidden| qr_dqn(*hidden).to_string() == first.workload)
    }

    /// The share of the best products' rate that an update's products reach on the device.
    fn share(&self, report: &Report) -> Option<f64> {
        let row = report.rows.iter().find(|row| row.name == DEVICE)?;
        Some(report.operations / row.products?.median / self.rates.products.0)
    }

    /// Everything, in microseconds and units of 1e9.
    pub fn to_json(&self) -> Value {
        let Rates { dispatch, shortest, products: (products, width), memory } = self.rates;
        let update = |report: &Report| {
            let mut json = report.to_json();
            json["share_of_best_products"] = json!(self.share(report));
            json
        };
        json!({
            "adapter": { "name": self.adapter.name, "kind": self.adapter.kind, "api": self.adapter.api },
            "dispatch_us": dispatch * 1e6,
            "shortest_update_us": shortest * 1e6,
            "best_products": { "gflops": products / 1e9, "width": width },
            "memory_gigabytes_per_second": memory / 1e9,
            "crossover_width": self.crossover(),
            "updates": self.updates.iter().map(update).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for GpuReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rates { dispatch, shortest, products: (products, width), memory } = self.rates;
        let Adapter { name, kind, api } = &self.adapter;
        writeln!(f, "{name}, {kind}, {api}")?;
        writeln!(f, "one dispatch {:.1} us; shortest update {:.1} us", dispatch * 1e6, shortest * 1e6)?;
        writeln!(
            f,
            "best products {:.1} GFLOP/s ({width} wide); memory {:.1} GB/s",
            products / 1e9,
            memory / 1e9
        )?;
        writeln!(f, "{:<40} {:>11} {:>11} {:>8} {:>9}", "", "cpu", "device", "ratio", "of best")?;
        for report in &self.updates {
            let rate = |name: &str| report.median(name).map_or(f64::NAN, f64::recip);
            let (cpu, device) = (rate(CPU), rate(DEVICE));
            let share = self.share(report).unwrap_or(f64::NAN) * 100.0;
            writeln!(
                f,
                "{:<40} {cpu:>11.1} {device:>11.1} {:>8.2} {share:>7.0} %",
                report.workload,
                device / cpu
            )?;
        }
        match self.crossover() {
            Some(width) => write!(f, "updates a second; QR-DQN is faster on the device from {width} wide"),
            None => write!(f, "updates a second; QR-DQN is faster on the CPU at every width"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Spread;
    use crate::report::Row;
    use oto_cpu::Cpu;

    #[test]
    fn a_processor_is_no_device() {
        let error = run((&Cpu, &Cpu), &[], Duration::ZERO, |_| ()).unwrap_err();
        assert_eq!(error.to_string(), "cpu: expected a device, got this processor");
    }

    #[test]
    fn a_chain_has_as_many_products() {
        let operations = |count| matrix_operations(&chain(count));
        assert_eq!(operations(7), 7.0 * operations(1));
        assert_eq!(operations(1), 2.0 * 512.0);
    }

    #[test]
    fn the_device_is_faster_from_its_first_size_on() {
        let report = |hidden, cpu, device| {
            let workload = qr_dqn(hidden).to_string();
            let row = |name: &str, seconds| Row {
                name: name.into(),
                update: Spread::of(vec![seconds]),
                products: Some(Spread::of(vec![seconds / 2.0])),
                adapter: None,
            };
            let (peaks, rows) = (Vec::new(), vec![row(CPU, cpu), row(DEVICE, device)]);
            Report { workload, operations: 1e6, processor: String::new(), peaks, rows, absent: Vec::new() }
        };
        let rates = Rates { dispatch: 1e-5, shortest: 1e-4, products: (1e10, 512), memory: 1e9 };
        let adapter = Adapter { name: "it".into(), kind: "software", api: "none" };
        let updates = vec![report(64, 1e-3, 2e-3), report(128, 2e-3, 1e-3), report(256, 4e-3, 1e-3)];
        let mut all = GpuReport { adapter, rates, updates };
        assert_eq!(all.crossover(), Some(128));
        // 1e6 operations in half a millisecond, of 1e10 a second.
        assert_eq!(all.to_json()["updates"][1]["share_of_best_products"], json!(0.2));
        all.updates.truncate(1);
        assert_eq!(all.crossover(), None);
        assert!(all.to_string().ends_with("faster on the CPU at every width"), "{all}");
    }
}

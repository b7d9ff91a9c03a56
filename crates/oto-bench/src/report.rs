//! What a measurement found, as a table and as JSON.

use crate::measure::{self, Compiled, Contestant, Failure, Peak, Products, Spread, interleave};
use crate::workload::Workload;
use oto_graph::{Adapter, Backend};
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// Someone to be measured.
pub struct Entry {
    /// The update.
    pub contestant: Box<dyn Contestant>,
    /// Its matrix products alone, where they can be had.
    pub products: Option<Box<dyn Contestant>>,
    /// What it runs on, if not the processor.
    pub adapter: Option<Adapter>,
}

impl Entry {
    /// `workload` on one of oto's backends, called `name`.
    pub fn of(name: &str, backend: &dyn Backend, workload: &Workload) -> Result<Self, Failure> {
        Ok(Self {
            contestant: Box::new(Compiled::new(name, backend, workload)?),
            products: Some(Box::new(Products::new(name, backend, workload)?)),
            adapter: backend.adapter().cloned(),
        })
    }

    /// A contestant whose matrix products cannot be had alone.
    pub fn whole(contestant: impl Contestant + 'static) -> Self {
        Self { contestant: Box::new(contestant), products: None, adapter: None }
    }
}

/// One contestant's seconds per update.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The whole update.
    pub update: Spread,
    /// Its matrix products alone.
    pub products: Option<Spread>,
    /// What it ran on, if not the processor.
    pub adapter: Option<Adapter>,
}

/// One workload's measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The workload's name.
    pub workload: String,
    /// Floating-point operations in its matrix products.
    pub operations: f64,
    /// Where it ran.
    pub processor: String,
    /// What one core there reaches, the widest instructions last.
    pub peaks: Vec<Peak>,
    /// The contestants, the reference first.
    pub rows: Vec<Row>,
    /// Who did not take part, and why.
    pub absent: Vec<(String, String)>,
}

/// Holds all entries against the first, then times them in turn: `repeats` blocks each, or what begins within `limit`.
pub fn measure(
    workload: &Workload,
    mut entries: Vec<Entry>,
    absent: Vec<(String, String)>,
    repeats: u32,
    limit: Duration,
) -> Result<Report, Failure> {
    let mut reference = None;
    for entry in &mut entries {
        let outcome = entry.contestant.check()?;
        outcome.agrees(entry.contestant.name(), reference.get_or_insert_with(|| outcome.clone()))?;
    }
    let kinds = entries.iter().map(|e| (e.products.is_some(), e.adapter.clone())).collect::<Vec<_>>();
    let mut all =
        entries.into_iter().flat_map(|e| [Some(e.contestant), e.products]).flatten().collect::<Vec<_>>();
    let peaks = measure::peaks();
    let mut spreads = interleave(&mut all, repeats, limit)?.into_iter();
    let mut names = all.iter().map(|c| c.name().to_string());
    let mut rows = Vec::new();
    for (with_products, adapter) in kinds {
        let (Some(name), Some(update)) = (names.next(), spreads.next()) else { break };
        let products = if with_products { names.next().and(spreads.next()) } else { None };
        rows.push(Row { name, update, products, adapter });
    }
    let operations = measure::matrix_operations(&workload.program());
    let (workload, processor) = (workload.name(), measure::processor());
    Ok(Report { workload, operations, processor, peaks, rows, absent })
}

impl Report {
    /// The median of the contestant of this name.
    pub fn median(&self, name: &str) -> Option<f64> {
        self.rows.iter().find(|r| r.name == name).map(|r| r.update.median)
    }

    /// The share of a core's peak that a row's products reach; a device has another peak, which nobody measured.
    fn share_of_peak(&self, row: &Row) -> Option<f64> {
        let peak = self.peaks.iter().map(|p| p.per_second).fold(0.0, f64::max);
        let products = row.products.filter(|_| row.adapter.is_none())?;
        Some(self.operations / products.median / peak)
    }

    /// Everything, in microseconds and GFLOP/s.
    pub fn to_json(&self) -> Value {
        let micro = |s: f64| s * 1e6;
        let spread = |s: &Spread| json!({ "blocks": s.blocks, "median_us": micro(s.median), "p10_us": micro(s.p10), "p90_us": micro(s.p90) });
        let adapter = |a: &Adapter| json!({ "name": a.name, "kind": a.kind, "api": a.api });
        let row = |r: &Row| {
            let speedup = |name: &str| self.median(name).map(|m| m / r.update.median);
            let rate = |s: &Spread| self.operations / s.median;
            json!({
                "name": r.name,
                "update": spread(&r.update),
                "updates_per_second": 1.0 / r.update.median,
                "speedup_against_candle": speedup("candle"),
                "speedup_against_fused": speedup("fused"),
                "gflops": rate(&r.update) / 1e9,
                "products": r.products.as_ref().map(spread),
                "products_gflops": r.products.as_ref().map(|p| rate(p) / 1e9),
                "products_share_of_peak": self.share_of_peak(r),
                "adapter": r.adapter.as_ref().map(adapter),
            })
        };
        let peak = |p: &Peak| json!({ "instructions": p.instructions, "gflops": p.per_second / 1e9 });
        let absent = |(name, why): &(String, String)| json!({ "name": name, "reason": why });
        json!({
            "workload": self.workload,
            "matrix_operations": self.operations,
            "processor": self.processor,
            "peak": self.peaks.iter().map(peak).collect::<Vec<_>>(),
            "results": self.rows.iter().map(row).collect::<Vec<_>>(),
            "absent": self.absent.iter().map(absent).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peaks = self.peaks.iter().map(|p| format!("{} {:.1}", p.instructions, p.per_second / 1e9));
        let peaks = peaks.collect::<Vec<_>>().join(", ");
        writeln!(f, "{}: {:.2} MFLOP in matrix products", self.workload, self.operations / 1e6)?;
        writeln!(f, "{}; one core's peak in GFLOP/s: {peaks}", self.processor)?;
        let heads =
            ["us median", "p10", "p90", "updates/s", "x candle", "x fused", "GFLOP/s", "products", "of peak"];
        write!(f, "{:<16}", "")?;
        heads.iter().try_for_each(|h| write!(f, "{h:>11}"))?;
        writeln!(f)?;
        for row in &self.rows {
            let (update, micro) = (row.update, |s: f64| format!("{:.1}", s * 1e6));
            let speedup =
                |name| self.median(name).map_or("-".into(), |m| format!("{:.2}", m / update.median));
            let products = row.products.map(|p| self.operations / p.median);
            let cells = [
                micro(update.median),
                micro(update.p10),
                micro(update.p90),
                format!("{:.0}", 1.0 / update.median),
                speedup("candle"),
                speedup("fused"),
                format!("{:.1}", self.operations / update.median / 1e9),
                products.map_or("-".into(), |p| format!("{:.1}", p / 1e9)),
                self.share_of_peak(row).map_or("-".into(), |share| format!("{:.0} %", 100.0 * share)),
            ];
            write!(f, "{:<16}", row.name)?;
            cells.iter().try_for_each(|c| write!(f, "{c:>11}"))?;
            writeln!(f)?;
        }
        for row in &self.rows {
            row.adapter.iter().try_for_each(|adapter| writeln!(f, "{}: on {adapter}", row.name))?;
        }
        self.absent.iter().try_for_each(|(name, why)| writeln!(f, "{name}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::ByHand;
    use crate::workload::Shape;
    use oto_candle::Candle;
    use oto_cpu::Cpu;

    #[test]
    fn a_measurement_has_a_row_for_each() {
        let workload = Workload::new(Shape { hidden: 16, quantiles: 8, batch: 16 }, 1);
        let cpu = Entry::of("cpu", &Cpu, &workload).unwrap();
        let candle = Entry::whole(Compiled::new("candle", &Candle, &workload).unwrap());
        let entries = vec![candle, cpu, Entry::whole(ByHand::new(&workload))];
        let report =
            measure(&workload, entries, vec![("webgpu".into(), "not here".into())], 1, Duration::MAX)
                .unwrap();
        let json = report.to_json();
        assert_eq!(json["results"][0]["speedup_against_candle"], 1.0);
        assert!(json["results"][1]["products_share_of_peak"].as_f64().unwrap() > 0.0);
        assert_eq!(json["results"][2]["name"], "fused");
        assert_eq!(json["absent"][0]["name"], "webgpu");
        let table = report.to_string();
        assert!(table.contains("candle") && table.contains("webgpu: not here") && table.lines().count() == 7);
    }
}

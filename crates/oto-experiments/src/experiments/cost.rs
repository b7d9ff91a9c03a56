//! What a taught run costs in bytes, measured, against shipping something once: a dataset, a replay buffer, the teacher's weights.

use super::cartpole::{self, EXPERT, arm, taught};
use super::cell;
use crate::chart::{Chart, PALETTE, Series};
use crate::runs::{self, Arm, Finished};
use crate::statistics::mean;
use crate::teachers;
use crate::write::{self, Table};
use crate::{Experiment, Options, ReportError};
use oto_policy::bundled;
use oto_proto::{Dtype, HEADER_BYTES};
use serde::Serialize;

/// `oto report cost`.
pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "cost",
    about: "Bytes on the wire of a taught run, beside sending a dataset, a replay buffer or the teacher's weights",
    run: report,
};

/// Seeds of the experiments whose runs are measured: what they have finished is not run again.
const SEEDS: [u64; 3] = [cartpole::FIRST_SEED, cartpole::FIRST_SEED, cell::FIRST_SEED];
const MAX_SEEDS: u64 = 3;
/// Versions that a teacher which goes on training may publish while a student learns.
const VERSIONS: u64 = 10;

/// A measured run and what could be shipped in its stead, all in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Cost {
    name: String,
    steps: f64,
    labels: f64,
    up: f64,
    down: f64,
    /// Numbers in an observation, and the bytes of each.
    width: usize,
    number: usize,
    /// States in a request.
    batch: usize,
    /// The teacher's model file.
    weights: f64,
}

impl Cost {
    fn measured(arm: &Arm, runs: &[Finished], width: usize, weights: usize) -> Self {
        let average = |of: fn(&Finished) -> f64| mean(&runs.iter().map(of).collect::<Vec<_>>());
        Cost {
            name: arm.title.into(),
            steps: arm.job.student.steps as f64,
            labels: average(|r| r.labels as f64),
            up: average(|r| r.bytes_up as f64),
            down: average(|r| r.bytes_down as f64),
            width,
            number: if arm.job.teachers.iter().all(|t| t.dtype == Dtype::F16) { 2 } else { 4 },
            batch: arm.job.student.request_batch,
            weights: weights as f64,
        }
    }

    /// What WebSocket adds to the frames of all labels. A discrete action is one byte.
    fn framing(&self) -> f64 {
        let states = HEADER_BYTES + self.batch * self.width * self.number;
        let actions = HEADER_BYTES + self.batch;
        (framing(states, true) + framing(actions, false)) as f64 * self.labels / self.batch as f64
    }

    /// All that crosses the wire: messages and their framing.
    fn whole(&self) -> f64 {
        self.up + self.down + self.framing()
    }

    fn per_label(&self) -> f64 {
        (self.up + self.down) / self.labels.max(1.0)
    }

    /// A transition without compression: a 32-bit observation (the next one is the next row's), action and flags a byte each,
    /// a 32-bit reward.
    fn transition(&self) -> f64 {
        (4 * self.width + 6) as f64
    }

    /// A dataset or a replay buffer of as many transitions as the run has steps.
    fn transitions(&self) -> f64 {
        self.transition() * self.steps
    }

    /// Labels that cost as much as sending the weights so many times.
    fn break_even(&self, versions: u64) -> f64 {
        versions as f64 * self.weights / self.per_label()
    }
}

/// The bytes that a WebSocket frame has beside its payload (RFC 6455, section 5.2): those of students are masked.
fn framing(payload: usize, masked: bool) -> usize {
    let length = match payload {
        0..=125 => 0,
        126..=65_535 => 2,
        _ => 8,
    };
    2 + length + if masked { 4 } else { 0 }
}

/// A case that was not run: what the wire's format makes of it, in bytes.
struct Case {
    name: &'static str,
    /// Bytes of a state as it travels, of an action, and of the teacher's weights.
    state: f64,
    action: f64,
    weights: f64,
    /// States in a request.
    batch: f64,
}

/// States of a request, as students ask by default.
const BATCH: f64 = 8.0;
/// States of a request where nothing waits for labels.
const LARGE: f64 = 64.0;

impl Case {
    fn per_label(&self) -> f64 {
        self.state + self.action + 2.0 * HEADER_BYTES as f64 / self.batch
    }
}

/// Numbers of a network with these widths, four bytes each.
fn network(widths: &[usize]) -> f64 {
    4.0 * widths.windows(2).map(|w| (w[0] + 1) * w[1]).sum::<usize>() as f64
}

fn cases() -> Vec<Case> {
    // Nature's network (Mnih et al. 2015) for six actions.
    let atari = 4 * ((8 * 8 * 4 + 1) * 32 + (4 * 4 * 32 + 1) * 64 + (3 * 3 * 64 + 1) * 64);
    let pixels = (84 * 84 * 4) as f64;
    vec![
        Case {
            name: "CartPole, 64-64 policy",
            state: 16.0,
            action: 1.0,
            weights: network(&[4, 64, 64, 2]),
            batch: BATCH,
        },
        Case {
            name: "CartPole, 16-bit states",
            state: 8.0,
            action: 1.0,
            weights: network(&[4, 64, 64, 2]),
            batch: BATCH,
        },
        Case {
            name: "CartPole, 64 states in a request",
            state: 16.0,
            action: 1.0,
            weights: network(&[4, 64, 64, 2]),
            batch: LARGE,
        },
        Case {
            name: "HalfCheetah, 256-256 policy",
            state: 68.0,
            action: 24.0,
            weights: network(&[17, 256, 256, 12]),
            batch: BATCH,
        },
        Case {
            name: "Atari, Nature's network, states as bytes",
            state: pixels,
            action: 1.0,
            weights: atari as f64 + network(&[3136, 512, 6]),
            batch: BATCH,
        },
        Case {
            name: "CartPole's states, a teacher of 100 million numbers",
            state: 16.0,
            action: 1.0,
            weights: 4e8,
            batch: BATCH,
        },
    ]
}

fn arms() -> Vec<(Arm, usize, &'static str)> {
    let mut half = taught(EXPERT);
    half.teachers[0].dtype = Dtype::F16;
    let expert = || teachers::bundled(EXPERT);
    let mut cell = cell::arms().swap_remove(0);
    cell.title = "cell selection, taught by LTE's PPO";
    vec![
        // The same run, by name and settings, as in the section on CartPole.
        (arm("taught", "CartPole, taught by InvertedPendulum's SAC", taught(EXPERT), expert()), 4, EXPERT),
        (arm("taught-f16", "the same, states with 16 bits a number", half, expert()), 4, EXPERT),
        (cell, 15, "ppo_mobile_lte"),
    ]
}

/// Runs what is missing and writes the section on bytes.
fn report(options: &Options) -> Result<String, ReportError> {
    let count = options.seeds.unwrap_or(MAX_SEEDS).min(MAX_SEEDS);
    let mut costs = Vec::new();
    for ((mut arm, width, teacher), first) in arms().into_iter().zip(SEEDS) {
        if width == 4 {
            arm.job.student.steps = options.steps;
        }
        let seeds = (first..first + count).collect::<Vec<_>>();
        let runs = runs::all(options, std::slice::from_ref(&arm), &seeds)?;
        costs.push(Cost::measured(&arm, &runs[0], width, bundled::bytes(teacher).unwrap_or(0)));
    }
    write::chart(&options.out, "cost", &chart(&costs[0], &costs[1]))?;
    let text = format!(
        include_str!("cost.md"),
        count = count,
        versions = VERSIONS,
        measured = measured(&costs),
        cases = table_of_cases(),
        verdict = verdict(&costs[0]),
        dataset = against_dataset(&costs),
    );
    write::section(&options.out, "cost", &text)?;
    let json = serde_json::json!({ "experiment": "cost", "runs": costs, "versions": VERSIONS });
    write::file(&options.out.join("results/cost.json"), json.to_string().as_bytes())?;
    Ok(format!("{}; {}", verdict(&costs[0]), options.out.join("results.md").display()))
}

fn measured(costs: &[Cost]) -> Table {
    let mut table = Table::new(&[
        "run",
        "steps",
        "labels",
        "states up, bytes",
        "actions down, bytes",
        "bytes a label",
        "all with WebSocket's framing, bytes",
        "dataset or replay of as many steps, bytes",
        "weights once, bytes",
        "labels that cost as much as the weights once",
        "with 10 versions",
    ]);
    for c in costs {
        let numbers = [c.steps, c.labels, c.up, c.down].map(write::whole);
        let shipped = [c.whole(), c.transitions(), c.weights, c.break_even(1), c.break_even(VERSIONS)];
        let shipped = shipped.map(write::whole);
        let mut cells = vec![c.name.clone()];
        cells.extend(numbers);
        cells.push(format!("{:.1}", c.per_label()));
        cells.extend(shipped);
        table.row(cells);
    }
    table
}

fn table_of_cases() -> Table {
    let mut table = Table::new(&["case", "bytes a label", "weights, bytes", "labels that cost as much"]);
    for c in cases() {
        let cells = [c.weights, c.weights / c.per_label()].map(write::whole);
        table.row([vec![c.name.into(), format!("{:.1}", c.per_label())], cells.into()].concat());
    }
    table
}

/// Each run's labels, framing included, against a dataset of its length, in sentences.
fn against_dataset(costs: &[Cost]) -> String {
    let sentence = |c: &Cost| {
        let (whole, dataset) = (c.whole(), c.transitions());
        let word = if whole < dataset { "less" } else { "more" };
        let share = 100.0 * (whole - dataset).abs() / dataset;
        format!(
            "- {}: {share:.1} % {word}, {} bytes against {}.",
            c.name,
            write::whole(whole),
            write::whole(dataset)
        )
    };
    costs.iter().map(sentence).collect::<Vec<_>>().join("\n")
}

/// The break-even of a run, in a sentence.
fn verdict(c: &Cost) -> String {
    let (labels, weights) = (c.up + c.down, c.weights);
    let cheaper = if weights < labels { "the weights are cheaper" } else { "the labels are cheaper" };
    format!(
        "a whole run's labels take {} bytes, the weights {}: {cheaper}, from label {} on for a teacher that never changes, from label {} \
         on for one that publishes {VERSIONS} versions",
        write::whole(labels),
        write::whole(weights),
        write::whole(c.break_even(1)),
        write::whole(c.break_even(VERSIONS)),
    )
}

/// Bytes over steps, both by factors.
fn chart(full: &Cost, half: &Cost) -> Chart {
    let x = (0..=20).map(|i| 10f64.powf(2.0 + (full.steps.max(200.0).log10() - 2.0) * f64::from(i) / 20.0));
    let x = x.collect::<Vec<_>>();
    let line = |name: &str, of: &dyn Fn(f64) -> f64| {
        (name.to_string(), x.iter().map(|s| of(*s)).collect::<Vec<_>>())
    };
    let lines: [(String, Vec<f64>); 5] = [
        line("labels, 32-bit states", &|s| s * full.per_label()),
        line("labels, 16-bit states", &|s| s * half.per_label()),
        line("transitions up (replay)", &|s| s * full.transition()),
        line("weights, once", &|_| full.weights),
        line("weights, 10 versions", &|_| full.weights * VERSIONS as f64),
    ];
    let series = lines.into_iter().zip(PALETTE).map(|((name, mid), colour)| Series {
        name,
        colour,
        x: x.clone(),
        mid,
        band: None,
    });
    Chart {
        title: "What crosses the wire".into(),
        subtitle: "CartPole-v1, one student: measured bytes a label against shipping something else".into(),
        x_label: "environment steps with a teacher".into(),
        y_label: "bytes".into(),
        series: series.collect(),
        marks: Vec::new(),
        y_range: None,
        logarithmic: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_break_even_is_where_both_cost_the_same() {
        let c = Cost {
            name: "x".into(),
            steps: 1e3,
            labels: 1e3,
            up: 18e3,
            down: 3e3,
            width: 4,
            number: 4,
            batch: 8,
            weights: 21e3,
        };
        assert_eq!((c.per_label(), c.break_even(1), c.break_even(10)), (21.0, 1_000.0, 10_000.0));
        assert_eq!(c.transitions(), 22e3);
        // Eight states in a frame of 144 bytes, eight actions in one of 24.
        assert_eq!(c.framing(), 125.0 * (8.0 + 2.0));
        assert_eq!(
            against_dataset(&[Cost { labels: 2e3, ..c.clone() }]),
            "- x: 6.8 % more, 23,500 bytes against 22,000."
        );
        assert!(verdict(&c).contains("labels are cheaper"), "as many bytes, and nothing else to ship");
        assert!(verdict(&Cost { weights: 20e3, ..c }).contains("weights are cheaper, from label 952 on"));
    }

    #[test]
    fn a_label_costs_what_frames_of_eight_cost() {
        let formats = oto_proto::HEADER_BYTES as f64;
        let cartpole = &cases()[0];
        assert_eq!(cartpole.per_label() * BATCH, (formats + 8.0 * 16.0) + (formats + 8.0));
        assert_eq!(network(&[4, 64, 64, 2]), 4.0 * (5.0 * 64.0 + 65.0 * 64.0 + 65.0 * 2.0));
    }
}

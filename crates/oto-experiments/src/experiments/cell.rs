//! Cell selection: a student in 5G taught by an agent that only ever saw LTE, against learning alone, against students from
//! LTE, and against six rules (OTO, section VI-B, figures 9 and 10).

use super::cartpole::curve;
use crate::chart::{Chart, PALETTE};
use crate::play::{self, Played};
use crate::runs::{self, Arm, Finished};
use crate::statistics::{bootstrap_mean, mean};
use crate::teachers;
use crate::write::{self, Table};
use crate::{Experiment, Options, ReportError};
use oto_agent::config::StudentConfig;
use oto_agent::evaluation::{Estimate, difference, gap_closed, mean_return};
use oto_agent::presets;
use oto_agent::run::Job;
use oto_agent::stage::StagesConfig;
use oto_agent::student::TeacherConfig;
use std::ops::Range;

/// `oto report cell`.
pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "cell",
    about: "Cell selection in 5G with an LTE agent as teacher, beside learning alone and rules",
    run: report,
};

const LTE: &str = "MobileCell-LTE-v0";
const NR: &str = "MobileCell-5G-v0";
const TEACHER: &str = "ppo_mobile_lte";
/// No tuning looked at these seeds.
pub(super) const FIRST_SEED: u64 = 9_300;
/// Episodes of the comparison: no student, teacher or tuning has seen them.
const TEST: Range<u64> = 50_000..50_100;
/// Full is the best there is here, and a student may be that much below it.
const MARGIN: f64 = 0.5;

fn alone(env: &str) -> Job {
    let student = StudentConfig { stages: StagesConfig::SOLO, ..presets::student(NR) };
    Job {
        env: env.into(),
        student,
        teachers: Vec::new(),
        defaults: None,
        from: None,
        dataset: None,
        workers: 1,
        distill: None,
        peer: None,
    }
}

fn taught() -> Job {
    let teacher = TeacherConfig {
        url: format!("memory://{TEACHER}"),
        policy: TEACHER.into(),
        adapter: None,
        learn_adapter: None,
        dtype: oto_proto::Dtype::F32,
        quantization: None,
        submit: false,
        weight: 1.0,
    };
    Job { student: presets::student(NR), teachers: vec![teacher], ..alone(NR) }
}

pub(super) fn arms() -> Vec<Arm> {
    let arm = |name, title, before, job: Job| {
        let teachers = if job.teachers.is_empty() { teachers::none() } else { teachers::bundled(TEACHER) };
        Arm { name, title, before, job, test: Some((NR, TEST)), teachers }
    };
    vec![
        arm("cell-taught", "5G, taught by LTE's PPO", None, taught()),
        arm("cell-online", "5G, alone (online)", None, alone(NR)),
        arm("cell-offline", "LTE, then as it is (off-to-on)", None, alone(LTE)),
        arm("cell-tuned", "LTE, then 5G alone", Some(alone(LTE)), alone(NR)),
    ]
}

/// A policy's returns in the test episodes, for a student the means over its training seeds.
struct Row {
    name: String,
    returns: Vec<f64>,
    /// The mean return of the worst training seed.
    worst: Option<f64>,
}

impl Row {
    fn trained(arm: &Arm, runs: &[Finished]) -> Self {
        let column =
            |i: usize| mean(&runs.iter().filter_map(|r| r.tested.get(i).copied()).collect::<Vec<_>>());
        let worst = runs.iter().map(|r| mean(&r.tested)).fold(f64::INFINITY, f64::min);
        Row {
            name: arm.title.into(),
            returns: (0..runs[0].tested.len()).map(column).collect(),
            worst: Some(worst),
        }
    }

    fn played(played: Played) -> Self {
        Row { name: played.name, returns: played.returns, worst: None }
    }
}

/// Runs what is missing and writes the section on cell selection.
fn report(options: &Options) -> Result<String, ReportError> {
    let seeds = (FIRST_SEED..FIRST_SEED + options.seeds.unwrap_or(10)).collect::<Vec<_>>();
    let arms = arms();
    let runs = runs::all(options, &arms, &seeds)?;
    let students = arms.iter().zip(&runs).map(|(arm, runs)| Row::trained(arm, runs)).collect::<Vec<_>>();
    let teacher = teacher_itself()?;
    let rules = play::play_rules(NR, TEST)?.into_iter().map(Row::played).collect::<Vec<_>>();
    let bound = Row::played(play::bound(NR, TEST)?);
    let rule = |name: &str| rules.iter().find(|r| r.name == name).expect("the six rules have these names");

    let mut table = Table::new(&[
        "policy",
        "mean return",
        "worst training seed",
        "taught minus this, paired",
        "share of the gap from LTE to the bound",
    ]);
    for row in students.iter().chain([&teacher]).chain(&rules).chain([&bound]) {
        let gap = gap_closed(&row.returns, &rule("LTE").returns, &bound.returns, 0)?;
        table.row(vec![
            row.name.clone(),
            shown(mean_return(&row.returns, 0)?),
            row.worst.map_or(String::new(), |w| format!("{w:.2}")),
            match std::ptr::eq(row, &students[0]) {
                true => String::new(),
                false => shown(difference(&students[0].returns, &row.returns, 0)?),
            },
            shown(gap),
        ]);
    }

    let shown_arms = [0, 1, 3];
    let series = shown_arms.iter().zip(PALETTE).map(|(&i, colour)| curve(arms[i].title, colour, &runs[i]));
    let mark = |row: &Row, name: &str| (mean(&row.returns), format!("{name}: {:.1}", mean(&row.returns)));
    let chart = Chart {
        title: "Cell selection: taught in 5G by an agent of LTE".into(),
        subtitle: format!("{NR}: mean greedy return of {} seeds, 95 % bootstrap band", seeds.len()),
        x_label: "environment steps in 5G".into(),
        y_label: "return".into(),
        series: series.collect(),
        marks: vec![mark(&bound, "best plan"), mark(rule("LTE"), "strongest station")],
        y_range: None,
        logarithmic: false,
    };
    write::chart(&options.out, "cell", &chart)?;

    let full = difference(&students[0].returns, &rule("Full").returns, 0)?;
    let text = format!(
        include_str!("cell.md"),
        count = seeds.len(),
        seeds = format!("{} to {}", seeds[0], seeds[seeds.len() - 1]),
        steps = write::whole(arms[0].job.student.steps as f64),
        episodes = TEST.end - TEST.start,
        table = table,
        full = shown(full),
        margin = MARGIN,
        verdict = if full.value >= -MARGIN { "within" } else { "outside" },
        early = early(&runs),
    );
    write::section(&options.out, "cell", &text)?;
    write::runs(&options.out, "cell", &arms, &runs)?;
    Ok(format!("taught minus Full: {}; {}", shown(full), options.out.join("results.md").display()))
}

/// The teacher itself, in the student's environment.
fn teacher_itself() -> Result<Row, ReportError> {
    let mut policy = teachers::bundled_policy(TEACHER)?;
    Ok(Row::played(Played {
        name: "LTE's PPO itself".into(),
        returns: play::play_model(&mut *policy, NR, TEST)?,
    }))
}

/// Mean returns at the first evaluations of the curves: how soon each is where it ends.
fn early(runs: &[Vec<Finished>]) -> Table {
    let mut table = Table::new(&["environment steps in 5G", "taught", "alone", "LTE, then alone"]);
    for (i, step) in runs[0][0].steps.iter().enumerate().take(10) {
        let at = |arm: usize| {
            let column = runs[arm].iter().filter_map(|r| r.returns.get(i).copied()).collect::<Vec<_>>();
            let (low, high) = bootstrap_mean(&column);
            format!("{:.1} ({low:.1} to {high:.1})", mean(&column))
        };
        table.row(vec![write::whole(*step as f64), at(0), at(1), at(3)]);
    }
    table
}

fn shown(e: Estimate) -> String {
    format!("{:.2} ({:.2} to {:.2})", e.value, e.low, e.high)
}

//! CartPole's second half: the method that the paper compares itself with, and what each part of AIKD and each kind of teacher
//! is good for (OTO, figures 5, 6 and 8).

use super::cartpole::{ENVIRONMENT, EXPERT, LAST, RANDOM, Runs, arm, taught};
use crate::runs::Arm;
use crate::statistics::{median, quantile};
use crate::teachers;
use crate::write::{self, Table};
use crate::{Options, ReportError};
use oto_agent::config::Linear;
use oto_agent::presets;
use oto_agent::run::Job;
use oto_agent::student::TeacherSpaces;
use oto_proto::Adapter;
use oto_rl::algorithms::Teaching;
use oto_rl::algorithms::qrdqn::QrDqnConfig;
use std::path::Path;

/// The expert, which says what it thinks.
const THINKER: &str = "sac_inverted_pendulum_v5_thoughts";
/// A policy that a file holds.
pub(super) const CQL: &str = "cql";

/// AIKD without one of its parts, or without both.
#[derive(Clone, Copy)]
pub(super) enum Parts {
    Base,
    Rkd,
    Neither,
}

pub(super) fn only(mut job: Job, parts: Parts) -> Job {
    let t = &mut job.student.transfer;
    match parts {
        Parts::Base => t.eta = 0.0,
        Parts::Rkd => t.delta = 0.0,
        Parts::Neither => (t.delta, t.eta) = (0.0, 0.0),
    }
    job
}

/// The same student, which the expert's policy and value are distilled into. Weights as AIKD's but for the value's, whose
/// squares are of the size of a return's.
fn distilled() -> Job {
    let mut job = taught(THINKER);
    job.student.algorithm =
        job.student.algorithm.with(|q: &mut QrDqnConfig| q.teaching = Teaching::SoftTargets);
    job.student.transfer.eta = VALUE_WEIGHT;
    job.teachers[0].adapter =
        presets::adapter(ENVIRONMENT, EXPERT).map(|known| Adapter { action: None, ..known });
    job
}

/// Of value matching beside policy distillation; see docs/results.md for how it was chosen.
const VALUE_WEIGHT: f64 = 1e-4;

/// Observations go to the teacher in the student's order, as if the spaces were the same.
fn unmapped(mut job: Job) -> Job {
    let adapter = job.teachers[0].adapter.take().unwrap_or_default();
    job.teachers[0].adapter = Some(Adapter { observation: None, ..adapter });
    job
}

/// The student finds the adapter itself.
fn learnt(mut job: Job) -> Result<Job, ReportError> {
    let teacher = &mut job.teachers[0];
    let policy = teachers::bundled_policy(&teacher.policy)?;
    let (observation, action) = (policy.observation_space().clone(), policy.action_space().clone());
    teacher.adapter = None;
    teacher.learn_adapter = Some(TeacherSpaces { observation, action });
    Ok(job)
}

/// The teacher is never left, whatever it costs.
fn kept(mut job: Job) -> Job {
    if let Some(transfer) = &mut job.student.stages.transfer {
        transfer.give_up = None;
    }
    job
}

/// All arms of this half.
pub fn arms(options: &Options) -> Result<Vec<Arm>, ReportError> {
    let expert = || teachers::bundled(EXPERT);
    let thinker = || teachers::thinker(THINKER);
    let coin = || teachers::random(RANDOM);
    let mut arms = vec![
        arm("learnt", "AIKD, adapter learnt", learnt(taught(EXPERT))?, expert()),
        arm("kd", "distilled: policy and value", distilled(), thinker()),
        arm("kd-unmapped", "distilled, observations not mapped", unmapped(distilled()), thinker()),
        arm("kd-kept", "distilled, not mapped, never given up", kept(unmapped(distilled())), thinker()),
        arm("unmapped", "AIKD, observations not mapped", unmapped(taught(EXPERT)), expert()),
        arm("unmapped-kept", "AIKD, not mapped, never given up", kept(unmapped(taught(EXPERT))), expert()),
        arm("base", "BASE only", only(taught(EXPERT), Parts::Base), expert()),
        arm("rkd", "RKD only", only(taught(EXPERT), Parts::Rkd), expert()),
        arm("neither", "neither", only(taught(EXPERT), Parts::Neither), expert()),
        arm("random-base", "BASE only", only(taught(RANDOM), Parts::Base), coin()),
        arm("random-rkd", "RKD only", only(taught(RANDOM), Parts::Rkd), coin()),
    ];
    if let Some(path) = &options.cql_teacher {
        let job = from_file(path)?;
        let cql = || teachers::from_file(CQL, path.clone());
        arms.push(arm("cql", "both", job.clone(), cql()));
        arms.push(arm("cql-base", "BASE only", only(job.clone(), Parts::Base), cql()));
        arms.push(arm("cql-rkd", "RKD only", only(job, Parts::Rkd), cql()));
    }
    Ok(arms)
}

/// A run taught by a policy from a file.
fn from_file(path: &Path) -> Result<Job, ReportError> {
    let mut job = taught(CQL);
    job.teachers[0].url = teachers::address(CQL, path)
        .map_err(|error| ReportError::File { path: path.to_path_buf(), error })?;
    Ok(job)
}

/// Draws the figures and writes the part of the section.
pub(super) fn text(out: &Path, all: &Runs<'_>) -> Result<String, ReportError> {
    let distilled = ["taught", "unmapped-kept", "kd", "kd-kept", "solo", "learnt"];
    write::chart(out, "cartpole-distillation", &all.chart("Action or thought, mapped or not", &distilled))?;
    let parts = ["taught", "base", "rkd", "neither", "solo"];
    write::chart(out, "cartpole-parts", &all.chart("Which part of AIKD teaches", &parts))?;

    let mut methods = comparison("method");
    for name in ["taught", "learnt", "unmapped", "unmapped-kept", "kd", "kd-unmapped", "kd-kept", "solo"] {
        methods.row(row(all, name, all.title(name)));
    }
    let mut ablations = comparison("teacher, parts");
    let of = |teacher: &str, arms: [&'static str; 4]| {
        let label = |part: &str| format!("{teacher}, {part}");
        ["both", "BASE only", "RKD only", "neither"].map(label).into_iter().zip(arms).collect::<Vec<_>>()
    };
    let rows = [
        of("expert", ["taught", "base", "rkd", "neither"]),
        of("CQL from random data", ["cql", "cql-base", "cql-rkd", "neither"]),
        of("random", ["random", "random-base", "random-rkd", "neither"]),
    ];
    for rows in rows.iter().filter(|rows| all.has(rows[0].1)) {
        rows.iter().for_each(|(label, name)| ablations.row(row(all, name, label)));
    }
    let cql = match all.has("cql") {
        true => String::new(),
        false => "No CQL teacher was given (`--cql-teacher`), so its rows are left out. ".into(),
    };
    Ok(format!(
        include_str!("ablations.md"),
        methods = methods,
        ablations = ablations,
        cql = cql,
        distillation = distillation(all),
        order = order(all),
        value_weight = VALUE_WEIGHT,
        alpha = slope(all.arms.iter().find(|a| a.name == "kd").map(|a| a.job.student.transfer.alpha_aikd)),
        threads = write::threads(),
        system = write::system(),
    ))
}

fn slope(alpha: Option<Linear>) -> String {
    alpha.map_or(String::new(), |a| {
        format!("{} to {} over {} steps", a.start, a.end, write::whole(a.steps as f64))
    })
}

fn comparison(first: &str) -> Table {
    Table::new(&[
        first,
        "475 twice in a row, median",
        "quartiles",
        "475 once, median",
        "last ten evaluations, mean",
        "lowest run",
        "bytes up",
        "bytes down",
    ])
}

fn row(all: &Runs<'_>, name: &str, label: &str) -> Vec<String> {
    let twice = all.twice(name);
    let lasts = all.of(name).iter().map(|r| r.last(LAST));
    vec![
        label.into(),
        write::whole(median(&twice)),
        format!("{} to {}", write::whole(quantile(&twice, 0.25)), write::whole(quantile(&twice, 0.75))),
        write::whole(median(&all.firsts(name))),
        format!("{:.1}", all.average(name, |r| r.last(LAST))),
        format!("{:.1}", lasts.fold(f64::INFINITY, f64::min)),
        write::whole(all.average(name, |r| r.bytes_up as f64)),
        write::whole(all.average(name, |r| r.bytes_down as f64)),
    ]
}

/// Steps to 475 twice, in words.
fn steps(all: &Runs<'_>, name: &str) -> String {
    match median(&all.twice(name)) {
        never if never >= all.steps as f64 => format!("not within {} steps", write::whole(never)),
        steps => format!("after {} steps", write::whole(steps)),
    }
}

/// What became of the paper's finding that distillation transfers negatively.
fn distillation(all: &Runs<'_>) -> String {
    let alone = median(&all.twice("solo"));
    let verdict = |name: &str| match median(&all.twice(name)) {
        s if s < alone => "sooner than alone",
        s if s > alone => "later than alone, so negative transfer",
        _ => "no sooner than alone",
    };
    let (mapped, not) = (verdict("kd"), verdict("kd-kept"));
    let conclusion = match mapped.starts_with("sooner") && !not.starts_with("sooner") {
        true => "In these runs the missing map causes what the paper calls the method's negative transfer.",
        false => "In these runs the missing map alone does not explain the paper's finding.",
    };
    format!(
        "Two evaluations of 475 in a row (median): distillation {} with the observation map ({mapped}), {} without it and never \
         given up ({not}); AIKD {} with the map, {} without it. {conclusion}",
        steps(all, "kd"),
        steps(all, "kd-kept"),
        steps(all, "taught"),
        steps(all, "unmapped-kept"),
    )
}

/// Whether both parts together are above each alone, as the paper has it, for each teacher.
fn order(all: &Runs<'_>) -> String {
    let sentence = |(teacher, both, base, rkd): (&str, &str, &str, &str)| {
        let [b, ba, r] = [both, base, rkd].map(|name| median(&all.twice(name)));
        let verdict = match (b < ba && b < r, b <= ba && b <= r) {
            (true, _) => "both together are soonest, as in the paper",
            (_, true) => "no part alone is sooner than both, but one is as soon",
            _ if ba <= r => "BASE alone is sooner than both, unlike in the paper",
            _ => "RKD alone is sooner than both, unlike in the paper",
        };
        format!(
            "- {teacher}: {verdict} (both {}, BASE {}, RKD {}).\n",
            steps(all, both),
            steps(all, base),
            steps(all, rkd)
        )
    };
    [
        ("Expert", "taught", "base", "rkd"),
        ("CQL from random data", "cql", "cql-base", "cql-rkd"),
        ("Random", "random", "random-base", "random-rkd"),
    ]
    .into_iter()
    .filter(|row| all.has(row.1))
    .map(sentence)
    .collect()
}

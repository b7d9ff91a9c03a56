//! Pendulum-v1 with an on-policy student: PPO alone, OTO's fusion policy alone, and the fusion policy taught by a soft
//! actor-critic (OTO, section V-B, figure 7).

use super::cartpole::curve;
use super::runs::{self, Arm, Finished};
use super::statistics::{mean, median};
use super::teachers;
use super::write::{self, Table};
use super::{ReportError, ReportOptions};
use crate::chart::{Chart, PALETTE};
use crate::options::Job;
use oto_student::config::{EvaluationConfig, StudentConfig};
use oto_student::presets;
use oto_student::stage::StagesConfig;
use oto_student::student::TeacherConfig;

const ENVIRONMENT: &str = "Pendulum-v1";
const TEACHER: &str = "sac_pendulum_v1";
const STEPS: u64 = 100_000;
const EVERY: u64 = 1_000;
/// Evaluations whose mean says where a run stands, and where it ended.
const WINDOW: usize = 3;
const LAST: usize = 10;
/// No tuning looked at these seeds.
const FIRST_SEED: u64 = 9_500;
/// RL-Zoo's benchmark of PPO on Pendulum-v1 (`benchmark.md`).
const YARDSTICK: f64 = -172.2;

fn job(student: StudentConfig, teachers: Vec<TeacherConfig>) -> Job {
    let stages = if teachers.is_empty() { StagesConfig::SOLO } else { student.stages };
    let evaluation = EvaluationConfig { every: EVERY, episodes: 10 };
    Job {
        env: ENVIRONMENT.into(),
        student: StudentConfig { steps: STEPS, stages, evaluation, ..student },
        teachers,
    }
}

fn arms() -> Vec<Arm> {
    let teacher = TeacherConfig {
        url: format!("memory://{TEACHER}"),
        policy: TEACHER.into(),
        adapter: None,
        weight: 1.0,
        dtype: oto_proto::Dtype::F32,
        quantization: None,
        submit: false,
    };
    let arm = |name, title, job: Job| {
        let teachers = if job.teachers.is_empty() { teachers::none() } else { teachers::bundled(TEACHER) };
        Arm { name, title, before: None, job, test: None, teachers }
    };
    vec![
        arm(
            "pendulum-taught",
            "fusion policy, taught by SAC",
            job(presets::fusion(ENVIRONMENT), vec![teacher]),
        ),
        arm("pendulum-fusion", "fusion policy, alone", job(presets::fusion(ENVIRONMENT), Vec::new())),
        arm("pendulum-ppo", "PPO, alone", job(presets::on_policy(ENVIRONMENT), Vec::new())),
    ]
}

/// Steps until the mean of [`WINDOW`] evaluations in a row is at least `bar`, or the run's end.
fn reached(run: &Finished, bar: f64) -> u64 {
    let found = run.returns.windows(WINDOW).position(|w| mean(w) >= bar);
    found.map_or(STEPS, |i| run.steps[i + WINDOW - 1])
}

/// Runs what is missing and writes the section on Pendulum.
pub fn report(options: &ReportOptions) -> Result<(), ReportError> {
    let seeds = (FIRST_SEED..FIRST_SEED + options.seeds.unwrap_or(5)).collect::<Vec<_>>();
    let arms = arms();
    let runs = runs::all(options, &arms, &seeds)?;
    let [taught, fusion, solo] = [0, 1, 2].map(|i| &runs[i]);
    let bar = mean(&solo.iter().map(|r| r.last(LAST)).collect::<Vec<_>>());
    let steps = |runs: &[Finished]| runs.iter().map(|r| reached(r, bar) as f64).collect::<Vec<_>>();

    let series = arms.iter().zip(&runs).zip(PALETTE).map(|((a, runs), colour)| curve(a.title, colour, runs));
    let chart = Chart {
        title: "An on-policy student, taught and alone".into(),
        subtitle: format!("{ENVIRONMENT}: mean greedy return of {} seeds, 95 % bootstrap band", seeds.len()),
        x_label: "environment steps".into(),
        y_label: "return".into(),
        series: series.collect(),
        marks: vec![(YARDSTICK, format!("RL-Zoo's PPO: {YARDSTICK}"))],
        y_range: None,
        logarithmic: false,
    };
    write::chart(&options.out, "pendulum", &chart)?;

    let mut table = Table::new(&[
        "arm",
        "steps to where PPO alone ends, median",
        "lowest",
        "highest",
        "last ten evaluations, mean",
        "updates",
        "labels",
        "bytes up",
        "bytes down",
        "transitions sent",
    ]);
    let mut each = Table::new(&["arm", "seed", "steps to where PPO alone ends", "last ten", "seconds"]);
    for (arm, runs) in arms.iter().zip(&runs) {
        let s = steps(runs);
        let average = |g: &dyn Fn(&Finished) -> f64| mean(&runs.iter().map(g).collect::<Vec<_>>());
        table.row(vec![
            arm.title.into(),
            write::whole(median(&s)),
            write::whole(s.iter().copied().fold(f64::INFINITY, f64::min)),
            write::whole(s.iter().copied().fold(0.0, f64::max)),
            format!("{:.1}", average(&|r| r.last(LAST))),
            write::whole(average(&|r| r.updates as f64)),
            write::whole(average(&|r| r.labels as f64)),
            write::whole(average(&|r| r.bytes_up as f64)),
            write::whole(average(&|r| r.bytes_down as f64)),
            write::whole(average(&|r| r.transitions_sent as f64)),
        ]);
        for (run, steps) in runs.iter().zip(s) {
            each.row(vec![
                arm.title.into(),
                run.seed.to_string(),
                write::whole(steps),
                format!("{:.1}", run.last(LAST)),
                format!("{:.0}", run.seconds),
            ]);
        }
    }
    let [taught, fusion, solo] = [taught, fusion, solo].map(|runs| median(&steps(runs)));
    let text = format!(
        include_str!("pendulum.md"),
        count = seeds.len(),
        seeds = format!("{} to {}", seeds[0], seeds[seeds.len() - 1]),
        every = write::whole(EVERY as f64),
        window = WINDOW,
        last = LAST,
        final_return = format!("{bar:.1}"),
        yardstick = YARDSTICK,
        taught = write::whole(taught),
        solo = write::whole(solo),
        fusion = write::whole(fusion),
        share = format!("{:.0} %", 100.0 * taught / solo),
        rollout = write::whole(arms[0].job.student.ppo.n_steps as f64),
        table = table,
        each = each,
    );
    write::section(&options.out, "pendulum", &text)?;
    write::runs(&options.out, "pendulum", &arms, &runs)?;
    println!(
        "taught: {taught} steps to {bar:.1}; PPO alone: {solo}, fusion alone: {fusion}; {}",
        options.out.join("results.md").display()
    );
    Ok(())
}

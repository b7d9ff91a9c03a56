//! CartPole-v1 taught by the SAC agent of InvertedPendulum: how much sooner, how steadily, and what a bad teacher costs.

use super::runs::{self, Arm, Finished};
use super::statistics::{bootstrap_mean, mean, median};
use super::write::{self, Table};
use super::{ReportError, ReportOptions};
use crate::chart::{Chart, PALETTE, Series};
use crate::options::Job;
use oto_env::rng::Rng;
use oto_policy::{Policy, PolicyError};
use oto_rl::optimiser::Adam;
use oto_rl::qrdqn::QrDqnConfig;
use oto_student::config::{Linear, StudentConfig};
use oto_student::link::memory::MemoryTeacher;
use oto_student::presets;
use oto_student::stage::StagesConfig;
use oto_student::student::TeacherConfig;

const ENVIRONMENT: &str = "CartPole-v1";
/// Gymnasium's own threshold for CartPole-v1.
const SOLVED: f64 = 475.0;
const STEPS: u64 = 50_000;
/// Evaluations whose mean says where a run ended.
const LAST: usize = 10;
/// No tuning looked at these seeds.
const FIRST_SEED: u64 = 9_100;

const EXPERT: &str = "sac_inverted_pendulum_v5";
const EARLY: &str = "ppo_cartpole_v1_early";
const RANDOM: &str = "scripted:random";

/// Tianshou's CartPole example for QR-DQN (test/discrete/test_qrdqn.py): three layers of 128, 200 quantiles, three-step
/// returns, gamma 0.9, one update for ten steps, target every 320 updates, epsilon 0.1 falling to 0.01.
fn tianshou() -> StudentConfig {
    StudentConfig {
        qrdqn: QrDqnConfig {
            hidden: vec![128, 128, 128],
            quantiles: 200,
            act_with_target: false,
            ..QrDqnConfig::default()
        },
        gamma: 0.9,
        n_step: 3,
        buffer: 20_000,
        learning_starts: 640,
        train_every: 10,
        learning_rate: Linear::constant(1e-3),
        epsilon: Linear { start: 0.1, end: 0.01, steps: 50_000 },
        target_every: 320,
        settle: None,
        ..alone()
    }
}

/// RL-Zoo's tuned setting for sb3-contrib's QR-DQN on CartPole-v1: 128 updates after each 256 steps; the target network,
/// replaced every 10 steps there, is then that of the round's start.
fn rl_zoo() -> StudentConfig {
    StudentConfig {
        qrdqn: QrDqnConfig {
            hidden: vec![256, 256],
            quantiles: 10,
            act_with_target: false,
            adam: Adam { epsilon: 0.01 / 64.0, ..Adam::default() },
            ..QrDqnConfig::default()
        },
        buffer: 100_000,
        learning_starts: 1_000,
        train_every: 256,
        updates: 128,
        learning_rate: Linear::constant(2.3e-3),
        epsilon: Linear { start: 1.0, end: 0.04, steps: 8_000 },
        target_every: 128,
        settle: None,
        ..alone()
    }
}

fn alone() -> StudentConfig {
    StudentConfig { steps: STEPS, stages: StagesConfig::SOLO, ..presets::student(ENVIRONMENT) }
}

fn taught(policy: &str) -> Job {
    let teacher = TeacherConfig {
        url: format!("memory://{policy}"),
        policy: policy.into(),
        adapter: presets::adapter(ENVIRONMENT, policy),
        dtype: oto_proto::Dtype::F32,
        quantization: None,
    };
    let student = StudentConfig { steps: STEPS, ..presets::student(ENVIRONMENT) };
    Job { env: ENVIRONMENT.into(), student, teachers: vec![teacher] }
}

fn solo(student: StudentConfig) -> Job {
    Job { env: ENVIRONMENT.into(), student, teachers: Vec::new() }
}

fn arms() -> Vec<Arm> {
    let arm = |name, title, job, teachers| Arm { name, title, before: None, job, test: None, teachers };
    vec![
        arm("taught", "taught by InvertedPendulum's SAC", taught(EXPERT), |_| Ok(vec![bundled(EXPERT)?])),
        arm("solo", "alone, same student", solo(alone()), |_| Ok(Vec::new())),
        arm("tianshou", "alone, Tianshou's example", solo(tianshou()), |_| Ok(Vec::new())),
        arm("rl-zoo", "alone, RL-Zoo's setting", solo(rl_zoo()), |_| Ok(Vec::new())),
        arm("early", "taught by a weak PPO (return 122)", taught(EARLY), |_| Ok(vec![bundled(EARLY)?])),
        arm("random", "taught by random answers", taught(RANDOM), |seed| Ok(vec![random(seed)])),
    ]
}

/// A bundled teacher behind the codec.
pub(super) fn bundled(name: &str) -> Result<MemoryTeacher, PolicyError> {
    let found = crate::serve::bundled()?.into_iter().find(|l| l.name == name);
    let mut policy: Box<dyn Policy> = found.expect("the names above are bundled").policy;
    let (observation, action) = (policy.observation_space().clone(), policy.action_space().clone());
    let act =
        move |x: &[f32], rows: usize, out: &mut Vec<f32>| policy.act(x, rows, out).map_err(|e| e.to_string());
    Ok(MemoryTeacher::new(name, observation, action, Box::new(act)))
}

/// A teacher that answers with a coin.
fn random(seed: u64) -> MemoryTeacher {
    let mut rng = Rng::new(!seed);
    let act = move |_: &[f32], rows: usize, out: &mut Vec<f32>| {
        out.extend((0..rows).map(|_| rng.below(2) as f32));
        Ok(())
    };
    let bounds = |b: f32| vec![b; 4];
    let observation = oto_proto::Space::Box { low: bounds(f32::NEG_INFINITY), high: bounds(f32::INFINITY) };
    MemoryTeacher::new(RANDOM, observation, oto_proto::Space::Discrete { n: 2 }, Box::new(act))
}

/// Runs what is missing and writes docs/results.md with its figures and tables.
pub fn report(options: &ReportOptions) -> Result<(), ReportError> {
    let seeds = (FIRST_SEED..FIRST_SEED + options.seeds.unwrap_or(10)).collect::<Vec<_>>();
    let arms = arms();
    let runs = runs::all(options, &arms, &seeds)?;
    let of = |name: &str| &runs[arms.iter().position(|a| a.name == name).expect("the arms are named above")];
    let firsts = |runs: &[Finished]| runs.iter().map(|r| r.first(SOLVED, STEPS) as f64).collect::<Vec<_>>();

    let speed = ["taught", "solo", "tianshou", "rl-zoo"];
    let robust = ["solo", "early", "random"];
    for (file, title, subtitle, names) in [
        ("cartpole", "Taught, and three ways alone", "CartPole-v1", &speed[..]),
        ("cartpole-bad-teachers", "What a bad teacher costs", "CartPole-v1", &robust[..]),
    ] {
        let title_of = |n: &str| arms.iter().find(|a| a.name == n).map_or("", |a| a.title);
        let series = names.iter().zip(PALETTE).map(|(n, colour)| curve(title_of(n), colour, of(n)));
        let chart = Chart {
            title: title.into(),
            subtitle: format!("{subtitle}: mean greedy return of {} seeds, 95 % bootstrap band", seeds.len()),
            x_label: "environment steps".into(),
            y_label: "return".into(),
            series: series.collect(),
            marks: vec![(SOLVED, "solved: 475".into())],
            y_range: Some((0.0, 510.0)),
            logarithmic: false,
        };
        write::chart(&options.out, file, &chart)?;
    }

    let best_solo = ["solo", "tianshou", "rl-zoo"]
        .into_iter()
        .min_by(|a, b| median(&firsts(of(a))).total_cmp(&median(&firsts(of(b)))));
    let best_solo = best_solo.expect("there are three");
    let taught_first = median(&firsts(of("taught")));
    let solo_first = median(&firsts(of(best_solo)));
    let taught_runs = of("taught");
    let kept = taught_runs.iter().filter_map(|r| r.kept(SOLVED)).collect::<Vec<_>>();

    let mut table = Table::new(&[
        "arm",
        "first at 475, median",
        "lowest",
        "highest",
        "kept 475 afterwards, mean",
        "last ten evaluations, mean",
        "updates",
        "labels",
        "bytes up",
        "bytes down",
        "transitions sent",
    ]);
    for (arm, runs) in arms.iter().zip(&runs) {
        let f = firsts(runs);
        let kept = runs.iter().filter_map(|r| r.kept(SOLVED)).collect::<Vec<_>>();
        let average = |g: &dyn Fn(&Finished) -> f64| mean(&runs.iter().map(g).collect::<Vec<_>>());
        table.row(vec![
            arm.title.into(),
            write::whole(median(&f)),
            write::whole(f.iter().copied().fold(f64::INFINITY, f64::min)),
            write::whole(f.iter().copied().fold(0.0, f64::max)),
            if kept.is_empty() { "-".into() } else { format!("{:.0} %", 100.0 * mean(&kept)) },
            format!("{:.1}", average(&|r| r.last(LAST))),
            write::whole(average(&|r| r.updates as f64)),
            write::whole(average(&|r| r.labels as f64)),
            write::whole(average(&|r| r.bytes_up as f64)),
            write::whole(average(&|r| r.bytes_down as f64)),
            write::whole(average(&|r| r.transitions_sent as f64)),
        ]);
    }
    let mut paired =
        Table::new(&["teacher", "taught minus alone, mean", "95 % interval", "Transfer ended at, median"]);
    for name in ["early", "random"] {
        let pairs =
            of(name).iter().zip(of("solo")).map(|(t, s)| t.last(LAST) - s.last(LAST)).collect::<Vec<_>>();
        let (low, high) = bootstrap_mean(&pairs);
        let ended = of(name).iter().filter_map(|r| r.transfer_ended).map(|s| s as f64).collect::<Vec<_>>();
        paired.row(vec![
            arms.iter().find(|a| a.name == name).map_or("", |a| a.title).into(),
            format!("{:+.1}", mean(&pairs)),
            format!("{low:+.1} to {high:+.1}"),
            if ended.is_empty() { "never".into() } else { write::whole(median(&ended)) },
        ]);
    }
    let mut each = Table::new(&["arm", "seed", "first at 475", "kept", "last ten", "seconds"]);
    for (arm, runs) in arms.iter().zip(&runs) {
        for r in runs {
            let kept = r.kept(SOLVED).map_or("-".into(), |k| format!("{:.0} %", 100.0 * k));
            let first = write::whole(r.first(SOLVED, STEPS) as f64);
            let cells = [arm.name.into(), r.seed.to_string(), first, kept];
            each.row(
                cells
                    .into_iter()
                    .chain([format!("{:.1}", r.last(LAST)), format!("{:.0}", r.seconds)])
                    .collect(),
            );
        }
    }

    let text = format!(
        include_str!("cartpole.md"),
        seeds = format!("{} to {}", seeds[0], seeds[seeds.len() - 1]),
        count = seeds.len(),
        taught = write::whole(taught_first),
        solo = write::whole(solo_first),
        solo_name = arms.iter().find(|a| a.name == best_solo).map_or("", |a| a.title),
        ratio = format!("{:.1}", solo_first / taught_first),
        kept = format!("{:.0} %", 100.0 * mean(&kept)),
        lowest_kept = format!("{:.0} %", 100.0 * kept.iter().copied().fold(1.0, f64::min)),
        table = table,
        paired = paired,
        each = each,
    );
    write::section(&options.out, "cartpole", &text)?;
    write::runs(&options.out, "cartpole", &arms, &runs)?;
    println!(
        "taught: {taught_first} steps; fastest alone ({best_solo}): {solo_first} steps; {}",
        options.out.join("results.md").display()
    );
    Ok(())
}

/// Mean over runs with its bootstrap band.
pub(super) fn curve(title: &str, colour: (u8, u8, u8), runs: &[Finished]) -> Series {
    let steps = runs.first().map_or(&[][..], |r| &r.steps);
    let column = |i: usize| runs.iter().filter_map(|r| r.returns.get(i).copied()).collect::<Vec<_>>();
    let columns = (0..steps.len()).map(column).collect::<Vec<_>>();
    let band = columns.iter().map(|c| bootstrap_mean(c)).unzip();
    Series {
        name: title.into(),
        colour,
        x: steps.iter().map(|s| *s as f64).collect(),
        mid: columns.iter().map(|c| mean(c)).collect(),
        band: Some(band),
    }
}

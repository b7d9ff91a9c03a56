//! CartPole-v1 taught by the SAC agent of InvertedPendulum: how much sooner, how steadily, and what a bad teacher costs.

use super::ablations;
use crate::chart::{Chart, PALETTE, Series};
use crate::runs::{self, Arm, Finished};
use crate::statistics::{bootstrap_mean, mean, median};
use crate::teachers::{self, Teachers};
use crate::write::{self, Table};
use crate::{Experiment, Options, ReportError};
use oto_agent::config::{Linear, StudentConfig};
use oto_agent::presets;
use oto_agent::run::Job;
use oto_agent::stage::StagesConfig;
use oto_agent::student::TeacherConfig;
use oto_rl::algorithms::qrdqn::QrDqnConfig;
use oto_rl::optimiser::Adam;

/// `oto report cartpole`.
pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "cartpole",
    about: "CartPole with InvertedPendulum's SAC agent as teacher, beside learning alone and bad teachers",
    run: report,
};

pub(super) const ENVIRONMENT: &str = "CartPole-v1";
/// Gymnasium's own threshold for CartPole-v1.
pub(super) const SOLVED: f64 = 475.0;
const STEPS: u64 = 50_000;
/// Evaluations whose mean says where a run ended.
pub(super) const LAST: usize = 10;
/// No tuning looked at these seeds.
pub(super) const FIRST_SEED: u64 = 9_200;

pub(super) const EXPERT: &str = "sac_inverted_pendulum_v5";
const EARLY: &str = "ppo_cartpole_v1_early";
pub(super) const RANDOM: &str = "scripted:random";

/// Tianshou's CartPole example for QR-DQN (test/discrete/test_qrdqn.py): three layers of 128, 200 quantiles, three-step
/// returns, gamma 0.9, one update for ten steps, target every 320 updates, epsilon 0.1 falling to 0.01.
fn tianshou() -> StudentConfig {
    StudentConfig {
        algorithm: QrDqnConfig {
            hidden: vec![128, 128, 128],
            quantiles: 200,
            act_with_target: false,
            ..QrDqnConfig::default()
        }
        .into(),
        gamma: 0.9,
        n_step: 3,
        buffer: 20_000,
        learning_starts: 640,
        train_every: 10,
        learning_rate: Linear::constant(1e-3),
        epsilon: Linear { start: 0.1, end: 0.01, steps: 50_000 },
        target_every: 320,
        plateau_decay: None,
        ..alone()
    }
}

/// RL-Zoo's tuned setting for sb3-contrib's QR-DQN on CartPole-v1: 128 updates after each 256 steps; the target network,
/// replaced every 10 steps there, is then that of the round's start.
fn rl_zoo() -> StudentConfig {
    StudentConfig {
        algorithm: QrDqnConfig {
            hidden: vec![256, 256],
            quantiles: 10,
            act_with_target: false,
            adam: Adam { epsilon: 0.01 / 64.0, ..Adam::default() },
            ..QrDqnConfig::default()
        }
        .into(),
        buffer: 100_000,
        learning_starts: 1_000,
        train_every: 256,
        updates: 128,
        learning_rate: Linear::constant(2.3e-3),
        epsilon: Linear { start: 1.0, end: 0.04, steps: 8_000 },
        target_every: 128,
        plateau_decay: None,
        ..alone()
    }
}

fn alone() -> StudentConfig {
    StudentConfig { steps: STEPS, stages: StagesConfig::SOLO, ..presets::student(ENVIRONMENT) }
}

pub(super) fn taught(policy: &str) -> Job {
    let teacher = TeacherConfig {
        url: format!("memory://{policy}"),
        policy: policy.into(),
        adapter: presets::adapter(ENVIRONMENT, policy),
        learn_adapter: None,
        dtype: oto_proto::Dtype::F32,
        quantization: None,
        weight: 1.0,
        submit: false,
    };
    let student = StudentConfig { steps: STEPS, ..presets::student(ENVIRONMENT) };
    Job {
        env: ENVIRONMENT.into(),
        student,
        teachers: vec![teacher],
        defaults: None,
        from: None,
        dataset: None,
        workers: 1,
        distill: None,
        peer: None,
    }
}

fn solo(student: StudentConfig) -> Job {
    Job {
        env: ENVIRONMENT.into(),
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

/// Taught and alone, good and bad teachers; then the parts, see [`ablations`].
fn arms(options: &Options) -> Result<Vec<Arm>, ReportError> {
    let mut arms = vec![
        arm("taught", "taught by InvertedPendulum's SAC", taught(EXPERT), teachers::bundled(EXPERT)),
        arm("solo", "alone, same student", solo(alone()), teachers::none()),
        arm("tianshou", "alone, Tianshou's example", solo(tianshou()), teachers::none()),
        arm("rl-zoo", "alone, RL-Zoo's setting", solo(rl_zoo()), teachers::none()),
        arm("early", "taught by a weak PPO (return 122)", taught(EARLY), teachers::bundled(EARLY)),
        arm("random", "taught by random answers", taught(RANDOM), teachers::random(RANDOM)),
    ];
    arms.extend(ablations::arms(options)?);
    arms.iter_mut().for_each(|a| a.job.student.steps = options.steps);
    Ok(arms)
}

pub(super) fn arm(name: &'static str, title: &'static str, job: Job, teachers: Teachers) -> Arm {
    Arm { name, title, before: None, job, test: None, teachers }
}

/// All runs, found by their arm's name.
pub(super) struct Runs<'a> {
    pub arms: &'a [Arm],
    pub runs: &'a [Vec<Finished>],
    /// Environment steps of each.
    pub steps: u64,
}

impl Runs<'_> {
    fn at(&self, name: &str) -> Option<usize> {
        self.arms.iter().position(|a| a.name == name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.at(name).is_some()
    }

    pub fn title(&self, name: &str) -> &str {
        self.at(name).map_or("", |i| self.arms[i].title)
    }

    pub fn of(&self, name: &str) -> &[Finished] {
        self.at(name).map_or(&[], |i| &self.runs[i])
    }

    /// Steps of each run until its first evaluation of 475.
    pub fn firsts(&self, name: &str) -> Vec<f64> {
        self.of(name).iter().map(|r| r.first(SOLVED, self.steps) as f64).collect()
    }

    /// Steps of each run until two evaluations in a row were at 475.
    pub fn twice(&self, name: &str) -> Vec<f64> {
        self.of(name).iter().map(|r| r.twice(SOLVED, self.steps) as f64).collect()
    }

    /// Mean of what all runs of an arm have.
    pub fn average(&self, name: &str, of: impl Fn(&Finished) -> f64) -> f64 {
        mean(&self.of(name).iter().map(of).collect::<Vec<_>>())
    }

    /// The curves of these arms.
    pub fn chart(&self, title: &str, names: &[&str]) -> Chart {
        let series = names.iter().zip(PALETTE).map(|(n, colour)| curve(self.title(n), colour, self.of(n)));
        let count = self.runs.first().map_or(0, Vec::len);
        Chart {
            title: title.into(),
            subtitle: format!("CartPole-v1: mean greedy return of {count} seeds, 95 % bootstrap band"),
            x_label: "environment steps".into(),
            y_label: "return".into(),
            series: series.collect(),
            marks: vec![(SOLVED, "solved: 475".into())],
            y_range: Some((0.0, 510.0)),
            logarithmic: false,
        }
    }
}

/// Runs what is missing and writes docs/results.md with its figures and tables.
fn report(options: &Options) -> Result<String, ReportError> {
    let seeds = (FIRST_SEED..FIRST_SEED + options.seeds.unwrap_or(10)).collect::<Vec<_>>();
    let arms = arms(options)?;
    let runs = runs::all(options, &arms, &seeds)?;
    let all = Runs { arms: &arms, runs: &runs, steps: options.steps };

    let speed = ["taught", "solo", "tianshou", "rl-zoo", "kd", "kd-unmapped"];
    let robust = ["solo", "early", "random"];
    write::chart(&options.out, "cartpole", &all.chart("Taught, distilled, and three ways alone", &speed))?;
    write::chart(&options.out, "cartpole-bad-teachers", &all.chart("What a bad teacher costs", &robust))?;

    let best_solo = ["solo", "tianshou", "rl-zoo"]
        .into_iter()
        .min_by(|a, b| median(&all.firsts(a)).total_cmp(&median(&all.firsts(b))));
    let best_solo = best_solo.expect("there are three");
    let taught_first = median(&all.firsts("taught"));
    let solo_first = median(&all.firsts(best_solo));
    let kept = all.of("taught").iter().filter_map(|r| r.kept(SOLVED)).collect::<Vec<_>>();

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
    for name in ["taught", "solo", "tianshou", "rl-zoo", "early", "random"] {
        let f = all.firsts(name);
        let kept = all.of(name).iter().filter_map(|r| r.kept(SOLVED)).collect::<Vec<_>>();
        let average = |g: &dyn Fn(&Finished) -> f64| all.average(name, g);
        table.row(vec![
            all.title(name).into(),
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
        let pairs = all
            .of(name)
            .iter()
            .zip(all.of("solo"))
            .map(|(t, s)| t.last(LAST) - s.last(LAST))
            .collect::<Vec<_>>();
        let (low, high) = bootstrap_mean(&pairs);
        let ended =
            all.of(name).iter().filter_map(|r| r.transfer_ended).map(|s| s as f64).collect::<Vec<_>>();
        paired.row(vec![
            all.title(name).into(),
            format!("{:+.1}", mean(&pairs)),
            format!("{low:+.1} to {high:+.1}"),
            if ended.is_empty() { "never".into() } else { write::whole(median(&ended)) },
        ]);
    }
    let mut each = Table::new(&["arm", "seed", "first_at_475", "kept_percent", "last_ten", "seconds"]);
    for (arm, runs) in arms.iter().zip(&runs) {
        for r in runs {
            let kept = r.kept(SOLVED).map_or(String::new(), |k| format!("{:.0}", 100.0 * k));
            let first = r.first(SOLVED, options.steps).to_string();
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
        solo_name = all.title(best_solo),
        ratio = format!("{:.1}", solo_first / taught_first),
        kept = format!("{:.0} %", 100.0 * mean(&kept)),
        lowest_kept = format!("{:.0} %", 100.0 * kept.iter().copied().fold(1.0, f64::min)),
        table = table,
        paired = paired,
        steps = write::whole(options.steps as f64),
        parts = ablations::text(&options.out, &all)?,
    );
    write::section(&options.out, "cartpole", &text)?;
    write::each_run(&options.out, "cartpole", &each)?;
    write::runs(&options.out, "cartpole", &arms, &runs)?;
    Ok(format!(
        "taught: {taught_first} steps; fastest alone ({best_solo}): {solo_first} steps; {}",
        options.out.join("results.md").display()
    ))
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

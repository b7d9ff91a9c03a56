//! What the experiments pendulum and cheetah share: PPO alone, OTO's fusion policy alone, and the fusion policy taught by a soft
//! actor-critic (OTO, section V-B, figure 7).

use super::cartpole::curve;
use crate::chart::{Chart, PALETTE};
use crate::runs::{self, Arm, Finished};
use crate::statistics::{mean, median};
use crate::teachers::{self, Teachers};
use crate::write::{self, Table};
use crate::{Options, ReportError};
use oto_agent::config::{EvaluationConfig, StudentConfig};
use oto_agent::environments;
use oto_agent::presets;
use oto_agent::run::Job;
use oto_agent::stage::StagesConfig;
use oto_agent::student::TeacherConfig;
use oto_rl::algorithms::ppo::PpoConfig;
use std::path::{Path, PathBuf};

/// Evaluations whose mean says where a run stands, and where it ended.
const WINDOW: usize = 3;
const LAST: usize = 10;

/// An environment, and the teacher there.
pub(super) struct Setting {
    /// Name of the section and of its files.
    pub name: &'static str,
    /// Names of the arms: taught, fusion alone, PPO alone.
    pub arms: [&'static str; 3],
    pub environment: &'static str,
    pub teacher: Teacher,
    pub steps: u64,
    pub evaluation: EvaluationConfig,
    /// No tuning looked at these seeds.
    pub first_seed: u64,
    pub seeds: u64,
    /// Somebody else's return, drawn in the figure.
    pub baseline: Option<(f64, &'static str)>,
    /// What a reader has to know of the environment, of its teacher and of PPO's settings there.
    pub about: &'static str,
    pub ppo: &'static str,
}

/// Where a setting's teacher comes from.
pub(super) enum Teacher {
    /// A bundled policy.
    Bundled(&'static str),
    /// A file.
    File(PathBuf),
}

/// The name that a teacher from a file has in these runs.
const SAC: &str = "sac";

impl Setting {
    fn job(&self, student: StudentConfig, teachers: Vec<TeacherConfig>) -> Job {
        let stages = if teachers.is_empty() { StagesConfig::SOLO } else { student.stages };
        let student = StudentConfig { steps: self.steps, stages, evaluation: self.evaluation, ..student };
        Job {
            env: self.environment.into(),
            student,
            teachers,
            defaults: None,
            from: None,
            dataset: None,
            workers: 1,
            distill: None,
            peer: None,
        }
    }

    fn arms(&self) -> Result<Vec<Arm>, ReportError> {
        let id = environments::id(self.environment);
        let (teacher, teachers) = self.teacher()?;
        let arm = |i: usize, title, job, teachers| Arm {
            name: self.arms[i],
            title,
            before: None,
            job,
            test: None,
            teachers,
        };
        let fusion = || presets::fusion(id);
        let ppo = self.job(presets::on_policy(id), Vec::new());
        Ok(vec![
            arm(0, "fusion policy, taught by SAC", self.job(fusion(), vec![teacher]), teachers),
            arm(1, "fusion policy, alone", self.job(fusion(), Vec::new()), teachers::none()),
            arm(2, "PPO, alone", ppo, teachers::none()),
        ])
    }

    fn teacher(&self) -> Result<(TeacherConfig, Teachers), ReportError> {
        let (url, policy, teachers) = match &self.teacher {
            Teacher::Bundled(name) => (format!("memory://{name}"), *name, teachers::bundled(name)),
            Teacher::File(path) => (file_address(path)?, SAC, teachers::from_file(SAC, path.clone())),
        };
        let teacher = TeacherConfig {
            url,
            policy: policy.into(),
            adapter: None,
            learn_adapter: None,
            weight: 1.0,
            dtype: oto_proto::Dtype::F32,
            quantization: None,
            submit: false,
        };
        Ok((teacher, teachers))
    }

    /// Steps until the mean of [`WINDOW`] evaluations in a row is at least `bar`, or the run's end.
    fn reached(&self, run: &Finished, bar: f64) -> u64 {
        let found = run.returns.windows(WINDOW).position(|w| mean(w) >= bar);
        found.map_or(self.steps, |i| run.steps[i + WINDOW - 1])
    }
}

fn file_address(path: &Path) -> Result<String, ReportError> {
    teachers::address(SAC, path).map_err(|error| ReportError::File { path: path.to_path_buf(), error })
}

pub(super) fn report(options: &Options, setting: &Setting) -> Result<String, ReportError> {
    let seeds =
        (setting.first_seed..).take(options.seeds.unwrap_or(setting.seeds) as usize).collect::<Vec<_>>();
    let arms = setting.arms()?;
    let runs = runs::all(options, &arms, &seeds)?;
    let bar = mean(&runs[2].iter().map(|r| r.last(LAST)).collect::<Vec<_>>());
    let steps = |runs: &[Finished]| runs.iter().map(|r| setting.reached(r, bar) as f64).collect::<Vec<_>>();

    let series = arms.iter().zip(&runs).zip(PALETTE).map(|((a, runs), colour)| curve(a.title, colour, runs));
    let chart = Chart {
        title: "An on-policy student, taught and alone".into(),
        subtitle: format!(
            "{}: mean greedy return of {} seeds, 95 % bootstrap band",
            environments::id(setting.environment),
            seeds.len()
        ),
        x_label: "environment steps".into(),
        y_label: "return".into(),
        series: series.collect(),
        marks: setting.baseline.iter().map(|(at, text)| (*at, text.to_string())).collect(),
        y_range: None,
        logarithmic: false,
    };
    write::chart(&options.out, setting.name, &chart)?;

    let mut table = Table::new(&[
        "arm",
        "steps to PPO's final return, median",
        "lowest",
        "highest",
        "last ten evaluations, mean",
        "updates",
        "labels",
        "bytes up",
        "bytes down",
        "transitions sent",
    ]);
    let mut each = Table::new(&["arm", "seed", "steps_to_final_return_of_ppo", "last_ten", "seconds"]);
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
                arm.name.into(),
                run.seed.to_string(),
                steps.to_string(),
                format!("{:.1}", run.last(LAST)),
                format!("{:.0}", run.seconds),
            ]);
        }
    }
    let rollout = arms[0].job.student.algorithm.of::<PpoConfig>().map_or(0, |ppo| ppo.n_steps);
    let [taught, fusion, solo] = [0, 1, 2].map(|i| median(&steps(&runs[i])));
    let text = format!(
        include_str!("fusion.md"),
        about = setting.about,
        name = setting.name,
        count = seeds.len(),
        seeds = format!("{} to {}", seeds[0], seeds[seeds.len() - 1]),
        episodes = setting.evaluation.episodes,
        every = write::whole(setting.evaluation.every as f64),
        window = WINDOW,
        last = LAST,
        final_return = format!("{bar:.1}"),
        baseline =
            setting.baseline.map_or(String::new(), |(_, text)| format!("; {text}, drawn in the figure")),
        taught = write::whole(taught),
        solo = write::whole(solo),
        fusion = write::whole(fusion),
        share = format!("{:.0} %", 100.0 * taught / solo),
        ppo = setting.ppo,
        threads = write::threads(),
        system = write::system(),
        rollout = write::whole(rollout as f64),
        table = table,
    );
    write::section(&options.out, setting.name, &text)?;
    write::each_run(&options.out, setting.name, &each)?;
    write::runs(&options.out, setting.name, &arms, &runs)?;
    Ok(format!(
        "taught: {taught} steps to {bar:.1}; PPO alone: {solo}, fusion alone: {fusion}; {}",
        options.out.join("results.md").display()
    ))
}

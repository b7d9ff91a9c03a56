//! Agents that teach each other (Lin et al. 2017, section 5), on MinAtar's games: distillation from a teacher of the same game, and from one
//! of another game, onto the policy, onto a head, and through an alignment network. Teachers come first; each run is kept when it is done.

use super::cartpole::curve;
use crate::chart::{Chart, PALETTE, Series};
use crate::runs::{Curve, Finished, each, fnv, keep, kept};
use crate::statistics::{bootstrap_mean, mean, median};
use crate::write::{self, Table, whole};
use crate::{Experiment, Options, ReportError, distilled, play};
use oto_agent::config::{EvaluationConfig, StudentConfig};
use oto_agent::distillation::settle;
use oto_agent::drive::Driver;
use oto_agent::environments;
use oto_agent::evaluation::returns;
use oto_agent::presets;
use oto_agent::run::{self, Distill, Job, RunError, on_cpu};
use oto_agent::stage::StagesConfig;
use oto_agent::student::Student;
use oto_agent::trainer::TrainError;
use oto_rl::algorithms::a3c::AdvantageActorCritic;
use oto_rl::distillation::{AlignmentConfig, DistillationConfig, DistillationHead};
use serde::{Deserialize, Serialize};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

/// `oto report collaborative`.
pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "collaborative",
    about: "MinAtar: distillation from a teacher of the same game and of another one",
    run: report,
};

/// Changes whenever old runs would no longer be made the same way.
const FORMAT: u32 = 1;
/// Seeds on which no setting was chosen, and that of the teachers.
const FIRST_SEED: u64 = 9_800;
const SEEDS: u64 = 5;
const TEACHER_SEED: u64 = 9_790;
/// Evaluations of a run, and their episodes.
const EVALUATIONS: u64 = 40;
const EPISODES: u32 = 10;
/// Episodes that a teacher is judged by; nothing else has seen them.
const TEST: Range<u64> = 71_000..71_050;

/// Episodes, and the most of their states, in which action probabilities are averaged.
const PICTURED: Range<u64> = 72_000..72_010;
const MOST_STATES: usize = 2_000;

/// How much of the experiment runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Environment steps of a run, the teachers' included.
    pub steps: u64,
    /// Only these arms; empty: all.
    pub arms: Vec<String>,
    /// Whether only kept runs are in the report, and none is made.
    pub finished: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { steps: 1_000_000, arms: Vec::new(), finished: false }
    }
}

/// A game.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Game {
    Breakout,
    Asterix,
}

impl Game {
    fn name(self) -> &'static str {
        match self {
            Game::Breakout => "Breakout",
            Game::Asterix => "Asterix",
        }
    }

    /// Its environment. A policy without mistakes could play for ever.
    fn env(self) -> String {
        format!("MinAtar/{}-v1?images=true&max_steps=5000", self.name())
    }
}

/// How a student learns from its teacher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Not at all.
    Alone,
    /// Distillation without the environment's terms.
    Distilled,
    /// Both; the distillation ends after a twentieth.
    Both,
    /// Onto the policy, actions matched by index.
    Policy,
    /// Onto a head of the teacher's actions.
    Head,
    /// Through an alignment network that an expert trained for a twentieth of the steps.
    Offline,
    /// Through an alignment network that is trained from T1 on; T1 and T2 early.
    Early,
    /// The same late.
    Late,
}

/// One way to train.
struct Arm {
    name: &'static str,
    title: &'static str,
    game: Game,
    teacher: Game,
    how: How,
}

/// Arms that one picture compares; the first one learns alone.
struct Group {
    name: &'static str,
    title: &'static str,
    arms: &'static [Arm],
}

const fn arm(name: &'static str, title: &'static str, [game, teacher]: [Game; 2], how: How) -> Arm {
    Arm { name, title, game, teacher, how }
}

const HOMOGENEOUS: [Game; 2] = [Game::Breakout; 2];
const TO_ASTERIX: [Game; 2] = [Game::Asterix, Game::Breakout];
const TO_BREAKOUT: [Game; 2] = [Game::Breakout, Game::Asterix];

const GROUPS: [Group; 3] = [
    Group {
        name: "homogeneous",
        title: "Breakout, a teacher of Breakout",
        arms: &[
            arm("breakout-alone", "environment alone", HOMOGENEOUS, How::Alone),
            arm("breakout-distilled", "distillation alone", HOMOGENEOUS, How::Distilled),
            arm("breakout-both", "both", HOMOGENEOUS, How::Both),
        ],
    },
    Group {
        name: "breakout-to-asterix",
        title: "Asterix, a teacher of Breakout",
        arms: &[
            arm("asterix-alone", "alone", TO_ASTERIX, How::Alone),
            arm("asterix-policy", "onto the policy", TO_ASTERIX, How::Policy),
            arm("asterix-head", "onto a head", TO_ASTERIX, How::Head),
            arm("asterix-offline", "aligned offline", TO_ASTERIX, How::Offline),
            arm("asterix-early", "aligned online, early", TO_ASTERIX, How::Early),
            arm("asterix-late", "aligned online, late", TO_ASTERIX, How::Late),
        ],
    },
    Group {
        name: "asterix-to-breakout",
        title: "Breakout, a teacher of Asterix",
        arms: &[
            arm("breakout-alone", "alone", TO_BREAKOUT, How::Alone),
            arm("breakout-policy", "onto the policy", TO_BREAKOUT, How::Policy),
            arm("breakout-head", "onto a head", TO_BREAKOUT, How::Head),
            arm("breakout-offline", "aligned offline", TO_BREAKOUT, How::Offline),
            arm("breakout-early", "aligned online, early", TO_BREAKOUT, How::Early),
            arm("breakout-late", "aligned online, late", TO_BREAKOUT, How::Late),
        ],
    },
];

/// The names of all arms.
pub fn names() -> impl Iterator<Item = &'static str> {
    let all = GROUPS.iter().flat_map(|group| group.arms);
    all.filter(|arm| !(arm.how == How::Alone && arm.teacher == Game::Asterix)).map(|arm| arm.name)
}

/// The settings of a kind of distillation; the student makes `steps` steps. The paper's budget is 20M steps: T1 and T2 are 0.1M and 1M or 4M and 6M,
/// distillation ends at 15M, that of a teacher of the same task at 1M.
fn distillation(how: How, steps: u64) -> Option<DistillationConfig> {
    let aligned = |expert_steps, [t1, t2]: [u64; 2]| DistillationConfig {
        to: DistillationHead::Head,
        alignment: Some(AlignmentConfig { expert_steps, ..AlignmentConfig::default() }),
        t1,
        t2,
        end: Some(steps * 3 / 4),
        ..DistillationConfig::default()
    };
    let usual = DistillationConfig::default();
    Some(match how {
        How::Alone => return None,
        How::Distilled => DistillationConfig { task_weight: 0.0, ..usual },
        How::Both => DistillationConfig { end: Some(steps / 20), ..usual },
        How::Policy => DistillationConfig { match_by_index: true, end: Some(steps * 3 / 4), ..usual },
        How::Head => DistillationConfig { to: DistillationHead::Head, end: Some(steps * 3 / 4), ..usual },
        How::Offline => aligned(steps / 20, [0, 0]),
        How::Early => aligned(0, [steps / 200, steps / 20]),
        How::Late => aligned(0, [steps / 5, steps * 3 / 10]),
    })
}

/// A run in a game without a teacher.
fn alone(game: Game, steps: u64) -> Result<Job, ReportError> {
    let env = game.env();
    let seen = environments::seen(&env).map_err(TrainError::from)?;
    let preset = presets::preset(environments::id(&env), seen, Some(&AdvantageActorCritic)).for_steps(steps);
    let evaluation = EvaluationConfig { every: (steps / EVALUATIONS).max(1), episodes: EPISODES };
    let student = StudentConfig { evaluation, stages: StagesConfig::SOLO, ..preset.student };
    Ok(Job {
        env,
        student,
        teachers: Vec::new(),
        defaults: None,
        from: None,
        dataset: None,
        workers: 1,
        distill: None,
        peer: None,
    })
}

/// What is kept of a teacher beside its policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct About {
    /// Its returns in [`TEST`].
    returns: Vec<f64>,
    /// How long its run took.
    seconds: f64,
}

/// Mean probabilities of actions over the student's states: figure 5 of the paper.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Actions {
    student: Vec<f64>,
    teacher: Vec<f64>,
    aligned: Vec<f64>,
}

/// The states of greedy episodes of a trained student, and how it and its aligned teacher choose there.
fn actions(student: &mut Student, env: &str) -> Result<Option<Actions>, ReportError> {
    let mut environment = environments::environment(env).map_err(TrainError::from)?;
    let (mut states, width) = (Vec::new(), environment.observation_space().width());
    returns(&mut *environment, PICTURED, |environment, observation| {
        if states.len() < MOST_STATES * width {
            states.extend_from_slice(observation);
        }
        // No student here is recurrent: an action depends on its observation alone.
        let action = student.trainer().greedy(observation)?;
        Ok::<_, TrainError>(environment.step(action, observation)?)
    })?;
    let chosen = student.trainer().probabilities(&states).into_iter().next();
    let all =
        chosen.and_then(|p| Some(Actions { student: p.student, teacher: p.teacher, aligned: p.aligned? }));
    Ok(all)
}

/// A teacher that was made.
struct Teacher {
    policy: PathBuf,
    about: About,
}

/// The folder of something that depends on this job and nothing else.
fn folder(options: &Options, name: &str, job: &Job) -> PathBuf {
    let text = format!("{FORMAT} {}", serde_json::to_string(job).unwrap_or_default());
    options.cache.join(format!("collaborative-{name}-{:016x}", fnv(text.as_bytes())))
}

/// The job of a game's teacher.
fn teachers_job(game: Game, settings: &Settings) -> Result<Job, ReportError> {
    let mut job = alone(game, settings.steps)?;
    job.student.seed = TEACHER_SEED;
    Ok(job)
}

/// A game's teacher: the best policy of a run alone. Nothing where it is not kept and none is made.
fn teacher(options: &Options, game: Game) -> Result<Option<Teacher>, ReportError> {
    let settings = &options.collaborative;
    let job = teachers_job(game, settings)?;
    let name = format!("teacher-{}", game.name().to_lowercase());
    let place = folder(options, &name, &job);
    let (policy, about) = (place.join("policy.safetensors"), place.join("about.json"));
    if let Some(about) = kept(&about).filter(|_| policy.is_file()) {
        return Ok(Some(Teacher { policy, about }));
    }
    if settings.finished {
        return Ok(None);
    }
    let start = Instant::now();
    let (student, _) = trained(&job, &name)?;
    let seconds = start.elapsed().as_secs_f64();
    let file = student.best_policy(&job.env).unwrap_or_else(|| student.policy(&job.env));
    write::file(&policy, &file)?;
    let returns = play::play_file(&policy, &job.env, TEST)?;
    let made = About { returns, seconds };
    // The policy is whole once this is there.
    keep(&about, &made)?;
    (options.tell)(&format!("{name}: return {:.1}, {seconds:.0} s", mean(&made.returns)));
    Ok(Some(Teacher { policy, about: made }))
}

/// Makes a run.
fn trained(job: &Job, name: &str) -> Result<(Student, Curve), ReportError> {
    let seed = job.student.seed;
    let failed = |error: RunError| ReportError::Run { arm: name.into(), seed, error: Box::new(error) };
    let (teachers, expert) = distilled::load(job.distill.as_ref())?;
    let environment = environments::of_student(&job.env, &job.student)?;
    let begin = |student: &mut Student| match &job.distill {
        Some(_) => Ok(student.trainer().distill(teachers, expert)?),
        None => Ok(()),
    };
    let nobody = Driver::with(Vec::new());
    let prepared = run::prepare_with(environment, job, on_cpu(oto_cpu::Cpu), nobody, None, begin);
    let (mut student, mut driver) = prepared.map_err(failed)?;
    let mut curve = Curve::default();
    run::run(&mut student, &mut driver, &mut curve).map_err(failed)?;
    Ok((student, curve))
}

impl Arm {
    /// Its run, whose teachers are these files; the part of an expert comes before its steps.
    fn job(
        &self,
        settings: &Settings,
        policy: impl Fn(Game) -> Option<PathBuf>,
    ) -> Result<Option<Job>, ReportError> {
        let mut job = alone(self.game, settings.steps)?;
        let Some(config) = distillation(self.how, settings.steps) else { return Ok(Some(job)) };
        let expert = config.expert_steps();
        let Some(teacher) = policy(self.teacher) else { return Ok(None) };
        let expert = match expert {
            0 => None,
            steps => {
                job.student.steps += steps;
                let Some(expert) = policy(self.game) else { return Ok(None) };
                Some(expert)
            }
        };
        let distill = Distill { teachers: vec![teacher], expert };
        job.student.algorithm.set_distillation(Some(config));
        let (teachers, _) = distilled::load(Some(&distill))?;
        settle(&mut job.student.algorithm, &teachers, &[]).map_err(TrainError::from)?;
        job.distill = Some(distill);
        Ok(Some(job))
    }

    /// The run of a seed, or what is kept of it; nothing where it is not kept and none is made. Evaluations are counted from the end of an
    /// expert's steps.
    fn run(
        &self,
        options: &Options,
        job: &Job,
        mark: &str,
        seed: u64,
    ) -> Result<Option<Finished>, ReportError> {
        let path = folder(options, self.name, &self.marked(job, mark)).join(format!("{seed}.json"));
        let known = kept(&path);
        if known.is_some() || options.collaborative.finished {
            return Ok(known);
        }
        let mut job = job.clone();
        job.student.seed = seed;
        let start = Instant::now();
        let (mut student, curve) = trained(&job, self.name)?;
        let seconds = start.elapsed().as_secs_f64();
        if let Some(actions) = actions(&mut student, &job.env)? {
            keep(&path.with_extension(ACTIONS), &actions)?;
        }
        let mut run = curve.finish(seed, &student.metrics(0), seconds);
        let before = job.student.algorithm.distillation().map_or(0, DistillationConfig::expert_steps);
        let own = run.steps.iter().zip(&run.returns).filter(|(step, _)| **step > before);
        (run.steps, run.returns) = own.map(|(step, score)| (step - before, *score)).unzip();
        keep(&path, &run)?;
        let last = run.last(EVALUATIONS as usize / 10);
        (options.tell)(&format!("{}, seed {seed}: {last:.1} at the end, {seconds:.0} s", self.name));
        Ok(Some(run))
    }

    /// The job with the teachers' recipe in place of their paths, which depend on the cache.
    fn marked(&self, job: &Job, mark: &str) -> Job {
        let named = |_: &PathBuf| PathBuf::from(mark);
        let distill = job.distill.as_ref().map(|distill| Distill {
            teachers: distill.teachers.iter().map(named).collect(),
            expert: distill.expert.as_ref().map(named),
        });
        Job { distill, ..job.clone() }
    }
}

/// The ending of a file of action probabilities, beside a run's.
const ACTIONS: &str = "actions.json";

/// The arms that are chosen, each once.
fn chosen(settings: &Settings) -> Vec<&'static Arm> {
    let mut arms: Vec<&Arm> = Vec::new();
    for arm in GROUPS.iter().flat_map(|group| group.arms) {
        let wanted = settings.arms.is_empty() || settings.arms.iter().any(|name| name == arm.name);
        if wanted && !arms.iter().any(|other| other.name == arm.name) {
            arms.push(arm);
        }
    }
    arms
}

fn report(options: &Options) -> Result<String, ReportError> {
    let settings = &options.collaborative;
    let arms = chosen(settings);
    let seeds = (FIRST_SEED..FIRST_SEED + options.seeds.unwrap_or(SEEDS)).collect::<Vec<_>>();
    let needed = |game: &Game| {
        arms.iter().any(|arm| {
            let teaches = arm.how != How::Alone && arm.teacher == *game;
            teaches || (arm.how == How::Offline && arm.game == *game)
        })
    };
    let games = [Game::Breakout, Game::Asterix].into_iter().filter(needed).collect::<Vec<_>>();
    let teachers = each(options, &games, |game| teacher(options, *game))?;
    let teachers = games.iter().copied().zip(teachers).filter_map(|(game, made)| Some((game, made?)));
    let teachers = teachers.collect::<Vec<_>>();
    let policy = |game: Game| Some(teachers.iter().find(|(of, _)| *of == game)?.1.policy.clone());
    let recipe =
        |game| teachers_job(game, settings).map(|job| serde_json::to_string(&job).unwrap_or_default());
    let mark = format!("{:016x}", fnv((recipe(Game::Breakout)? + &recipe(Game::Asterix)?).as_bytes()));
    let jobs = arms.iter().map(|arm| arm.job(settings, policy)).collect::<Result<Vec<_>, _>>()?;

    // All arms with the first seed come before the second one.
    let tasks =
        seeds.iter().flat_map(|seed| (0..arms.len()).map(move |arm| (arm, *seed))).collect::<Vec<_>>();
    let made = each(options, &tasks, |(arm, seed)| match &jobs[*arm] {
        Some(job) => arms[*arm].run(options, job, &mark, *seed),
        None => Ok(None),
    })?;
    let mut runs = vec![Vec::new(); arms.len()];
    for ((arm, _), run) in tasks.iter().zip(made) {
        runs[*arm].extend(run);
    }
    if settings.finished && runs.iter().all(Vec::is_empty) {
        let error =
            io::Error::new(io::ErrorKind::NotFound, "no runs are kept here, and --finished makes none");
        return Err(ReportError::File { path: options.cache.clone(), error });
    }
    let pictured = |(arm, job): (&&Arm, &Option<Job>)| {
        let place = folder(options, arm.name, &arm.marked(job.as_ref()?, &mark));
        let known = |seed: &u64| kept::<Actions>(&place.join(format!("{seed}.{ACTIONS}")));
        seeds.iter().find_map(known).map(|actions| (arm.name, actions))
    };
    let actions = arms.iter().zip(&jobs).filter_map(pictured).collect();
    let results = Results { options, arms, jobs, runs, teachers, actions };
    results.write(&seeds)
}

/// All that was made.
struct Results<'a> {
    options: &'a Options,
    arms: Vec<&'static Arm>,
    jobs: Vec<Option<Job>>,
    runs: Vec<Vec<Finished>>,
    teachers: Vec<(Game, Teacher)>,
    /// Of the first seed of an arm that has them.
    actions: Vec<(&'static str, Actions)>,
}

/// The mean return of a run's evaluations: the area under its curve over its length.
fn area(run: &Finished) -> f64 {
    mean(&run.returns)
}

/// The mean of the last tenth.
fn end(run: &Finished) -> f64 {
    run.last(EVALUATIONS as usize / 10)
}

/// A mean, with its interval where it is of several runs.
fn cell(values: &[f64]) -> String {
    let (low, high) = bootstrap_mean(values);
    match values.len() {
        0 => "-".into(),
        1 => format!("{:.2}", values[0]),
        _ => format!("{:.2} ({low:.2} to {high:.2})", mean(values)),
    }
}

impl Results<'_> {
    fn runs(&self, arm: &Arm) -> &[Finished] {
        let found = self.arms.iter().position(|other| other.name == arm.name);
        found.map_or(&[], |i| &self.runs[i])
    }

    /// The differences to the runs alone with the same seeds.
    fn beside(&self, arm: &Arm, alone: &Arm, of: fn(&Finished) -> f64) -> Vec<f64> {
        let other = |seed| self.runs(alone).iter().find(|run| run.seed == seed);
        self.runs(arm).iter().filter_map(|run| Some(of(run) - of(other(run.seed)?))).collect()
    }

    /// The return that a group's arms are to reach: nine tenths of what the student alone has at the end.
    fn bar(&self, group: &Group) -> Option<f64> {
        let alone = self.runs(&group.arms[0]);
        (!alone.is_empty()).then(|| 0.9 * mean(&alone.iter().map(end).collect::<Vec<_>>()))
    }

    fn table(&self, group: &Group) -> Table {
        let mut table = Table::new(&[
            "arm",
            "seeds",
            "mean over the run",
            "difference to alone",
            "at the end",
            "steps to the bar, median",
            "seconds",
        ]);
        let limit = self.options.collaborative.steps;
        for arm in group.arms {
            let runs = self.runs(arm);
            let all = |of: &dyn Fn(&Finished) -> f64| runs.iter().map(of).collect::<Vec<_>>();
            let reached = self.bar(group).filter(|_| !runs.is_empty()).map_or("-".into(), |bar| {
                let steps = all(&|run| run.twice(bar, limit + 1) as f64);
                let middle = median(&steps);
                if middle > limit as f64 { "not reached".into() } else { whole(middle) }
            });
            let beside = self.beside(arm, &group.arms[0], area);
            table.row(vec![
                arm.title.into(),
                runs.len().to_string(),
                cell(&all(&area)),
                if arm.how == How::Alone { "-".into() } else { cell(&beside) },
                cell(&all(&end)),
                reached,
                if runs.is_empty() { "-".into() } else { whole(mean(&all(&|run| run.seconds))) },
            ]);
        }
        table
    }

    fn write(&self, seeds: &[u64]) -> Result<String, ReportError> {
        let (options, name) = (self.options, EXPERIMENT.name);
        let mut groups = String::new();
        let made =
            |group: &&Group| group.arms.iter().any(|arm| arm.how != How::Alone && !self.runs(arm).is_empty());
        for group in GROUPS.iter().filter(made) {
            let file = format!("{name}-{}", group.name);
            write::chart(&options.out, &file, &self.chart(group))?;
            let bar = self.bar(group).map_or("-".into(), |bar| format!("{bar:.1}"));
            let (title, table) = (group.title, self.table(group));
            groups += &format!(
                "### {title}\n\n![{title}](results/{file}.svg)\n\nThe bar is a return of {bar}.\n\n{table}\n"
            );
            groups += &self.actions(group)?;
        }
        let teachers = self.teachers.iter().map(|(game, teacher)| {
            let score = cell(&teacher.about.returns);
            format!(
                "- {}: {score} in {} episodes, {:.0} s of training.\n",
                game.name(),
                TEST.count(),
                teacher.about.seconds
            )
        });
        let count = self.runs.iter().map(Vec::len).sum::<usize>();
        let text = format!(
            include_str!("collaborative.md"),
            steps = whole(options.collaborative.steps as f64),
            count = count,
            seeds = format!("{} to {}", seeds[0], seeds[seeds.len() - 1]),
            episodes = EPISODES,
            evaluations = EVALUATIONS,
            teacher_seed = TEACHER_SEED,
            teachers = teachers.collect::<String>(),
            groups = groups,
            threads = write::threads(),
            system = write::system(),
        );
        write::section(&options.out, name, &text)?;
        self.files()?;
        Ok(format!("{count} runs of {} arms; {}", self.arms.len(), options.out.join("results.md").display()))
    }

    /// Probabilities of actions of the arms with an alignment network: a table, and a picture for each.
    fn actions(&self, group: &Group) -> Result<String, ReportError> {
        let known = |arm: &&Arm| self.actions.iter().any(|(name, _)| *name == arm.name);
        let mut table = Table::new(&["arm", "student", "teacher", "teacher, aligned"]);
        let mut pictures = String::new();
        for arm in group.arms.iter().filter(known) {
            let found = self.actions.iter().find(|(name, _)| *name == arm.name);
            let Some((_, Actions { student, teacher, aligned })) = found else { continue };
            let shown = |p: &[f64]| p.iter().map(|p| format!("{p:.2}")).collect::<Vec<_>>().join(" ");
            table.row(vec![arm.title.into(), shown(student), shown(teacher), shown(aligned)]);
            let file = format!("{}-actions-{}", EXPERIMENT.name, arm.name);
            let one = |(name, p, colour): (&str, &Vec<f64>, _)| Series {
                name: name.into(),
                colour,
                x: (0..p.len()).map(|a| a as f64).collect(),
                mid: p.clone(),
                band: None,
            };
            let [a, b, c, ..] = PALETTE;
            let series = [("student", student, a), ("teacher", teacher, b), ("teacher, aligned", aligned, c)];
            let chart = Chart {
                title: format!("{}: probabilities of actions", group.title),
                subtitle: format!("{}: means over the student's states", arm.title),
                x_label: "action".into(),
                y_label: "probability".into(),
                series: series.into_iter().map(one).collect(),
                y_range: Some((0.0, 1.0)),
                ..Chart::default()
            };
            write::chart(&self.options.out, &file, &chart)?;
            pictures += &format!("![{}](results/{file}.svg)\n\n", arm.title);
        }
        match pictures.is_empty() {
            true => Ok(String::new()),
            false => Ok(format!(
                "Mean probabilities of actions over the student's states, of the first seed; the teacher has actions of its own:\n\n{table}\n{pictures}"
            )),
        }
    }

    fn chart(&self, group: &Group) -> Chart {
        let shown = group.arms.iter().zip(PALETTE).filter(|(arm, _)| !self.runs(arm).is_empty());
        let (game, of) = (group.arms[0].game, group.arms[0].teacher);
        let teacher = self.teachers.iter().find(|(made, _)| *made == of && of == game);
        Chart {
            title: group.title.into(),
            subtitle: "mean greedy return over seeds, 95 % bootstrap band".into(),
            x_label: "environment steps".into(),
            y_label: "return".into(),
            series: shown.map(|(arm, colour)| curve(arm.title, colour, self.runs(arm))).collect(),
            marks: teacher.iter().map(|(_, made)| (mean(&made.about.returns), "teacher".into())).collect(),
            ..Chart::default()
        }
    }

    fn files(&self) -> Result<(), ReportError> {
        let (out, name) = (&self.options.out, EXPERIMENT.name);
        let mut table = Table::new(&["arm", "seed", "mean_over_run", "end", "updates", "seconds"]);
        let mut csv = String::from("arm,seed,step,return\n");
        for (arm, run) in
            self.arms.iter().zip(&self.runs).flat_map(|(arm, runs)| runs.iter().map(move |r| (arm, r)))
        {
            let numbers = [format!("{:.3}", area(run)), format!("{:.3}", end(run)), run.updates.to_string()];
            let mut row = vec![arm.name.to_string(), run.seed.to_string()];
            row.extend(numbers);
            row.push(format!("{:.0}", run.seconds));
            table.row(row);
            for (step, score) in run.steps.iter().zip(&run.returns) {
                csv += &format!("{},{},{step},{score}\n", arm.name, run.seed);
            }
        }
        write::each_run(out, name, &table)?;
        write::file(&out.join(format!("results/{name}.csv")), csv.as_bytes())?;
        let arm = |((arm, job), runs): ((&&Arm, &Option<Job>), &Vec<Finished>)| {
            let algorithm = job.as_ref().map(|job| job.student.algorithm.clone());
            serde_json::json!({ "name": arm.name, "title": arm.title, "algorithm": algorithm, "runs": runs })
        };
        let arms = self.arms.iter().zip(&self.jobs).zip(&self.runs).map(arm).collect::<Vec<_>>();
        let teachers = self
            .teachers
            .iter()
            .map(|(game, made)| serde_json::json!({ "game": game.name(), "about": made.about }));
        let json =
            serde_json::json!({ "experiment": name, "teachers": teachers.collect::<Vec<_>>(), "arms": arms });
        write::file(&out.join(format!("results/{name}.json")), json.to_string().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    #[test]
    fn each_arm_has_a_name_of_its_own_and_valid_settings() {
        let all = names().collect::<Vec<_>>();
        assert_eq!(all.len(), 14);
        assert!(all.iter().enumerate().all(|(i, name)| !all[..i].contains(name)), "{all:?}");
        for arm in GROUPS.iter().flat_map(|group| group.arms) {
            let mut job = alone(arm.game, 1_000_000).unwrap();
            job.student.algorithm.set_distillation(distillation(arm.how, 1_000_000));
            job.student.validate().unwrap();
        }
        let early = distillation(How::Early, 20_000_000).unwrap();
        assert_eq!((early.t1, early.t2, early.end), (100_000, 1_000_000, Some(15_000_000)));
        let late = distillation(How::Late, 20_000_000).unwrap();
        assert_eq!((late.t1, late.t2), (4_000_000, 6_000_000));
    }

    /// A small report makes teachers and runs once, and only once; of kept runs alone it makes none.
    #[test]
    fn a_report_continues_and_repeats_nothing() {
        let place = std::env::temp_dir().join(format!("oto-collaborative-{}", std::process::id()));
        let options = |finished, arms: &[&str]| Options {
            out: place.join("docs"),
            cache: place.join("cache"),
            jobs: NonZeroUsize::new(1),
            seeds: Some(1),
            steps: 0,
            cql_teacher: None,
            sac_teacher: None,
            cloud_edge: Default::default(),
            offline_online: Default::default(),
            collaborative: Settings {
                steps: 400,
                arms: arms.iter().map(|name| name.to_string()).collect(),
                finished,
            },
            tell: |_| {},
        };
        let arms = ["breakout-alone", "breakout-both", "asterix-early", "asterix-head"];
        let none = report(&options(true, &arms)).unwrap_err().to_string();
        assert!(none.contains("no runs are kept here, and --finished makes none"), "{none}");
        assert!(!place.join("docs").exists(), "an older section stays as it is");
        let some = report(&options(false, &arms[..3])).unwrap();
        assert!(some.starts_with("3 runs of 3 arms"), "{some}");
        let file = place.join("docs/results/collaborative-runs.csv");
        let first = std::fs::read_to_string(&file).unwrap();
        let again = report(&options(true, &arms)).unwrap();
        assert!(again.starts_with("3 runs of 4 arms"), "{again}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), first, "times included: nothing was made anew");
        let text = std::fs::read_to_string(place.join("docs/results.md")).unwrap();
        let parts = [
            "Breakout, a teacher of Breakout",
            "aligned online, early",
            "teacher, aligned |",
            "(results/collaborative-actions-asterix-early.svg)",
        ];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        assert!(place.join("docs/results/collaborative-actions-asterix-early.png").is_file());
        std::fs::remove_dir_all(place).unwrap();
    }
}

//! Offline, then online: the methods of the survey and what they must beat, in one environment, at several levels of data. Each run has an
//! offline part, evaluated by updates, and an online part, evaluated by steps. A picture has both, with the seam at 0.
//!
//! `methods` has the methods, `tasks` the environments and the size of their runs, `runs` makes the runs and keeps them.

mod methods;
mod runs;
mod tasks;

use crate::chart::{Chart, PALETTE, Series};
use crate::statistics::{bootstrap_mean, mean};
use crate::write::{self, Table, whole};
use crate::{Experiment, Options, ReportError};
use methods::{Begins, METHODS, Method, Recorded};
use oto_agent::environments;
use oto_agent::trainer::TrainError;
use oto_data::Level;
use oto_env::Space;
use runs::{Data, Grid, Run};
pub use tasks::{TASKS, Task};

/// `oto report offline-to-online`.
pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "offline-to-online",
    about: "Methods that learn from data first and continue online, at several levels of data: Pendulum, bodies of MuJoCo, a sparse reward",
    run: report,
};

/// Seeds on which no setting was chosen.
const FIRST_SEED: u64 = 9_700;

/// How much of the experiment runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The environment, its data and its networks.
    pub task: &'static Task,
    /// Updates of the offline part.
    pub updates: u64,
    /// Environment steps of the online part.
    pub steps: u64,
    /// Episodes in an evaluation.
    pub episodes: u32,
    /// Levels of the data.
    pub levels: Vec<Level>,
    /// Steps of the training behind the levels.
    pub training_steps: u64,
    /// Least number of steps of each policy of a level.
    pub level_steps: usize,
    /// Only these methods; empty: all.
    pub methods: Vec<String>,
    /// Whether only kept runs are in the report, and none is made.
    pub finished: bool,
}

impl Settings {
    /// The usual size of a task's runs.
    pub fn of(task: &'static Task) -> Self {
        Self {
            task,
            updates: task.updates,
            steps: task.steps,
            episodes: task.episodes,
            levels: task.levels.to_vec(),
            training_steps: task.training_steps,
            level_steps: task.level_steps,
            methods: task.methods.iter().map(|name| name.to_string()).collect(),
            finished: false,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(&TASKS[0])
    }
}

/// The names of all methods.
pub fn names() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|method| method.name)
}

/// A number of a run.
type Of = fn(&Run) -> Option<f64>;

/// The columns of a level's table.
const COLUMNS: [(&str, Of); 4] = [
    ("after offline", Run::seam),
    ("worst of the first tenth", |run| Some(run.worst())),
    ("at the end", |run| Some(run.end())),
    ("mean online", |run| Some(run.area())),
];

impl Run {
    /// The return after the last update offline.
    fn seam(&self) -> Option<f64> {
        self.offline.as_ref()?.curve.last().map(|(_, score)| *score)
    }

    /// The last step of the online part.
    fn steps(&self) -> u64 {
        self.online.steps.last().copied().unwrap_or(0)
    }

    /// The mean returns of the evaluations at these steps.
    fn at(&self, wanted: impl Fn(u64) -> bool) -> Vec<f64> {
        let all = self.online.steps.iter().zip(&self.online.returns);
        all.filter(|(step, _)| wanted(**step)).map(|(_, score)| *score).collect()
    }

    /// The lowest evaluation after the first step, up to a tenth of the steps.
    fn worst(&self) -> f64 {
        let tenth = self.steps() / 10;
        let first = self.at(|step| (1..=tenth).contains(&step));
        first.into_iter().fold(f64::INFINITY, f64::min)
    }

    /// The mean of the evaluations of the last tenth.
    fn end(&self) -> f64 {
        let steps = self.steps();
        mean(&self.at(|step| step > steps - steps / 10))
    }

    /// The area under the online curve over its length.
    fn area(&self) -> f64 {
        let points = self.online.steps.iter().zip(&self.online.returns).collect::<Vec<_>>();
        let piece = |pair: &[(&u64, &f64)]| (pair[1].0 - pair[0].0) as f64 * (pair[0].1 + pair[1].1) / 2.0;
        points.windows(2).map(piece).sum::<f64>() / self.steps().max(1) as f64
    }
}

fn report(options: &Options) -> Result<String, ReportError> {
    let settings = &options.offline_online;
    let chosen =
        |method: &&Method| settings.methods.is_empty() || settings.methods.iter().any(|n| n == method.name);
    let methods = METHODS.iter().filter(chosen).collect::<Vec<_>>();
    let task = settings.task;
    let seeds = (FIRST_SEED..FIRST_SEED + options.seeds.unwrap_or(task.seeds)).collect::<Vec<_>>();
    let action =
        environments::environment(task.environment).map_err(TrainError::from)?.action_space().clone();
    let data = settings.levels.iter().map(|level| runs::data(options, *level));
    let data = data.collect::<Result<Vec<_>, _>>()?;
    let grid = runs::all(options, &data, &methods, &action, &seeds)?;
    let results = Results { settings, action, methods: &methods, data: &data, grid: &grid };
    results.charts(options)?;
    results.files(options)?;
    write::section(&options.out, &task.files(), &results.text(&seeds))?;
    let made = grid.runs.iter().flatten().flatten().count();
    let file = options.out.join("results.md");
    let failed = grid.failed.iter().map(|line| format!("\nfailed: {line}")).collect::<String>();
    Ok(format!("{made} runs of {} methods; {}{failed}", methods.len(), file.display()))
}

/// The runs of all levels and methods.
struct Results<'a> {
    settings: &'a Settings,
    action: Space,
    methods: &'a [&'a Method],
    data: &'a [Data],
    grid: &'a Grid,
}

/// The numbers of runs that have them.
fn numbers(runs: &[Run], of: Of) -> Vec<f64> {
    runs.iter().filter_map(of).collect()
}

/// A mean, with the interval where it is of more than one run.
fn cell(values: &[f64]) -> String {
    let (low, high) = bootstrap_mean(values);
    match values.len() {
        0 => "-".into(),
        1 => format!("{:.0}", values[0]),
        _ => format!("{:.0} ({low:.0} to {high:.0})", mean(values)),
    }
}

fn kilobytes(bytes: f64) -> String {
    if bytes == 0.0 { "-".into() } else { format!("{:.1}", bytes / 1e3) }
}

impl Results<'_> {
    /// Each method with its runs at a level.
    fn level(&self, level: usize) -> impl Iterator<Item = (&Method, &[Run])> {
        self.methods.iter().copied().zip(self.grid.runs[level].iter().map(Vec::as_slice))
    }

    fn table(&self, level: usize) -> Table {
        let names = COLUMNS.map(|(name, _)| name);
        let mut table = Table::new(&[&["method", "seeds"], &names[..], &["s offline", "s online"]].concat());
        for (method, runs) in self.shown(level) {
            let seconds = |of: Of| {
                if numbers(runs, of).is_empty() { "-".into() } else { whole(mean(&numbers(runs, of))) }
            };
            let mut row = vec![method.name.to_string(), runs.len().to_string()];
            row.extend(COLUMNS.map(|(_, of)| cell(&numbers(runs, of))));
            row.push(seconds(|run| run.offline.as_ref().map(|offline| offline.seconds)));
            row.push(seconds(|run| Some(run.online.seconds)));
            table.row(row);
        }
        table
    }

    /// What a device needs for each method, in kilobytes: means over the runs of all levels, except for the dataset.
    fn wire(&self) -> Table {
        let levels = self.data.iter().map(|data| format!("data, {}", data.level.name()));
        let head = ["method".into(), "weights".into(), "answers: up".into(), "down".into()];
        let head = head.into_iter().chain(levels).collect::<Vec<String>>();
        let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
        for (m, method) in self.methods.iter().enumerate() {
            let all = self.grid.runs.iter().flat_map(|level| &level[m]).collect::<Vec<_>>();
            if all.is_empty() {
                continue;
            }
            let average = |of: fn(&Run) -> u64| {
                kilobytes(mean(&all.iter().map(|run| of(run) as f64).collect::<Vec<_>>()))
            };
            let mut row = vec![method.name.to_string(), average(|run| run.weights)];
            row.extend([average(|run| run.online.bytes_up), average(|run| run.online.bytes_down)]);
            let recorded =
                |level: &Vec<Vec<Run>>| kilobytes(level[m].first().map_or(0.0, |run| run.recorded as f64));
            row.extend(self.grid.runs.iter().map(recorded));
            table.row(row);
        }
        table
    }

    /// The mean over levels of a method's mean over seeds, where each level has a run of it.
    fn overall(&self, name: &str, of: Of) -> Option<f64> {
        let m = self.methods.iter().position(|method| method.name == name)?;
        let each = self.grid.runs.iter().map(|level| numbers(&level[m], of));
        let means = each.map(|values| (!values.is_empty()).then(|| mean(&values)));
        means.collect::<Option<Vec<_>>>().map(|means| mean(&means))
    }

    /// Names with their numbers, best first.
    fn ordered(&self, names: impl Iterator<Item = (&'static str, &'static str)>, of: Of) -> String {
        let known = names.filter_map(|(title, name)| Some((title, self.overall(name, of)?)));
        let mut known = known.collect::<Vec<_>>();
        known.sort_by(|a, b| b.1.total_cmp(&a.1));
        known.iter().map(|(name, score)| format!("{name} {score:.0}")).collect::<Vec<_>>().join("; ")
    }

    /// Published orders beside those of this report.
    fn published(&self) -> Table {
        let mut table = Table::new(&["source", "published", "here"]);
        for Published { source, of, scores } in PUBLISHED {
            let said = scores.iter().map(|(title, _, score)| format!("{title} {score}"));
            let names = scores.iter().map(|(title, name, _)| (*title, *name));
            let (said, here) = (said.collect::<Vec<_>>().join("; "), self.ordered(names, *of));
            if !here.is_empty() {
                table.row(vec![(*source).into(), said, here]);
            }
        }
        table
    }

    /// Pictures of as many curves as there are colours.
    fn charts(&self, options: &Options) -> Result<(), ReportError> {
        for level in 0..self.data.len() {
            for part in 0..self.pictures(level) {
                write::chart(&options.out, &self.picture(level, part), &self.chart(level, part))?;
            }
        }
        Ok(())
    }

    /// Each method that has runs at a level, with them.
    fn shown(&self, level: usize) -> impl Iterator<Item = (&Method, &[Run])> {
        self.level(level).filter(|(_, runs)| !runs.is_empty())
    }

    fn pictures(&self, level: usize) -> usize {
        self.shown(level).count().div_ceil(PALETTE.len())
    }

    fn picture(&self, level: usize, part: usize) -> String {
        format!("{}-{}-{}", self.settings.task.files(), self.data[level].level.name(), part + 1)
    }

    /// Updates left of the seam, steps right of it.
    fn chart(&self, level: usize, part: usize) -> Chart {
        let shown = self.shown(level).skip(part * PALETTE.len()).zip(PALETTE);
        let curves =
            shown.map(|((method, runs), colour)| self.curve(method, runs, colour)).collect::<Vec<_>>();
        let heights = || curves.iter().flat_map(|curve| curve.mid.iter().copied());
        let (low, high) =
            (heights().fold(f64::INFINITY, f64::min), heights().fold(f64::NEG_INFINITY, f64::max));
        let seam = Series {
            name: "the seam".into(),
            colour: (190, 190, 190),
            x: vec![0.0; 2],
            mid: vec![low, high],
            band: None,
        };
        let mark = |score, name: &str| (score, name.to_string());
        let Task { environment, reference, .. } = self.settings.task;
        Chart {
            title: format!("{environment}, {}", self.data[level].level.name()),
            subtitle: "offline updates up to 0, online steps after it; means over seeds".into(),
            x_label: "updates, then steps".into(),
            y_label: "return".into(),
            series: [seam].into_iter().chain(curves).collect(),
            marks: vec![mark(reference.random, "random"), mark(reference.expert, "expert")],
            ..Chart::default()
        }
    }

    fn curve(&self, method: &Method, runs: &[Run], colour: (u8, u8, u8)) -> Series {
        let offline = |run: &Run| {
            let points = run.offline.iter().flat_map(|offline| &offline.curve);
            points.map(|(updates, score)| (*updates as f64 - self.settings.updates as f64, *score)).collect()
        };
        let online = |run: &Run| {
            run.online.steps.iter().map(|step| *step as f64).zip(run.online.returns.clone()).collect()
        };
        let parts: [Vec<Vec<(f64, f64)>>; 2] =
            [runs.iter().map(offline).collect(), runs.iter().map(online).collect()];
        let points = parts.iter().flat_map(|curves| averaged(curves)).collect::<Vec<_>>();
        let (x, mid) = points.into_iter().unzip();
        Series { name: method.name.into(), colour, x, mid, band: None }
    }

    fn files(&self, options: &Options) -> Result<(), ReportError> {
        let (task, files) = (self.settings.task, self.settings.task.files());
        let mut csv = String::from("level,method,seed,part,clock,return\n");
        let mut table = Table::new(&[
            "level",
            "method",
            "seed",
            "after_offline",
            "worst_of_first_tenth",
            "end",
            "mean_online",
            "weights_bytes",
            "recorded_bytes",
            "bytes_up",
            "bytes_down",
            "updates_online",
            "seconds_offline",
            "seconds_online",
        ]);
        let mut levels = Vec::new();
        for (l, data) in self.data.iter().enumerate() {
            let level = data.level.name();
            for (method, run) in
                self.level(l).flat_map(|(method, runs)| runs.iter().map(move |r| (method, r)))
            {
                let Run { offline, online, weights, recorded } = run;
                let (name, seed) = (method.name, online.seed);
                for (clock, score) in offline.iter().flat_map(|offline| &offline.curve) {
                    csv += &format!("{level},{name},{seed},offline,{clock},{score}\n");
                }
                for (clock, score) in online.steps.iter().zip(&online.returns) {
                    csv += &format!("{level},{name},{seed},online,{clock},{score}\n");
                }
                let mut row = vec![level.to_string(), name.to_string(), seed.to_string()];
                let score =
                    |(_, of): (&str, Of)| of(run).map_or(String::new(), |score| format!("{score:.1}"));
                row.extend(COLUMNS.map(score));
                let counts = [*weights, *recorded, online.bytes_up, online.bytes_down, online.updates];
                row.extend(counts.map(|count| count.to_string()));
                row.push(offline.as_ref().map_or(String::new(), |offline| format!("{:.1}", offline.seconds)));
                row.push(format!("{:.1}", online.seconds));
                table.row(row);
            }
            let methods = self.level(l).map(|(method, runs)| self.json(method, runs)).collect::<Vec<_>>();
            let (transitions, returns) = (data.dataset.len(), data.dataset.returns());
            levels.push(serde_json::json!({
                "level": level, "transitions": transitions, "mean_return": mean(&returns), "methods": methods,
            }));
        }
        write::each_run(&options.out, &files, &table)?;
        write::file(&options.out.join(format!("results/{files}.csv")), csv.as_bytes())?;
        let json = serde_json::json!({
            "experiment": EXPERIMENT.name, "environment": task.environment, "levels": levels, "failed": self.grid.failed,
        });
        let path = options.out.join(format!("results/{files}.json"));
        write::file(&path, json.to_string().as_bytes())
    }

    /// A method's configurations and runs at a level.
    fn json(&self, method: &Method, runs: &[Run]) -> serde_json::Value {
        let tree = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default();
        let begins = match method.begins {
            Begins::Fresh => "new parameters",
            Begins::Policy => "the offline policy, without updates",
            Begins::Weights => "networks, target networks and moments",
            Begins::Answers => "answers of the offline policy",
        };
        let recorded = match method.recorded {
            Recorded::Nothing => 0.0,
            Recorded::Twentieth => 0.05,
            Recorded::All => 1.0,
        };
        serde_json::json!({
            "name": method.name,
            "offline": tree(oto_json::write(&method.offline(self.settings, &self.action))),
            "online": tree(oto_json::write(&method.online(self.settings))),
            "begins_with": begins,
            "share_of_data_online": recorded,
            "runs": runs,
        })
    }

    /// The first and the last seed that a run has.
    fn seeds(&self, asked: &[u64]) -> String {
        let runs = || self.grid.runs.iter().flatten().flatten().map(|run| run.online.seed);
        let (first, last) = (runs().min().unwrap_or(asked[0]), runs().max().unwrap_or(asked[0]));
        if first == last { first.to_string() } else { format!("{first} to {last}") }
    }

    /// Which methods have no run.
    fn missing(&self) -> String {
        let none = |(m, _): &(usize, &&Method)| self.grid.runs.iter().all(|level| level[*m].is_empty());
        let names = self.methods.iter().enumerate().filter(none).map(|(_, method)| method.name);
        let names = names.collect::<Vec<_>>().join(", ");
        if names.is_empty() { names } else { format!("Without a run so far: {names}.\n") }
    }

    /// Settings that differ from the defaults, with the defaults in brackets.
    fn scaled(&self) -> Table {
        let mut table = Table::new(&["method", "offline", "online"]);
        for method in self.methods {
            let offline = method.offline.iter().map(|one| one.scaled(self.settings));
            let offline = offline.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; then ");
            let online = method.online.scaled(self.settings);
            if !(offline.is_empty() && online.is_empty()) {
                table.row(vec![method.name.into(), offline, online]);
            }
        }
        table
    }

    /// Which methods are as good as the data after the offline part.
    fn floor(&self, level: usize, behaviour: f64) -> String {
        let known = self.level(level).map(|(method, runs)| (method.name, numbers(runs, Run::seam)));
        let known = known.filter(|(_, scores)| !scores.is_empty()).collect::<Vec<_>>();
        let listed = |good: bool| {
            let some = known.iter().filter(|(_, scores)| (mean(scores) >= behaviour) == good);
            let names = some.map(|(name, _)| *name).collect::<Vec<_>>();
            if names.is_empty() { "none".into() } else { names.join(", ") }
        };
        format!("After offline, at or above this mean: {}. Below: {}.\n", listed(true), listed(false))
    }

    fn text(&self, seeds: &[u64]) -> String {
        let Settings { task, updates, steps, episodes, .. } = self.settings;
        let level = |l: usize| {
            let Data { level, dataset, .. } = &self.data[l];
            let name = level.name();
            let (transitions, returns) = (whole(dataset.len() as f64), dataset.returns());
            let (count, behaviour) = (returns.len(), mean(&returns));
            let pictures = (0..self.pictures(l))
                .map(|part| format!("\n![{name}](results/{}.svg)\n", self.picture(l, part)))
                .collect::<String>();
            let (table, floor) = (self.table(l), self.floor(l, behaviour));
            format!(
                "### Data: {name}\n\n{transitions} transitions in {count} episodes with a mean return of {behaviour:.0}.\n{floor}\n\
                 {table}{pictures}\n"
            )
        };
        let failed = self.grid.failed.iter().map(|line| format!("- Failed: {line}\n")).collect::<String>();
        let all = || self.methods.iter().map(|method| (method.name, method.name));
        let orders = COLUMNS.map(|(name, of)| format!("- {name}: {}\n", self.ordered(all(), of))).concat();
        format!(
            include_str!("offline_online.md"),
            title = task.title,
            files = task.files(),
            command = task.command(),
            environment = task.environment,
            level_names = self.data.iter().map(|data| data.level.name()).collect::<Vec<_>>().join(", "),
            data_seed = task.data_seed,
            hidden = tasks::joined(task.hidden),
            batch = task.batch,
            every = 100.0 / task.evaluations[1] as f64,
            offline_evaluations = task.evaluations[0],
            reference = format!("{} and {}", task.reference.random, task.reference.expert),
            scaled = self.scaled(),
            updates = whole(*updates as f64),
            steps = whole(*steps as f64),
            episodes = episodes,
            seeds = self.seeds(seeds),
            levels = (0..self.data.len()).map(level).collect::<String>(),
            failed = [failed, self.missing()].concat(),
            orders = orders,
            wire = self.wire(),
            published = self.published(),
            threads = write::threads(),
            system = write::system(),
        )
    }
}

/// The mean of curves point by point, as far as all of them go.
fn averaged(curves: &[Vec<(f64, f64)>]) -> Vec<(f64, f64)> {
    let shortest = curves.iter().map(Vec::len).min().unwrap_or(0);
    let point = |i: usize| {
        let scores = curves.iter().map(|curve| curve[i].1).collect::<Vec<_>>();
        (curves[0][i].0, mean(&scores))
    };
    (0..shortest).map(point).collect()
}

/// Scores from a publication: a title, the method here, and the score.
struct Published {
    source: &'static str,
    of: Of,
    scores: &'static [(&'static str, &'static str, &'static str)],
}

const PUBLISHED: &[Published] = &[
    Published {
        source: "Zheng et al. 2023: after online training, sums over twelve of D4RL's sets",
        of: |run| Some(run.end()),
        scores: &[
            ("GCQL", "gcql", "969"),
            ("GCTD3BC", "gctd3bc", "905"),
            ("balanced replay", "balanced-replay", "863"),
            ("TD3+BC", "td3-bc", "717"),
            ("CQL", "cql then sac", "691"),
            ("IQL", "iql", "449"),
        ],
    },
    Published {
        source: "Yu and Zhang 2023: after online training, sums",
        of: |run| Some(run.end()),
        scores: &[("ACA with data", "aca with data", "845"), ("ACA without", "aca", "842")],
    },
    Published {
        source: "Beeson and Montana 2022: after online training, sums over nine of D4RL's sets",
        of: |run| Some(run.end()),
        scores: &[("refined and relaxed", "td3-bc refined and relaxed", "882"), ("TD3+BC", "td3-bc", "674")],
    },
    Published {
        source: "CORL: after a million steps online in AntMaze, means",
        of: |run| Some(run.end()),
        scores: &[
            ("Cal-QL", "cal-ql", "97"),
            ("CQL", "cql then sac", "96"),
            ("IQL", "iql", "79"),
            ("AWAC", "awac", "17"),
        ],
    },
    Published {
        source: "CORL: offline, MuJoCo's bodies, means",
        of: Run::seam,
        scores: &[
            ("EDAC", "edac", "93"),
            ("IQL", "iql", "82"),
            ("CQL", "cql as it is", "78"),
            ("TD3+BC", "td3-bc", "77"),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::Finished;

    /// A run whose online evaluations are these.
    fn run(online: &[(u64, f64)]) -> Run {
        let (steps, returns) = online.iter().copied().unzip();
        let finished = serde_json::json!({
            "seed": 1, "steps": Vec::<u64>::new(), "returns": Vec::<f64>::new(), "updates": 0, "labels": 0, "bytes_up": 0,
            "bytes_down": 0, "transitions_sent": 0, "transfer_ended": null, "seconds": 1.0,
        });
        let finished: Finished = serde_json::from_value(finished).unwrap();
        Run { offline: None, online: Finished { steps, returns, ..finished }, weights: 0, recorded: 0 }
    }

    #[test]
    fn a_run_is_measured_at_its_worst_at_its_end_and_by_its_area() {
        let score = |step| if step == 20 { -9.0 } else { step as f64 };
        let online = (0..=20).map(|i| (i * 10, score(i * 10))).collect::<Vec<_>>();
        let run = run(&online);
        assert_eq!((run.seam(), run.worst(), run.end()), (None, -9.0, 195.0));
        // The line from 0 to 200, without what the drop at 20 takes: 29 over ten steps on each side, halved.
        assert!((run.area() - (100.0 - 29.0 * 10.0 / 200.0)).abs() < 1e-9, "{}", run.area());
    }

    #[test]
    fn curves_are_averaged_as_far_as_all_go() {
        let curves = [vec![(0.0, 1.0), (5.0, 2.0)], vec![(0.0, 3.0)]];
        assert_eq!(averaged(&curves), [(0.0, 2.0)]);
        assert_eq!(averaged(&[]), []);
    }

    /// Every method makes a tiny run. A report of kept runs is the same, an interrupted one makes the missing run again, as it was.
    #[test]
    fn a_short_report_is_written_and_its_runs_are_kept() {
        let folder = std::env::temp_dir().join(format!("oto-offline-online-{}", std::process::id()));
        let settings = Settings {
            updates: 10,
            steps: 50,
            episodes: 1,
            levels: vec![Level::Random],
            training_steps: 500,
            level_steps: 4_000,
            ..Settings::default()
        };
        let mut options = Options {
            out: folder.join("docs"),
            cache: folder.join("cache"),
            jobs: std::num::NonZeroUsize::new(2),
            seeds: Some(1),
            steps: 0,
            cql_teacher: None,
            sac_teacher: None,
            cloud_edge: crate::cloud_edge::Settings::default(),
            offline_online: settings,
            collaborative: Default::default(),
            tell: |_| (),
        };
        let line = report(&options).unwrap();
        let count = METHODS.len();
        assert!(line.starts_with(&format!("{count} runs of {count} methods")), "{line}");
        let read = |options: &Options, name: &str| std::fs::read_to_string(options.out.join(name)).unwrap();
        let [text, runs] =
            ["results.md", "results/offline-to-online-runs.csv"].map(|name| read(&options, name));
        METHODS
            .iter()
            .for_each(|method| assert!(text.contains(&format!("\n| {} | 1 |", method.name)), "{text}"));
        assert!(text.contains("### Data: random") && text.contains("### Over the wire"), "{text}");
        assert_eq!(runs.lines().count(), count + 1);
        assert!(read(&options, "results/offline-to-online-random-1.svg").contains("the seam"));
        let json: serde_json::Value =
            serde_json::from_str(&read(&options, "results/offline-to-online.json")).unwrap();
        assert_eq!(json["levels"][0]["methods"].as_array().map(Vec::len), Some(count));
        // Answers, networks, episodes: each where the method needs it, and nowhere else.
        let bytes = |name: &str| {
            let row = runs.lines().find(|row| row.split(',').nth(1) == Some(name)).unwrap();
            let numbers = row.split(',').skip(7).take(4).map(|cell| cell.parse::<u64>().unwrap());
            <[bool; 4]>::try_from(numbers.map(|bytes| bytes > 0).collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(bytes("sac from scratch"), [false; 4]);
        assert_eq!(bytes("cql served"), [false, false, true, true]);
        assert_eq!(bytes("cql then sac"), [true, false, false, false]);
        assert_eq!(bytes("pex"), [true, true, false, false]);
        assert_eq!(bytes("rlpd"), [false, true, false, false]);

        // One run and its offline part are lost.
        let lost = std::fs::read_dir(&options.cache).unwrap().map(Result::unwrap).filter(|one| {
            one.file_name().to_string_lossy().contains("random-of-iql")
                || one.file_name().to_string_lossy().contains("random-iql")
        });
        let lost = lost.map(|one| one.path()).collect::<Vec<_>>();
        assert_eq!(lost.len(), 2);
        lost.iter().for_each(|path| std::fs::remove_dir_all(path).unwrap());
        options.offline_online.finished = true;
        assert!(report(&options).unwrap().starts_with(&format!("{} runs", count - 1)));
        assert!(read(&options, "results.md").contains("Without a run so far: iql.\n"));
        options.offline_online.finished = false;
        options.offline_online.methods = vec!["iql".into(), "pex".into()];
        assert!(report(&options).unwrap().starts_with("2 runs of 2 methods"));
        let again = read(&options, "results/offline-to-online-runs.csv");
        // All but the seconds.
        let score = |text: &str| {
            let row = text.lines().find(|row| row.starts_with("random,iql,")).unwrap();
            row.rsplitn(3, ',').last().unwrap().to_string()
        };
        assert_eq!(score(&again), score(&runs));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

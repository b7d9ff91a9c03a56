//! The cloud trains, the edge acts: the experiments of "Cloud-Edge Training Architecture for Sim-to-Real Deep Reinforcement Learning" (Cao
//! et al. 2022, section V) in virtual time (`oto_agent::virtual_time`), and what they left open.
//!
//! An agent learns in the simulation for each friction factor, then on the plant, over a line with a delay and a bandwidth.
//! `arms` has the configurations, `runs` makes their runs and keeps them.

mod arms;
mod runs;

use crate::chart::{Chart, PALETTE, Series};
use crate::write::{self, Table, whole};
use crate::{Experiment, Options, ReportError};
use arms::{Arm, BANDWIDTHS};
pub use arms::{Part, Settings};
use runs::{Finished, Pretrained};

/// `oto report cloud-edge`.
pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "cloud-edge",
    about: "A pendulum that is trained in a simulation, then from the cloud: friction, delays, bandwidth, replay, faults",
    run: report,
};

/// No tuning looked at these seeds.
const FIRST_SEED: u64 = 9_700;
const SEEDS: u64 = 5;

fn report(options: &Options) -> Result<String, ReportError> {
    let settings = &options.cloud_edge;
    let seeds: Vec<u64> = (FIRST_SEED..FIRST_SEED + options.seeds.unwrap_or(SEEDS)).collect();
    let arms = arms::arms(settings);
    let mut k_fs: Vec<f64> = arms.iter().map(|arm| arm.k_f).collect();
    k_fs.sort_by(f64::total_cmp);
    k_fs.dedup();
    let agents = runs::pretrained(options, settings, &k_fs)?;
    let runs = runs::all(options, &arms, &agents, &seeds)?;
    let (arms, runs): (Vec<Arm>, Vec<_>) =
        arms.into_iter().zip(runs).filter(|(_, runs)| !runs.is_empty()).unzip();
    if runs.is_empty() {
        return Err(runs::nothing_kept(&options.cache));
    }
    let agents: Vec<Pretrained> = agents.into_iter().map(|(agent, _)| agent).collect();
    let results = Results { settings, arms: &arms, runs: &runs, limit: settings.steps };
    results.charts(options)?;
    results.files(options, &agents)?;
    let text = results.text(&agents, &seeds);
    write::section(&options.out, "cloud-edge", &text)?;
    let all: Vec<_> = runs.iter().flatten().collect();
    let converged = all.iter().filter(|run| run.outcome.converged.is_some()).count();
    let file = options.out.join("results.md");
    Ok(format!("{converged} of {} runs on the plant converged; {}", all.len(), file.display()))
}

/// The runs of all arms.
struct Results<'a> {
    settings: &'a Settings,
    arms: &'a [Arm],
    runs: &'a [Vec<Finished>],
    /// Steps of a run that does not converge.
    limit: u64,
}

/// Training steps until convergence of each seed, sorted; runs that did not converge count as the limit.
fn times(runs: &[Finished], limit: u64) -> Vec<f64> {
    let mut times: Vec<f64> = runs.iter().map(|run| run.outcome.converged.unwrap_or(limit) as f64).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// The middle of sorted numbers; of an even number the lower one of the two in the middle.
fn middle(sorted: &[f64]) -> f64 {
    sorted[(sorted.len() - 1) / 2]
}

impl Results<'_> {
    fn chosen(&self, part: Part) -> bool {
        let asked = self.settings.parts.is_empty() || self.settings.parts.contains(&part);
        asked && self.of(part).next().is_some()
    }

    /// How many seeds the arms have, as a number or a range.
    fn seeds(&self) -> String {
        let counts = || self.runs.iter().map(Vec::len);
        let (least, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
        if least == most { most.to_string() } else { format!("{least} to {most}") }
    }

    fn of(&self, part: Part) -> impl Iterator<Item = (&Arm, &Vec<Finished>)> {
        self.arms.iter().zip(self.runs).filter(move |(arm, _)| arm.parts.contains(&part))
    }

    fn named(&self, name: &str) -> Option<&Vec<Finished>> {
        self.arms.iter().position(|arm| arm.name == name).map(|at| &self.runs[at])
    }

    fn table(&self, part: Part) -> Table {
        let mut table = Table::new(&[
            "arm",
            "first evaluations that succeed",
            "converged",
            "steps until then: each seed",
            "staleness: median, maximum",
            "bytes a step up",
            "bytes a push",
            "steps between pushes",
        ]);
        for (arm, runs) in self.of(part) {
            let count = |of: fn(&Finished) -> bool| runs.iter().filter(|run| of(run)).count();
            let sum = |of: fn(&Finished) -> u64| runs.iter().map(of).sum::<u64>() as f64;
            let shown = |time: &f64| match *time >= self.limit as f64 {
                true => format!("> {}", whole(self.limit as f64)),
                false => whole(*time),
            };
            let periods = sum(|run| run.outcome.periods);
            let pushes = sum(|run| run.outcome.pushes).max(1.0);
            let stale = |at: usize| runs.iter().map(|run| run.outcome.staleness[at]).max().unwrap_or(0);
            table.row(vec![
                arm.title.clone(),
                count(|run| run.outcome.evaluations.first().is_some_and(|one| one.success)).to_string(),
                format!("{} of {}", count(|run| run.outcome.converged.is_some()), runs.len()),
                times(runs, self.limit).iter().map(shown).collect::<Vec<_>>().join("; "),
                format!("{}, {}", stale(0), stale(2)),
                format!("{:.0}", sum(|run| run.outcome.bytes_up) / periods),
                whole(sum(|run| run.outcome.push_bytes) / pushes),
                format!("{:.1}", periods / pushes),
            ]);
        }
        table
    }

    /// The learner in the cloud and students at the edge: steps, and bytes of a whole run.
    fn local(&self) -> Table {
        let mut table = Table::new(&[
            "arm",
            "first evaluations that succeed",
            "converged",
            "steps until then: each seed",
            "updates: cloud, edge",
            "kilobytes up: each seed",
            "kilobytes down: each seed",
        ]);
        for (arm, runs) in self.of(Part::Local) {
            let count = |of: fn(&Finished) -> bool| runs.iter().filter(|run| of(run)).count();
            let each = |of: fn(&Finished) -> u64, unit: f64| {
                runs.iter().map(|run| whole(of(run) as f64 / unit)).collect::<Vec<_>>().join("; ")
            };
            let updates = each(|run| run.outcome.updates, 1.0);
            table.row(vec![
                arm.title.clone(),
                count(|run| run.outcome.evaluations.first().is_some_and(|one| one.success)).to_string(),
                format!("{} of {}", count(|run| run.outcome.converged.is_some()), runs.len()),
                runs.iter().map(|run| self.shown(run)).collect::<Vec<_>>().join("; "),
                if arm.local.is_some() { format!("0, {updates}") } else { format!("{updates}, 0") },
                each(|run| run.outcome.bytes_up, 1e3),
                each(|run| run.outcome.bytes_down, 1e3),
            ]);
        }
        table
    }

    /// The steps until a run converged.
    fn shown(&self, run: &Finished) -> String {
        match run.outcome.converged {
            Some(steps) => whole(steps as f64),
            None => format!("> {}", whole(self.limit as f64)),
        }
    }

    /// Medians with a band from the best to the worst seed.
    fn series(&self, name: &str, colour: usize, points: &[(f64, &Vec<Finished>)]) -> Series {
        let sorted: Vec<_> = points.iter().map(|(_, runs)| times(runs, self.limit)).collect();
        Series {
            name: name.into(),
            colour: PALETTE[colour % PALETTE.len()],
            x: points.iter().map(|(x, _)| *x).collect(),
            mid: sorted.iter().map(|times| middle(times)).collect(),
            band: Some((
                sorted.iter().map(|times| times[0]).collect(),
                sorted.iter().map(|times| times[times.len() - 1]).collect(),
            )),
        }
    }

    fn chart(&self, title: &str, x_label: &str, series: Vec<Series>, logarithmic: bool) -> Chart {
        Chart {
            title: title.into(),
            subtitle: format!(
                "Steps on the plant until five successes in a row: median, best and worst of {} seeds; {}: not converged",
                self.seeds(),
                whole(self.limit as f64)
            ),
            x_label: x_label.into(),
            y_label: "training steps".into(),
            series,
            marks: Vec::new(),
            y_range: None,
            logarithmic,
        }
    }

    fn charts(&self, options: &Options) -> Result<(), ReportError> {
        if self.chosen(Part::Gap) {
            let mut points: Vec<_> = self.of(Part::Gap).map(|(arm, runs)| (arm.k_f, runs)).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let series = vec![self.series("convergence", 0, &points)];
            let chart = self.chart("Reality gap", "friction factor of the simulation", series, false);
            write::chart(&options.out, "cloud-edge-gap", &chart)?;
            write::chart(&options.out, "cloud-edge-series", &self.time_series(Part::Gap))?;
        }
        if self.chosen(Part::Delays) {
            let sorted = self.of(Part::Delays).enumerate().map(|(i, (arm, runs))| Series {
                name: arm.title.clone(),
                colour: PALETTE[i % PALETTE.len()],
                x: (1..=runs.len()).map(|rank| rank as f64).collect(),
                mid: times(runs, self.limit),
                band: None,
            });
            let chart = self.chart("Delays of critic and actor", "seeds, sorted", sorted.collect(), false);
            write::chart(&options.out, "cloud-edge-delays", &chart)?;
        }
        if self.chosen(Part::Bandwidth) {
            let curve = |(i, (name, title)): (usize, (&str, &str))| {
                let points: Vec<_> = BANDWIDTHS
                    .iter()
                    .filter_map(|megabits| Some((*megabits, self.named(&format!("{name}-{megabits}"))?)))
                    .collect();
                self.series(title, i, &points)
            };
            let kinds = [
                ("combined", "f32, combined replay"),
                ("uniform", "f32, uniform replay"),
                ("delta", "differences"),
            ];
            let series = kinds.into_iter().enumerate().map(curve).collect();
            let chart = self.chart("Bandwidth", "Mbit/s from learner to edge", series, true);
            write::chart(&options.out, "cloud-edge-bandwidth", &chart)?;
        }
        if self.chosen(Part::Local) {
            write::chart(&options.out, "cloud-edge-local", &self.time_series(Part::Local))?;
        }
        Ok(())
    }

    /// The evaluations of the run with the median time, for each arm of a part: friction factors,
    /// or where the training is.
    fn time_series(&self, part: Part) -> Chart {
        let median = |(i, (arm, runs)): (usize, (&Arm, &Vec<Finished>))| {
            let time = |run: &&Finished| run.outcome.converged.unwrap_or(self.limit);
            let mut sorted: Vec<&Finished> = runs.iter().collect();
            sorted.sort_by_key(time);
            let run = sorted[(sorted.len() - 1) / 2];
            Series {
                name: if part == Part::Gap { format!("k_f {}", arm.k_f) } else { arm.name.clone() },
                colour: PALETTE[i % PALETTE.len()],
                x: run.outcome.evaluations.iter().map(|one| one.steps as f64).collect(),
                mid: run.outcome.evaluations.iter().map(|one| one.on_target).collect(),
                band: None,
            }
        };
        Chart {
            title: "Evaluations on the plant".into(),
            subtitle: "Consecutive steps on target at the end of each evaluation, of the seed with the median convergence time".into(),
            x_label: "training steps on the plant".into(),
            y_label: "steps on target".into(),
            series: self.of(part).enumerate().map(median).collect(),
            marks: vec![(750.0, "success".into())],
            y_range: Some((0.0, 1_000.0)),
            logarithmic: false,
        }
    }

    fn files(&self, options: &Options, agents: &[Pretrained]) -> Result<(), ReportError> {
        let mut evaluations = String::from("arm,seed,steps,on_target,success,return\n");
        let mut table = Table::new(&[
            "arm",
            "seed",
            "converged",
            "steps",
            "periods",
            "episodes",
            "updates",
            "pushes",
            "push_bytes",
            "bytes_up",
            "bytes_down",
            "staleness_median",
            "staleness_99",
            "staleness_most",
            "backlog",
            "safe",
            "faulty",
            "seconds",
        ]);
        for (arm, runs) in self.arms.iter().zip(self.runs) {
            for Finished { seed, outcome, seconds } in runs {
                for one in &outcome.evaluations {
                    let (steps, on_target, success, score) =
                        (one.steps, one.on_target, one.success, one.score);
                    evaluations += &format!("{},{seed},{steps},{on_target},{success},{score}\n", arm.name);
                }
                let [median, most_99, most] = outcome.staleness;
                let numbers = [
                    outcome.steps,
                    outcome.periods,
                    outcome.episodes,
                    outcome.updates,
                    outcome.pushes,
                    outcome.push_bytes,
                    outcome.bytes_up,
                    outcome.bytes_down,
                    median,
                    most_99,
                    most,
                    outcome.backlog,
                    outcome.safe,
                    outcome.faulty,
                ];
                let converged = outcome.converged.map_or(String::new(), |steps| steps.to_string());
                let mut row = vec![arm.name.clone(), seed.to_string(), converged];
                row.extend(numbers.map(|number| number.to_string()));
                row.push(format!("{seconds:.1}"));
                table.row(row);
            }
        }
        write::each_run(&options.out, "cloud-edge", &table)?;
        write::file(&options.out.join("results/cloud-edge.csv"), evaluations.as_bytes())?;
        let arms = self.arms.iter().zip(self.runs).map(|(arm, runs)| {
            let learner: serde_json::Value =
                serde_json::from_str(&oto_json::write(&arm.learner)).unwrap_or_default();
            let student = arm.local.as_ref().map(|local| &local.student);
            serde_json::json!({
                "name": arm.name, "title": arm.title, "k_f": arm.k_f, "plant": arm.plant, "setup": arm.setup,
                "keeps_replay": arm.keeps_replay, "learner": learner, "student_at_the_edge": student, "runs": runs,
            })
        });
        let json = serde_json::json!({
            "experiment": "cloud-edge", "pretraining": agents, "arms": arms.collect::<Vec<_>>(),
        });
        write::file(&options.out.join("results/cloud-edge.json"), json.to_string().as_bytes())
    }

    fn text(&self, agents: &[Pretrained], seeds: &[u64]) -> String {
        let mut simulation =
            Table::new(&["friction factor", "steps", "best average at step", "its share of successes"]);
        for Pretrained { k_f, best, outcome, .. } in agents {
            let row = [*k_f, outcome.steps as f64, best.0 as f64].map(whole);
            simulation.row(row.into_iter().chain([format!("{:.2}", best.1)]).collect());
        }
        let part = |part: Part, title: &str, picture: &str| {
            let missing = !self.chosen(part);
            let pictures: String = picture
                .split_whitespace()
                .map(|name| format!("![{title}](results/cloud-edge-{name}.svg)\n\n"))
                .collect();
            let table = if part == Part::Local { self.local() } else { self.table(part) };
            if missing { String::new() } else { format!("### {title}\n\n{pictures}{table}\n") }
        };
        let Settings { pretraining, steps, hidden, batch, .. } = self.settings;
        format!(
            include_str!("cloud_edge.md"),
            count = self.seeds(),
            seeds = format!("{} to {}", seeds[0], seeds[seeds.len() - 1]),
            pretraining = whole(*pretraining as f64),
            steps = whole(*steps as f64),
            hidden = hidden.iter().map(usize::to_string).collect::<Vec<_>>().join("-"),
            batch = batch,
            simulation = simulation,
            parts = [
                part(Part::Gap, "Reality gap", "gap series"),
                part(Part::Delays, "Delays", "delays"),
                part(Part::Bandwidth, "Bandwidth", "bandwidth"),
                part(Part::Replay, "Replay of the simulation", ""),
                part(Part::Wild, "Wild readings", ""),
                part(Part::Local, "Training at the edge", "local"),
            ]
            .concat(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tiny networks and runs: the report has its tables, pictures and files, and a second one makes no run.
    #[test]
    fn a_short_report_is_written_and_its_runs_are_kept() {
        let folder = std::env::temp_dir().join(format!("oto-cloud-edge-{}", std::process::id()));
        let parts = vec![Part::Gap, Part::Replay, Part::Local];
        let cloud_edge =
            Settings { pretraining: 1_300, steps: 150, hidden: vec![8], batch: 4, parts, finished: false };
        let mut options = Options {
            out: folder.join("docs"),
            cache: folder.join("cache"),
            jobs: std::num::NonZeroUsize::new(1),
            seeds: Some(2),
            steps: 0,
            cql_teacher: None,
            sac_teacher: None,
            cloud_edge,
            offline_online: crate::offline_online::Settings::default(),
            collaborative: Default::default(),
            tell: |_| (),
        };
        let line = report(&options).unwrap();
        assert!(line.starts_with("0 of 18 runs on the plant converged"), "{line}");
        let read = |name: &str| std::fs::read_to_string(options.out.join(name)).unwrap();
        let (text, runs) = (read("results.md"), read("results/cloud-edge-runs.csv"));
        assert!(text.contains("### Reality gap") && text.contains("| k_f 16 | "), "{text}");
        assert!(text.contains("### Replay of the simulation") && !text.contains("### Bandwidth"), "{text}");
        assert_eq!(runs.lines().count(), 19);
        assert!(text.contains("### Training at the edge") && text.contains("0, "), "{text}");
        // A student at the edge sends states only where it is taught, and gets a file only where one is handed over.
        let bytes = |name: &str, column: usize| {
            let row = runs.lines().find(|row| row.starts_with(&format!("{name},"))).unwrap();
            row.split(',').nth(column).unwrap().parse::<u64>().unwrap()
        };
        assert_eq!((bytes("handed", 9), bytes("handed", 8)), (0, 0));
        assert!(bytes("taught", 9) > 0 && bytes("handed", 10) > bytes("taught", 10), "{runs}");
        assert!(read("results/cloud-edge-local.svg").contains("handed-taught"));
        assert!(read("results/cloud-edge-gap.svg").contains("friction factor"));
        let json: serde_json::Value = serde_json::from_str(&read("results/cloud-edge.json")).unwrap();
        assert_eq!(json["arms"].as_array().map(Vec::len), Some(9));
        assert_eq!(json["pretraining"].as_array().map(Vec::len), Some(5));
        // With the times that the kept runs took, to the digit.
        assert_eq!(report(&options).unwrap(), line);
        assert_eq!(read("results/cloud-edge-runs.csv"), runs);
        // The kept runs alone, where another seed has none.
        options.seeds = Some(3);
        options.cloud_edge.finished = true;
        assert_eq!(report(&options).unwrap(), line);
        assert_eq!(read("results/cloud-edge-runs.csv"), runs);
        options.cache = folder.join("nowhere");
        let none = report(&options).unwrap_err().to_string();
        assert!(none.contains("no runs are kept here, and --finished makes none"), "{none}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

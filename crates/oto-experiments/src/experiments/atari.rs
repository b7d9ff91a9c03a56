//! Two Atari games, small: a QR-DQN student taught by policies that conservative Q-learning made of recorded games, by both parts of
//! AIKD, by one, and alone (OTO, section V-A, figures 5 and 6).

use super::ablations::{self, CQL, Parts};
use super::cartpole::curve;
use super::games::{self, Data, GAMES, Game, Made};
use crate::chart::{Chart, PALETTE};
use crate::runs::{self, Arm, Finished};
use crate::statistics::{bootstrap_mean, mean, median};
use crate::teachers;
use crate::write::{self, Table};
use crate::{Experiment, Options, ReportError};
use oto_agent::config::{EvaluationConfig, Linear, StudentConfig};
use oto_agent::presets;
use oto_agent::run::Job;
use oto_agent::stage::StagesConfig;
use oto_agent::student::TeacherConfig;
use oto_proto::{Dtype, Quantization};
use oto_rl::algorithms::cql::CqlConfig;
use oto_rl::algorithms::qrdqn::QrDqnConfig;
use std::cmp::Ordering;

/// `oto report atari`.
pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "atari",
    about: "Two Atari games in Python (gymnasium, ale-py) with teachers from datasets, beside learning alone",
    run: report,
};

/// Steps of a run, four frames each.
const STEPS: u64 = 10_000;
const FRAMES: u64 = 4;
const EVERY: u64 = 1_000;
/// Games of an evaluation.
const EPISODES: u32 = 3;
/// Evaluations whose mean says where a run stands, and where it ended.
const WINDOW: usize = 2;
const LAST: usize = 4;
/// No tuning looked at these seeds.
const FIRST_SEED: u64 = 9_770;
const TITLES: [&str; 5] =
    ["OTO: BASE and RKD", "BASE only", "RKD only", "OTO, teacher of random games", "alone"];

/// The same in all arms: the field's settings for pixels, over a budget of thousands of steps instead of millions.
fn student() -> StudentConfig {
    let images = presets::Seen { continuous: false, images: Some(games::SHAPE) };
    let usual = presets::preset("", images, None).student;
    let network = |q: &mut QrDqnConfig| {
        (q.convolution, q.hidden) = (Some(games::network()), vec![games::HIDDEN]);
        (q.quantiles, q.adam) = (games::QUANTILES, games::adam());
    };
    StudentConfig {
        steps: STEPS,
        algorithm: usual.algorithm.with(network),
        buffer: STEPS as usize,
        learning_starts: 500,
        learning_rate: Linear::constant(games::LEARNING_RATE),
        epsilon: Linear { start: 1.0, end: 0.05, steps: STEPS / 4 },
        target_every: 250,
        evaluation: EvaluationConfig { every: EVERY, episodes: EPISODES },
        ..usual
    }
}

fn alone(game: &Game) -> Job {
    let student = StudentConfig { stages: StagesConfig::SOLO, ..student() };
    Job {
        env: game.env.into(),
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

/// Pixels travel as the bytes that they are.
fn taught(game: &Game, teacher: &Made) -> Result<Job, ReportError> {
    let unread = |error| ReportError::File { path: teacher.policy.clone(), error };
    let numbers = games::SHAPE.iter().product();
    let teacher = TeacherConfig {
        url: teachers::address(CQL, &teacher.policy).map_err(unread)?,
        policy: CQL.into(),
        adapter: None,
        learn_adapter: None,
        dtype: Dtype::U8,
        quantization: Some(Quantization { scale: vec![1.0; numbers], offset: vec![0.0; numbers] }),
        weight: 1.0,
        submit: false,
    };
    Ok(Job { student: student(), teachers: vec![teacher], ..alone(game) })
}

fn arms(game: &Game, [expert, random]: [&Made; 2]) -> Result<Vec<Arm>, ReportError> {
    let (by_expert, by_random) = (taught(game, expert)?, taught(game, random)?);
    let jobs = [
        (by_expert.clone(), Some(expert)),
        (ablations::only(by_expert.clone(), Parts::Base), Some(expert)),
        (ablations::only(by_expert, Parts::Rkd), Some(expert)),
        (by_random, Some(random)),
        (alone(game), None),
    ];
    let arm = |((job, teacher), (name, title)): ((Job, Option<&Made>), (&'static str, &'static str))| {
        let teachers = teacher.map_or_else(teachers::none, |t| teachers::from_file(CQL, t.policy.clone()));
        Arm { name, title, before: None, job, test: None, teachers }
    };
    Ok(jobs.into_iter().zip(game.arms.into_iter().zip(TITLES)).map(arm).collect())
}

/// A game with its teachers and runs.
struct Played<'g> {
    game: &'g Game,
    expert: Made,
    random: Made,
    arms: Vec<Arm>,
    runs: Vec<Vec<Finished>>,
}

impl Played<'_> {
    /// The score that counts: half of the way from what chance plays to what the teacher plays.
    fn bar(&self) -> f64 {
        0.5 * (self.random.about.recorded + self.expert.score())
    }

    /// Steps of each run of an arm until the mean of [`WINDOW`] evaluations is at the bar, or the run's end.
    fn reached(&self, arm: usize) -> Vec<f64> {
        let first = |run: &Finished| {
            let found = run.returns.windows(WINDOW).position(|w| mean(w) >= self.bar());
            found.map_or(STEPS, |i| run.steps[i + WINDOW - 1]) as f64
        };
        self.runs[arm].iter().map(first).collect()
    }

    /// Mean of all evaluations of each run: how much was learned, and how soon.
    fn whole(&self, arm: usize) -> Vec<f64> {
        self.runs[arm].iter().map(|r| r.last(r.returns.len())).collect()
    }

    fn chart(&self) -> Chart {
        let series = self.arms.iter().zip(&self.runs).zip(PALETTE);
        let seeds = self.runs[0].len();
        Chart {
            title: format!("{}: taught from recorded games, and alone", self.game.name),
            subtitle: format!("score of {} steps, mean of {seeds} seeds, 95 % bootstrap band", games::LIMIT),
            x_label: format!("environment steps of {FRAMES} frames"),
            y_label: "score".into(),
            series: series.map(|((a, runs), colour)| curve(a.title, colour, runs)).collect(),
            marks: vec![
                (self.expert.score(), format!("teacher of expert games: {:.1}", self.expert.score())),
                (self.bar(), format!("half of the way there: {:.1}", self.bar())),
            ],
            y_range: None,
            logarithmic: false,
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "arm",
            "steps to the bar, median",
            "lowest",
            "highest",
            "all evaluations, mean",
            "95 % interval",
            "last four, mean",
            "updates",
            "labels",
            "bytes up",
            "bytes down",
        ]);
        for (i, (arm, runs)) in self.arms.iter().zip(&self.runs).enumerate() {
            let (steps, all) = (self.reached(i), self.whole(i));
            let (low, high) = bootstrap_mean(&all);
            let average = |g: &dyn Fn(&Finished) -> f64| mean(&runs.iter().map(g).collect::<Vec<_>>());
            table.row(vec![
                arm.title.into(),
                shown(median(&steps)),
                shown(steps.iter().copied().fold(f64::INFINITY, f64::min)),
                shown(steps.iter().copied().fold(0.0, f64::max)),
                format!("{:.2}", mean(&all)),
                format!("{low:.2} to {high:.2}"),
                format!("{:.2}", average(&|r| r.last(LAST))),
                write::whole(average(&|r| r.updates as f64)),
                write::whole(average(&|r| r.labels as f64)),
                write::whole(average(&|r| r.bytes_up as f64)),
                write::whole(average(&|r| r.bytes_down as f64)),
            ]);
        }
        table
    }

    /// Whether the order is the paper's, by the steps to the bar and, where those are equal, by the intervals of all evaluations.
    fn order(&self) -> String {
        let spread = |arm: usize| bootstrap_mean(&self.whole(arm));
        let overlap = |a: usize, b: usize| {
            let (a, b) = (spread(a), spread(b));
            a.0 <= b.1 && b.0 <= a.1
        };
        let compare = |a: usize, b: usize| {
            let (steps, all) = (|i| median(&self.reached(i)), |i| mean(&self.whole(i)));
            let by_all = if overlap(a, b) { Ordering::Equal } else { all(b).total_cmp(&all(a)) };
            steps(a).total_cmp(&steps(b)).then(by_all)
        };
        let better = |a: usize, b: usize| compare(a, b).is_lt();
        let words = |a: usize, b: usize| match compare(a, b) {
            Ordering::Less => "ahead of",
            Ordering::Equal => "level with",
            Ordering::Greater => "behind",
        };
        let [oto, base, rkd, random, solo] = [0, 1, 2, 3, 4];
        let paper = if better(oto, base) && better(oto, rkd) { "as" } else { "unlike" };
        let mut sentences = vec![format!(
            "Both parts together are {} BASE alone and {} RKD alone, {paper} in the paper.",
            words(oto, base),
            words(oto, rkd),
        )];
        let taught = [oto, base, rkd];
        sentences.push(match taught.iter().filter(|arm| better(**arm, solo)).count() {
            3 => "All three are ahead of the student alone.".into(),
            0 => "None of the three is ahead of the student alone, unlike in the paper.".into(),
            count => format!("{count} of the three are ahead of the student alone, unlike in the paper."),
        });
        sentences.push(match (overlap(random, solo), better(random, solo)) {
            (true, _) => "With these seeds a teacher of random games makes no visible difference.".into(),
            (false, true) => "A teacher of random games still helps.".into(),
            (false, false) => "A teacher of random games does harm.".into(),
        });
        let apart = taught[1..].iter().filter(|part| !overlap(oto, **part));
        sentences.push(match apart.count() {
            0 => "The intervals of both together and of each part overlap: these few seeds do not separate them.".into(),
            1 => "The interval of both together overlaps with that of one part.".into(),
            _ => "The intervals of both together and of each part do not overlap.".to_string(),
        });
        sentences.join(" ")
    }
}

/// Steps of a run, or that it never came there.
fn shown(steps: f64) -> String {
    if steps >= STEPS as f64 { "never".into() } else { write::whole(steps) }
}

/// Makes what is missing and writes the section on Atari.
fn report(options: &Options) -> Result<String, ReportError> {
    let seeds = (FIRST_SEED..FIRST_SEED + options.seeds.unwrap_or(5)).collect::<Vec<_>>();
    let wanted = GAMES.each_ref().map(|game| [(game, Data::Expert), (game, Data::Random)]).concat();
    let made = runs::each(options, &wanted, |(game, data)| games::teacher(options, game, *data))?;
    let mut made = made.into_iter();
    let mut played = Vec::new();
    for game in &GAMES {
        let (expert, random) = made.next().zip(made.next()).expect("two teachers were made for each game");
        let arms = arms(game, [&expert, &random])?;
        let runs = runs::all(options, &arms, &seeds)?;
        let one = Played { game, expert, random, arms, runs };
        write::chart(&options.out, &format!("atari-{}", game.name.to_lowercase()), &one.chart())?;
        played.push(one);
    }

    let mut teachers = Table::new(&[
        "game",
        "data",
        "recorded score, mean",
        "transitions",
        "best constant action, mean",
        "teacher's score, mean",
        "lowest",
        "highest",
        "seconds",
    ]);
    let mut each = Table::new(&["arm", "seed", "steps_to_bar", "all_evaluations", "seconds"]);
    for one in &played {
        for (data, Made { about, .. }) in [(Data::Expert, &one.expert), (Data::Random, &one.random)] {
            let scores = &about.scores;
            teachers.row(vec![
                one.game.name.into(),
                data.name().into(),
                format!("{:.2}", about.recorded),
                write::whole(about.transitions as f64),
                format!("{:.2}", about.constant),
                format!("{:.2}", mean(scores)),
                format!("{}", scores.iter().copied().fold(f64::INFINITY, f64::min)),
                format!("{}", scores.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
                format!("{:.0}", about.seconds),
            ]);
        }
        for (i, (arm, runs)) in one.arms.iter().zip(&one.runs).enumerate() {
            for (run, (steps, all)) in runs.iter().zip(one.reached(i).into_iter().zip(one.whole(i))) {
                // Empty: the run never reached the bar.
                let steps = if steps >= STEPS as f64 { String::new() } else { steps.to_string() };
                let cells = [arm.name.into(), run.seed.to_string(), steps];
                let rest = [format!("{all:.2}"), format!("{:.0}", run.seconds)];
                each.row(cells.into_iter().chain(rest).collect());
            }
        }
    }
    let games = played.iter().map(|one| {
        format!(
            include_str!("atari_game.md"),
            name = one.game.name,
            file = one.game.name.to_lowercase(),
            rule = one.game.rule,
            bar = format!("{:.2}", one.bar()),
            order = one.order(),
            table = one.table(),
        )
    });
    let c = games::config();
    let text = format!(
        include_str!("atari.md"),
        games = games.collect::<String>(),
        count = seeds.len(),
        seeds = format!("{} to {}", seeds[0], seeds[seeds.len() - 1]),
        steps = write::whole(STEPS as f64),
        frames = write::whole((STEPS * FRAMES) as f64),
        screen = games::SCREEN,
        limit = games::LIMIT,
        every = EVERY,
        episodes = EPISODES,
        rate = games::LEARNING_RATE,
        epsilon = games::adam().epsilon,
        still = games::STILL,
        window = WINDOW,
        hidden = games::HIDDEN,
        quantiles = games::QUANTILES,
        recorded = write::whole(games::RECORDED as f64),
        slips = format!("{:.0} %", 100.0 * games::SLIPS),
        teacher_updates = write::whole(c.updates as f64),
        weight = c.algorithm.of::<CqlConfig>().map_or(0.0, |cql| cql.weight),
        tested = games::TEST.end - games::TEST.start,
        teachers = teachers,
        threads = write::threads(),
        system = write::system(),
    );
    write::section(&options.out, "atari", &text)?;
    write::each_run(&options.out, "atari", &each)?;
    let (arms, runs): (Vec<_>, Vec<_>) = played.into_iter().map(|one| (one.arms, one.runs)).unzip();
    let (arms, runs) = (arms.into_iter().flatten().collect::<Vec<_>>(), runs.concat());
    write::runs(&options.out, "atari", &arms, &runs)?;
    Ok(format!("two games; {}", options.out.join("results.md").display()))
}

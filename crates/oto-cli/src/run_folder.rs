//! The folder of one training run: configuration, metrics, checkpoint and curve. docs/metrics.md describes every file.

use oto_agent::offline::OfflineTrainer;
use oto_agent::student::{Event, Metrics, Student};
use oto_agent::trainer::TrainError;
#[cfg(feature = "native")]
use oto_experiments::chart::{Chart, ChartError, PALETTE, Series};
use oto_json::file;
use oto_rl::engine::OUTPUTS;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

const CONFIG: &str = "config.json";
const LINES: &str = "metrics.jsonl";
const TABLE: &str = "metrics.csv";
const CHECKPOINT: &str = "checkpoint.safetensors";
const POLICY: &str = "policy.safetensors";
const NEWEST: &str = "newest.safetensors";
const SVG: &str = "curve.svg";
const PNG: &str = "curve.png";
const FILES: [&str; 8] = [CONFIG, LINES, TABLE, CHECKPOINT, POLICY, NEWEST, SVG, PNG];

/// The columns of metrics.csv; those of the algorithm's own numbers follow, by their names.
pub const COLUMNS: &str = "step,updates,episodes,stage,episode_return,evaluation_mean,labels,bytes_up,bytes_down,\
                           loss,task,base,rkd_d,rkd_a,q";

/// No line of metrics is longer; what is cannot be one.
const LONGEST_LINE: u64 = 1 << 20;
/// Training episodes that a point of the curve averages.
#[cfg(feature = "native")]
const WINDOW: usize = 10;

/// Why a run folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A new run would overwrite another.
    #[error("{} holds a run already ({file}): take another folder, resume the run, or overwrite it with --force", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
        /// What was found there.
        file: &'static str,
    },
    /// A run is at work there.
    #[error("{} is in use by a run that has not ended: wait for it, stop it, or take another folder", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A run of another command.
    #[error("{} holds a run of oto {found}: resume it with oto {found} --resume, or begin another run with its networks with oto {asked} --from", path.display())]
    Command {
        /// The folder.
        path: PathBuf,
        /// The command that made the run: "learn" or "teach".
        found: &'static str,
        /// The command that was to resume it.
        asked: &'static str,
    },
    /// A file or folder cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// JSON that cannot be written, or is not what it should be.
    #[error("{}: {error}", path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// A table with other columns.
    #[error("{} has other columns than this version writes; they are {COLUMNS}", path.display())]
    Columns {
        /// Which file.
        path: PathBuf,
    },
    /// The curve cannot be drawn.
    #[cfg(feature = "native")]
    #[error("{}: {error}", path.display())]
    Chart {
        /// Which file.
        path: PathBuf,
        /// What happened.
        error: ChartError,
    },
}

/// Why a run cannot be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// A state that is not worth keeping.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// A run that a folder saves.
pub trait Run {
    /// Its complete state.
    ///
    /// # Errors
    /// A state that is not worth keeping.
    fn checkpoint(&self) -> Result<Vec<u8>, TrainError>;

    /// The policy as it is now, as a file that can be served.
    fn newest(&self, environment: &str) -> Vec<u8>;

    /// The policy of the best evaluation.
    fn best(&self, environment: &str) -> Option<Vec<u8>>;
}

impl Run for Student {
    fn checkpoint(&self) -> Result<Vec<u8>, TrainError> {
        self.save(true)
    }

    fn newest(&self, environment: &str) -> Vec<u8> {
        self.policy(environment)
    }

    fn best(&self, environment: &str) -> Option<Vec<u8>> {
        self.best_policy(environment)
    }
}

impl Run for OfflineTrainer {
    fn checkpoint(&self) -> Result<Vec<u8>, TrainError> {
        self.save()
    }

    fn newest(&self, environment: &str) -> Vec<u8> {
        self.policy_file(&self.policy(), environment)
    }

    fn best(&self, environment: &str) -> Option<Vec<u8>> {
        self.best_policy().map(|policy| self.policy_file(policy, environment))
    }
}

/// A run's folder, open for writing.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    lines: BufWriter<File>,
    table: BufWriter<File>,
    last: Row,
    /// The columns of the algorithm's own numbers, once an update has reported them.
    own: Vec<String>,
    /// What the last line said beside its row; none after a resume.
    said: Option<Said>,
    /// Bytes up and down before a resume: links count from zero again.
    carried: (u64, u64),
    /// The folder itself, which nobody else writes to meanwhile.
    _held: Option<File>,
}

/// What a resume needs of the table's last row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Row {
    step: Option<u64>,
    bytes: (u64, u64),
}

/// What may still change after the last step.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Said {
    done: bool,
    transitions: [u64; 2],
}

impl RunFolder {
    /// A folder for a new run, with its configuration. Other files that are there stay.
    ///
    /// # Errors
    /// A run that is there already is refused, or with `force` removed, unless it is at work; else what the file system says.
    pub fn create<C: Serialize>(
        path: impl Into<PathBuf>,
        config: &C,
        force: bool,
    ) -> Result<Self, FolderError> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(at(&path))?;
        let held = hold(&path)?;
        for file in FILES.into_iter().filter(|f| path.join(f).exists()) {
            if !force {
                return Err(FolderError::Exists { path, file });
            }
            fs::remove_file(path.join(file)).map_err(at(&path.join(file)))?;
        }
        for (name, head) in [(LINES, String::new()), (TABLE, format!("{COLUMNS}\n"))] {
            fs::write(path.join(name), head).map_err(at(&path.join(name)))?;
        }
        let folder = Self::open(path, held)?;
        folder.write_config(config)?;
        Ok(folder)
    }

    /// The folder of a run that goes on from the step of its checkpoint. What was written after that step is taken
    /// back, and so are lines that a crash left unfinished: what follows reads as if the run had never stopped.
    ///
    /// # Errors
    /// A run that is at work there; a table of other columns; a file of the run that is not there; what the file system says.
    pub fn open_existing(path: impl Into<PathBuf>, step: u64) -> Result<Self, FolderError> {
        let path = path.into();
        let held = hold(&path)?;
        let (lines, table) = (path.join(LINES), path.join(TABLE));
        let mut head = String::new();
        let start = file::open(&table).map_err(at(&table))?;
        BufReader::new(start).take(LONGEST_LINE).read_line(&mut head).map_err(at(&table))?;
        let own = match head.trim_end().strip_prefix(COLUMNS).map(|own| own.strip_prefix(',').ok_or(own)) {
            Some(Ok(own)) => own.split(',').map(String::from).collect::<Vec<_>>(),
            Some(Err("")) => Vec::new(),
            _ => return Err(FolderError::Columns { path: table }),
        };
        keep_lines(&lines, |line| serde_json::from_slice::<Mark>(line).is_ok_and(|m| m.step <= step))?;
        let mut last = Row::default();
        keep_lines(&table, |line| match row(line, own.len()) {
            Some(row) if row.step.is_some_and(|s| s <= step) => {
                last = row;
                true
            }
            _ => line.starts_with(COLUMNS.as_bytes()),
        })?;
        Ok(Self { last, own, carried: last.bytes, ..Self::open(path, held)? })
    }

    /// The configuration in a folder.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else.
    pub fn config<C: DeserializeOwned>(path: &Path) -> Result<C, FolderError> {
        let path = path.join(CONFIG);
        serde_json::from_slice(&file::read_regular(&path, file::MAX_LIST).map_err(at(&path))?)
            .map_err(json_at(&path))
    }

    /// The configuration of a run of one command, "learn" or "teach".
    ///
    /// # Errors
    /// As [`Self::config`]; a run of the other command.
    pub fn config_of<C: DeserializeOwned>(path: &Path, asked: &'static str) -> Result<C, FolderError> {
        let config: serde_json::Value = Self::config(path)?;
        let made = [("learn", "student"), ("teach", "teach")]
            .into_iter()
            .find(|(_, part)| config.get(part).is_some());
        match made {
            Some((found, _)) if found != asked => {
                Err(FolderError::Command { path: path.to_path_buf(), found, asked })
            }
            _ => serde_json::from_value(config).map_err(json_at(&path.join(CONFIG))),
        }
    }

    /// The checkpoint in a folder, as it is; none before the first one is written, when a run has nothing but its beginning.
    ///
    /// # Errors
    /// What the file system says.
    pub fn checkpoint(path: &Path) -> Result<Option<Vec<u8>>, FolderError> {
        let path = path.join(CHECKPOINT);
        match file::read_regular(&path, oto_agent::checkpoint::MAX_BYTES) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error)),
        }
    }

    fn open(path: PathBuf, held: Option<File>) -> Result<Self, FolderError> {
        let (lines, table) = (append(&path.join(LINES))?, append(&path.join(TABLE))?);
        let own = Vec::new();
        Ok(Self { path, lines, table, last: Row::default(), own, said: None, carried: (0, 0), _held: held })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the configuration.
    ///
    /// # Errors
    /// A value that is no JSON; what the file system says.
    pub fn write_config<C: Serialize>(&self, config: &C) -> Result<(), FolderError> {
        let path = self.path.join(CONFIG);
        let json = serde_json::to_string_pretty(config).map_err(json_at(&path))?;
        replace(&path, |file| writeln!(file, "{json}"))
    }

    /// One line of metrics.jsonl.
    ///
    /// # Errors
    /// What the file system says.
    pub fn event(&mut self, event: &Event) -> Result<(), FolderError> {
        self.line(event)
    }

    /// One line of metrics.jsonl and one of metrics.csv, unless the last ones are of the same step and nothing has left
    /// or ended since.
    ///
    /// # Errors
    /// What the file system says.
    pub fn snapshot(&mut self, metrics: &Metrics) -> Result<(), FolderError> {
        let sum = |of: fn(&oto_agent::link::LinkStats) -> u64| {
            metrics.teachers.iter().map(|t| of(&t.stats)).sum::<u64>()
        };
        let bytes = (self.carried.0 + sum(|s| s.bytes_up), self.carried.1 + sum(|s| s.bytes_down));
        let row = Row { step: Some(metrics.step), bytes };
        let said =
            Said { done: metrics.done, transitions: [metrics.transitions_sent, metrics.transitions_kept] };
        if self.last == row && self.said.is_none_or(|last| last == said) {
            return Ok(());
        }
        self.line(&Snapshot { event: "metrics", metrics })?;
        (self.last, self.said) = (row, Some(said));
        self.widen(metrics)?;
        write_row(&mut self.table, metrics, &self.own, bytes).map_err(at(&self.path.join(TABLE)))?;
        self.flush()
    }

    /// Gives the table a column for each of the algorithm's own numbers that it lacks; rows that are there get empty cells.
    fn widen(&mut self, metrics: &Metrics) -> Result<(), FolderError> {
        let names = metrics.loss.iter().flat_map(|loss| loss.iter().map(|(name, _)| name));
        let new = names.filter(|name| !OUTPUTS.contains(name) && !self.own.iter().any(|own| own == name));
        let new = new.map(String::from).collect::<Vec<_>>();
        if new.is_empty() {
            return Ok(());
        }
        self.flush()?;
        let (path, mut first) = (self.path.join(TABLE), true);
        replace(&path, |to| {
            each_line(&path, |line| {
                to.write_all(line.trim_ascii_end())?;
                let cells =
                    if std::mem::take(&mut first) { new.join(",") } else { ",".repeat(new.len() - 1) };
                writeln!(to, ",{cells}")
            })
        })?;
        self.own.extend(new);
        self.table = append(&path)?;
        Ok(())
    }

    /// Replaces the checkpoint once the new one is safely there; where that fails the old one stays. What was reported
    /// until now is made safe first, so that no metrics are ever missing before a checkpoint's step.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save_checkpoint(&mut self, file: &[u8]) -> Result<(), FolderError> {
        self.flush()?;
        for (name, open) in [(LINES, self.lines.get_ref()), (TABLE, self.table.get_ref())] {
            open.sync_data().map_err(at(&self.path.join(name)))?;
        }
        replace(&self.path.join(CHECKPOINT), |to| to.write_all(file))
    }

    /// Saves a run: its checkpoint, its newest policy, and the best one, which servers take. Without an evaluation the newest is the
    /// best. Each file is replaced once the new one is safely there.
    ///
    /// # Errors
    /// What the run or the file system says.
    pub fn save(&mut self, run: &dyn Run, environment: &str) -> Result<(), SaveError> {
        let file = run.checkpoint()?;
        let newest = run.newest(environment);
        self.save_checkpoint(&file)?;
        replace(&self.path.join(NEWEST), |to| to.write_all(&newest))?;
        let best = run.best(environment).unwrap_or(newest);
        Ok(replace(&self.path.join(POLICY), |to| to.write_all(&best))?)
    }

    /// Draws curve.svg and curve.png from metrics.jsonl: training episodes and evaluations over steps of this name, with
    /// horizontal marks, such as the return that counts as solved.
    ///
    /// # Errors
    /// What the file system or the drawing says.
    #[cfg(feature = "native")]
    pub fn draw_curve(
        &mut self,
        title: &str,
        subtitle: &str,
        steps: &str,
        marks: &[(f64, String)],
    ) -> Result<(), FolderError> {
        self.flush()?;
        let chart = Chart {
            title: title.into(),
            subtitle: subtitle.into(),
            x_label: steps.into(),
            y_label: "Return".into(),
            series: curves(&self.path.join(LINES))?,
            marks: marks.to_vec(),
            y_range: None,
            logarithmic: false,
        };
        let drawing = |path: &Path| {
            let path = path.to_path_buf();
            |error| FolderError::Chart { path, error }
        };
        let (svg, png) = (self.path.join(SVG), self.path.join(PNG));
        let pictures = (chart.svg().map_err(drawing(&svg))?, chart.png().map_err(drawing(&png))?);
        replace(&svg, |file| file.write_all(pictures.0.as_bytes()))?;
        replace(&png, |file| file.write_all(&pictures.1))
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), FolderError> {
        let path = || self.path.join(LINES);
        serde_json::to_writer(&mut self.lines, value).map_err(|e| json_at(&path())(e))?;
        self.lines.write_all(b"\n").map_err(|e| at(&path())(e))
    }

    fn flush(&mut self) -> Result<(), FolderError> {
        self.lines.flush().map_err(at(&self.path.join(LINES)))?;
        self.table.flush().map_err(at(&self.path.join(TABLE)))
    }
}

/// How a run stands, as a line.
#[derive(Serialize)]
struct Snapshot<'a> {
    event: &'static str,
    #[serde(flatten)]
    metrics: &'a Metrics,
}

/// What every line has.
#[derive(Deserialize)]
struct Mark {
    step: u64,
}

fn write_row(to: &mut impl Write, m: &Metrics, own: &[String], (up, down): (u64, u64)) -> io::Result<()> {
    let stage = serde_json::to_value(m.stage).unwrap_or_default();
    write!(to, "{},{},{},{},", m.step, m.updates, m.episodes, stage.as_str().unwrap_or_default())?;
    for cell in [m.last_episode.map(|e| e.score), m.last_evaluation] {
        cell.map_or(Ok(()), |value| write!(to, "{value}"))?;
        write!(to, ",")?;
    }
    write!(to, "{},{up},{down}", m.labels)?;
    for name in OUTPUTS.into_iter().chain(own.iter().map(String::as_str)) {
        write!(to, ",")?;
        let value = m.loss.as_ref().and_then(|loss| loss.get(name));
        value.map_or(Ok(()), |value| write!(to, "{value}"))?;
    }
    writeln!(to)
}

/// A row of the table, if the line is a whole one.
fn row(line: &[u8], own: usize) -> Option<Row> {
    let cells = std::str::from_utf8(line).ok()?.trim_end().split(',').collect::<Vec<_>>();
    let whole = |i: usize| cells[i].parse::<u64>().ok();
    (cells.len() == COLUMNS.split(',').count() + own).then_some(())?;
    Some(Row { step: Some(whole(0)?), bytes: (whole(7)?, whole(8)?) })
}

/// The curves of a metrics.jsonl, the one that matters on top.
#[cfg(feature = "native")]
fn curves(path: &Path) -> Result<Vec<Series>, FolderError> {
    let mut training = Series {
        name: format!("training: mean of the last {WINDOW} episodes"),
        colour: PALETTE[4],
        ..Series::default()
    };
    let mut greedy =
        Series { name: "greedy evaluation: mean and range".into(), colour: PALETTE[0], ..Series::default() };
    let (mut low, mut high) = (vec![], vec![]);
    let mut window = std::collections::VecDeque::with_capacity(WINDOW);
    each_line(path, |line| {
        match serde_json::from_slice::<Event>(line) {
            Ok(Event::Episode { step, episode }) => {
                if window.len() == WINDOW {
                    window.pop_front();
                }
                window.push_back(episode.score);
                training.x.push(step as f64);
                training.mid.push(window.iter().sum::<f64>() / window.len() as f64);
            }
            Ok(Event::Evaluation { step, mean, min, max, .. }) => {
                greedy.x.push(step as f64);
                greedy.mid.push(mean);
                low.push(min);
                high.push(max);
            }
            // Other lines are of no concern here; an unfinished one is the last.
            _ => {}
        }
        Ok(())
    })
    .map_err(at(path))?;
    greedy.band = Some((low, high));
    Ok([training, greedy].into_iter().filter(|s| !s.x.is_empty()).collect())
}

/// Calls for every line, its end included; pieces of an overlong one come as lines.
fn each_line(path: &Path, mut act: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut from = BufReader::new(file::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut from).take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        act(&line)?;
    }
}

/// Drops unfinished lines and those that are not to be kept.
fn keep_lines(path: &Path, mut keep: impl FnMut(&[u8]) -> bool) -> Result<(), FolderError> {
    replace(path, |to| {
        each_line(path, |line| match line.ends_with(b"\n") && keep(line) {
            true => to.write_all(line),
            false => Ok(()),
        })
    })
}

/// Writes a file beside the old one and puts it in its place when it is safe; on an error the old one stays.
pub(crate) fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), FolderError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    let written = File::create(&new).and_then(|file| {
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        fs::rename(&new, path)
    });
    if let Err(error) = written {
        let _ = fs::remove_file(&new);
        return Err(FolderError::Io { path: path.to_path_buf(), error });
    }
    // The name itself is safe once the folder is; not every system can do that.
    let _ = path.parent().map(|folder| File::open(folder).and_then(|f| f.sync_all()));
    Ok(())
}

/// Keeps every other run out of a folder for as long as what this gives lives. Where a system cannot, nobody is kept out.
fn hold(path: &Path) -> Result<Option<File>, FolderError> {
    let Ok(folder) = File::open(path) else { return Ok(None) };
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Err(FolderError::Busy { path: path.to_path_buf() }),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

fn append(path: &Path) -> Result<BufWriter<File>, FolderError> {
    OpenOptions::new().append(true).open(path).map(BufWriter::new).map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_path_buf();
    |error| FolderError::Io { path, error }
}

fn json_at(path: &Path) -> impl FnOnce(serde_json::Error) -> FolderError {
    let path = path.to_path_buf();
    |error| FolderError::Json { path, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_agent::config::{PlateauDecay, StudentConfig};
    use oto_agent::drive::{Driver, Wire};
    use oto_agent::link::memory::{Memory, MemoryTeacher};
    use oto_agent::offline::OfflineConfig;
    use oto_agent::run::Job;
    use oto_agent::stage::{Ending, GiveUp, StagesConfig};
    use oto_agent::student::{Environments, Student, TeacherConfig, Tick};
    use oto_rl::algorithms::qrdqn::QrDqnConfig;
    use serde_json::{Value, json};

    /// A folder of its own for each test, removed at its end.
    struct Place(PathBuf);

    impl Place {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("oto-run-folder-{}-{test}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn job() -> Job {
        let mut student =
            StudentConfig { steps: 600, buffer: 400, learning_starts: 32, ..StudentConfig::default() };
        student.algorithm = QrDqnConfig { hidden: vec![8], batch_size: 8, ..QrDqnConfig::default() }.into();
        student.evaluation.every = 200;
        student.evaluation.episodes = 2;
        student.stages.transfer = Some(Ending { steps: Some(300), ..Ending::default() });
        let teacher = json!({ "url": "ws://127.0.0.1:1/v1/teach", "policy": "leaning" });
        Job {
            env: "CartPole-v1".into(),
            student,
            teachers: vec![serde_json::from_value(teacher).unwrap()],
            defaults: None,
            from: None,
            dataset: None,
            workers: 1,
            distill: None,
            peer: None,
        }
    }

    /// A student whose teacher, in this process, pushes to the side the pole leans to.
    fn student(job: &Job) -> (Student, Driver) {
        let spaces = Environments::built_in(&job.env).unwrap();
        let (oto_env::Space::Box { low, high }, _) = spaces.spaces() else { panic!("a box") };
        let (low, high) = (low.clone(), high.clone());
        let act = |states: &[f32], rows: usize, actions: &mut Vec<f32>| {
            let width = states.len() / rows;
            actions
                .extend(states.chunks_exact(width).map(|s| if s[2] + 0.3 * s[3] > 0.0 { 1.0 } else { 0.0 }));
            Ok(())
        };
        let observation = oto_proto::Space::Box { low, high };
        let teacher =
            MemoryTeacher::new("leaning", observation, oto_proto::Space::Discrete { n: 2 }, Box::new(act));
        let driver = Driver::with(vec![Wire::Memory(Box::new(Memory::new(teacher)))]);
        let student =
            Student::new(&job.student, spaces, &job.teachers, &oto_cpu::Cpu, driver.now_ms()).unwrap();
        (student, driver)
    }

    /// Trains up to a step, with a snapshot every 100.
    fn train(folder: &mut RunFolder, student: &mut Student, driver: &mut Driver, until: u64) {
        while student.metrics(0).step < until {
            assert_eq!(driver.step(student).unwrap(), Tick::Stepped);
            while let Some(event) = student.next_event() {
                folder.event(&event).unwrap();
            }
            let metrics = student.metrics(driver.now_ms());
            if metrics.step.is_multiple_of(100) {
                folder.snapshot(&metrics).unwrap();
            }
        }
    }

    fn text(place: &Place, file: &str) -> String {
        fs::read_to_string(place.0.join(file)).unwrap()
    }

    /// A whole run, its last checkpoint included.
    fn whole_run(place: &Place) -> RunFolder {
        let job = job();
        let mut folder = RunFolder::create(&place.0, &job, false).unwrap();
        let (mut student, mut driver) = student(&job);
        train(&mut folder, &mut student, &mut driver, 600);
        folder.save_checkpoint(&student.save(true).unwrap()).unwrap();
        folder
    }

    #[test]
    fn a_resumed_run_reads_as_if_it_had_never_stopped() {
        let (whole, parts) = (Place::new("whole"), Place::new("parts"));
        drop(whole_run(&whole));

        let job = job();
        let mut folder = RunFolder::create(&parts.0, &job, false).unwrap();
        let (mut first, mut driver) = student(&job);
        train(&mut folder, &mut first, &mut driver, 250);
        folder.save_checkpoint(&first.save(true).unwrap()).unwrap();
        train(&mut folder, &mut first, &mut driver, 420);
        drop(folder);
        let mut torn = append(&parts.0.join(LINES)).unwrap();
        torn.write_all(b"{\"event\":\"episode\",\"step\":1").unwrap();
        drop(torn);

        let saved: Job = RunFolder::config(&parts.0).unwrap();
        assert_eq!(saved, job);
        let (mut second, mut driver) = student(&saved);
        second.load(&RunFolder::checkpoint(&parts.0).unwrap().unwrap(), driver.now_ms()).unwrap();
        let mut folder = RunFolder::open_existing(&parts.0, second.metrics(0).step).unwrap();
        train(&mut folder, &mut second, &mut driver, 600);

        let events = |place: &Place| {
            let lines = text(place, LINES);
            lines.lines().filter(|l| !l.contains("\"metrics\"")).map(String::from).collect::<Vec<_>>()
        };
        assert!(events(&whole).len() > 10);
        assert_eq!(events(&whole), events(&parts));
        // All but the bytes, which include the second greeting.
        let rows = |place: &Place| {
            let cells = |line: &str| {
                let cells = line.split(',').map(String::from).collect::<Vec<_>>();
                (cells[..7].to_vec(), cells[9..].to_vec())
            };
            text(place, TABLE).lines().map(cells).collect::<Vec<_>>()
        };
        assert_eq!(rows(&whole), rows(&parts));
        // The learner's own number has a column, which the rows before its first update leave empty.
        let table = text(&whole, TABLE);
        let mut lines = table.lines();
        assert_eq!(lines.next(), Some(&*format!("{COLUMNS},quantile_loss")));
        let cells = lines.map(|line| line.rsplit(',').next().unwrap()).collect::<Vec<_>>();
        assert!(cells[0].is_empty() || cells[0].parse::<f32>().is_ok(), "{cells:?}");
        assert!(cells[cells.len() - 1].parse::<f32>().unwrap() > 0.0, "{cells:?}");
        let up = text(&parts, TABLE)
            .lines()
            .skip(1)
            .map(|l| row(l.as_bytes(), 1).unwrap().bytes.0)
            .collect::<Vec<_>>();
        assert_eq!(up.len(), 6);
        assert!(up.is_sorted() && up[1] > 0, "bytes go on: {up:?}");
    }

    #[test]
    fn another_run_is_overwritten_only_by_force() {
        let place = Place::new("force");
        drop(whole_run(&place));
        fs::write(place.0.join("notes.txt"), "mine").unwrap();
        let error = RunFolder::create(&place.0, &job(), false).unwrap_err();
        assert!(matches!(error, FolderError::Exists { file: CONFIG, .. }), "{error}");
        assert!(place.0.join(CHECKPOINT).exists());
        drop(RunFolder::create(&place.0, &job(), true).unwrap());
        assert!(!place.0.join(CHECKPOINT).exists());
        assert_eq!(text(&place, LINES), "");
        assert_eq!(text(&place, TABLE), format!("{COLUMNS}\n"));
        assert_eq!(text(&place, "notes.txt"), "mine");
    }

    #[test]
    fn a_checkpoint_that_cannot_be_written_leaves_the_old_one() {
        let place = Place::new("keep");
        let mut folder = RunFolder::create(&place.0, &job(), false).unwrap();
        folder.save_checkpoint(b"good").unwrap();
        // A folder in the new file's place makes writing it fail, for any user.
        let blocked = place.0.join("checkpoint.safetensors.new");
        fs::create_dir(&blocked).unwrap();
        let error = folder.save_checkpoint(b"better").unwrap_err();
        assert!(error.to_string().contains(CHECKPOINT), "{error}");
        assert_eq!(RunFolder::checkpoint(&place.0).unwrap().as_deref(), Some(&b"good"[..]));
        fs::remove_dir(&blocked).unwrap();
        let full = replace(&place.0.join(CHECKPOINT), |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("no space left"))
        });
        assert!(full.unwrap_err().to_string().ends_with("no space left"));
        assert_eq!(RunFolder::checkpoint(&place.0).unwrap().as_deref(), Some(&b"good"[..]));
        assert!(!blocked.exists());
    }

    #[test]
    fn foreign_and_damaged_folders_are_named() {
        let place = Place::new("foreign");
        assert!(matches!(RunFolder::open_existing(&place.0, 0), Err(FolderError::Io { .. })));
        assert_eq!(RunFolder::checkpoint(&place.0).unwrap(), None);
        drop(RunFolder::create(&place.0, &job(), false).unwrap());
        fs::write(place.0.join(CONFIG), "{").unwrap();
        assert!(matches!(RunFolder::config::<Job>(&place.0), Err(FolderError::Json { .. })));
        fs::write(place.0.join(TABLE), "a,b\n1,2\n").unwrap();
        let error = RunFolder::open_existing(&place.0, 0).unwrap_err();
        assert!(matches!(error, FolderError::Columns { .. }), "{error}");

        let noise =
            [vec![0xff; 3 << 20], b"\nnull\n{\"step\":-1}\n{\"step\":7}\n{\"step\":8}\n".to_vec()].concat();
        fs::write(place.0.join(LINES), noise).unwrap();
        let good = "7,1,1,online,,,0,5,6,,,,,,\n";
        fs::write(place.0.join(TABLE), format!("{COLUMNS}\n7,1\n{good}x{good}8,2,2,online,,,0,9,9,,,,,,\n"))
            .unwrap();
        let folder = RunFolder::open_existing(&place.0, 7).unwrap();
        assert_eq!((folder.last.step, folder.carried), (Some(7), (5, 6)));
        assert_eq!(text(&place, LINES), "{\"step\":7}\n");
        assert_eq!(text(&place, TABLE), format!("{COLUMNS}\n{good}"));
    }

    #[cfg(feature = "native")]
    #[test]
    fn the_curve_shows_training_and_evaluations() {
        let place = Place::new("curve");
        let mut empty = RunFolder::create(&place.0, &job(), false).unwrap();
        empty.draw_curve("CartPole-v1", "", "Steps", &[]).unwrap();
        assert!(text(&place, SVG).contains("no data yet"));
        drop(empty);
        fs::remove_dir_all(&place.0).unwrap();
        let mut folder = whole_run(&place);
        folder.draw_curve("CartPole-v1", "seed 0", "Steps", &[(475.0, "475 solved".into())]).unwrap();
        let svg = text(&place, SVG);
        for part in ["greedy evaluation", "training: mean of the last 10", "475 solved", "seed 0"] {
            assert!(svg.contains(part), "{part}");
        }
        assert!(fs::read(place.0.join(PNG)).unwrap().starts_with(b"\x89PNG"));
        let curves = curves(&place.0.join(LINES)).unwrap();
        assert_eq!(curves[1].x, [200.0, 400.0, 600.0]);
    }

    /// Judges JSON by the schemas under docs/schema; a keyword that it does not know fails the test.
    struct Schemas(Vec<(&'static str, Value)>);

    impl Schemas {
        fn load() -> Self {
            let files = [
                ("metrics.schema.json", include_str!("../../../docs/schema/metrics.schema.json")),
                ("config.schema.json", include_str!("../../../docs/schema/config.schema.json")),
                ("checkpoint.schema.json", include_str!("../../../docs/schema/checkpoint.schema.json")),
                ("teach.schema.json", include_str!("../../../docs/schema/teach.schema.json")),
            ];
            Self(files.map(|(name, text)| (name, serde_json::from_str(text).unwrap())).into())
        }

        /// Where a value breaks `FILE#/POINTER`, if it does.
        fn breach(&self, at: &str, value: &Value) -> Option<String> {
            let (file, pointer) = at.split_once('#').unwrap();
            let (_, root) = self.0.iter().find(|(name, _)| *name == file).unwrap();
            self.check(file, root.pointer(pointer).unwrap_or_else(|| panic!("{at} is nowhere")), value)
        }

        fn check(&self, file: &str, schema: &Value, value: &Value) -> Option<String> {
            let rules = schema.as_object().unwrap();
            let say = |keyword: &str| Some(format!("{keyword} {}: {value}", schema[keyword]));
            let unless = |good: bool, keyword: &str| if good { None } else { say(keyword) };
            rules.iter().find_map(|(keyword, rule)| match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "default" => None,
                "$ref" => {
                    let to = rule.as_str().unwrap();
                    self.breach(&if to.starts_with('#') { format!("{file}{to}") } else { to.into() }, value)
                }
                "oneOf" => {
                    let fits = |s: &&Value| self.check(file, s, value).is_none();
                    unless(rule.as_array().unwrap().iter().filter(fits).count() == 1, keyword)
                }
                "anyOf" => {
                    let fits = |s: &Value| self.check(file, s, value).is_none();
                    unless(rule.as_array().unwrap().iter().any(fits), keyword)
                }
                "minItems" => {
                    unless(value.as_array().is_none_or(|v| v.len() as u64 >= rule.as_u64().unwrap()), keyword)
                }
                "maxItems" => {
                    unless(value.as_array().is_none_or(|v| v.len() as u64 <= rule.as_u64().unwrap()), keyword)
                }
                "const" => unless(rule == value, keyword),
                "enum" => unless(rule.as_array().unwrap().contains(value), keyword),
                "type" => unless(
                    rule.as_array().map_or_else(|| is(value, rule), |r| r.iter().any(|r| is(value, r))),
                    keyword,
                ),
                "minimum" => unless(value.as_f64().is_none_or(|v| v >= rule.as_f64().unwrap()), keyword),
                "maximum" => unless(value.as_f64().is_none_or(|v| v <= rule.as_f64().unwrap()), keyword),
                "required" => {
                    let missing = |k: &&Value| value.is_object() && value.get(k.as_str().unwrap()).is_none();
                    rule.as_array().unwrap().iter().find(missing).map(|k| format!("{k} is missing: {value}"))
                }
                "properties" => {
                    let each = |(k, s): (&String, &Value)| {
                        self.check(file, s, value.get(k)?).map(|b| format!("{k}: {b}"))
                    };
                    rule.as_object().unwrap().iter().find_map(each)
                }
                "additionalProperties" => {
                    let known = rules["properties"].as_object().unwrap();
                    let mut extra =
                        value.as_object().into_iter().flatten().filter(|(k, _)| !known.contains_key(*k));
                    match rule == &json!(false) {
                        true => extra.next().map(|(k, _)| format!("{k} is unknown")),
                        false => extra.find_map(|(k, v)| {
                            self.check(file, rule, v).map(|breach| format!("{k}: {breach}"))
                        }),
                    }
                }
                "items" => value.as_array().and_then(|v| v.iter().find_map(|v| self.check(file, rule, v))),
                _ => panic!("the schema uses {keyword:?}, which this test does not check"),
            })
        }
    }

    fn is(value: &Value, kind: &Value) -> bool {
        match kind.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "number" => value.is_number(),
            "integer" => value.is_u64() || value.is_i64(),
            kind => panic!("unknown type {kind}"),
        }
    }

    #[test]
    fn metrics_and_checkpoints_are_what_their_schemas_say() {
        let place = Place::new("schemas");
        drop(whole_run(&place));
        let schemas = Schemas::load();
        let mut seen = std::collections::BTreeSet::new();
        for line in text(&place, LINES).lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            assert_eq!(schemas.breach("metrics.schema.json#", &value), None);
            let mut wrong = value.clone();
            wrong["stray"] = json!(1);
            assert!(schemas.breach("metrics.schema.json#", &wrong).is_some());
            wrong = value.clone();
            wrong["step"] = json!(-1);
            assert!(schemas.breach("metrics.schema.json#", &wrong).is_some());
            seen.insert(value["event"].as_str().unwrap().to_string());
        }
        assert_eq!(Vec::from_iter(seen), ["episode", "evaluation", "metrics", "stage"]);

        let file = RunFolder::checkpoint(&place.0).unwrap().unwrap();
        assert_eq!(schemas.breach("checkpoint.schema.json#", &metadata(&file)), None);
        let action = oto_env::Space::Discrete { n: 2 };
        let teach = OfflineConfig::of(oto_rl::algorithms::find("bc").unwrap(), &action);
        let observation = oto_env::Space::uniform(3, -1.0, 1.0);
        let teacher = OfflineTrainer::new(&teach, &observation, &action, &oto_cpu::Cpu).unwrap();
        let mut metadata = metadata(&teacher.save().unwrap());
        assert_eq!(metadata["progress"]["source"], "dataset");
        assert_eq!(schemas.breach("checkpoint.schema.json#", &metadata), None);
        metadata["extra"]["teach"]["gamma"] = json!("much");
        assert!(schemas.breach("checkpoint.schema.json#", &metadata).is_some());
    }

    /// A checkpoint's only metadata entry.
    fn metadata(file: &[u8]) -> Value {
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
        let entries = header["__metadata__"].as_object().unwrap();
        assert_eq!(Vec::from_iter(entries.keys()), ["oto.checkpoint.v4"]);
        serde_json::from_str(entries["oto.checkpoint.v4"].as_str().unwrap()).unwrap()
    }

    #[test]
    fn configurations_are_what_their_schema_says() {
        let schemas = Schemas::load();
        let mut job = job();
        let whole = Ending {
            steps: Some(1),
            seconds: Some(2.0),
            return_at_least: Some(3.0),
            give_up: Some(GiveUp { after_steps: 4, below_return: 5.0 }),
        };
        let convolution = Some(oto_rl::convolution::Convolution::atari([4, 84, 84]));
        job.student.algorithm = QrDqnConfig { convolution, ..QrDqnConfig::default() }.into();
        job.student.plateau_decay =
            Some(PlateauDecay { at_return: 475.0, factor: 0.5, floor: 0.1, setbacks: 2 });
        job.student.stages = StagesConfig { offline: Some(whole), ..StagesConfig::default() };
        let teacher: TeacherConfig = job.teachers[0].clone();
        let quantization = Some(oto_proto::Quantization { scale: vec![1.0], offset: vec![0.0] });
        job.teachers.push(TeacherConfig { quantization, adapter: Some(Default::default()), ..teacher });
        let defaults = Some("whose they are".into());
        let (from, dataset) = (Some("runs/teacher".into()), Some("my-dataset".into()));
        let other = Job {
            teachers: vec![],
            student: StudentConfig::default(),
            defaults,
            from,
            dataset,
            ..job.clone()
        };
        for job in [&job, &other] {
            assert_eq!(schemas.breach("config.schema.json#", &serde_json::to_value(job).unwrap()), None);
        }
        let with = |student: Value| json!({ "env": "CartPole-v1", "student": student, "teachers": [] });
        for wrong in [
            json!({}),
            json!({ "env": 1, "student": {}, "teachers": [] }),
            with(json!({ "algorithm": { "hidden": [8] } })),
            with(json!({ "algorithm": { "name": "cql" } })),
            with(json!({ "algorithm": { "name": "sac", "quantiles": 3 } })),
            with(json!({ "algorithm": { "name": "qrdqn", "hidden": [0] } })),
            with(json!({ "qrdqn": {} })),
            with(json!({ "gamma": 1.5 })),
            with(json!({ "evaluation": { "episodes": 0 } })),
        ] {
            assert!(schemas.breach("config.schema.json#", &wrong).is_some());
        }
    }

    #[test]
    fn a_run_of_the_form_before_is_refused_with_the_form_now() {
        let place = Place::new("before");
        let student = json!({ "algorithm": "qrdqn", "qrdqn": { "hidden": [8] }, "sac": {}, "ppo": {} });
        let old = json!({ "env": "CartPole-v1", "student": student, "teachers": [] });
        drop(RunFolder::create(&place.0, &old, false).unwrap());
        let error = RunFolder::config::<Job>(&place.0).unwrap_err().to_string();
        for part in ["qrdqn", "format 1", "\"algorithm\": {\"name\"", "with the oto that began it"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_documentation_names_every_column_and_file() {
        let page = include_str!("../../../docs/metrics.md");
        for name in COLUMNS.split(',').chain(FILES) {
            assert!(page.contains(&format!("`{name}`")), "{name} is not described");
        }
    }
}

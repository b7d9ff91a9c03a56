//! The student behind the world's functions: one for each instance, and no thread but the host's.

use crate::bindings::Component;
use crate::bindings::exports::oto::edge::learner::{Error, Guest, Progress};
use crate::bindings::oto::edge::environment;
use crate::bindings::oto::edge::types::Action;
use crate::convert;
use oto_agent::checkpoint;
use oto_agent::config::unused_in_words;
use oto_agent::drive::Driver;
use oto_agent::link::{Link, LinkState};
use oto_agent::presets::{self, Seen};
use oto_agent::settings;
use oto_agent::stage::StagesConfig;
use oto_agent::student::{Environments, Need, Student, TeacherConfig};
use oto_agent::trainer::TrainError;
use oto_env::Step;
use oto_json::{At, Failure, FromJson, Json, JsonError};
use std::cell::RefCell;
use std::time::Duration;

/// How long `create` waits for the teachers before the student begins without those that are not there.
const CONNECT: Duration = Duration::from_secs(5);
/// From one look at the teachers' connections to the next while labels are due.
const PAUSE: Duration = Duration::from_micros(200);

/// What `create` reads: settings that replace the preset's, and teachers.
struct Configuration {
    student: Vec<(String, Json)>,
    teachers: Vec<TeacherConfig>,
}

impl FromJson for Configuration {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let fields = at.fields()?;
        fields.only(&["student", "teachers"])?;
        let Json::Object(student) = fields.get_or("student", Json::Object(Vec::new()))? else {
            return Err(at.wrong(&"expected `student` to be an object"));
        };
        Ok(Self { student, teachers: fields.get_or("teachers", Vec::new())? })
    }
}

/// A student, and the wires to its teachers.
struct Edge {
    student: Student,
    driver: Driver,
}

thread_local! {
    /// The instance's student; a component has one thread.
    static EDGE: RefCell<Option<Edge>> = const { RefCell::new(None) };
}

/// Gives the student to `act`, or says that there is none.
fn with<T>(act: impl FnOnce(&mut Edge) -> Result<T, Error>) -> Result<T, Error> {
    EDGE.with_borrow_mut(|edge| act(edge.as_mut().ok_or(Error::NotCreated)?))
}

impl Guest for Component {
    fn create(config: String) -> Result<(), Error> {
        let edge = Edge::new(&config, None)?;
        EDGE.set(Some(edge));
        Ok(())
    }

    fn create_from(config: String, checkpoint: Vec<u8>) -> Result<(), Error> {
        let edge = Edge::new(&config, Some(&checkpoint))?;
        EDGE.set(Some(edge));
        Ok(())
    }

    fn train(steps: u64) -> Result<Progress, Error> {
        with(|edge| edge.train(steps))
    }

    fn status() -> Result<Progress, Error> {
        with(|edge| Ok(edge.progress()))
    }

    fn act(observation: Vec<f32>) -> Result<Action, Error> {
        with(|edge| Ok(convert::action(edge.student.trainer().greedy(&observation)?)))
    }

    fn save(replay: bool) -> Result<Vec<u8>, Error> {
        with(|edge| Ok(edge.student.save(replay)?))
    }

    fn load(file: Vec<u8>) -> Result<(), Error> {
        with(|edge| Ok(edge.student.load(&file, edge.driver.now_ms())?))
    }
}

/// The configuration, or where in it something does not fit.
fn read(json: &str) -> Result<Configuration, Error> {
    oto_json::read(json).map_err(|error| Error::Configuration(error.to_string()))
}

/// A setting of the student's that does not fit, by its place in the whole configuration.
fn within_student(error: JsonError) -> Error {
    let path = if error.path.is_empty() { "student".into() } else { format!("student.{}", error.path) };
    Error::Configuration(JsonError { path, ..error }.to_string())
}

/// Why a teacher refused for good.
fn refusal(link: &Link) -> Error {
    let reason = link.failure().map_or("refused", |f| f.message.as_str());
    Error::Teacher(format!("{}: {reason}", link.status(0).policy))
}

impl Edge {
    fn new(config: &str, from: Option<&[u8]>) -> Result<Self, Error> {
        let origin = from.map(checkpoint::origin).transpose()?;
        let Configuration { student, mut teachers } = read(config)?;
        let observation = convert::space(environment::observation_space());
        let action = convert::space(environment::action_space());
        let seen = Seen::actions(&action);
        let mut config = settings::student("", seen, student, origin.as_ref()).map_err(within_student)?;
        if config.backend == "webgpu" {
            let text = "backend is \"webgpu\", which is not available here: use \"cpu\" or \"auto\"";
            return Err(Error::Configuration(text.into()));
        }
        config.validate().map_err(TrainError::from)?;
        let unused = settings::unused("", seen, &config, origin.as_ref(), !teachers.is_empty());
        if let Some(line) = unused_in_words(config.algorithm.name(), &unused) {
            eprintln!("oto: {line}");
        }
        if teachers.is_empty() {
            config.stages = StagesConfig::SOLO;
        }
        teachers.iter_mut().for_each(|t| t.url = presets::teacher_url(&t.url));
        let own = Environments::Outside { observation, action, evaluates: false };
        let mut driver = Driver::new(&teachers)?;
        let mut student = Student::new(&config, own, &teachers, &oto_cpu::Cpu, driver.now_ms())?;
        if let Some(file) = from {
            checkpoint::adopt(student.trainer(), file)?;
        }
        driver.connect(&mut student, CONNECT);
        let refusal =
            student.links().find(|link| link.state() == LinkState::Failed).map(|link| refusal(link));
        refusal.map_or(Ok(Self { student, driver }), Err)
    }

    fn progress(&self) -> Progress {
        convert::progress(self.student.metrics(self.driver.now_ms()))
    }

    fn train(&mut self, steps: u64) -> Result<Progress, Error> {
        let end = self.student.trainer().steps().saturating_add(steps);
        while self.student.trainer().steps() < end {
            self.driver.pump(&mut self.student);
            match self.student.need(self.driver.now_ms())? {
                Need::Reset(seed) => {
                    let observation = environment::reset(seed).map_err(Error::Environment)?;
                    self.student.began(&observation)?;
                }
                Need::Step => self.step()?,
                // A host has one environment.
                Need::Evaluate { .. } => self.student.give_up_episode()?,
                Need::Wait => std::thread::sleep(PAUSE),
                Need::Nothing => break,
            }
        }
        Ok(self.progress())
    }

    /// One step in the host's environment. If it fails, or answers what cannot be learnt from, its episode is given up.
    fn step(&mut self) -> Result<(), Error> {
        let action = convert::action(self.student.action());
        let taken = environment::step(&action).map_err(Error::Environment).and_then(|t| {
            let step = Step { reward: t.reward, terminated: t.terminated, truncated: t.truncated };
            Ok(self.student.stepped(step, &t.observation, self.driver.now_ms())?)
        });
        if taken.is_err() {
            self.student.give_up_episode()?;
        }
        taken
    }
}

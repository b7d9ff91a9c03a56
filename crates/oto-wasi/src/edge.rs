//! The student behind the world's functions: one for each instance, and no thread but the host's.

use crate::bindings::Component;
use crate::bindings::exports::oto::edge::learner::{Error, Guest, Progress};
use crate::bindings::oto::edge::environment;
use crate::bindings::oto::edge::types::Action;
use crate::convert;
use oto_env::Step;
use oto_student::config::StudentConfig;
use oto_student::drive::Driver;
use oto_student::link::{Link, LinkState};
use oto_student::presets;
use oto_student::stage::StagesConfig;
use oto_student::student::{Need, Student, TeacherConfig, World};
use std::cell::RefCell;
use std::time::Duration;

/// How long `create` waits for the teachers before the student begins without those that are not there.
const CONNECT: Duration = Duration::from_secs(5);
/// From one look at the teachers' connections to the next while labels are due.
const PAUSE: Duration = Duration::from_micros(200);

/// What `create` reads.
#[derive(Default)]
struct Configuration {
    student: StudentConfig,
    teachers: Vec<TeacherConfig>,
}

oto_json::json_object! { Configuration: settings { student, teachers } }

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
        let edge = Edge::new(&config)?;
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

/// Why a teacher refused for good.
fn refusal(link: &Link) -> Error {
    let reason = link.failure().map_or("refused", |f| f.message.as_str());
    Error::Teacher(format!("{}: {reason}", link.status(0).policy))
}

impl Edge {
    fn new(config: &str) -> Result<Self, Error> {
        let Configuration { student: mut config, mut teachers } = read(config)?;
        if config.backend == "webgpu" {
            let text = "backend is \"webgpu\", which is not available here: use \"cpu\" or \"auto\"";
            return Err(Error::Configuration(text.into()));
        }
        if teachers.is_empty() {
            config.stages = StagesConfig::SOLO;
        }
        teachers.iter_mut().for_each(|t| t.url = presets::teacher_url(&t.url));
        let world = World::Outside {
            observation: convert::space(environment::observation_space()),
            action: convert::space(environment::action_space()),
            evaluates: false,
        };
        let mut driver = Driver::new(&teachers)?;
        let mut student = Student::new(&config, world, &teachers, &oto_cpu::Cpu, driver.now_ms())?;
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

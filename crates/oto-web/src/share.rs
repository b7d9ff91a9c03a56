//! The link and the rollouts of a page's student that works for a shared agent (`oto_agent::worker`).

use crate::error::{CoreError, Kind};
use crate::host;
use crate::sockets::Linked;
use oto_agent::student::Student;
use oto_agent::worker::link::WorkerLink;
use oto_agent::worker::{self, Rollouts};
use oto_json::{At, Failure, Fields, FromJson, Json, object_tree};
use oto_rl::shared::Part;

/// The settings of a student in a page that may be a worker.
pub const FIELDS: &[&str] = &["student", "env", "teachers", "share"];

/// The agent that a student works for.
#[derive(Clone, Debug)]
pub struct ShareConfig {
    url: String,
    agent: String,
    /// The worker's name: given, or random.
    name: String,
}

impl FromJson for ShareConfig {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let fields = at.fields()?;
        fields.only(&["url", "agent", "name"])?;
        let random = || format!("page-{:016x}", host::random() >> 64);
        Ok(Self {
            url: fields.get("url")?,
            agent: fields.get("agent")?,
            name: fields.get_or("name", random())?,
        })
    }
}

impl ShareConfig {
    /// The agent that the page names, if it names one.
    pub(crate) fn read(fields: &Fields<'_>) -> Result<Option<Self>, Failure> {
        fields.get_or("share", None)
    }

    /// Adds what follows for the student's settings: the one algorithm that has workers, and a seed of the worker's own. `beside` says
    /// whether there are teachers, and a run to begin with.
    pub(crate) fn prepare(
        &self,
        student: &mut Vec<(String, Json)>,
        beside: [bool; 2],
    ) -> Result<(), CoreError> {
        for (field, is_there) in ["teachers", "from"].into_iter().zip(beside) {
            if is_there {
                let message = "cannot stand beside share: the server has the agent";
                return Err(CoreError::config(field, message.into()));
            }
        }
        let seed = oto_json::to_tree(&worker::seed_of(&self.name));
        for (name, usual) in [("algorithm", Json::Text("a3c".into())), ("seed", seed)] {
            if !student.iter().any(|(key, _)| key == name) {
                student.push((name.into(), usual));
            }
        }
        Ok(())
    }

    /// The part of the update that the student records.
    pub(crate) fn part(&self) -> Part {
        Part::Worker
    }

    /// The address of the server.
    pub(crate) fn url(self) -> String {
        self.url
    }
}

/// The link to the server, and the rollouts between two messages.
pub struct Share {
    link: WorkerLink,
    rollouts: Rollouts,
}

impl Share {
    /// A worker that connects.
    ///
    /// # Errors
    /// Spaces or names that cannot travel.
    pub(crate) fn new(student: &mut Student, config: &ShareConfig) -> Result<Self, CoreError> {
        let mut link = worker::link_of(student, &config.agent, &config.name)?;
        link.connect(host::now_ms());
        Ok(Self { link, rollouts: Rollouts::default() })
    }

    /// Before each step: sends the gradients of a rollout that is over, and takes parameters. Why the student may not step, if it may not.
    ///
    /// # Errors
    /// The server's refusal for good; the learner's failure.
    pub(crate) fn turn(&mut self, student: &mut Student) -> Result<Option<&'static str>, CoreError> {
        self.rollouts.send(student, &mut self.link, host::now_ms())?;
        match worker::ended(&self.link) {
            Some(Ok(())) => return Ok(Some("end")),
            Some(Err(reason)) => {
                let message = format!("the shared agent {}: {reason}", self.link.hello().policy);
                return Err(CoreError { kind: Kind::Learner, message, field: None });
            }
            None => {}
        }
        Ok((!self.rollouts.ready(student, &mut self.link)?).then_some("wait"))
    }

    /// How the conversation stands.
    pub(crate) fn report(&self) -> Json {
        object_tree(|out| {
            out.field("agent", &self.link.hello().policy);
            out.field("name", &self.link.hello().student);
            out.field("state", &self.link.state());
            out.field("problem", &self.link.problem());
            out.field("version", &self.link.version());
            out.field("stats", self.link.stats());
        })
    }
}

impl Linked for Share {
    type Link<'a> = &'a mut WorkerLink;

    fn links(&mut self) -> impl Iterator<Item = &mut WorkerLink> {
        std::iter::once(&mut self.link)
    }

    fn turn(&mut self, _: u64) {}
}

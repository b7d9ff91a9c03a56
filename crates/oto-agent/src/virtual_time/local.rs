//! An edge that trains by itself in virtual time, with a teacher in the cloud or without: what [`super::VirtualRun`] is compared with.
//! Plant, clock and rule of evaluation are the same. The student and its link are those of a real one, the teacher answers behind the
//! real codec.

use super::{Evaluation, HZ, Outcome, Setup, VirtualError, actions};
use crate::actor::buffer::DoubleBuffer;
use crate::actor::decide::{Decider, Decision, Equipment, network};
use crate::actor::explore::{Exploration, Explorer};
use crate::config::StudentConfig;
use crate::learner::Learner;
use crate::link::memory::{Memory, MemoryTeacher};
use crate::safetensors::File;
use crate::student::{Environments, Need, Student, TeacherConfig};
use crate::trainer::TrainError;
use oto_env::Environment;
use oto_graph::Backend;
use oto_proto::Dtype;

/// The name of the teacher's policy.
const TEACHER: &str = "teacher";

/// A run that has not begun.
pub struct LocalRun {
    setup: Setup,
    student: Student,
    env: Box<dyn Environment>,
    teacher: Option<Memory>,
    observation: Vec<f32>,
    period: u64,
    outcome: Outcome,
    since_evaluation: u64,
}

/// The policy of a learner as a teacher: it answers with the action that the learner's actors would take without exploration.
///
/// # Errors
/// Weights that do not fit their own network, which no learner has.
pub fn teacher(learner: &Learner) -> Result<MemoryTeacher, VirtualError> {
    let [observation, action] = learner.spaces().clone();
    let model = learner.model();
    let mut weights = Vec::new();
    learner.weights(&mut weights);
    let (acting, mut writing) = DoubleBuffer::new(network(&model)).split();
    writing.write(1, &weights).map_err(|error| VirtualError::Hello(error.to_string()))?;
    let explorer = Explorer::new(Exploration::none(), actions(&action), 0);
    let mut decider = Decider::new(action.clone(), None)?;
    decider.equip(Equipment { acting, output: model.output, explorer, period: None });
    decider.swap();
    let width = observation.width();
    let act = move |states: &[f32], _: usize, out: &mut Vec<f32>| {
        states.chunks_exact(width).try_for_each(|state| match decider.decide(state, false) {
            Decision::Policy(_) => {
                out.extend_from_slice(decider.action());
                Ok(())
            }
            Decision::Safe => Err("the policy has no finite answer".to_string()),
        })
    };
    Ok(MemoryTeacher::new(TEACHER, observation, action, Box::new(act)))
}

impl LocalRun {
    /// An edge with this environment whose student trains by itself. Of `setup` it takes the number of steps, the rule of evaluation and
    /// the delays of the line, whole milliseconds; the bandwidth is not limited. `agent`: a learner's file, whose networks and moments the
    /// student begins with; its bytes count as bytes to the edge. The student's seed is the plant's, too.
    ///
    /// # Errors
    /// A student that does not fit the environment, another agent, the environment's failure.
    pub fn new(
        setup: Setup,
        student: &StudentConfig,
        mut env: Box<dyn Environment>,
        teacher: Option<MemoryTeacher>,
        agent: Option<&[u8]>,
        backend: &dyn Backend,
    ) -> Result<Self, VirtualError> {
        let spaces = Environments::Outside {
            observation: env.observation_space().clone(),
            action: env.action_space().clone(),
            evaluates: false,
        };
        let seed = student.seed;
        let taught = teacher.iter().map(|_| asked()).collect::<Vec<_>>();
        let mut student = Student::new(student, spaces, &taught, backend, 0)?;
        student.name_run(|| u128::from(seed));
        if let Some(agent) = agent {
            let file = File::read(agent).map_err(|error| TrainError::Checkpoint(error.to_string()))?;
            student.trainer().learner.restore(0, &mut |name| file.floats(name)).map_err(TrainError::from)?;
        }
        let mut observation = vec![0.0; env.observation_space().width()];
        env.reset(Some(seed), &mut observation)?;
        let delay = (setup.up.delay_us + setup.down.delay_us) / 1_000;
        let teacher = teacher.map(|teacher| {
            let mut memory = Memory::new(teacher);
            memory.disturb(seed, (delay, delay), Vec::new());
            memory
        });
        let bytes_down = agent.map_or(0, |file| file.len() as u64);
        let outcome = Outcome { bytes_down, ..Outcome::default() };
        Ok(Self { setup, student, env, teacher, observation, period: 0, outcome, since_evaluation: 0 })
    }

    fn now_ms(&self) -> u64 {
        self.period * 1_000 / HZ
    }

    /// Runs until the agent has converged, or all steps are made. `seen` gets every evaluation; it ends the run with `false`.
    ///
    /// # Errors
    /// The first failure of student or environment.
    pub fn run(mut self, mut seen: impl FnMut(&Evaluation) -> bool) -> Result<Outcome, VirtualError> {
        let mut goes_on = self.evaluate(&mut seen)?;
        while goes_on && self.outcome.steps < self.setup.steps && self.outcome.converged.is_none() {
            self.train()?;
            self.outcome.episodes += 1;
            self.since_evaluation += 1;
            if self.since_evaluation >= self.setup.evaluate_every {
                goes_on = self.evaluate(&mut seen)?;
            }
        }
        let metrics = self.student.metrics(self.now_ms());
        let sum = |of: fn(&crate::link::LinkStats) -> u64| {
            metrics.teachers.iter().map(|one| of(&one.stats)).sum::<u64>()
        };
        Ok(Outcome {
            periods: self.period,
            updates: metrics.updates,
            bytes_up: sum(|stats| stats.bytes_up),
            bytes_down: self.outcome.bytes_down + sum(|stats| stats.bytes_down),
            ..self.outcome
        })
    }

    /// A period of the clock: the messages of the link that are due.
    fn pass(&mut self) {
        self.period += 1;
        let now = self.now_ms();
        self.teacher.iter_mut().zip(self.student.links()).for_each(|(teacher, link)| teacher.poll(link, now));
    }

    /// The plant's reset, which takes its time.
    fn reset(&mut self) -> Result<(), VirtualError> {
        self.env.reset(None, &mut self.observation)?;
        // A whole number of steps.
        let steps = self.env.info("reset_steps").unwrap_or(0.0) as u64;
        (0..steps).for_each(|_| self.pass());
        Ok(())
    }

    /// A training episode.
    fn train(&mut self) -> Result<(), VirtualError> {
        self.reset()?;
        loop {
            let now = self.now_ms();
            match self.student.need(now)? {
                Need::Reset(_) => self.student.began(&self.observation)?,
                Need::Step => {
                    let step = self.env.step(self.student.action(), &mut self.observation)?;
                    self.student.stepped(step, &self.observation, now)?;
                    self.outcome.steps += 1;
                    self.pass();
                    if step.done() {
                        return Ok(());
                    }
                }
                // Labels are on their way: the plant stands still.
                Need::Wait => self.pass(),
                Need::Evaluate { .. } => self.student.give_up_episode()?,
                Need::Nothing => return Ok(()),
            }
        }
    }

    /// An episode without exploration, which counts as no step and is not learned from.
    fn evaluate(&mut self, seen: &mut impl FnMut(&Evaluation) -> bool) -> Result<bool, VirtualError> {
        self.since_evaluation = 0;
        self.env.evaluate(true);
        self.reset()?;
        let mut score = 0.0;
        loop {
            let action = self.student.trainer().greedy(&self.observation)?;
            let step = self.env.step(action, &mut self.observation)?;
            score += step.reward;
            self.pass();
            if step.done() {
                break;
            }
        }
        let info = |name| self.env.info(name).unwrap_or(0.0);
        let (on_target, success) = (info("on_target"), info("success") == 1.0);
        let evaluation = Evaluation { steps: self.outcome.steps, on_target, success, score };
        self.env.evaluate(false);
        self.outcome.take(evaluation, self.setup.successes);
        Ok(seen(&evaluation))
    }
}

/// How the teacher is asked.
fn asked() -> TeacherConfig {
    TeacherConfig {
        url: format!("memory://{TEACHER}"),
        policy: TEACHER.into(),
        adapter: None,
        learn_adapter: None,
        dtype: Dtype::F32,
        quantization: None,
        weight: 1.0,
        submit: false,
    }
}

//! Deep knowledge distillation ("Collaborative Deep Reinforcement Learning", Lin et al. 2017, section 4): its settings, and what a teacher
//! gives. The alignment networks are [`crate::aligner`]; the equations are [`crate::losses::distillation`] and
//! [`crate::losses::collaborative`].
//!
//! A teacher answers the states of the student's own rollout with logits. Where it has an alignment network, this network maps them to the
//! student's actions. They train the policy head, or a head beside it.

use crate::checks::Checks;
use crate::losses::collaborative::AlignmentActivation;
use crate::losses::distillation::Divergence;
use crate::optimiser::Adam;

/// The most teachers of a student.
pub const MAX_TEACHERS: usize = 16;
/// The most actions of a teacher.
pub const MAX_ACTIONS: usize = 4096;
/// The logit of an action that a teacher lacks: its probability is 0.
pub const NEVER: f32 = -1e30;

/// A policy that answers states with logits.
pub trait LogitTeacher: Send {
    /// How many numbers an observation has.
    fn observation(&self) -> usize;

    /// How many actions it chooses from.
    fn actions(&self) -> usize;

    /// Puts the logits `[rows, actions]` of observations `[rows, observation]` into `out`, which is emptied first.
    ///
    /// # Errors
    /// In a sentence, why there are none.
    fn logits(&mut self, observations: &[f32], rows: usize, out: &mut Vec<f32>) -> Result<(), String>;
}

/// The head that a distillation trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename_all = "snake_case"))]
pub enum DistillationHead {
    /// The policy's own head: for a teacher of the same task.
    #[default]
    Policy,
    /// A head beside it, one for each teacher: it trains the shared layers, and no action depends on it.
    Head,
}

oto_json::json_names! { DistillationHead { Policy = "policy", Head = "head" } }

/// One teacher of a distillation.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct DistillationTeacher {
    /// How many actions it chooses from.
    pub actions: usize,
    /// Weight of its part of the loss.
    #[cfg_attr(feature = "schema", schemars(default = "usual_weight"))]
    pub weight: f64,
}

oto_json::json_object! { DistillationTeacher: closed { actions, weight = 1.0 } }

#[cfg(feature = "schema")]
fn usual_weight() -> f64 {
    1.0
}

/// The settings of a distillation.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct DistillationConfig {
    /// The teachers, in the order of the run's `distill`, which fills them in.
    pub teachers: Vec<DistillationTeacher>,
    /// The head that is trained.
    pub to: DistillationHead,
    /// Where `to` is the policy and a teacher without an alignment network has another number of actions: actions are the same by their
    /// index. Otherwise such a teacher is refused.
    pub match_by_index: bool,
    /// Temperature of eq. 2 and 3.
    pub temperature: f64,
    /// Form of the divergence: as printed (the temperature divides the teacher's logits alone), with both tempered, or as in the authors'
    /// code (no temperature).
    pub divergence: Divergence,
    /// Weight of the distillation, a sum over the steps of a rollout.
    pub weight: f64,
    /// Weight of the environment's terms (policy, value, entropy). 0: distillation alone.
    pub task_weight: f64,
    /// The alignment network of each teacher; without it teachers' logits are used as they are.
    pub alignment: Option<AlignmentConfig>,
    /// T1, the environment step at which the training of the alignment networks starts (online protocol).
    pub t1: u64,
    /// T2, the environment step at which distillation starts.
    pub t2: u64,
    /// The environment step at which both end; without it they last until the run ends.
    pub end: Option<u64>,
}

oto_json::json_object! {
    DistillationConfig: settings {
        teachers, to, match_by_index, temperature, divergence, weight, task_weight, alignment omit none, t1, t2, end omit none
    }
}

impl Default for DistillationConfig {
    fn default() -> Self {
        Self {
            teachers: Vec::new(),
            to: DistillationHead::default(),
            match_by_index: false,
            temperature: 1.0,
            divergence: Divergence::default(),
            weight: 1.0,
            task_weight: 1.0,
            alignment: None,
            t1: 0,
            t2: 0,
            end: None,
        }
    }
}

/// The settings of alignment networks.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct AlignmentConfig {
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// What is after each hidden layer: `relu` as in the paper, `elu` as in the authors' code.
    pub activation: AlignmentActivation,
    /// Learning rate of its own optimiser.
    pub learning_rate: f64,
    /// The optimiser's constants.
    pub adam: Adam,
    /// Offline protocol: environment steps before the student's first, in which the run's `expert` acts and its logits train the alignment networks.
    /// The student does not learn in them. Its schedules, T1 and T2 count from their end, and the networks stay as they are then.
    /// 0: online protocol.
    pub expert_steps: u64,
}

oto_json::json_object! { AlignmentConfig: settings { hidden, activation, learning_rate, adam, expert_steps } }

impl Default for AlignmentConfig {
    fn default() -> Self {
        Self {
            hidden: vec![512; 4],
            activation: AlignmentActivation::default(),
            learning_rate: 1e-4,
            adam: Adam::default(),
            expert_steps: 0,
        }
    }
}

/// What happens at a step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// The alignment networks are trained on the student's logits.
    pub aligns: bool,
    /// The student learns from the teachers' logits.
    pub distils: bool,
}

impl DistillationConfig {
    /// Checks every setting.
    pub fn check(&self, checks: &mut Checks) {
        let count = self.teachers.len();
        checks.that(count <= MAX_TEACHERS, "teachers", || count.to_string(), "at most 16 teachers");
        for (i, teacher) in self.teachers.iter().enumerate() {
            checks.within(&format!("teachers[{i}]"), |checks| {
                checks.whole("actions", teacher.actions as u64, 1..=MAX_ACTIONS as u64, "1 to 4096 actions");
                checks.weight("weight", teacher.weight);
            });
        }
        checks.real("temperature", self.temperature, 1e-3..=1e3, "0.001 to 1000");
        checks.weight("weight", self.weight);
        checks.weight("task_weight", self.task_weight);
        if let Some(alignment) = &self.alignment {
            checks.within("alignment", |checks| {
                checks.hidden(&alignment.hidden);
                checks.real("learning_rate", alignment.learning_rate, 0.0..=10.0, "a rate from 0 to 10");
                checks.adam(alignment.adam);
            });
        }
        let [t1, t2] = [self.t1, self.t2];
        checks.that(t1 <= t2, "t2", || t2.to_string(), "at least t1: alignment comes before distillation");
        let end = self.end.unwrap_or(u64::MAX);
        checks.that(t2 <= end, "end", || end.to_string(), "at least t2");
    }

    /// Whether the teachers fit the student's number of actions.
    ///
    /// # Errors
    /// What to change, in a sentence.
    pub fn fits(&self, actions: usize) -> Result<(), String> {
        let direct = self.alignment.is_none() && self.to == DistillationHead::Policy && !self.match_by_index;
        match self.teachers.iter().position(|teacher| direct && teacher.actions != actions) {
            Some(i) => Err(format!(
                "teacher {i} of the distillation has {} actions, the student has {actions}: set algorithm.distillation.to=head, or \
                 algorithm.distillation.alignment={{}}, or algorithm.distillation.match_by_index=true",
                self.teachers[i].actions
            )),
            None => Ok(()),
        }
    }

    /// How many logits of teacher `i` the student's program reads for each state.
    pub fn width(&self, i: usize, actions: usize) -> usize {
        match self.to {
            DistillationHead::Head if self.alignment.is_none() => self.teachers[i].actions,
            _ => actions,
        }
    }

    /// Environment steps of the offline protocol's first part.
    pub fn expert_steps(&self) -> u64 {
        self.alignment.as_ref().map_or(0, |alignment| alignment.expert_steps)
    }

    /// What happens at this step, counted from the end of the expert's.
    pub fn phase(&self, step: u64) -> Phase {
        let before_end = self.end.is_none_or(|end| step < end);
        let online = self.alignment.is_some() && self.expert_steps() == 0;
        Phase { aligns: online && before_end && step >= self.t1, distils: before_end && step >= self.t2 }
    }
}

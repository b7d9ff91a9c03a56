//! The distillation of teachers' logits in a run ("Collaborative Deep Reinforcement Learning", Lin et al. 2017, section 4): asks the
//! teachers about the student's rollouts, trains their alignment networks, and gives the student what it learns from.
//!
//! Online protocol: the alignment networks learn from step T1, the student from step T2, both until the end. Offline protocol: first an
//! expert of the student's own task acts, and its logits train the alignment networks; then the student learns.

use crate::config::ConfigError;
use crate::peer::{Late, Peers};
use crate::trainer::TrainError;
use oto_env::rng::Rng;
use oto_graph::Backend;
use oto_rl::algorithms::a3c::A3cConfig;
use oto_rl::algorithms::ppo::categorical;
use oto_rl::algorithms::{AlgorithmConfig, OnPolicy, Sizes};
use oto_rl::aligner::Aligner;
use oto_rl::distillation::{DistillationConfig, DistillationTeacher, LogitTeacher, NEVER, Phase};
use oto_rl::engine::{LearnError, Learner, NamedTensor};
use oto_rl::mlp::argmax;
use oto_rl::replay::{Batch, Distilled};

/// Larger logits are refused as those that are not finite: a temperature below 1 would make infinities of them.
const LARGEST: f32 = 1e6;

/// A run's teachers, their alignment networks and the expert.
pub struct Distillation {
    config: DistillationConfig,
    /// The student's observation and its actions.
    observation: usize,
    actions: usize,
    /// Numbers of one channel, where observations are images.
    channel: Option<usize>,
    taught: Vec<Taught>,
    /// The other members of a group, which are the last teachers.
    peers: Option<Box<Peers>>,
    /// The distillation's loss of the last rollout whose logits came late.
    peer_loss: Option<f32>,
    expert: Option<Asked>,
    /// 1 where a teacher and the expert answered.
    both: Vec<f32>,
    /// Share of the last rollout's states in which the student's likeliest action was the teacher's.
    agreement: Option<f32>,
    /// Mean loss of the alignment networks, where they learnt from the last rollout.
    alignment_loss: Option<f32>,
}

/// A teacher and its alignment network.
struct Taught {
    asked: Asked,
    aligner: Option<Aligner>,
    answered: u64,
    refused: u64,
    /// Why the last answer was refused.
    problem: Option<String>,
}

/// What a checkpoint keeps of a teacher beside its alignment network's tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    updates: u64,
    answered: u64,
    refused: u64,
}

oto_json::json_object! { Saved: open { updates, answered, refused } }

/// Mean probabilities of actions over some states.
#[derive(Clone, Debug, PartialEq)]
pub struct Probabilities {
    /// Of the student's policy.
    pub student: Vec<f64>,
    /// Of a teacher's policy, which has actions of its own.
    pub teacher: Vec<f64>,
    /// Of what its alignment network makes of it.
    pub aligned: Option<Vec<f64>>,
}

/// The mean over states of the softmax of logits `[rows, actions]`.
fn mean_probabilities(logits: &[f32], actions: usize) -> Vec<f64> {
    let mut sums = vec![0.0; actions];
    for row in logits.chunks_exact(actions) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let each = row.iter().map(|z| f64::from(z - most).exp());
        let total = each.clone().sum::<f64>();
        sums.iter_mut().zip(each).for_each(|(sum, p)| *sum += p / total);
    }
    let rows = (logits.len() / actions).max(1) as f64;
    sums.iter_mut().for_each(|sum| *sum /= rows);
    sums
}

/// A teacher's newest answers.
#[derive(Default)]
struct Asked {
    teacher: Option<Box<dyn LogitTeacher>>,
    actions: usize,
    /// Observations as this teacher sees them.
    seen: Vec<f32>,
    /// `[rows, actions]`, 0 where it gave no number that can be learned from.
    logits: Vec<f32>,
    /// `[rows]`: 1 where it did.
    mask: Vec<f32>,
    problem: Option<String>,
}

impl Asked {
    /// Asks about observations `[rows, width]`; gives the number of rows that were refused.
    fn ask(&mut self, observations: &[f32], width: usize) -> u64 {
        let (rows, actions) = (observations.len() / width, self.actions);
        self.mask.clear();
        self.mask.resize(rows, 0.0);
        self.problem = None;
        let Some(teacher) = &mut self.teacher else {
            self.logits.clear();
            self.logits.resize(rows * actions, 0.0);
            return 0;
        };
        let seen = padded(observations, width, teacher.observation(), &mut self.seen);
        let answer = teacher.logits(seen, rows, &mut self.logits);
        let got = self.logits.len();
        if let Err(problem) = answer {
            self.problem = Some(problem);
        } else if got != rows * actions {
            self.problem = Some(format!("{got} logits came for {rows} states, expected {actions} for each"));
        }
        if self.problem.is_some() {
            self.logits.clear();
            self.logits.resize(rows * actions, 0.0);
            return rows as u64;
        }
        self.judge()
    }

    /// Takes the logits of the first states of `rows`. Returns the number of refused rows.
    fn take(&mut self, logits: &[f32], rows: usize) -> u64 {
        let known = logits.len().min(rows * self.actions);
        self.logits.clear();
        self.logits.extend_from_slice(&logits[..known]);
        self.mask.clear();
        self.mask.resize(known / self.actions, 0.0);
        self.problem = None;
        let refused = self.judge();
        self.logits.resize(rows * self.actions, 0.0);
        self.mask.resize(rows, 0.0);
        refused
    }

    /// Marks the rows that can be learned from; gives the number of the others.
    fn judge(&mut self) -> u64 {
        let actions = self.actions;
        let mut refused = 0;
        for (row, mask) in self.logits.chunks_exact_mut(actions).zip(&mut self.mask) {
            match row.iter().find(|z| !(-LARGEST..=LARGEST).contains(*z)) {
                None => *mask = 1.0,
                Some(wrong) => {
                    let shown = oto_json::shown(wrong);
                    self.problem = Some(format!("a logit is {shown}, expected a number from -1e6 to 1e6"));
                    row.fill(0.0);
                    refused += 1;
                }
            }
        }
        refused
    }
}

/// Observations as a teacher with more channels sees them: its further channels are 0.
fn padded<'o>(observations: &'o [f32], width: usize, wanted: usize, room: &'o mut Vec<f32>) -> &'o [f32] {
    if width == wanted {
        return observations;
    }
    room.clear();
    for row in observations.chunks_exact(width) {
        room.extend_from_slice(row);
        room.resize(room.len() + wanted - width, 0.0);
    }
    room
}

/// Adds the members of a group to the teachers in a student's settings.
///
/// # Errors
/// An algorithm that learns from no logits, or one with an LSTM layer.
pub fn settle_peers(algorithm: &mut AlgorithmConfig, peers: &[(String, usize)]) -> Result<(), ConfigError> {
    if let Some(units) = algorithm.of::<A3cConfig>().and_then(|a3c| a3c.lstm) {
        // Logits that come late belong to states of the layer that are gone.
        return Err(ConfigError::new("algorithm.lstm", units.to_string(), "none for a member of a group"));
    }
    let mut config = algorithm.distillation().cloned().unwrap_or_default();
    let one = |(_, actions): &(String, usize)| DistillationTeacher { actions: *actions, weight: 1.0 };
    config.teachers.extend(peers.iter().map(one));
    put(algorithm, config)
}

fn put(algorithm: &mut AlgorithmConfig, config: DistillationConfig) -> Result<(), ConfigError> {
    match algorithm.set_distillation(Some(config)) {
        true => Ok(()),
        false => {
            let got = format!("{:?}", algorithm.name());
            Err(ConfigError::new("algorithm.name", got, "\"a3c\", which learns from teachers' logits"))
        }
    }
}

/// Puts the teachers into a student's settings; their weights are 1 where none is given.
///
/// # Errors
/// An algorithm that learns from no logits.
pub fn settle(
    algorithm: &mut AlgorithmConfig,
    teachers: &[Box<dyn LogitTeacher>],
    weights: &[f64],
) -> Result<(), ConfigError> {
    let mut config = algorithm.distillation().cloned().unwrap_or_default();
    let weights = weights.iter().copied().chain(std::iter::repeat(1.0));
    let actions = teachers.iter().map(|teacher| teacher.actions());
    config.teachers =
        actions.zip(weights).map(|(actions, weight)| DistillationTeacher { actions, weight }).collect();
    put(algorithm, config)
}

impl Distillation {
    /// The distillation of an algorithm's settings, if there is one; its teachers are still to come.
    pub(crate) fn new(
        algorithm: &AlgorithmConfig,
        sizes: Sizes,
        seed: u64,
        backend: &dyn Backend,
    ) -> Result<Option<Box<Self>>, LearnError> {
        let Some(config) = algorithm.distillation() else { return Ok(None) };
        let actions = sizes.actions.outputs();
        // A generator of its own: a run without alignment networks draws the same numbers.
        let mut rng = Rng::new(seed ^ 0xa119_0000_5eed);
        let taught = config.teachers.iter().map(|teacher| {
            let between = [teacher.actions, actions];
            let made = || Aligner::new(config, between, algorithm.batch_size(), backend, &mut rng);
            let aligner = config.alignment.is_some().then(made).transpose()?;
            let asked = Asked { actions: teacher.actions, ..Asked::default() };
            Ok(Taught { asked, aligner, answered: 0, refused: 0, problem: None })
        });
        Ok(Some(Box::new(Self {
            taught: taught.collect::<Result<_, LearnError>>()?,
            config: config.clone(),
            observation: sizes.observation,
            actions,
            channel: algorithm.convolution().map(|convolution| convolution.shape[1] * convolution.shape[2]),
            peers: None,
            peer_loss: None,
            expert: None,
            both: Vec::new(),
            agreement: None,
            alignment_loss: None,
        })))
    }

    /// Gives it the other members of a group, which are its last teachers. Before [`Self::attach`].
    pub(crate) fn join(&mut self, peers: Peers) -> Result<(), ConfigError> {
        let got = peers.teachers().iter().map(|(_, actions)| *actions).collect::<Vec<_>>();
        let last = self.taught.len().checked_sub(got.len());
        let expected = last.map(|last| self.taught[last..].iter().map(|taught| taught.asked.actions));
        if !expected.is_some_and(|expected| expected.eq(got.iter().copied())) {
            let expected = "the last teachers of algorithm.distillation";
            return Err(ConfigError::new("peer.teachers", format!("members of {got:?} actions"), expected));
        }
        self.peers = Some(Box::new(peers));
        Ok(())
    }

    fn peer_count(&self) -> usize {
        self.peers.as_ref().map_or(0, |peers| peers.teachers().len())
    }

    /// The other members of a group.
    pub fn peers(&self) -> Option<&Peers> {
        self.peers.as_deref()
    }

    /// Exchanges messages with the group, and answers another member's question with the student's logits; `updates` is their version.
    pub(crate) fn look(&mut self, updates: u64, student: &mut dyn OnPolicy) {
        if let Some(peers) = &mut self.peers {
            peers.look(updates, student);
        }
    }

    /// Asks the group about a rollout that was learnt from at a step. The batch may be taken.
    pub(crate) fn ask_peers(&mut self, batch: &mut Batch, step: u64) {
        let phase = self.config.phase(step);
        if let Some(peers) = self.peers.as_mut().filter(|_| phase.aligns || phase.distils) {
            peers.ask(batch, self.observation);
        }
    }

    /// The oldest rollout whose logits have come, or will not. [`Self::recycle`] takes it back.
    pub(crate) fn take_late(&mut self) -> Option<Late> {
        self.peers.as_mut()?.take()
    }

    pub(crate) fn recycle(&mut self, late: Late, loss: Option<f32>) {
        self.peer_loss = loss.or(self.peer_loss);
        if let Some(peers) = &mut self.peers {
            peers.recycle(late);
        }
    }

    /// Gives it the teachers, and the expert of the offline protocol.
    pub(crate) fn attach(
        &mut self,
        teachers: Vec<Box<dyn LogitTeacher>>,
        expert: Option<Box<dyn LogitTeacher>>,
    ) -> Result<(), ConfigError> {
        let refused = |field: &str, got: String, expected: &str| Err(ConfigError::new(field, got, expected));
        let (expected, got) = (self.taught.len() - self.peer_count(), teachers.len());
        if expected != got {
            return refused(
                "distill.teachers",
                got.to_string(),
                &format!("{expected} teachers, as in algorithm.distillation"),
            );
        }
        for (i, (teacher, taught)) in teachers.iter().zip(&self.taught).enumerate() {
            let field = format!("distill.teachers[{i}]");
            let (got, expected) = (teacher.actions(), taught.asked.actions);
            if got != expected {
                let expected = format!("{expected} actions, as in algorithm.distillation.teachers[{i}]");
                return refused(&field, format!("a policy of {got} actions"), &expected);
            }
            self.sees(&field, &**teacher)?;
        }
        match (&expert, self.config.expert_steps()) {
            (None, 0) => {}
            (None, _) => {
                let expected = "a trained policy: algorithm.distillation.alignment.expert_steps is above 0";
                return refused("distill.expert", "none".into(), expected);
            }
            (Some(_), 0) => {
                let expected = "none, or algorithm.distillation.alignment.expert_steps above 0";
                return refused("distill.expert", "given".into(), expected);
            }
            (Some(expert), _) => {
                let (got, expected) = (expert.actions(), self.actions);
                if got != expected {
                    let expected = format!("the student's {expected} actions");
                    return refused("distill.expert", format!("a policy of {got} actions"), &expected);
                }
                self.sees("distill.expert", &**expert)?;
            }
        }
        for (teacher, taught) in teachers.into_iter().zip(&mut self.taught) {
            taught.asked.teacher = Some(teacher);
        }
        let actions = self.actions;
        self.expert = expert.map(|expert| Asked { teacher: Some(expert), actions, ..Asked::default() });
        Ok(())
    }

    /// Whether a teacher of its settings, or the expert, is still to come.
    pub(crate) fn lacks(&self) -> bool {
        let expert = self.config.expert_steps() > 0 && self.expert.is_none();
        let others = self.taught.len() - self.peer_count();
        expert || self.taught[..others].iter().any(|taught| taught.asked.teacher.is_none())
    }

    /// Whether a teacher can see the student's observations.
    fn sees(&self, field: &str, teacher: &dyn LogitTeacher) -> Result<(), ConfigError> {
        let (got, own) = (teacher.observation(), self.observation);
        let more = self.channel.is_some_and(|channel| got > own && got.is_multiple_of(channel));
        if got == own || more {
            return Ok(());
        }
        let expected = format!(
            "the student's {own} numbers, or images of the same size with more channels (MinAtar's option channels=10 gives all games \
             the same)"
        );
        Err(ConfigError::new(field, format!("a policy that sees {got} numbers"), expected))
    }

    /// Environment steps of the expert, before the student's.
    pub(crate) fn expert_steps(&self) -> u64 {
        self.config.expert_steps()
    }

    /// An action drawn from the expert's policy; false if it gave none.
    pub(crate) fn expert_action(&mut self, observation: &[f32], rng: &mut Rng, action: &mut [f32]) -> bool {
        let Some(expert) = &mut self.expert else { return false };
        let answered = expert.ask(observation, self.observation) == 0;
        if answered {
            action[0] = categorical(&expert.logits, rng);
        }
        answered
    }

    /// Fills in the teachers' part of a batch of the student's states, whose logits are `student` `[rows, A]`, at a step that is counted from
    /// the end of the expert's. Where the expert `leads`, alignment networks learn from it, and the student learns nothing.
    pub(crate) fn fill(
        &mut self,
        batch: &mut Batch,
        student: &[f32],
        step: u64,
        leads: bool,
    ) -> Result<(), LearnError> {
        self.fill_from(None, batch, student, step, leads)
    }

    /// The same for a rollout whose logits came late, of peers alone. False where the student does not learn from it.
    pub(crate) fn fill_late(
        &mut self,
        late: &mut Late,
        student: &mut dyn OnPolicy,
        step: u64,
    ) -> Result<bool, LearnError> {
        let Late { batch, answers, .. } = late;
        let student = student.logits(&batch.observation);
        batch.late = [1.0];
        self.fill_from(Some(answers), batch, student, step, false)?;
        Ok(batch.distilled.iter().any(|one| one.mask.contains(&1.0)))
    }

    fn fill_from(
        &mut self,
        late: Option<&[Option<Vec<f32>>]>,
        batch: &mut Batch,
        student: &[f32],
        step: u64,
        leads: bool,
    ) -> Result<(), LearnError> {
        let first_peer = self.taught.len() - self.peer_count();
        let rows = student.len() / self.actions;
        batch.distilled.resize_with(self.taught.len(), Distilled::default);
        let online = self.config.phase(step);
        let phase = if leads { Phase { aligns: true, distils: false } } else { online };
        if let Some(expert) = self.expert.as_mut().filter(|_| leads) {
            expert.ask(&batch.observation, self.observation);
        }
        let mut agreed = [0.0, 0.0];
        for (i, taught) in self.taught.iter_mut().enumerate() {
            let Distilled { logits, mask } = &mut batch.distilled[i];
            let width = self.config.width(i, self.actions);
            logits.clear();
            mask.clear();
            let answer =
                late.map(|answers| i.checked_sub(first_peer).and_then(|peer| answers[peer].as_ref()));
            let there = answer.map_or(taught.asked.teacher.is_some(), |answer| answer.is_some());
            if !(phase.aligns || phase.distils) || !there {
                logits.resize(rows * width, 0.0);
                mask.resize(rows, 0.0);
                continue;
            }
            let refused = match answer.flatten() {
                Some(answer) => taught.asked.take(answer, rows),
                None => taught.asked.ask(&batch.observation, self.observation),
            };
            taught.refused += refused;
            taught.answered += taught.asked.mask.iter().filter(|known| **known == 1.0).count() as u64;
            if let Some(problem) = taught.asked.problem.take() {
                taught.problem = Some(problem);
            }
            let Asked { logits: raw, mask: known, actions, .. } = &taught.asked;
            // The student learns from the network as it was before this rollout, whatever backend trains it.
            if phase.distils {
                mask.extend_from_slice(known);
                match &mut taught.aligner {
                    Some(aligner) => logits.extend_from_slice(aligner.align(raw)),
                    None => by_index(raw, *actions, width, logits),
                }
                if width == self.actions {
                    let rows = student.chunks_exact(width).zip(logits.chunks_exact(width)).zip(known);
                    for ((own, theirs), _) in rows.filter(|(_, known)| **known == 1.0) {
                        agreed[0] += f32::from(u8::from(argmax(own) == argmax(theirs)));
                        agreed[1] += 1.0;
                    }
                }
            } else {
                logits.resize(rows * width, 0.0);
                mask.resize(rows, 0.0);
            }
            let Some(aligner) = taught.aligner.as_mut().filter(|_| phase.aligns) else { continue };
            let (target, sure) = match self.expert.as_ref().filter(|_| leads) {
                Some(expert) => {
                    self.both.clear();
                    self.both.extend(known.iter().zip(&expert.mask).map(|(a, b)| a * b));
                    (&expert.logits[..], &self.both[..])
                }
                None => (student, &known[..]),
            };
            if sure.contains(&1.0) && !(leads && self.expert.is_none()) {
                aligner.learn(raw, target, sure)?;
            }
        }
        if agreed[1] > 0.0 || self.peers.is_none() {
            self.agreement = (agreed[1] > 0.0).then(|| agreed[0] / agreed[1]);
        }
        let losses = self.taught.iter().filter_map(|taught| taught.aligner.as_ref()?.loss());
        let (sum, count) = losses.fold((0.0, 0), |(sum, count), loss| (sum + loss, count + 1));
        self.alignment_loss = (phase.aligns && count > 0).then(|| sum / count as f32);
        Ok(())
    }

    /// How each teacher that answers all these states, and its alignment network, choose there; `student` is the student's logits.
    pub(crate) fn probabilities(&mut self, observations: &[f32], student: &[f32]) -> Vec<Probabilities> {
        let (width, actions) = (self.observation, self.actions);
        let of = |taught: &mut Taught| {
            let answered = taught.asked.teacher.is_some() && taught.asked.ask(observations, width) == 0;
            let Asked { logits, actions: own, .. } = &taught.asked;
            answered.then(|| Probabilities {
                student: mean_probabilities(student, actions),
                teacher: mean_probabilities(logits, *own),
                aligned: taught.aligner.as_mut().map(|a| mean_probabilities(a.align(logits), actions)),
            })
        };
        self.taught.iter_mut().filter_map(of).collect()
    }

    /// Takes over what devices have finished of the alignment networks' updates.
    pub(crate) fn collect(&mut self) -> Result<(), LearnError> {
        self.aligners_mut().try_for_each(|aligner| aligner.collect().map(drop))
    }

    /// Updates that a device has not finished.
    pub(crate) fn behind(&mut self) -> u64 {
        self.aligners_mut().map(|aligner| aligner.engine_mut().behind()).sum()
    }

    /// Brings home all that a checkpoint needs; false while a device is at it.
    pub(crate) fn sync(&mut self) -> Result<bool, LearnError> {
        self.aligners_mut().try_fold(true, |synced, aligner| Ok(aligner.sync()? && synced))
    }

    fn aligners_mut(&mut self) -> impl Iterator<Item = &mut Aligner> {
        self.taught.iter_mut().filter_map(|taught| taught.aligner.as_mut())
    }

    /// Whether a teacher was asked.
    pub(crate) fn began(&self) -> bool {
        self.peers.is_some() || self.taught.iter().any(|taught| taught.answered + taught.refused > 0)
    }

    /// The numbers it reports, by name.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = (&'static str, f32)> {
        let loss = self.alignment_loss.map(|loss| ("alignment_loss", loss));
        let refused = self.taught.iter().map(|taught| taught.refused).sum::<u64>();
        let counted = ("distillation_refused", refused as f32);
        let peers = self.peers.as_ref().map(|peers| {
            let stats = peers.stats();
            [("peer_asked", stats.asked), ("peer_answered", stats.answered), ("peer_taught", stats.taught)]
                .map(|(name, states)| (name, states as f32))
        });
        [loss, self.agreement.map(|share| ("agreement", share)), Some(counted)]
            .into_iter()
            .chain([self.peer_loss.map(|loss| ("peer_loss", loss))])
            .flatten()
            .chain(peers.into_iter().flatten())
    }

    /// For each teacher: states that it answered, states whose answer was refused, and why the last one was.
    pub fn teachers(&self) -> impl Iterator<Item = (u64, u64, Option<&str>)> {
        self.taught.iter().map(|taught| (taught.answered, taught.refused, taught.problem.as_deref()))
    }

    /// What a checkpoint keeps, and the alignment networks' tensors.
    pub(crate) fn save(&self) -> Result<(Vec<Saved>, Vec<NamedTensor>), LearnError> {
        let mut tensors = Vec::new();
        let mut saved = Vec::new();
        for (i, taught) in self.taught.iter().enumerate() {
            if let Some(aligner) = &taught.aligner {
                let state = aligner.engine().state()?.into_iter();
                tensors.extend(state.map(|tensor| NamedTensor { name: name(i, &tensor.name), ..tensor }));
            }
            let updates = taught.aligner.as_ref().map_or(0, |aligner| aligner.engine().updates());
            saved.push(Saved { updates, answered: taught.answered, refused: taught.refused });
        }
        Ok((saved, tensors))
    }

    /// Whether a file has what [`Self::restore`] needs.
    pub(crate) fn check(
        &self,
        saved: &[Saved],
        floats: impl Fn(&str) -> Option<Vec<f32>>,
    ) -> Result<(), TrainError> {
        let wrong = |what: String| Err(TrainError::Checkpoint(what));
        if saved.len() != self.taught.len() {
            let (expected, got) = (self.taught.len(), saved.len());
            return wrong(format!("it has {got} teachers of a distillation, expected {expected}"));
        }
        for (i, taught) in self.taught.iter().enumerate() {
            let Some(aligner) = &taught.aligner else { continue };
            if let Err(error) = aligner.engine().found(&mut |tensor| floats(&name(i, tensor))) {
                return wrong(format!("the alignment network of teacher {i}: {error}"));
            }
        }
        Ok(())
    }

    /// Puts back what was saved and checked.
    pub(crate) fn restore(
        &mut self,
        saved: &[Saved],
        floats: impl Fn(&str) -> Option<Vec<f32>>,
    ) -> Result<(), LearnError> {
        for (i, (taught, saved)) in self.taught.iter_mut().zip(saved).enumerate() {
            (taught.answered, taught.refused) = (saved.answered, saved.refused);
            if let Some(aligner) = &mut taught.aligner {
                aligner.restore(saved.updates, &mut |tensor| floats(&name(i, tensor)))?;
            }
        }
        Ok(())
    }
}

/// The name of an alignment network's tensor in a checkpoint.
fn name(teacher: usize, tensor: &str) -> String {
    format!("alignment.{teacher}.{tensor}")
}

/// Logits `[rows, actions]` as `[rows, width]`: actions beyond are left out, those that are missing never happen.
fn by_index(logits: &[f32], actions: usize, width: usize, out: &mut Vec<f32>) {
    for row in logits.chunks_exact(actions) {
        out.extend_from_slice(&row[..width.min(actions)]);
        out.extend(std::iter::repeat_n(NEVER, width.saturating_sub(actions)));
    }
}

//! A batch: transitions of one or more buffers, in the layout that programs read.

use super::buffer::Replay;
use oto_env::rng::Rng;
use std::ops::Range;

/// The logits of one teacher for the rows of a batch.
#[derive(Clone, Debug, Default)]
pub struct Distilled {
    /// `[B, A]`; 0 where there are none.
    pub logits: Vec<f32>,
    /// `[B]`: 1 where the teacher answered, else 0.
    pub mask: Vec<f32>,
}

/// A batch in the layout programs read. Buffers are reused.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The place of each row's transition in its buffer.
    pub slots: Vec<usize>,
    /// Consecutive rows of one buffer: the buffer's index, and the row after the last.
    runs: Vec<(usize, usize)>,
    /// `[B, width]`.
    pub observation: Vec<f32>,
    /// `[B, width]`.
    pub next_observation: Vec<f32>,
    /// `[B, action_width]`.
    pub action: Vec<f32>,
    /// `[B]`: the sum of n discounted rewards.
    pub reward: Vec<f32>,
    /// `[B]`: gamma^n, 0 where the episode terminated.
    pub discount: Vec<f32>,
    /// `[B]`: importance weights from 0 to 1 (Schaul et al. 2016, section 3.4); 1 without prioritised replay.
    pub weights: Vec<f32>,
    /// `[B]`: the discounted rewards from the transition to the end of its episode; 0 where the episode has not ended. Empty
    /// unless the program reads it.
    pub return_to_go: Vec<f32>,
    /// `[B]`: 1 where `return_to_go` is known, else 0.
    pub return_known: Vec<f32>,
    /// `[B]`: the source of each transition, see [`Replay::set_source`].
    pub source: Vec<f32>,
    /// `[teachers, B, label_width]`: answers, 0 where there is no label.
    pub teacher_action: Vec<f32>,
    /// `[teachers, B]`: 1 where there is a label.
    pub mask: Vec<f32>,
    /// `[B]`: a permutation of the batch, for pairs of states.
    pub perm: Vec<f32>,
    /// `[B]`, of a rollout: the action's log probability when it was taken.
    pub old_log_prob: Vec<f32>,
    /// `[B]`, of a rollout: how much better the action was than expected, normalised over the batch.
    pub advantage: Vec<f32>,
    /// `[B]`, of a rollout: the return that the value function learns.
    pub target: Vec<f32>,
    /// Beside a rollout: a draw from the whole buffer, for the critics of a fusion policy.
    pub replay: Option<Box<Batch>>,
    /// What each teacher of a distillation thinks of the rows.
    pub distilled: Vec<Distilled>,
    /// 1 where the update is of the distillation alone, because the logits came after the rollout was learnt from; else 0.
    pub late: [f32; 1],
    /// Scratch for `perm`.
    order: Vec<usize>,
}

impl Batch {
    /// The numbers that a program calls so.
    pub(crate) fn input(&self, name: &str) -> Option<&[f32]> {
        if let Some(name) = name.strip_prefix("replay.") {
            return self.replay.as_ref()?.input(name);
        }
        #[cfg(feature = "every-algorithm")]
        if let Some(name) = name.strip_prefix("distilled.") {
            if name == "late" {
                return Some(&self.late);
            }
            let (teacher, part) = name.split_once('.')?;
            let one = self.distilled.get(teacher.parse::<usize>().ok()?)?;
            return match part {
                "logits" => Some(&one.logits),
                "mask" => Some(&one.mask),
                _ => None,
            };
        }
        Some(match name {
            "observation" => &self.observation,
            "next_observation" => &self.next_observation,
            "action" => &self.action,
            "reward" => &self.reward,
            "discount" => &self.discount,
            "weights" => &self.weights,
            "return_to_go" => &self.return_to_go,
            "return_known" => &self.return_known,
            "source" => &self.source,
            "teacher_action" => &self.teacher_action,
            "mask" => &self.mask,
            "perm" => &self.perm,
            "old_log_prob" => &self.old_log_prob,
            "advantage" => &self.advantage,
            "target" => &self.target,
            _ => return None,
        })
    }

    /// Begins a new choice of transitions.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.runs.clear();
    }

    /// Adds a row: the transition at `place` of buffer `buffer`.
    pub(super) fn choose(&mut self, buffer: usize, place: usize) {
        self.slots.push(place);
        match self.runs.last_mut() {
            Some((last, end)) if *last == buffer => *end = self.slots.len(),
            _ => self.runs.push((buffer, self.slots.len())),
        }
    }

    /// Copies the chosen transitions, and draws a permutation of the batch. The first buffer says how many teachers label a
    /// transition; a row of another buffer has the labels that this buffer has.
    pub(super) fn fill(&mut self, buffers: &[&Replay], rng: &mut Rng) {
        let size = self.slots.len();
        for column in [
            &mut self.observation,
            &mut self.next_observation,
            &mut self.action,
            &mut self.reward,
            &mut self.discount,
            &mut self.return_to_go,
            &mut self.return_known,
            &mut self.source,
            &mut self.teacher_action,
            &mut self.mask,
            &mut self.weights,
            &mut self.perm,
        ] {
            column.clear();
        }
        for run in 0..self.runs.len() {
            let (buffer, rows) = self.run(run);
            buffers[buffer].append(rows, self);
        }
        for teacher in 0..buffers.first().map_or(0, |first| first.teachers()) {
            for run in 0..self.runs.len() {
                let (buffer, rows) = self.run(run);
                buffers[buffer].append_labels(teacher, buffers[0].label_width(), rows, self);
            }
        }
        self.weights.resize(size, 1.0);
        self.order.clear();
        self.order.extend(0..size);
        rng.shuffle(&mut self.order);
        self.perm.extend(self.order.iter().map(|i| *i as f32));
    }

    /// The buffer and the rows of a run.
    fn run(&self, run: usize) -> (usize, Range<usize>) {
        let (buffer, end) = self.runs[run];
        let start = if run == 0 { 0 } else { self.runs[run - 1].1 };
        (buffer, start..end)
    }
}

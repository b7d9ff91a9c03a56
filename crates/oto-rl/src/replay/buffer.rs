//! The buffer: transitions in a ring, the teachers' answers beside them, and the columns that a program asks for.

use super::{Batch, Columns};
use crate::observations::{Observations, grow};
use oto_env::rng::Rng;
use oto_env::within;
use std::collections::{TryReserveError, VecDeque};
use std::ops::Range;

/// A transition's number: how many were stored before it. A slot's place is used again, its number never.
pub type SlotId = u64;

/// The first number of a label that is not there: no index of an action, no component from -1 to 1, no probability.
const NO_LABEL: f32 = -2.0;

/// A ring of transitions. Labels are of a transition's first observation; they and actions are plain numbers, one for a
/// discrete action, one for each component of a continuous one. Labels may be wider than actions.
#[derive(Clone, Debug)]
pub struct Replay {
    capacity: usize,
    width: usize,
    action_width: usize,
    label_width: usize,
    teachers: usize,
    n_step: usize,
    gamma: f32,
    /// How many were ever stored.
    next: SlotId,
    seen: Observations,
    action: Vec<f32>,
    reward: Vec<f32>,
    discount: Vec<f32>,
    /// `[capacity, teachers, label_width]`; `NO_LABEL` where there is none.
    label: Vec<f32>,
    /// The policy version that gave each label.
    version: Vec<u32>,
    columns: Columns,
    /// The Monte-Carlo return of each transition; its reward where the episode has not ended. Empty unless it was asked for.
    return_to_go: Vec<f32>,
    /// The source of each transition. Empty unless it was asked for.
    source: Vec<f32>,
    /// The source of what is stored next.
    source_now: f32,
    /// The first transition of the running episode: the returns of those before it are known.
    open: SlotId,
    /// The last steps of the running episode, not yet n steps long.
    pending: VecDeque<Pending>,
    /// Observation buffers that pending steps no longer need: none is allocated twice.
    spare: Vec<Vec<f32>>,
}

/// A transition as it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stored<'a> {
    /// `[width]`.
    pub observation: &'a [f32],
    /// `[action_width]`.
    pub action: &'a [f32],
    /// The sum of n discounted rewards.
    pub reward: f32,
    /// gamma^n, 0 where the episode terminated.
    pub discount: f32,
    /// `[width]`.
    pub next_observation: &'a [f32],
}

#[derive(Clone, Debug)]
struct Pending {
    /// The observation, then the action.
    numbers: Vec<f32>,
    reward: f32,
}

/// Everything of a buffer that a checkpoint keeps, by name.
pub type ReplayArrays = Vec<(&'static str, Vec<f32>)>;

impl Replay {
    /// An empty buffer of `capacity` transitions with observations of `width` and actions of `action_width` numbers and
    /// labels of `teachers` teachers; rewards are summed over `n_step` steps, discounted by `gamma`.
    pub fn new(
        capacity: usize,
        [width, action_width]: [usize; 2],
        teachers: usize,
        n_step: usize,
        gamma: f64,
    ) -> Self {
        let (capacity, n_step) = (capacity.max(1), n_step.max(1));
        Self {
            capacity,
            width,
            action_width,
            label_width: action_width,
            teachers,
            n_step,
            gamma: gamma as f32,
            next: 0,
            // Grown as they fill: a large capacity costs nothing before it is used.
            seen: Observations::new(width, None),
            action: Vec::new(),
            reward: Vec::new(),
            discount: Vec::new(),
            label: Vec::new(),
            version: Vec::new(),
            columns: Columns::default(),
            return_to_go: Vec::new(),
            source: Vec::new(),
            source_now: 0.0,
            open: 0,
            pending: VecDeque::with_capacity(n_step),
            spare: Vec::new(),
        }
    }

    /// The same buffer, still empty, with labels of this width instead of an action's.
    pub fn with_labels_of(self, label_width: usize) -> Self {
        Self { label_width, ..self }
    }

    /// The same for observations that are so many images of bytes, each of which is kept once.
    pub fn of_images(self, images: usize) -> Self {
        Self { seen: Observations::new(self.width, Some(images)), ..self }
    }

    /// The same buffer, still empty, with these columns.
    pub fn with_columns(self, columns: Columns) -> Self {
        Self { columns, ..self }
    }

    /// Sets the source of the transitions that are stored from now on: a number of the algorithm's choice, 0 at first. A program that
    /// reads `source` sees it. The source of a buffer that has no such column is that of all its transitions.
    pub fn set_source(&mut self, source: f32) {
        self.source_now = source;
    }

    /// The most transitions that it holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many transitions it can hold without more memory.
    pub fn room(&self) -> usize {
        self.reward.capacity().min(self.capacity)
    }

    /// How many teachers label a transition.
    pub fn teachers(&self) -> usize {
        self.teachers
    }

    /// Numbers of an observation.
    pub fn observation_width(&self) -> usize {
        self.width
    }

    /// Numbers of a label.
    pub fn label_width(&self) -> usize {
        self.label_width
    }

    /// How many transitions can be drawn.
    pub fn len(&self) -> usize {
        self.reward.len()
    }

    /// How many were ever stored: the number that the next transition will have.
    pub fn stored(&self) -> SlotId {
        self.next
    }

    /// Whether none can.
    pub fn is_empty(&self) -> bool {
        self.reward.is_empty()
    }

    /// Makes room for what [`Self::push`] stores next, so that it cannot fail.
    ///
    /// # Errors
    /// If there is no memory for it; the buffer is as it was.
    pub fn make_room(&mut self) -> Result<(), TryReserveError> {
        // The end of an episode stores all that is pending.
        let more = self.pending.len() + 1;
        self.seen.make_room(more, self.capacity)?;
        if self.len() == self.capacity {
            return Ok(());
        }
        let room = |width: usize| (more * width, self.capacity * width);
        let (one, action) = (room(1), room(self.action_width));
        let (version, label) = (room(self.teachers), room(self.teachers * self.label_width));
        grow(&mut self.action, action.0, action.1)?;
        grow(&mut self.reward, one.0, one.1)?;
        grow(&mut self.discount, one.0, one.1)?;
        if self.columns.return_to_go {
            grow(&mut self.return_to_go, one.0, one.1)?;
        }
        if self.columns.source {
            grow(&mut self.source, one.0, one.1)?;
        }
        grow(&mut self.label, label.0, label.1)?;
        grow(&mut self.version, version.0, version.1)
    }

    /// How many bytes the transitions take that are held, or those of a full buffer.
    pub fn bytes(&self, full: bool) -> u64 {
        let transitions = if full { self.capacity } else { self.len() } as u64;
        self.seen.bytes(transitions).saturating_add(transitions.saturating_mul(4 * self.numbers()))
    }

    /// How many bytes a saved buffer's transitions take in this one.
    pub fn bytes_of(&self, counters: &ReplayCounters) -> u64 {
        let transitions = counters.next.min(self.capacity as u64);
        self.seen.bytes(transitions).saturating_add(transitions.saturating_mul(4 * self.numbers()))
    }

    /// How many numbers a transition has beside its observations.
    fn numbers(&self) -> u64 {
        (self.action_width + 2 + self.columns.width() + self.teachers * (self.label_width + 1)) as u64
    }

    /// A buffer of the same sizes without transitions.
    pub fn empty(&self) -> Self {
        let sizes = [self.width, self.action_width];
        let new = Self::new(self.capacity, sizes, self.teachers, self.n_step, self.gamma.into());
        let (columns, source_now) = (self.columns, self.source_now);
        Self { label_width: self.label_width, seen: self.seen.empty(), columns, source_now, ..new }
    }

    /// Stores one step of an episode; `done` ends it (terminated or truncated). Calls `stored` with each new slot, whose
    /// state may then be shown to a teacher.
    #[allow(clippy::too_many_arguments)]
    pub fn push(
        &mut self,
        observation: &[f32],
        action: &[f32],
        reward: f32,
        next_observation: &[f32],
        terminated: bool,
        truncated: bool,
        mut stored: impl FnMut(SlotId, &[f32]),
    ) {
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(observation);
        kept.extend_from_slice(action);
        self.pending.push_back(Pending { numbers: kept, reward });
        let done = terminated || truncated;
        while self.pending.len() >= self.n_step || (done && !self.pending.is_empty()) {
            let steps = self.pending.len().min(self.n_step);
            let sum = |sum, p: &Pending| within(p.reward + self.gamma * sum, f32::MIN, f32::MAX);
            let reward = self.pending.iter().take(steps).rev().fold(0.0, sum);
            let discount = if terminated { 0.0 } else { self.gamma.powi(steps as i32) };
            let first = self.pending.pop_front().expect("just seen");
            let slot = self.store(&first, reward, discount, next_observation);
            stored(slot, &first.numbers[..self.width]);
            self.spare.push(first.numbers);
        }
        if done {
            self.close_episode();
        }
    }

    /// The running episode has ended: its returns are known.
    fn close_episode(&mut self) {
        let first = std::mem::replace(&mut self.open, self.next);
        if !self.columns.return_to_go {
            return;
        }
        let mut later = 0.0;
        for slot in (first.max(self.oldest_slot())..self.next).rev() {
            let at = (slot % self.capacity as u64) as usize;
            later = within(self.return_to_go[at] + self.gamma * later, f32::MIN, f32::MAX);
            self.return_to_go[at] = later;
        }
    }

    fn store(&mut self, first: &Pending, reward: f32, discount: f32, next_observation: &[f32]) -> SlotId {
        let slot = self.next;
        self.next += 1;
        let at = (slot % self.capacity as u64) as usize;
        let (observation, action) = first.numbers.split_at(self.width);
        let label = self.teachers * self.label_width;
        self.seen.put(at, observation, next_observation);
        let appends = self.reward.len() == at;
        for (asked, column, value) in [
            (self.columns.return_to_go, &mut self.return_to_go, first.reward),
            (self.columns.source, &mut self.source, self.source_now),
        ] {
            match appends {
                _ if !asked => {}
                true => column.push(value),
                false => column[at] = value,
            }
        }
        if appends {
            self.action.extend_from_slice(action);
            self.reward.push(reward);
            self.discount.push(discount);
            self.label.extend(std::iter::repeat_n(NO_LABEL, label));
            self.version.extend(std::iter::repeat_n(0, self.teachers));
            return slot;
        }
        self.action[at * self.action_width..][..self.action_width].copy_from_slice(action);
        (self.reward[at], self.discount[at]) = (reward, discount);
        self.label[at * label..(at + 1) * label].fill(NO_LABEL);
        slot
    }

    /// Where a slot lies, unless it has been overwritten or never was.
    fn place(&self, slot: SlotId) -> Option<usize> {
        let held = slot < self.next && self.next - slot <= self.len() as u64;
        held.then_some((slot % self.capacity as u64) as usize)
    }

    /// Stores a teacher's answer beside its transition; false if that transition is no longer here.
    pub fn label(&mut self, slot: SlotId, teacher: usize, action: &[f32], version: u32) -> bool {
        let Some(at) = self.place(slot).filter(|_| teacher < self.teachers) else { return false };
        let at = at * self.teachers + teacher;
        self.label[at * self.label_width..][..self.label_width].copy_from_slice(action);
        self.version[at] = version;
        true
    }

    /// Forgets all that a teacher said.
    pub fn forget_labels(&mut self, teacher: usize) {
        let labels = self.label.chunks_exact_mut(self.label_width);
        labels.skip(teacher).step_by(self.teachers.max(1)).for_each(|label| label.fill(NO_LABEL));
    }

    /// The observation a slot holds, unless it has been overwritten or never was; `room` is for where it has to be put together.
    pub fn observation<'a>(&'a self, slot: SlotId, room: &'a mut Vec<f32>) -> Option<&'a [f32]> {
        Some(self.seen.first(self.place(slot)?, room))
    }

    /// The number of the oldest transition held.
    pub fn oldest_slot(&self) -> SlotId {
        self.next - self.len() as u64
    }

    /// What a slot holds, unless it has been overwritten or never was; `room` is for its two observations.
    pub fn transition<'a>(&'a self, slot: SlotId, room: &'a mut [Vec<f32>; 2]) -> Option<Stored<'a>> {
        let at = self.place(slot)?;
        let [observation, next_observation] = room;
        self.seen.gather(&[at], observation, next_observation);
        Some(Stored {
            observation,
            action: &self.action[at * self.action_width..][..self.action_width],
            reward: self.reward[at],
            discount: self.discount[at],
            next_observation,
        })
    }

    /// The version that labelled a slot, if it is labelled.
    pub fn label_version(&self, slot: SlotId, teacher: usize) -> Option<u32> {
        let at = self.place(slot).filter(|_| teacher < self.teachers)? * self.teachers + teacher;
        (self.label[at * self.label_width] != NO_LABEL).then(|| self.version[at])
    }

    /// How many of the transitions held are labelled by `teacher`.
    pub fn labelled(&self, teacher: usize) -> usize {
        let firsts = self.label.iter().step_by(self.label_width).skip(teacher).step_by(self.teachers.max(1));
        firsts.filter(|l| **l != NO_LABEL).count()
    }

    /// Where the newest transition lies.
    pub(super) fn newest(&self) -> Option<usize> {
        self.next.checked_sub(1).and_then(|newest| self.place(newest))
    }

    /// The number of the transition at a place that holds one.
    pub(super) fn slot_at(&self, place: usize) -> SlotId {
        let (capacity, place) = (self.capacity as u64, place as u64);
        let behind = (self.next + capacity - 1 - place) % capacity;
        self.next - 1 - behind
    }

    /// Draws `size` transitions, uniformly with replacement, and a permutation of them.
    ///
    /// # Panics
    /// If the buffer is empty.
    pub fn sample(&self, rng: &mut Rng, size: usize, batch: &mut Batch) {
        batch.clear();
        (0..size).for_each(|_| batch.choose(0, rng.below(self.len() as u32) as usize));
        batch.fill(&[self], rng);
    }

    /// The transitions that were stored `first`-th and so many after it in `order`, and a permutation of them; all are held.
    pub(crate) fn take(&self, first: SlotId, order: &[usize], rng: &mut Rng, batch: &mut Batch) {
        let place = |i: &usize| ((first + *i as u64) % self.capacity as u64) as usize;
        batch.clear();
        order.iter().for_each(|i| batch.choose(0, place(i)));
        batch.fill(&[self], rng);
    }

    /// Appends the transitions of these rows to a batch's columns, but for their labels.
    pub(super) fn append(&self, rows: Range<usize>, batch: &mut Batch) {
        let slots = &batch.slots[rows];
        self.seen.append(slots, &mut batch.observation, &mut batch.next_observation);
        let width = self.action_width;
        slots.iter().for_each(|s| batch.action.extend_from_slice(&self.action[s * width..(s + 1) * width]));
        batch.reward.extend(slots.iter().map(|s| self.reward[*s]));
        batch.discount.extend(slots.iter().map(|s| self.discount[*s]));
        if self.columns.return_to_go {
            let known = |place: &usize| self.slot_at(*place) < self.open;
            let value = |place: &usize| if known(place) { self.return_to_go[*place] } else { 0.0 };
            batch.return_to_go.extend(slots.iter().map(value));
            batch.return_known.extend(slots.iter().map(|place| f32::from(known(place))));
        }
        match self.columns.source {
            true => batch.source.extend(slots.iter().map(|s| self.source[*s])),
            false => batch.source.extend(slots.iter().map(|_| self.source_now)),
        }
    }

    /// Appends a teacher's labels of these rows; none, of `width` zeros each, where this buffer has no such teacher or other labels.
    pub(super) fn append_labels(&self, teacher: usize, width: usize, rows: Range<usize>, batch: &mut Batch) {
        for slot in &batch.slots[rows] {
            let at = (slot * self.teachers + teacher) * self.label_width;
            let has = teacher < self.teachers && width == self.label_width;
            match self.label.get(at..at + width).filter(|label| has && label[0] != NO_LABEL) {
                Some(label) => batch.teacher_action.extend_from_slice(label),
                None => batch.teacher_action.extend(std::iter::repeat_n(0.0, width)),
            }
            let labelled = has && self.label[at] != NO_LABEL;
            batch.mask.push(f32::from(labelled));
        }
    }

    /// Ends the running episode without a last step, when an environment is reset early.
    pub fn forget_pending(&mut self) {
        while let Some(step) = self.pending.pop_front() {
            self.spare.push(step.numbers);
        }
        self.close_episode();
    }

    /// The buffer's contents for a checkpoint; counters and versions are exact up to 2^24, far beyond a buffer's size.
    pub fn save(&self) -> (ReplayCounters, ReplayArrays) {
        let open = (self.columns.return_to_go && self.open < self.next).then_some(self.open);
        let counters = ReplayCounters { next: self.next, version: self.version.clone(), open };
        let pending = self.pending.iter().flat_map(|p| p.numbers.iter().copied().chain([p.reward]));
        let mut arrays = self.seen.save();
        arrays.extend([
            ("replay.action", self.action.clone()),
            ("replay.reward", self.reward.clone()),
            ("replay.discount", self.discount.clone()),
            ("replay.label", self.label.clone()),
            ("replay.pending", pending.collect()),
        ]);
        if self.columns.return_to_go {
            arrays.push(("replay.return_to_go", self.return_to_go.clone()));
        }
        if self.columns.source {
            arrays.push(("replay.source", self.source.clone()));
        }
        (counters, arrays)
    }

    /// Puts saved contents back; false, and nothing changed, where they do not fit this buffer. [`Self::check`] says whether they
    /// can be learned from.
    pub fn restore(
        &mut self,
        counters: &ReplayCounters,
        mut array: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> bool {
        let mut take = || {
            let mut new = self.empty();
            new.action = array("replay.action")?;
            new.reward = array("replay.reward")?;
            new.discount = array("replay.discount")?;
            new.label = array("replay.label")?;
            new.version = counters.version.clone();
            new.next = counters.next;
            new.open = counters.open.unwrap_or(counters.next);
            if self.columns.return_to_go {
                new.return_to_go = array("replay.return_to_go")?;
            }
            if self.columns.source {
                new.source = array("replay.source")?;
            }
            let pending = array("replay.pending")?;
            new.pending.clear();
            let numbers = self.width + self.action_width;
            for p in pending.chunks(numbers + 1) {
                new.pending
                    .push_back(Pending { numbers: p.get(..numbers)?.to_vec(), reward: *p.get(numbers)? });
            }
            let n = new.reward.len();
            new.seen = self.seen.restored(n, &mut array)?;
            let filled = n as u64 == new.next.min(self.capacity as u64);
            let columns = new.action.len() == n * self.action_width && new.discount.len() == n;
            let asked = [
                (self.columns.return_to_go, new.return_to_go.len()),
                (self.columns.source, new.source.len()),
            ];
            let columns = columns
                && asked.iter().all(|(asked, len)| *len == if *asked { n } else { 0 })
                && new.open <= new.next;
            let labels = new.label.len() == n * self.teachers * self.label_width
                && new.version.len() == n * self.teachers;
            (filled && columns && labels && new.pending.len() < self.n_step.max(1)).then_some(new)
        };
        take().map(|new| *self = new).is_some()
    }
}

impl Replay {
    /// Checks what the buffer holds: observations and rewards are finite, discounts lie from 0 to 1, `takes` knows each action and
    /// `accepts` each label.
    ///
    /// # Errors
    /// Says what the first wrong number is and where it lies.
    pub fn check(
        &self,
        takes: impl Fn(&[f32]) -> bool,
        accepts: impl Fn(&[f32]) -> bool,
    ) -> Result<(), String> {
        let wrong = |name: &str, at: usize, row: &[f32], expected: &str| {
            let numbers = oto_json::shown_list(&row[..row.len().min(8)]);
            Err(format!("replay.{name}: row {at} holds {numbers}, expected {expected}"))
        };
        let finite = |row: &[f32]| row.iter().all(|x| x.is_finite());
        let share = |row: &[f32]| (0.0..=1.0).contains(&row[0]);
        let label = |row: &[f32]| row[0] == NO_LABEL || accepts(row);
        type Good<'g> = &'g dyn Fn(&[f32]) -> bool;
        let columns: [(&str, &[f32], usize, Good<'_>, &str); 6] = [
            ("action", &self.action, self.action_width, &takes, "an action"),
            ("reward", &self.reward, 1, &finite, "a finite number"),
            ("discount", &self.discount, 1, &share, "a number from 0 to 1"),
            ("label", &self.label, self.label_width, &label, "an answer of a teacher"),
            ("return_to_go", &self.return_to_go, 1, &finite, "a finite number"),
            ("source", &self.source, 1, &finite, "a finite number"),
        ];
        for (name, values, width, good, expected) in columns {
            let rows = values.chunks_exact(width.max(1));
            if let Some((at, row)) = rows.enumerate().find(|(_, row)| !good(row)) {
                return wrong(name, at, row, expected);
            }
        }
        for (at, step) in self.pending.iter().enumerate() {
            let (observation, action) = step.numbers.split_at(self.width);
            if !finite(observation) || !step.reward.is_finite() || !takes(action) {
                let expected = "a finite observation, an action and a finite reward";
                return wrong("pending", at, &step.numbers, expected);
            }
        }
        self.seen.check()
    }
}

/// What of a buffer is counted in whole numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayCounters {
    /// How many transitions were ever stored.
    pub next: SlotId,
    /// The policy version of each label.
    pub version: Vec<u32>,
    /// The number of the running episode's first transition, where returns are stored and one is running.
    pub open: Option<SlotId>,
}

oto_json::json_object! { ReplayCounters: open { next, version, open omit none } }

#[cfg(test)]
mod tests {
    use super::*;

    fn push(r: &mut Replay, x: f32, reward: f32, end: Option<bool>) -> Vec<SlotId> {
        let mut slots = Vec::new();
        let (terminated, truncated) = (end == Some(true), end == Some(false));
        r.push(&[x], &[1.0], reward, &[x + 1.0], terminated, truncated, |s, _| slots.push(s));
        slots
    }

    #[test]
    fn three_step_returns_end_with_the_episode() {
        let mut r = Replay::new(10, [1, 1], 1, 3, 0.5);
        assert!(push(&mut r, 0.0, 1.0, None).is_empty());
        assert!(push(&mut r, 1.0, 2.0, None).is_empty());
        assert_eq!(push(&mut r, 2.0, 4.0, None), [0]);
        assert_eq!(push(&mut r, 3.0, 8.0, Some(true)), [1, 2, 3]);
        let mut next = Vec::new();
        assert_eq!(r.reward, [1.0 + 1.0 + 1.0, 2.0 + 2.0 + 2.0, 4.0 + 4.0, 8.0]);
        assert_eq!(r.discount, [0.125, 0.0, 0.0, 0.0]);
        r.seen.gather(&[0, 1, 2, 3], &mut Vec::new(), &mut next);
        assert_eq!(next, [3.0, 4.0, 4.0, 4.0]);
        push(&mut r, 9.0, 1.0, Some(false));
        assert_eq!(r.discount[4], 0.5, "a truncated episode still has a future");
    }

    #[test]
    fn labels_follow_slots_not_places() {
        let mut r = Replay::new(2, [1, 1], 2, 1, 0.99);
        (0..3).for_each(|i| assert_eq!(push(&mut r, i as f32, 1.0, None), [i]));
        assert!(!r.label(0, 0, &[1.0], 7), "overwritten");
        assert!(!r.label(3, 0, &[1.0], 7), "not there yet");
        assert!(!r.label(2, 2, &[1.0], 7), "no such teacher");
        assert!(r.label(2, 1, &[1.0], 7));
        assert_eq!((r.labelled(0), r.labelled(1)), (0, 1));
        assert_eq!((r.label_version(2, 1), r.label_version(1, 1)), (Some(7), None));
        let mut room = Default::default();
        assert_eq!((r.oldest_slot(), r.stored()), (1, 3));
        assert!([0, 3].iter().all(|slot| r.transition(*slot, &mut room).is_none()));
        let stored = r.transition(2, &mut room).unwrap();
        assert_eq!((stored.observation, stored.next_observation), (&[2.0][..], &[3.0][..]));
        assert_eq!((stored.action, stored.reward, stored.discount), (&[1.0][..], 1.0, 0.99));
        push(&mut r, 3.0, 1.0, None);
        push(&mut r, 4.0, 1.0, None);
        assert_eq!(r.labelled(1), 0, "a new transition starts without a label");
    }

    #[test]
    fn actions_and_labels_may_be_vectors() {
        let mut r = Replay::new(4, [1, 2], 2, 1, 0.9);
        (0..4).for_each(|i| r.push(&[i as f32], &[0.5, -1.0], 0.0, &[0.0], false, false, |_, _| {}));
        assert!(r.label(2, 1, &[-1.0, 0.25], 3));
        assert_eq!((r.labelled(0), r.labelled(1)), (0, 1));
        let mut batch = Batch::default();
        r.sample(&mut Rng::new(1), 64, &mut batch);
        assert_eq!((batch.action.len(), batch.teacher_action.len(), batch.mask.len()), (128, 256, 128));
        for (i, slot) in batch.slots.iter().enumerate() {
            let label = if *slot == 2 { ([-1.0, 0.25], 1.0) } else { ([0.0, 0.0], 0.0) };
            assert_eq!(
                (&batch.teacher_action[128 + 2 * i..][..2], batch.mask[64 + i]),
                (&label.0[..], label.1)
            );
        }
    }

    #[test]
    fn labels_may_be_wider_than_actions() {
        let mut r = Replay::new(2, [1, 1], 1, 1, 0.9).with_labels_of(3);
        (0..3).for_each(|i| drop(push(&mut r, i as f32, 1.0, None)));
        assert!(r.label(2, 0, &[0.25, 0.75, 99.0], 1));
        let mut batch = Batch::default();
        r.sample(&mut Rng::new(1), 32, &mut batch);
        for (i, slot) in batch.slots.iter().enumerate() {
            let expected = if *slot == 0 { [0.25, 0.75, 99.0] } else { [0.0; 3] };
            assert_eq!(batch.teacher_action[3 * i..][..3], expected);
        }
        assert_eq!((r.labelled(0), r.action.len()), (1, 2));
    }

    #[test]
    fn restore_is_exact_and_refuses_misfits() {
        let mut r = Replay::new(3, [1, 1], 1, 2, 0.9);
        (0..5).for_each(|i| drop(push(&mut r, i as f32, 1.0, None)));
        r.label(3, 0, &[1.0], 2);
        let (counters, arrays) = r.save();
        let array = |name: &str| arrays.iter().find(|(n, _)| *n == name).map(|(_, a)| a.clone());
        let mut back = Replay::new(3, [1, 1], 1, 2, 0.9);
        assert!(back.restore(&counters, array));
        let (saved, restored) = (r.save(), back.save());
        assert_eq!(restored.0, saved.0);
        assert_eq!(restored.1, saved.1);
        assert!(!Replay::new(3, [2, 1], 1, 2, 0.9).restore(&counters, array));
        assert!(!Replay::new(2, [1, 1], 1, 2, 0.9).restore(&counters, array));
        assert!(!Replay::new(3, [1, 1], 1, 2, 0.9).restore(&counters, |_| None));
    }

    #[test]
    fn every_number_that_cannot_be_learned_from_is_found() {
        let mut r = Replay::new(3, [1, 1], 1, 2, 0.9);
        (0..5).for_each(|i| drop(push(&mut r, i as f32, 1.0, None)));
        r.label(3, 0, &[1.0], 2);
        let choice = |row: &[f32]| row == [0.0] || row == [1.0];
        r.check(choice, choice).unwrap();
        let (counters, arrays) = r.save();
        for (name, values) in &arrays {
            for (at, bad) in (0..values.len()).flat_map(|at| [f32::NAN, f32::INFINITY].map(|bad| (at, bad))) {
                let mut values = values.clone();
                values[at] = bad;
                let array = |wanted: &str| match wanted == *name {
                    true => Some(values.clone()),
                    false => arrays.iter().find(|(n, _)| *n == wanted).map(|(_, a)| a.clone()),
                };
                let mut back = r.empty();
                assert!(back.restore(&counters, array));
                let error = back.check(choice, choice).unwrap_err();
                assert!(error.starts_with(name), "{name}[{at}] = {bad}: {error}");
            }
        }
        r.discount[0] = 1.5;
        assert!(r.check(choice, choice).unwrap_err().contains("from 0 to 1"));
        r.discount[0] = 0.5;
        r.action[1] = 0.5;
        assert!(r.check(choice, choice).unwrap_err().contains("replay.action: row 1 holds 0.5"));
    }
}

//! Balanced replay ("Offline-to-Online Reinforcement Learning via Balanced Replay and Pessimistic Q-Ensemble", Lee et al. 2021, section
//! 4.1): one prioritised choice over the run's own and the recorded transitions, by how much each looks like the run's own. The program
//! of `balanced-replay` estimates that and reports priorities in the place of TD errors ([`crate::engine::TD_ERROR`]).
//!
//! Recorded transitions begin with the priority 1; the first ones of the run's own with the priority that gives them their initial share,
//! later ones with the largest so far. Beside each batch there is one for the estimate (`replay.` before its names): as many transitions
//! of the run's own, then as many recorded ones, uniformly from each.

use super::buffer::{Replay, ReplayArrays, SlotId};
use super::sampler::{Request, Sampler};
use super::{Batch, SumTree};
use crate::losses::balanced_replay::online_priority;
use oto_env::rng::Rng;
use std::collections::{TryReserveError, VecDeque};

/// The most updates whose priorities are awaited. A device is never so far behind.
const AWAITED: usize = 1024;

/// A transition of a batch: its buffer, and its number there.
type Row = (usize, SlotId);

/// Samples both buffers in proportion to priorities.
#[derive(Clone, Debug)]
pub struct Balanced {
    share: f64,
    reference: u64,
    /// Priorities of the run's own transitions and of recorded ones, by place, rounded to single precision as a checkpoint holds them.
    trees: [SumTree; 2],
    /// Transitions of each buffer with a number from here on have no priority yet.
    next: [SlotId; 2],
    capacity: [u64; 2],
    /// The largest priority so far.
    largest: f32,
    /// Batches whose priorities have not come yet, by update.
    awaited: VecDeque<(u64, Vec<Row>)>,
    /// Their memory, for use again.
    spare: Vec<Vec<Row>>,
}

impl Balanced {
    /// Where the run's own transitions have this share of batches once there are `reference` of them.
    pub fn new(share: f64, reference: u64) -> Self {
        Self {
            share: oto_env::within(share, 0.0, 1.0),
            reference: reference.max(1),
            trees: Default::default(),
            next: [0; 2],
            capacity: [1; 2],
            largest: 1.0,
            awaited: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// Gives new transitions their first priority.
    fn catch_up(&mut self, buffers: &[&Replay]) {
        let recorded = buffers.get(1).map_or(0, |buffer| buffer.len()) as u64;
        let first = online_priority(recorded.max(1), self.reference, self.share) as f32;
        for (i, buffer) in buffers.iter().take(2).enumerate() {
            self.capacity[i] = buffer.capacity() as u64;
            // A buffer that was emptied begins anew.
            if self.next[i] > buffer.stored() {
                self.next[i] = 0;
            }
            for slot in self.next[i].max(buffer.oldest_slot())..buffer.stored() {
                let priority = match i {
                    1 => 1.0,
                    _ if slot < self.reference => first,
                    _ => self.largest,
                };
                self.set((i, slot), priority);
                self.largest = self.largest.max(priority);
            }
            self.next[i] = buffer.stored();
        }
    }

    fn set(&mut self, (buffer, slot): Row, priority: f32) {
        let place = (slot % self.capacity[buffer]) as usize;
        if place < self.trees[buffer].room() {
            self.trees[buffer].set(place, f64::from(priority));
        }
    }

    /// Memory for the transitions of the batch of this update.
    fn memory_for(&mut self, update: u64) -> Vec<Row> {
        // Updates that are made again, after a device was lost, replace those before.
        while let Some((_, rows)) = self.awaited.pop_back_if(|(number, _)| *number >= update) {
            self.spare.push(rows);
        }
        if self.awaited.len() == AWAITED
            && let Some((_, rows)) = self.awaited.pop_front()
        {
            self.spare.push(rows);
        }
        let mut rows = self.spare.pop().unwrap_or_default();
        rows.clear();
        rows
    }
}

impl Sampler for Balanced {
    fn sample(&mut self, request: &Request<'_>, rng: &mut Rng, batch: &mut Batch) {
        for (tree, buffer) in self.trees.iter_mut().zip(request.buffers) {
            // Transitions beyond the tree's memory are not sampled; the trainer asks for memory before it stores one.
            let _ = tree.make_room(buffer.room().max(buffer.len()));
        }
        self.catch_up(request.buffers);
        let mut rows = self.memory_for(request.update);
        let own = self.trees[0].total();
        let part = (own + self.trees[1].total()) / request.size as f64;
        batch.clear();
        for row in 0..request.size {
            let mass = (row as f64 + rng.f64()) * part;
            let recorded = request.buffers.len() > 1 && !request.buffers[1].is_empty();
            let buffer = usize::from(recorded && (mass >= own || request.buffers[0].is_empty()));
            let mass = if buffer == 1 { (mass - own).max(0.0) } else { mass };
            let place = self.trees[buffer].find(mass).min(request.buffers[buffer].len() - 1);
            batch.choose(buffer, place);
            rows.push((buffer, request.buffers[buffer].slot_at(place)));
        }
        self.awaited.push_back((request.update, rows));
        batch.fill(request.buffers, rng);
        let beside = batch.replay.get_or_insert_default();
        beside.clear();
        for side in 0..2 {
            // Where one buffer is empty the other stands for it, and the estimate has nothing to tell apart.
            let held = |i: usize| request.buffers.get(i).map_or(0, |buffer| buffer.len());
            let buffer = if held(side) > 0 { side } else { 1 - side };
            let all = held(buffer) as u32;
            (0..request.size).for_each(|_| beside.choose(buffer, rng.below(all) as usize));
        }
        beside.fill(request.buffers, rng);
    }

    fn make_room(&mut self, replay: &Replay) -> Result<(), TryReserveError> {
        self.trees[0].make_room(replay.room())
    }

    fn learned(&mut self, update: u64, priorities: &[f32]) {
        while let Some((number, rows)) = self.awaited.pop_front_if(|(number, _)| *number <= update) {
            if number == update {
                for (row, priority) in rows.iter().zip(priorities) {
                    // The place may have another transition by now.
                    let (buffer, slot) = *row;
                    let held = slot < self.next[buffer] && self.next[buffer] - slot <= self.capacity[buffer];
                    if held && priority.is_finite() && *priority > 0.0 {
                        self.set(*row, *priority);
                        self.largest = self.largest.max(*priority);
                    }
                }
            }
            self.spare.push(rows);
        }
    }

    fn save(&self, replay: &Replay) -> ReplayArrays {
        let own = (0..replay.len()).map(|place| match replay.slot_at(place) < self.next[0] {
            true => self.trees[0].get(place) as f32,
            // One that was stored since the last batch.
            false => 0.0,
        });
        let recorded = (0..self.next[1].min(self.trees[1].room() as u64) as usize)
            .map(|place| self.trees[1].get(place) as f32);
        vec![
            ("sampler.priority", own.collect()),
            ("sampler.recorded_priority", recorded.collect()),
            ("sampler.largest_priority", vec![self.largest]),
        ]
    }

    fn restore(&mut self, replay: &Replay, array: &mut dyn FnMut(&str) -> Option<Vec<f32>>) -> bool {
        let names = ["sampler.priority", "sampler.recorded_priority", "sampler.largest_priority"];
        let [Some(own), Some(recorded), Some(largest)] = names.map(array) else { return false };
        let good = |x: &f32| x.is_finite() && *x > 0.0;
        // The newest ones may have none yet.
        let known = own.iter().filter(|x| **x != 0.0).count();
        let newest = |place: usize| replay.slot_at(place) >= replay.stored() - (own.len() - known) as u64;
        let fits = own.len() == replay.len()
            && own.iter().enumerate().all(|(place, x)| if newest(place) { *x == 0.0 } else { good(x) })
            && recorded.iter().all(good);
        let ([largest], true) = (&largest[..], fits) else { return false };
        let mut new = Self::new(self.share, self.reference);
        let room = [replay.room().max(replay.len()), recorded.len()];
        let mut trees = new.trees.iter_mut().zip(room);
        if !good(largest) || trees.any(|(tree, room)| tree.make_room(room).is_err()) {
            return false;
        }
        own.iter().enumerate().for_each(|(place, x)| new.trees[0].set(place, f64::from(*x)));
        recorded.iter().enumerate().for_each(|(place, x)| new.trees[1].set(place, f64::from(*x)));
        new.next = [replay.stored() - (own.len() - known) as u64, recorded.len() as u64];
        new.capacity = [replay.capacity() as u64, u64::MAX];
        new.largest = *largest;
        *self = new;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(stored: usize, source: f32) -> Replay {
        let mut replay = Replay::new(256, [1, 1], 0, 1, 0.9);
        replay.set_source(source);
        (0..stored).for_each(|i| replay.push(&[i as f32], &[0.0], 0.0, &[0.0], false, false, |_, _| {}));
        replay
    }

    fn own_share(
        balanced: &mut Balanced,
        buffers: &[&Replay],
        rng: &mut Rng,
        rate: impl Fn(f32) -> f32,
    ) -> f32 {
        let (mut batch, mut own) = (Batch::default(), 0.0);
        for update in 1..=200 {
            balanced.sample(&Request { buffers, size: 8, update, step: 0 }, rng, &mut batch);
            own += batch.source.iter().filter(|source| **source == 0.0).count() as f32 / 1600.0;
            let beside = batch.replay.as_ref().unwrap();
            assert!(
                beside.source[..8].iter().all(|x| *x == 0.0) && beside.source[8..].iter().all(|x| *x == 1.0)
            );
            let priorities = batch.source.iter().map(|source| rate(*source)).collect::<Vec<_>>();
            balanced.learned(update, &priorities);
        }
        own
    }

    #[test]
    fn the_own_share_begins_as_asked_and_follows_the_priorities() {
        let (own, recorded, rng) = (buffer(20, 0.0), buffer(200, 1.0), &mut Rng::new(2));
        let buffers = [&own, &recorded];
        let mut balanced = Balanced::new(0.6, 20);
        let first = |_| f32::NAN;
        let share = own_share(&mut balanced, &buffers, rng, first);
        assert!((share - 0.6).abs() < 0.05, "priorities that are no numbers change nothing: {share}");
        own_share(&mut balanced, &buffers, rng, |source| if source == 0.0 { 1e-3 } else { 1.0 });
        let share = own_share(&mut balanced, &buffers, rng, |source| if source == 0.0 { 1e-3 } else { 1.0 });
        assert!(share < 0.05, "{share}");
    }

    #[test]
    fn a_restored_sampler_goes_on_as_it_would_have() {
        let (mut own, recorded, rng) = (buffer(20, 0.0), buffer(50, 1.0), &mut Rng::new(2));
        let mut balanced = Balanced::new(0.5, 10);
        own_share(&mut balanced, &[&own, &recorded], rng, |source| 0.5 + source);
        own.push(&[0.0], &[0.0], 0.0, &[0.0], false, false, |_, _| {});
        let saved = balanced.save(&own);
        let mut find = |name: &str| saved.iter().find(|(n, _)| *n == name).map(|(_, values)| values.clone());
        let mut again = Balanced::new(0.5, 10);
        assert!(again.restore(&own, &mut find));
        let [a, b] = [&mut balanced, &mut again].map(|sampler| {
            let (mut batch, rng) = (Batch::default(), &mut Rng::new(7));
            let request = Request { buffers: &[&own, &recorded], size: 32, update: 9, step: 0 };
            sampler.sample(&request, rng, &mut batch);
            (batch.slots.clone(), batch.replay.unwrap().slots.clone())
        });
        assert_eq!(a, b);
        for (name, value) in [
            ("sampler.priority", f32::NAN),
            ("sampler.recorded_priority", -1.0),
            ("sampler.largest_priority", 0.0),
        ] {
            let mut wrong = |wanted: &str| {
                let mut values = find(wanted)?;
                if wanted == name {
                    values[0] = value;
                }
                Some(values)
            };
            assert!(!Balanced::new(0.5, 10).restore(&own, &mut wrong), "{name}");
        }
    }
}

//! Proportional prioritised replay (Schaul et al. 2016, "Prioritized Experience Replay", section 3.3 and 3.4, algorithm 1).
//!
//! - Priority: `p = |TD error| + epsilon`; a new transition has the largest priority so far, so that it is soon replayed.
//! - Probability (eq. 1): `P(i) = p_i^alpha / sum_k p_k^alpha`. The range of the sum is divided into B equal parts, and one transition is
//!   sampled from each.
//! - Importance weight (section 3.4): `w_i = (N P(i))^-beta`, divided by the largest of the batch. Programs multiply each row's squared
//!   error by it.
//!
//! TD errors that are no numbers leave a priority as it is.

use super::buffer::{Replay, ReplayArrays, SlotId};
use super::sampler::{Request, Sampler};
use super::{Batch, SumTree, Uniform};
use crate::schedule::Linear;
use oto_env::rng::Rng;
use std::collections::{TryReserveError, VecDeque};

/// The largest priority before its exponent: an infinite error must not make all others impossible.
const LARGEST: f64 = 1e9;
/// The most updates whose TD errors are awaited. A device is never so far behind.
const AWAITED: usize = 1024;

/// Samples the first buffer's transitions in proportion to their last TD errors.
#[derive(Clone, Debug)]
pub struct Prioritised {
    alpha: f64,
    beta: Linear,
    epsilon: f64,
    /// `p^alpha` of each place, rounded to single precision as a checkpoint holds it.
    tree: SumTree,
    /// The largest `p^alpha` so far.
    largest: f32,
    /// Transitions with a number from here on have no priority yet.
    next: SlotId,
    /// The buffer's capacity.
    capacity: u64,
    /// Batches whose TD errors have not come yet, by update.
    awaited: VecDeque<(u64, Vec<SlotId>)>,
    /// Their memory, for use again.
    spare: Vec<Vec<SlotId>>,
}

impl Prioritised {
    /// Without priorities yet.
    pub fn new(alpha: f64, beta: Linear, epsilon: f64) -> Self {
        Self {
            alpha,
            beta,
            epsilon,
            tree: SumTree::default(),
            largest: 1.0,
            next: 0,
            capacity: 1,
            awaited: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// Gives new transitions the largest priority.
    fn catch_up(&mut self, replay: &Replay) {
        self.capacity = replay.capacity() as u64;
        // A buffer that was emptied begins anew.
        if self.next > replay.stored() {
            self.next = 0;
        }
        for slot in self.next.max(replay.oldest_slot())..replay.stored() {
            self.set(slot, self.largest);
        }
        self.next = replay.stored();
    }

    fn set(&mut self, slot: SlotId, priority: f32) {
        let place = (slot % self.capacity) as usize;
        if place < self.tree.room() {
            self.tree.set(place, f64::from(priority));
        }
    }

    /// Memory for the transitions of the batch of this update.
    fn memory_for(&mut self, update: u64) -> Vec<SlotId> {
        // Updates that are made again, after a device was lost, replace those before.
        while let Some((_, slots)) = self.awaited.pop_back_if(|(number, _)| *number >= update) {
            self.spare.push(slots);
        }
        if self.awaited.len() == AWAITED
            && let Some((_, slots)) = self.awaited.pop_front()
        {
            self.spare.push(slots);
        }
        let mut slots = self.spare.pop().unwrap_or_default();
        slots.clear();
        slots
    }

    /// `p^alpha` of a TD error; `None` for what is no number.
    fn priority(&self, error: f32) -> Option<f32> {
        let error = f64::from(error).abs();
        (!error.is_nan()).then(|| ((error + self.epsilon).min(LARGEST)).powf(self.alpha) as f32)
    }
}

impl Sampler for Prioritised {
    fn sample(&mut self, request: &Request<'_>, rng: &mut Rng, batch: &mut Batch) {
        let replay = request.buffers[0];
        if replay.is_empty() {
            return Uniform.sample(request, rng, batch);
        }
        // Transitions beyond the tree's memory are not sampled; the trainer asks for memory before it stores one.
        let _ = self.make_room(replay);
        self.catch_up(replay);
        let mut slots = self.memory_for(request.update);
        let part = self.tree.total() / request.size as f64;
        batch.clear();
        for row in 0..request.size {
            let place = self.tree.find((row as f64 + rng.f64()) * part).min(replay.len() - 1);
            batch.choose(0, place);
            slots.push(replay.slot_at(place));
        }
        self.awaited.push_back((request.update, slots));
        batch.fill(&request.buffers[..1], rng);
        let (beta, count) = (self.beta.at(request.step), replay.len() as f64 / self.tree.total());
        batch.weights.clear();
        batch
            .weights
            .extend(batch.slots.iter().map(|place| (count * self.tree.get(*place)).powf(-beta) as f32));
        let largest = batch.weights.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        batch.weights.iter_mut().for_each(|weight| *weight /= largest);
    }

    fn make_room(&mut self, replay: &Replay) -> Result<(), TryReserveError> {
        self.tree.make_room(replay.room())
    }

    fn learned(&mut self, update: u64, errors: &[f32]) {
        while let Some((number, slots)) = self.awaited.pop_front_if(|(number, _)| *number <= update) {
            if number == update {
                for (slot, error) in slots.iter().zip(errors) {
                    // The place may have another transition by now.
                    let held = *slot < self.next && self.next - slot <= self.capacity;
                    if let (true, Some(priority)) = (held, self.priority(*error)) {
                        self.set(*slot, priority);
                        self.largest = self.largest.max(priority);
                    }
                }
            }
            self.spare.push(slots);
        }
    }

    fn save(&self, replay: &Replay) -> ReplayArrays {
        let priority = |place| match replay.slot_at(place) < self.next && place < self.tree.room() {
            true => self.tree.get(place) as f32,
            false => self.largest,
        };
        vec![
            ("sampler.priority", (0..replay.len()).map(priority).collect()),
            ("sampler.largest_priority", vec![self.largest]),
        ]
    }

    fn restore(&mut self, replay: &Replay, array: &mut dyn FnMut(&str) -> Option<Vec<f32>>) -> bool {
        let (Some(priorities), Some(largest)) =
            (array("sampler.priority"), array("sampler.largest_priority"))
        else {
            return false;
        };
        let good = |x: &f32| x.is_finite() && *x > 0.0;
        let fits = priorities.len() == replay.len() && largest.len() == 1;
        if !fits || !priorities.iter().chain(&largest).all(good) {
            return false;
        }
        let mut new = Self::new(self.alpha, self.beta, self.epsilon);
        if new.make_room(replay).is_err() {
            return false;
        }
        priorities.iter().enumerate().for_each(|(place, p)| new.tree.set(place, f64::from(*p)));
        (new.largest, new.next, new.capacity) = (largest[0], replay.stored(), replay.capacity() as u64);
        *self = new;
        true
    }
}

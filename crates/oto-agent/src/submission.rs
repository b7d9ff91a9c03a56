//! What a student submits of its replay to a teacher that asked for nothing but may have it (OTO, Algorithm 2, line 19):
//! which transitions are in which batch, and which of those are acknowledged.
//!
//! A batch is a range of replay slots with a random name. It is sent under that name until the server says that it keeps
//! it; then nothing of it is ever sent again. What is overwritten in the replay before that is lost to the server.

use crate::link::{Link, Outcome};
use crate::trainer::in_units;
use oto_env::{Action, Space};
use oto_proto::{BatchId, FrameError, Transition};
use oto_rl::replay::{Replay, SlotId};

/// A batch's frame has about so many bytes at most: two seconds at a megabit a second.
const BATCH_BYTES: usize = 1 << 18;
/// Transitions in a batch, at most: what is lost at once where a batch is overwritten.
const BATCH_ROWS: u16 = 1024;
/// How often a server may fail to keep a batch.
const MAX_FAILURES: u32 = 4;

/// Consecutive slots under one name.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Batch {
    name: BatchId,
    first: SlotId,
    count: u64,
    failures: u32,
}

oto_json::json_object! { Batch: open { name, first, count, failures } }

/// One teacher's share of the replay.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outbox {
    /// Slots below this one are in a batch, or were.
    next: SlotId,
    /// Not yet acknowledged, oldest first.
    batches: Vec<Batch>,
    /// Transitions that the server keeps.
    kept: u64,
    /// Transitions that it refused, or that were overwritten before they were acknowledged.
    lost: u64,
}

oto_json::json_object! { Outbox: open { next, batches, kept, lost } }

impl Outbox {
    /// Transitions that the server keeps.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Whether anything is still to be acknowledged.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Puts all transitions that are in no batch yet into batches. `run` is the run's random name: batches are numbered
    /// from there, and no slot's number is used twice in a run.
    pub fn gather(&mut self, replay: &Replay, link: &Link, run: u128) {
        let rows = u64::from(link.transitions().rows_in(BATCH_BYTES).clamp(1, BATCH_ROWS));
        let mut first = self.next.max(replay.oldest_slot());
        while first < replay.stored() {
            let count = rows.min(replay.stored() - first);
            self.batches.push(Batch { name: name(run, first), first, count, failures: 0 });
            first += count;
        }
        self.next = first;
    }

    /// Goes on where another process stopped, with what a checkpoint brought back of the replay.
    pub fn resume(&mut self, saved: Outbox, replay: &Replay) {
        *self = saved;
        // Without its replay a checkpoint counts slots anew.
        self.next = self.next.min(replay.stored());
    }

    /// Takes in what became of the last batch, and sends the next one if the link takes one now.
    pub fn pump(&mut self, link: &mut Link, source: &Source<'_>, run: u128, now_ms: u64) {
        if let Some((name, outcome)) = link.take_submitted() {
            self.finish(name, outcome);
        }
        let Some(rows) = link.may_submit(now_ms) else { return };
        while let Some(batch) = self.front(u64::from(rows), run) {
            let end = batch.first + batch.count;
            let mut room = Room::default();
            let written = link.submit(
                batch.name,
                |writer| {
                    (batch.first..end).try_for_each(|slot| match source.transition(slot, &mut room) {
                        Some(transition) => writer.transition(&transition),
                        None => Err(FrameError::NoRows),
                    })
                },
                now_ms,
            );
            if written.is_ok() {
                return;
            }
            // Overwritten meanwhile, or never fit for this dtype.
            self.drop_front();
        }
    }

    fn finish(&mut self, name: BatchId, outcome: Outcome) {
        let Some(batch) = self.batches.first_mut().filter(|batch| batch.name == name) else { return };
        match outcome {
            Outcome::Kept => {
                self.kept += batch.count;
                self.batches.remove(0);
            }
            Outcome::Failed if batch.failures < MAX_FAILURES => batch.failures += 1,
            Outcome::Failed | Outcome::Refused => self.drop_front(),
        }
    }

    fn drop_front(&mut self) {
        if !self.batches.is_empty() {
            self.lost += self.batches.remove(0).count;
        }
    }

    /// The next batch, cut to `rows` where the server takes no more in one.
    fn front(&mut self, rows: u64, run: u128) -> Option<Batch> {
        let batch = self.batches.first_mut()?;
        if batch.count > rows {
            let first = batch.first + rows;
            let rest = Batch { name: name(run, first), first, count: batch.count - rows, failures: 0 };
            batch.count = rows;
            self.batches.insert(1, rest);
        }
        self.batches.first().copied()
    }
}

fn name(run: u128, first: SlotId) -> BatchId {
    BatchId(run.wrapping_add(u128::from(first)))
}

/// Where transitions come from.
pub(crate) struct Source<'a> {
    pub replay: &'a Replay,
    /// The environment's actions.
    pub action: &'a Space,
    /// Whether the newest transition's episode goes on.
    pub running: bool,
}

/// Where the numbers of one transition are put together.
#[derive(Default)]
struct Room {
    observations: [Vec<f32>; 2],
    next: Vec<f32>,
    units: Vec<f32>,
}

impl Source<'_> {
    /// One stored step as the server wants it: in the environment's units, with its ends. The replay knows terminations
    /// by their discount; an episode that did not go on from where a step led was cut there.
    fn transition<'a>(&'a self, slot: SlotId, room: &'a mut Room) -> Option<Transition<'a>> {
        let Room { observations, next, units } = room;
        let stored = self.replay.transition(slot, observations)?;
        units.resize(stored.action.len(), 0.0);
        let action = match in_units(self.action, stored.action, units) {
            Action::Discrete(_) => stored.action,
            Action::Continuous(units) => units,
        };
        let terminated = stored.discount == 0.0;
        let goes_on = match self.replay.observation(slot + 1, next) {
            Some(next) => next == stored.next_observation,
            None => self.running,
        };
        Some(Transition {
            observation: stored.observation,
            action,
            reward: stored.reward,
            next_observation: stored.next_observation,
            terminated,
            truncated: !terminated && !goes_on,
        })
    }
}

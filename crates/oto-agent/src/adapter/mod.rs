//! A teacher whose spaces only resemble the student's: the student learns the adapter between them itself.
//!
//! It declares the teacher's own spaces, maps its observations to them and the raw answers back. At first it asks about each
//! state under several drawn adapters, which shows what the teacher does all over the space that states may be mapped to. It
//! learns to imitate the teacher from these answers, and to imagine its environment from its own transitions; there it
//! tries adapters and takes the one that is paid best, if that is better than what the student does by itself. From
//! then on states are asked about under this adapter, those of the past too, and answers are labels. With twice as many
//! transitions it looks again, and changes its mind only for something clearly better.

mod candidate;
mod imagination;
mod imitation;
mod regression;

use crate::student::TeacherSpaces;
use crate::trainer::from_units;
use candidate::{Candidate, Spaces};
use imagination::{Imagination, sample};
use imitation::Imitation;
use oto_env::Space;
use oto_env::rng::Rng;
use oto_proto::{Action, Adapter, Plan};
use oto_rl::replay::{Replay, SlotId};
use std::ops::Range;

/// Transitions at the first look for an adapter; each further look is at twice as many.
const FIRST_LOOK: u64 = 256;
/// Drawn adapters under which a state is asked about, while there is none in use.
const DRAWN: u64 = 8;
/// Answers that a look takes.
const MIN_ANSWERS: usize = 128;
/// Answers that are kept; then a new one takes the place of any, and no more are asked for under drawn adapters.
const MAX_ANSWERS: usize = 4096;
/// States that are asked about in a step, while the past is caught up with.
const PACE: u64 = 8;
/// Adapters that are tried in a look.
const TRIED: usize = 400;
/// The best of them, which others are made from.
const KEPT: usize = 8;
/// States that an adapter is tried from, half of them beginnings of episodes, and how many steps.
const STARTS: usize = 16;
const HORIZON: usize = 300;
/// Whoever is paid less from so many of them than each of the best is not tried further.
const FEW: usize = 4;
/// What a number that is turned around costs, as a share of what is paid: spaces that resemble one another mostly agree.
const TURN_COST: f64 = 0.02;
/// How much better another one must be than the one in use, as a share of what that is paid.
const CLEARLY: f64 = 0.1;
/// A query's number is its generation and, in so many lower bits, its place within it.
const PLACE_BITS: u32 = 40;

/// Learns one teacher's adapter.
pub(crate) struct Learner {
    spaces: Spaces,
    observation: Space,
    action: Space,
    seed: u64,
    /// The adapter in use, if one is good enough: the first of the best.
    plan: Option<Plan>,
    state: State,
    /// Room for an observation of the student and of the teacher, and for an action in the student's units and as learners have it.
    seen: Vec<f32>,
    mapped: Vec<f32>,
    units: Vec<f32>,
    label: Vec<f32>,
}

/// What a checkpoint keeps.
#[derive(Clone)]
pub(crate) struct State {
    rng: Rng,
    /// How often the adapter in use changed.
    generation: u64,
    /// The best ones of the last look.
    best: Vec<Candidate>,
    used: bool,
    /// The next place to ask about: a slot, or one of several queries of a slot under drawn adapters.
    next: u64,
    /// Transitions at the next look.
    look_at: u64,
    /// The teacher's observations, and its answers to them.
    states: Vec<f32>,
    answers: Vec<f32>,
}

oto_json::json_object! { State: open { rng, generation, best, used, next, look_at, states, answers } }

impl Learner {
    /// For these spaces, or why not.
    pub fn new(
        observation: &Space,
        action: &Space,
        teacher: &TeacherSpaces,
        seed: u64,
    ) -> Result<Self, String> {
        let spaces = Spaces {
            student_observation: observation.clone(),
            student_action: action.clone(),
            teacher_observation: teacher.observation.clone(),
            teacher_action: teacher.action.clone(),
        };
        if let Some(refusal) = spaces.refusal() {
            return Err(refusal);
        }
        let state = State {
            rng: Rng::new(seed),
            generation: 0,
            best: Vec::new(),
            used: false,
            next: 0,
            look_at: FIRST_LOOK,
            states: Vec::new(),
            answers: Vec::new(),
        };
        Ok(Self {
            mapped: vec![0.0; spaces.teacher_observation.width()],
            units: vec![0.0; action.width()],
            seen: Vec::new(),
            label: Vec::new(),
            plan: None,
            spaces,
            observation: observation.clone(),
            action: action.clone(),
            seed,
            state,
        })
    }

    /// The adapter in use.
    pub fn adapter(&self) -> Option<Adapter> {
        self.plan.as_ref().map(|_| self.state.best[0].adapter(&self.spaces))
    }

    /// The numbers of this step's queries.
    pub fn queries(&mut self, replay: &Replay) -> Range<u64> {
        if self.plan.is_none() && self.answers() >= MAX_ANSWERS {
            return 0..0;
        }
        let places = self.places();
        let first = self.state.next.max(replay.oldest_slot() * places);
        self.state.next = (replay.stored() * places).min(first + PACE);
        let generation = self.state.generation << PLACE_BITS;
        generation + first..generation + self.state.next
    }

    /// Queries of a slot.
    fn places(&self) -> u64 {
        if self.plan.is_some() { 1 } else { DRAWN }
    }

    /// The place of a query, unless it was made before the adapter in use changed.
    fn place(&self, query: u64) -> Option<u64> {
        (query >> PLACE_BITS == self.state.generation).then_some(query & ((1 << PLACE_BITS) - 1))
    }

    /// What a query asks the teacher. None if it counts no more, or its state is gone.
    pub fn query(&mut self, query: u64, replay: &Replay) -> Option<&[f32]> {
        let place = self.place(query)?;
        let seen = replay.observation(place / self.places(), &mut self.seen)?;
        let mapped = match &self.plan {
            Some(plan) => plan.observation(seen, &mut self.mapped),
            None => {
                let rng = &mut Rng::new(self.seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let plan = self.spaces.plan(&Candidate::draw(&self.spaces, rng));
                plan.and_then(|plan| plan.observation(seen, &mut self.mapped))
            }
        };
        mapped.ok()?;
        Some(&self.mapped)
    }

    /// Takes the answer to a query. Gives the slot that it labels and the label, as learners have actions, if it is one.
    pub fn answer(&mut self, query: u64, answer: Action<'_>, replay: &Replay) -> Option<(SlotId, &[f32])> {
        let slot = self.place(query)?;
        self.query(query, replay)?;
        self.remember(answer);
        let action = self.plan.as_ref()?.action(answer, &mut self.units).ok()?;
        self.label.clear();
        from_units(&self.action, action, &mut self.label);
        Some((slot, &self.label))
    }

    /// Keeps the answer to the mapped observation.
    fn remember(&mut self, answer: Action<'_>) {
        let index;
        let answer = match answer {
            Action::Continuous(values) => values,
            Action::Discrete(choice) => {
                index = [choice as f32];
                &index
            }
        };
        let (state, width, numbers) = (&mut self.state, self.mapped.len(), answer.len());
        if state.answers.len() < MAX_ANSWERS * numbers {
            state.states.extend_from_slice(&self.mapped);
            state.answers.extend_from_slice(answer);
            return;
        }
        let at = state.rng.below(MAX_ANSWERS as u32) as usize;
        state.states[at * width..][..width].copy_from_slice(&self.mapped);
        state.answers[at * numbers..][..numbers].copy_from_slice(answer);
    }

    /// Answers that are kept.
    fn answers(&self) -> usize {
        self.state.answers.len() / self.spaces.teacher_action.width()
    }

    /// Whether there is enough to look for an adapter, or for a better one.
    pub fn is_due(&self, replay: &Replay) -> bool {
        replay.stored() >= self.state.look_at && self.answers() >= MIN_ANSWERS
    }

    /// Looks for the adapter under which the imitated teacher is paid best in the imagined environment; `own` is what the student does by
    /// itself. True if the adapter in use has changed: then nothing that was asked before counts.
    pub fn look(&mut self, replay: &Replay, mut own: impl FnMut(&[f32], &mut [f32])) -> bool {
        self.state.look_at = self.state.look_at.max(replay.stored()) * 2;
        let rng = &mut Rng::new(self.state.rng.next_u64());
        let State { states, answers, .. } = &self.state;
        let Spaces { teacher_observation, teacher_action, .. } = &self.spaces;
        let imagination = Imagination::learn(replay, &self.observation, &self.action, rng);
        let imitation = Imitation::learn(states, teacher_observation.width(), answers, teacher_action, rng);
        let (Some(mut environment), Some(teacher)) = (imagination, imitation) else { return false };
        let starts = starts(replay, rng);
        let own: f64 = starts.iter().map(|start| environment.play(start, HORIZON, &mut own)).sum();
        let mut trial = Trial { environment, teacher, starts };

        let before = self.state.used.then(|| self.state.best[0].clone());
        let held = before.as_ref().map(|candidate| self.paid(candidate, &mut trial, 0..STARTS));
        let mut best = self.search(&mut trial, rng);
        let rival = best.first().map_or(own, |(paid, _)| paid.max(own));
        self.state.used = match (&before, held) {
            (Some(before), Some(held)) if held + CLEARLY * held.abs() >= rival => {
                best.retain(|(_, candidate)| candidate != before);
                best.insert(0, (held, before.clone()));
                true
            }
            _ => best.first().is_some_and(|(paid, _)| *paid > own),
        };
        self.state.best = best.into_iter().map(|(_, candidate)| candidate).collect();
        let used = self.state.best.first().filter(|_| self.state.used);
        let changed = used != before.as_ref();
        self.plan = used.and_then(|candidate| self.spaces.plan(candidate).ok());
        if changed {
            self.state.generation += 1;
            // Under a new adapter all is asked about again, under drawn ones only what is new.
            self.state.next = if self.state.used { replay.oldest_slot() } else { replay.stored() * DRAWN };
        }
        changed
    }

    /// The best adapters and what they are paid, the best first: from the last look's, drawn ones and changed ones.
    fn search(&mut self, trial: &mut Trial, rng: &mut Rng) -> Vec<(f64, Candidate)> {
        // What each is paid from the first few starts, and from all.
        let mut best: Vec<([f64; 2], Candidate)> = Vec::new();
        for i in 0..TRIED {
            let candidate = match self.state.best.get(i) {
                Some(known) => known.clone(),
                None if i % 2 == 0 || best.is_empty() => Candidate::draw(&self.spaces, rng),
                None => best[rng.below(best.len() as u32) as usize].1.changed(&self.spaces, rng),
            };
            if best.iter().any(|(_, other)| *other == candidate) {
                continue;
            }
            let few = self.paid(&candidate, trial, 0..FEW);
            if best.len() == KEPT && best.iter().all(|([other, _], _)| few < *other) {
                continue;
            }
            let all = few + self.paid(&candidate, trial, FEW..STARTS);
            let place = best.partition_point(|([_, other], _)| *other >= all);
            best.insert(place, ([few, all], candidate));
            best.truncate(KEPT);
        }
        best.into_iter().map(|([_, all], candidate)| (all, candidate)).collect()
    }

    /// What the imitated teacher is paid under an adapter from some of the starts, less what its turns cost.
    fn paid(&mut self, candidate: &Candidate, trial: &mut Trial, starts: Range<usize>) -> f64 {
        let Ok(plan) = self.spaces.plan(candidate) else { return f64::NEG_INFINITY };
        let Trial { environment, teacher, starts: all } = trial;
        let mut act = |state: &[f32], out: &mut [f32]| {
            let answer = plan.observation(state, &mut self.mapped).map(|()| teacher.act(&self.mapped));
            // What cannot be mapped is done as the step before.
            if let Ok(Ok(units)) = answer.map(|answer| plan.action(answer, &mut self.units)) {
                self.label.clear();
                from_units(&self.action, units, &mut self.label);
                out.copy_from_slice(&self.label);
            }
        };
        let some = all.iter().take(starts.end).skip(starts.start);
        let paid: f64 = some.map(|start| environment.play(start, HORIZON, &mut act)).sum();
        paid - TURN_COST * candidate.turns() as f64 * paid.abs()
    }

    /// What a checkpoint keeps.
    pub fn save(&self) -> State {
        self.state.clone()
    }

    /// Whether a state was saved for these spaces and all its numbers are finite.
    pub fn fits(&self, state: &State) -> bool {
        let numbers = self.spaces.teacher_action.width();
        let rows = state.answers.len() / numbers;
        rows <= MAX_ANSWERS
            && state.states.len() == rows * self.mapped.len()
            && state.answers.len() == rows * numbers
            && state.states.iter().chain(&state.answers).all(|x| x.is_finite())
            && (!state.used || !state.best.is_empty())
            && state.best.iter().all(|candidate| self.spaces.plan(candidate).is_ok())
    }

    /// Goes on from a state that fits.
    pub fn restore(&mut self, state: State) {
        let used = state.best.first().filter(|_| state.used);
        self.plan = used.and_then(|candidate| self.spaces.plan(candidate).ok());
        self.state = state;
    }
}

/// What adapters are tried in.
struct Trial {
    environment: Imagination,
    teacher: Imitation,
    starts: Vec<Vec<f32>>,
}

/// States to try adapters from: the first half begin episodes, as far as there are such.
fn starts(replay: &Replay, rng: &mut Rng) -> Vec<Vec<f32>> {
    let (mut room, mut before) = (Vec::new(), [Vec::new(), Vec::new()]);
    let mut state = |slot: SlotId| replay.observation(slot, &mut room).map(<[f32]>::to_vec);
    let mut slots = sample(replay).collect::<Vec<_>>();
    rng.shuffle(&mut slots);
    let (mut first, mut any) = (Vec::new(), Vec::new());
    for slot in slots {
        let Some(state) = state(slot) else { continue };
        let follows = slot.checked_sub(1).and_then(|last| replay.transition(last, &mut before));
        let begins = follows.is_none_or(|last| last.next_observation != state);
        if begins && first.len() < STARTS / 2 { first.push(state) } else { any.push(state) }
    }
    first.extend(any);
    first.truncate(STARTS);
    first
}

//! A model of the student's environment, made of its transitions, for trying policies without taking a step: a regression of the next observation and
//! the reward, another of whether the episode goes on, both on products of the numbers: few transitions are enough for those,
//! and little is made up between them. It is trusted where the student has been, and a little beyond.

use super::regression::{self, Rows};
use oto_env::Space;
use oto_env::rng::Rng;
use oto_rl::mlp::Mlp;
use oto_rl::replay::Replay;

/// Transitions that are learnt from, at most: spread evenly over the buffer.
const MAX_ROWS: u64 = 4096;

/// Products are for at most so many numbers; there are half as many as their square.
const MAX_FACTORS: usize = 24;

/// A model of the student's environment.
pub(super) struct Imagination {
    /// From observation, action and products to the change of the observation and the reward.
    dynamics: Mlp,
    /// From an observation and products to 1 where an episode goes on, 0 where it has terminated; if any has.
    alive: Option<Mlp>,
    /// Choices of a discrete action, 0 for a continuous one.
    choices: usize,
    /// The space's bounds: no observation lies beyond.
    bounds: Vec<(f32, f32)>,
    /// Twice the range that was seen.
    known: Vec<(f32, f32)>,
    /// The lowest and the highest reward that was seen.
    rewards: (f32, f32),
    /// Observation, action and their products.
    input: Vec<f32>,
    state: Vec<f32>,
    action: Vec<f32>,
}

impl Imagination {
    /// What single steps in `replay` tell; none if they are too few.
    pub fn learn(replay: &Replay, observation: &Space, action: &Space, rng: &mut Rng) -> Option<Self> {
        let Space::Box { low, high } = observation else { return None };
        let (width, choices) = (low.len(), choices(action));
        let numbers = if choices > 0 { choices } else { action.width() };
        let (mut steps, mut ends) = (Rows::default(), Rows::default());
        let mut known = vec![(f32::INFINITY, f32::NEG_INFINITY); width];
        let mut rewards = (f32::INFINITY, f32::NEG_INFINITY);
        let mut room = [Vec::new(), Vec::new()];
        let mut terminated = 0;
        for slot in sample(replay) {
            let Some(t) = replay.transition(slot, &mut room) else { continue };
            encode(t.observation, t.action, choices, &mut steps.x);
            steps.y.extend(t.next_observation.iter().zip(t.observation).map(|(next, now)| next - now));
            steps.y.push(t.reward);
            steps.weight.push(1.0);
            encode(t.next_observation, &[], 0, &mut ends.x);
            ends.y.push(if t.discount == 0.0 { 0.0 } else { 1.0 });
            terminated += usize::from(t.discount == 0.0);
            rewards = (rewards.0.min(t.reward), rewards.1.max(t.reward));
            for (range, x) in known.iter_mut().zip(t.observation.iter().zip(t.next_observation)) {
                *range = (range.0.min(*x.0).min(*x.1), range.1.max(*x.0).max(*x.1));
            }
        }
        let terms = |numbers: usize| {
            let products = width * (width + 1) / 2 + width * numbers;
            width + numbers + if width + numbers <= MAX_FACTORS { products } else { 0 }
        };
        let dynamics = regression::fit(&steps, [terms(numbers), width + 1], 0, rng)?;
        // Ends are rare; both kinds count the same.
        let rows = ends.y.len();
        ends.weight.extend(ends.y.iter().map(|alive| match *alive > 0.0 {
            true => rows as f32 / (rows - terminated).max(1) as f32,
            false => rows as f32 / terminated.max(1) as f32,
        }));
        let alive = if terminated > 0 { Some(regression::fit(&ends, [terms(0), 1], 0, rng)?) } else { None };
        let widen = |(low, high): (f32, f32)| (low - 0.5 * (high - low), high + 0.5 * (high - low));
        Some(Self {
            dynamics,
            alive,
            choices,
            bounds: low.iter().copied().zip(high.iter().copied()).collect(),
            known: known.into_iter().map(widen).collect(),
            rewards,
            input: Vec::with_capacity(terms(numbers)),
            state: vec![0.0; width],
            action: vec![0.0; if choices > 0 { 1 } else { numbers }],
        })
    }

    /// The sum of rewards over `steps` steps from `start`. `act` writes an action as learners have it. Whoever leaves what is
    /// known is paid from there on as badly as anyone was, and no better than nothing.
    pub fn play(&mut self, start: &[f32], steps: usize, mut act: impl FnMut(&[f32], &mut [f32])) -> f64 {
        self.state.copy_from_slice(start);
        let mut sum = 0.0;
        for step in 0..steps {
            act(&self.state, &mut self.action);
            self.input.clear();
            encode(&self.state, &self.action, self.choices, &mut self.input);
            let forecast = self.dynamics.forward(&self.input);
            let reward = forecast[self.state.len()].clamp(self.rewards.0, self.rewards.1);
            for ((s, change), (low, high)) in self.state.iter_mut().zip(forecast).zip(&self.bounds) {
                *s = (*s + change).clamp(*low, *high);
            }
            sum += f64::from(reward);
            self.input.clear();
            encode(&self.state, &[], 0, &mut self.input);
            if self.alive.as_mut().is_some_and(|alive| alive.forward(&self.input)[0] < 0.5) {
                return sum;
            }
            let strange = |(s, (low, high)): (&f32, &(f32, f32))| !(low <= s && s <= high);
            if self.state.iter().zip(&self.known).any(strange) {
                return sum + (steps - step - 1) as f64 * f64::from(self.rewards.0.min(0.0));
            }
        }
        sum
    }
}

/// Slots spread evenly over the buffer.
pub(super) fn sample(replay: &Replay) -> impl Iterator<Item = u64> + use<> {
    let (oldest, count) = (replay.oldest_slot(), replay.len() as u64);
    let rows = count.min(MAX_ROWS);
    (0..rows).map(move |i| oldest + i * count / rows)
}

/// Choices of a discrete space, 0 for a box.
fn choices(action: &Space) -> usize {
    match action {
        Space::Discrete { n } => *n as usize,
        Space::Box { .. } => 0,
    }
}

/// Observation and action, a discrete one as so many numbers of which one is 1, and their
/// products if they are few.
fn encode(state: &[f32], action: &[f32], choices: usize, out: &mut Vec<f32>) {
    let first = out.len();
    out.extend_from_slice(state);
    match choices {
        0 => out.extend_from_slice(action),
        n => out.extend((0..n).map(|i| f32::from(u8::from(i == action[0] as usize)))),
    }
    let end = out.len();
    if end - first > MAX_FACTORS {
        return;
    }
    for i in first..first + state.len() {
        for j in i..end {
            out.push(out[i] * out[j]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_env::Action;

    /// So many random steps in CartPole.
    fn replay(steps: usize) -> (Replay, Space, Space) {
        let mut environment = oto_env::make("CartPole-v1").unwrap();
        let (mut rng, mut now, mut next) = (Rng::new(2), [0.0; 4], [0.0; 4]);
        let mut replay = Replay::new(steps, [4, 1], 0, 1, 0.99);
        environment.reset(Some(1), &mut now).unwrap();
        for _ in 0..steps {
            let push = rng.below(2);
            let step = environment.step(Action::Discrete(push), &mut next).unwrap();
            replay.push(
                &now,
                &[push as f32],
                step.reward as f32,
                &next,
                step.terminated,
                step.truncated,
                |_, _| {},
            );
            now = next;
            if step.done() {
                environment.reset(None, &mut now).unwrap();
            }
        }
        let spaces = (environment.observation_space().clone(), environment.action_space().clone());
        (replay, spaces.0, spaces.1)
    }

    #[test]
    fn policies_are_paid_as_they_are_in_the_environment() {
        let (replay, observation, action) = replay(400);
        let mut imagined = Imagination::learn(&replay, &observation, &action, &mut Rng::new(3)).unwrap();
        let mut environment = oto_env::make("CartPole-v1").unwrap();
        let policies: [fn(&[f32]) -> f32; 4] = [
            |_| 0.0,
            |_| 1.0,
            |s| f32::from(u8::from(s[3] < 0.0)),
            |s| f32::from(u8::from(3.0 * s[2] + s[3] + 0.1 * s[0] + 0.2 * s[1] > 0.0)),
        ];
        for (i, policy) in policies.iter().enumerate() {
            let mut s = [0.0; 4];
            environment.reset(Some(7), &mut s).unwrap();
            let start = s;
            let mut real = 0.0;
            while real < 100.0 {
                real += 1.0;
                if environment.step(Action::Discrete(policy(&s) as u32), &mut s).unwrap().done() {
                    break;
                }
            }
            let dreamt = imagined.play(&start, 100, |s, a| a[0] = policy(s));
            assert!((real - dreamt).abs() <= 0.3 * real, "policy {i}: {real} steps, imagined {dreamt}");
        }
    }

    #[test]
    fn nothing_is_imagined_of_nothing() {
        let (empty, observation, action) =
            (Replay::new(8, [4, 1], 0, 1, 0.99), replay(1).1, Space::Discrete { n: 2 });
        assert!(Imagination::learn(&empty, &observation, &action, &mut Rng::new(3)).is_none());
    }
}

//! The teacher as its answers show it: asked anything, at no cost.

use super::regression::{self, Rows};
use oto_env::rng::Rng;
use oto_proto::{Action, Space};
use oto_rl::mlp::{Mlp, argmax};

/// Drawn units: a teacher bends more than an environment does.
const UNITS: usize = 256;
/// How near the ends of its range an answer counts, as a share of half the range.
const END: f32 = 1e-4;
/// What an answer at the end of its range weighs, beside 1 in the middle.
const END_WEIGHT: f32 = 0.02;

/// A regression of the teacher's answers.
pub(super) struct Imitation {
    network: Mlp,
    answer: Vec<f32>,
    action: Space,
}

impl Imitation {
    /// Learns from observations `[rows, width]` and answers `[rows, numbers]`, an index as its number. Teachers push as hard as
    /// they can over most of their space, and what they do is decided between: what has a range is learnt before the tanh
    /// that leads to it, and weighs by how far that would move the answer.
    pub fn learn(
        states: &[f32],
        width: usize,
        answers: &[f32],
        action: &Space,
        rng: &mut Rng,
    ) -> Option<Self> {
        let numbers = action.width();
        let mut rows = Rows { x: states.to_vec(), ..Rows::default() };
        for answer in answers.chunks_exact(numbers) {
            let mut weight = 0.0f32;
            match action {
                Space::Discrete { n } => {
                    rows.y.extend((0..*n).map(|i| f32::from(u8::from(i == answer[0] as u32))));
                    weight = 1.0;
                }
                Space::Box { low, high } => {
                    for (a, (low, high)) in answer.iter().zip(low.iter().zip(high)) {
                        let (y, slope) = unsquash(*a, *low, *high);
                        rows.y.push(y);
                        weight = weight.max(slope * slope);
                    }
                }
            }
            rows.weight.push(weight + END_WEIGHT);
        }
        let outputs = if let Space::Discrete { n } = action { *n as usize } else { numbers };
        let network = regression::fit(&rows, [width, outputs], UNITS, rng)?;
        Some(Self { network, answer: vec![0.0; outputs], action: action.clone() })
    }

    /// Its answer to an observation.
    pub fn act(&mut self, observation: &[f32]) -> Action<'_> {
        self.answer.copy_from_slice(self.network.forward(observation));
        match &self.action {
            Space::Discrete { .. } => Action::Discrete(argmax(&self.answer) as u32),
            Space::Box { low, high } => {
                for (a, (low, high)) in self.answer.iter_mut().zip(low.iter().zip(high)) {
                    *a = squash(*a, *low, *high);
                }
                Action::Continuous(&self.answer)
            }
        }
    }
}

fn has_range(low: f32, high: f32) -> bool {
    high > low && (high - low).is_finite()
}

/// What a tanh would make of this number, spread over the range; the number itself where there is none.
fn squash(x: f32, low: f32, high: f32) -> f32 {
    if !has_range(low, high) {
        return x.max(low).min(high);
    }
    (low + 0.5 * (x.tanh() + 1.0) * (high - low)).clamp(low, high)
}

/// What [`squash`] makes an answer of, and the tanh's slope there.
fn unsquash(answer: f32, low: f32, high: f32) -> (f32, f32) {
    if !has_range(low, high) {
        return (answer, 1.0);
    }
    let unit = (2.0 * (answer - low) / (high - low) - 1.0).clamp(-1.0, 1.0);
    ((unit * (1.0 - END)).atanh(), 1.0 - unit * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How far an imitation is from `teacher` in the middle of its space, on average.
    fn error(action: &Space, teacher: impl Fn(&[f32]) -> f32) -> f32 {
        let rng = &mut Rng::new(5);
        let draw = |rng: &mut Rng, size: f64| [(); 3].map(|()| rng.uniform(-size, size) as f32);
        let states = (0..2000).map(|_| draw(rng, 3.0)).collect::<Vec<_>>();
        let answers = states.iter().map(|s| teacher(s)).collect::<Vec<_>>();
        let mut imitation = Imitation::learn(&states.concat(), 3, &answers, action, rng).unwrap();
        let errors = (0..500).map(|_| {
            let s = draw(rng, 0.5);
            let got = match imitation.act(&s) {
                Action::Discrete(i) => i as f32,
                Action::Continuous(a) => a[0],
            };
            (got - teacher(&s)).abs()
        });
        errors.sum::<f32>() / 500.0
    }

    #[test]
    fn a_squashed_a_free_and_a_choosing_teacher_are_imitated() {
        let range = |low: f32, high: f32| Space::Box { low: vec![low], high: vec![high] };
        let push = |s: &[f32]| 2.0 * s[0] - 3.0 * s[1] + s[2];
        assert!(error(&range(-3.0, 3.0), |s| 3.0 * push(s).tanh()) < 0.2);
        assert!(error(&range(f32::NEG_INFINITY, f32::INFINITY), push) < 0.05);
        assert!(error(&Space::Discrete { n: 2 }, |s| f32::from(u8::from(push(s) > 0.0))) < 0.1);
    }

    #[test]
    fn answers_come_back_from_before_the_tanh() {
        for (low, high) in [(-3.0, 3.0), (0.0, 10.0), (f32::NEG_INFINITY, f32::INFINITY), (2.0, 2.0)] {
            for answer in [2.0, 2.9] {
                let answer = f32::clamp(answer, low, high);
                let (x, _) = unsquash(answer, low, high);
                assert!((squash(x, low, high) - answer).abs() < 1e-2, "{answer} in {low} to {high}");
            }
        }
    }
}

//! An adapter that may be the right one: drawn, changed a little, and written as the [`Adapter`] that could have been declared.

use oto_env::rng::Rng;
use oto_proto::{ActionMap, Adapter, AdapterError, ObservationMap, Plan, Space};

/// The most numbers or choices that an observation or an action may have on either side: what is searched grows faster than they do.
pub(super) const MAX_NUMBERS: usize = 64;

/// How likely a drawn map turns a number's sign around: resembling spaces mostly agree.
const TURNED: f64 = 0.25;

/// Both pairs of spaces.
#[derive(Clone, Debug)]
pub(super) struct Spaces {
    pub student_observation: Space,
    pub student_action: Space,
    pub teacher_observation: Space,
    pub teacher_action: Space,
}

/// Where each number of the teacher's observation comes from, whether it is turned around, and the map of actions. Scales are not
/// searched: ranges are led into each other, and what has none keeps its units.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Candidate {
    source: Vec<usize>,
    turned: Vec<bool>,
    action: ActionMap,
}

oto_json::json_object! { Candidate: open { source, turned, action } }

impl Spaces {
    /// Why no adapter of these is learnt, if none is.
    pub fn refusal(&self) -> Option<String> {
        for space in [&self.teacher_observation, &self.teacher_action] {
            if let Err(error) = oto_proto::check_space(space) {
                return Some(error.to_string());
            }
        }
        let (Some(student), Some(teacher)) =
            (bounds(&self.student_observation), bounds(&self.teacher_observation))
        else {
            return Some("an adapter is learnt between observations that are boxes".into());
        };
        if let (Some(student), Some(teacher)) = (bounds(&self.student_action), bounds(&self.teacher_action))
            && student.0.len() != teacher.0.len()
        {
            let (got, expected) = (teacher.0.len(), student.0.len());
            return Some(format!(
                "the teacher's actions have {got} numbers, the student's {expected}: they must be as many"
            ));
        }
        let count =
            |space: &Space| if let Space::Discrete { n } = space { *n as usize } else { space.width() };
        let actions = [count(&self.student_action), count(&self.teacher_action)];
        let widest = student.0.len().max(teacher.0.len()).max(actions[0]).max(actions[1]);
        (widest > MAX_NUMBERS).then(|| {
            format!("an adapter is learnt for at most {MAX_NUMBERS} numbers or choices, there are {widest}")
        })
    }

    /// The declared form, checked.
    pub fn plan(&self, candidate: &Candidate) -> Result<Plan, AdapterError> {
        let Self { student_observation, student_action, teacher_observation, teacher_action } = self;
        candidate.adapter(self).check(
            student_observation,
            student_action,
            teacher_observation,
            teacher_action,
        )
    }
}

fn bounds(space: &Space) -> Option<(&[f32], &[f32])> {
    match space {
        Space::Box { low, high } => Some((low, high)),
        Space::Discrete { .. } => None,
    }
}

/// Factor and summand that lead from one component's range to another's; the identity where one has no finite range.
fn range_map(from: &Space, i: usize, to: &Space, j: usize) -> (f32, f32) {
    let range = |space: &Space, i: usize| {
        let (low, high) = bounds(space).and_then(|(low, high)| Some((*low.get(i)?, *high.get(i)?)))?;
        let (middle, half) = (0.5 * low + 0.5 * high, 0.5 * high - 0.5 * low);
        (half > 0.0 && half.is_finite()).then_some((middle, half))
    };
    match range(from, i).zip(range(to, j)) {
        Some((from, to)) if (to.1 / from.1).is_finite() => (to.1 / from.1, to.0 - from.0 * (to.1 / from.1)),
        _ => (1.0, 0.0),
    }
}

impl Candidate {
    /// Any: each number of the student's is used before one is used twice.
    pub fn draw(spaces: &Spaces, rng: &mut Rng) -> Self {
        let (student, teacher) = (spaces.student_observation.width(), spaces.teacher_observation.width());
        let mut source = Vec::new();
        while source.len() < teacher {
            let mut order = (0..student).collect::<Vec<_>>();
            rng.shuffle(&mut order);
            source.extend(order);
        }
        source.truncate(teacher);
        let turned = source.iter().map(|_| rng.f64() < TURNED).collect();
        Self { source, turned, action: draw_action(spaces, rng) }
    }

    /// One part of it changed: two sources exchanged or one replaced, a sign, or the map of actions.
    pub fn changed(&self, spaces: &Spaces, rng: &mut Rng) -> Self {
        let mut new = self.clone();
        let i = rng.below(self.source.len() as u32) as usize;
        match rng.below(3) {
            0 => {
                let source = rng.below(spaces.student_observation.width() as u32) as usize;
                if let Some(other) = new.source.iter().position(|s| *s == source) {
                    new.source[other] = new.source[i];
                }
                new.source[i] = source;
            }
            1 => new.turned[i] = !new.turned[i],
            _ => change_action(&mut new.action, spaces, rng),
        }
        new
    }

    /// How many numbers it turns around.
    pub fn turns(&self) -> usize {
        let observation = self.turned.iter().filter(|turned| **turned).count();
        let action = match &self.action {
            ActionMap::Affine { scale, .. } => scale.iter().filter(|scale| **scale < 0.0).count(),
            ActionMap::Sign { negative, positive, .. } => usize::from(negative > positive),
            _ => 0,
        };
        observation + action
    }

    /// As it would be declared in `hello`.
    pub fn adapter(&self, spaces: &Spaces) -> Adapter {
        let maps = self.source.iter().zip(&self.turned).enumerate().map(|(teacher, (student, turned))| {
            let map = range_map(&spaces.student_observation, *student, &spaces.teacher_observation, teacher);
            if *turned { turn(map, &spaces.teacher_observation, teacher) } else { map }
        });
        let (scale, offset) = maps.unzip();
        let observation = ObservationMap {
            permutation: Some(self.source.clone()),
            scale: Some(scale),
            offset: Some(offset),
        };
        Adapter { observation: Some(observation), action: Some(self.action.clone()) }
    }
}

/// The same map turned around the middle of the range that it leads to.
fn turn((factor, summand): (f32, f32), to: &Space, i: usize) -> (f32, f32) {
    let middle = bounds(to).map_or(0.0, |(low, high)| 0.5 * low[i] + 0.5 * high[i]);
    let middle = if middle.is_finite() { middle } else { 0.0 };
    (-factor, 2.0 * middle - summand)
}

fn draw_action(spaces: &Spaces, rng: &mut Rng) -> ActionMap {
    match (&spaces.teacher_action, &spaces.student_action) {
        (Space::Box { low, .. }, Space::Discrete { n: n @ ..=2 }) => {
            let negative = rng.below(*n);
            ActionMap::Sign {
                component: rng.below(low.len() as u32) as usize,
                negative,
                positive: n - 1 - negative,
            }
        }
        (Space::Box { low, .. }, Space::Discrete { n }) => {
            let component = rng.below(low.len() as u32) as usize;
            // Choices as bins of equal width.
            let bin = |i: u32| -1.0 + 2.0 * i as f32 / *n as f32;
            let unit = Space::Box { low: vec![-1.0], high: vec![1.0] };
            let (factor, summand) = range_map(&unit, 0, &spaces.teacher_action, component);
            ActionMap::Threshold { component, at: (1..*n).map(|i| bin(i) * factor + summand).collect() }
        }
        (Space::Box { low, .. }, Space::Box { .. }) => {
            let maps = (0..low.len()).map(|i| {
                let map = range_map(&spaces.teacher_action, i, &spaces.student_action, i);
                if rng.f64() < TURNED { turn(map, &spaces.student_action, i) } else { map }
            });
            let (scale, offset) = maps.unzip();
            ActionMap::Affine { scale, offset }
        }
        (Space::Discrete { n: teacher }, Space::Discrete { n }) => {
            ActionMap::Table { map: (0..*teacher).map(|_| rng.below(*n)).collect() }
        }
        (Space::Discrete { n }, Space::Box { low, high }) => {
            ActionMap::Levels { values: (0..*n).map(|_| level(low, high, rng)).collect() }
        }
    }
}

/// A place in a box; components without a finite range stay within 1 of 0, or of their only bound.
fn level(low: &[f32], high: &[f32], rng: &mut Rng) -> Vec<f32> {
    let place = |(low, high): (&f32, &f32)| {
        let (low, high) = (low.max(high.min(1.0) - 2.0), high.min(low.max(-1.0) + 2.0));
        (low + rng.f64() as f32 * (high - low)).clamp(low, high)
    };
    low.iter().zip(high).map(place).collect()
}

fn change_action(action: &mut ActionMap, spaces: &Spaces, rng: &mut Rng) {
    match (action, &spaces.student_action) {
        (ActionMap::Affine { scale, offset }, _) => {
            let i = rng.below(scale.len() as u32) as usize;
            (scale[i], offset[i]) = turn((scale[i], offset[i]), &spaces.student_action, i);
        }
        (ActionMap::Threshold { at, .. }, _) if rng.below(2) == 0 => {
            let factor = (0.3 * rng.normal()).exp() as f32;
            at.iter_mut().for_each(|threshold| *threshold *= factor);
        }
        (ActionMap::Table { map }, Space::Discrete { n }) => {
            let i = rng.below(map.len() as u32) as usize;
            map[i] = rng.below(*n);
        }
        (ActionMap::Levels { values }, Space::Box { low, high }) => {
            let i = rng.below(values.len() as u32) as usize;
            values[i] = level(low, high, rng);
        }
        (action, _) => *action = draw_action(spaces, rng),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

    fn space() -> impl Strategy<Value = Space> {
        let bound = prop_oneof![Just(f32::INFINITY), 0.1f32..100.0];
        let range = (-5.0f32..5.0, bound).prop_map(|(middle, half)| (middle - half, middle + half));
        prop_oneof![
            (1u32..6).prop_map(|n| Space::Discrete { n }),
            prop::collection::vec(range, 3).prop_map(|ranges| {
                let (low, high) = ranges.into_iter().unzip();
                Space::Box { low, high }
            }),
        ]
    }

    fn seen(width: usize) -> impl Strategy<Value = Space> {
        (0.1f32..10.0).prop_map(move |half| Space::Box { low: vec![-half; width], high: vec![half; width] })
    }

    proptest! {
        /// Whatever is drawn and however it is changed, it could have been declared.
        #[test]
        fn every_candidate_is_a_valid_adapter(
            student_observation in seen(4), teacher_observation in seen(6),
            student_action in space(), teacher_action in space(), seed: u64,
        ) {
            let spaces = Spaces { student_observation, student_action, teacher_observation, teacher_action };
            prop_assert_eq!(spaces.refusal(), None);
            let rng = &mut Rng::new(seed);
            let mut candidate = Candidate::draw(&spaces, rng);
            for _ in 0..20 {
                let plan = spaces.plan(&candidate);
                prop_assert!(plan.is_ok(), "{:?}: {:?}", candidate, plan.err());
                candidate = candidate.changed(&spaces, rng);
            }
            let json = oto_json::write(&candidate);
            prop_assert_eq!(oto_json::read::<Candidate>(&json).unwrap(), candidate);
        }
    }

    #[test]
    fn ranges_are_led_into_each_other_and_turned_about_their_middle() {
        let range = |low: f32, high: f32| Space::Box { low: vec![low], high: vec![high] };
        let spaces = Spaces {
            student_observation: range(0.0, 10.0),
            student_action: range(-1.0, 1.0),
            teacher_observation: range(4.0, 6.0),
            teacher_action: range(-3.0, 3.0),
        };
        for (turned, x, expected) in
            [(false, 0.0, 4.0), (false, 10.0, 6.0), (true, 0.0, 6.0), (true, 10.0, 4.0), (true, 2.5, 5.5)]
        {
            let candidate = Candidate {
                source: vec![0],
                turned: vec![turned],
                action: ActionMap::Affine { scale: vec![1.0], offset: vec![0.0] },
            };
            let mut out = [0.0];
            spaces.plan(&candidate).unwrap().observation(&[x], &mut out).unwrap();
            assert!((out[0] - expected).abs() < 1e-5, "{turned} {x}: {out:?}");
            assert_eq!(candidate.turns(), usize::from(turned));
        }
    }

    #[test]
    fn what_cannot_be_mapped_is_named() {
        let wide = |n: usize| Space::Box { low: vec![-1.0; n], high: vec![1.0; n] };
        let spaces = Spaces {
            student_observation: wide(2),
            student_action: wide(1),
            teacher_observation: wide(2),
            teacher_action: wide(1),
        };
        assert_eq!(spaces.refusal(), None);
        let with = |change: &dyn Fn(&mut Spaces)| {
            let mut changed = spaces.clone();
            change(&mut changed);
            changed.refusal().unwrap()
        };
        assert!(with(&|s| s.teacher_observation = Space::Discrete { n: 3 }).contains("boxes"));
        assert!(with(&|s| s.teacher_action = wide(2)).contains("2 numbers, the student's 1"));
        assert!(
            with(&|s| s.student_observation = wide(65))
                .contains("at most 64 numbers or choices, there are 65")
        );
        assert!(
            with(&|s| s.teacher_observation = Space::Box { low: vec![1.0], high: vec![f32::NAN] })
                .contains("low <= high")
        );
    }
}

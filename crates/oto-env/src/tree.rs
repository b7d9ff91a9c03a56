//! Every space of Gymnasium that has a fixed length, and its elements as one row of float32: [`SpaceTree`].
//!
//! A network needs a row of numbers. [`SpaceTree::flatten`] makes one of an element, in the order of
//! `gymnasium.spaces.flatten`: a choice becomes a one-hot vector, a box stays as it is, the parts of a dictionary or a tuple follow
//! each other. An element comes in as its plain numbers (one for each choice, one for each component of a box, the parts in
//! order), so that a bridge and a page send few of them and nobody but this file knows how to flatten.

use crate::{MAX_ACTIONS, MAX_WIDTH, Space, SpaceError};
use oto_json::{At, Failure, FromJson, Json, Number, ToJson, Writer};

/// The most levels of dictionaries and tuples.
pub const MAX_DEPTH: usize = 16;
/// The most parts of a space, over all levels.
pub const MAX_PARTS: usize = 4096;
/// The most combinations of choices that become one discrete action.
pub const MAX_COMBINATIONS: u64 = 64;

/// A space of one or several parts.
///
/// In JSON a `discrete` or `box` space as [`Space`] has it, a `discrete` one perhaps with a `start`, or one of
/// `{"kind":"multi_discrete","nvec":[3,2]}` (perhaps with `start`, a list), `{"kind":"multi_binary","n":4}`,
/// `{"kind":"tuple","spaces":[...]}` and `{"kind":"dict","spaces":{"position":...}}`. Gymnasium sorts the names of a plain dictionary,
/// and so is an object here; a list of pairs `[["position",...],...]` keeps its order.
#[derive(Clone, Debug, PartialEq)]
pub enum SpaceTree {
    /// One of `n` choices.
    Discrete {
        /// How many choices there are.
        n: u32,
        /// The number of the first one.
        start: i64,
    },
    /// Several choices, each of its own number of them; an array of any shape in row-major order.
    MultiDiscrete {
        /// How many choices each has.
        nvec: Vec<u32>,
        /// The number of each one's first choice.
        start: Vec<i64>,
    },
    /// Components that are 0 or 1; an array of any shape in row-major order.
    MultiBinary {
        /// How many components there are.
        n: u32,
    },
    /// Numbers with an inclusive range for each; an array of any shape in row-major order.
    Box {
        /// The smallest value of each component, or minus infinity.
        low: Vec<f32>,
        /// The largest value of each component, or infinity.
        high: Vec<f32>,
    },
    /// Spaces with names.
    Dict(Vec<(String, SpaceTree)>),
    /// Spaces in a row.
    Tuple(Vec<SpaceTree>),
}

/// Why an element is refused. `at` is the place, as Python would write it: `["arm"][2]`, or nothing for an element of one number.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ElementError {
    /// Too few or too many numbers.
    #[error("expected an observation of {expected} numbers, got {got}")]
    Length {
        /// How many numbers an element has.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// A choice that does not exist.
    #[error("observation{at} is {}, expected a whole number from {first} to {last}", oto_json::shown(.got))]
    Choice {
        /// Where.
        at: String,
        /// The first choice.
        first: i64,
        /// The last choice.
        last: i64,
        /// What came.
        got: f64,
    },
    /// NaN, infinity, or a number beyond float32.
    #[error("observation{at} is {}, expected a finite number that float32 can hold", oto_json::shown(.got))]
    Number {
        /// Where.
        at: String,
        /// What came.
        got: f64,
    },
}

impl From<Space> for SpaceTree {
    fn from(space: Space) -> Self {
        match space {
            Space::Discrete { n } => Self::Discrete { n, start: 0 },
            Space::Box { low, high } => Self::Box { low, high },
        }
    }
}

/// How many choices one number has: the first one's number and the count; none for a component of a box.
type Choice = Option<(i64, u32)>;

/// What a number of an element is.
#[derive(Clone, Copy)]
enum Part {
    /// A choice: the first one's number and the count. Flattened it is a one-hot vector.
    Choice(i64, u32),
    /// 0 or 1, and the same when flattened, as in Gymnasium.
    Bit,
    /// A component of a box.
    Real,
}

impl Part {
    /// How many numbers it has when flattened.
    fn columns(self) -> usize {
        match self {
            Self::Choice(_, n) => n as usize,
            Self::Bit | Self::Real => 1,
        }
    }
}

impl SpaceTree {
    /// How many numbers an element has: one for each choice and each component.
    pub fn numbers(&self) -> usize {
        match self {
            Self::Discrete { .. } => 1,
            Self::MultiDiscrete { nvec, .. } => nvec.len(),
            Self::MultiBinary { n } => *n as usize,
            Self::Box { low, .. } => low.len(),
            Self::Dict(parts) => parts.iter().fold(0, |sum, (_, part)| sum.saturating_add(part.numbers())),
            Self::Tuple(parts) => parts.iter().fold(0, |sum, part| sum.saturating_add(part.numbers())),
        }
    }

    /// How many numbers a flattened element has.
    pub fn width(&self) -> usize {
        let sum = |sum: usize, width: usize| sum.saturating_add(width);
        match self {
            Self::Discrete { n, .. } | Self::MultiBinary { n } => *n as usize,
            Self::MultiDiscrete { nvec, .. } => nvec.iter().map(|n| *n as usize).fold(0, sum),
            Self::Box { low, .. } => low.len(),
            Self::Dict(parts) => parts.iter().map(|(_, part)| part.width()).fold(0, sum),
            Self::Tuple(parts) => parts.iter().map(Self::width).fold(0, sum),
        }
    }

    /// The box that flattened elements lie in, as `gymnasium.spaces.flatten_space` gives it. Call [`SpaceTree::validate`] first
    /// for a space from outside.
    pub fn flat(&self) -> Space {
        let (mut low, mut high) = (Vec::new(), Vec::new());
        self.bounds(&mut low, &mut high);
        Space::Box { low, high }
    }

    fn bounds(&self, low: &mut Vec<f32>, high: &mut Vec<f32>) {
        match self {
            Self::Box { low: from, high: to } => {
                low.extend_from_slice(from);
                high.extend_from_slice(to);
            }
            Self::Dict(parts) => parts.iter().for_each(|(_, part)| part.bounds(low, high)),
            Self::Tuple(parts) => parts.iter().for_each(|part| part.bounds(low, high)),
            Self::Discrete { .. } | Self::MultiDiscrete { .. } | Self::MultiBinary { .. } => {
                low.resize(low.len() + self.width(), 0.0);
                high.resize(high.len() + self.width(), 1.0);
            }
        }
    }

    /// Checks that the space has an element and a sane size.
    ///
    /// # Errors
    /// Says which rule is broken: number of levels, parts, choices or components, or one component's range.
    pub fn validate(&self) -> Result<(), SpaceError> {
        let mut parts = 0;
        self.check(0, &mut parts)?;
        match self.width() {
            1..=MAX_WIDTH => Ok(()),
            width => Err(SpaceError::Width(width)),
        }
    }

    fn check(&self, depth: usize, parts: &mut usize) -> Result<(), SpaceError> {
        *parts += 1;
        if depth > MAX_DEPTH || *parts > MAX_PARTS {
            return Err(SpaceError::Parts);
        }
        let choices = |n: u32| match n {
            1..=MAX_ACTIONS => Ok(()),
            n => Err(SpaceError::Choices(n)),
        };
        match self {
            Self::Discrete { n, .. } => choices(*n),
            Self::MultiDiscrete { nvec, start } if nvec.len() != start.len() => {
                Err(SpaceError::Bounds { low: start.len(), high: nvec.len() })
            }
            Self::MultiDiscrete { nvec, .. } => nvec.iter().try_for_each(|n| choices(*n)),
            Self::MultiBinary { .. } => Ok(()),
            Self::Box { low, .. } if low.is_empty() => Ok(()),
            Self::Box { low, high } => crate::space::check_box(low, high),
            Self::Dict(all) => all.iter().try_for_each(|(_, part)| part.check(depth + 1, parts)),
            Self::Tuple(all) => all.iter().try_for_each(|part| part.check(depth + 1, parts)),
        }
    }

    /// Writes the row `[width]` of an element that is given by its numbers `[numbers]`. A component of a box may lie outside of
    /// its range. Allocates nothing.
    ///
    /// # Errors
    /// [`ElementError`]; the row is then partly written.
    ///
    /// # Panics
    /// If `row` has another length than [`SpaceTree::width`].
    pub fn flatten(&self, element: &[f64], row: &mut [f32]) -> Result<(), ElementError> {
        assert_eq!(row.len(), self.width(), "a row is as long as the space is wide");
        let (expected, got) = (self.numbers(), element.len());
        if expected != got {
            return Err(ElementError::Length { expected, got });
        }
        let (mut number, mut column) = (0, 0);
        self.each(&mut |part| {
            let got = element[number];
            match part {
                Part::Bit => {
                    // NaN is neither.
                    if got != 0.0 && got != 1.0 {
                        return Err(ElementError::Choice { at: self.place(number), first: 0, last: 1, got });
                    }
                    row[column] = got as f32;
                    column += 1;
                }
                Part::Real => {
                    row[column] = got as f32;
                    if !row[column].is_finite() {
                        return Err(ElementError::Number { at: self.place(number), got });
                    }
                    column += 1;
                }
                Part::Choice(first, n) => {
                    let index = got - first as f64;
                    // NaN is in no range.
                    if !(index >= 0.0 && index < f64::from(n) && index.fract() == 0.0) {
                        let last = first.saturating_add(i64::from(n) - 1);
                        return Err(ElementError::Choice { at: self.place(number), first, last, got });
                    }
                    let hot = &mut row[column..column + n as usize];
                    hot.fill(0.0);
                    hot[index as usize] = 1.0;
                    column += n as usize;
                }
            }
            number += 1;
            Ok(())
        })
    }

    /// Visits each number of an element in order.
    fn each<E>(&self, visit: &mut impl FnMut(Part) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Discrete { n, start } => visit(Part::Choice(*start, *n)),
            Self::MultiDiscrete { nvec, start } => {
                nvec.iter().zip(start).try_for_each(|(n, start)| visit(Part::Choice(*start, *n)))
            }
            Self::MultiBinary { n } => (0..*n).try_for_each(|_| visit(Part::Bit)),
            Self::Box { low, .. } => low.iter().try_for_each(|_| visit(Part::Real)),
            Self::Dict(parts) => parts.iter().try_for_each(|(_, part)| part.each(visit)),
            Self::Tuple(parts) => parts.iter().try_for_each(|part| part.each(visit)),
        }
    }

    /// The place of a number of an element, as Python would write it: `["arm"][2]`.
    pub fn place(&self, number: usize) -> String {
        match self {
            Self::Discrete { .. } => String::new(),
            Self::MultiDiscrete { .. } | Self::MultiBinary { .. } | Self::Box { .. } => format!("[{number}]"),
            Self::Dict(parts) => place_in(
                parts.iter().map(|(name, part)| (format!("[{}]", oto_json::write(name)), part)),
                number,
            ),
            Self::Tuple(parts) => {
                place_in(parts.iter().enumerate().map(|(i, part)| (format!("[{i}]"), part)), number)
            }
        }
    }

    /// The place of a number of a flattened element, as [`SpaceTree::place`] names it: that of the choice it is of.
    pub fn place_of_column(&self, column: usize) -> String {
        let (mut number, mut end, mut found) = (0, 0, None);
        let stopped = self.each(&mut |part| {
            end += part.columns();
            if column < end {
                found = Some(number);
                return Err(());
            }
            number += 1;
            Ok(())
        });
        debug_assert_eq!(stopped.is_err(), found.is_some());
        found.map_or_else(String::new, |number| self.place(number))
    }

    /// The space as actions: a box of all components where there are only boxes; where there are only choices, one discrete space
    /// of all their combinations, which [`SpaceTree::combination`] takes apart.
    ///
    /// # Errors
    /// [`SpaceError::Combinations`] for more than [`MAX_COMBINATIONS`] of them, unless it is a single choice;
    /// [`SpaceError::Mixed`] for choices beside numbers; what [`SpaceTree::validate`] finds.
    pub fn action(&self) -> Result<Space, SpaceError> {
        self.validate()?;
        let (mut choices, mut numbers, mut combinations) = (0, 0, 1u64);
        self.each_choice(&mut |choice| match choice {
            Some((_, n)) => {
                choices += 1;
                combinations = combinations.saturating_mul(n.into());
            }
            None => numbers += 1,
        });
        match (choices, numbers) {
            (0, _) => Ok(self.flat()),
            (_, 1..) => Err(SpaceError::Mixed),
            (2.., 0) if combinations > MAX_COMBINATIONS => Err(SpaceError::Combinations(combinations)),
            // A single choice has at most MAX_ACTIONS.
            _ => Ok(Space::Discrete { n: combinations as u32 }),
        }
    }

    /// The numbers of a combination of choices, from 0; the last choice changes fastest, as with `numpy.unravel_index`. Allocates
    /// nothing where `element` has room.
    pub fn combination(&self, index: u32, element: &mut Vec<f64>) {
        element.clear();
        self.each_choice(&mut |choice| element.push(choice.map_or(1.0, |(_, n)| n.into())));
        let mut rest = index;
        for number in element.iter_mut().rev() {
            let n = *number as u32;
            *number = f64::from(rest % n);
            rest /= n;
        }
        let mut numbers = element.iter_mut();
        self.each_choice(&mut |choice| {
            if let (Some(number), Some((first, _))) = (numbers.next(), choice) {
                *number += first as f64;
            }
        });
    }

    /// Which combination of choices these numbers are: the reverse of [`SpaceTree::combination`].
    ///
    /// # Errors
    /// [`ElementError`] for too few or too many numbers, or a choice that does not exist.
    pub fn index(&self, element: &[f64]) -> Result<u32, ElementError> {
        let (expected, got) = (self.numbers(), element.len());
        if expected != got {
            return Err(ElementError::Length { expected, got });
        }
        let (mut number, mut index, mut wrong) = (0, 0u32, None);
        self.each_choice(&mut |choice| {
            let (first, n) = choice.unwrap_or((0, 1));
            let digit = element[number] - first as f64;
            if !(digit >= 0.0 && digit < f64::from(n) && digit.fract() == 0.0) {
                wrong = wrong.or(Some((number, first, n)));
            }
            index = index.wrapping_mul(n).wrapping_add(digit as u32);
            number += 1;
        });
        match wrong {
            None => Ok(index),
            Some((number, first, n)) => Err(ElementError::Choice {
                at: self.place(number),
                first,
                last: first.saturating_add(i64::from(n) - 1),
                got: element[number],
            }),
        }
    }

    /// For each number of a flattened element of `other` its place in a flattened element of this space: dictionaries have the
    /// same names, perhaps in another order. `None` if the spaces have other parts.
    pub fn columns_of(&self, other: &Self) -> Option<Vec<usize>> {
        let mut places = Vec::new();
        self.arrange(other, 0, &Self::width, &mut places).then_some(places)
    }

    /// For each combination of this space's choices the same one's number in `other`, as [`SpaceTree::columns_of`].
    pub fn combinations_of(&self, other: &Self) -> Option<Vec<u32>> {
        let Ok(Space::Discrete { n }) = self.action() else { return None };
        let mut places = Vec::new();
        if !self.arrange(other, 0, &Self::numbers, &mut places) {
            return None;
        }
        let mut element = Vec::new();
        let number = |combination: u32| {
            self.combination(combination, &mut element);
            let moved: Vec<f64> = places.iter().map(|place| element[*place]).collect();
            other.index(&moved).ok()
        };
        (0..n).map(number).collect()
    }

    /// Adds the places of the numbers of `other`; this space's begin at `first`, `size` is how many a part has.
    fn arrange(
        &self,
        other: &Self,
        first: usize,
        size: &impl Fn(&Self) -> usize,
        places: &mut Vec<usize>,
    ) -> bool {
        match (self, other) {
            (Self::Dict(own), Self::Dict(others)) => {
                own.len() == others.len()
                    && others.iter().all(|(name, part)| {
                        let Some(at) = own.iter().position(|(own, _)| own == name) else { return false };
                        let before: usize = own[..at].iter().map(|(_, part)| size(part)).sum();
                        own[at].1.arrange(part, first + before, size, places)
                    })
            }
            (Self::Tuple(own), Self::Tuple(others)) => {
                let mut first = first;
                own.len() == others.len()
                    && own.iter().zip(others).all(|(own, other)| {
                        let begin = first;
                        first += size(own);
                        own.arrange(other, begin, size, places)
                    })
            }
            (Self::Dict(_) | Self::Tuple(_), _) | (_, Self::Dict(_) | Self::Tuple(_)) => false,
            _ => {
                places.extend(first..first + size(self));
                size(self) == size(other)
            }
        }
    }

    /// Visits each number as an action has it: a component of a `MultiBinary` is a choice of two.
    fn each_choice(&self, visit: &mut impl FnMut(Choice)) {
        let _ = self.each(&mut |part| {
            visit(match part {
                Part::Choice(first, n) => Some((first, n)),
                Part::Bit => Some((0, 2)),
                Part::Real => None,
            });
            Ok::<(), ()>(())
        });
    }
}

fn place_in<'a>(parts: impl Iterator<Item = (String, &'a SpaceTree)>, number: usize) -> String {
    let mut before = 0;
    for (name, part) in parts {
        let end = before + part.numbers();
        if number < end {
            return name + &part.place(number - before);
        }
        before = end;
    }
    String::new()
}

/// A whole number of 64 bits, of either sign.
struct Whole(i64);

impl ToJson for Whole {
    fn write(&self, out: &mut Writer) {
        let number = match u64::try_from(self.0) {
            Ok(number) => Number::Unsigned(number),
            Err(_) => Number::Negative(self.0),
        };
        Json::Number(number).write(out);
    }
}

impl FromJson for Whole {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        match *at.value {
            Json::Number(Number::Negative(value)) => Ok(Self(value)),
            Json::Number(Number::Unsigned(value)) if i64::try_from(value).is_ok() => Ok(Self(value as i64)),
            _ => Err(at.expected("a whole number")),
        }
    }
}

/// A dictionary's parts: an object, whose names are sorted, or a list of pairs, which stays as it is.
struct Parts(Vec<(String, SpaceTree)>);

impl FromJson for Parts {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let Json::Object(entries) = at.value else { return Vec::from_json(at).map(Self) };
        let fields = at.fields()?;
        let mut parts: Vec<(String, SpaceTree)> = Vec::new();
        for (name, _) in entries {
            // Put in order one by one: a page does without the code of a sort.
            let at = parts.partition_point(|(other, _)| other < name);
            parts.insert(at, (name.clone(), fields.get(name)?));
        }
        Ok(Self(parts))
    }
}

impl FromJson for SpaceTree {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let fields = at.fields()?;
        let starts = |starts: Vec<Whole>| starts.into_iter().map(|Whole(start)| start).collect::<Vec<_>>();
        Ok(
            match fields
                .tag("kind", &["discrete", "box", "multi_discrete", "multi_binary", "dict", "tuple"])?
            {
                0 => Self::Discrete { n: fields.get("n")?, start: fields.get_or("start", Whole(0))?.0 },
                1 => Space::from_json(at)?.into(),
                2 => {
                    let nvec: Vec<u32> = fields.get("nvec")?;
                    let start = match fields.get::<Option<Vec<Whole>>>("start")? {
                        Some(start) => starts(start),
                        None => vec![0; nvec.len()],
                    };
                    Self::MultiDiscrete { nvec, start }
                }
                3 => Self::MultiBinary { n: fields.get("n")? },
                4 => Self::Dict(fields.get::<Parts>("spaces")?.0),
                _ => Self::Tuple(fields.get("spaces")?),
            },
        )
    }
}

impl ToJson for SpaceTree {
    fn write(&self, out: &mut Writer) {
        let whole = |start: &i64| Whole(*start);
        match self {
            Self::Box { low, high } => Space::Box { low: low.clone(), high: high.clone() }.write(out),
            Self::Discrete { n, start: 0 } => Space::Discrete { n: *n }.write(out),
            _ => {
                out.open('{');
                match self {
                    Self::Discrete { n, start: first } => {
                        out.field("kind", "discrete");
                        out.field("n", n);
                        out.field("start", &whole(first));
                    }
                    Self::MultiDiscrete { nvec, start: first } => {
                        out.field("kind", "multi_discrete");
                        out.field("nvec", nvec);
                        out.field("start", &first.iter().map(whole).collect::<Vec<_>>());
                    }
                    Self::MultiBinary { n } => {
                        out.field("kind", "multi_binary");
                        out.field("n", n);
                    }
                    Self::Dict(parts) => {
                        out.field("kind", "dict");
                        out.field("spaces", parts);
                    }
                    Self::Tuple(parts) => {
                        out.field("kind", "tuple");
                        out.field("spaces", parts);
                    }
                    Self::Box { .. } => {}
                }
                out.close('}');
            }
        }
    }
}

oto_json::json_serde! { SpaceTree }

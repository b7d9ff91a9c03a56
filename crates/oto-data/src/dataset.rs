//! Episodes in memory, and what has to hold for them.

use crate::gymnasium;
use crate::hdf5::MAX_NUMBERS;
use crate::{DataError, Reference, Rows};
use oto_env::{Action, Space, SpaceTree, within};
use std::borrow::Cow;

/// Episodes of one environment.
///
/// In a checked dataset every number is finite, every action lies in `action`, and the arrays of an episode belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// What observations look like.
    pub observation: Space,
    /// What actions look like. Where a file does not tell, a box without bounds.
    pub action: Space,
    /// The episodes, in the order they were played.
    pub episodes: Vec<Episode>,
    /// Where the episodes come from.
    pub metadata: Metadata,
}

/// Where a dataset comes from, as far as its file tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// The dataset's name, such as `CartPole/expert-v0`.
    pub id: Option<String>,
    /// The environment's id, such as `CartPole-v1`.
    pub environment: Option<String>,
    /// Who played.
    pub algorithm: Option<String>,
    /// A sentence about it.
    pub description: Option<String>,
    /// What makes its environment again: Gymnasium's `EnvSpec` as JSON.
    pub spec: Option<String>,
    /// The numbers that the first discrete observation and the first discrete action have outside; in memory they are counted
    /// from 0.
    pub starts: [i64; 2],
    /// The returns between which scores are normalised.
    pub reference: Option<Reference>,
    /// Actions that were cut to their range when they were read.
    pub clipped: Clipped,
    /// The spaces of observations and actions of several parts, in whose order their rows and choices are.
    pub parts: [Option<SpaceTree>; 2],
}

impl Metadata {
    /// What `--env` takes for the dataset's environment in Gymnasium, and whether it is one of Gymnasium's own: `gym:ID`, or
    /// `gym:MODULE:ID` for another one whose module the dataset names.
    pub fn gymnasium_id(&self) -> Option<(bool, String)> {
        let spec = gymnasium::parse(self.spec.as_deref()?).ok()?;
        let (id, entry_point) = (self.environment.as_deref()?, spec["entry_point"].as_str()?);
        let module = entry_point.split(':').next()?;
        let own = module.split('.').next()? == "gymnasium" || id.starts_with("ALE/");
        let fine = module.chars().all(|c| c.is_alphanumeric() || "_.".contains(c));
        match own {
            true => Some((true, format!("gym:{id}"))),
            false => fine.then(|| (false, format!("gym:{module}:{id}"))),
        }
    }
}

/// Actions outside of their range that were cut to it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clipped {
    /// How many.
    pub actions: usize,
    /// How far the farthest lay outside, in the environment's units.
    pub farthest: f32,
}

impl std::fmt::Display for Clipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { actions, farthest } = self;
        write!(f, "{actions} actions lay outside of their range, by {farthest} at most; they were cut to it")
    }
}

/// One episode of `T` steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Episode {
    /// `[T + 1, observation width]`: before each step, and after the last.
    pub observations: Rows,
    /// `[T, action width]`, in the environment's units; a discrete action is its index as a number.
    pub actions: Vec<f32>,
    /// `[T]`.
    pub rewards: Vec<f64>,
    /// `[T]`: whether the step ended the episode inside the task.
    pub terminated: Vec<bool>,
    /// `[T]`: whether the step was the last one for another reason: a time limit, or the recording was cut off. The last
    /// step has one of the flags, no other step has.
    pub truncated: Vec<bool>,
    /// The seed that its environment was reset with, if it is known.
    pub seed: Option<u64>,
}

/// One step, borrowed from its episode.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition<'a> {
    /// `[observation width]`, before the step.
    pub observation: Cow<'a, [f32]>,
    /// What was done, in the environment's units.
    pub action: Action<'a>,
    /// What it gave.
    pub reward: f64,
    /// `[observation width]`, after the step.
    pub next_observation: Cow<'a, [f32]>,
    /// The episode ended inside the task: no value lies beyond.
    pub terminated: bool,
    /// The episode was cut: `next_observation` goes on having a value.
    pub truncated: bool,
}

impl Episode {
    /// How many steps it has.
    pub fn len(&self) -> usize {
        self.rewards.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.rewards.is_empty()
    }

    /// Leaves out all steps after the first `steps`, fewer than it has, of observations and actions of these widths.
    fn cut_after(&mut self, steps: usize, [observation, action]: [usize; 2]) {
        match &mut self.observations {
            Rows::Numbers(rows) => rows.truncate((steps + 1) * observation),
            Rows::Bytes(rows) => rows.truncate((steps + 1) * observation),
        }
        self.actions.truncate(steps * action);
        self.rewards.truncate(steps);
        self.terminated.truncate(steps);
        self.truncated.truncate(steps);
        self.truncated.iter_mut().last().into_iter().for_each(|last| *last = true);
    }

    /// The sum of its rewards, not discounted.
    pub fn total_reward(&self) -> f64 {
        self.rewards.iter().sum()
    }
}

impl Dataset {
    /// How many transitions there are.
    pub fn len(&self) -> usize {
        self.episodes.iter().map(Episode::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every episode's return, not discounted, in the order of `episodes`.
    pub fn returns(&self) -> Vec<f64> {
        self.episodes.iter().map(Episode::total_reward).collect()
    }

    /// Leaves out all steps after the first `steps`; the episode of the last one ends there, truncated.
    pub fn cut_after(&mut self, steps: usize) {
        let widths = [self.observation.width(), self.action.width()];
        let mut left = steps;
        for episode in &mut self.episodes {
            let keep = left.min(episode.len());
            left -= keep;
            if keep < episode.len() {
                episode.cut_after(keep, widths);
            }
        }
        self.episodes.retain(|episode| !episode.is_empty());
    }

    /// All steps, episode by episode.
    pub fn transitions(&self) -> impl Iterator<Item = Transition<'_>> {
        self.episodes.iter().flat_map(|episode| self.transitions_of(episode))
    }

    /// The steps of one of this dataset's episodes.
    pub fn transitions_of<'a>(&'a self, episode: &'a Episode) -> impl Iterator<Item = Transition<'a>> {
        let (seen, width) = (&episode.observations, self.observation.width().max(1));
        let actions = episode.actions.chunks_exact(self.action.width().max(1));
        let ends = episode.terminated.iter().zip(&episode.truncated);
        let rows = (seen.len() / width).saturating_sub(1);
        (0..rows).zip(actions).zip(&episode.rewards).zip(ends).map(
            move |(((step, action), &reward), (&terminated, &truncated))| Transition {
                observation: seen.row(step, width),
                action: element(&self.action, action),
                reward,
                next_observation: seen.row(step + 1, width),
                terminated,
                truncated,
            },
        )
    }

    /// Checks that a learner can take it as it is: valid spaces, at least one episode, each with a step, arrays of
    /// lengths that agree, finite numbers, actions and discrete observations inside their spaces, ends at ends.
    ///
    /// # Errors
    /// The first thing that is wrong, with its episode and row.
    pub fn check(&self) -> Result<(), DataError> {
        for (what, space) in [("observation", &self.observation), ("action", &self.action)] {
            space.validate().map_err(|source| DataError::Space { what, source })?;
        }
        if self.episodes.is_empty() {
            return Err(DataError::Empty);
        }
        self.episodes.iter().enumerate().try_for_each(|(number, episode)| self.check_episode(number, episode))
    }

    /// [`Dataset::check`], and that it is a dataset for an environment with these spaces: the same kind and size, the
    /// bounds of actions equal where the dataset knows them, and every action in the environment's space. Bounds of
    /// observations may differ; environments of one name have declared them differently over time.
    ///
    /// # Errors
    /// [`DataError::SpaceMismatch`], [`DataError::Outside`], and everything [`Dataset::check`] finds.
    pub fn fits(&self, observation: &Space, action: &Space) -> Result<(), DataError> {
        self.check()?;
        let mismatch = |what, expected: &Space, got: &Space| DataError::SpaceMismatch {
            what,
            expected: in_words(expected),
            got: in_words(got),
        };
        if !same_size(observation, &self.observation) {
            return Err(mismatch("observation", observation, &self.observation));
        }
        if !same_size(action, &self.action) || !same_bounds(action, &self.action) {
            return Err(mismatch("action", action, &self.action));
        }
        for (number, episode) in self.episodes.iter().enumerate() {
            check_inside(number, "action", action, &episode.actions)?;
        }
        Ok(())
    }

    /// Cuts continuous actions to this space, where they leave it by less than the width of a component's range: by a rounding, or
    /// because whoever played left it to the environment to clip. What lies farther outside is of other units, stays, and is refused
    /// by [`Dataset::check`] or [`Dataset::fits`]. What was cut is counted in the metadata.
    pub fn clip_actions(&mut self, action: &Space) {
        let Space::Box { low, high } = action else { return };
        let clipped = &mut self.metadata.clipped;
        for row in self.episodes.iter_mut().flat_map(|e| e.actions.chunks_exact_mut(low.len().max(1))) {
            let mut outside: f32 = 0.0;
            for (x, (&low, &high)) in row.iter_mut().zip(low.iter().zip(high)) {
                let distance = (low - *x).max(*x - high);
                let room =
                    if low.is_finite() && high.is_finite() { high - low } else { within(x.abs(), 1.0, 1e6) };
                if distance > 0.0 && distance <= room {
                    outside = outside.max(distance);
                    *x = within(*x, low, high);
                }
            }
            if outside > 0.0 {
                clipped.actions += 1;
                clipped.farthest = clipped.farthest.max(outside);
            }
        }
    }

    /// The same with one-hot observations where they are discrete: what a network sees, and an environment of Gymnasium's shows here.
    ///
    /// # Errors
    /// [`DataError::TooLarge`] where these would be too many numbers.
    pub fn one_hot(mut self) -> Result<Self, DataError> {
        let Space::Discrete { n } = self.observation else { return Ok(self) };
        let tree = SpaceTree::Discrete { n, start: 0 };
        flatten_observations(&tree, &mut self.episodes)?;
        self.observation = tree.flat();
        Ok(self)
    }

    /// The dataset for an environment with these spaces, and with these before they are flattened, where they have several parts:
    /// parts in the environment's order, actions within their range, a discrete observation as a row.
    ///
    /// # Errors
    /// Other spaces.
    pub fn fitted(
        mut self,
        [observation, action]: [&Space; 2],
        parts: Option<[&SpaceTree; 2]>,
    ) -> Result<Self, DataError> {
        if let Some(parts) = parts {
            self = self.arranged(parts)?;
        }
        self.clip_actions(action);
        let fitted = self.one_hot()?;
        fitted.fits(observation, action)?;
        Ok(fitted)
    }

    /// The same with parts in the order of an environment with these spaces of observations and actions. Minari sorts the names of a
    /// dictionary, an environment may have another order, and rows of one order mean nothing in another.
    ///
    /// # Errors
    /// [`DataError::SpaceMismatch`] where the parts have other names or sizes.
    pub fn arranged(mut self, [observation, action]: [&SpaceTree; 2]) -> Result<Self, DataError> {
        let mismatch = |what, expected: &SpaceTree, got: &SpaceTree| DataError::SpaceMismatch {
            what,
            expected: parts_in_words(expected),
            got: parts_in_words(got),
        };
        let have_parts = |space: &SpaceTree| matches!(space, SpaceTree::Dict(_) | SpaceTree::Tuple(_));
        let [seen, done] = self.metadata.parts.clone();
        if let Some(own) = seen.filter(|own| have_parts(own) && have_parts(observation)) {
            let columns =
                own.columns_of(observation).ok_or_else(|| mismatch("observation", observation, &own))?;
            let moved = |row: &[f32]| columns.iter().map(|place| row[*place]).collect::<Vec<_>>();
            if let Space::Box { low, high } = &mut self.observation {
                [*low, *high] = [moved(low), moved(high)];
            }
            for episode in &mut self.episodes {
                if let Rows::Numbers(rows) = &mut episode.observations {
                    let width = columns.len().max(1);
                    rows.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(&moved(row)));
                }
            }
            self.metadata.parts[0] = Some(observation.clone());
        }
        if let Some(own) = done.filter(|own| have_parts(own) && have_parts(action)) {
            match &mut self.action {
                Space::Discrete { .. } => {
                    let numbers = own.combinations_of(action);
                    let numbers = numbers.ok_or_else(|| mismatch("action", action, &own))?;
                    for choice in self.episodes.iter_mut().flat_map(|episode| &mut episode.actions) {
                        // What is no choice stays, and is refused where the dataset is checked.
                        *choice = numbers.get(*choice as usize).map_or(*choice, |number| *number as f32);
                    }
                }
                Space::Box { low, high } => {
                    let columns = own.columns_of(action).ok_or_else(|| mismatch("action", action, &own))?;
                    let moved = |row: &[f32]| columns.iter().map(|place| row[*place]).collect::<Vec<_>>();
                    [*low, *high] = [moved(low), moved(high)];
                    let width = columns.len().max(1);
                    let actions = self.episodes.iter_mut().map(|episode| &mut episode.actions);
                    let rows = actions.flat_map(|actions| actions.chunks_exact_mut(width));
                    rows.for_each(|row| row.copy_from_slice(&moved(row)));
                }
            }
            self.metadata.parts[1] = Some(action.clone());
        }
        Ok(self)
    }

    fn check_episode(&self, number: usize, episode: &Episode) -> Result<(), DataError> {
        let steps = episode.len();
        if steps == 0 {
            return Err(DataError::EmptyEpisode { episode: number });
        }
        let lengths = [
            (
                "observations",
                (steps + 1).saturating_mul(self.observation.width()),
                episode.observations.len(),
            ),
            ("actions", steps.saturating_mul(self.action.width()), episode.actions.len()),
            ("terminations", steps, episode.terminated.len()),
            ("truncations", steps, episode.truncated.len()),
        ];
        for (what, expected, got) in lengths {
            if expected != got {
                return Err(DataError::Length { episode: number, steps, what, expected, got });
            }
        }
        if let Rows::Numbers(numbers) = &episode.observations {
            check_finite(number, "observation", numbers, self.observation.width())?;
        }
        check_finite(number, "action", &episode.actions, self.action.width())?;
        if let Some(row) = episode.rewards.iter().position(|reward| !reward.is_finite()) {
            let value = episode.rewards[row];
            return Err(DataError::NotFinite { episode: number, row, what: "the reward".into(), value });
        }
        if let Space::Discrete { .. } = self.observation {
            check_inside(number, "observation", &self.observation, &episode.observations.numbers())?;
        }
        check_inside(number, "action", &self.action, &episode.actions)?;
        let ends = episode.terminated.iter().zip(&episode.truncated);
        match ends.into_iter().position(|(terminated, truncated)| *terminated || *truncated) {
            Some(row) if row + 1 == steps => Ok(()),
            Some(row) => Err(DataError::EndInside { episode: number, row, rest: steps - 1 - row }),
            None => Err(DataError::NoEnd { episode: number }),
        }
    }
}

/// Flattens the observations of these episodes, whose rows are elements of `tree`.
pub(crate) fn flatten_observations(tree: &SpaceTree, episodes: &mut [Episode]) -> Result<(), DataError> {
    let (numbers, width) = (tree.numbers().max(1), tree.width());
    let rows = |episode: &Episode| episode.observations.len() / numbers;
    let found = episodes.iter().map(rows).sum::<usize>() as u64 * width as u64;
    if found > MAX_NUMBERS {
        let what = "the observations, flattened".into();
        return Err(DataError::TooLarge { what, found, max: MAX_NUMBERS, unit: "numbers" });
    }
    let mut element = vec![0.0; numbers];
    for (number, episode) in episodes.iter_mut().enumerate() {
        let mut flat = vec![0.0; rows(episode) * width];
        let seen = episode.observations.numbers();
        for (row, (from, to)) in seen.chunks_exact(numbers).zip(flat.chunks_exact_mut(width)).enumerate() {
            element.iter_mut().zip(from).for_each(|(to, from)| *to = f64::from(*from));
            let refused = |source| DataError::Element { episode: number, row, source };
            tree.flatten(&element, to).map_err(refused)?;
        }
        episode.observations = flat.into();
    }
    Ok(())
}

/// A space of several parts for a message: their names and sizes.
fn parts_in_words(space: &SpaceTree) -> String {
    let listed = |parts: Vec<String>| match parts.len() {
        0..=16 => parts.join(", "),
        more => format!("{}, ... ({more} parts)", parts[..16].join(", ")),
    };
    match space {
        SpaceTree::Dict(parts) => {
            let part = |(name, part): &(String, SpaceTree)| {
                let name: String = name.chars().take(40).collect();
                format!("{name:?} of {}", part.width())
            };
            format!("a dictionary of {}", listed(parts.iter().map(part).collect()))
        }
        SpaceTree::Tuple(parts) => {
            let part = |part: &SpaceTree| part.width().to_string();
            format!("a tuple of parts of {} numbers", listed(parts.iter().map(part).collect()))
        }
        other => format!("{} numbers", other.width()),
    }
}

/// A row of numbers as an element of `space`.
fn element<'a>(space: &Space, row: &'a [f32]) -> Action<'a> {
    match space {
        Space::Discrete { .. } => Action::Discrete(row[0] as u32),
        Space::Box { .. } => Action::Continuous(row),
    }
}

fn check_finite(episode: usize, what: &str, rows: &[f32], width: usize) -> Result<(), DataError> {
    match rows.iter().position(|number| !number.is_finite()) {
        Some(at) => Err(DataError::NotFinite {
            episode,
            row: at / width,
            what: format!("component {} of the {what}", at % width),
            value: rows[at].into(),
        }),
        None => Ok(()),
    }
}

fn check_inside(episode: usize, what: &'static str, space: &Space, rows: &[f32]) -> Result<(), DataError> {
    let inside = |row: &[f32]| match space {
        Space::Discrete { n } => row[0] >= 0.0 && row[0] < *n as f32 && row[0].fract() == 0.0,
        Space::Box { .. } => space.contains(Action::Continuous(row)),
    };
    match rows.chunks_exact(space.width()).position(|row| !inside(row)) {
        Some(row) => Err(DataError::Outside {
            episode,
            row,
            what,
            got: rows[row * space.width()..].iter().take(space.width().min(8)).copied().collect(),
            space: in_words(space),
        }),
        None => Ok(()),
    }
}

fn same_size(expected: &Space, got: &Space) -> bool {
    match (expected, got) {
        (Space::Discrete { n: expected }, Space::Discrete { n: got }) => expected == got,
        (Space::Box { .. }, Space::Box { .. }) => expected.width() == got.width(),
        _ => false,
    }
}

/// Whether the bounds that `got` knows are those of `expected`.
fn same_bounds(expected: &Space, got: &Space) -> bool {
    let (Space::Box { low, high }, Space::Box { low: got_low, high: got_high }) = (expected, got) else {
        return true;
    };
    let agree = |(expected, got): (&f32, &f32)| got.is_infinite() || expected == got;
    low.iter().zip(got_low).all(agree) && high.iter().zip(got_high).all(agree)
}

/// A space as errors and reports name it: `one of 2 choices`, `1 number from -3 to 3`, `4 numbers`.
pub(crate) fn in_words(space: &Space) -> String {
    let (low, high) = match space {
        Space::Discrete { n } => return format!("one of {n} choices"),
        Space::Box { low, high } => (low, high),
    };
    let numbers = if low.len() == 1 { "1 number".into() } else { format!("{} numbers", low.len()) };
    let same = |bounds: &[f32]| bounds.iter().all(|bound| *bound == bounds[0]);
    match (low.first(), high.first()) {
        (Some(first), Some(last)) if same(low) && same(high) && (first.is_finite() || last.is_finite()) => {
            format!("{numbers} from {first} to {last}")
        }
        _ if low.iter().chain(high).any(|bound| bound.is_finite()) => {
            format!("{numbers} with a range for each")
        }
        _ => numbers,
    }
}

//! What a buffer's transitions saw: as numbers, or where observations are images of bytes each different image once. A stack of
//! four images shares three of them with the next one, and a transition's second observation is mostly another one's first: seven
//! kilobytes a transition of an Atari game are left of 226.

use std::collections::{TryReserveError, VecDeque};

/// Both observations of every transition, by the transition's place in a ring.
#[derive(Clone, Debug)]
pub enum Observations {
    /// `[places, width]` of each kind.
    Numbers {
        /// Numbers of an observation.
        width: usize,
        /// The transitions' own observations.
        first: Vec<f32>,
        /// The observations they lead to.
        next: Vec<f32>,
    },
    /// See [`Images`].
    Images(Images),
}

/// Images of bytes, counted by the transitions that show them.
#[derive(Clone, Debug)]
pub struct Images {
    /// Images in an observation, and bytes in each.
    count: usize,
    size: usize,
    /// `[images, size]`.
    bytes: Vec<u8>,
    /// How often each image is shown; 0 where its place is free.
    shown: Vec<u32>,
    free: Vec<u32>,
    /// `[places, 2, count]`: which images make the first observation and the next one.
    images: Vec<u32>,
    /// Images stored last: what a new observation may share.
    recent: VecDeque<u32>,
    /// One image as bytes.
    room: Vec<u8>,
}

/// Everything of observations that a checkpoint keeps, by name.
pub type Arrays = Vec<(&'static str, Vec<f32>)>;

impl Observations {
    /// Observations of `width` numbers; with `images` they are so many images, whose numbers are bytes.
    pub fn new(width: usize, images: Option<usize>) -> Self {
        match images {
            None => Self::Numbers { width, first: Vec::new(), next: Vec::new() },
            Some(count) => Self::Images(Images {
                count,
                size: width / count.max(1),
                bytes: Vec::new(),
                shown: Vec::new(),
                free: Vec::new(),
                images: Vec::new(),
                recent: VecDeque::new(),
                room: Vec::new(),
            }),
        }
    }

    /// Makes room for so many transitions more, of `capacity` at most.
    pub(crate) fn make_room(&mut self, transitions: usize, capacity: usize) -> Result<(), TryReserveError> {
        match self {
            Self::Numbers { width, first, next } => [first, next]
                .into_iter()
                .try_for_each(|all| grow(all, transitions * *width, capacity * *width)),
            Self::Images(images) => images.make_room(transitions, capacity),
        }
    }

    /// How many bytes so many transitions take. Of images each is counted once for its transition, as in a game whose stacks overlap.
    pub(crate) fn bytes(&self, transitions: u64) -> u64 {
        let (width, shared) = match self {
            Self::Numbers { width, .. } => (8 * *width, 0),
            Self::Images(images) => (images.size, 8 * images.count + 8),
        };
        transitions.saturating_mul((width + shared) as u64)
    }

    /// None yet, of the same kind.
    pub(crate) fn empty(&self) -> Self {
        match self {
            Self::Numbers { width, .. } => Self::new(*width, None),
            Self::Images(images) => Self::new(images.size * images.count, Some(images.count)),
        }
    }

    /// Stores both observations of the transition at `at`: an old place, or the first one beyond them.
    pub fn put(&mut self, at: usize, observation: &[f32], next_observation: &[f32]) {
        match self {
            Self::Numbers { width, first, next } => {
                for (all, new) in [(first, observation), (next, next_observation)] {
                    if all.len() == at * *width {
                        all.extend_from_slice(new);
                    } else {
                        all[at * *width..(at + 1) * *width].copy_from_slice(new);
                    }
                }
            }
            Self::Images(images) => images.put(at, observation, next_observation),
        }
    }

    /// The first observation of the transition at `at`; `room` is for where it has to be put together.
    pub fn first<'a>(&'a self, at: usize, room: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Self::Numbers { width, first, .. } => &first[at * width..(at + 1) * width],
            Self::Images(images) => {
                room.clear();
                images.show(at, 0, room);
                room
            }
        }
    }

    /// Both observations of the transitions at these places, `[places, width]` each.
    pub fn gather(&self, places: &[usize], first: &mut Vec<f32>, next: &mut Vec<f32>) {
        first.clear();
        next.clear();
        self.append(places, first, next);
    }

    /// Appends both observations of the transitions at these places.
    pub(crate) fn append(&self, places: &[usize], first: &mut Vec<f32>, next: &mut Vec<f32>) {
        for (which, to) in [first, next].into_iter().enumerate() {
            match self {
                Self::Numbers { width, first, next } => {
                    let from = [first, next][which];
                    places.iter().for_each(|at| to.extend_from_slice(&from[at * width..(at + 1) * width]));
                }
                Self::Images(images) => places.iter().for_each(|at| images.show(*at, which, to)),
            }
        }
    }

    /// The contents for a checkpoint.
    pub fn save(&self) -> Arrays {
        match self {
            Self::Numbers { first, next, .. } => {
                vec![("replay.observation", first.clone()), ("replay.next_observation", next.clone())]
            }
            Self::Images(images) => images.save(),
        }
    }

    /// Checks that the numbers are finite; images of bytes always are.
    ///
    /// # Errors
    /// Says what the first wrong number is and where it lies.
    pub fn check(&self) -> Result<(), String> {
        let Self::Numbers { width, first, next } = self else { return Ok(()) };
        for (name, values) in [("observation", first), ("next_observation", next)] {
            if let Some(at) = values.iter().position(|x| !x.is_finite()) {
                let (row, value) = (at / width, oto_json::shown(&values[at]));
                return Err(format!("replay.{name}: row {row} holds {value}, expected a finite number"));
            }
        }
        Ok(())
    }

    /// Puts saved contents of so many transitions back; `None` where they do not fit.
    pub fn restored(
        &self,
        transitions: usize,
        mut array: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Option<Self> {
        match self {
            Self::Numbers { width, .. } => {
                let (first, next) = (array("replay.observation")?, array("replay.next_observation")?);
                let fits = first.len() == transitions * width && next.len() == first.len();
                fits.then_some(Self::Numbers { width: *width, first, next })
            }
            Self::Images(images) => images.restored(transitions, array).map(Self::Images),
        }
    }
}

/// Bytes in a number of a checkpoint: whole numbers up to 2^24 are exact in float32.
const PACKED: usize = 3;

/// Memory that a growing buffer leaves for everything else, in bytes.
const HEADROOM: usize = 16 << 20;

/// Makes room for `more` elements: doubles, as far as `most`, or where memory is short adds a sixteenth.
pub(crate) fn grow<T>(list: &mut Vec<T>, more: usize, most: usize) -> Result<(), TryReserveError> {
    if list.capacity() - list.len() >= more {
        return Ok(());
    }
    let doubled = list.len().min(most.saturating_sub(list.len()));
    add(list, more.max(doubled)).or_else(|_| add(list, more.max(doubled.min(list.len() / 16))))
}

fn add<T>(list: &mut Vec<T>, more: usize) -> Result<(), TryReserveError> {
    let bytes = list.len().saturating_add(more).saturating_mul(size_of::<T>());
    Vec::<u8>::new().try_reserve_exact(bytes.saturating_add(HEADROOM))?;
    list.try_reserve_exact(more)
}

impl Images {
    /// All images of new transitions may be new ones, also where they take the place of older ones.
    fn make_room(&mut self, transitions: usize, capacity: usize) -> Result<(), TryReserveError> {
        let (more, most) = (2 * self.count * transitions, 2 * self.count * capacity);
        grow(&mut self.images, more, most)?;
        grow(&mut self.shown, more, most)?;
        grow(&mut self.free, more, most)?;
        grow(&mut self.bytes, more * self.size, most * self.size)
    }

    fn put(&mut self, at: usize, observation: &[f32], next_observation: &[f32]) {
        let places = 2 * self.count;
        if self.images.len() > at * places {
            for i in at * places..(at + 1) * places {
                self.release(self.images[i]);
            }
        } else {
            self.images.resize((at + 1) * places, 0);
        }
        let size = self.size;
        let stack = observation.chunks_exact(size).chain(next_observation.chunks_exact(size));
        for (i, image) in stack.enumerate() {
            self.images[at * places + i] = self.store(image);
        }
    }

    /// The place of an image: that of an equal one stored lately, or a new one.
    fn store(&mut self, image: &[f32]) -> u32 {
        self.room.clear();
        self.room.extend(image.iter().map(|x| *x as u8));
        let bytes = |i: u32| &self.bytes[i as usize * self.size..][..self.size];
        let known =
            self.recent.iter().rev().find(|i| self.shown[**i as usize] > 0 && bytes(**i) == self.room);
        if let Some(known) = known {
            self.shown[*known as usize] += 1;
            return *known;
        }
        let new = self.free.pop().unwrap_or(self.shown.len() as u32);
        let at = new as usize * self.size;
        if at == self.bytes.len() {
            self.bytes.extend_from_slice(&self.room);
            self.shown.push(1);
        } else {
            self.bytes[at..at + self.size].copy_from_slice(&self.room);
            self.shown[new as usize] = 1;
        }
        self.recent.push_back(new);
        if self.recent.len() > RECENT.max(2 * self.count) {
            self.recent.pop_front();
        }
        new
    }

    fn release(&mut self, image: u32) {
        self.shown[image as usize] -= 1;
        if self.shown[image as usize] == 0 {
            self.free.push(image);
        }
    }

    /// Appends the first (0) or the next (1) observation of a transition.
    fn show(&self, at: usize, which: usize, to: &mut Vec<f32>) {
        for image in &self.images[(2 * at + which) * self.count..][..self.count] {
            let bytes = &self.bytes[*image as usize * self.size..][..self.size];
            to.extend(bytes.iter().map(|byte| f32::from(*byte)));
        }
    }

    fn save(&self) -> Arrays {
        let pack = |bytes: &[u8]| bytes.iter().rev().fold(0.0, |sum, byte| sum * 256.0 + f32::from(*byte));
        let recent = self.recent.iter().filter(|i| self.shown[**i as usize] > 0);
        vec![
            ("replay.images", self.bytes.chunks(PACKED).map(pack).collect()),
            ("replay.shown", self.images.iter().map(|i| *i as f32).collect()),
            ("replay.recent", recent.map(|i| *i as f32).collect()),
        ]
    }

    fn restored(&self, transitions: usize, mut array: impl FnMut(&str) -> Option<Vec<f32>>) -> Option<Self> {
        let index = |x: f32| (x.fract() == 0.0 && (0.0..16_777_216.0).contains(&x)).then_some(x as u32);
        let indices = |numbers: Vec<f32>| numbers.into_iter().map(index).collect::<Option<Vec<u32>>>();
        let packed = indices(array("replay.images")?)?;
        let images = indices(array("replay.shown")?)?;
        let recent = indices(array("replay.recent")?)?;
        let mut bytes: Vec<u8> =
            packed.iter().flat_map(|x| x.to_le_bytes().into_iter().take(PACKED)).collect();
        // The last number may be filled up.
        bytes.truncate(bytes.len() / self.size * self.size);
        let count = bytes.len() / self.size;
        let inside = images.iter().chain(&recent).all(|i| (*i as usize) < count);
        if !inside || images.len() != transitions * 2 * self.count {
            return None;
        }
        let mut shown = vec![0; count];
        images.iter().for_each(|i| shown[*i as usize] += 1);
        let free = (0..count as u32).filter(|i| shown[*i as usize] == 0).collect();
        let recent = recent.into_iter().collect();
        Some(Self { bytes, shown, free, images, recent, room: Vec::new(), ..*self })
    }
}

/// How many images back a new observation is compared with, at least: enough for transitions of a few steps. Images of longer ones
/// are kept twice.
const RECENT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_grows_by_doubling_as_far_as_it_may_and_says_where_there_is_no_memory() {
        let mut list = vec![0u8; 0];
        let mut grown = Vec::new();
        for _ in 0..100 {
            let before = list.capacity();
            grow(&mut list, 3, 100).unwrap();
            assert!(list.capacity() >= list.len() + 3);
            if list.capacity() > before {
                grown.push(list.capacity());
            }
            list.push(0);
        }
        assert!(grown.len() < 16 && grown.iter().all(|c| *c <= 103), "{grown:?}");
        let (before, held) = (list.capacity(), list.len());
        assert!(grow(&mut list, usize::MAX, usize::MAX).is_err());
        assert_eq!((list.capacity(), list.len()), (before, held));
    }

    /// An observation of two images of two bytes.
    fn stack(a: u8, b: u8) -> Vec<f32> {
        [a, a + 1, b, b + 1].map(f32::from).to_vec()
    }

    fn images(o: &Observations) -> &Images {
        let Observations::Images(images) = o else { panic!("images were asked for") };
        images
    }

    /// A ring of three places after so many steps: stacks (0, 0), (0, 1), (1, 2), ... of images.
    fn after(steps: usize) -> Observations {
        let mut o = Observations::new(4, Some(2));
        let seen = |t: usize| stack(t.saturating_sub(1) as u8 * 2, t as u8 * 2);
        (0..steps).for_each(|t| o.put(t % 3, &seen(t), &seen(t + 1)));
        o
    }

    #[test]
    fn each_image_is_kept_once_and_comes_back() {
        for steps in 1..9 {
            let o = after(steps);
            let held = steps.min(3);
            let (mut first, mut next, mut room) = (Vec::new(), Vec::new(), Vec::new());
            for t in steps - held..steps {
                o.gather(&[t % 3], &mut first, &mut next);
                assert_eq!(first, stack(t.saturating_sub(1) as u8 * 2, t as u8 * 2));
                assert_eq!(next, stack(t as u8 * 2, t as u8 * 2 + 2));
                assert_eq!(o.first(t % 3, &mut room), first);
            }
            let kept = images(&o).shown.iter().filter(|shown| **shown > 0).count();
            assert_eq!(kept, held + if steps > 3 { 2 } else { 1 }, "after {steps} steps");
            assert!(images(&o).shown.len() <= 6, "places are used again");
        }
    }

    #[test]
    fn restored_is_what_was_saved_and_misfits_are_refused() {
        for steps in [0, 1, 2, 7] {
            let o = after(steps);
            let arrays = o.save();
            let find = |name: &str| arrays.iter().find(|(n, _)| *n == name).map(|(_, a)| a.clone());
            let empty = Observations::new(4, Some(2));
            let mut back = empty.restored(steps.min(3), find).unwrap();
            assert_eq!(back.save(), arrays);
            back.put(steps % 3, &stack(9, 9), &stack(9, 7));
            let mut room = Vec::new();
            assert_eq!(back.first(steps % 3, &mut room), stack(9, 9));
            assert!(empty.restored(steps.min(3) + 1, find).is_none());
            assert!(empty.restored(steps.min(3), |_| None).is_none());
            let beyond =
                |name: &str| find(name).map(|a| if name == "replay.recent" { vec![99.0] } else { a });
            assert!(empty.restored(steps.min(3), beyond).is_none());
        }
    }
}

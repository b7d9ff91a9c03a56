//! Many copies of one environment, stepped together into flat buffers.

use crate::{Action, EnvError, Environment, Space};

/// One action for each copy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Actions<'a> {
    /// `[copies]` choices.
    Discrete(&'a [u32]),
    /// `[copies, width]` numbers, row-major.
    Continuous(&'a [f32]),
}

/// Copies of one environment, stepped together. Nothing is allocated after [`VectorEnv::new`].
///
/// Episodes restart by themselves in Gymnasium's mode `AutoresetMode.SAME_STEP`: the step that ends a copy's episode also
/// resets that copy (without a seed), [`VectorEnv::observations`] then has the new episode's first observation and
/// [`VectorEnv::final_observations`] the last one of the old.
pub struct VectorEnv {
    copies: Vec<Box<dyn Environment>>,
    width: usize,
    action_width: usize,
    observations: Vec<f32>,
    final_observations: Vec<f32>,
    rewards: Vec<f64>,
    terminated: Vec<bool>,
    truncated: Vec<bool>,
}

impl VectorEnv {
    /// `count` copies (at least one) made by `make`, which must give the same spaces each time.
    ///
    /// # Errors
    /// What `make` says; [`EnvError::External`] for no copy at all or copies with different spaces.
    pub fn new(
        count: usize,
        mut make: impl FnMut() -> Result<Box<dyn Environment>, EnvError>,
    ) -> Result<Self, EnvError> {
        let first = make()?;
        let (width, action_width) = (first.observation_space().width(), first.action_space().width());
        let size = count.checked_mul(width).ok_or_else(|| EnvError::External("too many copies".into()))?;
        let mut copies = vec![first];
        while copies.len() < count {
            copies.push(make()?);
        }
        let same = copies.iter().all(|copy| {
            copy.observation_space() == copies[0].observation_space()
                && copy.action_space() == copies[0].action_space()
        });
        if count == 0 || !same {
            return Err(EnvError::External("expected at least one copy, all with the same spaces".into()));
        }
        Ok(Self {
            copies,
            width,
            action_width,
            observations: vec![0.0; size],
            final_observations: vec![0.0; size],
            rewards: vec![0.0; count],
            terminated: vec![false; count],
            truncated: vec![false; count],
        })
    }

    /// How many copies there are.
    pub fn len(&self) -> usize {
        self.copies.len()
    }

    /// Never true; there is at least one copy.
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// What one copy's observations look like.
    pub fn observation_space(&self) -> &Space {
        self.copies[0].observation_space()
    }

    /// What one copy's actions look like.
    pub fn action_space(&self) -> &Space {
        self.copies[0].action_space()
    }

    /// The copies themselves, to save and restore them one by one.
    pub fn copies_mut(&mut self) -> &mut [Box<dyn Environment>] {
        &mut self.copies
    }

    /// `[copies, width]`: where each copy stands now.
    pub fn observations(&self) -> &[f32] {
        &self.observations
    }

    /// `[copies, width]`: for a copy whose episode ended in the last step its final observation, otherwise where it stands now.
    pub fn final_observations(&self) -> &[f32] {
        &self.final_observations
    }

    /// `[copies]`: the rewards of the last step.
    pub fn rewards(&self) -> &[f64] {
        &self.rewards
    }

    /// `[copies]`: whose episode terminated in the last step.
    pub fn terminated(&self) -> &[bool] {
        &self.terminated
    }

    /// `[copies]`: whose episode was truncated in the last step.
    pub fn truncated(&self) -> &[bool] {
        &self.truncated
    }

    /// Resets all copies. As in Gymnasium copy `i` is seeded with `seed + i` (wrapping), or goes on with its own generator.
    ///
    /// # Errors
    /// [`EnvError::Copy`], which names the first copy that refused; those before it are reset.
    pub fn reset(&mut self, seed: Option<u64>) -> Result<(), EnvError> {
        for (index, (copy, row)) in rows(&mut self.copies, &mut self.observations, self.width).enumerate() {
            let seed = seed.map(|seed| seed.wrapping_add(index as u64));
            copy.reset(seed, row).map_err(|source| of_copy(index, source))?;
        }
        self.final_observations.copy_from_slice(&self.observations);
        self.rewards.fill(0.0);
        self.terminated.fill(false);
        self.truncated.fill(false);
        Ok(())
    }

    /// Steps every copy once and restarts those whose episode ended.
    ///
    /// # Errors
    /// [`EnvError::ActionKind`] or [`EnvError::ActionLength`] for the whole; [`EnvError::Copy`] for one copy's action: all
    /// actions are checked before any copy moves. A copy that refuses for a reason of its own (an environment
    /// outside this crate) leaves those before it stepped.
    pub fn step(&mut self, actions: Actions<'_>) -> Result<(), EnvError> {
        let expected = self.copies.len() * self.action_width;
        let got = match actions {
            Actions::Discrete(choices) => choices.len(),
            Actions::Continuous(vectors) => vectors.len(),
        };
        if got != expected {
            return Err(EnvError::ActionLength { expected, got });
        }
        let width = self.action_width;
        let action = |index: usize| match actions {
            Actions::Discrete(choices) => Action::Discrete(choices[index]),
            Actions::Continuous(vectors) => Action::Continuous(&vectors[index * width..][..width]),
        };
        for (index, copy) in self.copies.iter().enumerate() {
            copy.action_space().check_action(action(index)).map_err(|source| of_copy(index, source))?;
        }
        for (index, (copy, row)) in rows(&mut self.copies, &mut self.observations, self.width).enumerate() {
            let step = copy.step(action(index), row).map_err(|source| of_copy(index, source))?;
            self.rewards[index] = step.reward;
            self.terminated[index] = step.terminated;
            self.truncated[index] = step.truncated;
            self.final_observations[index * self.width..][..self.width].copy_from_slice(row);
            if step.done() {
                copy.reset(None, row).map_err(|source| of_copy(index, source))?;
            }
        }
        Ok(())
    }
}

fn rows<'a>(
    copies: &'a mut [Box<dyn Environment>],
    observations: &'a mut [f32],
    width: usize,
) -> impl Iterator<Item = (&'a mut Box<dyn Environment>, &'a mut [f32])> {
    copies.iter_mut().zip(observations.chunks_exact_mut(width))
}

fn of_copy(index: usize, source: EnvError) -> EnvError {
    EnvError::Copy { index, source: Box::new(source) }
}

//! Episodes as they are played.

use crate::hdf5::MAX_NUMBERS;
use crate::{DataError, Dataset, Episode, Metadata, Rows};
use oto_env::{Action, Space, Step};

/// Makes a dataset of what somebody else plays: [`Recorder::reset`] at each episode's begin, then [`Recorder::step`].
#[derive(Clone, Debug)]
pub struct Recorder {
    dataset: Dataset,
    /// The running episode; nothing before the first `reset`.
    episode: Option<Episode>,
    steps: usize,
    /// What the steps' observations take.
    bytes: u64,
}

impl Recorder {
    /// A recorder for these spaces.
    pub fn new(observation: Space, action: Space, metadata: Metadata) -> Self {
        let dataset = Dataset { observation, action, episodes: Vec::new(), metadata };
        Self { dataset, episode: None, steps: 0, bytes: 0 }
    }

    /// How many steps were recorded.
    pub fn len(&self) -> usize {
        self.steps
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.steps == 0
    }

    /// An episode begins with this observation `[observation width]`. One that was running is truncated where it is.
    pub fn reset(&mut self, observation: &[f32], seed: Option<u64>) {
        self.cut();
        let mut observations = Rows::of(&self.dataset.observation);
        observations.push(observation);
        self.episode = Some(Episode { observations, seed, ..Episode::default() });
    }

    /// Whether an episode is running.
    pub fn running(&self) -> bool {
        self.episode.is_some()
    }

    /// One step of the running episode: what was done, what it gave, and the observation `[observation width]` after it.
    /// Numbers are looked at by [`Recorder::finish`].
    ///
    /// # Errors
    /// If no episode is running, or a dataset cannot have so many numbers.
    pub fn step(
        &mut self,
        action: Action<'_>,
        step: &Step,
        next_observation: &[f32],
    ) -> Result<(), DataError> {
        let Some(episode) = &mut self.episode else {
            return Err(DataError::EmptyEpisode { episode: self.dataset.episodes.len() });
        };
        let each = if matches!(episode.observations, Rows::Bytes(_)) { 1 } else { size_of::<f32>() as u64 };
        let (found, max) = (self.bytes.saturating_add(next_observation.len() as u64 * each), MAX_NUMBERS * 4);
        if found > max {
            return Err(DataError::TooLarge { what: "the recording".into(), found, max, unit: "bytes" });
        }
        self.bytes = found;
        match action {
            Action::Discrete(choice) => episode.actions.push(choice as f32),
            Action::Continuous(vector) => episode.actions.extend_from_slice(vector),
        }
        episode.observations.push(next_observation);
        episode.rewards.push(step.reward);
        episode.terminated.push(step.terminated);
        episode.truncated.push(step.truncated);
        self.steps += 1;
        if step.done() {
            self.cut();
        }
        Ok(())
    }

    /// The dataset. An episode that is still running is truncated where it is.
    ///
    /// # Errors
    /// What [`Dataset::check`] finds.
    pub fn finish(mut self) -> Result<Dataset, DataError> {
        self.cut();
        self.dataset.check()?;
        Ok(self.dataset)
    }

    /// The running episode, if there is one, ends here: truncated, unless its last step has ended it.
    pub fn cut(&mut self) {
        let Some(mut episode) = self.episode.take() else { return };
        let (terminated, Some(truncated)) = (episode.terminated.last(), episode.truncated.last_mut()) else {
            return;
        };
        *truncated |= terminated == Some(&false);
        self.dataset.episodes.push(episode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOING: Step = Step { reward: 1.0, terminated: false, truncated: false };

    fn recorder() -> Recorder {
        Recorder::new(Space::uniform(1, -9.0, 9.0), Space::Discrete { n: 3 }, Metadata::default())
    }

    #[test]
    fn episodes_end_where_they_ended_or_were_cut() {
        let mut recorder = recorder();
        recorder.reset(&[0.0], Some(7));
        recorder.step(Action::Discrete(2), &GOING, &[1.0]).unwrap();
        recorder.step(Action::Discrete(1), &Step { terminated: true, ..GOING }, &[2.0]).unwrap();
        // An episode without a step leaves nothing.
        recorder.reset(&[3.0], None);
        recorder.reset(&[4.0], None);
        recorder.step(Action::Discrete(0), &GOING, &[5.0]).unwrap();
        assert_eq!(recorder.len(), 3);
        let dataset = recorder.finish().unwrap();
        assert_eq!(dataset.episodes.len(), 2);
        let [first, second] = &dataset.episodes[..] else { unreachable!() };
        assert_eq!(
            (&first.observations.numbers()[..], &first.actions[..]),
            (&[0.0, 1.0, 2.0][..], &[2.0, 1.0][..])
        );
        assert_eq!((&first.terminated[..], &first.truncated[..]), (&[false, true][..], &[false, false][..]));
        assert_eq!((first.seed, second.seed), (Some(7), None));
        assert_eq!((&second.terminated[..], &second.truncated[..]), (&[false][..], &[true][..]));
    }

    #[test]
    fn what_no_dataset_has_is_refused() {
        assert!(matches!(recorder().finish(), Err(DataError::Empty)));
        let step = recorder().step(Action::Discrete(0), &GOING, &[1.0]);
        assert!(matches!(step, Err(DataError::EmptyEpisode { episode: 0 })));
        let mut other = recorder();
        other.reset(&[0.0], None);
        other.step(Action::Discrete(3), &GOING, &[f32::NAN]).unwrap();
        assert!(matches!(other.finish(), Err(DataError::NotFinite { episode: 0, row: 1, .. })));
    }
}

//! An environment that records what is played in it.

use crate::Recorder;
use oto_env::{Action, EnvError, Environment, Snapshot, Space, Step};
use std::sync::{Arc, Mutex, PoisonError};

/// Passes everything on to another environment, and tells a recorder. After [`Environment::restore`] nothing is recorded
/// before the next episode begins.
pub struct Recorded {
    environment: Box<dyn Environment>,
    recorder: Arc<Mutex<Recorder>>,
}

impl Recorded {
    /// Records all steps in `environment`. `recorder` holds the dataset.
    pub fn new(environment: Box<dyn Environment>, recorder: Arc<Mutex<Recorder>>) -> Self {
        Self { environment, recorder }
    }

    fn tell<T>(&self, tell: impl FnOnce(&mut Recorder) -> T) -> T {
        // A recorder is whole between two calls, whoever panicked elsewhere.
        tell(&mut self.recorder.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Environment for Recorded {
    fn id(&self) -> &str {
        self.environment.id()
    }

    fn observation_space(&self) -> &Space {
        self.environment.observation_space()
    }

    fn action_space(&self) -> &Space {
        self.environment.action_space()
    }

    fn max_episode_steps(&self) -> Option<u32> {
        self.environment.max_episode_steps()
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError> {
        self.environment.reset(seed, observation)?;
        self.tell(|recorder| recorder.reset(observation, seed));
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Result<Step, EnvError> {
        let step = self.environment.step(action, observation)?;
        self.tell(|recorder| match recorder.running() {
            true => recorder.step(action, &step, observation),
            false => Ok(()),
        })
        .map_err(|error| EnvError::External(error.to_string()))?;
        Ok(step)
    }

    fn evaluate(&mut self, on: bool) {
        self.environment.evaluate(on);
    }

    fn info(&self, name: &str) -> Option<f64> {
        self.environment.info(name)
    }

    fn save(&self) -> Result<Snapshot, EnvError> {
        self.environment.save()
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        self.environment.restore(snapshot)?;
        self.tell(Recorder::cut);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metadata;

    #[test]
    fn what_is_played_is_recorded() {
        let environment = oto_env::make("CartPole-v1").unwrap();
        let spaces = (environment.observation_space().clone(), environment.action_space().clone());
        let recorder = Arc::new(Mutex::new(Recorder::new(spaces.0, spaces.1, Metadata::default())));
        let mut environment = Recorded::new(environment, recorder.clone());
        let mut seen = [0.0; 4];
        environment.reset(Some(1), &mut seen).unwrap();
        let begin = seen;
        let saved = environment.save().unwrap();
        environment.step(Action::Discrete(1), &mut seen).unwrap();
        // The episode is cut here; what follows has no beginning.
        environment.restore(&saved).unwrap();
        environment.step(Action::Discrete(0), &mut seen).unwrap();
        while !environment.step(Action::Discrete(0), &mut seen).unwrap().done() {}
        environment.reset(None, &mut seen).unwrap();
        while !environment.step(Action::Discrete(0), &mut seen).unwrap().done() {}
        let dataset = recorder.lock().unwrap().clone().finish().unwrap();
        let [first, second] = &dataset.episodes[..] else { panic!("{} episodes", dataset.episodes.len()) };
        assert_eq!((first.len(), &first.observations.numbers()[..4], first.seed), (1, &begin[..], Some(1)));
        assert_eq!((first.truncated[0], second.terminated.last()), (true, Some(&true)));
        assert!(second.len() > 5 && second.observations.numbers().ends_with(&seen));
    }
}

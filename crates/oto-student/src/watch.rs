//! A student's greedy play, step by step, in an episode apart from its training: for whoever wants to look at it.

use crate::trainer::{TrainError, Trainer};
use oto_env::mobile_cell::CellMap;
use oto_env::{Action, ClassicEnvironment, EnvError, make_classic};

/// A moment of an episode.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scene {
    /// The environment's state, in the order and the units that it documents.
    pub state: Vec<f64>,
    /// Steps so far.
    pub step: u32,
    /// Steps at most.
    pub limit: Option<u32>,
    /// What was done last: the choice, or a vector's components in the environment's units; empty before the first step.
    pub action: Vec<f32>,
    /// What that step was rewarded with.
    pub reward: f64,
    /// All rewards so far.
    pub score: f64,
    /// Whether the episode has ended.
    pub over: bool,
    /// The map, in cell selection.
    pub map: Option<CellMap>,
}

oto_json::json_object! { Scene: written { state, step, limit, action, reward, score as "return", over, map } }

/// An episode to look at.
pub struct Watch {
    world: Box<dyn ClassicEnvironment>,
    observation: Vec<f32>,
    scene: Scene,
}

impl Watch {
    /// The first moment of a seed's episode in a built-in environment.
    ///
    /// # Errors
    /// [`EnvError::UnknownId`].
    pub fn begin(id: &str, seed: u64) -> Result<Self, EnvError> {
        let mut world = make_classic(id)?;
        let mut observation = vec![0.0; world.observation_space().width()];
        world.reset(Some(seed), &mut observation)?;
        let mut watch = Self { world, observation, scene: Scene::default() };
        watch.look();
        Ok(watch)
    }

    /// Lets the student act once.
    ///
    /// # Errors
    /// [`EnvError::EpisodeOver`] after the last step.
    pub fn step(&mut self, trainer: &mut Trainer) -> Result<(), TrainError> {
        let action = trainer.greedy(&self.observation)?;
        self.scene.action = match action {
            Action::Discrete(choice) => vec![choice as f32],
            Action::Continuous(components) => components.to_vec(),
        };
        let step = self.world.step(action, &mut self.observation)?;
        self.scene.reward = step.reward;
        self.scene.score += step.reward;
        self.scene.step += 1;
        self.scene.over = step.done();
        self.look();
        Ok(())
    }

    fn look(&mut self) {
        self.scene.state = self.world.state().to_vec();
        self.scene.limit = self.world.max_episode_steps();
        self.scene.map = CellMap::of(&*self.world).ok();
    }

    /// The moment as it is.
    pub fn scene(&self) -> &Scene {
        &self.scene
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::play;
    use crate::presets;
    use crate::student::{Student, World};

    fn student(id: &str) -> Student {
        let config = presets::student(id);
        Student::new(&config, World::built_in(id).unwrap(), &[], &oto_cpu::Cpu, 0).unwrap()
    }

    #[test]
    fn an_episode_is_the_greedy_one_of_its_seed() {
        for id in ["CartPole-v1", "Pendulum-v1", "MobileCell-5G-v0"] {
            let mut student = student(id);
            let mut watch = Watch::begin(id, 7).unwrap();
            assert_eq!((watch.scene().step, watch.scene().action.len()), (0, 0));
            while !watch.scene().over {
                watch.step(student.trainer()).unwrap();
            }
            let mut world = oto_env::make(id).unwrap();
            let mut observation = vec![0.0; world.observation_space().width()];
            let score = play(&mut *world, Some(7), &mut observation, |world, observation| {
                let action = student.trainer().greedy(observation)?;
                Ok::<_, TrainError>(world.step(action, observation)?)
            });
            let scene = watch.scene();
            assert_eq!(score.unwrap(), scene.score);
            assert_eq!((scene.action.len(), scene.map.is_some()), (1, id.starts_with("MobileCell")));
            assert_eq!(world.save().unwrap().state, scene.state);
            let after = watch.step(student.trainer());
            assert!(matches!(after, Err(TrainError::Environment(EnvError::EpisodeOver))));
        }
    }

    #[test]
    fn a_scene_is_an_object() {
        let mut watch = Watch::begin("CartPole-v1", 1).unwrap();
        watch.step(student("CartPole-v1").trainer()).unwrap();
        let text = oto_json::write(watch.scene());
        let tail = r#""reward":1.0,"return":1.0,"over":false,"map":null}"#;
        assert!(text.contains(r#""step":1,"limit":500,"action":["#) && text.ends_with(tail), "{text}");
        assert!(matches!(Watch::begin("Chess-v0", 1), Err(EnvError::UnknownId { .. })));
    }
}

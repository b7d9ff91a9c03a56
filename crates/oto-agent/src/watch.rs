//! A student's greedy play, step by step, in an episode apart from its training. The policy is frozen for the episode: training
//! does not change what is seen, so that a policy that fails is seen to fail.

use crate::trainer::{TrainError, Trainer, in_units};
use oto_env::mobile_cell::CellMap;
use oto_env::{Action, ClassicEnvironment, EnvError, Space, make_classic};
use oto_rl::engine::LearnError;
use oto_rl::mlp;
use oto_rl::network::Actor;

/// A moment of an episode.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scene {
    /// The environment's state, in the order and the units that it documents.
    pub state: Vec<f64>,
    /// Steps so far.
    pub step: u32,
    /// Steps at most.
    pub limit: Option<u32>,
    /// The environment steps of training that the episode's policy has behind it.
    pub trained: u64,
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

oto_json::json_object! { Scene: written { state, step, limit, trained, action, reward, score as "return", over, map } }

/// A greedy policy as it was at one moment of its training.
struct Frozen {
    actor: Actor,
    /// Whether a continuous action is the tanh of what the network gives.
    squashes: bool,
    space: Space,
    /// The last action from -1 to 1, and in the environment's units.
    action: Vec<f32>,
    units: Vec<f32>,
}

impl Frozen {
    fn of(trainer: &Trainer) -> Self {
        Self {
            actor: trainer.learner.policy(),
            squashes: trainer.learner.squashes(),
            space: trainer.space.clone(),
            action: Vec::new(),
            units: Vec::new(),
        }
    }

    fn act(&mut self, observation: &[f32]) -> Result<Action<'_>, LearnError> {
        let out = self.actor.forward(observation);
        if out.iter().any(|x| x.is_nan()) {
            return Err(LearnError::NoAction);
        }
        if let Space::Discrete { .. } = self.space {
            return Ok(Action::Discrete(mlp::argmax(out) as u32));
        }
        self.action.clear();
        self.action.extend(out.iter().map(|x| if self.squashes { x.tanh() } else { *x }));
        self.units.resize(self.action.len(), 0.0);
        Ok(in_units(&self.space, &self.action, &mut self.units))
    }
}

/// An episode to look at.
pub struct Watch {
    environment: Box<dyn ClassicEnvironment>,
    policy: Frozen,
    observation: Vec<f32>,
    scene: Scene,
}

impl Watch {
    /// The first moment of a seed's episode in a built-in environment, which the student's policy of now plays to its end.
    ///
    /// # Errors
    /// [`EnvError::UnknownId`].
    pub fn begin(id: &str, seed: u64, trainer: &Trainer) -> Result<Self, EnvError> {
        let mut environment = make_classic(id)?;
        environment.evaluate(true);
        let mut observation = vec![0.0; environment.observation_space().width()];
        environment.reset(Some(seed), &mut observation)?;
        let scene = Scene { trained: trainer.steps(), ..Scene::default() };
        let mut watch = Self { environment, policy: Frozen::of(trainer), observation, scene };
        watch.look();
        Ok(watch)
    }

    /// Lets the policy act once.
    ///
    /// # Errors
    /// [`EnvError::EpisodeOver`] after the last step, and a network whose numbers are not finite.
    pub fn step(&mut self) -> Result<(), TrainError> {
        let action = self.policy.act(&self.observation)?;
        self.scene.action = match action {
            Action::Discrete(choice) => vec![choice as f32],
            Action::Continuous(components) => components.to_vec(),
        };
        let step = self.environment.step(action, &mut self.observation)?;
        self.scene.reward = step.reward;
        self.scene.score += step.reward;
        self.scene.step += 1;
        self.scene.over = step.done();
        self.look();
        Ok(())
    }

    fn look(&mut self) {
        self.scene.state = self.environment.state().to_vec();
        self.scene.limit = self.environment.max_episode_steps();
        self.scene.map = CellMap::of(&*self.environment).ok();
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
    use crate::student::{Environments, Student, Tick};
    use oto_rl::algorithms::find;
    use oto_rl::algorithms::sac::SacConfig;

    fn student(id: &str) -> Student {
        let config = presets::student(id);
        Student::new(&config, Environments::built_in(id).unwrap(), &[], &oto_cpu::Cpu, 0).unwrap()
    }

    fn played(watch: &mut Watch) -> f64 {
        while !watch.scene().over {
            watch.step().unwrap();
        }
        watch.scene().score
    }

    #[test]
    fn an_episode_is_the_greedy_one_of_its_seed() {
        for id in ["CartPole-v1", "Pendulum-v1", "MobileCell-5G-v0"] {
            let mut student = student(id);
            let mut watch = Watch::begin(id, 7, student.trainer()).unwrap();
            assert_eq!((watch.scene().step, watch.scene().action.len()), (0, 0));
            played(&mut watch);
            let mut environment = oto_env::make(id).unwrap();
            let mut observation = vec![0.0; environment.observation_space().width()];
            let score = play(&mut *environment, Some(7), &mut observation, |environment, observation| {
                let action = student.trainer().greedy(observation)?;
                Ok::<_, TrainError>(environment.step(action, observation)?)
            });
            let scene = watch.scene();
            assert_eq!(score.unwrap(), scene.score);
            assert_eq!((scene.action.len(), scene.map.is_some()), (1, id.starts_with("MobileCell")));
            assert_eq!(environment.save().unwrap().state, scene.state);
            assert!(matches!(watch.step(), Err(TrainError::Environment(EnvError::EpisodeOver))));
        }
    }

    #[test]
    fn training_does_not_change_an_episode_that_has_begun() {
        for (id, algorithm) in [
            ("CartPole-v1", "qrdqn"),
            ("CartPole-v1", "sac"),
            ("CartPole-v1", "ppo"),
            ("Pendulum-v1", "sac"),
            ("MobileCell-5G-v0", "qrdqn"),
        ] {
            let mut config = presets::learner(id, find(algorithm).unwrap());
            if let Some(sac) = config.algorithm.of_mut::<SacConfig>() {
                (sac.hidden, sac.batch_size) = (vec![16], 16);
            }
            let environment = Environments::built_in(id).unwrap();
            let mut student = Student::new(&config, environment, &[], &oto_cpu::Cpu, 0).unwrap();
            let train = |student: &mut Student, ticks: usize| {
                (0..ticks).for_each(|_| assert_eq!(student.tick(0).unwrap(), Tick::Stepped));
                student.trainer().learner.policy()
            };
            let before = train(&mut student, 400);
            let begin = |student: &mut Student| Watch::begin(id, 7, student.trainer()).unwrap();
            let (mut at_once, mut meanwhile) = (begin(&mut student), begin(&mut student));
            let score = played(&mut at_once);
            let mut after = before.clone();
            while !meanwhile.scene().over {
                meanwhile.step().unwrap();
                after = train(&mut student, 20);
            }
            assert_eq!(
                (meanwhile.scene().trained, meanwhile.scene().score),
                (400, score),
                "{id}, {algorithm:?}"
            );
            assert!(before.parameters().zip(after.parameters()).any(|(a, b)| a != b), "{id} did not learn");
        }
    }

    #[test]
    fn a_scene_is_an_object() {
        let mut watch = Watch::begin("CartPole-v1", 1, student("CartPole-v1").trainer()).unwrap();
        watch.step().unwrap();
        let text = oto_json::write(watch.scene());
        let tail = r#""reward":1.0,"return":1.0,"over":false,"map":null}"#;
        assert!(
            text.contains(r#""step":1,"limit":500,"trained":0,"action":["#) && text.ends_with(tail),
            "{text}"
        );
        let unknown = Watch::begin("Chess-v0", 1, student("CartPole-v1").trainer());
        assert!(matches!(unknown, Err(EnvError::UnknownId { .. })));
    }
}

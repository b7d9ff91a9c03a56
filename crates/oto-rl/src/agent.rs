//! A student's algorithm behind one face: acts, improves, keeps its state. Actions are plain numbers here: the index of a
//! discrete action, or a vector whose components go from -1 to 1.

use crate::actions::Actions;
use crate::bc::Bc;
use crate::engine::{Engine, LearnError, Learner, Schedule};
use crate::network::Actor;
use crate::ppo::Ppo;
use crate::qrdqn::QrDqn;
use crate::replay::Batch;
use crate::sac::Sac;
use crate::sac_discrete::SacDiscrete;
use oto_env::rng::Rng;

/// The algorithms there are.
pub enum Agent {
    /// Discrete actions by quantile regression.
    QrDqn(QrDqn),
    /// Continuous actions by soft actor-critic.
    Sac(Sac),
    /// Discrete actions by soft actor-critic.
    SacDiscrete(SacDiscrete),
    /// Either kind of actions by proximal policy optimisation: learns from rollouts.
    Ppo(Ppo),
    /// What a dataset's actions were.
    Bc(Bc),
}

impl Agent {
    fn learner(&self) -> &dyn Learner {
        match self {
            Agent::QrDqn(agent) => agent,
            Agent::Sac(agent) => agent,
            Agent::SacDiscrete(agent) => agent,
            Agent::Ppo(agent) => agent,
            Agent::Bc(agent) => agent,
        }
    }

    fn learner_mut(&mut self) -> &mut dyn Learner {
        match self {
            Agent::QrDqn(agent) => agent,
            Agent::Sac(agent) => agent,
            Agent::SacDiscrete(agent) => agent,
            Agent::Ppo(agent) => agent,
            Agent::Bc(agent) => agent,
        }
    }

    /// The program's state and the backend that runs it.
    pub fn engine(&self) -> &Engine {
        self.learner().engine()
    }

    /// The same, to change.
    pub fn engine_mut(&mut self) -> &mut Engine {
        self.learner_mut().engine_mut()
    }

    /// What its actions are.
    fn actions(&self) -> Actions {
        match self {
            Agent::QrDqn(agent) => Actions::Discrete(agent.sizes().actions),
            Agent::Sac(agent) => Actions::Continuous(agent.sizes().action),
            Agent::SacDiscrete(agent) => Actions::Discrete(agent.sizes().actions),
            Agent::Ppo(agent) => agent.sizes().actions,
            Agent::Bc(agent) => agent.sizes().actions,
        }
    }

    /// How many numbers an action has.
    pub fn action_width(&self) -> usize {
        self.actions().width()
    }

    /// How many numbers a teacher's answer has.
    pub fn label_width(&self) -> usize {
        match self {
            Agent::QrDqn(agent) => agent.label_width(),
            _ => self.action_width(),
        }
    }

    /// Whether a teacher's answer is an action of this agent, or what else it learns from.
    pub fn accepts(&self, action: &[f32]) -> bool {
        if let Agent::QrDqn(agent) = self
            && agent.label_width() > 1
        {
            let probabilities = &action[..action.len().saturating_sub(1)];
            return action.len() == agent.label_width()
                && action.iter().all(|x| x.is_finite())
                && probabilities.iter().all(|p| (0.0..=1.0).contains(p));
        }
        match self.actions() {
            Actions::Discrete(n) => {
                matches!(action, [a] if a.fract() == 0.0 && (0.0..n as f32).contains(a))
            }
            Actions::Continuous(width) => {
                action.len() == width && action.iter().all(|a| (-1.0..=1.0).contains(a))
            }
        }
    }

    /// The network that acts, for whoever acts with it elsewhere: a preference for each action, or the action before its tanh
    /// (PPO's as it is).
    pub fn policy(&self) -> Actor {
        match self {
            Agent::QrDqn(agent) => agent.actor().clone(),
            Agent::Sac(agent) => agent.actor().into(),
            Agent::SacDiscrete(agent) => agent.actor().clone().into(),
            Agent::Ppo(agent) => agent.actor().clone().into(),
            Agent::Bc(agent) => agent.actor().clone(),
        }
    }

    /// Whether a continuous action is the tanh of what [`Self::policy`] gives; otherwise it is cut off at -1 and 1.
    pub fn squashes(&self) -> bool {
        !matches!(self, Agent::Ppo(_))
    }

    /// The best action it knows, `[action_width]`.
    pub fn act(&mut self, observation: &[f32], action: &mut [f32]) {
        match self {
            Agent::QrDqn(agent) => action[0] = agent.act(observation) as f32,
            Agent::Sac(agent) => agent.act(observation, action),
            Agent::SacDiscrete(agent) => action[0] = agent.act(observation) as f32,
            Agent::Ppo(agent) => agent.act(observation, action),
            Agent::Bc(agent) => agent.act(observation, action),
        }
    }

    /// An action to learn from: with probability `epsilon` any, otherwise the algorithm's own.
    pub fn explore(&mut self, observation: &[f32], epsilon: f64, rng: &mut Rng, action: &mut [f32]) {
        let random = rng.f64() < epsilon;
        match (self, random) {
            // Only its own actions say how good its policy is.
            (Agent::Ppo(agent), _) => agent.sample(observation, rng, action),
            (agent, true) => match agent.actions() {
                Actions::Discrete(n) => action[0] = rng.below(n as u32) as f32,
                Actions::Continuous(_) => action.iter_mut().for_each(|a| *a = rng.uniform(-1.0, 1.0) as f32),
            },
            (Agent::Sac(agent), false) => agent.sample(observation, rng, action),
            (Agent::SacDiscrete(agent), false) => action[0] = agent.sample(observation, rng) as f32,
            (agent, false) => agent.act(observation, action),
        }
    }

    /// One update from a batch; `rng` draws what the algorithm draws for it.
    pub fn update(&mut self, batch: &Batch, schedule: &Schedule, rng: &mut Rng) -> Result<(), LearnError> {
        match self {
            Agent::QrDqn(agent) => agent.update(batch, schedule),
            Agent::Sac(agent) => agent.update(batch, schedule, rng),
            Agent::SacDiscrete(agent) => agent.update(batch, schedule),
            Agent::Ppo(agent) => agent.update(batch, schedule, rng),
            Agent::Bc(agent) => agent.update(batch, schedule),
        }
    }

    /// See [`Learner::collect`].
    pub fn collect(&mut self) -> Result<bool, LearnError> {
        self.learner_mut().collect()
    }

    /// See [`Learner::settle`].
    pub fn settle(&mut self) -> Result<bool, LearnError> {
        self.learner_mut().settle()
    }

    /// See [`Learner::start_over`].
    pub fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        self.learner_mut().start_over(rng)
    }

    /// See [`Learner::go_back`].
    pub fn go_back(&mut self) -> Result<bool, LearnError> {
        self.learner_mut().go_back()
    }

    /// See [`Engine::restore`].
    pub fn restore(
        &mut self,
        updates: u64,
        mut tensor: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<(), LearnError> {
        self.learner_mut().restore(updates, &mut tensor)
    }
}

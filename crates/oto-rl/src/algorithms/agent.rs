//! An agent: an algorithm at work in an environment. Actions are plain numbers here: the index of a discrete action, or a
//! vector whose components go from -1 to 1.

use crate::actions::Actions;
use crate::engine::{LearnError, Learner, Schedule};
use crate::exploration::ActionNoise;
use crate::losses::actor_critic::GaeStep;
use crate::network::Actor;
use crate::replay::{Batch, Replay};
use oto_env::rng::Rng;

/// Acts, improves, keeps its state.
pub trait Agent: Learner + Send {
    /// Its actions.
    fn actions(&self) -> Actions;

    /// How many numbers an action has.
    fn action_width(&self) -> usize {
        self.actions().width()
    }

    /// How many numbers a teacher's answer has.
    fn label_width(&self) -> usize {
        self.action_width()
    }

    /// Whether it can learn from this answer of a teacher.
    fn accepts(&self, label: &[f32]) -> bool {
        self.actions().contains(label)
    }

    /// Whether its policy may take this action. Numbers that are not finite are none.
    fn takes(&self, action: &[f32]) -> bool {
        self.actions().contains(action)
    }

    /// The best action it knows, `[action_width]`. Where the network gives no finite numbers, what it writes is no action, see
    /// [`Self::takes`].
    fn act(&mut self, observation: &[f32], action: &mut [f32]);

    /// An action of its own for exploring; the best one where the policy has no chance in it.
    fn sample(&mut self, observation: &[f32], rng: &mut Rng, action: &mut [f32]) {
        let _ = rng;
        self.act(observation, action);
    }

    /// An episode of training begins.
    fn begin_episode(&mut self) {
        if let Some(noise) = self.noise_mut() {
            noise.begin_episode();
        }
    }

    /// An action was taken in this observation of training.
    fn stepped(&mut self, observation: &[f32]) {
        let _ = observation;
    }

    /// An episode of greedy play begins: the observations that [`Self::act`] sees are its steps.
    fn begin_greedy(&mut self) {}

    /// The environment's step from now on, for schedules of the algorithm's own.
    fn at_step(&mut self, step: u64) {
        let _ = step;
    }

    /// An episode of training ended with this return, after `length` steps.
    fn end_episode(&mut self, score: f64, length: u64) {
        let _ = (score, length);
    }

    /// What it keeps beside its program's state and the noise on actions, for a checkpoint.
    fn memory(&self) -> Vec<f32> {
        Vec::new()
    }

    /// Takes this back. False, and nothing changes, if it is not what [`Self::memory`] gives.
    fn recall(&mut self, memory: &[f32]) -> bool {
        memory.is_empty()
    }

    /// The noise that [`Self::sample`] adds to the best action, if the algorithm explores so.
    fn noise(&self) -> Option<&ActionNoise> {
        None
    }

    /// The same, to restore it.
    fn noise_mut(&mut self) -> Option<&mut ActionNoise> {
        None
    }

    /// An action to learn from: with probability `epsilon` any, otherwise [`Self::sample`]'s.
    fn explore(&mut self, observation: &[f32], epsilon: f64, rng: &mut Rng, action: &mut [f32]) {
        match rng.f64() < epsilon {
            true => self.actions().random(rng, action),
            false => self.sample(observation, rng, action),
        }
    }

    /// Takes what it has to know of recorded data before its first update, such as the mean and the spread of observations.
    fn prepare(&mut self, data: &Replay) -> Result<(), LearnError> {
        let _ = data;
        Ok(())
    }

    /// One update from a batch; `rng` draws what the algorithm draws for it. New weights act from now on, or once
    /// [`Learner::collect`] has them.
    fn update(&mut self, batch: &Batch, schedule: &Schedule, rng: &mut Rng) -> Result<(), LearnError>;

    /// The network that acts, for export: a preference for each discrete action, or a continuous action.
    fn policy(&self) -> Actor;

    /// Whether a continuous action is the tanh of what [`Self::policy`] gives; otherwise it is cut off at -1 and 1.
    fn squashes(&self) -> bool {
        true
    }

    /// The same agent, if it learns from rollouts.
    fn on_policy(&mut self) -> Option<&mut dyn OnPolicy> {
        None
    }
}

/// An agent that learns from rollouts, and its judgement of the steps that it took.
pub trait OnPolicy {
    /// The rollouts it needs.
    fn rollouts(&self) -> Rollouts;

    /// The log probability of each action `[rows, width]` in its state `[rows, O]`, added to `out`.
    fn log_prob(&mut self, observations: &[f32], actions: &[f32], out: &mut Vec<f32>);

    /// The value of each state, `[rows]`.
    fn value(&mut self, observations: &[f32]) -> &[f32];

    /// The policy's logits for each state, `[rows, A]`; empty where it has none. To a recurrent policy each state begins an episode.
    fn logits(&mut self, observations: &[f32]) -> &[f32] {
        let _ = observations;
        &[]
    }

    /// The policy's logits for the steps of the rollout that was judged last.
    fn judged_logits(&mut self, observations: &[f32]) -> &[f32] {
        self.logits(observations)
    }

    /// A rollout begins with the next step.
    fn begin_rollout(&mut self) {}

    /// Judges steps of a rollout, which come in their order, and adds what it finds to `out`.
    fn judge(&mut self, steps: Steps<'_>, out: &mut Judgement) {
        self.log_prob(steps.observation, steps.action, &mut out.log_prob);
        out.value.extend_from_slice(self.value(steps.observation));
        out.next_value.extend_from_slice(self.value(steps.next_observation));
    }

    /// What the value function learns from the steps of a rollout, into `targets`: each advantage plus its state's value.
    fn targets(&self, steps: &[GaeStep], advantages: &[f64], gamma: f64, targets: &mut [f64]) {
        let _ = gamma;
        let each = steps.iter().zip(advantages).zip(targets);
        each.for_each(|((step, advantage), target)| *target = advantage + step.value);
    }
}

/// Consecutive steps of a rollout.
#[derive(Clone, Copy, Debug)]
pub struct Steps<'r> {
    /// Steps of the rollout before them.
    pub first: usize,
    /// `[rows, O]`.
    pub observation: &'r [f32],
    /// The states that the actions led to, `[rows, O]`.
    pub next_observation: &'r [f32],
    /// `[rows, width]`.
    pub action: &'r [f32],
    /// For every step of the rollout, whether its episode went no further.
    pub ended: &'r [bool],
}

/// How an agent judges the steps of a rollout: a number for each.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// The log probability of the action.
    pub log_prob: Vec<f32>,
    /// The value of the state.
    pub value: Vec<f32>,
    /// The value of the next state, of the same episode.
    pub next_value: Vec<f32>,
}

impl Judgement {
    pub(crate) fn clear(&mut self) {
        let Self { log_prob, value, next_value } = self;
        [log_prob, value, next_value].into_iter().for_each(Vec::clear);
    }
}

/// How an agent learns from rollouts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rollouts {
    /// Environment steps in one.
    pub length: usize,
    /// Steps in an update.
    pub batch_size: usize,
    /// Epochs over each rollout.
    pub epochs: usize,
    /// Lambda of generalised advantage estimation.
    pub gae_lambda: f64,
    /// Whether advantages are normalised within an update.
    pub normalise: bool,
    /// Whether an update takes a batch of the replay buffer besides.
    pub replay: bool,
}

//! A rollout: the newest steps of a replay buffer, in their order, from which an on-policy student learns once all are there,
//! and then no more. Transitions and labels stay where they are; only where episodes ended is kept here.

use crate::algorithms::{Judgement, OnPolicy, Rollouts, Steps};
use crate::losses::actor_critic::{GaeStep, gae};
use crate::replay::{Batch, Replay};
use oto_env::rng::Rng;

/// The most numbers of observations that are judged at once.
const AT_ONCE: usize = 1 << 22;

/// The steps since the last round of updates. Nothing is allocated after the first round.
#[derive(Clone, Debug)]
pub struct Rollout {
    length: usize,
    /// For each step so far, whether its episode went no further.
    ended: Vec<bool>,
    steps: Vec<GaeStep>,
    advantage: Vec<f64>,
    /// What the value function learns.
    target: Vec<f64>,
    judgement: Judgement,
    /// The order in which minibatches take the steps.
    order: Vec<usize>,
    whole: Batch,
}

impl Rollout {
    /// An empty rollout of so many steps, at least one.
    pub fn new(length: usize) -> Self {
        let length = length.max(1);
        Self {
            length,
            ended: Vec::with_capacity(length),
            steps: Vec::new(),
            advantage: Vec::new(),
            target: Vec::new(),
            judgement: Judgement::default(),
            order: Vec::new(),
            whole: Batch::default(),
        }
    }

    /// One step more, the newest transition of the buffer; `ended` if its episode goes no further. True if all are there.
    pub fn push(&mut self, ended: bool) -> bool {
        self.ended.push(ended);
        self.ended.len() == self.length
    }

    /// The episode goes no further than the newest step.
    pub fn cut(&mut self) {
        if let Some(last) = self.ended.last_mut() {
            *last = true;
        }
    }

    /// Whether it has no step yet.
    pub fn is_empty(&self) -> bool {
        self.ended.is_empty()
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.ended.clear();
    }

    /// How the student that took these steps judges them: log probabilities, advantages (generalised advantage estimation),
    /// returns. Its parameters have not changed since, so that nothing has to be kept while it acts.
    pub fn judge(&mut self, replay: &Replay, student: &mut dyn OnPolicy, gamma: f64, rng: &mut Rng) {
        let first = replay.stored() - self.ended.len() as u64;
        self.order.clear();
        self.order.extend(0..self.ended.len());
        self.judgement.clear();
        self.steps.clear();
        // Numbers, not bytes: a rollout of images would take as much memory as all other parts together.
        let rows = (AT_ONCE / replay.observation_width().max(1)).max(1);
        for part in self.order.chunks(rows) {
            replay.take(first, part, rng, &mut self.whole);
            let Batch { observation, next_observation, action, reward, discount, .. } = &self.whole;
            let (begin, ended) = (self.steps.len(), &self.ended[..]);
            student.judge(
                Steps { first: begin, observation, next_observation, action, ended },
                &mut self.judgement,
            );
            let Judgement { value, next_value, .. } = &self.judgement;
            let judged = value[begin..].iter().zip(&next_value[begin..]);
            let rows = ended[begin..].iter().zip(reward).zip(discount).zip(judged);
            self.steps.extend(rows.map(|(((ended, reward), discount), (value, next))| GaeStep {
                reward: f64::from(*reward),
                value: f64::from(*value),
                next_value: f64::from(*next),
                terminated: *discount == 0.0,
                truncated: *ended && *discount != 0.0,
            }));
        }
        self.advantage.clear();
        self.advantage.resize(self.steps.len(), 0.0);
        gae(&self.steps, gamma, student.rollouts().gae_lambda, &mut self.advantage);
        self.target.clear();
        self.target.resize(self.steps.len(), 0.0);
        student.targets(&self.steps, &self.advantage, gamma, &mut self.target);
    }

    /// Puts the steps in another order, for one more pass over them.
    pub fn shuffle(&mut self, rng: &mut Rng) {
        rng.shuffle(&mut self.order);
    }

    /// Minibatch `i` in the order there is now. Advantages that are normalised within it are so as in Stable-Baselines3 (mean 0, the
    /// sample's standard deviation 1).
    pub fn minibatch(&self, replay: &Replay, i: usize, how: Rollouts, rng: &mut Rng, batch: &mut Batch) {
        let size = how.batch_size;
        let order = &self.order[i * size..(i + 1) * size];
        replay.take(replay.stored() - self.ended.len() as u64, order, rng, batch);
        let mean = order.iter().map(|i| self.advantage[*i]).sum::<f64>() / size as f64;
        let squares = order.iter().map(|i| (self.advantage[*i] - mean).powi(2)).sum::<f64>();
        let normalise = how.normalise && size > 1;
        let scale = if normalise { (squares / (size - 1) as f64).sqrt() + 1e-8 } else { 1.0 };
        let centre = if normalise { mean } else { 0.0 };
        batch.advantage.clear();
        batch.advantage.extend(order.iter().map(|i| ((self.advantage[*i] - centre) / scale) as f32));
        batch.target.clear();
        batch.target.extend(order.iter().map(|i| self.target[*i] as f32));
        batch.old_log_prob.clear();
        batch.old_log_prob.extend(order.iter().map(|i| self.judgement.log_prob[*i]));
    }

    /// What a checkpoint keeps beside the buffer: for each step so far 1 where its episode went no further, else 0.
    pub fn save(&self) -> Vec<f32> {
        self.ended.iter().map(|e| if *e { 1.0 } else { 0.0 }).collect()
    }

    /// Puts back what was saved; false, and nothing changed, where that does not fit this rollout and its buffer.
    pub fn restore(&mut self, replay: &Replay, ended: &[f32]) -> bool {
        let fits = ended.len() < self.length
            && ended.len() <= replay.len()
            && ended.iter().all(|e| *e == 0.0 || *e == 1.0);
        if fits {
            self.ended.clear();
            self.ended.extend(ended.iter().map(|e| *e == 1.0));
        }
        fits
    }
}

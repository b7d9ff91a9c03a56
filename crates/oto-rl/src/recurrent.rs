//! The states of a recurrent student: where its episode stands, where its rollout began, and a state of its own for greedy play.
//!
//! A state is zero where an episode begins. It changes once a step: choosing an action again does not change it. The program of an update
//! unrolls the rollout from the state before its first step ([`STATE`], [`KEEP`]).

use crate::algorithms::{Judgement, Steps};
use crate::mlp::Mlp;
use crate::network::Actor;

/// The data input with the state before the rollout's first step: `[2, H]`, hidden and cell state.
pub(crate) const STATE: &str = "lstm_state";
/// The data input `[T]` that is 0 for the steps of a rollout that begin an episode, else 1.
pub(crate) const KEEP: &str = "lstm_keep";

/// The states of a student whose network has one LSTM layer.
#[derive(Clone, Debug)]
pub(crate) struct States {
    /// Before the next step of training.
    next: Vec<f32>,
    /// After that step, once an action was drawn for it.
    after: Vec<f32>,
    drawn: bool,
    /// Before the rollout's first step; still to be taken from `next` where the rollout has no step yet.
    begin: Vec<f32>,
    begun: bool,
    /// In greedy play.
    greedy: Vec<f32>,
    keep: Vec<f32>,
    /// The logits of the rollout that was judged last, `[T, A]`.
    logits: Vec<f32>,
    judged: Vec<f32>,
    beyond: Vec<f32>,
}

impl States {
    /// Zeros, for a network with states of `width` numbers.
    pub fn new(width: usize) -> Self {
        let zeros = || vec![0.0; width];
        Self {
            next: zeros(),
            after: zeros(),
            drawn: false,
            begin: zeros(),
            begun: false,
            greedy: zeros(),
            keep: Vec::new(),
            logits: Vec::new(),
            judged: zeros(),
            beyond: zeros(),
        }
    }

    /// The logits of the next step. Calling it again gives them again.
    pub fn draw<'p>(&mut self, policy: &'p mut Actor, observation: &[f32]) -> &'p [f32] {
        self.after.copy_from_slice(&self.next);
        self.drawn = true;
        policy.forward_from(observation, &mut self.after)
    }

    /// The step was taken, with an action that was drawn here or elsewhere.
    pub fn stepped(&mut self, policy: &mut Actor, observation: &[f32]) {
        if !self.begun {
            self.begin.copy_from_slice(&self.next);
            self.begun = true;
        }
        if !self.drawn {
            self.draw(policy, observation);
        }
        std::mem::swap(&mut self.next, &mut self.after);
        self.drawn = false;
    }

    /// An episode of training begins.
    pub fn begin_episode(&mut self) {
        self.next.fill(0.0);
        self.drawn = false;
    }

    /// A rollout begins with the next step.
    pub fn begin_rollout(&mut self) {
        self.begun = false;
    }

    /// The logits of the next step of greedy play.
    pub fn greedy<'p>(&mut self, policy: &'p mut Actor, observation: &[f32]) -> &'p [f32] {
        policy.forward_from(observation, &mut self.greedy)
    }

    /// An episode of greedy play begins.
    pub fn begin_greedy(&mut self) {
        self.greedy.fill(0.0);
    }

    /// Judges steps of the rollout in their order; `log_prob` gives an action's from logits, `value` reads the LSTM layer's output.
    pub fn judge(
        &mut self,
        policy: &mut Actor,
        value: &mut Actor,
        steps: Steps<'_>,
        log_prob: impl Fn(&[f32], f32) -> f32,
        out: &mut Judgement,
    ) {
        let Self { begin, keep, logits, judged, beyond, .. } = self;
        if steps.first == 0 {
            judged.copy_from_slice(begin);
            keep.clear();
            logits.clear();
        }
        let (width, units) = (policy.inputs(), judged.len() / 2);
        let rows = steps.observation.chunks_exact(width).zip(steps.next_observation.chunks_exact(width));
        let first = out.value.len();
        for (i, (observation, next)) in rows.enumerate() {
            let at = steps.first + i;
            let begins = at > 0 && steps.ended[at - 1];
            keep.push(if begins { 0.0 } else { 1.0 });
            if begins {
                judged.fill(0.0);
            }
            let row = policy.forward_from(observation, judged);
            out.log_prob.push(log_prob(row, steps.action[i]));
            logits.extend_from_slice(row);
            out.value.push(value.forward(&judged[..units])[0]);
            // Else the next step's value, which comes next.
            let last = (i + 1) * width == steps.observation.len();
            if steps.ended[at] || last {
                beyond.copy_from_slice(judged);
                policy.forward_from(next, beyond);
                out.next_value.push(value.forward(&beyond[..units])[0]);
            } else {
                out.next_value.push(0.0);
            }
        }
        for i in first..out.value.len().saturating_sub(1) {
            if !steps.ended[steps.first + i - first] {
                out.next_value[i] = out.value[i + 1];
            }
        }
    }

    /// The logits of the rollout that was judged last.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The program's input of this name, for the rollout that was judged last.
    pub fn input(&self, name: &str) -> Option<&[f32]> {
        match name {
            STATE => Some(&self.begin),
            KEEP => Some(&self.keep),
            _ => None,
        }
    }

    /// What a checkpoint keeps.
    pub fn save(&self) -> Vec<f32> {
        let begun = if self.begun { 1.0 } else { 0.0 };
        [&[begun], &self.begin[..], &self.next[..]].concat()
    }

    /// Puts it back; false, and nothing changes, if it is not what [`Self::save`] gives.
    pub fn restore(&mut self, saved: &[f32]) -> bool {
        let width = self.next.len();
        let fits = saved.len() == 1 + 2 * width && saved.iter().all(|x| x.is_finite());
        let fits = fits && (saved[0] == 0.0 || saved[0] == 1.0);
        if fits {
            self.begun = saved[0] == 1.0;
            self.begin.copy_from_slice(&saved[1..=width]);
            self.next.copy_from_slice(&saved[1 + width..]);
            self.drawn = false;
        }
        fits
    }
}

/// A network of layers up to an LSTM layer of `units` units, and a head behind it.
pub(crate) fn network(before: Actor, units: usize, outputs: usize) -> Actor {
    let (encoder, layers) = before.into_parts();
    let cell = crate::lstm::Lstm::zeros(layers.outputs(), units);
    let head = Mlp::zeros(&[units, outputs], crate::mlp::Activation::Identity);
    Actor::recurrent(encoder, Some(layers), vec![cell], head)
}

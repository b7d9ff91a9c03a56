//! What samplers share: the settings that name one, and what each does.

use super::buffer::{Replay, ReplayArrays};
#[cfg(feature = "every-algorithm")]
use super::{Balanced, Forgetting, Whole};
use super::{Batch, Combined, Prioritised, Shares, Uniform};
use crate::checks::Checks;
use crate::schedule::Linear;
use oto_env::rng::Rng;
use std::collections::TryReserveError;

/// How a batch is chosen from the replay buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename_all = "snake_case"))]
pub enum SamplerName {
    /// Every transition with the same probability.
    #[default]
    Uniform,
    /// Combined experience replay: as `uniform`, and the newest transition is in every batch (Zhang and Sutton 2017).
    Combined,
    /// Fixed shares of two buffers: the run's own transitions, and recorded ones (Ball et al. 2023).
    Shares,
    /// Prioritised by the last TD error (Schaul et al. 2016).
    Prioritised,
    /// Each batch from one buffer alone: recorded transitions with the probability `recorded_share` (Zheng et al. 2023).
    #[cfg(feature = "every-algorithm")]
    Whole,
    /// Both buffers, prioritised by how much a transition looks like the run's own, as `balanced-replay` rates it (Lee et al. 2021).
    #[cfg(feature = "every-algorithm")]
    Balanced,
    /// Recorded transitions less and less, by MOORe's priorities (Mao et al. 2022).
    #[cfg(feature = "every-algorithm")]
    Forgetting,
}

#[cfg(feature = "every-algorithm")]
oto_json::json_names! {
    SamplerName {
        Uniform = "uniform",
        Combined = "combined",
        Shares = "shares",
        Prioritised = "prioritised",
        Whole = "whole",
        Balanced = "balanced",
        Forgetting = "forgetting",
    }
}
#[cfg(not(feature = "every-algorithm"))]
oto_json::json_names! {
    SamplerName { Uniform = "uniform", Combined = "combined", Shares = "shares", Prioritised = "prioritised" }
}

/// The sampler of a run, and its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct ReplayConfig {
    /// How a batch is chosen from the replay buffer.
    pub sampler: SamplerName,
    /// `shares`: share of a batch that comes from recorded transitions. `whole`: probability of a recorded batch.
    pub recorded_share: f64,
    /// `whole`: transitions of the run's own before the first batch of them.
    pub own_from: u64,
    /// `balanced`: share of the run's own transitions in batches at first.
    pub online_share: f64,
    /// `balanced`: the number of the run's own transitions at which they have this share.
    pub online_reference: u64,
    /// `forgetting`: rate of the fall of recorded transitions' priorities: in epoch i they are 1 / (rate i), the run's own 1.
    pub forgetting_rate: f64,
    /// `forgetting`: environment steps in an epoch.
    pub forgetting_epoch: u64,
    /// `prioritised`: exponent of priorities. 0: all transitions have the same probability.
    pub alpha: f64,
    /// `prioritised`: exponent of importance weights over environment steps. 1: full correction.
    pub beta: Linear,
    /// `prioritised`: number added to each TD error, so that no priority is 0.
    pub epsilon: f64,
}

oto_json::json_object! { ReplayConfig: settings { sampler, recorded_share, own_from, online_share, online_reference, forgetting_rate, forgetting_epoch, alpha, beta, epsilon } }

/// `own_from` is Zheng et al.'s, `online_share` and `online_reference` are Lee et al.'s. Half of each batch is recorded, as in RLPD (Ball et al. 2023); `alpha` and `beta` are those of proportional prioritisation in
/// Schaul et al. 2016 (table 3, where `beta` reaches 1 at the end of learning), `epsilon` is that of OpenAI Baselines.
impl Default for ReplayConfig {
    fn default() -> Self {
        Self {
            sampler: SamplerName::Uniform,
            recorded_share: 0.5,
            own_from: 10_000,
            online_share: 0.5,
            online_reference: 1_000,
            forgetting_rate: 1.0,
            forgetting_epoch: 1_000,
            alpha: 0.6,
            beta: Linear { start: 0.4, end: 1.0, steps: 100_000 },
            epsilon: 1e-6,
        }
    }
}

impl ReplayConfig {
    /// Checks every setting.
    pub fn check(&self, checks: &mut Checks) {
        checks.real("recorded_share", self.recorded_share, 0.0..=1.0, "a share from 0 to 1");
        checks.whole("own_from", self.own_from, 0..=1 << 40, "0 to 2^40 transitions");
        checks.real("online_share", self.online_share, 0.001..=0.999, "a share from 0.001 to 0.999");
        checks.whole("online_reference", self.online_reference, 1..=1 << 40, "1 to 2^40 transitions");
        checks.real("forgetting_rate", self.forgetting_rate, 1e-6..=1e6, "1e-6 to 1e6");
        checks.whole("forgetting_epoch", self.forgetting_epoch, 1..=1 << 40, "1 to 2^40 steps");
        checks.real("alpha", self.alpha, 0.0..=1.0, "0 to 1");
        self.beta.check("beta", 1.0, "0 to 1", checks);
        checks.real("epsilon", self.epsilon, 1e-12..=1.0, "1e-12 to 1");
    }

    /// Whether batches have importance weights, so that the program has to read them: [`crate::algorithms::Sizes::weighted`].
    pub fn weighted(&self) -> bool {
        self.sampler == SamplerName::Prioritised
    }

    /// Whether the program has to rate transitions for the sampler.
    pub fn rated(&self) -> bool {
        #[cfg(feature = "every-algorithm")]
        {
            self.sampler == SamplerName::Balanced
        }
        #[cfg(not(feature = "every-algorithm"))]
        {
            false
        }
    }

    /// The sampler.
    pub fn make(&self) -> Box<dyn Sampler> {
        match self.sampler {
            SamplerName::Uniform => Box::new(Uniform),
            SamplerName::Combined => Box::new(Combined),
            SamplerName::Shares => Box::new(Shares::new(self.recorded_share)),
            SamplerName::Prioritised => Box::new(Prioritised::new(self.alpha, self.beta, self.epsilon)),
            #[cfg(feature = "every-algorithm")]
            SamplerName::Whole => Box::new(Whole::new(self.recorded_share, self.own_from)),
            #[cfg(feature = "every-algorithm")]
            SamplerName::Balanced => Box::new(Balanced::new(self.online_share, self.online_reference)),
            #[cfg(feature = "every-algorithm")]
            SamplerName::Forgetting => Box::new(Forgetting::new(self.forgetting_rate, self.forgetting_epoch)),
        }
    }
}

/// A request for a batch.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The buffers: first the run's own, then that of recorded transitions if there is one. All have the same widths.
    pub buffers: &'a [&'a Replay],
    /// Rows of the batch.
    pub size: usize,
    /// The number of the update that the batch is for; [`Sampler::learned`] gives it back.
    pub update: u64,
    /// The environment step, for schedules.
    pub step: u64,
}

impl Request<'_> {
    /// Transitions in all buffers.
    pub(super) fn transitions(&self) -> usize {
        self.buffers.iter().map(|buffer| buffer.len()).sum()
    }

    /// Adds `count` rows to the batch, each transition of all buffers with the same probability.
    pub(super) fn choose_uniformly(&self, count: usize, rng: &mut Rng, batch: &mut Batch) {
        let all = self.transitions() as u32;
        for _ in 0..count {
            let mut place = rng.below(all) as usize;
            let mut buffer = 0;
            while place >= self.buffers[buffer].len() {
                place -= self.buffers[buffer].len();
                buffer += 1;
            }
            batch.choose(buffer, place);
        }
    }
}

/// Chooses the transitions of batches. All randomness comes from the generator that is passed: same seed, same batches.
pub trait Sampler: Send {
    /// Fills `batch` with the rows of one update, and draws a permutation of them.
    ///
    /// # Panics
    /// If no buffer holds a transition.
    fn sample(&mut self, request: &Request<'_>, rng: &mut Rng, batch: &mut Batch);

    /// Allocates memory for the state of all transitions that this buffer can hold without growing.
    ///
    /// # Errors
    /// If there is no memory for it; the sampler is as it was.
    fn make_room(&mut self, replay: &Replay) -> Result<(), TryReserveError> {
        let _ = replay;
        Ok(())
    }

    /// Takes the TD errors `[B]` of the batch that was sampled for this update.
    fn learned(&mut self, update: u64, errors: &[f32]) {
        let _ = (update, errors);
    }

    /// The state for a checkpoint, beside that of this buffer; empty for a sampler without state.
    fn save(&self, replay: &Replay) -> ReplayArrays {
        let _ = replay;
        Vec::new()
    }

    /// Takes a saved state back, for this restored buffer. False, and nothing changes, if it does not fit or holds an
    /// impossible number.
    fn restore(&mut self, replay: &Replay, array: &mut dyn FnMut(&str) -> Option<Vec<f32>>) -> bool {
        let _ = (replay, array);
        true
    }
}

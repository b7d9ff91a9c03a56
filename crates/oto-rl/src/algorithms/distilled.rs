//! The term of a distillation in a student's update ([`crate::distillation`]), and the heads beside its policy.

use crate::critics::{InitialParameters, Params};
use crate::distillation::{DistillationConfig, DistillationHead};
use crate::losses::distillation::distillation_kl;
use crate::optimiser::{mlp as connected, mlp_parameters, orthogonal_layer};
use oto_env::rng::Rng;
use oto_graph::{Activation, Tensor, Trace};

impl DistillationConfig {
    /// The parameters of the heads beside the policy, `distillation.{i}.*`, `[inputs, actions]`: a weight and a bias for each teacher.
    pub(crate) fn heads<'t>(&self, t: &'t Trace, [inputs, actions]: [usize; 2]) -> Params<'t> {
        let count = if self.to == DistillationHead::Head { self.teachers.len() } else { 0 };
        (0..count).flat_map(|i| mlp_parameters(t, &head(i), &[inputs, self.width(i, actions)])).collect()
    }

    /// Records the term; what the heads read `[T, H]`, the policy's logits `[T, A]`. Its data inputs are `distilled.{i}.logits` `[T, W]` and
    /// `distilled.{i}.mask` `[T]` of each teacher, and `distilled.late` `[]`: 1 leaves the environment's terms out.
    pub(crate) fn record<'t>(
        &self,
        t: &'t Trace,
        heads: &[(String, Tensor<'t>)],
        seen: Tensor<'t>,
        logits: Tensor<'t>,
    ) -> Recorded<'t> {
        let (rows, actions) = (logits.size(0), logits.size(1));
        let mut loss = t.constant(0.0, &[]);
        for (i, teacher) in self.teachers.iter().enumerate() {
            let width = self.width(i, actions);
            let student = match self.to {
                DistillationHead::Policy => logits,
                DistillationHead::Head => connected(&heads[2 * i..2 * i + 2], seen, Activation::Identity),
            };
            let thinks = t.data(format!("distilled.{i}.logits"), &[rows, width]);
            let mask = t.data(format!("distilled.{i}.mask"), &[rows]);
            let each = distillation_kl(thinks, student, self.temperature, self.divergence);
            loss = loss + (each * mask).sum() * teacher.weight;
        }
        let one = t.constant(1.0, &[]);
        let in_time = one - t.data("distilled.late", &[]);
        Recorded { loss, weight: self.weight, task_weight: self.task_weight, in_time }
    }

    /// Initial values of the heads, `[inputs, actions]`: orthogonal of gain 0.01, as the policy's.
    pub(crate) fn initial(
        &self,
        [inputs, actions]: [usize; 2],
        rng: &mut Rng,
        values: &mut InitialParameters,
    ) {
        let heads = if self.to == DistillationHead::Head { self.teachers.len() } else { 0 };
        for i in 0..heads {
            let (weight, bias) = orthogonal_layer(rng, inputs, self.width(i, actions), 0.01);
            values.extend([(format!("{}0.weight", head(i)), weight), (format!("{}0.bias", head(i)), bias)]);
        }
    }
}

fn head(i: usize) -> String {
    format!("distillation.{i}.")
}

/// The term on a trace.
pub(crate) struct Recorded<'t> {
    /// The sum over teachers and steps, before its weight, `[]`.
    pub loss: Tensor<'t>,
    weight: f64,
    task_weight: f64,
    /// 1, or 0 where the rollout was learnt from before.
    in_time: Tensor<'t>,
}

impl<'t> Recorded<'t> {
    /// The environment's terms beside it.
    pub fn beside(&self, task: Tensor<'t>) -> Tensor<'t> {
        task * self.task_weight * self.in_time
    }

    /// The term with its weight.
    pub fn weighted(&self) -> Tensor<'t> {
        self.loss * self.weight
    }
}

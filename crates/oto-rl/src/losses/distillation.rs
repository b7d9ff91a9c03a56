//! Distillation of what a teacher thinks instead of what it does: between peers ("Collaborative Deep Reinforcement Learning",
//! Lin et al. 2017, section 4), and the method that OTO compares itself with ("Policy Distillation and Value Matching in
//! Multiagent Reinforcement Learning", Wadhwania et al. 2019).

use super::{Aikd, masked_mean};
use oto_graph::Tensor;

/// What one teacher thinks of a batch of states.
pub struct SoftTargets<'t> {
    /// How probable each of the student's A actions is for the teacher, `[B]` each.
    pub policy: Vec<Tensor<'t>>,
    /// The teacher's value of the state, `[B]`.
    pub value: Tensor<'t>,
    /// 1 where there is an answer, else 0, `[B]`.
    pub mask: Tensor<'t>,
}

/// For each state, `[B]`, the cross entropy of the student's softmax(Q) and the teacher's policy (the divergence but for the
/// teacher's own entropy); q `[B, A]`, policy A times `[B]`.
pub fn policy_distillation<'t>(q: Tensor<'t>, policy: &[Tensor<'t>]) -> Tensor<'t> {
    -expected(q.log_softmax(), policy)
}

/// For each state, `[B]`, the squared difference of the student's value of the teacher's policy, `sum_a policy(a) Q(s, a)`, and
/// the teacher's own value `[B]`.
pub fn value_matching<'t>(q: Tensor<'t>, policy: &[Tensor<'t>], value: Tensor<'t>) -> Tensor<'t> {
    (expected(q, policy) - value).square()
}

/// The mean of `x` `[B, A]` over actions, each as probable as `policy` says, `[B]`.
fn expected<'t>(x: Tensor<'t>, policy: &[Tensor<'t>]) -> Tensor<'t> {
    let of = |a: usize| x.pick(x.trace().constant(a as f64, &[x.size(0)]));
    let each = policy.iter().enumerate().map(|(a, p)| *p * of(a));
    each.reduce(|a, b| a + b).expect("at least one action")
}

/// Both in the place of a teacher's part of OTO eq. 13: `delta` weighs the policy (reported as `base`), `eta` the value
/// (reported as `rkd_d`).
pub fn policy_and_value<'t>(
    q: Tensor<'t>,
    soft_targets: SoftTargets<'t>,
    delta: Tensor<'t>,
    eta: Tensor<'t>,
) -> Aikd<'t> {
    let SoftTargets { policy, value, mask } = soft_targets;
    let base = masked_mean(policy_distillation(q, &policy), mask);
    let rkd_d = masked_mean(value_matching(q, &policy, value), mask);
    Aikd { base, rkd_d, rkd_a: q.trace().constant(0.0, &[]), total: delta * base + eta * rkd_d }
}

/// The form of the divergence in eq. 2 and 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename_all = "snake_case"))]
pub enum Divergence {
    /// As printed: the temperature divides the teacher's logits alone.
    #[default]
    Printed,
    /// The temperature divides the student's logits too, as in Hinton et al. 2015.
    BothTempered,
    /// As in the authors' code: no temperature, and a summand of 1e-12 in the logarithm.
    OfficialCode,
}

oto_json::json_names! {
    Divergence { Printed = "printed", BothTempered = "both_tempered", OfficialCode = "official_code" }
}

/// For each state, `[B]`, the divergence of eq. 2 (eq. 3, where the teacher's logits come from an alignment network) in one of its
/// forms; teacher's and student's logits `[B, A]`.
pub fn distillation_kl<'t>(
    teacher: Tensor<'t>,
    student: Tensor<'t>,
    tau: f64,
    divergence: Divergence,
) -> Tensor<'t> {
    match divergence {
        Divergence::Printed => temperature_kl(teacher, student, tau),
        Divergence::BothTempered => temperature_kl(teacher, student * (1.0 / tau), tau),
        Divergence::OfficialCode => {
            let teacher = teacher.log_softmax();
            let ratio = (teacher - student.log_softmax()).exp();
            (teacher.exp() * (ratio + 1e-12).log()).sum_last()
        }
    }
}

/// For each state, `[B]`, the divergence of the student's softmax from the teacher's at temperature tau (eq. 2; eq. 3 has the
/// teacher's logits go through an alignment layer first): both `[B, A]`. The student's softmax has no temperature, as printed.
pub fn temperature_kl<'t>(teacher: Tensor<'t>, student: Tensor<'t>, tau: f64) -> Tensor<'t> {
    let teacher = (teacher * (1.0 / tau)).log_softmax();
    (teacher.exp() * (teacher - student.log_softmax())).sum_last()
}

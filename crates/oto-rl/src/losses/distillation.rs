//! Distillation between peers: "Collaborative Deep Reinforcement Learning" (Lin et al. 2017), section 4.

use oto_graph::Tensor;

/// For each state, `[B]`, the divergence of the student's softmax from the teacher's at temperature tau (eq. 2; eq. 3 has the
/// teacher's logits go through an alignment layer first): both `[B, A]`. The student's softmax has no temperature, as printed.
pub fn temperature_kl<'t>(teacher: Tensor<'t>, student: Tensor<'t>, tau: f64) -> Tensor<'t> {
    let teacher = (teacher * (1.0 / tau)).log_softmax();
    (teacher.exp() * (teacher - student.log_softmax())).sum_last()
}

//! Losses for learning from a dataset alone: conservative Q-learning (Kumar et al. 2020; OTO eq. 6 and 7), behaviour cloning
//! (Pomerleau 1991) and TD3+BC (Fujimoto and Gu 2021).

use super::constraint::inverse_magnitude;
use super::{aikd_base, log_sum_exp, rkd_d_continuous, rkd_d_discrete};
use oto_graph::Tensor;

/// CQL's regulariser for discrete actions (OTO eq. 7): mean of `log sum_a exp Q(s, a) - Q(s, a in the data)`; q `[B, A]`.
pub fn cql_discrete<'t>(q: Tensor<'t>, action: Tensor<'t>) -> Tensor<'t> {
    aikd_base(q, action).mean()
}

/// Behaviour cloning for discrete actions (Pomerleau 1991, "Efficient Training of Artificial Neural Networks for Autonomous
/// Navigation"): mean negative log likelihood of the data's actions `[B]` under softmax(logits), `[B, A]`.
pub fn behaviour_cloning_discrete<'t>(logits: Tensor<'t>, action: Tensor<'t>) -> Tensor<'t> {
    rkd_d_discrete(logits, action).mean()
}

/// Behaviour cloning for continuous actions: mean squared error of actions, both `[B, D]`. It is the likelihood of a Gaussian
/// of one width for all states, whose mean is all that a teacher answers with; Tianshou's and d3rlpy's cloning does the same.
pub fn behaviour_cloning_continuous<'t>(pi: Tensor<'t>, action: Tensor<'t>) -> Tensor<'t> {
    rkd_d_continuous(pi, action).mean()
}

/// Half the mean squared error against a target `[B]`, as OTO eq. 6 writes the task.
pub fn half_squared_error<'t>(q: Tensor<'t>, target: Tensor<'t>) -> Tensor<'t> {
    (q - target).square().mean() * 0.5
}

/// CQL(H)'s regulariser for continuous actions: mean of `log sum_m exp(q_m - log mu_m) - Q(s, a in the data)` over all groups
/// of sampled actions, each `[B, M]` with the log density it was drawn with. The authors' code draws from a uniform, the
/// policy now and the policy at the next state, and does not divide by the count; the paper's appendix F has the first two and
/// divides, which is a difference of `log` of the count.
pub fn cql_continuous<'t>(groups: &[(Tensor<'t>, Tensor<'t>)], q_data: Tensor<'t>) -> Tensor<'t> {
    conservative(groups, q_data, ConservativeForm::default())
}

/// What the authors' code of CQL and Cal-QL can change in the regulariser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConservativeForm {
    /// T of `T log sum e^(x / T)`.
    pub temperature: f64,
    /// The bounds between which each state's difference is kept, if any.
    pub clip: Option<[f64; 2]>,
}

impl Default for ConservativeForm {
    fn default() -> Self {
        Self { temperature: 1.0, clip: None }
    }
}

/// [`cql_continuous`] in one of its forms.
pub fn conservative<'t>(
    groups: &[(Tensor<'t>, Tensor<'t>)],
    q_data: Tensor<'t>,
    form: ConservativeForm,
) -> Tensor<'t> {
    let difference = out_of_distribution(groups, form.temperature) - q_data;
    let bound = |b| q_data.trace().constant(b, &[]);
    match form.clip {
        Some([least, most]) => difference.maximum(bound(least)).minimum(bound(most)),
        None => difference,
    }
    .mean()
}

/// The value of sampled actions in the regulariser, `[B]`: `T log sum_m e^((q_m - log mu_m) / T)` over all groups.
pub fn out_of_distribution<'t>(groups: &[(Tensor<'t>, Tensor<'t>)], temperature: f64) -> Tensor<'t> {
    if temperature == 1.0 {
        return log_sum_exp(groups);
    }
    let share = 1.0 / temperature;
    let groups = groups.iter().map(|(q, log_mu)| (*q * share, *log_mu * share)).collect::<Vec<_>>();
    log_sum_exp(&groups) * temperature
}

/// TD3+BC's loss of the actor: `-lambda mean Q(s, pi(s)) + mean (pi(s) - a)^2`, the square a mean over the action's
/// dimensions; lambda is [`td3_bc_scale`]. q_pi `[B]`, pi and action `[B, D]`.
pub fn td3_bc<'t>(q_pi: Tensor<'t>, pi: Tensor<'t>, action: Tensor<'t>, lambda: Tensor<'t>) -> Tensor<'t> {
    (pi - action).square().mean() - lambda * q_pi.mean()
}

/// TD3+BC's lambda, `alpha / mean |Q|`, a constant for the gradient; 0 where that mean is 0. The paper prints it over the data's
/// actions, the authors' code takes the policy's.
pub fn td3_bc_scale<'t>(q: Tensor<'t>, alpha: f64) -> Tensor<'t> {
    inverse_magnitude(q) * alpha
}

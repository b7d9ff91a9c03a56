//! The papers' equations, one function each, on recorded tensors: every backend trains with these and no others.
//!
//! OTO is "An Offline-Transfer-Online Framework for Cloud-Edge Collaborative Distributed Reinforcement Learning"
//! (Zeng et al., TPDS 2024). B is the batch, A the number of actions, N and M numbers of quantiles, D an action vector's width.
//!
//! Where OTO leaves a choice: a quantile student's Q(s, a) is the mean of its quantiles; a teacher answers one action a
//! state; an average over no labels is 0; a pair of states counts only if both are labelled.

pub mod actor_critic;
pub mod adaptive_policy;
pub mod alignment;
pub mod balanced_replay;
pub mod calibrated;
pub mod collaborative;
pub mod constraint;
pub mod deterministic;
pub mod distillation;
pub mod dynamics;
pub mod ensemble;
pub mod expansion;
pub mod implicit;
pub mod offline;

use oto_graph::Tensor;

/// The weights of OTO eq. 13, each a number `[]`, and those of eq. 14's mean over teachers.
#[derive(Clone, Copy)]
pub struct AikdWeights<'t> {
    /// `alpha_AIKD`: the whole teacher term.
    pub alpha_aikd: Tensor<'t>,
    /// `delta`: BASE within it.
    pub delta: Tensor<'t>,
    /// `eta`: both RKD terms within it.
    pub eta: Tensor<'t>,
    /// `alpha_task`: the student's own loss.
    pub alpha_task: Tensor<'t>,
    /// Each of N teachers' part in eq. 14's mean, `[N]`: [`shares`] of the teachers' weights.
    pub share: Tensor<'t>,
}

impl<'t> Aikd<'t> {
    /// OTO eq. 13 without its outer weights: `delta BASE + eta (RKD_D + RKD_A)`, of parts `[]`.
    fn of([base, rkd_d, rkd_a]: [Tensor<'t>; 3], delta: Tensor<'t>, eta: Tensor<'t>) -> Self {
        Aikd { base, rkd_d, rkd_a, total: delta * base + eta * (rkd_d + rkd_a) }
    }
}

/// One teacher's labels for a batch.
#[derive(Clone, Copy)]
pub struct Labels<'t> {
    /// The teacher's actions `[B]`, continuous ones `[B, D]`; anything valid where there is no label.
    pub action: Tensor<'t>,
    /// 1 where there is a label, else 0, `[B]`.
    pub mask: Tensor<'t>,
}

/// One teacher's regulariser (the bracket of OTO eq. 13) and its parts, each `[]`.
#[derive(Clone, Copy)]
pub struct Aikd<'t> {
    /// OTO eq. 10.
    pub base: Tensor<'t>,
    /// OTO eq. 11, first term.
    pub rkd_d: Tensor<'t>,
    /// OTO eq. 11 and 12.
    pub rkd_a: Tensor<'t>,
    /// `delta base + eta (rkd_d + rkd_a)`.
    pub total: Tensor<'t>,
}

/// Mean over the entries of `x` `[B]` whose `mask` is 1; 0 where there are none.
pub fn masked_mean<'t>(x: Tensor<'t>, mask: Tensor<'t>) -> Tensor<'t> {
    let one = x.trace().constant(1.0, &[]);
    (x * mask).sum() / mask.sum().maximum(one)
}

/// Q-values `[B, A]` of quantiles `[B, A, N]`: their means.
pub fn q_values(theta: Tensor<'_>) -> Tensor<'_> {
    theta.mean_last()
}

/// The quantile regression loss (Dabney et al. 2018, eq. 10), mean over the batch: theta `[B, N]`, target `[B, M]`.
pub fn quantile_huber<'t>(theta: Tensor<'t>, target: Tensor<'t>) -> Tensor<'t> {
    quantile_huber_rows(theta, target).mean()
}

/// The same of each row, `[B]`.
pub fn quantile_huber_rows<'t>(theta: Tensor<'t>, target: Tensor<'t>) -> Tensor<'t> {
    theta.quantile_huber(target, 1.0)
}

/// OTO eq. 10 for each state, `[B]`: `log sum_a exp Q(s, a) - Q(s, teacher's a)`; q `[B, A]`, action `[B]`.
pub fn aikd_base<'t>(q: Tensor<'t>, teacher_action: Tensor<'t>) -> Tensor<'t> {
    q.logsumexp() - q.pick(teacher_action)
}

/// RKD-D for discrete actions, for each state, `[B]`: the teacher action's negative log likelihood under softmax(Q).
pub fn rkd_d_discrete<'t>(q: Tensor<'t>, teacher_action: Tensor<'t>) -> Tensor<'t> {
    -q.log_softmax().pick(teacher_action)
}

/// RKD-D for continuous actions, for each state, `[B]`: squared difference, mean over the vector; both `[B, D]`.
pub fn rkd_d_continuous<'t>(student: Tensor<'t>, teacher: Tensor<'t>) -> Tensor<'t> {
    (student - teacher).square().mean_last()
}

/// RKD-A (OTO eq. 12) for each pair (i, perm\[i\]), `[B]`: squared difference of the midpoints of the teacher's and the
/// student's action vectors `[B, D]`, mean over the vector. Discrete actions: one-hot, and softmax(Q).
pub fn rkd_a<'t>(student: Tensor<'t>, teacher: Tensor<'t>, perm: Tensor<'t>) -> Tensor<'t> {
    let midpoint = |v: Tensor<'t>| (v + v.rows(perm)) * 0.5;
    (midpoint(teacher) - midpoint(student)).square().mean_last()
}

/// One teacher's part of OTO eq. 13 for a student with discrete actions: q `[B, A]`, perm `[B]`.
pub fn aikd<'t>(
    q: Tensor<'t>,
    labels: Labels<'t>,
    perm: Tensor<'t>,
    delta: Tensor<'t>,
    eta: Tensor<'t>,
) -> Aikd<'t> {
    let Labels { action, mask } = labels;
    let base = masked_mean(aikd_base(q, action), mask);
    let rkd_d = masked_mean(rkd_d_discrete(q, action), mask);
    let both = mask * mask.rows(perm);
    let rkd_a = masked_mean(rkd_a(q.softmax(), action.one_hot(q.size(1)), perm), both);
    Aikd::of([base, rkd_d, rkd_a], delta, eta)
}

/// One teacher's part of OTO eq. 13 for a student with continuous actions: what acts `[B, D]`, the teacher's actions `[B, D]`,
/// perm `[B]`. BASE `[]` is on its critics, RKD on what acts.
pub fn aikd_continuous<'t>(
    base: Tensor<'t>,
    student: Tensor<'t>,
    labels: Labels<'t>,
    perm: Tensor<'t>,
    weights: AikdWeights<'t>,
) -> Aikd<'t> {
    let Labels { action, mask } = labels;
    let rkd_d = masked_mean(rkd_d_continuous(student, action), mask);
    let both = mask * mask.rows(perm);
    let rkd_a = masked_mean(rkd_a(student, action, perm), both);
    Aikd::of([base, rkd_d, rkd_a], weights.delta, weights.eta)
}

/// OTO eq. 14: `alpha_aikd sum_i share_i R_i + alpha_task task`, as printed where each share is 1/N. A teacher without
/// labels counts with 0; without teachers only the task is left.
pub fn transfer<'t>(teachers: &[Aikd<'t>], task: Tensor<'t>, weights: AikdWeights<'t>) -> Tensor<'t> {
    let task = weights.alpha_task * task;
    match over_teachers(teachers.iter().map(|t| t.total), weights.share) {
        Some(mean) => weights.alpha_aikd * mean + task,
        None => task,
    }
}

/// Eq. 14's mean of something that each of N teachers has, all `[]`; `share` is `[N]`.
pub fn over_teachers<'t>(each: impl Iterator<Item = Tensor<'t>>, share: Tensor<'t>) -> Option<Tensor<'t>> {
    let part = |i: usize| share.rows(share.trace().constant(i as f64, &[1])).reshape(&[]);
    each.enumerate().map(|(i, x)| part(i) * x).reduce(|a, b| a + b)
}

/// The teachers' parts in eq. 14's mean: their weights over the weights' sum, so 1/N where all weigh alike, whether they
/// labelled anything or not. All 0 where no weight is above 0.
pub fn shares(weights: &[f64], shares: &mut Vec<f32>) {
    let sum = weights.iter().sum::<f64>();
    shares.clear();
    shares.extend(weights.iter().map(|w| if sum > 0.0 { (w / sum) as f32 } else { 0.0 }));
}

/// OTO eq. 10 with sampled actions, for each state, `[B]`: `logsumexp_m(q_m - log mu_m) - log M - Q(s, teacher's a)`, where
/// the sum over actions becomes an importance-weighted mean. Groups of actions may be drawn differently: each is q and
/// log_mu `[B, M]`; teacher_q `[B]`.
pub fn aikd_base_sampled<'t>(groups: &[(Tensor<'t>, Tensor<'t>)], teacher_q: Tensor<'t>) -> Tensor<'t> {
    let count = groups.iter().map(|(q, _)| q.size(1)).sum::<usize>();
    log_sum_exp(groups) + -(count as f64).ln() - teacher_q
}

/// For each state, `[B]`, the logarithm of the sum of `e^q / mu` over the actions of all groups, each q and log mu `[B, M]`.
pub fn log_sum_exp<'t>(groups: &[(Tensor<'t>, Tensor<'t>)]) -> Tensor<'t> {
    // log(e^a + e^b) without an exponential that could overflow.
    let add = |a: Tensor<'t>, b: Tensor<'t>| a.maximum(b) + (-(a - b).abs()).softplus();
    let each = groups.iter().map(|(q, log_mu)| (*q - *log_mu).logsumexp());
    each.reduce(add).expect("at least one group of actions")
}

//! The kind `losses`: each term is recorded with `oto-graph` as training records it, differentiated there, evaluated by candle
//! in float64 and float32, and compared in value, parts and gradients.
//!
//! Where a file stores several variants of a term, the one that oto trains with is checked: quantile Huber sums over targets
//! (`loss`, not `loss_sb3_reduction`), and a pair of states counts if both are labelled (not `subset_variant`).

use crate::collaborative;
use crate::compare::{Outcome, Worst};
use crate::offline_online;
use crate::read::Cases;
use crate::term::{Term, TermError};
use oto_candle::{Precision, evaluate};
use oto_graph::{Activation, Tensor, Trace, grad};
use oto_rl::losses::actor_critic::{
    GaeStep, critic, gae, ppo_clip, sac_actor, soft_target, squashed_gaussian,
};
use oto_rl::losses::calibrated::cal_ql;
use oto_rl::losses::deterministic::{bellman_target, deterministic_actor, smoothed_action};
use oto_rl::losses::distillation::temperature_kl;
use oto_rl::losses::ensemble::edac_diversity;
use oto_rl::losses::offline::{cql_continuous, cql_discrete, half_squared_error, td3_bc, td3_bc_scale};
use oto_rl::losses::{
    Aikd, AikdWeights, Labels, aikd, aikd_base, aikd_base_sampled, q_values, quantile_huber, rkd_a,
    rkd_d_continuous, rkd_d_discrete, transfer,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

const PRECISIONS: [(Precision, &str, f64); 2] =
    [(Precision::Double, "float64", 1e-9), (Precision::Single, "float32", 1e-4)];

#[derive(Deserialize)]
struct Losses {
    cases: BTreeMap<String, Vec<Value>>,
}

pub(crate) type Record = for<'t> fn(&mut Term<'t, '_>) -> Result<(), TermError>;

/// The terms this build has.
fn term(name: &str) -> Option<Record> {
    Some(match name {
        "quantile_huber" => record_quantile_huber,
        "aikd_base" => record_aikd_base,
        "rkd_d_discrete" => record_rkd_d_discrete,
        "rkd_d_continuous" => record_rkd_d_continuous,
        "rkd_a_discrete" => record_rkd_a_discrete,
        "rkd_a_continuous" => record_rkd_a_continuous,
        "aikd_full" => record_aikd_full,
        "aikd_masked" => record_aikd_masked,
        "aikd_multi_teacher" => record_aikd_multi_teacher,
        "aikd_multi_masked" => record_aikd_multi_masked,
        "aikd_full_continuous" => record_aikd_full_continuous,
        "cql_discrete" => record_cql_discrete,
        "cql_continuous" => record_cql_continuous,
        "sac_critic" => record_sac_critic,
        "sac_actor" => record_sac_actor,
        "squashed_gaussian" => record_squashed_gaussian,
        "ppo_clip" => record_ppo_clip,
        "temperature_kl" => record_temperature_kl,
        "td3bc_actor" => record_td3_bc,
        "calql" => record_cal_ql,
        "td3_critic" => record_td3_critic,
        "ddpg_critic" => record_ddpg_critic,
        "ddpg_actor" => record_deterministic_actor,
        "edac_diversity" => record_edac_diversity,
        "layer_norm_critic" => record_layer_norm_critic,
        name => return collaborative::term(name).or_else(|| offline_online::term(name)),
    })
}

/// Two cases, float64 and float32, for each recorded one; one that is named as unsupported for each of an unknown term.
pub(crate) fn losses(text: &[u8]) -> Result<Cases, String> {
    let Losses { cases } =
        serde_json::from_slice(text).map_err(|error| format!("not a file of this kind: {error}"))?;
    let all =
        cases.iter().flat_map(|(name, list)| list.iter().enumerate().map(move |(i, case)| (name, i, case)));
    Ok(all.flat_map(|(name, index, case)| check(name, index, case)).collect())
}

fn check(name: &str, index: usize, case: &Value) -> Cases {
    let name: String = name.chars().take(64).collect();
    let whole = |outcome| vec![(format!("{name}[{index}]"), outcome)];
    if name == "gae" {
        let compared = advantages(&mut Term::new(&Trace::new(), case));
        return vec![(format!("{name}[{index}] float64"), compared.unwrap_or_else(refused))];
    }
    let Some(record) = term(&name) else {
        return whole(Outcome::Unsupported(format!("this build has no term {name}")));
    };
    let trace = Trace::new();
    let mut term = Term::new(&trace, case);
    if let Err(error) = record(&mut term) {
        return whole(refused(error));
    }
    let compare = |(precision, label, tolerance)| {
        (format!("{name}[{index}] {label}"), compare(&term, precision, tolerance))
    };
    match term.expected.is_empty() {
        // Plain numbers have one precision.
        true => vec![compare(PRECISIONS[0])],
        false => PRECISIONS.map(compare).into(),
    }
}

fn refused(error: TermError) -> Outcome {
    match error {
        TermError::Unsupported(reason) => Outcome::Unsupported(reason),
        TermError::Failed(reason) => Outcome::Failed(reason),
    }
}

/// Advantages are not differentiated: plain numbers, in float64.
fn advantages(term: &mut Term<'_, '_>) -> Result<Outcome, TermError> {
    let mut column = |key| term.numbers(key, "T");
    let (reward, value, next_value) = (column("reward")?, column("value")?, column("next_value")?);
    let (terminated, truncated) = (column("terminated")?, column("truncated")?);
    let (expected, returns) = (column("advantage")?, column("returns")?);
    let step = |i: usize| GaeStep {
        reward: reward[i],
        value: value[i],
        next_value: next_value[i],
        terminated: terminated[i] != 0.0,
        truncated: truncated[i] != 0.0,
    };
    let steps = (0..reward.len()).map(step).collect::<Vec<_>>();
    let mut got = vec![0.0; steps.len()];
    gae(&steps, term.value("gamma")?, term.value("lam")?, &mut got);
    let mut worst = Worst::default();
    worst.numbers(got.iter().copied(), &expected, 1e-9, || "advantage".into());
    worst.numbers(got.iter().zip(&value).map(|(a, v)| a + v), &returns, 1e-9, || "returns".into());
    Ok(Outcome::Compared(worst))
}

fn compare(term: &Term<'_, '_>, precision: Precision, tolerance: f64) -> Outcome {
    let mut worst = Worst::default();
    for plain in &term.plain {
        worst.numbers(plain.got.iter().copied(), &plain.values, tolerance, || plain.path.clone());
    }
    if term.expected.is_empty() {
        return Outcome::Compared(worst);
    }
    match evaluate(&term.program(), &term.inputs, precision) {
        Ok(values) => {
            for (expected, got) in term.expected.iter().zip(values) {
                worst.numbers(got, &expected.values, tolerance, || expected.path.clone());
            }
            Outcome::Compared(worst)
        }
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn record_quantile_huber(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let (theta, target) = (term.input("theta", "BN")?, term.input("target", "BM")?);
    if term.value("kappa")? != 1.0 {
        return Err(TermError::Unsupported("this build's quantile Huber loss has kappa 1".into()));
    }
    let loss = quantile_huber(theta, target);
    term.expect("per_sample", theta.quantile_huber(target, 1.0))?;
    term.expect("loss", loss)?;
    term.expect("grad_theta", gradient(loss, theta))
}

fn record_aikd_base(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let theta = term.input("theta", "BAN")?;
    let action = term.index("a_teacher", "B", 'A')?;
    let q = q_values(theta);
    let each = aikd_base(q, action);
    term.expect("q", q)?;
    term.expect("per_state", each)?;
    term.expect("loss", each.mean())?;
    term.expect("grad_theta", gradient(each.mean(), theta))
}

fn record_rkd_d_discrete(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let q = term.input("q", "BA")?;
    let loss = rkd_d_discrete(q, term.index("a_teacher", "B", 'A')?).mean();
    term.expect("loss", loss)?;
    term.expect("grad_q", gradient(loss, q))
}

fn record_rkd_d_continuous(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let student = term.input("student", "BD")?;
    let loss = rkd_d_continuous(student, term.input("teacher", "BD")?).mean();
    term.expect("loss", loss)?;
    term.expect("grad_student", gradient(loss, student))
}

fn record_rkd_a_discrete(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let q = term.input("q", "BA")?;
    let teacher = term.index("a_teacher", "B", 'A')?.one_hot(q.size(1));
    let loss = rkd_a(q.softmax(), teacher, term.index("perm", "B", 'B')?).mean();
    term.expect("loss", loss)?;
    term.expect("grad_q", gradient(loss, q))
}

fn record_rkd_a_continuous(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let (student, teacher) = (term.input("student", "BD")?, term.input("teacher", "BD")?);
    let loss = rkd_a(student, teacher, term.index("perm", "B", 'B')?).mean();
    term.expect("loss", loss)?;
    term.expect("grad_student", gradient(loss, student))
}

fn record_aikd_full(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let student = Student::record(term)?;
    let action = term.index("a_teacher", "B", 'A')?;
    student.taught_by_one(term, Labels { action, mask: student.all_labelled() })
}

fn record_aikd_masked(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let student = Student::record(term)?;
    let labels = Labels { action: term.index("a_teacher", "B", 'A')?, mask: term.mask("mask", "B")? };
    student.taught_by_one(term, labels)
}

fn record_aikd_multi_teacher(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let student = Student::record(term)?;
    let mask = student.all_labelled();
    let actions = term.index_rows("a_teachers", "TB", 'A')?;
    student.taught_by_many(term, actions.into_iter().map(|action| Labels { action, mask }))
}

fn record_aikd_multi_masked(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let student = Student::record(term)?;
    let (actions, masks) = (term.index_rows("a_teachers", "TB", 'A')?, term.mask_rows("masks", "TB")?);
    student.taught_by_many(term, actions.into_iter().zip(masks).map(|(action, mask)| Labels { action, mask }))
}

fn record_aikd_full_continuous(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let (q_samples, log_mu) = (term.input("q_samples", "BM")?, term.input("log_mu_samples", "BM")?);
    let (q_teacher, q_data) = (term.input("q_teacher_action", "B")?, term.input("q_data", "B")?);
    let (student, teacher) = (term.input("student_action", "BD")?, term.input("teacher_action", "BD")?);
    let perm = term.index("perm", "B", 'B')?;
    let weights = weights(term)?;
    let base = aikd_base_sampled(&[(q_samples, log_mu)], q_teacher).mean();
    let rkd_d = rkd_d_continuous(student, teacher).mean();
    let rkd_a = rkd_a(student, teacher, perm).mean();
    let total = weights.delta * base + weights.eta * (rkd_d + rkd_a);
    let task = (q_data - term.input("td_target", "B")?).square().mean();
    let loss = transfer(&[Aikd { base, rkd_d, rkd_a, total }], task, weights);
    for (path, tensor) in
        [("terms.base", base), ("terms.rkd_d", rkd_d), ("terms.rkd_a", rkd_a), ("task", task), ("loss", loss)]
    {
        term.expect(path, tensor)?;
    }
    term.expect("grads.q_samples", gradient(loss, q_samples))?;
    term.expect("grads.q_teacher_action", gradient(loss, q_teacher))?;
    term.expect("grads.q_data", gradient(loss, q_data))?;
    term.expect("grads.student_action", gradient(loss, student))
}

fn record_cql_discrete(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let q = term.input("scalar.q", "BA")?;
    let action = term.index("action", "B", 'A')?;
    let alpha = term.input("alpha", "")?;
    let theta = term.input("quantile.theta", "BAN")?;
    let scalar = half_squared_error(q.pick(action), term.input("scalar.td_target", "B")?);
    let quantile = quantile_huber(theta.pick(action), term.input("quantile.target", "BM")?);
    let kinds =
        [("scalar", q, q, scalar, "grad_q"), ("quantile", theta, q_values(theta), quantile, "grad_theta")];
    for (kind, leaf, q, task, grad) in kinds {
        let regulariser = cql_discrete(q, action);
        let loss = alpha * regulariser + task;
        term.expect(&format!("{kind}.regulariser"), regulariser)?;
        term.expect(&format!("{kind}.task"), task)?;
        term.expect(&format!("{kind}.loss"), loss)?;
        term.expect(&format!("{kind}.{grad}"), gradient(loss, leaf))?;
    }
    Ok(())
}

fn record_cql_continuous(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let (uniform, current, next) =
        (term.input("q_uniform", "BM")?, term.input("q_current", "BM")?, term.input("q_next", "BM")?);
    let log_current = term.input("log_prob_current", "BM")?;
    let log_next = term.input("log_prob_next", "BM")?;
    let log_uniform = term.input("log_uniform_density", "")?;
    let data = term.input("q_data", "B")?;
    let density = log_uniform.broadcast(&uniform.shape());
    let groups = [(uniform, density), (current, log_current), (next, log_next)];
    let code = cql_continuous(&groups, data);
    let count = 2 * uniform.size(1);
    let paper = cql_continuous(&groups[..2], data) + -(count as f64).ln();
    for (kind, loss, leaves) in [("official_code", code, 3), ("paper_appendix", paper, 2)] {
        term.expect(&format!("{kind}.loss"), loss)?;
        for (name, leaf) in
            ["q_uniform", "q_current", "q_next"].into_iter().zip([uniform, current, next]).take(leaves)
        {
            term.expect(&format!("{kind}.grads.{name}"), gradient(loss, leaf))?;
        }
        term.expect(&format!("{kind}.grads.q_data"), gradient(loss, data))?;
    }
    Ok(())
}

/// Row `i` of `[K, B]`.
pub(crate) fn row<'t>(x: Tensor<'t>, i: usize) -> Tensor<'t> {
    x.rows(x.trace().constant(i as f64, &[1])).reshape(&[x.size(1)])
}

fn record_sac_critic(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let q = term.input("q", "KB")?;
    let (reward, terminated) = (term.input("reward", "B")?, term.mask("terminated", "B")?);
    let (next_q, next_log_prob) = (term.input("min_q_next", "B")?, term.input("log_prob_next", "B")?);
    let (gamma, alpha) = (term.input("gamma", "")?, term.input("alpha", "")?);
    let discount = gamma * (-terminated + 1.0);
    let target = soft_target(reward, discount, next_q, next_log_prob, alpha);
    let each = (0..q.size(0)).map(|i| critic(row(q, i), target)).collect::<Vec<_>>();
    term.expect("target", target)?;
    for (i, loss) in each.iter().enumerate() {
        term.expect(&format!("loss_each.{i}"), *loss)?;
    }
    let Some(loss) = each.into_iter().reduce(|a, b| a + b) else {
        return Err(TermError::Failed("q holds no critic".into()));
    };
    term.expect("loss", loss)?;
    term.expect("grad_q", gradient(loss, q))
}

fn record_sac_actor(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let (q, log_prob, alpha) =
        (term.input("q", "KB")?, term.input("log_prob", "B")?, term.input("alpha", "")?);
    let Some(min) = (0..q.size(0)).map(|i| row(q, i)).reduce(Tensor::minimum) else {
        return Err(TermError::Failed("q holds no critic".into()));
    };
    let loss = sac_actor(min, log_prob, alpha);
    term.expect("loss", loss)?;
    term.expect("grads.q", gradient(loss, q))?;
    term.expect("grads.log_prob", gradient(loss, log_prob))
}

fn record_squashed_gaussian(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let (mean, log_std) = (term.input("mean", "BD")?, term.input("log_std", "BD")?);
    let squashed = squashed_gaussian(mean, log_std, term.input("noise", "BD")?);
    let probe = squashed.log_prob.mean() + squashed.action.sum_last().mean();
    term.expect("action", squashed.action)?;
    term.expect("log_prob", squashed.log_prob)?;
    term.expect("loss", probe)?;
    term.expect("grads.mean", gradient(probe, mean))?;
    term.expect("grads.log_std", gradient(probe, log_std))
}

fn record_ppo_clip(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let (new, old) = (term.input("log_prob_new", "B")?, term.input("log_prob_old", "B")?);
    let clip = term.value("clip")?;
    let loss = ppo_clip(new, old, term.input("advantage", "B")?, clip);
    term.expect("ratio", (new - old).exp())?;
    term.expect("loss", loss)?;
    term.expect("grad_log_prob_new", gradient(loss, new))
}

fn record_temperature_kl(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let (teacher, student) = (term.input("z_teacher", "BA")?, term.input("z_student", "BA")?);
    let tau = term.value("tau")?;
    let (weight, bias) = (term.input("eq3.W", "AA")?, term.input("eq3.b", "A")?);
    let aligned = teacher.linear(weight, bias, Activation::Identity);
    term.expect("eq3.aligned", aligned)?;
    for (equation, teacher) in [("eq2", teacher), ("eq3", aligned)] {
        let each = temperature_kl(teacher, student, tau);
        term.expect(&format!("{equation}.per_step"), each)?;
        term.expect(&format!("{equation}.loss_sum"), each.sum())?;
        term.expect(&format!("{equation}.loss_mean"), each.mean())?;
        term.expect(&format!("{equation}.grad_z_student_of_sum"), gradient(each.sum(), student))?;
    }
    Ok(())
}

fn record_td3_bc(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let (q_pi, q_data) = (term.input("q_pi", "B")?, term.input("q_data", "B")?);
    let (pi, action) = (term.input("pi", "BD")?, term.input("action", "BD")?);
    let alpha = term.value("alpha")?;
    let variants = [
        ("printed", q_data, "loss_mean_over_dims", "grads_mean_over_dims"),
        ("official_code", q_pi, "loss", "grads"),
    ];
    for (variant, scaled_by, loss_name, grads) in variants {
        let lambda = td3_bc_scale(scaled_by, alpha);
        let loss = td3_bc(q_pi, pi, action, lambda);
        term.expect(&format!("{variant}.lam"), lambda)?;
        term.expect(&format!("{variant}.{loss_name}"), loss)?;
        term.expect(&format!("{variant}.{grads}.q_pi"), gradient(loss, q_pi))?;
        term.expect(&format!("{variant}.{grads}.pi"), gradient(loss, pi))?;
    }
    Ok(())
}

fn record_cal_ql(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let (q_pi, q_mu) = (term.input("q_pi", "BM")?, term.input("q_mu", "B")?);
    let (q_data, target) = (term.input("q_data", "B")?, term.input("td_target", "B")?);
    let alpha = term.input("alpha", "")?;
    let (regulariser, task) = (cal_ql(q_pi, q_mu, q_data), half_squared_error(q_data, target));
    let loss = alpha * regulariser + task;
    term.expect("regulariser", regulariser)?;
    term.expect("task", task)?;
    term.expect("loss", loss)?;
    term.expect("grads.q_pi", gradient(loss, q_pi))?;
    term.expect("grads.q_data", gradient(loss, q_data))
}

/// The term alone, and in the loss of an ensemble of tanh critics, differentiated towards their weights: a gradient of a gradient.
/// TD3: two critics against the smaller of two target critics.
fn record_td3_critic(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let (q, next_q) = (term.input("q", "KB")?, smoothed_values(term, ["KB", "KBD"])?);
    let least = (0..next_q.size(0)).map(|i| row(next_q, i)).reduce(Tensor::minimum);
    let Some(next_q) = least else { return Err(TermError::Failed("q holds no critic".into())) };
    let target = deterministic_target(term, next_q)?;
    let loss = (0..q.size(0)).map(|i| critic(row(q, i), target)).reduce(|a, b| a + b);
    let Some(loss) = loss else { return Err(TermError::Failed("q holds no critic".into())) };
    term.expect("loss", loss)?;
    term.expect("grads.q", gradient(loss, q))
}

/// DDPG: one of each.
fn record_ddpg_critic(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let (q, next_q) = (term.input("q", "B")?, smoothed_values(term, ["B", "BD"])?);
    let loss = critic(q, deterministic_target(term, next_q)?);
    term.expect("loss", loss)?;
    term.expect("grads.q", gradient(loss, q))
}

/// What target critics say of the smoothed action. They are quadratic functions of it, whose coefficients the file has.
fn smoothed_values<'t>(term: &mut Term<'t, '_>, axes: [&str; 2]) -> Result<Tensor<'t>, TermError> {
    let (action, noise) = (term.input("pi_target", "BD")?, term.input("noise_standard_normal", "BD")?);
    let (sigma, clip, limit) = (term.value("sigma")?, term.value("noise_clip")?, term.value("action_max")?);
    let smoothed = smoothed_action(action, noise, sigma, clip, limit);
    let c0 = term.input("target_critic.c0", axes[0])?;
    let (c1, c2) = (term.input("target_critic.c1", axes[1])?, term.input("target_critic.c2", axes[1])?);
    term.expect("parts.smoothed_action", smoothed)?;
    let next_q = c0 + (c1 * smoothed).sum_last() + (c2 * smoothed.square()).sum_last() * 0.5;
    term.expect("parts.q_target", next_q)?;
    Ok(next_q)
}

fn deterministic_target<'t>(term: &mut Term<'t, '_>, next_q: Tensor<'t>) -> Result<Tensor<'t>, TermError> {
    let (reward, terminated) = (term.input("reward", "B")?, term.mask("terminated", "B")?);
    let target = bellman_target(reward, term.input("gamma", "")? * (-terminated + 1.0), next_q);
    term.expect("parts.target", target)?;
    Ok(target)
}

/// Eq. 5 on a linear actor and a critic that is a quadratic function of the action.
fn record_deterministic_actor(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let (state, weight, bias) = (term.input("state", "BS")?, term.input("W", "DS")?, term.input("b", "D")?);
    let action = state.linear(weight, bias, Activation::Identity).tanh() * term.value("action_max")?;
    let (c0, slope) = (term.input("critic.c0", "B")?, term.input("critic.g", "BD")?);
    let curvature = term.input("critic.H", "BDE")?;
    let (batch, width) = (action.size(0), action.size(1));
    if curvature.size(2) != width {
        return Err(TermError::Failed("critic.H is not square".into()));
    }
    let column = action.reshape(&[batch, 1, width]).broadcast(&[batch, width, width]);
    let bent = (curvature * column).sum_last().reshape(&[batch, width]);
    let q = c0 + (slope * action).sum_last() + (bent * action).sum_last() * 0.5;
    let loss = deterministic_actor(q);
    term.expect("parts.action", action)?;
    term.expect("parts.q", q)?;
    term.expect("parts.grad_action", gradient(loss, action))?;
    term.expect("loss", loss)?;
    term.expect("grads.W", gradient(loss, weight))?;
    term.expect("grads.b", gradient(loss, bias))
}

fn record_edac_diversity<'t>(term: &mut Term<'t, '_>) -> Result<(), TermError> {
    let gradients = term.input("q_action_grad", "NBD")?;
    if gradients.size(0) < 2 {
        return Err(TermError::Failed("q_action_grad holds one critic, expected two or more".into()));
    }
    let loss = edac_diversity(gradients);
    term.expect("loss", loss)?;
    // A gradient of 0 has a diversity, but the file has no gradient of that.
    if term.has("grads.q_action_grad") {
        term.expect("grads.q_action_grad", gradient(loss, gradients))?;
    }
    let state = term.input("network.state", "CS")?;
    let action = term.input("network.action", "CE")?;
    let target = term.input("network.td_target", "C")?;
    let eta = term.value("network.eta")?;
    let names = ["W1", "b1", "W2", "b2", "W3", "b3"];
    let axes = ["MIH", "M1H", "MHJ", "M1J", "MJ1", "M11"];
    let mut params = Vec::new();
    for (name, axes) in names.iter().zip(axes) {
        params.push(term.input(&format!("network.parameters.{name}"), axes)?);
    }
    let layer = |x: Tensor<'t>, i: usize| x.matmul(params[2 * i], false, false) + params[2 * i + 1];
    let (x, (n, batch)) = (state.concat(action), (params[0].size(0), state.size(0)));
    if n < 2 || x.size(1) != params[0].size(1) {
        return Err(TermError::Failed(
            "network.parameters.W1 does not take two or more times state and action".into(),
        ));
    }
    let hidden = layer(layer(x, 0).tanh(), 1).tanh();
    let q = layer(hidden, 2).reshape(&[n, batch]);
    // Each critic's own gradient: the sum of all towards an action that each has for itself.
    let own = action.reshape(&[1, batch, action.size(1)]).broadcast(&[n, batch, action.size(1)]) + 0.0;
    let x = state.reshape(&[1, batch, state.size(1)]).broadcast(&[n, batch, state.size(1)]).concat(own);
    let each = layer(layer(layer(x, 0).tanh(), 1).tanh(), 2);
    let slopes = gradient(each.sum(), own);
    let diversity = edac_diversity(slopes);
    let errors = (0..n).map(|i| critic(q.member(i), target)).reduce(|a, b| a + b);
    let loss = errors.expect("two critics or more") + diversity * eta;
    term.expect("network.q", q)?;
    term.expect("network.q_action_grad", slopes)?;
    term.expect("network.diversity", diversity)?;
    term.expect("network.loss", loss)?;
    for (name, gradient) in names.iter().zip(grad(loss, &params)) {
        term.expect(&format!("network.grads.{name}"), gradient)?;
    }
    Ok(())
}

/// Two layers, each normalised before its ReLU, and a head.
fn record_layer_norm_critic(term: &mut Term<'_, '_>) -> Result<(), TermError> {
    let x = term.input("x", "BI")?;
    let axes = [["HI", "H", "H", "H"], ["JH", "J", "J", "J"]];
    let mut layers = Vec::new();
    for (i, axes) in axes.iter().enumerate() {
        for (part, axes) in ["W", "b", "gain", "bias"].iter().zip(axes) {
            layers.push(term.input(&format!("layers.{i}.{part}"), axes)?);
        }
    }
    let head = [term.input("head.W", "OJ")?, term.input("head.b", "O")?];
    for (key, epsilon) in [("eps_1e_6", 1e-6), ("eps_1e_5", 1e-5)] {
        let mut hidden = x;
        for (i, layer) in layers.chunks_exact(4).enumerate() {
            let sums = hidden.linear(layer[0], layer[1], Activation::Identity);
            let normalised = sums.layer_norm(epsilon) * layer[2] + layer[3];
            hidden = normalised.relu();
            let path = format!("{key}.normalised.{i}");
            if term.has(&path) {
                term.expect(&path, normalised)?;
            }
        }
        let q = hidden.linear(head[0], head[1], Activation::Identity);
        term.expect(&format!("{key}.q"), q.reshape(&[q.size(0) * q.size(1)]))?;
    }
    Ok(())
}

/// What all four cases of a quantile student under the AIKD loss have in common.
struct Student<'t> {
    theta: Tensor<'t>,
    task: Tensor<'t>,
    perm: Tensor<'t>,
    weights: AikdWeights<'t>,
}

impl<'t> Student<'t> {
    fn record(term: &mut Term<'t, '_>) -> Result<Self, TermError> {
        let theta = term.input("theta", "BAN")?;
        let action = term.index("action", "B", 'A')?;
        let task = quantile_huber(theta.pick(action), term.input("target", "BM")?);
        Ok(Self { theta, task, perm: term.index("perm", "B", 'B')?, weights: weights(term)? })
    }

    fn all_labelled(&self) -> Tensor<'t> {
        self.theta.trace().constant(1.0, &[self.theta.size(0)])
    }

    fn aikd(&self, labels: Labels<'t>) -> Aikd<'t> {
        aikd(q_values(self.theta), labels, self.perm, self.weights.delta, self.weights.eta)
    }

    fn taught_by_one(&self, term: &mut Term<'t, '_>, labels: Labels<'t>) -> Result<(), TermError> {
        let teacher = self.aikd(labels);
        expect_parts(term, "terms", teacher)?;
        self.expect_loss(term, &[teacher])
    }

    fn taught_by_many(
        &self,
        term: &mut Term<'t, '_>,
        labels: impl Iterator<Item = Labels<'t>>,
    ) -> Result<(), TermError> {
        let teachers: Vec<_> = labels.map(|labels| self.aikd(labels)).collect();
        for (index, &teacher) in teachers.iter().enumerate() {
            expect_parts(term, &format!("terms.{index}"), teacher)?;
        }
        self.expect_loss(term, &teachers)
    }

    fn expect_loss(&self, term: &mut Term<'t, '_>, teachers: &[Aikd<'t>]) -> Result<(), TermError> {
        let n = teachers.len();
        let share = self.task.trace().constant(1.0 / n as f64, &[n]);
        let loss = transfer(teachers, self.task, AikdWeights { share, ..self.weights });
        term.expect("task", self.task)?;
        term.expect("loss", loss)?;
        term.expect("grad_theta", gradient(loss, self.theta))
    }
}

fn expect_parts<'t>(term: &mut Term<'t, '_>, path: &str, parts: Aikd<'t>) -> Result<(), TermError> {
    term.expect(&format!("{path}.base"), parts.base)?;
    term.expect(&format!("{path}.rkd_d"), parts.rkd_d)?;
    term.expect(&format!("{path}.rkd_a"), parts.rkd_a)?;
    term.expect(&format!("{path}.total"), parts.total)
}

fn weights<'t>(term: &mut Term<'t, '_>) -> Result<AikdWeights<'t>, TermError> {
    let alpha_task = term.input("alpha_task", "")?;
    Ok(AikdWeights {
        alpha_aikd: term.input("alpha_aikd", "")?,
        delta: term.input("delta", "")?,
        eta: term.input("eta", "")?,
        alpha_task,
        // One teacher's; where there are several, theirs are put in.
        share: alpha_task.trace().constant(1.0, &[1]),
    })
}

pub(crate) fn gradient<'t>(loss: Tensor<'t>, towards: Tensor<'t>) -> Tensor<'t> {
    grad(loss, &[towards])[0]
}

//! The terms of learning from a dataset and going on online: each is recorded with the functions of `oto_rl::losses`, in every
//! variant that the file has. Schedules, priorities and choices are plain numbers.

use crate::losses::{Record, gradient, row};
use crate::term::{Term, TermError};
use oto_graph::Tensor;
use oto_rl::losses::actor_critic::{critic, gaussian_log_prob, sac_actor, soft_target, squashed_gaussian};
use oto_rl::losses::adaptive_policy::{gctd3bc, offline_mean, squared_distance};
use oto_rl::losses::alignment::{
    LARGEST_ACTION, aligned_q, clip_density, likelihood_actor, likelihood_scale, softly_clipped,
    squashed_log_prob,
};
use oto_rl::losses::balanced_replay::{
    conjugate, density_ratio, divergence, f_prime, forgetting_priority, mixture, mixture_std, normalised,
    normaliser, online_priority, pessimistic_q, replay_weight, stratified,
};
use oto_rl::losses::calibrated::{
    ReturnStep, bound_rate, cal_ql, cal_ql_continuous, cal_ql_discrete, cal_ql_expected, calibrated,
    returns_to_go,
};
use oto_rl::losses::constraint::{
    AlphaController, constrained_actor, inverse_magnitude, refined_alpha, relaxation, relaxed_alpha,
};
use oto_rl::losses::deterministic::bellman_target;
use oto_rl::losses::dynamics::{
    bounded_log_variance, disagreement, dynamics_loss, negative_log_likelihood, penalised_reward, uncertainty,
};
use oto_rl::losses::ensemble::{lower_confidence, mean_of_critics, spread_of_critics};
use oto_rl::losses::expansion::{chances, epsilon_greedy, expansion_weights, greedy, sampled};
use oto_rl::losses::implicit::{
    LARGEST_WEIGHT, advantage_weight, expectile, weighted_error, weighted_gaussian,
};
use oto_rl::losses::masked_mean;
use oto_rl::losses::offline::{ConservativeForm, cql_continuous, out_of_distribution, td3_bc_scale};

type Recorded = Result<(), TermError>;

/// The terms of this file.
pub(crate) fn term(name: &str) -> Option<Record> {
    Some(match name {
        "polyak" => record_polyak,
        "td3bc_refined_actor" => record_refined_actor,
        "relaxed_alpha_schedule" => record_relaxed_alpha,
        "adaptive_bc" => record_adaptive_bc,
        "iql_value" => record_expectile,
        "iql_q" => record_implicit_q,
        "awr_policy" => record_weighted_policy,
        "pex_weights" => record_expansion_weights,
        "pex_composite" => record_composite_policy,
        "off2on_density_ratio" => record_density_ratio,
        "off2on_weights" => record_replay_weights,
        "off2on_ensemble" => record_pessimistic_ensemble,
        "off2on_priority" => record_online_priority,
        "moore_priority" => record_forgetting_priority,
        "moore_penalised_reward" => record_penalised_reward,
        "dynamics_nll" => record_dynamics,
        "upq_target" => record_uncertain_target,
        "apl_gcql" => record_gcql,
        "apl_gctd3bc" => record_gctd3bc,
        "calql_regulariser" => record_calibrated,
        "aca_offline_policy" => record_likelihood_policy,
        "aca_q_reconstruction" => record_reconstruction,
        "aca_bellman" => record_alignment,
        "aca_online" => record_aligned_agent,
        "monte_carlo_returns" => record_returns,
        _ => return None,
    })
}

fn failed(reason: &str) -> TermError {
    TermError::Failed(reason.into())
}

/// The discount of each transition: gamma, 0 where the episode terminated.
fn discount<'t>(term: &mut Term<'t, '_>, prefix: &str) -> Result<Tensor<'t>, TermError> {
    let terminated = term.mask(&format!("{prefix}terminated"), "B")?;
    Ok(term.input(&format!("{prefix}gamma"), "")? * (-terminated + 1.0))
}

/// The sum over N critics of their errors against one target; q `[N, B]`.
fn errors<'t>(q: Tensor<'t>, target: Tensor<'t>) -> Vec<Tensor<'t>> {
    (0..q.size(0)).map(|i| critic(row(q, i), target)).collect()
}

fn sum<'t>(each: &[Tensor<'t>]) -> Result<Tensor<'t>, TermError> {
    each.iter().copied().reduce(|a, b| a + b).ok_or_else(|| failed("there is no critic"))
}

/// The smallest over N critics.
fn least(q: Tensor<'_>) -> Result<Tensor<'_>, TermError> {
    (0..q.size(0)).map(|i| row(q, i)).reduce(Tensor::minimum).ok_or_else(|| failed("there is no critic"))
}

fn expect_each<'t>(term: &mut Term<'t, '_>, path: &str, each: &[Tensor<'t>]) -> Recorded {
    each.iter().enumerate().try_for_each(|(i, x)| term.expect(&format!("{path}.{i}"), *x))
}

/// The loss of a variant and its gradients, each named as the input it belongs to.
pub(crate) fn expect_loss<'t>(
    term: &mut Term<'t, '_>,
    variant: &str,
    loss: Tensor<'t>,
    leaves: &[(&str, Tensor<'t>)],
) -> Recorded {
    let dot = if variant.is_empty() { "" } else { "." };
    term.expect(&format!("{variant}{dot}loss"), loss)?;
    leaves.iter().try_for_each(|(name, leaf)| {
        term.expect(&format!("{variant}{dot}grads.{name}"), gradient(loss, *leaf))
    })
}

fn record_polyak(term: &mut Term<'_, '_>) -> Recorded {
    let (tau, mut target) = (term.input("tau", "")?, term.input("target", "P")?);
    let online = term.input("online_each_step", "TP")?;
    for step in 0..online.size(0) {
        target = target.polyak(row(online, step), tau);
        term.expect(&format!("target_after_each_step.{step}"), target)?;
    }
    Ok(())
}

fn record_refined_actor(term: &mut Term<'_, '_>) -> Recorded {
    let refined = refined_alpha(term.value("alpha")?, term.value("lam")?);
    term.plain("alpha_refined", &[refined])?;
    let (q_pi, pi, action) = (term.input("q_pi", "B")?, term.input("pi", "BD")?, term.input("action", "BD")?);
    let alpha = term.input("alpha_refined", "")?;
    let (one, scale) = (q_pi.trace().constant(1.0, &[]), inverse_magnitude(q_pi));
    term.expect("normalised.scale", scale)?;
    let variants = [
        ("printed", one, alpha),
        ("printed_sum_over_dims", one, alpha * pi.size(1) as f64),
        ("normalised", scale, alpha),
    ];
    for (variant, scale, alpha) in variants {
        let loss = constrained_actor(q_pi, pi, action, scale, alpha);
        expect_loss(term, variant, loss, &[("q_pi", q_pi), ("pi", pi)])?;
    }
    Ok(())
}

fn record_relaxed_alpha(term: &mut Term<'_, '_>) -> Recorded {
    let (start, end, updates) =
        (term.value("alpha_start")?, term.value("alpha_end")?, term.value("N")? as u64);
    let index = term.numbers("index", "I")?;
    let at = index.iter().map(|i| relaxed_alpha(start, end, updates, *i as u64)).collect::<Vec<_>>();
    term.plain("kappa", &[relaxation(start, end, updates)])?;
    term.plain("alpha", &at)?;
    term.plain("alpha_closed_form", &at)
}

fn record_adaptive_bc(term: &mut Term<'_, '_>) -> Recorded {
    let (q, alpha) = (term.input("q", "NB")?, term.input("alpha", "")?);
    let (pi, action) = (term.input("pi", "BD")?, term.input("action", "BD")?);
    let mean = mean_of_critics(q);
    let scale = inverse_magnitude(mean);
    let loss = constrained_actor(mean, pi, action, scale, alpha);
    term.expect("scale", scale)?;
    expect_loss(term, "actor", loss, &[("q", q), ("pi", pi)])?;
    let value = |key: &str| term.value(&format!("controller.{key}"));
    let mut controller = AlphaController {
        k_p: value("K_P")?,
        k_d: value("K_D")?,
        target: value("R_target")?,
        most: value("alpha_max")?,
        alpha: value("alpha_initial")?,
        average: value("R_avg_initial")?,
    };
    for step in 0.. {
        let path = |key: &str| format!("controller.steps.{step}.{key}");
        if !term.has(&path("r_current")) {
            break;
        }
        let (score, length) = (term.value(&path("r_current"))?, term.value(&path("episode_length"))?);
        let increment = controller.increment(score);
        term.plain(&path("r_avg"), &[controller.average])?;
        term.plain(&path("alpha_before"), &[controller.alpha])?;
        term.plain(&path("delta_printed"), &[increment])?;
        term.plain(&path("alpha_after_printed_unclipped"), &[controller.alpha + increment])?;
        controller.end_episode(score, length as u64);
        term.plain(&path("alpha_after"), &[controller.alpha])?;
    }
    term.plain("controller.R_avg_final", &[controller.average])
}

fn record_expectile(term: &mut Term<'_, '_>) -> Recorded {
    let (q, v) = (term.input("q_target", "KB")?, term.input("v", "B")?);
    let smaller = least(q)?;
    let loss = expectile(smaller, v, term.value("tau")?);
    term.expect("parts.min_q", smaller)?;
    term.expect("parts.difference", smaller - v)?;
    expect_loss(term, "", loss, &[("v", v)])
}

fn record_implicit_q(term: &mut Term<'_, '_>) -> Recorded {
    let (q, reward) = (term.input("q", "KB")?, term.input("reward", "B")?);
    let discount = discount(term, "")?;
    let target = bellman_target(reward, discount, term.input("v_next", "B")?);
    let each = errors(q, target);
    let total = sum(&each)?;
    term.expect("parts.target", target)?;
    expect_each(term, "parts.loss_each", &each)?;
    expect_loss(term, "mean_of_critics", total * (1.0 / each.len() as f64), &[("q", q)])?;
    expect_loss(term, "sum_of_critics", total, &[("q", q)])
}

fn record_weighted_policy(term: &mut Term<'_, '_>) -> Recorded {
    let (advantage, action) = (term.input("advantage", "B")?, term.input("action", "BD")?);
    let (mean, log_std) = (term.input("mean", "BD")?, term.input("log_std", "D")?);
    let most = if term.has("weight_max") { term.value("weight_max")? } else { LARGEST_WEIGHT };
    let weight = advantage_weight(advantage, term.value("beta")?, most);
    term.expect("parts.weight", weight)?;
    term.expect("parts.log_prob", gaussian_log_prob(mean, log_std, action))?;
    let loss = weighted_gaussian(weight, mean, log_std, action);
    expect_loss(term, "gaussian", loss, &[("mean", mean), ("log_std", log_std)])?;
    expect_loss(term, "deterministic", weighted_error(weight, mean, action), &[("mean", mean)])
}

fn record_expansion_weights(term: &mut Term<'_, '_>) -> Recorded {
    let alpha = term.value("alpha")?;
    let weights = expansion_weights(term.input("q", "BK")?, alpha);
    term.expect("weights", weights)
}

fn record_composite_policy(term: &mut Term<'_, '_>) -> Recorded {
    let (twin, actions) = (term.input("q_twin", "2BK")?, term.input("actions", "BKD")?);
    let (alpha, epsilon) = (term.value("alpha")?, term.value("epsilon")?);
    let q = twin.member(0).minimum(twin.member(1));
    let weights = expansion_weights(q, alpha);
    term.expect("parts.q", q)?;
    term.expect("parts.weights", weights)?;
    term.expect("expected_q", (weights * q).sum_last())?;
    let [batch, k, width] = actions.shape()[..] else { return Err(failed("actions has three axes")) };
    let summed = (actions * weights.reshape(&[batch, k, 1])).sum_to(&[batch, 1, width]);
    term.expect("expected_action", summed.reshape(&[batch, width]))?;

    let (uniform, draw) = (term.numbers("uniform", "B")?, term.numbers("uniform_epsilon", "B")?);
    let (values, offered) = (term.numbers("q_twin", "2BK")?, term.numbers("actions", "BKD")?);
    let (mut random, mut best, mut either) = (Vec::new(), Vec::new(), Vec::new());
    let (mut taken, mut evaluated) = (Vec::new(), Vec::new());
    for (b, (uniform, draw)) in uniform.iter().zip(&draw).enumerate() {
        let smaller = |i: usize| values[b * k + i].min(values[(batch + b) * k + i]);
        let q = (0..k).map(smaller).collect::<Vec<_>>();
        let mut chance = q.clone();
        chances(&mut chance, alpha);
        let chosen = sampled(&chance, *uniform);
        let at_evaluation = epsilon_greedy(&chance, *uniform, epsilon, *draw);
        random.push(chosen as f64);
        best.push(greedy(&q) as f64);
        either.push(at_evaluation as f64);
        let action = |i: usize| &offered[(b * k + i) * width..][..width];
        taken.extend_from_slice(action(chosen));
        evaluated.extend_from_slice(action(at_evaluation));
    }
    for (path, got) in [
        ("sampled_index", random),
        ("greedy_index", best),
        ("epsilon_greedy_index", either),
        ("sampled_action", taken),
        ("epsilon_greedy_action", evaluated),
    ] {
        term.plain(path, &got)?;
    }
    Ok(())
}

fn record_density_ratio(term: &mut Term<'_, '_>) -> Recorded {
    let (offline, online) = (term.input("raw_offline", "F")?, term.input("raw_online", "O")?);
    let ratios = [offline.relu(), online.relu()];
    let loss = density_ratio(ratios[1], ratios[0], 1e-10);
    term.expect("official_code.w_offline", ratios[0])?;
    term.expect("official_code.w_online", ratios[1])?;
    expect_loss(term, "official_code", loss, &[("raw_offline", offline), ("raw_online", online)])?;
    // The printed form has no value where a ratio is negative.
    if !term.has("printed.objective_to_maximise") {
        return Ok(());
    }
    let printed = density_ratio(online, offline, 0.0);
    for (path, tensor) in [
        ("f_online", divergence(online)),
        ("f_prime_online", f_prime(online, 0.0)),
        ("f_star_of_f_prime_offline", conjugate(offline, 0.0)),
        ("objective_to_maximise", -printed),
        ("objective_with_slide_legend", -density_ratio(offline, online, 0.0)),
    ] {
        term.expect(&format!("printed.{path}"), tensor)?;
    }
    expect_loss(term, "printed.minimised", printed, &[("w_offline", offline), ("w_online", online)])
}

fn record_replay_weights(term: &mut Term<'_, '_>) -> Recorded {
    let temperature = term.value("T")?;
    let (offline, batch) = (term.numbers("w_offline", "F")?, term.numbers("w_batch", "B")?);
    let mean = normaliser(&offline, temperature);
    let each = |f: &dyn Fn(f64) -> f64| batch.iter().map(|w| f(*w)).collect::<Vec<_>>();
    term.plain("parts.powered_offline_mean", &[mean])?;
    term.plain("parts.before_clamp", &each(&|w| normalised(w, mean, temperature, 1e-10)))?;
    term.plain("official_code", &each(&|w| replay_weight(w, mean, temperature)))?;
    match term.has("printed") {
        true => term.plain("printed", &each(&|w| normalised(w, mean, temperature, 0.0))),
        false => Ok(()),
    }
}

fn record_pessimistic_ensemble(term: &mut Term<'_, '_>) -> Recorded {
    let (mean_each, std_each) = (term.input("mean_each", "NBD")?, term.input("std_each", "NBD")?);
    let (twin, log_prob) = (term.input("q_twin", "2NB")?, term.input("log_prob", "B")?);
    let alpha = term.input("alpha", "")?;
    let q = pessimistic_q(twin);
    term.expect("parts.q_min_each", twin.member(0).minimum(twin.member(1)))?;
    term.expect("parts.q", q)?;
    term.expect("parts.q_printed_first_critic", mean_of_critics(twin.member(0)))?;

    let [mean, variance] = mixture(mean_each, std_each);
    let std = mixture_std(variance);
    term.expect("policy.mean", mean)?;
    term.expect("policy.variance", variance)?;
    term.expect("policy.std_clamped", std)?;
    term.expect("policy.pre_tanh_at_noise_half", mean + std * 0.5)?;
    let probe = mean.sum() + std.sum();
    expect_loss(term, "policy", probe, &[("mean_each", mean_each), ("std_each", std_each)])?;

    let loss = sac_actor(q, log_prob, alpha);
    term.expect("actor.loss", loss)?;
    let ties = "actor.tie_entries_q_twin";
    term.expect_but("actor.grads.q_twin", gradient(loss, twin), ties)?;
    term.expect("actor.grads.log_prob", gradient(loss, log_prob))
}

fn record_online_priority(term: &mut Term<'_, '_>) -> Recorded {
    let (offline, reference) = (term.value("offline_size")?, term.value("online_reference")?);
    let priority = online_priority(offline as u64, reference as u64, term.value("rho")?);
    let mass = offline + reference * priority;
    term.plain("priority_offline", &[1.0])?;
    term.plain("priority_online", &[priority])?;
    term.plain("online_mass_when_full", &[reference * priority / mass])?;
    term.plain("probability_offline", &[1.0 / mass])?;
    term.plain("probability_online", &[priority / mass])?;
    let priorities = term.numbers("stratified.priorities", "P")?;
    let uniform = term.numbers("stratified.uniform", "B")?;
    let places = stratified(&priorities, &uniform).into_iter().map(|i| i as f64).collect::<Vec<_>>();
    term.plain("stratified.total", &[priorities.iter().sum::<f64>()])?;
    term.plain("stratified.index", &places)?;
    let updates = term.numbers("running_max.updates", "U")?;
    let largest = updates.into_iter().fold(priority, f64::max);
    term.plain("running_max.initial", &[priority])?;
    term.plain("running_max.priority_of_next_online_sample", &[largest])
}

fn record_forgetting_priority(term: &mut Term<'_, '_>) -> Recorded {
    let (alpha, epoch) = (term.value("alpha")?, term.value("epoch")? as u64);
    let online = term.numbers("online", "B")?;
    let priority = online.iter().map(|o| forgetting_priority(*o != 0.0, alpha, epoch)).collect::<Vec<_>>();
    let sum = priority.iter().sum::<f64>();
    term.plain("priority", &priority)?;
    term.plain("probability", &priority.iter().map(|p| p / sum).collect::<Vec<_>>())
}

fn record_penalised_reward(term: &mut Term<'_, '_>) -> Recorded {
    let (means, stds) = (term.input("means", "EBW")?, term.input("stds", "EBW")?);
    let (reward, lambda) = (term.input("reward_hat", "B")?, term.value("lam")?);
    if means.size(2) < 2 {
        return Err(failed("means predicts a reward and no state"));
    }
    for (variant, u) in [("", uncertainty(stds)), ("disagreement_variant.", disagreement(means))] {
        term.expect(&format!("{variant}u"), u)?;
        term.expect(&format!("{variant}reward"), penalised_reward(reward, u, lambda))?;
    }
    Ok(())
}

fn record_dynamics(term: &mut Term<'_, '_>) -> Recorded {
    let (mean, raw) = (term.input("mean", "EBW")?, term.input("raw_logvar", "EBW")?);
    let target = term.input("target", "EBW")?;
    let (most, smallest) = (term.input("max_logvar", "W")?, term.input("min_logvar", "W")?);
    let log_variance = bounded_log_variance(raw, smallest, most);
    let each = negative_log_likelihood(mean, log_variance, target);
    let loss = dynamics_loss(each, smallest, most);
    term.expect("parts.logvar", log_variance)?;
    term.expect("parts.loss_each_member", each)?;
    term.expect("parts.mse_each_member", (mean - target).square().mean_last().mean_last())?;
    let leaves = [("mean", mean), ("raw_logvar", raw), ("max_logvar", most), ("min_logvar", smallest)];
    expect_loss(term, "", loss, &leaves)
}

fn record_uncertain_target(term: &mut Term<'_, '_>) -> Recorded {
    let (next_q, next_log_prob) = (term.input("q_next", "NB")?, term.input("log_prob_next", "B")?);
    let (q, reward) = (term.input("q", "NB")?, term.input("reward", "B")?);
    let (discount, alpha) = (discount(term, "")?, term.input("alpha", "")?);
    let value = lower_confidence(next_q, term.value("beta")?);
    let target = soft_target(reward, discount, value, next_log_prob, alpha);
    term.expect("parts.mean", mean_of_critics(next_q))?;
    term.expect("parts.std", spread_of_critics(next_q))?;
    term.expect("parts.target", target)?;
    let loss = sum(&errors(q, target))?;
    expect_loss(term, "", loss, &[("q", q)])
}

fn record_gcql(term: &mut Term<'_, '_>) -> Recorded {
    let q = term.input("q", "NBA")?;
    let action = term.index("action", "B", 'A')?;
    let (target, offline) = (term.input("td_target", "B")?, term.mask("offline", "B")?);
    let alpha = term.input("alpha", "")?;
    let (mut whole, mut offline_only) = (Vec::new(), Vec::new());
    for i in 0..q.size(0) {
        let values = q.member(i);
        let error = critic(values.pick(action), target);
        let each = values.logsumexp() - values.pick(action);
        let constraint = offline_mean(each, offline);
        term.expect(&format!("parts.A.{i}"), error)?;
        term.expect(&format!("parts.B_each.{i}"), each)?;
        term.expect(&format!("parts.B.{i}"), alpha * constraint)?;
        whole.push(error + alpha * constraint);
        offline_only.push(error + alpha * masked_mean(each, offline));
    }
    let (whole, offline_only) = (sum(&whole)?, sum(&offline_only)?);
    expect_loss(term, "", whole, &[("q", q)])?;
    expect_loss(term, "offline_mean_variant", offline_only, &[("q", q)])?;
    record_gcql_code(term)
}

/// GCQL as in the authors' code: five critics of continuous actions, a batch from one of the two buffers.
fn record_gcql_code<'t>(term: &mut Term<'t, '_>) -> Recorded {
    let at = |key: &str| format!("official_code.{key}");
    let weight = term.value(&at("min_q_weight"))?;
    let online = term.value(&at("online_batch"))? != 0.0;
    let data = term.input(&at("q_data"), "CS")?;
    let names = ["q_uniform", "q_current", "q_next"];
    let mut sampled = Vec::new();
    for name in names {
        sampled.push(term.input(&at(name), "CSM")?);
    }
    let current = term.input(&at("log_prob_current"), "SM")?;
    let next = term.input(&at("log_prob_next"), "SM")?;
    let flat = term.input(&at("log_uniform_density"), "")?.broadcast(&current.shape());
    let (reward, terminated) = (term.input(&at("reward"), "S")?, term.mask(&at("terminated"), "S")?);
    let discount = term.input(&at("gamma"), "")? * (-terminated + 1.0);
    let next_q = term.input(&at("q_target_next"), "CS")?;
    let pair = term.numbers(&at("target_pair"), "P")?;
    let chosen = pair.iter().map(|i| match (0.0..next_q.size(0) as f64).contains(i) {
        true => Ok(row(next_q, *i as usize)),
        false => Err(failed("official_code.target_pair names no critic")),
    });
    let chosen = chosen.collect::<Result<Vec<_>, _>>()?;
    let chosen = chosen.into_iter().reduce(Tensor::minimum).ok_or_else(|| failed("there is no critic"))?;
    let target = bellman_target(reward, discount, chosen);
    term.expect(&at("parts.target"), target)?;
    let td = errors(data, target);
    let group = |i: usize, of: usize, log_mu: Tensor<'t>| (sampled[of].member(i), log_mu);
    let regulariser = |i: usize| {
        let groups = [group(i, 0, flat), group(i, 2, next), group(i, 1, current)];
        cql_continuous(&groups, row(data, i))
    };
    let regularisers = (0..data.size(0)).map(regulariser).collect::<Vec<_>>();
    expect_each(term, &at("parts.td_each"), &td)?;
    expect_each(term, &at("parts.regulariser_each"), &regularisers)?;
    let constraint = sum(&regularisers)? * if online { 0.0 } else { weight };
    let leaves =
        [("q_uniform", sampled[0]), ("q_current", sampled[1]), ("q_next", sampled[2]), ("q_data", data)];
    expect_loss(term, "official_code", sum(&td)? + constraint, &leaves)
}

fn record_gctd3bc(term: &mut Term<'_, '_>) -> Recorded {
    let (q_pi, pi, action) = (term.input("q_pi", "B")?, term.input("pi", "BD")?, term.input("action", "BD")?);
    let offline = term.mask("offline", "B")?;
    let lambda = td3_bc_scale(q_pi, term.value("alpha")?);
    let each = squared_distance(pi, action);
    term.expect("lam", lambda)?;
    term.expect("parts.B", offline_mean(each, offline))?;
    let variants = [("", offline_mean(each, offline)), ("offline_mean_variant", masked_mean(each, offline))];
    for (variant, constraint) in variants {
        let loss = gctd3bc(q_pi, constraint, lambda);
        expect_loss(term, variant, loss, &[("q_pi", q_pi), ("pi", pi)])?;
    }
    Ok(())
}

fn record_calibrated(term: &mut Term<'_, '_>) -> Recorded {
    let q = term.input("discrete.q", "BA")?;
    let action = term.index("discrete.action", "B", 'A')?;
    let (value, policy) = (term.input("discrete.v_mu", "B")?, term.input("discrete.policy", "BA")?);
    let forms = [
        ("logsumexp", cal_ql_discrete(q, value, action)),
        ("printed", cal_ql_expected(q, value, policy, action)),
    ];
    for (form, each) in forms {
        let path = |key: &str| format!("discrete.{form}.{key}");
        term.expect(&path("per_state"), each)?;
        term.expect(&path("loss"), each.mean())?;
        term.expect_but(&path("grads.q"), gradient(each.mean(), q), "discrete.tie_entries_q")?;
    }
    record_calibrated_continuous(term)
}

fn record_calibrated_continuous(term: &mut Term<'_, '_>) -> Recorded {
    let at = |key: &str| format!("continuous.{key}");
    let mut sampled = Vec::new();
    for name in ["q_uniform", "q_current", "q_next"] {
        sampled.push(term.input(&at(name), "2SM")?);
    }
    let (uniform, current, next) = (sampled[0], sampled[1], sampled[2]);
    let log_current = term.input(&at("log_prob_current"), "SM")?;
    let log_next = term.input(&at("log_prob_next"), "SM")?;
    let flat = term.input(&at("log_uniform_density"), "")?.broadcast(&log_current.shape());
    let (data, value) = (term.input(&at("q_data"), "2S")?, term.input(&at("mc_return"), "S")?);
    let (target, alpha) = (term.input(&at("td_target"), "S")?, term.input(&at("alpha"), "")?);
    let clip = match term.has(&at("diff_clip")) {
        true => Some([term.value(&at("diff_clip.0"))?, term.value(&at("diff_clip.1"))?]),
        false => None,
    };
    let form = ConservativeForm { temperature: term.value(&at("temperature"))?, clip };
    let (mut regularisers, mut printed) = (Vec::new(), Vec::new());
    for i in 0..2 {
        let flat = (uniform.member(i), flat);
        let policy = [(next.member(i), log_next), (current.member(i), log_current)];
        let q_data = row(data, i);
        let regulariser = cal_ql_continuous(flat, &policy, value, q_data, form);
        let bounded = policy.map(|(q, log_mu)| (calibrated(q, value), log_mu));
        let ood = out_of_distribution(&[flat, bounded[0], bounded[1]], form.temperature);
        term.expect(&at(&format!("official_code.parts.ood.{i}")), ood)?;
        term.expect(&at(&format!("bound_rate_current.{i}")), bound_rate(current.member(i), value))?;
        term.expect(&at(&format!("bound_rate_next.{i}")), bound_rate(next.member(i), value))?;
        regularisers.push(regulariser);
        printed.push(cal_ql(current.member(i), value, q_data));
    }
    let td = errors(data, target);
    expect_each(term, &at("official_code.parts.regulariser_each"), &regularisers)?;
    expect_each(term, &at("official_code.parts.td_each"), &td)?;
    let loss = sum(&td)? + alpha * sum(&regularisers)?;
    let leaves = [("q_uniform", uniform), ("q_current", current), ("q_next", next), ("q_data", data)];
    expect_loss(term, "continuous.official_code", loss, &leaves)?;
    let leaves = [("q_current", current), ("q_data", data)];
    expect_loss(term, "continuous.printed", sum(&printed)?, &leaves)
}

fn check_clip(term: &Term<'_, '_>) -> Recorded {
    match term.value("clip_before_atanh")? == LARGEST_ACTION {
        true => Ok(()),
        false => Err(TermError::Unsupported(format!("this build cuts data actions off at {LARGEST_ACTION}"))),
    }
}

fn record_likelihood_policy(term: &mut Term<'_, '_>) -> Recorded {
    check_clip(term)?;
    let (mean, log_std) = (term.input("mean", "BD")?, term.input("log_std", "BD")?);
    let (noise, data) = (term.input("noise", "BD")?, term.input("data_action", "BD")?);
    let (alpha, lambda) = (term.input("alpha", "")?, term.value("lam")?);
    let c0 = term.input("critic_twin.c0", "2B")?;
    let (c1, c2) = (term.input("critic_twin.c1", "2BD")?, term.input("critic_twin.c2", "2BD")?);
    let drawn = squashed_gaussian(mean, log_std, noise);
    let q = c0 + (c1 * drawn.action).sum_last() + (c2 * drawn.action.square()).sum_last() * 0.5;
    let min_q = least(q)?;
    let of_data = squashed_log_prob(mean, log_std, data);
    for (path, tensor) in [
        ("sampled_action", drawn.action),
        ("log_prob_sampled", drawn.log_prob),
        ("q_min", min_q),
        ("log_prob_data", of_data),
    ] {
        term.expect(&format!("parts.{path}"), tensor)?;
    }
    let printed = min_q.trace().constant(lambda, &[]);
    let code = likelihood_scale(min_q, lambda);
    term.expect("official_code.lam", code)?;
    let leaves = [("mean", mean), ("log_std", log_std)];
    let loss = |lambda| likelihood_actor(min_q, drawn.log_prob, of_data, lambda, alpha);
    expect_loss(term, "printed", loss(printed), &leaves)?;
    expect_loss(term, "official_code", loss(code), &leaves)?;
    let flat = [("q_min", min_q), ("log_prob_sampled", drawn.log_prob), ("log_prob_data", of_data)]
        .map(|(name, x)| (name, x + 0.0));
    let loss = likelihood_actor(flat[0].1, flat[1].1, flat[2].1, printed, alpha);
    expect_loss(term, "printed_flat", loss, &flat)
}

fn record_reconstruction(term: &mut Term<'_, '_>) -> Recorded {
    check_clip(term)?;
    let (mean, log_std) = (term.input("mean", "BD")?, term.input("log_std", "BD")?);
    let (action, z) = (term.input("action", "BD")?, term.input("z", "NB")?);
    let alpha = term.input("alpha", "")?;
    let log_pi0 = squashed_log_prob(mean, log_std, action);
    let smallest = clip_density(mean, log_std, term.value("beta")?);
    let clipped = softly_clipped(log_pi0, smallest, term.value("interpolation_weight")?);
    for (path, tensor) in [
        ("log_pi0", log_pi0),
        ("q", aligned_q(log_pi0, z)),
        ("q_with_alpha", aligned_q(alpha * log_pi0, z)),
        ("official_code.clip_at", smallest),
        ("official_code.log_pi0_clipped", clipped),
        ("official_code.q", aligned_q(clipped, z)),
    ] {
        term.expect(path, tensor)?;
    }
    Ok(())
}

fn record_alignment(term: &mut Term<'_, '_>) -> Recorded {
    let (z, next_z) = (term.input("z", "NB")?, term.input("z_next", "NB")?);
    let (of_data, next) = (term.input("log_pi_data", "B")?, term.input("log_pi_next", "B")?);
    let (reward, alpha) = (term.input("reward", "B")?, term.input("alpha", "")?);
    let discount = discount(term, "")?;
    let target = soft_target(reward, discount, least(aligned_q(next, next_z))?, next, alpha);
    let q = aligned_q(of_data, z);
    let each = errors(q, target);
    term.expect("parts.q", q)?;
    term.expect("parts.target", target)?;
    expect_each(term, "parts.loss_each", &each)?;
    expect_loss(term, "", sum(&each)?, &[("z", z)])
}

fn record_aligned_agent(term: &mut Term<'_, '_>) -> Recorded {
    let (r, next_r) = (term.input("r_phi", "NB")?, term.input("r_phi_next", "NB")?);
    let (log_pi0, next_log_pi0) = (term.input("log_pi0", "B")?, term.input("log_pi0_next", "B")?);
    let (reward, next) = (term.input("reward", "B")?, term.input("log_prob_next", "B")?);
    let (discount, alpha) = (discount(term, "")?, term.input("alpha", "")?);
    let target = soft_target(reward, discount, least(aligned_q(next_log_pi0, next_r))?, next, alpha);
    term.expect("critic.target", target)?;
    let loss = sum(&errors(aligned_q(log_pi0, r), target))?;
    expect_loss(term, "critic", loss, &[("r_phi", r)])?;

    let (r, log_pi0) = (term.input("actor.r_phi", "NB")?, term.input("actor.log_pi0", "B")?);
    let log_prob = term.input("actor.log_prob", "B")?;
    let loss = sac_actor(least(aligned_q(log_pi0, r))?, log_prob, alpha);
    expect_loss(term, "actor", loss, &[("r_phi", r), ("log_pi0", log_pi0), ("log_prob", log_prob)])
}

fn record_returns(term: &mut Term<'_, '_>) -> Recorded {
    let mut column = |key| term.numbers(key, "T");
    let (reward, next_value) = (column("reward")?, column("next_value")?);
    let (terminated, timeout) = (column("terminated")?, column("timeout")?);
    let gamma = term.value("gamma")?;
    for (path, bootstrapped) in [("returns", false), ("returns_bootstrapped_at_timeouts", true)] {
        let step = |i: usize| ReturnStep {
            reward: reward[i],
            terminated: terminated[i] != 0.0,
            truncated: timeout[i] != 0.0,
            beyond: if bootstrapped { next_value[i] } else { 0.0 },
        };
        let mut returns = vec![0.0; reward.len()];
        returns_to_go(&(0..reward.len()).map(step).collect::<Vec<_>>(), gamma, &mut returns);
        term.plain(path, &returns)?;
    }
    Ok(())
}

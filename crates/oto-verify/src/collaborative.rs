//! The terms of agents that teach each other: each is recorded with the functions of `oto_rl::losses`, in every form that the file has.

use crate::losses::Record;
use crate::offline_online::expect_loss;
use crate::term::{Term, TermError};
use oto_graph::{Activation, Tensor};
use oto_rl::losses::actor_critic::{GaeStep, categorical_entropy, gae};
use oto_rl::losses::collaborative::{
    AlignmentActivation, CODE_VALUE_WEIGHT, a3c_policy, a3c_value, aligned, alignment_kl, rollout_returns,
};
use oto_rl::losses::distillation::{Divergence, distillation_kl};
use oto_rl::lstm;
use oto_rl::optimiser::{clipped_by_global_norm, global_norm};

type Recorded = Result<(), TermError>;

/// The terms of this file.
pub(crate) fn term(name: &str) -> Option<Record> {
    Some(match name {
        "gae_a3c" => record_advantages,
        "a3c_policy" => record_policy,
        "a3c_value" => record_value,
        "distill_kl" => record_distillation,
        "alignment_network_kl" => record_alignment,
        "distillation_layer" => record_heads,
        "clip_global_norm" => record_clipping,
        "lstm" => record_lstm,
        _ => return None,
    })
}

fn record_advantages(term: &mut Term<'_, '_>) -> Recorded {
    let (reward, value) = (term.numbers("reward", "T")?, term.numbers("value", "T")?);
    let (gamma, lambda) = (term.value("gamma")?, term.value("lam")?);
    let (last, terminal) = (term.value("value_of_last_state")?, term.value("terminal")? != 0.0);
    let step = |i: usize| GaeStep {
        reward: reward[i],
        value: value[i],
        next_value: value.get(i + 1).copied().unwrap_or(last),
        terminated: terminal && i + 1 == reward.len(),
        truncated: false,
    };
    let steps = (0..reward.len()).map(step).collect::<Vec<_>>();
    let [mut delta, mut advantage, mut returns] = [(); 3].map(|()| vec![0.0; steps.len()]);
    gae(&steps, gamma, 0.0, &mut delta);
    gae(&steps, gamma, lambda, &mut advantage);
    rollout_returns(&steps, gamma, &mut returns);
    let bootstrap = if terminal { 0.0 } else { last };
    term.plain("bootstrap", &[bootstrap])?;
    [("delta", delta), ("advantage", advantage), ("returns", returns)]
        .into_iter()
        .try_for_each(|(path, got)| term.plain(path, &got))
}

fn record_policy(term: &mut Term<'_, '_>) -> Recorded {
    let logits = term.input("logits", "TA")?;
    let action = term.index("action", "T", 'A')?;
    let advantage = term.input("advantage", "T")?;
    let each = a3c_policy(logits, action, advantage, term.value("entropy_coefficient")?);
    term.expect("parts.log_prob", logits.log_softmax().pick(action))?;
    term.expect("parts.entropy", categorical_entropy(logits))?;
    term.expect("parts.policy_term", a3c_policy(logits, action, advantage, 0.0).sum())?;
    let leaves = [("logits", logits)];
    expect_loss(term, "", each.sum(), &leaves)?;
    expect_loss(term, "mean_over_steps", each.mean(), &leaves)
}

fn record_value(term: &mut Term<'_, '_>) -> Recorded {
    let (value, returns) = (term.input("value", "T")?, term.input("returns", "T")?);
    let loss = a3c_value(value, returns).sum();
    expect_loss(term, "printed", loss, &[("value", value)])?;
    expect_loss(term, "official_code", loss * CODE_VALUE_WEIGHT, &[("value", value)])
}

fn record_distillation(term: &mut Term<'_, '_>) -> Recorded {
    let (teacher, student) = (term.input("z_teacher", "TA")?, term.input("z_student", "TA")?);
    let tau = term.value("tau")?;
    let each = distillation_kl(teacher, student, tau, Divergence::Printed);
    term.expect("parts.teacher", (teacher * (1.0 / tau)).softmax())?;
    term.expect("parts.student", student.softmax())?;
    term.expect("parts.per_step", each)?;
    let leaves = [("z_student", student)];
    expect_loss(term, "", each.sum(), &leaves)?;
    expect_loss(term, "mean_over_steps", each.mean(), &leaves)?;
    let both = distillation_kl(teacher, student, tau, Divergence::BothTempered);
    expect_loss(term, "both_tempered_variant", both.sum(), &leaves)?;
    let code = distillation_kl(teacher, student, tau, Divergence::OfficialCode);
    expect_loss(term, "official_code", code.mean(), &leaves)
}

fn record_alignment(term: &mut Term<'_, '_>) -> Recorded {
    let (teacher, student) = (term.input("z_teacher", "TA")?, term.input("z_student", "TC")?);
    let tau = term.value("tau")?;
    let mut layers = Vec::new();
    // Axes of one letter each: the teacher's logits, the hidden layers, the student's logits.
    for (i, axes) in ["FA", "GF", "HG", "IH", "CI"].into_iter().enumerate() {
        let (weight, bias) = (format!("W{}", i + 1), format!("b{}", i + 1));
        let w = term.input(&format!("parameters.{weight}"), axes)?;
        let b = term.input(&format!("parameters.{bias}"), &axes[..1])?;
        layers.push(((weight, w), (bias, b)));
    }
    let network = layers.iter().map(|((_, w), (_, b))| (*w, *b)).collect::<Vec<_>>();
    let leaves =
        layers.iter().flat_map(|(w, b)| [(w.0.as_str(), w.1), (b.0.as_str(), b.1)]).collect::<Vec<_>>();
    let [relu, elu] =
        [AlignmentActivation::Relu, AlignmentActivation::Elu].map(|a| aligned(&network, teacher, a));
    let each = alignment_kl(student, relu, tau, Divergence::Printed);
    term.expect("aligned", relu)?;
    term.expect("per_step", each)?;
    expect_loss(term, "", each.sum(), &leaves)?;
    let code = alignment_kl(student, elu, tau, Divergence::OfficialCode);
    term.expect("official_code.aligned", elu)?;
    term.expect("official_code.per_step", code)?;
    expect_loss(term, "official_code", code.mean(), &leaves)?;
    let mixed = alignment_kl(student, relu, tau, Divergence::OfficialCode);
    expect_loss(term, "relu_with_code_objective", mixed.mean(), &leaves)
}

/// The LSTM layer of a recurrent policy over the steps of a rollout. The file has PyTorch's two biases, whose gradients are equal.
fn record_lstm(term: &mut Term<'_, '_>) -> Recorded {
    let (x, state) = (term.input("x", "TI")?, term.input("state", "SH")?);
    let (keep, probe) = (term.mask("keep", "T")?, term.input("probe", "TH")?);
    let weight =
        |term: &mut Term<'_, '_>, name, axes| term.input(&format!("parameters.{name}"), axes).map(|w| w.id());
    let ids = [("weight_ih", "GI"), ("weight_hh", "GH"), ("bias_ih", "G"), ("bias_hh", "G")]
        .map(|(name, axes)| weight(term, name, axes));
    let [ih, hh, first, second] = ids;
    let at = |id| x.trace().at(id);
    let (ih, hh, bias) = (at(ih?), at(hh?), at(first?) + at(second?));
    let (states, units) = (state.size(0), state.size(1));
    if states != 2 || hh.size(0) != 4 * units {
        let reason = format!(
            "expected a state [2, H] and weights of 4 H rows, got {states}, {units} and {}",
            hh.size(0)
        );
        return Err(TermError::Failed(reason));
    }
    let named = [("weight_ih", ih), ("weight_hh", hh), ("bias", bias)].map(|(name, w)| (name.to_string(), w));
    let hidden = lstm::unrolled(&named, x, state, keep);
    term.expect("hidden", hidden)?;
    let leaves = [("x", x), ("state", state), ("weight_ih", ih), ("weight_hh", hh), ("bias", bias)];
    expect_loss(term, "", (hidden * probe).sum(), &leaves)
}

/// A distillation head beside the policy's and the value's: which parts of the network each loss moves.
fn record_heads<'t>(term: &mut Term<'t, '_>) -> Recorded {
    let state = term.input("state", "TS")?;
    let teacher = term.input("aligned_teacher_logits", "TD")?;
    let mut leaves = Vec::new();
    for (weight, bias, axes) in [
        ("trunk_W1", "trunk_b1", "GS"),
        ("trunk_W2", "trunk_b2", "HG"),
        ("policy_W", "policy_b", "AH"),
        ("distill_W", "distill_b", "DH"),
        ("value_W", "value_b", "1H"),
    ] {
        leaves.push((weight, term.input(&format!("parameters.{weight}"), axes)?));
        leaves.push((bias, term.input(&format!("parameters.{bias}"), &axes[..1])?));
    }
    let layer =
        |x: Tensor<'t>, i: usize, activation| x.linear(leaves[2 * i].1, leaves[2 * i + 1].1, activation);
    let trunk = layer(layer(state, 0, Activation::Relu), 1, Activation::Relu);
    let [policy, distillation, value] = [2, 3, 4].map(|head| layer(trunk, head, Activation::Identity));
    let value = value.reshape(&[state.size(0)]);
    term.expect("policy_logits", policy)?;
    term.expect("distill_logits", distillation)?;
    term.expect("value", value)?;
    let tau = term.value("tau")?;
    let onto = |student| distillation_kl(teacher, student, tau, Divergence::Printed).sum();
    expect_loss(term, "distillation", onto(distillation), &leaves)?;
    let action = term.index("action", "T", 'A')?;
    let (advantage, returns) = (term.input("advantage", "T")?, term.input("returns", "T")?);
    let acted = a3c_policy(policy, action, advantage, term.value("entropy_coefficient")?);
    expect_loss(term, "a3c", (acted + a3c_value(value, returns)).sum(), &leaves)?;
    let actions = policy.size(1);
    if !term.has("homogeneous_variant.loss") || actions > teacher.size(1) {
        return Ok(());
    }
    let cut = teacher.slice_last(0, actions);
    let homogeneous = distillation_kl(cut, policy, tau, Divergence::Printed).sum();
    expect_loss(term, "homogeneous_variant", homogeneous, &leaves)
}

fn record_clipping(term: &mut Term<'_, '_>) -> Recorded {
    let clip = term.value("clip")?;
    let mut gradients = Vec::new();
    while term.has(&format!("gradients.{}", gradients.len())) {
        gradients.push(term.any_input(&format!("gradients.{}", gradients.len()))?);
    }
    let Some(norm) = global_norm(&gradients) else {
        return Err(TermError::Failed("gradients holds none".into()));
    };
    term.expect("norm", norm)?;
    let clipped = clipped_by_global_norm(&gradients, clip);
    clipped.into_iter().enumerate().try_for_each(|(i, g)| term.expect(&format!("clipped.{i}"), g))
}

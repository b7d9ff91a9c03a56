//! The kind `losses`: each term is recorded with `oto-graph` as training records it, differentiated there, evaluated by candle
//! in float64 and float32, and compared in value, parts and gradients.
//!
//! Where a file stores several variants of a term, the one that oto trains with is checked: quantile Huber sums over targets
//! (`loss`, not `loss_sb3_reduction`), and a pair of states counts if both are labelled (not `subset_variant`).

use crate::compare::{Outcome, Worst};
use crate::read::Cases;
use crate::term::{Term, TermError};
use oto_candle::{Precision, evaluate};
use oto_graph::{Tensor, Trace, grad};
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

type Record = for<'t> fn(&mut Term<'t, '_>) -> Result<(), TermError>;

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
        _ => return None,
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
    let Some(record) = term(&name) else {
        return whole(Outcome::Unsupported(format!("this build has no term {name}")));
    };
    let trace = Trace::new();
    let mut term = Term::new(&trace, case);
    match record(&mut term) {
        Ok(()) => {}
        Err(TermError::Unsupported(reason)) => return whole(Outcome::Unsupported(reason)),
        Err(TermError::Failed(reason)) => return whole(Outcome::Failed(reason)),
    }
    let compare = |(precision, label, tolerance)| {
        (format!("{name}[{index}] {label}"), compare(&term, precision, tolerance))
    };
    PRECISIONS.map(compare).into()
}

fn compare(term: &Term<'_, '_>, precision: Precision, tolerance: f64) -> Outcome {
    match evaluate(&term.program(), &term.inputs, precision) {
        Ok(values) => {
            let mut worst = Worst::default();
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
    let base = aikd_base_sampled(q_samples, log_mu, q_teacher).mean();
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
        let loss = transfer(teachers, self.task, self.weights);
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
    Ok(AikdWeights {
        alpha_aikd: term.input("alpha_aikd", "")?,
        delta: term.input("delta", "")?,
        eta: term.input("eta", "")?,
        alpha_task: term.input("alpha_task", "")?,
    })
}

fn gradient<'t>(loss: Tensor<'t>, towards: Tensor<'t>) -> Tensor<'t> {
    grad(loss, &[towards])[0]
}

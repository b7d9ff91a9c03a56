//! Graphs of one operator, and of a few, drawn at random (`tests/data/make_operators.py`): what is read answers as onnxruntime does for each
//! observation alone, and every line of the table has cases that do.

use oto_policy::operators::{KNOWN, used};
use oto_policy::{Metadata, Policy, PolicyError, load};
use safetensors::SafeTensors;
use std::collections::{BTreeMap, HashSet};
use std::io::Read;

/// How far a number may lie from onnxruntime's, as a part of it, and as a part of 1 where it is smaller than that.
const FAR: f32 = 1e-5;

struct Case {
    /// The operator that it is about.
    name: String,
    opset: i64,
    model: Vec<u8>,
    rows: usize,
    observations: Vec<f32>,
    answers: Vec<f32>,
}

fn cases() -> Vec<Case> {
    let path = std::env::var("OTO_CASES")
        .unwrap_or_else(|_| String::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/operators.zip")));
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive.by_name("cases.safetensors").unwrap().read_to_end(&mut bytes).unwrap();
    let header = SafeTensors::read_metadata(&bytes).unwrap().1;
    let facts: Vec<(String, i64)> =
        serde_json::from_str(&header.metadata().as_ref().unwrap()["cases"]).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: String| {
        let view = tensors.tensor(&name).unwrap();
        let values = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        (view.shape()[0], values)
    };
    let case = |(at, (name, opset)): (usize, (String, i64))| {
        let (rows, observations) = floats(format!("{at}.obs"));
        let answers = floats(format!("{at}.action")).1;
        let model = tensors.tensor(&format!("{at}.model")).unwrap().data().to_vec();
        Case { name, opset, model, rows, observations, answers }
    };
    facts.into_iter().enumerate().map(case).collect()
}

/// Operators that add up: what is lost by rounding is a part of the largest number that they add, not of the sum.
const SUMS: [&str; 6] = ["AveragePool", "Conv", "Einsum", "Gemm", "GlobalAveragePool", "MatMul"];

/// The first number that differs.
fn difference(case: &Case, found: &[f32]) -> Option<String> {
    let Case { name, rows, observations, answers, .. } = case;
    if found.len() != answers.len() {
        return Some(format!("{} numbers, expected {}", found.len(), answers.len()));
    }
    let (wide, width) = (observations.len() / rows, answers.len() / rows);
    let largest = |at: usize| {
        observations[at / width * wide..][..wide].iter().fold(0.0, |most: f32, x| most.max(x.abs()))
    };
    let at = (0..found.len()).find(|at| {
        let (a, b) = (found[*at], answers[*at]);
        let usual = FAR * b.abs().max(1.0);
        let far = match name.as_str() {
            "composed" => 100.0 * usual,
            name if SUMS.contains(&name) => usual + FAR / 10.0 * largest(*at),
            // They divide what is left of a difference by as little as the root of epsilon.
            name if name.ends_with("Normalization") => usual + 3.0 * FAR * largest(*at),
            _ => usual,
        };
        let strange = name == "composed" && !a.is_finite() && !b.is_finite();
        let same = a == b || strange || (a.is_nan() && b.is_nan()) || (a - b).abs() <= far;
        !same
    })?;
    Some(format!("number {at} is {}, expected {}", found[at], answers[at]))
}

/// Drawn to be refused: nothing answers for them here.
const REFUSED: [&str; 14] = [
    "Attention",
    "CastLike",
    "ConvTranspose",
    "GRU",
    "LRN",
    "LSTM",
    "LpPool",
    "MeanVarianceNormalization",
    "OneHot",
    "RNN",
    "Resize",
    "Size",
    "Tan",
    "Trilu",
];

#[test]
fn what_is_read_answers_as_onnxruntime_does() {
    let (mut covered, mut wrong, mut refused) = (HashSet::new(), Vec::new(), BTreeMap::<String, u32>::new());
    for case in cases() {
        let mut policy = match load(&case.model, &Metadata::default()) {
            Ok(policy) => policy,
            Err(error) => {
                *refused.entry(case.name.clone()).or_default() += 1;
                // By its name, or because its answer has no size of its own.
                let text = error.to_string();
                if !text.contains(&case.name) && !text.contains("size of the output") {
                    wrong.push(format!("{} {}: {text}", case.name, case.opset));
                }
                continue;
            }
        };
        if let Some(how) = fault(&mut *policy, &case) {
            wrong.push(format!("{} {}: {how}", case.name, case.opset));
            continue;
        }
        let uses = used(&case.model).unwrap();
        covered.extend(uses.into_iter().filter(|(line, _)| KNOWN[*line].name == case.name));
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    for name in REFUSED {
        assert!(refused.contains_key(name) && KNOWN.iter().all(|line| line.name != name), "{name}");
    }
    let lines =
        KNOWN.iter().enumerate().flat_map(|(at, line)| line.types.chars().map(move |read| (at, read)));
    let bare: Vec<_> = lines.filter(|use_of| !covered.contains(use_of)).collect();
    let named: Vec<_> =
        bare.iter().map(|(at, read)| format!("{} {:?} {read}", KNOWN[*at].name, KNOWN[*at].opsets)).collect();
    assert!(named.is_empty(), "no case shows that these are right: {named:?}");
}

/// What is wrong with a policy's answers.
fn fault(policy: &mut dyn Policy, case: &Case) -> Option<String> {
    let outputs = match policy.outputs(&case.observations, case.rows) {
        Ok(outputs) => outputs,
        // Refused by name where onnxruntime itself answers by chance.
        Err(PolicyError::Run(reason))
            if reason.contains("which has no defined answer") && reason.contains(&case.name) =>
        {
            return None;
        }
        Err(error) => return Some(error.to_string()),
    };
    if let Some(how) = difference(case, &outputs[0].values) {
        return Some(how);
    }
    // What acts says the same, or that there is no such action.
    let mut actions = Vec::new();
    match policy.act(&case.observations, case.rows, &mut actions) {
        Ok(()) => difference(case, &actions),
        Err(PolicyError::NotFinite { .. }) if case.answers.iter().any(|x| !x.is_finite()) => None,
        Err(error) => Some(error.to_string()),
    }
}

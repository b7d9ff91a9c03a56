//! Every teacher among the reference fixtures, and every small model of `data/make_models.py` and `data/make_exports.py`, gives
//! the outputs that onnxruntime gave, from each of its files.

use oto_policy::{Loaded, load_file};
use oto_proto::Space;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Teachers are among the fixtures of the repository, other models in this crate.
fn fixture(name: &str) -> PathBuf {
    let crate_folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let teacher = name.trim_start_matches("golden_").starts_with("teacher_");
    crate_folder.join(if teacher { "../../tests/fixtures" } else { "tests/data" }).join(name)
}

#[derive(serde::Deserialize)]
struct Golden {
    obs: Vec<Vec<f32>>,
    outputs: BTreeMap<String, serde_json::Value>,
}

fn flatten(value: &serde_json::Value, into: &mut Vec<f32>) {
    match value {
        serde_json::Value::Array(items) => items.iter().for_each(|item| flatten(item, into)),
        number => into.push(number.as_f64().expect("a number") as f32),
    }
}

/// The largest error relative to the tolerance of policies, 1e-5 * max(1, |reference|).
fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let error = |(a, b): (&f32, &f32)| (a - b).abs() / (1e-5 * b.abs().max(1.0));
    found.iter().zip(expected).map(error).fold(0.0, f32::max)
}

fn check(teacher: &str, model: &str) -> Loaded {
    let golden = std::fs::read(fixture(&format!("golden_{teacher}.json"))).unwrap();
    let golden: Golden = serde_json::from_slice(&golden).unwrap();
    let mut loaded = load_file(&fixture(model)).unwrap();
    let rows = golden.obs.len();
    let observations = golden.obs.concat();
    let outputs = loaded.policy.outputs(&observations, rows).unwrap();
    assert!(!golden.outputs.is_empty());
    for (name, expected) in &golden.outputs {
        let mut values = Vec::new();
        flatten(expected, &mut values);
        let output = outputs.iter().find(|o| o.name == *name).unwrap_or_else(|| panic!("{model}: no {name}"));
        assert_eq!(output.shape.iter().product::<usize>(), values.len(), "{model} {name}");
        assert_eq!(output.shape[0], rows);
        let error = error(&output.values, &values);
        assert!(error <= 1.0, "{model} {name}: {error} times the tolerance");
    }
    let mut expected = Vec::new();
    flatten(&golden.outputs["action"], &mut expected);
    let mut actions = Vec::new();
    loaded.policy.act(&observations, rows, &mut actions).unwrap();
    assert!(error(&actions, &expected) <= 1.0, "{model} act");
    assert_eq!(loaded.policy.observation_space().width(), golden.obs[0].len());
    loaded
}

fn uniform(low: f32, high: f32) -> Space {
    Space::Box { low: vec![low], high: vec![high] }
}

#[test]
fn ppo_cartpole() {
    for file in ["onnx", "safetensors", "policy.pth", "json"] {
        let loaded = check("teacher_ppo_cartpole_v1", &format!("teacher_ppo_cartpole_v1.{file}"));
        assert_eq!(*loaded.policy.action_space(), Space::Discrete { n: 2 });
        assert_eq!(loaded.name, "teacher_ppo_cartpole_v1");
    }
    check("teacher_ppo_cartpole_v1_early", "teacher_ppo_cartpole_v1_early.onnx");
    check("teacher_ppo_cartpole_v1_early", "teacher_ppo_cartpole_v1_early.safetensors");
}

#[test]
fn sac_inverted_pendulum() {
    for file in ["onnx", "safetensors", "policy.pth"] {
        let teacher = "teacher_sac_inverted_pendulum_v5";
        let loaded = check(teacher, &format!("{teacher}.{file}"));
        assert_eq!(*loaded.policy.action_space(), uniform(-3.0, 3.0));
    }
}

#[test]
fn sac_pendulum() {
    let loaded = check("teacher_sac_pendulum_v1", "teacher_sac_pendulum_v1.onnx");
    assert_eq!(*loaded.policy.action_space(), uniform(-2.0, 2.0));
}

#[test]
fn ppo_mobile_lte() {
    let loaded = check("teacher_ppo_mobile_lte", "teacher_ppo_mobile_lte.onnx");
    assert_eq!(*loaded.policy.action_space(), Space::Discrete { n: 8 });
}

#[test]
fn rows_beyond_one_run_are_answered_in_order() {
    let rows = 2 * oto_policy::ROWS_PER_RUN + 7;
    let observations: Vec<f32> = (0..4 * rows).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut answers = Vec::new();
    for file in ["onnx", "safetensors"] {
        let path = fixture(&format!("teacher_sac_inverted_pendulum_v5.{file}"));
        let mut policy = load_file(&path).unwrap().policy;
        let (mut all, mut one) = (Vec::new(), Vec::new());
        policy.act(&observations, rows, &mut all).unwrap();
        assert_eq!(policy.outputs(&observations, rows).unwrap()[0].shape, [rows, 1]);
        for row in [0, oto_policy::ROWS_PER_RUN, rows - 1] {
            policy.act(&observations[4 * row..][..4], 1, &mut one).unwrap();
            assert!((one[0] - all[row]).abs() < 1e-5);
        }
        answers.push(all);
    }
    assert!(error(&answers[0], &answers[1]) <= 1.0);
}

#[test]
fn layouts_of_other_algorithms() {
    let names = [
        "dqn",
        "qrdqn",
        "td3",
        "sac",
        "sac_sde",
        "ppo_continuous",
        "ppo_relu",
        "ppo_linear",
        "ars",
        "ars_linear",
    ];
    for name in names {
        for file in ["onnx", "safetensors"] {
            check(name, &format!("{name}.{file}"));
        }
    }
}

/// PyTorch's newer exporter notes the shape of every value, with the number of rows under a name that was its user's to choose.
#[test]
fn a_graph_of_pytorchs_newer_exporter_is_read() {
    assert_eq!(check("exported_anew", "exported_anew.onnx").policy.action_space(), &Space::Discrete { n: 3 });
}

/// As Stable-Baselines3's documentation exports a policy: with its distributions, and for PPO with an action's value and probability.
#[test]
fn whole_calls_of_a_policy_are_read_and_what_no_action_needs_may_be_of_any_kind() {
    let action = |name: &str| check(name, &format!("{name}.onnx")).policy.action_space().clone();
    assert_eq!(action("exported_ppo"), Space::Discrete { n: 3 });
    assert_eq!(action("exported_sac"), Space::Box { low: vec![-1.0; 2], high: vec![1.0; 2] });
}

#[test]
fn images_and_preferences_only() {
    let golden = std::fs::read(fixture("golden_image.json")).unwrap();
    let golden: Golden = serde_json::from_slice(&golden).unwrap();
    let mut policy = load_file(&fixture("image.onnx")).unwrap().policy;
    assert_eq!((policy.observation_space().width(), policy.action_space()), (36, &Space::Discrete { n: 3 }));
    let mut expected = Vec::new();
    flatten(&golden.outputs["logits"], &mut expected);
    let outputs = policy.outputs(&golden.obs.concat(), golden.obs.len()).unwrap();
    assert!(error(&outputs[0].values, &expected) <= 1.0);
    let mut actions = Vec::new();
    policy.act(&golden.obs.concat(), golden.obs.len(), &mut actions).unwrap();
    assert_eq!((outputs[1].name.as_str(), &outputs[1].values), ("action", &actions));
    for (row, action) in expected.chunks(3).zip(&actions) {
        assert!(row.iter().all(|logit| *logit <= row[*action as usize]));
    }
}

//! Teachers' models and recorded outputs agree with this build, changed ones do not, and damaged ones are refused.

use oto_verify::{Report, Row, Status, verify, verify_files};
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};

const TEACHERS: [&str; 5] = [
    "teacher_sac_inverted_pendulum_v5",
    "teacher_ppo_cartpole_v1",
    "teacher_ppo_cartpole_v1_early",
    "teacher_sac_pendulum_v1",
    "teacher_ppo_mobile_lte",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn json_fixture(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

fn from_fixtures(name: &str) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(fixture(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn check(file: &Value) -> Vec<Row> {
    verify("teacher_ppo_cartpole_v1.json", &serde_json::to_vec(file).unwrap(), &from_fixtures)
}

fn failure(file: &Value) -> String {
    let rows = check(file);
    assert_eq!(rows[0].status, Status::Failed, "{}", rows[0]);
    rows[0].detail.clone()
}

#[test]
fn recorded_outputs_agree_in_every_format() {
    for teacher in TEACHERS {
        let report = verify_files(&[fixture(&format!("golden_{teacher}.json"))]);
        assert!(report.passed(), "{report}");
        for ending in ["onnx", "safetensors", "policy.pth"] {
            let model = format!("{teacher}.{ending}");
            let case = report.rows.iter().find(|row| row.case == model);
            assert_eq!(case.is_some(), fixture(&model).exists(), "{model}");
            assert!(
                case.is_none_or(|row| row.status == Status::Ok && row.tolerance == Some(1e-5)),
                "{model}"
            );
        }
    }
}

#[test]
fn models_have_the_checksums_of_their_metadata_and_load() {
    for teacher in TEACHERS {
        let report = verify_files(&[fixture(&format!("{teacher}.json"))]);
        assert!(report.passed() && report.count(Status::Ok) == 1, "{report}");
        assert!(report.rows[0].detail.starts_with("sha256 agrees"), "{report}");
    }
}

#[test]
fn another_checksum_fails() {
    let mut metadata = json_fixture("teacher_ppo_cartpole_v1.json");
    metadata["sha256"] = json!("00");
    assert!(failure(&metadata).contains("sha256"));
}

#[test]
fn a_changed_output_is_found() {
    for (path, by) in [("/outputs/logits/5/1", 1e-3), ("/outputs/action/63", 1.0)] {
        let mut golden = json_fixture("golden_teacher_ppo_cartpole_v1.json");
        let number = golden.pointer_mut(path).unwrap();
        *number = json!(number.as_f64().unwrap() + by);
        let rows = check(&golden);
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|row| row.status == Status::OutOfTolerance), "{}", rows[0]);
        let place = if path.contains("logits") { "logits[11]" } else { "action[63]" };
        assert_eq!(rows[0].detail, place);
    }
}

#[test]
fn recorded_outputs_that_do_not_fit_the_model_fail() {
    let golden = json_fixture("golden_teacher_ppo_cartpole_v1.json");
    for (key, value, reason) in [
        ("onnx", json!("absent.onnx"), "there is no model absent.onnx"),
        ("onnx", json!("../fixtures/teacher_ppo_cartpole_v1.onnx"), "expected the name of a file beside it"),
        ("onnx", json!(""), "expected the name of a file beside it"),
        ("obs", json!([[0.0, 0.0, 0.0]]), "numbers"),
        ("obs", json!([[0.0, 0.0, 0.0, 0.0]]), "has the shape"),
        ("obs", json!([[0.0, 0.0, 0.0, 0.0], [0.0]]), "rows of one length"),
        ("obs", json!([]), "empty list"),
        ("outputs", json!({}), "expected rows of obs and outputs"),
        ("outputs", json!({"values": [1.0]}), "the model has no output values"),
        ("outputs", json!({"action": [[0], [0, 1]]}), "rows of one length"),
    ] {
        let mut changed = golden.clone();
        changed[key] = value;
        let detail = failure(&changed);
        assert!(detail.contains(reason), "{key}: {detail}");
    }
}

#[test]
fn truncated_and_foreign_models_fail() {
    let golden = serde_json::to_vec(&json_fixture("golden_teacher_ppo_cartpole_v1.json")).unwrap();
    for cut in [0, 10, 1000, 15_000] {
        let rows = verify("golden.json", &golden, &|name| {
            Ok(from_fixtures(name)?.map(|b| b[..cut.min(b.len())].to_vec()))
        });
        // Metadata are cut as well, and are read first.
        assert_eq!(rows[0].status, Status::Failed, "{}", rows[0]);
        let models = |name: &str| {
            let bytes = from_fixtures(name)?;
            Ok(if name.ends_with(".json") { bytes } else { bytes.map(|b| b[..cut.min(b.len())].to_vec()) })
        };
        let rows = verify("golden.json", &golden, &models);
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|row| row.status != Status::Ok), "{}", Report { rows });
    }
    let pendulum = |name: &str| from_fixtures(&name.replace("ppo_cartpole_v1", "sac_pendulum_v1"));
    let rows = verify("golden.json", &golden, &pendulum);
    assert!(rows.iter().all(|row| row.status == Status::Failed), "{}", Report { rows });
}

#[test]
fn a_folder_that_cannot_be_read_is_an_error_and_not_a_missing_file() {
    let golden = serde_json::to_vec(&json_fixture("golden_teacher_ppo_cartpole_v1.json")).unwrap();
    let rows = verify("golden.json", &golden, &|_| Err(io::Error::other("the disk is gone")));
    assert!(rows[0].status == Status::Failed && rows[0].detail.contains("the disk is gone"), "{}", rows[0]);
}

//! The reference files agree with this build, changed ones do not, and damaged ones are refused.

use flate2::read::GzDecoder;
use oto_verify::{Report, Row, SCHEMA, Status, verify, verify_files};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn text(name: &str) -> Vec<u8> {
    let bytes = std::fs::read(fixture(name)).unwrap();
    if !name.ends_with(".gz") {
        return bytes;
    }
    let mut text = Vec::new();
    GzDecoder::new(bytes.as_slice()).read_to_end(&mut text).unwrap();
    text
}

/// Checks bytes that name no other file.
fn check(bytes: &[u8]) -> Vec<Row> {
    let rows = verify("file", bytes, &|_| Ok(None));
    assert!(!rows.is_empty());
    rows
}

fn check_json(value: &Value) -> Vec<Row> {
    check(&serde_json::to_vec(value).unwrap())
}

fn failure(bytes: &[u8]) -> String {
    let rows = check(bytes);
    assert_eq!(rows[0].status, Status::Failed, "{}", rows[0]);
    assert!(!Report { rows: rows.clone() }.passed());
    rows[0].detail.clone()
}

#[test]
fn environments_agree() {
    for (name, cases) in [
        ("env_cartpole_v1.json.gz", 10),
        ("env_mountaincar_v0.json.gz", 10),
        ("env_mountaincarcontinuous_v0.json.gz", 10),
        ("env_acrobot_v1.json.gz", 10),
        ("env_pendulum_v1.json.gz", 10),
        ("env_invertedpendulum_v5.json.gz", 10),
        ("env_cartpole_swingup.json.gz", 2 + 6 + 13),
        ("env_reset_seeds.json", 55),
        ("env_minatar.json.gz", 20),
        ("mobile_env_lte.json.gz", 5),
        ("mobile_env_5g.json.gz", 5),
    ] {
        let report = verify_files(&[fixture(name)]);
        assert!(report.passed() && report.count(Status::Ok) == cases, "{report}");
        assert!(report.rows.iter().all(|row| row.error.unwrap() <= row.tolerance.unwrap()), "{report}");
    }
}

#[test]
fn losses_agree_in_both_precisions_and_missing_terms_are_named() {
    let report = verify_files(&[fixture("losses.json.gz")]);
    // 21 terms with three cases each; advantages are plain numbers in one precision.
    assert_eq!(
        (report.rows.len(), report.count(Status::Ok)),
        (20 * 3 * 2 + 3, report.rows.len()),
        "{report}"
    );
    // Two terms of ensembles with three cases each: EDAC's diversity, whose gradients are gradients of gradients, and critics with
    // layer normalisation.
    let ensembles = verify_files(&[fixture("losses_ensemble.json.gz")]);
    assert_eq!((ensembles.rows.len(), ensembles.count(Status::Ok)), (2 * 3 * 2, 12), "{ensembles}");
    // TD3's critics; DDPG's critic and actor.
    let deterministic = verify_files(&[fixture("losses_deterministic.json.gz")]);
    assert_eq!(
        (deterministic.rows.len(), deterministic.count(Status::Ok)),
        (3 * 3 * 2, 18),
        "{deterministic}"
    );
    // 25 terms of learning from a dataset and going on online with three cases each; five of them are plain numbers in one precision.
    let offline_online = verify_files(&[fixture("losses_offline_online.json.gz")]);
    assert_eq!(
        (offline_online.rows.len(), offline_online.count(Status::Ok)),
        (20 * 3 * 2 + 5 * 3, offline_online.rows.len()),
        "{offline_online}"
    );
    // 7 terms of agents that teach each other with three cases each; advantages are plain numbers.
    let collaborative = verify_files(&[fixture("losses_collaborative.json.gz")]);
    assert_eq!(
        (collaborative.rows.len(), collaborative.count(Status::Ok)),
        (6 * 3 * 2 + 3, 39),
        "{collaborative}"
    );
    // PyTorch's LSTM over four rollouts, with episodes that begin in three of them.
    let lstm = verify_files(&[fixture("losses_lstm.json.gz")]);
    assert_eq!((lstm.rows.len(), lstm.count(Status::Ok)), (4 * 2, 8), "{lstm}");
    let files = [&report, &ensembles, &deterministic, &offline_online, &collaborative, &lstm];
    for row in files.into_iter().flat_map(|file| &file.rows) {
        let tolerance = if row.case.ends_with("float64") { 1e-9 } else { 1e-4 };
        assert_eq!(row.tolerance, Some(tolerance), "{row}");
    }
    let unknown = json!({"kind": "losses", "cases": {"no_such_term": [{"loss": 1.0}]}});
    let rows = check_json(&unknown);
    assert_eq!((rows.len(), rows[0].status), (1, Status::Unsupported));
    assert!(rows[0].detail.contains("no_such_term"));
}

/// Changes one number of a file; exactly the case that holds it must then be out of tolerance, at that number.
fn change(name: &str, path: &str, by: f64, case: &str, place: &str) {
    let mut file: Value = serde_json::from_slice(&text(name)).unwrap();
    let number = file.pointer_mut(path).unwrap();
    *number = json!(number.as_f64().unwrap() + by);
    let rows = check_json(&file);
    let out: Vec<_> = rows.iter().filter(|row| row.status == Status::OutOfTolerance).collect();
    assert_eq!(out.len(), 1, "{name} {path}");
    assert!(out[0].case.starts_with(case) && out[0].detail == place, "{}", out[0]);
    let error = out[0].error.unwrap();
    assert!(error > out[0].tolerance.unwrap() && error < 2.0 * by, "{}", out[0]);
    assert!(!Report { rows }.passed());
}

#[test]
fn a_changed_number_is_found() {
    change(
        "env_cartpole_v1.json.gz",
        "/episodes/3/states/7/2",
        1e-8,
        "CartPole-v1 episode 3",
        "states[7][2]",
    );
    change(
        "env_acrobot_v1.json.gz",
        "/episodes/0/observations/9/1",
        1e-5,
        "Acrobot-v1 episode 0",
        "observations[9][1]",
    );
    change("env_pendulum_v1.json.gz", "/episodes/2/rewards/4", 1e-5, "Pendulum-v1 episode 2", "rewards[4]");
    change(
        "mobile_env_lte.json.gz",
        "/episodes/1/steps/50/reward",
        1e-8,
        "MobileCell-LTE-v0 episode 1",
        "steps[50].reward",
    );
    change(
        "mobile_env_5g.json.gz",
        "/episodes/2/initial/position/1",
        1e-6,
        "MobileCell-5G-v0 episode 2",
        "initial.position[1]",
    );
    change("env_reset_seeds.json", "/cases/2/state/0", 1e-8, "CartPole-v1 seed 2", "state[0]");
    change("losses.json.gz", "/cases/aikd_full/1/loss", 1e-7, "aikd_full[1] float64", "loss");
    change(
        "losses.json.gz",
        "/cases/aikd_masked/0/terms/rkd_a",
        1e-7,
        "aikd_masked[0] float64",
        "terms.rkd_a",
    );
    change(
        "losses_offline_online.json.gz",
        "/cases/adaptive_bc/0/controller/steps/2/alpha_after",
        1e-6,
        "adaptive_bc[0] float64",
        "controller.steps.2.alpha_after",
    );
    change(
        "losses_collaborative.json.gz",
        "/cases/alignment_network_kl/0/official_code/loss",
        1e-7,
        "alignment_network_kl[0] float64",
        "official_code.loss",
    );
    change(
        "losses_lstm.json.gz",
        "/cases/lstm/2/grads/weight_hh/0/1",
        1e-7,
        "lstm[2] float64",
        "grads.weight_hh[1]",
    );
    change(
        "losses.json.gz",
        "/cases/rkd_a_discrete/2/grad_q/0/1",
        1e-7,
        "rkd_a_discrete[2] float64",
        "grad_q[1]",
    );
}

#[test]
fn a_changed_swing_up_is_found() {
    let file = "env_cartpole_swingup.json.gz";
    for (path, by, case, place) in [
        ("/episodes/2/states/999/1", 1e-8, "CartPoleSwingUp episode 2", "states[999][1]"),
        ("/episodes/0/rewards/3", 1e-8, "CartPoleSwingUp episode 0", "rewards[3]"),
        ("/episodes/1/observations/7/9", 1e-5, "CartPoleSwingUp episode 1", "observations[7][9]"),
        ("/single_steps/10/reward", 1e-8, "CartPoleSwingUp single step 10", "reward"),
    ] {
        change(file, path, by, case, place);
    }
    for (path, case) in [
        ("/episodes/4/config/k_f", "CartPoleSwingUp episode 4"),
        ("/rule_config/voltage_max", "CartPoleSwingUp rule"),
        ("/published_config/pole_mass_length", "CartPoleSwingUp published"),
    ] {
        let mut changed: Value = serde_json::from_slice(&text(file)).unwrap();
        let number = changed.pointer_mut(path).unwrap();
        *number = json!(number.as_f64().unwrap() + 1e-3);
        let rows = check_json(&changed);
        let out: Vec<_> = rows.iter().filter(|row| row.status == Status::OutOfTolerance).collect();
        assert!(out.len() == 1 && out[0].case.starts_with(case), "{path}");
    }
}

#[test]
fn swing_ups_with_wrong_constants_or_shapes_fail() {
    let wrong = |change: &dyn Fn(&mut Value)| {
        let mut file: Value = serde_json::from_slice(&text("env_cartpole_swingup.json.gz")).unwrap();
        change(&mut file);
        let rows = check_json(&file);
        let failed = rows.iter().find(|row| row.status == Status::Failed).expect("a failure");
        failed.detail.clone()
    };
    for (path, value, part) in [
        ("/episodes/0/config/k_f", json!(-1), "k_f: expected a number from 0"),
        ("/episodes/0/config/integrator", json!("rk4"), "semi_implicit or euler"),
        ("/episodes/0/config/delay", json!(1.5), "delay: expected a whole number"),
        ("/episodes/0/initial_state", json!([1.0]), "the state"),
        ("/episodes/0/rewards", json!([1.0]), "rewards"),
        ("/single_steps/10/queued", json!([0.9]), "end alike"),
        ("/single_steps/10/queued", json!([]), "queued"),
        ("/single_steps/0/state/0", json!(1e300), "1e6"),
    ] {
        let detail = wrong(&|file| *file.pointer_mut(path).unwrap() = value.clone());
        assert!(detail.contains(part), "{path}: {detail}");
    }
}

#[test]
fn changed_games_are_found() {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut file: Value = serde_json::from_slice(&text("env_minatar.json.gz")).unwrap();
        change(&mut file["cases"][3]);
        let rows = check_json(&file);
        assert!(rows.iter().enumerate().all(|(i, row)| (row.status == Status::Ok) == (i != 3)));
        (rows[3].status, rows[3].detail.clone())
    };
    let out = |detail: &str| (Status::OutOfTolerance, detail.to_string());
    let reward = changed(&|case| case["rewards"][0][1] = json!(7));
    assert!(reward.0 == Status::OutOfTolerance && reward.1.starts_with("the reward of step"), "{reward:?}");
    let observation = changed(&|case| case["observations"][9] = json!([0, 1, 2]));
    assert_eq!(observation, out("observations[9]"));
    let seed = changed(&|case| case["seed"] = json!(12345));
    assert_eq!(seed.0, Status::OutOfTolerance);
    for (path, value, reason) in [
        ("/rewards", json!([[9, 1.0], [9, 1.0]]), "expected rewards at steps from 10"),
        ("/ends", json!([1_000_000]), "expected observations of length"),
        ("/actions/0", json!(6), "step 0: expected an action from 0"),
        ("/observations", json!([]), "expected observations of length"),
    ] {
        let failed = changed(&|case| *case.pointer_mut(path).unwrap() = value.clone());
        assert!(failed.0 == Status::Failed && failed.1.contains(reason), "{failed:?}");
    }
    let unknown = json!({"kind": "minatar_trajectories", "cases": [{"id": "MinAtar/Pong-v1", "seed": 0, "actions": [],
        "rewards": [], "ends": [], "observations": [[]]}]});
    assert_eq!(check_json(&unknown)[0].status, Status::Unsupported);
}

#[test]
fn a_wrong_ending_is_found() {
    let mut file: Value = serde_json::from_slice(&text("env_cartpole_v1.json.gz")).unwrap();
    file["episodes"][0]["terminated"][13] = json!(false);
    let rows = check_json(&file);
    assert_eq!((rows[0].status, rows[0].detail.as_str()), (Status::OutOfTolerance, "terminated[13]"));
}

#[test]
fn files_of_no_known_kind_fail() {
    assert!(failure(b"").contains("not a reference file"));
    assert!(failure(b"\x89PNG....").contains("not a reference file"));
    assert!(failure(b"[1, 2]").contains("not a reference file"));
    assert!(failure(b"{\"cases\": []}").contains("does not say its kind"));
    assert!(failure(br#"{"kind": "weather"}"#).contains("weather"));
    let deep = format!(r#"{{"kind": "losses", "cases": {{"a": {}{}}}}}"#, "[".repeat(9999), "]".repeat(9999));
    assert!(failure(deep.as_bytes()).contains("recursion limit"));
    assert!(failure(br#"{"kind": "losses", "cases": {}}"#).contains("no case"));
    assert!(
        failure(br#"{"kind": "env_trajectories", "env": "CartPole-v1", "episodes": []}"#).contains("no case")
    );
    let missing = verify_files(&[fixture("no_such_file.json")]);
    assert!(!missing.passed() && missing.rows[0].detail.contains("No such file"), "{missing}");
    assert!(!verify_files::<&str>(&[]).passed());
}

#[test]
fn what_this_build_does_not_have_is_unsupported_and_no_failure() {
    for file in [
        json!({"kind": "mobile_env_trajectories", "config": {"variant": "6g"}, "episodes": []}),
        json!({"kind": "env_trajectories", "env": "Walker2d-v5", "episodes": []}),
    ] {
        let rows = check_json(&file);
        assert_eq!(rows[0].status, Status::Unsupported, "{}", rows[0]);
        assert!(Report { rows }.passed());
    }
}

#[test]
fn truncated_files_fail() {
    for name in ["env_mountaincar_v0.json.gz", "losses.json.gz"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        assert!(failure(&bytes[..bytes.len() / 2]).contains("gzip"));
        let plain = text(name);
        assert!(failure(&plain[..plain.len() / 2]).contains("EOF"));
    }
}

#[test]
fn a_file_that_unpacks_beyond_the_limit_fails() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..33 {
        std::io::Write::write_all(&mut encoder, &vec![b' '; 1 << 20]).unwrap();
    }
    assert!(failure(&encoder.finish().unwrap()).contains("more than 32 MiB"));
}

fn trajectory(change: impl FnOnce(&mut Value)) -> Value {
    let mut episode = json!({
        "label": "one step", "initial_state": [-0.5, 0.0], "actions": [1],
        "states": [[-0.500176843, -0.000176843]], "observations": [[-0.500176843, -0.000176843]],
        "rewards": [-1.0], "terminated": [false], "truncated": [false],
    });
    change(&mut episode);
    json!({"kind": "env_trajectories", "env": "MountainCar-v0", "episodes": [episode]})
}

#[test]
fn trajectories_of_wrong_shape_or_with_impossible_numbers_fail() {
    assert_eq!(check_json(&trajectory(|_| {}))[0].status, Status::Ok);
    let changes: [(&str, Value, &str); 10] = [
        ("initial_state", json!([-0.5]), "a state of MountainCar-v0 has 2"),
        ("initial_state", json!([-0.5, 1e300]), "got 1e300 as number 1"),
        ("initial_state", json!([-0.5, null]), "not a file of this kind"),
        ("actions", json!([3]), "expected an action from 0 to 2, got 3"),
        ("actions", json!([0.5]), "expected the number of a choice"),
        ("actions", json!([-1]), "expected the number of a choice"),
        ("actions", json!([[1, 1]]), "expected the number of a choice"),
        ("states", json!([[-0.5]]), "expected the state of length 2, got 1"),
        ("observations", json!([]), "expected observations of length 1, got 0"),
        ("rewards", json!([-1.0, -1.0]), "expected rewards of length 1, got 2"),
    ];
    for (key, value, reason) in changes {
        let file = trajectory(|episode| episode[key] = value);
        let detail = failure(&serde_json::to_vec(&file).unwrap());
        assert!(detail.contains(reason), "{detail}");
    }
    let with_nan = String::from_utf8(serde_json::to_vec(&trajectory(|_| {})).unwrap()).unwrap();
    assert!(failure(with_nan.replace("-1.0", "NaN").as_bytes()).contains("not a reference file"));
    assert!(failure(with_nan.replace("-1.0", "-1e999").as_bytes()).contains("out of range"));
}

#[test]
fn losses_of_wrong_shape_or_with_impossible_numbers_fail() {
    let good =
        json!({"q": [[0.0, 0.0]], "a_teacher": [1], "loss": std::f64::consts::LN_2, "grad_q": [[0.5, -0.5]]});
    let file = |case: &Value| json!({"kind": "losses", "cases": {"rkd_d_discrete": [case]}});
    assert!(check_json(&file(&good)).iter().all(|row| row.status == Status::Ok));
    for (key, value, reason) in [
        ("q", json!([[0.0, 0.0], [0.0]]), "rows of one length"),
        ("q", json!([[0.0, 0.0], []]), "rows of one length"),
        ("q", json!([]), "empty list"),
        ("q", json!([0.0, 0.0]), "expected the axes \"BA\""),
        ("q", json!([[0.0, "0.0"]]), "no array of numbers"),
        ("q", json!(null), "no array of numbers"),
        ("a_teacher", json!([2]), "expected whole numbers from 0 to 1"),
        ("a_teacher", json!([-1]), "expected whole numbers from 0 to 1"),
        ("a_teacher", json!([0.5]), "expected whole numbers from 0 to 1"),
        ("a_teacher", json!([1, 1]), "expected 1 along B"),
        ("grad_q", json!([[0.5]]), "expected [1, 2]"),
        ("loss", json!([0.5]), "expected []"),
    ] {
        let mut case = good.clone();
        case[key] = value;
        let detail = failure(&serde_json::to_vec(&file(&case)).unwrap());
        assert!(detail.contains(reason), "{key}: {detail}");
    }
    let mut case = good.clone();
    case.as_object_mut().unwrap().remove("q");
    assert_eq!(failure(&serde_json::to_vec(&file(&case)).unwrap()), "q is missing");
}

/// A loss that overflows is out of tolerance, and its row still is JSON with a reason.
#[test]
fn a_result_that_is_not_finite_is_out_of_tolerance() {
    let case = json!({"student": [[1e200]], "teacher": [[-1e200]], "loss": 1.0, "grad_student": [[1.0]]});
    let rows = check_json(&json!({"kind": "losses", "cases": {"rkd_d_continuous": [case]}}));
    for row in rows {
        assert_eq!((row.status, row.error), (Status::OutOfTolerance, None));
        assert_eq!(row.detail, "loss is not finite");
        assert!(serde_json::to_value(&row).unwrap()["error"].is_null());
    }
}

#[test]
fn the_json_report_is_what_its_schema_says() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let row_schema = &schema["properties"]["rows"]["items"];
    let mut files =
        [fixture("env_reset_seeds.json"), fixture("losses.json.gz"), fixture("absent.json")].to_vec();
    files.push(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    let report = serde_json::to_value(verify_files(&files)).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert!(rows.len() > 100);
    for row in rows {
        let row = row.as_object().unwrap();
        let required = row_schema["required"].as_array().unwrap();
        assert_eq!(row.len(), required.len());
        for key in required {
            let (key, value) = (key.as_str().unwrap(), &row[key.as_str().unwrap()]);
            let property = &row_schema["properties"][key];
            let kind = if value.is_null() {
                "null"
            } else if value.is_number() {
                "number"
            } else {
                "string"
            };
            let fits = match property.get("enum") {
                Some(values) => values.as_array().unwrap().contains(value),
                None => {
                    property["type"] == kind || property["type"].as_array().unwrap().contains(&json!(kind))
                }
            };
            assert!(fits, "{key}: {value}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is in a file, it gives rows and does not panic.
    #[test]
    fn damaged_files_never_panic(at in any::<prop::sample::Index>(), byte: u8, losses: bool) {
        let name = if losses { "losses.json.gz" } else { "env_reset_seeds.json" };
        let mut bytes = text(name);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check(&bytes);
        check(&bytes[..at]);
    }

    #[test]
    fn arbitrary_bytes_fail(bytes in prop::collection::vec(any::<u8>(), 0..200), gzip: bool) {
        let bytes = if gzip { [&[0x1f, 0x8b][..], &bytes].concat() } else { bytes };
        prop_assert!(check(&bytes).iter().all(|row| row.status == Status::Failed));
    }
}

//! Offline, then online, as processes: a run that another run begins with, resume in both phases, what is refused.

use crate::program::Place;
use std::path::Path;
use std::process::{Command, Output};

/// `oto` with these flags.
fn oto(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oto")).args(flags).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn done(flags: &[&str]) -> String {
    let output = oto(flags);
    assert!(output.status.success(), "{flags:?}: {}", said(&output));
    said(&output)
}

fn refused(flags: &[&str]) -> String {
    let output = oto(flags);
    assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", said(&output));
    said(&output)
}

fn config(run: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(Path::new(run).join("config.json")).unwrap()).unwrap()
}

const TEACH: [&str; 9] = [
    "--updates",
    "40",
    "--eval-every",
    "20",
    "--eval-episodes",
    "1",
    "--set",
    "algorithm.hidden=[12]",
    "--quiet",
];

#[test]
fn an_offline_run_goes_on_online_and_back() {
    let place = Place::new("continued");
    std::fs::create_dir_all(place.run()).unwrap();
    let at = |name: &str| place.run().join(name).display().to_string();
    let [data, offline, online, parts] = ["data", "offline", "online", "parts"].map(at);
    done(&[
        "learn",
        "--env",
        "CartPole-v1",
        "--steps",
        "400",
        "--eval-every",
        "0",
        "--quiet",
        "--out",
        &at("first"),
        "--record",
        &data,
    ]);
    let teach = [
        "teach",
        "--dataset",
        &data,
        "--algorithm",
        "cql",
        "--out",
        &offline,
        "--set",
        "algorithm.quantiles=7",
    ];
    done(&[&teach[..], &TEACH].concat());

    let learn = [
        "learn",
        "--from",
        &offline,
        "--steps",
        "120",
        "--eval-every",
        "60",
        "--eval-episodes",
        "1",
        "--set",
        "learning_starts=20",
    ];
    let told = done(&[&learn[..], &["--out", &online]].concat());
    assert!(told.contains("(cql, 40 updates from a dataset)") && !told.contains("fresh"), "{told}");
    let made = config(&online);
    let algorithm = &made["student"]["algorithm"];
    assert_eq!((&algorithm["name"], &algorithm["quantiles"]), (&"qrdqn".into(), &7.into()), "{algorithm}");
    assert_eq!(algorithm["hidden"], serde_json::json!([12]));
    assert_eq!((&made["env"], &made["from"]), (&"CartPole-v1".into(), &offline.clone().into()));
    assert_eq!(made["student"]["n_step"], config(&offline)["teach"]["n_step"]);

    // The same in two parts. The first run is gone by then.
    let first = [&learn[..], &["--quiet", "--out", &parts, "--steps", "40"]].concat();
    let first = first.iter().enumerate().filter(|(i, _)| ![3, 4].contains(i)).map(|(_, flag)| *flag);
    done(&first.collect::<Vec<_>>());
    std::fs::rename(&offline, at("moved")).unwrap();
    done(&["learn", "--resume", &parts, "--steps", "120", "--quiet"]);
    let evaluations = |run: &str| {
        let lines = std::fs::read_to_string(Path::new(run).join("metrics.jsonl")).unwrap();
        lines
            .lines()
            .filter(|line| !line.contains(r#""event":"metrics""#))
            .map(String::from)
            .collect::<Vec<_>>()
    };
    assert!(!evaluations(&online).is_empty());
    assert_eq!(evaluations(&parts), evaluations(&online));

    // Each command names the other's runs, and takes their networks.
    let error = refused(&["learn", "--resume", &at("moved")]);
    assert!(error.contains("holds a run of oto teach: resume it with oto teach --resume"), "{error}");
    let error = refused(&["teach", "--resume", &online]);
    assert!(error.contains("holds a run of oto learn: resume it with oto learn --resume"), "{error}");
    let back = ["teach", "--from", &online, "--dataset", &data, "--out", &at("back"), "--updates", "20"];
    let told = done(&back);
    assert!(
        told.contains("(qrdqn, ") && told.contains("from an environment)") && !told.contains("fresh"),
        "{told}"
    );
    assert_eq!(config(&at("back"))["teach"]["algorithm"]["quantiles"], 7);
    assert!(oto(&["eval", &at("back"), "--env", "CartPole-v1", "--episodes", "2"]).status.success());
    done(&[
        "eval",
        &Path::new(&at("back")).join("checkpoint.safetensors").display().to_string(),
        "--env",
        "CartPole-v1",
        "--episodes",
        "2",
    ]);

    // Runs that cannot be continued leave no folder behind.
    let out = at("none");
    let from = |run: &str, more: &[&str]| {
        let error = refused(&[&["learn", "--from", run, "--out", &out], more].concat());
        assert!(!Path::new(&out).exists(), "{error}");
        error
    };
    let error = from(&online, &["--env", "Acrobot-v1"]);
    assert!(error.contains("observations of 4 numbers") && error.contains("this one has 6"), "{error}");
    let error = from(&online, &["--algorithm", "ppo", "--set", "n_step=1"]);
    assert!(error.contains("it is of qrdqn, which has no network of ppo"), "{error}");
    assert!(from(&at("nowhere"), &[]).contains("nowhere"));
    let checkpoint = Path::new(&online).join("checkpoint.safetensors");
    let whole = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &whole[..whole.len() - 4]).unwrap();
    assert!(from(&online, &[]).contains("checkpoint: "));
    std::fs::remove_file(&checkpoint).unwrap();
    assert!(from(&online, &[]).contains("holds no checkpoint"));
    let named = Path::new(&online).join("config.json");
    let text = std::fs::read_to_string(&named).unwrap().replace("\"qrdqn\"", "\"cqrdqn\"");
    std::fs::write(&named, text).unwrap();
    let error = refused(&["learn", "--resume", &online]);
    assert!(error.contains("`qrdqn`") && error.contains("cqrdqn"), "{error}");
}

#[test]
fn a_dataset_is_mixed_into_a_run_and_is_needed_to_resume_it() {
    let place = Place::new("mixed");
    std::fs::create_dir_all(place.run()).unwrap();
    let at = |name: &str| place.run().join(name).display().to_string();
    let record = |name: &str, seed: &str| {
        let data = at(name);
        let flags =
            ["--env", "CartPole-v1", "--steps", "200", "--eval-every", "0", "--quiet", "--seed", seed];
        done(
            &[&["learn"], &flags[..], &["--out", &at(&format!("first-{name}")), "--record", &data]].concat(),
        );
        data
    };
    let (data, other) = (record("data", "1"), record("other", "2"));
    let small = [
        "--set",
        "algorithm.hidden=[12]",
        "--set",
        "learning_starts=20",
        "--eval-every",
        "60",
        "--eval-episodes",
        "1",
    ];
    let run = |out: &str, steps: &str, more: &[&str]| {
        done(
            &[&["learn", "--dataset", &data, "--quiet", "--out", out, "--steps", steps], &small[..], more]
                .concat(),
        );
    };
    let events = |run: &str| {
        let lines = std::fs::read_to_string(Path::new(run).join("metrics.jsonl")).unwrap();
        lines
            .lines()
            .filter(|line| !line.contains(r#""event":"metrics""#))
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let [whole, parts] = ["whole", "parts"].map(at);
    run(&whole, "120", &[]);
    let made = config(&whole);
    assert_eq!((&made["env"], &made["dataset"]), (&"CartPole-v1".into(), &data.clone().into()));
    assert_eq!(made["student"]["replay"]["sampler"], "shares");
    run(&parts, "70", &[]);
    let error = refused(&["learn", "--resume", &parts, "--dataset", &other, "--steps", "120"]);
    assert!(error.contains("its run has another dataset"), "{error}");
    done(&["learn", "--resume", &parts, "--steps", "120", "--quiet"]);
    assert_eq!(events(&parts), events(&whole));
    let error = refused(&["learn", "--resume", &at("first-data"), "--dataset", &data]);
    assert!(error.contains("has no dataset"), "{error}");
    let out = at("none");
    for (flags, part) in [
        (["--algorithm", "ppo"], "algorithm.name is \"ppo\""),
        (["--env", "Pendulum-v1"], "data: "),
        (["--set", "replay.sampler=prioritised"], "replay.sampler is \"prioritised\""),
    ] {
        let error = refused(&[&["learn", "--dataset", &data, "--out", &out], &flags[..]].concat());
        assert!(error.contains(part) && !Path::new(&out).exists(), "{error}");
    }
}

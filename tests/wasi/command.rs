//! The command `oto-wasi.wasm` in wasmtime: taught by a real server over wasi:sockets, left by it, alone, resumed, refused,
//! and checked against the reference data.

use oto_agent::config::StudentConfig;
use oto_agent::presets;
use oto_agent::student::{Environments, Student};
use oto_tests::command::{Ended, Run};
use oto_tests::server::{Server, free_port};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A student that is quick to train.
const SMALL: [&str; 6] =
    ["--set", "algorithm.hidden=[32]", "--set", "algorithm.quantiles=8", "--set", "algorithm.batch_size=32"];

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SMALL[..], more].concat()
}

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// The lines of a run's metrics.jsonl of one kind.
fn lines(run: &Path, event: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|line| line["event"] == event).collect()
}

fn succeeded(ended: &Ended) {
    assert!(ended.success, "{}\n{}", ended.out, ended.err);
}

#[test]
fn it_is_taught_over_sockets_and_leaves_a_run_folder() {
    let (server, runs) = (Server::start(0), folder("taught"));
    let url = server.url();
    let more =
        arguments(&["--teacher", &url, "--env", "CartPole-v1", "--steps", "1500", "--out", "taught/run"]);
    let ended = Run::new(&more).network().write(&runs).end();
    succeeded(&ended);
    assert!(ended.err.contains("steps/s"), "{}", ended.err);
    assert!(
        ended.err.contains("CartPole-v1 has a preset"),
        "it says whose settings these are: {}",
        ended.err
    );

    let run = runs.join("run");
    let last = lines(&run, "metrics").pop().unwrap();
    assert_eq!(last["step"], 1500);
    assert!(last["labels"].as_u64().unwrap() > 1400, "{last}");
    assert_eq!(last["transitions_sent"], 0);
    let stats = &last["teachers"][0]["stats"];
    assert_eq!(stats["rejected"]["frame"], 0, "{stats}");
    assert!(!lines(&run, "evaluation").is_empty());

    // Whatever trains where, a checkpoint is a checkpoint: this one goes on natively.
    let file = std::fs::read(run.join("checkpoint.safetensors")).unwrap();
    let config = oto_agent::checkpoint::config(&file).unwrap();
    let environment = Environments::built_in("CartPole-v1").unwrap();
    let mut student = Student::new(&config, environment, &[], &oto_cpu::Cpu, 0).unwrap();
    student.load_weights(&file).unwrap();
    assert!(student.evaluate(5).unwrap() >= 8.0);
}

#[test]
fn an_absent_teacher_is_done_without() {
    let url = format!("127.0.0.1:{}", free_port());
    let more = arguments(&["--teacher", &url, "--steps", "400", "--eval-every", "0"]);
    let ended = Run::new(&more).network().end();
    succeeded(&ended);
    assert!(ended.out.contains("400 steps") && ended.out.contains(" 0 labels"), "{}", ended.out);
    assert!(ended.err.contains("sac_inverted_pendulum_v5: "), "it says what is wrong: {}", ended.err);
}

#[test]
fn without_a_network_it_learns_alone() {
    let more = arguments(&["--teacher", "127.0.0.1:9", "--steps", "400", "--eval-every", "0"]);
    let ended = Run::new(&more).end();
    succeeded(&ended);
    assert!(ended.out.contains("400 steps") && ended.out.contains(" 0 labels"), "{}", ended.out);
}

#[test]
fn a_teacher_that_leaves_is_missed_and_one_that_returns_is_used() {
    let (server, runs) = (Server::start(0), folder("left"));
    let (port, url) = (server.port, server.url());
    // However fast this machine is, the run is not over before the teacher is back: it ends with this process.
    let more =
        ["--teacher", &url, "--steps", "100000000", "--eval-every", "0", "--quiet", "--out", "left/run"];
    let _running = Run::new(&arguments(&more)).network().write(&runs).start();
    let file = runs.join("run/metrics.jsonl");
    let metrics = || metrics(&std::fs::read_to_string(&file).unwrap_or_default());
    let newest = || metrics().pop().unwrap_or_default();
    let labels = || newest()["labels"].as_u64().unwrap_or(0);
    wait(|| labels() > 100, "labels come");
    drop(server);
    wait(|| newest()["teachers"][0]["state"] != "ready", "the teacher is missed");
    let (step, taught) = (newest()["step"].as_u64(), labels());
    wait(|| newest()["step"].as_u64() > step, "learning goes on alone");
    let _server = Server::start(port);
    wait(|| labels() > taught + 100, "labels come again");
    let all = metrics();
    let stats = &all.last().unwrap()["teachers"][0]["stats"];
    assert_eq!(stats["reconnects"], 1, "{stats}");
    let alone = all.windows(2).filter(|pair| pair[0]["labels"] == pair[1]["labels"]).count();
    assert!(alone > 0, "some steps had no label");
}

/// The metrics in what a run has written so far; the last line may not be whole.
fn metrics(text: &str) -> Vec<Value> {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["event"] == "metrics").collect()
}

/// Waits for something, at most a minute.
fn wait(mut happened: impl FnMut() -> bool, what: &str) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited a minute: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one() {
    let runs = folder("resumed");
    let run = |more: &[&str]| succeeded(&Run::new(&[more, &["--quiet"]].concat()).write(&runs).end());
    run(&arguments(&["--steps", "1200", "--seed", "5", "--out", "resumed/whole"]));
    run(&arguments(&["--steps", "700", "--seed", "5", "--out", "resumed/parts"]));
    run(&["--resume", "resumed/parts", "--steps", "1200"]);
    for event in ["episode", "evaluation"] {
        let [whole, parts] = ["whole", "parts"].map(|name| lines(&runs.join(name), event));
        assert!(!whole.is_empty());
        assert_eq!(whole, parts);
    }
}

#[test]
fn a_run_begins_with_the_networks_and_settings_of_another_one() {
    let runs = folder("begun");
    let run = |more: &[&str]| Run::new(more).write(&runs).end();
    let small = r#"algorithm={"name":"qrdqn","hidden":[9],"batch_size":8}"#;
    succeeded(&run(&[
        "--env",
        "CartPole-v1",
        "--steps",
        "300",
        "--set",
        small,
        "--quiet",
        "--out",
        "begun/first",
    ]));
    let begun =
        run(&["--from", "begun/first", "--steps", "200", "--eval-every", "0", "--out", "begun/second"]);
    succeeded(&begun);
    assert!(begun.err.contains("continues begun/first (qrdqn, "), "{}", begun.err);
    let config = |run: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(runs.join(run).join("config.json")).unwrap()).unwrap()
    };
    let second = config("second");
    assert_eq!((&second["from"], &second["env"]), (&"begun/first".into(), &"CartPole-v1".into()));
    assert_eq!(second["student"]["algorithm"], config("first")["student"]["algorithm"]);
    for (more, reason) in [
        (&["--from", "begun/nowhere"][..], "begun/nowhere"),
        (
            &["--from", "begun/first", "--env", "Pendulum-v1"],
            "begun/first: checkpoint: its run has observations of 4",
        ),
        (&["--from", "begun/first", "--algorithm", "ppo", "--set", "n_step=1"], "no network of ppo"),
        (&["--from", "begun/first", "--resume", "begun/second"], "cannot be used with"),
    ] {
        let ended = run(more);
        assert!(!ended.success && ended.err.contains(reason), "{more:?}: {}", ended.err);
    }
}

#[test]
fn a_dataset_is_mixed_into_the_batches_of_a_run() {
    let runs = folder("mixed");
    let data = runs.join("data");
    std::fs::create_dir_all(&data).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/oto-data/tests/fixtures/cartpole_random/data/main_data.hdf5");
    std::fs::copy(fixture, data.join("main_data.hdf5")).unwrap();
    let run = |more: &[&str]| Run::new(&[more, &["--quiet"]].concat()).write(&runs).end();
    let method = r#"algorithm={"name":"pex","hidden":[9],"batch_size":8}"#;
    let mixed = |steps: &'static str, out: &'static str| {
        let set = ["--set", method, "--set", "replay.sampler=\"shares\"", "--set", "learning_starts=50"];
        let place = ["--env", "CartPole-v1", "--dataset", "mixed/data/main_data.hdf5", "--eval-every", "100"];
        [&place[..], &set, &["--steps", steps, "--out", out]].concat()
    };
    succeeded(&run(&mixed("300", "mixed/whole")));
    succeeded(&run(&mixed("150", "mixed/parts")));
    succeeded(&run(&["--resume", "mixed/parts", "--steps", "300"]));
    for event in ["episode", "evaluation"] {
        let [whole, parts] = ["whole", "parts"].map(|name| lines(&runs.join(name), event));
        assert!(!whole.is_empty());
        assert_eq!(whole, parts, "a resumed run reads the dataset again");
    }
    let last = lines(&runs.join("whole"), "metrics").pop().unwrap();
    assert!(last["updates"].as_u64().unwrap() >= 250, "{last}");
    for (more, reason) in [
        (&["--dataset", "mixed/nowhere", "--env", "CartPole-v1"][..], "mixed/nowhere"),
        (&["--dataset", "mixed/data", "--env", "Acrobot-v1"], "mixed/data"),
        (&["--dataset", "mixed/data", "--env", "CartPole-v1", "--algorithm", "ppo"], "replay buffer"),
        (&["--dataset", "mixed/data", "--resume", "mixed/parts"], "cannot be used with"),
    ] {
        let ended = run(more);
        assert!(!ended.success && ended.err.contains(reason), "{more:?}: {}", ended.err);
    }
}

#[test]
fn it_works_for_an_agent_that_a_server_shares() {
    let place = folder("shares");
    let file = place.join("pole.json");
    let text = r#"{"env": "CartPole-v1", "student": {"algorithm": {"name": "a3c", "hidden": [16], "t_max": 10}, "steps": 100000}}"#;
    std::fs::write(&file, text).unwrap();
    let server = Server::sharing(0, &file);
    let settings = r#"algorithm={"name":"a3c","hidden":[16],"t_max":10}"#;
    let url = server.url();
    let work = |more: &[&str]| {
        let agent = ["--env", "CartPole-v1", "--eval-every", "0", "--quiet", "--share", &url];
        Run::new(&[&agent, more].concat()).network().write(&place).end()
    };
    let ended = work(&["--agent", "pole", "--set", settings, "--steps", "400", "--out", "shares/run"]);
    succeeded(&ended);
    assert!(ended.out.contains("400 steps, 40 gradients sent, 0 refused"), "{}", ended.out);
    assert!(!lines(&place.join("run"), "episode").is_empty());
    let other = settings.replace("16", "17");
    for (more, reason) in [
        (&["--agent", "pole", "--set", &other][..], "the shared agent pole: "),
        (&["--agent", "nowhere", "--set", settings], "nowhere"),
        (&["--agent", "pole", "--algorithm", "ppo"], "a3c"),
        (&["--agent", "pole", "--from", "shares/run"], "cannot be used with"),
    ] {
        let ended = work(more);
        assert!(!ended.success && ended.err.contains(reason), "{more:?}: {}", ended.err);
    }
}

#[test]
fn it_acts_with_the_weights_of_a_learner() {
    let place = folder("acts");
    let file = place.join("learner.json");
    let text = r#"{"env": "Pendulum-v1", "reward": "pendulum", "hz": 250, "learning_starts": 50,
        "algorithm": {"name": "ddpg", "hidden": [16, 16], "batch_size": 16}}"#;
    std::fs::write(&file, text).unwrap();
    let server = Server::learning(0, &file);
    let url = server.url();
    let act = |env: &str| {
        let more =
            ["act", &url, "--policy", "learner", "--env", env, "--steps", "500", "--json", "--every", "0.1"];
        Run::new(&more).network().end()
    };
    let ended = act("Pendulum-v1");
    succeeded(&ended);
    let last: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["steps"], &last["held"]), (&"end".into(), &500.into(), &0.into()));
    assert_eq!((&last["acknowledged"], &last["hz"]), (&last["recorded"], &250.0.into()), "{last}");
    assert!(last["version"].as_u64().unwrap() > 1 && ended.out.lines().count() > 2, "{last}");
    let refused = act("CartPole-v1");
    assert!(
        !refused.success && refused.err.contains("expected an environment with 3 numbers"),
        "{}",
        refused.err
    );
}

#[test]
fn what_cannot_be_done_is_said() {
    let server = Server::start(0);
    let url = server.url();
    let fails = |arguments: &[&str], words: &str| {
        let ended = Run::new(arguments).network().end();
        assert!(!ended.success);
        assert!(ended.err.contains(words), "{words}: {}", ended.err);
    };
    fails(&["--teacher", &url, "--policy", "nobody"], "nobody");
    fails(&["--env", "CartPole-v9"], "CartPole-v9");
    fails(&["--env", "Pendulum-v1", "--algorithm", "qrdqn"], "discrete");
    fails(&["--algorithm", "ppo", "--set", "algorithm.n_steps=100"], "a whole number of batches");
    fails(&["--algorithm", "ppo", "--set", "ppo.n_steps=100"], "format 1");
    fails(&["--set", "gamma=2"], "gamma");
    fails(&["--backend", "webgpu"], "not available here");
    fails(&["--out", "nowhere/run"], "nowhere/run");
    fails(&["--teacher", "http://127.0.0.1:1"], "http://127.0.0.1:1");
    fails(&["--no-such-flag"], "--no-such-flag");
}

#[test]
fn the_reference_data_hold_in_wasm() {
    let fixtures = oto_tests::root().join("tests/fixtures");
    let mut files = std::fs::read_dir(&fixtures)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("env_") || name.starts_with("losses"))
        .map(|name| format!("fixtures/{name}"))
        .collect::<Vec<_>>();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    let arguments = ["--json"].into_iter().chain(files.iter().map(String::as_str)).collect::<Vec<_>>();
    let ended = Run::verify(&arguments).read(&fixtures).end();
    succeeded(&ended);
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    assert!(report.to_string().matches("\"ok\"").count() > 50, "{report}");
}

#[test]
fn damaged_reference_data_do_not_hold() {
    let files = folder("damaged");
    std::fs::write(
        files.join("half.json.gz"),
        &std::fs::read(oto_tests::root().join("tests/fixtures/losses.json.gz")).unwrap()[..9000],
    )
    .unwrap();
    std::fs::write(files.join("other.json"), "{\"kind\": \"weather\"}").unwrap();
    for file in ["half.json.gz", "other.json", "absent.json"] {
        let ended = Run::verify(&[&format!("damaged/{file}")]).read(&files).end();
        assert!(!ended.success, "{file}: {}", ended.out);
        assert!(ended.out.contains(file), "{}", ended.out);
    }
}

#[test]
fn its_settings_are_those_of_every_face() {
    let runs = folder("settings");
    let more = ["--steps", "10", "--set", "gamma=0.9", "--out", "settings/run", "--quiet"];
    succeeded(&Run::new(&more).write(&runs).end());
    let file = std::fs::read(runs.join("run/config.json")).unwrap();
    let job: oto_agent::run::Job = serde_json::from_slice(&file).unwrap();
    let stages = oto_agent::stage::StagesConfig::SOLO;
    assert_eq!(
        job.student,
        StudentConfig { steps: 10, gamma: 0.9, stages, ..presets::student("CartPole-v1") }
    );
}

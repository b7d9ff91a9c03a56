//! `oto learn` as a process: what becomes of its folder, and what it says of flags and teachers.

use crate::program::{POLICY, Place, Program, welcomed};
use oto_agent::config::StudentConfig;
use oto_agent::drive::Driver;
use oto_agent::run::{Job, Observer, RunError, on_cpu, prepare_with, run};
use oto_agent::student::{Environments, Event, Metrics, Student};
use oto_agent::trainer::TrainError;
use oto_env::{Action, EnvError, Environment, Snapshot, Space, Step};
use oto_proto::Hello;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use tungstenite::Message;

fn oto(folder: &Path, flag: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oto"));
    command.arg("learn").arg(flag).arg(folder).args(flags);
    command
}

fn ended(folder: &Path, flag: &str, flags: &[&str]) -> Output {
    oto(folder, flag, flags).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A run without an end in this folder, once its first episode is over.
fn endless(folder: &Path) -> Child {
    let flags = ["--steps", "1000000000", "--eval-every", "0", "--json"];
    let mut child = oto(folder, "--out", &flags).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("episode"));
    // It goes on saying what happens, and somebody has to hear it.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

fn terminate(mut child: Child) {
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success(), "it saves and ends in peace");
}

#[test]
fn a_run_that_is_told_to_end_is_saved_and_goes_on_and_has_its_folder_for_itself() {
    let place = Place::new("told");
    let child = endless(&place.run());
    for (flag, more) in [("--out", "--force"), ("--out", "--quiet")] {
        let second = ended(&place.run(), flag, &[more]);
        assert_eq!(second.status.code(), Some(2));
        assert!(said(&second).contains("in use by a run that has not ended"), "{}", said(&second));
    }
    terminate(child);
    assert!(place.run().join("policy.safetensors").is_file());
    let resumed = ended(&place.run(), "--resume", &["--steps", "1"]);
    assert!(resumed.status.success(), "{}", said(&resumed));
}

#[test]
fn a_run_that_was_killed_before_its_first_checkpoint_begins_anew() {
    let place = Place::new("killed");
    let mut child = endless(&place.run());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!place.run().join("checkpoint.safetensors").exists());
    let resumed = ended(&place.run(), "--resume", &["--steps", "200"]);
    assert!(resumed.status.success(), "{}", said(&resumed));
    let lines = std::fs::read_to_string(place.run().join("metrics.jsonl")).unwrap();
    let steps =
        lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64());
    assert!(steps.clone().all(|step| step.is_some()) && steps.is_sorted(), "{lines}");
    let checkpoint = std::fs::read(place.run().join("checkpoint.safetensors")).unwrap();
    assert_eq!(oto_agent::checkpoint::steps(&checkpoint).unwrap(), 200);
}

#[test]
fn a_start_that_fails_leaves_the_folder_as_it_was() {
    let place = Place::new("start");
    let typo = ["--env", "Cartpole-v1", "--force"];
    assert_eq!(ended(&place.run(), "--out", &typo).status.code(), Some(2));
    assert!(!place.run().exists());
    assert!(ended(&place.run(), "--out", &["--steps", "100"]).status.success());
    let policy = std::fs::read(place.run().join("policy.safetensors")).unwrap();
    assert_eq!(ended(&place.run(), "--out", &typo).status.code(), Some(2));
    assert_eq!(std::fs::read(place.run().join("policy.safetensors")).unwrap(), policy);
}

#[test]
fn flags_that_would_not_be_heeded_are_refused() {
    let place = Place::new("flags");
    assert!(ended(&place.run(), "--out", &["--steps", "100"]).status.success());
    for flags in [["--seed", "4"], ["--env", "Pendulum-v1"], ["--backend", "cpu"], ["--eval-every", "7"]] {
        let refused = ended(&place.run(), "--resume", &flags);
        assert!(said(&refused).contains("cannot be used with"), "{}", said(&refused));
    }
    let url = "ws://127.0.0.1:9";
    let moved = ended(&place.run(), "--resume", &["--teacher", url]);
    assert!(said(&moved).contains("has 0 teachers, got 1 --teacher"), "{}", said(&moved));
    let alone = ended(&place.0.join("alone"), "--out", &["--policy", "ppo_cartpole_v1"]);
    assert!(said(&alone).contains("--teacher"), "{}", said(&alone));
    let two = ended(&place.0.join("two"), "--out", &["--teacher", url, "--policy", "a", "--policy", "b"]);
    assert!(said(&two).contains("2 --policy for 1 --teacher"), "{}", said(&two));
}

/// The logits of a served policy train the same student as those of its file.
#[test]
fn a_run_learns_from_the_logits_of_a_server() {
    let place = Place::new("served");
    let [teacher, near, far, other] =
        ["teachers/pole", "near", "far", "other"].map(|name| place.run().join(name));
    let common = ["--algorithm", "a3c", "--quiet", "--eval-every", "0", "--set", "algorithm.hidden=[8]"];
    let made = ended(&teacher, "--out", &[&common[..], &["--steps", "200"]].concat());
    assert!(made.status.success(), "{}", said(&made));
    let server = Program::serve(&["--policies", place.run().join("teachers").to_str().unwrap()], &[]);
    let url = format!("ws://{}", server.address);
    let distilled = |run: &Path, more: &[&str]| {
        let set =
            ["--set", "algorithm.distillation.alignment={\"hidden\":[8]}", "--steps", "600", "--seed", "3"];
        ended(run, "--out", &[&common[..], &set, more].concat())
    };
    for (run, from) in [
        (&near, &["--distill", teacher.to_str().unwrap()][..]),
        (&far, &["--distill", &url, "--policy", "pole"]),
    ] {
        let output = distilled(run, from);
        assert!(output.status.success(), "{}", said(&output));
    }
    let policy = |run: &Path| std::fs::read(run.join("policy.safetensors")).unwrap();
    assert!(policy(&near) == policy(&far), "the same student");
    let last = lines(&far, "metrics").pop().unwrap();
    assert_eq!(last["loss"]["distillation_refused"], 0.0, "{last}");
    let resumed = ended(&far, "--resume", &["--steps", "700", "--quiet"]);
    assert!(resumed.status.success(), "{}", said(&resumed));
    let named = format!("{url}/v1/teach#none");
    for (flags, part) in [
        (&["--distill", &url][..], "0 --policy for 1 --distill"),
        (&["--distill", &url, "--policy", "a", "--policy", "b"], "1 --policy for 0 --teacher"),
        (&["--distill", &named], "\"none\""),
        (&["--distill", "ws://127.0.0.1:9#pole"], "ws://127.0.0.1:9/v1/teach"),
    ] {
        let output = distilled(&other, flags);
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains(part), "{}", said(&output));
    }
    assert!(!other.exists());
}

/// Two runs of different games on one server learn from each other. One is killed; the other continues, ends without an error, and is resumed alone.
#[test]
fn two_runs_learn_from_each_other_and_one_is_killed() {
    let place = Place::new("peers");
    let [group, breakout, asterix, other] =
        ["games.toml", "breakout", "asterix", "other"].map(|name| place.run().join(name));
    std::fs::create_dir_all(place.run()).unwrap();
    std::fs::write(&group, "members = 2\nstates_per_second = 1e5\n").unwrap();
    let server = Program::serve(&["--group", &format!("games={}", group.display())], &[]);
    let url = format!("ws://{}", server.address);
    let common = ["--algorithm", "a3c", "--quiet", "--eval-every", "0", "--set", "algorithm.hidden=[8]"];
    let aligned = ["--set", "algorithm.distillation={\"to\":\"head\",\"alignment\":{\"hidden\":[8]}}"];
    let flags = |env: &'static str, member: &'static str, group: &'static str| {
        let peer = ["--env", env, "--peer", &url, "--group", group, "--member", member].map(str::to_owned);
        [&common[..], &aligned].concat().into_iter().map(str::to_owned).chain(peer).collect::<Vec<_>>()
    };
    let run = |folder: &Path, flags: Vec<String>, steps: &str| {
        let flags = flags.iter().map(String::as_str).chain(["--steps", steps]).collect::<Vec<_>>();
        oto(folder, "--out", &flags).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let [one, two] =
        ["MinAtar/Breakout-v1?images=true&channels=10", "MinAtar/Asterix-v1?images=true&channels=10"];
    let first = run(&breakout, flags(one, "breakout", "games"), "1000000000");
    let mut second = run(&asterix, flags(two, "asterix", "games"), "1000000000");
    let number = |folder: &Path, of: &dyn Fn(&Value) -> Option<f64>| {
        let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
        let whole = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        whole.filter_map(|line| of(&line)).last().unwrap_or(0.0)
    };
    let answered = |folder: &Path| number(folder, &|line| line["loss"]["peer_answered"].as_f64());
    let steps = |folder: &Path| number(folder, &|line| line["step"].as_f64());
    let until = |done: &dyn Fn() -> bool| {
        let start = std::time::Instant::now();
        while !done() {
            assert!(start.elapsed() < 2 * crate::program::PATIENCE, "it takes too long");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    until(&|| answered(&breakout) > 0.0 && answered(&asterix) > 0.0);
    second.kill().unwrap();
    second.wait().unwrap();
    let then = steps(&breakout);
    until(&|| steps(&breakout) >= then + 1000.0);
    terminate(first);
    let last = lines(&breakout, "metrics").pop().unwrap();
    assert!(last["loss"]["peer_taught"].as_f64().unwrap() > 0.0, "{last}");
    assert_eq!(last["loss"]["distillation_refused"], 0.0, "{last}");
    let config: Value =
        serde_json::from_slice(&std::fs::read(breakout.join("config.json")).unwrap()).unwrap();
    let teachers = &config["student"]["algorithm"]["distillation"]["teachers"];
    assert_eq!(teachers, &serde_json::json!([{ "actions": 5, "weight": 1.0 }]));
    assert_eq!(config["peer"]["teachers"], serde_json::json!(["asterix"]));
    let more = (last["step"].as_u64().unwrap() + 500).to_string();
    let resumed = ended(&breakout, "--resume", &["--steps", &more, "--quiet"]);
    assert!(resumed.status.success(), "{}", said(&resumed));

    for (group, more, part) in [
        ("none", &[][..], "\"none\""),
        ("games", &["--set", "algorithm.lstm=4"], "algorithm.lstm is 4"),
        ("games", &["--workers", "2"], "cannot be used with"),
    ] {
        let given = flags(one, "breakout", group);
        let flags = given.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>();
        let output = ended(&other, "--out", &flags);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(part), "{}", said(&output));
    }
    assert!(!other.exists());
}

/// A student of a3c with a teacher and an expert that are runs: the same after a resume, and what does not fit is named.
#[test]
fn a_run_learns_from_the_logits_of_others() {
    let place = Place::new("distilled");
    let [teacher, run] = ["teacher", "student"].map(|name| place.run().join(name));
    let common = ["--algorithm", "a3c", "--quiet", "--eval-every", "200", "--eval-episodes", "1"];
    let small = ["--set", "algorithm.hidden=[8]"];
    let made = ended(&teacher, "--out", &[&common[..], &small, &["--steps", "200"]].concat());
    assert!(made.status.success(), "{}", said(&made));
    let path = teacher.to_str().unwrap();
    let with =
        |more: &[&str]| ended(&run, "--out", &[&common[..], &small, &["--distill", path], more].concat());
    let aligned = "algorithm.distillation.alignment={\"hidden\":[8],\"expert_steps\":100}";
    let set = ["--set", aligned, "--set", "algorithm.distillation.to=head", "--expert", path];
    let began = with(&[&set[..], &["--distill-weight", "0.5", "--steps", "500"]].concat());
    assert!(began.status.success(), "{}", said(&began));
    let resumed = ended(&run, "--resume", &["--steps", "1000", "--quiet"]);
    assert!(resumed.status.success(), "{}", said(&resumed));
    let config: Value = serde_json::from_slice(&std::fs::read(run.join("config.json")).unwrap()).unwrap();
    let distillation = &config["student"]["algorithm"]["distillation"];
    assert_eq!(distillation["teachers"], serde_json::json!([{ "actions": 2, "weight": 0.5 }]));
    assert_eq!(config["distill"]["expert"], path);
    let last = lines(&run, "metrics").pop().unwrap();
    let loss = &last["loss"];
    assert!(loss["distillation_loss"].as_f64().unwrap() > 0.0 && loss["agreement"].is_number(), "{last}");
    assert_eq!((&last["updates"], &loss["distillation_refused"]), (&45.into(), &0.0.into()), "{last}");

    let refused = |more: &[&str]| {
        let output = with(&[&["--force", "--steps", "100"], more].concat());
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        said(&output)
    };
    for (flags, part) in [
        (&["--distill-weight", "1", "--distill-weight", "2"][..], "2 --distill-weight for 1 --distill"),
        (&["--distill", "/nowhere"], "/nowhere"),
        (&["--distill-weight=-1"], "algorithm.distillation.teachers[0].weight is -1"),
        (&["--env", "Acrobot-v1"], "has 2 actions, the student has 3"),
        (&["--env", "Acrobot-v1", "--set", "algorithm.distillation.to=head"], "a policy that sees 4 numbers"),
        (&["--expert", path], "distill.expert is given"),
        (&["--workers", "2"], "several workers cannot have a distillation"),
        (&["--set", "algorithm.distillation.to=both"], "algorithm.distillation.to"),
    ] {
        assert!(refused(flags).contains(part), "{flags:?}: {}", refused(flags));
    }
    let other = ended(&run, "--out", &["--algorithm", "ppo", "--force", "--distill", path]);
    assert!(said(&other).contains("learns from teachers' logits"), "{}", said(&other));
    let alone =
        [&common[..], &["--force", "--set", "algorithm.distillation.teachers=[{\"actions\":2}]"]].concat();
    let missing = ended(&run, "--out", &alone);
    assert!(said(&missing).contains("distill is none"), "{}", said(&missing));
}

#[test]
fn flags_out_of_range_or_without_a_teacher_are_refused() {
    let place = Place::new("range");
    for (flags, part) in [
        (&["--require-teacher"][..], "--require-teacher"),
        (&["--submit"], "--teacher"),
        (&["--dtype", "f16"], "--teacher"),
        (&["--loop"], "--teacher"),
        (&["--online", "return=nan"], "return_at_least"),
        (&["--offline", "steps=100,steps=200"], "twice"),
        (&["--seeds", "2", "--jobs", "0"], "--jobs"),
        (&["--threads", "0"], "a whole number from 1 to 512 is needed"),
        (&["--seeds", "0"], "--seeds"),
    ] {
        let refused = ended(&place.run(), "--out", &[flags, &["--steps", "100"]].concat());
        assert!(
            refused.status.code() == Some(2) && said(&refused).contains(part),
            "{flags:?}: {}",
            said(&refused)
        );
        assert!(!place.run().exists(), "{flags:?}");
    }
}

#[test]
fn a_teacher_that_is_not_there_is_named() {
    let place = Place::new("absent");
    let nobody = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().local_addr().unwrap();
    let teacher = format!("ws://{nobody}");
    let output = ended(&place.run(), "--out", &["--steps", "300", "--teacher", &teacher]);
    assert!(output.status.success());
    let said = said(&output);
    assert!(said.contains("is not there, learning begins without it: cannot connect"), "{said}");
    assert!(said.contains("no label came from teacher sac_inverted_pendulum_v5: cannot connect"), "{said}");
}

/// CartPole, until it breaks.
struct Breaking(Box<dyn Environment>, u32);

impl Environment for Breaking {
    fn id(&self) -> &str {
        self.0.id()
    }
    fn observation_space(&self) -> &Space {
        self.0.observation_space()
    }
    fn action_space(&self) -> &Space {
        self.0.action_space()
    }
    fn max_episode_steps(&self) -> Option<u32> {
        self.0.max_episode_steps()
    }
    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError> {
        self.0.reset(seed, observation)
    }
    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Result<Step, EnvError> {
        self.1 = self.1.checked_sub(1).ok_or_else(|| EnvError::NotSaved { id: "broken".into() })?;
        self.0.step(action, observation)
    }
    fn save(&self) -> Result<Snapshot, EnvError> {
        self.0.save()
    }
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        self.0.restore(snapshot)
    }
}

#[derive(Default)]
struct Keeper {
    saved: Option<Vec<u8>>,
}

impl Observer for Keeper {
    fn event(&mut self, _: &Event) -> Result<(), String> {
        Ok(())
    }
    fn progress(&mut self, _: &Metrics) -> Result<(), String> {
        Ok(())
    }
    fn checkpoint(&mut self, student: &Student) -> Result<(), String> {
        self.saved = Some(student.save(true).map_err(|error| error.to_string())?);
        Ok(())
    }
}

/// A run whose environments break after a number of steps: how it ends, and what was saved last.
fn broken(steps: [u32; 2], resume: Option<&[u8]>) -> (Result<Metrics, RunError>, Option<Vec<u8>>) {
    let [train, evaluate] =
        steps.map(|n| Box::new(Breaking(oto_env::make("CartPole-v1").unwrap(), n)) as Box<dyn Environment>);
    let mut student = StudentConfig { steps: 400, ..StudentConfig::default() };
    student.stages = oto_agent::stage::StagesConfig::SOLO;
    student.evaluation.every = 100;
    let job = Job {
        env: "CartPole-v1".into(),
        student,
        teachers: vec![],
        defaults: None,
        from: None,
        dataset: None,
        workers: 1,
        distill: None,
        peer: None,
    };
    let (mut student, mut driver) = prepare_with(
        Environments::Inside { train, evaluate: Some(evaluate) },
        &job,
        on_cpu(oto_cpu::Cpu),
        Driver::with(Vec::new()),
        resume,
        |_| Ok(()),
    )
    .unwrap();
    let mut keeper = Keeper::default();
    (run(&mut student, &mut driver, &mut keeper), keeper.saved)
}

#[test]
fn what_was_learnt_before_an_environment_breaks_is_saved_and_goes_on() {
    // In a step of training, and in one of an evaluation.
    for (steps, reached) in [([250, u32::MAX], 250), ([u32::MAX, 20], 100)] {
        let (end, saved) = broken(steps, None);
        assert!(
            matches!(end, Err(RunError::Train(TrainError::Environment(EnvError::NotSaved { .. })))),
            "{end:?}"
        );
        let saved = saved.expect("a checkpoint");
        assert_eq!(oto_agent::checkpoint::steps(&saved).unwrap(), reached);
        let (end, _) = broken([u32::MAX; 2], Some(&saved));
        assert_eq!(end.unwrap().step, 400);
    }
}

/// The lines of a run's metrics of this event.
fn lines(run: &Path, event: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == event).collect()
}

/// The last row of a run's table: step, and bytes sent.
fn last_row(run: &Path) -> [u64; 2] {
    let text = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let cells: Vec<&str> = text.lines().last().unwrap().split(',').collect();
    [0, 7].map(|i| cells[i].parse().unwrap())
}

#[test]
fn the_last_line_says_how_a_run_ended_and_what_left() {
    let place = Place::new("last");
    let replays = place.0.join("replays");
    let server = Program::serve(&["--accept-replay", replays.to_str().unwrap()], &[]);
    let url = format!("ws://{}", server.address);
    let submits = ["--teacher", &url, "--policy", POLICY, "--submit", "--eval-every", "0"];
    let looping = ["--transfer", "steps=200", "--online", "steps=200", "--loop"];
    // Alone, submitting once, and at the end of each Online stage; to an odd step and to one that has a line anyway.
    for (name, flags, steps, sent) in [
        ("alone", &[][..], 640, 0),
        ("once", &submits[..], 500, 500),
        ("odd", &submits[..], 730, 730),
        ("loop", &[&submits[..], &looping[..]].concat()[..], 900, 900),
    ] {
        let run = place.0.join(name);
        let steps_text = steps.to_string();
        let output = ended(&run, "--out", &[flags, &["--steps", &steps_text]].concat());
        assert!(output.status.success(), "{}", said(&output));
        let metrics = lines(&run, "metrics");
        let last = metrics.last().unwrap();
        let of = |key: &str| last[key].as_u64().unwrap();
        assert_eq!((of("step"), last["done"].as_bool()), (steps, Some(true)), "{name}");
        assert_eq!((of("transitions_sent"), of("transitions_kept")), (sent, sent), "{name}");
        let bytes: u64 = last["teachers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["stats"]["bytes_up"].as_u64().unwrap())
            .sum();
        assert_eq!(last_row(&run), [steps, bytes], "{name}");
        // A transition has two observations, an action and a reward.
        assert!(bytes >= sent * 40, "{name}: {bytes} bytes");
        let mut told = metrics.iter().map(|line| line.to_string()).collect::<Vec<_>>();
        told.dedup();
        assert_eq!(told.len(), metrics.len(), "nothing is said twice");
    }
    // What is done already ends once more, and says so only if something left.
    let before = lines(&place.0.join("alone"), "metrics").len();
    assert!(ended(&place.0.join("alone"), "--resume", &[]).status.success());
    assert_eq!(lines(&place.0.join("alone"), "metrics").len(), before);
}

#[test]
fn a_run_that_is_told_to_end_writes_its_last_line() {
    let place = Place::new("told-line");
    terminate(endless(&place.run()));
    let metrics = lines(&place.run(), "metrics");
    let last = metrics.last().unwrap();
    let saved = std::fs::read(place.run().join("checkpoint.safetensors")).unwrap();
    assert_eq!(last["step"].as_u64(), Some(oto_agent::checkpoint::steps(&saved).unwrap()));
    assert_eq!(last["done"], false);
}

/// What a teacher's server heard of one student: its introduction, what it said after that, and how it closed.
type Conversation = (Hello, Vec<String>, Option<u16>);

/// A teacher's server that welcomes everyone and answers nothing. Students that do not count on it say little.
fn listener(conversations: usize) -> (String, JoinHandle<Vec<Conversation>>) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let listens = std::thread::spawn(move || {
        (0..conversations).map(|_| converse(listener.accept().unwrap().0)).collect()
    });
    (url, listens)
}

fn converse(stream: TcpStream) -> Conversation {
    let (mut socket, hello) = welcomed(stream);
    let mut heard = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => heard.push(text.to_string()),
            Ok(Message::Close(frame)) => return (hello, heard, frame.map(|frame| frame.code.into())),
            Ok(other) => panic!("{other:?}"),
            Err(error) => panic!("the connection ended without a close: {error}"),
        }
    }
}

#[test]
fn a_run_says_goodbye_and_has_a_name_of_its_own() {
    let place = Place::new("goodbye");
    let (url, listens) = listener(6);
    let unheeded = ["--teacher", &url, "--policy", "p", "--weight", "0"];
    let run = |name: &str, flags: &[&str]| {
        let output =
            ended(&place.0.join(name), "--out", &[&unheeded[..], &["--steps", "60"], flags].concat());
        assert!(output.status.success(), "{}", said(&output));
    };
    run("first", &[]);
    run("second", &[]);
    run("named", &["--student", "ada"]);
    assert!(ended(&place.0.join("first"), "--resume", &["--steps", "90"]).status.success());
    // A run that is told to end says goodbye, too.
    let flags = [&unheeded[..], &["--steps", "1000000000", "--eval-every", "0", "--json"]].concat();
    let child = oto(&place.0.join("told"), "--out", &flags).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    out.next().unwrap().unwrap();
    std::thread::spawn(move || out.for_each(drop));
    terminate(child);
    run("seeds", &["--student", "ada", "--seed", "7"]);

    let conversations = listens.join().unwrap();
    for (hello, heard, code) in &conversations {
        assert_eq!(heard.last().map(String::as_str), Some(r#"{"type":"bye"}"#), "{hello:?} {heard:?}");
        assert_eq!(*code, Some(1000));
    }
    let names: Vec<&str> = conversations.iter().map(|(hello, ..)| hello.student.as_str()).collect();
    assert!(names[0] != names[1] && names[0].len() > 16 && names[1].len() > 16, "{names:?}");
    assert_eq!((names[2], names[3], names[5]), ("ada", names[0], "ada"));
}

#[test]
fn submissions_that_no_server_takes_are_told_at_once() {
    let place = Place::new("refused");
    let server = Program::serve(&[], &[]);
    let url = format!("ws://{}", server.address);
    let flags = |policy| ["--teacher", &url, "--steps", "40", "--submit", "--policy", policy];
    let closed = ended(&place.0.join("closed"), "--out", &flags(POLICY));
    assert!(said(&closed).contains("takes no submissions: its server does not collect"), "{}", said(&closed));
    let replays = place.0.join("replays");
    let server = Program::serve(&["--accept-replay", replays.to_str().unwrap()], &[]);
    let url = format!("ws://{}", server.address);
    let flags = |policy| ["--teacher", &url, "--steps", "40", "--submit", "--policy", policy];
    let adapted = ended(&place.0.join("adapted"), "--out", &flags("sac_inverted_pendulum_v5"));
    assert!(said(&adapted).contains("takes no submissions: the spaces differ"), "{}", said(&adapted));
    let taken = ended(&place.0.join("taken"), "--out", &flags(POLICY));
    assert!(taken.status.success() && !said(&taken).contains("submissions"), "{}", said(&taken));
}

#[test]
fn a_teacher_that_is_required_has_to_be_there() {
    let place = Place::new("required");
    let nobody = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().local_addr().unwrap();
    let url = format!("ws://{nobody}");
    let away = ended(&place.run(), "--out", &["--teacher", &url, "--steps", "40", "--require-teacher"]);
    assert_eq!(away.status.code(), Some(2), "{}", said(&away));
    assert!(said(&away).contains("is required, and is not there: cannot connect"), "{}", said(&away));
    assert!(!place.run().exists(), "nothing was begun");

    let server = Program::serve(&[], &[]);
    let url = format!("ws://{}", server.address);
    let flags = ["--teacher", &url, "--policy", POLICY, "--require-teacher", "--steps"];
    let there = ended(&place.run(), "--out", &[&flags[..], &["60"]].concat());
    assert!(there.status.success(), "{}", said(&there));
    // Too short for a label.
    let silent = ended(&place.0.join("short"), "--out", &[&flags[..], &["4"]].concat());
    assert_eq!(silent.status.code(), Some(2), "{}", said(&silent));
    assert!(said(&silent).contains("no label came from it"), "{}", said(&silent));
    let none = ended(&place.0.join("none"), "--out", &["--seeds", "0"]);
    assert_eq!(none.status.code(), Some(2), "{}", said(&none));
    assert!(said(&none).contains("0 is not in"), "{}", said(&none));
}

/// What the file of a run's policy says of itself.
fn description(run: &Path, file: &str) -> String {
    let loaded = oto_policy::load_file(&run.join(file)).unwrap();
    loaded.metadata.description.unwrap()
}

/// A run that evaluates often, also one that is interrupted: the best of its evaluations is what is served, the newest is there.
#[test]
fn the_best_policy_is_kept_beside_the_newest() {
    let place = Place::new("best");
    let flags = ["--eval-every", "50", "--eval-episodes", "2", "--seed", "3"];
    let [whole, parted] = ["whole", "parted"].map(|name| place.0.join(name));
    assert!(ended(&whole, "--out", &[&flags[..], &["--steps", "1500"]].concat()).status.success());
    assert!(ended(&parted, "--out", &[&flags[..], &["--steps", "1100"]].concat()).status.success());
    assert!(ended(&parted, "--resume", &["--steps", "1500"]).status.success());
    for run in [&whole, &parted] {
        let evaluations = lines(run, "evaluation");
        let mean = |line: &Value| line["mean"].as_f64().unwrap();
        let best = evaluations.iter().max_by(|a, b| mean(a).total_cmp(&mean(b))).unwrap();
        let expected = format!(
            "A student after {} steps: the best of its evaluations, mean return {:.2} of 2 episodes.",
            best["step"],
            mean(best)
        );
        assert_eq!(description(run, "policy.safetensors"), expected);
        assert_eq!(description(run, "newest.safetensors"), "A student after 1500 steps.");
        assert!(best["step"] != 1500, "a run whose end is its best shows nothing");
    }
    for file in ["policy.safetensors", "newest.safetensors"] {
        let [whole, parted] = [&whole, &parted].map(|run| std::fs::read(run.join(file)).unwrap());
        assert!(whole == parted, "{file}");
    }
    let eval = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oto"));
        let output = command.arg("eval").arg(&whole).args(["--episodes", "3"]).args(flags).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    assert!(
        eval(&[]).contains("the best of its evaluations") && eval(&[]).contains("--newest plays the newest")
    );
    assert!(eval(&["--newest"]).contains("newest.safetensors: A student after 1500 steps."));
    let folder = place.0.to_str().unwrap();
    for (flags, says) in [
        (&["--policies", folder][..], "the best of its"),
        (&["--policies", folder, "--newest"], "after 1500 steps."),
    ] {
        let said = Program::serve(flags, &[]).stop();
        assert!(
            said.lines().any(|line| line.contains("the policy of a run") && line.contains(says)),
            "{said}"
        );
    }
}

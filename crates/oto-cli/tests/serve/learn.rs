//! `oto learn` as a process: what becomes of its folder, and what it says of flags and teachers.

use crate::program::Place;
use oto_cli::learn::{Observer, RunError, prepare_in, run};
use oto_cli::options::Job;
use oto_env::{Action, EnvError, Environment, Snapshot, Space, Step};
use oto_student::config::StudentConfig;
use oto_student::drive::Driver;
use oto_student::student::{Event, Metrics, Student, World};
use oto_student::trainer::TrainError;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

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
    assert_eq!(oto_student::checkpoint::steps(&checkpoint).unwrap(), 200);
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

/// A run in a world whose environments break after so many steps: how it ends, and what was saved last.
fn broken(steps: [u32; 2], resume: Option<&[u8]>) -> (Result<Metrics, RunError>, Option<Vec<u8>>) {
    let [train, evaluate] =
        steps.map(|n| Box::new(Breaking(oto_env::make("CartPole-v1").unwrap(), n)) as Box<dyn Environment>);
    let mut student = StudentConfig { steps: 400, ..StudentConfig::default() };
    student.stages = oto_student::stage::StagesConfig::SOLO;
    student.evaluation.every = 100;
    let job = Job { env: "CartPole-v1".into(), student, teachers: vec![] };
    let (mut student, mut driver) =
        prepare_in(World::Inside { train, evaluate: Some(evaluate) }, &job, Driver::with(Vec::new()), resume)
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
        assert_eq!(oto_student::checkpoint::steps(&saved).unwrap(), reached);
        let (end, _) = broken([u32::MAX; 2], Some(&saved));
        assert_eq!(end.unwrap().step, 400);
    }
}

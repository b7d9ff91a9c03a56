//! Policies published from a folder: what is renamed into it answers, and what is no policy does not.

use crate::student::{Server, hello, serve};
use crate::submissions::Folder;
use oto_agent::config::StudentConfig;
use oto_agent::student::{Environments, Student};
use oto_policy::load_folder;
use oto_proto::Space;
use oto_server::folder::{Event, watch};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

fn bundled(name: &str) -> Vec<u8> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/teachers"));
    std::fs::read(folder.join(name)).unwrap()
}

/// As it should be done: written beside it, then renamed.
fn replace(folder: &Path, name: &str, bytes: &[u8]) {
    let beside = folder.join(".new");
    std::fs::write(&beside, bytes).unwrap();
    std::fs::rename(beside, folder.join(name)).unwrap();
}

fn heard(events: &Receiver<Event>) -> Event {
    events.recv_timeout(Duration::from_secs(20)).unwrap()
}

fn answer(server: &Server) -> (u32, Vec<Vec<f32>>) {
    let (mut student, _) =
        server.student(hello("cartpole", crate::policies::boxed(4), Space::Discrete { n: 2 }));
    let states: Vec<[f32; 4]> =
        (0..200).map(|i| [0.5, -0.9, 0.1, 0.8].map(|x| x * (i as f32 * 0.37).sin())).collect();
    student.ask(&states);
    let answer = student.answer();
    (answer.version, answer.rows)
}

#[test]
fn a_model_that_is_renamed_into_the_folder_answers_and_garbage_does_not() {
    let folder = Folder::new();
    std::fs::create_dir_all(&folder.0).unwrap();
    let late = bundled("ppo_cartpole_v1.onnx");
    replace(&folder.0, "cartpole.onnx", &late);
    replace(&folder.0, "cartpole.json", &bundled("ppo_cartpole_v1.json"));
    let server = serve(load_folder(&folder.0).unwrap(), |_| {});
    let (say, events) = channel();
    let every = Duration::from_millis(5);
    let log = move |event| drop(say.send(event));
    let _watching = watch(&folder.0, server.policies.clone(), every, log).unwrap();
    let (_, first) = answer(&server);

    replace(&folder.0, "cartpole.onnx", &bundled("ppo_cartpole_v1_early.onnx"));
    let event = heard(&events);
    assert!(matches!(&event, Event::Published { policy, .. } if policy == "cartpole"), "{event:?}");
    let (version, second) = loop {
        match answer(&server) {
            (1, rows) => assert_eq!(rows, first, "until it is published, the one before answers"),
            newer => break newer,
        }
    };
    assert!(version == 2 && second != first);

    for garbage in [&late[..late.len() / 2], &bundled("sac_pendulum_v1.onnx"), b""] {
        replace(&folder.0, "cartpole.onnx", garbage);
        let event = heard(&events);
        assert!(matches!(event, Event::Refused { .. }), "{event:?}");
        assert_eq!(answer(&server), (2, second.clone()));
    }
    replace(&folder.0, "notes.txt", b"not a policy");
    replace(&folder.0, "cartpole.onnx", &late);
    assert!(matches!(heard(&events), Event::Published { .. }), "the next thing that is one");

    // One of the same size and time.
    let early = folder.0.join(".new");
    std::fs::write(&early, bundled("ppo_cartpole_v1_early.onnx")).unwrap();
    let time = folder.0.join("cartpole.onnx").metadata().unwrap().modified().unwrap();
    std::fs::File::options().write(true).open(&early).unwrap().set_modified(time).unwrap();
    assert_eq!(early.metadata().unwrap().len(), late.len() as u64);
    std::fs::rename(early, folder.0.join("cartpole.onnx")).unwrap();
    assert!(matches!(heard(&events), Event::Published { .. }), "it is told by its bytes");
    let answers = || answer(&server).1 == second;
    assert!((0..1000).any(|_| answers()), "it answers soon");

    let before = answer(&server);
    for file in ["notes.txt", "cartpole.onnx"] {
        std::fs::remove_file(folder.0.join(file)).unwrap();
    }
    let event = heard(&events);
    assert!(matches!(&event, Event::Vanished { policy, .. } if policy == "cartpole"), "{event:?}");
    assert_eq!(answer(&server), before, "what was loaded goes on answering");
    replace(&folder.0, "cartpole.onnx", &late);
    assert!(matches!(heard(&events), Event::Published { .. }), "and what comes back takes its place");
}

#[test]
fn a_run_whose_policy_vanishes_is_named() {
    let folder = Folder::new();
    let run = folder.0.join("cartpole");
    std::fs::create_dir_all(&run).unwrap();
    let [best, newest] = ["policy.safetensors", "newest.safetensors"].map(|name| run.join(name));
    let env = "CartPole-v1";
    let student =
        Student::new(&StudentConfig::default(), Environments::built_in(env).unwrap(), &[], &oto_cpu::Cpu, 0);
    let policy = student.unwrap().policy(env);
    std::fs::write(&best, &policy).unwrap();
    std::fs::write(&newest, &policy).unwrap();
    let server = serve(load_folder(&folder.0).unwrap(), |_| {});
    let (say, events) = channel();
    let log = move |event| drop(say.send(event));
    let _watching = watch(&folder.0, server.policies.clone(), Duration::from_millis(5), log).unwrap();
    std::fs::remove_file(&newest).unwrap();
    std::fs::remove_file(&best).unwrap();
    let event = heard(&events);
    assert!(
        matches!(&event, Event::Vanished { policy, path } if policy == "cartpole" && *path == best),
        "{event:?}"
    );
}

//! What a bridge process may do wrong, played by a shell that says what it was told beforehand, whatever it is asked.
#![cfg(unix)]

use oto_env::gymnasium::{BridgeError, Gymnasium, Limits, Options};
use oto_env::{Action, EnvError, Environment, Phase, Space, SpaceTree};
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

const ABOUT: &str = r#"{"observation":{"kind":"box","low":[null,0.0],"high":[1.0,null]},
    "action":{"kind":"discrete","n":3},"shape":[2],"pixels":null,"max_episode_steps":9}"#;
/// Waits for the end of its input, as a good process does.
const WAIT: &str = "exec cat > /dev/null";

fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind][..], &(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

fn seen(observation: [f64; 2]) -> Vec<u8> {
    observation.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn stepped(reward: f64, truths: [u8; 2], observation: [f64; 2]) -> Vec<u8> {
    frame(b'S', &[&reward.to_le_bytes()[..], &truths, &seen(observation)].concat())
}

/// A process that says `answers`, then does what `then` says.
fn process(answers: &[Vec<u8>], then: &str, limit: Duration) -> Result<Gymnasium, BridgeError> {
    let mut script = String::from("printf '");
    answers.concat().iter().for_each(|byte| write!(script, "\\{byte:03o}").unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{script}'; {then}")]);
    let limits = Limits { start: limit, answer: limit };
    Gymnasium::with(command, "Fake-v0", &Options { limits, tell: |_| (), ..Options::default() })
}

fn patient(answers: &[Vec<u8>], then: &str) -> Result<Gymnasium, BridgeError> {
    process(answers, then, Duration::from_secs(30))
}

fn about() -> Vec<u8> {
    frame(b'M', ABOUT.as_bytes())
}

/// The error of the first step after a good reset.
fn step_error(answer: Vec<u8>, then: &str) -> String {
    let mut environment = patient(&[about(), frame(b'R', &seen([0.0, 0.0])), answer], then).unwrap();
    environment.reset(Some(1), &mut [0.0; 2]).unwrap();
    environment.step(Action::Discrete(0), &mut [0.0; 2]).unwrap_err().to_string()
}

#[test]
fn a_good_process_is_believed() {
    let answers = [
        about(),
        frame(b'R', &seen([0.5, -1.0])),
        stepped(1.5, [0, 0], [0.25, 2.0]),
        stepped(-1.0, [1, 0], [0.0, 3.0]),
    ];
    let mut environment = patient(&answers, WAIT).unwrap();
    assert_eq!(
        (environment.shape(), environment.pixels(), environment.max_episode_steps()),
        (&[2][..], None, Some(9))
    );
    let mut observation = [0.0; 2];
    assert_eq!(environment.step(Action::Discrete(0), &mut observation), Err(EnvError::NotReset));
    environment.reset(None, &mut observation).unwrap();
    assert_eq!(observation, [0.5, -1.0]);
    let bad = environment.step(Action::Discrete(3), &mut observation);
    assert_eq!(bad, Err(EnvError::ActionRange { n: 3, got: 3 }));
    let room = environment.step(Action::Discrete(0), &mut [0.0; 3]);
    assert_eq!(room, Err(EnvError::ObservationLength { expected: 2, got: 3 }));
    let step = environment.step(Action::Discrete(2), &mut observation).unwrap();
    assert_eq!((step.reward, step.done(), observation), (1.5, false, [0.25, 2.0]));
    assert!(environment.step(Action::Discrete(1), &mut observation).unwrap().terminated);
    assert_eq!(environment.step(Action::Discrete(0), &mut observation), Err(EnvError::EpisodeOver));
    assert_eq!(environment.save(), Err(EnvError::NotSaved { id: "Fake-v0".into() }));
    let snapshot = oto_env::Snapshot {
        id: "Fake-v0".into(),
        state: vec![],
        elapsed_steps: 0,
        phase: Phase::New,
        rng: oto_env::rng::Rng::new(0),
    };
    assert_eq!(environment.restore(&snapshot), Err(EnvError::NotSaved { id: "Fake-v0".into() }));
}

#[test]
fn a_refusal_is_told_in_its_own_words_and_a_reset_goes_on() {
    let sentence = frame(b'E', "ValueError: the motor is hot".as_bytes());
    let reset = frame(b'R', &seen([0.0, 0.0]));
    let mut environment = patient(&[about(), reset.clone(), sentence.clone(), reset], WAIT).unwrap();
    environment.reset(None, &mut [0.0; 2]).unwrap();
    let error = environment.step(Action::Discrete(0), &mut [0.0; 2]).unwrap_err();
    assert_eq!(error, EnvError::External("gym:Fake-v0: ValueError: the motor is hot".into()));
    assert_eq!(environment.step(Action::Discrete(0), &mut [0.0; 2]), Err(EnvError::EpisodeOver));
    environment.reset(None, &mut [0.0; 2]).unwrap();
    let made = patient(&[sentence], WAIT).err();
    assert_eq!(made, Some(BridgeError::Refused("ValueError: the motor is hot".into())));
}

#[test]
fn a_process_that_ends_is_told_with_its_last_words() {
    // The third request begins with byte 48.
    let error = step_error(Vec::new(), "head -c 51 > /dev/null; printf 'out of luck' >&2; exit 3");
    assert!(error.contains("exit status: 3") && error.ends_with("its last words: out of luck"), "{error}");
    let flood = "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1";
    let Err(BridgeError::Ended { stderr, .. }) = patient(&[], flood) else { panic!("it ended") };
    assert_eq!(stderr.len(), 4096, "no more is kept");
}

#[test]
fn a_process_that_hangs_is_stopped_and_stays_so() {
    let limit = Duration::from_millis(200);
    let Err(BridgeError::Hung { seconds, .. }) = process(&[], "exec sleep 1000", limit) else {
        panic!("it says nothing")
    };
    assert_eq!(seconds, 0.2);
    let mut environment =
        process(&[about(), frame(b'R', &[0; 3])[..6].to_vec()], "exec sleep 1000", limit * 5).unwrap();
    let error = environment.reset(None, &mut [0.0; 2]).unwrap_err();
    assert!(
        error.to_string().contains("said nothing for 1 s and was stopped (--env-timeout sets the limit)"),
        "{error}"
    );
    assert_eq!(environment.reset(None, &mut [0.0; 2]), Err(error), "every later call says why");
}

#[test]
fn what_is_no_answer_is_named() {
    for (answer, part) in [
        (stepped(f64::NAN, [0, 0], [0.0, 0.0]), "the reward is NaN, expected a finite number"),
        (stepped(0.0, [2, 0], [0.0, 0.0]), "2 and 0 as truths"),
        (stepped(0.0, [0, 0], [0.0, f64::INFINITY]), "observation[1] is inf, expected a finite number"),
        (
            stepped(0.0, [0, 0], [1e300, 0.0]),
            "observation[0] is 1e300, expected a finite number that float32",
        ),
        (frame(b'S', &[0; 25]), "25 bytes, expected 26 bytes"),
        (frame(b'S', &[]), "0 bytes, expected 26 bytes"),
        (frame(b'R', &[0; 8]), "kind 'R', expected an answer of kind 'S'"),
        (b"Warning: something".to_vec(), "the bytes"),
        (vec![b'S', 255, 255, 255, 255], "the bytes"),
    ] {
        let error = step_error(answer, WAIT);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn descriptions_that_fit_no_environment_are_refused() {
    for (from, to, part) in [
        ("\"shape\":[2]", "\"shape\":[3]", "the shape [3] for 2 numbers"),
        ("\"shape\":[2]", "\"shape\":[4294967296,4294967296]", "the shape"),
        ("\"low\":[null,0.0]", "\"low\":[null,0.0,1.0]", "a space of observations that is none"),
        ("\"n\":3", "\"n\":0", "a space of actions that is none"),
        ("\"n\":3", "\"n\":-1", "JSON that does not fit"),
        ("\"pixels\":null", "\"pixels\":\"words\"", "JSON that does not fit"),
        (
            "{\"kind\":\"box\",\"low\":[null,0.0],\"high\":[1.0,null]}",
            "{\"kind\":\"multi_binary\",\"n\":9999999}",
            "a space of observations that is none",
        ),
        ("}", "", "JSON that does not fit"),
    ] {
        let made = patient(&[frame(b'M', ABOUT.replace(from, to).as_bytes())], WAIT).err().unwrap();
        assert!(made.to_string().contains(part), "{made}");
    }
    let made = patient(&[frame(b'M', &[0xff, 0xfe])], WAIT).err().unwrap();
    assert!(made.to_string().contains("no text"), "{made}");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let python = "/nowhere/python3".into();
    let made = Gymnasium::make("CartPole-v1", &Options { python, ..Options::default() }).err().unwrap();
    assert!(made.to_string().starts_with("cannot start /nowhere/python3"), "{made}");
}

/// An observation that is none is the environment's fault, not its process's: the next episode may be a good one.
#[test]
fn after_a_wrong_observation_a_reset_goes_on() {
    let reset = frame(b'R', &seen([0.0, 0.0]));
    let wrong = stepped(0.0, [0, 0], [f64::NAN, 0.0]);
    let mut env = patient(&[about(), reset.clone(), wrong, reset], WAIT).unwrap();
    env.reset(None, &mut [0.0; 2]).unwrap();
    let error = env.step(Action::Discrete(0), &mut [0.0; 2]).unwrap_err().to_string();
    assert!(error.starts_with("gym:Fake-v0: observation[0] is NaN"), "{error}");
    env.reset(None, &mut [0.0; 2]).unwrap();
}

const PARTS: &str = r#"{"observation":{"kind":"dict","spaces":[["z",{"kind":"discrete","n":3,"start":-1}],
    ["a",{"kind":"box","low":[0.0],"high":[1.0]}]]},"shape":[],
    "action":{"kind":"tuple","spaces":[{"kind":"multi_discrete","nvec":[2,3],"start":[0,5]},{"kind":"multi_binary","n":1}]}}"#;

#[test]
fn spaces_of_several_parts_are_flat_and_their_numbers_are_checked() {
    let good = frame(b'R', &seen([1.0, 0.25]));
    let bad = frame(b'R', &seen([2.0, 0.25]));
    let mut env = patient(&[frame(b'M', PARTS.as_bytes()), good, bad], WAIT).unwrap();
    assert_eq!(env.observation_space(), &Space::uniform(4, 0.0, 1.0));
    assert_eq!(env.action_space(), &Space::Discrete { n: 12 });
    assert!(matches!(env.observation_tree(), SpaceTree::Dict(_)));
    let mut row = [0.0; 4];
    env.reset(None, &mut row).unwrap();
    assert_eq!(row, [0.0, 0.0, 1.0, 0.25], "the order is the process's");
    let error = env.reset(None, &mut row).unwrap_err().to_string();
    assert!(error.contains(r#"observation["z"] is 2.0, expected a whole number from -1 to 1"#), "{error}");
    let many = PARTS.replace("[2,3],\"start\":[0,5]", "[20,30]");
    let refused = patient(&[frame(b'M', many.as_bytes())], WAIT).err().unwrap().to_string();
    assert!(refused.contains("with 1200 combinations; up to 64"), "{refused}");
    let mixed = PARTS.replace(r#"{"kind":"multi_binary","n":1}"#, r#"{"kind":"box","low":[0],"high":[1]}"#);
    let refused = patient(&[frame(b'M', mixed.as_bytes())], WAIT).err().unwrap().to_string();
    assert!(refused.contains("choices beside numbers"), "{refused}");
}

/// The process holds its input open and does not answer: the bridge stops it, and what it started.
#[test]
fn nothing_of_a_process_that_hangs_is_left() {
    let mark = format!("{}.25", 40_000 + std::process::id() % 10_000);
    let then = format!("sleep {mark} & trap '' TERM; sleep {mark}; sleep {mark}");
    let made = process(&[], &then, Duration::from_millis(300)).err();
    assert!(matches!(made, Some(BridgeError::Hung { .. })), "{made:?}");
    let left = Command::new("pgrep").args(["-f", &format!("sleep {mark}")]).output();
    if let Ok(left) = left {
        assert!(left.stdout.is_empty(), "{}", String::from_utf8_lossy(&left.stdout));
    }
}

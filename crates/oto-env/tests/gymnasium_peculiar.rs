//! Environments as people write them (`peculiar.py`): each plays as it does in Gymnasium, or is refused with a sentence that names it.
//! Needs a Python with gymnasium (`OTO_PYTHON` or python3); where there is none, a test says so and is over.
#![cfg(unix)]

use oto_env::gymnasium::{BridgeError, Gymnasium, Limits, Options, Pixels};
use oto_env::{Action, EnvError, Environment, Space};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Options, if Python has gymnasium.
fn python() -> Option<Options> {
    let options = Options::default();
    let there = Command::new(&options.python).args(["-c", "import gymnasium"]).output();
    let there = there.is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("skipped: {} has no gymnasium", options.python.display());
    }
    there.then_some(options)
}

/// A file for what an environment logs.
fn log_file(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("peculiar-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&file);
    file
}

fn logged(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(Into::into).collect()
}

fn command(options: &Options, log: &Path) -> Command {
    let mut command = Command::new(&options.python);
    command.args(["-c", include_str!("../src/gymnasium/gymnasium_bridge.py")]);
    command.env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")).env("PECULIAR_LOG", log);
    command
}

fn made(name: &str, options: &Options) -> Result<Gymnasium, BridgeError> {
    let command = command(options, Path::new("/dev/null"));
    Gymnasium::with(command, &format!("peculiar:{name}-v0"), options)
}

/// Plays up to twenty steps, always the last choice or the upper bound: how many there were.
fn play(env: &mut Gymnasium) -> Result<usize, EnvError> {
    let mut seen = vec![0.0; env.observation_space().width()];
    env.reset(Some(u64::MAX), &mut seen)?;
    let actions = env.action_space().clone();
    for step in 1..=20 {
        let action = match &actions {
            Space::Discrete { n } => Action::Discrete(n - 1),
            Space::Box { high, .. } => Action::Continuous(high),
        };
        if env.step(action, &mut seen)?.done() {
            return Ok(step);
        }
    }
    Ok(20)
}

/// What each environment does: so many steps, or parts of the sentence that refuses it.
const TABLE: &[(&str, Result<usize, &[&str]>)] = &[
    ("Walk", Ok(4)),
    ("Standing", Ok(20)),
    ("RewardArray", Ok(4)),
    ("RewardText", Err(&["the reward of step() is str 'much', expected one number"])),
    ("RewardNone", Err(&["the reward of step() is NoneType None"])),
    ("RewardHuge", Err(&["the reward of step() is int 1000", "expected one number"])),
    (
        "RewardEndless",
        Err(&["the reward of step() is int (no text: its repr() raises ValueError), expected one number"]),
    ),
    ("RewardMute", Err(&["the reward of step() is Odd (no text: its repr() raises RuntimeError)"])),
    ("RaisesMute", Err(&["Mute: (no text: its str() raises RuntimeError)"])),
    ("CheckedRewardHuge", Err(&["Gymnasium cannot check the reward", "the reward is one number"])),
    ("RewardNan", Err(&["the reward is NaN, expected a finite number"])),
    ("Words", Err(&["the action space is Text", "expected numbers or choices"])),
    ("OneOf", Err(&["the action['a'] space is OneOf", "expected numbers or choices"])),
    ("Flag", Err(&["terminated of step() is str 'False', expected True or False"])),
    ("FlagNan", Err(&["terminated of step() is float nan"])),
    ("FlagList", Err(&["terminated of step() is list [False, False]"])),
    ("FlagArray", Ok(4)),
    ("FlagNone", Ok(4)),
    ("Masked", Err(&["an array with masked numbers"])),
    ("Lists", Ok(4)),
    ("Ragged", Err(&["nested lists of different lengths"])),
    ("Shape", Err(&["observation has the shape (3,)", "has (2,)"])),
    ("Text", Err(&["observation is str, its space Box"])),
    ("Integers", Ok(4)),
    ("Half", Ok(4)),
    ("Flags", Ok(4)),
    ("Scalar", Ok(4)),
    ("Outside", Ok(4)),
    ("Wide", Err(&["observation[1] is 1e300, expected a finite number that float32 can hold"])),
    ("Nan", Err(&["observation[1] is NaN"])),
    ("OldReset", Err(&["reset() returned ndarray", "old Gym API"])),
    ("OldStep", Err(&["step() returned", "old Gym API"])),
    ("NoSeed", Err(&["unexpected keyword argument 'seed'", "reset(self, *, seed=None, options=None)"])),
    ("IgnoresSeed", Ok(4)),
    ("Seeds", Ok(4)),
    ("RaisesAtOnce", Err(&["OSError: no licence", "Traceback", "peculiar.py"])),
    ("Imports", Err(&["No module named 'a_module_that_is_not_there'", "peculiar.py"])),
    ("Exit", Err(&["exit status: 3"])),
    ("HardExit", Err(&["exit status: 4"])),
    ("Loud", Ok(4)),
    ("Child", Ok(4)),
    ("Input", Ok(4)),
    ("Spawn", Ok(4)),
    ("Fork", Ok(4)),
    ("Lasting", Ok(4)),
    ("Simulator", Ok(4)),
    ("Whole", Ok(4)),
    ("Double", Ok(4)),
    ("Square", Ok(4)),
    ("Start", Ok(4)),
    ("Switches", Ok(4)),
    ("Choices", Ok(4)),
    ("Parts", Ok(4)),
    ("PartMissing", Err(&["observation is dict without 'text'"])),
    ("Endless", Err(&["the observation space is Sequence", "no fixed length"])),
    ("Colours", Ok(4)),
    ("Unit", Ok(4)),
    ("Stacked", Ok(4)),
    ("Memory", Ok(4)),
    ("Seen", Ok(4)),
    ("Planes", Ok(4)),
    ("Bits", Ok(4)),
    ("NoBytes", Err(&["observation has the number -1", "has bytes"])),
];

#[test]
fn each_environment_plays_or_is_refused_with_a_sentence() {
    let Some(options) = python() else { return };
    let options = Options { tell: |_| (), ..options };
    let next = Mutex::new(TABLE.iter());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((name, right)) = { next.lock().unwrap().next() } {
                    let begin = Instant::now();
                    let played = made(name, &options).map_err(|error| error.to_string());
                    let played = played.and_then(|mut env| {
                        let played = play(&mut env).map_err(|error| error.to_string());
                        if let Err(error) = &played {
                            assert!(error.starts_with(&format!("gym:peculiar:{name}-v0: ")), "{error}");
                        }
                        played
                    });
                    match (played, right) {
                        (Ok(steps), Ok(right)) => assert_eq!(steps, *right, "{name}"),
                        (Err(error), Err(parts)) => {
                            for part in *parts {
                                assert!(error.contains(part), "{name}: {error}");
                            }
                        }
                        (played, right) => panic!("{name}: {played:?}, expected {right:?}"),
                    }
                    assert!(begin.elapsed() < Duration::from_secs(240), "{name} waits for something");
                }
            });
        }
    });
}

#[test]
fn what_leaves_a_bridge_is_what_an_environment_takes() {
    let Some(options) = python() else { return };
    let options = Options { tell: |_| (), ..options };
    let played = |name: &str| {
        let log = log_file(name);
        let mut env =
            Gymnasium::with(command(&options, &log), &format!("peculiar:{name}-v0"), &options).unwrap();
        play(&mut env).unwrap();
        drop(env);
        logged(&log)
    };
    // 2^64 - 1 with its upper bits folded in.
    assert_eq!(played("Seeds"), [oto_env::small_seed(u64::MAX).to_string()]);
    assert_eq!(played("Whole"), ["3"; 4]);
    // The last of 2 * 3 * 2 * 2 * 2 combinations; a dictionary is sorted.
    assert_eq!(played("Switches"), ["[[1, 1], [1, 7], 1]"; 4]);
    assert_eq!(played("Input"), ["end of input"]);
}

#[test]
fn observations_are_flat_and_images_have_their_channels_first() {
    let Some(options) = python() else { return };
    let options = Options { tell: |_| (), ..options };
    let first = |name: &str| {
        let mut env = made(name, &options).unwrap();
        let mut seen = vec![0.0; env.observation_space().width()];
        env.reset(None, &mut seen).unwrap();
        (env.shape().to_vec(), env.pixels(), seen)
    };
    let (_, pixels, seen) = first("Parts");
    assert_eq!(pixels, None);
    // The matrix [[1, 2]] of two and three choices, the text's two letters, two bits and a choice of three.
    assert_eq!(seen[..5], [0.0, 1.0, 0.0, 0.0, 1.0]);
    assert_eq!((seen.len(), &seen[7..]), (12, &[1.0, 0.0, 0.0, 0.0, 1.0][..]));
    let (_, _, seen) = first("Choices");
    assert_eq!(seen.iter().position(|x| *x == 1.0), Some(0), "the first of twelve choices, which is -3");
    let plane = |channel: usize, scale: f32| -> Vec<f32> {
        (0..20).map(|pixel| (3 * pixel + channel) as f32 * scale).collect()
    };
    let turned = |scale| [plane(0, scale), plane(1, scale), plane(2, scale)].concat();
    assert_eq!(first("Colours"), (vec![3, 4, 5], Some(Pixels::Byte), turned(1.0)));
    assert_eq!(first("Unit"), (vec![3, 4, 5], Some(Pixels::Unit), turned(1.0 / 64.0)));
    let (shape, pixels, seen) = first("Stacked");
    let second: Vec<f32> = turned(1.0).iter().map(|x| x + 60.0).collect();
    assert_eq!((shape, pixels, seen), (vec![6, 4, 5], Some(Pixels::Byte), [turned(1.0), second].concat()));
    let (shape, pixels, seen) = first("Memory");
    assert_eq!((shape, pixels), (vec![1, 1, 6], Some(Pixels::Byte)));
    assert_eq!(seen, [0.0, 1.0, 2.0, 3.0, 4.0, 255.0]);
}

#[test]
fn an_exception_is_told_with_its_traceback_and_the_next_episode_may_be_good() {
    let Some(options) = python() else { return };
    let mut env = made("Raises", &Options { tell: |_| (), ..options }).unwrap();
    let mut seen = [0.0; 2];
    env.reset(Some(1), &mut seen).unwrap();
    let error = env.reset(None, &mut seen).unwrap_err().to_string();
    let first =
        "gym:peculiar:Raises-v0: RuntimeError: the simulator crashed\nTraceback (most recent call last):\n";
    assert!(error.starts_with(first) && error.contains("in break_down"), "{error}");
    assert!(!error.contains("<string>"), "this program's frames are nobody's business: {error}");
    env.reset(None, &mut seen).unwrap();
}

#[test]
fn what_is_printed_is_heard_and_a_box_that_is_left_is_told_once() {
    static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let Some(options) = python() else { return };
    let options = Options { tell: |line| HEARD.lock().unwrap().push(line.into()), ..options };
    for (name, part) in [
        ("Loud", "gym:peculiar:Loud-v0: bytes of the simulator"),
        ("Fork", "gym:peculiar:Fork-v0: a child speaks"),
        (
            "Outside",
            "gym:peculiar:Outside-v0: observation[0] is 0.25, its declared range is -0.1 to 0.1; this is told once",
        ),
        (
            "Seen",
            "gym:peculiar:Seen-v0: observation['camera'] is an image of the shape [4, 5, 3]; beside other parts it is taken as a row of \
             60 numbers: no convolution sees it",
        ),
        (
            "Seen",
            "gym:peculiar:Seen-v0: observation['depth'] is an image of the shape [6, 5, 1]; beside other parts it is taken as a row of \
             30 numbers: no convolution sees it",
        ),
        (
            "Planes",
            "gym:peculiar:Planes-v0: observation is an image of the shape [10, 10, 4]; it is taken as a row of 400 numbers: no \
             convolution sees it",
        ),
        (
            "Bits",
            "gym:peculiar:Bits-v0: observation is an image of the shape [10, 10, 4]; it is taken as a row of 400 numbers: no \
             convolution sees it",
        ),
    ] {
        play(&mut made(name, &options).unwrap()).unwrap();
        // What was printed may come after the answer to it.
        let begin = Instant::now();
        let heard = || HEARD.lock().unwrap().iter().filter(|line| *line == part).count();
        while heard() == 0 && begin.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(heard() > 0 && (name != "Outside" || heard() == 1), "{name}: {}", heard());
    }
    let about = |part: &str| HEARD.lock().unwrap().iter().any(|line| line.contains(part));
    assert!(!about("['speed']") && !about("['matrix']"), "what is no image of three dimensions");
}

#[test]
fn close_is_called_at_the_end_and_of_a_process_that_hangs() {
    let Some(options) = python() else { return };
    for hang in [false, true] {
        let log = log_file(&format!("close-{hang}"));
        let mut command = command(&options, &log);
        if hang {
            command.env("PECULIAR_HANG", "1");
        }
        let limits = Limits { answer: Duration::from_secs(2), ..Limits::default() };
        let options = Options { limits, tell: |_| (), ..options.clone() };
        let mut env = Gymnasium::with(command, "peculiar:Simulator-v0", &options).unwrap();
        assert_eq!(play(&mut env).is_err(), hang);
        drop(env);
        let lines = logged(&log);
        let [opened, closed] = &lines[..] else { panic!("{lines:?}") };
        let pid = opened.strip_prefix("opened ").unwrap();
        assert_eq!(closed, &format!("closed {pid}"));
        assert!(!Path::new("/proc").join(pid).exists(), "the simulator still runs");
    }
}

/// An environment without an end: an evaluation is cut, training continues.
#[test]
fn an_evaluation_ends_in_an_environment_without_an_end() {
    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let Some(options) = python() else { return };
    let options = Options { longest: 30, tell: |line| TOLD.lock().unwrap().push(line.into()), ..options };
    let mut env = made("Standing", &options).unwrap();
    let steps = |env: &mut Gymnasium| {
        let mut seen = [0.0; 2];
        env.reset(None, &mut seen).unwrap();
        (1..=50).find(|_| env.step(Action::Discrete(0), &mut seen).unwrap().truncated)
    };
    assert_eq!(steps(&mut env), None);
    env.evaluate(true);
    assert_eq!([steps(&mut env), steps(&mut env)], [Some(30); 2]);
    let told = TOLD.lock().unwrap().iter().filter(|line| line.contains("no end after 30 steps")).count();
    assert_eq!(told, 1);
    env.evaluate(false);
    assert_eq!(steps(&mut env), None);
    // A declared limit is the environment's own.
    let mut walk = made("Walk", &options).unwrap();
    walk.evaluate(true);
    assert_eq!(steps(&mut walk), Some(20));
}

#[test]
fn a_slow_start_has_a_limit_of_its_own() {
    let Some(options) = python() else { return };
    let limits = |start| Limits { start, ..Limits::default() };
    let options = Options { tell: |_| (), ..options };
    made("Slow", &Options { limits: limits(Duration::from_secs(60)), ..options.clone() }).unwrap();
    let refused =
        made("Slow", &Options { limits: limits(Duration::from_millis(200)), ..options }).err().unwrap();
    let said = refused.to_string();
    assert!(said.contains("nothing for 0.2 s") && said.contains("--env-start-timeout"), "{said}");
}

/// What makes an environment again, and two processes whose random numbers do not meet.
#[test]
fn an_environment_says_how_to_make_it_again() {
    let Some(options) = python() else { return };
    let options = Options { tell: |_| (), ..options };
    let spec = |env: &Gymnasium| oto_json::parse(env.spec().unwrap()).unwrap();
    let text = |json: &oto_json::Json, key: &str| match json.get(key) {
        Some(oto_json::Json::Text(text)) => text.clone(),
        other => panic!("{key}: {other:?}"),
    };
    let walk = spec(&made("Walk", &options).unwrap());
    assert_eq!((text(&walk, "id"), text(&walk, "entry_point")), ("Walk-v0".into(), "peculiar:Walk".into()));
    let parts = oto_json::write(&spec(&made("Parts", &options).unwrap()));
    assert!(parts.contains("FlattenObservation"), "{parts}");
}

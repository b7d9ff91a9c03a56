//! The environments against Gymnasium's own, step by step, on the library that Python's package has. Needs a Python with
//! gymnasium and mujoco (`OTO_PYTHON` or python3); where there is none, a test says so and is over.

use oto_env::mujoco::{Files, IDS, MujocoError, make};
use oto_env::{Action, EnvError, Environment, Phase, Snapshot};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Plays the same actions and prints what there was, in JSON that both sides read exactly.
const RECORD: &str = "
import json, sys, gymnasium, numpy
name, steps, scale = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
env = gymnasium.make(name)
first = env.reset(seed=5)[0]
data = env.unwrapped.data
state = [*data.qpos, *data.qvel]
n, rows = env.action_space.shape[0], []
for t in range(steps):
    # In sixteenths: exact in float32, and so are their squares.
    action = [scale * ((7 * t + 5 * i) % 33 - 16) / 16 for i in range(n)]
    seen, reward, terminated, truncated, _ = env.step(numpy.array(action, 'f4'))
    rows.append({'action': action, 'seen': seen.tolist(), 'reward': float(reward), 'over': bool(terminated)})
    if terminated: break
print(json.dumps({'state': [float(x) for x in state], 'first': first.tolist(), 'rows': rows}))
";

struct Recorded {
    state: Vec<f64>,
    first: Vec<f64>,
    rows: Vec<Row>,
}

struct Row {
    action: Vec<f32>,
    seen: Vec<f64>,
    reward: f64,
    over: bool,
}

oto_json::json_object! { Recorded: closed { state, first, rows } }
oto_json::json_object! { Row: closed { action, seen, reward, over } }

fn python() -> PathBuf {
    std::env::var_os("OTO_PYTHON").unwrap_or_else(|| "python3".into()).into()
}

fn files() -> Option<Files> {
    match Files::find(&python()) {
        Ok(files) => Some(files),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn record(id: &str, scale: &str) -> Option<Recorded> {
    let said = Command::new(python()).args(["-c", RECORD, id, "200", scale]).output().ok()?;
    if !said.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&said.stderr));
        return None;
    }
    Some(oto_json::read(&String::from_utf8(said.stdout).unwrap()).unwrap())
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * b.abs().max(1.0)
}

fn same(id: &str, scale: &str) {
    let Some(files) = files() else { return };
    let Some(recorded) = record(id, scale) else { return };
    let mut environment = make(id, &files).unwrap();
    let mut seen = vec![0.0; environment.observation_space().width()];
    environment.reset(Some(5), &mut seen).unwrap();
    if id != "HalfCheetah-v5" {
        assert!(seen.iter().zip(&recorded.first).all(|(a, b)| near((*a).into(), *b)), "{id} after reset");
    }
    // HalfCheetah begins where the recording begins: time, positions and velocities come first.
    let mut start = environment.save().unwrap();
    start.state[1..=recorded.state.len()].copy_from_slice(&recorded.state);
    environment.restore(&start).unwrap();
    for (t, row) in recorded.rows.iter().enumerate() {
        let step = environment.step(Action::Continuous(&row.action), &mut seen).unwrap();
        assert!(near(step.reward, row.reward), "{id}, step {t}: {} {}", step.reward, row.reward);
        let fits = seen.iter().zip(&row.seen).all(|(a, b)| near((*a).into(), *b));
        assert!(fits, "{id}, step {t}: {seen:?} {:?}", row.seen);
        assert_eq!(step.terminated, row.over, "{id}, step {t}");
    }
    assert!(recorded.rows.len() > 5, "an episode and not a fall");
}

#[test]
fn half_cheetah_is_gymnasiums() {
    same("HalfCheetah-v5", "1");
}

#[test]
fn hopper_is_gymnasiums() {
    same("Hopper-v5", "1");
}

#[test]
fn walker_is_gymnasiums() {
    same("Walker2d-v5", "0.5");
}

#[test]
fn inverted_pendulum_is_gymnasiums() {
    same("InvertedPendulum-v5", "0.0625");
}

#[test]
fn a_restored_environment_goes_on_as_the_saved_one() {
    let Some(files) = files() else { return };
    for id in IDS {
        let mut environment = make(id, &files).unwrap();
        let mut seen = vec![0.0; environment.observation_space().width()];
        let action = vec![0.25; environment.action_space().width()];
        let mut walk = |environment: &mut dyn Environment, steps| {
            (0..steps)
                .map(|_| environment.step(Action::Continuous(&action), &mut seen).unwrap().reward)
                .sum::<f64>()
        };
        environment.reset(Some(1), &mut vec![0.0; environment.observation_space().width()]).unwrap();
        walk(&mut *environment, 3);
        let saved = environment.save().unwrap();
        let expected = walk(&mut *environment, 4);
        let mut other = make(id, &files).unwrap();
        other.restore(&saved).unwrap();
        assert_eq!(walk(&mut *other, 4), expected, "{id}: the same to the bit");
        assert_eq!(other.save(), environment.save());
        let short = Snapshot { state: vec![0.0], ..saved.clone() };
        let unsound = Snapshot { state: vec![f64::NAN; saved.state.len()], ..saved.clone() };
        let late = Snapshot { elapsed_steps: 1000, phase: Phase::Running, ..saved };
        for bad in [short, unsound, late] {
            assert!(matches!(other.restore(&bad), Err(EnvError::Snapshot { .. })), "{id}");
        }
    }
}

#[test]
fn what_is_not_there_is_named() {
    assert!(matches!(Files::find(Path::new("/nowhere/python")), Err(MujocoError::NotFound { .. })));
    let nowhere = Files { library: "/nowhere/libmujoco.so".into(), models: "/nowhere".into() };
    let refused = |id, files: &Files| make(id, files).err().unwrap().to_string();
    assert!(refused("Hopper-v5", &nowhere).starts_with("/nowhere/libmujoco.so"));
    assert!(refused("Hopper-v9", &nowhere).contains("HalfCheetah-v5"));
    let Some(files) = files() else { return };
    let no_models = Files { models: "/nowhere".into(), ..files };
    assert!(refused("Hopper-v5", &no_models).starts_with("/nowhere/hopper.xml"));
}

//! Recurrent policies: sb3-contrib's RecurrentPPO answers as its own `predict` over episodes (`data/make_recurrent.py`), and oto's own as the
//! student acts.

use oto_agent::config::StudentConfig;
use oto_agent::presets;
use oto_agent::student::{Environments, Student};
use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_policy::ensemble::Ensemble;
use oto_policy::logits::LogitPolicy;
use oto_policy::{Metadata, PolicyError, load, load_file};
use oto_rl::algorithms::a3c::{A3cConfig, AdvantageActorCritic};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::path::PathBuf;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

#[derive(serde::Deserialize)]
struct Golden {
    observations: Vec<Vec<f32>>,
    actions: Vec<Vec<f32>>,
    episode_starts: Vec<bool>,
}

/// With a critic's LSTM of its own, with one that both share, and two layers before ReLU layers.
#[test]
fn recurrent_ppo_answers_as_its_own_predict() {
    for name in ["recurrent_discrete", "recurrent_shared", "recurrent_two_layers"] {
        let golden = std::fs::read(data(&format!("golden_{name}.json"))).unwrap();
        let golden: Golden = serde_json::from_slice(&golden).unwrap();
        let mut policy = load_file(&data(&format!("{name}.zip"))).unwrap().policy;
        let width = policy.state_width();
        assert_eq!(width, if name == "recurrent_two_layers" { 32 } else { 16 }, "{name}");
        // A second episode beside it, a step behind: each has a state of its own.
        let (mut states, mut actions) = (vec![0.0; 2 * width], Vec::new());
        let steps = golden.observations.len();
        assert!(steps >= 64 && golden.episode_starts.iter().filter(|start| **start).count() >= 2);
        for step in 0..steps + 1 {
            let rows = [step.min(steps - 1), step.saturating_sub(1)];
            let observations = rows.map(|row| &golden.observations[row][..]).concat();
            for (state, row) in states.chunks_exact_mut(width).zip(rows) {
                if golden.episode_starts[row] {
                    state.fill(0.0);
                }
            }
            policy.act_from(&observations, 2, &mut states, &mut actions).unwrap();
            let both = actions.chunks_exact(actions.len() / 2).zip(rows).enumerate();
            // The second one has no step yet at first, the first one none any more at last.
            let there = [step < steps, step > 0];
            for (episode, (got, row)) in both.filter(|(episode, _)| there[*episode]) {
                let near = got
                    .iter()
                    .zip(&golden.actions[row])
                    .all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0));
                assert!(
                    near,
                    "{name} step {row} of episode {episode}: {got:?}, expected {:?}",
                    golden.actions[row]
                );
            }
        }
    }
}

fn student(lstm: usize) -> Student {
    let env = "CartPole-v1";
    let algorithm = A3cConfig { hidden: vec![12], lstm: Some(lstm), ..A3cConfig::default() }.into();
    let config = StudentConfig { algorithm, ..presets::learner(env, &AdvantageActorCritic) };
    Student::new(&config, Environments::built_in(env).unwrap(), &[], &Cpu, 0).unwrap()
}

#[test]
fn a_recurrent_students_policy_answers_as_the_student_acts() {
    let mut student = student(9);
    let mut policy = load(&student.policy("CartPole-v1"), &Metadata::default()).unwrap();
    let (mut rng, mut state, mut row) = (Rng::new(2), vec![0.0; policy.state_width()], Vec::new());
    assert_eq!(state.len(), 18);
    let mut seen = Vec::new();
    for episode in 0..3 {
        student.trainer().begin_greedy();
        state.fill(0.0);
        for step in 0..20 {
            let observation = [(); 4].map(|()| (3.0 * rng.normal()) as f32);
            policy.act_from(&observation, 1, &mut state, &mut row).unwrap();
            let own = match student.trainer().greedy(&observation).unwrap() {
                oto_env::Action::Discrete(index) => index as f32,
                oto_env::Action::Continuous(_) => unreachable!("CartPole's actions are discrete"),
            };
            assert_eq!(row, [own], "step {step} of episode {episode}");
            if step == 0 {
                let alone = policy.outputs(&observation, 1).unwrap();
                assert_eq!(
                    alone[1].values,
                    [own],
                    "to `act` and `outputs` each observation begins an episode"
                );
            }
            seen.push(own);
        }
    }
    assert!(seen.contains(&0.0) && seen.contains(&1.0));
    let error = policy.act_from(&[0.0; 8], 2, &mut state, &mut row).unwrap_err();
    assert!(matches!(error, PolicyError::Run(_)), "{error}");
}

#[test]
fn what_answers_observations_alone_refuses_recurrent_policies() {
    let policy = || load(&student(3).policy("CartPole-v1"), &Metadata::default()).unwrap();
    let error = Ensemble::new(vec![("a".into(), policy())]).err().unwrap();
    assert!(matches!(error, PolicyError::Recurrent("an ensemble")), "{error}");
    let error = LogitPolicy::new(policy()).err().unwrap();
    assert!(matches!(error, PolicyError::Recurrent("a teacher of logits")), "{error}");
}

/// The file with one tensor changed: its shape cut by a row, another name, or none.
#[test]
fn recurrent_layers_that_do_not_fit_are_refused() {
    let file = student(3).policy("CartPole-v1");
    let read = SafeTensors::deserialize(&file).unwrap();
    let metadata = SafeTensors::read_metadata(&file).unwrap().1.metadata().clone().unwrap();
    let names = read.names().into_iter().filter(|name| name.contains("lstm") || name.contains("before"));
    for name in names.map(ToString::to_string).collect::<Vec<_>>() {
        for change in ["cut", "renamed", "left out"] {
            let mut tensors = HashMap::new();
            for (own, view) in read.tensors() {
                let (mut shape, mut bytes, mut to) =
                    (view.shape().to_vec(), view.data().to_vec(), own.clone());
                match change {
                    _ if own != name => {}
                    "cut" => {
                        let row = bytes.len() / shape[0];
                        (shape[0], bytes) = (shape[0] - 1, bytes[row..].to_vec());
                    }
                    "renamed" => to = own.replace(".0.", ".7."),
                    _ => continue,
                }
                tensors.insert(to, (shape, bytes));
            }
            let views = tensors.iter().map(|(name, (shape, bytes))| {
                (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
            });
            let changed = safetensors::serialize(views, Some(metadata.clone())).unwrap();
            let error =
                load(&changed, &Metadata::default()).err().unwrap_or_else(|| panic!("{name} {change}"));
            assert!(
                matches!(error, PolicyError::Unsupported(_) | PolicyError::Metadata(_)),
                "{name} {change}: {error}"
            );
        }
    }
}

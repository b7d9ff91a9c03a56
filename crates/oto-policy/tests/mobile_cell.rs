//! The teacher of cell selection plays here as it played in mobile-env, where it was evaluated.

use oto_agent::evaluation::{difference, gap_closed, mean_return, returns};
use oto_env::mobile_cell::{LTE, NR, Reception, Rule, best_plan};
use oto_env::rng::Rng;
use oto_env::{Action, ClassicEnvironment, EnvError, make_classic};
use oto_policy::{Policy, load_file};
use std::ops::Range;
use std::path::Path;

fn teacher() -> oto_policy::Loaded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../server/teachers/ppo_mobile_lte.json");
    load_file(&path).unwrap()
}

fn played_by(
    policy: &mut dyn Policy,
    environment: &mut (dyn ClassicEnvironment + 'static),
    seeds: Range<u64>,
) -> Vec<f64> {
    let mut actions = Vec::new();
    let scores = returns::<_, EnvError>(environment, seeds, |environment, observation| {
        policy.act(observation, 1, &mut actions).unwrap();
        environment.step(Action::Discrete(actions[0] as u32), observation)
    });
    scores.unwrap()
}

fn played_by_rule(
    rule: Rule,
    environment: &mut (dyn ClassicEnvironment + 'static),
    seeds: Range<u64>,
) -> Vec<f64> {
    let mut rng = Rng::new(0);
    let scores = returns::<_, EnvError>(environment, seeds, |environment, observation| {
        let action = rule.action(&Reception::of(environment)?, &mut rng);
        environment.step(Action::Discrete(action), observation)
    });
    scores.unwrap()
}

/// The seeds of the hundred episodes of mobile-env that the teacher's metadata tell of.
const SEEDS: Range<u64> = 40_000..40_100;

#[test]
fn the_teacher_returns_what_it_returned_in_mobile_env() {
    let mut loaded = teacher();
    let recorded = loaded.metadata.other["evaluation"].clone();
    let scores = played_by(&mut *loaded.policy, &mut *make_classic(LTE.id).unwrap(), SEEDS);
    let mean = scores.iter().sum::<f64>() / 100.0;
    let deviation = (scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / 100.0).sqrt();
    let min = scores.iter().copied().fold(f64::INFINITY, f64::min);
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for (key, got) in [("mean_return", mean), ("std_return", deviation), ("min", min), ("max", max)] {
        let recorded = recorded[key].as_f64().unwrap();
        println!("{key}: {got}, recorded {recorded}");
        assert!((got - recorded).abs() < 1e-6, "{key}: {got} {recorded}");
    }
}

/// The same for the rule of all stations, strongest first, and the share that the teacher leaves open.
#[test]
fn the_teacher_lies_between_the_rules_and_the_bound() {
    let mut loaded = teacher();
    let rules = &loaded.metadata.other["evaluation"]["rules_on_the_same_100_episodes"];
    let recorded = rules["connect to every station in range, strongest first"].as_f64().unwrap();
    for radio in [LTE, NR] {
        let mut environment = make_classic(radio.id).unwrap();
        let scores = played_by(&mut *loaded.policy, &mut *environment, SEEDS);
        let lte = played_by_rule(Rule::Lte, &mut *environment, SEEDS);
        let full = played_by_rule(Rule::Full, &mut *environment, SEEDS);
        let bound: Vec<f64> = SEEDS
            .map(|seed| {
                environment.reset(Some(seed), &mut [0.0; 15]).unwrap();
                best_plan(&mut *environment).unwrap().value
            })
            .collect();
        let share = gap_closed(&scores, &lte, &bound, 0).unwrap();
        let behind = difference(&full, &scores, 0).unwrap();
        println!("{}: {share:.3?} of the gap, {behind:.2?} behind all stations", radio.id);
        assert!(share.high < 1.0 && gap_closed(&full, &lte, &bound, 0).unwrap().low > 0.9);
        if radio == LTE {
            assert!((mean_return(&full, 0).unwrap().value - recorded).abs() < 1e-9);
            assert!(share.low > 0.5 && behind.low > 0.0, "{share:?} {behind:?}");
        }
    }
}

//! Cell selection against episodes that mobile-env 2.1 recorded, and its rules against their returns there.

use flate2::read::GzDecoder;
use oto_env::mobile_cell::{LTE, NR, Radio, Reception, Rule, best_plan};
use oto_env::rng::Rng;
use oto_env::{Action, ClassicEnvironment, make_classic};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

#[derive(Deserialize)]
struct Recording {
    episodes: Vec<Episode>,
    reference_policies_mean_return: BTreeMap<String, Returns>,
}

#[derive(Deserialize)]
struct Returns {
    mean: f64,
    std: f64,
    episodes: f64,
}

#[derive(Deserialize)]
struct Episode {
    label: String,
    env_seed: u64,
    initial: Initial,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Initial {
    position: [f64; 2],
    snr: [f64; 7],
    observation: Vec<f64>,
}

#[derive(Deserialize)]
struct Step {
    action: u32,
    position_before: [f64; 2],
    datarate_at_reward: [f64; 7],
    waypoint_used: [f64; 2],
    utility: f64,
    reward: f64,
    position: [f64; 2],
    connections: [f64; 7],
    snr: [f64; 7],
    observation: Vec<f64>,
    terminated: bool,
    truncated: bool,
}

fn recording(radio: &Radio) -> Recording {
    let name = if *radio == LTE { "mobile_env_lte.json.gz" } else { "mobile_env_5g.json.gz" };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
    serde_json::from_reader(GzDecoder::new(File::open(path).unwrap())).unwrap()
}

fn close(got: &[f64], expected: &[f64], tolerance: f64, at: &str) {
    assert_eq!(got.len(), expected.len(), "{at}");
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= tolerance * expected.abs().max(1.0), "{at}: {got} {expected}");
    }
}

fn wide(observation: &[f32]) -> Vec<f64> {
    observation.iter().copied().map(f64::from).collect()
}

/// The state as this crate has it: position, waypoint (the position itself where it was reached), connections, utility.
fn state(position: [f64; 2], waypoint: [f64; 2], connections: &[f64; 7], utility: f64) -> Vec<f64> {
    [&position[..], &waypoint, connections, &[utility]].concat()
}

/// Takes a recorded step and compares all that came of it.
fn check_step(environment: &mut dyn ClassicEnvironment, recorded: &Step, at: &str) {
    let mut observation = [0.0; 15];
    let step = environment.step(Action::Discrete(recorded.action), &mut observation).unwrap();
    close(&[step.reward, step.reward], &[recorded.reward, recorded.utility], 1e-9, at);
    assert_eq!((step.terminated, step.truncated), (recorded.terminated, recorded.truncated), "{at}");
    let waypoint = recorded.waypoint_used;
    let expected = state(recorded.position, waypoint, &recorded.connections, recorded.utility);
    close(environment.state(), &expected, 1e-9, at);
    close(&wide(&observation), &recorded.observation, 1e-6, at);
}

#[test]
fn every_recorded_step_is_made_from_its_recorded_state() {
    for radio in [LTE, NR] {
        let mut environment = make_classic(radio.id).unwrap();
        let mut steps = 0;
        for episode in &recording(&radio).episodes {
            let (mut connections, mut utility) = ([0.0; 7], -1.0);
            for (t, recorded) in episode.steps.iter().enumerate() {
                let at = format!("{} {:?} step {t}", radio.id, episode.label);
                let before = state(recorded.position_before, recorded.waypoint_used, &connections, utility);
                environment.set_state(&before, t as u32).unwrap();
                check_step(&mut *environment, recorded, &at);
                (connections, utility) = (recorded.connections, recorded.utility);
                steps += 1;
            }
        }
        assert_eq!(steps, 500);
    }
}

/// Start, waypoints and all that follows come of the seed alone.
#[test]
fn every_recorded_episode_is_played_from_its_seed() {
    for radio in [LTE, NR] {
        let mut environment = make_classic(radio.id).unwrap();
        for episode in &recording(&radio).episodes {
            let mut observation = [0.0; 15];
            environment.reset(Some(episode.env_seed), &mut observation).unwrap();
            assert_eq!(environment.state()[..2], episode.initial.position);
            close(&wide(&observation), &episode.initial.observation, 1e-6, "reset");
            for (t, recorded) in episode.steps.iter().enumerate() {
                check_step(
                    &mut *environment,
                    recorded,
                    &format!("{} {:?} step {t}", radio.id, episode.label),
                );
            }
        }
    }
}

/// Relative errors, because these numbers are small.
#[test]
fn signals_and_rates_are_the_recorded_ones() {
    let close = |got: f64, expected: f64, tolerance| {
        assert!((got - expected).abs() <= tolerance * expected, "{got} {expected}");
    };
    for radio in [LTE, NR] {
        for Episode { initial, steps, .. } in recording(&radio).episodes {
            let mut before = initial.snr;
            for step in steps {
                let snr = radio.snr(step.position_before);
                for k in 0..7 {
                    close(snr[k], before[k], 1e-12);
                    if step.datarate_at_reward[k] > 0.0 {
                        // Adding 1 to a signal leaves nine digits of it; another platform's last bit is the tenth.
                        close(radio.rate(snr[k]), step.datarate_at_reward[k], 2e-8);
                    }
                }
                before = step.snr;
            }
        }
    }
}

/// The return of a rule in the episode of a seed.
fn play(environment: &mut dyn ClassicEnvironment, rule: &Rule, seed: u64) -> f64 {
    let mut observation = [0.0; 15];
    environment.reset(Some(seed), &mut observation).unwrap();
    let (mut score, mut rng) = (0.0, Rng::new(seed));
    loop {
        let action = rule.action(&Reception::of(environment).unwrap(), &mut rng);
        let step = environment.step(Action::Discrete(action), &mut observation).unwrap();
        score += step.reward;
        if step.done() {
            return score;
        }
    }
}

/// The rule of the recorded episode does what was done there, action by action.
#[test]
fn the_lte_rule_is_the_recorded_one() {
    for radio in [LTE, NR] {
        let recording = recording(&radio);
        let label = "greedy: only the strongest station";
        let episode = recording.episodes.iter().find(|episode| episode.label == label).unwrap();
        let mut environment = make_classic(radio.id).unwrap();
        environment.reset(Some(episode.env_seed), &mut [0.0; 15]).unwrap();
        for step in &episode.steps {
            let reception = Reception::of(&*environment).unwrap();
            assert_eq!(Rule::Lte.action(&reception, &mut Rng::new(0)), step.action);
            environment.step(Action::Discrete(step.action), &mut [0.0; 15]).unwrap();
        }
    }
}

/// The recording has twenty episodes of unknown seeds: four of their standard errors, which is more than both means vary.
#[test]
fn rules_return_what_they_return_in_mobile_env() {
    for radio in [LTE, NR] {
        let mut environment = make_classic(radio.id).unwrap();
        let references = recording(&radio).reference_policies_mean_return;
        for (rule, name) in [
            (Rule::Lte, "greedy: only the strongest station"),
            (Rule::Full, "connect to every connectable station (fixed order, lowest index first)"),
            (Rule::Fixed { station: 7 }, "no action"),
        ] {
            let Returns { mean, std, episodes } = references[name];
            let got = (0..400).map(|seed| play(&mut *environment, &rule, seed)).sum::<f64>() / 400.0;
            println!("{} {rule:?}: {got:.2}, recorded {mean:.2}", radio.id);
            assert!((got - mean).abs() <= 4.0 * std / episodes.sqrt(), "{rule:?} {got} {mean}");
        }
    }
}

#[test]
fn no_rule_passes_the_bound_of_an_episode() {
    for radio in [LTE, NR] {
        let mut environment = make_classic(radio.id).unwrap();
        let (mut sum, mut sums) = (0.0, [0.0; 6]);
        for seed in 0..200 {
            environment.reset(Some(seed), &mut [0.0; 15]).unwrap();
            let bound = best_plan(&mut *environment).unwrap().value;
            sum += bound;
            for (total, (name, rule)) in sums.iter_mut().zip(Rule::ALL) {
                let score = play(&mut *environment, &rule, seed);
                assert!(score <= bound + 1e-9, "{} {name} seed {seed}: {score} {bound}", radio.id);
                *total += score;
            }
        }
        let names = Rule::ALL.map(|(name, _)| name);
        println!("{}: bound {:.2}, {names:?} {:.2?}", radio.id, sum / 200.0, sums.map(|sum| sum / 200.0));
    }
}

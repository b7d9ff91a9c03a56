//! Importance weights: which programs read them, and that they reach the loss.

use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_rl::actions::Actions;
use oto_rl::algorithms::{ALGORITHMS, ActionKind, AlgorithmConfig, Sizes};
use oto_rl::engine::{Schedule, TD_ERROR};
use oto_rl::replay::{Batch, Replay};

/// All algorithms with small networks and batches, for each kind of their actions.
fn cases() -> Vec<(AlgorithmConfig, Sizes)> {
    let of = |algorithm: &&dyn oto_rl::algorithms::Algorithm| {
        let small = |more: &str| {
            let text = format!(r#"{{"name":"{}","hidden":[16]{more}}}"#, algorithm.name());
            oto_json::read::<AlgorithmConfig>(&text)
        };
        // One that learns from rollouts may have no batches.
        let config = small(r#","batch_size":40"#).or_else(|_| small("")).unwrap();
        let sizes = |kind: &ActionKind| {
            let continuous = *kind == ActionKind::Continuous;
            let actions = if continuous { Actions::Continuous(2) } else { Actions::Discrete(3) };
            Sizes { observation: 3, actions, teachers: 0, weighted: false }
        };
        algorithm.actions().iter().map(|kind| (config.clone(), sizes(kind))).collect::<Vec<_>>()
    };
    ALGORITHMS.iter().flat_map(of).collect()
}

#[test]
fn programs_read_weights_only_where_they_are_asked_for() {
    let mut weighing = Vec::new();
    for (config, sizes) in cases() {
        let plain = config.program(sizes);
        assert!(plain.input("weights").is_none(), "{}", config.name());
        // Some rate transitions for a sampler of their own.
        let rates = config.sampler().is_some();
        let reports = plain.outputs.iter().any(|(name, _)| name == TD_ERROR);
        assert_eq!(reports, rates, "{}", config.name());
        if config.can_be_prioritised() {
            let weighted = config.program(Sizes { weighted: true, ..sizes });
            assert!(weighted.input("weights").is_some(), "{}", config.name());
            assert!(weighted.outputs.iter().any(|(name, _)| name == TD_ERROR), "{}", config.name());
            weighing.push(config.name());
        }
    }
    assert!(["qrdqn", "sac", "td3", "ddpg"].iter().all(|name| weighing.contains(name)), "{weighing:?}");
}

const SCHEDULE: Schedule<'static> =
    Schedule { lr: 0.0, target_mix: 0.0, alpha_aikd: 0.0, delta: 0.0, eta: 0.0, alpha_task: 1.0, share: &[] };

/// The first critic's loss (quantile loss) of one update with these weights, and each row's error.
fn losses(config: &AlgorithmConfig, sizes: Sizes, weights: &[f32]) -> (f32, Vec<f32>) {
    let rng = &mut Rng::new(4);
    let mut agent = config.agent(sizes, &Cpu, rng).unwrap();
    let mut replay = Replay::new(64, [3, sizes.actions.width()], 0, 1, 0.9);
    for _ in 0..64 {
        let mut seen = || [0; 3].map(|_| rng.normal() as f32);
        let (now, next) = (seen(), seen());
        let mut action = vec![0.0; sizes.actions.width()];
        agent.actions().random(rng, &mut action);
        replay.push(&now, &action, rng.normal() as f32, &next, rng.below(5) == 0, false, |_, _| {});
    }
    let mut batch = Batch::default();
    replay.sample(rng, config.batch_size(), &mut batch);
    batch.weights = weights.to_vec();
    agent.update(&batch, &SCHEDULE, rng).unwrap();
    let parts = agent.engine().last_loss().unwrap();
    let loss = parts.get("critic_loss").or(parts.get("quantile_loss")).unwrap();
    assert!(parts.get(TD_ERROR).is_none(), "it is no loss");
    let errors = agent.engine().td_errors().map(|(update, errors)| {
        assert_eq!((update, errors.len()), (1, weights.len()));
        errors.to_vec()
    });
    (loss, errors.unwrap_or_default())
}

#[test]
fn weights_reach_the_loss_and_errors_come_back() {
    for (config, sizes) in cases().into_iter().filter(|(config, _)| config.can_be_prioritised()) {
        let (name, rows) = (config.name(), config.batch_size());
        let weighted = Sizes { weighted: true, ..sizes };
        let near = |a: f32, b: f32| (a - b).abs() <= 1e-4 * a.abs().max(b.abs());
        let (plain, none) = losses(&config, sizes, &vec![1.0; rows]);
        assert!(none.is_empty(), "{name} reports no errors where none are asked for");
        let (ones, errors) = losses(&config, weighted, &vec![1.0; rows]);
        assert!(near(plain, ones), "{name}: {plain}, {ones}");
        assert!(errors.iter().all(|e| *e >= 0.0) && errors.iter().any(|e| *e > 0.0), "{name}");
        let (half, same) = losses(&config, weighted, &vec![0.5; rows]);
        assert!(near(plain, 2.0 * half) && errors == same, "{name}: {plain}, {half}");
        // Rows that weigh nothing count for nothing.
        let weights = (0..rows).map(|i| if i % 2 == 0 { 1.0 } else { 0.0 }).collect::<Vec<_>>();
        let odd = weights.iter().map(|w| 1.0 - w).collect::<Vec<_>>();
        let (even, odd) = (losses(&config, weighted, &weights).0, losses(&config, weighted, &odd).0);
        assert!(near(even + odd, plain) && !near(even, odd), "{name}: {even}, {odd}, {plain}");
        if name == "ddpg" {
            let mean = errors.iter().map(|e| e * e).sum::<f32>() / rows as f32;
            assert!(near(mean, plain), "the loss is the mean of squared errors: {mean}, {plain}");
        }
    }
}

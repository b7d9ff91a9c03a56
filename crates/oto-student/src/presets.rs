//! What faces offer without being told: teacher addresses made whole, and the adapters of known pairs of worlds.

use crate::config::{Algorithm, EvaluationConfig, Linear, Settle, StudentConfig, TransferConfig};
use crate::stage::{Ending, GiveUp, StagesConfig};
use oto_proto::{ActionMap, Adapter, ObservationMap};
use oto_rl::convolution::Convolution;
use oto_rl::optimiser::Adam;
use oto_rl::ppo::PpoConfig;
use oto_rl::qrdqn::QrDqnConfig;
use oto_rl::sac::SacConfig;

/// Where a teacher server answers students.
pub const TEACH_PATH: &str = "/v1/teach";

/// The address of a teacher's link: `host:port` and `ws://host:port` are completed, anything else stays as it is.
pub fn teacher_url(address: &str) -> String {
    let with_scheme = if address.contains("://") { address.to_string() } else { format!("ws://{address}") };
    let (scheme, rest) = with_scheme.split_once("://").unwrap_or(("ws", address));
    match rest.split_once('/') {
        None | Some((_, "")) => format!("{scheme}://{}{TEACH_PATH}", rest.trim_end_matches('/')),
        Some(_) => with_scheme,
    }
}

/// The adapter between a student's environment and a teacher's policy, where the pair is known: CartPole's observation
/// (x, x_dot, theta, theta_dot) in InvertedPendulum's order (x, theta, x_dot, theta_dot), and its force's sign as the push.
pub fn adapter(environment: &str, policy: &str) -> Option<Adapter> {
    let known = b"inverted_pendulum";
    let pair = environment.starts_with("CartPole-")
        && policy.as_bytes().windows(known.len()).any(|part| part == known);
    pair.then(|| Adapter {
        observation: Some(ObservationMap { permutation: Some(vec![0, 2, 1, 3]), scale: None, offset: None }),
        action: Some(ActionMap::Sign { component: 0, negative: 0, positive: 1 }),
    })
}

/// The mean return from which on an environment counts as solved (Gymnasium's `reward_threshold`), where it has one.
pub fn solved_return(environment: &str) -> Option<f64> {
    match environment {
        "CartPole-v0" => Some(195.0),
        "CartPole-v1" => Some(475.0),
        "MountainCar-v0" => Some(-110.0),
        "Acrobot-v1" => Some(-100.0),
        "InvertedPendulum-v5" => Some(950.0),
        _ => None,
    }
}

/// Environments whose actions are continuous.
const CONTINUOUS: [&str; 3] = ["Pendulum-", "InvertedPendulum-", "MountainCarContinuous-"];

/// Environments whose actions are discrete.
const DISCRETE: [&str; 4] = ["CartPole-", "Acrobot-", "MountainCar-", "MobileCell-"];

/// The default student for continuous actions: SAC with the settings of Stable-Baselines3 2.9: learning rate 3e-4, Polyak share 0.005, 100 random actions at the
/// start, an update a step.
pub fn continuous() -> StudentConfig {
    StudentConfig {
        algorithm: Algorithm::Sac,
        steps: 20_000,
        buffer: 1_000_000,
        learning_starts: 100,
        learning_rate: Linear::constant(3e-4),
        epsilon: Linear { start: 1.0, end: 0.0, steps: 100 },
        target_tau: 0.005,
        transfer: TransferConfig { learning_rate: None, ..TransferConfig::default() },
        evaluation: EvaluationConfig { every: 1_000, episodes: 10 },
        ..StudentConfig::default()
    }
}

/// The default student for cell selection. What a step returns depends on little but the connections of the next few, hence
/// the small gamma; choices differ little, hence a learning rate that falls far (docs/results.md).
fn cell_selection() -> StudentConfig {
    let learning_rate = Linear { start: 3e-3, end: 3e-5, steps: 18_000 };
    let default = StudentConfig::default();
    StudentConfig {
        steps: 20_000,
        qrdqn: QrDqnConfig { hidden: vec![128, 128], ..default.qrdqn },
        gamma: 0.5,
        learning_rate,
        transfer: TransferConfig {
            alpha_aikd: Linear { start: 1.0, end: 0.01, steps: 2_000 },
            learning_rate: None,
            ..TransferConfig::default()
        },
        evaluation: EvaluationConfig { every: 1_000, episodes: 10 },
        ..default
    }
}

/// The default PPO student for an environment: the settings of Stable-Baselines3 2.9, and RL-Zoo's where it has tuned them
/// (`hyperparams/ppo.yml`). A rollout comes from one environment here, and is as long as those of RL-Zoo's four (Pendulum,
/// 1,024 steps each) or eight (CartPole, 32 each) together. RL-Zoo's noise on Pendulum depends on the state (`use_sde`); here it
/// is the algorithm's own. RKD is all that PPO takes from a teacher, hence its weight.
pub fn on_policy(environment: &str) -> StudentConfig {
    let usual = StudentConfig {
        algorithm: Algorithm::Ppo,
        steps: 100_000,
        buffer: 100_000,
        learning_rate: Linear::constant(3e-4),
        epsilon: Linear::constant(0.0),
        target_tau: 0.005,
        transfer: TransferConfig { eta: 5.0, learning_rate: None, ..TransferConfig::default() },
        evaluation: EvaluationConfig { every: 2_000, episodes: 10 },
        ..StudentConfig::default()
    };
    match environment.split('-').next() {
        Some("Pendulum") => StudentConfig {
            gamma: 0.9,
            learning_rate: Linear::constant(1e-3),
            ppo: PpoConfig { n_steps: 4096, ..PpoConfig::default() },
            ..usual
        },
        Some("CartPole") => StudentConfig {
            gamma: 0.98,
            learning_rate: Linear { start: 1e-3, end: 0.0, steps: 100_000 },
            ppo: PpoConfig {
                n_steps: 256,
                batch_size: 256,
                epochs: 20,
                gae_lambda: 0.8,
                ..PpoConfig::default()
            },
            ..usual
        },
        _ => usual,
    }
}

/// The same with auxiliary critics, OTO's fusion policy; they learn between rollouts only, hence shorter ones.
pub fn fusion(environment: &str) -> StudentConfig {
    let usual = on_policy(environment);
    let n_steps = usual.ppo.n_steps.min(1024);
    StudentConfig { ppo: PpoConfig { fusion: true, n_steps, ..usual.ppo }, ..usual }
}

/// The default SAC student for discrete actions: learning rate, batch and Adam's epsilon of CleanRL's `sac_atari.py`; all else
/// as for continuous actions, because its target networks (replaced every 8,000 steps) and its long start are Atari's.
fn soft_discrete() -> StudentConfig {
    let sac = SacConfig { hidden: vec![64, 64], batch_size: 64, ..SacConfig::default() };
    let adam = Adam { epsilon: 1e-4, ..sac.adam };
    StudentConfig { sac: SacConfig { adam, ..sac }, ..continuous() }
}

/// The default student for an environment that learns by this algorithm.
pub fn learner(environment: &str, algorithm: Algorithm) -> StudentConfig {
    let usual = student(environment);
    match algorithm {
        algorithm if algorithm == usual.algorithm => usual,
        Algorithm::QrDqn => StudentConfig::default(),
        Algorithm::Sac if DISCRETE.iter().any(|e| environment.starts_with(e)) => soft_discrete(),
        Algorithm::Sac => continuous(),
        Algorithm::Ppo => on_policy(environment),
    }
}

/// The default student for images `[channels, height, width]`: the network of Mnih et al. (2015), for smaller images the one of
/// [`Convolution::usual`], and the settings of Tianshou
/// 2.0's QR-DQN for Atari games (200 quantiles, batches of 32, learning rate 1e-4, three steps to a transition, the target
/// replaced every 500 updates, 100,000 transitions), with Mnih's update every four steps and an exploration that ends within
/// 10,000 steps, because a student of this size takes tens of thousands and not millions of them.
pub fn pixels(shape: [usize; 3]) -> StudentConfig {
    let (convolution, units) = Convolution::usual(shape).unwrap_or((Convolution::atari(shape), 512));
    StudentConfig {
        qrdqn: QrDqnConfig {
            convolution: Some(convolution),
            hidden: vec![units],
            quantiles: 200,
            batch_size: 32,
            act_with_target: false,
            ..QrDqnConfig::default()
        },
        steps: 100_000,
        n_step: 3,
        buffer: 100_000,
        learning_starts: 1_000,
        train_every: 4,
        learning_rate: Linear::constant(1e-4),
        epsilon: Linear { start: 1.0, end: 0.05, steps: 10_000 },
        target_every: 500,
        transfer: TransferConfig { learning_rate: None, ..TransferConfig::default() },
        evaluation: EvaluationConfig { every: 10_000, episodes: 3 },
        ..StudentConfig::default()
    }
}

/// The default student for an environment: where it is known what solved means, the student settles there, and
/// leaves a teacher under whom it was not there within 5,000 steps.
pub fn student(environment: &str) -> StudentConfig {
    if CONTINUOUS.iter().any(|e| environment.starts_with(e)) {
        return continuous();
    }
    if environment.starts_with("MobileCell-") {
        return cell_selection();
    }
    let mut config = StudentConfig::default();
    if let Some(solved) = solved_return(environment) {
        config.settle = Some(Settle { at_return: solved, factor: 0.7, floor: 0.001, setbacks: 3 });
        let give_up = Some(GiveUp { after_steps: 5_000, below_return: solved });
        config.stages =
            StagesConfig { transfer: Some(Ending { give_up, ..Ending::default() }), ..config.stages };
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_made_whole() {
        for (given, whole) in [
            ("127.0.0.1:8080", "ws://127.0.0.1:8080/v1/teach"),
            ("ws://127.0.0.1:8080", "ws://127.0.0.1:8080/v1/teach"),
            ("wss://teach.example/", "wss://teach.example/v1/teach"),
            ("wss://teach.example/a/b", "wss://teach.example/a/b"),
        ] {
            assert_eq!(teacher_url(given), whole);
        }
    }

    #[test]
    fn every_algorithm_has_a_valid_default() {
        for environment in ["CartPole-v1", "Pendulum-v1", "Unknown-v0"] {
            for algorithm in [Algorithm::QrDqn, Algorithm::Sac, Algorithm::Ppo] {
                let config = learner(environment, algorithm);
                config.validate().unwrap();
                assert_eq!(config.algorithm, algorithm);
            }
            fusion(environment).validate().unwrap();
        }
        pixels([4, 84, 84]).validate().unwrap();
    }

    #[test]
    fn only_known_pairs_have_an_adapter() {
        assert!(adapter("CartPole-v1", "sac_inverted_pendulum_v5").is_some());
        assert!(adapter("CartPole-v1", "ppo_cartpole_v1").is_none());
        assert!(adapter("Acrobot-v1", "sac_inverted_pendulum_v5").is_none());
    }
}

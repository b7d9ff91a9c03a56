//! Generated from configs/ALGORITHM/ENVIRONMENT.toml: `OTO_WRITE_DOCS=1 cargo test -p oto-agent --test generated`.

use super::File;

/// The presets of environments.
pub(super) const FILES: &[File] = &[
    File {
        environment: "Acrobot",
        algorithm: "qrdqn",
        continuous: false,
        decays: true,
        source: "those of CartPole-v1, measured there (docs/results.md)",
        settings: r#"{"algorithm":{"double":false,"hidden":[64,64],"quantiles":16},"buffer":50000,"epsilon":{"end":0.02,"start":1.0,"steps":3000},"evaluation":{"every":500},"learning_rate":{"end":0.0003,"start":0.003,"steps":20000},"target_tau":0.01,"train_every":1,"transfer":{"learning_rate":{"end":0.00001,"start":0.002,"steps":8000}}}"#,
    },
    File {
        environment: "CartPole",
        algorithm: "ppo",
        continuous: false,
        decays: false,
        source: "RL Baselines3 Zoo, hyperparams/ppo.yml, with rollouts of one environment as long as those of the zoo's environments together",
        settings: r#"{"algorithm":{"batch_size":256,"epochs":20,"gae_lambda":0.8,"n_steps":256},"gamma":0.98,"learning_rate":{"end":0.0,"start":0.001,"steps":100000}}"#,
    },
    File {
        environment: "CartPole",
        algorithm: "qrdqn",
        continuous: false,
        decays: true,
        source: "measured on CartPole-v1 (docs/results.md)",
        settings: r#"{"algorithm":{"double":false,"hidden":[64,64],"quantiles":16},"buffer":50000,"epsilon":{"end":0.02,"start":1.0,"steps":3000},"evaluation":{"every":500},"learning_rate":{"end":0.0003,"start":0.003,"steps":20000},"target_tau":0.01,"train_every":1,"transfer":{"learning_rate":{"end":0.00001,"start":0.002,"steps":8000}}}"#,
    },
    File {
        environment: "MobileCell",
        algorithm: "qrdqn",
        continuous: false,
        decays: true,
        source: "measured on MobileCell-5G-v0 (docs/results.md)",
        settings: r#"{"algorithm":{"double":false,"hidden":[128,128],"quantiles":16},"buffer":50000,"epsilon":{"end":0.02,"start":1.0,"steps":3000},"evaluation":{"every":1000},"gamma":0.5,"learning_rate":{"end":0.00003,"start":0.003,"steps":18000},"steps":20000,"target_tau":0.01,"train_every":1,"transfer":{"alpha_aikd":{"end":0.01,"start":1.0,"steps":2000}}}"#,
    },
    File {
        environment: "MountainCar",
        algorithm: "qrdqn",
        continuous: false,
        decays: true,
        source: "those of CartPole-v1, measured there (docs/results.md)",
        settings: r#"{"algorithm":{"double":false,"hidden":[64,64],"quantiles":16},"buffer":50000,"epsilon":{"end":0.02,"start":1.0,"steps":3000},"evaluation":{"every":500},"learning_rate":{"end":0.0003,"start":0.003,"steps":20000},"target_tau":0.01,"train_every":1,"transfer":{"learning_rate":{"end":0.00001,"start":0.002,"steps":8000}}}"#,
    },
    File {
        environment: "Pendulum",
        algorithm: "ppo",
        continuous: true,
        decays: false,
        source: "RL Baselines3 Zoo, hyperparams/ppo.yml, with rollouts of one environment as long as those of the zoo's environments together",
        settings: r#"{"algorithm":{"n_steps":4096},"gamma":0.9,"learning_rate":0.001}"#,
    },
];

//! Pendulum-v1: an on-policy student alone, and taught by a bundled soft actor-critic.

use super::fusion::{self, Setting, Teacher};
use crate::{Experiment, Options, ReportError};
use oto_agent::config::EvaluationConfig;

/// `oto report pendulum`.
pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "pendulum",
    about: "Pendulum: PPO and its fusion policy alone, and the fusion policy taught by a soft actor-critic",
    run: report,
};

fn report(options: &Options) -> Result<String, ReportError> {
    let setting = Setting {
        name: "pendulum",
        arms: ["pendulum-taught", "pendulum-fusion", "pendulum-ppo"],
        environment: "Pendulum-v1",
        teacher: Teacher::Bundled("sac_pendulum_v1"),
        steps: 100_000,
        evaluation: EvaluationConfig { every: 1_000, episodes: 10 },
        first_seed: 9_500,
        seeds: 5,
        // `benchmark.md`
        baseline: Some((-172.2, "RL-Zoo's PPO: -172.2")),
        about: include_str!("pendulum.md"),
        ppo: "PPO alone has RL-Zoo's settings (gamma 0.9, learning rate 0.001, rollouts of 4,096 steps, there four \
              environments of 1,024), except for its state-dependent noise.",
    };
    fusion::report(options, &setting)
}

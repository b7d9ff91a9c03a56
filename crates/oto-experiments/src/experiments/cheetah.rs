//! HalfCheetah-v5 on MuJoCo's library: an on-policy student alone, and taught by a soft actor-critic from a file.

use super::fusion::{self, Setting, Teacher};
use crate::{Experiment, Options, ReportError};
use oto_agent::config::EvaluationConfig;

/// `oto report cheetah`.
pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "cheetah",
    about: "The same on HalfCheetah, with a small machine's budget",
    run: report,
};

fn report(options: &Options) -> Result<String, ReportError> {
    let Some(file) = &options.sac_teacher else { return Err(ReportError::NoTeacher) };
    let setting = Setting {
        name: "cheetah",
        arms: ["cheetah-taught", "cheetah-fusion", "cheetah-ppo"],
        environment: "mujoco:HalfCheetah-v5",
        teacher: Teacher::File(file.clone()),
        steps: 500_000,
        evaluation: EvaluationConfig { every: 10_000, episodes: 3 },
        first_seed: 9_600,
        seeds: 5,
        baseline: None,
        about: include_str!("cheetah.md"),
        ppo: "PPO has Stable-Baselines3's settings (rollouts of 2,048 steps); observations and rewards are not normalised.",
    };
    fusion::report(options, &setting)
}

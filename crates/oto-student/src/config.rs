//! What a training run is made of: one plain structure, read by every face from JSON, flags or a JavaScript object.

use crate::stage::StagesConfig;
use oto_proto::message::MAX_NAME_BYTES;
use oto_rl::convolution::Convolution;
use oto_rl::ppo::PpoConfig;
use oto_rl::qrdqn::{QrDqnConfig, Teaching};
use oto_rl::sac::SacConfig;

/// A number that moves from `start` to `end` over `steps` environment steps, then stays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    /// At step 0.
    pub start: f64,
    /// From step `steps` on.
    pub end: f64,
    /// How long the way is.
    pub steps: u64,
}

oto_json::json_object! { Linear: closed { start, end, steps } }

impl Linear {
    /// The same number for ever.
    pub const fn constant(value: f64) -> Self {
        Self { start: value, end: value, steps: 0 }
    }

    /// Its value at a step.
    pub fn at(&self, step: u64) -> f64 {
        match step < self.steps {
            true => self.start + (self.end - self.start) * step as f64 / self.steps as f64,
            false => self.end,
        }
    }
}

/// The weights of OTO eq. 13 during the Transfer stage; outside it `alpha_aikd` is 0 and `alpha_task` 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TransferConfig {
    /// The whole teacher term, over the steps of the stage.
    pub alpha_aikd: Linear,
    /// BASE within it.
    pub delta: f64,
    /// Both RKD terms within it.
    pub eta: f64,
    /// The student's own loss.
    pub alpha_task: f64,
    /// Learning rate over the steps of the stage; the run's own where there is none.
    pub learning_rate: Option<Linear>,
}

oto_json::json_object! { TransferConfig: settings { alpha_aikd, delta, eta, alpha_task, learning_rate } }

impl Default for TransferConfig {
    fn default() -> Self {
        Self {
            alpha_aikd: Linear { start: 10.0, end: 1.0, steps: 5_000 },
            delta: 1.0,
            eta: 0.2,
            alpha_task: 1.0,
            learning_rate: Some(Linear { start: 2e-3, end: 1e-5, steps: 8_000 }),
        }
    }
}

/// How time passes between acting, learning and being taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Labels enter a fixed number of steps after their request: same seed, same curve.
    Lockstep,
    /// Nothing waits for labels; they enter when they come.
    Async,
}

oto_json::json_names! { Clock { Lockstep = "lockstep", Async = "async" } }

/// What learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Quantile regression (Dabney et al. 2018) for discrete actions; with one quantile a DQN.
    QrDqn,
    /// Soft actor-critic (Haarnoja et al. 2018) for continuous actions, and for discrete ones (Christodoulou 2019).
    Sac,
    /// Proximal policy optimisation (Schulman et al. 2017) for either kind of actions, from rollouts.
    Ppo,
}

oto_json::json_names! { Algorithm { QrDqn = "qrdqn", Sac = "sac", Ppo = "ppo" } }

impl Algorithm {
    /// As configurations write it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::QrDqn => "qrdqn",
            Algorithm::Sac => "sac",
            Algorithm::Ppo => "ppo",
        }
    }
}

/// When greedy evaluation episodes are played, in an environment of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvaluationConfig {
    /// Every so many environment steps; 0 never.
    pub every: u64,
    /// How many episodes are averaged.
    pub episodes: u32,
}

oto_json::json_object! { EvaluationConfig: settings { every, episodes } }

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { every: 500, episodes: 10 }
    }
}

/// Lets a student settle where it is good: every greedy evaluation that reaches `at_return` multiplies the learning rate
/// and `target_tau` by `factor` (down to `floor` of them), every other one divides them again (up to 1). With `setbacks` it is
/// not left to itself where it was good and is not any more: it goes on from its parameters of the last good evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settle {
    /// Mean return of an evaluation that is good.
    pub at_return: f64,
    /// Above 0, at most 1.
    pub factor: f64,
    /// The smallest share that is left, from 0 to 1.
    pub floor: f64,
    /// How often in a row it goes back; then it goes on from where it is, as the world may be another now. 0: never.
    pub setbacks: u32,
}

oto_json::json_object! { Settle: closed { at_return, factor, floor, setbacks } }

/// One training run. Defaults are a QR-DQN student's, chosen by measurement on CartPole (docs/results.md);
/// [`crate::presets`] has those of other environments.
#[derive(Clone, Debug, PartialEq)]
pub struct StudentConfig {
    /// Draws parameters, exploration, batches and the environment's episodes.
    pub seed: u64,
    /// What servers call the student, in 1 to 256 bytes; without it a random name, which the run keeps.
    pub name: Option<String>,
    /// Environment steps in all.
    pub steps: u64,
    /// "cpu", "webgpu", or "auto" for the faster of both.
    pub backend: String,
    /// What learns: "qrdqn", "sac" or "ppo".
    pub algorithm: Algorithm,
    /// Network and optimiser of a QR-DQN student.
    pub qrdqn: QrDqnConfig,
    /// Networks and optimiser of a SAC student.
    pub sac: SacConfig,
    /// Networks, rollouts and optimiser of a PPO student; it takes no notice of `learning_starts`, `train_every`, `updates`
    /// and `epsilon`.
    pub ppo: PpoConfig,
    /// Discount factor.
    pub gamma: f64,
    /// Rewards summed before the bootstrap.
    pub n_step: usize,
    /// Transitions kept.
    pub buffer: usize,
    /// Environment steps before the first update.
    pub learning_starts: u64,
    /// Environment steps from one round of updates to the next.
    pub train_every: u64,
    /// Updates in a round.
    pub updates: u64,
    /// Learning rate over environment steps.
    pub learning_rate: Linear,
    /// Slows learning down where evaluations are good.
    pub settle: Option<Settle>,
    /// Share of random actions over environment steps.
    pub epsilon: Linear,
    /// The target network is replaced every so many updates; 0 leaves that to `target_tau`.
    pub target_every: u64,
    /// Share of the parameters that the target network takes over at every update, where `target_every` is 0.
    pub target_tau: f64,
    /// The teachers' term.
    pub transfer: TransferConfig,
    /// The stages and their ends.
    pub stages: StagesConfig,
    /// Greedy evaluation.
    pub evaluation: EvaluationConfig,
    /// Evaluations are played in the training environment, between two episodes, for an environment of which there can be only one.
    /// Its random numbers then go on where they are; otherwise an evaluation does not touch them.
    pub evaluate_between_episodes: bool,
    /// How labels enter.
    pub clock: Clock,
    /// States in a request to a teacher.
    pub request_batch: usize,
    /// Lockstep: labels enter so many environment steps after their request.
    pub label_lag: u64,
}

oto_json::json_object! {
    StudentConfig: settings {
        seed, name omit none, steps, backend, algorithm, qrdqn, sac, ppo, gamma, n_step, buffer, learning_starts, train_every, updates,
        learning_rate, settle omit none, epsilon, target_every, target_tau, transfer, stages, evaluation, evaluate_between_episodes, clock, request_batch, label_lag
    }
}

impl Default for StudentConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            name: None,
            steps: 50_000,
            backend: "cpu".into(),
            algorithm: Algorithm::QrDqn,
            qrdqn: QrDqnConfig::default(),
            sac: SacConfig::default(),
            ppo: PpoConfig::default(),
            gamma: 0.99,
            n_step: 1,
            buffer: 50_000,
            learning_starts: 128,
            train_every: 1,
            updates: 1,
            learning_rate: Linear { start: 3e-3, end: 3e-4, steps: 20_000 },
            settle: None,
            epsilon: Linear { start: 1.0, end: 0.02, steps: 3_000 },
            target_every: 0,
            target_tau: 0.01,
            transfer: TransferConfig::default(),
            stages: StagesConfig::default(),
            evaluation: EvaluationConfig::default(),
            evaluate_between_episodes: false,
            clock: Clock::Lockstep,
            request_batch: 8,
            label_lag: 8,
        }
    }
}

/// A setting out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field} is {got}: {expected}")]
pub struct ConfigError {
    /// Which setting.
    pub field: &'static str,
    /// What it was set to.
    pub got: String,
    /// What it may be.
    pub expected: &'static str,
}

impl StudentConfig {
    /// Whether teachers answer with what they think instead of what they would do.
    pub(crate) fn taught_by_thoughts(&self) -> bool {
        self.algorithm == Algorithm::QrDqn && self.qrdqn.teaching == Teaching::Thoughts
    }

    /// What sees images, if the student has it.
    pub fn convolution(&self) -> Option<&Convolution> {
        self.qrdqn.convolution.as_ref().filter(|_| self.algorithm == Algorithm::QrDqn)
    }

    /// Whether what is stored is what a teacher's dataset wants: single steps, with their terminations.
    pub(crate) fn may_submit(&self) -> Result<(), ConfigError> {
        if self.n_step != 1 {
            let expected = "1 for a student that submits its replay";
            return Err(ConfigError { field: "n_step", got: self.n_step.to_string(), expected });
        }
        if self.gamma == 0.0 {
            let expected = "above 0 for a student that submits its replay";
            return Err(ConfigError { field: "gamma", got: "0".into(), expected });
        }
        Ok(())
    }

    /// Whether the adapter to this teacher can be learnt: from single steps that show how they ended, for answers that are actions.
    pub(crate) fn may_learn_adapter(
        &self,
        teacher: &crate::student::TeacherConfig,
    ) -> Result<(), ConfigError> {
        let refused = |field, got: &str, expected| Err(ConfigError { field, got: got.into(), expected });
        if teacher.adapter.is_some() {
            return refused("teachers.adapter", "declared", "none for a teacher whose adapter is learnt");
        }
        if teacher.submit {
            return refused("teachers.submit", "true", "false for a teacher whose adapter is learnt");
        }
        if self.taught_by_thoughts() {
            return refused("qrdqn.teaching", "thoughts", "actions for a teacher whose adapter is learnt");
        }
        if self.n_step != 1 {
            return refused("n_step", &self.n_step.to_string(), "1 for a student that learns an adapter");
        }
        if self.gamma == 0.0 {
            return refused("gamma", "0", "above 0 for a student that learns an adapter");
        }
        if self.convolution().is_some() {
            return refused("qrdqn.convolution", "given", "none for a student that learns an adapter");
        }
        Ok(())
    }

    /// Checks every setting before anything is built from it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let whole = |field, got: u64, from: u64, to: u64, expected| match (from..=to).contains(&got) {
            true => Ok(()),
            false => Err(ConfigError { field, got: got.to_string(), expected }),
        };
        let real = |field, got: f64, from: f64, to: f64, expected| match (from..=to).contains(&got) {
            true => Ok(()),
            false => Err(ConfigError { field, got: oto_json::shown(&got), expected }),
        };
        let q = &self.qrdqn;
        whole("qrdqn.hidden (layers)", q.hidden.len() as u64, 1, 8, "1 to 8 hidden layers")?;
        for width in &q.hidden {
            whole("qrdqn.hidden", *width as u64, 1, 4096, "widths from 1 to 4096")?;
        }
        if let Some(convolution) = &q.convolution {
            convolution.check().map_err(|expected| ConfigError {
                field: "qrdqn.convolution",
                got: oto_json::write(convolution),
                expected,
            })?;
        }
        whole("qrdqn.quantiles", q.quantiles as u64, 1, 1024, "1 to 1024 quantiles")?;
        real("qrdqn.cql", q.cql, 0.0, 1e6, "a weight from 0 to 1e6")?;
        whole("qrdqn.batch_size", q.batch_size as u64, 1, 65_536, "1 to 65536 transitions")?;
        let sac = &self.sac;
        whole("sac.hidden (layers)", sac.hidden.len() as u64, 1, 8, "1 to 8 hidden layers")?;
        for width in &sac.hidden {
            whole("sac.hidden", *width as u64, 1, 4096, "widths from 1 to 4096")?;
        }
        whole("sac.batch_size", sac.batch_size as u64, 1, 65_536, "1 to 65536 transitions")?;
        whole("sac.samples", sac.samples as u64, 1, 256, "1 to 256 actions a state")?;
        real("sac.cql", sac.cql, 0.0, 1e6, "a weight from 0 to 1e6")?;
        real("sac.initial_alpha", sac.initial_alpha, 1e-6, 1e3, "1e-6 to 1000")?;
        let ppo = &self.ppo;
        whole("ppo.hidden (layers)", ppo.hidden.len() as u64, 1, 8, "1 to 8 hidden layers")?;
        for width in &ppo.hidden {
            whole("ppo.hidden", *width as u64, 1, 4096, "widths from 1 to 4096")?;
        }
        whole("ppo.n_steps", ppo.n_steps as u64, 1, 1 << 20, "1 to 1048576 steps")?;
        whole("ppo.batch_size", ppo.batch_size as u64, 1, 65_536, "1 to 65536 steps")?;
        whole("ppo.epochs", ppo.epochs as u64, 1, 1024, "1 to 1024 passes")?;
        whole("ppo.samples", ppo.samples as u64, 1, 256, "1 to 256 actions a state")?;
        real("ppo.clip", ppo.clip, 1e-6, 1.0, "above 0, at most 1")?;
        real("ppo.gae_lambda", ppo.gae_lambda, 0.0, 1.0, "0 to 1")?;
        real("ppo.max_grad_norm", ppo.max_grad_norm, 1e-6, 1e12, "a length above 0")?;
        real("ppo.initial_log_std", ppo.initial_log_std, -20.0, 2.0, "-20 to 2")?;
        real("ppo.temperature", ppo.temperature, 0.0, 1e3, "0 to 1000")?;
        for (field, weight) in [
            ("ppo.value_weight", ppo.value_weight),
            ("ppo.entropy_weight", ppo.entropy_weight),
            ("ppo.auxiliary", ppo.auxiliary),
        ] {
            real(field, weight, 0.0, 1e6, "a weight from 0 to 1e6")?;
        }
        for (adam, [beta1, beta2, epsilon]) in [
            (q.adam, ["qrdqn.adam.beta1", "qrdqn.adam.beta2", "qrdqn.adam.epsilon"]),
            (sac.adam, ["sac.adam.beta1", "sac.adam.beta2", "sac.adam.epsilon"]),
            (ppo.adam, ["ppo.adam.beta1", "ppo.adam.beta2", "ppo.adam.epsilon"]),
        ] {
            real(beta1, adam.beta1, 0.0, 0.999_999, "at least 0 and below 1")?;
            real(beta2, adam.beta2, 0.0, 0.999_999_9, "at least 0 and below 1")?;
            real(epsilon, adam.epsilon, 1e-16, 1.0, "1e-16 to 1")?;
        }
        if self.algorithm == Algorithm::Ppo {
            let parts = (ppo.n_steps % ppo.batch_size) as u64;
            whole("ppo.n_steps (modulo ppo.batch_size)", parts, 0, 0, "a whole number of batches")?;
            whole("n_step", self.n_step as u64, 1, 1, "1 for ppo, which learns from single steps")?;
            let held = ppo.n_steps as u64;
            whole("buffer", self.buffer as u64, held, 16_000_000, "at least ppo.n_steps transitions")?;
        }
        whole("steps", self.steps, 1, u64::MAX, "at least one step")?;
        if let Some(name) = &self.name {
            whole("name", name.len() as u64, 1, MAX_NAME_BYTES as u64, "a name of 1 to 256 bytes")?;
        }
        real("gamma", self.gamma, 0.0, 1.0, "a discount from 0 to 1")?;
        whole("n_step", self.n_step as u64, 1, 1024, "1 to 1024 steps")?;
        whole("buffer", self.buffer as u64, 1, 16_000_000, "1 to 16000000 transitions")?;
        whole("train_every", self.train_every, 1, u64::MAX, "at least 1")?;
        whole("updates", self.updates, 0, 65_536, "0 to 65536 updates a round")?;
        real("target_tau", self.target_tau, 0.0, 1.0, "a share from 0 to 1")?;
        for (field, range, high) in [
            ("learning_rate", self.learning_rate, 10.0),
            ("transfer.learning_rate", self.transfer.learning_rate.unwrap_or(self.learning_rate), 10.0),
            ("epsilon", self.epsilon, 1.0),
            ("transfer.alpha_aikd", self.transfer.alpha_aikd, 1e6),
        ] {
            real(field, range.start, 0.0, high, "a number from 0 to its limit (10, 1 and 1e6)")?;
            real(field, range.end, 0.0, high, "a number from 0 to its limit (10, 1 and 1e6)")?;
        }
        let t = &self.transfer;
        for (field, weight) in
            [("transfer.delta", t.delta), ("transfer.eta", t.eta), ("transfer.alpha_task", t.alpha_task)]
        {
            real(field, weight, 0.0, 1e6, "a weight from 0 to 1e6")?;
        }
        if let Some(s) = self.settle {
            real("settle.at_return", s.at_return, f64::MIN, f64::MAX, "a finite return")?;
            real("settle.factor", s.factor, 0.01, 1.0, "0.01 to 1")?;
            real("settle.floor", s.floor, 0.0, 1.0, "a share from 0 to 1")?;
            real("settle.setbacks", s.setbacks.into(), 0.0, 1e6, "0 to 1e6")?;
        }
        whole("evaluation.episodes", self.evaluation.episodes.into(), 1, 10_000, "1 to 10000 episodes")?;
        whole("request_batch", self.request_batch as u64, 1, 4096, "1 to 4096 states")?;
        whole("label_lag", self.label_lag, 1, 1 << 20, "1 to 1048576 steps")?;
        match self.backend.as_str() {
            "cpu" | "webgpu" | "auto" => Ok(()),
            other => Err(ConfigError {
                field: "backend",
                got: format!("\"{other}\""),
                expected: "\"cpu\", \"webgpu\" or \"auto\"",
            }),
        }?;
        self.stages.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_survives_json() {
        let config = StudentConfig::default();
        config.validate().unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<StudentConfig>(&json).unwrap(), config);
        assert_eq!(serde_json::from_str::<StudentConfig>("{}").unwrap(), config);
    }

    #[test]
    fn misfits_are_named() {
        let with = |json: &str| {
            serde_json::from_str::<StudentConfig>(json).unwrap().validate().unwrap_err().to_string()
        };
        assert!(with(r#"{"backend":"tpu"}"#).contains("backend is \"tpu\""));
        assert!(with(r#"{"gamma":1.5}"#).starts_with("gamma is 1.5"));
        assert!(with(r#"{"qrdqn":{"hidden":[]}}"#).contains("hidden"));
        assert!(with(r#"{"algorithm":"ppo","ppo":{"n_steps":100}}"#).contains("whole number of batches"));
        assert!(with(r#"{"algorithm":"ppo","buffer":100}"#).starts_with("buffer is 100"));
        assert!(with(r#"{"algorithm":"ppo","n_step":3}"#).starts_with("n_step is 3"));
        assert!(with(r#"{"ppo":{"clip":0}}"#).starts_with("ppo.clip is 0"));
        assert!(with(r#"{"stages":{"transfer":{"seconds":-1}}}"#).contains("seconds"));
        assert!(
            serde_json::from_str::<StudentConfig>(r#"{"gama":0.9}"#).is_err(),
            "a misspelt setting is refused"
        );
    }

    #[test]
    fn linear_reaches_its_end_and_stays() {
        let l = Linear { start: 1.0, end: 0.0, steps: 4 };
        assert_eq!([0, 1, 4, 9].map(|s| l.at(s)), [1.0, 0.75, 0.0, 0.0]);
        assert_eq!(Linear::constant(3.0).at(0), 3.0);
    }
}

//! What a training run is made of: one plain structure, read by every face from JSON, flags or a JavaScript object.

use crate::stage::StagesConfig;
use oto_json::{Failure, Fields};
use oto_proto::message::MAX_NAME_BYTES;
use oto_rl::algorithms::qrdqn::QrDqnConfig;
use oto_rl::algorithms::{self, AlgorithmConfig, Data, Run, Teaching};
use oto_rl::checks::Checks;
use oto_rl::replay::ReplayConfig;

pub use oto_rl::checks::ConfigError;
pub use oto_rl::schedule::Linear;

/// The weights of OTO eq. 13 during the Transfer stage; outside it `alpha_aikd` is 0 and `alpha_task` 1.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct TransferConfig {
    /// Weight of the whole teachers' term, over the steps of the stage.
    pub alpha_aikd: Linear,
    /// Weight of BASE within the teachers' term.
    pub delta: f64,
    /// Weight of both RKD terms within the teachers' term.
    pub eta: f64,
    /// Weight of the student's own loss.
    pub alpha_task: f64,
    /// Learning rate over the steps of the stage; without it the run's own.
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

/// When labels enter the replay buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename_all = "snake_case"))]
pub enum Clock {
    /// Labels enter a fixed number of steps after their request: same seed, same curve.
    Lockstep,
    /// Nothing waits for labels; they enter when they come.
    Async,
}

oto_json::json_names! { Clock { Lockstep = "lockstep", Async = "async" } }

/// Greedy evaluations, in a separate environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct EvaluationConfig {
    /// Environment steps between evaluations; 0: no evaluations.
    pub every: u64,
    /// Episodes in an evaluation.
    pub episodes: u32,
}

oto_json::json_object! { EvaluationConfig: settings { every, episodes } }

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { every: 500, episodes: 10 }
    }
}

/// Slower learning after good evaluations: every greedy evaluation of at least `at_return` multiplies the learning rate and
/// `target_tau` by `factor` (down to the share `floor`), every other one divides them again (up to 1). With `setbacks` the
/// student returns to its parameters of the last good evaluation after a worse one.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct PlateauDecay {
    /// Mean return of a good evaluation.
    pub at_return: f64,
    /// Above 0, at most 1.
    pub factor: f64,
    /// Lower limit of the remaining share, from 0 to 1.
    pub floor: f64,
    /// Limit of consecutive returns to earlier parameters. After them the student continues from its current ones, because
    /// the environment may have changed. 0: no returns.
    pub setbacks: u32,
}

oto_json::json_object! { PlateauDecay: closed { at_return, factor, floor, setbacks } }

/// One training run. Defaults are a QR-DQN student's, chosen by measurement on CartPole (docs/results.md);
/// [`crate::presets`] has those of other environments.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct StudentConfig {
    /// Seed of initial parameters, exploration, batches and the environment's episodes.
    pub seed: u64,
    /// What servers call the student, in 1 to 256 bytes; without it a random name, which the run keeps.
    pub name: Option<String>,
    /// Environment steps of the run.
    pub steps: u64,
    /// "cpu", "webgpu", or "auto" for the faster of the two.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["cpu", "webgpu", "auto"])))]
    pub backend: String,
    /// The algorithm and its settings. One that learns from rollouts takes no notice of `learning_starts`, `train_every`,
    /// `updates` and `epsilon`.
    #[cfg_attr(feature = "schema", schemars(schema_with = "algorithms::online_schema"))]
    pub algorithm: AlgorithmConfig,
    /// Discount factor.
    pub gamma: f64,
    /// Rewards summed before the bootstrap.
    pub n_step: usize,
    /// Capacity of the replay buffer, in transitions.
    pub buffer: usize,
    /// The choice of transitions for an update.
    pub replay: ReplayConfig,
    /// Environment steps before the first update.
    pub learning_starts: u64,
    /// Environment steps between rounds of updates.
    pub train_every: u64,
    /// Updates in each round.
    pub updates: u64,
    /// Learning rate over environment steps.
    pub learning_rate: Linear,
    /// Slower learning after good evaluations.
    pub plateau_decay: Option<PlateauDecay>,
    /// Share of random actions over environment steps.
    pub epsilon: Linear,
    /// Updates between hard updates of the target network; 0: soft updates by `target_tau`.
    pub target_every: u64,
    /// Coefficient of the target network's soft update, at every update, if `target_every` is 0.
    pub target_tau: f64,
    /// The weights of the teachers' term.
    pub transfer: TransferConfig,
    /// The stages and their ends.
    pub stages: StagesConfig,
    /// Greedy evaluation.
    pub evaluation: EvaluationConfig,
    /// Evaluations are played in the training environment, between two episodes, for an environment of which there can be only one.
    /// Its random numbers then go on where they are; otherwise an evaluation does not touch them.
    pub evaluate_between_episodes: bool,
    /// The clock of labels.
    pub clock: Clock,
    /// States in a request to a teacher.
    pub request_batch: usize,
    /// Lockstep: environment steps from the request of a label to its use.
    pub label_lag: u64,
}

oto_json::json_object! {
    StudentConfig: settings after refuse_old_form {
        seed, name omit none, steps, backend, algorithm, gamma, n_step, buffer, replay, learning_starts, train_every,
        updates, learning_rate, plateau_decay omit none, epsilon, target_every, target_tau, transfer, stages, evaluation,
        evaluate_between_episodes, clock, request_batch, label_lag
    }
}

impl Default for StudentConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            name: None,
            steps: 50_000,
            backend: "cpu".into(),
            algorithm: QrDqnConfig::default().into(),
            gamma: 0.99,
            n_step: 1,
            buffer: 50_000,
            replay: ReplayConfig::default(),
            learning_starts: 128,
            train_every: 1,
            updates: 1,
            learning_rate: Linear { start: 3e-3, end: 3e-4, steps: 20_000 },
            plateau_decay: None,
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

impl StudentConfig {
    /// Whether teachers answer with what they think instead of what they would do.
    pub(crate) fn taught_by_thoughts(&self) -> bool {
        self.algorithm.teaching() == Teaching::SoftTargets
    }

    /// Whether what is stored is what a teacher's dataset wants: single steps, with their terminations.
    pub(crate) fn may_submit(&self) -> Result<(), ConfigError> {
        if self.n_step != 1 {
            let expected = "1 for a student that submits its replay";
            return Err(ConfigError::new("n_step", self.n_step.to_string(), expected));
        }
        if self.gamma == 0.0 {
            return Err(ConfigError::new("gamma", "0", "above 0 for a student that submits its replay"));
        }
        Ok(())
    }

    /// Whether the adapter to this teacher can be learnt: from single steps that show how they ended, for answers that are actions.
    pub(crate) fn may_learn_adapter(
        &self,
        teacher: &crate::student::TeacherConfig,
    ) -> Result<(), ConfigError> {
        let refused = |field: &str, got: &str, expected: &str| Err(ConfigError::new(field, got, expected));
        if teacher.adapter.is_some() {
            return refused("teachers.adapter", "declared", "none for a teacher whose adapter is learnt");
        }
        if teacher.submit {
            return refused("teachers.submit", "true", "false for a teacher whose adapter is learnt");
        }
        if self.taught_by_thoughts() {
            return refused(
                "algorithm.teaching",
                "soft_targets",
                "actions for a teacher whose adapter is learnt",
            );
        }
        if self.n_step != 1 {
            return refused("n_step", &self.n_step.to_string(), "1 for a student that learns an adapter");
        }
        if self.gamma == 0.0 {
            return refused("gamma", "0", "above 0 for a student that learns an adapter");
        }
        if self.algorithm.convolution().is_some() {
            return refused("algorithm.convolution", "given", "none for a student that learns an adapter");
        }
        Ok(())
    }

    /// The settings that differ from those of `usual` and change nothing: the algorithm, the target network, the teachers, the clock or
    /// the evaluations do not use them. The settings are valid; `taught` if there are teachers.
    pub fn unused(&self, usual: &Self, taught: bool) -> Vec<&'static str> {
        let replays = self.algorithm.algorithm().data().contains(&Data::Replay);
        let follows = self.algorithm.reads("target_mix");
        let (evaluates, lags) = (self.evaluation.every > 0, self.clock == Clock::Lockstep);
        let all = [
            ("learning_starts", replays, self.learning_starts == usual.learning_starts),
            ("train_every", replays, self.train_every == usual.train_every),
            ("updates", replays, self.updates == usual.updates),
            ("epsilon", replays, self.epsilon == usual.epsilon),
            ("replay", replays, self.replay == usual.replay),
            ("target_every", follows, self.target_every == usual.target_every),
            ("target_tau", follows && self.target_every == 0, self.target_tau == usual.target_tau),
            ("transfer", taught, self.transfer == usual.transfer),
            ("request_batch", taught, self.request_batch == usual.request_batch),
            ("label_lag", taught && lags, self.label_lag == usual.label_lag),
            ("plateau_decay", evaluates, self.plateau_decay == usual.plateau_decay),
            ("evaluation.episodes", evaluates, self.evaluation.episodes == usual.evaluation.episodes),
        ];
        names_of(all)
    }

    /// Checks every setting before anything is built from it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut checks = Checks::default();
        self.check(&mut checks);
        checks.done()?;
        self.stages.validate()
    }

    pub(crate) fn check(&self, c: &mut Checks) {
        let name = self.algorithm.name();
        let expected =
            format!("{}: {name} learns from a dataset alone", algorithms::listed(algorithms::online()));
        c.that(self.algorithm.algorithm().online(), "algorithm.name", || format!("{name:?}"), &expected);
        c.within("algorithm", |c| self.algorithm.check(c));
        c.whole("steps", self.steps, 1..=u64::MAX, "at least one step");
        if let Some(name) = &self.name {
            let bytes = name.len();
            let good = (1..=MAX_NAME_BYTES).contains(&bytes);
            c.that(good, "name", || bytes.to_string(), "a name of 1 to 256 bytes");
        }
        check_learning(c, self.gamma, self.n_step, self.target_tau, &self.learning_rate);
        c.whole("buffer", self.buffer as u64, 1..=16_000_000, "1 to 16000000 transitions");
        let (n_step, buffer, learning_starts) = (self.n_step, self.buffer, self.learning_starts);
        self.algorithm.check_run(Run { n_step, buffer, learning_starts }, c);
        c.within("replay", |c| {
            self.replay.check(c);
            let fits = !self.replay.weighted() || self.algorithm.can_be_prioritised();
            let expected = format!(
                "\"uniform\", \"combined\" or \"shares\": {name} does not weigh the transitions of a batch"
            );
            c.that(fits, "sampler", || "\"prioritised\"".into(), &expected);
            let got = || oto_json::write(&self.replay.sampler);
            if let Some(only) = self.algorithm.sampler() {
                let expected = format!("{}: {name} rates transitions for it", oto_json::write(&only));
                c.that(self.replay.sampler == only, "sampler", got, &expected);
            } else {
                let fits = !self.replay.rated();
                c.that(fits, "sampler", got, "another one: balanced-replay alone rates transitions");
            }
        });
        c.whole("train_every", self.train_every, 1..=u64::MAX, "at least 1");
        c.whole("updates", self.updates, 0..=65_536, "0 to 65536 updates a round");
        self.epsilon.check("epsilon", 1.0, "a share from 0 to 1", c);
        c.within("transfer", |c| {
            let t = &self.transfer;
            t.learning_rate
                .iter()
                .for_each(|rate| rate.check("learning_rate", 10.0, "a rate from 0 to 10", c));
            t.alpha_aikd.check("alpha_aikd", 1e6, "a weight from 0 to 1e6", c);
            c.weight("delta", t.delta);
            c.weight("eta", t.eta);
            c.weight("alpha_task", t.alpha_task);
        });
        if let Some(s) = self.plateau_decay {
            c.within("plateau_decay", |c| {
                c.real("at_return", s.at_return, f64::MIN..=f64::MAX, "a finite return");
                c.real("factor", s.factor, 0.01..=1.0, "0.01 to 1");
                c.real("floor", s.floor, 0.0..=1.0, "a share from 0 to 1");
                c.real("setbacks", s.setbacks.into(), 0.0..=1e6, "0 to 1e6");
            });
        }
        check_evaluation(c, self.evaluation);
        c.whole("request_batch", self.request_batch as u64, 1..=4096, "1 to 4096 states");
        c.whole("label_lag", self.label_lag, 1..=1 << 20, "1 to 1048576 steps");
        let known = matches!(self.backend.as_str(), "cpu" | "webgpu" | "auto");
        c.that(known, "backend", || format!("\"{}\"", self.backend), "\"cpu\", \"webgpu\" or \"auto\"");
    }
}

/// The names of settings that are not used and not as usual.
pub(crate) fn names_of<const N: usize>(settings: [(&'static str, bool, bool); N]) -> Vec<&'static str> {
    settings.into_iter().filter(|(_, used, same)| !used && !same).map(|(name, ..)| name).collect()
}

/// What is said of settings that change nothing; nothing where there are none.
pub fn unused_in_words(algorithm: &str, unused: &[impl AsRef<str>]) -> Option<String> {
    let names = unused.iter().map(AsRef::as_ref).collect::<Vec<_>>();
    let sentence =
        || format!("these settings change nothing in this run of {algorithm}: {}", names.join(", "));
    (!names.is_empty()).then(sentence)
}

/// Checks what a student and a teacher from data have in common.
pub(crate) fn check_learning(c: &mut Checks, gamma: f64, n_step: usize, target_tau: f64, rate: &Linear) {
    c.real("gamma", gamma, 0.0..=1.0, "a discount from 0 to 1");
    c.whole("n_step", n_step as u64, 1..=1024, "1 to 1024 steps");
    c.real("target_tau", target_tau, 0.0..=1.0, "a share from 0 to 1");
    rate.check("learning_rate", 10.0, "a rate from 0 to 10", c);
}

/// Checks how evaluations are made.
pub(crate) fn check_evaluation(c: &mut Checks, evaluation: EvaluationConfig) {
    let episodes = evaluation.episodes.into();
    c.within("evaluation", |c| c.whole("episodes", episodes, 1..=10_000, "1 to 10000 episodes"));
}

/// Refuses a configuration of format 1, in which each algorithm had a group of settings of its own beside `algorithm`.
pub(crate) fn refuse_old_form(fields: &Fields<'_>) -> Result<(), Failure> {
    for name in algorithms::ALGORITHMS.iter().map(|algorithm| algorithm.name()).chain(["method"]) {
        if fields.has(name) {
            return Err(fields.wrong(name, &format_args!(
                "this is a configuration of format 1, as oto wrote it before an algorithm and its settings were one group: \
                 write \"algorithm\": {{\"name\": ..., and that algorithm's settings}}, or continue the run with the oto that began it"
            )));
        }
    }
    Ok(())
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
        assert!(with(r#"{"algorithm":{"name":"qrdqn","hidden":[]}}"#).contains("algorithm.hidden"));
        assert!(with(r#"{"algorithm":{"name":"ppo","n_steps":100}}"#).contains("whole number of batches"));
        assert!(with(r#"{"algorithm":"ppo","buffer":100}"#).starts_with("buffer is 100"));
        assert!(with(r#"{"algorithm":"ppo","n_step":3}"#).starts_with("n_step is 3"));
        assert!(with(r#"{"algorithm":{"name":"ppo","clip":0}}"#).starts_with("algorithm.clip is 0"));
        assert!(with(r#"{"algorithm":"cql"}"#).contains("cql learns from a dataset alone"));
        assert!(
            with(r#"{"stages":{"transfer":{"seconds":-1}}}"#).starts_with("stages.transfer.seconds is -1")
        );
        assert!(
            serde_json::from_str::<StudentConfig>(r#"{"gama":0.9}"#).is_err(),
            "a misspelt setting is refused"
        );
    }

    #[test]
    fn settings_that_change_nothing_are_found() {
        let read = |json: &str| serde_json::from_str::<StudentConfig>(json).unwrap();
        let found = |json: &str| read(json).unused(&StudentConfig::default(), true);
        assert_eq!(
            found(r#"{"epsilon":0.3,"target_tau":0.5,"label_lag":3,"evaluation":{"episodes":3}}"#),
            [""; 0]
        );
        assert_eq!(
            found(
                r#"{"algorithm":"ppo","epsilon":0.3,"updates":2,"train_every":3,"learning_starts":9,"target_every":7}"#
            ),
            ["learning_starts", "train_every", "updates", "epsilon", "target_every"]
        );
        assert_eq!(found(r#"{"target_every":100,"target_tau":0.5}"#), ["target_tau"]);
        assert_eq!(found(r#"{"target_every":100}"#), [""; 0], "a default is no setting of anyone's");
        // The critics of a fusion policy have targets.
        assert_eq!(
            found(r#"{"algorithm":{"name":"ppo","fusion":true},"target_every":7,"replay":{"alpha":0.5}}"#),
            ["replay"]
        );
        assert_eq!(found(r#"{"clock":"async","label_lag":3}"#), ["label_lag"]);
        assert_eq!(
            found(
                r#"{"evaluation":{"every":0,"episodes":3},"plateau_decay":{"at_return":1,"factor":0.5,"floor":0,"setbacks":0}}"#
            ),
            ["plateau_decay", "evaluation.episodes"]
        );
        let alone = r#"{"transfer":{"eta":3},"request_batch":16,"label_lag":3,"clock":"async"}"#;
        assert_eq!(
            read(alone).unused(&StudentConfig::default(), false),
            ["transfer", "request_batch", "label_lag"]
        );
        assert_eq!(unused_in_words("sac", &[""; 0]), None);
        assert!(unused_in_words("sac", &["updates", "replay"]).unwrap().ends_with("of sac: updates, replay"));
    }

    #[test]
    fn the_form_before_is_refused_with_the_form_now() {
        for old in [
            r#"{"algorithm":"sac","sac":{"hidden":[7]}}"#,
            r#"{"qrdqn":{"quantiles":3}}"#,
            r#"{"ppo":{}}"#,
            r#"{"method":"cql"}"#,
        ] {
            let error = serde_json::from_str::<StudentConfig>(old).unwrap_err().to_string();
            assert!(error.contains("format 1") && error.contains(r#""algorithm": {"name": ..."#), "{error}");
        }
    }
}

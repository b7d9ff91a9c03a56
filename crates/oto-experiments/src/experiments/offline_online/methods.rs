//! The methods: what each learns offline, what continues it online, and what its device needs for that.

use super::Settings;
use oto_agent::config::{EvaluationConfig, Linear, StudentConfig};
use oto_agent::environments;
use oto_agent::offline::OfflineConfig;
use oto_agent::presets::preset;
use oto_agent::stage::{Ending, StagesConfig};
use oto_env::Space;
use oto_rl::algorithms::{AlgorithmConfig, Seen};
use oto_rl::replay::{ReplayConfig, SamplerName};

/// The seam: no random actions and no update in this share of the steps.
const BEFORE_UPDATES: u64 = 50;

/// An algorithm, and its settings beside those of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learner {
    pub name: &'static str,
    /// The rest of a JSON object. STEPS is the number of steps online, HIDDEN the task's hidden layers; RANDOM and EXPERT are its reference returns.
    settings: &'static str,
}

/// What the online part begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// New parameters.
    Fresh,
    /// The offline agent's policy, which makes no update.
    Policy,
    /// The offline agent's networks, target networks and moments.
    Weights,
    /// New parameters, and the offline agent's policy as a teacher for the first half of the steps.
    Answers,
}

/// The part of the dataset that the online part has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    Nothing,
    /// One episode in twenty, as the authors of adaptive behaviour cloning keep 5 % of the transitions.
    Twentieth,
    All,
}

/// A method.
#[derive(Debug)]
pub struct Method {
    /// Its name in tables and on the command line.
    pub name: &'static str,
    /// What learns offline: nothing, one algorithm, or two of which the second continues the first for a fifth of the updates.
    pub offline: &'static [Learner],
    pub begins: Begins,
    pub online: Learner,
    pub recorded: Recorded,
    sampler: SamplerName,
}

const fn with(name: &'static str, settings: &'static str) -> Learner {
    Learner { name, settings }
}

const fn plain(name: &'static str) -> Learner {
    with(name, "")
}

const fn method(
    name: &'static str,
    offline: &'static [Learner],
    begins: Begins,
    online: Learner,
    data: (Recorded, SamplerName),
) -> Method {
    Method { name, offline, begins, online, recorded: data.0, sampler: data.1 }
}

const ALONE: (Recorded, SamplerName) = (Recorded::Nothing, SamplerName::Uniform);
const HALF: (Recorded, SamplerName) = (Recorded::All, SamplerName::Shares);

/// One update a step instead of up to 20: the actor learns in each.
const ENSEMBLE: &str = r#","policy_period":1"#;
/// Sampled actions of conservative terms.
const FOUR: &str = r#","samples":4"#;
const FOUR_CONSERVATIVE: &str = r#","conservative_samples":4"#;
const CQL: &[Learner] = &[with("cql", FOUR)];
const CAL_QL: &[Learner] = &[with("cal-ql", FOUR)];
/// Three small models, rollouts of two steps.
const MOPO: Learner = with("mopo", r#","models":3,"model_hidden":HIDDEN,"horizon":2,"penalty":1"#);
const ADAPTIVE: Learner = with("adaptive-bc", r#","random_return":RANDOM,"expert_return":EXPERT"#);
const REFINED: Learner = plain("td3-bc-refined");
const RELAXED: Learner = with("td3-bc-refined", r#","relax_steps":STEPS"#);
/// Short rollouts, and less noise than a policy without experience needs.
const PPO: Learner = with("ppo", r#","n_steps":512,"initial_log_std":-1"#);
/// Critics that the offline agent has, too.
const WSRL: Learner = with("wsrl", r#","critics":2,"layer_norm":false,"policy_period":1"#);
const BALANCED: (Recorded, SamplerName) = (Recorded::All, SamplerName::Balanced);
const WHOLE: (Recorded, SamplerName) = (Recorded::All, SamplerName::Whole);
const FORGETTING: (Recorded, SamplerName) = (Recorded::All, SamplerName::Forgetting);
const TWENTIETH: (Recorded, SamplerName) = (Recorded::Twentieth, SamplerName::Uniform);

/// All methods, what they must beat first.
pub const METHODS: &[Method] = &[
    method("sac from scratch", &[], Begins::Fresh, plain("sac"), ALONE),
    method("td3 from scratch", &[], Begins::Fresh, plain("td3"), ALONE),
    method("redq from scratch", &[], Begins::Fresh, with("redq", ENSEMBLE), ALONE),
    method("ppo from scratch", &[], Begins::Fresh, with("ppo", r#","n_steps":512"#), ALONE),
    method("sac with data", &[], Begins::Fresh, plain("sac"), HALF),
    method("rlpd", &[], Begins::Fresh, with("rlpd", ENSEMBLE), HALF),
    method("cql as it is", CQL, Begins::Policy, plain("sac"), ALONE),
    method("cql then sac", CQL, Begins::Weights, plain("sac"), ALONE),
    method("cql served", CQL, Begins::Answers, plain("sac"), ALONE),
    method(
        "td3-bc then td3",
        &[with("td3-bc", r#","normalise":false"#)],
        Begins::Weights,
        plain("td3"),
        ALONE,
    ),
    method("bc then ppo", &[with("bc", r#","for_ppo":true"#)], Begins::Weights, PPO, ALONE),
    method("td3-bc", &[plain("td3-bc")], Begins::Weights, plain("td3-bc"), HALF),
    method("iql", &[plain("iql")], Begins::Weights, plain("iql"), HALF),
    method("awac", &[plain("awac")], Begins::Weights, plain("awac"), HALF),
    method("edac", &[plain("edac")], Begins::Weights, plain("edac"), HALF),
    method("cal-ql", CAL_QL, Begins::Weights, with("cal-ql", FOUR), HALF),
    method("wsrl", CAL_QL, Begins::Weights, WSRL, ALONE),
    method("pex", &[plain("iql")], Begins::Weights, plain("pex"), HALF),
    method("aca", &[plain("sac-ml")], Begins::Weights, plain("aca"), ALONE),
    method("aca with data", &[plain("sac-ml")], Begins::Weights, plain("aca"), HALF),
    method("td3-bc relaxed", &[REFINED], Begins::Weights, RELAXED, ALONE),
    method(
        "td3-bc refined and relaxed",
        &[REFINED, with("td3-bc-refined", r#","refine":5"#)],
        Begins::Weights,
        RELAXED,
        ALONE,
    ),
    method("adaptive-bc", &[ADAPTIVE], Begins::Weights, ADAPTIVE, TWENTIETH),
    method("gctd3bc", &[plain("gctd3bc")], Begins::Weights, plain("gctd3bc"), WHOLE),
    method(
        "gcql",
        &[with("gcql", FOUR_CONSERVATIVE)],
        Begins::Weights,
        with("gcql", FOUR_CONSERVATIVE),
        WHOLE,
    ),
    method("upq", &[with("upq", FOUR_CONSERVATIVE)], Begins::Weights, with("upq", FOUR_CONSERVATIVE), HALF),
    method("moore", &[MOPO], Begins::Weights, MOPO, FORGETTING),
    method(
        "balanced-replay",
        &[with("cql-ensemble", FOUR)],
        Begins::Weights,
        plain("balanced-replay"),
        BALANCED,
    ),
];

impl Learner {
    /// Its configuration.
    ///
    /// # Panics
    /// If a method of [`METHODS`] has settings that there are not; a test reads them all.
    fn config(self, settings: &Settings) -> AlgorithmConfig {
        let (task, hidden) = (settings.task, format!("{:?}", settings.task.hidden));
        let values = [
            ("STEPS", settings.steps.to_string()),
            ("HIDDEN", hidden.clone()),
            ("RANDOM", task.reference.random.to_string()),
            ("EXPERT", task.reference.expert.to_string()),
        ];
        let fill = |text: String, (name, value): &(&str, String)| text.replace(name, value);
        let more = values.iter().fold(self.settings.to_string(), fill);
        let text =
            format!(r#"{{"name":"{}","hidden":{hidden},"batch_size":{}{more}}}"#, self.name, task.batch);
        oto_json::read(&text).expect("a test reads the settings of every method")
    }

    /// Its settings other than the defaults, with the defaults in brackets. Hidden layers and batch are the task's for all.
    pub fn scaled(self, settings: &Settings) -> String {
        let tree = |config: &AlgorithmConfig| {
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&oto_json::write(config))
                .unwrap_or_default()
        };
        let usual = oto_json::read(&format!(r#"{{"name":"{}"}}"#, self.name));
        let usual = usual.as_ref().map(tree).unwrap_or_default();
        let differs = |(key, value): &(&String, &serde_json::Value)| {
            !["hidden", "batch_size"].contains(&key.as_str()) && usual.get(key.as_str()) != Some(value)
        };
        let here = tree(&self.config(settings));
        let told = here.iter().filter(differs).map(|(key, value)| {
            let value = value.to_string().replace(',', " ");
            match usual.get(key) {
                Some(usual) => format!("{key} {value} ({})", usual.to_string().replace(',', " ")),
                None => format!("{key} {value}"),
            }
        });
        let told = told.collect::<Vec<_>>().join("; ");
        if told.is_empty() { told } else { format!("{}: {told}", self.name) }
    }
}

impl Method {
    /// The configurations of the offline part, one after the other.
    pub fn offline(&self, settings: &Settings, action: &Space) -> Vec<OfflineConfig> {
        let last = settings.updates / 5;
        let updates = match self.offline.len() {
            0 => vec![],
            1 => vec![settings.updates],
            _ => vec![settings.updates - last, last],
        };
        let config = |(learner, updates): (&Learner, u64)| {
            let algorithm = learner.config(settings);
            let usual = OfflineConfig::of(algorithm.algorithm(), action);
            let every = (settings.updates / settings.task.evaluations[0]).max(1);
            let evaluation = EvaluationConfig { every, episodes: settings.episodes };
            OfflineConfig { algorithm, updates, patience: 0, evaluation, ..usual }
        };
        self.offline.iter().zip(updates).map(config).collect()
    }

    /// The configuration of the online part.
    pub fn online(&self, settings: &Settings) -> StudentConfig {
        let algorithm = self.online.config(settings);
        let seen = Seen { continuous: true, images: None };
        let usual =
            preset(environments::id(settings.task.environment), seen, Some(algorithm.algorithm())).student;
        let (steps, tenth) = (settings.steps, (settings.steps / 10).max(1));
        let first = steps / BEFORE_UPDATES;
        let taught = Ending { steps: Some((steps / 2).max(1)), ..Ending::default() };
        StudentConfig {
            steps,
            algorithm,
            replay: ReplayConfig {
                sampler: self.sampler,
                own_from: tenth,
                online_reference: tenth,
                ..usual.replay
            },
            learning_starts: first,
            train_every: 1,
            updates: u64::from(self.begins != Begins::Policy),
            epsilon: match self.begins {
                Begins::Fresh | Begins::Answers => Linear { start: 1.0, end: 0.0, steps: first },
                Begins::Policy | Begins::Weights => Linear::constant(0.0),
            },
            stages: match self.begins {
                Begins::Answers => StagesConfig { transfer: Some(taught), ..StagesConfig::default() },
                _ => StagesConfig::SOLO,
            },
            evaluation: EvaluationConfig {
                every: (steps / settings.task.evaluations[1]).max(1),
                episodes: settings.episodes,
            },
            ..usual
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::TASKS;
    use super::*;

    #[test]
    fn every_method_has_valid_settings_and_a_name_of_its_own() {
        let action = Space::uniform(1, -2.0, 2.0);
        for (task, (i, method)) in
            TASKS.iter().flat_map(|task| METHODS.iter().enumerate().map(move |m| (task, m)))
        {
            let settings = Settings::of(task);
            let offline = method.offline(&settings, &action);
            offline.iter().for_each(|config| config.validate().unwrap());
            let updates = offline.iter().map(|config| config.updates).sum::<u64>();
            assert_eq!(updates, if offline.is_empty() { 0 } else { task.updates }, "{}", method.name);
            let online = method.online(&settings);
            online.validate().unwrap_or_else(|error| panic!("{}: {error}", method.name));
            assert_eq!(offline.is_empty(), method.begins == Begins::Fresh, "{}", method.name);
            assert_eq!(METHODS.iter().position(|other| other.name == method.name), Some(i));
            assert!(!method.name.contains(','), "a name is a cell of a CSV file");
        }
    }

    #[test]
    fn what_differs_from_the_defaults_is_told_with_them() {
        let hopper = Settings::of(TASKS.iter().find(|task| task.name == "hopper").unwrap());
        assert_eq!(plain("sac").scaled(&hopper), "");
        assert_eq!(CQL[0].scaled(&hopper), "cql: samples 4 (10)");
        let adaptive = ADAPTIVE.scaled(&hopper);
        assert!(adaptive.contains("expert_return 3234.3 ("), "{adaptive}");
        assert!(MOPO.scaled(&hopper).contains("model_hidden [128 128] ("), "{}", MOPO.scaled(&hopper));
    }
}

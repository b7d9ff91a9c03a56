//! The run that another run begins with: `--from RUN`, `Student.create({ from })`, `create-from`. It gives the settings of the new
//! run; [`checkpoint::adopt`](crate::checkpoint::adopt) gives its networks and its optimiser.

use crate::config::{Linear, StudentConfig};
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
use crate::offline::OfflineConfig;
use crate::trainer::Source;
use oto_env::Space;
use oto_json::{At, Failure, FromJson, Json};
use oto_rl::algorithms::{self, Algorithm, AlgorithmConfig, Seen};

/// The last state of a run that another run begins with.
pub struct Origin {
    /// The source that it learned from.
    pub source: Source,
    /// The count of its schedules: steps since its parameters were last initialised, or updates where the source is a dataset.
    pub clock: u64,
    /// Its updates.
    pub updates: u64,
    pub(crate) action_space: Space,
    settings: Settings,
}

/// The settings that the new run takes.
struct Settings {
    algorithm: Named,
    gamma: f64,
    n_step: usize,
    learning_rate: Linear,
    epsilon: Linear,
    target_every: u64,
    target_tau: f64,
}

/// An algorithm and its settings. Most pages lack the algorithms that learn from datasets, and continue their runs.
struct Named {
    name: String,
    settings: Json,
}

impl FromJson for Origin {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let fields = at.fields()?;
        let (source, updates) = (fields.get("source")?, fields.get("updates")?);
        let (steps, started): (u64, u64) = (fields.get("steps")?, fields.get("started")?);
        let clock = match source {
            Source::Environment | Source::Mixed => steps.saturating_sub(started),
            Source::Dataset => updates,
        };
        let (action_space, settings) = (fields.get("action_space")?, fields.get("config")?);
        Ok(Self { source, clock, updates, action_space, settings })
    }
}

impl FromJson for Settings {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let fields = at.fields()?;
        Ok(Self {
            algorithm: fields.get("algorithm")?,
            gamma: fields.get("gamma")?,
            n_step: fields.get("n_step")?,
            learning_rate: fields.get("learning_rate")?,
            epsilon: fields.get("epsilon")?,
            target_every: fields.get("target_every")?,
            target_tau: fields.get("target_tau")?,
        })
    }
}

impl FromJson for Named {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let name: String = at.fields()?.get("name")?;
        let in_page = cfg!(all(target_family = "wasm", target_os = "unknown"));
        if !in_page || algorithms::find(&name).is_some() {
            AlgorithmConfig::from_json(at)?;
        }
        Ok(Self { name, settings: at.value.clone() })
    }
}

impl Origin {
    /// The name of its algorithm.
    pub fn name(&self) -> &str {
        &self.settings.algorithm.name
    }

    /// Its algorithm, if it is built in, one of these, and accepts this environment.
    pub fn algorithm(&self, of: fn(&dyn Algorithm) -> bool, seen: Seen) -> Option<&'static dyn Algorithm> {
        algorithms::find(self.name()).filter(|algorithm| of(*algorithm) && algorithm.accepts(seen))
    }

    /// A student's defaults with the run's settings: those of the algorithm that both have, the discount, and the rest of
    /// the schedules. A run of a dataset has no exploration: it continues with the least of the defaults.
    pub fn student(&self, defaults: &StudentConfig) -> StudentConfig {
        let (run, clock) = (&self.settings, self.clock);
        StudentConfig {
            algorithm: run.algorithm.over(&defaults.algorithm),
            gamma: run.gamma,
            n_step: run.n_step,
            learning_rate: run.learning_rate.after(clock),
            epsilon: match self.source {
                Source::Dataset => Linear::constant(defaults.epsilon.end),
                Source::Environment | Source::Mixed => run.epsilon.after(clock),
            },
            target_every: run.target_every,
            target_tau: run.target_tau,
            ..defaults.clone()
        }
    }

    /// The same for a teacher.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub fn teach(&self, defaults: &OfflineConfig) -> OfflineConfig {
        let run = &self.settings;
        OfflineConfig {
            algorithm: run.algorithm.over(&defaults.algorithm),
            gamma: run.gamma,
            n_step: run.n_step,
            learning_rate: run.learning_rate.after(self.clock),
            target_every: run.target_every,
            target_tau: run.target_tau,
            ..defaults.clone()
        }
    }
}

impl Named {
    /// An algorithm's settings with those of the run's algorithm that have the same name and are valid here.
    fn over(&self, defaults: &AlgorithmConfig) -> AlgorithmConfig {
        let (mut merged, mut tree) = (defaults.clone(), oto_json::to_tree(defaults));
        let Json::Object(settings) = &self.settings else { return merged };
        for (key, value) in settings.iter().filter(|(key, _)| key != "name") {
            let mut changed = tree.clone();
            changed.set(key.clone(), value.clone());
            match oto_json::from_tree::<AlgorithmConfig>(&changed) {
                Ok(valid) if valid.validate().is_ok() => (merged, tree) = (valid, changed),
                _ => {}
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_rl::algorithms::sac::SacConfig;

    /// The JSON of a run that a page may not know: `algorithm` with a setting that sac has, one that it refuses and one that it lacks.
    fn run(algorithm: &str, source: &str) -> String {
        let schedule = r#"{"start":0.5,"end":0.1,"steps":100}"#;
        format!(
            r#"{{"source":"{source}","steps":60,"started":10,"updates":30,"action_space":{{"kind":"box","low":[-1],"high":[1]}},"config":{{
                "algorithm":{algorithm},"gamma":0.5,"n_step":3,"learning_rate":{schedule},"epsilon":{schedule},"target_every":7,
                "target_tau":0.25,"another":1}}}}"#
        )
    }

    #[test]
    fn a_run_of_an_algorithm_that_is_not_built_in_gives_the_settings_that_both_have() {
        let settings =
            oto_json::parse(r#"{"name":"unknown","hidden":[9],"batch_size":0,"novel":true}"#).unwrap();
        let unknown = Named { name: "unknown".into(), settings };
        let SacConfig { batch_size, .. } = SacConfig::default();
        let expected = SacConfig { hidden: vec![9], batch_size, ..SacConfig::default() };
        assert_eq!(unknown.over(&SacConfig::default().into()), expected.into());
    }

    #[test]
    fn schedules_continue_where_the_run_ended() {
        let read =
            |source: &str| oto_json::read::<Origin>(&run(r#"{"name":"sac","hidden":[9]}"#, source)).unwrap();
        let defaults = StudentConfig::default();
        let origin = read("environment");
        assert_eq!((origin.name(), origin.clock, origin.updates), ("sac", 50, 30));
        let student = origin.student(&defaults);
        assert_eq!(
            (student.gamma, student.n_step, student.target_every, student.target_tau),
            (0.5, 3, 7, 0.25)
        );
        assert_eq!(student.epsilon, Linear { start: 0.3, end: 0.1, steps: 50 });
        assert_eq!((student.steps, student.buffer), (defaults.steps, defaults.buffer));
        let taught = read("dataset");
        assert_eq!(taught.clock, 30);
        assert_eq!(taught.student(&defaults).epsilon, Linear::constant(defaults.epsilon.end));
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_path() {
        for (algorithm, path) in [
            (r#"{"name":"sec"}"#, "config.algorithm.name"),
            (r#"{"name":"sac","hidden":7}"#, "config.algorithm.hidden"),
            (r#"{"hidden":[7]}"#, "config.algorithm"),
            ("7", "config.algorithm"),
        ] {
            let error = oto_json::read::<Origin>(&run(algorithm, "environment")).err().unwrap();
            assert_eq!(error.path, path, "{error}");
        }
    }
}

//! An algorithm with its settings, as configurations hold it.

use super::{ALGORITHMS, ActionKind, Agent, Algorithm, Sizes, Teaching};
use crate::actions::Actions;
use crate::checks::{Checks, ConfigError};
use crate::convolution::Convolution;
#[cfg(feature = "every-algorithm")]
use crate::distillation::DistillationConfig;
use crate::engine::LearnError;
use crate::replay::SamplerName;
use crate::shared::Part;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program};
use oto_json::{At, Failure, FromJson, Json, Object, ToJson, Writer};
use std::any::Any;
use std::fmt;
use std::ops::Deref;

/// The settings of one algorithm, and what is made from them.
pub trait Settings: Plain {
    /// The algorithm.
    fn algorithm(&self) -> &'static dyn Algorithm;

    /// Transitions in an update.
    fn batch_size(&self) -> usize;

    /// Checks every setting.
    fn check(&self, checks: &mut Checks);

    /// Checks the settings of a run that it depends on.
    fn check_run(&self, run: Run, checks: &mut Checks) {
        let _ = (run, checks);
    }

    /// The convolution that sees images, if it has one.
    fn convolution(&self) -> Option<&Convolution> {
        None
    }

    /// Whether its program can weigh the rows of a batch, so that replay can be prioritised; see [`Sizes::weighted`].
    fn can_be_prioritised(&self) -> bool {
        false
    }

    /// The sampler that its program needs, if it needs one.
    fn sampler(&self) -> Option<SamplerName> {
        None
    }

    /// The content of teachers' answers.
    fn teaching(&self) -> Teaching {
        Teaching::Actions
    }

    /// The distillation of teachers' logits, if the algorithm learns so and is to.
    #[cfg(feature = "every-algorithm")]
    fn distillation(&self) -> Option<&DistillationConfig> {
        None
    }

    /// Changes the distillation; false where the algorithm has none.
    #[cfg(feature = "every-algorithm")]
    fn set_distillation(&mut self, distillation: Option<DistillationConfig>) -> bool {
        let _ = distillation;
        false
    }

    /// Whether these settings fit spaces that the algorithm accepts; why not.
    ///
    /// # Errors
    /// What to change, in a sentence.
    fn fits(&self, sizes: Sizes) -> Result<(), String> {
        let _ = sizes;
        Ok(())
    }

    /// One update, recorded: state and batch in, new state and [`crate::engine::LossParts`] out.
    fn program(&self, sizes: Sizes) -> Program;

    /// An agent with parameters drawn from `rng`.
    ///
    /// # Errors
    /// The backend's failure.
    fn agent(&self, sizes: Sizes, backend: &dyn Backend, rng: &mut Rng)
    -> Result<Box<dyn Agent>, LearnError>;

    /// Whether its policy is recurrent: an action depends on earlier observations of the episode.
    fn is_recurrent(&self) -> bool {
        false
    }

    /// Whether asynchronous workers can share an agent of this algorithm: its update has two halves ([`Self::part`]).
    fn is_asynchronous(&self) -> bool {
        false
    }

    /// The agent of a part of the update; see [`crate::shared`]. The whole update, unless the algorithm is asynchronous.
    ///
    /// # Errors
    /// The backend's failure, or a backend that is a device.
    fn part(
        &self,
        part: Part,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Box<dyn Agent>, LearnError> {
        let _ = part;
        self.agent(sizes, backend, rng)
    }
}

/// Plain data. Every type of settings is, by what it derives.
pub trait Plain: Any + Object + Send + Sync {
    /// A copy.
    fn copied(&self) -> Box<dyn Settings>;

    /// Whether the other has the same type and values.
    fn same(&self, other: &dyn Any) -> bool;
}

impl<T: Settings + Clone + PartialEq> Plain for T {
    fn copied(&self) -> Box<dyn Settings> {
        Box::new(self.clone())
    }

    fn same(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>().is_some_and(|other| other == self)
    }
}

/// The settings of a run that an algorithm may depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Rewards summed before the bootstrap.
    pub n_step: usize,
    /// Capacity of the replay buffer, in transitions.
    pub buffer: usize,
    /// Environment steps before the first update.
    pub learning_starts: u64,
}

/// An algorithm with its settings: `{"name": "sac", "hidden": [256, 256], ...}`. It is read from its name alone, too: it
/// then has its defaults.
pub struct AlgorithmConfig(Box<dyn Settings>);

impl fmt::Debug for AlgorithmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&oto_json::write(self))
    }
}

impl AlgorithmConfig {
    /// The algorithm's name.
    pub fn name(&self) -> &'static str {
        self.0.algorithm().name()
    }

    /// The settings of this type of algorithm, if it is that one: for code that configures one algorithm.
    pub fn of<T: Settings>(&self) -> Option<&T> {
        let any: &dyn Any = &*self.0;
        any.downcast_ref()
    }

    /// The same, to change.
    pub fn of_mut<T: Settings>(&mut self) -> Option<&mut T> {
        let any: &mut dyn Any = &mut *self.0;
        any.downcast_mut()
    }

    /// The same with changed settings, if they are of this type.
    pub fn with<T: Settings>(mut self, change: impl FnOnce(&mut T)) -> Self {
        if let Some(settings) = self.of_mut() {
            change(settings);
        }
        self
    }

    /// Whether its policy is recurrent; none is that every page loads.
    pub fn is_recurrent(&self) -> bool {
        cfg!(feature = "every-algorithm") && self.0.is_recurrent()
    }

    /// Changes the distillation, see [`Settings::set_distillation`].
    #[cfg(feature = "every-algorithm")]
    pub fn set_distillation(&mut self, distillation: Option<DistillationConfig>) -> bool {
        self.0.set_distillation(distillation)
    }

    /// Whether an update reads this input, such as `target_mix`: its program says so.
    pub fn reads(&self, input: &str) -> bool {
        let actions = match self.0.algorithm().actions() {
            [ActionKind::Continuous, ..] => Actions::Continuous(1),
            _ => Actions::Discrete(2),
        };
        let observation = self.0.convolution().map_or(1, Convolution::inputs);
        let program = self.0.program(Sizes { observation, actions, teachers: 0, weighted: false });
        program.inputs.iter().any(|found| found.name == input)
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut checks = Checks::default();
        checks.within("algorithm", |checks| self.0.check(checks));
        checks.done()
    }
}

impl<T: Settings> From<T> for AlgorithmConfig {
    fn from(settings: T) -> Self {
        Self(Box::new(settings))
    }
}

impl Deref for AlgorithmConfig {
    type Target = dyn Settings;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Clone for AlgorithmConfig {
    fn clone(&self) -> Self {
        Self(self.0.copied())
    }
}

impl PartialEq for AlgorithmConfig {
    fn eq(&self, other: &Self) -> bool {
        self.0.same(&*other.0)
    }
}

impl ToJson for AlgorithmConfig {
    fn write(&self, out: &mut Writer) {
        out.open('{');
        out.field("name", self.name());
        self.0.write_fields(out);
        out.close('}');
    }
}

impl FromJson for AlgorithmConfig {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let names = ALGORITHMS.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>();
        let (index, settings) = match at.value {
            Json::Object(fields) => {
                let own = fields.iter().filter(|(key, _)| key != "name").cloned();
                (at.fields()?.tag("name", &names)?, own.collect())
            }
            _ => (at.one_of(&names)?, Vec::new()),
        };
        ALGORITHMS[index].read(at.with(&Json::Object(settings)))
    }
}

oto_json::json_serde! { AlgorithmConfig }

/// Settings of one type from JSON.
pub(super) fn read<T: Settings + FromJson>(at: At<'_>) -> Result<AlgorithmConfig, Failure> {
    T::from_json(at).map(Into::into)
}

/// The schema of an algorithm's settings: their name first, ranges as they are checked.
#[cfg(feature = "schema")]
pub(super) fn schema<T: Settings + schemars::JsonSchema>(
    algorithm: &dyn Algorithm,
    generator: &mut schemars::SchemaGenerator,
) -> schemars::Schema {
    use serde_json::{Map, Value, json};
    let mut schema = T::json_schema(generator);
    let mut checks = Checks::default();
    algorithm.defaults(super::Seen::default()).algorithm.check(&mut checks);
    let name = json!({ "const": algorithm.name(), "description": "The algorithm." });
    let mut properties = Map::from_iter([("name".to_string(), name)]);
    if let Some(Value::Object(own)) = schema.remove("properties") {
        properties.extend(own);
    }
    for (path, from, to) in checks.ranges {
        if let Some(property) = properties.get_mut(path.trim_end_matches("[]")) {
            let at = if path.ends_with("[]") { &mut property["items"] } else { property };
            crate::checks::bound(at, from, to);
        }
    }
    schema.insert("title".into(), T::schema_name().into());
    schema.insert("properties".into(), Value::Object(properties));
    schema.insert("required".into(), json!(["name"]));
    schema
}

/// The schema of an algorithm and its settings, of those that can learn in an environment.
#[cfg(feature = "schema")]
pub fn online_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    one_of(super::online().map(|one| one.schema(generator)).collect())
}

/// The same, of those that can learn from a dataset alone.
#[cfg(feature = "schema")]
pub fn offline_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    one_of(super::offline().map(|one| one.schema(generator)).collect())
}

#[cfg(feature = "schema")]
fn one_of(each: Vec<schemars::Schema>) -> schemars::Schema {
    schemars::json_schema!({ "oneOf": each })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithms::ppo::PpoConfig;
    use crate::algorithms::sac::SacConfig;

    fn read(text: &str) -> Result<AlgorithmConfig, oto_json::JsonError> {
        oto_json::read(text)
    }

    #[test]
    fn a_name_chooses_the_settings() {
        let sac = read(r#"{"hidden":[7],"name":"sac"}"#).unwrap();
        assert_eq!(sac, SacConfig { hidden: vec![7], ..SacConfig::default() }.into());
        assert_eq!(sac.of::<SacConfig>().unwrap().hidden, [7]);
        assert!(sac.of::<PpoConfig>().is_none() && sac != PpoConfig::default().into());
        assert_eq!(read(r#""ppo""#).unwrap(), PpoConfig::default().into());
        assert!(oto_json::write(&sac).starts_with(r#"{"name":"sac","hidden":[7],"#));
        assert_eq!(sac.clone(), sac);
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_path() {
        for (text, path, said) in [
            (r#"{"name":"dqn"}"#, "name", "`qrdqn`, `sac`, `ppo`"),
            (r#""dqn""#, "", "`qrdqn`, `sac`, `ppo`"),
            (r#"{"hidden":[3]}"#, "", "missing field `name`"),
            ("3", "", "expected a text, got 3"),
            (
                r#"{"name":"sac","quantiles":3}"#,
                "quantiles",
                "unknown field, expected `convolution`, `hidden`",
            ),
            (r#"{"name":"qrdqn","hidden":[64,-1]}"#, "hidden[1]", "a whole number"),
            (r#"{"name":"qrdqn","adam":{"beta3":0}}"#, "adam.beta3", "unknown field"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.path == path && error.message.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_setting_out_of_its_range_is_named_by_its_path() {
        for (text, said) in [
            (r#"{"name":"qrdqn","hidden":[64,0]}"#, "algorithm.hidden[1] is 0: widths from 1 to 4096"),
            (r#"{"name":"sac","hidden":[]}"#, "algorithm.hidden is of 0 layers: 1 to 8 hidden layers"),
            (r#"{"name":"ppo","clip":0}"#, "algorithm.clip is 0"),
            (r#"{"name":"ppo","n_steps":100}"#, "a whole number of batches"),
            (r#"{"name":"bc","batch_size":0}"#, "algorithm.batch_size is 0"),
            (r#"{"name":"cql","weight":-1}"#, "algorithm.weight is -1"),
            (r#"{"name":"sac","adam":{"beta1":1}}"#, "algorithm.adam.beta1 is 1"),
        ] {
            let error = read(text).unwrap().validate().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}

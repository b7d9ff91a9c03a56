//! What a file of Stable-Baselines3's says about its policy beside the tensors: the record `data` of a model zip
//! (`common/save_util.py`, `data_to_json`), or what `policy.save()` pickles beside the state dict.

use crate::pickle::{Id, Node, Pickle};
use crate::pickled::{self, Recorded};
use crate::tensors::malformed;
use crate::{Metadata, PolicyError, pickle};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oto_proto::Space;
use oto_rl::mlp::Activation;
use serde_json::Value;

/// What was recorded.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    observation: Option<Known>,
    action: Option<Known>,
    /// The class of the activation, as `module name`.
    activation: Option<String>,
    normalize_images: Option<bool>,
    squash_output: Option<bool>,
    clip_mean: Option<f64>,
    features_extractor: Option<String>,
    /// The module that defines the policy's class.
    module: Option<String>,
    /// Whether all arguments that are no defaults were recorded.
    whole: bool,
}

/// A space that was recorded.
#[derive(Debug)]
enum Known {
    Space(Recorded),
    /// The class of one that cannot be read.
    Unread(String),
}

/// Settings of a network that a state dict does not show.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Hints {
    /// The activation between layers is that of the algorithm's default, or the metadata's.
    pub activation_known: bool,
    /// The record leaves the activation at the algorithm's default.
    pub usual_activation: bool,
    /// Nothing but what is here differs from the algorithm's defaults.
    pub all_known: bool,
    /// Whether the answer is a tanh, where the algorithm leaves it open.
    pub squash: Option<bool>,
    /// The bound of the mean before the tanh, under generalised state-dependent exploration.
    pub clip_mean: Option<f32>,
}

impl Facts {
    /// From the record of a model zip.
    pub fn of_record(record: &[u8]) -> Result<Self, PolicyError> {
        let data: Value = serde_json::from_slice(record).map_err(malformed)?;
        let kwargs = &data["policy_kwargs"];
        let text = |value: &Value| value.as_str().map(class_of);
        Ok(Facts {
            observation: recorded(&data["observation_space"]),
            action: recorded(&data["action_space"]),
            activation: text(&kwargs["activation_fn"]),
            normalize_images: kwargs["normalize_images"].as_bool(),
            squash_output: kwargs["squash_output"].as_bool(),
            clip_mean: kwargs["clip_mean"].as_f64(),
            features_extractor: text(&kwargs["features_extractor_class"]),
            module: data["policy_class"]["__module__"].as_str().map(str::to_owned),
            whole: true,
        })
    }

    /// From the arguments that `policy.save()` keeps.
    pub fn of_arguments(pickle: &Pickle, arguments: Id) -> Self {
        let get = |name: &str| pickle.entry(arguments, name);
        let bool = |name: &str| match pickle.node(get(name)?) {
            Node::Bool(bool) => Some(*bool),
            _ => None,
        };
        let class = |name: &str| pickle.global(get(name)?).map(str::to_owned);
        let space = |name: &str| {
            let unread = |id| Known::Unread(pickle.class(id).unwrap_or("an object").replace(' ', "."));
            get(name).map(|id| pickled::space(pickle, id).map_or_else(|| unread(id), Known::Space))
        };
        Facts {
            observation: space("observation_space"),
            action: space("action_space"),
            activation: class("activation_fn"),
            normalize_images: bool("normalize_images"),
            squash_output: bool("squash_output"),
            clip_mean: get("clip_mean").and_then(|id| pickled::number(pickle, id)),
            features_extractor: class("features_extractor_class"),
            module: None,
            whole: false,
        }
    }

    /// Takes over what `metadata` do not say, and gives the rest.
    ///
    /// # Errors
    /// If the policy is none whose answers can be computed from its tensors, or a space is not known.
    pub fn complete(self, metadata: &mut Metadata) -> Result<Hints, PolicyError> {
        let unsupported =
            |reason: String| Err(PolicyError::Unsupported(format!("{reason}; export it to ONNX")));
        let known = |space: &Option<Known>, test: fn(&Recorded) -> bool| matches!(space, Some(Known::Space(space)) if test(space));
        if known(&self.observation, Recorded::has_image) && self.normalize_images != Some(false) {
            return unsupported(
                "a model that observes images, which Stable-Baselines3 divides by 255 first".into(),
            );
        }
        if let Some(module) = self.module.filter(|module| !is_known_module(module)) {
            return unsupported(format!("a policy of a class of its own, from the module {module:?}"));
        }
        if let Some(class) = self.features_extractor.filter(|class| {
            !(is_known_module(class)
                && ["FlattenExtractor", "CombinedExtractor"].iter().any(|known| class.ends_with(known)))
        }) {
            return unsupported(format!("a features extractor of the class {class:?}"));
        }
        if let Some(Known::Space(space @ (Recorded::MultiDiscrete(_) | Recorded::MultiBinary(_)))) =
            &self.action
        {
            let message = format!(
                "a model that acts in a {}: an action is one choice or a row of numbers",
                space.name()
            );
            return Err(PolicyError::Unsupported(message));
        }
        metadata.observation_space =
            taken(metadata.observation_space.take(), self.observation, "observation_space")?;
        metadata.action_space = taken(metadata.action_space.take(), self.action, "action_space")?;
        if let Some(name) = &self.activation {
            let recorded = match name.rsplit(['.', ' ']).next() {
                Some("Tanh") => Activation::Tanh,
                Some("ReLU") => Activation::Relu,
                _ => return unsupported(format!("a network with the activation {name}")),
            };
            if let Some(declared) = metadata.activation.filter(|declared| *declared != recorded) {
                let message = format!(
                    "\"activation\" is {declared:?}, but the model's own record says {recorded:?}; leave it out"
                );
                return Err(PolicyError::Metadata(message));
            }
            metadata.activation = Some(recorded);
        }
        Ok(Hints {
            activation_known: true,
            usual_activation: self.whole && self.activation.is_none(),
            all_known: self.whole,
            squash: self.squash_output,
            clip_mean: self.clip_mean.map(|bound| bound as f32),
        })
    }
}

fn is_known_module(name: &str) -> bool {
    ["stable_baselines3.", "sb3_contrib."].iter().any(|library| name.starts_with(library))
}

/// Whether a declared space can be the recorded one. Of observations the number counts, because declared bounds change no answer; printed
/// bounds are rounded.
fn agree(declared: &Space, recorded: &Space, observed: bool) -> bool {
    let near = |(a, b): (&f32, &f32)| a == b || (a - b).abs() <= 1e-6 * b.abs().max(1.0);
    match (declared, recorded) {
        (Space::Discrete { n: a }, Space::Discrete { n: b }) => a == b,
        (Space::Box { low, high }, Space::Box { low: lows, high: highs }) => {
            let alike = || low.iter().zip(lows).chain(high.iter().zip(highs)).all(near);
            low.len() == lows.len() && (observed || alike())
        }
        _ => observed,
    }
}

/// The declared space, which cannot contradict the recorded one, or else the recorded one, which must be known.
fn taken(
    declared: Option<Space>,
    recorded: Option<Known>,
    field: &str,
) -> Result<Option<Space>, PolicyError> {
    if let Some(declared) = declared {
        let space = match &recorded {
            Some(Known::Space(Recorded::Discrete { n, .. })) => Some(Space::Discrete { n: *n }),
            Some(Known::Space(space)) => space.space(),
            _ => None,
        };
        return match space.filter(|space| !agree(&declared, space, field == "observation_space")) {
            None => Ok(Some(declared)),
            Some(space) => Err(PolicyError::Metadata(format!(
                "{field} is declared as {declared:?}, but the model's own record says {space:?}; leave it out"
            ))),
        };
    }
    let refused = |what: &str| {
        let message = format!("{what} of the model's {field} cannot be read; declare {field}");
        Err(PolicyError::Metadata(message))
    };
    match recorded {
        Some(Known::Space(Recorded::Discrete { start, .. })) if start != 0 => {
            refused(&format!("the start {start}"))
        }
        Some(Known::Space(space)) => match space.space() {
            Some(space) => Ok(Some(space)),
            None => refused("the size"),
        },
        Some(Known::Unread(class)) => refused(&format!("the class {class}")),
        None => refused("the record"),
    }
}

/// `module.name` of `<class 'module.name'>`.
fn class_of(text: &str) -> String {
    let inside = text.strip_prefix("<class '").and_then(|rest| rest.strip_suffix("'>"));
    inside.unwrap_or(text).to_owned()
}

/// A space of a record: its pickle, or else what is printed of it.
fn recorded(record: &Value) -> Option<Known> {
    let class = class_of(record[":type:"].as_str()?);
    let pickled = || {
        let bytes = STANDARD.decode(record[":serialized:"].as_str()?).ok()?;
        let pickle = pickle::read(&bytes).ok()?;
        pickled::space(&pickle, pickle.top)
    };
    Some(match pickled().or_else(|| printed(record, &class)) {
        Some(space) => Known::Space(space),
        None => Known::Unread(class),
    })
}

fn printed(record: &Value, class: &str) -> Option<Recorded> {
    if !class.starts_with("gym.spaces.") && !class.starts_with("gymnasium.spaces.") {
        return None;
    }
    // Gym wrote numbers, Gymnasium's are NumPy's and printed.
    let whole = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
    let text = |key: &str| record[key].as_str();
    Some(match class.rsplit('.').next()? {
        "Discrete" => Recorded::Discrete {
            n: u32::try_from(whole(&record["n"])?).ok()?,
            start: if record["start"].is_null() { 0 } else { whole(&record["start"])? },
        },
        "Box" => Recorded::Box {
            low: numbers(text("low")?)?,
            high: numbers(text("high")?)?,
            image: record["dtype"] == "uint8"
                && record["_shape"].as_array().is_some_and(|shape| shape.len() == 3),
        },
        "MultiDiscrete" => {
            let parts = numbers(text("nvec")?)?;
            Recorded::MultiDiscrete(parts.iter().map(|n| *n as usize).collect())
        }
        "MultiBinary" => Recorded::MultiBinary(usize::try_from(whole(&record["n"])?).ok()?),
        _ => return None,
    })
}

/// The numbers of a printed NumPy array; `None` if it was printed abridged.
fn numbers(text: &str) -> Option<Vec<f32>> {
    let words = text.split(|c: char| c.is_whitespace() || "[],".contains(c)).filter(|word| !word.is_empty());
    words.map(|word| word.parse().ok()).collect()
}

//! Options behind an ID: `CartPoleSwingUp-v0?k_f=5&voltage_max=12`.

use super::config::{Config, ConfigError, choice, real, whole};
use super::plant::{PLANT, Plant};
use super::{PLANT_ID, SIMULATION_ID};
use crate::EnvError;

/// What an environment is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The simulation's constants, or the plant's own ones where they are the simulation's.
    pub config: Config,
    /// The plant, where it is one.
    pub plant: Option<Plant>,
    /// The share of training episodes of the simulation that start near upright.
    pub upright: f64,
}

/// Options beside the constants of [`Config`], each with what it does.
pub const OPTIONS: &[(&str, &str)] = &[
    ("variant", "rule (default) or published: all constants at once, before other options"),
    ("upright", "simulation: share of training episodes that start near upright"),
    ("calibration", "plant: steps after which the angle is calibrated before the next episode; 0: never"),
    ("frozen", "plant: probability in a step that all readings freeze for up to a second"),
    ("wild", "plant: probability in a step of a wild reading"),
    ("lost", "plant: probability in a step that the command is lost"),
];

/// The options of an ID. `None` for an ID of another environment.
///
/// # Errors
/// [`EnvError::Option`] for an option that does not exist, or with a value out of its range.
pub fn options(id: &str) -> Option<Result<Options, EnvError>> {
    let (name, text) = id.split_once('?').unwrap_or((id, ""));
    let options = match name {
        SIMULATION_ID => Options::simulation(),
        PLANT_ID => Options::plant(),
        _ => return None,
    };
    Some(options.with(text).map_err(|error| EnvError::Option { id: name.into(), reason: error.to_string() }))
}

impl Options {
    /// The rule.
    pub fn simulation() -> Self {
        Self { config: Config::default(), plant: None, upright: 0.0 }
    }

    /// The plant.
    pub fn plant() -> Self {
        Self { config: Config { k_f: PLANT.k_f, ..Config::default() }, plant: Some(PLANT), upright: 0.0 }
    }

    fn with(mut self, text: &str) -> Result<Self, ConfigError> {
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            self.set(name, value)?;
        }
        Ok(self)
    }

    /// Sets one option.
    fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        match (name, &mut self.plant) {
            ("variant", None) => {
                let known = [("rule", Config::default as fn() -> Config), ("published", Config::published)];
                self.config = choice(name, value, &known)?();
            }
            ("upright", None) => self.upright = real(name, value, 0.0, 1.0)?,
            ("calibration", Some(plant)) => plant.calibration = whole(name, value, 0, 1_000_000)?,
            ("frozen", Some(plant)) => plant.faults.frozen = real(name, value, 0.0, 1.0)?,
            ("wild", Some(plant)) => plant.faults.wild = real(name, value, 0.0, 1.0)?,
            ("lost", Some(plant)) => plant.faults.lost = real(name, value, 0.0, 1.0)?,
            ("k_f", Some(_)) => {
                return Err(ConfigError::new(
                    name,
                    "no friction factor for the plant, which has its own",
                    value,
                ));
            }
            _ if OPTIONS.iter().any(|(known, _)| *known == name) => {
                let what = if self.plant.is_some() { "the simulation" } else { "the plant" };
                return Err(ConfigError::new(name, format!("this option for {what} only"), value));
            }
            _ if !Config::NAMES.contains(&name) => {
                let own = OPTIONS.iter().map(|(name, _)| *name);
                let known: Vec<_> = Config::NAMES.iter().copied().chain(own).collect();
                return Err(ConfigError::new(name, format!("one of {}", known.join(", ")), name));
            }
            _ => self.config.set(name, value)?,
        }
        Ok(())
    }
}

//! Worlds by the names users give them: built-in ones by their ids, and `gym:ID` for what Gymnasium has in Python.

use oto_env::{EnvError, Environment};
use oto_student::config::StudentConfig;
use oto_student::presets;
use oto_student::student::World;
use oto_student::trainer::TrainError;

/// What comes before the id of an environment of Gymnasium's own.
const GYMNASIUM: &str = "gym:";

/// The id without what says where it lives: what is known of an environment holds wherever it runs.
pub fn id(env: &str) -> &str {
    env.strip_prefix(GYMNASIUM).unwrap_or(env)
}

/// An environment to evaluate in.
pub fn environment(env: &str) -> Result<Box<dyn Environment>, EnvError> {
    match env.strip_prefix(GYMNASIUM) {
        None => oto_env::make(env),
        Some(id) => gymnasium(id, false),
    }
}

/// A student's world: one environment to learn in, one to be evaluated in.
pub fn world(env: &str) -> Result<World, TrainError> {
    match env.strip_prefix(GYMNASIUM) {
        None => World::built_in(env),
        Some(id) => Ok(World::Inside { train: gymnasium(id, true)?, evaluate: gymnasium(id, false)? }),
    }
}

/// The default student for an environment. One of Gymnasium's is asked what it is.
pub fn student(env: &str) -> Result<StudentConfig, EnvError> {
    match env.strip_prefix(GYMNASIUM) {
        None => Ok(presets::student(env)),
        Some(id) => gymnasium_student(id),
    }
}

#[cfg(feature = "native")]
fn gymnasium(id: &str, training: bool) -> Result<Box<dyn Environment>, EnvError> {
    Ok(Box::new(bridged(id, training)?))
}

#[cfg(feature = "native")]
fn bridged(id: &str, training: bool) -> Result<oto_bridge::Gymnasium, EnvError> {
    let options = oto_bridge::Options { training, ..oto_bridge::Options::default() };
    oto_bridge::Gymnasium::make(id, &options).map_err(|e| EnvError::External(e.to_string()))
}

#[cfg(feature = "native")]
fn gymnasium_student(id: &str) -> Result<StudentConfig, EnvError> {
    let world = bridged(id, true)?;
    Ok(match (world.action_space(), world.shape()) {
        (oto_env::Space::Box { .. }, _) => presets::continuous(),
        (_, &[channels, height, width]) if world.bytes() => {
            let config = presets::pixels([channels, height, width]);
            // Images that are too small for the field's network are rows of numbers.
            if config.validate().is_ok() { config } else { presets::student(id) }
        }
        _ => presets::student(id),
    })
}

#[cfg(not(feature = "native"))]
fn gymnasium(id: &str, _training: bool) -> Result<Box<dyn Environment>, EnvError> {
    Err(EnvError::External(format!("{GYMNASIUM}{id}: a component has no Python; use the native program")))
}

#[cfg(not(feature = "native"))]
fn gymnasium_student(id: &str) -> Result<StudentConfig, EnvError> {
    gymnasium(id, true).map(|_| StudentConfig::default())
}

//! Worlds by the names users give them: built-in ones by their ids, `gym:ID` for what Gymnasium has in Python, `mujoco:ID` for the
//! same bodies without Python, on MuJoCo's own library.

use oto_env::{EnvError, Environment};
#[cfg(feature = "native")]
use oto_rl::convolution::Convolution;
use oto_student::config::StudentConfig;
use oto_student::presets;
use oto_student::student::World;
use oto_student::trainer::TrainError;

/// Where an environment lives.
enum Place<'e> {
    BuiltIn(&'e str),
    Gymnasium(&'e str),
    Mujoco(&'e str),
}

fn place(env: &str) -> Place<'_> {
    match env.split_once(':') {
        Some(("gym", id)) => Place::Gymnasium(id),
        Some(("mujoco", id)) => Place::Mujoco(id),
        _ => Place::BuiltIn(env),
    }
}

/// The id without what says where it lives: what is known of an environment holds wherever it runs.
pub fn id(env: &str) -> &str {
    match place(env) {
        Place::BuiltIn(id) | Place::Gymnasium(id) | Place::Mujoco(id) => id,
    }
}

/// An environment to evaluate in.
pub fn environment(env: &str) -> Result<Box<dyn Environment>, EnvError> {
    make(env, false)
}

/// A student's world: one environment to learn in, one to be evaluated in.
pub fn world(env: &str) -> Result<World, TrainError> {
    Ok(World::Inside { train: make(env, true)?, evaluate: make(env, false)? })
}

/// The shape `[images, height, width]` of what an environment shows, where that is images of bytes which the field's network can
/// see. One of Gymnasium's is asked.
pub fn images(env: &str) -> Result<Option<[usize; 3]>, EnvError> {
    match place(env) {
        Place::Gymnasium(id) => gymnasium_images(id),
        Place::BuiltIn(_) | Place::Mujoco(_) => Ok(None),
    }
}

/// The default student for an environment. One of Gymnasium's is asked what it is.
pub fn student(env: &str) -> Result<StudentConfig, EnvError> {
    match place(env) {
        Place::BuiltIn(id) => Ok(presets::student(id)),
        Place::Gymnasium(id) => gymnasium_student(id),
        Place::Mujoco(_) => Ok(presets::continuous()),
    }
}

fn make(env: &str, training: bool) -> Result<Box<dyn Environment>, EnvError> {
    match place(env) {
        Place::BuiltIn(id) => oto_env::make(id),
        Place::Gymnasium(id) => gymnasium(id, training),
        Place::Mujoco(id) => mujoco(id),
    }
}

#[cfg(feature = "mujoco")]
fn mujoco(id: &str) -> Result<Box<dyn Environment>, EnvError> {
    let python = oto_bridge::Options::default().python;
    let files = oto_mujoco::Files::find(&python).map_err(|e| EnvError::External(e.to_string()))?;
    oto_mujoco::make(id, &files)
}

#[cfg(not(feature = "mujoco"))]
fn mujoco(id: &str) -> Result<Box<dyn Environment>, EnvError> {
    Err(EnvError::External(format!(
        "mujoco:{id}: this program was built without its feature \"mujoco\"; gym:{id} runs in Python"
    )))
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
    Ok(match (world.action_space(), images_of(&world)) {
        (oto_env::Space::Box { .. }, _) => presets::continuous(),
        (_, Some(shape)) => presets::pixels(shape),
        _ => presets::student(id),
    })
}

#[cfg(feature = "native")]
fn gymnasium_images(id: &str) -> Result<Option<[usize; 3]>, EnvError> {
    Ok(images_of(&bridged(id, false)?))
}

#[cfg(feature = "native")]
fn images_of(world: &oto_bridge::Gymnasium) -> Option<[usize; 3]> {
    let &[images, height, width] = world.shape() else { return None };
    let shape = [images, height, width];
    // Images that are too small for the field's network are rows of numbers.
    (world.bytes() && Convolution::atari(shape).check().is_ok()).then_some(shape)
}

#[cfg(not(feature = "native"))]
fn gymnasium(id: &str, _training: bool) -> Result<Box<dyn Environment>, EnvError> {
    Err(EnvError::External(format!("gym:{id}: a component has no Python; use the native program")))
}

#[cfg(not(feature = "native"))]
fn gymnasium_images(id: &str) -> Result<Option<[usize; 3]>, EnvError> {
    gymnasium(id, false).map(|_| None)
}

#[cfg(not(feature = "native"))]
fn gymnasium_student(id: &str) -> Result<StudentConfig, EnvError> {
    gymnasium(id, true).map(|_| StudentConfig::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_where_an_environment_lives() {
        assert_eq!(
            ["gym:ALE/Pong-v5", "mujoco:Hopper-v5", "CartPole-v1"].map(id),
            ["ALE/Pong-v5", "Hopper-v5", "CartPole-v1"]
        );
        assert_eq!(environment("CartPole-v1").unwrap().id(), "CartPole-v1");
        let unknown = environment("jim:CartPole-v1").err().unwrap();
        assert!(matches!(unknown, EnvError::UnknownId { .. }), "{unknown}");
    }
}

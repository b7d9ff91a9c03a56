//! Environments by name: built-in ones by their ids, `gym:ID` for Gymnasium's in Python, `mujoco:ID` for the same bodies without
//! Python, on MuJoCo's own library.

use crate::config::StudentConfig;
use crate::presets::Seen;
use crate::student::Environments;
use crate::trainer::TrainError;
use oto_env::{EnvError, Environment};
#[cfg(feature = "gymnasium")]
use oto_rl::algorithms;
use oto_rl::convolution::Convolution;

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

/// A student's environment, and another one for evaluations where they need it.
pub fn of_student(env: &str, student: &StudentConfig) -> Result<Environments, TrainError> {
    let another = student.evaluation.every > 0 && !student.evaluate_between_episodes;
    let train = make(env, true)?;
    Ok(Environments::Inside { train, evaluate: another.then(|| make(env, false)).transpose()? })
}

/// The shape `[images, height, width]` of what an environment shows, where that is images of bytes which the field's network can
/// see. One of Gymnasium's is asked.
pub fn images(env: &str) -> Result<Option<[usize; 3]>, EnvError> {
    match place(env) {
        Place::Gymnasium(id) => gymnasium_images(id),
        Place::BuiltIn(id) => Ok(oto_env::images(id)),
        Place::Mujoco(_) => Ok(None),
    }
}

/// What a dataset keeps of an environment of Gymnasium's: what makes it again, and the number of its first discrete action.
pub fn specification(env: &str, training: bool) -> Result<(Option<String>, i64), EnvError> {
    match place(env) {
        Place::Gymnasium(id) => gymnasium_specification(id, training),
        Place::BuiltIn(_) | Place::Mujoco(_) => Ok((None, 0)),
    }
}

/// An environment's spaces of observations and actions before they are flattened, where they may have several parts. One of
/// Gymnasium's environments is asked.
pub fn parts(env: &str) -> Result<Option<[oto_env::SpaceTree; 2]>, EnvError> {
    match place(env) {
        Place::Gymnasium(id) => gymnasium_parts(id).map(Some),
        Place::BuiltIn(_) | Place::Mujoco(_) => Ok(None),
    }
}

/// Refuses an algorithm that would take an environment's pixels for a row of numbers. `training` as its process is wanted next.
pub fn check_pixels(
    env: &str,
    convolution: Option<&Convolution>,
    algorithm: &str,
    training: bool,
) -> Result<(), EnvError> {
    match place(env) {
        Place::Gymnasium(id) => gymnasium_pixels(id, convolution, algorithm, training),
        Place::BuiltIn(id) => built_in_pixels(id, convolution, algorithm),
        Place::Mujoco(_) => Ok(()),
    }
}

/// What default settings depend on. One of Gymnasium's environments is asked.
pub fn seen(env: &str) -> Result<Seen, EnvError> {
    match place(env) {
        Place::BuiltIn(id) => {
            Ok(Seen { images: oto_env::images(id), ..Seen::actions(oto_env::make(id)?.action_space()) })
        }
        Place::Gymnasium(id) => gymnasium_seen(id),
        Place::Mujoco(_) => Ok(Seen { continuous: true, images: None }),
    }
}

/// Refuses a network that cannot see the images of a built-in environment, or sees images where there are none.
fn built_in_pixels(id: &str, convolution: Option<&Convolution>, algorithm: &str) -> Result<(), EnvError> {
    let said = match (oto_env::images(id), convolution) {
        (Some(shape), Some(convolution)) if convolution.shape != shape => format!(
            "its images are {shape:?} (channels, height, width), the convolution sees {:?}",
            convolution.shape
        ),
        (Some(_), None) => {
            format!(
                "its observations are images; without a convolution {algorithm} takes rows of numbers: leave out images=true"
            )
        }
        (None, Some(_)) if id.starts_with("MinAtar/") => {
            "its observations are no images; the option images=true makes them images for a convolution"
                .into()
        }
        _ => return Ok(()),
    };
    Err(EnvError::External(format!("{id}: {said}")))
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
    let python = oto_env::gymnasium::Options::default().python;
    let files = oto_env::mujoco::Files::find(&python).map_err(|e| EnvError::External(e.to_string()))?;
    oto_env::mujoco::make(id, &files)
}

#[cfg(not(feature = "mujoco"))]
fn mujoco(id: &str) -> Result<Box<dyn Environment>, EnvError> {
    Err(EnvError::External(format!(
        "mujoco:{id}: this program was built without its feature \"mujoco\"; gym:{id} runs in Python"
    )))
}

#[cfg(feature = "gymnasium")]
fn gymnasium(id: &str, training: bool) -> Result<Box<dyn Environment>, EnvError> {
    Ok(Box::new(bridged(id, training)?))
}

/// A process that was asked what its environment is and has not played: its id, and whether it is for training. Some environments
/// take a minute to start, and of some there can be only one.
#[cfg(feature = "gymnasium")]
static ASKED: std::sync::Mutex<Option<(String, bool, oto_env::gymnasium::Gymnasium)>> =
    std::sync::Mutex::new(None);

#[cfg(feature = "gymnasium")]
fn bridged(id: &str, training: bool) -> Result<oto_env::gymnasium::Gymnasium, EnvError> {
    let asked = ASKED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some((of, for_training, env)) = asked
        && of == id
        && for_training == training
    {
        return Ok(env);
    }
    let options = oto_env::gymnasium::Options { training, ..oto_env::gymnasium::Options::default() };
    oto_env::gymnasium::Gymnasium::make(id, &options)
        .map_err(|e| EnvError::External(format!("gym:{id}: {e}")))
}

/// Asks an environment something; its process is kept for the next who makes the same one.
#[cfg(feature = "gymnasium")]
fn ask<T>(
    id: &str,
    training: bool,
    ask: impl FnOnce(&oto_env::gymnasium::Gymnasium) -> T,
) -> Result<T, EnvError> {
    let env = bridged(id, training)?;
    let answer = ask(&env);
    let asked = Some((id.into(), training, env));
    *ASKED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = asked;
    Ok(answer)
}

#[cfg(feature = "gymnasium")]
fn gymnasium_seen(id: &str) -> Result<Seen, EnvError> {
    ask(id, true, |env| Seen { images: images_of(env), ..Seen::actions(env.action_space()) })
}

#[cfg(feature = "gymnasium")]
fn gymnasium_images(id: &str) -> Result<Option<[usize; 3]>, EnvError> {
    ask(id, false, images_of)
}

#[cfg(feature = "gymnasium")]
fn gymnasium_parts(id: &str) -> Result<[oto_env::SpaceTree; 2], EnvError> {
    ask(id, false, |env| [env.observation_tree().clone(), env.action_tree().clone()])
}

#[cfg(feature = "gymnasium")]
fn gymnasium_specification(id: &str, training: bool) -> Result<(Option<String>, i64), EnvError> {
    ask(id, training, |env| {
        let start = match env.action_tree() {
            oto_env::SpaceTree::Discrete { start, .. } => *start,
            _ => 0,
        };
        (env.spec().map(Into::into), start)
    })
}

#[cfg(feature = "gymnasium")]
fn gymnasium_pixels(
    id: &str,
    convolution: Option<&Convolution>,
    algorithm: &str,
    training: bool,
) -> Result<(), EnvError> {
    let (pixels, shape, tree) =
        ask(id, training, |env| (env.pixels(), env.shape().to_vec(), env.observation_tree().clone()))?;
    let said = match (pixels, convolution) {
        (Some(pixels), _) => pixels_for(pixels, &shape, convolution, algorithm),
        (None, Some(_)) => sees_one_image(&tree),
        (None, None) => Ok(()),
    };
    said.map_err(|sentence| EnvError::External(format!("gym:{id}: {sentence}")))
}

/// Why a convolution does not see these observations, of which no bytes are an image.
#[cfg(feature = "gymnasium")]
fn sees_one_image(tree: &oto_env::SpaceTree) -> Result<(), String> {
    match tree {
        oto_env::SpaceTree::Box { .. } => Ok(()),
        _ => Err("its observations are no box but a space of choices or of several parts, a row of numbers; \
                  algorithm.convolution sees one image of bytes. Leave it out, or offer the image alone with a wrapper"
            .into()),
    }
}

/// The algorithms that have a network for images.
#[cfg(feature = "gymnasium")]
fn seeing() -> String {
    let told = |one: &'static dyn algorithms::Algorithm| match one.actions() {
        [algorithms::ActionKind::Discrete] => format!("{} (discrete actions)", one.name()),
        _ => one.name().into(),
    };
    let names = algorithms::online().filter(|one| one.images()).map(told).collect::<Vec<String>>();
    names.join(" or ")
}

/// Why an algorithm does not see these pixels as it should.
#[cfg(feature = "gymnasium")]
fn pixels_for(
    pixels: oto_env::gymnasium::Pixels,
    shape: &[usize],
    convolution: Option<&Convolution>,
    algorithm: &str,
) -> Result<(), String> {
    use oto_env::gymnasium::Pixels;
    match (pixels, convolution) {
        (Pixels::Byte, Some(convolution)) if convolution.shape[..] == *shape => Ok(()),
        (Pixels::Byte, Some(convolution)) => Err(format!(
            "its images are {shape:?} (channels, height, width), the convolution sees {:?}",
            convolution.shape
        )),
        (Pixels::Byte, None) => Err(format!(
            "its observations are bytes from 0 to 255, of the shape {shape:?}; {algorithm} takes rows of numbers of about 1 here. \
             Images of 3 by 3 pixels and more are seen by --algorithm {}; otherwise a wrapper has to \
             scale them, such as FlattenObservation(RescaleObservation(DtypeObservation(env, numpy.float32), 0, 1)) of gymnasium.wrappers",
            seeing()
        )),
        (Pixels::Float, _) => Err(format!(
            "its observations are numbers from 0 to 255, of the shape {shape:?}, but no bytes: declare the space as uint8, or scale \
             them with a wrapper, such as FlattenObservation(RescaleObservation(env, 0, 1)) of gymnasium.wrappers"
        )),
        (Pixels::Unit, Some(_)) => {
            Err("its images are numbers from 0 to 1, the convolution sees bytes".into())
        }
        // Too small for a convolution: numbers from 0 to 1 are what a network of fully connected layers takes.
        (Pixels::Unit, None) if shape.len() == 3 && shape[1..].iter().any(|side| *side < 3) => Ok(()),
        (Pixels::Unit, None) => Err(format!(
            "its observations are images of numbers from 0 to 1, of the shape {shape:?}; {algorithm} has no convolution for them. \
             Declare the space as uint8 from 0 to 255 for --algorithm {}, or take each image as a row of numbers with \
             gymnasium.wrappers.FlattenObservation(env)",
            seeing()
        )),
    }
}

#[cfg(feature = "gymnasium")]
fn images_of(environment: &oto_env::gymnasium::Gymnasium) -> Option<[usize; 3]> {
    let &[images, height, width] = environment.shape() else { return None };
    let shape = [images, height, width];
    let bytes = environment.pixels() == Some(oto_env::gymnasium::Pixels::Byte);
    (bytes && Convolution::usual(shape).is_some()).then_some(shape)
}

#[cfg(not(feature = "gymnasium"))]
fn gymnasium(id: &str, _training: bool) -> Result<Box<dyn Environment>, EnvError> {
    Err(EnvError::External(format!("gym:{id}: a component has no Python; use the native program")))
}

#[cfg(not(feature = "gymnasium"))]
fn gymnasium_pixels(
    id: &str,
    _convolution: Option<&Convolution>,
    _algorithm: &str,
    training: bool,
) -> Result<(), EnvError> {
    gymnasium(id, training).map(drop)
}

#[cfg(not(feature = "gymnasium"))]
fn gymnasium_specification(id: &str, training: bool) -> Result<(Option<String>, i64), EnvError> {
    gymnasium(id, training).map(|_| (None, 0))
}

#[cfg(not(feature = "gymnasium"))]
fn gymnasium_parts(id: &str) -> Result<[oto_env::SpaceTree; 2], EnvError> {
    gymnasium(id, false).map(|environment| {
        let spaces = [environment.observation_space(), environment.action_space()];
        spaces.map(|space| oto_env::SpaceTree::from(space.clone()))
    })
}

#[cfg(not(feature = "gymnasium"))]
fn gymnasium_images(id: &str) -> Result<Option<[usize; 3]>, EnvError> {
    gymnasium(id, false).map(|_| None)
}

#[cfg(not(feature = "gymnasium"))]
fn gymnasium_seen(id: &str) -> Result<Seen, EnvError> {
    gymnasium(id, true).map(|_| Seen::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "gymnasium")]
    fn pixels_are_seen_as_images_or_refused() {
        use oto_env::gymnasium::Pixels::{Byte, Float, Unit};
        let sees = |shape| Convolution::usual(shape).unwrap().0;
        let (first, last) = (sees([3, 84, 84]), sees([84, 84, 3]));
        let said = |pixels, convolution| pixels_for(pixels, &[3, 84, 84], convolution, "ppo");
        assert_eq!(said(Byte, Some(&first)), Ok(()));
        assert_eq!(pixels_for(Unit, &[3, 2, 84], None, "ppo"), Ok(()));
        assert!(said(Unit, None).unwrap_err().contains("FlattenObservation"));
        let other = said(Byte, Some(&last)).unwrap_err();
        assert!(other.contains("[3, 84, 84]") && other.contains("[84, 84, 3]"), "{other}");
        let rows = said(Byte, None).unwrap_err();
        assert!(rows.contains("ppo takes rows of numbers of about 1"), "{rows}");
        let algorithms = "--algorithm qrdqn (discrete actions) or sac or ppo or a3c (discrete actions);";
        assert!(rows.contains(algorithms), "{rows}");
        assert!(said(Float, None).unwrap_err().contains("declare the space as uint8"));
        assert!(said(Float, Some(&first)).is_err() && said(Unit, Some(&first)).is_err());
        let image = oto_env::SpaceTree::Box { low: vec![0.0; 9], high: vec![1.0; 9] };
        assert_eq!(sees_one_image(&image), Ok(()));
        let beside = oto_env::SpaceTree::Dict(vec![("image".into(), image)]);
        assert!(sees_one_image(&beside).unwrap_err().contains("several parts"));
    }

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

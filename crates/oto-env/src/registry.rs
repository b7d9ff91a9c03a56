//! The built-in environments by id.

use crate::acrobot::Acrobot;
use crate::cartpole::CartPole;
use crate::classic::{Classic, ClassicEnvironment};
use crate::inverted_pendulum::InvertedPendulum;
#[cfg(feature = "minatar")]
use crate::minatar::{self, MinAtar};
use crate::mobile_cell::{self, FifthGeneration, Lte};
use crate::mountain_car::MountainCar;
use crate::mountain_car_continuous::MountainCarContinuous;
use crate::pendulum::Pendulum;
use crate::swing_up::{self, SwingUp};
use crate::{EnvError, Environment};

/// The ids that [`make_classic`] knows. [`make`] knows these and, with the feature `minatar`, MinAtar's games.
pub const IDS: &[&str] = &[
    "CartPole-v0",
    "CartPole-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Acrobot-v1",
    "Pendulum-v1",
    "InvertedPendulum-v5",
    mobile_cell::LTE.id,
    mobile_cell::NR.id,
    swing_up::SIMULATION_ID,
    swing_up::PLANT_ID,
];

/// The ID without its options: `CartPoleSwingUp-v0` of `CartPoleSwingUp-v0?k_f=5`.
pub fn base_id(id: &str) -> &str {
    id.split_once('?').map_or(id, |(base, _)| base)
}

/// A built-in environment, not yet reset.
///
/// # Errors
/// [`EnvError::UnknownId`], which lists the known ids; [`EnvError::Option`] for a wrong option behind the ID.
pub fn make(id: &str) -> Result<Box<dyn Environment>, EnvError> {
    #[cfg(feature = "minatar")]
    if minatar::IDS.contains(&base_id(id)) {
        return Ok(Box::new(MinAtar::new(id)?));
    }
    Ok(make_classic(id)?)
}

/// The shape `[channels, height, width]` of what a built-in environment shows, where that is images for a convolution.
#[cfg(feature = "minatar")]
pub fn images(id: &str) -> Option<[usize; 3]> {
    MinAtar::new(id).ok()?.images()
}

/// No other built-in environment shows images.
#[cfg(not(feature = "minatar"))]
pub fn images(_: &str) -> Option<[usize; 3]> {
    None
}

/// A built-in environment whose state can be read and set, not yet reset.
///
/// # Errors
/// [`EnvError::UnknownId`], which lists the known ids; [`EnvError::Option`] for a wrong option behind the ID.
pub fn make_classic(id: &str) -> Result<Box<dyn ClassicEnvironment>, EnvError> {
    Ok(match id {
        "CartPole-v0" => Box::new(Classic::<CartPole, 4>::new("CartPole-v0", 200)),
        "CartPole-v1" => Box::new(Classic::<CartPole, 4>::new("CartPole-v1", 500)),
        "MountainCar-v0" => Box::new(Classic::<MountainCar, 2>::new("MountainCar-v0", 200)),
        "MountainCarContinuous-v0" => {
            Box::new(Classic::<MountainCarContinuous, 2>::new("MountainCarContinuous-v0", 999))
        }
        "Acrobot-v1" => Box::new(Classic::<Acrobot, 4>::new("Acrobot-v1", 500)),
        "Pendulum-v1" => Box::new(Classic::<Pendulum, 2>::new("Pendulum-v1", 200)),
        "InvertedPendulum-v5" => Box::new(Classic::<InvertedPendulum, 4>::new("InvertedPendulum-v5", 1000)),
        _ if id == mobile_cell::LTE.id => mobile_cell::make::<Lte>(),
        _ if id == mobile_cell::NR.id => mobile_cell::make::<FifthGeneration>(),
        _ if [swing_up::SIMULATION_ID, swing_up::PLANT_ID].contains(&base_id(id)) => {
            Box::new(SwingUp::new(id)?)
        }
        _ => return Err(unknown(id)),
    })
}

/// The refusal of an ID.
pub(crate) fn unknown(id: &str) -> EnvError {
    let known = IDS.join(", ");
    #[cfg(feature = "minatar")]
    let known = [known.as_str(), &minatar::IDS.join(", ")].join(", ");
    EnvError::UnknownId { id: id.chars().take(64).collect(), known }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_makes_an_environment_of_that_id_with_valid_spaces() {
        #[cfg(feature = "minatar")]
        let games = minatar::IDS;
        #[cfg(not(feature = "minatar"))]
        let games: &[&str] = &[];
        for &id in IDS.iter().chain(games) {
            let environment = make(id).unwrap();
            assert_eq!(environment.id(), id);
            environment.observation_space().validate().unwrap();
            environment.action_space().validate().unwrap();
        }
    }

    #[test]
    fn an_unknown_id_is_refused_with_the_known_ones() {
        let error = make("CartPole-v2").err().unwrap().to_string();
        assert!(error.contains("\"CartPole-v2\"") && IDS.iter().all(|id| error.contains(id)), "{error}");
    }
}

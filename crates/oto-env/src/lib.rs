//! Environments and spaces: deterministic, pure, no input or output but in two modules that are cargo features, `gymnasium` and `mujoco`.
//!
//! [`Environment`] is the seam every environment stands behind: the built-in ones that [`make`] gives by id, and those a
//! host brings (a JavaScript object, a WIT import). The built-in ones follow Gymnasium 1.4, and [`mobile_cell`] mobile-env
//! 2.1, to the last rule: same spaces, same initial states for a seed, same dynamics, termination and time limits.
#![cfg_attr(not(feature = "mujoco"), forbid(unsafe_code))]

mod acrobot;
mod cartpole;
mod classic;
mod environment;
mod error;
#[cfg(feature = "gymnasium")]
pub mod gymnasium;
mod inverted_pendulum;
#[cfg(feature = "minatar")]
pub mod minatar;
pub mod mobile_cell;
mod mountain_car;
mod mountain_car_continuous;
#[cfg(feature = "mujoco")]
pub mod mujoco;
mod pendulum;
mod registry;
pub mod rng;
mod space;
pub mod swing_up;
mod tree;
mod vector;

pub use classic::ClassicEnvironment;
pub use environment::{Action, Environment, Phase, Snapshot, Step, small_seed};
pub use error::EnvError;
pub use registry::{IDS, base_id, images, make, make_classic};
pub use space::{MAX_ACTIONS, MAX_WIDTH, Space, SpaceError, within};
pub use tree::{ElementError, MAX_COMBINATIONS, MAX_DEPTH, MAX_PARTS, SpaceTree};
pub use vector::{Actions, VectorEnv};

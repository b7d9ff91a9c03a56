//! The integration tests of this crate, one program: it links once.

mod fixtures;
#[cfg(feature = "gymnasium")]
mod gymnasium;
#[cfg(feature = "gymnasium")]
mod gymnasium_hostile;
#[cfg(feature = "gymnasium")]
mod gymnasium_peculiar;
#[cfg(feature = "minatar")]
mod minatar;
mod mobile_cell;
#[cfg(feature = "mujoco")]
mod mujoco;
mod properties;
mod swing_up;
mod tree;

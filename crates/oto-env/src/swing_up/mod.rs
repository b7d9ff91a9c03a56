//! CartPoleSwingUp-v0 and CartPoleSwingUpPlant-v0: swing a pole up by moving its cart, and hold it.
//!
//! The task of "Cloud-Edge Training Architecture for Sim-to-Real Deep Reinforcement Learning" (Cao et al. 2022, section IV): a linear
//! inverted pendulum (Quanser IP02), driven by a motor's voltage at 30 Hz. The first ID is the simulation, with a friction factor. The
//! second is a plant: the same pendulum as a laboratory would have it, which no friction factor gives.
//!
//! Observation, ten numbers: cart position (m), its velocity, sine and cosine of the pole's angle (0 upright, positive leans towards +x),
//! its velocity (rad/s), the last five actions, oldest first. Action: the share of the largest voltage, from -1 to 1, clipped.
//! Options follow the ID: `CartPoleSwingUp-v0?k_f=5&voltage_max=12`; [`options`] lists them.

mod config;
mod environment;
mod options;
mod plant;
mod rule;

pub use config::{Actuation, Config, ConfigError, Integrator};
pub use environment::SwingUp;
pub use options::{OPTIONS, Options, options};
pub use plant::{Faults, PLANT, Plant};

/// The simulation's ID.
pub const SIMULATION_ID: &str = "CartPoleSwingUp-v0";
/// The plant's ID.
pub const PLANT_ID: &str = "CartPoleSwingUpPlant-v0";

/// Consecutive steps on target that end a training episode: more of them are alike.
pub const TRAINING_STEPS_ON_TARGET: f64 = 100.0;
/// Consecutive steps on target at the end of a successful evaluation episode (the paper's T_g).
pub const SUCCESS_STEPS_ON_TARGET: f64 = 750.0;

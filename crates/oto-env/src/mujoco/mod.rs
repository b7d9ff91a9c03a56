//! HalfCheetah-v5, Hopper-v5, Walker2d-v5 and InvertedPendulum-v5 by Gymnasium's rules, on MuJoCo's own C library: what the bridge
//! to Python gives, without Python between the steps, and with states that can be saved.
//!
//! The library is loaded at run time, and nothing of MuJoCo or Gymnasium is part of oto: the models are read from where Gymnasium is
//! installed (MIT licence), or from a folder that holds them.

mod environment;
mod library;

pub use environment::{IDS, make};
pub use library::{Files, MujocoError};

//! Where new versions come from: a folder, another server, a policy that learns here.

pub mod agent;
pub mod folder;
#[cfg(feature = "follow")]
pub mod follow;
pub mod saved_state;

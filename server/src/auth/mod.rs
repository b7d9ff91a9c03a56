//! Access to the server, and each user's part of shared limits.

pub mod access;
pub mod audit;
pub(crate) mod budget;
pub(crate) mod digest;
pub mod hosts;
pub mod reload;

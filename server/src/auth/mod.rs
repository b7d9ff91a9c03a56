//! Who may use the server, and how much of what all share.

pub mod access;
pub mod audit;
pub(crate) mod budget;
pub(crate) mod digest;
pub mod hosts;
pub mod reload;

//! Environments beyond the built-in ones: a Gymnasium environment in a Python process, behind [`crate::Environment`].
//!
//! The Python program is part of this crate, and what is said over its pipes is in PROTOCOL.md. Nothing that the process does
//! crashes or hangs the caller.

mod conversation;
mod environment;
mod lines;

pub use conversation::{BridgeError, Limits, Tell};
pub use environment::{Gymnasium, Options, Pixels, use_limits, use_python};

#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) -> bool {
    environment::fuzz(bytes)
}

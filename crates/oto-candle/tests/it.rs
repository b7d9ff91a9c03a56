//! The integration tests of this crate, one program: it links once.

mod backends;
mod gradients;
mod learners;

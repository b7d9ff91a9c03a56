//! The integration tests of this crate, one program: it links once.

mod allocations;
mod engine;
mod importance;
mod samplers;

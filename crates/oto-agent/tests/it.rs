//! The integration tests of this crate, one program: it links once.

mod actor_link;
#[cfg(feature = "adapter")]
mod adapter;
#[path = "../../oto-rl/tests/allocations.rs"]
mod allocations;
mod checkpoints;
mod continued;
mod interleavings;
mod offline;
mod on_policy;
mod page_types;
mod pixels;
mod run;
mod teachers;
mod weights;

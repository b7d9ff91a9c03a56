//! Replay: the buffer of transitions, batches in the layout of programs, and the samplers that choose a batch's transitions.
//!
//! A sampler is a file here and a line in [`ReplayConfig::sampler`]. A program asks for columns by the names of its data inputs
//! ([`Columns`]), so that a buffer stores only what is read.

#[cfg(feature = "every-algorithm")]
mod balanced;
mod batch;
mod buffer;
mod columns;
mod combined;
#[cfg(feature = "every-algorithm")]
mod forgetting;
mod prioritised;
mod sampler;
mod shares;
mod sum_tree;
mod uniform;
#[cfg(feature = "every-algorithm")]
mod whole;

#[cfg(feature = "every-algorithm")]
pub use balanced::Balanced;
pub use batch::{Batch, Distilled};
pub use buffer::{Replay, ReplayArrays, ReplayCounters, SlotId, Stored};
pub use columns::Columns;
pub use combined::Combined;
#[cfg(feature = "every-algorithm")]
pub use forgetting::Forgetting;
pub use prioritised::Prioritised;
pub use sampler::{ReplayConfig, Request, Sampler, SamplerName};
pub use shares::Shares;
pub use sum_tree::SumTree;
pub use uniform::Uniform;
#[cfg(feature = "every-algorithm")]
pub use whole::Whole;

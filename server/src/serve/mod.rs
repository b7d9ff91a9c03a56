//! The policies, and everything that answers for them: students' conversations, plain requests, KServe's protocol, the operator's interface.

pub mod admin;
pub(crate) mod admission;
pub(crate) mod aside;
pub(crate) mod batcher;
pub mod candidate;
pub(crate) mod config;
pub(crate) mod edge;
pub(crate) mod error;
pub(crate) mod http;
pub mod kserve;
pub(crate) mod learners;
pub(crate) mod policies;
pub(crate) mod queue;
pub(crate) mod random;
pub(crate) mod respond;
pub(crate) mod rows;
pub mod shadow;
pub(crate) mod shares;
pub(crate) mod silence;
pub mod simulation;
pub(crate) mod status_watch;
pub(crate) mod submit;
pub(crate) mod teach;
pub(crate) mod version;
pub(crate) mod worker;

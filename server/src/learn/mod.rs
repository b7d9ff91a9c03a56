//! Where new versions come from: a folder, another server, a policy that learns here. Learners that train from the rows of edges.

pub mod agent;
pub mod folder;
#[cfg(feature = "follow")]
pub mod follow;
pub mod learner;
pub(crate) mod row_log;
pub mod saved_state;

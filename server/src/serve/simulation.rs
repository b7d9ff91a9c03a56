//! What a simulated server needs beside a network that is simulated: everything it does happens on one thread, in simulated
//! time, and in the same way again with the same seed.
//!
//! - [`Policies::in_tasks`](crate::Policies::in_tasks) and [`Collecting::in_tasks`](crate::Collecting::in_tasks) answer and
//!   write in tasks of the runtime they are made in, where a real server has threads;
//! - [`seed`] makes what is spread out by chance repeat.
//!
//! All waiting in the server is tokio's, so its clock may be paused.

use std::sync::Arc;
use std::time::Duration;

pub use crate::serve::random::seed;

/// How long the next piece of work takes, each time it is asked.
pub type Pace = Arc<dyn Fn() -> Duration + Send + Sync>;

//! Load on a teacher server: many simulated students on one thread, and how long they wait.
//!
//! The load is open: each student asks at times that are fixed beforehand, whatever the answers do, and a latency counts
//! from the time at which its request was to be sent. A server that stalls is charged for all requests that should have
//! come meanwhile, not only for the few that a waiting client would have sent ("coordinated omission").
//!
//! - [`plan`]: how many students ask how often about how much;
//! - [`publish`]: an operator who publishes meanwhile;
//! - [`student`]: one simulated student's socket; [`tls`]: what it stands on;
//! - [`run`]: the loop that sends and receives for all of them;
//! - [`echo`]: a server that only sends back what comes: the machine's ceiling, under the same load;
//! - [`ceiling`]: a policy called in a loop: the other one;
//! - [`process`]: what another process has used of memory and processor;
//! - [`report`]: the numbers, as a table and as JSON.
//!
//! Linux only: thousands of sockets and times shorter than a millisecond need its `epoll` and its `ppoll`.

pub mod ceiling;
pub mod echo;
pub mod plan;
pub mod process;
pub mod publish;
pub mod report;
pub mod run;
pub mod student;
pub mod tls;

pub use plan::{Pace, Plan};
pub use publish::Publish;
pub use report::{Measurement, Report};
pub use run::measure;

use std::net::SocketAddr;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The address is none of a server.
    #[error("{0:?} is no address of a server: expected ws://host:port, wss://host:port or host:port")]
    Address(String),
    /// No answer, or none that HTTP has.
    #[error("cannot ask the server for its policies: {0}")]
    Http(#[from] ureq::Error),
    /// TLS cannot be spoken so.
    #[error("cannot speak TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The server has no such policy.
    #[error("the server has no policy {name:?}; it has {found:?}")]
    NoPolicy {
        /// The policy.
        name: String,
        /// Those it has.
        found: Vec<String>,
    },
    /// A student could not connect.
    #[error("student {number} of {students} could not connect to {address}: {reason}")]
    Connect {
        /// Which one.
        number: usize,
        /// How many there were to be.
        students: usize,
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The plan cannot be carried out.
    #[error("{0}")]
    Plan(String),
    /// The process that was to be watched.
    #[error("cannot look at process {pid}: {source}")]
    Process {
        /// Its number.
        pid: u32,
        /// Why.
        source: std::io::Error,
    },
    /// The policy that was to be called in a loop.
    #[error(transparent)]
    Policy(#[from] oto_policy::PolicyError),
    /// The operating system's doing.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

//! Why a server could not be set up, or stopped by itself.

use crate::auth::access::AccessError;

/// Why a server could not be set up, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Two policies have the same name, or one has an unusable one.
    #[error("a policy needs a name of its own, of 1 to {max} bytes, not beginning with \"scripted:\"; got {0:?}", max = oto_proto::message::MAX_NAME_BYTES)]
    Name(String),
    /// No policy of this name.
    #[error("there is no policy {0:?}")]
    UnknownPolicy(String),
    /// A new version of a policy has other spaces than the old one.
    #[error("policy {0:?}: a new version must observe and do the same as the old one")]
    Spaces(String),
    /// A new version of a policy has another state: a recurrent policy has one for each student.
    #[error(
        "policy {policy:?}: expected a version with a state of {expected} numbers (0: not recurrent), got {found}"
    )]
    State {
        /// The policy.
        policy: String,
        /// The width of its state.
        expected: usize,
        /// The width of the new version's.
        found: usize,
    },
    /// Something that a recurrent policy cannot have.
    #[error("policy {policy:?} is recurrent: {what}")]
    Recurrent {
        /// The policy.
        policy: String,
        /// What it cannot have.
        what: &'static str,
    },
    /// The thread of a policy could not be started, or is gone.
    #[error("the thread of policy {0:?} does not run")]
    Thread(String),
    /// No version came before the one that answers.
    #[error("there is no version to go back to: none came before this one")]
    NothingBefore,
    /// Nothing is tried.
    #[error("there is no canary")]
    NoCanary,
    /// A limit that lets nothing through.
    #[error("the limit of {what}: expected at least {least}, got {got}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The lowest of use.
        least: usize,
        /// The limit that was given.
        got: usize,
    },
    /// An origin that no page has.
    #[error(
        "an origin is a scheme, a host and perhaps a port, such as https://my.page, with nothing after them; got {0:?}"
    )]
    Origin(String),
    /// A name that no server has.
    #[error("a server's name is a host and perhaps a port, such as my.page or my.page:8443; got {0:?}")]
    HostName(String),
    /// The description of who may use the server cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The listener gives no connections any more.
    #[error("cannot accept connections: {0}")]
    Accept(std::io::Error),
}

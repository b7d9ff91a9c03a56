//! The versions of a policy: what is published, what answers now, and what can be changed about it.

use crate::auth::digest::sha256;
use crate::serve::error::ServerError;
use crate::serve::rows::Rows;
use crate::serve::shadow::Comparison;
use bytes::Bytes;
use oto_policy::Policy;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// A policy to be published.
pub struct Release {
    /// The policy that answers from then on.
    pub policy: Box<dyn Policy>,
    /// The bytes it was loaded from, for peers with the grant.
    pub model: Option<Vec<u8>>,
    /// Its version shall be this one at least; it is larger than the last one's in any case.
    pub version: u32,
}

impl From<Box<dyn Policy>> for Release {
    fn from(policy: Box<dyn Policy>) -> Self {
        Release { policy, model: None, version: 0 }
    }
}

impl From<Release> for Version {
    fn from(Release { policy, model, version }: Release) -> Self {
        Version { number: version, rows: Rows::new(policy), model: model.map(Model::new) }
    }
}

/// The bytes of a policy.
#[derive(Debug)]
pub(crate) struct Model {
    /// As they were loaded.
    pub bytes: Bytes,
    /// Their SHA-256 in hexadecimal digits.
    pub sha256: String,
}

impl Model {
    fn new(bytes: Vec<u8>) -> Arc<Self> {
        let sha256 = sha256(&bytes);
        Arc::new(Model { bytes: bytes.into(), sha256 })
    }
}

/// Something that answers, as it was published.
pub(crate) struct Version {
    /// The number of its publication; before that, the least it shall have.
    pub number: u32,
    /// The policy.
    pub rows: Rows,
    /// The bytes of its file, if it has one.
    pub model: Option<Arc<Model>>,
}

/// The versions that answer a policy's students now.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    /// The version that answers all but a canary's students.
    pub version: u32,
    /// Its bytes, if it was loaded from any.
    pub model: Option<Arc<Model>>,
    /// What computes its answers.
    pub engine: String,
    /// The version on trial for a part of the students.
    pub canary: Option<Canary>,
    /// The version whose answers are compared.
    pub shadow: Option<Arc<Mutex<Comparison>>>,
    /// Why the last canary ended, if it failed.
    pub ended: Option<String>,
}

/// A version that answers a part of the students.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Canary {
    /// Its number.
    pub version: u32,
    /// How many of a hundred students it answers.
    pub percent: f32,
}

impl Status {
    /// The version that answers a student of this draw.
    pub fn version_for(&self, draw: f32) -> u32 {
        self.canary.filter(|canary| draw < canary.percent).map_or(self.version, |canary| canary.version)
    }
}

/// What is to be changed, and who wants to hear what came of it.
pub(crate) struct Change {
    pub kind: ChangeKind,
    pub done: Option<oneshot::Sender<Result<u32, ServerError>>>,
}

/// What can be changed.
pub(crate) enum ChangeKind {
    /// A new version for all but a canary's students.
    Publish(Version),
    /// The version before the last one, published anew.
    RollBack,
    /// A version for this percentage of the students, until it is promoted or ended.
    Canary(Version, f32),
    /// The canary for all.
    Promote,
    /// The end of the canary, with the reason if it failed.
    EndCanary(Option<String>),
    /// A policy whose answers are compared and not sent; none ends it.
    Shadow(Option<Rows>),
}

impl ChangeKind {
    /// A word for it in the log.
    pub fn word(&self) -> &'static str {
        match self {
            ChangeKind::Publish(_) => "publish",
            ChangeKind::RollBack => "rollback",
            ChangeKind::Canary(..) => "canary",
            ChangeKind::Promote => "promote",
            ChangeKind::EndCanary(_) => "end canary",
            ChangeKind::Shadow(Some(_)) => "shadow",
            ChangeKind::Shadow(None) => "end shadow",
        }
    }
}

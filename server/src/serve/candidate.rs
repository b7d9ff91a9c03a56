//! Policies that want to answer: they have to load, to fit in the place they are for, and to answer some observations,
//! before they do.

use crate::serve::error::ServerError;
use crate::serve::policies::Policies;
use crate::serve::rows::Rows;
use crate::serve::version::Release;
use oto_policy::{Metadata, Policy, PolicyError, TRIAL_ROWS, trial};

/// Why a candidate does not serve.
#[derive(Debug, thiserror::Error)]
pub enum CandidateError {
    /// It is no policy, or has no usable answers.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// It does not fit.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// Makes a policy of bytes, and has it answer: a model may load and still give what is no action.
pub(crate) fn load(bytes: &[u8], metadata: &Metadata) -> Result<Box<dyn Policy>, PolicyError> {
    try_out(oto_policy::load(bytes, metadata)?)
}

/// Has a policy answer, and gives it back if it does.
pub(crate) fn try_out(policy: Box<dyn Policy>) -> Result<Box<dyn Policy>, PolicyError> {
    let observations = trial(policy.observation_space());
    let mut rows = Rows::new(policy);
    rows.act(&observations, TRIAL_ROWS)?;
    Ok(rows.into_policy())
}

/// A release made of bytes that were sent for the place of policy `name`.
pub(crate) fn release(policies: &Policies, name: &str, bytes: Vec<u8>) -> Result<Release, CandidateError> {
    let policy = load(&bytes, policies.metadata(name)?)?;
    let release = Release { policy, model: Some(bytes), version: 0 };
    policies.fitting(name, &release)?;
    Ok(release)
}

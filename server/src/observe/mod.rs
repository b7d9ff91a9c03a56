//! An operator's view: metrics, spans, frequent log lines, rotated files.

pub(crate) mod metrics;
pub(crate) mod rotated;
pub(crate) mod seldom;
pub(crate) mod spans;

//! An operator's view: metrics, spans, frequent log lines, rotated files.

pub(crate) mod log_throttle;
pub(crate) mod metrics;
pub(crate) mod rotated;
pub(crate) mod spans;

//! What an operator sees: metrics, spans, log lines that may come often, files that rotate.

pub(crate) mod metrics;
pub(crate) mod rotated;
pub(crate) mod seldom;
pub(crate) mod spans;

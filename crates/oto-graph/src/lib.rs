//! Tensor programs: operations, tracing and differentiation; knows no device.

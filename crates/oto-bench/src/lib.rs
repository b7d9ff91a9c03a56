//! What "fast" is measured with: one train step as numbers that every backend and every peer can run
//! ([`workload`]), the same step written by hand as the limit ([`fused`]), matrix products alone ([`products`]), the measurement
//! ([`measure`], [`report`]), a graphics device beside the processor ([`gpu`]) and contestants in other languages ([`peer`]). With the feature `load` also load tests of a server.

pub mod fused;
pub mod gpu;
mod huber;
mod kernels;
#[cfg(all(feature = "load", target_os = "linux"))]
pub mod load;
pub mod measure;
pub mod peer;
pub mod products;
pub mod report;
mod vector;
pub mod workload;

//! candle as a backend: interprets a program node by node, in f32 or f64.
//!
//! This is the reference the compiled backends are held to, and the server's engine. Operations that oto treats as one
//! ([`oto_graph::Op::QuantileHuber`], Adam, gathers) run as one loop each, in `kernels`; all else is candle's own.

mod interpreter;
mod kernels;

pub use interpreter::{Candle, Precision, evaluate};

//! candle as a backend: interprets a program node by node, in f32 or f64.
//!
//! This is the reference that the compiled backends are compared with, and the backend of graphics cards (cargo features `cuda` and
//! `metal`). Operations that oto treats as one ([`oto_graph::Op::QuantileHuber`], Adam, gathers) run as one loop each, in `kernels`; on a card
//! they are `composed` of several. All else is candle's own.

mod composed;
mod interpreter;
mod kernels;

pub use interpreter::{Candle, Card, Precision, evaluate};

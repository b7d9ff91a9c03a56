//! A program on this processor. The plan (`oto_graph::plan`) is turned into steps over memory that exists from the start, so that a
//! step allocates nothing; kernels are plain loops that become SIMD (AVX2 or AVX-512 where the processor has it, simd128 in wasm).
//!
//! It knows the same operations as the reference (`oto-candle`) and is held to it by tests on whole train steps.

mod blocked;
mod convolution;
mod executable;
mod kernels;
mod linear;
mod lower;
mod map;
mod math;
mod matmul;
mod memory;
mod quantile;
mod row;
mod simd;
mod team;
#[cfg(not(target_family = "wasm"))]
mod threads;

pub use executable::{Cpu, Threads};
pub use linear::Linear;
pub use matmul::{Finish, Scratch, Side, matmul};

//! A program on one core: every node has its buffer from the start, so a step allocates nothing; loops are written so that
//! the compiler turns them into SIMD (AVX2 where the processor has it, simd128 in wasm).
//!
//! It knows the same operations as the reference (`oto-candle`) and is held to it by tests on whole train steps.

mod convolution;
mod executable;
mod kernels;
mod matmul;

pub use executable::Cpu;

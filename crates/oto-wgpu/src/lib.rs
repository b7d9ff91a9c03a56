//! A program on a graphics device: WebGPU in a page; Vulkan, Metal or DirectX 12 natively. The plan (`oto_graph::plan`) becomes
//! WGSL text, one kernel one dispatch; state stays on the device.

mod executable;
mod gpu;
pub mod wgsl;

pub use executable::Wgpu;
pub use gpu::{Gpu, GpuError};

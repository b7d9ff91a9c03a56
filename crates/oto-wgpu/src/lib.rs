//! A program on a graphics device: WebGPU in a page; Vulkan, Metal or DirectX 12 natively. The plan (`oto_graph::plan`) becomes
//! WGSL text, one kernel one dispatch; state stays on the device.

mod choose;
mod executable;
mod gpu;
mod readback;
pub mod wgsl;

pub use choose::{Clock, updates_per_second};
#[cfg(not(target_arch = "wasm32"))]
pub use choose::{now, wait_for_updates_per_second};
pub use executable::Wgpu;
pub use gpu::{Gpu, GpuError};

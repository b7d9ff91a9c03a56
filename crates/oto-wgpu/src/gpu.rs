//! The device: asked for once, with what it says it can do; programs share it.

use crate::wgsl::Limits;
use oto_graph::{Adapter, BackendError};
use std::sync::{Arc, Mutex};

/// Where an adapter would be.
#[cfg(target_arch = "wasm32")]
const NONE: &str =
    "this browser gives this page no WebGPU adapter; those that have one give it over https and on localhost";
#[cfg(not(target_arch = "wasm32"))]
const NONE: &str = "no driver of Vulkan, Metal or DirectX 12 offers one";

/// Why there is no device.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GpuError {
    /// No adapter at all: no WebGPU in this browser, no driver on this machine.
    #[error("no GPU can be used here: {NONE}; choose the backend \"cpu\"")]
    NoAdapter,
    /// The adapter is there and gave no device.
    #[error("the GPU {adapter} refused: {reason}; choose the backend \"cpu\"")]
    Refused {
        /// The adapter's name.
        adapter: String,
        /// In its words.
        reason: String,
    },
}

/// Threads that keep a graphics card busy, and a processor that plays one.
const BUSY_CARD: u32 = 4096;
const BUSY_PROCESSOR: u32 = 64;

/// In words; a page is not told.
fn kind(device: wgpu::DeviceType) -> &'static str {
    match device {
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "unknown kind",
    }
}

/// What a browser's error says, without the wrapping and the stack that come with it.
fn in_words(error: &str) -> String {
    let thrown = error.strip_prefix("JsValue(").and_then(|e| e.strip_suffix(')'));
    let first = thrown.unwrap_or(error).lines().next().unwrap_or_default();
    first.trim_end_matches('.').into()
}

/// An open device.
pub struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) limits: Limits,
    adapter: Adapter,
    lost: Arc<Mutex<Option<String>>>,
}

impl Gpu {
    /// Asks for the fastest adapter and a device with all that it offers.
    pub async fn request() -> Result<Arc<Self>, GpuError> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::all() - wgpu::Backends::GL;
        let instance = wgpu::Instance::new(descriptor);
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = instance.request_adapter(&options).await.map_err(|_| GpuError::NoAdapter)?;
        let info = adapter.get_info();
        let api = info.backend.to_str();
        let name = [info.name, info.driver].into_iter().find(|s| !s.is_empty()).unwrap_or_else(|| api.into());
        let offered = adapter.limits();
        let descriptor = wgpu::DeviceDescriptor { required_limits: offered.clone(), ..Default::default() };
        let refused = |e: wgpu::RequestDeviceError| GpuError::Refused {
            adapter: name.clone(),
            reason: in_words(&e.to_string()),
        };
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(refused)?;
        let limits = Limits {
            threads: offered.max_compute_invocations_per_workgroup.min(offered.max_compute_workgroup_size_x),
            workgroup_bytes: offered.max_compute_workgroup_storage_size,
            busy: if info.device_type == wgpu::DeviceType::Cpu { BUSY_PROCESSOR } else { BUSY_CARD },
            groups: offered.max_compute_workgroups_per_dimension,
            buffer_bytes: offered.max_buffer_size.min(offered.max_storage_buffer_binding_size),
        };
        let lost = Arc::new(Mutex::new(None));
        let told = lost.clone();
        device.set_device_lost_callback(move |reason, message| {
            let message = if message.is_empty() { format!("{reason:?}") } else { in_words(&message) };
            *told.lock().unwrap_or_else(|e| e.into_inner()) = Some(message);
        });
        let adapter = Adapter { name, kind: kind(info.device_type), api };
        Ok(Arc::new(Self { device, queue, limits, adapter, lost }))
    }

    /// [`Self::request`], waiting for the answer.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait() -> Result<Arc<Self>, GpuError> {
        pollster::block_on(Self::request())
    }

    /// What it is.
    pub fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// Why the device is lost, if it is: programs on it will not run any more.
    pub fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    pub(crate) fn alive(&self) -> Result<(), BackendError> {
        self.lost().map_or(Ok(()), |reason| Err(BackendError::Lost(reason)))
    }

    /// The error to tell where memory cannot be read: the device is lost. A page may learn that before it is told why.
    pub(crate) fn unreadable(&self) -> BackendError {
        self.alive().err().unwrap_or_else(|| BackendError::Lost("its memory could not be read".into()))
    }

    /// Lets callbacks run whose work is done; in a page they run by themselves.
    pub(crate) fn poll(&self) {
        let _ = self.device.poll(wgpu::PollType::Poll);
    }

    pub(crate) fn wait_for_work(&self) -> Result<(), BackendError> {
        let waited = self.device.poll(wgpu::PollType::wait_indefinitely());
        waited.map(|_| ()).map_err(|_| self.unreadable())
    }

    /// Gives the device up, as a driver's reset would.
    pub fn destroy(&self) {
        self.device.destroy();
    }
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn errors_of_a_browser_are_one_line() {
        assert_eq!(in_words("JsValue(OperationError: too busy\nundefined)"), "OperationError: too busy");
        assert_eq!(in_words("Device was destroyed."), "Device was destroyed");
        assert_eq!(in_words(""), "");
    }
}

//! What runs a page's updates: the CPU, a device, or the faster of the two.

use crate::error::CoreError;
use oto_agent::config::StudentConfig;
use oto_agent::trainer::Tried;
use oto_cpu::Cpu;
use oto_graph::{Backend, Program};

/// A backend, and what it was chosen from.
pub struct Chosen {
    /// It.
    pub backend: Box<dyn Backend>,
    /// Those that were timed; none where one was asked for by name.
    pub tried: Vec<Tried>,
}

/// The backend that a configuration asks for.
#[cfg(not(feature = "webgpu"))]
pub async fn choose(config: &StudentConfig, _: Program) -> Result<Chosen, CoreError> {
    match config.backend.as_str() {
        "webgpu" => {
            let module = if cfg!(feature = "all") { "all" } else { "cpu" };
            let message = format!(
                "is \"webgpu\": oto-student/{module} computes on the CPU alone; import Student from \"oto-student\""
            );
            Err(CoreError::config("backend", message))
        }
        _ => Ok(Chosen { backend: Box::new(Cpu), tried: Vec::new() }),
    }
}

/// The backend that a configuration asks for.
#[cfg(feature = "webgpu")]
pub async fn choose(config: &StudentConfig, program: Program) -> Result<Chosen, CoreError> {
    match config.backend.as_str() {
        "webgpu" => {
            let backend =
                webgpu().await.map_err(|e| CoreError::config("backend", format!("is \"webgpu\": {e}")))?;
            Ok(Chosen { backend, tried: Vec::new() })
        }
        "auto" => Ok(fastest(program).await),
        _ => Ok(Chosen { backend: Box::new(Cpu), tried: Vec::new() }),
    }
}

#[cfg(feature = "webgpu")]
async fn webgpu() -> Result<Box<dyn Backend>, String> {
    let gpu = oto_wgpu::Gpu::request().await.map_err(|e| e.to_string())?;
    Ok(Box::new(oto_wgpu::Wgpu { gpu, fallback: || Box::new(Cpu), now: crate::host::now }))
}

#[cfg(feature = "webgpu")]
struct PageClock;

#[cfg(feature = "webgpu")]
impl oto_wgpu::Clock for PageClock {
    fn now(&self) -> f64 {
        crate::host::now()
    }

    async fn pause(&self) {
        crate::host::pause().await;
    }
}

/// The faster one; the CPU where there is no other.
#[cfg(feature = "webgpu")]
async fn fastest(program: Program) -> Chosen {
    let cpu: Box<dyn Backend> = Box::new(Cpu);
    let ours =
        oto_wgpu::updates_per_second(cpu.as_ref(), &program, &PageClock).await.map_err(|e| e.to_string());
    let device = match webgpu().await {
        Ok(backend) => {
            let rate = oto_wgpu::updates_per_second(backend.as_ref(), &program, &PageClock).await;
            rate.map(|rate| (rate, backend)).map_err(|e| e.to_string())
        }
        Err(e) => Err(e),
    };
    let tried = |name: &str, rate: Result<f64, String>| Tried {
        name: name.into(),
        updates_per_second: rate.as_ref().ok().copied(),
        error: rate.err(),
    };
    let theirs = device.as_ref().map(|(rate, _)| *rate).map_err(Clone::clone);
    let all = vec![tried("cpu", ours.clone()), tried("webgpu", theirs)];
    let backend = match device {
        Ok((rate, backend)) if ours.is_err() || ours.is_ok_and(|ours| rate > ours) => backend,
        _ => cpu,
    };
    Chosen { backend, tried: all }
}

//! Backends by the names users give them; "auto" times those that are there on the real program.

use oto_agent::run::Chosen;
use oto_graph::{Backend, BackendError, Program};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads of the CPU backend in this process. A number of the process and not of a run: it changes no result.
static THREADS: AtomicUsize = AtomicUsize::new(1);

/// Sets the number of threads of every CPU backend that is made from now on; without a call it is one.
pub fn use_threads(threads: NonZeroUsize) {
    THREADS.store(threads.get(), Ordering::Relaxed);
}

fn cpu() -> oto_cpu::Threads {
    oto_cpu::Threads(NonZeroUsize::new(THREADS.load(Ordering::Relaxed)).unwrap_or(NonZeroUsize::MIN))
}

/// The backend of this name: "cpu", "webgpu", "candle" for the reference interpreter, or candle on a graphics card: "cuda", "metal".
pub fn by_name(name: &str) -> Result<Box<dyn Backend>, BackendError> {
    match name {
        "cpu" => Ok(Box::new(cpu())),
        #[cfg(feature = "reference")]
        "candle" => Ok(Box::new(oto_candle::Candle)),
        #[cfg(feature = "reference")]
        "cuda" => Ok(Box::new(oto_candle::Card::cuda()?)),
        #[cfg(feature = "reference")]
        "metal" => Ok(Box::new(oto_candle::Card::metal()?)),
        "webgpu" => webgpu(),
        other => Err(BackendError::NotAvailable(other.to_string())),
    }
}

/// The backend of this name; for "auto" the one that runs `program` fastest.
pub fn choose(name: &str, program: &Program) -> Result<Chosen, BackendError> {
    match name {
        "auto" => fastest(program),
        name => Ok(Chosen { backend: by_name(name)?, tried: Vec::new() }),
    }
}

#[cfg(all(feature = "gpu", not(target_family = "wasm")))]
fn webgpu() -> Result<Box<dyn Backend>, BackendError> {
    let gpu = oto_wgpu::Gpu::wait().map_err(|e| BackendError::Device(e.to_string()))?;
    Ok(Box::new(oto_wgpu::Wgpu { gpu, fallback: || Box::new(oto_cpu::Cpu), now: oto_wgpu::now }))
}

#[cfg(not(all(feature = "gpu", not(target_family = "wasm"))))]
fn webgpu() -> Result<Box<dyn Backend>, BackendError> {
    Err(BackendError::NotAvailable("webgpu".into()))
}

#[cfg(all(feature = "gpu", not(target_family = "wasm")))]
fn fastest(program: &Program) -> Result<Chosen, BackendError> {
    let mut chosen: Option<(f64, Box<dyn Backend>)> = None;
    let mut tried = Vec::new();
    for name in ["cpu", "webgpu"] {
        let timed = by_name(name).and_then(|backend| {
            let rate = oto_wgpu::wait_for_updates_per_second(backend.as_ref(), program)?;
            Ok((rate, backend))
        });
        let (rate, error) = match timed {
            Ok((rate, backend)) => {
                if chosen.as_ref().is_none_or(|(best, _)| rate > *best) {
                    chosen = Some((rate, backend));
                }
                (Some(rate), None)
            }
            Err(e) => (None, Some(e.to_string())),
        };
        tried.push(oto_agent::trainer::Tried { name: name.into(), updates_per_second: rate, error });
    }
    let (_, backend) = chosen.ok_or_else(|| BackendError::NotAvailable("auto".into()))?;
    Ok(Chosen { backend, tried })
}

#[cfg(not(all(feature = "gpu", not(target_family = "wasm"))))]
fn fastest(_: &Program) -> Result<Chosen, BackendError> {
    Ok(Chosen { backend: by_name("cpu")?, tried: Vec::new() })
}

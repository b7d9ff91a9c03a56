//! What the browser benchmark (`web/bench`) runs inside WebAssembly: one workload, by any of oto's backends, by candle or
//! by the loop written by hand. All come from one module, and so from one set of compiler flags. Never shipped.

mod candle;

use candle::Autograd;
use oto_bench::fused::Fused;
use oto_bench::workload::{Shape, Workload, distillation};
use oto_graph::{Backend, BackendError, Executable, InputId};
use wasm_bindgen::prelude::wasm_bindgen;

/// Transitions in an update.
const BATCH: usize = 64;

/// The backend of this name. What a student could be given is here, candle beside it.
async fn backend(name: &str) -> Result<Box<dyn Backend>, BackendError> {
    match name {
        "cpu" => Ok(Box::new(oto_cpu::Cpu)),
        "webgpu" => webgpu().await,
        "candle-kernels" => Ok(Box::new(oto_candle::Candle)),
        other => Err(BackendError::NotAvailable(other.into())),
    }
}

async fn webgpu() -> Result<Box<dyn Backend>, BackendError> {
    let gpu = oto_wgpu::Gpu::request().await.map_err(|e| BackendError::Device(e.to_string()))?;
    Ok(Box::new(oto_wgpu::Wgpu { gpu, fallback: || Box::new(oto_cpu::Cpu), now }))
}

/// Milliseconds, as submits are paced by.
fn now() -> f64 {
    #[cfg(not(target_arch = "wasm32"))]
    return oto_wgpu::now();
    #[cfg(target_arch = "wasm32")]
    performance_now()
}

#[cfg(target_arch = "wasm32")]
#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
}

fn draw(kind: &str, hidden: usize, quantiles: usize, seed: u64) -> Result<Workload, String> {
    match kind {
        "update" if hidden > 0 && quantiles > 0 => {
            Ok(Workload::new(Shape { hidden, quantiles, batch: BATCH }, seed))
        }
        "update" => Err("an update needs hidden units and quantiles".into()),
        "distillation" => Ok(distillation(seed)),
        other => Err(format!("there is no workload {other:?}, only update and distillation")),
    }
}

/// A workload's sizes and values as JSON (`oto_bench::workload::Workload::to_json`).
///
/// # Errors
/// An unknown kind, or a size of 0.
#[wasm_bindgen]
pub fn workload(kind: &str, hidden: usize, quantiles: usize, seed: u32) -> Result<String, String> {
    Ok(draw(kind, hidden, quantiles, seed.into())?.to_json().to_string())
}

/// Who makes the updates.
enum Runner {
    Program { executable: Box<dyn Executable>, outputs: Vec<Vec<f32>>, loss: usize },
    Fused(Box<Fused>),
    Autograd(Box<Autograd>),
}

/// A workload under way.
#[wasm_bindgen]
pub struct Session {
    workload: Workload,
    runner: Runner,
    loss: f32,
    /// Updates that were asked for and are not started yet.
    waiting: u32,
}

#[wasm_bindgen]
impl Session {
    /// Prepares a workload for a backend's name, for `fused` or for `candle`, with the values that [`workload`] gives.
    ///
    /// # Errors
    /// An unknown name or kind, or a backend's own failure.
    pub async fn create(
        runner: String,
        kind: String,
        hidden: usize,
        quantiles: usize,
        seed: u32,
    ) -> Result<Session, String> {
        let workload = draw(&kind, hidden, quantiles, seed.into())?;
        let runner = match runner.as_str() {
            "fused" => Runner::Fused(Box::new(Fused::new(&workload))),
            "candle" => Runner::Autograd(Box::new(Autograd::new(&workload).map_err(|e| e.to_string())?)),
            name => compile(name, &workload).await.map_err(|error| error.to_string())?,
        };
        Ok(Session { workload, runner, loss: f32::NAN, waiting: 0 })
    }

    /// Asks for updates, which [`Session::advance`] makes.
    pub fn begin(&mut self, updates: u32) {
        self.waiting += updates;
    }

    /// Makes what was asked for; whether all of it is done. A device works beside the caller, who may come again at any time.
    ///
    /// # Errors
    /// The backend's failure.
    pub fn advance(&mut self) -> Result<bool, String> {
        let data = self.workload.slices();
        match &mut self.runner {
            Runner::Program { executable, outputs, loss } => {
                if executable.device().is_some() {
                    return self.advance_device().map_err(|error| error.to_string());
                }
                for _ in 0..self.waiting {
                    executable.run(&data, outputs).map_err(|error| error.to_string())?;
                    self.loss = outputs[*loss][0];
                }
            }
            Runner::Fused(fused) => (0..self.waiting).for_each(|_| self.loss = fused.step()),
            Runner::Autograd(autograd) => {
                let mut step = || autograd.step()?.to_scalar::<f32>();
                for _ in 0..self.waiting {
                    self.loss = step().map_err(|error| error.to_string())?;
                }
            }
        }
        self.waiting = 0;
        Ok(true)
    }

    fn advance_device(&mut self) -> Result<bool, BackendError> {
        let data = self.workload.slices();
        let Runner::Program { executable, loss, .. } = &mut self.runner else { return Ok(true) };
        let Some(device) = executable.device() else { return Ok(true) };
        while self.waiting > 0 && device.has_room() {
            device.start(&data)?;
            self.waiting -= 1;
        }
        if let Some(report) = device.report()? {
            self.loss = report.outputs[*loss][0];
        }
        Ok(self.waiting == 0 && device.behind() == 0)
    }

    /// Asks a device for its state; whether it has come. Nothing else has state that must be asked for.
    ///
    /// # Errors
    /// The backend's failure.
    pub fn sync(&mut self) -> Result<bool, String> {
        let Runner::Program { executable, .. } = &mut self.runner else { return Ok(true) };
        let Some(device) = executable.device() else { return Ok(true) };
        device.snapshot().map(|snapshot| snapshot.is_some()).map_err(|error| error.to_string())
    }

    /// The loss of the last update; NaN before the first.
    pub fn loss(&self) -> f32 {
        self.loss
    }

    /// Names of the state that [`Session::parameter`] knows.
    pub fn names(&self) -> Vec<String> {
        match &self.runner {
            Runner::Autograd(autograd) => autograd.parameters().map(|(name, _)| name.into()).collect(),
            _ => self.workload.state.iter().map(|(name, _)| name.clone()).collect(),
        }
    }

    /// State by name as it is now.
    ///
    /// # Errors
    /// A name that is not among [`Session::names`].
    pub fn parameter(&self, name: &str) -> Result<Vec<f32>, String> {
        self.read(name).ok_or_else(|| format!("there is no state {name:?}"))
    }

    fn read(&self, name: &str) -> Option<Vec<f32>> {
        match &self.runner {
            Runner::Fused(fused) => fused.params().into_iter().find(|(n, _)| n == name).map(|(_, v)| v),
            Runner::Autograd(autograd) => {
                let (_, tensor) = autograd.parameters().find(|(n, _)| *n == name)?;
                tensor.flatten_all().and_then(|t| t.to_vec1()).ok()
            }
            Runner::Program { executable, .. } => {
                let InputId(input) = executable.program().input(name)?;
                let mut values = vec![0.0; executable.program().inputs[input].len()];
                executable.read(InputId(input), &mut values).ok()?;
                Some(values)
            }
        }
    }
}

async fn compile(name: &str, workload: &Workload) -> Result<Runner, BackendError> {
    let program = workload.program();
    let outputs = vec![Vec::new(); program.outputs.len()];
    let loss =
        program.output("loss").ok_or_else(|| BackendError::Device("the program has no loss".into()))?;
    let mut executable = backend(name).await?.compile(program)?;
    workload.load(executable.as_mut())?;
    Ok(Runner::Program { executable, outputs, loss })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(runner: &str, kind: &str, hidden: usize) -> Result<Session, String> {
        pollster::block_on(Session::create(runner.into(), kind.into(), hidden, 8, 1))
    }

    fn session(runner: &str, kind: &str) -> Session {
        let mut session = create(runner, kind, 16).unwrap();
        session.begin(3);
        while !session.advance().unwrap() {}
        while !session.sync().unwrap() {}
        session
    }

    #[test]
    fn every_runner_gives_the_same_loss_and_parameters() {
        for kind in ["update", "distillation"] {
            let reference = session("candle-kernels", kind);
            for other in ["cpu", "webgpu", "fused", "candle"] {
                let (name, other) = (other, session(other, kind));
                let (ours, theirs) = (other.loss(), reference.loss());
                assert!((ours - theirs).abs() < 1e-4 * theirs.abs(), "{name} {kind}: {ours} {theirs}");
                for parameter in &other.names() {
                    let ours = other.parameter(parameter).unwrap();
                    let theirs = reference.parameter(parameter).unwrap();
                    let close = ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-4);
                    assert!(close && ours.len() == theirs.len(), "{name} {kind} {parameter}");
                }
            }
        }
    }

    #[test]
    fn names_that_nobody_knows_are_refused() {
        assert!(create("abacus", "update", 16).err().unwrap().contains("abacus"));
        assert!(create("cpu", "dinner", 16).is_err());
        assert!(create("cpu", "update", 0).is_err());
        assert!(session("cpu", "update").parameter("nothing").is_err());
    }

    #[test]
    fn the_workload_is_json() {
        let text = workload("distillation", 0, 0, 1).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["widths"], serde_json::json!([8, 64, 64, 4]));
    }
}

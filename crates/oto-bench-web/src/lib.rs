//! What the browser benchmark (`web/bench`) runs inside WebAssembly: one workload, by any of oto's backends, by candle or
//! by the loop written by hand. All come from one module, and so from one set of compiler flags. Never shipped.

#![forbid(unsafe_code)]

use oto_bench::fused::Fused;
use oto_bench::workload::{Shape, Workload, distillation};
use oto_graph::{Backend, BackendError, Executable, InputId};
use wasm_bindgen::prelude::wasm_bindgen;

/// Transitions in an update.
const BATCH: usize = 64;

/// The backend of this name. What a student could be given is here, candle beside it.
fn backend(name: &str) -> Result<Box<dyn Backend>, BackendError> {
    match name {
        "cpu" => Ok(Box::new(oto_cpu::Cpu)),
        "candle" => Ok(Box::new(oto_candle::Candle)),
        other => Err(BackendError::NotAvailable(other.into())),
    }
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
}

/// A workload under way.
#[wasm_bindgen]
pub struct Session {
    workload: Workload,
    runner: Runner,
    loss: f32,
}

#[wasm_bindgen]
impl Session {
    /// Prepares a workload for a backend's name or for `fused`, with the values that [`workload`] gives.
    ///
    /// # Errors
    /// An unknown name or kind, or a backend's own failure.
    #[wasm_bindgen(constructor)]
    pub fn new(
        runner: &str,
        kind: &str,
        hidden: usize,
        quantiles: usize,
        seed: u32,
    ) -> Result<Session, String> {
        let workload = draw(kind, hidden, quantiles, seed.into())?;
        let runner = match runner {
            "fused" => Runner::Fused(Box::new(Fused::new(&workload))),
            name => compile(name, &workload).map_err(|error| error.to_string())?,
        };
        Ok(Session { workload, runner, loss: f32::NAN })
    }

    /// Makes updates without leaving WebAssembly.
    ///
    /// # Errors
    /// The backend's failure.
    pub fn step(&mut self, updates: u32) -> Result<(), String> {
        let data = self.workload.slices();
        for _ in 0..updates {
            self.loss = match &mut self.runner {
                Runner::Fused(fused) => fused.step(),
                Runner::Program { executable, outputs, loss } => {
                    executable.run(&data, outputs).map_err(|error| error.to_string())?;
                    outputs[*loss][0]
                }
            };
        }
        Ok(())
    }

    /// The loss of the last update; NaN before the first.
    pub fn loss(&self) -> f32 {
        self.loss
    }

    /// Names of all state: parameters, moments, counters.
    pub fn names(&self) -> Vec<String> {
        self.workload.state.iter().map(|(name, _)| name.clone()).collect()
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
            Runner::Program { executable, .. } => {
                let InputId(input) = executable.program().input(name)?;
                let mut values = vec![0.0; executable.program().inputs[input].len()];
                executable.read(InputId(input), &mut values).ok()?;
                Some(values)
            }
        }
    }
}

fn compile(name: &str, workload: &Workload) -> Result<Runner, BackendError> {
    let program = workload.program();
    let outputs = vec![Vec::new(); program.outputs.len()];
    let loss =
        program.output("loss").ok_or_else(|| BackendError::Device("the program has no loss".into()))?;
    let mut executable = backend(name)?.compile(program)?;
    workload.load(executable.as_mut())?;
    Ok(Runner::Program { executable, outputs, loss })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(runner: &str) -> Session {
        let mut session = Session::new(runner, "update", 16, 8, 1).unwrap();
        session.step(3).unwrap();
        session
    }

    #[test]
    fn every_runner_gives_the_same_loss_and_parameters() {
        let reference = session("candle");
        for other in ["cpu", "fused"] {
            let other = session(other);
            assert!((other.loss() - reference.loss()).abs() < 1e-4 * reference.loss().abs());
            for name in &reference.names() {
                let (ours, theirs) = (other.parameter(name).unwrap(), reference.parameter(name).unwrap());
                let close = ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-4);
                assert!(close && ours.len() == theirs.len(), "{name}");
            }
        }
    }

    #[test]
    fn names_that_nobody_knows_are_refused() {
        assert!(Session::new("abacus", "update", 16, 8, 1).err().unwrap().contains("abacus"));
        assert!(Session::new("cpu", "dinner", 16, 8, 1).is_err());
        assert!(Session::new("cpu", "update", 0, 8, 1).is_err());
        assert!(session("cpu").parameter("nothing").is_err());
    }

    #[test]
    fn the_workload_is_json() {
        let text = workload("distillation", 0, 0, 1).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["widths"], serde_json::json!([8, 64, 64, 4]));
    }
}

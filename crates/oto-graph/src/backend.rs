//! What a backend promises.

use crate::{InputId, Program};

/// Why a program could not be compiled or run.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The backend exists by name only in this build.
    #[error("backend \"{0}\" is not available yet: use \"cpu\"")]
    NotAvailable(String),
    /// An input of another size than the program says.
    #[error("input \"{name}\" needs {expected} numbers, {got} came")]
    Size {
        /// The input's name.
        name: String,
        /// How many the program reads.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// Another number of data inputs or outputs than the program has.
    #[error("the program has {expected} {what}, {got} came")]
    Count {
        /// Data inputs or outputs.
        what: &'static str,
        /// How many the program has.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// The device is gone, and the state with it.
    #[error("the device was lost: {0}")]
    Lost(String),
    /// The device's own failure, in its words.
    #[error("the backend failed: {0}")]
    Device(String),
}

/// Turns programs into something that runs.
pub trait Backend {
    /// The name users choose it by.
    fn name(&self) -> &str;

    /// Prepares `program`; its state starts as zeros.
    fn compile(&self, program: Program) -> Result<Box<dyn Executable>, BackendError>;
}

/// A compiled program with its state.
pub trait Executable: Send {
    /// The program it runs.
    fn program(&self) -> &Program;

    /// Replaces one state input.
    fn write(&mut self, input: InputId, values: &[f32]) -> Result<(), BackendError>;

    /// Copies one state input out.
    fn read(&self, input: InputId, values: &mut [f32]) -> Result<(), BackendError>;

    /// Runs one step: `data` holds one slice for each data input in the program's order; `outputs` one buffer
    /// for each output, resized to fit. After an error the state is as it was before.
    fn run(&mut self, data: &[&[f32]], outputs: &mut [Vec<f32>]) -> Result<(), BackendError>;
}

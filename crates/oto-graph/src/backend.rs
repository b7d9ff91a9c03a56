//! What a backend promises.

use crate::{InputId, Program};
use std::fmt;

/// Why a program could not be compiled or run.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The backend exists by name only in this build.
    #[error("backend \"{0}\" is not available here: use \"cpu\"")]
    NotAvailable(String),
    /// An input without any numbers: there is nothing to compute.
    #[error("input \"{name}\" has shape {shape:?}, which holds no number")]
    Empty {
        /// The input's name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
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
    /// An index that names nothing.
    #[error("index {} is not a whole number below {below}", oto_json::Shown((*.value).into()))]
    Index {
        /// What came.
        value: f32,
        /// How many there are to choose among.
        below: usize,
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

/// What a backend computes on, where it is not this processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// In its driver's words.
    pub name: String,
    /// Which kind of hardware: "software" for a processor that plays a GPU.
    pub kind: &'static str,
    /// The interface it is reached by, for instance "vulkan".
    pub api: &'static str,
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.name, self.kind, self.api)
    }
}

/// Turns programs into something that runs.
pub trait Backend {
    /// The name users choose it by.
    fn name(&self) -> &str;

    /// What it computes on, if not this processor.
    fn adapter(&self) -> Option<&Adapter> {
        None
    }

    /// What goes on in its place if its device is lost.
    fn fallback(&self) -> Option<Box<dyn Backend + Send>> {
        None
    }

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

    /// The same executable, if its steps run on a device beside this thread.
    fn device(&mut self) -> Option<&mut dyn Device> {
        None
    }
}

/// Steps that run beside this thread. They are started, and reported when they are done; nothing waits in between.
pub trait Device {
    /// State that comes with every report.
    fn watch(&mut self, state: &[InputId]);

    /// Whether one more step can be started.
    fn has_room(&self) -> bool;

    /// Starts a step with this data.
    fn start(&mut self, data: &[&[f32]]) -> Result<(), BackendError>;

    /// Sends what was started on its way, and gives the newest report that has come since the last call.
    fn report(&mut self) -> Result<Option<&Report>, BackendError>;

    /// Steps that were started and are not reported yet.
    fn behind(&self) -> u64;

    /// Asks for all state as it is after the steps started so far, and gives the newest that has come.
    fn snapshot(&mut self) -> Result<Option<&Report>, BackendError>;

    /// The newest snapshot; it stays when the device is lost.
    fn last_snapshot(&self) -> Option<&Report>;
}

/// What a device tells of its steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// How many steps were done by then.
    pub steps: u64,
    /// Each output after the last of them; none in a snapshot.
    pub outputs: Vec<Vec<f32>>,
    /// Each watched state input; in a snapshot each state input, in the program's order.
    pub state: Vec<Vec<f32>>,
}

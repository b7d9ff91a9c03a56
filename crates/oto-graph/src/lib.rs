//! Tensor programs: what a train step is before any device sees it.
//!
//! A train step is traced once: [`Trace`] hands out [`Tensor`] handles whose arithmetic records [`Op`]s; [`grad`] adds the
//! operations of the derivative to the same record; [`Trace::finish`] keeps what is reachable and gives a [`Program`].
//! A [`Backend`] compiles a program into an [`Executable`], which keeps the state (parameters, optimiser moments)
//! and runs the step; compiled backends run it from a [`Plan`], in which nodes are joined into few kernels. Every tensor has one element type, chosen by the backend; indices are tensors of whole numbers.

mod autodiff;
mod backend;
mod op;
pub mod plan;
mod program;
mod simplify;
mod trace;

pub use autodiff::grad;
pub use backend::{Adapter, Backend, BackendError, Device, Executable, Report};
pub use op::{Activation, Binary, Conv, Op, Unary};
pub use plan::Plan;
pub use program::{Input, InputId, Node, NodeId, Program, Role};
pub use simplify::simplify;
pub use trace::{Tensor, Trace};

//! The WASI components in wasmtime: the command, and the component for hosts that own the environment.

mod command;
mod edge;
mod edge_calls;
mod edge_teachers;

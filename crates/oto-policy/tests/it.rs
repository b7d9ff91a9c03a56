//! The integration tests of this crate, one program: it links once.

mod foreign;
mod golden;
mod hostile;
mod mobile_cell;
mod operators;
mod own;
mod recurrent;

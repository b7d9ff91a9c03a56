//! The integration tests of this crate, one program: it links once.

mod hostile;
mod layouts;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "parquet")]
mod python;

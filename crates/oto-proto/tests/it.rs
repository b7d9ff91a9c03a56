//! The integration tests of this crate, one program: it links once.

mod properties;
mod schema;

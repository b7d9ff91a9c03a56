//! JSON in little code: control messages, configurations, metrics, what a checkpoint says of itself. Deserialisers and
//! serialisers that serde makes for each type were a third of what a page downloads.
//!
//! - [`parse`]: a text becomes a tree, [`Json`]; a key may be there once.
//! - [`read`]: a tree becomes a value of ours, [`FromJson`]; a number must fit its place, and an error names the place.
//! - [`write()`], [`to_tree`]: a value of ours becomes a text or a tree, [`ToJson`].
//! - [`json_object`], [`json_names`], [`json_tagged`]: one line for a type makes both, and serde's two traits by way of
//!   them, for programs that keep our values among theirs.
//! - [`mod@file`]: bounded reading of the files that hold such texts.
#![forbid(unsafe_code)]

mod decimal;
mod describe;
pub mod file;
mod parse;
mod read;
mod shortest;
mod tree;
mod write;

pub use decimal::number;
pub use describe::serde;
pub use parse::parse;
pub use read::{At, Failure, Fields, FromJson, from_tree, read};
pub use shortest::{Shown, shown, shown_list};
pub use tree::{Json, Number};
pub use write::{Object, ToJson, Writer, object_tree, to_tree, write};

use std::fmt;

/// Why JSON could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Where, as in `stages.transfer.steps` or `hidden[1]`; empty where it is the whole.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            f.write_str(&self.path)?;
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for JsonError {}

//! What the browser tests run inside WebAssembly: the wire's vectors. Never shipped.

#![forbid(unsafe_code)]

use wasm_bindgen::prelude::wasm_bindgen;

/// Runs one file of wire vectors (`crates/oto-proto/vectors`); returns how many cases were accepted and how many refused
/// as they should be, as `"accepted refused"`.
///
/// # Errors
/// The first case that this build reads differently, in words.
#[wasm_bindgen]
pub fn run_vectors(json: &str) -> Result<String, String> {
    let summary = oto_proto::vectors::run(json).map_err(|error| error.to_string())?;
    Ok(format!("{} {}", summary.valid, summary.rejected))
}

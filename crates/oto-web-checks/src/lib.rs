//! What the browser tests run inside WebAssembly: the wire's vectors, and the kernels; with the feature `bench` what the browser
//! benchmark runs. Never shipped.

#![forbid(unsafe_code)]

#[cfg(feature = "bench")]
pub mod bench;
mod products;

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

/// Computes matrix products and quantile losses with oto's kernels; returns how many agree with plain loops.
///
/// # Errors
/// The first that does not, in words.
#[wasm_bindgen]
pub fn run_products() -> Result<usize, String> {
    products::check()
}

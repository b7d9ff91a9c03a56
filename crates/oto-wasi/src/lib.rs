//! The component for hosts that bring their own environment: world `oto:edge/student` (`wit/world.wit`). It holds no
//! logic of training or teaching; it carries spaces, observations, actions and errors across the component's boundary.
//!
//! `tests/wasi/host.rs` is a whole host in Rust.
//!
//! - `edge`: the student behind the world's functions;
//! - `convert`: the world's records from and to the crates' own types.
//!
//! Empty on other targets: the names that a component exports (`oto:edge/learner@0.1.0#act`) are none to a native linker.
#![cfg(target_arch = "wasm32")]

mod convert;
mod edge;

/// What wit-bindgen makes of the world.
#[allow(missing_docs, unsafe_code)]
pub mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "student", pub_export_macro: false });
    export!(Component);

    /// What answers the host's calls.
    pub(crate) struct Component;
}

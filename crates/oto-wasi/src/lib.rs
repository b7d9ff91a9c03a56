//! The components for hosts that bring their own environment or plant (`wit/world.wit`): the world `oto:edge/student`, and with the feature
//! `actor` the world `oto:edge/actor`. They hold no logic of training, teaching or acting; they carry spaces, observations, actions and
//! errors across the component's boundary.
//!
//! `examples/edge-host/main.rs` is a whole host in Rust.
//!
//! - `edge`: the student behind the world's functions;
//! - `actor`: the actors behind the other world's;
//! - `convert`: the student's records from and to the crates' own types.
//!
//! Empty on other targets: the names that a component exports (`oto:edge/learner@0.1.0#act`) are none to a native linker.
#![cfg(target_arch = "wasm32")]

#[cfg(feature = "actor")]
mod actor;
#[cfg(not(feature = "actor"))]
mod convert;
#[cfg(not(feature = "actor"))]
mod edge;

/// What wit-bindgen makes of the world.
#[cfg(not(feature = "actor"))]
#[allow(missing_docs, unsafe_code)]
pub mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "student", pub_export_macro: false });
    export!(Component);

    /// What answers the host's calls.
    pub(crate) struct Component;
}

/// What wit-bindgen makes of the world.
#[cfg(feature = "actor")]
#[allow(missing_docs, unsafe_code)]
pub mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "actor", pub_export_macro: false });
    export!(Component);

    /// What answers the host's calls.
    pub(crate) struct Component;
}

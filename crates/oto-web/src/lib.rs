//! The browser face of the student: what `web/student`'s worker calls. It holds no logic of training or teaching; it
//! carries configuration, events, commands and numbers across the boundary between JavaScript and Rust, and the links' messages
//! to WebSockets and back.
//!
//! - [`core`]: the class that the worker drives;
//! - [`backend`]: what runs its updates;
//! - [`config`]: its configuration;
//! - [`error`]: errors as the worker gets them;
//! - [`report`]: metrics, with what happened since they were taken last;
//! - [`sockets`]: the WebSockets of its links;
//! - [`values`]: values as JavaScript objects;
//! - [`host`]: the browser's clock, timers, randomness and console.

#![forbid(unsafe_code)]

pub mod backend;
pub mod config;
pub mod core;
pub mod error;
pub mod host;
pub mod report;
pub mod sockets;
pub mod values;

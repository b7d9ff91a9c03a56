//! The browser faces of the student and of the actor: what the workers of `web/student` call. They hold no logic of training, teaching or
//! acting; they carry configuration, events, commands and numbers across the boundary between JavaScript and Rust, and the links' messages
//! to WebSockets and back.
//!
//! - `core`: the class that the student's worker drives (feature `student`);
//! - `backend`: what runs its updates;
//! - `report`: metrics, with what happened since they were taken last;
//! - `actor`: the class that the actor's worker drives (feature `actor`);
//! - `config`: configurations;
//! - `error`: errors as the workers get them;
//! - `sockets`: the WebSockets of links;
//! - `share`: a student that works for an agent that a server shares (feature `all`);
//! - `values`: values as JavaScript objects;
//! - `host`: the browser's clock, timers, randomness and console.

#![forbid(unsafe_code)]

#[cfg(feature = "actor")]
pub mod actor;
#[cfg(feature = "student")]
pub mod backend;
pub mod config;
#[cfg(feature = "student")]
pub mod core;
pub mod error;
pub mod host;
#[cfg(feature = "student")]
pub mod report;
// An actor alone reads configurations without students.
#[cfg_attr(not(feature = "student"), allow(dead_code))]
#[cfg_attr(not(feature = "all"), path = "no_share.rs")]
pub mod share;
pub mod sockets;
pub mod values;

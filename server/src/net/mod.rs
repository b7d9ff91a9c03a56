//! Connections: where they come from, TLS, proxies, the student's socket, and every limit of size and time.

pub mod files;
pub(crate) mod gate;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod overflow;
pub(crate) mod peer;
pub mod proxy;
pub(crate) mod stopping;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
pub mod tls;
pub(crate) mod turns;
pub(crate) mod worded;

//! The server over real sockets on loopback: what students get, and what bad peers get.
//!
//! No test waits for a time to pass where it could wait for an event; deadlines under test are short, all others long.

mod agent;
mod bad_peers;
mod folder;
mod follow;
mod frames;
mod groups;
#[cfg(target_os = "linux")]
mod hostile;
mod http;
mod kserve;
mod lessons;
mod logits;
mod object_store;
mod operating;
mod policies;
mod process;
mod recurrent;
mod security_options;
mod serving;
mod several;
mod shares;
mod signals;
mod strangers;
mod student;
mod students;
mod submissions;
mod wings;

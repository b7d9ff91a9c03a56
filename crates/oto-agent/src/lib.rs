//! The student: teacher link, stages and the training loop. The actor, which a learner in the cloud trains.

pub mod actor;
#[cfg_attr(not(feature = "adapter"), path = "no_adapter.rs")]
mod adapter;
pub mod baseline;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod behaviour;
pub mod checkpoint;
pub mod config;
// A page's algorithms learn from no logits.
#[cfg_attr(all(target_family = "wasm", target_os = "unknown"), path = "no_distillation.rs")]
pub mod distillation;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod drive;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod environments;
pub mod evaluation;
#[cfg(not(target_family = "wasm"))]
pub mod group;
#[cfg(not(target_family = "wasm"))]
pub mod hub;
pub mod learner;
#[cfg(all(feature = "datasets", not(all(target_family = "wasm", target_os = "unknown"))))]
pub mod levels;
pub mod link;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod offline;
pub mod origin;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod peer;
pub mod policy;
pub mod presets;
pub mod recorded;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod run;
mod safetensors;
#[cfg(feature = "schema")]
pub mod schema;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod served;
pub mod settings;
pub mod stage;
pub mod student;
mod submission;
pub mod trainer;
#[cfg(not(target_family = "wasm"))]
pub mod virtual_time;
pub mod watch;
pub mod worker;
#[cfg(not(target_family = "wasm"))]
pub mod workers;

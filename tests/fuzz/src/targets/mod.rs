//! What must hold of every decoder whatever its bytes are: a function for each, which panics where it does not.
//!
//! libFuzzer looks for bytes that break one (`cargo xtask soak`), and a test (`tests/fuzz/corpus.rs`) plays back what it kept
//! (`tests/fuzz/corpus`) with every build. More than that nothing crashes is asked wherever there is more to ask: what is written
//! is what was read, two readers agree, what was accepted can be used.

mod config;
mod data;
mod json;
mod policy;
mod student;
mod wire;

/// The settings of `oto serve`. The file alone: the program around it brings graphics and reports, which take long to build.
#[doc(hidden)]
#[path = "../../../../crates/oto-cli/src/settings.rs"]
pub mod settings;

pub use config::{access, config, toml};
pub use data::{hdf5, minari, small_dataset};
pub use json::json;
pub use oto_data::fuzz::parquet;
pub use oto_env::gymnasium::fuzz as bridge;
pub use oto_server::dataset::fuzz::{batch, segment};
pub use oto_server::kserve::fuzz as kserve;
pub use policy::{onnx, pickle, safetensors, torch};
pub use student::{checkpoint, go_on, small_student};
pub use wire::{frames, gradients, logits, messages, stream, weights};

/// A decoder under attack.
pub struct Target {
    /// The name of its corpus, and of its program in `tests/fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Whether these bytes are taken for what the decoder reads; panics if they break it.
    pub run: fn(&[u8]) -> bool,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "access", run: access },
    Target { name: "batch", run: batch },
    Target { name: "bridge", run: bridge },
    Target { name: "checkpoint", run: checkpoint },
    Target { name: "config", run: config },
    Target { name: "frames", run: frames },
    Target { name: "hdf5", run: hdf5 },
    Target { name: "json", run: json },
    Target { name: "kserve", run: kserve },
    Target { name: "messages", run: messages },
    Target { name: "minari", run: minari },
    Target { name: "onnx", run: onnx },
    Target { name: "parquet", run: parquet },
    Target { name: "pickle", run: pickle },
    Target { name: "safetensors", run: safetensors },
    Target { name: "segment", run: segment },
    Target { name: "stream", run: stream },
    Target { name: "toml", run: toml },
    Target { name: "torch", run: torch },
    Target { name: "weights", run: weights },
    Target { name: "gradients", run: gradients },
    Target { name: "logits", run: logits },
];

//! Environments and spaces: deterministic, pure, no input or output.

//! The targets of fuzzing, and what stands between libFuzzer and them.
//!
//! libFuzzer's own hook ends the process at any panic. Some decoders catch the panics of libraries that they use, and are to be tried
//! as they are: here a panic ends the process only once it leaves the target.

pub mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::process::abort;
use std::sync::Mutex;

/// What the last panic said, and where it was.
static LAST: Mutex<String> = Mutex::new(String::new());

/// Keeps what a panic says until it is known whether anyone catches it.
pub fn quieten() {
    set_hook(Box::new(|panic| {
        *LAST.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = panic.to_string()
    }));
}

/// Shows a target some bytes.
pub fn show(target: fn(&[u8]) -> bool, bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(bytes))).is_err() {
        eprintln!("{}", LAST.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        abort();
    }
}

/// A program that shows libFuzzer's bytes to a target.
#[macro_export]
macro_rules! target {
    ($target:path) => {
        libfuzzer_sys::fuzz_target!(init: $crate::quieten(), |bytes: &[u8]| $crate::show($target, bytes));
    };
}

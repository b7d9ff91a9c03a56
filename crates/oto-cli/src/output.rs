//! Standard output and standard error. Every line of the program is written here, because a full disk, a reader that has left and a
//! terminal that has hung up are no reason to panic or to lose a run.
//!
//! The first line that cannot be written is the last attempt: standard error says why, the work continues, and the program's exit code
//! shows that its output is incomplete. A run whose reader has left ends with its checkpoint.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::sync::OnceLock;

/// Why standard output takes no more lines.
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Writes a line to standard output; arguments as for `println!`.
#[macro_export]
macro_rules! out {
    ($($arguments:tt)*) => { $crate::output::line(format_args!($($arguments)*)) };
}

/// Writes a line to standard error; arguments as for `eprintln!`.
#[macro_export]
macro_rules! note {
    ($($arguments:tt)*) => { $crate::output::say(format_args!($($arguments)*)) };
}

/// Writes a line to standard output, unless an earlier one could not be written.
pub fn line(text: Arguments<'_>) {
    if FAILURE.get().is_none() {
        let mut stdout = io::stdout().lock();
        keep(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
    }
}

/// Writes a line to standard error. There is no other place for a line that cannot be written there.
pub fn say(text: Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Remembers the first failure to write to standard output, and says it.
pub fn keep(written: io::Result<()>) {
    let Err(error) = written else { return };
    let text = format!("oto: cannot write to standard output: {error}; the rest of the output is left out");
    let closed = error.kind() == io::ErrorKind::BrokenPipe;
    // A reader that stops reading, as `head` does, needs no message.
    if FAILURE.set(error).is_ok() && !closed {
        say(format_args!("{text}"));
    }
}

/// Whether the reader of standard output has closed it.
pub fn closed() -> bool {
    FAILURE.get().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The exit code of a program with incomplete output: that of a program that the closed pipe's signal ends, or 2.
pub fn code() -> Option<u8> {
    FAILURE.get().map(|_| if closed() { 141 } else { 2 })
}

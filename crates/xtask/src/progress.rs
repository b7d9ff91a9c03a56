//! How far a long build is: which of how many steps, how many of the crates that cargo compiles, how long it took so far.

use crate::shell;
use anyhow::{Result, bail};
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// From one line about a running build to the next.
const PERIOD: Duration = Duration::from_secs(5);

/// The steps of a command, printed at their start.
pub struct Steps {
    total: usize,
    begun: usize,
    start: Instant,
}

impl Steps {
    /// So many steps are to come.
    pub fn new(total: usize) -> Self {
        Self { total, begun: 0, start: Instant::now() }
    }

    /// The next step begins.
    pub fn begin(&mut self, what: &str) {
        self.begun += 1;
        eprintln!("[{}/{}] {what} ({} so far)", self.begun, self.total, shown(self.start.elapsed()));
    }
}

/// Runs `cargo build` with these arguments and tells how many of its crates are compiled. Warnings and errors are passed on.
pub fn build(command: &mut Command, arguments: &[&str]) -> Result<()> {
    let total = crates(arguments);
    command.args(arguments);
    eprintln!("  $ {}", shell::shown(command));
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take().expect("stderr is piped");
    let (start, mut told) = (Instant::now(), Instant::now());
    let mut begun = 0;
    for line in BufReader::new(stderr).split(b'\n') {
        let line = line?;
        match Line::of(&String::from_utf8_lossy(&line)) {
            Line::Compiling => begun += 1,
            Line::Other => {}
            Line::Message => eprintln!("{}", String::from_utf8_lossy(&line)),
        }
        if told.elapsed() >= PERIOD {
            told = Instant::now();
            let of = total.map_or_else(String::new, |total| format!(" of at most {total}"));
            eprintln!("      {begun}{of} crates, {}", shown(start.elapsed()));
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{}` ended with {status}", shell::shown(command));
    }
    Ok(())
}

/// How many crates a build of these arguments compiles at most: what is there already is not compiled again.
fn crates(build: &[&str]) -> Option<usize> {
    let tree = |edges: &str| {
        let mut arguments = vec!["tree", "--prefix", "none", "--format", "{p}", "--edges", edges];
        let mut given = build.iter().skip(1);
        while let Some(argument) = given.next() {
            match *argument {
                "--package" | "--features" | "--target" => arguments.extend([*argument, *given.next()?]),
                "--no-default-features" => arguments.push(argument),
                _ => {}
            }
        }
        let output = shell::cargo(&arguments).stderr(Stdio::inherit()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let text = tree("normal,build")?;
    let names: HashSet<&str> = text.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    Some(names.len())
}

/// The meaning of a line of cargo's output.
#[derive(PartialEq, Debug)]
enum Line {
    /// A crate begins to be compiled.
    Compiling,
    /// Something else that goes well.
    Other,
    /// Something to be read: a warning, an error, what is downloaded.
    Message,
}

impl Line {
    fn of(line: &str) -> Self {
        match line.split_whitespace().next() {
            Some("Compiling") => Self::Compiling,
            None | Some("Blocking" | "Downloaded" | "Finished" | "Fresh" | "Locking" | "Running") => {
                Self::Other
            }
            Some(_) => Self::Message,
        }
    }
}

fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::{Line, crates, shown};
    use std::time::Duration;

    #[test]
    fn lines_of_cargo_are_told_apart() {
        assert_eq!(Line::of("   Compiling oto-env v0.1.0 (/oto/crates/oto-env)"), Line::Compiling);
        assert_eq!(Line::of("    Finished `release` profile [optimized] target(s) in 3.21s"), Line::Other);
        assert_eq!(Line::of("error[E0425]: cannot find value `x` in this scope"), Line::Message);
        assert_eq!(Line::of("  --> src/main.rs:2:5"), Line::Message);
        assert_eq!(Line::of(" Downloading crates ..."), Line::Message);
    }

    #[test]
    fn times_are_shown_in_minutes_and_seconds() {
        assert_eq!(shown(Duration::from_millis(59_900)), "59 s");
        assert_eq!(shown(Duration::from_secs(135)), "2 min 15 s");
    }

    #[test]
    fn crates_are_counted_for_the_features_and_the_target_of_a_build() {
        let few = crates(&["build", "--package", "oto-json"]).unwrap();
        let more = crates(&["build", "--package", "oto-env", "--profile", "wasm"]).unwrap();
        assert!(1 < few && few < more, "{few} {more}");
        assert_eq!(crates(&["build", "--package", "no-such-crate"]), None);
    }
}

//! Many students on a server, as `oto load` simulates them.

use super::{Covered, shown};
use crate::{program, shell};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Students of the load, and requests of each in a second.
const STUDENTS: &str = "200";
const RATE: &str = "10";
const POLICY: &str = "sac_inverted_pendulum_v5";

/// What `oto load` prints that must be nothing.
const NOTHING: [&str; 3] = ["lost", "wrong", "connections ended"];
/// What it prints that is told.
const TOLD: [&str; 7] =
    ["sent", "answered", "overloaded", "lost", "wrong", "connections ended", "99 in 100 within"];

/// A server of the bundled policies, and a load on it for so long.
pub fn run(time: Duration) -> Result<Covered> {
    let program = program::build()?;
    let (server, address) = Running::start(Command::new(&program).args(["serve", "--port", "0"]))?;
    let (seconds, pid) = (time.as_secs_f64().to_string(), server.0.id().to_string());
    eprintln!("   {STUDENTS} students, {RATE} requests of each in a second, for {}", shown(time));
    let mut load = Command::new(&program);
    load.args(["load", &address, "--policy", POLICY, "--students", STUDENTS, "--rate", RATE]);
    let (output, succeeded) = shell::tee(load.args(["--seconds", &seconds, "--pid", &pid]))?;
    Ok(covered(&output, succeeded))
}

fn covered(output: &str, succeeded: bool) -> Covered {
    let number = |name: &str| {
        output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("  ")).map(str::trim)
    };
    let told = |name: &&str| format!("{name}: {}", number(name).unwrap_or("not told"));
    let sound = succeeded && NOTHING.iter().all(|name| number(name) == Some("0"));
    Covered { lines: TOLD.iter().map(told).collect(), sound }
}

/// A server that ends with us.
struct Running(Child);

impl Running {
    /// Starts it, and gives the address that it says students have.
    fn start(command: &mut Command) -> Result<(Self, String)> {
        let child = command.stdout(Stdio::piped()).spawn().context("cannot start the server")?;
        let mut running = Running(child);
        let mut lines = BufReader::new(running.0.stdout.take().context("its output is piped")?).lines();
        let served =
            |line: String| Some(line.strip_prefix("serving http://")?.split_whitespace().next()?.to_owned());
        let address = lines.by_ref().map_while(Result::ok).find_map(served);
        // Whatever else it prints would end it with a broken pipe.
        std::thread::spawn(move || lines.for_each(drop));
        match address {
            Some(address) => Ok((running, format!("ws://{address}"))),
            None => bail!("the server ended before it said where it serves"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "                                  server\nsent                               600\n\
        answered                           599\noverloaded                           1\nlost                                 0\n\
        wrong                                0\nconnections ended                    0\n99 in 100 within              1.250 ms\n";

    #[test]
    fn a_load_is_sound_if_nothing_is_lost_or_wrong() {
        let sound = covered(REPORT, true);
        assert!(sound.sound && sound.lines.contains(&"answered: 599".into()), "{:?}", sound.lines);
        assert!(sound.lines.contains(&"99 in 100 within: 1.250 ms".into()), "{:?}", sound.lines);
        assert!(!covered(REPORT, false).sound);
        let lost = REPORT
            .replace("lost                                 0", "lost                                 2");
        assert!(!covered(&lost, true).sound);
        assert!(!covered("nothing", true).sound, "a load that tells nothing");
    }
}

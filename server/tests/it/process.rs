//! A server in a process of its own, which can be killed and whose memory is its own.
//!
//! The process is this test binary again, told to run one ignored test that serves.

use crate::student::Server;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

/// A server in another process, killed at the end.
pub struct Process {
    child: Child,
    pub server: Server,
}

impl Process {
    /// Starts the ignored test of this name, which serves and says so with [`announce`].
    pub fn start(test: &str, variables: &[(&str, &OsStr)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address =
            lines.find_map(|line| line.unwrap().strip_prefix("listening on ")?.parse().ok()).unwrap();
        // Whatever else it prints would end it with a broken pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Process { child, server: Server::elsewhere(address) }
    }

    /// Bytes of its memory that are in use.
    #[cfg(target_os = "linux")]
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL, where there are signals.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Says where the server is, and waits until the process is killed or the test that started it is gone.
pub fn announce(server: &Server) {
    println!("\nlistening on {}", server.address);
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

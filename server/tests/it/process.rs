//! A server in a process of its own, which can be killed and whose memory is its own.
//!
//! The process is this test binary again, told to run one ignored test that serves.

use crate::student::Server;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// A server in another process, killed at the end.
pub struct Process {
    child: Child,
    pub server: Server,
    /// The operator's door, if it said one.
    pub operators: Option<SocketAddr>,
}

impl Process {
    /// Starts the ignored test of this name, which serves and says so with [`announce`].
    pub fn start(test: &str, variables: &[(&str, &OsStr)]) -> Self {
        Self::start_as(&mut Command::new(std::env::current_exe().unwrap()), test, variables)
    }

    /// The same with so many open files, and so much memory mapped, at most.
    #[cfg(target_os = "linux")]
    pub fn limited(test: &str, variables: &[(&str, &OsStr)], files: u64, memory: u64) -> Self {
        let script = format!("ulimit -n {files}; ulimit -v {}; exec \"$0\" \"$@\"", memory >> 10);
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).arg(std::env::current_exe().unwrap());
        Self::start_as(&mut shell, test, variables)
    }

    fn start_as(command: &mut Command, test: &str, variables: &[(&str, &OsStr)]) -> Self {
        let mut child = command
            .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut operators = None;
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            if let Some(address) = line.strip_prefix("operators at ") {
                operators = address.parse().ok();
            }
            line.strip_prefix("listening on ")?.parse().ok()
        });
        // Whatever else it prints would end it with a broken pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Process { child, server: Server::elsewhere(address.unwrap()), operators }
    }

    /// Bytes of its memory that are in use.
    #[cfg(target_os = "linux")]
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS")
    }

    /// Bytes of its memory, by a line of its status.
    #[cfg(target_os = "linux")]
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        found.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
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

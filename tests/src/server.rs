//! A teacher server with the bundled teachers, as `oto serve` runs it, in a thread of the test.

use oto_server::{Policies, ServerConfig};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// A running server; dropping it stops it.
pub struct Server {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A port of 127.0.0.1 on which nothing listens now.
///
/// # Panics
/// If there is none.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

impl Server {
    /// Starts on this port of 127.0.0.1, 0 for any.
    ///
    /// # Panics
    /// If the port is taken or a teacher cannot be read.
    pub fn start(port: u16) -> Self {
        Self::with(port, None, None)
    }

    /// Starts with the learner `learner`, as `--learn learner=FILE` hosts it.
    ///
    /// # Panics
    /// As [`Self::start`]; if the file describes no learner.
    pub fn learning(port: u16, file: &Path) -> Self {
        Self::with(port, Some(format!("learner={}", file.display())), None)
    }

    /// Starts with the shared agent `pole`, as `--share pole=FILE` shares it.
    ///
    /// # Panics
    /// As [`Self::start`]; if the file describes no such agent.
    pub fn sharing(port: u16, file: &Path) -> Self {
        Self::with(port, None, Some(format!("pole={}", file.display())))
    }

    fn with(port: u16, learn: Option<String>, share: Option<String>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        let listener = listener.expect("the port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let teachers = oto_policy::bundled::all().expect("the bundled teachers are sound");
        let mut config = ServerConfig::new(Policies::new(teachers).expect("their names differ"));
        let learners = learn.map(|flag| oto_cli::learner::learner(&flag).expect("a learner"));
        let learners = learners.into_iter().collect();
        let (learners, learning) =
            oto_server::learner::start(learners, &config.policies).expect("their names differ");
        config.learners = learners;
        let shared = share.map(|flag| oto_cli::share::share(&flag).expect("a shared agent"));
        let shared = oto_cli::share::start(shared.into_iter().collect(), &config.policies);
        config.shares = shared.expect("their names differ").0;
        // Nobody else comes back with these students.
        config.limits.restart_spread = Duration::from_millis(100);
        let (stop, stopped) = oneshot::channel();
        let serve = async { oto_server::run(listener, config, async { drop(stopped.await) }).await };
        let thread = std::thread::spawn(move || {
            runtime.block_on(serve).expect("the server stops in peace");
            drop(learning);
        });
        Self { port, stop: Some(stop), thread: Some(thread) }
    }

    /// Its address as `--teacher` takes it.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let stopped = thread.join();
            assert!(stopped.is_ok() || std::thread::panicking(), "the server failed");
        }
    }
}

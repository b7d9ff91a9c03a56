//! The audit log: who wanted what, when, and what they got; one JSON object a line. Never a secret.
//!
//! A thread writes, so that nobody waits for a disk. Lines that it has no room for are counted in the next one.

use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines that wait for the disk.
const WAITING: usize = 4096;

/// The way to the log; clones share it.
#[derive(Clone)]
pub struct Audit {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

/// One line.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    /// Seconds since 1970.
    pub time: f64,
    /// A machine, a page, an operator; absent where nobody said who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// `handshake`, `ticket`, `hello`, `model`, `publish`, ...
    pub what: &'static str,
    /// The policy it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// `granted`, or why not.
    pub verdict: String,
    /// Lines that were lost before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

impl Audit {
    /// Appends to a file, which is made if it is not there.
    ///
    /// # Errors
    /// If the file cannot be opened or no thread started.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (lines, queue) = sync_channel(WAITING);
        std::thread::Builder::new().name("audit".into()).spawn(move || write_all(file, &queue))?;
        Ok(Audit { lines, lost: Arc::default() })
    }

    /// Notes something.
    pub(crate) fn note(
        &self,
        who: Option<&str>,
        address: Option<IpAddr>,
        what: &'static str,
        policy: Option<&str>,
        verdict: impl Into<String>,
    ) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
        let lost = match self.lost.swap(0, Ordering::Relaxed) {
            0 => None,
            lost => Some(lost),
        };
        let (who, policy) = (who.map(str::to_owned), policy.map(str::to_owned));
        let line = Line { time, who, address, what, policy, verdict: verdict.into(), lost };
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1 + lost.unwrap_or(0), Ordering::Relaxed);
        }
    }
}

fn write_all(file: File, lines: &Receiver<Line>) {
    let mut file = BufWriter::new(file);
    while let Ok(first) = lines.recv() {
        for line in std::iter::once(first).chain(lines.try_iter()) {
            // A full disk loses lines, not students.
            let text = serde_json::to_string(&line).unwrap_or_default();
            drop(writeln!(file, "{text}"));
        }
        drop(file.flush());
    }
}

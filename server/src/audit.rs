//! The audit log: who wanted what, when, and what they got; one JSON object a line. Never a secret.
//!
//! A thread writes, so that nobody waits for a disk. Lines that find no room, in its queue or on the disk, are counted in a later one. The file is
//! put aside when it is full, and what was put aside long ago goes.

pub use crate::rotated::Rotation;

use crate::rotated::Rotated;
use crate::seldom::Seldom;
use serde::Serialize;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::warn;

/// Lines that wait for the disk.
const WAITING: usize = 4096;

/// The way to the log; clones share it. When the last one goes, what was noted has been written.
#[derive(Clone)]
pub struct Audit(Arc<Desk>);

struct Desk {
    /// There until the end.
    lines: Option<SyncSender<Line>>,
    lost: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
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
    pub fn open(path: &Path, rotation: Rotation) -> std::io::Result<Self> {
        let file = Rotated::open(path, rotation)?;
        let (lines, queue) = sync_channel(WAITING);
        let lost = Arc::<AtomicU64>::default();
        let write = {
            let lost = lost.clone();
            move || write_all(file, &queue, &lost)
        };
        let writer = std::thread::Builder::new().name("audit".into()).spawn(write)?;
        Ok(Audit(Arc::new(Desk { lines: Some(lines), lost, writer: Some(writer) })))
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
        let lost = match self.0.lost.swap(0, Ordering::Relaxed) {
            0 => None,
            lost => Some(lost),
        };
        let (who, policy) = (who.map(str::to_owned), policy.map(str::to_owned));
        let line = Line { time, who, address, what, policy, verdict: verdict.into(), lost };
        if self.0.lines.as_ref().is_some_and(|lines| lines.try_send(line).is_err()) {
            count(&self.0.lost, lost);
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        drop(self.lines.take());
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

/// A line is lost, and those with it that it was to tell of.
fn count(lost: &AtomicU64, told: Option<u64>) {
    lost.fetch_add(1 + told.unwrap_or(0), Ordering::Relaxed);
}

fn write_all(mut file: Rotated, lines: &Receiver<Line>, lost: &AtomicU64) {
    let failures = Seldom::default();
    for line in lines {
        let text = serde_json::to_string(&line).unwrap_or_default();
        // A full disk loses lines, not students.
        if let Err(error) = file.add(&text) {
            count(lost, line.lost);
            if let Some(times) = failures.again() {
                warn!(error = error.to_string(), times, "the audit log loses lines");
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs;

    /// Opened by hand, noted from many threads, put aside many times, opened again: each line is there once, and each file can be read by itself.
    #[test]
    fn nothing_is_lost_when_files_are_put_aside() {
        let folder = std::env::temp_dir().join(format!("oto-audit-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (path, rotation) = (folder.join("audit.jsonl"), Rotation { bytes: 4096, keep: 1000 });
        let (threads, notes) = (4_u64, 500);
        for round in 0..2 {
            let audit = Audit::open(&path, rotation).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    let audit = audit.clone();
                    let note =
                        move |i| audit.note(None, None, "hello", None, format!("{round} {thread} {i}"));
                    scope.spawn(move || (0..notes).for_each(note));
                }
            });
        }
        let files: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
            .collect();
        fs::remove_dir_all(&folder).unwrap();
        assert!(files.len() > 10 && files.iter().all(|text| text.len() <= 4096 && text.ends_with('\n')));
        let lines = files.iter().flat_map(|text| text.lines());
        let mut told: Vec<_> = lines
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .inspect(|line| assert_eq!(line["lost"], serde_json::Value::Null, "fewer than may wait"))
            .map(|line| line["verdict"].as_str().unwrap().to_owned())
            .collect();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len() as u64, 2 * threads * notes);
    }
}

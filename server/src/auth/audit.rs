//! The audit log: who wanted what, when, and what they got; one JSON object a line. Never a secret.
//!
//! A thread writes, so that no connection waits for a disk. Lines that find no room, in its queue or on the disk, are counted in a later one. The file is
//! put aside when it is full, and what was put aside long ago goes.
//!
//! What strangers can cause at will, and refusals of all kinds, have a share of the files and of each day, each address and machine
//! a share of that: what is granted to those who are known is not pushed out by it. What is left out is counted, too.

pub use crate::observe::rotated::Rotation;

use crate::auth::budget::{Bucket, Buckets, Payer, Rate, lock};
use crate::observe::log_throttle::LogThrottle;
use crate::observe::rotated::Rotated;
use serde::Serialize;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::warn;

/// Lines that wait for the disk.
const WAITING: usize = 4096;
/// At the end, for lines that are not written yet.
const LAST_LINES: Duration = Duration::from_secs(5);

/// The way to the log; clones share it. When the last one goes, what was noted has been written.
#[derive(Clone)]
pub struct Audit(Arc<Shared>);

struct Shared {
    /// There until the end.
    lines: Option<SyncSender<Line>>,
    queue: Arc<Waiting>,
    shares: Shares,
    left_out: AtomicU64,
    /// Ends with the thread that writes.
    written: Mutex<Receiver<()>>,
}

#[derive(Default)]
struct Waiting {
    lines: AtomicUsize,
    lost: AtomicU64,
}

/// Who did something, for the log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who<'a> {
    /// The operator.
    Operator,
    /// A machine, by its token.
    Known(&'a str),
    /// Somebody of whom no more is known than this.
    Anyone(&'a str),
    /// Somebody of whom nothing is known.
    Nobody,
}

impl Who<'_> {
    fn name(&self) -> Option<&str> {
        match self {
            Who::Operator => Some("operator"),
            Who::Known(name) | Who::Anyone(name) => Some(name),
            Who::Nobody => None,
        }
    }
}

/// What is written of whom.
struct Shares {
    /// Bytes of strangers to whom something was granted, and of refusals.
    strangers: Mutex<Bucket>,
    refusals: Mutex<Bucket>,
    /// Lines of each.
    machine: Buckets<Payer>,
    address: Buckets<Payer>,
}

/// Lines of a machine, and of an address.
const MACHINE: Rate = Rate { per_second: 16.0, most: 4096.0 };
const ADDRESS: Rate = Rate { per_second: 0.2, most: 64.0 };
/// Of all bytes that are kept, strangers fill one of so many at once, and again in a day. Refusals fill a quarter of that.
const STRANGERS: u64 = 16;
/// The longest name, and the longest verdict, in bytes.
const LONGEST: usize = 512;

impl Shares {
    fn of(rotation: Rotation) -> Self {
        let Rotation { bytes, keep } = if rotation.bytes == 0 { Rotation::default() } else { rotation };
        let all = bytes.saturating_mul(u64::from(keep) + 1);
        let share = |of: u64| {
            let most = (all / of).max(1) as f64;
            Mutex::new(Bucket::new(Rate { per_second: most / 86_400.0, most }))
        };
        Shares {
            strangers: share(STRANGERS),
            refusals: share(4 * STRANGERS),
            machine: Buckets::new(MACHINE),
            address: Buckets::new(ADDRESS),
        }
    }

    /// Whether a line of about so many bytes is written.
    fn take(&self, who: Who<'_>, address: Option<IpAddr>, granted: bool, bytes: usize) -> bool {
        let one = match (who, address) {
            (Who::Operator, _) => return true,
            (Who::Known(name), _) => self.machine.spend(&Payer::Machine(name.into()), 1.0),
            (_, Some(address)) => self.address.spend(&Payer::at(address), 1.0),
            (_, None) => Ok(()),
        };
        let all = match (who, granted) {
            (_, false) => &self.refusals,
            (Who::Known(_), true) => return one.is_ok(),
            (_, true) => &self.strangers,
        };
        one.is_ok() && lock(all).spend(bytes as f64).is_ok()
    }
}

/// One line.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    /// Seconds since 1970.
    pub time: f64,
    /// A machine, a page, an operator; absent without authentication.
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
    /// Lines of strangers, and refusals, that were left out before this one: there were too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<u64>,
}

impl Audit {
    /// Appends to a file, which is made if it is not there.
    ///
    /// # Errors
    /// If the file cannot be opened or no thread started.
    pub fn open(path: &Path, rotation: Rotation) -> std::io::Result<Self> {
        let file = Rotated::open(path, rotation)?;
        let (lines, waiting) = sync_channel(WAITING);
        let queue = Arc::<Waiting>::default();
        let (writing, written) = sync_channel(0);
        let write = {
            let queue = queue.clone();
            move || {
                write_all(file, &waiting, &queue);
                drop::<SyncSender<()>>(writing);
            }
        };
        std::thread::Builder::new().name("audit".into()).spawn(write)?;
        let (lines, shares, left_out) = (Some(lines), Shares::of(rotation), AtomicU64::new(0));
        Ok(Audit(Arc::new(Shared { lines, queue, shares, left_out, written: written.into() })))
    }

    /// Notes something. A verdict other than `granted` is a refusal.
    pub(crate) fn note(
        &self,
        who: Who<'_>,
        address: Option<IpAddr>,
        what: &'static str,
        policy: Option<&str>,
        verdict: &str,
    ) {
        let Shared { lines, queue, shares, left_out, .. } = &*self.0;
        let (granted, name) = (verdict == "granted", who.name());
        let bytes = 100 + verdict.len() + policy.map_or(0, str::len) + name.map_or(0, str::len);
        // Half of the queue is for those who are known.
        let known = granted && matches!(who, Who::Operator | Who::Known(_));
        let full = !known && queue.lines.load(Ordering::Relaxed) > WAITING / 2;
        if full || !shares.take(who, address, granted, bytes) {
            left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
        let taken = |count: &AtomicU64| Some(count.swap(0, Ordering::Relaxed)).filter(|count| *count > 0);
        let (lost, left) = (taken(&queue.lost), taken(left_out));
        let (who, policy) = (name.map(short), policy.map(short));
        let line = Line { time, who, address, what, policy, verdict: short(verdict), lost, left_out: left };
        queue.lines.fetch_add(1, Ordering::Relaxed);
        if lines.as_ref().is_some_and(|lines| lines.try_send(line).is_err()) {
            queue.lines.fetch_sub(1, Ordering::Relaxed);
            count(&queue.lost, lost);
            left_out.fetch_add(left.unwrap_or(0), Ordering::Relaxed);
        }
    }
}

/// A text that is no longer than is written of one.
fn short(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST)].to_owned()
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(self.lines.take());
        // A pipe that nobody reads any more takes no line.
        let _ = lock(&self.written).recv_timeout(LAST_LINES);
    }
}

/// A line is lost, and those with it that it was to tell of.
fn count(lost: &AtomicU64, told: Option<u64>) {
    lost.fetch_add(1 + told.unwrap_or(0), Ordering::Relaxed);
}

fn write_all(mut file: Rotated, lines: &Receiver<Line>, queue: &Waiting) {
    let failures = LogThrottle::default();
    for line in lines {
        queue.lines.fetch_sub(1, Ordering::Relaxed);
        let text = serde_json::to_string(&line).unwrap_or_default();
        // A full disk loses lines, not students.
        if let Err(error) = file.add(&text) {
            count(&queue.lost, line.lost);
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
                    let note = move |i| {
                        audit.note(Who::Operator, None, "hello", None, &format!("{round} {thread} {i}"))
                    };
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

    /// A folder's log after this was noted: all its lines, however many files.
    fn written(name: &str, rotation: Rotation, note: impl FnOnce(&Audit)) -> Vec<serde_json::Value> {
        let folder = std::env::temp_dir().join(format!("oto-audit-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let audit = Audit::open(&folder.join("audit.jsonl"), rotation).unwrap();
        note(&audit);
        drop(audit);
        let files =
            fs::read_dir(&folder).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
        let text: String = files.collect();
        fs::remove_dir_all(&folder).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// However strangers try, from one address or from many, what was granted before to those who are known is still there.
    #[test]
    fn strangers_and_refusals_do_not_push_out_what_was_granted() {
        let long = "x".repeat(8000);
        let rotation = Rotation { bytes: 32 << 10, keep: 2 };
        type Note = fn(&Audit, Option<IpAddr>, &str);
        let floods: [(&str, Note); 4] = [
            ("refused", |audit, from, _| audit.note(Who::Nobody, from, "hello", None, "expected a ticket")),
            ("pages", |audit, from, _| {
                audit.note(Who::Anyone("page https://a"), from, "ticket", None, "granted")
            }),
            ("long", |audit, from, long| audit.note(Who::Anyone(long), from, "ticket", Some(long), long)),
            ("machine", |audit, from, _| audit.note(Who::Known("rogue"), from, "hello", None, "not granted")),
        ];
        for (name, flood) in floods {
            for addresses in [1_u32, 20_000] {
                let told = written(name, rotation, |audit| {
                    audit.note(Who::Operator, None, "publish", Some("a"), "granted");
                    audit.note(Who::Known("box"), None, "hello", Some("a"), "granted");
                    (0..20_000_u32)
                        .for_each(|i| flood(audit, Some(IpAddr::from((i % addresses).to_be_bytes())), &long));
                    // The thread that writes comes by.
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    audit.note(Who::Operator, None, "rollback", Some("a"), "granted");
                });
                let known =
                    |what: &str| told.iter().any(|line| line["what"] == what && line["verdict"] == "granted");
                assert!(known("publish") && known("hello") && known("rollback"), "{name} from {addresses}");
                let counted: u64 = told.iter().map(|line| line["left_out"].as_u64().unwrap_or(0)).sum();
                assert_eq!(
                    told.len() as u64 - 3 + counted,
                    20_000,
                    "{name} from {addresses}: each is there or counted"
                );
            }
        }
    }
}

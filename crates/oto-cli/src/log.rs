//! The log of `oto serve`: what the server tells `tracing`, a line an event on standard error, as text or as JSON.
//!
//! A thread writes, so that nobody waits for whoever reads. Lines that it has no room for, or that come too fast for a disk to
//! keep, are counted and left out: a peer cannot fill a disk, whatever the level.

#[cfg(feature = "otlp")]
use crate::otlp::{Exporting, OtlpOptions};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;

/// What to log, and how.
#[derive(Args, Clone, Debug)]
pub struct LogOptions {
    /// Format of the log on standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub log: Format,
    /// Lowest level of logged events; events that any peer can cause at will have the level debug
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Level::Info)]
    pub log_level: Level,
    /// Spans.
    #[cfg(feature = "otlp")]
    #[command(flatten)]
    pub otlp: OtlpOptions,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// How important an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// No log.
    Off,
    /// Failures.
    Error,
    /// Warnings.
    Warn,
    /// Server and policy events.
    Info,
    /// Connections, requests and grants.
    Debug,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => LevelFilter::OFF,
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
        }
    }
}

/// Lines that wait to be written.
const WAITING: usize = 4096;
/// The longest line, in bytes.
const LONGEST: usize = 8 << 10;
/// What is written in a second, in bytes: a few hundred lines, and of a whole day a few gigabytes.
const BYTES_A_SECOND: usize = 64 << 10;
/// For what waits when the program ends.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The log, until it is dropped.
pub struct Log {
    /// It may have something to say at its end.
    #[cfg(feature = "otlp")]
    _exporting: Option<Exporting>,
    _lines: LastLines,
}

/// Lets what waits be written.
struct LastLines {
    lines: SyncSender<Option<Vec<u8>>>,
    written: Receiver<()>,
}

/// The way to the thread that writes.
#[derive(Clone)]
struct Lines {
    /// None is the end.
    queue: SyncSender<Option<Vec<u8>>>,
    lost: Arc<AtomicU64>,
}

impl LogOptions {
    /// Starts to log. A program that has told `tracing` where its events go before keeps that.
    ///
    /// # Errors
    /// If no thread can be started, or the collector's address is none.
    pub fn start(&self) -> io::Result<Log> {
        let (queue, waiting) = sync_channel(WAITING);
        let (done, written) = sync_channel(1);
        let lines = Lines { queue: queue.clone(), lost: Arc::default() };
        let (format, lost) = (self.log, lines.lost.clone());
        std::thread::Builder::new().name("log".into()).spawn(move || {
            write_all(&waiting, &lost, format, &mut io::stderr());
            // Nobody may wait for it.
            let _ = done.send(());
        })?;
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || lines.clone());
        let layer = match self.log {
            Format::Text => layer.boxed(),
            Format::Json => {
                layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
            }
        };
        let layer = layer.with_filter(events(self.log_level));
        #[cfg_attr(not(feature = "otlp"), expect(unused_mut))]
        let mut layers = vec![layer.boxed()];
        #[cfg(feature = "otlp")]
        let exporting = self.otlp.start()?.map(|(exporting, listeners)| {
            layers.extend(listeners);
            exporting
        });
        drop(tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layers)));
        Ok(Log {
            #[cfg(feature = "otlp")]
            _exporting: exporting,
            _lines: LastLines { lines: queue, written },
        })
    }
}

/// Events of this importance, and no spans.
fn events(level: Level) -> Targets {
    Targets::new()
        .with_target("oto", LevelFilter::from(level))
        .with_target("oto_server::observe::spans", LevelFilter::OFF)
}

impl Drop for LastLines {
    fn drop(&mut self) {
        // Where there is no room, nobody reads.
        if self.lines.try_send(None).is_ok() {
            let _ = self.written.recv_timeout(LAST_LINES);
        }
    }
}

impl Write for Lines {
    /// Takes a whole line, as it is called with.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.len() > LONGEST || self.queue.try_send(Some(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines until the end of them.
fn write_all(lines: &Receiver<Option<Vec<u8>>>, lost: &AtomicU64, format: Format, out: &mut impl Write) {
    let (mut second, mut written) = (Instant::now(), 0);
    // A line that cannot be written is nobody's any more.
    let say_lost = |out: &mut dyn Write| match lost.swap(0, Ordering::Relaxed) {
        0 => {}
        lines => drop(out.write_all(lost_line(format, lines).as_bytes())),
    };
    while let Ok(Some(line)) = lines.recv() {
        if second.elapsed() >= Duration::from_secs(1) {
            (second, written) = (Instant::now(), 0);
            say_lost(out);
        }
        written += line.len();
        if written > BYTES_A_SECOND {
            lost.fetch_add(1, Ordering::Relaxed);
        } else {
            drop(out.write_all(&line));
        }
    }
    say_lost(out);
}

/// A line as the others are, that so many of them were left out.
fn lost_line(format: Format, lines: u64) -> String {
    let mut time = String::new();
    // Writing to a string does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let (target, message) = (module_path!(), "lines of this log were left out");
    match format {
        Format::Text => format!("{time}  WARN {target}: {message} lines={lines}\n"),
        Format::Json => {
            let line = json!({ "timestamp": time, "level": "WARN", "message": message, "lines": lines, "target": target });
            format!("{line}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written of so many lines, and how many were lost before.
    fn written(lines: u64, lost_before: u64, format: Format) -> Vec<String> {
        let (queue, waiting) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(lost_before));
        let mut way = Lines { queue: queue.clone(), lost: lost.clone() };
        for line in 0..lines {
            way.write_all(format!("{line:0100}\n").as_bytes()).unwrap();
        }
        drop((way, queue));
        let mut out = Vec::new();
        write_all(&waiting, &lost, format, &mut out);
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_that_come_too_fast_or_find_no_room_are_counted_and_left_out() {
        let many = WAITING as u64 + 1000;
        let second = (BYTES_A_SECOND / 101) as u64;
        let lines = written(many, 0, Format::Json);
        let (plain, told): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.parse::<u64>().is_ok());
        let lost: u64 = told
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["lines"].as_u64().unwrap())
            .sum();
        assert_eq!(plain.len() as u64 + lost, many);
        assert!(lost >= 1000 && plain.len() as u64 >= second, "{lost} lost of {many}");
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out() {
        let (queue, waiting) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let mut lines = Lines { queue, lost: lost.clone() };
        lines.write_all(&vec![b'x'; LONGEST + 1]).unwrap();
        assert_eq!((waiting.try_recv().is_err(), lost.load(Ordering::Relaxed)), (true, 1));
    }

    #[test]
    fn what_was_lost_before_the_end_is_told_at_the_end() {
        let lines = written(1, 3, Format::Text);
        assert_eq!(lines.len(), 2);
        assert!(
            lines[1].ends_with("WARN oto_cli::log: lines of this log were left out lines=3"),
            "{lines:?}"
        );
    }
}

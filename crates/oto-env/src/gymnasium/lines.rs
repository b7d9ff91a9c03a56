//! What an environment prints, passed on line by line: named, without control characters, and not more than a terminal can show.

use crate::gymnasium::conversation::Tell;
use std::time::{Duration, Instant};

/// Bytes of a line that are shown.
const LONGEST_LINE: usize = 1000;
/// Bytes that are shown in a second.
const PER_SECOND: usize = 1 << 16;

/// The lines of one process.
pub(crate) struct Lines {
    name: String,
    tell: Tell,
    line: Vec<u8>,
    /// Bytes of this line that are not kept.
    cut: usize,
    /// When this second began, what was shown in it, and how many lines were not.
    second: Instant,
    shown: usize,
    left_out: usize,
}

impl Lines {
    pub fn new(name: &str, tell: Tell) -> Self {
        let second = Instant::now();
        Self { name: name.into(), tell, line: Vec::new(), cut: 0, second, shown: 0, left_out: 0 }
    }

    /// The process printed these bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.keep(&bytes[..end]);
            self.show();
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// The process will print no more.
    pub fn end(&mut self) {
        if !self.line.is_empty() {
            self.show();
        }
        self.tell_left_out();
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LONGEST_LINE - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.cut += bytes.len().saturating_sub(room);
    }

    fn show(&mut self) {
        if self.second.elapsed() >= Duration::from_secs(1) {
            self.tell_left_out();
            (self.second, self.shown) = (Instant::now(), 0);
        }
        if self.shown + self.line.len() > PER_SECOND {
            self.left_out += 1;
        } else {
            let text = printable(String::from_utf8_lossy(&self.line).trim_end_matches('\r'));
            let more = if self.cut > 0 { format!("... ({} bytes more)", self.cut) } else { String::new() };
            (self.tell)(&format!("{}: {text}{more}", self.name));
            // An empty line takes room too.
            self.shown += self.line.len() + 1;
        }
        self.line.clear();
        self.cut = 0;
    }

    fn tell_left_out(&mut self) {
        if self.left_out > 0 {
            (self.tell)(&format!("{}: {} lines more in this second", self.name, self.left_out));
            self.left_out = 0;
        }
    }
}

/// A text without characters that steer a terminal: they are shown as Rust writes them. Tabs and line breaks stay, colours go.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = after;
        match c {
            '\x1b' if colour(after).is_some() => rest = &after[colour(after).unwrap_or(0)..],
            '\t' | '\n' => out.push(c),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// Where a sequence such as `[33m` ends that sets a colour.
fn colour(text: &str) -> Option<usize> {
    let codes = text.strip_prefix('[')?.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
    codes.starts_with('m').then(|| text.len() - codes.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());

    #[test]
    fn lines_are_named_cut_and_counted() {
        let mut lines = Lines::new("gym:Loud-v0", |line| HEARD.lock().unwrap().push(line.into()));
        lines.push(b"one\ntw");
        lines.push(b"o\x1b[31m\x1b[2J\r\n");
        lines.push(&[b'x'; 5000]);
        lines.push(b"\nlast");
        lines.end();
        let heard = std::mem::take(&mut *HEARD.lock().unwrap());
        let long = format!("gym:Loud-v0: {}... (4000 bytes more)", "x".repeat(1000));
        let expected = ["gym:Loud-v0: one", "gym:Loud-v0: two\\u{1b}[2J", &long, "gym:Loud-v0: last"];
        assert_eq!(heard, expected);
        (0..1000).for_each(|_| lines.push(&[&[b'y'; 999][..], b"\n"].concat()));
        lines.end();
        let heard = std::mem::take(&mut *HEARD.lock().unwrap());
        // A machine may take longer than a second for them.
        let all = heard.iter().filter(|line| line.ends_with('y')).count();
        let told: usize = heard.iter().filter_map(|line| line.split(' ').nth(1)?.parse::<usize>().ok()).sum();
        assert!(all >= 60 && all + told == 1000, "{all} and {told}");
    }
}

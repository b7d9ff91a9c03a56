//! What was measured, as numbers, as a table and as JSON.

use super::plan::{Pace, Plan};
use super::process::Used;
use super::publish::Published;
use super::student::Student;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::time::Instant;

/// Counts while it is measured.
pub(crate) struct Recorder {
    from: Instant,
    to: Instant,
    /// Latencies in microseconds.
    latencies: Histogram<u64>,
    sent: u64,
    answered: u64,
    overloaded: u64,
    wrong: u64,
    first_wrong: Option<String>,
    lost: u64,
    closed: u64,
    versions: BTreeSet<u32>,
}

/// The longest latency that is told from longer ones: an hour, in microseconds.
const LONGEST: u64 = 3_600_000_000;
/// Significant digits.
const DIGITS: u8 = 3;

impl Recorder {
    pub fn new(from: Instant, to: Instant) -> Self {
        Recorder {
            from,
            to,
            latencies: Histogram::new_with_max(LONGEST, DIGITS).expect("sound bounds"),
            sent: 0,
            answered: 0,
            overloaded: 0,
            wrong: 0,
            first_wrong: None,
            lost: 0,
            closed: 0,
            versions: BTreeSet::new(),
        }
    }

    /// Whether a request of this time counts.
    fn counts(&self, intended: Instant) -> bool {
        (self.from..self.to).contains(&intended)
    }

    pub fn sent(&mut self, intended: Instant) {
        self.sent += u64::from(self.counts(intended));
    }

    /// A student that is not there any more should have asked.
    pub fn unsent(&mut self, intended: Instant) {
        self.sent(intended);
        self.lost += u64::from(self.counts(intended));
    }

    pub fn answered(&mut self, intended: Instant, now: Instant, version: u32) {
        self.versions.insert(version);
        if self.counts(intended) {
            self.answered += 1;
            let latency = (now - intended).as_micros();
            self.latencies.saturating_record(u64::try_from(latency).unwrap_or(u64::MAX));
        }
    }

    pub fn overloaded(&mut self, intended: Instant) {
        self.overloaded += u64::from(self.counts(intended));
    }

    pub fn wrong(&mut self, why: String) {
        self.wrong += 1;
        self.first_wrong.get_or_insert(why);
    }

    pub fn closed(&mut self, student: &Student) {
        self.closed += 1;
        self.lost(student);
    }

    /// What nobody answered.
    pub fn lost(&mut self, student: &Student) {
        let lost = student.pending.iter().filter(|(_, intended)| self.counts(*intended)).count();
        self.lost += lost as u64;
    }

    pub fn done(self, plan: &Plan, server: Option<Used>, published: Option<Published>) -> Measurement {
        let seconds = plan.measured.as_secs_f64();
        let at = |share: f64| self.latencies.value_at_quantile(share) as f64 / 1e3;
        Measurement {
            students: plan.students,
            requests_per_second_each: match plan.pace {
                Pace::Open(rate) => Some(rate),
                Pace::Saturate(_) => None,
            },
            rows: plan.rows,
            seconds,
            sent: self.sent,
            answered: self.answered,
            overloaded: self.overloaded,
            wrong: self.wrong,
            first_wrong: self.first_wrong,
            lost: self.lost,
            closed: self.closed,
            versions: self.versions.len(),
            answered_per_second: self.answered as f64 / seconds,
            states_per_second: self.answered as f64 * f64::from(plan.rows) / seconds,
            milliseconds: Latency {
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: self.latencies.max() as f64 / 1e3,
            },
            server,
            published,
        }
    }
}

/// How long answers took, from when their request was to be sent, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Of one in two.
    pub p50: f64,
    /// Of nine in ten.
    pub p90: f64,
    /// Of 99 in 100.
    pub p99: f64,
    /// Of 999 in 1,000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// One load and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Students.
    pub students: usize,
    /// How often each of them asked; none if as often as it was answered.
    pub requests_per_second_each: Option<f64>,
    /// States in a request.
    pub rows: u16,
    /// How long it was measured.
    pub seconds: f64,
    /// Requests that were to be sent in this time.
    pub sent: u64,
    /// Those of them that were answered.
    pub answered: u64,
    /// Those that the server dropped.
    pub overloaded: u64,
    /// Messages that no server should send, and refusals.
    pub wrong: u64,
    /// The first of them.
    pub first_wrong: Option<String>,
    /// Requests that nothing came of.
    pub lost: u64,
    /// Connections that ended.
    pub closed: u64,
    /// Versions of the policy that answered.
    pub versions: usize,
    /// Answers in a second.
    pub answered_per_second: f64,
    /// States answered in a second.
    pub states_per_second: f64,
    /// How long they took.
    pub milliseconds: Latency,
    /// What the server's process used.
    pub server: Option<Used>,
    /// What was published meanwhile.
    pub published: Option<Published>,
}

/// A server beside what it is held to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The server.
    pub server: Measurement,
    /// An echo under the same load.
    pub echo: Option<Measurement>,
    /// States in a second of the policy alone, called in a loop.
    pub ceiling_states_per_second: Option<f64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut columns = vec![("server", &self.server)];
        columns.extend(self.echo.as_ref().map(|echo| ("echo", echo)));
        let mut row = |name: &str, cell: &dyn Fn(&Measurement) -> String| {
            let mut line = format!("{name:<26}");
            columns.iter().try_for_each(|(_, m)| write!(line, "{:>14}", cell(m)))?;
            writeln!(f, "{}", line.trim_end())
        };
        row("", &|m| if std::ptr::eq(m, &self.server) { "server".into() } else { "echo".into() })?;
        row("sent", &|m| m.sent.to_string())?;
        row("answered", &|m| m.answered.to_string())?;
        row("overloaded", &|m| m.overloaded.to_string())?;
        row("lost", &|m| m.lost.to_string())?;
        row("wrong", &|m| m.wrong.to_string())?;
        row("connections ended", &|m| m.closed.to_string())?;
        row("versions", &|m| m.versions.to_string())?;
        row("answers in a second", &|m| format!("{:.0}", m.answered_per_second))?;
        row("states in a second", &|m| format!("{:.0}", m.states_per_second))?;
        let latency = |f: fn(&Latency) -> f64| move |m: &Measurement| format!("{:.3} ms", f(&m.milliseconds));
        row("half within", &latency(|l| l.p50))?;
        row("90 in 100 within", &latency(|l| l.p90))?;
        row("99 in 100 within", &latency(|l| l.p99))?;
        row("999 in 1,000 within", &latency(|l| l.p999))?;
        row("all within", &latency(|l| l.max))?;
        if let Some(states) = self.ceiling_states_per_second {
            let share = 100.0 * self.server.states_per_second / states;
            writeln!(
                f,
                "the policy alone: {states:.0} states in a second; the server gave {share:.0} % of that"
            )?;
        }
        if let Some(echo) = &self.echo {
            let ratio = self.server.milliseconds.p99 / echo.milliseconds.p50;
            writeln!(f, "the server's 99 in 100 are within {ratio:.1} times the echo's half")?;
        }
        if let Some(used) = &self.server.server {
            let kib = |bytes: f64| bytes / 1024.0;
            let states = self.server.answered as f64 * f64::from(self.server.rows);
            writeln!(
                f,
                "the server's process: {:.1} KiB for each idle student, {:.0} KiB in all; {:.2} s of processor, {:.2} us a state",
                kib(used.bytes_per_student),
                kib(used.resident_after as f64),
                used.processor_seconds,
                1e6 * used.processor_seconds / states.max(1.0),
            )?;
        }
        if let Some(published) = &self.server.published {
            writeln!(
                f,
                "published {} times of {}, the slowest in {:.1} ms, at most {:.1} ms after the one before",
                published.done, published.due, published.slowest_ms, published.longest_gap_ms
            )?;
            published
                .refused
                .iter()
                .try_for_each(|why| writeln!(f, "the first that was not published: {why}"))?;
        }
        if let Some(wrong) = &self.server.first_wrong {
            writeln!(f, "the first that was wrong: {wrong}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_late_answer_counts_from_when_its_request_was_to_be_sent() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut recorder = Recorder::new(start + second, start + 2 * second);
        for at in [0, 1000, 1500, 2000] {
            let intended = start + Duration::from_millis(at);
            recorder.sent(intended);
            recorder.answered(intended, intended + Duration::from_millis(300), 7);
        }
        let plan = Plan {
            students: 1,
            pace: Pace::Open(2.0),
            rows: 4,
            warm_up: second,
            measured: second,
            patience: second,
            seed: 0,
            publish: None,
        };
        let measured = recorder.done(&plan, None, None);
        assert_eq!((measured.sent, measured.answered, measured.versions), (2, 2, 1), "the middle two");
        assert!((measured.milliseconds.p50 - 300.0).abs() < 1.0);
        assert_eq!(measured.states_per_second, 8.0);
        let report = Report { server: measured, echo: None, ceiling_states_per_second: Some(16.0) };
        assert!(report.to_string().contains("50 %"), "{report}");
    }
}

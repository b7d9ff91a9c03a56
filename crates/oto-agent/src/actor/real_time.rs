//! The clock of a control loop: a fixed period, absolute deadlines, and the measurement of every departure from them.
//!
//! [`Loop`] is pure: its owner reads a monotonic clock (nanoseconds) and tells the time. Deadlines lie on a fixed grid, so that lateness
//! never adds up: a step that begins late changes no later deadline, and a step that comes a whole period late leaves deadlines out, which
//! count as missed. [`Waiter`] waits for a deadline where there is a thread to block.

use hdrhistogram::Histogram;

/// The shortest and the longest period, in nanoseconds.
const PERIODS: [u64; 2] = [10_000, 60_000_000_000];
/// Times from 0.1 microseconds to an hour are told apart to two decimal digits; longer ones count as an hour.
const TIMES: [u64; 2] = [100, 3_600_000_000_000];

/// A frequency that no loop has.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("expected a frequency from 1/60 Hz to 100000 Hz, got {0}")]
pub struct FrequencyError(pub f64);

/// A period for a frequency, in nanoseconds.
///
/// # Errors
/// If it is not from 1/60 Hz to 100 kHz.
pub fn period(hz: f64) -> Result<u64, FrequencyError> {
    let period = (1e9 / hz).round();
    match (PERIODS[0] as f64..=PERIODS[1] as f64).contains(&period) {
        true => Ok(period as u64),
        false => Err(FrequencyError(hz)),
    }
}

/// The deadlines of a control loop, and its lateness. All times are nanoseconds of one monotonic clock.
#[derive(Clone, Debug)]
pub struct Loop {
    period: u64,
    deadline: u64,
    jitter: Histogram<u64>,
    counts: Counts,
}

/// What a loop counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Steps that began.
    pub steps: u64,
    /// Deadlines at which no step began.
    pub missed: u64,
    /// Steps in which the plant took longer than a period.
    pub blocked: u64,
    /// The longest time that the plant took, in nanoseconds.
    pub longest_block: u64,
    /// Observations that came after the deadline of the step that acts on them, or not at all.
    pub late_sensor: u64,
    /// The longest such delay, in nanoseconds.
    pub latest_observation: u64,
    /// Steps with the safe action, because there were no weights.
    pub safe: u64,
}

/// The beginning of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Nanoseconds after the step's deadline.
    pub late: u64,
    /// Deadlines that passed without a step before this one.
    pub missed: u64,
}

/// The distance of steps from their deadlines, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jitter {
    /// Half of the steps were at most so far off.
    pub p50: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// All.
    pub max: u64,
}

impl Loop {
    /// A loop of this period whose first deadline is `now`.
    ///
    /// # Panics
    /// If the period is not one of [`period`]'s.
    pub fn new(period: u64, now: u64) -> Self {
        assert!((PERIODS[0]..=PERIODS[1]).contains(&period), "a period from 10 us to 60 s");
        let jitter = Histogram::new_with_bounds(TIMES[0], TIMES[1], 2).expect("the bounds are constants");
        Loop { period, deadline: now, jitter, counts: Counts::default() }
    }

    /// Nanoseconds from one deadline to the next.
    pub fn period(&self) -> u64 {
        self.period
    }

    /// Changes the period; the next deadline stays.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn set_period(&mut self, period: u64) {
        assert!((PERIODS[0]..=PERIODS[1]).contains(&period), "a period from 10 us to 60 s");
        self.period = period;
    }

    /// When the next step is due.
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// A step begins.
    pub fn begin(&mut self, now: u64) -> Beat {
        let missed = now.saturating_sub(self.deadline) / self.period;
        let due = self.deadline + missed * self.period;
        // The jitter is measured from the deadline that the step was meant for: a pause shows as a whole.
        self.jitter.saturating_record(now.abs_diff(self.deadline));
        self.counts.steps += 1;
        self.counts.missed += missed;
        self.deadline = due + self.period;
        Beat { late: now.saturating_sub(due), missed }
    }

    /// The plant took this long to take the action and to give what it did.
    pub fn plant_took(&mut self, nanoseconds: u64) {
        self.counts.blocked += u64::from(nanoseconds > self.period);
        self.counts.longest_block = self.counts.longest_block.max(nanoseconds);
    }

    /// When the observation for the next step came; none: the step acts on an older one.
    pub fn observed(&mut self, at: Option<u64>) {
        let late = at.map_or(0, |at| at.saturating_sub(self.deadline));
        self.counts.late_sensor += u64::from(at.is_none() || late > 0);
        self.counts.latest_observation = self.counts.latest_observation.max(late);
    }

    /// The step takes the safe action.
    pub fn acts_safely(&mut self) {
        self.counts.safe += 1;
    }

    /// The deadlines begin anew at `now`, after a pause that was meant: an episode's reset.
    pub fn resume(&mut self, now: u64) {
        self.deadline = now;
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The distance of all steps from their deadlines.
    pub fn jitter(&self) -> Jitter {
        if self.jitter.is_empty() {
            return Jitter::default();
        }
        let at = |quantile| self.jitter.value_at_quantile(quantile);
        Jitter { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: self.jitter.max() }
    }
}

/// Waits for deadlines, natively and on WASI 0.2: it sleeps until shortly before, then spins. How shortly is measured: the system's lateness after a sleep.
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
#[derive(Debug)]
pub struct Waiter {
    start: std::time::Instant,
    /// How late a sleep ends, as a running estimate of its upper range, in nanoseconds.
    late: u64,
}

/// The spin before a deadline is this long at most: a machine that wakes later than that is late, and says so.
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
const LONGEST_SPIN: u64 = 2_000_000;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
const SHORTEST_SPIN: u64 = 50_000;

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
impl Default for Waiter {
    fn default() -> Self {
        Waiter { start: std::time::Instant::now(), late: SHORTEST_SPIN }
    }
}

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
impl Waiter {
    /// Nanoseconds since this was made.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Waits until `deadline`, and gives the time then.
    pub fn until(&mut self, deadline: u64) -> u64 {
        let spin = self.late.clamp(SHORTEST_SPIN, LONGEST_SPIN);
        let wake = deadline.saturating_sub(spin);
        let now = self.now();
        if wake > now {
            std::thread::sleep(std::time::Duration::from_nanos(wake - now));
            // Grows at once, shrinks slowly: a spin costs less than a late step.
            let late = self.now().saturating_sub(wake);
            self.late = (late + late / 4).max(self.late - self.late / 64);
        }
        loop {
            let now = self.now();
            if now >= deadline {
                return now;
            }
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_frequency_has_a_period() {
        assert_eq!((period(30.0), period(1000.0)), (Ok(33_333_333), Ok(MS)));
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e6, 0.01] {
            let error = period(wrong).unwrap_err();
            assert!(error.to_string().contains("100000 Hz, got"), "{error}");
        }
    }

    /// Lateness does not add up: deadlines stay on the grid.
    #[test]
    fn deadlines_are_absolute() {
        let mut beat = Loop::new(10 * MS, 1_000 * MS);
        for step in 0..100 {
            let due = (1_000 + 10 * step) * MS;
            assert_eq!(beat.deadline(), due);
            assert_eq!(beat.begin(due + step * MS / 20), Beat { late: step * MS / 20, missed: 0 });
        }
        let jitter = beat.jitter();
        assert_eq!((beat.counts().steps, beat.counts().missed), (100, 0));
        let near = |found: u64, expected: u64| found.abs_diff(expected) * 100 <= expected;
        assert!(near(jitter.p50, 99 * MS / 40) && near(jitter.p99, 98 * MS / 20), "{jitter:?}");
        assert!(near(jitter.max, 99 * MS / 20), "{jitter:?}");
    }

    /// A pause leaves deadlines out and counts each of them; the steps after it are on the grid again.
    #[test]
    fn a_pause_is_counted_and_not_made_up_for() {
        let mut beat = Loop::new(10 * MS, 0);
        assert_eq!(beat.begin(0), Beat { late: 0, missed: 0 });
        assert_eq!(beat.begin(57 * MS), Beat { late: 7 * MS, missed: 4 });
        assert_eq!(beat.deadline(), 60 * MS);
        assert_eq!(beat.begin(60 * MS), Beat { late: 0, missed: 0 });
        assert_eq!((beat.counts().steps, beat.counts().missed), (3, 4));
        assert!(beat.jitter().max.abs_diff(47 * MS) < MS, "the whole pause shows");
        beat.resume(5_000 * MS);
        assert_eq!(beat.begin(5_000 * MS), Beat { late: 0, missed: 0 });
        assert_eq!(beat.counts().missed, 4, "a pause that was meant is none");
    }

    /// Another period holds from the next deadline on.
    #[test]
    fn a_period_can_change() {
        let mut beat = Loop::new(10 * MS, 0);
        beat.begin(0);
        beat.set_period(2 * MS);
        assert_eq!((beat.begin(10 * MS), beat.deadline()), (Beat { late: 0, missed: 0 }, 12 * MS));
    }

    #[test]
    fn a_blocked_plant_and_a_late_sensor_are_reported() {
        let mut beat = Loop::new(10 * MS, 0);
        [3 * MS, 10 * MS, 11 * MS, 40 * MS].into_iter().for_each(|took| beat.plant_took(took));
        beat.begin(0);
        [Some(0), Some(10 * MS), Some(12 * MS), None].into_iter().for_each(|at| beat.observed(at));
        beat.acts_safely();
        let counts = beat.counts();
        assert_eq!((counts.blocked, counts.longest_block), (2, 40 * MS));
        assert_eq!((counts.late_sensor, counts.latest_observation, counts.safe), (2, 2 * MS, 1));
    }

    /// Any times at all: nothing overflows, and every grid point is either a step or missed.
    #[test]
    fn every_deadline_is_met_or_missed() {
        let mut rng = oto_env::rng::Rng::new(7);
        let mut beat = Loop::new(MS, 0);
        let mut now = 0;
        for _ in 0..10_000 {
            now = now.max(beat.deadline()) + u64::from(rng.below(5_000_000)) * u64::from(rng.below(10) == 0);
            beat.begin(now);
            let counts = beat.counts();
            assert_eq!((counts.steps + counts.missed) * MS, beat.deadline());
        }
        assert!(beat.counts().missed > 1_000);
        beat.begin(u64::MAX - 2 * MS);
        assert_eq!(Loop::new(MS, 0).jitter(), Jitter::default());
    }

    /// The native wait ends at its deadline or later, never before.
    #[test]
    fn a_wait_ends_at_its_deadline() {
        let mut waiter = Waiter::default();
        let mut beat = Loop::new(2 * MS, waiter.now());
        for _ in 0..20 {
            let deadline = beat.deadline();
            let now = waiter.until(deadline);
            assert!(now >= deadline);
            beat.begin(now);
        }
        assert_eq!(beat.counts().steps, 20);
    }
}

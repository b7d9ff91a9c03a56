//! The loop that sends and receives for all students, on one thread.

use super::plan::{Pace, Plan, Target};
use super::report::{Measurement, Recorder};
use super::student::{Heard, Student};
use super::{LoadError, process, publish};
use oto_env::rng::Rng;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Requests that are sent before it is looked again for answers.
const BURST: usize = 16;
/// The longest wait without a look at the clock.
const LOOK: Duration = Duration::from_millis(50);
/// From the last connection to the first request: a server may still be busy with handshakes.
const SETTLE: Duration = Duration::from_millis(500);

/// Carries out a plan. `echo`: the target sends back what comes. `pid`: the server's process, to see what it uses.
/// `progress` is told some ten times a second how far it is, from 0 to 1.
///
/// # Errors
/// If the plan cannot be carried out, or a student cannot connect.
pub fn measure(
    target: &Target,
    plan: &Plan,
    echo: bool,
    pid: Option<u32>,
    progress: &mut dyn FnMut(f64),
) -> Result<Measurement, LoadError> {
    plan.check()?;
    let alone = process::usage(pid)?;
    let mut crowd = Crowd::connect(target, plan, echo)?;
    std::thread::sleep(SETTLE);
    let connected = process::usage(pid)?;
    let start = Instant::now();
    let (warm, end) = (start + plan.warm_up, start + plan.warm_up + plan.measured);
    let mut schedule = Schedule::new(plan, start, &mut crowd.rng);
    let mut recorder = Recorder::new(warm, end);
    if let Pace::Saturate(requests) = plan.pace {
        (0..plan.students).for_each(|i| (0..requests).for_each(|_| crowd.ask(i, start, &mut recorder)));
    }
    let publishing = plan.publish.as_ref().map(|publish| publish.start(warm, end)).transpose()?;
    let (mut idle, mut shown) = (None, start);
    loop {
        let now = Instant::now();
        if now >= end {
            break;
        }
        if idle.is_none() && now >= warm {
            idle = Some(process::usage(pid)?);
        }
        if now >= shown {
            progress((now - start).as_secs_f64() / (end - start).as_secs_f64());
            shown = now + Duration::from_millis(100);
        }
        for _ in 0..BURST {
            let Some((intended, i)) = schedule.due(Instant::now()) else { break };
            crowd.ask(i, intended, &mut recorder);
        }
        let wait = schedule.next().map_or(LOOK, |next| next.saturating_duration_since(Instant::now()));
        crowd.hear(wait.min(LOOK), &mut recorder, matches!(plan.pace, Pace::Saturate(_)))?;
    }
    let after = process::usage(pid)?;
    let published = publish::counted(publishing)?;
    let give_up = Instant::now() + plan.patience;
    while crowd.waits() && Instant::now() < give_up {
        crowd.hear(LOOK, &mut recorder, false)?;
    }
    crowd.students.iter().flatten().for_each(|student| recorder.lost(student));
    progress(1.0);
    let used = process::between(alone, connected, idle.flatten(), after, plan.students);
    Ok(recorder.done(plan, used, published))
}

/// When whom to ask for: each student at a moment of its own within the first interval, and then every interval.
struct Schedule {
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    interval: Duration,
}

impl Schedule {
    fn new(plan: &Plan, start: Instant, rng: &mut Rng) -> Self {
        let (Pace::Open(rate), mut due) = (plan.pace, BinaryHeap::new()) else {
            return Schedule { due: BinaryHeap::new(), interval: Duration::ZERO };
        };
        if rate == 0.0 {
            return Schedule { due, interval: Duration::ZERO };
        }
        let interval = Duration::from_secs_f64((1.0 / rate).min(86_400.0));
        (0..plan.students).for_each(|i| due.push(Reverse((start + interval.mul_f64(rng.f64()), i))));
        Schedule { due, interval }
    }

    /// When the next request is to be sent.
    fn next(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// The next request that is to be sent by now: when it was to be, and by whom.
    fn due(&mut self, now: Instant) -> Option<(Instant, usize)> {
        let Reverse((at, i)) = self.due.peek().copied().filter(|Reverse((at, _))| *at <= now)?;
        self.due.pop();
        self.due.push(Reverse((at + self.interval, i)));
        Some((at, i))
    }
}

/// All students; one whose connection ended is none any more.
struct Crowd {
    students: Vec<Option<Student>>,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    /// Students whose socket did not take everything.
    unsent: Vec<usize>,
    rng: Rng,
}

impl Crowd {
    fn connect(target: &Target, plan: &Plan, echo: bool) -> Result<Self, LoadError> {
        let mut rng = Rng::new(plan.seed);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(std::io::Error::from)?;
        let mut students = Vec::with_capacity(plan.students);
        for i in 0..plan.students {
            let student = Student::connect(target, echo, plan.rows, &mut rng).map_err(|reason| {
                let (number, students, address) = (i + 1, plan.students, target.address);
                LoadError::Connect { number, students, address, reason }
            })?;
            epoll::add(&epoll, student.stream(), epoll::EventData::new_u64(i as u64), epoll::EventFlags::IN)
                .map_err(std::io::Error::from)?;
            students.push(Some(student));
        }
        Ok(Crowd { students, epoll, events: Vec::with_capacity(256), unsent: Vec::new(), rng })
    }

    /// Whether requests are on their way.
    fn waits(&self) -> bool {
        self.students.iter().flatten().any(|student| !student.pending.is_empty())
    }

    fn ask(&mut self, i: usize, intended: Instant, recorder: &mut Recorder) {
        let Some(student) = &mut self.students[i] else { return recorder.unsent(intended) };
        recorder.sent(intended);
        if !student.ask(intended) {
            self.close(i, recorder);
        } else if student.unsent() && !self.unsent.contains(&i) {
            self.unsent.push(i);
        }
    }

    fn close(&mut self, i: usize, recorder: &mut Recorder) {
        if let Some(student) = self.students[i].take() {
            recorder.closed(&student);
        }
    }

    /// Waits for something to come, at most so long, and takes in all of it. `again`: who is answered asks again.
    fn hear(&mut self, wait: Duration, recorder: &mut Recorder, again: bool) -> Result<(), LoadError> {
        for i in std::mem::take(&mut self.unsent) {
            let Some(student) = &mut self.students[i] else { continue };
            if !student.flush() {
                self.close(i, recorder);
            } else if student.unsent() {
                self.unsent.push(i);
            }
        }
        let wait = if self.unsent.is_empty() { wait } else { wait.min(Duration::from_millis(1)) };
        self.wait(wait).map_err(std::io::Error::from)?;
        for at in 0..self.events.len() {
            let i = self.events[at].data.u64() as usize;
            self.take_in(i, recorder, again);
        }
        Ok(())
    }

    /// Waits for sockets that have something. `poll` waits for microseconds where `epoll` may round up to milliseconds.
    fn wait(&mut self, time: Duration) -> rustix::io::Result<()> {
        let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        self.events.clear();
        let any = poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&timeout));
        match any.and_then(|any| match any {
            0 => Ok(0),
            _ => epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&Timespec::default())),
        }) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn take_in(&mut self, i: usize, recorder: &mut Recorder, again: bool) {
        while let Some(student) = &mut self.students[i] {
            let now = Instant::now();
            match student.hear() {
                Heard::Nothing => return,
                Heard::Closed => return self.close(i, recorder),
                Heard::Answer { intended, version } => {
                    recorder.answered(intended, now, version);
                    if again {
                        self.ask(i, now, recorder);
                    }
                }
                Heard::Overloaded(intended) => {
                    recorder.overloaded(intended);
                    if again {
                        self.ask(i, now, recorder);
                    }
                }
                Heard::Wrong(why) => recorder.wrong(why),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_asks_at_its_own_times_whatever_happens() {
        let second = Duration::from_secs(1);
        let plan = Plan {
            students: 3,
            pace: Pace::Open(10.0),
            rows: 1,
            warm_up: second,
            measured: second,
            patience: second,
            seed: 1,
            publish: None,
        };
        let start = Instant::now();
        let mut schedule = Schedule::new(&plan, start, &mut Rng::new(1));
        // Looked at once, a second late: nothing is left out.
        let mut due = [const { Vec::new() }; 3];
        while let Some((at, i)) = schedule.due(start + second) {
            due[i].push(at - start);
        }
        for times in due {
            assert!((10..=11).contains(&times.len()) && times[0] < second / 10);
            assert!(times.is_sorted() && times.windows(2).all(|two| two[1] - two[0] == second / 10));
        }
        assert!(schedule.next().unwrap() > start + second);
    }
}

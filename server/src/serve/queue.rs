//! The requests that wait for one policy: bounded, fair between students, and measured.
//!
//! Fair means by states, not by requests: a student that asks about thousands of states at a time waits for those who
//! ask about one, and takes nothing from them. It is self-clocked fair queueing (Golestani, INFOCOM 1994): a request
//! ends, on a clock that counts states, after the one before it of the same student or after what is answered now,
//! whichever is later; what ends first is answered first.
//!
//! A large request is answered in pieces ([`Queue::piece`]). Between two of them comes what would have come before it, had it come
//! earlier: the clock counts the states of a large request as they are answered.

use crate::auth::budget::Held;
use crate::net::limits::QueueLimits;
use crate::observe::spans::Traced;
use crate::serve::hidden_state::Order;
use crate::serve::rows::Asks;
use crate::serve::version::Change;
use oto_proto::{ErrorCode, ErrorMessage};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The most states of one batch, if no single request has more: a model computes no more of them at once anyway.
pub const BATCH_ROWS: usize = oto_policy::ROWS_PER_RUN;
/// A piece of a large request has this many states, or as many as are answered in that time.
const PIECE_ROWS: usize = 64;
const PIECE_TIME: Duration = Duration::from_millis(1);

/// States that want actions or logits.
pub(crate) struct Request {
    /// The student's number for it.
    pub id: u32,
    /// The number of states.
    pub rows: usize,
    /// When it came.
    pub came: Instant,
    /// The teacher's observations `[rows, observation width]`.
    pub observations: Vec<f32>,
    /// What it asks for.
    pub asks: Asks,
    /// Where the answer goes. It has room: a student has no more requests in flight than it has credits.
    pub reply: mpsc::Sender<Answer>,
    /// Where its states stand, for a recurrent policy.
    pub order: Option<Box<Order>>,
    /// Its spans, if somebody wants them.
    pub traced: Option<Box<Traced>>,
    /// Room for it and for its answer, until that is sent.
    pub held: Option<Held>,
}

/// What came of one request.
pub(crate) struct Answer {
    /// The student's number for the request.
    pub id: u32,
    /// When the request came.
    pub came: Instant,
    /// What is to be said.
    pub said: Said,
    /// Spans that end when it is said.
    pub traced: Option<Box<Traced>>,
    /// Its room.
    pub held: Option<Held>,
}

/// An answer's content.
pub(crate) enum Said {
    /// The teacher's actions `[rows, action width]` or its logits `[rows, actions]`, all of this version.
    Actions {
        /// The version that answered.
        version: u32,
        /// Row-major.
        actions: Vec<f32>,
    },
    /// The policy has none.
    Failed(Box<ErrorMessage>),
    /// It waited too long and was dropped; it may come again after this time.
    Late(Duration),
}

/// A student's place in the order of answers.
pub(crate) struct Seat {
    /// Its number, unlike all others of the queue.
    student: u64,
    /// From 0 to 100: a canary answers students whose draw is below its percentage.
    draw: f32,
    /// When its last request ends, on the clock of states.
    end: u64,
}

impl Seat {
    /// The draw that decides who is answered by a canary, from 0 to 100.
    pub fn draw(&self) -> f32 {
        self.draw
    }
}

/// Why a request was not taken.
pub(crate) enum NotTaken {
    /// Too many wait already; it may come again after this time.
    Full(Duration),
    /// The policy's thread is gone.
    Gone,
}

/// What a policy's thread has to do next.
pub(crate) enum Work {
    /// Replace what answers.
    Change(Change),
    /// Answer these requests together.
    Answer(Batch),
}

/// Requests that are answered together.
pub(crate) struct Batch {
    /// Whether the canary is to answer.
    pub canary: bool,
    /// At least one, all for the same. One that is larger than a piece is alone.
    pub requests: Vec<Request>,
    /// Where the last of them ends, on the clock of states.
    pub end: u64,
}

/// The queue of one policy.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

/// Where a request stands: its end on the clock of states, and a number that no other one has.
type Place = (u64, u64);

struct Entry {
    request: Request,
    student: u64,
    draw: f32,
    deadline: Instant,
}

#[derive(Default)]
struct Waiting {
    stable: BTreeMap<Place, Entry>,
    canary: BTreeMap<Place, Entry>,
    percent: f32,
    changes: VecDeque<Change>,
    rows: usize,
    bytes: usize,
    /// How far the clock of states is.
    clock: u64,
    /// Requests and students so far.
    numbers: u64,
    /// No request that waits has an earlier deadline.
    earliest: Option<Instant>,
    rate: Rate,
    closed: bool,
}

/// States answered in a second of work.
#[derive(Default)]
struct Rate {
    /// By what answers now, averaged over its last batches.
    now: Option<f64>,
    /// For hints: what answered before counts as one batch of the first ones, so that neither a publication nor a slow first batch
    /// changes much.
    expected: Option<f64>,
    /// Batches since something else answers.
    batches: u32,
}

/// What the last batch weighs in an average of many.
const WEIGHT: f64 = 0.1;

impl Rate {
    fn add(&mut self, rows: usize, took: Duration) {
        let last = rows as f64 / took.as_secs_f64().max(1e-9);
        let mixed = |average: Option<f64>, weight: f64| average.map_or(last, |a| a + weight * (last - a));
        self.batches = self.batches.saturating_add(1);
        self.now = Some(mixed(self.now, WEIGHT));
        self.expected = Some(mixed(self.expected, WEIGHT.max(1.0 / (1.0 + f64::from(self.batches)))));
    }

    /// Something else answers from now on.
    fn begin_anew(&mut self) {
        (self.now, self.batches) = (None, 0);
    }

    /// How long this many states take, within reason.
    fn time_for(&self, rows: usize) -> Duration {
        let seconds = self.expected.map_or(UNMEASURED.as_secs_f64(), |rate| rows as f64 / rate.max(1.0));
        Duration::from_secs_f64(seconds.clamp(SHORTEST_PAUSE.as_secs_f64(), LONGEST_PAUSE.as_secs_f64()))
    }
}

/// Work that is shorter than waking a thread for it, and another one for its answers.
const LITTLE: Duration = Duration::from_micros(100);
/// The shortest and the longest time to retry for a student.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The time to retry before the first measurement.
const UNMEASURED: Duration = Duration::from_secs(1);

impl Waiting {
    fn requests(&self) -> usize {
        self.stable.len() + self.canary.len()
    }

    fn insert(&mut self, place: Place, entry: Entry) {
        let canary = entry.draw < self.percent;
        if canary { &mut self.canary } else { &mut self.stable }.insert(place, entry);
    }

    /// Takes out requests of which `wanted` says so.
    fn take_out(&mut self, mut wanted: impl FnMut(&Entry) -> bool) -> Vec<Entry> {
        let mut out: Vec<Entry> = self.stable.extract_if(.., |_, e| wanted(e)).map(|(_, e)| e).collect();
        out.extend(self.canary.extract_if(.., |_, e| wanted(e)).map(|(_, e)| e));
        out.iter().for_each(|entry| self.took(&entry.request));
        out
    }

    fn took(&mut self, request: &Request) {
        self.rows -= request.rows;
        self.bytes -= bytes(request);
    }

    /// Drops what waited too long.
    fn expire(&mut self, now: Instant) {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return;
        }
        let late = self.take_out(|entry| entry.deadline <= now);
        let pause = self.rate.time_for(self.rows);
        for Entry { request, .. } in late {
            request.answer(Said::Late(pause));
        }
        self.earliest = self.stable.values().chain(self.canary.values()).map(|entry| entry.deadline).min();
    }

    /// States of one piece.
    fn piece(&self) -> usize {
        let rows = self.rate.now.map(|rate| (rate * PIECE_TIME.as_secs_f64()) as usize);
        rows.unwrap_or(BATCH_ROWS).clamp(PIECE_ROWS, BATCH_ROWS)
    }

    /// The next batch: the requests that end first, before `end` and of one version. Requests of students that are
    /// gone are dropped.
    fn batch(&mut self, before: u64) -> Option<Batch> {
        let piece = self.piece();
        let first = |map: &BTreeMap<Place, Entry>| map.first_key_value().map(|(place, _)| *place);
        loop {
            let (stable, canary) = (first(&self.stable), first(&self.canary));
            let (end, _) = stable.into_iter().chain(canary).min().filter(|(end, _)| *end < before)?;
            let canary = canary.is_some_and(|canary| stable.is_none_or(|stable| canary < stable));
            let mut batch = Batch { canary, requests: Vec::new(), end };
            let mut rows = 0;
            loop {
                let map = if canary { &mut self.canary } else { &mut self.stable };
                let Some(entry) = map.first_entry() else { break };
                let more = entry.get().request.rows;
                let gone = entry.get().request.reply.is_closed();
                let large = more > piece || batch.requests.len() == 1 && rows > piece;
                let other =
                    batch.requests.first().is_some_and(|first| first.asks != entry.get().request.asks);
                let full = large || other || entry.key().0 >= before || rows + more > BATCH_ROWS;
                if !gone && !batch.requests.is_empty() && full {
                    break;
                }
                let ((end, _), Entry { request, .. }) = entry.remove_entry();
                self.took(&request);
                if !gone {
                    // Later the states of a large one.
                    let counted = if more > piece { end - more as u64 } else { end };
                    self.clock = self.clock.max(counted);
                    rows += more;
                    batch.end = end;
                    batch.requests.push(request);
                }
            }
            if !batch.requests.is_empty() {
                return Some(batch);
            }
        }
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more student.
    pub fn seat(&self, draw: f32) -> Seat {
        let mut waiting = self.waiting();
        waiting.numbers += 1;
        Seat { student: waiting.numbers, draw, end: 0 }
    }

    /// Takes a request; its answer comes through its `reply`. It wakes no thread. It gives true if all that
    /// waits is so little that the caller may answer it.
    pub fn push(&self, seat: &mut Seat, request: Request, limits: &QueueLimits) -> Result<bool, NotTaken> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(NotTaken::Gone);
        }
        // Requests expire also while the policy works on something long.
        waiting.expire(Instant::now());
        let size = bytes(&request);
        if waiting.requests() >= limits.requests || waiting.bytes.saturating_add(size) > limits.bytes {
            return Err(NotTaken::Full(waiting.rate.time_for(waiting.rows)));
        }
        let deadline = Instant::now() + limits.timeout;
        waiting.earliest = Some(waiting.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        waiting.rows += request.rows;
        waiting.bytes += size;
        waiting.numbers += 1;
        seat.end = seat.end.max(waiting.clock) + request.rows as u64;
        let place = (seat.end, waiting.numbers);
        waiting.insert(place, Entry { request, student: seat.student, draw: seat.draw, deadline });
        let little =
            waiting.rate.now.is_some_and(|rate| waiting.rows as f64 / rate.max(1.0) < LITTLE.as_secs_f64());
        Ok(little && waiting.changes.is_empty())
    }

    /// Forgets what a student asked that has gone.
    pub fn forget(&self, seat: &Seat) {
        let mut waiting = self.waiting();
        if waiting.requests() > 0 {
            drop(waiting.take_out(|entry| entry.student == seat.student));
        }
    }

    /// How long a request of now would wait.
    pub fn pause(&self) -> Duration {
        let waiting = self.waiting();
        waiting.rate.time_for(waiting.rows)
    }

    /// How many requests and states wait.
    pub fn waits(&self) -> (usize, usize) {
        let waiting = self.waiting();
        (waiting.requests(), waiting.rows)
    }

    /// What waits, and how fast it is answered, for an operator.
    pub fn load(&self) -> serde_json::Value {
        let waiting = self.waiting();
        serde_json::json!({
            "requests": waiting.requests(),
            "states": waiting.rows,
            "bytes": waiting.bytes,
            "states_per_second": waiting.rate.now,
        })
    }

    /// Puts a change before all requests that wait. False if the thread is gone.
    pub fn change(&self, change: Change) -> bool {
        let mut waiting = self.waiting();
        if waiting.closed {
            return false;
        }
        waiting.changes.push_back(change);
        drop(waiting);
        self.came.notify_one();
        true
    }

    /// From now on a canary answers students whose draw is below this percentage.
    pub fn split(&self, percent: f32) {
        let mut waiting = self.waiting();
        waiting.percent = percent;
        let mut all = std::mem::take(&mut waiting.stable);
        all.append(&mut waiting.canary);
        all.into_iter().for_each(|(place, entry)| waiting.insert(place, entry));
    }

    /// How long answering took.
    pub fn answered(&self, rows: usize, took: Duration) {
        self.waiting().rate.add(rows, took);
    }

    /// How many states of a large request are answered at once: as many as take a millisecond, within limits.
    pub fn piece(&self) -> usize {
        self.waiting().piece()
    }

    /// A large request is answered up to here, on the clock of states.
    pub fn advance(&self, to: u64) {
        let mut waiting = self.waiting();
        waiting.clock = waiting.clock.max(to);
    }

    /// Requests that come before one which ends there, if there are any.
    pub fn next_before(&self, end: u64) -> Option<Batch> {
        let mut waiting = self.waiting();
        waiting.expire(Instant::now());
        waiting.batch(end)
    }

    /// What is to be done next, if there is anything.
    pub fn next(&self) -> Option<Work> {
        let mut waiting = self.waiting();
        if let Some(change) = waiting.changes.pop_front() {
            return Some(Work::Change(change));
        }
        waiting.expire(Instant::now());
        waiting.batch(u64::MAX).map(Work::Answer)
    }

    /// Waits until there is something to do. False when the queue is closed.
    pub fn wait(&self) -> bool {
        let nothing =
            |waiting: &mut Waiting| !waiting.closed && waiting.changes.is_empty() && waiting.requests() == 0;
        let waiting = self.came.wait_while(self.waiting(), nothing);
        !waiting.unwrap_or_else(PoisonError::into_inner).closed
    }

    /// Whether nothing is taken any more.
    pub fn is_closed(&self) -> bool {
        self.waiting().closed
    }

    /// Wakes the thread that waits, if there is something to do.
    pub fn wake_for_rest(&self) {
        if self.waiting().requests() > 0 {
            self.came.notify_one();
        }
    }

    /// Something else answers from now on: how fast it is remains to be seen.
    pub fn measure_anew(&self) {
        self.waiting().rate.begin_anew();
    }

    /// Nothing is taken any more, and what waits is answered with an error.
    pub fn close(&self) {
        let closed = Waiting { closed: true, ..Waiting::default() };
        let Waiting { stable, canary, .. } = std::mem::replace(&mut *self.waiting(), closed);
        for Entry { request, .. } in stable.into_values().chain(canary.into_values()) {
            request.answer(Said::Failed(Box::new(gone())));
        }
        self.came.notify_all();
    }
}

impl Request {
    /// It fails only if the student is gone.
    pub fn answer(self, said: Said) {
        let Request { id, came, reply, mut traced, held, .. } = self;
        if let Some(traced) = &mut traced {
            traced.answers(match &said {
                Said::Actions { version, .. } => Ok(*version),
                Said::Failed(error) => Err(&error.message),
                Said::Late(_) => Err("late"),
            });
        }
        drop(reply.try_send(Answer { id, came, said, traced, held }));
    }
}

/// What there is to say where a policy's thread is gone.
pub(crate) fn gone() -> ErrorMessage {
    ErrorMessage::new(ErrorCode::Internal, "expected the policy to run, it does not any more")
}

fn bytes(request: &Request) -> usize {
    let places = request.order.as_ref().map_or(0, |order| order.places.len());
    4 * (request.observations.len() + places)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: QueueLimits =
        QueueLimits { requests: 100, bytes: 1 << 20, timeout: Duration::from_secs(60) };

    fn request(id: u32, rows: usize) -> (Request, mpsc::Receiver<Answer>) {
        let (reply, answers) = mpsc::channel(1);
        (
            Request {
                id,
                rows,
                came: Instant::now(),
                observations: vec![0.0; rows],
                asks: Asks::Actions,
                reply,
                order: None,
                traced: None,
                held: None,
            },
            answers,
        )
    }

    #[test]
    fn a_batch_asks_for_one_thing() {
        let queue = Queue::default();
        let (mut a, mut b) = (queue.seat(0.0), queue.seat(0.0));
        let _first = push(&queue, &mut a, 1, 2);
        let (mut logits, _answers) = request(2, 2);
        logits.asks = Asks::Logits;
        assert!(queue.push(&mut b, logits, &LIMITS).is_ok());
        let _third = push(&queue, &mut a, 3, 2);
        assert_eq!([next(&queue), next(&queue), next(&queue)], [vec![1], vec![2], vec![3]]);
    }

    /// The requests of the next batch.
    fn next(queue: &Queue) -> Vec<u32> {
        match queue.next() {
            Some(Work::Answer(batch)) => batch.requests.iter().map(|request| request.id).collect(),
            _ => panic!("expected a batch"),
        }
    }

    fn push(queue: &Queue, seat: &mut Seat, id: u32, rows: usize) -> mpsc::Receiver<Answer> {
        let (request, answers) = request(id, rows);
        assert!(queue.push(seat, request, &LIMITS).is_ok());
        answers
    }

    #[test]
    fn a_student_with_large_requests_does_not_hold_up_small_ones() {
        let queue = Queue::default();
        let (mut large, mut small, mut other) = (queue.seat(0.0), queue.seat(0.0), queue.seat(0.0));
        let mut kept: Vec<_> = (0..4).map(|i| push(&queue, &mut large, i, BATCH_ROWS)).collect();
        kept.push(push(&queue, &mut small, 10, 1));
        assert_eq!(next(&queue), [10], "a large one would make it wait");
        assert_eq!(next(&queue), [0]);
        kept.push(push(&queue, &mut other, 20, 8));
        kept.push(push(&queue, &mut small, 11, 1));
        assert_eq!(next(&queue), [11, 20], "who comes later does not wait for the rest of the large ones");
        assert_eq!(next(&queue), [1]);
    }

    #[test]
    fn what_comes_before_the_rest_of_a_large_request_follows_from_how_much_of_it_is_answered() {
        let queue = Queue::default();
        let (mut large, mut small, mut middle) = (queue.seat(0.0), queue.seat(0.0), queue.seat(0.0));
        queue.answered(100_000, Duration::from_secs(1));
        assert_eq!(queue.piece(), 100);
        let mut kept = vec![push(&queue, &mut large, 1, 1000)];
        let Some(Work::Answer(batch)) = queue.next() else { panic!("expected a batch") };
        assert_eq!((batch.requests.len(), batch.end), (1, 1000));
        kept.push(push(&queue, &mut small, 2, 4));
        let before = |end| queue.next_before(end).map(|batch| batch.requests[0].id);
        assert_eq!(before(1000), Some(2));
        queue.advance(900);
        kept.push(push(&queue, &mut middle, 3, 150));
        assert_eq!(before(1000), None, "it would end at 1050");
        kept.push(push(&queue, &mut small, 4, 50));
        assert_eq!(before(1000), Some(4));
        queue.advance(1000);
        assert_eq!(next(&queue), [3]);
    }

    #[test]
    fn students_who_want_much_share_alike() {
        let queue = Queue::default();
        let (mut a, mut b) = (queue.seat(0.0), queue.seat(0.0));
        let half = BATCH_ROWS / 2;
        let mut kept: Vec<_> = (0..6).map(|i| push(&queue, &mut a, i, half)).collect();
        kept.extend((10..13).map(|i| push(&queue, &mut b, i, half)));
        assert_eq!([next(&queue), next(&queue), next(&queue)], [[0, 10], [1, 11], [2, 12]]);
        assert_eq!(next(&queue), [3, 4], "alone again");
    }

    #[test]
    fn the_queue_is_bounded_in_requests_and_in_bytes() {
        let queue = Queue::default();
        let mut seat = queue.seat(0.0);
        let mut try_push = |rows, limits: &QueueLimits| {
            let (request, _) = request(1, rows);
            queue.push(&mut seat, request, limits).is_ok()
        };
        let limits = QueueLimits { requests: 2, bytes: 4 * 100, ..LIMITS };
        assert!(!try_push(101, &limits) && try_push(50, &limits) && !try_push(51, &limits));
        assert!(try_push(1, &limits) && !try_push(1, &limits), "two requests");
    }

    #[test]
    fn what_waited_too_long_or_belongs_to_nobody_is_not_computed() {
        let queue = Queue::default();
        let (mut late, mut gone, mut here) = (queue.seat(0.0), queue.seat(0.0), queue.seat(0.0));
        let (old, mut answers) = request(1, 1);
        let no_time = QueueLimits { timeout: Duration::ZERO, ..LIMITS };
        assert!(queue.push(&mut late, old, &no_time).is_ok());
        drop(push(&queue, &mut gone, 2, 1));
        let _forgotten = push(&queue, &mut gone, 3, 1);
        queue.forget(&gone);
        let _kept = push(&queue, &mut here, 4, 1);
        assert_eq!(next(&queue), [4]);
        assert!(matches!(answers.try_recv().unwrap().said, Said::Late(_)));
        let waiting = queue.waiting();
        assert_eq!((waiting.requests(), waiting.rows, waiting.bytes), (0, 0, 0));
    }

    #[test]
    fn what_is_late_is_told_so_when_another_comes_though_the_policy_is_busy() {
        let queue = Queue::default();
        let mut seat = queue.seat(0.0);
        let (old, mut answers) = request(1, 1);
        let limits = QueueLimits { requests: 1, timeout: Duration::ZERO, ..LIMITS };
        assert!(queue.push(&mut seat, old, &limits).is_ok());
        let (new, _kept) = request(2, 1);
        assert!(queue.push(&mut seat, new, &limits).is_ok(), "its place is free");
        assert!(matches!(answers.try_recv().unwrap().said, Said::Late(_)));
    }

    #[test]
    fn what_waits_when_the_queue_closes_is_told_so() {
        let queue = Queue::default();
        let mut seat = queue.seat(0.0);
        let mut answers = push(&queue, &mut seat, 1, 1);
        queue.close();
        assert!(matches!(answers.try_recv().unwrap().said, Said::Failed(_)));
        let (late, _) = request(2, 1);
        assert!(matches!(queue.push(&mut seat, late, &LIMITS), Err(NotTaken::Gone)));
    }

    #[test]
    fn the_pause_is_how_long_the_backlog_takes() {
        let queue = Queue::default();
        let mut seat = queue.seat(0.0);
        let _kept: Vec<_> = (0..2).map(|i| push(&queue, &mut seat, i, 1000)).collect();
        queue.answered(500, Duration::from_secs(1));
        assert_eq!(queue.pause(), Duration::from_secs(4));
        queue.answered(0, Duration::ZERO);
        assert!(queue.pause() > Duration::from_secs(4) && queue.pause() <= LONGEST_PAUSE);
    }

    #[test]
    fn another_version_changes_the_pause_no_more_than_its_batches_do() {
        let queue = Queue::default();
        let mut seat = queue.seat(0.0);
        let _kept: Vec<_> = (0..2).map(|i| push(&queue, &mut seat, i, 1000)).collect();
        let answered =
            |times: usize, rows| (0..times).for_each(|_| queue.answered(rows, Duration::from_secs(1)));
        answered(100, 10_000);
        let before = queue.pause();
        queue.measure_anew();
        assert_eq!(queue.pause(), before, "nothing is known of it, so it is taken to be like the one before");
        answered(1, 100);
        assert!(queue.pause() <= 2 * before + SHORTEST_PAUSE, "a slow first batch may be chance");
        answered(30, 5_000);
        assert!(queue.pause() > before.mul_f64(1.8), "a slower version is known as one soon");
        queue.measure_anew();
        answered(3, 20_000);
        assert!(queue.pause() < before, "a faster one at once");
    }

    #[test]
    fn nobody_helps_what_was_not_measured() {
        let queue = Queue::default();
        let mut seat = queue.seat(0.0);
        let mut little = |queue: &Queue| {
            let (request, _) = request(1, 1);
            matches!(queue.push(&mut seat, request, &LIMITS), Ok(true))
        };
        assert!(!little(&queue));
        queue.answered(1_000_000, Duration::from_secs(1));
        assert!(little(&queue));
        queue.measure_anew();
        assert!(!little(&queue), "another version may be slower by far");
    }

    #[test]
    fn a_canary_takes_over_what_waits_for_its_students_and_gives_it_back() {
        let queue = Queue::default();
        let (mut few, mut many) = (queue.seat(3.0), queue.seat(50.0));
        let mut kept = vec![push(&queue, &mut few, 1, 1), push(&queue, &mut many, 2, 1)];
        queue.split(10.0);
        kept.push(push(&queue, &mut few, 3, 1));
        let Some(Work::Answer(batch)) = queue.next() else { panic!("expected a batch") };
        assert!(batch.canary && batch.requests.iter().map(|r| r.id).eq([1, 3]));
        kept.push(push(&queue, &mut few, 4, 1));
        queue.split(0.0);
        assert_eq!(next(&queue), [2, 4]);
    }
}

//! Turns: how connections share the threads that serve them. Each student has a share of half a core, within which it is served at once.
//! All other work takes turns: that of a student beyond its share, and that of a connection before `hello` and after its end. Addresses
//! (and machines with a token) take turns, and the connections of each. Between two turns the thread checks its sockets and serves the students
//! within their shares, so that a student waits for one turn at most, whatever the number of other connections.
//!
//! [`Portions`] bounds what a connection reads in one turn.

use crate::auth::budget::{Payer, lock};
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::Instant;

/// The shares of all students together, in cores. With fewer students than [`FEW`], the share is that of one among [`FEW`].
const AT_ONCE: f64 = 0.5;
const FEW: usize = 50;
/// The most seconds that a student saves, or owes.
const MOST: f64 = 5e-3;
/// Its seconds at `hello`.
const FIRST: f64 = 2e-4;
/// The most that one poll counts: a longer one was interrupted by the system.
const LONGEST: Duration = Duration::from_millis(1);
/// After this much work in turns, a thread looks at its sockets.
const CYCLE: Duration = Duration::from_micros(250);

/// The turns of one server.
pub(crate) struct Turns {
    waiting: Mutex<Waiting>,
    students: AtomicUsize,
}

struct Waiting {
    /// Free turns, one for each thread, with the work in each since the last check of the sockets.
    free: Vec<Duration>,
    queues: HashMap<Payer, VecDeque<oneshot::Sender<Turn>>>,
    /// Waiting peers, in their order.
    order: VecDeque<Payer>,
}

impl Waiting {
    /// The next connection of the next peer.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let payer = self.order.pop_front()?;
        let queue = self.queues.get_mut(&payer)?;
        let next = queue.pop_front();
        match queue.is_empty() {
            true => drop(self.queues.remove(&payer)),
            false => self.order.push_back(payer),
        }
        next
    }
}

/// Permission to work, until it is dropped.
struct Turn {
    turns: Arc<Turns>,
    /// The work since the last check of the sockets; none after the turn is passed on.
    done: Option<Duration>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            self.turns.give(done);
        }
    }
}

impl Turns {
    /// Turns for this number of threads.
    pub fn new(threads: usize) -> Arc<Self> {
        let (queues, order) = (HashMap::new(), VecDeque::new());
        let waiting = Waiting { free: vec![Duration::ZERO; threads.max(1)], queues, order };
        Arc::new(Turns { waiting: Mutex::new(waiting), students: AtomicUsize::new(0) })
    }

    /// The share of a new connection, which has none before it is a student's.
    pub fn share(self: &Arc<Self>, payer: Payer) -> Arc<Share> {
        let state = State { payer, student: false, left: 0.0, filled: Instant::now() };
        Arc::new(Share { turns: self.clone(), state: Mutex::new(state) })
    }

    /// Passes a turn on to the next connection.
    fn give(self: &Arc<Self>, done: Duration) {
        loop {
            let mut waiting = lock(&self.waiting);
            let Some(next) = waiting.next() else { return waiting.free.push(done) };
            drop(waiting);
            match next.send(Turn { turns: self.clone(), done: Some(done) }) {
                Ok(()) => return,
                // This connection has ended.
                Err(mut turn) => turn.done = None,
            }
        }
    }

    /// The next turn of this peer, after a check of the sockets if one is due.
    async fn turn(self: &Arc<Self>, payer: Payer) -> Turn {
        let mut turn = match self.free_or_wait(payer) {
            Ok(turn) => turn,
            // The senders live as long as `self`.
            Err(wait) => wait.await.unwrap_or_else(|_| Turn { turns: self.clone(), done: None }),
        };
        if turn.done >= Some(CYCLE) {
            // The runtime checks the sockets before it polls this task again.
            yield_now().await;
            turn.done = Some(Duration::ZERO);
        }
        turn
    }

    fn free_or_wait(self: &Arc<Self>, payer: Payer) -> Result<Turn, oneshot::Receiver<Turn>> {
        let mut waiting = lock(&self.waiting);
        if let Some(done) = waiting.free.pop() {
            return Ok(Turn { turns: self.clone(), done: Some(done) });
        }
        let (give, wait) = oneshot::channel();
        let Waiting { queues, order, .. } = &mut *waiting;
        let queue = queues.entry(payer.clone()).or_default();
        if queue.is_empty() {
            order.push_back(payer);
        }
        queue.push_back(give);
        Err(wait)
    }
}

/// A connection's share of the threads' time.
pub(crate) struct Share {
    turns: Arc<Turns>,
    state: Mutex<State>,
}

struct State {
    payer: Payer,
    student: bool,
    /// Seconds of work.
    left: f64,
    filled: Instant,
}

/// A student has a share until this is dropped.
pub(crate) struct Enrolled(Arc<Share>);

impl Drop for Enrolled {
    fn drop(&mut self) {
        lock(&self.0.state).student = false;
        self.0.turns.students.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Share {
    /// From now on the connection takes this peer's turns.
    pub fn belongs_to(&self, payer: Payer) {
        lock(&self.state).payer = payer;
    }

    /// The connection is a student's now.
    pub fn enrol(self: &Arc<Self>) -> Enrolled {
        let mut state = lock(&self.state);
        (state.student, state.left, state.filled) = (true, FIRST, Instant::now());
        self.turns.students.fetch_add(1, Ordering::Relaxed);
        Enrolled(self.clone())
    }

    /// Does all the work of a connection: at once within its share, and in turns beyond it.
    pub async fn work<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> T {
        loop {
            let mut began = Instant::now();
            let mut turn = None;
            if let Some(payer) = self.beyond(began) {
                turn = Some(self.turns.turn(payer).await);
                began = Instant::now();
            }
            let polled = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
            let took = began.elapsed();
            self.spend(took);
            if let Some(done) = turn.as_mut().and_then(|turn| turn.done.as_mut()) {
                *done += took;
            }
            drop(turn);
            match polled {
                Poll::Ready(done) => return done,
                Poll::Pending => woken().await,
            }
        }
    }

    /// The peer whose turn the connection needs now; none within a student's share.
    fn beyond(&self, now: Instant) -> Option<Payer> {
        let mut state = lock(&self.state);
        if !state.student {
            return Some(state.payer.clone());
        }
        let passed = now.saturating_duration_since(state.filled).as_secs_f64();
        let students = self.turns.students.load(Ordering::Relaxed).max(FEW);
        state.left = (state.left + passed * AT_ONCE / students as f64).min(MOST);
        state.filled = now;
        (state.left <= 0.0).then(|| state.payer.clone())
    }

    fn spend(&self, took: Duration) {
        let mut state = lock(&self.state);
        state.left = (state.left - took.min(LONGEST).as_secs_f64()).max(-MOST);
    }
}

/// Done when the task is woken the next time.
async fn woken() {
    let mut slept = false;
    poll_fn(|_| match std::mem::replace(&mut slept, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// Bytes that are read of a connection before its work is interrupted.
const PORTION: usize = 32 << 10;
/// The least that a read counts as.
const READ: usize = 2 << 10;

/// A stream that is read in portions: after each of them it has nothing more for the moment, and wakes its reader at once.
pub(crate) struct Portions<S> {
    inner: S,
    read: usize,
}

impl<S> Portions<S> {
    pub fn new(inner: S) -> Self {
        Portions { inner, read: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Portions<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read >= PORTION {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        match polled {
            Poll::Ready(_) => self.read += (buf.filled().len() - before).max(READ),
            Poll::Pending => self.read = 0,
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Portions<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::io::Write;
    use std::net::IpAddr;
    use std::pin::pin;
    use std::rc::Rc;
    use tokio::io::AsyncReadExt;
    use tokio::task::{LocalSet, spawn_local};

    fn payer(last: u8) -> Payer {
        Payer::at(IpAddr::from([10, 0, 0, last]))
    }

    /// Runs this on one thread, in tasks that need not be sent to others.
    fn run(work: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(LocalSet::new().run_until(work));
    }

    /// Keeps the thread busy for so long.
    fn spin(time: Duration) {
        let start = std::time::Instant::now();
        while start.elapsed() < time {}
    }

    #[test]
    fn a_student_waits_for_a_turn_and_not_for_all_who_take_turns() {
        run(async {
            let turns = Turns::new(1);
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut other = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            // How often the others worked, also when the student was asked something, and when it heard it.
            let (worked, asked) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
            for _ in 0..200 {
                let (share, worked) = (turns.share(payer(1)), worked.clone());
                spawn_local(async move {
                    let work = async {
                        loop {
                            spin(CYCLE / 2);
                            worked.set(worked.get() + 1);
                            yield_now().await;
                        }
                    };
                    share.work(pin!(work)).await;
                });
            }
            let (share, counts) = (turns.share(payer(1)), (worked.clone(), asked.clone()));
            let student = spawn_local(async move {
                let _enrolled = share.enrol();
                let work = async {
                    let mut waited = Vec::new();
                    while waited.len() < 20 {
                        stream.read_u8().await.unwrap();
                        waited.extend(counts.1.take().map(|asked: i32| counts.0.get() - asked));
                    }
                    waited
                };
                share.work(pin!(work)).await
            });
            let asking = async {
                loop {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    asked.set(Some(worked.get()));
                    other.write_all(&[0]).unwrap();
                }
            };
            let waited =
                tokio::select! { waited = student => waited.unwrap(), () = asking => unreachable!() };
            assert!(waited.iter().all(|turns| *turns <= 12), "others worked so often before it: {waited:?}");
        });
    }

    #[test]
    fn addresses_take_turns_and_then_their_connections() {
        run(async {
            let turns = Turns::new(1);
            let first = turns.turn(payer(1)).await;
            let order = Rc::new(Cell::new(Vec::new()));
            let waiting: Vec<_> = [(1, 'a'), (1, 'b'), (1, 'c'), (2, 'd'), (3, 'e'), (2, 'f')]
                .into_iter()
                .map(|(address, name)| {
                    let (turns, order) = (turns.clone(), order.clone());
                    spawn_local(async move {
                        let _turn = turns.turn(payer(address)).await;
                        let mut so_far = order.take();
                        so_far.push(name);
                        order.set(so_far);
                    })
                })
                .collect();
            yield_now().await;
            drop(first);
            for task in waiting {
                task.await.unwrap();
            }
            assert_eq!(order.take(), ['a', 'd', 'e', 'b', 'f', 'c']);
        });
    }

    #[test]
    fn a_turn_is_not_lost_with_a_connection_that_ends() {
        run(async {
            let turns = Turns::new(1);
            let first = turns.turn(payer(1)).await;
            let wait = |address| {
                let turns = turns.clone();
                spawn_local(async move { drop(turns.turn(payer(address)).await) })
            };
            let (gone, given, stays) = (wait(1), wait(2), wait(3));
            yield_now().await;
            gone.abort();
            drop(first);
            // This one has the turn already and does not come to use it.
            given.abort();
            stays.await.unwrap();
            assert_eq!(lock(&turns.waiting).free.len(), 1);
        });
    }

    #[test]
    fn a_student_has_a_share_of_the_time_and_no_more() {
        run(async {
            tokio::time::pause();
            let turns = Turns::new(1);
            let share = turns.share(payer(1));
            assert!(share.beyond(Instant::now()).is_some(), "before hello");
            let enrolled = share.enrol();
            assert!(share.beyond(Instant::now()).is_none());
            share.spend(LONGEST);
            assert!(share.beyond(Instant::now()).is_some());
            tokio::time::advance(Duration::from_millis(100)).await;
            assert!(share.beyond(Instant::now()).is_none(), "a hundredth of the time is 1 ms");
            let others: Vec<_> = (0..500).map(|_| turns.share(payer(2)).enrol()).collect();
            share.spend(LONGEST);
            tokio::time::advance(Duration::from_millis(100)).await;
            assert!(share.beyond(Instant::now()).is_some(), "five hundred share the half of a core");
            drop(others);
            (0..100).for_each(|_| share.spend(LONGEST));
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(share.beyond(Instant::now()).is_none(), "what it lacks is bounded");
            drop(enrolled);
            assert!(share.beyond(Instant::now()).is_some(), "after its end");
        });
    }

    #[test]
    fn a_stream_is_read_in_portions() {
        run(async {
            let bytes: Vec<u8> = (0..200_000_u32).map(|i| i as u8).collect();
            let mut stream = Portions::new(&bytes[..]);
            let (mut read, mut pauses) = (Vec::new(), 0);
            let mut piece = [0; 5000];
            while read.len() < bytes.len() {
                let mut reading = pin!(stream.read(&mut piece));
                let polled = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await;
                let count = match polled {
                    Poll::Ready(count) => count.unwrap(),
                    Poll::Pending => {
                        pauses += 1;
                        reading.await.unwrap()
                    }
                };
                read.extend_from_slice(&piece[..count]);
            }
            assert_eq!((read == bytes, pauses), (true, bytes.len().div_ceil(5000) / PORTION.div_ceil(5000)));
        });
    }
}

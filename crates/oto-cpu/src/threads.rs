//! Threads for the large steps of a plan. A step is divided into parts; each thread takes the next part until there is none. What a
//! part computes does not depend on its thread, so that the numbers are the same with any number of threads.
//!
//! A step takes a tenth of a millisecond, and waking a thread takes a good part of that. So a thread without work looks for the next
//! step for a short time before it sleeps. It does not yield in this time: on a busy machine it would lose its core for many steps.

use std::any::Any;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a thread looks for work before it sleeps, or for the end of a step before it yields.
const LOOK: Duration = Duration::from_micros(200);
/// How often it looks before it asks for the time.
const LOOKS: u32 = 200;

/// A step's work: the thread's number and the part's.
type Work<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// A part's work: the thread's number, the index of the part's first number, and the part of each output.
type Division<'a, const N: usize> = &'a (dyn Fn(usize, usize, [&mut [f32]; N]) + Sync);

/// Threads beside the caller's.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Number of the step, how many parts it has, and how many are taken.
    step: AtomicU64,
    /// The step's [`Work`], valid while one of its parts is not finished.
    work: AtomicPtr<()>,
    finished: AtomicUsize,
    /// What a part panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    asleep: AtomicUsize,
}

const PARTS: u32 = 16;
const STEP: u32 = 32;

fn parts(step: u64) -> u64 {
    step >> PARTS & 0xffff
}

fn taken(step: u64) -> u64 {
    step & 0xffff
}

impl Pool {
    /// A pool for `threads` threads, with the caller's among them. None for one. Where the system gives fewer, it has fewer.
    pub fn new(threads: NonZeroUsize) -> Option<Self> {
        let shared = Arc::new(Shared {
            step: AtomicU64::new(0),
            work: AtomicPtr::default(),
            finished: AtomicUsize::new(0),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
        });
        let spawn = |number: usize| {
            let shared = shared.clone();
            thread::Builder::new().name("oto-cpu".into()).spawn(move || shared.serve(number)).ok()
        };
        let threads = (1..threads.get()).map_while(spawn).collect::<Vec<_>>();
        (!threads.is_empty()).then_some(Self { shared, threads })
    }

    /// How many threads there are, with the caller's.
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Runs `work` for each part once, with the number of a thread below [`Self::threads`]. A panic in a part comes back here, after all
    /// parts.
    ///
    /// # Panics
    /// If there are 65,536 parts or more, or if a part panics.
    pub fn run(&mut self, parts: usize, work: Work<'_>) {
        assert!(parts < 1 << PARTS, "{parts} parts");
        let shared = &*self.shared;
        shared.finished.store(0, Ordering::Relaxed);
        shared.work.store((&raw const work).cast_mut().cast(), Ordering::Relaxed);
        let next = (shared.step.load(Ordering::Relaxed) >> STEP).wrapping_add(1);
        shared.step.store(next << STEP | (parts as u64) << PARTS, Ordering::SeqCst);
        if shared.asleep.load(Ordering::SeqCst) > 0 {
            self.threads.iter().map(JoinHandle::thread).for_each(Thread::unpark);
        }
        shared.take_parts(0);
        let mut search = Search::new();
        while shared.finished.load(Ordering::Acquire) < parts {
            if search.is_long() {
                thread::yield_now();
            }
        }
        if let Some(panic) = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take() {
            resume_unwind(panic);
        }
    }

    /// The length of each part but the last of `len` numbers, a multiple of `unit`: one part for each thread.
    pub fn share(&self, len: usize, unit: usize) -> usize {
        len.div_ceil(unit).div_ceil(self.threads()).max(1) * unit
    }

    /// Divides `outs` after every `unit` numbers into as many parts as there are threads, and lets `work` write each part. It gets
    /// the thread's number, the index of the part's first number, and the part of each of `outs`.
    ///
    /// # Panics
    /// If `outs` have several lengths; an empty one is left alone.
    pub fn divide<const N: usize>(&mut self, outs: [&mut [f32]; N], unit: usize, work: Division<'_, N>) {
        let len = outs.iter().map(|out| out.len()).max().unwrap_or(0);
        assert!(outs.iter().all(|out| out.is_empty() || out.len() == len), "outputs of one length");
        let each = self.share(len, unit);
        let starts = Starts(outs.map(|out| (out.as_mut_ptr(), out.len())));
        self.run(len.div_ceil(each), &|thread, part| {
            let first = part * each;
            let parts = starts.get().map(|(start, len)| {
                let range = first.min(len)..(first + each).min(len);
                // SAFETY: `outs` are borrowed until all parts are finished; parts do not overlap, and each runs once.
                #[allow(unsafe_code)]
                unsafe {
                    std::slice::from_raw_parts_mut(start.add(range.start), range.len())
                }
            });
            work(thread, first, parts);
        });
    }
}

/// Starts and lengths of numbers that several threads write, each thread its own part.
struct Starts<const N: usize>([(*mut f32, usize); N]);

// SAFETY: see [`Pool::divide`], its only user.
#[allow(unsafe_code)]
unsafe impl<const N: usize> Sync for Starts<N> {}

impl<const N: usize> Starts<N> {
    fn get(&self) -> [(*mut f32, usize); N] {
        self.0
    }
}

/// How long a thread has been looking for something.
struct Search {
    looks: u32,
    since: Instant,
}

impl Search {
    fn new() -> Self {
        Search { looks: 0, since: Instant::now() }
    }

    /// Waits a moment. Whether it has been long.
    fn is_long(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        std::hint::spin_loop();
        self.looks.is_multiple_of(LOOKS) && self.since.elapsed() > LOOK
    }
}

impl Shared {
    /// What a thread of the pool does.
    fn serve(&self, number: usize) {
        let mut search = Search::new();
        while !self.stop.load(Ordering::Acquire) {
            if self.take_parts(number) {
                search = Search::new();
            } else if search.is_long() {
                // The caller either sees this thread asleep, or this thread sees the caller's step.
                self.asleep.fetch_add(1, Ordering::SeqCst);
                if !self.has_parts() && !self.stop.load(Ordering::SeqCst) {
                    thread::park();
                }
                self.asleep.fetch_sub(1, Ordering::SeqCst);
                search = Search::new();
            }
        }
    }

    fn has_parts(&self) -> bool {
        let step = self.step.load(Ordering::SeqCst);
        taken(step) < parts(step)
    }

    /// Runs parts until all are taken; whether it ran one.
    fn take_parts(&self, thread: usize) -> bool {
        let mut any = false;
        while let Some(part) = self.take() {
            any = true;
            let work = self.work.load(Ordering::Relaxed).cast::<Work<'_>>();
            // SAFETY: a part of this step is taken and not finished, so `run` has not returned, and its `work` is alive.
            #[allow(unsafe_code)]
            let work = unsafe { *work };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(thread, part))) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
            self.finished.fetch_add(1, Ordering::Release);
        }
        any
    }

    /// The next part of the current step.
    fn take(&self) -> Option<usize> {
        let mut step = self.step.load(Ordering::Acquire);
        while taken(step) < parts(step) {
            match self.step.compare_exchange_weak(step, step + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(taken(step) as usize),
                Err(now) => step = now,
            }
        }
        None
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // Parts catch their panics.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(NonZeroUsize::new(threads).unwrap()).unwrap()
    }

    #[test]
    fn every_part_runs_once_in_every_step() {
        for threads in [2, 3, 8] {
            let mut pool = pool(threads);
            for step in 0..500 {
                let counts = (0..step % 13).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>();
                pool.run(counts.len(), &|thread, part| {
                    assert!(thread < threads);
                    counts[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} {step}");
                if step % 100 == 0 {
                    // Long enough for the others to fall asleep.
                    thread::sleep(2 * LOOK);
                }
            }
        }
    }

    #[test]
    fn all_numbers_are_divided() {
        for (len, unit) in [(10, 1), (12, 4), (7, 7), (30, 3), (2, 2), (0, 5)] {
            let (mut out, mut twice) = (vec![0.0; len], vec![0.0; len]);
            pool(4).divide([&mut out, &mut twice, &mut []], unit, &|_, first, [part, twice, none]| {
                assert!(first.is_multiple_of(unit) && part.len().is_multiple_of(unit) && none.is_empty());
                part.iter_mut().enumerate().for_each(|(i, x)| *x += (first + i) as f32);
                twice.iter_mut().zip(part).for_each(|(twice, x)| *twice += 2.0 * *x);
            });
            assert!(out.iter().enumerate().all(|(i, x)| *x == i as f32), "{len} {unit}");
            assert!(twice.iter().enumerate().all(|(i, x)| *x == 2.0 * i as f32), "{len} {unit}");
        }
    }

    #[test]
    fn a_panic_comes_back_and_the_pool_goes_on() {
        let mut pool = pool(2);
        let failed = catch_unwind(AssertUnwindSafe(|| pool.run(5, &|_, part| assert_ne!(part, 3))));
        assert!(failed.is_err());
        let done = AtomicUsize::new(0);
        pool.run(5, &|_, _| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 5);
    }

    #[test]
    fn one_thread_needs_no_pool() {
        assert!(Pool::new(NonZeroUsize::MIN).is_none());
    }
}

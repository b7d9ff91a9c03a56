//! One history: a server, its students, and what befalls the network between them.

use crate::asker::Asker;
use crate::book::{Book, Counts, Shared, now};
use crate::learner::{self, Learner};
use crate::policies::{boxed, function, loaded, sums, wide};
use crate::window::{Windowing, Windows};
use oto_env::rng::Rng;
use oto_policy::Policy;
use oto_proto::BatchId;
use oto_server::dataset::{DatasetStore, LogStore, State};
use oto_server::simulation::Pace;
use oto_server::{Collecting, Limits, Policies, QueueLimits, ServerConfig};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;
use turmoil::net::TcpListener;
use turmoil::{Builder, Sim};

/// Where the server is.
pub const SERVER: &str = "server";
/// And which port it has.
pub const PORT: u16 = 8080;

/// Students that account for every request; after them one that does not read, then those that learn.
const ASKERS: usize = 3;
const LEARNERS: usize = 2;
const STUDENTS: usize = ASKERS + 1 + LEARNERS;

const TICK: Duration = Duration::from_millis(10);
/// How long the network is bad, and then good.
const CHAOS: Duration = Duration::from_secs(20);
const PEACE: Duration = Duration::from_secs(15);
/// After which everyone is answered again, if only with `overloaded`.
const RECOVERY: Duration = Duration::from_secs(11);
/// For a server to stop, and for its students to notice, even the one that reads only now and then.
const FAREWELL: Duration = Duration::from_secs(9);

/// A time between these two, in milliseconds.
pub fn chance(rng: &mut Rng, least: u32, most: u32) -> Duration {
    Duration::from_millis(u64::from(least + rng.below(most - least)))
}

fn student(index: usize) -> String {
    format!("student{index}")
}

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("oto-simulation-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Folder(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Twice the first number, and who says so.
fn says(version: u32) -> Box<dyn Policy> {
    function(boxed(4), boxed(2), move |row, actions| actions.extend([row[0] * 2.0, version as f32]))
}

/// How a server is set up in one history.
#[derive(Clone)]
struct Setup {
    folder: PathBuf,
    limits: Limits,
    /// The longest that a batch usually takes, in milliseconds.
    slowness: u32,
    rng: Arc<Mutex<Rng>>,
    book: Shared,
    windows: Windows,
    orders: Arc<Orders>,
}

/// What a server is told from outside.
#[derive(Default)]
struct Orders {
    stop: Notify,
    kill: Notify,
}

impl Setup {
    fn chance(&self, least: u32, most: u32) -> Duration {
        chance(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner), least, most)
    }

    /// Work takes its time, and now and then much more.
    fn pace(&self) -> Pace {
        let setup = self.clone();
        Arc::new(move || match setup.chance(0, 100).as_millis() {
            0 => setup.chance(100, 900),
            _ => setup.chance(1, setup.slowness),
        })
    }

    /// One life of the server, until it is killed or told to stop.
    async fn serve(self) -> turmoil::Result {
        let store: Arc<dyn DatasetStore> = Arc::new(LogStore::open(&self.folder, 1 << 30)?);
        let recurrent = loaded("sums", sums(boxed(4), 1.0));
        let policies = Policies::in_tasks(vec![loaded("number", says(1)), wide(), recurrent], self.pace())?;
        let mut config = ServerConfig::new(policies.clone());
        config.limits = self.limits.clone();
        let stores = HashMap::from([("number".to_owned(), store)]);
        config.collecting = Collecting::new(stores).in_tasks(self.pace());
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        let windowing = Windowing { listener, windows: self.windows.clone() };
        let publisher = self.clone();
        let publishing = tokio::spawn(async move {
            for version in 2.. {
                sleep(publisher.chance(200, 4_000)).await;
                let recurrent = sums(boxed(4), version as f32);
                if policies
                    .publish("number", says(version))
                    .and_then(|()| policies.publish("sums", recurrent))
                    .is_err()
                {
                    return;
                }
            }
        });
        self.book.note(now(), "the server serves");
        // A runtime that is dropped drops its tasks in an order that differs from one history to the next; a server that is
        // dropped does not.
        tokio::select! {
            biased;
            () = self.orders.kill.notified() => {}
            result = oto_server::run(windowing, config, self.orders.stop.notified()) => result?,
        }
        publishing.abort();
        self.book.note(now(), "the server is gone");
        // Its connections are dropped meanwhile.
        sleep(TICK / 2).await;
        Ok(())
    }
}

/// Limits that are met.
fn limits(rng: &mut Rng) -> Limits {
    let mut seconds = |least: f64, most: f64| Duration::from_secs_f64(rng.uniform(least, most));
    let queue = QueueLimits { timeout: seconds(0.1, 2.0), ..QueueLimits::default() };
    let (ping_interval, write_timeout) = (seconds(0.5, 3.0), seconds(0.5, 3.0));
    Limits {
        queue: QueueLimits { requests: 3 + rng.below(24) as usize, ..queue },
        credits: 1 + rng.below(8) as u16,
        max_rows: 256,
        connections: STUDENTS + rng.below(8) as usize,
        retry: Duration::from_millis(50),
        restart_spread: Duration::from_millis(500),
        header_timeout: Duration::from_secs(3),
        hello_timeout: Duration::from_secs(3),
        ping_interval,
        peer_timeout: 2 * ping_interval + Duration::from_secs(4),
        write_timeout,
        close_timeout: Duration::from_millis(500),
        stop_timeout: Duration::from_secs(3),
        ..Limits::default()
    }
}

/// What is wrong between the server and a student, and until when.
#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    Cut,
    Held,
}

/// The network, the server's fate, and who decides about both.
struct World<'a> {
    sim: Sim<'a>,
    rng: Rng,
    book: Shared,
    orders: Arc<Orders>,
    trouble: [Option<(Trouble, Duration)>; STUDENTS],
    /// When the server is started again, if it is down.
    back: Option<Duration>,
}

impl World<'_> {
    fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.book.note(self.now(), what);
    }

    /// Lets time pass.
    ///
    /// # Panics
    /// If anyone found something wrong.
    fn step(&mut self, seed: u64) {
        // While something is cut off it may be lost at any moment.
        for (index, trouble) in self.trouble.iter().enumerate() {
            if let Some((Trouble::Cut, _)) = trouble {
                self.book.open().cut.insert(index, self.sim.elapsed());
            }
        }
        if let Err(error) = self.sim.step() {
            self.fails(seed, error);
        }
    }

    fn fails(&self, seed: u64, what: impl std::fmt::Display) -> ! {
        let book = self.book.open();
        let last = &book.trace[book.trace.len().saturating_sub(60)..];
        panic!("OTO_SEEDS={seed}..{}: {what}\n{}", seed + 1, last.join("\n"));
    }

    /// Something befalls the way to a student, or ends.
    fn weather(&mut self, index: usize) {
        let (name, now) = (student(index), self.now());
        match self.trouble[index] {
            Some((trouble, until)) if now >= until => self.mend(index, trouble),
            Some(_) => {}
            None => match self.rng.below(2_000) {
                0..3 => {
                    self.note(format!("{name} is cut off"));
                    self.sim.partition(SERVER, &*name);
                    self.trouble[index] = Some((Trouble::Cut, now + chance(&mut self.rng, 50, 4_000)));
                    self.book.count(|counts| counts.cuts += 1);
                }
                3..7 => {
                    self.note(format!("{name} is held"));
                    self.sim.hold(SERVER, &*name);
                    self.trouble[index] = Some((Trouble::Held, now + chance(&mut self.rng, 50, 3_000)));
                    self.book.count(|counts| counts.holds += 1);
                }
                7..20 => {
                    let latency = chance(&mut self.rng, 1, 800);
                    self.sim.set_link_max_message_latency(SERVER, &*name, latency);
                    self.book.count(|counts| counts.latencies += 1);
                }
                _ => {}
            },
        }
    }

    fn mend(&mut self, index: usize, trouble: Trouble) {
        let name = student(index);
        self.note(format!("{name} is back"));
        match trouble {
            Trouble::Cut => self.sim.repair(SERVER, &*name),
            Trouble::Held => self.sim.release(SERVER, &*name),
        }
        self.trouble[index] = None;
    }

    /// The server is killed, told to stop or started again.
    fn fate(&mut self) {
        let now = self.now();
        if let Some(back) = self.back {
            if now >= back {
                self.start();
            }
            return;
        }
        if !self.sim.is_host_running(SERVER) {
            self.back = Some(now + chance(&mut self.rng, 10, 2_000));
            return;
        }
        match self.rng.below(2_000) {
            0..2 => {
                self.note("the server is killed");
                self.orders.kill.notify_waiters();
                self.book.count(|counts| counts.kills += 1);
            }
            2..4 => {
                self.note("the server is told to stop");
                self.orders.stop.notify_waiters();
                self.book.count(|counts| counts.stops += 1);
            }
            _ => {}
        }
    }

    fn start(&mut self) {
        self.note("the server is started");
        self.back = None;
        self.sim.bounce(SERVER);
    }

    /// Everything is well from now on.
    fn mend_all(&mut self) {
        for index in 0..STUDENTS {
            if let Some((trouble, _)) = self.trouble[index] {
                self.mend(index, trouble);
            }
            self.sim.set_link_max_message_latency(SERVER, &*student(index), Duration::from_millis(20));
        }
        if self.back.is_some() || !self.sim.is_host_running(SERVER) {
            self.start();
        }
    }
}

/// A whole history.
///
/// # Panics
/// If anything happened in it that may not, with the seed and the last that was noted.
pub fn history(seed: u64) -> Book {
    oto_server::simulation::seed(seed);
    let (mut rng, book, windows, folder) =
        (Rng::new(seed), Shared::default(), Windows::default(), Folder::new());
    let (limits, orders) = (limits(&mut rng), Arc::<Orders>::default());
    let setup = Setup {
        folder: folder.0.clone(),
        limits,
        slowness: 2 + rng.below(80),
        rng: Arc::new(Mutex::new(Rng::new(rng.next_u64()))),
        book: book.clone(),
        windows: windows.clone(),
        orders: orders.clone(),
    };
    let mut sim = Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(3600))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(100))
        // The windows bound what is on its way.
        .tcp_capacity(1 << 20)
        .build();
    sim.host(SERVER, move || setup.clone().serve());
    for index in 0..STUDENTS {
        let (book, windows, seed) = (book.clone(), windows.clone(), rng.next_u64());
        sim.host(student(index), move || {
            let (book, windows, rng) = (book.clone(), windows.clone(), Rng::new(seed));
            async move {
                match index > ASKERS {
                    true => Learner::new(index, book, windows, rng)?.live().await,
                    false => {
                        Asker { index, book, windows, rng, sloth: index == ASKERS, recurrent: index == 0 }
                            .live()
                            .await
                    }
                }
            }
        });
    }
    let mut world = World { sim, rng, book: book.clone(), orders, trouble: [None; STUDENTS], back: None };
    while world.now() < CHAOS {
        (0..STUDENTS).for_each(|index| world.weather(index));
        world.fate();
        world.step(seed);
    }
    live_in_peace(&mut world, seed);
    end(&mut world, seed);
    check_store(&folder.0, &world, seed);
    drop(world);
    std::mem::take(&mut *book.open())
}

/// The network is good: everyone who reads is answered again.
fn live_in_peace(world: &mut World<'_>, seed: u64) {
    world.mend_all();
    world.note("there is peace");
    let start = world.now();
    while world.now() < start + PEACE {
        // The server may still have been stopping when the peace began.
        if !world.sim.is_host_running(SERVER) {
            world.start();
        }
        world.step(seed);
    }
    for index in (0..STUDENTS).filter(|index| *index != ASKERS) {
        let answered = world.book.open().answered.get(&index).copied();
        if answered.is_none_or(|at| at < start + RECOVERY) {
            world.fails(seed, format!("student {index} was answered last at {answered:?}"));
        }
    }
}

/// The server stops, and no request is left.
fn end(world: &mut World<'_>, seed: u64) {
    world.note("the end");
    world.orders.stop.notify_waiters();
    let start = world.now();
    while world.now() < start + FAREWELL {
        world.step(seed);
    }
    if world.sim.is_host_running(SERVER) {
        world.fails(seed, "the server did not stop");
    }
    let counts: Counts = world.book.open().counts;
    if counts.requests != counts.ended() {
        world.fails(seed, format!("{} requests, {} ends", counts.requests, counts.ended()));
    }
}

/// What was acknowledged is in the store, once, as it was.
fn check_store(folder: &Path, world: &World<'_>, seed: u64) {
    let store = LogStore::open(folder, 1 << 30).expect("the store of the history");
    let kept = store.list(State::Quarantine).expect("its list");
    let mut once: Vec<u128> = kept.iter().map(|BatchId(name)| *name).collect();
    once.sort_unstable();
    once.dedup();
    let (submitted, acknowledged) = {
        let book = world.book.open();
        (book.submitted.clone(), book.acknowledged.clone())
    };
    let strange = once.iter().any(|name| !submitted.contains(name));
    let lost: Vec<_> = acknowledged.iter().filter(|name| once.binary_search(name).is_err()).collect();
    if once.len() != kept.len() || strange || !store.damage().is_empty() || !lost.is_empty() {
        world.fails(seed, format!("twice or strange or damaged, or lost {lost:?}"));
    }
    for name in once {
        let batch = store.read(BatchId(name)).expect("a batch that is listed");
        let rows = 0..learner::rows(name);
        let observations: Vec<f32> = rows.clone().flat_map(|row| learner::transition(name, row).0).collect();
        let rewards: Vec<f32> = rows.map(|row| learner::transition(name, row).1).collect();
        if batch.observation != observations || batch.reward != rewards {
            world.fails(seed, format!("batch {name:x} is not what was submitted"));
        }
    }
}
